"""1x1 convolutions of channels-last arrays with few outputs, a lane a pixel: the bits of many outputs, a lane each."""

from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import reference

CASES = [
    # channels, outputs, groups, images, size
    (16, 1, 1, 2, (9, 9)),
    (40, 2, 1, 1, (30, 31)),  # a part of a vector of channels; several tasks
    (64, 3, 1, 3, (33,)),
    (35, 8, 1, 1, (3, 7, 5)),
    (72, 8, 2, 2, (6, 6)),
    (300, 5, 1, 1, (8, 5)),  # several blocks of the reduction
]
LAYOUTS = {1: "NWC", 2: "NHWC", 3: "NDHWC"}


def _arrays(case: Any, dtype: str) -> tuple[Any, Any, Any]:
    channels, outputs, groups, images, size = case
    rng = np.random.default_rng(channels)
    x = rng.standard_normal((images, *size, channels)).astype(dtype)
    weight = rng.standard_normal((*(1,) * len(size), channels // groups, outputs)).astype(dtype)
    return x, weight, rng.standard_normal(outputs).astype(dtype)


@pytest.mark.parametrize("activation", [None, "relu", "relu6", "silu"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_few_outputs_have_the_bits_of_many(case: Any, dtype: str, activation: str | None) -> None:
    x, weight, bias = _arrays(case, dtype)
    axes, groups = x.ndim - 2, case[2]
    options: dict[str, Any] = {"activation": activation, "groups": groups, "data_format": LAYOUTS[axes]}
    make, call = getattr(fastconv, f"plan_conv{axes}d"), getattr(fastconv, f"conv{axes}d")
    each = case[1] // groups
    group_of = np.arange(40 * groups) // 40 * each + np.arange(40 * groups) % 40 % each
    for shift in (bias, None):
        # as many as fill lanes: the same outputs again and again
        many = call(x, weight[..., group_of], None if shift is None else shift[group_of], **options)
        expected = many[..., [40 * (n // each) + n % each for n in range(case[1])]]
        plan = make(x.shape, weight, shift, **options)
        np.testing.assert_array_equal(plan.run(x), expected)
        np.testing.assert_array_equal(call(x, weight, shift, **options), expected)
        wide = np.full((*x.shape[:-1], x.shape[-1] + 3), np.nan, dtype)  # pixels farther apart, read and written
        wide[..., : x.shape[-1]] = x
        out = np.full((*expected.shape[:-1], case[1] + 2), 7, dtype)
        call(wide[..., : x.shape[-1]], weight, shift, num_threads=3, out=out[..., : case[1]], **options)
        np.testing.assert_array_equal(out[..., : case[1]], expected)
        assert (out[..., case[1] :] == 7).all()


@pytest.mark.parametrize("case", CASES)
def test_whole_numbers_are_exact_and_what_is_not_finite_stays_in_its_place(case: Any) -> None:
    x, weight, bias = (np.round(4 * array) for array in _arrays(case, "float32"))
    axes = x.ndim - 2
    options: dict[str, Any] = {"groups": case[2], "data_format": LAYOUTS[axes]}
    plan = getattr(fastconv, f"plan_conv{axes}d")(x.shape, weight, bias, **options)
    conv = getattr(reference, f"conv{axes}d")
    np.testing.assert_array_equal(plan.run(x), conv(x, weight, bias, **options))
    x[-1, -1, ..., 3], x[0, 1, ..., 0] = np.nan, np.inf
    np.testing.assert_array_equal(plan.run(x), conv(x, weight, bias, **options))


TAPS = [
    # transposed, channels, outputs, images, size, kernel, options
    (True, 40, 3, 2, (20, 33), 4, {"stride": 2, "padding": 1}),  # phases, several bands
    (True, 32, 2, 1, (9, 17), 3, {"stride": 2, "padding": 1, "output_padding": 1}),  # phases of unequal taps
    (True, 20, 1, 2, (17, 20), 9, {"stride": 3, "padding": 3}),  # phases of the same taps, computed together
    (True, 17, 3, 1, (9, 18), 4, {"stride": 2}),  # of more and fewer outputs
    (True, 16, 4, 1, (5, 16), 8, {"stride": 4, "padding": 2}),  # more of them than are computed together
    (False, 36, 1, 1, (40, 19), 3, {"padding": 1}),
    (False, 16, 4, 2, (21, 70), 5, {"padding": 4, "dilation": 2}),
    (False, 17, 2, 1, (18, 18), 2, {}),
]


@pytest.mark.parametrize("activation", [None, "relu6", "tanh"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", TAPS)
def test_few_outputs_of_several_taps_have_the_bits_of_many(case: Any, dtype: str, activation: str | None) -> None:
    transposed, channels, outputs, images, size, kernel, more = case
    rng = np.random.default_rng(channels)
    x = rng.standard_normal((images, channels, *size)).astype(dtype)
    weight = rng.standard_normal((channels, outputs, kernel, kernel)).astype(dtype)
    bias = rng.standard_normal(outputs).astype(dtype)
    options: dict[str, Any] = {"algorithm": "direct", **more}
    if not transposed:
        options["activation"] = activation
    make = fastconv.plan_conv_transpose2d if transposed else fastconv.plan_conv2d

    def laid(array: Any) -> Any:
        return array if transposed else array.swapaxes(0, 1)

    again = np.arange(80) % outputs  # as many as fill lanes
    expected = make(x.shape, laid(weight[:, again]), bias[again], **options).run(x)[:, :outputs]
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    held = np.moveaxis(laid(weight), (0, 1), (-1, -2))
    plan = make(last.shape, held, bias, data_format="NHWC", **options)
    np.testing.assert_array_equal(plan.run(last), np.moveaxis(expected, 1, -1))
    for threads in (1, 3):
        several = make(x.shape, laid(weight), bias, num_threads=threads, **options)
        np.testing.assert_array_equal(several.run(x), expected)
    if activation is None:
        bare = make(x.shape, laid(weight), None, **options).run(x)
        np.testing.assert_allclose(bare + bias[:, None, None], expected, rtol=1e-4, atol=1e-4)
        if dtype == "float32" and fastconv.info()["isa"].startswith("avx512"):
            assert "planes, a lane a pixel" in str(plan.explain())


@pytest.mark.parametrize("case", TAPS[:3])
def test_several_taps_are_exact_and_what_is_not_finite_stays_in_its_place(case: Any) -> None:
    transposed, channels, outputs, images, size, kernel, more = case
    rng = np.random.default_rng(channels)
    x = rng.integers(-8, 9, (images, channels, *size)).astype(np.float32)
    weight = rng.integers(-8, 9, (channels, outputs, kernel, kernel)).astype(np.float32)
    weight = weight if transposed else weight.swapaxes(0, 1)
    name = "conv_transpose2d" if transposed else "conv2d"
    plan, conv = getattr(fastconv, f"plan_{name}"), getattr(reference, name)
    np.testing.assert_array_equal(plan(x.shape, weight, **more).run(x), conv(x, weight, **more))
    x[-1, 3, 0, 2] = np.nan
    np.testing.assert_array_equal(plan(x.shape, weight, **more).run(x), conv(x, weight, **more))
    weight[0, 0, 0, 0] = np.inf
    np.testing.assert_array_equal(plan(x.shape, weight, **more).run(x), conv(x, weight, **more))


def test_it_is_told() -> None:
    x, weight, bias = _arrays(CASES[1], "float32")
    plan = fastconv.plan_conv2d(x.shape, weight, bias, data_format="NHWC")
    assert "a lane a pixel" in str(plan.explain())
    residual = np.ones((*x.shape[:-1], 2), np.float32)
    np.testing.assert_allclose(plan.run(x, residual=residual), plan.run(x) + 1, rtol=1e-5, atol=1e-5)
