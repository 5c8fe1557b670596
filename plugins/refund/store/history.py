"""Reads what became of photos, by night or by trial: pages, whole tables, and counts of what a filter lets through.

Of nights the newest come first and are read a few at a time until a page is full: no index has the order that people
want, and to sort a year for fifty rows would take seconds. Photos that were overwritten are left out, as in
``reporting.photos``; made-up nights are in, and say so.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from refund.errors import QueryError

if TYPE_CHECKING:
    from refund.store.database import Database

TIMEOUT_S = 10  # of one statement
IDLE_S = 60  # between two: who reads a table so slowly must not keep a snapshot that nothing can be cleaned up behind
_ROWS_AT_ONCE = 1_000

NIGHT_COLUMNS = (
    "run_date", "photo_date", "photo_id", "key", "refund_id", "declared_category", "outcome", "rejection_reason",
    "final_category", "predicted_category", "category_score", "decision", "review_reasons", "class_id", "class_name",
    "confidence", "model", "taxonomy_version", "reviewed_category", "reviewed_by", "reviewed_at", "image_format",
    "width_px", "height_px", "size_bytes", "quality_labels", "run_id", "synthetic",
)  # fmt: skip
TRIAL_COLUMNS = (
    "trial_id", "at", "tried_by", "filename", "outcome", "reason", "detail", "category", "category_score", "decision",
    "review_reasons", "class_id", "class_name", "confidence", "model", "taxonomy_version", "image_format", "width_px",
    "height_px", "size_bytes", "sha256", "elapsed_ms", "kept_key", "request_id",
)  # fmt: skip

NIGHTS = """
SELECT array_agg(run_id) FROM refund.run
WHERE run_date BETWEEN %(date_from)s AND %(date_to)s AND state = 'published'
GROUP BY run_date ORDER BY run_date DESC
"""

# What a filter asks for decides what is joined: a year's reviews and decisions are not read for a refund id.
_OUTCOMES = """
FROM refund.run_photo rp
JOIN refund.run r ON r.run_id = rp.run_id
JOIN refund.photo p ON p.photo_date = rp.photo_date AND p.photo_id = rp.photo_id AND p.superseded_by IS NULL
{joins}
WHERE rp.run_id = ANY (%(runs)s::text[]) AND rp.outcome <> 'unchanged' AND rp.superseded_by IS NULL {conditions}
"""
_DECISION = """
LEFT JOIN refund.decision d
  ON d.photo_date = rp.photo_date AND d.photo_id = rp.photo_id AND d.superseded_by IS NULL
