"""The table that `InferenceSession.explain` shows."""

from __future__ import annotations

from .graph import Graph, Node
from .memory import Pool
from .operators import INTERNAL
from .program import Program


def _kind(node: Node) -> str:
    return " + ".join(node.parts) if node.domain == INTERNAL or len(node.parts) > 1 else node.op_type


def table(graph: Graph, read_nodes: int, program: Program | None, pool: Pool) -> str:
    """One line a step; shapes, algorithms and bytes are those of the shapes that ran last."""
    lines = [("step", "operators", "how", "output", "packed weights")]
    calls = {id(step.node): step.call for step in program.steps} if program else {}
    shapes = program.shapes if program else {}
    number = 0
    for node in graph.nodes:
        call = calls.get(id(node))
        if program is not None and call is None:
            continue  # computed once from the shapes of the inputs
        number += 1
        outputs = [name for name in node.outputs if name]
        shape = " x ".join(map(str, shapes[outputs[0]])) if outputs and outputs[0] in shapes else "-"
        packed = f"{call.packed_bytes:,}" if call and call.packed_bytes else "-"
        lines.append((str(number), _kind(node), call.how if call and call.how else "-", shape, packed))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    constants = sum(array.nbytes for array in graph.constants.values())
    text.append(f"{number} steps of {read_nodes} nodes, constants {constants:,} bytes")
    if program is not None:
        packed_bytes = sum(call.packed_bytes for call in calls.values())
        text.append(f"packed weights {packed_bytes:,} bytes, buffers of intermediate values {pool.peak:,} bytes")
    else:
        text.append("shapes, algorithms and memory are shown after a run")
    return "\n".join(text)
