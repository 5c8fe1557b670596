"""Writes LiteRT models of a few bytes, so that the runtime is tested for real without TensorFlow or a download.

The network averages the pixels: input ``(1, H, W, 3)``, output ``(1, 3)``, the mean red, green and blue.
"""

from __future__ import annotations

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema


def mean_colour_model(*, side: int = 4, dtype: str = "float32", scale: float = 1.0, zero_point: int = 0) -> bytes:
    """A model of one MEAN operator; integer tensors carry ``scale`` and ``zero_point``."""
    kind = {"float32": schema.TensorType.FLOAT32, "uint8": schema.TensorType.UINT8, "int8": schema.TensorType.INT8}[
        dtype
    ]
    axes = schema.BufferT()
    axes.data = list(np.array([1, 2], dtype=np.int32).tobytes())
    quantised = None if dtype == "float32" else (scale, zero_point)
    graph = schema.SubGraphT()
    graph.tensors = [
        _tensor("pixels", [1, side, side, 3], kind, 0, quantised),
        _tensor("axes", [2], schema.TensorType.INT32, 1, None),
        _tensor("scores", [1, 3], kind, 0, quantised),
    ]
    mean = schema.OperatorT()
    mean.opcodeIndex, mean.inputs, mean.outputs = 0, [0, 1], [2]
    mean.builtinOptionsType, mean.builtinOptions = schema.BuiltinOptions.ReducerOptions, schema.ReducerOptionsT()
    graph.inputs, graph.outputs, graph.operators = [0], [2], [mean]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.MEAN
    code.version = 2
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [schema.BufferT(), axes]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _tensor(name: str, shape: list[int], kind: int, buffer: int, quantised: tuple[float, int] | None) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, shape, kind, buffer
    if quantised is not None:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [quantised[0]], [quantised[1]]
    return tensor
