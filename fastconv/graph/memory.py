"""The memory of intermediate values: buffers that are given out again as soon as nobody reads them any more.

A value may be an array of its own, a view of a buffer or a view of a view; the buffer below it is what NumPy calls its
base. Every buffer counts the values that lie in it, and is free again at zero. After the first run of a graph the same
sequence of requests meets buffers of the right sizes, so that nothing is allocated and no page is touched anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any, Final

import numpy as np

from .. import _native
from .._core.arrays import CACHE_LINE, Array, address
from .._core.words import Shape
from .errors import TooLarge

SMALL_BYTES: Final = 1 << 12  # below this NumPy's own allocation is as cheap
KEPT_BYTES: Final = 256 << 20  # buffers above this are given back after a run
SLACK: Final = 4  # a buffer more than so many times too large is left for others
LARGEST_VALUE: Final = 1 << 31  # bytes of one value: what an ONNX file can hold; declared sizes above it are refused


def contiguous(array: Array, threads: int) -> Array:
    """A copy in the order of its axes, by native code: NumPy's transposes of small elements are ten times as slow."""
    made = np.empty(array.shape, array.dtype)
    if not array.flags.c_contiguous and not array.dtype.hasobject and array.nbytes >= SMALL_BYTES:
        try:
            _native.move(made, array, (), threads)
            return made
        except ValueError:  # too many axes that do not merge
            pass
    np.copyto(made, array)
    return made


class Pool:
    """Buffers of one session. Not for several threads at once: the session holds a lock."""

    def __init__(self, limit: int = LARGEST_VALUE) -> None:
        self.limit = limit
        self.peak = 0  # bytes of all buffers, at most
        self._free: list[Array] = []
        self._counts: dict[int, int] = {}  # by id of the buffer
        self._buffers: dict[int, Array] = {}
        self._handed: list[Array] = []  # since the last `settle`
        self.anew = False  # give out no buffer in which something lay before
        self._new: set[int] = set()  # buffers that were given out so

    def check(self, shape: Iterable[int], dtype: Any, what: str) -> None:
        """Refuse a value above the limit."""
        sizes = tuple(shape)
        nbytes = prod(sizes) * np.dtype(dtype).itemsize
        if nbytes > self.limit or any(size > self.limit for size in sizes):
            raise TooLarge(
                f"the {what} would make a value of shape {sizes}, {nbytes:,} bytes; at most {self.limit:,} are allowed "
                "(max_value_bytes)."
            )

    def empty(self, shape: Shape, dtype: Any) -> Array:
        """An uninitialised array, in a buffer where it is worth it."""
        kind = np.dtype(dtype)
        nbytes = prod(shape) * kind.itemsize
        if nbytes < SMALL_BYTES or kind.hasobject:
            return np.empty(shape, kind)
        most = SLACK * nbytes
        usable = 0 if self.anew else len(self._free)
        for place in range(usable - 1, -1, -1):  # what was freed last is still in the cache
            if nbytes <= self._free[place].size <= most:
                buffer = self._free.pop(place)
                break
        else:
            raw = np.empty(nbytes + CACHE_LINE, np.uint8)
            shift = -address(raw) % CACHE_LINE
            buffer = np.frombuffer(raw.data[shift : shift + nbytes], np.uint8)
            self._buffers[id(buffer)] = buffer
            if self.anew:
                self._new.add(id(buffer))
        self._counts[id(buffer)] = 0
        self._handed.append(buffer)
        return np.ndarray(shape, kind, buffer, (buffer.size - nbytes) // 2 // CACHE_LINE * CACHE_LINE)

    def _below(self, array: Any) -> int | None:
        """The buffer in which an array lies."""
        while isinstance(array, np.ndarray):
            if id(array) in self._buffers:
                return id(array)
            array = array.base
        return None

    def holds(self, array: Any) -> bool:
        """Whether an array lies in a buffer of ours."""
        return self._below(array) is not None

    def lies_anew(self, array: Array) -> bool:
        """Whether an array has a buffer of ours for itself in which nothing lay before in this run."""
        found = self._below(array)
        return found in self._new and self._buffers[found].nbytes == array.nbytes if found is not None else False

    def alone(self, array: Array) -> bool:
        """Whether an array is the only value in a buffer of ours."""
        return self._counts.get(self._below(array) or 0) == 1

    def retain(self, array: Any) -> None:
        """A value now lies here."""
        found = self._below(array)
        if found is not None:
            self._counts[found] += 1

    def release(self, array: Any) -> None:
        """A value is no longer read."""
        found = self._below(array)
        if found is not None:
            self._counts[found] -= 1
            if not self._counts[found] and found not in self._new:  # nothing else lies there in this run
                self._free.append(self._buffers[found])

    def settle(self) -> None:
        """After an operation: take back what it asked for and did not return."""
        for buffer in self._handed:
            if not self._counts[id(buffer)] and id(buffer) not in self._new:
                self._free.append(buffer)
        self._handed = []

    def finish(self, keep: bool = True) -> None:
        """After a run, whether it ended well or not: every buffer is free again."""
        total = sum(map(len, self._buffers.values()))
        self.peak = max(self.peak, total)
        self._handed, self._new, self.anew = [], set(), False
        if not keep or total > KEPT_BYTES:
            self._buffers, self._free, self._counts = {}, [], {}
            return
        self._counts = dict.fromkeys(self._buffers, 0)
        self._free = list(self._buffers.values())

    @property
    def kept(self) -> bool:
        """Whether what the last run used is still held."""
        return self.buffer_bytes <= KEPT_BYTES and (self.peak == 0 or bool(self._buffers))

    @property
    def used_bytes(self) -> int:
        """The buffers in which something lies now."""
        return sum(self._buffers[at].nbytes for at, count in self._counts.items() if count)

    @property
    def buffer_bytes(self) -> int:
        """What is held now."""
        return sum(map(len, self._buffers.values()))
