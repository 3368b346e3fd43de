"""Arrays without elements: the right shape, and no division by a zero length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np

import fastconv
from fastconv import grad, reference
from reliability.board import Outcome, row
from reliability.oracle import Array

FULL = (2, 4, 6, 5, 4, 3, 2)  # N, C, H, W, O, kH, kW
Twins = tuple[str, Callable[..., Any], Callable[..., Any], tuple[Any, ...], dict[str, Any]]


@row("0 in every axis x every operation", "100 %, no SIGFPE", quick=128, full=128, order=100, every_isa=True)
def empty_axes(count: int) -> Outcome:
    """Every mask of zeros over (N, C, H, W, O, kH, kW): an answer equal to the reference's, or the same refusal."""
    outcome = Outcome()
    names: set[str] = set()
    refused = 0
    for mask, padding, last, groups in product(product((1, 0), repeat=7), (0, 2), (False, True), (1, 2)):
        shape = tuple(full * keep for full, keep in zip(FULL, mask, strict=True))
        dtype = "float32" if groups == 1 else "int16"
        for name, ours, theirs, arguments, options in _calls(shape, padding, last, groups, dtype):
            names.add(name)
            wrong, refusal = _compared(ours, theirs, arguments, options)
            refused += refusal
            outcome.check(wrong is None, f"{name}, N C H W O kH kW = {shape}, {options}: {wrong}")
    for shape, padding, last in product(product((2, 0), (3, 0), (5, 0), (4, 0), (3, 0), (2, 0)), (0, 1), (False, True)):
        for name, ours, theirs, arguments, options in _pools(shape, padding, last):
            names.add(name)
            wrong, refusal = _compared(ours, theirs, arguments, options)
            refused += refusal
            outcome.check(wrong is None, f"{name}, N C H W kH kW = {shape}, {options}: {wrong}")
    outcome.measured = f"{len(names)} operations, {refused:,} calls refused as by the reference"
    return outcome


def _compared(
    ours: Callable[..., Any], theirs: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]
) -> tuple[str | None, bool]:
    """What is wrong, and whether the call was refused."""
    answers = []
    for call in (ours, theirs):
        try:
            answer = call(*arguments, **options)
            answers.append(answer if isinstance(answer, tuple) else (answer,))
        except fastconv.ConvError:
            answers.append(None)
    got, right = answers
    if got is None or right is None:
        return (None if got is right else f"refused by {'us' if got is None else 'the reference'} alone"), True
    for one, other in zip(got, right, strict=True):
        if one.shape != other.shape or one.dtype != other.dtype:
            return f"{one.dtype}{one.shape}, not {other.dtype}{other.shape}", False
        if not np.array_equal(one, other):
            return "another value", False
    return None, False


def _ones(dtype: str, last: bool, *shape: int) -> Array:
    """An activation of logical `shape`."""
    return np.ones((shape[0], *shape[2:], shape[1]) if last else shape, dtype)


def _weight(dtype: str, last: bool, *shape: int) -> Array:
    *tiles, o, i, kh, kw = shape
    return np.ones((*tiles, kh, kw, i, o) if last else shape, dtype)


