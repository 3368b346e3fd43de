"""Input gradients and transposed convolutions of few channels: all phases of the stride in one panel."""

from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import _native, grad, layers, reference
from fastconv._core.geometry import conv_geometry
from fastconv._core.methods.direct import DirectProgram
from fastconv._core.plan import plan_for
from fastconv._core.problem import Direction
from fastconv._core.types import Types

CASES = [
    # channels, outputs, input size, kernel, stride, padding, dilation
    (3, 20, (23, 30), (7, 7), (2, 2), (3, 3), (1, 1)),
    (1, 9, (17, 16), (5, 4), (2, 2), (2, 1), (1, 1)),
    (3, 5, (12, 13), (4, 4), (2, 2), (1, 1), (1, 1)),
    (2, 16, (20, 9), (3, 7), (1, 2), (1, 2), (1, 1)),
    (1, 8, (25, 25), (9, 9), (3, 3), (4, 4), (1, 1)),
    (1, 3, (21, 40), (7, 5), (2, 2), (3, 2), (3, 1)),
]


def _arrays(case: Any, dtype: str, images: int = 3) -> tuple[Any, Any, dict[str, Any]]:
    channels, outputs, size, kernel, stride, padding, dilation = case
    rng = np.random.default_rng(channels * 100 + outputs)
    shape = [
        (size[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(2)
    ]
    grad_output = rng.integers(-8, 9, (images, outputs, *shape)).astype(dtype)
    weight = rng.integers(-8, 9, (outputs, channels, *kernel)).astype(dtype)
    return grad_output, weight, {"stride": stride, "padding": padding, "dilation": dilation}


def _both(case: Any, grad_output: Any, weight: Any, options: dict[str, Any], **more: Any) -> tuple[Any, Any]:
    channels, _, size = case[:3]
    shape = (len(grad_output), channels, *size)
    return (
        grad.conv2d_input(shape, weight, grad_output, **options, **more),
        reference.conv2d_input(shape, weight, grad_output, **options),
    )


@pytest.mark.parametrize("case", CASES)
def test_these_cases_do_merge(case: Any) -> None:
    channels, outputs, size, kernel, stride, padding, dilation = case
    lanes, vectors = _native.tile_shape(0)[1:3]
    g = conv_geometry((1, channels, *size), (outputs, channels, *kernel), stride, padding, dilation, 1)
    float32 = np.dtype("float32")
    program = plan_for(g, Direction.INPUT_GRADIENT, Types(float32, float32, float32), 1).program
    assert isinstance(program, DirectProgram)
    if len(program.sums.passes) * channels <= lanes * vectors and lanes >= 16:
        assert program.merged is not None
        assert all(n % of == 0 for n, of in zip(program.merged.ones[0].merge, (1, *stride), strict=True))


@pytest.mark.parametrize("outputs", [1, 3])
def test_more_phases_than_a_panel_takes_are_groups(outputs: int) -> None:
    """As of an inverse short-time Fourier transform; the last pixels are not those of all phases."""
    rng = np.random.default_rng(outputs)
    x, w = rng.integers(-8, 9, (2, 5, 9)).astype("float32"), rng.integers(-8, 9, (5, outputs, 200)).astype("float32")
    bias, more = rng.integers(-8, 9, outputs).astype("float32"), {"stride": 96, "padding": 7, "output_padding": 3}
    plan = fastconv.plan_conv_transpose1d(x.shape, w, bias, algorithm="direct", **more)
    merged = plan._program.merged  # type: ignore[attr-defined]
    assert _native.tile_shape(0)[1] < 16 or len(merged.ones) == 96 // (48 if outputs == 1 else 16)
    for value in (1, np.inf):
        x[1, 2, 4] = value
        expected = reference.conv_transpose1d(x, w, bias, **more)
        np.testing.assert_array_equal(plan.run(x), expected)
        np.testing.assert_array_equal(fastconv.conv_transpose1d(x, w, bias, algorithm="direct", **more), expected)
        last, held = x.transpose(0, 2, 1).copy(), w.transpose(2, 1, 0).copy()
        got = fastconv.conv_transpose1d(last, held, bias, data_format="NWC", algorithm="direct", **more)
        np.testing.assert_array_equal(got.transpose(0, 2, 1), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize("case", CASES)
def test_merged_phases_equal_the_reference(case: Any, dtype: str) -> None:
    grad_output, weight, options = _arrays(case, dtype)
    got, expected = _both(case, grad_output, weight, options)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("case", CASES)
def test_what_is_not_finite_stays_in_its_phases(case: Any, value: float) -> None:
    grad_output, weight, options = _arrays(case, "float32")
    rng = np.random.default_rng(5)
    for where in ("grad_output", "weight"):
        g, w = grad_output.copy(), weight.copy()
        array = g[1] if where == "grad_output" else w
        for _ in range(3):
            array[tuple(rng.integers(0, n) for n in array.shape)] = value
        got, expected = _both(case, g, w, options)
        np.testing.assert_array_equal(got, expected, err_msg=where)
        alone, _ = _both(case, g[:1], w, options)
        np.testing.assert_array_equal(got[:1], alone)


def test_transposed_convolution_with_bias_and_activation() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, (2, 32, 9, 11)).astype(np.float32)
    weight = rng.integers(-4, 5, (32, 3, 4, 4)).astype(np.float32)
    bias = rng.integers(-9, 9, 3).astype(np.float32)
    for output_padding in (0, 1):
        options: dict[str, Any] = {"stride": 2, "padding": 1, "output_padding": output_padding}
        got = fastconv.conv_transpose2d(x, weight, bias, **options)
        np.testing.assert_array_equal(got, reference.conv_transpose2d(x, weight, bias, **options))
        last = fastconv.conv_transpose2d(
            np.ascontiguousarray(x.transpose(0, 2, 3, 1)), weight.transpose(2, 3, 1, 0), bias, data_format="NHWC",
            **options,
        )  # fmt: skip
        np.testing.assert_array_equal(last.transpose(0, 3, 1, 2), got)


def test_bits_of_one_image_and_of_threads() -> None:
    grad_output, weight, options = _arrays(CASES[0], "float32", 5)
    grad_output = (grad_output * np.float32(0.37)).astype(np.float32)
    whole, _ = _both(CASES[0], grad_output, weight, options)
    for threads in (1, 2, 7):
        again, _ = _both(CASES[0], grad_output, weight, options, num_threads=threads)
        np.testing.assert_array_equal(again, whole)
    for n in range(5):
        np.testing.assert_array_equal(_both(CASES[0], grad_output[n : n + 1], weight, options)[0], whole[n : n + 1])


FEW = [
    # channels, outputs, input size, kernel, stride, padding, dilation
    (20, 3, (23, 30), (7, 7), (1, 1), (3, 3), (1, 1)),
    (9, 1, (17, 16), (5, 4), (1, 1), (2, 1), (1, 1)),
    (64, 3, (11, 13), (9, 9), (1, 1), (4, 4), (1, 1)),  # long sums
    (5, 2, (12, 13), (4, 4), (2, 2), (1, 1), (1, 1)),
    (6, 1, (21, 40), (7, 5), (1, 1), (3, 4), (1, 2)),
    (1, 1, (2, 3), (3, 3), (1, 1), (1, 1), (1, 1)),  # fewer outputs than neighbours
    (30, 1, (1, 50), (1, 7), (1, 1), (0, 3), (1, 1)),
]


def _few(case: Any, dtype: str, images: int = 2) -> tuple[Any, Any, Any, dict[str, Any]]:
    channels, outputs, size, kernel, stride, padding, dilation = case
    rng = np.random.default_rng(channels * 100 + outputs)
    x = rng.integers(-8, 9, (images, channels, *size)).astype(dtype)
    weight = rng.integers(-8, 9, (outputs, channels, *kernel)).astype(dtype)
    bias = rng.integers(-9, 9, outputs).astype(dtype)
    return x, weight, bias, {"stride": stride, "padding": padding, "dilation": dilation}


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", FEW)
def test_neighbours_of_few_outputs_in_plans(case: Any, dtype: str, layout: str) -> None:
    """Exact on whole numbers; beside what is not finite, too, in inputs and weights."""
    x, weight, bias, options = _few(case, dtype)
    last = layout == "NHWC"
    for value in (None, np.nan, np.inf):
        for where in ("input", "weight"):
            a, w = x.copy(), weight.copy()
            if value is not None:
                array = a[1] if where == "input" else w
                array[tuple(n // 2 for n in array.shape)] = value
            expected = np.maximum(reference.conv2d(a, w, bias, **options), 0)
            given, held = (a.transpose(0, 2, 3, 1), w.transpose(2, 3, 1, 0)) if last else (a, w)
            plan = fastconv.plan_conv2d(
                given.shape, held, bias, data_format=layout, activation="relu", algorithm="direct", **options
            )  # fmt: skip
            got = plan.run(given)
            np.testing.assert_array_equal(got.transpose(0, 3, 1, 2) if last else got, expected)
            for n in range(len(a)):
                np.testing.assert_array_equal(plan.run(given[n : n + 1]), got[n : n + 1])


def test_plans_of_few_outputs_merge_or_have_a_lane_a_pixel() -> None:
    """But for a long sum, whose blocks would end elsewhere."""
    for case in FEW:
        x, weight, bias, options = _few(case, "float32")
        plan = fastconv.plan_conv2d(x.shape, weight, bias, algorithm="direct", **options)
        program: Any = plan._program
        busy = program.merged is not None or program.few_taps
        assert busy == (weight[0].size < 4096) or _native.tile_shape(0)[1] < 16


def test_sums_stay_short_whose_neighbours_reach_far() -> None:
    """As many terms as a kernel has, however many zeros lie between."""
    x, weight, bias, options = _few((64, 3, (11, 13), (7, 7), (1, 1), (3, 3), (1, 1)), "float32")
    x = (x * np.float32(0.37)).astype(np.float32)
    plan = fastconv.plan_conv2d(x.shape, weight, bias, algorithm="direct", **options)
    part = x[:, :, :8]  # rows that none of the others meets
    own = fastconv.conv2d(part, weight, bias, algorithm="direct", **options)
    np.testing.assert_array_equal(own[:, :, :4], plan.run(x)[:, :, :4])


def test_a_residual_is_added_to_outputs_that_merge() -> None:
    x, weight, bias, options = _few(FEW[0], "float32")
    residual = np.arange(2 * 3 * 23 * 30, dtype=np.float32).reshape(2, 3, 23, 30)
    plan = fastconv.plan_conv2d(x.shape, weight, bias, algorithm="direct", **options)
    for value in (1, np.nan):
        x[1, 0, 11, 12] = value
        expected = reference.conv2d(x, weight, bias, **options) + residual
        for add in (residual, np.ascontiguousarray(residual.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)):
            np.testing.assert_array_equal(plan.run(x, residual=add), expected)


def test_a_recorded_net_keeps_what_is_not_finite_in_its_windows() -> None:
    net = fastconv.Sequential([
        layers.Conv2D(16, 3, padding="same", activation="relu", input_shape=(20, 20, 4)),
        layers.Conv2D(2, 5, strides=2, padding="same"),
    ], seed=0)  # fmt: skip
    x = np.random.default_rng(0).standard_normal((1, 20, 20, 4), np.float32)
    plan = net.compile_inference(x.shape)
    for _ in range(4):  # the third and all later ones are replayed
        plan.run(x)
    x[0, 10, 10, 0] = np.inf
    np.testing.assert_array_equal(np.isnan(plan.run(x)), np.isnan(net.forward(x)))


@pytest.mark.parametrize("data_format", ["NHWC", "NCHW"])
@pytest.mark.parametrize("size, kernel, stride", [(60, 1, 2), (40, (1, 2), 3), (30, (3, 1), 4)])
def test_outputs_that_no_tap_reaches(size: int, kernel: Any, stride: int, data_format: str) -> None:
    """So many that threads share them out, and few, with a bias and without."""
    rng = np.random.default_rng(size)
    taps = (kernel, kernel) if isinstance(kernel, int) else kernel
    for channels in (2, 48):
        x = rng.integers(-3, 4, (2, 5, size, size)).astype(np.float32)
        weight = rng.integers(-3, 4, (5, channels, *taps)).astype(np.float32)
        for bias in (None, np.arange(channels, dtype=np.float32)):
            expected = reference.conv_transpose2d(x, weight, bias, stride=stride)
            own = [x, weight]
            if data_format == "NHWC":
                own = [np.moveaxis(x, 1, -1), np.moveaxis(weight, (0, 1), (-1, -2))]
            got = fastconv.conv_transpose2d(*own, bias, stride=stride, data_format=data_format, num_threads=2)
            np.testing.assert_array_equal(got if data_format == "NCHW" else np.moveaxis(got, -1, 1), expected)
