"""
Width against depth
===================

Wide ResNet-50-2 beside ResNet-152, with ResNet-50 as the measure. Both have about three times the work of ResNet-50.
Wide ResNet-50-2 puts it into 3x3 convolutions of twice the channels, ResNet-152 into three times the layers (Zagoruyko
and Komodakis, 2016, section 3.4, also has their accuracy; here nothing is trained).
"""

from __future__ import annotations

import numpy as np
from _common import Options, axis_at, bars, main, milliseconds, new_figure, print_table, saved

from fastconv import Sequential, layers, models
from fastconv.models.sequential import all_layers

SIZE, QUICK_SIZE = 224, 32


def nets(size: int, seed: int) -> dict[str, Sequential]:
    """The three nets for images of `size` x `size`; nothing is allocated yet."""
    shape = (size, size, 3)
    return {
        "ResNet-50": models.resnet(50, input_shape=shape, seed=seed),
        "Wide ResNet-50-2": models.wide_resnet(50, 2, input_shape=shape, seed=seed),
        "ResNet-152": models.resnet(152, input_shape=shape, seed=seed),
    }


def weighted_layers(net: Sequential) -> int:
    """Convolutions and dense layers one after another, those of shortcuts left out: the number in the net's name."""
    return sum(
        isinstance(layer, (layers.Conv2D, layers.Dense)) and not layer.name.startswith("shortcut")
        for layer in all_layers(net)
    )


def run(options: Options) -> None:
    size = QUICK_SIZE if options.quick else SIZE
    counted = nets(SIZE, options.seed)
    tables = {name: net.table() for name, net in counted.items()}
    x = np.random.default_rng(options.seed).standard_normal((1, size, size, 3), np.float32)
    # A quick look times ResNet-50 alone: the weights of the other two take longer to draw than to use.
    timed = {name: net for name, net in nets(size, options.seed).items() if not options.quick or name == "ResNet-50"}
    plans = {name: net.compile_inference() for name, net in timed.items()}
    times = milliseconds({name: lambda plan=plan: plan.run(x) for name, plan in plans.items()}, options.quick, 5)
    print_table(
        ("net", "layers", "parameters", f"MACs at {SIZE}^2", "activations, MB", f"ms at {size}^2", "GMAC/s"),
        [
            (name, weighted_layers(counted[name]), made.parameters, made.macs, f"{made.forward_bytes / 1e6:.0f}",
             f"{times[name]:.0f}" if name in times else "-",
             f"{timed[name].table().macs / times[name] / 1e6:.0f}" if name in times else "-")
            for name, made in tables.items()
        ],
    )  # fmt: skip
    print("one image, float32, by compile_inference; random weights; layers without those of shortcuts")
    if size != SIZE:
        print(f"--quick: timed on {size} x {size} pixels in place of {SIZE} x {SIZE}, ResNet-50 alone")

    figure = new_figure(
        10.4, 3.7, "Width or depth: three ways to spend weights and work",
        f"One image of {SIZE} x {SIZE} (time: {size} x {size}), float32. Wide ResNet-50-2 doubles the channels of "
        "every 3x3 convolution; ResNet-152 has more blocks.",
    )  # fmt: skip
    names = list(tables)
    panels = (
        ("layers", [weighted_layers(counted[name]) for name in names], "{:.0f}"),
        ("million parameters", [made.parameters / 1e6 for made in tables.values()], "{:.1f}"),
        ("billion MACs", [made.macs / 1e9 for made in tables.values()], "{:.2f}"),
        ("milliseconds an image", [times.get(name, 0) for name in names], "{:.0f}"),
    )
    for i, (title, values, form) in enumerate(panels):
        bars(
            axis_at(figure, 1.5 + 2.2 * i, 1.2, 2.0, 2.0), title, names if i == 0 else [""] * len(names), values,
            [form.format(value) if value else "not timed" for value in values],
        )  # fmt: skip
    saved(figure, options, "width_or_depth")


if __name__ == "__main__":
    main(__doc__, run)
