"""Operators that become one: normalisations, padding, sums and activations go into the convolutions before them.

A convolution takes over what follows it as long as nobody else reads its result:

- BatchNormalization, and multiplication by or addition of a value a channel, change its weights and bias;
- Pad before it becomes its padding, reflected and repeated edges too;
- a normalisation and ReLU before a pointwise one, whose input others read too as in densely connected nets, happen
  while it copies its input;
- an activation that `fastconv.plan_conv2d` fuses, and the addition of another value (a residual block's), happen while
  it stores its result.

Functions that a file spells out in small operators are put together first (`spelled`). What elementwise operators are
left go into chains (`chains`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from .._core.arrays import Array
from .chains import link
from .graph import Graph, Node
from .operators import INTERNAL
from .operators.chain import affine
from .operators.convolution import PADDING_MODES
from .quantisation import raise_dequantised
from .rewriter import Rewriter
from .spelled import RULES, bounds, interleaved

FLOATS: Final = ("float32", "float64")
FUSED: Final = {
    "Relu": "relu", "Sigmoid": "sigmoid", "HardSwish": "hardswish", "Silu": "silu", "Tanh": "tanh", "Gelu": "gelu",
}  # fmt: skip
Rule = Callable[[Rewriter, Node], bool]


def fuse(graph: Graph) -> None:
    """Apply the rules, in an order in which each makes way for the next."""
    rewriter = Rewriter(graph)
    raise_dequantised(rewriter)
    for rule in (*RULES, interleaved, _pad, _dense, _bias, _affine, _activation, _residual, _activation, _pooled):
        rewriter.apply(rule)
    link(rewriter)
    rewriter.apply(_before)
    rewriter.finish()


def for_quantising(graph: Graph) -> None:
    """Only what leaves every operator one of the standard: functions put together, normalisations in the weights."""
    rewriter = Rewriter(graph)
    for rule in (*RULES, _affine):
        rewriter.apply(rule)
    rewriter.finish()


# ---- matrix products -----------------------------------------------------------------------------------------------


def _dense(rewriter: Rewriter, node: Node) -> bool:
    """Gemm and MatMul with a constant matrix."""
    weight = rewriter.constants.get(node.input(1))
    if node.op_type not in ("Gemm", "MatMul") or weight is None or weight.ndim != 2 or weight.dtype.name not in FLOATS:
        return False
    if 0 in weight.shape:
        return False
    given = node.attributes
    bias = ""
    if node.op_type == "Gemm":
        if given.get("transA", 0) or given.get("alpha", 1.0) != 1.0:
            return False
        weight = weight.T if given.get("transB", 0) else weight
        if node.input(2):
            added = rewriter.constants.get(node.input(2))
            vector = None if added is None else _vector(added, weight.shape[1])
            if vector is None or vector.dtype != weight.dtype:
                return False
            beta = weight.dtype.type(given.get("beta", 1.0))
            bias = rewriter.constant(f"{node.outputs[0]}_bias", vector * beta)
    node.op_type, node.domain, node.attributes = "Dense", INTERNAL, {}
    rewriter.rewire(node, [node.inputs[0], rewriter.constant(f"{node.outputs[0]}_weight", weight), bias])
    return True


def _vector(array: Array, length: int) -> Array | None:
    """A constant that repeats along every axis but the last, as one row."""
    if array.size == 1 and array.ndim <= 2:
        return np.full(length, array.ravel()[0], array.dtype)
    return array.reshape(length) if array.size == length and array.ndim and array.shape[-1] == length else None


def _bias(rewriter: Rewriter, node: Node) -> bool:
    """A vector added to a matrix product."""
    if node.op_type != "Add" or len(node.inputs) != 2 or node.version < 7:
        return False
    for x, value in (node.inputs, node.inputs[::-1]):
        before, added = rewriter.producer(x, "Dense"), rewriter.constants.get(value)
        if before is None or added is None or not rewriter.single(x) or before.input(2) or not _plain(before):
            continue
        weight = rewriter.constants[before.inputs[1]]
        if added.ndim == 1 and added.shape == weight.shape[1:] and added.dtype == weight.dtype:
            rewriter.absorb(before, node, node.outputs, [*before.inputs[:2], value])
            return True
    return False


# ---- into convolutions ---------------------------------------------------------------------------------------------


def _convolution(rewriter: Rewriter, name: str, *op_types: str) -> Node | None:
    """The convolution with constant weights whose result only one node reads."""
    node = rewriter.producer(name, *(op_types or ("Conv",)))
    if node is None or not rewriter.single(name) or node.domain not in ("", INTERNAL):
        return None
    weight = rewriter.constants.get(node.input(1))
    bias = node.input(2)
    usable = weight is not None and weight.dtype.name in FLOATS and (not bias or bias in rewriter.constants)
    return node if usable else None


def _plain(node: Node) -> bool:
    """Whether nothing happens to a convolution's result yet."""
    return not node.attributes.get("activation") and len(node.inputs) < 4


