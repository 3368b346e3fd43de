"""No error grows with the length of a sum: windows, maps, axes, huge kernels, batches; forward and gradients.

A running sum in single precision of 25 million ones is 0.67 of them. The right values of constant arrays are known, as
products of fractions; those of random ones are float64's sums.
"""

from __future__ import annotations

from math import fsum, prod
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import Sequential, grad, losses
from fastconv import layers as L
from fastconv._core import sums
from fastconv._native import LONG_SUM
from fastconv.layers import rows
from fastconv.layers.activations import softmax
from fastconv.testing.comparisons import direct_bound

TENTH = {dtype: float(np.dtype(dtype).type(0.1)) for dtype in ("float16", "float32", "float64")}
WITHIN = {"float16": 2.0**-10, "float32": 1e-6, "float64": 2e-15}  # relative, of constant arrays


def tenths(shape: tuple[int, ...], dtype: str = "float32") -> Any:
    """An array of 0.1 that takes no memory."""
    return np.broadcast_to(np.dtype(dtype).type(0.1), shape)


def off(got: Any, right: float) -> float:
    """The largest relative error."""
    return float(np.max(np.abs(np.asarray(got, np.float64) / right - 1)))


# ---- Means ----------------------------------------------------------------------------------------------------------


def test_the_mean_of_25_million_ones_is_one() -> None:
    ones = np.broadcast_to(np.float32(1), (1, 1, 5000, 5000))
    assert fastconv.avg_pool2d(ones, 5000).item() == 1


@pytest.mark.parametrize("dtype", TENTH)
@pytest.mark.parametrize("size", [(9, 9), (64, 64), (1, 4097), (700, 3), (1024, 1024)], ids=str)
def test_average_pooling(dtype: str, size: tuple[int, int]) -> None:
    for shape, data_format in (((1, 2, *size), "NCHW"), ((1, *size, 3), "NHWC")):
        mean = fastconv.avg_pool2d(tenths(shape, dtype), size, data_format=data_format)
        assert off(mean, TENTH[dtype]) < WITHIN[dtype]


@pytest.mark.parametrize("dtype", TENTH)
def test_averages_have_the_same_bits_in_both_layouts_and_show_what_is_not_finite(dtype: str) -> None:
    x = np.random.default_rng(0).random((2, 3, 40, 50)).astype(dtype)
    x[0, 1, 20, 20], x[1, 2, 30, 5] = np.inf, np.nan
    got = fastconv.avg_pool2d(x, (9, 30), 1)
    last = fastconv.avg_pool2d(np.ascontiguousarray(x.transpose(0, 2, 3, 1)), (9, 30), 1, data_format="NHWC")
    np.testing.assert_array_equal(last.transpose(0, 3, 1, 2), got)
    wide = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (9, 30), (2, 3)).mean((4, 5))
    np.testing.assert_array_equal(np.isposinf(got), np.isposinf(wide))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(wide))
    np.testing.assert_allclose(got, wide, rtol=2.0**-23 if dtype != "float16" else 2.0**-10)


@pytest.mark.parametrize("shape", [(1, 1024, 1024, 2), (2, 300, 3, 1), (1, 8, 8, 3)], ids=str)
def test_pooling_layers(shape: tuple[int, ...]) -> None:
    x = tenths(shape)
    for layer in (L.GlobalAveragePooling2D(), L.AveragePooling2D(shape[1:3])):
        assert off(layer(x), TENTH["float32"]) < 1e-6
        assert off(Sequential([layer], input_shape=shape[1:]).predict(x), TENTH["float32"]) < 1e-6


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_of_overlapping_windows(dtype: str) -> None:
    windows = 4200  # that hold the pixel in the middle
    x = np.zeros((1, 1, 1, 2 * windows - 1), dtype)
    x[..., windows - 1] = 1
    y = fastconv.max_pool2d(x, (1, windows), 1)
    got = grad.max_pool2d_input(x, (1, windows), tenths(y.shape, dtype), 1)[0, 0, 0, windows - 1]
    assert off(got, TENTH[dtype] * windows) < WITHIN[dtype]
    got = grad.avg_pool2d_input(x.shape, (1, windows), tenths(y.shape, dtype), 1)[0, 0, 0, windows - 1]
    assert off(got, TENTH[dtype]) < WITHIN[dtype]
    layer = L.MaxPooling2D((1, windows), 1, dtype=dtype)
    shown = layer.forward(x.transpose(0, 2, 3, 1), training=True)
    assert off(layer.backward(tenths(shown.shape, dtype))[0, 0, windows - 1], TENTH[dtype] * windows) < WITHIN[dtype]
    dy = np.full(y.shape, 0.1, dtype)
    dy[..., 100] = np.inf
    infinite = grad.avg_pool2d_input(x.shape, (1, windows), dy, 1)
    assert np.isposinf(infinite[..., 100 : 100 + windows]).all() and np.isfinite(infinite[..., :100]).all()


