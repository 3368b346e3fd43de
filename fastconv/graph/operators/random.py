"""Random numbers, as generators of sound draw them; a file's seed starts each prepared set of shapes anew."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..._core.arrays import Array
from ..._core.words import Shape
from ..tensors import numpy_type
from .registry import Call, operator


def _generator(call: Call) -> np.random.Generator:
    known: np.random.Generator | None = call.state.get("generator")
    if known is None:
        seed = call.get("seed")
        bits = None if seed is None else int(np.float32(seed).view(np.uint32))
        known = call.state["generator"] = np.random.default_rng(bits)
    return known


def _drawn(call: Call, shape: Shape, kind: Any, normal: bool) -> Array:
    call.check(shape, np.float64)
    source = _generator(call)
    if normal:
        found = source.normal(call.get("mean", 0.0), call.get("scale", 1.0), shape)
    else:
        found = source.uniform(call.get("low", 0.0), call.get("high", 1.0), shape)
    return np.asarray(found).astype(kind)


def _by_shape(normal: bool) -> Any:
    def run(call: Call) -> Array:
        shape = tuple(int(size) for size in call.get("shape", []))
        return _drawn(call, call.check(shape, np.float64), numpy_type(int(call.get("dtype", 1))), normal)

    return run


def _like(normal: bool) -> Any:
    def run(call: Call, x: Array) -> Array:
        asked = call.get("dtype")
        return _drawn(call, x.shape, x.dtype if asked is None else numpy_type(int(asked)), normal)

    return run


operator("RandomNormal", pure=False)(_by_shape(True))
operator("RandomUniform", pure=False)(_by_shape(False))
operator("RandomNormalLike", pure=False)(_like(True))
operator("RandomUniformLike", pure=False)(_like(False))
