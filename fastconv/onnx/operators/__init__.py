"""The operators, by subject. Importing this package registers them all."""

from __future__ import annotations

from . import (
    activations,
    casts,
    chain,
    convolution,
    deformable,
    elementwise,
    indexing,
    matrix,
    normalization,
    pooling,
    quantized,
    recurrent,
    reduction,
    regions,
    resize,
    sampling,
    sequences,
    shapes,
)
from .registry import INTERNAL, LATEST_OPSET, Call, Operator, find, names, repeatable

__all__ = [
    "INTERNAL",
    "LATEST_OPSET",
    "Call",
    "Operator",
    "activations",
    "casts",
    "chain",
    "convolution",
    "deformable",
    "elementwise",
    "find",
    "indexing",
    "matrix",
    "names",
    "normalization",
    "pooling",
    "quantized",
    "recurrent",
    "reduction",
    "regions",
    "repeatable",
    "resize",
    "sampling",
    "sequences",
    "shapes",
]
