"""Health, limits and models over REST."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from threading import Event, Thread
from typing import Any

import pytest

from refund import __version__
from refund.desk import probe as probe_module
from refund.desk.probe import Probe, desk_probe
from refund.desk.status import _installed
from refund.errors import AccessDeniedError, DecoderPoolError, SettingsError
from refund.store.database import EXPECTED_VERSION, Database
from refund.store.objects import ObjectStore
from refund.store.registry import Registry
from refund.store.s3_clients import Patience
from tests.conftest import free_port
from tests.desk.conftest import DeskWorld, desk_in
from tests.night.conftest import World

NOW = datetime(2026, 11, 22, 6, tzinfo=UTC)


@pytest.fixture(scope="module")
def desk(shared_world: World) -> Iterator[DeskWorld]:
    with desk_in(shared_world) as made:
        yield made


# --- health --------------------------------------------------------------------------------------------------------


def test_everything_works(desk: DeskWorld) -> None:
    answer = desk.sign_in(may_write=False).get("/api/health")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["status"], set(body)) == ("success", {"status", "checked_at", "parts"})
    assert {name: (part["state"], part["message"]) for name, part in body["parts"].items()} == {
        "database": ("ok", "Postgres answers, its schema is at 0009."),
        "bucket": ("ok", f"The bucket {desk.world.s3.bucket} can be listed."),
        "model": ("ok", "The champion is tiny@1."),
        "decoding": ("ok", "A picture was decoded in isolation and classified."),
    }
    assert all(0 <= part["seconds"] < 5 for part in body["parts"].values())


def test_a_check_leaves_no_trial(desk: DeskWorld) -> None:
    desk.sign_in().get("/api/health")
    assert desk.world.rows("SELECT count(*) FROM reporting.trials") == [(0,)]


def test_each_part_that_fails_is_told_and_none_of_its_secrets(world: World) -> None:
    s3 = replace(world.s3, endpoint_url=f"http://127.0.0.1:{free_port()}", secret_key="s3-secret-word")
    access = replace(world.roles.app, password="database-secret-word")
    database = Database(access)
    objects = ObjectStore(s3, patience=Patience(connect_s=0.5, tries=1))
    registry = Registry(objects=objects, database=database)
    services = replace(world.services, database=database, objects=objects, registry=registry)
    with desk_in(replace(world, services=services)) as desk:
        answer = desk.sign_in().get("/api/health")
    body = answer.json()
    assert (answer.status_code, body["error"]) == (503, "unhealthy")
    assert body["message"] == "Not working: database, bucket, model, decoding."
    assert body["what_to_do"] == "Mend what parts says; docs/operations.md has every error."
    assert body["request_id"] == answer.headers["x-request-id"]
    assert {part["state"] for part in body["parts"].values()} == {"failed"}
    assert "password authentication failed" in body["parts"]["database"]["message"]
    assert "Could not connect to the endpoint URL" in body["parts"]["bucket"]["message"]
    assert "secret-word" not in answer.text


def test_a_desk_without_connections_says_so_of_every_part() -> None:
    from fastapi.testclient import TestClient

    from refund.desk.app import create_app
    from refund.desk.auth import Visitor, guard
    from refund.desk.wiring import Desk

    def missing() -> None:
        msg = "there is no Airflow connection refund_db; expected one"
        raise SettingsError(msg)

    app = create_app(Desk(missing))  # type: ignore[arg-type]
    app.dependency_overrides[guard] = lambda: Visitor(name="ana", may_write=False)
    with TestClient(app) as client:
        answer = client.get("/api/health")
    assert answer.status_code == 503
    messages = {part["message"] for part in answer.json()["parts"].values()}
    assert messages == {"there is no Airflow connection refund_db; expected one"}


def test_without_a_champion_the_model_is_what_fails(world: World) -> None:
    with Database(world.roles.owner).connect() as connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM refund.model_alias_history")
    with desk_in(world) as desk:
        client = desk.sign_in()
        body = client.get("/api/health").json()
        assert body["message"] == "Not working: model, decoding."
        assert "champion" in body["parts"]["model"]["message"]
        assert client.get("/api/info").json()["model"] is None


@contextmanager
def held_lanes(desk: DeskWorld) -> Iterator[Event]:
    """Every lane takes photos and goes no further until the event is set."""
    engine = desk.app.state.desk.engine
    release = Event()

    def hang(size: tuple[int, int]) -> Any:
        release.wait(60)
        raise DecoderPoolError("released")

    kept = [lane._decoder for lane in engine._lanes]
    for lane in engine._lanes:
        lane._decoder = hang
    try:
        yield release
    finally:
        release.set()
        for lane, decoder in zip(engine._lanes, kept, strict=True):
            lane._decoder = decoder


def test_load_alone_makes_nobody_ill(shared_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_module, "QUEUE_PATIENCE_S", 0.2)
    with desk_in(shared_world) as desk:
        client = desk.sign_in()
        engine = desk.app.state.desk.engine
        probe = desk_probe(desk.app.state.desk)
        probe._kept_s = 0.0
        desk.app.state.probe = probe
        with held_lanes(desk) as release:
            engine.classify([(b"slow", 1)] * 4)
            for _ in range(3):
                part = client.get("/api/health").json()["parts"]["decoding"]
                said = "Busy: a picture waited 0.2 s among others, which are being classified."
                assert (part["state"], part["message"]) == ("ok", said)
            assert [job.body[:2] for job in engine._waiting._jobs].count(b"BM") == 1  # not one for each question
            for lane in engine._lanes:
                lane._moved_at -= 71.0
            answer = client.get("/api/health")
            assert (answer.status_code, answer.json()["message"]) == (503, "Not working: decoding.")
            said = "A picture waited 0.2 s, and no photo has been decoded for a minute or more."
            assert answer.json()["parts"]["decoding"]["message"] == said
            release.set()


def test_a_full_queue_makes_nobody_ill(shared_world: World) -> None:
    with desk_in(shared_world) as desk:
        client = desk.sign_in()
        engine = desk.app.state.desk.engine
        with held_lanes(desk):
            engine.classify([(b"slow", 1)])
            while not any(lane.works() for lane in engine._lanes):
                pass
            engine._waiting._most = len(engine._waiting._jobs)
            answer = client.get("/api/health")
            assert answer.status_code == 200
            said = "As many photos wait as may; they are being classified."
            assert answer.json()["parts"]["decoding"]["message"] == said


# --- the probe -----------------------------------------------------------------------------------------------------


def test_an_answer_is_given_again_for_a_moment() -> None:
    asked: list[str] = []
    probe = Probe({"part": lambda: asked.append("once") or "fine"}, kept_s=60)
    assert [probe.ask(lambda: NOW).parts["part"].message for _ in range(3)] == ["fine"] * 3
    assert asked == ["once"]


def test_after_that_moment_it_is_asked_anew() -> None:
    asked: list[str] = []
    probe = Probe({"part": lambda: asked.append("once") or "fine"}, kept_s=0)
    probe.ask(lambda: NOW)
    probe.ask(lambda: NOW)
    assert len(asked) == 2


def test_a_part_that_hangs_costs_its_patience_once_and_one_thread() -> None:
    released = Event()
    begun: list[str] = []

    def hang() -> str:
        begun.append("once")
        released.wait(60)
        return "fine"

    probe = Probe({"hangs": hang, "works": lambda: "fine"}, patience_s=0.2, kept_s=0)
    began = time.monotonic()
    for _ in range(2):
        found = probe.ask(lambda: NOW)
        assert not found.ok
        assert found.parts["works"].ok
        assert found.parts["hangs"].message.startswith("No answer for ")
        assert found.parts["hangs"].message.endswith(" s; expected one within 0 s.")
    assert time.monotonic() - began < 5
    assert begun == ["once"]
    released.set()


def test_who_asks_meanwhile_waits_for_the_same_answer() -> None:
    asked: list[str] = []
    probe = Probe({"part": lambda: asked.append("once") or "fine"}, kept_s=60)
    threads = [Thread(target=lambda: probe.ask(lambda: NOW)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked == ["once"]


def test_parts_are_asked_at_the_same_time() -> None:
    both = [Event(), Event()]

    def meet(mine: int) -> str:
        both[mine].set()
        return "met" if both[1 - mine].wait(10) else "alone"

    found = Probe({"one": lambda: meet(0), "other": lambda: meet(1)}, patience_s=15).ask(lambda: NOW)
    assert {part.message for part in found.parts.values()} == {"met"}


def test_the_text_of_an_error_that_nobody_foresaw_stays_in_the_log() -> None:
    def fail() -> str:
        msg = "password=hunter2"
        raise ValueError(msg)

    def refuse() -> str:
        raise AccessDeniedError("Postgres refused refund@db; correct the password")

    parts = Probe({"fails": fail, "refuses": refuse}).ask(lambda: NOW).parts
    assert parts["fails"].message == "It failed in a way that is told in Airflow's log alone."
    assert parts["refuses"].message == "Postgres refused refund@db; correct the password"


# --- info and models -----------------------------------------------------------------------------------------------


def test_info_names_limits_as_they_are_set(shared_world: World) -> None:
    with desk_in(shared_world, max_bytes=1000, desk_requests_per_minute=7) as desk:
        info = desk.sign_in(may_write=False).get("/api/info").json()
    assert (info["status"], info["version"]) == ("success", __version__)
    assert info["limits"] == {
        "max_bytes": 1000,
        "min_side_px": 32,
        "max_side_px": 4096,
        "formats": ["BMP", "GIF", "JPEG", "PNG", "WEBP"],
        "max_photos_per_batch": 10,
        "top_k_min": 1,
        "top_k_max": 10,
        "top_k_default": 5,
        "requests_per_minute": 7,
        "upload_timeout_s": 30.0,
        "decode_timeout_s": 5.0,
    }


def test_info_names_the_versions_of_what_runs_here(desk: DeskWorld) -> None:
    info = desk.sign_in(may_write=False).get("/api/info").json()
    assert info["versions"] == {
        "refund": __version__,
        "python": platform.python_version(),
        "airflow": metadata.version("apache-airflow"),
        "litert": metadata.version("ai-edge-litert"),
        "schema": EXPECTED_VERSION,
    }


def test_a_package_that_is_not_installed_has_no_version() -> None:
    assert _installed("a-package-that-nobody-has") is None


def test_info_names_categories_and_the_champion(desk: DeskWorld) -> None:
    info = desk.sign_in().get("/api/info").json()
    assert len(info["categories"]) == 23
    assert {"category": "bags_luggage", "name": "Bags & luggage", "always_reviewed": False} in info["categories"]
    assert [item["category"] for item in info["categories"] if item["always_reviewed"]] == ["not_a_product"]
    assert info["taxonomy_version"].count("-") == 1
    card = info["model"]
    assert (card["model"], card["precision"], card["input_width"]) == ("tiny@1", "float32", 224)
    assert not {"artefact_file", "uri", "labels_sha256", "built_with"} & set(card)


def test_models_are_listed_with_what_their_aliases_meant(world: World) -> None:
    world.promote(world.register("2"))
    world.rollback()
    with desk_in(world) as desk:
        answer = desk.sign_in(may_write=False).get("/api/models").json()
    assert [(model["model"], model["aliases"], model["state"]) for model in answer["models"]] == [
        ("tiny@2", [], "candidate"),
        ("tiny@1", ["champion"], "candidate"),
    ]
    assert [(change["action"], change["model"], change["by"], change["reason"]) for change in answer["history"]] == [
        ("promote", "tiny@1", "test", "better"),
        ("promote", "tiny@2", "test", "better"),
        ("rollback", "tiny@1", "test", "worse"),
    ]
    assert answer["history"][-1]["ended_at"] is None
