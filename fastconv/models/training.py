"""Training with Keras' words: compile, fit, evaluate, predict, train_on_batch.

A step computes everything before it changes anything: when the loss is not finite or a shape is wrong, weights and
running statistics are as they were before it.
"""

from __future__ import annotations

import signal
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import losses, optimizers
from .._core.arrays import as_array, is_ndarray, plain
from .._core.progress import Progress
from .._core.rounding import checked_halves, require_single
from .._core.words import flag
from ..callbacks import Callbacks
from ..errors import ConvError, ConvTypeError
from ..layers import memory
from ..layers.activations import SOFTMAX, Activation, Softmax
from ..layers.base import Layer, Parameter, Sample, all_layers, locating, positive
from ..layers.core import chain_backward
from .inference import InferencePlan

Array = NDArray[Any]
Metric = Callable[[Array, Array], float]


@dataclass
class History:
    """What `fit` measured.

    Parameters
    ----------
    epoch : list of int
        Numbers of the epochs, from 0.
    history : dict of lists
        A value an epoch of loss, accuracy, val_loss, val_accuracy, learning_rate and images_per_second.
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
    if isinstance(value, str) and value.lower() in ("accuracy", "acc"):
        return "accuracy", accuracy
    if callable(value):
        return getattr(value, "__name__", "metric"), value
    raise ConvError(f"metrics must hold 'accuracy' or functions of (outputs, targets), but got {value!r}.")


def ends_in_softmax(layer: Layer) -> bool:
    """Whether the output of a layer is a softmax over its last axis.

    Parameters
    ----------
    layer : Layer
        A layer of its own, or one with an activation.

    Returns
    -------
    bool
        True for `Softmax()`, and for 'softmax' as an activation.
    """
    if isinstance(layer, Softmax):
        return layer.axis == -1
    if isinstance(layer, Activation):
        return layer.function is SOFTMAX
    return getattr(layer, "activation", None) is SOFTMAX


class _Interrupt:
    """Whether Ctrl-C was pressed."""

    pressed = False


@contextmanager
def between_batches() -> Iterator[_Interrupt]:
    """Ctrl-C is noted for the end of the batch, so that no step is cut in half; a second one interrupts at once."""
    noted = _Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: Any) -> None:
        if noted.pressed:
            raise KeyboardInterrupt
        noted.pressed = True

    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before if before is not None else signal.SIG_DFL)


class Trainable:
    """The training methods of a model; they need `layers`, `forward` and `backward` from the class they join."""

    layers: list[Layer]
    name: str
    optimizer: optimizers.Optimizer | None = None
    loss: losses.Loss | None = None
    metrics: Sequence[tuple[str, Metric]] = ()
    history: History | None = None
    precision: str | None = None  # what the operands of its layers are rounded to
    stop_training: bool = False  # set while `fit` runs, it ends the training
    _arena: memory.Arena  # activations and gradients of a step, used again by the next

    def compile(
        self,
        optimizer: str | optimizers.Optimizer = "adam",
        loss: str | losses.Loss = "sparse_categorical_crossentropy",
        metrics: Sequence[str | Metric] = (),
        *,
        precision: str | None = None,
    ) -> None:
        """Choose how to train.

        Parameters
        ----------
        optimizer : str or Optimizer
            'sgd', 'adam', 'adamw' (with Keras' defaults) or an object of `fastconv.optimizers`.
        loss : str or Loss
            A name in Keras' words or an object of `fastconv.losses`.
        metrics : sequence of str or callable
            'accuracy', or functions of (outputs, targets).
        precision : {'float32', 'bfloat16'}, optional
            'bfloat16' rounds the operands of convolutions and dense layers to it, forward and backward, in steps and in
            `predict`; sums, weights and the optimiser stay float32.

        Raises
        ------
        ConvError, ConvTypeError
            For an unknown name, or a loss that takes logits on a model that ends in a softmax.
        """
        chosen, wanted = optimizers.optimizer(optimizer), losses.loss(loss)
        if isinstance(metrics, str):
            raise ConvTypeError(f"metrics must be a list, such as [{metrics!r}], but got {metrics!r}.")
        measured = [metric(value) for value in metrics]
        if getattr(wanted, "from_logits", False) and self.layers and ends_in_softmax(self.layers[-1]):
            raise ConvError(
                f"loss with from_logits=True takes logits, but {self.name} ends in a softmax ({self.layers[-1].name}); "
                "leave out one of them."
            )
        halves = checked_halves(None, precision)
        for layer in self.layers:
            for one in (layer, *all_layers(layer)):
                require_single(halves, one.dtype)
                one.precision = halves.packed or None
        self.precision = halves.packed or None
        self.optimizer, self.loss, self.metrics = chosen, wanted, measured

    # ---- one batch ----------------------------------------------------------------------------------------------

    def _compiled(self) -> tuple[optimizers.Optimizer, losses.Loss]:
        if not self.layers:
            raise ConvError(f"{self.name} has no layers: there is nothing to train or to measure.")
        if self.optimizer is None or self.loss is None:
            raise ConvError(f"{self.name} is not compiled: call compile(optimizer, loss) first.")
        return self.optimizer, self.loss

    def _model(self) -> Layer:
        return cast(Layer, self)

    def _checked(self, x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
        """Inputs and targets of the same number, in range; the model is built."""
        _, loss = self._compiled()
        inputs = as_array("x", x)
        if inputs.ndim == 0 or len(inputs) == 0:
            raise ConvError(f"x holds no samples to learn from (shape {inputs.shape}).")
        model = self._model()
        if not model._takes_batch(inputs.shape):
            text = model._axes_text("N, ")
            raise ConvError(f"x must be a batch {text} or (N, F), but got shape {inputs.shape}.")
        if model.built_shape is None:
            model.build(Sample(inputs.shape[1:]))
        target = loss.check(y, cast("tuple[int, ...]", model.output_shape(Sample(inputs.shape[1:]))))
        if len(target) != len(inputs):
            raise ConvError(f"x holds {len(inputs)} samples and y {len(target)}; they must be as many.")
        return inputs, target

    def _logits(self, x: Array, loss: losses.Loss, training: bool) -> Array:
        """The outputs that the loss takes: those before the softmax that ends the model, for a cross-entropy."""
        *body, last = self.layers
        if not (loss.from_softmax and ends_in_softmax(last)):
            return self._model().forward(x, training)
        for layer in body:
            with locating(layer):
                x = layer.forward(x, training)
        with locating(last):
            return last.forward_logits(x) if hasattr(last, "forward_logits") else x

    def _backward(self, grad: Array, loss: losses.Loss) -> None:
        layers = self.layers
        if loss.from_softmax and ends_in_softmax(layers[-1]) and not hasattr(layers[-1], "forward_logits"):
            layers = layers[:-1]
        first, *rest = layers or [self.layers[-1]]
        grad = chain_backward(rest, grad)
        with locating(first):
            first.backward_weights(grad)

    def train_on_batch(self, x: ArrayLike, y: ArrayLike) -> list[float]:
        """Make one step of the optimiser.

        Parameters
        ----------
        x : array_like
            Inputs (N, H, W, C), (N, C, H, W) or (N, F).
        y : array_like
            Targets of as many samples, as the loss takes them.

        Returns
        -------
        list of float
            The loss and the metrics, from before the step.

        Raises
        ------
        ConvError
            For labels out of range or a loss that is not finite; the weights are then as before.
        """
        inputs, target = self._checked(x, y)
        return self._step(inputs, target)

    def _step(self, x: Array, target: Array) -> list[float]:
        optimizer, loss = self._compiled()
        model = self._model()
        statistics = [(p, p.array.copy()) for p in model.parameters() if not p.trainable and p.allocated]
        try:
            with memory.reusing(self._arena):
                taken = x if x.dtype == model.dtype else x.astype(model.dtype)
                outputs = self._logits(taken, loss, True)
                value, grad = loss(outputs, target)
                if not np.isfinite(value):
                    raise ConvError(self._why_not_finite(taken, value))
                measured = [value, *(measure(outputs, target) for _, measure in self.metrics)]
                self._backward(grad, loss)
        except BaseException:
            for parameter, before in statistics:
                parameter.assign(before)
            raise
        finally:
            model.release()
        optimizer.apply(model.trained_parameters())
        return measured

    def _why_not_finite(self, x: Array, value: float) -> str:
        """Which layer first made a value that is not finite."""
        message = f"the loss is {value}: "
        if not np.isfinite(x).all():
            return message + "the input x itself holds NaN or infinity; the weights were left as they were."
        for layer in self.layers:
            x = layer.forward(x, True)
            if not np.isfinite(x).all():
                return message + (
                    f"the first output that is not finite is that of layer {layer.name}; the weights were left as "
                    "they were. Lower the learning rate, or scale the inputs."
                )
        return message + "the outputs are finite but too large; the weights were left as they were."

    def test_on_batch(self, x: ArrayLike, y: ArrayLike) -> list[float]:
        """Measure one batch; nothing is changed.

        Parameters
        ----------
        x : array_like
            Inputs (N, H, W, C), (N, C, H, W) or (N, F).
        y : array_like
            Targets of as many samples, as the loss takes them.

        Returns
        -------
        list of float
            The loss and the metrics.
        """
        inputs, target = self._checked(x, y)
        return self._measure(inputs, target)

    def _measure(self, x: Array, target: Array) -> list[float]:
        _, loss = self._compiled()
        model = self._model()
        outputs = self._logits(x if x.dtype == model.dtype else x.astype(model.dtype), loss, False)
        model.release()
        value, _ = loss(outputs, target)
        return [value, *(measure(outputs, target) for _, measure in self.metrics)]

    # ---- many batches -------------------------------------------------------------------------------------------

    def _names(self) -> list[str]:
        return ["loss", *(name for name, _ in self.metrics)]

    def fit(
        self,
        x: ArrayLike,
        y: ArrayLike,
        batch_size: int = 32,
        epochs: int = 1,
        validation_data: tuple[ArrayLike, ArrayLike] | None = None,
        verbose: int | str = 1,
        *,
        shuffle: bool = True,
        seed: int | None = None,
        augment: Callable[[Array, np.random.Generator], Array] | None = None,
        callbacks: object = (),
    ) -> History:
        """Train on all samples, in batches, `epochs` times.

        Parameters
        ----------
        x : array_like
            Inputs (N, H, W, C), (N, C, H, W) or (N, F).
        y : array_like
            Targets of as many samples, as the loss takes them.
        batch_size : int
            Samples a step.
        epochs : int
            How often all samples are seen.
        validation_data : (array_like, array_like), optional
            Samples that are only measured, after every epoch.
        verbose : {0, 1, 2}
            Nothing, a bar, or a line an epoch.
        shuffle : bool
            Draw a new order every epoch.
        seed : int, optional
            Of the orders and of `augment`.
        augment : callable, optional
            A function of (batch, generator) that gives the batch to learn from.
        callbacks : callable, object or sequence of them
            Functions are called with (epoch, values) after every epoch; True ends the training. Objects have methods
            of Keras' callbacks, such as `on_epoch_end(epoch, logs)`; `model.stop_training = True` ends the training
            after the batch or the epoch in which it is set.

        Returns
        -------
        History
            Also in `model.history`.

        Raises
        ------
        ConvError
            For data that does not fit, or a loss that is not finite; names the layer or the batch.
        ConvTypeError
            For what is no callback, before the first step.
        KeyboardInterrupt
            After Ctrl-C, at the end of the batch: the model is then as after that batch.
        """
        inputs, target = self._checked(x, y)
        size, rounds = positive("batch_size", batch_size), positive("epochs", epochs)
        shuffled, shown = flag("shuffle", shuffle), _verbosity(verbose)
        held = None if validation_data is None else self._validation(validation_data)
        random = np.random.default_rng(seed)
        called = Callbacks(callbacks, self, epochs=rounds, steps=-(-len(inputs) // size), verbose=shown)
        history, self.stop_training = History(), False
        values: dict[str, float] = {}
        with between_batches() as interrupt, self._arena_for_a_while():
            called.call("on_train_begin", {})
            for epoch in range(rounds):
                called.call("on_epoch_begin", epoch, {})
                order = random.permutation(len(inputs)) if shuffled else np.arange(len(inputs))
                values = self._epoch(inputs, target, order, size, f"epoch {epoch + 1}/{rounds}", shown, random, augment,
                                     held, interrupt, called)  # fmt: skip
                history.add(epoch, values)
                self.history = history
                called.epoch_end(epoch, values)
                if self.stop_training:
                    break
            called.call("on_train_end", values)
        self.history = history
        return history

    @contextmanager
    def _arena_for_a_while(self) -> Iterator[None]:
        """Keep the memory of activations until the training ends."""
        try:
            yield
        finally:
            self._arena.clear()

    def _validation(self, data: object) -> tuple[Array, Array]:
        if not isinstance(data, (tuple, list)) or len(data) != 2:
            raise ConvTypeError("validation_data must be a pair (x, y).")
        try:
            return self._checked(*data)
        except (ConvError, ConvTypeError) as error:
            raise type(error)(f"validation_data: {error}") from error

    def _epoch(
        self,
        x: Array,
        target: Array,
        order: Array,
        size: int,
        title: str,
        shown: int,
        random: np.random.Generator,
        augment: Callable[[Array, np.random.Generator], Array] | None,
        held: tuple[Array, Array] | None,
        interrupt: _Interrupt,
        called: Callbacks,
    ) -> dict[str, float]:
        names, totals = self._names(), np.zeros(1 + len(self.metrics))
        optimizer, _ = self._compiled()
        with Progress(len(x), title, shown == 1) as progress:
            for begin in range(0, len(x), size):
                chosen = order[begin : begin + size]
                called.call("on_train_batch_begin", begin // size, {})
                batch = x[chosen] if augment is None else augment(x[chosen], random)
                try:
                    measured = self._step(batch, target[chosen])
                except (ConvError, ConvTypeError) as error:
                    raise type(error)(f"{title}, batch {begin // size + 1}: {error}") from error
                totals += np.array(measured) * len(chosen)
                means = (totals / (begin + len(chosen))).tolist()
                progress.step(len(chosen), _text(names, means))
                values = dict(zip(names, means, strict=True))
                called.call("on_train_batch_end", begin // size, dict(values))
                if interrupt.pressed:
                    raise KeyboardInterrupt
                if self.stop_training:
                    break
            values["learning_rate"] = optimizer.current_rate()
            values["images_per_second"] = progress.rate
            if held is not None:
                validated = self._evaluate(*held, size, Progress(None, title, False), called)
                values |= {f"val_{name}": value for name, value in zip(names, validated, strict=True)}
            text = _text(*zip(*((k, v) for k, v in values.items() if k not in UNSHOWN), strict=True))
            progress.finish(text)
        if shown == 2:
            print(f"{title}: {text}, {values['images_per_second']:,.0f} images/s")
        return values

    def _evaluate(
        self, x: Array, target: Array, size: int, progress: Progress, called: Callbacks | None = None
    ) -> list[float]:
        called = Callbacks((), self) if called is None else called
        names, totals, means = self._names(), np.zeros(1 + len(self.metrics)), []
        called.call("on_test_begin", {})
        with progress:
            for begin in range(0, len(x), size):
                batch = x[begin : begin + size]
                called.call("on_test_batch_begin", begin // size, {})
                totals += np.array(self._measure(batch, target[begin : begin + size])) * len(batch)
                means = (totals / (begin + len(batch))).tolist()
                progress.step(len(batch), _text(names, means))
                called.call("on_test_batch_end", begin // size, dict(zip(names, means, strict=True)))
        called.call("on_test_end", dict(zip(names, means, strict=True)))
        return means

    def evaluate(
        self, x: ArrayLike, y: ArrayLike, batch_size: int = 32, verbose: int | str = 0, return_dict: bool = False
    ) -> Any:
        """Measure loss and metrics over all samples.

        Parameters
        ----------
        x : array_like
            Inputs (N, H, W, C), (N, C, H, W) or (N, F).
        y : array_like
            Targets of as many samples, as the loss takes them.
        batch_size : int
            Samples a step.
        verbose : {0, 1, 2}
            Nothing, a bar, or a line an epoch.
        return_dict : bool
            Give a dictionary by name.

        Returns
        -------
        float, list of float or dict
            The loss; [loss, metrics] where the model was compiled with metrics.
        """
        inputs, target = self._checked(x, y)
        shown = _verbosity(verbose)
        values = self._evaluate(
            inputs, target, positive("batch_size", batch_size), Progress(len(inputs), "evaluate", shown == 1)
        )
        if flag("return_dict", return_dict):
            return dict(zip(self._names(), values, strict=True))
        return values if self.metrics else values[0]

    def predict(self, x: ArrayLike | Iterable[ArrayLike], batch_size: int = 32, verbose: int | str = 0) -> Any:
        """Compute the outputs by the prepared net (see `compile_inference`).

        Parameters
        ----------
        x : array_like or iterable
            A batch as an array, or a list or generator of single samples: then a bar shows progress (unless `verbose`
            is 0).
        batch_size : int
            Samples at a time.
        verbose : {0, 1, 2}
            Nothing, a bar, or a line an epoch.

        Returns
        -------
        ndarray or list of ndarray
            A list where the sizes of samples differ.
        """
        size, shown = positive("batch_size", batch_size), _verbosity(verbose) > 0
        if is_ndarray(x):
            x = plain(x)
            with Progress(len(x) if x.ndim else None, "predict", shown) as progress:
                return self._predict_array(x, size, progress)
        if isinstance(x, (str, bytes)) or not isinstance(x, Iterable):
            raise ConvTypeError(f"x must be an array or an iterable of samples, but got a {type(x).__name__}.")
        with Progress(len(x) if isinstance(x, (list, tuple)) else None, "predict", shown) as progress:
            parts = [self._predict_array(np.stack(group), size, progress) for group in _runs(x, size)]
        if not parts:
            raise ConvError("x holds no samples to predict.")
        if len({part.shape[1:] for part in parts}) == 1:
            return np.concatenate(parts)
        return [sample for part in parts for sample in part]

    def _predict_array(self, x: Array, size: int, progress: Progress) -> Array:
        inputs = as_array("x", x)
        model = self._model()
        if not model._takes_batch(inputs.shape):
            model.forward(inputs)  # refuses it
        plan = self.compile_inference(Sample(inputs.shape[1:]), precision=self.precision)
        if len(inputs) <= size:
            result = plan.run(inputs)
            progress.step(len(inputs))
            return result
        shape = cast("tuple[int, ...]", model.output_shape(Sample(inputs.shape[1:])))
        result = np.empty((len(inputs), *shape), model.dtype)
        for begin in range(0, len(inputs), size):
            part = plan.run(inputs[begin : begin + size])
            result[begin : begin + size] = part
            progress.step(len(part))
        return result

    @abstractmethod
    def compile_inference(
        self, input_shape: Sequence[int | None] | None = None, *, weights_dtype: str | None = None,
        precision: str | None = None,
    ) -> InferencePlan:  # fmt: skip
        """Prepare the model for samples of this shape.

        Parameters
        ----------
        input_shape : sequence of int or None, optional
            Of the samples, with or without a batch axis; that of the build if not given.
        weights_dtype : {'float32', 'float16', 'bfloat16'}, optional
            What the packed weights are held in.
        precision : {'float32', 'bfloat16'}, optional
            What the operands of convolutions and dense layers are rounded to.

        Returns
        -------
        InferencePlan
            What `predict` runs.
        """


UNSHOWN = ("images_per_second", "learning_rate")


def _runs(samples: Iterable[ArrayLike], most: int) -> Iterator[list[Array]]:
    """Samples in their order, those of equal shape that follow each other together, `most` at a time."""
    group: list[Array] = []
    for sample in samples:
        array = as_array("x", sample)
        if group and (len(group) == most or array.shape != group[0].shape):
            yield group
            group = []
        group.append(array)
    if group:
        yield group


def _verbosity(verbose: object) -> int:
    if verbose == "auto":
        return 1
    if isinstance(verbose, int) and verbose in (0, 1, 2):
        return verbose
    raise ConvError(f"verbose must be 0 (nothing), 1 (a bar) or 2 (a line an epoch), but got verbose={verbose!r}.")


def _text(names: Iterable[str], values: Iterable[float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in zip(names, values, strict=True))


__all__ = ["History", "Parameter", "Trainable", "accuracy", "ends_in_softmax"]
