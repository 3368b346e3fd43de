"""ONNX: the pixel that the standard's fractions name, and the work of loading graphs of many nodes."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec

import numpy as np

from reliability.board import Outcome, row

FEW, MOST = 30, 1.25  # nodes of the smaller graph; of eight times its work for eight times its nodes
ROUNDING = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")


def _absent() -> Outcome | None:
    if find_spec("onnx") is not None:
        return None
    outcome = Outcome()
    outcome.skipped = "needs the package onnx: pip install fastconv[onnx]"
    return outcome


@row("pixels of nearest Resize by sizes, against whole numbers", "0 wrong", quick=400, full=40_000, order=561)
def onnx_nearest(count: int) -> Outcome:
    """Half pixels: the place of result i is ((2i + 1) size - length) / (2 length)."""
    if (outcome := _absent()) is not None:
        return outcome
    import onnx
    from onnx_models import model, tensor

    from fastconv.onnx import InferenceSession

    outcome, chance, pixels = Outcome(), np.random.default_rng(0), 0
    sessions = []
    for rounding in ROUNDING:
        node = onnx.helper.make_node("Resize", ["x", "", "", "s"], ["y"], mode="nearest", nearest_mode=rounding)
        built = model(onnx, [node], {"x": [None]}, {"y": None}, opset=19)
        built.graph.input.append(tensor(onnx, "s", [1], 7))
        sessions.append(InferenceSession(built))
    for case in range(count):
        size, length, way = int(chance.integers(1, 200)), int(chance.integers(1, 200)), case % 4
        (y,) = sessions[way].run(None, {"x": np.arange(size, dtype=np.float32), "s": np.array([length])})
        over, under = (2 * np.arange(length) + 1) * size - length, 2 * length
        wanted = (over // under, -(-over // under), -((length - over) // under), (over + length) // under)[way]
        right = np.array_equal(y, np.clip(wanted, 0, size - 1))
        outcome.check(right, f"case {case}: {size} to {length}, {ROUNDING[way]}")
        pixels += length
    outcome.measured = f"{pixels:,} pixels"
    return outcome


@row(
    "loading an ONNX graph of eight times the nodes, and its first run", f"at most {8 * MOST:.0f} times the work",
    quick=4, full=100, order=562,
)  # fmt: skip
def onnx_loading(count: int) -> Outcome:
    """Lines of Python that ran, for chains, fans and what every rewriting is about."""
    if (outcome := _absent()) is not None:
        return outcome
    import onnx
    from onnx_models import LARGE, large_graph, load_and_run, steps_of_python

    outcome, most = Outcome(), 0.0
    for kind in LARGE[:: max(1, len(LARGE) // count)]:
        work = []
        for size in (FEW, FEW, 8 * FEW):  # the first time makes what is made once
            built, feeds = large_graph(onnx, kind, size)
            work.append(steps_of_python(partial(load_and_run, built.SerializeToString(), feeds)))
        ratio = work[2] / work[1]
        outcome.check(ratio <= 8 * MOST, f"{kind}: {ratio:.1f} times the work")
        most = max(most, ratio)
    outcome.measured = f"at most {most:.1f} times"
    return outcome
