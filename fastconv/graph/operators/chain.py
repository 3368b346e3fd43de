"""Chains of elementwise operators in one parallel pass over memory: what `fastconv.graph.chains` puts together.

A chain follows one value through its operators. What it cannot do natively (other types than float32 and float64, a
value that grows by repetition on the way, arrays whose axes do not merge) is done operator by operator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import inf, prod
from typing import Any, Final, NamedTuple

import numpy as np

from ... import _native
from ..._core.arrays import Array
from ..._core.steps import (
    ABS,
    ADD,
    CELU,
    CUBE,
    DIV,
    DIV_BY,
    ELU,
    ERF,
    EXP,
    GELU,
    GELU_TANH,
    HARDSWISH,
    LEAKY,
    LOG,
    MAX,
    MAX_NUMBER,
    MIN,
    MISH,
    MUL,
    NEGATE,
    ROUND,
    SERIAL_BELOW,
    SIGMOID,
    SILU,
    SOFTPLUS,
    SOFTSIGN,
    SQRT,
    SQUARE,
    SUB,
    SUB_FROM,
    TANH,
    THRESHOLD,
    TYPES,
    cost,
)  # fmt: skip
from ..._core.threads import effective
from ..graph import Node
from .registry import INTERNAL, Call, find, operator

MOST_OPERANDS: Final = 6  # of the native driver, as the next
MOST_STEPS: Final = 48
MOST_AXES: Final = 5  # as many as arrays that reach native code have
SELU_ALPHA, SELU_GAMMA = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017

# The value as the first and as the second of two inputs.
BINARY: Final = {"Add": (ADD, ADD), "Sub": (SUB, SUB_FROM), "Mul": (MUL, MUL), "Div": (DIV, DIV_BY)}
UNARY: Final[dict[str, tuple[tuple[int, float], ...]]] = {
    "Sqrt": ((SQRT, 0.0),), "Abs": ((ABS, 0.0),), "Neg": ((NEGATE, 0.0),), "Reciprocal": ((DIV_BY, 1.0),),
    "Relu": ((MAX, 0.0),), "Sigmoid": ((SIGMOID, 0.0),), "Silu": ((SILU, 0.0),), "HardSwish": ((HARDSWISH, 0.0),),
    "Exp": ((EXP, 0.0),), "Log": ((LOG, 0.0),), "Erf": ((ERF, 0.0),), "Tanh": ((TANH, 0.0),),
    "Softplus": ((SOFTPLUS, 0.0),), "Mish": ((MISH, 0.0),), "Softsign": ((SOFTSIGN, 0.0),),
}  # fmt: skip
# Those of an operator with attributes, from these.
PARAMETRIC: Final[dict[str, Callable[[Callable[..., Any]], tuple[tuple[int, float], ...]]]] = {
    "LeakyRelu": lambda get: ((LEAKY, get("alpha", 0.01)),),
    "HardSigmoid": lambda get: ((MUL, get("alpha", 0.2)), (ADD, get("beta", 0.5)), (MAX, 0.0), (MIN, 1.0)),
    "Elu": lambda get: ((ELU, get("alpha", 1.0)),),
    "Selu": lambda get: ((ELU, get("alpha", SELU_ALPHA)), (MUL, get("gamma", SELU_GAMMA))),
    "Celu": lambda get: ((CELU, get("alpha", 1.0)),),
    "ThresholdedRelu": lambda get: ((THRESHOLD, get("alpha", 1.0)),),
    "Swish": lambda get: _swish(get("alpha", 1.0)),
    "Gelu": lambda get: ((GELU_TANH if get("approximate", "none") == "tanh" else GELU, 0.0),),
}
ACTIVATIONS: Final = {
    "relu": UNARY["Relu"], "relu6": ((MAX, 0.0), (MIN, 6.0)), "leaky_relu": ((LEAKY, 0.01),),
    "sigmoid": UNARY["Sigmoid"], "silu": UNARY["Silu"], "hardswish": UNARY["HardSwish"],
    "tanh": UNARY["Tanh"], "gelu": ((GELU, 0.0),), "gelu_tanh": ((GELU_TANH, 0.0),),
}  # fmt: skip
POWERS: Final[dict[float, tuple[tuple[int, float], ...]]] = {
    1.0: (), 2.0: ((SQUARE, 0.0),), 3.0: ((CUBE, 0.0),), 4.0: ((SQUARE, 0.0), (SQUARE, 0.0)), 0.5: ((SQRT, 0.0),),
    -0.5: ((SQRT, 0.0), (DIV_BY, 1.0)), -1.0: ((DIV_BY, 1.0),),
}  # fmt: skip


def _swish(alpha: float) -> tuple[tuple[int, float], ...]:
    """x sigmoid(alpha x) = silu(alpha x) / alpha."""
    return ((SILU, 0.0),) if alpha == 1.0 else ((MUL, alpha), (SILU, 0.0), (DIV, alpha))


Step = tuple[int, Any, float]  # code, name of an operand or None, number


class Link(NamedTuple):
    """An operator of a chain, and which of its inputs is the value that the chain follows."""

    node: Node
    main: int


class Unfit(Exception):
    """A chain that the native driver does not take."""


class Ready(NamedTuple):
    """A chain prepared for arrays of certain shapes and strides."""

    main: int
    operands: tuple[int, ...]
    shape: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    steps: tuple[tuple[int, int, float], ...]
    cost: int  # in steps of arithmetic


@operator("Elementwise", as_stored=True, domain=INTERNAL)
def elementwise(call: Call, *arrays: Array) -> Any:
    """All operators of the attribute `chain`, one after the other."""
    key = tuple([(array.shape, array.strides, array.dtype) for array in arrays])
    main = call.state.get(key)
    if main is None:
        main = call.state[key] = _main(call, arrays)
        call.state[main] = _read_again(call, main)
    if main >= 0:
        out = call.into(arrays[main], fresh=call.state[main])
        ready = call.state.get((key, out.strides))
        if ready is None:
            try:
                ready = prepared(call, arrays, main, out)
            except Unfit as reason:
                call.describe(f"NumPy: {reason}")
                ready = reason
            call.state[key, out.strides] = ready
        if isinstance(ready, Ready):
            busy = out.size * ready.cost >= SERIAL_BELOW
            _native.elementwise(
                out, arrays[main], tuple([arrays[at] for at in ready.operands]), ready.shape, ready.strides,
                ready.steps, effective(call.threads) if busy else 1,
            )  # fmt: skip
            call.natively()
            return out
    return one_by_one(call, arrays)


def one_by_one(call: Call, arrays: Sequence[Array]) -> Any:
    """The operators of a chain by themselves."""
    values: dict[str, Any] = {"": None, **dict(zip(call.node.inputs, arrays, strict=True))}
    result: Any = None
    for link in call.node.attributes["chain"]:
        node = link.node
        found = find(node.domain, node.op_type, node.version)
        assert found is not None  # it stood in the graph
        inner = Call(node, call.pool, call.threads)
        inner.begin([values[name] for name in node.inputs])
        result = values[node.outputs[0]] = found.function(inner, *inner.inputs)
    return result


def _main(call: Call, arrays: Sequence[Array]) -> int:
    """Which array the chain follows: one of the result's shape; -1 where it is not one of the first operator's."""
    if arrays[0].dtype not in TYPES or not arrays[0].size:
        return -1
    links: list[Link] = call.node.attributes["chain"]
    vectors = {name for link in links if link.node.op_type == "ChannelAffine" for name in link.node.inputs[1:]}
    shapes = [a.shape for a, name in zip(arrays, call.node.inputs, strict=True) if name not in vectors]
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError:
        return -1
    if arrays[0].shape == shape:
        return 0
    first = links[0]
    if first.node.op_type in BINARY and len(first.node.inputs) == 2:
        at = call.node.inputs.index(first.node.inputs[1 - first.main])
        if arrays[at].shape == shape and arrays[at].dtype == arrays[0].dtype:
            return at
    return -1


def _read_again(call: Call, main: int) -> bool:
    """Whether the array that the chain follows is an operand too, so that it must stay as it is."""
    links: list[Link] = call.node.attributes["chain"]
    reads = sum(link.node.inputs.count(call.node.inputs[main]) for link in links)
    return main >= 0 and reads > 1


# ---- operators as steps ----------------------------------------------------------------------------------------------


def prepared(call: Call, arrays: Sequence[Array], main: int, out: Array) -> Ready:
    """The native steps and the axes of a chain; raises `Unfit`."""
    values = dict(zip(call.node.inputs, arrays, strict=True))
    links: list[Link] = list(call.node.attributes["chain"])
    if main:  # the other operand of the first operator
        links[0] = Link(links[0].node, 1 - links[0].main)

    def number(name: str) -> float | None:
        """A constant of one element."""
        array = values[name]
        constant = call.is_constant(call.node.inputs.index(name)) and array.size == 1
        return float(array.ravel()[0]) if constant and array.dtype.kind in "fiu" else None

    made: list[Step] = []
    for link in links:
        made += link_steps(link, number, arrays[main].ndim)
    used = list(dict.fromkeys(place for _, place, _ in made if place is not None))
    if len(made) > MOST_STEPS or len(used) > MOST_OPERANDS:
        raise Unfit("too many operators")
    views = [_view(values[name], channel, out) for name, channel in used]
    if any(view.dtype != out.dtype for view in views) or arrays[main].dtype != out.dtype:
        raise Unfit("operands of several types")
    shape, strides = merged(out, arrays[main], *views)
    steps = tuple((code, -1 if place is None else used.index(place), value) for code, place, value in made)
    operands = tuple(call.node.inputs.index(name) for name, _ in used)
    return Ready(main, operands, shape, strides, steps, cost([code for code, _, _ in steps]))


class Affine(NamedTuple):
    """A chain that is a factor, perhaps a shift and perhaps ReLU, by the names of its operands."""

    scale: str
    shift: str | None
    relu: bool

    def __str__(self) -> str:
        return "scale + relu" if self.relu else "scale"


def affine(links: Sequence[Link], number: Callable[[str], float | None], rank: int) -> Affine | None:
    """A chain as that; None where it is another one. `number` as in `link_steps`."""
    try:
        steps = [step for link in links for step in link_steps(link, number, rank)]
    except Unfit:
        return None
    places = [place[0] for _, place, _ in steps if place is not None]
    codes = [code for code, _, _ in steps]
    relu = steps[-1] == (MAX, None, 0.0)
    if codes[: len(codes) - relu] not in ([MUL], [MUL, ADD]) or len(places) != len(codes) - relu:
        return None
    return Affine(places[0], places[1] if len(places) > 1 else None, relu)


def _view(array: Array, channel: bool, out: Array) -> Array:
    """An operand repeated to the result's shape; `channel` for a vector along axis 1."""
    if channel:
        array = array.reshape(-1, *(1,) * (out.ndim - 2))
    return np.broadcast_to(array, out.shape)


