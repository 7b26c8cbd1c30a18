-- Who may use which topics, beside conversations and inboxes. Of a tenant's rules the first that matches
-- decides.
CREATE TABLE acl_rules (
    tenant_no  INTEGER NOT NULL REFERENCES tenants,
    rule_id    BLOB    NOT NULL,                       -- UUID
    position   INTEGER NOT NULL,                       -- from 1, without gaps
    effect     TEXT    NOT NULL,                       -- allow or deny
    action     TEXT    NOT NULL,                       -- publish, subscribe or all
    filter     TEXT    NOT NULL,                       -- with %u for the user's id, %c for the Client Identifier
    PRIMARY KEY (tenant_no, rule_id),
    UNIQUE (tenant_no, effect, action, filter)
) STRICT, WITHOUT ROWID;
