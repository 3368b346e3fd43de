"""Nets with weights of 16 bits: an attribute of every node that says so to the plans which it makes."""

from __future__ import annotations

from typing import Final

from .._core.rounding import Halves
from .graph import Graph

HALVES: Final = "halves"  # no file has an attribute of this name, since operators know their attributes


def hold_halves(graph: Graph, halves: Halves) -> None:
    """Let every plan of constant weights, in the graph and the bodies in it, hold them in 16 bits or round its operands."""
    if not halves.options:
        return
    for node in graph.nodes:
        node.attributes = {**node.attributes, HALVES: halves.options}
        for body in node.bodies():
            hold_halves(body, halves)
