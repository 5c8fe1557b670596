"""Evaluating a model: the set is classified as the night would, measured, and kept with the version."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from refund.errors import LabelledSetError, NoModelError, ObjectStoreUnavailableError
from refund.lifecycle.evaluate import Evaluation, evaluate_model, set_digest
from refund.monitor.accuracy import compare_paired
from refund.night.services import Services
from refund.night.try_photos import try_photos
from refund.report.labels import category_label
from refund.store.evaluations import latest_common_evaluations
from refund.store.objects import ObjectStore
from tests.conftest import REPOSITORY
from tests.monitor.factories import make_verdict
from tests.night.factories import jpeg, write_model

SHOE, TENCH = "n04120489", "n01440764"


@pytest.fixture
def register(services: Services, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., str]:
    """Registers a tiny model under a name of this test and gives its key."""

    def make(version: str = "1", **given: Any) -> str:
        name = "".join(letter if letter.isalnum() else "_" for letter in request.node.name)[:60]
        folder = tmp_path / f"model-{version}"
        write_model(folder, name=name, version=version, **given)
        return services.registry.register(folder, created_by="test").model

    return make


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve photographs: eight shoes by folder, four fish by name."""
    folder = tmp_path / "photos"
    (folder / "shoes").mkdir(parents=True)
    for seed in range(8):
        (folder / "shoes" / f"{seed}.jpg").write_bytes(jpeg(seed))
    for seed in range(8, 12):
        (folder / f"{TENCH}_{seed}.jpg").write_bytes(jpeg(seed))
    return folder


def evaluate(services: Services, model: str, where: Path | str, threshold: float = 0.5) -> Evaluation:
    return evaluate_model(services, model=model, where=str(where), threshold=threshold, by="ada")


def rows(services: Services, sql: str) -> list[tuple[Any, ...]]:
    return services.repository.select(sql)[1]


def kept(services: Services, model: str) -> int:
    return int(rows(services, f"SELECT count(*) FROM refund.evaluation WHERE model = '{model}'")[0][0])


# --- what is measured and kept ---------------------------------------------------------------------------------------


def test_verdicts_are_those_of_the_night_and_are_kept_with_the_model_each_time(
    services: Services, register: Callable[..., str], photos: Path, tmp_path: Path
) -> None:
    model = register()
    done, again = (evaluate(services, model, photos, threshold=0.0) for _ in range(2))
    files = sorted(photos.rglob("*.jpg"))
    tried = try_photos(files, model_folder=tmp_path / "model-1", settings=services.settings, top_k=1)
    right = sum(photo.category == ("shoes" if "shoes" in photo.path else "not_a_product") for photo in tried)
    assert done.figures.accuracy.value == right / 12
    assert (done.photos, done.figures.photos, done.figures.top1_photos, done.model) == (12, 12, 4, model)
    auto = sum(photo.category != "not_a_product" for photo in tried)  # at threshold 0 nothing else goes to review
    assert done.figures.coverage.value == auto / 12
    (row,) = rows(
        services,
        "SELECT set_name, set_sha256, photos, classified, accuracy, taxonomy_version, threshold, evaluated_by, "
        f"plot_uri, figures -> 'left_out' FROM reporting.evaluations WHERE evaluation_id = {done.evaluation_id}",
    )
    assert row == (
        str(photos), done.set_sha256, 12, 12, right / 12, done.taxonomy_version, 0.0, "ada", done.plot_uri,
        {"rejected": {}, "duplicates": 0, "ignored": 0},
    )  # fmt: skip
    said = rows(
        services,
        "SELECT true_category, true_class_id, category FROM refund.evaluation_photo "
        f"WHERE evaluation_id = {done.evaluation_id}",
    )
    assert sorted(category for _, _, category in said) == sorted(str(photo.category) for photo in tried)
    assert {truth[:2] for truth in said} == {("shoes", None), ("not_a_product", TENCH)}

    name, _, version = model.partition("@")
    key = f"models/{name}/{version}/evaluations/{done.set_sha256[:8]}-{done.taxonomy_version}.png"
    assert done.plot_uri == again.plot_uri == services.objects.uri(key)
    with Image.open(io.BytesIO(services.objects.get(key))) as image:
        assert image.format == "PNG"
    assert again.evaluation_id > done.evaluation_id
    assert (again.figures, again.set_sha256) == (done.figures, done.set_sha256)
    assert kept(services, model) == 2


