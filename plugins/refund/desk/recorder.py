"""Writes verdicts to `refund.trial` beside the answers: whatever is there goes into one transaction."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from concurrent.futures import Future, InvalidStateError
from threading import Condition, Thread
from typing import TYPE_CHECKING

from refund.desk.problems import one_line
from refund.errors import ConfigurationError, FatalRunError, RetriableRunError
from refund.store.trials import Trials

if TYPE_CHECKING:
    from collections.abc import Sequence

    from refund.store.database import Database
    from refund.store.trials import Trial

log = logging.getLogger(__name__)

MOST_WAITING = 1000  # trials; while Postgres hangs, those beyond are not written
_TOGETHER = 64


class Recorder(Thread):
    """A thread with a connection of its own. Started by the first trial, ended by `close`."""

    def __init__(self, database: Database) -> None:
        super().__init__(name="desk-recorder", daemon=True)
        self._trials = Trials(database)
        self._waiting: deque[tuple[Trial, Future[int | None]]] = deque()
        self._changed = Condition()
        self._closed = False

    def add(self, trial: Trial) -> Future[int | None]:
        """Have it written; the future gives its number, or None where it could not be written."""
        number: Future[int | None] = Future()
        with self._changed:
            if self._closed or len(self._waiting) >= MOST_WAITING:
                log.error("A trial of %s was not written: %s wait already", trial.tried_by, len(self._waiting))
                number.set_result(None)
                return number
            if self.ident is None:
                self.start()
            self._waiting.append((trial, number))
            self._changed.notify()
        return number

    def close(self) -> None:
        """Write what waits, then end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self.ident is not None:
            self.join(timeout=10)

    def run(self) -> None:
        """Serve."""
        try:
            while taken := self._take():
                self._write(taken)
        finally:
            self._trials.close()

    def _take(self) -> list[tuple[Trial, Future[int | None]]]:
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            return [self._waiting.popleft() for _ in range(min(_TOGETHER, len(self._waiting)))]

    def _write(self, taken: Sequence[tuple[Trial, Future[int | None]]]) -> None:
        numbers: list[int | None]
        try:
            numbers = list(self._trials.add([trial for trial, _ in taken]))
        except FatalRunError as exc:
            if len(taken) > 1:  # one of them is at fault: each alone
                for each in taken:
                    self._write([each])
                return
            log.error("A trial could not be written: %s", _why(exc))
            numbers = [None]
        except Exception as exc:  # noqa: BLE001  (whatever it is, it must not cost a verdict)
            log.error("%s trials could not be written: %s", len(taken), _why(exc))
            numbers = [None] * len(taken)
        for (_, future), number in zip(taken, numbers, strict=True):
            with contextlib.suppress(InvalidStateError):  # whoever waited gave up
                future.set_result(number)


def _why(exc: Exception) -> str:
    """For the log. Of a refused row only codes and names: Postgres quotes the row, so a file name, in its text."""
    if isinstance(exc, (ConfigurationError, RetriableRunError)):
        return one_line(exc)
    diag = getattr(exc.__cause__, "diag", None)
    found = {name: getattr(diag, name, None) for name in ("sqlstate", "table_name", "column_name", "constraint_name")}
    return " ".join([type(exc).__name__, *(f"{name}={one_line(value)}" for name, value in found.items() if value)])
