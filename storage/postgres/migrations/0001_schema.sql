-- Times are milliseconds since the Unix epoch, offsets are places in a tenant's log (from 1). Whatever a
-- client sealed or the keyring wrapped is bytea and is never looked into here.

-- Raised with the SQLSTATE by which the caller tells a broken batch from a broken connection.
CREATE FUNCTION sotto_require(holds boolean, fact text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF holds IS DISTINCT FROM true THEN
        RAISE EXCEPTION USING ERRCODE = 'SO001', MESSAGE = fact;
    END IF;
    RETURN true;
END
$$;
COMMENT ON FUNCTION sotto_require IS 'Ends the statement with SQLSTATE SO001 unless what must hold does.';

-- Directory ---------------------------------------------------------------------------------------

CREATE TABLE directory_revision (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    revision bigint NOT NULL
) WITH (fillfactor = 10);
COMMENT ON TABLE directory_revision IS 'One row, raised by every change of the directory.';
COMMENT ON COLUMN directory_revision.only_row IS 'True: there is one row.';
COMMENT ON COLUMN directory_revision.revision IS 'Changes so far.';
INSERT INTO directory_revision (revision) VALUES (0);

CREATE TABLE tenants (
    tenant_id uuid PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    topic_policy smallint NOT NULL CHECK (topic_policy IN (1, 2)),
    created_at_ms bigint NOT NULL
);
COMMENT ON TABLE tenants IS 'Customers: each has a log, a topic tree, users and keys of its own.';
COMMENT ON COLUMN tenants.tenant_id IS 'Opaque id.';
COMMENT ON COLUMN tenants.name IS 'The name behind the @ of a user name.';
COMMENT ON COLUMN tenants.topic_policy IS '1 = by membership, 2 = open.';
COMMENT ON COLUMN tenants.created_at_ms IS 'Milliseconds since the epoch.';

CREATE TABLE users (
    tenant_id uuid NOT NULL REFERENCES tenants,
    user_id uuid NOT NULL,
    name text COLLATE "C" NOT NULL,
    password_hash text NOT NULL,
    created_at_ms bigint NOT NULL,
    PRIMARY KEY (tenant_id, user_id),
    UNIQUE (tenant_id, name)
);
COMMENT ON TABLE users IS 'People who sign in.';
COMMENT ON COLUMN users.user_id IS 'Opaque id, of this tenant.';
COMMENT ON COLUMN users.tenant_id IS 'Whose user.';
COMMENT ON COLUMN users.name IS 'Unique within the tenant.';
COMMENT ON COLUMN users.password_hash IS 'PHC string.';
COMMENT ON COLUMN users.created_at_ms IS 'Milliseconds since the epoch.';

CREATE TABLE devices (
    device_id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    user_id uuid NOT NULL,
    name text COLLATE "C" NOT NULL,
    created_at_ms bigint NOT NULL,
    UNIQUE (tenant_id, user_id, name),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users ON DELETE CASCADE
);
COMMENT ON TABLE devices IS 'Phones, tablets, browsers of a user.';
COMMENT ON COLUMN devices.device_id IS 'Opaque id.';
COMMENT ON COLUMN devices.tenant_id IS 'The tenant of the user.';
COMMENT ON COLUMN devices.user_id IS 'Whose device.';
COMMENT ON COLUMN devices.name IS 'Unique within the user.';
COMMENT ON COLUMN devices.created_at_ms IS 'Milliseconds since the epoch.';

CREATE TABLE conversations (
    tenant_id uuid NOT NULL REFERENCES tenants,
    conversation_id uuid NOT NULL,
    created_at_ms bigint NOT NULL,
    PRIMARY KEY (tenant_id, conversation_id)
);
COMMENT ON TABLE conversations IS 'Groups of users who may write to each other.';
COMMENT ON COLUMN conversations.conversation_id IS 'Opaque id, of this tenant.';
COMMENT ON COLUMN conversations.tenant_id IS 'Whose conversation.';
COMMENT ON COLUMN conversations.created_at_ms IS 'Milliseconds since the epoch.';

CREATE TABLE memberships (
    tenant_id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    user_id uuid NOT NULL,
    since_offset bigint NOT NULL,
    added_at_ms bigint NOT NULL,
    PRIMARY KEY (tenant_id, conversation_id, user_id),
    FOREIGN KEY (tenant_id, conversation_id) REFERENCES conversations ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, user_id) REFERENCES users ON DELETE CASCADE
);
CREATE INDEX memberships_by_user ON memberships (tenant_id, user_id);
COMMENT ON TABLE memberships IS 'Who belongs to which conversation.';
COMMENT ON COLUMN memberships.tenant_id IS 'The tenant of both.';
COMMENT ON COLUMN memberships.conversation_id IS 'The conversation.';
COMMENT ON COLUMN memberships.user_id IS 'The member.';
COMMENT ON COLUMN memberships.since_offset IS 'Offset; messages after it are the member''s to receive.';
COMMENT ON COLUMN memberships.added_at_ms IS 'Milliseconds since the epoch.';

