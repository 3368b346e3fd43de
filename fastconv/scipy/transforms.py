"""Convolution of large arrays with each other by one Fourier transform of all: where no kernel is small enough for
tiles.

SciPy's transforms, on several threads, where it is installed; NumPy's elsewhere.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

import numpy as np

from .._core.threads import effective
from .types import Array

PRODUCT: Final = 0.05  # nanoseconds of a multiply-add of plain sums in single precision
SAMPLE: Final = 2.5  # and of a sample in three transforms, for each doubling
CALL: Final = 200_000.0  # what they cost beside


def cheaper(outputs: int, taps: int, size: int, itemsize: int) -> bool:
    """Whether transforms of so many samples in all cost less than plain sums."""
    wide = itemsize / 4
    return CALL + SAMPLE * wide * size * size.bit_length() < PRODUCT * wide * taps * outputs


def convolved(x: Array, w: Array, axes: int, num_threads: int | None) -> Array:
    """All of the convolution along the last axes; those before them are broadcast. Floats, or complex numbers."""
    finite = [np.isfinite(a) for a in (x, w)]
    if all(one.all() for one in finite):
        return _transformed(x, w, axes, num_threads)
    if "c" in (x.dtype.kind, w.dtype.kind):  # by their parts, so that a NaN stays in its own
        (a, b), (c, d) = ((v.real, v.imag if v.dtype.kind == "c" else None) for v in (x, w))
        made = convolved(a, c, axes, num_threads).astype(np.result_type(x, w, np.complex64))
        for one, other, turn in ((b, d, -1), (a, d, 1j), (b, c, 1j)):
            if one is not None and other is not None:
                part = convolved(one, other, axes, num_threads)
                if turn == -1:
                    made.real -= part
                else:
                    made.imag += part
        return made
    return _special(x, w, finite, lambda one, other: _transformed(one, other, axes, num_threads))


def _special(x: Array, w: Array, finite: list[Array], run: Any) -> Array:
    """The sum of what is finite, and counts of the infinities of both signs and the NaN that each output meets."""

    def met(one: Array, other: Array) -> Array:
        counted: Array = run(one.astype(np.float64), other.astype(np.float64)) > 0.5
        return counted

    result: Array = run(np.where(finite[0], x, 0), np.where(finite[1], w, 0))
    plus = minus = lost = np.zeros(result.shape, bool)
    for one, other in ((x, w), (w, x)):
        flipped = other is x

        def both(a: Array, b: Array, turned: bool = flipped) -> Array:
            return met(b, a) if turned else met(a, b)

        up, down = one == np.inf, one == -np.inf
        plus = plus | both(up, other > 0) | both(down, other < 0)
        minus = minus | both(up, other < 0) | both(down, other > 0)
        lost = lost | both(np.isnan(one), np.ones(other.shape, bool)) | both(up | down, (other == 0) | np.isnan(other))
    result[plus] = np.inf
    result[minus] = -np.inf
    result[(plus & minus) | lost] = np.nan
    return result


def _transformed(x: Array, w: Array, axes: int, num_threads: int | None) -> Array:
    places = tuple(range(-axes, 0))
    shape = [x.shape[a] + w.shape[a] - 1 for a in places]
    complex_numbers = "c" in (x.dtype.kind, w.dtype.kind)
    dtype = np.result_type(x, w)
    forward, back, options = _library(complex_numbers, num_threads)
    sizes = [_round(n) for n in shape]
    with np.errstate(all="ignore"):
        product = forward(x, sizes, axes=places, **options) * forward(w, sizes, axes=places, **options)
        made = back(product, sizes, axes=places, **options)
    inside: tuple[Any, ...] = (..., *(slice(n) for n in shape))
    result: Array = made[inside].astype(dtype, copy=False)
    return result


def _library(complex_numbers: bool, num_threads: int | None) -> Any:
    """A transform, its inverse, and what they are told."""
    names = ("fftn", "ifftn") if complex_numbers else ("rfftn", "irfftn")
    try:
        module: Any = import_module("scipy.fft")
    except ImportError:
        return (*(getattr(np.fft, name) for name in names), {})
    return (*(getattr(module, name) for name in names), {"workers": effective(num_threads)})


def _round(n: int) -> int:
    """The least number from n on that is made of twos, threes and fives."""
    best = 1 << max(0, n - 1).bit_length()
    fives = 1
    while fives < best:
        threes = fives
        while threes < best:
            whole = threes << max(0, -(-n // threes) - 1).bit_length()
            best = min(best, whole) if whole >= n else best
            threes *= 3
        fives *= 5
    return best
