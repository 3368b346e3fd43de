"""Resize and Upsample: every axis by itself, as a weighted sum of the pixels that each result looks at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ...arrays import Array
from .chain import copy
from .registry import Call, operator


@dataclass(frozen=True)
class Axis:
    """What one axis becomes: `length` pixels, `scale` times as many, of the part `start` to `end` where cropped."""

    size: int
    length: int
    scale: float
    start: float = 0.0
    end: float = 1.0


def _half_pixel(a: Axis, i: Array) -> Array:
    return (i + 0.5) / a.scale - 0.5


def _symmetric(a: Axis, i: Array) -> Array:
    adjustment = a.length / (a.scale * a.size)
    return a.size / 2 * (1 - adjustment) + _half_pixel(a, i)


def _corners(a: Axis, i: Array) -> Array:
    last = a.scale * a.size - 1  # not rounded, as the specification's reference has it
    return i * ((a.size - 1) / last) if last > 0 else np.zeros_like(i)


def _cropped(a: Axis, i: Array) -> Array:
    if a.length > 1:
        return a.start * (a.size - 1) + i * ((a.end - a.start) * (a.size - 1) / (a.length - 1))
    return np.full_like(i, 0.5 * (a.start + a.end) * (a.size - 1))


# Where in the input each result lies.
COORDINATES: Final[dict[str, Callable[[Axis, Array], Array]]] = {
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _symmetric,
    "pytorch_half_pixel": lambda a, i: _half_pixel(a, i) if a.length > 1 else np.zeros_like(i),
    "align_corners": _corners,
    "asymmetric": lambda a, i: i / a.scale,
    "tf_half_pixel_for_nn": lambda a, i: (i + 0.5) / a.scale,
    "tf_crop_and_resize": _cropped,
}
ROUNDING: Final[dict[str, Callable[[Array], Any]]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _cubic(distance: Array, a: float) -> Array:
    """Keys' kernel (1981)."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((d - 5) * d + 8) * d * a - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def taps(call: Call, axis: Axis, mode: str, places: Array, nearest: str) -> tuple[Array, Array | None]:
    """For every result the pixels (length, count) that it looks at, and their weights; None where it is one pixel."""
    if mode == "nearest":
        rounding = ROUNDING.get(nearest)
        if rounding is None:
            raise call.error(f"nearest_mode {nearest!r} is none of {', '.join(ROUNDING)}.")
        return np.clip(rounding(places), 0, axis.size - 1).astype(np.int64)[:, None], None
    stretch = min(axis.scale, 1.0) if call.get("antialias", 0) else 1.0
    reach = (1 if mode == "linear" else 2) / stretch
    base = np.floor(places).astype(np.int64)
    offsets = np.arange(int(np.floor(-reach)) + 1, int(np.ceil(reach)) + 1)
    call.check((axis.length, len(offsets)), np.float64)
    pixels = base[:, None] + offsets
    distance = (pixels - places[:, None]) * stretch
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
    y, outside = x, None
    for at, axis in axes.items():
        if axis.length == axis.size and axis.scale == 1.0 and coordinates != "tf_crop_and_resize":
            continue
        if not axis.size:
            raise call.error(f"an input of shape {x.shape} has nothing to interpolate.")
        places = COORDINATES[coordinates](axis, np.arange(axis.length, dtype=np.float64))
        pixels, weights = taps(call, axis, mode, places, nearest)
        y = _resampled(call, y, at, pixels, weights)
        if coordinates == "tf_crop_and_resize":
            beyond = ((places < 0) | (places > axis.size - 1)).reshape(-1, *(1,) * (x.ndim - 1 - at))
            outside = beyond if outside is None else outside | beyond
    if outside is not None and np.any(outside):
        y = np.where(outside, x.dtype.type(call.get("extrapolation_value", 0.0)), y)
    return y.astype(x.dtype, copy=False)


