"""Integer-valued data: every partial sum is exact, so every algorithm must give the same numbers as the judge."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count as count_from
from math import isqrt
from typing import Any, NamedTuple

import numpy as np

import fastconv
from fastconv import grad, reference
from fastconv.testing.comparisons import GRADIENTS, Comparison
from reliability.board import Outcome, row
from reliability.configurations import Configuration, draw
from reliability.oracle import Array, Oracle
from reliability.workers import Found, share

DIGITS = {"float32": 24, "float64": 53}
# Large enough that float64 computed in float32 would show.
MOST = {"float32": 32, "float64": 1 << 20}
ZEROS_ALLOWED = 0.7
REFERENCE_EVERY = 200  # configurations: there the judge is itself judged by fastconv.reference


class Result(NamedTuple):
    """What was computed beside what is right, both with logical axes, and the share of zeros in the latter."""

    what: str
    got: Array
    expected: Array
    zeros: float


@row(
    "exact configurations: integers, direct algorithms, forward, dX, dW, db, float32 and float64, every ISA",
    "200,000 configurations (quick 3,000), 0 mismatches",
    quick=3000, full=200_000, order=10, every_isa=True,
)  # fmt: skip
def exact_configurations(count: int) -> Outcome:
    """One configuration is a convolution, its three gradients and, in turns, a plan, a transposed or a tiled one."""
    found = share(check_exact, count)
    counts = found.counts
    found.outcome.measured = (
        f"{counts['results']:,} results, {len(found.met):,} points of the 1…9 grid, {counts['mistrusted']:,} more were "
        f"mistrusted (over 70 % zeros), the judge judged {counts['judged']:,} times"
    )
    return found.outcome


def check_exact(indices: range) -> Found:
    """As many configurations as there are indices, from the first on: those of too many zeros are not counted."""
    found = Found()
    for index in count_from(indices.start, indices.step):
        if found.outcome.cases >= len(indices):
            return found
        c = draw(index)
        try:
            results = list(exact_results(c, found))
        except Exception as error:
            found.outcome.check(False, f"{c}: {type(error).__name__}: {error}")
            continue
        wrong = [words for result in results if (words := fault(result, c.dtype))]
        if not wrong and max(r.zeros for r in results) > ZEROS_ALLOWED:
            found.counts["mistrusted"] += 1
            continue
        found.outcome.check(not wrong, f"{c}: {'; '.join(wrong)}")
        found.counts["results"] += len(results)
        found.counts[c.dtype] += 1
        if c.kind == "grid":
            axes = zip(c.kernel, c.stride, c.dilation, (pad[0] for pad in c.padding), strict=True)
            found.met |= {(*axis, c.groups) for axis in axes}
    return found  # never reached: the count ends the loop


def exact_results(c: Configuration, found: Found) -> Iterator[Result]:
    """Every result of a configuration, each computed when it is asked for."""
    return _tiled_results(c) if c.kind == "tiled" else _results(c, found)


def fault(result: Result, dtype: str) -> str | None:
    """What is wrong with a result, or None."""
    if result.got.dtype == dtype and np.array_equal(result.got, result.expected):
        return None
    return Comparison(result.what, result.got, result.expected.astype(dtype)).fault()


def _zeros(array: Array) -> float:
    return 1 - np.count_nonzero(array) / max(1, array.size)


def integers(rng: np.random.Generator, c: Configuration, shape: tuple[int, ...]) -> Array:
    """As large as keeps every partial sum exact: n products and a few addends below 2**24 or 2**53."""
    most = min(MOST[c.dtype], isqrt((1 << DIGITS[c.dtype]) // (max(c.terms) + 4)))
    return rng.integers(-most, most, shape, endpoint=True).astype(c.dtype)


def _results(c: Configuration, found: Found) -> Iterator[Result]:
    rng = np.random.default_rng([6, c.index])
    x, w, dy = (integers(rng, c, shape) for shape in (c.input_shape, c.weight_shape, c.output_shape))
    bias = integers(rng, c, (c.outputs,)) if c.index % 3 else None
    residual = integers(rng, c, c.output_shape) if rng.random() < 0.2 else None
    activation = "relu" if rng.random() < 0.25 else None
    judge = c.oracle(x)
    y, dx, dw = judge.forward(w), judge.input_gradient(w, dy), judge.weight_gradient(dy)
    db = dy.sum((0, 2, 3), dtype=np.float64)
    if c.index % REFERENCE_EVERY == 0 and c.kind != "large":
        _judge_the_judge(c, (x, w, dy), (y, dx, dw))
        found.counts["judged"] += 1
    plain = y
    if bias is not None:
        y = y + bias[:, None, None]
    if residual is not None:
        y = y + residual
    if activation:
        y = np.maximum(y, 0)

    own_x, own_w, own_dy = c.own(x), c.own_weight(w), c.own(dy)
    extra: dict[str, Any] = {"activation": activation}
    added = {"residual": None if residual is None else c.own(residual)}
    options = {**c.options(), "algorithm": "direct"}
    got = fastconv.conv2d(own_x, own_w, bias, **options, **extra, **added)
    yield Result("conv2d", c.logical(got), y, _zeros(y))
    reached = _reached(judge)
    gradients = fastconv.conv2d_backward(own_dy, own_x, own_w, **options)
    back = (c.logical, c.logical_weight, np.asarray)
    for what, turn, ours, theirs in zip(GRADIENTS, back, gradients, (dx, dw, db), strict=True):
        zeros = _zeros(theirs if what != "grad_input" else theirs[:, :, reached])
        yield Result(what, turn(ours), theirs, zeros)

    turn = c.index // 16 % 4
    if turn == 0:
        plan = fastconv.plan_conv2d(own_x.shape, own_w, bias, **options, **extra)
        yield Result("plan_conv2d", c.logical(plan.run(own_x, **added)), y, 0)
    elif turn == 1 and c.mode == "zeros" and not c.word:
        yield from _transposed(c, (own_x, own_w, own_dy), (plain, dx, dw), reached, options)
    elif turn == 2:
        ours = grad.conv2d_input(own_x.shape, own_w, own_dy, **options)
        yield Result("grad.conv2d_input", c.logical(ours), dx, 0)
        ours = grad.conv2d_weight(own_x, own_w.shape, own_dy, **options)
        yield Result("grad.conv2d_weight", c.logical_weight(ours), dw, 0)
    if c.kind == "1-D" and not c.word:
        cut = 1 if c.channels_last else 2
        flat = {
            **options, "stride": c.stride[1], "dilation": c.dilation[1], "padding": (c.padding[1],),
            "data_format": "NLC" if c.channels_last else "NCL",
        }  # fmt: skip
        ours = fastconv.conv1d(own_x.squeeze(cut), own_w.squeeze(0 if c.channels_last else 2), bias, **flat, **extra)
        if residual is None:
            yield Result("conv1d", c.logical(np.expand_dims(ours, cut)), y, 0)


def _reached(judge: Oracle) -> Array:
    """The pixels that a tap of any output looks at; the gradient of all others is zero."""
    rows, columns = judge.uses()
    reached: Array = (rows[:, None] > 0) & (columns > 0)
    return reached


def _transposed(
    c: Configuration,
    own: tuple[Array, Array, Array],
    judged: tuple[Array, Array, Array],
    reached: Array,
    options: dict[str, Any],
) -> Iterator[Result]:
    """conv_transpose2d is the input gradient, plus a bias; its gradients are the convolution and the weight's."""
    own_x, own_w, own_dy = own
    y, dx, dw = judged
    options = {**options, "output_padding": c.output_padding}
    del options["padding_mode"]
    bias = np.arange(c.channels, dtype=c.dtype) - 3
    ours = fastconv.conv_transpose2d(own_dy, own_w, bias, **options)
    yield Result("conv_transpose2d", c.logical(ours), dx + bias[:, None, None], 0)
    ours = grad.conv_transpose2d_input(own_dy.shape, own_w, own_x, **options)
    yield Result("conv_transpose2d_input", c.logical(ours), y, 0)
    ours = grad.conv_transpose2d_weight(own_dy, own_w.shape, own_x, **options)
    yield Result("conv_transpose2d_weight", c.logical_weight(ours), dw, 0)


