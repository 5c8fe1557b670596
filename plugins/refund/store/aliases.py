"""What ``champion`` and ``challenger`` mean, and meant before: each alias's history is a stack of models.

A promotion puts a model on top, a rollback takes the top away. Rows are only ever added, and end; the stack is what
they add up to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import EllipsisType
from typing import TYPE_CHECKING, Any

from refund.errors import ModelRetiredError, NoModelError, PromotionRefusedError, RollbackError, SettingsError

if TYPE_CHECKING:
    from refund.store.database import Database

ALIASES = ("champion", "challenger")

# Two changes of one alias at once: the second waits here, whether or not there is a row to lock yet.
LOCK_ALIAS = "SELECT pg_advisory_xact_lock(hashtext('refund.model_alias.' || %(alias)s))"

STATE = "SELECT state FROM refund.model WHERE model = %(model)s"

RETIRED = "SELECT model FROM refund.model WHERE state = 'retired'"

HISTORY = """
SELECT change_id, alias, model, action, set_by, reason, override, details, set_at, ended_at
FROM refund.model_alias_history
WHERE %(alias)s::text IS NULL OR alias = %(alias)s
ORDER BY change_id
"""

# The clock and not now(): a change that waited for the lock began before the one it follows.
END_ALIAS = """
UPDATE refund.model_alias_history SET ended_at = clock_timestamp() WHERE alias = %(alias)s AND ended_at IS NULL
"""

START_ALIAS = """
INSERT INTO refund.model_alias_history (alias, model, action, set_at, set_by, reason, override, details)
VALUES (%(alias)s, %(model)s, %(action)s, clock_timestamp(), %(by)s, %(reason)s, %(override)s, %(details)s)
"""

# A run uses the model it began with, or one that was rolled back to since.
USED_BY_RUN = """
SELECT r.run_id FROM refund.run r
WHERE r.state = 'running' AND NOT r.synthetic AND r.started_at > now() - interval '1 day'
  AND (r.model = %(model)s OR EXISTS (
  SELECT FROM refund.model_alias_history h
  WHERE h.model = %(model)s AND h.action = 'rollback' AND h.set_at > r.started_at))
