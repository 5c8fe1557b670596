"""Sums up the refunds of a night: by department, and those whose photos contradict each other or the customer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from refund.store.records import ContradictingRefund, DepartmentFigures, RefundFigures

# As reporting.refunds, but of the night's own photos alone, which costs the same however long the history is: of each
# photo the latest review's category before the decision's, of equally many photos the category that comes first.
# Departments of a refund are its categories: the taxonomy sorts straight into departments. One statement, so that the
# night's photos are read once; ``runs`` and ``dates`` are those of `refund.store.nights.RUNS` and `PHOTO_DATES`. First
# by refund and category, then by refund: mode() and count(DISTINCT) sort within each refund, which took longer than all
# the rest. Reviews photo by photo by index, and no join of what was summed up: the server may take the night for one
# row and join it as such, which took minutes.
REFUNDS = """
WITH piece AS MATERIALIZED (
  SELECT p.refund_id, p.key, p.declared_category, COALESCE(v.category, d.category) AS category,
         o.outcome = 'classified' AND d.kind = 'auto' AS auto
  FROM refund.run_photo o
  JOIN refund.photo p ON p.photo_date = o.photo_date AND p.photo_id = o.photo_id
  LEFT JOIN refund.decision d ON d.photo_date = o.photo_date AND d.photo_id = o.photo_id AND d.superseded_by IS NULL
    AND d.run_id = ANY (%(runs)s::text[]) AND d.photo_date = ANY (%(dates)s::date[])
  LEFT JOIN LATERAL (
    SELECT category FROM refund.review w
    WHERE w.photo_date = o.photo_date AND w.photo_id = o.photo_id
    ORDER BY w.reviewed_at DESC, w.review_id DESC LIMIT 1) v ON true
  WHERE o.run_id = ANY (%(runs)s::text[]) AND o.outcome <> 'unchanged'
    AND o.superseded_by IS NULL AND p.superseded_by IS NULL AND p.refund_id IS NOT NULL
    AND p.photo_date = ANY (%(dates)s::date[])
), part AS MATERIALIZED (
  SELECT refund_id, category, count(*) AS photos, min(declared_category) AS declared,
         bool_or(category <> declared_category) AS undeclared, bool_and(auto) AS auto
  FROM piece GROUP BY refund_id, category
), refund AS MATERIALIZED (
  SELECT refund_id, sum(photos)::bigint AS photos,
         (array_agg(category ORDER BY photos DESC, category) FILTER (WHERE category IS NOT NULL))[1] AS department,
         count(category) > 1 AS disagree, min(declared) AS declared,
         COALESCE(bool_or(undeclared), false) AS undeclared, bool_and(auto) AS auto
  FROM part GROUP BY refund_id
), chosen AS (
  SELECT * FROM refund WHERE disagree OR undeclared
  ORDER BY disagree AND undeclared DESC, disagree DESC, photos DESC, refund_id LIMIT %(examples)s
), shown AS (
  SELECT c.refund_id, c.photos, c.declared, c.disagree, c.undeclared, x.category, count(*) AS pieces, min(x.key) AS key
  FROM chosen c JOIN piece x USING (refund_id) WHERE x.category IS NOT NULL
  GROUP BY c.refund_id, c.photos, c.declared, c.disagree, c.undeclared, x.category
), sorted AS (
  SELECT department, count(*) AS refunds, sum(photos) AS photos, count(*) FILTER (WHERE auto) AS auto,
         count(*) FILTER (WHERE disagree OR undeclared) AS contradicting
  FROM refund GROUP BY department
)
SELECT (SELECT count(*) FROM refund WHERE disagree), (SELECT count(*) FROM refund WHERE undeclared),
  (SELECT COALESCE(jsonb_agg(to_jsonb(sorted) ORDER BY refunds DESC, department), '[]') FROM sorted),
  (SELECT COALESCE(jsonb_agg(one ORDER BY disagree AND undeclared DESC, disagree DESC, photos DESC, refund_id), '[]')
   FROM (
     SELECT refund_id, photos, disagree, undeclared, jsonb_build_object(
       'refund_id', refund_id, 'photos', photos, 'declared', declared, 'disagree', disagree, 'undeclared', undeclared,
       'categories', jsonb_object_agg(category, pieces), 'keys', jsonb_agg(key ORDER BY pieces DESC, key)) AS one
     FROM shown GROUP BY refund_id, photos, declared, disagree, undeclared) told)
"""
_KEYS = 3  # of an example


def refund_figures(row: Sequence[Any]) -> RefundFigures:
    """The one row of `REFUNDS` as a record."""
    disagree, undeclared, departments, examples = row
    return RefundFigures(
        disagree=disagree,
        undeclared=undeclared,
        departments=tuple(DepartmentFigures(**department) for department in departments),
        examples=tuple(
            ContradictingRefund(**example | {"keys": tuple(example["keys"][:_KEYS])}) for example in examples
        ),
    )
