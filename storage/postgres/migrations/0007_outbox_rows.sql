-- One outbox row for several messages of one commit: a row, its index entry and its log record each cost about as
-- much as a message's share of the rest of the commit.

ALTER TABLE outbox RENAME TO outbox_before;
ALTER TABLE outbox_before RENAME CONSTRAINT outbox_pkey TO outbox_before_pkey;

CREATE TABLE outbox (
    outbox_id bigint GENERATED ALWAYS AS IDENTITY (CACHE 1024) PRIMARY KEY,
    base_offset bigint NOT NULL,
    ordinals integer[] NOT NULL,
    topic_ids bigint[] NOT NULL,
    sender_ids uuid[] NOT NULL,
    expiries_ms bigint[] NOT NULL,
    committed_at_ms bigint NOT NULL
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 10000,
    autovacuum_vacuum_cost_delay = 0
);
COMMENT ON TABLE outbox IS 'Messages for which sleeping devices may have to be woken: in a row some of one tenant and one commit.';
COMMENT ON COLUMN outbox.outbox_id IS 'Roughly in order of commit.';
COMMENT ON COLUMN outbox.base_offset IS 'Offset: a message''s place in its tenant''s log is this and its ordinal.';
COMMENT ON COLUMN outbox.ordinals IS 'Each message''s.';
COMMENT ON COLUMN outbox.topic_ids IS 'Each message''s topics.topic_id.';
COMMENT ON COLUMN outbox.sender_ids IS 'Each message''s publishing user, whose own devices are not woken.';
COMMENT ON COLUMN outbox.expiries_ms IS 'When each message expires, milliseconds since the epoch; null: never.';
COMMENT ON COLUMN outbox.committed_at_ms IS 'Milliseconds since the epoch.';

INSERT INTO outbox (base_offset, ordinals, topic_ids, sender_ids, expiries_ms, committed_at_ms)
SELECT log_offset, ARRAY[0], ARRAY[topic_id], ARRAY[sender_id], ARRAY[expires_at_ms], committed_at_ms
FROM outbox_before ORDER BY outbox_id;
DROP TABLE outbox_before;
