-- The data model of the refund night: schema refund (tables), schema reporting (what analysts read), three roles.
-- Run by 0001_initial.py as refund_owner. Every table, view and column carries the comment that the data dictionary shows.

-- Roles -------------------------------------------------------------------------------------------------------------
-- A database administrator usually made them already, with their passwords; a role that may create roles makes them here.
DO $$
DECLARE wanted text;
BEGIN
  FOREACH wanted IN ARRAY ARRAY['refund_app', 'refund_analyst'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
      EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
    END IF;
  END LOOP;
END $$;

CREATE SCHEMA IF NOT EXISTS refund;  -- refund.store.migrate made it already, for Alembic's version table
CREATE SCHEMA reporting;
COMMENT ON SCHEMA refund IS 'The refund night''s own tables. Analysts read schema reporting instead.';
COMMENT ON SCHEMA reporting IS 'Stable views for analysts: columns are added, never renamed or removed.';

COMMENT ON TABLE refund.alembic_version IS 'Which migration the schema is at; one row.';
COMMENT ON COLUMN refund.alembic_version.version_num IS 'The migration.';

-- Models ------------------------------------------------------------------------------------------------------------
CREATE TABLE refund.model (
  model       text PRIMARY KEY CHECK (model = name || '@' || version),
  name        text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9._-]*$'),
  version     text NOT NULL CHECK (version ~ '^[A-Za-z0-9][A-Za-z0-9._+-]*$'),
  uri         text NOT NULL,
  sha256      text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
  card        jsonb NOT NULL,
  state       text NOT NULL DEFAULT 'candidate' CHECK (state IN ('candidate', 'retired')),
  created_at  timestamptz NOT NULL DEFAULT now(),
  created_by  text NOT NULL
);
COMMENT ON TABLE refund.model IS 'Every model version ever registered; immutable but for its state.';
COMMENT ON COLUMN refund.model.model IS 'name@version, as predictions and decisions name it.';
COMMENT ON COLUMN refund.model.name IS 'Network, for example mobilenet_v2.';
COMMENT ON COLUMN refund.model.version IS 'Version of that network''s artefact.';
COMMENT ON COLUMN refund.model.uri IS 'Folder of the artefact and its card in S3.';
COMMENT ON COLUMN refund.model.sha256 IS 'SHA-256 of the artefact file, hex; checked at every load.';
COMMENT ON COLUMN refund.model.card IS 'The model card: input, labels, runtime, source, metrics.';
COMMENT ON COLUMN refund.model.state IS 'candidate (may be used) or retired (may not).';
COMMENT ON COLUMN refund.model.created_at IS 'When it was registered.';
COMMENT ON COLUMN refund.model.created_by IS 'Who registered it.';

CREATE TABLE refund.model_alias_history (
  change_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  alias      text NOT NULL CHECK (alias IN ('champion', 'challenger')),
  model      text NOT NULL REFERENCES refund.model,
  set_at     timestamptz NOT NULL DEFAULT now(),
  set_by     text NOT NULL,
  reason     text NOT NULL CHECK (reason <> ''),
  ended_at   timestamptz
);
CREATE UNIQUE INDEX model_alias_current ON refund.model_alias_history (alias) WHERE ended_at IS NULL;
COMMENT ON TABLE refund.model_alias_history IS 'Which model an alias meant, when, and who changed it why.';
COMMENT ON COLUMN refund.model_alias_history.change_id IS 'Number of the change.';
COMMENT ON COLUMN refund.model_alias_history.alias IS 'champion (used by the night) or challenger (runs beside it).';
COMMENT ON COLUMN refund.model_alias_history.model IS 'The model it meant from set_at to ended_at.';
COMMENT ON COLUMN refund.model_alias_history.set_at IS 'From when.';
COMMENT ON COLUMN refund.model_alias_history.set_by IS 'By whom.';
COMMENT ON COLUMN refund.model_alias_history.reason IS 'Why.';
COMMENT ON COLUMN refund.model_alias_history.ended_at IS 'Until when; null: it still does.';

-- Runs --------------------------------------------------------------------------------------------------------------
CREATE TABLE refund.run (
  run_id            text PRIMARY KEY,
  run_date          date NOT NULL,
  state             text NOT NULL CHECK (state IN ('running', 'published', 'failed', 'dry_run')),
  model             text NOT NULL REFERENCES refund.model,
  taxonomy_version  text NOT NULL,
  code_version      text NOT NULL,
  params            jsonb NOT NULL,
  photos            integer,
  classified        integer,
  rejected          integer,
  unchanged         integer,
  stage_seconds     jsonb NOT NULL DEFAULT '{}',
  notes             text[] NOT NULL DEFAULT '{}',
  synthetic         boolean NOT NULL DEFAULT false,
  started_at        timestamptz NOT NULL,
  published_at      timestamptz,
  finished_at       timestamptz,
  CHECK ((state = 'published') <= (published_at IS NOT NULL AND photos = classified + rejected + unchanged))
);
CREATE INDEX run_by_date ON refund.run (run_date, published_at);
COMMENT ON TABLE refund.run IS 'One row per run of refund_nightly.';
COMMENT ON COLUMN refund.run.run_id IS 'Airflow''s run id.';
COMMENT ON COLUMN refund.run.run_date IS 'The night that the run publishes; not the date of the photos.';
COMMENT ON COLUMN refund.run.state IS 'running, published, failed or dry_run.';
COMMENT ON COLUMN refund.run.model IS 'Model that the run was given when it began; kept when its tasks are cleared.';
COMMENT ON COLUMN refund.run.taxonomy_version IS 'Version of include/taxonomy.csv, with the first digits of its SHA-256.';
COMMENT ON COLUMN refund.run.code_version IS 'Version of the refund package.';
COMMENT ON COLUMN refund.run.params IS 'Parameters of the run.';
COMMENT ON COLUMN refund.run.photos IS 'Photos in the run''s manifest.';
COMMENT ON COLUMN refund.run.classified IS 'Of these, classified by this run.';
COMMENT ON COLUMN refund.run.rejected IS 'Of these, rejected with a reason code.';
COMMENT ON COLUMN refund.run.unchanged IS 'Of these, left as an earlier run decided.';
COMMENT ON COLUMN refund.run.stage_seconds IS 'Seconds of work per stage, summed over shards.';
COMMENT ON COLUMN refund.run.notes IS 'What was odd but did not stop the night.';
COMMENT ON COLUMN refund.run.synthetic IS 'True for made-up nights of the demo.';
COMMENT ON COLUMN refund.run.started_at IS 'When the health check passed first.';
COMMENT ON COLUMN refund.run.published_at IS 'When its rows became visible, all at once.';
COMMENT ON COLUMN refund.run.finished_at IS 'When its last task ended.';