def _resampled(call: Call, x: Array, at: int, pixels: Array, weights: Array | None) -> Array:
    if weights is None:
        return _picked(call, x, at, pixels[:, 0])
    kind = x.dtype if x.dtype.kind == "f" and x.dtype.itemsize > 2 else np.dtype(np.float32)
    behind = (1,) * (x.ndim - 1 - at)
    if not len(pixels):
        return call.ordered_like(x, (*x.shape[:at], 0, *x.shape[at + 1 :]), kind)
    total: Array | None = None
    for tap in range(pixels.shape[1]):
        weight = weights[:, tap]
        if not np.any(weight):
            continue
        part = _picked(call, x, at, pixels[:, tap]) * weight.astype(kind).reshape(-1, *behind)
        total = part if total is None else np.add(total, part, out=total)
    assert total is not None
    return total


def _picked(call: Call, x: Array, at: int, pixels: Array) -> Array:
    """x along an axis at `pixels`; whole repetitions are copied by rows."""
    size = x.shape[at]
    factor = len(pixels) // size
    shape = (*x.shape[:at], len(pixels), *x.shape[at + 1 :])
    place = call.target(shape, x.dtype) if call.target is not None else None
    out = call.ordered_like(x, shape) if place is None else place
    if factor * size == len(pixels) and np.array_equal(pixels, np.repeat(np.arange(size), factor)):
        for repeat in range(factor):
            copy(out[(slice(None),) * at + (slice(repeat, None, factor),)], x, call.threads)
        return out
    out[...] = np.take(x, pixels, at)
    return out


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
    regions = [0.0] * len(chosen) + [1.0] * len(chosen)
    if coordinates == "tf_crop_and_resize" and roi is not None and roi.size == 2 * len(chosen):
        regions = [float(edge) for edge in roi.ravel()]
    if given is scales:
        factors = [float(factor) for factor in given.ravel()]
        lengths = [_length(call, x.shape[axis] * factor) for axis, factor in zip(chosen, factors, strict=True)]
        if coordinates == "tf_crop_and_resize":
            lengths = [
                _length(call, x.shape[axis] * (regions[place + len(chosen)] - regions[place]) * factors[place])
                for place, axis in enumerate(chosen)
            ]
    else:
        lengths = [int(length) for length in given.ravel()]
        policy = call.get("keep_aspect_ratio_policy", "stretch")
        factors = [length / max(1, x.shape[axis]) for axis, length in zip(chosen, lengths, strict=True)]
        if policy != "stretch":
            one = min(factors) if policy == "not_larger" else max(factors)
            factors = [one] * len(chosen)
            lengths = [_length(call, one * x.shape[axis] + 0.5) for axis in chosen]
    if any(factor <= 0 or not np.isfinite(factor) for factor in factors) or any(length < 0 for length in lengths):
        raise call.error(f"factors {factors} of an input of shape {x.shape} must be above 0.")
    axes = {
        axis: Axis(x.shape[axis], lengths[place], factors[place], regions[place], regions[place + len(chosen)])
        for place, axis in enumerate(chosen)
    }
    nearest = call.get("nearest_mode", "round_prefer_floor")
    return interpolated(call, x, axes, call.get("mode", "nearest"), coordinates, nearest)


def _length(call: Call, value: float) -> int:
    if not np.isfinite(value) or abs(value) > 2**40:
        raise call.error(f"a length of {value} is too large.")
    return int(np.floor(value))


@operator("Upsample", shaping=(1,))
@operator("Resize", since=10, shaping=(1,))
def upsample(call: Call, x: Array, scales: Array | None = None) -> Array:
    """By factors; the pixel at i / factor, rounded down, or the two about it."""
    given = call.get("scales") if scales is None else scales.ravel().tolist()
    if given is None and call.get("height_scale") is not None:  # operator set 1
        given = [1.0, 1.0, call.get("height_scale"), call.get("width_scale", 1.0)]
    if given is None or len(given) != x.ndim or any(not 0 < factor < 2**40 for factor in given):
        raise call.error(f"scales {given} do not fit an input of shape {x.shape}.")
    axes = {
        at: Axis(size, int(np.floor(size * factor)), float(factor))
        for at, (size, factor) in enumerate(zip(x.shape, given, strict=True))
    }
    mode = str(call.get("mode", "nearest")).replace("bilinear", "linear")
    return interpolated(call, x, axes, mode, "asymmetric", "floor")
