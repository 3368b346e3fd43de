"""NaN, infinities, negative zero and subnormal numbers at every position: what is not finite is so where it must be."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import fastconv
from fastconv import reference
from fastconv.testing.comparisons import WINOGRAD_ADDED, Comparison, plane_scale, winograd_bound
from fastconv.testing.problems import PADDING_MODES
from reliability.board import Outcome, row
from reliability.oracle import Array
from reliability.workers import Found, share

KINDS = (
    "direct", "winograd", "depthwise", "winograd dilated", "grouped", "winograd 2x2", "winograd modes", "1x1",
    "winograd stride 2", "winograd 4x4",
    "direct modes",
)  # fmt: skip
ARRAYS = ("input", "weight", "grad_output", "bias")


class Small(NamedTuple):
    """A small problem of integers 1...3 of either sign, a few of them zero."""

    kind: str
    arrays: tuple[Array, Array, Array, Array]  # as ARRAYS
    options: dict[str, Any]

    @property
    def winograd(self) -> bool:
        return self.kind.startswith("winograd")

    def __str__(self) -> str:
        x, w = self.arrays[:2]
        return f"{self.kind}: {x.dtype} input {x.shape}, weight {w.shape}, {self.options}"


@row(
    "NaN, ±Inf, −0, subnormal at every position of input, weight, bias, grad_output: masks of y, dX, dW, db",
    "500 problems (quick 30), 100 % equal to the loop reference's",
    quick=30, full=500, order=30, every_isa=True,
)  # fmt: skip
def special_values(count: int) -> Outcome:
    """By every algorithm; a case is one special value at one position."""
    # The ISAs share the problems; each needs every kind.
    found = share(check_special_values, max(count, len(KINDS)))
    found.outcome.measured = f"{found.counts['problems']:,} problems, {found.counts['results']:,} results"
    return found.outcome


def check_special_values(indices: range) -> Found:
    found = Found()
    for index in indices:
        problem = _draw(index)
        found.counts["problems"] += 1
        tiny = np.finfo(problem.arrays[0].dtype).smallest_subnormal
        for special in (np.nan, np.inf, -np.inf, -0.0, "subnormal"):
            value = special if special != "subnormal" else tiny * (2**20 + 4 if problem.winograd else 3)
            with np.errstate(all="ignore"):
                _check(problem, special, value, found)
    return found


def _draw(index: int) -> Small:
    rng = np.random.default_rng([8, index])
    kind = KINDS[index % len(KINDS)]
    channels, outputs, groups = (int(v) for v in (*rng.integers(1, 5, 2), 1))
    kernel, stride, dilation = (3, 3), (1, 1), (1, 1)
    size = tuple(int(v) for v in rng.integers(3, 8, 2))
    dtype = "float32"
    if kind.startswith("winograd"):
        if kind == "winograd dilated":
            dilation = tuple(int(v) for v in rng.integers(1, 4, 2))
            size = tuple(max(s, 2 * d + 1) for s, d in zip(size, dilation, strict=True))
        if kind in ("winograd stride 2", "winograd 4x4"):
            kernel, stride = ((3, 3) if kind == "winograd stride 2" else (4, 4)), (2, 2)
            size = tuple(max(s, kernel[0]) for s in size)
    else:
        dtype = str(rng.choice(("float32", "float32", "float64", "float16")))
        kernel = (1, 1) if kind == "1x1" else tuple(int(v) for v in rng.integers(1, 4, 2))
        stride = tuple(int(v) for v in rng.choice((1, 1, 2), 2))
        dilation = tuple(int(v) for v in rng.choice((1, 1, 2), 2))
        size = tuple(max(s, d * (k - 1) + 1) for s, d, k in zip(size, dilation, kernel, strict=True))
    if index % 5 == 4:  # more channels than lanes, in a smaller plane
        channels, outputs = (17, 2) if rng.random() < 0.5 else (2, 17)
        size = tuple(min(s, max(3, d * (k - 1) + 1)) for s, d, k in zip(size, dilation, kernel, strict=True))
    if kind == "depthwise":
        groups, outputs = channels, channels * int(rng.integers(1, 3))
    elif kind == "grouped":
        groups = 2
        channels, outputs = 2 * min(channels, 4), 2 * min(outputs, 4)
    options: dict[str, Any] = {"stride": stride, "dilation": dilation, "groups": groups}
    options["padding"] = tuple(tuple(int(v) for v in rng.integers(0, d * (k - 1) + 1, 2))
                               for d, k in zip(dilation, kernel, strict=True))  # fmt: skip
    if kind.endswith("modes"):
        options["padding_mode"] = str(rng.choice(PADDING_MODES[1:]))
    shapes = [(1, channels, *size), (outputs, channels // groups, *kernel)]
    shapes.append(reference.conv2d(np.zeros(shapes[0]), np.zeros(shapes[1]), **options).shape)
    arrays = tuple((rng.choice((1, 2, 3, -1, -2, -3), s) * (rng.random(s) < 0.9)).astype(dtype)
                   for s in (*shapes, (outputs,)))  # fmt: skip
    return Small(kind, arrays, options)  # type: ignore[arg-type]


def _check(problem: Small, special: Any, value: Any, found: Found) -> None:
    """One special value at every position: the reference does all positions at once, as groups of one problem."""
    variants = _variants(problem, special, value)
    count = len(variants)
    groups = problem.options["groups"]
    x, w, dy, b = (np.stack([v[i] for v in variants]) for i in range(4))
    side = {**problem.options, "groups": count * groups}
    x_all, dy_all = (a.reshape(1, -1, *a.shape[3:]) for a in (x, dy))
    w_all = w.reshape(-1, *w.shape[2:])
    y_right = reference.conv2d(x_all, w_all, b.ravel(), **side).reshape(count, *dy.shape[2:])
    dx_right, dw_right, db_right = reference.conv2d_backward(dy_all, x_all, w_all, **side)
    rights = (y_right[:, None], dx_right.reshape(x.shape), dw_right.reshape(w.shape), db_right.reshape(b.shape))
    fast = "winograd_2x2" if problem.kind == "winograd 2x2" else "winograd"
    algorithm = {"algorithm": fast if problem.winograd else "direct"}
    for n, variant in enumerate(variants):
        results = _run(problem, variant, algorithm)
        faults = [
            f"{what}: {fault}"
            for what, got, right in zip(("y", "dX", "dW", "db"), results, rights, strict=True)
            if got is not None and (fault := _fault(problem, what, got, right[n], variant))
        ]
        found.counts["results"] += len(results)
        found.outcome.check(not faults, f"{problem}, {special} at place {n} of {ARRAYS}: {'; '.join(faults)}")


def _variants(problem: Small, special: Any, value: Any) -> list[tuple[Array, ...]]:
    """Copies of the arrays with one value replaced, for every position of each of them."""
    variants = []
    for which, array in enumerate(problem.arrays):
        base = list(problem.arrays)
        if special == "subnormal":  # all else in its array and the bias is zero, so that it is not rounded away
            base[which] = np.zeros_like(array)
            base[3] = np.zeros_like(base[3])
        for at in range(array.size):
            changed = base[which].copy()
            changed.flat[at] = value
            variants.append((*base[:which], changed, *base[which + 1 :]))
    return variants


def _run(problem: Small, variant: tuple[Array, ...], algorithm: dict[str, str]) -> tuple[Array | None, ...]:
    x, w, dy, b = variant
    phases = {"algorithm": "winograd_phases"}
    if problem.kind == "winograd stride 2":
        phases = {"algorithm": ("winograd_phases", "winograd_phases_4x4")[x.size % 2]}
        y = fastconv.conv2d(x, w, b, **problem.options, **phases)
        return y, *fastconv.conv2d_backward(dy, x, w, **problem.options)
    if problem.kind == "winograd 4x4":
        y = fastconv.conv2d(x, w, b, **problem.options)
        dx = fastconv.grad.conv2d_input(x.shape, w, dy, **problem.options, **phases)
        return y, dx, *fastconv.conv2d_backward(dy, x, w, **problem.options)[1:]
    y = fastconv.conv2d(x, w, b, **problem.options, **algorithm)
    return y, *fastconv.conv2d_backward(dy, x, w, **problem.options, **algorithm)


def _fault(
    problem: Small, what: str, got: Array, right: Array, variant: tuple[Array, ...]
) -> str | None:
    exact = not problem.winograd or what == "db"
    if exact and np.array_equal(got, right, equal_nan=True):
        return None
    if exact:
        return Comparison(what, got, right).fault()
    for test in (np.isnan, np.isposinf, np.isneginf):
        if not np.array_equal(test(got), test(right)):
            return f"{test.__name__} differs at {np.argwhere(test(got) != test(right))[0].tolist()}"
    finite = np.isfinite(right)
    x, w, dy, b = (np.where(np.isfinite(a), np.abs(a), 3) for a in variant)
    largest = (x.max() + WINOGRAD_ADDED) * (dy.max() + WINOGRAD_ADDED)
    scale, terms = {
        "y": (lambda: plane_scale(x, w, False) + b.max(initial=0), x.shape[1]),
        "dX": (lambda: plane_scale(dy, w.swapaxes(0, 1), False) * dy[0, 0].size, dy.shape[1]),
        "dW": (lambda: np.full((1, 1, 1, 1), largest * dy[0, 0].size), dy[0, 0].size),
    }[what]
    bound = winograd_bound(right, np.broadcast_to(scale(), right.shape), terms)
    error = np.abs(got[finite].astype(np.float64) - right[finite])
    over = error > bound[finite]
    return f"{over.sum()} finite values beside it are wrong, by up to {error.max()}" if over.any() else None
