"""What must hold of any convolution, without a reference: identities of algebra, and the promises about bits,
threads, processes and memory layouts."""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from settings import COUNT

import fastconv
from fastconv import grad
from fastconv.testing.problems import ConvCase, conv_cases, fill

FLOAT_CASES = [case for case in conv_cases(min(1000, COUNT)) if case.is_float]
FLOAT32_CASES = [case for case in FLOAT_CASES if case.dtypes[0] == "float32"]
# Large enough that the work is shared among threads, with channel counts and rows that no tile divides.
THREADED: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((3, 35, 31, 29), (67, 35, 3, 3), {"padding": 1}),
    ((2, 130, 13, 11), (200, 130, 1, 1), {}),
    ((3, 66, 40, 23), (66, 1, 3, 3), {"padding": 1, "groups": 66}),
    ((2, 3, 65, 67), (40, 3, 7, 7), {"padding": 3, "stride": 2}),
    ((2, 24, 30, 30), (36, 12, 3, 2), {"padding": 2, "dilation": 2, "groups": 2, "padding_mode": "reflect"}),
    ((1, 256, 7, 9), (300, 256, 3, 3), {"padding": "same"}),
    ((5, 16, 16, 16), (16, 16, 3, 3), {"padding": "full"}),
    ((2, 72, 44, 43), (60, 72, 3, 3), {"padding": 1}),  # 'auto' takes Winograd in single precision
]
formats = pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])


def problem(x_shape: Any, w_shape: Any, data_format: str = "NCHW", dtype: str = "float32") -> Any:
    rng = np.random.default_rng(0)
    x, w, b = fill(rng, x_shape, dtype), fill(rng, w_shape, dtype), fill(rng, w_shape[:1], dtype)
    if data_format == "NHWC":
        x, w = x.transpose(0, 2, 3, 1).copy(), w.transpose(2, 3, 1, 0).copy()
    return x, w, b


def same_bits(*arrays: np.ndarray) -> bool:
    first = arrays[0]
    return all(a.dtype == first.dtype and a.shape == first.shape and a.tobytes() == first.tobytes() for a in arrays)


def inner(a: np.ndarray, b: np.ndarray) -> float:
    return float((a.astype(np.float64) * b.astype(np.float64)).sum())


def split_cases(cases: list[ConvCase], size: int) -> list[list[ConvCase]]:
    return [cases[start : start + size] for start in range(0, len(cases), size)]


# ---- Algebra --------------------------------------------------------------------------------------------------------


def test_pool_gradients_are_finite_differences():
    x = np.random.default_rng(0).permutation(2 * 3 * 7 * 6).reshape(2, 3, 7, 6) / 10  # no ties
    for forward, backward in (
        (
            lambda x: fastconv.max_pool2d(x, 3, 2, 1, ceil_mode=True),
            lambda dy: grad.max_pool2d_input(x, 3, dy, 2, 1, ceil_mode=True),
        ),
        (
            lambda x: fastconv.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
            lambda dy: grad.avg_pool2d_input(x.shape, 3, dy, 2, 1, ceil_mode=True, count_include_pad=False),
        ),
    ):
        dy = np.random.default_rng(1).standard_normal(forward(x).shape)
        dx = backward(dy)
        for at in range(0, x.size, 7):
            sides = []
            for step in (1e-4, -1e-4):
                moved = x.copy()
                moved.flat[at] += step
                sides.append(inner(forward(moved), dy))
            assert dx.flat[at] == pytest.approx((sides[0] - sides[1]) / 2e-4, abs=1e-6)


def test_linear_in_input_and_in_weight():
    for case in FLOAT32_CASES[:150]:
        options = {**case.options(), "algorithm": "direct"}
        x, w, _ = case.arrays("integers")
        x2 = fill(case.rng("x2"), x.shape, "float32", "integers")
        w2 = fill(case.rng("w2"), w.shape, "float32", "integers")
        y = fastconv.conv2d(x, w, **options)
        both = 2 * y - 3 * fastconv.conv2d(x2, w, **options)
        np.testing.assert_array_equal(fastconv.conv2d(2 * x - 3 * x2, w, **options), both, str(case))
        both = 2 * y - 3 * fastconv.conv2d(x, w2, **options)
        np.testing.assert_array_equal(fastconv.conv2d(x, 2 * w - 3 * w2, **options), both, str(case))


@pytest.mark.parametrize("stride", [1, 2, 3])
@formats
def test_a_shifted_input_shifts_the_output(stride, data_format):
    x, w, b = problem((2, 9, 30, 31), (10, 9, 3, 3), data_format)
    rows = 1 if data_format == "NHWC" else 2
    y = fastconv.conv2d(x, w, b, stride, data_format=data_format)
    shifted = np.take(x, range(stride, x.shape[rows]), rows)
    moved = fastconv.conv2d(shifted, w, b, stride, data_format=data_format)
    assert same_bits(moved, np.take(y, range(1, moved.shape[rows] + 1), rows))


