"""The statements of `refund.store.publish`, in the order in which it runs them; no value enters but as a bound one."""

from __future__ import annotations

TRY_LOCK = "SELECT pg_try_advisory_xact_lock(%(key)s)"
LOCK = "SELECT pg_advisory_xact_lock(%(key)s)"

RUN = """
SELECT state, photos, classified, rejected, unchanged, params ->> 'review_threshold',
  COALESCE((params ->> 'force')::boolean, false)
FROM refund.run WHERE run_id = %(run_id)s FOR UPDATE
"""

STAGING_TABLES = """
CREATE TEMPORARY TABLE staged_manifest (
  photo_id uuid, photo_date date, bucket text, key text, etag text, size_bytes bigint, refund_id text,
  declared_category text
) ON COMMIT DROP;
CREATE TEMPORARY TABLE staged_unchanged (LIKE staged_manifest) ON COMMIT DROP;
CREATE TEMPORARY TABLE staged_photo (
  photo_id uuid, reason text, detail text, image_format text, width_px integer, height_px integer, sha256 text,
  perceptual_hash bigint, brightness_ratio real, contrast_ratio real, sharpness real, entropy_bits real,
  quality_labels text[], quarantine_key text
) ON COMMIT DROP;
CREATE TEMPORARY TABLE staged_prediction (
  photo_id uuid, model text, class_id text, class_name text, confidence real, top_k jsonb, category_scores jsonb,
  category text, category_score real, kind text, reasons text[]
) ON COMMIT DROP;
"""

ANALYZE = "ANALYZE staged_manifest, staged_unchanged, staged_photo, staged_prediction"

# What may not be, and the photos that are so. Keys where known, else ids: a row without a manifest has no key.
DIFFERENCES = {
    "listed more than once": """
        SELECT min(key)
        FROM (SELECT photo_id, key FROM staged_manifest UNION ALL SELECT photo_id, key FROM staged_unchanged) m
        GROUP BY photo_id HAVING count(*) > 1""",
    "listed but without an outcome": """
        SELECT m.key FROM staged_manifest m
        WHERE NOT EXISTS (SELECT FROM staged_photo p WHERE p.photo_id = m.photo_id)""",
    "with an outcome but not listed": """
        SELECT p.photo_id::text FROM staged_photo p
        WHERE NOT EXISTS (SELECT FROM staged_manifest m WHERE m.photo_id = p.photo_id)""",
    "with more than one outcome": """
        SELECT COALESCE((SELECT min(m.key) FROM staged_manifest m WHERE m.photo_id = p.photo_id), p.photo_id::text)
        FROM staged_photo p GROUP BY p.photo_id HAVING count(*) > 1""",
    "accepted but without a prediction": """
        SELECT COALESCE(m.key, p.photo_id::text) FROM staged_photo p LEFT JOIN staged_manifest m USING (photo_id)
        WHERE p.reason IS NULL AND NOT EXISTS (SELECT FROM staged_prediction s WHERE s.photo_id = p.photo_id)""",
    "predicted but not accepted": """
        SELECT COALESCE(m.key, s.photo_id::text) FROM staged_prediction s LEFT JOIN staged_manifest m USING (photo_id)
        WHERE NOT EXISTS (SELECT FROM staged_photo p WHERE p.photo_id = s.photo_id AND p.reason IS NULL)""",
    "predicted more than once": """
        SELECT COALESCE((SELECT min(m.key) FROM staged_manifest m WHERE m.photo_id = s.photo_id), s.photo_id::text)
        FROM staged_prediction s GROUP BY s.photo_id HAVING count(*) > 1""",
    "said to be unchanged but not in refund.photo": """
        SELECT u.key FROM staged_unchanged u
        WHERE NOT EXISTS (SELECT FROM refund.photo p WHERE p.photo_date = u.photo_date AND p.photo_id = u.photo_id)""",
}

DIFFERENCE = "SELECT count(*), (array_agg(key ORDER BY key))[:5] FROM ({query}) AS found (key)"

