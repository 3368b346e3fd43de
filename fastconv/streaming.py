"""Convolutions of sequences that arrive piece by piece: speech, sensors, whatever is filtered while it is recorded.

The pieces of the result, one after the other, have the bits of the causal convolution of the whole sequence.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ._core import ask_plans
from ._core.arrays import Array, as_array, empty
from ._core.conv_plan import ConvPlan
from ._core.layouts import layout
from ._core.problem import Use
from ._core.types import FLOATS, result_of
from ._core.words import channel_groups, per_axis
from .errors import ConvError, ConvTypeError

__all__ = ["CausalConv1d"]

MOST_SLOTS = 8  # lengths of chunks that are prepared at a time


class _Slot(NamedTuple):
    """What a chunk of one shape after so many held samples needs; the arrays but `buffer` are views of it."""

    head: Array  # takes what was held
    body: Array  # takes the chunk
    window: Array  # what the plan is given
    plan: ConvPlan | None  # None where no output is completed
    buffer: Array
    tail: Array  # what is held then
    padded: int  # positions of `tail` that are padding
    skipped: int  # samples after it that no output looks at


class CausalConv1d:
    """A causal convolution along time of a sequence that comes in chunks.

    It keeps the last samples, as many as the kernel looks back, and gives the outputs that each chunk completes. Put
    one after the other they are ``conv1d(whole, weight, bias, stride, 'causal', dilation, groups,
    algorithm='direct')``, bit by bit, for any cut into chunks.

    Parameters
    ----------
    weight : array_like
        Shape (O, C / groups, kW), or (kW, C / groups, O) with ``data_format='NWC'``. It is copied.
    bias : array_like, optional
        Shape (O,): one value for each output channel.
    stride, dilation, groups : int
        As for `fastconv.conv1d`.
    data_format : {'NCW', 'NWC', 'NCL', 'NLC', 'channels_first', 'channels_last'}
        The order of the axes.
    activation : str, optional
        As for `fastconv.conv1d`.

    Raises
    ------
    ConvError, ConvTypeError
        For values, shapes or types that do not fit.

    Notes
    -----
    An object is one stream, or with a batch several that run in step; two threads must not run it at once. Chunks of
    the same lengths are prepared once; a chunk may have any length, and may be empty.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.streaming import CausalConv1d
    >>> difference = CausalConv1d(np.array([[[-1.0, 1.0]]]))
    >>> difference.run([[[1.0, 4.0]]])
    array([[[1., 3.]]])
    >>> difference.run([[[9.0]]])
    array([[[5.]]])
    """

    def __init__(
        self,
        weight: ArrayLike,
        bias: ArrayLike | None = None,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        *,
        data_format: str = "NCW",
        activation: str | None = None,
    ) -> None:
        self._frame = layout(data_format, 1)
        self._weight = as_array("weight", weight).copy()
        self._bias = None if bias is None else as_array("bias", bias).copy()
        out_channels, in_group, kernel = self._frame.weight("weight", self._weight).shape
        (self._step,), (apart,) = per_axis("stride", stride, 1, 1), per_axis("dilation", dilation, 1, 1)
        self._extent = max(kernel - 1, 0) * apart + 1
        self._groups, self._dilation, self._activation = channel_groups(groups), apart, activation
        self._channels = (in_group * self._groups, out_channels)
        self._dtype = self._weight.dtype
        self._axis = 1 if self._frame.channels_last else 2
        # padding is no number that an infinite weight is multiplied by
        self._pads = self._dtype in FLOATS and not bool(np.isfinite(self._weight).all())
        self._slots: dict[tuple[tuple[int, ...], int, int], _Slot] = {}
        self._plan(self._extent, 0)  # checks all of the above together
        self.reset()

    def __repr__(self) -> str:
        return (
            f"<CausalConv1d {self._channels[0]} -> {self._channels[1]} channels, {self._frame.name} {self._dtype}, "
            f"looks back {self._extent - 1}, stride={self._step}>"
        )

    def reset(self) -> None:
        """Forget the sequence: the next chunk begins a new one, of any batch size."""
        self._tail: Array | None = None  # what is held; None before the first chunk
        self._held, self._padded, self._skipped = self._extent - 1, (self._extent - 1) * self._pads, 0

    def run(self, chunk: ArrayLike) -> Array:
        """Take the samples that follow, and give the outputs that they complete.

        Parameters
        ----------
        chunk : array_like
            Shape (N, C, samples), or (N, samples, C), of the weight's element type; the batch axis may be left out.

        Returns
        -------
        ndarray
            Shape (N, O, outputs), or (N, outputs, O); with stride 1 as many as the chunk has samples.

        Raises
        ------
        ConvError
            For a shape that does not fit, or another batch than that of the chunks before. Nothing has changed then.
        ConvTypeError
            For another element type than the weight's.
        """
        tail = self._tail
        if (
            tail is not None
            and type(chunk) is np.ndarray
            and chunk.dtype == self._dtype
            and (slot := self._slots.get((chunk.shape, self._held, self._padded))) is not None
            and chunk.shape[0] == tail.shape[0]
            and not self._skipped
        ):
            return self._step_on(slot, chunk, tail)
        x, batched = self._frame.activation("chunk", as_array("chunk", chunk))
        own = self._frame.from_logical(x, True)
        tail = self._checked(own, x.shape)
        dropped = min(self._skipped, x.shape[2])
        left = self._skipped - dropped
        own = own[:, dropped:] if self._axis == 1 else own[:, :, dropped:]
        y = self._step_on(self._slot(own.shape), own, tail)
        self._skipped = left or self._skipped
        return y if batched else y[0]

    def _step_on(self, slot: _Slot, chunk: Array, tail: Array) -> Array:
        """One step; if it is interrupted, what was held is still there."""
        slot.head[...] = tail
        self._tail = slot.head
        slot.body[...] = chunk
        if slot.plan is None:
            size = (len(chunk), self._channels[1], 0)
            y = empty(self._frame.from_logical_shape(size), result_of(self._dtype))
        else:
            y = slot.plan.run(slot.window)
        self._tail, self._held = slot.tail, slot.tail.shape[self._axis]
        self._padded, self._skipped = slot.padded, slot.skipped
        return y

    def _slot(self, shape: tuple[int, ...]) -> _Slot:
        """What a chunk of this shape needs now, made or remembered."""
        held, padded, step = self._held, self._padded, self._step
        key = (shape, held, padded)
        if key in self._slots:
            return self._slots[key]
        length = shape[self._axis]
        total = held + length
        outputs = (total - self._extent) // step + 1 if total >= self._extent else 0
        consumed = outputs * step
        if length == 1:  # lies as it would channels last: so does what it is laid behind, of which whole samples move
            buffer = empty((shape[0], total, self._channels[0]), self._dtype)
            buffer = buffer if self._axis == 1 else buffer.swapaxes(1, 2)
        else:
            buffer = empty(self._frame.from_logical_shape((shape[0], self._channels[0], total)), self._dtype)

        def part(first: int, last: int) -> Array:
            return buffer[:, first:last] if self._axis == 1 else buffer[:, :, first:last]

        slot = _Slot(
            part(0, held), part(held, total), part(padded, total) if padded else buffer,
            self._plan(total - padded, padded) if outputs else None, buffer, part(min(consumed, total), total),
            max(0, padded - consumed), max(0, consumed - total),
        )  # fmt: skip
        if len(self._slots) >= MOST_SLOTS:
            self._slots.clear()
        self._slots[key] = slot
        return slot

    def _plan(self, length: int, padded: int) -> ConvPlan:
        """For so many samples behind so much padding."""
        lengths = (length, length + padded)
        for slot in self._slots.values():  # of another batch, perhaps
            if slot.plan and (slot.window.shape[self._axis], slot.buffer.shape[self._axis]) == lengths:
                return slot.plan
        return ask_plans.prepared(
            Use.HELD, self._frame.from_logical_shape((1, self._channels[0], length)), self._weight, self._bias,
            self._step, ((padded, 0),), self._dilation, self._groups, data_format=self._frame.name,
            activation=self._activation, algorithm="direct",
        )  # fmt: skip

    def _checked(self, chunk: Array, logical: tuple[int, ...]) -> Array:
        """What is held, once the chunk is known to follow it."""
        if chunk.dtype != self._dtype:
            raise ConvTypeError(
                f"chunk must have the weight's dtype {self._dtype}, but got {chunk.dtype} of shape {chunk.shape}; "
                f"convert it with .astype('{self._dtype}')."
            )
        if logical[1] != self._channels[0]:
            raise ConvError(
                f"chunk must have {self._channels[0]} channels, but got chunk of shape {chunk.shape} with "
                f"{logical[1]} (weight {self._weight.shape}, groups={self._groups}, data_format='{self._frame.name}')."
            )
        if self._tail is None:
            return np.zeros(self._frame.from_logical_shape((logical[0], logical[1], self._held)), self._dtype)
        if len(self._tail) != logical[0]:
            raise ConvError(
                f"chunk must continue a batch of {len(self._tail)}, but got chunk of shape {chunk.shape}; "
                "call reset() to begin anew."
            )
        return self._tail
