CREATE TABLE acl_rules (
    tenant_id uuid NOT NULL REFERENCES tenants,
    rule_id uuid NOT NULL,
    position integer NOT NULL,
    effect text NOT NULL CHECK (effect IN ('allow', 'deny')),
    action text NOT NULL CHECK (action IN ('publish', 'subscribe', 'all')),
    filter text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant_id, rule_id),
    UNIQUE (tenant_id, effect, action, filter)
);
COMMENT ON TABLE acl_rules IS 'Who may use which topics, beside conversations and inboxes. Of a tenant''s rules the first that matches decides.';
COMMENT ON COLUMN acl_rules.tenant_id IS 'Whose topic tree.';
COMMENT ON COLUMN acl_rules.rule_id IS 'Opaque id.';
COMMENT ON COLUMN acl_rules.position IS 'Place in the tenant''s list: from 1, without gaps.';
COMMENT ON COLUMN acl_rules.effect IS 'allow or deny.';
COMMENT ON COLUMN acl_rules.action IS 'publish, subscribe or all.';
COMMENT ON COLUMN acl_rules.filter IS 'Topic filter, with %u for the user''s id and %c for the Client Identifier.';
