"""
One net on images of other sizes
================================

Trained on digits of 28 x 28, it reads whole pages: a net without fully-connected layers takes images of any size.
``to_fully_convolutional`` turns Flatten + Dense into convolutions with the very same weights. On a larger image they
give a map of scores, one for every window that the trained net could have been shown, and neighbouring windows share
the work of the convolutions (Sermanet et al., 2014, OverFeat).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from _common import (
    MUTED,
    RIGHT,
    WRONG,
    Array,
    Digits,
    Options,
    axis_at,
    learn,
    main,
    milliseconds,
    new_figure,
    print_table,
    saved,
    some_digits,
)

from fastconv import Sequential, layers
from fastconv.cli.demo.data import SIZE
from fastconv.cli.demo.figures import bare, frame
from fastconv.cli.demo.page import BACKGROUND, STEP, Page, Reading, background, draw_page, judge, read_page

EPOCHS = 6
PAGES = ((2, 4), (4, 8))  # rows and columns of places for digits


def build(seed: int) -> Sequential:
    """VALID convolutions, two poolings, and two dense layers. Without padding a window's scores depend on the window
    alone, wherever it lies on a page."""
    return Sequential(
        [
            layers.Conv2D(16, 3, activation="relu"),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(BACKGROUND + 1),  # ten digits, and windows without one in their middle
        ],
        (SIZE, SIZE, 1),
        name="small_net",
        seed=seed,
    )


@dataclass(frozen=True, slots=True)
class Result:
    """A page, what was read, and how one pass compares with a pass for every window."""

    page: Page
    reading: Reading
    one_pass_ms: float
    windows_ms: float
    one_pass_macs: int
    windows_macs: int
    difference: float  # of the largest score


def windows(image: Array) -> Array:
    """Every window (N, 28, 28, 1) that the net's stride reaches, row by row."""
    every = np.lib.stride_tricks.sliding_window_view(image, (SIZE, SIZE))[::STEP, ::STEP]
    return np.ascontiguousarray(every).reshape(-1, SIZE, SIZE, 1)


def compare(net: Sequential, wide: Sequential, page: Page, quick: bool) -> Result:
    """Read a page in one pass and window by window: the same scores."""
    image, cut = page.image[None, :, :, None], windows(page.image)
    plans = wide.compile_inference(image.shape[1:]), net.compile_inference()

    def window_by_window() -> Array:
        return np.concatenate([plans[1].run(cut[i : i + 64]) for i in range(0, len(cut), 64)])

    scores, expected = plans[0].run(image), window_by_window()
    times = milliseconds({"one": lambda: plans[0].run(image), "windows": window_by_window}, quick, 5)
    difference = np.abs(scores.reshape(expected.shape) - expected).max() / np.abs(expected).max()
    return Result(
        page, read_page(wide, page), times["one"], times["windows"], wide.table(image.shape[1:]).macs,
        len(cut) * net.table().macs, float(difference),
    )  # fmt: skip


