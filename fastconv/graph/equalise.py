"""Channels of very different size between two convolutions made alike, before a value gets one grid for all of them.

The first convolution's channel is multiplied, the second's weight of it divided by the same factor: the net computes
what it did, and small channels get more of the 256 steps. A Relu lets factors pass. So does a Clip between 0 and a
limit: in a channel that is multiplied the end of the grid comes first, as no factor is below 1.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from .._core.arrays import Array
from .calibration import Statistics
from .graph import Graph, Names, Node

LARGEST: Final = 64.0  # factor
MARGIN: Final = 1.25  # of a channel's peak beyond what the calibration showed


def equalise(graph: Graph, statistics: Statistics) -> dict[str, Array]:
    """Change the weights of pairs of convolutions; the factors of the channels of each value between them."""
    found: dict[str, Array] = {}
    producers, uses, names = graph.producers(), graph.uses(), Names(graph)
    for second in graph.nodes:
        value = second.input(0)
        between = producers.get(value) if second.op_type == "Conv" else None
        first = None if between is None else producers.get(between.input(0))
        if between is None or first is None or uses[value] != 1 or uses[between.inputs[0]] != 1:
            continue
        if not _limits_from_zero(graph, between) or not (_usual(graph, first) and _usual(graph, second)):
            continue
        weight = graph.constants[second.inputs[1]]
        peaks, groups = statistics.peaks.get(value), int(second.attributes.get("group", 1))
        depthwise = weight.shape[1] == 1
        if peaks is None or value not in statistics.ranges or not (depthwise or groups == 1):
            continue
        factors = _factors(peaks, statistics.ranges[value][1], depthwise)
        if factors.size != weight.shape[1] * groups or len(graph.constants[first.inputs[1]]) != factors.size:
            continue
        _multiply(graph, names, first, factors)
        repeated = np.repeat(factors, len(weight) // groups) if depthwise else factors
        axis = 0 if depthwise else 1
        shape = [-1 if at == axis else 1 for at in range(weight.ndim)]
        _replace(names, second, 1, weight / repeated.reshape(shape))
        between.op_type, between.inputs = "Relu", between.inputs[:1]
        between.attributes, between.version = {}, 14
        found[value] = found[between.inputs[0]] = factors
    return found


def _usual(graph: Graph, node: Node) -> bool:
    """A convolution with constant float32 weights and nothing else in it."""
    if node.op_type != "Conv" or len(node.inputs) > 3:
        return False
    constants = [graph.constants.get(name) for name in node.inputs[1:] if name]
    plain = not node.attributes.get("activation") and node.attributes.get("padding_mode", "zeros") == "zeros"
    if not plain or not all(x is not None and x.dtype == np.float32 and np.isfinite(x).all() for x in constants):
        return False  # such a value may stay in floats, where a Clip is needed
    weight = graph.constants[node.inputs[1]]
    return 3 <= weight.ndim <= 5 and weight.size > 0


def _limits_from_zero(graph: Graph, node: Node) -> bool:
    if node.op_type == "Relu":
        return True
    if node.op_type != "Clip":
        return False
    low, high = node.attributes.get("min"), node.attributes.get("max")
    if node.input(1):
        low = graph.number(node.inputs[1])
    if node.input(2):
        high = graph.number(node.inputs[2])
    return low == 0 and high is not None and high > 0


def _factors(peaks: Array, high: float, whole: bool) -> Array:
    """From 1 on, such that channels reach the end of the grid, or half the way there: the rest is the weights'."""
    reach = np.minimum(peaks * np.float32(MARGIN), np.float32(high))
    with np.errstate(all="ignore"):
        factors = np.where(reach > 0, np.float32(high) / reach, np.float32(1))
    factors = np.clip(factors, 1, LARGEST)
    return np.asarray(factors if whole else np.sqrt(factors), np.float32)


def _multiply(graph: Graph, names: Names, node: Node, factors: Array) -> None:
    weight = graph.constants[node.inputs[1]]
    _replace(names, node, 1, weight * factors.reshape(-1, *(1,) * (weight.ndim - 1)))
    if node.input(2):
        _replace(names, node, 2, graph.constants[node.inputs[2]] * factors)


def _replace(names: Names, node: Node, at: int, array: Array) -> None:
    """An input of a node is a constant of its own from now on."""
    made = names.constant(node.inputs[at], array)
    node.inputs = [made if place == at else one for place, one in enumerate(node.inputs)]
