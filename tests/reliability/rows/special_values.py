"""NaN, infinities, negative zero and subnormal numbers at every position: what is not finite is so where it must be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

import fastconv
from fastconv import reference
from fastconv._core.geometry import Geometry, conv_geometry
from fastconv._core.problem import Direction
from fastconv._core.select import WAYS, Way
from fastconv.testing.comparisons import Comparison
from fastconv.testing.problems import PADDING_MODES, conv_cases
from fastconv.testing.ways import limit
from reliability.board import Outcome, row
from reliability.oracle import Array
from reliability.workers import Found, share

TRIED = 40  # generated problems that are bent until one fits
FAST = [
    (way, direction)
    for way in WAYS
    for direction in Direction
    if way.method.word != "direct" and any(way.method.example(c, way.variant, direction) for c in conv_cases(TRIED))
]
DIRECT = ("direct", "depthwise", "grouped", "1x1", "direct modes")
KINDS = (*DIRECT, *FAST)
ARRAYS = ("input", "weight", "grad_output", "bias")
RESULTS = {"y": Direction.FORWARD, "dX": Direction.INPUT_GRADIENT, "dW": Direction.WEIGHT_GRADIENT, "db": None}
GRADIENTS = (Direction.INPUT_GRADIENT, Direction.WEIGHT_GRADIENT, None)
READ = {  # of ARRAYS
    None: (0, 1, 2, 3), Direction.FORWARD: (0, 1, 3), Direction.INPUT_GRADIENT: (1, 2),
    Direction.WEIGHT_GRADIENT: (0, 2),
}  # fmt: skip
MOST_PLACES, FEW_PLACES, LARGE = 90, 12, 4096  # of an array that are tried, of a large one


class Small(NamedTuple):
    """A small problem of integers 1...3 of either sign, a few of them zero."""

    index: int
    arrays: tuple[Array, Array, Array, Array]  # as ARRAYS
    options: dict[str, Any]
    way: Way | None = None  # one that is asked for, in one direction; else the direct kernels in all
    direction: Direction | None = None

    @property
    def geometry(self) -> Geometry:
        named = ("stride", "padding", "dilation", "groups", "padding_mode")
        x, w = self.arrays[:2]
        return conv_geometry(x.shape, w.shape, *(self.options.get(name, "zeros") for name in named))

    def __str__(self) -> str:
        x, w = self.arrays[:2]
        asked = "direct" if self.way is None else f"{self.way.wish}, {self.direction}"
        return f"problem {self.index}, {asked}: {x.dtype} input {x.shape}, weight {w.shape}, {self.options}"


@row(
    "NaN, ±Inf, −0, subnormal at every position of input, weight, bias, grad_output: masks of y, dX, dW, db",
    "500 problems (quick 20), 100 % equal to the loop reference's",
    quick=20, full=500, order=30, every_isa=True,
)  # fmt: skip
def special_values(count: int) -> Outcome:
    """By every algorithm; a case is one special value at one position."""
    found = share(check_special_values, count)  # the instruction sets begin at different kinds
    found.outcome.measured = f"{found.counts['problems']:,} problems, {found.counts['results']:,} results"
    return found.outcome


def check_special_values(indices: range) -> Found:
    found = Found()
    for index in indices:
        problem = _draw(index)
        found.counts["problems"] += 1
        tiny = np.finfo(problem.arrays[0].dtype).smallest_subnormal
        for special in (np.nan, np.inf, -np.inf, -0.0, "subnormal"):
            value = special if special != "subnormal" else tiny * (2**20 + 4 if problem.way else 3)
            with np.errstate(all="ignore"):
                _check(problem, special, value, found)
    return found


def _draw(index: int) -> Small:
    rng = np.random.default_rng([8, index])
    kind = KINDS[index % len(KINDS)]
    options: dict[str, Any]
    way, direction = (None, None) if isinstance(kind, str) else kind
    channels, outputs = (int(v) for v in rng.integers(1, 5, 2))
    if index % 5 == 4:  # more channels than lanes
        channels, outputs = (17, 2) if rng.random() < 0.5 else (2, 17)
    if isinstance(kind, str):
        shapes, options, dtype = _direct(rng, kind, channels, outputs, small=index % 5 == 4)
    else:
        case = next(filter(None, (
            kind[0].method.example(
                replace(drawn, batch=1, in_channels=channels, out_channels=outputs, groups=1, size=(3, 4),
                        data_format="NCHW", dtypes=("float32", "float32")),
                kind[0].variant, kind[1],
            )
            for drawn in conv_cases(TRIED, index * TRIED)
        )))  # fmt: skip
        shapes, options, dtype = [case.input_shape, case.weight_shape], case.options(), case.dtypes[0]
        del options["data_format"]
    shapes.append(reference.conv2d(np.zeros(shapes[0]), np.zeros(shapes[1]), **options).shape)
    arrays = tuple((rng.choice((1, 2, 3, -1, -2, -3), s) * (rng.random(s) < 0.9)).astype(dtype)
                   for s in (*shapes, (shapes[1][0],)))  # fmt: skip
    return Small(index, arrays, options, way, direction)  # type: ignore[arg-type]


def _direct(
    rng: np.random.Generator, kind: str, channels: int, outputs: int, small: bool
) -> tuple[list[tuple[int, ...]], dict[str, Any], str]:
    """(shapes of input and weight, options, element type) for the direct kernels."""
    groups, dtype = 1, str(rng.choice(("float32", "float32", "float64", "float16")))
    kernel = (1, 1) if kind == "1x1" else tuple(int(v) for v in rng.integers(1, 4, 2))
    stride = tuple(int(v) for v in rng.choice((1, 1, 2), 2))
    dilation = tuple(int(v) for v in rng.choice((1, 1, 2), 2))
    least = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    size = tuple(max(int(s), n) for s, n in zip(rng.integers(3, 8, 2), least, strict=True))
    if small:
        size = tuple(min(s, max(3, n)) for s, n in zip(size, least, strict=True))
    if kind == "depthwise":
        groups, outputs = channels, channels * int(rng.integers(1, 3))
    elif kind == "grouped":
        groups = 2
        channels, outputs = 2 * min(channels, 4), 2 * min(outputs, 4)
    padding = tuple(tuple(int(v) for v in rng.integers(0, n, 2)) for n in least)
    options: dict[str, Any] = {"stride": stride, "dilation": dilation, "groups": groups, "padding": padding}
    if kind.endswith("modes"):
        options["padding_mode"] = str(rng.choice(PADDING_MODES[1:]))
    return [(1, channels, *size), (outputs, channels // groups, *kernel)], options, dtype


def _check(problem: Small, special: Any, value: Any, found: Found) -> None:
    """One special value at every position: the reference does all positions at once, as groups of one problem."""
    variants = _variants(problem, special, value)
    count = len(variants)
    groups = problem.options["groups"]
    x, w, dy, b = (np.stack([v[i] for v in variants]) for i in range(4))
    side = {**problem.options, "groups": count * groups}
    x_all, dy_all = (a.reshape(1, -1, *a.shape[3:]) for a in (x, dy))
    w_all = w.reshape(-1, *w.shape[2:])
    rights: list[Any] = [()] * 4
    if problem.direction in (None, Direction.FORWARD):
        rights[0] = reference.conv2d(x_all, w_all, b.ravel(), **side).reshape(count, 1, *dy.shape[2:])
    if problem.direction is not Direction.FORWARD:
        mask = tuple(problem.direction in (None, one) for one in GRADIENTS)
        made = reference.conv2d_backward(dy_all, x_all, w_all, **side, output_mask=mask)
        rights[1:] = [() if r is None else r.reshape(like.shape) for r, like in zip(made, (x, w, b), strict=True)]
    for n, variant in enumerate(variants):
        results = _run(problem, variant)
        faults = [
            f"{what}: {fault}"
            for what, got, right in zip(RESULTS, results, rights, strict=True)
            if got is not None and (fault := _fault(problem, what, got, right[n], variant))
        ]
        found.counts["results"] += sum(result is not None for result in results)
        found.outcome.check(not faults, f"{problem}, {special} at place {n} of {ARRAYS}: {'; '.join(faults)}")


def _variants(problem: Small, special: Any, value: Any) -> list[tuple[Array, ...]]:
    """Copies of the arrays with one value replaced, for every position (or some) of those that are read."""
    variants = []
    rng = np.random.default_rng(problem.index)
    for which, array in enumerate(problem.arrays):
        if which not in READ[problem.direction]:
            continue
        base = list(problem.arrays)
        if special == "subnormal":  # all else in its array and the bias is zero, so that it is not rounded away
            base[which] = np.zeros_like(array)
            base[3] = np.zeros_like(base[3])
        places = np.arange(array.size)
        most = MOST_PLACES if array.size <= LARGE else FEW_PLACES
        for at in places if array.size <= most else rng.choice(places, most, replace=False):
            changed = base[which].copy()
            changed.flat[at] = value
            variants.append((*base[:which], changed, *base[which + 1 :]))
    return variants


def _run(problem: Small, variant: tuple[Array, ...]) -> tuple[Array | None, ...]:
    """(y, dX, dW, db); None where a way is asked for another."""
    x, w, dy, b = variant
    if problem.way is None:
        y = fastconv.conv2d(x, w, b, **problem.options, algorithm="direct")
        return y, *fastconv.conv2d_backward(dy, x, w, **problem.options, algorithm="direct")
    how = {**problem.options, "algorithm": problem.way.wish}
    if problem.direction is Direction.FORWARD:
        return fastconv.conv2d(x, w, b, **how), None, None, None
    if problem.direction is Direction.INPUT_GRADIENT:
        return None, fastconv.grad.conv2d_input(x.shape, w, dy, **how), None, None
    return None, None, fastconv.grad.conv2d_weight(x, w.shape, dy, **how), None


def _fault(problem: Small, what: str, got: Array, right: Array, variant: tuple[Array, ...]) -> str | None:
    way, direction = problem.way, RESULTS[what]
    right = right.reshape(got.shape)
    if way is None or direction is None:
        return Comparison(what, got, right.astype(got.dtype)).fault()
    for test in (np.isnan, np.isposinf, np.isneginf):
        if not np.array_equal(test(got), test(right)):
            return f"{test.__name__} differs at {np.argwhere(test(got) != test(right))[0].tolist()}"
    finite = np.isfinite(right)
    x, w, dy, b = (np.where(np.isfinite(a), np.abs(a), 3).astype(a.dtype) for a in variant)
    operands = {Direction.FORWARD: (x, w), Direction.INPUT_GRADIENT: (dy, w), Direction.WEIGHT_GRADIENT: (x, dy)}
    beside = b[:, None, None] if direction is Direction.FORWARD else None
    bound = limit(way, direction, problem.geometry, right, *operands[direction], beside)
    error = np.abs(got[finite].astype(np.float64) - right[finite])
    over = error > bound[finite]
    return f"{over.sum()} finite values beside it are wrong, by up to {error.max()}" if over.any() else None
