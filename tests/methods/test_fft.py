"""Fourier transforms: what is their own. What every method keeps is in test_every_method."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import reference
from fastconv._core.geometry import conv_geometry
from fastconv._core.methods import fft, fft_programs
from fastconv._core.problem import Direction
from fastconv._native import WORKSPACE_BYTES
from fastconv.testing.comparisons import Comparison
from fastconv.testing.ways import limit, way

Array = np.ndarray[Any, Any]


def filled(values: str, shape: tuple[int, ...], seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    real = rng.standard_normal(shape)
    return {
        "random": real, "constant": np.full(shape, 1.1), "one sign": np.abs(real),
        "alternating": np.where(np.indices(shape).sum(0) % 2, 1.0, -1.1),
        "badly scaled": np.exp(3 * real) * rng.choice([-1, 1], shape),
    }[values]  # fmt: skip


def within(got: Array, expected: Array, x: Array, w: Array, wish: str, share: float = 1, **options: Any) -> None:
    """Logical arrays; the bound of the way."""
    n = x.ndim - 2
    named = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "padding_mode": "zeros"} | options
    g = conv_geometry(x.shape, w.shape, *named.values())
    assert len(g.output_size) == n
    bound = share * limit(way(wish), Direction.FORWARD, g, expected, x, w)
    fault = Comparison(wish, got, expected, bound).fault()
    assert fault is None, fault


@pytest.mark.parametrize("values", ["random", "constant", "one sign", "alternating", "badly scaled"])
@pytest.mark.parametrize("samples", [16, 24, 36, 64, 128])
def test_fft_errs_by_half_of_its_bound(samples: int, values: str) -> None:
    for channels, side in ((1, 2), (1, samples // 4), (8, 5)):
        x = filled(values, (1, channels, 40, samples + 3)).astype(np.float32)
        w = filled(values, (2, channels, side, side), 1).astype(np.float32)
        got = fastconv.plan_conv2d(x.shape, w, algorithm=f"fft:{samples}").run(x)
        within(got, reference.conv2d(x, w), x, w, f"fft:{samples}", 0.5)


GRID: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 40), (4, 3, 7), {"padding": 3}),
    ((1, 4, 300), (4, 4, 31), {"padding": 15, "stride": 3}),
    ((2, 3, 50, 47), (4, 3, 5, 7), {"padding": 2, "stride": (2, 3), "dilation": (1, 2)}),
    ((2, 4, 50, 47), (4, 1, 5, 7), {"padding": 2, "groups": 4}),
    ((2, 4, 50, 47), (6, 2, 5, 7), {"padding": 2, "groups": 2}),
    ((2, 4, 50, 47), (8, 1, 5, 7), {"padding": 2, "groups": 4}),
    ((1, 4, 30, 27), (4, 4, 5, 1), {"padding": (2, 0), "padding_mode": "reflect"}),
    ((1, 4, 30, 27), (4, 4, 1, 5), {"padding": (0, 2), "padding_mode": "circular"}),
    ((1, 2, 20, 21, 22), (3, 2, 3, 5, 4), {"padding": 2}),
    ((1, 2, 20, 21, 12), (2, 1, 3, 5, 4), {"padding": 2, "groups": 2, "stride": (1, 2, 1)}),
    ((1, 4, 20, 9, 12), (4, 2, 3, 1, 4), {"groups": 2, "padding_mode": "replicate", "padding": (1, 0, 2)}),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape, kernel, options", GRID)
def test_axes_groups_strides_and_modes(
    shape: tuple[int, ...], kernel: tuple[int, ...], options: dict[str, Any], dtype: str
) -> None:
    """Calls and plans, blocks of one tile and of many, either layout, and the input's gradient."""
    n = len(shape) - 2
    x, w = (filled("random", one, i).astype(dtype) for i, one in enumerate((shape, kernel)))
    bias = np.arange(kernel[0], dtype=dtype)
    convolve, twin = getattr(fastconv, f"conv{n}d"), getattr(reference, f"conv{n}d")
    expected = twin(x, w, **options)
    compared = 0
    for variant in ("16", "36", "64"):
        wish = f"fft:{variant}"
        try:
            got = convolve(x, w, **options, algorithm=wish)
            gradient = getattr(fastconv.grad, f"conv{n}d_input")(shape, w, expected, **options, algorithm=wish)
        except fastconv.ConvError as refused:
            assert any(why in str(refused) for why in ("too few outputs", "span more", "bytes")), refused
            continue
        compared += 1
        within(got, expected, x, w, wish, **options)
        add = filled("random", expected.shape, 2).astype(dtype)
        plan = getattr(fastconv, f"plan_conv{n}d")(shape, w, bias, **options, activation="relu", algorithm=wish)
        wanted = np.maximum(expected + bias[(..., *(None,) * n)] + add, 0)
        size = 1e-4 if dtype == "float32" else 1e-12
        np.testing.assert_allclose(plan.run(x, residual=add), wanted, rtol=0, atol=size)
        last = np.moveaxis(x, 1, -1).copy()
        turned = w.transpose(*range(2, n + 2), 1, 0)
        other = convolve(last, turned, **options, algorithm=wish, data_format="channels_last")
        np.testing.assert_array_equal(np.moveaxis(other, -1, 1), got)
        wanted = getattr(reference, f"conv{n}d_input")(shape, w, expected, **options)
        size = np.abs(wanted).max() * (1e-5 if dtype == "float32" else 1e-13)
        np.testing.assert_allclose(gradient, wanted, rtol=0, atol=size)
    assert compared


