"""Integer results are exact or refused: sums that could leave the range of their type are found before a write.

Sums wrap modulo 2^32 or 2^64 inside the kernels, so that an intermediate overflow does no harm: a result is right
exactly where the true value fits.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..errors import ConvError
from .types import DType

Array = NDArray[Any]

INT8: Final[DType] = np.dtype(np.int8)
UINT8: Final[DType] = np.dtype(np.uint8)
INT16: Final[DType] = np.dtype(np.int16)
INT32: Final[DType] = np.dtype(np.int32)


def largest(array: Array) -> int:
    """Largest magnitude in an integer array."""
    return max(abs(int(array.max())), abs(int(array.min()))) if array.size else 0


def fits_signed(name: str, array: Array) -> None:
    if array.dtype == np.uint64 and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise ConvError(
            f"{name} holds {int(array.max())}, above the largest int64 {np.iinfo(np.int64).max}: integer results are "
            "int64 and nothing wraps silently. Scale the values down or convert to float64."
        )


class Range:
    """The least and the largest value of an integer array, looked for when somebody asks."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self._ends: tuple[int, int] | None = None

    @property
    def ends(self) -> tuple[int, int]:
        """(least, largest)."""
        if self._ends is None:
            self._ends = (int(self.array.min()), int(self.array.max())) if self.array.size else (0, 0)
        return self._ends

    @property
    def largest(self) -> int:
        """Of the magnitudes."""
        low, high = self.ends
        return max(-low, high)

    @property
    def of_type(self) -> int:
        """What no magnitude of the element type exceeds."""
        return 1 << (8 * self.array.itemsize - (self.array.dtype.kind == "i"))

    def within(self, kind: DType) -> bool:
        """Whether an element type holds all values."""
        low, high = self.ends
        limits = np.iinfo(kind)
        return bool(limits.min <= low and high <= limits.max)

    def as_type(self, kind: DType) -> Array:
        """The values in an element type that holds them."""
        return self.array.astype(kind, copy=False)


def _integer_overflow(what: str, out: Array, x: Array, weight: Array) -> ConvError:
    return ConvError(
        f"{what} of {x.dtype} {x.shape} and {weight.dtype} {weight.shape} leaves the range of its {out.dtype} result; "
        "nothing wraps silently. Convert to a wider integer type or to float64."
    )


class Checked:
    """Runs an integer operation so that its result is exact or a `ConvError`, with `out` written only if exact."""

    def __init__(
        self, what: str, x_name: str, x: Array, w_name: str, w: Array, terms: int, extra: int, out: Array
    ) -> None:
        fits_signed(x_name, x)
        fits_signed(w_name, w)
        self.what, self.x, self.w, self.out = what, x, w, out
        self.terms, self.extra, self._ranges = terms, extra, (Range(x), Range(w))
        self.certain = self._cannot_leave(out.dtype)
        self.certain_wide = self.certain or self._cannot_leave(np.dtype(np.int64))

    def _cannot_leave(self, kind: DType) -> bool:
        """Whether an element type holds every sum for certain: by the operands' own if possible, else by their largest
        values."""
        limit, (x, w) = int(np.iinfo(kind).max), self._ranges
        if x.of_type * w.of_type * self.terms + self.extra <= limit:
            return True
        return x.largest * w.largest * self.terms + self.extra <= limit

    def narrow(self, four: bool) -> tuple[Array, Array] | None:
        """The operands in 8 or 16 bits, if these hold them and int32 the sums: kernels multiply such several at a time.

        `four`: bytes are multiplied four at a time.
        """
        x, w = self._ranges
        if x.array.itemsize == w.array.itemsize == 1:
            if not (four and w.array.dtype == np.uint8 and w.within(INT8) and self._cannot_leave(INT32)):
                return None
            return x.array, w.as_type(INT8)
        if not (x.within(INT16) and w.within(INT16) and self._cannot_leave(INT32)):
            return None
        kind = next((kind for kind in (UINT8, INT8) if x.within(kind)), None)
        if four and kind is not None and w.within(INT8):
            return x.as_type(kind), w.as_type(INT8)
        return x.as_type(INT16), w.as_type(INT16)


def run_checked(check: Checked, run: Any, run_float: Any) -> None:
    """`run(out)` computes in out's own type; `run_float(x, w, out)` is the same operation in float64."""
    if check.certain:
        run(check.out)
        return
    if not check.certain_wide:
        # int64 sums wrap modulo 2^64: they are right exactly where the true value fits, which float64 decides
        x, w = check.x.astype(np.float64), check.w.astype(np.float64)
        value, magnitude = np.empty(check.out.shape), np.empty(check.out.shape)
        run_float(x, w, value)
        run_float(np.abs(x), np.abs(w), magnitude)
        # bias and residual, of any sign, are in both
        error = (check.terms + 4) * 2.0**-52 * (magnitude + 2.0 * check.extra)
        if np.any(np.abs(value) + error >= 2.0**63):
            raise _integer_overflow(check.what, check.out, check.x, check.w)
    wide = np.empty(check.out.shape, np.int64)
    run(wide)
    limits = np.iinfo(check.out.dtype)
    if wide.size and (wide.max() > limits.max or wide.min() < limits.min):
        raise _integer_overflow(check.what, check.out, check.x, check.w)
    check.out[...] = wide
