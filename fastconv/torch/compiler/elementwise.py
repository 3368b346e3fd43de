"""Functions of single values, comparisons, choices, and sums along axes."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from torch import fx

from ...graph.operators import INTERNAL
from .trace import Refused, Tracer, converts

SAME: Final = {
    "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "abs": "Abs",
    "neg": "Neg", "erf": "Erf", "floor": "Floor", "ceil": "Ceil", "round": "Round", "sin": "Sin", "cos": "Cos",
    "tan": "Tan", "reciprocal": "Reciprocal", "hardswish": "HardSwish", "mish": "Mish", "sign": "Sign",
    "sinh": "Sinh", "cosh": "Cosh", "asin": "Asin", "acos": "Acos", "atan": "Atan", "isnan": "IsNaN",
}  # fmt: skip
FLOATING: Final = frozenset(SAME) - {"relu", "abs", "neg", "sign", "floor", "ceil", "round", "isnan"}
ARITHMETIC: Final = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "pow": "Pow", "maximum": "Max", "minimum": "Min",
}  # fmt: skip
COMPARISONS: Final = {"eq": "Equal", "gt": "Greater", "ge": "GreaterOrEqual", "lt": "Less", "le": "LessOrEqual"}
LOGIC: Final = {
    "logical_and": "And", "bitwise_and": "And", "logical_or": "Or", "bitwise_or": "Or", "logical_xor": "Xor",
    "bitwise_xor": "Xor",
}  # fmt: skip
SUMS: Final = {"mean": "ReduceMean", "sum": "ReduceSum", "amax": "ReduceMax", "amin": "ReduceMin"}


def called(node: fx.Node) -> str:
    """The name of an operator without its library."""
    target: Any = node.target
    return str(target.overloadpacket.__name__)


def kind_of(node: fx.Node) -> Any:
    """The type of the values of a node."""
    found: Any = node.meta["val"]
    return found.dtype


# ---- of one value --------------------------------------------------------------------------------------------------


@converts(*SAME)
def _function(t: Tracer, node: fx.Node, a: Any) -> Any:
    name = called(node)
    kind = kind_of(node) if name in FLOATING else None
    if name == "round" and vars(a).get("decimals"):
        raise Refused("rounding to decimals")
    return t.add(SAME[name], [t.name(a.self, kind)])


@converts("alias", "clone", "detach", "lift_fresh_copy")
def _itself(t: Tracer, node: fx.Node, a: Any) -> Any:
    return t.add("Identity", [t.name(a.self)])


@converts("_to_copy")
def _cast(t: Tracer, node: fx.Node, a: Any) -> Any:
    kind = kind_of(node)
    return t.name(a.self, kind) if t.fake(a.self).dtype is not kind else t.add("Identity", [t.name(a.self)])


@converts("silu")
def _silu(t: Tracer, node: fx.Node, a: Any) -> Any:
    return t.add("Silu", [t.name(a.self)], domain=INTERNAL)


@converts("rsqrt")
def _rsqrt(t: Tracer, node: fx.Node, a: Any) -> Any:
    return t.add("Reciprocal", [t.add("Sqrt", [t.name(a.self, kind_of(node))])])


@converts("hardsigmoid")
def _hardsigmoid(t: Tracer, node: fx.Node, a: Any) -> Any:
    return t.add("HardSigmoid", [t.name(a.self)], alpha=1 / 6, beta=0.5)


@converts("gelu")
def _gelu(t: Tracer, node: fx.Node, a: Any) -> Any:
    return t.add("Gelu", [t.name(a.self)], approximate=a.approximate)


@converts("elu")
def _elu(t: Tracer, node: fx.Node, a: Any) -> Any:
    if a.input_scale != 1:
        raise Refused("an exponent that is scaled")
    if a.scale == 1:
        return t.add("Elu", [t.name(a.self)], alpha=float(a.alpha))
    return t.add("Selu", [t.name(a.self)], alpha=float(a.alpha), gamma=float(a.scale))


@converts("leaky_relu")
def _leaky_relu(t: Tracer, node: fx.Node, a: Any) -> Any:
    return t.add("LeakyRelu", [t.name(a.self)], alpha=float(a.negative_slope))


@converts("_prelu_kernel")
def _prelu(t: Tracer, node: fx.Node, a: Any) -> Any:
    return t.add("PRelu", [t.name(a.self), t.name(a.weight)])


@converts("softplus")
def _softplus(t: Tracer, node: fx.Node, a: Any) -> Any:
    if a.beta != 1 or a.threshold < 20:
        raise Refused("a steeper softplus")
    return t.add("Softplus", [t.name(a.self)])


@converts("log_sigmoid_forward")
def _log_sigmoid(t: Tracer, node: fx.Node, a: Any) -> Any:
    return [t.add("Neg", [t.add("Softplus", [t.add("Neg", [t.name(a.self)])])])]


@converts("glu")
def _glu(t: Tracer, node: fx.Node, a: Any) -> Any:
    halves = t.add("Split", [t.name(a.self)], 2, axis=a.dim, num_outputs=2)
    return t.add("Mul", [halves[0], t.add("Sigmoid", [halves[1]])])


@converts("clamp", "clamp_min", "clamp_max", "hardtanh")
def _clip(t: Tracer, node: fx.Node, a: Any) -> Any:
    kind = kind_of(node)
    given = vars(a)
    limits = [given.get(ours, given.get(f"{ours}_val")) for ours in ("min", "max")]
    if any(isinstance(limit, fx.Node) for limit in limits):
        raise Refused("limits that are tensors")
    bounds = ["" if limit is None else t.name(limit, kind) for limit in limits]
    return t.add("Clip", [t.name(a.self, kind), *bounds])


@converts("logical_not", "bitwise_not")
def _not(t: Tracer, node: fx.Node, a: Any) -> Any:
    if t.fake(a.self).dtype is not torch.bool:
        raise Refused("bits of integers")
    return t.add("Not", [t.name(a.self)])


# ---- of two and three ----------------------------------------------------------------------------------------------


def _number(t: Tracer, one: Any) -> Any:
    """An operand as `torch.result_type` takes it."""
    return t.fake(one) if isinstance(one, fx.Node) and not _length(one) else one


def _length(one: fx.Node) -> bool:
    return not isinstance(one.meta.get("val"), torch.Tensor)


def _operand(t: Tracer, one: Any, kind: Any) -> str:
    if isinstance(one, fx.Node) and _length(one):
        raise Refused("arithmetic with a length")
    return t.name(one, kind)


@converts(*ARITHMETIC, "rsub")
def _arithmetic(t: Tracer, node: fx.Node, a: Any) -> Any:
    name, kind = called(node), kind_of(node)
    if vars(a).get("rounding_mode") is not None or kind is torch.bool:
        raise Refused("whole quotients, or sums of what is true")
    second = a.other if hasattr(a, "other") else a.exponent
    left, right = _operand(t, a.self, kind), _operand(t, second, kind)
    alpha = getattr(a, "alpha", 1)
    if name == "rsub":  # other - alpha self
        left, right = right, left
    if alpha != 1:
        right = t.add("Mul", [right, t.name(alpha, kind)])
    return t.add("Sub" if name == "rsub" else ARITHMETIC[name], [left, right])


@converts(*COMPARISONS, "ne")
def _comparison(t: Tracer, node: fx.Node, a: Any) -> Any:
    kind = torch.result_type(_number(t, a.self), _number(t, a.other))
    operands = [_operand(t, a.self, kind), _operand(t, a.other, kind)]
    name = called(node)
    return t.add("Not", [t.add("Equal", operands)]) if name == "ne" else t.add(COMPARISONS[name], operands)


@converts(*LOGIC)
def _logic(t: Tracer, node: fx.Node, a: Any) -> Any:
    if any(t.fake(one).dtype is not torch.bool for one in (a.self, a.other)):
        raise Refused("bits of integers")
    return t.add(LOGIC[called(node)], [t.name(a.self), t.name(a.other)])


@converts("where")
def _where(t: Tracer, node: fx.Node, a: Any) -> Any:
    kind = kind_of(node)
    return t.add("Where", [t.name(a.condition), _operand(t, a.self, kind), _operand(t, a.other, kind)])


@converts("masked_fill")
def _masked_fill(t: Tracer, node: fx.Node, a: Any) -> Any:
    return t.add("Where", [t.name(a.mask), _operand(t, a.value, kind_of(node)), t.name(a.self)])


# ---- along axes ----------------------------------------------------------------------------------------------------


def axes_of(t: Tracer, node: Any, dims: Any) -> list[int]:
    """Axes from the front; all of them where none is named."""
    rank = len(t.shape(node))
    if dims is None or dims == []:
        return list(range(rank))
    return [dim % max(rank, 1) for dim in ([dims] if isinstance(dims, int) else dims)]


@converts(*SUMS)
def _sum(t: Tracer, node: fx.Node, a: Any) -> Any:
    kind = kind_of(node)
    axes = axes_of(t, a.self, getattr(a, "dim", None))
    if not axes:
        return t.name(a.self, kind)
    keep = int(bool(getattr(a, "keepdim", False)))
    op_type = SUMS[called(node)]
    shape = t.shape(a.self)
    if op_type == "ReduceMean" and keep and len(shape) > 2 and sorted(axes) == list(range(2, len(shape))):
        return t.add("GlobalAveragePool", [t.name(a.self, kind)])
    return t.add(op_type, [t.name(a.self, kind), t.integers(axes)], keepdims=keep)


@converts("max", "min")
def _extreme(t: Tracer, node: fx.Node, a: Any) -> Any:
    reduce = "ReduceMax" if called(node) == "max" else "ReduceMin"
    if hasattr(a, "other"):
        raise Refused("a maximum of two")
    if not hasattr(a, "dim"):
        return t.add(reduce, [t.name(a.self), t.integers(axes_of(t, a.self, None))], keepdims=0)
    return [t.add(reduce, [t.name(a.self), t.integers(axes_of(t, a.self, a.dim))], keepdims=int(a.keepdim))]


@converts("argmax", "argmin")
def _place(t: Tracer, node: fx.Node, a: Any) -> Any:
    if a.dim is None:
        raise Refused("a place among all")
    op_type = "ArgMax" if called(node) == "argmax" else "ArgMin"
    return t.add(op_type, [t.name(a.self)], axis=a.dim, keepdims=int(a.keepdim))


@converts("linalg_vector_norm")
def _norm(t: Tracer, node: fx.Node, a: Any) -> Any:
    if a.ord not in (1, 2) or a.dtype is not None:
        raise Refused("a norm of another order")
    axes = t.integers(axes_of(t, a.self, a.dim))
    return t.add("ReduceL2" if a.ord == 2 else "ReduceL1", [t.name(a.self), axes], keepdims=int(a.keepdim))


@converts("var", "var_mean", "std")
def _variance(t: Tracer, node: fx.Node, a: Any) -> Any:
    axes, keep = axes_of(t, a.self, a.dim), int(a.keepdim)
    shape = t.shape(a.self)
    count = 1
    for axis in axes:
        count *= shape[axis]
    free = 1 if getattr(a, "correction", 1) is None else getattr(a, "correction", 1)
    if count <= free or hasattr(a, "unbiased"):
        raise Refused("a variance of nothing")
    x, over = t.name(a.self), t.integers(axes)
    centred = t.add("Sub", [x, t.add("ReduceMean", [x, over], keepdims=1)])
    squares = t.add("ReduceSum", [t.add("Mul", [centred, centred]), over], keepdims=keep)
    variance = t.add("Mul", [squares, t.name(1 / (count - free), t.fake(a.self).dtype)])
    if called(node) != "var_mean":
        return variance if called(node) == "var" else t.add("Sqrt", [variance])
    return [variance, t.add("ReduceMean", [x, over], keepdims=keep)]


@converts("_safe_softmax")
def _safe_softmax(t: Tracer, node: fx.Node, a: Any) -> Any:
    return softmax_of_seen(t, t.name(a.self), t.fake(a.self).dtype, a.dim)


def softmax_of_seen(t: Tracer, x: str, kind: Any, axis: int) -> Any:
    """A softmax with zeros where everything is hidden, that is -inf."""
    most = t.add("ReduceMax", [x, t.integers([axis])], keepdims=1)
    hidden = t.add("Equal", [most, t.name(-float("inf"), kind)])
    return t.add("Where", [hidden, t.name(0.0, kind), t.add("Softmax", [x], axis=axis)])


@converts("cumsum")
def _running_sum(t: Tracer, node: fx.Node, a: Any) -> Any:
    if not t.shape(a.self):
        raise Refused("a running sum of a number")
    return t.add("CumSum", [t.name(a.self, kind_of(node)), t.constant(np.int64(a.dim))])


@converts("_softmax", "_log_softmax")
def _softmax(t: Tracer, node: fx.Node, a: Any) -> Any:
    if a.half_to_float or not t.shape(a.self):
        raise Refused("a softmax of halves, or of a number")
    return t.add("Softmax" if called(node) == "_softmax" else "LogSoftmax", [t.name(a.self)], axis=a.dim)
