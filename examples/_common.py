"""What the examples share: options, tables and timings; drawing and digits are those of `fastconv demo`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv import Sequential
from fastconv.bench.measure import Candidate, time_interleaved
from fastconv.cli.common import CommandError, output_folder, require
from fastconv.cli.demo.data import Digits, digits
from fastconv.cli.demo.figures import MUTED, RIGHT, WRONG, axis_at, new_figure, save
from fastconv.cli.machine import one_line
from fastconv.losses import SparseCategoricalCrossentropy
from fastconv.models.training import ends_in_softmax
from fastconv.optimizers import Adam, CosineDecay

Array = NDArray[Any]
# Okabe and Ito's palette, told apart by people with any kind of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
BATCH = 64


@dataclass(frozen=True, slots=True)
class Options:
    """Where the picture goes, whether a look in seconds will do, and the seed of all that is random."""

    folder: Path
    quick: bool
    seed: int


def main(description: str, run: Callable[[Options], None]) -> None:
    """Read the command line, run the example, and end with one line where something is missing."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="examples-output", metavar="FOLDER", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="smaller and shorter: a look in seconds")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default: %(default)s")
    given = parser.parse_args()
    try:
        require("matplotlib", "demo")
        options = Options(output_folder(given.output), given.quick, given.seed)
        heading = description.strip().partition("\n")[0]  # none where the documentation's builder runs the script
        quick = "--quick: less to learn from, or smaller images, than without it" if options.quick else ""
        print(*filter(None, (heading, one_line(), quick)), sep="\n", end="\n\n", flush=True)
        run(options)
    except CommandError as error:
        sys.exit(f"{parser.prog}: error: {error}")


# ---- tables and timings -----------------------------------------------------------------------------------------


def print_table(head: Sequence[str], lines: Sequence[Sequence[object]]) -> None:
    """Columns under their heads: the first to the left, numbers with thousands separated, the rest to the right."""
    cells = [list(head), *([f"{c:,}" if isinstance(c, int) else str(c) for c in line] for line in lines)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * width for width in widths]
    for line in [cells[0], rule, *cells[1:]]:
        sized = list(zip(line, widths, strict=True))
        print("  ".join([sized[0][0].ljust(sized[0][1]), *(cell.rjust(width) for cell, width in sized[1:])]).rstrip())
    print()


def milliseconds(calls: dict[str, Callable[[], Any]], quick: bool, rounds: int = 7) -> dict[str, float]:
    """Median milliseconds a call; the calls take turns, as in `fastconv bench`."""
    candidates = [Candidate(name, "", call, np.asarray) for name, call in calls.items()]
    time_interleaved(candidates, 1 if quick else rounds)
    return {candidate.peer: 1e3 * candidate.median for candidate in candidates}


def saved(figure: Any, options: Options, name: str) -> None:
    """Write the picture and say where."""
    print(f"picture: {save(figure, options.folder / f'{name}.png')}")


# ---- drawing ------------------------------------------------------------------------------------------------------


def plain(axis: Any, title: str) -> Any:
    """Axes of a diagram: no frame at the top and right, a title at the left."""
    axis.set_title(title, fontsize=10, loc="left")
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8.5)
    return axis


def bars(axis: Any, title: str, names: Sequence[str], values: Sequence[float], texts: Sequence[str]) -> None:
    """Horizontal bars from the top down, each with its value written behind it."""
    places = np.arange(len(values))
    colours = [COLOURS[i % len(COLOURS)] for i in places]
    axis.barh(places, values, 0.62, color=colours)
    axis.set_yticks(places, names)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.35 * max(values))  # room for the text behind the longest
    axis.set_xticks([])
    for place, value, text in zip(places, values, texts, strict=True):
        axis.annotate(text, (value, place), (4, 0), textcoords="offset points", va="center", fontsize=8.5)
    plain(axis, title).spines["bottom"].set_visible(False)


def cells(axis: Any, values: Array, most: float, fontsize: float = 8) -> None:
    """A grid of numbers, the darker the larger; zeros stay blank."""
    height, width = values.shape
    axis.imshow(values, cmap="Blues", vmin=0, vmax=1.5 * most)  # text stays readable on the darkest
    for (y, x), value in np.ndenumerate(values):
        if value:
            axis.text(x, y, f"{value:g}", ha="center", va="center", fontsize=fontsize)
    axis.set_xticks(np.arange(width + 1) - 0.5, [""] * (width + 1))
    axis.set_yticks(np.arange(height + 1) - 0.5, [""] * (height + 1))
    axis.grid(color="#bbbbbb", linewidth=0.6)
    axis.tick_params(length=0)


# ---- training -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trained:
    """A net, the accuracy on digits held out after every epoch, and the seconds of training."""

    net: Sequential
    accuracy: list[float]
    seconds: float


def learn(net: Sequential, learned: Digits, held_out: Digits, epochs: int, seed: int, rate: float = 2e-3) -> Trained:
    """Train with Adam, the rate falling along a cosine; the net gives probabilities or, without a softmax, logits."""
    steps = epochs * -(-len(learned.labels) // BATCH)
    loss = SparseCategoricalCrossentropy(from_logits=not ends_in_softmax(net.layers[-1]))
    net.compile(Adam(CosineDecay(rate, steps)), loss, ["accuracy"])
    start = time.perf_counter()
    history = net.fit(
        learned.images, learned.labels, BATCH, epochs, (held_out.images, held_out.labels),
        verbose=1 if sys.stderr.isatty() else 0, seed=seed,
    )  # fmt: skip
    return Trained(net, history.history["val_accuracy"], time.perf_counter() - start)


def some_digits(options: Options) -> tuple[Digits, Digits]:
    """4,000 digits to learn from and 1,000 held out; a quarter to learn from for a quick look."""
    return digits(options.seed, 1000 if options.quick else None)


def accuracy_by_epoch(axis: Any, curves: dict[str, list[float]]) -> None:
    """Curves of the accuracy on digits held out, in percent."""
    for (name, values), colour in zip(curves.items(), COLOURS, strict=False):
        axis.plot(
            np.arange(1, len(values) + 1), 100 * np.array(values), "o-", color=colour, markersize=4, label=name
        )
    plain(axis, "accuracy on 1,000 digits held out, in %")
    axis.set_xlabel("epoch", fontsize=9)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.25)
    axis.legend(frameon=False, fontsize=8.5, loc="lower right")


__all__ = [
    "COLOURS",
    "MUTED",
    "RIGHT",
    "WRONG",
    "Array",
    "Digits",
    "Options",
    "Trained",
    "accuracy_by_epoch",
    "axis_at",
    "bars",
    "cells",
    "learn",
    "main",
    "milliseconds",
    "new_figure",
    "plain",
    "print_table",
    "saved",
    "some_digits",
]
