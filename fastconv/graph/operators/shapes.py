"""Axes moved, added, joined and cut: mostly views."""

from __future__ import annotations

from math import prod

import numpy as np

from ... import _native
from ..._core.arrays import Array, address
from ..._core.layouts import OUTWARD, lies_channels_last
from ..._core.threads import effective
from .moving import along, border, filled, moved, reshaped, runs
from .registry import INTERNAL, Call, operator


@operator("Reshape", as_stored=True, shaping=(1,))
def reshape(call: Call, x: Array, shape: Array | None = None) -> Array:
    """0 keeps a length (unless `allowzero`), -1 is what remains."""
    asked = call.numbers("shape", shape)
    if asked is None:
        raise call.error("the new shape is missing.")
    if not call.get("allowzero", 0):
        if any(size == 0 and axis >= x.ndim for axis, size in enumerate(asked)):
            raise call.error(f"shape {asked} keeps an axis that the input of shape {x.shape} does not have.")
        asked = [x.shape[axis] if size == 0 else size for axis, size in enumerate(asked)]
    if any(size < -1 for size in asked) or asked.count(-1) > 1:
        raise call.error(f"{asked} is no shape.")
    rest = prod(size for size in asked if size != -1)
    if (rest != x.size) if -1 not in asked else (rest == 0 and x.size > 0) or (rest and x.size % rest):
        raise call.error(f"an input of shape {x.shape} has no shape {asked}.")
    return reshaped(call, x, asked)


@operator("Flatten", as_stored=True)
def flatten(call: Call, x: Array) -> Array:
    """To a matrix: the axes before `axis`, and the rest."""
    axis = int(call.get("axis", 1))
    axis += x.ndim if axis < 0 else 0
    if not 0 <= axis <= x.ndim:
        raise call.error(f"axis {axis} is not one of the {x.ndim} axes of its input.")
    return reshaped(call, x, (prod(x.shape[:axis]), prod(x.shape[axis:])))


@operator("Transpose", as_stored=True)
def transpose(call: Call, x: Array) -> Array:
    """A view with the axes in another order."""
    order = call.get("perm", list(range(x.ndim))[::-1])
    if sorted(order) != list(range(x.ndim)):
        raise call.error(f"perm {order} does not name each of the {x.ndim} axes once.")
    return x.transpose(order)


@operator("Squeeze", as_stored=True, shaping=(1,))
def squeeze(call: Call, x: Array, axes: Array | None = None) -> Array:
    """Without axes of length one."""
    chosen = call.numbers("axes", axes)
    if chosen is None:
        return x.squeeze()
    where = {call.from_front(axis, x.ndim) for axis in chosen}
    if any(x.shape[axis] != 1 for axis in where):
        raise call.error(f"an axis of {sorted(where)} of shape {x.shape} is not 1 long.")
    return x.reshape([size for axis, size in enumerate(x.shape) if axis not in where])


@operator("Unsqueeze", as_stored=True, shaping=(1,))
def unsqueeze(call: Call, x: Array, axes: Array | None = None) -> Array:
    """With more axes of length one."""
    chosen = call.numbers("axes", axes, []) or []
    rank = x.ndim + len(chosen)
    where = {call.from_front(axis, rank) for axis in chosen}
    if len(where) < len(chosen) or rank > 32:
        raise call.error(f"axes {chosen} name an axis twice.")
    sizes = iter(x.shape)
    return x.reshape([1 if axis in where else next(sizes) for axis in range(rank)])


@operator("Concat", as_stored=True)
def concat(call: Call, *arrays: Array) -> Array:
    """One behind the other."""
    first = arrays[0]
    axis = call.axis(first.ndim, 1 if call.version < 4 else 0)
    shape = list(first.shape)
    for other in arrays:
        if other.ndim != first.ndim or any(
            a != b for at, (a, b) in enumerate(zip(first.shape, other.shape, strict=True)) if at != axis
        ):
            raise call.error(f"inputs of shape {first.shape} and {other.shape} cannot be joined along axis {axis}.")
    shape[axis] = sum(array.shape[axis] for array in arrays)
    if first.dtype.hasobject:
        return np.concatenate(arrays, axis)
    largest = max(arrays, key=lambda array: array.size)  # whose order in memory the result takes
    out = call.result_like(largest, shape, first.dtype)
    end, native = 0, True
    for array in arrays:
        start, end = end, end + array.shape[axis]
        part = out[(slice(None),) * axis + (slice(start, end),)]
        if array.strides != part.strides or address(array) != address(part):  # else it was made there
            native &= moved(call, part, array)
    if native:
        call.natively()
    return out


