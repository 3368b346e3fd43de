"""Whether weights are still what a program was made of, asked in every call.

A write through PyTorch (an optimiser, `copy_`, `load_state_dict`, another tensor under the name or under `.data`) is
seen by the counter of the tensor or by where it lies. A write past it (`.data.mul_()`, NumPy, DLPack) moves neither: it
is seen by its values, of which SAMPLES a tensor are looked at, evenly spread. An update of a whole tensor is always
seen, then; one of a few values of a large tensor past PyTorch's counters may not be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from torch import Tensor

from ..ops import Memory, address, stored

SAMPLES: Final = 4
WORD: Final = 4  # bytes that are compared together


class Weights:
    """Tensors, and what tells that they changed."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = [tensor.detach() for tensor in tensors]  # holds the memory, should the caller's go elsewhere
        self.counted = not any(tensor.is_inference() for tensor in tensors)  # those that are have no counter
        self.places = [address(tensor) for tensor in tensors]
        self.versions = _versions(tensors)
        self.memory, self.words = _samples(tensors)
        self.kept = None if self.memory is None else self.memory[self.words]

    def are(self, tensors: Sequence[Tensor]) -> bool:
        """Whether these lie where those lay and, as far as is looked, have their values."""
        if [address(tensor) for tensor in tensors] != self.places:
            return False
        if self.counted and _versions(tensors) != self.versions:
            return False
        return self.memory is None or bool((self.memory[self.words] == self.kept).all())


def _versions(tensors: Sequence[Tensor]) -> list[int] | None:
    """How often tensors were written to."""
    try:
        return [tensor._version for tensor in tensors]
    except RuntimeError:  # one made in inference mode has come in the place of another
        return None


def _samples(tensors: Sequence[Tensor]) -> tuple[Any, Any]:
    """All memory as one array of words, of which only these places are ever read: one look for all tensors."""
    found = []
    for tensor in tensors:
        stored("a weight", tensor)
        size, count = tensor.element_size(), tensor.numel()
        if not count or size % WORD or address(tensor) % WORD:
            continue
        flat = np.unique(np.linspace(0, count - 1, min(count, SAMPLES)).astype(np.int64))
        at = np.zeros(len(flat), np.int64)
        places = np.unravel_index(flat, tuple(tensor.shape)) if tensor.dim() else ()
        for index, step in zip(places, tensor.stride(), strict=True):
            at += index * step
        found += [address(tensor) + at * size + word for word in range(0, size, WORD)]
    if not found:
        return None, None
    addresses = np.concatenate(found)
    first, last = int(addresses.min()), int(addresses.max())
    words = np.asarray(Memory(tuple(tensors), {
        "version": 3, "typestr": "<u4", "data": (first, True), "shape": ((last - first) // WORD + 1,),
    }))  # fmt: skip
    return words, np.sort((addresses - first) // WORD)
