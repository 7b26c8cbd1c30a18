-- Names are paged through without touching the bodies, and what has expired is found.

DROP INDEX retained_by_topic;
CREATE INDEX retained_by_topic ON retained (tenant_no, topic, expires_at_ms);
CREATE INDEX retained_by_expiry ON retained (expires_at_ms) WHERE expires_at_ms IS NOT NULL;
