"""Gives waiting photos to one person at a time, and writes and takes back what they decide.

Who is given a photo holds a row of ``refund.review_claim`` until they decide, leave, or `CLAIM` has passed without a
sign of them. Taking photos is done under a lock of its own, a few milliseconds long; deciding shares that lock, so that
no photo is given away while its verdict is being written, and holds the photo's row, so that of two verdicts at once
the second sees the first.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from refund.store.review_desk import Order, Orders, Queue, WaitingPhoto, held_photos, read_order

if TYPE_CHECKING:
    from refund.store.database import Database

LOCK_KEY = 7_336_867  # pg_advisory_xact_lock
LOCK_TIMEOUT = "5s"  # people wait, each in a thread that the server has few of
CLAIM = timedelta(minutes=10)
UNDO = timedelta(minutes=15)
PHOTOS_AT_ONCE = 10  # of one refund; who asks while they hold some of them is given the next
FURTHER = 4  # times as much of the order is read where all that was read is passed over or before others

# Whoever is at work keeps what they hold. Two verdicts of one person at once must not wait for each other's rows.
EXTEND = """
UPDATE refund.review_claim c SET expires_at = %(until)s
FROM (
  SELECT photo_date, photo_id FROM refund.review_claim
  WHERE claimed_by = %(by)s AND expires_at > %(at)s AND expires_at < %(until)s::timestamptz - interval '1 minute'
  FOR UPDATE SKIP LOCKED
) mine
WHERE c.photo_date = mine.photo_date AND c.photo_id = mine.photo_id
"""
FORGET = "DELETE FROM refund.review_claim WHERE claimed_by = %(by)s AND expires_at <= %(at)s"
UNWANTED = "DELETE FROM refund.review_claim WHERE claimed_by = %(by)s AND photo_id = ANY (%(passed_over)s::uuid[])"
HELD_DATES = "SELECT photo_date, claimed_by = %(by)s FROM refund.review_claim WHERE expires_at > %(at)s"

# Of the refunds in the queue's order, the first that still wait and of which nobody holds a photo, and the next photos
# of those that this person holds already. Every photo is looked at again: the order may be a little old. An audit that
# somebody had looked for and decided still waits.
TAKE = """
WITH candidate AS (
  SELECT * FROM unnest(%(dates)s::date[], %(ids)s::uuid[], %(refunds)s::integer[])
    WITH ORDINALITY AS listed (photo_date, photo_id, refund, place)
), held AS (
  SELECT p.refund_id, count(*) AS photos, bool_or(c.claimed_by <> %(by)s) AS by_others
  FROM refund.review_claim c JOIN refund.photo p ON p.photo_date = c.photo_date AND p.photo_id = c.photo_id
  WHERE c.expires_at > %(at)s AND c.photo_date = ANY (%(held_days)s::date[])
    AND p.photo_date = ANY (%(held_days)s::date[]) AND p.refund_id IS NOT NULL
  GROUP BY p.refund_id
), waiting AS (
  SELECT k.photo_date, k.photo_id, h.refund_id IS NOT NULL AS begun,
         dense_rank() OVER (PARTITION BY h.refund_id IS NOT NULL ORDER BY k.refund) AS turn,
         COALESCE(h.photos, 0) + row_number() OVER (PARTITION BY k.refund ORDER BY k.place) AS place
  FROM candidate k
  JOIN refund.decision d ON d.photo_date = k.photo_date AND d.photo_id = k.photo_id AND d.superseded_by IS NULL
    AND CASE WHEN %(audit)s THEN d.audit ELSE d.kind = 'review' END
  JOIN refund.photo p ON p.photo_date = k.photo_date AND p.photo_id = k.photo_id AND p.superseded_by IS NULL
  LEFT JOIN held h ON h.refund_id = p.refund_id
  WHERE d.photo_date = ANY (%(days)s::date[]) AND p.photo_date = ANY (%(days)s::date[]) AND NOT p.synthetic
    AND h.by_others IS NOT TRUE
    AND NOT EXISTS (
      SELECT FROM refund.review_claim c
      WHERE c.photo_date = k.photo_date AND c.photo_id = k.photo_id AND c.expires_at > %(at)s)
    AND NOT EXISTS (
      SELECT FROM refund.review v WHERE v.photo_date = k.photo_date AND v.photo_id = k.photo_id
        AND (NOT %(audit)s OR v.chosen_by IN ('audit', 'queue')))
)
INSERT INTO refund.review_claim AS c (photo_date, photo_id, claimed_by, claimed_at, expires_at)
SELECT photo_date, photo_id, %(by)s, %(at)s, %(until)s FROM waiting
WHERE (begun OR turn <= %(wanted)s) AND place <= %(most)s ORDER BY photo_date, photo_id
ON CONFLICT (photo_date, photo_id) DO UPDATE
  SET claimed_by = EXCLUDED.claimed_by, claimed_at = EXCLUDED.claimed_at, expires_at = EXCLUDED.expires_at
  WHERE c.expires_at <= %(at)s
