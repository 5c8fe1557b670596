/* Refunds of the last four weeks whose photos contradict each other, or what the customer declared. */
SELECT refund_id,
       run_date,
       photos,
       category,
       categories,
       declared_category,
       needs_review
FROM reporting.refunds
WHERE (NOT photos_agree OR NOT matches_declared)
  AND NOT synthetic
  AND run_date > (SELECT run_date FROM reporting.last_complete_night) - 28
ORDER BY run_date DESC, refund_id;
