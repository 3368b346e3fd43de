"""The compiled code beside the reference on one problem, and by how much they may differ.

Integer-valued data must come out exactly equal, whatever the order of the sums. Real-valued data must keep the bound
of direct algorithms,

    |y - y_ref| <= (min(n, 4096) + 2) u S + (n + 2) eta,    S = conv(|input|, |weight|) + |bias|,

with n summed terms, u the unit roundoff and eta the smallest number of the type that is summed in, or that of the
method that is asked for by name (`bounds`). The command `check`, the tests and the reliability board compare here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from .. import functional, grad, reference
from .._core.methods import METHODS
from .._core.problem import Direction
from .._core.select import WAYS, Way
from .bounds import ACTIVATION_SLOPE, ACTIVATION_ULPS, direct_bound
from .problems import (
    EXACT_ACTIVATIONS,
    MOST_MACS,
    ConvCase,
    PoolCase,
    TiledCase,
    constant_cases,
    conv_cases,
    fill,
    pool_cases,
    tiled_cases,
    transposed_cases,
)
from .ways import trials

Array = NDArray[Any]

Gradients = tuple[Array, Array, Array]  # with nothing masked
FEW_CASES = 8  # of a way, however large its problems are
GRADIENTS = ("grad_input", "grad_weight", "grad_bias")


@dataclass(frozen=True, slots=True)
class Comparison:
    """A result beside the reference's; without a bound they must be equal, type and shape included."""

    what: str
    got: Array
    expected: Array
    bound: Array | None = None  # elementwise, on |got - expected|

    @property
    def same_kind(self) -> bool:
        return self.got.dtype == self.expected.dtype and self.got.shape == self.expected.shape

    def errors(self) -> Array:
        """The error of every value in units of its bound; without a bound, zero where equal and infinite elsewhere."""
        y, y_ref = self.got, self.expected
        with np.errstate(invalid="ignore"):
            equal = (y == y_ref) | ((y != y) & (y_ref != y_ref))
            if self.bound is None:
                return np.where(equal, 0.0, np.inf)
            error = np.abs(y.astype(np.float64) - y_ref.astype(np.float64))
            inside = np.where(self.bound > 0, error / np.where(self.bound > 0, self.bound, 1), np.inf)
        return np.where(equal, 0.0, np.where(np.isnan(inside), np.inf, inside))

    def worst(self) -> float:
        """The largest of `errors`: 1 is the bound itself."""
        return float(np.max(self.errors(), initial=0)) if self.same_kind else np.inf

    def fault(self) -> str | None:
        """What is wrong, with the place and both values, or None."""
        if not self.same_kind:
            return f"{self.what}: {_kind(self.got)}, expected {_kind(self.expected)}"
        errors = self.errors()
        wrong = int(np.count_nonzero(errors > 1))
        if not wrong:
            return None
        at = tuple(int(i) for i in np.unravel_index(int(np.argmax(errors)), errors.shape))
        allowed = "" if self.bound is None else f" +- {self.bound[at]}"
        return (
            f"{self.what}: {wrong} of {errors.size} differ, most at {at}: "
            f"{self.got[at]}, not {self.expected[at]}{allowed}"
        )


def _kind(array: Array) -> str:
    return f"{array.dtype}{array.shape}"


def value_kinds(index: int, dtype: str) -> tuple[str, ...]:
    """Integer-valued data for every case; real numbers too for every other one of floating type."""
    return ("integers", "reals") if dtype.startswith("float") and index % 2 else ("integers",)


# ---- Convolution ----------------------------------------------------------------------------------------------------


def _pair(name: str, case: ConvCase | PoolCase) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """A function of the case's number of axes and its twin; `name` has braces where that number stands."""
    name = name.format(case.axes)
    return getattr(functional, name, None) or getattr(grad, name), getattr(reference, name)


