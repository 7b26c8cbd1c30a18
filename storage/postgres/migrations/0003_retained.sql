-- Retained messages by name, without the names of all the topics that retain none, and by expiry.

ALTER TABLE retained ADD COLUMN name text COLLATE "C";
UPDATE retained r SET name = t.name FROM topics t WHERE t.topic_id = r.topic_id;
ALTER TABLE retained ALTER COLUMN name SET NOT NULL;
CREATE INDEX retained_by_name ON retained (tenant_id, name);
CREATE INDEX retained_by_expiry ON retained (expires_at_ms) WHERE expires_at_ms IS NOT NULL;
COMMENT ON COLUMN retained.name IS 'topics.name, which never changes.';

COMMENT ON COLUMN sessions.inflight IS 'In the order sent, 11 bytes each, big endian: packet id (2), offset (8), flags (1: bits 0-1 QoS, bit 2 released, bit 3 sent with RETAIN).';
