"""The compiled code against the NumPy reference over thousands of generated problems, and hand-made worst cases.

Integer-valued data must come out exactly equal, whatever the order of the sums. Real-valued data must keep the bound
of direct algorithms, (min(n, 4096) + 2) u S + (n + 2) eta with S = conv(|input|, |weight|) + |bias|, n summed terms.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from settings import COUNT

import fastconv
from fastconv import reference
from fastconv.choice import STRASSEN, WINOGRAD
from fastconv.testing import comparisons
from fastconv.testing.comparisons import (
    Comparison,
    direct_bound,
    line_case,
    plane_maxima,
    plane_scale,
    strassen_bound,
    strassen_case,
    winograd_bound,
    winograd_case,
)
from fastconv.testing.problems import (
    PADDING_MODES,
    ConvCase,
    conv_cases,
    fill,
    pool_cases,
    tiled_cases,
    transposed_cases,
)

CHUNK = 50
CHUNKS = [range(start, min(start + CHUNK, COUNT)) for start in range(0, COUNT, CHUNK)]

STRIDED = [name for name, kind in WINOGRAD.items() if kind.stride == 2]
UNSTRIDED = [name for name, kind in WINOGRAD.items() if kind.stride == 1]
by_tiles = pytest.mark.parametrize("algorithm", UNSTRIDED)
in_chunks = pytest.mark.parametrize("chunk", CHUNKS, ids=[f"{c.start}-{c.stop - 1}" for c in CHUNKS])


def each(cases: Iterable[Any], check: Callable[[Any], None]) -> None:
    """Check every case; a failure or a crash names its case."""
    for case in cases:
        try:
            check(case)
        except AssertionError as error:
            raise AssertionError(f"{case}\n{error}") from None
        except Exception as error:
            raise AssertionError(f"{case}\n{type(error).__name__}: {error}") from error


def assert_equal(what: str, got: np.ndarray, expected: np.ndarray) -> None:
    fault = Comparison(what, got, expected).fault()
    assert fault is None, fault


def assert_within(what: str, got: np.ndarray, expected: np.ndarray, bound: np.ndarray) -> None:
    fault = Comparison(what, got, expected, bound).fault()
    assert fault is None, fault


def agree(cases: Iterable[Any], compare: Callable[..., Iterator[Comparison]], algorithm: str = "direct") -> None:
    """Every comparison of every case is equal, or within its bound."""

    def check(case: Any) -> None:
        for comparison in compare(case, algorithm):
            fault = comparison.fault()
            assert fault is None, fault

    each(cases, check)


# ---- Generated problems ---------------------------------------------------------------------------------------------


@in_chunks
def test_conv2d(chunk):
    agree(conv_cases(len(chunk), chunk.start), comparisons.conv)


@in_chunks
def test_conv2d_gradients(chunk):
    agree(conv_cases(len(chunk), chunk.start), comparisons.conv_backward)


@in_chunks
def test_separate_gradients(chunk):
    """A third of the cases."""
    agree((conv_cases(COUNT)[i] for i in chunk if i % 3 == 0), comparisons.separate_gradients)


@in_chunks
def test_conv_transpose2d(chunk):
    agree(transposed_cases(len(chunk), chunk.start), comparisons.conv_transpose)


@in_chunks
def test_tiled_conv2d(chunk):
    agree(tiled_cases(len(chunk), chunk.start), comparisons.tiled_conv2d)


@in_chunks
def test_max_pool2d(chunk):
    agree(pool_cases(len(chunk), chunk.start), comparisons.max_pool)


@in_chunks
def test_avg_pool2d(chunk):
    agree(pool_cases(len(chunk), chunk.start), comparisons.avg_pool)


def _draws(draw: Callable[..., Any], compare: Callable[..., Iterator[Comparison]]) -> Any:
    return pytest.param(draw, compare, id=compare.__name__)


# Fewer problems, and of three axes half as many as of one: their reference takes longer.
@pytest.mark.parametrize("chunk", CHUNKS[::12], ids=lambda c: f"{c.start}-{c.stop - 1}")
@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize(
    "draw, compare",
    [
        _draws(conv_cases, comparisons.conv),
        _draws(conv_cases, comparisons.conv_backward),
        _draws(conv_cases, comparisons.separate_gradients),
        _draws(transposed_cases, comparisons.conv_transpose),
        _draws(pool_cases, comparisons.max_pool),
        _draws(pool_cases, comparisons.avg_pool),
    ],
)
def test_one_and_three_axes(draw, compare, axes, chunk):
    part = 2 if axes == 3 else 1
    agree(draw(len(chunk) // part, chunk.start // part, axes), compare)


@pytest.mark.parametrize("chunk", CHUNKS[: len(CHUNKS) // 3])
def test_winograd(chunk):
    cases = map(winograd_case, conv_cases(len(chunk), chunk.start))
    agree((case for case in cases if case), comparisons.winograd, "winograd")


@pytest.mark.parametrize("chunk", CHUNKS[::2], ids=str)
def test_winograd_2x2(chunk):
    cases = map(winograd_case, conv_cases(len(chunk), chunk.start))
    agree((case for case in cases if case), comparisons.winograd, "winograd_2x2")


@pytest.mark.parametrize("chunk", CHUNKS[::2], ids=str)
@pytest.mark.parametrize("algorithm", STRIDED)
def test_winograd_at_stride_2(chunk, algorithm):
    cases = map(winograd_case, conv_cases(len(chunk), chunk.start))
    agree((case for case in cases if case), comparisons.winograd_phases, algorithm)


@pytest.mark.parametrize("chunk", CHUNKS[::2], ids=str)
def test_winograd_along_rows(chunk):
    cases = map(line_case, conv_cases(len(chunk), chunk.start))
    agree((case for case in cases if case), comparisons.winograd_rows, "winograd_rows")


@pytest.mark.parametrize("chunk", CHUNKS[::6], ids=str)
@pytest.mark.parametrize("algorithm", STRASSEN)
def test_strassen(chunk, algorithm):
    cases = map(strassen_case, conv_cases(len(chunk), chunk.start))
    agree((case for case in cases if case), comparisons.strassen, algorithm)


def test_a_comparison_finds_what_is_wrong():
    """The judge of all the tests above, on results that are wrong by a known amount."""
    expected = np.array([1.0, 2.0, 4.0, np.nan, np.inf], np.float32)
    bound = np.full(5, 0.5)
    assert Comparison("same", expected.copy(), expected).fault() is None
    assert Comparison("type", expected.astype(float), expected).worst() == np.inf
    assert "shape" in str(Comparison("shape", expected[:4], expected).fault())
    near = expected + np.float32(0.25)
    assert Comparison("near", near, expected, bound).worst() == 0.5
    assert Comparison("near", near, expected, bound).fault() is None
    assert "3 of 5" in str(Comparison("near", near, expected).fault())
    far = expected.copy()
    far[1] += 0.75
    assert Comparison("far", far, expected, bound).worst() == 1.5
    assert "(1,)" in str(Comparison("far", far, expected, bound).fault())
    for value in (np.nan, np.inf):
        far[1] = value
        assert Comparison("special", far, expected, bound).worst() == np.inf


def test_the_cases_reach_every_option():
    convs = conv_cases(3000)
    for kernel in range(1, 8):
        assert any(c.kernel == (kernel, kernel) for c in convs)
    assert sum(c.kernel[0] != c.kernel[1] for c in convs) > 500
    for step in (1, 2, 3):
        for name in ("stride", "dilation"):
            assert sum(step in np.atleast_1d(getattr(c, name)) for c in convs) > 300
    for mode in PADDING_MODES:
        assert sum(c.padding_mode == mode for c in convs) > 200
    for word in ("valid", "same", "same_lower", "full"):
        assert sum(isinstance(c.padding, str) and c.padding.lower() == word for c in convs) > 100
    assert sum(isinstance(c.padding, tuple) and np.min(c.padding) < 0 for c in convs) > 200
    for channels in (7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65):
        assert any(c.in_channels == channels for c in convs) and any(c.out_channels == channels for c in convs)
    for batch in (0, 1, 2, 3, None):
        assert sum(c.batch == batch for c in convs) > 200
    assert {extent for c in convs for extent in c.size} >= set(range(1, 41))
    assert sum(c.groups == c.in_channels > 1 for c in convs) > 200
    assert sum(c.groups > 1 and c.groups != c.in_channels for c in convs) > 200
    for dtype in ("float32", "float64", "float16", "int8", "uint8", "int16", "uint16", "int32", "int64"):
        assert any(c.dtypes[0] == dtype for c in convs)
    assert any(not c.is_float and c.large for c in convs)


# ---- NaN, infinities and zeros --------------------------------------------------------------------------------------

FLOATS = ("float16", "float32", "float64")
SPECIAL_GEOMETRIES: list[dict[str, Any]] = [
    {"padding": 1},
    {"padding": "same", "stride": 2},
    {"padding": 2, "dilation": 2},
    {"padding": ((3, 0), (1, 4)), "stride": (1, 2)},
    {"padding": "full", "groups": 2},
    {"padding": 0},
    {"padding": 2, "padding_mode": "reflect"},
    {"padding": 1, "padding_mode": "circular"},
    {"padding": ((-1, 2), (0, 1)), "padding_mode": "replicate"},
]


SPECIAL_CALLS = [
    pytest.param(options, dtype, algorithm, id=f"{options}-{dtype}-{algorithm}")
    for options in SPECIAL_GEOMETRIES
    for dtype in FLOATS
    for algorithm in ("auto", "direct", *UNSTRIDED)
    if algorithm not in UNSTRIDED or (dtype == "float32" and not {"stride", "dilation", "groups"} & set(options))
]
special_calls = pytest.mark.parametrize("options, dtype, algorithm", SPECIAL_CALLS)


@special_calls
@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("channels", [(4, 6), (34, 18)], ids=str)
def test_a_special_value_reaches_exactly_the_windows_that_hold_it(
    channels, special, options, dtype, data_format, algorithm
):
    rng = np.random.default_rng(0)
    groups = options.get("groups", 1)
    x = fill(rng, (2, channels[0], 9, 8), dtype)
    w = fill(rng, (channels[1], channels[0] // groups, 3, 3), dtype)
    w[w == 0] = 1
    places = [(0, 0, 0, 0), (1, channels[0] - 1, 8, 7), (0, 1, 4, 3)]
    for place in places:
        x[place] = special
    if data_format == "NHWC":
        x, w = x.transpose(0, 2, 3, 1).copy(), w.transpose(2, 3, 1, 0).copy()
    options = {**options, "data_format": data_format}
    held = reference.conv2d((~np.isfinite(x)).astype(int), np.ones(w.shape, int), **options) > 0
    y = fastconv.conv2d(x, w, **options, algorithm=algorithm)
    expected = reference.conv2d(x, w, **options)
    np.testing.assert_array_equal(~np.isfinite(y), held)
    assert_equal("special values", np.where(held, y, 0), np.where(held, expected, 0))

    dy = np.ones_like(y)
    got = fastconv.conv2d_backward(dy, x, w, **options, algorithm=algorithm)
    want = reference.conv2d_backward(dy, x, w, **options)
    assert np.isfinite(got[0]).all()  # the input gradient does not see the input
    np.testing.assert_array_equal(np.isnan(got[1]), np.isnan(want[1]))
    np.testing.assert_array_equal(np.isinf(got[1]), np.isinf(want[1]))


@special_calls
@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("tap", [(0, 0), (1, 1), (2, 2), (0, 1)], ids=str)
def test_a_special_weight_over_padding_contributes_nothing(tap, special, options, dtype, data_format, algorithm):
    rng = np.random.default_rng(0)
    groups = options.get("groups", 1)
    x = fill(rng, (2, 20, 7, 9), dtype)
    x[np.abs(x) < 0.1] = 1
    w = fill(rng, (34, 20 // groups, 3, 3), dtype)
    w[:, :, *tap] = special
    if data_format == "NHWC":
        x, w = x.transpose(0, 2, 3, 1).copy(), w.transpose(2, 3, 1, 0).copy()
    options = {**options, "data_format": data_format}
    y = fastconv.conv2d(x, w, **options, algorithm=algorithm)
    expected = reference.conv2d(x, w, **options)
    for test in (np.isnan, np.isposinf, np.isneginf):
        np.testing.assert_array_equal(test(y), test(expected))
    dy = np.ones_like(y)
    dx = fastconv.conv2d_backward(dy, x, w, **options, output_mask=(True, False, False), algorithm=algorithm)[0]
    dx_ref = reference.conv2d_backward(dy, x, w, **options, output_mask=(True, False, False))[0]
    for test in (np.isnan, np.isposinf, np.isneginf):
        np.testing.assert_array_equal(test(dx), test(dx_ref))


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


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
def test_pooling_keeps_nan_and_infinity(dtype, data_format):
    rng = np.random.default_rng(0)
    x = fill(rng, (2, 9, 8, 3), dtype)
    x[0, 2, 3, 1], x[1, 0, 0, 0], x[1, 7, 7, 2], x[0, 5] = np.nan, np.inf, -np.inf, -np.inf
    options: dict[str, Any] = {"stride": 1, "padding": 1, "data_format": data_format}
    for got, expected in zip(
        fastconv.max_pool2d(x, 3, return_indices=True, **options),
        reference.max_pool2d(x, 3, return_indices=True, **options),
        strict=True,
    ):
        assert_equal("max pool", got, expected)
    mean, expected = fastconv.avg_pool2d(x, 3, **options), reference.avg_pool2d(x, 3, **options)
    for test in (np.isnan, np.isposinf, np.isneginf):
        np.testing.assert_array_equal(test(mean), test(expected))


@pytest.mark.parametrize("activation", [None, "relu", "relu6", "leaky_relu", "silu", "sigmoid", "hardswish"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_activations_keep_nan_and_saturate(activation, dtype):
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e4, -1e4, 3, -3, 6, -6, 0.5, -0.5, 90, -90], dtype)
    x = np.tile(x, 5)[None, None, None]
    got = fastconv.conv2d(x, np.ones((1, 1, 1, 1), dtype), activation=activation)
    expected = reference.conv2d(x, np.ones((1, 1, 1, 1), dtype), activation=activation)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    # Far out, exp() underflows in single precision; such tails may be zero.
    np.testing.assert_allclose(got, expected, rtol=2e-3 if dtype == "float16" else 1e-6, atol=1e-35)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32"])
@pytest.mark.parametrize("stride", [(1, 5), (9, 2), (300, 250)], ids=str)
@pytest.mark.parametrize("with_bias", [False, True])
def test_strides_longer_than_the_kernel_leave_the_bias_between(stride, with_bias, dtype):
    """A transposed convolution has at most one pass a tap: the rows and columns that no tap reaches hold the bias."""
    rng = np.random.default_rng(3)
    x, w, b = (fill(rng, shape, dtype, "integers") for shape in ((2, 5, 3, 4), (5, 7, 3, 2), (7,)))
    bias = b if with_bias else None
    options: dict[str, Any] = {"stride": stride, "dilation": (2, 1), "output_padding": (0, 1)}
    got = fastconv.conv_transpose2d(x, w, bias, **options)
    assert_equal("transposed", got, reference.conv_transpose2d(x, w, bias, **options))


# ---- Larger problems, where blocking, panels and the edges of tiles matter ------------------------------------------

LARGER: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((1, 64, 57, 59), (70, 64, 3, 3), {"padding": 1}),
    ((2, 130, 20, 21), (129, 130, 3, 3), {"padding": 1, "stride": 2}),
    ((1, 300, 14, 14), (257, 300, 1, 1), {}),
    ((1, 96, 15, 40), (96, 1, 5, 5), {"padding": 2, "groups": 96}),
    ((1, 3, 111, 113), (24, 3, 7, 7), {"padding": 3, "stride": 2}),
    ((3, 40, 33, 17), (48, 20, 3, 2), {"padding": "same", "dilation": (2, 3), "groups": 2}),
    ((1, 520, 5, 6), (40, 520, 5, 5), {"padding": 2, "padding_mode": "reflect"}),
    ((1, 2, 9, 700), (3, 2, 1, 31), {"padding": "same"}),
    ((1, 2, 300, 260), (5, 2, 40, 3), {"padding": ((20, 3), (1, 1))}),
    ((1, 1100, 3, 3), (20, 1100, 3, 3), {"padding": 1, "dilation": 1}),
]


@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("x_shape, w_shape, options", LARGER, ids=str)
def test_larger_problems(x_shape, w_shape, options, dtype, data_format):
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, x_shape).astype(dtype)
    w = rng.integers(-3, 4, w_shape).astype(dtype)
    if data_format == "NHWC":
        x, w = x.transpose(0, 2, 3, 1).copy(), w.transpose(2, 3, 1, 0).copy()
    options = {**options, "data_format": data_format}
    y = reference.conv2d(x, w, **options)
    assert_equal("forward", fastconv.conv2d(x, w, **options, algorithm="direct"), y)
    dy = rng.integers(-3, 4, y.shape).astype(dtype)
    expected = reference.conv2d_backward(dy, x, w, **options)
    for what, ours, theirs in zip(
        ("grad_input", "grad_weight", "grad_bias"),
        fastconv.conv2d_backward(dy, x, w, **options, algorithm="direct"),
        expected,
        strict=True,
    ):
        assert_equal(what, ours, theirs)


# ---- Plans ----------------------------------------------------------------------------------------------------------


@in_chunks
def test_plans_do_what_calls_do(chunk):
    """One case in ten: a plan gives the bits of the call."""

    def check(case: ConvCase) -> None:
        x, w, b = case.arrays("integers")
        options = {**case.options(), "activation": case.activation}
        expected = fastconv.conv2d(x, w, b, **options)
        plan = fastconv.plan_conv2d(x.shape, w, b, **options)
        assert_equal("plan", plan.run(x), expected)
        out = np.full_like(expected, 77)
        assert plan.run(x, out=out) is out
        assert_equal("plan out", out, expected)

    cases = (conv_cases(COUNT)[i] for i in chunk if i % 10 == 0)
    each((case for case in cases if case.dtypes[0] == case.dtypes[1]), check)  # a plan takes its weight's type


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
    scale = np.broadcast_to(plane_scale(x, w, False), expected.shape)
    bound = winograd_bound(expected, scale, channels, algorithm=algorithm)
    assert_within(algorithm, fastconv.conv2d(x, w, padding=1, algorithm=algorithm), expected, bound)
    taken = fastconv.explain_conv2d(x.shape, w.shape, padding=1).algorithm
    bound = direct_bound(expected, scale, 9 * channels)
    if taken in WINOGRAD:
        bound = winograd_bound(expected, scale, channels, algorithm=taken)
    assert_within(f"auto ({taken})", fastconv.conv2d(x, w, padding=1), expected, bound)


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
    planes = plane_maxima(dy, False), plane_maxima(x, False), np.zeros(w.shape)
    weight_scale = reference.conv2d_backward(*planes, **options, output_mask=(False, True, False))[1]
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

    def within(what: str, got: np.ndarray, right: np.ndarray, scale: np.ndarray, terms: int) -> None:
        assert_within(what, got, right, winograd_bound(right, scale, terms, algorithm=algorithm))

    options["algorithm"] = algorithm
    own_w, scale = own(w), turned(np.broadcast_to(plane_scale(x, w, False), expected.shape))
    within("forward", fastconv.conv2d(turned(x), own_w, b, **options), turned(expected), scale, 18)
    plan = fastconv.plan_conv2d(turned(x).shape, own_w, b, **options)
    within("plan", plan.run(turned(x)), turned(expected), scale, 18)
    assert plan.explain().algorithm == algorithm
    got = fastconv.conv2d_backward(turned(dy), turned(x), own_w, **options, output_mask=(True, True, False))
    scale = turned(np.broadcast_to(plane_scale(dy, w.swapaxes(0, 1), False), x.shape))
    within("grad_input", got[0], turned(grads[0]), scale, 35)
    within("grad_weight", got[1], own(grads[1]), own(weight_scale), dy.size // 35)
    got = fastconv.conv2d_backward(turned(dy), turned(marked), own_w, **options, output_mask=(False, True, False))[1]
    np.testing.assert_array_equal(np.isnan(got), np.isnan(own(marked_grad)))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(own(marked_grad)))
    got = fastconv.conv2d(turned(marked), own_w, b, **options)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(turned(marked_expected)))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(turned(marked_expected)))


@pytest.mark.parametrize("channels, outputs", [(64, 64), (70, 33), (200, 130)], ids=str)
@pytest.mark.parametrize("size", [(7, 7), (8, 5), (4, 4)], ids=str)
def test_few_winograd_tiles_have_the_bits_of_many(size, channels, outputs):
    """Up to four tiles transform their weights in registers, more of them beforehand."""
    rng = np.random.default_rng(0)
    x, w = fill(rng, (9, *size, channels), "float32"), fill(rng, (3, 3, channels, outputs), "float32")
    options: dict[str, Any] = {"padding": 1, "data_format": "NHWC", "algorithm": "winograd"}
    whole, plan = fastconv.conv2d(x, w, **options), fastconv.plan_conv2d(x.shape, w, **options)
    assert_equal("plan", plan.run(x), whole)
    for images in (slice(0, 1), slice(3, 5), slice(4, 9)):
        assert_equal(f"images {images}", fastconv.conv2d(x[images], w, **options), whole[images])


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
            assert_equal(f"{channels} channels, {images} images", got, expected[:images])


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
    for options in ({"stride": 2}, dilated, {**dilated, "padding_mode": "circular"}):
        with pytest.raises(fastconv.ConvError, match="winograd"):
            fastconv.conv2d(x, w, padding=2, **options, algorithm="winograd")
    with pytest.raises(fastconv.ConvError, match="float64"):
        fastconv.conv2d(x.astype(float), w.astype(float), algorithm="winograd")


# ---- Winograd along rows ---------------------------------------------------------------------------------------------


def test_winograd_along_rows_has_the_same_bits_however_the_work_is_cut():
    rng = np.random.default_rng(1)
    x, w, b = fill(rng, (5, 3, 45, 61), "float32"), fill(rng, (70, 3, 7, 7), "float32"), fill(rng, (70,), "float32")
    for outputs, activation in ((70, None), (64, "relu"), (64, "silu")):
        options = {"stride": 2, "padding": 3, "activation": activation, "algorithm": "winograd_rows"}
        whole = fastconv.plan_conv2d(x.shape, w[:outputs], b[:outputs], **options).run(x)
        for threads in (1, 2, 3, 8):
            plan = fastconv.plan_conv2d(x.shape, w[:outputs], b[:outputs], **options, num_threads=threads)
            for part in (slice(0, 5), slice(0, 1), slice(2, 4)):
                np.testing.assert_array_equal(plan.run(x[part]), whole[part])
        last = fastconv.plan_conv2d(
            (5, 45, 61, 3), w[:outputs].transpose(2, 3, 1, 0), b[:outputs], **options, data_format="NHWC"
        )
        np.testing.assert_array_equal(last.run(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2), whole)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf, 1e38], ids=str)
def test_special_values_along_rows_reach_their_own_outputs_alone(special):
    rng = np.random.default_rng(2)
    x, w = fill(rng, (2, 3, 20, 31), "float32"), np.tanh(fill(rng, (18, 3, 7, 7), "float32"))
    bad = x.copy()
    bad[1, 2, 9, 14] = special
    weight = w.copy()
    weight[5, 1, 0, 6] = special
    for input, kernel in ((bad, w), (x, weight)):
        expected = reference.conv2d(input, kernel, stride=2, padding=3)
        plan = fastconv.plan_conv2d(x.shape, kernel, stride=2, padding=3, algorithm="winograd_rows")
        for y in (plan.run(input), fastconv.conv2d(input, kernel, stride=2, padding=3, algorithm="winograd_rows")):
            for test in (np.isnan, np.isposinf, np.isneginf):
                np.testing.assert_array_equal(test(y), test(expected))


def test_winograd_along_rows_is_for_first_layers():
    def explained(size, channels, outputs, kernel=7, **options):
        w = np.zeros((kernel, kernel, channels, outputs), np.float32)
        options = {"stride": 2, "padding": kernel // 2, "data_format": "NHWC", **options}
        return fastconv.plan_conv2d((1, size, size, channels), w, **options).explain()

    taken = explained(224, 3, 64)
    assert taken.algorithm == "winograd_rows"
    assert taken.multiplications == taken.macs * 13 // 28
    assert taken.packed_weight_bytes == 4 * 64 * 3 * 7 * (7 + 13)
    for other in (explained(224, 5, 64), explained(224, 3, 8), explained(40, 3, 64), explained(224, 3, 64, stride=1)):
        assert other.algorithm == "direct"
    x, w = np.ones((1, 3, 20, 20), np.float32), np.ones((16, 3, 7, 7), np.float32)
    assert fastconv.explain_conv2d(x.shape, w.shape, stride=2, padding=3).algorithm == "direct"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"stride": 1}, "the stride along a row is 1"),
        ({"dilation": (1, 2)}, "not dilated"),
        ({"dilation": (2, 1)}, "dilated"),
        ({"padding": 3, "padding_mode": "reflect"}, "reflect"),
        ({"weight": w[..., :5]}, "7 columns"),
        ({"input": np.ones((1, 6, 20, 20), np.float32), "weight": np.ones((16, 6, 7, 7), np.float32)}, "6 channels"),
        ({"input": x.astype(float), "weight": w.astype(float)}, "float64"),
    ]
    for change, why in wrong:
        with pytest.raises(fastconv.ConvError, match=why):
            fastconv.conv2d(**{"input": x, "weight": w, "stride": 2, "algorithm": "winograd_rows", **change})
    dy = np.ones((1, 16, 7, 7), np.float32)
    with pytest.raises(fastconv.ConvError, match="no input gradient"):
        fastconv.grad.conv2d_input(x.shape, w, dy, stride=2, algorithm="winograd_rows")
    with pytest.raises(fastconv.ConvError, match="no weight gradient"):
        fastconv.grad.conv2d_weight(x, w.shape, dy, stride=2, algorithm="winograd_rows")


# ---- Strassen -------------------------------------------------------------------------------------------------------


def _badly_scaled(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return (np.exp(3 * rng.standard_normal(shape)) * rng.choice([-1, 1], shape)).astype("float32")


@pytest.mark.parametrize("channels, outputs, size", [(64, 256, 9), (512, 512, 14), (2048, 256, 7), (256, 1024, 13)])
@pytest.mark.parametrize("values", ["reals", "constant", "badly scaled"])
@pytest.mark.parametrize("algorithm", STRASSEN)
def test_strassen_of_many_channels(channels, outputs, size, values, algorithm):
    """An odd number of pixels, too: a tile's missing ones."""
    rng = np.random.default_rng(0)
    x, w = fill(rng, (2, size, size, channels), "float32"), fill(rng, (1, 1, channels, outputs), "float32")
    if values == "constant":
        x, w = np.full_like(x, 1.1), np.full_like(w, 1.3)
    elif values == "badly scaled":
        x, w = _badly_scaled(rng, x.shape), _badly_scaled(rng, w.shape)
    plan = fastconv.plan_conv2d(x.shape, w, data_format="NHWC", algorithm=algorithm)
    expected = reference.conv2d(x, w, data_format="NHWC")
    assert_within(algorithm, plan.run(x), expected, strassen_bound(expected, x, w, channels) / 4)


