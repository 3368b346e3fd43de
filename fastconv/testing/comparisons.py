"""The compiled code beside the reference on one problem, and by how much they may differ.

Integer-valued data must come out exactly equal, whatever the order of the sums. Real-valued data must keep the bound
of direct algorithms (`direct_bound`),

    |y - y_ref| <= (min(n, 4096) + 2) u S + (n + 2) eta,    S = conv(|input|, |weight|) + |bias|,

with n summed terms, u the unit roundoff and eta the smallest number of the type that is summed in, or that of
Winograd (`winograd_bound`) or Strassen (`strassen_bound`). The command `check`, the tests and the reliability board
take their bounds from here; docs/accuracy.md states them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from .. import functional, grad, reference
from .._native import LONG_SUM
from .problems import (
    EXACT_ACTIVATIONS,
    ConvCase,
    PoolCase,
    TiledCase,
    conv_cases,
    fill,
    pool_cases,
    tiled_cases,
    transposed_cases,
)

Array = NDArray[Any]

UNIT_ROUNDOFF = {"float16": 2.0**-24, "float32": 2.0**-24, "float64": 2.0**-53}  # of the type that is summed in
SMALLEST = {"float16": 2.0**-149, "float32": 2.0**-149, "float64": 2.0**-1074}  # number of that type: eta
WINOGRAD_TERMS = {"winograd": 32, "winograd_2x2": 4, "winograd_phases": 4, "winograd_phases_4x4": 4, "winograd_rows": 32}
# What Winograd's transforms may lose where operands are near the smallest numbers: as if each were so much larger. The
# largest tiles lose up to 850 eta a weight and 240 eta an input, 1,300 and 350 in the weight gradient, by the rows of
# their matrices; (C + 32) u times this is more than 9 times that.
WINOGRAD_ADDED = 2.0**-120
WINOGRAD_LOST, STRASSEN_LOST = 8, 2  # eta a term: products, and sums of these that are multiplied or added up
# An activation's steepest slope (silu, hardswish: below 1.1 and 1.5), and the roundings that it takes itself.
ACTIVATION_SLOPE, ACTIVATION_ULPS = 1.5, 8
MOST_STRASSEN_PIXELS = 200  # of the batch
MOST_WINOGRAD_VALUES = 100_000  # channels x outputs x pixels of a Winograd problem, to keep it quick
Gradients = tuple[Array, Array, Array]  # with nothing masked
GRADIENTS = ("grad_input", "grad_weight", "grad_bias")


def direct_bound(expected: Array, scale: Array, terms: int, slope: float = 1, ulps: int = 0) -> Array:
    """The most that a direct sum of `terms` terms may differ from `expected`, elementwise; `scale` is S.

    A sum of more than `LONG_SUM` terms errs no more than one of that many (drivers/totals.pxi). Where products are
    subnormal, each may lose half the smallest number beside. `slope` is the steepest slope of what follows the sum,
    `ulps` the roundings that this takes itself. A result of half precision is rounded once more, and in double
    precision the reference's own error, which does grow with the sum, comes on top.
    """
    own = _bound(expected, scale, min(terms, LONG_SUM) + 2, terms + 2, slope, ulps)
    return own + _bound(expected, scale, terms + 2, terms + 2, slope, ulps) if _doubtful(expected) else own


def winograd_bound(
    expected: Array, scale: Array, terms: int, slope: float = 1, ulps: int = 0, algorithm: str = "winograd"
) -> Array:
    """Winograd's bound for `terms` summed channels (pixels for the weight gradient); `scale` as `plane_scale`."""
    roundings = terms + WINOGRAD_TERMS[algorithm]
    bound = _bound(expected, scale, roundings, WINOGRAD_LOST * roundings, slope, ulps)
    return 2 * bound if _doubtful(expected) else bound


def winograd_pixels(pixels: int) -> int:
    """The terms of Winograd's weight gradient: a long sum over tiles is made in blocks."""
    return min(pixels, LONG_SUM)


def _doubtful(expected: Array) -> bool:
    """Whether the reference rounds as we do."""
    return expected.dtype == np.float64


