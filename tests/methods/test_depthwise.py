"""Depthwise and grouped convolution around the widths of vectors, in all three passes.

The generated cases of test_against_reference.py reach these kernels too; here every channel count, multiplier and group
size is met by design, with the strides, dilations and crops that make other rectangles of taps.
"""

from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import plan_conv2d, reference

CHANNELS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65)
OPTIONS: list[tuple[tuple[int, int], dict[str, Any]]] = [
    ((3, 3), {"padding": 1}),
    ((3, 3), {"padding": 1, "stride": 2}),
    ((3, 3), {"padding": 2, "dilation": 2}),
    ((5, 5), {"padding": 2, "stride": 2}),
    ((5, 5), {"padding": "same"}),
    ((2, 3), {"padding": ((2, -1), (0, 1)), "stride": (1, 2)}),
    ((1, 4), {"padding": 5, "stride": 3, "dilation": 3}),
    ((7, 7), {"padding": 3}),
    ((3, 3), {"padding": 2, "padding_mode": "reflect"}),
    ((3, 3), {"padding": 1, "padding_mode": "circular", "stride": 2}),
]
formats = pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])


def problem(
    channels: int, outputs: int, groups: int, kernel: tuple[int, int], data_format: str, dtype: str = "float32"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Integer-valued input, weight and bias: every sum is exact."""
    rng = np.random.default_rng([channels, outputs, groups])
    x = rng.integers(-4, 5, (2, channels, 9, 23)).astype(dtype)
    w = rng.integers(-4, 5, (outputs, channels // groups, *kernel)).astype(dtype)
    if data_format == "NHWC":
        x, w = x.transpose(0, 2, 3, 1).copy(), w.transpose(2, 3, 1, 0).copy()
    return x, w, rng.integers(-4, 5, outputs).astype(dtype)


def compare(x: np.ndarray, w: np.ndarray, b: np.ndarray, options: dict[str, Any], what: object) -> None:
    """Forward and every gradient equal the reference, for one thread and for three."""
    expected = reference.conv2d(x, w, b, **options, activation="relu")
    dy = np.random.default_rng(1).integers(-3, 4, expected.shape).astype(x.dtype)
    gradients = reference.conv2d_backward(dy, x, w, **options)
    for threads in (1, 3):
        got = fastconv.conv2d(x, w, b, **options, activation="relu", num_threads=threads)
        np.testing.assert_array_equal(got, expected, err_msg=f"forward {what}")
        ours = fastconv.conv2d_backward(dy, x, w, **options, num_threads=threads)
        for name, one, other in zip(("grad_input", "grad_weight", "grad_bias"), ours, gradients, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=f"{name} {what}")


@formats
@pytest.mark.parametrize("multiplier", [1, 2, 3])
@pytest.mark.parametrize("channels", CHANNELS)
def test_depthwise_around_the_width_of_vectors(channels, multiplier, data_format):
    for kernel, options in OPTIONS:
        x, w, b = problem(channels, channels * multiplier, channels, kernel, data_format)
        compare(x, w, b, {**options, "groups": channels, "data_format": data_format}, (kernel, options))


@formats
@pytest.mark.parametrize("outputs", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("channels", [2, 3, 4, 5, 8])
def test_groups_of_few_channels(channels, outputs, data_format):
    for groups in (2, 5, 17):
        for kernel, options in OPTIONS[::2]:
            x, w, b = problem(channels * groups, outputs * groups, groups, kernel, data_format)
            compare(x, w, b, {**options, "groups": groups, "data_format": data_format}, (groups, kernel, options))


@formats
@pytest.mark.parametrize("dtype", ["float64", "float16", "int8", "int16", "int32", "int64", "uint8"])
def test_every_element_type(dtype, data_format):
    for channels, outputs, groups in ((33, 33, 33), (17, 34, 17), (40, 40, 10)):
        for kernel, options in OPTIONS[:4]:
            x, w, b = problem(channels, outputs, groups, kernel, data_format, dtype.replace("u", ""))
            if dtype[0] == "u":
                x, w, b = (np.abs(a).astype(dtype) for a in (x, w, b))
            options = {**options, "groups": groups, "data_format": data_format}
            expected = reference.conv2d(x, w, b, **options)
            np.testing.assert_array_equal(fastconv.conv2d(x, w, b, **options), expected)
            dy = np.random.default_rng(1).integers(0, 3, expected.shape).astype(dtype)
            ours, theirs = (f.conv2d_backward(dy, x, w, **options) for f in (fastconv, reference))
            for one, other in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(one, other)


WINDOWS = [((2, 2), 1), ((3, 3), 1), ((3, 3), 2), ((5, 5), 1), ((5, 5), 2), ((2, 2), 2)]


@formats
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "int64"])
@pytest.mark.parametrize("kernel, stride", WINDOWS, ids=str)
def test_every_width_of_windows(kernel, stride, dtype, data_format):
    """Rows of 1 to 13 outputs and more, which blocks of 8 and 4 and single pixels make up; groups that are picked."""
    rng = np.random.default_rng(9)
    for channels, outputs, groups in ((33, 33, 33), (16, 16, 8), (16, 16, 4), (8, 32, 8)):
        w = rng.integers(-4, 5, (outputs, channels // groups, *kernel)).astype(dtype)
        b = rng.integers(-4, 5, outputs).astype(dtype)
        for columns in (*range(1, 14), 21) if groups == channels else (1, 5, 12, 13):
            x = rng.integers(-4, 5, (1, channels, 3, columns * stride)).astype(dtype)
            options = {"padding": kernel[0] // 2, "stride": stride, "groups": groups, "data_format": data_format}
            last = data_format == "NHWC"
            given = (x.transpose(0, 2, 3, 1).copy(), w.transpose(2, 3, 1, 0).copy()) if last else (x, w)
            compare(*given, b, options, (channels, outputs, groups, columns))


@formats
@pytest.mark.parametrize("special", [np.nan, np.inf])
def test_special_values_reach_what_holds_them_alone(special, data_format):
    """In the weights: no output whose tap lies over padding; in the input: its windows and its channel alone."""
    for channels, outputs, groups in ((17, 17, 17), (12, 12, 3)):
        x, w, b = problem(channels, outputs, groups, (3, 3), data_format)
        options = {"padding": 1, "groups": groups, "data_format": data_format}
        for array in (x, w):
            special_array = array.copy()
            special_array.flat[5] = special
            pair = (special_array, w) if array is x else (x, special_array)
            expected = reference.conv2d(*pair, b, **options)
            np.testing.assert_array_equal(fastconv.conv2d(*pair, b, **options), expected)
            dy = np.ones_like(expected)
            ours, theirs = (f.conv2d_backward(dy, *pair, **options) for f in (fastconv, reference))
            for one, other in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(one, other)


@formats
def test_bits_of_real_numbers(data_format):
    """The same for any threads and any split of the batch, and in a plan; within the direct algorithms' bound."""
    rng = np.random.default_rng(3)
    for channels, outputs, groups in ((96, 96, 96), (33, 66, 33), (64, 64, 16)):
        for kernel, options in OPTIONS[:5]:
            x, w, b = problem(channels, outputs, groups, kernel, data_format)
            x, w, b = (rng.standard_normal(a.shape).astype(np.float32) for a in (np.repeat(x, 2, axis=0), w, b))
            options = {**options, "groups": groups, "data_format": data_format}
            y = fastconv.conv2d(x, w, b, **options, num_threads=1)
            bound = (kernel[0] * kernel[1] * channels // groups + 3) * 2.0**-24
            scale = reference.abs_sum(reference.conv2d, x, w, b, **options)
            assert np.all(np.abs(y - reference.conv2d(x, w, b, **options)) <= bound * scale)
            dy = rng.standard_normal(y.shape).astype(np.float32)
            gradients = fastconv.conv2d_backward(dy, x, w, **options, num_threads=1)
            for threads in (2, 3, 5):
                assert np.array_equal(y, fastconv.conv2d(x, w, b, **options, num_threads=threads))
                again = fastconv.conv2d_backward(dy, x, w, **options, num_threads=threads)
                assert all(np.array_equal(one, other) for one, other in zip(gradients, again, strict=True))
            for i in range(4):
                part = slice(i, i + 1)
                assert np.array_equal(y[part], fastconv.conv2d(x[part], w, b, **options))
                dx = fastconv.conv2d_backward(dy[part], x[part], w, **options)[0]
                assert np.array_equal(gradients[0][part], dx)
            assert np.array_equal(y, plan_conv2d(x.shape, w, b, **options).run(x))


def test_every_patch():
    """Images of channels side by side, computed in place patch by patch: every height and width of a few patches, whole
    vectors of channels and more. The same bits as from NCHW, where the input is packed, whatever the threads."""
    rng = np.random.default_rng(4)
    windows = ((3, 1, 1), (3, 2, 1), (5, 1, 2), (5, 2, 2), (3, 1, 2), (3, 2, 0), (5, 1, 4), (3, 1, -1))
    for kernel, stride, padding in windows:
        for height, width in ((1, 9), (2, 15), (5, 8), (6, 21), (7, 7), (9, 4), (13, 16), (30, 29)):
            for channels in (16, 40, 64, 89) if width < 16 else (72,):
                if min(height, width) + 2 * padding < kernel:
                    continue
                for dtype in ("float32", "float64") if channels < 64 else ("float32",):
                    x = rng.standard_normal((2, channels, height, width)).astype(dtype)
                    w = rng.standard_normal((channels, 1, kernel, kernel)).astype(dtype)
                    b = rng.standard_normal(channels).astype(dtype)
                    sides = ((padding, padding), (padding, padding))
                    options: dict[str, Any] = {"padding": sides, "stride": stride, "groups": channels}
                    activation = ("relu", "relu6", "hardswish", None)[(height + channels) % 4]
                    pair = x.transpose(0, 2, 3, 1).copy(), w.transpose(2, 3, 1, 0).copy()
                    y = fastconv.conv2d(x, w, b, **options, activation=activation)
                    dy = rng.standard_normal(y.shape).astype(dtype)
                    dx = fastconv.grad.conv2d_input(x.shape, w, dy, **options)
                    for threads in (1, 2, 5):
                        last = {**options, "data_format": "NHWC", "num_threads": threads}
                        got = fastconv.conv2d(*pair, b, **last, activation=activation)
                        np.testing.assert_array_equal(got.transpose(0, 3, 1, 2), y, err_msg=f"{x.shape} {options}")
                        got = fastconv.grad.conv2d_input(
                            pair[0].shape, pair[1], dy.transpose(0, 2, 3, 1).copy(), **last
                        )
                        np.testing.assert_array_equal(got.transpose(0, 3, 1, 2), dx, err_msg=f"{x.shape} {options}")


def test_patches_of_pixels_that_lie_far_apart():
    """Parts of arrays whose pixels lie a power of two bytes apart, which are copied together, in input and output."""
    rng = np.random.default_rng(5)
    for channels in (64, 72, 130, 512):
        for size, stride in ((7, 1), (14, 1), (14, 2), (24, 1)):
            whole = rng.integers(-4, 5, (2, size, size, 512)).astype(np.float32)
            x = whole[..., -channels:]
            w = rng.integers(-4, 5, (3, 3, 1, channels)).astype(np.float32)
            options: dict[str, Any] = {"padding": 1, "stride": stride, "groups": channels, "data_format": "NHWC"}
            expected = reference.conv2d(x, w, **options, activation="relu6")
            for threads in (1, 2, 3):
                options["num_threads"] = threads
                out = np.full((*expected.shape[:3], 512), 9, np.float32)
                plan = plan_conv2d(x.shape, w, **options, activation="relu6")
                plan.run(x, out=out[..., :channels])
                np.testing.assert_array_equal(out[..., :channels], expected)
                assert np.all(out[..., channels:] == 9)
                np.testing.assert_array_equal(plan.run(x[::-1])[::-1], expected)


def test_the_explanation_names_the_kernels():
    few = fastconv.explain_conv2d((1, 64, 28, 28), (64, 1, 3, 3), padding=1, groups=64)
    assert few.algorithm == "direct" and "depthwise" in few.reason
    grouped = fastconv.explain_conv2d((1, 12, 28, 28), (12, 3, 3, 3), padding=1, groups=4)
    assert "grouped" in grouped.reason
    assert "lane" not in fastconv.explain_conv2d((1, 64, 28, 28), (64, 64, 1, 1)).reason
    options: dict[str, Any] = {"padding": 1, "data_format": "NHWC"}
    patches = fastconv.explain_conv2d((1, 14, 14, 64), (3, 3, 1, 64), groups=64, **options)
    assert "patches" in patches.block and patches.source == "in place" and patches.workspace_bytes == 0
    packed = fastconv.explain_conv2d((1, 14, 14, 512), (3, 3, 1, 512), groups=512, **options)
    assert packed.source == "packed region" and packed.workspace_bytes > 0
    assert "patches" not in few.block


def _within_a_line(a: np.ndarray, offset: int) -> tuple[np.ndarray, np.ndarray]:
    """A copy that begins so many bytes into a cache line, and the bytes from two lines before it to two behind it."""
    raw = np.zeros(a.nbytes + 320, np.uint8)
    begin = -raw.ctypes.data % 64 + 128 + offset
    copy = raw[begin : begin + a.nbytes].view(a.dtype).reshape(a.shape)
    copy[...] = a
    return copy, raw[begin - 128 : begin + a.nbytes + 64]


LINES = (
    # channels, width, kernel, stride, dilation: patches, strips, lines, with and without vectors that two pixels share
    (64, 61, (3, 3), 1, 1), (592, 13, (3, 3), 1, 1), (140, 12, (3, 3), 1, 1), (64, 121, (3, 3), 2, 1),
    (80, 30, (3, 3), 2, 1), (64, 90, (5, 5), 1, 1), (160, 50, (5, 5), 2, 1), (96, 57, (7, 7), 1, 1),
    (64, 70, (7, 7), 2, 1), (400, 20, (3, 3), 1, 2), (64, 280, (1, 9), 1, 1), (128, 33, (2, 2), 1, 3),
    (256, 20, (4, 4), 3, 1),
)  # fmt: skip


@pytest.mark.parametrize("activation", [None, "relu", "silu"])
@pytest.mark.parametrize("channels, width, kernel, stride, dilation", LINES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_arrays_within_a_cache_line_have_the_same_bits(dtype, channels, width, kernel, stride, dilation, activation):
    rng = np.random.default_rng(channels)
    x = rng.standard_normal((1, min(width, 9) if kernel[0] > 1 else 2, width, channels)).astype(dtype)
    w, b = rng.standard_normal((*kernel, 1, channels)).astype(dtype), rng.standard_normal(channels).astype(dtype)
    options: dict[str, Any] = {"stride": stride, "dilation": dilation, "groups": channels, "data_format": "NHWC"}
    padding = [dilation * (k // 2) for k in kernel]
    expected = None
    for threads in (1, 3):
        options["num_threads"] = threads
        plan = plan_conv2d(x.shape, w, b, padding=padding, activation=activation, **options)
        expected = plan.run(_within_a_line(x, 0)[0]) if expected is None else expected
        for before, behind in ((16, 16), (32, 32), (56, 56), (0, 16), (16, 0), (16, 48), (8, 8), (0, 0)):
            y, around = _within_a_line(np.full_like(expected, np.nan), behind)
            plan.run(_within_a_line(x, before)[0], out=y)
            assert y.tobytes() == expected.tobytes(), (before, behind, threads)
            assert not around[:128].any() and not around[-64:].any()


@pytest.mark.parametrize("stride", [1, 2])
def test_channels_beside_a_slice_stay_as_they_are(stride):
    """Where pixels do not follow each other no vector has channels of two."""
    rng = np.random.default_rng(stride)
    w = rng.integers(-4, 5, (3, 3, 1, 64)).astype(np.float32)
    x = rng.integers(-4, 5, (1, 5, 121, 80)).astype(np.float32)[..., 4:68]
    options: dict[str, Any] = {"stride": stride, "padding": 1, "groups": 64, "data_format": "NHWC"}
    expected = reference.conv2d(x, w, **options)
    whole = np.full((*expected.shape[:3], 80), 9, np.float32)
    plan_conv2d(x.shape, w, **options).run(x, out=whole[..., 4:68])
    np.testing.assert_array_equal(whole[..., 4:68], expected)
    assert np.all(whole[..., :4] == 9) and np.all(whole[..., 68:] == 9)
