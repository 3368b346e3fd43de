"""What moves values and computes nothing: other shapes, orders and parts."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from torch import fx

from .elementwise import called, kind_of
from .trace import Refused, Tracer, array_type, converts, whole

LAST: Final = (1 << 63) - 1


def _zeros(shape: tuple[int, ...]) -> dict[str, Any]:
    """Whether lengths of 0 mean what they say."""
    return {"allowzero": 1} if 0 in shape else {}


@converts("view", "_unsafe_view", "unsqueeze", "squeeze")
def _reshape(t: Tracer, node: fx.Node, a: Any) -> Any:
    if t.fake(a.self).dtype is not kind_of(node):
        raise Refused("the bits of values as another type")
    return t.add("Reshape", [t.name(a.self), t.integers(t.shape(node))], **_zeros(t.shape(node)))


@converts("as_strided")
def _same_places(t: Tracer, node: fx.Node, a: Any) -> Any:
    """Where only the steps of axes of length 1 are others, as behind a pooling of whole images."""
    steps = zip(t.shape(node), a.stride, t.fake(a.self).stride(), strict=True)
    if t.shape(a.self) != t.shape(node) or a.storage_offset or any(n > 1 and one != own for n, one, own in steps):
        raise Refused("memory as another shape")
    return t.add("Identity", [t.name(a.self)])


@converts("permute", "transpose", "t")
def _transpose(t: Tracer, node: fx.Node, a: Any) -> Any:
    rank, name = len(t.shape(a.self)), called(node)
    if name == "permute":
        perm = [dim % rank for dim in a.dims]
    elif name == "t":
        perm = [*range(rank)][::-1]
    else:
        perm = [*range(rank)]
        first, second = a.dim0 % max(rank, 1), a.dim1 % max(rank, 1)
        if rank:
            perm[first], perm[second] = second, first
    return t.add("Transpose", [t.name(a.self)], perm=perm)


@converts("expand")
def _expand(t: Tracer, node: fx.Node, a: Any) -> Any:
    return t.add("Expand", [t.name(a.self), t.integers(t.shape(node))])


@converts("repeat")
def _repeat(t: Tracer, node: fx.Node, a: Any) -> Any:
    shape, counts = t.shape(a.self), [whole(count) for count in a.repeats]
    x = t.name(a.self)
    if len(counts) > len(shape):
        x = t.add("Reshape", [x, t.integers([*(1,) * (len(counts) - len(shape)), *shape])])
    return t.add("Tile", [x, t.integers(counts)])


@converts("cat")
def _cat(t: Tracer, node: fx.Node, a: Any) -> Any:
    shapes = [t.shape(one) for one in a.tensors]
    if len({len(shape) for shape in shapes}) > 1:
        raise Refused("a sequence with empty tensors of another rank")
    return t.add("Concat", [t.name(one, kind_of(node)) for one in a.tensors], axis=a.dim % len(shapes[0]))


@converts("stack")
def _stack(t: Tracer, node: fx.Node, a: Any) -> Any:
    axis = a.dim % len(t.shape(node))
    parts = [t.add("Unsqueeze", [t.name(one, kind_of(node)), t.integers([axis])]) for one in a.tensors]
    return t.add("Concat", parts, axis=axis)


@converts("split", "split_with_sizes", "unbind")
def _split(t: Tracer, node: fx.Node, a: Any) -> Any:
    parts: Any = node.meta["val"]
    rank = len(t.shape(a.self))
    axis, x = a.dim % rank, t.name(a.self)
    if called(node) == "unbind":
        return [t.add("Gather", [x, t.constant(np.int64(at))], axis=axis) for at in range(len(parts))]
    lengths = [whole(part.shape[axis]) for part in parts]
    return t.add("Split", [x, t.integers(lengths)], len(lengths), axis=axis)


@converts("slice")
def _slice(t: Tracer, node: fx.Node, a: Any) -> Any:
    first = 0 if a.start is None else whole(a.start)
    last = LAST if a.end is None else whole(a.end)
    ends = [t.integers([value]) for value in (first, last, a.dim, a.step)]
    return t.add("Slice", [t.name(a.self), *ends])


@converts("select")
def _select(t: Tracer, node: fx.Node, a: Any) -> Any:
    return t.add("Gather", [t.name(a.self), t.constant(np.int64(whole(a.index)))], axis=a.dim)


@converts("flip")
def _flip(t: Tracer, node: fx.Node, a: Any) -> Any:
    dims, count = a.dims, len(a.dims)
    ends = [t.integers(values) for values in ([-1] * count, [-LAST] * count, dims, [-1] * count)]
    return t.add("Slice", [t.name(a.self), *ends]) if count else t.add("Identity", [t.name(a.self)])


@converts("roll")
def _roll(t: Tracer, node: fx.Node, a: Any) -> Any:
    if not a.dims:
        raise Refused("a roll of all values in a row")
    made, shape = t.name(a.self), t.shape(a.self)
    for shift, dim in zip(a.shifts, a.dims, strict=True):
        length = shape[dim]
        cut = (-whole(shift)) % length if length else 0
        if cut:
            ends = [[t.integers([value]) for value in (first, last, dim)] for first, last in ((cut, LAST), (0, cut))]
            made = t.add("Concat", [t.add("Slice", [made, *end]) for end in ends], axis=dim % len(shape))
    return made if made != t.name(a.self) else t.add("Identity", [made])


@converts("embedding", "index_select")
def _rows(t: Tracer, node: fx.Node, a: Any) -> Any:
    if called(node) == "embedding":
        return t.add("Gather", [t.name(a.weight), t.name(a.indices)], axis=0)
    if len(t.shape(a.index)) != 1:
        raise Refused("a place that is a number")
    return t.add("Gather", [t.name(a.self), t.name(a.index)], axis=a.dim)


@converts("index", "_unsafe_index")
def _index(t: Tracer, node: fx.Node, a: Any) -> Any:
    given = [(at, one) for at, one in enumerate(a.indices) if one is not None]
    if len(given) != 1 or t.fake(given[0][1]).dtype is torch.bool:
        raise Refused("places along several axes, or where something is true")
    return t.add("Gather", [t.name(a.self), t.name(given[0][1], torch.int64)], axis=given[0][0])


@converts("gather")
def _gather(t: Tracer, node: fx.Node, a: Any) -> Any:
    if a.sparse_grad or not t.shape(a.self) or t.shape(a.self) != t.shape(a.index):
        raise Refused("places of another shape")
    return t.add("GatherElements", [t.name(a.self), t.name(a.index)], axis=a.dim)


@converts("full_like", "zeros_like", "ones_like", "new_zeros", "new_ones", "new_full")
def _filled(t: Tracer, node: fx.Node, a: Any) -> Any:
    name = called(node)
    value = a.fill_value if "full" in name else int("ones" in name)
    if isinstance(value, fx.Node):
        raise Refused("a value that is a tensor")
    return t.constant(np.full(t.shape(node), value, array_type(kind_of(node))))


# ---- parts that are written ----------------------------------------------------------------------------------------


@converts("copy", "fill")
def _written(t: Tracer, node: fx.Node, a: Any) -> Any:
    """All values at once, by others or by one."""
    value = a.src if called(node) == "copy" else a.value
    return t.add("Expand", [t.name(value, kind_of(node)), t.integers(t.shape(node))])


def _replaced(t: Tracer, whole_value: Any, part: str, axis: int, first: int, last: int) -> str:
    """A value with the places from `first` to `last` of an axis from elsewhere."""
    x, length = t.name(whole_value), t.shape(whole_value)[axis]
    parts = [part]
    if first > 0:
        parts.insert(0, t.add("Slice", [x, t.integers([0]), t.integers([first]), t.integers([axis])]))
    if last < length:
        parts.append(t.add("Slice", [x, t.integers([last]), t.integers([length]), t.integers([axis])]))
    return str(t.add("Concat", parts, axis=axis))


@converts("slice_scatter")
def _slice_written(t: Tracer, node: fx.Node, a: Any) -> Any:
    axis = a.dim % len(t.shape(a.self))
    length = t.shape(a.self)[axis]
    first, last, step = slice(*(None if end is None else whole(end) for end in (a.start, a.end))).indices(length)
    if a.step != 1 or step != 1 or last <= first or t.fake(a.src).dtype is not kind_of(node):
        raise Refused("every so many places written")
    return _replaced(t, a.self, t.name(a.src), axis, first, last)


@converts("select_scatter")
def _place_written(t: Tracer, node: fx.Node, a: Any) -> Any:
    axis = a.dim % len(t.shape(a.self))
    at = whole(a.index) % t.shape(a.self)[axis]
    part = t.add("Unsqueeze", [t.name(a.src, kind_of(node)), t.integers([axis])])
    return _replaced(t, a.self, part, axis, at, at + 1)
