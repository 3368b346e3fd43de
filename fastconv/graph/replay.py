"""A program's run recorded: native works are done again in one crossing of the door, the rest step by step.

Every value whose shape follows from those of the inputs keeps its home, the array in which the recorded run left it. A
step is then one of four kinds: native works on homes; a view, which is there as long as its home is; a function of
Python, whose results are copied home; and, where a shape depends on the content of a value, a function whose results
are whatever they are in this run (`LOOSE`), as of all that reads them.

The caller's inputs and the outputs that are given away are other arrays in every run: the pointers into them are moved
where natives alone read and write them, else they are copied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from .. import _native
from .._core.arrays import Array, address
from .._core.threads import effective
from .memory import Pool, contiguous

if TYPE_CHECKING:
    from .program import Step

NATIVE, VIEW, PYTHON, LOOSE = "native", "view", "Python", "loose"
MOVED_FROM: Final = 1 << 14  # bytes of an output from which on an array of its own costs less than a copy

Runner = Callable[["Step", list[Any]], tuple[Any, ...]]


class Record(NamedTuple):
    """What a step did in the recorded run."""

    step: Step
    kind: str
    works: tuple[Any, ...]  # natives
    homes: tuple[Any, ...]  # where its results lie
    own: bool  # in memory where nothing else lay in this run
    joined: bool = False  # to the next step, whose work does both

    @property
    def made(self) -> dict[str, Any]:
        """Its results by name."""
        return {name: home for name, home in zip(self.step.node.outputs, self.homes, strict=False) if name}


def kind_of(step: Step, works: Sequence[Any], inputs: Sequence[Any], results: Sequence[Any], loose: bool) -> str | None:
    """What kind of step has just run; None where a value was not finite: the works are not those of most runs."""
    results = [result for name, result in zip(step.node.outputs, results, strict=False) if name]
    if loose or not all(isinstance(result, np.ndarray) for result in results):
        return LOOSE
    if any(work.flagged for work in works):
        return None
    if step.call.native:
        return NATIVE
    if works or step.call.asked:
        return PYTHON
    return _view_or_else(step, inputs, results)


def _view_or_else(step: Step, inputs: Sequence[Any], results: Sequence[Any]) -> str:
    """Of a function that had no memory lent: views that lie the same in every run, new arrays, or something between."""
    shared = [
        [at for at, x in enumerate(inputs) if isinstance(x, np.ndarray) and np.may_share_memory(result, x)]
        for result in results if result.size
    ]  # fmt: skip
    if not any(shared):
        return PYTHON if shared else VIEW
    chosen = {at for places in shared for at in places}
    fixed = all(step.call.is_constant(at) for at, x in enumerate(inputs) if x is not None and at not in chosen)
    return VIEW if fixed and all(shared) else LOOSE


def _paired(records: Sequence[Record], outputs: Sequence[str]) -> list[Record]:
    """The records, where the works of two steps that follow each other are one if natives know how: then they are the
    second's, and the value between them, which nothing else reads, is not made."""
    found = list(records)
    uses = Counter([*outputs, *(name for record in records for name in set(record.step.node.inputs))])
    for at in range(1, len(found)):
        first, second = found[at - 1 : at + 1]
        if first.kind != NATIVE or second.kind != NATIVE or len(first.works) != 1 or len(second.works) != 1:
            continue
        between = [name for name in first.made if name in second.step.node.inputs]
        if len(first.made) == len(between) == 1 and uses[between[0]] == 1:
            work = _native.pair(first.works[0], second.works[0])
            if work is not None:
                found[at - 1], found[at] = first._replace(works=(), joined=True), second._replace(works=(work,))
    return found


def _lying_as(home: Array, array: Any) -> Any:
    """An array with the strides of its home, itself if it has them."""
    if array.strides == home.strides and array.flags.aligned and array.dtype == home.dtype:
        return array
    made = np.empty_like(home)
    np.copyto(made, array)
    return made


