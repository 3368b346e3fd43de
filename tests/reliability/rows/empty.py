"""Arrays without elements: the right shape, and no division by a zero length."""

from __future__ import annotations

from itertools import product

import numpy as np

import fastconv
from fastconv import reference
from reliability.board import Outcome, row


@row("0 in every axis x every operation", "100 %, no SIGFPE", quick=128, full=128, order=100, every_isa=True)
def empty_axes(count: int) -> Outcome:
    """Every mask of zeros over (N, C, H, W, O, kH, kW): an answer equal to the reference's, or the same refusal."""
    outcome = Outcome()
    for mask in product((1, 0), repeat=7):
        n, c, h, w, o, kh, kw = (full * keep for full, keep in zip((2, 3, 6, 5, 4, 3, 2), mask, strict=True))
        x, weight = np.ones((n, c, h, w), np.float32), np.ones((o, c, kh, kw), np.float32)
        outcome.check(_same("conv2d", x, weight), f"conv2d {x.shape} {weight.shape}")
    return outcome


def _same(name: str, *arrays: np.ndarray) -> bool:
    answers = []
    for module in (fastconv, reference):
        try:
            answers.append(getattr(module, name)(*arrays))
        except fastconv.ConvError:
            answers.append(None)
    ours, theirs = answers
    return (ours is None) == (theirs is None) and (ours is None or np.array_equal(ours, theirs))
