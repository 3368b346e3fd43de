"""A function that a person names: 'path.py:function' or 'package.module:function'."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ConvError


def named_function(place: str, attribute: str) -> Callable[[], Any]:
    """The function of a file, which is executed, or of a module. Raises `ConvError` that says what is wrong."""
    try:
        if place.endswith(".py"):
            spec = importlib.util.spec_from_file_location(f"given_{Path(place).stem}", place)
            assert spec is not None and spec.loader is not None  # as the name ends with .py
            found = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = found  # where dataclasses of the file look themselves up
            spec.loader.exec_module(found)
        else:
            found = importlib.import_module(place)
    except Exception as error:  # whatever the file does
        raise ConvError(f"{place} cannot be loaded ({type(error).__name__}: {error}).") from error
    made: Callable[[], Any] | None = getattr(found, attribute, None)
    if made is None:
        raise ConvError(f"{place} has no function {attribute!r}.")
    if not callable(made):
        raise ConvError(f"{attribute!r} of {place} is no function, but a {type(made).__name__}.")
    return made
