"""Starting values of weights under Keras' names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..errors import ConvError, ConvTypeError

Array = NDArray[Any]
Initializer = Callable[[tuple[int, ...], np.random.Generator], Array]


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(inputs, outputs) that meet in one unit; a kernel is (..., in channels, out channels)."""
    if len(shape) < 2:
        return (shape[0], shape[0]) if shape else (1, 1)
    taps = prod(shape[:-2])
    return taps * shape[-2], taps * shape[-1]


def _uniform(limit: float, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    values = random.random(shape, np.float32)
    values *= 2 * limit
    values -= limit
    return values


def _normal(deviation: float, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    return random.standard_normal(shape, np.float32) * np.float32(deviation)


def zeros(shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """All zero."""
    return np.zeros(shape, np.float32)


def ones(shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """All one."""
    return np.ones(shape, np.float32)


def glorot_uniform(shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """Uniform within sqrt(6 / (inputs + outputs)) (Glorot and Bengio, 2010, equation 16)."""
    inputs, outputs = fans(shape)
    return _uniform(sqrt(6 / max(1, inputs + outputs)), shape, random)


def glorot_normal(shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """Normal with variance 2 / (inputs + outputs) (Glorot and Bengio, 2010)."""
    inputs, outputs = fans(shape)
    return _normal(sqrt(2 / max(1, inputs + outputs)), shape, random)


def he_uniform(shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """Uniform within sqrt(6 / inputs), for nets of ReLU (He et al., 2015)."""
    return _uniform(sqrt(6 / max(1, fans(shape)[0])), shape, random)


def he_normal(shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """Normal with variance 2 / inputs, for nets of ReLU (He et al., 2015, equation 10)."""
    return _normal(sqrt(2 / max(1, fans(shape)[0])), shape, random)


def dcgan_normal(shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """Normal with deviation 0.02 (Radford, Metz and Chintala, 2016, section 4)."""
    return _normal(0.02, shape, random)


@dataclass(frozen=True)
class Reshaped:
    """What another initializer makes in a shape of its own, in the shape that is asked for."""

    start: Initializer
    shape: tuple[int, ...]

    def __call__(self, shape: tuple[int, ...], random: np.random.Generator) -> Array:
        return self.start(self.shape, random).reshape(shape)


INITIALIZERS: Final[dict[str, Initializer]] = {
    f.__name__: f for f in (zeros, ones, glorot_uniform, glorot_normal, he_uniform, he_normal, dcgan_normal)
}


def initializer(name: str, value: object) -> Initializer:
    """The initializer that `value` names, or `value` itself if it can be called with (shape, generator)."""
    if callable(value):
        return value
    if not isinstance(value, str):
        raise ConvTypeError(
            f"{name} must be a name or a function of (shape, generator), but got {value!r} of type "
            f"{type(value).__name__}."
        )
    found = INITIALIZERS.get(value.lower())
    if found is None:
        raise ConvError(f"{name} must be one of {', '.join(map(repr, INITIALIZERS))}, but got {name}={value!r}.")
    return found
