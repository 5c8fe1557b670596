-- Models as a product: immutable versions, promotions and rollbacks, evaluations, audit marks, weekly quality.

-- Versions never change ---------------------------------------------------------------------------------------------
-- Kept here and not by the bucket: an S3 server may ignore conditional writes, and refund_owner may write any row.
CREATE FUNCTION refund.refuse_model_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_OP = 'UPDATE' AND to_jsonb(NEW) - 'state' = to_jsonb(OLD) - 'state' THEN
    RETURN NEW;
  END IF;
  IF TG_OP = 'TRUNCATE' THEN
    RAISE EXCEPTION 'registered models are immutable and kept; retire them'
      USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RAISE EXCEPTION 'model % is immutable; register the change as a new version', OLD.model
    USING ERRCODE = 'integrity_constraint_violation';
END $$;
COMMENT ON FUNCTION refund.refuse_model_change IS 'Lets a registered model change its state and nothing else.';
CREATE TRIGGER model_is_immutable BEFORE UPDATE OR DELETE ON refund.model
  FOR EACH ROW EXECUTE FUNCTION refund.refuse_model_change();
CREATE TRIGGER models_are_kept BEFORE TRUNCATE ON refund.model
  FOR EACH STATEMENT EXECUTE FUNCTION refund.refuse_model_change();

-- Promotions and rollbacks ------------------------------------------------------------------------------------------
ALTER TABLE refund.model_alias_history
  ADD COLUMN action text NOT NULL DEFAULT 'promote' CHECK (action IN ('promote', 'rollback')),
  ADD COLUMN override boolean NOT NULL DEFAULT false,
  ADD COLUMN details jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN refund.model_alias_history.alias IS 'champion (used by the night) or challenger (compared with it).';
COMMENT ON COLUMN refund.model_alias_history.action IS 'promote (a new model) or rollback (back to the one before).';
COMMENT ON COLUMN refund.model_alias_history.override IS 'True where a refused promotion was made all the same.';
COMMENT ON COLUMN refund.model_alias_history.details IS 'The comparison that the change rests on.';

-- Evaluations -------------------------------------------------------------------------------------------------------
CREATE TABLE refund.evaluation (
  evaluation_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  model             text NOT NULL REFERENCES refund.model,
  set_name          text NOT NULL,
  set_sha256        text NOT NULL CHECK (set_sha256 ~ '^[0-9a-f]{64}$'),
  taxonomy_version  text NOT NULL,
  threshold         real NOT NULL CHECK (threshold BETWEEN 0 AND 1),
  photos            integer NOT NULL CHECK (photos > 0),
  classified        integer NOT NULL CHECK (classified BETWEEN 0 AND photos),
  figures           jsonb NOT NULL,
  plot_uri          text,
  code_version      text NOT NULL,
  evaluated_at      timestamptz NOT NULL DEFAULT now(),
  evaluated_by      text NOT NULL
);
CREATE INDEX evaluation_by_model ON refund.evaluation (model, set_sha256, evaluation_id DESC);
COMMENT ON TABLE refund.evaluation IS 'What a model scored on a labelled set; rows are only ever added.';
COMMENT ON COLUMN refund.evaluation.evaluation_id IS 'Number of the evaluation.';
COMMENT ON COLUMN refund.evaluation.model IS 'The model, name@version.';
COMMENT ON COLUMN refund.evaluation.set_name IS 'The labelled set as it was given.';
COMMENT ON COLUMN refund.evaluation.set_sha256 IS 'Of the photos'' hashes and labels: the same digest is the same set.';
COMMENT ON COLUMN refund.evaluation.taxonomy_version IS 'Taxonomy that sorted the classes.';
COMMENT ON COLUMN refund.evaluation.threshold IS 'Review threshold that coverage was measured at.';
COMMENT ON COLUMN refund.evaluation.photos IS 'Photos in the set.';
COMMENT ON COLUMN refund.evaluation.classified IS 'Of these, classified; the rest could not be decoded.';
COMMENT ON COLUMN refund.evaluation.figures IS 'Accuracy, macro-F1, calibration, coverage, per category, with intervals.';
COMMENT ON COLUMN refund.evaluation.plot_uri IS 'The reliability plot in S3; null where it could not be drawn.';
COMMENT ON COLUMN refund.evaluation.code_version IS 'Version of the refund package.';
COMMENT ON COLUMN refund.evaluation.evaluated_at IS 'When.';
COMMENT ON COLUMN refund.evaluation.evaluated_by IS 'By whom.';

