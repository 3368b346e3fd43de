"""What every layer is: weights that are made when first needed, shapes known before, forward and backward.

A layer works on batches: (N, H, W, C), or (N, C, H, W) with data_format='channels_first', and (N, F) after `Flatten`;
layers of one and three dimensions on (N, W, C) and (N, D, H, W, C). Shapes may be given with the batch axis (any
integer or None) or without it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from math import prod
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._core.arguments import Made
from .._core.arrays import as_array
from .._core.layouts import INWARD, LAYOUTS, OUTWARD, layout
from .._core.words import MOST_AXES, Shape, flag, integer
from ..errors import ConvError, ConvTypeError, keras_has
from .initializers import Initializer
from .symbolic import Node, called, is_symbolic

Array = NDArray[Any]
# (extent, stride) along every spatial axis; fractions of pixels behind what enlarges an image.
Window = tuple[tuple[int | Fraction, ...], tuple[int | Fraction, ...]]
DTYPES: Final = ("float32", "float64")
# Stand in for an unknown size: above all windows and strides, divisible by most factors.
UNKNOWN_SIZES: Final = (40320, 80640)


class Sample(tuple[Any, ...]):
    """The shape of one sample for certain: the number of its axes alone may be that of a batch too.

    What walks a net passes it on, and `output_shape` of it is one.
    """

    __slots__ = ()


def positive(name: str, value: object) -> int:
    """`value` as an integer from 1."""
    number = integer(name, value)
    if number < 1:
        raise ConvError(f"{name} must be at least 1, but got {name}={value!r}.")
    if number > sys.maxsize:
        raise ConvError(f"{name} must be a number that an array can have elements, but got {name}={value!r}.")
    return number


def real(name: str, value: object, least: float = float("-inf"), most: float = float("inf")) -> float:
    """`value` as a float within [least, most]."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ConvTypeError(f"{name} must be a number, but got {value!r} of type {type(value).__name__}.")
    try:
        number = float(value)
    except OverflowError:  # an integer beyond every float
        number = float("nan")
    if not least <= number <= most:
        raise ConvError(f"{name} must lie between {least} and {most}, but got {name}={value!r}.")
    return number


class Parameter:
    """A named array of a layer: made on first use, with the last gradient in `grad`.

    Parameters
    ----------
    name : str
        As in weight files.
    shape : tuple of int
        Fixed.
    dtype : dtype
        The layer's.
    initializer : callable
        A function of (shape, generator).
    trainable : bool
        False for running statistics.
    """

    __slots__ = ("_array", "dtype", "grad", "initializer", "name", "seed", "shape", "trainable", "version")

    def __init__(self, name: str, shape: Shape, dtype: np.dtype[Any], initializer: Initializer, trainable: bool):
        self.name, self.shape, self.dtype = name, shape, dtype
        self.initializer, self.trainable = initializer, trainable
        self.seed: Sequence[int] | None = None
        self.grad: Array | None = None
        self.version = 0  # rises with every change, so that prepared copies know when they are stale
        self._array: Array | None = None

    def __getstate__(self) -> tuple[None, dict[str, Any]]:
        """What copies and pickles take: all but the gradient."""
        return None, {name: getattr(self, name) for name in self.__slots__} | {"grad": None}

    def __repr__(self) -> str:
        return f"<Parameter {self.name} {self.shape} {self.dtype}{'' if self.trainable else ', not trained'}>"

    @property
    def size(self) -> int:
        """The number of values."""
        return prod(self.shape)

    @property
    def allocated(self) -> bool:
        """Whether the values have been made."""
        return self._array is not None

    @property
    def array(self) -> Array:
        """The values as a read-only view; write through `assign` or `updated`."""
        view = self._values().view()
        view.flags.writeable = False
        return view

    def _values(self) -> Array:
        if self._array is None:
            made = np.asarray(self.initializer(self.shape, np.random.default_rng(self.seed)))
            if made.shape != self.shape:
                raise ConvError(f"the initializer of {self.name} made shape {made.shape} in place of {self.shape}.")
            self._array = np.ascontiguousarray(made, self.dtype)
        return self._array

    def updated(self) -> Array:
        """The values, about to be changed in place."""
        self.version += 1
        return self._values()

    def accepts(self, value: object) -> Array:
        """`value` as an array of this shape and type, not yet assigned."""
        given = as_array(self.name, value)
        if given.shape != self.shape:
            raise ConvError(f"{self.name} has shape {self.shape}, but got an array of shape {given.shape}.")
        return given

    def assign(self, value: object) -> None:
        """Copy values in.

        Parameters
        ----------
        value : array_like
            Of this shape.

        Raises
        ------
        ConvError
            For another shape.
        """
        given = self.accepts(value)
        if self._array is None:
            self._array = np.array(given, self.dtype, order="C")
        else:
            self.version += 1  # before it too: a forked child may have half of the values
            self._array[...] = given
        self.version += 1