def run(options: Options) -> None:
    learned, held_out = some_digits(options)
    random = np.random.default_rng(options.seed)
    none = background(learned, random, len(learned.labels) // 2)
    images = np.concatenate([learned.images, none])
    labels = np.concatenate([learned.labels, np.full(len(none), BACKGROUND)])
    net = build(options.seed)
    trained = learn(net, Digits(images, labels), held_out, 2 if options.quick else EPOCHS, options.seed)
    wide = net.to_fully_convolutional()
    wide.summary()
    print(f"\nweights: {net.count_params():,} with dense layers, {wide.count_params():,} without: the same ones")
    print(f"accuracy on single digits held out: {trained.accuracy[-1]:.1%} ({trained.seconds:.1f} s of training)\n")

    native = Page(held_out.images[0, ..., 0], np.array([[0, 0, held_out.labels[0]]]))
    pages = [native, *(draw_page(held_out, random, *places) for places in PAGES)]
    results = [compare(net, wide, page, options.quick) for page in pages]
    print_table(
        ("image", "map", "MACs, one pass", "by windows", "ms, one pass", "by windows", "difference", "digits read"),
        [
            (_size(r.page.image), _size(r.reading.labels), r.one_pass_macs, r.windows_macs, f"{r.one_pass_ms:.2f}",
             f"{r.windows_ms:.2f}", f"{r.difference:.1e}",
             f"{int(judge(r.page, r.reading)[2].sum())} of {len(r.page.digits)}")
            for r in results
        ],
    )  # fmt: skip
    saved(draw(results), options, "other_sizes")


def _size(array: Array) -> str:
    return f"{array.shape[0]} x {array.shape[1]}"


def draw(results: list[Result]) -> object:
    """The images with boxes around the digits read; below, the maps of scores where their windows' middles lie."""
    scale, gap = 0.0192, 0.35
    widths = [max(0.9, r.page.image.shape[1] * scale) for r in results]
    high = results[-1].page.image.shape[0] * scale
    total = 0.6 + sum(widths) + gap * (len(results) - 1)
    tall = 1.15 + 2 * high + 1.75
    last = results[-1]
    figure = new_figure(
        total, tall, "One net, images of three sizes",
        f"Trained on single digits of {SIZE} x {SIZE}. {last.reading.labels.size:,} windows of the largest page: "
        f"{last.one_pass_ms:.1f} ms in one pass, {last.windows_ms:.0f} ms one by one, the same scores.",
    )  # fmt: skip
    left = 0.3
    for r, wide in zip(results, widths, strict=True):
        height, width = r.page.image.shape
        share = width * scale / wide
        for below in (False, True):
            top = 1.15 + below * (high + 0.65)
            axis = bare(axis_at(figure, left, top, wide * share, height * scale))
            if below:
                _draw_map(axis, r)
                text = f"map {_size(r.reading.labels)}"
            else:
                _draw_page(axis, r)
                text = f"{height} x {width}"
            frame(axis, 0, 0, width, height, edgecolor="#888888", linewidth=0.7, clip_on=False)
            axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
            axis.set_title(text, fontsize=9, loc="left")
        left += wide + gap
    _draw_key(figure, tall - 0.62, total)
    return figure


def _draw_page(axis: object, r: Result) -> None:
    axis.imshow(r.page.image, cmap="gray_r", vmin=0, vmax=1)
    correct, _, _ = judge(r.page, r.reading)
    for (top, left, label), right in zip(r.reading.digits, correct, strict=True):
        colour = RIGHT if right else WRONG
        frame(axis, left + 2, top + 2, SIZE - 4, SIZE - 4, edgecolor=colour, linewidth=1.1)
        axis.text(left + 3, top + 3, str(label), fontsize=8, color=colour, va="top", fontweight="bold")


def _colours() -> Array:
    from matplotlib import colormaps

    return np.array(colormaps["tab10"].colors)


def _draw_map(axis: object, r: Result) -> None:
    """The likeliest digit's colour, as strong as the net is sure that there is one."""
    strength = r.reading.presence[..., None]
    shown = 1 - strength * (1 - _colours()[r.reading.labels])
    first, (rows, columns) = SIZE / 2 - STEP / 2 - 0.5, r.reading.labels.shape
    axis.imshow(shown, extent=(first, first + STEP * columns, first + STEP * rows, first), interpolation="nearest")


def _draw_key(figure: object, top: float, width: float) -> None:
    axis = bare(axis_at(figure, 0.3, top, 5.2, 0.3))
    for digit, colour in enumerate(_colours()):
        axis.plot(digit, 0, "s", color=colour, markersize=9)
        axis.text(digit + 0.22, 0, str(digit), va="center", fontsize=9)
    axis.set(xlim=(-0.3, 10), ylim=(-1, 1))
    figure.text(
        5.4 / width, 1 - (top + 0.15) / figure.get_figheight(), "colour: the likeliest digit; white: no digit there",
        fontsize=8.5, color=MUTED, va="center",
    )  # fmt: skip


if __name__ == "__main__":
    main(__doc__, run)