ORDER BY r.run_id LIMIT 1
"""

RETIRE = "UPDATE refund.model SET state = 'retired' WHERE model = %(model)s AND state <> 'retired'"

AUDIT = """
INSERT INTO refund.audit (actor, action, subject, details) VALUES (%(by)s, %(action)s, %(subject)s, %(details)s)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasChange:
    """One entry of an alias's history."""

    change_id: int
    alias: str
    model: str  # what it meant from then on
    action: str  # promote, rollback
    by: str
    reason: str
    override: bool  # a refused promotion was made all the same
    details: Mapping[str, Any]  # the comparison it rests on, what a rollback skipped, the request
    set_at: datetime
    ended_at: datetime | None  # None: it still does

    def as_json(self) -> dict[str, Any]:
        """The entry as JSON values."""
        return {
            "change_id": self.change_id,
            "alias": self.alias,
            "model": self.model,
            "action": self.action,
            "by": self.by,
            "reason": self.reason,
            "override": self.override,
            "details": dict(self.details),
            "set_at": self.set_at.isoformat(),
            "ended_at": None if self.ended_at is None else self.ended_at.isoformat(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasMove:
    """What a promotion or rollback did."""

    alias: str
    before: str | None  # None: the alias meant nothing
    after: str
    skipped: tuple[str, ...] = ()  # retired models that a rollback passed over

    @property
    def changed(self) -> bool:
        """False where the alias meant that model already."""
        return self.before != self.after

    def as_json(self) -> dict[str, Any]:
        """The move as JSON values."""
        return {
            "alias": self.alias,
            "model": self.after,
            "before": self.before,
            "changed": self.changed,
            "skipped": list(self.skipped),
        }


def stack_of(changes: Sequence[AliasChange]) -> list[str]:
    """The models that an alias's changes, oldest first, add up to; the last one is what it means now."""
    stack: list[str] = []
    for change in changes:
        _apply(change, stack)
    return stack


def followed_rollback(changes: Sequence[AliasChange], since: datetime, *, began_with: str | None = None) -> str | None:
    """What a run that began with the alias at ``since`` goes on with, where rollbacks took its model off the stack.

    None where its model was not taken off. A run follows rollbacks and never promotions: what was promoted after it
    began, and taken back again, is not its affair, and neither is what was promoted after its own model was taken back.
    ``began_with`` is the run's model, where the alias may have changed between being asked and ``since``.
    """
    stack = stack_of([change for change in changes if change.set_at <= since])
    if not stack:
        return None
    depth, answer = len(stack), None  # how far down the run's model lies; later, how far down rollbacks went
    if began_with is not None and stack[-1] != began_with:
        if began_with in stack:  # another was put on top meanwhile
            depth = len(stack) - stack[::-1].index(began_with)
        else:
            answer = stack[-1]
    for change in changes:
        if change.set_at > since:
            _apply(change, stack)
            if len(stack) < depth:
                depth, answer = len(stack), stack[-1]
    return answer


def made_for(changes: Sequence[AliasChange], request: str | None) -> AliasChange | None:
    """The change that this request made already, if any."""
    return next(
        (change for change in changes if request is not None and change.details.get("request") == request), None
    )


def _asked(request: str | None) -> dict[str, str]:
    return {} if request is None else {"request": request}


def _apply(change: AliasChange, stack: list[str]) -> None:
    if change.action == "rollback":
        stack.pop()
        while stack[-1] != change.model:  # it passed over retired models
            stack.pop()
    else:
        stack.append(change.model)


class Aliases:
    """Reads and changes what the aliases mean."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def history(self, alias: str | None = None) -> Sequence[AliasChange]:
        """Every change of one alias, or of all, oldest first.

        Raises:
            SettingsError: there is no such alias.
        """
        if alias is not None:
            check_alias(alias)
        with self.database.connect(readonly=True) as connection, connection.cursor() as cursor:
            return _changes(cursor, alias)

    def rolled_back_to(self, alias: str, since: datetime, *, began_with: str | None = None) -> str | None:
        """See `followed_rollback`."""
        return followed_rollback(self.history(alias), since, began_with=began_with)

    def promote(
        self,
        alias: str,
        model: str,
        *,
        by: str,
        reason: str,
        expected: str | EllipsisType | None = ...,
        override: bool = False,
        details: Mapping[str, Any] | None = None,
        request: str | None = None,
    ) -> AliasMove:
        """Let an alias mean this ``name@version`` from now on; nothing is written where it does already.

        ``expected`` is what the alias must mean until then (None: nothing); whatever it means, if it is not given.
        ``request`` as in `rollback`.

        Raises:
            SettingsError: no such alias, or no reason is given.
            NoModelError: the model is not registered.
            ModelRetiredError: it is retired.
            PromotionRefusedError: the alias does not mean ``expected`` any more.
        """
        check_alias(alias)
        check_reason(reason, f"a change of {alias} needs a reason; say why {model} shall be it")
        with self.database.connect() as connection, connection.cursor() as cursor:
            cursor.execute(LOCK_ALIAS, {"alias": alias})
            cursor.execute(STATE, {"model": model})
            state = next(iter(cursor.fetchall()), (None,))[0]
            if state is None:
                raise NoModelError(wanted=model)
            if state == "retired":
                raise ModelRetiredError(model=model)
            changes = _changes(cursor, alias)
            if made := made_for(changes, request):
                return AliasMove(alias=alias, before=made.model, after=made.model)
            stack = stack_of(changes)
            before = stack[-1] if stack else None
            if before != model:
                if expected is not ... and before != expected:
                    msg = (
                        f"{alias} changed meanwhile from {expected or 'nothing'} to {before or 'nothing'}, so {model} "
                        f"was compared with the wrong model; compare again: refund model promote {model}"
                    )
                    raise PromotionRefusedError(msg)
                values = {"alias": alias, "model": model, "action": "promote", "by": by, "reason": reason.strip()}
                _change(
                    cursor, values, before=before, override=override, details={**(details or {}), **_asked(request)}
                )
        return AliasMove(alias=alias, before=before, after=model)

    def rollback(
        self,
        alias: str,
        *,
        by: str,
        reason: str,
        expected: str | EllipsisType | None = ...,
        request: str | None = None,
    ) -> AliasMove:
        """Let an alias mean again what it meant before its current model came; retired models are passed over.

        ``request`` names what asked for it, such as a run of a DAG: asked a second time, it changes nothing.

        Raises:
            SettingsError: no such alias, or no reason is given.
            RollbackError: there is no earlier model that may be used, or the alias does not mean ``expected`` any more.
        """
        check_alias(alias)
        check_reason(reason, f"a rollback of {alias} needs a reason; say what is wrong with the present model")
        with self.database.connect() as connection, connection.cursor() as cursor:
            cursor.execute(LOCK_ALIAS, {"alias": alias})
            changes = _changes(cursor, alias)
            if made := made_for(changes, request):
                return AliasMove(alias=alias, before=made.model, after=made.model)
            stack = stack_of(changes)
            before = stack[-1] if stack else None
            if expected is not ... and before != expected:
                msg = (
                    f"{alias} changed meanwhile from {expected or 'nothing'} to {before or 'nothing'}; look at what "
                    f"happened before another rollback: refund model history"
                )
                raise RollbackError(msg)
            cursor.execute(RETIRED)
            retired = {model for (model,) in cursor.fetchall()}
            skipped = []
            while stack and (stack[-1] == before or stack[-1] in retired):
                if (passed := stack.pop()) != before:
                    skipped.append(passed)
            if before is None or not stack:
                raise RollbackError(_nothing_before(alias, before, skipped))
            values = {"alias": alias, "model": stack[-1], "action": "rollback", "by": by, "reason": reason.strip()}
            details = {"skipped": skipped} if skipped else {}
            _change(cursor, values, before=before, override=False, details={**details, **_asked(request)})
        return AliasMove(alias=alias, before=before, after=stack[-1], skipped=tuple(skipped))

    def retire(self, model: str, *, by: str, reason: str) -> bool:
        """Let no run, promotion or rollback use this model from now on; False where it is retired already.

        Raises:
            SettingsError: no reason is given.
            NoModelError: the model is not registered.
            PromotionRefusedError: an alias means it, or a run is using it.
        """
        check_reason(reason, f"retiring {model} needs a reason; say why it shall not be used any more")
        with self.database.connect() as connection, connection.cursor() as cursor:
            for alias in ALIASES:  # always in this order; the others take one lock only, so nobody waits in a circle
                cursor.execute(LOCK_ALIAS, {"alias": alias})
            cursor.execute(STATE, {"model": model})
            if not cursor.fetchall():
                raise NoModelError(wanted=model)
            for alias in ALIASES:
                if stack_of(_changes(cursor, alias))[-1:] == [model]:
                    msg = (
                        f"{model} is the {alias}, so it cannot be retired; promote another model first "
                        f"(refund model promote), or roll back (refund model rollback)"
                    )
                    raise PromotionRefusedError(msg)
            cursor.execute(USED_BY_RUN, {"model": model})
            for (run_id,) in cursor.fetchall():
                msg = (
                    f"run {run_id} is using {model}, so it cannot be retired yet; wait until the run has ended, or "
                    f"clear it and let it end"
                )
                raise PromotionRefusedError(msg)
            cursor.execute(RETIRE, {"model": model})
            if cursor.rowcount == 0:
                return False
            audit(cursor, by=by, action="model.retire", subject=model, details={"reason": reason.strip()})
        return True


def check_alias(alias: str) -> None:
    """Raise SettingsError unless there is such an alias."""
    if alias not in ALIASES:
        msg = f"there is no alias {alias!r}; expected {' or '.join(ALIASES)}"
        raise SettingsError(msg)


def audit(cursor: Any, *, by: str, action: str, subject: str, details: Mapping[str, Any]) -> None:
    """Write down who did what, in the transaction that does it."""
    cursor.execute(AUDIT, {"by": by, "action": action, "subject": subject, "details": json.dumps(details)})


def check_reason(reason: str, text: str) -> None:
    """Raise SettingsError with ``text`` where nobody could read the reason, or another where it cannot be stored."""
    if not any(letter.isprintable() and not letter.isspace() for letter in reason):  # zero-width spaces say nothing
        raise SettingsError(text)
    if wrong := [letter for letter in reason if letter == "\0" or "\ud800" <= letter <= "\udfff"]:
        msg = (
            f"the reason holds the character {wrong[0]!a}, which Postgres cannot store; give it as plain text in UTF-8"
        )
        raise SettingsError(msg)


def _nothing_before(alias: str, before: str | None, skipped: Sequence[str]) -> str:
    if before is None:
        return f"{alias} means no model yet, so there is nothing to go back from; set one: refund model promote"
    passed = f" but {', '.join(dict.fromkeys(skipped))}, retired" if skipped else ""
    return (
        f"{alias} means {before} and has no earlier model to go back to{passed}; choose one (refund model list) and "
        f"promote it: refund model promote"
    )


def _change(
    cursor: Any, values: Mapping[str, str], *, before: str | None, override: bool, details: Mapping[str, Any]
) -> None:
    cursor.execute(END_ALIAS, values)
    cursor.execute(START_ALIAS, {**values, "override": override, "details": json.dumps(details)})
    said = {"from": before, "to": values["model"], "reason": values["reason"], "override": override}
    audit(cursor, by=values["by"], action=f"model.{values['action']}", subject=values["alias"], details=said)


def _changes(cursor: Any, alias: str | None) -> list[AliasChange]:
    cursor.execute(HISTORY, {"alias": alias})
    return [
        AliasChange(
            change_id=change_id,
            alias=name,
            model=model,
            action=action,
            by=by,
            reason=reason,
            override=override,
            details=details,
            set_at=set_at,
            ended_at=ended_at,
        )
        for change_id, name, model, action, by, reason, override, details, set_at, ended_at in cursor.fetchall()
    ]