def test_the_largest_tiles() -> None:
    x, w = filled("random", (1, 1, 150, 130)).astype(np.float32), filled("one sign", (1, 1, 101, 101), 1).astype("f4")
    within(fastconv.conv2d(x, w, padding=50, algorithm="fft:256"), reference.conv2d(x, w, padding=50), x, w, "fft:256",
           padding=50)  # fmt: skip


def test_blocks_threads_and_batches_have_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = filled("random", (3, 6, 50, 41)).astype(np.float32), filled("random", (5, 6, 7, 7), 1).astype(np.float32)
    whole = fastconv.plan_conv2d(x.shape, w, padding=3, algorithm="fft:16", num_threads=1).run(x)
    for block in (1, 1 << 18, 1 << 20):
        monkeypatch.setattr(fft_programs, "BLOCK_BYTES", block)
        fastconv._core.plan._plan.cache_clear()
        for threads in (1, 2, 5):
            plan = fastconv.plan_conv2d(x.shape, w, padding=3, algorithm="fft:16", num_threads=threads)
            np.testing.assert_array_equal(plan.run(x), whole)
            np.testing.assert_array_equal(plan.run(x[1:2]), whole[1:2])
            np.testing.assert_array_equal(plan.run(x[::-1, :, ::-1][::-1, :, ::-1]), whole)
    fastconv._core.plan._plan.cache_clear()


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf, 3e38, 1e25], ids=str)
def test_what_is_not_finite_reaches_its_own_outputs_alone(special: float) -> None:
    x, w = filled("random", (2, 2, 60, 40)).astype(np.float32), filled("random", (3, 2, 5, 5), 1).astype(np.float32)
    bad = x.copy()
    bad[1, 1, 30, 20] = special
    with np.errstate(all="ignore"):
        for data, kernel in ((bad, w), (x, np.where(np.arange(25).reshape(5, 5) == 7, special, w).astype("float32"))):
            # of sums near the largest number the direct kernels' own overflow counts
            direct = special == 3e38
            expected = fastconv.conv2d(data, kernel, algorithm="direct") if direct else reference.conv2d(data, kernel)
            plan = fastconv.plan_conv2d(x.shape, kernel, algorithm="fft:16")
            for y in (plan.run(data), fastconv.conv2d(data, kernel, algorithm="fft:16")):
                for test in (np.isnan, np.isposinf, np.isneginf):
                    np.testing.assert_array_equal(test(y), test(expected))
    clean = fastconv.conv2d(x, w, algorithm="fft:16")
    got = fastconv.conv2d(bad, w, algorithm="fft:16")
    np.testing.assert_array_equal(got[0], clean[0])
    np.testing.assert_array_equal(got[1, :, :24], clean[1, :, :24])
    np.testing.assert_array_equal(got[1, :, 36:], clean[1, :, 36:])


def test_fft_applies_or_says_why() -> None:
    x, w = np.ones((1, 4, 40, 40), np.float32), np.ones((4, 4, 5, 5), np.float32)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"input": x.astype(np.float16), "weight": w.astype(np.float16)}, "float16"),
        ({"input": x.astype(np.int32), "weight": w.astype(np.int32)}, "int32"),
        ({"dilation": 4}, "span more"),
        ({"dilation": 3}, "too few outputs"),
        ({"input": np.ones((1, 256, 40, 40), "f4"), "weight": np.ones((256, 256, 5, 5), "f4")}, "a plan holds it"),
    ]
    for change, why in wrong:
        with pytest.raises(fastconv.ConvError, match=why):
            fastconv.conv2d(**{"input": x, "weight": w, "algorithm": "fft:16", **change})
    with pytest.raises(fastconv.ConvError, match="no weight gradient"):
        fastconv.grad.conv2d_weight(x, w.shape, np.ones((1, 4, 36, 36), np.float32), algorithm="fft")


def test_scratch_is_bounded_for_large_problems() -> None:
    for channels, size, side in ((1, 4000, 31), (64, 224, 9), (256, 28, 7), (512, 28, 5)):
        w = np.broadcast_to(np.float32(0), (channels, channels, side, side))
        g = conv_geometry((4, channels, size, size), w.shape, 1, side // 2, 1, 1)
        for variant in fft.SAMPLES:
            try:
                told = fastconv.explain_conv2d(
                    (4, channels, size, size), w.shape, padding=side // 2, algorithm=f"fft:{variant}"
                )
            except fastconv.ConvError:
                continue
            assert told.workspace_bytes <= WORKSPACE_BYTES and g.output_size == (size, size)
