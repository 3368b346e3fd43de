"""Calls that most programs repeat: contiguous arrays and plain options, resolved once.

Under a key of everything that a call depends on lies what was found out about it; a call that is known goes straight to
the driver, a few microseconds instead of a few tens. What is remembered are numbers, no arrays, and not many of them.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from . import _native, plan, threads
from ._core.types import FLOATS
from .arrays import Array, Layout, empty
from .call import Call
from .geometry import Geometry, Shape

_MOST_REMEMBERED: Final = 256
remembered_calls: dict[tuple[object, ...], tuple[Call, Shape, int, bool]] = {}  # call, result shape, activation, layout


def remember(store: dict[tuple[object, ...], Any], key: tuple[object, ...], value: Any) -> None:
    """Keep `value`; a full store begins anew."""
    if len(store) >= _MOST_REMEMBERED:
        store.clear()
    store[key] = value


def _plain(option: object) -> bool:
    """An option that equals nothing else that is written differently: True is 1, and yet no stride."""
    return type(option) is int or type(option) is str or (
        type(option) is tuple and all(type(item) is int for item in option)
    )  # fmt: skip


def call_key(
    input: object, weight: object, bias: object, stride: object, padding: object, dilation: object, groups: object,
    padding_mode: object, data_format: object, activation: object, algorithm: object, num_threads: object,
) -> tuple[object, ...] | None:  # fmt: skip
    """What a call of `conv2d` is remembered by; None for one that is checked anew each time."""
    if (
        type(input) is np.ndarray
        and type(weight) is np.ndarray
        and input.ndim == 4
        and input.dtype in FLOATS
        and weight.dtype in FLOATS  # not byte-swapped: what is remembered takes arrays as they are
        and (type(stride) is int or _plain(stride))
        and (type(padding) is int or _plain(padding))
        and (type(dilation) is int or _plain(dilation))
        and type(groups) is int
        and type(padding_mode) is type(data_format) is type(algorithm) is str
        and (num_threads is None or type(num_threads) is int)
        and (activation is None or type(activation) is str)
        and (bias is None or (type(bias) is np.ndarray and bias.dtype == input.dtype))
    ):
        return (
            input.shape, weight.shape, input.dtype, weight.dtype, None if bias is None else bias.shape, stride, padding,
            dilation, groups, padding_mode, data_format, activation, algorithm, threads.effective(num_threads),
            _native.isa_number(), input.flags.c_contiguous,
        )  # fmt: skip
    return None


class Gradients(NamedTuple):
    """Gradients of arrays that were seen before, of contiguous batches: all that is left is to compute."""

    frame: Layout
    geometry: Geometry
    algorithm: str
    threads: int

    def input(self, grad_output: Array, weight: Array) -> Array:
        frame, g = self.frame, self.geometry
        result = empty(frame.from_logical_shape((g.batch, g.in_channels, *g.input_size)), grad_output.dtype)
        plan.input_gradient(
            g, frame.to_logical(grad_output), frame.weight("weight", weight), None, frame.to_logical(result),
            algorithm=self.algorithm, threads=self.threads,
        )  # fmt: skip
        return result

    def weight(self, grad_output: Array, input: Array) -> Array:
        frame, g = self.frame, self.geometry
        logical = (g.out_channels, g.in_channels // g.groups, *g.kernel_size)
        result = empty((*g.kernel_size, *logical[1::-1]) if frame.channels_last else logical, grad_output.dtype)
        plan.weight_gradient(
            g, frame.to_logical(input), frame.to_logical(grad_output), frame.weight("weight", result),
            algorithm=self.algorithm, threads=self.threads,
        )  # fmt: skip
        return result

    def bias(self, grad_output: Array) -> Array:
        result = np.empty(self.geometry.out_channels, grad_output.dtype)
        plan.bias_gradient(self.frame.to_logical(grad_output), result, threads=self.threads)
        return result


remembered_gradients: dict[tuple[object, ...], Gradients] = {}


def known_key(
    first: object, grad_output: object, other: object, stride: object, padding: object, dilation: object,
    groups: object, padding_mode: object, data_format: object, algorithm: object, num_threads: object,
) -> tuple[object, ...] | None:  # fmt: skip
    """`call_key` of a gradient: `first` says which and holds the third shape, a tuple; None as there."""
    if type(first) is tuple and type(first[1]) is tuple and all(type(size) is int for size in first[1]):
        key = call_key(
            grad_output, other, None, stride, padding, dilation, groups, padding_mode, data_format, None, algorithm,
            num_threads,
        )  # fmt: skip
        return None if key is None else (first, *key)
    return None
