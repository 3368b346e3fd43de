"""For now: `plan` knows two axes alone. One axis is lifted to two, of height 1; three are computed by the reference."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from .. import _native, plan
from ..call import forward_call
from ..errors import ConvError, ConvTypeError
from .arrays import Array, DType, as_array, result_dtype
from .geometry import Geometry
from .layouts import checked_residual, destination, layout, lies_channels_last
from .windows import PoolGeometry


def axes(g: Geometry | PoolGeometry) -> int:
    return len(g.input_size)


@lru_cache(256)
def lifted(g: Any) -> Any:
    """A geometry of one axis as one of two, of height 1."""
    if axes(g) == 2:
        return g
    return g._replace(
        input_size=(1, *g.input_size), kernel_size=(1, *g.kernel_size), output_size=(1, *g.output_size),
        stride=(1, *g.stride), dilation=(1, *g.dilation), padding=((0, 0), *g.padding),
    )  # fmt: skip


class Lifted:
    """A call of two axes, run with arrays of one."""

    def __init__(self, call: Any) -> None:
        self.compute = call.compute
        self._run = call.run

    def run(
        self, weight: Any, x: Any, out: Any, bias: Any, residual: Any, code: int, packed: Any, channels_last: bool
    ) -> None:
        if channels_last:
            self._run(weight[None], x[:, None], out[:, None], bias, residual, code, packed, True)
        else:
            self._run(weight[:, :, None], x[:, :, None], out[:, :, None], bias, residual, code, packed, False)


def ready(g: Geometry, dtype: DType, algorithm: str, threads: int) -> Any:
    """The call of a convolution to be run again and again with arrays of a batch as they lie; None where there is none.

    It has `compute`, the native number of the computing type (for `bias_for`), and
    `run(weight, x, out, bias, residual, activation code, packed, channels_last)`.
    """
    if axes(g) == 3:
        return None
    call = forward_call(lifted(g), dtype, algorithm, threads)
    return None if call.packs else call if axes(g) == 2 else Lifted(call)


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
    if axes(g) == 2:
        plan.forward(g, input, weight, bias, activation, residual, out, algorithm=algorithm, threads=threads)
        return
    if axes(g) == 1:
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
    if axes(g) == 2:
        plan.input_gradient(g, grad_output, weight, bias, out, algorithm=algorithm, threads=threads)
        return
    if axes(g) == 1:
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
    if axes(g) == 2:
        plan.weight_gradient(g, input, grad_output, out, algorithm=algorithm, threads=threads)
        return
    if axes(g) == 1:
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
    if algorithm not in ("auto", "direct"):
        raise ConvError(f"algorithm={algorithm!r} does not apply to three spatial axes; use 'auto' or 'direct'.")


def max_pool(pg: PoolGeometry, input: Array, out: Array, indices: Array | None, *, threads: int = 1) -> None:
    if axes(pg) == 2:
        plan.max_pool(pg, input, out, indices, threads=threads)
        return
    if axes(pg) == 1:
        plan.max_pool(lifted(pg), high(input), high(out), high(indices), threads=threads)
        return
    best, index = _reference()._max_pool(pg, input)
    out[...] = best
    if indices is not None:
        indices[...] = index


def max_pool_gradient(pg: PoolGeometry, grad_output: Array, indices: Array, out: Array, *, threads: int = 1) -> None:
    if axes(pg) < 3:
        plan.max_pool_gradient(lifted(pg), high(grad_output), high(indices), high(out), threads=threads)
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
        plan.avg_pool(
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
        plan.avg_pool_gradient(
            lifted(pg), high(grad_output), high(out), count_include_pad=count_include_pad,
            divisor_override=divisor_override, threads=threads,
        )  # fmt: skip
        return
    with np.errstate(all="ignore"):
        out[...] = _reference()._avg_pool_gradient(pg, grad_output, count_include_pad, divisor_override)


# ---- explanations and plans --------------------------------------------------------------------------------------


def explain(
    g: Geometry, dtype: DType, *, algorithm: str = "auto", threads: int = 1, channels_last: bool = False
) -> plan.ConvExplanation:
    if axes(g) < 3:
        return plan.explain(lifted(g), dtype, algorithm=algorithm, threads=threads, channels_last=channels_last)
    _only_direct(algorithm)
    macs = g.batch * prod(g.output_size) * g.out_channels * (g.in_channels // g.groups) * prod(g.kernel_size)
    return plan.ConvExplanation(
        "direct", _native.isa_name(), str(dtype), threads, (0, 0), "none", (0, 0), "the whole input", 0, 0, macs, macs,
        "three spatial axes, by NumPy for now",
    )  # fmt: skip


class FunctionPlan(plan.ConvPlan):
    """A plan that calls the function again: of one and three axes, and transposed."""

    def __init__(
        self, g: Geometry, weight: Array, bias: Array | None, dtype: DType, data_format: str, activation: str | None,
        algorithm: str, threads: int, batched: bool, transposed: bool,
    ) -> None:  # fmt: skip
        self._made = (
            g, weight.copy(), None if bias is None else bias.copy(), dtype, data_format, activation, algorithm, threads,
            batched, transposed,
        )  # fmt: skip
        self.geometry, self.dtype, self._threads, self._algorithm = g, dtype, threads, algorithm
        self._layout, self._batched, self._activation = layout(data_format, axes(g)), batched, activation
        self._weight, self._bias, self._transposed = self._made[1], self._made[2], transposed
        name, how = "input gradient" if transposed else "call", g if axes(g) == 3 else lifted(g)
        if axes(g) < 3:
            plan.check_algorithm(how, dtype, algorithm, name)
            self._explanation = plan.explain(how, dtype, algorithm="direct", threads=threads)
        else:
            self._explanation = explain(g, dtype, algorithm=algorithm, threads=threads)

    def __reduce__(self) -> tuple[Any, ...]:
        return FunctionPlan, self._made

    def run(self, input: Any, out: Array | None = None, *, residual: Any = None) -> Array:
        g, frame = self.geometry, self._layout
        array = as_array("input", input)
        if array.dtype != self.dtype:
            raise ConvTypeError(
                f"input must have the planned dtype {self.dtype}, but got {array.dtype} of shape {array.shape}; "
                "convert it or make another plan."
            )
        x, batched = frame.activation("input", array)
        into, of = (g.in_channels, *g.input_size), (g.out_channels, *g.output_size)
        into, of = (of, into) if self._transposed else (into, of)
        if batched != self._batched or x.shape[1:] != into:
            planned = frame.from_logical_shape((g.batch, *into))
            planned = planned if self._batched else planned[1:]
            name = f"plan_conv{'_transpose' if self._transposed else ''}{axes(g)}d"
            raise ConvError(
                f"input must have the planned shape {planned} (any batch size), but got input of shape {array.shape}; "
                f"make another plan with fastconv.{name}."
            )
        assert self._weight is not None
        dtype, shape = result_dtype("input", array, "weight", self._weight), (x.shape[0], *of)
        add = None
        if residual is not None:
            add = checked_residual("ConvPlan.run", residual, frame, shape, batched, dtype)
        last = frame.channels_last or lies_channels_last(x)
        y, result, finish = destination("ConvPlan.run", out, frame, shape, dtype, batched, last, (x, add))
        g, how = g._replace(batch=x.shape[0]), {"algorithm": self._algorithm, "threads": self._threads}
        if self._transposed:
            if add is not None:
                raise ConvError("ConvPlan.run: a transposed convolution takes no residual; add it to the result.")
            input_gradient(g, x, self._weight, self._bias, y, **how)  # type: ignore[arg-type]
        else:
            forward(g, x, self._weight, self._bias, self._activation, add, y, **how)  # type: ignore[arg-type]
        finish()
        return result

    def __repr__(self) -> str:
        return f"<ConvPlan of {self.geometry}>"


def make_plan(
    g: Geometry, weight: Array, bias: Array | None, dtype: DType, *, data_format: str, activation: str | None,
    algorithm: str, threads: int, batched: bool, use: str, transposed: bool = False,
) -> plan.ConvPlan:  # fmt: skip
    """As the constructor of `ConvPlan` will be: `use` is its purpose."""
    if axes(g) == 2 and not transposed:
        return plan.ConvPlan(
            g, weight, bias, dtype, data_format=data_format, activation=activation, algorithm=algorithm,
            threads=threads, batched=batched, purpose=use,
        )  # fmt: skip
    return FunctionPlan(
        g, weight, bias, dtype, data_format, activation, algorithm, threads, batched, transposed
    )
