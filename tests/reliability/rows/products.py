"""Work follows the products that meet an input, whatever the sizes of kernel and image: counted, not timed."""

from __future__ import annotations

import random

import numpy as np

from fastconv._core.geometry import Geometry, conv_geometry
from fastconv._core.plan import plan_for
from fastconv._core.problem import Direction
from fastconv._core.types import Types
from reliability.board import Outcome, row

FLOAT32 = Types(*(np.dtype("float32"),) * 3)
SMALL = 1 << 24  # multiplications: below a tenth of a millisecond, where cutting them up would take longer


def useful(g: Geometry) -> int:
    """Products of the definition that meet an input and no padding."""
    total = g.batch * g.out_channels * g.in_channels // g.groups
    for axis in range(2):
        at = np.arange(g.output_size[axis])[:, None] * g.stride[axis] - g.padding[axis][0]
        at = at + np.arange(g.kernel_size[axis]) * g.dilation[axis]
        total *= int(((at >= 0) & (at < g.input_size[axis])).sum())
    return total


def draw(number: int) -> Geometry:
    """A kernel mostly larger than its image, padded up to the last tap that can meet it."""
    rng = random.Random(number)
    groups = rng.choice((1, 1, 1, 2, 4))
    kernel = (rng.choice((1, 3, 7, 16, 40, 200)), rng.choice((1, 2, 5, 28, 60)))
    size = (rng.choice((1, 2, 4, 9, 40)), rng.choice((1, 3, 7, 30)))
    dilation = rng.choice((1, 1, 1, 2, 3))
    padding = tuple(tuple(rng.randrange(dilation * (k - 1) + 1) for _ in range(2)) for k in kernel)
    short = [max(0, dilation * (k - 1) + 1 - n - sum(p)) for k, n, p in zip(kernel, size, padding, strict=True)]
    size = (size[0] + short[0], size[1] + short[1])
    channels = groups * rng.choice((1, 3, 16, 64))
    shape = (rng.choice((1, 2, 16, 70)), channels, *size)
    weight = (groups * rng.choice((1, 4, 20, 100)), channels // groups, *kernel)
    return conv_geometry(shape, weight, rng.choice((1, 1, 2, 3)), padding, dilation, groups)


@row(
    "multiplications of a forward pass or an input gradient beyond four times those that meet an input",
    "0", quick=400, full=4000, every_isa=True, order=35,
)  # fmt: skip
def useful_products(count: int) -> Outcome:
    outcome, worst = Outcome(), 1.0
    for number in range(count):
        g = draw(number)
        least = useful(g)
        for direction in (Direction.FORWARD, Direction.INPUT_GRADIENT):
            told = plan_for(g, direction, FLOAT32, 2).explain(False)
            if told.algorithm != "direct":
                continue
            done = told.multiplications
            if done > SMALL:
                worst = max(worst, done / least)
            words = f"problem {number}, {direction.value}: {done:,} for {least:,}, {g}"
            outcome.check(done <= max(4 * least, SMALL), words)
    outcome.measured = f"{outcome.failed} of {outcome.cases:,}, at most {worst:.2f} times"
    return outcome
