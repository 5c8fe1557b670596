-- How fast and how faulty each stage of a run was.

ALTER TABLE refund.run ADD COLUMN stage_metrics jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN refund.run.stage_metrics IS 'By stage: photos, failed photos, and per-photo latency in milliseconds at the 50th, 95th and 99th percentile, where the stage works photo by photo.';
