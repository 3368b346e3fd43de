"""Input gradients at a stride as products of all taps at once, laid over each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastconv import grad, reference
from fastconv._core.geometry import conv_geometry
from fastconv._core.methods import direct_scattered
from fastconv._core.methods.direct import DirectProgram
from fastconv._core.methods.direct_scattered import scattered
from fastconv._core.methods.method import Sums
from fastconv._core.problem import Direction, Use, lifted, problem
from fastconv._core.types import Types

CASES: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    # input, weight, options
    ((2, 1, 40), (256, 1, 16), {"stride": 8, "padding": 4}),
    ((1, 1, 403), (512, 1, 10), {"stride": 5}),  # pixels behind the last window
    ((1, 1, 37), (512, 1, 8), {"stride": (7,)}),
    ((3, 2, 97), (512, 2, 25), {"stride": 10, "padding": ((3, 9),)}),
    ((2, 1, 40, 41), (512, 1, 8, 7), {"stride": 4, "padding": 3}),
    ((1, 3, 30, 31), (600, 3, 4, 11), {"stride": (4, 5), "padding": 2}),
    ((1, 1, 5, 6, 40), (512, 1, 2, 2, 9), {"stride": (2, 2, 4)}),
    ((1, 1, 301), (64, 1, 150), {"stride": 4, "padding": 75}),  # more products than grad_output and the result
]


def problem_of(x: tuple[int, ...], w: tuple[int, ...], options: dict[str, Any], dtype: str = "float32") -> Any:
    own, usual = np.dtype(dtype), {"stride": 1, "padding": 0, "dilation": 1, "groups": 1} | options
    g = lifted(conv_geometry(x, w, *usual.values()))
    return problem(g, Direction.INPUT_GRADIENT, Types(own, own, own), Use.ONCE, 2)


def data(x: tuple[int, ...], w: tuple[int, ...], options: dict[str, Any]) -> tuple[Any, Any]:
    rng = np.random.default_rng(w[0])
    shape = conv_geometry(x, w, **({"stride": 1, "padding": 0, "dilation": 1, "groups": 1} | options)).output_size
    return rng.integers(-3, 4, (x[0], w[0], *shape)).astype(np.float32), rng.integers(-3, 4, w).astype(np.float32)


@pytest.mark.parametrize("x, w, options", CASES)
def test_whole_numbers_are_exact(x: tuple[int, ...], w: tuple[int, ...], options: dict[str, Any]) -> None:
    assert scattered(problem_of(x, w, options)) is not None
    axes = len(x) - 2
    dy, weight = data(x, w, options)
    name = f"conv{axes}d_input"
    expected = getattr(reference, name)(x, weight.astype(float), dy.astype(float), **options)
    function = getattr(grad, name)
    np.testing.assert_array_equal(function(x, weight, dy, **options), expected)
    last, taps = (np.moveaxis(a, *ends).copy() for a, ends in ((dy, (1, -1)), (weight, ((0, 1), (-1, -2)))))
    got = function(
        (x[0], *x[2:], x[1]), taps, last, data_format=("NWC", "NHWC", "NDHWC")[axes - 1], num_threads=3, **options
    )
    np.testing.assert_array_equal(np.moveaxis(got, -1, 1), expected)


def test_bits_depend_on_neither_batch_nor_threads_nor_place() -> None:
    x, w, options = (5, 1, 8000), (256, 1, 16), {"stride": 8, "padding": 4}
    rng = np.random.default_rng(0)
    dy, weight = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 256, 1000), w))
    whole = grad.conv1d_input(x, weight, dy, num_threads=2, **options)
    for n in range(5):
        np.testing.assert_array_equal(
            grad.conv1d_input((1, *x[1:]), weight, dy[n : n + 1], num_threads=1, **options)[0], whole[n]
        )
    part = grad.conv1d_input((1, 1, 808), weight, dy[:1, :, 100:201], **options)  # of windows 100 .. 200
    np.testing.assert_array_equal(part[0, :, 8:-8], whole[0, :, 808 : 808 + 792])


@pytest.mark.parametrize("x, w, options", CASES)
def test_bits_do_not_depend_on_how_many_products_fit(
    x: tuple[int, ...], w: tuple[int, ...], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    dy, weight = (np.sqrt(np.abs(a) + 1) for a in data(x, w, options))
    results = []
    for most in (direct_scattered.MOST_BYTES, 1 << 14, 1):
        monkeypatch.setattr(direct_scattered, "MOST_BYTES", most)
        results.append(np.full(x, np.nan, np.float32))
        DirectProgram(Sums.of(p := problem_of(x, w, options)), p).run(
            dy, weight, None, None, None, results[-1], 0, False
        )
        np.testing.assert_array_equal(results[-1], results[0])


def test_nan_reaches_the_outputs_under_its_window_alone() -> None:
    x, w, options = (2, 1, 403), (512, 1, 10), {"stride": 5, "padding": 2}
    dy, weight = data(x, w, options)
    dy[1, 7, 3], dy[0, 9, 0] = np.nan, np.inf
    got = grad.conv1d_input(x, np.abs(weight) + 1, dy, **options)
    bad = ~np.isfinite(got[:, 0])
    assert set(np.flatnonzero(bad[1])) == set(range(13, 23)) and set(np.flatnonzero(bad[0])) == set(range(8))


@pytest.mark.parametrize(
    "x, w, options",
    [
        ((1, 1, 400), (256, 1, 16), {}),  # at stride 1
        ((1, 1, 400), (8, 1, 16), {"stride": 8}),  # few channels
        ((1, 64, 40, 40), (64, 64, 3, 3), {"stride": 2}),  # that fill the vectors
        ((1, 1, 400), (256, 1, 16), {"stride": 8, "dilation": 2}),
        ((1, 1, 400), (256, 1, 8), {"stride": 8}),  # nothing is added
    ],
)
def test_where_it_is_not_for(x: tuple[int, ...], w: tuple[int, ...], options: dict[str, Any]) -> None:
    assert scattered(problem_of(x, w, options)) is None
