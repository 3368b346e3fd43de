"""Real numbers: how far results lie from a float64 judge, in units of the bounds that docs/accuracy.md states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

import fastconv
from fastconv.testing.comparisons import (
    GRADIENTS,
    UNIT_ROUNDOFF,
    Comparison,
    direct_bound,
    plane_maxima,
    plane_scale,
    winograd_bound,
    winograd_pixels,
)
from reliability.board import Outcome, row
from reliability.configurations import Configuration, draw
from reliability.oracle import Array
from reliability.workers import Found, share

WINOGRAD_EVERY = 4
VALUES = ("normal", "one sign", "cancelling", "constant", "scaled", "scales mixed")
NEAR_THE_SMALLEST = "near the smallest"  # the kind of values of another row (rows/long_sums.py)
TINY = {"float32": (0, -10, -19, -22, -38, -41, -44), "float64": (0, -80, -154, -162, -300, -315, -322)}


class Measure(NamedTuple):
    """A result, what is right, S (or Winograd's sum over the planes) and the bound."""

    what: str
    got: Array
    expected: Array
    scale: Array
    bound: Array


@row(
    "random real configurations against float64: mixed signs, cancellation, scales 1e-30…1e30, in units of u·S",
    "100,000 (quick 1,500); direct and Winograd ≤ their stated bounds",
    quick=1500, full=100_000, order=20, every_isa=True,
)  # fmt: skip
def random_reals(count: int) -> Outcome:
    """Forward and all gradients; every fourth configuration by Winograd, half of those dilated."""
    found = share(check_reals, count)
    worst = found.worst
    found.outcome.measured = (
        f"worst error direct {worst['direct']:.2f} of the bound ({worst['direct u S']:.1f} u·S), Winograd "
        f"{worst['winograd']:.2f} of its bound; S from 1e{-worst['low']:.0f} to 1e{worst['high']:.0f}"
    )
    return found.outcome


def check_reals(indices: range, kinds: Sequence[str] = VALUES) -> Found:
    found = Found()
    for index in indices:
        c = draw(index)
        fast = index % WINOGRAD_EVERY == 0
        c = _for_winograd(c) if fast else c
        rng = np.random.default_rng([7, index])
        values = kinds[index // WINOGRAD_EVERY % len(kinds)]
        faults = []
        try:
            for m in _winograd(rng, c, values) if fast else _direct(rng, c, values):
                worst = Comparison(m.what, m.got, m.expected, m.bound).worst()
                found.raise_worst("winograd" if fast else "direct", worst)
                faults += [fault] if (fault := Comparison(m.what, m.got, m.expected, m.bound).fault()) else []
                if not fast:
                    with np.errstate(divide="ignore", invalid="ignore"):
                        units = np.abs(m.got - m.expected) / (m.scale * UNIT_ROUNDOFF[c.dtype])
                    found.raise_worst("direct u S", float(np.nanmax(units, initial=0)))
                if m.scale.any():
                    magnitude = np.log10(np.median(m.scale[m.scale > 0]))
                    found.raise_worst("high", magnitude)
                    found.raise_worst("low", -magnitude)
        except Exception as error:
            faults.append(f"{type(error).__name__}: {error}")
        found.outcome.check(not faults, f"{c}, {values}: {'; '.join(faults)}")
    return found


def _phases(c: Configuration) -> bool:
    """Whether this configuration is one of stride 2: every eighth of Winograd's."""
    return c.index // WINOGRAD_EVERY % 8 == 4


def _for_winograd(c: Configuration) -> Configuration:
    """A 3 x 3 kernel at stride 1 in float32; every second one dilated, for which padding is of zeros."""
    dilated = c.index // WINOGRAD_EVERY % 2 == 1
    side, stride = 3, 1
    if _phases(c):  # 3 x 3 taps forward, or 4 x 4 backward, at stride 2
        side, stride = 3 + c.index // WINOGRAD_EVERY // 8 % 2, 2
    dilation = c.dilation if dilated and c.kind != "large" else (1, 1)
    reach = 2 * max(dilation)
    return replace(
        c, kind="winograd", kernel=(side, side), stride=(stride, stride), dilation=dilation,
        padding=((1, 1), (0, 2)), word=None, mode="zeros" if dilated else c.mode,
        groups=1, tiles=(1, 1), dtype="float32",
        size=(min(c.size[0], 24) + reach, min(c.size[1], 24) + reach),
        channels=min(c.channels, 70), outputs=min(c.outputs, 70), batch=1 if c.batch == 1 else 2,
    )  # fmt: skip


def reals(rng: np.random.Generator, shape: tuple[int, ...], values: str, dtype: str) -> Array:
    """Numbers of a kind; in 'cancelling' ones every second row of channels is the negative of its neighbour, nearly."""
    array = rng.standard_normal(shape)
    if values == "one sign":
        array = np.abs(array)
    elif values == "constant":
        array = np.full(shape, 1 + rng.random())
    elif values == "scaled":
        array *= 10.0 ** rng.uniform(-15, 15)
    elif values == NEAR_THE_SMALLEST:
        array *= 10.0 ** rng.choice(TINY["float64" if dtype == "float64" else "float32"])
    elif values == "scales mixed":
        array *= 10.0 ** rng.uniform(-6, 6, shape)
    elif values == "cancelling" and len(shape) > 1 and shape[1] > 1:
        pairs = shape[1] // 2
        array[:, pairs : 2 * pairs] = -array[:, :pairs] * (1 + 1e-5 * rng.standard_normal(array[:, :pairs].shape))
    return array.astype(dtype)


def _arrays(rng: np.random.Generator, c: Configuration, values: str) -> tuple[Array, Array, Array, Array | None]:
    x, w, dy = (reals(rng, s, values, c.dtype) for s in (c.input_shape, c.weight_shape, c.output_shape))
    if values == "cancelling" and w.shape[1] > 1:  # so that the negatives meet equal weights
        pairs = w.shape[1] // 2
        if c.groups == 1:
            w[:, pairs : 2 * pairs] = w[:, :pairs]
    ordinary = values if values == NEAR_THE_SMALLEST else "normal"
    bias = reals(rng, (c.outputs,), ordinary, c.dtype) if c.index % 2 else None
    if bias is not None and values == "scaled":
        bias *= np.float64(np.abs(x).max() * np.abs(w).max()).astype(c.dtype)
    return x, w, dy, bias


def _run(c: Configuration, x: Array, w: Array, dy: Array, bias: Array | None, algorithm: str) -> tuple[Array, ...]:
    own_x, own_w = c.own(x), c.own_weight(w)
    options = {**c.options(), "algorithm": algorithm}
    y = c.logical(fastconv.conv2d(own_x, own_w, bias, **options))
    own = c.own(dy), own_x, own_w
    dx, dw, db = fastconv.conv2d_backward(*own, **options)
    assert dx is not None and dw is not None and db is not None
    return y, c.logical(dx), c.logical_weight(dw), db


def _direct(rng: np.random.Generator, c: Configuration, values: str) -> Iterator[Measure]:
    x, w, dy, bias = _arrays(rng, c, values)
    judge, sizes = c.oracle(x), c.oracle(np.abs(x))
    plus = 0 if bias is None else bias[:, None, None].astype(np.float64)
    expected = (
        judge.forward(w) + plus, judge.input_gradient(w, dy), judge.weight_gradient(dy),
        dy.sum((0, 2, 3), dtype=np.float64),
    )  # fmt: skip
    scales = (
        sizes.forward(np.abs(w)) + np.abs(plus), sizes.input_gradient(np.abs(w), np.abs(dy)),
        sizes.weight_gradient(np.abs(dy)), np.abs(dy).sum((0, 2, 3), dtype=np.float64),
    )  # fmt: skip
    terms = (c.terms[0] + (bias is not None), *c.terms[1:], c.terms[2])
    got = _run(c, x, w, dy, bias, "direct")
    for what, y, y_ref, s, n in zip(("forward", *GRADIENTS), got, expected, scales, terms, strict=True):
        # (in double precision the judge rounds as often: there the bound is twice as wide)
        yield Measure(what, y.astype(np.float64), y_ref, s, direct_bound(y, s, n))


def _winograd(rng: np.random.Generator, c: Configuration, values: str) -> Iterator[Measure]:
    x, w, dy, bias = _arrays(rng, c, values)
    judge = c.oracle(x)
    if _phases(c):
        yield from _winograd_phases(c, x, w, dy, bias)
        return
    algorithm = ("winograd", "winograd_2x2")[c.index // WINOGRAD_EVERY // 2 % 2]
    y, dx, dw, _ = _run(c, x, w, dy, bias, algorithm)
    plus = 0 if bias is None else bias[:, None, None].astype(np.float64)
    folds = c.terms[1] / (9 * c.outputs)  # a repeated padding adds the gradients of several pixels
    scale = plane_scale(x, w, False) + np.abs(plus)
    yield _measure("forward", y, judge.forward(w) + plus, scale, c.channels, algorithm)
    scale = plane_scale(dy, w.swapaxes(0, 1), False) * max(1, np.ceil(folds))
    yield _measure("grad_input", dx, judge.input_gradient(w, dy), scale, c.outputs, algorithm)
    scale = c.oracle(plane_maxima(x, False)).weight_gradient(plane_maxima(dy, False))
    yield _measure("grad_weight", dw, judge.weight_gradient(dy), scale, winograd_pixels(c.terms[2]), algorithm)


def _winograd_phases(c: Configuration, x: Array, w: Array, dy: Array, bias: Array | None) -> Iterator[Measure]:
    algorithm = "winograd_phases"
    if c.kernel == (3, 3) and c.index // WINOGRAD_EVERY // 2 % 2:
        algorithm = "winograd_phases_4x4"
    judge, options = c.oracle(x), {**c.options(), "algorithm": algorithm}
    if c.kernel == (3, 3):
        plus = 0 if bias is None else bias[:, None, None].astype(np.float64)
        y = c.logical(fastconv.conv2d(c.own(x), c.own_weight(w), bias, **options))
        scale = plane_scale(x, w, False) + np.abs(plus)
        yield _measure("forward", y, judge.forward(w) + plus, scale, c.channels, algorithm)
        return
    dx = c.logical(fastconv.grad.conv2d_input(c.own(x).shape, c.own_weight(w), c.own(dy), **options))
    folds = np.ceil(c.terms[1] / (4 * c.outputs))  # a repeated padding adds the gradients of several pixels
    scale = plane_scale(dy, w.swapaxes(0, 1), False) * max(1, folds)
    yield _measure("grad_input", dx, judge.input_gradient(w, dy), scale, c.outputs, "winograd_phases")


def _measure(what: str, got: Array, expected: Array, scale: Array, terms: int, algorithm: str) -> Measure:
    bound = winograd_bound(got, np.broadcast_to(scale, expected.shape), terms, algorithm=algorithm)
    return Measure(what, got.astype(np.float64), expected, scale, bound)
