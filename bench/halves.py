"""Weights of 16 bits and products of bfloat16 beside float32: whole nets, memory, and 1x1 layers.

    python -P bench/halves.py [--threads N] [--rounds 15]

The 1x1 layers of ResNet-50, plans in float32 beside bfloat16; then a line a net (VGG-16, ResNet-50, batch 1) and way:
packed weights in MB, the median time of a run, and the median ratio of turns, in which all ways run one after another.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import geometric_mean

import numpy as np

import fastconv
from fastconv import models

WAYS: dict[str, dict[str, str]] = {
    "float32": {}, "weights float16": {"weights_dtype": "float16"}, "weights bfloat16": {"weights_dtype": "bfloat16"},
    "bfloat16": {"precision": "bfloat16"},
}  # fmt: skip
POINTS = [
    (56, 64, 256), (56, 256, 64), (28, 512, 128), (28, 128, 512), (14, 1024, 256), (14, 256, 1024), (7, 2048, 512),
    (7, 512, 2048),
]  # fmt: skip


def turns(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, tuple[float, float]]:
    """By name: the median in milliseconds, and the median of the ratios to the first of a turn."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    first = np.array(next(iter(times.values())))
    return {name: (float(np.median(own)) * 1e3, float(np.median(first / own))) for name, own in times.items()}


def nets(rounds: int) -> None:
    x = np.random.default_rng(0).standard_normal((1, 224, 224, 3), np.float32)
    for title, model in (("VGG-16", models.vgg("D")), ("ResNet-50", models.resnet(50))):
        plans = {name: model.compile_inference(**way) for name, way in WAYS.items()}
        for plan in plans.values():
            for _ in range(3):
                plan.run(x)
        found = turns({name: lambda plan=plan: plan.run(x) for name, plan in plans.items()}, rounds)
        for name, (milliseconds, ratio) in found.items():
            packed = sum(step["packed_bytes"] for step in plans[name].steps) / 1e6
            print(f"{title:10} {name:17} {packed:7.1f} MB {milliseconds:8.2f} ms  {ratio:.3f}")


def points(rounds: int) -> None:
    rng, ratios = np.random.default_rng(0), []
    for side, channels, outputs in POINTS:
        x = rng.standard_normal((1, side, side, channels), np.float32)
        w = rng.standard_normal((1, 1, channels, outputs), np.float32)
        ways = {"float32": {}, "bfloat16": {"precision": "bfloat16"}}
        plans = {name: fastconv.plan_conv2d(x.shape, w, data_format="NHWC", **way) for name, way in ways.items()}
        out = {name: plan.run(x) for name, plan in plans.items()}
        runs = {name: lambda plan=plan, x=x, y=out[name]: plan.run(x, y) for name, plan in plans.items()}
        found = turns(runs, 20 * rounds)
        ratios.append(found["bfloat16"][1])
        told = f"{plans['float32'].explain().kind:17} {found['float32'][0]:7.3f} ms"
        told += f", bfloat16 {found['bfloat16'][0]:7.3f} ms  {ratios[-1]:.2f}"
        print(f"1x1 {side:3} x {side:3} {channels:4} -> {outputs:4} {told}")
    print(f"1x1 layers in bfloat16: {geometric_mean(ratios):.2f} times as fast as in float32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, help="threads (default: all)")
    parser.add_argument("--rounds", type=int, default=15, help="turns of whole nets (default: %(default)s)")
    args = parser.parse_args()
    if args.threads:
        fastconv.set_num_threads(args.threads)
    points(args.rounds)
    nets(args.rounds)


if __name__ == "__main__":
    main()
