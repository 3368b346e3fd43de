"""An ONNX file as plain operations on named values, for libraries that do not read such files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import Any

import numpy as np

from ..._core.arrays import Array
from ..peers import module

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Op:
    """A node: its operator ('Silu' and 'Gelu' where it was several), its values by name, its attributes."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def output(self) -> str:
        return self.outputs[0]


@dataclass
class Net:
    """Operations in an order in which they can run, arrays that are known, and the shape of every value."""

    ops: list[Op]
    constants: dict[str, Array]
    shapes: dict[str, Shape]
    outputs: list[str]

    def uses(self) -> Counter[str]:
        """How often each value is read; a result of the net is read once more."""
        return Counter([*(name for op in self.ops for name in op.inputs), *self.outputs])

    def array(self, op: Op, index: int) -> Array | None:
        """The constant that is an operation's input, if it has that many and this one is constant."""
        return self.constants.get(op.inputs[index]) if index < len(op.inputs) else None


def read(path: str) -> Net:
    """The net of a file whose only input is `x` and whose shapes are fixed."""
    onnx = module("onnx")
    model = onnx.load(path)
    constants = {one.name: np.array(onnx.numpy_helper.to_array(one)) for one in model.graph.initializer}
    light = onnx.ModelProto()  # shapes follow without the weights, of which there may be more than a message holds
    light.CopyFrom(model)
    for tensor in light.graph.initializer:
        if tensor.ByteSize() > 1 << 12:
            light.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    kept = [tensor for tensor in light.graph.initializer if tensor.ByteSize() <= 1 << 12]
    del light.graph.initializer[:]
    light.graph.initializer.extend(kept)
    known = onnx.shape_inference.infer_shapes(light, strict_mode=True, data_prop=True).graph
    shapes = {
        value.name: tuple(one.dim_value for one in value.type.tensor_type.shape.dim)
        for value in [*known.input, *known.value_info, *known.output]
    }
    shapes |= {name: array.shape for name, array in constants.items()}
    ops = [
        Op(node.op_type, tuple(node.input), tuple(node.output),
           {one.name: _plain(onnx.helper.get_attribute_value(one)) for one in node.attribute})
        for node in model.graph.node
    ]  # fmt: skip
    return Net(ops, constants, shapes, [value.name for value in model.graph.output])


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else list(value) if isinstance(value, (list, tuple)) else value


# ---- what was spelt out and has a name elsewhere -------------------------------------------------------------------


def named(net: Net) -> Net:
    """The net with SiLU, GELU and normalisation over the last axis as one operation where they are several."""
    uses, made = net.uses(), {op.output: op for op in net.ops}
    gone: set[str] = set()
    instead: dict[str, Op] = {}
    for op in net.ops:
        found = _silu(op, made, uses) or _gelu(net, op, made, uses) or _layer_norm(net, op, made, uses)
        if found:
            instead[op.output], parts = found
            gone |= parts
    return replace(net, ops=[instead.get(op.output, op) for op in net.ops if op.output not in gone])


Found = tuple[Op, set[str]]


def _silu(op: Op, made: dict[str, Op], uses: Counter[str]) -> Found | None:
    """x sigmoid(x)"""
    for x, y in _either(op, "Mul"):
        gate = made.get(y)
        if gate and gate.kind == "Sigmoid" and gate.inputs == (x,) and uses[y] == 1:
            return Op("Silu", (x,), op.outputs), {y}
    return None


def _either(op: Op, kind: str) -> Iterator[tuple[str, str]]:
    if op.kind == kind:
        yield op.inputs[0], op.inputs[1]
        yield op.inputs[1], op.inputs[0]


def _number(net: Net, name: str, value: float) -> bool:
    array = net.constants.get(name)
    return array is not None and array.size == 1 and abs(float(array.reshape(())) - value) < 1e-6


def _gelu(net: Net, op: Op, made: dict[str, Op], uses: Counter[str]) -> Found | None:
    """x (erf(x / sqrt 2) + 1) / 2"""
    for product, half in _either(op, "Mul"):
        inner = made.get(product)
        if not _number(net, half, 0.5) or inner is None:
            continue
        for x, plus in _either(inner, "Mul"):
            one = made.get(plus)
            erf = made.get(one.inputs[0]) if one and one.kind == "Add" and _number(net, one.inputs[1], 1) else None
            div = made.get(erf.inputs[0]) if erf and erf.kind == "Erf" else None
            if div and div.kind == "Div" and div.inputs[0] == x and _number(net, div.inputs[1], sqrt(2)):
                assert one is not None and erf is not None
                return _replaced(Op("Gelu", (x,), op.outputs), [inner, one, erf, div], uses)
    return None


