"""`scipy.ndimage`'s linear filters, of arrays with any number of axes: here `convolve` and `correlate`.

Sums are made in float64 and rounded (or, to integers, cut) to the type of the result, as SciPy makes them; where the
input is float32 and speed matters more than the last bits of a sum, `fastconv.conv2d` computes in float32.

A sum that is cut to an integer is SciPy's even where that is decided by the last bit: 41 nines of 1/9 each may come to
41 or to a little less. There the sum is made again in SciPy's order (`in_scipys_order`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .._core.words import flag
from ..errors import ConvError
from .arguments import axes_of, each, known_mode, number_beyond, pads_of, target_of
from .cut import in_scipys_order
from .filters import convolve1d, correlate1d, gaussian_filter, gaussian_filter1d, uniform_filter, uniform_filter1d
from .missing import refusing
from .separable import by_factors
from .types import Array, into_integers, number, same_parameters
from .windows import correlate_valid, extended

__all__ = [
    "convolve", "convolve1d", "correlate", "correlate1d", "gaussian_filter", "gaussian_filter1d", "uniform_filter",
    "uniform_filter1d",
]  # fmt: skip
if not TYPE_CHECKING:  # for whom every name would be one
    __getattr__ = refusing(__name__, __all__)
SMALLEST_WEIGHT: Final = float(np.finfo(np.float64).eps)  # SciPy leaves out weights up to this


def correlate(
    input: ArrayLike,
    weights: ArrayLike,
    output: Array | DTypeLike | None = None,
    mode: str = "reflect",
    cval: Any = 0.0,
    origin: int | Sequence[int] = 0,
    *,
    axes: int | Sequence[int] | None = None,
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    channels: bool = False,
    num_threads: int | None = None,
) -> Array:
    """Correlate an array with a kernel, as `scipy.ndimage.correlate` does.

    Parameters
    ----------
    input : array_like
        Real or complex numbers, any number of axes.
    weights : array_like
        The kernel, with an axis for each of `axes`.
    output : ndarray or dtype, optional
        Where the result goes, or its type; by default that of `input`, complex if either array is.
    mode : {'reflect', 'constant', 'nearest', 'mirror', 'wrap'}
        What lies around `input`; 'grid-mirror', 'grid-constant' and 'grid-wrap' are names of the same.
    cval : scalar
        For 'constant'.
    origin : int or sequence
        Shifts the kernel from its centre: a positive value moves what it looks at to the left.
    axes : int or sequence, optional
        The axes that are filtered, all by default; the others are batches. `origin`, `stride` and `dilation` follow
        this order, the axes of `weights` that of `input`.
    stride : int or sequence
        Keep every so many results along each axis: ``result[::stride]``.
    dilation : int or sequence
        Spread `weights` with so many minus one zeros between its elements.
    channels : bool
        `input` is (C, ...) and `weights` (O, C, ...): the sum over C for each of O kernels, (O, ...). `axes` and
        `origin` then count without the channels.
    num_threads : int, optional
        For this call, in place of `fastconv.get_num_threads()`.

    Returns
    -------
    ndarray
        Of the shape of `input`, or ceil(n / stride) along an axis of n.

    Raises
    ------
    ConvError
        Both a `ValueError` and a `RuntimeError`: options or shapes that do not fit, or an integer result that its type
        does not hold.
    ConvTypeError
        A `TypeError`: elements that are no numbers.

    Examples
    --------
    >>> from fastconv.scipy import ndimage
    >>> ndimage.correlate([1.0, 2.0, 4.0], [1.0, 1.0])
    array([2., 3., 6.])
    """
    return _filtered(
        "correlate", input, weights, output, mode, cval, origin, axes, stride, dilation, channels, num_threads,
        turned=False,
    )


@same_parameters(correlate)
def convolve(*arguments: Any) -> Array:
    """Convolve an array with a kernel, as `scipy.ndimage.convolve` does.

    Parameters
    ----------
    input, weights, output, mode, cval, origin : as for `correlate`
        See there.
    axes, stride, dilation, channels, num_threads : as for `correlate`
        See there.

    Returns
    -------
    ndarray
        As from `correlate`.

    Raises
    ------
    ConvError
        As from `correlate`.
    ConvTypeError
        As from `correlate`.

    Examples
    --------
    >>> from fastconv.scipy import ndimage
    >>> ndimage.convolve([1.0, 2.0, 4.0], [1.0, 1.0])
    array([3., 6., 8.])
    """
    return _filtered("convolve", *arguments, turned=True)


def _filtered(
    name: str,
    input: ArrayLike,
    weights: ArrayLike,
    output: Any,
    mode: str,
    cval: Any,
    origin: int | Sequence[int],
    axes: int | Sequence[int] | None,
    stride: int | Sequence[int],
    dilation: int | Sequence[int],
    channels: bool,
    num_threads: int | None,
    *,
    turned: bool,
) -> Array:
    x, w = number("input", input), number("weights", weights)
    channels = flag("channels", channels)
    mode = known_mode(name, mode)
    spatial = x.ndim - channels
    if spatial < 0:
        raise ConvError(f"{name}: channels=True takes an input with an axis of channels, but got one number.")
    listed = axes_of(name, axes, spatial)
    # As in SciPy: the kernel's axes belong to the listed ones in rising order, the options to these as they are listed,
    # and the order is nothing where all are.
    count = len(listed)
    filtered, order = sorted(listed), list(range(count))
    if count < spatial:
        order.sort(key=listed.__getitem__)
    if w.ndim != count + 2 * channels:
        raise ConvError(
            f"{name}: weights must have {count + 2 * channels} axes to filter {count} of input"
            f"{' with channels' * channels}, but got weights of shape {w.shape} and input of shape {x.shape}."
        )
    if channels and x.shape[0] != w.shape[1]:
        raise ConvError(f"{name}: weights {w.shape} sum over {w.shape[1]} channels, but input {x.shape} has {len(x)}.")
    kernel_shape = w.shape[w.ndim - count :]
    if 0 in kernel_shape:
        raise ConvError(f"{name}: weights must hold at least one element along every axis, but got shape {w.shape}.")
    options = (each("stride", stride, count, 1), each("dilation", dilation, count, 1), each("origin", origin, count))
    steps, spacing, origins = ([option[i] for i in order] for option in options)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel_shape, spacing, strict=True)]
    pads = pads_of(name, spans, origins, turned)
    if turned:
        backwards: tuple[Any, ...] = (..., *(slice(None, None, -1),) * count)
        w = w[backwards]
    elif w.dtype.kind == "c":
        w = w.conj()
    complex_sums = "c" in (x.dtype.kind, w.dtype.kind)
    shape = list(x.shape)
    for axis, step in zip(filtered, steps, strict=True):
        shape[channels + axis] = -(-shape[channels + axis] // step)
    if channels:
        shape[0] = w.shape[0]
    target, dtype = target_of(name, output, tuple(shape), x.dtype, complex_sums)
    value = number_beyond(name, cval, x.dtype)

    def sums(part: Array, kernel: Array, beyond: float) -> Array:
        cut = dtype.kind in "biu"
        return _sums(part, kernel, pads, mode, beyond, filtered, steps, spacing, channels, num_threads, cut)

    if 0 in shape:
        result: Array = np.zeros(shape, dtype)
    elif not complex_sums:
        result = sums(x, w, value.real)
    else:
        result = sums(x.real, w.real, value.real) + 0j
        if w.dtype.kind == "c":
            result.imag += sums(x.real, w.imag, value.real)
        if x.dtype.kind == "c":
            result.imag += sums(x.imag, w.real, value.imag)
            if w.dtype.kind == "c":
                result.real -= sums(x.imag, w.imag, value.imag)
    if dtype.kind in "biu" and result.dtype != dtype:
        result = into_integers(result, dtype, f"{name}: the result")
    if target is None:
        return result.astype(dtype, copy=False)
    target[...] = result
    return cast(Array, output)


def _sums(
    x: Array,
    weights: Array,
    pads: list[tuple[int, int]],
    mode: str,
    beyond: float,
    axes: list[int],
    stride: list[int],
    dilation: list[int],
    channels: bool,
    num_threads: int | None,
    cut: bool,
) -> Array:
    """Real sums in float64; those that are to be `cut` to integers are whole numbers where SciPy's are."""
    w = weights.astype(np.float64)
    w[np.abs(w) <= SMALLEST_WEIGHT] = 0
    if not axes:
        return np.tensordot(w, x.astype(np.float64), 1) if channels else x * w
    own = [channels + axis for axis in axes]
    if not (cut or channels) and set(stride) == set(dilation) == {1}:
        made = by_factors(x, w, own, pads, mode, beyond, np.dtype(np.float64), num_threads)
        if made is not None:
            return made
    last = range(x.ndim - len(own), x.ndim)
    wide = extended(np.moveaxis(x, own, last), pads, mode, beyond, np.float64)

    def run(values: Array, kernel: Array) -> Array:
        if not channels:
            return correlate_valid(values, kernel, stride, dilation, num_threads)
        # the axis of channels comes first, also where others are batches
        return np.stack([
            sum(correlate_valid(values[c], kernel[o, c], stride, dilation, num_threads) for c in range(len(values)))
            for o in range(len(kernel))
        ])

    result = run(wide, w)
    if x.dtype.kind == "f" and not (w.all() and np.isfinite(w).all()) and not np.isfinite(wide).all():
        result = _without_zero_weights(wide, w, run)
    if cut:
        integers = x.dtype.kind != "f" and float(beyond).is_integer()
        with np.errstate(all="ignore"):
            in_scipys_order(result, wide, w, stride, dilation, channels, integers)
    return np.moveaxis(result, last, own)


def _without_zero_weights(x: Array, w: Array, run: Any) -> Array:
    """Sums that leave out the products with weights of zero, as SciPy's do: they would be NaN at NaN and infinity.

    The sum of what is finite, and counts of the infinities of both signs and the NaN that each window meets.
    """

    def met(where: Array, by: Array) -> Array:
        counted: Array = run(where.astype(np.float64), by.astype(np.float64)) > 0.5
        return counted

    finite = np.isfinite(x)
    wx, ww = np.where(finite, x, 0), np.where(np.isfinite(w), w, 0)
    result: Array = run(wx, ww)
    plus = met(x == np.inf, w > 0) | met(x == -np.inf, w < 0)
    minus = met(x == np.inf, w < 0) | met(x == -np.inf, w > 0)
    result[plus] = np.inf
    result[minus] = -np.inf
    result[(plus & minus) | met(np.isnan(x), w != 0)] = np.nan
    return result
