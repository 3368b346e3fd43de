"""The tables that `InferenceSession.explain` and `InferenceSession.profile` show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

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
    text = _columns(lines)
    constants = sum(array.nbytes for array in graph.constants.values())
    text.append(f"{number} steps of {read_nodes} nodes, constants {constants:,} bytes")
    if program is not None:
        packed_bytes = sum(call.packed_bytes for call in calls.values())
        text.append(f"packed weights {packed_bytes:,} bytes, buffers of intermediate values {pool.peak:,} bytes")
    else:
        text.append("shapes, algorithms and memory are shown after a run")
    return "\n".join(text)


def _columns(lines: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]


SHOWN: Final = 20  # steps of a printed profile


@dataclass(frozen=True)
class StepTime:
    """A step of a profile: the operators it stands for, how it is done, its result's shape, its mean time."""

    operators: str
    how: str
    shape: tuple[int, ...]
    seconds: float


@dataclass(frozen=True)
class Profile:
    """Mean times of the steps of a session over `runs` runs, in the order of the graph; print it for a table."""

    runs: int
    steps: list[StepTime]

    @property
    def seconds(self) -> float:
        """All steps together."""
        return sum(step.seconds for step in self.steps)

    def by_operators(self) -> dict[str, tuple[int, float]]:
        """The number of steps and their seconds for each kind of step, the longest first."""
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
        slowest = [("ms", "how", "output", "operators")]
        slowest += [
            (f"{step.seconds * 1e3:.3f}", step.how or "-", " x ".join(map(str, step.shape)) or "-", step.operators)
            for step in sorted(self.steps, key=lambda step: -step.seconds)[:SHOWN]
        ]
        head = f"{self.seconds * 1e3:.3f} ms in {len(self.steps)} steps, mean of {self.runs} runs"
        return "\n".join([head, "", *_columns(kinds), "", "the slowest steps", *_columns(slowest)])


def profile(program: Program, seconds: list[float], runs: int) -> Profile:
    """The times of a program's steps, added up over `runs` runs, as a table."""
    return Profile(runs, [
        StepTime(_kind(step.node), step.call.how, program.shapes.get(step.node.outputs[0], ()), spent / runs)
        for step, spent in zip(program.steps, seconds, strict=True)
    ])  # fmt: skip
