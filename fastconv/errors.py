"""The two exceptions of the package, and how it says that it cannot be imported."""

import os
import sys
from typing import NoReturn


class ConvError(ValueError, RuntimeError):
    """A value, a shape or a combination of options that has no meaning.

    Both a `ValueError` (what Keras raises) and a `RuntimeError` (what PyTorch raises), so that code ported from
    either keeps catching it.
    """


class ConvTypeError(TypeError, RuntimeError):
    """An argument of a type, or an array of an element type, that cannot be convolved."""


def keras_has(what: str) -> str:
    """The way out where Keras has something that is not here."""
    return f"what else Keras' {what} have is Keras' own: use Keras itself, made fast by fastconv.keras.install()."


def import_refused(message: str) -> NoReturn:
    """Raise `ImportError`, in a form that both ways to start the command line show as one line."""
    if os.path.basename(sys.argv[0] if sys.argv else "") == "fastconv":  # the installed command
        raise SystemExit(f"fastconv: error: {message}")
    raise ImportError(message, name="fastconv")  # by this name `python -m fastconv` shows no traceback
