"""Pooling, padding and upsampling: layers without weights that change the size of the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import functional
from .. import grad as pool_gradient
from .._core.geometry import Geometry, conv_geometry
from .._core.sums import FEW, total
from .._core.windows import PoolGeometry, pool_geometry
from .._core.words import Padding, Shape, Size, flag, pair, word
from ..errors import ConvError
from . import memory, rows
from .base import Array, Layer


class Pooling(Layer):
    """What both windowed poolings have.

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

    def __init__(
        self,
        pool_size: Size = (2, 2),
        strides: Size | None = None,
        padding: Padding = "valid",
        data_format: str = "channels_last",
        **options: Any,
    ) -> None:
        super().__init__(data_format=data_format, **options)
        self.pool_size = pair("pool_size", pool_size, 1)
        self.strides = self.pool_size if strides is None else pair("strides", strides, 1)
        self.padding = padding
        pool_geometry((1, 1, *self.pool_size), self.pool_size, self.strides, padding, name=self.name)
        self._input: Array | None = None
        self._output_shape: Shape | None = None

    def geometry(self, sample: Shape) -> PoolGeometry:
        height, width, channels = self._image(sample)
        return pool_geometry(
            (1, channels, height, width), self.pool_size, self.strides, self.padding, name=self.name, shown=sample
        )

    def _sample_shape(self, sample: Shape) -> Shape:
        g = self.geometry(sample)
        return self._sample(*g.output_size, g.channels)

    def window(self, input_shape: Sequence[int | None]) -> tuple[tuple[int, int], tuple[int, int]]:
        return self.pool_size, self.strides

    def release(self) -> None:
        self._input = self._output_shape = None


class MaxPooling2D(Pooling):
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

    _output: Array | None = None

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        taken = self._nhwc(self._take(x))
        g = self.geometry(self._own_order(taken).shape[1:])
        y = memory.empty((len(taken), *g.output_size, g.channels), taken.dtype)
        functional.max_pool2d(taken, self.pool_size, self.strides, self.padding, data_format="NHWC", out=y)
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


class AveragePooling2D(Pooling):
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

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        taken = self._nhwc(self._take(x))
        y = functional.avg_pool2d(
            taken, self.pool_size, self.strides, self.padding, count_include_pad=False, data_format="NHWC"
        )
        self._input, self._output_shape = np.broadcast_to(np.int8(0), taken.shape), y.shape
        return self._own_order(y)

    def backward(self, grad: ArrayLike) -> Array:
        dy = self._gradient(grad, self._output_shape)
        assert self._input is not None
        dx = pool_gradient.avg_pool2d_input(
            self._input.shape, self.pool_size, dy, self.strides, self.padding, count_include_pad=False,
            data_format="NHWC",
        )  # fmt: skip
        return self._own_order(dx)


class GlobalAveragePooling2D(Layer):
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

    def __init__(self, data_format: str = "channels_last", keepdims: bool = False, **options: Any) -> None:
        super().__init__(data_format=data_format, **options)
        self.keepdims = flag("keepdims", keepdims)
        self._shape: Shape | None = None

    def _sample_shape(self, sample: Shape) -> Shape:
        height, width, channels = self._image(sample)
        if height * width == 0:
            raise ConvError(f"{self.name}: the input {sample} has no pixels to take the mean of.")
        return self._sample(1, 1, channels) if self.keepdims else (channels,)

    def window(self, input_shape: Sequence[int | None]) -> tuple[tuple[int, int], tuple[int, int]]:
        height, width, _ = self._image(self._without_batch(input_shape)[1])
        return (height, width), (height, width)

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        taken = self._nhwc(self._take(x))
        self._sample_shape(self._own_order(taken).shape[1:])
        self._shape = taken.shape
        if taken.shape[1] * taken.shape[2] > FEW:
            y = functional.avg_pool2d(taken, taken.shape[1:3], data_format="NHWC")
            y = y if self.keepdims else y[:, 0, 0]
        else:
            y = taken.mean(axis=(1, 2), keepdims=self.keepdims)
        return self._own_order(y)

    def backward(self, grad: ArrayLike) -> Array:
        shape = self._shape
        wanted = None if shape is None else (shape[0], *((1, 1) if self.keepdims else ()), shape[3])
        dy = self._gradient(grad, wanted)
        assert shape is not None
        share = dy.reshape(shape[0], 1, 1, shape[3]) / (shape[1] * shape[2])
        return self._own_order(np.broadcast_to(share.astype(self.dtype, copy=False), shape).copy())

    def release(self) -> None:
        self._shape = None


