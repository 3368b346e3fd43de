"""The same bits on every run, with any number of threads, and of a batch in slices."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

import fastconv
from fastconv import grad
from fastconv._core.problem import Direction
from fastconv._core.select import WAYS
from fastconv.testing.problems import conv_cases
from fastconv.testing.ways import Given, Trial, way
from reliability.board import Outcome, first_case, row
from reliability.oracle import Array
from reliability.rows.layouts import same_bits

THREADS = (1, 2, 3, 4, 7, 8, 16, 64)
REPEATS = {False: 1, True: 20}  # quick, full
TRIED = 20  # generated problems that are bent until one fits
FULL_FROM = 50  # problems under one instruction set
DTYPES = ("float32", "float32", "float64", "float16", "int16")


class Kind(NamedTuple):
    """Problems of the direct kernels, or of what is chosen: (channels, outputs, groups), kernel, options; several sizes
    of each are drawn."""

    channels: tuple[int, int, int]
    kernel: tuple[int, int]
    options: dict[str, Any]
    algorithm: str = "direct"


KINDS: dict[str, Kind] = {
    "direct": Kind((35, 67, 1), (3, 3), {"padding": 1}),
    "1x1": Kind((130, 200, 1), (1, 1), {}),
    "strided": Kind((3, 40, 1), (7, 7), {"padding": 3, "stride": 2}),
    "depthwise": Kind((66, 66, 66), (3, 3), {"padding": 1}),
    "depthwise, two outputs": Kind((40, 80, 40), (5, 5), {"padding": 2, "stride": (1, 2)}),
    "small groups": Kind((32, 48, 8), (3, 3), {"padding": "same"}),
    "groups": Kind((48, 72, 2), (3, 2), {"padding": 2, "dilation": 2, "padding_mode": "reflect"}),
    "few pixels": Kind((256, 150, 1), (3, 3), {"padding": "same"}),
    "auto": Kind((72, 60, 1), (3, 3), {"padding": 1}, "auto"),
}
FAST = [way.wish for way in WAYS if way.method.word != "direct"]  # on problems of their own
NAMES = [*KINDS, *FAST]


@row(
    "bits: runs under load; 1, 2, 3, 4, 7, 8, 16, 64 threads; batch slices; forward, dX, dW, db, all algorithms",
    "identical (full: 300 problems, quick 36)",
    quick=36, full=300, order=120, every_isa=True,
)  # fmt: skip
def bits(count: int) -> Outcome:
    """While another process keeps a core busy."""
    outcome = Outcome()
    compared: Counter[str] = Counter()
    load = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        for index in range(first_case(), first_case() + max(count, len(NAMES))):
            name = NAMES[index % len(NAMES)]
            try:
                check = _check if name in KINDS else _check_way
                check(name, index, REPEATS[count >= FULL_FROM], outcome, compared)
            except Exception as error:
                outcome.check(False, f"{name}, problem {index}: {type(error).__name__}: {error}")
        for index in range(2):
            _check_pools(index, outcome, compared)
    finally:
        load.kill()
        load.wait()
    outcome.measured = (
        f"{compared['threads']:,} comparisons between numbers of threads, {compared['runs']:,} between runs, "
        f"{compared['slices']:,} of slices"
    )
    return outcome


def _check(name: str, index: int, repeats: int, outcome: Outcome, compared: Counter[str]) -> None:
    kind = KINDS[name]
    rng = np.random.default_rng([11, index])
    channels, outputs, groups = kind.channels
    few = name == "few pixels"
    size = tuple(int(v) for v in rng.integers(*((5, 9) if few else (14, 24)), 2))
    batch = int(rng.integers(2, 5))
    dtype = "float32" if kind.algorithm != "direct" else DTYPES[index // len(NAMES) % len(DTYPES)]
    last = bool(rng.random() < 0.5)
    x = _values(rng, dtype, (batch, *size, channels) if last else (batch, channels, *size))
    w_shape = (outputs, channels // groups, *kind.kernel)
    w = _values(rng, dtype, (*w_shape[2:], w_shape[1], outputs) if last else w_shape)
    b = _values(rng, dtype, (outputs,))
    options: dict[str, Any] = {
        **kind.options, "groups": groups, "data_format": "NHWC" if last else "NCHW", "algorithm": kind.algorithm,
    }  # fmt: skip
    dy = _values(rng, dtype, fastconv.conv2d(x, w, b, **options).shape)

    def results(x: Array, dy: Array, threads: int, with_weight: bool = True) -> tuple[Array, ...]:
        team = {**options, "num_threads": threads}
        y = fastconv.conv2d(x, w, b, **team)
        plan = fastconv.plan_conv2d(x.shape, w, b, **team).run(x)
        dx = grad.conv2d_input(x.shape, w, dy, **team)
        if not with_weight:
            return y, plan, dx
        mask = (False, True, True)
        dw, db = fastconv.conv2d_backward(dy, x, w, **team, output_mask=mask)[1:]
        return y, plan, dx, dw, db  # type: ignore[return-value]

    def transposed(z: Array, threads: int) -> Array:
        given = {k: v for k, v in options.items() if k != "padding_mode"}
        if isinstance(given.get("padding"), str):
            given["padding"] = 1
        return fastconv.conv_transpose2d(z, w, **given, num_threads=threads)

    what = f"{name}, {dtype} {x.shape}, {w.shape}, {options}"
    _compare(what, lambda t: (*results(x, dy, t), transposed(dy, t)), repeats, outcome, compared)
    whole = results(x, dy, 1, False)
    for cuts in (range(1, batch), (batch - 1,), (0, batch)):
        for threads in (1, 3):
            parts = [
                results(part, dy_part, threads, False)
                for part, dy_part in zip(np.split(x, cuts), np.split(dy, cuts), strict=True)
            ]
            for result, one, *pieces in zip(("y", "plan", "dX"), whole, *parts, strict=True):
                compared["slices"] += 1
                fine = same_bits(one, np.concatenate(pieces))
                outcome.check(fine, f"{what}: {result} of the batch cut at {list(cuts)}, {threads} threads")


def _check_way(wish: str, index: int, repeats: int, outcome: Outcome, compared: Counter[str]) -> None:
    """A way of convolving by name: call and plan, and its gradients."""
    rng, asked, found = np.random.default_rng([13, index]), way(wish), False
    own = {"batch": int(rng.integers(2, 5)), "groups": 1, "size": (7, 7)}
    channels = ({"in_channels": 20, "out_channels": 30}, {"in_channels": 9, "out_channels": 14})
    drawn = [replace(case, **own, **some) for some in channels for case in conv_cases(TRIED, index)]
    for direction in Direction:
        case = next(filter(None, (asked.method.example(one, asked.variant, direction) for one in drawn)), None)
        if case is None:
            continue
        size = tuple(int(n) for n in np.maximum(case.size, rng.integers(14, 24, 2)))
        trial, found = Trial(asked, direction, replace(case, size=size)), True
        given = trial.given("reals")

        def results(part: Given, threads: int, trial: Trial = trial) -> tuple[Array, ...]:
            made = (trial.run(part, num_threads=threads),)
            if trial.direction is Direction.FORWARD:
                made += (trial.plan(part, num_threads=threads).run(part.a, residual=part.residual),)
            return made

        _compare(f"{trial}", lambda team, run=results, given=given: run(given, team), repeats, outcome, compared)
        if direction is Direction.WEIGHT_GRADIENT:
            continue
        whole, batch = results(given, 1), len(given.a)
        for cuts in (range(1, batch), (batch - 1,), (0, batch)):
            parts = [
                results(given._replace(a=a, residual=add), 3)
                for a, add in zip(
                    np.split(given.a, cuts),
                    [None] * batch if given.residual is None else np.split(given.residual, cuts), strict=False,
                )
            ]
            for one, *pieces in zip(whole, *parts, strict=True):
                compared["slices"] += 1
                fine = same_bits(one, np.concatenate(pieces))
                outcome.check(fine, f"{trial}: of the batch cut at {list(cuts)}")
    outcome.check(found, f"{wish}: no problem of its own at {index}")


def _values(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> Array:
    if dtype.startswith("float"):
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(-400, 400, shape, endpoint=True).astype(dtype)


def _compare(
    what: str, call: Callable[[int], tuple[Array, ...]], repeats: int, outcome: Outcome, compared: Counter[str]
) -> None:
    """Every number of threads, and repeats with two and three."""
    first = call(1)
    for threads in THREADS[1:] + (2, 3) * repeats:
        for number, (one, other) in enumerate(zip(first, call(threads), strict=True)):
            compared["threads"] += 1
            outcome.check(same_bits(one, other), f"{what}: result {number} with {threads} threads")
    again = call(1)
    for number, (one, other) in enumerate(zip(first, again, strict=True)):
        compared["runs"] += 1
        outcome.check(same_bits(one, other), f"{what}: result {number} on another run")
    compared["runs"] += 2 * repeats * len(first)


def _check_pools(index: int, outcome: Outcome, compared: Counter[str]) -> None:
    rng = np.random.default_rng([12, index])
    x, dy = _values(rng, "float32", (3, 70, 33, 31)), _values(rng, "float32", (3, 70, 17, 16))
    tiles = _values(rng, "float32", (2, 3, 20, 70, 3, 3))
    dy_tiled = _values(rng, "float32", (3, 20, 31, 29))

    def call(threads: int) -> tuple[Array, ...]:
        team = {"num_threads": threads}
        return (
            fastconv.max_pool2d(x, 3, 2, 1, **team),
            fastconv.avg_pool2d(x, 3, 2, 1, **team),
            grad.max_pool2d_input(x, 3, dy, 2, 1, **team),
            grad.avg_pool2d_input(x.shape, 3, dy, 2, 1, **team),
            fastconv.tiled_conv2d(x, tiles, **team),
            grad.tiled_conv2d_input(x.shape, tiles, dy_tiled, **team),
            grad.tiled_conv2d_weight(x, tiles.shape, dy_tiled, **team),
            fastconv.conv1d(x[:, :, 0], tiles[0, 0, :, :, 0], **team),
        )  # fmt: skip

    _compare("pools, tiles, 1-D", call, 1, outcome, compared)