class Layer(Made):
    """The common part of all layers: named weights, shapes known beforehand, forward and backward.

    Subclasses give `_sample_shape`, `forward`, `backward` and perhaps `_build`.

    Parameters
    ----------
    name : str, optional
        Shows in summaries, weight files and errors; made from the class by default.
    trainable : bool
        False leaves the weights to themselves in training.
    dtype : {'float32', 'float64'}
        The element type of weights and results.
    data_format : {'channels_last', 'channels_first'}
        Images (N, H, W, C) or (N, C, H, W).
    input_shape : sequence of int, optional
        Of one sample, without the batch; for the first layer of a model.
    **others : Any
        Refused: what else Keras' layers take is Keras' own.

    Raises
    ------
    ConvError, ConvTypeError
        For values or types that `forward` could not use.
    """

    reads_images: ClassVar[bool] = True  # needs (H, W, C); False: any number of axes
    axes: ClassVar[int] = 2  # spatial axes of what it reads, if it reads images
    merges: bool = False  # takes a list of inputs: shapes, arrays and gradients of inputs are lists then
    is_net: ClassVar[bool] = False  # is a net of its own, whose layers have paths below its name
    is_chain: ClassVar[bool] = False  # and one of layers one after another
    _elsewhere: ClassVar[dict[str, Any]] = {"sublayers": tuple}  # what a copy must not `release`, in another's place
    _named = False  # whether a `Model` chose the name
    precision: str | None = None  # what operands of convolutions and products are rounded to; see `compile`

    def __init__(
        self,
        *,
        name: str | None = None,
        trainable: bool = True,
        dtype: str = "float32",
        data_format: str = "channels_last",
        input_shape: Sequence[int] | None = None,
        **others: Any,
    ) -> None:
        if others:
            raise ConvTypeError(f"{type(self).__name__} does not take {', '.join(others)}; {keras_has('layers')}")
        if name is not None and not isinstance(name, str):
            raise ConvTypeError(f"name must be a string, but got {name!r} of type {type(name).__name__}.")
        self._given_name = name
        self.name = name or self.default_name()
        self.trainable = flag("trainable", trainable)
        try:
            self.dtype = np.dtype(dtype)
        except TypeError as error:
            raise ConvTypeError(f"dtype must be 'float32' or 'float64', but got {dtype!r}.") from error
        if self.dtype.name not in DTYPES:
            raise ConvTypeError(f"dtype of a layer must be 'float32' or 'float64', but got {dtype!r}.")
        self.channels_last = layout(data_format, self.axes).channels_last
        self.built_shape: Shape | None = None
        self.given_input_shape = None if input_shape is None else self._without_batch(input_shape)[1]
        self._own: list[Parameter] = []
        self._nodes: list[Node] = []  # calls on symbolic tensors

    @classmethod
    def default_name(cls) -> str:
        """The name of a layer that was given none."""
        return snake_case(cls.__name__)

    # ---- shapes and weights -------------------------------------------------------------------------------------

    def _spatial_axes(self) -> int | None:
        """How many spatial axes inputs have, 0 for vectors; None where that is not known yet."""
        if self.reads_images:
            return self.axes
        return None if self.built_shape is None else len(self.built_shape) - 1

    def _has_batch(self, shape: Sequence[int | None]) -> bool:
        """Whether the shape of an input has a batch axis; of images and vectors, those of an even number of axes do."""
        if isinstance(shape, Sample):
            return False
        axes = self._spatial_axes()
        if axes is not None and len(shape) in (axes + 1, axes + 2):
            return len(shape) == axes + 2
        return len(shape) in (2, 4, MOST_AXES + 2)

    def _axes_text(self, batch: str = "") -> str:
        """How messages call the axes of an input."""
        text = next(iter(LAYOUTS[self._spatial_axes() or 2].values())).axes
        if self.channels_last:
            text = text.replace("C, ", "").replace(")", ", C)")
        return text.replace("N, ", batch)

    def _without_batch(self, shape: Sequence[int | None]) -> tuple[tuple[int | None, ...], Shape]:
        """((batch,) or (), the shape of one sample)."""
        if not isinstance(shape, (tuple, list)):
            raise ConvTypeError(f"input_shape must be a tuple such as (32, 32, 3), but got {shape!r}.")
        batched, axes = self._has_batch(shape), self._spatial_axes()
        known = axes if self.reads_images else None
        if not 1 <= len(shape) - batched <= MOST_AXES + 1 or known not in (None, len(shape) - batched - 1):
            text = self._axes_text()
            wanted = text if self.reads_images else f"{text} or (F,)"
            raise ConvError(
                f"{self.name}: input_shape must be {wanted}, with or without a batch axis before it, but got "
                f"{tuple(shape)}."
            )
        sizes = tuple(integer("input_shape", size) for size in (shape[1:] if batched else shape))
        if min(sizes) < 0:
            raise ConvError(f"{self.name}: input_shape must not be negative, but got {tuple(shape)}.")
        return ((shape[0],) if batched else ()), sizes

    def _image(self, sample: Shape) -> Shape:
        """(*spatial, C) of a sample shape in the layer's data format."""
        return tuple(sample) if self.channels_last else (*sample[1:], sample[0])

    def _logical(self, sample: Shape, batch: int = 1) -> Shape:
        """(batch, C, *spatial) of a sample shape in the layer's data format."""
        return (batch, sample[-1], *sample[:-1]) if self.channels_last else (batch, *sample)

    def _sample(self, *shape: int) -> Shape:
        """(*spatial, C) in the layer's data format."""
        return shape if self.channels_last else (shape[-1], *shape[:-1])

    def _sample_shape(self, sample: Shape) -> Shape:
        """The output shape of one sample of this input shape, or a refusal."""
        return sample

    def output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """The shape of the output for an input of this shape; nothing is allocated.

        Parameters
        ----------
        input_shape : sequence of int or None
            With or without a batch axis, which may be None, as height and width may.

        Returns
        -------
        tuple of int or None
            With a batch axis if `input_shape` has one; None where a size follows from one that is unknown.

        Raises
        ------
        ConvError
            For a shape that the layer does not take.
        """
        if isinstance(input_shape, (tuple, list)) and None in input_shape[self._has_batch(input_shape) :]:
            made = self._shape_of_unknown(input_shape)
        else:
            made = self._shape_of_known(input_shape)
        return Sample(made) if isinstance(input_shape, Sample) else made

    def _shape_of_known(self, shape: Sequence[int | None]) -> tuple[int | None, ...]:
        batch, sample = self._without_batch(shape)
        return (*batch, *self._sample_shape(sample))

    def _shape_of_unknown(self, shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """`output_shape` where sizes are unknown: what two very different sizes have in common is known."""
        batched = self._has_batch(shape)
        known = {0} if batched else set()  # the batch stays unknown, channels must be given
        if self.reads_images:
            known.add(len(shape) - 1 if self.channels_last else int(batched))
        kind, ends = Sample if isinstance(shape, Sample) else tuple, []
        for size in UNKNOWN_SIZES:
            tried = kind(
                size if given is None and axis not in known else given for axis, given in enumerate(shape)
            )
            try:
                ends.append(self._shape_of_known(tried))
            except ConvError as error:
                raise ConvError(
                    f"{error} Here unknown sizes of the input {tuple(shape)} were taken for {size}."
                ) from error
        return tuple(one if one == other else None for one, other in zip(*ends, strict=True))

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Fix the shapes of the weights; nothing is allocated.

        Parameters
        ----------
        input_shape : sequence of int or None
            The input's, with or without a batch axis.
        """
        _, sample = self._without_batch(input_shape)
        self._sample_shape(sample)
        if self.built_shape is None:
            self._build(sample)
            self.built_shape = sample

    def _build(self, sample: Shape) -> None:
        """Add the weights with `_add_weight`."""

    def _add_weight(self, name: str, shape: Shape, initializer: Initializer, trainable: bool = True) -> Parameter:
        parameter = Parameter(name, shape, self.dtype, initializer, trainable)
        self._own.append(parameter)
        return parameter

    def sublayers(self) -> Sequence[Layer]:
        """The layers that this one is made of."""
        return ()

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """(path, parameter) of this layer and of those inside it; the path is that of weight files."""
        for parameter in self._own:
            yield f"{prefix}{self.name}/{parameter.name}", parameter
        for layer in self.sublayers():
            yield from layer.named_parameters(prefix_of(layer, f"{prefix}{self.name}/"))

    def parameters(self) -> list[Parameter]:
        """All parameters, those that no optimiser trains (running statistics) included."""
        return [parameter for _, parameter in self.named_parameters()]

    def trained_parameters(self) -> list[Parameter]:
        """What an optimiser may change: nothing where `trainable` is False."""
        if not self.trainable:
            return []
        own = [parameter for parameter in self._own if parameter.trainable]
        return own + [parameter for layer in self.sublayers() for parameter in layer.trained_parameters()]

    def _require_built(self) -> None:
        if self.built_shape is None and self.given_input_shape is not None:
            self.build(self.given_input_shape)
        if self.built_shape is None:
            raise ConvError(f"{self.name} has no weights yet: call build(input_shape) or run it on an input first.")

    def get_weights(self) -> list[Array]:
        """Copy out all weights.

        Returns
        -------
        list of ndarray
            In Keras' order, running statistics included.
        """
        self._require_built()
        return [parameter.array.copy() for parameter in self.parameters()]

    def set_weights(self, weights: Sequence[ArrayLike]) -> None:
        """Copy in a list as `get_weights` gives it.

        Parameters
        ----------
        weights : list of array_like
            In Keras' order.

        Raises
        ------
        ConvError
            If the number of arrays or a shape differs; nothing is then changed.
        """
        self._require_built()
        parameters = self.parameters()
        if not isinstance(weights, (list, tuple)):
            raise ConvTypeError(f"{self.name}: weights must be a list of arrays, but got a {type(weights).__name__}.")
        if len(weights) != len(parameters):
            shapes = [parameter.shape for parameter in parameters]
            raise ConvError(f"{self.name} has {len(parameters)} weights {shapes}, but got a list of {len(weights)}.")
        try:
            given = [parameter.accepts(value) for parameter, value in zip(parameters, weights, strict=True)]
        except (ConvError, ConvTypeError) as error:
            raise type(error)(f"{self.name}: {error}") from error
        for parameter, value in zip(parameters, given, strict=True):
            parameter.assign(value)

    def count_params(self) -> int:
        """Weights, biases and every other number that training changes; running statistics are not counted.

        Returns
        -------
        int
            The sum over all layers inside.
        """
        self._require_built()
        return sum(parameter.size for parameter in self.parameters() if parameter.trainable)

    def count_non_trainable(self) -> int:
        """Running statistics."""
        return sum(parameter.size for parameter in self.parameters() if not parameter.trainable)

    def macs(self, input_shape: Sequence[int | None]) -> int:
        """Multiply-adds for one sample.

        Parameters
        ----------
        input_shape : sequence of int or None
            With or without a batch axis.

        Returns
        -------
        int
            By the definition of the operation, whatever algorithm computes it.
        """
        return 0

    def activation_values(self, input_shape: Sequence[int | None]) -> tuple[int, int]:
        """Values that one sample occupies: (output in a forward pass, output and its gradient in training)."""
        count = prod(self._sample_shape(self._without_batch(input_shape)[1]))
        return count, 2 * count

    def window(self, input_shape: Sequence[int | None]) -> Window:
        """(extent, stride) of what one output pixel looks at, in pixels of the input."""
        return one_pixel(len(input_shape) - self._has_batch(input_shape))

    # ---- running ------------------------------------------------------------------------------------------------

    def _takes_batch(self, shape: Shape) -> bool:
        """Whether an array of this shape has the axes of a batch."""
        axes, count = self._spatial_axes(), len(shape)
        if axes is None:
            return 2 <= count <= MOST_AXES + 2
        return count == axes + 2 or (not self.reads_images and count in (2, 4))

    def _take(self, x: ArrayLike) -> Array:
        """`x` as a batch of this layer's element type, its shape checked and the layer built."""
        array = as_array("x", x)
        if not self._takes_batch(array.shape):
            text = self._axes_text("N, ")
            wanted = text if self.reads_images else f"{text} or (N, F)"
            raise ConvError(
                f"{self.name}: x must be a batch {wanted}, but got shape {array.shape}; a single sample becomes a "
                "batch with x[None]."
            )
        if self.built_shape is None:
            self.build(Sample(array.shape[1:]))
        return array if array.dtype == self.dtype else array.astype(self.dtype)

    def _nhwc(self, array: Array) -> Array:
        """An activation of this layer as a channels-last view."""
        return array if self.channels_last or array.ndim < 3 else array.transpose(OUTWARD[array.ndim])

    def _own_order(self, array: Array) -> Array:
        """A channels-last activation as a view in the layer's data format."""
        return array if self.channels_last or array.ndim < 3 else array.transpose(INWARD[array.ndim])

    def _gradient(self, grad: ArrayLike, shape: Shape | None) -> Array:
        """`grad` as an array of the shape (channels last) of the last output."""
        if shape is None:
            raise ConvError(f"{self.name}: backward needs a forward call before it.")
        array = as_array("grad", grad)
        if array.dtype != self.dtype:
            array = array.astype(self.dtype)
        array = self._nhwc(array)
        if array.shape != shape:
            raise ConvError(
                f"{self.name}: grad must have the shape {self._own_order(np.broadcast_to(np.int8(0), shape)).shape} "
                f"of the last output, but got {np.shape(grad)}."
            )
        return array

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        """The output for a batch; what `backward` needs is kept until the next call.

        Parameters
        ----------
        x : array_like
            Shape (N, H, W, C), (N, C, H, W) or (N, F), of other dimensions without a height or with a depth; cast to
            the layer's element type.
        training : bool
            Whether dropout drops and normalisation uses the batch's statistics.

        Returns
        -------
        ndarray
            Of the shape that `output_shape` gives.

        Raises
        ------
        ConvError
            For a shape that the layer does not take.
        """
        raise NotImplementedError

    def backward(self, grad: ArrayLike) -> Array:
        """The gradient with respect to the last input; every parameter's `grad` is set on the way.

        Parameters
        ----------
        grad : array_like
            The gradient with respect to the last output, of its shape.

        Returns
        -------
        ndarray
            Of the shape of the last input.

        Raises
        ------
        ConvError
            Without a `forward` before it, or for another shape.
        """
        raise NotImplementedError

    def backward_weights(self, grad: ArrayLike) -> None:
        """`backward` for a first layer: nobody needs the gradient of its input."""
        self.backward(grad)

    def __call__(self, x: Any, training: bool | None = None) -> Any:
        """`forward` on arrays; on symbolic tensors, a symbolic tensor."""
        return called(self, x, training) if is_symbolic(x) else self.forward(x, bool(training))

    @property
    def input(self) -> Any:
        """The symbolic tensor, or the list, that the layer was called on; refused where it was called not just once."""
        node = self._node()
        return list(node.inputs) if node.several else node.inputs[0]

    @property
    def output(self) -> Any:
        """The symbolic tensor that the layer made; refused where it was called not just once."""
        outputs = self._node().outputs
        return outputs[0] if len(outputs) == 1 else list(outputs)

    def _node(self) -> Node:
        if len(self._nodes) != 1:
            raise ConvError(
                f"{self.name} was called on symbolic tensors {len(self._nodes)} times, so that it has no one input and "
                "output; use the tensors that the calls returned."
            )
        return self._nodes[0]

    def twin(self, made: dict[int, Layer]) -> Layer:
        """The same layer, with the same weights, with room of its own for what a call keeps for `backward`."""
        found = made.get(id(self))
        if found is None:
            found = made[id(self)] = object.__new__(type(self))
            found.__dict__.update({name: _twinned(value, made) for name, value in self.__dict__.items()})
        return found

    def release(self) -> None:
        """Forget what the last forward call kept for `backward`."""
        for layer in self.sublayers():
            layer.release()

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles take: all but what the last forward call kept."""
        bare = object.__new__(type(self))
        bare.__dict__.update(self.__dict__, **self._elsewhere)  # the layers inside speak for themselves
        bare.release()
        del bare.__dict__["sublayers"]
        bare._nodes = []  # symbolic tensors are not copied
        return bare.__dict__

    def _described(self) -> list[str]:
        """What `repr` says behind the name."""
        if self.built_shape is None:
            return ["not built"]
        count = sum(parameter.size for parameter in self.parameters())
        weights = [f"{count:,} weights"] if count else []
        return [f"{self.built_shape} -> {self._sample_shape(self.built_shape)}", *weights]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {', '.join(self._described())}>"


def _ours(module: str) -> bool:
    return module.partition(".")[0] == __name__.partition(".")[0]


def overridden(layer: Layer) -> bool:
    """Whether a class that is not the library's says what a layer computes, whatever kind of layer it extends."""
    said = (type(layer).forward, getattr(type(layer), "forward_logits", type(layer).forward))
    return not all(_ours(method.__module__) for method in said)


def said_anew(layer: Layer, name: str, other: str) -> bool:
    """Whether a class that is not the library's has a method `name` of its own and leaves the `other`, which does the
    same in another way, as it was."""
    for kind in type(layer).__mro__:
        if name in vars(kind) or other in vars(kind):
            return other not in vars(kind) and not _ours(kind.__module__)
    return False


def prefix_of(layer: Layer, prefix: str) -> str:
    """What the paths of a layer's parameters begin with inside another: a net, which leaves its own name to whoever
    has it, gets it here, or layers of two nets would have one path."""
    return f"{prefix}{layer.name}/" if layer.is_net else prefix


def _twinned(value: Any, made: dict[int, Layer]) -> Any:
    """A layer, or a container of some, with twins in their place."""
    if isinstance(value, Layer):
        return value.twin(made)
    if type(value) in (list, tuple) and any(isinstance(inner, (Layer, list, tuple)) for inner in value):
        return type(value)(_twinned(inner, made) for inner in value)
    if type(value) is dict and any(isinstance(inner, Layer) for inner in value.values()):
        return {name: _twinned(inner, made) for name, inner in value.items()}
    return value


def one_pixel(axes: int) -> Window:
    """The window of what looks at one pixel of samples of so many axes, channels included; vectors have two."""
    ones = (1,) * (axes - 1 or 2)
    return ones, ones


def behind(before: Window, own: Window) -> Window:
    """Receptive field and stride behind one more layer; axes that only one of the two has lie before the others."""
    axes = max(len(before[0]), len(own[0]))
    (extent, jump), (size, stride) = (
        tuple((1,) * (axes - len(numbers)) + tuple(numbers) for numbers in window) for window in (before, own)
    )
    return (
        tuple(_whole(e + (n - 1) * j) for e, n, j in zip(extent, size, jump, strict=True)),
        tuple(_whole(j * s) for j, s in zip(jump, stride, strict=True)),
    )


def _whole(number: int | Fraction) -> int | Fraction:
    return int(number) if number == int(number) else number


@contextmanager
def locating(layer: Layer) -> Iterator[None]:
    """Errors from here on name the layer."""
    try:
        yield
    except (ConvError, ConvTypeError) as error:
        if layer.name in str(error):
            raise
        raise type(error)(f"{layer.name}: {error}") from error


def snake_case(name: str) -> str:
    """Keras' default layer name: Conv2D becomes conv2d, MaxPooling2D max_pooling2d."""
    name = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def all_layers(layer: Layer) -> Iterable[Layer]:
    """The layers inside `layer`, at any depth."""
    for inner in layer.sublayers():
        yield inner
        yield from all_layers(inner)
