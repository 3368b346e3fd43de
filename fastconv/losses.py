"""Losses with Keras' names: the mean over the batch and its gradient.

Cross-entropy is computed from what goes into the softmax (the logits), whether the model ends in a softmax or not:
log-sum-exp neither overflows nor loses small probabilities.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ._core.arrays import as_array
from ._core.words import flag
from .errors import ConvError, ConvTypeError, keras_has
from .layers.base import real

Array = NDArray[Any]


class Loss:
    """The mean over a batch and its gradient; `check` refuses targets before anything is computed."""

    name = "loss"
    from_softmax = False  # takes logits: the softmax that ends a model is left to the loss

    def check(self, y: object, outputs: tuple[int, ...]) -> Array:
        """Targets as the loss takes them.

        Parameters
        ----------
        y : array_like
            The targets.
        outputs : tuple of int
            The shape of one output of the model.

        Returns
        -------
        ndarray
            Of as many samples.

        Raises
        ------
        ConvError
            For a shape or a label that does not fit.
        """
        target = as_array("y", y)
        if target.shape[1:] != outputs:
            if (*target.shape[1:], 1) == outputs:
                return target[..., None]
            raise ConvError(f"y must have the shape (N, *{outputs}) for loss {self.name}, but got {target.shape}.")
        return target

    def __call__(self, outputs: Array, target: Array) -> tuple[float, Array]:
        """(mean over the batch, gradient with respect to the outputs)."""
        raise NotImplementedError


class SoftmaxCrossEntropy(Loss):
    """-log softmax(z)[label], averaged over the batch.

    Targets are class numbers (N,) or probabilities (N, classes).

    Parameters
    ----------
    from_logits : bool
        The outputs are those before the softmax (or sigmoid); a softmax that ends the model is left out in either case.
    label_smoothing : float
        With e, a one-hot target becomes (1 - e) * target + e / classes (Szegedy et al., 2016).
    """

    name = "softmax_cross_entropy"
    from_softmax = True
    takes: tuple[str, ...] = ("classes", "probabilities")

    def __init__(self, from_logits: bool = False, label_smoothing: float = 0.0) -> None:
        self.from_logits = flag("from_logits", from_logits)
        self.label_smoothing = real("label_smoothing", label_smoothing, 0, 1)

    def check(self, y: object, outputs: tuple[int, ...]) -> Array:
        target = as_array("y", y)
        classes = outputs[-1]
        spread = target.shape[1:] == outputs and not (classes == 1 and target.dtype.kind in "iu")
        if target.ndim == len(outputs) + 1 and target.shape[1:] == (*outputs[:-1], 1) and classes > 1:
            target, spread = target[..., 0], False
        kind = "probabilities" if spread else "classes"
        if (not spread and target.shape[1:] != outputs[:-1]) or kind not in self.takes:
            shapes = {"classes": f"({', '.join(map(str, ('N', *outputs[:-1])))}) of integers",
                      "probabilities": f"({', '.join(map(str, ('N', *outputs)))})"}
            wanted = " or ".join(shapes[k] for k in self.takes)
            raise ConvError(
                f"y must have the shape {wanted} for loss {self.name} and {classes} classes, but got shape "
                f"{target.shape}."
            )
        if spread:
            return target
        if target.dtype.kind not in "iu":
            if not bool((target == np.floor(target)).all()):
                raise ConvTypeError(f"y must hold whole class numbers for loss {self.name}, but got {target.dtype}.")
            target = target.astype(np.int64)
        if target.size and not 0 <= int(target.min()) <= int(target.max()) < classes:
            wrong = target[(target < 0) | (target >= classes)].reshape(-1)[0]
            raise ConvError(
                f"y holds the label {int(wrong)}, but the model's last layer has {classes} outputs: labels must be "
                f"0 to {classes - 1}."
            )
        return target

    def __call__(self, outputs: Array, target: Array) -> tuple[float, Array]:
        classes = outputs.shape[-1]
        grad = outputs - outputs.max(axis=-1, keepdims=True)
        flat = grad.reshape(-1, classes)
        count = max(1, len(flat))
        exponential = np.exp(flat)
        total = exponential.sum(axis=-1, keepdims=True)
        log_probability = flat - np.log(total)
        e = self.label_smoothing
        if target.ndim == outputs.ndim:
            wanted = target.reshape(-1, classes).astype(outputs.dtype)
            if e:
                wanted = wanted * (1 - e) + e / classes
            value = -float((wanted * log_probability).sum(dtype=np.float64)) / count
            weight = wanted.sum(axis=-1, keepdims=True)
            return value, (((exponential / total) * weight - wanted) / count).reshape(outputs.shape)
        rows = np.arange(len(flat))
        labels = target.reshape(-1)
        value = -(1 - e) * float(log_probability[rows, labels].sum(dtype=np.float64)) / count
        gradient = exponential / total
        if e:
            value -= e / classes * float(log_probability.sum(dtype=np.float64)) / count
            gradient -= e / classes
        gradient[rows, labels] -= 1 - e
        gradient /= count
        return value, gradient.reshape(outputs.shape)


class SparseCategoricalCrossentropy(SoftmaxCrossEntropy):
    """Softmax cross-entropy with class numbers (N,) as targets."""

    name = "sparse_categorical_crossentropy"
    takes = ("classes",)


class CategoricalCrossentropy(SoftmaxCrossEntropy):
    """Softmax cross-entropy with one-hot targets or probabilities (N, classes)."""

    name = "categorical_crossentropy"
    takes = ("probabilities",)


class MeanSquaredError(Loss):
    """The mean of (output - target)^2 over all values."""

    name = "mean_squared_error"

    def __call__(self, outputs: Array, target: Array) -> tuple[float, Array]:
        difference = outputs - target.astype(outputs.dtype, copy=False)
        count = max(1, difference.size)
        return float(np.square(difference).sum(dtype=np.float64)) / count, difference * outputs.dtype.type(2 / count)


class BinaryCrossentropy(Loss):
    """-(t log p + (1 - t) log(1 - p)), averaged over all values.

    Parameters
    ----------
    from_logits : bool
        Take the sigmoid of the output as p, not the output itself.
    label_smoothing : float
        With e, t becomes (1 - e) * t + e / 2.
    """

    name = "binary_crossentropy"

    def __init__(self, from_logits: bool = False, label_smoothing: float = 0.0) -> None:
        self.from_logits = flag("from_logits", from_logits)
        self.label_smoothing = real("label_smoothing", label_smoothing, 0, 1)

    def __call__(self, outputs: Array, target: Array) -> tuple[float, Array]:
        t = target.astype(outputs.dtype, copy=False) * (1 - self.label_smoothing) + self.label_smoothing / 2
        count = max(1, outputs.size)
        if self.from_logits:
            e = np.exp(-np.abs(outputs))
            value = np.maximum(outputs, 0) - outputs * t + np.log1p(e)
            grad = np.where(outputs >= 0, 1, e) / (1 + e) - t
        else:
            p = np.clip(outputs, 1e-7, 1 - 1e-7)  # Keras' bound: neither logarithm is infinite
            value = -(t * np.log(p) + (1 - t) * np.log1p(-p))
            grad = (p - t) / (p * (1 - p))
        return float(value.sum(dtype=np.float64)) / count, (grad / count).astype(outputs.dtype, copy=False)


LOSSES: Final[dict[str, type[Loss]]] = {
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
    "categorical_crossentropy": CategoricalCrossentropy,
    "softmax_cross_entropy": SoftmaxCrossEntropy,
    "binary_crossentropy": BinaryCrossentropy,
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
}


def loss(value: object) -> Loss:
    """A loss, or the one that a name stands for with its defaults.

    Parameters
    ----------
    value : str or Loss
        Such as 'mse' or `MeanSquaredError()`.

    Returns
    -------
    Loss
        The object itself, or a new one.

    Raises
    ------
    ConvError, ConvTypeError
        For an unknown name, or what is neither.
    """
    if isinstance(value, Loss):
        return value
    names, more = ", ".join(map(repr, LOSSES)), keras_has("losses")
    if not isinstance(value, str):
        raise ConvTypeError(f"loss must be a loss or one of {names}, but got {value!r}; {more}")
    found = LOSSES.get(value.lower())
    if found is None:
        raise ConvError(f"loss must be a loss or one of {names}, but got loss={value!r}; {more}")
    return found()
