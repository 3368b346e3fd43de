"""
SAME and VALID padding
======================

How often each pixel is used, and what is left of the border after several layers. SAME keeps the size, but windows at
the border count zeros, so that the border fades layer by layer. VALID uses real pixels alone and loses k - 1 rows and
columns a layer.
"""

from __future__ import annotations

import numpy as np
from _common import COLOURS, Array, Options, axis_at, cells, main, new_figure, plain, print_table, saved

from fastconv import avg_pool2d, conv2d, grad
from fastconv.cli.demo.data import photograph
from fastconv.cli.demo.figures import bare, frame

GROWS = {"valid": -2, "same": 0, "full": 2}  # rows and columns that a 3x3 convolution adds
SMALL = 8  # rows and columns of the image whose pixels are counted
KERNEL, LAYERS = 5, 8  # of the photograph's layers


def uses(padding: str) -> Array:
    """In how many outputs of a 3x3 convolution each pixel takes part: the input gradient of ones under ones."""
    kernel = np.ones((1, 1, 3, 3))
    outputs = conv2d(np.ones((1, 1, SMALL, SMALL)), kernel, padding=padding).shape
    return grad.conv2d_input((1, 1, SMALL, SMALL), kernel, np.ones(outputs), padding=padding)[0, 0]


def layer_by_layer(image: Array, padding: str) -> list[Array]:
    """The image (H, W, C) after 0, 1, ... layers of a 5x5 binomial blur, every colour by itself."""
    row = np.array([1, 4, 6, 4, 1], np.float32) / 16
    weight = np.repeat(np.outer(row, row)[:, :, None, None], image.shape[-1], axis=3)
    images = [image]
    for _ in range(LAYERS):
        images.append(
            conv2d(images[-1], weight, padding=padding, groups=image.shape[-1], data_format="channels_last")
        )
    return images


def run(options: Options) -> None:
    counts = {padding: uses(padding) for padding in GROWS}
    print_table(
        ("3x3 padding", "input", "output", "uses of a corner", "of an edge", "inside"),
        [
            (padding.upper(), f"{SMALL} x {SMALL}", f"{SMALL + GROWS[padding]} x {SMALL + GROWS[padding]}",
             int(count[0, 0]), int(count[0, SMALL // 2]), int(count[SMALL // 2, SMALL // 2]))
            for padding, count in counts.items()
        ],
    )  # fmt: skip

    image = np.ascontiguousarray(avg_pool2d(photograph(), 2, data_format="channels_last"))
    white = np.ones_like(image[..., :1])
    blurred = {padding: layer_by_layer(image, padding) for padding in ("same", "valid")}
    faded = layer_by_layer(white, "same")  # a white image shows what the zeros take away
    print_table(
        ("5x5 layers", "SAME", "corner of white", "edge of white", "VALID", "pixels left"),
        [
            (n, _size(blurred["same"][n]), f"{faded[n][0, 0, 0]:.3f}", f"{faded[n][0, image.shape[1] // 2, 0]:.3f}",
             _size(blurred["valid"][n]), f"{blurred['valid'][n][..., 0].size / image[..., 0].size:.0%}")
            for n in range(LAYERS + 1)
        ],
    )  # fmt: skip
    saved(draw(counts, image, blurred, [float(white[0, 0, 0]) for white in faded]), options, "padding")


def _size(image: Array) -> str:
    return f"{image.shape[0]} x {image.shape[1]}"


def draw(counts: dict[str, Array], image: Array, blurred: dict[str, list[Array]], corner: list[float]) -> object:
    """Counts above; below, the photograph after the last layer and the course of size and brightness."""
    figure = new_figure(
        10.6, 6.5, "What SAME and VALID do at the border",
        f"Above: how many outputs of one 3x3 convolution use each pixel of an {SMALL} x {SMALL} image. "
        f"Below: a photograph after {LAYERS} layers of {KERNEL}x{KERNEL} blur.",
    )  # fmt: skip
    for i, (padding, count) in enumerate(counts.items()):
        axis = axis_at(figure, 0.35 + 2.45 * i, 1.15, 2.1, 2.1)
        cells(axis, count, 9, 8.5)
        after = SMALL + GROWS[padding]
        axis.set_title(f"{padding.upper()}: {SMALL} x {SMALL} \u2192 {after} x {after}", fontsize=10, loc="left")
    axis = plain(axis_at(figure, 8.2, 1.15, 2.1, 2.1), "share of the image left")
    layers = np.arange(LAYERS + 1)
    axis.plot(layers, [v[..., 0].size / image[..., 0].size for v in blurred["valid"]], "o-", color=COLOURS[0],
              markersize=4)  # fmt: skip
    axis.plot(layers, corner, "s-", color=COLOURS[1], markersize=4)
    axis.annotate("VALID: pixels", (8, 0.66), ha="right", fontsize=8.5, color=COLOURS[0], xytext=(8, 0.9))
    axis.annotate("SAME: brightness\nof a white corner", (2, 0.3), fontsize=8.5, color=COLOURS[1], xytext=(2, 0.42))
    axis.set(ylim=(0, 1.05), xticks=layers[::2])
    axis.set_xlabel(f"layers of {KERNEL}x{KERNEL}", fontsize=8.5)
    axis.grid(alpha=0.25)
    height, width = image.shape[:2]
    wide = 3.15
    for i, (title, shown) in enumerate((
        ("input", image), ("SAME: the border fades to black", blurred["same"][-1]),
        ("VALID: the border is gone", blurred["valid"][-1]),
    )):  # fmt: skip
        axis = bare(axis_at(figure, 0.35 + 3.35 * i, 4.15, wide, wide * height / width))
        y, x = (height - shown.shape[0]) / 2, (width - shown.shape[1]) / 2
        axis.imshow(
            shown.clip(0, 1), extent=(x - 0.5, x + shown.shape[1] - 0.5, y + shown.shape[0] - 0.5, y - 0.5)
        )
        axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        frame(axis, 0, 0, width, height, edgecolor="#888888", linestyle=(0, (4, 3)), linewidth=0.8, clip_on=False)
        axis.set_title(f"{title}, {_size(shown)}", fontsize=9.5, loc="left")
    return figure


if __name__ == "__main__":
    main(__doc__, run)
