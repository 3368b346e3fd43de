"""Activation functions, and the error function that some are made of."""

from __future__ import annotations

from functools import lru_cache
from math import erf, pi, sqrt
from typing import Any

import numpy as np
from numpy.polynomial import Chebyshev

from ..._core.arrays import Array
from . import rows
from .chain import SELU_ALPHA, SELU_GAMMA
from .registry import Call, operator
from .sums import summed


@operator("Relu")
def relu(call: Call, x: Array) -> Any:
    """max(x, 0)."""
    return np.maximum(x, x.dtype.type(0), out=call.into(x))


@operator("LeakyRelu")
def leaky_relu(call: Call, x: Array) -> Any:
    """x, or alpha * x below zero."""
    return _sloped(call, x, x.dtype.type(call.get("alpha", 0.01)))


@operator("PRelu")
def prelu(call: Call, x: Array, slope: Array) -> Any:
    """x, or slope * x below zero; up to operator set 6 the slope has a value a channel."""
    if call.version < 7 and slope.ndim == 1 and x.ndim > 2:
        slope = slope.reshape(-1, *(1,) * (x.ndim - 2))
    return _sloped(call, x, slope)


def _sloped(call: Call, x: Array, slope: Any) -> Any:
    scaled = np.multiply(x, slope, out=call.like(x) if np.ndim(slope) == 0 or slope.ndim <= x.ndim else None)
    np.copyto(scaled, x, where=x >= 0)
    return scaled


@operator("ThresholdedRelu")
def thresholded_relu(call: Call, x: Array) -> Array:
    """x above alpha, else 0."""
    return np.where(x > call.get("alpha", 1.0), x, x.dtype.type(0))


@operator("Elu")
def elu(call: Call, x: Array) -> Any:
    """x, or alpha (exp(x) - 1) below zero."""
    return _exponential(call, x, call.get("alpha", 1.0))


@operator("Selu")
def selu(call: Call, x: Array) -> Any:
    """gamma * elu."""
    made = _exponential(call, x, call.get("alpha", SELU_ALPHA))
    return np.multiply(made, x.dtype.type(call.get("gamma", SELU_GAMMA)), out=made)


