"""Tables and sums of bytes behind convolutions of bytes become part of these: functions, grids, residual blocks.

What is computed stays the standard's: the convolution's bytes are rounded, each becomes that of the table, both values
are dequantised, added, quantised. All of it is done tile by tile, while the convolution's bytes are in the cache.
"""

from __future__ import annotations

from typing import Any

from .graph import Graph, Node
from .operators import INTERNAL


def put_into_convolutions(graph: Graph) -> None:
    """Every table and sum of which a convolution makes the bytes for it alone."""
    makers, uses = graph.producers(), graph.uses()
    gone: set[int] = set()
    for node in graph.nodes:
        if node.domain != INTERNAL:
            continue
        alone = [(at, makers[name]) for at, name in enumerate(node.inputs) if name in makers and uses[name] == 1]
        for at, maker in alone[::-1]:
            if _takes_table(graph, maker, node) or _takes_sum(maker, node):
                _put_in(graph, maker, node, at)
                gone.add(id(maker))
                break
    graph.nodes = [node for node in graph.nodes if id(node) not in gone]


def _is_whole(maker: Node) -> bool:
    """Whether this is a convolution of all channels to bytes, of which no sum is part."""
    one = maker.domain == INTERNAL and maker.op_type == "QConv" and len(maker.inputs) == 3
    return one and maker.attributes.get("requantise") is not None and maker.attributes.get("group", 1) == 1


def _takes_table(graph: Graph, maker: Node, node: Node) -> bool:
    if node.op_type != "QTable" or not _is_whole(maker) or "table" in maker.attributes:
        return False
    table = graph.constants.get(node.inputs[1])
    return table is not None and table.itemsize == 1


def _takes_sum(maker: Node, node: Node) -> bool:
    """All bytes must be of one type."""
    if node.op_type != "QBinary" or node.attributes["does"] != "Add" or not _is_whole(maker):
        return False
    table, about = maker.attributes.get("table"), node.attributes
    own = maker.attributes["requantise"].dtype if table is None else table.dtype
    return {about["a"].dtype, about["b"].dtype, about["grid"].dtype} == {own}


def _put_in(graph: Graph, maker: Node, node: Node, at: int) -> None:
    """The node becomes the convolution: all that both read is there in its place."""
    about, parts = node.attributes, [*maker.parts, *node.parts]
    more: dict[str, Any]
    if node.op_type == "QTable":
        inputs, more = maker.inputs, {"table": graph.constants[node.inputs[1]]}
    else:
        grids = (about["a"], about["b"]) if at == 0 else (about["b"], about["a"])
        inputs = [*maker.inputs, node.inputs[1 - at]]
        more = {"added": (*grids, about["grid"], about["low"], about["high"])}
    node.op_type, node.inputs, node.parts, node.attributes = "QConv", inputs, parts, {**maker.attributes, **more}