def _calls(shape: tuple[int, ...], padding: int, last: bool, groups: int, dtype: str) -> Iterator[Twins]:
    n, c, h, w, o, kh, kw = shape
    options: dict[str, Any] = {"padding": padding, "groups": groups, "data_format": "NHWC" if last else "NCHW"}
    x, weight = _ones(dtype, last, n, c, h, w), _weight(dtype, last, o, c // groups, kh, kw)
    bias = np.arange(o).astype(dtype)
    # what the forward pass gives; where it gives nothing, every gradient must be refused too
    height, width = (max(0, size + 2 * padding - k + 1) for size, k in ((h, kh), (w, kw)))
    fits = kh > 0 and kw > 0 and height > 0 and width > 0
    dy = _ones(dtype, last, n, o, max(height, 1), max(width, 1))

    def expected(*arguments: Any, **given: Any) -> Array:
        if not fits:
            raise fastconv.ConvError("the kernel is empty, or larger than the padded input")
        y: Array = reference.conv2d(*arguments, **given)
        if c == 0:
            assert np.array_equal(y, np.broadcast_to(bias if last else bias[:, None, None], y.shape))
        return y

    yield "conv2d", fastconv.conv2d, expected, (x, weight, bias), options
    yield "plan_conv2d", _planned, expected, (x, weight, bias), options
    yield "conv2d_backward", fastconv.conv2d_backward, reference.conv2d_backward, (dy, x, weight), options
    yield "conv2d_input", grad.conv2d_input, reference.conv2d_input, (x.shape, weight, dy), options
    yield "conv2d_weight", grad.conv2d_weight, reference.conv2d_weight, (x, weight.shape, dy), options
    # transposed: O channels in, C out
    start = _ones(dtype, last, n, o, h, w)
    end = _ones(dtype, last, n, c, max(0, h - 1 - 2 * padding + kh), max(0, w - 1 - 2 * padding + kw))
    addend = np.arange(c).astype(dtype)
    yield "conv_transpose2d", fastconv.conv_transpose2d, reference.conv_transpose2d, (start, weight, addend), options
    yield (
        "conv_transpose2d_input", grad.conv_transpose2d_input, reference.conv_transpose2d_input,
        (start.shape, weight, end), options,
    )  # fmt: skip
    yield (
        "conv_transpose2d_weight", grad.conv_transpose2d_weight, reference.conv_transpose2d_weight,
        (start, weight.shape, end), options,
    )  # fmt: skip
    flat = options | {"data_format": "NLC" if last else "NCL"}
    row = 0 if last else 2
    line, kernel = x[:, 0] if last and h else x[:, :, 0] if h else None, weight.take(0, row) if kh else None
    if line is not None and kernel is not None:
        yield "conv1d", fastconv.conv1d, reference.conv1d, (line, kernel, bias), flat
        begin = start[:, 0] if last else start[:, :, 0]
        yield "conv_transpose1d", fastconv.conv_transpose1d, reference.conv_transpose1d, (begin, kernel, addend), flat
    del options["groups"]
    if groups != 1:
        return
    for tiles in ((1, 1), (2, 3), (0, 1)):
        kernels = _weight(dtype, last, *tiles, o, c, kh, kw)
        name = f"{tiles[0]} x {tiles[1]} "
        yield name + "tiled_conv2d", fastconv.tiled_conv2d, reference.tiled_conv2d, (x, kernels, bias), options
        yield (
            name + "tiled_conv2d_input", grad.tiled_conv2d_input, reference.tiled_conv2d_input,
            (x.shape, kernels, dy), options,
        )  # fmt: skip
        yield (
            name + "tiled_conv2d_weight", grad.tiled_conv2d_weight, reference.tiled_conv2d_weight,
            (x, kernels.shape, dy), options,
        )  # fmt: skip


def _planned(x: Array, weight: Array, bias: Array, **options: Any) -> Array:
    plan = fastconv.plan_conv2d(x.shape, weight, bias, **options)
    plan.explain()
    y = plan.run(x)
    assert plan.run(x, out=np.full_like(y, 7)).shape == y.shape
    return y


def _pools(shape: tuple[int, ...], padding: int, last: bool) -> Iterator[Twins]:
    n, c, h, w, kh, kw = shape
    x = _ones("float32", last, n, c, h, w)
    options = {"padding": padding, "stride": 1, "data_format": "NHWC" if last else "NCHW"}
    kernel = (kh, kw)
    dy = _ones("float32", last, n, c, *(max(0, size + 2 * padding - k + 1) for size, k in ((h, kh), (w, kw))))
    with_indices = {**options, "return_indices": True}
    yield "max_pool2d", fastconv.max_pool2d, reference.max_pool2d, (x, kernel), with_indices
    yield "avg_pool2d", fastconv.avg_pool2d, reference.avg_pool2d, (x, kernel), options
    yield "max_pool2d_input", grad.max_pool2d_input, reference.max_pool2d_input, (x, kernel, dy), options
    yield "avg_pool2d_input", grad.avg_pool2d_input, reference.avg_pool2d_input, (x.shape, kernel, dy), options
