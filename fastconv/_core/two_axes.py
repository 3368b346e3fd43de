"""For now: `plan` knows two axes alone. One axis is lifted to two, of height 1; three are computed by the reference."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import operations as plan
from . import pooling
from .arrays import Array, DType
from .geometry import Geometry
from .windows import PoolGeometry


def axes(g: Geometry | PoolGeometry) -> int:
    return len(g.input_size)


def lifted(g: Any) -> Any:
    """A geometry of one axis as one of two, of height 1."""
    if axes(g) == 2:
        return g
    return g._replace(
        input_size=(1, *g.input_size), kernel_size=(1, *g.kernel_size), output_size=(1, *g.output_size),
        stride=(1, *g.stride), dilation=(1, *g.dilation), padding=((0, 0), *g.padding),
    )  # fmt: skip


def high(array: Any) -> Any:
    """(N, C, L) as (N, C, 1, L)."""
    return array[:, :, None] if array is not None and array.ndim == 3 else array


def _reference() -> Any:
    from .. import reference

    return reference


def forward(
    g: Geometry,
    input: Array,
    weight: Array,
    bias: Array | None,
    activation: str | None,
    residual: Array | None,
    out: Array,
    *,
    algorithm: str = "auto",
    threads: int = 1,
) -> None:
    if axes(g) < 3:
        plan.forward(
            lifted(g), high(input), high(weight), bias, activation, high(residual), high(out), algorithm=algorithm,
            threads=threads,
        )  # fmt: skip
        return
    _only_direct(algorithm)
    r = _reference()
    with np.errstate(all="ignore"):
        y = r._forward(g, r._wide(input), r._wide(weight))
        for shift in (None if bias is None else bias.reshape(-1, 1, 1, 1), residual):
            y = y if shift is None else y + r._wide(shift)
        if activation is not None:
            y = r.ACTIVATIONS[activation](y)
        out[...] = r._narrow(y, out.dtype)


def input_gradient(
    g: Geometry,
    grad_output: Array,
    weight: Array,
    bias: Array | None,
    out: Array,
    *,
    algorithm: str = "auto",
    threads: int = 1,
) -> None:
    if axes(g) < 3:
        plan.input_gradient(
            lifted(g), high(grad_output), high(weight), bias, high(out), algorithm=algorithm, threads=threads
        )
        return
    _only_direct(algorithm)
    r = _reference()
    with np.errstate(all="ignore"):
        x = r._input_gradient(g, r._wide(grad_output), r._wide(weight))
        out[...] = r._narrow(x if bias is None else x + r._wide(bias.reshape(-1, 1, 1, 1)), out.dtype)


def weight_gradient(
    g: Geometry, input: Array, grad_output: Array, out: Array, *, algorithm: str = "auto", threads: int = 1
) -> None:
    if axes(g) < 3:
        plan.weight_gradient(lifted(g), high(input), high(grad_output), high(out), algorithm=algorithm, threads=threads)
        return
    _only_direct(algorithm)
    r = _reference()
    with np.errstate(all="ignore"):
        out[...] = r._narrow(r._weight_gradient(g, r._wide(input), r._wide(grad_output)), out.dtype)


def bias_gradient(grad_output: Array, out: Array, *, threads: int = 1) -> None:
    if grad_output.ndim < 5:
        plan.bias_gradient(high(grad_output), out, threads=threads)
        return
    r = _reference()
    with np.errstate(all="ignore"):
        out[...] = r._narrow(r._wide(grad_output).sum(axis=(0, 2, 3, 4)), out.dtype)


def _only_direct(algorithm: str) -> None:
    from ..errors import ConvError

    if algorithm not in ("auto", "direct"):
        raise ConvError(f"algorithm={algorithm!r} does not apply to three spatial axes; use 'auto' or 'direct'.")


def max_pool(pg: PoolGeometry, input: Array, out: Array, indices: Array | None, *, threads: int = 1) -> None:
    if axes(pg) < 3:
        pooling.max_pool(lifted(pg), high(input), high(out), high(indices), threads=threads)
        return
    best, index = _reference()._max_pool(pg, input)
    out[...] = best
    if indices is not None:
        indices[...] = index


def max_pool_gradient(pg: PoolGeometry, grad_output: Array, indices: Array, out: Array, *, threads: int = 1) -> None:
    if axes(pg) < 3:
        pooling.max_pool_gradient(lifted(pg), high(grad_output), high(indices), high(out), threads=threads)
        return
    out[...] = _reference()._scattered(pg, grad_output, indices)


def avg_pool(
    pg: PoolGeometry,
    input: Array,
    out: Array,
    *,
    count_include_pad: bool,
    divisor_override: int | None,
    threads: int = 1,
) -> None:
    if axes(pg) < 3:
        pooling.avg_pool(
            lifted(pg), high(input), high(out), count_include_pad=count_include_pad,
            divisor_override=divisor_override, threads=threads,
        )  # fmt: skip
        return
    with np.errstate(all="ignore"):
        out[...] = _reference()._avg_pool(pg, input, count_include_pad, divisor_override)


def avg_pool_gradient(
    pg: PoolGeometry,
    grad_output: Array,
    out: Array,
    *,
    count_include_pad: bool,
    divisor_override: int | None,
    threads: int = 1,
) -> None:
    if axes(pg) < 3:
        pooling.avg_pool_gradient(
            lifted(pg), high(grad_output), high(out), count_include_pad=count_include_pad,
            divisor_override=divisor_override, threads=threads,
        )  # fmt: skip
        return
    with np.errstate(all="ignore"):
        out[...] = _reference()._avg_pool_gradient(pg, grad_output, count_include_pad, divisor_override)


def explain(
    g: Geometry, dtype: DType, *, algorithm: str = "auto", threads: int = 1, channels_last: bool = False
) -> plan.ConvExplanation:
    return plan.explain(lifted(g), dtype, algorithm=algorithm, threads=threads, channels_last=channels_last)
