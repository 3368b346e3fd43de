"""`scipy.signal.convolve`, `correlate`, `fftconvolve` and `oaconvolve`: arrays with any number of axes."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from .. import functional
from ..errors import ConvError, ConvTypeError
from . import transforms
from .types import Array, exact_type, into_integers, largest, number
from .windows import by_transforms, correlate_valid, extended

SIZES: Final = ("valid", "same", "full")
METHODS: Final = ("auto", "direct", "fft")
ROUNDED: Final = 1 << 44  # up to which sums of integers by transforms err by less than a quarter, whatever their number
MANY: Final = 1 << 8  # taps from which on integers may go by transforms


def convolve(in1: ArrayLike, in2: ArrayLike, mode: str = "full", method: str = "auto") -> Array:
    """Convolve two arrays, as `scipy.signal.convolve` does.

    Parameters
    ----------
    in1, in2 : array_like
        Real or complex numbers, with the same number of axes. In mode 'valid' they may change places.
    mode : {'full', 'valid', 'same'}
        All outputs, those without a padded zero, or as many as `in1` has, centred.
    method : {'auto', 'direct', 'fft'}
        Plain sums, Fourier transforms, or what costs less; of integers the results are exact in each case.

    Returns
    -------
    ndarray
        Of the type that NumPy promotes `in1` and `in2` to.

    Raises
    ------
    ConvError
        A `ValueError`: shapes or words that do not fit, or an integer result that its type does not hold.
    ConvTypeError
        A `TypeError`: elements that are no numbers.

    Examples
    --------
    >>> from fastconv.scipy import signal
    >>> signal.convolve([1, 2, 3], [0, 1, 1])
    array([0, 1, 3, 5, 3])
    """
    x, w = number("in1", in1), number("in2", in2)
    return _by_method("convolve", x, w, mode, method)


def correlate(in1: ArrayLike, in2: ArrayLike, mode: str = "full", method: str = "auto") -> Array:
    """Cross-correlate two arrays, as `scipy.signal.correlate` does: `in2` is conjugated and not turned round.

    Parameters
    ----------
    in1, in2 : array_like
        Real or complex numbers, with the same number of axes. In mode 'valid' they may change places.
    mode : {'full', 'valid', 'same'}
        All outputs, those without a padded zero, or as many as `in1` has, centred.
    method : {'auto', 'direct', 'fft'}
        Plain sums, Fourier transforms, or what costs less.

    Returns
    -------
    ndarray
        Of the type that NumPy promotes `in1` and `in2` to.

    Raises
    ------
    ConvError, ConvTypeError
        As `convolve` does.

    Examples
    --------
    >>> from fastconv.scipy import signal
    >>> signal.correlate([1, 2, 3], [0, 1, 1])
    array([1, 3, 5, 3, 0])
    """
    x, w = number("in1", in1), number("in2", in2)
    return _by_method("correlate", x, w[(slice(None, None, -1),) * w.ndim].conj(), mode, method)


def fftconvolve(
    in1: ArrayLike, in2: ArrayLike, mode: str = "full", axes: int | Sequence[int] | None = None
) -> Array:
    """Convolve two arrays along some axes, as `scipy.signal.fftconvolve` does: by whatever costs least.

    Parameters
    ----------
    in1, in2 : array_like
        Real or complex numbers, with the same number of axes; along those that are not convolved their sizes are equal,
        or one is 1. In mode 'valid' they may change places.
    mode : {'full', 'valid', 'same'}
        All outputs, those without a padded zero, or as many as `in1` has, centred.
    axes : int or sequence, optional
        The axes that are convolved, all by default.

    Returns
    -------
    ndarray
        Floats or complex numbers: integers become float64.

    Raises
    ------
    ConvError, ConvTypeError
        As `convolve` does.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.scipy import signal
    >>> signal.fftconvolve(np.ones((2, 3)), np.ones((1, 2)), axes=1)
    array([[1., 2., 2., 1.],
           [1., 2., 2., 1.]])
    """
    return _in_floats("fftconvolve", number("in1", in1), number("in2", in2), mode, axes)


def oaconvolve(in1: ArrayLike, in2: ArrayLike, mode: str = "full", axes: int | Sequence[int] | None = None) -> Array:
    """Convolve two arrays along some axes, as `scipy.signal.oaconvolve` does: another name of `fftconvolve`, which goes
    by tiles wherever they pay.

    Parameters
    ----------
    in1, in2 : array_like
        As for `fftconvolve`.
    mode : {'full', 'valid', 'same'}
        As for `fftconvolve`.
    axes : int or sequence, optional
        As for `fftconvolve`.

    Returns
    -------
    ndarray
        As from `fftconvolve`.

    Raises
    ------
    ConvError, ConvTypeError
        As `convolve` does.

    Examples
    --------
    >>> from fastconv.scipy import signal
    >>> signal.oaconvolve([1.0, 2.0, 3.0], [1.0, 1.0])
    array([1., 3., 5., 3.])
    """
    return _in_floats("oaconvolve", number("in1", in1), number("in2", in2), mode, axes)


# ---- what is asked -------------------------------------------------------------------------------------------------


def _by_method(name: str, x: Array, w: Array, mode: str, method: str) -> Array:
    _check_mode(name, mode)
    if method not in METHODS:
        raise ConvError(f"{name}: method must be 'auto', 'direct' or 'fft', but got method={method!r}.")
    if x.ndim != w.ndim:
        raise ConvError(f"{name}: in1 and in2 must have as many axes, but got shapes {x.shape} and {w.shape}.")
    dtype = np.result_type(x, w)
    if x.ndim == 0:
        product: Array = x * w
        return product
    if dtype.kind == "b" and x.ndim > 1 and method != "fft":
        raise ConvTypeError(f"{name}: in1 and in2 are both bool; convert one, for instance with .astype('uint8').")
    if mode == "valid":
        _check_valid(name, x.shape, w.shape, range(x.ndim))
    if x.size == 0 or w.size == 0:
        if mode == "same" and w.size:
            return np.zeros(x.shape, dtype)
        raise ConvError(f"{name}: in1 and in2 must hold elements, but got shapes {x.shape} and {w.shape}.")
    axes = list(range(x.ndim))
    if dtype.kind not in "biu":
        own = np.dtype(np.float32) if dtype == np.float16 else dtype
        return _convolved(x.astype(own), w.astype(own), axes, mode, method).astype(dtype, copy=False)
    wide = np.dtype(np.uint8) if dtype.kind == "b" else dtype
    a, b = x.astype(wide), w.astype(wide)
    bound = largest(a) * largest(b) * min(x.size, w.size)
    compute, how = exact_type(bound, wide), "direct"
    if method != "direct" and bound < ROUNDED and min(x.size, w.size) >= MANY:
        compute, how = np.dtype(np.float64), method
    sums = _convolved(a.astype(compute), b.astype(compute), axes, mode, how)
    if sums.dtype.kind == "f":
        sums = np.rint(sums)
    return into_integers(sums, dtype, f"{name}: the result", bound if dtype.kind != "b" else None)


def _in_floats(name: str, x: Array, w: Array, mode: str, axes: int | Sequence[int] | None) -> Array:
    if x.ndim != w.ndim:
        raise ConvError(f"{name}: in1 and in2 must have as many axes, but got shapes {x.shape} and {w.shape}.")
    if x.ndim == 0:
        product: Array = x * w
        return product
    if x.size == 0 or w.size == 0:
        return np.zeros(0)
    _check_mode(name, mode)
    # an axis along which either is 1 needs no sum
    listed = [a for a in sorted(_axes(name, axes, x.ndim)) if x.shape[a] != 1 and w.shape[a] != 1]
    others = [a for a in range(x.ndim) if a not in listed]
    if any(x.shape[a] != w.shape[a] and 1 not in (x.shape[a], w.shape[a]) for a in others):
        raise ConvError(f"{name}: shapes {x.shape} and {w.shape} are not alike along the axes that are not convolved.")
    if mode == "valid":
        _check_valid(name, x.shape, w.shape, listed)
    if not listed:
        return _multiplied(name, x, w, mode)
    types = [np.dtype(np.float64) if v.dtype.kind in "biu" else v.dtype for v in (x, w)]
    dtype = np.promote_types(np.promote_types(*types), np.float32)
    return _convolved(x.astype(dtype), w.astype(dtype), listed, mode, "auto")


def _multiplied(name: str, x: Array, w: Array, mode: str) -> Array:
    """Of the type of both, and broadcast: what a convolution along no axis is."""
    dtype = np.result_type(x, w)
    wide = np.dtype(np.float64) if dtype.kind in "iu" and largest(x) * largest(w) > np.iinfo(dtype).max else dtype
    made = _convolved(x.astype(wide), w.astype(wide), [], mode, "auto")
    return made if wide == dtype else into_integers(made, dtype, f"{name}: the result")


def _check_mode(name: str, mode: Any) -> None:
    if mode not in SIZES:
        raise ConvError(f"{name}: mode must be one of {', '.join(map(repr, SIZES))}, but got mode={mode!r}.")


def _check_valid(name: str, x: tuple[int, ...], w: tuple[int, ...], axes: Sequence[int]) -> None:
    if not (all(x[a] >= w[a] for a in axes) or all(w[a] >= x[a] for a in axes)):
        raise ConvError(
            f"{name}: in 'valid' mode one of in1 and in2 must be at least as large as the other along every axis, but "
            f"got shapes {x} and {w}."
        )


def _axes(name: str, axes: Any, ndim: int) -> list[int]:
    if axes is None:
        return list(range(ndim))
    try:
        given = [operator.index(axis) for axis in (axes if np.iterable(axes) else (axes,))]
    except TypeError as error:
        raise ConvTypeError(f"{name}: axes must be an integer or a sequence of integers, but got {axes!r}.") from error
    if not given or any(not -ndim <= a < ndim for a in given) or len({a % ndim for a in given}) < len(given):
        raise ConvError(f"{name}: axes must name some of the {ndim} axes of in1, each once, but got axes={axes!r}.")
    return [a % ndim for a in given]


# ---- how it is computed --------------------------------------------------------------------------------------------


def _convolved(x: Array, w: Array, axes: list[int], mode: str, method: str, num_threads: int | None = None) -> Array:
    """Of one type along `axes`; the others are broadcast."""
    others = [a for a in range(x.ndim) if a not in axes]
    parts = []
    for axis in range(x.ndim):
        n, k = x.shape[axis], w.shape[axis]
        whole = n + k - 1 if axis in axes else max(n, k)
        if mode == "same":
            parts.append(((whole - n) // 2, n))
        elif mode == "valid" and axis in axes:
            parts.append((min(n, k) - 1, abs(n - k) + 1))
        else:
            parts.append((0, whole))
    x, w = (v.transpose([*others, *axes]) for v in (x, w))
    lead = len(others)
    spans = [parts[a] for a in axes]
    made: Array = _part(x, w, lead, spans, method, num_threads) if axes else x * w
    kept = tuple(slice(first, first + count) for first, count in (parts[a] for a in others))
    result: Array = np.ascontiguousarray(made[kept].transpose(np.argsort([*others, *axes])))
    return result


def _part(x: Array, w: Array, lead: int, spans: list[tuple[int, int]], method: str, num_threads: int | None) -> Array:
    """(first, count) outputs along each of the last axes."""
    if prod(x.shape[:lead]) == 1 and (prod(w.shape[:lead]) > 1 or w.size > x.size):  # the larger is laid under windows
        x, w = w, x
    shape = np.broadcast_shapes(x.shape[:lead], w.shape[:lead])
    sizes, kernel = x.shape[lead:], w.shape[lead:]
    if x.dtype.kind in "fc" and method != "direct" and _one_transform(shape, sizes, kernel, spans, x.dtype, method):
        whole: Array = transforms.convolved(x, w, len(sizes), num_threads)
        kept: tuple[Any, ...] = (..., *(slice(first, first + count) for first, count in spans))
        inside: Array = whole[kept]
        return inside
    if x.dtype.kind == "c":
        parts = [[_part(a, b, lead, spans, method, num_threads) for b in (w.real, w.imag)] for a in (x.real, x.imag)]
        result: Array = np.empty(parts[0][0].shape, x.dtype)
        result.real, result.imag = parts[0][0] - parts[1][1], parts[0][1] + parts[1][0]
        return result
    return _summed(x, w, shape, spans, method, num_threads)


def _one_transform(
    shape: tuple[int, ...], sizes: tuple[int, ...], kernel: tuple[int, ...], spans: list[tuple[int, int]],
    dtype: np.dtype[Any], method: str,
) -> bool:  # fmt: skip
    """Whether one transform of all is asked for or costs less than sums, unless tiles cost least."""
    real = np.dtype(np.float32) if dtype in (np.float32, np.complex64) else np.dtype(np.float64)
    outputs = [count for _, count in spans]
    if _in_tiles(outputs, kernel, real):
        return False
    whole = prod(n + k - 1 for n, k in zip(sizes, kernel, strict=True))
    images = prod(shape)
    return method == "fft" or transforms.cheaper(prod(outputs) * images, prod(kernel), whole * images, real.itemsize)


def _in_tiles(outputs: list[int], kernel: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Whether so many outputs go by transforms of tiles."""
    image = (1, *(count + k - 1 for count, k in zip(outputs, kernel, strict=True)))[-2:]
    return len(kernel) <= 2 and by_transforms(image, (1, *kernel)[-2:], (1, 1), (1, 1), dtype)


