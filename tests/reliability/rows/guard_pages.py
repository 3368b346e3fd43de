"""Not one byte is read or written outside any array or outside scratch memory, and no result needs an alignment."""

from __future__ import annotations

import ctypes
import os

import numpy as np

from reliability import allocator
from reliability.allocator import BEFORE, BEHIND, POISONED, guarded, with_allocator
from reliability.board import Outcome, first_case, row
from reliability.workers import Found, share
from reliability.workload import Array, difference, works

MOST_OFFSET = 64  # a cache line, and the widest vector


@row(
    "guard pages: inputs, weights, outputs and scratch flush against an inaccessible page, behind and before",
    "20,000 configurations, 0 faults",
    quick=400, full=20_000, order=40, every_isa=True,
)  # fmt: skip
@with_allocator
def guard_pages(count: int) -> Outcome:
    """Memory before a guard page is full of NaN at first, so that reading before writing shows too."""
    outcome = Outcome()
    for mode in (BEHIND, BEFORE):
        outcome.check(_guards(mode), f"a byte too far is no fault (mode {mode}): the guard does not guard")
    total = share(check_guarded, count).outcome
    total.cases += outcome.cases
    for failure in outcome.failures:
        total.fail(failure)
    return total


def check_guarded(indices: range) -> Found:
    allocator.install()
    found = Found()
    for work in works(len(indices), indices.start, indices.step):
        expected = work.results()
        for mode, where in ((BEHIND | POISONED, "behind"), (BEFORE, "before")):
            allocator.note(f"guard page {where} every block: {work}")
            with guarded(mode):
                wrong = difference(work.results(), expected)
            if wrong:
                break
        found.outcome.check(not wrong, f"{wrong}, guard page {where}: {work}")
    return found


def _guards(mode: int) -> bool:
    """A child that reads one byte too far of an array is killed."""
    with guarded(mode):
        array = np.ones((3, 5), np.uint8)
    child = os.fork()
    if child == 0:
        os.close(2)  # its fault is expected
        ctypes.string_at(array.ctypes.data + (array.size if mode == BEHIND else -1), 1)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@row(
    "misaligned pointers (every offset 0...63 bytes in steps of the item size), canaries around outputs",
    "2,000 configurations, 0 differences",
    quick=200, full=2_000, order=50, every_isa=True,
)  # fmt: skip
def misaligned(count: int) -> Outcome:
    outcome = Outcome()
    for number, work in enumerate(works(count, first_case())):
        expected = work.results()
        placed = Misaligned(number)
        wrong = difference(work.results(placed), expected) or placed.damage()
        outcome.check(not wrong, f"{wrong}: {work}")
    return outcome


class Misaligned:
    """Copies of arrays, each at the next offset from a cache line, between two canaries."""

    CANARY = 0xA5

    def __init__(self, first: int) -> None:
        self.number = first
        self.canaries: list[Array] = []

    def __call__(self, array: Array) -> Array:
        offset = self.number * array.itemsize % MOST_OFFSET
        self.number += 1
        room = np.full(array.nbytes + 4 * MOST_OFFSET, self.CANARY, np.uint8)
        begin = MOST_OFFSET + -room.ctypes.data % MOST_OFFSET + offset
        copy: Array = np.ndarray(array.shape, array.dtype, room, begin)
        copy[...] = array
        self.canaries += [room[:begin], room[begin + array.nbytes :]]
        return copy

    def damage(self) -> str:
        hurt = sum((canary != self.CANARY).any() for canary in self.canaries)
        return f"{hurt} canaries beside arrays were overwritten" if hurt else ""
