"""A picture of a report: one panel a set and pass, one line a layer; our bar, and a mark for each peer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from .report import OURS, Report, Row, groups, title

# Okabe and Ito's palette, told apart by people with any kind of colour vision; shapes tell them apart in print.
MARKS: Final = {
    "torch": ("#D55E00", "o"),
    "torch.compile": ("#D55E00", "v"),
    "onnxruntime": ("#0072B2", "s"),
    "openvino": ("#009E73", "^"),
    "ncnn": ("#CC79A7", "D"),
    "litert": ("#56B4E9", "P"),
    "im2col": ("#555555", "x"),
    "reference": ("#999999", "+"),
}
BAR: Final = "#F0C36D"
PEAK: Final = "FMA peak"
INCHES_A_LAYER: Final = 0.3


def plot_formats() -> list[str]:
    """The endings that `save_plot` knows."""
    from matplotlib.backend_bases import FigureCanvasBase

    return sorted(FigureCanvasBase.get_supported_filetypes())


def save_plot(report: Report, path: str | Path) -> None:
    """Draw the report into `path`, whose ending says the format (png, svg, pdf). Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as figures

    panels = groups(report.rows)
    heights = [len(rows) * INCHES_A_LAYER + 0.9 for _, _, rows in panels]
    figure, axes = figures.subplots(
        len(panels), 1, figsize=(10, sum(heights) + 0.7), squeeze=False, gridspec_kw={"height_ratios": heights},
        layout="constrained",
    )  # fmt: skip
    for axis, (set_name, pass_name, rows) in zip(axes[:, 0], panels, strict=True):
        panel(axis, rows)
        axis.set_title(title(set_name, pass_name), loc="left", fontsize=11, fontweight="bold")
    machine = report.machine
    figure.suptitle(
        f"fastconv {report.fastconv['version']} ({report.fastconv['isa']}, {report.layout}) on {machine['cpu']}, "
        f"{report.threads} threads, {report.date[:10]}",
        fontsize=10,
    )
    found: dict[str, Any] = {}
    for axis in axes[:, 0]:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    handles = {label: found[label] for label in (OURS, *MARKS, PEAK) if label in found}
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9
    )
    figure.savefig(path, dpi=120)
    figures.close(figure)


def panel(axis: Any, rows: list[Row]) -> None:
    """One set and pass on the axes of a figure."""
    places = range(len(rows))
    ours = [row.gflops(timing) if (timing := row.of(OURS)) else 0.0 for row in rows]
    axis.barh(places, ours, height=0.7, color=BAR, label=OURS, zorder=1)
    for peer, (colour, mark) in MARKS.items():
        points = [(row.gflops(timing), place) for place, row in enumerate(rows) if (timing := row.of(peer))]
        if points:
            edge = {} if mark in "x+" else {"edgecolors": "white", "linewidths": 0.6}  # keeps neighbours apart
            axis.scatter(*zip(*points, strict=True), s=32, color=colour, marker=mark, label=peer, zorder=3, **edge)
    peak = max(row.peak_gflops for row in rows)
    right = max(*ours, *(row.gflops(t) for row in rows for t in row.timings if t.correct), 1e-9)
    if peak < 1.3 * right:
        axis.axvline(peak, color="#333333", linestyle="--", linewidth=1, label=PEAK, zorder=2)
        right = max(right, peak)
    for place, row in enumerate(rows):
        if (best := row.best_peer) and row.of(OURS):
            ratio = row.ratio(best)
            axis.text(
                1.01, place, f"{ratio:.2f}× {best.peer}", transform=axis.get_yaxis_transform(), va="center", fontsize=8,
                color="#B00020" if ratio < 1 else "black",
            )  # fmt: skip
    axis.text(
        1.01, -0.75, "times faster than the best", transform=axis.get_yaxis_transform(), fontsize=8, color="#555555"
    )
    axis.set_yticks(places, [row.layer for row in rows], fontsize=8, parse_math=False)  # names are no formulas
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlim(0, 1.03 * right)
    axis.set_xlabel("effective GFLOP/s (counted as direct convolution)", fontsize=8)
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(axis="x", color="#DDDDDD", zorder=0)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
