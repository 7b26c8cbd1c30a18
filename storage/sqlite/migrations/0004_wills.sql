-- Wills of stored sessions, until they are published or withdrawn. A will outlives the session that it ends with,
-- so no key binds them.

CREATE TABLE wills (
    message_id      BLOB    NOT NULL PRIMARY KEY,      -- UUID
    session_id      INTEGER NOT NULL,
    tenant_no       INTEGER NOT NULL REFERENCES tenants,
    client_id       TEXT    NOT NULL,
    sender          BLOB    NOT NULL,                  -- UUID of the user; nil: anonymous
    topic           TEXT    NOT NULL,
    qos             INTEGER NOT NULL,                  -- 0, 1 or 2
    retain          INTEGER NOT NULL,                  -- flag: to be published with RETAIN
    delay_seconds   INTEGER NOT NULL,
    expiry_seconds  INTEGER,                           -- from its publication; null: never
    due_at_ms       INTEGER,                           -- 0: at once; null: its session is connected
    sealed          BLOB    NOT NULL                   -- as the keyring sealed it
) STRICT;
CREATE INDEX wills_by_session ON wills (session_id);
CREATE INDEX wills_due ON wills (due_at_ms) WHERE due_at_ms IS NOT NULL;
