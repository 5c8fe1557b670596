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
COMMENT ON COLUMN refund.report.export_uri IS 'The Parquet file in S3 with one row per refund; null where there is none: made-up nights, earlier releases.';

-- Indexes behind the views ------------------------------------------------------------------------------------------
-- reporting.reconciliation counts every decision of a run, the replaced ones too: an index of those that stand alone had
-- it read all decisions ever made, once for each run.
DROP INDEX refund.decision_by_run;
CREATE INDEX decision_by_run ON refund.decision (run_id, category);
-- Few decisions are drawn for audit. Those for review get no index: there are some on nearly every page (measured).
CREATE INDEX decision_for_audit ON refund.decision (photo_date, photo_id) WHERE audit AND superseded_by IS NULL;

-- Views -------------------------------------------------------------------------------------------------------------
-- Columns are only ever appended. Where rows belong to a night they say whether it is made up; what people work through
-- and how right a model is leave made-up nights out.
CREATE OR REPLACE VIEW reporting.refunds AS
SELECT n.refund_id, n.run_date, count(*) AS photos,
       count(*) FILTER (WHERE ph.outcome = 'classified') AS classified,
       count(*) FILTER (WHERE ph.outcome = 'rejected') AS rejected,
       mode() WITHIN GROUP (ORDER BY ph.final_category) AS category,
       count(DISTINCT ph.final_category) AS categories,
       count(DISTINCT ph.final_category) <= 1 AS photos_agree,
       min(ph.declared_category) AS declared_category,
       bool_and(ph.final_category = ph.declared_category) AS matches_declared,
       bool_or(ph.reviewed_at IS NULL AND (ph.decision = 'review' OR ph.outcome = 'rejected')) AS needs_review,
       n.synthetic,
       mode() WITHIN GROUP (ORDER BY ph.predicted_category) AS predicted_category,
       count(ph.reviewed_at) AS reviewed, count(DISTINCT ph.run_date) AS nights
-- The refunds of a night first and their photos by index then: a condition on run_date reaches the indexes. Over one
-- GROUP BY refund_id the latest night would be known only after every photo ever published was read.
FROM (
  SELECT DISTINCT p.refund_id, r.run_date, r.synthetic
  FROM refund.photo p
  JOIN refund.run_photo rp ON rp.photo_date = p.photo_date AND rp.photo_id = p.photo_id
    AND rp.outcome <> 'unchanged' AND rp.superseded_by IS NULL
  JOIN refund.run r ON r.run_id = rp.run_id
  WHERE p.superseded_by IS NULL AND p.refund_id IS NOT NULL
) n
JOIN reporting.photos ph ON ph.refund_id = n.refund_id AND ph.synthetic = n.synthetic
GROUP BY n.refund_id, n.run_date, n.synthetic HAVING n.run_date = max(ph.run_date);
COMMENT ON VIEW reporting.refunds IS 'One row per refund: what its photos say together, those of all nights. Photos without a refund are in none.';
COMMENT ON COLUMN reporting.refunds.run_date IS 'Latest night that published one of its photos; where its photos lie in two nights, it moves to the later one.';
COMMENT ON COLUMN reporting.refunds.category IS 'Most frequent final category, of two equally frequent the first by alphabet; null where all photos are rejected and none was reviewed.';
COMMENT ON COLUMN reporting.refunds.photos_agree IS 'True where there is at most one final category.';
COMMENT ON COLUMN reporting.refunds.declared_category IS 'What the customer declared; where it says two things, the first by alphabet.';
COMMENT ON COLUMN reporting.refunds.matches_declared IS 'Whether the final category of every photo is the declared one; null where no photo has both.';
COMMENT ON COLUMN reporting.refunds.needs_review IS 'Whether a person must look at one of its photos: sent to review or rejected, and not reviewed since.';
COMMENT ON COLUMN reporting.refunds.predicted_category IS 'Most frequent category by the machine alone, reviews left aside.';
COMMENT ON COLUMN reporting.refunds.reviewed IS 'Photos that a person has reviewed.';
COMMENT ON COLUMN reporting.refunds.nights IS 'Nights that published its photos; 2 or more where some came late.';

