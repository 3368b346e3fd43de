"""What became of the graphs that `torch.compile(model, backend="fastconv")` was given."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from typing import Final

KEPT: Final = 256
log: Final = logging.getLogger("fastconv.torch")


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
