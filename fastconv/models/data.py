"""Where `fit`, `evaluate` and `predict` take their batches from: arrays, or anything that yields (x, y).

Arrays are looked at as a whole before the first step, what is yielded batch by batch.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np

from .._core.arrays import as_array, is_ndarray, plain
from ..errors import ConvError, ConvTypeError, keras_has
from ..layers.base import Array, real

Batch = tuple[list[Array], list[Any]]  # inputs and targets, None where an output needs none
Check = Callable[[Any, Any], Batch]
Augment = Callable[[Any, np.random.Generator], Any]


def listed(name: str, given: Any, names: Sequence[str], kind: str) -> list[Any]:
    """One value for each name: from a list, a dictionary, or what is given itself where there is one name."""
    if len(names) == 1 and is_ndarray(given):  # first, as an array may say of itself whatever it likes
        return [given]
    if isinstance(given, dict):
        if set(given) != set(names):
            raise ConvError(f"{name} must be by the names of the {kind}s {list(names)}, but got {list(given)}.")
        return [given[key] for key in names]
    if len(names) == 1:
        return [given]
    if not isinstance(given, (list, tuple)) or len(given) != len(names):
        count = len(given) if isinstance(given, (list, tuple)) else f"a {type(given).__name__}"
        raise ConvError(
            f"{name} must be a list of {len(names)}, one for each {kind} {list(names)}, or a dictionary by these "
            f"names, but got {count}."
        )
    return list(given)


def named_arrays(names: Sequence[str], given: Sequence[Any]) -> list[Array]:
    """Inputs as arrays; an error says which of several it is about."""
    if len(names) == 1:
        return [as_array("x", given[0])]
    return [as_array(f"x of {name}", value) for name, value in zip(names, given, strict=True)]


def bare(given: Any, count: int | None = None, axes: int | None = None) -> Any:
    """The array of a list that holds one alone, if it has so many samples, or axes."""
    if is_ndarray(given):
        return given
    if isinstance(given, (list, tuple)) and len(given) == 1 and is_ndarray(given[0]):
        array = plain(given[0])
        if (count is not None and count != 1 and array.ndim and len(array) == count) or array.ndim == axes:
            return array
    return given


def pair(name: str, given: Any) -> tuple[Any, Any]:
    """(x, y) of what an iterable yields."""
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        got = f"{len(given)} values" if isinstance(given, (tuple, list)) else f"a {type(given).__name__}"
        more = f" Sample weights are not taken; {keras_has('fit')}" if got == "3 values" else ""
        more = " Beside arrays, y must be given." if is_ndarray(given) else more
        raise ConvTypeError(f"{name} must yield pairs (x, y) of batches, but it yielded {got}.{more}")
    return given[0], given[1]


def is_pair(data: object, inputs: int) -> bool:
    """Whether something is (x, y) for a net of so many inputs, and no list of two batches."""
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        return False
    if isinstance(data, tuple) or not all(isinstance(one, (tuple, list)) and len(one) == 2 for one in data):
        return True
    if inputs > 1:  # x of an array each, where that of a batch is a list
        return is_ndarray(data[0][0])
    shapes = [[getattr(array, "shape", None) for array in one] for one in data]
    batches = all(isinstance(one, tuple) for one in data) or all(x != y for x, y in shapes)
    return not batches  # [[sample, sample], [target, target]]


class Source:
    """Batches: so many samples and steps, where that is known, pass after pass."""

    samples: int | None = None
    steps: int | None = None
    once = False  # yields its batches a single time

    @abstractmethod
    def one_pass(self) -> Iterator[Batch]:
        """All batches once."""


class Arrays(Source):
    """Arrays in batches, in a new order every pass if there is a generator to draw it."""

    def __init__(
        self, batch: Batch, size: int, random: np.random.Generator | None = None, shuffle: bool = False,
        augment: Augment | None = None,
    ) -> None:  # fmt: skip
        self.inputs, self.targets = batch
        self.size, self.random, self.shuffle, self.augment = size, random, shuffle, augment
        self.samples = len(self.inputs[0])
        self.steps = -(-self.samples // size)

    def one_pass(self) -> Iterator[Batch]:
        assert self.samples is not None
        order = np.arange(self.samples) if self.augment is not None else None  # so that what it changes is a copy
        if self.shuffle and self.random is not None:
            order = self.random.permutation(self.samples)
        for begin in range(0, self.samples, self.size):
            chosen: Any = slice(begin, begin + self.size) if order is None else order[begin : begin + self.size]
            inputs = [array[chosen] for array in self.inputs]
            if self.augment is not None:
                inputs = _augmented(self.augment, inputs, self.random)
            yield inputs, [None if target is None else target[chosen] for target in self.targets]


def _augmented(augment: Augment, inputs: list[Array], random: Any) -> list[Array]:
    made = augment(inputs[0] if len(inputs) == 1 else inputs, random)
    return [made] if len(inputs) == 1 else list(made)


class Yielded(Source):
    """Batches of a generator, a loader, or an object with `__getitem__` and `__len__`, such as Keras' PyDataset."""

    def __init__(
        self, name: str, given: Any, check: Check, random: np.random.Generator | None = None,
        augment: Augment | None = None,
    ) -> None:  # fmt: skip
        self.name, self.given, self.check, self.random, self.augment = name, given, check, random, augment
        self.once = isinstance(given, Iterator)
        numbered = hasattr(given, "__getitem__") and hasattr(given, "on_epoch_end")  # Keras' PyDataset
        self.by_number = numbered or not isinstance(given, Iterable)
        try:
            self.steps = None if self.once else len(given)
        except TypeError:  # no length, or none that is known
            self.steps = None

    def _items(self) -> Iterator[Any]:
        if not self.by_number:
            for item in self.given:  # noqa: UP028  "yield from" would close a caller's generator when we stop early
                yield item
            return
        order: Any = range(self.steps or 0)
        if self.random is not None:
            order = self.random.permutation(self.steps or 0)
        for number in order:
            yield self.given[int(number)]
        if callable(end := getattr(self.given, "on_epoch_end", None)):
            end()

    def one_pass(self) -> Iterator[Batch]:
        for number, item in enumerate(self._items(), 1):
            try:
                inputs, targets = self.check(*pair(self.name, item))
            except (ConvError, ConvTypeError) as error:
                raise type(error)(f"{self.name}, batch {number}: {error}") from error
            if self.augment is not None:
                inputs = _augmented(self.augment, inputs, self.random)
            yield inputs, targets


