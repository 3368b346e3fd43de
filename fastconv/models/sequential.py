"""`Sequential`: a chain of layers as one net, with Keras' methods."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from .. import storage
from ..arrays import as_array
from ..errors import ConvError, ConvTypeError
from ..geometry import Shape, integer
from ..inference import InferencePlan
from ..layers.base import Array, Layer, locating
from ..layers.core import Dropout, chain, chain_backward, chain_window, unique_names
from ..layers.memory import Arena
from ..summary import Table, table
from ..training import Trainable

PLANS = 4  # input shapes that a model keeps prepared: each holds packed weights


class Sequential(Trainable, Layer):
    """Layers one after another.

    `input_shape` (without the batch) fixes all shapes at once; without it the first input does. Weights are made when
    they are first needed; `seed` makes them, and the draws of `Dropout`, the same every time.
    """

    reads_images = False
    is_chain = True

    def __deepcopy__(self, memo: dict[int, Any]) -> Sequential:
        """A copy of layers and weights; plans are made anew."""
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made._plans, made._arena = {}, Arena()
        for name, value in self.__dict__.items():
            if name not in ("_plans", "_arena"):
                setattr(made, name, copy.deepcopy(value, memo))
        return made

    def __init__(
        self,
        layers: Sequence[Layer] = (),
        input_shape: Sequence[int] | None = None,
        *,
        name: str | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        layers = chain("layers", layers)
        if layers and "dtype" not in options:
            options["dtype"] = layers[0].dtype.name
        if layers and input_shape is None:
            input_shape = layers[0].given_input_shape
        super().__init__(name=name, input_shape=input_shape, **options)
        self.seed = None if seed is None else integer("seed", seed)
        self.layers: list[Layer] = []
        self._plans: dict[Shape, InferencePlan] = {}
        self._arena = Arena()
        for layer in layers:
            self.add(layer)
        if self.layers and self.given_input_shape is not None:
            self.build(self.given_input_shape)

    def add(self, layer: Layer) -> None:
        """Append a layer to a model that has not been built."""
        if not isinstance(layer, Layer):
            raise ConvTypeError(f"add takes a layer, but got {layer!r} of type {type(layer).__name__}.")
        if self.built_shape is not None:
            raise ConvError(f"{self.name} is built: layers are added before the first input or without input_shape.")
        if layer.dtype != self.dtype:
            raise ConvTypeError(f"{layer.name} computes in {layer.dtype}, but {self.name} in {self.dtype}.")
        chain("layers", [*self.layers, layer])
        unique_names([*self.layers, layer])
        self.layers.append(layer)

    def sublayers(self) -> Sequence[Layer]:
        return self.layers

    def get_layer(self, name: str) -> Layer:
        """The layer of this name, at any depth."""
        for layer in all_layers(self):
            if layer.name == name:
                return layer
        raise ConvError(f"{self.name} has no layer {name!r}; it has {', '.join(layer.name for layer in self.layers)}.")

    # ---- shapes and weights -------------------------------------------------------------------------------------

    def shapes(self, sample: Sequence[int | None]) -> Iterator[tuple[Layer, Shape, Shape]]:
        """(layer, its input shape, its output shape) down the net, without the batch axis."""
        shape = cast(Shape, tuple(sample))
        for layer in self.layers:
            with locating(layer):
                after = cast(Shape, layer.output_shape(shape))
            yield layer, shape, after
            shape = after

    def _sample_shape(self, sample: Shape) -> Shape:
        for _, _, after in self.shapes(sample):
            sample = after
        return sample

    def _build(self, sample: Shape) -> None:
        for layer, before, _ in self.shapes(sample):
            layer.build(before)
        root = int(np.random.SeedSequence().generate_state(1)[0]) if self.seed is None else self.seed
        for i, parameter in enumerate(self.parameters()):
            parameter.seed = (root, i)
        if self.seed is not None:
            for i, layer in enumerate(all_layers(self)):
                if isinstance(layer, Dropout) and not layer.seeded:
                    layer.random = np.random.default_rng((self.seed, i, 1))

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        for layer in self.layers:
            yield from layer.named_parameters(prefix)

    def macs(self, input_shape: Sequence[int | None]) -> int:
        return sum(layer.macs(before) for layer, before, _ in self.shapes(self._without_batch(input_shape)[1]))

    def window(self, input_shape: Sequence[int | None]) -> tuple[tuple[int, int], tuple[int, int]]:
        return chain_window(self.layers, input_shape)

    # ---- what it is ---------------------------------------------------------------------------------------------

    def _known_shape(self, input_shape: Sequence[int | None] | None) -> Shape:
        if input_shape is not None:
            self.build(input_shape)
            return self._without_batch(input_shape)[1]
        self._require_built()
        assert self.built_shape is not None
        return self.built_shape

    def table(self, input_shape: Sequence[int | None] | None = None) -> Table:
        """One row a layer for samples of `input_shape` (that of the build if not given); allocates nothing."""
        return table(self, self._known_shape(input_shape))

    def summary(self, input_shape: Sequence[int | None] | None = None, print_fn: Callable[[str], Any] = print) -> None:
        """Print the table: output shape, parameters, multiply-adds, activation memory, receptive field, totals."""
        print_fn(str(self.table(input_shape)))

    def to_fully_convolutional(self) -> Sequential:
        """The same net for images of any larger size: Flatten + Dense become k x k and 1 x 1 convolutions."""
        from .convert import to_fully_convolutional

        return to_fully_convolutional(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the weights to an .npz or .safetensors file."""
        self._require_built()
        storage.save(self, path)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Read weights that `save` wrote; `ConvError` says what differs from this model, which is then unchanged."""
        self._require_built()
        storage.load(self, path)

    # ---- running ------------------------------------------------------------------------------------------------

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        y = self._take(x)
        for layer in self.layers:
            with locating(layer):
                y = layer.forward(y, training)
        return y

    def compile_inference(self, input_shape: Sequence[int | None] | None = None) -> InferencePlan:
        """The net prepared for samples of this shape (that of the build if not given), as `predict` uses it.

        The plan is kept until a weight changes; `print(plan.explain())` tells what was fused and where values live.
        """
        sample = self.built_shape if input_shape is None else self._without_batch(input_shape)[1]
        plan = self._plans.get(sample) if sample is not None else None
        if plan is None or not plan.current:
            sample = self._known_shape(input_shape)
            if len(self._plans) >= PLANS:
                self._plans.pop(next(iter(self._plans)))
            plan = self._plans[sample] = InferencePlan(self, sample)
        return plan

    def backward(self, grad: ArrayLike) -> Array:
        return chain_backward(self.layers, as_array("grad", grad))


def all_layers(layer: Layer) -> Iterable[Layer]:
    """The layers inside `layer`, at any depth."""
    for inner in layer.sublayers():
        yield inner
        yield from all_layers(inner)
