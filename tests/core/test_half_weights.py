"""`weights_dtype` and `precision` of plans: 16 bits are rounding and memory, not another convolution."""

import pickle
from functools import cache

import numpy as np
import pytest

import fastconv
from fastconv import ConvError, ConvTypeError, _native, reference
from fastconv._core.rounding import to_bfloat16

OPTIONS = [{"weights_dtype": "float16"}, {"weights_dtype": "bfloat16"}, {"precision": "bfloat16"}]
U, TINY = 2.0**-24, 2.0**-126
ON_PLANS = {1: fastconv.plan_conv1d, 2: fastconv.plan_conv2d, 3: fastconv.plan_conv3d}
ON_TRANSPOSED = {2: fastconv.plan_conv_transpose2d, 3: fastconv.plan_conv_transpose3d}


def rounded(array, kind):
    """To the nearest number of so many significant bits, even where two are as near, by exact scaling."""
    x = np.asarray(array, np.float64)
    bits, least = (11, -24) if kind == "float16" else (8, -133)
    _, exponent = np.frexp(x)
    step = np.ldexp(1.0, np.maximum(exponent - bits, least))
    return (np.rint(x / step) * step).astype(np.float32)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# input, weight, options: every method that holds weights, odd channels, ragged panels, long sums, volumes
CASES = [
    ((2, 5, 9, 8), (7, 5, 3, 3), {"padding": 1}),
    ((1, 64, 7, 9), (70, 64, 1, 1), {}),
    ((3, 33, 5, 5), (130, 33, 1, 1), {"stride": 2}),
    ((1, 65, 30, 28), (66, 65, 3, 3), {"padding": 1}),  # Winograd, in slices of channels
    ((1, 160, 7, 7), (96, 160, 3, 3), {"padding": 1}),  # few tiles
    ((1, 64, 31, 30), (64, 64, 3, 3), {"stride": 2, "padding": 1}),
    ((1, 40, 20, 20), (40, 40, 3, 3), {"dilation": 2, "padding": 2}),
    ((2, 33, 12, 10), (33, 1, 3, 3), {"groups": 33, "padding": 1}),  # a lane an output channel
    ((1, 12, 9, 9), (24, 4, 3, 3), {"groups": 3, "padding": "same", "padding_mode": "reflect"}),
    ((1, 300, 9, 9), (5, 300, 5, 5), {"dilation": 2}),  # long sums
    ((1, 3, 50, 51), (32, 3, 7, 7), {"stride": 2, "padding": 3}),  # Winograd along rows
    ((1, 6, 8, 8), (9, 6, 3, 3), {"padding_mode": "constant", "padding_value": 0.3, "padding": 2}),
    ((2, 7, 30), (18, 7, 5), {"padding": 2}),
    ((1, 17, 3, 12, 9), (18, 17, 2, 3, 3), {"padding": 1}),
]


def planned(shape, weight, options, **more):
    return ON_PLANS[len(shape) - 2](shape, weight, **options, **more)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize(("shape", "weight", "options"), CASES)
def test_the_bits_are_those_of_rounded_weights_in_float32(isa, kind, shape, weight, options):
    x, w, bias = normal(1, *shape), normal(2, *weight), normal(3, weight[0])
    held = planned(shape, w, {**options, "bias": bias}, weights_dtype=kind)
    told = held.explain()
    way = f"{told.algorithm}:{told.variant}".strip(":")
    plain = planned(shape, rounded(w, kind), {**options, "bias": bias}, algorithm=way)
    np.testing.assert_array_equal(held.run(x), plain.run(x))
    assert kind in told.weights and told.variant == plain.explain().variant


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("axes", [2, 3])
def test_transposed(isa, kind, axes):
    size = (5, 7, 9)[-axes:]
    w = normal(2, 33, 40, *(3, 2, 3)[-axes:])
    x = normal(1, 2, 33, *size)
    held = ON_TRANSPOSED[axes](x.shape, w, stride=2, weights_dtype=kind)
    plain = ON_TRANSPOSED[axes](x.shape, rounded(w, kind), stride=2)
    np.testing.assert_array_equal(held.run(x), plain.run(x))
    assert held.explain().packed_weight_bytes * 2 <= plain.explain().packed_weight_bytes * 1.2


ODD = ((1, 301, 9, 9), (5, 301, 5, 5), {"dilation": 2})  # pairs of steps are filled up, and with them long sums


