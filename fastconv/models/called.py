"""Who is called while a net trains: functions of (epoch, values), and objects with the methods of Keras' callbacks.

All are looked at before the first step: what could not be called then is refused at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, Final

from ..callbacks import ModelCheckpoint
from ..errors import ConvTypeError

Values = dict[str, float]
# The methods of Keras' callbacks that `fit` calls, and how many arguments they take before the values.
METHODS: Final = {
    "on_train_begin": 0, "on_train_end": 0, "on_epoch_begin": 1, "on_epoch_end": 1,
    "on_train_batch_begin": 1, "on_train_batch_end": 1,
    "on_test_begin": 0, "on_test_end": 0, "on_test_batch_begin": 1, "on_test_batch_end": 1,
    "on_predict_begin": 0, "on_predict_end": 0, "on_predict_batch_begin": 1, "on_predict_batch_end": 1,
}  # fmt: skip
OLDER: Final = {"on_train_batch_begin": "on_batch_begin", "on_train_batch_end": "on_batch_end"}
WANTED: Final = (
    "callbacks must hold functions of (epoch, values) or objects with the methods of Keras' callbacks, such as "
    "on_epoch_end(epoch, logs)"
)


class Callbacks:
    """The callbacks of one training.

    Parameters
    ----------
    given : callable, object or iterable of them, optional
        As `fit` takes them.
    model : Trainable
        Handed to those with `set_model`; its `stop_training` is set where a function returns True.
    **params : Any
        Handed to those with `set_params`, in Keras' words: epochs, steps and verbose.

    Raises
    ------
    ConvTypeError
        For what is neither a function nor such an object, or takes other arguments.
    """

    def __init__(self, given: object, model: Any, **params: Any) -> None:
        self.model = model
        self._nobody = given is None or given == ()
        if self._nobody:
            return  # as in every call of a small `predict`
        self._functions: list[Callable[..., Any]] = []
        self._methods: dict[str, list[Callable[..., Any]]] = {name: [] for name in METHODS}
        callbacks = _listed(given)
        for callback in callbacks:
            self._take(callback)
        for callback in callbacks:
            _settle_direction(callback)
            for setter, value in (("set_params", params), ("set_model", model)):
                if callable(method := getattr(callback, setter, None)) and not _is_function(callback):
                    method(value)

    def _take(self, callback: object) -> None:
        if isinstance(callback, type):
            raise ConvTypeError(f"{WANTED}, but got the class {callback.__name__}; write it with parentheses.")
        if _is_function(callback):
            if not callable(callback):
                raise ConvTypeError(f"{WANTED}, but got {callback!r} of type {type(callback).__name__}.")
            self._functions.append(_taking(callback, 2, repr(callback)))
            return
        foreign = isinstance(getattr(callback, "save_weights_only", None), bool)
        if foreign and not isinstance(callback, ModelCheckpoint):
            raise ConvTypeError(
                f"callbacks holds a {type(callback).__name__}, which writes files of Keras' models; save this one by "
                "fastconv.callbacks.ModelCheckpoint, or by a function, such as lambda epoch, values: "
                "model.save('net.npz')."
            )
        for name, count in METHODS.items():
            method = getattr(callback, name, None) or getattr(callback, OLDER.get(name, name), None)
            if method is not None:
                self._methods[name].append(_taking(method, count + 1, f"{type(callback).__name__}.{name}"))

    def call(self, method: str, *arguments: Any) -> None:
        """Call this method of all objects that have it; the last argument is the values."""
        if self._nobody:
            return
        for each in self._methods[method]:
            each(*arguments)

    def epoch_end(self, epoch: int, values: Values) -> None:
        """Call the methods, then the functions: True of one of them ends the training."""
        if self._nobody:
            return
        self.call("on_epoch_end", epoch, values)
        for function in self._functions:
            if function(epoch, values):
                self.model.stop_training = True


def _is_function(callback: object) -> bool:
    """Whether it has none of the methods."""
    known = (*METHODS, *OLDER.values())
    return not any(callable(getattr(callback, name, None)) for name in known)


def _listed(given: object) -> list[object]:
    if given is None:
        return []
    if callable(given) or not _is_function(given):
        return [given]
    if isinstance(given, (str, bytes, dict)) or not isinstance(given, Iterable):
        raise ConvTypeError(f"{WANTED}, in a list, but got {given!r} of type {type(given).__name__}.")
    return list(given)


def _settle_direction(callback: Any) -> None:
    """Of Keras' callbacks that watch accuracy: they would look for the direction in Keras' own metric objects."""
    monitor = getattr(callback, "monitor", None)
    if getattr(callback, "mode", None) == "auto" and monitor in ("accuracy", "val_accuracy"):
        callback.mode = "max"


def _taking(function: Callable[..., Any], count: int, name: str) -> Callable[..., Any]:
    """The function, if it can be called with so many arguments."""
    if not callable(function):
        raise ConvTypeError(f"{WANTED}, but {name} is {function!r}, which cannot be called.")
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # built in: no telling
        return function
    try:
        signature.bind(*range(count))
    except TypeError as error:
        taken = "(epoch, values)" if count == 2 else "(values)"
        raise ConvTypeError(f"{WANTED}, but {name} takes {signature} and would be called with {taken}.") from error
    return function

