"""A sequence cut into chunks and a call held to less scratch memory: the bits of the whole, and of the usual call."""

from __future__ import annotations

import random

import numpy as np

import fastconv
from fastconv.streaming import CausalConv1d
from fastconv.testing.problems import conv_cases
from reliability.board import Outcome, first_case, row


@row("sequences whose bits depend on the cut into chunks", "0", quick=40, full=5000, every_isa=True, order=23)
def streams(count: int) -> Outcome:
    outcome = Outcome()
    for number in range(first_case(), first_case() + count):
        rng = random.Random(number)
        groups, kernel = rng.choice((1, 1, 2, 5)), rng.randint(1, 9)
        stride, dilation, length = rng.randint(1, 5), rng.choice((1, 2, 4, 16)), rng.randint(0, 90)
        channels, outputs = groups * rng.choice((1, 2, 3, 16, 33)), groups * rng.choice((1, 3, 16, 40))
        draw = np.random.default_rng(number)
        x, b = draw.standard_normal((2, channels, length), np.float32), draw.standard_normal(outputs, np.float32)
        w = draw.standard_normal((outputs, channels // groups, kernel), np.float32)
        whole = fastconv.conv1d(x, w, b, stride, "causal", dilation, groups, algorithm="direct")
        stream = CausalConv1d(w, b, stride, dilation, groups)
        cuts = sorted(rng.randint(0, length) for _ in range(rng.choice((1, 4, 90))))
        parts = [stream.run(part) for part in np.split(x, cuts, 2)]
        outcome.check(
            np.concatenate(parts, 2).tobytes() == whole.tobytes(),
            f"case {number}: {x.shape}, {w.shape}, {stride=}, {dilation=}, {groups=}, {cuts=}",
        )
    return outcome


@row(
    "calls whose bits depend on max_workspace, or that take more", "0", quick=40, full=4000, every_isa=True, order=23,
)  # fmt: skip
def caps_on_scratch(count: int) -> Outcome:
    outcome = Outcome()
    for case in conv_cases(count, first_case()):
        x, w, b = case.arrays("reals")
        options = {**case.options(), "activation": case.activation, "algorithm": "direct", "num_threads": 2}
        usual = fastconv.conv2d(x, w, b, **options)
        if usual.size == 0:
            continue
        for cap in (1 << 17, 1 << 15, 1 << 13):
            try:
                y = fastconv.conv2d(x, w, b, **options, max_workspace=cap)
            except fastconv.ConvError:
                continue
            same = y.tobytes() == usual.tobytes()
            del options["activation"]
            told = fastconv.explain_conv2d(x.shape, w.shape, **options, dtype=x.dtype, max_workspace=cap)
            options["activation"] = case.activation
            outcome.check(same and told.workspace_bytes <= cap, f"{case}, {cap} bytes: {told.workspace_bytes}")
    return outcome
