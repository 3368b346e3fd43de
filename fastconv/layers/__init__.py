"""Layers in Keras' words: the same names, arguments, defaults and meanings, on NumPy arrays.

Every layer has `forward(x, training=False)`, `backward(grad)`, `get_weights()`, `set_weights(weights)`,
`count_params()` and `output_shape(input_shape)`; `fastconv.Sequential` makes a net of them.
"""

from __future__ import annotations

from typing import Any

from .activations import Activation, LeakyReLU, ReLU, Softmax
from .base import Layer, Parameter
from .convolution import Conv1D, Conv1DTranspose, Conv2D, Conv2DTranspose, Conv3D, Conv3DTranspose
from .core import Dense, Dropout, Flatten, Reshape, Residual
from .kinds import DepthwiseConv1D, DepthwiseConv2D, SeparableConv1D, SeparableConv2D, TiledConv2D
from .merging import Add, Average, Concatenate, Maximum, Minimum, Multiply, Subtract
from .normalization import BatchNormalization, LocalResponseNormalization
from .pooling import (
    AveragePooling1D,
    AveragePooling2D,
    AveragePooling3D,
    Cropping1D,
    Cropping2D,
    Cropping3D,
    GlobalAveragePooling1D,
    GlobalAveragePooling2D,
    GlobalAveragePooling3D,
    GlobalMaxPooling1D,
    GlobalMaxPooling2D,
    GlobalMaxPooling3D,
    MaxPooling1D,
    MaxPooling2D,
    MaxPooling3D,
    UpSampling1D,
    UpSampling2D,
    UpSampling3D,
    ZeroPadding1D,
    ZeroPadding2D,
    ZeroPadding3D,
)
from .symbolic import input_tensor as Input  # noqa: F401  as keras.layers has it


def __getattr__(name: str) -> Any:
    if name[:1].isupper():
        raise AttributeError(
            f"fastconv.layers has no {name}: use keras.layers.{name} of Keras itself, made fast by "
            "fastconv.keras.install()."
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Activation",
    "Add",
    "Average",
    "AveragePooling1D",
    "AveragePooling2D",
    "AveragePooling3D",
    "BatchNormalization",
    "Concatenate",
    "Conv1D",
    "Conv1DTranspose",
    "Conv2D",
    "Conv2DTranspose",
    "Conv3D",
    "Conv3DTranspose",
    "Cropping1D",
    "Cropping2D",
    "Cropping3D",
    "Dense",
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "GlobalAveragePooling3D",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "GlobalMaxPooling3D",
    "Layer",
    "LeakyReLU",
    "LocalResponseNormalization",
    "MaxPooling1D",
    "MaxPooling2D",
    "MaxPooling3D",
    "Maximum",
    "Minimum",
    "Multiply",
    "Parameter",
    "ReLU",
    "Reshape",
    "Residual",
    "SeparableConv1D",
    "SeparableConv2D",
    "Softmax",
    "Subtract",
    "TiledConv2D",
    "UpSampling1D",
    "UpSampling2D",
    "UpSampling3D",
    "ZeroPadding1D",
    "ZeroPadding2D",
    "ZeroPadding3D",
]
