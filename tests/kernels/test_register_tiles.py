"""Every register tile of the direct kernels, by design: each number of vectors and of rows, for each computing type.

The generated problems reach them too, but which ones depends on how many are drawn. Integer-valued data, exact results.
"""

from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import _native, grad, reference
from fastconv._core.types import COMPUTE

TYPES = ["float32", "float64", "float16", "int16", "int64"]  # int16 is summed in int32
INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


def sums_of(dtype: str) -> np.dtype[Any]:
    return np.dtype({"float16": "float32", "int16": "int32"}.get(dtype, dtype))


@pytest.mark.parametrize("dtype", TYPES)
def test_every_register_tile(dtype: str) -> None:
    """1 to 13 pixels by every number of vectors that a panel has, the last one partly used; bias, residual, relu."""
    _, lanes, vectors, _ = _native.tile_shape(COMPUTE[sums_of(dtype)])
    rng = np.random.default_rng(7)
    for wide in range(1, vectors + 2):
        for outputs in (wide * lanes, max(1, wide * lanes - 1)):
            w = rng.integers(-4, 5, (outputs, 5)).astype(dtype)
            b = rng.integers(-4, 5, outputs).astype(dtype)
            for pixels in range(1, 14):
                x = rng.integers(-4, 5, (pixels, 5)).astype(dtype)
                plain = x.astype(np.int64) @ w.T.astype(np.int64)
                image, kernels = x.reshape(1, 1, pixels, 5), np.ascontiguousarray(w.T).reshape(1, 1, 5, outputs)
                y = fastconv.conv2d(image, kernels, data_format="NHWC")
                np.testing.assert_array_equal(y[0, 0], plain, err_msg=f"{pixels} x {outputs}")
                residual = rng.integers(-4, 5, y.shape).astype(y.dtype)
                full = fastconv.conv2d(
                    image, kernels, b, data_format="NHWC", residual=residual, activation="relu", num_threads=1
                )
                expected = np.maximum(plain + b.astype(np.int64) + residual[0, 0].astype(np.int64), 0)
                np.testing.assert_array_equal(full[0, 0], expected, err_msg=f"{pixels} x {outputs}, epilogue")


@pytest.mark.parametrize("activation", [None, "relu", "relu6"])
@pytest.mark.parametrize("dtype", TYPES)
def test_every_way_to_store(dtype: str, activation: str | None) -> None:
    """Outputs by rows, by columns and in steps; whole vectors of pixels and channels, and parts of them."""
    rng = np.random.default_rng(11)
    shapes = ((1, 1), (1, 70), (3, 3), (40, 2), (2, 40), (16, 16), (17, 33), (64, 130))
    for outputs, pixels in shapes:
        x = rng.integers(-3, 4, (2, 3, 1, pixels)).astype(dtype)
        w = rng.integers(-3, 4, (outputs, 3, 1, 1)).astype(dtype)
        for with_bias, with_residual in ((False, False), (True, False), (False, True), (True, True)):
            b = rng.integers(-3, 4, outputs).astype(dtype) if with_bias else None
            options: dict[str, Any] = {"activation": activation}
            y = fastconv.conv2d(x, w)
            for layout in ("as it is", "channels last", "every second", "residual turned"):
                if with_residual:
                    residual = rng.integers(-3, 4, y.shape).astype(y.dtype)
                    if layout == "residual turned":
                        residual = residual.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
                    options["residual"] = residual
                out = np.zeros_like(y)
                if layout == "channels last":
                    out = np.zeros((2, 1, pixels, outputs), y.dtype).transpose(0, 3, 1, 2)
                elif layout == "every second":
                    out = np.zeros((2, outputs, 1, 2 * pixels), y.dtype)[..., ::2]
                fastconv.conv2d(x, w, b, out=out, **options)
                expected = reference.conv2d(x, w, b, **options)
                np.testing.assert_array_equal(out, expected, err_msg=f"{outputs} x {pixels}, {layout}, {with_bias}")


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", *INTEGERS])
@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
def test_weights_however_they_lie(dtype: str, data_format: str) -> None:
    """Weights side by side by output, by channel, by tap, in steps, backwards, and with taps that share a place."""
    rng = np.random.default_rng(5)
    low = 0 if dtype[0] == "u" else -3
    for channels, outputs in ((1, 1), (3, 17), (17, 40), (33, 5)):
        shape = (1, channels, 5, 9) if data_format == "NCHW" else (1, 5, 9, channels)
        x = rng.integers(low, 4, shape).astype(dtype)
        whole = rng.integers(low, 4, (outputs, channels, 6, 6)).astype(dtype)
        corner = whole[:, :, :3, :3]
        views = [
            corner, corner.copy(), whole[:, :, ::2, ::2], whole[:, :, 2::-1, 2::-1], corner[::-1], corner[:, ::-1],
            corner.swapaxes(0, 1).copy().swapaxes(0, 1), corner.transpose(2, 3, 1, 0).copy().transpose(3, 2, 0, 1),
            np.broadcast_to(corner[:, :, :1, :1], corner.shape), np.broadcast_to(corner[:, :1], corner.shape),
        ]  # fmt: skip
        for number, w in enumerate(views):
            given = w if data_format == "NCHW" else w.transpose(2, 3, 1, 0)
            options: dict[str, Any] = {"data_format": data_format, "padding": 1}
            expected = reference.conv2d(x, given, **options)
            got = fastconv.conv2d(x, given, **options, algorithm="direct")
            np.testing.assert_array_equal(got, expected, err_msg=f"{channels}, {outputs}, layout {number}")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", *INTEGERS])
def test_overlapping_pooling_windows_of_every_type(dtype: str) -> None:
    """Maxima with and without indices, and the gradient, in which an element gathers what all its windows pass on."""
    rng = np.random.default_rng(3)
    x = rng.integers(0, 9, (2, 3, 9, 11)).astype(dtype)
    y, index = reference.max_pool2d(x, 3, stride=2, return_indices=True)
    np.testing.assert_array_equal(fastconv.max_pool2d(x, 3, stride=2), y)
    for got, expected in zip(fastconv.max_pool2d(x, 3, stride=2, return_indices=True), (y, index), strict=True):
        np.testing.assert_array_equal(got, expected)
    dy = rng.integers(0, 4, y.shape).astype(dtype)
    expected = reference.max_pool2d_input(x, 3, dy, stride=2)
    np.testing.assert_array_equal(grad.max_pool2d_input(x, 3, dy, stride=2), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
@pytest.mark.parametrize("special", [False, True], ids=["finite", "nan"])
def test_a_window_too_large_to_lay_out(dtype: str, special: bool) -> None:
    """Windows of a whole image are gathered in chunks; a weight that is NaN meets real pixels alone."""
    if special and dtype == "int16":
        pytest.skip("integers have no NaN")
    rng = np.random.default_rng(2)
    x = rng.integers(-3, 4, (1, 300, 62, 62)).astype(dtype)
    w = rng.integers(-3, 4, (3, 300, 60, 60)).astype(dtype)  # a window of 4.3 MB in single precision
    if special:
        w[1, 0, 0, 0] = np.nan
    for mode in ("zeros", "reflect"):
        options: dict[str, Any] = {"padding": 1, "padding_mode": mode}
        expected = reference.conv2d(x, w, **options)
        np.testing.assert_array_equal(fastconv.conv2d(x, w, **options, algorithm="direct"), expected)
