/* Whether every photo of a night has exactly one outcome. Expect adds_up to be true throughout:
   manifest = classified + rejected + unchanged, packed = classified + rejected, predicted = classified = decisions. */
SELECT run_date,
       run_id,
       manifest,
       packed,
       predicted,
       classified,
       rejected,
       unchanged,
       overtaken,
       outcomes,
       decisions,
       adds_up
FROM reporting.reconciliation
WHERE NOT synthetic
ORDER BY run_date DESC, run_id
LIMIT 60;
