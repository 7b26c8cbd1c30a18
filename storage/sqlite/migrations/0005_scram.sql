-- Null: the password was set before this column was there, or cannot be used for SCRAM.
ALTER TABLE users ADD COLUMN scram TEXT;               -- SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>
