"""
The bottleneck against two 3x3 convolutions
===========================================

A bottleneck narrows 256 channels to 64 by a 1x1 convolution, convolves 3x3 there, and widens them again by another 1x1.
Its 69,632 weights are fewer than the 73,728 of two 3x3 convolutions at 64 channels, at four times the depth (He et al.,
2016, figure 5). Two 3x3 at 256 channels would have 1,179,648.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from _common import COLOURS, MUTED, Options, axis_at, bars, main, milliseconds, new_figure, print_table, saved

from fastconv import Sequential, layers
from fastconv.cli.common import require
from fastconv.cli.demo.figures import bare

# Channels of the input, then (filters, kernel size) of every convolution.
BLOCKS = {
    "bottleneck, 256 deep": (256, ((64, 1), (64, 3), (256, 1))),
    "two 3x3, 64 deep": (64, ((64, 3), (64, 3))),
    "two 3x3, 256 deep": (256, ((256, 3), (256, 3))),
}


def block(channels: int, convolutions: tuple[tuple[int, int], ...], size: int, seed: int) -> Sequential:
    """A residual block of convolutions without biases, a ReLU between them and behind the sum."""
    body = [layers.Conv2D(filters, k, padding="same", activation="relu", use_bias=False)
            for filters, k in convolutions[:-1]]  # fmt: skip
    filters, k = convolutions[-1]
    body.append(layers.Conv2D(filters, k, padding="same", use_bias=False))
    return Sequential([layers.Residual(body, activation="relu")], (size, size, channels), seed=seed)


def run(options: Options) -> None:
    size = 14 if options.quick else 56
    nets = {name: block(*given, size, options.seed) for name, given in BLOCKS.items()}
    random = np.random.default_rng(options.seed)
    calls = {}
    for name, (channels, _) in BLOCKS.items():
        x, plan = random.standard_normal((1, size, size, channels), np.float32), nets[name].compile_inference()
        calls[name] = lambda plan=plan, x=x: plan.run(x)
    times = milliseconds(calls, options.quick)
    tables = {name: net.table() for name, net in nets.items()}
    nets["bottleneck, 256 deep"].summary()
    print()
    print_table(
        ("block", "weights", "MACs", "receptive field", "channels in and out", "ms"),
        [
            (name, made.parameters, made.macs, f"{made.rows[-1].field[0]} x {made.rows[-1].field[1]}", BLOCKS[name][0],
             f"{times[name]:.2f}")
            for name, made in tables.items()
        ],
    )  # fmt: skip
    print(f"one image of {size} x {size}, float32, weights packed before")

    figure = new_figure(
        10.4, 5.5, "A bottleneck has fewer weights than two 3x3 at a quarter of its depth",
        f"Residual blocks without biases, one image of {size} x {size}. Wider boxes have deeper results.",
    )  # fmt: skip
    for i, (name, (channels, convolutions)) in enumerate(BLOCKS.items()):
        draw_block(axis_at(figure, 0.3 + 3.35 * i, 0.95, 3.1, 2.5), channels, convolutions, COLOURS[i], name)
    names = list(BLOCKS)
    for left, title, values, form in (
        (1.75, "weights", [made.parameters for made in tables.values()], "{:,}"),
        (4.75, "million MACs", [made.macs / 1e6 for made in tables.values()], "{:,.0f}"),
        (7.75, "milliseconds", list(times.values()), "{:.2f}"),
    ):
        texts = [form.format(value) for value in values]
        bars(axis_at(figure, left, 3.85, 2.4, 1.3), title, names if left < 2 else [""] * 3, values, texts)
    saved(figure, options, "bottleneck")


def draw_block(axis: object, channels: int, convolutions: tuple[tuple[int, int], ...], colour: str, name: str) -> None:
    """A box a convolution from the top down, its width the channels of its result."""
    box = require("matplotlib.patches", "demo").FancyBboxPatch
    bare(axis).set(xlim=(0, 1), ylim=(5.2, -0.2))
    axis.set_title(name, fontsize=10.5, color=colour, loc="left", fontweight="bold")
    places = [0.1 + 4.85 * i / (len(convolutions) + 1) for i in range(len(convolutions) + 2)]
    inputs = channels
    for above, below in pairwise(places):
        gap = 0.38 if above != places[0] else 0.16, 0.38 if below != places[-1] else 0.16
        arrow = {"arrowstyle": "->", "color": MUTED, "shrinkA": 0, "shrinkB": 0}
        axis.annotate("", (0.5, below - gap[1]), (0.5, above + gap[0]), arrowprops=arrow)
    axis.text(0.5, places[0], f"{channels} channels", ha="center", va="center", fontsize=9)
    for y, (filters, k) in zip(places[1:-1], convolutions, strict=True):
        wide = 0.44 + 0.46 * (filters - 64) / 192
        axis.add_patch(
            box((0.5 - wide / 2, y - 0.33), wide, 0.66, boxstyle="round,pad=0,rounding_size=0.03",
                facecolor=colour, alpha=0.22, edgecolor="none", mutation_aspect=4)
        )  # fmt: skip
        axis.text(0.5, y - 0.12, f"{k}x{k}, {inputs} \u2192 {filters}", ha="center", va="center", fontsize=9)
        axis.text(0.5, y + 0.17, f"{k * k * inputs * filters:,} weights", ha="center", va="center", fontsize=8)
        inputs = filters
    axis.text(0.5, places[-1], f"+ input, ReLU: {inputs} channels", ha="center", va="center", fontsize=9)


if __name__ == "__main__":
    main(__doc__, run)
