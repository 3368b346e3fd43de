"""Rows of figures, and what is made of them: ratios, means, tables, results files and the page of the documentation."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from ..files import read_text
from .cases import PASS_WORDS
from .measure import geometric_mean

SCHEMA: Final = 1
MOST_BYTES: Final = 1 << 26  # of a file of results; they have some hundred thousand
# The best peer is the fastest of these; the NumPy baselines stand in only where none of them ran.
LIBRARIES: Final = ("torch", "onnxruntime", "openvino", "ncnn")
OURS: Final = "fastconv"
# Share of the machine's processor time from which on other processes may have spoilt the figures: on two cores a
# thread that waits for a foreign process costs whole ticks of the scheduler, thousands of times a small layer.
DISTURBED: Final = 0.1


@dataclass(frozen=True)
class Timing:
    """One candidate's figures: median and least seconds of a call, effective GFLOP/s, max error / max magnitude."""

    peer: str
    variant: str
    seconds: float
    fastest: float
    samples: int
    gflops: float
    error: float
    correct: bool
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One layer in one pass."""

    set: str
    layer: str
    family: str
    pass_name: str
    counted: bool
    count: int
    macs: int
    shape: dict[str, Any]
    peak_gflops: float
    timings: list[Timing]
    absent: dict[str, str] = field(default_factory=dict)
    outside: float | None = None  # share of the machine that other processes took meanwhile, where the system says

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

    def ratio(self, peer: Timing | None) -> float:
        """How many times faster than `peer` we are; NaN without a correct answer of both."""
        ours = self.of(OURS)
        return peer.seconds / ours.seconds if ours and peer else math.nan

    @property
    def share_of_peak(self) -> float:
        ours = self.of(OURS)
        return ours.gflops / self.peak_gflops if ours else math.nan


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
    schema: int = SCHEMA

    def save(self, path: str | Path) -> None:
        """Write `content()` as JSON."""
        Path(path).write_text(json.dumps(self.content(), indent=1, allow_nan=False) + "\n", encoding="utf-8")

    def content(self) -> dict[str, Any]:
        """The rows, their ratios and their means, as JSON has them."""
        content = asdict(self)
        for stored, row in zip(content["rows"], self.rows, strict=True):
            best = row.best_peer
            stored["best_peer"] = best.peer if best else None
            stored["ratio_best"] = _finite(row.ratio(best))
            stored["ratio_torch"] = _finite(row.ratio(row.of("torch")))
            stored["share_of_peak"] = _finite(row.share_of_peak)
            for timing in stored["timings"]:
                timing["error"] = _finite(timing["error"])
        content["summary"] = [asdict(mean) for mean in summaries(self.rows)]
        return content

    @staticmethod
    def load(path: str | Path) -> Report:
        """The report of a results file. Raises ValueError for a file of another schema."""
        content = json.loads(read_text(path, MOST_BYTES))
        if content.get("schema") != SCHEMA:
            raise ValueError(f"{path} has schema {content.get('schema')!r}; this version reads schema {SCHEMA}.")
        derived = ("best_peer", "ratio_best", "ratio_torch", "share_of_peak")
        rows = []
        for stored in content["rows"]:
            timings = [
                Timing(**{**timing, "error": math.inf if timing["error"] is None else timing["error"]})
                for timing in stored["timings"]
            ]
            measured = {key: value for key, value in stored.items() if key not in derived}
            rows.append(Row(**measured | {"timings": timings}))
        return Report(**{key: value for key, value in content.items() if key != "summary"} | {"rows": rows})


def _finite(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else None


# ---- means ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """Geometric means of our ratios over a set's layers, or over one family of them."""

    set: str
    pass_name: str
    family: str | None
    layers: int
    over_best: float | None
    least: float | None  # of the ratios to the best peer
    least_layer: str | None
    over: dict[str, float]  # peer → geometric mean over the layers that it computed rightly
    share_of_peak: float | None


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
        set_name, pass_name, family, len(rows), _finite(geometric_mean(best.values())),
        None if least is None else best[least], least, over,
        _finite(geometric_mean(r.share_of_peak for r in rows if math.isfinite(r.share_of_peak))),
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


def _times(ratio: float | None) -> str:
    return f"{ratio:.2f}×" if ratio is not None and math.isfinite(ratio) else "–"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if math.isfinite(share) else "–"


def _peer_cell(row: Row, peer: str) -> str:
    """Effective GFLOP/s, or why there are none; the time where a layer is so small that only that matters."""
    timing = row.of(peer)
    if timing is None:
        return "wrong" if any(t.peer == peer for t in row.timings) else "–"
    return seconds_text(timing.seconds) if row.macs < 1e6 else f"{timing.gflops:.0f}"


def layer_table(rows: Sequence[Row]) -> list[list[str]]:
    """One line a layer under a heading: our time and GFLOP/s, everybody's GFLOP/s, and the ratios."""
    peers = list(dict.fromkeys(t.peer for row in rows for t in row.timings if t.peer != OURS))
    torch = "torch" in peers
    algorithms = any(t.note for row in rows for t in row.timings if t.peer == OURS)
    heading = ["layer", *(["algorithm"] if algorithms else []), "time", "GFLOP/s", "of peak", *peers]
    heading += ["best peer", "× best", *(["× torch"] if torch else [])]
    lines = [heading]
    for row in rows:
        ours, best = row.of(OURS), row.best_peer
        lines.append(
            [
                row.layer, *([ours.note if ours else ""] if algorithms else []),
                seconds_text(ours.seconds) if ours else "wrong", _peer_cell(row, OURS),
                _percent(row.share_of_peak), *(_peer_cell(row, peer) for peer in peers), best.peer if best else "–",
                _times(row.ratio(best)), *([_times(row.ratio(row.of("torch")))] if torch else []),
            ]
        )  # fmt: skip
    return lines