-- Photos and what was made of them, partitioned by month of photo_date -------------------------------------------------
CREATE TABLE refund.photo (
  photo_date        date NOT NULL,
  photo_id          uuid NOT NULL,
  bucket            text NOT NULL,
  key               text NOT NULL,
  etag              text NOT NULL,
  size_bytes        bigint NOT NULL,
  refund_id         text,
  declared_category text,
  image_format      text,
  width_px          integer,
  height_px         integer,
  sha256            text,
  perceptual_hash   bigint,
  brightness_ratio  real,
  contrast_ratio    real,
  sharpness         real,
  entropy_bits      real,
  quality_labels    text[] NOT NULL DEFAULT '{}',
  first_run_id      text NOT NULL REFERENCES refund.run,
  superseded_by     uuid,
  PRIMARY KEY (photo_date, photo_id)
) PARTITION BY RANGE (photo_date);
CREATE INDEX photo_by_key ON refund.photo (photo_date, key);
CREATE INDEX photo_by_refund ON refund.photo (refund_id);
CREATE INDEX photo_replaced ON refund.photo (photo_date, photo_id) WHERE superseded_by IS NOT NULL;
COMMENT ON TABLE refund.photo IS 'One row per photo: one version of one object in the bucket.';
COMMENT ON COLUMN refund.photo.photo_date IS 'Date folder that the photo lies in; 1970-01-01 where there is none.';
COMMENT ON COLUMN refund.photo.photo_id IS 'From the SHA-256 of bucket, key and ETag.';
COMMENT ON COLUMN refund.photo.bucket IS 'S3 bucket.';
COMMENT ON COLUMN refund.photo.key IS 'S3 key.';
COMMENT ON COLUMN refund.photo.etag IS 'S3 ETag of this version.';
COMMENT ON COLUMN refund.photo.size_bytes IS 'Size of the object.';
COMMENT ON COLUMN refund.photo.refund_id IS 'Refund that the photo belongs to; null where the key names none.';
COMMENT ON COLUMN refund.photo.declared_category IS 'Category that the customer declared, where known.';
COMMENT ON COLUMN refund.photo.image_format IS 'Format by content: JPEG, PNG, GIF, BMP or WEBP.';
COMMENT ON COLUMN refund.photo.width_px IS 'Width after EXIF orientation, pixels.';
COMMENT ON COLUMN refund.photo.height_px IS 'Height after EXIF orientation, pixels.';
COMMENT ON COLUMN refund.photo.sha256 IS 'SHA-256 of the object, hex.';
COMMENT ON COLUMN refund.photo.perceptual_hash IS '64-bit perceptual hash: few differing bits mean a similar picture.';
COMMENT ON COLUMN refund.photo.brightness_ratio IS 'Mean luminance, 0 to 1.';
COMMENT ON COLUMN refund.photo.contrast_ratio IS 'Standard deviation of the luminance, 0 to 0.5.';
COMMENT ON COLUMN refund.photo.sharpness IS 'Variance of the Laplacian of the luminance; low is blurry.';
COMMENT ON COLUMN refund.photo.entropy_bits IS 'Entropy of the luminance histogram, 0 to 8 bits.';
COMMENT ON COLUMN refund.photo.quality_labels IS 'dark, bright, blurry, low_information, odd_aspect.';
COMMENT ON COLUMN refund.photo.first_run_id IS 'Run that saw it first.';
COMMENT ON COLUMN refund.photo.superseded_by IS 'Newer version under the same key; null: this is the newest.';

CREATE TABLE refund.run_photo (
  photo_date      date NOT NULL,
  photo_id        uuid NOT NULL,
  run_id          text NOT NULL REFERENCES refund.run,
  outcome         text NOT NULL CHECK (outcome IN ('classified', 'rejected', 'unchanged')),
  reason          text,
  detail          text,
  quarantine_key  text,
  superseded_by   text,
  PRIMARY KEY (photo_date, photo_id, run_id),
  FOREIGN KEY (photo_date, photo_id) REFERENCES refund.photo,
  CHECK ((outcome = 'rejected') = (reason IS NOT NULL))
) PARTITION BY RANGE (photo_date);
CREATE INDEX run_photo_by_run ON refund.run_photo (run_id, outcome);
COMMENT ON TABLE refund.run_photo IS 'What one run made of one photo: exactly one outcome for each photo of its manifest.';
COMMENT ON COLUMN refund.run_photo.photo_date IS 'Date of the photo.';
COMMENT ON COLUMN refund.run_photo.photo_id IS 'The photo.';
COMMENT ON COLUMN refund.run_photo.run_id IS 'The run.';
COMMENT ON COLUMN refund.run_photo.outcome IS 'classified, rejected or unchanged.';
COMMENT ON COLUMN refund.run_photo.reason IS 'Reason code of a rejection.';
COMMENT ON COLUMN refund.run_photo.detail IS 'What was seen and what was expected.';
COMMENT ON COLUMN refund.run_photo.quarantine_key IS 'Where the rejected original was copied to.';
COMMENT ON COLUMN refund.run_photo.superseded_by IS 'Run whose outcome for the photo replaced this one; null: it stands.';