"""
_REVIEW = """
LEFT JOIN LATERAL (
  SELECT v.category FROM refund.review v
  WHERE v.photo_date = rp.photo_date AND v.photo_id = rp.photo_id ORDER BY v.reviewed_at DESC, v.review_id DESC LIMIT 1
) rv ON true
"""
# The same for many photos: all reviews are read once.
_REVIEWS = """
LEFT JOIN (
  SELECT DISTINCT ON (photo_date, photo_id) photo_date, photo_id, category FROM refund.review
  ORDER BY photo_date, photo_id, reviewed_at DESC, review_id DESC
) rv ON rv.photo_date = rp.photo_date AND rv.photo_id = rp.photo_id
"""
_PREDICTION = """
LEFT JOIN refund.prediction pr ON pr.photo_date = d.photo_date AND pr.photo_id = d.photo_id AND pr.model = d.model
"""
_NIGHT_CONDITIONS = {
    # those that may be it first, by index: what people and the machine say is not put together for every photo
    "category": "AND (rp.photo_date, rp.photo_id) IN ("
    "SELECT c.photo_date, c.photo_id FROM refund.decision c "
    "WHERE c.run_id = ANY (%(runs)s::text[]) AND c.category = %(category)s "
    "UNION ALL SELECT v.photo_date, v.photo_id FROM refund.review v WHERE v.category = %(category)s) "
    "AND COALESCE(rv.category, d.category) = %(category)s",
    "decision": "AND d.kind = %(decision)s",
    "outcome": "AND rp.outcome = %(outcome)s",
    "model": "AND d.model = %(model)s",
    "refund_id": "AND p.refund_id = %(refund_id)s",
    "text": "AND p.key ILIKE %(text)s",
    "reviewed": "AND %(reviewed)s = EXISTS (SELECT FROM refund.review v "
    "WHERE v.photo_date = rp.photo_date AND v.photo_id = rp.photo_id)",
}

PHOTOS_OF_RUNS = "SELECT rp.photo_date, rp.photo_id::text" + _OUTCOMES + (
    "ORDER BY r.run_date DESC, rp.photo_date, p.key, rp.photo_id LIMIT %(limit)s"
)  # fmt: skip

PHOTOS = """
SELECT {columns}
FROM unnest(%(dates)s::date[], %(ids)s::uuid[]) WITH ORDINALITY AS wanted (photo_date, photo_id, place)
JOIN reporting.photos ph USING (photo_date, photo_id) ORDER BY wanted.place
""".format(columns=", ".join({"photo_id": "ph.photo_id::text"}.get(name, f"ph.{name}") for name in NIGHT_COLUMNS))

# One row per value of one of the columns, and one of all: which it is, the ones among the first five say.
_COUNTS = """
SELECT {columns}, count(*), avg(confidence), avg(score)
FROM (SELECT {values} {source}) matched
GROUP BY GROUPING SETS ((), (outcome), (decision), (category), (model), (day))
""".replace(
    "{columns}",
    "GROUPING(outcome), GROUPING(decision), GROUPING(category), GROUPING(model), GROUPING(day), "
    "outcome, decision, category, model, day",
)

NIGHT_COUNTS = _COUNTS.format(
    values="rp.outcome, d.kind AS decision, COALESCE(rv.category, d.category) AS category, d.model, r.run_date AS day, "
    "pr.confidence, d.score",
    source=_OUTCOMES,
)

_TRIALS = """
FROM refund.trial t
WHERE t.at >= %(date_from)s::date AND t.at < %(date_to)s::date + 1 {conditions}
"""
_TRIAL_CONDITIONS = {
    "category": "AND t.category = %(category)s",
    "decision": "AND t.decision = %(decision)s",
    "outcome": "AND t.outcome = %(outcome)s",
    "model": "AND t.model = %(model)s",
    "text": "AND t.filename ILIKE %(text)s",
    "tried_by": "AND t.tried_by = %(tried_by)s",
}
_TRIAL_VALUES = {
    "class_id": "t.predictions #>> '{0,class_id}'",
    "class_name": "t.predictions #>> '{0,class_name}'",
    "confidence": "(t.predictions #>> '{0,confidence}')::double precision AS confidence",
}
TRIALS = (
    "SELECT {columns} {source} ORDER BY t.at DESC, t.trial_id DESC LIMIT %(limit)s OFFSET %(skipped)s"
    .replace("{columns}", ", ".join(_TRIAL_VALUES.get(name, f"t.{name}") for name in TRIAL_COLUMNS))
    .replace("{source}", _TRIALS)
)  # fmt: skip
TRIAL_COUNTS = _COUNTS.format(
    values="t.outcome, t.decision, t.category, t.model, t.at::date AS day, "
    "(t.predictions #>> '{0,confidence}')::double precision AS confidence, t.category_score AS score",
    source=_TRIALS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryFilter:
    """Which photos; None lets all through. Dates are run dates, or days (UTC) of trials; both ends are in."""

    date_from: date
    date_to: date
    category: str | None = None  # the final one
    decision: str | None = None  # auto, review
    outcome: str | None = None  # classified, rejected
    model: str | None = None  # name@version
    refund_id: str | None = None  # of nights alone
    text: str | None = None  # anywhere in the key or file name, whatever its case
    reviewed: bool | None = None  # of nights alone
    tried_by: str | None = None  # of trials alone

    def values(self) -> dict[str, Any]:
        """What the statements bind."""
        pattern = None if self.text is None else f"%{_escaped(self.text)}%"
        return asdict(self) | {"text": pattern}

    def given(self) -> list[str]:
        """The names of what is asked for beside the dates."""
        return [name for name in _NIGHT_CONDITIONS if getattr(self, name) is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPage:
    """Some rows, as dictionaries by column, and whether there are more."""

    items: list[dict[str, Any]]
    has_more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryCounts:
    """Photos by what became of them; categories are final ones, days run dates or days of trials."""

    photos: int
    mean_confidence: float | None  # of the most probable class, over classified photos; ratio, 0 to 1
    mean_category_score: float | None  # ratio, 0 to 1
    outcomes: dict[str, int]
    decisions: dict[str, int]
    categories: dict[str, int]
    models: dict[str, int]
    days: dict[date, int]


def night_page(database: Database, wanted: HistoryFilter, *, limit: int, skipped: int = 0) -> HistoryPage:
    """Photos of nights, newest night first and by photo date and key within it, as `NIGHT_COLUMNS`.

    Raises:
        QueryError: it takes longer than `TIMEOUT_S`.
    """
    with _reading(database) as cursor:
        found: list[tuple[date, str]] = []
        for runs in _some_nights(_nights(cursor, wanted), at_once="refund_id" in wanted.given()):
            found += _photos_of(cursor, runs, wanted, limit=skipped + limit + 1 - len(found))
            if len(found) > skipped + limit:
                break
        items = list(_described(cursor, found[skipped : skipped + limit]))
        return HistoryPage(items=items, has_more=len(found) > skipped + limit)


def night_rows(database: Database, wanted: HistoryFilter) -> Generator[dict[str, Any], None, None]:
    """All photos in the order of `night_page`, from one moment; no more than a night's are held at once.

    Raises:
        QueryError: a night takes longer than `TIMEOUT_S`.
    """
    with _reading(database) as cursor:
        for runs in _nights(cursor, wanted):
            found = _photos_of(cursor, runs, wanted, limit=None)
            for start in range(0, len(found), _ROWS_AT_ONCE):
                yield from _described(cursor, found[start : start + _ROWS_AT_ONCE])


def night_counts(database: Database, wanted: HistoryFilter) -> HistoryCounts:
    """Count the photos of nights.

    Raises:
        QueryError: it takes longer than `TIMEOUT_S`.
    """
    sql = _filled(NIGHT_COUNTS, wanted, joins=_DECISION + _PREDICTION + _REVIEWS)
    with _reading(database) as cursor:
        runs = [run for night in _nights(cursor, wanted) for run in night]
        cursor.execute(sql, wanted.values() | {"runs": runs})
        return _counts(cursor.fetchall())


def trial_page(database: Database, wanted: HistoryFilter, *, limit: int, skipped: int = 0) -> HistoryPage:
    """Trials, the latest first, as `TRIAL_COLUMNS`.

    Raises:
        QueryError: it takes longer than `TIMEOUT_S`.
    """
    with _reading(database) as cursor:
        values = wanted.values() | {"limit": limit + 1, "skipped": skipped}
        cursor.execute(TRIALS.replace("{conditions}", _conditions(_TRIAL_CONDITIONS, wanted)), values)
        found = [dict(zip(TRIAL_COLUMNS, row, strict=True)) for row in cursor.fetchall()]
        return HistoryPage(items=found[:limit], has_more=len(found) > limit)


def trial_rows(database: Database, wanted: HistoryFilter) -> Generator[dict[str, Any], None, None]:
    """All trials in the order of `trial_page`, from one moment.

    Raises:
        QueryError: it takes longer than `TIMEOUT_S`.
    """
    sql = TRIALS.replace("{conditions}", _conditions(_TRIAL_CONDITIONS, wanted))
    with _reading(database, cursor_name="trials") as cursor:
        cursor.itersize = _ROWS_AT_ONCE
        cursor.execute(sql, wanted.values() | {"limit": None, "skipped": 0})
        for row in cursor:
            yield dict(zip(TRIAL_COLUMNS, row, strict=True))


def trial_counts(database: Database, wanted: HistoryFilter) -> HistoryCounts:
    """Count the trials.

    Raises:
        QueryError: it takes longer than `TIMEOUT_S`.
    """
    with _reading(database) as cursor:
        cursor.execute(TRIAL_COUNTS.replace("{conditions}", _conditions(_TRIAL_CONDITIONS, wanted)), wanted.values())
        return _counts(cursor.fetchall())


@contextmanager
def _reading(database: Database, *, cursor_name: str | None = None) -> Iterator[Any]:
    from psycopg2 import errors

    with database.connect(readonly=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SET LOCAL statement_timeout = %s", (f"{TIMEOUT_S}s",))
            cursor.execute("SET LOCAL idle_in_transaction_session_timeout = %s", (f"{IDLE_S}s",))
        with connection.cursor(cursor_name) as cursor:
            try:
                yield cursor
            except errors.QueryCanceled as exc:
                msg = f"Postgres took longer than {TIMEOUT_S} s to look through these dates; ask for fewer days"
                raise QueryError(msg) from exc


def _nights(cursor: Any, wanted: HistoryFilter) -> list[list[str]]:
    cursor.execute(NIGHTS, {"date_from": wanted.date_from, "date_to": wanted.date_to})
    return [runs for (runs,) in cursor.fetchall()]


def _some_nights(nights: Sequence[Sequence[str]], *, at_once: bool) -> Iterator[list[str]]:
    """The runs of one night, of the next two, of the next four: where little is found, few statements are needed."""
    start, count = 0, len(nights) if at_once else 1
    while start < len(nights):
        yield [run for night in nights[start : start + count] for run in night]
        start, count = start + count, count * 2


def _photos_of(cursor: Any, runs: Sequence[str], wanted: HistoryFilter, *, limit: int | None) -> list[tuple[date, str]]:
    given = wanted.given()
    joins = _DECISION if {"category", "decision", "model"} & set(given) else ""
    joins += _REVIEW if "category" in given else ""
    sql = _filled(PHOTOS_OF_RUNS, wanted, joins=joins)
    cursor.execute(sql, wanted.values() | {"runs": list(runs), "limit": limit})
    found: list[tuple[date, str]] = cursor.fetchall()
    return found


def _described(cursor: Any, photos: Sequence[tuple[date, str]]) -> Iterator[dict[str, Any]]:
    if photos:
        cursor.execute(PHOTOS, {"dates": [day for day, _ in photos], "ids": [photo_id for _, photo_id in photos]})
        for row in cursor.fetchall():
            yield dict(zip(NIGHT_COLUMNS, row, strict=True))


def _filled(sql: str, wanted: HistoryFilter, *, joins: str) -> str:
    return sql.replace("{joins}", joins).replace("{conditions}", _conditions(_NIGHT_CONDITIONS, wanted))


def _conditions(known: dict[str, str], wanted: HistoryFilter) -> str:
    return " ".join(condition for name, condition in known.items() if getattr(wanted, name) is not None)


def _counts(rows: Sequence[tuple[Any, ...]]) -> HistoryCounts:
    photos, confidence, score = 0, None, None
    by: list[dict[Any, int]] = [{}, {}, {}, {}, {}]  # outcome, decision, category, model, day
    for row in rows:
        rolled_up, values, (count, mean_confidence, mean_score) = row[:5], row[5:10], row[10:]
        if all(rolled_up):
            photos, confidence, score = count, mean_confidence, mean_score
            continue
        column = rolled_up.index(0)
        if values[column] is not None:  # rejected photos have no decision, category or model
            by[column][values[column]] = count
    outcomes, decisions, categories, models, days = by
    return HistoryCounts(
        photos=photos,
        mean_confidence=confidence,
        mean_category_score=score,
        outcomes=_most_first(outcomes),
        decisions=_most_first(decisions),
        categories=_most_first(categories),
        models=_most_first(models),
        days=dict(sorted(days.items())),
    )


def _most_first(counts: dict[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _escaped(text: str) -> str:
    """The text as a pattern of LIKE that matches itself."""
    return text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
