"""What recurrent layers do between two matrix products: activations in place, and a step of each kind of cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from ..._core.arrays import Array
from .activations import logistic
from .registry import Call

Activation = Callable[[Array], Any]  # in place


# ---- activations -----------------------------------------------------------------------------------------------------


def _affine(x: Array, alpha: float, beta: float) -> None:
    np.multiply(x, x.dtype.type(alpha), out=x)
    np.add(x, x.dtype.type(beta), out=x)


def _hard_sigmoid(x: Array, alpha: float, beta: float) -> None:
    _affine(x, alpha, beta)
    np.clip(x, 0, 1, out=x)


def _scaled_tanh(x: Array, alpha: float, beta: float) -> None:
    np.multiply(x, x.dtype.type(beta), out=x)
    np.tanh(x, out=x)
    np.multiply(x, x.dtype.type(alpha), out=x)


def _leaky(x: Array, alpha: float, beta: float) -> None:
    np.multiply(x, x.dtype.type(alpha), out=x, where=x < 0)


def _thresholded(x: Array, alpha: float, beta: float) -> None:
    np.copyto(x, 0, where=~((x > alpha) | np.isnan(x)))


def _elu(x: Array, alpha: float, beta: float) -> None:
    np.copyto(x, x.dtype.type(alpha) * np.expm1(np.minimum(x, 0)), where=x < 0)


# By name: the function, and what its alpha and beta are by default; None where it has none.
FUNCTIONS: Final[dict[str, tuple[Callable[[Array, float, float], Any], float | None, float | None]]] = {
    "relu": (lambda x, alpha, beta: np.maximum(x, 0, out=x), None, None),
    "tanh": (lambda x, alpha, beta: np.tanh(x, out=x), None, None),
    "sigmoid": (lambda x, alpha, beta: logistic(x, x), None, None),
    "affine": (_affine, 1.0, 0.0),
    "leakyrelu": (_leaky, 0.01, None),
    "thresholdedrelu": (_thresholded, 1.0, None),
    "scaledtanh": (_scaled_tanh, 1.0, 1.0),
    "hardsigmoid": (_hard_sigmoid, 0.2, 0.5),
    "elu": (_elu, 1.0, None),
    "softsign": (lambda x, alpha, beta: np.divide(x, 1 + np.abs(x), out=x), None, None),
    "softplus": (lambda x, alpha, beta: np.logaddexp(x, 0, out=x), None, None),
}


def _applied(function: Callable[[Array, float, float], Any], alpha: float, beta: float, x: Array) -> None:
    function(x, alpha, beta)


def activations_of(call: Call, default: Sequence[str], directions: int) -> list[tuple[Activation, ...]]:
    """The functions of every direction, or of all; alphas and betas go in order to those that have one."""
    given = call.get("activations") or list(default) * directions
    if len(given) != len(default) * directions:
        raise call.error(f"activations {given} must be {len(default)} for each of {directions} directions.")
    rest = {"alpha": iter(call.get("activation_alpha", [])), "beta": iter(call.get("activation_beta", []))}
    found: list[Activation] = []
    for name in given:
        known = FUNCTIONS.get(str(name).lower())
        if known is None:
            raise call.error(f"activation {name!r} is none of {', '.join(FUNCTIONS)}.")
        function, alpha, beta = known
        a = 0.0 if alpha is None else float(next(rest["alpha"], alpha))
        b = 0.0 if beta is None else float(next(rest["beta"], beta))
        found.append(partial(_applied, function, a, b))
    apart = [tuple(found[at : at + len(default)]) for at in range(0, len(found), len(default))]
    return apart if call.get("activations") else apart[:1]


# ---- what is between two products ------------------------------------------------------------------------------------


def rnn_step(gates: Array, h: Array, functions: tuple[Activation, ...], clip: float | None) -> None:
    """h = f(gates). `gates` (directions, batch, hidden) is used up, `h` the result."""
    clipped(gates, clip)
    functions[0](gates)
    h[...] = gates


def gru_step(
    candidate: Array, update: Array, h: Array, functions: tuple[Activation, ...], clip: float | None
) -> None:
    """h = (1 - z) g(candidate) + z h, z = `update`. `candidate` (directions, batch, hidden) is used up."""
    clipped(candidate, clip)
    functions[1](candidate)
    np.multiply(h, update, out=h)
    np.multiply(candidate, 1 - update, out=candidate)
    np.add(h, candidate, out=h)


def lstm_step(
    gates: Array, peephole: Array | None, c: Array, h: Array, functions: tuple[Activation, ...], clip: float | None,
    coupled: bool,
) -> None:  # fmt: skip
    """c = f c + i g, h = o tanh(c) by the gates i, o, f, g in `gates` (directions, batch, 4 hidden), which is used up.

    `c` and `h` (directions, batch, hidden) are read and written; `peephole` is (directions, 1, 3 hidden) for i, o, f.
    """
    hidden = c.shape[-1]
    i, o, f, g = (gates[..., at * hidden : (at + 1) * hidden] for at in range(4))
    if peephole is None:
        clipped(gates, clip)
        functions[0](gates[..., : 3 * hidden])
    else:
        i += peephole[..., :hidden] * c
        f += peephole[..., 2 * hidden :] * c
        for gate in (i, f, g):
            clipped(gate, clip)
        functions[0](i)
        functions[0](f)
    functions[1](g)
    if coupled:
        np.subtract(1, i, out=f)
    np.multiply(c, f, out=c)
    np.multiply(i, g, out=i)
    np.add(c, i, out=c)
    if peephole is not None:
        o += peephole[..., hidden : 2 * hidden] * c
        clipped(o, clip)
        functions[0](o)
    h[...] = c  # which is not clipped, as in ONNX Runtime
    functions[2](h)
    np.multiply(h, o, out=h)


def clipped(x: Array, most: float | None) -> None:
    """Bound what goes into an activation."""
    if most is not None:
        np.clip(x, -most, most, out=x)
