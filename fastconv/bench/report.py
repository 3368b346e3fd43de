"""Rows of figures, and what is made of them: results files, ratios, means and tables."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from .._core.files import read_text
from .cases import PASS_WORDS
from .measure import geometric_mean

SCHEMA: Final = 2
DIGITS: Final = 7  # of a figure in a results file; a table shows three, and rounding twice must not change them
MOST_BYTES: Final = 1 << 26  # of a file of results; they have some hundred thousand
# The best peer is the fastest of these; the NumPy baselines stand in only where none of them ran.
LIBRARIES: Final = ("torch", "torch.compile", "onnxruntime", "openvino", "ncnn", "litert")
OURS: Final = "fastconv"
HELD_OUT: Final = "held out"
FIRST: Final = ("NCHW", "contiguous", "plain")  # variants whose arrays have channels first and are not blocked
# Share of the machine's processor time from which on other processes may have spoilt the figures: on two cores a
# thread that waits for a foreign process costs whole ticks of the scheduler, thousands of times a small layer.
DISTURBED: Final = 0.1


@dataclass(frozen=True)
class Timing:
    """One candidate's figures: median and least seconds of a call, max error / max magnitude."""

    peer: str
    variant: str
    seconds: float
    fastest: float
    samples: int
    error: float
    correct: bool = True
    note: str = ""
    load: float | None = None  # of a process of its own: seconds from the file to a session, and of the first run
    first: float | None = None
    base: int | None = None  # bytes of the process before it loaded, and at most until the first run was over
    peak: int | None = None
    beside: dict[str, list[float]] = field(default_factory=dict)  # busy processes → median and 95th percentile


@dataclass(frozen=True)
class Row:
    """One layer in one pass."""

    set: str
    layer: str
    family: str
    pass_name: str
    macs: int
    shape: dict[str, Any]
    peak_gflops: float
    timings: list[Timing]
    counted: bool = True
    count: int = 1
    absent: dict[str, str] = field(default_factory=dict)
    outside: float | None = None  # share of the machine that other processes took meanwhile, where the system says
    held_out: bool = False  # whether no constant was chosen by looking at it

    def of(self, peer: str) -> Timing | None:
        """The fastest correct timing of a peer, over its memory formats."""
        return min((t for t in self.timings if t.peer == peer and t.correct), key=lambda t: t.seconds, default=None)

    @property
    def best_peer(self) -> Timing | None:
        """The fastest correct timing of the libraries, else of the baselines."""
        for library in (True, False):
            right = [
                t for t in self.timings if t.correct and t.peer != OURS and (t.peer in LIBRARIES) is library
            ]  # fmt: skip
            if right:
                return min(right, key=lambda t: t.seconds)
        return None

    @property
    def best_alike(self) -> Timing | None:
        """The fastest correct timing of the libraries on arrays with channels first; None if ours have them last."""
        ours = self.of(OURS)
        alike = [t for t in self.timings if t.correct and t.peer in LIBRARIES and t.variant in FIRST]
        return min(alike, key=lambda t: t.seconds, default=None) if ours and ours.variant in FIRST else None

    def ratio(self, peer: Timing | None) -> float:
        """How many times faster than `peer` we are; NaN without a correct answer of both."""
        ours = self.of(OURS)
        return peer.seconds / ours.seconds if ours and peer else math.nan

    def gflops(self, timing: Timing | None) -> float:
        """Effective GFLOP/s: two a multiply-add of direct convolution, whatever the algorithm; NaN without a timing."""
        return 2e-9 * self.macs / timing.seconds if timing else math.nan

    @property
    def share_of_peak(self) -> float:
        return self.gflops(self.of(OURS)) / self.peak_gflops if self.macs else math.nan


@dataclass
class Report:
    """A run: where, when, with whom, and its rows."""

    date: str
    machine: dict[str, Any]
    fastconv: dict[str, Any]
    threads: int
    layout: str
    python: str
    versions: dict[str, str]
    missing: dict[str, str]
    environment: dict[str, str]
    timing: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    memory: list[dict[str, Any]] = field(default_factory=list)  # see `memory.peak_memory`


