"""A plan's second run does the first one's work on other arrays, with the results of a new plan."""

from __future__ import annotations

import itertools
import sys
import threading
import weakref

import numpy as np
import pytest

import fastconv
from fastconv import reference
from fastconv.errors import ConvError

RNG = np.random.default_rng(5)
KINDS = {  # name: (channels, outputs, size, options)
    "tiny": (8, 8, 8, {"padding": 1}),
    "point": (10, 240, 1, {}),
    "strided": (16, 20, 9, {"stride": 2, "padding": 1}),
    "depthwise": (16, 16, 11, {"padding": 1, "groups": 16}),
    "winograd": (32, 32, 28, {"padding": 1}),
    "five": (32, 32, 20, {"padding": 2}),
    "few": (32, 3, 20, {"padding": 1}),
    "merged": (32, 6, 18, {"padding": 1}),
}
TAPS = {"point": 1, "five": 5}


def made(name, channels_last=True, **more):
    channels, outputs, size, options = KINDS[name]
    taps, groups = TAPS.get(name, 3), options.get("groups", 1)
    weight = RNG.standard_normal((outputs, channels // groups, taps, taps)).astype(np.float32)
    bias = RNG.standard_normal(outputs).astype(np.float32)

    def logical(x):
        return np.moveaxis(x, -1, 1) if channels_last else x

    def expected(x, residual=None):
        y = reference.conv2d(logical(x).astype(float), weight.astype(float), bias.astype(float), **options)
        y = np.moveaxis(y, 1, -1) if channels_last else y
        return y if residual is None else y + residual

    shape = (size, size, channels) if channels_last else (channels, size, size)
    own = weight.transpose(2, 3, 1, 0) if channels_last else weight
    plan = fastconv.plan_conv2d(
        (1, *shape), own, bias, **options, data_format="NHWC" if channels_last else "NCHW", num_threads=2, **more
    )
    return plan, shape, expected


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("name", KINDS)
def test_runs_one_after_the_other(name, channels_last):
    plan, shape, expected = made(name, channels_last)
    for batch, add, given in itertools.product((1, 3, 1), (False, False, True, True), (True, False)):
        x = normal(batch, *shape)
        wanted = expected(x)
        residual = normal(*wanted.shape) if add else None
        out = np.full(wanted.shape, np.nan, np.float32) if given else None
        y = plan.run(x, out=out, residual=residual)
        assert out is None or y is out
        np.testing.assert_allclose(y, wanted if residual is None else wanted + residual, rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", KINDS)
def test_arrays_that_lie_otherwise(name):
    plan, shape, expected = made(name)
    height, width, channels = shape
    wide = normal(1, height, width, 2 * channels)
    bytes_ = np.zeros(normal(1, *shape).nbytes + 1, np.uint8)
    odd = bytes_[1:].view(np.float32).reshape(1, *shape)
    odd[...] = normal(1, *shape)
    frozen = normal(1, *shape)
    frozen.flags.writeable = False
    inputs = [normal(1, *shape), wide[..., ::2], wide[..., :channels], wide[:, ::-1, :, :channels], odd, frozen]
    for x in [*inputs, *inputs[::-1]]:
        wanted = expected(x)
        row = np.zeros((*wanted.shape[:-1], wanted.shape[-1] + 1), np.float32)
        for out in (np.empty(wanted.shape, np.float32), row[..., 1:], np.empty(wanted.shape, np.float32)):
            np.testing.assert_allclose(plan.run(x, out=out), wanted, rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", ["tiny", "winograd", "five", "depthwise"])
def test_what_overlaps_or_is_not_finite(name):
    plan, shape, expected = made(name)
    outputs, size = plan.shape[-1], plan.shape[1]
    x = normal(1, *shape)
    for _ in range(2):
        plan.run(x, out=np.empty(plan.shape, np.float32))
    memory = np.zeros(2 * max(x.size, size * size * outputs), np.float32)
    inside = memory[: x.size].reshape(x.shape)
    inside[...] = x
    wanted = expected(x)
    over = memory[4 : 4 + wanted.size].reshape(wanted.shape)
    np.testing.assert_allclose(plan.run(inside, out=over), wanted, rtol=0, atol=2e-3)
    twice = normal(*wanted.shape)
    expected_twice = wanted + twice
    np.testing.assert_allclose(plan.run(x, out=twice, residual=twice), expected_twice, rtol=0, atol=2e-3)
    bad = x.copy()
    bad[0, 3, 3, 1] = np.nan
    out = np.empty(wanted.shape, np.float32)
    for given in (x, bad, x, bad):
        finite = np.isfinite(expected(given))
        plan.run(given, out=out)
        assert (np.isfinite(out) == finite).all()
        np.testing.assert_allclose(out[finite], expected(given)[finite], rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", [name for name in KINDS if name != "merged"])  # which are several works
def test_the_second_run_is_the_work_of_the_first(name):
    plan, shape, _ = made(name)
    x = normal(2, *shape)
    first, out = plan.run(x), np.empty((2, *plan.shape[1:]), np.float32)
    assert plan._planned.again(x, out)
    np.testing.assert_array_equal(out, first)
    assert not plan._planned.again(x[:1], out[:1])


def test_the_input_as_residual_of_itself():
    plan, shape, expected = made("tiny")
    for x in (normal(1, *shape), normal(1, *shape), normal(1, *shape)):
        other = normal(1, *shape)
        for residual in (x, other, x):
            np.testing.assert_allclose(
                plan.run(x, out=np.empty(x.shape, np.float32), residual=residual), expected(x, residual), atol=1e-4
            )


def test_what_is_refused_is_refused_again():
    plan, shape, _ = made("tiny")
    x, out = normal(1, *shape), np.empty((1, *shape), np.float32)
    plan.run(x, out=out)
    fixed = out.copy()
    fixed.flags.writeable = False
    for _ in range(2):
        for wrong in ({"out": fixed}, {"out": out[:, 1:]}, {"out": out.astype(float)}, {"residual": out[:, 1:]}):
            with pytest.raises((ConvError, TypeError, ValueError)):
                plan.run(x, **wrong)
        with pytest.raises(ConvError):
            plan.run(x[:, 1:], out=out)
        plan.run(x, out=out)


def test_a_plan_keeps_no_array_of_a_run():
    plan, shape, _ = made("tiny")
    for add in (False, True):
        x, out, residual = normal(1, *shape), np.empty((1, *shape), np.float32), normal(1, *shape)
        before = [sys.getrefcount(array) for array in (x, out, residual)]
        for _ in range(3):
            plan.run(x, out=out, residual=residual if add else None)
        assert [sys.getrefcount(array) for array in (x, out, residual)] == before
        gone = weakref.ref(x)
        del x
        assert gone() is None


def test_threads_share_a_plan():
    plan, shape, _ = made("winograd")
    inputs = [normal(1, *shape) for _ in range(4)]
    wanted = [plan.run(x).copy() for x in inputs]
    wrong = []

    def work(number):
        out = np.empty(wanted[number].shape, np.float32)
        for _ in range(60):
            out.fill(np.nan)
            plan.run(inputs[number], out=out)
            if not np.array_equal(out, wanted[number]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


IN_PLACE = [  # channels, outputs, size, taps, options: sums in one part and in several, whole vectors and not
    (64, 64, 9, 1, {}), (40, 37, 9, 1, {}), (3000, 64, 5, 1, {}), (2500, 19, 4, 1, {}), (300, 48, 9, 3, {"padding": 1}),
    (700, 32, 8, 3, {"padding": 4, "dilation": 4}), (48, 6, 20, 3, {"padding": 1}), (32, 32, 28, 3, {"padding": 1}),
    (16, 16, 11, 3, {"padding": 1, "groups": 16}), (64, 96, 12, 3, {"padding": 1, "groups": 2, "stride": 2}),
    (32, 32, 20, 5, {"padding": 2}), (10, 240, 1, 1, {}), (1200, 32, 7, 3, {"padding": 1, "padding_mode": "reflect"}),
]  # fmt: skip


@pytest.mark.parametrize("case", IN_PLACE, ids=str)
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_a_residual_that_is_the_result(case, channels_last, dtype):
    """Has the bits of one that lies elsewhere, whatever the method; with weights that are not finite, too."""
    channels, outputs, size, taps, options = case
    there = 0
    for activation, special in ((None, 0.0), ("relu", 0.0), ("silu", 0.0), ("relu6", np.nan)):
        weight = normal(taps, taps, channels // options.get("groups", 1), outputs).astype(dtype)
        if special:
            weight[0, 0, 0, 0] = special
        own = weight if channels_last else weight.transpose(3, 2, 0, 1)
        shape = (2, size, size, channels) if channels_last else (2, channels, size, size)
        plan = fastconv.plan_conv2d(
            shape, own, normal(outputs).astype(dtype), **options, data_format="NHWC" if channels_last else "NCHW",
            num_threads=2, activation=activation, algorithm="direct" if special else "auto",
        )  # fmt: skip
        there += plan.adds_in_place
        for _ in range(2):
            x = normal(*shape).astype(dtype)
            residual = np.zeros_like(plan.run(x))
            residual[...] = normal(*residual.shape)
            expected = plan.run(x, residual=residual)
            assert plan.run(x, residual, residual=residual) is residual
            np.testing.assert_array_equal(residual, expected)
    assert there or taps > 1 or outputs < 64
