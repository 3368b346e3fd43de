"""A graph made smaller before it runs: constants computed, names passed through, operators fused.

Every rewriting keeps the results to rounding. It holds the graph's order: a node that takes over others stands where
the last of them stood.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

import numpy as np

from .._core.methods.of_bytes import NEARLY
from .bodies import give_constants, inline
from .errors import OnnxError
from .fuse import fuse
from .graph import Graph, Node
from .integers import holds_quantised, to_integers
from .memory import LARGEST_VALUE, Pool
from .operators import Call, find, repeatable
from .program import run_node

# A constant made from smaller ones is kept up to here: a file of a hundred bytes can declare any shape.
FOLDED_BYTES: Final = 64 << 20
FOLDED_BYTES_IN_ALL: Final = 512 << 20
# How operators between DequantizeLinear and QuantizeLinear compute: on bytes, or step by step in float32.
INTEGERS: Final = "integers"
EXACT: Final = "exact"
COMPUTING: Final = (INTEGERS, EXACT, NEARLY)  # the last: as integers, but for convolutions that are faster otherwise


def checked_computing(quantised: object, error: Callable[[str], Exception]) -> str:
    """One of these words."""
    if quantised not in COMPUTING:
        raise error(f"quantized must be {', '.join(map(repr, COMPUTING[:-1]))} or {NEARLY!r}, but got {quantised!r}.")
    return str(quantised)


def optimise(graph: Graph, max_value_bytes: int = LARGEST_VALUE, quantised: str = INTEGERS) -> Graph:
    """The same network with fewer nodes; the given graph is used up. `quantised` says how 8-bit operators compute."""
    integers = quantised != EXACT
    with np.errstate(all="ignore"):  # infinities and NaN go on as in any runtime
        fold_constants(graph, max_value_bytes, hold=integers)
        while inline(graph, graph.constants):
            fold_constants(graph, max_value_bytes, hold=integers)
        pass_through(graph)
        if integers:
            to_integers(graph, nearly=quantised == NEARLY)
            fold_constants(graph, max_value_bytes)
        give_constants(graph)
        fuse(graph)
    graph.remove_unused()
    for node in graph.nodes:
        for body in node.bodies():
            optimise(body, max_value_bytes, quantised)
    return graph


def fold_constants(graph: Graph, max_value_bytes: int = FOLDED_BYTES, *, hold: bool = False) -> None:
    """Compute nodes whose inputs are all constant; `hold` leaves quantised weights as they are."""
    pool = Pool(min(FOLDED_BYTES, max_value_bytes))
    made, kept = 0, []
    for node in graph.nodes:
        found = find(node.domain, node.op_type, node.version)
        constant = all(name in graph.constants for name in node.inputs if name)
        bodies = any(node.bodies())  # may take any time: the first run computes them
        held = hold and holds_quantised(graph, node)
        if found is None or not repeatable(node) or bodies or not constant or held or made > FOLDED_BYTES_IN_ALL:
            kept.append(node)
            continue
        call = Call(node, pool, 1)
        try:
            results = run_node(found.function, call, [graph.constants[name] if name else None for name in node.inputs])
        except (OnnxError, MemoryError):  # too large, or wrong only if it is ever reached: the run will tell
            kept.append(node)
            continue
        for name, value in zip(node.outputs, results, strict=False):
            if name and isinstance(value, np.ndarray):
                graph.constants[name] = value.copy() if pool.holds(value) else value
                made += value.nbytes if value.base is None else 0
        pool.finish(keep=False)
        if any(name and name not in graph.constants for name in node.outputs):
            kept.append(node)
    graph.nodes = kept


def pass_through(graph: Graph) -> None:
    """Drop nodes that give their input: Identity, Dropout in inference."""
    outputs = {value.name for value in graph.outputs}
    kept: list[Node] = []
    producers, uses = graph.producers(), graph.uses()
    called: dict[str, str] = {}  # the name that took another's place
    for node in graph.nodes:
        if not _gives_input(graph, node, uses):
            kept.append(node)
            continue
        source, target = _now(called, node.inputs[0]), node.outputs[0]
        if target not in outputs:
            called[target] = source
        elif source in producers and source not in outputs:  # the output keeps its name
            maker = producers[target] = producers[source]
            maker.outputs = [target if name == source else name for name in maker.outputs]
            called[source] = target
        else:
            kept.append(node)
    for node in kept:
        node.inputs = [_now(called, name) for name in node.inputs]
    graph.nodes = kept


def _now(called: dict[str, str], name: str) -> str:
    """What a value is called now; the way there is made short for the next who asks."""
    found, passed = name, []
    while found in called:
        passed.append(found)
        found = called[found]
    called.update(dict.fromkeys(passed, found))
    return found


def _gives_input(graph: Graph, node: Node, uses: Counter[str]) -> bool:
    if not node.inputs or not node.inputs[0]:
        return False
    if node.op_type == "Identity":
        return True
    if node.op_type != "Dropout" or any(uses[name] for name in node.outputs[1:]):
        return False
    training = node.input(2)
    return not training or (training in graph.constants and not graph.constants[training].any())
