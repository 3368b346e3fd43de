"""Every operation on small generated problems: what the rows about memory run.

A `Work` is one problem of one kind. `results` computes all there is to compute for it, from arrays that pass through
`place`: to their own memory, to an address that is asked for, or as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

import fastconv
from fastconv import _native, grad
from fastconv._core.problem import Direction
from fastconv._core.select import WAYS
from fastconv.testing.problems import (
    Array,
    ConvCase,
    PoolCase,
    TiledCase,
    conv_cases,
    fill,
    pool_cases,
    tiled_cases,
    transposed_cases,
)
from fastconv.testing.ways import Given, trials, way

# Of 24 consecutive problems so many are of a kind; `threads` are convolutions with enough work for a team of threads.
SHARES = {
    "conv2d": 8, "conv_transpose2d": 3, "tiled_conv2d": 2, "pool": 3, "ways": 3, "depthwise": 3, "threads": 1,
    "training": 1,
}  # fmt: skip
FAST = [way.wish for way in WAYS if way.method.word != "direct"]
ORDER = [kind for kind, share in SHARES.items() for _ in range(share)]
Place = Callable[[Array], Array]


class Forced(NamedTuple):
    """A problem that is bent for the way of convolving that is asked for."""

    wish: str
    case: ConvCase


@dataclass(frozen=True)
class Work:
    """One problem; `case` says how to repeat it."""

    kind: str
    case: Any

    def __str__(self) -> str:
        return f"{self.kind}, {self.case}"

    def results(self, place: Place = np.copy) -> list[Array]:
        """Every result of the problem's operations; arrays that are read or written in place come from `place`."""
        return list(RUN[self.kind](self.case, place))


def works(count: int, first: int = 0, step: int = 1) -> Iterator[Work]:
    """`count` problems of all kinds in turn, always the same ones: every `step`-th from the number `first` on."""
    number = first
    while count > 0:
        kind = ORDER[number * 7 % len(ORDER)]  # 7 and 24 have no common factor: kinds are mixed
        if (case := _draw(kind, number)) is not None:
            yield Work(kind, case)
            count -= 1
        number += step