@pytest.mark.parametrize("groups, per_group, outputs", [(2, 5, 9), (3, 1, 2), (16, 1, 1), (4, 8, 8)])
def test_groups_are_a_block_diagonal_weight(groups, per_group, outputs):
    rng = np.random.default_rng(0)
    x = fill(rng, (2, groups * per_group, 8, 9), "float32", "integers")
    w = fill(rng, (groups * outputs, per_group, 3, 3), "float32", "integers")
    dense = np.zeros((groups * outputs, groups * per_group, 3, 3), np.float32)
    for g in range(groups):
        rows, columns = slice(g * outputs, (g + 1) * outputs), slice(g * per_group, (g + 1) * per_group)
        dense[rows, columns] = w[rows]
    y = fastconv.conv2d(x, w, padding=1, groups=groups, algorithm="direct")
    np.testing.assert_array_equal(y, fastconv.conv2d(x, dense, padding=1, algorithm="direct"))
    dy = fill(rng, y.shape, "float32", "integers")
    dx, dw, _ = fastconv.conv2d_backward(dy, x, w, padding=1, groups=groups, algorithm="direct")
    dx_dense, dw_dense, _ = fastconv.conv2d_backward(dy, x, dense, padding=1, algorithm="direct")
    np.testing.assert_array_equal(dx, dx_dense)
    for g in range(groups):
        rows, columns = slice(g * outputs, (g + 1) * outputs), slice(g * per_group, (g + 1) * per_group)
        np.testing.assert_array_equal(dw[rows], dw_dense[rows, columns])


@pytest.mark.parametrize("dilation", [(2, 1), (3, 2), (2, 3)])
def test_dilation_is_a_kernel_with_zeros_between(dilation):
    rng = np.random.default_rng(0)
    x, w = fill(rng, (2, 5, 17, 16), "float32", "integers"), fill(rng, (7, 5, 3, 4), "float32", "integers")
    spread = np.zeros((7, 5, 2 * dilation[0] + 1, 3 * dilation[1] + 1), np.float32)
    spread[:, :, :: dilation[0], :: dilation[1]] = w
    for stride in (1, 2):
        for padding in (0, 2, "same", "full"):
            np.testing.assert_array_equal(
                fastconv.conv2d(x, w, None, stride, padding, dilation, algorithm="direct"),
                fastconv.conv2d(x, spread, None, stride, padding, algorithm="direct"),
            )


def test_transposed_convolution_is_the_input_gradient():
    for case in (c for c in FLOAT_CASES[:400] if c.padding_mode == "zeros" and 0 not in c.size):
        x, w, _ = case.arrays("reals")
        options = case.options()
        y = fastconv.conv2d(x, w, **options)
        dy = fill(case.rng("dy"), y.shape, case.dtypes[0])
        dx = grad.conv2d_input(x.shape, w, dy, **options)
        del options["padding_mode"]
        plane, out = (np.array(s[-3:-1] if case.channels_last else s[-2:]) for s in (x.shape, y.shape))
        stride, dilation = (np.broadcast_to(case.options()[name], 2) for name in ("stride", "dilation"))
        if isinstance(case.padding, str) and (case.padding.lower().startswith("same") or (stride > 1).any()):
            continue  # the words count from the other side
        pads = np.zeros((2, 2), int) + _pads(case, dilation)
        extra = plane - ((out - 1) * stride - pads.sum(1) + dilation * (np.array(case.kernel) - 1) + 1)
        if (extra >= np.maximum(stride, dilation)).any():
            continue
        options["padding"] = tuple(map(tuple, pads.tolist()))
        again = fastconv.conv_transpose2d(dy, w, output_padding=tuple(extra.tolist()), **options)
        assert same_bits(dx, again), str(case)


def _pads(case: ConvCase, dilation: np.ndarray) -> np.ndarray:
    if isinstance(case.padding, str):
        full = dilation * (np.array(case.kernel) - 1)
        return (np.stack([full, full], 1) if case.padding.lower() == "full" else np.zeros((2, 2), int)).astype(int)
    if isinstance(case.padding, int):
        return np.full((2, 2), case.padding)
    return np.array([p if isinstance(p, tuple) else (p, p) for p in case.padding])


def test_one_tile_is_a_convolution_and_as_many_as_pixels_are_local_weights():
    rng = np.random.default_rng(0)
    x = fill(rng, (2, 4, 6, 7), "float32", "integers")
    w = fill(rng, (4, 5, 3, 4, 3, 3), "float32", "integers")
    y = fastconv.tiled_conv2d(x, w)
    for p, q in np.ndindex(4, 5):
        window = x[:, :, p : p + 3, q : q + 3]
        np.testing.assert_array_equal(y[:, :, p, q], fastconv.conv2d(window, w[p, q])[:, :, 0, 0])
    one = fastconv.tiled_conv2d(x, w[:1, :1], padding=1)
    np.testing.assert_array_equal(one, fastconv.conv2d(x, w[0, 0], padding=1))


