"""Pointwise convolutions that scale their input while they copy it: the bits of one step after the other."""

from __future__ import annotations

import numpy as np
import pytest

import fastconv
from fastconv._core.methods.method import Before
from fastconv.errors import ConvError

RNG = np.random.default_rng(8)


def made_before(x, before):
    """The steps by themselves, each rounded."""
    y = x * before.scale
    if before.shift is not None:
        y = y + before.shift
    return np.where(y < 0, y.dtype.type(0), y) if before.relu else y


def drawn(*shape, dtype="float32"):
    return RNG.standard_normal(shape).astype(dtype)


def check(x, outputs, before, stride=1, threads=2, residual=False, activation=None):
    batch, *size, channels = x.shape
    weight, bias = drawn(*(1,) * len(size), channels, outputs, dtype=x.dtype), drawn(outputs, dtype=x.dtype)
    make = getattr(fastconv, f"plan_conv{len(size)}d")
    plan = make((1, *size, channels), weight, bias, stride=stride, data_format=["", "NWC", "NHWC", "NDHWC"][len(size)],
                activation=activation, algorithm="direct", num_threads=threads)  # fmt: skip
    assert plan.scales
    add = drawn(batch, *plan.shape[1:], dtype=x.dtype) if residual else None
    wanted = plan.run(np.ascontiguousarray(made_before(x, before)), residual=add)
    given = x.copy()
    got = plan.run_scaled(x, before, np.full_like(wanted, 7), add)
    np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(x, given)
    for image in range(batch):
        one = None if add is None else add[image : image + 1]
        part = plan.run_scaled(x[image : image + 1], before, np.empty_like(wanted[:1]), one)
        np.testing.assert_array_equal(part, wanted[image : image + 1])


@pytest.mark.parametrize("channels", [1, 3, 15, 16, 17, 40, 64, 100, 256, 300])
@pytest.mark.parametrize(
    ("size", "outputs"), [((7, 7), 130), ((13, 20), 33), ((56, 40), 128), ((5,), 64), ((3, 4, 6), 70)]
)
def test_sizes_and_channels(size, outputs, channels):
    for case, (relu, shift) in enumerate([(True, True), (False, True), (True, False), (False, False)]):
        before = Before(drawn(channels), drawn(channels) if shift else None, relu)
        x = drawn(1 + case % 3, *size, channels)
        stride, threads = 1 + case // 2, (2, 1, 3, 2)[case]
        check(x, outputs, before, stride, threads, case > 1, ("relu", None, "silu", "relu6")[case])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_arrays_that_lie_otherwise(dtype):
    before = Before(drawn(24, dtype=dtype), drawn(24, dtype=dtype), True)
    wide = drawn(2, 14, 15, 60, dtype=dtype)
    check(wide[..., 30:54], 96, before)  # part of what is joined
    check(wide[:, 1:-2, 3:, :24], 96, before)  # rows that do not follow each other
    check(wide[:, ::-1, ::2, 5:29], 70, before, stride=2)


def test_nan_infinity_and_zeros_go_on():
    x, before = drawn(1, 6, 9, 20), Before(drawn(20), drawn(20), True)
    x[0, 1, 2, 3], x[0, 3, 4, 5], x[0, 5, 6, 7], x[0, 2, 2, 2] = np.nan, np.inf, -np.inf, -0.0
    before.scale[2], before.shift[2] = -1, 0
    check(x, 80, before)
    check(np.tile(x, (1, 1, 1, 250)), 40, Before(np.tile(before.scale, 250), None, False))  # sums in blocks


def test_who_cannot_says_so():
    x, before = drawn(1, 8, 8, 64), Before(drawn(64), None, False)
    out = np.empty((1, 8, 8, 64), np.float32)
    for weight, options in ((drawn(3, 3, 64, 64), {"padding": 1}), (drawn(1, 1, 64, 64), {"padding": 1}),
                            (drawn(3, 3, 64, 64), {"padding": 1, "algorithm": "winograd"})):  # fmt: skip
        plan = fastconv.plan_conv2d(x.shape, weight, data_format="NHWC", **options)
        assert not plan.scales
        with pytest.raises(ConvError, match="run_scaled takes"):
            plan.run_scaled(x, before, out)
    plan = fastconv.plan_conv2d(x.shape, drawn(1, 1, 64, 64), data_format="NHWC", algorithm="direct")
    with pytest.raises(ConvError, match="run_scaled takes"):
        plan.run_scaled(x[:, 1:], before, out)
    with pytest.raises(ValueError, match="for every channel"):
        plan.run_scaled(x, before._replace(scale=drawn(63)), out)
