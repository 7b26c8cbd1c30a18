ALTER TABLE users ADD COLUMN scram text;
COMMENT ON COLUMN users.scram IS 'SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>; null: set before this column was there, or unusable for SCRAM.';
