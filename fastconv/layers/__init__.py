"""Layers in Keras' words: the same names, arguments, defaults and meanings, on NumPy arrays.

Every layer has `forward(x, training=False)`, `backward(grad)`, `get_weights()`, `set_weights(weights)`,
`count_params()` and `output_shape(input_shape)`; `fastconv.Sequential` makes a net of them.
"""

from .activations import Activation, LeakyReLU, ReLU, Softmax
from .base import Layer, Parameter
from .convolution import Conv2D, Conv2DTranspose
from .core import Dense, Dropout, Flatten, Reshape, Residual
from .kinds import DepthwiseConv2D, SeparableConv2D, TiledConv2D
from .normalization import BatchNormalization, LocalResponseNormalization
from .pooling import AveragePooling2D, GlobalAveragePooling2D, MaxPooling2D, UpSampling2D, ZeroPadding2D

__all__ = [
    "Activation",
    "AveragePooling2D",
    "BatchNormalization",
    "Conv2D",
    "Conv2DTranspose",
    "Dense",
    "DepthwiseConv2D",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling2D",
    "Layer",
    "LeakyReLU",
    "LocalResponseNormalization",
    "MaxPooling2D",
    "Parameter",
    "ReLU",
    "Reshape",
    "Residual",
    "SeparableConv2D",
    "Softmax",
    "TiledConv2D",
    "UpSampling2D",
    "ZeroPadding2D",
]
