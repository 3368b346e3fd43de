"""Quantised models: DequantizeLinear goes to where its value was quantised.

Files have one DequantizeLinear for every reader, and move quantised values about between QuantizeLinear and those. The
equal ones become one, and what only moves values comes after it: then the two stand beside each other, which `chains`
makes a step on floats of, and what follows meets the rules for floats.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Any, Final

from .graph import Node
from .rewriter import Rewriter

# Integers of so few bits are exact in float32.
QUANTISED: Final = ("int8", "uint8", "int16", "uint16")
CROPPING: Final = "tf_crop_and_resize"
MOVING: Final = ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Pad", "Resize", "MaxPool")


def raise_dequantised(rewriter: Rewriter) -> None:
    """Put DequantizeLinear as early as it can stand, and one where there were equal ones."""
    outputs = {value.name for value in rewriter.graph.outputs}
    known: dict[Hashable, Node] = {}  # who turns a value into floats in which way
    waiting = deque(node for node in rewriter.nodes() if node.op_type == "DequantizeLinear" and not node.domain)
    while waiting:
        node = waiting.popleft()
        if not rewriter.alive(node):
            continue
        way = _way(rewriter, node)
        if node.outputs[0] not in outputs:
            other = known.setdefault(way, node)
            if other is not node:
                node = known[way] = _merged(rewriter, other, node)
        if _raise(rewriter, node):
            if known.get(way) is node:
                del known[way]
            waiting.appendleft(node)


def _way(rewriter: Rewriter, node: Node) -> Hashable:
    """What a DequantizeLinear does to which value."""
    parts: list[Hashable] = [node.inputs[0], repr(sorted(node.attributes.items()))]
    for name in node.inputs[1:]:
        constant = rewriter.constants.get(name)
        parts.append(name if constant is None else (constant.dtype.str, constant.shape, constant.tobytes()))
    return tuple(parts)


def _merged(rewriter: Rewriter, one: Node, other: Node) -> Node:
    """The earlier of two equal nodes, for the readers of both, under the name that more of them know."""
    first, second = sorted((one, other), key=rewriter.place)
    names = sorted((first.outputs[0], second.outputs[0]), key=rewriter.uses)
    rewriter.remove(second)
    rewriter.rewire(first, outputs=names[1:])
    rewriter.read_instead(*names)
    return first


def _raise(rewriter: Rewriter, node: Node) -> bool:
    """Let a DequantizeLinear with one scale pass the operator before it."""
    mover = rewriter.producer(node.inputs[0], *MOVING)
    one_scale = all(rewriter.number(name) is not None for name in node.inputs[1:] if name)
    if mover is None or mover.domain or not one_scale or not rewriter.single(node.inputs[0]):
        return False
    if node.attributes.get("block_size") or any(mover.outputs[1:]):
        return False
    mode = mover.attributes.get("mode", {"Pad": "constant", "Resize": "nearest"}.get(mover.op_type))
    if mode in ("constant", "linear", "cubic") or mover.attributes.get("coordinate_transformation_mode") == CROPPING:
        return False  # these make new values
    source, between, target = mover.inputs[0], node.inputs[0], node.outputs[0]
    rewriter.swap(node, mover)
    rewriter.rewire(node, [source, *node.inputs[1:]], [between])
    rewriter.rewire(mover, [between, *mover.inputs[1:]], [target])
    return True


def integer_type(rewriter: Rewriter, node: Node) -> Any:
    """The name of the type that a QuantizeLinear gives."""
    zero = rewriter.constants.get(node.input(2)) if node.input(2) else None
    return "uint8" if not node.input(2) else None if zero is None else zero.dtype.name
