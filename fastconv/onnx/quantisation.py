"""Quantised models: DequantizeLinear goes to where its value was quantised.

Files have one DequantizeLinear for every reader, and move quantised values about between QuantizeLinear and those. The
equal ones become one, and what only moves values comes after it: then the two stand beside each other, which `chains`
makes a step on floats of, and what follows meets the rules for floats.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from .graph import Node
from .rewriter import Rewriter

# Integers of so few bits are exact in float32.
QUANTISED: Final = ("int8", "uint8", "int16", "uint16")
CROPPING: Final = "tf_crop_and_resize"
MOVING: Final = ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Pad", "Resize", "MaxPool")


def raise_dequantised(rewriter: Rewriter) -> None:
    """Put DequantizeLinear as early as it can stand."""
    _merge_dequantised(rewriter)
    while any(_raise(rewriter, node) for node in list(rewriter.graph.nodes) if node.op_type == "DequantizeLinear"):
        _merge_dequantised(rewriter)


def _raise(rewriter: Rewriter, node: Node) -> bool:
    """Let a DequantizeLinear with one scale pass the operator before it."""
    mover = rewriter.producer(node.inputs[0], *MOVING)
    one_scale = all(rewriter.number(name) is not None for name in node.inputs[1:] if name)
    if mover is None or mover.domain or node.domain or not one_scale or not rewriter.single(node.inputs[0]):
        return False
    if node.attributes.get("block_size") or any(mover.outputs[1:]):
        return False
    mode = mover.attributes.get("mode", {"Pad": "constant", "Resize": "nearest"}.get(mover.op_type))
    if mode in ("constant", "linear", "cubic") or mover.attributes.get("coordinate_transformation_mode") == CROPPING:
        return False  # these make new values
    nodes = rewriter.graph.nodes
    at, behind = (next(i for i, other in enumerate(nodes) if other is one) for one in (mover, node))
    nodes[at], nodes[behind] = node, mover
    source, between, target = mover.inputs[0], node.inputs[0], node.outputs[0]
    node.inputs[0], node.outputs[0] = source, between
    mover.inputs[0], mover.outputs[0] = between, target
    rewriter.changed()
    return True


def _merge_dequantised(rewriter: Rewriter) -> None:
    """Equal DequantizeLinear nodes of one value become one: files have one for every reader."""
    known: dict[str, list[Node]] = {}
    gone = []
    outputs = {value.name for value in rewriter.graph.outputs}
    for node in rewriter.graph.nodes:
        if node.op_type != "DequantizeLinear" or node.domain or node.outputs[0] in outputs:
            continue
        same = next((other for other in known.get(node.inputs[0], ()) if _alike(rewriter, node, other)), None)
        if same is None:
            known.setdefault(node.inputs[0], []).append(node)
        else:
            rewriter.graph.rename(node.outputs[0], same.outputs[0])
            gone.append(node)
    rewriter.remove(*gone)


def _alike(rewriter: Rewriter, a: Node, b: Node) -> bool:
    def same(x: str, y: str) -> bool:
        one, other = rewriter.constants.get(x), rewriter.constants.get(y)
        return x == y or (one is not None and other is not None and one.dtype == other.dtype and
                          np.array_equal(one, other))  # fmt: skip

    pairs = zip(a.inputs[1:], b.inputs[1:], strict=False)
    return a.attributes == b.attributes and len(a.inputs) == len(b.inputs) and all(same(x, y) for x, y in pairs)


def integer_type(rewriter: Rewriter, node: Node) -> Any:
    """The name of the type that a QuantizeLinear gives."""
    zero = rewriter.constants.get(node.input(2)) if node.input(2) else None
    return "uint8" if not node.input(2) else None if zero is None else zero.dtype.name
