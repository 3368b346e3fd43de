"""Calls that most programs repeat: contiguous arrays and plain options, resolved once.

Under a key of everything that a call depends on lies what was found out about it; a call that is known goes straight to
the driver, a few microseconds instead of a few tens. Of the others, which say where the result goes or whose arrays lie
in another way, the geometry is remembered. What is kept are numbers, no arrays, and not many of them.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from .. import _native
from . import threads
from .types import FLOATS

Key = tuple[object, ...]
MOST: Final = 512
_known: dict[Key, Any] = {}
recall: Final = _known.get  # what is known under a key, or None


def keep(key: Key, value: Any) -> None:
    """Remember `value`; a full memory begins anew."""
    if len(_known) >= MOST:
        _known.clear()
    _known[key] = value


def plain(option: object) -> bool:
    """Whether an option equals nothing else that is written differently: True is 1, and yet no stride."""
    kind = type(option)
    return kind is int or kind is str or option is None or (kind is tuple and all(map(plain, option)))  # type: ignore[call-overload]


def key_of(
    axes: int, input: object, weight: object, bias: object, stride: object, padding: object, dilation: object,
    groups: object, padding_mode: object, data_format: object, activation: object, algorithm: object,
    num_threads: object,
) -> Key | None:  # fmt: skip
    """What a convolution of a batch is remembered by; None for one that is checked anew each time."""
    if (
        type(input) is np.ndarray
        and type(weight) is np.ndarray
        and input.ndim == axes + 2
        and (dtype := input.dtype) in FLOATS
        and (other := weight.dtype) in FLOATS  # not byte-swapped: what is remembered takes arrays as they are
        and (type(stride) is int or plain(stride))
        and (type(padding) is int or plain(padding))
        and (type(dilation) is int or plain(dilation))
        and type(groups) is int
        and type(padding_mode) is type(data_format) is type(algorithm) is str
        and (num_threads is None or type(num_threads) is int)
        and (activation is None or type(activation) is str)
        and (bias is None or (type(bias) is np.ndarray and bias.dtype == dtype))
    ):
        return (
            input.shape, weight.shape, dtype, other, None if bias is None else bias.shape, stride, padding, dilation,
            groups, padding_mode, data_format, activation, algorithm, threads.effective(num_threads),
            _native.isa_number(), input.flags.c_contiguous,
        )  # fmt: skip
    return None


def gradient_key(
    axes: int, what: str, size: object, grad_output: object, other: object, stride: object, padding: object,
    dilation: object, groups: object, padding_mode: object, data_format: object, algorithm: object,
    num_threads: object,
) -> Key | None:  # fmt: skip
    """`key_of` a gradient: `what` says which, and `size` is the third shape; None as there."""
    if type(size) is not tuple or not all(type(length) is int for length in size):
        return None
    key = key_of(
        axes, grad_output, other, None, stride, padding, dilation, groups, padding_mode, data_format, None, algorithm,
        num_threads,
    )  # fmt: skip
    return None if key is None else (what, size, *key)