def _replaced(op: Op, parts: list[Op], uses: Counter[str]) -> Found | None:
    gone = {part.output for part in parts}
    inside = Counter(name for part in parts for name in part.inputs if name in gone)
    # Each part is read by the others, or once by the operation that takes their place.
    return (op, gone) if all(uses[name] <= max(1, inside[name]) for name in gone) else None


def _layer_norm(net: Net, op: Op, made: dict[str, Op], uses: Counter[str]) -> Found | None:
    """Mean, Sub, Pow, Mean, Add, Sqrt, Div, Mul, Add over the last axis"""
    scaled = made.get(op.inputs[0]) if op.kind == "Add" and op.inputs[1] in net.constants else None
    unit = made.get(scaled.inputs[0]) if scaled and scaled.kind == "Mul" and scaled.inputs[1] in net.constants else None
    if unit is None or unit.kind != "Div" or unit.inputs[1] not in made:
        return None
    centred, root = made.get(unit.inputs[0]), made[unit.inputs[1]]
    shifted = made.get(root.inputs[0])
    square_mean = made.get(shifted.inputs[0]) if root.kind == "Sqrt" and shifted and shifted.kind == "Add" else None
    square = made.get(square_mean.inputs[0]) if square_mean and square_mean.kind == "ReduceMean" else None
    mean = made.get(centred.inputs[1]) if centred and centred.kind == "Sub" else None
    if not (square and square.kind == "Pow" and mean and mean.kind == "ReduceMean" and shifted and centred):
        return None
    assert square_mean is not None and scaled is not None
    rank = len(net.shapes[op.output])
    if any(part.options["axes"] not in ([-1], [rank - 1]) for part in (mean, square_mean)):
        return None
    options = {"axis": -1, "epsilon": float(net.constants[shifted.inputs[1]].reshape(()))}
    norm = Op("LayerNormalization", (mean.inputs[0], scaled.inputs[1], op.inputs[1]), op.outputs, options)
    return _replaced(norm, [scaled, unit, root, shifted, square_mean, square, centred, mean], uses)


def folded(net: Net) -> Net:
    """The net with every normalisation that follows a convolution in its weights, as converters have it."""
    uses, constants = net.uses(), dict(net.constants)
    made: list[Op] = []
    at: dict[str, int] = {}
    for op in net.ops:
        index = at.get(op.inputs[0]) if op.kind == "BatchNormalization" and uses[op.inputs[0]] == 1 else None
        before = made[index] if index is not None else None
        if before is None or index is None or before.kind not in ("Conv", "ConvTranspose"):
            at[op.output] = len(made)
            made.append(op)
            continue
        gamma, beta, mean, variance = (constants[name] for name in op.inputs[1:5])
        factor = gamma / np.sqrt(variance + np.float32(op.options.get("epsilon", 1e-5)))
        weight = constants[before.inputs[1]]
        axis = 0 if before.kind == "Conv" else 1
        bias = constants[before.inputs[2]] if len(before.inputs) > 2 else np.zeros_like(mean)
        names = (f"{op.output}.weight", f"{op.output}.bias")
        shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
        constants |= {names[0]: weight * factor.reshape(shape), names[1]: beta + (bias - mean) * factor}
        made[index] = replace(before, inputs=(before.inputs[0], *names), outputs=op.outputs)
        at[op.output] = index
    shapes = net.shapes | {name: array.shape for name, array in constants.items()}
    return replace(net, ops=made, constants=constants, shapes=shapes)


def shuffled(net: Net) -> Net:
    """The net with Reshape, Transpose, Reshape that shuffle channels as one 'Shuffle' of so many groups."""
    uses = net.uses()
    made: list[Op] = []
    for op in net.ops:
        made.append(op)
        if [one.kind for one in made[-3:]] != ["Reshape", "Transpose", "Reshape"]:
            continue
        first, second, last = made[-3:]
        shape, linked = net.shapes[first.output], second.inputs[0] == first.output and last.inputs[0] == second.output
        alone = uses[first.output] == uses[second.output] == 1
        same = net.shapes[last.output] == net.shapes[first.inputs[0]]
        if linked and alone and same and len(shape) == 5 and second.options["perm"] == [0, 2, 1, 3, 4]:
            made[-3:] = [Op("Shuffle", first.inputs[:1], last.outputs, {"groups": shape[1]})]
    return replace(net, ops=made)