def summary_table(rows: Sequence[Row]) -> list[list[str]]:
    """Geometric means: one line a set and family, with the layer that is furthest behind."""
    means = summaries(rows)
    peers = list(dict.fromkeys(peer for mean in means for peer in mean.over))
    lines = [["set", "pass", "layers", "n", "× best", "least", "of", "of peak", *(f"× {peer}" for peer in peers)]]
    for mean in means:
        lines.append(
            [
                mean.set, mean.pass_name, mean.family or "all", str(mean.layers), _times(mean.over_best),
                _times(mean.least), mean.least_layer or "–", _percent(mean.share_of_peak or math.nan),
                *(_times(mean.over.get(peer)) for peer in peers),
            ]
        )  # fmt: skip
    return lines


def text_table(lines: Sequence[Sequence[str]]) -> str:
    """Aligned columns for a terminal: the first to the left, figures to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]

    def join(line: Sequence[str]) -> str:
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        return "  ".join([line[0].ljust(widths[0]), *cells[1:]]).rstrip()

    return "\n".join([join(lines[0]), "  ".join("─" * width for width in widths), *map(join, lines[1:])])


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """The same for a page."""
    ruler = ["---", *["---:"] * (len(lines[0]) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], ruler, *lines[1:]])


def title(set_name: str, pass_name: str) -> str:
    return f"{set_name}, {PASS_WORDS[pass_name]}"


def group_text(set_name: str, pass_name: str, rows: Sequence[Row]) -> str:
    """A set and pass for the terminal."""
    parts = [title(set_name, pass_name), text_table(layer_table(rows)), "", *_group_lines(rows)]
    return "\n".join(parts)


def _group_lines(rows: Sequence[Row]) -> list[str]:
    """What goes under a table: means, the whole network, doubtful figures, peers that do not offer a layer."""
    lines = []
    whole = next(iter(summaries(rows)), None)
    if whole and whole.over_best is not None:
        over = ", ".join(f"{_times(mean)} {peer}" for peer, mean in whole.over.items())
        lines.append(
            f"Geometric mean over {whole.layers} layers: {_times(whole.over_best)} the best peer, least "
            f"{_times(whole.least)} ({whole.least_layer}); {over}."
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


# ---- the page ------------------------------------------------------------------------------------------------------

METHOD: Final = """\
Every number on this page was produced by `python -m fastconv bench` and is read from a file in `bench/results/` by
`bench/make_page.py`; none was written by hand.

- Each candidate's answer is first compared with `fastconv.reference` in float64; one whose largest error exceeds 1e-3
  of the largest magnitude (1e-9 in float64) is shown as wrong and not counted.
- All candidates run in one process, in turns whose order rotates from round to round. A turn begins when no thread of
  the process spins any more, makes one call that is dropped, because it wakes the candidate's own threads and warms
  its memory, and then several calls that are timed. So nobody suffers from another's thread pool, and nobody's own
  pool is told not to spin.
- Times are medians; ratios are ratios of medians of the same run. GFLOP/s count two operations for each multiply-add
  of *direct* convolution, whatever the algorithm does: Winograd may pass the FMA peak, and so may whoever skips the
  padding of small maps. The peak is measured in the same run.
- PyTorch runs in both memory formats in inference mode, its gradients through `aten::convolution_backward` with only
  the wanted gradient asked for; ONNX Runtime and OpenVINO on models of one layer with constant weights and buffers
  bound beforehand, OpenVINO in both memory formats; ncnn on plain arrays and on its own packed format. The better
  variant counts. Each library has its arrays in its own memory format before the clock starts.
- "fwd" is a prepared plan with `out=`, "eager" the plain function call with a fresh result, "dx" and "dw" the gradients
  with respect to input and weights.
- Whole networks run with equal weights everywhere, held to our layers' plain forward pass, from images to
  probabilities; a training step is forward, backward and SGD with momentum, its first losses compared before the
  timing, and counts as three forward passes.
- "best peer" is the fastest of PyTorch, ONNX Runtime, OpenVINO and ncnn; im2col + BLAS is NumPy alone."""


def page(reports: Iterable[tuple[str, Report]]) -> str:
    """The documentation's page: every results file (name, report) as tables."""
    parts = ["# Performance", METHOD]
    for name, report in reports:
        parts += [f"## {name}", "\n".join(f"- {line}" for line in heading_lines(report))]
        parts += ["Geometric means of the ratios (how many times faster fastconv is):"]
        parts += [markdown_table(summary_table(report.rows))]
        for set_name, pass_name, rows in groups(report.rows):
            parts += [f"### {title(set_name, pass_name)}", markdown_table(layer_table(rows))]
            parts += ["\n\n".join(_group_lines(rows))]
        parts += memory_lines(report)
    return "\n\n".join(part for part in parts if part) + "\n"
