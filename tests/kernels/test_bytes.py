"""Bytes in native code, against NumPy: products four at a time, depthwise rows, and the lines between convolutions."""

from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import _native, reference
from fastconv._core.geometry import conv_geometry
from fastconv._core.quantised import QuantisedPlan, Requantise

KINDS = ["int8", "uint8"]


def drawn(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """All bytes, with as many extreme ones as others."""
    info = np.iinfo(kind)
    x = rng.integers(info.min, info.max + 1, shape)
    return np.where(rng.random(shape) < 0.5, x, rng.choice([info.min, info.max], shape)).astype(kind)


def plan_of(
    rng: np.random.Generator, x: Any, w: Any, stride: Any, padding: Any, dilation: Any, groups: int, kind: str,
    **how: Any,
) -> tuple[QuantisedPlan, Any]:  # fmt: skip
    """A plan with drawn zeros and multipliers, and its result by way of int64."""
    info, own = np.iinfo(kind), np.iinfo(x.dtype)
    sides = tuple((p, p) for p in padding)
    g = conv_geometry(x.shape, w.shape, stride, sides, dilation, groups, name="test")
    zero = int(rng.integers(own.min, own.max + 1))
    low, high = sorted(int(v) for v in rng.integers(info.min, info.max + 1, 2))
    multiplier = (rng.random(len(w)) * 4 / max(1, np.prod(w.shape[1:])) / 100).astype(np.float32)
    made = Requantise(multiplier, int(rng.integers(info.min, info.max + 1)), low, high, np.dtype(kind))
    bias = rng.integers(-5000, 5000, len(w)).astype(np.int32)
    plan = QuantisedPlan(g, w, np.zeros(1, np.int8), x.dtype, zero, bias, made, **how)
    sums = reference.conv2d(x.astype(np.int64) - zero, w.astype(np.int64), bias.astype(np.int64), stride, padding,
                            dilation, groups)  # fmt: skip
    return plan, made(sums.astype(np.int32), 1)


@pytest.mark.parametrize("x_kind", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_depthwise_of_every_size(x_kind: str, kind: str) -> None:
    """Kernels of one to nine rows and columns, strides, dilations, padding; 2 to 150 channels, three threads or one."""
    rng = np.random.default_rng(3)
    kernels = ((3, 3), (3, 3), (1, 3), (3, 1), (5, 5), (4, 2), (7, 7), (2, 9), (9, 3))
    for at, channels in enumerate((2, 15, 16, 17, 32, 33, 64, 65, 96, 100, 128, 150)):
        for kernel in (kernels[at % len(kernels)], (3, 3)):
            stride, dilation = tuple(rng.integers(1, 4, 2)), (1, 1)
            if kernel != (3, 3):
                dilation = tuple(rng.integers(1, 3, 2))
            padding = tuple(int(k) for k in rng.integers(0, 4, 2))
            size = tuple(int(n) for n in rng.integers(9, 30, 2))
            reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
            size = tuple(max(n, r) for n, r in zip(size, reach, strict=True))
            x, w = drawn(rng, x_kind, (2, channels, *size)), drawn(rng, "int8", (channels, 1, *kernel))
            plan, expected = plan_of(rng, x, w, stride, padding, dilation, channels, kind, threads=1 + 2 * (at % 2))
            told = f"{channels} channels, {kernel}, stride {stride}, dilation {dilation}, padding {padding}, {size}"
            np.testing.assert_array_equal(plan.run(x), expected, err_msg=told)
            last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
            np.testing.assert_array_equal(plan.run(last), expected, err_msg=f"{told}, channels last")


@pytest.mark.parametrize("x_kind", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_dense_of_every_panel(x_kind: str, kind: str) -> None:
    """Panels of one to four vectors, the last one in parts; channels that are no multiple of four; both layouts."""
    rng = np.random.default_rng(4)
    for outputs in (1, 15, 16, 17, 31, 33, 48, 63, 64, 65, 130):
        for channels, kernel in ((3, (3, 2)), (5, (1, 1)), (16, (1, 1)), (30, (2, 3))):
            x, w = drawn(rng, x_kind, (2, channels, 9, 21)), drawn(rng, "int8", (outputs, channels, *kernel))
            stride, padding = (1, int(rng.integers(1, 3))), (int(kernel[0] > 1), int(kernel[1] > 1))
            plan, expected = plan_of(rng, x, w, stride, padding, (1, 1), 1, kind)
            told = f"{outputs} of {channels}, {kernel}, stride {stride}"
            np.testing.assert_array_equal(plan.run(x), expected, err_msg=told)
            last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
            out = np.zeros((2, *expected.shape[2:], outputs), kind).transpose(0, 3, 1, 2)
            plan.run(last, out)
            np.testing.assert_array_equal(out, expected, err_msg=f"{told}, channels last")


def test_multipliers_beyond_every_limit() -> None:
    """Sums times multipliers that no integer holds become the nearest limit, in dense layers and depthwise ones."""
    x = np.full((1, 32, 5, 5), 200, np.uint8)
    made = Requantise(np.array([1e30], np.float32), 3, 0, 255, np.dtype(np.uint8))
    for groups, shape in ((1, (64, 32, 1, 1)), (32, (32, 1, 3, 3)), (1, (20, 32, 1, 1))):
        for sign in (-1, 1):
            w = np.full(shape, sign * 100, np.int8)
            g = conv_geometry(x.shape, shape, (1, 1), ((0, 0), (0, 0)), (1, 1), groups, name="test")
            y = QuantisedPlan(g, w, np.zeros(1, np.int8), np.uint8, 0, None, made).run(x)
            assert (y == (255 if sign > 0 else 0)).all()


@pytest.mark.parametrize("x_kind", KINDS)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_exact_sums_of_bytes(x_kind: str, layout: str) -> None:
    """conv2d of bytes and int8 weights, with what padding and signs add to the sums taken off again."""
    rng = np.random.default_rng(5)
    for channels, outputs, kernel in ((3, 20, 3), (4, 64, 1), (17, 33, 5), (40, 7, 2), (64, 130, 3)):
        for mode, dilation in (("zeros", 1), ("zeros", 3), ("reflect", 1)):
            x, w = drawn(rng, x_kind, (2, channels, 12, 21)), drawn(rng, "int8", (outputs, channels, kernel, kernel))
            bias = rng.integers(-100, 100, outputs).astype(np.int32)
            last = layout == "NHWC"
            if last:
                x, w = np.ascontiguousarray(x.transpose(0, 2, 3, 1)), np.ascontiguousarray(w.transpose(2, 3, 1, 0))
            options: dict[str, Any] = {"padding_mode": mode, "data_format": layout, "activation": "relu"}
            y = fastconv.conv2d(x, w, bias, 1, 2 * dilation, dilation, **options)
            np.testing.assert_array_equal(y, reference.conv2d(x, w, bias, 1, 2 * dilation, dilation, **options))


@pytest.mark.parametrize("kind", KINDS)
def test_sum_of_every_pair_of_bytes(kind: str) -> None:
    """All 65,536 pairs: dequantised, added, quantised, in float32 step by step, in steps where many are near a half."""
    info, whole = np.iinfo(kind), np.arange(256, dtype=np.uint8).view(kind)
    a, b = (np.ascontiguousarray(half.ravel()) for half in np.meshgrid(whole, whole))
    for scales in (
        (0.1, 0.1, 0.2), (0.017, 0.033, 0.041), (1.0, 0.5, 1.0), (3e-5, 2e-5, 1e-7), (0.1, -0.3, 0.07),
        (1.0, 1.0, 1e-38),
    ):  # fmt: skip
        sa, sb, sy = (np.float32(scale) for scale in scales)
        za, zb, zy = info.min + 100, info.min + 3, info.min + 131
        low, high = info.min + 20, info.max - 30
        real = (a.astype(np.float32) - np.float32(za)) * sa + (b.astype(np.float32) - np.float32(zb)) * sb
        with np.errstate(over="ignore"):
            expected = np.clip(np.rint(real / sy), low - zy, high - zy) + zy
        out = np.empty_like(a)
        _native.bytes_add(out, a, b, float(sa), za, float(sb), zb, float(sy), zy, low, high, kind == "int8", 2)
        np.testing.assert_array_equal(out, expected.astype(kind), err_msg=str(scales))


@pytest.mark.parametrize("kind", KINDS)
def test_lines_of_bytes(kind: str) -> None:
    """Quantised and back, looked up, and means, at lengths around those of vectors and tasks."""
    info, rng = np.iinfo(kind), np.random.default_rng(6)
    signed = kind == "int8"
    for count in (0, 1, 15, 16, 63, 65, 1000, 40001):
        x = (rng.normal(size=count) * 40).astype(np.float32)
        x[:5] = np.array([np.nan, np.inf, -np.inf, 0.5 * 0.3, 1.5 * 0.3], np.float32)[: min(5, count)]
        zero, scale, out = info.min + 77, np.float32(0.3), np.empty(count, kind)
        _native.bytes_quantise(out, x, float(scale), zero, info.min, info.max, signed, 2)
        known = np.rint(np.nan_to_num(x / scale, nan=-1e9, posinf=1e9, neginf=-1e9)) + zero
        np.testing.assert_array_equal(out, np.clip(known, info.min, info.max).astype(kind))
        back = np.empty(count, np.float32)
        _native.bytes_dequantise(back, out, float(scale), zero, signed, 2)
        np.testing.assert_array_equal(back, (out.astype(np.float32) - np.float32(zero)) * scale)
        table = rng.integers(0, 256, 256).astype(np.uint8)
        found = np.empty(count, np.uint8)
        _native.bytes_look_up(found, out.view(np.uint8), table, 2)
        np.testing.assert_array_equal(found, table[out.view(np.uint8)])
    for rows, channels in ((1, 1), (49, 17), (9, 64), (200, 130)):
        x_ = drawn(rng, kind, (3, 1, rows, channels))
        y = np.empty((3, channels), kind)
        _native.bytes_mean(y, x_, 0.7 / rows, 5, 9, info.min, info.max, signed, signed, 2)
        sums = x_.astype(np.int64).sum((1, 2)) - 5 * rows
        expected = np.rint(sums.astype(np.float32) * np.float32(0.7 / rows)) + 9
        np.testing.assert_array_equal(y, np.clip(expected, info.min, info.max).astype(kind))


def test_rows_of_bytes() -> None:
    """A part of the channels into a part of others': rows that lie apart, short and long ones."""
    rng = np.random.default_rng(8)
    for rows, count in ((1, 7), (50, 20), (3, 40000), (2000, 33)):
        x, table = drawn(rng, "uint8", (rows, 2 * count))[:, count:], rng.integers(0, 256, 256).astype(np.uint8)
        whole = np.zeros((rows, count + 5), np.uint8)
        _native.bytes_look_up(whole[:, 3 : 3 + count], x, table, 2)
        np.testing.assert_array_equal(whole[:, 3 : 3 + count], table[x])
        assert not whole[:, :3].any() and not whole[:, 3 + count :].any()
        _native.bytes_add(
            whole[:, 5:], x, whole[:, 3:-2].copy(), 0.5, 3, 0.25, 100, 0.75, 7, 0, 255, False, 2
        )  # fmt: skip
        real = (x.astype(np.float32) - 3) * np.float32(0.5) + (table[x].astype(np.float32) - 100) * np.float32(0.25)
        expected = np.clip(np.rint(real / np.float32(0.75)) + 7, 0, 255)
        np.testing.assert_array_equal(whole[:, 5:], expected.astype(np.uint8))


def test_lines_that_do_not_lie_side_by_side_are_refused() -> None:
    """In place of reading something else."""
    x, y = np.zeros(10, np.float32), np.zeros(20, np.uint8)
    for out in (y[::2], y[:9], y.reshape(2, 10), y.reshape(2, 5, 2)):
        with pytest.raises(ValueError, match="side by side"):
            _native.bytes_quantise(out, x, 1.0, 0, 0, 255, False, 1)
    with pytest.raises(ValueError, match="side by side"):
        _native.bytes_look_up(y, y, np.zeros(255, np.uint8), 1)
