"""Resize and Upsample: every axis by itself, as a weighted sum of the pixels that each result looks at.

Where a result lies in the input is a fraction, exactly: it decides which pixel is the nearest, and rounding would move
it where it is a whole number or just between two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from math import ceil, floor, isfinite, lcm
from typing import Any, Final

import numpy as np

from ..._core.arrays import Array
from ..._core.steps import TYPES
from .blending import blended
from .moving import along, filled, moved, runs
from .registry import Call, operator

HALF: Final = Fraction(1, 2)
LONGEST: Final = 1 << 40
POLICIES: Final = ("stretch", "not_larger", "not_smaller")
ROUNDINGS: Final = 1e-9  # what float64 may lack of a whole number; places that real sizes make are further apart
EXACT: Final = 1 << 61  # below this numerators are int64


@dataclass(frozen=True)
class Axis:
    """What one axis becomes: `length` pixels, `scale` times as many, of the part `start` to `end` where cropped."""

    size: int
    length: int
    scale: Fraction
    start: Fraction = Fraction(0)
    end: Fraction = Fraction(1)


Line = tuple[Fraction, Fraction]  # the place of the first result, and the step to the next


def _half_pixel(a: Axis) -> Line:
    return HALF / a.scale - HALF, 1 / a.scale


def _symmetric(a: Axis) -> Line:
    adjustment = a.length / (a.scale * a.size)
    first, step = _half_pixel(a)
    return first + a.size * HALF * (1 - adjustment), step


def _corners(a: Axis) -> Line:
    last = a.scale * a.size - 1  # not rounded, as the specification's reference has it
    return Fraction(0), (a.size - 1) / last if last > 0 else Fraction(0)


def _cropped(a: Axis) -> Line:
    if a.length > 1:
        return a.start * (a.size - 1), (a.end - a.start) * (a.size - 1) / (a.length - 1)
    return HALF * (a.start + a.end) * (a.size - 1), Fraction(0)


# Where in the input the results lie.
COORDINATES: Final[dict[str, Callable[[Axis], Line]]] = {
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _symmetric,
    "pytorch_half_pixel": lambda a: _half_pixel(a) if a.length > 1 else (Fraction(0), Fraction(0)),
    "align_corners": _corners,
    "asymmetric": lambda a: (Fraction(0), 1 / a.scale),
    "tf_half_pixel_for_nn": lambda a: (HALF / a.scale, 1 / a.scale),
    "tf_crop_and_resize": _cropped,
}


class Places:
    """Where results lie, as whole numerators over one denominator."""

    def __init__(self, line: Line, length: int) -> None:
        self.denominator = lcm(*(part.denominator for part in line))
        first, step = (int(part * self.denominator) for part in line)
        largest = 2 * (abs(first) + abs(step) * length + self.denominator)
        count = np.arange(length, dtype=np.int64 if largest < EXACT else object)
        self.numerators = first + step * count

    def floor(self) -> Array:
        """The pixels before the places."""
        return _integers(self.numerators // self.denominator)

    def fraction(self) -> Array:
        """How far behind those pixels, 0 to 1."""
        rest: Array = (self.numerators % self.denominator).astype(np.float64) / float(self.denominator)
        return rest

    def outside(self, size: int) -> Array:
        """Which lie before the first pixel or behind the last."""
        found: Array = (self.numerators < 0) | (self.numerators > (size - 1) * self.denominator)
        return found.astype(bool)


def _integers(array: Array) -> Array:
    """Python's integers, too, as int64: no pixel is so far away that the sides do not say as much."""
    return np.clip(array, -(1 << 62), 1 << 62).astype(np.int64)