def _tiled_results(c: Configuration) -> Iterator[Result]:
    rng = np.random.default_rng([6, c.index])
    x, dy, bias = (integers(rng, c, shape) for shape in (c.input_shape, c.output_shape, (c.outputs,)))
    w = integers(rng, c, (*c.tiles, *c.weight_shape))
    y, dx, dw = np.zeros(c.output_shape), np.zeros(c.input_shape), np.zeros(w.shape)
    for a, b in np.ndindex(*c.tiles):
        rows, columns = c.positions[0][a :: c.tiles[0]], c.positions[1][b :: c.tiles[1]]
        pixels = np.s_[:, :, a :: c.tiles[0], b :: c.tiles[1]]
        if rows.size and columns.size:
            judge = Oracle(x, rows, columns)
            y[pixels] = judge.forward(w[a, b])
            dx += judge.input_gradient(w[a, b], dy[pixels])
            dw[a, b] = judge.weight_gradient(dy[pixels])
    y += bias[:, None, None]
    last = c.channels_last
    own_x, own_dy = c.own(x), c.own(dy)
    own_w = np.ascontiguousarray(w.transpose(0, 1, 4, 5, 3, 2)) if last else w
    options = {k: v for k, v in c.options().items() if k not in ("groups", "padding_mode")} | {"algorithm": "direct"}
    ours = fastconv.tiled_conv2d(own_x, own_w, bias, **options)
    yield Result("tiled_conv2d", c.logical(ours), y, _zeros(y))
    reached = _reached(c.oracle(x))
    ours = grad.tiled_conv2d_input(own_x.shape, own_w, own_dy, **options)
    yield Result("tiled_conv2d_input", c.logical(ours), dx, _zeros(dx[:, :, reached]))
    ours = grad.tiled_conv2d_weight(own_x, own_w.shape, own_dy, **options)
    kernels = np.s_[: len(c.positions[0]), : len(c.positions[1])]  # the others have no pixel
    yield Result("tiled_conv2d_weight", ours.transpose(0, 1, 5, 4, 2, 3) if last else ours, dw, _zeros(dw[kernels]))


def _judge_the_judge(c: Configuration, arrays: tuple[Array, Array, Array], results: tuple[Array, Array, Array]) -> None:
    """The results of the oracle are those of the reference, which sums Python's integers."""
    x, w, dy = (array.astype(np.int64) for array in arrays)
    options = c.options() | {"data_format": "NCHW"}
    theirs = (
        reference.conv2d(x, w, **options),
        *reference.conv2d_backward(dy, x, w, **options, output_mask=(True, True, False))[:2],
    )
    for what, ours, right in zip(("forward", "grad_input", "grad_weight"), results, theirs, strict=True):
        if not np.array_equal(ours, right):
            raise AssertionError(f"the judge's {what} differs from the reference's")