# ---- results files: JSON Lines, what was measured and nothing that follows from it ---------------------------------


def json_lines(report: Report, ascii_only: bool = False) -> str:
    """A line for the run, which has the schema, one for each row, and one for each network whose memory was measured.

    `ascii_only` escapes the × and → of names, which a terminal's encoding may lack.
    """
    run = {"schema": SCHEMA} | _stored(report)
    below = run.pop("rows", []) + run.pop("memory", [])
    return "".join(json.dumps(line, ensure_ascii=ascii_only, allow_nan=False) + "\n" for line in [run, *below])


def read(path: str | Path) -> list[Report]:
    """The runs of a results file, which may be the output of several runs one after another.

    Raises ValueError for a file that does not open with a run of this schema.
    """
    reports: list[Report] = []
    for line in filter(None, read_text(path, MOST_BYTES).split("\n")):
        content = json.loads(line)
        if "schema" in content or not reports:
            schema = content.pop("schema", None)
            if schema != SCHEMA:
                raise ValueError(f"{path} has schema {schema!r}; this version reads schema {SCHEMA}.")
            reports.append(Report(**content))
        elif "layer" in content:
            timings = [Timing(**{**timing, "error": _error(timing["error"])}) for timing in content["timings"]]
            reports[-1].rows.append(Row(**content | {"timings": timings}))
        else:
            reports[-1].memory.append(content)
    return reports


def _stored(value: Any) -> Any:
    """As JSON has it: objects without the fields that are at their defaults, rounded figures, null for infinity."""
    if isinstance(value, (Report, Row, Timing)):
        kept = {f.name: getattr(value, f.name) for f in fields(value)}
        plain = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(value)}
        return {name: _stored(one) for name, one in kept.items() if one != plain[name]}
    if isinstance(value, list):
        return [_stored(one) for one in value]
    if isinstance(value, dict):
        return {key: _stored(one) for key, one in value.items()}
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def _error(stored: float | None) -> float:
    return math.inf if stored is None else stored


# ---- means ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """Geometric means of our ratios over a set's layers, or over one family of them."""

    set: str
    pass_name: str
    family: str | None
    layers: int
    over_best: float  # NaN where nobody else was right, as share_of_peak where we were not
    least: float  # of the ratios to the best peer
    least_layer: str | None
    slower: int  # layers on which the best peer is faster
    alike: float  # the mean over the best peer on arrays with channels first; NaN if ours have them last
    over: dict[str, float]  # peer → geometric mean over the layers that it computed rightly
    share_of_peak: float