def _pad(rewriter: Rewriter, node: Node) -> bool:
    """Pad before a convolution without padding of its own (zeros add up)."""
    if node.op_type != "Conv" or node.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", ""):
        return False
    pad = rewriter.producer(node.inputs[0], "Pad")
    weight = rewriter.constants.get(node.input(1))
    if pad is None or not rewriter.single(node.inputs[0]) or weight is None or weight.ndim != 4 or pad.input(3):
        return False
    widths: Any = pad.attributes.get("pads")
    given = rewriter.constants.get(pad.input(1))
    if widths is None and given is not None and given.dtype.kind == "i":
        widths = given.ravel().tolist()
    mode = PADDING_MODES.get(pad.attributes.get("mode", "constant"))
    if widths is None or len(widths) != 8 or any(widths[at] for at in (0, 1, 4, 5)) or mode is None or min(widths) < 0:
        return False
    value = rewriter.number(pad.input(2)) if pad.input(2) else pad.attributes.get("value", 0.0)
    own = node.attributes.get("pads") or [0, 0, 0, 0]
    if len(own) != 4:
        return False
    if mode == "zeros":
        if value != 0 or min(own) < 0:
            return False
    elif any(own):
        return False
    node.attributes["pads"] = [own[0] + widths[2], own[1] + widths[3], own[2] + widths[6], own[3] + widths[7]]
    node.attributes["padding_mode"] = mode
    node.domain, node.parts = INTERNAL, [*pad.parts, *node.parts]
    rewriter.rewire(node, [pad.inputs[0], *node.inputs[1:]])
    rewriter.remove(pad)
    return True


def _affine(rewriter: Rewriter, node: Node) -> bool:
    """A factor and a shift a channel behind a convolution; a normalisation without one becomes a step of its own."""
    if node.op_type == "BatchNormalization" and node.domain == "":
        found = normalisation(node, rewriter.constants)
        if found is None:
            return False
        before = _convolution(rewriter, node.inputs[0], "Conv", "ConvTranspose")
        if before is not None and _plain(before) and _scale(rewriter, before, *found):
            rewriter.absorb(before, node, node.outputs[:1], before.inputs)
            return True
        made = node.outputs[0]
        parts = [rewriter.constant(f"{made}_scale", found[0]), rewriter.constant(f"{made}_shift", found[1])]
        node.op_type, node.domain = "ChannelAffine", INTERNAL
        node.attributes = {}
        rewriter.rewire(node, [node.inputs[0], *parts], [made])
        return True
    if node.op_type not in ("Mul", "Add", "Sub", "Div") or len(node.inputs) != 2 or node.version < 7:
        return False
    for x, value in (node.inputs, node.inputs[::-1]):
        before = _convolution(rewriter, x, "Conv", "ConvTranspose")
        if before is None or not _plain(before) or (x != node.inputs[0] and node.op_type in ("Sub", "Div")):
            continue
        outputs, rank = _outputs(rewriter, before), rewriter.constants[before.inputs[1]].ndim
        part = _per_channel(rewriter.constants.get(value), outputs, rank)
        if part is None or (node.op_type == "Div" and not np.all(part)):
            continue
        ones, zeros = np.ones_like(part), np.zeros_like(part)
        scale = {"Mul": part, "Div": 1 / part if node.op_type == "Div" else ones}.get(node.op_type, ones)
        shift = {"Add": part, "Sub": -part}.get(node.op_type, zeros)
        if _scale(rewriter, before, scale, shift):
            rewriter.absorb(before, node, node.outputs, before.inputs)
            return True
    return False