CREATE TABLE refund.prediction (
  photo_date  date NOT NULL,
  photo_id    uuid NOT NULL,
  model       text NOT NULL REFERENCES refund.model,
  class_id    text NOT NULL,
  class_name  text NOT NULL,
  confidence  real NOT NULL CHECK (confidence BETWEEN 0 AND 1),
  top_k       jsonb NOT NULL,
  run_id      text NOT NULL REFERENCES refund.run,
  PRIMARY KEY (photo_date, photo_id, model),
  FOREIGN KEY (photo_date, photo_id) REFERENCES refund.photo
) PARTITION BY RANGE (photo_date);
COMMENT ON TABLE refund.prediction IS 'What a model said of a photo; written once, never changed.';
COMMENT ON COLUMN refund.prediction.photo_date IS 'Date of the photo.';
COMMENT ON COLUMN refund.prediction.photo_id IS 'The photo.';
COMMENT ON COLUMN refund.prediction.model IS 'The model, name@version.';
COMMENT ON COLUMN refund.prediction.class_id IS 'WordNet id of the most probable class.';
COMMENT ON COLUMN refund.prediction.class_name IS 'Its name.';
COMMENT ON COLUMN refund.prediction.confidence IS 'Its softmax probability, 0 to 1.';
COMMENT ON COLUMN refund.prediction.top_k IS 'The most probable classes, most probable first.';
COMMENT ON COLUMN refund.prediction.run_id IS 'Run that made it.';

CREATE TABLE refund.decision (
  photo_date        date NOT NULL,
  photo_id          uuid NOT NULL,
  run_id            text NOT NULL REFERENCES refund.run,
  category          text NOT NULL,
  score             real NOT NULL CHECK (score BETWEEN 0 AND 1),
  kind              text NOT NULL CHECK (kind IN ('auto', 'review')),
  reasons           text[] NOT NULL,
  category_scores   jsonb NOT NULL,
  model             text NOT NULL REFERENCES refund.model,
  taxonomy_version  text NOT NULL,
  threshold         real NOT NULL CHECK (threshold BETWEEN 0 AND 1),
  decided_at        timestamptz NOT NULL,
  superseded_by     text,
  PRIMARY KEY (photo_date, photo_id, run_id),
  FOREIGN KEY (photo_date, photo_id, model) REFERENCES refund.prediction,
  CHECK ((kind = 'review') = (cardinality(reasons) > 0))
) PARTITION BY RANGE (photo_date);
CREATE UNIQUE INDEX decision_live ON refund.decision (photo_date, photo_id) WHERE superseded_by IS NULL;
CREATE INDEX decision_by_run ON refund.decision (run_id, category) WHERE superseded_by IS NULL;
COMMENT ON TABLE refund.decision IS 'What was decided from a prediction; superseded by later ones, never overwritten.';
COMMENT ON COLUMN refund.decision.photo_date IS 'Date of the photo.';
COMMENT ON COLUMN refund.decision.photo_id IS 'The photo.';
COMMENT ON COLUMN refund.decision.run_id IS 'Run that decided.';
COMMENT ON COLUMN refund.decision.category IS 'Category with the largest score.';
COMMENT ON COLUMN refund.decision.score IS 'Sum of the probabilities of that category''s classes, 0 to 1.';
COMMENT ON COLUMN refund.decision.kind IS 'auto, or review where a person must look.';
COMMENT ON COLUMN refund.decision.reasons IS 'Why review: low_score, not_a_product, declared_mismatch.';
COMMENT ON COLUMN refund.decision.category_scores IS 'Scores of all categories above zero.';
COMMENT ON COLUMN refund.decision.model IS 'Model of the prediction it rests on.';
COMMENT ON COLUMN refund.decision.taxonomy_version IS 'Taxonomy that sorted the classes.';
COMMENT ON COLUMN refund.decision.threshold IS 'Review threshold that was applied.';
COMMENT ON COLUMN refund.decision.decided_at IS 'When.';
COMMENT ON COLUMN refund.decision.superseded_by IS 'Run whose decision replaced this one; null: it is live.';

CREATE FUNCTION refund.ensure_partitions(first_day date, last_day date) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  month date := date_trunc('month', first_day)::date;
  parent text;
  made integer := 0;
BEGIN
  IF last_day < first_day OR last_day > first_day + 1000 THEN
    RAISE EXCEPTION 'ensure_partitions covers 0 to 1000 days, got % to %', first_day, last_day;
  END IF;
  PERFORM pg_advisory_xact_lock(hashtext('refund.ensure_partitions'));
  WHILE month <= last_day LOOP
    FOREACH parent IN ARRAY ARRAY['photo', 'run_photo', 'prediction', 'decision'] LOOP
      IF to_regclass(format('refund.%I', parent || to_char(month, '_YYYYMM'))) IS NULL THEN
        EXECUTE format('CREATE TABLE refund.%I PARTITION OF refund.%I FOR VALUES FROM (%L) TO (%L)',
                       parent || to_char(month, '_YYYYMM'), parent, month, (month + interval '1 month')::date);
        made := made + 1;
      END IF;
    END LOOP;
    month := (month + interval '1 month')::date;
  END LOOP;
  RETURN made;
END $$;
COMMENT ON FUNCTION refund.ensure_partitions IS 'Makes the month partitions from first_day to last_day; returns how many were new.';
REVOKE ALL ON FUNCTION refund.ensure_partitions FROM PUBLIC;
GRANT EXECUTE ON FUNCTION refund.ensure_partitions TO refund_app;
SELECT refund.ensure_partitions(date '1970-01-01', date '1970-01-01');  -- undated photos

