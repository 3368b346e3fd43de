"""Layers as a graph of operators: what `InferencePlan` runs.

Arrays of layers have their channels last, values of graphs second; a `Transpose` between the two is a view. A layer
that no operator stands for is a node that calls it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from .._core.arrays import Array
from .._core.layouts import INWARD, OUTWARD, WEIGHT_INWARD
from .._core.words import Shape
from ..errors import ConvError
from ..graph.graph import Graph, Node, ValueInfo
from ..graph.operators.registry import INTERNAL, Call, operator
from ..layers.activations import LINEAR, Activation, Function, Softmax
from ..layers.base import Layer, Sample, locating, overridden
from ..layers.convolution import Conv, ConvTranspose
from ..layers.core import Dense, Dropout, Flatten, Reshape, Residual
from ..layers.merging import Add, Average, Concatenate, Maximum, Minimum, Multiply, Subtract
from ..layers.normalization import BatchNormalization
from ..layers.pooling import AveragePooling, GlobalAveragePooling, GlobalMaxPooling, MaxPooling, UpSampling

if TYPE_CHECKING:
    from .net import Net

OPSET: Final = 17
INPUT: Final = "input"
TURNED: Final = "view"  # what a view stands for
# Functions of layers as operators: (operator, attributes).
FUNCTIONS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "relu": ("Relu", {}), "sigmoid": ("Sigmoid", {}), "tanh": ("Tanh", {}), "silu": ("Silu", {}),
    "hardswish": ("HardSwish", {}), "relu6": ("Clip", {"min": 0.0, "max": 6.0}),
}  # fmt: skip


@operator("Layer", domain=INTERNAL)
def run_layer(call: Call, *xs: Array) -> Any:
    """A layer, or a function of one, on arrays with the channels last."""
    layer: Any = call.node.attributes["runs"]
    merges = getattr(layer, "merges", False)  # functions do not
    x: Any = list(xs) if merges else xs[0]
    if isinstance(layer, Function):
        out = call.into(x)
        layer.into(x, out)
        return out
    y = layer.forward(x)
    made = tuple(y) if isinstance(y, (list, tuple)) else (y,)
    if len(made) != len(call.node.outputs):
        raise ConvError(f"{layer.name}: forward made {len(made)} results, not {len(call.node.outputs)}.")
    layer.release()
    samples: Any = [Sample(array.shape[1:]) for array in xs]
    call.macs = len(xs[0]) * layer.macs(samples if merges else samples[0])
    call.describe("layer")
    return made


def input_values(count: int) -> list[str]:
    """What the graph calls so many inputs."""
    return [f"{INPUT}_{number}" if number else INPUT for number in range(count)]


class Tracer:
    """The graph of a net, node by node; `inputs` and `outputs` are the names of its values."""

    def __init__(self, model: Net, samples: Sequence[Shape]) -> None:
        self.dtype = model.dtype
        self.nodes: list[Node] = []
        self.constants: dict[str, Array] = {}
        self.inputs = input_values(len(samples))
        self.shapes: dict[str, Shape] = dict(zip(self.inputs, samples, strict=True))  # of samples, as layers have them
        self._other: dict[str, str] = {}  # the same values with the channels elsewhere
        self.outputs = self.several(model, self.inputs)
        self.output_shapes = [self.shapes[name] for name in self.outputs]
        begin, end = (
            [ValueInfo(name, None, "tensor") for name in dict.fromkeys(ends)] for ends in (self.inputs, self.outputs)
        )
        self.graph = Graph(begin, end, self.constants, self.nodes, model.name)
        self.graph.remove_unused()  # views that nobody took

    # ---- values and nodes -----------------------------------------------------------------------------------------

    def add(
        self, op_type: str, inputs: Sequence[str], shape: Shape, layer: str, domain: str = "", version: int = OPSET,
        **attributes: Any,
    ) -> str:  # fmt: skip
        """A node and the name of its result."""
        return self.add_several(op_type, inputs, [shape], layer, domain, version, **attributes)[0]

    def add_several(
        self, op_type: str, inputs: Sequence[str], shapes: Sequence[Shape], layer: str, domain: str, version: int,
        **attributes: Any,
    ) -> list[str]:  # fmt: skip
        """A node and the names of its results."""
        made = [f"value_{len(self.nodes)}{f'_{at}' if at else ''}" for at in range(len(shapes))]
        parts = [layer] if layer else [TURNED]
        self.nodes.append(Node(op_type, list(inputs), made, attributes, version, domain, layer, parts))
        self.shapes.update(zip(made, shapes, strict=True))
        return made

    def constant(self, layer: str, name: str, array: Array) -> str:
        called = f"{layer}/{name}.{len(self.nodes)}"
        self.constants[called] = array.astype(self.dtype, copy=False)
        return called

    def turned(self, value: str, axes: Any) -> str:
        """A value with its axes in another order, both ways a view."""
        shape = self.shapes[value]
        if len(shape) < 2:
            return value
        if value not in self._other:
            perm = list(axes[len(shape) + 1])
            made = self._other[value] = self.add("Transpose", [value], shape, "", perm=perm)
            self._other[made] = value
        return self._other[value]

    def logical(self, value: str) -> str:
        """A value of layers, with the channels second."""
        return self.turned(value, INWARD)

    def made(self, op_type: str, value: str, shape: Shape, layer: str, *constants: str, **attributes: Any) -> str:
        """An operator over images, from a value of layers to one of layers."""
        found = self.add(op_type, [self.logical(value), *constants], shape, layer, **attributes)
        if len(shape) < 2:
            return found
        back = self.add("Transpose", [found], shape, "", perm=list(OUTWARD[len(shape) + 1]))
        self._other[back], self._other[found] = found, back
        return back

    # ---- layers ---------------------------------------------------------------------------------------------------

    def net(self, net: Any, values: Sequence[str]) -> list[str]:
        """The outputs of a net for these inputs."""
        made = dict(enumerate(values))
        for call in net.wiring.calls:
            given = [made[number] for number in call.inputs]
            with locating(call.layer):
                found = self.several(call.layer, given) if call.several or call.layer.is_net else [
                    self.layer(call.layer, given[0])
                ]
            made.update(zip(call.outputs, found, strict=True))
        return [made[number] for number in net.wiring.outputs]

    def several(self, layer: Any, values: Sequence[str]) -> list[str]:
        """What a net, or a layer of several inputs, makes."""
        if layer.is_net and not overridden(layer):
            return self.net(layer, values)
        shapes: Any = [Sample(self.shapes[value]) for value in values]
        ends: Any = layer.output_shape(shapes if layer.merges else shapes[0])
        if isinstance(ends, list):  # of a net that says itself what it computes
            return self.add_several("Layer", values, list(map(tuple, ends)), layer.name, INTERNAL, 1, runs=layer)
        shape: Any = tuple(ends)
        convert = next((made for kind, made in MERGED.items() if isinstance(layer, kind)), None)
        if convert is None or overridden(layer) or 0 in shape or len(values) == 1:
            return [self.add("Layer", values, shape, layer.name, INTERNAL, 1, runs=layer)]
        return [convert(self, layer, values, shape)]

    def chain(self, layers: Sequence[Layer], value: str) -> str:
        for layer in layers:
            with locating(layer):
                value = self.layer(layer, value)
        return value

    def layer(self, layer: Layer, value: str) -> str:
        """The value behind a layer."""
        shape: Any
        if overridden(layer):
            shape = tuple(layer.output_shape(Sample(self.shapes[value])))
            return self.add("Layer", [value], shape, layer.name, INTERNAL, 1, runs=layer)
        if isinstance(layer, Residual):
            return self._residual(layer, value)
        if layer.is_net:
            return self.net(layer, [value])[0]
        if isinstance(layer, Dropout):
            return value
        shape = tuple(layer.output_shape(Sample(self.shapes[value])))
        if 0 not in shape and (layer.channels_last or not layer.reads_images):
            for kind, convert in CONVERTED.items():
                if isinstance(layer, kind):
                    found: str | None = convert(self, layer, value, shape)
                    if found is not None:
                        return found
        return self.add("Layer", [value], shape, layer.name, INTERNAL, 1, runs=layer)

    def _residual(self, layer: Residual, value: str) -> str:
        side = self.chain(layer.shortcut, value)
        body = self.chain(layer.body, value)
        shape = self.shapes[body]
        if len(shape) < 2:
            return self.function(layer.activation, self.add("Add", [body, side], shape, layer.name), layer.name)
        total = self.made("Add", body, shape, layer.name, self.logical(side))
        return self.function(layer.activation, total, layer.name)

    def function(self, function: Function, value: str, layer: str) -> str:
        """A function of a value of layers."""
        shape = self.shapes[value]
        if function is LINEAR:
            return value
        if function.name == "softmax":
            return self.add("Softmax", [value], shape, layer, axis=-1)
        if function.name in FUNCTIONS and (function.fused or function.name == "tanh"):
            op_type, attributes = FUNCTIONS[function.name]
            domain = INTERNAL if op_type == "Silu" else ""
            version = 1 if op_type == "Silu" else 6 if op_type == "Clip" else OPSET
            return self.made(op_type, value, shape, layer, domain=domain, version=version, **attributes)
        slope = function.made_by[1][0] if function.name == "leaky_relu" and function.made_by else None
        if slope is not None:
            return self.made("LeakyRelu", value, shape, layer, alpha=float(slope))
        return self.add("Layer", [value], shape, layer, INTERNAL, 1, runs=function)

    def convolution(self, layer: Conv, value: str, shape: Shape) -> str:
        g, name = layer.geometry(self.shapes[value]), layer.name
        weight = layer._weight().transpose(WEIGHT_INWARD[len(g.kernel_size) + 2])
        constants = [self.constant(name, "kernel", weight)]
        if layer.bias is not None:
            constants.append(self.constant(name, "bias", layer.bias.array))
        pads = [side for end in (0, 1) for sides in g.padding for side in (sides[end],)]
        made = self.made(
            "Conv", value, shape, name, *constants, strides=list(g.stride), pads=pads, dilations=list(g.dilation),
            group=g.groups,
        )  # fmt: skip
        return self.function(layer.activation, made, name)

    def transposed(self, layer: ConvTranspose, value: str, shape: Shape) -> str:
        assert layer.kernel is not None
        name, weight = layer.name, layer.kernel.array.transpose(WEIGHT_INWARD[layer.kernel.array.ndim])
        constants = [self.constant(name, "kernel", weight)]
        if layer.bias is not None:
            constants.append(self.constant(name, "bias", layer.bias.array))
        g = layer.geometry(self.shapes[value])
        pads = [sides[end] for end in (0, 1) for sides in g.padding]
        extra = [
            size - ((count - 1) * step - sum(sides) + (kernel - 1) * dilation + 1)
            for size, count, step, sides, kernel, dilation in zip(
                g.input_size, g.output_size, g.stride, g.padding, g.kernel_size, g.dilation, strict=True
            )
        ]  # rows behind the last window
        made = self.made(
            "ConvTranspose", value, shape, name, *constants, strides=list(g.stride), dilations=list(g.dilation),
            pads=pads, output_padding=extra,
        )  # fmt: skip
        return self.function(layer.activation, made, name)

    def normalisation(self, layer: BatchNormalization, value: str, shape: Shape) -> str | None:
        if not layer.channels_last or layer.moving_mean is None or layer.moving_variance is None:
            return None
        ones = np.ones_like(layer.moving_mean.array)
        parts = {
            "gamma": ones if layer.gamma is None else layer.gamma.array,
            "beta": 0 * ones if layer.beta is None else layer.beta.array,
            "mean": layer.moving_mean.array, "variance": layer.moving_variance.array,
        }  # fmt: skip
        constants = [self.constant(layer.name, part, array) for part, array in parts.items()]
        return self.made("BatchNormalization", value, shape, layer.name, *constants, epsilon=layer.epsilon)

    def pooling(self, layer: MaxPooling | AveragePooling, value: str, shape: Shape) -> str:
        g = layer.geometry(self.shapes[value])
        kind = "MaxPool" if isinstance(layer, MaxPooling) else "AveragePool"
        more = {} if kind == "MaxPool" else {"count_include_pad": 0}
        pads = [sides[end] for end in (0, 1) for sides in g.padding]
        return self.made(
            kind, value, shape, layer.name, kernel_shape=list(layer.pool_size), strides=list(layer.strides), pads=pads,
            **more,
        )  # fmt: skip

    def enlarged(self, layer: UpSampling, value: str, shape: Shape) -> str:
        scales = f"{layer.name}/scales.{len(self.nodes)}"
        self.constants[scales] = np.array([1, 1, *layer.size], np.float32)
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        if layer.interpolation == "bilinear":
            how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        return self.made("Resize", value, shape, layer.name, "", scales, **how)

    def whole(self, layer: Any, value: str, shape: Shape) -> str:
        """A pooling of whole images."""
        kind = "GlobalAveragePool" if isinstance(layer, GlobalAveragePooling) else "GlobalMaxPool"
        own = self.shapes[value]
        made = self.made(kind, value, (*(1,) * (len(own) - 1), own[-1]), layer.name)
        return made if layer.keepdims else self.add("Flatten", [made], shape, "", axis=1)

    def dense(self, layer: Dense, value: str, shape: Shape) -> str | None:
        if len(shape) != 1 or layer.kernel is None:
            return None
        constants = [self.constant(layer.name, "kernel", layer.kernel.array)]
        if layer.bias is not None:
            constants.append(self.constant(layer.name, "bias", layer.bias.array))
        made = self.add("Gemm", [value, *constants], shape, layer.name)
        return self.function(layer.activation, made, layer.name)

    def reshaped(self, layer: Reshape, value: str, shape: Shape) -> str:
        if isinstance(layer, Flatten) and not layer.channels_last and len(self.shapes[value]) > 1:
            return self.add("Layer", [value], shape, layer.name, INTERNAL, 1, runs=layer)
        target = f"{layer.name}/shape.{len(self.nodes)}"
        self.constants[target] = np.array([0, *shape], np.int64)  # 0: as many samples as there are
        return self.add("Reshape", [value, target], shape, layer.name)

    def merged(self, op_type: str, layer: Layer, values: Sequence[str], shape: Shape) -> str:
        """An operator over two values at a time, from the left."""
        made, sizes = values[0], self.shapes[values[0]]
        for value in values[1:]:
            sizes = tuple(map(max, sizes, self.shapes[value]))
            made = self.made(op_type, made, sizes, layer.name, self.logical(value))
        return made

    def average(self, layer: Average, values: Sequence[str], shape: Shape) -> str:
        total = self.merged("Add", layer, values, shape)
        share = self.constant(layer.name, "share", np.array(1 / len(values)))
        return self.made("Mul", total, shape, layer.name, share)

    def concatenated(self, layer: Concatenate, values: Sequence[str], shape: Shape) -> str:
        axes = len(shape) + 1
        axis = (0, *range(2, axes), 1)[layer._place(axes)] if axes > 2 else 1  # channels lie second in the graph
        return self.made("Concat", values[0], shape, layer.name, *map(self.logical, values[1:]), axis=axis)

    def softmax(self, layer: Softmax, value: str, shape: Shape) -> str:
        return self.add("Softmax", [value], shape, layer.name, axis=layer.axis)


MERGED: Final[dict[Any, Any]] = {
    Add: lambda tracer, *about: tracer.merged("Add", *about),
    Subtract: lambda tracer, *about: tracer.merged("Sub", *about),
    Multiply: lambda tracer, *about: tracer.merged("Mul", *about),
    Minimum: lambda tracer, *about: tracer.merged("Min", *about),
    Maximum: lambda tracer, *about: tracer.merged("Max", *about),
    Average: Tracer.average, Concatenate: Tracer.concatenated,
}  # fmt: skip  # a Minimum is a Maximum, and looked for before it
CONVERTED: Final[dict[Any, Any]] = {
    Conv: Tracer.convolution, ConvTranspose: Tracer.transposed, BatchNormalization: Tracer.normalisation,
    MaxPooling: Tracer.pooling, AveragePooling: Tracer.pooling, GlobalAveragePooling: Tracer.whole,
    GlobalMaxPooling: Tracer.whole, UpSampling: Tracer.enlarged, Dense: Tracer.dense,
    Reshape: Tracer.reshaped, Softmax: Tracer.softmax,
    Activation: lambda tracer, layer, value, shape: tracer.function(layer.function, value, layer.name),
}  # fmt: skip
