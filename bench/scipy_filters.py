"""fastconv.scipy beside SciPy on one image: medians of turns taken in alternation, on two threads.

    python bench/scipy_filters.py [--size 2048] [--rounds 9] [--threads 2]

SciPy's functions run on one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import ndimage, signal

import fastconv
from fastconv import scipy as ours


def medians(first: Callable[[], Any], second: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Seconds of both, turn by turn, after one turn each that does not count."""
    turns: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 1):
        for function, seconds in zip((first, second), turns, strict=True):
            begin = time.perf_counter()
            function()
            if turn:
                seconds.append(time.perf_counter() - begin)
    return statistics.median(turns[0]), statistics.median(turns[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=2048, help="rows and columns of the image")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    fastconv.set_num_threads(given.threads)
    random = np.random.default_rng(0)
    size = given.size
    print(f"{size} x {size} image, {given.threads} threads, ISA {fastconv.info()['isa']}; milliseconds, medians")
    print(f"{'type':8}  {'kernel':7}  {'function':26}  {'SciPy':>8}  {'fastconv':>8}  {'times':>6}  {'difference':>10}")
    for dtype in ("float32", "float64"):
        image = random.standard_normal((size, size)).astype(dtype)
        for k in (3, 7, 15):
            kernel = random.standard_normal((k, k)).astype(dtype)
            options: dict[str, Any] = {"mode": "same", "boundary": "symm"}
            calls: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
                "signal.convolve2d": (
                    lambda: signal.convolve2d(image, kernel, **options),  # noqa: B023
                    lambda: ours.convolve2d(image, kernel, **options),  # noqa: B023
                ),
                "ndimage.convolve": (
                    lambda: ndimage.convolve(image, kernel),  # noqa: B023
                    lambda: ours.ndimage.convolve(image, kernel),  # noqa: B023
                ),
            }
            for name, (theirs, own) in calls.items():
                wanted = theirs()
                difference = np.abs(own() - wanted).max() / np.abs(wanted).max()
                slow, fast = medians(theirs, own, given.rounds if k < 15 else max(3, given.rounds // 3))
                print(
                    f"{dtype:8}  {f'{k} x {k}':7}  {name:26}  {slow * 1e3:8.1f}  {fast * 1e3:8.1f}  {slow / fast:6.1f}"
                    f"  {difference:10.1e}"
                )


if __name__ == "__main__":
    main()
