"""A graph and the programs that were made of it: one for each set of input shapes, with weights packed once a size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from .. import _native
from .._core.arrays import Array
from .._core.forks import Guard
from .._core.threads import effective
from .graph import Graph, Node
from .memory import LARGEST_VALUE, Pool
from .program import Program, States
from .summary import Profile, StepTime, described, timed

KEPT_SHAPES: Final = 4  # sets of input shapes whose plans and packed weights are kept
KEPT_BATCHES: Final = 4  # batches of each

LEFT_BEHIND: Final = ("guard", "pool", "_families", "_states", "_straight")  # by copies

Key = tuple[Any, ...]


class Prepared:
    """A graph ready to run. Runs from several threads wait for each other."""

    def __init__(
        self, graph: Graph, threads: int | None = None, keep: int = KEPT_SHAPES, limit: int = LARGEST_VALUE,
        read_nodes: int | None = None, states: States | None = None,
    ) -> None:  # fmt: skip
        """`states` are what nodes keep, of a graph that is for one size of samples: parts of it share them."""
        self.graph, self.threads, self.keep, self.limit = graph, threads, keep, limit
        self.read_nodes = len(graph.nodes) if read_nodes is None else read_nodes
        self._states = states
        self.inner: frozenset[str] = frozenset()  # outputs that other parts of the graph alone read
        self.guard = Guard(self._drop)
        self._drop()

    def _drop(self) -> None:
        """Forget what was prepared; the next run of a shape prepares it anew."""
        self.pool = Pool(self.limit)
        # By the shapes of samples: what nodes keep for them, and the programs by whole shapes.
        self._families: OrderedDict[Key, tuple[States, OrderedDict[Key, Program]]] = OrderedDict()
        self._straight: _native.Straight | None = None  # the last run's program in one step

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles take: the graph and the options."""
        return {name: value for name, value in vars(self).items() if name not in LEFT_BEHIND}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._states = None
        self.guard = Guard(self._drop)
        self._drop()

    def run(self, feeds: Mapping[str, Any], into: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """The outputs, in memory of their own or in the arrays `into`, of their shapes."""
        found = self.straight(feeds) if into is None else None
        if found is not None:
            return found
        with self.guard.lock, np.errstate(all="ignore"):  # infinities and NaN go on as in any runtime
            program = self.program(feeds)
            found = program.run(feeds, into=into)
            self._straight = None if program.replay is None or self.inner else program.replay.straight
            return found

    def straight(self, feeds: Mapping[str, Any]) -> dict[str, Array] | None:
        """The outputs of a run like the last one that native works alone do; None where it is none: of other inputs,
        known or unknown, of other types and shapes."""
        with self.guard.lock:
            return None if self._straight is None else self._straight.run(feeds, effective(self.threads))

    def profile(self, feeds: Mapping[str, Any], runs: int) -> Profile:
        """The mean time of every step over so many runs, after those that prepare."""
        return Profile(runs, [time for _, time in self.timed(feeds, runs)])

    def timed(self, feeds: Mapping[str, Any], runs: int) -> list[tuple[Node, StepTime]]:
        """`profile`'s steps, each with the node that makes its result."""
        with self.guard.lock, np.errstate(all="ignore"):
            program = self.program(feeds)
            for _ in range(2):
                program.run(feeds)
            seconds = [0.0] * len(program.steps)
            for _ in range(runs):
                program.run(feeds, seconds)
            return timed(program, feeds, seconds, runs)

    def program(self, feeds: Mapping[str, Any]) -> Program:
        """The program for inputs of these shapes, kept with those of the last ones."""
        shapes = tuple((name, x.shape if isinstance(x, np.ndarray) else None) for name, x in feeds.items())
        sample = tuple((name, None if shape is None else shape[1:]) for name, shape in shapes)
        own = {} if self._states is None else self._states
        states, programs = _kept(self._families, sample, self.keep, lambda: (own, OrderedDict()))
        made: Program = _kept(
            programs, shapes, KEPT_BATCHES, lambda: Program(self.graph, self.pool, self.threads, states, self.inner)
        )  # fmt: skip
        return made

    @property
    def last(self) -> Program | None:
        """The program that ran last."""
        if not self._families:
            return None
        _, programs = self._families[next(reversed(self._families))]
        return programs[next(reversed(programs))] if programs else None

    def describe(self) -> dict[str, Any]:
        """The steps and the bytes, for `table`."""
        return described(self.graph, self.read_nodes, self.last, self.pool)


def _kept(held: OrderedDict[Key, Any], key: Key, most: int, make: Any) -> Any:
    """What is held for a key, made if need be; those asked for last stay."""
    found = held.get(key)
    if found is None:
        found = held[key] = make()
        while len(held) > most:
            held.popitem(last=False)
    held.move_to_end(key)
    return found
