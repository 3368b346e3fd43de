"""Real numbers where bounds are hardest to keep: sums over whole maps, and numbers near the smallest."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

import fastconv
from fastconv import layers
from fastconv.layers import rows
from fastconv.testing.bounds import UNIT_ROUNDOFF, direct_bound
from fastconv.testing.comparisons import Comparison
from reliability.board import Outcome, row
from reliability.oracle import Array
from reliability.rows.accuracy import NEAR_THE_SMALLEST, check_reals, worst_errors
from reliability.workers import Found, share

LENGTHS = (4096, 5000, 20_000, 100_000, 400_000)


@row(
    "sums over whole maps, 4,096 to 400,000 terms: windows, kernels as large as the image, gradients, statistics",
    "2,000 (quick 72); within the bound, and no more than 700 u·S whatever the length",
    quick=72, full=2000, order=22, every_isa=True,
)  # fmt: skip
def long_sums(count: int) -> Outcome:
    """Constant arrays, whose roundings all go one way, and random ones of one sign and of both."""
    found = share(check_long, count)
    found.outcome.measured = ", ".join(
        f"{name} {found.worst[name]:.1f} u·S" for name in SUMS if name in found.worst
    )
    return found.outcome


def _wide(array: Array) -> Array:
    """Twice as precise, where the machine has it."""
    return array.astype(np.float64 if array.dtype == np.float32 else np.longdouble)


def _map(rng: np.random.Generator, length: int) -> tuple[int, int]:
    height = int(rng.choice([1, 2, int(length**0.5), length // 3]))
    return height, -(-length // height)


Sum = tuple[Array, Array, int]  # what came, the terms of each value, how often each is rounded before it is added


def _pooled(x: Array, _: Array) -> Sum:
    got = fastconv.avg_pool2d(x, x.shape[2:])
    return got.ravel(), _wide(x).reshape(got.size, -1) / prod(x.shape[2:]), 2


def _pooled_by_a_layer(x: Array, _: Array) -> Sum:
    got = layers.GlobalAveragePooling2D(dtype=x.dtype.name)(x.transpose(0, 2, 3, 1))
    return got.ravel(), _wide(x).reshape(got.size, -1) / prod(x.shape[2:]), 2


def _convolved(x: Array, w: Array) -> Sum:
    got = fastconv.conv2d(x, w, algorithm="direct")
    return got[:, 0, 0, 0], (_wide(x) * _wide(w)).reshape(len(x), -1), 1


def _depthwise(x: Array, w: Array) -> Sum:
    got = fastconv.conv2d(x, w.transpose(1, 0, 2, 3), groups=x.shape[1])
    return got.ravel(), (_wide(x) * _wide(w)).reshape(got.size, -1), 1


def _weight_gradient(x: Array, w: Array) -> Sum:
    dy, none = np.ascontiguousarray(w[:, :1]), np.zeros((1, x.shape[1], 1, 1), x.dtype)
    dy = np.broadcast_to(dy, (len(x), *dy.shape[1:]))
    _, dw, _ = fastconv.conv2d_backward(dy, x, none, output_mask=(False, True, False), algorithm="direct")
    assert dw is not None
    return dw.ravel(), (_wide(x) * _wide(dy)).transpose(1, 0, 2, 3).reshape(dw.size, -1), 1


def _bias_gradient(x: Array, _: Array) -> Sum:
    w = np.zeros((x.shape[1], 1, 1, 1), x.dtype)
    _, _, db = fastconv.conv2d_backward(x, x[:, :1], w, output_mask=(False, False, True))
    assert db is not None
    return db, _wide(x).transpose(1, 0, 2, 3).reshape(db.size, -1), 1


def _channel_sums(x: Array, _: Array) -> Sum:
    got = rows.channel_sums(np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    return got, _wide(x).transpose(1, 0, 2, 3).reshape(got.size, -1), 1


def _dense(x: Array, w: Array) -> Sum:
    flat, kernel = x.reshape(len(x), -1), np.ascontiguousarray(w.reshape(-1, 1))
    got = np.empty((len(x), 1), x.dtype)
    rows.dense(flat, kernel, got)
    return got.ravel(), _wide(flat) * _wide(w).ravel(), 1


SUMS: dict[str, Callable[[Array, Array], Sum]] = {
    "average": _pooled, "global average": _pooled_by_a_layer, "convolution": _convolved, "depthwise": _depthwise,
    "weight gradient": _weight_gradient, "bias gradient": _bias_gradient, "channel sums": _channel_sums,
    "dense": _dense,
}  # fmt: skip


def check_long(indices: range) -> Found:
    found = Found()
    for index in indices:
        rng = np.random.default_rng([11, index])
        name = tuple(SUMS)[index % len(SUMS)]
        dtype = ("float32", "float64")[index // len(SUMS) % 2]
        values = ("constant", "one sign", "both signs")[index // 2 // len(SUMS) % 3]
        height, width = _map(rng, int(rng.choice(LENGTHS)))
        x, w = (_values(rng, (n, int(rng.integers(2, 4)) if name != "dense" else 1, height, width), values, dtype)
                for n in (2, 1))  # fmt: skip
        w = _values(rng, (1, *x.shape[1:]), values, dtype) if w.shape[1] != x.shape[1] else w
        case = f"{name} of {values} {dtype} {x.shape}"
        try:
            got, terms, roundings = SUMS[name](x, w)
            right, scale = terms.sum(-1), np.abs(terms).sum(-1).astype(np.float64)
            units = float(np.max(np.abs(got - right) / scale)) / UNIT_ROUNDOFF[dtype]
            bound = direct_bound(got, scale, terms.shape[-1] + roundings)
            fault = Comparison(case, got.astype(np.longdouble), right.astype(np.longdouble), bound).fault()
            found.raise_worst(name, units)
            found.outcome.check(fault is None and units < 700, fault or f"{case}: {units:.0f} u S")
        except Exception as error:
            found.outcome.check(False, f"{case}: {type(error).__name__}: {error}")
    return found


def _values(rng: np.random.Generator, shape: tuple[int, ...], values: str, dtype: str) -> Array:
    if values == "constant":
        return np.full(shape, 0.1 + rng.random(), dtype)
    array: Any = rng.random(shape) if values == "one sign" else rng.standard_normal(shape)
    return np.asarray(array, dtype)


@row(
    "random configurations near the smallest numbers: operands of 1 to 1e-44 (float64: 1e-322), subnormal products",
    "20,000 (quick 400); every method within its bound, with its term of gradual underflow",
    quick=400, full=20_000, order=21, every_isa=True,
)  # fmt: skip
def smallest_numbers(count: int) -> Outcome:
    """Forward and all gradients of the configurations of `random_reals`, each array at a scale of its own."""
    found = share(check_smallest, count)
    found.outcome.measured = worst_errors(found.worst)
    return found.outcome


def check_smallest(indices: range) -> Found:
    return check_reals(indices, (NEAR_THE_SMALLEST,))
