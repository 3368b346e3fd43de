"""A graph that is being rewritten."""

from __future__ import annotations

from ..arrays import Array
from .graph import Graph, Node
from .operators import INTERNAL


class Rewriter:
    """A graph under change: who makes and who reads what is kept up to date."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.constants = graph.constants
        self._uses = graph.uses()
        self._producers = graph.producers()

    def single(self, name: str) -> bool:
        """Whether one node alone reads a value, and nobody outside."""
        return self._uses[name] == 1

    def producer(self, name: str, *op_types: str) -> Node | None:
        """The node that makes a value, if it is one of these."""
        node = self._producers.get(name)
        return node if node is not None and (not op_types or node.op_type in op_types) else None

    def absorb(self, first: Node, second: Node, outputs: list[str], inputs: list[str]) -> None:
        """`first` moves to the place of `second`, with these inputs and outputs."""
        nodes = self.graph.nodes
        nodes[next(at for at, node in enumerate(nodes) if node is second)] = first
        del nodes[next(at for at, node in enumerate(nodes) if node is first)]  # the earlier one
        first.inputs, first.outputs = inputs, outputs
        first.parts = [*first.parts, *second.parts]
        first.domain = INTERNAL
        self.changed()

    def remove(self, *gone: Node) -> None:
        """Drop nodes."""
        self.graph.nodes = [node for node in self.graph.nodes if not any(node is other for other in gone)]
        self.changed()

    def changed(self) -> None:
        """Count again."""
        self._uses, self._producers = self.graph.uses(), self.graph.producers()

    def constant(self, name: str, array: Array) -> str:
        """A new constant under a name that is not taken."""
        fresh = name
        while fresh in self.constants or fresh in self._producers:
            fresh += "'"
        self.constants[fresh] = array
        return fresh

    def number(self, name: str) -> float | None:
        """A constant of one element."""
        array = self.constants.get(name)
        return float(array.ravel()[0]) if array is not None and array.size == 1 and array.dtype.kind in "fiu" else None
