"""Part one of the demo: a photograph under 3x3 and 5x5 filters, SAME and VALID, strides 1 and 2, in one picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...functional import avg_pool2d, conv2d
from .data import photograph
from .figures import MUTED, axis_at, bare, captions, frame, new_figure, save

Array = NDArray[Any]

INCHES_A_PIXEL = 1 / 62  # one scale for all images, so that sizes can be compared by eye
SMALLER = 2  # the photograph is halved: a border of one or two pixels can then be seen


@dataclass(frozen=True, slots=True)
class Filter:
    """A kernel, its factor, and how its response is made visible: `grey` is what a response of 0 looks like."""

    name: str
    kernel: Array
    divisor: int = 1
    grey: float = 0.0
    gain: float = 1.0


def _outer(*values: int) -> Array:
    return np.outer(values, values)


FILTERS = (
    Filter("sharpen", np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]])),
    Filter("vertical edges (Sobel)", np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]), 8, 0.5, 3.0),
    Filter("blur (binomial)", _outer(1, 4, 6, 4, 1), 256),
    Filter(
        "spots (Mexican hat)",
        np.array(
            [[0, 0, -1, 0, 0], [0, -1, -2, -1, 0], [-1, -2, 16, -2, -1], [0, -1, -2, -1, 0], [0, 0, -1, 0, 0]]
        ),
        16, 0.5, 3.0,
    ),
)  # fmt: skip
VARIANTS = (("same", 1), ("valid", 1), ("same", 2), ("valid", 2))  # padding and stride


def filtered(image: Array, chosen: Filter, padding: str, stride: int) -> Array:
    """The image (H, W, 3) under a filter: every colour by itself, a convolution of three groups."""
    kernel = (chosen.kernel / chosen.divisor).astype(np.float32)[:, :, None, None]
    weight = np.repeat(kernel, 3, axis=3)  # (kH, kW, 1, 3)
    return conv2d(image, weight, stride=stride, padding=padding, groups=3, data_format="NHWC")


def run(folder: Path) -> list[str]:
    """Draw the picture; the lines of the report."""
    image = avg_pool2d(photograph(), SMALLER, data_format="NHWC")
    height, width = image.shape[:2]
    results = {
        (i, j): filtered(image, chosen, padding, stride)
        for i, chosen in enumerate(FILTERS)
        for j, (padding, stride) in enumerate(VARIANTS)
    }
    path = _draw(image, results, folder / "convolutions.png")
    lines = [f"A photograph ({width} x {height} pixels, three colours) under four filters: {path}", ""]
    lines += [f"  {'filter':<24} {'kernel':<6} {'padding':<7} {'stride':>6}  size of the result"]
    for (i, j), result in results.items():
        padding, stride = VARIANTS[j]
        size, side = f"{result.shape[1]} x {result.shape[0]}", len(FILTERS[i].kernel)
        lines.append(f"  {FILTERS[i].name:<24} {f'{side}x{side}':<6} {padding.upper():<7} {stride:>6}  {size}")
    return lines


def _draw(image: Array, results: dict[tuple[int, int], Array], path: Path) -> Path:
    """A row a filter: its kernel, then the result of every variant, all at one scale with the input's frame."""
    height, width = image.shape[:2]
    high, wide, half = height * INCHES_A_PIXEL, width * INCHES_A_PIXEL, width / 2 * INCHES_A_PIXEL
    gap, label, top, row = 0.25, 1.75, 1.1, high + 0.5
    lefts = [0.3 + label + offset for offset in (0, wide + gap, 2 * (wide + gap), 2 * (wide + gap) + half + gap)]
    figure = new_figure(
        lefts[-1] + half + 0.35, top + row * (len(FILTERS) + 1) + 0.05,
        "One photograph, four filters, SAME and VALID padding, strides 1 and 2",
        "Every image at the same scale. The dashed frame is the size of the input (at stride 2: half of it): "
        "VALID loses the border, SAME keeps it but counts zeros there.",
    )  # fmt: skip
    _show(figure, image, lefts[0], top - 0.25, [(f"input: {width} x {height}", {"fontweight": "bold"})])
    weights = "\n".join([
        "Every colour is convolved by itself with the kernel at the left of its row.",
        "",
        "size of the result",
        "   SAME:    ceil(input / stride)",
        "   VALID:   ceil((input - kernel + 1) / stride)",
        "",
        "Where negative responses matter, zero is drawn as grey.",
    ])  # fmt: skip
    figure.text(
        lefts[1] / figure.get_figwidth(), 1 - (top + 0.15) / figure.get_figheight(), weights, fontsize=9.5, va="top",
        linespacing=1.5,
    )  # fmt: skip
    for i, chosen in enumerate(FILTERS):
        y = top + row * (i + 1)
        _show_kernel(figure, chosen, 0.35, y)
        for j, (padding, stride) in enumerate(VARIANTS):
            result = results[i, j]
            shown = np.clip(chosen.grey + chosen.gain * result, 0, 1)
            text = f"{padding.upper()}, stride {stride}: {result.shape[1]} x {result.shape[0]}"
            _show(figure, shown, lefts[j], y, [(text, {})], (-(-height // stride), -(-width // stride)))
    return save(figure, path)


def _show(
    figure: Any, image: Array, left: float, top: float, lines: list[tuple[str, Any]], room: tuple[int, int] = (0, 0)
) -> None:
    """An image in the middle of a dashed frame of `room` rows and columns."""
    height, width = (max(a, b) for a, b in zip(room, image.shape, strict=False))
    axis = bare(axis_at(figure, left, top, width * INCHES_A_PIXEL, height * INCHES_A_PIXEL))
    y, x = (height - image.shape[0]) / 2, (width - image.shape[1]) / 2
    axis.imshow(
        image, extent=(x - 0.5, x + image.shape[1] - 0.5, y + image.shape[0] - 0.5, y - 0.5), interpolation="nearest"
    )
    axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    if room[0]:
        frame(axis, 0, 0, width, height, edgecolor=MUTED, linestyle=(0, (4, 3)), linewidth=0.7, clip_on=False)
    captions(axis, lines)


def _show_kernel(figure: Any, chosen: Filter, left: float, top: float) -> None:
    """The kernel as coloured numbers, with the name of the filter below."""
    side = len(chosen.kernel)
    axis = bare(axis_at(figure, left, top, 1.3, 1.3))
    most = float(np.abs(chosen.kernel).max())
    axis.imshow(chosen.kernel, cmap="RdBu", vmin=-1.6 * most, vmax=1.6 * most)
    for (y, x), value in np.ndenumerate(chosen.kernel):
        axis.text(x, y, f"{value}", ha="center", va="center", fontsize=13 if side == 3 else 8.5)
    divisor = f", divided by {chosen.divisor}" if chosen.divisor > 1 else ""
    captions(axis, [(chosen.name, {"fontweight": "bold"}), (f"{side} x {side}{divisor}", {"color": MUTED})])
