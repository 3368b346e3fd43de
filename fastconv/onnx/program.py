"""A graph prepared for inputs of one set of shapes: nodes in order, plans made once, memory used again.

What depends on the shapes of the inputs alone (`Shape` and what is computed from it) is computed in the first run and
kept. Intermediate values live in the buffers of a `Pool` and are released after their last reader.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from .._core.arrays import Array
from .errors import OnnxError
from .graph import Graph, Node
from .joined import Joined
from .memory import Pool
from .operators import Call, find, repeatable
from .operators.registry import Function

SHAPE_OPERATORS = ("Shape", "Size")
# What an operator raises over arrays that do not fit each other or attributes without a meaning.
WRONG = (ValueError, TypeError, IndexError, KeyError, AttributeError, ArithmeticError)


class Step(NamedTuple):
    """A node to run: the function, its call, and the values that die with it."""

    node: Node
    function: Function
    call: Call
    fixed: bool  # its results depend on the shapes of the inputs alone
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


def shape_bound(graph: Graph, known: Iterable[str] = ()) -> set[str]:
    """The values that depend on constants and on the shapes of the inputs alone.

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
    return content


class Program:
    """A graph for one set of input shapes. `run` is not for several threads at once."""

    def __init__(self, graph: Graph, pool: Pool, threads: int | None) -> None:
        self.graph, self.pool = graph, pool
        self.outputs = [value.name for value in graph.outputs]
        self._fixed: dict[str, Array] = dict(graph.constants)
        bound = shape_bound(graph)
        last: dict[str, int] = {name: at for at, node in enumerate(graph.nodes) for name in node.inputs if name}
        for at, node in enumerate(graph.nodes):
            last.update((name, at) for name in node.outputs if name not in last)
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
            ending = set(dying.get(at, ()))
            times = Counter(node.inputs) if ending else {}
            call.dying = tuple(
                index for index, name in enumerate(node.inputs) if name in ending and times[name] == 1
            )  # fmt: skip
            fixed = all(name in bound for name in node.outputs if name)
            self.steps.append(Step(node, found.function, call, fixed, tuple(dying.get(at, ()))))
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._joined = Joined(pool)
        self._started = False

    def run(self, feeds: Mapping[str, Array], seconds: list[float] | None = None) -> dict[str, Array]:
        """The outputs, each in memory of its own; the time of each of `steps` is added to `seconds`."""
        values: dict[str, Any] = {"": None, **self._fixed, **feeds}
        pool = self.pool
        self._joined.begin()
        try:
            for at, step in enumerate(self.steps):
                start = perf_counter() if seconds is not None else 0.0
                results = run_node(step.function, step.call, [values[name] for name in step.node.inputs])
                if any(step.node.outputs[len(results) :]):
                    raise OnnxError(f"the {step.node.label} has more outputs than fastconv computes.")
                for name, value in zip(step.node.outputs, results, strict=False):
                    if not name:
                        continue
                    if step.fixed:
                        value = self._fixed[name] = value.copy() if pool.holds(value) else value
                    else:
                        pool.retain(value)
                    values[name] = value
                    if not self._started and isinstance(value, np.ndarray):
                        self.shapes[name] = value.shape
                pool.settle()
                self._joined.made(step.node)
                for name in step.last:
                    pool.release(values.pop(name))
                if seconds is not None:
                    seconds[at] += perf_counter() - start
            outputs: dict[str, Any] = {}
            given = {id(value) for value in (*self._fixed.values(), *feeds.values())}  # and what was given out
            for name in self.outputs:
                outputs[name] = _own(values[name], given)
                given.add(id(outputs[name]))
        finally:
            pool.finish()
        if not self._started:
            self.steps = [step for step in self.steps if not step.fixed]
            self._joined.plan([(step.node, step.call) for step in self.steps], self.shapes)
            self._started = True
        return outputs


def _own(value: Any, others: set[int]) -> Any:
    """A result as the caller keeps it: contiguous, writeable, in nobody else's memory; `others` by their ids."""
    if not isinstance(value, np.ndarray):  # a sequence that `Identity` passed on
        return [_own(item, others) for item in value] if isinstance(value, list) else value
    if not value.flags.c_contiguous or not value.flags.writeable or value.base is not None:
        return np.array(value, order="C")
    return value.copy() if id(value) in others else value
