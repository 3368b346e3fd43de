"""`scipy.signal`'s convolutions of arrays with any number of axes, and kernels that are products: SciPy's values."""

from __future__ import annotations

import sys
from inspect import signature
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fastconv import ConvError
from fastconv.scipy import convolve2d, ndimage, signal
from fastconv.scipy.separable import factors
from fastconv.scipy.transforms import _round
from fastconv.scipy.transforms import convolved as transformed

scipy = pytest.importorskip("scipy.signal")
filters = pytest.importorskip("scipy.ndimage")

NAMES = ("convolve", "correlate", "fftconvolve", "oaconvolve")
DTYPES = ("float64", "float32", "int32", "int64", "uint8", "complex64", "complex128")


def values(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Any:
    kind = np.dtype(dtype).kind
    made = rng.integers(0, 4, shape) if kind in "ui" else rng.standard_normal(shape)
    return (made + 1j * rng.standard_normal(shape) if kind == "c" else made).astype(dtype)


def alike(got: Any, wanted: Any, *inputs: Any) -> None:
    """As near as the narrowest of the inputs' types."""
    assert got.dtype == wanted.dtype and got.shape == wanted.shape
    if wanted.dtype.kind in "biu":
        assert_array_equal(got, wanted)
    elif wanted.size:
        narrow = any(a.dtype in (np.float16, np.float32, np.complex64) for a in (wanted, *inputs))
        error = 2e-6 if narrow else 1e-12
        np.testing.assert_allclose(got, wanted, rtol=error, atol=error * max(1e-300, float(np.abs(wanted).max())))


def both(name: str, *arguments: Any, **options: Any) -> None:
    """Alike, or both refuse."""
    try:
        wanted = getattr(scipy, name)(*arguments, **options)
    except (ValueError, IndexError):
        with pytest.raises((ConvError, TypeError)):
            getattr(signal, name)(*arguments, **options)
        return
    alike(getattr(signal, name)(*arguments, **options), wanted, *arguments[:2])


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_scipys(name: str) -> None:
    def told(function: Any) -> list[tuple[str, Any]]:
        return [(p.name, p.default) for p in signature(function).parameters.values()]

    assert told(getattr(signal, name)) == told(getattr(scipy, name))


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")  # in SciPy, of what it never set
@pytest.mark.parametrize("name", ["convolve", "correlate"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_are_scipys(name: str, dtype: str) -> None:
    rng = np.random.default_rng(len(name + dtype))
    partner = "int32" if dtype == "uint8" else dtype  # which would wrap in SciPy
    for case in range(60):
        ndim = 1 + case % 4
        shapes = [tuple(int(n) for n in rng.integers(1, (60, 14, 9, 5)[ndim - 1], ndim)) for _ in range(2)]
        x, w = values(rng, shapes[0], dtype), values(rng, shapes[1], str(rng.choice([partner, "float64"])))
        for method in ("auto", "direct", "fft"):
            both(name, x, w, str(rng.choice(["full", "same", "valid"])), method)


@pytest.mark.parametrize("name", ["fftconvolve", "oaconvolve"])
@pytest.mark.parametrize("dtype", [*DTYPES, "bool", "float16"])
def test_some_axes(name: str, dtype: str) -> None:
    rng = np.random.default_rng(len(name + dtype))
    for case in range(50):
        ndim = 1 + case % 4
        one, other = (list(rng.integers(1, (60, 14, 9, 5)[ndim - 1], ndim)) for _ in range(2))
        axes = [int(a) for a in rng.permutation(ndim)[: rng.integers(1, ndim + 1)]]
        for a in range(ndim):
            if a not in axes:
                other[a] = one[a] if rng.random() < 0.5 else 1
                if rng.random() < 0.2:
                    one[a] = 1
        both(
            name, values(rng, tuple(one), dtype), values(rng, tuple(other), dtype),
            str(rng.choice(["full", "same", "valid"])), axes if len(axes) < ndim or case % 2 else None,
        )  # fmt: skip


SIZES = (((300, 280), (25, 21)), ((150, 140), (130, 150)), ((9000,), (700,)), ((24, 30, 28), (9, 9, 9)))


def test_large_arrays() -> None:
    """Tiles, one transform of all, plain sums."""
    rng = np.random.default_rng(0)
    for dtype in ("float32", "float64", "complex64", "uint8"):
        for shape, kernel in SIZES:
            x, w = values(rng, shape, dtype), values(rng, kernel, dtype).astype("int32" if dtype == "uint8" else dtype)
            for mode in ("full", "same", "valid"):
                both("convolve", x, w, mode)
                both("fftconvolve", x, w, mode)


def test_integers_that_no_double_holds() -> None:
    x = np.array([2**61 + 1, 3, 5], np.int64)
    both("convolve", x, np.array([1, 2]))
    with pytest.raises(ConvError, match="does not hold"):
        signal.convolve(np.full(5, 200, np.uint8), np.ones(3, np.uint8))
    both("convolve", np.arange(300), np.arange(300), method="fft")


def test_scalars_empties_bools_and_refusals() -> None:
    for name in NAMES:
        both(name, np.array(3.0), np.array(2))
        both(name, np.ones((2, 3)), np.ones(3))
        both(name, np.ones(3), np.ones(2), "wide")
        for one, other in (((0,), (3,)), ((3,), (0,)), ((2, 0), (2, 2)), ((0, 3), (2, 2))):
            both(name, np.ones(one), np.ones(other))
            both(name, np.ones(one), np.ones(other), "same")
        both(name, np.ones((2, 5)), np.ones((3, 2)), "valid")
        with pytest.raises(TypeError):
            getattr(signal, name)(["a"], [1])
    both("convolve", np.array([True, False, True]), np.array([True, True]))
    both("convolve", np.eye(2, dtype=bool), np.eye(2, dtype=bool))
    both("convolve", np.eye(2), np.eye(2), method="fastest")
    for axes in ([], (0, 0), 2, "a"):
        with pytest.raises((ConvError, TypeError)):
            signal.fftconvolve(np.eye(3), np.eye(3), axes=axes)


def test_nan_and_infinity_reach_their_windows() -> None:
    """Where SciPy's transforms spread them over everything."""
    rng = np.random.default_rng(0)
    for shape, kernel in (((220, 230), (21, 23)), ((150, 140), (130, 150)), ((40, 40), (3, 3))):
        x, w = rng.standard_normal(shape), 1 + rng.random(kernel)
        clean = scipy.convolve(x, w)
        x[5, 9], x[100 % shape[0], 3] = np.nan, np.inf
        got = signal.fftconvolve(x, w)
        reached = scipy.convolve((~np.isfinite(x)).astype(float), np.ones(kernel), method="fft") > 0.5
        assert_array_equal(~np.isfinite(got), reached)
        np.testing.assert_allclose(got[~reached], clean[~reached], atol=1e-12 * np.abs(clean).max())
        assert np.isinf(got[100 % shape[0], 3]) or np.isnan(got[100 % shape[0], 3])
        complex_numbers = signal.fftconvolve(x + 0j, w)
        assert_array_equal(~np.isfinite(complex_numbers.real), reached)


def test_without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = np.random.default_rng(0).standard_normal((2, 30, 31))
    wanted = scipy.fftconvolve(x, w)
    for name in ("scipy", "scipy.fft"):
        monkeypatch.setitem(sys.modules, name, None)
    alike(transformed(x, w, 2, None), wanted)
    alike(transformed(x.astype(np.float32), w.astype(np.float32), 2, None), wanted.astype(np.float32))


def test_sizes_of_transforms() -> None:
    smooth = sorted(2**a * 3**b * 5**c for a in range(11) for b in range(7) for c in range(5))
    for n in range(1, 900):
        assert _round(n) == next(m for m in smooth if m >= n)


def test_factors() -> None:
    rng = np.random.default_rng(0)
    u, v, t = rng.standard_normal(7), rng.standard_normal(5), rng.standard_normal(3)
    for kernel in (np.outer(u, v), np.multiply.outer(np.outer(u, v), t), np.ones((5, 5)) / 25):
        found = factors(kernel)
        assert found is not None
        made = found[0]
        for one in found[1:]:
            made = np.multiply.outer(made, one)
        np.testing.assert_allclose(made, kernel, rtol=1e-15)
    sobel = np.outer([1, 2, 3, 2, 1], [-1, -2, 0, 2, 1])
    exact = factors(sobel * 0.25)
    assert exact is not None
    assert_array_equal(np.outer(*exact), sobel * 0.25)
    for shape in ((3, 5), (7, 11)):  # of integers whose quotients no float holds
        a, b = rng.integers(1, 50, shape[0]), rng.integers(1, 50, shape[1])
        exact = factors(np.outer(a, b).astype(float))
        assert exact is not None and all((one == np.rint(one)).all() for one in exact)
        assert_array_equal(np.outer(*exact), np.outer(a, b))
    near = np.outer(u, v)
    near[2, 3] *= 1 + 1e-14
    for kernel in (near, rng.standard_normal((5, 5)), np.zeros((5, 5)), np.full((5, 5), np.nan), np.eye(5)):
        assert factors(kernel) is None


def test_products_of_kernels_are_scipys() -> None:
    rng = np.random.default_rng(0)
    for dtype in ("float64", "float32"):
        x = rng.standard_normal((43, 57)).astype(dtype)
        error = 1e-12 if dtype == "float64" else 1e-5
        gaps = np.outer(np.arange(5), [1, 0, 2, 1, 5])
        for kernel in (np.outer(rng.random(7), rng.random(6)), np.ones((5, 5)) / 25, gaps):
            for mode in ("reflect", "constant", "nearest", "mirror", "wrap"):
                options: dict[str, Any] = {"mode": mode, "cval": 1.5, "origin": (1, -1)}
                for name in ("convolve", "correlate"):
                    wanted = getattr(filters, name)(x, kernel, **options)
                    got = getattr(ndimage, name)(x, kernel, **options)
                    np.testing.assert_allclose(got, wanted, rtol=error, atol=error)
            for size in ("full", "same", "valid"):
                for boundary in ("fill", "wrap", "symm"):
                    own = {"mode": size, "boundary": boundary, "fillvalue": 2}
                    wanted = scipy.convolve2d(x, kernel.astype(dtype), **own)
                    got = convolve2d(x, kernel.astype(dtype), **own)
                    assert got.dtype == wanted.dtype
                    np.testing.assert_allclose(got, wanted, rtol=20 * error, atol=20 * error)
    volume, kernel = rng.standard_normal((12, 13, 14)), np.multiply.outer(np.outer([1, 2, 1], [1, 3, 1]), [1, 4, 1])
    wanted = filters.convolve(volume, kernel)
    np.testing.assert_allclose(ndimage.convolve(volume, kernel), wanted, rtol=1e-12, atol=1e-12)
    whole = rng.integers(-9, 9, (40, 41)).astype(float)
    kernel = np.outer([3, 5, 7, 1, 2], [7, 11, 2, 1, 9])
    assert_array_equal(ndimage.correlate(whole, kernel), filters.correlate(whole, kernel))
    whole[4, 5], whole[20, 20] = np.inf, np.nan
    gap = np.outer([1, 2, 0, 1, 2], [1, 2, 0, 1, 2])
    assert_array_equal(ndimage.correlate(whole, gap), filters.correlate(whole, gap))


def test_large_kernels_of_images() -> None:
    """By transforms of tiles: `ndimage`, and matrices."""
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((260, 300)), rng.standard_normal((17, 15))
    for mode in ("reflect", "constant", "nearest", "mirror", "wrap"):
        wanted = filters.correlate(x, kernel, mode=mode, cval=2)
        got = ndimage.correlate(x, kernel, mode=mode, cval=2)
        np.testing.assert_allclose(got, wanted, atol=1e-12 * np.abs(wanted).max())
    near = ndimage.convolve(x.astype(np.float32), kernel)
    np.testing.assert_allclose(near, filters.convolve(x.astype(np.float32), kernel), rtol=1e-6, atol=1e-6)
    pixels = rng.integers(0, 256, (260, 300), np.uint8)
    box = np.abs(kernel) / np.abs(kernel).sum()
    assert_array_equal(ndimage.convolve(pixels, box), filters.convolve(pixels, box))
    integers, weights = pixels.astype("int32"), np.arange(221).reshape(13, 17)
    alike(convolve2d(integers, weights), scipy.convolve2d(integers, weights))
