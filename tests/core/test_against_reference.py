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
from fastconv._core.activations import FUSED
from fastconv._core.geometry import conv_geometry
from fastconv._core.problem import Direction, problem
from fastconv._core.select import WAYS
from fastconv._core.types import Types
from fastconv.testing import comparisons
from fastconv.testing.comparisons import Comparison
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
    """As many as a third of the others: each is several convolutions."""
    agree(tiled_cases(-(-len(chunk) // 3), chunk.start), comparisons.tiled_conv2d)


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


def fast_ways(options: dict[str, Any], direction: Direction = Direction.FORWARD) -> list[str]:
    """What to ask for, of the fast ways that take kernels of 3 x 3 in single precision with these options."""
    float32, groups = np.dtype("float32"), options.get("groups", 1)
    named = ("stride", "padding", "dilation", "groups", "padding_mode")
    usual = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "padding_mode": "zeros"}
    g = conv_geometry((2, 36, 9, 8), (36, 36 // groups, 3, 3), *(options.get(name, usual[name]) for name in named))
    p = problem(g, direction, Types(float32, float32, float32))
    return [w.wish for w in WAYS if w.method.word != "direct" and w.method.why_not(p, w.variant) is None]


SPECIAL_CALLS = [
    pytest.param(options, dtype, algorithm, id=f"{options}-{dtype}-{algorithm}")
    for options in SPECIAL_GEOMETRIES
    for dtype in FLOATS
    for algorithm in ("auto", "direct", *(fast_ways(options) if dtype == "float32" else ()))
]
special_calls = pytest.mark.parametrize("options, dtype, algorithm", SPECIAL_CALLS)


def of_gradients(algorithm: str, options: dict[str, Any]) -> str:
    """The same where it has both gradients, as its own choice else."""
    own = [fast_ways(options, d) for d in (Direction.INPUT_GRADIENT, Direction.WEIGHT_GRADIENT)]
    return algorithm if algorithm == "direct" or all(algorithm in ways for ways in own) else "auto"


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
    got = fastconv.conv2d_backward(dy, x, w, **options, algorithm=of_gradients(algorithm, options))
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
    how = {"algorithm": of_gradients(algorithm, options)}
    dx = fastconv.conv2d_backward(dy, x, w, **options, output_mask=(True, False, False), **how)[0]
    dx_ref = reference.conv2d_backward(dy, x, w, **options, output_mask=(True, False, False))[0]
    for test in (np.isnan, np.isposinf, np.isneginf):
        np.testing.assert_array_equal(test(dx), test(dx_ref))


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


@pytest.mark.parametrize("activation", [None, *FUSED])
@pytest.mark.parametrize("dtype", FLOATS)
def test_activations_keep_nan_and_saturate(activation, dtype):
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e4, -1e4, 3, -3, 6, -6, 0.5, -0.5, 90, -90], dtype)
    x = np.tile(x, 5)[None, None, None]
    got = fastconv.conv2d(x, np.ones((1, 1, 1, 1), dtype), activation=activation)
    expected = reference.conv2d(x, np.ones((1, 1, 1, 1), dtype), activation=activation)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    # The tail of GELU is a difference of ones.
    lost = np.abs(np.nan_to_num(x.astype(np.float64))) * 1e-7 if activation == "gelu" else 1e-45
    usual = ~np.isnan(expected) & ~np.isinf(expected)
    error = np.abs(got[usual].astype(np.float64) - expected[usual].astype(np.float64))
    # exp magnifies what its argument was rounded by: of gelu_tanh up to 24 times here, twice a rounding of 6e-8.
    share = 2e-3 if dtype == "float16" else 3e-6 if activation == "gelu_tanh" else 1e-6
    allowed = share * np.abs(expected.astype(np.float64)) + lost
    assert (error <= np.broadcast_to(allowed, usual.shape)[usual]).all()
    np.testing.assert_array_equal(got[~usual], expected[~usual])


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
        plan = fastconv.plan_conv2d(x.shape, w, b, **options)
        told = plan.explain()  # a plan may take what does not pay in a call
        expected = fastconv.conv2d(x, w, b, **options, algorithm=f"{told.algorithm}:{told.variant}".removesuffix(":"))
        assert_equal("plan", plan.run(x), expected)
        out = np.full_like(expected, 77)
        assert plan.run(x, out=out) is out
        assert_equal("plan out", out, expected)

    cases = (conv_cases(COUNT)[i] for i in chunk if i % 10 == 0)
    each((case for case in cases if case.dtypes[0] == case.dtypes[1]), check)  # a plan takes its weight's type