@pytest.mark.slow
def test_a_set_is_the_same_wherever_it_lies_and_whatever_the_input_size(
    services: Services, register: Callable[..., str], photos: Path
) -> None:
    large, small = register(), register("2", seed=3, size=(96, 64))
    for path in photos.rglob("*.jpg"):
        services.objects.put(f"set/{path.relative_to(photos).as_posix()}", path.read_bytes())
    here = evaluate(services, large, photos)
    there = evaluate(services, small, f"s3://{services.objects.bucket}/set/")
    assert here.set_sha256 == there.set_sha256
    common = latest_common_evaluations(services.database, candidate=small, current=large)
    assert common is not None
    assert compare_paired(common[0].verdicts, common[1].verdicts).accuracy.value == pytest.approx(
        there.figures.accuracy.value - here.figures.accuracy.value
    )


@pytest.mark.slow
def test_a_retired_model_may_be_evaluated(services: Services, register: Callable[..., str], photos: Path) -> None:
    model = register()
    services.registry.retire(model, by="ada", reason="too old")
    assert evaluate(services, model, photos).figures.photos == 12


@pytest.mark.slow
def test_a_plot_that_cannot_be_kept_is_a_warning(
    services: Services,
    register: Callable[..., str],
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = register()

    def refuse(*_: Any, **__: Any) -> None:
        raise ObjectStoreUnavailableError("the bucket is read-only")

    monkeypatch.setattr(ObjectStore, "put", refuse)
    with caplog.at_level(logging.WARNING):
        done = evaluate(services, model, photos)
    assert (done.plot_uri, kept(services, model)) == (None, 1)
    assert f"The reliability plot of {model} was not kept: the bucket is read-only" in caplog.text


# --- what is left out, and what is refused ---------------------------------------------------------------------------


def test_broken_missing_and_repeated_photographs_are_counted_and_left_out(
    services: Services, register: Callable[..., str], photos: Path
) -> None:
    (photos / "shoes" / "broken.jpg").write_bytes(jpeg(20)[:900])
    (photos / "shoes" / "text.png").write_bytes(b"not an image")
    (photos / "shoes" / "copy.jpg").write_bytes(jpeg(0))
    lines = [f"{path.relative_to(photos)},shoes" for path in sorted((photos / "shoes").iterdir())]
    (photos / "labels.csv").write_text("\n".join(["path,category", *lines, "gone.jpg,shoes"]))
    done = evaluate(services, register(), photos / "labels.csv")
    assert (done.photos, done.figures.photos, done.left_out.duplicates) == (11, 8, 1)
    assert done.left_out.to_dict() == {
        "rejected": {"not_an_image": 1, "truncated": 1, "vanished": 1}, "duplicates": 1, "ignored": 0,
    }  # fmt: skip
    assert {Path(place).name for place, _ in done.left_out.rejected} == {"broken.jpg", "text.png", "gone.jpg"}
    assert done.as_json()["rejected"][-1] == {
        "photo": str(photos / "gone.jpg"), "reason": "vanished: there is no such file",
    }  # fmt: skip


def test_one_photograph_with_two_labels_is_refused_and_nothing_kept(
    services: Services, register: Callable[..., str], photos: Path
) -> None:
    model = register()
    (photos / f"{SHOE}_again.jpg").write_bytes(jpeg(8))
    with pytest.raises(LabelledSetError) as caught:
        evaluate(services, model, photos)
    assert str(caught.value) == (
        f"{photos} has 1 fault, correct the labels: {photos}/{SHOE}_again.jpg (shoes, {SHOE}) is the same photograph "
        f"as {photos}/{TENCH}_8.jpg (not_a_product, {TENCH})"
    )
    assert kept(services, model) == 0


def test_a_set_without_one_usable_photograph_is_refused(
    services: Services, register: Callable[..., str], tmp_path: Path
) -> None:
    model = register()
    (tmp_path / "set" / "shoes").mkdir(parents=True)
    (tmp_path / "set" / "shoes" / "a.jpg").write_bytes(b"text")
    (tmp_path / "set" / "shoes" / "b.jpg").write_bytes(b"")
    with pytest.raises(LabelledSetError) as caught:
        evaluate(services, model, tmp_path / "set")
    assert str(caught.value) == (
        f"none of the 2 photographs of {tmp_path / 'set'} could be classified (1 empty_file, 1 not_an_image), for "
        f"example {tmp_path / 'set' / 'shoes' / 'a.jpg'}: not_an_image: the file begins with b'text', which "
        "no image does; expected one of JPEG, PNG, GIF, BMP, WEBP; expected images that the night would take"
    )
    assert kept(services, model) == 0


@pytest.mark.slow
def test_a_set_of_one_photograph_has_figures(services: Services, register: Callable[..., str], photos: Path) -> None:
    (photos / "labels.csv").write_text("path,category\nshoes/0.jpg,shoes\n")
    figures = evaluate(services, register(), photos / "labels.csv").figures
    assert figures.macro_f1.value in (0, 1)
    assert (figures.top1, figures.confusion.counts[-1][-1]) == (None, int(figures.accuracy.value))


def test_an_unknown_model_is_told_before_anything_is_read(services: Services) -> None:
    with pytest.raises(NoModelError) as caught:
        evaluate(services, "nosuch@1", "/nowhere")
    assert str(caught.value) == (
        "no model is registered as 'nosuch@1'; build one with: refund model build (see: refund model list)"
    )


def test_the_digest_of_a_set_knows_photographs_and_labels_not_answers_or_order() -> None:
    rows = [make_verdict(1, "a", "a"), make_verdict(2, "b", "a")]
    same = [make_verdict(2, "b", "b", score=0.1), make_verdict(1, "a", "b")]
    assert set_digest(rows) == set_digest(same)
    for other in (
        rows[:1],
        [rows[0], make_verdict(2, "c", "a")],
        [rows[0], make_verdict(2, "b", "a", true_class_id=None)],
    ):
        assert set_digest(other) != set_digest(rows)


# --- real networks on real photographs -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "columns", "accuracy", "macro_f1", "top1", "coverage", "auto_accuracy"),
    [
        ("standin_model", None, 0.90, 0.85, 0.84, 0.30, 0.90),
        ("int8_model", (1, 2), 0.90, 0.85, 0.84, 0.30, 0.90),
        ("fallback_model", (3, 4), 0.90, 0.82, 0.78, 0.30, 0.85),
    ],
)
def test_the_250_labelled_photographs(
    network: str,
    columns: tuple[int, int] | None,
    accuracy: float,
    macro_f1: float,
    top1: float,
    coverage: float,
    auto_accuracy: float,
    services: Services,
    shared: Path,
    request: pytest.FixtureRequest,
) -> None:
    folder = request.getfixturevalue(network)
    model = services.registry.register(folder, created_by="test").model
    figures = evaluate(services, model, shared / "images" / "imagenet").figures
    assert figures.photos == figures.top1_photos == 250
    assert figures.accuracy.value >= accuracy
    assert figures.macro_f1.value >= macro_f1
    assert figures.top1 is not None
    assert figures.top1.value >= top1
    assert figures.coverage.value >= coverage
    assert figures.auto_accuracy is not None
    assert figures.auto_accuracy.value >= auto_accuracy
    assert figures.ece.value <= 0.12
    if columns is not None:  # the table of docs/evaluation.md; other processors may round a photograph otherwise
        table = (REPOSITORY / "docs" / "evaluation.md").read_text(encoding="utf-8")
        for row in figures.categories:
            if row.recall is not None and row.coverage is not None:
                (cells,) = re.findall(
                    rf"^\| {re.escape(category_label(row.category))} \| (.+) \|$", table, re.MULTILINE
                )
                given = cells.split(" | ")
                assert int(given[0].rstrip("*")) == row.photos
                off = 1.01 / row.photos
                assert float(given[columns[0]]) == pytest.approx(row.recall.value, abs=off)
                assert float(given[columns[1]]) == pytest.approx(row.coverage.value, abs=off)
