"""Convolution and its transpose of one to three axes; depthwise, separable and tiled convolution are in `kinds`.

A class for all numbers of axes does the work; those that users name say how many. Weights are
Keras': (kH, kW, in channels of a group, out channels), transposed (kH, kW, out channels, in channels).
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import prod
from typing import Any

from numpy.typing import ArrayLike

from .._core import operations, threads
from .._core.documented import like
from .._core.geometry import Geometry, conv_geometry, extents
from .._core.layouts import INWARD, WEIGHT_INWARD
from .._core.select import wish_for_batch
from .._core.transposed import conv_transpose_geometry, keras_transposed_padding
from .._core.words import Padding, Shape, Size, channel_groups, flag, parse_padding, per_axis
from ..errors import ConvError
from . import memory, rows
from .activations import LINEAR, Function, function
from .base import Array, Layer, Parameter, Window, positive
from .initializers import initializer


class Convolution(Layer):
    """What every convolutional layer has: a window, a bias, an activation that is fused where possible."""

    def __init__(
        self,
        kernel_size: Size,
        strides: Size,
        padding: Padding,
        dilation_rate: Size,
        activation: str | Function | None,
        use_bias: bool,
        kernel_initializer: Any,
        bias_initializer: Any,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.kernel_size = per_axis("kernel_size", kernel_size, 1, self.axes)
        self.strides = per_axis("strides", strides, 1, self.axes)
        self.padding = padding
        parse_padding(padding, self.axes)
        self.dilation_rate = per_axis("dilation_rate", dilation_rate, 1, self.axes)
        self.activation = function(activation)
        self.use_bias = flag("use_bias", use_bias)
        self.kernel_initializer = initializer("kernel_initializer", kernel_initializer)
        self.bias_initializer = initializer("bias_initializer", bias_initializer)
        self.kernel: Parameter | None = None
        self.bias: Parameter | None = None
        self._kept_input: Array | None = None
        self._kept: Array | None = None  # what the gradient of the activation needs
        self._output_shape: Shape | None = None

    def forward_logits(self, x: ArrayLike) -> Array:
        """`forward` without the activation; the next `backward` leaves it out too."""
        return self._own_order(self._convolve(self._nhwc(self._take(x)), LINEAR))

    def _convolve(self, x: Array, activation: Function) -> Array:
        """The output for an input, both channels last."""
        raise NotImplementedError

    def _finish(self, y: Array, activation: Function, applied: bool) -> Array:
        """Apply the activation unless it was fused, and keep what its gradient needs."""
        value = y if applied or activation is LINEAR else activation.value(y)
        self._kept = None if activation is LINEAR else value if activation.from_output else y
        self._output_shape = value.shape
        return value

    def _activation_gradient(self, grad: ArrayLike) -> Array:
        """The gradient with respect to what the activation was applied to, channels last; that of the bias is set."""
        given = self._gradient(grad, self._output_shape)
        dz, total = (given, None) if self._kept is None else self.activation.gradient_and_sums(given, self._kept)
        if self.bias is not None:
            self.bias.grad = rows.channel_sums(dz) if total is None else total
        return dz

    def window(self, input_shape: Sequence[int | None]) -> Window:
        return extents(self.kernel_size, self.dilation_rate), self.strides

    def release(self) -> None:
        self._kept_input = self._kept = self._output_shape = None


class Conv(Convolution):
    """A convolution of as many axes as its class says."""

    def __init__(
        self,
        filters: int,
        kernel_size: Size,
        strides: Size = 1,
        padding: Padding = "valid",
        data_format: str = "channels_last",
        dilation_rate: Size = 1,
        groups: int = 1,
        activation: str | Function | None = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        **options: Any,
    ) -> None:
        super().__init__(
            kernel_size, strides, padding, dilation_rate, activation, use_bias, kernel_initializer, bias_initializer,
            data_format=data_format, **options,
        )  # fmt: skip
        self.filters = positive("filters", filters)
        self.groups = channel_groups(groups)
        if self.filters % self.groups:
            raise ConvError(f"filters={filters} must be divisible by groups={groups}.")

    def geometry(self, sample: Shape, batch: int = 1) -> Geometry:
        """The convolution for samples of this shape."""
        channels = self._image(sample)[-1]
        own = self.kernel.shape[-2] if self.kernel is not None else channels // self.groups
        if channels != own * self.groups:
            raise ConvError(
                f"{self.name} takes {own * self.groups} channels with groups={self.groups}, but the input {sample} "
                f"has {channels}."
            )
        return conv_geometry(
            self._logical(sample, batch), (self.filters, own, *self.kernel_size), self.strides, self.padding,
            self.dilation_rate, self.groups, name=self.name, shown=(sample, (*self.kernel_size, own, self.filters)),
        )  # fmt: skip

    def _sample_shape(self, sample: Shape) -> Shape:
        g = self.geometry(sample)
        return self._sample(*g.output_size, g.out_channels)

    def _build(self, sample: Shape) -> None:
        channels = self._image(sample)[-1] // self.groups
        self.kernel = self._add_weight("kernel", (*self.kernel_size, channels, self.filters), self.kernel_initializer)
        if self.use_bias:
            self.bias = self._add_weight("bias", (self.filters,), self.bias_initializer)

    def macs(self, input_shape: Sequence[int | None]) -> int:
        g = self.geometry(self._without_batch(input_shape)[1])
        return prod(g.output_size) * g.out_channels * (g.in_channels // g.groups) * prod(g.kernel_size)

    def _weight(self) -> Array:
        """The kernel as `conv2d` takes it: (kH, kW, in channels of a group, out channels)."""
        assert self.kernel is not None
        return self.kernel.array

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        return self._own_order(self._convolve(self._nhwc(self._take(x)), self.activation))

    def _planned(self, x: Array) -> tuple[Geometry, dict[str, Any]]:
        """The convolution of an input of this shape (channels last), and how to do it."""
        g = self.geometry(self._own_order(x).shape[1:], len(x))
        algorithm = wish_for_batch(g, self.dtype)
        return g, {"algorithm": algorithm, "threads": threads.effective(None), "precision": self.precision}

    def _convolve(self, x: Array, activation: Function) -> Array:
        self._kept_input = x
        g, how = self._planned(x)
        fused = activation.fused if activation.from_output else None
        y = memory.empty((g.batch, *g.output_size, g.out_channels), self.dtype)
        bias = None if self.bias is None else self.bias.array
        operations.forward(g, _logical(x), _logical_weight(self._weight()), bias, fused, None, _logical(y), **how)
        return self._finish(y, activation, fused is not None)

    def backward(self, grad: ArrayLike) -> Array:
        dz, x = self._backward_weights(grad)
        g, how = self._planned(x)
        dx = memory.empty(x.shape, self.dtype)
        operations.input_gradient(g, _logical(dz), _logical_weight(self._weight()), None, _logical(dx), **how)
        if self._kept is not None:  # else dz is the caller's
            memory.give_back(dz)
        return self._own_order(dx)

    def backward_weights(self, grad: ArrayLike) -> None:
        self._backward_weights(grad)

    def _backward_weights(self, grad: ArrayLike) -> tuple[Array, Array]:
        """(gradient before the activation, kept input); the gradients of the weights are set."""
        dz = self._activation_gradient(grad)
        x, weight = self._kept_input, self._weight()
        assert self.kernel is not None and x is not None
        g, how = self._planned(x)
        self.kernel.grad = memory.again(self.kernel.grad, self.kernel.shape, self.dtype)
        dw = self.kernel.grad.reshape(weight.shape)
        operations.weight_gradient(g, _logical(x), _logical(dz), _logical_weight(dw), **how)
        return dz, x


class Conv2D(Conv):
    """Convolve images, with Keras' arguments and defaults.

    Weights: kernel (kH, kW, in channels / groups, filters), bias (filters,). A cross-correlation, as everywhere in
    Keras.

    Parameters
    ----------
    filters : int
        Output channels.
    kernel_size : int or (int, int)
        Rows and columns of the kernel.
    strides : int or (int, int)
        Rows and columns from one output to the next.
    padding : str, int or pairs
        'valid' (none), 'same' (ceil(size / stride) outputs), or whatever `fastconv.conv2d` takes.
    data_format : {'channels_last', 'channels_first'}
        Images (N, H, W, C) or (N, C, H, W).
    dilation_rate : int or (int, int)
        Distance between neighbouring taps, in pixels; together with strides too.
    groups : int
        Groups of channels that are convolved apart.
    activation : str, Function or None
        As for `Activation`; None leaves the values as they are.
    use_bias : bool
        Add a value to every output channel.
    kernel_initializer, bias_initializer : str or callable
        Starting values: 'glorot_uniform', 'he_normal', 'zeros' and so on, or a function of (shape, generator).
    **options : Any
        Also name, trainable, dtype and input_shape: see `Layer`.

    Raises
    ------
    ConvError, ConvTypeError
        For values or types that `forward` could not use.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import layers
    >>> layer = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")
    >>> layer.output_shape((None, 28, 28, 1))
    (None, 14, 14, 16)
    >>> layer.forward(np.zeros((2, 28, 28, 1), np.float32)).shape
    (2, 14, 14, 16)
    >>> layer.count_params()
    160
    """


@like(Conv2D, 1)
class Conv1D(Conv):
    axes = 1


@like(Conv2D, 3)
class Conv3D(Conv):
    axes = 3


def _logical(activation: Array) -> Array:
    """(N, C, *spatial) view of (N, *spatial, C), as `operations` takes it."""
    return activation.transpose(INWARD[activation.ndim])


def _logical_weight(kernel: Array) -> Array:
    """(O, I, *kernel) view of (*kernel, I, O)."""
    return kernel.transpose(WEIGHT_INWARD[kernel.ndim])


class ConvTranspose(Convolution):
    """A transposed convolution of as many axes as its class says."""

    def __init__(
        self,
        filters: int,
        kernel_size: Size,
        strides: Size = 1,
        padding: Padding = "valid",
        output_padding: Size | None = None,
        data_format: str = "channels_last",
        dilation_rate: Size = 1,
        activation: str | Function | None = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        **options: Any,
    ) -> None:
        super().__init__(
            kernel_size, strides, padding, dilation_rate, activation, use_bias, kernel_initializer, bias_initializer,
            data_format=data_format, **options,
        )  # fmt: skip
        self.filters = positive("filters", filters)
        self.output_padding = (
            None if output_padding is None else per_axis("output_padding", output_padding, 0, self.axes)
        )
        # in the words of `conv_transpose2d`: what is cut off before and behind, and added behind
        self.cut = keras_transposed_padding(
            padding, self.kernel_size, self.strides, self.dilation_rate, output_padding
        )

    def geometry(self, sample: Shape, batch: int = 1) -> Geometry:
        """The convolution that is transposed: its output is this layer's input."""
        channels = self._image(sample)[-1]
        if self.kernel is not None and channels != self.kernel.shape[-1]:
            raise ConvError(
                f"{self.name} takes {self.kernel.shape[-1]} channels, but the input {sample} has {channels}."
            )
        return conv_transpose_geometry(
            self._logical(sample, batch), (channels, self.filters, *self.kernel_size), self.strides, *self.cut,
            1, self.dilation_rate, name=self.name,
            shown=(sample, (*self.kernel_size, self.filters, channels)), least=0,
        )  # fmt: skip

    def _sample_shape(self, sample: Shape) -> Shape:
        return self._sample(*self.geometry(sample).input_size, self.filters)

    def _build(self, sample: Shape) -> None:
        channels = self._image(sample)[-1]
        self.kernel = self._add_weight("kernel", (*self.kernel_size, self.filters, channels), self.kernel_initializer)
        if self.use_bias:
            self.bias = self._add_weight("bias", (self.filters,), self.bias_initializer)

    def macs(self, input_shape: Sequence[int | None]) -> int:
        g = self.geometry(self._without_batch(input_shape)[1])
        return prod(g.output_size) * g.out_channels * g.in_channels * prod(g.kernel_size)

    def window(self, input_shape: Sequence[int | None]) -> Window:
        spans = zip(extents(self.kernel_size, self.dilation_rate), self.strides, strict=True)
        return tuple(-(-span // step) for span, step in spans), tuple(Fraction(1, step) for step in self.strides)

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        return self._own_order(self._convolve(self._nhwc(self._take(x)), self.activation))

    def _convolve(self, taken: Array, activation: Function) -> Array:
        g = self._planned(taken)
        assert self.kernel is not None
        self._kept_input = taken
        bias = None if self.bias is None else self.bias.array
        y = memory.empty((g.batch, *g.input_size, self.filters), self.dtype)
        weight = _logical_weight(self.kernel.array)
        how: dict[str, Any] = {"threads": threads.effective(None), "precision": self.precision}
        operations.input_gradient(g, _logical(taken), weight, bias, _logical(y), **how)
        return self._finish(y, activation, False)

    def _planned(self, x: Array) -> Geometry:
        """The convolution whose input gradient is the output for an input of this shape (channels last)."""
        return self.geometry(self._own_order(x).shape[1:], len(x))

    def backward(self, grad: ArrayLike) -> Array:
        dz = self._activation_gradient(grad)
        x, kernel = self._kept_input, self.kernel
        assert kernel is not None and x is not None
        g = self._planned(x)
        how: dict[str, Any] = {"threads": threads.effective(None), "precision": self.precision}
        kernel.grad = memory.again(kernel.grad, kernel.shape, self.dtype)
        operations.weight_gradient(g, _logical(dz), _logical(x), _logical_weight(kernel.grad), **how)
        dx = memory.empty(x.shape, self.dtype)
        operations.forward(g, _logical(dz), _logical_weight(kernel.array), None, None, None, _logical(dx), **how)
        if self._kept is not None:  # else dz is the caller's
            memory.give_back(dz)
        return self._own_order(dx)


class Conv2DTranspose(ConvTranspose):
    """Run a strided convolution backwards, with Keras' arguments and defaults.

    The sizes are Keras'. Where `output_padding` is None, 'valid' gives (H - 1) * stride + max(kernel, stride) rows and
    'same' H * stride; else (H - 1) * stride + kernel + output_padding and (H - 1) * stride + kernel % 2 +
    output_padding. The kernel's rows are those that it spans: (kernel - 1) * dilation + 1. Weights: kernel (kH, kW,
    filters, in channels), bias (filters,).

    Parameters
    ----------
    filters : int
        Output channels.
    kernel_size : int or (int, int)
        Rows and columns of the kernel.
    strides : int or (int, int)
        Rows and columns of the output from one input pixel to the next.
    padding : str, int or pairs
        'valid' or 'same', or whatever `fastconv.conv_transpose2d` takes: numbers give PyTorch's sizes.
    output_padding : int or (int, int), optional
        Rows and columns more at the end, from 0 to stride - 1; None leaves the size to the rule above (and adds none
        where `padding` is numbers).
    data_format : {'channels_last', 'channels_first'}
        Images (N, H, W, C) or (N, C, H, W).
    dilation_rate : int or (int, int)
        Distance between neighbouring taps, in pixels; together with strides too.
    activation : str, Function or None
        As for `Activation`; None leaves the values as they are.
    use_bias : bool
        Add a value to every output channel.
    kernel_initializer, bias_initializer : str or callable
        Starting values: 'glorot_uniform', 'he_normal', 'zeros' and so on, or a function of (shape, generator).
    **options : Any
        Also name, trainable, dtype and input_shape: see `Layer`.

    Raises
    ------
    ConvError, ConvTypeError
        For values or types that `forward` could not use.

    Examples
    --------
    >>> from fastconv import layers
    >>> [layers.Conv2DTranspose(1, 3, 2, "same", output_padding=p).output_shape((7, 7, 1))[0] for p in (None, 0, 1)]
    [14, 13, 14]
    """


@like(Conv2DTranspose, 1)
class Conv1DTranspose(ConvTranspose):
    axes = 1


@like(Conv2DTranspose, 3)
class Conv3DTranspose(ConvTranspose):
    axes = 3