def conv(case: ConvCase, algorithm: str = "direct") -> Iterator[Comparison]:
    """A convolution with bias, residual and activation as the case has them, and the plan of the same one."""
    compiled, plain = _pair("conv{}d", case)
    for values in value_kinds(case.index, case.dtypes[0]):
        x, w, b = case.arrays(values)
        options: dict[str, Any] = {**case.options(), "activation": case.activation}
        if case.with_residual:
            shape = plain(x, w, **case.options()).shape
            options["residual"] = fill(case.rng("residual"), shape, case.dtypes[0], values)
        expected = plain(x, w, b, **options)
        bound = None
        if case.is_float and not (values == "integers" and case.activation in EXACT_ACTIVATIONS):
            scale = reference.abs_sum(plain, x, w, b, **options)
            slope, ulps = (ACTIVATION_SLOPE, ACTIVATION_ULPS) if case.activation else (1, 0)
            bound = direct_bound(expected, scale, case.terms + case.with_bias + case.with_residual, slope, ulps)
        got = compiled(x, w, b, **options, algorithm=algorithm)
        yield Comparison(f"conv{case.axes}d of {values}", got, expected, bound)
        if case.dtypes[0] == case.dtypes[1] and not case.with_residual:  # a plan takes its weight's type
            made = getattr(functional, f"plan_conv{case.axes}d")(x.shape, w, b, **options, algorithm=algorithm)
            yield Comparison(f"plan_conv{case.axes}d of {values}", made.run(x), expected, bound)


