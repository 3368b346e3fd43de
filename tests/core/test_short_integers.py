"""Integers of 8 and 16 bits on every instruction set: exact, whatever kernels multiply them.

Where a set has products of pairs, runs of the reduction are whole pairs.
"""

from itertools import product

import numpy as np
import pytest

import fastconv
from fastconv import _native, reference
from fastconv._core import operations
from fastconv._core.types import COMPUTE, Types, product_compute

SHORT = ("int8", "uint8", "int16")
ISAS = fastconv.info()["isas_available"]


def numbers(rng, shape, dtype):
    limits = np.iinfo(dtype)
    x = rng.integers(-300, 300, shape).clip(limits.min, limits.max).astype(dtype)
    x.flat[:: max(1, x.size // 5)] = limits.max if x.size % 2 else limits.min  # both ends of a type
    return x


def expected(x, w, bias, **options):
    """The reference in int64, as float64 for long kernels would not be exact."""
    return reference.conv2d(x.astype(np.int64), w.astype(np.int64), bias, **options)


# channels that leave a pair open or not, a full panel and more, kernels that merge taps, do not, and read in place
SHAPES = [
    ((2, 7, 9, 11), (5, 7, 3, 3), {"padding": 1}),
    ((1, 8, 6, 7), (70, 8, 2, 3), {"padding": 2, "dilation": (2, 1)}),
    ((3, 64, 5, 5), (64, 64, 1, 1), {}),
    ((3, 33, 5, 5), (17, 33, 1, 1), {"stride": 2, "padding": 1}),
    ((1, 18, 8, 9), (66, 9, 3, 3), {"groups": 2, "padding": "same"}),
    ((1, 1, 12, 12), (3, 1, 5, 5), {"padding": 2, "padding_mode": "reflect"}),
    ((2, 3, 3, 3), (4, 3, 7, 7), {"padding": 4}),
]


@pytest.mark.parametrize("types", list(product(SHORT, SHORT)), ids="-".join)
def test_every_shape_is_exact(isa, types):
    rng = np.random.default_rng(3)
    for shape, weight_shape, options in SHAPES:
        x, w = numbers(rng, shape, types[0]), numbers(rng, weight_shape, types[1])
        bias = rng.integers(-1000, 1000, weight_shape[0]).astype(np.int32)
        want = expected(x, w, bias, activation="relu", **options)
        for last in (False, True):
            y = fastconv.conv2d(
                np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if last else x,
                np.ascontiguousarray(w.transpose(2, 3, 1, 0)) if last else w,
                bias, activation="relu", data_format="NHWC" if last else "NCHW", **options,
            )  # fmt: skip
            assert y.dtype == np.int32
            np.testing.assert_array_equal(y.transpose(0, 3, 1, 2) if last else y, want)


def test_gradients_and_transposed_are_exact(isa):
    rng = np.random.default_rng(4)
    for channels, outputs, stride in product((3, 8), (5, 66), (1, 2)):
        x, w = numbers(rng, (2, channels, 7, 8), "int8"), numbers(rng, (outputs, channels, 3, 3), "int8")
        dy = numbers(rng, fastconv.conv2d(x, w, stride=stride, padding=1).shape, "int8")
        ours = fastconv.conv2d_backward(dy, x, w, stride=stride, padding=1)
        wide = [a.astype(np.int64) for a in (dy, x, w)]
        for mine, want in zip(ours, reference.conv2d_backward(*wide, stride=stride, padding=1), strict=True):
            np.testing.assert_array_equal(mine, want)


def small(rng, shape):
    return rng.integers(-20, 21, shape).astype(np.int8)


def test_large_windows_are_gathered(isa):
    """A window of more than four megabytes, of which a block of the reduction is gathered at a time: whole pairs."""
    rng = np.random.default_rng(5)
    x, w = small(rng, (1, 2701, 40, 43)), small(rng, (2, 2701, 40, 40))
    assert fastconv.explain_conv2d(x.shape, w.shape, padding=((1, 0), (0, 0)), dtype="int8").source == "gathered"
    y = fastconv.conv2d(x, w, padding=((1, 0), (0, 0)))
    padded, flat = np.pad(x[0], ((0, 0), (1, 0), (0, 0))), w.reshape(2, -1).astype(np.float64)
    for i, j in np.ndindex(y.shape[2:]):  # exact: below 2**53
        np.testing.assert_array_equal(y[0, :, i, j], flat @ padded[:, i : i + 40, j : j + 40].ravel())


@pytest.mark.parametrize("size", [4, 11])
def test_large_panels_are_packed_before_or_block_by_block(isa, size):
    rng = np.random.default_rng(6)
    x, w = small(rng, (1, 1301, size, size)), small(rng, (9, 1301, 3, 3))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), (2, 3))
    want = np.einsum("ncyxij,ocij->noyx", windows.astype(np.float64), w.astype(np.float64), optimize=True)
    np.testing.assert_array_equal(fastconv.conv2d(x, w, padding=1), want)


