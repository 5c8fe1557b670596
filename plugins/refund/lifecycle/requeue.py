"""Puts the rejected photos of a run date back after a fix, so that the next run of that date looks at them again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from enum import Enum
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from refund.errors import AccessDeniedError, ConfigurationError, ReasonCode, RejectedPhotoError, SettingsError
from refund.keys import UNDATED
from refund.params import NightParams
from refund.store.parallel import in_order
from refund.store.requeue import Rejection, last_params, mark_requeued, standing_counts, standing_rejections

if TYPE_CHECKING:
    from refund.night.services import Services
    from refund.store.objects import ListedObject, ObjectStore

_ENOUGH_TO_TELL = 3  # objects; with fewer, all refused may be chance
_KEPT = ("model", "review_threshold")  # with others, a run would also decide anew what was not rejected


class NothingToRequeueError(ConfigurationError):
    """No rejection of that reason and run date stands, so there is nothing to put back."""

    def __init__(self, *, reason: str, run_date: date, key_prefix: str, bucket: str, standing: dict[str, int]) -> None:
        found = ", ".join(f"{count} {name}" for name, count in standing.items()) or "none"
        wanted = "--date as the run date, not the photo date" if not standing else "--reason and --date among these"
        if key_prefix and reason in standing:
            wanted = f"--key-prefix with which one of the {standing[reason]} keys begins"
        below = f" with a key below {key_prefix!r}" if key_prefix else ""
        super().__init__(
            f"no rejection by {reason!r} of run date {run_date}{below} stands in bucket {bucket!r}; standing there: "
            f"{found}. Expected {wanted}; what was put back and run again stands no more: see reporting.rejections"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeued:
    """What became of the rejections.

    ``found`` is the sum of ``there``, ``restored``, ``already`` and the numbers of ``overwritten``, ``lost`` and
    ``refused``.
    """

    reason: str
    run_date: date
    dry_run: bool
    found: int  # rejections that stand
    there: int  # the photo lies under its key, unchanged
    restored: int  # it was gone and came back from its quarantine copy
    renewed: int  # of the restored, how many have another ETag now, so that the next run sees a new version
    already: int  # put back before
    overwritten: tuple[str, ...]  # keys with another version, which has a verdict of its own or gets one
    lost: tuple[str, ...]  # keys without a photo, here or in quarantine
    refused: tuple[str, ...]  # keys that the store does not let us look at
    decided: int  # of there and restored, those that a night or another requeue dealt with meanwhile
    put_back: int  # the others of there and restored: they no longer stand
    # Parameters of refund_nightly for runs that look at them again: run_date and what differs from the defaults. Empty
    # where there is nothing to look at, more than one where photos lie below more than one prefix.
    next_runs: tuple[dict[str, Any], ...]


class _State(Enum):
    """What lies under the key of a rejected photo, once that was looked at."""

    THERE = "there"
    RESTORED = "restored"
    RENEWED = "renewed"
    OVERWRITTEN = "overwritten"
    LOST = "lost"
    REFUSED = "refused"


_GONE = frozenset({ReasonCode.VANISHED, ReasonCode.CHANGED})
_BACK = frozenset({_State.THERE, _State.RESTORED, _State.RENEWED})


def requeue(
    *,
    reason: str,
    run_date: date,
    services: Services,
    by: str,
    key_prefix: str = "",
    why: str | None = None,
    dry_run: bool = False,
) -> Requeued:
    """Put back the standing rejections of a reason and run date, of keys that begin with ``key_prefix``.

    A photo that is gone is copied back from its quarantine copy to its own key; the copy in quarantine stays. All marks
    are one transaction, with a row in ``refund.audit`` that says ``by`` whom and ``why``. They come after the copies:
    killed at any moment and started again, it does the rest. With ``dry_run`` the objects are looked at and nothing is
    written.

    Raises:
        SettingsError: no such reason code, or a date in the future.
        NothingToRequeueError: no such rejection stands; the text says which do.
        BucketMissingError: there is no such bucket any more.
        AccessDeniedError: the store lets us look at none of at least three objects.
        RetriableRunError: S3 or Postgres cannot be reached; nothing is marked.
    """
    _check(reason, run_date, today=services.now().date())
    database, objects = services.database, services.objects
    found = standing_rejections(
        database, run_date=run_date, reason=reason, key_prefix=key_prefix, bucket=objects.bucket
    )
    if not found:
        standing = standing_counts(database, run_date=run_date, bucket=objects.bucket)
        raise NothingToRequeueError(
            reason=reason, run_date=run_date, key_prefix=key_prefix, bucket=objects.bucket, standing=standing
        )
    new = [rejection for rejection in found if rejection.requeued_at is None]
    states = list(in_order(lambda rejection: _look(rejection, objects, dry_run=dry_run), new, name="s3-head"))
    if _State.LOST in states:
        objects.check_bucket()  # raises where it is the bucket that is missing
    _check_rights(objects, states)

    count = Counter(states)
    back = [rejection for rejection, state in zip(new, states, strict=True) if state in _BACK]
    marked = len(back)
    if back and not dry_run:
        details = {
            "found": len(found),
            "restored": count[_State.RESTORED] + count[_State.RENEWED],
            "renewed": count[_State.RENEWED],
            "overwritten": count[_State.OVERWRITTEN],
            "lost": count[_State.LOST],
            "refused": count[_State.REFUSED],
            "key_prefix": key_prefix,
            "why": why,
        }
        subject = f"{run_date}/{reason}"
        marked = mark_requeued(database, back, at=services.now(), actor=by, subject=subject, details=details)

    def keys(state: _State) -> tuple[str, ...]:
        return tuple(rejection.key for rejection, seen in zip(new, states, strict=True) if seen is state)

    for_the_night = [
        *(rejection for rejection in found if rejection.requeued_at is not None),
        *(rejection for rejection, seen in zip(new, states, strict=True) if seen in _BACK | {_State.OVERWRITTEN}),
    ]
    return Requeued(
        reason=reason,
        run_date=run_date,
        dry_run=dry_run,
        found=len(found),
        there=count[_State.THERE],
        restored=count[_State.RESTORED] + count[_State.RENEWED],
        renewed=count[_State.RENEWED],
        already=len(found) - len(new),
        overwritten=keys(_State.OVERWRITTEN),
        lost=keys(_State.LOST),
        refused=keys(_State.REFUSED),
        decided=len(back) - marked,
        put_back=marked,
        next_runs=_next_runs(run_date, for_the_night, services),
    )


def _check(reason: str, run_date: date, *, today: date) -> None:
    if reason not in set(ReasonCode):
        known = ", ".join(code.value for code in ReasonCode)
        msg = f"{reason!r} is no reason code; expected one of {known} (docs/reason_codes.md)"
        raise SettingsError(msg)
    if run_date > today:
        msg = f"run date {run_date} lies in the future; expected the date of a night that was run, up to {today} (UTC)"
        raise SettingsError(msg)


def _look(rejection: Rejection, objects: ObjectStore, *, dry_run: bool) -> _State:
    """What lies under the key; a photo that is gone is copied back there, unless it is a ``dry_run``.

    Nothing may be overwritten that somebody uploads meanwhile. So it is copied on the condition that nothing lies
    there; and since not every server heeds that (nanio does not), the key is looked at again right before.
    """
    try:
        if (here := objects.head(rejection.key, ask_bucket=False)) is not None:
            return _found(here, rejection)
        copy = objects.head(rejection.quarantine_key, ask_bucket=False) if rejection.quarantine_key else None
        if copy is None or not _is_judged_version(copy, rejection, objects):
            return _State.LOST
        if dry_run:
            return _compared(copy, rejection)
        if (here := objects.head(rejection.key, ask_bucket=False)) is not None:
            return _found(here, rejection)
        copied = objects.copy(copy.key, rejection.key, absent=True)
        if (here := objects.head(rejection.key, ask_bucket=False)) is None:
            return _State.LOST
        return _compared(here, rejection) if copied else _found(here, rejection)
    except RejectedPhotoError as exc:  # the quarantine copy: it vanished as well, or cannot be read
        return _State.LOST if exc.reason in _GONE else _State.REFUSED
    except AccessDeniedError:
        objects.check_bucket()  # raises where everything is refused
        return _State.REFUSED


def _found(here: ListedObject, rejection: Rejection) -> _State:
    return _State.THERE if here.etag == rejection.etag else _State.OVERWRITTEN


def _is_judged_version(copy: ListedObject, rejection: Rejection, objects: ObjectStore) -> bool:
    """Whether the copy has the rejected version's size and ETag, or its SHA-256 where it has an ETag of its own.

    The hash is known of every photo whose body was read; of the others the copy's key names the version.
    """
    if copy.size_bytes != rejection.size_bytes:
        return False
    if copy.etag == rejection.etag or rejection.sha256 is None:
        return True
    return sha256(objects.get(copy.key, etag=copy.etag, size_bytes=copy.size_bytes)).hexdigest() == rejection.sha256


def _compared(copied: ListedObject, rejection: Rejection) -> _State:
    """An ETag is not always the hash of the bytes: objects uploaded in parts or encrypted get another when copied."""
    if copied.size_bytes != rejection.size_bytes:
        return _State.OVERWRITTEN  # uploaded meanwhile
    return _State.RESTORED if copied.etag == rejection.etag else _State.RENEWED


def _check_rights(objects: ObjectStore, states: Sequence[_State]) -> None:
    if len(states) >= _ENOUGH_TO_TELL and all(state is _State.REFUSED for state in states):
        msg = (
            f"S3 at {objects.access.place} refuses to look at every one of the {len(states)} photos, so none was put "
            f"back. Give the user of the Airflow connection refund_s3 the right to read (s3:GetObject)"
        )
        raise AccessDeniedError(msg)


def _next_runs(run_date: date, rejections: Iterable[Rejection], services: Services) -> tuple[dict[str, Any], ...]:
    """What to run so that these photos are looked at again, and nothing else is decided anew; one for each prefix."""
    by_prefix: dict[str, list[Rejection]] = {}
    usual = NightParams()
    for rejection in rejections:
        by_prefix.setdefault(rejection.prefix or usual.prefix, []).append(rejection)
    if not by_prefix:
        return ()
    last = {
        params.get("prefix") or usual.prefix: params for params in last_params(services.database, run_date=run_date)
    }
    runs = []
    for prefix, photos in sorted(by_prefix.items()):
        reach = max(((run_date - photo.photo_date).days for photo in photos if photo.photo_date != UNDATED), default=0)
        values = {name: last.get(prefix, {}).get(name) for name in _KEPT}
        values |= {"prefix": prefix, "late_days": max(reach, usual.late_days)}
        other = {name: value for name, value in values.items() if value not in (None, getattr(usual, name))}
        runs.append({"run_date": run_date.isoformat(), **other})
    return tuple(runs)
