from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

import pytest

from refund.errors import ModelArtefactError
from refund.model.agreement import Agreement
from refund.model.card import ModelCard
from tests.model.factories import make_agreement, make_card


def test_a_card_survives_json() -> None:
    card = make_card(built_with={"keras": "3"}, metrics={"top1": 0.844}, source="Größe")
    assert ModelCard.from_json(card.to_json()) == card
    assert card.key == "tiny@1.0-float32"


def test_a_round_trip_keeps_numbers_that_json_shortens() -> None:
    card = make_card(input_scale=1.0, input_offset=0.0)
    assert ModelCard.from_json(card.to_json().replace("1.0,", "1,")).input_scale == 1


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"name": "Tiny Net"}, "name must be text like"),
        ({"version": "a/b"}, "version must be text like"),
        ({"artefact_sha256": "A" * 64}, "artefact_sha256 must be 64 hexadecimal digits"),
        ({"runtime": "onnx"}, "runtime must be litert or keras, got 'onnx'"),
        ({"precision": "int4"}, "precision must be float32 or int8, got 'int4'"),
        ({"output": "scores"}, "output must be probabilities or logits, got 'scores'"),
        ({"input_width": 0}, "input_width must be 1 or more, got 0"),
        ({"class_count": True}, "class_count must be a value of type int, got True"),
        ({"input_scale": float("nan")}, "input_scale must be a finite number, got nan"),
        (
            {"artefact_file": "../model.tflite"},
            "artefact_file must be a plain file name of up to 80 characters, not card.json, got '../model.tflite'",
        ),
        ({"artefact_file": "card.json"}, "artefact_file must be a plain file name"),
        ({"artefact_file": "a" * 81}, "artefact_file must be a plain file name"),
        ({"name": "a" * 81}, "name must be text like"),
        ({"name": "net\n"}, "name must be text like"),
        ({"version": "1" * 81}, "version must be text like"),
        ({"version": ".."}, "version must be text like"),
        ({"input_scale": 10**400}, "input_scale must be a finite number, got 1000"),
        ({"schema_version": 0}, "schema_version must be 1 or 2, got 0"),
        ({"metrics": []}, "metrics must be a value of type dict"),
        ({"inputs_sha256": "x"}, "inputs_sha256 must be 64 hexadecimal digits, got 'x'"),
        ({"alpha": "1.0"}, "alpha must be a value of type float | None, got '1.0'"),
        ({"agreement": {}}, "agreement must be a value of type Agreement | None"),
        ({"agreement": make_agreement()}, "agreement must be None for a card of precision float32"),
    ],
)
def test_a_malformed_field_is_named(overrides: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match="must be") as caught:
        make_card(**overrides)
    assert expected in str(caught.value)


NESTED: list[Any] = []
for _ in range(600):
    NESTED = [NESTED]


def edited(**changes: Any) -> str:
    values = json.loads(make_card().to_json()) | changes
    return json.dumps({name: value for name, value in values.items() if value is not ...})


def forged(**changes: Any) -> dict[str, Any]:
    return asdict(make_agreement()) | changes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "card.json is not valid JSON (Expecting value"),
        ("[" * 100_000, "card.json is not valid JSON"),
        ("[1]", "card.json must be a JSON object, it is a list; restore the file, or build the model again"),
        (
            edited(schema_version=3),
            "card.json has schema version 3, this code reads up to 2; upgrade refund, or choose a model that this "
            "version built",
        ),
        (edited(name=..., version=...), "card.json lacks name, version;"),
        (edited(colour="red"), "card.json has unknown fields colour;"),
        (
            edited(schema_version=1),
            "card.json has unknown fields agreement, alpha, calibration, differs_from, inputs_sha",
        ),
        (edited(alpha=...), "card.json lacks alpha;"),
        (edited(agreement={"state": "passed"}), "is malformed: agreement must have the fields photos, reference, req"),
        (edited(precision="int8", agreement=forged(state="passed")), "state of an agreement must be not_assessed, as"),
        (edited(precision="int8", agreement=forged(photos="9")), "photos of an agreement must be 0 or more, got '9'"),
        (edited(precision="int8", agreement=forged(top1_ratio="1")), "is malformed: agreement must hold numbers, got"),
        (edited(class_count="many"), "card.json is malformed: class_count must be a value of type int, got 'many'"),
        (
            edited(metrics={"top1": math.nan}),
            "card.json is malformed: Out of range float values are not JSON compliant",
        ),
        (edited(source="\0"), "card.json is malformed: a text holds the character U+0000, which Postgres cannot store"),
        (edited(source="\ud800"), "card.json is malformed: 'utf-8' codec can't encode character '\\ud800'"),
        (edited(metrics={"deep": NESTED}), "card.json is malformed: maximum recursion depth exceeded"),
    ],
)
def test_a_broken_card_file_is_refused_with_a_way_out(text: str, expected: str) -> None:
    with pytest.raises(ModelArtefactError) as caught:
        ModelCard.from_json(text, place="card.json")
    assert expected in str(caught.value)


def test_a_card_of_the_first_schema_is_read_and_comes_out_as_it_was() -> None:
    text = make_card(schema_version=1).to_json()
    assert "agreement" not in json.loads(text)
    card = ModelCard.from_json(text)
    assert (card.schema_version, card.alpha, card.inputs_sha256, card.agreement) == (1, None, None, None)
    assert card.to_json() == text


def test_a_card_keeps_agreement_and_calibration_through_json() -> None:
    card = make_card(
        precision="int8",
        alpha=0.35,
        inputs_sha256="e" * 64,
        agreement=make_agreement(),
        calibration={"photos": 16, "source": "photos/"},
        differs_from="same inputs as tiny@1.0-float32, other bytes: keras 3 → 4",
    )
    assert ModelCard.from_json(card.to_json()) == card


@pytest.mark.parametrize(
    ("photos", "agreeing", "state"),
    [(0, 0, "not_assessed"), (99, 99, "not_assessed"), (100, 95, "passed"), (100, 94, "failed"), (186, 183, "passed")],
)
def test_int8_passes_from_95_percent_of_100_photographs_on(photos: int, agreeing: int, state: str) -> None:
    agreement = Agreement.of(reference="tiny@1.0-float32", photos=photos, agreeing=agreeing)
    assert agreement.state == state
    assert agreement.top1_ratio == (agreeing / photos if photos else None)


def test_an_agreement_is_told_in_a_sentence() -> None:
    assert Agreement.of(reference="m@1", photos=186, agreeing=183).sentence == (
        "int8 names the same top class as float32 on 183 of 186 photographs (98.4%); required are 95% of at least 100"
    )
    assert Agreement.of(reference="m@1", photos=0, agreeing=0).sentence == (
        "no photographs were left to compare int8 with float32"
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"top1_ratio": None}, "top1_ratio of an agreement must be None exactly where photos is 0, got None of 20"),
        ({"top1_ratio": 1.2}, "top1_ratio of an agreement must lie in 0..1, got 1.2"),
        ({"photos": -1}, "photos of an agreement must be 0 or more, got -1"),
    ],
)
def test_an_agreement_checks_its_figures(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match="agreement must") as caught:
        Agreement(**forged(**changes))
    assert str(caught.value) == expected
