"""Graphs of PyTorch's operators as graphs of ours: the nodes of an `fx.Graph`, one after the other, and its values.

What a node becomes is written in `images`, `moves` and `elementwise`, a function an operator; each gets the arguments
by the names of the operator's schema. A node that cannot be expressed raises `Refused`, which says why.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import fx

from ..._core.arrays import Array
from ...graph.graph import Graph, Node, ValueInfo
from ...graph.operators import INTERNAL, find
from ..ops import ARRAY_DTYPES

OPSET: Final = 22
ONNX_TYPES: Final[dict[Any, int]] = {
    torch.float32: 1, torch.uint8: 2, torch.int8: 3, torch.int16: 5, torch.int32: 6, torch.int64: 7, torch.bool: 9,
    torch.float64: 11,
}  # fmt: skip


class Refused(Exception):
    """Why a node is left to PyTorch."""


def array_type(kind: Any) -> np.dtype[Any]:
    """NumPy's type for PyTorch's, if programs take it: no halves, which others compute better, and no complex ones."""
    if kind not in ARRAY_DTYPES:
        raise Refused(f"a value of {kind}")
    return ARRAY_DTYPES[kind]


class Arguments:
    """The arguments of a node, by the names of the schema; what was left out has its default."""

    def __init__(self, node: fx.Node) -> None:
        given = iter(node.args)
        for argument in node.target._schema.arguments:
            name, rest = argument.name, object()
            value = node.kwargs.get(name, argument.default_value) if argument.kwarg_only else next(given, rest)
            setattr(self, name, node.kwargs.get(name, argument.default_value) if value is rest else value)


Converter = Callable[["Tracer", fx.Node, Any], "str | list[str]"]
CONVERTERS: Final[dict[str, Converter]] = {}


def converts(*names: str) -> Callable[[Converter], Converter]:
    """Register how these operators, named as `aten::relu` or, of `aten`, `relu`, become ours."""

    def register(converter: Converter) -> Converter:
        CONVERTERS.update((name if "::" in name else f"aten::{name}", converter) for name in names)
        return converter

    return register


def whole(value: Any) -> int:
    """A length: fixed, or as it is in this run."""
    if isinstance(value, fx.Node):
        value = value.meta["val"]
    if isinstance(value, torch.SymInt):
        raise Refused("a length that is not known yet")
    return int(value)


class Tracer:
    """The graph of a module whose nodes know their shapes (`meta["val"]`); inputs that are `known` are constants."""

    def __init__(self, module: fx.GraphModule, known: Mapping[str, Array]) -> None:
        self.module, self.known = module, known
        self.constants: dict[str, Array] = {}
        self.nodes: list[Node] = []
        self.names: dict[fx.Node, Any] = {}
        self._evaluated: dict[fx.Node, Any] = {}

    # ---- what converters ask ---------------------------------------------------------------------------------------

    def shape(self, node: Any) -> tuple[int, ...]:
        """The shape of a value."""
        return tuple(map(whole, self.fake(node).shape))

    def fake(self, node: Any) -> Any:
        """A tensor of a value's shape and type, without memory."""
        found = node.meta.get("val") if isinstance(node, fx.Node) else None
        if not isinstance(found, torch.Tensor):
            raise Refused("an argument that is no tensor")
        return found

    def name(self, node: Any, kind: Any = None) -> str:
        """A value by name, of another type if need be; of a number, a constant."""
        if not isinstance(node, fx.Node):
            if kind is None:
                raise Refused(f"an argument {node!r}, where there should be a tensor")
            return self.constant(np.asarray(node, array_type(kind)))
        found = self.names[node]
        if not isinstance(found, str):
            raise Refused("several values at once")
        own = self.fake(node).dtype
        if kind is None or own is kind:
            return found
        array_type(kind)
        return str(self.add("Cast", [found], to=ONNX_TYPES[kind]))

    def constant(self, array: Any) -> str:
        """An array in the graph."""
        name = f"constant.{len(self.constants)}"
        self.constants[name] = np.asarray(array)
        return name

    def integers(self, values: Sequence[Any]) -> str:
        """Lengths or axes in the graph."""
        return self.constant(np.array([whole(value) for value in values], np.int64))

    def add(self, op_type: str, inputs: Sequence[str], outputs: int = 0, domain: str = "", **attributes: Any) -> Any:
        """A node, and the name of its result; the names of several where `outputs` says how many."""
        version = 1 if domain == INTERNAL else OPSET
        if find(domain, op_type, version) is None:
            raise Refused(f"fastconv has no {op_type}")
        made = [f"{op_type}.{len(self.nodes)}.{at}" for at in range(outputs or 1)]
        self.nodes.append(Node(op_type, list(inputs), list(made), attributes, version, domain))
        return made if outputs else made[0]

    # ---- nodes -----------------------------------------------------------------------------------------------------

    def visit(self, node: fx.Node) -> None:
        """Express a node, or refuse it."""
        if node.op == "placeholder":
            self._placeholder(node)
        elif node.op == "get_attr":
            value = getattr(self.module, str(node.target), None)
            if not isinstance(value, torch.Tensor):
                raise Refused("a graph inside the graph")
            self._evaluate(node, value)
        elif node.op == "output" or not isinstance(node.meta.get("val"), (torch.Tensor, tuple, list)):
            return  # lengths: `whole` knows them
        elif node.target is operator.getitem:
            self.names[node] = self._item(node)
        else:
            self._operator(node)
        self._own_types(node)

    def _placeholder(self, node: fx.Node) -> None:
        self.names[node] = node.name
        if node.name in self.known:
            self.constants[node.name] = self.known[node.name]

    def _item(self, node: fx.Node) -> str:
        several, index = node.args
        items = self.names[several]
        if not isinstance(items, list) or not isinstance(index, int) or not -len(items) <= index < len(items):
            raise Refused("a result that fastconv does not compute")
        return str(items[index])

    def _operator(self, node: fx.Node) -> None:
        target: Any = node.target
        packet = getattr(target, "overloadpacket", None)
        if packet is None:
            raise Refused("no operator of PyTorch's library")
        inputs = node.all_input_nodes
        if all(one in self._evaluated for one in inputs) and torch.Tag.nondeterministic_seeded not in target.tags:
            with torch.no_grad():
                args, kwargs = fx.map_arg((node.args, node.kwargs), lambda one: self._evaluated[one])
                self._evaluate(node, target(*args, **kwargs))
            return
        for one in inputs:
            found = one.meta.get("val")
            if isinstance(found, torch.Tensor):
                if one not in self.names:
                    raise Refused("it reads what fastconv does not compute")
                self._types(found)
        converter = CONVERTERS.get(packet._qualified_op_name)
        if converter is None:
            raise Refused("an operator that fastconv does not have")
        self.names[node] = converter(self, node, Arguments(node))

    def _evaluate(self, node: fx.Node, value: Any) -> None:
        """A value that is the same in every run."""
        if not isinstance(value, torch.Tensor):
            raise Refused("a result that is no tensor")
        self._types(value)
        self._evaluated[node] = value
        self.names[node] = self.constant(value.detach().numpy().copy())

    def _own_types(self, node: fx.Node) -> None:
        """Refuse what is not computed in the memory of this machine, or in types that are not taken."""
        found = node.meta.get("val")
        if isinstance(found, torch.Tensor):
            self._types(found)
        elif isinstance(self.names.get(node), list):
            for value in list(found or ())[: len(self.names[node])]:
                self._types(value)

    @staticmethod
    def _types(value: Any) -> None:
        array_type(getattr(value, "dtype", type(value).__name__))
        if value.device.type != "cpu" or value.layout is not torch.strided:
            raise Refused(f"a value on {value.device} that lies {value.layout}")


