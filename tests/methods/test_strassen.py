"""Strassen's product: what is its own. What every method keeps is in test_every_method."""

from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import reference
from fastconv._core.geometry import conv_geometry
from fastconv._core.problem import Direction
from fastconv.testing.comparisons import Comparison
from fastconv.testing.problems import fill
from fastconv.testing.ways import limit, way


def _badly_scaled(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return (np.exp(3 * rng.standard_normal(shape)) * rng.choice([-1, 1], shape)).astype("float32")


@pytest.mark.parametrize("channels, outputs, size", [(64, 256, 9), (512, 512, 14), (2048, 256, 7), (256, 1024, 13)])
@pytest.mark.parametrize("values", ["reals", "constant", "badly scaled"])
@pytest.mark.parametrize("algorithm", ["strassen:once", "strassen:twice"])
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
    g = conv_geometry((2, channels, size, size), (outputs, channels, 1, 1), 1, 0, 1, 1)
    logical = (x.transpose(0, 3, 1, 2), w.transpose(3, 2, 0, 1))
    bound = limit(way(algorithm), Direction.FORWARD, g, expected.transpose(0, 3, 1, 2), *logical)
    fault = Comparison(algorithm, plan.run(x), expected, bound.transpose(0, 2, 3, 1) / 4).fault()
    assert fault is None, fault


@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
@pytest.mark.parametrize("algorithm", ["strassen:once", "strassen:twice"])
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
@pytest.mark.parametrize("algorithm", ["strassen:once", "strassen:twice"])
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
            fastconv.conv2d(**{"input": x, "weight": w, "algorithm": "strassen:twice", **change})
    with pytest.raises(fastconv.ConvError, match="no weight gradient"):
        fastconv.grad.conv2d_weight(x, w.shape, np.ones((1, 256, 8, 8), np.float32), algorithm="strassen")
    with pytest.raises(fastconv.ConvError, match="repeats pixels"):
        fastconv.grad.conv2d_input(
            (1, 256, 6, 6), np.ones((64, 256, 1, 1), np.float32), x, padding=1, padding_mode="reflect",
            algorithm="strassen",
        )  # fmt: skip


def test_wide_plans_take_strassen_whatever_the_batch():
    for (channels, outputs, size), (variant, side, products) in {
        (256, 512, 28): ("twice", 4, 49), (1024, 384, 7): ("once", 2, 7), (256, 512, 3): ("", 1, 1),
        (64, 256, 56): ("", 1, 1), (128, 256, 28): ("", 1, 1),
    }.items():  # fmt: skip
        w = np.zeros((1, 1, channels, outputs), np.float32)
        for batch in (1, 8):
            plan = fastconv.plan_conv2d((batch, size, size, channels), w, data_format="NHWC").explain()
            assert (plan.algorithm, plan.variant) == ("strassen" if variant else "direct", variant)
            if variant:
                tiles = batch * -(-size * size // side)
                assert plan.multiplications == products * tiles * channels * outputs // side**2 < plan.macs
                assert plan.packed_weight_bytes == w.nbytes + w.nbytes * products // side**2
        told = fastconv.explain_conv2d((1, size, size, channels), w.shape, data_format="NHWC")
        assert told.algorithm == "direct", "a call would sum the weights for one image"
