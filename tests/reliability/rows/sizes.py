"""Sizes beyond every integer and every memory, and arrays of more than 2**31 elements and 2**32 bytes."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import fastconv
from fastconv import grad, reference
from reliability.board import Outcome, row

Array = np.ndarray[Any, Any]
SECONDS = 20  # a call that takes longer computes what it should have refused
ADDRESS_SPACE = 4 << 30  # bytes that the calls may ask for: what is larger must be a MemoryError, not an attempt
NEAR = [2**e + d for e in (31, 32, 33, 40, 61, 62, 63, 64) for d in (-1, 0, 1)]  # where a size may wrap


@row(
    "size arithmetic that overflows: padding, dilation, stride, shapes near 2**31, 2**32, 2**63",
    "1,000 cases, each an error",
    quick=1_000, full=1_000, order=80,
)  # fmt: skip
def overflowing_sizes(count: int) -> Outcome:
    """Every result would take 256 GiB or more: ConvError where the size can't be told, else MemoryError."""
    outcome = Outcome()
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE, resource.RLIM_INFINITY))
    kinds: dict[str, int] = {}
    for what, call in _overflowing(np.random.default_rng(8)):
        print(what, flush=True)  # the last words of a crash, and of a call that the alarm ends
        signal.alarm(SECONDS)
        try:
            result = call()
        except (fastconv.ConvError, fastconv.ConvTypeError, MemoryError) as error:
            kinds[type(error).__name__] = kinds.get(type(error).__name__, 0) + 1
            outcome.check(True, "")
        except Exception as error:
            outcome.check(False, f"{what}: {type(error).__name__}: {error}")
        else:
            outcome.check(False, f"{what}: accepted, with a result of shape {getattr(result, 'shape', None)}")
        signal.alarm(0)
        if outcome.cases >= count:
            break
    outcome.measured = ", ".join(f"{number} {name}" for name, number in sorted(kinds.items()))
    return outcome


