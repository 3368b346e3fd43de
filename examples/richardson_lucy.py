"""
A microscope's image made sharp
===============================

A widefield microscope sees every point as a spot with a wide halo, and counts photons one by one. Richardson and Lucy's
method finds what most likely was there: each step compares the image with what the estimate would look like through the
microscope, and moves the estimate by the ratio. That is two convolutions a step, here by 101x101 taps, which plans
prepared once compute by Fourier transforms of tiles.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from _common import (
    COLOURS,
    Array,
    Options,
    axis_at,
    main,
    milliseconds,
    new_figure,
    plain,
    print_table,
    saved,
)

from fastconv import explain_conv2d, plan_conv2d
from fastconv.cli.demo.figures import bare
from fastconv.scipy import ndimage

TAPS = 101
PHOTONS, DARK = 400.0, 4.0  # a pixel on a thread in focus, and one where nothing is
STEPS = 60
SHOWN = (10, 60)


def threads(size: int, seed: int) -> Array:
    """Threads of a cell's skeleton and a few round vesicles: brightness, 1 on a thread."""
    rng = np.random.default_rng(seed)
    image, t = np.zeros((size, size)), np.linspace(0, 1, 12 * size)
    for _ in range(size // 12):
        angle, bend, sway = rng.uniform(0, 2 * np.pi), rng.normal(0, 1.2), rng.uniform(1, 3)
        headings = angle + bend * t + 0.25 * np.sin(2 * np.pi * sway * t + angle)
        y, x = (rng.uniform(0, size) + np.cumsum(f(headings)) * size / t.size for f in (np.sin, np.cos))
        inside = (y >= 0) & (y < size - 1) & (x >= 0) & (x < size - 1)
        image[np.rint(y[inside]).astype(int), np.rint(x[inside]).astype(int)] = 1
    for y, x in rng.uniform(0.05, 0.95, (size // 16, 2)) * size:
        image[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2] = 1.5
    return ndimage.gaussian_filter(image, 0.6)


def spread() -> Array:
    """What a point becomes: a spot two pixels wide, and out-of-focus light with long arms; its sum is 1."""
    y, x = np.indices((TAPS, TAPS)) - TAPS // 2
    radius = np.hypot(y, x * 1.15)
    made = np.exp(-((radius / 2.2) ** 2)) + 0.035 / (1 + (radius / 7) ** 2) ** 1.5
    return made / made.sum()


class Microscope:
    """Convolution by the spread of a point, and by its mirror image, with kernels prepared once."""

    def __init__(self, shape: tuple[int, int], kernel: Array, algorithm: str = "auto") -> None:
        options = {"padding": TAPS // 2, "padding_mode": "symmetric", "algorithm": algorithm}
        self.plans = [
            plan_conv2d((1, 1, *shape), one[None, None].astype(np.float32), **options)
            for one in (kernel[::-1, ::-1], kernel)
        ]

    def see(self, image: Array) -> Array:
        """The image through the microscope."""
        return self.plans[0].run(image[None, None])[0, 0]

    def back(self, image: Array) -> Array:
        """Every pixel's share to where its light may have come from."""
        return self.plans[1].run(image[None, None])[0, 0]


def richardson_lucy(seen: Array, microscope: Microscope) -> Iterator[Array]:
    """Ever sharper estimates."""
    estimate = np.full_like(seen, seen.mean())
    while True:
        estimate = estimate * microscope.back(seen / np.maximum(microscope.see(estimate), 1e-6))
        yield estimate


def likeness(image: Array, truth: Array) -> float:
    """The correlation of two images."""
    return float(np.corrcoef(image.ravel(), truth.ravel())[0, 1])


def run(options: Options) -> None:
    size = 256 if options.quick else 512
    truth, kernel = threads(size, options.seed), spread()
    microscope = Microscope((size, size), kernel)
    light = microscope.see((PHOTONS * truth + DARK).astype(np.float32))
    seen = np.random.default_rng(options.seed).poisson(np.maximum(light, 0)).astype(np.float32)
    steps = dict(zip(range(1, STEPS + 1), richardson_lucy(seen, microscope), strict=False))
    like = {0: likeness(seen, truth)} | {n: likeness(one, truth) for n, one in steps.items()}
    print_table(
        ("steps", "likeness to the truth", "brightest pixel"),
        [(n, f"{like[n]:.3f}", f"{(steps[n] if n else seen).max():.0f}") for n in (0, 1, 3, *SHOWN)],
    )

    direct = Microscope((size, size), kernel, "direct")
    times = milliseconds({
        "Fourier transforms": lambda: microscope.see(seen), "plain sums": lambda: direct.see(seen),
    }, options.quick, 2)  # fmt: skip
    shape, weight = (1, 1, size, size), (1, 1, TAPS, TAPS)
    told = explain_conv2d(shape, weight, padding=TAPS // 2, padding_mode="symmetric")
    print_table(
        (f"one convolution by {TAPS} x {TAPS}", "multiplications", "ms"),
        [("plain sums", truth.size * TAPS**2, f"{times['plain sums']:.1f}"),
         ("Fourier transforms of tiles", told.multiplications, f"{times['Fourier transforms']:.1f}")],
    )  # fmt: skip
    print(f"chosen because: {told.reason}\n")
    saved(draw(truth, seen, steps, like), options, "richardson_lucy")


def draw(truth: Array, seen: Array, steps: dict[int, Array], like: dict[int, float]) -> object:
    """The image before and after, the truth, and how the likeness grows."""
    figure = new_figure(
        10.9, 3.95, "An image of a microscope, sharpened by Richardson and Lucy's method",
        f"{seen.shape[0]} x {seen.shape[1]} pixels, a kernel of {TAPS} x {TAPS} taps; the middle of each image, "
        "and its likeness to what was there.",
    )  # fmt: skip
    middle = slice(truth.shape[0] // 4, 3 * truth.shape[0] // 4)
    images = [("as the microscope sees it", seen, like[0])]
    images += [(f"after {n} steps", steps[n], like[n]) for n in SHOWN]
    images += [("what was there", truth, 1.0)]
    for i, (title, image, value) in enumerate(images):
        axis = bare(axis_at(figure, 0.3 + 2.08 * i, 1.1, 1.98, 1.98))
        shown = image[middle, middle]
        axis.imshow(shown, cmap="magma", vmin=0, vmax=np.quantile(shown, 0.998), interpolation="nearest")
        axis.set_title(title, fontsize=9.5, loc="left")
        axis.annotate(f"{value:.2f}", (0, 0), (0, -5), xycoords="axes fraction", textcoords="offset points", va="top",
                      fontsize=9)  # fmt: skip
    axis = plain(axis_at(figure, 9.0, 1.1, 1.6, 1.98), "likeness by step")
    axis.plot(list(like), list(like.values()), color=COLOURS[0])
    axis.grid(alpha=0.25)
    return figure


if __name__ == "__main__":
    main(__doc__, run)
