"""Winograd in tiles: what is its own. What every method keeps is in test_every_method."""

from itertools import product
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import reference
from fastconv._core.geometry import conv_geometry
from fastconv._core.problem import Direction, problem
from fastconv._core.select import WAYS
from fastconv._core.types import Types
from fastconv.testing.comparisons import Comparison
from fastconv.testing.problems import fill
from fastconv.testing.ways import limit, way

UNSTRIDED = ["winograd:4x4", "winograd:2x2"]
by_tiles = pytest.mark.parametrize("algorithm", UNSTRIDED)


def within(what: str, got: np.ndarray, expected: np.ndarray, bound: np.ndarray | None = None) -> None:
    fault = Comparison(what, got, expected, bound).fault()
    assert fault is None, fault


def test_these_are_all_without_a_stride():
    """A tile size that is new must be added above."""
    fit, float32 = conv_geometry((1, 64, 9, 9), (64, 64, 3, 3), 1, 1, 1, 1), np.dtype("float32")
    p = problem(fit, Direction.FORWARD, Types(float32, float32, float32))
    own = [w.wish for w in WAYS if w.method.word == "winograd" and w.method.why_not(p, w.variant) is None]
    assert own == UNSTRIDED


@pytest.mark.parametrize("activation", [None, "relu", "relu6", "silu", "sigmoid", "hardswish"])
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf, 4e37], ids=str)
@by_tiles
def test_special_values_in_winograd_tiles_before_an_activation(special, activation, algorithm):
    """An activation may hide what is not finite, yet the tile around it must be right (4e37 overflows inside)."""
    rng = np.random.default_rng(0)
    x, w = fill(rng, (1, 8, 17, 18), "float32"), np.tanh(fill(rng, (9, 8, 3, 3), "float32"))
    x[0, 3, 7, 8] = special
    clean = x.copy()
    clean[0, 3, 7, 8] = 0
    held = np.zeros((17, 18), bool)
    held[6:9, 7:10] = True
    options: dict[str, Any] = {"padding": 1, "activation": activation}
    y = fastconv.conv2d(x, w, **options, algorithm=algorithm)
    expected = reference.conv2d(x, w, **options)
    for test in (np.isnan, np.isposinf, np.isneginf):
        np.testing.assert_array_equal(test(y), test(expected))
    if special != 4e37:  # finite: within the bound, which is as large
        np.testing.assert_allclose(y[..., ~held], reference.conv2d(clean, w, **options)[..., ~held], atol=1e-4)


# ---- Winograd -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("channels, outputs, size", [(64, 64, 56), (33, 70, 45), (1024, 16, 14), (16, 1024, 14)])
@pytest.mark.parametrize("values", ["reals", "constant"])
@by_tiles
def test_winograd_of_many_channels(channels, outputs, size, values, algorithm):
    rng = np.random.default_rng(0)
    x, w = fill(rng, (2, channels, size, size), "float32"), fill(rng, (outputs, channels, 3, 3), "float32")
    if values == "constant":
        x, w = np.full_like(x, 1.1), np.full_like(w, 1.3)
    expected = reference.conv2d(x, w, padding=1)
    g = conv_geometry(x.shape, w.shape, 1, 1, 1, 1)
    told = fastconv.explain_conv2d(x.shape, w.shape, padding=1)
    for asked, own in ((algorithm, algorithm), ("auto", f"{told.algorithm}:{told.variant}".rstrip(":"))):
        got = fastconv.conv2d(x, w, padding=1, algorithm=asked)
        within(f"{asked} ({own})", got, expected, limit(way(own), Direction.FORWARD, g, expected, x, w))


