"""The page of a benchmark: ours and the others, layer by layer or net by net, from the rows of reports."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Final

import numpy as np

from ..bench.plot import MARKS, panel
from ..bench.report import OURS, Report, Row, groups, heading_lines, summaries, title
from ..bench.zoo_report import peers_of
from .charts import SERIES, Dot, Roof, new_figure, picture, roofline, titled
from .document import DASH, Column, amount, bar, document, milliseconds, paragraph, section, share, table, text

THAN_THE_BEST: Final = "than the fastest of the others"
CAPTION: Final = "Medians, in the order of the run or by the column whose head is pressed"
OUR_STYLE: Final = ("amber", "*")
LEAST_INCHES, INCHES_A_ROW, INCHES_AROUND = 0.6, 0.27, 0.35


def bench_page(reports: Sequence[Report]) -> str:
    """The page as HTML.

    Parameters
    ----------
    reports : sequence of Report
        Of one or several runs, as `bench` makes them or `read` finds them in a file.

    Returns
    -------
    str
        One file that loads nothing. Needs Matplotlib.
    """
    rows = [row for report in reports for row in report.rows]
    others = [peer for peer in peers_of(rows) if peer != OURS]
    heading = f"fastconv beside {_listed(others)}" if others else "fastconv"
    parts = [_report(report, number) for number, report in enumerate(reports, 1)]
    return document(heading, _subtitles(reports), _means(rows), *parts)


def _subtitles(reports: Sequence[Report]) -> list[str]:
    """Where, when and with whom; runs on one machine together."""
    dates: dict[str, list[str]] = {}
    others: dict[str, None] = {}
    for report in reports:
        first, *rest = heading_lines(report)
        dates.setdefault(first.rpartition("; ")[0], []).append(report.date)
        others |= dict.fromkeys(rest)
    spans = ["; ".join((where, " to ".join(dict.fromkeys((min(when), max(when)))))) for where, when in dates.items()]
    return [*spans, *others]


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _times(ratio: float) -> str:
    """A ratio, marked where we are slower."""
    kind = "good" if ratio >= 1 else "bad"
    return f'<span class="{kind}">{amount(ratio)}×</span>' if math.isfinite(ratio) else DASH


def _means(rows: Sequence[Row]) -> str:
    """The means of every set and pass."""
    found = [one for one in summaries(rows) if one.family is None]
    if not found:
        return ""
    peers = list(dict.fromkeys(peer for one in found for peer in one.over))
    columns = [
        Column("set", lambda one: text(title(one.set, one.pass_name)), name=True),
        Column("rows", lambda one: str(one.layers), lambda one: one.layers),
        Column("× best", lambda one: _times(one.over_best), lambda one: one.over_best, THAN_THE_BEST),
        Column("least", lambda one: _times(one.least), lambda one: one.least),
        Column("of peak, %", lambda one: share(one.share_of_peak), lambda one: one.share_of_peak),
        *(_mean_over(peer) for peer in peers),
    ]
    return section(
        "How many times faster", table("means", "Geometric means of the ratios of medians", columns, found, small=True)
    )


def _mean_over(peer: str) -> Column:
    def ratio(one: Any) -> float:
        return float(one.over.get(peer, math.nan))

    return Column(f"× {peer}", lambda one: _times(ratio(one)), ratio)


def _report(report: Report, number: int) -> str:
    """The sets and passes of a run."""
    parts = []
    for at, (name, pass_name, rows) in enumerate(groups(report.rows), 1):
        anchor = f"row-{number}-{at}"
        parts.append(section(title(name, pass_name), *_pictures(report, rows, anchor), _rows(rows, anchor)))
    return "".join(parts)


def _pictures(report: Report, rows: list[Row], anchor: str) -> list[str]:
    """Bars and marks of all, and a roofline where shapes and multiply-adds are known."""
    if not all(row.macs for row in rows):
        return [paragraph("The multiply-adds of these nets are not counted, so that there is no speed to draw.")]
    label = "Speed of fastconv and the others, row by row; the table below has the figures"
    made = [picture(_bars(rows), f"{anchor}-bars", label)]
    dots = [dot for at, row in enumerate(rows, 1) for dot in _dots(row, f"{anchor}-{at}")]
    if dots:
        roof = Roof(max(row.peak_gflops for row in rows), report.machine.get("copy_gbytes"))
        styles = {OURS: OUR_STYLE} | {peer: _style(peer) for peer in peers_of(rows)[1:]}
        memory = " and copying large arrays" if roof.gbytes is not None else ""
        made += [
            paragraph(f"The line is what the machine can do at most, multiplying in registers{memory}. Operations are "
                      "counted by the definition of convolution; bytes are input, weights and result, each once."),
            picture(roofline(dots, roof, styles), f"{anchor}-roof", "Roofline: speed by operations a byte"),
        ]  # fmt: skip
    return made


def _bars(rows: list[Row]) -> Callable[[float, bool], Any]:
    def draw(width: float, narrow: bool) -> Any:
        figure, (axis,) = new_figure(width, [LEAST_INCHES + INCHES_A_ROW * len(rows)])
        panel(axis, rows)
        titled(axis, "")
        found = sorted(zip(*axis.get_legend_handles_labels(), strict=True), key=lambda pair: pair[1] != OURS)
        handles, labels = zip(*found, strict=True)
        columns = 3 if narrow else len(labels)
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=8.5)
        return figure

    return draw


def _style(peer: str) -> tuple[str, str]:
    """Colour and mark of a peer, as in the pictures of `bench.plot`."""
    colour, mark = MARKS.get(peer, ("#999999", "+"))
    names = {drawn: name for name, drawn in SERIES.items()}
    return names.get(colour.lower(), "grey"), mark


def _dots(row: Row, anchor: str) -> list[Dot]:
    """Every candidate's point of a row whose shapes are known."""
    sizes = [row.shape.get(part) for part in ("input", "weight", "output")]
    if not all(sizes):
        return []
    moved = np.dtype(row.shape.get("dtype", "float32")).itemsize * sum(prod(shape) for shape in sizes if shape)
    intensity = 2 * row.macs / moved if moved else math.nan
    made = []
    for peer in peers_of([row]):
        if timing := row.of(peer):
            colour, mark = OUR_STYLE if peer == OURS else _style(peer)
            made.append(Dot(anchor, colour, mark, intensity, row.gflops(timing), 0.5 if peer == OURS else 0.15))
    return made


