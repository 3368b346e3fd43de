"""
Stride 2 in place of max pooling
================================

The same net on real digits, both ways. A 3x3 convolution of stride 2 halves the image as a convolution followed by
2x2 max pooling does, computes a quarter of its outputs, and has the same weights. ResNet and DCGAN shrink their images
so.
"""

from __future__ import annotations

from statistics import mean

import numpy as np
from _common import (
    COLOURS,
    Options,
    Trained,
    axis_at,
    bars,
    learn,
    main,
    milliseconds,
    new_figure,
    plain,
    print_table,
    saved,
    some_digits,
)

from fastconv import Sequential, layers

WAYS = ("max pooling", "stride 2")
WIDTHS = (16, 32, 64)
EPOCHS, RUNS, PREDICTED = 4, 3, 256


def build(way: str, seed: int) -> Sequential:
    """3x3 convolutions with BatchNormalization and ReLU; the second and third halve the image one way or the other."""
    chain: list[layers.Layer] = []
    for i, filters in enumerate(WIDTHS):
        halved = i > 0
        stride = 2 if halved and way == "stride 2" else 1
        chain += [
            layers.Conv2D(filters, 3, stride, padding="same", use_bias=False, kernel_initializer="he_normal"),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
        ]
        if halved and way == "max pooling":
            chain.append(layers.MaxPooling2D(2))
    chain += [layers.Flatten(), layers.Dense(10, activation="softmax")]
    return Sequential(chain, (28, 28, 1), name=way.replace(" ", "_"), seed=seed)


def run(options: Options) -> None:
    learned, held_out = some_digits(options)
    epochs, runs = (3, 1) if options.quick else (EPOCHS, RUNS)
    trained: dict[str, list[Trained]] = {way: [] for way in WAYS}
    for i in range(runs):  # by turns, so that a machine that slows down slows both
        for way in WAYS:
            seed = options.seed + i
            trained[way].append(learn(build(way, seed), learned, held_out, epochs, seed))
    images = held_out.images[:PREDICTED]
    plans = {way: results[0].net.compile_inference() for way, results in trained.items()}
    times = milliseconds({way: lambda plan=plan: plan.run(images) for way, plan in plans.items()}, options.quick)
    tables = {way: results[0].net.table() for way, results in trained.items()}
    for way in WAYS:
        print(tables[way], "\n")
    seconds = {way: mean(result.seconds for result in results) for way, results in trained.items()}
    print_table(
        ("way", "weights", "MACs", "accuracy, each seed", "mean", "s to train", f"ms for {PREDICTED}"),
        [
            (way, tables[way].parameters, tables[way].macs, ", ".join(f"{r.accuracy[-1]:.1%}" for r in results),
             f"{mean(r.accuracy[-1] for r in results):.2%}", f"{seconds[way]:.1f}", f"{times[way]:.2f}")
            for way, results in trained.items()
        ],
    )  # fmt: skip
    print(f"{len(learned.labels):,} digits, {epochs} epochs; the seconds include measuring 1,000 digits an epoch")

    figure = new_figure(
        10.4, 4.3, "Stride 2 in place of max pooling, on handwritten digits",
        f"The same 3x3 convolutions and {tables['stride 2'].parameters:,} weights; {len(learned.labels):,} digits, "
        f"runs of each: {runs}, accuracy on 1,000 others.",
    )  # fmt: skip
    axis = plain(axis_at(figure, 0.75, 1.15, 3.9, 2.5), "accuracy on digits held out, in %")
    for way, colour in zip(WAYS, COLOURS, strict=False):
        curves = 100 * np.array([result.accuracy for result in trained[way]])
        places = np.arange(1, epochs + 1)
        axis.fill_between(places, curves.min(0), curves.max(0), color=colour, alpha=0.15, linewidth=0)
        axis.plot(places, curves.mean(0), "o-", color=colour, markersize=4, label=f"{way}: {curves.mean(0)[-1]:.1f} %")
    axis.set_xticks(places)
    axis.set_xlabel("epoch (line: mean, band: all seeds)", fontsize=9)
    axis.grid(alpha=0.25)
    axis.legend(frameon=False, fontsize=9, loc="lower right")
    for i, (title, values, texts) in enumerate((
        ("million MACs an image", [m.macs / 1e6 for m in tables.values()],
         [f"{m.macs / 1e6:.2f}" for m in tables.values()]),
        ("seconds of training", list(seconds.values()), [f"{s:.1f}" for s in seconds.values()]),
        (f"milliseconds to predict {PREDICTED}", list(times.values()), [f"{t:.1f}" for t in times.values()]),
    )):  # fmt: skip
        bars(axis_at(figure, 6.2, 1.15 + 0.95 * i, 3.8, 0.62), title, WAYS, values, texts)
    saved(figure, options, "stride_or_pooling")


if __name__ == "__main__":
    main(__doc__, run)
