"""`Sequential`: a chain of layers as one net, with Keras' methods."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from ..errors import ConvError, ConvTypeError
from ..geometry import Shape, integer
from ..layers.base import Array, Layer, locating
from ..layers.core import Dropout, chain, chain_window, unique_names
from ..training import Trainable


class Sequential(Trainable, Layer):
    """Layers one after another.

    `input_shape` (without the batch) fixes all shapes at once; without it the first input does. Weights are made when
    they are first needed; `seed` makes them, and the draws of `Dropout`, the same every time.
    """

    reads_images = False
    is_chain = True

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
                if isinstance(layer, Dropout):
                    layer.random = np.random.default_rng((self.seed, i, 1))

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        for layer in self.layers:
            yield from layer.named_parameters(prefix)

    def macs(self, input_shape: Sequence[int | None]) -> int:
        return sum(layer.macs(before) for layer, before, _ in self.shapes(self._without_batch(input_shape)[1]))

    def window(self, input_shape: Sequence[int | None]) -> tuple[tuple[int, int], tuple[int, int]]:
        return chain_window(self.layers, input_shape)

    # ---- running ------------------------------------------------------------------------------------------------

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        y = self._take(x)
        for layer in self.layers:
            with locating(layer):
                y = layer.forward(y, training)
        return y

    def backward(self, grad: ArrayLike) -> Array:
        gradient = cast(Array, grad)
        for layer in reversed(self.layers):
            with locating(layer):
                gradient = layer.backward(gradient)
        return gradient


def all_layers(layer: Layer) -> Iterable[Layer]:
    """The layers inside `layer`, at any depth."""
    for inner in layer.sublayers():
        yield inner
        yield from all_layers(inner)
