"""Training with Keras' words: fit and evaluate, over what `data` makes batches of."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .._core.progress import Progress
from .._core.words import flag
from ..errors import ConvError, ConvTypeError
from ..layers.base import Array, Parameter, positive
from .called import Callbacks
from .data import Arrays, Batch, Epochs, Source, Yielded, is_pair, is_yielded, split_last
from .measures import History, accuracy, ends_in_softmax
from .steps import Steps, refuse_others

NOTHING = "{} has no batches to measure."
UNSHOWN = ("images_per_second", "learning_rate")


class _Interrupt:
    """Whether Ctrl-C was pressed."""

    pressed = False

    def check(self) -> None:
        """Interrupt, if it was."""
        if self.pressed:
            raise KeyboardInterrupt


@contextmanager
def between_batches() -> Iterator[_Interrupt]:
    """Ctrl-C is noted for the end of the batch, so that no step is cut in half; a second one interrupts at once."""
    noted = _Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: Any) -> None:
        noted.check()
        noted.pressed = True

    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before if before is not None else signal.SIG_DFL)


class Trainable(Steps):
    """The training methods of a net."""

    history: History | None = None
    stop_training: bool = False  # set while `fit` runs, it ends the training

    def fit(
        self,
        x: Any,
        y: Any = None,
        batch_size: int = 32,
        epochs: int = 1,
        validation_data: Any = None,
        verbose: int | str = 1,
        *,
        shuffle: bool = True,
        seed: int | None = None,
        augment: Callable[[Array, np.random.Generator], Array] | None = None,
        callbacks: object = (),
        validation_split: float = 0.0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        initial_epoch: int = 0,
        **others: Any,
    ) -> History:
        """Train on all samples, in batches, `epochs` times.

        Parameters
        ----------
        x : array_like, list, dict or iterable
            Inputs (N, H, W, C), (N, C, H, W) or (N, F); of several inputs a list, or a dictionary by `input_names`. Or,
            without `y`, what yields batches (x, y): a list, a generator, a loader, an object with `__getitem__` and
            `__len__`.
        y : array_like, list or dict, optional
            Targets of as many samples, as the losses take them; of several outputs a list, or a dictionary by
            `output_names`.
        batch_size : int
            Samples a step, of arrays.
        epochs : int
            The number of the last epoch: how often all samples are seen.
        validation_data : (array_like, array_like) or iterable, optional
            Samples that are only measured, after every epoch: a pair (x, y), or what yields batches.
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
            after the batch or the epoch in which it is set. See `fastconv.callbacks`.
        validation_split : float
            The share of the samples, the last ones as they lie in x and y, that is kept for validation.
        steps_per_epoch : int, optional
            Batches an epoch, where an epoch is not one pass over the data; the next goes on behind it.
        validation_steps : int, optional
            Batches of a validation, of a `validation_data` that yields them.
        initial_epoch : int
            The number of the first epoch, to go on with a training.
        **others : Any
            Refused: what else Keras' fit takes is Keras' own.

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
        refuse_others("fit", others)
        self._compiled()
        size, rounds = positive("batch_size", batch_size), positive("epochs", epochs)
        shuffled, shown, random = flag("shuffle", shuffle), _verbosity(verbose), np.random.default_rng(seed)
        source, held = self._sources(
            x, y, size, validation_data, validation_split, random, shuffled, augment
        )
        limit = None if steps_per_epoch is None else positive("steps_per_epoch", steps_per_epoch)
        measured = None if validation_steps is None else positive("validation_steps", validation_steps)
        batches = Epochs("x", source, limit)
        called = Callbacks(callbacks, self, epochs=rounds, steps=batches.steps, verbose=shown)
        if held is not None and held.once and measured is None and rounds > initial_epoch + 1:
            raise ConvError(
                "validation_data is read once and cannot be measured after every epoch: pass a list or an object that "
                "can be read again, or validation_steps with what yields without end."
            )
        measuring = None if held is None else Epochs("validation_data", held, measured, True)
        run = _Run(self, batches, measuring, shown, called)
        self.stop_training = False
        try:
            return run.epochs(int(initial_epoch), rounds)
        finally:
            self._arena.clear()  # the memory of activations is kept until the training ends

    def _sources(
        self, x: Any, y: Any, size: int, validation_data: Any, validation_split: float, random: np.random.Generator,
        shuffle: bool, augment: Any,
    ) -> tuple[Source, Source | None]:  # fmt: skip
        """What is learnt from, and what is measured after every epoch."""
        if y is None and is_yielded(x):
            if validation_split and validation_data is None:
                raise ConvError(
                    f"validation_split={validation_split!r} cuts arrays, but x yields batches: pass validation_data."
                )
            source: Source = Yielded("x", x, self._checked, random if shuffle else None, augment)
            return source, None if validation_data is None else self._validation(validation_data, size)
        batch = self._checked(x, y)
        if validation_data is not None:
            held: Source | None = self._validation(validation_data, size)
        elif validation_split:
            batch, kept = split_last(batch, validation_split)
            held = Arrays(kept, size)
        else:
            held = None
        return Arrays(batch, size, random, shuffle, augment), held

    def _validation(self, data: Any, size: int) -> Source:
        try:
            if is_pair(data, len(self.input_names)):
                return Arrays(self._checked(*data), size)
            if not isinstance(data, tuple) and is_yielded(data):
                return Yielded("validation_data", data, self._checked)
        except (ConvError, ConvTypeError) as error:
            raise type(error)(f"validation_data: {error}") from error
        raise ConvTypeError("validation_data must be a pair (x, y), or yield such pairs of batches.")

    def _evaluate(self, given: Iterable[Batch], progress: Progress, called: Callbacks) -> list[float]:
        names, count = self._compiled()[1].names, 0
        totals, means = np.zeros(len(names)), [0.0]
        called.call("on_test_begin", {})
        with progress:
            for step, (inputs, targets) in enumerate(given):
                called.call("on_test_batch_begin", step, {})
                totals += np.array(self._measure(inputs, targets)) * len(inputs[0])
                count += len(inputs[0])
                means = (totals / count).tolist()
                progress.step(len(inputs[0]), _text(names, means))
                called.call("on_test_batch_end", step, dict(zip(names, means, strict=True)))
        called.call("on_test_end", dict(zip(names, means, strict=True)))
        return means

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        batch_size: int = 32,
        verbose: int | str = 0,
        return_dict: bool = False,
        *,
        steps: int | None = None,
        callbacks: object = (),
        **others: Any,
    ) -> Any:
        """Measure loss and metrics over all samples.

        Parameters
        ----------
        x : array_like, list, dict or iterable
            Inputs, as `fit` takes them; or, without `y`, what yields batches (x, y).
        y : array_like, list or dict, optional
            Targets of as many samples, as the losses take them.
        batch_size : int
            Samples a step, of arrays.
        verbose : {0, 1, 2}
            Nothing, a bar, or a line an epoch.
        return_dict : bool
            Give a dictionary by name.
        steps : int, optional
            Measure no more batches than these.
        callbacks : object or sequence of them
            Objects with methods of Keras' callbacks, such as `on_test_batch_end(batch, logs)`.
        **others : Any
            Refused: what else Keras' evaluate takes is Keras' own.

        Returns
        -------
        float, list of float or dict
            The loss; [loss, metrics] where there are metrics, with the loss of each output before them where there are
            several.
        """
        refuse_others("evaluate", others)
        names, size, shown = self._compiled()[1].names, positive("batch_size", batch_size), _verbosity(verbose)
        yielded = y is None and is_yielded(x)
        source: Source = Yielded("x", x, self._checked) if yielded else Arrays(self._checked(x, y), size)
        batches = Epochs("x", source, None if steps is None else positive("steps", steps), True)
        called = Callbacks(callbacks, self, epochs=1, steps=batches.steps, verbose=shown)
        given = batches.next()
        if given is None:
            raise ConvError(NOTHING.format(batches.name))
        values = self._evaluate(given, Progress(batches.samples, "evaluate", shown == 1), called)
        if shown == 2:
            print(f"evaluate: {_text(names, values)}")
        if flag("return_dict", return_dict):
            return dict(zip(names, values, strict=True))
        return values if len(values) > 1 else values[0]