def test_pairs_are_used_where_they_are(isa):
    """The register tiles of pairs of int16, which every set has, serve what fits them, and nothing else; those of four
    bytes the sets with an instruction for them."""
    assert _native.computes(_native.COMPUTES["int16"])
    assert _native.computes(_native.COMPUTES["uint8"]) == (isa not in ("baseline", "avx2", "avx512"))
    for x, w in product(("int8", "uint8", "int16", "uint16"), repeat=2):
        types = Types(np.dtype(x), np.dtype(w), np.dtype("int32"))
        fits = "uint16" not in (x, w)
        assert product_compute(types) == (_native.COMPUTES["int16"] if fits else COMPUTE[np.dtype("int32")])


@pytest.mark.parametrize("kind", ["int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_wide_arrays_of_small_values_are_exact(isa, kind, monkeypatch):
    """Values at the ends of what narrower kernels hold, and one beyond: with a residual, groups, in both layouts."""
    monkeypatch.setattr(operations, "NARROWED_CALL", 0)
    rng, limits = np.random.default_rng(5), np.iinfo(kind)
    for end, groups in product((127, 128, 255, 256, 32767, 32768), (1, 2)):
        ends = [v for v in (-end - 1, -end, end - 1, end) if limits.min <= v <= limits.max]
        x = rng.choice(ends, (1, 8, 5, 6)).astype(kind)
        w = rng.choice([-128, -1, 0, 127] if end < 32767 else [-1, 0, 1], (40, 8 // groups, 3, 3)).astype(np.int64)
        wanted = np.int64 if np.dtype(kind).itemsize > 2 else np.int32
        added = rng.integers(-1000, 1000, (1, 40, 5, 6)).astype(wanted)
        y = fastconv.conv2d(x, w.astype(np.int16), padding=1, groups=groups, residual=added, activation="relu")
        want = reference.conv2d(x.astype(np.int64), w, padding=1, groups=groups) + added
        assert y.dtype == wanted
        np.testing.assert_array_equal(y, np.maximum(want, 0))
    last = fastconv.conv2d(x.transpose(0, 2, 3, 1), w.transpose(2, 3, 1, 0), padding=1, groups=2, data_format="NHWC")
    want = reference.conv2d(x.astype(np.int64), w, padding=1, groups=2)
    np.testing.assert_array_equal(last.transpose(0, 3, 1, 2), want)


def test_wide_arrays_whose_sums_need_them_stay_wide(isa, monkeypatch):
    """Each value fits in 16 bits, not the sums in 32."""
    monkeypatch.setattr(operations, "NARROWED_CALL", 0)
    x, w = np.full((1, 64, 4, 4), 32767, np.int64), np.full((32, 64, 1, 1), 32767, np.int64)
    y = fastconv.conv2d(x, w)
    assert y.dtype == np.int64 and (y == 64 * 32767**2).all()
    bias = np.full(32, 2**31 - 1, np.int64)  # nor with the bias
    np.testing.assert_array_equal(fastconv.conv2d(x // 32767, w // 32767, bias), 64 + 2**31 - 1)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("kind", ["int32", "int64"])
def test_transposed_plans_add_the_residual(axes: int, kind: str) -> None:
    rng = np.random.default_rng(axes)
    x, w = (rng.integers(-9, 9, (n, 4 - n % 2, *(k,) * axes)).astype(kind) for n, k in ((2, 5), (4, 3)))
    plan = getattr(fastconv, f"plan_conv_transpose{axes}d")(x.shape, w, stride=2)
    plain = plan.run(x)
    added = rng.integers(-99, 99, plain.shape).astype(kind)
    np.testing.assert_array_equal(plan.run(x, residual=added), plain + added)


def test_what_a_large_bias_residual_or_function_hides_does_not_wrap() -> None:
    """Sums below the least int64: of a bias and a residual near it, and before a function that makes them zeros."""
    x, w, near = np.full((1, 1, 3), -3000), np.full((1, 1, 1), 2), -(2**63) + 1000
    for options in ({"bias": np.array([near])}, {"residual": np.full((1, 1, 3), near)}):
        with pytest.raises(fastconv.ConvError, match="leaves the range"):
            fastconv.conv1d(x, w, **options)
    for function in ("relu", "relu6"):
        with pytest.raises(fastconv.ConvError, match="leaves the range"):
            fastconv.conv1d(np.full((1, 1, 1), -(2**62)), np.full((1, 1, 1), 3), activation=function)


def test_pooled_runs_of_integer_plans_are_refused() -> None:
    plan = fastconv.plan_conv2d((1, 8, 8, 2), np.ones((3, 3, 2, 4), np.int8), padding=1, data_format="NHWC")
    with pytest.raises(fastconv.ConvError, match="run_pooled"):
        plan.run_pooled(np.ones((1, 8, 8, 2), np.int8), np.zeros((1, 4, 4, 4), np.int32))
