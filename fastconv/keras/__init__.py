"""Keras 3 with its convolutions and poolings computed by fastconv: one line, on its NumPy and torch backends.

    import fastconv.keras
    fastconv.keras.install()

`install` puts fastconv behind `keras.layers` and `keras.ops`: convolutions (plain, depthwise, separable, transposed)
and maximum and average poolings of one to three axes. On the torch backend gradients are fastconv's too, so that `fit`
is faster; on the NumPy backend `predict` is, and JAX, which Keras asks for there, is not needed. Whatever fastconv does
not compute goes to Keras' own functions; `report` says what was taken and what was not. `uninstall` puts everything
back, and `installed` is both for a block. Importing this module imports neither Keras nor a backend.
"""

from __future__ import annotations

from .patches import install, installed, report, uninstall
from .tally import Report

__all__ = ["Report", "install", "installed", "report", "uninstall"]
