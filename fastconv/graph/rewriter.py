"""A graph that is being rewritten.

Every change costs what it touches: who makes and who reads a value is kept up to date name by name, a node's place in
the order is a number, and the list of nodes is written once, at the end. So rewriting takes a time that grows with the
number of nodes, not with its square.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from .graph import Graph, Names, Node
from .operators import INTERNAL

LONGEST_RULE: Final = 4  # nodes behind each other that the longest rule looks at


class Rewriter:
    """A graph under change; `finish` writes it back."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.constants = graph.constants
        self._uses = graph.uses()
        self._producers = graph.producers()
        self._readers: dict[str, dict[Node, None]] = {}  # in the order in which they were met
        self._inputs: dict[Node, dict[str, list[int]]] = {}  # where `read_instead` finds a name among many
        self._places = {node: place for place, node in enumerate(graph.nodes)}
        self.constant, self.number = Names(graph).constant, graph.number
        self._applying = False
        self._queue: deque[Node] = deque()  # of `apply`, and what is in it
        self._waiting: set[Node] = set()
        for node in graph.nodes:
            self._note(node)

    # ---- questions ---------------------------------------------------------------------------------------------------

    def nodes(self) -> list[Node]:
        """The nodes that are left, in an order in which they can run."""
        return sorted(self._places, key=self._places.__getitem__)

    def place(self, node: Node) -> int:
        """Where a node stands: smaller numbers run first."""
        return self._places[node]

    def alive(self, node: Node) -> bool:
        """Whether a node has not been removed."""
        return node in self._places

    def single(self, name: str) -> bool:
        """Whether one node alone reads a value, and nobody outside."""
        return self._uses[name] == 1

    def uses(self, name: str) -> int:
        """How often a value is read."""
        return self._uses[name]

    def producer(self, name: str, *op_types: str) -> Node | None:
        """The node that makes a value, if it is one of these."""
        node = self._producers.get(name)
        return node if node is not None and (not op_types or node.op_type in op_types) else None

    # ---- changes -----------------------------------------------------------------------------------------------------

    def rewire(self, node: Node, inputs: Iterable[str] | None = None, outputs: Iterable[str] | None = None) -> None:
        """A node reads and makes other values from now on."""
        if outputs is not None:
            self._makes_no_more(node)
            node.outputs = list(outputs)
            self._producers.update((name, node) for name in node.outputs if name)
        if inputs is not None:
            before, node.inputs = node.inputs, list(inputs)
            self._inputs.pop(node, None)
            for name in filter(None, node.inputs):
                self._uses[name] += 1  # first, so that none falls to zero on the way
            self._reads_no_more(node, before)
            self._note(node)
        self._look_again(node)

    def absorb(self, first: Node, second: Node, outputs: list[str], inputs: list[str]) -> None:
        """`first` moves to the place of `second`, with these inputs and outputs."""
        place = self._places.pop(second)
        self._makes_no_more(second)
        self._places[first] = place
        first.parts = [*first.parts, *second.parts]
        first.domain = INTERNAL
        self.rewire(first, inputs, outputs)
        self._reads_no_more(second, second.inputs)  # last, so that what `first` reads now is kept

    def remove(self, *gone: Node) -> None:
        """Drop nodes."""
        for node in gone:
            del self._places[node]
            self._makes_no_more(node)
            self._reads_no_more(node, node.inputs)

    def swap(self, first: Node, second: Node) -> None:
        """Exchange the places of two nodes."""
        self._places[first], self._places[second] = self._places[second], self._places[first]

    def read_instead(self, old: str, new: str) -> None:
        """Let every node that reads `old` read `new`."""
        moved, there = self._readers.pop(old, {}), self._readers.setdefault(new, {})
        for node in moved:
            found = self._inputs.setdefault(node, {})
            if not found:
                for place, name in enumerate(node.inputs):
                    found.setdefault(name, []).append(place)
            places = found.pop(old)
            found.setdefault(new, []).extend(places)
            for place in places:
                node.inputs[place] = new
            self._uses[new] += len(places)
            self._uses[old] -= len(places)
        there.update(moved)

    def apply(self, rule: Callable[[Rewriter, Node], bool]) -> None:
        """Let a rule change nodes, in order, until it finds nothing more.

        After a change it looks again at the nodes that were touched and at those behind that read nothing else's
        result: no rule sees more.
        """
        self._queue = deque(self.nodes())
        self._waiting = set(self._queue)
        self._applying = True
        while self._queue:
            node = self._queue.popleft()
            self._waiting.discard(node)
            if node in self._places and rule(self, node):
                self._look_again(node)
        self._applying = False

    def finish(self) -> None:
        """Write the nodes back."""
        self.graph.nodes = self.nodes()

    # ---- the books ---------------------------------------------------------------------------------------------------

    def _note(self, node: Node) -> None:
        for name in filter(None, node.inputs):
            known = self._readers.get(name)
            if known is None:
                self._readers[name] = {node: None}
            else:
                known[node] = None

    def _makes_no_more(self, node: Node) -> None:
        for name in node.outputs:
            if self._producers.get(name) is node:
                del self._producers[name]

    def _reads_no_more(self, node: Node, names: Iterable[str]) -> None:
        for name in filter(None, names):
            readers = self._readers[name]
            readers.pop(node, None)
            self._uses[name] -= 1
            if self._uses[name] == 1:
                for reader in readers:
                    self._look_again(reader)
            elif not self._uses[name]:
                del self._uses[name], self._readers[name]
                self.constants.pop(name, None)  # weights that others were made of would add up

    def _look_again(self, node: Node) -> None:
        """Let `apply` look at a node, and at those behind it that alone read what is made before them."""
        if not self._applying:
            return
        touched = [node]
        for _ in range(LONGEST_RULE):
            for one in touched:
                if one in self._places and one not in self._waiting:
                    self._waiting.add(one)
                    self._queue.append(one)
            names = [name for one in touched for name in one.outputs if self._uses[name] == 1]
            touched = [reader for name in names for reader in self._readers.get(name, ())]
