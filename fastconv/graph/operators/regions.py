"""Regions of detectors: chosen by NonMaxSuppression, cut out by RoiAlign and MaxRoiPool."""

from __future__ import annotations

from itertools import product
from typing import Any, Final, NamedTuple

import numpy as np

from ..._core.arrays import Array
from ..._core.words import Shape
from .registry import Call, operator
from .sampling import Taps, bounded, corner, gather, pixel_rows
from .sums import mean

BLOCK: Final = 1 << 18  # values of samples at once
TOGETHER: Final = 128  # boxes compared with each other


# ---- RoiAlign --------------------------------------------------------------------------------------------------------


def _region_taps(place: Array, size: int) -> Taps:
    """The two pixels at the sides of a place; one up to a pixel outside is moved to the border, others have none."""
    valid = (place >= -1) & (place <= size)
    place = np.maximum(bounded(place), 0)
    first = np.minimum(np.floor(place).astype(np.int64), size - 1)
    near = np.where(first >= size - 1, 0, place - first.astype(place.dtype)).astype(place.dtype)
    second = np.minimum(first + 1, size - 1)
    index = np.where(valid, np.stack([first, second]), -1)
    return Taps(index, np.stack([1 - near, near]))


def _samples(call: Call, start: Array, end: Array, length: int) -> tuple[Array, Array]:
    """How many samples each bin of every region has along an axis, and how long a bin is."""
    extent = end - start
    if not _half_pixel(call):
        extent = np.maximum(extent, start.dtype.type(1))
    ratio = int(call.get("sampling_ratio", 0))
    if ratio > 0:
        counts = np.full(len(start), ratio, np.int64)
    else:
        counts = np.maximum(np.ceil(np.nan_to_num(bounded(extent / start.dtype.type(length)))).astype(np.int64), 0)
    return counts, extent / start.dtype.type(length)


def _half_pixel(call: Call) -> bool:
    return call.version >= 16 and call.get("coordinate_transformation_mode", "half_pixel").lower() == "half_pixel"


@operator("RoiAlign", since=10)
def roi_align(call: Call, x: Array, rois: Array, images: Array) -> Any:
    """Bins of regions: the mean or the maximum of samples between pixels (He et al. 2017)."""
    height, width = int(call.get("output_height", 1)), int(call.get("output_width", 1))
    mode = str(call.get("mode", "avg")).lower()
    if x.ndim != 4 or rois.ndim != 2 or rois.shape[1] != 4 or images.shape != rois.shape[:1]:
        raise call.error(f"rois {rois.shape} and batch_indices {images.shape} do not fit an input of shape {x.shape}.")
    if height < 1 or width < 1 or mode not in ("avg", "max"):
        raise call.error(f"an output of {height} x {width} by mode {mode!r}.")
    if images.size and not 0 <= int(images.min()) <= int(images.max()) < x.shape[0]:
        raise call.error(f"batch_indices from {images.min()} to {images.max()} for {x.shape[0]} images.")
    out = call.empty((len(rois), height, width, x.shape[1]), x.dtype)
    rows = pixel_rows(call, x)
    places = rois.astype(x.dtype, copy=False) * x.dtype.type(call.get("spatial_scale", 1.0))
    places = places - x.dtype.type(0.5) if _half_pixel(call) else places
    down, high = _samples(call, places[:, 1], places[:, 3], height)
    across, wide = _samples(call, places[:, 0], places[:, 2], width)
    for counts in sorted(set(zip(down.tolist(), across.tolist(), strict=True))):
        chosen = np.flatnonzero((down == counts[0]) & (across == counts[1]))
        if 0 in counts or 0 in x.shape:
            out[chosen] = 0
            continue
        call.check((*counts, width, x.shape[1]), x.dtype)
        bins = Bins(chosen, images.astype(np.int64), places[:, 1], high, places[:, 0], wide)
        _align(rows, x.shape, mode, counts, bins, out)
    return out.transpose(0, 3, 1, 2)


class Bins(NamedTuple):
    """The regions of one number of samples a bin, and of all regions the image, where they start and a bin's length."""

    chosen: Array
    image: Array
    top: Array
    high: Array
    left: Array
    wide: Array


