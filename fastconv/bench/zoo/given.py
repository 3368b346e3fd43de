"""A net from a file of one's own, in the form of the zoo's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..._core.arrays import Array
from ...errors import ConvError
from ..peers import module
from .catalogue import GIVEN, ZooNet

Size = tuple[int, int] | None


@dataclass
class FileGraph:
    """An ONNX file with its one input named `x` and of a fixed shape; its multiply-adds are not counted."""

    onnx_model: Any
    input_shape: tuple[int, ...]
    macs: int = 0

    def model(self) -> Any:
        return self.onnx_model

    def feeds(self) -> Array:
        return np.random.default_rng(0).standard_normal(self.input_shape, np.float32)


def given_net(path: str, size: Size = None) -> ZooNet:
    """The net of a file; `size` says how high and wide its images are where the file leaves that open."""
    return ZooNet(Path(path).name, GIVEN, _builder(path, size))


def _builder(path: str, size: Size) -> Callable[[int], FileGraph]:
    def build(batch: int) -> FileGraph:
        onnx = module("onnx")
        model = onnx.load(path)
        constants = {one.name for one in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in constants]
        kind = inputs[0].type.tensor_type if len(inputs) == 1 else None
        if kind is None or kind.elem_type != onnx.TensorProto.FLOAT:
            raise ConvError(f"{path}: a net to time has one input of float32, but this has {len(inputs)} inputs")
        shape = _fixed(path, [dim.dim_value for dim in kind.shape.dim], batch, size)
        for dim, length in zip(kind.shape.dim, shape, strict=True):
            dim.dim_value = length
        _rename(model.graph, inputs[0].name)
        del model.graph.value_info[:]
        for value in model.graph.output:
            value.type.tensor_type.ClearField("shape")
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        return FileGraph(model, shape)

    return build


def _fixed(path: str, dims: list[int], batch: int, size: Size) -> tuple[int, ...]:
    """The input's shape; what the file leaves open is 0."""
    shape = [dims[0] or batch, *dims[1:]]
    if size is not None and len(shape) == 4:
        at = 2 if dims[1] else 1  # channels last where only the last axis is known
        shape[at : at + 2] = [one or other for one, other in zip(shape[at : at + 2], size, strict=True)]
    if not all(shape):
        raise ConvError(f"{path}: its input is {dims} with open lengths of 0; give --input-size HEIGHTxWIDTH")
    return tuple(shape)


def _rename(graph: Any, old: str) -> None:
    """The input becomes `x`; what was called so before gets another name."""
    names = {old: "x"} if old == "x" else {old: "x", "x": "x.before"}
    for node in graph.node:
        for names_of in (node.input, node.output):
            for i, name in enumerate(names_of):
                names_of[i] = names.get(name, name)
    for value in [*graph.input, *graph.output, *graph.initializer]:
        value.name = names.get(value.name, value.name)