@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dilation", [(2, 2), (1, 3), (3, 2), (5, 40)], ids=str)
@pytest.mark.parametrize("padding", [0, "same", ((5, 1), (0, 6)), ((-2, 3), (1, -1))], ids=str)
@by_tiles
def test_dilated_winograd(dilation, padding, data_format, algorithm):
    """As many plain convolutions as the dilation has phases, forward and gradients, NaN and infinity included."""
    rng = np.random.default_rng(5)
    size = tuple(2 * d + 9 + i for i, d in enumerate(dilation))
    x, w, b = (fill(rng, shape, "float32") for shape in ((2, 18, *size), (35, 18, 3, 3), (35,)))
    options = {"padding": padding, "dilation": dilation}
    expected = reference.conv2d(x, w, b, **options)
    dy = fill(rng, expected.shape, "float32")
    grads = reference.conv2d_backward(dy, x, w, **options, output_mask=(True, True, False))
    g = conv_geometry(x.shape, w.shape, 1, padding, dilation, 1)
    marked = x.copy()
    marked[1, 3, size[0] // 2, 4], marked[0, 17, 1, size[1] - 2] = np.nan, -np.inf
    marked_expected = reference.conv2d(marked, w, b, **options)
    marked_grad = reference.conv2d_backward(dy, marked, w, **options, output_mask=(False, True, False))[1]
    options["data_format"] = data_format
    last = data_format == "NHWC"

    def turned(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array.transpose(0, 2, 3, 1)) if last else array

    def own(weight: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(weight.transpose(2, 3, 1, 0)) if last else weight

    def of(direction: Direction, right: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return limit(way(algorithm), direction, g, right, one, other)

    options["algorithm"] = algorithm
    # (the bias adds its own size to the norm, which is left out)
    own_w, bound = own(w), turned(of(Direction.FORWARD, expected, x, w))
    within("forward", fastconv.conv2d(turned(x), own_w, b, **options), turned(expected), bound)
    plan = fastconv.plan_conv2d(turned(x).shape, own_w, b, **options)
    within("plan", plan.run(turned(x)), turned(expected), bound)
    told = plan.explain()
    assert f"{told.algorithm}:{told.variant}" == algorithm
    got = fastconv.conv2d_backward(turned(dy), turned(x), own_w, **options, output_mask=(True, True, False))
    bound = turned(of(Direction.INPUT_GRADIENT, grads[0], dy, w))
    within("grad_input", got[0], turned(grads[0]), bound)
    bound = own(of(Direction.WEIGHT_GRADIENT, grads[1], x, dy))
    within("grad_weight", got[1], own(grads[1]), bound)
    got = fastconv.conv2d_backward(turned(dy), turned(marked), own_w, **options, output_mask=(False, True, False))[1]
    np.testing.assert_array_equal(np.isnan(got), np.isnan(own(marked_grad)))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(own(marked_grad)))
    got = fastconv.conv2d(turned(marked), own_w, b, **options)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(turned(marked_expected)))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(turned(marked_expected)))


@pytest.mark.parametrize("channels, outputs", [(64, 64), (70, 33), (200, 130)], ids=str)
@pytest.mark.parametrize("size", [(7, 7), (8, 5), (4, 4), (6, 5), (2, 1)], ids=str)
def test_few_winograd_tiles_have_the_bits_of_many(size, channels, outputs):
    """Up to four tiles transform their weights in registers, more of them beforehand."""
    rng = np.random.default_rng(0)
    x, w = fill(rng, (9, *size, channels), "float32"), fill(rng, (3, 3, channels, outputs), "float32")
    options: dict[str, Any] = {"padding": 1, "data_format": "NHWC", "algorithm": "winograd"}
    whole, plan = fastconv.conv2d(x, w, **options), fastconv.plan_conv2d(x.shape, w, **options)
    within("plan", plan.run(x), whole)
    for images in (slice(0, 1), slice(3, 5), slice(4, 9)):
        within(f"images {images}", fastconv.conv2d(x[images], w, **options), whole[images])


@pytest.mark.parametrize("algorithm", ["auto", *UNSTRIDED])
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("size", [(14, 18), (28, 8), (8, 24)], ids=str)
def test_a_plan_that_pools_has_the_bits_of_pooling_its_result(size, activation, algorithm):
    rng = np.random.default_rng(0)
    for channels, special in ((70, 0.0), (9, np.nan), (33, np.inf)):
        x, w = fill(rng, (3, *size, channels), "float32"), fill(rng, (3, 3, channels, 64), "float32")
        x[1, 3, 5, 1], x[2, 0, 0, 0] = special, -0.0
        plan = fastconv.plan_conv2d(
            x.shape, w, fill(rng, (64,), "float32"), padding=1, data_format="NHWC", activation=activation,
            algorithm=algorithm,
        )  # fmt: skip
        if algorithm == "auto" and plan.explain().algorithm == "direct":
            continue
        assert plan.pools
        expected = fastconv.max_pool2d(plan.run(x), 2, data_format="NHWC")
        for images in (3, 1):
            got = plan.run_pooled(x[:images], np.full((images, *expected.shape[1:]), -7, "float32"))
            within(f"{channels} channels, {images} images", got, expected[:images])


def test_pooling_of_other_arrays_than_planned_is_refused():
    x, w = np.ones((2, 16, 16, 64), "float32"), np.ones((3, 3, 64, 64), "float32")
    plan, out = fastconv.plan_conv2d(x.shape, w, padding=1, data_format="NHWC"), np.full((2, 8, 8, 64), 7, "float32")
    for other in (x[:, :8], x[..., :32], x.astype("float64"), x[0], out, "x"):
        with pytest.raises(fastconv.ConvError, match="run_pooled"):
            plan.run_pooled(other, out)
    for other in (out[:1], out[:, ::-1], out.astype("float64"), x, x.ravel()[: out.size].reshape(out.shape), None):
        with pytest.raises(fastconv.ConvError, match="run_pooled"):
            plan.run_pooled(x, other)
    assert (out == 7).all()
    direct = fastconv.plan_conv2d(x.shape, w, padding=1, data_format="NHWC", algorithm="direct")
    with pytest.raises(fastconv.ConvError, match="run_pooled"):
        direct.run_pooled(x, out)


