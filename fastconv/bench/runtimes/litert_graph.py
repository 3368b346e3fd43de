"""An ONNX net as a file of LiteRT, of the operators that converters write and XNNPACK computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np

from ..._core.arrays import Array
from ..peers import NotOffered
from .litert_windows import convolution, pool, transposed
from .litert_writer import LAST, RELU, RELU6, LitertFile, Writer
from .reading import Net, Op, shuffled

FUSING: Final = ("Conv", "Gemm", "Add", "MaxPool")


def _is_relu6(net: Net, op: Op) -> bool:
    low, high = (net.array(op, i) for i in (1, 2))
    return low is not None and high is not None and float(low) == 0 and float(high) == 6


def _fused(net: Net) -> Net:
    """Relu and Relu6 that only one operator feeds become that operator's; shuffles of pixels get TensorFlow's order."""
    uses, constants = net.uses(), dict(net.constants)
    made: list[Op] = []
    for op in shuffled(net).ops:
        before = made[-1] if made and made[-1].output == op.inputs[0] and uses[op.inputs[0]] == 1 else None
        act = RELU if op.kind == "Relu" else RELU6 if op.kind == "Clip" and _is_relu6(net, op) else 0
        if act and before and before.kind in FUSING and "act" not in before.options:
            made[-1] = replace(before, outputs=op.outputs, options={**before.options, "act": act})
            continue
        if op.kind == "DepthToSpace" and op.options.get("mode") == "CRD":
            block = op.options["blocksize"]
            if before is None or before.kind != "Conv":
                raise NotOffered("DepthToSpace in PyTorch's order that follows no convolution")
            names = [f"{op.output}.{name}" for name in ("weight", "bias")[: len(before.inputs) - 1]]
            for name, old in zip(names, before.inputs[1:], strict=True):
                array = constants[old]
                split = array.reshape(-1, block * block, *array.shape[1:])
                constants[name] = np.ascontiguousarray(split.swapaxes(0, 1)).reshape(array.shape)
            made[-1] = replace(before, inputs=(before.inputs[0], *names))
            op = replace(op, options={"blocksize": block, "mode": "DCR"})
        made.append(op)
    shapes = net.shapes | {name: array.shape for name, array in constants.items()}
    return replace(net, ops=made, constants=constants, shapes=shapes)


# ---- sums and products ---------------------------------------------------------------------------------------------


def _mean_of(w: Writer, tensor: int, axes: list[int], keep: bool = True) -> int:
    shape = [1 if i in axes else n for i, n in enumerate(w.shapes[tensor]) if keep or i not in axes]
    return w.new("MEAN", [tensor, w.constant(axes, np.int32)], shape, "ReducerOptions", keepDims=keep)


def _global_pool(w: Writer, op: Op) -> None:
    w.last[op.output] = _mean_of(w, w.as_last(op.inputs[0]), [1, 2])


def _mean(w: Writer, op: Op) -> None:
    name, keep = op.inputs[0], bool(op.options.get("keepdims", 1))
    rank = len(w.net.shapes[name])
    if w.is_last(name) and keep:
        w.last[op.output] = _mean_of(w, w.last[name], sorted(w.axis(name, axis) for axis in op.options["axes"]))
    elif w.is_last(name) and rank == 4 and op.options["axes"] == [2, 3]:
        w.plain[op.output] = _mean_of(w, w.last[name], [1, 2], False)
    else:
        w.plain[op.output] = _mean_of(w, w.as_plain(name), sorted(axis % rank for axis in op.options["axes"]), keep)


def _dense(w: Writer, op: Op) -> None:
    weight = w.net.array(op, 1)
    x = w.as_plain(op.inputs[0])
    if weight is None:
        y = w.as_plain(op.inputs[1])
        w.add("BATCH_MATMUL", [x, y], [w.result(op.output, False)], "BatchMatMulOptions")
        return
    bias = w.net.array(op, 2)
    matrix = weight if op.kind == "Gemm" and op.options.get("transB") else weight.T
    given = [x, w.constant(np.ascontiguousarray(matrix)), *([w.constant(bias)] if bias is not None else [-1])]
    values = {"keepNumDims": len(w.net.shapes[op.inputs[0]]) > 2, "fusedActivationFunction": op.options.get("act", 0)}
    w.add("FULLY_CONNECTED", given, [w.result(op.output, False)], "FullyConnectedOptions", **values)


BINARY: Final = {kind: f"{kind}Options" for kind in ("Add", "Sub", "Mul", "Div", "Pow")}


def _binary(w: Writer, op: Op) -> None:
    values = [name for name in op.inputs if name not in w.net.constants]
    last = any(w.is_last(name) for name in values) and len({len(w.net.shapes[name]) for name in values}) == 1
    exponent = w.net.array(op, 1)
    given = []
    for name in op.inputs:
        if name in w.net.constants:
            given.append(w.broadcast(name, values[0], last))
        else:
            given.append(w.as_last(name) if last else w.as_plain(name))
    if op.kind == "Pow" and exponent is not None and exponent.size == 1 and float(exponent.reshape(())) == 2:
        w.add("SQUARE", given[:1], [w.result(op.output, last)], "SquareOptions")
        return
    options = {"fusedActivationFunction": op.options.get("act", 0)} if op.kind != "Pow" else {}
    w.add(op.kind.upper(), given, [w.result(op.output, last)], BINARY[op.kind], **options)


def _normalised(w: Writer, x: int, axes: list[int], epsilon: float, gamma: Array, beta: Array) -> int:
    """As converters spell it: squared differences from the mean, the reciprocal of the root of their mean."""
    shape = w.shapes[x]
    mean = _mean_of(w, x, axes)
    squares = w.new("SQUARED_DIFFERENCE", [x, mean], shape, "SquaredDifferenceOptions")
    variance = _mean_of(w, squares, axes)
    small = w.shapes[variance]
    shifted = w.new("ADD", [variance, w.constant(np.float32(epsilon))], small, "AddOptions")
    factor = w.new("RSQRT", [shifted], small)
    centred = w.new("SUB", [x, mean], shape, "SubOptions")
    unit = w.new("MUL", [centred, factor], shape, "MulOptions")
    scaled = w.new("MUL", [unit, w.constant(gamma)], shape, "MulOptions")
    return w.new("ADD", [scaled, w.constant(beta)], shape, "AddOptions")


def _layer_norm(w: Writer, op: Op) -> None:
    x = w.as_plain(op.inputs[0])
    gamma, beta = (w.net.constants[name] for name in op.inputs[1:3])
    axes = [len(w.shapes[x]) - 1]
    w.plain[op.output] = _normalised(w, x, axes, op.options.get("epsilon", 1e-5), gamma, beta)


def _instance_norm(w: Writer, op: Op) -> None:
    gamma, beta = (w.net.constants[name] for name in op.inputs[1:3])
    x = w.as_last(op.inputs[0])
    w.last[op.output] = _normalised(w, x, [1, 2], op.options.get("epsilon", 1e-5), gamma, beta)


def _batch_norm(w: Writer, op: Op) -> None:
    gamma, beta, mean, variance = (w.net.constants[name] for name in op.inputs[1:5])
    factor = gamma / np.sqrt(variance + np.float32(op.options.get("epsilon", 1e-5)))
    x = w.as_last(op.inputs[0])
    scaled = w.new("MUL", [x, w.constant(factor)], w.shapes[x], "MulOptions")
    w.last[op.output] = w.new("ADD", [scaled, w.constant(beta - mean * factor)], w.shapes[x], "AddOptions")


# ---- elementwise ---------------------------------------------------------------------------------------------------


def _unary(code: str, options: str = "", **values: Any) -> Callable[[Writer, Op], None]:
    def write(w: Writer, op: Op) -> None:
        x = w.as_is(op.inputs[0])
        w.add(code, [x], [w.result(op.output, w.is_last(op.inputs[0]))], options, **values)

    return write


def _leaky(w: Writer, op: Op) -> None:
    _unary("LEAKY_RELU", "LeakyReluOptions", alpha=op.options.get("alpha", 0.01))(w, op)


def _clip(w: Writer, op: Op) -> None:
    if not _is_relu6(w.net, op):
        raise NotOffered("Clip to other than 0 to 6")
    _unary("RELU6")(w, op)


def _prelu(w: Writer, op: Op) -> None:
    slope = w.net.array(op, 1)
    assert slope is not None
    x = w.as_last(op.inputs[0])
    w.add("PRELU", [x, w.constant(slope.reshape(1, 1, -1))], [w.result(op.output, True)])


def _silu(w: Writer, op: Op) -> None:
    x = w.as_is(op.inputs[0])
    gate = w.new("LOGISTIC", [x], w.shapes[x])
    w.add("MUL", [x, gate], [w.result(op.output, w.is_last(op.inputs[0]))], "MulOptions")


def _hard_sigmoid(w: Writer, op: Op) -> None:
    if abs(op.options.get("alpha", 0.2) - 1 / 6) > 1e-6 or op.options.get("beta", 0.5) != 0.5:
        raise NotOffered("HardSigmoid of other constants")
    x = w.as_is(op.inputs[0])
    shifted = w.new("ADD", [x, w.constant(np.float32(3))], w.shapes[x], "AddOptions", fusedActivationFunction=RELU6)
    last = w.is_last(op.inputs[0])
    w.add("MUL", [shifted, w.constant(np.float32(1 / 6))], [w.result(op.output, last)], "MulOptions")


def _softmax(w: Writer, op: Op) -> None:
    """Along the last axis; others are brought there."""
    name = op.inputs[0]
    rank = len(w.net.shapes[name])
    axis = op.options.get("axis", -1) % rank
    if w.is_last(name) and axis == 1:
        w.add("SOFTMAX", [w.last[name]], [w.result(op.output, True)], "SoftmaxOptions", beta=1.0)
        return
    x, order = w.as_plain(name), [i for i in range(rank) if i != axis] + [axis]
    if axis == rank - 1:
        w.add("SOFTMAX", [x], [w.result(op.output, False)], "SoftmaxOptions", beta=1.0)
        return
    moved = w.transposed(x, order)
    made = w.new("SOFTMAX", [moved], w.shapes[moved], "SoftmaxOptions", beta=1.0)
    w.plain[op.output] = w.transposed(made, [order.index(i) for i in range(rank)])


# ---- places --------------------------------------------------------------------------------------------------------


def _concat(w: Writer, op: Op) -> None:
    rank = len(w.net.shapes[op.output])
    last = any(w.is_last(name) for name in op.inputs)
    axis = op.options["axis"] % rank
    given = [w.as_last(name) if last else w.as_plain(name) for name in op.inputs]
    w.add("CONCATENATION", given, [w.result(op.output, last)], "ConcatenationOptions",
          axis=w.axis(op.output, axis) if last else axis)  # fmt: skip


def _split(w: Writer, op: Op) -> None:
    name, last = op.inputs[0], w.is_last(op.inputs[0])
    axis = op.options.get("axis", 0) % len(w.net.shapes[name])
    sizes = [w.net.shapes[one][axis] for one in op.outputs]
    place = w.constant(w.axis(name, axis) if last else axis, np.int32)
    x, made = w.as_is(name), [w.result(one, last) for one in op.outputs]
    if len(set(sizes)) == 1:
        w.add("SPLIT", [place, x], made, "SplitOptions", numSplits=len(made))
    else:
        w.add("SPLIT_V", [x, w.constant(sizes, np.int32), place], made, "SplitVOptions", numSplits=len(made))


def _slice(w: Writer, op: Op) -> None:
    name, last = op.inputs[0], w.is_last(op.inputs[0])
    starts, stops, axes, steps = (w.net.constants[one].ravel() for one in op.inputs[1:5])
    x = w.as_is(name)
    begin, end, stride = [0] * len(w.shapes[x]), list(w.shapes[x]), [1] * len(w.shapes[x])
    for start, stop, axis, step in zip(starts, stops, axes, steps, strict=True):
        if min(start, stop, axis) < 0 or step < 1:
            raise NotOffered("slices from the end")
        at = w.axis(name, int(axis)) if last else int(axis)
        begin[at], end[at], stride[at] = int(start), min(int(stop), end[at]), int(step)
    given = [x, *(w.constant(one, np.int32) for one in (begin, end, stride))]
    w.add("STRIDED_SLICE", given, [w.result(op.output, last)], "StridedSliceOptions")


def _transpose(w: Writer, op: Op) -> None:
    """What only says that channels lie last costs nothing."""
    name, perm = op.inputs[0], list(op.options["perm"])
    if w.is_last(name) and perm == [0, 2, 3, 1]:
        w.plain[op.output] = w.last[name]
    elif w.is_last(name) and perm == [0, 2, 1]:
        w.plain[op.output] = w.reshaped(w.last[name], w.net.shapes[op.output])
    elif not w.is_last(name) and perm == [0, 3, 1, 2]:
        w.last[op.output] = w.as_plain(name)
    else:
        w.plain[op.output] = w.transposed(w.as_plain(name), perm)


def _reshape(w: Writer, op: Op) -> None:
    w.plain[op.output] = w.reshaped(w.as_plain(op.inputs[0]), w.net.shapes[op.output])


def _shuffle(w: Writer, op: Op) -> None:
    x, groups = w.as_last(op.inputs[0]), op.options["groups"]
    n, height, width, channels = w.shapes[x]
    parts = w.transposed(w.reshaped(x, (n, height * width, groups, channels // groups)), (0, 1, 3, 2))
    w.last[op.output] = w.reshaped(parts, (n, height, width, channels))


def _resize(w: Writer, op: Op) -> None:
    o = op.options
    if o.get("mode") != "nearest" or o.get("coordinate_transformation_mode") != "asymmetric":
        raise NotOffered("Resize other than of nearest pixels by factors")
    size = w.constant(w.last_shape(op.output)[1:3], np.int32)
    w.add("RESIZE_NEAREST_NEIGHBOR", [w.as_last(op.inputs[0]), size], [w.result(op.output, True)],
          "ResizeNearestNeighborOptions", alignCorners=False, halfPixelCenters=False)  # fmt: skip


def _pad(w: Writer, op: Op) -> None:
    pads, mode = w.net.array(op, 1), op.options.get("mode", "constant")
    if pads is None or mode not in ("constant", "reflect") or len(w.net.shapes[op.output]) != 4:
        raise NotOffered("Pad other than of images by zeros or by reflection")
    sides = np.stack([pads[:4], pads[4:]], 1)[[0, 2, 3, 1]]
    given = [w.as_last(op.inputs[0]), w.constant(sides, np.int32)]
    if mode == "reflect":
        w.add("MIRROR_PAD", given, [w.result(op.output, True)], "MirrorPadOptions", mode=0)
    else:
        w.add("PAD", given, [w.result(op.output, True)], "PadOptions")


def _depth_to_space(w: Writer, op: Op) -> None:
    w.add("DEPTH_TO_SPACE", [w.as_last(op.inputs[0])], [w.result(op.output, True)], "DepthToSpaceOptions",
          blockSize=op.options["blocksize"])  # fmt: skip


WRITERS: Final[dict[str, Callable[[Writer, Op], None]]] = {
    "Conv": convolution, "ConvTranspose": transposed, "MaxPool": pool, "AveragePool": pool,
    "GlobalAveragePool": _global_pool, "ReduceMean": _mean, "Gemm": _dense, "MatMul": _dense,
    **dict.fromkeys(BINARY, _binary), "LayerNormalization": _layer_norm, "InstanceNormalization": _instance_norm,
    "BatchNormalization": _batch_norm, "Relu": _unary("RELU"), "Clip": _clip, "LeakyRelu": _leaky, "PRelu": _prelu,
    "Sigmoid": _unary("LOGISTIC"), "Tanh": _unary("TANH"), "HardSwish": _unary("HARD_SWISH", "HardSwishOptions"),
    "HardSigmoid": _hard_sigmoid, "Silu": _silu, "Gelu": _unary("GELU", "GeluOptions", approximate=False),
    "Sqrt": _unary("SQRT"), "Softmax": _softmax, "Concat": _concat, "Split": _split, "Slice": _slice,
    "Transpose": _transpose, "Reshape": _reshape, "Flatten": _reshape, "Shuffle": _shuffle, "Resize": _resize,
    "Pad": _pad, "DepthToSpace": _depth_to_space,
}  # fmt: skip


def litert_file(net: Net) -> LitertFile:
    """The file of a net from `x` to one result."""
    if len(net.outputs) != 1:
        raise NotOffered("not set up for several results")
    net = _fused(net)
    writer = Writer(net)
    last = len(net.shapes["x"]) in LAST
    if not last:
        raise NotOffered("images and signals only; XNNPACK has nothing for volumes")
    writer.result("x", last)
    for op in net.ops:
        if op.kind not in WRITERS:
            raise NotOffered(f"the file has no {op.kind}")
        WRITERS[op.kind](writer, op)
    return writer.file()
