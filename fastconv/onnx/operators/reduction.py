"""Sums, means and extremes along axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...arrays import Array
from .registry import Call, operator
from .sums import SPATIAL, spatial_sums

Reduce = Callable[[Array, tuple[int, ...]], Any]


def _over_pixels(call: Call, x: Array) -> Array | None:
    """Sums and means of images, natively where they lie so."""
    sums = spatial_sums(x, call.threads)
    if sums is not None and call.node.op_type == "ReduceMean":
        np.divide(sums, x.dtype.type(x.shape[2] * x.shape[3]), out=sums)
    return sums


def _reduction(function: Reduce) -> Callable[..., Array]:
    def run(call: Call, x: Array, axes: Array | None = None) -> Array:
        chosen = call.numbers("axes", axes, []) or []
        if not chosen and call.get("noop_with_empty_axes", 0):
            where: tuple[int, ...] = ()
        else:
            where = tuple({call.from_front(axis, x.ndim) for axis in chosen}) if chosen else tuple(range(x.ndim))
        kept = [1 if axis in where else size for axis, size in enumerate(x.shape)]
        native = call.node.op_type in ("ReduceMean", "ReduceSum") and tuple(sorted(where)) == SPATIAL
        sums = _over_pixels(call, x) if native else None
        result = np.asarray(function(x, where) if sums is None else sums).astype(x.dtype, copy=False).reshape(kept)
        if call.get("keepdims", 1):
            return result
        return result.reshape([size for axis, size in enumerate(kept) if axis not in where])

    return run


def _log_sum_exp(x: Array, axes: tuple[int, ...]) -> Any:
    most = np.max(x, axis=axes, keepdims=True, initial=-np.inf)
    finite = np.where(np.isfinite(most), most, 0)
    with np.errstate(divide="ignore"):
        return np.log(np.sum(np.exp(x - finite), axis=axes, keepdims=True)) + finite


def _extreme(function: Callable[..., Any], largest: bool) -> Reduce:
    def run(x: Array, axes: tuple[int, ...]) -> Any:
        if x.dtype.kind == "f":
            return function(x, axis=axes, initial=-np.inf if largest else np.inf)
        if x.dtype.kind == "V":  # bfloat16
            return run(x.astype(np.float32), axes)
        if x.dtype.kind == "b":
            return np.any(x, axis=axes) if largest else np.all(x, axis=axes)
        limits = np.iinfo(x.dtype)
        return function(x, axis=axes, initial=limits.min if largest else limits.max)

    return run


def _mean(x: Array, axes: tuple[int, ...]) -> Any:
    if x.dtype.kind in "iu":
        total = np.sum(x, axis=axes, dtype=np.int64)
        count = x.size // max(1, total.size) or 1
        return np.trunc(total / count)
    return np.mean(x, axis=axes)


def _log_sum(x: Array, axes: tuple[int, ...]) -> Any:
    with np.errstate(divide="ignore"):
        return np.log(np.sum(x, axis=axes))


for _name, _function in {
    "ReduceSum": lambda x, axes: np.sum(x, axis=axes, dtype=x.dtype),
    "ReduceMean": _mean,
    "ReduceProd": lambda x, axes: np.prod(x, axis=axes, dtype=x.dtype),
    "ReduceMax": _extreme(np.max, True),
    "ReduceMin": _extreme(np.min, False),
    "ReduceL1": lambda x, axes: np.sum(np.abs(x), axis=axes, dtype=x.dtype),
    "ReduceL2": lambda x, axes: np.sqrt(np.sum(np.square(x), axis=axes)),
    "ReduceSumSquare": lambda x, axes: np.sum(np.square(x), axis=axes, dtype=x.dtype),
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum_exp,
}.items():
    operator(_name, shaping=(1,))(_reduction(_function))
