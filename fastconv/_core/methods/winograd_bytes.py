"""Winograd's F(2x2, 3x3) on bytes that become bytes again (drivers/winograd_bytes.pxi), for those who ask for it.

Lavin and Gray, arXiv 1509.09308, with the transforms quantised as in LoWino (ACM TACO 2024). Inputs lose two bits in
the transform, transformed weights are quantised again: the result is near that of the exact sums, 1.3 to 1.5 times as
far from the floats as quantising is anyway (docs/quantised.md).
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Final

import numpy as np

from ... import _native
from ..operands import Packed, aligned_bytes
from ..problem import Problem
from ..types import STORAGE, Codes, DType
from . import winograd
from .bytes_together import ChannelsTogether, ends_of, without_depth
from .direct_bytes import SIGN, UINT8, Ends
from .estimates import MARGIN, NEAR, READ, whole_vectors
from .method import Array, Told

if TYPE_CHECKING:
    from ..quantised import Requantise

G: Final = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]], np.float32) / 2
ELEMENTS: Final = 16
SUM: Final = 5  # element (1, 1), the sum of four inputs
ROUNDED: Final = 0.125  # what rounding to quarters adds on the average; where others are taken off, takes off
LARGEST: Final = 127
MOST: Final = 4096  # channels: the sum of nine products stays in int32
A_TILE: Final = 300  # what an input and an output channel of it take beside, in multiply-adds of bytes (Zen 4)
BESIDE: Final = 32  # channels that are transformed together


def winograd_bytes(p: Problem, four: bool, zero: int, result: DType | None) -> WinogradBytes | None:
    """The program of a problem that it can compute, and faster than the direct kernels; None for others."""
    g = p.geometry
    fits = without_depth(p) and g.kernel_size[1:] == (3, 3) and g.stride[1:] == g.dilation[1:] == (1, 1)
    if result is None or p.transposed or p.mode or p.groups > 1 or p.channels > MOST or not (four and fits and pays(p)):
        return None
    return WinogradBytes(p, zero, result)


def pays(p: Problem) -> bool:
    """Whether its products and what surrounds them take less than direct sums, in multiply-adds of whole vectors."""
    steps, outputs = -(-p.channels // 4) * 4, whole_vectors(p.outputs)
    rows, columns = p.geometry.output_size[1:]
    tiles = -(-rows // 2) * -(-columns // 2)
    around = A_TILE * (-(-p.channels // BESIDE) * BESIDE + outputs)
    weights = READ * p.channels * p.outputs if ELEMENTS * p.channels * p.outputs > NEAR else 0
    fast = tiles * (ELEMENTS * steps * outputs + around) + weights * ELEMENTS
    return MARGIN * fast < 9 * (rows * columns * steps * outputs + weights)


class WinogradBytes(ChannelsTogether):
    """On rows and columns, channels last; factors and shifts lie with the packed weights."""

    method = winograd.METHOD
    reason = "asked for results near those of the exact sums"

    def __init__(self, p: Problem, zero: int, result: DType) -> None:
        self.problem = p
        signed = p.types.input == np.int8
        self.zero = zero + SIGN * signed
        codes = Codes(UINT8, STORAGE[p.types.input], STORAGE[p.types.weight], STORAGE[result])
        padding = p.geometry.padding
        self.native = _native.WinogradBytes(codes, (padding[1][0], padding[2][0]), zero & 0xFF)

    def prepared(
        self, weight: Array, bias: Array | None, how: Requantise | None, wide: bool
    ) -> tuple[tuple[Packed, ...], Ends | None]:
        """The weights (O, C, [1,] 3, 3) with what follows the products, and how those become bytes."""
        outputs, channels = weight.shape[:2]
        u = weight.reshape(outputs, channels, 9).astype(np.float32) @ np.kron(G, G).T  # G taps G^T, of all at once
        # One scale an output for all elements, so that the transform back adds integers: the elements of random weights
        # reach about as far as each other.
        scale = np.abs(u).max((1, 2)) / np.float32(LARGEST)
        scale[scale == 0] = 1
        u = np.rint(u / scale[:, None, None]).astype(np.int8)
        factor = 4 * scale
        offset = np.full(ELEMENTS, SIGN - ROUNDED)
        offset[SUM] = self.zero + ROUNDED
        shift = -offset * u.sum(1, dtype=np.int64)
        if bias is not None:
            shift[:, SUM] += bias / factor.astype(np.float64)  # it is in every output once
        if how is not None:
            factor *= how.multiplier
        width = prod(_native.tile_shape(UINT8)[1:3])
        pieces = [
            self._panel(u[first : first + width], factor[first : first + width], np.rint(shift[first : first + width]))
            for first in range(0, outputs, width)
        ]
        packed = aligned_bytes(sum(map(len, pieces)))
        np.concatenate(pieces, out=packed)
        return (Packed(packed, True),), None if how is None else ends_of(how)

    def _panel(self, u: Array, factor: Array, shift: Array) -> Array:
        """A panel of outputs: factors, shifts, weights of four steps side by side."""
        outputs, channels = u.shape[:2]
        steps = -(-channels // 4) * 4
        panel = np.zeros(self.native.panel_bytes(channels, outputs), np.uint8)
        width = len(panel) // (4 + ELEMENTS * (4 + steps))
        numbers, begin = panel.view(np.int32), (1 + ELEMENTS) * width
        numbers[:outputs] = factor.view(np.int32)
        numbers[width:begin].reshape(ELEMENTS, width)[:, :outputs] = shift.T
        weights = panel[4 * begin :].view(np.int8).reshape(ELEMENTS, steps // 4, width, 4)
        padded = np.zeros((outputs, steps, ELEMENTS), np.int8)
        padded[:, :channels] = u
        weights[:, :, :outputs] = padded.reshape(outputs, steps // 4, 4, ELEMENTS).transpose(3, 1, 0, 2)
        return panel

    @property
    def kernel(self) -> _native.WinogradBytes:
        return self.native

    def told(self, channels_last: bool, prepared: bool) -> Told:
        p = self.problem
        lanes, vectors, rows = _native.tile_shape(UINT8)[1:]
        tiles = p.geometry.batch * prod(-(-n // 2) for n in p.geometry.output_size[1:])
        widths = [min(lanes * vectors, p.outputs - first) for first in range(0, p.outputs, lanes * vectors)]
        return Told(
            tile=(1, 2, 2), block="24 tiles, whole panels", register_tile=(rows, lanes * vectors),
            source="tiles" if channels_last else "tiles of a copy, channels last",
            workspace_bytes=self.need(prepared),
            packed_weight_bytes=sum(self.native.panel_bytes(p.channels, width) for width in widths),
            multiplications=ELEMENTS * tiles * p.channels * p.outputs,
            threads=_native.threads_for(p.macs, p.machine.threads),
        )  # fmt: skip

    def need(self, prepared: bool) -> int:
        return self.native.scratch_bytes(self.problem.channels) * self.problem.machine.threads
