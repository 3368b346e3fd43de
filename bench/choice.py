"""How good the choice of a method is: layers drawn at random, each computed by every method that applies.

    python -P bench/choice.py [--layers 300] [--seed 1] [--passes fwd eager dx dw] [--threads 2]
                           [--show 20] [--json FILE]

The methods of a layer run in turns; a line a pass gives the geometric mean of the chosen method's time over the least
of all methods, and the largest ratio; then the layers in which the choice costs most. Even seeds are for choosing
constants, odd ones for reporting.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from statistics import geometric_mean, median
from typing import Any, NamedTuple

import numpy as np

import fastconv
from fastconv._core.geometry import conv_geometry
from fastconv._core.problem import Direction, Use, problem
from fastconv._core.select import Choice, choose, wishes
from fastconv._core.types import Types
from fastconv.bench.cases import PASS_WORDS, PASSES, Case, make_data
from fastconv.bench.peers import Ours

LEAST_MACS, MOST_MACS = 3e4, 6e8
SLOW = 3  # a method so many times slower in its first runs is not timed again
SPENT, MOST_TURNS = 0.25, 400  # seconds a layer and pass, about


class Found(NamedTuple):
    """A layer's times by method, in seconds."""

    layer: str
    pass_name: str
    chosen: str
    seconds: dict[str, float]

    @property
    def ranked(self) -> list[str]:
        """The methods, the fastest first."""
        return sorted(self.seconds, key=self.seconds.__getitem__)

    @property
    def ratio(self) -> float:
        """What the choice costs: 1 where it is the best."""
        return self.seconds[self.chosen] / self.seconds[self.ranked[0]]


def drawn(rng: np.random.Generator) -> Case:
    """A layer of one to three axes with numbers as nets have them, and others."""
    while True:
        axes = int(rng.choice([1, 2, 2, 2, 2, 3]))
        kernel = int(rng.choice([1, 2, 3, 3, 3, 4, 5, 7, 9, 11]))
        stride, dilation = int(rng.choice([1, 1, 1, 2])), int(rng.choice([1, 1, 1, 1, 2, 3]))
        size = round(math.exp(rng.uniform(math.log(5), math.log({1: 8000, 2: 160, 3: 40}[axes]))))
        inner, outer = (round(math.exp(rng.uniform(math.log(1.5), math.log(600)))) for _ in range(2))
        if rng.random() < 0.5:  # as most nets have them
            inner, outer = -(-inner // 8) * 8, -(-outer // 8) * 8
        groups, kind = 1, rng.random()
        if kind < 0.12:
            outer = groups = inner
        elif kind < 0.22:
            groups = int(rng.choice([2, 4, 8, 16, 32]))
            inner, outer = -(-inner // groups) * groups, -(-outer // groups) * groups
        case = Case(
            "drawn", "", "", inner, outer, (size,) * axes, (kernel,) * axes, stride, dilation * (kernel - 1) // 2,
            dilation, groups, transposed=bool(rng.random() < 0.1 and dilation == 1),
        )  # fmt: skip
        window = dilation * (kernel - 1) + 1
        if size + 2 * case.pads[0] >= window and LEAST_MACS < case.macs < MOST_MACS:
            return case


def told(case: Case) -> str:
    """A layer in a line."""
    words = [f"{case.axes}-D", "×".join(map(str, case.taps)), f"{case.in_channels}→{case.out_channels}"]
    words.append(f"@{case.input_size[0]}")
    for letter, n in (("s", case.stride), ("d", case.dilation), ("g", case.groups)):
        words += [f"{letter}{n}"] * (n > 1)
    return " ".join([*words, *["transposed"] * case.transposed])


class Way(Ours):
    """fastconv by one method."""

    def __init__(self, threads: int, wish: str) -> None:
        super().__init__(threads)
        self.wish = wish

    def _call(self, case: Case, pass_name: str, x: Any, w: Any, bias: Any, dy: Any, geometry: dict[str, Any]) -> Any:
        return super()._call(case, pass_name, x, w, bias, dy, {**geometry, "algorithm": self.wish})


def chosen(case: Case, pass_name: str, wish: str = "auto") -> Choice:
    """What is taken for a wish."""
    shape = case.output_shape if case.transposed else case.input_shape
    g = conv_geometry(shape, case.weight_shape, case.stride, case.padding, case.dilation, case.groups)
    direction = Direction.WEIGHT_GRADIENT
    if pass_name != "dw":
        direction = Direction.INPUT_GRADIENT if case.transposed != (pass_name == "dx") else Direction.FORWARD
    use = Use.HELD if pass_name == "fwd" else Use.ONCE
    float32 = np.dtype(np.float32)
    return choose(problem(g, direction, Types(float32, float32, float32), use, wish=wish))


def runs(case: Case, pass_name: str, threads: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """By method that applies: a run."""
    data = make_data(case)
    for wish in ("direct", *(wish for wish in wishes() if wish != "direct")):
        if wish == "direct" and chosen(case, pass_name, wish).variant:  # which is one of those behind it
            continue
        try:
            run = Way(threads, wish).candidates(case, data, pass_name)[0].run
            run()
        except fastconv.ConvError:
            continue
        yield wish, run


def timed(case: Case, pass_name: str, threads: int) -> Found:
    """All methods of a layer in turns."""
    ways, wish = dict(runs(case, pass_name, threads)), chosen(case, pass_name).wish
    times: dict[str, list[float]] = {wish: [] for wish in ways}
    start, turn = time.perf_counter(), 0
    while turn < 5 or (time.perf_counter() - start < SPENT and turn < MOST_TURNS):
        for name in list(ways):
            begun = time.perf_counter()
            ways[name]()
            times[name].append(time.perf_counter() - begun)
        turn += 1
        if turn == 3:
            least = min(min(own) for own in times.values())
            ways = {name: run for name, run in ways.items() if name == wish or min(times[name]) < SLOW * least}
    return Found(told(case), pass_name, wish, {name: median(own) for name, own in times.items()})


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--layers", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--passes", nargs="+", choices=PASSES, default=["fwd"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--show", type=int, default=20, help="layers to show, the worst choices first")
    parser.add_argument("--json", help="a file for all times")
    options = parser.parse_args(argv)
    found: list[Found] = []
    for pass_name in options.passes:
        rng = np.random.default_rng(options.seed)
        for i in range(options.layers):
            found.append(timed(drawn(rng), pass_name, options.threads))
            if sys.stderr.isatty():
                print(f"\r{pass_name} {i + 1}/{options.layers}", end="", file=sys.stderr)
        own = [one for one in found if one.pass_name == pass_name]
        ratios = [one.ratio for one in own]
        mean = geometric_mean(ratios)
        print(f"{PASS_WORDS[pass_name]}: {mean:.3f}, worst {max(ratios):.2f}, {options.threads} threads")
        for one in sorted(own, key=lambda one: -one.ratio)[: options.show]:
            others = ", ".join(f"{wish} {one.seconds[wish] * 1e6:.0f}" for wish in one.ranked[:5])
            print(f"  {one.ratio:.2f}  {one.layer}, {one.chosen}: {others} us")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(one._asdict()) + "\n" for one in found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
