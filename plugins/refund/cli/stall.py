"""Tells when waiting for a run has become pointless: the scheduler is dead, or the run never leaves the queue."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from refund.cli.airflow_api import TaskRow
from refund.errors import StackError

QUEUED_PATIENCE_S = 120.0
ILL_PATIENCE_S = 60.0  # supervisord starts a scheduler that died again; Airflow notices after 30 s
_HEALTH_EVERY_S = 5.0


class Stall:
    """Watches one run; time is an argument, in seconds of any clock that only goes forward."""

    def __init__(
        self,
        run_id: str,
        *,
        now: float,
        scheduler_fault: Callable[[], str | None],
        another_runs: Callable[[], bool],
    ) -> None:
        """Begin to watch.

        Args:
            run_id: Airflow's.
            now: The moment it was triggered.
            scheduler_fault: What ails the scheduler, as a phrase such as "reports unhealthy"; None: nothing.
            another_runs: Whether another run of the night is going, for which this one rightly waits.
        """
        self._run_id = run_id
        self._scheduler_fault, self._another_runs = scheduler_fault, another_runs
        self._seen: object = None
        self._moved_at = now
        self._ill_since: float | None = None
        self._ask_health_at = now

    def look(self, rows: Sequence[TaskRow], state: str, *, now: float) -> None:
        """Take note of a run's state and its task instances.

        Raises:
            StackError: it will not go on by itself.
        """
        if state not in {"queued", "running"}:
            return
        seen = state, [(row.task_id, row.map_index, row.state, row.try_number) for row in rows]
        if seen != self._seen:
            self._seen, self._moved_at = seen, now
        if state == "queued" and now - self._moved_at >= QUEUED_PATIENCE_S:
            if not self._another_runs():
                msg = (
                    f"the run {self._run_id} has been queued for {QUEUED_PATIENCE_S:.0f} s and no task of it started, "
                    f"though no other night runs; look in Airflow whether refund_nightly is paused, and start what is "
                    f"dead: refund up"
                )
                raise StackError(msg)
            self._moved_at = now
        if now >= self._ask_health_at:
            self._ask_health_at = now + _HEALTH_EVERY_S
            self._look_at_scheduler(now)

    def _look_at_scheduler(self, now: float) -> None:
        fault = self._scheduler_fault()
        if fault is None:
            self._ill_since = None
            return
        if self._ill_since is None:
            self._ill_since = now
        if now - self._ill_since >= ILL_PATIENCE_S:
            msg = (
                f"Airflow's scheduler {fault}, for {ILL_PATIENCE_S:.0f} s now, so the run {self._run_id} does not go "
                f"on; start it again: refund up (the run then continues by itself)"
            )
            raise StackError(msg)
