-- Wakeups by lane and urgency, conversations that are muted, and quotas.

ALTER TABLE memberships ADD COLUMN muted boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN memberships.muted IS 'Messages here wake the member''s devices without urgency.';

ALTER TABLE messages ADD COLUMN low boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN messages.low IS 'Where it wakes: without urgency.';

ALTER TABLE outbox ADD COLUMN urgency smallint NOT NULL DEFAULT 2;
ALTER TABLE outbox ALTER COLUMN urgency DROP DEFAULT;
COMMENT ON COLUMN outbox.urgency IS 'Of all its messages: 1 = low, 2 = high.';

ALTER TABLE push_registrations ADD COLUMN app text COLLATE "C" NOT NULL DEFAULT '', ADD COLUMN low_sent_at_ms bigint;
ALTER TABLE push_registrations ALTER COLUMN app DROP DEFAULT;
COMMENT ON COLUMN push_registrations.platform IS 'Push service: 1 = UnifiedPush, 2 = APNs, 3 = FCM, 4 = Web Push.';
COMMENT ON COLUMN push_registrations.app IS 'APNs topic or FCM project; empty for services that any server may call.';
COMMENT ON COLUMN push_registrations.low_sent_at_ms IS 'When this token was last handed a wakeup without urgency, milliseconds since the epoch; null: never.';

ALTER TABLE wakes ADD COLUMN platform smallint NOT NULL DEFAULT 1, ADD COLUMN app text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN urgency smallint NOT NULL DEFAULT 2;
UPDATE wakes w SET platform = p.platform FROM push_registrations p
    WHERE p.device_id = w.device_id AND p.platform <> w.platform;
ALTER TABLE wakes ALTER COLUMN platform DROP DEFAULT, ALTER COLUMN app DROP DEFAULT, ALTER COLUMN urgency DROP DEFAULT;
DROP INDEX wakes_due;
-- What is due of one lane lies together, whatever there is of others, or of what was sent.
CREATE INDEX wakes_by_lane ON wakes (platform, app, sent, due_at_ms);
COMMENT ON COLUMN wakes.platform IS 'As in push_registrations.';
COMMENT ON COLUMN wakes.app IS 'As in push_registrations.';
COMMENT ON COLUMN wakes.urgency IS '1 = low, 2 = high.';
COMMENT ON COLUMN wakes.due_since_ms IS 'Milliseconds since the epoch: when the message was committed that made it due, or the session was closed.';
COMMENT ON COLUMN wakes.due_at_ms IS 'Milliseconds since the epoch: when it may be claimed; the lease''s end while it is claimed; when it was sent once it is.';
COMMENT ON COLUMN wakes.sent IS 'Handed to the push service; nothing more is sent until the device has been back, but for what is more urgent or comes a day later.';

ALTER TABLE dead_letters ADD COLUMN platform smallint NOT NULL DEFAULT 1,
    ADD COLUMN app text COLLATE "C" NOT NULL DEFAULT '', ADD COLUMN urgency smallint NOT NULL DEFAULT 2;
ALTER TABLE dead_letters ALTER COLUMN platform DROP DEFAULT, ALTER COLUMN app DROP DEFAULT,
    ALTER COLUMN urgency DROP DEFAULT;
COMMENT ON COLUMN dead_letters.platform IS 'As in push_registrations, when it died.';
COMMENT ON COLUMN dead_letters.app IS 'As in push_registrations, when it died.';
COMMENT ON COLUMN dead_letters.urgency IS '1 = low, 2 = high.';

CREATE TABLE wake_quotas (
    tenant_id uuid PRIMARY KEY REFERENCES tenants,
    urgent_next_us bigint NOT NULL,
    next_us bigint NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE wake_quotas IS 'How far wakeups are booked, where tenants have a quota.';
COMMENT ON COLUMN wake_quotas.tenant_id IS 'Whose.';
COMMENT ON COLUMN wake_quotas.urgent_next_us IS 'Where the next urgent one is booked, microseconds since the epoch.';
COMMENT ON COLUMN wake_quotas.next_us IS 'Where the next other one is.';