def _summed(
    x: Array, w: Array, shape: tuple[int, ...], spans: list[tuple[int, int]], method: str, num_threads: int | None
) -> Array:
    """By windows of the larger array, extended with zeros or cut."""
    lead = len(shape)
    kernel, pads, inside = w.shape[lead:], [], []
    for n, k, (first, count) in zip(x.shape[lead:], kernel, spans, strict=True):
        before = k - 1 - first
        after = count + k - 1 - n - before
        inside.append(slice(max(0, -before), n - max(0, -after)))
        pads.append((max(0, before), max(0, after)))
    turned: tuple[Any, ...] = (..., *(slice(None, None, -1),) * len(kernel))
    within: tuple[Any, ...] = (..., *inside)
    w, x = w[turned], x[within]
    algorithm, ones = "direct" if method == "direct" else "auto", (1,) * len(kernel)
    integers = x.dtype.kind != "f"
    if prod(w.shape[:lead]) == 1 and not integers:
        outputs = [count for _, count in spans]
        if algorithm == "auto" and _in_tiles(outputs, kernel, x.dtype):  # which read the zeros without a copy
            convolve = getattr(functional, f"conv{len(kernel)}d")
            made: Array = convolve(
                x.reshape(-1, 1, *x.shape[lead:]), w.reshape(1, 1, *kernel), padding=tuple(pads),
                num_threads=num_threads,
            )  # fmt: skip
            return made.reshape(*shape, *outputs)
        wide = extended(x, pads, "constant", 0, x.dtype)
        return correlate_valid(wide, np.ascontiguousarray(w.reshape(kernel)), ones, ones, num_threads, algorithm)
    wide = extended(np.broadcast_to(x, (*shape, *x.shape[lead:])), pads, "constant", 0, x.dtype)
    own = np.broadcast_to(w, (*shape, *kernel))
    return _each_by_its_own(wide, own, lead, algorithm, num_threads)


def _each_by_its_own(x: Array, w: Array, lead: int, algorithm: str, num_threads: int | None) -> Array:
    """A kernel for each element of the leading axes."""
    shape, axes = x.shape[:lead], w.ndim - lead
    outputs = [n - k + 1 for n, k in zip(x.shape[lead:], w.shape[lead:], strict=True)]
    if axes > 3:  # the first of them tap by tap
        result: Array = np.zeros((*shape, *outputs), x.dtype)
        for tap in range(w.shape[lead]):
            own: tuple[Any, ...] = (*(slice(None),) * lead, tap)
            for place in range(outputs[0]):
                at: tuple[Any, ...] = (*(slice(None),) * lead, place + tap)
                to: tuple[Any, ...] = (*(slice(None),) * lead, place)
                result[to] += _each_by_its_own(x[at], w[own], lead, algorithm, num_threads)
        return result
    count = prod(shape)
    convolve = getattr(functional, f"conv{axes}d")
    made: Array = convolve(
        x.reshape(1, count, *x.shape[lead:]), np.ascontiguousarray(w).reshape(count, 1, *w.shape[lead:]), groups=count,
        algorithm=algorithm, num_threads=num_threads,
    )  # fmt: skip
    return made.reshape(*shape, *outputs)