CREATE TABLE refund.evaluation_photo (
  evaluation_id   bigint NOT NULL REFERENCES refund.evaluation,
  photo_sha256    text NOT NULL CHECK (photo_sha256 ~ '^[0-9a-f]{64}$'),
  true_category   text NOT NULL,
  true_class_id   text,
  category        text NOT NULL,
  category_score  real NOT NULL CHECK (category_score BETWEEN 0 AND 1),
  class_id        text NOT NULL,
  confidence      real NOT NULL CHECK (confidence BETWEEN 0 AND 1),
  PRIMARY KEY (evaluation_id, photo_sha256)
);
COMMENT ON TABLE refund.evaluation_photo IS 'What the model said of each classified photo of the set; two models are compared photo by photo.';
COMMENT ON COLUMN refund.evaluation_photo.evaluation_id IS 'The evaluation.';
COMMENT ON COLUMN refund.evaluation_photo.photo_sha256 IS 'SHA-256 of the photo, hex.';
COMMENT ON COLUMN refund.evaluation_photo.true_category IS 'The label''s category.';
COMMENT ON COLUMN refund.evaluation_photo.true_class_id IS 'The label''s class, where it names one.';
COMMENT ON COLUMN refund.evaluation_photo.category IS 'The model''s category.';
COMMENT ON COLUMN refund.evaluation_photo.category_score IS 'Its score, 0 to 1.';
COMMENT ON COLUMN refund.evaluation_photo.class_id IS 'The model''s most probable class.';
COMMENT ON COLUMN refund.evaluation_photo.confidence IS 'Its probability, 0 to 1.';

-- Audits, reviews and quality over time -----------------------------------------------------------------------------
-- Salted, so that it has nothing to do with any other use of photo_id; SHA-256, since md5() fails on servers under FIPS.
CREATE FUNCTION refund.audit_ratio(photo_id uuid) RETURNS double precision
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
RETURN ('x' || left(encode(sha256(convert_to('refund.audit/' || photo_id::text, 'UTF8')), 'hex'), 8))::bit(32)::bigint
       / 4294967296.0::double precision;
COMMENT ON FUNCTION refund.audit_ratio IS 'Where a photo stands in the draw for audits: from 0 up to 1, always the same for the same photo.';
ALTER TABLE refund.decision ADD COLUMN audit boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN refund.decision.audit IS 'An automatic decision that a person is to check: the first 32 bits of the SHA-256 of refund.audit/<photo_id>, over 2^32, lie below the setting audit_share.';
COMMENT ON COLUMN refund.decision.model IS 'Model of the prediction it rests on; after a rollback not that of the run.';
COMMENT ON COLUMN refund.run.model IS 'Model that the run was given when it began; kept when its tasks are cleared.';

-- Which models decided: more than one where the champion was rolled back while the night ran.
ALTER TABLE refund.run ADD COLUMN models text[] NOT NULL DEFAULT '{}';
UPDATE refund.run SET models = ARRAY[model] WHERE classified > 0;
COMMENT ON COLUMN refund.run.models IS 'Models that classified its photos; more than one after a rollback during the night.';
CREATE OR REPLACE VIEW reporting.runs AS
SELECT run_date, run_id, state, model, taxonomy_version, code_version, params, photos, classified, rejected, unchanged,
       rejected::double precision / NULLIF(classified + rejected, 0) AS rejected_share, stage_seconds, notes, synthetic,
       started_at, published_at, finished_at, finished_at - started_at AS duration, models
FROM refund.run;
COMMENT ON COLUMN reporting.runs.model IS 'Model that the run began with, name@version.';
COMMENT ON COLUMN reporting.runs.models IS 'Models that classified its photos; more than one after a rollback during the night.';
COMMENT ON COLUMN reporting.last_complete_night.model IS 'Model that the run began with; reporting.runs has all.';

