"""`ConvPlan`: a plan with its weights packed, as callers hold it."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _native
from ..errors import ConvError, ConvTypeError
from .arrays import as_array, bias_for, empty
from .explanation import ConvExplanation
from .geometry import Geometry
from .layouts import checked_residual, destination, layout, lies_channels_last
from .methods.method import Before
from .operands import Array, Operands, Packed, packing
from .operations import explain, forward, input_gradient, write_rest
from .plan import plan_for
from .problem import Direction, Use
from .rounding import NO_HALVES, Halves, require_single, rounded, types_of
from .select import check
from .types import ACTIVATIONS, FLOATS, result_of


def _unpickled_plan(
    packed_by: tuple[str, int], g: Geometry, dtype: np.dtype[Any], weight: Array | None, bias: Array | None,
    options: dict[str, Any], packed: tuple[Packed, ...] | None,
) -> ConvPlan:  # fmt: skip
    """The plan that `ConvPlan.__reduce__` took apart: packed weights are for one build and one instruction set."""
    here = (_native.isa_name(), _native.sources())
    if packed_by != here:
        build = "this" if packed_by[1] == here[1] else "another"
        raise ConvError(
            f"the weights of this plan were packed for {packed_by[0]} by {build} build of fastconv, but this process "
            f"uses {here[0]}; send the weights and call fastconv.{_maker(g, options['transposed'])} here."
        )
    if weight is None:  # the packed one stands for it
        shape = (g.out_channels, g.in_channels // g.groups, *g.kernel_size)
        weight = np.broadcast_to(np.zeros((), dtype), shape)
    return ConvPlan(
        g, weight, bias, dtype, **options, packed=None if packed is None else tuple(one.aligned() for one in packed)
    )


def _maker(g: Geometry, transposed: bool) -> str:
    """The public function that makes such a plan."""
    return f"plan_conv{'_transpose' if transposed else ''}{len(g.input_size)}d"


class ConvPlan:
    """A convolution prepared once and run many times: packed weights, chosen algorithm and blocking.

    Made by `fastconv.plan_conv2d` and its like. The weights are copied: later changes to the array do not reach the
    plan. A plan may be run from several threads at once: it holds no scratch memory between runs, and of the last run
    only what was done, without its arrays. `copy.deepcopy` gives the plan itself; a pickle of it can be read by
    processes of the same build of fastconv on the same instruction set, and is refused elsewhere.
    """

    def __init__(
        self, g: Geometry, weight: Array, bias: Array | None, dtype: Any, *, data_format: str = "channels_first",
        activation: str | None = None, algorithm: str = "auto", threads: int = 1, batched: bool = True,
        use: Use = Use.HELD, transposed: bool = False, most: int | None = None, halves: Halves = NO_HALVES,
        packed: tuple[Packed, ...] | None = None,
    ) -> None:  # fmt: skip
        self._options = {
            "data_format": data_format, "activation": activation, "algorithm": algorithm, "threads": threads,
            "batched": batched, "use": use, "transposed": transposed, "most": most, "halves": halves,
        }  # fmt: skip
        require_single(halves, np.dtype(dtype))
        self._halves = halves
        self.geometry = g
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self._layout = layout(data_format, len(g.input_size))
        self._batched, self._transposed = batched, transposed
        self._activation, self._algorithm, self._threads, self._most = activation, algorithm, threads, most
        # arrays that go to the driver as they lie, of `run` and of `run_pooled`
        self._planned: _native.Planned | None = None
        self._pooled: _native.Planned | None = None
        self._code, self._last = ACTIVATIONS[activation], self._layout.channels_last
        self._weight: Array | None = None
        self._bias: Array | None = None if bias is None else bias.copy()
        here, there = (g.in_channels, *g.input_size), (g.out_channels, *g.output_size)
        self._input, self._output = (there, here) if transposed else (here, there)
        direction = Direction.INPUT_GRADIENT if transposed else Direction.FORWARD
        if self.dtype not in FLOATS:
            last = self._layout.channels_last
            self._explanation: ConvExplanation | None = explain(
                g, self.dtype, algorithm=algorithm, threads=threads, channels_last=last, direction=direction,
                most=most,
            )  # fmt: skip
            self._weight = weight.copy()
            return
        types = types_of(self.dtype, halves)
        if halves.packed and packed is None:
            weight = rounded(weight, halves.packed)
        check(g, direction, self.dtype, algorithm, use, types)
        plan = plan_for(g, direction, types, threads, algorithm, use, most, not self._last)
        self._problem, self._program = plan.problem, plan.program
        self._plan, self._explanation = plan, None  # made when somebody asks
        if packed is None:
            with packing():
                packed = plan.program.pack(weight)
        self._packed = packed
        self._bias = bias_for(self._bias, plan.problem.machine.compute)
        shape_alone: Array = np.broadcast_to(np.zeros((), weight.dtype), weight.shape)
        self._shape_alone = shape_alone
        self._own_shape_alone = self._layout.weight_from_logical(shape_alone)
        self._own_input = self._layout.from_logical_shape((g.batch, *self._input))[1:]
        self._own_output = self._layout.from_logical_shape((g.batch, *self._output))[1:]
        if batched:
            self._planned = _native.Planned(
                self.dtype, self._own_input, self._own_output, not self._last,
                plan.program.adds_in_place,
            )

    def __copy__(self) -> ConvPlan:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ConvPlan:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        packed_by = (self.explain().isa, _native.sources())
        packed = self._packed if self._weight is None else None
        return _unpickled_plan, (
            packed_by, self.geometry, self.dtype, self._weight, self._bias, self._options, packed
        )  # fmt: skip

    def __repr__(self) -> str:
        g, e = self.geometry, self.explain()

        def shown(logical: tuple[int, ...]) -> str:
            axes = self._layout.from_logical_shape((0, *logical))[1:]
            return f"({', '.join(map(str, ('N', *axes) if self._batched else axes))})"

        weight = (g.out_channels, g.in_channels // g.groups, *g.kernel_size)
        own_weight = self._layout.weight_from_logical_shape(weight)
        ones = (1,) * len(g.stride)
        options = {
            "stride": (g.stride, ones), "padding": (g.padding, ((0, 0),) * len(ones)), "dilation": (g.dilation, ones),
            "groups": (g.groups, 1), "padding_mode": (g.padding_mode, "zeros"), "padding_value": (g.padding_value, 0),
            "max_workspace": (self._most, None), "activation": (self._activation, None),
            "transposed": (self._transposed, False),
            **{name: (value, None) for name, value in self._halves.options.items()},
        }  # fmt: skip
        told = [f"{name}={value!r}" for name, (value, usual) in options.items() if value != usual]
        return (
            f"<ConvPlan {shown(self._input)} -> {shown(self._output)} {self._layout.name} {self.dtype}, weight "
            f"{own_weight}, {''.join(f'{option}, ' for option in told)}{e.algorithm}, {e.isa}, {e.threads} "
            f"thread{'' if e.threads == 1 else 's'}>"
        )

    @property
    def workspace_bytes(self) -> int:
        """Scratch memory of one run of the planned batch beside input, output and packed weights, in bytes.

        What the driver takes for contiguous float arrays; another layout may take less, and integers whose sums may
        leave int32 take a result in int64 beside it.
        """
        return self.explain().workspace_bytes

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the planned result, as its layout has it."""
        return self._layout.from_logical_shape((self.geometry.batch, *self._output))

    @property
    def native(self) -> bool:
        """Whether a run on arrays as planned is native works alone, which a net may do again by themselves."""
        return self._weight is None and self._program.natively and self._program.covers

    @property
    def adds_in_place(self) -> bool:
        """Whether the residual of `run` may be `out` itself without a copy: contiguous arrays of plans of floats."""
        return self._planned is not None and self._program.adds_in_place

    @property
    def pools(self) -> bool:
        """Whether `run_pooled` may be called: a method that can, channels last, no activation but relu."""
        return (
            self._weight is None
            and self._layout.channels_last
            and self._batched
            and self._program.pools
            and self._packed[0].finite
            and self._activation in (None, "relu")
        )

    @property
    def scales(self) -> bool:
        """Whether `run_scaled` may be called: a method that scales its input while it copies it, channels last."""
        return (
            self._weight is None and self._layout.channels_last and self._batched and self._program.scales
        )

    def run_scaled(self, input: Array, before: Before, out: Array, residual: Array | None = None) -> Array:
        """Convolve what `before` makes of the input, which then is never stored.

        Parameters
        ----------
        input : ndarray
            Of the planned shape and element type, channels side by side, with any batch size.
        before : Before
            Vectors of the planned element type, which are copied.
        out : ndarray
            Receives the result; it must not overlap the input.
        residual : ndarray, optional
            As in `run`; it may be `out` where `adds_in_place`, and else must not overlap it.

        Returns
        -------
        ndarray
            `out`: the bits of `run` of the scaled input.

        Raises
        ------
        ConvError
            Where `scales` is False, or for arrays that are not as said above.
        """
        fits = input.shape[1:] == self._own_input and out.shape == (len(input), *self._own_output)
        if not (self.scales and fits and input.dtype == out.dtype == self.dtype):
            raise ConvError(
                f"run_scaled takes an input as planned and an out for it, of a plan that scales (here {self.scales}), "
                f"but got input of shape {input.shape} and out of shape {out.shape}."
            )
        self._program.scaled(
            Operands(
                input, self._own_shape_alone, self._packed[0], self._bias, residual, out, self._code, True
            ), before,
        )  # fmt: skip
        return out

    def run_pooled(self, input: Array, out: Array) -> Array:
        """Convolve and take the largest of every 2 x 2 outputs, which then are never stored.

        Parameters
        ----------
        input : ndarray
            Of the planned shape and element type, C-contiguous, with any batch size.
        out : ndarray
            Receives the result, (N, OH / 2, OW / 2, O), C-contiguous; it must not overlap the input.

        Returns
        -------
        ndarray
            `out`: the bits of `max_pool2d(plan.run(input), 2)`.

        Raises
        ------
        ConvError
            Where `pools` is False, or for arrays that are not as said above.
        """
        if self._pooled is None and self.pools:
            channels, *size = self._output
            self._pooled = _native.Planned(self.dtype, self._own_input, (*(n // 2 for n in size), channels), False)
        if self._pooled is None or out is None or not self._pooled.takes(input, out):
            raise ConvError(
                f"run_pooled takes an input as planned and, apart from it, a C-contiguous out of half the rows "
                f"and columns, of a plan that pools (here {self.pools}), but got input of shape {np.shape(input)} and "
                f"out of shape {np.shape(out)}. Use run, then max_pool2d."
            )
        self._program.pooled(input, self._own_shape_alone, self._packed, self._bias, out, self._code)
        return out

    def explain(self) -> ConvExplanation:
        """Algorithm, instruction set, tiles, memory and the reason.

        Returns
        -------
        ConvExplanation
            As from `fastconv.explain_conv2d`.
        """
        if self._explanation is None:
            self._explanation = self._plan.explain(self._layout.channels_last, True)
        return self._explanation

    def run(self, input: Any, out: Array | None = None, *, residual: Any = None) -> Array:
        """Convolve a batch.

        Parameters
        ----------
        input : array_like
            Of the planned shape and element type, with any batch size.
        out : ndarray, optional
            Receives the result; it may overlap the input, or be the residual.
        residual : array_like, optional
            Of the result's shape and element type, added before the activation.

        Returns
        -------
        ndarray
            `out`, or a new array.

        Raises
        ------
        ConvError
            For another shape.
        ConvTypeError
            For another element type.
        """
        planned = self._planned
        if planned is not None:
            if out is not None and planned.again(input, out, residual):
                return out
            if planned.takes(input, out, residual):
                if out is None:
                    out = empty((input.shape[0], *self._own_output), self.dtype)
                    if planned.again(input, out, residual):
                        return out
                self._run_planned(input, out, residual)
                return out
        return self._run_checked(as_array("input", input), out, residual)

    def _run_planned(self, input: Array, out: Array, residual: Array | None) -> None:
        """Arrays as planned, and what natives did is kept: the next run that is like this one does it again."""
        works: list[Any] = []
        before = _native.record(works) if self.native else None
        try:
            self._program.run(
                input, self._own_shape_alone, self._packed, self._bias, residual, out, self._code, self._last
            )  # fmt: skip
        finally:
            if self.native:
                _native.record(before)
        if before is not None:
            before.extend(works)
        elif self.native and self._planned is not None:
            self._planned.keep(works, input, out, residual)
        if not self._program.covers:
            to_logical = self._layout.to_logical
            write_rest(
                self._problem, to_logical(out), self._bias, None if residual is None else to_logical(residual)
            )

    def _run_checked(self, array: Array, out: Array | None, residual: Any) -> Array:
        """Any array that the plan is for, or a refusal."""
        if array.dtype != self.dtype:
            raise ConvTypeError(
                f"input must have the planned dtype {self.dtype}, but got {array.dtype} of shape {array.shape}; "
                "convert it or make another plan."
            )
        x, batched = self._layout.activation("input", array)
        g = self.geometry
        if batched != self._batched or x.shape[1:] != self._input:
            planned = self._layout.from_logical(
                np.broadcast_to(np.int8(0), (g.batch, *self._input)), self._batched
            ).shape
            raise ConvError(
                f"input must have the planned shape {planned} (any batch size), but got input of shape {array.shape}; "
                f"make another plan with fastconv.{_maker(g, self._transposed)}."
            )
        result_type = result_of(self.dtype)
        channels_last = self._layout.channels_last or lies_channels_last(x)
        result_shape = (x.shape[0], *self._output)
        add = (
            None if residual is None
            else checked_residual("ConvPlan.run", residual, self._layout, result_shape, batched, result_type)
        )  # fmt: skip
        y, result, finish = destination(
            "ConvPlan.run", out, self._layout, result_shape, result_type, batched, channels_last, (x, add)
        )
        if self._weight is not None:
            self._run_integers(x, add, y)
        elif y.size:
            self._program.run(x, self._shape_alone, self._packed, self._bias, add, y, self._code, False)
            if not self._program.covers:
                write_rest(self._problem, y, self._bias, add)
        finish()
        return result

    def _run_integers(self, x: Array, add: Array | None, y: Array) -> None:
        """Exactly, or refused before `y` is written."""
        assert self._weight is not None
        g = self.geometry._replace(batch=x.shape[0])
        how: dict[str, Any] = {"algorithm": self._algorithm, "threads": self._threads, "most": self._most}
        if self._transposed:
            input_gradient(g, x, self._weight, self._bias, y, residual=add, **how)
        else:
            forward(g, x, self._weight, self._bias, self._activation, add, y, **how)
