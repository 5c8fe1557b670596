"""The worker killed with SIGKILL in each task, at moments drawn by seed and at every word it says to Postgres."""

from __future__ import annotations

import random
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import psutil
import pytest

from refund.night.services import NightRun, open_services
from refund.params import NightParams
from refund.settings import DatabaseAccess
from tests.faults.catalogue import Watch, fault
from tests.faults.pg_proxy import CLOSES_RUN, postgres_proxy
from tests.faults.stage import STAGES, Ended, Worker
from tests.faults.tables import night_tables
from tests.faults.undisturbed import RUN_ID, await_no_process, check_clean, fill, staging_folder, through, undisturbed
from tests.night.conftest import DAY, World

ORDER = ("health_check", "fetch", "validate", "classify", "persist", "generate_report", "alert_on_drift")
KILLS = 4  # moments per task
SAME = "the rows of an undisturbed night; nothing left in staging, packs, bucket, temporary folder or process list"
SEEN = "exit code -9"
BY_ITSELF = "Airflow starts the task again by itself"


@dataclass
class Night:
    """One night of a single shard: the task under test in workers of its own, the others here."""

    world: World
    worker: Worker
    run: NightRun
    shard: str = ""

    def start(self, task: str) -> subprocess.Popen[str]:
        return self.worker.start(task, self.shard)

    def seconds(self, task: str) -> float:
        """How long the task takes here and now, from the beginning of its work to its end."""
        process = self.start(task)
        begun = time.monotonic()
        ended = self.worker.end(process)
        assert ended.code == 0, ended.said
        return time.monotonic() - begun

    def do(self, tasks: Sequence[str]) -> None:
        for task in tasks:
            result = STAGES[task](self.run, self.world.services, self.shard)
            if task == "fetch":
                (self.shard,) = result


def night(world: World, access: DatabaseAccess | None = None) -> Night:
    run = NightRun(run_id=RUN_ID, run_date=DAY, params=NightParams())
    with through(world, access or world.services.database.access) as reached:
        worker = Worker(run, reached.services, temporary=world.folder / "tmp")
    return Night(world=world, worker=worker, run=run)


def kill(process: subprocess.Popen[str]) -> Ended:
    """SIGKILL; its children must end by themselves, whoever they are."""
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.kill()
    out, said = process.communicate(timeout=60)
    _, alive = psutil.wait_procs(children, timeout=15)
    assert not alive, "a decoding process outlives its worker"
    return Ended(code=process.returncode, result=out, said=said)


def killed_at_moments(world: World, task: str, watch: Watch) -> None:
    """The night with its task killed `KILLS` times, each time started again, then left to end."""
    fill(world)
    disturbed = night(world)
    place = ORDER.index(task)
    disturbed.do(ORDER[:place])
    moments = random.Random(task)
    limit_s = disturbed.seconds(task)
    killed: list[int] = []
    while len(killed) < KILLS or -9 not in killed:
        process = disturbed.start(task)
        time.sleep(moments.uniform(0, limit_s))  # nothing is awaited here: the moment is meant to be any
        killed.append(kill(process).code)
        if len(killed) >= KILLS:  # and none met it at work: it takes less time now than when it was measured
            limit_s /= 2
    watch.check_seen(f"exit code {min(killed)}")
    ended = disturbed.worker.end(disturbed.start(task))  # where the dead left things
    assert ended.code == 0, ended.said
    if task == "fetch":
        (disturbed.shard,) = ended.result
    disturbed.do(ORDER[place + 1 :])
    assert night_tables(world.roles.app) == undisturbed(world)
    check_clean(world)


@pytest.mark.slow
@fault(part="a worker", what="killed (SIGKILL) in `health_check`", seen=SEEN, recovery=BY_ITSELF, after=SAME)
def test_killed_in_health_check(world: World, watch: Watch) -> None:
    killed_at_moments(world, "health_check", watch)


@pytest.mark.slow
@fault(part="a worker", what="killed (SIGKILL) in `fetch`", seen=SEEN, recovery=BY_ITSELF, after=SAME)
def test_killed_in_fetch(world: World, watch: Watch) -> None:
    killed_at_moments(world, "fetch", watch)


@pytest.mark.slow
@fault(
    part="a worker",
    what="killed (SIGKILL) in `validate`; its decoding processes end by themselves",
    seen=SEEN,
    recovery=BY_ITSELF,
    after=SAME,
)
def test_killed_in_validate(world: World, watch: Watch) -> None:
    killed_at_moments(world, "validate", watch)