RETURNING c.photo_date
"""

HOLD = """
INSERT INTO refund.review_claim AS c (photo_date, photo_id, claimed_by, claimed_at, expires_at)
SELECT photo_date, photo_id, %(by)s, %(at)s, %(until)s FROM refund.photo
WHERE photo_date = %(photo_date)s AND photo_id = %(photo_id)s
ON CONFLICT (photo_date, photo_id) DO UPDATE
  SET claimed_by = EXCLUDED.claimed_by, claimed_at = EXCLUDED.claimed_at, expires_at = EXCLUDED.expires_at
  WHERE c.claimed_by = EXCLUDED.claimed_by OR c.expires_at <= %(at)s
RETURNING true
"""
HOLDER = """
SELECT claimed_by, expires_at FROM refund.review_claim
WHERE photo_date = %(photo_date)s AND photo_id = %(photo_id)s AND expires_at > %(at)s
"""
# Somebody else with another photo of the same refund.
BESIDE = """
SELECT c.claimed_by, c.expires_at FROM refund.review_claim c
JOIN refund.photo p ON p.photo_date = c.photo_date AND p.photo_id = c.photo_id
WHERE c.claimed_by <> %(by)s AND c.expires_at > %(at)s AND c.photo_date = ANY (%(held_days)s::date[])
  AND p.photo_date = ANY (%(held_days)s::date[]) AND p.refund_id = (
  SELECT refund_id FROM refund.photo WHERE photo_date = %(photo_date)s AND photo_id = %(photo_id)s)
LIMIT 1
"""
# The latest verdict that takes the photo out of its queue, if there is one.
STANDING = """
SELECT COALESCE(d.kind = 'review' OR d.audit, false) AND p.superseded_by IS NULL AND NOT p.synthetic,
       COALESCE(d.audit, false), v.review_id, v.reviewed_by, v.reviewed_at, v.category
FROM refund.photo p
LEFT JOIN refund.decision d ON d.photo_date = p.photo_date AND d.photo_id = p.photo_id AND d.superseded_by IS NULL
LEFT JOIN LATERAL (
  SELECT * FROM refund.review v WHERE v.photo_date = p.photo_date AND v.photo_id = p.photo_id
    AND (NOT COALESCE(d.audit, false) OR v.chosen_by IN ('audit', 'queue'))
  ORDER BY v.reviewed_at DESC, v.review_id DESC LIMIT 1
) v ON true
WHERE p.photo_date = %(photo_date)s AND p.photo_id = %(photo_id)s
"""
INSERT_REVIEW = """
INSERT INTO refund.review (photo_date, photo_id, category, reviewed_by, reviewed_at, chosen_by, note)
VALUES (%(photo_date)s, %(photo_id)s, %(category)s, %(by)s, %(at)s, %(chosen_by)s, %(note)s) RETURNING review_id
"""
LET_GO = "DELETE FROM refund.review_claim WHERE photo_date = %(photo_date)s AND photo_id = %(photo_id)s"

REVIEW = """
SELECT photo_date, photo_id::text, category, reviewed_by, reviewed_at, chosen_by, note FROM refund.review
WHERE review_id = %(review_id)s
"""
NEWEST = """
SELECT review_id, reviewed_by FROM refund.review WHERE photo_date = %(photo_date)s AND photo_id = %(photo_id)s
ORDER BY reviewed_at DESC, review_id DESC LIMIT 1
"""
DELETE_REVIEW = "DELETE FROM refund.review WHERE review_id = %(review_id)s AND reviewed_by = %(by)s"
INSERT_AUDIT = """
INSERT INTO refund.audit (at, actor, action, subject, details)
VALUES (%(at)s, %(by)s, 'review.undo', %(subject)s, %(details)s)
"""
RELEASE = """
DELETE FROM refund.review_claim c WHERE c.claimed_by = %(by)s
  AND (%(all)s OR (c.photo_date, c.photo_id) IN (SELECT * FROM unnest(%(dates)s::date[], %(ids)s::uuid[])))
