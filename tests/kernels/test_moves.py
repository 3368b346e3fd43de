"""Copies, reductions, resizing and products of values of generated shapes and strides, against NumPy in long double."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from settings import COUNT

from fastconv import _native

Array = np.ndarray[Any, np.dtype[Any]]
CASES = max(20, COUNT // 40)


@pytest.fixture(params=[name for name in _native.isas_available() if "_" not in name], autouse=True)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _native.isa_name()
    assert _native.isa_use(request.param)
    yield request.param
    _native.isa_use(before)


def laid(rng: np.random.Generator, shape: list[int], dtype: Any) -> Array:
    """An array whose axes lie in any order, some backwards or with gaps."""
    order = [int(axis) for axis in rng.permutation(len(shape))]
    steps = [int(rng.choice([1, 1, 1, 2, -1])) for _ in shape]
    whole = [shape[axis] * abs(steps[axis]) + int(rng.integers(0, 2)) for axis in order]
    values = (100 * rng.standard_normal(whole)).astype(dtype)
    moved = values.transpose(np.argsort(order))[tuple(slice(None, None, step) for step in steps)]
    return moved[tuple(slice(0, size) for size in shape)]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64", "complex128"])
def test_any_array_is_copied_into_any_other_as_numpy_does(dtype: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(CASES):
        rank = int(rng.integers(1, 8))
        most = int(rng.choice([3, 40])) if rank < 4 else 4
        shape = [int(rng.integers(0 if rng.random() < 0.05 else 1, most + 1)) for _ in range(rank)]
        source, places = list(shape), [None] * rank
        for axis in range(rank):
            if rng.random() < 0.2:
                source[axis] = int(rng.integers(1, 9))
                places[axis] = rng.integers(0, source[axis], shape[axis])
        x, out = laid(rng, source, dtype), laid(rng, shape, dtype)
        for axis in range(rank):
            if places[axis] is None and source[axis] and rng.random() < 0.1:
                x = np.broadcast_to(x[(slice(None),) * axis + (slice(0, 1),)], source)
        out[...] = 0
        _native.move(out, x, tuple(places), int(rng.integers(1, 4)))
        for axis, chosen in enumerate(places):
            x = x if chosen is None else np.take(x, chosen, axis)
        np.testing.assert_array_equal(out, x, err_msg=f"{shape} {places}")


@pytest.mark.parametrize(
    "shape, order", [((64, 56, 56), (1, 2, 0)), ((56, 57, 65), (2, 0, 1)), ((9, 64, 200), (1, 2, 0))]
)
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_what_is_large_is_moved_by_several_threads(shape: Any, order: Any, dtype: str) -> None:
    x = (100 * np.random.default_rng(0).standard_normal(shape)).astype(dtype)
    out = np.zeros([shape[axis] for axis in order], dtype)
    for source, to in ((x.transpose(order), out), (x, np.zeros_like(x)), (x, x.copy().transpose(order).copy().transpose(
            np.argsort(order)))):  # fmt: skip
        to[...] = 0
        _native.move(to, source, (), 3)
        np.testing.assert_array_equal(to, source)


def test_bits_that_are_no_number_are_moved_as_they_are() -> None:
    bits = np.arange(0x7F800000, 0x7F800000 + 40 * 40, dtype=np.uint32).reshape(40, 40)  # infinity and signalling NaN
    out = np.zeros((40, 40), np.float32)
    _native.move(out, bits.view(np.float32).T, (), 1)
    np.testing.assert_array_equal(out.view(np.uint32), bits.T)


def test_what_does_not_fit_is_refused_before_anything_is_read() -> None:
    x, out = np.zeros((3, 4), np.float32), np.zeros((3, 5), np.float32)
    for places in ((), (None, np.zeros(4, np.int64)), (None, np.zeros(5, np.int32))):
        with pytest.raises(ValueError):
            _native.move(out, x, places, 1)
    for place in (4, -1):
        with pytest.raises(IndexError, match=f"place {place} is outside an axis of 4"):
            _native.move(out, x, (None, np.full(5, place)), 1)
    with pytest.raises(ValueError):
        _native.move(np.zeros((3, 4)), x, (), 1)
    with pytest.raises(ValueError):
        _native.matmul(out, x, np.zeros((5, 5), np.float32), 1)
    with pytest.raises(IndexError):
        taps = (np.full((2, 1), 7), np.ones((2, 1), np.float32))
        _native.resize(np.zeros((1, 2, 4, 1), np.float32), x.reshape(1, 3, 4, 1), taps, None, 1)


def wanted(how: str, x: Array) -> Array:
    """In long double."""
    w = x.astype(np.longdouble)
    if how in ("max", "min"):
        return getattr(w, how)(axis=1, keepdims=True, initial=-np.inf if how == "max" else np.inf)
    with np.errstate(invalid="ignore"):
        return {
            "sum": lambda: w.sum(axis=1, keepdims=True), "mean": lambda: w.sum(axis=1, keepdims=True) / x.shape[1],
            "squares": lambda: (w * w).sum(axis=1, keepdims=True), "magnitudes": lambda: abs(w).sum(1, keepdims=True),
            "norm": lambda: np.sqrt((w * w).sum(axis=1, keepdims=True)),
        }[how]()  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_reductions_are_as_good_as_their_type_whatever_is_summed(dtype: str) -> None:
    """No sum errs by more than two roundings of the sum of magnitudes, and threads change no bit."""
    rng = np.random.default_rng(2)
    for _ in range(CASES):
        terms, inner = int(rng.choice([1, 2, 17, 49, 300, 5000, 70000])), int(rng.choice([1, 3, 37, 1300]))
        sizes = [int(rng.integers(1, 5)), terms, inner]
        if np.prod(sizes) > 300_000:
            continue
        x = rng.standard_normal(sizes).astype(dtype)
        x = x[:, ::-1] if rng.random() < 0.3 else x
        how = str(rng.choice(["sum", "mean", "squares", "norm", "magnitudes", "max", "min"]))
        if how in ("max", "min") and rng.random() < 0.5:
            x[-1, sizes[1] // 2, 0] = np.nan
        found = [np.full((sizes[0], 1, sizes[2]), 7, dtype) for _ in range(2)]
        for out, threads in zip(found, (1, 3), strict=True):
            _native.reduce(how, out, x, threads)
        np.testing.assert_array_equal(*found)
        right = wanted(how, x)
        if how in ("max", "min"):
            np.testing.assert_array_equal(found[0], right)
            continue
        scale = abs(x.astype(np.longdouble)).sum(1, keepdims=True) / (sizes[1] if how == "mean" else 1)
        scale = scale if how in ("sum", "mean") else right
        assert np.max(abs(found[0] - right) / scale) <= 2 * np.finfo(dtype).eps, (sizes, how)


def test_reductions_of_nothing_and_of_what_is_infinite() -> None:
    for dtype in (np.float32, np.float64):
        nothing, out = np.zeros((2, 0, 3), dtype), np.zeros((2, 1, 3), dtype)
        for how, right in (("sum", 0), ("mean", np.nan), ("max", -np.inf), ("min", np.inf), ("norm", 0)):
            _native.reduce(how, out, nothing, 1)
            np.testing.assert_array_equal(out, np.full_like(out, right))
        x, one = np.ones((1, 100, 1), dtype), np.zeros((1, 1, 1), dtype)
        x[0, 50] = np.inf
        _native.reduce("sum", one, x, 1)
        assert one[0, 0, 0] == np.inf


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("how", ["max", "min"])
def test_places_of_extremes_are_those_of_numpy(how: str, last: bool) -> None:
    rng = np.random.default_rng(3)
    for sizes in ((1, 21, 300), (3, 7, 1), (2, 1, 5), (1, 1000, 1), (2, 33, 1100)):
        for dtype in (np.float32, np.float64):
            x = rng.integers(0, 5, sizes).astype(dtype)
            x.reshape(-1)[:: 50 if x.size > 50 else 1000] = np.nan
            out = np.zeros((sizes[0], 1, sizes[2]), np.int64)
            _native.extreme_places(how, last, out, x, 2)
            find = np.argmax if how == "max" else np.argmin
            right = sizes[1] - 1 - find(x[:, ::-1], axis=1) if last else find(x, axis=1)
            np.testing.assert_array_equal(out[:, 0], right)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_resizing_is_a_weighted_sum_along_each_axis(dtype: str) -> None:
    rng = np.random.default_rng(4)

    def taps(size: int, length: int) -> tuple[Array, Array]:
        count = int(rng.integers(1, 9))
        near = np.clip(np.arange(length)[:, None] * size // length + np.arange(count), 0, size - 1)
        places = near if rng.random() < 0.5 else rng.integers(0, size, (length, count))
        return places, rng.standard_normal((length, count)).astype(dtype)

    for _ in range(CASES):
        images, height, width = (int(rng.integers(1, most)) for most in (4, 9, 40))
        channels = 1 if rng.random() < 0.4 else int(rng.integers(1, 20))
        rows = taps(height, int(rng.integers(1, 20))) if rng.random() < 0.7 else None
        columns = taps(width, int(rng.integers(1, 90))) if rng.random() < 0.7 else None
        x = rng.standard_normal((images, height, width, channels)).astype(dtype)
        right = x.astype(np.longdouble)
        if rows is not None:
            right = np.einsum("nmtwc,mt->nmwc", right[:, rows[0]], rows[1])
        if columns is not None:
            right = np.einsum("nhmtc,mt->nhmc", right[:, :, columns[0]], columns[1])
        gap = int(rng.integers(0, 2))
        out = np.zeros((*right.shape[:3], channels + gap), dtype)
        _native.resize(out[..., :channels], x, rows, columns, 2)
        assert not out[..., channels:].any()
        scale = 1e-4 if dtype == "float32" else 1e-13
        np.testing.assert_allclose(out[..., :channels], right, rtol=scale, atol=20 * scale)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_of_two_values_are_those_of_numpy(dtype: str) -> None:
    """Odd sizes, any strides, batches that are repeated, sums that are long."""
    rng = np.random.default_rng(5)
    sizes = [1, 2, 3, 7, 8, 13, 16, 17, 33, 65, 130, 200]

    def drawn(shape: list[int]) -> Array:
        order = [int(axis) for axis in rng.permutation(len(shape))] if rng.random() < 0.5 else list(range(len(shape)))
        values = rng.standard_normal([shape[axis] for axis in order]).astype(dtype).transpose(np.argsort(order))
        return values[..., ::-1] if rng.random() < 0.1 else values

    for _ in range(CASES):
        m, n = (int(size) for size in rng.choice(sizes, 2))
        k = int(rng.choice([0, 1, 2, 5, 64, 100, 513, 1100, 4095, 4096, 4500]))
        if m * n * k > 3_000_000:
            continue
        batch = [int(rng.integers(1, 4)) for _ in range(int(rng.integers(0, 4)))] if m * n * k < 100_000 else []
        a, b = drawn([*batch, m, k]), drawn([*batch, k, n])
        if batch and rng.random() < 0.3:
            a = np.broadcast_to(a[:1], a.shape)
        found = [np.full([*batch, m, n], 7, dtype), drawn([*batch, m, n])]
        for out, threads in zip(found, (1, 2), strict=True):
            _native.matmul(out, a, b, threads)
        np.testing.assert_array_equal(*found)
        right = np.matmul(a.astype(np.longdouble), b.astype(np.longdouble))
        most = np.matmul(abs(a.astype(np.longdouble)), abs(b.astype(np.longdouble))) + np.finfo(dtype).tiny
        least = min(max(k, 1), 40) * np.finfo(dtype).eps
        assert np.max(abs(found[0] - right) / most) <= least, (batch, m, n, k)


def test_a_product_does_not_read_behind_its_matrices() -> None:
    """The last rows of a matrix that is read as it lies, whose panel would reach beyond its end."""
    memory = np.full(20 * 7 + 64, np.nan, np.float32)
    memory[: 20 * 7] = np.arange(20 * 7)
    b = memory[: 20 * 7].reshape(20, 7)
    a, out = np.ones((1, 20), np.float32), np.zeros((1, 7), np.float32)
    _native.matmul(out, a, b, 1)
    np.testing.assert_array_equal(out, a @ b)