CREATE OR REPLACE VIEW reporting.daily_categories AS
SELECT r.run_date, d.category, count(*) AS photos,
       count(*)::double precision / sum(count(*)) OVER (PARTITION BY r.run_date, r.synthetic) AS share,
       count(*) FILTER (WHERE d.kind = 'auto') AS auto, count(*) FILTER (WHERE d.kind = 'review') AS review,
       avg(d.score) AS mean_score, r.synthetic
FROM refund.decision d JOIN refund.run r USING (run_id)
WHERE d.superseded_by IS NULL AND NOT EXISTS (
  SELECT FROM refund.photo p
  WHERE p.photo_date = d.photo_date AND p.photo_id = d.photo_id AND p.superseded_by IS NOT NULL)
GROUP BY r.run_date, r.synthetic, d.category;
COMMENT ON COLUMN reporting.daily_categories.synthetic IS 'True for made-up nights of the demo; a made-up and a real night of one date have rows of their own.';

CREATE OR REPLACE VIEW reporting.daily_quality AS
SELECT r.run_date, count(*) AS photos,
       count(*) FILTER (WHERE rp.outcome = 'rejected') AS rejected,
       count(*) FILTER (WHERE rp.outcome = 'rejected')::double precision / count(*) AS rejected_share,
       count(*) FILTER (WHERE 'dark' = ANY (p.quality_labels)) AS dark,
       count(*) FILTER (WHERE 'bright' = ANY (p.quality_labels)) AS bright,
       count(*) FILTER (WHERE 'blurry' = ANY (p.quality_labels)) AS blurry,
       count(*) FILTER (WHERE 'low_information' = ANY (p.quality_labels)) AS low_information,
       count(*) FILTER (WHERE 'odd_aspect' = ANY (p.quality_labels)) AS odd_aspect,
       avg(p.brightness_ratio) AS mean_brightness_ratio, avg(p.sharpness) AS mean_sharpness,
       avg(p.size_bytes) AS mean_size_bytes, r.synthetic
FROM refund.run_photo rp JOIN refund.run r USING (run_id)
JOIN refund.photo p ON p.photo_date = rp.photo_date AND p.photo_id = rp.photo_id
WHERE rp.outcome <> 'unchanged' AND rp.superseded_by IS NULL AND p.superseded_by IS NULL
GROUP BY r.run_date, r.synthetic;
COMMENT ON COLUMN reporting.daily_quality.synthetic IS 'True for made-up nights of the demo; a made-up and a real night of one date have rows of their own.';

CREATE OR REPLACE VIEW reporting.rejections AS
SELECT r.run_date, r.run_id, rp.photo_date, rp.photo_id, p.key, p.refund_id, rp.reason, rp.detail, rp.quarantine_key,
       rp.requeued_at, r.synthetic
FROM refund.run_photo rp JOIN refund.run r USING (run_id)
JOIN refund.photo p ON p.photo_date = rp.photo_date AND p.photo_id = rp.photo_id
WHERE rp.outcome = 'rejected' AND rp.superseded_by IS NULL AND p.superseded_by IS NULL;
COMMENT ON COLUMN reporting.rejections.synthetic IS 'True for made-up nights of the demo.';

-- What nobody has looked at is found first, apart from the rest: it is little, and the decisions behind it are many.
CREATE OR REPLACE VIEW reporting.review_queue AS
WITH waiting AS MATERIALIZED (
  SELECT d.photo_date, d.photo_id, d.category, d.score, d.reasons, d.model FROM refund.decision d
  WHERE d.kind = 'review' AND d.superseded_by IS NULL AND NOT EXISTS (
    SELECT FROM refund.review v WHERE v.photo_date = d.photo_date AND v.photo_id = d.photo_id)
)
SELECT w.photo_date, w.photo_id, p.key, p.refund_id, w.category AS predicted_category, w.score AS category_score,
       w.reasons AS review_reasons, p.declared_category, pr.class_name, pr.confidence, w.model, r.run_date
