"""What waits for a person at the desk: in which order, how much of it, and all that is shown beside a photo.

The order is read whole and kept for `KEPT_FOR`: who takes photos from it looks at each again, see
`refund.store.review_claims`, so an order that is a little old costs nothing but that new photos come a little later.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from threading import Lock
from typing import TYPE_CHECKING, Any

from refund.records import ReviewReason

if TYPE_CHECKING:
    from refund.store.database import Database

KEPT_FOR = timedelta(seconds=20)
REFUNDS_AHEAD, PHOTOS_AHEAD = 300, 1_500  # of the order; when they are used up more is read
OTHERS_SHOWN = 12  # photos of a refund beside those that wait

# Contradictions and what is no product first, then the least sure. The order of REASONS is the order of the queue.
REASONS = (ReviewReason.DECLARED_MISMATCH, ReviewReason.NOT_A_PRODUCT, ReviewReason.LOW_SCORE)

# From an index alone, where the night's rows have been vacuumed.
_UNSURE = """
SELECT d.photo_date, d.photo_id, d.run_id, d.score, CASE
    WHEN 'declared_mismatch' = ANY (d.reasons) THEN 0
    WHEN 'not_a_product' = ANY (d.reasons) THEN 1 ELSE 2 END AS place
FROM refund.decision d
WHERE d.kind = 'review' AND d.superseded_by IS NULL AND NOT d.settled AND NOT EXISTS (
  SELECT FROM refund.review v WHERE v.photo_date = d.photo_date AND v.photo_id = d.photo_id)
"""
# In the order of the draw itself, which has nothing to do with what they show.
_DRAWN = """
SELECT d.photo_date, d.photo_id, d.run_id, refund.audit_ratio(d.photo_id)::real AS score, 0 AS place
FROM refund.decision d
WHERE d.audit AND d.superseded_by IS NULL AND NOT EXISTS (
  SELECT FROM refund.review v WHERE v.photo_date = d.photo_date AND v.photo_id = d.photo_id
    AND v.chosen_by IN ('audit', 'queue'))
"""
# The first refunds, and how much waits in all, from one reading. A refund stands where its first photo does; a photo
# without one stands for itself. Only the first photos are looked up, not all that wait.
_ORDER = """
WITH unseen AS MATERIALIZED ({unseen}), waiting AS MATERIALIZED (
  SELECT u.photo_date, u.photo_id, u.score, u.place, r.run_date
  FROM unseen u JOIN refund.run r ON r.run_id = u.run_id
  WHERE NOT r.synthetic AND NOT EXISTS (
    SELECT FROM refund.photo p
    WHERE p.photo_date = u.photo_date AND p.photo_id = u.photo_id AND p.superseded_by IS NOT NULL)
), first AS MATERIALIZED (
  SELECT w.*, p.refund_id, p.key, row_number() OVER (ORDER BY w.place, w.score, p.key) AS turn
  FROM (SELECT * FROM waiting ORDER BY place, score, photo_date, photo_id LIMIT %(photos)s) w
  JOIN refund.photo p ON p.photo_date = w.photo_date AND p.photo_id = w.photo_id
), turns AS MATERIALIZED (
  SELECT refund_id, min(turn) AS turn FROM first WHERE refund_id IS NOT NULL GROUP BY refund_id
  ORDER BY min(turn) LIMIT %(refunds)s
), shown AS (
  SELECT t.turn, w.photo_date, w.photo_id, w.place, w.score, p.key
  FROM turns t JOIN refund.photo p ON p.refund_id = t.refund_id
  JOIN waiting w ON w.photo_date = p.photo_date AND w.photo_id = p.photo_id
  UNION ALL
  SELECT turn, photo_date, photo_id, place, score, key FROM first WHERE refund_id IS NULL
)
(SELECT array_agg(photo_date ORDER BY place, score, key), array_agg(photo_id::text ORDER BY place, score, key),
        NULL::date, NULL::integer, count(*)
 FROM shown GROUP BY turn ORDER BY turn LIMIT %(refunds)s)
UNION ALL
SELECT NULL, NULL, run_date, place, count(*) FROM waiting GROUP BY run_date, place
"""

DETAILS = """
SELECT p.photo_date, p.photo_id::text, p.key, p.refund_id, p.declared_category, r.run_date, d.category, d.score,
       d.reasons, d.category_scores, pr.class_name, pr.confidence, d.model, c.claimed_at, c.expires_at
