"""Winograd along the rows of an image, for first layers: seven columns at stride 2 (drivers/winograd_rows.pxi)."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, ClassVar

import numpy as np

from ... import _native
from .. import special
from ..record import NamedTuple
from ..types import STORAGE, codes
from .method import (
    Array,
    Bound,
    Direction,
    GradientProgram,
    Offer,
    Operands,
    Packed,
    Problem,
    Program,
    Told,
    Triple,
    aligned_bytes,
    bent,
    float32_alone,
    most_tiles,
    packed_bytes,
    panels,
    sums_too_long,
    two_axes,
)

# Products for a tile, columns of the kernel, their stride, and outputs of a tile: of a row.
ELEMENTS, TAPS, STRIDE, TILE = _native.ROWS_ELEMENTS, _native.ROWS_TAPS, _native.ROWS_STRIDE, _native.ROWS_TILE
CHANNELS = 4  # at most
ROUNDINGS = 32  # of the transforms
# F(4, 4) on points 0, 1, -1, 2, -2, 1/2, infinity for the even columns of a kernel, F(4, 3) for the odd.
EVEN = np.array([[p**k for k in range(4)] for p in (0, 1, -1, 2, -2, 0.5)] + [[0, 0, 0, 1]])
ODD = np.array([[p**k for k in range(3)] for p in (0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))] + [[0, 0, 1]])
LOST, ADDED = 8, 2.0**-120  # as of Winograd in tiles
MOST_EXAMPLE_VALUES = 100_000  # outputs of a generated problem


class Tuned:
    """The method's numbers (`tuning`)."""

    outputs: int = 16  # from which on it pays
    size: int = 24  # outputs a row, likewise
    rows: int = 7  # of a block


class Blocking(NamedTuple):
    """Loop sizes of the driver."""

    rows: int  # of a block


@lru_cache(maxsize=256)
def blocking(p: Problem) -> Blocking:
    """Loop sizes."""
    m, q = p.machine, p.passes[0]
    most = min(m.tuning.of("winograd along rows", Tuned).rows, max(1, p.size[1]))
    return Blocking(most_tiles(p, most, lambda rows: _native.winograd_rows_scratch_bytes(
        m.compute, p.channels, q.counts[1], q.stride[1], p.size[2], rows
    )))  # fmt: skip


class WinogradRows:
    """The method: by itself for plans."""

    word, title, variants = "winograd", "Winograd along rows", ("rows",)
    halves, rounds = "Winograd along rows transforms them once, and they are few", True
    former: ClassVar[dict[str, str]] = {"winograd_rows": "rows"}

    def why_not(self, p: Problem, variant: str | None = None) -> str | None:
        if why := float32_alone(p) or two_axes(p):
            return why
        if p.transposed or p.gradient_of_weight:
            return f"it has no {p.direction.value}"
        (q, *more), (_, rows, columns) = p.passes, p.passes[0].taps
        if more or columns != tuple(range(columns[0], columns[0] + TAPS)):
            return f"it is for the forward pass of kernels of {TAPS} columns that are not dilated"
        if rows != tuple(range(rows[0], rows[0] + len(rows))):
            return "the kernel is dilated"
        if q.stride[2] != STRIDE:
            return f"the stride along a row is {q.stride[2]}, not {STRIDE}"
        if p.groups != 1:
            return f"groups is {p.groups}, not 1"
        if p.padding_mode != "zeros":
            return f"padding_mode is {p.padding_mode!r}, not 'zeros'"
        if not 0 < p.channels <= CHANNELS or p.outputs == 0:
            return f"there are {p.channels} channels, not 1 to {CHANNELS}"
        return None

    def offer(self, p: Problem) -> Offer:
        pays, (_, rows, columns) = p.machine.tuning.of("winograd along rows", Tuned), p.passes[0].counts
        if not p.held:
            return Offer("rows", False, f"it is for plans, and this is a {p.use.value}")
        if why := sums_too_long(p):
            return Offer("rows", False, why)
        if p.outputs < pays.outputs or p.size[2] < pays.size or rows != columns:
            return Offer("rows", False, (
                f"too small for Winograd along rows, which pays for square kernels from {pays.outputs} output channels "
                f"and {pays.size} outputs a row on"
            ))  # fmt: skip
        return Offer("rows", True, (
            "7 columns at stride 2 in float32, few channels: 13 multiplications for 4 outputs of a row instead of 28"
        ))  # fmt: skip

    def program(self, p: Problem, variant: str) -> Program:
        return WinogradRowsProgram(p)

    def gradient_program(self, p: Problem, variant: str) -> GradientProgram:
        raise NotImplementedError("Winograd along rows has no weight gradient")

    def grain(self, p: Problem, variant: str) -> Triple:
        return 1, 1, TILE

    def bound(self, p: Problem, variant: str) -> Bound:
        """Summed: channels times rows of the kernel."""
        roundings = p.channels * p.passes[0].counts[1] + ROUNDINGS
        return Bound(roundings, "plane", LOST * roundings, ADDED)

    def example(self, case: Any, variant: str, direction: Direction) -> Any:
        """A kernel of seven columns at stride 2 and few channels."""
        if case.axes != 2 or direction is not Direction.FORWARD:
            return None
        channels, size = 1 + case.index % 4, (max(case.size[0], 11), max(case.size[1], 13))
        if not 0 < case.out_channels * prod(size) * (1 if case.batch is None else case.batch) < MOST_EXAMPLE_VALUES:
            return None
        return bent(
            case, kernel=(1 + case.index % 7, TAPS), stride=(1 + case.index % 3, STRIDE), dilation=1, groups=1,
            size=size, in_channels=channels, padding_mode="zeros", dtypes=("float32", "float32"), large=False,
        )  # fmt: skip


