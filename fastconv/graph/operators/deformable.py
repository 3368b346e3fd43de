"""Deformable convolution, and blocks put together to an image."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any, Final

import numpy as np

from ..._core.arrays import Array
from .matrix import Products
from .registry import Call, operator
from .sampling import gather, linear_taps, pixel_rows
from .windows import Window, attribute_numbers, kernel_of

BLOCK: Final = 1 << 19  # values gathered for one product


@operator("DeformConv", since=19)
def deform_conv(
    call: Call, x: Array, weight: Array, offset: Array, bias: Array | None = None, mask: Array | None = None
) -> Any:
    """A convolution whose taps lie at offsets of their own (Dai et al. 2017), weighted by a mask (Zhu et al. 2019).

    The values of all taps of a block of outputs are gathered as rows, which the weights are multiplied with.
    """
    window, lengths, parts = _checked(call, x, weight, offset, bias, mask)
    groups, taps, points = int(call.get("group", 1)), prod(window.kernel), prod(lengths)
    batch, channels = x.shape[:2]
    filters, own = len(weight), channels // parts
    by_tap = np.moveaxis(weight.reshape(groups, filters // groups, channels // groups, taps), 3, 2)
    matrix = np.ascontiguousarray(by_tap).reshape(groups, filters // groups, taps * (channels // groups))
    given = None if bias is None else bias.reshape(groups, -1)
    products = Products(call, "taps", matrix, given, call.is_constant(1) and (bias is None or call.is_constant(3)))
    offsets = offset.reshape(batch, parts, taps, len(lengths), points)
    masks = None if mask is None else mask.reshape(batch, parts, taps, points)
    out = call.empty((batch, points, filters), x.dtype)
    at_once = max(1, min(points, BLOCK // max(1, taps * channels)))
    columns = call.empty((at_once, taps, channels), x.dtype)
    for image in range(batch):
        rows = [pixel_rows(call, x[image : image + 1, part * own : (part + 1) * own]) for part in range(parts)]
        for first in range(0, points, at_once):
            last = min(first + at_once, points)
            for part in range(parts):
                _columns(
                    window, lengths, x.shape[2:], first, rows[part], offsets[image, part, :, :, first:last],
                    None if masks is None else masks[image, part, :, first:last],
                    columns[: last - first, :, part * own : (part + 1) * own],
                )  # fmt: skip
            _weighted(products, columns[: last - first], groups, out[image, first:last])
    return np.moveaxis(out.reshape(batch, *lengths, filters), -1, 1)


def _weighted(products: Products, columns: Array, groups: int, out: Array) -> None:
    """The products of a block of outputs with the weights of every group of channels."""
    count, taps, channels = columns.shape
    wide, size = channels // groups, out.shape[1] // groups
    for group in range(groups):
        picked = np.ascontiguousarray(columns[:, :, group * wide : (group + 1) * wide]).reshape(count, taps * wide)
        if groups == 1:
            products.into(0, picked, out)
            continue
        made = np.empty((count, size), out.dtype)
        products.into(group, picked, made)
        out[:, group * size : (group + 1) * size] = made


def _checked(
    call: Call, x: Array, weight: Array, offset: Array, bias: Array | None, mask: Array | None
) -> tuple[Window, tuple[int, ...], int]:
    """The window, the lengths of the result, and the number of offset groups; or what does not fit."""
    groups, parts = int(call.get("group", 1)), int(call.get("offset_group", 1))
    rank = x.ndim - 2
    fits = rank > 0 and weight.ndim == x.ndim and groups > 0 and x.shape[1] == weight.shape[1] * groups
    if not fits or len(weight) % groups:
        raise call.error(f"a weight {weight.shape} in {groups} groups does not fit an input of shape {x.shape}.")
    window = kernel_of(call, x.shape[2:], weight.shape[2:])
    lengths = tuple(
        (size + before + after - extent) // stride + 1
        for size, (before, after), extent, stride in zip(
            x.shape[2:], window.sides, window.extent, window.stride, strict=True
        )
    )
    taps = prod(window.kernel)
    wanted = (x.shape[0], parts * taps * rank, *lengths)
    if parts < 1 or x.shape[1] % parts or offset.shape != wanted:
        raise call.error(f"offsets of shape {offset.shape} in {parts} groups; they must be {wanted}.")
    if mask is not None and mask.shape != (x.shape[0], parts * taps, *lengths):
        raise call.error(f"a mask of shape {mask.shape}; it must be {(x.shape[0], parts * taps, *lengths)}.")
    if bias is not None and bias.shape != (len(weight),):
        raise call.error(f"a bias of shape {bias.shape} for {len(weight)} filters.")
    return window, lengths, parts


def _columns(
    window: Window, lengths: tuple[int, ...], sizes: tuple[int, ...], first: int, rows: Array, offsets: Array,
    mask: Array | None, out: Array,
) -> None:  # fmt: skip
    """The values of every tap at some outputs, (outputs, taps, channels); `offsets` is (taps, axes, outputs)."""
    count = offsets.shape[-1]
    outputs = np.unravel_index(np.arange(first, first + count), lengths)
    kernel = np.unravel_index(np.arange(prod(window.kernel)), window.kernel)
    taps = []
    for axis, size in enumerate(sizes):
        start = outputs[axis] * window.stride[axis] - window.sides[axis][0]
        place = (start + kernel[axis][:, None] * window.dilation[axis]).astype(offsets.dtype) + offsets[:, axis]
        taps.append(linear_taps(place.T.ravel(), size))
    if mask is not None:
        taps[0] = taps[0]._replace(weight=taps[0].weight * mask.T.ravel())
    found = np.empty((count * out.shape[1], out.shape[2]), out.dtype)
    gather(rows, 0, taps, sizes, found)
    out[...] = found.reshape(out.shape)


@operator("Col2Im", since=18, shaping=(1, 2))
def col2im(call: Call, x: Array, image_shape: Array, block_shape: Array) -> Any:
    """Blocks added up where they lie in an image: what gathers patches, backwards."""
    image, block = (tuple(int(size) for size in shape.ravel().tolist()) for shape in (image_shape, block_shape))
    rank, taps = len(image), prod(block)
    if x.ndim != 3 or len(block) != rank or min((*image, *block), default=0) < 1 or x.shape[1] % taps:
        raise call.error(f"an input of shape {x.shape} has no blocks of {block} for an image of {image}.")
    stride, dilation = (attribute_numbers(call, name, rank, 1) for name in ("strides", "dilations"))
    pads = attribute_numbers(call, "pads", 2 * rank, 0, 0)
    padded = [size + pads[axis] + pads[rank + axis] for axis, size in enumerate(image)]
    counts = [
        (size - d * (k - 1) - 1) // s + 1 for size, d, k, s in zip(padded, dilation, block, stride, strict=True)
    ]  # fmt: skip
    if min(counts) < 1 or prod(counts) != x.shape[2]:
        raise call.error(f"an image of {image} holds {counts} blocks of {block}, not {x.shape[2]}.")
    whole = call.empty((x.shape[0], x.shape[1] // taps, *padded), x.dtype)
    whole[...] = 0
    blocks = x.reshape(x.shape[0], -1, taps, *counts)
    for tap, places in enumerate(product(*map(range, block))):
        where = tuple(
            slice(place * d, place * d + (count - 1) * s + 1, s)
            for place, d, s, count in zip(places, dilation, stride, counts, strict=True)
        )
        whole[(slice(None), slice(None), *where)] += blocks[:, :, tap]
    cut = tuple(slice(pads[axis], pads[axis] + size) for axis, size in enumerate(image))
    return whole[(slice(None), slice(None), *cut)]
