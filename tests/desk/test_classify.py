"""The routes that classify: the shape of their answers, errors in one form, and what is kept of a photo."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from refund.desk.answers import BatchAnswer, ClassifyAnswer
from refund.errors import DecoderPoolError, RetriableRunError
from refund.store.database import Database
from refund.store.objects import ObjectStore
from tests.desk.conftest import DeskWorld, desk_in
from tests.night.conftest import World
from tests.night.factories import jpeg
from tests.postgres import free_port


@pytest.fixture(scope="module")
def shared_desk(shared_world: World) -> Iterator[DeskWorld]:
    with desk_in(shared_world, desk_requests_per_minute=10_000) as made:
        yield made


@pytest.fixture(scope="module")
def client(shared_desk: DeskWorld) -> Any:
    return shared_desk.sign_in("ana")


def post(client: Any, *photos: tuple[str, bytes], query: str = "", **form: str) -> Any:
    files = [("image", (name, body, "image/jpeg")) for name, body in photos]
    return client.post(f"/api/classify{query}", files=files, data=form)


def post_batch(client: Any, *photos: tuple[str, bytes], query: str = "", **form: str) -> Any:
    files = [("images", (name, body, "image/jpeg")) for name, body in photos]
    return client.post(f"/api/classify/batch{query}", files=files, data=form)


def trials_of(world: World, answer: Any) -> list[tuple[Any, ...]]:
    """All but time and number, by number."""
    request_id = answer.headers["x-request-id"]
    return world.rows(
        "SELECT tried_by, filename, outcome, reason, category, decision, model, kept_key FROM refund.trial "
        f"WHERE request_id = '{request_id}' ORDER BY trial_id"
    )


def stored(world: World, folder: str = "kept/") -> list[str]:
    return [item.key for item in world.services.objects.list(folder)]


# --- one photo --------------------------------------------------------------------------------------------------------


def test_the_answer_has_the_shape_that_openapi_tells(client: Any, shared_world: World) -> None:
    answer = post(client, ("cup.jpg", jpeg(1)))
    assert answer.status_code == 200
    told = answer.json()
    ClassifyAnswer.model_validate(told, strict=False)
    assert set(told) == set(ClassifyAnswer.model_fields) - {"note"}
    assert (told["status"], told["filename"], told["model"]) == ("success", "cup.jpg", "tiny@1")
    assert told["request_id"] == answer.headers["x-request-id"]
    assert told["image"] == {
        "format": "JPEG",
        "width_px": 320,
        "height_px": 240,
        "size_bytes": len(jpeg(1)),
        "sha256": told["image"]["sha256"],
    }
    assert len(told["predictions"]) == 5
    best = told["predictions"][0]
    assert best["confidence_percentage"] == round(100 * best["confidence"], 2)
    scores = [each["score"] for each in told["category_scores"]]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=1e-4)
    assert told["category_scores"][0] == {"category": told["category"], "score": told["category_score"]}
    assert told["kept_key"] is None
    found = shared_world.rows(
        f"SELECT tried_by, filename, category FROM refund.trial WHERE trial_id = {told['trial_id']}"
    )
    assert found == [("ana", "cup.jpg", told["category"])]


@pytest.mark.parametrize(("query", "form"), [("?top_k=3", {}), ("", {"top_k": "3"}), ("?top_k=3", {"top_k": "3"})])
def test_top_k_comes_in_query_or_form(client: Any, query: str, form: dict[str, str]) -> None:
    assert len(post(client, ("cup.jpg", jpeg(1)), query=query, **form).json()["predictions"]) == 3


@pytest.mark.parametrize(
    ("query", "form", "message"),
    [
        ("?top_k=0", {}, "query.top_k: Input should be greater than or equal to 1"),
        ("?top_k=11", {}, "query.top_k: Input should be less than or equal to 10"),
        ("?top_k=many", {}, "query.top_k: Input should be a valid integer, unable to parse string as an integer"),
        ("", {"top_k": "0"}, "top_k must be a whole number from 1 to 10, got '0'."),
        ("", {"top_k": "1; DROP TABLE t"}, "top_k must be a whole number from 1 to 10, got '1; DROP TABLE t'."),
        ("", {"top_k": "٣"}, "top_k must be a whole number from 1 to 10, got '٣'."),
        ("", {"keep": "<b>"}, "keep must be true or false, got '<b>'."),
        ("?top_k=3", {"top_k": "4"}, "top_k is 3 in the query and 4 in the form."),
    ],
)  # fmt: skip
def test_bad_fields_are_named(client: Any, query: str, form: dict[str, str], message: str) -> None:
    answer = post(client, ("cup.jpg", jpeg(1)), query=query, **form)
    assert answer.status_code == 422
    told = answer.json()
    assert (told["status"], told["error"], told["message"]) == ("error", "invalid", message)
    assert told["what_to_do"].startswith("Correct the field named; docs/api.md lists ")


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "empty_file"),
        (b"just text", 415, "not_an_image"),
        (b"%PDF-1.7 ...", 415, "unsupported_format"),
        (jpeg(1)[:5000], 422, "truncated"),
        (jpeg(1, width=20, height=20), 422, "too_small"),
    ],
)
def test_a_rejected_photo_is_told_why_and_written_down(
    client: Any, shared_world: World, body: bytes, status: int, reason: str
) -> None:
    answer = post(client, ("bad.jpg", body))
    assert answer.status_code == status
    told = answer.json()
    assert (told["status"], told["error"], told["filename"]) == ("error", reason, "bad.jpg")
    assert told["what_to_do"] == "docs/reason_codes.md says what each reason means and what helps."
    assert trials_of(shared_world, answer) == [("ana", "bad.jpg", "rejected", reason, None, None, None, None)]


# --- a batch ----------------------------------------------------------------------------------------------------------


def test_a_bad_file_never_fails_the_others(client: Any, shared_world: World) -> None:
    answer = post_batch(client, ("1.jpg", jpeg(1)), ("2.jpg", b"just text"), ("3.jpg", jpeg(3)), top_k="2")
    assert answer.status_code == 200
    told = answer.json()
    BatchAnswer.model_validate(told)
    assert told["status"] == "partial"
    assert [each["filename"] for each in told["results"]] == ["1.jpg", "2.jpg", "3.jpg"]
    assert [each["status"] for each in told["results"]] == ["success", "error", "success"]
    assert [len(each.get("predictions", ())) for each in told["results"]] == [2, 0, 2]
    assert told["valid"] == ["1.jpg", "3.jpg"]
    assert told["invalid"] == [{"filename": "2.jpg", "error": "not_an_image", "message": told["results"][1]["message"]}]
    assert [(row[1], row[2]) for row in trials_of(shared_world, answer)] == [
        ("1.jpg", "classified"),
        ("2.jpg", "rejected"),
        ("3.jpg", "classified"),
    ]


def test_a_batch_is_answered_as_its_photos_alone_would_be(client: Any) -> None:
    bodies = [jpeg(seed) for seed in range(10)]
    told = post_batch(client, *((f"{number}.jpg", body) for number, body in enumerate(bodies))).json()
    assert told["status"] == "success"
    alone = [post(client, (f"{number}.jpg", body)).json() for number, body in enumerate(bodies)]
    passing = ("timing", "trial_id", "request_id")
    assert [{name: value for name, value in each.items() if name not in passing} for each in told["results"]] == [
        {name: value for name, value in each.items() if name not in passing} for each in alone
    ]


def test_a_batch_of_bad_files_alone_is_an_error_of_each(client: Any) -> None:
    told = post_batch(client, ("a.txt", b"x"), ("b.txt", b"y")).json()
    assert (told["status"], told["valid"], len(told["invalid"])) == ("error", [], 2)


def test_eleven_photos_are_refused_as_a_whole(client: Any, shared_world: World) -> None:
    answer = post_batch(client, *((f"{number}.jpg", jpeg(1)) for number in range(11)))
    assert answer.status_code == 413
    assert answer.json()["error"] == "too_many_files"
    assert trials_of(shared_world, answer) == []


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_nothing_of_an_upload_stays_unless_asked(
    shared_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = stored(shared_world, "")
    with desk_in(shared_world) as desk:
        post(desk.sign_in(), ("cup.jpg", jpeg(1)))
        for path in tmp_path.rglob("*"):
            assert not path.is_file() or not any(path.read_bytes()[128:]), f"{path} holds pixels"
    assert list(tmp_path.rglob("*")) == []
    assert stored(shared_world, "") == before


@pytest.mark.parametrize("name", ["cup.jpg", "<b>ü/../'; DROP %2e%2e\N{RIGHT-TO-LEFT OVERRIDE}.jpg", "." * 300])
def test_an_upload_is_kept_where_its_sender_asks_for_it(client: Any, shared_world: World, name: str) -> None:
    answer = post(client, (name, jpeg(2)), keep="true")
    key = answer.json()["kept_key"]
    assert key in stored(shared_world)
    folder, day, number, safe = key.split("/")
    assert (folder, len(day), len(number)) == ("kept", 10, 36)
    assert safe.isascii()
    assert shared_world.services.objects.get(key) == jpeg(2)
    assert trials_of(shared_world, answer)[0][-1] == key


def test_keep_may_be_asked_in_the_query_and_for_a_batch(client: Any, shared_world: World) -> None:
    told = post_batch(client, ("1.jpg", jpeg(1)), ("2.jpg", b"text"), query="?keep=true").json()
    keys = [each["kept_key"] for each in told["results"]]
    assert set(keys) <= set(stored(shared_world))
    assert None not in keys


# --- faults beside the photo ------------------------------------------------------------------------------------------


def test_a_verdict_is_given_though_postgres_and_the_bucket_are_gone(
    shared_desk: DeskWorld, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert post(client, ("cup.jpg", jpeg(1))).status_code == 200
    engine = shared_desk.app.state.desk.engine
    gone = Database(replace(shared_desk.services.database.access, port=free_port()))
    with monkeypatch.context() as patch:
        patch.setattr(engine._recorder._trials, "_database", gone)
        engine._recorder._trials.close()
        away = ObjectStore(replace(shared_desk.services.objects.access, endpoint_url=f"http://127.0.0.1:{free_port()}"))
        patch.setattr(engine, "services", replace(engine.services, objects=away))
        answer = post(client, ("cup.jpg", jpeg(1)), keep="true")
        told = answer.json()
        assert (answer.status_code, told["trial_id"], told["kept_key"]) == (200, None, None)
        assert told["note"] == "The photo could not be kept. The verdict could not be written to the history."
        assert told["category"]
    assert post(client, ("cup.jpg", jpeg(1))).json()["trial_id"] is not None


def test_so_many_photos_a_minute_and_no_more(shared_world: World) -> None:
    with desk_in(shared_world, desk_requests_per_minute=3) as desk:
        client = desk.sign_in("ana")
        assert post_batch(client, ("1.jpg", jpeg(1)), ("2.jpg", jpeg(2))).status_code == 200
        answer = post_batch(client, ("1.jpg", jpeg(1)), ("2.jpg", jpeg(2)))
        assert (answer.status_code, answer.json()["error"]) == (429, "too_many_requests")
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert post(client, ("1.jpg", jpeg(1))).status_code == 429
        assert post(desk.sign_in("bob"), ("1.jpg", jpeg(1))).status_code == 200


def test_without_a_champion_the_answer_is_503(shared_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from refund.errors import NoModelError

    def none(wanted: str) -> Any:
        raise NoModelError(wanted=wanted)

    with desk_in(shared_world) as desk:
        monkeypatch.setattr(desk.services.registry, "resolve", none)
        answer = post(desk.sign_in(), ("1.jpg", jpeg(1)))
        assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")
        answer = post_batch(desk.sign_in(), ("1.jpg", jpeg(1)), ("2.jpg", jpeg(2)))
        assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")


def test_a_batch_of_which_nothing_could_be_looked_at_is_503_and_may_be_sent_again(shared_world: World) -> None:
    with desk_in(shared_world, max_bytes=100_000) as desk:
        client = desk.sign_in()
        assert post(client, ("1.jpg", jpeg(1))).status_code == 200
        for lane in desk.app.state.desk.engine._lanes:
            lane._decoder = _no_decoder
        answer = post_batch(client, ("1.jpg", jpeg(1)), ("2.jpg", jpeg(2)))
        assert (answer.status_code, answer.json()["error"]) == (503, "decoder_ended")
        assert answer.headers["retry-after"] == "2"
        answer = post_batch(client, ("1.jpg", jpeg(1)), ("large.jpg", bytes(100_001)))  # that one has its verdict
        assert answer.status_code == 200
        assert [each["error"] for each in answer.json()["invalid"]] == ["decoder_ended", "file_too_large"]


def _no_decoder(size: tuple[int, int]) -> Any:
    raise DecoderPoolError("out of memory")


def test_an_upload_that_cannot_be_kept_is_one_line_of_the_log(
    shared_desk: DeskWorld, client: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise RetriableRunError("the bucket says:\n2026-11-23 forged line")

    monkeypatch.setattr(shared_desk.app.state.desk.engine, "keep", refuse)
    assert post(client, ("cup.jpg", jpeg(1)), keep="true").json()["note"] == "The photo could not be kept."
    said = "An upload could not be kept: the bucket says: 2026-11-23 forged line"
    assert said in [record.getMessage() for record in caplog.records]
