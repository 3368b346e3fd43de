"""From a problem to what runs: the one cache, which holds numbers alone."""

from __future__ import annotations

from functools import lru_cache

from .. import _native
from .explanation import ConvExplanation, explanation
from .geometry import Geometry
from .methods.method import GradientProgram, Program
from .passes import Triple
from .problem import Direction, Problem, Use, problem
from .select import Choice, choose
from .types import DType, Types, result_of

MOST_PLANS = 512  # a few kilobytes each, forgotten oldest first


class Plan:
    """A problem, what was chosen for it, and the program: immutable, run by several threads at once."""

    __slots__ = ("axes", "choice", "problem", "program")

    def __init__(self, p: Problem, axes: int) -> None:
        self.problem, self.axes = p, axes
        self.choice: Choice = choose(p)
        self.program: Program = self.choice.method.program(p, self.choice.variant)

    @property
    def grain(self) -> Triple:
        """Outputs along each axis that are made together: at multiples of these the sums begin anew."""
        z, y, x = (max(1, n) for n in self.problem.size)
        return (z, y, x) if self.program.whole else self.choice.method.grain(self.problem, self.choice.variant)

    def explain(self, channels_last: bool, prepared: bool = False) -> ConvExplanation:
        """What it would do for contiguous arrays in such a layout; `prepared`: with packed weights."""
        return explanation(self.problem, self.choice, self.program.told(channels_last, prepared), self.axes)


@lru_cache(maxsize=MOST_PLANS)
def _plan(g: Geometry, direction: Direction, types: Types, use: Use, team: int, wish: str, isa: int) -> Plan:
    return Plan(problem(g, direction, types, use, team, wish), len(g.input_size))


def plan_for(
    g: Geometry, direction: Direction, types: Types, team: int, wish: str = "auto", use: Use = Use.ONCE
) -> Plan:
    """The plan of a forward pass or an input gradient, made or remembered."""
    return _plan(g, direction, types, use, team, wish, _native.isa_number())


@lru_cache(maxsize=MOST_PLANS)
def _gradient(g: Geometry, types: Types, team: int, wish: str, isa: int) -> GradientProgram:
    return gradient_program(problem(g, Direction.WEIGHT_GRADIENT, types, Use.ONCE, team, wish))


def gradient_for(g: Geometry, types: Types, team: int, wish: str = "auto") -> GradientProgram:
    """The program of a weight gradient, made or remembered."""
    return _gradient(g, types, team, wish, _native.isa_number())


def gradient_program(p: Problem) -> GradientProgram:
    """The program of a problem of a weight gradient."""
    choice = choose(p)
    return choice.method.gradient_program(p, choice.variant)


def pieces(
    g: Geometry, dtype: DType, wish: str, team: int, direction: Direction = Direction.FORWARD
) -> tuple[str, tuple[int, ...]]:
    """(what to ask for, the grain) for pieces of the outputs that have the bits of the whole."""
    g = g._replace(batch=max(1, g.batch))
    plan = plan_for(g, direction, Types(dtype, dtype, result_of(dtype)), team, wish)
    wanted = wish if plan.program.whole else plan.choice.wish
    return wanted, plan.grain[3 - len(g.input_size) :]
