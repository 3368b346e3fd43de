"""What `InferenceSession.describe` returns, and the table of it that `explain` shows."""

from __future__ import annotations

from typing import Any

from .graph import Graph, Node
from .memory import Pool
from .operators import INTERNAL
from .program import Program


def _kind(node: Node) -> str:
    return " + ".join(node.parts) if node.domain == INTERNAL or len(node.parts) > 1 else node.op_type


def described(graph: Graph, read_nodes: int, program: Program | None, pool: Pool) -> dict[str, Any]:
    """The steps and the bytes of a graph; shapes and algorithms are those that ran last, None before a run."""
    calls = {id(step.node): step.call for step in program.steps} if program else {}
    shapes = program.shapes if program else {}
    steps = []
    for node in graph.nodes:
        call = calls.get(id(node))
        if program is not None and call is None:
            continue  # computed once from the shapes of the inputs
        outputs = [name for name in node.outputs if name]
        shape = shapes.get(outputs[0]) if outputs else None
        steps.append({
            "operators": _kind(node), "how": (call.how or None) if call else None,
            "output_shape": None if shape is None else list(shape), "packed_bytes": call.packed_bytes if call else 0,
        })  # fmt: skip
    return {
        "steps": steps,
        "nodes": read_nodes,
        "constant_bytes": sum(array.nbytes for array in graph.constants.values()),
        "packed_bytes": sum(call.packed_bytes for call in calls.values()) if program else None,
        "buffer_bytes": pool.peak if program else None,
    }


def table(about: dict[str, Any]) -> str:
    """One line a step."""
    lines = [("step", "operators", "how", "output", "packed weights")]
    for number, step in enumerate(about["steps"], 1):
        shape = step["output_shape"]
        sizes = "-" if shape is None else " x ".join(map(str, shape))
        packed = f"{step['packed_bytes']:,}" if step["packed_bytes"] else "-"
        lines.append((str(number), step["operators"], step["how"] or "-", sizes, packed))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    text.append(f"{len(lines) - 1} steps of {about['nodes']} nodes, constants {about['constant_bytes']:,} bytes")
    if about["packed_bytes"] is None:
        text.append("shapes, algorithms and memory are shown after a run")
    else:
        buffers = f"buffers of intermediate values {about['buffer_bytes']:,} bytes"
        text.append(f"packed weights {about['packed_bytes']:,} bytes, {buffers}")
    return "\n".join(text)
