"""`fastconv.scipy` against SciPy: generated cases on integer values, where both must agree to the bit."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fastconv.scipy as ours
from fastconv import ConvError, ConvTypeError
from fastconv.scipy import windows

scipy_signal = pytest.importorskip("scipy.signal")
scipy_ndimage = pytest.importorskip("scipy.ndimage")

CASES = 400  # of each of four generators: 2 functions each, so 3,200 comparisons
DTYPES = ("float64", "float32", "int64", "int32", "int8", "complex128", "complex64")


def _values(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Any:
    values = rng.integers(-3, 4, shape).astype(dtype)
    return values + (1j * rng.integers(-3, 4, shape)).astype(dtype) if dtype.startswith("complex") else values


def _shape(rng: np.random.Generator, ndim: int, most: int) -> tuple[int, ...]:
    shape = tuple(int(n) for n in rng.integers(1, most, ndim))
    # now and then wide enough for the lanes, with a rest of columns
    return (*shape[:-1], shape[-1] + 150) if rng.random() < 0.1 else shape


def _both(function: Any, other: Any, *arguments: Any, **options: Any) -> None:
    """Equal to the bit, type included; or both refuse."""
    try:
        wanted = other(*arguments, **options)
    except (ValueError, RuntimeError):
        with pytest.raises(ValueError):
            function(*arguments, **options)
        return
    got = function(*arguments, **options)
    assert got.dtype == wanted.dtype
    assert_array_equal(got, wanted, strict=True)


@pytest.mark.parametrize("seed", range(4))
def test_signal_equals_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(CASES):
        dtype = str(rng.choice(DTYPES))
        x = _values(rng, _shape(rng, 2, 9), dtype)
        w = _values(rng, _shape(rng, 2, 5), str(rng.choice([dtype, "float64", "int16"])))
        if dtype == "int8":
            x = x.astype("int16")  # int8 would wrap in SciPy
        options = {
            "mode": str(rng.choice(["full", "same", "valid"])),
            "boundary": str(rng.choice(["fill", "pad", "wrap", "circular", "symm", "symmetric"])),
            "fillvalue": int(rng.integers(-2, 3)),
        }
        for name in ("convolve2d", "correlate2d"):
            _both(getattr(ours, name), getattr(scipy_signal, name), x, w, **options)


@pytest.mark.parametrize("seed", range(4))
def test_ndimage_equals_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(CASES):
        ndim, dtype = int(rng.integers(1, 5)), str(rng.choice(DTYPES))
        x = _values(rng, _shape(rng, ndim, 9 - ndim), dtype)
        axes = None
        if rng.random() < 0.3:
            axes = tuple(int(axis) for axis in rng.permutation(ndim)[: rng.integers(1, ndim + 1)])
        filtered = ndim if axes is None else len(axes)
        # where a kernel reaches beyond the end by 4 n, SciPy's 'reflect' reads outside an axis of n
        shape = tuple(int(k) for k in rng.integers(1, 8 - ndim, filtered))
        w = _values(rng, shape, str(rng.choice([dtype, "float64"])))
        options: dict[str, Any] = {
            "mode": str(rng.choice(["reflect", "constant", "nearest", "mirror", "wrap", "grid-wrap", "grid-constant"])),
            "cval": int(rng.integers(-2, 3)),
            "origin": [int(rng.integers(-(k // 2), (k + 1) // 2)) for k in w.shape],
            "axes": axes,
        }
        if dtype == "int8" and w.dtype.kind != "c":
            options["output"] = str(rng.choice(["int32", "float32"]))
        for name in ("convolve", "correlate"):
            _both(getattr(ours.ndimage, name), getattr(scipy_ndimage, name), x, w, **options)


def test_random_floats_agree_to_rounding() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((201, 333)), rng.standard_normal((21, 5))
    scale = np.abs(w).sum() * np.abs(x).max()
    for mode in ("full", "same", "valid"):
        difference = ours.convolve2d(x, w, mode) - scipy_signal.convolve2d(x, w, mode)
        assert np.abs(difference).max() <= w.size * 2.0**-52 * scale
    single = x.astype("float32")
    assert_array_equal(  # float64 sums rounded once, as SciPy's are: at most the last bit differs
        np.abs(ours.ndimage.correlate(single, w).view("int32") - scipy_ndimage.correlate(single, w).view("int32")) <= 1,
        True,
    )


@pytest.mark.parametrize("name", ["convolve2d", "correlate2d"])
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize(("stride", "dilation"), [((1, 1), (2, 3)), ((2, 3), (1, 1)), ((3, 2), (2, 1))])
def test_stride_and_dilation_are_slices_and_spread_kernels(
    name: str, mode: str, stride: tuple[int, int], dilation: tuple[int, int]
) -> None:
    rng = np.random.default_rng(1)
    x, w = rng.integers(-9, 9, (60, 211)), rng.integers(-9, 9, (4, 3))
    spread = np.zeros([(k - 1) * d + 1 for k, d in zip(w.shape, dilation, strict=True)], int)
    spread[:: dilation[0], :: dilation[1]] = w
    wanted = getattr(scipy_signal, name)(x, spread, mode, "symm")[:: stride[0], :: stride[1]]
    assert_array_equal(getattr(ours, name)(x, w, mode, "symm", stride=stride, dilation=dilation), wanted)
    if mode == "same":
        wanted = scipy_ndimage.convolve(x, spread)[:: stride[0], :: stride[1]]
        assert_array_equal(ours.ndimage.convolve(x, w, stride=stride, dilation=dilation), wanted)


@pytest.mark.parametrize("name", ["convolve2d", "correlate2d"])
def test_batch_and_channels(name: str) -> None:
    rng = np.random.default_rng(2)
    images, filters = rng.integers(-9, 9, (2, 3, 12, 90)), rng.integers(-9, 9, (4, 3, 2, 3))
    theirs = getattr(scipy_signal, name)
    each = getattr(ours, name)(images, filters[0, 0], "same", "wrap", batch=True)
    summed = getattr(ours, name)(images, filters, "same", "wrap", batch=True, channels=True)
    for n, image in enumerate(images):
        for c, plane in enumerate(image):
            assert_array_equal(each[n, c], theirs(plane, filters[0, 0], "same", "wrap"))
        for o, kernel in enumerate(filters):
            wanted = sum(theirs(plane, w, "same", "wrap") for plane, w in zip(image, kernel, strict=True))
            assert_array_equal(summed[n, o], wanted)
    volume, kernels = rng.integers(-9, 9, (3, 6, 7, 8)), rng.integers(-9, 9, (2, 3, 3, 2))
    got = ours.ndimage.convolve(volume, kernels, axes=(0, 2), channels=True)
    for o, kernel in enumerate(kernels):
        wanted = sum(scipy_ndimage.convolve(v, k, axes=(0, 2)) for v, k in zip(volume, kernel, strict=True))
        assert_array_equal(got[o], wanted)


def test_integers_are_exact_or_refused() -> None:
    x = np.full((3, 3), 100, "int8")
    with pytest.raises(ConvError, match="nothing wraps silently"):
        ours.convolve2d(x, x)
    with pytest.raises(ConvError, match="nothing wraps silently"):
        ours.ndimage.correlate(np.full(5, 100, "uint8"), [1, 1, 1])
    with pytest.raises(ConvError, match="nothing wraps silently"):
        ours.ndimage.correlate([1.0, np.nan], [1.0], output="int32")
    with pytest.raises(ConvError):
        ours.convolve2d(np.full((2, 2), 2**63 + 1, "uint64"), np.ones((1, 1), "uint64"))
    big = np.full((2, 2), 2**53 + 1)
    assert_array_equal(ours.convolve2d(big, np.array([[3]])), scipy_signal.convolve2d(big, np.array([[3]])))
    most = np.array([[2**62 - 1, -(2**62)]])
    assert_array_equal(ours.convolve2d(most, np.array([[1]])), most)
    assert_array_equal(ours.ndimage.correlate([1.9, -1.9, 255.9], [1.0], output="int16"), [1, -1, 255])


def test_special_values() -> None:
    rng = np.random.default_rng(3)
    for _ in range(60):
        x = rng.choice([1.0, 2.0, -3.0, np.nan, np.inf, -np.inf], (6, 7), p=[0.3, 0.3, 0.34, 0.02, 0.02, 0.02])
        w = rng.choice([0.0, 1e-17, -2.0, 3.0], (3, 2))
        with np.errstate(invalid="ignore"):
            for name in ("convolve", "correlate"):
                wanted = getattr(scipy_ndimage, name)(x, w)
                assert_array_equal(getattr(ours.ndimage, name)(x, w), wanted)
            w[np.abs(w) < 1] = 0
            assert_array_equal(ours.convolve2d(x, w, "same"), scipy_signal.convolve2d(x, w, "same"))
        wanted = scipy_signal.correlate2d(x, w, fillvalue=np.inf)
        assert_array_equal(ours.correlate2d(x, w, fillvalue=np.inf), wanted)


def test_output_may_be_given_and_may_be_the_input() -> None:
    rng = np.random.default_rng(4)
    x, w = rng.integers(-9, 9, (8, 9)).astype("float64"), rng.integers(-9, 9, (3, 3))
    wanted = scipy_ndimage.correlate(x, w)
    out = np.empty((9, 8)).T
    assert ours.ndimage.correlate(x, w, output=out) is out
    assert_array_equal(out, wanted)
    ours.ndimage.correlate(x, w, x)
    assert_array_equal(x, wanted)
    with pytest.raises(ConvError, match="output must have the shape"):
        ours.ndimage.correlate(x, w, np.empty((3, 3)))
    for function in (ours.ndimage.correlate, ours.ndimage.convolve):
        with pytest.warns(UserWarning, match="promoting") as caught:
            assert function(x + 1j, w, np.float32).dtype == np.complex64
        assert caught[0].filename == __file__
    assert ours.ndimage.correlate(x, w, output=bool).dtype == bool


@pytest.mark.parametrize(
    ("twin", "pattern"), [(ours.ndimage.convolve, ours.ndimage.correlate), (ours.correlate2d, ours.convolve2d)]
)
def test_twins_have_one_signature(twin: Any, pattern: Any) -> None:
    assert inspect.signature(twin) == inspect.signature(pattern)
    assert twin.__name__ != pattern.__name__ and twin.__doc__ != pattern.__doc__
    with pytest.raises(TypeError, match=rf"{twin.__name__}\(\) missing a required argument"):
        twin(np.ones((3, 3)))
    with pytest.raises(TypeError, match="strid"):
        twin(np.ones((3, 3)), np.ones((3, 3)), strid=2)


def test_any_memory() -> None:
    rng = np.random.default_rng(5)
    x, w = rng.standard_normal((70, 90)), rng.standard_normal((3, 4))
    wanted = ours.convolve2d(x, w)
    for same in (np.asfortranarray(x), x[::-1].copy()[::-1], x.astype(">f8"), np.broadcast_to(x, (1, 70, 90))[0]):
        assert_array_equal(ours.convolve2d(same, w), wanted)
        assert_array_equal(ours.convolve2d(same, np.asfortranarray(w)), wanted)


def test_tall_and_wide_kernels() -> None:
    rng = np.random.default_rng(6)
    x = rng.integers(-9, 9, (90, 800)).astype("float32")
    for shape in ((40, 3), (17, 200), (2, windows.WIDEST_KERNEL + 1)):
        w = rng.integers(-3, 4, shape).astype("float32")
        assert_array_equal(ours.correlate2d(x, w, "valid"), scipy_signal.correlate2d(x, w, "valid"))


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    ((np.ones(3), np.ones((2, 2))), {}, "2 axes"),
    ((np.ones((2, 3, 4)), np.ones((2, 2))), {}, "see batch="),
    ((np.ones((2, 2)), np.ones((2, 2)), "SAME"), {}, "mode must be"),
    ((np.ones((2, 2)), np.ones((2, 2))), {"boundary": "reflect"}, "boundary must be"),
    ((np.ones((2, 2)), np.ones((2, 2))), {"fillvalue": [1, 2]}, "one number"),
    ((np.ones((2, 2)), np.ones((2, 2))), {"fillvalue": 1j}, "complex"),
    ((np.ones((2, 2), "u1"), np.ones((2, 2), "u1")), {"fillvalue": 300}, "no number of the result's type"),
    ((np.ones((2, 3)), np.ones((3, 2)), "valid"), {}, "at least as large"),
    ((np.ones((2, 2)), np.ones((2, 2))), {"stride": 0}, "stride must be at least 1"),
    ((np.ones((3, 4, 4)), np.ones((1, 2, 2, 2))), {"channels": True}, "sums over 2 channels"),
]


@pytest.mark.parametrize(("arguments", "options", "words"), REFUSED)
def test_refusals_of_signal(arguments: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConvError, match=words):
        ours.convolve2d(*arguments, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "symmetric"}, "mode must be one of"),
        ({"mode": ["reflect", "wrap"]}, "mode must be one of"),
        ({"origin": 1}, "origin must keep"),
        ({"origin": (0, 0, 0)}, "one for each filtered axis"),
        ({"axes": (0, 0)}, "twice"),
        ({"axes": (0, 5)}, "do not have"),
        ({"axes": 0}, "weights must have 1 axes"),
        ({"cval": 1j}, "cval"),
        ({"dilation": 0}, "at least 1"),
    ],
)
def test_refusals_of_ndimage(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConvError, match=words):
        ours.ndimage.correlate(np.ones((4, 4)), np.ones((2, 2)), **options)


@pytest.mark.parametrize("dtype", ["longdouble", object, "U3"])
def test_what_is_no_number_is_refused(dtype: Any) -> None:
    with pytest.raises(ConvTypeError, match="must hold numbers"):
        ours.convolve2d(np.ones((2, 2)).astype(dtype), np.ones((2, 2)))
    with pytest.raises(ConvTypeError, match="must hold numbers"):
        ours.ndimage.convolve(np.ones((2, 2)), np.ones((2, 2)).astype(dtype))


def test_float16_and_bool() -> None:
    x = np.arange(12).reshape(3, 4)
    half = ours.convolve2d(x.astype("float16"), np.ones((2, 2), "float16"))
    assert half.dtype == np.float16
    assert_allclose(half, scipy_signal.convolve2d(x, np.ones((2, 2), int)))
    with pytest.raises(ConvTypeError, match="both bool"):
        ours.convolve2d(x > 3, x > 4)
    assert_array_equal(ours.ndimage.correlate(x > 3, [[1, 1]]), scipy_ndimage.correlate(x > 3, [[1, 1]]))


def test_scipy_is_not_needed() -> None:
    code = (
        "import sys; sys.modules['scipy'] = None\n"
        "from fastconv.scipy import convolve2d, ndimage\n"
        "assert convolve2d([[1, 2]], [[1, 1]]).tolist() == [[1, 3, 2]]\n"
        "assert ndimage.correlate([1, 2], [1, 1]).tolist() == [2, 3]\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_a_name_that_there_is_not_says_which_there_are() -> None:
    import fastconv.scipy

    for module, name, has in (
        (fastconv.scipy.ndimage, "median_filter", "gaussian_filter"), (fastconv.scipy.signal, "lfilter", "oaconvolve"),
        (fastconv.scipy, "interpolate", "ndimage, signal"),
    ):  # fmt: skip
        theirs = module.__name__.removeprefix("fastconv.")
        with pytest.raises(AttributeError, match=f"(?s)no attribute '{name}': it has .*{has}.*SciPy.*: {theirs}"):
            getattr(module, name)
        assert not hasattr(module, "__wrapped__")
