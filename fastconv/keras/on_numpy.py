"""Keras' NumPy backend: arrays in, arrays out."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Final

import numpy as np

from fastconv._core.arrays import Array
from fastconv._core.types import FLOATS, learn

from . import values
from .fused import Layers
from .operators import Asked, Left, Patch
from .steps import AveragePooling

# What Keras makes of types, aligned with JAX's defaults, in every backend but TensorFlow.
BITS_32: Final = {
    np.dtype(wide): np.dtype(narrow)
    for wide, narrow in (("float64", "float32"), ("int64", "int32"), ("uint64", "uint32"))
}


class NumpyHost:
    """Reads and computes the calls of one installation."""

    averages_border = False

    def __init__(self, nn: ModuleType) -> None:
        self._nn: Any = nn
        self._layers = Layers()

    def passes_by(self) -> str | None:
        """Nobody watches arrays."""
        return None

    def tensor(self, value: Any) -> Any:
        """As Keras' `convert_to_tensor`, which has no types of 64 bits; but that copies every array."""
        if not isinstance(value, np.ndarray):
            value = self._nn.convert_to_tensor(value)
        return value.astype(BITS_32.get(value.dtype, value.dtype), copy=False)

    def data_format(self, word: Any) -> str:
        return str(self._nn.backend.standardize_data_format(word))

    def crops(
        self, inputs: Any, kernel: Any, strides: Any, padding: Any, output_padding: Any, dilation_rate: Any
    ) -> Any:
        sides = self._nn.compute_conv_transpose_padding_args_for_jax(
            inputs.shape, kernel.shape, strides, padding, output_padding, dilation_rate
        )
        extents = [(k - 1) * d for k, d in zip(kernel.shape[:-2], dilation_rate, strict=True)]
        return [(extent - left, extent - right) for extent, (left, right) in zip(extents, sides, strict=True)]

    def compute(self, name: str, asked: Asked, theirs: Any) -> Array:
        """The result, in the inputs' type as Keras has it."""
        x, w = asked.inputs, asked.kernel
        dtype = x.dtype
        if w is not None and w.dtype != dtype:
            raise Left(f"{dtype} and {w.dtype} together")
        if not learn(dtype) or (dtype not in FLOATS and isinstance(asked.step, AveragePooling)):
            raise Left(str(dtype))
        y = self._layers.run(name, asked)
        if y is None:
            y = asked.step.forward(x, w)
        if y.size == 0 and x.size:
            raise Left("an empty result")
        return y.astype(dtype, copy=False)  # integers wrap round, as in JAX

    def patches(self) -> list[Patch]:
        """What else changes: the sum and ReLU, which find results that have them already, and copy nothing."""
        from keras.src import backend

        return [
            Patch(backend.numpy, "add", self._add),
            Patch(self._nn, "relu", self._relu),
            Patch(backend, "convert_to_tensor", self._convert),
        ]

    def close(self) -> None:
        """Layers are computed in steps again, and their packed weights freed."""
        self._layers.close()

    def _add(self, theirs: Any) -> Any:
        def add(x1: Any, x2: Any) -> Any:
            flight = self._layers.flying(x1)
            if flight is not None:
                if self._layers.added(flight, x2):
                    return x1
                x1 = flight.asked.step.forward(flight.asked.inputs, flight.asked.kernel)  # another sum than the layer's
            return values.add(x1, x2) if values.sum_fits(x1, x2) else theirs(x1, x2)

        return add

    def _relu(self, theirs: Any) -> Any:
        def relu(x: Any) -> Any:
            if self._layers.flying(x) is not None:
                self._layers.activated()
                return x
            return values.relu(x) if values.fits(x) else theirs(x)

        return relu

    def _convert(self, theirs: Any) -> Any:
        def convert_to_tensor(x: Any, *args: Any, **kwargs: Any) -> Any:
            if not args and not kwargs and self._layers.flying(x) is not None:
                return x  # on its way to its layer's ReLU; Keras' function copies
            return theirs(x, *args, **kwargs)

        return convert_to_tensor
