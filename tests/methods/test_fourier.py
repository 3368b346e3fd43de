"""Fourier transforms of pairs of tiles: what is their own. What every method keeps is in test_every_method."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastconv
from fastconv import reference
from fastconv._core.geometry import conv_geometry
from fastconv._core.problem import Direction
from fastconv.testing.comparisons import Comparison
from fastconv.testing.ways import limit, way

Array = np.ndarray[Any, Any]


def filled(values: str, shape: tuple[int, ...], seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    real = rng.standard_normal(shape)
    return {
        "random": real, "constant": np.full(shape, 1.1), "one sign": np.abs(real),
        "alternating": np.where(np.indices(shape).sum(0) % 2, 1.0, -1.1),
        "badly scaled": np.exp(3 * real) * rng.choice([-1, 1], shape),
        "one pixel": np.where(np.arange(real.size).reshape(shape) == real.size // 2, 3.3, 0),
    }[values]  # fmt: skip


def direct(x: Array, w: Array, padding: int) -> Array:
    """In double precision."""
    return fastconv.conv2d(x.astype(np.float64), w.astype(np.float64), padding=padding, algorithm="direct")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("values", ["random", "constant", "one sign", "alternating", "badly scaled", "one pixel"])
def test_errors_are_those_of_direct_sums(values: str, dtype: str) -> None:
    """Half of the stated bound, and (n + 2) u S with n and S at their largest, from 100 taps on, as they are taken."""
    for samples, channels, side in ((64, 1, 10), (64, 3, 15), (128, 1, 31), (256, 1, 51)):
        shape = (1, channels, side + 9, side + samples // 2)
        x = filled(values, shape).astype(dtype)
        for others in (values, "random"):
            w = filled(others, (2, channels, side, side), 1).astype(dtype)
            wish = f"fft:pairs-{samples}"
            got = fastconv.plan_conv2d(x.shape, w, padding=side // 2, algorithm=wish).run(x)
            wide = direct(x, w, side // 2)
            expected = wide.astype(dtype)
            g = conv_geometry(x.shape, w.shape, 1, side // 2, 1, 1)
            bound = 0.5 * limit(way(wish), Direction.FORWARD, g, expected, x, w)
            fault = Comparison(wish, got, expected, bound).fault()
            assert fault is None, fault
            largest = direct(np.abs(x), np.abs(w), side // 2).max()
            n, unit = channels * side**2, np.finfo(dtype).eps / 2
            most = (n + 2) * unit * largest
            assert np.abs(got - wide).max() <= (2 * most if dtype == "float64" else most)  # of both sums


def test_whole_numbers_come_out_exactly() -> None:
    rng = np.random.default_rng(0)
    for most, weight in ((9, 3), (255, 1), (4000, 40)):  # the last computed directly
        x = rng.integers(-most, most + 1, (1, 2, 70, 150)).astype(np.float32)
        w = rng.integers(-weight, weight + 1, (2, 1, 11, 13)).astype(np.float32)
        w[:, :, 5:] *= most < 4000  # few enough that sums have whole numbers
        bias = np.array([0.25, -3.0], np.float32)
        exact = reference.conv2d(x.astype(np.float64), w.astype(np.float64), bias.astype(np.float64), groups=2)
        assert np.abs(exact).max() < 2**22
        for algorithm in ("auto", "fft:pairs-64"):
            assert_array_equal(fastconv.conv2d(x, w, bias, groups=2, algorithm=algorithm), exact)
        x[0, 1, 3, 100] = 0.5  # no whole number
        got = fastconv.conv2d(x, w, bias, groups=2, algorithm="fft:pairs-64")
        exact = reference.conv2d(x.astype(np.float64), w.astype(np.float64), bias.astype(np.float64), groups=2)
        np.testing.assert_allclose(got, exact, atol=1e-4 * np.abs(exact).max())


def test_special_values_reach_their_windows_alone() -> None:
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((2, 2, 90, 110)), rng.standard_normal((2, 1, 13, 11))
    x[0, 0, 40, 30], x[1, 1, 3, 3], x[1, 1, 3, 109] = np.nan, np.inf, -np.inf
    for dtype in ("float32", "float64"):
        a, b = x.astype(dtype), w.astype(dtype)
        options: dict[str, Any] = {"padding": (6, 5), "groups": 2}
        got = fastconv.conv2d(a, b, algorithm="fft:pairs-64", **options)
        expected = fastconv.conv2d(a, b, algorithm="direct", **options)
        assert_array_equal(np.isnan(got), np.isnan(expected))
        assert_array_equal(np.isposinf(got), np.isposinf(expected))
        finite = np.isfinite(expected)
        np.testing.assert_allclose(got[finite], expected[finite], atol=1e-4)
        b[0, 0, 0, 0] = np.inf
        assert_array_equal(
            fastconv.conv2d(a, b, algorithm="fft:pairs-64", **options),
            fastconv.conv2d(a, b, algorithm="direct", **options),
        )
    huge = np.full((1, 1, 40, 40), 2e38, np.float32)  # whose transform overflows
    kernel = np.zeros((1, 1, 11, 11), np.float32)
    kernel[0, 0, 5, 5] = 0.5
    assert (fastconv.conv2d(huge, kernel, algorithm="fft:pairs-64") == np.float32(1e38)).all()


def test_bits_do_not_depend_on_threads_layouts_or_how_rows_are_laid() -> None:
    rng = np.random.default_rng(2)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 2, 70, 200), (2, 2, 11, 12)))
    whole = fastconv.conv2d(x, w, algorithm="fft:pairs-64", num_threads=1)
    assert_array_equal(fastconv.conv2d(x, w, algorithm="fft:pairs-64", num_threads=3), whole)
    assert_array_equal(fastconv.conv2d(x[1:2], w, algorithm="fft:pairs-64"), whole[1:2])
    last = fastconv.conv2d(
        np.ascontiguousarray(x.transpose(0, 2, 3, 1)), np.ascontiguousarray(w.transpose(2, 3, 1, 0)),
        data_format="NHWC", algorithm="fft:pairs-64",
    )  # fmt: skip
    assert_array_equal(last.transpose(0, 3, 1, 2), whole)
    plan = fastconv.plan_conv2d(x.shape, w, algorithm="fft:pairs-64")
    assert_array_equal(plan.run(x), whole)
    assert_array_equal(pickle.loads(pickle.dumps(plan)).run(x), whole)
    # one line is cut into pieces, many lines are not
    lines, row = rng.standard_normal((1, 1, 40, 5000)).astype(np.float32), rng.standard_normal((1, 1, 1, 300))
    row = row.astype(np.float32)
    together = fastconv.conv2d(lines, row, algorithm="fft:pairs-512")
    apart = fastconv.conv2d(lines[:, :, 7:8], row, algorithm="fft:pairs-512")
    assert_array_equal(apart, together[:, :, 7:8])
    assert_array_equal(fastconv.conv1d(lines[:, :, 7], row[:, :, 0], algorithm="fft:pairs-512"), apart[:, :, 0])


def test_it_is_chosen_by_itself_for_large_kernels_of_few_channels() -> None:
    for shape, kernel, options in (
        ((1, 1, 2000, 2000), (1, 1, 15, 15), {}), ((1, 1, 2000, 2000), (1, 1, 101, 101), {"padding": 50}),
        ((1, 3, 500, 500), (3, 1, 31, 31), {"groups": 3}), ((4, 1, 30000), (1, 1, 500), {}),
    ):  # fmt: skip
        axes = len(shape) - 2
        for dtype in ("float32", "float64"):
            told = getattr(fastconv, f"explain_conv{axes}d")(shape, kernel, dtype=dtype, **options)
            assert told.algorithm == "fft" and "taps of few channels" in told.reason
            assert told.workspace_bytes <= 32 << 20
    for shape, kernel, options in (
        ((1, 1, 2000, 2000), (1, 1, 5, 5), {}), ((1, 64, 56, 56), (64, 64, 3, 3), {}),
        ((1, 1, 20, 20), (1, 1, 11, 11), {}), ((1, 1, 2000, 2000), (1, 1, 15, 15), {"stride": 2}),
    ):  # fmt: skip
        told = fastconv.explain_conv2d(shape, kernel, **options)
        assert told.algorithm != "fft"
        assert any("Fourier" in title for title, _ in told.refused)
    integers = fastconv.explain_conv2d((1, 1, 500, 500), (1, 1, 31, 31), dtype="int16")
    assert integers.algorithm == "direct"


def test_a_cap_on_the_workspace() -> None:
    rng = np.random.default_rng(3)
    x, w = (rng.standard_normal((1, 1, n, n)).astype(np.float32) for n in (400, 31))
    expected = fastconv.conv2d(x, w, algorithm="direct")
    for most in (1 << 16, 1 << 19, 1 << 22):
        plan = fastconv.plan_conv2d(x.shape, w, max_workspace=most)
        assert plan.workspace_bytes <= most
        np.testing.assert_allclose(plan.run(x), expected, atol=1e-3)
        np.testing.assert_allclose(fastconv.conv2d(x, w, max_workspace=most), expected, atol=1e-3)


def test_gradients_of_the_input() -> None:
    rng = np.random.default_rng(4)
    w, dy = rng.standard_normal((2, 1, 15, 13)), rng.standard_normal((2, 2, 60, 70))
    for options in ({"padding": 7, "groups": 1}, {"stride": 2, "padding": (3, 2)}):
        size = (2, 1, *((n - 1) * options.get("stride", 1) + k - 2 * p for n, k, p in zip(
            (60, 70), (15, 13), np.broadcast_to(options["padding"], 2).tolist(), strict=True
        )))  # fmt: skip
        got = fastconv.grad.conv2d_input(size, w, dy, algorithm="fft", **options)
        expected = fastconv.grad.conv2d_input(size, w, dy, algorithm="direct", **options)
        np.testing.assert_allclose(got, expected, atol=1e-11)
