"""Sums, means and extremes along axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..._core.arrays import Array
from .registry import Call, operator
from .sums import mean, reduced, summed

Reduce = Callable[[Array, tuple[int, ...], "int | None"], Any]


def _reduction(function: Reduce, native: str | None = None) -> Callable[..., Array]:
    """The operator that reduces by a function or, of floats, natively (`reduced`)."""

    def run(call: Call, x: Array, axes: Array | None = None) -> Array:
        chosen = call.numbers("axes", axes, []) or []
        if not chosen and call.get("noop_with_empty_axes", 0):
            where: tuple[int, ...] = ()
        else:
            where = tuple({call.from_front(axis, x.ndim) for axis in chosen}) if chosen else tuple(range(x.ndim))
        kept = [1 if axis in where else size for axis, size in enumerate(x.shape)]
        result = reduced(native, x, where, call.threads, call) if native else None
        if result is None:
            result = np.asarray(function(x, where, call.threads)).astype(x.dtype, copy=False).reshape(kept)
        elif call.settled():
            call.natively()
        if call.get("keepdims", 1):
            return result
        return result.reshape([size for axis, size in enumerate(kept) if axis not in where])

    return run


def _real(x: Array) -> Array:
    """Integers as float64: their squares and exponentials must not wrap before a root or a logarithm is taken."""
    return x.astype(np.float64) if x.dtype.kind in "iu" else x


def _log_sum_exp(x: Array, axes: tuple[int, ...], threads: int | None) -> Any:
    x = _real(x)
    most = np.max(x, axis=axes, keepdims=True, initial=-np.inf)
    finite = np.where(np.isfinite(most), most, x.dtype.type(0))
    return np.log(summed(np.exp(x - finite), axes, threads)) + finite


def _extreme(function: Callable[..., Any], largest: bool) -> Reduce:
    def run(x: Array, axes: tuple[int, ...], threads: int | None) -> Any:
        if x.dtype.kind == "f":
            return function(x, axis=axes, initial=-np.inf if largest else np.inf)
        if x.dtype.kind == "b":
            return np.any(x, axis=axes) if largest else np.all(x, axis=axes)
        limits = np.iinfo(x.dtype)
        return function(x, axis=axes, initial=limits.min if largest else limits.max)

    return run


def _mean(x: Array, axes: tuple[int, ...], threads: int | None) -> Any:
    if x.dtype.kind in "iu":
        total = np.sum(x, axis=axes, dtype=np.int64)
        count = x.size // max(1, total.size) or 1
        return np.trunc(total / count)
    return mean(x, axes, threads)


NATIVE = {
    "ReduceSum": "sum", "ReduceMean": "mean", "ReduceMax": "max", "ReduceMin": "min", "ReduceL1": "magnitudes",
    "ReduceL2": "norm", "ReduceSumSquare": "squares",
}  # fmt: skip

for _name, _function in {
    "ReduceSum": summed,
    "ReduceMean": _mean,
    "ReduceProd": lambda x, axes, threads: np.prod(x, axis=axes, dtype=x.dtype),
    "ReduceMax": _extreme(np.max, True),
    "ReduceMin": _extreme(np.min, False),
    "ReduceL1": lambda x, axes, threads: summed(np.abs(x), axes, threads),
    "ReduceL2": lambda x, axes, threads: np.sqrt(summed(np.square(_real(x)), axes, threads)),
    "ReduceSumSquare": lambda x, axes, threads: summed(np.square(x), axes, threads),
    "ReduceLogSum": lambda x, axes, threads: np.log(summed(_real(x), axes, threads)),
    "ReduceLogSumExp": _log_sum_exp,
}.items():
    operator(_name, shaping=(1,))(_reduction(_function, NATIVE.get(_name)))