@pytest.mark.slow
@fault(part="a worker", what="killed (SIGKILL) in `classify`", seen=SEEN, recovery=BY_ITSELF, after=SAME)
def test_killed_in_classify(world: World, watch: Watch) -> None:
    killed_at_moments(world, "classify", watch)


@pytest.mark.slow
@fault(
    part="a worker",
    what="killed (SIGKILL) in `generate_report`",
    seen=SEEN,
    recovery=BY_ITSELF,
    after=SAME,
)
def test_killed_in_generate_report(world: World, watch: Watch) -> None:
    killed_at_moments(world, "generate_report", watch)


@pytest.mark.slow
@fault(part="a worker", what="killed (SIGKILL) in `alert_on_drift`", seen=SEEN, recovery=BY_ITSELF, after=SAME)
def test_killed_in_alert_on_drift(world: World, watch: Watch) -> None:
    killed_at_moments(world, "alert_on_drift", watch)


@pytest.mark.slow
@fault(
    part="a worker",
    what="killed (SIGKILL) in `persist`: before it takes its turn, in a COPY, between two statements, and between the "
    "commit and the removal of the staged files",
    seen=SEEN,
    recovery=BY_ITSELF,
    after=SAME,
)
def test_killed_in_persist(world: World, watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    fill(world)
    points = (
        re.compile(rb"pg_try_advisory_xact_lock"),
        re.compile(rb"COPY staged_photo.*not_an_image", re.DOTALL),
        re.compile(rb"INSERT INTO refund\.decision"),
        CLOSES_RUN,
    )
    with postgres_proxy(world.roles.app) as proxy:
        disturbed = night(world, proxy.access)
        disturbed.do(ORDER[:4])
        for point in points:
            assert world.rows("SELECT count(*) FROM refund.run_photo") == [(0,)]
            proxy.hold_at(point, passing_half=point is not CLOSES_RUN)
            process = disturbed.start("persist")
            assert proxy.reached.wait(60)
            watch.check_seen(f"exit code {kill(process).code}")
            proxy.go_on.set()
        await_published(world)  # the commit was on its way when its sender died
    assert list(staging_folder(world).iterdir()) != []
    caplog.set_level("INFO")
    disturbed.do(ORDER[4:])
    assert "This run is published already; its rows stay as they are" in caplog.text
    assert night_tables(world.roles.app) == undisturbed(world)
    check_clean(world)


@pytest.mark.slow
@fault(
    part="a worker",
    what="killed (SIGKILL) in `validate` and in `classify` where the staging is a bucket: their files lie in the "
    "worker's temporary folder",
    seen=SEEN,
    recovery=BY_ITSELF,
    after=SAME,
)
def test_killed_with_a_bucket_for_staging(world: World, watch: Watch) -> None:
    fill(world)
    settings = replace(world.services.settings, staging_root=f"s3://{world.s3.bucket}/staging")
    with open_services(settings=settings, s3=world.s3, database=world.roles.app) as services:
        disturbed = night(replace(world, services=services))
        disturbed.do(ORDER[:2])
        for task in ("validate", "classify"):
            process = disturbed.start(task)
            deadline = time.monotonic() + 60
            while not list((world.folder / "tmp").glob("refund-staged-*/*")):  # it has files in its hands
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.005)  # between two looks
            watch.check_seen(f"exit code {kill(process).code}")
            assert list((world.folder / "tmp").iterdir()) != []
            assert disturbed.worker.end(disturbed.start(task)).code == 0
            assert list((world.folder / "tmp").iterdir()) == []
        assert disturbed.worker.end(disturbed.start("persist")).code == 0
        disturbed.do(ORDER[5:])
    assert night_tables(world.roles.app) == undisturbed(world)
    check_clean(world)


def await_published(world: World) -> None:
    deadline = time.monotonic() + 30
    while world.rows("SELECT state FROM refund.run") != [("published",)]:
        assert time.monotonic() < deadline, "the commit that was sent never arrived"


@pytest.mark.slow
def test_no_decoding_process_outlives_its_worker(world: World) -> None:
    """Killed exactly while its decoding interpreter is there."""
    fill(world)
    disturbed = night(world)
    disturbed.do(ORDER[:2])
    process = disturbed.start("validate")
    worker = psutil.Process(process.pid)
    deadline = time.monotonic() + 60
    while not (decoding := worker.children(recursive=True)):
        assert time.monotonic() < deadline
        time.sleep(0.005)  # between two looks
    process.kill()
    process.communicate(timeout=60)
    assert psutil.wait_procs(decoding, timeout=15)[1] == []
    await_no_process(str(world.folder))
