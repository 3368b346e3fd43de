"""How much a call costs more in the `abi3` build (one for every CPython from 3.11) than in the native one.

    python bench/abi3_overhead.py            builds both into build/abi3-overhead on first use, then measures
    python bench/abi3_overhead.py --json -   the figures as JSON

Both extensions are loaded into this process under one package each, so that they share its memory, its clock and
NumPy. A convolution of 1 x 8 x 8 x 8 by 8 filters of 3 x 3, one thread's work of a few microseconds, is called in turns
of a few hundred calls, the order reversed from one turn to the next; the ratio is that of the medians. The bar for one
abi3 wheel in place of one wheel a version is 10 %.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
BUILDS = ROOT / "build" / "abi3-overhead"
KINDS = {"native": "0", "abi3": "1"}  # and what FASTCONV_ABI3 must say
CALLS = 200  # a turn: a millisecond or two, long beside the resolution of the clock, short beside its drifts
BAR = 1.10


def built(kind: str) -> Path:
    """The extension of this kind; built if it is not there."""
    folder = BUILDS / kind
    if not (made := list(folder.glob("fastconv/_native.*"))):
        command = ["build_ext", "--build-lib", str(folder), "--build-temp", str(folder / "temp")]
        environment = {**os.environ, "FASTCONV_ABI3": KINDS[kind]}
        subprocess.run([sys.executable, "setup.py", "--quiet", *command], cwd=ROOT, env=environment, check=True)
        made = list(folder.glob("fastconv/_native.*"))
    return made[0]


def package(extension: Path) -> Any:
    """The package `fastconv` around this extension, apart from any that was imported before."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "fastconv"]:
        del sys.modules[name]
    spec = importlib.util.spec_from_file_location("fastconv._native", extension)
    assert spec is not None and spec.loader is not None
    native = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = native
    spec.loader.exec_module(native)
    made = importlib.import_module("fastconv")
    assert made.plan._native is native
    return made


def calls(fastconv: Any) -> dict[str, Callable[[], Any]]:
    """What is timed, each given its arrays."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 8, 8, 8), np.float32)
    weight = rng.standard_normal((8, 8, 3, 3), np.float32)
    bias = rng.standard_normal(8, np.float32)
    out = np.empty((1, 8, 8, 8), np.float32)
    plan = fastconv.plan_conv2d(x.shape, weight, bias, padding=1)
    grad = np.ones_like(x)
    return {
        "conv2d(x, weight, bias)": lambda: fastconv.conv2d(x, weight, bias, padding=1),
        "plan.run(x, out=out)": lambda: plan.run(x, out=out),
        "grad.conv2d_weight": lambda: fastconv.grad.conv2d_weight(x, weight.shape, grad, padding=1),
    }


def turn(call: Callable[[], Any]) -> float:
    """Seconds of one call, over `CALLS` of them."""
    start = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - start) / CALLS


def measure(seconds: float) -> dict[str, dict[str, float]]:
    """Microseconds of a call of both kinds and their ratio, for every kind of call."""
    sides = {kind: calls(package(built(kind))) for kind in KINDS}
    found = {}
    for name in sides["native"]:
        samples: dict[str, list[float]] = {kind: [] for kind in KINDS}
        order = list(KINDS)
        for kind in order:
            turn(sides[kind][name])  # warms caches
        end = time.perf_counter() + seconds / len(sides["native"])
        while time.perf_counter() < end:
            for kind in order:
                samples[kind].append(turn(sides[kind][name]))
            order.reverse()
        medians = {kind: statistics.median(values) for kind, values in samples.items()}
        found[name] = {
            **{f"{kind}_us": median * 1e6 for kind, median in medians.items()},
            "ratio": medians["abi3"] / medians["native"],
            "turns": len(samples["native"]),
        }
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="of measuring (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the figures into FILE, '-' for standard output")
    args = parser.parse_args()
    found = measure(args.seconds)
    if args.json:
        text = json.dumps({"python": sys.version.split()[0], "calls": found}, indent=2)
        print(text) if args.json == "-" else Path(args.json).write_text(text + "\n", encoding="utf-8")
    if args.json != "-":
        for name, row in found.items():
            print(f"{name:<26}native {row['native_us']:6.2f} us   abi3 {row['abi3_us']:6.2f} us   {row['ratio']:.3f}")
    return int(any(row["ratio"] > BAR for row in found.values()))


if __name__ == "__main__":
    sys.exit(main())
