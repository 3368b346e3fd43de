"""Real numbers: how far results lie from a float64 judge, in units of the bounds that docs/accuracy.md states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

import fastconv
from fastconv._core.problem import Direction
from fastconv._core.select import WAYS, Way
from fastconv.testing.bounds import UNIT_ROUNDOFF, allowed, bound_here, direct_bound, norm
from fastconv.testing.comparisons import GRADIENTS, Comparison
from fastconv.testing.problems import conv_cases
from fastconv.testing.ways import Given, Trial
from reliability.board import Outcome, row
from reliability.configurations import Configuration, draw
from reliability.oracle import Array, Oracle, tap_positions
from reliability.workers import Found, share

FAST_EVERY = 4
FAST = [(way, direction) for way in WAYS if way.method.word != "direct" for direction in Direction]
VALUES = ("normal", "one sign", "cancelling", "constant", "scaled", "scales mixed")
NEAR_THE_SMALLEST = "near the smallest"  # the kind of values of another row (rows/long_sums.py)
TINY = {"float32": (0, -10, -19, -22, -38, -41, -44), "float64": (0, -80, -154, -162, -300, -315, -322)}


class Measure(NamedTuple):
    """A result, what is right, the norm that its method's bound scales with, and the bound."""

    what: str
    got: Array
    expected: Array
    scale: Array
    bound: Array


@row(
    "random real configurations against float64: mixed signs, cancellation, scales 1e-30…1e30, in units of u·S",
    "100,000 (quick 800); every method ≤ its stated bound",
    quick=800, full=100_000, order=20, every_isa=True,
)  # fmt: skip
def random_reals(count: int) -> Outcome:
    """Forward and all gradients; every fourth configuration by a fast method, on a problem of its own."""
    found = share(check_reals, count)
    found.outcome.measured = worst_errors(found.worst)
    return found.outcome


def worst_errors(worst: Mapping[str, float]) -> str:
    """What was measured, in words."""
    ways = [way.wish for way in WAYS if way.wish in worst and way.wish != "direct"]
    fast = ", ".join(f"{wish} {worst[wish]:.2f}" for wish in ways)
    return (
        f"worst error direct {worst.get('direct', 0):.2f} of the bound ({worst.get('direct u S', 0):.1f} u·S), "
        f"{fast}; norms from 1e{-worst.get('low', 0):.0f} to 1e{worst.get('high', 0):.0f}"
    )


def check_reals(indices: range, kinds: Sequence[str] = VALUES) -> Found:
    found = Found()
    for index in indices:
        rng = np.random.default_rng([7, index])
        values = kinds[index // FAST_EVERY % len(kinds)]
        c = draw(index) if index % FAST_EVERY else trial_of(index // FAST_EVERY)
        faults = []
        try:
            for m in _fast(rng, c, values) if isinstance(c, Trial) else _direct(rng, c, values):
                worst = Comparison(m.what, m.got, m.expected, m.bound).worst()
                found.raise_worst(c.way.wish if isinstance(c, Trial) else "direct", worst)
                faults += [fault] if (fault := Comparison(m.what, m.got, m.expected, m.bound).fault()) else []
                if isinstance(c, Configuration):
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


def trial_of(number: int) -> Trial:
    """A problem of its own for one of the fast ways, in one direction; of a few more channels than the generator's."""
    rng = np.random.default_rng([6, number])
    way, direction = FAST[number % len(FAST)]
    while True:
        (drawn,) = conv_cases(1, int(rng.integers(1 << 30)))
        batch = int(rng.integers(1, 3))
        if rng.random() < 0.3:
            channels, outputs = (int(n) for n in rng.integers(1, 71, 2))
            size = tuple(int(n) for n in rng.integers(5, 26, 2))
            drawn = replace(drawn, in_channels=channels, out_channels=outputs, groups=1, size=size)
        case = way.method.example(replace(drawn, batch=batch), way.variant, direction)
        if case is not None:
            return Trial(way, direction, replace(case, activation=None, with_residual=False))
        if not _has(way, direction):
            way, direction = FAST[(number := number + 1) % len(FAST)]


@lru_cache(maxsize=64)
def _has(way: Way, direction: Direction) -> bool:
    """Whether a way has such a direction."""
    return any(way.method.example(case, way.variant, direction) for case in conv_cases(60))


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
    """Input, weight, grad_output and now and then a bias, in the logical axis order."""
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


def _fast(rng: np.random.Generator, trial: Trial, values: str) -> Iterator[Measure]:
    """A result of a fast way, against the second implementation in float64."""
    g, case, direction = trial.geometry, trial.case, trial.direction
    positions = [
        tap_positions(g.input_size[a], g.kernel_size[a], g.stride[a], g.dilation[a], g.padding[a], g.padding_mode)
        for a in (0, 1)
    ]
    c = Configuration(
        index=case.index, kind=trial.way.wish, batch=g.batch, channels=g.in_channels, outputs=g.out_channels,
        groups=g.groups, size=g.input_size, kernel=g.kernel_size, stride=g.stride, dilation=g.dilation,  # type: ignore[arg-type]
        padding=g.padding, word=None, mode=g.padding_mode, dtype=case.dtypes[0],  # type: ignore[arg-type]
        channels_last=case.channels_last, threads=1,
    )  # fmt: skip
    x, w, dy, bias = _arrays(rng, c, values)

    def convolve(a: Array, b: Array) -> Array:
        judge = Oracle(a if direction is not Direction.INPUT_GRADIENT else np.zeros(x.shape), *positions, g.groups)
        if direction is Direction.FORWARD:
            return judge.forward(b)
        return judge.input_gradient(b, a) if direction is Direction.INPUT_GRADIENT else judge.weight_gradient(b)

    if direction is Direction.FORWARD:
        a, b, given = x, w, Given(c.own(x), c.own_weight(w), bias)
    elif direction is Direction.INPUT_GRADIENT:
        a, b, given = dy, w, Given(c.own(dy), c.own_weight(w))
    else:
        a, b, given = x, dy, Given(c.own(x), c.own(dy))
    plus = 0 if given.bias is None else given.bias[:, None, None].astype(np.float64)
    result = trial.run(given)
    got = c.logical_weight(result) if direction is Direction.WEIGHT_GRADIENT else c.logical(result)
    size = norm(trial.bound, direction, g, a, b, convolve) + np.abs(plus)
    bound = allowed(bound_here(trial.bound, g, direction), got, size)
    yield Measure(direction.value, got.astype(np.float64), convolve(a, b) + plus, size, bound)
