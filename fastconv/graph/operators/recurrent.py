"""Recurrent layers: RNN, GRU and LSTM.

What the inputs contribute is one matrix product for many time steps; what a step adds is the product of its state with
packed weights, and then `rnn_step`, `gru_step` or `lstm_step`, which do all that is between two products of both
directions at once. The reverse direction runs forwards over sequences that were reversed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from ..._core.arrays import Array
from .cells import Activation, activations_of, clipped, gru_step, lstm_step, rnn_step
from .matrix import Products
from .recurrent_native import lstm as native_lstm
from .registry import Call, operator

BLOCK_BYTES: Final = 16 << 20  # of what the inputs contribute to the steps that are prepared at once


# ---- sequences -------------------------------------------------------------------------------------------------------


class Sequences(NamedTuple):
    """The inputs of a recurrent operator: (time, batch, features) of every direction, and what is set beside them."""

    x: list[Array]  # of every direction, in the order in which it goes
    weight: Array  # (directions, gates * hidden, features)
    recurrent: Array  # (directions, gates * hidden, hidden)
    bias: Array | None  # (directions, 2 * gates * hidden)
    lengths: Array | None  # (batch,); None where all are as long as there are steps
    reverse: tuple[bool, ...]
    functions: list[tuple[Activation, ...]]
    clip: float | None
    batch_first: bool

    @property
    def hidden(self) -> int:
        return int(self.recurrent.shape[-1])

    def state(self, call: Call, given: Array | None, what: str) -> Array:
        """The state before the first step, (directions, batch, hidden), to be written to."""
        shape = (len(self.reverse), self.x[0].shape[1], self.hidden)
        if given is None:
            return np.zeros(call.check(shape, self.weight.dtype), self.weight.dtype)
        self.check(call, given, what)
        return np.array(given.swapaxes(0, 1) if self.batch_first else given, self.weight.dtype, order="C")

    def check(self, call: Call, given: Array | None, what: str) -> None:
        """Refuse a state before the first step that does not fit."""
        shape = (len(self.reverse), self.x[0].shape[1], self.hidden)
        if given is None:
            return
        own = given.swapaxes(0, 1).shape if self.batch_first and given.ndim > 1 else given.shape
        if own != shape:
            raise call.error(f"{what} has the shape {own} as (directions, batch, hidden); it must be {shape}.")

    def parts(self) -> Iterator[tuple[slice, tuple[Activation, ...]]]:
        """Directions with the same functions are done together."""
        names = self.functions
        if len(names) == 2:
            yield slice(0, 1), names[0]
            yield slice(1, 2), names[1]
        else:
            yield slice(None), names[0]


DIRECTIONS: Final = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}


def _sequences(
    call: Call, gates: int, default: Sequence[str], x: Array, weight: Array, recurrent: Array, bias: Array | None,
    lengths: Array | None,
) -> Sequences:  # fmt: skip
    """The inputs, or what does not fit."""
    reverse = DIRECTIONS.get(str(call.get("direction", "forward")).lower())
    if reverse is None:
        raise call.error(f"direction {call.get('direction')!r} is none of {', '.join(DIRECTIONS)}.")
    batch_first = bool(call.get("layout", 0))
    if x.ndim != 3 or recurrent.ndim != 3:
        raise call.error(f"X of shape {x.shape} and R of shape {recurrent.shape} must have three axes.")
    x = x.swapaxes(0, 1) if batch_first else x
    count, hidden = len(reverse), int(call.get("hidden_size", recurrent.shape[2]))
    shapes = {"W": (weight, (count, gates * hidden, x.shape[2])), "R": (recurrent, (count, gates * hidden, hidden)),
              "B": (bias, (count, 2 * gates * hidden))}  # fmt: skip
    for name, (array, shape) in shapes.items():
        if array is not None and array.shape != shape:
            raise call.error(f"{name} has the shape {array.shape}; with X of {x.shape} it must be {shape}.")
    steps, batch = x.shape[:2]
    if lengths is not None:
        if lengths.shape != (batch,) or (batch and not 0 <= int(lengths.min()) <= int(lengths.max()) <= steps):
            raise call.error(f"sequence_lens {lengths.tolist()} must be {batch} numbers of at most {steps} steps.")
        lengths = None if np.all(lengths == steps) else lengths.astype(np.int64)
    functions = call.state.get("functions") or activations_of(call, default, count)
    call.state["functions"] = functions
    clip = call.get("clip")
    ordered = [reversed_in_time(x, lengths) if backwards else x for backwards in reverse]
    return Sequences(ordered, weight, recurrent, bias, lengths, reverse, functions, clip or None, batch_first)


def reversed_in_time(x: Array, lengths: Array | None) -> Array:
    """(time, batch, ...) with the first `lengths` steps of every sequence in reverse."""
    if lengths is None:
        return x[::-1]
    steps = np.arange(x.shape[0])[:, None]
    places = np.where(steps < lengths, lengths - 1 - steps, steps)
    return x[places, np.arange(x.shape[1])]


def _summed(call: Call, bias: Array | None, width: int) -> Array | None:
    """The biases of inputs and states together; kept where they are the same in every run."""
    if bias is None:
        return None
    known: Array | None = call.state.get("bias")
    if known is None or not call.is_constant(3):
        known = call.state["bias"] = bias[:, :width] + bias[:, width:]
    return known


def _contributions(call: Call, given: Sequences, bias: Array | None) -> Iterator[tuple[int, Array]]:
    """What the inputs contribute to each step, (directions, batch, gates * hidden): many steps are prepared at once."""
    steps, batch, features = given.x[0].shape
    directions, width = given.weight.shape[:2]
    at_once = max(1, min(steps, BLOCK_BYTES // max(1, directions * batch * width * given.weight.itemsize)))
    constant = call.is_constant(1) and (bias is None or call.is_constant(3))
    products = Products(call, "inputs", given.weight, bias, constant)
    block = call.empty((directions, at_once, batch, width), given.weight.dtype)
    for first in range(0, steps, at_once):
        count = min(at_once, steps - first)
        for direction, x in enumerate(given.x):
            rows = np.ascontiguousarray(x[first : first + count]).reshape(count * batch, features)
            products.into(direction, rows, block[direction, :count].reshape(count * batch, width))
        for step in range(count):
            yield first + step, block[:, step]


def _run(call: Call, given: Sequences, states: list[Array], bias: Array | None, step: Callable[[Array], None]) -> Any:
    """All steps; Y, which collects `states[0]`, and the states after the last step, as the layout has them."""
    steps = len(given.x[0])
    h = states[0]
    wanted = bool(call.node.outputs[0])
    y = call.empty((steps, *h.shape), h.dtype) if wanted else None
    for at, gates in _contributions(call, given, bias):
        before = None if given.lengths is None else [state.copy() for state in states]
        step(gates)
        if before is not None and given.lengths is not None:
            over = (at >= given.lengths)[:, None]
            for state, old in zip(states, before, strict=True):
                np.copyto(state, old, where=over)
        if y is not None:
            y[at] = h
    if y is not None:
        _restore(given, y)
    return _laid_out(call, given, y, *states)


def _laid_out(call: Call, given: Sequences, y: Array | None, *states: Array) -> tuple[Any, ...]:
    """Y and the last states as the layout has them; an empty Y where nobody asks for it."""
    outputs: list[Any] = [y, *states]
    kind = states[0].dtype
    if given.batch_first:
        outputs = [None if y is None else y.transpose(2, 0, 1, 3), *(state.swapaxes(0, 1) for state in states)]
    if y is None:
        outputs[0] = np.empty(0, kind)
    return tuple(outputs[: len(call.node.outputs)])


def _restore(given: Sequences, y: Array) -> None:
    """The steps of the reverse direction where they belong, and zeros behind the end of every sequence."""
    if given.lengths is not None:
        over = np.arange(len(y))[:, None] >= given.lengths
        np.copyto(y, 0, where=over[:, None, :, None])
    for direction, backwards in enumerate(given.reverse):
        if backwards:
            y[:, direction] = reversed_in_time(y[:, direction], given.lengths).copy()


# ---- the operators ---------------------------------------------------------------------------------------------------


@operator("RNN")
def rnn(
    call: Call, x: Array, weight: Array, recurrent: Array, bias: Array | None = None, lengths: Array | None = None,
    initial: Array | None = None,
) -> Any:  # fmt: skip
    """h = f(x W + h R + b)."""
    given = _sequences(call, 1, ("Tanh",), x, weight, recurrent, bias, lengths)
    h = given.state(call, initial, "initial_h")
    products = Products(call, "states", recurrent, None, call.is_constant(2))
    added = np.empty_like(h)
    from_states = [products.bound(direction, h[direction], added[direction]) for direction in range(len(h))]
    parts = list(given.parts())

    def step(gates: Array) -> None:
        for multiply in from_states:
            multiply()
        np.add(added, gates, out=added)
        for part, functions in parts:
            rnn_step(added[part], h[part], functions, given.clip)

    return _run(call, given, [h], _summed(call, bias, given.hidden), step)


@operator("GRU")
def gru(
    call: Call, x: Array, weight: Array, recurrent: Array, bias: Array | None = None, lengths: Array | None = None,
    initial: Array | None = None,
) -> Any:  # fmt: skip
    """Gated recurrent units (Cho et al. 2014); gates in the order update, reset, candidate."""
    given = _sequences(call, 3, ("Sigmoid", "Tanh"), x, weight, recurrent, bias, lengths)
    h, hidden = given.state(call, initial, "initial_h"), given.hidden
    linear = bool(call.get("linear_before_reset", 0))
    own, inner = None, None  # biases of what the inputs contribute, and of what the states do
    if bias is not None:
        own, inner = bias[:, : 3 * hidden].copy(), bias[:, 3 * hidden :].copy()
        kept = 2 * hidden if linear else 3 * hidden  # the candidate's stays apart where the reset gate comes later
        own[:, :kept] += inner[:, :kept]
        inner[:, :kept] = 0
    constant = call.is_constant(2)
    gates_of = Products(call, "gates", recurrent[:, : 2 * hidden], None, constant)
    candidate_of = Products(
        call, "candidate", recurrent[:, 2 * hidden :], inner[:, 2 * hidden :] if linear and inner is not None else None,
        constant and (bias is None or call.is_constant(3)),
    )  # fmt: skip
    gates, candidate = np.empty((*h.shape[:2], 2 * hidden), h.dtype), np.empty_like(h)
    update, reset = gates[..., :hidden], gates[..., hidden:]
    rows = h if linear else np.empty_like(h)
    from_states = [gates_of.bound(at, h[at], gates[at]) for at in range(len(h))]
    to_candidates = [candidate_of.bound(at, rows[at], candidate[at]) for at in range(len(h))]
    parts = list(given.parts())

    def step(contributed: Array) -> None:
        for multiply in from_states:
            multiply()
        np.add(gates, contributed[..., : 2 * hidden], out=gates)
        clipped(gates, given.clip)
        for part, functions in parts:
            functions[0](gates[part])
        if not linear:
            np.multiply(h, reset, out=rows)
        for multiply in to_candidates:
            multiply()
        if linear:
            np.multiply(candidate, reset, out=candidate)
        np.add(candidate, contributed[..., 2 * hidden :], out=candidate)
        for part, functions in parts:
            gru_step(candidate[part], update[part], h[part], functions, given.clip)

    return _run(call, given, [h], own, step)


@operator("LSTM")
def lstm(
    call: Call, x: Array, weight: Array, recurrent: Array, bias: Array | None = None, lengths: Array | None = None,
    initial: Array | None = None, cell: Array | None = None, peepholes: Array | None = None,
) -> Any:  # fmt: skip
    """Long short-term memory (Hochreiter and Schmidhuber 1997); gates in the order input, output, forget, cell."""
    given = _sequences(call, 4, ("Sigmoid", "Tanh", "Tanh"), x, weight, recurrent, bias, lengths)
    if peepholes is not None and peepholes.shape != (len(given.reverse), 3 * given.hidden):
        raise call.error(f"P has the shape {peepholes.shape}; it must be {(len(given.reverse), 3 * given.hidden)}.")
    summed = _summed(call, bias, 4 * given.hidden)
    for state, what in ((initial, "initial_h"), (cell, "initial_c")):
        given.check(call, state, what)
    if (made := native_lstm(call, given, initial, cell, peepholes, summed)) is not None:
        return _laid_out(call, given, *made)
    h, c = given.state(call, initial, "initial_h"), given.state(call, cell, "initial_c")
    hidden, coupled = given.hidden, bool(call.get("input_forget", 0))
    peephole = None if peepholes is None else peepholes[:, None]
    products = Products(call, "states", recurrent, None, call.is_constant(2))
    gates = np.empty((*h.shape[:2], 4 * hidden), h.dtype)
    from_states = [products.bound(direction, h[direction], gates[direction]) for direction in range(len(h))]
    parts = list(given.parts())

    def step(contributed: Array) -> None:
        for multiply in from_states:
            multiply()
        np.add(gates, contributed, out=gates)
        for part, functions in parts:
            looking = None if peephole is None else peephole[part]
            lstm_step(gates[part], looking, c[part], h[part], functions, given.clip, coupled)

    return _run(call, given, [h, c], summed, step)
