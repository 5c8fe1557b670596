/* Whether every photo of a night has exactly one outcome: manifest = classified + rejected + unchanged. Expect true throughout. */
SELECT run_date,
       run_id,
       manifest,
       classified,
       rejected,
       unchanged,
       outcomes,
       decisions,
       adds_up
FROM reporting.reconciliation
ORDER BY run_date DESC, run_id
LIMIT 60;
