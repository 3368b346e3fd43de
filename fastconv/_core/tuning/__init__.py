"""What a choice knows of a machine beside its registers: cache sizes, and numbers that were measured on it.

A method names its own numbers, with values that hold on all machines measured so far; a module here gives those of one
kind of machine, with the machine, the date and the command beside them. An unknown machine takes `generic`: the usual
numbers, and budgets that follow from the sizes of its caches. No result depends on a budget of a forward pass or input
gradient; which method pays does decide bits, and is the same in every call on a machine.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T", bound=tuple[Any, ...])
LEAST_SECOND = 256 << 10  # bytes of second-level cache that budgets count on


class Tuning(NamedTuple):
    """A machine's caches and the numbers measured on it, by method and name."""

    name: str
    first: int  # bytes of first-level data cache a core
    second: int  # bytes of second-level cache a core
    measured: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...] = ()

    def of(self, method: str, usual: T) -> T:
        """The numbers of a method: the `usual` named tuple with what was measured in place of its fields."""
        found: T = _of(self, method, usual)
        return found

    def share(self, parts: int) -> int:
        """So many 128ths of the second-level cache, in bytes."""
        return max(self.second, LEAST_SECOND) // 128 * parts


@lru_cache(maxsize=64)
def _of(tuning: Tuning, method: str, usual: T) -> T:
    own = dict(dict(tuning.measured).get(method, ()))
    return usual._replace(**own) if own else usual  # type: ignore[attr-defined]


@lru_cache(maxsize=1)
def tuning_here() -> Tuning:
    """The set of this machine: measured where it is known, else derived from its caches."""
    from ..machine import caches, microarchitecture
    from . import zen

    if microarchitecture() in zen.MACHINES:
        return zen.TUNING
    return Tuning("generic", *caches())