-- People, monitoring, traces ----------------------------------------------------------------------------------------
CREATE TABLE refund.review (
  review_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  photo_date   date NOT NULL,
  photo_id     uuid NOT NULL,
  category     text NOT NULL,
  reviewed_by  text NOT NULL,
  reviewed_at  timestamptz NOT NULL DEFAULT now(),
  chosen_by    text NOT NULL CHECK (chosen_by IN ('queue', 'audit', 'import', 'search')),
  note         text,
  FOREIGN KEY (photo_date, photo_id) REFERENCES refund.photo
);
CREATE INDEX review_by_photo ON refund.review (photo_date, photo_id, review_id DESC);
COMMENT ON TABLE refund.review IS 'A person''s verdict on a photo; the latest one is final.';
COMMENT ON COLUMN refund.review.review_id IS 'Number of the review.';
COMMENT ON COLUMN refund.review.photo_date IS 'Date of the photo.';
COMMENT ON COLUMN refund.review.photo_id IS 'The photo.';
COMMENT ON COLUMN refund.review.category IS 'The right category.';
COMMENT ON COLUMN refund.review.reviewed_by IS 'Who says so.';
COMMENT ON COLUMN refund.review.reviewed_at IS 'When.';
COMMENT ON COLUMN refund.review.chosen_by IS 'How the photo came to be reviewed; accuracy is weighted by it.';
COMMENT ON COLUMN refund.review.note IS 'A remark.';

CREATE TABLE refund.drift (
  run_id            text NOT NULL REFERENCES refund.run,
  measure           text NOT NULL,
  run_date          date NOT NULL,
  status            text NOT NULL CHECK (status IN ('ok', 'drift', 'insufficient_data', 'no_reference')),
  distance          double precision,
  threshold         double precision,
  p_value           double precision,
  tonight_photos    integer NOT NULL,
  reference_photos  integer NOT NULL,
  reference_nights  integer NOT NULL,
  details           jsonb NOT NULL,
  computed_at       timestamptz NOT NULL,
  PRIMARY KEY (run_id, measure)
);
COMMENT ON TABLE refund.drift IS 'How far a night lies from its reference window.';
COMMENT ON COLUMN refund.drift.run_id IS 'The run.';
COMMENT ON COLUMN refund.drift.measure IS 'What was compared, for example category_shares.';
COMMENT ON COLUMN refund.drift.run_date IS 'Its night.';
COMMENT ON COLUMN refund.drift.status IS 'ok, drift, insufficient_data or no_reference.';
COMMENT ON COLUMN refund.drift.distance IS 'The distance measured; null without a reference.';
COMMENT ON COLUMN refund.drift.threshold IS 'Distance above which it is drift; the value that was applied.';
COMMENT ON COLUMN refund.drift.p_value IS 'Probability of such a distance without drift.';
COMMENT ON COLUMN refund.drift.tonight_photos IS 'Classified photos of the night.';
COMMENT ON COLUMN refund.drift.reference_photos IS 'Classified photos of the reference window.';
COMMENT ON COLUMN refund.drift.reference_nights IS 'Nights in the reference window.';
COMMENT ON COLUMN refund.drift.details IS 'What moved, by category.';
COMMENT ON COLUMN refund.drift.computed_at IS 'When.';

CREATE TABLE refund.alert (
  alert_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  dedupe_key       text NOT NULL UNIQUE,
  rule             text NOT NULL,
  severity         text NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
  run_id           text NOT NULL,
  run_date         date NOT NULL,
  message          text NOT NULL,
  details          jsonb NOT NULL DEFAULT '{}',
  first_seen_at    timestamptz NOT NULL,
  last_seen_at     timestamptz NOT NULL,
  seen_count       integer NOT NULL DEFAULT 1,
  acknowledged_at  timestamptz,
  acknowledged_by  text
);
CREATE INDEX alert_open ON refund.alert (last_seen_at) WHERE acknowledged_at IS NULL;
COMMENT ON TABLE refund.alert IS 'What somebody should know: drift, a missing report, a failed night.';
COMMENT ON COLUMN refund.alert.alert_id IS 'Number of the alert.';
COMMENT ON COLUMN refund.alert.dedupe_key IS 'The same key seen again is the same alert.';
COMMENT ON COLUMN refund.alert.rule IS 'Rule that raised it.';
COMMENT ON COLUMN refund.alert.severity IS 'info, warning or critical.';
COMMENT ON COLUMN refund.alert.run_id IS 'Run that it is about; may be one that never got a row in refund.run.';
COMMENT ON COLUMN refund.alert.run_date IS 'Its night.';
COMMENT ON COLUMN refund.alert.message IS 'What was seen, what was expected, what to do.';
COMMENT ON COLUMN refund.alert.details IS 'Figures behind the message.';
COMMENT ON COLUMN refund.alert.first_seen_at IS 'When it was raised.';
COMMENT ON COLUMN refund.alert.last_seen_at IS 'When it was seen last.';
COMMENT ON COLUMN refund.alert.seen_count IS 'How often it was seen.';
COMMENT ON COLUMN refund.alert.acknowledged_at IS 'When somebody took it; null: nobody did.';
COMMENT ON COLUMN refund.alert.acknowledged_by IS 'Who took it.';

CREATE TABLE refund.report (
  run_id      text PRIMARY KEY REFERENCES refund.run,
  run_date    date NOT NULL,
  body        jsonb NOT NULL,
  html_uri    text NOT NULL,
  csv_uri     text NOT NULL,
  created_at  timestamptz NOT NULL
);
CREATE INDEX report_by_date ON refund.report (run_date);
COMMENT ON TABLE refund.report IS 'The morning report of a run.';
COMMENT ON COLUMN refund.report.run_id IS 'The run.';
COMMENT ON COLUMN refund.report.run_date IS 'Its night.';
COMMENT ON COLUMN refund.report.body IS 'Every figure of the report.';
COMMENT ON COLUMN refund.report.html_uri IS 'The page in S3.';
COMMENT ON COLUMN refund.report.csv_uri IS 'The table in S3.';
COMMENT ON COLUMN refund.report.created_at IS 'When it was made.';