@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
@pytest.mark.parametrize("algorithm", STRASSEN)
def test_strassen_has_the_same_bits_however_the_work_is_cut(data_format, algorithm):
    """Threads, slices of the batch, blocks that end inside an image, layouts: also of what is not written in place."""
    rng = np.random.default_rng(1)
    x, w = fill(rng, (7, 256, 9, 15), "float32"), fill(rng, (512, 256, 1, 1), "float32")
    add = fill(rng, (7, 512, 9, 15), "float32")
    if data_format == "NHWC":
        x, w, add = x.transpose(0, 2, 3, 1).copy(), w.transpose(2, 3, 1, 0).copy(), add.transpose(0, 2, 3, 1).copy()
    for activation in (None, "silu"):
        options = {"data_format": data_format, "activation": activation, "algorithm": algorithm}
        whole = fastconv.plan_conv2d(x.shape, w, **options).run(x, residual=add)
        for threads in (1, 2, 3, 8):
            plan = fastconv.plan_conv2d(x.shape, w, **options, num_threads=threads)
            for part in (slice(0, 7), slice(0, 1), slice(3, 6)):
                np.testing.assert_array_equal(plan.run(x[part], residual=add[part]), whole[part])
            wide = np.zeros((*x.shape[:-1], x.shape[-1] + 3), np.float32)
            wide[..., 1:-2] = x
            np.testing.assert_array_equal(plan.run(wide[..., 1:-2], residual=add), whole)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf, 3e38], ids=str)