@operator("Interleave", as_stored=True, domain=INTERNAL)
def interleave(call: Call, a: Array, b: Array) -> Array:
    """The channels of two values in turns: Concat, Reshape to `grouped`, Transpose and Reshape to `shape`."""
    grouped, shape = call.get("grouped"), call.get("shape")
    if a.shape == b.shape and a.dtype == b.dtype and a.ndim == 4 and not a.dtype.hasobject:
        batch, channels, *size = a.shape
        meant = ([batch, 2, channels, *size], [batch, 2 * channels, *size])
        if (grouped[1:], shape[1:]) == (meant[0][1:], meant[1][1:]) and {grouped[0], shape[0]} <= {batch, -1}:
            out = call.empty_channels_last(meant[1], a.dtype)
            try:
                y, first, second = (x.transpose(OUTWARD[4]) for x in (out, a, b))
                _native.interleave(y, first, second, effective(call.threads))
            except ValueError:  # channels that do not lie side by side
                pass
            else:
                call.natively()
                return out
    try:
        return np.concatenate((a, b), 1).reshape(grouped).transpose(0, 2, 1, 3, 4).reshape(shape)
    except ValueError:
        raise call.error(f"inputs of shape {a.shape} and {b.shape} do not fit {grouped} and {shape}.") from None