CREATE TABLE refund.audit (
  audit_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at        timestamptz NOT NULL DEFAULT now(),
  actor     text NOT NULL,
  action    text NOT NULL,
  subject   text NOT NULL,
  details   jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE refund.audit IS 'Who did what; rows are only ever added.';
COMMENT ON COLUMN refund.audit.audit_id IS 'Number of the entry.';
COMMENT ON COLUMN refund.audit.at IS 'When.';
COMMENT ON COLUMN refund.audit.actor IS 'Who: a user, a run, or the command line.';
COMMENT ON COLUMN refund.audit.action IS 'What was done.';
COMMENT ON COLUMN refund.audit.subject IS 'To what.';
COMMENT ON COLUMN refund.audit.details IS 'Further values.';

-- What analysts read ------------------------------------------------------------------------------------------------
-- A photo that was overwritten keeps its outcome and decision, as history and in case it is uploaded again: what counts
-- photos takes the newest version under a key alone (p.superseded_by IS NULL) and its standing outcome or decision. Where
-- no other column of refund.photo is needed, NOT EXISTS reads the few that were replaced from an index of their own.
CREATE VIEW reporting.photos AS
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
  WHERE v.photo_date = p.photo_date AND v.photo_id = p.photo_id ORDER BY v.review_id DESC LIMIT 1
) rv ON true
WHERE p.superseded_by IS NULL;
COMMENT ON VIEW reporting.photos IS 'One row per photo: its newest version, what stands of it, and its final category.';
COMMENT ON COLUMN reporting.photos.photo_date IS 'Date folder that the photo lies in; 1970-01-01: undated.';
COMMENT ON COLUMN reporting.photos.photo_id IS 'Identity of the photo.';
COMMENT ON COLUMN reporting.photos.key IS 'S3 key.';
COMMENT ON COLUMN reporting.photos.refund_id IS 'Refund that it belongs to.';
COMMENT ON COLUMN reporting.photos.declared_category IS 'What the customer declared.';
COMMENT ON COLUMN reporting.photos.outcome IS 'classified or rejected.';
COMMENT ON COLUMN reporting.photos.rejection_reason IS 'Reason code, for rejected photos.';
COMMENT ON COLUMN reporting.photos.final_category IS 'The latest review''s category, else the live decision''s.';
COMMENT ON COLUMN reporting.photos.predicted_category IS 'The live decision''s category.';
COMMENT ON COLUMN reporting.photos.category_score IS 'Its score, 0 to 1.';
COMMENT ON COLUMN reporting.photos.decision IS 'auto or review.';
COMMENT ON COLUMN reporting.photos.review_reasons IS 'Why review.';
COMMENT ON COLUMN reporting.photos.class_id IS 'WordNet id of the most probable class.';
COMMENT ON COLUMN reporting.photos.class_name IS 'Its name.';
COMMENT ON COLUMN reporting.photos.confidence IS 'Its probability, 0 to 1.';
COMMENT ON COLUMN reporting.photos.model IS 'Model, name@version.';
COMMENT ON COLUMN reporting.photos.taxonomy_version IS 'Taxonomy that sorted the classes.';
COMMENT ON COLUMN reporting.photos.reviewed_category IS 'Category by the latest review; null: not reviewed.';
COMMENT ON COLUMN reporting.photos.reviewed_by IS 'Who reviewed it last.';
COMMENT ON COLUMN reporting.photos.reviewed_at IS 'When.';
COMMENT ON COLUMN reporting.photos.image_format IS 'Format by content.';
COMMENT ON COLUMN reporting.photos.width_px IS 'Width, pixels.';
COMMENT ON COLUMN reporting.photos.height_px IS 'Height, pixels.';
COMMENT ON COLUMN reporting.photos.size_bytes IS 'Size, bytes.';
COMMENT ON COLUMN reporting.photos.quality_labels IS 'What is poor about the picture.';
COMMENT ON COLUMN reporting.photos.run_date IS 'Night that published what stands.';
COMMENT ON COLUMN reporting.photos.run_id IS 'Run that did.';
COMMENT ON COLUMN reporting.photos.synthetic IS 'True for made-up nights.';

CREATE VIEW reporting.refunds AS
SELECT refund_id, max(run_date) AS run_date, count(*) AS photos,
       count(*) FILTER (WHERE outcome = 'classified') AS classified,
       count(*) FILTER (WHERE outcome = 'rejected') AS rejected,
       mode() WITHIN GROUP (ORDER BY final_category) AS category,
       count(DISTINCT final_category) AS categories,
       count(DISTINCT final_category) <= 1 AS photos_agree,
       min(declared_category) AS declared_category,
       bool_and(final_category = declared_category) AS matches_declared,
       bool_or((decision = 'review' AND reviewed_at IS NULL) OR outcome = 'rejected') AS needs_review,
       bool_or(synthetic) AS synthetic
