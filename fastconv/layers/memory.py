"""Where layers put their results: new arrays, or, within a training step, arrays of the step before.

Fresh memory costs a page fault every few kilobytes, which a training step of many megabytes would pay again and again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core import arrays
from .._core.forks import MadeAnew

Array = NDArray[Any]
SMALLEST_BYTES = 1 << 16  # smaller arrays are as cheap from the allocator


class Arena(MadeAnew):
    """Flat buffers that are lent out and come back: by `give_back` each, by `reset` all."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew: a buffer may have been on its way. What is lent stays with those who have it."""
        self._free: dict[int, list[Array]] = {}
        self._lent: dict[int, Array] = {}  # by address
        self._shared: set[int] = set()

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An array of any contents; of a buffer of the same size if one is free."""
        count = prod(shape) * dtype.itemsize
        if count < SMALLEST_BYTES:
            return np.empty(shape, dtype)
        free = self._free.get(count)
        buffer = free.pop() if free else arrays.empty((count,), np.dtype(np.uint8))
        self._lent[arrays.address(buffer)] = buffer
        return buffer.view(dtype).reshape(shape)

    def give_back(self, array: Array) -> None:
        """The caller needs `array` no longer; nothing happens if it was not lent."""
        address = arrays.address(array)
        self._shared.discard(address)
        buffer = self._lent.pop(address, None)
        if buffer is not None:
            self._free.setdefault(buffer.nbytes, []).append(buffer)

    def owns(self, array: Array) -> bool:
        """Whether `array` fills a buffer that is lent and that nobody else reads."""
        address = arrays.address(array)
        buffer = self._lent.get(address)
        return buffer is not None and buffer.nbytes == array.nbytes and address not in self._shared

    def share(self, array: Array) -> None:
        """`array` is read by several: it must stay as it is until it comes back."""
        self._shared.add(arrays.address(array))

    def reset(self) -> None:
        """Everything that was lent is free again."""
        for buffer in self._lent.values():
            self._free.setdefault(buffer.nbytes, []).append(buffer)
        self._lent.clear()
        self._shared.clear()

    def clear(self) -> None:
        """Let the memory go."""
        self._free.clear()
        self._lent.clear()


_current: ContextVar[Arena | None] = ContextVar("fastconv_arena", default=None)


@contextmanager
def reusing(arena: Arena) -> Iterator[None]:
    """Within this block `empty` takes from the arena; all of it is free again at the end."""
    token = _current.set(arena)
    try:
        yield
    finally:
        _current.reset(token)
        arena.reset()


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """A C-contiguous array of any contents."""
    arena = _current.get()
    return arrays.empty(shape, dtype) if arena is None else arena.take(shape, dtype)


def give_back(array: Array) -> None:
    """The memory of `array` may be used again, if a training step lent it."""
    arena = _current.get()
    if arena is not None:
        arena.give_back(array)


def may_overwrite(array: Array) -> bool:
    """Whether `array` is a training step's own and may hold the next result."""
    arena = _current.get()
    return arena is not None and array.flags.c_contiguous and arena.owns(array)


def share(array: Array) -> None:
    """Several layers will read `array`: `may_overwrite` is False for it."""
    arena = _current.get()
    if arena is not None:
        arena.share(array)


def again(array: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Within a training step `array`, the result of the step before, if it fits; else a new one."""
    if array is None or _current.get() is None or array.shape != shape or array.dtype != dtype:
        return arrays.empty(shape, dtype)
    return array
