"""Callbacks in Keras' words: what `fit`, `evaluate` and `predict` call while they run.

Whatever has these methods will do; Keras' own callbacks do, but those that write files of Keras' models.
"""

from __future__ import annotations

from typing import Any

from .base import Callback
from .own import CSVLogger, EarlyStopping, LearningRateScheduler, ModelCheckpoint


def __getattr__(name: str) -> Any:
    if name[:1].isupper():
        raise AttributeError(
            f"fastconv.callbacks has no {name}; Keras' own callbacks work too: pass keras.callbacks.{name}(...) to fit."
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["CSVLogger", "Callback", "EarlyStopping", "LearningRateScheduler", "ModelCheckpoint"]