COUNTS = """
SELECT (SELECT count(*) FROM staged_photo WHERE reason IS NULL),
       (SELECT count(*) FROM staged_photo WHERE reason IS NOT NULL),
       (SELECT count(*) FROM staged_unchanged)
"""

# What fetch would have called unchanged, had the run that published it done so before this one listed: of two runs at
# once the second to publish leaves the same rows as if it had come after the first (the same test as in
# `refund.store.repository.STANDING_OUTCOMES`, with the model that the photo was classified with; one that this run
# rejected, with the run's: two runs at once make decoding slow, and a time-out must not undo a decision).
FIND_OVERTAKEN = """
CREATE TEMPORARY TABLE staged_overtaken ON COMMIT DROP AS
SELECT m.* FROM staged_manifest m LEFT JOIN staged_prediction s USING (photo_id)
CROSS JOIN (SELECT taxonomy_version, model FROM refund.run WHERE run_id = %(run_id)s) this
WHERE EXISTS (
  SELECT FROM refund.decision d
  WHERE d.photo_date = m.photo_date AND d.photo_date = ANY (%(dates)s::date[]) AND d.photo_id = m.photo_id
    AND d.superseded_by IS NULL AND d.run_id <> %(run_id)s AND d.taxonomy_version = this.taxonomy_version
    AND d.threshold = %(threshold)s::real AND d.model = COALESCE(s.model, this.model)
) OR EXISTS (
  SELECT FROM refund.run_photo o
  WHERE o.photo_date = m.photo_date AND o.photo_date = ANY (%(dates)s::date[]) AND o.photo_id = m.photo_id
    AND o.superseded_by IS NULL AND o.run_id <> %(run_id)s AND o.outcome = 'rejected' AND o.requeued_at IS NULL
    AND o.reason = ANY (%(final_reasons)s::text[]))
"""
LEAVE_OVERTAKEN = (
    "INSERT INTO staged_unchanged SELECT * FROM staged_overtaken",
    "DELETE FROM staged_manifest m USING staged_overtaken o WHERE m.photo_id = o.photo_id",
    "DELETE FROM staged_photo p USING staged_overtaken o WHERE p.photo_id = o.photo_id",
    "DELETE FROM staged_prediction s USING staged_overtaken o WHERE s.photo_id = o.photo_id",
)

PHOTO_DATES = "SELECT photo_date FROM staged_manifest UNION SELECT photo_date FROM staged_unchanged"

# Known facts are kept; those that an earlier, failed look did not find out are filled in.
INSERT_PHOTOS = """
INSERT INTO refund.photo AS known (photo_date, photo_id, bucket, key, etag, size_bytes, refund_id, declared_category,
  image_format, width_px, height_px, sha256, perceptual_hash, brightness_ratio, contrast_ratio, sharpness, entropy_bits,
  quality_labels, first_run_id, synthetic)
SELECT m.photo_date, m.photo_id, m.bucket, m.key, m.etag, m.size_bytes, m.refund_id, m.declared_category,
  p.image_format, p.width_px, p.height_px, p.sha256, p.perceptual_hash, p.brightness_ratio, p.contrast_ratio,
  p.sharpness, p.entropy_bits, COALESCE(p.quality_labels, '{}'), r.run_id, r.synthetic
FROM staged_manifest m JOIN staged_photo p USING (photo_id) CROSS JOIN refund.run r WHERE r.run_id = %(run_id)s
ON CONFLICT (photo_date, photo_id) DO UPDATE SET
  refund_id = COALESCE(known.refund_id, EXCLUDED.refund_id),
  declared_category = COALESCE(EXCLUDED.declared_category, known.declared_category),
  image_format = COALESCE(known.image_format, EXCLUDED.image_format),
  width_px = COALESCE(known.width_px, EXCLUDED.width_px),
  height_px = COALESCE(known.height_px, EXCLUDED.height_px),
  sha256 = COALESCE(known.sha256, EXCLUDED.sha256),
  perceptual_hash = COALESCE(known.perceptual_hash, EXCLUDED.perceptual_hash),
  brightness_ratio = COALESCE(known.brightness_ratio, EXCLUDED.brightness_ratio),
  contrast_ratio = COALESCE(known.contrast_ratio, EXCLUDED.contrast_ratio),
  sharpness = COALESCE(known.sharpness, EXCLUDED.sharpness),
  entropy_bits = COALESCE(known.entropy_bits, EXCLUDED.entropy_bits),
  quality_labels = CASE WHEN known.brightness_ratio IS NULL THEN EXCLUDED.quality_labels ELSE known.quality_labels END
"""

