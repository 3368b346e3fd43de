"""Convolution written a second time, fast enough to judge hundreds of thousands of problems.

Every input value under every tap of every output is gathered once, in float64; each result is then one matrix product
with what was gathered, and the input gradient its sum back to where it came from. On integer-valued data whose partial
sums stay below 2**53 the results are exact. Shares no code with fastconv: padding is `numpy.pad` of the positions.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
NUMPY_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap", "symmetric": "symmetric"}


def word_padding(word: str, size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """What a padding in words adds before and after one axis."""
    reach = dilation * (kernel - 1)
    if word == "full":
        return reach, reach
    if word == "valid":
        return 0, 0
    missing = max(0, (-(-size // stride) - 1) * stride + reach + 1 - size)
    small, large = missing // 2, missing - missing // 2
    return (small, large) if word == "same" else (large, small)


def tap_positions(
    size: int, kernel: int, stride: int, dilation: int, padding: tuple[int, int], mode: str = "zeros"
) -> Array:
    """(outputs, kernel) positions along one axis under every tap; `size`, one past the end, stands for zero padding."""
    before, after = padding
    width = (max(before, 0), max(after, 0))
    if mode == "zeros":
        grown = np.full(size + sum(width), size)
        grown[width[0] : width[0] + size] = np.arange(size)
    else:
        grown = np.pad(np.arange(size), width, mode=NUMPY_MODES[mode])  # type: ignore[call-overload]
    grown = grown[max(-before, 0) : grown.size - max(-after, 0)]
    outputs = (grown.size - dilation * (kernel - 1) - 1) // stride + 1
    return grown[np.arange(outputs)[:, None] * stride + np.arange(kernel) * dilation]


class Oracle:
    """The convolution of x (N, C, H, W) over the positions of `tap_positions`, and its gradients; all in float64.

    Weights are (O, C/groups, kH, kW), results (N, O, rows, columns).
    """

    def __init__(self, x: Array, rows: Array, columns: Array, groups: int = 1) -> None:
        self.shape, self.groups = x.shape, groups
        self.rows, self.columns = rows, columns
        self.outputs, self.kernel = (len(rows), len(columns)), (rows.shape[1], columns.shape[1])
        batch, channels, height, width = x.shape
        framed = np.zeros((batch, height + 1, width + 1, channels))
        framed[:, :height, :width] = x.transpose(0, 2, 3, 1)
        # (batch, output row, output column, tap row, tap column, channel)
        self._gathered = framed.reshape(batch, -1, channels).take(self._flat.ravel(), axis=1)

    @cached_property
    def _flat(self) -> Array:
        flat: Array = self.rows[:, None, :, None] * (self.shape[3] + 1) + self.columns[None, :, None, :]
        return flat

    @cached_property
    def _terms(self) -> Array:
        """(groups, pixels, taps x channels of a group): what every output sums."""
        taps, channels = self.kernel[0] * self.kernel[1], self.shape[1] // self.groups
        by_group = self._gathered.reshape(-1, taps, self.groups, channels).transpose(2, 0, 1, 3)
        return by_group.reshape(self.groups, -1, taps * channels)

    def _columns_of(self, weight: Array) -> Array:
        """(groups, taps x channels, outputs of a group)."""
        outputs, channels = weight.shape[0] // self.groups, weight.shape[1]
        split = weight.astype(np.float64).reshape(self.groups, outputs, channels, -1)
        return split.transpose(0, 3, 2, 1).reshape(self.groups, -1, outputs)

    def _pixels_of(self, dy: Array) -> Array:
        """(groups, pixels, outputs of a group)."""
        last = dy.astype(np.float64).transpose(0, 2, 3, 1)
        return last.reshape(-1, self.groups, dy.shape[1] // self.groups).transpose(1, 0, 2)

    def forward(self, weight: Array) -> Array:
        y = (self._terms @ self._columns_of(weight)).transpose(1, 0, 2)
        return y.reshape(self.shape[0], *self.outputs, weight.shape[0]).transpose(0, 3, 1, 2)

    def weight_gradient(self, dy: Array) -> Array:
        dw = self._terms.transpose(0, 2, 1) @ self._pixels_of(dy)
        channels = self.shape[1] // self.groups
        return dw.reshape(self.groups, *self.kernel, channels, -1).transpose(0, 4, 3, 1, 2).reshape(
            dy.shape[1], channels, *self.kernel
        )

    def input_gradient(self, weight: Array, dy: Array) -> Array:
        batch, channels, height, width = self.shape
        shares = self._pixels_of(dy) @ self._columns_of(weight).transpose(0, 2, 1)
        taps = self.kernel[0] * self.kernel[1]
        shares = shares.reshape(self.groups, -1, taps, channels // self.groups).transpose(1, 2, 0, 3)
        shares = shares.reshape(batch, -1)
        where = (self._flat.reshape(-1, 1) * channels + np.arange(channels)).ravel()
        slots = (height + 1) * (width + 1)
        sums = [np.bincount(where, one, slots * channels) for one in shares]
        framed = np.array(sums).reshape(batch, height + 1, width + 1, channels)
        return framed[:, :height, :width].transpose(0, 3, 1, 2)

    def uses(self) -> tuple[Array, Array]:
        """How many taps look at each row and at each column of the input."""
        return tuple(
            np.bincount(positions.ravel(), minlength=size + 1)[:size]
            for positions, size in ((self.rows, self.shape[2]), (self.columns, self.shape[3]))
        )  # type: ignore[return-value]