def survey(module: fx.GraphModule, known: Mapping[str, Array]) -> dict[fx.Node, str]:
    """Which nodes cannot be expressed, and why."""
    tracer, refused = Tracer(module, known), dict[fx.Node, str]()
    for node in module.graph.nodes:
        try:
            tracer.visit(node)
        except Refused as why:
            refused[node] = str(why)
            value = node.meta.get("val")  # of whoever computes it
            count = len(value) if isinstance(value, (tuple, list)) else 0
            tracer.names[node] = [f"{node.name}.{at}" for at in range(count)] if count else node.name
    for node in module.graph.nodes:  # an item belongs to whoever computes all of them
        if node.target is operator.getitem and node in refused:
            refused.setdefault(node.args[0], refused[node])
    for node in module.graph.nodes:
        if node.target is operator.getitem and node.args[0] in refused:
            refused.setdefault(node, refused[node.args[0]])
    return refused


def graph_of(module: fx.GraphModule, known: Mapping[str, Array]) -> tuple[Graph, list[Any]]:
    """The graph of a module of which nothing is refused, and its results: names, or lengths and None as they are."""
    tracer = Tracer(module, known)
    for node in module.graph.nodes:
        tracer.visit(node)
    (results,) = next(node for node in module.graph.nodes if node.op == "output").args
    made: list[Any] = []
    for result in results if isinstance(results, (tuple, list)) else (results,):
        if not isinstance(result, fx.Node):
            made.append(result)
        elif isinstance(result.meta.get("val"), torch.Tensor):
            made.append(tracer.add("Identity", [tracer.name(result)]))  # so that each has a name of its own
        else:
            made.append(whole(result))
    inputs = [
        ValueInfo(node.name, None, "tensor") for node in module.graph.nodes
        if node.op == "placeholder" and node.name not in known and isinstance(node.meta.get("val"), torch.Tensor)
    ]  # fmt: skip
    outputs = [ValueInfo(name, None, "tensor") for name in made if isinstance(name, str)]
    return Graph(inputs, outputs, tracer.constants, tracer.nodes, "compiled"), made
