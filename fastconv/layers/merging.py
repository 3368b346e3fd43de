"""Layers of several inputs: sums, products, means, extremes and concatenation, called on lists.

Shapes must agree, or have a 1 where they do not: it is repeated, as NumPy does.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .._core.arrays import as_array
from .._core.sums import total
from .._core.words import Shape, integer
from ..errors import ConvError, ConvTypeError
from . import memory
from .base import Array, Layer, Sample, Window, one_pixel

Sizes = tuple[int | None, ...]


class Merge(Layer):
    """What all merging layers have: lists of arrays, of shapes and of gradients.

    Subclasses give `_merged`, `_gradients` and, unless they work value by value, `_merged_shape`.
    """

    reads_images = False
    merges = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._kept: list[Array] | None = None
        self._output: Array | None = None

    # ---- shapes -------------------------------------------------------------------------------------------------

    def _listed(self, name: str, given: Any, kinds: Any) -> list[Any]:
        listed = list(given) if isinstance(given, (list, tuple)) else []
        if not listed or not all(isinstance(value, kinds) for value in listed):
            raise ConvTypeError(
                f"{self.name}: {name} must be a list, one an input, but got a {type(given).__name__}; call it on a "
                f"list, such as {type(self).__name__}()([a, b])."
            )
        return listed

    def _merged_shape(self, shapes: Sequence[Sizes], batched: bool) -> Sizes:
        """The shape of the result, with the batch where the inputs' have it."""
        if len({len(shape) for shape in shapes}) > 1:
            raise self._unlike(shapes, "they must have as many axes")
        made: list[int | None] = []
        for sizes in zip(*shapes, strict=True):
            known = {size for size in sizes if size != 1}
            if len(known - {None}) > 1:
                raise self._unlike(shapes, "sizes must be equal, or 1")
            made.append(None if None in known else next(iter(known), 1))
        return tuple(made)

    def _unlike(self, shapes: Sequence[Sizes], why: str) -> ConvError:
        listed = ", ".join(str(tuple(shape)) for shape in shapes)
        return ConvError(
            f"{self.name} ({type(self).__name__}) cannot merge the shapes {listed}: {why}. Pad, crop, reshape or "
            "convolve one of them first."
        )

    def output_shape(self, input_shape: Any) -> Any:
        """The shape of the output for inputs of these shapes; nothing is allocated.

        Parameters
        ----------
        input_shape : list of tuples
            One an input, all with or all without a batch axis.

        Returns
        -------
        tuple of int or None
            With a batch axis if the inputs have one.

        Raises
        ------
        ConvError
            For shapes that do not go together; it names them.
        """
        shapes = self._listed("input_shape", input_shape, (tuple, list))
        bare = isinstance(shapes[0], Sample)
        made = self._merged_shape([tuple(shape) for shape in shapes], not bare and self._has_batch(shapes[0]))
        return Sample(made) if bare else made

    def build(self, input_shape: Any) -> None:
        """Look at the shapes; there are no weights.

        Parameters
        ----------
        input_shape : list of tuples
            One an input.
        """
        self.output_shape(input_shape)
        if self.built_shape is None:
            shapes: Any = tuple(tuple(shape) for shape in input_shape)  # one an input
            self.built_shape = shapes

    def _require_built(self) -> None:
        """There are no weights that could be missing."""

    def activation_values(self, input_shape: Any) -> tuple[int, int]:
        count = prod(self.output_shape([Sample(shape) for shape in input_shape]))
        return count, 2 * count

    def window(self, input_shape: Any) -> Window:
        return one_pixel(len(input_shape[0]))

    def _described(self) -> list[str]:
        return ["not built" if self.built_shape is None else f"{list(self.built_shape)}"]

    # ---- running ------------------------------------------------------------------------------------------------

    def forward(self, x: Any, training: bool = False) -> Array:
        """The output for a list of batches; what `backward` needs is kept until the next call.

        Parameters
        ----------
        x : list of array_like
            One an input; cast to the layer's element type.
        training : bool
            Makes no difference.

        Returns
        -------
        ndarray
            Of the shape that `output_shape` gives.

        Raises
        ------
        ConvError
            For shapes that do not go together.
        """
        arrays = [as_array("x", value) for value in self._listed("x", x, object)]
        arrays = [array if array.dtype == self.dtype else array.astype(self.dtype) for array in arrays]
        shapes = [array.shape for array in arrays]
        if any(len(shape) < 2 for shape in shapes) or len({shape[0] for shape in shapes}) > 1:
            raise self._unlike(shapes, "they must be batches of as many samples")
        y = memory.empty(tuple(size or 0 for size in self._merged_shape(shapes, True)), self.dtype)
        self._merged(arrays, y)
        self._kept, self._output = arrays, y
        return y

    def backward(self, grad: ArrayLike) -> Any:
        """The gradients with respect to the last inputs.

        Parameters
        ----------
        grad : array_like
            The gradient with respect to the last output, of its shape.

        Returns
        -------
        list of ndarray
            One an input, of its shape.

        Raises
        ------
        ConvError
            Without a `forward` before it, or for another shape.
        """
        kept = self._kept
        if kept is None or self._output is None:
            raise ConvError(f"{self.name}: backward needs a forward call before it.")
        given = np.asarray(grad, self.dtype)
        if given.shape != self._output.shape:
            raise ConvError(f"{self.name}: grad must have the shape {self._output.shape}, but got {given.shape}.")
        return [_summed(made, x.shape) for made, x in zip(self._gradients(given, kept), kept, strict=True)]

    def _merged(self, arrays: Sequence[Array], y: Array) -> None:
        """Write the result to `y`, which is none of the arrays."""
        raise NotImplementedError

    def _gradients(self, grad: Array, arrays: Sequence[Array]) -> Sequence[Array]:
        """For each input a gradient, of its shape or of the output's."""
        raise NotImplementedError

    def release(self) -> None:
        self._kept = self._output = None


