"""Writes files of LiteRT (TensorFlow Lite): tensors, operators, and where channels lie.

A value of images or signals is held channels last, a signal as an image of one row; others lie as in ONNX. A value is
brought from one form to the other where an operator needs that, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ..._core.arrays import Array
from ..peers import NotOffered, module
from .reading import Net

FLOAT, INT32 = 0, 2  # of the schema's TensorType
# ONNX axes in the order in which a value that is held channels last has them; a signal has a row's axis besides.
LAST: Final = {3: (0, None, 2, 1), 4: (0, 2, 3, 1)}
RELU, RELU6 = 1, 3  # of the schema's ActivationFunctionType


@dataclass
class LitertFile:
    """A file, and how arrays in ONNX's order go in and come out."""

    content: bytes
    rank: int
    last: bool  # whether the result is held channels last
    shape: tuple[int, ...]

    def fed(self, x: Array) -> Array:
        return held(x) if self.rank in LAST else x

    def read(self, y: Array) -> Array:
        if not self.last:
            return y.reshape(self.shape)
        return np.ascontiguousarray(np.moveaxis(y, -1, 1)).reshape(self.shape)


def held(array: Array) -> Array:
    """An array in ONNX's order as it lies channels last."""
    moved = np.moveaxis(array, 1, -1)
    return np.ascontiguousarray(moved[:, None] if array.ndim == 3 else moved)


class Writer:
    """A file that is put together; values have ONNX's names and, beside that, a form."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.schema = module("ai_edge_litert.schema_py_generated")
        self.tensors: list[Any] = []
        self.buffers: list[Any] = [self.schema.BufferT()]
        self.codes: dict[int, int] = {}
        self.operators: list[Any] = []
        self.last: dict[str, int] = {}  # value → its tensor channels last
        self.plain: dict[str, int] = {}  # value → its tensor in ONNX's order
        self.shapes: list[tuple[int, ...]] = []

    # ---- tensors ----

    def tensor(self, shape: Sequence[int], kind: int = FLOAT, buffer: int = 0) -> int:
        tensor = self.schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer = [int(n) for n in shape], kind, buffer
        tensor.name, tensor.hasRank = f"t{len(self.tensors)}", True
        self.tensors.append(tensor)
        self.shapes.append(tuple(tensor.shape))
        return len(self.tensors) - 1

    def constant(self, values: Any, dtype: Any = np.float32) -> int:
        array = np.asarray(values, dtype)
        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(array.tobytes(), np.uint8)
        self.buffers.append(buffer)
        return self.tensor(array.shape, INT32 if dtype is np.int32 else FLOAT, len(self.buffers) - 1)

    def last_shape(self, name: str) -> tuple[int, ...]:
        shape = self.net.shapes[name]
        return tuple(1 if axis is None else shape[axis] for axis in LAST[len(shape)])

    def axis(self, name: str, axis: int) -> int:
        """Where an ONNX axis of a value lies that is held channels last."""
        rank = len(self.net.shapes[name])
        return LAST[rank].index(axis % rank)

    def is_last(self, name: str) -> bool:
        return name in self.last

    # ---- operators ----

    def add(self, code: str, inputs: Sequence[int], outputs: Sequence[int], options: str = "", **values: Any) -> None:
        """An operator by the schema's name, with the fields of its options."""
        number = getattr(self.schema.BuiltinOperator, code)
        op = self.schema.OperatorT()
        op.opcodeIndex = self.codes.setdefault(number, len(self.codes))
        op.inputs, op.outputs = list(inputs), list(outputs)
        if options:
            op.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            op.builtinOptions = getattr(self.schema, options + "T")()
            for key, value in values.items():
                setattr(op.builtinOptions, key, value)
        self.operators.append(op)

    def new(self, code: str, inputs: Sequence[int], shape: Sequence[int], options: str = "", **values: Any) -> int:
        """The same with one new tensor as its result."""
        made = self.tensor(shape)
        self.add(code, inputs, [made], options, **values)
        return made

    def reshaped(self, tensor: int, shape: Sequence[int]) -> int:
        shape = [int(n) for n in shape]
        given = [tensor, self.constant(shape, np.int32)]
        return self.new("RESHAPE", given, shape, "ReshapeOptions", newShape=shape)

    def transposed(self, tensor: int, order: Sequence[int]) -> int:
        shape = [self.shapes[tensor][axis] for axis in order]
        return self.new("TRANSPOSE", [tensor, self.constant(list(order), np.int32)], shape, "TransposeOptions")

    # ---- forms ----

    def as_last(self, name: str) -> int:
        """A value's tensor channels last."""
        if name not in self.last:
            shape = self.net.shapes[name]
            if len(shape) not in LAST:
                raise NotOffered("images and signals only; XNNPACK has nothing for volumes")
            if name in self.net.constants:
                self.last[name] = self.constant(held(self.net.constants[name]))
            else:
                order = [axis for axis in LAST[len(shape)] if axis is not None]
                small = all(n == 1 for n in shape[2:]) or shape[1] == 1
                moved = self.plain[name] if small else self.transposed(self.plain[name], order)
                self.last[name] = self.reshaped(moved, self.last_shape(name)) if small or len(shape) == 3 else moved
        return self.last[name]

    def as_plain(self, name: str) -> int:
        """A value's tensor in ONNX's order."""
        if name not in self.plain:
            shape = self.net.shapes[name]
            if name in self.net.constants:
                array = self.net.constants[name]
                self.plain[name] = self.constant(array, np.int32 if array.dtype == np.int64 else np.float32)
            elif all(n == 1 for n in shape[2:]) or shape[1] == 1:
                self.plain[name] = self.reshaped(self.last[name], shape)
            elif len(shape) == 3:
                rows = self.reshaped(self.last[name], (shape[0], shape[2], shape[1]))
                self.plain[name] = self.transposed(rows, (0, 2, 1))
            else:
                self.plain[name] = self.transposed(self.last[name], (0, 3, 1, 2))
        return self.plain[name]

    def as_is(self, name: str) -> int:
        """A value's tensor in the form that it has."""
        return self.last[name] if name in self.last else self.as_plain(name)

    def result(self, name: str, last: bool) -> int:
        """A new tensor for a value."""
        made = self.tensor(self.last_shape(name) if last else self.net.shapes[name])
        (self.last if last else self.plain)[name] = made
        return made

    def broadcast(self, name: str, other: str, last: bool) -> int:
        """A constant as it meets another value in its form."""
        array = np.asarray(self.net.constants[name], np.float32)
        if array.size == 1:
            return self.constant(array.reshape(()))
        if not last:
            return self.as_plain(name)
        rank = len(self.net.shapes[other])
        return self.constant(held(array.reshape((1,) * (rank - array.ndim) + array.shape)))

    # ---- the file ----

    def file(self) -> LitertFile:
        """The finished file from `x` to the net's only result."""
        s, result = self.schema, self.net.outputs[0]
        graph = s.SubGraphT()
        graph.tensors, graph.operators, graph.name = self.tensors, self.operators, "main"
        graph.inputs, graph.outputs = [0], [self.as_is(result)]
        model = s.ModelT()
        model.version, model.subgraphs, model.buffers, model.description = 3, [graph], self.buffers, "net"
        model.operatorCodes = []
        for number in self.codes:
            code = s.OperatorCodeT()
            code.builtinCode, code.deprecatedBuiltinCode = number, min(number, 127)
            model.operatorCodes.append(code)
        builder = module("flatbuffers").Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        rank = len(self.net.shapes["x"])
        return LitertFile(bytes(builder.Output()), rank, result in self.last, self.net.shapes[result])
