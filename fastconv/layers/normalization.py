"""BatchNormalization and LocalResponseNormalization."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .._core.sums import FEW
from .._core.words import Shape, flag, integer
from ..errors import ConvError
from . import rows
from .base import Array, Layer, Parameter, positive, real
from .initializers import initializer


class BatchNormalization(Layer):
    """Normalise every channel: gamma * (x - mean) / sqrt(variance + epsilon) + beta.

    In training the mean and the (biased) variance are the batch's, otherwise the running ones. Weights: gamma, beta,
    moving_mean, moving_variance, each (C,).

    Parameters
    ----------
    axis : int, optional
        That of the channels, by default the data format's.
    momentum : float
        Weight of the old statistics: moving * momentum + batch * (1 - momentum).
    epsilon : float
        Added to the variance. PyTorch's default is 1e-5.
    center, scale : bool
        Whether there is a beta, a gamma.
    beta_initializer, gamma_initializer : str or callable
        Starting values of the two.
    moving_mean_initializer, moving_variance_initializer : str or callable
        Starting values of the running statistics.
    **options : Any
        Also name, trainable, dtype and input_shape: see `Layer`.

    References
    ----------
    Ioffe and Szegedy, "Batch Normalization", ICML 2015.
    """

    reads_images = False

    def __init__(
        self,
        axis: int | None = None,
        momentum: float = 0.99,
        epsilon: float = 0.001,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if axis is not None:
            number = integer("axis", axis)
            if number not in (-1, 1, 3):
                raise ConvError(f"axis must be -1 or 3 (channels last) or 1 (channels first), but got axis={axis!r}.")
            self.channels_last = number != 1
        self.momentum = real("momentum", momentum, 0, 1)
        self.epsilon = real("epsilon", epsilon, 0)
        self.center, self.scale = flag("center", center), flag("scale", scale)
        self._initializers = {
            "gamma": initializer("gamma_initializer", gamma_initializer),
            "beta": initializer("beta_initializer", beta_initializer),
            "moving_mean": initializer("moving_mean_initializer", moving_mean_initializer),
            "moving_variance": initializer("moving_variance_initializer", moving_variance_initializer),
        }
        self.gamma: Parameter | None = None
        self.beta: Parameter | None = None
        self.moving_mean: Parameter | None = None
        self.moving_variance: Parameter | None = None
        self._kept: tuple[Array, Array, Array] | None = None  # input, mean, 1 / deviation
        self._training = False

    def _channels(self, sample: Shape) -> int:
        return self._image(sample)[-1]

    def _sample_shape(self, sample: Shape) -> Shape:
        if self.moving_mean is not None and self._channels(sample) != self.moving_mean.shape[0]:
            raise ConvError(
                f"{self.name} normalises {self.moving_mean.shape[0]} channels, but the input {sample} has "
                f"{self._channels(sample)}."
            )
        return sample

    def _build(self, sample: Shape) -> None:
        shape = (self._channels(sample),)
        if self.scale:
            self.gamma = self._add_weight("gamma", shape, self._initializers["gamma"])
        if self.center:
            self.beta = self._add_weight("beta", shape, self._initializers["beta"])
        self.moving_mean = self._add_weight("moving_mean", shape, self._initializers["moving_mean"], False)
        self.moving_variance = self._add_weight("moving_variance", shape, self._initializers["moving_variance"], False)

    def macs(self, input_shape: Any) -> int:
        return 0  # counted with the convolution that it folds into, as is usual

    def _affine(self, mean: Array, inverse: Array) -> tuple[Array, Array]:
        """(scale, shift): the layer is x * scale + shift."""
        scale = inverse if self.gamma is None else inverse * self.gamma.array
        shift = -mean * scale
        return scale, shift if self.beta is None else shift + self.beta.array

    def affine(self) -> tuple[Array, Array]:
        """(scale, shift) with the running statistics: what folds into a convolution before."""
        assert self.moving_mean is not None and self.moving_variance is not None
        return self._affine(self.moving_mean.array, 1 / np.sqrt(self.moving_variance.array + self.epsilon))

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        taken = self._nhwc(self._take(x))
        self._sample_shape(self._own_order(taken).shape[1:])
        self._training = bool(training) and self.trainable  # a frozen layer keeps its statistics, as in Keras
        assert self.moving_mean is not None and self.moving_variance is not None
        if self._training:
            if taken.size == 0:
                raise ConvError(f"{self.name}: a batch without pixels {taken.shape} has no mean to train with.")
            mean, variance = rows.moments(taken)
            for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
                moving.assign(moving.array * self.momentum + batch * (1 - self.momentum))
        else:
            mean, variance = self.moving_mean.array, self.moving_variance.array
        inverse = (1 / np.sqrt(variance + self.epsilon)).astype(self.dtype)
        scale, shift = self._affine(mean, inverse)
        self._kept = taken, mean.copy(), inverse
        return self._own_order(rows.scale_shift(taken, scale, shift))

    def backward(self, grad: ArrayLike) -> Array:
        dy = self._gradient(grad, None if self._kept is None else self._kept[0].shape)
        assert self._kept is not None
        x, mean, inverse = self._kept
        total, product = rows.sums_with(dy, x, mean)  # over pixels: dy and dy * (x - mean)
        product *= inverse
        if self.gamma is not None:
            self.gamma.grad = product
        if self.beta is not None:
            self.beta.grad = total
        scale = inverse if self.gamma is None else inverse * self.gamma.array
        if not self._training:
            return self._own_order(rows.scale_shift(dy, scale, np.zeros_like(scale)))
        # dx = scale * (dy - mean(dy) - xhat * mean(dy * xhat)), gathered as a*dy + b*x + c
        count = x.size // x.shape[-1]
        b = -scale * inverse * product / count
        c = -scale * total / count - b * mean
        return self._own_order(rows.combine(dy, scale, x, b, c))

    def release(self) -> None:
        self._kept = None


class LocalResponseNormalization(Layer):
    """Divide by neighbouring channels: x / (k + alpha * sum of x^2 over `size` channels)^beta.

    The defaults are the paper's.

    Parameters
    ----------
    size : int
        Neighbouring channels that are summed.
    alpha : float
        Factor of the sum.
    beta : float
        The power.
    k : float
        Added to the sum.
    average : bool
        Divide alpha by the size, as PyTorch does.
    **options : Any
        Also name, trainable, dtype and input_shape: see `Layer`.

    References
    ----------
    Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS
    2012, section 3.3.
    """

    def __init__(
        self,
        size: int = 5,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 2.0,
        average: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.size = positive("size", size)
        self.alpha, self.beta, self.k = real("alpha", alpha), real("beta", beta), real("k", k)
        if flag("average", average):
            self.alpha /= self.size
        self._kept: tuple[Array, Array, Array] | None = None

    def _power(self, base: Array) -> Array:
        """base^-beta; for the usual 0.75 by roots, which are much cheaper."""
        if self.beta != 0.75:
            power: Array = np.power(base, base.dtype.type(-self.beta))
            return power
        root: Array = np.sqrt(base)
        return 1 / (root * np.sqrt(root))

    def _window_sum(self, values: Array, before: int) -> Array:
        """Sums of `size` neighbouring channels, from `before` channels before on."""
        channels = values.shape[-1]
        wide = np.float64 if self.size > FEW else values.dtype
        padded = np.zeros((*values.shape[:-1], channels + self.size), wide)
        padded[..., before : before + channels] = values
        out = padded[..., :channels].copy()
        for offset in range(1, self.size):
            out += padded[..., offset : offset + channels]
        return out.astype(values.dtype, copy=False)

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        taken = self._nhwc(self._take(x))
        base = self._window_sum(taken * taken, self.size // 2)
        base *= taken.dtype.type(self.alpha)
        base += taken.dtype.type(self.k)
        y = taken * self._power(base)
        self._kept = taken, base, y
        return self._own_order(y)

    def backward(self, grad: ArrayLike) -> Array:
        dy = self._gradient(grad, None if self._kept is None else self._kept[2].shape)
        assert self._kept is not None
        x, base, y = self._kept
        # y_i depends on x_j of its window: the sum runs over the mirrored window
        shared = self._window_sum(dy * y / base, self.size - 1 - self.size // 2)
        return self._own_order(dy * self._power(base) - x.dtype.type(2 * self.alpha * self.beta) * x * shared)

    def release(self) -> None:
        self._kept = None