def normalisation(node: Node, constants: dict[str, Array]) -> tuple[Array, Array] | None:
    """Factor and shift of a BatchNormalization with constant statistics."""
    attributes = node.attributes
    training = attributes.get("training_mode", 0)
    if node.version < 7:
        training = not attributes.get("is_test", 0)
    if training or any(node.outputs[1:]) or len(node.inputs) != 5:
        return None
    parts = [constants.get(name) for name in node.inputs[1:]]
    if any(part is None or part.ndim != 1 or part.dtype.name not in FLOATS for part in parts):
        return None
    scale, bias, mean, variance = (part.astype(np.float64) for part in parts if part is not None)
    if len({part.shape for part in (scale, bias, mean, variance)}) > 1:
        return None
    factor = scale / np.sqrt(variance + attributes.get("epsilon", 1e-5))
    kind = constants[node.inputs[1]].dtype
    return factor.astype(kind), (bias - mean * factor).astype(kind)


def _outputs(rewriter: Rewriter, node: Node) -> Any:
    """The output channels of a convolution."""
    weight = rewriter.constants[node.inputs[1]]
    return weight.shape[0] if node.op_type == "Conv" else weight.shape[1] * int(node.attributes.get("group", 1))


def _per_channel(array: Array | None, channels: int, rank: int) -> Array | None:
    """A constant that has one value a channel, as a vector."""
    if array is None or array.dtype.name not in FLOATS:
        return None
    if array.size == 1 and array.ndim <= rank:
        return np.full(channels, array.ravel()[0], array.dtype)
    shape = (1,) * (rank - array.ndim) + array.shape
    return array.reshape(channels) if shape == (1, channels, *(1,) * (rank - 2)) else None


def _scale(rewriter: Rewriter, node: Node, scale: Array, shift: Array) -> bool:
    """Multiply a convolution's results by a factor and add a shift, by its weights and bias."""
    weight, outputs = rewriter.constants[node.inputs[1]], _outputs(rewriter, node)
    if weight.ndim < 3 or scale.shape != (outputs,):
        return False
    bias = rewriter.constants[node.input(2)] if node.input(2) else np.zeros(outputs, weight.dtype)
    if bias.shape != (outputs,):
        return False
    behind = (1,) * (weight.ndim - 2)
    own = node.inputs[1] in rewriter.graph.own and weight.dtype == scale.dtype
    scaled = weight if own else np.empty(weight.shape, np.result_type(weight, scale))
    if node.op_type == "Conv":
        np.multiply(weight, scale.reshape(-1, 1, *behind), out=scaled)
    else:
        groups = int(node.attributes.get("group", 1))
        if groups < 1 or weight.shape[0] % groups:
            return False
        each, to = (array.reshape(groups, -1, *weight.shape[1:]) for array in (weight, scaled))
        np.multiply(each, scale.reshape(groups, 1, -1, *behind), out=to)
    moved = bias.astype(np.float64) * scale + shift
    made = node.outputs[0]
    name = rewriter.constant(f"{made}_weight", scaled.astype(weight.dtype, copy=False))
    rewriter.rewire(node, [node.inputs[0], name, rewriter.constant(f"{made}_bias", moved.astype(weight.dtype))])
    if own:
        rewriter.graph.own.add(name)
    return True


def _activation(rewriter: Rewriter, node: Node) -> bool:
    """An activation behind a convolution or a normalisation."""
    word = FUSED.get(node.op_type)
    if word == "gelu" and node.attributes.get("approximate", "none") == "tanh":
        word = "gelu_tanh"
    if node.op_type == "LeakyRelu" and abs(node.attributes.get("alpha", 0.01) - 0.01) < 1e-9:
        word = "leaky_relu"
    if node.op_type == "Clip":
        limits = bounds(rewriter, node)
        word = "relu6" if limits == (0.0, 6.0) else "relu" if limits == (0.0, None) and not node.input(2) else None
    if node.op_type == "Silu" or (node.op_type == "Swish" and node.attributes.get("alpha", 1.0) == 1.0):
        word = "silu"
    if word is None:
        return False
    before = _convolution(rewriter, node.inputs[0], "Conv", "ConvTranspose", "ChannelAffine", "Dense")
    if before is None or before.attributes.get("activation"):
        return False
    before.attributes["activation"] = word
    rewriter.absorb(before, node, node.outputs, before.inputs)
    return True


