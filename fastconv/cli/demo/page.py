"""A page of several digits, read by a net of convolutions alone in one pass over the whole of it.

The net has learnt from single digits of 28 x 28 and has no padding, so that its fully convolutional form gives for a
page what the net itself would give for every window of 28 x 28, `STEP` pixels apart, in one pass (Sermanet et al.,
2014, OverFeat).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import Sequential
from ...layers.activations import softmax
from .data import SIZE, Digits

Array = NDArray[Any]

STEP = 4  # pixels between two scores: two convolutions of stride 2
PITCH, JITTER, MARGIN = 36, 4, 8  # pixels between digits of a page, how far each is moved, and the page's edge
EMPTY = 0.15  # share of places left blank
FAR = 9  # a window that far from the centre of every digit shows no digit
NEAR = 7  # a detection that near to the centre of a digit has found it
APART = 14  # two detections nearer than that are of one digit
BACKGROUND = 10  # the class of windows without a digit in their middle


@dataclass(frozen=True, slots=True)
class Page:
    """An image (H, W) and its digits: rows (top, left, label) of the windows that they fill."""

    image: Array
    digits: Array


@dataclass(frozen=True, slots=True)
class Reading:
    """What a net saw: rows (top, left, label) of windows, how sure it was, and maps with a value a window."""

    digits: Array
    confidence: Array
    presence: Array  # probability of a digit in the middle of the window
    labels: Array  # the likeliest digit


def draw_page(source: Digits, random: np.random.Generator, rows: int, columns: int) -> Page:
    """Digits of `source` on a page of rows and columns of places, moved about and some left out."""
    height, width = (count * PITCH + 2 * MARGIN for count in (rows, columns))
    image = np.zeros((height // STEP * STEP, width // STEP * STEP), np.float32)
    placed = []
    for place in np.argwhere(random.random((rows, columns)) >= EMPTY):
        top, left = (int(v) for v in place * PITCH + MARGIN + random.integers(0, JITTER + 1, 2))
        chosen = int(random.integers(len(source.labels)))
        window = image[top : top + SIZE, left : left + SIZE]
        np.maximum(window, source.images[chosen, ..., 0], out=window)
        placed.append((top, left, int(source.labels[chosen])))
    return Page(image, np.array(placed, np.int64).reshape(-1, 3))


def background(source: Digits, random: np.random.Generator, count: int) -> Array:
    """`count` windows (28, 28, 1) of pages of `source` with no digit in their middle: edges, gaps and halves."""
    windows: list[Array] = []
    while len(windows) < count:
        page = draw_page(source, random, 6, 6)
        for _ in range(min(60, count - len(windows))):
            top, left = (int(random.integers(0, side - SIZE + 1)) for side in page.image.shape)
            if np.all(np.hypot(page.digits[:, 0] - top, page.digits[:, 1] - left) >= FAR):
                windows.append(page.image[top : top + SIZE, left : left + SIZE, None])
    return np.stack(windows)


def read_page(net: Sequential, page: Page, threshold: float = 0.5) -> Reading:
    """Read a page in one pass of a fully convolutional net."""
    probability = softmax(net.forward(page.image[None, :, :, None])[0])
    presence, labels = 1 - probability[..., BACKGROUND], probability[..., :BACKGROUND].argmax(-1)
    found, sure = [], []
    left = presence.copy()
    rows, columns = np.indices(presence.shape)
    while left.size and left.max() >= threshold:  # the surest window, then the surest of those apart from it, ...
        row, column = (int(i) for i in np.unravel_index(int(left.argmax()), left.shape))
        found.append((row * STEP, column * STEP, int(labels[row, column])))
        sure.append(float(presence[row, column]))
        left[np.hypot(rows - row, columns - column) * STEP < APART] = 0
    return Reading(np.array(found, np.int64).reshape(-1, 3), np.array(sure), presence, labels)


def judge(page: Page, reading: Reading) -> tuple[Array, Array, Array]:
    """For every detection whether it is right; for every digit of the page whether it was found, and read rightly."""
    distance = np.hypot(
        reading.digits[:, None, 0] - page.digits[None, :, 0], reading.digits[:, None, 1] - page.digits[None, :, 1]
    )
    near = distance <= NEAR
    right = near & (reading.digits[:, None, 2] == page.digits[None, :, 2])
    return right.any(1), near.any(0), right.any(0)
