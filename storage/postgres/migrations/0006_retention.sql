-- The log by weeks of committed_at_ms, so that what is old goes as a whole; and what says how long it stays.
--
-- Weeks begin on Mondays at 00:00 UTC and are made when they are needed. There is no default partition: with one,
-- none could be detached without locking the log. The log's order needs no index across weeks: offsets are unique
-- within a week by its own index, and beyond it by the counters.

ALTER TABLE messages RENAME TO messages_before;
ALTER INDEX messages_by_offset RENAME TO messages_before_by_offset;
ALTER INDEX messages_by_topic RENAME TO messages_before_by_topic;

CREATE TABLE messages (LIKE messages_before INCLUDING DEFAULTS INCLUDING STORAGE INCLUDING COMMENTS)
    PARTITION BY RANGE (committed_at_ms);
CREATE INDEX messages_by_topic ON messages (topic_id, log_offset);
COMMENT ON TABLE messages IS 'The log: every durable message once. Each week is a table with a unique index on (tenant_id, log_offset).';

CREATE VIEW message_weeks AS
SELECT c.oid AS week_oid, c.relname::text AS week_name,
    CASE WHEN bounds.text ~ 'FROM \(MINVALUE\)' THEN -9223372036854775808
        ELSE substring(bounds.text FROM 'FROM \(''(-?[0-9]+)''\)')::bigint END AS from_ms,
    substring(bounds.text FROM 'TO \(''(-?[0-9]+)''\)')::bigint AS until_ms,
    i.inhdetachpending AS is_going
FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid
CROSS JOIN LATERAL (SELECT pg_get_expr(c.relpartbound, c.oid) AS text) bounds
WHERE i.inhparent = 'messages'::regclass;
COMMENT ON VIEW message_weeks IS 'The weeks of messages, as the catalog has them.';

CREATE TABLE weeks_going (
    week_name text PRIMARY KEY
);
COMMENT ON TABLE weeks_going IS 'Weeks that nothing is written to any more, on their way to be dropped.';
COMMENT ON COLUMN weeks_going.week_name IS 'A table that is, or was, a partition of messages.';

CREATE FUNCTION sotto_week_start(at_ms bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    -- 345,600,000 is Monday, 5 January 1970.
    SELECT at_ms - ((at_ms - 345600000) % 604800000 + 604800000) % 604800000
$$;
COMMENT ON FUNCTION sotto_week_start IS 'When the week of a time began, both in milliseconds since the epoch.';

CREATE FUNCTION sotto_ensure_week(at_ms bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    week_start bigint := sotto_week_start(at_ms);
    first_name text := 'messages_' || to_char(to_timestamp(week_start / 1000) AT TIME ZONE 'UTC', 'YYYY_MM_DD');
    name text := first_name;
    there record;
BEGIN
    SELECT w.week_name, w.is_going, g.week_name IS NOT NULL AS is_closed INTO there
    FROM message_weeks w LEFT JOIN weeks_going g USING (week_name)
    WHERE w.from_ms <= at_ms AND at_ms < w.until_ms;
    IF there.week_name IS NOT NULL AND NOT there.is_going AND NOT there.is_closed THEN
        RETURN false;
    END IF;
    -- "weeks" in ASCII: one at a time makes a week.
    PERFORM pg_advisory_xact_lock(x'7765656b73'::bigint);
    SELECT w.week_name, w.is_going, g.week_name IS NOT NULL AS is_closed INTO there
    FROM message_weeks w LEFT JOIN weeks_going g USING (week_name)
    WHERE w.from_ms <= at_ms AND at_ms < w.until_ms;
    IF there.is_going THEN
        -- The clock was set back to a week that is being dropped: its place is taken by a new one.
        EXECUTE format('ALTER TABLE messages DETACH PARTITION %I FINALIZE', there.week_name);
    ELSIF there.is_closed THEN
        EXECUTE format('ALTER TABLE messages DETACH PARTITION %I', there.week_name);
    ELSIF there.week_name IS NOT NULL THEN
        RETURN false;
    END IF;
    FOR again IN 2..1000 LOOP
        EXIT WHEN to_regclass(quote_ident(name)) IS NULL;
        name := first_name || '_' || again;
    END LOOP;
    EXECUTE format('CREATE TABLE %I (LIKE messages INCLUDING DEFAULTS INCLUDING STORAGE INCLUDING COMMENTS)', name);
    EXECUTE format('CREATE UNIQUE INDEX ON %I (tenant_id, log_offset)', name);
    EXECUTE format(
        'ALTER TABLE messages ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        name, week_start, week_start + 604800000
    );
    RETURN true;
END
$$;
COMMENT ON FUNCTION sotto_ensure_week IS 'Makes the week of a time where messages lacks it, without locking the log; true where it did.';

-- What is there becomes the first partition as it stands: it is read, not rewritten. It ends with a week, and after
-- all that it holds, wherever a clock may have been.
DO $$
DECLARE
    last_at_ms bigint := (SELECT max(committed_at_ms) FROM messages_before);
    until_ms bigint;
BEGIN
    IF last_at_ms IS NULL THEN
        DROP TABLE messages_before;
    ELSE
        until_ms := sotto_week_start(GREATEST(last_at_ms, (extract(epoch FROM now()) * 1000)::bigint)) + 604800000;
        EXECUTE format('ALTER TABLE messages ATTACH PARTITION messages_before FOR VALUES FROM (MINVALUE) TO (%L)', until_ms);
    END IF;
END
$$;

ALTER TABLE counters ADD COLUMN start bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN counters.start IS 'Offset: nothing at or before it is held any more.';

ALTER TABLE tenants ADD COLUMN retention_days integer, ADD COLUMN retention_bytes bigint,
    ADD COLUMN legal_hold boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN tenants.retention_days IS 'Messages are deleted after so many days; null: as configured.';
COMMENT ON COLUMN tenants.retention_bytes IS 'Sealed bytes over which the oldest messages are deleted; null: as configured.';
COMMENT ON COLUMN tenants.legal_hold IS 'No message is deleted.';

CREATE TABLE log_volumes (
    tenant_id uuid NOT NULL REFERENCES tenants,
    up_to bigint NOT NULL,
    messages bigint NOT NULL,
    bytes bigint NOT NULL,
    last_at_ms bigint NOT NULL,
    PRIMARY KEY (tenant_id, up_to)
);
COMMENT ON TABLE log_volumes IS 'How much a tenant''s log holds, stretch by stretch, where it is kept by size.';
COMMENT ON COLUMN log_volumes.tenant_id IS 'Whose log.';
COMMENT ON COLUMN log_volumes.up_to IS 'Offset: the stretch is what lies after the one before it, up to here.';
COMMENT ON COLUMN log_volumes.messages IS 'Messages counted in it.';
COMMENT ON COLUMN log_volumes.bytes IS 'Their sealed bytes.';
COMMENT ON COLUMN log_volumes.last_at_ms IS 'Milliseconds since the epoch: when the youngest of them was committed.';