FROM reporting.photos WHERE refund_id IS NOT NULL GROUP BY refund_id;
COMMENT ON VIEW reporting.refunds IS 'One row per refund: what its photos say together.';
COMMENT ON COLUMN reporting.refunds.refund_id IS 'The refund.';
COMMENT ON COLUMN reporting.refunds.run_date IS 'Latest night that published one of its photos.';
COMMENT ON COLUMN reporting.refunds.photos IS 'Its photos.';
COMMENT ON COLUMN reporting.refunds.classified IS 'Of these, classified.';
COMMENT ON COLUMN reporting.refunds.rejected IS 'Of these, rejected.';
COMMENT ON COLUMN reporting.refunds.category IS 'Most frequent final category.';
COMMENT ON COLUMN reporting.refunds.categories IS 'Number of different final categories.';
COMMENT ON COLUMN reporting.refunds.photos_agree IS 'True where there is at most one.';
COMMENT ON COLUMN reporting.refunds.declared_category IS 'What the customer declared.';
COMMENT ON COLUMN reporting.refunds.matches_declared IS 'Whether all photos agree with it; null where unknown.';
COMMENT ON COLUMN reporting.refunds.needs_review IS 'Whether a person must look at one of its photos.';
COMMENT ON COLUMN reporting.refunds.synthetic IS 'True for made-up nights.';

CREATE VIEW reporting.daily_categories AS
SELECT r.run_date, d.category, count(*) AS photos,
       count(*)::double precision / sum(count(*)) OVER (PARTITION BY r.run_date) AS share,
       count(*) FILTER (WHERE d.kind = 'auto') AS auto, count(*) FILTER (WHERE d.kind = 'review') AS review,
       avg(d.score) AS mean_score
FROM refund.decision d JOIN refund.run r USING (run_id)
WHERE d.superseded_by IS NULL AND NOT EXISTS (
  SELECT FROM refund.photo p
  WHERE p.photo_date = d.photo_date AND p.photo_id = d.photo_id AND p.superseded_by IS NOT NULL)
GROUP BY r.run_date, d.category;
COMMENT ON VIEW reporting.daily_categories IS 'Classified photos by night and category.';
COMMENT ON COLUMN reporting.daily_categories.run_date IS 'The night that published them.';
COMMENT ON COLUMN reporting.daily_categories.category IS 'Category as decided by the machine.';
COMMENT ON COLUMN reporting.daily_categories.photos IS 'Photos.';
COMMENT ON COLUMN reporting.daily_categories.share IS 'Share of the night''s classified photos, 0 to 1.';
COMMENT ON COLUMN reporting.daily_categories.auto IS 'Of these, decided by the machine alone.';
COMMENT ON COLUMN reporting.daily_categories.review IS 'Of these, sent to review.';
COMMENT ON COLUMN reporting.daily_categories.mean_score IS 'Mean category score, 0 to 1.';

CREATE VIEW reporting.daily_quality AS
SELECT r.run_date, count(*) AS photos,
       count(*) FILTER (WHERE rp.outcome = 'rejected') AS rejected,
       count(*) FILTER (WHERE rp.outcome = 'rejected')::double precision / count(*) AS rejected_share,
       count(*) FILTER (WHERE 'dark' = ANY (p.quality_labels)) AS dark,
       count(*) FILTER (WHERE 'bright' = ANY (p.quality_labels)) AS bright,
       count(*) FILTER (WHERE 'blurry' = ANY (p.quality_labels)) AS blurry,
       count(*) FILTER (WHERE 'low_information' = ANY (p.quality_labels)) AS low_information,
       count(*) FILTER (WHERE 'odd_aspect' = ANY (p.quality_labels)) AS odd_aspect,
       avg(p.brightness_ratio) AS mean_brightness_ratio, avg(p.sharpness) AS mean_sharpness,
       avg(p.size_bytes) AS mean_size_bytes
FROM refund.run_photo rp JOIN refund.run r USING (run_id)
JOIN refund.photo p ON p.photo_date = rp.photo_date AND p.photo_id = rp.photo_id
WHERE rp.outcome <> 'unchanged' AND rp.superseded_by IS NULL AND p.superseded_by IS NULL GROUP BY r.run_date;
COMMENT ON VIEW reporting.daily_quality IS 'Quality of the photos by night.';
COMMENT ON COLUMN reporting.daily_quality.run_date IS 'The night.';
COMMENT ON COLUMN reporting.daily_quality.photos IS 'Photos classified or rejected.';
COMMENT ON COLUMN reporting.daily_quality.rejected IS 'Of these, rejected.';
COMMENT ON COLUMN reporting.daily_quality.rejected_share IS 'Share rejected, 0 to 1.';
COMMENT ON COLUMN reporting.daily_quality.dark IS 'Photos labelled dark.';
COMMENT ON COLUMN reporting.daily_quality.bright IS 'Photos labelled bright.';
COMMENT ON COLUMN reporting.daily_quality.blurry IS 'Photos labelled blurry.';
COMMENT ON COLUMN reporting.daily_quality.low_information IS 'Photos labelled low_information.';
COMMENT ON COLUMN reporting.daily_quality.odd_aspect IS 'Photos labelled odd_aspect.';
COMMENT ON COLUMN reporting.daily_quality.mean_brightness_ratio IS 'Mean brightness, 0 to 1.';
COMMENT ON COLUMN reporting.daily_quality.mean_sharpness IS 'Mean sharpness.';
COMMENT ON COLUMN reporting.daily_quality.mean_size_bytes IS 'Mean size, bytes.';

CREATE VIEW reporting.review_queue AS
SELECT photo_date, photo_id, key, refund_id, predicted_category, category_score, review_reasons, declared_category,
       class_name, confidence, model, run_date
FROM reporting.photos WHERE decision = 'review' AND reviewed_at IS NULL;
COMMENT ON VIEW reporting.review_queue IS 'Photos that wait for a person.';
COMMENT ON COLUMN reporting.review_queue.photo_date IS 'Date of the photo.';
COMMENT ON COLUMN reporting.review_queue.photo_id IS 'The photo.';
COMMENT ON COLUMN reporting.review_queue.key IS 'S3 key.';
COMMENT ON COLUMN reporting.review_queue.refund_id IS 'Its refund.';
COMMENT ON COLUMN reporting.review_queue.predicted_category IS 'The machine''s guess.';
COMMENT ON COLUMN reporting.review_queue.category_score IS 'Its score, 0 to 1.';
COMMENT ON COLUMN reporting.review_queue.review_reasons IS 'Why a person must look.';
COMMENT ON COLUMN reporting.review_queue.declared_category IS 'What the customer declared.';
COMMENT ON COLUMN reporting.review_queue.class_name IS 'Most probable class.';
COMMENT ON COLUMN reporting.review_queue.confidence IS 'Its probability, 0 to 1.';
COMMENT ON COLUMN reporting.review_queue.model IS 'Model, name@version.';
COMMENT ON COLUMN reporting.review_queue.run_date IS 'Night that put it here.';

