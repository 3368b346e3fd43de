"""Depthwise and small groups in volumes: whole or plane by plane, and as right as by any other way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import grad, reference

CASES = [
    # groups, channels and outputs of one, size, kernel, stride, padding, dilation
    (20, 1, 1, (7, 9, 8), (3, 3, 3), (1, 1, 1), 1, (1, 1, 1)),
    (33, 1, 2, (8, 7, 9), (3, 2, 5), (2, 1, 2), ((1, 0), (1, 1), (2, 2)), (1, 1, 1)),
    (16, 2, 2, (9, 6, 5), (2, 3, 3), (1, 2, 1), 1, (3, 1, 1)),
    (8, 3, 1, (5, 5, 5), (5, 1, 3), (2, 2, 2), (2, 0, 1), (1, 1, 1)),
    (40, 1, 1, (4, 6, 6), (4, 3, 3), (3, 1, 1), ((3, 2), (1, 1), (1, 1)), (1, 1, 1)),
]
by_case = pytest.mark.parametrize("case", CASES, ids=str)


def problem(case: Any, dtype: str = "float32", last: bool = False) -> tuple[Any, ...]:
    groups, channels, outputs, size, kernel, stride, padding, dilation = case
    rng = np.random.default_rng(groups)
    x = rng.integers(-4, 5, (2, groups * channels, *size)).astype(dtype)
    w = rng.integers(-4, 5, (groups * outputs, channels, *kernel)).astype(dtype)
    b = rng.integers(-4, 5, groups * outputs).astype(dtype)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    y = reference.conv3d(x, w, **options)
    add, dy = rng.integers(-4, 5, y.shape).astype(y.dtype), rng.integers(-4, 5, y.shape).astype(dtype)
    if last:
        x, add, dy = (np.ascontiguousarray(a.transpose(0, 2, 3, 4, 1)) for a in (x, add, dy))
        w = np.ascontiguousarray(w.transpose(2, 3, 4, 1, 0))
        options["data_format"] = "NDHWC"
    return x, w, b, add, dy, options


@by_case
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int16"])
@pytest.mark.parametrize("last", [False, True])
def test_all_passes_are_exact_on_integers(case, dtype, last):
    x, w, b, add, dy, options = problem(case, dtype, last)
    activation = "relu6" if case[0] % 2 else None
    expected = reference.conv3d(x, w, b, residual=add, activation=activation, **options)
    np.testing.assert_array_equal(fastconv.conv3d(x, w, b, residual=add, activation=activation, **options), expected)
    if dtype != "int16":
        plan = fastconv.plan_conv3d(x.shape, w, b, activation=activation, **options)
        np.testing.assert_array_equal(plan.run(x, residual=add), expected)
        np.testing.assert_array_equal(plan.run(x[1:], residual=add[1:]), expected[1:])
    for got, right in zip(
        fastconv.conv3d_backward(dy, x, w, **options), reference.conv3d_backward(dy, x, w, **options), strict=True
    ):
        np.testing.assert_array_equal(got, right)


@by_case
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_reaches_its_own_outputs_alone(case, value):
    for where in range(2):
        x, w, b, _, dy, options = problem(case)
        (x, w)[where].reshape(-1)[(x, w)[where].size // 2] = value
        with np.errstate(all="ignore"):
            expected = reference.conv3d(x, w, b, **options)
            back = reference.conv3d_input(x.shape, w, dy, **options)
        np.testing.assert_array_equal(fastconv.conv3d(x, w, b, **options), expected)
        np.testing.assert_array_equal(fastconv.plan_conv3d(x.shape, w, b, **options).run(x), expected)
        np.testing.assert_array_equal(grad.conv3d_input(x.shape, w, dy, **options), back)


def test_the_bits_of_a_volume_do_not_depend_on_threads_or_the_batch():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((3, 9, 12, 11, 24), np.float32)
    w = rng.standard_normal((3, 3, 3, 1, 24), np.float32)
    options: dict[str, Any] = {"padding": 1, "groups": 24, "data_format": "NDHWC", "activation": "silu"}
    whole = fastconv.conv3d(x, w, **options, num_threads=1)
    told = fastconv.explain_conv3d(x.shape, w.shape, padding=1, groups=24, data_format="NDHWC")
    assert (told.algorithm, told.variant) == ("direct", "lanes") and 2 * told.macs > told.multiplications
    for threads in (1, 2, 5):
        for part in (slice(0, 3), slice(1, 2)):
            np.testing.assert_array_equal(fastconv.conv3d(x[part], w, **options, num_threads=threads), whole[part])
            plan = fastconv.plan_conv3d(x.shape, w, **options, num_threads=threads)
            np.testing.assert_array_equal(plan.run(x[part]), whole[part])


LAYOUTS = {  # of an array (batch, channel, *size)
    "first": lambda a: a,
    "last": lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1),
    "between": lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, 2)), 2, 1),
    "apart": lambda a: np.repeat(a, 2, -1)[..., ::2],
    "backwards": lambda a: np.ascontiguousarray(a[:, ::-1])[:, ::-1],
}


@pytest.mark.parametrize(
    ("channels", "size", "kernel", "stride", "padding", "dilation"),
    [
        (40, (7, 9, 8), (3, 3, 3), 1, 1, 1),
        (24, (12, 11, 7), (3, 5, 1), (2, 1, 3), (0, 2, 0), (1, 2, 1)),  # at stride 3 a tap of one column
        (19, (7, 14, 150), (5, 3, 3), (1, 2, 2), 2, (2, 1, 1)),  # bands along all axes
        (32, (6, 5, 4), (1, 3, 3), (2, 1, 1), 1, 1),
        (16, (4, 1, 70), (2, 1, 4), 1, 0, (1, 1, 9)),
        (9, (5, 5, 5), (2, 2, 2), (3, 1, 1), 0, 1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_depthwise_volume_has_the_same_bits_in_every_layout(channels, size, kernel, stride, padding, dilation, dtype):
    rng = np.random.default_rng(channels)
    x = rng.standard_normal((2, channels, *size)).astype(dtype)
    w = rng.standard_normal((channels, 1, *kernel)).astype(dtype)
    b = rng.standard_normal(channels).astype(dtype)
    options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": channels}
    y = fastconv.conv3d(x, w, b, **options)
    near = 1e-4 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(y, reference.conv3d(x, w, b, **options), rtol=0, atol=near)
    dy = rng.standard_normal(y.shape).astype(dtype)
    dx = grad.conv3d_input(x.shape, w, dy, **options)
    right = reference.conv3d_input(x.shape, w, dy, **options)
    np.testing.assert_allclose(dx, right, rtol=0, atol=near)
    plan = fastconv.plan_conv3d(x.shape, w, b, **options)
    small = fastconv.plan_conv3d(x.shape, w, b, **options, max_workspace=max(1 << 16, plan.workspace_bytes // 2))
    for lies in LAYOUTS.values():
        for stands in LAYOUTS.values():
            for run in (plan.run, small.run, lambda x, out: fastconv.conv3d(x, w, b, **options, out=out)):
                np.testing.assert_array_equal(run(lies(x), out=stands(np.full_like(y, np.nan))), y)
            out = stands(np.full_like(x, np.nan))
            np.testing.assert_array_equal(grad.conv3d_input(x.shape, w, lies(dy), **options, out=out), dx)
