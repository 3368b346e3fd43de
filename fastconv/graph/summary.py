"""What `InferenceSession.describe` returns, and the tables that `explain` and `profile` show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
    steps: list[dict[str, Any]] = []
    if program is None:
        runs = [[node] for node in graph.nodes]
    else:  # without what is computed once from the shapes of the inputs
        runs = [[program.steps[number].node for number in numbers] for numbers in program.at_once()]
    for nodes in runs:
        outputs = [name for name in nodes[-1].outputs if name]
        shape = shapes.get(outputs[0]) if outputs else None
        told = [calls[id(node)].told for node in nodes] if program else []
        steps.append({
            "operators": _joined(map(_kind, nodes)), "how": _done([one.how for one in told]) or None,
            "output_shape": None if shape is None else list(shape),
            "packed_bytes": sum(one.packed_bytes for one in told),
        })  # fmt: skip
    return {
        "steps": steps,
        "nodes": read_nodes,
        "constant_bytes": graph.constant_bytes(),
        "packed_bytes": sum(call.told.packed_bytes for call in calls.values()) if program else None,
        "buffer_bytes": pool.peak if program else None,
    }


def _joined(texts: Iterable[str]) -> str:
    """What is said of steps that are done at once."""
    return " + ".join(filter(None, texts))


def _done(ways: Sequence[str]) -> str:
    """How steps are done: several at once, as `_native.pair` does them."""
    return f"{_joined(ways)}, in bands of rows" if len(ways) > 1 else _joined(ways)


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


def timed(
    program: Program, feeds: Mapping[str, Any], seconds: list[float], runs: int
) -> list[tuple[Node, StepTime]]:  # fmt: skip
    """The times of a program's steps, added up over `runs` runs on these inputs, and what they cost besides; each with
    the node that makes its result."""
    apart = [
        StepTime(
            _kind(step.node), step.call.told.how, program.shapes.get(step.node.outputs[0], ()), spent / runs,
            step.node.op_type, step.node.name, step.call.told.why, step.call.macs, *cost,
        )
        for step, spent, cost in zip(program.steps, seconds, costs(program, feeds), strict=True)
    ]  # fmt: skip
    return [
        (program.steps[numbers[-1]].node, _at_once(program, numbers, [apart[number] for number in numbers]))
        for numbers in program.at_once()
    ]


def _at_once(program: Program, numbers: Sequence[int], steps: Sequence[StepTime]) -> StepTime:
    """Steps that are done at once as one, which neither writes nor reads the values between them."""
    if len(steps) == 1:
        return steps[0]
    between = sum(program.nbytes[program.steps[number].node.outputs[0]] for number in numbers[:-1])
    why = f"both at once, so that the {between / 1e6:.1f} MB between them are neither written nor read"
    return replace(
        steps[-1], operators=_joined(step.operators for step in steps), how=_done([step.how for step in steps]),
        seconds=sum(step.seconds for step in steps), name=_joined(step.name for step in steps),
        why=(why, *(reason for step in steps for reason in step.why)), macs=sum(step.macs for step in steps),
        weight_bytes=sum(step.weight_bytes for step in steps),
        moved_bytes=sum(step.moved_bytes for step in steps) - 2 * between,
        used_bytes=max(step.used_bytes for step in steps),
    )  # fmt: skip
