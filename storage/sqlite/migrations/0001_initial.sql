-- The schema of the embedded store. Migrations are only added, never edited.
--
-- Units are in the names: `_ms` is milliseconds, `_at_ms` milliseconds since the Unix epoch.
-- An id is the 16 bytes of a UUID. A flag is 0 or 1.
--
-- A `log_id` is a place in a tenant's log: tenant_no << 44 | offset. Ordered by it, a tenant's messages
-- lie together, in the order in which they were committed.

CREATE TABLE tenants (
    tenant_no    INTEGER PRIMARY KEY,                  -- 1 to 524,287; the tenant in every other table
    tenant_id    BLOB    NOT NULL UNIQUE,              -- UUID
    name         TEXT    NOT NULL UNIQUE,
    open_topics  INTEGER NOT NULL                      -- flag: no topic is guarded
) STRICT;

CREATE TABLE counters (
    tenant_no  INTEGER PRIMARY KEY REFERENCES tenants,
    head       INTEGER NOT NULL                        -- the last offset given out; 0: none yet
) STRICT;

-- One row: the last batch that was committed, so that it can be told from the one after it.
CREATE TABLE log_writer (
    writer        INTEGER PRIMARY KEY CHECK (writer = 1),
    batch_number  INTEGER NOT NULL,                    -- 0: none yet
    offsets       BLOB    NOT NULL                     -- of its messages, 8 bytes each, big-endian
) STRICT;
INSERT INTO log_writer VALUES (1, 0, x'');

CREATE TABLE topics (
    topic_id    INTEGER PRIMARY KEY,
    tenant_no   INTEGER NOT NULL REFERENCES tenants,
    name        TEXT    NOT NULL,
    scope_kind  INTEGER NOT NULL,                      -- 0 other, 1 conversation, 2 inbox
    scope_id    BLOB,                                  -- UUID of the conversation or user; null: other
    UNIQUE (tenant_no, name)
) STRICT;
CREATE INDEX topics_by_scope ON topics (tenant_no, scope_kind, scope_id) WHERE scope_kind <> 0;

CREATE TABLE messages (
    log_id           INTEGER PRIMARY KEY,
    topic_id         INTEGER NOT NULL,                 -- of `topics`; its writer has just looked it up there
    message_id       BLOB    NOT NULL,                 -- UUID
    sender           BLOB    NOT NULL,                 -- UUID of the user
    qos              INTEGER NOT NULL,                 -- 0, 1 or 2
    retain           INTEGER NOT NULL,                 -- flag: published with RETAIN
    wakes            INTEGER NOT NULL,                 -- flag: sleeping devices are to be woken for it
    committed_at_ms  INTEGER NOT NULL,
    expires_at_ms    INTEGER,                          -- null: never
    sealed           BLOB    NOT NULL                  -- as the keyring sealed it
) STRICT;
-- Every index ends in the rowid, here log_id: a topic's messages in the order of the log.
CREATE INDEX messages_by_topic ON messages (topic_id);

-- A copy, so that it outlives its place in the log.
CREATE TABLE retained (
    topic_id         INTEGER PRIMARY KEY REFERENCES topics,
    tenant_no        INTEGER NOT NULL,
    topic            TEXT    NOT NULL,
    log_id           INTEGER NOT NULL,
    message_id       BLOB    NOT NULL,                 -- UUID
    sender           BLOB    NOT NULL,                 -- UUID of the user
    qos              INTEGER NOT NULL,                 -- 0, 1 or 2
    committed_at_ms  INTEGER NOT NULL,
    expires_at_ms    INTEGER,                          -- null: never
    sealed           BLOB    NOT NULL
) STRICT;
CREATE INDEX retained_by_topic ON retained (tenant_no, topic);

CREATE TABLE outbox (
    outbox_id  INTEGER PRIMARY KEY,                    -- first in, first out, across tenants
    log_id     INTEGER NOT NULL                        -- of `messages`
) STRICT;