FROM refund.review_claim c
JOIN refund.photo p ON p.photo_date = c.photo_date AND p.photo_id = c.photo_id AND p.superseded_by IS NULL
JOIN refund.decision d ON d.photo_date = c.photo_date AND d.photo_id = c.photo_id AND d.superseded_by IS NULL
JOIN refund.run r ON r.run_id = d.run_id
LEFT JOIN refund.prediction pr ON pr.photo_date = d.photo_date AND pr.photo_id = d.photo_id AND pr.model = d.model
WHERE c.claimed_by = %(by)s AND c.expires_at > %(at)s AND c.photo_date = ANY (%(dates)s::date[])
  AND p.photo_date = ANY (%(dates)s::date[]) AND d.photo_date = ANY (%(dates)s::date[])
  AND CASE WHEN %(audit)s THEN d.audit ELSE d.kind = 'review' END
  AND NOT EXISTS (
    SELECT FROM refund.review v WHERE v.photo_date = c.photo_date AND v.photo_id = c.photo_id
      AND (NOT %(audit)s OR v.chosen_by IN ('audit', 'queue')))
"""
OTHERS = """
SELECT refund_id, photo_date, photo_id, key, outcome, final_category, state FROM (
  SELECT refund_id, photo_date, photo_id::text, key, outcome, final_category,
         CASE WHEN reviewed_at IS NOT NULL THEN 'person' WHEN outcome = 'rejected' THEN 'rejected'
              WHEN decision = 'review' THEN 'waiting' ELSE 'machine' END AS state,
         row_number() OVER (PARTITION BY refund_id ORDER BY key) AS place
  FROM reporting.photos
  WHERE refund_id = ANY (%(refunds)s) AND NOT synthetic AND photo_id <> ALL (%(ids)s::uuid[])
) others WHERE place <= %(most)s ORDER BY refund_id, key
"""

CLAIMED = (
    "SELECT count(*), count(*) FILTER (WHERE claimed_by = %(by)s) FROM refund.review_claim WHERE expires_at > %(at)s"
)
DECIDED = """
SELECT count(*) FROM refund.review
WHERE reviewed_by = %(by)s AND reviewed_at >= %(since)s AND chosen_by IN ('audit', 'queue')
"""


class Queue(StrEnum):
    """Why photos wait: the machine is unsure of them, or they were drawn to check it."""

    REVIEW = "review"
    AUDIT = "audit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The first refunds of a queue, each with its waiting photos, and how much waits in all."""

    refunds: tuple[tuple[tuple[date, str], ...], ...]  # (photo date, photo id)
    by_night: dict[date, int]  # photos
    by_reason: dict[ReviewReason, int]  # photos, each counted under the first of `REASONS` that it has; no audits
    at: datetime

    @property
    def waiting(self) -> int:
        """Photos in all."""
        return sum(self.by_night.values())

    @property
    def whole(self) -> bool:
        """Whether ``refunds`` has every photo that waits."""
        return sum(len(photos) for photos in self.refunds) >= self.waiting

    def counted_reasons(self) -> list[tuple[ReviewReason, int]]:
        """`by_reason` in the order of the queue, those without photos included."""
        return [(reason, self.by_reason.get(reason, 0)) for reason in REASONS]


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingPhoto:
    """A photo that somebody has in front of them, and all that is known of it."""

    photo_date: date
    photo_id: str
    key: str
    refund_id: str | None
    declared_category: str | None
    run_date: date
    predicted_category: str
    category_score: float  # ratio
    review_reasons: tuple[str, ...]
    category_scores: dict[str, float]
    class_name: str | None
    confidence: float | None  # ratio
    model: str
    claimed_at: datetime
    expires_at: datetime

    @property
    def group(self) -> str:
        """The same for photos that are shown together."""
        return f"refund {self.refund_id}" if self.refund_id is not None else f"photo {self.photo_id}"

    def place(self, queue: Queue) -> tuple[int, float, str]:
        """Where it stands in the order of its queue; among audits the machine's score would tell something."""
        if queue is Queue.AUDIT:
            return (0, 0.0, self.key)
        reasons = [number for number, reason in enumerate(REASONS) if reason in self.review_reasons]
        return (min(reasons, default=len(REASONS)), self.category_score, self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherPhoto:
    """Another photo of the same refund, for comparison."""

    refund_id: str
    photo_date: date
    photo_id: str
    key: str
    outcome: str
    final_category: str | None
    state: str  # person (reviewed), rejected, waiting, machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """Who is at work."""

    claimed: int  # photos that anybody has in front of them
    claimed_by_me: int
    decided_today: int  # by me, since midnight UTC


class Orders:
    """The orders of both queues, each read at most every `KEPT_FOR` unless it is used up; safe for many threads."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._kept: dict[Queue, Order] = {}
        self._locks = {queue: Lock() for queue in Queue}

    def get(self, queue: Queue, *, now: datetime, anew: bool = False) -> Order:
        """The order as it was a moment ago or, with ``anew``, as it is."""
        asked = self._kept.get(queue)
        with self._locks[queue]:
            kept = self._kept.get(queue)
            # Whoever waited for somebody else's reading takes that one.
            if kept is None or not abs(now - kept.at) < KEPT_FOR or (anew and kept is asked):
                kept = self._kept[queue] = read_order(self.database, queue, now=now)
            return kept


def read_order(database: Database, queue: Queue, *, now: datetime, times: int = 1) -> Order:
    """Read a queue from the tables: everything that waits is looked at once; ``times``: list so much more of it."""
    statement = _ORDER.format(unseen=_DRAWN if queue is Queue.AUDIT else _UNSURE)
    refunds: list[tuple[tuple[date, str], ...]] = []
    nights: dict[date, int] = {}
    reasons: dict[ReviewReason, int] = {}
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(statement, {"refunds": times * REFUNDS_AHEAD, "photos": times * PHOTOS_AHEAD})
        for dates, ids, run_date, place, photos in cursor.fetchall():
            if dates is not None:
                refunds.append(tuple(zip(dates, ids, strict=True)))
                continue
            nights[run_date] = nights.get(run_date, 0) + photos
            if queue is Queue.REVIEW:
                reasons[REASONS[place]] = reasons.get(REASONS[place], 0) + photos
    return Order(refunds=tuple(refunds), by_night=nights, by_reason=reasons, at=now)


def held_photos(cursor: Any, *, queue: Queue, by: str, at: datetime, dates: Iterable[date]) -> list[list[WaitingPhoto]]:
    """What somebody holds and still waits, by refund: first what they have held longest, then in the queue's order."""
    values = {"by": by, "at": at, "audit": queue is Queue.AUDIT, "dates": sorted(set(dates))}
    cursor.execute(DETAILS, values)
    groups: dict[str, list[WaitingPhoto]] = {}
    for row in cursor.fetchall():
        photo = WaitingPhoto(**dict(zip(WaitingPhoto.__dataclass_fields__, row, strict=True)))
        groups.setdefault(photo.group, []).append(photo)
    for photos in groups.values():
        photos.sort(key=lambda photo: photo.place(queue))
    return sorted(
        groups.values(), key=lambda photos: (min(photo.claimed_at for photo in photos), photos[0].place(queue))
    )


def other_photos(database: Database, *, refund_ids: Sequence[str], shown: Sequence[str]) -> dict[str, list[OtherPhoto]]:
    """The photos of these refunds that are not ``shown`` (photo ids), by refund; at most `OTHERS_SHOWN` of each."""
    if not refund_ids:
        return {}
    values = {"refunds": list(refund_ids), "ids": list(shown), "most": OTHERS_SHOWN}
    found: dict[str, list[OtherPhoto]] = {}
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(OTHERS, values)
        for row in cursor.fetchall():
            photo = OtherPhoto(**dict(zip(OtherPhoto.__dataclass_fields__, row, strict=True)))
            found.setdefault(photo.refund_id, []).append(photo)
    return found


def activity(database: Database, *, by: str, at: datetime) -> Activity:
    """Who is at work, and what ``by`` has done today."""
    since = at.replace(hour=0, minute=0, second=0, microsecond=0)
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(CLAIMED, {"by": by, "at": at})
        ((claimed, mine),) = cursor.fetchall()
        cursor.execute(DECIDED, {"by": by, "since": since})
        ((decided,),) = cursor.fetchall()
    return Activity(claimed=claimed, claimed_by_me=mine, decided_today=decided)