FROM waiting w
JOIN refund.photo p ON p.photo_date = w.photo_date AND p.photo_id = w.photo_id
JOIN refund.run_photo rp ON rp.photo_date = w.photo_date AND rp.photo_id = w.photo_id
  AND rp.outcome <> 'unchanged' AND rp.superseded_by IS NULL
JOIN refund.run r ON r.run_id = rp.run_id
LEFT JOIN refund.prediction pr ON pr.photo_date = w.photo_date AND pr.photo_id = w.photo_id AND pr.model = w.model
WHERE p.superseded_by IS NULL AND NOT r.synthetic;
COMMENT ON VIEW reporting.review_queue IS 'Photos that wait for a person; none of made-up nights.';

CREATE OR REPLACE VIEW reporting.audit_queue AS
WITH waiting AS MATERIALIZED (
  SELECT d.photo_date, d.photo_id, d.run_id FROM refund.decision d
  WHERE d.audit AND d.superseded_by IS NULL AND NOT EXISTS (
    SELECT FROM refund.review v WHERE v.photo_date = d.photo_date AND v.photo_id = d.photo_id
      AND v.chosen_by IN ('audit', 'queue'))  -- one that somebody looked for leaves the draw as it was
)
SELECT w.photo_date, w.photo_id, p.key, p.refund_id, r.run_date
FROM waiting w
JOIN refund.photo p ON p.photo_date = w.photo_date AND p.photo_id = w.photo_id
JOIN refund.run r ON r.run_id = w.run_id
WHERE p.superseded_by IS NULL AND NOT r.synthetic;
COMMENT ON VIEW reporting.audit_queue IS 'Automatic decisions that a person is to check; without the machine''s answer, so that it does not lead. None of made-up nights.';

-- From the reviews, not from the decisions: people review a small part of what the machine decides.
CREATE OR REPLACE VIEW reporting.model_accuracy AS
SELECT d.model, d.category AS predicted_category, count(*) AS reviewed,
       count(*) FILTER (WHERE rv.category = d.category) AS correct,
       count(*) FILTER (WHERE rv.category = d.category)::double precision / count(*) AS accuracy,
       rv.chosen_by
FROM (
  SELECT DISTINCT ON (photo_date, photo_id) photo_date, photo_id, category, chosen_by FROM refund.review
  ORDER BY photo_date, photo_id, reviewed_at DESC, review_id DESC
) rv
JOIN refund.decision d ON d.photo_date = rv.photo_date AND d.photo_id = rv.photo_id
JOIN refund.photo p ON p.photo_date = d.photo_date AND p.photo_id = d.photo_id
JOIN refund.run r ON r.run_id = d.run_id
WHERE d.superseded_by IS NULL AND p.superseded_by IS NULL AND NOT r.synthetic
GROUP BY d.model, d.category, rv.chosen_by;
COMMENT ON VIEW reporting.model_accuracy IS 'How often reviews agree with a model, by category and by how the photo was chosen; made-up nights left out.';