def link_steps(link: Link, number: Callable[[str], float | None], rank: int) -> list[Step]:
    """What one operator does to the value."""
    node, kind = link.node, link.node.op_type
    if kind in UNARY:
        return [(code, None, value) for code, value in UNARY[kind]]
    if kind in BINARY:
        name = node.inputs[1 - link.main]
        code, value = BINARY[kind][link.main], number(name)
        return [(code, None, value) if value is not None else (code, (name, False), 0.0)]
    if kind == "ChannelAffine":
        if rank < 2:
            raise Unfit("no axis of channels")
        last = ACTIVATIONS.get(node.attributes.get("activation", ""), ())
        affine: list[Step] = [(MUL, (node.inputs[1], True), 0.0), (ADD, (node.inputs[2], True), 0.0)]
        return affine + [(code, None, value) for code, value in last]
    if kind in PARAMETRIC:
        return [(code, None, value) for code, value in PARAMETRIC[kind](node.attributes.get)]
    if kind == "PRelu":
        return [(LEAKY, (node.inputs[1], False), 0.0)]
    if kind == "Pow":
        power = POWERS.get(number(node.inputs[1]) or 0.0)
        if power is None:
            raise Unfit("a power")
        return [(code, None, value) for code, value in power]
    if kind == "Clip":
        return _clip(node, number)
    if kind in ("QuantizeLinear", "DequantizeLinear"):
        return _quantised(node, number)
    raise Unfit(kind)


