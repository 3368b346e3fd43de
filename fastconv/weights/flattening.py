"""Where the values of a map become a vector, and back: whose order is which.

PyTorch flattens maps channel by channel, we pixel by pixel. So the values of a vector that was a map have other places
there than here, and so have the weights that meet it: the rows of the next dense layer, the parameters of a
normalisation between, and, where a vector becomes a map again, the columns of the dense layer before. Every stretch of
the net in which a vector keeps its places gets one order, from whatever in it was or becomes a map; where two of these
disagree, no order of weights makes the two nets the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Final

import numpy as np

from .._core.arrays import Array
from .._core.words import Shape
from ..layers import (
    Activation,
    BatchNormalization,
    Dense,
    Dropout,
    Flatten,
    Layer,
    Reshape,
    Residual,
    Softmax,
)
from ..layers.pooling import GlobalPooling
from ..models import Sequential

KEEPING: Final = (Activation, BatchNormalization, Dropout, Softmax)  # what leaves every value of a vector in its place


class _Stretch:
    """Values that keep their places over some layers: `order[i]` is where PyTorch has our value i. None: the same."""

    def __init__(self) -> None:
        self.order: Array | None = None
        self.settled: str = ""  # the layer that fixed it
        self.same: _Stretch | None = None

    def root(self) -> _Stretch:
        found = self
        while found.same is not None:
            found = found.same
        return found


class Flattening:
    """The orders of a built model's vectors, for weights of PyTorch.

    Parameters
    ----------
    model : Sequential
        Built.

    Attributes
    ----------
    problems : list of str
        Why no order of weights makes our net the other.
    """

    def __init__(self, model: Sequential) -> None:
        assert model.built_shape is not None
        self.problems: list[str] = []
        self._rows: dict[int, _Stretch] = {}
        self._columns: dict[int, _Stretch] = {}
        self._last = _layouts(model.layers)
        start = self._fixed("the input", None) if len(model.built_shape) == 1 else None
        end = self._chain(model.layers, model.built_shape, start)[1]
        if end is not None:
            root = end.root()
            if root.order is not None and not _is_same(root.order):
                self.problems.append(
                    f"the net ends in a flattened map ({root.settled}), whose values come pixel by pixel here and "
                    "channel by channel in PyTorch"
                )

    def rows(self, layer: Layer) -> Array | None:
        """Where PyTorch has the inputs of a dense layer or the values that a normalisation meets; None: the same."""
        return self._order(self._rows, layer)

    def columns(self, layer: Layer) -> Array | None:
        """Where PyTorch has the outputs of a dense layer."""
        return self._order(self._columns, layer)

    @staticmethod
    def _order(of: dict[int, _Stretch], layer: Layer) -> Array | None:
        return of[id(layer)].root().order if id(layer) in of else None

    # ---- along the net ----------------------------------------------------------------------------------------------

    def _chain(self, layers: Sequence[Layer], shape: Shape, vector: _Stretch | None) -> tuple[Shape, _Stretch | None]:
        """The shape and, if it is a vector, the stretch of what a chain makes of its input."""
        for layer in layers:
            after = tuple(size for size in layer.output_shape(shape) if size is not None)
            vector = self._through(layer, shape, after, vector)
            shape = after
        return shape, vector

    def _through(self, layer: Layer, shape: Shape, after: Shape, vector: _Stretch | None) -> _Stretch | None:
        if isinstance(layer, Sequential):
            return self._chain(layer.layers, shape, vector)[1]
        if isinstance(layer, Residual):
            ends = [self._chain(path, shape, vector)[1] for path in (layer.body, layer.shortcut)]
            return None if ends[0] is None or ends[1] is None else self._joined(ends[0], ends[1], layer)
        if isinstance(layer, Reshape):
            return self._reshaped(layer, shape, after, vector)
        if isinstance(layer, Dense) and len(shape) == 1:
            self._columns[id(layer)] = made = _Stretch()
            if vector is not None:
                self._rows[id(layer)] = vector
            return made
        if len(after) > 1:
            return None
        if isinstance(layer, KEEPING):
            if vector is not None:
                self._rows[id(layer)] = vector
            return vector
        if isinstance(layer, GlobalPooling):
            return self._fixed(layer.name, None)
        if vector is not None and vector.root().order is not None:
            self.problems.append(f"{layer.name} ({type(layer).__name__}) stands behind a flattened map")
        return _Stretch()

    def _reshaped(self, layer: Reshape, shape: Shape, after: Shape, vector: _Stretch | None) -> _Stretch | None:
        if len(shape) == 1 and len(after) == 1:
            return vector
        if len(shape) > 1:
            vector = self._fixed(layer.name, self._theirs(shape, layer))
        if len(after) > 1:
            self._joined(vector or _Stretch(), self._fixed(layer.name, self._theirs(after, None)), layer)
            return None
        return vector

    def _theirs(self, shape: Shape, flatten: Layer | None) -> Array:
        """Where PyTorch has the values of a map of this shape, in the order in which we read it."""
        if self._last is None and len(set(shape)) > 1:
            self.problems.append(f"layers before and behind a map {shape} have other data formats")
        channels_last = self._last is not False
        places = np.arange(prod(shape)).reshape((shape[-1], *shape[:-1]) if channels_last else shape)
        own = np.moveaxis(places, 0, -1) if channels_last else places
        if isinstance(flatten, Flatten) and not flatten.channels_last:
            own = np.moveaxis(own, 0, -1)  # whatever it is given
        return own.ravel()

    # ---- stretches ---------------------------------------------------------------------------------------------------

    @staticmethod
    def _fixed(name: str, order: Array | None) -> _Stretch:
        made = _Stretch()
        made.order, made.settled = order, name
        return made

    def _joined(self, one: _Stretch, other: _Stretch, layer: Layer) -> _Stretch:
        """Two stretches as one; a problem if both have an order, and not the same."""
        one, other = one.root(), other.root()
        if one is other:
            return one
        if one.settled and other.settled and not _agree(one.order, other.order):
            self.problems.append(
                f"{layer.name} ({type(layer).__name__}) takes the values from {one.settled} in an order that PyTorch's "
                "does not take"
            )
            return one
        keep, drop = (one, other) if one.settled else (other, one)
        drop.same = keep
        return keep


def _is_same(order: Array) -> bool:
    return bool(np.array_equal(order, np.arange(len(order))))


def _agree(one: Array | None, other: Array | None) -> bool:
    if one is None or other is None:
        return all(order is None or _is_same(order) for order in (one, other))
    return bool(np.array_equal(one, other))


def _layouts(layers: Sequence[Layer]) -> bool | None:
    """Whether maps have their channels last, as the layers that read maps say; None if they do not agree."""
    found = set()
    waiting = list(layers)
    while waiting:
        layer = waiting.pop()
        if layer.sublayers():
            waiting += layer.sublayers()
        elif layer.reads_images:
            found.add(layer.channels_last)
    if not found:
        found = {layer.channels_last for layer in layers}
    return found.pop() if len(found) == 1 else None
