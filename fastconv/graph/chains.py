"""Elementwise operators behind each other become one node, `Elementwise`, which passes over memory once.

A chain follows a value that nobody else reads from operator to operator. Where an operator has two values that are no
constants, the chain follows the larger one: a value that comes from a global pooling, as the factors of a
squeeze-and-excitation block do, is an operand.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from .graph import Node
from .operators import INTERNAL
from .operators.chain import BINARY, MOST_OPERANDS, PARAMETRIC, POWERS, UNARY, Link
from .quantisation import QUANTISED, integer_type
from .rewriter import Rewriter

LONGEST: Final = 10  # operators: what the native driver surely takes
DIVIDING: Final = ("Celu", "Swish")  # by their alpha
MERGED: Final = ("Elementwise",)
POOLED: Final = ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")


def link(rewriter: Rewriter) -> None:
    """Put every elementwise operator into a chain."""
    small = _small(rewriter)
    for node in rewriter.nodes():
        if (pair := _pair(rewriter, node)) is not None:
            _extend(rewriter, pair, small)
        elif (chosen := _main(rewriter, node, small)) is not None:
            _become(rewriter, node, [Link(_copied(node), chosen)], chosen)
            _extend(rewriter, node, small)


def _copied(node: Node) -> Node:
    return Node(
        node.op_type, list(node.inputs), list(node.outputs), dict(node.attributes), node.version, node.domain,
        node.name, list(node.parts),
    )  # fmt: skip


def _small(rewriter: Rewriter) -> set[str]:
    """Values that a global pooling or constants made small."""
    found = set(rewriter.constants)
    for node in rewriter.nodes():
        inputs = [name for name in node.inputs if name]
        if node.op_type in POOLED or (inputs and all(name in found for name in inputs)):
            found.update(node.outputs)
    return found


def _main(rewriter: Rewriter, node: Node, small: set[str]) -> int | None:
    """The input that a chain through this node follows; None where it is no elementwise function of one value."""
    kind = node.op_type
    if node.domain not in ("", INTERNAL) or len(node.outputs) != 1:
        return None
    constant = [name in rewriter.constants for name in node.inputs]
    if kind in BINARY and len(node.inputs) == 2 and node.version >= 7:
        a, b = node.inputs
        if all(constant) or a == b:
            return None
        if constant[0] or constant[1]:
            return int(constant[0])
        if (a in small) != (b in small):
            return int(a in small)
        return int(not _chained(rewriter, a) and _chained(rewriter, b))
    if not node.inputs or constant[0]:
        return None
    if kind in UNARY or (kind in PARAMETRIC and (kind not in DIVIDING or node.attributes.get("alpha", 1.0) > 0)):
        return 0
    if kind == "ChannelAffine" and all(constant[1:]):
        return 0
    if kind == "Pow" and len(node.inputs) == 2 and rewriter.number(node.inputs[1]) in POWERS and node.version >= 7:
        return 0
    if kind == "Clip" and all(rewriter.number(name) is not None for name in node.inputs[1:] if name):
        return 0
    return 0 if kind == "PRelu" and node.version >= 7 else None


def _chained(rewriter: Rewriter, name: str) -> bool:
    """Whether a value comes out of a chain that could go on."""
    return rewriter.producer(name, *MERGED) is not None and rewriter.single(name)


def _become(rewriter: Rewriter, node: Node, links: list[Link], main: int) -> None:
    """A node is a chain of its own from now on."""
    others = [name for at, name in enumerate(node.inputs) if name and at != main]
    inputs = list(dict.fromkeys([node.inputs[main], *others]))
    if inputs != node.inputs:
        rewriter.rewire(node, inputs)
    node.op_type, node.domain, node.version, node.attributes = "Elementwise", INTERNAL, 1, {"chain": links}


def _extend(rewriter: Rewriter, node: Node, small: set[str]) -> None:
    """Join a chain with the one that makes the value it follows."""
    before = rewriter.producer(node.inputs[0], *MERGED)
    if before is not None and rewriter.single(node.inputs[0]):
        links = [*before.attributes["chain"], *node.attributes["chain"]]
        inputs = list(dict.fromkeys([*before.inputs, *node.inputs[1:]]))
        operands = sum(rewriter.number(name) is None for name in inputs[1:])
        larger = before.outputs[0] in small and not all(name in small for name in node.inputs)
        if len(links) <= LONGEST and operands <= MOST_OPERANDS and not larger:
            rewriter.absorb(before, node, node.outputs, inputs)
            before.attributes = {"chain": links}


def _pair(rewriter: Rewriter, node: Node) -> Node | None:
    """QuantizeLinear and the DequantizeLinear behind it become a chain on floats: rounding to what integers can say."""
    if node.op_type != "DequantizeLinear":
        return None
    before = rewriter.producer(node.inputs[0], "QuantizeLinear")
    if before is None or before.domain or node.domain or not rewriter.single(node.inputs[0]):
        return None
    kind = integer_type(rewriter, before)
    scales = [rewriter.constants.get(name) for one in (before, node) for name in one.inputs[1:2]]
    if kind not in QUANTISED or any(scale is None or scale.size != 1 or scale.dtype != np.float32 for scale in scales):
        return None
    if any(rewriter.number(name) is None for one in (before, node) for name in one.inputs[2:3] if name):
        return None
    if any(one.attributes.get(key) for one in (before, node) for key in ("output_dtype", "precision", "block_size")):
        return None
    first = _copied(before)
    first.attributes = {**first.attributes, "range": kind}
    links = [Link(first, 0), Link(_copied(node), 0)]
    inputs = list(dict.fromkeys([*before.inputs, *(name for name in node.inputs[1:])]))
    rewriter.absorb(before, node, node.outputs, [name for name in inputs if name])
    before.op_type, before.version, before.attributes = "Elementwise", 1, {"chain": links}
    return before
