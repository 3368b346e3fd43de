"""How the layers of a net are wired, and how values and gradients go through it.

Values are numbered: the inputs first, then what every call makes, in an order in which the calls can run. A
`Sequential` is a wire from layer to layer. A layer that is called several times, by itself or inside others, has room
for each call (`Layer.twin`), and the gradients of its weights are added in the reverse order of the calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._core.words import Shape
from ..errors import ConvError, ConvTypeError
from ..layers import memory
from ..layers.base import Array, Layer, Parameter, Sample, locating, said_anew
from ..layers.symbolic import Node, Symbolic


@dataclass(frozen=True, slots=True)
class Call:
    """A layer, the values that it takes and those that it makes.

    `several` says whether it takes a list; `training` is False where it never trains, `logits` whether its last softmax
    is left to the loss.
    """

    layer: Layer
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    several: bool = False
    training: bool | None = None
    logits: bool = False

    def taken(self, values: Any) -> Any:
        """What the layer takes of values by number."""
        return [values[number] for number in self.inputs] if self.several else values[self.inputs[0]]

    def made(self, result: Any) -> Iterator[tuple[int, Any]]:
        """(number, value) of what the layer returned."""
        results = result if isinstance(result, (list, tuple)) else [result]
        if len(results) != len(self.outputs):
            raise ConvError(f"{self.layer.name}: forward made {len(results)} results, not {len(self.outputs)}.")
        return zip(self.outputs, results, strict=True)


class Wiring:
    """Calls in an order in which they can run, from the first `inputs` values to those of `outputs`."""

    def __init__(self, calls: Sequence[Call], inputs: int, outputs: Sequence[int]) -> None:
        self.calls, self.inputs, self.outputs = list(calls), inputs, tuple(outputs)
        counts = Counter(id(layer) for call in calls for layer in {id(x): x for x in _deep(call.layer)}.values())
        self.shared = frozenset(
            at for at, call in enumerate(calls) if any(counts[id(layer)] > 1 for layer in _deep(call.layer))
        )
        last = {number: at for at, call in enumerate(calls) for number in call.inputs}
        last.update((number, at) for at, call in enumerate(calls) for number in call.outputs if number not in last)
        self.ending: list[list[int]] = [[] for _ in calls]  # values that nobody reads behind a call
        for number, at in last.items():
            if number not in self.outputs:
                self.ending[at].append(number)

    @property
    def layers(self) -> list[Layer]:
        """Every layer once, in the order of the calls."""
        return list({id(call.layer): call.layer for call in self.calls}.values())

    def uses(self) -> Counter[int]:
        """How often each value is read; being an output counts as once."""
        return Counter([number for call in self.calls for number in call.inputs] + list(self.outputs))

    def maker(self, value: int) -> Call | None:
        """The call that makes a value; None of an input."""
        return next((call for call in self.calls if value in call.outputs), None)

    def twin(self, made: dict[int, Layer]) -> Wiring:
        """The same with twins of its layers."""
        return Wiring([replace(call, layer=call.layer.twin(made)) for call in self.calls], self.inputs, self.outputs)

    def walk(self, samples: Sequence[Sequence[int | None]]) -> Iterator[tuple[Call, Any, Any]]:
        """(call, shape or list of shapes that it takes, list of those that it makes), of samples."""
        shapes: dict[int, Any] = {number: Sample(sample) for number, sample in enumerate(samples)}
        for call in self.calls:
            before = call.taken(shapes)
            with locating(call.layer):
                after = call.layer.output_shape(before)
            made = after if isinstance(after, list) else [after]
            shapes.update(zip(call.outputs, made, strict=True))
            yield call, before, made

    def ends(self, samples: Sequence[Sequence[int | None]]) -> list[Any]:
        """The shapes of the outputs, of samples."""
        shapes: dict[int, Any] = {number: Sample(sample) for number, sample in enumerate(samples)}
        for call, _, after in self.walk(samples):
            shapes.update(zip(call.outputs, after, strict=True))
        return [shapes[number] for number in self.outputs]


def _deep(layer: Layer) -> Iterator[Layer]:
    yield layer
    for inner in layer.sublayers():
        yield from _deep(inner)


def chained(layers: Sequence[Layer]) -> Wiring:
    """Layers one after another."""
    return Wiring([Call(layer, (at,), (at + 1,)) for at, layer in enumerate(layers)], 1, (len(layers),))


# ---- from symbolic tensors ------------------------------------------------------------------------------------------


def wired(inputs: Sequence[Symbolic], outputs: Sequence[Symbolic], name: str) -> Wiring:
    """The calls between symbolic tensors; those that `outputs` do not need are left out."""
    numbers = {id(tensor): number for number, tensor in enumerate(inputs)}
    if len(numbers) < len(inputs):
        raise ConvError(f"{name}: inputs hold the same tensor twice; make an Input for each.")
    nodes = _between(numbers, inputs, outputs, name)
    calls = []
    for node in nodes:
        assert node.layer is not None
        taken = tuple(numbers[id(tensor)] for tensor in node.inputs)
        for tensor in node.outputs:
            numbers.setdefault(id(tensor), len(numbers))
        made = tuple(numbers[id(tensor)] for tensor in node.outputs)
        calls.append(Call(node.layer, taken, made, node.several, node.training))
    return Wiring(calls, len(inputs), [numbers[id(tensor)] for tensor in outputs])


def _between(
    known: dict[int, int], inputs: Sequence[Symbolic], outputs: Sequence[Symbolic], name: str
) -> list[Node]:
    """The nodes that outputs need, up to the inputs, in the order in which they were made."""
    found: dict[int, Node] = {}
    reached: set[int] = set()
    waiting = list(outputs)
    while waiting:
        tensor = waiting.pop()
        if id(tensor) in known:
            reached.add(id(tensor))
            continue
        node = tensor.node
        if node.layer is None:
            raise ConvError(
                f"{name}: the graph is disconnected: an output needs {tensor!r}, which is not among the inputs; add "
                "it to them."
            )
        if node.number not in found:
            found[node.number] = node
            waiting += node.inputs
    for tensor in inputs:
        if id(tensor) not in reached:
            raise ConvError(
                f"{name}: the graph is disconnected: no output needs the input {tensor!r}; leave it out, or use it."
            )
    return [found[number] for number in sorted(found)]


def tensors_of(name: str, given: object) -> list[Symbolic]:
    """Inputs or outputs of a model as a list of symbolic tensors."""
    listed: list[Any] = list(given) if isinstance(given, (list, tuple)) else [given]
    for value in listed:
        if not isinstance(value, Symbolic):
            raise ConvTypeError(
                f"{name} must be a symbolic tensor, as fastconv.Input and layers called on one return it, or a list of "
                f"them, but got {value!r} of type {type(value).__name__}."
            )
    if not listed:
        raise ConvError(f"{name} must hold at least one symbolic tensor, but got an empty list.")
    return listed


# ---- values and gradients -------------------------------------------------------------------------------------------


class Tape:
    """What ran: the wiring, the layer (or its twin) of every call, the shape of every value; and, once `back` has run,
    the parameters that a gradient reached, by their identity."""

    def __init__(self, wiring: Wiring) -> None:
        self.wiring = wiring
        self.layers: list[Layer] = []
        self.shapes: dict[int, tuple[Shape, Any]] = {}
        self.reached: dict[int, Parameter] = {}

    def zeros(self, number: int) -> Array:
        """The gradient of a value that nothing depends on."""
        return np.zeros(*self.shapes[number])

    def release(self) -> None:
        """Forget what the calls kept."""
        for layer in self.layers:
            layer.release()


def run(wiring: Wiring, arrays: Sequence[Array], training: bool) -> tuple[list[Array], Tape]:
    """The outputs for these inputs, and what `back` needs."""
    values: dict[int, Array] = dict(enumerate(arrays))
    tape = Tape(wiring)
    tape.shapes = {number: (array.shape, array.dtype) for number, array in values.items()}
    for at, call in enumerate(wiring.calls):
        layer: Any = call.layer.twin({}) if at in wiring.shared else call.layer
        tape.layers.append(layer)
        with locating(layer):
            result = _forward(layer, call, call.taken(values), training and call.training is not False)
        for number, value in call.made(result):
            values[number] = value
            tape.shapes[number] = value.shape, value.dtype
        for number in wiring.ending[at]:
            del values[number]
    return [values[number] for number in wiring.outputs], tape


def _forward(layer: Any, call: Call, taken: Any, training: bool) -> Any:
    if not call.logits:
        return layer.forward(taken, training)
    return layer.forward_logits(taken, training) if layer.is_net else layer.forward_logits(taken)


def back(tape: Tape, grads: Sequence[Array | None], wanted: bool) -> list[Array | None]:
    """The gradients of the inputs, or, where they are not `wanted`, those of the weights alone.

    None is the gradient of what the outputs with one do not depend on; parameters there keep the gradient of an earlier
    step, and are not in `tape.reached`. A gradient gives its memory back when nobody needs it any more; one that
    several layers get stays as it is.
    """
    wiring, lent = tape.wiring, [grad for grad in grads if grad is not None]
    live: dict[int, Array] = {}
    for number, grad in zip(wiring.outputs, grads, strict=True):
        if grad is not None:
            live[number] = np.add(live[number], grad) if number in live else grad
    needed = _needed(wiring, wanted)
    tape.reached = {}
    for at in reversed(range(len(wiring.calls))):
        call, layer = wiring.calls[at], tape.layers[at]
        asked = [needed[number] for number in call.inputs]
        given = [live.pop(number, None) for number in call.outputs]
        if all(grad is None for grad in given) or not needed[call.outputs[0]]:
            continue
        with locating(layer), _adding(layer, tape.reached, at in wiring.shared):
            results = _backward(layer, tape, call, given, any(asked))
        spent = [grad for grad in given if grad is not None]
        if any(asked):
            spent += _spread(call, results, asked, live)
        for grad in {id(grad): grad for grad in spent}.values():
            if not _aliased(grad, [*live.values(), *lent]):
                memory.give_back(grad)
    if not wanted:
        return []
    return [live.get(number) for number in range(wiring.inputs)]


def _backward(layer: Any, tape: Tape, call: Call, grads: list[Array | None], wanted: bool) -> Sequence[Array | None]:
    """The gradients of a layer's inputs; none where nobody wants them."""
    if layer.is_net and not said_anew(layer, "backward", "_back"):
        made: list[Array | None] = layer._back(grads, wanted)
        return made
    filled = [tape.zeros(n) if grad is None else grad for n, grad in zip(call.outputs, grads, strict=True)]
    grad: Any = filled if len(filled) > 1 else filled[0]
    if not wanted and not said_anew(layer, "backward", "backward_weights"):
        layer.backward_weights(grad)
        return []
    found: Any = layer.backward(grad)
    return found if isinstance(found, list) else [found]


