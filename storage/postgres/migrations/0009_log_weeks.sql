-- Which weeks a tenant's log went through, so that who reads on from an offset looks into those alone.

ALTER TABLE counters ADD COLUMN week_ms bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN counters.week_ms IS 'When the week began that the last batch was committed in, milliseconds since the epoch; 0: not known.';

CREATE TABLE log_weeks (
    tenant_id uuid NOT NULL,
    after_offset bigint NOT NULL,
    week_ms bigint NOT NULL,
    PRIMARY KEY (tenant_id, after_offset)
);
COMMENT ON TABLE log_weeks IS 'Where a tenant''s log went on in another week: usually one row a week, and one whenever a clock was set.';
COMMENT ON COLUMN log_weeks.tenant_id IS 'Whose log.';
COMMENT ON COLUMN log_weeks.after_offset IS 'Offset: messages after it, up to the next row''s, are of this week.';
COMMENT ON COLUMN log_weeks.week_ms IS 'When the week began, milliseconds since the epoch; 0: any week.';

-- What there is may be in any week.
INSERT INTO log_weeks (tenant_id, after_offset, week_ms) SELECT tenant_id, 0, 0 FROM counters;
