"""What a program computes with: arrays, in the logical axis order or the caller's, and weights packed for many runs."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import address
from .passes import Triple
from .record import NamedTuple

Array = NDArray[Any]
# By the number of axes: how channels-last arrays become logical ones, (weights, activations).
FIRST = {axes: ((axes - 1, axes - 2, *range(axes - 2)), (0, axes - 1, *range(1, axes - 1))) for axes in (3, 4, 5)}


FIRST_BLOCK, BLOCK = 1 << 18, 8 << 20  # bytes that a slab asks for at once: each time twice as many, up to these


def fresh(count: int) -> memoryview:
    """`count` new bytes in pages of the usual size, none of them touched where the system can.

    NumPy asks for large pages: these lie where nobody was, which a virtual machine may have to fetch from its host, and
    loading is mostly the touching of memory. (ResNet-50 on two cores of an EPYC: 230 ms from its file to the first
    result, in large pages 150 to 600.)
    """
    if not hasattr(mmap, "MAP_ANONYMOUS") or not count:
        return memoryview(bytearray(count))
    try:
        return memoryview(mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    except OSError as error:  # the system's word where Python's own memory says MemoryError
        raise MemoryError(f"no {count} bytes for weights: {error}") from error


class Slab:
    """Memory for arrays that live as long as each other, side by side: the weights that the plans of a net hold.

    A block goes when nothing lies in it any more. Not for several threads.
    """

    def __init__(self) -> None:
        self._block = np.empty(0, np.uint8)
        self._used, self._next = 0, FIRST_BLOCK

    def bytes(self, count: int) -> Array:
        """`count` new bytes on a 64-byte boundary."""
        if count > len(self._block) - self._used:
            raw = np.frombuffer(fresh(max(self._next, count) + 64), np.uint8)
            self._block, self._used = raw[-address(raw) % 64 :], 0
            self._next = min(BLOCK, 2 * self._next)
        first = self._used
        self._used += -(-count // 64) * 64
        return self._block[first : first + count]


# Of this thread: where what plans hold is put, and whether one is being packed now.
_slab: ContextVar[Slab | None] = ContextVar("slab", default=None)
_packing: ContextVar[bool] = ContextVar("packing", default=False)


@contextmanager
def held_in(slab: Slab) -> Iterator[None]:
    """What plans hold that this thread makes meanwhile lies in a slab."""
    before = _slab.set(slab)
    try:
        yield
    finally:
        _slab.reset(before)


@contextmanager
def packing() -> Iterator[None]:
    """`aligned_bytes` are for what a plan holds."""
    before = _packing.set(True)
    try:
        yield
    finally:
        _packing.reset(before)


def aligned_bytes(count: int) -> Array:
    """`count` new bytes on a 64-byte boundary."""
    slab = _slab.get() if _packing.get() else None
    if slab is not None:
        return slab.bytes(count)
    raw = np.empty(count + 64, np.uint8)
    shift = -address(raw) % 64
    return raw[shift : shift + count]


class Packed(NamedTuple):
    """The weights of one pass in panels, whether all are finite, and what a fast method makes of them."""

    panels: Array
    finite: bool
    transformed: Array | None = None

    def aligned(self) -> Packed:
        """The same in memory that the kernels may read: what a pickle gives lies anywhere."""

        def copied(array: Array) -> Array:
            made = aligned_bytes(array.size)
            made[...] = array
            return made

        return Packed(
            copied(self.panels), self.finite, None if self.transformed is None else copied(self.transformed)
        )


class Operands(NamedTuple):
    """The arrays of a run, in the logical axis order or, `channels_last`, as (N, *size, C) and (*kernel, I, O)."""

    x: Array
    weight: Array
    packed: Packed | None
    bias: Array | None
    residual: Array | None
    out: Array
    activation: int
    channels_last: bool

    @property
    def batch(self) -> int:
        return len(self.out)

    @property
    def size(self) -> Triple:
        """Of the output."""
        shape = self.out.shape
        sizes = shape[1:-1] if self.channels_last else shape[2:]
        return (1,) * (3 - len(sizes)) + sizes  # type: ignore[return-value]

    def logical(self) -> Operands:
        """The same in the logical axis order."""
        if not self.channels_last:
            return self
        weights, activations = FIRST[self.out.ndim]
        return self._replace(
            weight=self.weight.transpose(weights), x=self.x.transpose(activations),
            out=self.out.transpose(activations),
            residual=None if self.residual is None else self.residual.transpose(activations), channels_last=False,
        )  # fmt: skip

    def phase(self, first: Triple, step: Triple) -> Operands:
        """Every `step`-th output from `first` on along each axis, in the logical axis order."""
        slices = [slice(a, None, b) for a, b in zip(first, step, strict=True)]
        to: tuple[Any, ...] = (..., *slices[5 - self.out.ndim :])
        return self._replace(out=self.out[to], residual=None if self.residual is None else self.residual[to])

    def images(self, part: slice) -> Operands:
        """Some images of the batch."""
        return self._replace(
            x=self.x[part], out=self.out[part], residual=None if self.residual is None else self.residual[part]
        )