class Replay:
    """A recorded run, to be done again with other inputs. Not for several threads at once.

    `feeds` are arrays of its own, on which the run was recorded; `run` computes a step's results from its inputs.
    """

    def __init__(
        self, run: Runner, records: Sequence[Record], feeds: Mapping[str, Array], fixed: Mapping[str, Array],
        outputs: Sequence[str], pool: Pool, threads: int | None,
    ) -> None:  # fmt: skip
        self.records, self.outputs = _paired(records, outputs), list(outputs)
        self._run_step, self._aside, self._threads = run, Pool(pool.limit), threads
        self._homes: dict[str, Any] = {"": None, **fixed, **feeds}
        for record in records:
            self._homes.update(record.made)
        self._at_home = {id(home) for home in self._homes.values()}
        self._last = self._last_loose()
        self._place_works()
        self._move(feeds)
        self.straight = self._in_one_step(feeds)

    def _place_works(self) -> None:
        """Which works are whose, and which steps follow each other without Python."""
        self._first = [0]
        for record in self.records:
            self._first.append(self._first[-1] + len(record.works))
        self._owner = [at for at, record in enumerate(self.records) for _ in record.works]
        groups = groupby(range(len(self.records)), lambda at: self.records[at].kind in (PYTHON, LOOSE))
        self._stretches = [(by_hand, steps[0], steps[-1] + 1) for by_hand, group in groups for steps in [list(group)]]

    def _last_loose(self) -> dict[int, list[str]]:
        """Loose values that die with each step."""
        loose = {name for record in self.records if record.kind == LOOSE for name in record.made}
        last: dict[str, int] = {}
        for at, record in enumerate(self.records):
            for name in (*record.step.node.inputs, *record.made):
                if name in loose and name not in self.outputs:
                    last[name] = at
        dying: dict[int, list[str]] = {}
        for name, at in last.items():
            dying.setdefault(at, []).append(name)
        return dying

    # ---- memory that is other in every run ------------------------------------------------------------------------

    def _move(self, feeds: Mapping[str, Array]) -> None:
        """Find the inputs and outputs that are moved: arrays whose pointers natives alone have."""
        inputs = [name for name, array in feeds.items() if isinstance(array, np.ndarray) and array.size]
        outputs = [name for name in dict.fromkeys(self.outputs) if name not in inputs and self._given_away(name)]
        seen = self._seen_by_hand(outputs) | (feeds.keys() & set(self.outputs))  # these are handed out from home
        arrays = [self._homes[name] for name in (*inputs, *outputs)]
        regions = [(address(array), array.nbytes) for array in arrays]
        self.net = _native.Net([work for record in self.records for work in record.works], regions)
        movable = {
            name: at for at, name in enumerate((*inputs, *outputs))
            if self.net.movable[at] and seen.isdisjoint(self._alike(name))
        }  # fmt: skip
        self._inputs = {name: movable.get(name) for name in inputs}
        self._given = {name: movable[name] for name in outputs if name in movable}

    def _in_one_step(self, feeds: Mapping[str, Array]) -> _native.Straight | None:
        """What does a run without the steps of Python around it, where native works alone make the outputs."""
        homes, given = self._homes, self._given
        whole = all(self._inputs.get(name) is not None for name in feeds) and feeds.keys().isdisjoint(self.outputs)
        if not whole or len(set(self.outputs)) < len(self.outputs) or any(by_hand for by_hand, *_ in self._stretches):
            return None
        if not all(isinstance(homes[name], np.ndarray) for name in self.outputs):
            return None
        return _native.Straight(
            self.net, [(name, homes[name], region) for name, region in self._inputs.items() if region is not None],
            [(name, homes[name], given.get(name, -1)) for name in self.outputs], contiguous,
        )  # fmt: skip

    def _alike(self, name: str) -> list[str]:
        """The names of all that lies where a value does, from its beginning to its end: itself, and what only turns or
        reshapes it."""
        home = self._homes[name]
        return [name, *(
            other for record in self.records for other, place in record.made.items()
            if isinstance(place, np.ndarray) and place.nbytes == home.nbytes and address(place) == address(home)
        )]  # fmt: skip

    def _given_away(self, name: str) -> bool:
        """Whether an output is made in an array of its own each run: one in which no other output lies."""
        home, others = self._homes[name], [self._homes[other] for other in self.outputs if other != name]
        arrays = [other for other in others if isinstance(other, np.ndarray)]
        if not isinstance(home, np.ndarray) or any(np.may_share_memory(home, other) for other in arrays):
            return False
        alike = self._alike(name)
        return home.nbytes >= MOVED_FROM and any(
            record.own and record.kind == NATIVE and not record.made.keys().isdisjoint(alike) for record in self.records
        )

    def _seen_by_hand(self, given: Sequence[str]) -> set[str]:
        """Values that a step of Python or the caller reads, and those that these are views of; but for outputs that are
        `given` away."""
        seen: set[str] = set()
        handed = set(self.outputs) - set(given)
        for record in reversed(self.records):
            viewed = record.kind == VIEW and any(name in seen or name in handed for name in record.made)
            if viewed or record.kind in (PYTHON, LOOSE):
                seen.update(record.step.node.inputs)
        return seen

    # ---- a run ----------------------------------------------------------------------------------------------------

    def run(
        self, feeds: Mapping[str, Any], seconds: list[float] | None = None, into: Mapping[str, Array] | None = None
    ) -> dict[str, Any]:
        """The outputs, each in memory of its own or `into` an array where it can be; the time of each step is added to
        `seconds`."""
        held = {name: _lying_as(self._homes[name], feeds[name]) for name in self._inputs}
        given = {name: self._place(name, into) for name in self._given}
        for name, region in self._inputs.items():
            if region is None:
                np.copyto(self._homes[name], held[name])
            else:
                self.net.move(region, held[name])
        for name, region in self._given.items():
            self.net.move(region, given[name])
        values = {**held, **given}
        loose: dict[str, Any] = {name: value for name, value in feeds.items() if name not in self._inputs}
        try:
            for by_hand, begin, end in self._stretches if seconds is None else self._singly():
                start = perf_counter() if seconds is not None else 0.0
                if by_hand:
                    for at in range(begin, end):
                        self._by_hand(at, loose)
                else:
                    self._natively(begin, end, values)
                if seconds is not None:
                    seconds[begin] += perf_counter() - start
            return {name: self._result(name, given, loose, into) for name in self.outputs}
        finally:
            self._aside.finish()

    def _result(
        self, name: str, given: Mapping[str, Array], loose: Mapping[str, Any], into: Mapping[str, Array] | None
    ) -> Any:
        """An output as the caller may keep it: what lies at home is copied."""
        if name in given:
            return given[name]
        if name in loose and id(loose[name]) not in self._at_home:
            return loose[name]
        if into is None:
            home = loose.get(name, self._homes[name])
            return contiguous(home, effective(self._threads)) if isinstance(home, np.ndarray) else home
        np.copyto(into[name], loose.get(name, self._homes[name]))
        return into[name]

    def _place(self, name: str, into: Mapping[str, Array] | None) -> Array:
        """Where an output is made: in the array that is to hold it if it lies as its home does."""
        home, wanted = self._homes[name], (into or {}).get(name)
        fits = wanted is not None and wanted.strides == home.strides and wanted.dtype == home.dtype
        return wanted if wanted is not None and fits and wanted.flags.behaved else np.empty_like(home)

    def _singly(self) -> list[tuple[bool, int, int]]:
        return [(by_hand, at, at + 1) for by_hand, begin, end in self._stretches for at in range(begin, end)]

    def _natively(self, begin: int, end: int, values: Mapping[str, Array]) -> None:
        """Steps begin .. end - 1; one whose values are not finite is done again by its function."""
        at, last, threads = self._first[begin], self._first[end], effective(self._threads)
        while (at := self.net.run(at, last, threads)) < last:
            step = self._owner[at]
            for name, value in values.items():  # the function takes all from home
                np.copyto(self._homes[name], value)
            self._by_hand(step, {})
            for name in self._given:  # it, or what lies there under another name, may have been made anew
                np.copyto(values[name], self._homes[name])
            at = self._first[step + 1]

    def _by_hand(self, at: int, loose: dict[str, Any]) -> None:
        """The function of a step, its results copied home or, where they have none, left `loose`."""
        record = self.records[at]
        call, node = record.step.call, record.step.node
        before, call.pool, call.target, dying, call.dying = (call.pool, call.target), self._aside, None, call.dying, ()
        try:
            results = self._run_step(
                record.step, [loose[name] if name in loose else self._homes[name] for name in node.inputs]
            )
        finally:
            (call.pool, call.target), call.dying = before, dying
        if record.kind == LOOSE:
            for name, value in zip(node.outputs, results, strict=False):
                if name:
                    self._aside.retain(value)
                    loose[name] = value
        else:
            for name, home, value in zip(node.outputs, record.homes, results, strict=False):
                if name:
                    np.copyto(home, value)
        self._aside.settle()
        for name in self._last.get(at, ()):
            self._aside.release(loose.pop(name))
