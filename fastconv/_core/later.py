"""Modules that are imported when something of them is first asked for, so that `import fastconv` stays cheap.

What computes is needed by the first call, not by whoever imports the package: some 30 modules, which take longer than
all others.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


class Later:
    """A module of this package; its names are its attributes, each remembered when it was asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(import_module(f".{self._name}", __package__), name)
        setattr(self, name, value)
        return value