def _summed(grad: Array, shape: Shape) -> Array:
    """A gradient summed over what was repeated of an input."""
    axes = tuple(axis for axis, (size, own) in enumerate(zip(grad.shape, shape, strict=True)) if size != own)
    return total(grad, axes, keepdims=True).astype(grad.dtype, copy=False) if axes else grad


def _one_by_one(function: Any, arrays: Sequence[Array], y: Array) -> None:
    if len(arrays) == 1:
        y[...] = arrays[0]
        return
    function(arrays[0], arrays[1], out=y)
    for array in arrays[2:]:
        function(y, array, out=y)


def _product(function: Any, one: Array, other: Array, shape: Shape) -> Array:
    made = memory.empty(shape, one.dtype)
    function(one, other, out=made)
    return made


class Add(Merge):
    """Add the inputs, value by value.

    Parameters
    ----------
    **options : Any
        Also name, trainable and dtype: see `Layer`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import layers
    >>> layers.Add().forward([np.ones((1, 2)), np.full((1, 2), 3.0)])
    array([[4., 4.]], dtype=float32)
    """

    def _merged(self, arrays: Sequence[Array], y: Array) -> None:
        _one_by_one(np.add, arrays, y)

    def _gradients(self, grad: Array, arrays: Sequence[Array]) -> Sequence[Array]:
        return [grad] * len(arrays)


class Subtract(Merge):
    """Take the second input from the first, value by value.

    Parameters
    ----------
    **options : Any
        Also name, trainable and dtype: see `Layer`.
    """

    def _merged_shape(self, shapes: Sequence[Sizes], batched: bool) -> Sizes:
        if len(shapes) != 2:
            raise ConvError(f"{self.name} takes two inputs, the second from the first, but got {len(shapes)}.")
        return super()._merged_shape(shapes, batched)

    def _merged(self, arrays: Sequence[Array], y: Array) -> None:
        np.subtract(arrays[0], arrays[1], out=y)

    def _gradients(self, grad: Array, arrays: Sequence[Array]) -> Sequence[Array]:
        negative = memory.empty(grad.shape, grad.dtype)
        np.negative(grad, out=negative)
        return [grad, negative]


