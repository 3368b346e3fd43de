"""Depthwise convolution of bytes that become bytes again (drivers/bytes.pxi).

Rows of the kernel are multiplied four at a time where the machine can (kernels/depthwise_bytes.h).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ... import _native
from ..operands import Packed, aligned_bytes
from ..problem import Problem
from ..types import STORAGE, Codes, DType
from .bytes_together import ChannelsTogether, ends_of, without_depth
from .direct_bytes import INT16, SIGN, UINT8, Ends
from .method import Array, Told

if TYPE_CHECKING:
    from ..quantised import Requantise

BLOCK = 64  # channels that are computed together


def depthwise_bytes(p: Problem, four: bool, zero: int, result: DType | None) -> DepthwiseBytes | None:
    """The program of a problem that it can compute; None for others."""
    depthwise = p.channels == p.outputs == 1 < p.groups
    if result is None or p.transposed or p.mode or not (depthwise and without_depth(p)):
        return None
    return DepthwiseBytes(p, four, zero, result)


class DepthwiseBytes(ChannelsTogether):
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
        return (Packed(packed, True),), None if how is None else ends_of(how)

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

    @property
    def kernel(self) -> _native.DepthwiseBytes:
        return self.native

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
