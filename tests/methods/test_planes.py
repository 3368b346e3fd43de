"""1x1 and depthwise convolutions of channels-first arrays, a lane a pixel: the bits of channels-last ones."""

from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import grad, reference

CASES = [
    # channels, outputs, groups, images, size
    (16, 96, 1, 1, (30, 31)),
    (7, 5, 1, 3, (4, 4)),
    (40, 130, 1, 2, (7, 7)),
    (300, 70, 1, 1, (13, 10)),  # several blocks of the reduction
    (24, 36, 4, 2, (9, 9)),
    (33, 64, 1, 2, (50,)),
    (12, 20, 1, 1, (3, 5, 7)),
    (12, 70, 1, 2, (13, 5)),  # too many lanes would be idle
    (20, 20, 1, 1, (8, 8)),
]


def _arrays(case: Any, dtype: str) -> tuple[Any, Any, Any]:
    channels, outputs, groups, images, size = case
    rng = np.random.default_rng(channels)
    x = rng.standard_normal((images, channels, *size)).astype(dtype)
    weight = rng.standard_normal((outputs, channels // groups, *(1,) * len(size))).astype(dtype)
    return x, weight, rng.standard_normal(outputs).astype(dtype)


def _last(array: Any) -> Any:
    return np.ascontiguousarray(np.moveaxis(array, 1, -1))


@pytest.mark.parametrize("activation", [None, "relu", "relu6", "silu"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_both_layouts_have_the_same_bits(case: Any, dtype: str, activation: str | None) -> None:
    x, weight, bias = _arrays(case, dtype)
    axes = x.ndim - 2
    options: dict[str, Any] = {"groups": case[2], "activation": activation, "algorithm": "direct"}
    last = {1: "NWC", 2: "NHWC", 3: "NDHWC"}[axes]
    make, call = getattr(fastconv, f"plan_conv{axes}d"), getattr(fastconv, f"conv{axes}d")
    for shift in (bias, None):
        plan = make(x.shape, weight, shift, **options)
        held = make(_last(x).shape, np.moveaxis(weight, (0, 1), (-1, -2)), shift, data_format=last, **options)
        expected = np.moveaxis(held.run(_last(x)), -1, 1)
        np.testing.assert_array_equal(plan.run(x), expected)
        np.testing.assert_array_equal(call(x, weight, shift, **options), expected)
        wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), np.nan, x.dtype)  # pixels that lie apart
        wide[..., ::2] = x
        np.testing.assert_array_equal(call(wide[..., ::2], weight, shift, **options), expected)
        for threads in (1, 3):
            np.testing.assert_array_equal(call(x, weight, shift, num_threads=threads, **options), expected)


@pytest.mark.parametrize("case", CASES)
def test_whole_numbers_are_exact(case: Any) -> None:
    x, weight, bias = (np.round(4 * array) for array in _arrays(case, "float32"))
    axes = x.ndim - 2
    got = getattr(fastconv, f"conv{axes}d")(x, weight, bias, groups=case[2])
    np.testing.assert_array_equal(got, getattr(reference, f"conv{axes}d")(x, weight, bias, groups=case[2]))
    dx = getattr(grad, f"conv{axes}d_input")(x.shape, weight, got, groups=case[2])
    np.testing.assert_array_equal(
        dx, getattr(reference, f"conv{axes}d_input")(x.shape, weight, got, groups=case[2])
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite(value: float) -> None:
    x, weight, bias = _arrays(CASES[2], "float32")
    x[1, 3, 2, 2] = weight[5, 7, 0, 0] = value
    np.testing.assert_allclose(
        fastconv.conv2d(x, weight, bias), reference.conv2d(x, weight, bias), rtol=1e-5, atol=1e-5
    )


def test_the_only_tap_that_meets_the_image() -> None:
    """Of a dilated kernel: the weights are read from its middle."""
    x, weight, bias = (np.round(4 * array) for array in _arrays(CASES[2], "float32"))
    kernel = np.arange(weight.size * 9).reshape(*weight.shape[:2], 3, 3).astype(np.float32) % 7
    options: dict[str, Any] = {"padding": 9, "dilation": 9}
    expected = reference.conv2d(x, kernel, bias, **options)
    np.testing.assert_array_equal(fastconv.conv2d(x, kernel, bias, **options), expected)
    plan = fastconv.plan_conv2d(x.shape, kernel, bias, **options)
    np.testing.assert_array_equal(plan.run(x), expected)


def test_it_is_told_and_a_cap_is_kept() -> None:
    x, weight, bias = _arrays(CASES[3], "float32")
    plan = fastconv.plan_conv2d(x.shape, weight, bias, algorithm="direct")
    assert "a lane a pixel" in str(plan.explain())
    capped = fastconv.plan_conv2d(x.shape, weight, bias, algorithm="direct", max_workspace=20_000)
    assert "a lane a pixel" not in str(capped.explain()) and capped.explain().workspace_bytes <= 20_000
    np.testing.assert_array_equal(capped.run(x), plan.run(x))


DEPTHWISE = [
    # channels, size, kernel, padding, dilation
    (37, (20, 33), (3, 3), (1, 1), 1),
    (5, (60, 70), (7, 7), (3, 3), 1),  # several bands
    (70, (9, 40), (5, 3), (0, 2), 2),
    (64, (7, 7), (5, 5), (2, 2), 1),
    (3, (16, 5), (2, 4), (0, 0), 1),  # more border than outputs
    (17, (14, 14), (3, 3), (3, 3), 3),
    (9, (1, 80), (1, 9), (0, 4), 1),
    (37, (21, 33), (3, 3), (1, 1), 1, 2),
    (6, (90, 64), (5, 5), (2, 2), 1, 2),  # several bands
    (20, (16, 15), (3, 2), (0, 1), 1, (1, 2)),
    (20, (14, 37), (5, 3), (2, 2), 2, (2, 1)),
    (33, (40, 90), (5, 5), (0, 2), 1),
    # kernels that read planes as they lie: fewer rows than a tile, fewer columns than a vector
    (21, (3, 60), (3, 3), (1, 1), 1),
    (18, (30, 14), (7, 7), (3, 3), 1),
    (19, (28, 29), (5, 5), (4, 4), 1),
    (16, (9, 47), (3, 3), (1, 0), 1, 2),
    (23, (31, 18), (5, 5), (2, 2), 1, 2),
    (33, (33, 33), (3, 3), (12, 12), 12),  # dilated ones, which read them as they lie, too
    (18, (3, 41), (3, 3), (2, 2), 2),
    (17, (30, 20), (5, 5), (6, 4), 3),
    (19, (18, 18), (3, 3), (18, 18), 18),  # taps that meet no input
    # rows so short that vectors of channels are transposed
    (37, (7, 7), (3, 3), (1, 1), 1),
    (50, (14, 14), (5, 5), (2, 2), 1, 2),
    (96, (60, 4), (3, 3), (1, 1), 1),  # several bands
    (33, (7, 6), (7, 7), (3, 3), 1),
    (40, (8, 8), (3, 3), (2, 2), 2),
]


@pytest.mark.parametrize("activation", [None, "relu", "relu6", "silu"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", DEPTHWISE)
def test_depthwise_has_the_bits_of_channels_last(case: Any, dtype: str, activation: str | None) -> None:
    channels, size, kernel, padding, dilation, *more = case
    rng = np.random.default_rng(channels)
    x = rng.standard_normal((2, channels, *size)).astype(dtype)
    weight = rng.standard_normal((channels, 1, *kernel)).astype(dtype)
    options: dict[str, Any] = {
        "groups": channels, "padding": padding, "dilation": dilation, "stride": more[0] if more else 1,
        "activation": activation,
    }  # fmt: skip
    for bias in (None, rng.standard_normal(channels).astype(dtype)):
        plan = fastconv.plan_conv2d(x.shape, weight, bias, **options)
        if activation is None:
            source = plan.explain().source
            assert source.startswith("planes") or channels < 16 or size[0] * size[1] < 16
            expected = reference.conv2d(x.astype(np.float64), weight.astype(np.float64), bias, **options)
            np.testing.assert_allclose(plan.run(x), expected, rtol=1e-4, atol=1e-4)
        last = fastconv.plan_conv2d(
            _last(x).shape, np.moveaxis(weight, (0, 1), (-1, -2)), bias, data_format="NHWC", **options
        )  # fmt: skip
        np.testing.assert_array_equal(plan.run(x), np.moveaxis(last.run(_last(x)), -1, 1))
        for threads in (1, 3):
            np.testing.assert_array_equal(
                fastconv.conv2d(x, weight, bias, num_threads=threads, **options), plan.run(x)
            )


@pytest.mark.parametrize("case", [*DEPTHWISE[:4], *DEPTHWISE[7:10], *DEPTHWISE[12:]])
def test_depthwise_gradients_and_what_is_not_finite(case: Any) -> None:
    channels, size, kernel, padding, dilation, *more = case
    rng = np.random.default_rng(channels)
    x = rng.integers(-8, 9, (2, channels, *size)).astype(np.float32)
    weight = rng.integers(-8, 9, (channels, 1, *kernel)).astype(np.float32)
    options: dict[str, Any] = {
        "groups": channels, "padding": padding, "dilation": dilation, "stride": more[0] if more else 1
    }  # fmt: skip
    dy = reference.conv2d(x, weight, **options)
    np.testing.assert_array_equal(
        grad.conv2d_input(x.shape, weight, dy, **options), reference.conv2d_input(x.shape, weight, dy, **options)
    )
    for array, value in ((x, np.nan), (weight, np.inf), (weight, np.nan)):
        array[-1, 0, 0, 0] = value
        np.testing.assert_array_equal(fastconv.conv2d(x, weight, **options), reference.conv2d(x, weight, **options))


SEVERAL_TAPS = [
    # channels, outputs, groups, size, kernel, stride, padding, dilation
    (3, 32, 1, (40, 63), (3, 3), 2, 1, 1),
    (3, 70, 1, (32, 64), (4, 4), 4, 0, 1),  # all rows as one
    (1, 9, 1, (50, 33), (9, 9), 1, 4, 1),
    (6, 10, 2, (23, 81), (5, 3), (1, 3), (2, 0), 1),
    (8, 7, 1, (20, 18), (3, 3), 1, 2, 2),
    (2, 33, 1, (9, 200), (2, 7), (3, 6), (0, 3), 1),  # a stride of no kernel of its own
    (4, 24, 1, (120, 32), (3, 2), (2, 1), (1, 0), 1),
    (3, 16, 1, (64, 31), (4, 1), (2, 1), (1, 0), 1),  # all rows as one, between zeros
    (5, 40, 1, (33,), (3,), 1, 30, 1),  # more padding than rows
    (8, 130, 1, (17, 16), (6, 6), 1, (3, 3), (1, 2)),
]


@pytest.mark.parametrize("activation", [None, "relu", "relu6", "silu"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", SEVERAL_TAPS)
def test_several_taps_have_the_bits_of_channels_last(case: Any, dtype: str, activation: str | None) -> None:
    channels, outputs, groups, size, kernel, stride, padding, dilation = case
    axes, rng = len(size), np.random.default_rng(outputs)
    x = rng.standard_normal((2, channels, *size)).astype(dtype)
    weight = rng.standard_normal((outputs, channels // groups, *kernel)).astype(dtype)
    options: dict[str, Any] = {
        "groups": groups, "stride": stride, "padding": padding, "dilation": dilation, "activation": activation,
        "algorithm": "direct",
    }  # fmt: skip
    make = getattr(fastconv, f"plan_conv{axes}d")
    held = np.ascontiguousarray(np.moveaxis(weight, (0, 1), (-1, -2)))
    for bias in (None, rng.standard_normal(outputs).astype(dtype)):
        last = make(_last(x).shape, held, bias, data_format="NWC" if axes == 1 else "NHWC", **options)
        expected = np.moveaxis(last.run(_last(x)), -1, 1)
        for threads in (1, 3):
            plan = make(x.shape, weight, bias, num_threads=threads, **options)
            np.testing.assert_array_equal(plan.run(x), expected)
            np.testing.assert_array_equal(plan.run(x[1:]), expected[1:])
        wide = np.full((2, channels + 2, *size), np.nan, dtype)  # images farther apart
        wide[:, 1:-1] = x
        np.testing.assert_array_equal(plan.run(wide[:, 1:-1]), expected)


@pytest.mark.parametrize("case", SEVERAL_TAPS[:4])
def test_several_taps_are_exact_and_what_is_not_finite_stays_in_its_place(case: Any) -> None:
    channels, outputs, groups, size, kernel, stride, padding, dilation = case
    rng = np.random.default_rng(outputs)
    x = rng.integers(-8, 9, (2, channels, *size)).astype(np.float32)
    weight = rng.integers(-8, 9, (outputs, channels // groups, *kernel)).astype(np.float32)
    options: dict[str, Any] = {"groups": groups, "stride": stride, "padding": padding, "dilation": dilation}

    def check() -> None:
        plan = fastconv.plan_conv2d(x.shape, weight, algorithm="direct", **options)
        np.testing.assert_array_equal(plan.run(x), reference.conv2d(x, weight, **options))

    check()
    x[-1, 0, 5, 2], x[0, -1, -1, -1] = np.nan, np.inf
    check()
    weight[0, 0, 0, 0], weight[-1, -1, -1, -1] = np.inf, np.nan
    check()


def test_several_taps_are_told_and_a_cap_is_kept() -> None:
    x, weight = np.ones((1, 3, 64, 64), np.float32), np.ones((32, 3, 3, 3), np.float32)
    options: dict[str, Any] = {"stride": 2, "padding": 1, "algorithm": "direct"}
    plan = fastconv.plan_conv2d(x.shape, weight, **options)
    assert "a lane a pixel" in str(plan.explain())
    capped = fastconv.plan_conv2d(x.shape, weight, max_workspace=30_000, **options)
    assert "a lane a pixel" not in str(capped.explain()) and capped.explain().workspace_bytes <= 30_000
    np.testing.assert_array_equal(capped.run(x), plan.run(x))
