"""Keras' NumPy backend: arrays in, arrays out."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Final

import numpy as np

from fastconv._core.arrays import Array
from fastconv._core.types import FLOATS, learn

from .operators import Asked, Left
from .steps import AveragePooling


class NumpyHost:
    """Reads and computes the calls of one installation."""

    averages_border: Final = False

    def __init__(self, nn: ModuleType) -> None:
        self._nn: Any = nn

    def passes_by(self) -> bool:
        """Whether calls go straight to Keras' own functions."""
        return False

    def tensor(self, value: Any) -> Any:
        # Keras' function copies arrays.
        return value if isinstance(value, np.ndarray) else self._nn.convert_to_tensor(value)

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
        y = asked.step.forward(x, w)
        if y.size == 0 and x.size:
            raise Left("an empty result")
        return y.astype(dtype, copy=False)  # integers wrap round, as in JAX
