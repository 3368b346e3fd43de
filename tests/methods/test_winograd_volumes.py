"""Winograd in volumes: the planes of the kernel are summed as channels are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import grad, reference

SHAPES = [
    # batch, channels, outputs, size, planes of the kernel, stride and padding along the depth, padding mode
    (1, 16, 33, (6, 9, 8), 3, 1, (1, 1), "zeros"),
    (2, 17, 5, (7, 5, 10), 2, 2, (0, 2), "zeros"),
    (2, 3, 70, (4, 10, 6), 3, 1, (2, 0), "reflect"),
    (1, 40, 16, (9, 7, 7), 3, 1, (-1, 1), "zeros"),
    (1, 1, 16, (5, 8, 9), 1, 1, (1, 0), "zeros"),
    (2, 40, 16, (6, 6, 5), 3, 2, (2, 2), "circular"),
    (1, 48, 40, (3, 6, 7), 3, 1, (0, 0), "zeros"),  # gradients of the weight by one plane of the kernel at a time
    (1, 16, 16, (3, 23, 9), 3, 1, (0, 0), "zeros"),  # by all, of a single plane of outputs
]
by_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
by_layout = pytest.mark.parametrize("data_format", ["NCDHW", "NDHWC"])
by_tile = pytest.mark.parametrize("algorithm", ["winograd:4x4", "winograd:2x2"])


def problem(shape: Any, data_format: str) -> tuple[Any, Any, Any, dict[str, Any]]:
    batch, channels, outputs, size, planes, stride, depth, mode = shape
    rng = np.random.default_rng(outputs)
    x, w = rng.standard_normal((batch, channels, *size)), rng.standard_normal((outputs, channels, planes, 3, 3))
    if data_format == "NDHWC":
        x, w = x.transpose(0, 2, 3, 4, 1), w.transpose(2, 3, 4, 1, 0)
    options = {
        "stride": (stride, 1, 1), "padding": (depth, (1, 1), (0, 1)), "padding_mode": mode, "data_format": data_format,
    }  # fmt: skip
    x, w = (np.ascontiguousarray(array, np.float32) for array in (x, w))
    return x, w, rng.standard_normal(outputs).astype(np.float32), options


def exact(function: Any, *arrays: Any, **options: Any) -> Any:
    with np.errstate(all="ignore"):
        return function(*(array.astype(np.float64) for array in arrays), **options)


def near(got: Any, expected: Any) -> None:
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.isfinite(got), finite)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    np.testing.assert_allclose(got[finite], expected[finite], rtol=0, atol=2e-5 * np.abs(expected[finite]).max())


@by_shape
@by_layout
@by_tile
def test_calls_and_plans_are_right_and_alike_on_any_number_of_threads(shape, data_format, algorithm):
    x, w, b, options = problem(shape, data_format)
    expected = exact(reference.conv3d, x, w, b, **options)
    y = fastconv.conv3d(x, w, b, **options, algorithm=algorithm, num_threads=1)
    near(y, expected)
    for threads in (1, 2, 5):
        plan = fastconv.plan_conv3d(x.shape, w, b, **options, algorithm=algorithm, num_threads=threads)
        assert f"{plan.explain().algorithm}:{plan.explain().variant}" == algorithm
        np.testing.assert_array_equal(plan.run(x), y)
        np.testing.assert_array_equal(plan.run(x[-1:]), y[-1:])
        called = fastconv.conv3d(x, w, b, **options, algorithm=algorithm, num_threads=threads)
        np.testing.assert_array_equal(called, y)


@by_shape
@by_layout
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_reaches_its_own_outputs_alone(shape, data_format, value):
    for where in ("x", "w"):
        x, w, b, options = problem(shape, data_format)
        array = x if where == "x" else w
        array.reshape(-1)[array.size // 3] = value
        expected = exact(reference.conv3d, x, w, b, **options)
        near(fastconv.conv3d(x, w, b, **options, algorithm="winograd"), expected)
        near(fastconv.plan_conv3d(x.shape, w, b, **options, algorithm="winograd").run(x), expected)


@by_shape
@by_layout
def test_input_gradients(shape, data_format):
    x, w, _, options = problem(shape, data_format)
    dy = np.random.default_rng(1).standard_normal(fastconv.conv3d(x, w, **options).shape).astype(np.float32)
    if options["stride"] != (1, 1, 1):
        with pytest.raises(fastconv.ConvError, match="has a depth"):
            grad.conv3d_input(x.shape, w, dy, **options, algorithm="winograd")
        return
    expected = exact(lambda w, dy: reference.conv3d_input(x.shape, w, dy, **options), w, dy)
    near(grad.conv3d_input(x.shape, w, dy, **options, algorithm="winograd"), expected)


@by_shape
@by_layout
@by_tile
def test_weight_gradients(shape, data_format, algorithm):
    x, w, _, options = problem(shape, data_format)
    dy = np.random.default_rng(2).standard_normal(fastconv.conv3d(x, w, **options).shape).astype(np.float32)
    if options["padding_mode"] != "zeros":
        with pytest.raises(fastconv.ConvError, match="has a depth"):
            grad.conv3d_weight(x, w.shape, dy, **options, algorithm=algorithm)
        return
    expected = exact(lambda x, dy: reference.conv3d_weight(x, w.shape, dy, **options), x, dy)
    one, two = (
        grad.conv3d_weight(x, w.shape, dy, **options, algorithm=algorithm, num_threads=threads) for threads in (1, 2)
    )
    near(one, expected)
    np.testing.assert_array_equal(one, two)


def test_dilation_is_refused_and_wide_volumes_choose_it():
    x, w = np.zeros((1, 4, 8, 8, 8), np.float32), np.zeros((4, 4, 3, 3, 3), np.float32)
    with pytest.raises(fastconv.ConvError, match=r"dilated by \(2, 1, 1\).*in a volume"):
        fastconv.conv3d(x, w, dilation=(2, 1, 1), algorithm="winograd")
    told = fastconv.explain_conv3d((1, 64, 16, 24, 24), (64, 64, 3, 3, 3), padding=1)
    assert (told.algorithm, told.variant) == ("winograd", "4x4") and told.multiplications * 3 < told.macs