"""


class ReviewConflictError(Exception):
    """A verdict that cannot be written, or taken back, as things stand. Nothing was changed; no night meets it."""

    def __init__(self, *, word: str, message: str, what_to_do: str) -> None:
        super().__init__(f"{message} {what_to_do}")
        self.word = word  # unknown_photo, unknown_review, claimed, already_decided, not_waiting, not_yours, …
        self.message = message
        self.what_to_do = what_to_do


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenReview:
    """A verdict as it stands."""

    review_id: int
    category: str
    reviewed_at: datetime
    chosen_by: str
    known: bool  # it was there already: the same verdict sent twice


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoneReview:
    """A verdict that was taken back; its photo is held by whoever had given it."""

    review_id: int
    photo_date: date
    photo_id: str
    category: str
    chosen_by: str


def claim_photos(
    orders: Orders, *, queue: Queue, by: str, at: datetime, wanted: int, passed_over: Collection[str] = ()
) -> list[list[WaitingPhoto]]:
    """The photos of up to ``wanted`` refunds, held for ``by`` until `CLAIM` after ``at``.

    What they hold comes first, then the next refunds in the queue's order of which nobody holds a photo. Photos
    without a refund come one by one. ``passed_over``: photo ids that they do not want to be given, and let go of.

    The order kept is tried first, then as it is now, then ever more of it: where the photos passed over and those
    before others fill all that was read, there may be some behind them.
    """
    passed = frozenset(passed_over)
    order = orders.get(queue, now=at)
    held = _claim(orders.database, order, queue=queue, by=by, at=at, wanted=wanted, passed_over=passed)
    if len(held) < wanted:
        order = orders.get(queue, now=at, anew=True)
        held = _claim(orders.database, order, queue=queue, by=by, at=at, wanted=wanted, passed_over=passed)
    times = 1
    while len(held) < wanted and not order.whole:
        times *= FURTHER
        order = read_order(orders.database, queue, now=at, times=times)
        held = _claim(orders.database, order, queue=queue, by=by, at=at, wanted=wanted, passed_over=passed)
    return held


def _claim(
    database: Database, order: Order, *, queue: Queue, by: str, at: datetime, wanted: int, passed_over: frozenset[str]
) -> list[list[WaitingPhoto]]:
    values: dict[str, Any] = {"by": by, "at": at, "until": at + CLAIM, "audit": queue is Queue.AUDIT}
    with database.connect() as connection, connection.cursor() as cursor:
        _take_turn(cursor, alone=True)
        cursor.execute(FORGET, values)
        if passed_over:
            cursor.execute(UNWANTED, {**values, "passed_over": sorted(passed_over)})
        cursor.execute(EXTEND, values)
        cursor.execute(HELD_DATES, values)
        found = cursor.fetchall()
        dates = {day for day, is_mine in found if is_mine}
        held = held_photos(cursor, queue=queue, by=by, at=at, dates=dates) if dates else []
        mine = {photo.photo_id for photos in held for photo in photos}
        listed = [
            (day, photo_id, number)
            for number, photos in enumerate(order.refunds)
            if len(held) < wanted or any(photo_id in mine for _, photo_id in photos)
            for day, photo_id in photos
            if photo_id not in passed_over and photo_id not in mine
        ]
        if listed:
            days, ids, refunds = (list(column) for column in zip(*listed, strict=True))
            more: dict[str, Any] = {"dates": days, "ids": ids, "refunds": refunds, "days": sorted(set(days))}
            more |= {"wanted": max(0, wanted - len(held)), "most": PHOTOS_AT_ONCE}
            cursor.execute(TAKE, {**values, **more, "held_days": sorted({day for day, _ in found})})
            taken = {day for (day,) in cursor.fetchall()}
            if taken:
                held = held_photos(cursor, queue=queue, by=by, at=at, dates=dates | taken)
    return held


def hold(database: Database, *, photo_date: date, photo_id: str, by: str, at: datetime) -> None:
    """Hold one photo that waits, by its name: who skipped it wants it back.

    Raises:
        ReviewConflictError: unknown_photo; claimed: somebody else holds it, or another photo of its refund;
            already_decided; not_waiting.
    """
    values: dict[str, Any] = {"photo_date": photo_date, "photo_id": photo_id, "by": by, "at": at, "until": at + CLAIM}
    with database.connect() as connection, connection.cursor() as cursor:
        _take_turn(cursor, alone=True)
        _hold(cursor, values)
        cursor.execute(HELD_DATES, values)
        cursor.execute(BESIDE, {**values, "held_days": sorted({day for day, _ in cursor.fetchall()})})
        if other := cursor.fetchone():
            raise _claimed(*other, what="refund")
        cursor.execute(STANDING, values)
        ((waiting, _, review_id, decided_by, decided_at, decided),) = cursor.fetchall()
        if review_id is not None:
            raise _already_decided(decided, decided_by=decided_by, decided_at=decided_at, by=by)
        if not waiting:
            raise _not_waiting()


def decide(
    database: Database, *, photo_date: date, photo_id: str, category: str, note: str | None, by: str, at: datetime
) -> WrittenReview:
    """Write a verdict; the same one sent twice is there once.

    Raises:
        ReviewConflictError: unknown_photo; claimed: somebody else holds it; already_decided; not_waiting: the machine
            is sure of it by now, or a newer version took its place.
    """
    values: dict[str, Any] = {"photo_date": photo_date, "photo_id": photo_id, "by": by, "at": at, "until": at + CLAIM}
    with database.connect() as connection, connection.cursor() as cursor:
        _take_turn(cursor, alone=False)
        _hold(cursor, values)
        cursor.execute(STANDING, values)
        ((waiting, audit, review_id, decided_by, decided_at, decided),) = cursor.fetchall()
        chosen_by = "audit" if audit else "queue"
        if review_id is not None:
            if decided_by != by or decided != category or at - decided_at > UNDO:
                raise _already_decided(decided, decided_by=decided_by, decided_at=decided_at, by=by)
            cursor.execute(LET_GO, values)
            return WrittenReview(
                review_id=review_id, category=decided, reviewed_at=decided_at, chosen_by=chosen_by, known=True
            )
        if not waiting:
            raise _not_waiting()
        cursor.execute(INSERT_REVIEW, {**values, "category": category, "chosen_by": chosen_by, "note": note})
        ((review_id,),) = cursor.fetchall()
        cursor.execute(LET_GO, values)
        cursor.execute(EXTEND, values)
    return WrittenReview(review_id=review_id, category=category, reviewed_at=at, chosen_by=chosen_by, known=False)


def undo(database: Database, *, review_id: int, by: str, at: datetime) -> UndoneReview:
    """Take back one's own verdict, the newest of its photo, within `UNDO`; ``refund.audit`` keeps what it said.

    The photo is held for ``by`` again.

    Raises:
        ReviewConflictError: unknown_review; not_yours; too_late; not_newest; claimed.
    """
    with database.connect() as connection, connection.cursor() as cursor:
        _take_turn(cursor, alone=False)
        cursor.execute(REVIEW, {"review_id": review_id})
        row = cursor.fetchone()
        if row is None:
            raise _unknown_review(review_id)
        photo_date, photo_id, category, reviewed_by, reviewed_at, chosen_by, note = row
        if reviewed_by != by:
            raise ReviewConflictError(
                word="not_yours",
                message=f"Review {review_id} was given by {reviewed_by!r}, not by you.",
                what_to_do="Ask them to take it back, or give your own verdict: the latest one counts.",
            )
        if at - reviewed_at > UNDO:
            raise ReviewConflictError(
                word="too_late",
                message=f"Review {review_id} was given more than {UNDO.seconds // 60} minutes ago.",
                what_to_do="Import a correction (refund review import): the latest verdict counts.",
            )
        values = {"photo_date": photo_date, "photo_id": photo_id, "by": by, "at": at, "until": at + CLAIM}
        _hold(cursor, values)
        cursor.execute(NEWEST, values)
        newest = cursor.fetchone()
        if newest is not None and newest[0] != review_id:
            raise ReviewConflictError(
                word="not_newest",
                message=f"{newest[1]!r} has decided on this photo since.",
                what_to_do="Nothing needs to be taken back: the latest verdict counts.",
            )
        cursor.execute(DELETE_REVIEW, {"review_id": review_id, "by": by})
        if cursor.rowcount != 1:  # taken back twice at once
            raise _unknown_review(review_id)
        said = {"category": category, "reviewed_at": reviewed_at.isoformat(), "chosen_by": chosen_by, "note": note}
        details = {"review_id": review_id, "photo_date": photo_date.isoformat(), **said}
        told = {"at": at, "by": by, "subject": f"photo {photo_id}", "details": json.dumps(details)}
        cursor.execute(INSERT_AUDIT, told)
    return UndoneReview(
        review_id=review_id, photo_date=photo_date, photo_id=photo_id, category=category, chosen_by=chosen_by
    )


def release(database: Database, *, by: str, photos: Sequence[tuple[date, str]] | None) -> int:
    """Let these photos of theirs go, or with None all of them, so that anybody may be given them; return how many."""
    listed = photos or ()
    values = {"all": photos is None, "dates": [day for day, _ in listed], "ids": [photo_id for _, photo_id in listed]}
    with database.connect() as connection, connection.cursor() as cursor:
        _take_turn(cursor, alone=False)
        cursor.execute(RELEASE, {**values, "by": by})
        return int(cursor.rowcount)


def _take_turn(cursor: Any, *, alone: bool) -> None:
    """Hold the queue's lock to the end of the transaction; after `LOCK_TIMEOUT` people are told to try again."""
    cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
    cursor.execute(f"SELECT pg_advisory_xact_lock{'' if alone else '_shared'}(%s)", (LOCK_KEY,))


