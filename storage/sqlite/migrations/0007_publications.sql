-- Messages committed lately under a publication id, so that what a publisher sends again is not stored again.
CREATE TABLE publications (
    publication_key  BLOB    NOT NULL PRIMARY KEY,     -- hash of tenant, sender and publication id, 16 bytes
    log_id           INTEGER NOT NULL,                 -- of `messages`
    committed_at_ms  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX publications_by_age ON publications (committed_at_ms);