# The pixel nearest to n / d.
ROUNDING: Final[dict[str, Callable[[Any, int], Any]]] = {
    "round_prefer_floor": lambda n, d: -((d - 2 * n) // (2 * d)),
    "round_prefer_ceil": lambda n, d: (2 * n + d) // (2 * d),
    "floor": lambda n, d: n // d,
    "ceil": lambda n, d: -(-n // d),
}


def _cubic(distance: Array, a: float) -> Array:
    """Keys' kernel (1981)."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((d - 5) * d + 8) * d * a - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def taps(call: Call, axis: Axis, mode: str, places: Places, nearest: str) -> tuple[Array, Array | None]:
    """For every result the pixels (length, count) that it looks at, and their weights; None where it is one pixel."""
    if mode == "nearest":
        rounding = ROUNDING.get(nearest)
        if rounding is None:
            raise call.error(f"nearest_mode {nearest!r} is none of {', '.join(ROUNDING)}.")
        pixels = _integers(rounding(places.numerators, places.denominator))
        return np.clip(pixels, 0, axis.size - 1)[:, None], None
    stretch = min(axis.scale, Fraction(1)) if call.get("antialias", 0) else Fraction(1)
    reach = (1 if mode == "linear" else 2) / stretch
    offsets = np.arange(floor(-reach) + 1, ceil(reach) + 1)
    call.check((axis.length, len(offsets)), np.float64)
    pixels = places.floor()[:, None] + offsets
    distance = (offsets - places.fraction()[:, None]) * float(stretch)
    if mode == "linear":
        weights = np.maximum(1 - np.abs(distance), 0.0)
    else:
        weights = _cubic(distance, call.get("cubic_coeff_a", -0.75))
    if call.get("exclude_outside", 0):
        weights = np.where((pixels >= 0) & (pixels < axis.size), weights, 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.clip(pixels, 0, axis.size - 1), weights


def interpolated(call: Call, x: Array, axes: dict[int, Axis], mode: str, coordinates: str, nearest: str) -> Array:
    """The input with some axes resized; `nearest` says how a place is rounded in that mode."""
    if mode not in ("nearest", "linear", "cubic"):
        raise call.error(f"mode {mode!r} is none of nearest, linear and cubic.")
    if coordinates not in COORDINATES:
        raise call.error(f"coordinate_transformation_mode {coordinates!r} is none of {', '.join(COORDINATES)}.")
    shape = list(x.shape)
    for at, axis in axes.items():
        shape[at] = axis.length
    call.check(shape, x.dtype)
    changed = {}
    for at, axis in axes.items():
        if axis.length == axis.size and axis.scale == 1 and coordinates != "tf_crop_and_resize":
            continue
        if not axis.size:
            raise call.error(f"an input of shape {x.shape} has nothing to interpolate.")
        kept = call.state.get(("axis", at))
        if kept is None or kept[0] != axis:
            places = Places(COORDINATES[coordinates](axis), axis.length)
            kept = (axis, _used(*taps(call, axis, mode, places, nearest), x.dtype), places.outside(axis.size))
            call.state["axis", at] = kept
        changed[at] = kept
    if not changed:
        return x
    y, native = _resampled(call, x, {at: kept[1] for at, kept in changed.items()}, shape)
    if coordinates == "tf_crop_and_resize":
        value = call.get("extrapolation_value", 0.0)
        native &= _extrapolated(call, y, {at: kept[2] for at, kept in changed.items()}, value)
    if native and call.settled():
        call.natively()
    return y


def _used(pixels: Array, weights: Array | None, kind: np.dtype[Any]) -> tuple[Array, Array | None]:
    """Without the taps that weigh nothing in any result; weights in the type in which they are applied."""
    if weights is None:
        return pixels, None
    used = np.any(weights, axis=0)
    used[0] |= not used.any()
    kept = weights[:, used].astype(np.float32 if kind == np.float32 else np.float64)
    return np.ascontiguousarray(pixels[:, used]), np.ascontiguousarray(kept)


def _resampled(
    call: Call, x: Array, axes: dict[int, tuple[Array, Array | None]], shape: Sequence[int]
) -> tuple[Array, bool]:
    """x with some axes resized, a result of its own; whether natively."""
    weighed = {at: (pixels, weights) for at, (pixels, weights) in axes.items() if weights is not None}
    if not weighed:
        out = call.result_like(x, shape)
        return out, moved(call, out, x, tuple(axes[at][0][:, 0] if at in axes else None for at in range(x.ndim)))
    if x.dtype in TYPES:
        return blended(call, x, weighed)
    y = x
    for at, (pixels, weights) in weighed.items():
        behind = (-1, *(1,) * (x.ndim - 1 - at))
        parts = (np.take(y, pixels[:, tap], at) * weights[:, tap].reshape(behind) for tap in range(pixels.shape[1]))
        y = reduce(np.add, parts)
    return limited(y, x.dtype), False


def _extrapolated(call: Call, y: Array, outside: dict[int, Array], value: Any) -> bool:
    """y = a number wherever an axis is outside; whether natively."""
    native = True
    for at, beyond in outside.items():
        for _, count, place, _ in runs(np.flatnonzero(beyond)):
            native &= filled(call, along(y, at, place, count, 1), value)
    return native


def limited(y: Array, kind: np.dtype[Any]) -> Array:
    """Weighted sums in the input's type: integers without a fraction, at their limits where cubic overshoots."""
    if y.dtype != kind and kind.kind in "iu":
        limits = np.iinfo(kind)
        y = np.clip(y + np.copysign(ROUNDINGS, y), limits.min, limits.max)
    return y.astype(kind, copy=False)


@operator("Resize", since=11, shaping=(1, 2, 3))
def resize(
    call: Call, x: Array, roi: Array | None = None, scales: Array | None = None, sizes: Array | None = None
) -> Array:
    """To other lengths, by factors or sizes."""
    asked = call.get("axes")
    chosen = list(range(x.ndim)) if asked is None else [call.from_front(axis, x.ndim) for axis in asked]
    coordinates = call.get("coordinate_transformation_mode", "half_pixel")
    given = scales if scales is not None and scales.size else sizes
    if given is None or given.size != len(chosen):
        raise call.error(f"scales or sizes must give {len(chosen)} numbers, one for every axis of shape {x.shape}.")
    regions = [Fraction(0)] * len(chosen) + [Fraction(1)] * len(chosen)
    if coordinates == "tf_crop_and_resize" and roi is not None and roi.size == 2 * len(chosen):
        regions = [_exact(call, edge) for edge in roi.ravel()]
    starts, ends = regions[: len(chosen)], regions[len(chosen) :]
    old = [x.shape[axis] for axis in chosen]
    if given is scales:
        factors = [_exact(call, factor) for factor in given.ravel()]
        parts = [end - start for start, end in zip(starts, ends, strict=True)]
        lengths = [floor(size * part * factor) for size, part, factor in zip(old, parts, factors, strict=True)]
    else:
        lengths = [int(length) for length in given.ravel()]
        factors = [Fraction(length, max(1, size)) for size, length in zip(old, lengths, strict=True)]
        policy = call.get("keep_aspect_ratio_policy", "stretch")
        if policy not in POLICIES:
            raise call.error(f"keep_aspect_ratio_policy {policy!r} is none of {', '.join(POLICIES)}.")
        if policy != "stretch":
            factors = [(min if policy == "not_larger" else max)(factors)] * len(chosen)
            lengths = [floor(factor * size + HALF) for factor, size in zip(factors, old, strict=True)]
    if any(factor <= 0 for factor in factors) or any(not 0 <= length < LONGEST for length in lengths):
        raise call.error(f"{given.ravel().tolist()} do not resize an input of shape {x.shape}.")
    axes = {
        axis: Axis(*about) for axis, *about in zip(chosen, old, lengths, factors, starts, ends, strict=True)
    }  # fmt: skip
    nearest = call.get("nearest_mode", "round_prefer_floor")
    return interpolated(call, x, axes, call.get("mode", "nearest"), coordinates, nearest)


def _exact(call: Call, number: Any) -> Fraction:
    """A scale or an edge as the number that it is."""
    value = float(number)
    if not isfinite(value):
        raise call.error(f"{value} is no scale.")
    return Fraction(value)


@operator("Upsample", shaping=(1,))
@operator("Resize", since=10, shaping=(1,))
def upsample(call: Call, x: Array, scales: Array | None = None) -> Array:
    """By factors; the pixel at i / factor, rounded down, or the two about it."""
    given = call.get("scales") if scales is None else scales.ravel().tolist()
    if given is None and call.get("height_scale") is not None:  # operator set 1
        given = [1.0, 1.0, call.get("height_scale"), call.get("width_scale", 1.0)]
    if given is None or len(given) != x.ndim:
        raise call.error(f"scales {given} do not fit an input of shape {x.shape}.")
    factors = [_exact(call, factor) for factor in given]
    lengths = [floor(size * factor) for size, factor in zip(x.shape, factors, strict=True)]
    if any(factor <= 0 for factor in factors) or any(length >= LONGEST for length in lengths):
        raise call.error(f"scales {given} do not fit an input of shape {x.shape}.")
    axes = {at: Axis(*about) for at, about in enumerate(zip(x.shape, lengths, factors, strict=True))}
    mode = str(call.get("mode", "nearest")).replace("bilinear", "linear")
    return interpolated(call, x, axes, mode, "asymmetric", "floor")
