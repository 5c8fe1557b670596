"""A small world for nights: photographs drawn by seed, and a model of a few kilobytes that sorts them by colour."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from PIL import Image

from refund.model.card import CARD_FILE, ModelCard
from refund.model.labels import load_labels


def jpeg(seed: int, *, width: int = 320, height: int = 240) -> bytes:
    """A JPEG of coloured noise around a colour of its own."""
    random = np.random.default_rng(seed)
    colour = random.integers(30, 226, size=3)
    pixels = np.clip(random.normal(colour, 30, size=(height, width, 3)), 0, 255).astype(np.uint8)
    body = io.BytesIO()
    Image.fromarray(pixels).save(body, "JPEG", quality=85)
    return body.getvalue()


def plain(level: int, *, width: int = 320, height: int = 240) -> bytes:
    """A JPEG of one grey, 0 to 255."""
    body = io.BytesIO()
    Image.new("RGB", (width, height), (level, level, level)).save(body, "JPEG", quality=85)
    return body.getvalue()


def write_model(
    folder: Path,
    *,
    name: str = "tiny",
    version: str = "1",
    seed: int = 0,
    size: tuple[int, int] = (224, 224),
    spoilt: bool = False,
) -> ModelCard:
    """A registered-shape model unit: mean colour, then one seeded dense layer to 1,000 logits.

    ``size`` is (width, height) of its input. A ``spoilt`` one gives NaN for every photo.
    """
    labels = load_labels()
    artefact = _colour_model(class_count=len(labels.class_ids), seed=seed, size=size, spoilt=spoilt)
    card = ModelCard(
        name=name,
        version=version,
        runtime="litert",
        artefact_file="model.tflite",
        artefact_sha256=hashlib.sha256(artefact).hexdigest(),
        input_height=size[1],
        input_width=size[0],
        input_scale=1 / 255,
        input_offset=0.0,
        output="logits",
        class_count=len(labels.class_ids),
        labels_sha256=labels.sha256,
        precision="float32",
        source=f"made up from seed {seed}",
        source_sha256=hashlib.sha256(artefact).hexdigest(),
        created_at="2026-11-22T00:00:00+00:00",
    )
    folder.mkdir(parents=True)
    (folder / card.artefact_file).write_bytes(artefact)
    (folder / CARD_FILE).write_text(card.to_json(), encoding="utf-8")
    return card


def _colour_model(*, class_count: int, seed: int, size: tuple[int, int], spoilt: bool) -> bytes:
    weights = np.random.default_rng(seed).normal(0, 20, size=(class_count, 3)).astype(np.float32)
    if spoilt:
        weights[0, 0] = np.nan
    graph = schema.SubGraphT()
    graph.tensors = [
        _tensor("pixels", [1, size[1], size[0], 3], 0),
        _tensor("axes", [2], 1, kind=schema.TensorType.INT32),
        _tensor("means", [1, 3], 0),
        _tensor("weights", [class_count, 3], 2),
        _tensor("logits", [1, class_count], 0),
    ]
    mean = schema.OperatorT()
    mean.opcodeIndex, mean.inputs, mean.outputs = 0, [0, 1], [2]
    mean.builtinOptionsType, mean.builtinOptions = schema.BuiltinOptions.ReducerOptions, schema.ReducerOptionsT()
    dense = schema.OperatorT()
    dense.opcodeIndex, dense.inputs, dense.outputs = 1, [2, 3, -1], [4]
    dense.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    dense.builtinOptions = schema.FullyConnectedOptionsT()
    graph.inputs, graph.outputs, graph.operators = [0], [4], [mean, dense]
    model = schema.ModelT()
    model.version, model.subgraphs = 3, [graph]
    model.operatorCodes = [_code(schema.BuiltinOperator.MEAN, 2), _code(schema.BuiltinOperator.FULLY_CONNECTED, 1)]
    model.buffers = [schema.BufferT(), _buffer(np.array([1, 2], dtype=np.int32)), _buffer(weights)]
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _tensor(name: str, shape: list[int], buffer: int, *, kind: int = schema.TensorType.FLOAT32) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, shape, kind, buffer
    return tensor


def _buffer(values: np.ndarray) -> schema.BufferT:
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), dtype=np.uint8)
    return buffer


def _code(operator: int, version: int) -> schema.OperatorCodeT:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = operator
    code.version = version
    return code