CREATE OR REPLACE VIEW reporting.drift AS
SELECT run_date, run_id, measure, status, distance, threshold, p_value, tonight_photos, reference_photos,
       reference_nights, details, computed_at, floor, alpha, overdispersion,
       (details ->> 'total_variation')::double precision AS total_variation,
       details #>> '{moves,0,category}' AS largest_move_category,
       (details #>> '{moves,0,tonight_share}')::double precision AS largest_move_share,
       (details #>> '{moves,0,reference_share}')::double precision AS largest_move_reference_share, synthetic
FROM refund.drift;
COMMENT ON COLUMN reporting.drift.threshold IS 'Distance above which it is drift, as it was applied: the larger of floor and what chance exceeds at the rate alpha.';
COMMENT ON COLUMN reporting.drift.floor IS 'Distance up to which a change never matters; null for nights of earlier releases.';
COMMENT ON COLUMN reporting.drift.alpha IS 'Stated rate of false alarms of the night''s whole family of tests, 0 to 1; null for nights of earlier releases.';
COMMENT ON COLUMN reporting.drift.overdispersion IS 'How much more the nights of the window differ than chance alone explains; null where it was not estimated.';
COMMENT ON COLUMN reporting.drift.total_variation IS 'Share of the photos that would have to change category to get the reference''s mix, 0 to 1; null where nothing was judged or the measure has none.';
COMMENT ON COLUMN reporting.drift.largest_move_category IS 'Category whose share moved most; null where nothing was judged or the measure has none.';
COMMENT ON COLUMN reporting.drift.largest_move_share IS 'Its share of the night''s classified photos, 0 to 1.';
COMMENT ON COLUMN reporting.drift.largest_move_reference_share IS 'Its share in the reference window, 0 to 1.';
COMMENT ON COLUMN reporting.drift.synthetic IS 'True for made-up nights of the demo.';

CREATE OR REPLACE VIEW reporting.reconciliation AS
SELECT r.run_date, r.run_id, r.photos AS manifest, o.outcomes, o.classified, o.rejected, o.unchanged, d.decisions,
       r.photos = o.outcomes AND r.classified = o.classified AND r.rejected = o.rejected AND r.unchanged = o.unchanged
         AND r.classified = d.decisions
         AND COALESCE(r.packed = o.classified + o.rejected AND r.predicted = o.classified, true) AS adds_up,
       r.packed, r.predicted, r.overtaken, r.synthetic
FROM refund.run r
CROSS JOIN LATERAL (
  SELECT count(*) AS outcomes, count(*) FILTER (WHERE rp.outcome = 'classified') AS classified,
         count(*) FILTER (WHERE rp.outcome = 'rejected') AS rejected,
         count(*) FILTER (WHERE rp.outcome = 'unchanged') AS unchanged
  FROM refund.run_photo rp WHERE rp.run_id = r.run_id) o
CROSS JOIN LATERAL (SELECT count(*) AS decisions FROM refund.decision d WHERE d.run_id = r.run_id) d
WHERE r.state = 'published';
COMMENT ON COLUMN reporting.reconciliation.synthetic IS 'True for made-up nights of the demo.';

CREATE VIEW reporting.reports AS
SELECT run_date, run_id, html_uri, csv_uri, export_uri, created_at, synthetic FROM refund.report;
COMMENT ON VIEW reporting.reports IS 'The morning reports and where their files lie.';
COMMENT ON COLUMN reporting.reports.run_date IS 'The night.';
COMMENT ON COLUMN reporting.reports.run_id IS 'The run that it reports on.';
COMMENT ON COLUMN reporting.reports.html_uri IS 'The page in S3.';
COMMENT ON COLUMN reporting.reports.csv_uri IS 'Its figures as a table in S3.';
COMMENT ON COLUMN reporting.reports.export_uri IS 'The Parquet file in S3 with one row per refund; null where there is none.';
COMMENT ON COLUMN reporting.reports.created_at IS 'When it was made.';
COMMENT ON COLUMN reporting.reports.synthetic IS 'True for made-up nights of the demo.';
GRANT SELECT ON reporting.reports TO refund_app, refund_analyst;

-- Partitions made ahead ---------------------------------------------------------------------------------------------
-- As before, but partitions that somebody made by hand are looked at: what holds every day of the month is taken as it is,
-- whatever its name and bounds; anything else is told in words. RF001 is read by refund.store.partitions.
CREATE OR REPLACE FUNCTION refund.ensure_partitions(first_day date, last_day date) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO' AS $$
DECLARE
  month date := date_trunc('month', first_day)::date;
  next_month date;
  parent text;
  wanted text;
  bounds text;
  part record;
  days integer;
  held integer;
  holders text[];
  made integer := 0;
BEGIN
  IF last_day < first_day OR last_day > first_day + 1000 THEN
    RAISE EXCEPTION 'ensure_partitions covers 0 to 1000 days, got % to %', first_day, last_day;
  END IF;
  PERFORM pg_advisory_xact_lock(hashtext('refund.ensure_partitions'));
  WHILE month <= last_day LOOP
    next_month := (month + interval '1 month')::date;
    bounds := format('FOR VALUES FROM (%L) TO (%L)', month, next_month);
    FOREACH parent IN ARRAY ARRAY['photo', 'run_photo', 'prediction', 'decision'] LOOP
      CONTINUE WHEN EXISTS (
        SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = format('refund.%I', parent)::regclass AND NOT i.inhdetachpending
          AND pg_get_expr(c.relpartbound, c.oid) = bounds);
      held := 0;
      holders := '{}';
      FOR part IN
        SELECT i.inhrelid::regclass::text AS name, pg_get_partition_constraintdef(i.inhrelid) AS takes
        FROM pg_inherits i JOIN pg_partitioned_table t ON t.partrelid = i.inhparent
        WHERE i.inhparent = format('refund.%I', parent)::regclass AND i.inhrelid <> t.partdefid ORDER BY 1
      LOOP
        EXECUTE format('SELECT count(*) FROM (SELECT %L::date + n AS photo_date FROM generate_series(0, %s) AS n) AS d WHERE %s',
                       month, next_month - month - 1, part.takes) INTO days;
        IF days > 0 THEN
          held := held + days;
          holders := holders || part.name;
        END IF;
      END LOOP;
      CONTINUE WHEN held = next_month - month;
      IF held > 0 THEN
        RAISE EXCEPTION 'refund.% has no room for all of %: % there % of its % days; expected partitions that hold the whole month, or none of it. Make those for the other days by hand (CREATE TABLE … PARTITION OF refund.% …), or detach %',
          parent, to_char(month, 'YYYY-MM'), array_to_string(holders, ', '),
          CASE WHEN cardinality(holders) = 1 THEN 'holds' ELSE 'hold' END || ' ' || held, next_month - month, parent,
          array_to_string(holders, ', ') USING ERRCODE = 'RF001';
      END IF;
      wanted := parent || to_char(month, '_YYYYMM');
      IF to_regclass(format('refund.%I', wanted)) IS NOT NULL THEN
        RAISE EXCEPTION 'refund.% is there but is no partition of refund.% for %; expected none of that name, or one with these bounds. Attach it (ALTER TABLE refund.% ATTACH PARTITION refund.% %), or give it another name',
          wanted, parent, to_char(month, 'YYYY-MM'), parent, wanted, bounds USING ERRCODE = 'RF001';
      END IF;
      BEGIN
        EXECUTE format('CREATE TABLE refund.%I PARTITION OF refund.%I %s', wanted, parent, bounds);
      EXCEPTION WHEN check_violation THEN
        RAISE EXCEPTION 'the default partition of refund.% holds rows of %; expected no default partition, or none of these rows in it. Move them: detach it, make the month (SELECT refund.ensure_partitions(%, %)), insert them anew',
          parent, to_char(month, 'YYYY-MM'), quote_literal(month), quote_literal(month) USING ERRCODE = 'RF001';
      END;
      made := made + 1;
    END LOOP;
    month := next_month;
  END LOOP;
  RETURN made;
END $$;

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

-- Rights ------------------------------------------------------------------------------------------------------------
-- Everybody may execute a new function unless it is said otherwise. Triggers fire all the same.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA refund FROM PUBLIC;
GRANT EXECUTE ON FUNCTION refund.audit_ratio TO refund_app;
-- Up to Postgres 14 everybody may create tables there; where the schema is not ours to change, this says so and goes on.
DO $$
BEGIN
  IF to_regnamespace('public') IS NOT NULL THEN
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
  END IF;
END $$;