class WinogradRowsProgram(Program):
    """A pass whose weights are transformed before it runs."""

    def __init__(self, p: Problem) -> None:
        self.problem = p
        (self.pass_,) = p.passes
        self.native = _native.WinogradRows(codes(p.types), p, self.pass_, blocking(p))

    def pack(self, weight: Array) -> tuple[Packed, ...]:
        packed = panels(self.problem, self.pass_, weight)
        return (packed._replace(transformed=self._transformed(weight)) if packed.finite else packed,)

    def _transformed(self, weight: Array) -> Array:
        """The packed weights of the elements, one after the other; transformed in float64."""
        p, (_, rows, columns) = self.problem, self.pass_.places
        w = weight.reshape(*weight.shape[:2], *weight.shape[-2:])[:, :, rows][..., columns].astype(np.float64)
        elements = np.concatenate([w[..., ::2] @ EVEN.T, w[..., 1::2] @ ODD.T], axis=3)
        with np.errstate(over="ignore"):  # an infinity is noticed in the outputs
            elements = elements.astype(np.float32)
        count = packed_bytes(p, len(rows))
        packed = aligned_bytes(ELEMENTS * count)
        team = p.machine.threads if packed.size > 1 << 16 else 1
        for e in range(ELEMENTS):
            one = np.ascontiguousarray(elements[..., e : e + 1])
            _native.pack_weights(
                p.machine.compute, one, STORAGE[one.dtype], packed[e * count : (e + 1) * count], 1, False,
                ((0,), tuple(range(len(rows))), (0,)), team,
            )  # fmt: skip
        return packed

    def run(
        self, x: Array, weight: Array, packed: tuple[Packed, ...] | None, bias: Array | None, residual: Array | None,
        out: Array, activation: int, channels_last: bool,
    ) -> None:  # fmt: skip
        a = Operands(x, weight, None, bias, residual, out, activation, channels_last)
        if packed is None:
            a = a.logical()
            packed = self.pack(a.weight)
        a = a._replace(packed=packed[0])
        special.run(self.problem, self.pass_, a, packed[0].transformed is not None and self.native)

    def need(self, prepared: bool) -> int:
        return int(self.native.scratch_bytes() * self.problem.machine.threads)

    def told(self, channels_last: bool, prepared: bool) -> Told:
        p, m, batch = self.problem, self.problem.machine, self.problem.geometry.batch
        (block,), scratch = blocking(p), self.native.scratch_bytes()
        tiles, (_, rows, columns) = -(-p.size[2] // TILE), self.pass_.counts
        packed = packed_bytes(p, rows * columns)
        return Told(
            tile=(1, TILE), block=f"{block} rows", register_tile=(m.rows, m.width),
            source=f"transformed rows of {ELEMENTS} pixels",
            workspace_bytes=scratch * _native.team_for(m.threads, batch * -(-p.size[1] // block), scratch),
            packed_weight_bytes=packed + packed // TAPS * ELEMENTS,
            multiplications=batch * p.size[1] * tiles * ELEMENTS * rows * p.channels * p.outputs, threads=m.threads,
        )  # fmt: skip


METHOD = WinogradRows()