def groups(rows: Iterable[Row]) -> list[tuple[str, str, list[Row]]]:
    """The rows by set and pass, in the order of their first rows."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.set, row.pass_name), []).append(row)
    return [(*key, some) for key, some in found.items()]


def summaries(rows: Iterable[Row]) -> list[Summary]:
    """The means of each set and pass, then of its families where it has several."""
    result = []
    for set_name, pass_name, some in groups(rows):
        counted = [row for row in some if row.counted]
        if counted:
            result.append(_summary(set_name, pass_name, None, counted))
        families = list(dict.fromkeys(row.family for row in counted))
        held_out = [row for row in counted if row.held_out]
        if held_out:
            result.append(_summary(set_name, pass_name, HELD_OUT, held_out))
        if len(families) > 1:
            result += [_summary(set_name, pass_name, f, [r for r in counted if r.family == f]) for f in families]
    return result


def _summary(set_name: str, pass_name: str, family: str | None, rows: Sequence[Row]) -> Summary:
    best = {row.layer: ratio for row in rows if math.isfinite(ratio := row.ratio(row.best_peer))}
    least = min(best, key=lambda layer: best[layer], default=None)
    peers = dict.fromkeys(t.peer for row in rows for t in row.timings if t.peer != OURS)
    over = {}
    for peer in peers:
        ratios = [ratio for row in rows if math.isfinite(ratio := row.ratio(row.of(peer)))]
        if ratios:
            over[peer] = geometric_mean(ratios)
    return Summary(
        set_name, pass_name, family, len(rows), geometric_mean(best.values()),
        math.nan if least is None else best[least], least, sum(ratio < 1 for ratio in best.values()),
        geometric_mean(ratio for row in rows if math.isfinite(ratio := row.ratio(row.best_alike))), over,
        geometric_mean(r.share_of_peak for r in rows if math.isfinite(r.share_of_peak)),
    )  # fmt: skip


def network_seconds(rows: Sequence[Row], peer: str) -> float | None:
    """The time of all convolutions of the network whose distinct layers these are; None if one is missing."""
    timings = [(row.count, row.of(peer)) for row in rows]
    if not all(timing for _, timing in timings):
        return None
    return sum(count * timing.seconds for count, timing in timings if timing)


# ---- tables --------------------------------------------------------------------------------------------------------


def seconds_text(seconds: float) -> str:
    """Three digits in a readable unit."""
    if not math.isfinite(seconds):
        return "–"
    if seconds >= 1:
        return f"{seconds:.3g} s"
    if seconds >= 1e-4:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds * 1e6:.3g} µs"


def times_text(ratio: float) -> str:
    """A ratio."""
    return f"{ratio:.2f}×" if math.isfinite(ratio) else "–"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if math.isfinite(share) else "–"


def _peer_cell(row: Row, peer: str) -> str:
    """Effective GFLOP/s, or why there are none; the time where a layer is so small that only that matters."""
    timing = row.of(peer)
    if timing is None:
        return "wrong" if any(t.peer == peer for t in row.timings) else "–"
    return seconds_text(timing.seconds) if row.macs < 1e6 else f"{row.gflops(timing):.0f}"


def layer_table(rows: Sequence[Row]) -> list[list[str]]:
    """One line a layer under a heading: our time and GFLOP/s, everybody's GFLOP/s, and the ratios."""
    peers = list(dict.fromkeys(t.peer for row in rows for t in row.timings if t.peer != OURS))
    torch = "torch" in peers
    algorithms = any(t.note for row in rows for t in row.timings if t.peer == OURS)
    heading = ["layer", *(["algorithm"] if algorithms else []), "time", "GFLOP/s", "of peak", *peers]
    alike = any(row.best_alike for row in rows)
    heading += ["best peer", "× best", *["× best NCHW"] * alike, *(["× torch"] if torch else [])]
    lines = [heading]
    for row in rows:
        ours, best = row.of(OURS), row.best_peer
        lines.append(
            [
                row.layer, *([ours.note if ours else ""] if algorithms else []),
                seconds_text(ours.seconds) if ours else "wrong", _peer_cell(row, OURS),
                _percent(row.share_of_peak), *(_peer_cell(row, peer) for peer in peers), best.peer if best else "–",
                times_text(row.ratio(best)), *[times_text(row.ratio(row.best_alike))] * alike,
                *([times_text(row.ratio(row.of("torch")))] if torch else []),
            ]
        )  # fmt: skip
    return lines


def summary_table(rows: Sequence[Row]) -> list[list[str]]:
    """Geometric means: one line a set and family, with the layer that is furthest behind."""
    means = summaries(rows)
    peers = list(dict.fromkeys(peer for mean in means for peer in mean.over))
    alike = any(math.isfinite(mean.alike) for mean in means)
    heading = ["set", "pass", "layers", "n", "× best", *["× best NCHW"] * alike, "slower", "least", "of", "of peak"]
    lines = [[*heading, *(f"× {peer}" for peer in peers)]]
    for mean in means:
        lines.append(
            [
                mean.set, mean.pass_name, mean.family or "all", str(mean.layers), times_text(mean.over_best),
                *[times_text(mean.alike)] * alike, str(mean.slower),
                times_text(mean.least), mean.least_layer or "–", _percent(mean.share_of_peak),
                *(times_text(mean.over.get(peer, math.nan)) for peer in peers),
            ]
        )  # fmt: skip
    return lines