@pytest.mark.parametrize("algorithm", STRASSEN)
def test_special_values_reach_their_own_pixel_alone(special, algorithm):
    """3e38 overflows in the sums of blocks; a NaN or infinite weight reaches its own output channel."""
    rng = np.random.default_rng(2)
    x, w = fill(rng, (3, 64, 5, 5), "float32"), np.tanh(fill(rng, (256, 64, 1, 1), "float32"))
    bad = x.copy()
    bad[1, 7, 2, 3] = special
    for input, weight in ((bad, w), (x, np.where(np.arange(64)[:, None, None] == 9, special, w).astype("float32"))):
        plan = fastconv.plan_conv2d(x.shape, weight, algorithm=algorithm)
        expected = reference.conv2d(input, weight)
        for y in (plan.run(input), fastconv.conv2d(input, weight, algorithm=algorithm)):
            for test in (np.isnan, np.isposinf, np.isneginf):
                np.testing.assert_array_equal(test(y), test(expected))
    whole = fastconv.plan_conv2d(x.shape, w, algorithm=algorithm).run(bad)
    clean = fastconv.plan_conv2d(x.shape, w, algorithm=algorithm).run(x)
    np.testing.assert_array_equal(whole[[0, 2]], clean[[0, 2]])


def test_strassen_applies_or_says_why():
    x, w = np.ones((1, 64, 8, 8), np.float32), np.ones((256, 64, 1, 1), np.float32)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"weight": np.ones((256, 64, 3, 3), np.float32)}, "3 x 3"),
        ({"weight": np.ones((256, 32, 1, 1), np.float32), "groups": 2}, "groups is 2"),
        ({"weight": w[:255]}, "255 output channels"),
        ({"input": x[:, :63], "weight": w[:, :63]}, "63 channels"),
        ({"input": x.astype(float), "weight": w.astype(float)}, "float64"),
    ]
    for change, why in wrong:
        with pytest.raises(fastconv.ConvError, match=why):
            fastconv.conv2d(**{"input": x, "weight": w, "algorithm": "strassen_twice", **change})
    with pytest.raises(fastconv.ConvError, match="no weight gradient"):
        fastconv.grad.conv2d_weight(x, w.shape, np.ones((1, 256, 8, 8), np.float32), algorithm="strassen")
    with pytest.raises(fastconv.ConvError, match="repeats pixels"):
        fastconv.grad.conv2d_input(
            (1, 256, 6, 6), np.ones((64, 256, 1, 1), np.float32), x, padding=1, padding_mode="reflect",
            algorithm="strassen",
        )  # fmt: skip


