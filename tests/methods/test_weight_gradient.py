"""Weight gradients of arrays that are read as they lie, and of such that are packed: the same bits."""

from math import ceil, prod
from typing import Any

import numpy as np
import pytest

from fastconv import grad, reference
from fastconv._core.geometry import conv_geometry
from fastconv._core.methods.weight_gradient import PART_PIXELS, TASKS, blocking
from fastconv._core.problem import Direction, Use, problem
from fastconv._core.types import Types

CASES: list[tuple[int, int, tuple[int, int], tuple[int, int], dict[str, Any]]] = [
    # channels, outputs, size, kernel, options
    (48, 32, (20, 21), (1, 1), {}),
    (80, 80, (9, 9), (1, 1), {}),
    (64, 2, (16, 30), (1, 1), {}),  # outputs that fill no vector
    (33, 16, (17, 12), (1, 1), {"stride": 2}),
    (1, 64, (19, 23), (5, 5), {"padding": 2}),  # taps that share a register tile
    (2, 16, (12, 13), (3, 2), {"padding": 1, "stride": 2, "dilation": 2}),
    (1, 80, (3, 301), (1, 130), {"padding": (0, 65), "stride": (1, 4)}),  # that meet padding by and by, blocks of them
    (5, 16, (4, 9), (2, 23), {"padding": (1, 20)}),  # more of them than columns
    (20, 16, (14, 9), (2, 2), {"padding": 1}),
    (32, 64, (8, 8), (1, 1), {"groups": 2}),
    (40, 3, (11, 13), (3, 5), {"padding": ((1, 0), (3, 7)), "dilation": (2, 1)}),  # in each other's place
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_bits_do_not_depend_on_where_terms_lie(case: Any, dtype: str) -> None:
    channels, outputs, size, kernel, options = case
    rng = np.random.default_rng(channels)
    x = rng.standard_normal((3, channels, *size)).astype(dtype)
    shape = (outputs, channels // options.get("groups", 1), *kernel)
    dy = rng.standard_normal(reference.conv2d(x, np.zeros(shape, dtype), **options).shape).astype(dtype)
    options = {**options, "algorithm": "direct"}
    expected = grad.conv2d_weight(x, shape, dy, **options)
    np.testing.assert_allclose(
        expected, reference.conv2d_weight(x, shape, dy, **{**options, "algorithm": "auto"}), rtol=1e-3, atol=1e-4
    )
    x, dy = (np.ascontiguousarray(np.moveaxis(a, 1, -1)) for a in (x, dy))
    last = (*kernel, shape[1], outputs)
    apart = np.full((*x.shape[:3], 2 * x.shape[3]), np.nan, dtype)[..., : x.shape[3]]  # pixels that lie apart
    apart[:] = x
    for own, threads in ((x, 1), (x, 3), (apart, 2)):
        got = grad.conv2d_weight(own, last, dy, data_format="NHWC", num_threads=threads, **options)
        np.testing.assert_array_equal(np.moveaxis(got, (-1, -2), (0, 1)), expected)


@pytest.mark.parametrize("channels, outputs, size, kernel", [(16, 32, 28, 5), (24, 64, 14, 5), (240, 40, 28, 1)])
def test_a_small_image_is_shared_out(channels: int, outputs: int, size: int, kernel: int) -> None:
    """In parts that have pixels enough, cut by shape alone, whose whole numbers are exact."""
    float32, half = np.dtype(np.float32), kernel // 2
    shape, given = (outputs, channels, kernel, kernel), (1, channels, size, size)
    g = conv_geometry(given, shape, 1, half, 1, 1)
    problems = [
        problem(g, Direction.WEIGHT_GRADIENT, Types(float32, float32, float32), Use.ONCE, team) for team in (1, 2, 8)
    ]
    (cut,) = set(map(blocking, problems))
    across = (channels / cut.channels, outputs / (cut.panels * problems[0].machine.width))
    blocks = prod(map(ceil, (*across, kernel / cut.taps[1], kernel / cut.taps[2])))
    assert blocks * cut.parts >= min(TASKS[0] // 2, blocks * size * size // PART_PIXELS)
    assert cut.tile[1] * cut.tile[2] >= PART_PIXELS
    rng = np.random.default_rng(size)
    x, dy = (rng.integers(-4, 5, (1, n, size, size)).astype(np.float32) for n in (channels, outputs))
    expected = reference.conv2d_weight(x, shape, dy, padding=half)
    for threads in (1, 2, 3):
        got = grad.conv2d_weight(x, shape, dy, padding=half, num_threads=threads, algorithm="direct")
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("outputs", [256, 80, 40])
@pytest.mark.parametrize("batch, size, kernel, groups", [(1, 7, 1, 1), (3, 7, 1, 2), (2, 3, 7, 1), (1, 3, (1, 7), 1)])
def test_sums_that_are_made_where_they_will_lie(outputs: int, batch: int, size: int, kernel: Any, groups: int) -> None:
    """Channels-last gradients in one part, of taps that meet padding alone, too, over what lay there before."""
    taps = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding, rng = tuple(k // 2 for k in taps), np.random.default_rng(outputs)
    shape = (outputs * groups, 96, *taps)
    x, dy = (rng.integers(-4, 5, (batch, n * groups, size, size)).astype(np.float32) for n in (96, outputs))
    expected = reference.conv2d_weight(x, shape, dy, padding=padding, groups=groups)
    x, dy = (np.ascontiguousarray(np.moveaxis(a, 1, -1)) for a in (x, dy))
    wide = np.full((*taps, 96, 2 * outputs * groups), np.nan, np.float32)
    for out in (wide[..., : outputs * groups].copy(), wide[..., : outputs * groups]):
        grad.conv2d_weight(x, out.shape, dy, padding=padding, groups=groups, data_format="NHWC", out=out)
        np.testing.assert_array_equal(np.moveaxis(out, (-1, -2), (0, 1)), expected)
    assert np.isnan(wide[..., outputs * groups :]).all()
