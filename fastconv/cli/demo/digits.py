"""Part two of the demo: train a small convolutional net on real digits, show what it makes of those it never saw."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import Sequential
from ...layers import BatchNormalization, Conv2D, GlobalAveragePooling2D, Layer, ReLU
from ...layers.activations import softmax
from ...losses import SparseCategoricalCrossentropy
from ...optimizers import Adam, CosineDecay
from .data import SIZE, Digits, digits
from .figures import MUTED, RIGHT, WRONG, axis_at, bare, frame, new_figure, save
from .page import BACKGROUND, STEP, Page, Reading, background, draw_page, judge, read_page

Array = NDArray[Any]

WIDTHS = (24, 48, 96)  # channels before, between and after the two strides of 2
BATCH = 64
RATE, WARMUP_STEPS = 4e-3, 30  # Adam's rate after the first steps, from where it falls along a cosine
# How far a digit is varied in training: radians, shares and pixels that leave it readable.
ANGLE, SLANT, SCALE, SHIFT = 0.2, 0.15, 0.12, 2.0


@dataclass(frozen=True, slots=True)
class Trained:
    """A net and what its training measured."""

    net: Sequential
    learned: int  # digits in training
    history: dict[str, list[float]]
    seconds: float
    held_out: Digits
    outputs: Array  # scores of the held-out digits, (1000, 11)

    @property
    def predicted(self) -> Array:
        classes: Array = self.outputs.argmax(-1)
        return classes

    @property
    def accuracy(self) -> float:
        return float((self.predicted == self.held_out.labels).mean())


def build_net(seed: int) -> Sequential:
    """3x3 convolutions, twice with stride 2 in place of pooling; a 1x1 head and its mean in place of dense layers.

    Without padding: what a window shows is then all that its scores depend on, wherever it lies on a page.
    """

    def convolution(filters: int, stride: int = 1) -> list[Layer]:
        return [
            Conv2D(filters, 3, stride, use_bias=False, kernel_initializer="he_normal"),
            BatchNormalization(momentum=0.9),
            ReLU(),
        ]

    layers = convolution(WIDTHS[0])
    layers += convolution(WIDTHS[0])  # 28 x 28 pixels have become 24 x 24
    for filters in WIDTHS[1:]:
        layers += convolution(filters, 2)
        layers += convolution(filters)  # 9 x 9, then 2 x 2
    return Sequential([*layers, Conv2D(BACKGROUND + 1, 1), GlobalAveragePooling2D()], (SIZE, SIZE, 1), seed=seed)


def varied(images: Array, random: np.random.Generator) -> Array:
    """Each image turned, scaled, slanted and moved a little at random, read between pixels bilinearly."""
    count = len(images)
    angle, slant = random.uniform(-ANGLE, ANGLE, count), random.uniform(-SLANT, SLANT, count)
    scale_y, scale_x = random.uniform(1 - SCALE, 1 + SCALE, (2, count))
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix = np.stack([cosine / scale_y, slant - sine, sine, cosine / scale_x], 1).reshape(count, 2, 2)
    middle = (SIZE - 1) / 2
    grid = np.indices((SIZE, SIZE)) - middle
    place = np.einsum("nij,jyx->inyx", matrix, grid) + middle + random.uniform(-SHIFT, SHIFT, (2, count, 1, 1))
    place = place.clip(0, SIZE - 1.001)  # the last pixel too has a neighbour to be mixed with
    whole = place.astype(np.int64)
    (y, x), (v, u) = whole, (place - whole).astype(images.dtype)
    plane, n = images[..., 0], np.arange(count)[:, None, None]
    above = plane[n, y, x] * (1 - u) + plane[n, y, x + 1] * u
    below = plane[n, y + 1, x] * (1 - u) + plane[n, y + 1, x + 1] * u
    mixed: Array = above * (1 - v) + below * v
    return mixed[..., None]


def train(seed: int, quick: bool, show: bool) -> Trained:
    """Train on 4,000 digits and a quarter as many windows without one; measure on the 1,000 held out."""
    learned, held_out = digits(seed, 1000 if quick else None)
    epochs = 2 if quick else 10
    random = np.random.default_rng(seed)
    none = background(learned, random, len(learned.labels) // 4)
    images = np.concatenate([learned.images, none])
    labels = np.concatenate([learned.labels, np.full(len(none), BACKGROUND)])
    net = build_net(seed)
    steps = epochs * -(-len(images) // BATCH)
    rate = CosineDecay(RATE / 10, steps - WARMUP_STEPS, alpha=0.01, warmup_target=RATE, warmup_steps=WARMUP_STEPS)
    loss = SparseCategoricalCrossentropy(from_logits=True, label_smoothing=0.05)
    net.compile(Adam(rate), loss, ["accuracy"])
    start = time.perf_counter()
    history = net.fit(
        images, labels, BATCH, epochs, (held_out.images, held_out.labels), verbose=1 if show else 2,
        seed=seed, augment=varied,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    return Trained(net, len(learned.labels), history.history, seconds, held_out, net.predict(held_out.images, 100))


# ---- Pictures -------------------------------------------------------------------------------------------------------

WRONG_SHOWN, RIGHT_SHOWN, ACROSS = 32, 64, 16


def draw_training(trained: Trained, path: Path) -> Path:
    """Loss and accuracy by epoch, of the digits in training and of those held out."""
    figure = new_figure(
        9, 3.9, "Training",
        f"{trained.net.count_params():,} weights, {trained.seconds:.0f} s; training digits are varied at random and "
        "measured while the net still learns from them",
    )  # fmt: skip
    epochs = np.arange(1, len(trained.history["loss"]) + 1)
    for i, name in enumerate(("loss", "accuracy")):
        axis = axis_at(figure, 0.75 + 4.35 * i, 1.0, 3.5, 2.3)
        percent = 100 if name == "accuracy" else 1
        for key, label, colour in ((name, "training", MUTED), (f"val_{name}", "held out", RIGHT)):
            values = percent * np.array(trained.history[key])
            axis.plot(epochs, values, "o-", color=colour, markersize=4, label=label)
        axis.annotate(
            f"{values[-1]:.1f} %" if name == "accuracy" else f"{values[-1]:.3f}", (epochs[-1], values[-1]),
            (0, 10 if name == "loss" else -10), textcoords="offset points", ha="right",
            va="bottom" if name == "loss" else "top", fontsize=9, color=RIGHT, fontweight="bold",
        )  # fmt: skip
        axis.set_title(
            "cross-entropy (labels smoothed)" if name == "loss" else "accuracy in %", fontsize=10, loc="left"
        )
        axis.set_xlabel("epoch", fontsize=9)
        axis.set_xticks(epochs)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=9, loc="upper right" if name == "loss" else "lower right")
        if name == "accuracy":  # most of the curve lies close below 100
            axis.set_ylim(max(0, float(np.floor(values.min() / 5)) * 5 - 5), 100.5)
    return save(figure, path)


def draw_predictions(trained: Trained, seed: int, path: Path) -> Path:
    """The digits that the net reads wrongly, in red with the truth, and some of those it reads rightly."""
    truth, predicted = trained.held_out.labels, trained.predicted
    wrong = np.flatnonzero(predicted != truth)
    right = np.random.default_rng(seed).permutation(np.flatnonzero(predicted == truth))[:RIGHT_SHOWN]
    shown = wrong[:WRONG_SHOWN]
    rows = [-(-len(chosen) // ACROSS) for chosen in (shown, right)]
    cell = 0.56
    figure = new_figure(
        0.6 + ACROSS * cell, 1.05 + sum(rows) * (cell + 0.17) + 0.4 + 0.15,
        f"{len(wrong)} of {len(truth):,} held-out digits read wrongly: {trained.accuracy:.1%} right",
        "Below each digit what the net reads; after the arrow what the person who wrote it meant.",
    )  # fmt: skip
    top = 1.05
    more = f", the first {len(shown)}" if len(shown) < len(wrong) else ""
    for chosen, count, title in (
        (shown, rows[0], f"wrong{more}"),
        (right, rows[1], f"right, {len(right)} of {int((predicted == truth).sum())}"),
    ):
        figure.text(
            0.3 / figure.get_figwidth(), 1 - (top - 0.03) / figure.get_figheight(), title, fontsize=10,
            color=WRONG if chosen is shown else RIGHT, fontweight="bold", va="bottom",
        )  # fmt: skip
        for i, index in enumerate(chosen):
            axis = bare(axis_at(
                figure, 0.3 + i % ACROSS * cell, top + i // ACROSS * (cell + 0.17), cell - 0.06, cell - 0.06
            ))  # fmt: skip
            axis.imshow(trained.held_out.images[index, ..., 0], cmap="gray_r", vmin=0, vmax=1)
            same = predicted[index] == truth[index]
            if not same:
                frame(axis, 0, 0, SIZE, SIZE, edgecolor=WRONG, linewidth=1.5)
            axis.set_xlabel(
                class_name(predicted[index]) if same else f"{class_name(predicted[index])} \u2192 {truth[index]}",
                fontsize=8, labelpad=1.5, color="black" if same else WRONG,
            )  # fmt: skip
        top += count * (cell + 0.17) + 0.4
    return save(figure, path)


def class_name(label: int) -> str:
    """A digit, or a dash for the class of windows without one."""
    return "\u2013" if label == BACKGROUND else str(label)


def draw_reading(page: Page, reading: Reading, seconds: float, path: Path) -> Path:
    """The page with a box around every digit found, above the map of where the net sees one."""
    height, width = page.image.shape
    scale = 10.2 / width
    high = height * scale
    correct, found, _ = judge(page, reading)
    figure = new_figure(
        10.8, 1.05 + 2 * high + 0.45 + 0.3, f"A page of {len(found)} digits read in one pass of {1e3 * seconds:.0f} ms",
        f"{width} x {height} pixels, {reading.presence.size:,} windows of {SIZE} x {SIZE}: {int(correct.sum())} read "
        f"rightly (blue), {int((~correct).sum())} wrongly (red), {int((~found).sum())} not found",
    )  # fmt: skip
    for i, title in enumerate(
        ("detections", "dense scores: the probability that the window around a place shows a digit")
    ):
        top = 1.05 + i * (high + 0.45)
        axis = bare(axis_at(figure, 0.3, top, 10.2, high))
        axis.set_title(title, fontsize=10, loc="left", pad=4)
        axis.imshow(page.image, cmap="gray_r", vmin=0, vmax=1)
        axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        frame(axis, 0, 0, width, height, edgecolor=MUTED, linewidth=0.8)
        if i == 0:
            for (y, x, label), right in zip(reading.digits, correct, strict=True):
                colour = RIGHT if right else WRONG
                frame(axis, x, y, SIZE, SIZE, edgecolor=colour, linewidth=1.3)
                axis.text(x + 0.8, y + 1, str(label), color=colour, fontsize=10, fontweight="bold", va="top")
            continue
        rows, columns = reading.presence.shape
        corner = (SIZE - STEP) / 2 - 0.5  # a cell lies on the middle of its window
        axis.imshow(
            reading.presence, cmap="viridis", alpha=0.65, vmin=0, vmax=1, interpolation="nearest",
            extent=(corner, corner + STEP * columns, corner + STEP * rows, corner),
        )  # fmt: skip
        axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    return save(figure, path)


# ---- The part as a whole --------------------------------------------------------------------------------------------


def run(folder: Path, seed: int, quick: bool, show: bool) -> tuple[list[str], float]:
    """Train, draw, read a page; the lines of the report and the accuracy on the held-out digits."""
    trained = train(seed, quick, show)
    net = trained.net
    wrong = int((trained.predicted != trained.held_out.labels).sum())
    page = draw_page(trained.held_out, np.random.default_rng(seed), 5, 10)
    dense = net.to_fully_convolutional()
    read_page(dense, page)  # the first pass is not timed: it asks the system for memory
    start = time.perf_counter()
    reading = read_page(dense, page)
    seconds = time.perf_counter() - start
    correct, found, read = judge(page, reading)
    one_by_one, difference = _each_window(net, page, reading)
    height, width = page.image.shape
    lines = [
        "A net of 3x3 convolutions, two of them with stride 2 in place of pooling, a 1x1 head and its global average,",
        f"trained on {trained.learned:,} handwritten digits",
        f"  weights               {net.count_params():,}; {net.macs((SIZE, SIZE, 1)):,} multiply-adds a digit",
        f"  epochs                {len(trained.history['loss'])} in {trained.seconds:.1f} s",
        f"  held-out digits       {len(trained.held_out.labels):,}, of which {wrong} read wrongly",
        f"  accuracy              {trained.accuracy:.1%}",
        f"  curves                {draw_training(trained, folder / 'training.png')}",
        f"  predictions           {draw_predictions(trained, seed, folder / 'predictions.png')}",
        "",
        f"A page of {width} x {height} pixels with {len(found)} held-out digits, in one pass",
        f"  digits found          {int(found.sum())}, of which {int(read.sum())} read rightly",
        f"  wrong detections      {int((~correct).sum())}",
        f"  one pass              {1e3 * seconds:.1f} ms for {reading.presence.size:,} windows",
        f"  window by window      {1e3 * one_by_one:.0f} ms; largest difference of a probability {difference:.1e}",
        f"  picture               {draw_reading(page, reading, seconds, folder / 'page.png')}",
    ]
    return lines, trained.accuracy


def _each_window(net: Sequential, page: Page, reading: Reading) -> tuple[float, float]:
    """Seconds to read every window by itself, and the largest difference of P(digit) from the one pass."""
    windows = np.lib.stride_tricks.sliding_window_view(page.image, (SIZE, SIZE))[::STEP, ::STEP]
    start = time.perf_counter()
    scores = net.predict(np.ascontiguousarray(windows.reshape(-1, SIZE, SIZE, 1)), 256)
    seconds = time.perf_counter() - start
    presence = 1 - softmax(scores)[:, BACKGROUND]
    return seconds, float(np.abs(presence - reading.presence.ravel()).max())