def summary_text(rows: Sequence[Row]) -> str:
    """The same for the terminal."""
    return text_table(summary_table(rows))


def text_table(lines: Sequence[Sequence[str]]) -> str:
    """Aligned columns for a terminal: the first to the left, figures to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]

    def join(line: Sequence[str]) -> str:
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        return "  ".join([line[0].ljust(widths[0]), *cells[1:]]).rstrip()

    return "\n".join([join(lines[0]), "  ".join("─" * width for width in widths), *map(join, lines[1:])])


def title(set_name: str, pass_name: str) -> str:
    return f"{set_name}, {PASS_WORDS[pass_name]}"


def group_text(set_name: str, pass_name: str, rows: Sequence[Row]) -> str:
    """A set and pass for the terminal."""
    parts = [title(set_name, pass_name), text_table(layer_table(rows)), "", *group_lines(rows)]
    return "\n".join(parts)


def group_lines(rows: Sequence[Row]) -> list[str]:
    """What goes under a table: means, the whole network, doubtful figures, peers that do not offer a layer."""
    lines = []
    whole = next(iter(summaries(rows)), None)
    if whole and math.isfinite(whole.over_best):
        over = ", ".join(f"{times_text(mean)} {peer}" for peer, mean in whole.over.items())
        lines.append(
            f"Geometric mean over {whole.layers} layers: {times_text(whole.over_best)} the best peer, least "
            f"{times_text(whole.least)} ({whole.least_layer}); {over}."
        )
    if any(row.count > 1 for row in rows):
        peers = dict.fromkeys([OURS, *(t.peer for row in rows for t in row.timings)])
        totals = {peer: network_seconds(rows, peer) for peer in peers}
        words = ", ".join(f"{peer} {seconds_text(total)}" for peer, total in totals.items() if total is not None)
        lines.append(f"All convolutions of the network, each as often as it occurs: {words}.")
    for row in rows:
        lines += [
            f"Wrong: {t.peer} ({t.variant}) on {row.layer}, error {t.error:.1e} of the largest magnitude; not counted."
            for t in row.timings if not t.correct
        ]  # fmt: skip
    lines += [
        f"Disturbed: other processes took {_percent(row.outside)} of the machine during {row.layer}; measure it again."
        for row in rows if row.outside is not None and row.outside > DISTURBED
    ]  # fmt: skip
    reasons = dict.fromkeys((peer, reason) for row in rows for peer, reason in row.absent.items())
    lines += [f"{peer}: {reason}." for peer, reason in reasons]
    return lines


def memory_lines(report: Report) -> list[str]:
    """What inference of whole networks occupies beside the weights."""
    lines = []
    for entry in report.memory:
        if entry["peak_bytes"] is None:
            lines.append(f"Memory of {entry['net']}: not measured, {entry['why']}.")
            continue
        lines.append(
            f"Memory of {entry['net']} at batch 1 beside the weights: at most {entry['peak_bytes'] / 1e6:.1f} MB, "
            f"{entry['peak_bytes'] / entry['pair_bytes']:.2f} of its largest pair of activations "
            f"({entry['pair_bytes'] / 1e6:.1f} MB); weights {entry['weight_bytes'] / 1e6:.0f} MB, packed "
            f"{entry['packed_bytes'] / 1e6:.0f} MB."
        )
    return lines


def heading_lines(report: Report) -> list[str]:
    """Machine, versions and method in a few lines."""
    machine, own = report.machine, report.fastconv
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}; {report.threads} threads; {report.date}",
        f"fastconv {own['version']}, ISA {own['isa']}, {report.layout}; {versions}; Python {report.python}",
    ]
    if report.environment:
        lines.append("Environment: " + ", ".join(f"{name}={value}" for name, value in report.environment.items()))
    lines += [f"{peer} skipped: {reason}" for peer, reason in report.missing.items()]
    return lines
