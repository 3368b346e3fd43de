"""float16 and bfloat16 are types to store numbers in: everything is computed in float32.

Two rules say so, for all operators at once. `hold_in_float32` lets a graph whose types are known run in float32:
inputs and constants are widened, and what leaves it is rounded, so that a square that float16 cannot say may stand
between two operators, as in ONNX Runtime. `in_float32` wraps what an operator does, for the rest: its arrays are
widened, and what it gives is rounded once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Final

import numpy as np

from .graph import Graph, Node
from .signature import signature

FLOAT: Final = 1  # ONNX's numbers of element types
ABOUT_BITS: Final = ("BitCast", "IsInf")  # what a value is in its own type
HALVES: Final = {"float16": 10, "bfloat16": 16}


def is_half(array: Any) -> bool:
    """Whether these are 16-bit floats; ml_dtypes' bfloat16 is of kind V."""
    return isinstance(array, np.ndarray) and array.dtype.itemsize == 2 and array.dtype.kind in "fV"


# ---- one operator ----------------------------------------------------------------------------------------------------


def in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of an operator over arrays of any type: 16-bit floats are widened first and results rounded once."""

    def run(call: Any, *inputs: Any) -> Any:
        for array in inputs:
            if array is not None and array.dtype.itemsize == 2 and is_half(array):
                return _rounded(function, call, inputs)
        return function(call, *inputs)

    return run


def _rounded(function: Callable[..., Any], call: Any, inputs: tuple[Any, ...]) -> Any:
    wide = [_widened(call, index, array) for index, array in enumerate(inputs)]
    target, call.target = call.target, None  # which is for the rounded result
    try:
        results = function(call, *wide)
    finally:
        call.target = target
    call.native = False  # of what follows
    if not isinstance(results, tuple):
        return _narrowed(call, 0, results, inputs)
    return tuple(_narrowed(call, index, result, inputs) for index, result in enumerate(results))


def _widened(call: Any, index: int, array: Any) -> Any:
    """An input in float32; of one that is the same in every run this is kept."""
    if not is_half(array):
        return array
    if not call.is_constant(index):
        wide = call.like(array, np.float32)
        np.copyto(wide, array, casting="unsafe")
        return wide
    kept = call.state.get(("float32", index))
    if kept is None or kept[0] is not array:
        kept = call.state["float32", index] = (array, array.astype(np.float32))
    return kept[1]


def _narrowed(call: Any, index: int, result: Any, inputs: tuple[Any, ...]) -> Any:
    """A float32 result in the type of the input that the standard gives it the type of."""
    wide = np.asarray(result)
    known = signature(call.node.op_type, call.node.version, call.node.domain)
    source = 0 if known is None else known.result(index)
    given: Any = inputs[source] if source is not None and 0 <= source < len(inputs) else None
    if wide.dtype != np.float32 or not is_half(given):
        return wide
    narrow = call.like(wide, given.dtype)
    np.copyto(narrow, wide, casting="unsafe")
    return narrow


# ---- a whole graph ---------------------------------------------------------------------------------------------------


def hold_in_float32(graph: Graph) -> None:
    """Let 16-bit floats be float32 between the inputs and the outputs of a graph, where all its types are known.

    Conversions to 16 bits that the graph itself asks for still round.
    """
    kinds = half_values(graph)
    if kinds:
        _Widening(graph, kinds).run()


def half_values(graph: Graph) -> dict[str, int]:
    """The element type of every value that is of 16-bit floats; none where a type cannot be told."""
    kinds = {value.name: value.element_type for value in graph.inputs if value.element_type in HALVES.values()}
    kinds.update((name, HALVES[array.dtype.name]) for name, array in graph.constants.items() if is_half(array))
    if any(value.type.startswith("tensor") and not value.element_type for value in graph.inputs):
        return {}
    for node in graph.nodes:
        for index, name in enumerate(node.outputs):
            kind = _result_kind(node, index, kinds)
            if kind is None:
                return {}
            if kind in HALVES.values() and name:
                kinds[name] = kind
    return kinds


def _result_kind(node: Node, index: int, kinds: dict[str, int]) -> int | None:
    """10 or 16 for a 16-bit result, another number for another type, None where it cannot be told."""
    attribute = node.attributes.get
    if node.op_type in ("Cast", "BitCast"):
        to = attribute("to")
        return (HALVES.get(to.lower(), 0) if isinstance(to, str) else to) or 0
    if node.op_type in ("Constant", "ConstantOfShape"):
        value: Any = attribute("value")
        return HALVES[value.dtype.name] if is_half(value) else 0
    if node.op_type == "EyeLike":
        return attribute("dtype") or kinds.get(node.input(0), 0)
    if node.op_type == "DequantizeLinear":
        return attribute("output_dtype") or kinds.get(node.input(1), 0)
    if node.op_type == "LayerNormalization" and index:
        return attribute("stash_type") or FLOAT
    if any(node.bodies()):
        return None
    known = signature(node.op_type, node.version, node.domain)
    source = None if known is None else known.result(index)
    return None if source is None else kinds.get(node.input(source), 0) if source >= 0 else 0


class _Widening:
    """A graph whose 16-bit values become float32, under their names but for those of inputs and outputs."""

    def __init__(self, graph: Graph, kinds: dict[str, int]) -> None:
        self.graph, self.kinds = graph, kinds
        self.taken = {*graph.constants, *(value.name for value in graph.inputs)}
        self.taken.update(name for node in graph.nodes for name in node.outputs)
        self.numbers = count(1)
        self.called: dict[str, str] = {}  # the float32 beside an input or an output

    def run(self) -> None:
        """Rewrite the graph."""
        graph = self.graph
        given = [value.name for value in graph.inputs if value.name in self.kinds]
        asked = dict.fromkeys(value.name for value in graph.outputs if value.name in self.kinds)
        computed = [name for name in asked if name not in given and name not in graph.constants]
        self.called = {name: self._name(name) for name in dict.fromkeys((*given, *asked))}
        for name in [name for name in graph.constants if name in self.kinds]:
            graph.constants[self.called.get(name, name)] = graph.constants[name].astype(np.float32)
        nodes = [_cast(name, self.called[name], FLOAT) for name in given]
        for node in graph.nodes:
            nodes += self._widened(node)
        graph.nodes = nodes + [_cast(self.called[name], name, self.kinds[name]) for name in computed]

    def _name(self, like: str) -> str:
        name = f"{like}.float32"
        while name in self.taken:
            name = f"{like}.float32.{next(self.numbers)}"
        self.taken.add(name)
        return name

    def _widened(self, node: Node) -> Iterator[Node]:
        """The node over float32, between conversions where it is about types or bits."""
        halves = [self.kinds.get(name) for name in node.outputs]
        before = [self.kinds.get(name) for name in node.inputs]
        node.inputs = [self.called.get(name, name) for name in node.inputs]
        node.outputs = [self.called.get(name, name) if half else name
                        for name, half in zip(node.outputs, halves, strict=True)]  # fmt: skip
        if node.op_type in ABOUT_BITS and before[0]:
            bits = self._name(node.inputs[0])
            yield _cast(node.inputs[0], bits, before[0])
            node.inputs = [bits]
        elif node.op_type in ("Cast", "CastLike") and before[0] and (halves[0] == before[0] or _to_float32(node)):
            node.op_type, node.version, node.attributes, node.inputs = "Identity", 13, {}, node.inputs[:1]
        elif node.op_type == "CastLike" and halves[0]:
            node.op_type, node.version, node.attributes, node.inputs = "Cast", 13, {"to": halves[0]}, node.inputs[:1]
        if node.op_type in ("Cast", "BitCast") and halves[0]:
            (made,), node.outputs = node.outputs, [self._name(node.outputs[0])]
            yield node
            yield _cast(node.outputs[0], made, FLOAT)
            return
        if any(halves):
            for name in ("dtype", "output_dtype", "stash_type"):
                if node.attributes.get(name) in HALVES.values():
                    node.attributes[name] = FLOAT
            if is_half(node.attributes.get("value")):
                node.attributes["value"] = node.attributes["value"].astype(np.float32)
        yield node


def _to_float32(node: Node) -> bool:
    return node.attributes.get("to") in (FLOAT, "FLOAT")


def _cast(source: str, target: str, kind: int) -> Node:
    return Node("Cast", [source], [target], {"to": kind}, 13)