-- Reviews may be imported late, so the latest is the one that was made last, not the one that was written last.
CREATE INDEX review_latest ON refund.review (photo_date, photo_id, reviewed_at DESC, review_id DESC);
DROP INDEX refund.review_by_photo;
COMMENT ON TABLE refund.review IS 'A person''s verdict on a photo; the one with the latest reviewed_at is final, of two at one time the one written last.';
CREATE OR REPLACE VIEW reporting.photos AS
SELECT p.photo_date, p.photo_id, p.key, p.refund_id, p.declared_category,
       rp.outcome, rp.reason AS rejection_reason,
       COALESCE(rv.category, d.category) AS final_category,
       d.category AS predicted_category, d.score AS category_score, d.kind AS decision, d.reasons AS review_reasons,
       pr.class_id, pr.class_name, pr.confidence, d.model, d.taxonomy_version,
       rv.category AS reviewed_category, rv.reviewed_by, rv.reviewed_at,
       p.image_format, p.width_px, p.height_px, p.size_bytes, p.quality_labels,
       r.run_date, r.run_id, r.synthetic
FROM refund.photo p
JOIN refund.run_photo rp ON rp.photo_date = p.photo_date AND rp.photo_id = p.photo_id
  AND rp.outcome <> 'unchanged' AND rp.superseded_by IS NULL
JOIN refund.run r ON r.run_id = rp.run_id
LEFT JOIN refund.decision d ON d.photo_date = p.photo_date AND d.photo_id = p.photo_id AND d.superseded_by IS NULL
LEFT JOIN refund.prediction pr ON pr.photo_date = d.photo_date AND pr.photo_id = d.photo_id AND pr.model = d.model
LEFT JOIN LATERAL (
  SELECT v.category, v.reviewed_by, v.reviewed_at FROM refund.review v
  WHERE v.photo_date = p.photo_date AND v.photo_id = p.photo_id ORDER BY v.reviewed_at DESC, v.review_id DESC LIMIT 1
) rv ON true
WHERE p.superseded_by IS NULL;
CREATE OR REPLACE VIEW reporting.model_accuracy AS
SELECT d.model, d.category AS predicted_category, count(*) AS reviewed,
       count(*) FILTER (WHERE rv.category = d.category) AS correct,
       count(*) FILTER (WHERE rv.category = d.category)::double precision / count(*) AS accuracy,
       rv.chosen_by
FROM refund.decision d
JOIN refund.photo p ON p.photo_date = d.photo_date AND p.photo_id = d.photo_id
JOIN LATERAL (
  SELECT v.category, v.chosen_by FROM refund.review v
  WHERE v.photo_date = d.photo_date AND v.photo_id = d.photo_id ORDER BY v.reviewed_at DESC, v.review_id DESC LIMIT 1
) rv ON true
WHERE d.superseded_by IS NULL AND p.superseded_by IS NULL GROUP BY d.model, d.category, rv.chosen_by;

