"""LSTM in native works alone, so that a net does it again without Python: the usual functions, constant weights.

One product gives what the inputs contribute to all steps. A step is then two works: the state's product on top of that
contribution, and the cell, which writes the state where Y holds it. The reverse direction walks the same rows from the
end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ... import _native
from ..._core.arrays import Array
from ..._core.steps import TYPES
from .matrix import Products
from .moving import filled, moved, reshaped
from .registry import Call

if TYPE_CHECKING:
    from .recurrent import Sequences

MOST_BYTES: Final = 16 << 20  # of what the inputs contribute to all steps
USUAL: Final = ("sigmoid", "tanh", "tanh")


def lstm(
    call: Call, given: Sequences, initial: Array | None, cell: Array | None, peepholes: Array | None, bias: Array | None
) -> Any:
    """What the operator gives, or None where it is not all native."""
    steps, batch, features = given.x[0].shape
    directions, width = given.weight.shape[:2]
    kind = given.weight.dtype
    names = [str(name).lower() for name in call.get("activations") or ()]
    usual = given.lengths is None and given.clip is None and (not names or names == [*USUAL] * directions)
    constant = all(call.is_constant(at) for at in (1, 2)) and (bias is None or call.is_constant(3))
    size = steps * batch * directions * width * kind.itemsize
    if not usual or not constant or kind not in TYPES or 0 in (size, features) or size > MOST_BYTES:
        return None
    if any(x is not None and x.dtype != kind for x in (given.x[0], initial, cell, peepholes)):
        return None
    block = _contributions(call, given, bias, steps * batch)
    y = call.empty((steps, directions, batch, given.hidden), kind)
    states = [call.empty(y.shape[1:], kind) for _ in range(3)]  # before the first step: h; c; after the last: h
    whole = _begin(call, given, states[0], initial) and _begin(call, given, states[1], cell)
    _walk(call, given, block, y, states, peepholes)
    for direction, backwards in enumerate(given.reverse):
        whole = moved(call, states[2][direction], y[0 if backwards else -1, direction]) and whole
    if whole and call.settled():
        call.natively()
    return y, states[2], states[1]


def _contributions(call: Call, given: Sequences, bias: Array | None, rows: int) -> Array:
    """What the inputs contribute, (directions, time, batch, gates * hidden), in the order of time."""
    steps, batch, features = given.x[0].shape
    directions, width = given.weight.shape[:2]
    x = given.x[0][::-1] if given.reverse[0] else given.x[0]
    block = call.empty((directions, steps, batch, width), given.weight.dtype)
    products = Products(call, "inputs", given.weight, bias, True)
    all_rows = reshaped(call, x, (rows, features))
    for direction in range(directions):
        products.into(direction, all_rows, block[direction].reshape(rows, width))
    return block


def _begin(call: Call, given: Sequences, state: Array, initial: Array | None) -> bool:
    """A state before the first step; whether natively."""
    if initial is None:
        return filled(call, state, 0)
    return moved(call, state, initial.swapaxes(0, 1) if given.batch_first else initial)


def _walk(
    call: Call, given: Sequences, block: Array, y: Array, states: list[Array], peepholes: Array | None
) -> None:
    """All steps of every direction, one after the other."""
    steps, directions = y.shape[:2]
    products = Products(call, "states", given.recurrent, None, True)
    gates = call.empty((*y.shape[1:3], block.shape[-1]), y.dtype)
    coupled = bool(call.get("input_forget", 0))
    for direction in range(directions):
        part = slice(direction, direction + 1)
        looking = None if peepholes is None else peepholes[part, None]
        order = range(steps - 1, -1, -1) if given.reverse[direction] else range(steps)
        before = states[0][direction]
        for at in order:
            products.bound(direction, before, gates[direction], block[direction, at])()
            before = y[at, direction]
            _native.lstm_step(gates[part], looking, states[1][part], before[np.newaxis], coupled, 1)
