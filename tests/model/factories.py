"""Small stand-ins for labels, taxonomy and card; every field can be overridden."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from refund.imaging.decode import decode_rgb
from refund.model.agreement import Agreement
from refund.model.calibration import CalibrationSet
from refund.model.card import ModelCard
from refund.model.labels import Labels, load_labels
from refund.model.taxonomy import Taxonomy, load_taxonomy
from refund.records import ImageLimits


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


def make_photographs(count: int = 24, *, side_px: int = 96, **overrides: Any) -> CalibrationSet:
    """Noise, without labels."""
    values: dict[str, Any] = {
        "source": "photos/",
        "pixels": np.random.default_rng(3).integers(0, 256, (count, side_px, side_px, 3), dtype=np.uint8),
        "rows": tuple(range(count)),
        "sha256s": tuple(sha256(bytes([row])).hexdigest() for row in range(count)),
        "class_ids": (None,) * count,
        "categories": (None,) * count,
    }
    return CalibrationSet(**values | overrides)


def imagenet_photographs(shared: Path) -> CalibrationSet:
    """The 250 photographs beside the checkout, with the labels that their names carry."""
    paths = sorted((shared / "images" / "imagenet").glob("*.JPEG"))
    bodies = [path.read_bytes() for path in paths]
    class_ids = tuple(path.name.partition("_")[0] for path in paths)
    taxonomy = load_taxonomy(labels=load_labels())
    return CalibrationSet(
        source=f"{len(paths)} photographs",
        pixels=np.stack([decode_rgb(body, limits=ImageLimits()).pixels for body in bodies]),
        rows=tuple(range(len(paths))),
        sha256s=tuple(sha256(body).hexdigest() for body in bodies),
        class_ids=class_ids,
        categories=tuple(taxonomy.category_of(class_id) for class_id in class_ids),
    )


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