def _clip(node: Node, number: Callable[[str], float | None]) -> list[Step]:
    found: list[Step] = []
    for at, (code, name) in enumerate(((MAX, "min"), (MIN, "max")), 1):
        value = number(node.input(at)) if node.input(at) else node.attributes.get(name)
        if node.input(at) and value is None:
            raise Unfit("bounds that are computed")
        if value is not None and abs(value) != inf:
            found.append((code, None, value))
    return found


def integer_range(name: str) -> tuple[int, int]:
    """The range of an integer type by its name."""
    bits = int("".join(letter for letter in name if letter.isdigit()))
    return (0, 2**bits - 1) if name.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _quantised(node: Node, number: Callable[[str], float | None]) -> list[Step]:
    """Division by the scale, rounding to even, the zero point and the range; or back. Integers of 8 bits are exact."""
    scale, zero = number(node.inputs[1]), number(node.input(2)) if node.input(2) else 0.0
    if scale is None or zero is None:
        raise Unfit("a scale that is no number")
    if node.op_type == "DequantizeLinear":
        return [(SUB, None, zero), (MUL, None, scale)]
    low, high = integer_range(node.attributes["range"])
    return [(DIV, None, scale), (ROUND, None, 0.0), (ADD, None, zero), (MAX_NUMBER, None, low), (MIN, None, high)]


