"""The engine: the night's own verdicts for photos that come one by one, and what may go wrong beside them."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from refund.desk.champion import Champion
from refund.desk.engine import Engine
from refund.desk.lanes import MOST_WAITING, Job, Waiting
from refund.desk.problems import DeskError
from refund.desk.recorder import Recorder
from refund.desk.verdict import Verdict
from refund.errors import DecoderPoolError, ModelArtefactError, ReasonCode
from refund.imaging import pool as pool_module
from refund.model.card import CARD_FILE
from refund.store.database import Database
from tests.imaging.test_pool_hostile import MARK, TAKEN_OVER
from tests.night.conftest import World
from tests.night.factories import jpeg, write_model
from tests.postgres import free_port
from tests.store.test_trials import REJECTED, TRIAL

PATIENCE_S = 60.0


@contextmanager
def engine_of(world: World, **settings: Any) -> Iterator[Engine]:
    services = replace(world.services, settings=replace(world.services.settings, **settings))
    with Engine(services) as engine:
        yield engine


@pytest.fixture
def engine(shared_world: World) -> Iterator[Engine]:
    with engine_of(shared_world) as made:
        yield made


@pytest.fixture
def decoders_that_obey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in tests/imaging/test_pool_hostile.py: decoders that a photo has taken over."""
    (tmp_path / "sitecustomize.py").write_text(TAKEN_OVER)
    scrubbed = pool_module._scrubbed

    def with_folder(environ: os._Environ[str]) -> dict[str, str]:
        kept = scrubbed(environ)
        return {**kept, "PYTHONPATH": os.pathsep.join([str(tmp_path), kept["PYTHONPATH"]])}

    monkeypatch.setattr(pool_module, "_scrubbed", with_folder)


def one(engine: Engine, body: bytes, top_k: int = 5) -> Verdict:
    return engine.classify([(body, top_k)])[0].result(PATIENCE_S)


def wait_until(holds: Callable[[], Any], what: str) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up_at, f"waited in vain until {what}"
        time.sleep(0.01)


def below() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def test_the_verdict_is_that_of_a_night(shared_world: World) -> None:
    bodies = {shared_world.put(f"R-1/{seed}.jpg", jpeg(seed)): jpeg(seed) for seed in range(12)}
    shared_world.night("run-1")
    found = shared_world.rows(
        "SELECT key, predicted_category, category_score, decision, class_id, confidence FROM reporting.photos"
    )
    assert len(found) == 12
    with engine_of(shared_world) as engine:
        futures = dict(zip(bodies, engine.classify([(body, 1) for body in bodies.values()]), strict=True))
        for key, category, score, decision, class_id, confidence in found:
            verdict = futures[key].result(PATIENCE_S)
            assert verdict.scored is not None
            (top,) = verdict.scored.top
            judged = verdict.scored.decision
            assert (judged.category, judged.kind.value, top.class_id) == (category, decision, class_id)
            assert (judged.score, top.confidence) == pytest.approx((score, confidence), abs=1e-5)
            assert verdict.model == "tiny@1"


def test_nothing_runs_before_the_first_photo_and_nothing_after_the_end(
    shared_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    threads, children = threading.active_count(), below()
    with engine_of(shared_world) as engine:
        assert (threading.active_count(), below()) == (threads, children)
        assert one(engine, jpeg(1)).ok
        engine.record(TRIAL).result(PATIENCE_S)
        assert len(below()) > len(children)
    assert below() == children
    assert not list(tmp_path.iterdir())
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("desk-")]
    with pytest.raises(DeskError) as caught:
        engine.classify([(jpeg(1), 5)])
    assert (caught.value.status, caught.value.error) == (503, "closing")
    assert str(caught.value) == "This server is shutting down."


def test_no_pixel_of_a_photo_is_left_in_the_decoders_file_when_its_verdict_is_told(engine: Engine) -> None:
    seen: list[bool] = []

    def look(_: Future[Verdict]) -> None:  # in the lane's thread, as soon as there is a verdict
        lane = next(lane for lane in engine._lanes if lane is threading.current_thread())
        assert lane._pixels is not None
        seen.append(bool(lane._pixels[0].any()))

    (future,) = engine.classify([(jpeg(3), 5)])
    future.add_done_callback(look)
    assert future.result(PATIENCE_S).ok
    wait_until(lambda: seen, "the verdict was told")
    assert seen == [False]
    assert one(engine, jpeg(3)).scored == future.result().scored  # wiped after it was looked at, not before


