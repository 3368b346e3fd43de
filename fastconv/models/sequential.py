"""`Sequential`: a chain of layers as one net, with Keras' methods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, cast

from numpy.typing import ArrayLike

from .._core.words import Shape
from ..errors import ConvError, ConvTypeError
from ..layers.base import Array, Layer, Sample, Window, all_layers, locating
from ..layers.core import chain, chain_axes, chain_window, unique_names
from ..layers.symbolic import Symbolic
from .convert import to_fully_convolutional
from .net import Net
from .wiring import Wiring, chained


class Sequential(Net):
    """A net of layers one after another, with Keras' methods.

    Weights are made when they are first needed.

    Parameters
    ----------
    layers : sequence of Layer
        From the input to the output; before them an `Input` may stand, for the shape.
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

    is_chain: ClassVar[bool] = True
    input_names = ("input",)

    def __init__(
        self,
        layers: Sequence[Layer] = (),
        input_shape: Sequence[int] | None = None,
        *,
        name: str | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        if isinstance(layers, (list, tuple)) and layers and isinstance(layers[0], Symbolic):
            input_shape, layers = _begun(layers[0], input_shape), layers[1:]
        layers = chain("layers", layers)
        if layers and "dtype" not in options:
            options["dtype"] = layers[0].dtype.name
        if layers and input_shape is None:
            input_shape = layers[0].given_input_shape
        self.layers: list[Layer] = list(layers)  # which tell the meaning of input_shape
        super().__init__(name=name, seed=seed, input_shape=input_shape, **options)
        self.layers = []
        self._wiring: tuple[list[int], Wiring] | None = None
        for layer in layers:
            self.add(layer)
        if self.layers and self.given_input_shape is not None:
            self.build(Sample(self.given_input_shape))

    def add(self, layer: Layer) -> None:
        """Append a layer to a model that has not been built.

        Parameters
        ----------
        layer : Layer
            Of the model's element type, with one input and one output; first an `Input` may come.

        Raises
        ------
        ConvError, ConvTypeError
            For a built model, or what is no layer.
        """
        if isinstance(layer, Symbolic) and not self.layers:
            self.given_input_shape = _begun(layer, None)
            return
        if not isinstance(layer, Layer):
            raise ConvTypeError(f"add takes a layer, but got {layer!r} of type {type(layer).__name__}.")
        if self.built_shape is not None:
            raise ConvError(f"{self.name} is built: layers are added before the first input or without input_shape.")
        if layer.merges or (layer.is_net and len(layer.wiring.outputs) > 1):  # type: ignore[attr-defined]
            raise ConvError(
                f"{layer.name} has several inputs or outputs, which a chain does not have; wire it by fastconv.Input "
                "and fastconv.Model."
            )
        if layer.dtype != self.dtype:
            raise ConvTypeError(f"{layer.name} computes in {layer.dtype}, but {self.name} in {self.dtype}.")
        chain("layers", [*self.layers, layer])
        unique_names([*self.layers, layer])
        for one in (layer, *all_layers(layer)):
            one.precision = self.precision  # of `compile`
        self.layers.append(layer)

    @property
    def wiring(self) -> Wiring:
        """The calls of the layers, one after another."""
        layers = [id(layer) for layer in self.layers]
        if self._wiring is None or self._wiring[0] != layers:
            self._wiring = layers, chained(self.layers)
        return self._wiring[1]

    @property
    def output_names(self) -> list[str]:  # type: ignore[override]  # of the last layer, whatever it is now
        """The name of the one output."""
        return [self.layers[-1].name if self.layers else "output"]

    def _input_sizes(self) -> list[tuple[int | None, ...]]:
        self._require_built()
        return [cast("tuple[int | None, ...]", self.built_shape)]

    def twin(self, made: dict[int, Layer]) -> Layer:
        found = cast(Sequential, super().twin(made))
        found._wiring = None
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_wiring": None}

    # ---- shapes and weights -------------------------------------------------------------------------------------

    def _spatial_axes(self) -> int | None:
        known = chain_axes(self.layers)
        return super()._spatial_axes() if known is None else known

    def _axes(self) -> int | None:
        return None if self.built_shape is None else len(self.built_shape) + 1

    def _require_layers(self) -> None:
        if not self.layers:
            raise ConvError(f"{self.name} has no layers: give it some with add(layer) or as Sequential([layer, ...]).")

    def build(self, input_shape: Sequence[int | None]) -> None:
        self._require_layers()
        super().build(input_shape)

    def _require_built(self) -> None:
        self._require_layers()
        super()._require_built()

    def _samples(self, input_shape: Any) -> list[Shape]:
        if isinstance(input_shape, list) and len(input_shape) == 1 and isinstance(input_shape[0], (tuple, list)):
            input_shape = input_shape[0]
        return [self._without_batch(input_shape)[1]]

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
        self._build_samples([sample])

    def window(self, input_shape: Sequence[int | None]) -> Window:
        return chain_window(self.layers, self._without_batch(input_shape)[1])

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

    # ---- running ------------------------------------------------------------------------------------------------

    def _batches(self, arrays: Sequence[Array]) -> None:
        (array,) = arrays
        if not self._takes_batch(array.shape):
            raise ConvError(f"x must be a batch {self._axes_text('N, ')} or (N, F), but got shape {array.shape}.")
        if self.built_shape is None:
            self.build(Sample(array.shape[1:]))

    def _taken(self, x: ArrayLike) -> list[Array]:
        return [self._take(x)]


def _begun(tensor: Symbolic, input_shape: Sequence[int] | None) -> Any:
    """The shape of samples that an `Input` before all layers says, if it says all sizes."""
    if tensor.node.layer is not None:
        raise ConvTypeError(f"layers must hold layers, and perhaps an Input before them, but got {tensor!r}.")
    sizes = tensor.shape[1:]
    return input_shape if None in sizes else sizes


__all__ = ["Sequential", "all_layers"]
