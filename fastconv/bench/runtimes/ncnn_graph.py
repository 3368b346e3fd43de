"""An ONNX net as ncnn's text and weights, with activations fused as ncnn's own tools do; images one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any, Final

import numpy as np

from ..._core.arrays import Array
from ..peers import NotOffered
from .reading import Net, Op, shuffled

Numbers = dict[int, Any]
Arrays = list[tuple[bool, Array]]  # True: four zero bytes lie before it
FUSING: Final = ("Conv", "ConvTranspose", "Gemm")
# How ncnn numbers the orders of axes, those of a result from its rows outwards.
ORDERS: Final = {
    1: ("w",), 2: ("wh", "hw"), 3: ("whc", "hwc", "wch", "cwh", "hcw", "chw"),
    4: ("whdc", "hwdc", "wdhc", "dwhc", "hdwc", "dhwc", "whcd", "hwcd", "wchd", "cwhd", "hcwd", "chwd",
        "wdch", "dwch", "wcdh", "cwdh", "dcwh", "cdwh", "hdcw", "dhcw", "hcdw", "chdw", "dchw", "cdhw"),
}  # fmt: skip
NAMES: Final = {1: "w", 2: "hw", 3: "chw", 4: "cdhw"}
BINARY: Final = {"Add": 0, "Sub": 1, "Mul": 2, "Div": 3, "Pow": 6}


def _activation(net: Net, op: Op) -> tuple[int, list[float]] | None:
    """The number and parameters of an activation that a layer can do in passing."""
    o = op.options
    if op.kind == "Clip":
        bounds = [net.array(op, i) for i in (1, 2)]
        return (3, [float(one) for one in bounds]) if None not in bounds else None  # type: ignore[arg-type]
    return {
        "Relu": (1, []), "LeakyRelu": (2, [o.get("alpha", 0.01)]), "Sigmoid": (4, []), "HardSwish": (6, [1 / 6, 0.5]),
    }.get(op.kind)  # fmt: skip


def _fused(net: Net) -> Net:
    """Activations that only one layer feeds become that layer's."""
    uses = net.uses()
    made: list[Op] = []
    for op in net.ops:
        before = made[-1] if made else None
        act = _activation(net, op)
        if act and before and before.kind in FUSING and before.output == op.inputs[0] and uses[before.output] == 1 \
                and "act" not in before.options:  # fmt: skip
            made[-1] = replace(before, outputs=op.outputs, options={**before.options, "act": act})
            continue
        made.append(op)
    return replace(net, ops=made)


class Writer:
    """Collects the lines of ncnn's text."""

    def __init__(self, net: Net) -> None:
        self.net = _fused(shuffled(net))
        self.batch = net.shapes["x"][0]
        self.layers: list[tuple[str, list[str], list[str], Numbers]] = []
        self.arrays: Arrays = []
        self.extra = 0

    def shape(self, name: str) -> tuple[int, ...]:
        """A value's shape without its images."""
        shape = self.net.shapes[name]
        if shape[0] != self.batch:
            raise NotOffered("values whose first axis is not that of the images")
        if not 1 <= len(shape) - 1 <= 4:
            raise NotOffered("its values have at most four axes beside the images'")
        return shape[1:]

    def layer(self, kind: str, inputs: list[str], outputs: list[str], numbers: Numbers | None = None,
              arrays: Arrays | None = None) -> None:  # fmt: skip
        self.layers.append((kind, inputs, outputs, numbers or {}))
        self.arrays += arrays or []

    def fresh(self) -> str:
        self.extra += 1
        return f"e{self.extra}"

    def memory(self, array: Array, rank: int) -> str:
        """A constant as a layer that gives it, with as many axes as what it meets."""
        shape = array.shape
        if len(shape) > rank:  # an axis of images
            shape = shape[len(shape) - rank :]
        if prod(shape) != array.size:
            raise NotOffered("a constant that differs between images")
        shape = (1,) * (rank - len(shape)) + shape
        name = self.fresh()
        self.layer("MemoryData", [], [name], _extent(shape), [(False, array)])
        return name

    def text(self) -> str:
        """The lines, with a layer that hands out every value that is read more than once."""
        uses = Counter(name for _, inputs, _, _ in self.layers for name in inputs)
        free = {name: [f"{name}_{i}" for i in range(number)] for name, number in uses.items() if number > 1}
        lines, blobs = [], 0
        for number, (kind, inputs, outputs, numbers) in enumerate(self.layers):
            given = [free[name].pop(0) if name in free else name for name in inputs]
            options = " ".join(_option(key, value) for key, value in numbers.items())
            lines.append(f"{kind} l{number} {len(given)} {len(outputs)} {' '.join([*given, *outputs])} {options}")
            blobs += len(outputs)
            for name in outputs:
                if name in free:
                    lines.append(f"Split s_{name} 1 {len(free[name])} {name} {' '.join(free[name])}")
                    blobs += len(free[name])
        return "\n".join(["7767517", f"{len(lines)} {blobs}", *lines, ""])


