"""Memory that nobody cleared: NaN or large numbers in outputs and scratch before a call show nowhere after it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import fastconv
from reliability.board import Outcome, row
from reliability.configurations import Configuration, draw
from reliability.oracle import Array
from reliability.rows.accuracy import check_reals
from reliability.rows.exact import check_exact, exact_results, fault, integers
from reliability.workers import Found, share

# All memory comes from one heap that is never given back, so that what was freed is what the next call gets.
ONE_HEAP = {
    "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
}  # fmt: skip
# Blocks of all sizes, held together so that they take up the gaps between older ones, and one for what is larger.
POISON_BYTES = (*(size for k in range(7, 17) for size in (1 << k, 3 << k - 1) for _ in range(6)), 1 << 18, 4 << 20)
# glibc fills every block with the complement of this byte when it is handed out: 0xFEFEFEFE, -1.7e38 in float32.
LARGE_NUMBERS = {"MALLOC_PERTURB_": "1"}


@row(
    "uninitialised memory: out= full of NaN, memory freed with NaN in it, every new block full of large numbers",
    "0 of the exact (and Winograd) configurations changed",
    quick=300, full=30_000, order=290, every_isa=True,
)  # fmt: skip
def uninitialised(count: int) -> Outcome:
    """A third of the configurations in each kind of dirty memory, a quarter of the last by Winograd."""
    third = -(-count // 3)
    found = share(check_in_freed_nan, third, ONE_HEAP)
    probes = found.counts["probes"], found.counts["NaN probes"]
    found.add(share(check_exact, third, ONE_HEAP | LARGE_NUMBERS))
    found.add(share(check_reals, third, ONE_HEAP | LARGE_NUMBERS))
    found.outcome.check(probes[1] > 0, "no new array held a freed NaN: this C library's memory cannot be dirtied so")
    found.outcome.measured = f"{probes[1]:,} of {probes[0]:,} new arrays held NaN when they were handed out"
    return found.outcome


def check_in_freed_nan(indices: range) -> Found:
    """The exact configurations, each call of which finds freed NaN; then those that take `out`, full of NaN."""
    found = Found()
    for index in indices:
        c = draw(index)
        try:
            wrong = [f for result in _each_poisoned(c, found) if (f := fault(result, c.dtype))]
            wrong += _into_nan(c)
        except Exception as error:
            wrong = [f"{type(error).__name__}: {error}"]
        found.outcome.check(not wrong, f"{c}: {'; '.join(wrong)}")
    return found


def _poison(found: Found) -> None:
    poison = [np.full(size // 8, np.nan) for size in POISON_BYTES]
    del poison
    for size in (300, 2000, 15_000, 100_000):
        found.counts["probes"] += 1
        found.counts["NaN probes"] += bool(np.isnan(np.empty(size)).any())


def _each_poisoned(c: Configuration, found: Found) -> Iterator[Any]:
    results = exact_results(c, found)
    while True:
        _poison(found)
        result = next(results, None)
        if result is None:
            return
        yield result


def _into_nan(c: Configuration) -> list[str]:
    """The plain result and the one that was written over NaN, of every function with `out`."""
    rng = np.random.default_rng([13, c.index])
    x, w, dy = (integers(rng, c, shape) for shape in (c.input_shape, c.weight_shape, c.output_shape))
    own_x, own_w, own_dy = c.own(x), c.own_weight(w), c.own(dy)
    options = {**c.options(), "algorithm": "direct"}
    calls: dict[str, Any] = {
        "conv2d": lambda out: fastconv.conv2d(own_x, own_w, **options, out=out),
        "ConvPlan.run": lambda out: fastconv.plan_conv2d(own_x.shape, own_w, **options).run(own_x, out=out),
    }
    if c.mode == "zeros" and not c.word:
        given = {k: v for k, v in options.items() if k != "padding_mode"}
        calls["conv_transpose2d"] = lambda out: fastconv.conv_transpose2d(
            own_dy, own_w, **given, output_padding=c.output_padding, out=out
        )
        given_tiled = {k: v for k, v in given.items() if k != "groups"}
        if c.groups == 1:
            calls["tiled_conv2d"] = lambda out: fastconv.tiled_conv2d(own_x, own_w[None, None], **given_tiled, out=out)
    pool = {"stride": c.stride, "data_format": options["data_format"]}
    if min(c.size) >= 2:
        calls["max_pool2d"] = lambda out: fastconv.max_pool2d(own_x, 2, **pool, out=out)
        calls["avg_pool2d"] = lambda out: fastconv.avg_pool2d(own_x, 2, **pool, out=out)
    judged = c.logical(calls["conv2d"](None))
    wrong = [] if np.array_equal(judged, c.oracle(x).forward(w)) else ["conv2d differs from the judge"]
    for name, call in calls.items():
        right: Array = call(None)
        out = np.full_like(right, np.nan)
        if call(out) is not out or not np.array_equal(out, right):
            wrong.append(f"{name} into out full of NaN differs")
    return wrong
