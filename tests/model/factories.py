"""Small stand-ins for labels, taxonomy and card; every field can be overridden."""

from __future__ import annotations

from typing import Any

from refund.model.agreement import Agreement
from refund.model.card import ModelCard
from refund.model.labels import Labels
from refund.model.taxonomy import Taxonomy


def make_card(**overrides: Any) -> ModelCard:
    values: dict[str, Any] = {
        "name": "tiny",
        "version": "1.0-float32",
        "runtime": "litert",
        "artefact_file": "model.tflite",
        "artefact_sha256": "a" * 64,
        "input_height": 224,
        "input_width": 224,
        "input_scale": 1 / 127.5,
        "input_offset": -1.0,
        "class_count": 1000,
        "labels_sha256": "b" * 64,
        "precision": "float32",
        "source": "made up",
        "source_sha256": "c" * 64,
        "created_at": "2026-11-22T00:00:00+00:00",
    }
    return ModelCard(**values | overrides)


def make_agreement(**overrides: Any) -> Agreement:
    values: dict[str, Any] = {"reference": "tiny@1.0-float32", "photos": 20, "agreeing": 19}
    return Agreement.of(**values | overrides)


def make_labels(*names: str) -> Labels:
    return Labels(class_ids=tuple(f"n{index:08d}" for index in range(len(names))), class_names=names)


def make_taxonomy(labels: Labels, *categories: str) -> Taxonomy:
    return Taxonomy(
        declared_version="1",
        sha256="d" * 64,
        class_ids=labels.class_ids,
        class_categories=categories,
        product_ids=tuple(None if name == "not_a_product" else 1 for name in categories),
        product_paths=tuple(None if name == "not_a_product" else "Some > Path" for name in categories),
    )