def _rows(rows: Sequence[Row], anchor: str) -> str:
    """The table of a set and pass."""
    def ours(row: Row) -> float:
        timing = row.of(OURS)
        return timing.seconds if timing else math.nan

    def best(row: Row) -> float:
        return row.ratio(row.best_peer)

    def speed(row: Row) -> float:
        return row.gflops(row.of(OURS))

    counted = any(row.macs for row in rows)
    most = max((row.share_of_peak for row in rows if math.isfinite(row.share_of_peak)), default=1.0)
    numbered = list(enumerate(rows, 1))
    columns = [
        Column("#", lambda one: str(one[0]), lambda one: one[0]),
        Column("what", lambda one: text(one[1].layer), name=True),
        Column("fastconv, ms", lambda one: milliseconds(ours(one[1])), lambda one: ours(one[1])),
        Column("× best", lambda one: _times(best(one[1])), lambda one: best(one[1]), THAN_THE_BEST),
        Column("the best", lambda one: text(one[1].best_peer.peer if one[1].best_peer else DASH)),
    ]
    if counted:
        columns += [
            Column("GFLOP/s", lambda one: amount(speed(one[1])), lambda one: speed(one[1]),
                   "counted as direct convolution"),
            Column("of peak, %", lambda one: share(one[1].share_of_peak) + bar(one[1].share_of_peak / most, "amber"),
                   lambda one: one[1].share_of_peak),
        ]  # fmt: skip
    columns += [_time_of(peer) for peer in peers_of(rows)[1:]]
    return table(anchor.replace("row", "rows"), CAPTION, columns, numbered, anchor)


def _time_of(peer: str) -> Column:
    """A peer's medians: wrong answers are not counted, and why somebody is absent is told."""

    def seconds(one: Any) -> float:
        timing = one[1].of(peer)
        return timing.seconds if timing else math.nan

    def cell(one: Any) -> str:
        row = one[1]
        if row.of(peer):
            return milliseconds(seconds(one))
        if any(timing.peer == peer for timing in row.timings):
            return "wrong"
        return f'<span title="{text(row.absent.get(peer, "not measured"))}">{DASH}</span>'

    return Column(f"{peer}, ms", cell, seconds)
