"""
Fully connected against convolution
===================================

The same digits, two nets: weights, accuracy, time, and what each makes of digits moved aside. A fully-connected layer
has a weight for every pixel and unit, and must learn a stroke anew for every place. A convolution uses the same few
weights everywhere.
"""

from __future__ import annotations

import numpy as np
from _common import (
    COLOURS,
    Array,
    Options,
    Trained,
    accuracy_by_epoch,
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

from fastconv import Sequential, layers, models

EPOCHS, PREDICTED = 8, 256
SHIFTS = range(7)  # pixels to the right


def convolutional(seed: int) -> Sequential:
    """3x3 convolutions, twice with stride 2, then the mean of every channel: no large dense layer anywhere."""
    chain: list[layers.Layer] = []
    for filters, stride in ((16, 1), (32, 2), (32, 1), (64, 2)):
        chain += [
            layers.Conv2D(filters, 3, stride, padding="same", use_bias=False, kernel_initializer="he_normal"),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
        ]
    chain += [layers.GlobalAveragePooling2D(), layers.Dense(10, activation="softmax")]
    return Sequential(chain, (28, 28, 1), name="convolutional", seed=seed)


def moved(images: Array, pixels: int) -> Array:
    """The images (N, H, W, C) moved to the right over white paper."""
    return np.pad(images, ((0, 0), (0, 0), (pixels, 0), (0, 0)))[:, :, : images.shape[2]]


def run(options: Options) -> None:
    learned, held_out = some_digits(options)
    epochs = 6 if options.quick else EPOCHS
    nets = {"fully connected": models.mlp(seed=options.seed), "convolution": convolutional(options.seed)}
    # Each at a rate that suits it: the dense net oscillates at the other's.
    rates = {"fully connected": 1e-3, "convolution": 4e-3}
    trained: dict[str, Trained] = {
        name: learn(net, learned, held_out, epochs, options.seed, rates[name]) for name, net in nets.items()
    }
    plans = {name: net.compile_inference() for name, net in nets.items()}
    images = held_out.images[:PREDICTED]
    times = milliseconds({name: lambda plan=plan: plan.run(images) for name, plan in plans.items()}, options.quick)
    tables = {name: net.table() for name, net in nets.items()}
    shifted = {
        name: [
            float((net.predict(moved(held_out.images, n), 100).argmax(-1) == held_out.labels).mean()) for n in SHIFTS
        ]
        for name, net in nets.items()
    }
    for made in tables.values():
        print(made, "\n")
    print_table(
        ("net", "weights", "MACs an image", "accuracy", "s to train", f"ms for {PREDICTED}"),
        [
            (name, made.parameters, made.macs, f"{trained[name].accuracy[-1]:.1%}", f"{trained[name].seconds:.1f}",
             f"{times[name]:.2f}")
            for name, made in tables.items()
        ],
    )  # fmt: skip
    print_table(
        ("digits moved right by", *(f"{n} px" for n in SHIFTS)),
        [(name, *(f"{share:.1%}" for share in shares)) for name, shares in shifted.items()],
    )
    print(f"{len(learned.labels):,} digits, {epochs} epochs; 1,000 held out")
    saved(draw(trained, shifted, times, len(learned.labels)), options, "dense_or_convolution")


def draw(
    trained: dict[str, Trained], shifted: dict[str, list[float]], times: dict[str, float], count: int
) -> object:
    """Accuracy by epoch, accuracy by shift, and bars of weights, MACs and times."""
    figure = new_figure(
        10.8, 5.9, "Fully connected or convolutional, on the same digits",
        f"The same {count:,} digits for both nets; accuracy on 1,000 others.",
    )  # fmt: skip
    accuracy_by_epoch(axis_at(figure, 0.75, 1.05, 4.3, 2.3), {k: result.accuracy for k, result in trained.items()})
    axis = plain(axis_at(figure, 6.0, 1.05, 4.3, 2.3), "accuracy on the same digits moved to the right, in %")
    for (name, shares), colour in zip(shifted.items(), COLOURS, strict=False):
        axis.plot(list(SHIFTS), 100 * np.array(shares), "o-", color=colour, markersize=4, label=name)
    axis.set_xlabel("pixels (none in training)", fontsize=9)
    axis.set_ylim(0, 102)
    axis.grid(alpha=0.25)
    axis.legend(frameon=False, fontsize=8.5, loc="lower left")
    tables = [result.net.table() for result in trained.values()]
    panels = (
        ("weights", [made.parameters for made in tables], "{:,.0f}"),
        ("million MACs an image", [made.macs / 1e6 for made in tables], "{:.2f}"),
        ("seconds of training", [result.seconds for result in trained.values()], "{:.1f}"),
        (f"milliseconds to predict {PREDICTED}", list(times.values()), "{:.1f}"),
    )
    for i, (title, values, form) in enumerate(panels):
        bars(
            axis_at(figure, 1.35 + 5.0 * (i % 2), 4.1 + 0.95 * (i // 2), 3.7, 0.55), title, list(trained), values,
            [form.format(value) for value in values],
        )  # fmt: skip
    return figure


if __name__ == "__main__":
    main(__doc__, run)
