"""What training measures: metrics, and the history that `fit` returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ..errors import ConvError, keras_has
from ..layers.activations import SOFTMAX, Activation, Softmax
from ..layers.base import Array, Layer

ACCURACY: Final = "accuracy"
Metric = Callable[[Array, Array], float]


@dataclass
class History:
    """What `fit` measured.

    Parameters
    ----------
    epoch : list of int
        Numbers of the epochs, from 0.
    history : dict of lists
        A value an epoch of loss, accuracy, val_loss, val_accuracy, learning_rate and images_per_second; of several
        outputs also of each, such as digit_loss.
    """

    epoch: list[int] = field(default_factory=list)
    history: dict[str, list[float]] = field(default_factory=dict)

    def add(self, epoch: int, values: dict[str, float]) -> None:
        """Append the values of one epoch."""
        self.epoch.append(epoch)
        for name, value in values.items():
            self.history.setdefault(name, []).append(value)


def accuracy(outputs: Array, target: Array) -> float:
    """The share of samples whose largest output is the target (nearest to it, where there is one output alone).

    Parameters
    ----------
    outputs : ndarray
        Of shape (N, ..., classes).
    target : ndarray
        Class numbers, or probabilities of the outputs' shape.

    Returns
    -------
    float
        Between 0 and 1.
    """
    if outputs.shape[-1] == 1 and target.shape == outputs.shape:
        return float(((outputs > 0.5) == (target > 0.5)).mean())
    wanted = target.argmax(axis=-1) if target.ndim == outputs.ndim else target
    return float((outputs.argmax(axis=-1) == wanted).mean())


def metric(value: object) -> tuple[str, Metric]:
    """(name, function) of a metric: 'accuracy' or a function of (outputs, targets)."""
    if isinstance(value, str) and value.lower() in (ACCURACY, "acc"):
        return ACCURACY, accuracy
    if callable(value):
        return getattr(value, "__name__", "metric"), value
    raise ConvError(
        f"metrics must hold 'accuracy' or functions of (outputs, targets), but got {value!r}; {keras_has('metrics')}"
    )


def ends_in_softmax(layer: Layer) -> bool:
    """Whether the output of a layer is a softmax over its last axis.

    Parameters
    ----------
    layer : Layer
        A layer of its own, one with an activation, or a net of one output.

    Returns
    -------
    bool
        True for `Softmax()`, for 'softmax' as an activation, and for a net that ends in one of them.
    """
    if is_softmax(layer):
        return True
    if layer.is_net:
        wiring = layer.wiring  # type: ignore[attr-defined]  # that every net has
        maker = wiring.maker(wiring.outputs[0]) if len(wiring.outputs) == 1 else None
        return maker is not None and len(maker.outputs) == 1 and ends_in_softmax(maker.layer)
    return getattr(layer, "activation", None) is SOFTMAX


def is_softmax(layer: Layer) -> bool:
    """Whether a layer is nothing but a softmax over the last axis."""
    if isinstance(layer, Softmax):
        return layer.axis == -1
    return isinstance(layer, Activation) and layer.function is SOFTMAX
