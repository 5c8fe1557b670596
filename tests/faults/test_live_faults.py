"""Faults under a live Airflow: workers, scheduler, API server and S3 server killed under a night; runs cleared."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.driver import DAG
from tests.faults.catalogue import Watch, fault
from tests.faults.live import TASKS, Ground, Hold

AS_UNDISTURBED = "the rows of an undisturbed night, nothing left in staging, no object too many"
pytestmark = [pytest.mark.live, pytest.mark.slow]


@pytest.fixture(autouse=True)
def nothing_held(faults_ground: Ground) -> Iterator[None]:
    """No lock outlives its test."""
    yield
    faults_ground.release_all()


@fault(
    part="a worker",
    what="the process of a task is killed (SIGKILL), in each of the seven tasks of one night",
    seen="Process terminated by signal. Likely out of memory error (OOM)… signal_name=SIGKILL",
    recovery="each task retries by itself, after 30 s",
    after=AS_UNDISTURBED,
)
def test_every_task_killed_once(faults_ground: Ground, watch: Watch) -> None:
    ground = faults_ground
    night = ground.photos("each-task-killed", 24, large=True)
    before = ground.keys()

    def kill(task: str, held: Hold) -> None:
        held.await_blocked()
        ground.end(ground.process(night, task))
        held.release()

    held = ground.hold("run")
    ground.start(night)
    held.await_blocked()
    looked = ground.hold("run_photo", mode="ACCESS EXCLUSIVE")
    kill("health_check", held)
    kill("fetch", looked)
    ground.end(ground.decoding(night))
    ground.decoding(night, attempt=2)  # it has read what the next hold keeps it from reading
    held = ground.hold("model", mode="ACCESS EXCLUSIVE")
    held.await_blocked()
    written = ground.hold("prediction")
    kill("shards.classify", held)
    reported = ground.hold("report")
    kill("persist", written)
    held = ground.hold("alert")
    kill("generate_report", reported)
    kill("alert_on_drift", held)
    ground.await_end(night)

    assert {task: found["try_number"] for task, found in ground.instances(night).items()} == dict.fromkeys(TASKS, 2)
    for task in TASKS:
        watch.check_seen(ground.log(night, task, attempt=1))
    ground.check_as_undisturbed(night, before=before)


@fault(
    part="a worker",
    what="a whole worker is killed (SIGKILL) while it decodes: the task and the process that supervises it",
    seen="Task did not emit heartbeat within time limit (… seconds) and will be terminated",
    recovery="the task retries by itself, once Airflow has missed its heartbeat for 300 s",
    after=AS_UNDISTURBED,
)
def test_a_whole_worker_killed(faults_ground: Ground, watch: Watch) -> None:
    ground = faults_ground
    night = ground.photos("worker-killed", 24, large=True)
    before = ground.keys()
    ground.start(night)
    task = ground.decoding(night)
    supervising = task.parent()
    assert supervising is not None
    ground.end(supervising, task)
    ground.await_end(night)
    assert ground.instances(night)["shards.validate"]["try_number"] == 2
    watch.check_seen(ground.event(night, "heartbeat timeout"))
    ground.check_as_undisturbed(night, before=before)


@fault(
    part="a worker",
    what="only the process that supervises persist is killed: its task goes on unseen, and a second try begins",
    seen="Another night is publishing; this one waits for it",
    recovery="the second try begins by itself, waits, and finds the night published",
    after=AS_UNDISTURBED,
)
def test_a_task_that_goes_on_unseen(faults_ground: Ground, watch: Watch) -> None:
    ground = faults_ground
    night = ground.photos("unseen", 4)
    before = ground.keys()
    held = ground.hold("prediction")
    ground.start(night)
    held.await_blocked()
    unseen = ground.process(night, "persist")
    supervising = unseen.parent()
    assert supervising is not None
    supervising.kill()
    ground.process(night, "persist", attempt=2)
    ground.await_publishing_waits()
    assert unseen.is_running()
    held.release()
    ground.await_end(night)
    watch.check_seen(ground.log(night, "persist", attempt=2))
    ground.await_gone([unseen])
    ground.check_as_undisturbed(night, before=before)


@fault(
    part="the scheduler",
    what="the scheduler is killed (SIGKILL) while the night is being written",
    seen="Reset the following 1 orphaned TaskInstances: … refund_nightly.persist",
    recovery="its supervisor starts it again, and it begins the task a second time; where the first try still writes, "
    "the second waits for it",
    after=AS_UNDISTURBED,
)
def test_the_scheduler_killed(faults_ground: Ground, watch: Watch) -> None:
    ground = faults_ground
    night = ground.photos("scheduler-killed", 4)
    before = ground.keys()
    held = ground.hold("prediction")
    ground.start(night)
    held.await_blocked()
    first = ground.process(night, "persist")
    ground.kill_service("scheduler")
    ground.process(night, "persist", attempt=2)
    held.release()
    ground.await_end(night)
    ground.await_gone([first])
    watch.check_seen(ground.service_log("scheduler"))
    # killed while it queues tasks, its workers keep its connection and lock: Postgres ends that
    assert ground.driver.airflow_sql("SHOW idle_in_transaction_session_timeout") == [("1min",)]
    ground.check_as_undisturbed(night, before=before)


@fault(
    part="the API server",
    what="Airflow's API server is killed (SIGKILL) while the night is being written",
    seen="exited: api-server (terminated by SIGKILL; not expected)",
    recovery="its supervisor starts it again; tasks ask for two minutes until it answers, and go on",
    after=AS_UNDISTURBED,
)
def test_the_api_server_killed(faults_ground: Ground, watch: Watch) -> None:
    ground = faults_ground
    night = ground.photos("api-server-killed", 4)
    before = ground.keys()
    held = ground.hold("prediction")
    ground.start(night)
    held.await_blocked()
    ground.kill_service("api-server")
    # Tasks give no sign of life meanwhile. Airflow bears that for 300 s, this stack for 20 s.
    later = "UPDATE task_instance SET last_heartbeat_at = now() + interval '280 s' WHERE task_id = 'persist'"
    ground.as_superuser(later, database="airflow")
    held.release()
    ground.await_end(night)
    assert {task: found["try_number"] for task, found in ground.instances(night).items()} == dict.fromkeys(TASKS, 1)
    watch.check_seen(ground.service_log("supervisord"))
    ground.check_as_undisturbed(night, before=before)


@fault(
    part="S3",
    what="the S3 server stops while photos are downloaded, and comes back",
    seen="ObjectStoreUnavailableError: S3 at …",
    recovery="the task retries by itself, after 30 s",
    after=AS_UNDISTURBED,
)
def test_s3_stopped_in_the_middle(faults_ground: Ground, watch: Watch) -> None:
    ground = faults_ground
    night = ground.photos("s3-stopped", 24, large=True)
    before = ground.keys()
    ground.start(night)
    try:
        with ground.suspended(ground.decoding(night)):  # until S3 is gone, it cannot be through with it
            ground.supervisor.stop("s3")
        ground.await_state(night, "shards.validate", "up_for_retry")
    finally:
        ground.restart_s3()
    ground.await_end(night)
    tasks = ground.driver.api("GET", f"{DAG}/tasks")["tasks"]
    assert {(task["retries"], task["retry_exponential_backoff"] > 0) for task in tasks} == {(3, True)}
    watch.check_seen(ground.log(night, "shards.validate", attempt=1))
    ground.check_as_undisturbed(night, before=before)


@fault(
    part="people",
    what="a run is marked failed by hand while it writes; later it is cleared, and once it is green cleared again",
    seen="This run is published already: nothing to do",
    recovery="clear the run; clearing a published one changes nothing",
    after=AS_UNDISTURBED,
)
def test_a_run_marked_failed_and_cleared(faults_ground: Ground, watch: Watch) -> None:
    ground = faults_ground
    night = ground.photos("by-hand", 4)
    before = ground.keys()
    held = ground.hold("prediction")
    ground.start(night)
    held.await_blocked()
    writing = ground.process(night, "persist")
    ground.mark_failed(night)
    ground.await_gone([writing])
    held.release()
    assert ground.rows(night)["run_photo"] == []
    ground.clear(night)
    ground.await_end(night)
    ground.check_as_undisturbed(night, before=before)
    published = ground.rows(night)

    ground.clear(night, "fetch")
    ground.await_end(night)
    watch.check_seen(ground.log(night, "fetch", attempt=ground.instances(night)["fetch"]["try_number"]))
    assert ground.rows(night) == published
    assert ground.staged() == []