def _residual(rewriter: Rewriter, node: Node) -> bool:
    """The sum of a convolution's result and another value."""
    if node.op_type not in ("Add", "Sum") or len(set(node.inputs)) != 2 or len(node.inputs) != 2 or node.version < 7:
        return False
    found = []
    for x, other in (node.inputs, node.inputs[::-1]):
        before = _convolution(rewriter, x)
        if before is None or not _plain(before) or other in rewriter.constants:
            continue
        found.append((rewriter.place(before), before, other))
    if not found:
        return False
    _, before, other = max(found, key=lambda one: one[0])  # the later one: the other value is there by then
    bias = before.input(2)
    rewriter.absorb(before, node, node.outputs, [*before.inputs[:2], bias, other])
    return True


# ---- a chain before a convolution ------------------------------------------------------------------------------------


def _before(rewriter: Rewriter, node: Node) -> bool:
    """A constant factor a channel, perhaps a shift and ReLU, before a pointwise convolution that alone reads what they
    make. (Factors of squeeze-and-excitation lie in the cache with what they multiply: that gains nothing.)"""
    given = node.attributes.get
    if node.op_type != "Conv" or given("before") or given("pool") or any(given("pads") or ()):
        return False
    chain, weight = rewriter.producer(node.inputs[0], "Elementwise"), rewriter.constants.get(node.input(1))
    if chain is None or not rewriter.single(node.inputs[0]) or weight is None or weight.dtype.name not in FLOATS:
        return False
    usual = given("group", 1) == 1 and given("auto_pad", "NOTSET") in ("NOTSET", "", "VALID")
    if not usual or weight.ndim < 3 or max(weight.shape[2:]) != 1:
        return False
    if affine(chain.attributes["chain"], rewriter.number, weight.ndim) is None:
        return False
    vectors = {name for link in chain.attributes["chain"] for name in link.node.inputs[1:]
               if link.node.op_type == "ChannelAffine"}  # fmt: skip
    for name in chain.inputs[1:]:
        value = rewriter.constants.get(name)
        if value is None or value.dtype != weight.dtype or value.size != weight.shape[1]:
            return False
        if name not in vectors and _per_channel(value, weight.shape[1], weight.ndim) is None:
            return False
    node.attributes["before"] = chain
    node.domain, node.parts = INTERNAL, [*chain.parts, *node.parts]
    own = [node.input(at) for at in range(1, 4)]
    rewriter.rewire(node, [chain.inputs[0], *own, *chain.inputs[1:]])
    rewriter.remove(chain)
    return True


# ---- pooling behind a convolution ------------------------------------------------------------------------------------


def _pooled(rewriter: Rewriter, node: Node) -> bool:
    """The largest of every 2 x 2 results of a convolution that nobody else reads: they need not be stored."""
    wanted = {"kernel_shape": [2, 2], "strides": [2, 2]}
    usual = {"auto_pad": "NOTSET", "ceil_mode": 0, "pads": [0] * 4, "dilations": [1, 1], "storage_order": 0}
    given = node.attributes.get
    if node.op_type != "MaxPool" or any(node.outputs[1:]) or any(given(name) != wanted[name] for name in wanted):
        return False
    if any(given(name, value) != value for name, value in usual.items()):
        return False
    before = _convolution(rewriter, node.inputs[0])
    if before is None or len(before.inputs) > 3 or before.attributes.get("activation") not in (None, "relu"):
        return False
    if rewriter.constants[before.inputs[1]].ndim != 4 or before.attributes.get("pool"):
        return False
    before.attributes["pool"] = True
    before.domain = INTERNAL
    rewriter.absorb(before, node, node.outputs[:1], before.inputs)
    return True