def test_promotions_and_rollbacks_take_effect_without_a_restart(world: World) -> None:
    with engine_of(world) as engine:
        engine._champion._look_again_s = 0.0
        assert one(engine, jpeg(1)).model == "tiny@1"
        world.promote(world.register("2"))
        wait_until(lambda: one(engine, jpeg(1)).model == "tiny@2", "the promotion took effect")
        world.rollback()
        wait_until(lambda: one(engine, jpeg(1)).model == "tiny@1", "the rollback took effect")
        larger = world.register("3", size=(160, 128))
        world.promote(larger)
        wait_until(lambda: one(engine, jpeg(1)).model == larger, "a model of another size took over")


def test_the_model_in_use_goes_on_while_the_registry_cannot_be_asked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine_of(world) as engine:
        assert one(engine, jpeg(1)).ok
        engine._champion._look_again_s = 0.0
        access = replace(world.services.database.access, port=free_port())
        monkeypatch.setattr(world.services.registry, "database", Database(access))
        assert one(engine, jpeg(2)).ok
        looking = engine._champion._looking
        assert looking is not None
        looking.result(PATIENCE_S)
        assert one(engine, jpeg(3)).model == "tiny@1"


def test_a_champion_that_keras_runs_is_refused_and_tensorflow_stays_out(world: World) -> None:
    folder = world.folder / "heavy"
    write_model(folder, version="9", seed=9)
    card = json.loads((folder / CARD_FILE).read_text())
    (folder / CARD_FILE).write_text(json.dumps({**card, "runtime": "keras"}))
    heavy = world.services.registry.register(folder, created_by="test").model
    with engine_of(world) as engine:
        engine._champion._look_again_s = 0.0
        assert one(engine, jpeg(1)).ok
        world.services.registry.promote("champion", heavy, by="test", reason="a try", override=True)

        def refused() -> bool:
            error = engine.classify([(jpeg(1), 5)])[0].exception(PATIENCE_S)
            return isinstance(error, DeskError) and error.error == "model_not_served"

        wait_until(refused, "the new champion was refused")
        error = engine.classify([(jpeg(1), 5)])[0].exception(PATIENCE_S)
        assert str(error) == "The champion tiny@9 runs in keras, which the desk does not load."
        world.rollback()
        wait_until(lambda: not refused(), "the desk served again")
    assert "tensorflow" not in sys.modules


class Mark:
    """Goes when the photo goes that it is on: `bytes` themselves know no weak references."""


class Body(bytes):
    """A photo that can be asked after."""

    mark: Mark


