-- No key binds a will to its session: it outlives the session that it ends with.
CREATE TABLE wills (
    message_id uuid PRIMARY KEY,
    session_id bigint NOT NULL,
    tenant_id uuid NOT NULL,
    client_id text COLLATE "C" NOT NULL,
    sender_id uuid NOT NULL,
    topic text COLLATE "C" NOT NULL,
    qos smallint NOT NULL,
    retain boolean NOT NULL,
    delay_seconds bigint NOT NULL,
    expiry_seconds bigint,
    due_at_ms bigint,
    sealed bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);
ALTER TABLE wills ALTER COLUMN sealed SET STORAGE EXTERNAL;
CREATE INDEX wills_by_session ON wills (session_id);
CREATE INDEX wills_due ON wills (due_at_ms) WHERE due_at_ms IS NOT NULL;
COMMENT ON TABLE wills IS 'Wills of stored sessions, until they are published or withdrawn.';
COMMENT ON COLUMN wills.message_id IS 'Names the message, here and once it is published.';
COMMENT ON COLUMN wills.session_id IS 'The session that it was kept with.';
COMMENT ON COLUMN wills.tenant_id IS 'Whose client.';
COMMENT ON COLUMN wills.client_id IS 'MQTT Client Identifier.';
COMMENT ON COLUMN wills.sender_id IS 'The publishing user; nil for anonymous clients.';
COMMENT ON COLUMN wills.topic IS 'Where it is to be published.';
COMMENT ON COLUMN wills.qos IS '0, 1 or 2.';
COMMENT ON COLUMN wills.retain IS 'To be published with RETAIN set.';
COMMENT ON COLUMN wills.delay_seconds IS 'Seconds from the end of its connection.';
COMMENT ON COLUMN wills.expiry_seconds IS 'Seconds from its publication; null: never.';
COMMENT ON COLUMN wills.due_at_ms IS 'Milliseconds since the epoch; 0: at once; null while its session is connected.';
COMMENT ON COLUMN wills.sealed IS 'Sealed payload and properties.';
