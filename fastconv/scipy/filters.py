"""`scipy.ndimage`'s filters along one axis after the other: in double precision, with SciPy's bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike, DTypeLike

from .arguments import axes_of, known_mode, number_beyond, target_of
from .chains import Filter, along_one, axis_of, chained, for_each, gaussian, means, sums
from .types import Array, number


def correlate1d(
    input: ArrayLike,
    weights: ArrayLike,
    axis: int = -1,
    output: Array | DTypeLike | None = None,
    mode: str = "reflect",
    cval: Any = 0.0,
    origin: int = 0,
) -> Array:
    """Correlate an array with a kernel along one axis, as `scipy.ndimage.correlate1d` does.

    Parameters
    ----------
    input : array_like
        Real or complex numbers, at least one axis.
    weights : array_like
        The kernel, of one axis.
    axis : int
        The axis that is filtered.
    output : ndarray or dtype, optional
        Where the result goes, or its type; by default that of `input`, complex if either array is.
    mode : {'reflect', 'constant', 'nearest', 'mirror', 'wrap'}
        What lies around `input`, as for `correlate`.
    cval : scalar
        For 'constant'.
    origin : int
        Shifts the kernel from its centre.

    Returns
    -------
    ndarray
        Of the shape of `input`.

    Raises
    ------
    ConvError, ConvTypeError
        As `correlate` does.

    Examples
    --------
    >>> from fastconv.scipy import ndimage
    >>> ndimage.correlate1d([2, 8, 0, 4, 1, 9, 9, 0], [1, 3])
    array([ 8, 26,  8, 12,  7, 28, 36,  9])
    """
    return along_one("correlate1d", input, weights, axis, output, mode, cval, origin, turned=False)


def convolve1d(
    input: ArrayLike,
    weights: ArrayLike,
    axis: int = -1,
    output: Array | DTypeLike | None = None,
    mode: str = "reflect",
    cval: Any = 0.0,
    origin: int = 0,
) -> Array:
    """Convolve an array with a kernel along one axis, as `scipy.ndimage.convolve1d` does.

    Parameters
    ----------
    input : array_like
        Real or complex numbers, at least one axis.
    weights : array_like
        The kernel, of one axis.
    axis : int
        The axis that is filtered.
    output : ndarray or dtype, optional
        Where the result goes, or its type; by default that of `input`, complex if either array is.
    mode : {'reflect', 'constant', 'nearest', 'mirror', 'wrap'}
        What lies around `input`, as for `correlate`.
    cval : scalar
        For 'constant'.
    origin : int
        Shifts the kernel from its centre.

    Returns
    -------
    ndarray
        Of the shape of `input`.

    Raises
    ------
    ConvError, ConvTypeError
        As `correlate` does.

    Examples
    --------
    >>> from fastconv.scipy import ndimage
    >>> ndimage.convolve1d([2, 8, 0, 4, 1, 9, 9, 0], [1, 3])
    array([14, 24,  4, 13, 12, 36, 27,  0])
    """
    return along_one("convolve1d", input, weights, axis, output, mode, cval, origin, turned=True)


def gaussian_filter1d(
    input: ArrayLike,
    sigma: float,
    axis: int = -1,
    order: int = 0,
    output: Array | DTypeLike | None = None,
    mode: str = "reflect",
    cval: Any = 0.0,
    truncate: float = 4.0,
    *,
    radius: int | None = None,
) -> Array:
    """Filter an array by a Gaussian along one axis, as `scipy.ndimage.gaussian_filter1d` does.

    Parameters
    ----------
    input : array_like
        Real or complex numbers, at least one axis.
    sigma : float
        The standard deviation, in samples.
    axis : int
        The axis that is filtered.
    order : int
        0 for the Gaussian, n for its n-th derivative.
    output : ndarray or dtype, optional
        Where the result goes, or its type; by default that of `input`.
    mode : {'reflect', 'constant', 'nearest', 'mirror', 'wrap'}
        What lies around `input`, as for `correlate`.
    cval : scalar
        For 'constant'.
    truncate : float
        Where the kernel ends, in standard deviations.
    radius : int, optional
        Where it ends, in samples, in place of `truncate`.

    Returns
    -------
    ndarray
        Of the shape of `input`.

    Raises
    ------
    ConvError, ConvTypeError
        As `correlate` does, or of a negative order or radius.

    Examples
    --------
    >>> from fastconv.scipy import ndimage
    >>> ndimage.gaussian_filter1d([0.0, 0.0, 1.0, 0.0, 0.0], 0.5).round(3)
    array([0.   , 0.106, 0.787, 0.106, 0.   ])
    """
    weights = gaussian("gaussian_filter1d", sigma, order, truncate, radius)
    return along_one("gaussian_filter1d", input, weights, axis, output, mode, cval, 0, turned=False)


def gaussian_filter(
    input: ArrayLike,
    sigma: float | Sequence[float],
    order: int | Sequence[int] = 0,
    output: Array | DTypeLike | None = None,
    mode: str | Sequence[str] = "reflect",
    cval: Any = 0.0,
    truncate: float = 4.0,
    *,
    radius: int | Sequence[int] | None = None,
    axes: int | Sequence[int] | None = None,
) -> Array:
    """Filter an array by a Gaussian along each axis, as `scipy.ndimage.gaussian_filter` does.

    Parameters
    ----------
    input : array_like
        Real or complex numbers.
    sigma : float or sequence
        The standard deviation, in samples, of all axes or of each.
    order : int or sequence
        0 for the Gaussian, n for its n-th derivative.
    output : ndarray or dtype, optional
        Where the result goes, or its type, which what lies between two axes has, too; by default that of `input`.
    mode : str or sequence
        What lies around `input`, as for `correlate`.
    cval : scalar
        For 'constant'.
    truncate : float
        Where the kernel ends, in standard deviations.
    radius : int or sequence, optional
        Where it ends, in samples, in place of `truncate`.
    axes : int or sequence, optional
        The axes that are filtered, all by default; the sequences above follow their order.

    Returns
    -------
    ndarray
        Of the shape of `input`.

    Raises
    ------
    ConvError, ConvTypeError
        As `correlate` does, or of a negative order or radius.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.scipy import ndimage
    >>> ndimage.gaussian_filter(np.arange(50, step=2).reshape(5, 5), sigma=1)[0]
    array([ 4,  6,  8,  9, 11])
    """
    name, x = "gaussian_filter", number("input", input)
    listed = axes_of(name, axes, x.ndim)
    options = [for_each(name, what, value, len(listed)) for what, value in (
        ("sigma", sigma), ("order", order), ("mode", mode), ("radius", radius),
    )]  # fmt: skip
    steps: list[Filter] = []
    target, dtype = target_of(name, output, x.shape, x.dtype, x.dtype.kind == "c")
    beyond = number_beyond(name, cval, x.dtype)
    for axis, own, degree, how, most in zip(listed, *options, strict=True):
        if own > 1e-15:
            weights = gaussian(name, own, degree, truncate, most)
            steps.append(sums(name, weights, axis, known_mode(name, how), beyond, (len(weights) // 2,) * 2, dtype))
    return chained(x, steps, target, dtype, output)


def uniform_filter1d(
    input: ArrayLike,
    size: int,
    axis: int = -1,
    output: Array | DTypeLike | None = None,
    mode: str = "reflect",
    cval: Any = 0.0,
    origin: int = 0,
) -> Array:
    """The mean of so many samples along one axis, as `scipy.ndimage.uniform_filter1d` computes it.

    Parameters
    ----------
    input : array_like
        Real or complex numbers, at least one axis.
    size : int
        How many samples.
    axis : int
        The axis that is filtered.
    output : ndarray or dtype, optional
        Where the result goes, or its type; by default that of `input`.
    mode : {'reflect', 'constant', 'nearest', 'mirror', 'wrap'}
        What lies around `input`, as for `correlate`.
    cval : scalar
        For 'constant'.
    origin : int
        Shifts the window from its centre.

    Returns
    -------
    ndarray
        Of the shape of `input`. The sum is a running one, so that a NaN or an infinity reaches all that follow on the
        line, as in SciPy.

    Raises
    ------
    ConvError, ConvTypeError
        As `correlate` does, or of a size below 1.

    Examples
    --------
    >>> from fastconv.scipy import ndimage
    >>> ndimage.uniform_filter1d([2, 8, 0, 4, 1, 9, 9, 0], size=3)
    array([4, 3, 4, 1, 4, 6, 6, 3])
    """
    name, x = "uniform_filter1d", number("input", input)
    place = axis_of(name, axis, x.ndim)
    return means(name, x, [(place, size, mode, origin)], output, cval)


def uniform_filter(
    input: ArrayLike,
    size: int | Sequence[int] = 3,
    output: Array | DTypeLike | None = None,
    mode: str | Sequence[str] = "reflect",
    cval: Any = 0.0,
    origin: int | Sequence[int] = 0,
    *,
    axes: int | Sequence[int] | None = None,
) -> Array:
    """The mean of a window along each axis, as `scipy.ndimage.uniform_filter` computes it.

    Parameters
    ----------
    input : array_like
        Real or complex numbers.
    size : int or sequence
        The window, of all axes or of each.
    output : ndarray or dtype, optional
        Where the result goes, or its type, which what lies between two axes has, too; by default that of `input`.
    mode : str or sequence
        What lies around `input`, as for `correlate`.
    cval : scalar
        For 'constant'.
    origin : int or sequence
        Shifts the window from its centre.
    axes : int or sequence, optional
        The axes that are filtered, all by default; the sequences above follow their order.

    Returns
    -------
    ndarray
        Of the shape of `input`; of NaN and infinity see `uniform_filter1d`.

    Raises
    ------
    ConvError, ConvTypeError
        As `correlate` does.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.scipy import ndimage
    >>> ndimage.uniform_filter(np.eye(3), 3)[0].round(3)
    array([0.556, 0.333, 0.111])
    """
    name, x = "uniform_filter", number("input", input)
    listed = axes_of(name, axes, x.ndim)
    options = (("size", size), ("mode", mode), ("origin", origin))
    sizes, modes, origins = (for_each(name, what, value, len(listed)) for what, value in options)
    every = zip(listed, sizes, modes, origins, strict=True)
    return means(name, x, [(axis, int(k), how, o) for axis, k, how, o in every if k > 1], output, cval)