def test_photos_refused_for_want_of_a_model_are_let_go_and_the_refusal_does_not_grow(
    shared_world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    why = ModelArtefactError("model tiny@2 was altered\nforged line")

    def altered(_: str) -> Any:
        raise why

    alive: weakref.WeakSet[Mark] = weakref.WeakSet()
    with engine_of(shared_world) as engine, monkeypatch.context() as patch:
        patch.setattr(shared_world.services.registry, "resolve", altered)
        engine._champion._look_again()
        assert "The desk has no model it may use: model tiny@2 was altered forged line" in caplog.text
        looked = traceback.extract_tb(why.__traceback__)
        engine._champion._look_again_s = float("inf")
        told: set[int] = set()
        for _ in range(20):
            bodies = [Body(jpeg(1)) for _ in range(4)]
            for body in bodies:
                body.mark = Mark()
                alive.add(body.mark)
            errors = [future.exception(PATIENCE_S) for future in engine.classify([(body, 1) for body in bodies])]
            assert {(type(error), str(error)) for error in errors} == {(ModelArtefactError, str(why))}
            assert {id(error.__cause__) for error in errors if error} == {id(why)}
            told.update(id(error) for error in errors)
        assert id(why) not in told
        assert traceback.extract_tb(why.__traceback__) == looked
        del bodies, body
        gc.collect()
        assert errors  # whoever keeps an error keeps no photo with it
        assert not list(alive)


def test_an_error_told_again_is_the_same_in_all_but_its_way(shared_world: World) -> None:
    champion = Champion(shared_world.services, lanes=1)
    champion._refusal = DeskError(status=503, error="model_not_served", message="No.", what_to_do="Promote.")
    raised = []
    for _ in range(2):
        with pytest.raises(DeskError, match=r"^No\.$") as caught:
            champion.current()
        raised.append(caught.value)
    assert raised[0] is not raised[1]
    assert [(error.status, error.error, error.what_to_do) for error in raised] == [
        (503, "model_not_served", "Promote.")
    ] * 2
    assert champion._refusal.__traceback__ is None


def test_a_killed_decoder_is_replaced(engine: Engine) -> None:
    assert one(engine, jpeg(1)).ok
    for lane in engine._lanes:
        if lane._pool is not None and lane._pool.pid is not None:
            os.kill(lane._pool.pid, signal.SIGKILL)
    assert all(future.result(PATIENCE_S).ok for future in engine.classify([(jpeg(seed), 5) for seed in range(4)]))


def test_a_decoder_that_cannot_run_costs_the_photos_that_wait_for_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        msg = "out of memory"
        raise DecoderPoolError(msg)

    with monkeypatch.context() as patch:
        for lane in engine._lanes:
            patch.setattr(lane, "_decoder", fail)
        error = engine.classify([(jpeg(1), 5)])[0].exception(PATIENCE_S)
        assert isinstance(error, DeskError)
        assert (error.status, error.error) == (503, "decoder_ended")
        assert str(error) == "The isolated decoder ended while the photo waited for it; another is started."
    assert one(engine, jpeg(1)).ok


@pytest.mark.skipif(sys.platform != "linux" or (os.cpu_count() or 1) < 2, reason="one lane alone")
@pytest.mark.usefixtures("decoders_that_obey")
def test_a_photo_over_which_a_decoder_hangs_holds_up_its_own_lane_alone(shared_world: World) -> None:
    with engine_of(shared_world, desk_decode_timeout_s=2.0) as engine:
        assert all(future.result(PATIENCE_S).ok for future in engine.classify([(jpeg(seed), 5) for seed in range(2)]))
        (hanging,) = engine.classify([(MARK + b"spin", 5)])
        wait_until(hanging.running, "a lane took it")
        assert [one(engine, jpeg(seed)).ok for seed in range(8)] == [True] * 8
        assert not hanging.done()
        assert engine.works()
        facts = hanging.result(PATIENCE_S).facts
        assert (facts.reason, facts.detail) == (ReasonCode.DECODE_TIMEOUT, "decoding took longer than 2 seconds, twice")
        crashed = one(engine, MARK + b"segfault").facts
        assert crashed.reason is ReasonCode.DECODE_CRASHED
        assert one(engine, jpeg(9)).ok


def test_the_queue_is_bounded_and_takes_a_batch_whole_or_not_at_all() -> None:
    waiting = Waiting(lanes=2)
    jobs = [Job(body=b"", top_k=1) for _ in range(MOST_WAITING)]
    waiting.put(jobs[:-1])
    with pytest.raises(DeskError) as caught:
        waiting.put(jobs[-1:] * 2)
    assert (caught.value.status, caught.value.error) == (503, "busy")
    assert str(caught.value) == "63 photos wait for their turn already, at most 64 may."
    waiting.put(jobs[-1:])
    assert [len(waiting.take()) for _ in range(3)] == [8, 8, 8]
    assert len(waiting.close()) == MOST_WAITING - 24
    assert waiting.take() == []


def test_lanes_share_what_waits() -> None:
    waiting = Waiting(lanes=2)
    waiting.put([Job(body=b"", top_k=1) for _ in range(5)])
    assert [len(waiting.take()) for _ in range(3)] == [3, 1, 1]


def test_a_photo_that_nobody_waits_for_any_more_is_passed_over(engine: Engine) -> None:
    futures = engine.classify([(jpeg(seed), 5) for seed in range(20)])
    cancelled = [future for future in reversed(futures) if future.cancel()]
    assert all(future.result(PATIENCE_S).ok for future in futures if future not in cancelled)


def test_a_trial_that_cannot_be_written_takes_no_other_with_it(shared_world: World) -> None:
    recorder = Recorder(shared_world.services.database)
    with recorder._changed:  # so that all three wait together
        numbers = [recorder.add(trial) for trial in (TRIAL, replace(REJECTED, reason=None), REJECTED)]
    first, bad, last = (number.result(PATIENCE_S) for number in numbers)
    assert bad is None
    assert first is not None
    assert last is not None
    recorder.close()
    assert recorder.add(TRIAL).result(0) is None


def test_what_postgres_says_of_a_trial_goes_into_no_log(shared_world: World, caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder(shared_world.services.database)
    named = replace(REJECTED, reason=None, filename="R-77 Müller.jpg", request_id="a\nforged line")
    assert recorder.add(named).result(PATIENCE_S) is None
    recorder.close()
    (said,) = [record.getMessage() for record in caplog.records if record.name == "refund.desk.recorder"]
    assert said.startswith(
        "A trial could not be written: FatalRunError sqlstate=23514 table_name=trial constraint_name="
    )
    assert "ller" not in caplog.text
    assert "forged" not in caplog.text


def test_a_lane_that_has_not_moved_for_long_does_not_work(engine: Engine) -> None:
    assert not engine.works()  # nothing has run
    assert one(engine, jpeg(1)).ok
    assert engine.works()
    for lane in engine._lanes:
        lane._moved_at -= 71.0
    assert not engine.works()


def test_while_postgres_is_gone_trials_are_given_up(shared_world: World) -> None:
    recorder = Recorder(Database(replace(shared_world.services.database.access, port=free_port())))
    number: Future[int | None] = recorder.add(TRIAL)
    assert number.result(PATIENCE_S) is None
    recorder.close()
