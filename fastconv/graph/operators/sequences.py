"""Sequences and optional values, as loops over detections make them: lists of arrays, and None."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..._core.arrays import Array
from .registry import Call, operator


def _sequence(call: Call, given: Any) -> list[Any]:
    if not isinstance(given, list):
        raise call.error(f"its input must be a sequence, but is a {type(given).__name__}.")
    return given


def _place(call: Call, position: Any, length: int, default: int, beyond: int = 0) -> int:
    """A position that may be counted from the end; `beyond` is 1 where one may be behind the last."""
    if position is None:
        return default
    place = int(position.ravel()[0])
    if not -length <= place < length + beyond:
        raise call.error(f"position {place} is outside a sequence of {length}.")
    return place + length if place < 0 else place


@operator("SequenceEmpty", as_stored=True)
def sequence_empty(call: Call) -> tuple[list[Any]]:
    """None yet."""
    return ([],)


@operator("SequenceConstruct", as_stored=True)
def sequence_construct(call: Call, *arrays: Any) -> tuple[list[Any]]:
    """All inputs."""
    return ([_kept(array) for array in arrays],)


def _kept(array: Any) -> Any:
    """An array in memory of its own: buffers of the pool are counted for arrays alone."""
    return array.copy() if isinstance(array, np.ndarray) else array


@operator("SequenceInsert", as_stored=True)
def sequence_insert(call: Call, sequence: Any, array: Any, position: Any = None) -> tuple[list[Any]]:
    """One more, at the end or before a position."""
    items = list(_sequence(call, sequence))
    items.insert(_place(call, position, len(items), len(items), 1), _kept(array))
    if not len(items) & (len(items) - 1):  # now and then, so that a loop's time does not grow with the square
        call.check((sum(getattr(item, "nbytes", 0) for item in items),), np.uint8)
    return (items,)


@operator("SequenceErase", as_stored=True)
def sequence_erase(call: Call, sequence: Any, position: Any = None) -> tuple[list[Any]]:
    """One less."""
    items = list(_sequence(call, sequence))
    if not items:
        raise call.error("its sequence is empty.")
    del items[_place(call, position, len(items), len(items) - 1)]
    return (items,)


@operator("SequenceAt", as_stored=True, shaping="all")
def sequence_at(call: Call, sequence: Any, position: Any) -> Any:
    """One of them."""
    items = _sequence(call, sequence)
    return items[_place(call, position, len(items), 0)]


@operator("SequenceLength", as_stored=True, shaping="all")
def sequence_length(call: Call, sequence: Any) -> Any:
    """How many there are."""
    return np.array(len(_sequence(call, sequence)), np.int64)


@operator("ConcatFromSequence", as_stored=True, shaping="all")
def concat_from_sequence(call: Call, sequence: Any) -> Array:
    """All joined along an axis, which `new_axis` makes."""
    items = _sequence(call, sequence)
    if not items:
        raise call.error("its sequence is empty.")
    rank = items[0].ndim
    if call.get("new_axis", 0):
        axis = call.axis(rank + 1)
        return np.stack(items, axis)
    axis = call.axis(rank)
    call.check(
        [sum(item.shape[axis] for item in items) if at == axis else size for at, size in enumerate(items[0].shape)],
        items[0].dtype,
    )
    return np.concatenate(items, axis)


@operator("SplitToSequence", as_stored=True, shaping="all")
def split_to_sequence(call: Call, x: Array, split: Array | None = None) -> tuple[list[Any]]:
    """Pieces of one length, of given ones, or single elements along an axis."""
    axis = call.axis(x.ndim)
    length = x.shape[axis]
    single = split is None and not call.get("keepdims", 1)
    if split is None or split.ndim == 0:
        step = 1 if split is None else int(split)
        if step < 1:
            raise call.error(f"pieces of {step} elements.")
        ends = [*range(step, length, step), length] if length else []
    else:
        ends = np.cumsum(split).tolist()
        if np.any(split < 0) or (ends[-1] if ends else 0) != length:
            raise call.error(f"pieces of {split.tolist()} elements do not fill an axis of {length}.")
    pieces = [_kept(piece) for piece in np.split(x, ends[:-1], axis)] if ends else []
    return ([piece.squeeze(axis) for piece in pieces] if single else pieces,)


@operator("Optional", as_stored=True)
def optional(call: Call, given: Any = None) -> tuple[Any]:
    """The value, or that there is none."""
    return (given,)


@operator("OptionalHasElement", as_stored=True, shaping="all")
def optional_has_element(call: Call, given: Any = None) -> Any:
    """Whether there is a value."""
    return np.array(given is not None)


@operator("OptionalGetElement", as_stored=True)
def optional_get_element(call: Call, given: Any) -> tuple[Any]:
    """The value, which must be there."""
    if given is None:
        raise call.error("its optional value is not there.")
    return (given,)
