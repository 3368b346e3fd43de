"""Tiles of Fourier transforms, and what their arrays and their work come to."""

from __future__ import annotations

from functools import lru_cache

from ... import _native
from ..passes import AXES, triple
from ..record import NamedTuple
from .method import Problem, Triple

MOST_TILE_BYTES = 12 << 20  # of a block of one tile
PART = 1 << 16  # complex numbers of a kernel's spectrum that are made together


class Tiling(NamedTuple):
    """Tiles of the outputs of a pass."""

    samples: Triple  # N along each axis; 1 along those that are not transformed
    outputs: Triple  # T along each axis
    axes: tuple[int, ...]  # that are transformed, the last first

    @property
    def half(self) -> int:
        """Frequencies of the last axis, whose other half is conjugate."""
        return self.samples[2] // 2 + 1

    @property
    def frequencies(self) -> int:
        return self.half * self.samples[1] * self.samples[0]


class Block(NamedTuple):
    """Tiles that go through all steps together: images, and tiles along each axis."""

    images: int
    tiles: Triple


def tiling(p: Problem, samples: int) -> Tiling | None:
    """Tiles of so many samples along every axis with taps; None where the taps do not fit."""
    q = p.passes[0]
    most = [0 if p.input_size[a] == p.size[a] == 1 and all(o.taps[a] == (0,) for o in p.passes) else 2 for a in AXES]
    n, t = [1, 1, 1], [1, 1, 1]
    for a in AXES:
        span = max(max(o.taps[a]) - min(o.taps[a]) + 1 for o in p.passes)
        if span > 1:
            n[a] = samples
            t[a] = (samples - span) // q.stride[a] + 1
            if t[a] < 1:
                return None
    first = next((a for a in AXES if most[a]), 2)
    return Tiling(triple(n), triple(t), tuple(range(2, first - 1, -1)))


def held_bytes(p: Problem, t: Tiling) -> int:
    """Of the transformed kernel of a pass in panels."""
    if p.channels == p.outputs == 1:
        return 2 * p.machine.element * t.frequencies * p.groups
    return _native.packed_bytes(p.compute, p.groups * t.frequencies, 1, 2 * p.channels, 2 * p.outputs)


@lru_cache(maxsize=1024)
def making_bytes(p: Problem, t: Tiling) -> int:
    """What a call has of a pass: the panels, the matrices they are made of and complex numbers in double precision."""
    numbers = p.groups * t.frequencies * p.channels * p.outputs
    own = min(numbers, max(PART, t.frequencies * p.channels)) * 16 * 3
    return held_bytes(p, t) + own + (0 if p.channels == p.outputs == 1 else 4 * p.machine.element * numbers)


def work(p: Problem, t: Tiling) -> tuple[int, int]:
    """Multiply-adds of one image: (of the transforms, of the products), of all passes."""
    transforms = products = 0
    channels, outputs = p.groups * p.channels, p.groups * p.outputs
    nz, ny, nx = t.samples
    tz, ty, tx = t.outputs
    for q in p.passes:
        kz, ky, kx = (-(-n // own) for n, own in zip(q.output_size(p.size), t.outputs, strict=True))
        depth, height = (
            min(p.input_size[a], k * t.outputs[a] * q.stride[a] + t.samples[a]) for a, k in ((0, kz), (1, ky))
        )
        tiles = kz * ky * kx
        transforms += channels * depth * height * kx * nx * 2 * t.half
        transforms += outputs * tiles * tz * ty * 2 * t.half * tx
        if len(t.axes) > 1:
            transforms += channels * depth * ky * kx * t.half * 4 * ny * ny
            transforms += outputs * tiles * tz * t.half * 4 * ny * ty
        if len(t.axes) > 2:
            transforms += tiles * t.half * ny * 4 * nz * (channels * nz + outputs * tz)
        products += tiles * t.frequencies * 4 * p.groups * p.channels * p.outputs
    return transforms, products


def multiplications(p: Problem, t: Tiling) -> int:
    """Multiply-adds of a run of the planned batch."""
    return p.geometry.batch * sum(work(p, t))

