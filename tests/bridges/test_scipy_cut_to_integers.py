"""`fastconv.scipy.ndimage` to integers: SciPy cuts sums of float64, and on flat areas the last bit of a sum decides.

Nine times 41/9 is 41 or a little less, by the order of the sum and whether products are rounded. The right values are
those of a sum in SciPy's order, made here by NumPy one rounded product after the other, and SciPy's own.
"""

from __future__ import annotations

from contextlib import suppress
from math import prod
from platform import machine
from typing import Any

import numpy as np
import pytest

from fastconv import ConvError
from fastconv.scipy import ndimage

INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
PADS = {"reflect": "symmetric", "constant": "constant", "nearest": "edge", "mirror": "reflect", "wrap": "wrap"}


def in_order(x: Any, w: Any, mode: str, cval: float, origin: list[int]) -> Any:
    """The correlation as SciPy sums it, in float64."""
    pads = [(k // 2 + o, k - 1 - k // 2 - o) for k, o in zip(w.shape, origin, strict=True)]
    more = {"constant_values": cval} if mode == "constant" else {}
    wide = np.pad(x.astype(np.float64), pads, PADS[mode], **more)  # type: ignore[call-overload]
    total = np.zeros(x.shape)
    for tap in np.ndindex(*w.shape):
        if abs(w[tap]) > np.finfo(np.float64).eps:
            window = wide[tuple(slice(at, at + n) for at, n in zip(tap, x.shape, strict=True))]
            total += w[tap] * window
    return total


def kernel(rng: np.random.Generator, kind: int, shape: tuple[int, ...]) -> Any:
    w = np.ones(shape) / prod(shape)
    if kind == 1:
        w = rng.random(shape)
        w /= w.sum()
    elif kind == 2:
        w = rng.integers(0, 5, shape) / 10
    elif kind == 3:
        w = rng.standard_normal(shape) * 0.3
    return np.where(rng.random(shape) < 0.2, 0, w) if kind > 1 else w


@pytest.mark.parametrize("grey", range(0, 256, 5))
def test_flat_areas(grey: int) -> None:
    image = np.full((12, 12), grey, np.uint8)
    for size in (3, 5, 6, 7):
        w = np.full((size, size), 1 / size**2)
        right = in_order(image, w, "reflect", 0, [0, 0]).astype(np.uint8)
        np.testing.assert_array_equal(ndimage.correlate(image, w), right)


@pytest.mark.parametrize("dtype", [*INTEGERS, "bool", "float32", "float64"])
def test_every_type_mode_and_origin(dtype: str) -> None:
    scipy = pytest.importorskip("scipy.ndimage")
    rng, compared, near = np.random.default_rng(len(dtype)), 0, 0
    for case in range(60):
        shape = tuple(int(n) for n in rng.integers(3, 11, rng.integers(1, 4)))
        least, most = (0, 2) if dtype == "bool" else (0, 100)
        x = np.full(shape, rng.integers(least, most)) if case % 3 else rng.integers(least, most, shape)
        x = x.astype(dtype)
        w = kernel(rng, case % 4, tuple(int(k) for k in rng.integers(1, 5, len(shape))))
        origin = [int(rng.integers(-(k // 2), (k + 1) // 2)) for k in w.shape]
        options: dict[str, Any] = {
            "mode": list(PADS)[case % 5], "cval": (0.0, 0.5, 3.1)[case % 3], "origin": origin,
        }  # fmt: skip
        if case % 2 or dtype.startswith("float"):
            options["output"] = INTEGERS[case % 8]
        try:
            got = ndimage.correlate(x, w, **options)
        except ConvError as error:  # a negative sum
            assert "nothing wraps" in str(error)
            continue
        total = in_order(x, w, options["mode"], options["cval"], origin)
        np.testing.assert_array_equal(got, np.trunc(total).astype(got.dtype), strict=True)
        turned = {**options, "origin": 0}
        if machine() in ("x86_64", "AMD64"):  # elsewhere SciPy may be compiled to fuse products and sums
            np.testing.assert_array_equal(got, scipy.correlate(x, w, **options), strict=True)
            with suppress(ConvError):
                own = ndimage.convolve(x, w, **turned)
                np.testing.assert_array_equal(own, scipy.convolve(x, w, **turned), strict=True)
        compared += 1
        near += bool((np.abs(total - np.rint(total))[np.rint(total) != 0] < 1e-12).any())
    assert compared > 20 and near > 5


def test_photographs_and_options_beyond_scipy() -> None:
    """A wide image, with some flat areas; strides, dilations, channels and threads change no value."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 301)).astype(np.uint8)
    image[20:50, 30:200] = 250
    w = np.ones((5, 5)) / 25
    right = in_order(image, w, "mirror", 0, [0, 0])
    for threads in (1, 3):
        np.testing.assert_array_equal(ndimage.correlate(image, w, mode="mirror", num_threads=threads), np.trunc(right))
    np.testing.assert_array_equal(ndimage.correlate(image, w, mode="mirror", stride=(2, 3)), np.trunc(right)[::2, ::3])
    spread = np.zeros((9, 13))
    spread[::2, ::3] = w
    right = in_order(image, spread, "nearest", 0, [0, 0])
    np.testing.assert_array_equal(ndimage.correlate(image, w, mode="nearest", dilation=(2, 3)), np.trunc(right))
    np.testing.assert_array_equal(
        ndimage.correlate(image[None], w[None, None], channels=True)[0], ndimage.correlate(image, w)
    )
    volume = np.full((3, 20, 4, 30), 7, np.int16)
    along = ndimage.correlate(volume, np.ones((7, 3)) / 21, axes=(1, 3))
    assert along.dtype == np.int16 and len(np.unique(along)) == 1
    np.testing.assert_array_equal(along[0, :, 0], ndimage.correlate(volume[0, :, 0], np.ones((7, 3)) / 21))


def test_floats_agree_to_rounding() -> None:
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((80, 301)), rng.standard_normal((9, 7))
    right, scale = in_order(x, w, "wrap", 0, [0, 0]), np.abs(w).sum() * np.abs(x).max()
    assert np.abs(ndimage.correlate(x, w, mode="wrap") - right).max() <= 1e-14 * scale
