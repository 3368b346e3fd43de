"""Softmax and normalisations against NumPy in extended precision, and bits that threads do not change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_functions import isa  # noqa: F401  (a fixture)

from fastconv import _native

KINDS = [np.float32, np.float64]


def draw(kind: Any, *shape: int, mean: float = 0.0) -> Any:
    return (np.random.default_rng(sum(shape)).standard_normal(shape) * 3 + mean).astype(kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3, 7, 1), (5, 1000, 1), (2, 70000, 1), (2, 10, 130), (1, 300, 5), (4, 1, 3)])
def test_softmax(shape, kind, isa):  # noqa: F811
    x = draw(kind, *shape)
    wide = np.exp(x.astype(np.longdouble) - x.max(axis=1, keepdims=True))
    wide /= wide.sum(axis=1, keepdims=True)
    u = np.finfo(kind).eps
    for threads in (1, 2):
        y = np.empty_like(x)
        _native.softmax(y.ravel(), x.ravel(), shape, False, threads)
        np.testing.assert_allclose(y, wide, rtol=32 * u)  # of the difference, which is rounded, up to 16
        _native.softmax(y.ravel(), x.ravel(), shape, True, threads)
        np.testing.assert_allclose(y, np.log(wide), rtol=8 * u, atol=8 * u)


def test_softmax_of_infinity_and_nan():
    x = np.array([[0, -np.inf, 1], [-np.inf] * 3, [np.inf, 0, 1], [np.nan, 0, 1]], np.float32)
    y = np.empty_like(x)
    _native.softmax(y.ravel(), x.ravel(), (4, 3, 1), False, 1)
    np.testing.assert_allclose(y[0], [0.26894143, 0, 0.7310586], rtol=1e-6)
    assert np.isnan(y[1:]).all()
    by_columns = np.empty_like(x)
    _native.softmax(by_columns.T.copy().ravel(), x.T.copy().ravel(), (1, 3, 4), False, 1)
    other = np.ascontiguousarray(x.T)
    _native.softmax(other.ravel(), other.ravel(), (1, 3, 4), False, 1)
    np.testing.assert_allclose(other.T, y, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows, length", [(5, 7), (100, 96), (2, 200_000), (1, 65_537), (3, 1)])
def test_rows(rows, length, kind, isa):  # noqa: F811
    """A mean far from zero, and rows that are cut into parts."""
    x, scale, shift = draw(kind, rows, length, mean=100.0), draw(kind, length), draw(kind, length)
    wide = x.astype(np.longdouble)
    mean = wide.mean(axis=1, keepdims=True)
    variance = np.square(wide - mean).mean(axis=1, keepdims=True)
    close = {"rtol": 64 * np.finfo(kind).eps, "atol": 400 * np.finfo(kind).eps}  # x - mean has lost as much
    found = []
    for threads in (1, 2):
        y, sums = np.empty_like(x), np.empty(rows * _native.row_parts(length) * 2)
        _native.normalise_rows(y, x, rows, length, scale, shift, 0, sums, 1e-5, True, threads)
        np.testing.assert_allclose(y, (wide - mean) / np.sqrt(variance + 1e-5) * scale + shift, **close)
        found.append(y.copy())
        _native.normalise_rows(y, x, rows, length, scale, None, 0, sums, 1e-5, False, threads)
        root = np.sqrt(np.square(wide).mean(axis=1, keepdims=True) + 1e-5)
        np.testing.assert_allclose(y, wide / root * scale, rtol=16 * np.finfo(kind).eps)
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("groups", [70, 10, 1])
def test_columns_and_segments(groups, kind, isa):  # noqa: F811
    """The same numbers channels last and channels first."""
    batch, pixels, channels = 2, 3000, 70
    x, scale, shift = draw(kind, batch, pixels, channels, mean=50.0), draw(kind, channels), draw(kind, channels)
    wide = x.reshape(batch, pixels, groups, -1).astype(np.longdouble)
    mean = wide.mean(axis=(1, 3), keepdims=True)
    variance = np.square(wide - mean).mean(axis=(1, 3), keepdims=True)
    wanted = ((wide - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape) * scale + shift
    close = {"rtol": 64 * np.finfo(kind).eps, "atol": 400 * np.finfo(kind).eps}
    found = []
    for threads in (1, 2):
        y = np.empty_like(x)
        sums, held = np.empty(batch * _native.column_parts(pixels) * 2 * channels), np.empty(batch * 3 * channels, kind)
        _native.normalise_columns(
            y.ravel(), x.ravel(), (batch, pixels, channels), scale, shift, groups, sums, held, 1e-5, threads
        )
        np.testing.assert_allclose(y, wanted, **close)
        found.append(y)
    np.testing.assert_array_equal(*found)
    first = np.ascontiguousarray(x.transpose(0, 2, 1))
    length = channels // groups * pixels
    sums = np.empty(batch * groups * _native.row_parts(length) * 2)
    _native.normalise_rows(
        first, first, batch * groups, length, scale, shift, channels // groups, sums, 1e-5, True, 2
    )
    np.testing.assert_allclose(first.transpose(0, 2, 1), wanted, **close)