-- Log ---------------------------------------------------------------------------------------------

CREATE TABLE writers (
    writer_id smallint PRIMARY KEY,
    claim uuid,
    batch_number bigint NOT NULL,
    batch_records integer NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE writers IS 'Who may append to the log, and how far it has come. One row.';
COMMENT ON COLUMN writers.writer_id IS '1.';
COMMENT ON COLUMN writers.claim IS 'Drawn by the process that claims the log; null before the first.';
COMMENT ON COLUMN writers.batch_number IS 'The last batch committed; 0 before the first.';
COMMENT ON COLUMN writers.batch_records IS 'Messages of that batch.';
INSERT INTO writers (writer_id, batch_number, batch_records) VALUES (1, 0, 0);

CREATE TABLE counters (
    tenant_id uuid PRIMARY KEY REFERENCES tenants,
    head bigint NOT NULL DEFAULT 0,
    batch_number bigint NOT NULL DEFAULT 0,
    batch_base bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE counters IS 'Where each tenant''s log ends; raised in the transaction that commits the messages.';
COMMENT ON COLUMN counters.tenant_id IS 'Whose log.';
COMMENT ON COLUMN counters.head IS 'Offset of the last message; 0 before the first.';
COMMENT ON COLUMN counters.batch_number IS 'The last batch that raised the head.';
COMMENT ON COLUMN counters.batch_base IS 'Offset: the head before that batch. A repeated batch is answered from it.';

CREATE TABLE topics (
    topic_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenants,
    name text COLLATE "C" NOT NULL,
    conversation_id uuid,
    user_id uuid,
    UNIQUE (tenant_id, name)
);
CREATE INDEX topics_by_conversation ON topics (tenant_id, conversation_id) WHERE conversation_id IS NOT NULL;
CREATE INDEX topics_by_user ON topics (tenant_id, user_id) WHERE user_id IS NOT NULL;
COMMENT ON TABLE topics IS 'Every topic that has carried a stored message. Rows stay: their ids are cached.';
COMMENT ON COLUMN topics.topic_id IS 'Stands for the topic in the log.';
COMMENT ON COLUMN topics.tenant_id IS 'Whose topic tree.';
COMMENT ON COLUMN topics.name IS 'As published. Compared by bytes, so that a filter''s prefix is one range.';
COMMENT ON COLUMN topics.conversation_id IS 'Of c/<conversation>/…; null otherwise.';
COMMENT ON COLUMN topics.user_id IS 'Of u/<user>/…; null otherwise.';

-- No key spans the table but the unique index, and that may stay local to a partition: attaching this
-- table to one partitioned by committed_at_ms rewrites nothing.
CREATE TABLE messages (
    tenant_id uuid NOT NULL,
    log_offset bigint NOT NULL,
    topic_id bigint NOT NULL,
    committed_at_ms bigint NOT NULL,
    expires_at_ms bigint,
    message_id uuid NOT NULL,
    sender_id uuid NOT NULL,
    qos smallint NOT NULL,
    retain boolean NOT NULL,
    wakes boolean NOT NULL,
    sealed bytea NOT NULL
);
-- Ciphertext does not compress: trying costs CPU for every message over 2 kB.
ALTER TABLE messages ALTER COLUMN sealed SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX messages_by_offset ON messages (tenant_id, log_offset);
CREATE INDEX messages_by_topic ON messages (topic_id, log_offset);
COMMENT ON TABLE messages IS 'The log: every durable message once.';
COMMENT ON COLUMN messages.tenant_id IS 'Whose log.';
COMMENT ON COLUMN messages.log_offset IS 'Place in the tenant''s log.';
COMMENT ON COLUMN messages.topic_id IS 'topics.topic_id.';
COMMENT ON COLUMN messages.committed_at_ms IS 'Milliseconds since the epoch.';
COMMENT ON COLUMN messages.expires_at_ms IS 'Milliseconds since the epoch; null: never.';
COMMENT ON COLUMN messages.message_id IS 'Names the message wherever it is stored.';
COMMENT ON COLUMN messages.sender_id IS 'The publishing user.';
COMMENT ON COLUMN messages.qos IS '1 or 2.';
COMMENT ON COLUMN messages.retain IS 'Published with RETAIN set.';
COMMENT ON COLUMN messages.wakes IS 'Sleeping devices are to be woken for it.';
COMMENT ON COLUMN messages.sealed IS 'Sealed payload and properties.';

CREATE TABLE retained (
    topic_id bigint PRIMARY KEY,
    tenant_id uuid NOT NULL,
    log_offset bigint NOT NULL,
    committed_at_ms bigint NOT NULL,
    expires_at_ms bigint,
    message_id uuid NOT NULL,
    sender_id uuid NOT NULL,
    qos smallint NOT NULL,
    sealed bytea NOT NULL
) WITH (fillfactor = 70);
ALTER TABLE retained ALTER COLUMN sealed SET STORAGE EXTERNAL;
COMMENT ON TABLE retained IS 'The retained message of a topic: a copy, since the log forgets in time.';
COMMENT ON COLUMN retained.topic_id IS 'topics.topic_id.';
COMMENT ON COLUMN retained.tenant_id IS 'As in messages.';
COMMENT ON COLUMN retained.log_offset IS 'As in messages.';
COMMENT ON COLUMN retained.committed_at_ms IS 'As in messages.';
COMMENT ON COLUMN retained.expires_at_ms IS 'As in messages.';
COMMENT ON COLUMN retained.message_id IS 'As in messages.';
COMMENT ON COLUMN retained.sender_id IS 'As in messages.';
COMMENT ON COLUMN retained.qos IS 'As in messages.';
COMMENT ON COLUMN retained.sealed IS 'As in messages.';

-- Sessions ----------------------------------------------------------------------------------------

CREATE TABLE sessions (
    session_id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    tenant_id uuid NOT NULL,
    client_id text COLLATE "C" NOT NULL,
    user_id uuid NOT NULL,
    device_id uuid,
    generation bigint NOT NULL,
    connected boolean NOT NULL,
    cursor_offset bigint NOT NULL,
    inflight bytea NOT NULL,
    expiry_seconds bigint NOT NULL,
    expires_at_ms bigint,
    wake_check boolean NOT NULL DEFAULT false,
    UNIQUE (tenant_id, client_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX sessions_by_user ON sessions (tenant_id, user_id) WHERE device_id IS NOT NULL;
CREATE INDEX sessions_by_device ON sessions (device_id) WHERE device_id IS NOT NULL;
CREATE INDEX sessions_by_expiry ON sessions (expires_at_ms) WHERE expires_at_ms IS NOT NULL;
CREATE INDEX sessions_to_check ON sessions (session_id) WHERE wake_check;
COMMENT ON TABLE sessions IS 'MQTT sessions that outlive their connection.';
COMMENT ON COLUMN sessions.session_id IS 'Never used twice.';
COMMENT ON COLUMN sessions.tenant_id IS 'Whose client.';
COMMENT ON COLUMN sessions.client_id IS 'MQTT Client Identifier.';
COMMENT ON COLUMN sessions.user_id IS 'The user signed in; nil for anonymous clients.';
COMMENT ON COLUMN sessions.device_id IS 'The device; null for anonymous clients.';
COMMENT ON COLUMN sessions.generation IS 'Raised by every takeover; older ones are fenced.';
COMMENT ON COLUMN sessions.connected IS 'A connection holds it.';
COMMENT ON COLUMN sessions.cursor_offset IS 'Offset; everything at or before it is done or in flight.';
COMMENT ON COLUMN sessions.inflight IS 'In the order sent, 11 bytes each, big endian: packet id (2), offset (8), flags (1: bits 0-1 QoS, bit 2 released).';
COMMENT ON COLUMN sessions.expiry_seconds IS 'Seconds after the connection ends; 4294967295: never.';
COMMENT ON COLUMN sessions.expires_at_ms IS 'Milliseconds since the epoch; null while connected, or never.';
COMMENT ON COLUMN sessions.wake_check IS 'Disconnected, and not yet decided whether its device is to be woken.';

CREATE TABLE subscriptions (
    session_id bigint NOT NULL REFERENCES sessions ON DELETE CASCADE,
    filter text COLLATE "C" NOT NULL,
    options smallint NOT NULL,
    identifier integer,
    since_offset bigint NOT NULL,
    PRIMARY KEY (session_id, filter)
);
COMMENT ON TABLE subscriptions IS 'Subscriptions of stored sessions.';
COMMENT ON COLUMN subscriptions.session_id IS 'The session.';
COMMENT ON COLUMN subscriptions.filter IS 'As subscribed, $share/… included.';
COMMENT ON COLUMN subscriptions.options IS 'The Subscription Options byte of MQTT 5.';
COMMENT ON COLUMN subscriptions.identifier IS 'Subscription Identifier, 1 to 268435455.';
COMMENT ON COLUMN subscriptions.since_offset IS 'Offset; it holds for messages after it.';

CREATE TABLE exactly_once_received (
    session_id bigint NOT NULL REFERENCES sessions ON DELETE CASCADE,
    packet_id integer NOT NULL,
    PRIMARY KEY (session_id, packet_id)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);
COMMENT ON TABLE exactly_once_received IS 'QoS 2 messages received and committed whose PUBREL has not come.';
COMMENT ON COLUMN exactly_once_received.session_id IS 'The publisher''s session.';
COMMENT ON COLUMN exactly_once_received.packet_id IS 'Packet Identifier, 1 to 65535.';

-- Wakeups -----------------------------------------------------------------------------------------

CREATE TABLE push_registrations (
    device_id uuid PRIMARY KEY REFERENCES devices ON DELETE CASCADE,
    tenant_id uuid NOT NULL,
    platform smallint NOT NULL,
    sealed_token bytea NOT NULL,
    lookup bytea NOT NULL,
    registered_at_ms bigint NOT NULL
);
CREATE INDEX push_registrations_by_lookup ON push_registrations (tenant_id, lookup);
COMMENT ON TABLE push_registrations IS 'Where each device is to be woken.';
COMMENT ON COLUMN push_registrations.device_id IS 'The device.';
COMMENT ON COLUMN push_registrations.tenant_id IS 'The tenant of the device.';
COMMENT ON COLUMN push_registrations.platform IS 'Push service: 1 = UnifiedPush.';
COMMENT ON COLUMN push_registrations.sealed_token IS 'Sealed token or endpoint.';
COMMENT ON COLUMN push_registrations.lookup IS 'Keyed hash of the token, 32 bytes.';
COMMENT ON COLUMN push_registrations.registered_at_ms IS 'Milliseconds since the epoch.';

-- A queue: every row is inserted once and deleted soon, so it is vacuumed by count, not by share. Its ids
-- are cached by the one connection that inserts.
CREATE TABLE outbox (
    outbox_id bigint GENERATED ALWAYS AS IDENTITY (CACHE 1024) PRIMARY KEY,
    topic_id bigint NOT NULL,
    log_offset bigint NOT NULL,
    committed_at_ms bigint NOT NULL,
    expires_at_ms bigint,
    sender_id uuid NOT NULL
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 50000,
    autovacuum_vacuum_cost_delay = 0
);
COMMENT ON TABLE outbox IS 'Messages for which sleeping devices may have to be woken.';
COMMENT ON COLUMN outbox.outbox_id IS 'Roughly in order of commit.';
COMMENT ON COLUMN outbox.topic_id IS 'topics.topic_id.';
COMMENT ON COLUMN outbox.log_offset IS 'The message''s place in its tenant''s log.';
COMMENT ON COLUMN outbox.committed_at_ms IS 'Milliseconds since the epoch.';
COMMENT ON COLUMN outbox.expires_at_ms IS 'Milliseconds since the epoch; null: never.';
COMMENT ON COLUMN outbox.sender_id IS 'The publishing user, whose own devices are not woken.';

CREATE SEQUENCE wake_leases CACHE 64;
COMMENT ON SEQUENCE wake_leases IS 'Numbers claims of wakeups; never used twice, so a late settlement hits nothing.';

CREATE TABLE wakes (
    device_id uuid PRIMARY KEY REFERENCES push_registrations ON DELETE CASCADE,
    tenant_id uuid NOT NULL,
    due_since_ms bigint NOT NULL,
    due_at_ms bigint NOT NULL,
    lease bigint,
    attempts integer NOT NULL DEFAULT 0,
    sent boolean NOT NULL DEFAULT false
) WITH (
    fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX wakes_due ON wakes (due_at_ms) WHERE NOT sent;
COMMENT ON TABLE wakes IS 'One outstanding wakeup a device; it goes when the device returns.';
COMMENT ON COLUMN wakes.device_id IS 'The sleeping device.';
COMMENT ON COLUMN wakes.tenant_id IS 'The tenant of the device.';
COMMENT ON COLUMN wakes.due_since_ms IS 'Milliseconds since the epoch.';
COMMENT ON COLUMN wakes.due_at_ms IS 'Milliseconds since the epoch: when it may be claimed; the lease''s end while it is.';
COMMENT ON COLUMN wakes.lease IS 'The claim that may settle it; null when none may.';
COMMENT ON COLUMN wakes.attempts IS 'Failed attempts.';
COMMENT ON COLUMN wakes.sent IS 'Handed to the push service; nothing more is sent until the device has been back.';

CREATE TABLE dead_letters (
    dead_letter_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id uuid NOT NULL,
    device_id uuid NOT NULL,
    attempts integer NOT NULL,
    outcome text NOT NULL,
    died_at_ms bigint NOT NULL
);
CREATE INDEX dead_letters_by_death ON dead_letters (died_at_ms);
COMMENT ON TABLE dead_letters IS 'Wakeups given up.';
COMMENT ON COLUMN dead_letters.dead_letter_id IS 'In order of death.';
COMMENT ON COLUMN dead_letters.tenant_id IS 'The tenant of the device.';
COMMENT ON COLUMN dead_letters.device_id IS 'The device not woken.';
COMMENT ON COLUMN dead_letters.attempts IS 'Failed attempts.';
COMMENT ON COLUMN dead_letters.outcome IS 'The kind of failure.';
COMMENT ON COLUMN dead_letters.died_at_ms IS 'Milliseconds since the epoch.';

-- Audit and keys ----------------------------------------------------------------------------------

CREATE TABLE audit (
    audit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at_ms bigint NOT NULL,
    tenant_id uuid,
    actor_id uuid,
    action text NOT NULL,
    resource_id uuid,
    allowed boolean NOT NULL
);
CREATE INDEX audit_by_tenant ON audit (tenant_id, audit_id);
COMMENT ON TABLE audit IS 'Who did what, to what, with which outcome. Ids only.';
COMMENT ON COLUMN audit.audit_id IS 'In order of writing.';
COMMENT ON COLUMN audit.at_ms IS 'Milliseconds since the epoch.';
COMMENT ON COLUMN audit.tenant_id IS 'Null where none is known.';
COMMENT ON COLUMN audit.actor_id IS 'The user who acted; null for an operator, or before authentication.';
COMMENT ON COLUMN audit.action IS 'What was done or tried.';
COMMENT ON COLUMN audit.resource_id IS 'The user, device or conversation acted on.';
COMMENT ON COLUMN audit.allowed IS 'It was permitted.';

CREATE TABLE epoch_keys (
    tenant_id uuid NOT NULL,
    epoch bigint NOT NULL,
    wrapped bytea NOT NULL,
    commitment bytea NOT NULL,
    PRIMARY KEY (tenant_id, epoch)
);
COMMENT ON TABLE epoch_keys IS 'Tenant keys, wrapped by the key service.';
COMMENT ON COLUMN epoch_keys.tenant_id IS 'Whose key.';
COMMENT ON COLUMN epoch_keys.epoch IS 'From 1; each rotation adds 1.';
COMMENT ON COLUMN epoch_keys.wrapped IS 'As the key service returned it.';
COMMENT ON COLUMN epoch_keys.commitment IS 'HMAC that the unwrapped key must give, 32 bytes.';

CREATE TABLE data_keys (
    key_id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    scope_kind smallint NOT NULL,
    scope_id uuid NOT NULL,
    epoch bigint NOT NULL,
    wrapped bytea NOT NULL,
    commitment bytea NOT NULL,
    UNIQUE (tenant_id, scope_kind, scope_id, epoch)
);
COMMENT ON TABLE data_keys IS 'Keys that seal messages and secrets, wrapped by an epoch key.';
COMMENT ON COLUMN data_keys.key_id IS 'Stands in every sealed message.';
COMMENT ON COLUMN data_keys.tenant_id IS 'Whose key.';
COMMENT ON COLUMN data_keys.scope_kind IS '1 = a conversation, 2 = other topics, 3 = secrets, 4 = lookup hashes.';
COMMENT ON COLUMN data_keys.scope_id IS 'The conversation; nil for the other kinds.';
COMMENT ON COLUMN data_keys.epoch IS 'Which epoch key wraps it.';
COMMENT ON COLUMN data_keys.wrapped IS 'Wrapped key.';
COMMENT ON COLUMN data_keys.commitment IS 'HMAC that the unwrapped key must give, 32 bytes.';
