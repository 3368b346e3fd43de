"""Part three of the demo: forward, input gradient and weight gradient beside what NumPy offers, in turns.

NumPy's fastest way is im2col: every window becomes a column of a large matrix, and one product with the weights does
the rest in BLAS (Chellapilla et al., 2006). The reference is the plain one of `fastconv.reference`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import grad, reference
from ...functional import conv2d
from ...threads import get_num_threads
from ..common import CommandError, progress, require

Array = NDArray[Any]

ROUNDS = 5  # every competitor takes its turn in each
TURN_SECONDS = 0.03  # a turn repeats short calls for so long
REST_SECONDS = 0.02  # a look at whether threads of BLAS or OpenMP, which spin for 0.1 s after a call, are at rest
MOST_LOOKS = 25
TOLERANCE = 1e-4  # of the largest value: a competitor that is wrong is not timed


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution at stride 1 that keeps the size: one image of `size` x `size`."""

    channels: int
    filters: int
    size: int
    kernel: int

    @property
    def padding(self) -> int:
        return self.kernel // 2

    @property
    def macs(self) -> int:
        return self.channels * self.filters * self.size**2 * self.kernel**2

    def __str__(self) -> str:
        return f"{self.kernel}x{self.kernel}, {self.channels} -> {self.filters}, {self.size} x {self.size}"


CONVOLUTIONS = (Convolution(64, 64, 56, 3), Convolution(128, 128, 28, 3), Convolution(256, 64, 56, 1))
PASSES = ("forward", "input gradient", "weight gradient")
COMPETITORS = ("fastconv", "im2col + BLAS", "reference")


# ---- im2col ---------------------------------------------------------------------------------------------------------


def columns(x: Array, c: Convolution) -> Array:
    """The windows of an image (1, C, H, W) as the columns of a matrix (C k k, H W)."""
    if c.kernel == 1:
        return x.reshape(c.channels, -1)
    sides = (c.padding, c.padding)
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(x[0], ((0, 0), sides, sides)), (c.kernel, c.kernel), axis=(1, 2)
    )  # (C, H, W, k, k)
    return windows.transpose(0, 3, 4, 1, 2).reshape(-1, c.size**2)


def im2col_forward(x: Array, w: Array, c: Convolution) -> Array:
    """w (O, C k k) times the columns."""
    return (w.reshape(c.filters, -1) @ columns(x, c)).reshape(1, c.filters, c.size, c.size)


def im2col_input(dy: Array, w: Array, c: Convolution) -> Array:
    """The gradient of the columns, each added to the pixels that it came from."""
    gradient = w.reshape(c.filters, -1).T @ dy.reshape(c.filters, -1)
    if c.kernel == 1:
        return gradient.reshape(1, c.channels, c.size, c.size)
    gradient = gradient.reshape(c.channels, c.kernel, c.kernel, c.size, c.size)
    padded = np.zeros((c.channels, c.size + 2 * c.padding, c.size + 2 * c.padding), dy.dtype)
    for i, j in np.ndindex(c.kernel, c.kernel):
        padded[:, i : i + c.size, j : j + c.size] += gradient[:, i, j]
    inside = slice(c.padding, c.padding + c.size)
    return padded[None, :, inside, inside]


def im2col_weight(x: Array, dy: Array, c: Convolution) -> Array:
    """grad_output (O, H W) times the columns turned."""
    return (dy.reshape(c.filters, -1) @ columns(x, c).T).reshape(c.filters, c.channels, c.kernel, c.kernel)


# ---- timing ---------------------------------------------------------------------------------------------------------


def calls(c: Convolution) -> dict[str, list[Callable[[], Array]]]:
    """What to time, by pass and in the order of `COMPETITORS`."""
    random = np.random.default_rng(0)
    x = random.standard_normal((1, c.channels, c.size, c.size), np.float32)
    w = random.standard_normal((c.filters, c.channels, c.kernel, c.kernel), np.float32)
    dy = random.standard_normal((1, c.filters, c.size, c.size), np.float32)
    p = c.padding
    return {
        "forward": [
            lambda: conv2d(x, w, padding=p),
            lambda: im2col_forward(x, w, c),
            lambda: reference.conv2d(x, w, padding=p),
        ],
        "input gradient": [
            lambda: grad.conv2d_input(x.shape, w, dy, padding=p),
            lambda: im2col_input(dy, w, c),
            lambda: reference.conv2d_input(x.shape, w, dy, padding=p),
        ],
        "weight gradient": [
            lambda: grad.conv2d_weight(x, w.shape, dy, padding=p),
            lambda: im2col_weight(x, dy, c),
            lambda: reference.conv2d_weight(x, w.shape, dy, padding=p),
        ],
    }


def _rest() -> None:
    """Wait until this process uses no CPU: a thread still spinning would take a core from the next competitor."""
    for _ in range(MOST_LOOKS):
        before = time.process_time()
        time.sleep(REST_SECONDS)
        if time.process_time() - before < REST_SECONDS / 4:
            return


def _turn(call: Callable[[], Array]) -> float:
    """Seconds of one call, averaged over a turn; the first, which wakes the threads, does not count."""
    _rest()
    call()
    count, start = 0, time.perf_counter()
    while True:
        call()
        count += 1
        elapsed = time.perf_counter() - start
        if elapsed >= TURN_SECONDS:
            return elapsed / count


@contextmanager
def _blas_threads(count: int) -> Iterator[None]:
    """BLAS held to as many threads as fastconv uses."""
    with require("threadpoolctl", "demo").threadpool_limits(count, user_api="blas"):
        yield


def measure(quick: bool, show: bool) -> dict[tuple[Convolution, str], list[float]]:
    """Median seconds of the competitors by convolution and pass; results that differ raise `CommandError`."""
    jobs = [(c, name) for c in (CONVOLUTIONS[:1] if quick else CONVOLUTIONS) for name in PASSES]
    medians = {}
    with _blas_threads(get_num_threads()):
        for c, name in progress(jobs, len(jobs), "timing", "measurements", show):
            competitors = calls(c)[name]
            expected = competitors[-1]()
            for who, call in zip(COMPETITORS, competitors, strict=True):
                if np.abs(call() - expected).max() > TOLERANCE * np.abs(expected).max():
                    raise CommandError(f"{who}: the {name} of {c} differs from the reference")
            rounds = [[_turn(call) for call in competitors] for _ in range(3 if quick else ROUNDS)]
            medians[c, name] = [median(times) for times in zip(*rounds, strict=True)]
    return medians


def run(quick: bool, show: bool) -> list[str]:
    """Time everything; the lines of the report."""
    medians = measure(quick, show)
    threads = get_num_threads()
    lines = [
        f"Milliseconds a call, float32, NCHW, one image, {threads} thread(s) for fastconv and BLAS alike; medians of",
        "turns taken one after another; 'times' is how many times faster fastconv is",
        "",
        f"  {'convolution':<26}{'pass':<17}{'fastconv':>9}{'GMAC/s':>8}"
        f"{'im2col + BLAS':>15}{'times':>7}{'reference':>11}{'times':>8}",
    ]
    for (c, name), (ours, blas, plain) in medians.items():
        lines.append(
            f"  {c!s:<26}{name:<17}{1e3 * ours:>9.2f}{c.macs / ours / 1e9:>8.0f}"
            f"{1e3 * blas:>15.2f}{blas / ours:>7.1f}{1e3 * plain:>11.1f}{plain / ours:>8.1f}"
        )
    return lines
