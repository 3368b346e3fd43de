"""`Sequential`: a chain of layers as one net, with Keras' methods."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from .._core.arrays import as_array
from .._core.rounding import Halves, checked_halves
from .._core.words import Shape, integer
from ..errors import ConvError, ConvTypeError
from ..layers.base import Array, Layer, Sample, Window, all_layers, locating, prefix_of
from ..layers.core import Dropout, chain, chain_axes, chain_backward, chain_window, unique_names
from ..layers.memory import Arena
from . import storage
from .convert import to_fully_convolutional
from .inference import InferencePlan
from .summary import Table, table
from .training import Trainable

PLANS = 4  # input shapes that a model keeps prepared: each holds packed weights


class Sequential(Trainable, Layer):
    """A net of layers one after another, with Keras' methods.

    Weights are made when they are first needed.

    Parameters
    ----------
    layers : sequence of Layer
        From the input to the output.
    input_shape : sequence of int, optional
        Of one sample; fixes all shapes at once. Without it the first input does.
    name : str, optional
        Shows in summaries and errors.
    seed : int, optional
        Makes the weights, and the draws of dropout, the same every time.
    **options : Any
        Also trainable, dtype and data_format: see `Layer`.

    Raises
    ------
    ConvError, ConvTypeError
        For layers that do not fit behind each other; the message names the layer.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import Sequential, layers
    >>> net = Sequential([layers.Conv2D(8, 3, activation="relu"), layers.GlobalAveragePooling2D(), layers.Dense(3)],
    ...                  input_shape=(16, 16, 1), seed=0)
    >>> net.count_params()
    107
    >>> net.predict(np.zeros((5, 16, 16, 1), np.float32)).shape
    (5, 3)
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
        self.layers: list[Layer] = list(layers)  # which tell the meaning of input_shape
        super().__init__(name=name, input_shape=input_shape, **options)
        self.seed = None if seed is None else integer("seed", seed)
        self.layers = []
        self._plans: dict[tuple[Shape, Halves], InferencePlan] = {}
        self._arena = Arena()
        for layer in layers:
            self.add(layer)
        if self.layers and self.given_input_shape is not None:
            self.build(Sample(self.given_input_shape))

    def add(self, layer: Layer) -> None:
        """Append a layer to a model that has not been built.

        Parameters
        ----------
        layer : Layer
            Of the model's element type.

        Raises
        ------
        ConvError, ConvTypeError
            For a built model, or what is no layer.
        """
        if not isinstance(layer, Layer):
            raise ConvTypeError(f"add takes a layer, but got {layer!r} of type {type(layer).__name__}.")
        if self.built_shape is not None:
            raise ConvError(f"{self.name} is built: layers are added before the first input or without input_shape.")
        if layer.dtype != self.dtype:
            raise ConvTypeError(f"{layer.name} computes in {layer.dtype}, but {self.name} in {self.dtype}.")
        chain("layers", [*self.layers, layer])
        unique_names([*self.layers, layer])
        for one in (layer, *all_layers(layer)):
            one.precision = self.precision  # of `compile`
        self.layers.append(layer)

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles take: layers, weights, the optimiser's state; plans are made anew."""
        return {**super().__getstate__(), "_plans": {}, "_arena": Arena()}

    def _described(self) -> list[str]:
        count = len(self.layers)
        return [f"{count} layer{'' if count == 1 else 's'}", *super()._described()]

    def sublayers(self) -> Sequence[Layer]:
        return self.layers

    def get_layer(self, name: str) -> Layer:
        """Find a layer at any depth.

        Parameters
        ----------
        name : str
            The layer's name.

        Returns
        -------
        Layer
            The first of this name.

        Raises
        ------
        ConvError
            If there is none.
        """
        for layer in all_layers(self):
            if layer.name == name:
                return layer
        raise ConvError(f"{self.name} has no layer {name!r}; it has {', '.join(layer.name for layer in self.layers)}.")

    # ---- shapes and weights -------------------------------------------------------------------------------------

    def _spatial_axes(self) -> int | None:
        known = chain_axes(self.layers)
        return super()._spatial_axes() if known is None else known

    def _require_layers(self) -> None:
        if not self.layers:
            raise ConvError(f"{self.name} has no layers: give it some with add(layer) or as Sequential([layer, ...]).")

    def build(self, input_shape: Sequence[int | None]) -> None:
        self._require_layers()
        super().build(input_shape)

    def _require_built(self) -> None:
        self._require_layers()
        super()._require_built()

    def shapes(self, sample: Sequence[int | None]) -> Iterator[tuple[Layer, Shape, Shape]]:
        """The shapes down the net, without the batch axis.

        Parameters
        ----------
        sample : sequence of int
            The shape of one input.

        Yields
        ------
        (Layer, tuple, tuple)
            A layer, the shape of its input and that of its output.
        """
        shape = cast(Shape, Sample(sample))
        for layer in self.layers:
            with locating(layer):
                after = cast(Shape, layer.output_shape(shape))
            yield layer, shape, after
            shape = after

    def _sample_shape(self, sample: Shape) -> Shape:
        for _, _, after in self.shapes(sample):
            sample = after
        return tuple(sample)

    def _shape_of_unknown(self, shape: Sequence[int | None]) -> tuple[int | None, ...]:
        batched = self._has_batch(shape)
        return (*shape[:batched], *self._sample_shape(cast(Shape, shape[batched:])))

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
            yield from layer.named_parameters(prefix_of(layer, prefix))

    def macs(self, input_shape: Sequence[int | None]) -> int:
        return sum(layer.macs(before) for layer, before, _ in self.shapes(self._without_batch(input_shape)[1]))

    def window(self, input_shape: Sequence[int | None]) -> Window:
        return chain_window(self.layers, self._without_batch(input_shape)[1])

    # ---- what it is ---------------------------------------------------------------------------------------------

    def _known_shape(self, input_shape: Sequence[int | None] | None) -> Shape:
        if input_shape is not None:
            sample = self._without_batch(input_shape)[1]
            self.build(Sample(sample))
            return sample
        self._require_built()
        assert self.built_shape is not None
        return self.built_shape

    def table(self, input_shape: Sequence[int | None] | None = None) -> Table:
        """What `summary` prints, as numbers; nothing is allocated.

        Parameters
        ----------
        input_shape : sequence of int or None, optional
            Of the samples, with or without a batch axis; that of the build if not given.

        Returns
        -------
        Table
            Rows, one a layer, and totals: `parameters`, `macs`, `forward_bytes`, `training_bytes`.
        """
        return table(self, self._known_shape(input_shape))

    def summary(self, input_shape: Sequence[int | None] | None = None, print_fn: Callable[[str], Any] = print) -> None:
        """Print a table of the net; nothing is allocated.

        Output shape, parameters, multiply-adds, bytes of activations forward and in training, receptive field and
        stride of every layer, and the totals.

        Parameters
        ----------
        input_shape : sequence of int or None, optional
            Of the samples, with or without a batch axis; that of the build if not given.
        print_fn : callable
            Receives the text.
        """
        print_fn(str(self.table(input_shape)))

    def to_fully_convolutional(self) -> Sequential:
        """Copy the net for images of any larger size: Flatten + Dense become k x k and 1 x 1 convolutions.

        At the native size (1, 1, classes) scores equal the model's to rounding; a larger image gives a map of them.
        What is saved is the computation that neighbouring windows share; the weights stay as many.

        Returns
        -------
        Sequential
            With the very same weights.

        Raises
        ------
        ConvError
            For a layer behind Flatten that has no such form.
        """
        return to_fully_convolutional(self, Sequential)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the weights to a file.

        Parameters
        ----------
        path : path_like
            Ends in .npz or .safetensors.
        """
        self._require_built()
        storage.save(self, path)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Read weights that `save` wrote.

        Parameters
        ----------
        path : path_like
            Ends in .npz or .safetensors.

        Raises
        ------
        ConvError
            Says what differs from this model, which is then unchanged.
        """
        self._require_built()
        storage.load(self, path)

    # ---- running ------------------------------------------------------------------------------------------------

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        y = self._take(x)
        for layer in self.layers:
            with locating(layer):
                y = layer.forward(y, training)
        return y

    def compile_inference(
        self, input_shape: Sequence[int | None] | None = None, *, weights_dtype: str | None = None,
        precision: str | None = None,
    ) -> InferencePlan:  # fmt: skip
        """Prepare the net for samples of this shape, as `predict` uses it.

        Normalisation is folded into convolutions, activations and residual sums are fused, weights packed, buffers
        shared.

        Parameters
        ----------
        input_shape : sequence of int or None, optional
            Of the samples, with or without a batch axis; that of the build if not given.
        weights_dtype : {'float32', 'float16', 'bfloat16'}, optional
            Weights of 16 bits are rounded to the nearest and held so, and multiplied in float32.
        precision : {'float32', 'bfloat16'}, optional
            'bfloat16' rounds the inputs of convolutions and dense layers, and their weights, to it; sums are float32.

        Returns
        -------
        InferencePlan
            Kept until a weight changes; ``print(plan.explain())`` tells what was fused and where values live.
        """
        sample = self.built_shape if input_shape is None else self._without_batch(input_shape)[1]
        halves = checked_halves(weights_dtype, precision)
        plan = self._plans.get((sample, halves)) if sample is not None else None
        if plan is None or not plan.current:
            sample = self._known_shape(None if sample is None else Sample(sample))
            if len(self._plans) >= PLANS:
                self._plans.pop(next(iter(self._plans)))
            plan = self._plans[sample, halves] = InferencePlan(self, sample, **halves.options)
        return plan

    def backward(self, grad: ArrayLike) -> Array:
        return chain_backward(self.layers, as_array("grad", grad))