def _option(key: int, value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"{-23300 - key}={','.join(map(str, [len(value), *value]))}"
    return f"{key}={value}"


def _extent(shape: tuple[int, ...]) -> Numbers:
    """A shape as ncnn's numbers of width, height, depth and channels."""
    keys = {1: (0,), 2: (1, 0), 3: (2, 1, 0), 4: (2, 11, 1, 0)}[len(shape)]
    return dict(zip(keys, shape, strict=True))


def _window(op: Op, axes: int) -> Numbers:
    """Kernel, dilation, stride and padding; ncnn counts axes from the width."""
    o = op.options
    pads = o.get("pads", [0] * 2 * axes)
    numbers: Numbers = {}
    for i in range(axes):
        axis = axes - 1 - i
        numbers[1 + 10 * i] = o["kernel_shape"][axis]
        numbers[2 + 10 * i] = o.get("dilations", [1] * axes)[axis]
        numbers[3 + 10 * i] = o.get("strides", [1] * axes)[axis]
        numbers[4 + 10 * i] = pads[axis]
        numbers[15 + i] = pads[axes + axis]
    return numbers


def _act_numbers(op: Op) -> Numbers:
    kind, values = op.options.get("act", (0, []))
    return {} if not kind else {9: kind, **({10: values} if values else {})}


def _convolution(w: Writer, op: Op) -> None:
    weight = w.net.array(op, 1)
    assert weight is not None
    axes, groups = weight.ndim - 2, op.options.get("group", 1)
    transposed = op.kind == "ConvTranspose"
    if transposed and groups > 1:
        raise NotOffered("not set up for grouped transposed layers")
    out = weight.shape[1] if transposed else weight.shape[0]
    bias = w.net.array(op, 2)
    bias = np.zeros(out, np.float32) if bias is None else bias
    numbers = {0: out, **_window(op, axes), 5: 1, 6: weight.size, **_act_numbers(op)}
    if transposed:
        more = op.options.get("output_padding", [0] * axes)
        numbers |= {18 + i: more[axes - 1 - i] for i in range(axes)}
        weight = weight.swapaxes(0, 1)
    if groups > 1:
        numbers[7] = groups
    kind = ("Deconvolution" if transposed else "Convolution") + ("DepthWise" if groups > 1 else "")
    kind += {1: "1D", 2: "", 3: "3D"}[axes]
    w.layer(kind, [op.inputs[0]], [op.output], numbers, [(True, weight), (False, bias)])


def _norm(w: Writer, op: Op) -> None:
    gamma, beta, mean, variance = (w.net.constants[name] for name in op.inputs[1:5])
    numbers = {0: len(gamma), 1: op.options.get("epsilon", 1e-5)}
    w.layer("BatchNorm", [op.inputs[0]], [op.output], numbers, [(False, one) for one in (gamma, mean, variance, beta)])


def _affine_norm(w: Writer, op: Op) -> None:
    gamma, beta = (w.net.constants[name] for name in op.inputs[1:3])
    kind = {"LayerNormalization": "LayerNorm", "InstanceNormalization": "InstanceNorm"}[op.kind]
    numbers: Numbers = {0: gamma.size, 1: op.options.get("epsilon", 1e-5), 2: 1}
    if kind == "InstanceNorm" and len(w.shape(op.inputs[0])) == 2:  # of a signal, which has groups only
        kind, numbers = "GroupNorm", {0: gamma.size, 1: gamma.size, 2: op.options.get("epsilon", 1e-5), 3: 1}
    w.layer(kind, [op.inputs[0]], [op.output], numbers, [(False, gamma), (False, beta)])


def _pool(w: Writer, op: Op) -> None:
    axes = len(w.shape(op.inputs[0])) - 1
    maximum = op.kind == "MaxPool"
    window = _window(op, axes)
    numbers: Numbers = {0: 0 if maximum else 1}
    for i in range(axes):
        numbers |= {1 + 10 * i: window[1 + 10 * i], 2 + 10 * i: window[3 + 10 * i], 3 + 10 * i: window[4 + 10 * i]}
        numbers[14 + i] = window[15 + i]
    numbers |= {5: 0 if op.options.get("ceil_mode", 0) else 1, 6: op.options.get("count_include_pad", 0)}
    w.layer("Pooling" + {1: "1D", 2: "", 3: "3D"}[axes], [op.inputs[0]], [op.output], numbers)


def _global_pool(w: Writer, op: Op) -> None:
    """The result is a row; what needs a map of one pixel gets one."""
    rows = all(one.kind in ("Conv", "Flatten") for one in w.net.ops if op.output in one.inputs)
    name = op.output if rows else w.fresh()
    w.layer("Pooling", [op.inputs[0]], [name], {0: 1, 4: 1})
    if not rows:
        w.layer("Reshape", [name], [op.output], _extent(w.shape(op.output)))


def _dense(w: Writer, op: Op) -> None:
    """Gemm, or MatMul with a constant, whose rows ncnn wants to be those of a matrix."""
    weight = w.net.array(op, 1)
    if weight is None:
        _product(w, op)
        return
    matrix = weight if op.kind == "Gemm" and op.options.get("transB") else weight.T
    bias = w.net.array(op, 2)
    numbers = {0: len(matrix), 1: int(bias is not None), 2: matrix.size, **_act_numbers(op)}
    arrays = [(True, matrix), *([(False, bias)] if bias is not None else [])]
    before, after = w.shape(op.inputs[0]), w.shape(op.output)
    if len(before) <= 2:
        w.layer("InnerProduct", [op.inputs[0]], [op.output], numbers, arrays)
        return
    first, second = w.fresh(), w.fresh()
    w.layer("Reshape", [op.inputs[0]], [first], _extent((prod(before[:-1]), before[-1])))
    w.layer("InnerProduct", [first], [second], numbers, arrays)
    w.layer("Reshape", [second], [op.output], _extent(after))


def _product(w: Writer, op: Op) -> None:
    for name in op.inputs:
        w.shape(name)
    w.layer("MatMul", list(op.inputs), [op.output])


def _binary(w: Writer, op: Op) -> None:
    number = BINARY[op.kind]
    for i, constant in enumerate(w.net.array(op, i) for i in range(2)):
        if constant is None:
            continue
        other = op.inputs[1 - i]
        if constant.size == 1 and i == 1 and op.kind == "Pow" and float(constant.reshape(())) == 2:
            w.layer("UnaryOp", [other], [op.output], {0: 4})
        elif constant.size == 1:
            reverse = {1: 7, 3: 8}.get(number, number) if i == 0 else number
            w.layer("BinaryOp", [other], [op.output], {0: reverse, 1: 1, 2: float(constant.reshape(()))})
        else:
            given = w.memory(constant, len(w.shape(other)))
            w.layer("BinaryOp", [other, given] if i else [given, other], [op.output], {0: number})
        return
    for name in op.inputs:
        w.shape(name)
    w.layer("BinaryOp", list(op.inputs), [op.output], {0: number})


def _permute(w: Writer, op: Op) -> None:
    perm = op.options["perm"]
    if perm[0] != 0:
        raise NotOffered("values whose first axis is not that of the images")
    names = NAMES[len(w.shape(op.inputs[0]))]
    order = "".join(names[axis - 1] for axis in reversed(perm[1:]))
    w.layer("Permute", [op.inputs[0]], [op.output], {0: ORDERS[len(names)].index(order)})


def _axis(w: Writer, op: Op, default: int) -> int:
    axis = int(op.options.get("axis", default)) % len(w.net.shapes[op.inputs[0]])
    if axis == 0:
        raise NotOffered("values whose first axis is not that of the images")
    return axis - 1


def _concat(w: Writer, op: Op) -> None:
    w.layer("Concat", list(op.inputs), [op.output], {0: _axis(w, op, 1)})


def _split(w: Writer, op: Op) -> None:
    axis = _axis(w, op, 0)
    w.layer("Slice", [op.inputs[0]], list(op.outputs), {0: [w.shape(name)[axis] for name in op.outputs], 1: axis})


def _resize(w: Writer, op: Op) -> None:
    scales = w.net.array(op, 2)
    if op.options.get("mode") != "nearest" or scales is None or len(scales) != 4:
        raise NotOffered("Resize other than of nearest pixels by factors")
    w.layer("Interp", [op.inputs[0]], [op.output], {0: 1, 1: float(scales[2]), 2: float(scales[3])})


def _pad(w: Writer, op: Op) -> None:
    pads = w.net.array(op, 1)
    mode = {"constant": 0, "edge": 1, "reflect": 2}[op.options.get("mode", "constant")]
    if pads is None or len(pads) != 8 or pads[:2].any() or pads[4:6].any():
        raise NotOffered("Pad other than of images")
    w.layer("Padding", [op.inputs[0]], [op.output],
            {0: int(pads[2]), 1: int(pads[6]), 2: int(pads[3]), 3: int(pads[7]), 4: mode})  # fmt: skip


def _mean(w: Writer, op: Op) -> None:
    rank = len(w.net.shapes[op.inputs[0]])
    axes = [axis % rank - 1 for axis in op.options["axes"]]
    if -1 in axes:
        raise NotOffered("means over images")
    w.layer("Reduction", [op.inputs[0]], [op.output], {0: 3, 1: 0, 3: axes, 4: op.options.get("keepdims", 1), 5: 1})


def _shuffle_pixels(w: Writer, op: Op) -> None:
    if op.options.get("mode", "DCR") != "CRD":
        raise NotOffered("DepthToSpace in the other order")
    w.layer("PixelShuffle", [op.inputs[0]], [op.output], {0: op.options["blocksize"]})


def _prelu(w: Writer, op: Op) -> None:
    slope = w.net.array(op, 1)
    assert slope is not None
    w.layer("PReLU", [op.inputs[0]], [op.output], {0: slope.size}, [(False, slope)])


def _simple(kind: str, numbers: Callable[[Op], Numbers] = lambda op: {}) -> Callable[[Writer, Op], None]:
    return lambda w, op: w.layer(kind, [op.inputs[0]], [op.output], numbers(op))


def _clip(w: Writer, op: Op) -> None:
    act = _activation(w.net, op)
    if act is None:
        raise NotOffered("Clip without both bounds")
    w.layer("Clip", [op.inputs[0]], [op.output], {0: act[1][0], 1: act[1][1]})


WRITERS: Final[dict[str, Callable[[Writer, Op], None]]] = {
    "Conv": _convolution, "ConvTranspose": _convolution, "BatchNormalization": _norm,
    "LayerNormalization": _affine_norm, "InstanceNormalization": _affine_norm, "MaxPool": _pool, "AveragePool": _pool,
    "GlobalAveragePool": _global_pool, "Gemm": _dense, "MatMul": _dense, **dict.fromkeys(BINARY, _binary),
    "Transpose": _permute, "Concat": _concat, "Split": _split, "Resize": _resize, "Pad": _pad, "ReduceMean": _mean,
    "DepthToSpace": _shuffle_pixels, "PRelu": _prelu, "Clip": _clip, "Flatten": _simple("Flatten"),
    "Reshape": lambda w, op: w.layer("Reshape", [op.inputs[0]], [op.output], _extent(w.shape(op.output))),
    "Shuffle": _simple("ShuffleChannel", lambda op: {0: op.options["groups"]}), "Relu": _simple("ReLU"),
    "LeakyRelu": _simple("ReLU", lambda op: {0: op.options.get("alpha", 0.01)}), "Sigmoid": _simple("Sigmoid"),
    "Silu": _simple("Swish"), "Gelu": _simple("GELU"), "Tanh": _simple("TanH"),
    "Sqrt": _simple("UnaryOp", lambda op: {0: 5}),
    "HardSigmoid": _simple("HardSigmoid", lambda op: {0: op.options.get("alpha", 0.2), 1: op.options.get("beta", 0.5)}),
    "HardSwish": _simple("HardSwish", lambda op: {0: 1 / 6, 1: 0.5}),
    "Softmax": lambda w, op: w.layer("Softmax", [op.inputs[0]], [op.output], {0: _axis(w, op, -1), 1: 1}),
}  # fmt: skip


def ncnn_files(net: Net) -> tuple[str, Arrays, tuple[int, ...]]:
    """ncnn's text from `x` to `y`, the arrays of its weights file, and the shape of the result."""
    if len(net.outputs) != 1:
        raise NotOffered("not set up for several results")
    writer = Writer(net)
    writer.layer("Input", [], ["x"])
    for op in writer.net.ops:
        if op.kind not in WRITERS:
            raise NotOffered(f"its layers have no {op.kind}" + (" of a step" if op.kind == "Slice" else ""))
        for name in op.outputs:
            writer.shape(name)
        WRITERS[op.kind](writer, op)
    last = net.outputs[0]
    writer.layers = [
        (kind, ["y" if name == last else name for name in inputs], ["y" if name == last else name for name in outputs],
         numbers) for kind, inputs, outputs, numbers in writer.layers
    ]  # fmt: skip
    return writer.text(), writer.arrays, net.shapes[last]