# ---- The same bits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cases", split_cases(FLOAT_CASES, 100), ids=lambda c: f"{c[0].index}-{c[-1].index}")
def test_bits_of_small_cases(cases):
    """Threads and batch splits, over the generated geometries."""
    for case in cases:
        x, w, b = case.arrays("reals")
        options = {**case.options(), "activation": case.activation}
        y = fastconv.conv2d(x, w, b, **options, num_threads=1)
        for threads in (2, 7):
            assert same_bits(y, fastconv.conv2d(x, w, b, **options, num_threads=threads)), str(case)
        if case.batch:
            parts = [fastconv.conv2d(x[i : i + 1], w, b, **options) for i in range(case.batch)]
            assert same_bits(y, np.concatenate(parts)), str(case)


def test_the_cap_on_threads_holds_in_every_thread():
    before = fastconv.get_num_threads()
    try:
        fastconv.set_num_threads(1)
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.append(fastconv.get_num_threads()))
        thread.start()
        thread.join(60)
        assert seen == [1]
    finally:
        fastconv.set_num_threads(before)


# ---- Threads and processes ------------------------------------------------------------------------------------------


def _calls() -> dict[str, Callable[[], Any]]:
    """A call of each kind that takes a good part of a second."""
    rng = np.random.default_rng(0)
    x, w = fill(rng, (8, 128, 64, 64), "float32"), fill(rng, (128, 128, 3, 3), "float32")
    y = np.ones((8, 128, 64, 64), np.float32)
    return {
        "conv2d": lambda: fastconv.conv2d(x, w, padding=1, num_threads=1),
        "grad_input": lambda: grad.conv2d_input(x.shape, w, y, padding=1, num_threads=1),
        "grad_weight": lambda: grad.conv2d_weight(x, w.shape, y, padding=1, num_threads=1),
    }


@pytest.mark.parametrize("name", ["conv2d", "grad_input", "grad_weight"])
def test_the_interpreter_lock_is_released(name):
    """Another thread of Python runs while a call does: it must see a moment well inside the call."""
    call = _calls()[name]
    call()
    ticks: list[float] = []
    stop = threading.Event()

    def tick() -> None:
        while not stop.wait(0.001):
            ticks.append(time.monotonic())

    ticker = threading.Thread(target=tick)
    ticker.start()
    try:
        for _ in range(5):
            begin = time.monotonic()
            call()
            end = time.monotonic()
            inside = [t for t in ticks if begin + 0.2 * (end - begin) < t < end - 0.2 * (end - begin)]
            if inside:
                return
    finally:
        stop.set()
        ticker.join(60)
    pytest.fail(f"no other thread ran during {end - begin:.3f} seconds of {name}")




# ---- Memory layouts -------------------------------------------------------------------------------------------------


def _channels_last_memory(a: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, -3, -1)), -1, -3) if a.ndim >= 3 else a.copy()


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (3,), (2, 3), (0, 1), (0, 1, 2, 3)])
@pytest.mark.parametrize("channels, outputs, groups", [(9, 8, 1), (36, 8, 4), (64, 64, 1), (6, 6, 6)])
def test_broadcast_weights(channels, outputs, groups, axes):
    """Several taps, channels or outputs that are one element in memory."""
    rng = np.random.default_rng(0)
    shape = (outputs, channels // groups, 3, 4)
    one = fill(rng, tuple(1 if axis in axes else n for axis, n in enumerate(shape)), "float32", "integers")
    w = np.broadcast_to(one, shape)
    x = fill(rng, (1, channels, 7, 8), "float32", "integers")
    options: dict[str, Any] = {"groups": groups, "algorithm": "direct"}
    y = fastconv.conv2d(x, w, **options)
    assert same_bits(y, fastconv.conv2d(x, w.copy(), **options))
    assert same_bits(y, fastconv.plan_conv2d(x.shape, w, **options).run(x))
    dx, other = (grad.conv2d_input(x.shape, weight, y, **options) for weight in (w, w.copy()))
    assert same_bits(dx, other)


def test_channels_last_memory_gives_channels_last_memory():
    x, w, b = problem((2, 5, 7, 8), (6, 5, 3, 3))
    y = fastconv.conv2d(_channels_last_memory(x), w, b)
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous
    assert fastconv.conv2d(x, w, b).flags.c_contiguous


def test_inputs_are_left_alone():
    for case in conv_cases(200):
        x, w, b = case.arrays("reals")
        copies = [None if a is None else a.copy() for a in (x, w, b)]
        y = fastconv.conv2d(x, w, b, **case.options())
        fastconv.conv2d_backward(np.ones_like(y, dtype=x.dtype), x, w, **case.options())
        for array, copy in zip((x, w, b), copies, strict=True):
            assert array is None or same_bits(array, copy)
