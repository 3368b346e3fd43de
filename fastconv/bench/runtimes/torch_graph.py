"""An ONNX net as a module of PyTorch, of the functions that its users write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from ..peers import NotOffered, module
from .reading import Net, Op

IN_PLACE_AFTER: Final = ("Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization", "Gemm", "Add")


class Writer:
    """Adds the calls of one operation after another to a graph of torch.fx."""

    def __init__(self, net: Net) -> None:
        self.torch = module("torch")
        self.f: Any = self.torch.nn.functional
        self.net, self.uses = net, net.uses()
        self.root = self.torch.nn.Module()
        self.graph = self.torch.fx.Graph()
        self.values: dict[str, Any] = {"x": self.graph.placeholder("x")}
        self.maker = {op.output: op.kind for op in net.ops}

    def module(self) -> Any:
        """The whole net."""
        for op in self.net.ops:
            write = WRITERS.get(op.kind)
            if write is None:
                raise NotOffered(f"the module has no {op.kind}")
            made = write(self, op)
            for name, value in zip(op.outputs, made if isinstance(made, list) else [made], strict=True):
                self.values[name] = value
        results = [self.values[name] for name in self.net.outputs]
        self.graph.output(results[0] if len(results) == 1 else tuple(results))
        return self.torch.fx.GraphModule(self.root, self.graph).eval()

    def value(self, name: str) -> Any:
        """A result, or a constant as a parameter of the module; None where the input was left out."""
        if name and name not in self.values:
            target = f"p_{name.replace('.', '_')}"
            tensor = self.torch.from_numpy(np.array(self.net.constants[name]))
            self.root.register_buffer(target, tensor)
            self.values[name] = self.graph.get_attr(target)
        return self.values[name] if name else None

    def inputs(self, op: Op, count: int) -> list[Any]:
        """The first inputs of an operation, None for those that it does not have."""
        return [self.value(name) for name in (*op.inputs, *[""] * count)[:count]]

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return self.graph.call_function(function, args, options)

    def ints(self, op: Op, index: int) -> list[int]:
        array = self.net.array(op, index)
        if array is None:
            raise NotOffered(f"{op.kind} by values that are computed")
        return [int(one) for one in array.ravel()]

    def in_place(self, op: Op) -> bool:
        """Whether nobody else reads the input, and it is no view."""
        return self.uses[op.inputs[0]] == 1 and self.maker.get(op.inputs[0]) in IN_PLACE_AFTER


def _convolution(w: Writer, op: Op) -> Any:
    x, weight, bias = w.inputs(op, 3)
    axes = len(w.net.shapes[op.inputs[0]]) - 2
    o = op.options
    begins, ends = (o.get("pads", [0] * 2 * axes)[i * axes : (i + 1) * axes] for i in range(2))
    strides, dilations = o.get("strides", [1] * axes), o.get("dilations", [1] * axes)
    if begins != ends:
        raise NotOffered("padding that differs from side to side")
    if op.kind == "Conv":
        function = (w.f.conv1d, w.f.conv2d, w.f.conv3d)[axes - 1]
        return w.call(function, x, weight, bias, strides, begins, dilations, o.get("group", 1))
    function = (w.f.conv_transpose1d, w.f.conv_transpose2d, w.f.conv_transpose3d)[axes - 1]
    more = o.get("output_padding", [0] * axes)
    return w.call(function, x, weight, bias, strides, begins, more, o.get("group", 1), dilations)


def _batch_norm(w: Writer, op: Op) -> Any:
    x, gamma, beta, mean, variance = w.inputs(op, 5)
    return w.call(w.f.batch_norm, x, mean, variance, gamma, beta, False, 0.0, op.options.get("epsilon", 1e-5))


def _instance_norm(w: Writer, op: Op) -> Any:
    x, gamma, beta = w.inputs(op, 3)
    return w.call(w.f.instance_norm, x, None, None, gamma, beta, True, 0.0, op.options.get("epsilon", 1e-5))


def _layer_norm(w: Writer, op: Op) -> Any:
    x, gamma, beta = w.inputs(op, 3)
    shape = list(w.net.shapes[op.inputs[0]][op.options.get("axis", -1) :])
    return w.call(w.f.layer_norm, x, shape, gamma, beta, op.options.get("epsilon", 1e-5))


def _pool(w: Writer, op: Op) -> Any:
    (x,) = w.inputs(op, 1)
    axes, o = len(w.net.shapes[op.inputs[0]]) - 2, op.options
    pads, ceil = o.get("pads", [0] * 2 * axes), bool(o.get("ceil_mode", 0))
    if pads[:axes] != pads[axes:]:
        raise NotOffered("padding that differs from side to side")
    window = (o["kernel_shape"], o.get("strides", [1] * axes), pads[:axes])
    if op.kind == "MaxPool":
        return w.call((w.f.max_pool1d, w.f.max_pool2d, w.f.max_pool3d)[axes - 1], x, *window, 1, ceil)
    function = (w.f.avg_pool1d, w.f.avg_pool2d, w.f.avg_pool3d)[axes - 1]
    return w.call(function, x, *window, ceil, bool(o.get("count_include_pad", 0)))


def _global_pool(w: Writer, op: Op) -> Any:
    axes = len(w.net.shapes[op.inputs[0]]) - 2
    function = (w.f.adaptive_avg_pool1d, w.f.adaptive_avg_pool2d, w.f.adaptive_avg_pool3d)[axes - 1]
    return w.call(function, *w.inputs(op, 1), 1)


def _clip(w: Writer, op: Op) -> Any:
    low, high = (w.net.array(op, i) for i in (1, 2))
    bounds = [None if one is None else float(one) for one in (low, high)]
    return w.call(w.f.hardtanh, *w.inputs(op, 1), *bounds, w.in_place(op))


def _binary(name: str) -> Callable[[Writer, Op], Any]:
    def write(w: Writer, op: Op) -> Any:
        args = []
        for i in range(2):
            array = w.net.array(op, i)
            args.append(float(array) if array is not None and array.ndim == 0 else w.value(op.inputs[i]))
        return w.call(getattr(w.torch, name), *args)

    return write


def _unary(name: str, functional: bool = False) -> Callable[[Writer, Op], Any]:
    return lambda w, op: w.call(getattr(w.f if functional else w.torch, name), *w.inputs(op, 1))


def _maybe_in_place(name: str) -> Callable[[Writer, Op], Any]:
    return lambda w, op: w.call(getattr(w.f, name), *w.inputs(op, 1), inplace=w.in_place(op))


def _prelu(w: Writer, op: Op) -> Any:
    x, slope = w.inputs(op, 2)
    return w.call(w.f.prelu, x, w.call(w.torch.flatten, slope))


def _split(w: Writer, op: Op) -> list[Any]:
    axis = op.options.get("axis", 0)
    parts = w.call(w.torch.split, w.value(op.inputs[0]), w.ints(op, 1), axis)
    return [w.call(_item, parts, i) for i in range(len(op.outputs))]


def _item(parts: Any, index: int) -> Any:
    return parts[index]


def _slice(w: Writer, op: Op) -> Any:
    shape = w.net.shapes[op.inputs[0]]
    starts, stops = w.ints(op, 1), w.ints(op, 2)
    axes = w.ints(op, 3) if len(op.inputs) > 3 else list(range(len(starts)))
    steps = w.ints(op, 4) if len(op.inputs) > 4 else [1] * len(starts)
    index = [slice(None)] * len(shape)
    for start, stop, axis, step in zip(starts, stops, axes, steps, strict=True):
        if step < 0:
            raise NotOffered("slices backwards")
        index[axis] = slice(start, stop, step)
    return w.call(_item, w.value(op.inputs[0]), tuple(index))


def _gemm(w: Writer, op: Op) -> Any:
    x, weight, bias = w.inputs(op, 3)
    o = op.options
    if o.get("transA", 0) or not o.get("transB", 0) or o.get("alpha", 1) != 1 or o.get("beta", 1) != 1:
        raise NotOffered("a Gemm that is no Linear layer")
    return w.call(w.f.linear, x, weight, bias)


def _resize(w: Writer, op: Op) -> Any:
    scales, o = w.net.array(op, 2), op.options
    if o.get("mode") != "nearest" or o.get("coordinate_transformation_mode") != "asymmetric" or scales is None:
        raise NotOffered("Resize other than of nearest pixels by factors")
    return w.call(w.f.interpolate, *w.inputs(op, 1), scale_factor=[float(one) for one in scales[2:]], mode="nearest")


def _pad(w: Writer, op: Op) -> Any:
    pads = w.ints(op, 1)
    rank, mode = len(pads) // 2, op.options.get("mode", "constant")
    given = [side for axis in reversed(range(rank)) for side in (pads[axis], pads[rank + axis])]
    given = given if mode == "constant" else given[: 2 * (rank - 2)]  # PyTorch reflects the spatial axes alone
    return w.call(w.f.pad, *w.inputs(op, 1), given, {"edge": "replicate"}.get(mode, mode))


def _depth_to_space(w: Writer, op: Op) -> Any:
    if op.options.get("mode", "DCR") != "CRD":
        raise NotOffered("DepthToSpace in the other order")
    return w.call(w.f.pixel_shuffle, *w.inputs(op, 1), op.options["blocksize"])


def _mean(w: Writer, op: Op) -> Any:
    return w.call(w.torch.mean, *w.inputs(op, 1), op.options["axes"], bool(op.options.get("keepdims", 1)))


def _reshape(w: Writer, op: Op) -> Any:
    return w.call(w.torch.reshape, w.value(op.inputs[0]), list(w.net.shapes[op.output]))


def _lstm(w: Writer, op: Op) -> Any:
    """A module of its own; ONNX has the gates in the order i o f c, PyTorch in i f g o, and directions inside."""
    hidden, directions = op.options["hidden_size"], 2 if op.options.get("direction") == "bidirectional" else 1
    kernels, recurrent, biases = (w.net.array(op, i) for i in (1, 2, 3))
    if kernels is None or recurrent is None or biases is None:
        raise NotOffered("an LSTM whose weights are computed")
    made = w.torch.nn.LSTM(kernels.shape[2], hidden, bidirectional=directions == 2)
    order = np.concatenate([np.arange(hidden) + gate * hidden for gate in (0, 2, 3, 1)])
    with w.torch.no_grad():
        for i in range(directions):
            end = "_reverse" if i else ""
            both = biases[i].reshape(2, -1)
            for name, array in (("weight_ih_l0", kernels[i]), ("weight_hh_l0", recurrent[i]), ("bias_ih_l0", both[0]),
                                ("bias_hh_l0", both[1])):  # fmt: skip
                getattr(made, name + end).copy_(w.torch.from_numpy(np.array(array[order])))
    steps, batch = w.net.shapes[op.inputs[0]][:2]
    w.root.add_module(f"lstm_{op.output}", made)
    y = w.call(_item, w.graph.call_module(f"lstm_{op.output}", (w.value(op.inputs[0]),)), 0)
    y = w.call(w.torch.reshape, y, [steps, batch, directions, hidden])
    return w.call(w.torch.transpose, y, 1, 2)


WRITERS: Final[dict[str, Callable[[Writer, Op], Any]]] = {
    "Conv": _convolution, "ConvTranspose": _convolution, "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm, "LayerNormalization": _layer_norm, "MaxPool": _pool, "AveragePool": _pool,
    "GlobalAveragePool": _global_pool, "Clip": _clip, "Relu": _maybe_in_place("relu"), "Silu": _maybe_in_place("silu"),
    "HardSwish": _maybe_in_place("hardswish"), "HardSigmoid": _maybe_in_place("hardsigmoid"),
    "LeakyRelu": lambda w, op: w.call(w.f.leaky_relu, *w.inputs(op, 1), op.options.get("alpha", 0.01), w.in_place(op)),
    "PRelu": _prelu, "Gelu": _unary("gelu", True), "Sigmoid": _unary("sigmoid"), "Tanh": _unary("tanh"),
    "Elu": _maybe_in_place("elu"),
    "Erf": _unary("erf"), "Sqrt": _unary("sqrt"), "Identity": lambda w, op: w.value(op.inputs[0]),
    "Add": _binary("add"), "Sub": _binary("sub"), "Mul": _binary("mul"), "Div": _binary("div"), "Pow": _binary("pow"),
    "Softmax": lambda w, op: w.call(w.f.softmax, *w.inputs(op, 1), op.options.get("axis", -1)),
    "Concat": lambda w, op: w.call(w.torch.cat, w.inputs(op, len(op.inputs)), op.options["axis"]),
    "Split": _split, "Slice": _slice, "Gemm": _gemm, "MatMul": lambda w, op: w.call(w.torch.matmul, *w.inputs(op, 2)),
    "Resize": _resize, "Pad": _pad, "DepthToSpace": _depth_to_space, "ReduceMean": _mean, "Reshape": _reshape,
    "Flatten": _reshape, "Squeeze": _reshape, "Unsqueeze": _reshape, "LSTM": _lstm,
    "Transpose": lambda w, op: w.call(w.torch.permute, *w.inputs(op, 1), op.options["perm"]),
}  # fmt: skip


def torch_module(net: Net) -> Any:
    """The net as a module that takes `x`."""
    return Writer(net).module()
