from __future__ import annotations

import json
from typing import Any

import pytest

from refund.errors import ModelArtefactError
from refund.model.card import ModelCard
from tests.model.factories import make_card


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
        ({"artefact_file": "../model.tflite"}, "artefact_file must be a plain file name, got '../model.tflite'"),
        ({"schema_version": 0}, "schema_version must be 1, got 0"),
        ({"metrics": []}, "metrics must be a value of type dict"),
    ],
)
def test_a_malformed_field_is_named(overrides: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match="must be") as caught:
        make_card(**overrides)
    assert expected in str(caught.value)


def edited(**changes: Any) -> str:
    values = json.loads(make_card().to_json()) | changes
    return json.dumps({name: value for name, value in values.items() if value is not ...})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "card.json is not valid JSON (Expecting value"),
        ("[" * 100_000, "card.json is not valid JSON"),
        ("[1]", "card.json must be a JSON object, it is a list; restore the file, or build the model again"),
        (edited(schema_version=2), "has schema version 2, this code reads up to 1; upgrade refund"),
        (edited(name=..., version=...), "card.json lacks name, version;"),
        (edited(colour="red"), "card.json has unknown fields colour;"),
        (edited(class_count="many"), "card.json is malformed: class_count must be a value of type int, got 'many'"),
    ],
)
def test_a_broken_card_file_is_refused_with_a_way_out(text: str, expected: str) -> None:
    with pytest.raises(ModelArtefactError) as caught:
        ModelCard.from_json(text, place="card.json")
    assert expected in str(caught.value)
