"""Programs of convolutions whose padding holds a constant: those of blocks of the padded image (`constant`)."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from .constant import Cut, block_geometry, blocks, cut, padded_size
from .geometry import Geometry
from .methods.method import GradientProgram, Program, Told
from .operands import Array, Operands, Packed
from .types import COMPUTE, COMPUTE_DTYPES, FLOATS
from .words import Sizes


class PaddedProgram(Program):
    """A forward pass, block by block; `make` gives the program of a block. All take the same packed weights."""

    natively = False

    def __init__(self, g: Geometry, c: Cut, element: int, make: Callable[[Geometry], Program]) -> None:
        self.geometry, self.cut, self.element, self.make = g, c, element, make
        self.made = {c.outputs: make(block_geometry(g, *c))}
        self.first = self.made[c.outputs]

    def program(self, outputs: Sizes) -> Program:
        """Of a block of so many outputs: one at an edge has fewer."""
        if outputs not in self.made:
            self.made[outputs] = self.make(block_geometry(self.geometry, self.cut.images, outputs))
        return self.made[outputs]

    def pack(self, weight: Array) -> tuple[Packed, ...]:
        return self.first.pack(weight)

    @property
    def count(self) -> int:
        """Blocks of the planned batch."""
        g, c = self.geometry, self.cut
        return -(-g.batch // c.images) * prod(-(-n // own) for n, own in zip(g.output_size, c.outputs, strict=True))

    def run(
        self, x: Array, weight: Array, packed: tuple[Packed, ...] | None, bias: Array | None, residual: Array | None,
        out: Array, activation: int, channels_last: bool,
    ) -> None:  # fmt: skip
        a = Operands(x, weight, None, bias, residual, out, activation, channels_last).logical()
        if packed is None and self.count > 1:
            packed = self.pack(a.weight)
        lies_last = channels_last or (a.x.shape[1] > 1 and a.x.strides[1] == a.x.itemsize)
        for images, outputs, block in blocks(self.geometry, self.cut, a.x, lies_last):
            place = (images, slice(None), *outputs)
            self.program(tuple(part.stop - part.start for part in outputs)).run(
                block, a.weight, packed, bias, None if a.residual is None else a.residual[place], a.out[place],
                activation, False,
            )  # fmt: skip

    @property
    def block_bytes(self) -> int:
        """Of the copy."""
        g, c = self.geometry, self.cut
        return c.images * g.in_channels * prod(padded_size(g, c.outputs)) * self.element

    def need(self, prepared: bool) -> int:
        return self.first.need(prepared or self.count > 1) + self.block_bytes

    def told(self, channels_last: bool, prepared: bool) -> Told:
        told = self.first.told(channels_last, prepared or self.count > 1)
        return told._replace(
            workspace_bytes=told.workspace_bytes + self.block_bytes, multiplications=told.multiplications * self.count,
            remark="; ".join(filter(None, (told.remark, f"the padded image in {self.count} block(s)"))),
        )  # fmt: skip


class PaddedGradient:
    """The gradient of a weight, the sum over blocks in their order, in twice the precision where there are several."""

    def __init__(self, g: Geometry, element: int, make: Callable[[Geometry], GradientProgram]) -> None:
        self.geometry, self.make = g, make
        self.cut = cut(g, element)
        self.made: dict[tuple[int, Sizes], GradientProgram] = {}

    def program(self, images: int, outputs: Sizes) -> GradientProgram:
        """Of a block."""
        if (images, outputs) not in self.made:
            self.made[images, outputs] = self.make(block_geometry(self.geometry, images, outputs))
        return self.made[images, outputs]

    def run(self, x: Array, dy: Array, out: Array) -> None:
        """`out` (O, I/groups, *kernel) from arrays in the logical axis order."""
        part: Array = np.empty(out.shape, COMPUTE_DTYPES[COMPUTE[out.dtype]])
        total = np.zeros(out.shape, np.float64 if out.dtype in FLOATS else out.dtype)
        lies_last = x.shape[1] > 1 and x.strides[1] == x.itemsize
        with np.errstate(all="ignore"):
            for images, outputs, block in blocks(self.geometry, self.cut, x, lies_last):
                own = tuple(slot.stop - slot.start for slot in outputs)
                self.program(len(block), own).run(block, dy[(images, slice(None), *outputs)], part)
                total += part
            out[...] = total
