-- What analysts read: made-up nights told apart in every table, drift with its floor and false-alarm rate, exports,
-- partitions made ahead.

-- Made-up nights ----------------------------------------------------------------------------------------------------
-- Beside refund.run.synthetic: a person who looks into one table alone must see that its rows are made up.
ALTER TABLE refund.photo ADD COLUMN synthetic boolean NOT NULL DEFAULT false;
ALTER TABLE refund.run_photo ADD COLUMN synthetic boolean NOT NULL DEFAULT false;
ALTER TABLE refund.prediction ADD COLUMN synthetic boolean NOT NULL DEFAULT false;
ALTER TABLE refund.decision ADD COLUMN synthetic boolean NOT NULL DEFAULT false;
ALTER TABLE refund.review ADD COLUMN synthetic boolean NOT NULL DEFAULT false;
ALTER TABLE refund.drift ADD COLUMN synthetic boolean NOT NULL DEFAULT false;
ALTER TABLE refund.alert ADD COLUMN synthetic boolean NOT NULL DEFAULT false;
ALTER TABLE refund.report ADD COLUMN synthetic boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN refund.photo.synthetic IS 'True for made-up rows of the demo.';
COMMENT ON COLUMN refund.run_photo.synthetic IS 'True for made-up rows of the demo.';
COMMENT ON COLUMN refund.prediction.synthetic IS 'True for made-up rows of the demo.';
COMMENT ON COLUMN refund.decision.synthetic IS 'True for made-up rows of the demo.';
COMMENT ON COLUMN refund.review.synthetic IS 'True for made-up rows of the demo.';
COMMENT ON COLUMN refund.drift.synthetic IS 'True for made-up nights of the demo.';
COMMENT ON COLUMN refund.alert.synthetic IS 'True for made-up nights of the demo.';
COMMENT ON COLUMN refund.report.synthetic IS 'True for made-up nights of the demo.';

-- Drift -------------------------------------------------------------------------------------------------------------
ALTER TABLE refund.drift
  ADD COLUMN floor double precision CHECK (floor >= 0),
  ADD COLUMN alpha double precision CHECK (alpha > 0 AND alpha < 1),
  ADD COLUMN overdispersion double precision CHECK (overdispersion >= 0);
COMMENT ON COLUMN refund.drift.threshold IS 'Distance above which it is drift, the value that was applied: the larger of floor and what chance exceeds at the rate alpha.';
COMMENT ON COLUMN refund.drift.floor IS 'Distance up to which a change never matters; the setting as it was. Null for nights of earlier releases.';
COMMENT ON COLUMN refund.drift.alpha IS 'Stated rate of false alarms of a night''s whole family of tests, 0 to 1. Null for nights of earlier releases.';
COMMENT ON COLUMN refund.drift.overdispersion IS 'How much more the nights of the window differ than chance alone explains: 0 is not at all. Null where it was not estimated.';

-- Exports -----------------------------------------------------------------------------------------------------------
ALTER TABLE refund.report ADD COLUMN export_uri text;
COMMENT ON COLUMN refund.report.export_uri IS 'The Parquet file in S3 with one row per refund; null for reports of earlier releases.';

-- Partitions made ahead ---------------------------------------------------------------------------------------------
-- So that the first photo of a month never waits for the lock that making a partition takes.
CREATE FUNCTION refund.ensure_partitions_ahead(today date, months integer DEFAULT 3) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF months < 0 OR months > 24 THEN
    RAISE EXCEPTION 'ensure_partitions_ahead covers 0 to 24 months, got %', months;
  END IF;
  RETURN refund.ensure_partitions(today, (date_trunc('month', today) + make_interval(months => months + 1))::date - 1);
END $$;
COMMENT ON FUNCTION refund.ensure_partitions_ahead IS 'Makes the month partitions from the month of today to that many months later; returns how many were new.';
REVOKE ALL ON FUNCTION refund.ensure_partitions_ahead FROM PUBLIC;
GRANT EXECUTE ON FUNCTION refund.ensure_partitions_ahead TO refund_app;
SELECT refund.ensure_partitions_ahead(current_date);
