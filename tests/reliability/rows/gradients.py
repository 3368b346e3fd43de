"""Gradients against what defines them: the adjoint of a linear map, and differences of a loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

import fastconv
from fastconv import grad
from fastconv.testing.problems import fill, pool_cases
from reliability.board import Outcome, row
from reliability.configurations import Configuration, draw
from reliability.oracle import Array
from reliability.workers import Found, share

POOLS_EVERY = 10  # configurations: there a pooling beside
ALLOWED = 1e-7
MOST = 8  # so that the inner products of whole arrays are exact too


@row(
    "gradients: adjoint identity ⟨y, conv x⟩ = ⟨convᵀ y, x⟩ on integers; central differences in float64",
    "5,000 (quick 200), identity exact, differences rel ≤ 1e-7",
    quick=200, full=5000, order=230, every_isa=True,
)  # fmt: skip
def gradients(count: int) -> Outcome:
    """Of convolutions, transposed and tiled ones and pools; a case is one configuration with both checks."""
    found = share(check_gradients, count)
    found.outcome.measured = f"worst difference {found.worst['difference']:.0e} of the gradient's norm"
    return found.outcome


def check_gradients(indices: range) -> Found:
    found = Found()
    for index in indices:
        c = draw(index)
        for what, check in (("adjoint", _adjoint), ("differences", _differences)):
            try:
                wrong = check(c, found)
            except Exception as error:
                wrong = f"{type(error).__name__}: {error}"
            found.outcome.check(wrong is None, f"{what}, {c}: {wrong}")
        if index % POOLS_EVERY == 0:
            try:
                wrong = _pools(index)
            except Exception as error:
                wrong = f"{type(error).__name__}: {error}"
            found.outcome.check(wrong is None, f"pool {index}: {wrong}")
    return found


def inner(a: Array, b: Array) -> float:
    return float((a.astype(np.float64) * b.astype(np.float64)).sum())


class _Convolution:
    """Forward and gradients of a configuration, of arrays as the caller holds them."""

    def __init__(self, c: Configuration) -> None:
        last = c.channels_last
        self.options: dict[str, Any] = {**c.options(), "algorithm": "direct"}
        self.x_shape, self.y_shape = (
            (s[0], *s[2:], s[1]) if last else s for s in (c.input_shape, c.output_shape)
        )
        self.w_shape = (*c.kernel, c.weight_shape[1], c.weight_shape[0]) if last else c.weight_shape
        self.tiled = c.kind == "tiled"
        if self.tiled:
            self.w_shape = (*c.tiles, *self.w_shape)
            del self.options["groups"], self.options["padding_mode"]

    def forward(self, x: Array, w: Array, b: Array | None = None) -> Array:
        call = fastconv.tiled_conv2d if self.tiled else fastconv.conv2d
        return call(x, w, b, **self.options)

    def backward(self, dy: Array, x: Array, w: Array) -> tuple[Array, Array, Array]:
        if not self.tiled:
            return fastconv.conv2d_backward(dy, x, w, **self.options)  # type: ignore[return-value]
        axes = tuple(a for a in range(4) if a != (3 if self.options["data_format"] == "NHWC" else 1))
        return (
            grad.tiled_conv2d_input(x.shape, w, dy, **self.options),
            grad.tiled_conv2d_weight(x, w.shape, dy, **self.options),
            dy.sum(axes),
        )


def _adjoint(c: Configuration, found: Found) -> str | None:
    rng = np.random.default_rng([9, c.index])
    conv = _Convolution(c)
    x, w, dy = (
        rng.integers(-MOST, MOST, shape, endpoint=True).astype(c.dtype)
        for shape in (conv.x_shape, conv.w_shape, conv.y_shape)
    )
    y = conv.forward(x, w)
    dx, dw, _ = conv.backward(dy, x, w)
    products = inner(dy, y), inner(dx, x), inner(dw, w)
    return None if len(set(products)) == 1 else f"the inner products are {products}"


def _differences(c: Configuration, found: Found) -> str | None:
    """Of half the squared distance to a target, a quadratic in each array: any step gives its slope exactly."""
    rng = np.random.default_rng([10, c.index])
    conv = _Convolution(replace(c, dtype="float64"))
    arrays = [rng.standard_normal(shape) for shape in (conv.x_shape, conv.w_shape, (c.outputs,))]
    residue = conv.forward(*arrays) - rng.standard_normal(conv.y_shape)
    target = conv.forward(*arrays) - residue
    analytic = conv.backward(residue, arrays[0], arrays[1])
    for which, (array, slope) in enumerate(zip(arrays, analytic, strict=True)):
        direction = rng.choice((-1.0, 1.0), array.shape)
        if c.index % 4 == 0:  # one element alone
            direction = np.where(np.arange(array.size).reshape(array.shape) == rng.integers(array.size), 1.0, 0.0)
        losses = []
        for sign in (0.5, -0.5):
            moved = [*arrays[:which], array + sign * direction, *arrays[which + 1 :]]
            losses.append(((conv.forward(*moved) - target) ** 2).sum() / 2)
        wrong = _compare(losses[0] - losses[1], slope, direction, found)
        if wrong:
            return f"{('input', 'weight', 'bias')[which]}: {wrong}"
    return None


def _compare(numeric: float, slope: Array, direction: Array, found: Found) -> str | None:
    analytic = float((slope * direction).sum())
    error = abs(numeric - analytic) / max(float(np.sqrt((slope**2).sum())), 1e-300)
    if not slope.any():  # nothing looks at this array
        error = abs(numeric)
    found.raise_worst("difference", error)
    return None if error <= ALLOWED else f"slope {analytic}, by differences {numeric}"


def _pools(index: int) -> str | None:
    case = pool_cases(1, index)[0]
    options = {**case.options(), "count_include_pad": case.count_include_pad, "divisor_override": 1}
    x = fill(case.rng("input"), case.input_shape, "float64", "integers")
    y = fastconv.avg_pool2d(x, case.kernel, **options)
    dy = fill(case.rng("grad_output"), y.shape, "float64", "integers")
    dx = grad.avg_pool2d_input(x.shape, case.kernel, dy, **options)
    if inner(dy, y) != inner(dx, x):
        return f"avg_pool2d: {inner(dy, y)} and {inner(dx, x)}"
    options = {**case.options(), "dilation": case.dilation}
    x = np.random.default_rng(index).permutation(x.size).reshape(x.shape) * 2.0  # no ties, and none after a step
    y = fastconv.max_pool2d(x, case.kernel, **options)
    dy = fill(case.rng("grad_output"), y.shape, "float64", "integers")  # dilated windows are fewer
    dx = grad.max_pool2d_input(x, case.kernel, dy, **options)
    direction = fill(case.rng("direction"), x.shape, "float64", "integers") / 16
    ends = [inner(dy, fastconv.max_pool2d(x + sign * direction, case.kernel, **options)) for sign in (1, -1)]
    return None if ends[0] - ends[1] == 2 * inner(dx, direction) else f"max_pool2d: {ends}, {inner(dx, direction)}"