class ZeroPadding2D(Layer):
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

    def __init__(self, padding: Padding = (1, 1), data_format: str = "channels_last", **options: Any) -> None:
        super().__init__(data_format=data_format, **options)
        if isinstance(padding, str):
            raise ConvError(f"padding of a ZeroPadding2D must be numbers, but got padding={padding!r}.")
        self.padding = padding
        pads = self.geometry((1, 1, 1)).padding
        if min(min(sides) for sides in pads) < 0:
            raise ConvError(f"padding of a ZeroPadding2D must be at least 0, but got padding={padding!r}.")

    def geometry(self, sample: Shape) -> Geometry:
        """The padding as a 1 x 1 convolution sees it."""
        height, width, _ = self._image(sample)
        return conv_geometry((1, 1, height, width), (1, 1, 1, 1), 1, self.padding, 1, 1, name=self.name)

    def _sample_shape(self, sample: Shape) -> Shape:
        return self._sample(*self.geometry(sample).output_size, self._image(sample)[2])

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        taken = self._nhwc(self._take(x))
        pads = self.geometry(self._own_order(taken).shape[1:]).padding
        return self._own_order(np.pad(taken, ((0, 0), *pads, (0, 0))))

    def backward(self, grad: ArrayLike) -> Array:
        dy = self._nhwc(np.asarray(grad, self.dtype))
        if dy.ndim != 4:
            raise ConvError(f"{self.name}: grad must have the four axes of the output, but got shape {dy.shape}.")
        (top, bottom), (left, right) = self.geometry((1, 1, 1)).padding
        height, width = dy.shape[1:3]
        return self._own_order(dy[:, top : height - bottom, left : width - right])


class UpSampling2D(Layer):
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
        size: Size = (2, 2),
        data_format: str = "channels_last",
        interpolation: str = "nearest",
        **options: Any,
    ) -> None:
        super().__init__(data_format=data_format, **options)
        self.size = pair("size", size, 1)
        self.interpolation = word("interpolation", interpolation, ("nearest", "bilinear"))
        self._shape: Shape | None = None

    def _sample_shape(self, sample: Shape) -> Shape:
        height, width, channels = self._image(sample)
        return self._sample(height * self.size[0], width * self.size[1], channels)

    def _matrices(self, shape: Shape) -> tuple[Array, Array]:
        """The interpolation along rows and columns as matrices (outputs, inputs)."""
        rows, columns = (_bilinear(length, scale) for length, scale in zip(shape[1:3], self.size, strict=True))
        return rows.astype(self.dtype), columns.astype(self.dtype)

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        taken = self._nhwc(self._take(x))
        self._shape = taken.shape
        if self.interpolation == "nearest":
            return self._own_order(taken.repeat(self.size[0], axis=1).repeat(self.size[1], axis=2))
        rows, columns = self._matrices(taken.shape)
        return self._own_order(np.einsum("yh,nhwc,xw->nyxc", rows, taken, columns, optimize=True))

    def backward(self, grad: ArrayLike) -> Array:
        shape = self._shape
        scaled = None if shape is None else (shape[0], shape[1] * self.size[0], shape[2] * self.size[1], shape[3])
        dy = self._gradient(grad, scaled)
        assert shape is not None
        if self.interpolation == "nearest":
            split = dy.reshape(shape[0], shape[1], self.size[0], shape[2], self.size[1], shape[3])
            return self._own_order(total(split, (2, 4)))
        rows, columns = self._matrices(shape)
        return self._own_order(np.einsum("yh,nyxc,xw->nhwc", rows, dy, columns, optimize=True))

    def release(self) -> None:
        self._shape = None


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
