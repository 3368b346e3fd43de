"""A network as nodes between named values: what is read from a file, rewritten by `optimise` and run by `session`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from .._core.arrays import Array
from .errors import OnnxError

# The attribute of a node with bodies that names what they read from around: the values of its last inputs, as the
# bodies call them. No file has one of this name, since operators know their attributes.
CAPTURED: Final = "captured"


@dataclass(frozen=True)
class ValueInfo:
    """A declared input or output, as ONNX Runtime's `NodeArg` describes it.

    Parameters
    ----------
    name : str
        Its name.
    shape : list or None
        A name or None for every length that is not fixed; None where not even the number of axes is.
    type : str
        Such as 'tensor(float)'.
    element_type : int
        ONNX's number of the type.
    """

    name: str
    shape: list[int | str | None] | None
    type: str
    element_type: int = 0


@dataclass(eq=False, slots=True)  # two nodes are never the same one
class Node:
    """An operation: `version` is the operator set that its meaning comes from; an empty input name is left out."""

    op_type: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)
    version: int = 1
    domain: str = ""
    name: str = ""
    parts: list[str] = field(default_factory=list)  # operators that this node stands for, itself first

    def __post_init__(self) -> None:
        self.parts = self.parts or [self.op_type]

    @property
    def label(self) -> str:
        """The node in an error message."""
        called = f" {self.name!r}" if self.name else ""
        return f"{self.op_type} node{called} (-> {', '.join(filter(None, self.outputs)) or 'nothing'})"

    def input(self, index: int) -> str:
        """The name of an input, '' where it was left out."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def bodies(self) -> Iterator[Graph]:
        """The graphs among the attributes."""
        return (value for value in self.attributes.values() if isinstance(value, Graph))


@dataclass
class Graph:
    """Nodes in an order in which they can run, constants by name, and what is declared to the outside."""

    inputs: list[ValueInfo]
    outputs: list[ValueInfo]
    constants: dict[str, Array]
    nodes: list[Node]
    name: str = ""
    # Constants that may be changed where they lie: one convolution alone reads them, and their memory is nobody else's.
    own: set[str] = field(default_factory=set)

    def producers(self) -> dict[str, Node]:
        """Who computes each value."""
        return {output: node for node in self.nodes for output in node.outputs if output}

    def uses(self) -> Counter[str]:
        """How often every value is read; being an output of the graph counts as once."""
        counts = Counter(name for node in self.nodes for name in node.inputs if name)
        counts.update(value.name for value in self.outputs)
        return counts

    def number(self, name: str, most_axes: int | None = None) -> float | None:
        """A constant of one element, and of so many axes at most."""
        array = self.constants.get(name)
        if array is None or array.size != 1 or array.dtype.kind not in "fiu":
            return None
        return float(array.reshape(-1)[0]) if most_axes is None or array.ndim <= most_axes else None

    def constant_bytes(self) -> int:
        """Of the constants of the graph and of the bodies in it, each array once."""
        found: dict[int, Array] = {}
        waiting = [self]
        for graph in waiting:  # grows while it is walked
            found.update((id(array), array) for array in graph.constants.values())
            waiting += [body for node in graph.nodes for body in node.bodies()]
        return sum(array.nbytes for array in found.values())

    def remove_unused(self) -> None:
        """Drop nodes whose results nobody reads, and constants that are left alone."""
        wanted = {value.name for value in self.outputs}
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if wanted.intersection(node.outputs):
                wanted.update(filter(None, node.inputs))
                kept.append(node)
        self.nodes = kept[::-1]
        self.constants = {name: array for name, array in self.constants.items() if name in wanted}


class Names:
    """What the values and constants of a graph are called, and names for new ones."""

    def __init__(self, graph: Graph) -> None:
        self._constants, self._numbers = graph.constants, count(1)
        inputs = (value.name for value in graph.inputs)
        self._taken = {*graph.constants, *inputs, *graph.producers(), *graph.uses()}

    def fresh(self, name: str) -> str:
        """This name, or one like it that is not taken; it is now."""
        made = name
        while made in self._taken:
            made = f"{name}'{next(self._numbers)}"
        self._taken.add(made)
        return made

    def constant(self, name: str, array: Array) -> str:
        """The name of a new constant."""
        made = self.fresh(name)
        self._constants[made] = array
        return made


def in_order(nodes: Iterable[Node], known: Iterable[str]) -> list[Node]:
    """The nodes such that each comes after those that it reads; `known` values are there from the start.

    Raises `OnnxError` for a value that is made twice or by nobody, and for a cycle.
    """
    nodes = list(nodes)
    ready = set(known)
    makers: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for output in filter(None, node.outputs):
            if output in makers or output in ready:
                raise OnnxError(f"the value {output!r} is made twice, the second time by the {node.label}.")
            makers[output] = index
    missing = [0] * len(nodes)
    readers: dict[int, list[int]] = {}
    for index, node in enumerate(nodes):
        for name in dict.fromkeys(filter(None, node.inputs)):
            if name in ready:
                continue
            if name not in makers:
                raise OnnxError(f"the {node.label} reads the value {name!r}, which nobody makes; the file is damaged.")
            missing[index] += 1
            readers.setdefault(makers[name], []).append(index)
    waiting = [index for index in range(len(nodes)) if not missing[index]]
    ordered: list[int] = []
    for index in waiting:  # grows while it is walked
        ordered.append(index)
        for reader in readers.get(index, ()):
            missing[reader] -= 1
            if not missing[reader]:
                waiting.append(reader)
    if len(ordered) < len(nodes):
        stuck = next(node for index, node in enumerate(nodes) if missing[index])
        raise OnnxError(f"the graph has a cycle: the {stuck.label} needs, by others, its own result.")
    already = all(maker < index for maker, found in readers.items() for index in found)
    return nodes if already else [nodes[index] for index in ordered]
