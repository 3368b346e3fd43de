"""Winograd along rows: what is its own. What every method keeps is in test_every_method."""

from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import reference
from fastconv.testing.problems import fill


def test_winograd_along_rows_has_the_same_bits_however_the_work_is_cut():
    rng = np.random.default_rng(1)
    x, w, b = fill(rng, (5, 3, 45, 61), "float32"), fill(rng, (70, 3, 7, 7), "float32"), fill(rng, (70,), "float32")
    for outputs, activation in ((70, None), (64, "relu"), (64, "silu")):
        options = {"stride": 2, "padding": 3, "activation": activation, "algorithm": "winograd:rows"}
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
        plan = fastconv.plan_conv2d(x.shape, kernel, stride=2, padding=3, algorithm="winograd:rows")
        for y in (plan.run(input), fastconv.conv2d(input, kernel, stride=2, padding=3, algorithm="winograd:rows")):
            for test in (np.isnan, np.isposinf, np.isneginf):
                np.testing.assert_array_equal(test(y), test(expected))


def test_winograd_along_rows_is_for_first_layers():
    def explained(size, channels, outputs, kernel=7, **options):
        w = np.zeros((kernel, kernel, channels, outputs), np.float32)
        options = {"stride": 2, "padding": kernel // 2, "data_format": "NHWC", **options}
        return fastconv.plan_conv2d((1, size, size, channels), w, **options).explain()

    taken = explained(224, 3, 64)
    assert (taken.algorithm, taken.variant) == ("winograd", "rows")
    assert taken.multiplications == taken.macs * 13 // 28
    assert taken.packed_weight_bytes == 4 * 64 * 3 * 7 * (7 + 13)
    for other in (explained(224, 5, 64), explained(224, 3, 8), explained(40, 3, 64), explained(224, 3, 64, stride=1)):
        assert other.variant != "rows"
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
            fastconv.conv2d(**{"input": x, "weight": w, "stride": 2, "algorithm": "winograd:rows", **change})
    dy = np.ones((1, 16, 7, 7), np.float32)
    with pytest.raises(fastconv.ConvError, match="no input gradient"):
        fastconv.grad.conv2d_input(x.shape, w, dy, stride=2, algorithm="winograd:rows")
    with pytest.raises(fastconv.ConvError, match="no weight gradient"):
        fastconv.grad.conv2d_weight(x, w.shape, dy, stride=2, algorithm="winograd:rows")


