"""Calls beside processes that use all they can get of the CPUs: with the default number of threads, and with one.

    python -P bench/busy.py [--busy 0 1 2 4] [--seconds 2]

For each number of busy processes a line a workload: the mean and the 95th percentile of a run in microseconds with the
default number of threads and with one, and their ratios. Turns of both are interleaved, some tens of milliseconds each,
so that they meet the same neighbours.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable

import numpy as np

import fastconv

TURN = 0.05  # seconds


def use_all() -> None:
    """What a neighbour does."""
    x = 1.0
    while True:
        for _ in range(100_000):
            x = x * 0.999999 + 1e-9


def workloads() -> dict[str, Callable[[int | None], Callable[[], object]]]:
    """By name: makes what is timed for a number of threads, None for the default."""
    rng = np.random.default_rng(0)

    def array(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    x, w = array(1, 56, 56, 64), array(3, 3, 64, 64)
    net_x = array(1, 112, 112, 3)

    def plan(threads: int | None) -> Callable[[], object]:
        prepared = fastconv.plan_conv2d(x.shape, w, padding=1, data_format="NHWC", num_threads=threads)
        out = np.empty(x.shape, np.float32)
        return lambda: prepared.run(x, out)

    def call(threads: int | None) -> Callable[[], object]:
        return lambda: fastconv.conv2d(x, w, padding=1, data_format="NHWC", num_threads=threads)

    def net(threads: int | None) -> Callable[[], object]:
        model = fastconv.models.resnet(18, input_shape=(112, 112, 3))
        before = fastconv.get_num_threads()

        def run() -> object:
            fastconv.set_num_threads(threads or before)
            try:
                return model.predict(net_x)
            finally:
                fastconv.set_num_threads(before)

        return run

    return {"plan 3x3 64->64 @56": plan, "call 3x3 64->64 @56": call, "ResNet-18 @112, predict": net}


def measure(runs: list[Callable[[], object]], seconds: float) -> list[np.ndarray]:
    """Times of each in microseconds."""
    times: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    end = time.perf_counter() + seconds * len(runs)
    while time.perf_counter() < end:
        for run, own in zip(runs, times, strict=True):
            turn = time.perf_counter() + TURN
            while (begin := time.perf_counter()) < turn:
                run()
                own.append(1e6 * (time.perf_counter() - begin))
    return [np.array(own) for own in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2, 4], help="numbers of busy processes")
    parser.add_argument("--seconds", type=float, default=2, help="of each workload with each number of threads")
    args = parser.parse_args()
    print(f"{fastconv.get_num_threads()} threads by default; microseconds, mean and 95th percentile")
    for busy in args.busy:
        neighbours = [multiprocessing.Process(target=use_all, daemon=True) for _ in range(busy)]
        for neighbour in neighbours:
            neighbour.start()
        time.sleep(0.3 if busy else 0)
        for name, make in workloads().items():
            default, one = measure([make(None), make(1)], args.seconds)
            mean, tail = (np.mean(default), np.mean(one)), (np.percentile(default, 95), np.percentile(one, 95))
            print(
                f"{busy} busy  {name:26s} default {mean[0]:9.0f} {tail[0]:9.0f}   one {mean[1]:9.0f} {tail[1]:9.0f}   "
                f"ratios {mean[0] / mean[1]:.2f} {tail[0] / tail[1]:.2f}",
                flush=True,
            )
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.join()


if __name__ == "__main__":
    main()
