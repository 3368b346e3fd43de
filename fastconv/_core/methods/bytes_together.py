"""What methods share that read and write bytes whose channels lie side by side, and turn others so first."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import _native
from ..operands import Operands, Packed
from ..problem import Problem
from . import direct
from .direct_bytes import DIRECTLY, Ends
from .method import Array, Method, Program

if TYPE_CHECKING:
    from ..quantised import Requantise


class ChannelsTogether(Program):
    """On rows and columns; what becomes of the sums lies with the packed weights."""

    method: Method = direct.METHOD
    reason = DIRECTLY
    problem: Problem

    @abstractmethod
    def prepared(
        self, weight: Array, bias: Array | None, how: Requantise | None, wide: bool
    ) -> tuple[tuple[Packed, ...], Ends | None]:
        """The weights packed with what follows the sums, and how those become bytes."""

    @property
    @abstractmethod
    def kernel(self) -> _native.DepthwiseBytes | _native.WinogradBytes:
        """Native code that runs it."""

    def pack(self, weight: Array) -> tuple[Packed, ...]:
        """With shifts that take the zero off, and multipliers of 1."""
        return self.prepared(weight, None, None, False)[0]

    def run(
        self, x: Array, weight: Array, packed: tuple[Packed, ...] | None, bias: Array | None, residual: Array | None,
        out: Array, activation: int, channels_last: bool,
    ) -> None:  # fmt: skip
        assert packed is not None
        a = Operands(x, weight, None, None, None, out, activation, channels_last).logical()
        threads = self.problem.machine.threads
        lies, to = _turned(a.x), a.out
        if not _lies(to):
            to = _turned(np.empty(to.shape, to.dtype))
        self.kernel.run(lies, weight, packed[0], bias, None, to, activation, False, threads)
        if to is not a.out:
            a.out[...] = to

    def takes(self, x: Array, out: Array) -> bool:
        """Whether these arrays (logical axis order) need no copies."""
        return _lies(x) and _lies(out)


def without_depth(p: Problem) -> bool:
    """Whether rows and columns are all the axes there are, or the others of length 1."""
    g = p.geometry
    return (g.input_size[0], g.kernel_size[0], g.output_size[0], g.padding[0]) == (1, 1, 1, (0, 0))


def ends_of(how: Requantise) -> Ends:
    """Zero and limits of a result whose shifts and multipliers lie elsewhere."""
    none: Any = np.zeros(0, np.int32)
    return Ends(none, none, how.zero_point, how.low, how.high)


def _lies(array: Array) -> bool:
    """Whether channels lie side by side."""
    return array.strides[1] == array.itemsize


def _turned(array: Array) -> Array:
    """The array, or a copy in which channels lie side by side."""
    if _lies(array):
        return array
    order = (0, *range(2, array.ndim), 1)
    copy = np.ascontiguousarray(array.transpose(order))
    return copy.transpose(0, array.ndim - 1, *range(1, array.ndim - 1))
