"""The model card: what one immutable model unit consists of and how its input must look."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from refund.errors import ModelArtefactError
from refund.model.agreement import Agreement

SCHEMA_VERSION = 2
CARD_FILE = "card.json"
RUNTIMES = ("litert", "keras")
PRECISIONS = ("float32", "int8")
OUTPUTS = ("probabilities", "logits")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")  # name, version and file name are parts of paths and keys
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """Weights, input spec, labels and runtime of one model, named ``name@version`` and checked by SHA-256 at load.

    The network is given ``x * input_scale + input_offset`` for every uint8 pixel value ``x`` (RGB, 0 to 255); an
    artefact whose input is itself uint8 has scale 1 and offset 0.

    Raises:
        ValueError: a field is malformed; the text names it.
    """

    name: str
    version: str
    runtime: str  # litert | keras
    artefact_file: str  # beside the card
    artefact_sha256: str
    input_height: int
    input_width: int
    input_scale: float
    input_offset: float
    output: str = "probabilities"  # | logits, which get a softmax; scores are normalised to add up to 1 either way
    class_count: int
    labels_sha256: str  # of `refund.model.labels.Labels`
    precision: str  # float32 | int8
    source: str  # where the weights came from, for people
    source_sha256: str  # of the file they were read from
    created_at: str  # ISO 8601, UTC
    built_with: dict[str, str] = field(default_factory=dict)  # library -> version
    metrics: dict[str, float] = field(default_factory=dict)
    alpha: float | None = None  # width of a MobileNetV2; None for other networks
    inputs_sha256: str | None = None  # of all that determines the artefact's bytes; None where it was not built here
    agreement: Agreement | None = None  # of an int8 artefact with the float32 one of the same build
    calibration: dict[str, Any] | None = None  # the photographs that an int8 artefact was calibrated on
    differs_from: str | None = None  # a model of the same inputs and other bytes, and what was different
    schema_version: int = SCHEMA_VERSION  # 1: without the five fields above

    def __post_init__(self) -> None:
        for spec in fields(self):
            value, wanted = getattr(self, spec.name), _wanted_type(str(spec.type))
            if not isinstance(value, wanted) or isinstance(value, bool):
                _refuse(spec.name, f"a value of type {spec.type}", value)
        check_name(name=self.name, version=self.version)
        for name in ("artefact_sha256", "labels_sha256", "source_sha256", "inputs_sha256"):
            digest = getattr(self, name)
            if digest is not None and not _SHA256.fullmatch(digest):
                _refuse(name, "64 hexadecimal digits", digest)
        for name, allowed in (("runtime", RUNTIMES), ("precision", PRECISIONS), ("output", OUTPUTS)):
            if getattr(self, name) not in allowed:
                _refuse(name, " or ".join(allowed), getattr(self, name))
        for name in ("input_height", "input_width", "class_count"):
            if getattr(self, name) < 1:
                _refuse(name, "1 or more", getattr(self, name))
        for name in ("input_scale", "input_offset"):
            if not abs(getattr(self, name)) <= sys.float_info.max:  # also refuses NaN, and whole numbers beyond floats
                _refuse(name, "a finite number", getattr(self, name))
        if not _FILE.fullmatch(self.artefact_file) or self.artefact_file == CARD_FILE:  # never a path out of the folder
            _refuse("artefact_file", f"a plain file name of up to 80 characters, not {CARD_FILE}", self.artefact_file)
        if not 1 <= self.schema_version <= SCHEMA_VERSION:
            _refuse("schema_version", " or ".join(map(str, range(1, SCHEMA_VERSION + 1))), self.schema_version)
        if self.agreement is not None and self.precision != "int8":
            _refuse("agreement", "None for a card of precision float32", self.agreement)

    @property
    def key(self) -> str:
        """``name@version``, as predictions and decisions name the model."""
        return f"{self.name}@{self.version}"

    @property
    def summary(self) -> str:
        """One line for a report."""
        return f"{self.precision} on {self.runtime}, {self.input_width}×{self.input_height} px; weights: {self.source}"

    def to_json(self) -> str:
        """The card as indented JSON with sorted keys, fit for ``card.json`` and a jsonb column.

        A card of an older schema comes out as it was read.
        """
        values = asdict(self)
        for name in _added_after(self.schema_version):
            del values[name]
        return json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, place: str = "the model card") -> Self:
        """Read a card; ``place`` names it in errors.

        Raises:
            ModelArtefactError: it is no JSON object, of a newer schema, or a field is missing, unknown or malformed.
        """
        rebuild = "restore the file, or build the model again: refund model build"
        try:
            values: Any = json.loads(text)
        except (ValueError, RecursionError) as exc:
            msg = f"{place} is not valid JSON ({exc}); {rebuild}"
            raise ModelArtefactError(msg) from exc
        if not isinstance(values, dict):
            msg = f"{place} must be a JSON object, it is a {type(values).__name__}; {rebuild}"
            raise ModelArtefactError(msg)
        schema = values.get("schema_version")
        if isinstance(schema, int) and schema > SCHEMA_VERSION:
            msg = (
                f"{place} has schema version {schema}, this code reads up to {SCHEMA_VERSION}; "
                f"upgrade refund, or choose a model that this version built"
            )
            raise ModelArtefactError(msg)
        known = {spec.name for spec in fields(cls)} - _added_after(schema)
        if missing := sorted(known - set(values)):
            msg = f"{place} lacks {', '.join(missing)}; {rebuild}"
            raise ModelArtefactError(msg)
        if unknown := sorted(set(values) - known):
            msg = f"{place} has unknown fields {', '.join(unknown)}; {rebuild}"
            raise ModelArtefactError(msg)
        try:
            if isinstance(agreement := values.get("agreement"), dict):
                values["agreement"] = Agreement.from_mapping(agreement)
            card = cls(**values)
            _require_storable(card)
        except (ValueError, RecursionError) as exc:
            msg = f"{place} is malformed: {exc}; {rebuild}"
            raise ModelArtefactError(msg) from exc
        return card


def _require_storable(card: ModelCard) -> None:
    """Refuse what JSON from outside may hold and Postgres cannot: NaN in metrics, NUL, half a surrogate pair."""
    text = card.to_json()
    if "\\u0000" in text:
        msg = "a text holds the character U+0000, which Postgres cannot store"
        raise ValueError(msg)
    text.encode()


def check_name(*, name: str = "a", version: str = "1") -> None:
    """Raise ValueError unless the registry's table can hold this name and version."""
    for field_name, text, pattern in (("name", name, _NAME), ("version", version, _VERSION)):
        if not pattern.fullmatch(text):
            _refuse(field_name, f"text like {pattern.pattern}", text)


_TYPES: dict[str, Any] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "dict": (dict,),
    "Agreement": (Agreement,),
    "None": (type(None),),
}
_ADDED_BY_2 = frozenset({"alpha", "inputs_sha256", "agreement", "calibration", "differs_from"})


def _wanted_type(annotation: str) -> tuple[type, ...]:
    return tuple(kind for part in annotation.split(" | ") for kind in _TYPES[part.split("[")[0]])


def _added_after(schema: object) -> frozenset[str]:
    return _ADDED_BY_2 if schema == 1 else frozenset()


def _refuse(name: str, expected: str, seen: object) -> None:
    msg = f"{name} must be {expected}, got {seen!r}"
    raise ValueError(msg)