@operator("Celu")
def celu(call: Call, x: Array) -> Array:
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1))."""
    alpha = x.dtype.type(call.get("alpha", 1.0))
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / alpha)).astype(x.dtype, copy=False)


def _exponential(call: Call, x: Array, alpha: float) -> Any:
    below = np.minimum(x, x.dtype.type(0), out=call.like(x))
    np.expm1(below, out=below)
    np.multiply(below, x.dtype.type(alpha), out=below)
    np.copyto(below, x, where=x > 0)
    return below


def logistic(x: Array, out: Array) -> Any:
    """1 / (1 + exp(-x)) = (1 + tanh(x / 2)) / 2, which overflows nowhere; `out` may be `x`."""
    half = x.dtype.type(0.5)
    np.multiply(x, half, out=out)
    np.tanh(out, out=out)
    np.multiply(out, half, out=out)
    return np.add(out, half, out=out)


@operator("Sigmoid")
def sigmoid(call: Call, x: Array) -> Any:
    """The logistic function."""
    return logistic(x, call.into(x))


operator("Tanh")(lambda call, x: np.tanh(x, out=call.into(x)))


@operator("HardSigmoid")
def hard_sigmoid(call: Call, x: Array) -> Array:
    """alpha x + beta between 0 and 1."""
    return _hard(x, call.into(x), call.get("alpha", 0.2), call.get("beta", 0.5))


def _hard(x: Array, out: Array, alpha: float, beta: float) -> Array:
    kind = x.dtype.type
    np.multiply(x, kind(alpha), out=out)
    np.add(out, kind(beta), out=out)
    return np.clip(out, kind(0), kind(1), out=out)


@operator("HardSwish")
def hard_swish(call: Call, x: Array) -> Array:
    """x * clip(x / 6 + 1/2, 0, 1)."""
    out = _hard(x, call.like(x), 1 / 6, 0.5)
    return np.multiply(out, x, out=out)


@operator("Swish")
def swish(call: Call, x: Array) -> Any:
    """x * sigmoid(alpha x); SiLU for alpha = 1."""
    alpha = call.get("alpha", 1.0)
    out = np.multiply(x, x.dtype.type(alpha), out=call.like(x))
    return np.multiply(logistic(out, out), x, out=out)


operator("Silu", domain="fastconv")(swish)


@operator("SwiGLU", since=28)
def swiglu(call: Call, gate: Array, value: Array) -> Any:
    """The Swish of a gate times a value."""
    if gate.shape != value.shape:
        raise call.error(f"a gate of shape {gate.shape} for values of shape {value.shape}.")
    out = swish(call, gate)
    return np.multiply(out, value, out=out)


@operator("Softplus")
def softplus(call: Call, x: Array) -> Any:
    """log(1 + exp(x))."""
    return np.logaddexp(x, x.dtype.type(0), out=call.into(x))


@operator("Softsign")
def softsign(call: Call, x: Array) -> Array:
    """x / (1 + |x|)."""
    below = np.abs(x, out=call.like(x))
    np.add(below, x.dtype.type(1), out=below)
    return np.divide(x, below, out=below)


@operator("Mish")
def mish(call: Call, x: Array) -> Any:
    """x tanh(softplus(x)) (Misra 2019)."""
    out = np.logaddexp(x, x.dtype.type(0), out=call.like(x))
    np.tanh(out, out=out)
    return np.multiply(out, x, out=out)


@operator("Shrink")
def shrink(call: Call, x: Array) -> Array:
    """Towards zero by `bias` outside ±lambd, zero within."""
    bias, threshold = call.get("bias", 0.0), call.get("lambd", 0.5)
    return np.where(x < -threshold, x + bias, np.where(x > threshold, x - bias, 0)).astype(x.dtype)


# ---- the error function --------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def _error_series(double: bool) -> tuple[float, Chebyshev]:
    """Where erf is 1 to the precision, and erf(x) / x before it as a polynomial in x² made of the C library's values.

    erf(x) / x is an entire function of x², so that interpolation at Chebyshev points converges geometrically; the
    degrees leave 1e-15 and 1e-9.
    """
    end, degree = (6.0, 60) if double else (4.0, 24)

    def ratio(squares: Array) -> Array:
        roots = np.sqrt(np.maximum(squares, 0))
        return np.array([erf(x) / x if x > 0 else 2 / sqrt(pi) for x in roots])

    return end, Chebyshev.interpolate(ratio, degree, [0.0, end * end])


def error_function(x: Array) -> Array:
    """erf of floats, computed in float64."""
    end, series = _error_series(x.dtype == np.float64)
    inside = np.clip(x.astype(np.float64), -end, end)
    value: Array = np.clip(inside * series(inside * inside), -1.0, 1.0).astype(x.dtype)
    return value


@operator("Erf")
def erf_(call: Call, x: Array) -> Array:
    """2 / sqrt(pi) times the integral of exp(-t²) from 0 to x."""
    return error_function(x)


@operator("Gelu")
def gelu(call: Call, x: Array) -> Any:
    """x Phi(x), or its approximation by tanh (Hendrycks and Gimpel 2016)."""
    kind = x.dtype.type
    if call.get("approximate", "none") == "tanh":
        inner = np.tanh(kind(sqrt(2 / pi)) * (x + kind(0.044715) * x * x * x))
    else:
        inner = error_function(x * kind(1 / sqrt(2)))
    inner += kind(1)
    inner *= x
    inner *= kind(0.5)
    return inner


# ---- along an axis -------------------------------------------------------------------------------------------------


def _flattened(call: Call, x: Array) -> tuple[Array, int]:
    """The array and the axis to normalise along; up to operator set 12 everything from `axis` on is one axis."""
    if call.version >= 13:
        return x, call.axis(x.ndim, -1)
    axis = call.axis(x.ndim, 1)
    return x.reshape(int(np.prod(x.shape[:axis])), -1), 1


@operator("Softmax")
def softmax(call: Call, x: Array) -> Any:
    """exp(x) over its sum."""
    flat, axis = _flattened(call, x)
    if rows.native(flat):
        return rows.softmax(call, flat, axis, False).reshape(x.shape)
    out = np.exp(flat - flat.max(axis=axis, keepdims=True, initial=-np.inf).astype(x.dtype))
    out /= summed(out, (axis,))
    return out.reshape(x.shape)


@operator("LogSoftmax")
def log_softmax(call: Call, x: Array) -> Any:
    """The logarithm of softmax, without taking it of a number near zero."""
    flat, axis = _flattened(call, x)
    if rows.native(flat):
        return rows.softmax(call, flat, axis, True).reshape(x.shape)
    shifted = flat - flat.max(axis=axis, keepdims=True, initial=-np.inf).astype(x.dtype)
    shifted -= np.log(summed(np.exp(shifted), (axis,)))
    return shifted.reshape(x.shape)


@operator("Hardmax")
def hardmax(call: Call, x: Array) -> Array:
    """1 at the first maximum, else 0."""
    flat, axis = _flattened(call, x)
    out = np.zeros_like(flat)
    if flat.size:
        np.put_along_axis(out, np.expand_dims(flat.argmax(axis=axis), axis), 1, axis)
    return out.reshape(x.shape)