class Multiply(Merge):
    """Multiply the inputs, value by value.

    Parameters
    ----------
    **options : Any
        Also name, trainable and dtype: see `Layer`.
    """

    def _merged(self, arrays: Sequence[Array], y: Array) -> None:
        _one_by_one(np.multiply, arrays, y)

    def _gradients(self, grad: Array, arrays: Sequence[Array]) -> Sequence[Array]:
        made = []
        for i in range(len(arrays)):
            own = grad
            for other in (*arrays[:i], *arrays[i + 1 :]):
                own = _product(np.multiply, own, other, grad.shape)
            made.append(own)
        return made


class Average(Merge):
    """Take the mean of the inputs, value by value.

    Parameters
    ----------
    **options : Any
        Also name, trainable and dtype: see `Layer`.
    """

    def _merged(self, arrays: Sequence[Array], y: Array) -> None:
        _one_by_one(np.add, arrays, y)
        y /= y.dtype.type(len(arrays))

    def _gradients(self, grad: Array, arrays: Sequence[Array]) -> Sequence[Array]:
        return [_product(np.divide, grad, grad.dtype.type(len(arrays)), grad.shape)] * len(arrays)


class Maximum(Merge):
    """Take the largest of the inputs, value by value; the gradient goes to the first that has it.

    Parameters
    ----------
    **options : Any
        Also name, trainable and dtype: see `Layer`.
    """

    function: Any = np.maximum

    def _merged(self, arrays: Sequence[Array], y: Array) -> None:
        _one_by_one(self.function, arrays, y)

    def _gradients(self, grad: Array, arrays: Sequence[Array]) -> Sequence[Array]:
        assert self._output is not None
        free = np.ones(grad.shape, bool)
        made = []
        for array in arrays:
            here = free & (array == self._output)
            free &= ~here
            made.append(_product(np.multiply, grad, here, grad.shape))
        return made


class Minimum(Maximum):
    """Take the smallest of the inputs, value by value; the gradient goes to the first that has it.

    Parameters
    ----------
    **options : Any
        Also name, trainable and dtype: see `Layer`.
    """

    function = np.minimum


class Concatenate(Merge):
    """Lay the inputs one behind the other along an axis.

    Parameters
    ----------
    axis : int
        Which one, that of the batch being 0 and not taken; -1 is the last, of images the channels.
    **options : Any
        Also name, trainable and dtype: see `Layer`.
    """

    def __init__(self, axis: int = -1, **options: Any) -> None:
        super().__init__(**options)
        self.axis = integer("axis", axis)
        if self.axis == 0:
            raise ConvError(f"{self.name}: axis=0 is the batch, whose samples are not put together.")

    def _place(self, axes: int) -> int:
        """Which axis of so many, that of the batch included."""
        place = self.axis + axes if self.axis < 0 else self.axis
        if not 1 <= place < axes:
            raise ConvError(
                f"{self.name}: axis={self.axis} must name an axis of inputs with {axes} axes, from 1 (0 is the batch) "
                "or from the end."
            )
        return place

    def _merged_shape(self, shapes: Sequence[Sizes], batched: bool) -> Sizes:
        if len({len(shape) for shape in shapes}) > 1:
            raise self._unlike(shapes, "they must have as many axes")
        place = self._place(len(shapes[0]) + (not batched)) - (not batched)
        made: list[int | None] = []
        for axis, sizes in enumerate(zip(*shapes, strict=True)):
            if axis == place:
                made.append(None if None in sizes else sum(size or 0 for size in sizes))
                continue
            known = set(sizes) - {None}
            if len(known) > 1:
                raise self._unlike(shapes, f"sizes must be equal but along axis {self.axis}")
            made.append(next(iter(known), None))
        return tuple(made)

    def _merged(self, arrays: Sequence[Array], y: Array) -> None:
        np.concatenate(arrays, axis=self._place(y.ndim), out=y)

    def _gradients(self, grad: Array, arrays: Sequence[Array]) -> Sequence[Array]:
        place, at, made = self._place(grad.ndim), 0, []
        for array in arrays:
            own = memory.empty(array.shape, grad.dtype)
            own[...] = grad[(slice(None),) * place + (slice(at, at + array.shape[place]),)]
            at += array.shape[place]
            made.append(own)
        return made
