/* Last night's categories: photos, share, and how many of them the machine decided alone. */
SELECT d.category,
       d.photos,
       round((100 * d.share)::numeric, 1) AS share_percent,
       d.auto,
       d.review,
       round(d.mean_score::numeric, 2) AS mean_score
FROM reporting.daily_categories AS d
JOIN reporting.last_complete_night AS n ON n.run_date = d.run_date
WHERE NOT d.synthetic
ORDER BY d.photos DESC, d.category;