def _overflowing(rng: np.random.Generator) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Calls whose result has at least 2**38 bytes; large arrays are one element seen from everywhere."""

    def pick(values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    def spread(dtype: str, *shape: int) -> Array:
        return np.broadcast_to(np.ones((), dtype), shape)

    while True:
        dtype = pick(("float32", "float64", "float16", "int8", "int64"))
        near, kernel = pick(NEAR), int(rng.integers(1, 4))
        x, w = np.ones((1, 1, 5, 5), dtype), np.ones((2, 1, kernel, kernel), dtype)
        wide = pick((2**36, 2**40, 2**45, 2**50, 2**55))
        floating = dtype.startswith("float")
        pad = pick((near, (near, 1), ((0, near), (1, 1)), ((near, near), (near, near))))
        large = max(near, 2**40)
        pad = large if isinstance(pad, int) else pad if near >= 2**40 else ((large, 0), (0, 0))
        # bound now: a generator's variables change while a call waits
        yield f"conv2d, {dtype}, padding {pad}", lambda x=x, w=w, p=pad: fastconv.conv2d(x, w, padding=p)
        yield f"explain_conv2d, {dtype}, input {near} x {near} x 2**40", (
            lambda n=near, d=dtype: fastconv.explain_conv2d((2**40, 1, n, n), (2, 1, 1, 1), dtype=d)
        )
        if kernel > 1:
            yield f"conv2d, {dtype}, kernel {kernel}, dilation {large}, full padding", (
                lambda x=x, w=w, n=large: fastconv.conv2d(x, w, dilation=n, padding="full")
            )
            yield f"conv_transpose2d, {dtype}, kernel {kernel}, dilation {large}", (
                lambda x=x, w=w, n=large: fastconv.conv_transpose2d(x, w[:1], dilation=n)
            )
        yield f"conv_transpose2d, {dtype}, stride {large}", (
            lambda x=x, w=w, n=large: fastconv.conv_transpose2d(x, w[:1], stride=n)
        )
        yield f"conv_transpose2d, {dtype}, stride, output_padding {large}", (
            lambda x=x, w=w, n=large: fastconv.conv_transpose2d(x, w[:1], stride=n, output_padding=n - 1)
        )
        shape = pick(((1, 1, wide, 3), (wide, 1, 3, 3), (1, 1, 2**25, wide >> 25), (wide >> 20, 1, 2**10, 2**10)))
        many = spread(dtype, *shape)
        outputs, most, dy = spread(dtype, 64, 1, 1, 1), spread(dtype, wide, 1, 1, 1), spread(dtype, 1, wide, 5, 5)
        yield f"conv2d, {dtype}, input {shape}", lambda x=many, w=outputs: fastconv.conv2d(x, w)
        yield f"conv2d, {dtype}, {wide} output channels", (
            lambda w=most: fastconv.conv2d(np.ones((1, 1, 5, 5), w.dtype), w)
        )
        yield f"conv2d with the channels last, {dtype}, input {shape}", (
            lambda x=many, d=dtype: fastconv.conv2d(
                np.moveaxis(x, 1, -1), np.ones((1, 1, 1, 64), d), data_format="NHWC"
            )
        )
        yield f"tiled_conv2d, {dtype}, input {shape}", (
            lambda x=many, d=dtype: fastconv.tiled_conv2d(x, np.ones((1, 1, 64, 1, 1, 1), d))
        )
        yield f"max_pool2d, {dtype}, input {shape}", (
            lambda x=many: fastconv.max_pool2d(x, 1, return_indices=True)
        )
        yield f"plan_conv2d, {dtype}, {wide} output channels", (
            lambda w=most: fastconv.plan_conv2d((1, 1, 5, 5), w)
        )
        yield f"grad.conv2d_weight, {dtype}, {wide} output channels", (
            lambda d=dtype, n=wide, dy=dy: grad.conv2d_weight(
                np.ones((1, 1, 5, 5), d), (n, 1, 1, 1), dy
            )
        )
        one = np.ones((1, 1, 1, 1), dtype)
        yield f"grad.conv2d_input, {dtype}, stride {large}", (
            lambda n=large, w=one: grad.conv2d_input((1, 1, n, 1), w, w, stride=n)
        )
        if floating:
            yield f"avg_pool2d, {dtype}, input {shape}", lambda x=many: fastconv.avg_pool2d(x, 1)
            yield f"grad.avg_pool2d_input, {dtype}, stride {large}", (
                lambda n=large, dy=one: grad.avg_pool2d_input((1, 1, n, 1), 1, dy, stride=n)
            )


@row(
    "more than 2**31 elements and 2**32 bytes (lazily mapped zeros, markers, large stride)",
    "12 cases right, resident memory < 2 GiB",
    quick=None, full=12, order=70,
)  # fmt: skip
def large_arrays(count: int) -> Outcome:
    """Zeros with a few marked values around 2**31 elements and 2**32 bytes, beside the same values close together."""
    outcome = Outcome()
    for what, ours, expected in _large():
        outcome.check(bool(np.array_equal(ours, expected) and ours.any()), what)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if resident >= 2:
        outcome.fail(f"{resident:.1f} GiB were resident")
    outcome.measured = f"at most {resident:.2f} GiB resident"
    return outcome


def _marked(dtype: str, *shape: int, axis: int, step: int, taps: int = 3) -> tuple[Array, Array]:
    """Zeros with numbers under the taps of every `step`-th window along an axis, and these windows side by side."""
    large = np.zeros(shape, dtype)
    windows = np.moveaxis(large, axis, 0)
    count = (shape[axis] - taps) // step + 1
    kept = np.zeros((count * taps, *windows.shape[1:]), dtype)
    for number in range(count):
        for tap in range(taps):
            windows[number * step + tap] = kept[number * taps + tap] = (number * 7 + tap * 3) % 11 - 4
    return large, np.moveaxis(kept, 0, axis)


def _large() -> Iterator[tuple[str, Array, Array]]:
    """What it is, our result, the reference's of the small array."""
    w = np.arange(1, 10, dtype=np.float32).reshape(1, 1, 3, 3)
    step = 2**24 + 3
    for dtype, length in (("float32", 2**31 + 2**25), ("int8", 2**32 + 2**25), ("float64", 2**29 + 2**25)):
        kernel = w[..., :1, :].astype(dtype)
        x, small = _marked(dtype, 1, 1, 1, length, axis=3, step=step)
        y = reference.conv2d(small, kernel, stride=(1, 3))
        yield f"conv2d, {dtype}, {length:,} columns", fastconv.conv2d(x, kernel, stride=(1, step)), y
        wide = (1, step)
        if dtype == "float32":
            dw = grad.conv2d_weight(x, kernel.shape, y, stride=wide)
            yield f"its weight gradient, {dtype}", dw, reference.conv2d_weight(small, kernel.shape, y, stride=(1, 3))
            yield f"avg_pool2d, {dtype}", fastconv.avg_pool2d(x, (1, 3), wide), reference.avg_pool2d(small, (1, 3))
            last = np.moveaxis(x, 1, 3)
            got = fastconv.conv2d(last, kernel.reshape(1, 3, 1, 1), stride=wide, data_format="NHWC")
            yield "channels last", got, np.moveaxis(y, 1, 3)
        else:
            most, place = fastconv.max_pool2d(x, (1, 3), wide, return_indices=True)
            near, near_place = reference.max_pool2d(small, (1, 3), return_indices=True)
            yield f"max_pool2d, {dtype}", most, near
            yield f"its indices, {dtype}", place, near_place // 3 * step + near_place % 3
        del x
    x, small = _marked("float32", 1, 1, 2**31 // 2**10 + 2**8, 2**10, axis=2, step=2**15 + 1)
    got = fastconv.conv2d(x, w, stride=(2**15 + 1, 2**7))
    yield "rows far apart", got, reference.conv2d(small, w, stride=(3, 2**7))
    del x
    target = np.zeros((1, 1, 65, 2**26), np.float32)  # 2**32 elements between the first output and the last
    view = target[..., :: 2**24]
    image = (np.arange(65 * 4, dtype=np.float32) % 13).reshape(1, 1, 65, 4)
    fastconv.conv2d(image, w, padding=1, out=view)
    yield "an output whose elements lie far apart", view, reference.conv2d(image, w, padding=1)
    yield "an input whose elements lie far apart", fastconv.conv2d(view, w, padding=1), reference.conv2d(
        view.copy(), w, padding=1
    )
