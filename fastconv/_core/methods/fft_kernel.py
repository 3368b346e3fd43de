"""The spectra of a kernel, as matrices of the products for every frequency."""

from __future__ import annotations

import numpy as np

from ..passes import Pass
from .fft_steps import POINT, angles, product_sums
from .fft_tiling import PART, Tiling
from .method import Array, Problem, Triple, aligned_bytes, panels


def spectra(p: Problem, q: Pass, t: Tiling, low: Triple, weight: Array) -> Array:
    """In panels; weights in the logical axis order. Of one channel as complex numbers."""
    kernel = weight.reshape(*weight.shape[:2], *(1,) * (5 - weight.ndim), *weight.shape[2:])
    kernel = kernel[:, :, q.places[0]][:, :, :, q.places[1]][:, :, :, :, q.places[2]]
    first, second = (p.channels, p.outputs) if p.transposed else (p.outputs, p.channels)
    kernel = kernel.reshape(p.groups, first, second, *q.counts)
    if p.transposed:
        kernel = kernel.swapaxes(1, 2)
    if p.channels == p.outputs == 1:
        numbers = complex_spectra(q, t, low, kernel).reshape(p.groups, *t.samples[:2], t.half)
        order = (0, 2, 3, 1) if len(t.axes) == 3 else (0, 3, 2, 1)
        w = np.ascontiguousarray(numbers.transpose(order), np.result_type(p.types.compute, np.complex64))
        made = aligned_bytes(w.nbytes)
        made[...] = w.reshape(-1).view(np.uint8)
        return made
    whole = _matrices(p, q, t, low, kernel).reshape(p.groups * t.frequencies * 2 * p.outputs, 2 * p.channels, 1, 1, 1)
    return panels(product_sums(p, t, 1), POINT, whole).panels


def complex_spectra(q: Pass, t: Tiling, low: Triple, kernel: Array) -> Array:
    """[group][o][c][fz][fy][fx]"""
    made: Array = kernel.astype(np.float64)
    for axis, n in zip((-1, -2, -3), reversed(t.samples), strict=True):
        taps = np.array(q.taps[axis + 3]) - low[axis + 3]
        turned = np.exp(1j * angles(n, t.half if axis == -1 else n, taps))
        made = np.moveaxis(np.matmul(np.moveaxis(made, axis, -1), turned.T), -1, axis)
    return made


def _matrices(p: Problem, q: Pass, t: Tiling, low: Triple, kernel: Array) -> Array:
    """[group][frequency][re, o][re, c]"""
    w = np.empty((p.groups, t.frequencies, 2, p.outputs, 2, p.channels), p.types.compute)
    part = max(1, PART // max(1, t.frequencies * p.channels))
    order = (0, 4, 5, 3, 1, 2) if len(t.axes) == 3 else (0, 5, 4, 3, 1, 2)
    for g in range(p.groups):
        for first in range(0, p.outputs, part):
            o = slice(first, first + part)
            s = complex_spectra(q, t, low, kernel[g : g + 1, o]).transpose(order)
            s = s.reshape(t.frequencies, -1, p.channels)
            w[g, :, 0, o, 0] = w[g, :, 1, o, 1] = s.real
            w[g, :, 1, o, 0] = s.imag
            w[g, :, 0, o, 1] = -s.imag
    return w
