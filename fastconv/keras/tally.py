"""What was taken and what fell through, counted by many threads at once; `Report` shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from .._core.forks import Guard


@dataclass(frozen=True)
class Report:
    """What fastconv computed for Keras since `install`; print it for a table.

    Parameters
    ----------
    backend : str
        Keras' backend, empty before the first `install`.
    active : bool
        Whether fastconv was installed when the report was made.
    taken : mapping of str to int
        Calls that fastconv computed, by operator; gradients are an operator of their own (``'conv backward'``).
    fell_through : mapping of (str, str) to int
        Calls that Keras' own functions computed, by operator and reason.
    """

    backend: str
    active: bool
    taken: Mapping[str, int]
    fell_through: Mapping[tuple[str, str], int]

    def __str__(self) -> str:
        state = f"installed in Keras on {self.backend}" if self.active else "not installed"
        if not self.taken and not self.fell_through:
            return f"fastconv.keras: {state}; no calls yet"
        lines = [("operator", "fastconv", "Keras", "why")]
        lines += [(name, f"{count:,}", "", "") for name, count in sorted(self.taken.items())]
        lines += [(name, "", f"{count:,}", why) for (name, why), count in sorted(self.fell_through.items())]
        widths = [max(len(line[i]) for line in lines) for i in range(4)]
        table = [
            f"{name:{widths[0]}}  {ours:>{widths[1]}}  {theirs:>{widths[2]}}  {why}".rstrip()
            for name, ours, theirs, why in lines
        ]
        ours, theirs = sum(self.taken.values()), sum(self.fell_through.values())
        return "\n".join([*table, f"fastconv.keras: {state}; {ours:,} calls by fastconv, {theirs:,} by Keras itself"])

    __repr__ = __str__


class Tally:
    """The counts of one installation."""

    def __init__(self) -> None:
        self._guard = Guard(self.clear)
        self.clear()

    def clear(self) -> None:
        """Begin at nothing."""
        self._taken: Counter[str] = Counter()
        self._left: Counter[tuple[str, str]] = Counter()

    def took(self, name: str) -> None:
        """One more call that fastconv computed."""
        with self._guard.lock:
            self._taken[name] += 1

    def left(self, name: str, why: str) -> None:
        """One more call that went to Keras' own function."""
        with self._guard.lock:
            self._left[name, why] += 1

    def report(self, backend: str, active: bool) -> Report:
        """The counts as they stand."""
        with self._guard.lock:
            return Report(backend, active, dict(self._taken), dict(self._left))
