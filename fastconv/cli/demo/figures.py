"""What the demo's pictures have in common: figures without a window system, colours, frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..common import require

RIGHT, WRONG, MUTED = "#1f77b4", "#d62728", "#666666"  # blue and red differ for the colour-blind too
DOTS_PER_INCH = 150


def new_figure(width: float, height: float, title: str, subtitle: str = "") -> Any:
    """A figure of so many inches with a heading at the top left."""
    figure = require("matplotlib.figure", "demo").Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor="white")
    figure.text(0.3 / width, 1 - 0.18 / height, title, fontsize=13, fontweight="bold", va="top")
    figure.text(0.3 / width, 1 - 0.46 / height, subtitle, fontsize=9, color=MUTED, va="top")
    return figure


def save(figure: Any, path: Path) -> Path:
    """Write the figure as PNG."""
    figure.savefig(path)
    return path


def axis_at(figure: Any, left: float, top: float, width: float, height: float) -> Any:
    """Axes whose place is given in inches from the figure's top left corner."""
    wide, high = figure.get_size_inches()
    return figure.add_axes((left / wide, 1 - (top + height) / high, width / wide, height / high))


def bare(axis: Any) -> Any:
    """Axes without ticks and frame, for images."""
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
    return axis


def frame(axis: Any, left: float, top: float, width: float, height: float, **style: Any) -> None:
    """A rectangle around pixels: `left`, `top` is the first, counted at its outer corner."""
    rectangle = require("matplotlib.patches", "demo").Rectangle
    axis.add_patch(rectangle((left - 0.5, top - 0.5), width, height, fill=False, **style))


def captions(axis: Any, lines: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Lines of text below an image, each with its style."""
    for i, (text, style) in enumerate(lines):
        axis.annotate(
            text, (0, 0), (0, -4 - 11 * i), xycoords="axes fraction", textcoords="offset points", va="top", fontsize=8,
            **style,
        )  # fmt: skip
