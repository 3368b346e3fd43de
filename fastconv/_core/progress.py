"""A progress bar: tqdm's where it is installed, one line of plain text that is written over otherwise."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Any

from . import forks

REDRAW_SECONDS = 0.1  # often enough to look alive, seldom enough to cost nothing


def _tqdm() -> Any:
    """tqdm's bar, None without it; in a forked child with a lock of its own: the parent's threads may hold tqdm's."""
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return type("Bar", (tqdm,), {"_lock": threading.RLock(), "monitor_interval": 0}) if forks.forked else tqdm


class Progress:
    """Counts towards `total` (None: unknown) and shows text behind the count; `show=False` counts silently.

    Use as a context manager; `step(count, text)` moves it on.
    """

    def __init__(self, total: int | None, title: str, show: bool = True, unit: str = "images") -> None:
        self.total, self.title, self.unit = total, title, unit
        self.done = 0
        self._begin = time.perf_counter()
        self._last_draw = 0.0
        self._width = 0
        self._show = show
        self._bar: Any = None
        if show:
            bar = _tqdm()
            if bar is not None:
                self._bar = bar(total=total, desc=title, unit=f" {unit}", mininterval=REDRAW_SECONDS, leave=True)

    @property
    def rate(self) -> float:
        """Units a second so far."""
        return self.done / max(time.perf_counter() - self._begin, 1e-9)

    def step(self, count: int, text: str = "") -> None:
        """`count` more are done."""
        self.done += count
        if not self._show:
            return
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(count)
            return
        now = time.perf_counter()
        if now - self._last_draw >= REDRAW_SECONDS or self.done == self.total:
            self._last_draw = now
            self._draw(text)

    def finish(self, text: str) -> None:
        """The last word about this run."""
        if self._bar is not None:
            self._bar.set_postfix_str(text)
        elif self._show:
            self._draw(text)

    def _draw(self, text: str) -> None:
        of = "" if self.total is None else f"/{self.total}"
        line = f"{self.title}: {self.done}{of} {self.unit}, {self.rate:,.0f} a second  {text}"
        sys.stderr.write("\r" + line.ljust(self._width))
        sys.stderr.flush()
        self._width = len(line)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._show and self._width:
            sys.stderr.write("\n")
