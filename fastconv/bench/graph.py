"""A model of ours as other libraries take it: a list of plain operations, an ONNX model, an ncnn net, torch modules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, groupby
from typing import Any, cast

import numpy as np

from .._core.arrays import Array
from .._core.words import Shape
from ..errors import ConvError
from ..layers.activations import LINEAR, Activation, Function
from ..layers.base import Layer
from ..layers.convolution import Conv
from ..layers.core import Dense, Dropout, Flatten, Residual
from ..layers.normalization import BatchNormalization
from ..layers.pooling import GlobalAveragePooling2D, MaxPooling2D
from ..models import Sequential
from .peers import module, serialized

ACTIVATIONS = ("relu", "softmax")


@dataclass(frozen=True)
class Node:
    """An operation on named values: 'conv', 'norm', 'relu', 'softmax', 'max_pool', 'mean', 'flatten', 'dense', 'add'.

    Arrays are in the order of the other libraries: images NCHW, weights OIHW, matrices (out, in).
    """

    kind: str
    inputs: tuple[str, ...]
    output: str
    arrays: tuple[Array, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


def nodes(model: Sequential) -> list[Node]:
    """The operations of a built model from 'x' to 'y'; dropout, which does nothing in inference, is left out."""
    assert model.built_shape is not None
    names = (f"v{i}" for i in count())
    found, value, _ = _chain(model.layers, model.built_shape, "x", names)
    return [replace(node, output="y") if node.output == value else node for node in found]


def _chain(
    layers: Sequence[Layer], sample: Shape, value: str, names: Iterator[str]
) -> tuple[list[Node], str, Shape]:
    """The nodes of a chain of layers, the name of its result and the result's shape (H, W, C) or (F,)."""
    made: list[Node] = []
    flattened: Shape | None = None  # (H, W, C) that a Flatten before the next dense layer saw

    def add(kind: str, arrays: tuple[Array, ...] = (), inputs: tuple[str, ...] = (), **options: Any) -> None:
        nonlocal value
        made.append(Node(kind, inputs or (value,), next(names), arrays, options))
        value = made[-1].output

    def activate(function: Function) -> None:
        if function.name in ACTIVATIONS:
            add(function.name)
        elif function is not LINEAR:
            raise ConvError(f"the comparison has no {function.name}")

    for layer in layers:
        after: Any = layer.output_shape(sample)
        if isinstance(layer, Conv):
            g = layer.geometry(sample)
            (padding, same), *others = g.padding
            if others != [(padding, padding)] or same != padding:
                raise ConvError(f"the comparison needs equal padding on all sides; {layer.name} has {g.padding}")
            kernel = layer._weight().transpose(3, 2, 0, 1)
            arrays = (kernel,) if layer.bias is None else (kernel, layer.bias.array)
            add("conv", arrays, kernel=g.kernel_size[0], stride=g.stride[0], padding=padding, groups=g.groups)
            activate(layer.activation)
        elif isinstance(layer, BatchNormalization):
            parts = (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
            add("norm", tuple(part.array for part in parts if part is not None), epsilon=layer.epsilon)
        elif isinstance(layer, Activation):
            activate(layer.function)
        elif isinstance(layer, MaxPooling2D):
            pool = layer.geometry(sample)
            add("max_pool", kernel=pool.kernel_size[0], stride=pool.stride[0], padding=pool.padding[0][0])
        elif isinstance(layer, GlobalAveragePooling2D):
            add("mean")
        elif isinstance(layer, Flatten):
            flattened = sample
            add("flatten")
        elif isinstance(layer, Dense):
            assert layer.kernel is not None and layer.bias is not None
            weight = layer.kernel.array
            if flattened is not None:  # our rows are in the order H, W, C, theirs in C, H, W
                weight = weight.reshape(*flattened, -1).transpose(2, 0, 1, 3).reshape(weight.shape)
                flattened = None
            add("dense", (weight.T, layer.bias.array))
            activate(layer.activation)
        elif isinstance(layer, Residual):
            body, main, _ = _chain(layer.body, sample, value, names)
            shortcut, side, _ = _chain(layer.shortcut, sample, value, names)
            made += body + shortcut
            add("add", inputs=(main, side))
            activate(layer.activation)
        elif not isinstance(layer, Dropout):
            raise ConvError(f"the comparison has no {type(layer).__name__}")
        sample = after
    return made, value, sample


# ---- ONNX ----------------------------------------------------------------------------------------------------------

ONNX_NAMES = {
    "conv": "Conv", "norm": "BatchNormalization", "relu": "Relu", "softmax": "Softmax", "max_pool": "MaxPool",
    "mean": "GlobalAveragePool", "flatten": "Flatten", "dense": "Gemm", "add": "Add",
}  # fmt: skip


def _onnx_options(node: Node) -> dict[str, Any]:
    o = node.options
    if node.kind in ("conv", "max_pool"):
        window = {"kernel_shape": [o["kernel"]] * 2, "strides": [o["stride"]] * 2, "pads": [o["padding"]] * 4}
        return window | ({"group": o["groups"]} if node.kind == "conv" else {})
    if node.kind == "norm":
        return {"epsilon": o["epsilon"]}
    return {"transB": 1} if node.kind == "dense" else {}


def onnx_net(graph: Sequence[Node], input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> bytes:
    """The ONNX model of the operations, for images (N, C, H, W)."""
    helper = module("onnx").helper
    made: list[Any] = []
    weights: dict[str, Array] = {}
    for node in graph:
        names = [f"{node.output}_{i}" for i in range(len(node.arrays))]
        weights |= dict(zip(names, node.arrays, strict=True))
        target = f"{node.output}_map" if node.kind == "mean" else node.output
        made.append(helper.make_node(ONNX_NAMES[node.kind], [*node.inputs, *names], [target], **_onnx_options(node)))
        if node.kind == "mean":  # the mean of a map is still a map of one pixel
            made.append(helper.make_node("Flatten", [target], [node.output]))
    return serialized(made, weights, input_shape, output_shape)


# ---- ncnn ----------------------------------------------------------------------------------------------------------


def fused(graph: Sequence[Node]) -> list[Node]:
    """Normalisation folded into the convolution before it, ReLU made part of convolutions and dense layers.

    This is what ncnn's own converter does; the other libraries do it by themselves when they load a model.
    """
    uses = Counter(name for node in graph for name in node.inputs)
    made: list[Node] = []
    by_output: dict[str, int] = {}
    for node in graph:
        at = by_output.get(node.inputs[0])
        before = made[at] if at is not None and uses[node.inputs[0]] == 1 else None
        if before is not None and node.kind == "norm" and before.kind == "conv" and not before.options.get("relu"):
            gamma, beta, mean, variance = node.arrays
            scale = gamma / np.sqrt(variance + node.options["epsilon"])
            weight, *bias = before.arrays
            shift = beta + ((bias[0] if bias else 0) - mean) * scale
            before = replace(before, arrays=(weight * scale.reshape(-1, 1, 1, 1), shift), output=node.output)
        elif before is not None and node.kind == "relu" and before.kind in ("conv", "dense"):
            before = replace(before, options=before.options | {"relu": True}, output=node.output)
        else:
            made.append(node)
            by_output[node.output] = len(made) - 1
            continue
        assert at is not None
        made[at] = before
        by_output[node.output] = at
    return made


def _ncnn_layer(node: Node) -> tuple[str, str]:
    """ncnn's name and numbered options of an operation."""
    o = node.options
    relu = " 9=1" if o.get("relu") else ""
    if node.kind == "conv":
        weight = node.arrays[0]
        numbers = f"0={weight.shape[0]} 1={o['kernel']} 3={o['stride']} 4={o['padding']} 5=1 6={weight.size}{relu}"
        return ("ConvolutionDepthWise", f"{numbers} 7={o['groups']}") if o["groups"] > 1 else ("Convolution", numbers)
    if node.kind == "dense":
        return "InnerProduct", f"0={node.arrays[0].shape[0]} 1=1 2={node.arrays[0].size}{relu}"
    if node.kind == "max_pool":
        return "Pooling", f"0=0 1={o['kernel']} 2={o['stride']} 3={o['padding']} 5=1"
    others = {
        "mean": ("Pooling", "0=1 4=1"), "relu": ("ReLU", ""), "softmax": ("Softmax", "0=0 1=1"),
        "add": ("BinaryOp", "0=0"), "flatten": ("Flatten", ""),
    }  # fmt: skip
    return others[node.kind]


def ncnn_net(graph: Sequence[Node]) -> tuple[str, list[tuple[bool, Array]]]:
    """ncnn's text of the fused operations, and the arrays of its weights file (True: the first of a layer)."""
    graph = fused(graph)
    uses = Counter(name for node in graph for name in node.inputs)
    free = {name: [f"{name}_{i}" for i in range(number)] for name, number in uses.items() if number > 1}
    lines, arrays, blobs = ["Input x 0 1 x"], [], 1

    def split(name: str) -> None:  # a value that is used twice needs a layer that hands it out
        nonlocal blobs
        if name in free:
            lines.append(f"Split {name}_split 1 {len(free[name])} {name} {' '.join(free[name])}")
            blobs += len(free[name])

    split("x")
    for node in graph:
        kind, numbers = _ncnn_layer(node)
        inputs = [free[name].pop(0) if name in free else name for name in node.inputs]
        lines.append(f"{kind} {node.output}_layer {len(inputs)} 1 {' '.join(inputs)} {node.output} {numbers}")
        blobs += 1
        given = list(node.arrays)
        if node.kind == "conv" and len(given) == 1:
            given.append(np.zeros(len(given[0]), given[0].dtype))
        arrays += [(i == 0, array) for i, array in enumerate(given)]
        split(node.output)
    return "\n".join(["7767517", f"{len(lines)} {blobs}", *lines, ""]), arrays


# ---- PyTorch -------------------------------------------------------------------------------------------------------


def torch_net(layers: Sequence[Layer], sample: Shape, softmax: bool = True) -> Any:
    """The layers as a torch.nn.Sequential with copies of their weights; without the last softmax for training."""
    torch = module("torch")

    class Sum(torch.nn.Module):  # type: ignore[name-defined, misc, unused-ignore]
        def __init__(self, body: Any, shortcut: Any) -> None:
            super().__init__()
            self.body, self.shortcut = body, shortcut

        def forward(self, x: Any) -> Any:
            return self.body(x).add_(self.shortcut(x))

    modules: list[Any] = []
    for is_residual, group in groupby(layers, lambda layer: isinstance(layer, Residual)):
        if not is_residual:
            made, _, sample = _chain(list(group), sample, "x", (f"v{i}" for i in count()))
            modules += [_torch_module(torch, node) for node in made]
            continue
        for block in group:
            assert isinstance(block, Residual)
            modules.append(Sum(torch_net(block.body, sample), torch_net(block.shortcut, sample)))
            modules += [torch.nn.ReLU(inplace=True)] if block.activation is not LINEAR else []
            sample = cast(Shape, block.output_shape(sample))
    if not softmax and isinstance(modules[-1], torch.nn.Softmax):
        modules.pop()
    return torch.nn.Sequential(*modules)


def _torch_module(torch: Any, node: Node) -> Any:
    nn, o = torch.nn, node.options
    if node.kind == "conv":
        outer, inner = node.arrays[0].shape[:2]
        made = nn.Conv2d(
            inner * o["groups"], outer, o["kernel"], o["stride"], o["padding"], groups=o["groups"],
            bias=len(node.arrays) > 1,
        )  # fmt: skip
        names = ("weight", "bias")
    elif node.kind == "dense":
        outer, inner = node.arrays[0].shape
        made, names = nn.utils.skip_init(nn.Linear, inner, outer), ("weight", "bias")
    elif node.kind == "norm":
        made, names = nn.BatchNorm2d(len(node.arrays[0]), o["epsilon"]), ("weight", "bias")
    else:
        return {
            "relu": lambda: nn.ReLU(inplace=True), "softmax": lambda: nn.Softmax(1), "flatten": lambda: nn.Flatten(),
            "max_pool": lambda: nn.MaxPool2d(o["kernel"], o["stride"], o["padding"]),
            "mean": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        }[node.kind]()  # fmt: skip
    with torch.no_grad():
        for name, array in zip((*names, "running_mean", "running_var"), node.arrays, strict=False):
            getattr(made, name).copy_(torch.from_numpy(np.array(array)))
    return made
