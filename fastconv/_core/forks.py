"""What a forked child makes anew: of the parent's threads only the one that forked goes on in it.

A lock that another thread held would stay taken for ever, and what that thread was changing would stay as it was in the
middle. So every lock is a `Guard`'s, and every object whose state several statements change together is `MadeAnew`; the
child goes through all of them before anything else. This is the one place that is told of forks.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any
from weakref import WeakMethod, WeakSet

from .. import _native

forked = False  # whether this process is a forked child of one that had loaded fastconv
_objects: WeakSet[MadeAnew] = WeakSet()
_functions: list[Callable[[], None]] = []


class MadeAnew(ABC):
    """An object that a forked child puts in order. Copies are on the list too: they pass through here."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        made = super().__new__(cls)
        _objects.add(made)
        return made

    @abstractmethod
    def after_fork(self) -> None:
        """In the child: become whole. The constructor may not have ended."""


class Guard(MadeAnew):
    """A lock and what a forked child does if another thread held it: `with guard.lock: ...`.

    `drop`, a method, lets go of what the lock guards, which may be half changed. It replaces objects and does not
    change them: it may be the thread that forked that held the lock and goes on with what it has.
    """

    def __init__(self, drop: Callable[[], object]) -> None:
        self.lock = threading.Lock()
        self._drop = WeakMethod(drop)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles of the owner have a lock of their own."""
        return Guard, (self._drop(),)

    def after_fork(self) -> None:
        before = self.__dict__.get("lock")
        if before is not None:
            self.lock = threading.Lock()
            drop = self._drop() if before.locked() else None
            if drop is not None:
                drop()


def in_child(function: Callable[[], None]) -> Callable[[], None]:
    """Decorates what every forked child calls."""
    _functions.append(function)
    return function


def _after_fork() -> None:
    global forked
    forked = True
    _native.after_fork()  # plans made before hold a number of threads
    for made in list(_objects):
        made.after_fork()
    for function in _functions:
        function()


if (_main := threading.main_thread().ident) is not None:
    _native.set_main_thread(_main)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
