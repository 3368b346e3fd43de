"""A graph prepared for inputs of one set of shapes: nodes in order, plans made once, memory used again.

What depends on the shapes of the inputs alone (`Shape` and what is computed from it) is computed in the first run and
kept. Intermediate values live in the buffers of a `Pool` and are released after their last reader. The second run is
recorded, and the following ones are its `Replay`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from .. import _native
from .._core.arrays import Array
from .._core.forks import Guard
from .._core.operands import Slab, held_in
from .._core.threads import effective
from .errors import OnnxError
from .graph import Graph, Node
from .joined import Joined
from .memory import Pool, contiguous
from .operators import Call, find, repeatable
from .operators.registry import Function
from .replay import LOOSE, NATIVE, Record, Replay, kind_of

SHAPE_OPERATORS = ("Shape", "Size")
TURNING = ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity")
ATTEMPTS = 3  # recorded runs of which one must keep its buffers
# What an operator raises over arrays that do not fit each other or attributes without a meaning.
WRONG = (ValueError, TypeError, IndexError, KeyError, AttributeError, ArithmeticError)


class Recorder:
    """Whose works are recorded: those of one thread at a time."""

    def __init__(self) -> None:
        self.guard = Guard(self.drop)

    def drop(self) -> None:
        """Record no more."""
        _native.record(None)


_recorder = Recorder()


class Step(NamedTuple):
    """A node to run: the function, its call, and the values that die with it."""

    node: Node
    function: Function
    call: Call
    fixed: bool  # its results depend on the shapes of the inputs alone
    loose: bool  # even the shapes of its results depend on the content of values
    last: tuple[str, ...]  # values read here for the last time


def run_node(function: Function, call: Call, inputs: list[Any]) -> tuple[Any, ...]:
    """The results of one node; whatever goes wrong names it."""
    call.begin(inputs)
    try:
        result = function(call, *inputs)
    except OnnxError:
        raise
    except WRONG as error:
        shapes = ", ".join(f"{x.dtype} {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__ for x in inputs)
        text = str(error).rstrip(".") or type(error).__name__
        raise OnnxError(f"the {call.node.label} cannot run on ({shapes}): {text}.") from error
    finally:
        call.end()
    if isinstance(result, np.ndarray):
        return (result,)
    results = result if isinstance(result, tuple) else (result,)
    return tuple(x if x is None or isinstance(x, (np.ndarray, list)) else np.asarray(x) for x in results)


def shape_bound(graph: Graph, known: Iterable[str] = ()) -> tuple[set[str], set[str]]:
    """The values that depend on constants and on the shapes of the inputs alone, and those whose shapes do.

    A value's own shape is known from those of the inputs unless its maker's shape depends on the content of a value
    that is not.
    """
    content = {*graph.constants, *known}
    shaped = {*content, *(value.name for value in graph.inputs)}
    for node in graph.nodes:
        found = find(node.domain, node.op_type, node.version)
        if found is None or not repeatable(node):
            continue
        inputs = [name for name in node.inputs if name]
        if all(name in content for name in inputs):
            content.update(node.outputs)
            shaped.update(node.outputs)
        elif all(name in shaped for name in inputs):
            if node.op_type in SHAPE_OPERATORS:
                content.update(node.outputs)
            if all(name in content for name in found.shaped_by(node)):
                shaped.update(node.outputs)
    return content, shaped


def depth_first(first: Node, second: Node) -> bool:
    """Whether a recorded run may do two steps in bands of rows, as `_native.pair` does where it pays: a pointwise
    convolution and the depthwise one that reads it."""
    if first.op_type != "Conv" or second.op_type != "Conv" or first.outputs != second.inputs[:1]:
        return False
    kernel = first.attributes.get("kernel_shape") or [0]
    return bool(max(kernel) == 1 and second.attributes.get("group", 1) > 1)


States = dict[int, dict[Any, Any]]


class Program:
    """A graph for one set of input shapes. `run` is not for several threads at once."""

    def __init__(
        self, graph: Graph, pool: Pool, threads: int | None, states: States | None = None,
        inner: frozenset[str] = frozenset(),
    ) -> None:  # fmt: skip
        """`states`, by node, are shared by programs for the same samples: weights are packed for them once.

        `inner` are outputs that other parts of a graph alone read: they lie as they were made, the others in the order
        of their axes.
        """
        self.graph, self.pool, self._threads, self._inner = graph, pool, threads, inner
        self.outputs = [value.name for value in graph.outputs]
        self._fixed: dict[str, Array] = dict(graph.constants)
        bound, shaped = shape_bound(graph)
        last: dict[str, int] = {name: at for at, node in enumerate(graph.nodes) for name in node.inputs if name}
        for at, node in enumerate(graph.nodes):
            last.update((name, at) for name in node.outputs if name not in last)
        for at, node in enumerate(graph.nodes[1:], start=1):
            if depth_first(graph.nodes[at - 1], node):  # then both are done at once
                read = graph.nodes[at - 1].inputs[0]
                last[read] = max(last[read], at)
        kept = {*graph.constants, *self.outputs, *bound}
        dying: dict[int, list[str]] = {}
        for name, at in last.items():
            if name and name not in kept:
                dying.setdefault(at, []).append(name)
        self.steps = []
        for at, node in enumerate(graph.nodes):
            found = find(node.domain, node.op_type, node.version)
            assert found is not None  # `load` has refused what there is not
            call = Call(node, pool, threads, bound)
            if states is not None:
                call.state = states.setdefault(id(node), call.state)
            ending = set(dying.get(at, ()))
            times = Counter(node.inputs) if ending else {}
            call.dying = tuple(
                index for index, name in enumerate(node.inputs) if name in ending and times[name] == 1
            )  # fmt: skip
            fixed = all(name in bound for name in node.outputs if name)
            loose = any(name not in shaped for name in node.outputs if name)
            self.steps.append(Step(node, found.function, call, fixed, loose, tuple(dying.get(at, ()))))
        # Outputs, and what some of them only turn or reshape: nothing else lies where they do.
        makers = graph.producers()
        turned = [makers[name] for name in self.outputs if name in makers and makers[name].op_type in TURNING]
        self._given_out = frozenset((*self.outputs, *(node.inputs[0] for node in turned)))
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.nbytes: dict[str, int] = {}  # of every value, inputs included
        self.used: dict[int, int] = {}  # bytes of buffers while a node ran, by its id
        self._joined = Joined(pool)
        self._slab = Slab()  # of packed weights
        self._started = False
        self.replay: Replay | None = None
        self._attempts, self._pause = ATTEMPTS, _native.Pause()

    def at_once(self) -> list[list[int]]:
        """The numbers of `steps`, those that one work does together, as a recorded run has them."""
        joined = [record.joined for record in self.replay.records] if self.replay else [False] * len(self.steps)
        found: list[list[int]] = []
        for number, before in enumerate([False, *joined[:-1]] if joined else []):
            if before:
                found[-1].append(number)
            else:
                found.append([number])
        return found

    def run(
        self, feeds: Mapping[str, Array], seconds: list[float] | None = None, into: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        """The outputs, each in memory of its own or in the array `into`; the time of each of `steps` is added to
        `seconds`."""
        if self.replay is not None:
            return self._handed_out(self.replay.run(feeds, seconds, into), feeds, into)
        lock = _recorder.guard.lock
        if self._started and self._attempts and seconds is None and lock.acquire(blocking=False):
            try:
                if self._pause.over():
                    return self._recorded(feeds, into)
            finally:
                _recorder.drop()
                lock.release()
        with held_in(self._slab):
            found = self._walk(feeds, seconds)
        outputs = self._handed_out(found, feeds, into)
        if not self._started:
            self.steps = [step for step in self.steps if not step.fixed]
            self._joined.plan([(step.node, step.call) for step in self.steps], self.shapes)
            self._started = True
        return outputs

    def _recorded(self, feeds: Mapping[str, Array], into: Mapping[str, Array] | None) -> dict[str, Array]:
        """A run on copies of the inputs, recorded if its values are finite and its buffers are kept."""
        own = {name: x.copy("K") if isinstance(x, np.ndarray) else x for name, x in feeds.items()}
        records: list[Record] = []
        found = self._walk(own, None, records)
        outputs = self._handed_out(found, {**own, **found}, into)  # copies: what was found stays at home
        if len(records) < len(self.steps):
            self._pause.stopped()
        elif self.pool.kept:
            self.replay = Replay(self._again, records, own, self._fixed, self.outputs, self.pool, self._threads)
        else:
            self._attempts -= 1
        return outputs

    @staticmethod
    def _again(step: Step, inputs: list[Any]) -> tuple[Any, ...]:
        return run_node(step.function, step.call, inputs)

    def _walk(
        self, feeds: Mapping[str, Array], seconds: list[float] | None, records: list[Record] | None = None
    ) -> dict[str, Any]:
        """All values that the outputs are, step by step; what each step did goes to `records`."""
        values: dict[str, Any] = {"": None, **self._fixed, **feeds}
        loose: set[str] = set()
        pool = self.pool
        looking = records is not None or not self._started
        if not self._started:
            self.nbytes.update((name, x.nbytes) for name, x in values.items() if isinstance(x, np.ndarray))
        self._joined.begin()
        try:
            for at, step in enumerate(self.steps):
                start = perf_counter() if seconds is not None else 0.0
                inputs = [values[name] for name in step.node.inputs]
                works: list[Any] = []
                if records is not None:
                    pool.anew = not self._given_out.isdisjoint(step.node.outputs)
                    _native.record(works)
                results = run_node(step.function, step.call, inputs)
                if any(step.node.outputs[len(results) :]):
                    raise OnnxError(f"the {step.node.label} has more outputs than fastconv computes.")
                if records is not None:
                    _native.record(None)
                    pool.anew = False
                    freely = step.loose or not loose.isdisjoint(step.node.inputs)
                    kind = kind_of(step, works, inputs, results, freely)
                    if kind == LOOSE:
                        loose.update(step.node.outputs)
                    if kind is not None:
                        records.append(_record(step, kind, works, results, pool))
                self._keep(step, results, values)
                self._joined.made(step.node)
                if looking:
                    self.used[id(step.node)] = pool.used_bytes
                for name in step.last:
                    pool.release(values.pop(name))
                if seconds is not None:
                    seconds[at] += perf_counter() - start
            return {name: values[name] for name in self.outputs}
        finally:
            pool.finish()

    def _keep(self, step: Step, results: tuple[Any, ...], values: dict[str, Any]) -> None:
        """What a step has made, by name."""
        pool = self.pool
        for name, value in zip(step.node.outputs, results, strict=False):
            if not name:
                continue
            if step.fixed:
                value = self._fixed[name] = value.copy() if pool.holds(value) else value
            else:
                pool.retain(value)
            values[name] = value
            if not self._started and isinstance(value, np.ndarray):
                self.shapes[name], self.nbytes[name] = value.shape, value.nbytes
        pool.settle()

    def _handed_out(
        self, found: Mapping[str, Any], feeds: Mapping[str, Array], into: Mapping[str, Array] | None
    ) -> dict[str, Array]:
        """The outputs as the caller keeps them."""
        outputs: dict[str, Any] = {}
        if into is not None:
            for name in self.outputs:
                if found[name] is not into[name]:
                    np.copyto(into[name], found[name])
            return dict(into)
        given = {id(value) for value in (*self._fixed.values(), *feeds.values())}  # and what was handed out
        for name in self.outputs:
            value = found[name]
            if name in self._inner and isinstance(value, np.ndarray):  # it lies as it was made, in every run
                own = value.base is None and value.flags.writeable and id(value) not in given
                outputs[name] = value if own else value.copy(order="K")
            else:
                outputs[name] = _own(value, given, effective(self._threads))
            given.add(id(outputs[name]))
        return outputs


def _record(step: Step, kind: str, works: list[Any], results: tuple[Any, ...], pool: Pool) -> Record:
    own = kind == NATIVE and len(results) == 1 and pool.lies_anew(results[0])
    return Record(step, kind, tuple(works) if kind == NATIVE else (), results, own)


def _own(value: Any, others: set[int], threads: int) -> Any:
    """A result as the caller keeps it: contiguous, writeable, in nobody else's memory; `others` by their ids."""
    if not isinstance(value, np.ndarray):  # a sequence that `Identity` passed on
        return [_own(item, others, threads) for item in value] if isinstance(value, list) else value
    if not value.flags.c_contiguous or not value.flags.writeable or value.base is not None:
        return contiguous(value, threads)
    return value.copy() if id(value) in others else value
