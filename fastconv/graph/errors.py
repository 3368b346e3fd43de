"""What can be wrong with a model or with what it is fed, and the door to the optional package."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..errors import ConvError


class OnnxError(ConvError):
    """A file, a graph or an input that cannot be run; the message names it and the way out."""


class UnsupportedOperator(OnnxError):
    """The graph holds operators that fastconv does not have.

    Parameters
    ----------
    message : str
        The text.
    operators : tuple of str
        Their names.
    """

    def __init__(self, message: str, operators: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.operators = operators


class TooLarge(OnnxError):
    """A value would take more memory than is allowed."""


def onnx_package() -> Any:
    """The package `onnx`: it writes files, and knows the types that NumPy has not."""
    try:
        return import_module("onnx")
    except ImportError as error:
        raise ImportError(
            f"this takes the package onnx ({error}); install it with: pip install fastconv[onnx]"
        ) from error
