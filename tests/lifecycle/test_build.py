"""Registering what was built: which form is served, who becomes champion, and what differs between builds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refund.errors import LabelledSetError, ModelArtefactError, ModelExistsError
from refund.lifecycle import build as lifecycle
from refund.lifecycle.build import BuildOutcome, build_and_register, calibration_set, weights_file
from refund.model.agreement import Agreement
from refund.model.build import Built
from refund.model.card import ModelCard
from refund.model.unit import write_card
from refund.night.services import Services
from refund.settings import S3Access
from refund.store.objects import ObjectStore
from tests.model.factories import make_card

REMEDY = "correct --weights or REFUND_WEIGHTS, which read s3://bucket/key, or upload the weights there"


def write_photographs(folder: Path, *names: str) -> None:
    from PIL import Image

    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)


def units(seed: str, *, agreeing: int | None, **fields: Any) -> Callable[..., Built]:
    """What stands in for the conversion: units of a few bytes, written where the real ones would be."""

    def build(target: Path, **_: Any) -> Built:
        cards: dict[str, ModelCard] = {}
        for precision in ("float32", "int8")[: 1 if agreeing is None else 2]:
            body = f"{seed} {precision}".encode()
            digest = sha256(body).hexdigest()
            values = {"name": "net", "version": f"1-{precision}-{digest[:8]}", "inputs_sha256": digest} | fields
            card = make_card(**{"artefact_sha256": digest, "precision": precision} | values)
            if precision == "int8":
                agreement = Agreement.of(reference=cards["float32"].key, photos=100, agreeing=agreeing or 0)
                card = replace(card, agreement=agreement, input_scale=1.0, input_offset=0.0)
            (target / precision).mkdir(parents=True)
            (target / precision / "model.tflite").write_bytes(body)
            write_card(target / precision, card)
            cards[precision] = card
        return Built(float32=cards["float32"], int8=cards.get("int8"))

    return build


def register(
    services: Services, monkeypatch: pytest.MonkeyPatch, build: Callable[..., Built], **overrides: Any
) -> tuple[BuildOutcome, list[str]]:
    told: list[str] = []
    monkeypatch.setattr(lifecycle, "build_models", build)
    values: dict[str, Any] = {
        "weights": None,
        "calibrate": None,
        "allow_fallback": False,
        "champion": False,
        "by": "ada",
        "reason": "a test",
    }
    return build_and_register(services, **values | overrides, progress=told.append), told


def test_int8_that_agrees_is_served_and_becomes_the_first_champion(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome, _ = register(services, monkeypatch, units("first", agreeing=97), champion=True)
    float32, int8 = outcome.registered
    assert (outcome.served, outcome.champion, outcome.became_champion) == (int8, int8, True)
    assert outcome.reason == (
        "int8 names the same top class as float32 on 97 of 100 photographs (97.0%); required are 95% of at least 100: "
        "passed"
    )
    assert outcome.as_json() == {
        "model": int8,
        "registered": [float32, int8],
        "served_because": outcome.reason,
        "agreement": "passed",
        "champion": int8,
        "became_champion": True,
    }
    assert services.registry.resolve(float32).state == "candidate"
    (change,) = services.registry.history("champion")
    assert (change.by, change.reason) == ("ada", "a test")

    second, _ = register(services, monkeypatch, units("second", agreeing=None), champion=True)
    assert (second.champion, second.became_champion) == (int8, False)  # the champion that is there stays
    assert second.reason == "without photographs to calibrate with (--calibrate) no int8 form is built"


def test_int8_that_does_not_agree_is_registered_and_not_served(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome, _ = register(services, monkeypatch, units("worse", agreeing=94))
    float32, int8 = outcome.registered
    assert outcome.served == float32
    assert outcome.reason.endswith("(94.0%); required are 95% of at least 100: failed")
    agreement = services.registry.resolve(int8).card.agreement
    assert agreement is not None
    assert agreement.state == "failed"


def test_a_build_of_the_same_inputs_with_other_bytes_says_what_differed(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = {"inputs_sha256": "9" * 64}
    first, told = register(
        services, monkeypatch, units("old", agreeing=None, built_with={"keras": "3.1", "tensorflow": "2.20"}, **same)
    )
    assert told == []
    second, told = register(
        services, monkeypatch, units("new", agreeing=None, built_with={"keras": "3.1", "tensorflow": "2.21"}, **same)
    )
    expected = f"same inputs as {first.served} but other bytes; what differed: tensorflow 2.20 → 2.21"
    assert services.registry.resolve(second.served).card.differs_from == expected
    assert told == [expected]
    third, told = register(
        services, monkeypatch, units("new", agreeing=None, built_with={"keras": "3.1", "tensorflow": "2.21"}, **same)
    )
    assert (third.registered, told) == (second.registered, [])  # the same bytes again: nothing to say


def test_a_version_that_exists_with_other_content_is_refused(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(services, monkeypatch, units("one", agreeing=None, version="7-float32"))
    before = services.registry.resolve("net@7-float32")
    with pytest.raises(ModelExistsError, match=r"net@7-float32 is registered already with another artefact_sha256"):
        register(services, monkeypatch, units("two", agreeing=None, version="7-float32"))
    assert services.registry.resolve("net@7-float32") == before


def test_a_card_that_is_registered_stays_when_the_holdout_changes(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = register(services, monkeypatch, units("kept", agreeing=94))
    again, told = register(services, monkeypatch, units("kept", agreeing=97))
    assert again.served == first.served == first.registered[0]
    assert told[0].startswith(f"{first.registered[1]} is registered already, and its card stays: there int8 names")
    assert told[0].endswith("(passed). To keep both, build with --version")


def test_photographs_are_decoded_to_the_input_and_each_counts_once(services: Services, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    write_photographs(folder, *(f"n02123045_{number}.png" for number in range(10)))
    shutil.copy(folder / "n02123045_3.png", folder / "n02123045_copy.png")
    shutil.copy(folder / "n02123045_4.png", folder / "n03180011_other.png")
    (folder / "n02123045_bad.png").write_bytes(b"no image at all")
    told: list[str] = []
    (tmp_path / "scratch").mkdir()
    photographs = calibration_set(
        str(folder), side_px=96, services=services, folder=tmp_path / "scratch", tell=told.append
    )
    assert photographs.pixels.shape == (13, 96, 96, 3)
    assert (len(photographs.rows), photographs.rejected) == (10, 1)
    assert sorted(map(str, photographs.class_ids)) == ["None"] + ["n02123045"] * 9
    assert told[0].startswith(f"left out 1 photographs that cannot be decoded, first {folder}/n02123045_bad.png: ")
    assert told[1:] == [
        "left out 2 photographs that lie there twice",
        "1 photographs lie there under two labels, so neither counts",
    ]


def test_photographs_without_labels_calibrate_and_the_same_ones_in_s3_are_the_same(
    services: Services, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    write_photographs(folder, *(f"{number}.png" for number in range(8)))
    for path in folder.iterdir():
        services.objects.put(f"elsewhere/{path.stem}-{path.name}", path.read_bytes())
    told: list[str] = []
    made = []
    for number, where in enumerate((str(folder), f"s3://{services.objects.bucket}/elsewhere/")):
        (tmp_path / str(number)).mkdir()
        made.append(
            calibration_set(where, side_px=96, services=services, folder=tmp_path / str(number), tell=told.append)
        )
    assert made[0].sha256 == made[1].sha256
    assert set(made[0].categories) == {None}
    assert told[0].startswith("accuracy is not measured, for not every photograph has a label: ")


def test_a_place_without_photographs_is_refused_before_anything_is_built(services: Services, tmp_path: Path) -> None:
    told: list[str] = []
    with pytest.raises(LabelledSetError, match="is not there; expected a folder with photographs or s3://bucket/pref"):
        build_and_register(
            services,
            weights=str(tmp_path / "any.h5"),
            calibrate=str(tmp_path / "gone"),
            allow_fallback=False,
            champion=False,
            by="ada",
            reason="",
            progress=told.append,
        )
    assert told == []


def test_the_packaged_network_is_taken_on_purpose_whatever_the_setting_says(
    services: Services, fallback_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = (fallback_model / "model.tflite").read_bytes()
    monkeypatch.setattr("refund.model.fallback.fetch_fallback", lambda _: body)
    services = replace(services, settings=replace(services.settings, weights="/gone/weights.h5"))
    told: list[str] = []
    outcome = build_and_register(
        services,
        weights=None,
        calibrate=None,
        packaged=True,
        allow_fallback=False,
        champion=False,
        by="ada",
        reason="",
        progress=told.append,
    )
    assert outcome.registered == ("efficientnet_lite0@1.0.0-int8-aa03e401",)
    assert outcome.reason == "the packaged network is int8 as it comes"
    assert told == [
        "REFUND_WEIGHTS (/gone/weights.h5) is not used: the packaged network was asked for",
        "efficientnet_lite0@1.0.0-int8-aa03e401 loads",
    ]


def test_weights_are_those_of_the_setting_unless_given(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.objects.put("weights/w.h5", b"weights")
    place = f"s3://{services.objects.bucket}/weights/w.h5"
    services = replace(services, settings=replace(services.settings, weights=place))
    seen: list[tuple[Path, bool]] = []

    def build(target: Path, **given: Any) -> Built:
        seen.append((given["weights"], given["weights"].is_file()))
        return units("settings", agreeing=None)(target)

    register(services, monkeypatch, build)
    register(services, monkeypatch, build, weights=str(tmp_path / "mine.h5"))
    assert (seen[0][0].name, seen[0][1]) == ("w.h5", True)  # copied from S3 for the time of the build
    assert seen[1] == (tmp_path / "mine.h5", False)


@pytest.mark.slow
def test_the_stand_in_is_built_registered_and_served_in_its_int8_form(
    services: Services, shared: Path, int8_model: Path
) -> None:
    outcome = build_and_register(
        services,
        weights=str(shared / "models" / "mobilenet_v2_standin.h5"),
        calibrate=str(shared / "images" / "imagenet"),
        allow_fallback=False,
        champion=False,
        by="ada",
        reason="",
    )
    int8 = services.registry.resolve(outcome.served).card
    assert int8.precision == "int8"
    assert int8.calibration is not None
    assert int8.calibration["source"] == str(shared / "images" / "imagenet")
    assert int8.metrics["top1_accuracy"] >= 0.84
    assert [card.precision for card in outcome.cards] == ["float32", "int8"]
    assert int8.artefact_sha256 == sha256((int8_model / "model.tflite").read_bytes()).hexdigest()  # the same bytes


def test_weights_come_from_a_file_or_from_s3(s3_moto: S3Access, tmp_path: Path) -> None:
    assert weights_file("w.h5", tmp_path, s3=s3_moto) == Path("w.h5")
    ObjectStore(s3_moto).put("weights/w.h5", b"weights")
    found = weights_file(f"s3://{s3_moto.bucket}/weights/w.h5", tmp_path, s3=replace(s3_moto, bucket="another"))
    assert (found, found.read_bytes()) == (tmp_path / "w.h5", b"weights")


@pytest.mark.parametrize(
    ("weights", "seen"),
    [
        ("s3://refund-test/gone.h5", "is not there, S3 at {place} has no object 'gone.h5'"),
        ("s3://no-such-bucket/w.h5", "is not there, S3 at {place} has no bucket 'no-such-bucket'"),
        ("s3://refund-test", "names no object"),
        ("s3://refund-test/folder/", "names no object"),
    ],
)
def test_weights_that_are_not_in_s3_are_named_with_the_way_out(
    weights: str, seen: str, s3_moto: S3Access, tmp_path: Path
) -> None:
    with pytest.raises(ModelArtefactError) as caught:
        weights_file(weights, tmp_path, s3=s3_moto)
    assert str(caught.value) == f"{weights} {seen.format(place=s3_moto.place)}; {REMEDY}"
    assert list(tmp_path.iterdir()) == []
