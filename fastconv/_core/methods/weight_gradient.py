"""The gradient of a weight, directly: sums over images and pixels (drivers/weight_gradient.pxi)."""

from __future__ import annotations

from functools import lru_cache
from math import prod

import numpy as np

from ... import _native
from ..passes import Triple
from ..problem import Direction, Problem, Use
from ..record import NamedTuple
from ..types import codes
from .direct_blocking import REGION_SHARE, WEIGHT_SLICE, tuned
from .exchange import MOST_GROUPS
from .method import LONG_SUM, Array, Program, split

PARTIAL_SUMS_BYTES = 8 << 20  # all partial sums
SUMS = 40  # of the second-level cache, in 128ths: sums of a block
SHARED_OUT = 8  # tasks at least, blocks or parts
PART_PIXELS = 48  # of a part at least: so many products for every sum that is begun and added up
GATHER_ABOVE_BYTES = 4 << 20  # a window larger than this is never packed whole


class Blocking(NamedTuple):
    """Loop sizes; `parts` cuts the sum, by shape alone."""

    taps: Triple
    channels: int
    panels: int
    tile: Triple  # of grad_output
    chunk_rows: int
    parts: int


@lru_cache(maxsize=256)
def blocking(p: Problem) -> Blocking:
    """Loop sizes from the shapes and the register tile; the batch counts only for the number of parts."""
    m, g = p.machine, p.geometry
    slice_, sums, region_most = (m.tuning.share(parts) for parts in (WEIGHT_SLICE, SUMS, REGION_SHARE))
    kernel, outs, strides, dilations = g.kernel_size[1:], g.output_size[1:], g.stride[1:], g.dilation[1:]
    channels, outputs = max(1, p.channels), max(1, p.outputs)
    panels = -(-outputs // m.width)
    panel_bytes = min(m.width, -(-outputs // m.lanes) * m.lanes) * m.element
    # a chunk of one panel stays in the first level; blocks of a long sum are whole tiles, of few enough pixels
    pixels = max(m.rows, min(slice_ // panel_bytes, LONG_SUM // 2))
    tile_x = split(outs[1], min(pixels, 128) * 5 // 4)
    chunk_rows = max(1, pixels // tile_x)

    def span(tile: int, taps: int, axis: int) -> int:
        step = 1 if taps == 1 else strides[axis]
        return (tile - 1) * step + (taps - 1) * dilations[axis] + 1

    def region(tile_y: int, taps: tuple[int, ...], count: int) -> int:
        return span(tile_y, taps[0], 0) * span(tile_x, taps[1], 1) * count * m.element

    taps: tuple[int, ...] = kernel
    for smaller in ((1, kernel[1]), (1, 1)):
        if prod(taps) * m.rows * panel_bytes > sums or region(1, taps, m.rows) > GATHER_ABOVE_BYTES:
            taps = smaller
    count = min(channels, max(m.rows, sums // (prod(taps) * panel_bytes) // m.rows * m.rows), 256)
    while count > m.rows and region(1, taps, count) > region_most:
        count = max(m.rows, count // 2)
    count = -(-channels // -(-channels // count))
    panel_block = max(1, min(panels, sums // (prod(taps) * count * panel_bytes)))
    while panel_block > 1 and -(-channels // count) * -(-panels // panel_block) * p.groups < SHARED_OUT:
        panel_block -= 1  # blocks to share out, rather than partial sums
    panel_block = split(panels, panel_block)
    tile_y = min(max(1, outs[0]), chunk_rows)
    while (
        tile_y + chunk_rows <= outs[0]
        and region(tile_y + chunk_rows, taps, count) <= region_most
        and (tile_y + chunk_rows) * tile_x * panel_bytes <= region_most // 2
        and (tile_y + chunk_rows) * tile_x <= LONG_SUM // 2
    ):
        tile_y += chunk_rows
    blocks = (
        p.groups * g.kernel_size[0] * -(-kernel[0] // taps[0]) * -(-kernel[1] // taps[1])
        * -(-channels // count) * -(-panels // panel_block)
    )  # fmt: skip
    # tasks to share out, while enough pixels meet each of their sums
    several = g.batch * g.output_size[0] * -(-outs[1] // tile_x)
    wanted = min(-(-SHARED_OUT // (blocks * several)), max(1, outs[0] * min(outs[1], tile_x) // PART_PIXELS))
    tile_y = split(outs[0], min(tile_y, -(-outs[0] // wanted)))
    tiles = g.batch * g.output_size[0] * -(-outs[0] // tile_y) * -(-outs[1] // tile_x)
    block_bytes = prod(taps) * count * panel_block * m.width * m.element
    parts = max(1, min(tiles, -(-32 // blocks), PARTIAL_SUMS_BYTES // (blocks * block_bytes)))
    return Blocking((1, taps[0], taps[1]), count, panel_block, (1, tile_y, tile_x), chunk_rows, parts)


class DirectGradient:
    """The gradient; of images of a few pixels a convolution of the input by grad_output, whose sums run over the images
    in the micro-kernel."""

    def __init__(self, p: Problem) -> None:
        self.problem, g, self.turned = p, p.geometry, False
        self.few = (
            min(prod(g.output_size), prod(g.input_size)) <= tuned(p.machine).few_pixels
            and g.groups <= MOST_GROUPS
        )
        if self.few:
            self.inner = _of_few_pixels(p)
        else:
            own = _exchanged(p)
            self.turned = own is not None
            own = own or p
            self.native = _native.WeightGradient(codes(p.types), own, own.passes[0], blocking(own))

    def run(self, x: Array, dy: Array, out: Array) -> None:
        if self.few:
            self._few_pixels(x, dy, out)
            return
        team = _native.threads_for(dy.size * prod(out.shape[1:]), self.problem.machine.threads)
        if self.turned:
            x, dy, out = dy, x, np.flip(out.swapaxes(0, 1), tuple(range(2, out.ndim)))
        self.native.run(x, dy, out, team)

    def _few_pixels(self, x: Array, dy: Array, out: Array) -> None:
        """Of x, its channels in the place of the batch, by dy: the images are the channels of the sum."""
        p = self.problem
        for group in range(p.groups):
            ours = slice(group * p.outputs, (group + 1) * p.outputs)
            theirs = slice(group * p.channels, (group + 1) * p.channels)
            self.inner.run(
                x[:, theirs].swapaxes(0, 1), dy[:, ours].swapaxes(0, 1), None, None, None,
                out[ours].swapaxes(0, 1), 0, False,
            )  # fmt: skip



def _exchanged(p: Problem) -> Problem | None:
    """The gradient with x and grad_output in each other's place, where outputs are so few that channels fill the
    vectors better: at stride 1 it is that of the kernel read backwards."""
    g, lanes = p.geometry, p.machine.lanes
    if p.groups != 1 or p.mode or set(g.stride) != {1} or p.types.input != p.types.weight:
        return None
    if 4 * p.outputs * -(-p.channels // lanes) > 3 * p.channels * -(-p.outputs // lanes):
        return None
    reach = [(k - 1) * d for k, d in zip(g.kernel_size, g.dilation, strict=True)]
    return p._replace(geometry=g._replace(
        in_channels=g.out_channels, out_channels=g.in_channels, input_size=g.output_size, output_size=g.input_size,
        padding=tuple((r - before, r - after) for r, (before, after) in zip(reach, g.padding, strict=True)),
    ))  # fmt: skip


def _of_few_pixels(p: Problem) -> Program:
    """The convolution whose outputs are the gradient of one group."""
    from .direct import METHOD

    g = p.geometry
    over = g._replace(
        batch=p.channels, in_channels=g.batch, out_channels=p.outputs, groups=1, kernel_size=g.output_size,
        output_size=g.kernel_size, stride=g.dilation, dilation=g.stride,
    )  # fmt: skip
    types = p.types._replace(packed="bfloat16") if p.types.rounded else p.types  # both operands are rounded
    return METHOD.program(Problem(over, Direction.FORWARD, types, Use.ONCE, p.machine, "direct"), "")