@operator("Split", as_stored=True, shaping=(1,))
def split(call: Call, x: Array, sizes: Array | None = None) -> tuple[Array, ...]:
    """Into pieces of the given or of equal lengths; the last may be shorter."""
    axis = call.axis(x.ndim)
    lengths = call.numbers("split", sizes)
    length = x.shape[axis]
    if lengths is None:
        count = int(call.get("num_outputs", len(call.node.outputs)))
        if count < 1:
            raise call.error("it has no outputs.")
        each = -(-length // count)
        lengths = [max(0, min(each, length - each * i)) for i in range(count)]
    if sum(lengths) != length or min(lengths, default=0) < 0 or len(lengths) != len(call.node.outputs):
        raise call.error(f"pieces of {lengths} do not make up axis {axis} of shape {x.shape}.")
    return tuple(np.split(x, np.cumsum(lengths)[:-1], axis))


@operator("Expand", as_stored=True, shaping=(1,))
def expand(call: Call, x: Array, shape: Array) -> Array:
    """Repeated, as a view that steps zero far."""
    try:
        wanted = np.broadcast_shapes(x.shape, tuple(int(size) for size in shape.ravel().tolist()))
    except ValueError:
        raise call.error(f"an input of shape {x.shape} cannot be repeated to {shape.ravel().tolist()}.") from None
    return np.broadcast_to(x, call.check(wanted, x.dtype))


@operator("Tile", as_stored=True, shaping=(1, 2))
def tile(call: Call, x: Array, repeats: Array, axis: Array | None = None) -> Array:
    """Repeated whole along every axis; operator set 1 gave a number and an axis."""
    counts = [int(count) for count in repeats.ravel().tolist()]
    if axis is not None:
        counts = [counts[0] if at == call.from_front(int(axis.ravel()[0]), x.ndim) else 1 for at in range(x.ndim)]
    if len(counts) != x.ndim or any(count < 0 for count in counts):
        raise call.error(f"repeats {counts} do not fit an input of shape {x.shape}.")
    shape = call.check([size * count for size, count in zip(x.shape, counts, strict=True)], x.dtype)
    if x.dtype.hasobject:
        return np.tile(x, counts)
    out = call.ordered_like(x, shape)  # whose axes can each be cut in two
    spread = out.reshape([one for size, count in zip(x.shape, counts, strict=True) for one in (count, size)])
    once = x[tuple(one for _ in counts for one in (None, slice(None)))]
    if moved(call, spread, np.broadcast_to(once, spread.shape)) and call.settled():
        call.natively()
    return out


@operator("DepthToSpace", as_stored=True)
def depth_to_space(call: Call, x: Array) -> Array:
    """Channels become blocks of pixels: depth-column-row (DCR) or column-row-depth (CRD)."""
    block = int(call.get("blocksize", 0))
    if x.ndim != 4 or block < 1 or x.shape[1] % (block * block):
        raise call.error(f"an input of shape {x.shape} has no blocks of {block} x {block}.")
    n, c, h, w = x.shape
    depth = c // (block * block)
    if call.get("mode", "DCR") == "DCR":
        spread = x.reshape(n, block, block, depth, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        spread = x.reshape(n, depth, block, block, h, w).transpose(0, 1, 4, 2, 5, 3)
    return _laid(call, x, spread, (n, depth, h * block, w * block))


@operator("SpaceToDepth", as_stored=True)
def space_to_depth(call: Call, x: Array) -> Array:
    """Blocks of pixels become channels; `mode` as in DepthToSpace since operator set 28."""
    block = int(call.get("blocksize", 0))
    if x.ndim != 4 or block < 1 or x.shape[2] % block or x.shape[3] % block:
        raise call.error(f"an input of shape {x.shape} has no blocks of {block} x {block}.")
    n, c, h, w = x.shape
    spread = x.reshape(n, c, h // block, block, w // block, block)
    order = (0, 3, 5, 1, 2, 4) if call.get("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return _laid(call, x, spread.transpose(order), (n, c * block * block, h // block, w // block))


def _laid(call: Call, x: Array, spread: Array, shape: tuple[int, ...]) -> Array:
    """`spread`, axes of x in another order, as an array of four axes that lies as x does."""
    out = (call.empty_channels_last if lies_channels_last(x) else call.empty)(shape, x.dtype)
    if moved(call, out.reshape(spread.shape), spread):
        call.natively()
    return out


@operator("Trilu")
def trilu(call: Call, x: Array, k: Array | None = None) -> Array:
    """The upper or lower triangle of the last two axes."""
    shift = 0 if k is None else max(-(1 << 31), min(1 << 31, int(k.ravel()[0])))
    return np.triu(x, shift) if call.get("upper", 1) else np.tril(x, shift)


# ---- padding -------------------------------------------------------------------------------------------------------

NUMPY_MODES = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}


@operator("Pad", shaping=(1, 3))
def pad(
    call: Call, x: Array, pads: Array | None = None, value: Array | None = None, axes: Array | None = None
) -> Array:
    """Wider or, by negative numbers, narrower."""
    widths = call.numbers("pads", pads) if pads is not None or call.get("paddings") is None else call.get("paddings")
    chosen = list(range(x.ndim)) if axes is None else [call.from_front(int(a), x.ndim) for a in axes.ravel().tolist()]
    if widths is None or len(widths) != 2 * len(chosen) or len(set(chosen)) < len(chosen):
        raise call.error(f"pads {widths} do not fit the axes {chosen} of an input of shape {x.shape}.")
    before, after = [0] * x.ndim, [0] * x.ndim
    for place, axis in enumerate(chosen):
        before[axis], after[axis] = widths[place], widths[place + len(chosen)]
    mode = NUMPY_MODES.get(call.get("mode", "constant"))
    if mode is None:
        raise call.error(f"mode {call.get('mode')!r} is none of {', '.join(NUMPY_MODES)}.")
    return padded(call, x, before, after, mode, call.get("value", 0.0) if value is None else value.ravel()[0])


def padded(call: Call, x: Array, before: list[int], after: list[int], mode: str, value: object) -> Array:
    """`numpy.pad` whose negative widths crop."""
    shape = [size + a + b for size, a, b in zip(x.shape, before, after, strict=True)]
    call.check(shape, x.dtype)
    x = x[tuple(slice(max(0, -a), size - max(0, -b)) for size, a, b in zip(x.shape, before, after, strict=True))]
    empty = any(size == 0 and (a > 0 or b > 0) for size, a, b in zip(x.shape, before, after, strict=True))
    if empty and mode != "constant":
        raise call.error(f"an input of shape {x.shape} has nothing to repeat.")
    out = call.result_like(x, shape)
    middle = tuple(slice(max(0, a), max(0, a) + size) for a, size in zip(before, x.shape, strict=True))
    native = moved(call, out[middle], x)
    for axis, (size, a, b) in enumerate(zip(x.shape, before, after, strict=True)):
        inside = out[(slice(None),) * axis + middle[axis:]]  # the axes before have their borders
        wide = out[(slice(None),) * axis + (slice(None),) + middle[axis + 1 :]]
        first, last = (np.zeros(max(0, width), np.int64) for width in (a, b))
        if mode != "constant" and (len(first) or len(last)):
            first, last = border(mode, size, len(first), len(last))
        for start, places in ((0, first), (len(first) + size, last)):
            if mode == "constant" and len(places):
                native &= filled(call, along(wide, axis, start, len(places), 1), value)
            elif len(places):
                for at, count, place, step in runs(places):
                    part = along(wide, axis, start + at, count, 1)
                    native &= moved(call, part, along(inside, axis, place, count, step))
    if native and call.settled():
        call.natively()
    return out


@operator("CenterCropPad", shaping=(1,))
def center_crop_pad(call: Call, x: Array, shape: Array) -> Array:
    """Cropped or padded with zeros about the middle."""
    axes = call.get("axes")
    chosen = list(range(x.ndim)) if axes is None else [call.from_front(axis, x.ndim) for axis in axes]
    sizes = [int(size) for size in shape.ravel().tolist()]
    if len(sizes) != len(chosen) or any(size < 0 for size in sizes):
        raise call.error(f"sizes {sizes} do not fit the axes {chosen}.")
    before, after = [0] * x.ndim, [0] * x.ndim
    for axis, size in zip(chosen, sizes, strict=True):
        more = size - x.shape[axis]
        first = more // 2 if more >= 0 else -(-more // 2)
        before[axis], after[axis] = first, more - first
    return padded(call, x, before, after, "constant", 0)
