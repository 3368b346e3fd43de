"""`install`, `uninstall`: fastconv's functions in the place of those that Keras' layers and operators look up.

`keras.layers` and `keras.ops` call `keras.src.backend.nn.conv` and its like, which they look up in the backend's module
at every call: these attributes are what changes, and nothing else of Keras.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final

from .._core.forks import Guard
from ..errors import ConvError, ConvTypeError
from . import finding
from .operators import OPERATORS, Asked, Host, Left
from .tally import Report, Tally

Read = Callable[..., Asked]


class _Switch:
    """Whether the functions of one installation compute; whoever kept one after `uninstall` has Keras' own."""

    on = True


def _patched(name: str, read: Read, theirs: Any, host: Host, tally: Tally, switch: _Switch) -> Any:
    """fastconv's function in the place of Keras' own of this name."""

    @functools.wraps(theirs)
    def function(*args: Any, **kwargs: Any) -> Any:
        if not switch.on or (by := host.passes_by()) is not None:
            if switch.on and by:
                tally.left(name, by)
            return theirs(*args, **kwargs)
        refused: Exception | None = None
        try:
            y = host.compute(name, read(host, *args, **kwargs), theirs)
        except Left as left:
            why = str(left)
        except (ConvError, ConvTypeError) as error:  # Keras says it in its own words, or takes it
            why, refused = "what fastconv refuses", error
        else:
            tally.took(name)
            return y
        if why:
            tally.left(name, why)
        try:
            return theirs(*args, **kwargs)
        except ModuleNotFoundError as error:
            if error.name != "jax":
                raise
            raise refused or ConvError(f"keras.ops.{name}: {why}. {error}") from error

    return function


def _switched(theirs: Any, ours: Any, switch: _Switch) -> Any:
    """ours while it is installed."""

    @functools.wraps(theirs)
    def function(*args: Any, **kwargs: Any) -> Any:
        return ours(*args, **kwargs) if switch.on else theirs(*args, **kwargs)

    return function


def _host(backend: str, nn: ModuleType, tally: Tally) -> Host:
    if backend == "torch":
        from .on_torch import TorchHost

        return TorchHost(nn, tally)
    from .on_numpy import NumpyHost

    return NumpyHost(nn)


class _Installation:
    """What is patched in which modules, and what was there before."""

    def __init__(self, backend: str, nn: ModuleType) -> None:
        self.backend = backend
        self.tally = Tally()
        self._switch = _Switch()
        self._host = host = _host(backend, nn, self.tally)
        self._kept: list[tuple[Any, str, Any, Any]] = []  # module, name, Keras', ours
        for name, read in OPERATORS.items():
            theirs = getattr(nn, name)
            self._kept.append((nn, name, theirs, _patched(name, read, theirs, host, self.tally, self._switch)))
        for module, name, make in host.patches():
            theirs = getattr(module, name)
            self._kept.append((module, name, theirs, _switched(theirs, make(theirs), self._switch)))

    def put(self) -> None:
        """Patch."""
        for module, name, _, ours in self._kept:
            setattr(module, name, ours)

    def take_back(self) -> None:
        """Put everything back. Where somebody has wrapped ours since, theirs stays, and reaches Keras' through it."""
        self._host.close()
        self._switch.on = False
        for module, name, theirs, ours in self._kept:
            if getattr(module, name, None) is ours:
                setattr(module, name, theirs)


class _State:
    """The one installation of the process, if there is one, and the last one's counts."""

    def __init__(self) -> None:
        self.guard = Guard(self.whole)
        self.current: _Installation | None = None  # once it is whole
        self.last: _Installation | None = None  # from before its first patch on
        self.blocks = 0  # of `installed`, in which threads are
        self.for_good = False  # `install` was called

    def whole(self) -> None:
        """After a fork in the middle of a change: not installed."""
        if self.last is not None and self.current is None:
            self.last.take_back()

    def ensure(self, backend: str, nn: ModuleType) -> None:
        """Install in this backend if it is not."""
        if self.current is None:
            self.last = _Installation(backend, nn)
            self.last.put()
            self.current = self.last

    def end(self) -> None:
        """Take it back if it is installed."""
        made, self.current, self.for_good = self.current, None, False
        if made is not None:
            made.take_back()

    def report(self) -> Report:
        if self.last is None:
            return Report("", False, {}, {})
        return self.last.tally.report(self.last.backend, self.current is not None)


_state: Final = _State()


def install() -> None:
    """Let fastconv compute the convolutions and poolings of Keras, on its NumPy or torch backend.

    Before or after `import keras`; on the NumPy backend without JAX before it, as Keras cannot be imported there
    otherwise. Models made before are faster too. A second call changes nothing.

    Raises
    ------
    ImportError
        If Keras or its backend is missing, or its version or backend is one that fastconv does not work in; the message
        says what to install or to set.

    Examples
    --------
    >>> import fastconv.keras
    >>> fastconv.keras.install()  # doctest: +SKIP
    >>> model.fit(images, labels)  # doctest: +SKIP
    >>> fastconv.keras.report()  # doctest: +SKIP
    """
    found = finding.load()  # imports without the lock
    with _state.guard.lock:
        _state.ensure(*found)
        _state.for_good = True


def uninstall() -> None:
    """Give Keras its own functions back: the same objects as before `install`. Without it nothing happens.

    Packed weights are freed. Calls that other threads are in the middle of end first.
    """
    with _state.guard.lock:
        _state.end()


@contextmanager
def installed() -> Iterator[None]:
    """Install for a `with` block, for all threads; within an installation that was there before nothing changes.

    Blocks may overlap: the last one that ends takes it back.

    Yields
    ------
    None
        Nothing; `report` says what was computed, also after the block.
    """
    found = finding.load()
    with _state.guard.lock:
        _state.ensure(*found)
        _state.blocks += 1
    try:
        yield
    finally:
        with _state.guard.lock:
            _state.blocks -= 1
            if not _state.blocks and not _state.for_good:
                _state.end()


def report() -> Report:
    """What fastconv has computed since the last `install`, and what fell through to Keras, and why.

    Returns
    -------
    Report
        Print it for a table.
    """
    with _state.guard.lock:
        return _state.report()