def _align(rows: Array, shape: Shape, mode: str, counts: tuple[int, int], bins: Bins, out: Array) -> None:
    """Regions with the same number of samples a bin, some rows of bins at a time."""
    channels, size = shape[1], (shape[2], shape[3])
    height, width = out.shape[1:3]
    total = len(bins.chosen) * height
    at_once = max(1, BLOCK // max(1, counts[0] * width * counts[1] * channels))
    for first in range(0, total, at_once):
        place, row = np.divmod(np.arange(first, min(first + at_once, total)), height)
        region = bins.chosen[place]
        columns, samples = np.repeat(np.arange(width), counts[1]), np.tile(np.arange(counts[1]), width)
        y = bins.top[region, None] + _within(row[:, None], np.arange(counts[0]), bins.high[region, None], counts[0])
        x = bins.left[region, None] + _within(columns, samples, bins.wide[region, None], counts[1])
        full = (len(region), counts[0], width * counts[1])
        both = np.broadcast_to(y[:, :, None], full), np.broadcast_to(x[:, None], full)
        taps = [_region_taps(axis.ravel(), length) for axis, length in zip(both, size, strict=True)]
        start = np.broadcast_to((bins.image[region] * size[0] * size[1])[:, None, None], full).ravel()
        sampled = np.empty((start.size, channels), out.dtype)
        samples = sampled.reshape(len(region), counts[0], width, counts[1], channels)
        if mode == "avg":
            gather(rows, start, taps, size, sampled)
            out[region, row] = mean(samples, (1, 3))[:, 0, :, 0]
        else:
            _largest(rows, start, taps, size, sampled)
            out[region, row] = samples.max(axis=(1, 3))


def _within(bins: Array, samples: Array, length: Array, count: int) -> Array:
    """Where samples of bins lie behind the start of their region."""
    kind = length.dtype.type
    return np.asarray(bins.astype(kind) * length + (samples + kind(0.5)).astype(kind) * length / kind(count))


def _largest(rows: Array, start: Array, taps: list[Taps], sizes: tuple[int, int], out: Array) -> None:
    """The largest of the weighted pixels around each place, as the standard's maximum takes them one by one."""
    for number, choice in enumerate(product(range(2), range(2))):
        weight = taps[0].weight[choice[0]] * taps[1].weight[choice[1]]
        found = rows[corner(rows, start, taps, sizes, choice)] * weight[:, None]
        np.copyto(out, found) if not number else np.maximum(out, found, out=out)


# ---- MaxRoiPool ------------------------------------------------------------------------------------------------------


@operator("MaxRoiPool")
def max_roi_pool(call: Call, x: Array, rois: Array) -> Any:
    """The maximum of whole pixels in bins of regions (Girshick 2015); a bin without pixels gives zero."""
    bins = tuple(int(number) for number in call.get("pooled_shape", []))
    if x.ndim != 4 or rois.ndim != 2 or rois.shape[1] != 5 or len(bins) != 2 or min(bins) < 1:
        raise call.error(f"rois of shape {rois.shape} into {list(bins)} bins do not fit an input of shape {x.shape}.")
    out = call.empty((len(rois), x.shape[1], *bins), x.dtype)
    out[...] = 0
    for region, (image, *corners) in enumerate(bounded(rois.astype(np.float64)).tolist()):
        if not 0 <= image < x.shape[0]:
            raise call.error(f"a region of image {image} of {x.shape[0]}.")
        scaled = [float(np.float32(place) * np.float32(call.get("spatial_scale", 1.0))) for place in corners]
        left, top, right, bottom = (int(np.floor(place + 0.5)) for place in scaled)
        rows = _bins(top, bottom, bins[0], x.shape[2])
        columns = _bins(left, right, bins[1], x.shape[3])
        for at, (first, last) in enumerate(rows):
            if last <= first:
                continue
            tallest = x[int(image), :, first:last].max(axis=1)
            for along, (start, end) in enumerate(columns):
                if end > start:
                    out[region, :, at, along] = tallest[:, start:end].max(axis=1)
    return out


def _bins(start: int, end: int, count: int, size: int) -> list[tuple[int, int]]:
    """Where the bins of a region begin and end, within the image."""
    length = max(end - start + 1, 1)
    edges = [(start + at * length // count, start - (-(at + 1) * length // count)) for at in range(count)]
    return [(min(max(first, 0), size), min(max(last, 0), size)) for first, last in edges]


# ---- NonMaxSuppression -----------------------------------------------------------------------------------------------


@operator("NonMaxSuppression", since=10, shaping="all")
def non_max_suppression(
    call: Call, boxes: Array, scores: Array, most: Array | None = None, overlap: Array | None = None,
    least: Array | None = None,
) -> Any:  # fmt: skip
    """The best boxes of every image and class, without those that overlap a better one."""
    if boxes.ndim != 3 or scores.ndim != 3 or boxes.shape[2] != 4 or boxes.shape[:2] != scores.shape[::2]:
        raise call.error(f"boxes of shape {boxes.shape} and scores of shape {scores.shape} do not fit each other.")
    count = 0 if most is None else int(most.ravel()[0])
    limit = np.float32(0 if overlap is None else overlap.ravel()[0])
    if not 0 <= limit <= 1:
        raise call.error(f"iou_threshold {limit} is not between 0 and 1.")
    found = [np.zeros((0, 3), np.int64)]
    for image in range(len(boxes) if count > 0 else 0):
        corners = _corners(boxes[image], bool(call.get("center_point_box", 0)))
        for label in range(scores.shape[1]):
            values = scores[image, label]
            chosen = np.arange(len(values)) if least is None else np.flatnonzero(values > least.ravel()[0])
            order = chosen[np.argsort(-values[chosen], kind="stable")]
            kept = _without_overlap(corners[:, order], count, limit)
            rows = np.empty((len(kept), 3), np.int64)
            rows[:, 0], rows[:, 1], rows[:, 2] = image, label, order[kept]
            found.append(rows)
    return np.concatenate(found)


def _corners(boxes: Array, by_centre: bool) -> Array:
    """(5, boxes): the ends of both axes, smaller ones first, and the area."""
    kind = boxes.dtype if boxes.dtype.kind == "f" else np.dtype(np.float32)
    first, second = boxes[:, :2].T.astype(kind), boxes[:, 2:].T.astype(kind)
    if by_centre:
        half = second / 2
        first, second = first - half, first + half
    low, high = np.minimum(first, second), np.maximum(first, second)
    return np.concatenate([low, high, np.prod(high - low, axis=0, keepdims=True)])


def _without_overlap(corners: Array, most: int, limit: np.float32) -> list[int]:
    """Of boxes in order those to keep: each that none of the kept ones before it overlaps.

    A block is compared with all kept boxes, and what is left of it with itself: few operations for many boxes.
    """
    kept: list[int] = []
    for first in range(0, corners.shape[1], TOGETHER):
        if len(kept) >= most:
            break
        block = np.arange(first, min(first + TOGETHER, corners.shape[1]))
        if kept:
            block = block[~_overlap(corners[:, block], corners[:, kept], limit).any(axis=1)]
        rows = np.packbits(_overlap(corners[:, block], corners[:, block], limit), axis=1, bitorder="little")
        gone = 0  # a bit for each box of the block
        for at, place in enumerate(block.tolist()):
            if not gone >> at & 1:
                kept.append(place)
                gone |= int.from_bytes(rows[at].tobytes(), "little")
    return kept[:most]


def _overlap(a: Array, b: Array, limit: np.float32) -> Array:
    """(boxes of `a`, boxes of `b`) whether the shared area is a larger part of both together than the limit."""
    shared: Any = None
    for low, high in ((0, 2), (1, 3)):
        side = np.minimum(a[high][:, None], b[high])
        side -= np.maximum(a[low][:, None], b[low])
        np.maximum(side, 0, out=side)
        shared = side if shared is None else np.multiply(shared, side, out=shared)
    union = a[4][:, None] + b[4]
    union -= shared
    return np.asarray(np.divide(shared, union, out=union) > limit)
