"""`scipy.ndimage`'s filters axis by axis: SciPy's bits, for every type, mode, origin and output."""

from __future__ import annotations

from inspect import signature
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastconv
from fastconv import ConvError
from fastconv.scipy import ndimage

scipy = pytest.importorskip("scipy.ndimage")

MODES = ("reflect", "constant", "nearest", "mirror", "wrap", "grid-mirror", "grid-constant", "grid-wrap")
DTYPES = (
    "float32", "float64", "uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool", ">f4",
    ">i2", "complex64", "complex128",
)  # fmt: skip
NAMES = ("correlate1d", "convolve1d", "gaussian_filter", "gaussian_filter1d", "uniform_filter", "uniform_filter1d")


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_scipys(name: str) -> None:
    def told(function: Any) -> list[tuple[str, Any, Any]]:
        return [(p.name, p.default, p.kind) for p in signature(function).parameters.values()]

    assert told(getattr(ndimage, name)) == told(getattr(scipy, name))


def drawn(rng: np.random.Generator, dtype: str) -> Any:
    """An array of one to three axes of any layout, small or with lanes enough."""
    ndim = int(rng.integers(1, 4))
    shape = tuple(int(n) for n in rng.integers(1, (1500, 45, 21)[ndim - 1], ndim))
    if rng.random() < 0.2:
        shape = (*shape[:-1], int(rng.integers(1, 5)))
    kind = np.dtype(dtype).kind
    x = rng.integers(0, 2 if kind == "b" else 100, shape) if kind in "biu" else 50 * rng.standard_normal(shape)
    if kind == "c":
        x = x + 1j * rng.standard_normal(shape)
    x = x.astype(dtype)
    layout = rng.integers(4)
    if layout == 1:
        x = np.asfortranarray(x)
    elif layout == 2:
        x = x[(slice(None, None, -1),) * ndim]
    elif layout == 3:
        x = np.repeat(x, 2, axis=-1)[..., ::2]
    return x


