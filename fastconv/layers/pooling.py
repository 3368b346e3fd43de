"""Pooling, padding, cropping and upsampling: layers without weights that change the size of the image.

A class for all numbers of axes does the work; those that users name say how many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from .. import grad as pool_gradient
from .._core.documented import like
from .._core.geometry import Geometry, conv_geometry
from .._core.sums import FEW, total
from .._core.windows import PoolGeometry, pool_geometry
from .._core.words import Padding, Shape, Size, flag, per_axis, word
from ..errors import ConvError
from ..pooling import MAXIMA, MEANS
from . import memory, rows
from .base import Array, Layer, Window

# By the number of spatial axes.
MEAN_GRADIENTS: Final[dict[int, Callable[..., Any]]] = {
    1: pool_gradient.avg_pool1d_input, 2: pool_gradient.avg_pool2d_input, 3: pool_gradient.avg_pool3d_input
}  # fmt: skip


class Pooling(Layer):
    """What both windowed poolings have."""

    def __init__(
        self,
        pool_size: Size = 2,
        strides: Size | None = None,
        padding: Padding = "valid",
        data_format: str = "channels_last",
        **options: Any,
    ) -> None:
        super().__init__(data_format=data_format, **options)
        self.pool_size = per_axis("pool_size", pool_size, 1, self.axes)
        self.strides = self.pool_size if strides is None else per_axis("strides", strides, 1, self.axes)
        self.padding = padding
        pool_geometry((1, 1, *self.pool_size), self.pool_size, self.strides, padding, name=self.name)
        self._input: Array | None = None
        self._output_shape: Shape | None = None

    def geometry(self, sample: Shape) -> PoolGeometry:
        return pool_geometry(
            self._logical(sample), self.pool_size, self.strides, self.padding, name=self.name, shown=sample
        )

    def _sample_shape(self, sample: Shape) -> Shape:
        g = self.geometry(sample)
        return self._sample(*g.output_size, g.channels)

    def window(self, input_shape: Sequence[int | None]) -> Window:
        return self.pool_size, self.strides

    def release(self) -> None:
        self._input = self._output_shape = None


class MaxPooling(Pooling):
    """The maximum of windows of as many axes as its class says."""

    _output: Array | None = None

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        taken = self._nhwc(self._take(x))
        g = self.geometry(self._own_order(taken).shape[1:])
        y = memory.empty((len(taken), *g.output_size, g.channels), taken.dtype)
        MAXIMA[self.axes](taken, self.pool_size, self.strides, self.padding, data_format="channels_last", out=y)
        self._input, self._output = taken, y
        return self._own_order(y)

    def backward(self, grad: ArrayLike) -> Array:
        dy = self._gradient(grad, None if self._output is None else self._output.shape)
        assert self._input is not None and self._output is not None
        g = self.geometry(self._own_order(self._input).shape[1:])
        return self._own_order(rows.max_pool_gradient(g, self._input, self._output, dy))

    def release(self) -> None:
        self._output = None
        super().release()


class AveragePooling(Pooling):
    """The mean of windows of as many axes as its class says."""

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        taken = self._nhwc(self._take(x))
        y: Array = MEANS[self.axes](
            taken, self.pool_size, self.strides, self.padding, count_include_pad=False, data_format="channels_last"
        )
        self._input, self._output_shape = np.broadcast_to(np.int8(0), taken.shape), y.shape
        return self._own_order(y)

    def backward(self, grad: ArrayLike) -> Array:
        dy = self._gradient(grad, self._output_shape)
        assert self._input is not None
        dx = MEAN_GRADIENTS[self.axes](
            self._input.shape, self.pool_size, dy, self.strides, self.padding, count_include_pad=False,
            data_format="channels_last",
        )  # fmt: skip
        return self._own_order(dx)


class GlobalPooling(Layer):
    """What both poolings of a whole image have; `y` is (N, 1, ..., 1, C)."""

    what = "take the mean of"

    def __init__(self, data_format: str = "channels_last", keepdims: bool = False, **options: Any) -> None:
        super().__init__(data_format=data_format, **options)
        self.keepdims = flag("keepdims", keepdims)

    def _sample_shape(self, sample: Shape) -> Shape:
        *size, channels = self._image(sample)
        if 0 in size:
            raise ConvError(f"{self.name}: the input {sample} has no pixels to {self.what}.")
        return self._sample(*(1,) * self.axes, channels) if self.keepdims else (channels,)

    def window(self, input_shape: Sequence[int | None]) -> Window:
        *size, _ = self._image(self._without_batch(input_shape)[1])
        return tuple(size), tuple(size)

    def _taken(self, x: ArrayLike) -> Array:
        taken = self._nhwc(self._take(x))
        self._sample_shape(self._own_order(taken).shape[1:])
        return taken

    def _given(self, y: Array) -> Array:
        return self._own_order(y) if self.keepdims else y.reshape(len(y), y.shape[-1])

    def _gradient_of(self, grad: ArrayLike, shape: Shape | None) -> Array:
        """`grad` as (N, 1, ..., 1, C), for an input of this shape (channels last)."""
        ones = (1,) * self.axes
        wanted = None if shape is None else (shape[0], *(ones if self.keepdims else ()), shape[-1])
        dy = self._gradient(grad, wanted)
        return dy.reshape(len(dy), *ones, dy.shape[-1])


class GlobalAveragePooling(GlobalPooling):
    """The mean of every channel, of as many axes as its class says."""

    _shape: Shape | None = None

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        taken = self._taken(x)
        self._shape = taken.shape
        if prod(taken.shape[1:-1]) > FEW:
            return self._given(MEANS[self.axes](taken, taken.shape[1:-1], data_format="channels_last"))
        return self._given(taken.mean(axis=tuple(range(1, taken.ndim - 1)), keepdims=True))

    def backward(self, grad: ArrayLike) -> Array:
        shape = self._shape
        dy = self._gradient_of(grad, shape)
        assert shape is not None
        share = dy / prod(shape[1:-1])
        return self._own_order(np.broadcast_to(share.astype(self.dtype, copy=False), shape).copy())

    def release(self) -> None:
        self._shape = None


class GlobalMaxPooling(GlobalPooling):
    """The maximum of every channel, of as many axes as its class says."""

    what = "take the maximum of"
    _input: Array | None = None

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        taken = self._input = self._taken(x)
        return self._given(MAXIMA[self.axes](taken, taken.shape[1:-1], data_format="channels_last"))

    def backward(self, grad: ArrayLike) -> Array:
        dy = self._gradient_of(grad, None if self._input is None else self._input.shape)
        assert self._input is not None
        shape = self._input.shape
        pixels = self._input.reshape(len(dy), prod(shape[1:-1]), shape[-1])
        dx = np.zeros(pixels.shape, self.dtype)
        if dx.size:
            np.put_along_axis(dx, pixels.argmax(1)[:, None], dy.reshape(len(dy), 1, shape[-1]), 1)
        return self._own_order(dx.reshape(shape))

    def release(self) -> None:
        self._input = None


class Margins(Layer):
    """What padding and cropping have: numbers for every side, and 0 pixels at least."""

    kind = "ZeroPadding"
    sign = 1

    def _sides(self, name: str, value: Any) -> None:
        """Take `value`, as Keras writes it: for a sequence, a pair is (before, after)."""
        if isinstance(value, str):
            raise ConvError(f"{name} of a {self.kind}{self.axes}D must be numbers, but got {name}={value!r}.")
        pair = self.axes == 1 and isinstance(value, (tuple, list)) and len(value) == 2
        self._pads = (tuple(value),) if pair else value
        pads = conv_geometry(
            (1, 1, *(1,) * self.axes), (1, 1, *(1,) * self.axes), 1, self._pads, 1, 1, name=self.name
        ).padding
        if min(min(sides) for sides in pads) < 0:
            raise ConvError(f"{name} of a {self.kind}{self.axes}D must be at least 0, but got {name}={value!r}.")
        self.sides = pads

    def _sample_shape(self, sample: Shape) -> Shape:
        return self._sample(*self.geometry(sample).output_size, self._image(sample)[-1])

    def geometry(self, sample: Shape) -> Geometry:
        """The margins as a convolution with one tap sees them."""
        pads = tuple((self.sign * before, self.sign * after) for before, after in self.sides)
        return conv_geometry(
            (1, 1, *self._image(sample)[:-1]), (1, 1, *(1,) * self.axes), 1, pads, 1, 1, name=self.name
        )

    def _outputs_gradient(self, grad: ArrayLike) -> Array:
        dy = self._nhwc(np.asarray(grad, self.dtype))
        if dy.ndim != self.axes + 2:
            count = {3: "three", 4: "four", 5: "five"}[self.axes + 2]
            raise ConvError(f"{self.name}: grad must have the {count} axes of the output, but got shape {dy.shape}.")
        return dy

    def _inside(self, x: Array) -> Array:
        """What the sides leave of (N, *spatial, C)."""
        sizes = x.shape[1:-1]
        return x[(slice(None), *(slice(a, n - b) for (a, b), n in zip(self.sides, sizes, strict=True)))]


class ZeroPadding(Margins):
    """Zeros around images of as many axes as its class says."""

    def __init__(self, padding: Any = 1, data_format: str = "channels_last", **options: Any) -> None:
        super().__init__(data_format=data_format, **options)
        self.padding = padding
        self._sides("padding", padding)

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        taken = self._nhwc(self._take(x))
        return self._own_order(np.pad(taken, ((0, 0), *self.sides, (0, 0))))

    def backward(self, grad: ArrayLike) -> Array:
        return self._own_order(self._inside(self._outputs_gradient(grad)))


class Cropping(Margins):
    """What is left of images of as many axes as its class says without their margins."""

    kind = "Cropping"
    sign = -1

    def __init__(self, cropping: Any = 1, data_format: str = "channels_last", **options: Any) -> None:
        super().__init__(data_format=data_format, **options)
        self.cropping = cropping
        self._sides("cropping", cropping)

    def _sample_shape(self, sample: Shape) -> Shape:
        *size, channels = self._image(sample)
        left = [n - a - b for n, (a, b) in zip(size, self.sides, strict=True)]
        if min(left) < 1:
            raise ConvError(f"{self.name}: cropping={self.cropping!r} leaves nothing of the input {sample}.")
        return self._sample(*left, channels)

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        taken = self._nhwc(self._take(x))
        self._sample_shape(self._own_order(taken).shape[1:])
        return self._own_order(self._inside(taken))

    def backward(self, grad: ArrayLike) -> Array:
        return self._own_order(np.pad(self._outputs_gradient(grad), ((0, 0), *self.sides, (0, 0))))


class UpSampling(Layer):
    """Images enlarged by whole factors, of as many axes as its class says."""

    interpolation = "nearest"
    _shape: Shape | None = None

    def __init__(self, size: Size = 2, data_format: str = "channels_last", **options: Any) -> None:
        super().__init__(data_format=data_format, **options)
        self.size = per_axis("size", size, 1, self.axes)

    def _sample_shape(self, sample: Shape) -> Shape:
        *size, channels = self._image(sample)
        return self._sample(*(n * factor for n, factor in zip(size, self.size, strict=True)), channels)

    def window(self, input_shape: Sequence[int | None]) -> Window:
        seen = tuple(1 if self.interpolation == "nearest" or factor == 1 else 2 for factor in self.size)
        return seen, tuple(Fraction(1, factor) for factor in self.size)

    def _matrices(self, shape: Shape) -> tuple[Array, Array]:
        """The interpolation along rows and columns as matrices (outputs, inputs)."""
        rows, columns = (_bilinear(length, scale) for length, scale in zip(shape[1:3], self.size, strict=True))
        return rows.astype(self.dtype), columns.astype(self.dtype)

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        taken = self._nhwc(self._take(x))
        self._shape = taken.shape
        if self.interpolation == "nearest":
            for axis, factor in enumerate(self.size, 1):
                taken = taken.repeat(factor, axis=axis)
            return self._own_order(taken)
        rows, columns = self._matrices(taken.shape)
        return self._own_order(np.einsum("yh,nhwc,xw->nyxc", rows, taken, columns, optimize=True))

    def backward(self, grad: ArrayLike) -> Array:
        shape = self._shape
        scaled = shape and (shape[0], *(n * f for n, f in zip(shape[1:-1], self.size, strict=True)), shape[-1])
        dy = self._gradient(grad, scaled)
        assert shape is not None
        if self.interpolation == "nearest":
            parts = [n for pair in zip(shape[1:-1], self.size, strict=True) for n in pair]
            split = dy.reshape(shape[0], *parts, shape[-1])
            return self._own_order(total(split, tuple(range(2, 2 * self.axes + 1, 2))))
        rows, columns = self._matrices(shape)
        return self._own_order(np.einsum("yh,nyxc,xw->nhwc", rows, dy, columns, optimize=True))

    def release(self) -> None:
        self._shape = None


class MaxPooling2D(MaxPooling):
    """Take the maximum of every window; padding never wins.

    The gradient goes to the first maximum.

    Parameters
    ----------
    pool_size : int or (int, int)
        Rows and columns of the window.
    strides : int or (int, int), optional
        From one window to the next; by default `pool_size`.
    padding : str, int or pairs
        'valid' (none), 'same' (ceil(size / stride) outputs), or whatever `fastconv.conv2d` takes.
    data_format : {'channels_last', 'channels_first'}
        Images (N, H, W, C) or (N, C, H, W).
    **options : Any
        Also name, trainable, dtype and input_shape: see `Layer`.
    """


@like(MaxPooling2D, 1)
class MaxPooling1D(MaxPooling):
    axes = 1


@like(MaxPooling2D, 3)
class MaxPooling3D(MaxPooling):
    axes = 3


class AveragePooling2D(AveragePooling):
    """Take the mean of every window; padding is left out of the mean, as in Keras.

    Parameters
    ----------
    pool_size : int or (int, int)
        Rows and columns of the window.
    strides : int or (int, int), optional
        From one window to the next; by default `pool_size`.
    padding : str, int or pairs
        'valid' (none), 'same' (ceil(size / stride) outputs), or whatever `fastconv.conv2d` takes.
    data_format : {'channels_last', 'channels_first'}
        Images (N, H, W, C) or (N, C, H, W).
    **options : Any
        Also name, trainable, dtype and input_shape: see `Layer`.
    """


@like(AveragePooling2D, 1)
class AveragePooling1D(AveragePooling):
    axes = 1


@like(AveragePooling2D, 3)
class AveragePooling3D(AveragePooling):
    axes = 3


class GlobalAveragePooling2D(GlobalAveragePooling):
    """Take the mean of every channel over the whole image.

    Parameters
    ----------
    data_format : {'channels_last', 'channels_first'}
        Images (N, H, W, C) or (N, C, H, W).
    keepdims : bool
        Give (N, 1, 1, C) in place of (N, C).
    **options : Any
        Also name, trainable, dtype and input_shape: see `Layer`.
    """


@like(GlobalAveragePooling2D, 1)
class GlobalAveragePooling1D(GlobalAveragePooling):
    axes = 1


@like(GlobalAveragePooling2D, 3)
class GlobalAveragePooling3D(GlobalAveragePooling):
    axes = 3


class GlobalMaxPooling2D(GlobalMaxPooling):
    """Take the maximum of every channel over the whole image.

    The gradient goes to the first maximum.

    Parameters
    ----------
    data_format : {'channels_last', 'channels_first'}
        Images (N, H, W, C) or (N, C, H, W).
    keepdims : bool
        Give (N, 1, 1, C) in place of (N, C).
    **options : Any
        Also name, trainable, dtype and input_shape: see `Layer`.
    """


@like(GlobalMaxPooling2D, 1)
class GlobalMaxPooling1D(GlobalMaxPooling):
    axes = 1


@like(GlobalMaxPooling2D, 3)
class GlobalMaxPooling3D(GlobalMaxPooling):
    axes = 3


class ZeroPadding2D(ZeroPadding):
    """Put zeros around the image.

    Parameters
    ----------
    padding : int, (int, int) or ((int, int), (int, int))
        For all sides, (height, width), or ((top, bottom), (left, right)).
    data_format : {'channels_last', 'channels_first'}
        Images (N, H, W, C) or (N, C, H, W).
    **options : Any
        Also name, trainable, dtype and input_shape: see `Layer`.
    """


@like(ZeroPadding2D, 1)
class ZeroPadding1D(ZeroPadding):
    axes = 1


@like(ZeroPadding2D, 3)
class ZeroPadding3D(ZeroPadding):
    axes = 3


class Cropping2D(Cropping):
    """Cut margins off the image.

    Parameters
    ----------
    cropping : int, (int, int) or ((int, int), (int, int))
        Off all sides, (height, width), or ((top, bottom), (left, right)).
    data_format : {'channels_last', 'channels_first'}
        Images (N, H, W, C) or (N, C, H, W).
    **options : Any
        Also name, trainable, dtype and input_shape: see `Layer`.
    """

    def __init__(self, cropping: Any = 0, data_format: str = "channels_last", **options: Any) -> None:
        super().__init__(cropping, data_format, **options)


@like(Cropping2D, 1)
class Cropping1D(Cropping):
    axes = 1


@like(Cropping2D, 3)
class Cropping3D(Cropping):
    axes = 3


class UpSampling2D(UpSampling):
    """Enlarge the image by whole factors.

    Parameters
    ----------
    size : int or (int, int)
        The factors of height and width.
    data_format : {'channels_last', 'channels_first'}
        Images (N, H, W, C) or (N, C, H, W).
    interpolation : {'nearest', 'bilinear'}
        Repeat every pixel, or interpolate with pixel centres aligned.
    **options : Any
        Also name, trainable, dtype and input_shape: see `Layer`.
    """

    def __init__(
        self,
        size: Size = 2,
        data_format: str = "channels_last",
        interpolation: str = "nearest",
        **options: Any,
    ) -> None:
        super().__init__(size, data_format, **options)
        self.interpolation = word("interpolation", interpolation, ("nearest", "bilinear"))


class UpSampling1D(UpSampling):
    """Enlarge the signal by a whole factor: repeat every value.

    Parameters
    ----------
    size : int
        The factor.
    data_format : {'channels_last', 'channels_first'}
        Signals (N, W, C) or (N, C, W).
    **options : Any
        Also name, trainable, dtype and input_shape: see `Layer`.
    """

    axes = 1


class UpSampling3D(UpSampling):
    """Enlarge the volume by a whole factor an axis: repeat every pixel.

    Parameters
    ----------
    size : int or (int, int, int)
        The factors of depth, height and width.
    data_format : {'channels_last', 'channels_first'}
        Volumes (N, D, H, W, C) or (N, C, D, H, W).
    **options : Any
        Also name, trainable, dtype and input_shape: see `Layer`.
    """

    axes = 3


def _bilinear(length: int, scale: int) -> Array:
    """Weights (length * scale, length): output i lies at (i + 1/2) / scale - 1/2, held to the image's edge."""
    matrix = np.zeros((length * scale, length))
    if length == 0:
        return matrix
    for i in range(length * scale):
        place = min(max((i + 0.5) / scale - 0.5, 0), length - 1)
        low = int(place)
        high = min(low + 1, length - 1)
        matrix[i, low] += 1 - (place - low)
        matrix[i, high] += place - low
    return matrix