def _needed(wiring: Wiring, wanted: bool) -> dict[int, bool]:
    """For each value whether its gradient is needed: for the inputs, or for weights before it."""
    needed = dict.fromkeys(range(wiring.inputs), wanted)
    for call in wiring.calls:
        own = any(needed[number] for number in call.inputs) or wanted or bool(call.layer.trained_parameters())
        needed.update(dict.fromkeys(call.outputs, own))
    return needed


def _spread(call: Call, results: Sequence[Array | None], asked: Sequence[bool], live: dict[int, Array]) -> list[Array]:
    """Add what a layer gave for its inputs to what is known of them; what went into sums is returned."""
    spent: list[Array] = []
    for number, result, ask in zip(call.inputs, results, asked, strict=True):
        if result is None:
            continue
        if len(results) > 1:
            memory.share(result)  # it may be one for several inputs
        before = live.get(number)
        if not ask:
            spent.append(result)
        elif before is None:
            live[number] = result
        else:
            live[number] = _sum(before, result)
            spent += [before, result]
    return spent


def _sum(one: Array, other: Array) -> Array:
    """Two gradients of a value, in the memory of the first if that is a step's own."""
    made = one if memory.may_overwrite(one) else memory.empty(one.shape, one.dtype)
    np.add(one, other, out=made)
    return made


def _aliased(grad: Array, others: Iterable[Array]) -> bool:
    return any(np.may_share_memory(grad, other) for other in others)


class _adding:
    """Within this block a layer's `backward` adds to the gradients of weights that a later call has `reached`; behind
    it those that this one reaches are among them."""

    def __init__(self, layer: Any, reached: dict[int, Parameter], shared: bool) -> None:
        self.layer, self.reached, self.shared = layer, reached, shared
        self.before: list[tuple[Parameter, Array | None]] = []

    def __enter__(self) -> None:
        if self.shared:
            self.before = [(p, p.grad) for p in self.layer.parameters() if id(p) in self.reached]
        for parameter, _ in self.before:
            parameter.grad = None

    def __exit__(self, kind: object, *_: object) -> None:
        for parameter, grad in self.before:
            if grad is not None:
                parameter.grad = grad if parameter.grad is None else np.add(grad, parameter.grad)
        if kind is None:
            own = self.layer._reached if self.layer.is_net else {id(p): p for p in self.layer.parameters()}
            self.reached.update(own)
