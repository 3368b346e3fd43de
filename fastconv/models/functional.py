"""`Model`: a net of any wiring, made of symbolic tensors in Keras' words."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, cast

from .._core.arrays import as_array
from .._core.words import Shape, integer
from ..errors import ConvError, ConvTypeError
from ..layers.base import Array, Layer, Sample
from ..layers.core import unique_names
from .data import listed
from .net import Net
from .wiring import Wiring, tensors_of, wired

Sizes = tuple[int | None, ...]


class Model(Net):
    """A net of any wiring: all layers between `inputs` and `outputs`.

    Begin with `fastconv.Input`, call layers on it and on what they return, and name both ends. A layer that is called
    twice has one set of weights, whose gradients are added. A model is a layer too, and so is a `Sequential`.

    Parameters
    ----------
    inputs : Symbolic or list of Symbolic
        Where arrays go in; of several, in this order, or by name.
    outputs : Symbolic or list of Symbolic
        Where results come out.
    name : str, optional
        Shows in summaries and errors.
    seed : int, optional
        Makes the weights, and the draws of dropout, the same every time.
    **options : Any
        Also trainable: see `Layer`.

    Raises
    ------
    ConvError, ConvTypeError
        For a disconnected graph, a name that is given twice, or tensors of different element types.

    Examples
    --------
    >>> import numpy as np
    >>> import fastconv
    >>> from fastconv import layers
    >>> x = fastconv.Input((16, 16, 3))
    >>> y = layers.Conv2D(3, 3, padding="same", activation="relu")(x)
    >>> y = layers.GlobalAveragePooling2D()(layers.Add()([x, y]))
    >>> net = fastconv.Model(x, [layers.Dense(10, name="digit")(y), layers.Dense(2, name="sign")(y)], seed=0)
    >>> net.output_names, net.count_params()
    (['digit', 'sign'], 132)
    >>> [result.shape for result in net.predict(np.zeros((5, 16, 16, 3), np.float32))]
    [(5, 10), (5, 2)]
    """

    def __init__(
        self, inputs: Any, outputs: Any, name: str | None = None, *, seed: int | None = None, **options: Any
    ) -> None:
        begin, end = tensors_of("inputs", inputs), tensors_of("outputs", outputs)
        kinds = {tensor.dtype for tensor in (*begin, *end)}
        if len(kinds) > 1:
            raise ConvTypeError(f"inputs and outputs must be of one element type, but are {sorted(map(str, kinds))}.")
        called = name if isinstance(name, str) else self.default_name()
        self._made = wired(begin, end, called)
        self.layers = self._made.layers
        super().__init__(name=name, seed=seed, dtype=begin[0].dtype.name, **options)
        unique_names(self.layers, keep=True)
        self.input_names = _names([tensor.name if tensor.node.name else None for tensor in begin], "input")
        self.output_names = _names([tensor.name for tensor in end], "output")
        self._sizes: list[Sizes] = [tensor.shape[1:] for tensor in begin]
        self._ends = (begin, end)
        self.merges = len(begin) > 1
        if not any(None in sizes for sizes in self._sizes):
            self.build([Sample(sizes) for sizes in self._sizes] if self.merges else Sample(self._sizes[0]))

    @property
    def wiring(self) -> Wiring:
        """The calls of the layers."""
        return self._made

    def twin(self, made: dict[int, Layer]) -> Layer:
        found = cast(Model, super().twin(made))
        if found._made is self._made:
            found._made = self._made.twin(made)
        return found

    def _input_sizes(self) -> list[Sizes]:
        return self._sizes

    # ---- shapes -------------------------------------------------------------------------------------------------

    def _described(self) -> list[str]:
        count = len(self.layers)
        return [
            f"{count} layer{'' if count == 1 else 's'}",
            f"{', '.join(map(str, self._sizes))} -> {', '.join(self.output_names)}",
        ]

    def _spatial_axes(self) -> int | None:
        sizes = self.__dict__.get("_sizes")
        return len(sizes[0]) - 1 if sizes else None

    def _axes(self) -> int | None:
        return len(self._sizes[0]) + 1 if len(self._sizes) == 1 else None

    def _given_shapes(self, input_shape: Any) -> list[Any]:
        """The shapes that were given, one an input."""
        if not isinstance(input_shape, (tuple, list)):
            raise ConvTypeError(f"input_shape must be a tuple such as (32, 32, 3), but got {input_shape!r}.")
        alone = not input_shape or not isinstance(input_shape[0], (tuple, list))
        given = [input_shape] if alone else list(input_shape)
        if len(given) != len(self._sizes):
            raise ConvError(
                f"{self.name} takes {len(self._sizes)} inputs {self.input_names}, but got the shapes of {len(given)}."
            )
        return given

    def _cut_shape(self, place: int, shape: Sequence[int | None]) -> tuple[Sizes, Sizes]:
        """((batch,) or (), sample) of a shape that was given for an input."""
        axes = len(self._sizes[place])
        batched = 0 if isinstance(shape, Sample) else len(shape) - axes
        if batched not in (0, 1) or len(shape) - batched != axes:
            raise ConvError(
                f"{self.name}: the input {self.input_names[place]!r} has samples of {axes} axes, such as "
                f"{self._sizes[place]}, but got the shape {tuple(shape)}."
            )
        return tuple(shape[:batched]), tuple(shape[batched:])

    def _samples(self, input_shape: Any) -> list[Shape]:
        samples = [self._cut_shape(i, shape)[1] for i, shape in enumerate(self._given_shapes(input_shape))]
        made = [tuple(integer("input_shape", size) for size in sample) for sample in samples]
        if any(size < 0 for sample in made for size in sample):
            raise ConvError(f"{self.name}: input_shape must not be negative, but got {input_shape}.")
        return made

    def output_shape(self, input_shape: Any) -> Any:
        """The shape of the output for an input of this shape; nothing is allocated.

        Parameters
        ----------
        input_shape : sequence of int or None, or list of them
            With or without a batch axis; a list where there are several inputs.

        Returns
        -------
        tuple of int or None, or list of them
            With a batch axis if the input's has one; a list where there are several outputs.

        Raises
        ------
        ConvError
            For a shape that the net does not take.
        """
        shapes = self._given_shapes(input_shape)
        cut = [self._cut_shape(place, shape) for place, shape in enumerate(shapes)]
        bare, batch = isinstance(shapes[0], Sample), cut[0][0]
        ends = self.wiring.ends([sample for _, sample in cut])
        made = [Sample(end) if bare else (*batch, *end) for end in ends]
        return made[0] if len(made) == 1 else made

    def _sample_shape(self, sample: Shape) -> Shape:
        return cast(Shape, self.output_shape(Sample(sample)))

    def build(self, input_shape: Any) -> None:
        """Fix the shapes of the weights; nothing is allocated.

        Parameters
        ----------
        input_shape : sequence of int or None, or list of them
            The input's, with or without a batch axis; a list where there are several.
        """
        samples = self._samples(input_shape)
        if self.built_shape is None:
            self._build_samples(samples)
            shapes: Any = tuple(samples)  # one an input
            self.built_shape = shapes if self.merges else shapes[0]

    def _seed(self) -> None:
        """Weights of layers that another net has are left to that one, unless this has a seed."""
        before = {id(parameter): parameter.seed for parameter in self.parameters()}
        super()._seed()
        if self.seed is None:
            for parameter in self.parameters():
                parameter.seed = before[id(parameter)] or parameter.seed

    def _require_built(self) -> None:
        if self.built_shape is None:
            raise ConvError(
                f"{self.name} has inputs of unknown sizes {self._sizes} and no weights yet: call build(input_shape) "
                "or run it on an input first."
            )

    def activation_values(self, input_shape: Any) -> tuple[int, int]:
        count = sum(prod(end) for end in self.wiring.ends(self._samples(input_shape)))
        return count, 2 * count

    # ---- running ------------------------------------------------------------------------------------------------

    def _batches(self, arrays: Sequence[Array]) -> None:
        for array, sizes, name in zip(arrays, self._sizes, self.input_names, strict=True):
            if array.ndim != len(sizes) + 1:
                raise ConvError(
                    f"{self.name}: the input {name!r} must be a batch of samples {sizes}, but got shape "
                    f"{array.shape}; a single sample becomes a batch with x[None]."
                )
        counts = {len(array) for array in arrays}
        if len(counts) > 1:
            raise ConvError(
                f"{self.name}: the inputs {self.input_names} must be of as many samples, but got "
                f"{[len(a) for a in arrays]}."
            )
        if self.built_shape is None:
            shapes = [Sample(array.shape[1:]) for array in arrays]
            self.build(shapes if self.merges else shapes[0])

    def _taken(self, x: Any) -> list[Array]:
        given = listed("x", x, self.input_names, "input")
        arrays = [as_array("x", value) for value in given]
        self._batches(arrays)
        return self._own_type(arrays)


def _names(given: Sequence[str | None], stem: str) -> list[str]:
    """Names that are all different: those given, numbered where one occurs again, others by the stem."""
    made: list[str] = []
    taken = [name for name in given if name is not None]
    if stem == "input" and len(set(taken)) < len(taken):
        twice = next(name for name in taken if taken.count(name) > 1)
        raise ConvError(f"two inputs are named {twice!r}; give them different names.")
    for name in given:
        own, count = name or stem, 0
        while own in made or (name is None and own in taken):
            count += 1
            own = f"{name or stem}_{count}"
        made.append(own)
    return made