def _hold(cursor: Any, values: dict[str, Any]) -> None:
    """Take the photo's row for this transaction and person, unless somebody else has it."""
    cursor.execute(HOLD, values)
    if cursor.fetchone() is not None:
        return
    cursor.execute(HOLDER, values)
    holder = cursor.fetchone()
    if holder is None:
        raise ReviewConflictError(
            word="unknown_photo",
            message=f"No photo {values['photo_id']} of {values['photo_date']} is known.",
            what_to_do="Take photo_date and photo_id from POST api/review/claims.",
        )
    raise _claimed(*holder)


def _claimed(holder: str, until: datetime, *, what: str = "photo") -> ReviewConflictError:
    return ReviewConflictError(
        word="claimed",
        message=f"{holder!r} is looking at this {what} until {until:%H:%M UTC}: it is yours no longer.",
        what_to_do="Nothing was written. Go on with the next photo.",
    )


def _not_waiting() -> ReviewConflictError:
    return ReviewConflictError(
        word="not_waiting",
        message="This photo waits for nobody: a newer version took its place, or the machine decided it anew.",
        what_to_do="Go on with the next photo; its own page shows what stands.",
    )


def _already_decided(category: str, *, decided_by: str, decided_at: datetime, by: str) -> ReviewConflictError:
    mine = decided_by == by
    who = "You have" if mine else f"{decided_by!r} has"
    return ReviewConflictError(
        word="already_decided",
        message=f"{who} decided this photo: {category}, at {decided_at:%H:%M UTC}.",
        what_to_do="Undo it first." if mine else "Nothing was written. Go on with the next photo.",
    )


def _unknown_review(review_id: int) -> ReviewConflictError:
    return ReviewConflictError(
        word="unknown_review",
        message=f"There is no review {review_id}; perhaps it was taken back already.",
        what_to_do="Take review_id from the answer of POST api/review/decisions.",
    )
