/* Photos that wait for a person, the most doubtful first. */
SELECT run_date,
       refund_id,
       key,
       predicted_category,
       round(category_score::numeric, 2) AS score,
       array_to_string(review_reasons, ', ') AS reasons,
       declared_category
FROM reporting.review_queue
ORDER BY run_date DESC, category_score, key
LIMIT 200;
