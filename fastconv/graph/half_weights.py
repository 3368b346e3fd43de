"""Nets with weights of 16 bits: an attribute of every node that says so to the plans which it makes.

Beside the weights, plans may hold a transform of them in float32 (Winograd's takes eight times as much): a share of
all, given out in the order of the graph. What comes first has large images, for whose many tiles the weights would be
transformed again and again.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from .._core.arrays import Array
from .._core.rounding import Halves
from .graph import Graph, Node

HALVES: Final = "halves"  # no file has an attribute of this name, since operators know their attributes
TRANSFORMS: Final = 0.17  # of the bytes of the weights: those of 56 x 56 pixels in VGG-16; ResNet-50 stays below 60 MB


class Spare:
    """Bytes that transforms may take; a node that got some has them again in a copy of the net."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.granted: dict[str, int] = {}

    def grant(self, name: str, size: int) -> bool:
        """Whether the node of this result may hold so many bytes."""
        if self.granted.get(name, 0) < size:
            if size > self.left:
                return False
            self.left -= size
            self.granted[name] = size
        return True


def hold_halves(graph: Graph, halves: Halves) -> None:
    """Let every plan of constant weights, in the graph and the bodies in it, hold them so or round its operands."""
    if not halves.options:
        return
    nodes = list(_nodes(graph))
    weights: dict[int, Array] = {
        id(one.constants[name]): one.constants[name]
        for one, node in nodes for name in node.inputs[1:] if name in one.constants and one.constants[name].ndim > 1
    }  # fmt: skip
    spare = Spare(int(TRANSFORMS * 2 * sum(weight.size for weight in weights.values())))
    for _, node in nodes:
        node.attributes = {**node.attributes, HALVES: (halves.options, spare)}


def _nodes(graph: Graph) -> Iterator[tuple[Graph, Node]]:
    for node in graph.nodes:
        yield graph, node
        for body in node.bodies():
            yield from _nodes(body)


def options_of(node: Node) -> dict[str, Any]:
    """What the plans of a node are made with beside the usual."""
    options, spare = node.attributes.get(HALVES, ({}, None))
    return {**options, "grant": partial(spare.grant, node.outputs[0])} if options else {}
