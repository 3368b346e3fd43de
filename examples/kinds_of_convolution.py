"""
Four kinds of convolution
=========================

Normal, tiled, dilated, transposed: which output sees which input, and what each does to a picture. Tiled convolution
cycles through several kernels over the output positions; dilated convolution leaves gaps between its taps; transposed
convolution ("deconvolution") runs the connections backwards, so that a stride enlarges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from _common import COLOURS, MUTED, Array, Options, axis_at, main, new_figure, print_table, saved

from fastconv import avg_pool2d, conv2d, conv_transpose2d, tiled_conv2d
from fastconv.cli.demo.data import photograph
from fastconv.cli.demo.figures import bare

INPUTS = 9  # of the diagrams
EDGES = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]], np.float32) / 4  # Sobel, across
BLUR = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32) / 16
SAME = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]], np.float32)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind: on rows of pixels for the diagram (N, 1, 1, W), and on an image (1, 1, H, W) for the picture."""

    name: str
    says: str
    diagram: Callable[[Array], Array]
    picture: Callable[[Array], Array]
    weights: int  # of the diagram
    grey: float  # what zero is drawn as


def row(*values: float) -> Array:
    """A kernel (1, 1, 1, k)."""
    return np.array(values, np.float32).reshape(1, 1, 1, -1)


def plane(kernel: Array) -> Array:
    """A kernel (1, 1, kH, kW)."""
    return kernel[None, None]


TILES = np.stack([SAME, EDGES, EDGES.T, BLUR]).reshape(2, 2, 1, 1, 3, 3)  # (tH, tW, O, I, kH, kW)

# The diagrams' weights are 1, 2, 3, ...: their numbers, from which the colours follow.
KINDS = (
    Kind("(a) convolution", "3 taps", lambda x: conv2d(x, row(1, 2, 3)),
         lambda x: conv2d(x, plane(EDGES), padding="same", padding_mode="replicate"), 3, 0.5),
    Kind("(b) tiled convolution", "2 kernels of 3 taps by turns",
         lambda x: tiled_conv2d(x, np.stack([row(1, 2, 3), row(4, 5, 6)])[None]),
         lambda x: tiled_conv2d(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge"), TILES), 6, 0.25),
    Kind("(c) dilated convolution", "3 taps, dilation 2", lambda x: conv2d(x, row(1, 2, 3), dilation=2),
         lambda x: conv2d(x, plane(EDGES), dilation=3, padding="same", padding_mode="replicate"), 3, 0.5),
    Kind("(d) transposed convolution", "3 taps, stride 2",
         lambda x: conv_transpose2d(x, row(1, 2, 3), stride=(1, 2)),
         lambda x: conv_transpose2d(x, plane(4 * BLUR), stride=2), 3, 0.0),
)  # fmt: skip

WHAT = ("edges", "4 kernels by turns", "edges, dilation 3", "enlarged")  # the pictures' captions


def connections(kind: Kind, inputs: int) -> Array:
    """The number of the weight between every input and output (inputs, outputs), 0 where there is none."""
    one_at_a_time = np.eye(inputs, dtype=np.float32)[:, None, None, :]
    return kind.diagram(one_at_a_time)[:, 0, 0].round().astype(int)


def run(options: Options) -> None:
    image = photograph().mean(-1)[None, None]
    eye = np.ascontiguousarray(avg_pool2d(image, 3)[:, :, 10:58, 43:91])
    links, pictures = [], []
    for kind in KINDS:
        links.append(connections(kind, 5 if "transposed" in kind.name else INPUTS))
        pictures.append(kind.picture(eye)[0, 0])
    print_table(
        ("kind", "inputs", "outputs", "weights", "connections", "inputs of an output", "image", "becomes"),
        [
            (kind.name, *link.shape, kind.weights, int((link > 0).sum()), _sees(link), _size(eye[0, 0]), _size(picture))
            for kind, link, picture in zip(KINDS, links, pictures, strict=True)
        ],
    )  # fmt: skip
    figure = new_figure(
        11.2, 5.9, "Four kinds of convolution",
        "Above: rows of pixels, inputs below and outputs on top; a colour is a weight. Thick: what one output sees. "
        "Below: 3x3 kernels on a cat's eye.",
    )  # fmt: skip
    for i, (kind, link, picture) in enumerate(zip(KINDS, links, pictures, strict=True)):
        left = 0.3 + 2.73 * i
        axis = bare(axis_at(figure, left, 1.1, 2.45, 1.6))
        axis.set_title(kind.name, fontsize=10, fontweight="bold", loc="left")
        draw_connections(axis, link)
        figure.text(left / 11.2, 1 - 2.78 / 5.9, kind.says, fontsize=8.5, color=MUTED, va="top")
        shown = bare(axis_at(figure, left, 3.15, 2.45, 2.45))
        shown.imshow(np.clip(kind.grey + picture * (1 if kind.grey in (0, 0.25) else 2), 0, 1), cmap="gray", vmin=0,
                     vmax=1)  # fmt: skip
        shown.set_xlabel(f"{WHAT[i]}: {_size(eye[0, 0])} \u2192 {_size(picture)}", fontsize=8.5)
    saved(figure, options, "kinds_of_convolution")


def _size(picture: Array) -> str:
    return f"{picture.shape[0]} x {picture.shape[1]}"


def _sees(link: Array) -> str:
    """How many inputs an output sees, from the fewest to the most."""
    seen = (link > 0).sum(0)
    return str(seen.min()) if seen.min() == seen.max() else f"{seen.min()} to {seen.max()}"


def draw_connections(axis: object, link: Array) -> None:
    """Circles for pixels, lines for weights; those of an output in the middle thick."""
    inputs, outputs = link.shape
    width = max(inputs, outputs) - 1
    seen = (link > 0).sum(0)
    middle = max(range(outputs), key=lambda o: (seen[o], -abs(o - outputs // 2)))

    def place(i: int, count: int) -> float:
        """Rows are centred; a transposed convolution's inputs lie two outputs apart."""
        return 2.0 * i + 1 if count == inputs < outputs else i + (width - count + 1) / 2

    for (i, o), weight in np.ndenumerate(link):
        if weight:
            axis.plot(
                (place(i, inputs), place(o, outputs)), (0, 1), color=COLOURS[weight - 1],
                linewidth=2.6 if o == middle else 1.0, alpha=1 if o == middle else 0.55, zorder=1,
            )  # fmt: skip
    for count, y in ((inputs, 0), (outputs, 1)):
        for i in range(count):
            chosen = y == 1 and i == middle
            used = y == 0 and link[i, middle] > 0
            axis.plot(place(i, count), y, "o", markersize=9, markeredgecolor="black", markeredgewidth=0.9,
                      markerfacecolor="#333333" if chosen else "#bbbbbb" if used else "white", zorder=2)  # fmt: skip
    axis.set(xlim=(-0.6, width + 0.6), ylim=(-0.16, 1.16))


if __name__ == "__main__":
    main(__doc__, run)