# ---- axes --------------------------------------------------------------------------------------------------------


def merged(*arrays: Array) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """(N, P, C) as which arrays of one shape can be seen, and the strides of each; raises `Unfit`.

    The first array's order in memory decides which axis is which. One long row where all are dense; else the channels
    are the last axis, or the last ones, that leave few images.
    """
    first = arrays[0]
    if first.ndim > MOST_AXES:
        raise Unfit("more than five axes")
    every = sorted(range(first.ndim), key=lambda a: -abs(first.strides[a]))
    if all(array.transpose(every).flags.c_contiguous for array in arrays):
        return (1, first.size, 1), ((first.itemsize,) * 3,) * len(arrays)
    order = sorted((axis for axis in range(first.ndim) if first.shape[axis] > 1), key=lambda a: -abs(first.strides[a]))
    sizes = [first.shape[axis] for axis in order]
    strides = [[array.strides[axis] for axis in order] for array in arrays]
    rank, best, found = len(order), None, None
    for images in range(rank + 1):
        for pixels in range(images, rank + 1):
            cuts = ((0, images), (images, pixels), (pixels, rank))
            steps = [[_merged(sizes[a:b], own[a:b], array.itemsize) for a, b in cuts]
                     for own, array in zip(strides, arrays, strict=True)]  # fmt: skip
            if any(step is None for own in steps for step in own):
                continue
            shape = tuple(prod(sizes[a:b]) for a, b in cuts)
            dense = all(own[1] in (0, array.itemsize) for own, array in zip(steps, arrays, strict=True))
            flat = shape[0] == shape[2] == 1 and dense
            cost = 0 if flat else shape[0] + (1 << 20 if not 4 <= shape[2] <= 1 << 14 else 0)
            if best is None or cost < best:
                best, found = cost, (shape, tuple(tuple(int(step or 0) for step in own) for own in steps))
    if found is None:
        raise Unfit("axes that do not merge")
    return found


def _merged(sizes: Sequence[int], strides: Sequence[int], itemsize: int) -> int | None:
    """The stride of several axes as one; None where they are not one behind the other."""
    if not sizes:
        return itemsize
    if any(outer != inner * size for (outer, inner), size in zip(pairwise(strides), sizes[1:], strict=True)):
        return None
    return strides[-1]