class _Run:
    """One training: what it takes, measures, shows and calls."""

    def __init__(self, model: Trainable, batches: Epochs, held: Epochs | None, shown: int, called: Callbacks) -> None:
        self.model, self.batches, self.held, self.shown, self.called = model, batches, held, shown, called
        self.optimizer, objective = model._compiled()
        self.names = objective.names
        self.validations = 0

    def epochs(self, first: int, last: int) -> History:
        """All epochs."""
        history, model, values = History(), self.model, {}
        with between_batches() as interrupt:
            self.called.call("on_train_begin", {})
            for epoch in range(first, last):
                given = self.batches.next()
                if given is None:
                    if not history.epoch:
                        raise ConvError(f"{self.batches.name} has no batches to learn from.")
                    self.batches.warn(f"{len(history.epoch)} of {last - first} epochs")
                    break
                self.called.call("on_epoch_begin", epoch, {})
                values = self.epoch(given, f"epoch {epoch + 1}/{last}", interrupt)
                history.add(epoch, values)
                model.history = history
                self.called.epoch_end(epoch, values)
                interrupt.check()
                if model.stop_training:
                    break
            self.called.call("on_train_end", values)
            interrupt.check()
        model.history = history
        return history

    def epoch(self, given: Iterable[Any], title: str, interrupt: _Interrupt) -> dict[str, float]:
        """The steps of one epoch and the measurement behind them."""
        totals, count, values = np.zeros(len(self.names)), 0, {}
        with Progress(self.batches.samples, title, self.shown == 1) as progress:
            for step, (inputs, targets) in enumerate(given):
                self.called.call("on_train_batch_begin", step, {})
                try:
                    measured = self.model._step(inputs, targets)
                except (ConvError, ConvTypeError) as error:
                    raise type(error)(f"{title}, batch {step + 1}: {error}") from error
                totals += np.array(measured) * len(inputs[0])
                count += len(inputs[0])
                values = dict(zip(self.names, (totals / count).tolist(), strict=True))
                progress.step(len(inputs[0]), _text(*zip(*values.items(), strict=True)))
                self.called.call("on_train_batch_end", step, dict(values))
                interrupt.check()
                if self.model.stop_training:
                    break
            values["learning_rate"] = self.optimizer.current_rate()
            values["images_per_second"] = progress.rate
            values |= self.validated(self.held, title, interrupt)
            text = _text(*zip(*((k, v) for k, v in values.items() if k not in UNSHOWN), strict=True))
            progress.finish(text)
        if self.shown == 2:
            print(f"{title}: {text}, {values['images_per_second']:,.0f} images/s")
        return values


    def validated(self, held: Epochs | None, title: str, interrupt: _Interrupt) -> dict[str, float]:
        """What is measured behind an epoch; nothing any more once what is read once has ended."""
        if held is None:
            return {}
        given = held.next()
        if given is None:
            if not self.validations:
                raise ConvError(NOTHING.format(held.name))
            held.warn(f"{self.validations} epochs")
            self.held = None
            return {}
        self.validations += 1
        found = self.model._evaluate(_interrupted(given, interrupt), Progress(None, title, False), self.called)
        return {f"val_{name}": value for name, value in zip(self.names, found, strict=True)}


def _interrupted(batches: Iterable[Batch], interrupt: _Interrupt) -> Iterator[Batch]:
    """The batches up to Ctrl-C."""
    for batch in batches:
        yield batch
        interrupt.check()


def _verbosity(verbose: object) -> int:
    if verbose == "auto":
        return 1
    if isinstance(verbose, int) and verbose in (0, 1, 2):
        return verbose
    raise ConvError(f"verbose must be 0 (nothing), 1 (a bar) or 2 (a line an epoch), but got verbose={verbose!r}.")


def _text(names: Iterable[str], values: Iterable[float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in zip(names, values, strict=True))


__all__ = ["History", "Parameter", "Trainable", "accuracy", "ends_in_softmax"]