CREATE TABLE refund.quality (
  week_ending         date NOT NULL,
  model               text NOT NULL REFERENCES refund.model,
  window_days         integer NOT NULL CHECK (window_days > 0),
  status              text NOT NULL CHECK (status IN ('ok', 'low', 'insufficient_data')),
  accuracy            double precision,
  accuracy_low        double precision,
  accuracy_high       double precision,
  macro_f1            double precision,
  macro_f1_low        double precision,
  macro_f1_high       double precision,
  decisions           integer NOT NULL,
  auto                integer NOT NULL,
  audits              integer NOT NULL,
  audits_reviewed     integer NOT NULL,
  queue               integer NOT NULL,
  queue_reviewed      integer NOT NULL,
  required_audits     integer NOT NULL,
  required_accuracy   double precision NOT NULL,
  details             jsonb NOT NULL,
  computed_at         timestamptz NOT NULL,
  PRIMARY KEY (week_ending, model)
);
COMMENT ON TABLE refund.quality IS 'Accuracy and macro-F1 over time, from people''s reviews, weighted for how each was chosen.';
COMMENT ON COLUMN refund.quality.week_ending IS 'Last run date of the window.';
COMMENT ON COLUMN refund.quality.model IS 'The model, name@version.';
COMMENT ON COLUMN refund.quality.window_days IS 'Run dates in the window.';
COMMENT ON COLUMN refund.quality.status IS 'ok, low (the lower bound is below required_accuracy) or insufficient_data.';
COMMENT ON COLUMN refund.quality.accuracy IS 'Estimated share of right categories among all decisions; null without data.';
COMMENT ON COLUMN refund.quality.accuracy_low IS 'Lower bound of its 95 % interval.';
COMMENT ON COLUMN refund.quality.accuracy_high IS 'Upper bound.';
COMMENT ON COLUMN refund.quality.macro_f1 IS 'Estimated mean F1 over the categories; null without data.';
COMMENT ON COLUMN refund.quality.macro_f1_low IS 'Lower bound of its 95 % interval.';
COMMENT ON COLUMN refund.quality.macro_f1_high IS 'Upper bound.';
COMMENT ON COLUMN refund.quality.decisions IS 'Decisions of the window.';
COMMENT ON COLUMN refund.quality.auto IS 'Of these, automatic.';
COMMENT ON COLUMN refund.quality.audits IS 'Of these, marked for audit.';
COMMENT ON COLUMN refund.quality.audits_reviewed IS 'Of these, reviewed.';
COMMENT ON COLUMN refund.quality.queue IS 'Decisions sent to review.';
COMMENT ON COLUMN refund.quality.queue_reviewed IS 'Of these, reviewed.';
COMMENT ON COLUMN refund.quality.required_audits IS 'Fewer reviews than this of audits, or of the queue: insufficient_data.';
COMMENT ON COLUMN refund.quality.required_accuracy IS 'Lower bound that was asked for.';
COMMENT ON COLUMN refund.quality.details IS 'The estimate by stratum and category, and in words how many audits there are and when there are enough.';
COMMENT ON COLUMN refund.quality.computed_at IS 'When.';

CREATE VIEW reporting.model_quality AS
SELECT week_ending, model, window_days, status, accuracy, accuracy_low, accuracy_high, macro_f1, macro_f1_low,
       macro_f1_high, decisions, auto, audits, audits_reviewed, queue, queue_reviewed, required_audits, required_accuracy,
       details, computed_at
FROM refund.quality;
COMMENT ON VIEW reporting.model_quality IS 'Accuracy and macro-F1 by week, from people''s reviews.';
COMMENT ON COLUMN reporting.model_quality.week_ending IS 'Last run date of the window.';
COMMENT ON COLUMN reporting.model_quality.model IS 'The model, name@version.';
COMMENT ON COLUMN reporting.model_quality.window_days IS 'Run dates in the window.';
COMMENT ON COLUMN reporting.model_quality.status IS 'ok, low or insufficient_data.';
COMMENT ON COLUMN reporting.model_quality.accuracy IS 'Estimated share of right categories; null without data.';
COMMENT ON COLUMN reporting.model_quality.accuracy_low IS 'Lower bound of its 95 % interval.';
COMMENT ON COLUMN reporting.model_quality.accuracy_high IS 'Upper bound.';
COMMENT ON COLUMN reporting.model_quality.macro_f1 IS 'Estimated mean F1 over the categories; null without data.';
COMMENT ON COLUMN reporting.model_quality.macro_f1_low IS 'Lower bound of its 95 % interval.';
COMMENT ON COLUMN reporting.model_quality.macro_f1_high IS 'Upper bound.';
COMMENT ON COLUMN reporting.model_quality.decisions IS 'Decisions of the window.';
COMMENT ON COLUMN reporting.model_quality.auto IS 'Of these, automatic.';
COMMENT ON COLUMN reporting.model_quality.audits IS 'Of these, marked for audit.';
COMMENT ON COLUMN reporting.model_quality.audits_reviewed IS 'Of these, reviewed.';
COMMENT ON COLUMN reporting.model_quality.queue IS 'Decisions sent to review.';
COMMENT ON COLUMN reporting.model_quality.queue_reviewed IS 'Of these, reviewed.';
COMMENT ON COLUMN reporting.model_quality.required_audits IS 'Fewer reviews of audits, or of the queue: insufficient_data.';
COMMENT ON COLUMN reporting.model_quality.required_accuracy IS 'Lower bound that was asked for.';
COMMENT ON COLUMN reporting.model_quality.details IS 'The estimate by stratum and category, and in words how many audits there are and when there are enough.';
COMMENT ON COLUMN reporting.model_quality.computed_at IS 'When.';

