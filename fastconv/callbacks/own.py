"""The callbacks that are here: stopping early, saving, writing values down, setting the learning rate."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from .._core.words import flag, integer
from ..errors import ConvError, ConvTypeError
from .base import Callback, Values

SUFFIXES: Final = (".npz", ".safetensors")


class _Watching(Callback):
    """A callback that compares a value with the best one so far."""

    def __init__(self, monitor: str, mode: str, best: float | None, least: float = 0.0) -> None:
        super().__init__()
        if not isinstance(monitor, str):
            raise ConvTypeError(f"monitor must be the name of a value such as 'val_loss', but got {monitor!r}.")
        if mode not in ("auto", "min", "max"):
            raise ConvError(f"mode must be 'auto', 'min' or 'max', but got mode={mode!r}.")
        self.monitor, self.mode, self.least, self.best = monitor, mode, abs(float(least)), best
        rising = monitor.removeprefix("val_").endswith(("accuracy", "acc", "auc"))
        self._rises = mode == "max" or (mode == "auto" and rising)

    def _better(self, value: float, than: float | None) -> bool:
        if than is None:
            return True
        return value - self.least > than if self._rises else value + self.least < than


class EarlyStopping(_Watching):
    """End the training when a value has stopped to become better.

    Parameters
    ----------
    monitor : str
        The value: 'loss', 'val_loss', 'val_accuracy' and so on, as in the history.
    min_delta : float
        A change of less is none.
    patience : int
        Epochs without a better value before the end.
    verbose : {0, 1}
        Print when and what.
    mode : {'auto', 'min', 'max'}
        Whether smaller or larger is better; 'auto' takes accuracies to rise and all else to fall.
    baseline : float, optional
        The value must become better than this too for patience to begin anew.
    restore_best_weights : bool
        At the end, put back the weights of the best epoch.
    start_from_epoch : int
        Epochs that are not looked at.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, None, min_delta)
        self.patience, self.baseline, self.verbose = integer("patience", patience), baseline, verbose
        self.restore_best_weights = flag("restore_best_weights", restore_best_weights)
        self.start_from_epoch = integer("start_from_epoch", start_from_epoch)
        self.on_train_begin()

    def on_train_begin(self, logs: Values | None = None) -> None:
        self.wait, self.stopped_epoch, self.best_epoch = 0, 0, 0
        self.best: float | None = None
        self.best_weights: list[Any] | None = None

    def on_epoch_end(self, epoch: int, logs: Values | None = None) -> None:
        value = (logs or {}).get(self.monitor)
        if value is None:
            warnings.warn(
                f"EarlyStopping watches {self.monitor!r}, which was not measured; there are {', '.join(logs or {})}.",
                RuntimeWarning, stacklevel=2,
            )  # fmt: skip
        if value is None or epoch < self.start_from_epoch:
            return
        self.wait += 1
        if self._better(value, self.best):
            self.best, self.best_epoch = value, epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
            if self.baseline is None or self._better(value, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Values | None = None) -> None:
        if self.stopped_epoch > 0 and self.verbose:
            print(f"epoch {self.stopped_epoch + 1}: stopped, as {self.monitor} did not become better")
        if self.best_weights is not None:
            if self.verbose:
                print(f"the weights are those of epoch {self.best_epoch + 1}")
            self.model.set_weights(self.best_weights)