CREATE VIEW reporting.rejections AS
SELECT r.run_date, r.run_id, rp.photo_date, rp.photo_id, p.key, p.refund_id, rp.reason, rp.detail, rp.quarantine_key
FROM refund.run_photo rp JOIN refund.run r USING (run_id)
JOIN refund.photo p ON p.photo_date = rp.photo_date AND p.photo_id = rp.photo_id
WHERE rp.outcome = 'rejected' AND rp.superseded_by IS NULL AND p.superseded_by IS NULL;
COMMENT ON VIEW reporting.rejections IS 'Rejected photos and why.';
COMMENT ON COLUMN reporting.rejections.run_date IS 'The night.';
COMMENT ON COLUMN reporting.rejections.run_id IS 'The run.';
COMMENT ON COLUMN reporting.rejections.photo_date IS 'Date of the photo.';
COMMENT ON COLUMN reporting.rejections.photo_id IS 'The photo.';
COMMENT ON COLUMN reporting.rejections.key IS 'S3 key.';
COMMENT ON COLUMN reporting.rejections.refund_id IS 'Its refund.';
COMMENT ON COLUMN reporting.rejections.reason IS 'Reason code.';
COMMENT ON COLUMN reporting.rejections.detail IS 'What was seen and what was expected.';
COMMENT ON COLUMN reporting.rejections.quarantine_key IS 'Where the original was copied to.';

CREATE VIEW reporting.model_accuracy AS
SELECT d.model, d.category AS predicted_category, count(*) AS reviewed,
       count(*) FILTER (WHERE rv.category = d.category) AS correct,
       count(*) FILTER (WHERE rv.category = d.category)::double precision / count(*) AS accuracy,
       rv.chosen_by
FROM refund.decision d
JOIN refund.photo p ON p.photo_date = d.photo_date AND p.photo_id = d.photo_id
JOIN LATERAL (
  SELECT v.category, v.chosen_by FROM refund.review v
  WHERE v.photo_date = d.photo_date AND v.photo_id = d.photo_id ORDER BY v.review_id DESC LIMIT 1
) rv ON true
WHERE d.superseded_by IS NULL AND p.superseded_by IS NULL GROUP BY d.model, d.category, rv.chosen_by;
COMMENT ON VIEW reporting.model_accuracy IS 'How often reviews agree with a model, by category and by how the photo was chosen.';
COMMENT ON COLUMN reporting.model_accuracy.model IS 'Model, name@version.';
COMMENT ON COLUMN reporting.model_accuracy.predicted_category IS 'The machine''s category.';
COMMENT ON COLUMN reporting.model_accuracy.reviewed IS 'Reviewed photos.';
COMMENT ON COLUMN reporting.model_accuracy.correct IS 'Of these, the reviewer agreed.';
COMMENT ON COLUMN reporting.model_accuracy.accuracy IS 'correct over reviewed, 0 to 1.';
COMMENT ON COLUMN reporting.model_accuracy.chosen_by IS 'How the photos came to be reviewed; do not mix them unweighted.';

CREATE VIEW reporting.drift AS
SELECT run_date, run_id, measure, status, distance, threshold, p_value, tonight_photos, reference_photos,
       reference_nights, details, computed_at FROM refund.drift;
COMMENT ON VIEW reporting.drift IS 'How far each night lies from its reference window.';
COMMENT ON COLUMN reporting.drift.run_date IS 'The night.';
COMMENT ON COLUMN reporting.drift.run_id IS 'The run.';
COMMENT ON COLUMN reporting.drift.measure IS 'What was compared.';
COMMENT ON COLUMN reporting.drift.status IS 'ok, drift, insufficient_data or no_reference.';
COMMENT ON COLUMN reporting.drift.distance IS 'The distance.';
COMMENT ON COLUMN reporting.drift.threshold IS 'Threshold that was applied.';
COMMENT ON COLUMN reporting.drift.p_value IS 'Probability of such a distance without drift.';
COMMENT ON COLUMN reporting.drift.tonight_photos IS 'Classified photos of the night.';
COMMENT ON COLUMN reporting.drift.reference_photos IS 'Classified photos of the reference window.';
COMMENT ON COLUMN reporting.drift.reference_nights IS 'Nights in the window.';
COMMENT ON COLUMN reporting.drift.details IS 'What moved, by category.';
COMMENT ON COLUMN reporting.drift.computed_at IS 'When.';

CREATE VIEW reporting.runs AS
SELECT run_date, run_id, state, model, taxonomy_version, code_version, params, photos, classified, rejected, unchanged,
       rejected::double precision / NULLIF(classified + rejected, 0) AS rejected_share, stage_seconds, notes, synthetic,
       started_at, published_at, finished_at, finished_at - started_at AS duration
