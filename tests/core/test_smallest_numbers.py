"""The stated bounds hold down to the smallest numbers, where products and transformed weights are subnormal, and up to
the largest, where Winograd's transforms overflow before the result does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import reference
from fastconv._core.geometry import Geometry, conv_geometry
from fastconv._core.problem import Direction
from fastconv._core.select import wishes
from fastconv.testing.bounds import direct_bound
from fastconv.testing.comparisons import GRADIENTS, Comparison
from fastconv.testing.ways import limit, way

# powers of ten of the input and of the weight
SCALES = [
    (0, -41), (0, -44), (-22, -22), (-22, -23), (-10, -28), (-38, 0), (-19, -19), (-41, 0), (-38, -6), (20, -41),
    (30, -41), (17, 17), (0, 35), (35, 0),
]  # fmt: skip
CASES = {  # (channels, outputs, kernel, stride, groups) by algorithm
    "direct": [(16, 8, 3, 1, 1), (32, 32, 5, 2, 32), (64, 40, 1, 1, 1)],
    "direct:lanes": [(32, 32, 5, 2, 32)],
    "winograd:4x4": [(16, 32, 3, 1, 1), (1, 16, 3, 1, 1)],
    "winograd:2x2": [(16, 32, 3, 1, 1)], "winograd:2x2 at stride 2": [(16, 32, 3, 2, 1)],
    "winograd:4x4 at stride 2": [(16, 32, 3, 2, 1)], "winograd:rows": [(3, 32, 7, 2, 1)],
    "winograd:lines": [(16, 32, 5, 1, 1), (1, 16, 7, 1, 1), (8, 16, 9, 1, 1), (8, 16, (1, 3), 1, 1)],
    **{f"fft:{samples}": [(3, 5, 5, 1, 1)] for samples in (16, 24, 36, 64)},
    "fft:128": [(1, 2, 5, 1, 1)], "fft:256": [(1, 2, 5, 1, 1)],
    **{f"fft:pairs-{samples}": [(3, 2, 5, 1, 1)] for samples in (64, 128)},
    **{f"fft:pairs-{samples}": [(1, 1, 5, 1, 1)] for samples in (256, 512)},
    "fft:pairs-1024": [(2, 1, (1, 5), 1, 1)],
    "strassen:once": [(128, 256, 1, 1, 1)], "strassen:twice": [(128, 256, 1, 1, 1)],
}  # fmt: skip


def test_every_way_has_its_cases() -> None:
    assert set(CASES) == set(wishes())


def numbers(values: str, scales: tuple[int, int], shapes: list[tuple[int, ...]]) -> Iterator[Any]:
    """An input, a weight and, at the scale of either, two gradients of the output."""
    rng = np.random.default_rng(0)
    for number, shape in enumerate(shapes):
        array = rng.standard_normal(shape)
        if values == "one sign":
            array = np.abs(array)
        elif values == "constant":
            array = np.full(shape, 1.1 + 0.2 * number)
        yield (array * 10.0 ** scales[number % 2]).astype(np.float32)


def within(what: str, got: Any, expected: Any, bound: Any) -> None:
    fault = Comparison(what, got, expected, bound).fault()
    assert fault is None, fault


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
@pytest.mark.parametrize("algorithm", CASES)
@pytest.mark.parametrize("scales", SCALES, ids=str)
def test_bounds_at_every_scale(scales: tuple[int, int], algorithm: str) -> None:
    values = ("reals", "one sign", "constant")[(SCALES.index(scales) + len(algorithm)) % 3]
    for channels, outputs, kernel, stride, groups in CASES[algorithm]:
        sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        padding = (sides[0] // 2, sides[1] // 2)
        shapes = [(2, channels, 14, 13), (outputs, channels // groups, *sides)]
        shapes += [(2, outputs, 14 // stride, -(-13 // stride))] * 2
        x, w, dy, dz = numbers(values, scales, shapes)
        options: dict[str, Any] = {"stride": stride, "padding": padding, "groups": groups}
        expected = reference.conv2d(x, w, **options)
        got = fastconv.conv2d(x, w, **options, algorithm=algorithm)
        g = conv_geometry(x.shape, w.shape, stride, padding, 1, groups)
        assert np.isfinite(expected).all()
        within("forward", got, expected, limit(way(algorithm), Direction.FORWARD, g, expected, x, w))
        if (stride == 1 and kernel == 3) or algorithm.startswith("direct"):
            for gradient in (dy, dz):
                _gradients(algorithm, x, w, gradient, options, g)


def _gradients(algorithm: str, x: Any, w: Any, dy: Any, options: dict[str, Any], g: Geometry) -> None:
    theirs: Any = reference.conv2d_backward(dy, x, w, **options)
    ours: Any = fastconv.conv2d_backward(dy, x, w, **options, algorithm=algorithm)
    scales: Any = reference.abs_sum(reference.conv2d_backward, dy, x, w, **options)
    bounds = [
        limit(way(algorithm), Direction.INPUT_GRADIENT, g, theirs[0], dy, w),
        limit(way(algorithm), Direction.WEIGHT_GRADIENT, g, theirs[1], x, dy),
        direct_bound(theirs[2], scales[2], dy[:, 0].size),
    ]
    for what, y, y_ref, bound, scale in zip(GRADIENTS, ours, theirs, bounds, scales, strict=True):
        fits = scale < np.finfo(np.float32).max  # at the largest scales some gradients overflow
        within(what, y[fits], y_ref[fits], bound[fits])


@pytest.mark.parametrize("scales", [(0, -322), (-162, -160), (-100, -215), (-300, -10)], ids=str)
def test_the_bound_of_double_precision(scales: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    x, w = (rng.standard_normal(s) * 10.0**e for s, e in zip(((1, 20, 12, 12), (9, 20, 3, 3)), scales, strict=True))
    expected, scale = reference.conv2d(x, w), reference.abs_sum(reference.conv2d, x, w)
    within("forward", fastconv.conv2d(x, w), expected, direct_bound(expected, scale, 180))


def test_a_product_that_is_flushed_to_zero_is_noticed() -> None:
    """Small as the bound's term of gradual underflow is."""
    x, w = np.ones((1, 4, 6, 6), np.float32), np.full((2, 4, 3, 3), 1e-41, np.float32)
    expected, scale = reference.conv2d(x, w), reference.abs_sum(reference.conv2d, x, w)
    flushed = Comparison("flushed", np.zeros_like(expected), expected, direct_bound(expected, scale, 36))
    assert flushed.fault() and flushed.worst() > 1000


def test_averages_near_the_smallest_numbers() -> None:
    rng = np.random.default_rng(2)
    for dtype, smallest in (("float32", 1e-45), ("float64", 5e-324)):
        for window in (3, 20):
            x = (rng.integers(1, 50, (1, 3, 40, 40)) * np.dtype(dtype).type(smallest)).astype(dtype)
            expected = reference.avg_pool2d(x, window, 1)
            scale = reference.abs_sum(reference.avg_pool2d, x, window, 1)
            got = fastconv.avg_pool2d(x, window, 1)
            within("mean", got, expected, direct_bound(expected, scale, window**2 + 1))
