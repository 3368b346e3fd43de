"""Activation functions with their gradients, and the layers that are nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import pi, prod, sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from .. import _native
from .._core import steps
from .._core.activations import BY_LAYERS, activation_name
from .._core.sums import total
from .._core.words import Shape, integer
from ..errors import ConvError
from . import memory, rows
from .base import Array, Layer, real

# Fused activations that are the identity between 0 and this, and constant outside.
CLIPPED: Final = {"relu": float("inf"), "relu6": 6.0}
# What a single step of native code is.
STEPS: Final = {
    "sigmoid": steps.SIGMOID, "silu": steps.SILU, "hardswish": steps.HARDSWISH, "tanh": steps.TANH, "gelu": steps.GELU,
    "gelu_tanh": steps.GELU_TANH,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Function:
    """An elementwise function (or softmax) and its gradient.

    `gradient(grad, kept)` needs the output where `from_output`, else the input. `fused` is the word by which a
    convolution computes it while storing its result. `made_by`, a function and its arguments, makes it again.
    """

    name: str
    value: Callable[[Array], Array]
    gradient: Callable[[Array, Array], Array]
    from_output: bool
    fused: str | None = None
    made_by: tuple[Callable[..., Function], tuple[Any, ...]] | None = field(default=None, compare=False, repr=False)

    def __copy__(self) -> Function:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Function:
        return self  # nothing in it changes, and the nets compare functions by identity

    def __reduce__(self) -> tuple[Any, ...]:
        """By its name or by what made it: that the functions inside are nameless is no matter then."""
        if FUNCTIONS.get(self.name) is self:
            return function, (self.name,)
        return self.made_by or (Function, (self.name, self.value, self.gradient, self.from_output, self.fused))

    def gradient_and_sums(self, grad: Array, kept: Array) -> tuple[Array, Array | None]:
        """The gradient and, where it costs nothing more, its sum over every channel."""
        most = CLIPPED.get(self.name) if self.fused else None
        if most is None or grad.dtype != kept.dtype:
            return self.gradient(grad, kept), None
        return rows.relu_gradient(grad, kept, most)

    def into(self, x: Array, out: Array) -> None:
        """Write the value to `out`, which may be `x`."""
        if self.name == "relu" and self.fused:
            np.maximum(x, 0, out=out)
        elif self.name in STEPS:
            steps.apply(x, out, (STEPS[self.name], 0.0))
        else:
            out[...] = self.value(x)


def _by_step(name: str) -> Callable[[Array], Array]:
    return lambda x: steps.applied(x, (STEPS[name], 0.0))


def _silu_gradient(grad: Array, x: Array) -> Array:
    s = steps.applied(x, (steps.SIGMOID, 0.0))
    slope: Array = s * (1 + x * (1 - s))
    return grad * slope


def _gelu_gradient(grad: Array, x: Array) -> Array:
    """Phi(x) + x phi(x), the distribution and the density of the normal distribution."""
    number = x.dtype.type
    slope = steps.applied(x, (steps.MUL, sqrt(0.5)), (steps.ERF, 0.0), (steps.ADD, 1.0), (steps.MUL, 0.5))
    density = steps.applied(x, (steps.SQUARE, 0.0), (steps.MUL, -0.5), (steps.EXP, 0.0))
    slope += x * density * number(1 / sqrt(2 * pi))
    return grad * slope


def _gelu_tanh_gradient(grad: Array, x: Array) -> Array:
    """Of x sigmoid(u), u = 2 sqrt(2 / pi) (x + 0.044715 x^3)."""
    number, twice = x.dtype.type, 2 * sqrt(2 / pi)
    square = x * x
    s = steps.applied(x * (number(twice) + number(0.044715 * twice) * square), (steps.SIGMOID, 0.0))
    s += x * s * (1 - s) * (number(twice) + number(3 * 0.044715 * twice) * square)
    return grad * s


def _hardswish_gradient(grad: Array, x: Array) -> Array:
    slope: Array = np.where(x <= -3, 0, np.where(x >= 3, 1, (2 * x + 3) / 6)).astype(x.dtype)
    return grad * slope


def softmax(x: Array, axis: int = -1) -> Array:
    """exp(x) / sum(exp(x)) along an axis; rows of equal infinities are NaN."""
    given = np.ascontiguousarray(x)  # in one order: how the input lies must not decide the bits
    e = np.empty_like(given)
    if e.size:
        at = axis % x.ndim
        shape = prod(x.shape[:at]), x.shape[at], prod(x.shape[at + 1 :])
        _native.softmax(e.reshape(-1), given.reshape(-1), shape, False, rows.team(e))
    return e


def softmax_gradient(grad: Array, y: Array, axis: int = -1) -> Array:
    """The gradient of `softmax` from its output."""
    centred: Array = grad - total(np.multiply(grad, y, order="C"), axis, keepdims=True)
    centred *= y
    return centred


def leaky_relu(slope: float) -> Function:
    """x where positive, slope * x elsewhere; a slope of at least 0, so that the output tells the sign of the input."""
    return Function(
        "leaky_relu",
        lambda x: np.where(x < 0, x * x.dtype.type(slope), x),
        lambda grad, y: np.where(y > 0, grad, grad * y.dtype.type(slope)),
        from_output=True,
        fused="leaky_relu" if slope == 0.01 else None,
        made_by=(leaky_relu, (slope,)),
    )


def relu_up_to(most: float) -> Function:
    """x between 0 and `most`, and these beyond."""
    return Function(
        "relu",
        lambda x: np.clip(x, 0, x.dtype.type(most)),
        lambda grad, y: grad * ((y > 0) & (y < most)),
        from_output=True,
        made_by=(relu_up_to, (most,)),
    )


LINEAR: Final = Function("linear", lambda x: x, lambda grad, y: grad, from_output=True)
RELU: Final = Function(
    "relu", lambda x: np.maximum(x, 0), lambda grad, y: grad * (y > 0), from_output=True, fused="relu"
)
SOFTMAX: Final = Function("softmax", softmax, softmax_gradient, from_output=True)
FUNCTIONS: Final[dict[str, Function]] = {
    "linear": LINEAR,
    "relu": RELU,
    "relu6": Function(
        "relu6", lambda x: np.clip(x, 0, 6), lambda grad, y: grad * ((y > 0) & (y < 6)), from_output=True, fused="relu6"
    ),
    "leaky_relu": leaky_relu(0.2),
    "sigmoid": Function(
        "sigmoid", _by_step("sigmoid"), lambda grad, y: grad * (y * (1 - y)), from_output=True, fused="sigmoid"
    ),
    "tanh": Function("tanh", _by_step("tanh"), lambda grad, y: grad * (1 - y * y), from_output=True, fused="tanh"),
    "silu": Function("silu", _by_step("silu"), _silu_gradient, from_output=False, fused="silu"),
    "hardswish": Function(
        "hardswish", _by_step("hardswish"), _hardswish_gradient, from_output=False, fused="hardswish"
    ),
    "gelu": Function("gelu", _by_step("gelu"), _gelu_gradient, from_output=False, fused="gelu"),
    "gelu_tanh": Function(
        "gelu_tanh", _by_step("gelu_tanh"), _gelu_tanh_gradient, from_output=False, fused="gelu_tanh"
    ),
    "softmax": SOFTMAX,
}


def function(activation: object) -> Function:
    """The function that `activation` (None, a name, a `Function`) stands for."""
    if activation is None:
        return LINEAR
    if isinstance(activation, Function):
        return activation
    return FUNCTIONS[activation_name(activation, BY_LAYERS)]


class Activation(Layer):
    """Apply a function to every value.

    Parameters
    ----------
    activation : str, Function or None
        'relu', 'relu6', 'leaky_relu' (slope 0.2), 'sigmoid', 'tanh', 'gelu', 'gelu_tanh' (the approximation by tanh),
        'silu' or 'swish', 'hardswish', 'hard_swish' or 'hard_silu', 'linear', or 'softmax' over the last axis.
    **options : Any
        Also name, trainable, dtype and input_shape: see `Layer`.
    """

    reads_images = False

    def __init__(self, activation: str | Function | None, **options: Any) -> None:
        super().__init__(**options)
        self.function = function(activation)
        self._kept: Array | None = None

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        taken = self._nhwc(self._take(x))
        y = memory.empty(taken.shape, taken.dtype)
        self.function.into(taken, y)
        self._kept = y if self.function.from_output else taken
        return self._own_order(y)

    def backward(self, grad: ArrayLike) -> Array:
        given = self._gradient(grad, None if self._kept is None else self._kept.shape)
        assert self._kept is not None
        return self._own_order(self.function.gradient_and_sums(given, self._kept)[0])

    def release(self) -> None:
        self._kept = None


class ReLU(Activation):
    """Cut off below zero: max(x, 0).

    Parameters
    ----------
    max_value : float, optional
        Cut off above it too.
    negative_slope : float
        The slope below 0, as in Keras; not together with `max_value`.
    **options : Any
        Also name, trainable, dtype and input_shape: see `Layer`.
    """

    def __init__(self, max_value: float | None = None, negative_slope: float = 0.0, **options: Any) -> None:
        most = None if max_value is None else real("max_value", max_value, 0)
        slope = real("negative_slope", negative_slope, 0)
        if most is not None and slope:
            raise ConvError(
                f"max_value={max_value!r} and negative_slope={negative_slope!r} do not go together here; use one."
            )
        if most is None:
            chosen = RELU if slope == 0 else leaky_relu(slope)
        else:
            chosen = FUNCTIONS["relu6"] if most == 6 else relu_up_to(most)
        super().__init__(chosen, **options)


class LeakyReLU(Activation):
    """Flatten below zero: x where positive, negative_slope * x elsewhere.

    Parameters
    ----------
    negative_slope : float
        At least 0; Keras' default is 0.3.
    **options : Any
        Also name, trainable, dtype and input_shape: see `Layer`.
    """

    def __init__(self, negative_slope: float = 0.3, **options: Any) -> None:
        super().__init__(leaky_relu(real("negative_slope", negative_slope, 0)), **options)


class Softmax(Layer):
    """Turn scores into probabilities: exp(x) / sum(exp(x)).

    Parameters
    ----------
    axis : int
        Along which axis; 0 is the batch and not taken.
    **options : Any
        Also name, trainable, dtype and input_shape: see `Layer`.
    """

    reads_images = False

    def __init__(self, axis: int = -1, **options: Any) -> None:
        super().__init__(**options)
        self.axis = integer("axis", axis)
        self._kept: Array | None = None

    def _sample_shape(self, sample: Shape) -> Shape:
        if self.axis == 0 or not -len(sample) <= self.axis <= len(sample):
            raise ConvError(
                f"{self.name}: axis={self.axis} must name an axis of {sample}, counted from 1 (0 is the batch) or "
                "from the end."
            )
        return sample

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        self._kept = softmax(self._take(x), self.axis)
        return self._kept

    def backward(self, grad: ArrayLike) -> Array:
        if self._kept is None:
            raise ConvError(f"{self.name}: backward needs a forward call before it.")
        given = np.asarray(grad, self.dtype)
        if given.shape != self._kept.shape:
            raise ConvError(f"{self.name}: grad must have the shape {self._kept.shape}, but got {given.shape}.")
        return softmax_gradient(given, self._kept, self.axis)

    def release(self) -> None:
        self._kept = None
