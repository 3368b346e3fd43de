"""What became of the modules that `accelerate` looked at, and of the graphs that `torch.compile` was given."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from typing import Final

KEPT: Final = 256
log: Final = logging.getLogger("fastconv.torch")


@dataclass(frozen=True)
class Decision:
    """What became of one module.

    Parameters
    ----------
    name : str
        Its path in the model.
    layer : str
        What it is, in short.
    swapped : bool
        Whether it is fastconv's now.
    why : str
        The reason.
    times : (float, float), optional
        PyTorch's and fastconv's seconds, where they were measured.
    kind : str
        'convolution', 'pooling', or 'call' for a function that a module's own `forward` calls.
    """

    name: str
    layer: str
    swapped: bool
    why: str
    times: tuple[float, float] | None = None
    kind: str = "convolution"


@dataclass
class Report:
    """What `accelerate` did; print it for a table.

    Parameters
    ----------
    training : bool
        Whether the model was in training mode.
    measured : bool
        Whether an example was given.
    decisions : list of Decision
        One a convolution and, where an example was given, one a kind of functional call and, in evaluation, one a
        pooling.
    channels_last : bool
        Whether the swapped convolutions hand on their results channels last.
    """

    training: bool
    measured: bool
    decisions: list[Decision] = field(default_factory=list)
    channels_last: bool = False

    @property
    def swapped(self) -> list[str]:
        """The names of the modules that are fastconv's now, and of the calls."""
        return [decision.name for decision in self.decisions if decision.swapped]

    @property
    def counts(self) -> str:
        """How many of each kind there are and were swapped."""
        kinds = dict.fromkeys(["convolution", *(decision.kind for decision in self.decisions)])
        told = []
        for kind in kinds:
            found = [decision.swapped for decision in self.decisions if decision.kind == kind]
            told.append(f"{sum(found)} of {len(found)} {kind}s")
        return ", ".join(told).replace("convolutions", "convolutions swapped", 1)

    def __str__(self) -> str:
        head = ("module", "layer", "PyTorch", "fastconv", "ratio", "now", "why")
        lines = [head]
        for d in self.decisions:
            cells = ("", "", "")
            if d.times is not None:
                theirs, ours = d.times
                cells = (f"{1e3 * theirs:.2f} ms", f"{1e3 * ours:.2f} ms", f"{theirs / ours:.2f}")
            lines.append((d.name or "(model)", d.layer, *cells, "fastconv" if d.swapped else "as it was", d.why))
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        table = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
        how = "measured on the example" if self.measured else "by rule of thumb, without an example"
        what = "forward and backward" if self.training else "forward"
        what += "; results between them channels last" if self.channels_last else ""
        table.append(f"{self.counts}, {how} ({what})")
        return "\n".join(table)


@dataclass
class CompileReport:
    """What became of one graph of `torch.compile`; print it.

    Parameters
    ----------
    operators : int
        Operators of PyTorch in the graph.
    parts : list of int
        How many of them each program of fastconv computes.
    left : dict of str to str
        Operators that are left to PyTorch, and why.
    training : int or None
        In a graph with gradients, the convolutions that fastconv computes; None in one without.
    """

    operators: int
    parts: list[int] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    training: int | None = None

    def __str__(self) -> str:
        if self.training is not None:
            return f"{self.training} convolutions of {self.operators} operators by fastconv, with gradients"
        taken = sum(self.parts)
        text = f"{taken} of {self.operators} operators in {len(self.parts)} part(s) by fastconv"
        return "\n".join([text, *(f"  {name}: {why}" for name, why in self.left.items())])


_reports: Final[deque[CompileReport]] = deque(maxlen=KEPT)


def told(report: CompileReport) -> None:
    """Keep a report and log it."""
    _reports.append(report)
    log.info("%s", report)


def compile_reports() -> list[CompileReport]:
    """What became of the graphs that were compiled last, the latest at the end; they are logged as `fastconv.torch`.

    Returns
    -------
    list of CompileReport
        One a graph: without gradients from the run on in which it is cut, with gradients one for each direction.
    """
    return list(_reports)
