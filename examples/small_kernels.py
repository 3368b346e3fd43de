"""
Stacks of 3x3 against 5x5 and 7x7
=================================

Two 3x3 convolutions see the same pixels as one 5x5, three the same as one 7x7: weights, receptive field, time. The
stack needs 18 D^2 weights in place of 25 D^2 (27 in place of 49) for D channels, and puts a non-linearity between its
layers (Simonyan and Zisserman, 2015, section 2.3).
"""

from __future__ import annotations

import numpy as np
from _common import (
    COLOURS,
    MUTED,
    Array,
    Options,
    axis_at,
    bars,
    cells,
    main,
    milliseconds,
    new_figure,
    print_table,
    saved,
)

from fastconv import Sequential, layers

STACKS = {"two 3x3": (3, 3), "one 5x5": (5,), "three 3x3": (3, 3, 3), "one 7x7": (7,)}


def stack(kernels: tuple[int, ...], channels: int, size: int, seed: int) -> Sequential:
    """Convolutions of as many channels in as out, a ReLU behind each, without biases."""
    return Sequential(
        [layers.Conv2D(channels, k, padding="same", activation="relu", use_bias=False) for k in kernels],
        (size, size, channels),
        name="x".join(map(str, kernels)),
        seed=seed,
    )


def ways(kernels: tuple[int, ...], size: int = 9) -> Array:
    """Over how many ways each pixel of the input reaches the output in the middle."""
    net = Sequential(
        [layers.Conv2D(1, k, padding="same", use_bias=False, kernel_initializer="ones") for k in kernels],
        (size, size, 1),
    )
    net.forward(np.ones((1, size, size, 1), np.float32))
    middle = np.zeros((1, size, size, 1), np.float32)
    middle[0, size // 2, size // 2] = 1
    return net.backward(middle)[0, :, :, 0]


def run(options: Options) -> None:
    channels, size = (16, 16) if options.quick else (64, 56)
    nets = {name: stack(kernels, channels, size, options.seed) for name, kernels in STACKS.items()}
    x = np.random.default_rng(options.seed).standard_normal((1, size, size, channels), np.float32)
    plans = {name: net.compile_inference() for name, net in nets.items()}
    times = milliseconds({name: lambda plan=plan: plan.run(x) for name, plan in plans.items()}, options.quick)
    tables = {name: net.table() for name, net in nets.items()}
    fields = {name: made.rows[-1].field[0] for name, made in tables.items()}

    nets["two 3x3"].summary()
    print()
    print_table(
        ("layers", "weights", "of D^2", "MACs", "receptive field", "ReLUs", "ms"),
        [
            (name, made.parameters, made.parameters // channels**2, made.macs, f"{fields[name]} x {fields[name]}",
             len(STACKS[name]), f"{times[name]:.3f}")
            for name, made in tables.items()
        ],
    )  # fmt: skip
    print(f"D = {channels} channels, one image of {size} x {size}, float32, weights packed before")

    figure = new_figure(
        10.4, 6.2, "Small kernels see as far as large ones, with fewer weights",
        f"{channels} channels in and out, one image of {size} x {size}. Above: the pixels that one output sees, and "
        "over how many ways each reaches it.",
    )  # fmt: skip
    for i, (name, kernels) in enumerate(STACKS.items()):
        axis = axis_at(figure, 0.35 + 2.5 * i, 1.15, 2.2, 2.2)
        seen = ways(kernels)
        cells(axis, seen, float(seen.max()), 7.5)
        axis.set_title(f"{name}: sees {fields[name]} x {fields[name]}", fontsize=10, color=COLOURS[i], loc="left")
    names = list(STACKS)
    weights = [made.parameters for made in tables.values()]
    bars(
        axis_at(figure, 1.1, 4.0, 3.7, 1.65), "weights", names, weights,
        [f"{count:,} = {count // channels**2} D\u00b2" for count in weights],
    )  # fmt: skip
    bars(
        axis_at(figure, 6.1, 4.0, 3.7, 1.65), "milliseconds", names, list(times.values()),
        [f"{value:.2f}" for value in times.values()],
    )  # fmt: skip
    figure.text(
        0.35 / 10.4, 0.2 / 6.2, "3x3 is computed by Winograd's algorithm where that pays; "
        "5x5 and 7x7 directly.", fontsize=8.5, color=MUTED,
    )  # fmt: skip
    saved(figure, options, "small_kernels")


if __name__ == "__main__":
    main(__doc__, run)
