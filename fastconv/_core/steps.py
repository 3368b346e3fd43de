"""Elementwise functions in native code: the steps of chains, by their numbers in src/fastconv.h, and single ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .. import _native
from .threads import effective

Array = NDArray[Any]

(
    ADD, SUB, SUB_FROM, MUL, DIV, DIV_BY, MAX, MIN, LEAKY, SQUARE, SQRT, ABS, NEGATE, ROUND, SIGMOID, SILU, HARDSWISH,
    MAX_NUMBER, EXP, LOG, ERF, TANH, GELU, GELU_TANH, SOFTPLUS, MISH, ELU, CELU, THRESHOLD, SOFTSIGN, CUBE,
) = range(31)  # fmt: skip
SERIAL_BELOW: Final = 1 << 17  # values times steps: a pass of some 20 microseconds, for which no team is started
FUNCTIONS: Final = frozenset((SIGMOID, SILU, EXP, LOG, ERF, TANH, GELU, GELU_TANH, SOFTPLUS, MISH, ELU, CELU))
FUNCTION_COST: Final = 8  # steps of arithmetic, about
TYPES: Final = (np.dtype(np.float32), np.dtype(np.float64))


def apply(x: Array, out: Array, *steps: tuple[int, float], threads: int | None = None) -> None:
    """out = the steps on x, (code, number) each, one after the other.

    Natively where both are float32 or float64 and lie alike without gaps; else by way of arrays that do.
    """
    if out.size == 0:
        return
    if x.dtype != out.dtype or x.dtype not in TYPES or x.strides != out.strides or not _dense(x):
        held = np.array(x, out.dtype if out.dtype in TYPES else np.float32, order="C")
        apply(held, held, *steps, threads=threads)
        out[...] = held
        return
    team = effective(threads) if out.size * cost([code for code, _ in steps]) >= SERIAL_BELOW else 1
    once = ((x.itemsize,) * 3,) * 2
    made = tuple([(code, -1, number) for code, number in steps])
    order = sorted(range(x.ndim), key=lambda axis: -x.strides[axis])
    flat, to = x.transpose(order).reshape(-1), out.transpose(order).reshape(-1)
    _native.elementwise(to, flat, (), (1, x.size, 1), once, made, team)


def cost(codes: Sequence[int]) -> int:
    """What steps take, in steps of arithmetic; a chain of none copies."""
    return max(1, sum(FUNCTION_COST if code in FUNCTIONS else 1 for code in codes))


def _dense(x: Array) -> bool:
    """Whether the elements fill a piece of memory, in the order of some axes."""
    if x.flags.c_contiguous:
        return True
    order = sorted(range(x.ndim), key=lambda axis: -x.strides[axis])
    return bool(x.transpose(order).flags.c_contiguous)


def applied(x: Array, *steps: tuple[int, float]) -> Array:
    """The same in a new array."""
    out = np.empty(x.shape, x.dtype)
    apply(x if x.flags.c_contiguous else np.ascontiguousarray(x), out, *steps)
    return out
