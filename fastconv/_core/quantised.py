"""Convolutions of 8-bit integers that stand for real numbers: exact sums, then bytes again.

One meaning, that of ONNX's QLinearConv: the sum of (x - x zero)(w - w zero) over the window, plus the bias, is an exact
int32; `Requantise` takes it to the result's bytes. Padding holds the input's zero point, so that it adds nothing. Sums
that leave int32 are refused, as everywhere.
"""

from __future__ import annotations

from math import prod
from typing import Any, Final

import numpy as np

from .. import _native
from ..errors import ConvError, ConvTypeError
from .arrays import Array, DType, as_array
from .explanation import ConvExplanation, explanation
from .geometry import Geometry
from .layouts import INT32, destination, layout, lies_channels_last
from .methods.of_bytes import BytesProgram, ChannelsTogether, multiplies_four, program_of_bytes
from .operands import Packed
from .operations import explain, forward
from .problem import Direction, Use, problem
from .record import NamedTuple
from .select import Choice
from .types import ACTIVATIONS, Types

# Of the difference of two bytes.
DIFFERENCE: Final = np.dtype(np.int16)


class Requantise(NamedTuple):
    """clip(rint(float32(sum) * multiplier) + zero_point, low, high); an activation is in the limits already."""

    multiplier: Array  # float32, one for all or one an output channel
    zero_point: int
    low: int
    high: int
    dtype: DType

    def __call__(self, sums: Array, channel_axis: int) -> Array:
        """The bytes of int32 sums."""
        shape = [-1 if axis == channel_axis % sums.ndim else 1 for axis in range(sums.ndim)]
        values = sums.astype(np.float32)
        with np.errstate(over="ignore"):  # beyond every limit
            values *= self.multiplier.reshape(shape)
        np.rint(values, out=values)
        # The limits less the zero point: sums of rounded values and a small integer would round once more.
        np.clip(values, self.low - self.zero_point, self.high - self.zero_point, out=values)
        return (values.astype(np.int32) + np.int32(self.zero_point)).astype(self.dtype)


class Added(NamedTuple):
    """A residual behind a convolution, all bytes of the result's type: both dequantised, added, quantised."""

    own_scale: float
    own_zero: int
    scale: float
    zero: int
    sum_scale: float
    sum_zero: int
    low: int
    high: int
    signed: bool


class More(NamedTuple):
    """What is done with the bytes of a result at once: each becomes that of a `table` (256 of uint8, by its bits), then
    those of a `residual` are `added`."""

    table: Array | None
    residual: Array | None
    added: Added | None


def _unpickled(packed_by: tuple[Any, ...], given: tuple[Any, ...], weight: Array, native: Any) -> QuantisedPlan:
    """The plan that `QuantisedPlan.__reduce__` took apart: packed weights are for one build and one instruction set."""
    g, kind, zero, bias, requantise, options = given
    if native is None:
        return QuantisedPlan(g, weight, np.zeros(1, np.int8), kind, zero, bias, requantise, **options)
    if packed_by != (_native.isa_name(), _native.sources()):
        raise ConvError(
            f"the weights of this plan were packed for {packed_by[0]}, perhaps by another build of fastconv, but this "
            f"process uses {_native.isa_name()}; make the plan again here."
        )
    plan = QuantisedPlan(g, weight[:0], np.zeros(1, np.int8), kind, zero, None, requantise, **options)
    (four, largest), packed, ends = native
    plan._weight, plan._bias = weight, bias
    plan._prepare(four, largest)
    plan._packed, plan._ends = tuple(one.aligned() for one in packed), ends
    return plan


def _centred(weight: Array, zero: Array) -> Array:
    """Weights less their zero points, one for all or each output, in int8 where that holds them, else in int16."""
    if weight.dtype == np.int8 and not zero.any():
        return weight
    difference: Array = weight.astype(DIFFERENCE) - zero.astype(DIFFERENCE).reshape(-1, *(1,) * (weight.ndim - 1))
    narrow = difference.astype(np.int8)
    return narrow if bool((narrow == difference).all()) else difference


