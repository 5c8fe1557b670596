"""Example photos in the report: fetched, decoded in isolation and encoded anew, or left out with a reason."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace

import pytest
from PIL import Image

from refund.monitor.drift import CategoryMove, DriftResult, DriftStatus
from refund.night import generate_report, report_photos
from refund.night.generate_report import write_report
from refund.night.report_photos import PHOTOS_PER_CATEGORY, example_pictures, moved_categories
from tests.night.conftest import DAY, World

RUN = "scheduled__1"


def photograph(red: int, size: tuple[int, int] = (400, 300)) -> bytes:
    """A JPEG that says in its EXIF where it was taken."""
    exif = Image.Exif()
    exif[0x010E] = "CUSTOMER HOME"
    exif.get_ifd(0x8825)[1] = "N"
    buffer = io.BytesIO()
    image = Image.linear_gradient("L").resize(size).convert("RGB")
    Image.blend(image, Image.new("RGB", size, (red, 90, 30)), 0.5).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def moved(*categories: str, status: DriftStatus = DriftStatus.DRIFT, tonight: float = 0.6) -> DriftResult:
    return DriftResult(
        measure="category_shares",
        status=status,
        distance=0.5,
        threshold=0.1,
        p_value=0.001,
        tonight_photos=9,
        reference_photos=900,
        reference_nights=9,
        moves=tuple(CategoryMove(category=name, tonight_share=tonight, reference_share=0.1) for name in categories),
    )


def published(world: World, count: int) -> str:
    """A published night of photographs; returns the category of most of them."""
    for number in range(count):
        world.put(f"R-{number}/photo-{number}.jpg", photograph(40 * number))
    run = world.start(RUN)
    world.stage(run)
    world.finish(run)
    return str(world.rows("SELECT mode() WITHIN GROUP (ORDER BY category) FROM refund.decision")[0][0])


def test_only_categories_that_moved_and_are_there_tonight_are_shown() -> None:
    assert moved_categories([moved("a", "b", "c")]) == ["a", "b"]
    assert moved_categories([moved("a", status=DriftStatus.OK)]) == []
    assert moved_categories([moved("a", tonight=0.0), moved("b"), moved("b")]) == ["b"]
    assert moved_categories([]) == []


def test_pictures_are_small_and_hold_nothing_but_what_is_seen(world: World) -> None:
    category = published(world, 6)
    row = world.services.repository.require_run(RUN)
    examples, pictures = example_pictures(row, [moved(category)], world.services)
    assert 1 <= len(examples) <= PHOTOS_PER_CATEGORY
    assert {example.key for example in examples} == set(pictures)
    assert [example.missing for example in examples] == [""] * len(examples)
    for picture in pictures.values():
        assert b"CUSTOMER" not in picture.jpeg
        with Image.open(io.BytesIO(picture.jpeg)) as image:
            assert image.size == (picture.width_px, picture.height_px) == (240, 180)
            assert not image.getexif()
            assert image.format == "JPEG"


def test_photos_that_are_gone_replaced_or_elsewhere_are_left_out_with_the_reason(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(world, 6)
    row = world.services.repository.require_run(RUN)
    monkeypatch.setattr(report_photos, "PHOTOS_PER_CATEGORY", 9)
    categories = [name for (name,) in world.rows("SELECT DISTINCT category FROM refund.decision")]
    monkeypatch.setattr(report_photos, "CATEGORIES", len(categories))
    keys = sorted(key for (key,) in world.rows("SELECT key FROM refund.photo"))
    world.services.objects.delete(keys[0])
    world.services.objects.put(keys[1], b"something else")
    examples, pictures = example_pictures(row, [moved(*categories)], world.services)
    assert set(pictures) == set(keys[2:])
    assert {example.key: example.missing for example in examples if example.missing} == {
        keys[0]: "gone",
        keys[1]: "replaced meanwhile",
    }
    chosen = report_photos._choose(row, categories, world.services)
    elsewhere = [replace(photo, bucket="other") for photo in chosen]
    monkeypatch.setattr(report_photos, "_choose", lambda *_: elsewhere)
    examples, pictures = example_pictures(row, [moved(*categories)], world.services)
    assert (pictures, {example.missing for example in examples}) == ({}, {"gone"})


def test_whatever_fails_the_report_is_written_without_pictures(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    category = published(world, 2)

    def fails(*_: object) -> None:
        msg = "no interpreter"
        raise RuntimeError(msg)

    run = world.start(RUN)
    monkeypatch.setattr(generate_report, "measure_drift", lambda *_: (moved(category),))
    with monkeypatch.context() as broken:
        broken.setattr(report_photos, "_pictures", fails)
        uris = write_report(run, world.services)
    page = world.services.objects.get(uris["html"].partition(f"{world.services.objects.bucket}/")[2]).decode()
    assert "<img" not in page
    assert "(it could not be read; the log of generate_report says why)" in page
    assert "No example photos in the report" in caplog.text
    assert "no interpreter" in caplog.text
    uris = write_report(run, world.services)
    page = world.services.objects.get(uris["html"].partition(f"{world.services.objects.bucket}/")[2]).decode()
    sources = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(sources) == world.rows(f"SELECT count(*) FROM refund.decision WHERE category = '{category}'")[0][0]
    for source in sources:
        with Image.open(io.BytesIO(base64.b64decode(source))) as image:
            image.load()
    stored = world.services.repository.get_report(run_date=DAY)
    assert stored is not None
    assert [example["category"] for example in stored.body["examples"]] == [category] * len(sources)
    assert "base64" not in str(stored.body)
