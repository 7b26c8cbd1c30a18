-- How long messages are kept.

ALTER TABLE tenants ADD COLUMN retention_days INTEGER;             -- deleted after so many days; null: as configured
ALTER TABLE tenants ADD COLUMN retention_bytes INTEGER;            -- sealed bytes over which the oldest go; null: the same
ALTER TABLE tenants ADD COLUMN legal_hold INTEGER NOT NULL DEFAULT 0; -- flag: no message is deleted
ALTER TABLE counters ADD COLUMN start INTEGER NOT NULL DEFAULT 0;  -- offset: nothing at or before it is held any more

-- How much a tenant's log holds, stretch by stretch, where it is kept by size.
CREATE TABLE log_volumes (
    tenant_no   INTEGER NOT NULL REFERENCES tenants,
    up_to       INTEGER NOT NULL,                      -- offset: what lies after the stretch before, up to here
    messages    INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,                      -- sealed
    last_at_ms  INTEGER NOT NULL,                      -- when the youngest of them was committed
    PRIMARY KEY (tenant_no, up_to)
) STRICT, WITHOUT ROWID;
