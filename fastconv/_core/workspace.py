"""A cap on scratch memory: fewer threads, then smaller blocks, then another method; or a refusal that names the least.

Blocks follow from `Machine.workspace`, which every method asks; what a program then needs it says itself. Neither
threads nor blocks change a bit of a result, and another method is taken only where the caller asks for none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..errors import ConvError
from .geometry import Geometry
from .methods.method import Program
from .problem import Problem
from .select import Choice, choose

THREAD_BYTES = 512 << 10  # a thread's share below which fewer threads are better
LEAST_AIM = 1 << 10

Fitted = tuple[Problem, Choice, Program]


def _halves(first: int, least: int) -> Iterator[int]:
    while first > least:
        yield first
        first //= 2
    yield least


def fitted(
    problems: Sequence[Problem], most: int, shown: Geometry, make: Callable[[Problem, Choice], Program]
) -> Fitted:
    """A problem on fewer threads or in smaller blocks, how it is computed, and a program that needs at most `most`.

    The `problems` are one, asked in larger pieces first. `shown` is the geometry as the caller knows it.
    """
    needs = []
    for p, choice in _ways(problems, most):
        for team in _halves(max(1, min(p.machine.threads, most // THREAD_BYTES)), 1):
            for aim in _aims(p.machine.workspace, most):
                own = p._replace(machine=p.machine._replace(threads=team, workspace=aim))
                program = make(own, choice)
                needs.append(program.need(p.held))
                if needs[-1] <= most:
                    return own, choice, program
    g, wish = shown, problems[0].wish
    how, way = ("", "") if wish == "auto" else (f" with algorithm={wish!r}", ", or algorithm='auto'")
    raise ConvError(
        f"max_workspace={most} bytes are too few for input {(g.batch, g.in_channels, *g.input_size)} and kernel "
        f"{g.kernel_size}{how}: the least possible is {min(needs)}. Pass at least that{way}."
    )


def _aims(usual: int, most: int) -> list[int]:
    """What blocks may be made for: about what is allowed, less, and at last more, as needs do not follow it strictly.

    The same numbers whatever is allowed: what is named as the least possible is found when it is asked for.
    """
    aims = list(_halves(usual, LEAST_AIM))
    return [aim for aim in aims if aim < 2 * most] + [aim for aim in reversed(aims) if aim >= 2 * most]


def _ways(problems: Sequence[Problem], most: int) -> Iterator[tuple[Problem, Choice]]:
    """Every piece by the method of its choice, then, where the caller asks for none, directly."""
    chosen = [(p, choose(p)) for p in problems]
    yield from chosen
    for p, choice in chosen:
        if p.wish == "auto" and (plain := choose(p._replace(wish="direct"))).method is not choice.method:
            yield p, plain._replace(reason=f"{choice.method.title} needs more than max_workspace={most:,} bytes")