FROM refund.run;
COMMENT ON VIEW reporting.runs IS 'One row per run.';
COMMENT ON COLUMN reporting.runs.run_date IS 'The night.';
COMMENT ON COLUMN reporting.runs.run_id IS 'Airflow''s run id.';
COMMENT ON COLUMN reporting.runs.state IS 'running, published, failed or dry_run.';
COMMENT ON COLUMN reporting.runs.model IS 'Model, name@version.';
COMMENT ON COLUMN reporting.runs.taxonomy_version IS 'Version of the taxonomy.';
COMMENT ON COLUMN reporting.runs.code_version IS 'Version of the refund package.';
COMMENT ON COLUMN reporting.runs.params IS 'Parameters of the run.';
COMMENT ON COLUMN reporting.runs.photos IS 'Photos in the manifest.';
COMMENT ON COLUMN reporting.runs.classified IS 'Of these, classified.';
COMMENT ON COLUMN reporting.runs.rejected IS 'Of these, rejected.';
COMMENT ON COLUMN reporting.runs.unchanged IS 'Of these, left as they were.';
COMMENT ON COLUMN reporting.runs.rejected_share IS 'rejected over classified and rejected, 0 to 1.';
COMMENT ON COLUMN reporting.runs.stage_seconds IS 'Seconds of work per stage.';
COMMENT ON COLUMN reporting.runs.notes IS 'What was odd but did not stop the night.';
COMMENT ON COLUMN reporting.runs.synthetic IS 'True for made-up nights.';
COMMENT ON COLUMN reporting.runs.started_at IS 'When it started.';
COMMENT ON COLUMN reporting.runs.published_at IS 'When its rows became visible.';
COMMENT ON COLUMN reporting.runs.finished_at IS 'When its last task ended.';
COMMENT ON COLUMN reporting.runs.duration IS 'From start to finish.';

CREATE VIEW reporting.reconciliation AS
SELECT r.run_date, r.run_id, r.photos AS manifest,
       count(rp.photo_id) AS outcomes,
       count(rp.photo_id) FILTER (WHERE rp.outcome = 'classified') AS classified,
       count(rp.photo_id) FILTER (WHERE rp.outcome = 'rejected') AS rejected,
       count(rp.photo_id) FILTER (WHERE rp.outcome = 'unchanged') AS unchanged,
       (SELECT count(*) FROM refund.decision d WHERE d.run_id = r.run_id) AS decisions,
       r.photos = count(rp.photo_id)
         AND r.classified = count(rp.photo_id) FILTER (WHERE rp.outcome = 'classified')
         AND r.rejected = count(rp.photo_id) FILTER (WHERE rp.outcome = 'rejected')
         AND r.unchanged = count(rp.photo_id) FILTER (WHERE rp.outcome = 'unchanged')
         AND r.classified = (SELECT count(*) FROM refund.decision d WHERE d.run_id = r.run_id) AS adds_up
FROM refund.run r LEFT JOIN refund.run_photo rp USING (run_id)
WHERE r.state = 'published' GROUP BY r.run_id;
COMMENT ON VIEW reporting.reconciliation IS 'Whether every photo of a run''s manifest has exactly one outcome.';
COMMENT ON COLUMN reporting.reconciliation.run_date IS 'The night.';
COMMENT ON COLUMN reporting.reconciliation.run_id IS 'The run.';
COMMENT ON COLUMN reporting.reconciliation.manifest IS 'Photos listed.';
COMMENT ON COLUMN reporting.reconciliation.outcomes IS 'Photos with an outcome.';
COMMENT ON COLUMN reporting.reconciliation.classified IS 'Classified.';
COMMENT ON COLUMN reporting.reconciliation.rejected IS 'Rejected.';
COMMENT ON COLUMN reporting.reconciliation.unchanged IS 'Unchanged.';
COMMENT ON COLUMN reporting.reconciliation.decisions IS 'Decisions that the run made.';
COMMENT ON COLUMN reporting.reconciliation.adds_up IS 'True where all of these agree.';

CREATE VIEW reporting.last_complete_night AS
SELECT run_date, run_id, model, photos, classified, rejected, unchanged, published_at
FROM refund.run WHERE state = 'published' AND NOT synthetic ORDER BY run_date DESC, published_at DESC LIMIT 1;
COMMENT ON VIEW reporting.last_complete_night IS 'The newest night that is complete; one row, or none before the first.';
COMMENT ON COLUMN reporting.last_complete_night.run_date IS 'The night.';
COMMENT ON COLUMN reporting.last_complete_night.run_id IS 'Its newest run.';
COMMENT ON COLUMN reporting.last_complete_night.model IS 'Model, name@version.';
COMMENT ON COLUMN reporting.last_complete_night.photos IS 'Photos in the manifest.';
COMMENT ON COLUMN reporting.last_complete_night.classified IS 'Classified.';
COMMENT ON COLUMN reporting.last_complete_night.rejected IS 'Rejected.';
COMMENT ON COLUMN reporting.last_complete_night.unchanged IS 'Unchanged.';
COMMENT ON COLUMN reporting.last_complete_night.published_at IS 'When it became visible.';

-- Rights ------------------------------------------------------------------------------------------------------------
-- refund_app writes rows and cannot alter or drop; predictions and the audit are append-only for it.
GRANT USAGE ON SCHEMA refund, reporting TO refund_app;
GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA refund TO refund_app;
GRANT SELECT ON ALL TABLES IN SCHEMA reporting TO refund_app;
GRANT UPDATE ON refund.run, refund.photo, refund.drift, refund.alert, refund.report TO refund_app;
GRANT UPDATE (superseded_by) ON refund.run_photo, refund.decision TO refund_app;
GRANT UPDATE (state) ON refund.model TO refund_app;
GRANT UPDATE (ended_at) ON refund.model_alias_history TO refund_app;
REVOKE INSERT ON refund.alembic_version FROM refund_app;
-- refund_analyst reads the views and nothing else; the views read the tables with their owner's rights.
GRANT USAGE ON SCHEMA reporting TO refund_analyst;
GRANT SELECT ON ALL TABLES IN SCHEMA reporting TO refund_analyst;
DO $$
BEGIN
  EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
  EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO refund_app', current_database());  -- COPY goes through temporary tables
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO refund_analyst', current_database());
END $$;