# Other versions under a listed key. The listed one is the newest, unless a run that listed later has seen the other (a
# run that failed and whose persist was cleared days afterwards). Looked for before the photos are inserted: of a table
# that grew within the transaction the planner knows too little (measured: quadratic).
FIND_RIVALS = """
CREATE TEMPORARY TABLE staged_rival ON COMMIT DROP AS
SELECT m.photo_date, m.photo_id, other.photo_id AS rival_id,
  seen.listed > COALESCE(this.listed, this.number) AS rival_is_newer
FROM (SELECT * FROM staged_manifest UNION ALL SELECT * FROM staged_unchanged) m
JOIN refund.photo other ON other.photo_date = m.photo_date AND other.photo_date = ANY (%(dates)s::date[])
  AND other.key = m.key AND other.bucket = m.bucket AND other.photo_id <> m.photo_id AND other.superseded_by IS NULL
CROSS JOIN LATERAL (
  SELECT max(COALESCE(r.listed, r.number)) AS listed FROM refund.run_photo o JOIN refund.run r USING (run_id)
  WHERE o.photo_date = other.photo_date AND o.photo_id = other.photo_id) seen  -- not the first: it may be back again
JOIN refund.run this ON this.run_id = %(run_id)s
"""
REPLACE_OLDER_VERSIONS = """
UPDATE refund.photo old SET superseded_by = r.photo_id FROM staged_rival r
WHERE old.photo_date = r.photo_date AND old.photo_date = ANY (%(dates)s::date[]) AND old.photo_id = r.rival_id
  AND NOT r.rival_is_newer
"""
YIELD_TO_NEWER_VERSIONS = """
UPDATE refund.photo mine SET superseded_by = r.rival_id FROM staged_rival r
WHERE mine.photo_date = r.photo_date AND mine.photo_date = ANY (%(dates)s::date[]) AND mine.photo_id = r.photo_id
  AND r.rival_is_newer
"""
REVIVE_LISTED_VERSIONS = """
UPDATE refund.photo mine SET superseded_by = NULL
FROM (SELECT photo_date, photo_id FROM staged_manifest UNION ALL SELECT photo_date, photo_id FROM staged_unchanged) m
WHERE mine.photo_date = m.photo_date AND mine.photo_date = ANY (%(dates)s::date[]) AND mine.photo_id = m.photo_id
  AND mine.superseded_by IS NOT NULL
  AND NOT EXISTS (SELECT FROM staged_rival r WHERE r.photo_id = m.photo_id AND r.rival_is_newer)
"""

# Photos that a run which began later has looked at already, and the last such run: the same late clear. Its verdict, or
# the one that it left unchanged, stands; this run's is kept as superseded from the start.
FIND_NEWER_VERDICTS = """
CREATE TEMPORARY TABLE staged_newer ON COMMIT DROP AS
SELECT DISTINCT ON (m.photo_id) m.photo_id, seen.run_id AS newer_run_id
FROM staged_manifest m
JOIN refund.run_photo o ON o.photo_date = m.photo_date AND o.photo_date = ANY (%(dates)s::date[])
  AND o.photo_id = m.photo_id AND o.run_id <> %(run_id)s
JOIN refund.run seen ON seen.run_id = o.run_id
JOIN refund.run this ON this.run_id = %(run_id)s
WHERE seen.number > this.number
ORDER BY m.photo_id, seen.number DESC
"""
SUPERSEDE_OUTCOMES = """
UPDATE refund.run_photo old SET superseded_by = %(run_id)s FROM staged_manifest m
WHERE old.photo_date = m.photo_date AND old.photo_date = ANY (%(dates)s::date[]) AND old.photo_id = m.photo_id
  AND old.run_id <> %(run_id)s AND old.outcome <> 'unchanged' AND old.superseded_by IS NULL
  AND NOT EXISTS (SELECT FROM staged_newer n WHERE n.photo_id = m.photo_id)
"""
SUPERSEDE_DECISIONS = """
UPDATE refund.decision old SET superseded_by = %(run_id)s FROM staged_manifest m
WHERE old.photo_date = m.photo_date AND old.photo_date = ANY (%(dates)s::date[]) AND old.photo_id = m.photo_id
  AND old.run_id <> %(run_id)s AND old.superseded_by IS NULL
  AND NOT EXISTS (SELECT FROM staged_newer n WHERE n.photo_id = m.photo_id)
"""

