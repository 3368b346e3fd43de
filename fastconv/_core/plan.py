"""From a problem to what runs: the one cache, which holds numbers alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

from .. import _native
from .constant import BLOCK_BYTES, Cut, is_constant
from .constant_programs import PaddedGradient, PaddedProgram
from .explanation import ConvExplanation, explanation
from .geometry import Geometry
from .methods.method import GradientProgram, Program
from .passes import Triple
from .problem import Direction, Problem, Use, lifted, problem
from .select import Choice, choose
from .types import DType, Types, result_of
from .workspace import Fitted, fitted

_BLOCKS = tuple(BLOCK_BYTES >> k for k in range(0, 16, 2))  # of a padded image, where scratch is capped
MOST_PLANS = 512  # a few kilobytes each, forgotten oldest first

Made = Callable[[Problem, Choice], Program]


class Plan:
    """A problem, what was chosen for it, and the program: immutable, run by several threads at once.

    `whole` is the geometry of a padding that holds a constant, of which the problem is a block; `fit` caps scratch.
    """

    __slots__ = ("axes", "choice", "problem", "program", "whole")

    def __init__(
        self, p: Problem, axes: int, whole: Geometry | None = None, fit: Callable[[Made], Fitted] | None = None
    ) -> None:
        self.axes, self.whole = axes, whole
        self.problem, self.choice, self.program = fit(self._made) if fit else (p, c := choose(p), self._made(p, c))

    def _made(self, p: Problem, choice: Choice) -> Program:
        if choice.method.halves:
            p = p._replace(types=p.types.plain)

        def of(g: Geometry) -> Program:
            return choice.method.program(p._replace(geometry=lifted(g)), choice.variant)

        g = p.geometry
        if self.whole is None:
            return choice.method.program(p, choice.variant)
        return PaddedProgram(self.whole, Cut(g.batch, g.output_size[-self.axes :]), p.types.input.itemsize, of)

    @property
    def grain(self) -> Triple:
        """Outputs along each axis that are made together: at multiples of these the sums begin anew."""
        z, y, x = (max(1, n) for n in self.problem.size)
        return (z, y, x) if self.program.whole else self.choice.method.grain(self.problem, self.choice.variant)

    def explain(self, channels_last: bool, prepared: bool = False) -> ConvExplanation:
        """What it would do for contiguous arrays in such a layout; `prepared`: with packed weights."""
        p = self.problem if self.whole is None else self.problem._replace(geometry=lifted(self.whole))
        return explanation(p, self.choice, self.program.told(channels_last, prepared), self.axes)


@lru_cache(maxsize=MOST_PLANS)
def _plan(
    g: Geometry, direction: Direction, types: Types, use: Use, team: int, wish: str, most: int | None, first: bool,
    isa: int,
) -> Plan:
    whole = g if is_constant(g) and direction is Direction.FORWARD else None

    def asked(block: int) -> Problem:
        return problem(g, direction, types, use, team, wish, block, first)

    fit = None
    if most is not None:
        pieces = [asked(block) for block in (_BLOCKS if whole else _BLOCKS[:1])]
        fit = partial(fitted, list(dict.fromkeys(pieces)), most, g)
    return Plan(asked(BLOCK_BYTES), len(g.input_size), whole, fit)


def plan_for(
    g: Geometry, direction: Direction, types: Types, team: int, wish: str = "auto", use: Use = Use.ONCE,
    most: int | None = None, first: bool = False,
) -> Plan:  # fmt: skip
    """The plan of a forward pass or an input gradient, made or remembered; `most` caps its scratch, in bytes, and
    `first` says that a plan is for channels-first arrays."""
    return _plan(g, direction, types, use, team, wish, most, first, _native.isa_number())


@lru_cache(maxsize=MOST_PLANS)
def _gradient(g: Geometry, types: Types, team: int, wish: str, isa: int) -> GradientProgram:
    if is_constant(g):
        wide = types._replace(result=types.compute)
        return PaddedGradient(g, types.input.itemsize, lambda own: gradient_program(
            problem(own, Direction.WEIGHT_GRADIENT, wide, Use.ONCE, team, wish)
        ))  # fmt: skip
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