CREATE VIEW reporting.evaluations AS
SELECT evaluation_id, model, set_name, set_sha256, photos, classified,
       (figures #>> '{accuracy,value}')::double precision AS accuracy,
       (figures #>> '{macro_f1,value}')::double precision AS macro_f1,
       figures, taxonomy_version, threshold, plot_uri, code_version, evaluated_at, evaluated_by
FROM refund.evaluation;
COMMENT ON VIEW reporting.evaluations IS 'What each model scored on labelled sets.';
COMMENT ON COLUMN reporting.evaluations.evaluation_id IS 'Number of the evaluation.';
COMMENT ON COLUMN reporting.evaluations.model IS 'The model, name@version.';
COMMENT ON COLUMN reporting.evaluations.set_name IS 'The labelled set.';
COMMENT ON COLUMN reporting.evaluations.set_sha256 IS 'The same digest is the same set: only then compare.';
COMMENT ON COLUMN reporting.evaluations.photos IS 'Photos in the set.';
COMMENT ON COLUMN reporting.evaluations.classified IS 'Of these, classified.';
COMMENT ON COLUMN reporting.evaluations.accuracy IS 'Share of right categories, 0 to 1.';
COMMENT ON COLUMN reporting.evaluations.macro_f1 IS 'Mean F1 over the categories, 0 to 1.';
COMMENT ON COLUMN reporting.evaluations.figures IS 'All figures, with intervals.';
COMMENT ON COLUMN reporting.evaluations.taxonomy_version IS 'Taxonomy that sorted the classes.';
COMMENT ON COLUMN reporting.evaluations.threshold IS 'Review threshold that coverage was measured at.';
COMMENT ON COLUMN reporting.evaluations.plot_uri IS 'The reliability plot in S3.';
COMMENT ON COLUMN reporting.evaluations.code_version IS 'Version of the refund package.';
COMMENT ON COLUMN reporting.evaluations.evaluated_at IS 'When.';
COMMENT ON COLUMN reporting.evaluations.evaluated_by IS 'By whom.';

CREATE VIEW reporting.audit_queue AS
SELECT d.photo_date, d.photo_id, p.key, p.refund_id, r.run_date
FROM refund.decision d
JOIN refund.photo p ON p.photo_date = d.photo_date AND p.photo_id = d.photo_id
JOIN refund.run r ON r.run_id = d.run_id
WHERE d.audit AND d.superseded_by IS NULL AND p.superseded_by IS NULL AND NOT EXISTS (
  SELECT FROM refund.review v WHERE v.photo_date = d.photo_date AND v.photo_id = d.photo_id
    AND v.chosen_by IN ('audit', 'queue'));  -- one that somebody looked for leaves the draw as it was
COMMENT ON VIEW reporting.audit_queue IS 'Automatic decisions that a person is to check; without the machine''s answer, so that it does not lead.';
COMMENT ON COLUMN reporting.audit_queue.photo_date IS 'Date of the photo.';
COMMENT ON COLUMN reporting.audit_queue.photo_id IS 'The photo.';
COMMENT ON COLUMN reporting.audit_queue.key IS 'S3 key.';
COMMENT ON COLUMN reporting.audit_queue.refund_id IS 'Its refund.';
COMMENT ON COLUMN reporting.audit_queue.run_date IS 'Night that marked it.';

-- Rights ------------------------------------------------------------------------------------------------------------
GRANT SELECT, INSERT ON refund.evaluation, refund.evaluation_photo, refund.quality TO refund_app;
GRANT UPDATE ON refund.quality TO refund_app;
GRANT SELECT ON reporting.model_quality, reporting.evaluations, reporting.audit_queue TO refund_app, refund_analyst;
