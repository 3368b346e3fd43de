"""Arithmetic, comparison, logic and functions of single numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..._core.arrays import Array
from .registry import Call, operator


def aligned(call: Call, a: Array, b: Array) -> tuple[Array, Array]:
    """Operands of an operator set below 7, where `broadcast` and `axis` said how the second one is repeated."""
    if call.version >= 7 or not call.get("broadcast", 0) or b.ndim == 0 or call.get("axis") is None:
        return a, b
    behind = a.ndim - call.axis(a.ndim) - b.ndim
    if behind < 0:
        raise call.error(f"an input of shape {b.shape} cannot be repeated along axis {call.get('axis')} of {a.shape}.")
    return a, b.reshape(*b.shape, *(1,) * behind)


def result_shape(call: Call, *arrays: Array) -> tuple[int, ...]:
    """The common shape of operands, refused where they have none or it is too large."""
    try:
        shape = np.broadcast_shapes(*(a.shape for a in arrays))
    except ValueError:
        shapes = " and ".join(str(a.shape) for a in arrays)
        raise call.error(f"inputs of shape {shapes} do not fit each other.") from None
    return call.check(shape, arrays[0].dtype)


def _binary(function: Callable[..., Any], dtype: Any = None) -> Callable[[Call, Array, Array], Array]:
    def run(call: Call, a: Array, b: Array) -> Array:
        a, b = aligned(call, a, b)
        shape = result_shape(call, a, b)
        kind = a.dtype if dtype is None else np.dtype(dtype)
        out = call.into(a, b, shape=shape, dtype=kind)
        function(a, b, out=out, casting="unsafe")
        return out

    return run


operator("Add")(_binary(np.add))
operator("Sub")(_binary(np.subtract))
operator("Mul")(_binary(np.multiply))
operator("Equal")(lambda call, a, b: compare(call, np.equal, a, b))
operator("Less")(_binary(np.less, bool))
operator("LessOrEqual")(_binary(np.less_equal, bool))
operator("Greater")(_binary(np.greater, bool))
operator("GreaterOrEqual")(_binary(np.greater_equal, bool))
operator("And")(_binary(np.logical_and, bool))
operator("Or")(_binary(np.logical_or, bool))
operator("Xor")(_binary(np.logical_xor, bool))
operator("BitwiseAnd")(_binary(np.bitwise_and))
operator("BitwiseOr")(_binary(np.bitwise_or))
operator("BitwiseXor")(_binary(np.bitwise_xor))


def compare(call: Call, function: Callable[..., Any], a: Array, b: Array) -> Array:
    """Strings have no ufunc of their own."""
    a, b = aligned(call, a, b)
    result_shape(call, a, b)
    return np.asarray(function(a, b)).astype(bool, copy=False)


@operator("Div")
def div(call: Call, a: Array, b: Array) -> Array:
    """Integers are divided towards zero, as in C."""
    a, b = aligned(call, a, b)
    shape = result_shape(call, a, b)
    if a.dtype.kind not in "iu":
        return np.divide(a, b, out=call.into(a, b, shape=shape))
    if not np.all(b):
        raise call.error("an integer is divided by zero.")
    quotient = np.floor_divide(a, b)
    if a.dtype.kind == "i":
        quotient += ((a % b) != 0) & ((a < 0) != (b < 0))
    return quotient


@operator("Mod")
def mod(call: Call, a: Array, b: Array) -> Array:
    """The sign of the divisor, or with `fmod` of the dividend."""
    result_shape(call, a, b)
    if a.dtype.kind in "iu" and not np.all(b):
        raise call.error("an integer is divided by zero.")
    return np.asarray(np.fmod(a, b) if call.get("fmod", 0) else np.mod(a, b)).astype(a.dtype, copy=False)


@operator("Pow")
def power(call: Call, a: Array, b: Array) -> Any:
    """The result has the type of the base."""
    a, b = aligned(call, a, b)
    result_shape(call, a, b)
    if b.size == 1 and a.dtype.kind == "f":  # squares and roots are what networks ask for
        exponent = float(b.ravel()[0])
        if exponent in (2.0, 0.5):
            out = call.into(a, shape=np.broadcast_shapes(a.shape, b.shape))
            return np.multiply(a, a, out=out) if exponent == 2.0 else np.sqrt(a, out=out)
    if a.dtype.kind in "iu" and b.dtype.kind in "iu":
        exponents = b.astype(np.int64)
        if np.any(exponents < 0):
            return np.power(a.astype(np.float64), exponents).astype(a.dtype)
        return np.power(a, exponents.astype(a.dtype))
    return np.asarray(np.power(a, b)).astype(a.dtype, copy=False)


@operator("BitShift")
def bit_shift(call: Call, a: Array, b: Array) -> Array:
    """By the number of places in `b`, to the LEFT or RIGHT."""
    result_shape(call, a, b)
    return np.left_shift(a, b) if call.get("direction") == "LEFT" else np.right_shift(a, b)


def _many(function: Callable[..., Any]) -> Callable[..., Array]:
    def run(call: Call, first: Array, *others: Array) -> Array:
        total = first
        for other in others:
            shape = result_shape(call, total, other)
            total = function(total, other, out=call.into(total, other, shape=shape))
        return total

    return run


operator("Max")(_many(np.maximum))
operator("Min")(_many(np.minimum))
operator("Sum")(_many(np.add))


@operator("Mean")
def mean(call: Call, first: Array, *others: Array) -> Any:
    """Of any number of arrays, element by element."""
    total = first
    for other in others:
        result_shape(call, total, other)
        total = np.add(total, other)
    return np.divide(total, np.asarray(1 + len(others), first.dtype)).astype(first.dtype, copy=False)


# ---- one operand -------------------------------------------------------------------------------------------------


def _unary(function: Callable[..., Any], dtype: Any = None) -> Callable[[Call, Array], Array]:
    def run(call: Call, x: Array) -> Array:
        out = call.into(x, dtype=dtype)
        function(x, out=out)
        return out

    return run


for _name, _function in {
    "Abs": np.abs, "Neg": np.negative, "Exp": np.exp, "Log": np.log, "Sqrt": np.sqrt, "Ceil": np.ceil,
    "Floor": np.floor, "Round": np.rint, "Sign": np.sign, "Sin": np.sin, "Cos": np.cos, "Tan": np.tan,
    "Asin": np.arcsin, "Acos": np.arccos, "Atan": np.arctan, "Sinh": np.sinh, "Cosh": np.cosh, "Asinh": np.arcsinh,
    "Acosh": np.arccosh, "Atanh": np.arctanh, "BitwiseNot": np.bitwise_not,
}.items():  # fmt: skip
    operator(_name)(_unary(_function))
operator("Not")(_unary(np.logical_not, bool))
operator("IsNaN")(_unary(np.isnan, bool))


@operator("Reciprocal")
def reciprocal(call: Call, x: Array) -> Any:
    """1 / x."""
    return np.divide(x.dtype.type(1), x, out=call.into(x))


@operator("IsInf")
def is_inf(call: Call, x: Array) -> Array:
    """Infinity of the signs asked for."""
    found = np.isinf(x)
    if not call.get("detect_positive", 1):
        found &= x < 0
    if not call.get("detect_negative", 1):
        found &= x > 0
    return found


@operator("Identity", as_stored=True)
def identity(call: Call, x: Any) -> Any:
    """The input."""
    return x


@operator("Dropout", pure=False)
def dropout(call: Call, x: Array, ratio: Array | None = None, training: Array | None = None) -> Any:
    """Nothing in inference; where `training_mode` asks for it, zeros at random and the rest scaled up."""
    share = 0.5 if ratio is None else float(ratio.ravel()[0])
    if training is None or not bool(training.ravel()[0]) or not share:
        kept = len(call.node.outputs) > 1
        return (x, np.ones(x.shape, bool if call.version >= 10 else x.dtype)) if kept else x
    mask = np.random.RandomState(call.get("seed")).uniform(0, 1, x.shape) >= share
    return np.where(mask, x / x.dtype.type(1 - share), x.dtype.type(0)), mask


@operator("Where", as_stored=True)
def where(call: Call, condition: Array, a: Array, b: Array) -> Array:
    """`a` where the condition holds, `b` elsewhere."""
    result_shape(call, a, b, condition)
    return np.where(condition, a, b).astype(a.dtype, copy=False)


@operator("Clip")
def clip(call: Call, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    """Between two bounds, which are attributes up to operator set 10."""
    least: Any = call.get("min") if low is None else low.ravel()[0] if low.size else None
    most: Any = call.get("max") if high is None else high.ravel()[0] if high.size else None
    out = call.into(x)
    if least is not None:
        x = np.maximum(x, np.asarray(least, x.dtype), out=out)
    if most is not None:
        x = np.minimum(x, np.asarray(most, x.dtype), out=out)
    return x
