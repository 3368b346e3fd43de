"""A row for a net of the zoo: every library in a process of its own, turn by turn, or all of them in one process."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, Final

import numpy as np

from .cases import NET
from .measure import TOLERANCE, Candidate
from .peers import NotOffered
from .processes import START_LIMIT, Worker, WorkerError, neighbours
from .quantised import quantise_file
from .report import OURS, Row, Timing
from .runtimes import ANSWER, FLOAT32, INT8, RUNTIMES, Job, holding
from .suite import ProcessorSeconds, fma_peak, outside_share, processor_seconds, timed_row
from .worker import error_of
from .zoo.catalogue import ZooNet
from .zoo.graph import Buildable

SET: Final = "zoo"
TURN: Final = 0.1  # seconds of a turn, long against what waking up costs; beside busy processes three times as long
MORE_BESIDE: Final = 3


@dataclass(frozen=True)
class ZooCase:
    """A net at one batch."""

    net: ZooNet
    batch: int = 1
    precision: str = FLOAT32

    @property
    def label(self) -> str:
        named = f"{self.net.name}, batch {self.batch}"
        return named if self.precision == FLOAT32 else f"{named}, {self.precision}"


    @property
    def columns(self) -> int | None:
        """The axis of results whose columns are compared each by itself."""
        return self.net.columns


@dataclass(frozen=True)
class Method:
    """How a net is measured."""

    threads: int
    rounds: int
    seconds: float | None = None  # a net instead of rounds
    busy: tuple[int, ...] = (0,)
    turn: float = TURN


def missing_runtimes(peers: Sequence[str]) -> dict[str, str]:
    """Those of the libraries that are not installed, which is seen without importing them."""
    found = {}
    for peer in peers:
        try:
            RUNTIMES[peer].version()
        except PackageNotFoundError:
            found[peer] = f"{RUNTIMES[peer].package} is not installed"
    return found


@dataclass
class _Timed:
    """A library that answered: what it said when it was ready, and its times beside so many busy processes."""

    peer: str
    variant: str
    worker: Worker
    told: dict[str, Any]
    samples: dict[int, list[float]] = field(default_factory=dict)


@contextmanager
def _files(case: ZooCase) -> Iterator[tuple[Path, Buildable]]:
    """A folder with the net, what is fed, and how results are compared; and the net as it was built."""
    graph = case.net.build(case.batch)
    with tempfile.TemporaryDirectory(prefix="fastconv-zoo-") as name:
        folder = Path(name)
        (folder / "net.onnx").write_bytes(graph.model().SerializeToString())
        np.save(folder / "x.npy", graph.feeds())
        if case.precision == INT8:
            quantise_file(folder, graph.input_shape)
        options = {"columns": case.columns, "precision": case.precision}
        (folder / "options.json").write_text(json.dumps(options), encoding="utf-8")
        yield folder, graph


def _described(case: ZooCase, graph: Buildable) -> dict[str, Any]:
    return {
        "set": SET, "layer": case.label, "family": case.net.side, "pass_name": NET, "macs": graph.macs,
        "shape": {"input": list(graph.input_shape), "dtype": case.precision},
    }  # fmt: skip


def run_zoo(case: ZooCase, peers: Sequence[str], method: Method) -> Row:
    """Time one net by ours and by these, each in a process of its own, their turns by rotation."""
    with _files(case) as (folder, graph), ExitStack() as stack:
        with Worker(ANSWER, "", folder, method.threads) as answer:
            answer.reply(START_LIMIT)
        if not (folder / "answer.npy").exists():
            raise WorkerError(f"{case.label}: nobody could compute what the right answer is")
        absent: dict[str, str] = {}
        timed = [
            one for peer in (OURS, *peers) for variant in RUNTIMES[peer].variants
            if (one := _ready(stack, peer, variant, folder, method.threads, absent))
        ]  # fmt: skip
        peak = fma_peak(method.threads)
        outside = _rounds(timed, 0, method, absent)
        for busy in dict.fromkeys(method.busy):
            if busy:
                _rounds(timed, busy, method, absent)
        right = {one.peer for one in timed}
        return Row(
            peak_gflops=peak, timings=[_timing(one, case.precision) for one in timed], outside=outside,
            absent={peer: reason for peer, reason in absent.items() if peer not in right}, **_described(case, graph),
        )  # fmt: skip


def _ready(
    stack: ExitStack, peer: str, variant: str, folder: Path, threads: int, absent: dict[str, str]
) -> _Timed | None:
    """A library that has loaded the net and run it once; None, and why in `absent`."""
    worker = stack.enter_context(Worker(peer, variant, folder, threads))
    try:
        told = worker.reply(START_LIMIT)
    except WorkerError as error:
        told = {"absent": f"failed: {error}"}
    if "absent" in told:
        absent.setdefault(peer, told["absent"])
        worker.close()
        return None
    return _Timed(peer, variant, worker, told)


def _rounds(timed: list[_Timed], busy: int, method: Method, absent: dict[str, str]) -> float | None:
    """Turns of everybody beside busy processes, the first one another each round; the share that others took."""
    before, own, made = processor_seconds(), 0.0, 0
    seconds = method.turn * (MORE_BESIDE if busy else 1)
    spent = 0.0
    with neighbours(busy):
        while made < method.rounds if method.seconds is None else made < 3 or spent < method.seconds:
            for step in range(len(timed)):
                one = timed[(step + made) % len(timed)]
                try:
                    reply = one.worker.turn(seconds)
                except WorkerError as error:
                    absent[one.peer] = f"failed: {error}"
                    one.told["gone"] = True
                    continue
                one.samples.setdefault(busy, []).extend(reply["samples"])
                own += reply["cpu"]
                spent += sum(reply["samples"])
            timed[:] = [one for one in timed if "gone" not in one.told]
            made += 1
    after = processor_seconds()
    if busy or before is None or after is None:
        return None
    return outside_share(before, ProcessorSeconds(after.all, after.busy, before.own + own))


def _timing(one: _Timed, precision: str) -> Timing:
    idle = one.samples[0]
    error = one.told["error"]
    error = float("inf") if error is None else error
    beside = {
        str(busy): [statistics.median(times), float(np.percentile(times, 95))] for busy, times in one.samples.items()
    }
    return Timing(
        one.peer, one.variant, statistics.median(idle), min(idle), len(idle), error, error <= TOLERANCE[precision],
        load=one.told["load"], first=one.told["first"], base=one.told["base"], peak=one.told["peak"], beside=beside,
    )  # fmt: skip


# ---- in one process ------------------------------------------------------------------------------------------------


def run_zoo_together(case: ZooCase, peers: Sequence[str], method: Method) -> Row:
    """Time one net by everybody in this process; what loading takes and memory cannot be told apart here."""
    with _files(case) as (folder, graph), holding((OURS, *peers), method.threads):
        with Worker(ANSWER, "", folder, method.threads) as worker:
            worker.reply(START_LIMIT)
        answer = np.load(folder / "answer.npy")
        job = Job(str(folder / "net.onnx"), np.load(folder / "x.npy"), method.threads, case.precision)

        def made(peer: str) -> list[Candidate]:
            found, reason = [], NotOffered("no variant")
            for variant in RUNTIMES[peer].variants:
                try:
                    call = RUNTIMES[peer].prepare(job, variant)()
                except NotOffered as why:
                    reason = why
                    continue
                one = Candidate(peer, variant, call.run, call.read)
                one.error = error_of(one.read(one.run()), answer, case.precision, case.columns)
                one.correct = one.error <= TOLERANCE[case.precision]
                found.append(one)
            if not found:
                raise reason
            return found

        candidates, absent = made(OURS), {}
        for peer in peers:
            try:
                candidates += made(peer)
            except NotOffered as reason:
                absent[peer] = str(reason)
            except Exception as error:  # whatever another library raises: it is named, and the others go on
                absent[peer] = f"failed: {type(error).__name__}: {error}".splitlines()[0]
        return timed_row(
            candidates, absent, method.threads, method.rounds, method.seconds, "float32", **_described(case, graph)
        )
