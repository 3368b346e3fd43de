"""bfloat16 of ml_dtypes is a type to store numbers in: computed in float32, and rounded once to the nearest even."""

import copy
import pickle

import numpy as np
import pytest

import fastconv
from fastconv import _native, grad
from fastconv._core.types import FLOATS, STORAGE

ml_dtypes = pytest.importorskip("ml_dtypes")
BF16 = np.dtype(ml_dtypes.bfloat16)


def rounded(x):
    """float32 to bfloat16 by hand: half of the last kept bit, less what makes a tie even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    up = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), (bits >> 31 << 15 | 0x7FC0).astype(np.uint16), up).view(BF16)


def same(ours, single):
    """The bits of float32 results rounded once; any NaN is as good as another."""
    assert ours.dtype == BF16
    want = rounded(single)
    none = np.isnan(single)
    theirs = np.where(none, np.float32(0), single).astype(BF16)  # ml_dtypes rounds so, too
    bits = (np.where(none, 0, np.ascontiguousarray(one).view(np.uint16)) for one in (ours, want, theirs))
    first, *others = bits
    for other in others:
        np.testing.assert_array_equal(first, other)
    np.testing.assert_array_equal(np.isnan(ours.astype(np.float32)), none)


def numbers(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32).astype(BF16)


CASES = [
    ((2, 5, 9, 8), (7, 5, 3, 3), {"padding": 1}),
    ((1, 64, 7, 7), (70, 64, 1, 1), {}),
    ((1, 64, 8, 8), (64, 64, 3, 3), {"stride": 2, "padding": 1}),
    ((2, 33, 12, 10), (33, 1, 3, 3), {"groups": 33, "padding": 1}),  # a lane an output channel
    ((1, 12, 9, 9), (24, 4, 3, 3), {"groups": 3, "padding": "same", "padding_mode": "reflect"}),
    ((1, 300, 9, 9), (5, 300, 5, 5), {"dilation": 2}),  # long sums
]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("activation", [None, "relu", "silu"])
def test_convolutions_are_float32_rounded_once(isa, last, activation):
    rng = np.random.default_rng(1)
    for shape, weight_shape, options in CASES:
        x, w, bias = numbers(rng, *shape), numbers(rng, *weight_shape), numbers(rng, weight_shape[0])
        if last:
            x, w = (np.ascontiguousarray(a.transpose(axes)) for a, axes in ((x, (0, 2, 3, 1)), (w, (2, 3, 1, 0))))
        options = {**options, "activation": activation, "data_format": "NHWC" if last else "NCHW"}
        wide = [a.astype(np.float32) for a in (x, w, bias)]
        single = fastconv.conv2d(*wide, **options, algorithm="direct")
        same(fastconv.conv2d(x, w, bias, **options), single)
        out = np.empty(single.shape, BF16)
        assert fastconv.conv2d(x, w, bias, **options, out=out) is out
        same(out, single)
        plan = fastconv.plan_conv2d(x.shape, w, bias, **options)
        residual = numbers(rng, *single.shape)
        added = fastconv.plan_conv2d(x.shape, *wide[1:], **options, algorithm="direct").run(
            wide[0], residual=residual.astype(np.float32)
        )
        for one in (plan, copy.deepcopy(plan), pickle.loads(pickle.dumps(plan))):
            same(one.run(x), single)
            same(one.run(x, residual=residual), added)


def test_gradients_and_the_transposed_convolution(isa):
    rng = np.random.default_rng(2)
    for shape, weight_shape, options in CASES:
        x, w = numbers(rng, *shape), numbers(rng, *weight_shape)
        dy = numbers(rng, *fastconv.conv2d(x, w, **options).shape)
        wide = [a.astype(np.float32) for a in (dy, x, w)]
        singles = fastconv.conv2d_backward(*wide, **options, algorithm="direct")
        for ours, single in zip(fastconv.conv2d_backward(dy, x, w, **options), singles, strict=True):
            same(ours, single)
        if "padding_mode" not in options and options.get("padding") != "same":
            same(
                fastconv.conv_transpose2d(dy, w, **options),
                fastconv.conv_transpose2d(wide[0], wide[2], **options, algorithm="direct"),
            )


def test_pooling(isa):
    rng = np.random.default_rng(3)
    x = numbers(rng, 2, 5, 9, 8)
    wide = x.astype(np.float32)
    same(fastconv.max_pool2d(x, 3, 2), fastconv.max_pool2d(wide, 3, 2))
    same(fastconv.avg_pool2d(x, 3, 2, 1), fastconv.avg_pool2d(wide, 3, 2, 1))
    dy = numbers(rng, *fastconv.max_pool2d(x, 2).shape)
    wide_dy = dy.astype(np.float32)
    same(grad.max_pool2d_input(x, 2, dy), grad.max_pool2d_input(wide, 2, wide_dy))
    same(grad.avg_pool2d_input(x.shape, 2, dy), grad.avg_pool2d_input(x.shape, 2, wide_dy))


def test_every_number_is_read_and_written_as_it_is(isa):
    """All 65,536, by a convolution with a kernel of 1, and what lies between two of them to the nearest even."""
    every = np.arange(1 << 16, dtype=np.uint16).view(BF16).reshape(1, 1, 256, 256)
    one = np.ones((1, 1, 1, 1), BF16)
    with np.errstate(all="ignore"):
        same(fastconv.conv2d(every, one), every.astype(np.float32) + 0)  # a sum begins at 0: no -0
    # a tie that goes down, one that goes up, one that is none, beyond the largest, the smallest, infinity less itself
    pairs = [(1, 2**-8), (1 + 2**-7, 2**-8), (1, 2**-8 + 2**-15), (3.3895e38, 3.3895e38), (2**-133, 2**-133)]
    pairs.append((np.inf, -np.inf))
    x = np.array(pairs, np.float32).T.astype(BF16).reshape(1, 2, 1, -1)
    with np.errstate(all="ignore"):
        single = x[:, :1].astype(np.float32) + x[:, 1:].astype(np.float32)
        same(fastconv.conv2d(x, np.ones((1, 2, 1, 1), BF16)), single)


def test_other_types_beside_it_are_refused():
    x, w = np.ones((1, 1, 4, 4), BF16), np.ones((1, 1, 2, 2), BF16)
    for other in ("float16", "float32", "int8"):
        with pytest.raises(fastconv.ConvTypeError, match="bfloat16"):
            fastconv.conv2d(x, w.astype(np.float32).astype(other))
    with pytest.raises(fastconv.ConvTypeError, match="float8"):
        fastconv.conv2d(x.astype(ml_dtypes.float8_e4m3), w)


def test_a_record_of_that_name_is_no_number():
    class bfloat16(np.void):
        pass

    named = np.dtype((bfloat16, [("bits", np.uint16)]))
    with pytest.raises(fastconv.ConvTypeError):
        fastconv.conv2d(np.zeros((1, 1, 2, 2), named), np.zeros((1, 1, 1, 1), named))


def test_the_table_knows_it_from_the_first_array_on():
    fastconv.conv2d(np.ones((1, 1, 1, 1), BF16), np.ones((1, 1, 1, 1), BF16))
    assert BF16 in FLOATS and STORAGE[BF16] == _native.DTYPES["bfloat16"]
