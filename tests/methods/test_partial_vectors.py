"""Outputs that do not fill the vectors of a panel are summed where they will lie; nothing beside them is touched."""

from __future__ import annotations

import numpy as np
import pytest

import fastconv
from fastconv import reference

RNG = np.random.default_rng(3)
GUARD = 7.5


def integers(low, high, *shape):
    return RNG.integers(low, high, shape).astype(np.float32)


@pytest.mark.parametrize("activation", [None, "relu", "relu6", "silu"])
@pytest.mark.parametrize("outputs", [3, 5, 9, 12, 15, 17, 20, 23, 30, 36, 47, 60, 63, 65, 73, 76, 79, 100, 130])
def test_outputs_of_any_number(outputs, activation):
    for channels, size, taps, padding, stride, batch in ((24, 7, 1, 0, 1, 1), (7, 5, 3, 1, 1, 3), (9, 9, 3, 1, 2, 2)):
        x, weight = integers(-4, 5, batch, size, size + 2, channels), integers(-3, 4, taps, taps, channels, outputs)
        bias = integers(-9, 9, outputs)
        first = reference.conv2d(
            np.moveaxis(x, -1, 1), weight.transpose(3, 2, 0, 1), bias, stride, padding, activation=activation
        )
        wanted = np.moveaxis(first, 1, -1)
        how = {"data_format": "NHWC", "activation": activation, "algorithm": "direct"}
        plan = fastconv.plan_conv2d(x.shape, weight, bias, stride, padding, num_threads=2, **how)
        memory = np.full(wanted.size + 128, GUARD, np.float32)
        inside = memory[64:-64].reshape(wanted.shape)
        plan.run(x, out=inside)
        called = fastconv.conv2d(x, weight, bias, stride, padding, **how)
        compare = np.testing.assert_array_equal if activation != "silu" else np.testing.assert_allclose
        compare(inside, wanted, **({} if activation != "silu" else {"rtol": 1e-5, "atol": 1e-5}))
        np.testing.assert_array_equal(inside, called)
        assert (memory[:64] == GUARD).all() and (memory[-64:] == GUARD).all()


@pytest.mark.parametrize("outputs", [9, 20, 60])
def test_all_ways_to_the_same_bits(outputs):
    x, weight = RNG.standard_normal((2, 6, 9, 21)).astype(np.float32), RNG.standard_normal((3, 3, 21, outputs))
    weight, bias = weight.astype(np.float32), RNG.standard_normal(outputs).astype(np.float32)
    plan = fastconv.plan_conv2d(x.shape, weight, bias, 1, 1, data_format="NHWC", algorithm="direct")
    wanted = plan.run(x)
    wide = np.zeros((2, 6, 9, 2 * outputs), np.float32)
    memory = np.zeros(wanted.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(wanted.shape)
    for out in (wide[..., ::2], wide[..., outputs:], memory):
        np.testing.assert_array_equal(plan.run(x, out=out), wanted)
    np.testing.assert_array_equal(plan.run(x, residual=np.zeros_like(wanted)), wanted)
    np.testing.assert_array_equal(np.concatenate([plan.run(x[:1]), plan.run(x[1:])]), wanted)
