"""Where a gradient goes: a new array, `out=`, or on top of what `out` holds (`accumulate=True`)."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Final, cast

import numpy as np

from ..errors import ConvError
from .arrays import Array, DType
from .contributions import added
from .layouts import Layout, checked_out, empty_activation, empty_weight
from .types import FLOATS
from .words import Shape, flag

# What is added to `out` is made for so many bytes of images at a time, and for one at least.
SLICE_BYTES: Final = 8 << 20
Compute = Callable[[slice, Array], None]


def adds(name: str, out: object, accumulate: object) -> bool:
    """Whether the gradient is added to `out`, which then must be there."""
    if not flag("accumulate", accumulate):
        return False
    if out is None:
        raise ConvError(
            f"{name}: accumulate=True adds the gradient to what out holds, but got no out; pass the array to add to, "
            "or leave accumulate out."
        )
    return True


def _meets(memory: Array, inputs: tuple[Array | None, ...]) -> bool:
    """Whether an array may share memory with an input."""
    return any(array is not None and np.may_share_memory(memory, array) for array in inputs)


def _end(name: str, target: Array, fresh: Array, add: bool) -> None:
    target[...] = added(name, target, fresh) if add else fresh


def into_activation(
    name: str, out: object, accumulate: object, frame: Layout, shape: Shape, dtype: DType, batched: bool, last: bool,
    inputs: tuple[Array | None, ...], compute: Compute, *, safe: bool = True,
) -> Array:  # fmt: skip
    """The gradient with respect to an activation of this logical shape; `compute(images, to)` makes that of some.

    Unless it is `safe`, that may write and then refuse. Without `out` the result lies channels `last` or first.
    """
    add, every = adds(name, out, accumulate), slice(0, shape[0])
    if out is None:
        fresh = empty_activation(shape, dtype, last)
        compute(every, fresh)
        return frame.from_logical(fresh, batched)
    own_shape = frame.from_logical(np.broadcast_to(np.int8(0), shape), batched).shape
    memory = checked_out(name, out, own_shape, dtype)
    target, meets = frame.to_logical(memory if batched else memory[None]), _meets(memory, inputs)
    if not add and safe and not meets:
        compute(every, target)
    elif meets or dtype not in FLOATS:  # nothing may be written before all is known
        fresh = empty_activation(shape, dtype, last)
        compute(every, fresh)
        _end(name, target, fresh, add)
    else:  # the bits of images do not depend on how many are computed together
        images = max(1, SLICE_BYTES // max(1, prod(shape[1:]) * dtype.itemsize))
        for first in range(0, shape[0], images):
            some = slice(first, min(first + images, shape[0]))
            fresh = empty_activation((some.stop - first, *shape[1:]), dtype, last)
            compute(some, fresh)
            _end(name, target[some], fresh, add)
    return cast(Array, out)


def into_weight(
    name: str, out: object, accumulate: object, frame: Layout, shape: Shape, dtype: DType,
    inputs: tuple[Array | None, ...], compute: Callable[[Array], None], *, tiled: bool = False,
) -> Array:  # fmt: skip
    """The gradient with respect to a weight; `shape` is logical, but of a tiled one the caller's."""
    add = adds(name, out, accumulate)

    def viewed(own: Array) -> Array:
        return (frame.tiled_weight if tiled else frame.weight)("out", own)

    def fresh() -> Array:
        if tiled:
            return np.empty(shape, dtype)
        return frame.weight_from_logical(empty_weight(shape, dtype, frame.channels_last))

    if out is None:
        made = fresh()
        compute(viewed(made))
        return made
    memory = checked_out(name, out, shape if tiled else frame.weight_from_logical_shape(shape), dtype)
    if not add and not _meets(memory, inputs) and not (tiled and dtype not in FLOATS):
        compute(viewed(memory))
    else:
        made = fresh()
        compute(viewed(made))
        _end(name, memory, made, add)
    return cast(Array, out)


def into_total(
    name: str, out: object, accumulate: object, frame: Layout, dx: Array, batched: bool
) -> Array:
    """A gradient that has been computed, in the logical order."""
    own = frame.from_logical(dx, batched)
    if out is None:
        return own
    _end(name, checked_out(name, out, own.shape, own.dtype), own, adds(name, out, accumulate))
    return cast(Array, out)
