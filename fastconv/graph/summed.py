"""Sums of bytes behind convolutions of bytes become part of these, as in residual blocks.

What is computed stays the standard's: the convolution's bytes are rounded, both values dequantised, added, quantised.
The sum is made tile by tile, while the convolution's bytes are in the cache.
"""

from __future__ import annotations

from .graph import Graph, Node
from .operators import INTERNAL


def put_sums_in(graph: Graph) -> None:
    """Every sum of which a convolution alone makes one part for it alone."""
    makers, uses = graph.producers(), graph.uses()
    gone: set[int] = set()
    for node in graph.nodes:
        if node.domain != INTERNAL or node.op_type != "QBinary" or node.attributes["does"] != "Add":
            continue
        alone = [(at, makers[name]) for at, name in enumerate(node.inputs) if name in makers and uses[name] == 1]
        for at, maker in alone[::-1]:
            if _fits(maker, node):
                _put_in(maker, node, at)
                gone.add(id(maker))
                break
    graph.nodes = [node for node in graph.nodes if id(node) not in gone]


def _fits(maker: Node, node: Node) -> bool:
    """Whether this is a convolution of all channels to bytes of the sum's type, without one already."""
    if maker.domain != INTERNAL or maker.op_type != "QConv" or len(maker.inputs) != 3:
        return False
    given, get = maker.attributes.get("requantise"), node.attributes
    kinds = {get["a"].dtype, get["b"].dtype, get["grid"].dtype}
    return given is not None and kinds == {given.dtype} and maker.attributes.get("group", 1) == 1


def _put_in(maker: Node, node: Node, at: int) -> None:
    """The sum becomes the convolution: all that both read is there in its place."""
    about = node.attributes
    grids = (about["a"], about["b"]) if at == 0 else (about["b"], about["a"])
    added = (*grids, about["grid"], about["low"], about["high"])
    node.op_type, node.inputs = "QConv", [*maker.inputs, node.inputs[1 - at]]
    node.attributes, node.parts = {**maker.attributes, "added": added}, [*maker.parts, *node.parts]
