"""A graph that is built value by value: shapes and sizes are known at once, weights are drawn when a model is made.

Weights are drawn so that activations stay of order one through any depth: every value knows the mean of its squares
as it follows for normally distributed inputs, and a convolution's weights are scaled by it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final, Protocol

import numpy as np

from ..._core.arrays import Array
from ..peers import module

OPSET: Final = 17  # LayerNormalization is an operator since then; GELU is not one yet
IR_VERSION: Final = 8

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Value:
    """A result in the graph: its name, its shape, and the mean of its squares."""

    name: str
    shape: Shape
    power: float = 1.0

    @property
    def channels(self) -> int:
        return self.shape[1]

    @property
    def size(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class Weight:
    """An initializer: the array itself, or how it is drawn. Statistics and constants are no `parameter`."""

    shape: Shape
    draw: Callable[[np.random.Generator], Array] | Array
    parameter: bool = True

    def array(self, random: np.random.Generator) -> Array:
        return self.draw(random) if callable(self.draw) else self.draw


def normal(shape: Shape, scale: float, mean: float = 0.0) -> Weight:
    """Normally distributed values."""

    def draw(random: np.random.Generator) -> Array:
        values: Array = random.standard_normal(shape, np.float32)
        values *= np.float32(scale)
        if mean:
            values += np.float32(mean)
        return values

    return Weight(shape, draw)


def uniform(shape: Shape, low: float, high: float, parameter: bool = True) -> Weight:
    """Evenly distributed values."""
    return Weight(shape, lambda random: random.uniform(low, high, shape).astype(np.float32), parameter)


class Buildable(Protocol):
    """A net as the benchmark takes it."""

    input_shape: Shape
    macs: int

    def model(self) -> Any: ...

    def feeds(self) -> Array: ...


@dataclass
class Graph:
    """Nodes from `x` to the outputs, and their weights."""

    name: str
    input_shape: Shape
    nodes: list[tuple[str, tuple[str, ...], tuple[str, ...], dict[str, Any]]] = field(default_factory=list)
    weights: dict[str, Weight] = field(default_factory=dict)
    outputs: list[Value] = field(default_factory=list)
    macs: int = 0  # multiply-adds of convolutions and matrix products

    @property
    def input(self) -> Value:
        return Value("x", self.input_shape)

    @property
    def parameters(self) -> int:
        """How many numbers training would change."""
        return sum(prod(weight.shape) for weight in self.weights.values() if weight.parameter)

    def weight(self, weight: Weight) -> str:
        """Add an initializer; its name."""
        name = f"w{len(self.weights)}"
        self.weights[name] = weight
        return name

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """Add an array, or a single number, that is no parameter."""
        array = np.asarray(values, dtype)
        for name, known in self.weights.items():  # exporters share what is equal; few are small
            if not callable(known.draw) and known.shape == array.shape and known.draw.dtype == array.dtype \
                    and np.array_equal(known.draw, array):  # fmt: skip
                return name
        return self.weight(Weight(array.shape, array, parameter=False))

    def nodes_of(self, op_type: str, inputs: Sequence[str], shapes: Sequence[Shape], power: float, **options: Any
                 ) -> list[Value]:  # fmt: skip
        """Add a node of several results of these shapes."""
        number = len(self.nodes)
        names = tuple(f"v{number}" if len(shapes) == 1 else f"v{number}_{i}" for i in range(len(shapes)))
        self.nodes.append((op_type, tuple(inputs), names, options))
        return [Value(name, tuple(shape), power) for name, shape in zip(names, shapes, strict=True)]

    def node(self, op_type: str, inputs: Sequence[str], shape: Shape, power: float, **options: Any) -> Value:
        """Add a node of one result."""
        return self.nodes_of(op_type, inputs, [shape], power, **options)[0]

    def end(self, *outputs: Value) -> Graph:
        """The finished graph with these results."""
        self.outputs = list(outputs)
        return self

    def drawn(self, index: int, weight: Weight) -> Array:
        """The array of one weight: the same in every run, whatever else is drawn."""
        return weight.array(np.random.default_rng([zlib.crc32(self.name.encode()), index]))

    def model(self, weights: bool = True) -> Any:
        """The ONNX model; without `weights` those that would be drawn are inputs, for looking at shapes."""
        onnx = module("onnx")
        helper, kind = onnx.helper, onnx.TensorProto.FLOAT
        made = [helper.make_node(op, list(inputs), list(names), name=f"{op}_{i}", **options)
                for i, (op, inputs, names, options) in enumerate(self.nodes)]  # fmt: skip
        inputs = [helper.make_tensor_value_info("x", kind, self.input_shape)]
        arrays = []
        for index, (name, weight) in enumerate(self.weights.items()):
            if weights or not callable(weight.draw):
                arrays.append(onnx.numpy_helper.from_array(np.asarray(self.drawn(index, weight), order="C"), name))
            else:
                inputs.append(helper.make_tensor_value_info(name, kind, weight.shape))
        outputs = [helper.make_tensor_value_info(value.name, kind, value.shape) for value in self.outputs]
        graph = helper.make_graph(made, self.name, inputs, outputs, arrays)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)

    def feeds(self) -> Array:
        """What the net is run on: drawn as the weights are."""
        random = np.random.default_rng([zlib.crc32(self.name.encode()), 1 << 31])
        return random.standard_normal(self.input_shape, np.float32)
