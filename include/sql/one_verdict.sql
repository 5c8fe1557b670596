/* What would contradict "every photo has exactly one verdict". Expect no rows: then one may swear to it.
   A night whose manifest, packs, prediction files and tables do not count the same, or a photo with two standing verdicts. */
SELECT 'a night does not add up' AS fault,
       run_date,
       run_id AS what
FROM reporting.reconciliation
WHERE NOT adds_up
UNION ALL
SELECT 'a photo has more than one verdict',
       max(run_date),
       min(key)
FROM reporting.photos
GROUP BY photo_date, photo_id
HAVING count(*) > 1
ORDER BY run_date DESC, what;
