"""Other kinds of convolution: depthwise, separable and tiled."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from .. import functional
from .. import grad as conv_gradient
from .._core.documented import like
from .._core.geometry import Geometry, conv_geometry
from .._core.words import Padding, Shape, Size, pair
from ..errors import ConvError
from .activations import Function
from .base import Array, Layer, Sample, Window, positive
from .convolution import Conv, Conv1D, Conv2D, Convolution


class DepthwiseConv(Conv):
    """A depthwise convolution of as many axes as its class says."""

    def __init__(
        self,
        kernel_size: Size,
        strides: Size = 1,
        padding: Padding = "valid",
        depth_multiplier: int = 1,
        data_format: str = "channels_last",
        dilation_rate: Size = 1,
        activation: str | Function | None = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        **options: Any,
    ) -> None:
        Convolution.__init__(
            self, kernel_size, strides, padding, dilation_rate, activation, use_bias, depthwise_initializer,
            bias_initializer, data_format=data_format, **options,
        )  # fmt: skip
        self.depth_multiplier = positive("depth_multiplier", depth_multiplier)

    def geometry(self, sample: Shape, batch: int = 1) -> Geometry:
        channels = self._image(sample)[-1]
        if self.kernel is not None and channels != self.kernel.shape[-2]:
            raise ConvError(
                f"{self.name} takes {self.kernel.shape[-2]} channels, but the input {sample} has {channels}."
            )
        return conv_geometry(
            self._logical(sample, batch), (channels * self.depth_multiplier, 1, *self.kernel_size), self.strides,
            self.padding, self.dilation_rate, max(1, channels), name=self.name,
            shown=(sample, (*self.kernel_size, channels, self.depth_multiplier)),
        )  # fmt: skip

    def _build(self, sample: Shape) -> None:
        channels = self._image(sample)[-1]
        shape = (*self.kernel_size, channels, self.depth_multiplier)
        self.kernel = self._add_weight("depthwise_kernel", shape, self.kernel_initializer)
        if self.use_bias:
            self.bias = self._add_weight("bias", (channels * self.depth_multiplier,), self.bias_initializer)

    def _weight(self) -> Array:
        assert self.kernel is not None
        return self.kernel.array.reshape(*self.kernel_size, 1, -1)


class DepthwiseConv2D(DepthwiseConv):
    """Convolve every channel on its own, into `depth_multiplier` channels each.

    Weights: depthwise_kernel (kH, kW, in channels, depth_multiplier), bias (in channels * depth_multiplier,).

    Parameters
    ----------
    kernel_size : int or (int, int)
        Rows and columns of the kernel.
    strides : int or (int, int)
        Rows and columns from one output to the next.
    padding : str, int or pairs
        'valid' (none), 'same' (ceil(size / stride) outputs), or whatever `fastconv.conv2d` takes.
    depth_multiplier : int
        Output channels for each input channel.
    data_format : {'channels_last', 'channels_first'}
        Images (N, H, W, C) or (N, C, H, W).
    dilation_rate : int or (int, int)
        Distance between neighbouring taps, in pixels; together with strides too.
    activation : str, Function or None
        As for `Activation`; None leaves the values as they are.
    use_bias : bool
        Add a value to every output channel.
    depthwise_initializer, bias_initializer : str or callable
        Starting values: 'glorot_uniform', 'he_normal', 'zeros' and so on, or a function of (shape, generator).
    **options : Any
        Also name, trainable, dtype and input_shape: see `Layer`.
    """


@like(DepthwiseConv2D, 1)
class DepthwiseConv1D(DepthwiseConv):
    axes = 1


CONVOLUTIONS: Final[dict[int, type[Conv]]] = {1: Conv1D, 2: Conv2D}
DEPTHWISE: Final[dict[int, type[DepthwiseConv]]] = {1: DepthwiseConv1D, 2: DepthwiseConv2D}


class SeparableConv(Layer):
    """A separable convolution of as many axes as its class says."""

    def __init__(
        self,
        filters: int,
        kernel_size: Size,
        strides: Size = 1,
        padding: Padding = "valid",
        data_format: str = "channels_last",
        dilation_rate: Size = 1,
        depth_multiplier: int = 1,
        activation: str | Function | None = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        pointwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        **options: Any,
    ) -> None:
        super().__init__(data_format=data_format, **options)
        shared: dict[str, Any] = {"data_format": data_format, "dtype": self.dtype.name}
        self.depthwise = DEPTHWISE[self.axes](
            kernel_size, strides, padding, depth_multiplier, dilation_rate=dilation_rate, use_bias=False,
            depthwise_initializer=depthwise_initializer, name="depthwise", **shared,
        )  # fmt: skip
        self.pointwise = CONVOLUTIONS[self.axes](
            filters, 1, activation=activation, use_bias=use_bias, kernel_initializer=pointwise_initializer,
            bias_initializer=bias_initializer, name="pointwise", **shared,
        )  # fmt: skip

    @property
    def activation(self) -> Function:
        """That of the 1x1 convolution."""
        return self.pointwise.activation

    def sublayers(self) -> Sequence[Layer]:
        return (self.depthwise, self.pointwise)

    def _sample_shape(self, sample: Shape) -> Shape:
        return self.pointwise._sample_shape(self.depthwise._sample_shape(sample))

    def _build(self, sample: Shape) -> None:
        self.depthwise.build(sample)
        self.pointwise.build(self.depthwise.output_shape(Sample(sample)))

    def macs(self, input_shape: Sequence[int | None]) -> int:
        return self.depthwise.macs(input_shape) + self.pointwise.macs(self.depthwise.output_shape(input_shape))

    def window(self, input_shape: Sequence[int | None]) -> Window:
        return self.depthwise.window(input_shape)

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        return self.pointwise.forward(self.depthwise.forward(self._take(x), training), training)

    def forward_logits(self, x: ArrayLike) -> Array:
        """`forward` without the activation; the next `backward` leaves it out too."""
        return self.pointwise.forward_logits(self.depthwise.forward(self._take(x)))

    def backward(self, grad: ArrayLike) -> Array:
        return self.depthwise.backward(self.pointwise.backward(grad))


class SeparableConv2D(SeparableConv):
    """Convolve every channel on its own, then all channels by a 1x1 convolution.

    Weights: depthwise_kernel (kH, kW, in channels, depth_multiplier), kernel (1, 1, in channels * depth_multiplier,
    filters), bias (filters,).

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
    depth_multiplier : int
        Output channels for each input channel.
    activation : str, Function or None
        As for `Activation`; None leaves the values as they are.
    use_bias : bool
        Add a value to every output channel.
    depthwise_initializer, pointwise_initializer, bias_initializer : str or callable
        Starting values: 'glorot_uniform', 'he_normal', 'zeros' and so on, or a function of (shape, generator).
    **options : Any
        Also name, trainable, dtype and input_shape: see `Layer`.
    """


@like(SeparableConv2D, 1)
class SeparableConv1D(SeparableConv):
    axes = 1


class TiledConv2D(Convolution):
    """Convolve with kernels that take turns: pixel (y, x) is made with kernel [y mod tH, x mod tW].

    Weights: kernel (tH, tW, kH, kW, in channels, filters), bias (filters,).

    Parameters
    ----------
    filters : int
        Output channels.
    kernel_size : int or (int, int)
        Rows and columns of the kernel.
    tiles : int or (int, int)
        Rows and columns of kernels; 1 is `Conv2D`, as many as outputs a locally connected layer.
    strides : int or (int, int)
        Rows and columns from one output to the next.
    padding : str, int or pairs
        'valid' (none), 'same' (ceil(size / stride) outputs), or whatever `fastconv.conv2d` takes.
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

    References
    ----------
    Goodfellow, Bengio and Courville, "Deep Learning", MIT Press 2016, section 9.5.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Size,
        tiles: Size = (2, 2),
        strides: Size = 1,
        padding: Padding = "valid",
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
        self.tiles = pair("tiles", tiles, 1)

    def geometry(self, sample: Shape) -> Geometry:
        """The convolution that each kernel does a part of."""
        channels = self._image(sample)[-1]
        if self.kernel is not None and channels != self.kernel.shape[4]:
            raise ConvError(
                f"{self.name} takes {self.kernel.shape[4]} channels, but the input {sample} has {channels}."
            )
        return conv_geometry(
            self._logical(sample), (self.filters, channels, *self.kernel_size), self.strides, self.padding,
            self.dilation_rate, 1, name=self.name, shown=(sample, (*self.kernel_size, channels, self.filters)),
        )  # fmt: skip

    def _sample_shape(self, sample: Shape) -> Shape:
        return self._sample(*self.geometry(sample).output_size, self.filters)

    def _initial(self, shape: Shape, random: Any) -> Array:
        """Every kernel drawn as if it were alone: a unit sees the inputs of one kernel."""
        kernels = [self.kernel_initializer(shape[2:], random) for _ in range(prod(self.tiles))]
        return np.stack(kernels).reshape(shape)

    def _build(self, sample: Shape) -> None:
        shape = (*self.tiles, *self.kernel_size, self._image(sample)[-1], self.filters)
        self.kernel = self._add_weight("kernel", shape, self._initial)
        if self.use_bias:
            self.bias = self._add_weight("bias", (self.filters,), self.bias_initializer)

    def macs(self, input_shape: Sequence[int | None]) -> int:
        g = self.geometry(self._without_batch(input_shape)[1])
        return prod(g.output_size) * g.out_channels * g.in_channels * prod(g.kernel_size)

    def _options(self) -> dict[str, Any]:
        return {
            "stride": self.strides, "padding": self.padding, "dilation": self.dilation_rate, "data_format": "NHWC"
        }  # fmt: skip

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        return self._own_order(self._convolve(self._nhwc(self._take(x)), self.activation))

    def _convolve(self, taken: Array, activation: Function) -> Array:
        self.geometry(self._own_order(taken).shape[1:])
        assert self.kernel is not None
        self._kept_input = taken
        bias = None if self.bias is None else self.bias.array
        y = functional.tiled_conv2d(taken, self.kernel.array, bias, **self._options())
        return self._finish(y, activation, False)

    def backward(self, grad: ArrayLike) -> Array:
        dz = self._activation_gradient(grad)
        x, kernel = self._kept_input, self.kernel
        assert kernel is not None and x is not None
        kernel.grad = conv_gradient.tiled_conv2d_weight(x, kernel.shape, dz, **self._options())
        return self._own_order(conv_gradient.tiled_conv2d_input(x.shape, kernel.array, dz, **self._options()))
