"""What `InferenceSession.describe` returns, and the tables that `explain` and `profile` show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .costs import costs
from .graph import Graph, Node
from .memory import Pool
from .program import Program


def _kind(node: Node) -> str:
    return " + ".join(node.parts)


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
            "operators": _kind(node), "how": (call.told.how or None) if call else None,
            "output_shape": None if shape is None else list(shape),
            "packed_bytes": call.told.packed_bytes if call else 0,
        })  # fmt: skip
    return {
        "steps": steps,
        "nodes": read_nodes,
        "constant_bytes": graph.constant_bytes(),
        "packed_bytes": sum(call.told.packed_bytes for call in calls.values()) if program else None,
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
    text = columns(lines)
    text.append(f"{len(lines) - 1} steps of {about['nodes']} nodes, constants {about['constant_bytes']:,} bytes")
    if about["packed_bytes"] is None:
        text.append("shapes, algorithms and memory are shown after a run")
    else:
        buffers = f"buffers of intermediate values {about['buffer_bytes']:,} bytes"
        text.append(f"packed weights {about['packed_bytes']:,} bytes, {buffers}")
    return "\n".join(text)


def columns(lines: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines of cells, set in columns."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]


SHOWN: Final = 20  # steps of a printed profile


@dataclass(frozen=True)
class StepTime:
    """A step of a profile.

    Parameters
    ----------
    operators : str
        The operators that it stands for.
    how : str
        How it is done.
    shape : tuple of int
        Its result's shape.
    seconds : float
        Its mean time.
    operator : str
        The operator of the graph that computes it.
    name : str
        What the net calls it; empty where it has no name.
    why : tuple of str
        Why it is done so, and why not by each method that was asked before.
    macs : int
        Multiply-adds by the definition; 0 where they are not counted.
    weight_bytes : int
        Its weights, packed.
    moved_bytes : int
        What it reads and makes, each value and weight counted once; 0 for a view.
    used_bytes : int
        The buffers of values in which something lies while it runs.
    field : tuple of int
        The receptive field of its result, in pixels of the input; empty where that is not known.
    """

    operators: str
    how: str
    shape: tuple[int, ...]
    seconds: float
    operator: str = ""
    name: str = ""
    why: tuple[str, ...] = ()
    macs: int = 0
    weight_bytes: int = 0
    moved_bytes: int = 0
    used_bytes: int = 0
    field: tuple[int, ...] = ()


@dataclass(frozen=True)
class Profile:
    """Mean times of the steps of a session; print it for a table.

    Parameters
    ----------
    runs : int
        Over how many runs the mean is taken.
    steps : list of StepTime
        In the order of the graph.
    """

    runs: int
    steps: list[StepTime]

    @property
    def seconds(self) -> float:
        """All steps together."""
        return sum(step.seconds for step in self.steps)

    def by_operators(self) -> dict[str, tuple[int, float]]:
        """The number of steps and their seconds for each kind of step, the longest first.

        Returns
        -------
        dict
            Operators to (steps, seconds).
        """
        found: dict[str, tuple[int, float]] = {}
        for step in self.steps:
            count, seconds = found.get(step.operators, (0, 0.0))
            found[step.operators] = (count + 1, seconds + step.seconds)
        return dict(sorted(found.items(), key=lambda item: -item[1][1]))

    def __str__(self) -> str:
        total = self.seconds or 1.0
        kinds = [("ms", "share", "steps", "operators")]
        kinds += [
            (f"{seconds * 1e3:.3f}", f"{seconds / total:.1%}", str(count), kind)
            for kind, (count, seconds) in self.by_operators().items()
        ]
        slowest = [("step", "ms", "how", "output", "operators")]  # blocks share names, but no number
        slowest += [
            (
                str(number), f"{step.seconds * 1e3:.3f}", step.how or "-", " x ".join(map(str, step.shape)) or "-",
                step.operators,
            )
            for number, step in sorted(enumerate(self.steps, 1), key=lambda item: -item[1].seconds)[:SHOWN]
        ]  # fmt: skip
        head = f"{self.seconds * 1e3:.3f} ms in {len(self.steps)} steps, mean of {self.runs} runs"
        return "\n".join([head, "", *columns(kinds), "", "the slowest steps", *columns(slowest)])


def profile(program: Program, feeds: Mapping[str, Any], seconds: list[float], runs: int) -> Profile:
    """The times of a program's steps, added up over `runs` runs on these inputs, and what they cost besides."""
    return Profile(runs, [
        StepTime(
            _kind(step.node), step.call.told.how, program.shapes.get(step.node.outputs[0], ()), spent / runs,
            step.node.op_type, step.node.name, step.call.told.why, step.call.macs, *cost,
        )
        for step, spent, cost in zip(program.steps, seconds, costs(program, feeds), strict=True)
    ])  # fmt: skip
