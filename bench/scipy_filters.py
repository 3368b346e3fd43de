"""fastconv.scipy beside SciPy: medians of turns taken in alternation, on two threads.

    python bench/scipy_filters.py [--what filters volume large small] [--size 2000] [--rounds 9] [--threads 2] [--cpu]

`filters`: along one axis after the other, of an image; `volume`: of a volume; `large`: kernels of 15, 31 and 101 a
side, beside the faster of SciPy's `fftconvolve` and `oaconvolve` with as many workers; `small`: kernels of 3, 7 and 15.
SciPy's filters run on one thread. `--cpu` counts the processor's time of one thread: for a machine that does other
things, too. The columns: seconds of both, how many times as fast, the largest difference over the
largest value.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.fft
from scipy import ndimage, signal

import fastconv
from fastconv import scipy as ours

Call = Callable[[], Any]
Row = tuple[str, str, list[Call], Call]  # the kernel, the function, SciPy's ways, ours
GROUPS = ("filters", "volume", "large", "small")


def medians(calls: list[Call], rounds: int, clock: Callable[[], float]) -> list[float]:
    """Seconds of each, turn by turn, after one turn that does not count."""
    turns: list[list[float]] = [[] for _ in calls]
    for turn in range(rounds + 1):
        for call, seconds in zip(calls, turns, strict=True):
            begin = clock()
            call()
            if turn:
                seconds.append(clock() - begin)
    return [statistics.median(seconds) for seconds in turns]


def filters(x: Any) -> Iterator[Row]:
    """Axis by axis."""
    for sigma in (1, 3):
        yield (f"sigma {sigma}", "ndimage.gaussian_filter", [lambda s=sigma: ndimage.gaussian_filter(x, s)],
               lambda s=sigma: ours.ndimage.gaussian_filter(x, s))  # fmt: skip
    yield ("9", "ndimage.uniform_filter", [lambda: ndimage.uniform_filter(x, 9)],
           lambda: ours.ndimage.uniform_filter(x, 9))  # fmt: skip
    weights = np.arange(1.0, 10)
    for axis in range(x.ndim):
        yield ("9", f"ndimage.convolve1d, axis {axis}", [lambda a=axis: ndimage.convolve1d(x, weights, a)],
               lambda a=axis: ours.ndimage.convolve1d(x, weights, a))  # fmt: skip


def large(x: Any) -> Iterator[Row]:
    """Kernels that go by Fourier transforms."""
    random = np.random.default_rng(1)
    for k in (15, 31, 101):
        w = random.standard_normal((k, k)).astype(x.dtype)
        theirs: list[Call] = [
            lambda w=w: signal.fftconvolve(x, w, "same"), lambda w=w: signal.oaconvolve(x, w, "same"),
        ]  # fmt: skip
        yield f"{k} x {k}", "signal.fftconvolve", theirs, lambda w=w: ours.signal.fftconvolve(x, w, "same")
        image, kernel = x[None, None], np.ascontiguousarray(w[::-1, ::-1])[None, None]
        plan = fastconv.plan_conv2d(image.shape, kernel, padding=k // 2)
        yield f"{k} x {k}", "a plan of conv2d", theirs, lambda p=plan, a=image: p.run(a)[0, 0]


def small(x: Any) -> Iterator[Row]:
    """Kernels that do not."""
    random = np.random.default_rng(1)
    options: dict[str, Any] = {"mode": "same", "boundary": "symm"}
    for k in (3, 7, 15):
        w = random.standard_normal((k, k)).astype(x.dtype)
        yield (f"{k} x {k}", "signal.convolve2d", [lambda w=w: signal.convolve2d(x, w, **options)],
               lambda w=w: ours.convolve2d(x, w, **options))  # fmt: skip
        yield (f"{k} x {k}", "ndimage.convolve", [lambda w=w: ndimage.convolve(x, w)],
               lambda w=w: ours.ndimage.convolve(x, w))  # fmt: skip
    w = np.outer(np.hanning(13)[1:-1], np.hanning(13)[1:-1])
    yield ("11 x 11", "ndimage.convolve, a product", [lambda: ndimage.convolve(x, w)],
           lambda: ours.ndimage.convolve(x, w))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--size", type=int, default=2000, help="rows and columns of the image")
    parser.add_argument("--depth", type=int, default=128, help="of the volume, along each axis")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu", action="store_true", help="time on the processor; of one thread")
    given = parser.parse_args()
    clock = time.thread_time if given.cpu else time.perf_counter
    given.threads = 1 if given.cpu else given.threads
    fastconv.set_num_threads(given.threads)
    random = np.random.default_rng(0)
    print(f"{given.threads} threads, ISA {fastconv.info()['isa']}, {given.size} x {given.size}; milliseconds, medians")
    print(f"{'type':8}  {'kernel':8}  {'function':27}  {'SciPy':>8}  {'fastconv':>8}  {'times':>6}  {'difference':>10}")
    for what in given.what:
        shape = (given.depth,) * 3 if what == "volume" else (given.size,) * 2
        rows = {"filters": filters, "volume": filters, "large": large, "small": small}[what]
        for dtype in ("float32", "float64"):
            x = random.standard_normal(shape).astype(dtype)
            with scipy.fft.set_workers(given.threads):
                for kernel, name, theirs, own in rows(x):
                    wanted = theirs[0]()
                    difference = np.abs(own() - wanted).max() / np.abs(wanted).max()
                    *slow, fast = medians([*theirs, own], given.rounds, clock)
                    print(
                        f"{dtype:8}  {kernel:8}  {name:27}  {min(slow) * 1e3:8.1f}  {fast * 1e3:8.1f}"
                        f"  {min(slow) / fast:6.1f}  {difference:10.1e}", flush=True,
                    )  # fmt: skip


if __name__ == "__main__":
    main()
