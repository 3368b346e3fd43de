"""Depthwise convolution in place, of any kernel, stride and dilation, along one to three axes: strips and patches.

Small integers: every sum is exact, so that results equal the reference's."""

from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import reference

ACTIVATIONS = (None, "relu", "relu6", "leaky_relu")
NAMES = {1: "NWC", 2: "NHWC", 3: "NDHWC"}


def arrays(size: tuple[int, ...], kernel: tuple[int, ...], channels: int, seed: int, dtype: str = "float32") -> Any:
    rng = np.random.default_rng([seed, channels, *size, *kernel])
    x = rng.integers(-4, 5, (2, *size, channels)).astype(dtype)
    w = rng.integers(-4, 5, (*kernel, 1, channels)).astype(dtype)
    return x, w, rng.integers(-4, 5, channels).astype(dtype)


def agree(x: Any, w: Any, b: Any, options: dict[str, Any], seed: int) -> None:
    """Forward and the input gradient equal the reference's, whatever the threads."""
    axes = x.ndim - 2
    options = {**options, "groups": x.shape[-1], "data_format": NAMES[axes]}
    activation = ACTIVATIONS[seed % 4]
    expected = getattr(reference, f"conv{axes}d")(x, w, b, **options, activation=activation)
    dy = np.random.default_rng(seed).integers(-3, 4, expected.shape).astype(x.dtype)
    gradient = getattr(reference, f"conv{axes}d_backward")(dy, x, w, **options)[0]
    for threads in (1, 2, 5):
        got = getattr(fastconv, f"conv{axes}d")(x, w, b, **options, activation=activation, num_threads=threads)
        slope = 1e-6 if activation == "leaky_relu" else 0  # 0.01 is not exact
        what = f"{x.shape} {w.shape} {options} {activation} {threads}"
        np.testing.assert_allclose(got, expected, rtol=slope, atol=0, err_msg=what)
        got = getattr(fastconv.grad, f"conv{axes}d_input")(x.shape, w, dy, **options, num_threads=threads)
        np.testing.assert_array_equal(got, gradient, err_msg=f"gradient {x.shape} {w.shape} {options} {threads}")


