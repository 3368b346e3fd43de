"""What is said of a name that a module here does not have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn


def refusing(module: str, names: Sequence[str]) -> Callable[[str], NoReturn]:
    """The `__getattr__` of a module that has these names of SciPy's of the same name."""
    theirs = module.removeprefix("fastconv.")

    def missing(name: str) -> NoReturn:
        raise AttributeError(
            f"module {module!r} has no attribute {name!r}: it has {', '.join(sorted(names))}. SciPy's own serve for "
            f"the rest: {theirs}.",
            name=name,
        )

    return missing
