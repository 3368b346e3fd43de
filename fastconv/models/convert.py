"""Dense layers as convolutions: a net that took one image size takes any larger one and returns a map of scores."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from .._core.words import Shape
from ..errors import ConvError
from ..layers import (
    Activation,
    AveragePooling2D,
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePooling2D,
    Layer,
    Softmax,
)
from ..layers.base import Parameter, overridden
from ..layers.initializers import Reshaped

if TYPE_CHECKING:
    from .sequential import Sequential


def to_fully_convolutional(model: Sequential, make: type[Sequential]) -> Sequential:
    """A copy in which Flatten + Dense are k x k and 1 x 1 convolutions (GlobalAveragePooling2D an average of stride 1).

    At the native size (1, 1, classes) scores equal the model's to rounding; a larger image gives a map of them, one for
    every window of the native size at the net's stride, computed in one pass. What is saved is the computation that
    neighbouring windows share; the weights of a dense layer stay as many.
    """
    model._require_built()
    assert model.built_shape is not None
    replaced = [layer for layer in model.layers if isinstance(layer, (Flatten, GlobalAveragePooling2D, Dense))]
    for own in (model, *replaced):
        if overridden(own):
            raise ConvError(
                f"{own.name} ({type(own).__name__}) overrides forward, and what it computes has no fully convolutional "
                "form that is known."
            )
    layers: list[Layer] = []
    pending: Shape | None = None  # the image that a Flatten has spread out
    spread = False  # whether the data is, in the given model, a vector
    for layer, before, _ in model.shapes(model.built_shape):
        if isinstance(layer, Flatten):
            if len(before) == 3 and not spread:
                pending, spread = layer._image(before), True
        elif isinstance(layer, GlobalAveragePooling2D):
            height, width, _channels = layer._image(before)
            options = {"name": layer.name, "dtype": layer.dtype.name, "data_format": _format(layer)}
            layers.append(AveragePooling2D((height, width), 1, **options))
            spread = not layer.keepdims
        elif isinstance(layer, Dense) and (spread or len(before) == 1):
            if not spread:
                raise ConvError(f"{layer.name} takes vectors {before}: {model.name} has no image to convolve.")
            layers.append(_as_convolution(layer, pending))
            pending = None
        elif spread and not _elementwise(layer):
            raise ConvError(f"{layer.name} ({type(layer).__name__}) after Flatten has no fully convolutional form.")
        else:
            layers.append(_copied(layer))
    made = make(layers, model.built_shape, name=f"{model.name}_fully_convolutional", dtype=model.dtype.name)
    for new, old in zip(made.parameters(), model.parameters(), strict=True):
        _take_over(new, old)
    return made


def _format(layer: Layer) -> str:
    return "channels_last" if layer.channels_last else "channels_first"


def _elementwise(layer: Layer) -> bool:
    """Whether a layer does the same to a vector and to a map of vectors."""
    return isinstance(layer, (Activation, BatchNormalization, Dropout, Softmax))


def _copied(layer: Layer) -> Layer:
    layer.release()
    return copy.deepcopy(layer)


def _as_convolution(dense: Dense, image: Shape | None) -> Conv2D:
    """The convolution over the whole image (or, behind another Dense, over one pixel) that computes the same."""
    height, width = (1, 1) if image is None else image[:2]
    return Conv2D(
        dense.units, (height, width), activation=dense.activation, use_bias=dense.use_bias, name=dense.name,
        dtype=dense.dtype.name, kernel_initializer=dense.kernel_initializer, bias_initializer=dense.bias_initializer,
    )  # fmt: skip


def _take_over(new: Parameter, old: Parameter) -> None:
    """The values of `old`, now if it has any, else those that it would start with."""
    if old.allocated:
        new.assign(old.array.reshape(new.shape))
        return
    new.seed = old.seed
    new.initializer = Reshaped(old.initializer, old.shape)

