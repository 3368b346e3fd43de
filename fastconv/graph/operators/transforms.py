"""Fourier transforms of signals, and the windows and weights that go with them."""

from __future__ import annotations

from math import pi
from typing import Any

import numpy as np

from ..._core.arrays import Array
from ..tensors import numpy_type
from .registry import Call, operator


def _number(call: Call, given: Array, what: str, least: int = 0) -> int:
    if given.size != 1:
        raise call.error(f"{what} must be one number, but has the shape {given.shape}.")
    number = int(given.ravel()[0])
    if number < least:
        raise call.error(f"{what} {number} must be at least {least}.")
    return number


def _complex(call: Call, x: Array) -> Array:
    """A signal whose last axis holds real numbers, or real and imaginary parts."""
    if not x.ndim or x.shape[-1] not in (1, 2):
        raise call.error(f"the last axis of an input of shape {x.shape} must hold 1 or 2 numbers.")
    return x[..., 0] if x.shape[-1] == 1 else x[..., 0] + 1j * x[..., 1]


def _parts(found: Array, kind: Any) -> Array:
    """Real and imaginary parts along a last axis."""
    return np.stack([found.real, found.imag], axis=-1).astype(kind, copy=False)


@operator("DFT", since=20, shaping=(1, 2))
def dft(call: Call, x: Array, length: Array | None = None, axis: Array | None = None) -> Any:
    """The discrete Fourier transform along an axis, or its inverse."""
    return _transformed(call, x, length, -2 if axis is None else int(axis.ravel()[0]))


@operator("DFT", since=17, shaping=(1,))
def dft_by_attribute(call: Call, x: Array, length: Array | None = None) -> Any:
    """Up to operator set 19 the axis is an attribute."""
    return _transformed(call, x, length, int(call.get("axis", 1)))


def _transformed(call: Call, x: Array, length: Array | None, where: int) -> Any:
    signal = _complex(call, x)
    axis = call.from_front(where, x.ndim)
    if axis >= signal.ndim:
        raise call.error(f"axis {where} of an input of shape {x.shape} is the one of real and imaginary parts.")
    half, back = bool(call.get("onesided", 0)), bool(call.get("inverse", 0))
    default = 2 * (signal.shape[axis] - 1) if half and back else signal.shape[axis]
    count = default if length is None else _number(call, length, "dft_length", 1)
    if count < 1:
        raise call.error(f"a transform of {count} numbers along axis {axis} of an input of shape {x.shape}.")
    call.check((*signal.shape[:axis], count, *signal.shape[axis + 1 :], 2), x.dtype)
    if back:
        found = np.fft.irfft(signal, count, axis) if half else np.fft.ifft(signal, count, axis)
        return found[..., None].astype(x.dtype, copy=False) if half else _parts(found, x.dtype)
    if half and x.shape[-1] == 1:
        return _parts(np.fft.rfft(signal, count, axis), x.dtype)
    found = np.fft.fft(signal, count, axis)
    if half:
        found = np.take(found, range(count // 2 + 1), axis)
    return _parts(found, x.dtype)


@operator("STFT", since=17, shaping=(1, 3))
def stft(call: Call, x: Array, step: Array, window: Array | None = None, length: Array | None = None) -> Any:
    """The Fourier transforms of windows that slide over signals."""
    if x.ndim != 3:
        raise call.error(f"a signal of shape {x.shape} must be (batch, length, 1 or 2).")
    stride = _number(call, step, "frame_step", 1)
    signal = _complex(call, x)
    count = signal.shape[1] if window is None else window.size
    count = count if length is None else _number(call, length, "frame_length", 1)
    if window is not None and window.shape != (count,):
        raise call.error(f"a window of shape {window.shape} for frames of {count}.")
    frames = max(0, (signal.shape[1] - count) // stride + 1)
    bins = count // 2 + 1 if call.get("onesided", 1) else count
    call.check((len(signal), frames, max(bins, count), 2), x.dtype)
    if not frames or not count:
        return np.empty((len(signal), frames, bins, 2), x.dtype)
    pieces = np.lib.stride_tricks.sliding_window_view(signal, count, axis=1)[:, ::stride]
    pieces = pieces if window is None else pieces * window
    if call.get("onesided", 1) and x.shape[-1] == 1:
        return _parts(np.fft.rfft(pieces, axis=-1), x.dtype)
    return _parts(np.fft.fft(pieces, axis=-1)[..., :bins], x.dtype)


# ---- windows ---------------------------------------------------------------------------------------------------------


def _window(call: Call, size: Array, weights: tuple[float, ...]) -> Any:
    """w0 - w1 cos(2 pi n / N) + w2 cos(4 pi n / N); N is one less than the size where the window is not periodic."""
    count, kind = _number(call, size, "size"), numpy_type(int(call.get("output_datatype", 1)))
    call.check((count,), kind)
    period = count if call.get("periodic", 1) else count - 1
    if period < 1:
        return np.ones(count, kind)
    angle = np.arange(count) * (2 * pi / period)
    total: Any = weights[0]
    for order, weight in enumerate(weights[1:], 1):
        total = total + (-1) ** order * weight * np.cos(order * angle)
    return np.asarray(total).astype(kind)


operator("HannWindow", since=17, shaping=(0,))(lambda call, size: _window(call, size, (0.5, 0.5)))
operator("HammingWindow", since=17, shaping=(0,))(lambda call, size: _window(call, size, (25 / 46, 21 / 46)))
operator("BlackmanWindow", since=17, shaping=(0,))(lambda call, size: _window(call, size, (0.42, 0.5, 0.08)))


@operator("MelWeightMatrix", since=17, shaping="all")
def mel_weight_matrix(call: Call, bands: Array, length: Array, rate: Array, low: Array, high: Array) -> Any:
    """Triangles of equal width on the mel scale over the bins of a one-sided spectrum."""
    count, size = _number(call, bands, "num_mel_bins"), _number(call, length, "dft_length")
    kind = numpy_type(int(call.get("output_datatype", 1)))
    rows = size // 2 + 1
    call.check((rows, count), np.float64)
    ends = [2595 * np.log10(1 + float(edge.ravel()[0]) / 700) for edge in (low, high)]
    mel = ends[0] + np.arange(count + 2) * ((ends[1] - ends[0]) / (count + 2))
    bins = (((size + 1) * (700 * (10 ** (mel / 2595) - 1))) // _number(call, rate, "sample_rate", 1)).astype(np.int64)
    left, centre, right = bins[:-2], bins[1:-1], bins[2:]
    row = np.arange(rows)[:, None]
    rising = np.where(centre > left, (row - left) / np.maximum(centre - left, 1), row == centre)
    falling = np.where(right > centre, (right - row) / np.maximum(right - centre, 1), 0)
    found = np.where((row >= left) & (row <= centre), rising, np.where((row > centre) & (row < right), falling, 0))
    return found.astype(kind)