INSERT_OUTCOMES = """
INSERT INTO refund.run_photo (photo_date, photo_id, run_id, outcome, reason, detail, quarantine_key, superseded_by,
  synthetic)
SELECT m.photo_date, m.photo_id, r.run_id, CASE WHEN p.reason IS NULL THEN 'classified' ELSE 'rejected' END,
       p.reason, p.detail, p.quarantine_key, n.newer_run_id, r.synthetic
FROM staged_manifest m JOIN staged_photo p USING (photo_id) LEFT JOIN staged_newer n USING (photo_id)
CROSS JOIN refund.run r WHERE r.run_id = %(run_id)s
UNION ALL
SELECT u.photo_date, u.photo_id, r.run_id, 'unchanged', NULL, NULL, NULL, NULL, r.synthetic FROM staged_unchanged u
CROSS JOIN refund.run r WHERE r.run_id = %(run_id)s
"""
INSERT_PREDICTIONS = """
INSERT INTO refund.prediction (photo_date, photo_id, model, class_id, class_name, confidence, top_k, run_id, synthetic)
SELECT m.photo_date, m.photo_id, s.model, s.class_id, s.class_name, s.confidence, s.top_k, r.run_id, r.synthetic
FROM staged_prediction s JOIN staged_manifest m USING (photo_id)
CROSS JOIN refund.run r WHERE r.run_id = %(run_id)s
ON CONFLICT DO NOTHING
"""
# The audit mark depends on the photo alone: whichever run, model or machine decides it, and a larger share only adds.
INSERT_DECISIONS = """
INSERT INTO refund.decision (photo_date, photo_id, run_id, category, score, kind, reasons, category_scores, model,
  taxonomy_version, threshold, decided_at, superseded_by, audit,
  synthetic)
SELECT m.photo_date, m.photo_id, r.run_id, s.category, s.category_score, s.kind, s.reasons, s.category_scores, s.model,
       r.taxonomy_version, %(threshold)s, %(at)s, n.newer_run_id,
       s.kind = 'auto' AND refund.audit_ratio(m.photo_id) < %(audit_share)s::double precision, r.synthetic
FROM staged_prediction s JOIN staged_manifest m USING (photo_id) LEFT JOIN staged_newer n USING (photo_id)
CROSS JOIN refund.run r WHERE r.run_id = %(run_id)s
"""

# What it sorted is written once: drift adds it up instead of counting the decisions of a month of nights.
CLOSE_RUN = """
UPDATE refund.run SET state = %(state)s, photos = %(photos)s, classified = %(classified)s, rejected = %(rejected)s,
  unchanged = %(unchanged)s, overtaken = %(overtaken)s, packed = (SELECT count(*) FROM staged_photo),
  predicted = (SELECT count(*) FROM staged_prediction),
  models = ARRAY(SELECT DISTINCT s.model FROM staged_prediction s ORDER BY 1),
  sorted = CASE WHEN %(state)s = 'published' THEN (
    SELECT COALESCE(jsonb_object_agg(model, categories), '{}') FROM (
      SELECT model, jsonb_object_agg(category, photos) AS categories
      FROM (SELECT model, category, count(*) AS photos FROM staged_prediction GROUP BY model, category) counted
      GROUP BY model) each_model) END,
  published_at = CASE WHEN %(state)s = 'published' THEN %(at)s::timestamptz END
WHERE run_id = %(run_id)s
"""