def conv_backward(case: ConvCase, algorithm: str = "direct") -> Iterator[Comparison]:
    """The three gradients of a convolution."""
    compiled, plain = _pair("conv{}d_backward", case)
    for values in value_kinds(case.index, case.dtypes[0]):
        x, w, _ = case.arrays(values)
        dy = _grad_output(case, x, w, values)
        expected = cast(Gradients, plain(dy, x, w, **case.options()))
        got = cast(Gradients, compiled(dy, x, w, **case.options(), algorithm=algorithm))
        bounds: list[Array | None] = [None, None, None]
        if values == "reals":
            scale = reference.abs_sum(plain, dy, x, w, **case.options())
            pixels = dy.size // max(1, case.out_channels)
            terms = (case.out_channels // case.groups * prod(case.kernel) * _folds(case, dy), pixels, pixels)
            bounds = [direct_bound(y, s, n) for y, s, n in zip(expected, scale, terms, strict=True)]
        for what, ours, theirs, bound in zip(GRADIENTS, got, expected, bounds, strict=True):
            yield Comparison(f"{what} of {values}", ours, theirs, bound)


def _grad_output(case: ConvCase, x: Array, w: Array, values: str) -> Array:
    """A gradient of the result's shape."""
    shape = _pair("conv{}d", case)[1](x, w, **case.options()).shape
    return fill(case.rng("grad_output"), shape, case.dtypes[0], values)


def _folds(case: ConvCase, dy: Array) -> int:
    """A repeated padding folds the gradient of several padded pixels onto one: at most so many."""
    return 1 if case.padding_mode in ("zeros", "constant") else max(1, dy.size // max(1, case.out_channels))


def constant(case: ConvCase, algorithm: str = "direct") -> Iterator[Comparison]:
    """A convolution under padding that holds a number, its plan and its gradients."""
    yield from conv(case, algorithm)
    yield from conv_backward(case, algorithm)


def separate_gradients(case: ConvCase, algorithm: str = "direct") -> Iterator[Comparison]:
    """The functions of `grad` for each of them, which share their work with that for all."""
    x, w, _ = case.arrays("integers")
    dy, options = _grad_output(case, x, w, "integers"), case.options()
    yield _twin("grad_input", _pair("conv{}d_input", case), (x.shape, w, dy), options, algorithm)
    yield _twin("grad_weight", _pair("conv{}d_weight", case), (x, w.shape, dy), options, algorithm)


def _twin(
    what: str,
    twins: tuple[Callable[..., Any], Callable[..., Any]],
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    algorithm: str,
    terms: int | None = None,
) -> Comparison:
    """A function and its twin on the same arguments: equal, or within the bound of `terms` where given."""
    compiled, plain = twins
    expected = plain(*arguments, **options)
    bound = None
    if terms is not None:
        bound = direct_bound(expected, reference.abs_sum(plain, *arguments, **options), terms)
    return Comparison(what, compiled(*arguments, **options, algorithm=algorithm), expected, bound)


def conv_transpose(case: ConvCase, algorithm: str = "direct") -> Iterator[Comparison]:
    """A transposed convolution, its two gradients, and the plan of the same one."""
    taps, options, name = prod(case.kernel), case.options(), f"conv_transpose{case.axes}d"
    for values in value_kinds(case.index, case.dtypes[0]):
        x, w, b = case.arrays(values)
        real = values == "reals"
        y = _twin(
            f"{name} of {values}", _pair("conv_transpose{}d", case), (x, w, b), options, algorithm,
            case.terms + 1 if real else None,
        )  # fmt: skip
        yield y
        if case.dtypes[0] == case.dtypes[1]:
            made = getattr(functional, f"plan_{name}")(x.shape, w, b, **options, algorithm=algorithm)
            yield Comparison(f"plan_{name} of {values}", made.run(x), y.expected, y.bound)
        dy = fill(case.rng("grad_output"), y.expected.shape, case.dtypes[0], values)
        yield _twin(
            f"grad_input of {values}", _pair("conv_transpose{}d_input", case), (x.shape, w, dy), options, algorithm,
            case.out_channels // case.groups * taps if real else None,
        )  # fmt: skip
        yield _twin(
            f"grad_weight of {values}", _pair("conv_transpose{}d_weight", case), (x, w.shape, dy), options, algorithm,
            x.size // max(1, case.in_channels) if real else None,
        )  # fmt: skip


def tiled_conv2d(case: TiledCase, algorithm: str = "direct") -> Iterator[Comparison]:
    """tiled_conv2d and its two gradients."""
    taps, options = prod(case.kernel), case.options()
    for values in value_kinds(case.index, case.dtype):
        x = fill(case.rng("input"), case.input_shape, case.dtype, values)
        w = fill(case.rng("weight"), case.weight_shape, case.dtype, values)
        b = fill(case.rng("bias"), (case.out_channels,), case.dtype, values) if case.with_bias else None
        real = values == "reals"
        y = _twin(
            f"tiled_conv2d of {values}", (functional.tiled_conv2d, reference.tiled_conv2d), (x, w, b), options,
            algorithm, case.in_channels * taps + 1 if real else None,
        )  # fmt: skip
        yield y
        dy = fill(case.rng("grad_output"), y.expected.shape, case.dtype, values)
        yield _twin(
            f"grad_input of {values}", (grad.tiled_conv2d_input, reference.tiled_conv2d_input), (x.shape, w, dy),
            options, algorithm, case.out_channels * taps if real else None,
        )  # fmt: skip
        yield _twin(
            f"grad_weight of {values}", (grad.tiled_conv2d_weight, reference.tiled_conv2d_weight), (x, w.shape, dy),
            options, algorithm, dy.size // max(1, case.out_channels) if real else None,
        )  # fmt: skip


# ---- Pooling --------------------------------------------------------------------------------------------------------


def max_pool(case: PoolCase, algorithm: str = "direct") -> Iterator[Comparison]:
    """Maxima with and without indices, and their gradient: all exact. `algorithm` has no meaning here."""
    compiled, plain = _pair("max_pool{}d", case)
    # A range of few integers makes ties common.
    x = fill(case.rng("input"), case.input_shape, case.dtype, "integers" if case.index % 2 else "reals")
    options = {**case.options(), "dilation": case.dilation}
    expected = plain(x, case.kernel, return_indices=True, **options)
    got = compiled(x, case.kernel, return_indices=True, **options)
    yield Comparison("maximum", got[0], expected[0])
    yield Comparison("index", got[1], expected[1])
    alone = compiled(x, case.kernel, **options)
    assert isinstance(alone, np.ndarray)
    yield Comparison("maximum alone", alone, expected[0])
    if case.dtype.startswith("float"):
        gradient, plain_gradient = _pair("max_pool{}d_input", case)
        dy = fill(case.rng("grad_output"), expected[0].shape, case.dtype, "integers")
        dx = plain_gradient(x, case.kernel, dy, **options)
        yield Comparison("grad_input", gradient(x, case.kernel, dy, **options), dx)


def avg_pool(case: PoolCase, algorithm: str = "direct") -> Iterator[Comparison]:
    """Means and their gradient within the bound. `algorithm` has no meaning here."""
    compiled, plain = _pair("avg_pool{}d", case)
    dtype = case.dtype if case.dtype.startswith("float") else "float32"
    x = fill(case.rng("input"), case.input_shape, dtype)
    options = {
        **case.options(),
        "count_include_pad": case.count_include_pad,
        "divisor_override": case.divisor_override,
    }
    window = case.kernel**case.axes if isinstance(case.kernel, int) else prod(case.kernel)
    expected = plain(x, case.kernel, **options)
    scale = reference.abs_sum(plain, x, case.kernel, **options)
    got = compiled(x, case.kernel, **options)
    yield Comparison("mean", got, expected, direct_bound(expected, scale, window + 1))
    gradient, plain_gradient = _pair("avg_pool{}d_input", case)
    dy = fill(case.rng("grad_output"), expected.shape, dtype)
    dx = plain_gradient(x.shape, case.kernel, dy, **options)
    scale = reference.abs_sum(plain_gradient, x.shape, case.kernel, dy, **options)
    got = gradient(x.shape, case.kernel, dy, **options)
    yield Comparison("grad_input", got, dx, direct_bound(dx, scale, 2 * window + 1))


# ---- Ways by name ---------------------------------------------------------------------------------------------------


def forced(case: ConvCase, way: Way) -> Iterator[Comparison]:
    """A way of convolving on the problems that it makes of a case: call, plan and gradients, as far as it has them.

    Numbers of one sign are the harder ones: their roundings add up.
    """
    for trial in trials(way, case):
        kinds = ("integers", "reals", "magnitudes")[not trial.exact("integers") : 3 if trial.case.is_float else 1]
        for values in kinds:
            given = trial.given(values)
            expected = trial.expected(given)
            bound = None if trial.exact(values) else trial.allowed(expected, given)
            what = f"{trial.direction.value} of {values}"
            yield Comparison(what, trial.run(given), expected, bound)
            if trial.direction is Direction.FORWARD and trial.case.dtypes[0] == trial.case.dtypes[1]:
                plan = trial.plan(given)
                yield Comparison(f"plan of {values}", plan.run(given.a, residual=given.residual), expected, bound)


def forced_cases(way: Way, count: int, first: int = 0, axes: int = 2) -> tuple[ConvCase, ...]:
    """Cases of which a way makes problems: as many of `count` as are no more work than so many others, or a few."""
    kept: list[ConvCase] = []
    work = 0
    for case in conv_cases(count, first, axes):
        bent = [trial.problem.macs for trial in trials(way, case)]
        if not bent:
            continue
        work += max(bent)
        if work > count * MOST_MACS // 2 and len(kept) >= FEW_CASES:
            break
        kept.append(case)
    return tuple(kept)


# ---- All of it ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Operation:
    """A row of the check: its problems by count and first index, and the comparisons of one by a named algorithm.

    'auto' would not do: it may take a way that is not exact on integer-valued data.
    """

    name: str
    cases: Callable[[int, int], tuple[Any, ...]]
    compare: Callable[[Any], Iterator[Comparison]]


def _some(draw: Callable[..., tuple[Any, ...]], axes: int) -> Callable[[int, int], tuple[Any, ...]]:
    """Problems of another number of axes than two: half as many of one, a quarter of three."""
    parts = {1: 2, 3: 4}[axes]
    return lambda count, first: draw(max(count // parts, min(count, 8)), first, axes)


def _of_axes(axes: int) -> tuple[Operation, ...]:
    """The rows of one or three axes."""
    return (
        Operation(f"conv{axes}d, plan_conv{axes}d", _some(conv_cases, axes), conv),
        Operation(f"conv{axes}d_backward", _some(conv_cases, axes), conv_backward),
        Operation(f"grad.conv{axes}d_input, _weight", _some(conv_cases, axes), separate_gradients),
        Operation(f"conv{axes}d, padding_value", _some(constant_cases, axes), constant),
        Operation(f"conv_transpose{axes}d, gradients", _some(transposed_cases, axes), conv_transpose),
        Operation(f"max_pool{axes}d, gradient", _some(pool_cases, axes), max_pool),
        Operation(f"avg_pool{axes}d, gradient", _some(pool_cases, axes), avg_pool),
    )


def _of_a_way(way: Way) -> Operation:
    """The row of a way: images, and a quarter as many volumes where it has them."""

    def cases(count: int, first: int) -> tuple[ConvCase, ...]:
        return forced_cases(way, count, first) + forced_cases(way, -(-count // 4), first, 3)

    return Operation(way.wish, cases, lambda case: forced(case, way))


OPERATIONS = (
    Operation("conv2d, plan_conv2d", conv_cases, conv),
    Operation("conv2d_backward", conv_cases, conv_backward),
    Operation("grad.conv2d_input, _weight", conv_cases, separate_gradients),
    Operation("conv2d, padding_value", lambda count, first: constant_cases(count // 4, first), constant),
    Operation("conv_transpose2d, gradients", transposed_cases, conv_transpose),
    Operation("tiled_conv2d, gradients", tiled_cases, tiled_conv2d),
    Operation("max_pool2d, gradient", pool_cases, max_pool),
    Operation("avg_pool2d, gradient", pool_cases, avg_pool),
    *_of_axes(1),
    *_of_axes(3),
    *map(_of_a_way, (way for way in WAYS if way.method is not METHODS[-1])),
)
