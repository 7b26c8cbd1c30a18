-- Wakeups by lane and urgency, conversations that are muted, and quotas.

ALTER TABLE memberships ADD COLUMN muted INTEGER NOT NULL DEFAULT 0; -- flag: messages here wake without urgency

-- messages.wakes holds a code: 0 nobody, 1 with urgency, 2 without.

ALTER TABLE push_registrations ADD COLUMN app TEXT NOT NULL DEFAULT ''; -- APNs topic or FCM project; empty: any server may call
ALTER TABLE push_registrations ADD COLUMN low_sent_at_ms INTEGER;       -- the token's last wakeup without urgency; null: never
-- platform: 1 UnifiedPush, 2 APNs, 3 FCM, 4 Web Push.
CREATE INDEX push_registrations_by_lookup ON push_registrations (tenant_no, lookup);

ALTER TABLE wakes ADD COLUMN platform INTEGER NOT NULL DEFAULT 1;       -- as in push_registrations
ALTER TABLE wakes ADD COLUMN app TEXT NOT NULL DEFAULT '';              -- as in push_registrations
ALTER TABLE wakes ADD COLUMN urgency INTEGER NOT NULL DEFAULT 2;        -- 1 low, 2 high
UPDATE wakes SET platform = (SELECT platform FROM push_registrations AS registration
                             WHERE (registration.tenant_no, registration.device_id) = (wakes.tenant_no, wakes.device_id));
-- next_attempt_at_ms is the lease's end while it is claimed, and when it was sent once it is.
UPDATE wakes SET next_attempt_at_ms = lease_until_at_ms WHERE lease <> 0 AND sent = 0;
DROP INDEX wakes_due;
ALTER TABLE wakes DROP COLUMN lease_until_at_ms;
-- What is due of one lane lies together, whatever there is of others, or of what was sent.
CREATE INDEX wakes_by_lane ON wakes (platform, app, sent, next_attempt_at_ms);

ALTER TABLE dead_letters ADD COLUMN platform INTEGER NOT NULL DEFAULT 1; -- as in push_registrations, when it died
ALTER TABLE dead_letters ADD COLUMN app TEXT NOT NULL DEFAULT '';
ALTER TABLE dead_letters ADD COLUMN urgency INTEGER NOT NULL DEFAULT 2;  -- 1 low, 2 high

-- How far wakeups are booked, where tenants have a quota.
CREATE TABLE wake_quotas (
    tenant_no       INTEGER PRIMARY KEY REFERENCES tenants,
    urgent_next_us  INTEGER NOT NULL,                  -- where the next urgent one is booked, since the epoch
    next_us         INTEGER NOT NULL                   -- where the next other one is
) STRICT;
