"""Keeps evaluations with the model version they speak of; a row is added every time and never changed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

from refund.monitor.accuracy import Verdict

if TYPE_CHECKING:
    from refund.store.database import Database

_ROWS_AT_ONCE = 1_000

INSERT_EVALUATION = """
INSERT INTO refund.evaluation (
  model, set_name, set_sha256, taxonomy_version, threshold, photos, classified, figures, plot_uri, code_version,
  evaluated_by)
VALUES (%(model)s, %(set_name)s, %(set_sha256)s, %(taxonomy_version)s, %(threshold)s, %(photos)s, %(classified)s,
  %(figures)s, %(plot_uri)s, %(code_version)s, %(evaluated_by)s)
RETURNING evaluation_id
"""

INSERT_PHOTOS = """
INSERT INTO refund.evaluation_photo (
  evaluation_id, photo_sha256, true_category, true_class_id, category, category_score, class_id, confidence)
VALUES %s
"""

# The pair that could be compared last: of one set, sorted by one taxonomy, at one threshold.
COMMON = """
SELECT a.evaluation_id, b.evaluation_id
FROM refund.evaluation a JOIN refund.evaluation b USING (set_sha256, taxonomy_version, threshold)
WHERE a.model = %(candidate)s AND b.model = %(current)s
  AND (%(taxonomy_version)s::text IS NULL OR taxonomy_version = %(taxonomy_version)s)
ORDER BY greatest(a.evaluation_id, b.evaluation_id) DESC, least(a.evaluation_id, b.evaluation_id) DESC
LIMIT 1
"""

READ_EVALUATION = """
SELECT evaluation_id, model, set_name, set_sha256, taxonomy_version, threshold, photos, classified, figures, plot_uri,
       evaluated_at, evaluated_by
FROM refund.evaluation WHERE evaluation_id = %(evaluation_id)s
"""

# The scores are of type real: they come back to seven digits.
READ_PHOTOS = """
SELECT photo_sha256, true_category, true_class_id, category, category_score, class_id, confidence
FROM refund.evaluation_photo WHERE evaluation_id = %(evaluation_id)s ORDER BY photo_sha256
"""

_VERDICT = [spec.name for spec in fields(Verdict)]  # in the order of the columns above


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvaluation:
    """One row of ``refund.evaluation`` with what the model said of every classified photograph, by SHA-256."""

    evaluation_id: int
    model: str
    set_name: str
    set_sha256: str
    taxonomy_version: str
    threshold: float
    photos: int
    classified: int
    figures: Mapping[str, Any]  # `refund.monitor.accuracy.Figures.to_dict` and what was left out
    plot_uri: str | None
    evaluated_at: datetime
    evaluated_by: str
    verdicts: tuple[Verdict, ...]


def save_evaluation(
    database: Database,
    *,
    model: str,
    set_name: str,
    set_sha256: str,
    taxonomy_version: str,
    threshold: float,
    photos: int,
    figures: Mapping[str, Any],
    verdicts: Sequence[Verdict],
    plot_uri: str | None,
    code_version: str,
    evaluated_by: str,
) -> int:
    """Add an evaluation and its photographs, all or nothing; returns its number.

    Raises:
        FatalRunError: Postgres refuses a value, for example of a model that is not registered.
    """
    from psycopg2.extras import execute_values

    values = {
        "model": model,
        "set_name": set_name,
        "set_sha256": set_sha256,
        "taxonomy_version": taxonomy_version,
        "threshold": threshold,
        "photos": photos,
        "classified": len(verdicts),
        "figures": json.dumps(figures, allow_nan=False),
        "plot_uri": plot_uri,
        "code_version": code_version,
        "evaluated_by": evaluated_by,
    }
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(INSERT_EVALUATION, values)
        evaluation_id = int(cursor.fetchall()[0][0])
        rows = [(evaluation_id, *(getattr(verdict, name) for name in _VERDICT)) for verdict in verdicts]
        execute_values(cursor, INSERT_PHOTOS, rows, page_size=_ROWS_AT_ONCE)
        return evaluation_id


def latest_common_evaluations(
    database: Database, *, candidate: str, current: str, taxonomy_version: str | None = None
) -> tuple[StoredEvaluation, StoredEvaluation] | None:
    """The newest evaluations of both models on one set, under one taxonomy and threshold; None where there are none.

    Newest is the set that became common last; ``taxonomy_version`` asks for one taxonomy in particular.
    """
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(COMMON, {"candidate": candidate, "current": current, "taxonomy_version": taxonomy_version})
        found = cursor.fetchall()
        return None if not found else (_read(cursor, found[0][0]), _read(cursor, found[0][1]))


def _read(cursor: Any, evaluation_id: int) -> StoredEvaluation:
    cursor.execute(READ_PHOTOS, {"evaluation_id": evaluation_id})
    verdicts = tuple(Verdict(**dict(zip(_VERDICT, row, strict=True))) for row in cursor.fetchall())
    cursor.execute(READ_EVALUATION, {"evaluation_id": evaluation_id})
    names = [spec.name for spec in fields(StoredEvaluation) if spec.name != "verdicts"]
    return StoredEvaluation(**dict(zip(names, cursor.fetchall()[0], strict=True)), verdicts=verdicts)