class QuantisedPlan:
    """A convolution of bytes prepared once: `run` gives bytes, or the int32 sums where there is no `requantise`.

    `weight` is logical, (O, I/groups, *kernel) of int8 or uint8, with a zero point for all or for each output channel;
    inputs and results have the axes of `data_format` and any batch size. Nothing changes after it is made, so that
    several threads may run it at once. Sums are exact unless results that are `nearly` those may be had sooner.
    """

    def __init__(
        self, g: Geometry, weight: Array, weight_zero: Array, input_dtype: Any, input_zero: int,
        bias: Array | None = None, requantise: Requantise | None = None, *, threads: int = 1,
        data_format: str = "channels_first", batched: bool = True, nearly: bool = False,
    ) -> None:  # fmt: skip
        self.geometry, self.requantise, self.threads = g, requantise, threads
        self.input_dtype: DType = np.dtype(input_dtype)
        self.dtype: DType = INT32 if requantise is None else requantise.dtype
        self._zero = int(input_zero)
        self._layout, self._batched = layout(data_format, len(g.input_size)), batched
        self._nearly = nearly
        self._options: dict[str, Any] = {
            "threads": threads, "data_format": data_format, "batched": batched, "nearly": nearly
        }  # fmt: skip
        difference = _centred(weight, weight_zero)
        self._bias: Array | None = None if bias is None else bias.astype(INT32)
        largest = self._largest_sum(difference)
        self._program: BytesProgram | ChannelsTogether | None = None
        self._packed: tuple[Packed, ...] = ()
        self._ends: Any = None
        self._weight: Array = difference
        if largest < 1 << 31 and difference.size:
            four = difference.dtype == np.int8 and multiplies_four(difference.shape[1], g.groups)
            self._prepare(four, largest)
            assert self._program is not None
            weight = difference if four else difference.astype(DIFFERENCE, copy=False)
            self._packed, self._ends = self._program.prepared(weight, self._bias, requantise, self._wide)

    def _prepare(self, four: bool, largest: int) -> None:
        """Native code for a weight that is `four` steps at a time; from here on packed weights stand for it."""
        self._made = four, largest
        kind = np.dtype(np.int8) if four else DIFFERENCE
        self._weight = np.broadcast_to(np.zeros((), kind), self._weight.shape)
        how, result = self.requantise, None if self.requantise is None else self.dtype
        types = Types(self.input_dtype, kind, INT32)
        self._problem = p = problem(self.geometry, Direction.FORWARD, types, Use.HELD, self.threads)
        # The quick ways to round take products that an int32 holds.
        self._wide = how is not None and largest * float(how.multiplier.max(initial=0)) >= 1 << 30
        self._program = program_of_bytes(p, four, self._zero, result, wide=self._wide, nearly=self._nearly)

    def _largest_sum(self, weight: Array) -> int:
        """What no sum of a weight and the bias exceeds, whatever the input holds; of weights of so few terms that none
        can be large, by their number alone."""
        limits = np.iinfo(self.input_dtype)
        reach = max(int(limits.max) - self._zero, self._zero - int(limits.min))
        most = 0 if self._bias is None else int(np.abs(self._bias.astype(np.int64)).max(initial=0))
        most += prod(weight.shape[1:]) * reach * 256
        if most < 1 << 30:
            return most
        sums = np.abs(weight.astype(np.int64)).sum(tuple(range(1, weight.ndim))) * reach
        if self._bias is not None:
            sums = sums + np.abs(self._bias.astype(np.int64))
        return int(sums.max(initial=0))

    def __copy__(self) -> QuantisedPlan:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> QuantisedPlan:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        given = self.geometry, self.input_dtype, self._zero, self._bias, self.requantise, self._options
        if self._program is None:
            return _unpickled, ((), given, self._weight, None)
        packed_by = _native.isa_name(), _native.sources()
        return _unpickled, (packed_by, given, self._weight, (self._made, self._packed, self._ends))

    def natively(self, x: Array, out: Array) -> bool:
        """Whether a run on these arrays is native works alone, which a net may do again by themselves."""
        if self._program is None:
            return False
        logical = self._layout.to_logical
        return self._program.takes(logical(x), logical(out))

    @property
    def kind(self) -> str:
        """Algorithm and variant in a word or two, as `explain` says it."""
        return self.explain().kind if self._program is None else self._program.method.word

    @property
    def packed_bytes(self) -> int:
        """Memory of the weights."""
        if self._program is None:
            return self._weight.nbytes
        return sum(one.panels.nbytes for one in self._packed)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the planned result, as its layout has it."""
        g = self.geometry
        return self._layout.from_logical_shape((g.batch, g.out_channels, *g.output_size))

    def explain(self) -> ConvExplanation:
        """Algorithm, instruction set, tiles and memory.

        Returns
        -------
        ConvExplanation
            As from `fastconv.explain_conv2d`.
        """
        last = self._layout.channels_last
        if self._program is None:
            found = explain(
                self.geometry, DIFFERENCE, threads=self.threads, channels_last=last, direction=Direction.FORWARD
            )
        else:
            choice = Choice(self._program.method, "", self._program.reason, ())
            axes = len(self.geometry.input_size)
            found = explanation(self._problem, choice, self._program.told(last, True), axes)
        return found._replace(dtype=f"{self.input_dtype} to {self.dtype}")

    @property
    def adds(self) -> bool:
        """Whether `run` does more with the bytes: on arrays whose channels lie side by side."""
        return isinstance(self._program, BytesProgram) and self.requantise is not None

    def run(self, x: Any, out: Array | None = None, more: More | None = None) -> Array:
        """Convolve a batch.

        Parameters
        ----------
        x : array_like
            Of the planned shape and element type, with any batch size.
        out : ndarray, optional
            Receives the result; it may overlap the input.
        more : More, optional
            What is done with the bytes, of a plan that `adds`.

        Returns
        -------
        ndarray
            `out`, or a new array, which lies in memory as the input does.

        Raises
        ------
        ConvError
            For another shape, and where a sum leaves int32.
        ConvTypeError
            For another element type.
        """
        g, array = self.geometry, as_array("input", x)
        if array.dtype != self.input_dtype:
            raise ConvTypeError(
                f"input must have the planned dtype {self.input_dtype}, but got {array.dtype} of shape {array.shape}."
            )
        logical, batched = self._layout.activation("input", array)
        if batched != self._batched or logical.shape[1:] != (g.in_channels, *g.input_size):
            planned = self._layout.from_logical_shape((g.batch, g.in_channels, *g.input_size))
            raise ConvError(
                f"input must have the planned shape {planned if self._batched else planned[1:]} (any batch size), but "
                f"got input of shape {array.shape}."
            )
        shape = (len(logical), g.out_channels, *g.output_size)
        last = self._layout.channels_last or lies_channels_last(logical)
        target, result, finish = destination(
            "QuantisedPlan.run", out, self._layout, shape, self.dtype, batched, last, (logical,)
        )
        if self._program is not None and target.size:
            ends, other = self._ends, None
            if more is not None:
                ends = ends._replace(table=more.table, added=more.added)
                other = None if more.residual is None else self._layout.to_logical(more.residual)
            self._program.run(logical, self._weight, self._packed, ends, other, target, ACTIVATIONS[None], False)
        elif target.size:
            self._run_otherwise(logical, target)
        finish()
        return result

    def _run_otherwise(self, x: Array, target: Array) -> None:
        """Sums that may leave int32, and those of nothing."""
        sums = target if self.requantise is None else np.empty_like(target, INT32)
        self._add_up(x, sums)
        if self.requantise is not None:
            target[...] = self.requantise(sums, 1)

    def _add_up(self, x: Array, sums: Array) -> None:
        """The exact sums, or a refusal."""
        g = self.geometry._replace(batch=len(x))
        centred = x.astype(DIFFERENCE) - DIFFERENCE.type(self._zero)
        weight = self._weight.astype(DIFFERENCE, copy=False)
        forward(g, centred, weight, self._bias, None, None, sums, threads=self.threads)
