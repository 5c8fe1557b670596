"""`refund night --wait` gives up where the run will not go on by itself, and only there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from refund.cli.airflow_api import TaskRow
from refund.cli.stall import Stall
from refund.errors import StackError


def row(state: str | None) -> TaskRow:
    return TaskRow(task_id="fetch", map_index=-1, state=state, try_number=1, started_at=None, ended_at=None)


def watching(
    *, fault: Callable[[], str | None] = lambda: None, another_runs: Callable[[], bool] = lambda: False
) -> Stall:
    return Stall("manual__1", now=1000.0, scheduler_fault=fault, another_runs=another_runs)


def test_a_run_that_stays_in_the_queue_is_given_up_after_two_minutes() -> None:
    stall = watching()
    stall.look([row(None)], "queued", now=1000.0)
    stall.look([row(None)], "queued", now=1119.0)
    with pytest.raises(StackError) as caught:
        stall.look([row(None)], "queued", now=1120.0)
    assert str(caught.value) == (
        "the run manual__1 has been queued for 120 s and no task of it started, though no other night runs; look in "
        "Airflow whether refund_nightly is paused, and start what is dead: refund up"
    )


def test_behind_another_night_it_waits_on_and_counts_afresh_from_then() -> None:
    others = [True, False]
    stall = watching(another_runs=lambda: others.pop(0))
    for now in (1000.0, 1120.0, 1239.0):
        stall.look([], "queued", now=now)
    assert others == [False]
    with pytest.raises(StackError, match=r"queued for 120 s"):
        stall.look([], "queued", now=1240.0)


def test_a_task_that_moves_starts_the_patience_afresh() -> None:
    stall = watching()
    for now, state in ((1000.0, None), (1100.0, "scheduled"), (1219.0, "scheduled")):
        stall.look([row(state)], "queued", now=now)
    with pytest.raises(StackError, match=r"queued for 120 s"):
        stall.look([row("scheduled")], "queued", now=1220.0)


def test_a_task_may_run_for_hours_under_a_healthy_scheduler() -> None:
    stall = watching()
    for now in (1000.0, 20_000.0):
        stall.look([row("running")], "running", now=now)


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_scheduler_that_is_ill_for_a_minute_ends_the_waiting(state: str) -> None:
    stall = watching(fault=lambda: "reports unhealthy")
    for now in (1000.0, 1030.0, 1059.0):
        stall.look([row("queued")], state, now=now)
    with pytest.raises(StackError) as caught:
        stall.look([row("queued")], state, now=1064.0)
    assert str(caught.value) == (
        "Airflow's scheduler reports unhealthy, for 60 s now, so the run manual__1 does not go on; start it again: "
        "refund up (the run then continues by itself)"
    )


def test_a_run_that_has_ended_is_never_given_up() -> None:
    stall = watching(fault=lambda: "reports unhealthy")
    stall.look([row("running")], "running", now=1000.0)
    stall.look([row("success")], "success", now=1064.0)


def test_a_scheduler_that_recovers_is_forgiven() -> None:
    faults: list[str | None] = ["reports unhealthy", None, "reports unhealthy"]
    stall = watching(fault=lambda: faults.pop(0))
    for now in (1000.0, 1050.0, 1070.0):
        stall.look([row("queued")], "running", now=now)
    assert faults == []


def test_health_is_asked_every_five_seconds_not_every_time() -> None:
    asked: list[float] = []
    stall = watching(fault=lambda: asked.append(0.0))
    for tenths in range(100):
        stall.look([], "running", now=1000.0 + tenths / 10)
    assert len(asked) == 2