CREATE TABLE users (
    tenant_no      INTEGER NOT NULL REFERENCES tenants,
    user_id        BLOB    NOT NULL,                   -- UUID
    name           TEXT    NOT NULL,
    password_hash  TEXT    NOT NULL,                   -- PHC string
    PRIMARY KEY (tenant_no, user_id),
    UNIQUE (tenant_no, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE devices (
    tenant_no  INTEGER NOT NULL,
    device_id  BLOB    NOT NULL,                       -- UUID
    user_id    BLOB    NOT NULL,
    name       TEXT    NOT NULL,
    PRIMARY KEY (tenant_no, device_id),
    UNIQUE (tenant_no, user_id, name),
    FOREIGN KEY (tenant_no, user_id) REFERENCES users ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TABLE conversations (
    tenant_no        INTEGER NOT NULL REFERENCES tenants,
    conversation_id  BLOB    NOT NULL,                 -- UUID
    PRIMARY KEY (tenant_no, conversation_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE memberships (
    tenant_no        INTEGER NOT NULL,
    conversation_id  BLOB    NOT NULL,
    user_id          BLOB    NOT NULL,
    since            INTEGER NOT NULL,                 -- offset: messages after it are the member's
    PRIMARY KEY (tenant_no, conversation_id, user_id),
    FOREIGN KEY (tenant_no, conversation_id) REFERENCES conversations ON DELETE CASCADE,
    FOREIGN KEY (tenant_no, user_id) REFERENCES users ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX memberships_by_user ON memberships (tenant_no, user_id);

-- One row: raised by every change to tenants, users, devices, conversations and memberships.
CREATE TABLE directory_revision (
    directory  INTEGER PRIMARY KEY CHECK (directory = 1),
    revision   INTEGER NOT NULL
) STRICT;
INSERT INTO directory_revision VALUES (1, 0);

CREATE TABLE sessions (
    session_id      INTEGER PRIMARY KEY AUTOINCREMENT, -- never given twice: an old holder finds nothing
    tenant_no       INTEGER NOT NULL REFERENCES tenants,
    client_id       TEXT    NOT NULL,
    user_id         BLOB    NOT NULL,                  -- UUID; nil: anonymous
    device_id       BLOB,                              -- UUID; null: none
    generation      INTEGER NOT NULL,                  -- raised by every takeover
    cursor          INTEGER NOT NULL,                  -- offset: what is at or before it is done
    inflight        BLOB    NOT NULL,                  -- sent and not done; drawn in inflight.rs
    connected       INTEGER NOT NULL,                  -- flag
    expiry_seconds  INTEGER NOT NULL,                  -- 4,294,967,295: never
    expires_at_ms   INTEGER,                           -- null: connected, or never
    UNIQUE (tenant_no, client_id)
) STRICT;
CREATE INDEX sessions_by_user ON sessions (tenant_no, user_id);
CREATE INDEX sessions_by_device ON sessions (tenant_no, device_id) WHERE device_id IS NOT NULL;
CREATE INDEX sessions_by_expiry ON sessions (expires_at_ms) WHERE expires_at_ms IS NOT NULL;

CREATE TABLE subscriptions (
    session_id  INTEGER NOT NULL REFERENCES sessions ON DELETE CASCADE,
    filter      TEXT    NOT NULL,                      -- as subscribed, $share/ included
    options     INTEGER NOT NULL,                      -- the Subscription Options byte of MQTT 5
    identifier  INTEGER,                               -- Subscription Identifier; null: none
    since       INTEGER NOT NULL,                      -- offset: it holds for messages after it
    PRIMARY KEY (session_id, filter)
) STRICT, WITHOUT ROWID;

-- QoS 2 PUBLISH packets received whose PUBREL has not come.
CREATE TABLE exactly_once_received (
    session_id  INTEGER NOT NULL REFERENCES sessions ON DELETE CASCADE,
    packet_id   INTEGER NOT NULL,
    PRIMARY KEY (session_id, packet_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE push_registrations (
    tenant_no         INTEGER NOT NULL,
    device_id         BLOB    NOT NULL,                -- UUID
    platform          INTEGER NOT NULL,                -- 1 UnifiedPush
    sealed_token      BLOB    NOT NULL,                -- as the keyring sealed it
    lookup            BLOB    NOT NULL,                -- keyed hash of the token, 32 bytes
    registered_at_ms  INTEGER NOT NULL,
    PRIMARY KEY (tenant_no, device_id),
    FOREIGN KEY (tenant_no, device_id) REFERENCES devices ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- One row a device that sleeps and is to be woken, until it has been back.
CREATE TABLE wakes (
    tenant_no           INTEGER NOT NULL,
    device_id           BLOB    NOT NULL,              -- UUID
    sent                INTEGER NOT NULL DEFAULT 0,    -- flag: handed over, nothing more is due
    due_since_at_ms     INTEGER NOT NULL,
    next_attempt_at_ms  INTEGER NOT NULL,              -- not before
    attempts            INTEGER NOT NULL DEFAULT 0,    -- failed ones
    lease               INTEGER NOT NULL DEFAULT 0,    -- number of the claim; 0: unclaimed
    lease_until_at_ms   INTEGER NOT NULL DEFAULT 0,    -- from then on another may claim it
    PRIMARY KEY (tenant_no, device_id),
    FOREIGN KEY (tenant_no, device_id) REFERENCES push_registrations ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX wakes_due ON wakes (next_attempt_at_ms) WHERE sent = 0;

-- One row: the last lease given out; none is given twice.
CREATE TABLE wake_lease (
    counter  INTEGER PRIMARY KEY CHECK (counter = 1),
    lease    INTEGER NOT NULL
) STRICT;
INSERT INTO wake_lease VALUES (1, 0);

CREATE TABLE dead_letters (
    dead_letter_id  INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_no       INTEGER NOT NULL REFERENCES tenants,
    device_id       BLOB    NOT NULL,                  -- UUID
    attempts        INTEGER NOT NULL,                  -- failed ones, the last included
    outcome         TEXT    NOT NULL,                  -- of a fixed set
    died_at_ms      INTEGER NOT NULL
) STRICT;
CREATE INDEX dead_letters_by_age ON dead_letters (died_at_ms);

CREATE TABLE audit (
    audit_id   INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms      INTEGER NOT NULL,
    tenant_id  BLOB,                                   -- UUID; null: none is concerned
    actor      BLOB,                                   -- UUID of the user; null: an operator
    action     TEXT    NOT NULL,                       -- of a fixed set
    resource   BLOB,                                   -- UUID of what was acted on
    allowed    INTEGER NOT NULL                        -- flag
) STRICT;
CREATE INDEX audit_by_tenant ON audit (tenant_id);

CREATE TABLE epoch_keys (
    tenant_id   BLOB    NOT NULL,                      -- UUID
    epoch       INTEGER NOT NULL,                      -- from 1
    wrapped     BLOB    NOT NULL,                      -- as the key service returned it
    commitment  BLOB    NOT NULL,                      -- 32 bytes
    PRIMARY KEY (tenant_id, epoch)
) STRICT, WITHOUT ROWID;

CREATE TABLE data_keys (
    key_id      BLOB    NOT NULL PRIMARY KEY,          -- UUID
    tenant_id   BLOB    NOT NULL,                      -- UUID
    scope_kind  INTEGER NOT NULL,
    scope_id    BLOB    NOT NULL,                      -- UUID; nil: the whole tenant
    epoch       INTEGER NOT NULL,                      -- of the epoch key that wraps it
    wrapped     BLOB    NOT NULL,
    commitment  BLOB    NOT NULL,                      -- 32 bytes
    UNIQUE (tenant_id, scope_kind, scope_id, epoch)
) STRICT, WITHOUT ROWID;
