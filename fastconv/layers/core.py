"""Dense, Flatten, Reshape, Dropout and Residual."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .._core import operations
from .._core.forks import MadeAnew
from .._core.geometry import Geometry, conv_geometry
from .._core.threads import effective
from .._core.words import MOST_AXES, Shape, flag
from .._core.words import shape as checked_shape
from ..errors import ConvError, ConvTypeError
from . import memory, rows
from .activations import LINEAR, Function, function
from .base import Array, Layer, Parameter, Sample, Window, behind, locating, one_pixel, positive, real
from .initializers import initializer


class Dense(Layer):
    """Multiply the last axis: activation(x @ kernel + bias).

    Weights: kernel (inputs, units), bias (units,).

    Parameters
    ----------
    units : int
        Length of the output.
    activation : str, Function or None
        As for `Activation`; None leaves the values as they are.
    use_bias : bool
        Add a value to every output channel.
    kernel_initializer, bias_initializer : str or callable
        Starting values: 'glorot_uniform', 'he_normal', 'zeros' and so on, or a function of (shape, generator).
    **options : Any
        Also name, trainable, dtype and input_shape: see `Layer`.
    """

    reads_images = False

    def __init__(
        self,
        units: int,
        activation: str | Function | None = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.units = positive("units", units)
        self.activation = function(activation)
        self.use_bias = flag("use_bias", use_bias)
        self.kernel_initializer = initializer("kernel_initializer", kernel_initializer)
        self.bias_initializer = initializer("bias_initializer", bias_initializer)
        self.kernel: Parameter | None = None
        self.bias: Parameter | None = None
        self._kept_input: Array | None = None
        self._kept: Array | None = None
        self._output_shape: Shape | None = None

    def _sample_shape(self, sample: Shape) -> Shape:
        if self.kernel is not None and sample[-1] != self.kernel.shape[0]:
            raise ConvError(
                f"{self.name} takes {self.kernel.shape[0]} values on the last axis, but the input {sample} has "
                f"{sample[-1]}; a net ending in Flatten and Dense takes images of one size "
                "(to_fully_convolutional() makes one for any size)."
            )
        return (*sample[:-1], self.units)

    def _build(self, sample: Shape) -> None:
        self.kernel = self._add_weight("kernel", (sample[-1], self.units), self.kernel_initializer)
        if self.use_bias:
            self.bias = self._add_weight("bias", (self.units,), self.bias_initializer)

    def macs(self, input_shape: Sequence[int | None]) -> int:
        return prod(self._without_batch(input_shape)[1]) * self.units

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        return self._multiply(self._take(x), self.activation)

    def forward_logits(self, x: ArrayLike) -> Array:
        """`forward` without the activation; the next `backward` leaves it out too."""
        return self._multiply(self._take(x), LINEAR)

    def _multiply(self, x: Array, activation: Function) -> Array:
        self._sample_shape(x.shape[1:])
        assert self.kernel is not None
        self._kept_input = x
        z = memory.empty((*x.shape[:-1], self.units), self.dtype)
        if x.size:
            bias = None if self.bias is None else self.bias.array
            pixels, kernel = _as_pixels(x), _as_1x1(self.kernel.array)
            to = _as_pixels(z)
            operations.forward(self._product(x), pixels, kernel, bias, None, None, to, **self._how())
        else:
            z[...] = 0 if self.bias is None else self.bias.array
        y = z if activation is LINEAR else activation.value(z)
        self._kept = None if activation is LINEAR else y if activation.from_output else z
        self._output_shape = y.shape
        return y

    def _nhwc(self, array: Array) -> Array:
        return array  # the last axis is the last axis, whatever it means

    _own_order = _nhwc

    def backward(self, grad: ArrayLike) -> Array:
        dz = self._backward_weights(grad)
        assert self.kernel is not None and self._kept_input is not None
        dx = memory.empty(self._kept_input.shape, self.dtype)
        if dx.size:
            kernel, to = _as_1x1(self.kernel.array), _as_pixels(dx)
            operations.input_gradient(self._product(dx), _as_pixels(dz), kernel, None, to, **self._how())
        return dx

    def backward_weights(self, grad: ArrayLike) -> None:
        self._backward_weights(grad)

    def _backward_weights(self, grad: ArrayLike) -> Array:
        """The gradient before the activation; the gradients of the weights are set."""
        dz = self._gradient(grad, self._output_shape)
        if self._kept is not None:
            dz = self.activation.gradient(dz, self._kept)
        x, kernel = self._kept_input, self.kernel
        assert x is not None and kernel is not None
        kernel.grad = memory.again(kernel.grad, kernel.shape, self.dtype)
        if x.size:
            to = _as_1x1(kernel.grad)
            operations.weight_gradient(self._product(x), _as_pixels(x), _as_pixels(dz), to, **self._how())
        else:
            kernel.grad[...] = 0
        if self.bias is not None:
            self.bias.grad = rows.channel_sums(dz)
        return dz

    def _how(self) -> dict[str, Any]:
        return {"threads": effective(None), "precision": self.precision}

    def _product(self, x: Array) -> Geometry:
        """The matrix product as a 1x1 convolution over one column of samples: it shares the convolutions' threads,
        where a second library's would wait on the same processors."""
        inputs = x.shape[-1]
        return conv_geometry((1, inputs, x.size // inputs, 1), (self.units, inputs, 1, 1), 1, 0, 1, 1, name=self.name)

    def release(self) -> None:
        self._kept_input = self._kept = self._output_shape = None


def _as_pixels(x: Array) -> Array:
    """(..., F) as the logical activation (1, F, samples, 1)."""
    return x.reshape(1, -1, 1, x.shape[-1]).transpose(0, 3, 1, 2)


def _as_1x1(kernel: Array) -> Array:
    """(inputs, outputs) as the logical weight (outputs, inputs, 1, 1)."""
    return kernel.reshape(1, 1, *kernel.shape).transpose(3, 2, 0, 1)


class Reshape(Layer):
    """Give every sample another shape.

    Parameters
    ----------
    target_shape : sequence of int
        One to four sizes without the batch; one of them may be -1.
    **options : Any
        Also name, trainable, dtype and input_shape: see `Layer`.
    """

    reads_images = False

    def __init__(self, target_shape: Sequence[int], **options: Any) -> None:
        super().__init__(**options)
        sizes = tuple(int(size) for size in target_shape)
        self.target_shape = checked_shape("target_shape", [size for size in sizes if size != -1])
        if sizes.count(-1) > 1 or not 1 <= len(sizes) <= MOST_AXES + 1:
            raise ConvError(f"target_shape must have one to four sizes with at most one -1, but got {target_shape!r}.")
        self.target_shape = sizes
        self._input_shape: Shape | None = None

    def _sample_shape(self, sample: Shape) -> Shape:
        known = prod(size for size in self.target_shape if size != -1)
        count = prod(sample)
        free = -1 in self.target_shape
        if (free and (known == 0 or count % known)) or (not free and known != count):
            raise ConvError(f"{self.name}: the {count} values of {sample} do not fill {self.target_shape}.")
        return tuple(count // known if size == -1 else size for size in self.target_shape)

    def _shape_of_unknown(self, shape: Sequence[int | None]) -> tuple[int | None, ...]:
        target = tuple(None if size == -1 else size for size in self.target_shape)
        return (*shape[: self._has_batch(shape)], *target)

    def activation_values(self, input_shape: Sequence[int | None]) -> tuple[int, int]:
        return 0, 0  # a view

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        taken = self._take(x)
        self._input_shape = taken.shape
        return taken.reshape(taken.shape[0], *self._sample_shape(taken.shape[1:]))

    def backward(self, grad: ArrayLike) -> Array:
        if self._input_shape is None:
            raise ConvError(f"{self.name}: backward needs a forward call before it.")
        given = np.asarray(grad, self.dtype)
        wanted = (self._input_shape[0], *self._sample_shape(self._input_shape[1:]))
        if given.shape != wanted:
            raise ConvError(f"{self.name}: grad must have the shape {wanted} of the output, but got {given.shape}.")
        return given.reshape(self._input_shape)

    def release(self) -> None:
        self._input_shape = None


class Flatten(Reshape):
    """Make every sample one vector in the order rows, columns, channels, whatever the data format, as in Keras.

    Parameters
    ----------
    data_format : {'channels_last', 'channels_first'}
        Images (N, H, W, C) or (N, C, H, W).
    **options : Any
        Also name, trainable, dtype and input_shape: see `Layer`.
    """

    def __init__(self, data_format: str = "channels_last", **options: Any) -> None:
        super().__init__((-1,), data_format=data_format, **options)

    def window(self, input_shape: Sequence[int | None]) -> Window:
        sample = self._without_batch(input_shape)[1]
        if len(sample) == 1:
            return super().window(input_shape)
        *size, _ = self._image(sample)
        return tuple(size), tuple(size)  # the layers behind see the whole image

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        taken = self._nhwc(self._take(x))
        self._input_shape = taken.shape
        return taken.reshape(taken.shape[0], prod(taken.shape[1:]))

    def backward(self, grad: ArrayLike) -> Array:
        return self._own_order(super().backward(grad))


class Draws(MadeAnew):
    """A generator of random numbers, which have a lock."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator

    def after_fork(self) -> None:
        """The same draws from a new one."""
        if "generator" in self.__dict__:
            before = self.generator.bit_generator
            bits = type(before)(0)
            bits.state = before.state
            self.generator = np.random.Generator(bits)


class Dropout(Layer):
    """Set values to zero in training, with probability `rate`, and scale the others by 1 / (1 - rate).

    Parameters
    ----------
    rate : float
        Between 0 and 1; met to 1 / 65536.
    seed : int, optional
        Makes the draws repeatable.
    **options : Any
        Also name, trainable, dtype and input_shape: see `Layer`.

    References
    ----------
    Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 2014.
    """

    reads_images = False

    def __init__(self, rate: float, seed: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.rate = real("rate", rate, 0, 1)
        self.random = np.random.default_rng(seed)
        self.seeded = seed is not None
        self._scale: Array | None = None

    @property
    def random(self) -> np.random.Generator:
        """What draws."""
        return self._draws.generator

    @random.setter
    def random(self, generator: np.random.Generator) -> None:
        self._draws = Draws(generator)

    def activation_values(self, input_shape: Sequence[int | None]) -> tuple[int, int]:
        return 0, 3 * super().activation_values(input_shape)[0]  # passes on; in training also the mask

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        taken = self._take(x)
        self._scale = None
        if not training or self.rate == 0:
            return taken
        self._scale = memory.empty(taken.shape, taken.dtype)
        if self.rate == 1:
            self._scale[...] = 0
        else:  # draws of 16 bits: a quarter of the work, and the rate is met to 1 / 65536
            draws = self.random.integers(0, 1 << 16, taken.shape, np.uint16)
            np.multiply(draws >= round(self.rate * (1 << 16)), taken.dtype.type(1 / (1 - self.rate)), out=self._scale)
        y = memory.empty(taken.shape, taken.dtype)
        np.multiply(taken, self._scale, out=y)
        return y

    def backward(self, grad: ArrayLike) -> Array:
        given = np.asarray(grad, self.dtype)
        if self._scale is None:
            return given
        if given.shape != self._scale.shape:
            raise ConvError(f"{self.name}: grad must have the shape {self._scale.shape}, but got {given.shape}.")
        dx = memory.empty(given.shape, given.dtype)
        np.multiply(given, self._scale, out=dx)
        return dx

    def release(self) -> None:
        self._scale = None


class Residual(Layer):
    """Add two chains of layers: activation(body(x) + shortcut(x)).

    Parameters
    ----------
    body : Layer or list of Layer
        The chain.
    shortcut : Layer or list of Layer, optional
        The other one; without it `x` itself is added.
    activation : str, Function or None
        As for `Activation`; None leaves the values as they are.
    **options : Any
        Also name, trainable, dtype and input_shape: see `Layer`.

    Raises
    ------
    ConvError
        When the shapes of the two ends differ.

    References
    ----------
    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
    """

    def __init__(
        self,
        body: Layer | Sequence[Layer],
        shortcut: Layer | Sequence[Layer] | None = None,
        activation: str | Function | None = None,
        **options: Any,
    ) -> None:
        self.body = chain("body", body)
        self.shortcut = () if shortcut is None else chain("shortcut", shortcut)
        super().__init__(**options)
        self.activation = function(activation)
        unique_names([*self.body, *self.shortcut])
        self._kept: Array | None = None
        self._output_shape: Shape | None = None

    def _spatial_axes(self) -> int:
        known = [chain_axes(path) for path in (self.body, self.shortcut)]
        return known[0] or known[1] or self.axes

    def sublayers(self) -> Sequence[Layer]:
        return (*self.body, *self.shortcut)

    def _sample_shape(self, sample: Shape) -> Shape:
        ends = []
        for path in (self.body, self.shortcut):
            shape: tuple[int | None, ...] = Sample(sample)
            for layer in path:
                with locating(layer):
                    shape = layer.output_shape(shape)
            ends.append(shape)
        if ends[0] != ends[1]:
            raise ConvError(
                f"{self.name}: body makes {ends[0]} of {sample}, the shortcut {ends[1]}; they must agree to be added. "
                "Give a shortcut with the same strides and filters, such as [Conv2D(filters, 1, strides)]."
            )
        return tuple(size for size in ends[0] if size is not None)

    def _build(self, sample: Shape) -> None:
        for path in (self.body, self.shortcut):
            shape: tuple[int | None, ...] = Sample(sample)
            for layer in path:
                layer.build(shape)
                shape = layer.output_shape(shape)

    def macs(self, input_shape: Sequence[int | None]) -> int:
        total = 0
        for path in (self.body, self.shortcut):
            shape: tuple[int | None, ...] = Sample(self._without_batch(input_shape)[1])
            for layer in path:
                total += layer.macs(shape)
                shape = layer.output_shape(shape)
        return total

    def window(self, input_shape: Sequence[int | None]) -> Window:
        sample = self._without_batch(input_shape)[1]
        (extent, stride), (other, _) = chain_window(self.body, sample), chain_window(self.shortcut, sample)
        return tuple(map(max, extent, other)), stride

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        taken = self._take(x)
        body = side = taken
        for layer in self.body:
            with locating(layer):
                body = layer.forward(body, training)
        for layer in self.shortcut:
            with locating(layer):
                side = layer.forward(side, training)
        if body.shape != side.shape:
            self._sample_shape(taken.shape[1:])
        z = memory.empty(body.shape, body.dtype)
        np.add(body, side, out=z)
        y = z
        if self.activation is not LINEAR:
            y = z if self.activation.from_output else memory.empty(z.shape, z.dtype)
            self.activation.into(z, y)
        self._kept = y if self.activation.from_output else z
        return y

    def backward(self, grad: ArrayLike) -> Array:
        kept = self._kept
        given = self._gradient(grad, None if kept is None else self._nhwc(kept).shape)
        assert kept is not None
        given = self.activation.gradient_and_sums(self._own_order(given), kept)[0]
        memory.share(given)
        body, side = chain_backward(self.body, given), chain_backward(self.shortcut, given)
        dx = memory.empty(body.shape, body.dtype)
        np.add(body, side, out=dx)
        for share in (body, side):
            if not np.may_share_memory(share, given):
                memory.give_back(share)
        if not np.may_share_memory(given, np.asarray(grad)):
            memory.give_back(given)
        return dx

    def release(self) -> None:
        self._kept = None
        super().release()


# ---- chains of layers ---------------------------------------------------------------------------------------------


def chain(name: str, layers: object) -> tuple[Layer, ...]:
    """A layer or a sequence of layers as a tuple."""
    if isinstance(layers, Layer):
        return tuple(layers.sublayers()) if layers.is_chain else (layers,)
    if not isinstance(layers, (list, tuple)):
        raise ConvTypeError(f"{name} must be a layer or a list of layers, but got a {type(layers).__name__}.")
    for layer in layers:
        if not isinstance(layer, Layer):
            raise ConvTypeError(
                f"{name} must hold layers, but got {layer!r} of type {type(layer).__name__}"
                + ("; write it with parentheses." if isinstance(layer, type) else ".")
            )
    if len(set(map(id, layers))) != len(layers):
        raise ConvError(f"{name} holds the same layer twice; make two layers.")
    return tuple(layers)


def chain_backward(layers: Sequence[Layer], grad: Array) -> Array:
    """The gradient at the start of a chain; those between its layers give their memory back."""
    given = grad
    for layer in reversed(layers):
        with locating(layer):
            before, grad = grad, layer.backward(grad)
        if not np.may_share_memory(before, given) and not np.may_share_memory(before, grad):
            memory.give_back(before)
    return grad


def unique_names(layers: Sequence[Layer], keep: bool = False) -> None:
    """Give the layers of one net names of their own: conv2d, conv2d_1, ... as Keras does.

    Those that a `Model`, which says `keep`, has named stay as they are: it is known by them in files.
    """
    taken = {layer.name for layer in layers if layer._given_name is not None or layer._named}
    given = [layer._given_name for layer in layers if layer._given_name is not None]
    for name in taken:
        if given.count(name) > 1:
            raise ConvError(f"two layers are named {name!r}; give them different names.")
    counts: dict[str, int] = {}
    for layer in layers:
        if layer._given_name is not None or layer._named:
            continue
        stem = type(layer).default_name()
        while True:
            count = counts.get(stem, 0)
            counts[stem] = count + 1
            name = f"{stem}_{count}" if count else stem
            if name not in taken:
                break
        layer.name, layer._named = name, keep


def chain_axes(layers: Sequence[Layer]) -> int | None:
    """Spatial axes of what a chain takes, as far as its layers tell before a `Reshape`."""
    for layer in layers:
        axes = layer._spatial_axes()
        if axes is not None or isinstance(layer, Reshape):
            return axes
    return None


def chain_window(layers: Sequence[Layer], sample: Sequence[int | None]) -> Window:
    """(extent, stride) of what one pixel at the end of a chain looks at, for a sample of this shape."""
    shape: tuple[int | None, ...] = Sample(sample)
    window = one_pixel(len(shape))
    for layer in layers:
        window = behind(window, layer.window(shape))
        shape = layer.output_shape(shape)
    return window
