"""Pictures of pages: Matplotlib's figures as SVG in the page, in the page's colours, wide and narrow.

A figure is drawn in the colours of `THEME`, each of which becomes a variable of the page's style: the same picture
follows a light and a dark screen. It is drawn twice, so that its text is readable on a phone; the style shows one.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .document import text

# Drawn colour → variable. The first ones are told apart by people with any kind of colour vision (Okabe and Ito).
SERIES: Final = {
    "blue": "#0072b2", "vermilion": "#d55e00", "green": "#009e73", "amber": "#e69f00", "pink": "#cc79a7",
    "sky": "#56b4e9", "grey": "#999999",
}  # fmt: skip
INK, MUTED, LINE, PAPER, BAD = "#000000", "#555555", "#dddddd", "#ffffff", "#b00020"
THEME: Final = {colour: name for name, colour in SERIES.items()} | {
    INK: "ink", "#333333": "ink", MUTED: "muted", LINE: "line", PAPER: "paper", BAD: "bad", "#f0c36d": "amber",
}  # fmt: skip
WIDE, NARROW = 10.5, 4.3  # inches; a phone shows a narrow one at about its own size
SHORT: Final = 1e-4  # of the whole time: a step below is too thin to be seen, and left out of a picture
LEAST_DOT, LARGEST_DOT = 9.0, 160.0  # square points


@dataclass(frozen=True)
class Bar:
    """A step in the pictures: when, how long, how fast, what it holds, how far it sees; `anchor` is its row."""

    anchor: str
    colour: str
    begin: float  # milliseconds
    width: float
    gflops: float  # 0 where nothing is counted
    megabytes: float
    field: float | None


@dataclass(frozen=True)
class Dot:
    """A point of a roofline: FLOP a byte, GFLOP/s, and a weight between 0 and 1 for its size."""

    anchor: str
    colour: str
    mark: str
    intensity: float
    gflops: float
    weight: float


@dataclass(frozen=True)
class Roof:
    """What a machine can do at most: GFLOP/s of multiply-adds in registers; GB/s of copies, None where not measured."""

    gflops: float
    gbytes: float | None


def picture(draw: Callable[[float, bool], Any], name: str, label: str) -> str:
    """`draw(width in inches, narrow)` gives a figure; both sizes as SVG, described by `label`."""
    drawn = "".join(
        _svg(draw(width, kind == "narrow"), f"{name}-{kind}", kind, label)
        for width, kind in ((WIDE, "wide"), (NARROW, "narrow"))
    )
    return f"<figure>{drawn}</figure>"


def _svg(figure: Any, name: str, kind: str, label: str) -> str:
    """A figure as an element of the page: no size of its own, nothing but what is drawn, links for the pointer."""
    import matplotlib

    written = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "svg.id": name}):
        figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    svg = written.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    body, (box,) = svg[svg.index(">") + 1 :], re.findall(r'viewBox="([^"]+)"', svg[:2000])[:1]
    body = re.sub(r'<a xlink:href="(#[\w-]+)"(?: target="_blank")?', r'<a tabindex="-1" href="\1"', body)
    body = re.sub(r'<g id="[A-Za-z0-9_.]+_\d+"', "<g", body)
    body = body.replace("xlink:href", "href")
    body = re.sub("#[0-9a-f]{6}", lambda found: _themed(found[0]), body)
    return f'<svg class="{kind}" viewBox="{box}" role="img" aria-label="{text(label)}">{body}'


def _themed(colour: str) -> str:
    return f"var(--{THEME[colour]})" if colour in THEME else colour


def new_figure(width: float, heights: Sequence[float], share: bool = False) -> tuple[Any, Any]:
    """A figure and its axes, one below the other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, sum(heights) + 0.25 * len(heights)), layout="constrained")
    axes = figure.subplots(len(heights), 1, squeeze=False, sharex=share, gridspec_kw={"height_ratios": heights})[:, 0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(MUTED)
        axis.tick_params(colors=MUTED, labelcolor=INK, labelsize=8.5)
        axis.grid(axis="y", color=LINE, linewidth=0.7)
        axis.set_axisbelow(True)
    return figure, axes


def titled(axis: Any, words: str) -> None:
    """A title at the left, above the axis."""
    axis.set_title(words, loc="left", fontsize=9.5, color=INK)


def timeline(bars: Sequence[Bar], roof: Roof) -> Callable[[float, bool], Any]:
    """A step is as wide as its time, as high as its speed, in three panels over one time: speed, memory, field."""
    total = sum(bar.width for bar in bars)
    shown = [bar for bar in bars if bar.width >= SHORT * total]
    sees = any(bar.field for bar in bars)

    def draw(width: float, narrow: bool) -> Any:
        heights = [2.4 if not narrow else 2.0, 1.3] + ([1.1] if sees else [])
        figure, axes = new_figure(width, heights, share=True)
        _speed(axes[0], shown, roof, total)
        _memory(axes[1], shown)
        if sees:
            _field(axes[2], bars)
        axes[-1].set_xlabel("milliseconds since the start", fontsize=8.5, color=INK)
        axes[0].set_xlim(0, total or 1)
        return figure

    return draw


def _speed(axis: Any, bars: Sequence[Bar], roof: Roof, total: float) -> None:
    top = 1.12 * max([roof.gflops, *(bar.gflops for bar in bars)])
    foot = -0.05 * top  # a strip for all, counted or not
    for bar in bars:
        _rectangle(axis, bar, foot, max(bar.gflops, 0) - foot)
    axis.axhline(roof.gflops, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axis.annotate(
        f"peak {roof.gflops:,.0f}", (total, roof.gflops), (-2, 3), textcoords="offset points", ha="right", fontsize=8.5,
        color=INK,
    )  # fmt: skip
    axis.axhline(0, color=PAPER, linewidth=1)
    axis.set_ylim(foot, top)
    titled(axis, "speed, GFLOP/s")


def _memory(axis: Any, bars: Sequence[Bar]) -> None:
    for bar in bars:
        _rectangle(axis, bar, 0, bar.megabytes)
    axis.set_ylim(0, 1.1 * max([1e-3, *(bar.megabytes for bar in bars)]))
    titled(axis, "values in memory, MB")


def _field(axis: Any, bars: Sequence[Bar]) -> None:
    known = [bar for bar in bars if bar.field]
    times = [time for bar in known for time in (bar.begin, bar.begin + bar.width)]
    axis.plot(times, [bar.field for bar in known for _ in range(2)], color=SERIES["blue"], linewidth=1.8)
    axis.set_ylim(0, 1.12 * max(bar.field or 0 for bar in known))
    titled(axis, "receptive field, pixels of the input")


def _rectangle(axis: Any, bar: Bar, low: float, height: float) -> None:
    from matplotlib.patches import Rectangle

    colour = SERIES[bar.colour]
    patch = Rectangle((bar.begin, low), bar.width, height, facecolor=colour, edgecolor=PAPER, linewidth=0.3)
    patch.set_url(f"#{bar.anchor}")
    axis.add_patch(patch)


def roofline(dots: Sequence[Dot], roof: Roof, legend: dict[str, tuple[str, str]]) -> Callable[[float, bool], Any]:
    """Speed by FLOP a byte under what the machine can do; `legend` says whose a colour and a mark are."""
    known = [dot for dot in dots if dot.intensity > 0 and dot.gflops > 0]

    def draw(width: float, narrow: bool) -> Any:
        figure, (axis,) = new_figure(width, [3.4])
        axis.grid(axis="both", color=LINE, linewidth=0.7)
        axis.set_xscale("log")
        axis.set_yscale("log")
        ridge = [roof.gflops / roof.gbytes] if roof.gbytes else []
        left = min([*(one / 4 for one in ridge), *(dot.intensity for dot in known)]) / 1.6
        right = max([*(one * 4 for one in ridge), *(dot.intensity for dot in known)]) * 1.6
        for dot in known:
            axis.scatter(
                [dot.intensity], [dot.gflops], s=LEAST_DOT + LARGEST_DOT * dot.weight, marker=dot.mark,
                facecolors=SERIES[dot.colour], edgecolors=PAPER if dot.mark not in "x+" else SERIES[dot.colour],
                linewidths=0.6, alpha=0.9, urls=[f"#{dot.anchor}"], zorder=3,
            )  # fmt: skip
        _roof(axis, roof, left, right)
        low = min([roof.gflops / 100, *(dot.gflops for dot in known)]) / 1.5
        axis.set_xlim(left, right)
        axis.set_ylim(low, 1.8 * max([roof.gflops, *(dot.gflops for dot in known)]))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.set_xlabel("floating-point operations a byte", fontsize=8.5, color=INK)
        titled(axis, "speed, GFLOP/s")
        for name, (colour, mark) in legend.items():
            axis.scatter([], [], s=40, marker=mark, color=SERIES[colour], label=name)
        if legend:
            columns = 3 if narrow else len(legend)
            figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=8.5, labelcolor=INK)
        return figure

    return draw


def _roof(axis: Any, roof: Roof, left: float, right: float) -> None:
    style = {"color": INK, "linewidth": 1.2, "zorder": 2}
    words = {"fontsize": 8.5, "color": INK, "textcoords": "offset points"}
    if roof.gbytes is None:
        axis.plot([left, right], [roof.gflops] * 2, **style)
    else:
        ridge = roof.gflops / roof.gbytes
        axis.plot([left, max(left, ridge), right], [roof.gbytes * left, roof.gflops, roof.gflops], **style)
        axis.annotate(f"memory {roof.gbytes:,.0f} GB/s", (left, roof.gbytes * left), (8, -2), **words, va="top")
    axis.annotate(f"peak {roof.gflops:,.0f} GFLOP/s", (right, roof.gflops), (-4, 4), **words, ha="right")