class ModelCheckpoint(_Watching):
    """Save the net while it trains: architecture, weights and the optimiser's state, for `fastconv.load_model`.

    Parameters
    ----------
    filepath : path_like
        Ends in .npz or .safetensors; may name values, such as 'net-{epoch:02d}-{val_loss:.2f}.npz', with epochs from 1.
    monitor : str
        The value that says which is best.
    verbose : {0, 1}
        Print what is saved.
    save_best_only : bool
        Save where the value is better than ever before.
    save_weights_only : bool
        Write the weights alone, for `model.load`.
    mode : {'auto', 'min', 'max'}
        Whether smaller or larger is better; 'auto' takes accuracies to rise and all else to fall.
    save_freq : 'epoch' or int
        Behind every epoch, or behind so many steps.
    initial_value_threshold : float, optional
        The value must be better than this to be saved.
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode, initial_value_threshold)
        try:
            self.filepath = os.fspath(filepath)
        except TypeError as error:
            raise ConvTypeError(f"filepath must be a file name, but got {filepath!r}.") from error
        if Path(self.filepath).suffix.lower() not in SUFFIXES:
            raise ConvError(f"filepath must end in {' or '.join(SUFFIXES)}, but got {self.filepath!r}.")
        if save_freq != "epoch" and (isinstance(save_freq, (bool, str)) or integer("save_freq", save_freq) < 1):
            raise ConvError(f"save_freq must be 'epoch' or a number of steps, but got save_freq={save_freq!r}.")
        self.save_best_only = flag("save_best_only", save_best_only)
        self.save_weights_only = flag("save_weights_only", save_weights_only)
        self.save_freq, self.verbose = save_freq, verbose
        self._epoch, self._steps = 0, 0

    def on_epoch_begin(self, epoch: int, logs: Values | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Values | None = None) -> None:
        if self.save_freq == "epoch":
            return
        self._steps += 1
        if self._steps >= int(self.save_freq):
            self._steps = 0
            self._save(self._epoch, {"batch": batch + 1, **(logs or {})})

    def on_epoch_end(self, epoch: int, logs: Values | None = None) -> None:
        if self.save_freq == "epoch":
            self._save(epoch, logs or {})

    def _save(self, epoch: int, values: Values) -> None:
        if self.save_best_only and not self._is_best(values):
            return
        try:
            path = self.filepath.format(**{"epoch": epoch + 1, **values})
        except (KeyError, IndexError, ValueError) as error:
            raise ConvError(
                f"filepath={self.filepath!r} cannot be filled in ({type(error).__name__}: {error}); the values are "
                f"{', '.join(['epoch', *values])}."
            ) from error
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if self.save_weights_only:
            self.model.save_weights(path)
        else:
            self.model.save(path)
        if self.verbose:
            print(f"epoch {epoch + 1}: saved {path}")

    def _is_best(self, values: Values) -> bool:
        value = values.get(self.monitor)
        if value is None:
            warnings.warn(
                f"ModelCheckpoint watches {self.monitor!r}, which was not measured, and saves every time; there are "
                f"{', '.join(values)}.",
                RuntimeWarning, stacklevel=3,
            )  # fmt: skip
            return True
        if not self._better(value, self.best):
            return False
        self.best = value
        return True


class CSVLogger(Callback):
    """Write a line of values an epoch to a file.

    Parameters
    ----------
    filename : path_like
        Written anew, unless `append`.
    separator : str
        Between values.
    append : bool
        Go on behind what is there.
    """

    def __init__(self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False) -> None:
        super().__init__()
        try:
            self.filename = os.fspath(filename)
        except TypeError as error:
            raise ConvTypeError(f"filename must be a file name, but got {filename!r}.") from error
        if not isinstance(separator, str) or len(separator) != 1:
            raise ConvError(f"separator must be one character, but got separator={separator!r}.")
        self.separator, self.append = separator, flag("append", append)
        self._file: IO[str] | None = None
        self._names: list[str] = []
        self._headed = False

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles take: all but the open file."""
        return {**self.__dict__, "_file": None, "model": None}

    def on_train_begin(self, logs: Values | None = None) -> None:
        self.on_train_end()
        place = Path(self.filename)
        self._headed = self.append and place.is_file() and place.stat().st_size > 0
        self._file = open(place, "a" if self.append else "w", newline="", encoding="utf-8")  # noqa: SIM115
        self._names = []

    def on_epoch_end(self, epoch: int, logs: Values | None = None) -> None:
        values = logs or {}
        if self._file is None:
            self.on_train_begin()
        assert self._file is not None
        writer = csv.writer(self._file, delimiter=self.separator)
        if not self._names:
            self._names = sorted(values)
            if not any(name.startswith("val_") for name in self._names):
                self._names += [f"val_{name}" for name in self._names]  # a later epoch may be validated
            if not self._headed:
                writer.writerow(["epoch", *self._names])
        writer.writerow([epoch, *(values.get(name, "NA") for name in self._names)])
        self._file.flush()

    def on_train_end(self, logs: Values | None = None) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None


class LearningRateScheduler(Callback):
    """Set the optimiser's learning rate before every epoch.

    Parameters
    ----------
    schedule : callable
        A function of (epoch, rate), or of the epoch alone, that gives the rate.
    verbose : {0, 1}
        Print the rate.
    """

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        super().__init__()
        if not callable(schedule):
            raise ConvTypeError(f"schedule must be a function of (epoch, rate), but got {schedule!r}.")
        self.schedule, self.verbose = schedule, verbose

    def on_epoch_begin(self, epoch: int, logs: Values | None = None) -> None:
        optimizer = self.model.optimizer
        try:
            rate = self.schedule(epoch, float(optimizer.current_rate()))
        except TypeError:  # of the epoch alone, as in older Keras
            rate = self.schedule(epoch)
        if isinstance(rate, bool) or not isinstance(rate, (float, int, np.floating, np.integer)) or not rate >= 0:
            raise ConvError(f"schedule must give a rate of at least 0, but gave {rate!r} for epoch {epoch}.")
        optimizer.learning_rate = float(rate)
        if self.verbose:
            print(f"epoch {epoch + 1}: learning rate {float(rate)}")
