"""Direct convolution of bytes, which are multiplied four steps of the reduction at a time (kernels/integers.h).

The instruction takes inputs without a sign and weights with one. Inputs with a sign are packed 128 higher, and where
zero stands for another number than 0, padding holds that: both add the same to every sum of an output channel, a
multiple of the sum of its weights, which is taken off as part of the bias.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ... import _native
from ..arrays import in_vectors
from ..operands import Operands
from ..problem import Problem
from ..record import NamedTuple
from ..scales import BYTES
from ..types import STORAGE, DType
from . import direct
from .direct import DirectProgram
from .direct_native import native_program
from .method import Array, Packed, Sums

UINT8: Final = _native.COMPUTES["uint8"]
INT16: Final = _native.COMPUTES["int16"]
if TYPE_CHECKING:
    from ..quantised import Added, Requantise

DIRECTLY: Final = "bytes are multiplied directly"  # the reason of the choice
SIGN: Final = 128  # what makes int8 uint8


class Ends(NamedTuple):
    """What native code reads of how sums become bytes: a shift and a multiplier for each output channel, in memory that
    vectors may be read from, and the result's zero and limits."""

    shift: Array  # int32
    multiplier: Array  # float32
    zero: int
    low: int
    high: int
    wide: bool = False  # whether a sum times its multiplier may leave int32
    table: Array | None = None  # of uint8: what every byte of the result becomes
    added: Added | None = None  # how bytes of a residual are added to the result


class BytesProgram(DirectProgram):
    """Passes over bytes whose `zero` stands for 0, with int32 sums or, where `result` says so, bytes again.

    Weights are of int8 if `four` steps are multiplied at a time, else of int16. What the zero adds to the sums of a
    weight is `shifted` off its bias by whoever packs it.
    """

    merges = False
    method = direct.METHOD
    reason = DIRECTLY

    def __init__(self, p: Problem, four: bool, zero: int = 0, result: DType | None = None) -> None:
        s = Sums.of(p)._replace(products=UINT8 if four else INT16)
        signed = four and p.types.input == np.int8
        self.zero = zero + SIGN * signed
        self.result = result
        if self.zero and not s.mode:
            s = s._replace(mode=_native.FILL + self.zero)
        super().__init__(s, None if self.zero or result else p)

    def native_program(self, s: Sums) -> _native.Direct:
        """With bytes as the result."""
        return native_program(s, None if self.result is None else STORAGE[self.result])

    def takes(self, x: Array, out: Array) -> bool:
        """Whether these arrays (logical axis order) need no copies."""
        return True

    def shifted(self, weight: Array, bias: Array | None) -> Array:
        """The bias of a weight in logical order, 0 for none, less what the zero adds to every sum."""
        shift = in_vectors(0, len(weight), np.int32)
        if self.zero and weight.dtype == np.int8:
            _native.sum_bytes(weight, shift)
        elif self.zero:
            shift[:] = weight.reshape(len(weight), -1).sum(1, dtype=np.int32)
        shift *= np.int32(-self.zero)  # it may pass beyond int32 and come back
        if bias is not None:
            shift += bias
        return shift

    def prepared(
        self, weight: Array, bias: Array | None, how: Requantise | None, wide: bool
    ) -> tuple[tuple[Packed, ...], Any]:
        """A weight (logical axis order) packed, and what follows the sums, for `run` to hand on as the bias."""
        return self.pack(weight), self._ends(weight, bias, how, wide)

    def _ends(self, weight: Array, bias: Array | None, how: Requantise | None, wide: bool) -> Any:
        shift = self.shifted(weight, bias)
        if how is None:
            return shift
        multiplier = in_vectors(how.multiplier, len(weight), np.float32)
        return Ends(shift, multiplier, how.zero_point, how.low, how.high, wide)


class ExactBytes(BytesProgram):
    """The exact sums of a convolution of bytes."""

    def run(
        self, x: Array, weight: Array, packed: tuple[Packed, ...] | None, bias: Array | None, residual: Array | None,
        out: Array, activation: int, channels_last: bool,
    ) -> None:  # fmt: skip
        if self.zero:
            logical = Operands(x, weight, None, bias, residual, out, activation, channels_last).logical()
            bias = self.shifted(logical.weight, bias)
        super().run(x, weight, packed, bias, residual, out, activation, channels_last)


FEWEST_CHANNELS: Final = 3  # of a group: fewer would fill most of the four steps with zeros


def multiplies_four(channels: int, groups: int = 1) -> bool:
    """Whether the machine multiplies bytes four steps at a time (of a depthwise kernel four rows), and so many channels
    of a group are worth it."""
    if channels == 1 < groups:
        return _native.interleaves_rows()
    return channels >= FEWEST_CHANNELS and _native.computes(UINT8)


def exact_bytes(p: Problem) -> ExactBytes | None:
    """The program of a convolution of bytes that one instruction can multiply; None for other types and machines."""
    if (
        p.transposed
        or p.types.input not in BYTES
        or p.types.weight != np.int8
        or p.types.compute != np.int32
        or not multiplies_four(p.channels)
    ):
        return None
    return ExactBytes(p, True)
