"""Objects that remember what they were made with, so that a file can say it."""

from __future__ import annotations

import inspect
from typing import Any, Self

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Made:
    """Keeps the arguments of its constructor, by position and by name, in `_made_with`."""

    _made_with: Arguments = ((), {})

    def __new__(cls, *args: Any, **options: Any) -> Self:
        made = super().__new__(cls)
        if args or options:
            made._made_with = args, options
        return made


def by_name(made: Made) -> dict[str, Any]:
    """The arguments by their names in the constructor's signature; those of `**options` among them.

    Raises `TypeError` for a constructor that takes any number of arguments by position.
    """
    args, options = made._made_with
    bound = inspect.signature(type(made)).bind(*args, **options)
    found: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            found.update(value)
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            raise TypeError(f"{type(made).__name__} takes any number of arguments")
        else:
            found[name] = value
    return found