@cache
def exact_of_rounded(case):
    """(operands, the exact result of them in bfloat16, the sum of its terms' magnitudes) of a case."""
    shape, weight, options = [*CASES, ODD][case]
    x, w, bias = normal(1, *shape), normal(2, *weight), normal(3, weight[0])
    x.flat[::7] *= np.float32(2.0**-60)
    conv, own = getattr(reference, f"conv{len(shape) - 2}d"), dict(options)
    if "padding_value" in own:
        own["padding_value"] = float(to_bfloat16(np.float32(own["padding_value"])))
    a, b = (rounded(v, "bfloat16").astype(np.float64) for v in (x, w))
    exact = conv(a, b, bias.astype(np.float64), **own)
    return (x, w, bias), exact, conv(abs(a), abs(b), abs(bias).astype(np.float64), **own)


@pytest.mark.parametrize("case", range(len(CASES) + 1))
def test_bfloat16_precision_rounds_operands(isa, case):
    """Within the bound of docs/accuracy.md of the exact result of rounded operands; what is subnormal may be lost."""
    shape, weight, options = [*CASES, ODD][case]
    (x, w, bias), exact, scale = exact_of_rounded(case)
    plan, terms = planned(shape, w, {**options, "bias": bias}, precision="bfloat16"), int(np.prod(weight[1:]))
    if plan.explain().algorithm == "winograd":
        scale = np.broadcast_to(scale.max(tuple(range(2, scale.ndim)), keepdims=True) * 8, scale.shape)
        terms += 32
    got = plan.run(x)
    assert got.dtype == np.float32
    assert (abs(got - exact) <= (terms + 2) * U * scale + terms * 10 * TINY).all()
    product = _native.multiplies_bfloat16() and plan.explain().algorithm == "direct" and plan.explain().variant == ""
    assert "bfloat16" in plan.explain().weights and ("multiplied in it" in plan.explain().weights) == product


@pytest.mark.parametrize("options", OPTIONS)
def test_bits_depend_on_neither_threads_nor_batch_nor_layout(isa, options):
    for _, weight, more in [CASES[1], CASES[3], CASES[9]]:
        x, w = normal(1, 3, weight[1], 12, 11), normal(2, *weight)
        whole = fastconv.plan_conv2d(x.shape, w, **more, **options, num_threads=2).run(x)
        alone = fastconv.plan_conv2d(x[:1].shape, w, **more, **options, num_threads=1)
        np.testing.assert_array_equal(whole, np.concatenate([alone.run(one[None]) for one in x]))
        last = fastconv.plan_conv2d(
            x.transpose(0, 2, 3, 1).shape, w.transpose(2, 3, 1, 0), **more, **options, data_format="NHWC"
        )
        np.testing.assert_array_equal(whole, last.run(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2))


@cache
def touched(shape, weight, options):
    """How many of the two values lie under each window."""
    x = np.zeros(shape)
    x[0, 0, 3, 4] = x[0, 0, 5, 5] = 1
    return reference.conv2d(x, np.ones(weight), **dict(options))


