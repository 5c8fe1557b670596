-- Large nights: a night, or the 28 nights that drift is measured against, is counted from an index alone. All rows of a
-- run and category are one entry with a list of places, so the longer keys take no more room than the shorter ones did.

DROP INDEX refund.decision_by_run;
CREATE INDEX decision_by_run ON refund.decision (run_id, category, model, superseded_by);
DROP INDEX refund.run_photo_by_run;
CREATE INDEX run_photo_by_run ON refund.run_photo (run_id, outcome, photo_date, superseded_by);

-- What a night of 100,000 photos wrote is a few percent of its month, so autovacuum does not look at it for days; until
-- then the server takes it for a handful of rows and plans its report for those. Only the owner may analyze, hence a
-- function; ANALYZE reads a sample, however large the tables are.
CREATE FUNCTION refund.analyze_months(dates date[]) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO' AS $$
DECLARE
  part record;
  held boolean;
  analyzed integer := 0;
BEGIN
  FOR part IN
    SELECT i.inhrelid::regclass::text AS name, pg_get_partition_constraintdef(i.inhrelid) AS takes, looked.at
    FROM (VALUES
      ('refund.photo'::regclass, 'photo_date, refund_id, superseded_by'),
      ('refund.run_photo'::regclass, 'photo_date, run_id, outcome, superseded_by'),
      ('refund.decision'::regclass, 'photo_date, run_id, category, kind, model, superseded_by')) AS looked (parent, at)
    JOIN pg_inherits i ON i.inhparent = looked.parent
    JOIN pg_partitioned_table t ON t.partrelid = i.inhparent AND i.inhrelid <> t.partdefid
    ORDER BY 1
  LOOP
    EXECUTE format('SELECT COALESCE(bool_or(%s), false) FROM unnest($1) AS d (photo_date)', part.takes)
      INTO held USING dates;
    IF held THEN
      EXECUTE format('ANALYZE %s (%s)', part.name, part.at);
      analyzed := analyzed + 1;
    END IF;
  END LOOP;
  ANALYZE refund.review (photo_date, photo_id);
  RETURN analyzed;
END $$;
COMMENT ON FUNCTION refund.analyze_months IS 'Has the planner look again at the months that hold these photo dates; and at the reviews; returns how many partitions it looked at.';
REVOKE ALL ON FUNCTION refund.analyze_months FROM PUBLIC;
GRANT EXECUTE ON FUNCTION refund.analyze_months TO refund_app;