@pytest.mark.parametrize(
    "change",
    [
        {"padding": 0, "size": 9}, {"stride": 2}, {"activation": "silu"}, {"algorithm": "direct"}, {"outputs": 63},
        {"data_format": "NCHW"}, {"dtype": "float64"}, {"weight": np.inf}, {"dilation": 2, "padding": 2},
    ],
    ids=str,
)  # fmt: skip
def test_a_plan_says_whether_it_pools(change):
    size, outputs, last = change.pop("size", 16), change.pop("outputs", 64), "data_format" not in change
    dtype, weight = change.pop("dtype", "float32"), change.pop("weight", 1)
    shape = (1, size, size, 64) if last else (1, 64, size, size)
    w = np.full((3, 3, 64, outputs) if last else (outputs, 64, 3, 3), weight, dtype)
    options = {"padding": 1, "data_format": "NHWC", "activation": "relu", **change}
    plan = fastconv.plan_conv2d(shape, w, **options)
    assert not plan.pools


def test_winograd_applies_or_says_why():
    x, w = np.ones((1, 3, 8, 8), np.float32), np.ones((4, 3, 3, 3), np.float32)
    dilated = {"dilation": 2, "padding_mode": "reflect"}
    for options in ({"stride": 3}, {"stride": (1, 2)}, dilated, {**dilated, "padding_mode": "circular"}):
        with pytest.raises(fastconv.ConvError, match="winograd"):
            fastconv.conv2d(x, w, padding=2, **options, algorithm="winograd")
    with pytest.raises(fastconv.ConvError, match=r"the stride is \(2, 2\), not \(1, 1\)"):
        fastconv.conv2d(x, w, stride=2, algorithm="winograd:4x4")
    with pytest.raises(fastconv.ConvError, match="the stride is"):
        fastconv.grad.conv2d_weight(x, w.shape, np.ones((1, 4, 3, 3), np.float32), stride=2, algorithm="winograd")
    with pytest.raises(fastconv.ConvError, match="float64"):
        fastconv.conv2d(x.astype(float), w.astype(float), algorithm="winograd")


def test_smaller_tiles_err_less():
    rng = np.random.default_rng(4)
    x, w = rng.standard_normal((1, 96, 20, 20)), rng.standard_normal((32, 96, 3, 3))
    single = x.astype(np.float32), w.astype(np.float32)
    exact = reference.conv2d(*(array.astype(float) for array in single), padding=1)
    small, large = (
        np.sqrt(np.mean((fastconv.conv2d(*single, padding=1, algorithm=algorithm) - exact) ** 2))
        for algorithm in UNSTRIDED[::-1]
    )
    assert small < large / 2


@by_tiles
def test_last_tiles_of_every_size(algorithm):
    """One to three rows or columns of a tile have transforms of their own, or go without a part; all sides up to 20."""
    rng = np.random.default_rng(8)
    x, w = fill(rng, (2, 19, 22, 22), "float32"), fill(rng, (23, 19, 3, 3), "float32")
    expected = reference.conv2d(x, w)
    bound = limit(way(algorithm), Direction.FORWARD, conv_geometry(x.shape, w.shape, 1, 0, 1, 1), expected, x, w)
    bound = np.broadcast_to(bound, expected.shape)
    for height, width in product(range(1, 21), repeat=2):
        part, own = np.s_[..., :height, :width], np.ascontiguousarray(x[..., : height + 2, : width + 2])
        got = fastconv.conv2d(own, w, algorithm=algorithm)
        within(f"{height} x {width}", got, expected[part], bound[part])
        within(f"{height} x {width}, an image", fastconv.conv2d(own[1:], w, algorithm=algorithm), got[1:])


def test_last_tiles_err_less():
    rng = np.random.default_rng(4)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((1, 96, 20, 20), (32, 96, 3, 3)))
    for rest in (1, 2):
        part = x[..., : 18 + rest, : 18 + rest]
        exact = reference.conv2d(part.astype(float), w.astype(float))
        squares = (fastconv.conv2d(part, w, algorithm="winograd:4x4") - exact) ** 2
        whole = squares[..., :16, :16].mean()
        assert max(squares[..., 16:, :16].mean(), squares[..., :16, 16:].mean()) < whole / 1.5
        assert squares[..., 16:, 16:].mean() < whole / 3


