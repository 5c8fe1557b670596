-- How fast and how faulty each stage of a run was.

ALTER TABLE refund.run ADD COLUMN stage_metrics jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN refund.run.stage_metrics IS 'By stage: seconds of work, photos, failed photos, photos_per_second, error_rate and, where the stage works photo by photo, p50_ms, p95_ms, p99_ms and max_ms of one photo. A task that was tried again counts once. Empty for nights of earlier releases.';

-- The run's own figures: of its photos that were not unchanged, over the seconds of the two stages that work on photos.
CREATE OR REPLACE VIEW reporting.runs AS
SELECT run_date, run_id, state, model, taxonomy_version, code_version, params, photos, classified, rejected, unchanged,
       rejected::double precision / NULLIF(classified + rejected, 0) AS rejected_share, stage_seconds, notes, synthetic,
       started_at, published_at, finished_at, finished_at - started_at AS duration, models,
       (stage_metrics #>> '{validate,photos}')::double precision
         / NULLIF((stage_metrics #>> '{validate,seconds}')::double precision
                  + (stage_metrics #>> '{classify,seconds}')::double precision, 0) AS photos_per_second,
       ((stage_metrics #>> '{validate,failed}')::double precision
        + (stage_metrics #>> '{classify,failed}')::double precision)
         / NULLIF((stage_metrics #>> '{validate,photos}')::double precision, 0) AS error_rate,
       stage_metrics
FROM refund.run;
COMMENT ON COLUMN reporting.runs.photos_per_second IS 'Photos that validate worked on, over the seconds of work of validate and classify: what one task at a time gets through. Null where nothing was measured.';
COMMENT ON COLUMN reporting.runs.error_rate IS 'Of the photos that validate worked on, those that validate or classify failed, 0 to 1. Null where nothing was measured.';
COMMENT ON COLUMN reporting.runs.stage_metrics IS 'Figures by stage as JSON; reporting.stage_metrics has them as rows.';

CREATE VIEW reporting.stage_metrics AS
SELECT r.run_date, r.run_id, stage.name AS stage,
       (stage.figures ->> 'seconds')::double precision AS seconds,
       (stage.figures ->> 'photos')::bigint AS photos,
       (stage.figures ->> 'failed')::bigint AS failed,
       (stage.figures ->> 'photos_per_second')::double precision AS photos_per_second,
       (stage.figures ->> 'error_rate')::double precision AS error_rate,
       (stage.figures ->> 'p50_ms')::double precision AS p50_ms,
       (stage.figures ->> 'p95_ms')::double precision AS p95_ms,
       (stage.figures ->> 'p99_ms')::double precision AS p99_ms,
       (stage.figures ->> 'max_ms')::double precision AS max_ms,
       r.synthetic
FROM refund.run r CROSS JOIN LATERAL jsonb_each(r.stage_metrics) AS stage (name, figures);
COMMENT ON VIEW reporting.stage_metrics IS 'How fast and how faulty each stage of each run was; one row per run and stage.';
COMMENT ON COLUMN reporting.stage_metrics.run_date IS 'The night.';
COMMENT ON COLUMN reporting.stage_metrics.run_id IS 'Airflow''s run id.';
COMMENT ON COLUMN reporting.stage_metrics.stage IS 'health_check, fetch, validate, classify, persist or generate_report.';
COMMENT ON COLUMN reporting.stage_metrics.seconds IS 'Seconds of work, summed over the shards; a task that was tried again counts once, with its last try.';
COMMENT ON COLUMN reporting.stage_metrics.photos IS 'Photos that it worked on; null for health_check, which works on none.';
COMMENT ON COLUMN reporting.stage_metrics.failed IS 'Of these: for validate the rejected ones, and for every stage those of shards whose task never succeeded.';
COMMENT ON COLUMN reporting.stage_metrics.photos_per_second IS 'photos over seconds.';
COMMENT ON COLUMN reporting.stage_metrics.error_rate IS 'failed over photos, 0 to 1.';
COMMENT ON COLUMN reporting.stage_metrics.p50_ms IS 'Median time for one photo in milliseconds, within 1 %. validate: its download and its decoding, without waiting between the two; classify: its pass through the network. Null for other stages.';
COMMENT ON COLUMN reporting.stage_metrics.p95_ms IS '95 of 100 photos took at most this many milliseconds, within 1 %.';
COMMENT ON COLUMN reporting.stage_metrics.p99_ms IS '99 of 100 photos took at most this many milliseconds, within 1 %.';
COMMENT ON COLUMN reporting.stage_metrics.max_ms IS 'Milliseconds of the slowest photo.';
COMMENT ON COLUMN reporting.stage_metrics.synthetic IS 'True for made-up nights of the demo.';
GRANT SELECT ON reporting.stage_metrics TO refund_app, refund_analyst;