# ---- Convolutions ---------------------------------------------------------------------------------------------------

HUGE = [  # (input, kernel, outputs, groups)
    ((1, 1, 64, 64), (64, 64), 2, 1),
    ((1, 1, 1100, 1000), (1100, 1000), 1, 1),  # gathered
    ((1, 3, 1, 9000), (1, 9000), 5, 1),
    ((1, 4, 600, 9), (600, 9), 4, 4),  # depthwise
    ((1, 4, 2, 3000), (2, 3000), 8, 2),
    ((1, 16, 300, 17), (300, 17), 16, 4),
    ((1, 70000, 1, 1), (1, 1), 3, 1),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "kernel", "outputs", "groups"), HUGE)
def test_kernels_as_large_as_the_image(
    shape: tuple[int, ...], kernel: tuple[int, int], outputs: int, groups: int, dtype: str
) -> None:
    terms = shape[1] // groups * prod(kernel)
    assert terms >= LONG_SUM
    w = np.full((outputs, shape[1] // groups, *kernel), 0.3, dtype)
    product = float(w.flat[0]) * TENTH[dtype]
    y = fastconv.conv2d(tenths(shape, dtype), w, groups=groups)
    assert off(y, product * terms) < WITHIN[dtype]
    bias, add = np.full(outputs, -0.5, dtype), np.full(y.shape, 0.25, dtype)
    y = fastconv.conv2d(tenths(shape, dtype), w, bias, groups=groups, residual=add, activation="relu")
    assert off(y, product * terms - 0.25) < WITHIN[dtype]
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal(shape).astype(dtype), rng.standard_normal(w.shape).astype(dtype)
    y = fastconv.conv2d(x, w, bias, groups=groups)
    own = x[0, : shape[1] // groups].astype(np.float64).ravel() * w[0].astype(np.float64).ravel()
    right, magnitude = fsum(own) + float(bias[0]), np.abs(own).sum() + 0.5
    # far inside the bound, which counts LONG_SUM terms
    assert abs(float(y[0, 0, 0, 0]) - right) < 40 * np.finfo(dtype).eps * magnitude


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_long_sums_in_transposed_convolutions_and_gradients(dtype: str) -> None:
    kernel, value = (70, 90), TENTH[dtype]
    w = np.full((1, 1, *kernel), 0.1, dtype)
    y = fastconv.conv_transpose2d(tenths((1, 1, 100, 120), dtype), w)
    assert off(y[0, 0, 80, 95], value**2 * prod(kernel)) < WITHIN[dtype]
    got = grad.conv2d_input((1, 1, 169, 209), w, tenths((1, 1, 100, 120), dtype))[0, 0, 80, 95]
    assert off(got, value**2 * prod(kernel)) < WITHIN[dtype]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("shape", "outputs", "kernel", "groups", "algorithm"),
    [
        ((1, 1, 300, 400), 2, 3, 1, "direct"), ((3, 16, 150, 150), 16, 1, 1, "direct"),
        ((2, 8, 250, 200), 8, 3, 8, "direct"), ((1, 16, 250, 200), 32, 3, 8, "direct"),
        ((1, 2, 1, 90_000), 3, 1, 1, "direct"), ((2, 32, 320, 320), 32, 3, 1, "winograd"),
    ],
)  # fmt: skip
def test_gradients_summed_over_many_pixels(
    shape: tuple[int, ...], outputs: int, kernel: int, groups: int, algorithm: str, dtype: str
) -> None:
    """Blocks of a thousand pixels: of constant arrays, a running sum of 100,000 would be 1e-3 off."""
    if algorithm == "winograd" and dtype == "float64":
        return
    pixels = shape[0] * (shape[2] - kernel + 1) * (shape[3] - kernel + 1)
    dy = tenths((shape[0], outputs, shape[2] - kernel + 1, shape[3] - kernel + 1), dtype)
    w = np.zeros((outputs, shape[1] // groups, kernel, kernel), dtype)
    options: dict[str, Any] = {"groups": groups, "algorithm": algorithm, "output_mask": (False, True, True)}
    _, dw, db = fastconv.conv2d_backward(dy, tenths(shape, dtype), w, **options)
    assert dw is not None and db is not None
    assert off(dw, TENTH[dtype] ** 2 * pixels) < 600 * np.finfo(dtype).eps
    assert off(db, TENTH[dtype] * pixels) < WITHIN[dtype]
    if algorithm == "direct":  # integers are exact
        rng = np.random.default_rng(1)
        x, whole = rng.integers(-3, 4, shape), rng.integers(-3, 4, dy.shape)
        got = fastconv.conv2d_backward(whole.astype(dtype), x.astype(dtype), w, **options)
        right = fastconv.conv2d_backward(whole, x, w.astype(np.int64), **{**options, "algorithm": "auto"})
        for ours, theirs in zip(got[1:], right[1:], strict=True):
            np.testing.assert_array_equal(ours, theirs)


LONG = [  # (channels, size, outputs, kernel, groups, padding, stride)
    (3, (44, 40), 5, (40, 41), 1, 20, 1), (8, (66, 70), 8, (65, 66), 8, 3, 1), (8, (90, 10), 16, (300, 9), 4, 150, 2),
    (600, (9, 9), 20, (3, 3), 1, 1, 1), (4200, (5, 5), 70, (1, 1), 1, 0, 1),
    (16, (10, 300), 16, (8, 261), 8, (3, 130), 1),
    (1, (740, 720), 2, (738, 719), 1, 1, 3),  # gathered in double precision
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("case", LONG, ids=str)
def test_bits_of_long_sums(case: Any, dtype: str) -> None:
    """On numbers alone: not on threads, batch, layout, plan, explicit padding, infinite weights over the padding."""
    channels, size, outputs, kernel, groups, padding, stride = case
    if dtype != "float64" and prod(size) > 10**5:
        return
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, channels, *size)).astype(dtype)
    w = rng.standard_normal((outputs, channels // groups, *kernel)).astype(dtype)
    b = rng.standard_normal(outputs).astype(dtype)
    options: dict[str, Any] = {"stride": stride, "padding": padding, "groups": groups, "algorithm": "direct"}
    y = fastconv.conv2d(x, w, b, **options, activation="relu", num_threads=1)

    def same(got: Any) -> None:
        np.testing.assert_array_equal(got, y)

    same(fastconv.conv2d(x, w, b, **options, activation="relu", num_threads=3))
    same(np.concatenate([fastconv.conv2d(x[n : n + 1], w, b, **options, activation="relu") for n in range(2)]))
    last, own = np.ascontiguousarray(x.transpose(0, 2, 3, 1)), np.ascontiguousarray(w.transpose(2, 3, 1, 0))
    plan = fastconv.plan_conv2d(last.shape, own, b, **options, activation="relu", data_format="NHWC")
    same(plan.run(last).transpose(0, 3, 1, 2))
    rows_, columns = padding if isinstance(padding, tuple) else (padding, padding)
    wide = np.pad(x, ((0, 0), (0, 0), (rows_, rows_), (columns, columns)))
    same(fastconv.conv2d(wide, w, b, **{**options, "padding": 0}, activation="relu"))
    if dtype == "float16":
        return
    infinite, zero = w.copy(), w.copy()
    infinite[0, 0, 0, 0], zero[0, 0, 0, 0] = np.inf, 0
    got, right = fastconv.conv2d(x, infinite, b, **options), fastconv.conv2d(x, zero, b, **options)
    np.testing.assert_array_equal(got[np.isfinite(got)], right[np.isfinite(got)])
    assert np.isfinite(got[:, 1:]).all()
    whole, kernels = rng.integers(-3, 4, x.shape), rng.integers(-2, 3, w.shape)
    exact = fastconv.conv2d(whole, kernels, **{**options, "algorithm": "auto"})
    np.testing.assert_array_equal(fastconv.conv2d(whole.astype(dtype), kernels.astype(dtype), **options), exact)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_not_finite_in_a_long_sum(dtype: str) -> None:
    x = np.random.default_rng(3).random((3, 2, 70, 80)).astype(dtype)
    x[0, 1, 3, 4], x[1, 0, 60, 7], x[1, 1, 5, 5], x[2, 0, 9, 9] = np.inf, -np.inf, np.inf, np.nan
    w = np.ones((2, 2, 70, 80), dtype)
    for groups in (1, 2):
        y = fastconv.conv2d(x, w[:, : 2 // groups], groups=groups)[:, :, 0, 0]
        right = [[np.inf] * 2, [np.nan] * 2, [np.nan] * 2]
        if groups == 2:
            right = [[0, np.inf], [-np.inf, np.inf], [np.nan, 0]]
        assert (np.isnan(y) == np.isnan(right)).all() and (np.isposinf(y) == np.isposinf(right)).all()
        assert (np.isneginf(y) == np.isneginf(right)).all()


def test_the_bound_counts_no_more_terms_than_a_long_sum_has() -> None:
    one = np.ones(1, np.float32)
    assert direct_bound(one, one, 10**9) < 1.1 * direct_bound(one, one, LONG_SUM)
    explained = fastconv.explain_conv2d((1, LONG_SUM + 1, 56, 56), (64, LONG_SUM + 1, 3, 3), padding=1)
    assert explained.algorithm == "direct" and str(LONG_SUM) in explained.reason


# ---- Layers, losses and NumPy's sums --------------------------------------------------------------------------------


def test_statistics_of_a_batch() -> None:
    rng = np.random.default_rng(4)
    layer = L.BatchNormalization(momentum=0.0)
    x = rng.random((2, 600, 500, 3), np.float32)
    layer(x, training=True)
    assert layer.moving_mean is not None and layer.moving_variance is not None
    np.testing.assert_allclose(layer.moving_mean.array, x.mean((0, 1, 2), np.float64), rtol=2e-7)
    np.testing.assert_allclose(layer.moving_variance.array, x.var((0, 1, 2), np.float64), rtol=4e-7)
    layer(tenths((2, 600, 500, 3)), training=True)
    assert off(layer.moving_mean.array, TENTH["float32"]) < 1e-6
    for dtype in ("float32", "float64"):
        x = np.full((600_000, 2), 0.1, dtype)
        dz, total = rows.relu_gradient(x.copy(), x)
        assert off(total, TENTH[dtype] * len(x)) < WITHIN[dtype] and (dz == x).all()
        assert off(rows.channel_sums(x), TENTH[dtype] * len(x)) < WITHIN[dtype]


def test_layers_along_long_axes() -> None:
    tenth = TENTH["float32"]
    net = Sequential([L.Dense(3, kernel_initializer="ones")], input_shape=(300_000,))
    x = np.full((2, 300_000), 0.1, np.float32)
    assert off(net(x), tenth * 300_000) < 1e-6 and off(net.predict(x), tenth * 300_000) < 1e-6
    assert off(softmax(np.zeros((2, 70_000, 3), np.float32), 1), 1 / 70_000) < 1e-6
    wide = L.LocalResponseNormalization(3001, alpha=1.0, k=0.0, beta=1.0)
    assert off(wide(tenths((1, 1, 2, 4000)))[..., 2000], 1 / (tenth * 3001)) < 1e-6
    larger = L.UpSampling2D(100)
    larger.forward(np.zeros((1, 2, 3, 2), np.float32), training=True)
    assert off(larger.backward(tenths((1, 200, 300, 2))), tenth * 10_000) < 1e-6
    value, _ = losses.SparseCategoricalCrossentropy()(np.zeros((3, 100_000), np.float32), np.arange(3))
    assert off(value, np.log(100_000)) < 1e-6


@pytest.mark.parametrize("dtype", TENTH)
def test_sums_and_means_along_any_axes(dtype: str) -> None:
    value = TENTH[dtype]
    for axis in (None, 0, 1, -1, (0, 1), (2, 0), (1, 2)):
        x = np.full((300, 200, 3), 0.1, dtype)
        shape = x.sum(axis).shape
        for array in (x, np.asfortranarray(x), x[::-1, :, ::-1]):
            assert sums.mean(array, axis).dtype == dtype and sums.mean(array, axis).shape == shape
            assert off(sums.mean(array, axis), value) < WITHIN[dtype]
            assert sums.total(array, axis, keepdims=True).shape == x.sum(axis, keepdims=True).shape
            if dtype != "float16":
                assert off(sums.total(array, axis), value * x.size / max(1, prod(shape))) < WITHIN[dtype]
    assert sums.total(np.empty((0, 3), dtype), 0).tolist() == [0, 0, 0]
    assert np.isnan(sums.mean(np.empty((0, 3), dtype), 0)).all()


def test_long_matrix_products() -> None:
    a, b = np.full((2, 1 << 20), 0.1, np.float32), np.full((1 << 20, 8), 0.3, np.float32)
    right = TENTH["float32"] * float(np.float32(0.3)) * len(b)
    for got in (sums.product(a, b), sums.product(a, b[:, 0]), sums.product(a[0], b), sums.product(a[None], b)):
        assert off(got, right) < 5e-5  # of a BLAS's own sums of 4,096
    out = np.empty((2, 8), np.float32)
    assert sums.product(a, b, out) is out and off(out, right) < 5e-5


# ---- ONNX -----------------------------------------------------------------------------------------------------------

REDUCED = {  # of tenths: the value, given how many
    "ReduceMean": lambda n, v: v, "ReduceSum": lambda n, v: v * n, "ReduceSumSquare": lambda n, v: v * v * n,
    "ReduceL1": lambda n, v: v * n, "ReduceL2": lambda n, v: v * np.sqrt(n), "ReduceLogSum": lambda n, v: np.log(v * n),
    "ReduceLogSumExp": lambda n, v: v + np.log(n),
}  # fmt: skip


def _run(kind: str, x: Any, *constants: Any, **attributes: Any) -> Any:
    helper, numpy_helper = pytest.importorskip("onnx.helper"), pytest.importorskip("onnx.numpy_helper")
    from fastconv.onnx import InferenceSession

    names = [f"c{i}" for i in range(len(constants))]
    element = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", *names], ["y"], **attributes)], "g",
        [helper.make_tensor_value_info("x", element, x.shape)], [helper.make_tensor_value_info("y", element, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in zip(names, constants, strict=True)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    return InferenceSession(model).run(None, {"x": np.ascontiguousarray(x)})[0]


@pytest.mark.parametrize("kind", REDUCED)
@pytest.mark.parametrize("shape", [(20, 3, 300, 5), (2, 30_000, 2, 2), (1, 2, 300, 300)], ids=str)
def test_reductions_of_onnx(kind: str, shape: tuple[int, ...]) -> None:
    for axes in ([0], [1], [2, 3], [0, 2, 3], [1, 2]):
        right = REDUCED[kind](prod(shape[axis] for axis in axes), TENTH["float32"])
        assert off(_run(kind, tenths(shape), np.array(axes)), right) < 1e-6


def test_other_sums_of_onnx() -> None:
    tenth, image, volume = TENTH["float32"], tenths((1, 2, 500, 600)), tenths((1, 1, 60, 60, 60))
    for x in (image, volume, tenths((1, 2, 100_000))):
        assert off(_run("GlobalAveragePool", x), tenth) < 1e-6
        assert off(_run("AveragePool", x, kernel_shape=x.shape[2:]), tenth) < 1e-6
        assert off(_run("GlobalLpPool", x, p=1), tenth * prod(x.shape[2:])) < 1e-6
    assert off(_run("LpPool", volume, p=1, kernel_shape=[60, 60, 60]), tenth * 60**3) < 1e-6
    assert off(_run("CumSum", tenths((1, 200_000)), np.array(1))[0, -1], tenth * 200_000) < 1e-6
    ones = np.ones((300_000, 8), np.float32)
    assert off(_run("MatMul", tenths((2, 300_000)), ones), tenth * 300_000) < 5e-5
    assert off(_run("Gemm", tenths((2, 300_000)), ones), tenth * 300_000) < 5e-5
    assert off(_run("Einsum", tenths((2, 300_000)), ones, equation="ij,jk->ik"), tenth * 300_000) < 1e-6
    assert off(_run("Conv", image, np.ones((1, 2, 500, 600), np.float32)), tenth * 600_000) < 1e-6
    for axis in (0, 1, 2):
        shape = tuple(50_000 if i == axis else 2 for i in range(3))
        assert off(_run("Softmax", np.zeros(shape, np.float32), axis=axis), 1 / 50_000) < 1e-6
        assert off(_run("LogSoftmax", np.zeros(shape, np.float32), axis=axis), -np.log(50_000)) < 1e-6
        assert off(_run("LpNormalization", tenths(shape), axis=axis, p=1), 1 / 50_000) < 1e-6
    wide = _run("LRN", tenths((1, 3000, 1, 2)), size=6001, alpha=6001.0, bias=0.0, beta=1.0)
    assert off(wide, 1 / (tenth * 3000)) < 1e-6
    halves = np.random.default_rng(5).permutation(np.repeat(np.float32([-0.9, 1.1]), 150_000)).reshape(1, 2, 300, 500)
    scale, shift = np.ones(2, np.float32), np.zeros(2, np.float32)
    y = _run("InstanceNormalization", halves, scale, shift, epsilon=0.0).astype(np.float64)
    assert np.abs(y.mean((2, 3))).max() < 1e-6 and off(np.square(y).mean((2, 3)), 1) < 1e-6
