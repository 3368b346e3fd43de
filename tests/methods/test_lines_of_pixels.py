"""1x1 convolutions of channels-last images take all pixels of an image as one line (drivers/direct.pxi)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastconv

Array = np.ndarray[Any, Any]


def whole(shape: Any, seed: int) -> Array:
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32)


@pytest.mark.parametrize("size", [(7, 7), (3, 5), (1, 9), (14, 14), (3, 4, 5)])
@pytest.mark.parametrize("outputs", [20, 160])
def test_rows_that_follow_each_other_and_rows_apart(size: tuple[int, ...], outputs: int, isa: str) -> None:
    axes, images = len(size), 2
    x, w = whole((images, *size, 40), 0), whole((*(1,) * axes, 40, outputs), 1)
    bias, residual = whole(outputs, 2), whole((images, *size, outputs), 3)
    options: dict[str, Any] = {"data_format": "channels_last", "num_threads": 2}
    sums = np.tensordot(x.astype(np.float64), w.reshape(40, outputs).astype(np.float64), 1) + bias
    wider = (*size[:-1], size[-1] + 2)
    apart = np.zeros((images, *wider, 44), np.float32)[..., : size[-1], :40]
    apart[...] = x
    added = np.zeros((images, *wider, outputs), np.float32)[..., : size[-1], :]
    added[...] = residual
    for activation, meant in ((None, sums), ("relu6", np.clip(sums, 0, 6))):
        plan = getattr(fastconv, f"plan_conv{axes}d")(x.shape, w, bias, activation=activation, **options)
        np.testing.assert_array_equal(plan.run(x), meant)
        np.testing.assert_array_equal(plan.run(apart), meant)
        wide = np.full((images, *wider, outputs), 7, np.float32)
        plan.run(x, out=wide[..., : size[-1], :])
        np.testing.assert_array_equal(wide[..., : size[-1], :], meant)
        assert (wide[..., size[-1] :, :] == 7).all()
    conv = getattr(fastconv, f"conv{axes}d")
    for add in (residual, added):
        np.testing.assert_array_equal(conv(x, w, bias, residual=add, **options), sums + residual)


def test_tiles_of_a_small_image_are_as_equal_as_can_be() -> None:
    """Not four rows of seven and three."""
    x, w = whole((1, 7, 7, 960), 0), whole((1, 1, 960, 160), 1)
    made = fastconv.plan_conv2d(x.shape, w, data_format="channels_last", num_threads=2).explain()
    assert made.tile == (1, 25), made.tile


@pytest.mark.parametrize("size", [(97,), (300,), (2048,), (1, 300), (2, 301), (3, 97)])
@pytest.mark.parametrize("outputs", [48, 64])
def test_threads_share_out_a_line_of_several_taps(size: tuple[int, ...], outputs: int) -> None:
    """Not one tile, which the second thread would wait for; of one panel."""
    x, w = whole((1, *size, 64), 0), whole((*((1,) * (len(size) - 1)), 5, 64, outputs), 1)
    made = getattr(fastconv, f"plan_conv{len(size)}d")(
        x.shape, w, padding=(*((0,) * (len(size) - 1)), 2), data_format="channels_last", num_threads=2,
        algorithm="direct",
    ).explain()  # fmt: skip
    assert np.prod(made.tile) <= 0.55 * np.prod(size), made.tile


def test_idle_lanes_count_for_threads() -> None:
    """752,400 multiply-adds, fewer than two threads are worth, take as long as 1.2 million and more."""
    x, w = whole((1, 120, 418), 0), whole((3, 418, 5), 1)
    options: dict[str, Any] = {"padding": 1, "data_format": "channels_last", "num_threads": 2, "algorithm": "direct"}
    assert fastconv.plan_conv1d(x.shape, w, **options).explain().threads == 2
    assert fastconv.plan_conv1d((1, 30, 418), w, **options).explain().threads == 1
