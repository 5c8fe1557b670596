/* Last night's rejected photos: which, why, and where the original was copied to. */
SELECT r.reason,
       r.refund_id,
       r.key,
       r.detail,
       r.quarantine_key
FROM reporting.rejections AS r
JOIN reporting.last_complete_night AS n ON n.run_date = r.run_date
WHERE NOT r.synthetic
ORDER BY r.reason, r.key;
