"""Whether weights are still what a program was made of, asked in every call.

A write through PyTorch (an optimiser, `copy_`, `load_state_dict`, another tensor under the name or under `.data`) is
seen by the counter of the tensor or by where it lies. A write past it (`.data.mul_()`, NumPy, DLPack) moves neither: it
is seen by its values, of which SAMPLES a tensor are looked at, evenly spread, and as many of those that are not zero
where one of these is. An update of all values, or of all but zeros, is seen, then, whatever their type; one of a few
values of a large tensor past PyTorch's counters may not be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from torch import Tensor

from ..._core.arrays import Array
from ..ops import Memory, address, array

SAMPLES: Final = 4
WORDS: Final = (4, 1)  # bytes that are compared together: a single one of values of other lengths


class Weights:
    """Tensors, and what tells that they changed."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = [tensor.detach() for tensor in tensors]  # holds the memory, should the caller's go elsewhere
        self.counted = not any(tensor.is_inference() for tensor in tensors)  # those that are have no counter
        self.places = [address(tensor) for tensor in tensors]
        self.versions = _versions(tensors)
        self.seen = [(memory, places, memory[places]) for memory, places in _samples(tensors)]

    def are(self, tensors: Sequence[Tensor]) -> bool:
        """Whether these lie where those lay and, as far as is looked, have their values."""
        if [address(tensor) for tensor in tensors] != self.places:
            return False
        if self.counted and _versions(tensors) != self.versions:
            return False
        return all(bool((memory[places] == values).all()) for memory, places, values in self.seen)


def _versions(tensors: Sequence[Tensor]) -> list[int] | None:
    """How often tensors were written to."""
    try:
        return [tensor._version for tensor in tensors]
    except RuntimeError:  # one made in inference mode has come in the place of another
        return None


def _samples(tensors: Sequence[Tensor]) -> list[tuple[Array, Array]]:
    """All memory as an array of words and the places that are ever read in it: one look for all tensors alike."""
    found: dict[int, list[Array]] = {word: [] for word in WORDS}
    for tensor in tensors:
        values, size = array("a weight", tensor), tensor.element_size()
        if not values.size:
            continue
        word = next(word for word in WORDS if size % word == 0 == address(tensor) % word)
        at = np.full(1, address(tensor))
        for index, step in zip(np.unravel_index(_looked_at(values), values.shape), values.strides, strict=True):
            at = at + index * step
        found[word] += [at + byte for byte in range(0, size, word)]
    seen = []
    for word, places in found.items():
        if places:
            addresses = np.concatenate(places)
            first, last = int(addresses.min()), int(addresses.max())
            words = np.asarray(Memory(tuple(tensors), {
                "version": 3, "typestr": f"<u{word}", "data": (first, True), "shape": ((last - first) // word + 1,),
            }))  # fmt: skip
            seen.append((words, np.sort((addresses - first) // word)))
    return seen


def _looked_at(values: Array) -> Array:
    """Which values, counted in a row."""

    def spread(count: int) -> Array:
        return np.unique(np.linspace(0, count - 1, min(count, SAMPLES)).astype(np.int64))

    even = spread(values.size)
    if values.flat[even].all():
        return even
    others = np.flatnonzero(values)  # a mask may have left few
    return np.union1d(even, others[spread(others.size)]) if others.size else even
