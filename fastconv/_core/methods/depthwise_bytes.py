"""Depthwise convolution of bytes that become bytes again (drivers/bytes.pxi).

Rows of the kernel are multiplied four at a time where the machine can (kernels/depthwise_bytes.h).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ... import _native
from ..operands import Operands, Packed, aligned_bytes
from ..problem import Problem
from ..types import STORAGE, Codes, DType
from .direct_bytes import INT16, SIGN, UINT8, Ends
from .method import Array, Program, Told

if TYPE_CHECKING:
    from ..quantised import Requantise

BLOCK = 64  # channels that are computed together


def depthwise_bytes(p: Problem, four: bool, zero: int, result: DType | None) -> DepthwiseBytes | None:
    """The program of a problem that it can compute; None for others."""
    g = p.geometry
    flat = (g.input_size[0], g.kernel_size[0], g.output_size[0], g.padding[0]) == (1, 1, 1, (0, 0))
    if result is None or p.transposed or p.mode or not flat or not p.channels == p.outputs == 1 or p.groups < 2:
        return None
    return DepthwiseBytes(p, four, zero, result)


class DepthwiseBytes(Program):
    """On rows and columns, channels last; the multipliers and shifts lie with the packed weights."""

    def __init__(self, p: Problem, four: bool, zero: int, result: DType) -> None:
        g = p.geometry
        self.problem, self.four = p, four
        signed = p.types.input == np.int8
        self.zero = zero + SIGN * signed
        codes = Codes(UINT8 if four else INT16, STORAGE[p.types.input], STORAGE[p.types.weight], STORAGE[result])
        origin = (-g.padding[1][0], -g.padding[2][0])
        self.native = _native.DepthwiseBytes(
            codes, g.kernel_size[1:], g.stride[1:], g.dilation[1:], origin, self.zero, four
        )

    def pack(self, weight: Array) -> tuple[Packed, ...]:
        """With shifts that take the zero off, and multipliers of 1."""
        panels, _ = self.prepared(weight, None, None, False)
        return panels

    def prepared(
        self, weight: Array, bias: Array | None, how: Requantise | None, wide: bool
    ) -> tuple[tuple[Packed, ...], Ends | None]:
        """The weights (C, 1, [1,] rows, columns) with what follows the sums, and how those become bytes."""
        rows, columns = self.problem.geometry.kernel_size[1:]
        w = weight.reshape(len(weight), rows, columns).astype(np.int32)
        shift = w.sum((1, 2)) * np.int32(-self.zero)
        if bias is not None:
            shift = shift + bias
        multiplier = np.ones(len(w), np.float32)
        if how is not None:
            multiplier[:] = how.multiplier
        step = self.native.block_bytes()
        packed = aligned_bytes(step * -(-len(w) // BLOCK))
        packed[...] = 0
        for first in range(0, len(w), BLOCK):
            part = slice(first, first + BLOCK)
            block = packed[step * (first // BLOCK) :][:step]
            self._pack_block(block, w[part], shift[part], multiplier[part])
        none = np.zeros(0, np.int32)
        ends = None if how is None else Ends(none, none, how.zero_point, how.low, how.high)
        return (Packed(packed, True),), ends

    def _pack_block(self, block: Array, w: Array, shift: Array, multiplier: Array) -> None:
        """Shifts, multipliers, weights, in the order of the kernel's lanes."""
        count, rows, columns = w.shape
        width, order = _native.depthwise_order(count, self.four)
        whole = np.zeros((width, rows, columns), np.int32)
        whole[:count] = w
        numbers = np.zeros((2, width), np.int32)
        numbers[0, :count] = shift
        numbers[1, :count] = multiplier.view(np.int32)
        for i in range(2):
            block[4 * BLOCK * i :][: 4 * width].view(np.int32)[:] = numbers[i][order]
        to = block[8 * BLOCK :]
        if self.four:
            groups = -(-rows // 4)
            padded = np.zeros((width, 4 * groups, columns), np.int8)
            padded[:, :rows] = whole
            ordered = padded[order].reshape(width, groups, 4, columns).transpose(3, 1, 0, 2)
            to[: ordered.size].view(np.int8)[:] = ordered.ravel()
        else:
            lanes = whole.transpose(1, 2, 0).astype(np.int16)
            to[: 2 * lanes.size].view(np.int16)[:] = lanes.ravel()

    def run(
        self, x: Array, weight: Array, packed: tuple[Packed, ...] | None, bias: Array | None, residual: Array | None,
        out: Array, activation: int, channels_last: bool,
    ) -> None:  # fmt: skip
        assert packed is not None
        a = Operands(x, weight, None, None, None, out, activation, channels_last).logical()
        threads = self.problem.machine.threads
        lies, to = _channels_together(a.x), a.out
        if not _lies(to):
            to = _channels_together(np.empty(to.shape, to.dtype))
        self.native.run(lies, weight, packed[0], bias, None, to, activation, False, threads)
        if to is not a.out:
            a.out[...] = to

    def takes(self, x: Array, out: Array) -> bool:
        """Whether these arrays (logical axis order) need no copies."""
        return _lies(x) and _lies(out)

    def told(self, channels_last: bool, prepared: bool) -> Told:
        p = self.problem
        return Told(
            tile=(1, 4, 16), block=f"{'four rows' if self.four else 'one row'} of the kernel at a time",
            register_tile=(4, BLOCK), source="rows" if channels_last else "rows of a copy, channels last",
            workspace_bytes=self.need(prepared), packed_weight_bytes=self.native.block_bytes() * -(-p.groups // BLOCK),
            multiplications=p.macs, threads=_native.threads_for(p.macs, p.machine.threads),
        )  # fmt: skip

    def need(self, prepared: bool) -> int:
        return self.native.scratch_bytes() * self.problem.machine.threads


def _lies(array: Array) -> bool:
    """Whether channels lie side by side."""
    return array.strides[1] == array.itemsize


def _channels_together(array: Array) -> Array:
    """The array, or a copy in which channels lie side by side."""
    if _lies(array):
        return array
    order = (0, *range(2, array.ndim), 1)
    copy = np.ascontiguousarray(array.transpose(order))
    return copy.transpose(0, array.ndim - 1, *range(1, array.ndim - 1))