def _bound(expected: Array, scale: Array, roundings: float, lost: float, slope: float, ulps: int) -> Array:
    """(roundings u S + lost eta) `slope`, and `ulps` roundings of the result itself."""
    name = expected.dtype.name
    u, eta, magnitude = UNIT_ROUNDOFF[name], SMALLEST[name], np.abs(expected.astype(np.float64))
    bound: Array = slope * (roundings * u * scale.astype(np.float64) + lost * eta) + ulps * (u * magnitude + eta)
    return bound + 2.0**-11 * (magnitude + bound) * 2 + 2.0**-24 if name == "float16" else bound


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
    return 1 if case.padding_mode == "zeros" else max(1, dy.size // max(1, case.out_channels))


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


# ---- Winograd -------------------------------------------------------------------------------------------------------


def winograd_case(case: ConvCase) -> ConvCase | None:
    """The case with a kernel that Winograd can take; None where nothing or too much would be computed."""
    size = (max(case.size[0], 7), max(case.size[1], 7))
    if not 0 < case.in_channels * case.out_channels * size[0] * size[1] < MOST_WINOGRAD_VALUES:
        return None
    return replace(case, kernel=(3, 3), stride=1, dilation=1, groups=1, size=size, dtypes=("float32", "float32"))


def plane_maxima(array: Array, channels_last: bool) -> Array:
    """max|x[n, c]| over the plane, in the shape of x, and `WINOGRAD_ADDED`."""
    axes = (-3, -2) if channels_last else (-2, -1)
    magnitude = np.abs(array.astype(np.float64)) + WINOGRAD_ADDED
    return np.broadcast_to(magnitude.max(axis=axes, keepdims=True, initial=WINOGRAD_ADDED), array.shape)


def plane_scale(x: Array, w: Array, channels_last: bool) -> Array:
    """sum over c of max|x[n, c]| * sum|w[o, c]|, to be broadcast over the output; every factor with what is added."""
    magnitude = np.abs(w.astype(np.float64)) + WINOGRAD_ADDED
    scale: Array
    if channels_last:
        scale = plane_maxima(x, True)[..., :1, :1, :] @ magnitude.sum((0, 1))
        return scale
    scale = np.moveaxis(plane_maxima(x, False)[..., :1, :1], -3, -1) @ magnitude.sum((2, 3)).T
    return np.moveaxis(scale, -1, -3)


def winograd(case: ConvCase, algorithm: str = "winograd") -> Iterator[Comparison]:
    """Winograd's forward, input gradient and weight gradient, of real numbers and of their magnitudes.

    `case` comes from `winograd_case`. Numbers of one sign are the harder ones: their roundings add up.
    """
    for values in ("reals", "magnitudes"):
        x, w, b = case.arrays("reals")
        dy = fill(case.rng("grad_output"), reference.conv2d(x, w, **case.options()).shape, "float32")
        if values == "magnitudes":
            x, w, dy = np.abs(x), np.abs(w), np.abs(dy)
        last = case.channels_last
        expected = reference.conv2d(x, w, b, **case.options(), activation=case.activation)
        got = functional.conv2d(x, w, b, **case.options(), activation=case.activation, algorithm=algorithm)
        scale = plane_scale(x, w, last)
        if b is not None:
            scale = scale + np.abs(b if last else b[:, None, None])
        scale = np.broadcast_to(scale, expected.shape)
        bound = winograd_bound(expected, scale, case.in_channels, ACTIVATION_SLOPE, ACTIVATION_ULPS, algorithm)
        yield Comparison(f"forward of {values}", got, expected, bound)
        theirs = cast(Gradients, reference.conv2d_backward(dy, x, w, **case.options()))
        ours = cast(Gradients, functional.conv2d_backward(dy, x, w, **case.options(), algorithm=algorithm))
        turned = w.swapaxes(2, 3) if last else w.swapaxes(0, 1)
        scale = np.broadcast_to(plane_scale(dy, turned, last) * _folds(case, dy), x.shape)
        bound = winograd_bound(theirs[0], scale, case.out_channels, algorithm=algorithm)
        yield Comparison(f"grad_input of {values}", ours[0], theirs[0], bound)
        mask, shape = (False, True, False), np.zeros(w.shape)
        planes = plane_maxima(dy, last), plane_maxima(x, last)
        scale = cast(Array, reference.conv2d_backward(*planes, shape, **case.options(), output_mask=mask)[1])
        bound = winograd_bound(theirs[1], scale, dy.size // max(1, case.out_channels), algorithm=algorithm)
        yield Comparison(f"grad_weight of {values}", ours[1], theirs[1], bound)


def winograd_phases(case: ConvCase, algorithm: str = "winograd_phases") -> Iterator[Comparison]:
    """Winograd at stride 2: the forward pass of 3 x 3 taps and the input gradient of 4 x 4; else as `winograd`."""
    for values in ("reals", "magnitudes"):
        c = replace(case, kernel=(3, 3), stride=2)
        x, w, b = (None if a is None else np.abs(a) if values == "magnitudes" else a for a in c.arrays("reals"))
        assert x is not None and w is not None
        last = c.channels_last
        expected = reference.conv2d(x, w, b, **c.options(), activation=c.activation)
        scale = plane_scale(x, w, last)
        if b is not None:
            scale = scale + np.abs(b if last else b[:, None, None])
        scale = np.broadcast_to(scale, expected.shape)
        bound = winograd_bound(expected, scale, c.in_channels, ACTIVATION_SLOPE, ACTIVATION_ULPS, algorithm=algorithm)
        got = functional.conv2d(x, w, b, **c.options(), activation=c.activation, algorithm=algorithm)
        yield Comparison(f"forward of {values}", got, expected, bound)
        plan = functional.plan_conv2d(x.shape, w, b, **c.options(), activation=c.activation, algorithm=algorithm)
        yield Comparison(f"plan of {values}", plan.run(x), expected, bound)
        if algorithm != "winograd_phases":
            continue
        c = replace(case, kernel=(4, 4), stride=2, size=(case.size[0] + 1, case.size[1] + 1))
        x, w, _ = c.arrays("reals")
        dy = fill(c.rng("grad_output"), reference.conv2d(x, w, **c.options()).shape, "float32")
        if values == "magnitudes":
            w, dy = np.abs(w), np.abs(dy)
        expected = reference.conv2d_input(x.shape, w, dy, **c.options())
        scale = np.broadcast_to(plane_scale(dy, w.swapaxes(2, 3) if last else w.swapaxes(0, 1), last), x.shape)
        bound = winograd_bound(expected, scale * _folds(c, dy), c.out_channels, algorithm=algorithm)
        got = grad.conv2d_input(x.shape, w, dy, **c.options(), algorithm=algorithm)
        yield Comparison(f"grad_input of {values}", got, expected, bound)


def line_case(case: ConvCase) -> ConvCase | None:
    """The case with a kernel of seven columns at stride 2 and few channels; None where it is empty or large."""
    channels, size = 1 + case.index % 4, (max(case.size[0], 11), max(case.size[1], 13))
    if not 0 < case.out_channels * prod(size) * (1 if case.batch is None else case.batch) < MOST_WINOGRAD_VALUES:
        return None
    return replace(
        case, kernel=(1 + case.index % 7, 7), stride=(1 + case.index % 3, 2), dilation=1, groups=1, size=size,
        in_channels=channels, padding_mode="zeros", dtypes=("float32", "float32"), large=False,
    )  # fmt: skip


def winograd_rows(case: ConvCase, algorithm: str = "winograd_rows") -> Iterator[Comparison]:
    """Winograd along rows: call and plan, of real numbers and of their magnitudes; `case` comes from `line_case`."""
    for values in ("reals", "magnitudes"):
        x, w, b = (None if a is None else np.abs(a) if values == "magnitudes" else a for a in case.arrays("reals"))
        assert x is not None and w is not None
        after: dict[str, Any] = {"activation": case.activation}
        shape = reference.conv2d(x, w, **case.options()).shape
        scale = np.broadcast_to(plane_scale(x, w, case.channels_last), shape)
        if b is not None:
            scale = scale + np.abs(b if case.channels_last else b[:, None, None])
        if case.with_residual:
            after["residual"] = fill(case.rng("residual"), shape, "float32", "integers")
            scale = scale + np.abs(after["residual"])
        expected = reference.conv2d(x, w, b, **case.options(), **after)
        terms = case.in_channels * case.kernel[0]
        bound = winograd_bound(expected, scale, terms, ACTIVATION_SLOPE, ACTIVATION_ULPS, algorithm)
        got = functional.conv2d(x, w, b, **case.options(), **after, algorithm=algorithm)
        yield Comparison(f"forward of {values}", got, expected, bound)
        plan = functional.plan_conv2d(
            x.shape, w, b, **case.options(), activation=case.activation, algorithm=algorithm
        )
        yield Comparison(f"plan of {values}", plan.run(x, residual=after.get("residual")), expected, bound)


# ---- Strassen -------------------------------------------------------------------------------------------------------


def strassen_case(case: ConvCase) -> ConvCase | None:
    """The case with a 1 x 1 kernel, few pixels, and channels that every instruction set can cut in four."""
    size = (min(case.size[0], 7), min(case.size[1], 6))
    if not 0 < prod(size) * (1 if case.batch is None else case.batch) < MOST_STRASSEN_PIXELS:
        return None
    return replace(
        case, kernel=(1, 1), dilation=1, groups=1, in_channels=(64, 256, 64)[case.index % 3], out_channels=256,
        size=size, dtypes=("float32", "float32"), large=False,
    )  # fmt: skip


def strassen_bound(expected: Array, x: Array, w: Array, terms: int, added: float = 0) -> Array:
    """Strassen's bound, the largest over the batch: what is `added` is at most so large, too."""
    scale = terms * np.max(np.abs(x), initial=0).astype(np.float64) * np.max(np.abs(w), initial=0) + added
    every, roundings = np.full(expected.shape, scale), terms + 2
    return _bound(expected, every, roundings, STRASSEN_LOST * roundings, ACTIVATION_SLOPE, ACTIVATION_ULPS)


def strassen(case: ConvCase, algorithm: str = "strassen") -> Iterator[Comparison]:
    """Strassen's product: call, plan and input gradient. Integers come out exactly, as in `conv2d`."""
    for values in ("integers", "reals", "magnitudes"):
        x, w, b = (
            None if a is None else np.abs(a) if values == "magnitudes" else a
            for a in case.arrays("integers" if values == "integers" else "reals")
        )
        assert x is not None and w is not None
        after: dict[str, Any] = {"activation": case.activation}
        shape = reference.conv2d(x, w, **case.options()).shape
        added = 0.0 if b is None else float(np.abs(b).max())
        if case.with_residual:
            after["residual"] = fill(case.rng("residual"), shape, "float32", "integers")
            added += float(np.max(np.abs(after["residual"]), initial=0))
        expected = reference.conv2d(x, w, b, **case.options(), **after)
        exact = values == "integers" and case.activation in EXACT_ACTIVATIONS
        bound = None if exact else strassen_bound(expected, x, w, case.in_channels, added)
        got = functional.conv2d(x, w, b, **case.options(), **after, algorithm=algorithm)
        yield Comparison(f"forward of {values}", got, expected, bound)
        plan = functional.plan_conv2d(
            x.shape, w, b, **case.options(), activation=case.activation, algorithm=algorithm
        )
        yield Comparison(f"plan of {values}", plan.run(x, residual=after.get("residual")), expected, bound)
        if case.padding_mode != "zeros" or case.in_channels % 256:  # in the gradient these are the outputs
            continue
        dy = fill(case.rng("grad_output"), shape, "float32", "integers")
        expected = reference.conv2d_input(x.shape, w, dy, **case.options())
        bound = None if values == "integers" else strassen_bound(expected, dy, w, case.out_channels)
        got = grad.conv2d_input(x.shape, w, dy, **case.options(), algorithm=algorithm)
        yield Comparison(f"grad_input of {values}", got, expected, bound)


# ---- All of it ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Operation:
    """A row of the check: its problems by count and first index, and the comparisons of one by a named algorithm.

    'auto' would not do: it may take Winograd, which is not exact on integer-valued data.
    """

    name: str
    cases: Callable[[int, int], tuple[Any, ...]]
    compare: Callable[[Any], Iterator[Comparison]]


def _winograd_cases(count: int, first: int) -> tuple[ConvCase, ...]:
    return tuple(case for case in map(winograd_case, conv_cases(count, first)) if case)


def _line_cases(count: int, first: int) -> tuple[ConvCase, ...]:
    return tuple(case for case in map(line_case, conv_cases(count, first)) if case)


def _strassen_cases(count: int, first: int) -> tuple[ConvCase, ...]:
    """A sixth as many: they are the largest."""
    return tuple(case for case in map(strassen_case, conv_cases(max(count // 6, min(count, 8)), first)) if case)


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
        Operation(f"conv_transpose{axes}d, gradients", _some(transposed_cases, axes), conv_transpose),
        Operation(f"max_pool{axes}d, gradient", _some(pool_cases, axes), max_pool),
        Operation(f"avg_pool{axes}d, gradient", _some(pool_cases, axes), avg_pool),
    )


OPERATIONS = (
    Operation("conv2d, plan_conv2d", conv_cases, conv),
    Operation("conv2d_backward", conv_cases, conv_backward),
    Operation("grad.conv2d_input, _weight", conv_cases, separate_gradients),
    Operation("conv_transpose2d, gradients", transposed_cases, conv_transpose),
    Operation("tiled_conv2d, gradients", tiled_cases, tiled_conv2d),
    Operation("max_pool2d, gradient", pool_cases, max_pool),
    Operation("avg_pool2d, gradient", pool_cases, avg_pool),
    *_of_axes(1),
    *_of_axes(3),
    Operation("Winograd, gradients", _winograd_cases, winograd),
    Operation("Winograd 2x2, gradients", _winograd_cases, lambda case: winograd(case, "winograd_2x2")),
    Operation("Winograd at stride 2", _winograd_cases, winograd_phases),
    Operation(
        "Winograd at stride 2, 4x4", _winograd_cases, lambda case: winograd_phases(case, "winograd_phases_4x4")
    ),
    Operation("Winograd along rows", _line_cases, winograd_rows),
    Operation("Strassen, once", _strassen_cases, strassen),
    Operation("Strassen, twice", _strassen_cases, lambda case: strassen(case, "strassen_twice")),
)
