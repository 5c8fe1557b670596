-- Quick reports: what waits for a person is found without a look at what was reviewed long ago.

-- A mark that spares looking for a review ---------------------------------------------------------------------------
-- Never true where no review of the photo is there; it may be false where one is, so whoever reads it looks all the same.
-- New decisions begin without it, also of photos with a review: that review may be taken back at the same moment.
ALTER TABLE refund.decision ADD COLUMN settled boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN refund.decision.settled IS 'True where a review of the photo was seen: spares looking for one. False says nothing.';

-- Whoever may write reviews need not be let to change decisions, hence SECURITY DEFINER. A decision that somebody else
-- holds, such as a publish that replaces it, is passed over: an import of many reviews and a publish would wait for each
-- other. By index, decision for decision: a plan is kept for the session, and one for 10,000 reviews reads all decisions.
CREATE FUNCTION refund.settle_reviewed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
  WITH free AS MATERIALIZED (
    SELECT d.photo_date, d.photo_id, d.run_id
    FROM (SELECT DISTINCT photo_date, photo_id FROM written) w
    JOIN refund.decision d ON d.photo_date = w.photo_date AND d.photo_id = w.photo_id
    WHERE d.kind = 'review' AND d.superseded_by IS NULL AND NOT d.settled
    FOR NO KEY UPDATE OF d SKIP LOCKED
  )
  UPDATE refund.decision d SET settled = true FROM free f
  WHERE d.photo_date = f.photo_date AND d.photo_id = f.photo_id AND d.run_id = f.run_id;
  RETURN NULL;
END $$;
COMMENT ON FUNCTION refund.settle_reviewed IS 'Marks the decisions whose photos were just reviewed, but for those that somebody else holds.';

-- Also where another review of the photo remains: of two that are taken back at once neither sees the other go.
CREATE FUNCTION refund.unsettle_photos() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
  IF TG_OP = 'TRUNCATE' THEN
    UPDATE refund.decision SET settled = false WHERE settled;
  ELSE
    UPDATE refund.decision d SET settled = false FROM (SELECT DISTINCT photo_date, photo_id FROM gone) g
    WHERE d.photo_date = g.photo_date AND d.photo_id = g.photo_id AND d.settled;
  END IF;
  RETURN NULL;
END $$;
COMMENT ON FUNCTION refund.unsettle_photos IS 'Takes the mark from the decisions of photos of which a review was taken back or changed.';
REVOKE ALL ON FUNCTION refund.settle_reviewed, refund.unsettle_photos FROM PUBLIC;

-- Before the marks of what is there are set: from here on nobody writes a review until this migration is committed.
CREATE TRIGGER settles AFTER INSERT ON refund.review
  REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION refund.settle_reviewed();
CREATE TRIGGER unsettles AFTER DELETE ON refund.review
  REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION refund.unsettle_photos();
CREATE TRIGGER changed_unsettles AFTER UPDATE ON refund.review
  REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION refund.unsettle_photos();
CREATE TRIGGER emptied_unsettles AFTER TRUNCATE ON refund.review
  FOR EACH STATEMENT EXECUTE FUNCTION refund.unsettle_photos();

DROP INDEX refund.decision_for_review;
UPDATE refund.decision d SET settled = true
WHERE d.kind = 'review' AND d.superseded_by IS NULL AND EXISTS (
  SELECT FROM refund.review v WHERE v.photo_date = d.photo_date AND v.photo_id = d.photo_id);
CREATE INDEX decision_for_review ON refund.decision (photo_date, photo_id) INCLUDE (run_id, score, reasons)
  WHERE kind = 'review' AND superseded_by IS NULL AND NOT settled;

CREATE OR REPLACE VIEW reporting.review_queue AS
WITH waiting AS MATERIALIZED (
  SELECT d.photo_date, d.photo_id, d.category, d.score, d.reasons, d.model FROM refund.decision d
  WHERE d.kind = 'review' AND d.superseded_by IS NULL AND NOT d.settled AND NOT EXISTS (
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

-- What a run sorted -------------------------------------------------------------------------------------------------
-- Written once, by publishing, in the transaction that inserts the decisions; these are never deleted and change in nothing
-- but superseded_by. So what still stands is this less what was replaced, which is little and has an index of its own.
ALTER TABLE refund.run ADD COLUMN sorted jsonb;
COMMENT ON COLUMN refund.run.sorted IS 'Decisions it made, by model and category, whether or not they still stand; null: not counted.';
UPDATE refund.run r SET sorted = COALESCE(counted.models, '{}')
FROM refund.run known LEFT JOIN (
  SELECT run_id, jsonb_object_agg(model, categories) AS models FROM (
    SELECT run_id, model, jsonb_object_agg(category, photos) AS categories FROM (
      SELECT run_id, model, category, count(*) AS photos FROM refund.decision GROUP BY run_id, model, category) each_category
    GROUP BY run_id, model) each_model
  GROUP BY run_id) counted ON counted.run_id = known.run_id
WHERE known.run_id = r.run_id AND r.state = 'published';
CREATE INDEX decision_replaced ON refund.decision (run_id, category, model) WHERE superseded_by IS NOT NULL;

-- The planner's look ------------------------------------------------------------------------------------------------
-- A sample of 3,000 rows a partition instead of 30,000, each from a page of its own: what the report's plans depend on is
-- how the rows divide among thirty dates and runs, and the look itself is part of the report.
ALTER FUNCTION refund.analyze_months(date[]) SET default_statistics_target = 10;
