"""Integer results are exact or refused: sums that could leave the range of their type are found before a write.

Sums wrap modulo 2^32 or 2^64 inside the kernels, so that an intermediate overflow does no harm: a result is right
exactly where the true value fits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConvError

Array = NDArray[Any]


def largest(array: Array) -> int:
    """Largest magnitude in an integer array."""
    return max(abs(int(array.max())), abs(int(array.min()))) if array.size else 0


def fits_signed(name: str, array: Array) -> None:
    if array.dtype == np.uint64 and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise ConvError(
            f"{name} holds {int(array.max())}, above the largest int64 {np.iinfo(np.int64).max}: integer results are "
            "int64 and nothing wraps silently. Scale the values down or convert to float64."
        )


def _cannot_leave(limit: int, x: Array, weight: Array, terms: int, extra: int) -> bool:
    """Whether |sum| <= limit is certain: by the element types alone if possible, else by the largest values."""
    by_dtype = (
        (1 << (8 * x.itemsize))
        * (1 << (8 * weight.itemsize))
        * terms
        // ((1 if x.dtype.kind == "u" else 2) * (1 if weight.dtype.kind == "u" else 2))
    )
    if by_dtype + extra <= limit:
        return True
    return largest(x) * largest(weight) * terms + extra <= limit


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
        self.certain = _cannot_leave(int(np.iinfo(out.dtype).max), x, w, terms, extra)
        self.certain_wide = self.certain or _cannot_leave(int(np.iinfo(np.int64).max), x, w, terms, extra)
        self.terms = terms


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
        error = (check.terms + 4) * 2.0**-52 * magnitude
        if np.any(np.abs(value) + error >= 2.0**63):
            raise _integer_overflow(check.what, check.out, check.x, check.w)
    wide = np.empty(check.out.shape, np.int64)
    run(wide)
    limits = np.iinfo(check.out.dtype)
    if wide.size and (wide.max() > limits.max or wide.min() < limits.min):
        raise _integer_overflow(check.what, check.out, check.x, check.w)
    check.out[...] = wide