SMALL_MAPS = [((256, 128, 5), True, False), ((64, 80, 5), True, False), ((40, 64, 9), False, False)]


@pytest.mark.parametrize("shape, prepared, called", SMALL_MAPS, ids=str)
@pytest.mark.parametrize("threads", [1, 2])
def test_small_maps_take_small_tiles_whatever_the_batch(shape, prepared, called, threads):
    """And their images have the bits that they have alone."""
    channels, outputs, size = shape
    rng = np.random.default_rng(2)
    x, w = fill(rng, (5, channels, size, size + 1), "float32"), fill(rng, (outputs, channels, 3, 3), "float32")
    whole = None
    for batch in (5, 1):
        options: dict[str, Any] = {"padding": 1, "num_threads": threads}
        plan = fastconv.plan_conv2d((batch, *x.shape[1:]), w, **options)
        told = fastconv.explain_conv2d((batch, *x.shape[1:]), w.shape, **options)
        assert (plan.explain().variant == "2x2") == prepared
        assert (told.variant == "2x2") == called
        for chosen in (plan.explain(), told):
            if chosen.variant == "2x2":
                assert chosen.algorithm == "winograd"
                assert chosen.tile == (2, 2)
                rows, columns = (4 * (n // 2) + 3 * (n % 2) for n in (size, size + 1))  # products of all tiles
                assert chosen.multiplications == batch * rows * columns * channels * outputs < chosen.macs
        got = plan.run(x[:batch]), fastconv.conv2d(x[:batch], w, **options)
        if whole is not None:
            for alone, together in zip(got, whole, strict=True):
                np.testing.assert_array_equal(alone, together[:batch])
        whole = got


def test_weight_gradients_of_small_maps_take_winograd_where_the_batch_has_tiles_enough():
    rng = np.random.default_rng(6)
    x, dy = (fill(rng, (12, 40, 5, 6), "float32") for _ in range(2))
    for batch, algorithm in ((12, "winograd"), (1, "direct")):
        given = x[:batch], (40, 40, 3, 3), dy[:batch]
        got, forced = (
            fastconv.grad.conv2d_weight(*given, padding=1, algorithm=name) for name in ("auto", algorithm)
        )
        np.testing.assert_array_equal(got, forced)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int8", "int64"])
def test_only_single_precision_is_ever_computed_by_winograd(dtype):
    rng = np.random.default_rng(0)
    x, w = fill(rng, (1, 64, 56, 56), dtype, "integers"), fill(rng, (64, 64, 3, 3), dtype, "integers")
    within(dtype, fastconv.conv2d(x, w, padding=1), reference.conv2d(x, w, padding=1))


# ---- the input gradient at stride 2 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size, padding", [((9, 12), 1), ((8, 17), 1), ((2, 1), 1), ((11, 14), ((1, 0), (3, 2)))])
@pytest.mark.parametrize("algorithm", ["winograd:2x2 at stride 2", "winograd:4x4 at stride 2"])
def test_all_phases_of_an_input_gradient(algorithm: str, size: tuple[int, int], padding: Any) -> None:
    """The same bits in both layouts, whole numbers exactly in small tiles, what is not finite where it belongs."""
    rng = np.random.default_rng(size)
    shape, w = (2, 5, *size), rng.integers(-4, 5, (70, 5, 3, 3)).astype(np.float32)
    options: dict[str, Any] = {"stride": 2, "padding": padding}
    dy = rng.integers(-4, 5, reference.conv2d(np.zeros(shape, np.float32), w, **options).shape).astype(np.float32)
    expected = reference.conv2d_input(shape, w, dy, **options)
    got = fastconv.grad.conv2d_input(shape, w, dy, algorithm=algorithm, **options)
    exact = algorithm.startswith("winograd:2x2")
    np.testing.assert_allclose(got, expected, rtol=0, atol=0 if exact else 1e-2)
    last = fastconv.grad.conv2d_input(
        (2, *size, 5), np.moveaxis(w, (0, 1), (-1, -2)), np.moveaxis(dy, 1, -1), data_format="NHWC", num_threads=3,
        algorithm=algorithm, **options,
    )  # fmt: skip
    np.testing.assert_array_equal(np.moveaxis(last, -1, 1), got)
    for array in (dy, w):
        array[1, 3, -1, 0] = np.inf
        np.testing.assert_allclose(
            fastconv.grad.conv2d_input(shape, w, dy, algorithm=algorithm, **options),
            reference.conv2d_input(shape, w, dy, **options), rtol=0, atol=0 if exact else 1e-2,
        )  # fmt: skip