def compare(name: str, x: Any, *arguments: Any, **options: Any) -> None:
    wanted = getattr(scipy, name)(x, *arguments, **options)
    got = getattr(ndimage, name)(x, *arguments, **options)
    assert got.dtype == wanted.dtype
    if wanted.dtype.kind == "c":  # parts are added in double, and rounded once
        np.testing.assert_allclose(got, wanted, rtol=1e-12 if wanted.dtype == np.complex128 else 1e-5, atol=1e-4)
    else:
        assert_array_equal(got, wanted, strict=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_axis(dtype: str) -> None:
    rng = np.random.default_rng(len(dtype))
    for case in range(40):
        x = drawn(rng, dtype)
        taps = int(rng.integers(1, 25))
        weights = rng.random(taps)
        if case % 3 == 0:
            weights = weights + weights[::-1]
        elif case % 3 == 1 and x.dtype.kind in "fc":
            weights = weights - weights[::-1]
        weights /= max(1.0, np.abs(weights).sum())
        mode = str(rng.choice(MODES[:5] if taps < x.shape[-1] else ("nearest", "constant", "wrap")))
        axis = -1 if case % 2 else int(rng.integers(x.ndim))
        options = {"mode": mode, "cval": 2.5, "axis": axis, "origin": int(rng.integers(-(taps // 2), (taps + 1) // 2))}
        if taps > 2 * x.shape[axis]:
            options["mode"] = "nearest"
        wide = {"output": np.complex128 if x.dtype.kind == "c" else np.float64} if case % 4 == 3 else {}
        for name in ("correlate1d", "convolve1d"):
            compare(name, x, weights, **options, **wide)
        compare("uniform_filter1d", x, taps, **options, **wide)


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int16", "complex64"])
def test_several_axes(dtype: str) -> None:
    rng = np.random.default_rng(7)
    for case in range(25):
        x = drawn(rng, dtype)
        modes = [str(mode) for mode in rng.choice(MODES[:5], x.ndim)]
        smaller = min(x.shape)
        sigma = [float(s) for s in rng.uniform(0, 0.2 + smaller / 6, x.ndim)]
        compare("gaussian_filter", x, sigma if case % 2 else sigma[0], mode=modes, cval=1.5, truncate=2.5)
        if dtype.startswith("float"):
            order = [int(n) for n in rng.integers(0, 4, x.ndim)]
            compare("gaussian_filter", x, [s + 0.3 for s in sigma], order, mode=modes, truncate=2)
        compare("gaussian_filter", x, 1, radius=min(2, smaller), axes=(-1,), output=np.dtype(dtype))
        compare("gaussian_filter1d", x, 0.7, -1, 0, mode=modes[0], radius=1)
        size = [int(k) for k in rng.integers(1, smaller + 1, x.ndim)]
        compare("uniform_filter", x, size, mode=modes, origin=[-(k // 2) for k in size], cval=2)
        compare("uniform_filter", x, 2, axes=x.ndim - 1, mode="nearest")


def test_where_the_result_goes() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((70, 90)).astype(np.float32)
    for sigma in ((1, 2), (0, 1.5), (0, 0)):
        wanted = scipy.gaussian_filter(x, sigma)
        out, apart = np.empty_like(x), np.empty((90, 70), np.float32).T
        for target in (out, apart):
            assert ndimage.gaussian_filter(x, sigma, output=target) is target
            assert_array_equal(target, wanted)
        own = x.copy()  # in place, as a SciPy that finishes a line before the next
        ndimage.gaussian_filter(own, sigma, output=own)
        assert_array_equal(own, wanted)
        result = ndimage.gaussian_filter(x, sigma)
        assert not np.shares_memory(result, x)
    integers = np.empty(x.shape, np.int16)
    assert_array_equal(
        ndimage.uniform_filter(50 * x, 5, output=integers), scipy.uniform_filter(50 * x, 5, output=np.int16)
    )


def test_empty_arrays_and_half_precision() -> None:
    for shape in ((0,), (0, 4), (3, 0)):
        for name, argument in (("gaussian_filter", 1), ("uniform_filter", 3), ("correlate1d", [1, 2, 1])):
            for mode in ("constant", "reflect"):
                assert getattr(ndimage, name)(np.zeros(shape), argument, mode=mode).shape == shape
    unaligned = np.zeros(8 * 40 + 1, np.uint8)[1:].view(np.float64)
    unaligned[:] = np.arange(40)
    assert_array_equal(ndimage.gaussian_filter(unaligned, 1), scipy.gaussian_filter(unaligned, 1))
    target = np.zeros(8 * 40 + 1, np.uint8)[1:].view(np.float64)
    assert_array_equal(ndimage.gaussian_filter(unaligned, 1, output=target), scipy.gaussian_filter(unaligned, 1))
    x = np.random.default_rng(0).standard_normal((30, 40)).astype(np.float16)
    wanted = scipy.gaussian_filter1d(x.astype(np.float32), 1.5).astype(np.float16)
    assert_array_equal(ndimage.gaussian_filter1d(x, 1.5), wanted)


def test_special_values() -> None:
    x = np.random.default_rng(0).standard_normal((40, 50))
    x[3, 7], x[20, 30], x[22, 31] = np.nan, np.inf, -np.inf
    with np.errstate(all="ignore"):
        compare("gaussian_filter", x, 1.5)
        compare("correlate1d", x, [1.0, 0.0, 2.0])
        compare("uniform_filter", x, 3)


def test_an_integer_result_that_does_not_fit_is_refused() -> None:
    x = np.full((40, 40), 200, np.uint8)
    for axis in (0, 1):
        with pytest.raises(ConvError, match="uint8 does not hold"):
            ndimage.correlate1d(x, [1.0, 1.0], axis)
        with pytest.raises(ConvError):
            ndimage.correlate1d(x, [-1.0], axis)
    assert ndimage.correlate1d(x, [1.0, 1.0], output=np.uint16).max() == 400
    for code, least, most in (("int64", -(2**63), 2**62), ("uint64", 0, 2**63), ("int8", -128, 127)):
        ends = np.array([least, most], code)
        assert_array_equal(ndimage.correlate1d(ends, [1.0]), ends)


def test_refusals() -> None:
    x = np.zeros((9, 9))
    for call in (
        lambda: ndimage.gaussian_filter(x, (1, 2, 3)),
        lambda: ndimage.gaussian_filter(x, 1, mode=("reflect",)),
        lambda: ndimage.gaussian_filter(x, 1, order=-1),
        lambda: ndimage.gaussian_filter(x, 1, radius=-1),
        lambda: ndimage.gaussian_filter(x, 1, axes=(0, 0)),
        lambda: ndimage.gaussian_filter(x, 1, output=np.zeros((9, 8))),
        lambda: ndimage.gaussian_filter(x, 1, mode="none"),
        lambda: ndimage.gaussian_filter1d(x, float("nan")),
        lambda: ndimage.uniform_filter(x, 3, origin=2),
        lambda: ndimage.uniform_filter1d(x, 0),
        lambda: ndimage.uniform_filter1d(x, 3, axis=2),
        lambda: ndimage.uniform_filter(x, 3, mode="mirrored"),
    ):
        with pytest.raises(ConvError):
            call()
    with pytest.raises(TypeError):
        ndimage.uniform_filter1d(x, 2.5)
    with pytest.raises(TypeError):
        ndimage.gaussian_filter(np.array(["a"]), 1)


def test_bits_do_not_depend_on_threads() -> None:
    x = np.random.default_rng(0).standard_normal((300, 513)).astype(np.float32)
    before = fastconv.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            fastconv.set_num_threads(threads)
            results.append((ndimage.gaussian_filter(x, 3), ndimage.uniform_filter(x, 7)))
    finally:
        fastconv.set_num_threads(before)
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert_array_equal(one, two)


@pytest.mark.parametrize("isa", [name for name in fastconv.info()["isas_available"] if "_" not in name])
def test_every_instruction_set(isa: str) -> None:
    from fastconv import _native

    x = np.random.default_rng(0).standard_normal((37, 45)).astype(np.float32)
    before = _native.isa_name()
    try:
        assert _native.isa_use(isa)
        for axis in (0, 1):
            compare("uniform_filter1d", x, 5, axis)
            compare("gaussian_filter1d", x, 2.2, axis)
    finally:
        _native.isa_use(before)