def is_yielded(given: Any) -> bool:
    """Whether batches can be taken from an object one after the other."""
    if is_ndarray(given) or isinstance(given, (str, bytes, dict)):
        return False
    return isinstance(given, Iterable) or (hasattr(given, "__getitem__") and hasattr(given, "__len__"))


class Epochs:
    """The batches of one epoch after the other: a pass each, or so many steps of passes without end; where they are
    only `measured`, each begins at the first batch, if that can be read again, and no batch comes twice."""

    def __init__(self, name: str, source: Source, steps: int | None, measured: bool = False) -> None:
        self.name, self.source, self.limit, self.measured = name, source, steps, measured
        self.steps = source.steps if steps is None else steps
        self.samples = source.samples if steps is None else None
        self._running: Iterator[Batch] | None = None

    def next(self) -> Iterator[Batch] | None:
        """The batches of the next epoch; None where there are no more."""
        if self.limit is None:
            batches = self.source.one_pass()
        else:
            if self._running is None or (self.measured and not self.source.once):
                one_pass = self.measured or self.source.once
                self._running = self.source.one_pass() if one_pass else _again_and_again(self.source)
            batches = islice(self._running, self.limit)
        first = next(batches, None)
        if first is None:
            return None
        return self._counted(chain([first], batches)) if self.limit is not None else chain([first], batches)

    def _counted(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        count = 0
        for batch in batches:
            count += 1
            yield batch
        if count < (self.limit or 0):
            self.warn(f"{count} of {self.limit} steps")

    def warn(self, what: str) -> None:
        """Say that there are no more batches, as Keras does."""
        end = "nothing more is measured" if self.measured else "the training ends here"
        steps = "no more steps than there are" if self.measured else "steps_per_epoch"
        warnings.warn(
            f"{self.name} ran out of batches after {what}: {end}. A generator is read once; let it yield without end "
            f"and give {steps}, or pass an object that can be read again, such as a list.",
            RuntimeWarning, stacklevel=4,
        )  # fmt: skip


def _again_and_again(source: Source) -> Iterator[Batch]:
    while True:
        found = False
        for batch in source.one_pass():
            found = True
            yield batch
        if not found:
            return


def split_last(batch: Batch, share: object) -> tuple[Batch, Batch]:
    """(what is learnt from, the last share of the samples as they lie), as Keras cuts them."""
    part = real("validation_split", share)
    count = len(batch[0][0])
    at = int(count * (1 - part))
    if not 0 < part < 1 or not 0 < at < count:
        raise ConvError(
            f"validation_split must lie between 0 and 1 and leave samples on both sides, but got "
            f"validation_split={share!r} of {count} samples."
        )
    halves = [
        ([array[cut] for array in batch[0]], [None if target is None else target[cut] for target in batch[1]])
        for cut in (slice(0, at), slice(at, None))
    ]
    return halves[0], halves[1]


def same_length(count: int, targets: Sequence[Any]) -> None:
    """Refuse targets of another number of samples than the inputs'."""
    for target in targets:
        if target is not None and len(target) != count:
            raise ConvError(f"x holds {count} samples and y {len(target)}; they must be as many.")


def groups_of(samples: Iterable[Any], most: int, axes: int | None) -> Iterator[Array]:
    """Batches of samples in their order, those of equal shape that follow each other, `most` at a time; what has an
    axis more than a sample is a batch already."""
    group: list[Array] = []
    for sample in samples:
        array = as_array("x", sample)
        batch = axes is not None and array.ndim == axes + 1
        if group and (batch or len(group) == most or array.shape != group[0].shape):
            yield np.stack(group)
            group = []
        if batch:
            yield array
        else:
            group.append(array)
    if group:
        yield np.stack(group)