def test_wide_plans_take_strassen_whatever_the_batch():
    for (channels, outputs, size), algorithm in {
        (256, 512, 28): "strassen_twice", (512, 2048, 7): "strassen", (256, 512, 7): "direct", (64, 256, 56): "direct",
        (256, 256, 28): "direct",
    }.items():  # fmt: skip
        w = np.zeros((1, 1, channels, outputs), np.float32)
        for batch in (1, 8):
            plan = fastconv.plan_conv2d((batch, size, size, channels), w, data_format="NHWC").explain()
            assert plan.algorithm == algorithm
            if algorithm != "direct":
                kind = STRASSEN[algorithm]
                tiles = batch * -(-size * size // kind.side)
                assert plan.multiplications == kind.products * tiles * channels * outputs // kind.side**2 < plan.macs
                assert plan.packed_weight_bytes == w.nbytes + w.nbytes * kind.products // kind.side**2
        told = fastconv.explain_conv2d((1, size, size, channels), w.shape, data_format="NHWC")
        assert told.algorithm == "direct", "a call would sum the weights for one image"


def test_smaller_tiles_err_less():
    rng = np.random.default_rng(4)
    x, w = rng.standard_normal((1, 96, 20, 20)), rng.standard_normal((32, 96, 3, 3))
    single = x.astype(np.float32), w.astype(np.float32)
    exact = reference.conv2d(*(array.astype(float) for array in single), padding=1)
    small, large = (
        np.sqrt(np.mean((fastconv.conv2d(*single, padding=1, algorithm=algorithm) - exact) ** 2))
        for algorithm in ("winograd_2x2", "winograd")
    )
    assert small < large / 2


SMALL_MAPS = [((256, 128, 5), True, True), ((64, 80, 4), True, False), ((40, 64, 9), False, True)]


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
        assert (plan.explain().algorithm == "winograd_2x2") == prepared
        assert (told.algorithm == "winograd_2x2") == called
        for chosen in (plan.explain(), told):
            if chosen.algorithm == "winograd_2x2":
                assert chosen.tile == (2, 2)
                tiles = batch * -(-size // 2) * -(-(size + 1) // 2)
                assert chosen.multiplications == 16 * tiles * channels * outputs < chosen.macs
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
    assert_equal(dtype, fastconv.conv2d(x, w, padding=1), reference.conv2d(x, w, padding=1))
