-- Exactly one verdict: the order of runs without a clock, counts of every stage, rejections put back.

-- The order in which runs began. A clock that is set back must not make the later of two runs the older one.
ALTER TABLE refund.run ADD COLUMN number bigint;
UPDATE refund.run r SET number = ordered.place
FROM (SELECT run_id, row_number() OVER (ORDER BY started_at, run_id) AS place FROM refund.run) ordered
WHERE ordered.run_id = r.run_id;
ALTER TABLE refund.run ALTER COLUMN number SET NOT NULL;
ALTER TABLE refund.run ALTER COLUMN number ADD GENERATED ALWAYS AS IDENTITY;
SELECT setval(pg_get_serial_sequence('refund.run', 'number'), COALESCE((SELECT max(number) FROM refund.run), 0) + 1, false);
CREATE UNIQUE INDEX run_number ON refund.run (number);
COMMENT ON COLUMN refund.run.number IS 'Order in which runs began, with gaps: the greater is the later, whatever clocks say.';

-- The order in which runs listed the bucket, drawn from the same sequence: a run that is cleared from fetch on lists anew
-- and sees the newer versions, though it began before others.
ALTER TABLE refund.run ADD COLUMN listed bigint;
COMMENT ON COLUMN refund.run.listed IS 'Order in which runs listed the bucket, comparable with number; null before the first listing and for nights of earlier releases.';
GRANT USAGE ON SEQUENCE refund.run_number_seq TO refund_app;

-- What the files of the night counted when it was published; null for nights of earlier releases.
ALTER TABLE refund.run
  ADD COLUMN packed integer CHECK (packed >= 0),
  ADD COLUMN predicted integer CHECK (predicted >= 0),
  ADD COLUMN overtaken integer CHECK (overtaken >= 0);
COMMENT ON COLUMN refund.run.packed IS 'Photos in the packs of its shards, the overtaken ones left out.';
COMMENT ON COLUMN refund.run.predicted IS 'Photos in the prediction files of its shards, the overtaken ones left out.';
COMMENT ON COLUMN refund.run.overtaken IS 'Of the unchanged photos, those that another run published while this one was at work.';

CREATE OR REPLACE VIEW reporting.reconciliation AS
SELECT r.run_date, r.run_id, r.photos AS manifest, o.outcomes, o.classified, o.rejected, o.unchanged, d.decisions,
       r.photos = o.outcomes AND r.classified = o.classified AND r.rejected = o.rejected AND r.unchanged = o.unchanged
         AND r.classified = d.decisions
         AND COALESCE(r.packed = o.classified + o.rejected AND r.predicted = o.classified, true) AS adds_up,
       r.packed, r.predicted, r.overtaken
FROM refund.run r
CROSS JOIN LATERAL (
  SELECT count(*) AS outcomes, count(*) FILTER (WHERE rp.outcome = 'classified') AS classified,
         count(*) FILTER (WHERE rp.outcome = 'rejected') AS rejected,
         count(*) FILTER (WHERE rp.outcome = 'unchanged') AS unchanged
  FROM refund.run_photo rp WHERE rp.run_id = r.run_id) o
CROSS JOIN LATERAL (SELECT count(*) AS decisions FROM refund.decision d WHERE d.run_id = r.run_id) d
WHERE r.state = 'published';
COMMENT ON COLUMN reporting.reconciliation.adds_up IS 'True where manifest, packs, prediction files and tables agree.';
COMMENT ON COLUMN reporting.reconciliation.packed IS 'Photos in the packs; null for nights of releases that did not keep it.';
COMMENT ON COLUMN reporting.reconciliation.predicted IS 'Photos in the prediction files; null likewise.';
COMMENT ON COLUMN reporting.reconciliation.overtaken IS 'Of the unchanged, those that another run published while this one was at work; null likewise.';

-- A rejection that was put back no longer stands: the next run of its date looks at the photo again.
ALTER TABLE refund.run_photo ADD COLUMN requeued_at timestamptz,
  ADD CONSTRAINT only_rejections_are_requeued CHECK (requeued_at IS NULL OR outcome = 'rejected');
COMMENT ON COLUMN refund.run_photo.requeued_at IS 'When the rejection was put back (refund requeue), so that the next run looks at the photo again; refund.audit says by whom and why.';
GRANT UPDATE (requeued_at) ON refund.run_photo TO refund_app;

CREATE OR REPLACE VIEW reporting.rejections AS
SELECT r.run_date, r.run_id, rp.photo_date, rp.photo_id, p.key, p.refund_id, rp.reason, rp.detail, rp.quarantine_key,
       rp.requeued_at
FROM refund.run_photo rp JOIN refund.run r USING (run_id)
JOIN refund.photo p ON p.photo_date = rp.photo_date AND p.photo_id = rp.photo_id
WHERE rp.outcome = 'rejected' AND rp.superseded_by IS NULL AND p.superseded_by IS NULL;
COMMENT ON COLUMN reporting.rejections.requeued_at IS 'When it was put back; the next run of the date looks at it again.';
