-- Messages that name themselves, so that what a publisher sends again is not stored again.
CREATE TABLE publications (
    publication_key uuid PRIMARY KEY,
    log_offset bigint NOT NULL,
    committed_at_ms bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);
CREATE INDEX publications_by_age ON publications (committed_at_ms);
COMMENT ON TABLE publications IS 'Messages committed lately under a publication id.';
COMMENT ON COLUMN publications.publication_key IS 'Hash of tenant, sender and publication id.';
COMMENT ON COLUMN publications.log_offset IS 'The message''s place in its tenant''s log.';
COMMENT ON COLUMN publications.committed_at_ms IS 'Milliseconds since the epoch.';
