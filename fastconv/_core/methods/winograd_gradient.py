"""The weight gradient by Winograd's tiles, and its loop sizes (drivers/winograd_gradient.pxi)."""

from __future__ import annotations

from functools import lru_cache

from ... import _native
from .. import special
from ..passes import planes_met
from ..record import NamedTuple
from ..types import codes
from .method import Array, GradientProgram, Problem
from .winograd_programs import CHANNELS, Kind

PARTIAL_SUMS_BYTES = 8 << 20  # all partial sums
GRADIENT_TILES = 24  # transformed together


class GradientBlocking(NamedTuple):
    """Loop sizes of the weight gradient; `parts` cuts its sum, by shape alone."""

    channels: int
    tiles: int  # transformed together
    parts: int
    together: bool  # all planes of the kernel


@lru_cache(maxsize=256)
def gradient_blocking(p: Problem, kind: Kind) -> GradientBlocking:
    """Sums of 36 x 64 channels x one panel (590 KB in AVX-512) and 24 transformed tiles share the second level. Where
    those of all planes of the kernel take no more, each plane of pixels is transformed once for all of them."""
    m, g, deep = p.machine, p.geometry, p.passes[0].counts[0]
    channels = min(CHANNELS, g.in_channels)
    together = deep > 1 and deep * channels * min(g.out_channels, m.width) <= CHANNELS * m.width
    blocks = -(-g.in_channels // channels) * -(-g.out_channels // m.width)
    tiles = g.batch
    for size, dilation in zip(g.output_size[1:], g.dilation[1:], strict=True):  # of every phase
        tiles *= min(size, dilation) * -(-size // (kind.tile * dilation))
    block_bytes = kind.elements**2 * channels * m.width * m.element * (deep if together else 1)
    if together:  # a part goes through all planes
        parts = max(2, -(-tiles // GRADIENT_TILES))
    else:
        parts = tiles * min(last - first for first, last in planes_met(p.passes[0], p.size[0], p.input_size[0])) // 48
    parts = min(parts, -(-16 // blocks), PARTIAL_SUMS_BYTES // (blocks * block_bytes))
    return GradientBlocking(channels, GRADIENT_TILES, max(1, parts), together)


class WinogradGradient(GradientProgram):
    """The weight gradient F(3 x 3, m x m), of all planes of the kernel or of one after the other."""

    def __init__(self, p: Problem, kind: Kind) -> None:
        self.problem = p
        self.blocking = gradient_blocking(p, kind)
        self.native = _native.WinogradGradient(codes(p.types), p, p.passes[0], self.blocking, kind.number)

    def run(self, x: Array, dy: Array, out: Array) -> None:
        (q,), threads = self.problem.passes, self.problem.machine.threads
        if out.ndim < 5 or self.blocking.together:
            self.native.run(x, dy, out, threads)
        else:
            for k, (first, last) in enumerate(planes_met(q, self.problem.size[0], self.problem.input_size[0])):
                begin, step = first * q.stride[0] + q.taps[0][k], q.stride[0]
                if first == last:
                    out[:, :, k] = 0
                    continue
                own = x[:, :, begin : begin + (last - first - 1) * step + 1 : step]
                self.native.run(own, dy[:, :, first:last], out[:, :, k], threads)
        special.gradient_again(self.problem, x, dy, out)