@pytest.mark.parametrize("kernel", [1, 2, 4, 6, 7, 8, 9, 13, 16, 17, 21, 31])
def test_every_width_of_kernels(kernel):
    """Rows of every number of outputs, most of them shorter than the kernel, in a plane and along a single axis."""
    for width in (*range(1, 20), 33):
        for channels in (16, 37) if width % 2 else (64, 17):
            x, w, b = arrays((3, width), (3, kernel), channels, width)
            agree(x, w, b, {"padding": ((1, 1), (kernel // 2, kernel - 1 - kernel // 2))}, width)
    for size in (5, 14):
        agree(*arrays((size, size), (kernel, kernel), 40, size), {"padding": "same"}, size)
    agree(*arrays((300,), (kernel,), 33, 1), {"padding": kernel // 2}, 1)


@pytest.mark.parametrize("dilation", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_strides_and_dilations(stride, dilation):
    for kernel in ((3, 3), (5, 5), (7, 4), (1, 6), (9, 1)):
        reach = tuple((k - 1) * dilation + 1 for k in kernel)
        for size in ((7, 7), (13, 33), (24, 41)):
            for channels in (16, 35, 64):
                options = {"stride": stride, "dilation": dilation, "padding": tuple(r // 2 for r in reach)}
                agree(*arrays(size, kernel, channels, stride), options, channels + size[0])
    agree(*arrays((20, 21), (3, 2), 24, 1), {"stride": (1, stride), "dilation": (dilation, 1), "padding": (9, 2)}, 2)


def test_volumes():
    rng = np.random.default_rng(2)
    for seed in range(90):
        size = tuple(int(n) for n in rng.integers(1, 11, 3))
        kernel = tuple(int(n) for n in rng.integers(1, 5, 3)) if seed % 3 else (3, 3, 3)
        options = {
            "stride": tuple(int(n) for n in rng.integers(1, 4, 3)) if seed % 2 else 1,
            "dilation": tuple(int(n) for n in rng.integers(1, 3, 3)) if seed % 4 == 1 else 1,
            "padding": tuple((int(low), int(high)) for low, high in rng.integers(2, 5, (3, 2))),
        }
        channels = int(rng.choice([16, 24, 33, 54, 64]))
        agree(*arrays(size, kernel, channels, seed, "float64" if seed % 5 == 0 else "float32"), options, seed)


def test_a_deep_volume_is_computed_rows_of_planes_together():
    for stride in (1, 2):
        agree(*arrays((9, 12, 21), (3, 3, 3), 20, 1), {"padding": 1, "stride": stride}, 1)
        agree(*arrays((9, 12, 21), (3, 1, 4), 20, 1), {"padding": (1, 0, 2), "stride": stride}, 2)


@pytest.mark.parametrize("special", [np.nan, np.inf])
def test_padding_meets_nothing_that_is_not_finite(special):
    for size, kernel, options in (
        ((5, 6), (7, 7), {"padding": 3}),
        ((9, 19), (3, 9), {"padding": (2, 8), "stride": 2}),
        ((9, 19), (3, 3), {"padding": 4, "dilation": 4}),
        ((4, 5, 9), (3, 3, 3), {"padding": 1}),
    ):
        x, w, b = arrays(size, kernel, 35, 3)
        for array in (x, w):
            before = array.copy()
            array.reshape(-1, 35)[::5, 1::3] = special
            with np.errstate(invalid="ignore"):
                agree(x, w, b, options, 0)
            array[...] = before


def test_parts_of_arrays():
    """Pixels far apart, a power of two apart too, and rows backwards; the rest of the output is untouched."""
    rng = np.random.default_rng(4)
    for channels, whole in ((64, 1024), (48, 512), (40, 100)):
        w = rng.integers(-4, 5, (7, 7, 1, channels)).astype(np.float32)
        x = rng.integers(-4, 5, (2, 9, 10, whole)).astype(np.float32)[:, ::-1, :, -channels:]
        out = np.full((2, 9, 10, whole), 9, np.float32)
        options: dict[str, Any] = {"padding": 3, "groups": channels, "data_format": "NHWC"}
        plan = fastconv.plan_conv2d(x.shape, w, **options, activation="relu")
        plan.run(x, out=out[..., :channels])
        np.testing.assert_array_equal(out[..., :channels], reference.conv2d(x, w, **options, activation="relu"))
        assert np.all(out[..., channels:] == 9)


def test_bits_depend_on_no_layout_and_no_threads():
    rng = np.random.default_rng(5)
    for kernel, size, options in (
        (7, (10, 23), {"padding": 3}),
        (13, (7, 7), {"padding": 6}),
        (3, (18, 33), {"padding": 2, "dilation": 2}),
        (3, (18, 33), {"padding": 12, "dilation": 12}),
        (9, (30, 17), {"padding": 4, "stride": 2}),
    ):
        x = rng.standard_normal((2, 40, *size)).astype(np.float32)
        w = rng.standard_normal((40, 1, kernel, kernel)).astype(np.float32)
        expected = fastconv.conv2d(x, w, **options, groups=40)
        last = x.transpose(0, 2, 3, 1).copy(), w.transpose(2, 3, 1, 0).copy()
        for threads in (1, 2, 3):
            got = fastconv.conv2d(*last, **options, groups=40, data_format="NHWC", num_threads=threads)
            np.testing.assert_array_equal(got.transpose(0, 3, 1, 2), expected)


def test_the_explanation_of_a_volume():
    told = fastconv.explain_conv3d((1, 8, 14, 14, 216), (3, 3, 3, 1, 216), padding=1, groups=216, data_format="NDHWC")
    assert "patches" in told.block and told.source == "in place" and "plane of the kernel" not in told.reason
    told = fastconv.explain_conv3d((1, 216, 8, 14, 14), (216, 1, 3, 3, 3), padding=1, groups=216)
    assert "patches" in told.block and "plane of the kernel" not in told.reason
