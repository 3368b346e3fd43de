"""Memory of what plans hold: side by side where a net prepares, by itself elsewhere, and gone with the last of it."""

from __future__ import annotations

import threading
import weakref
from itertools import pairwise

import numpy as np
import pytest

import fastconv
from fastconv._core.arrays import address
from fastconv._core.operands import BLOCK, Slab, aligned_bytes, fresh, held_in, packing


def test_arrays_lie_side_by_side_and_apart():
    slab, sizes = Slab(), [1, 64, 100, BLOCK // 2, BLOCK // 2, 3, BLOCK + 5, 7, BLOCK, 0, 9]
    arrays = [slab.bytes(size) for size in sizes]
    assert [array.size for array in arrays] == sizes
    assert all(address(array) % 64 == 0 and array.flags.writeable for array in arrays)
    spans = sorted((address(array), address(array) + array.size) for array in arrays if array.size)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
    assert address(arrays[1]) == address(arrays[0]) + 64


def test_a_block_goes_with_the_last_that_lies_in_it():
    slab = Slab()
    first, second = slab.bytes(100), slab.bytes(100)
    block = weakref.ref(first.base)
    assert second.base is first.base
    slab.bytes(BLOCK)  # another block
    del first
    assert block() is not None
    del second
    assert block() is None


def test_only_what_this_thread_packs_for_a_plan_lies_in_the_slab():
    slab = Slab()
    with held_in(slab):
        assert aligned_bytes(10).base is not slab._block
        found = []
        with packing():
            assert aligned_bytes(10).base is not None and slab._used == 64
            other = threading.Thread(target=lambda: found.append(aligned_bytes(10)))
            other.start()
            other.join()
        assert slab._used == 64 and len(found) == 1
        fastconv.plan_conv2d((1, 8, 9, 9), np.ones((16, 8, 3, 3), np.float32))
        used = slab._used
        assert used > 64
        fastconv.conv2d(np.ones((1, 8, 9, 9), np.float32), np.ones((16, 8, 3, 3), np.float32))
        assert slab._used == used
    with packing():
        aligned_bytes(10)
    assert slab._used == used


def test_no_room_is_a_memory_error():
    """The system's own error for pages that it has not is an OSError, which callers do not expect of arithmetic."""
    with pytest.raises(MemoryError, match="bytes for weights"):
        fresh(1 << 60)
