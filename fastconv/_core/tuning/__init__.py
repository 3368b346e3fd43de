"""What a choice knows of a machine beside its registers: cache sizes, and numbers that were measured on it.

A method names its own numbers, with values that hold on all machines measured so far; a module here gives those of one
kind of machine, with the machine, the date and the command beside them. An unknown machine takes `generic`: the usual
numbers, and budgets that follow from the sizes of its caches. No result depends on a budget of a forward pass or input
gradient; which method pays does decide bits, and is the same in every call on a machine.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar

from ..record import NamedTuple

T = TypeVar("T")
LEAST_SECOND = 256 << 10  # bytes of second-level cache that budgets count on


class Tuning(NamedTuple):
    """A machine's caches and the numbers measured on it, by method and name."""

    name: str
    first: int  # bytes of first-level data cache a core
    second: int  # bytes of second-level cache a core
    measured: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...] = ()

    def of(self, method: str, usual: type[T]) -> T:
        """The numbers of a method: those of the class `usual`, with what was measured in their place."""
        found: T = _of(self, method, usual)  # type: ignore[arg-type]
        return found

    def share(self, parts: int) -> int:
        """So many 128ths of the second-level cache, in bytes."""
        return max(self.second, LEAST_SECOND) // 128 * parts


@lru_cache(maxsize=64)
def _of(tuning: Tuning, method: str, usual: type[T]) -> T:
    own = usual()
    for name, value in dict(tuning.measured).get(method, ()):
        if not hasattr(usual, name):
            raise AttributeError(f"{method} has no number {name!r} that could be tuned")
        kind = type(getattr(usual, name))
        setattr(own, name, kind(*value) if hasattr(kind, "_fields") else value)
    return own


@lru_cache(maxsize=1)
def tuning_here() -> Tuning:
    """The set of this machine: measured where it is known, else derived from its caches."""
    from ..machine import caches, microarchitecture
    from . import zen

    if microarchitecture() in zen.MACHINES:
        return zen.TUNING
    return Tuning("generic", *caches())