def _draw(kind: str, index: int) -> Any:
    if kind == "training":
        return index
    if kind == "pool":
        return pool_cases(1, index)[0]
    if kind == "tiled_conv2d":
        return tiled_cases(1, index)[0]
    if kind == "conv_transpose2d":
        return transposed_cases(1, index)[0]
    (case,) = conv_cases(1, index)
    if kind == "ways":
        wish = FAST[int(case.rng("way").integers(len(FAST)))]  # the others are those of the other kinds
        return Forced(wish, case) if any(trials(way(wish), case)) else None
    if kind == "depthwise":  # every channel, or every few, a group of its own
        few = index % 3 + 1
        groups = max(1, case.in_channels // few)
        return replace(case, in_channels=few * groups, out_channels=groups * (index % 4 + 1), groups=groups)
    return replace(case, batch=12) if kind == "threads" else case


def _convolution(case: ConvCase, place: Place, **options: Any) -> Iterator[Array]:
    """Forward into a new array and into a given one, by a plan, and every gradient."""
    options |= case.options()
    x, w, b = case.arrays("integers")
    if case.is_float and case.index % 5 == 0:  # every path that non-finite numbers take
        for array, value in ((x, np.nan), (w, np.inf)):
            if array.size and case.index % 2:
                array.flat[case.index % array.size] = value
    x, w, b = place(x), place(w), None if b is None else place(b)
    threads = {"num_threads": 1 + case.index % 3}
    y = fastconv.conv2d(x, w, b, **options)
    yield y
    after: dict[str, Any] = {"activation": case.activation}
    if case.with_residual:
        after["residual"] = place(fill(case.rng("residual"), y.shape, case.dtypes[0], "integers").astype(y.dtype))
    yield fastconv.conv2d(x, w, b, **options, **after, **threads, out=place(np.zeros_like(y)))
    if case.dtypes[0] == case.dtypes[1]:
        plan = fastconv.plan_conv2d(x.shape, w, b, **options, **threads, activation=case.activation)
        yield plan.run(x, out=place(np.zeros_like(y)), residual=after.get("residual"))
    dy = place(fill(case.rng("dy"), y.shape, case.dtypes[0], "integers"))
    yield from fastconv.conv2d_backward(dy, x, w, **options, **threads)


def _way(forced: Forced, place: Place) -> Iterator[Array]:
    """A way of convolving by name on problems of its own: call, `out=`, plan and gradients, as far as it has them."""
    case, threads = forced.case, {"num_threads": 1 + forced.case.index % 3}
    for trial in trials(way(forced.wish), case):
        given = trial.given("integers")
        if case.index % 5 == 0 and given.a.size and trial.case.is_float:
            given.a.flat[case.index % given.a.size] = np.nan
        given = Given(*(None if array is None else place(array) for array in given))  # type: ignore[arg-type]
        y = trial.run(given)
        yield y
        if trial.direction is not Direction.FORWARD:
            yield trial.run(given, **threads)
            continue
        yield trial.run(given, **threads, out=place(np.zeros_like(y)))
        if trial.case.dtypes[0] == trial.case.dtypes[1]:
            plan = trial.plan(given, **threads)
            yield plan.run(given.a, out=place(np.zeros_like(y)), residual=given.residual)


def _transposed(case: ConvCase, place: Place) -> Iterator[Array]:
    options = case.options()
    x, w, b = case.arrays("integers")
    x, w, b = place(x), place(w), None if b is None else place(b)
    y = fastconv.conv_transpose2d(x, w, b, **options)
    yield y
    yield fastconv.conv_transpose2d(x, w, b, **options, num_threads=1 + case.index % 3, out=place(np.zeros_like(y)))
    dy = place(fill(case.rng("dy"), y.shape, case.dtypes[0], "integers"))
    yield grad.conv_transpose2d_input(x.shape, w, dy, **options)
    yield grad.conv_transpose2d_weight(x, w.shape, dy, **options)


def _tiled(case: TiledCase, place: Place) -> Iterator[Array]:
    x = place(fill(case.rng("input"), case.input_shape, case.dtype, "integers"))
    w = place(fill(case.rng("weight"), case.weight_shape, case.dtype, "integers"))
    b = place(fill(case.rng("bias"), (case.out_channels,), case.dtype, "integers")) if case.with_bias else None
    y = fastconv.tiled_conv2d(x, w, b, **case.options())
    yield y
    yield fastconv.tiled_conv2d(x, w, b, **case.options(), out=place(np.zeros_like(y)))
    dy = place(fill(case.rng("dy"), y.shape, case.dtype, "integers"))
    yield grad.tiled_conv2d_input(x.shape, w, dy, **case.options())
    yield grad.tiled_conv2d_weight(x, w.shape, dy, **case.options())


def _pool(case: PoolCase, place: Place) -> Iterator[Array]:
    x = place(fill(case.rng("input"), case.input_shape, case.dtype))
    options = {**case.options(), "dilation": case.dilation}
    y, index = fastconv.max_pool2d(x, case.kernel, **options, return_indices=True)
    yield from (y, index)
    yield fastconv.max_pool2d(x, case.kernel, **options, out=place(np.zeros_like(y)))
    if not case.dtype.startswith("float"):
        return
    dy = place(fill(case.rng("dy"), y.shape, case.dtype))
    yield grad.max_pool2d_input(x, case.kernel, dy, **options)
    average = {
        **case.options(), "count_include_pad": case.count_include_pad, "divisor_override": case.divisor_override
    }  # fmt: skip
    mean = fastconv.avg_pool2d(x, case.kernel, **average)
    yield mean
    yield fastconv.avg_pool2d(x, case.kernel, **average, out=place(np.zeros_like(mean)))
    dy = place(fill(case.rng("dy"), mean.shape, case.dtype))
    yield grad.avg_pool2d_input(x.shape, case.kernel, dy, **average)


def _training(index: int, place: Place) -> Iterator[Array]:
    """The row kernels behind layers and optimizers; tests/kernels/test_layer_kernels.py compares them with NumPy."""
    rng = np.random.default_rng(index)
    dtype = ("float32", "float64")[index // len(ORDER) % 2]
    pixels, channels = int(rng.integers(1, 400)), int(rng.integers(1, 210))

    def given(*shape: int) -> Array:
        return place(rng.standard_normal(shape).astype(dtype))

    x, y, z, more = (given(pixels, channels) for _ in range(4))
    a, b, total, product = (given(channels) for _ in range(4))
    _native.relu_gradient(z, x, y, 6.0, total, 2)
    yield from (z.copy(), total.copy())
    _native.channel_sums(x, total, 2)
    yield total.copy()
    _native.channel_products(x, a, y, b, total, product, 2)
    yield from (total, product)
    _native.affine(more, x, a, y, b, b, False, 2)
    yield more.copy()
    _native.affine(more, x, a, None, None, b, True, 2)
    yield more
    w, g, m, s = (given(pixels * channels) for _ in range(4))
    s[...] = np.abs(s)
    _native.sgd(w, g, m, 0.1, 0.9, 1.0, bool(index % 2), 2)
    _native.adam(w, g, m, s, 0.1, 0.9, 0.99, 1e-7, 1.0, 2)
    yield from (w, m, s)
    out = given(pixels, 70)
    _native.dense(x, given(channels, 70), out, 2)
    yield out
    dx, images, pooled = given(2, 5, 7, channels), given(2, 5, 7, channels), given(2, 3, 3, channels)
    _native.max_pool_gradient(dx, images, pooled, given(2, 3, 3, channels), (3, 3), (2, 3), (1, 1), 2)
    yield dx
    yield from _moves(rng, given, pixels, channels)


def _moves(rng: Any, given: Callable[..., Array], pixels: int, channels: int) -> Iterator[Array]:
    """What moves and combines values in nets; tests/kernels/test_moves.py compares it with NumPy."""
    x, across = given(pixels, channels), given(channels, pixels)
    _native.move(across, x.T, (), 2)
    yield across
    _native.move(x, across.T[::-1], (None, rng.integers(0, channels, channels)), 2)
    yield x.copy()
    for how in ("mean", "norm", "max"):
        for seen, out in ((x[None], given(1, 1, channels)), (x[:, :, None], given(pixels, 1, 1))):
            _native.reduce(how, out, seen, 2)
            yield out
    places = np.zeros((1, 1, channels), np.int64)
    _native.extreme_places("max", False, places, x[None], 2)
    yield places
    index, weight = np.sort(rng.integers(0, pixels, (2 * pixels, 2))), given(2 * pixels, 2)
    for seen, out in ((x[None, :, None], given(1, 2 * pixels, 1, channels)), (x[None, ..., None],
            given(1, 2 * pixels, 2 * channels, 1))):  # fmt: skip
        both = None if seen.shape[2] == 1 else (rng.integers(0, channels, (2 * channels, 3)), given(2 * channels, 3))
        _native.resize(out, seen, (index, weight), both, 2)
        yield out
    few, product, gram = given(3, pixels), given(3, channels), given(channels, channels)
    _native.matmul(product, few, x, 2)
    yield product
    _native.matmul(gram, x.T, x, 2)
    yield gram


RUN: dict[str, Callable[[Any, Place], Iterator[Array]]] = {
    "conv2d": _convolution,
    "threads": _convolution,
    "depthwise": _convolution,
    "ways": _way,
    "conv_transpose2d": _transposed,
    "tiled_conv2d": _tiled,
    "pool": _pool,
    "training": _training,
}


def difference(ours: list[Array], theirs: list[Array]) -> str:
    """Which result differs, in bits but for those of a NaN; empty if none does."""
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        if one.shape != other.shape or one.dtype != other.dtype:
            return f"result {number}: {one.dtype}{one.shape}, not {other.dtype}{other.shape}"
        if not np.array_equal(one, other, equal_nan=one.dtype.kind == "f"):
            return f"result {number} of {len(ours)} differs at {np.argwhere(one != other)[:1].tolist()}"
    return ""