@pytest.mark.parametrize("options", OPTIONS)
def test_what_is_not_finite_reaches_the_outputs_whose_window_holds_it(isa, options):
    for shape, weight, more in [CASES[0], CASES[3], CASES[5], CASES[7]]:
        x, w = normal(1, *shape), normal(2, *weight)
        x[0, 0, 3, 4], x[0, 0, 5, 5] = np.nan, np.inf
        holds = touched(shape, weight, tuple(more.items()))
        got = fastconv.plan_conv2d(shape, w, **more, **options).run(x)
        np.testing.assert_array_equal(np.isfinite(got), holds == 0)
        w[0, 0, 0, 0] = np.inf  # a weight over padding is no term
        x = normal(1, *shape)
        got = fastconv.plan_conv2d(shape, w, **more, **options).run(x)
        assert np.isfinite(got[:, 1:]).all() and np.isinf(got[:, 0]).any()
        assert np.isfinite(got[:, 0, 0]).all() or not more.get("padding")


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_every_number_of_16_bits_is_held_and_widened_exactly(isa, kind):
    """All 65,536, subnormal ones and infinities too, through the packing and the register tile."""
    codes = np.arange(1 << 16, dtype=np.uint16)
    values = (codes.astype(np.uint32) << 16).view(np.float32)
    if kind == "float16":
        values = codes.view(np.float16).astype(np.float32)
    values = values[~np.isnan(values)]
    w = values[: len(values) // 2 * 2].reshape(-1, 2, 1, 1)
    x = np.zeros((1, 2, 1, 2), np.float32)
    x[0, 0, 0, 0] = x[0, 1, 0, 1] = 1
    w_finite = np.where(np.isfinite(w), w, np.float32(1))  # an infinity times zero is NaN
    got = fastconv.plan_conv2d(x.shape, w_finite, weights_dtype=kind).run(x)
    np.testing.assert_array_equal(got[0, :, 0], w_finite[:, :, 0, 0])
    ones = np.ones((1, 2, 1, 1), np.float32)
    got = fastconv.plan_conv2d(ones.shape, w, weights_dtype=kind).run(ones)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(got[0, :, 0, 0], w.sum((1, 2, 3)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("options", OPTIONS)
def test_arrays_of_16_bits(isa, dtype, options):
    kind = np.dtype(dtype) if dtype == "float16" else np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    for shape, weight, more in [CASES[0], CASES[1], CASES[2]]:
        x, w = normal(1, *shape).astype(kind), (normal(2, *weight) / 8).astype(kind)
        got = fastconv.plan_conv2d(shape, w, **more, **options).run(x)
        held = options.get("weights_dtype", "bfloat16")
        a = rounded(x.astype(np.float32), "bfloat16") if "precision" in options else x.astype(np.float32)
        want = reference.conv2d(a.astype(np.float64), rounded(w.astype(np.float32), held).astype(np.float64), **more)
        assert got.dtype == kind
        unit = 2.0 ** (-10 if dtype == "float16" else -7)
        assert (abs(got.astype(np.float64) - want) <= unit * abs(want) + 1e-3).all()


def test_memory():
    w = normal(2, 256, 128, 1, 1)
    plain = fastconv.plan_conv2d((1, 128, 14, 14), w, algorithm="direct").explain().packed_weight_bytes
    for options in OPTIONS:
        plan = fastconv.plan_conv2d((1, 128, 14, 14), w, **options)
        assert plan.explain().packed_weight_bytes * 2 == plain == w.nbytes
        assert sum(one.panels.nbytes for one in plan._packed) == plan.explain().packed_weight_bytes
        ((name, kind),) = options.items()
        assert kind in str(plan.explain()) and f"{name}='{kind}'" in repr(plan)


def test_copies_and_pickles():
    w, x = normal(2, 64, 64, 3, 3), normal(1, 1, 64, 20, 20)
    for options in OPTIONS:
        plan = fastconv.plan_conv2d(x.shape, w, padding=1, **options)
        again = pickle.loads(pickle.dumps(plan))
        np.testing.assert_array_equal(plan.run(x), again.run(x))
        assert repr(again) == repr(plan) and again.explain() == plan.explain()
        np.testing.assert_array_equal(np.isnan(again.run(np.full_like(x, np.nan))), True)


def test_refusals():
    w = normal(2, 8, 4, 3, 3)
    with pytest.raises(ConvError, match=r"weights_dtype must be one of 'float32', 'float16', 'bfloat16', .*int4"):
        fastconv.plan_conv2d((1, 4, 8, 8), w, weights_dtype="int4")
    with pytest.raises(ConvError, match=r"precision must be one of 'float32', 'bfloat16', but .*'float16'"):
        fastconv.plan_conv2d((1, 4, 8, 8), w, precision="float16")
    with pytest.raises(ConvTypeError, match=r"weights_dtype must be one of .*got 3"):
        fastconv.plan_conv2d((1, 4, 8, 8), w, weights_dtype=3)
    with pytest.raises(ConvError, match=r"precision='bfloat16' rounds the weights.*weights_dtype='float16'"):
        fastconv.plan_conv2d((1, 4, 8, 8), w, precision="bfloat16", weights_dtype="float16")
    with pytest.raises(ConvTypeError, match=r"weights_dtype='float16' is for .*float64, and double precision"):
        fastconv.plan_conv2d((1, 4, 8, 8), w.astype(np.float64), weights_dtype="float16")
    with pytest.raises(ConvTypeError, match=r"precision='bfloat16' is for .*int8, and integers are exact"):
        fastconv.plan_conv2d((1, 4, 8, 8), w.astype(np.int8), precision="bfloat16")
    w[3, 1, 2, 0] = 65520
    with pytest.raises(ConvError, match=r"up to 65504, but weight\[3, 1, 2, 0\] is 65520; use .*'bfloat16'"):
        fastconv.plan_conv2d((1, 4, 8, 8), w, weights_dtype="float16")
    w[3, 1, 2, 0] = 65519  # the nearest is the largest
    fastconv.plan_conv2d((1, 4, 8, 8), w, weights_dtype=np.float16)
    with pytest.raises(ConvError, match="cannot round its operands"):
        fastconv.plan_conv2d((1, 4, 8, 8), w, precision="bfloat16", algorithm="fft")
    assert fastconv.plan_conv2d((1, 4, 8, 8), w, precision="float32", weights_dtype="float32").explain().weights == ""
