"""Elementwise functions of the zoo: how exporters spell them, and what they leave of a normal value's squares."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import erf, sqrt
from typing import Final

import numpy as np

from ..._core.arrays import Array
from .graph import Graph, Value, uniform

_erf = np.vectorize(erf, otypes=[np.float64])


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def _hard_sigmoid(x: Array) -> Array:
    return np.clip(x / 6 + 0.5, 0, 1)


FUNCTIONS: Final[dict[str, Callable[[Array], Array]]] = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "leaky_relu": lambda x: np.where(x < 0, 0.1 * x, x),
    "prelu": lambda x: np.where(x < 0, 0.25 * x, x),
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "silu": lambda x: x * _sigmoid(x),
    "gelu": lambda x: x * 0.5 * (1 + _erf(x / sqrt(2))),
    "elu": lambda x: np.where(x < 0, np.expm1(np.minimum(x, 0)), x),
    "hard_sigmoid": _hard_sigmoid,
    "hard_swish": lambda x: x * _hard_sigmoid(x),
}


@cache
def power_after(kind: str, power: float) -> float:
    """The mean square of the function's values where x is normally distributed with this mean square."""
    x = np.linspace(-6, 6, 241)
    density = np.exp(-x * x / 2)
    return float((density * FUNCTIONS[kind](x * sqrt(power)) ** 2).sum() / density.sum())


def apply(g: Graph, x: Value, kind: str | None) -> Value:
    """Add the function's nodes; None adds nothing."""
    if kind is None:
        return x
    after = power_after(kind, round(x.power, 3))

    def node(op_type: str, *inputs: str, **options: object) -> Value:
        return g.node(op_type, inputs, x.shape, after, **options)

    if kind == "relu6":
        return node("Clip", x.name, g.constant(0), g.constant(6))
    if kind == "leaky_relu":
        return node("LeakyRelu", x.name, alpha=0.1)
    if kind == "prelu":  # a slope a channel
        return node("PRelu", x.name, g.weight(uniform((x.channels, *[1] * (len(x.shape) - 2)), 0.15, 0.35)))
    if kind == "silu":
        return node("Mul", x.name, node("Sigmoid", x.name).name)
    if kind == "gelu":  # 0.5 x (1 + erf(x / sqrt 2)), as PyTorch writes it below operator set 20
        part = node("Add", node("Erf", node("Div", x.name, g.constant(sqrt(2))).name).name, g.constant(1))
        return node("Mul", node("Mul", x.name, part.name).name, g.constant(0.5))
    if kind == "hard_sigmoid":
        return node("HardSigmoid", x.name, alpha=1 / 6, beta=0.5)
    named = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "elu": "Elu", "hard_swish": "HardSwish"}
    return node(named[kind], x.name)
