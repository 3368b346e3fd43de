"""`scipy.ndimage`'s filters along one axis after the other: in double precision, with SciPy's bits."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ..errors import ConvError, ConvTypeError
from .along import along
from .arguments import axes_of, known_mode, number_beyond, pads_of, target_of
from .types import Array, number

Filter = Callable[[Array, "Array | None"], Array]  # of an array, perhaps into the memory of another


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
    return _one("correlate1d", input, weights, axis, output, mode, cval, origin, turned=False)


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
    return _one("convolve1d", input, weights, axis, output, mode, cval, origin, turned=True)


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
    weights = _gaussian("gaussian_filter1d", sigma, order, truncate, radius)
    return _one("gaussian_filter1d", input, weights, axis, output, mode, cval, 0, turned=False)


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
    options = [_sequence(name, what, value, len(listed)) for what, value in (
        ("sigma", sigma), ("order", order), ("mode", mode), ("radius", radius),
    )]  # fmt: skip
    steps: list[Filter] = []
    target, dtype = target_of(name, output, x.shape, x.dtype, x.dtype.kind == "c")
    beyond = number_beyond(name, cval, x.dtype)
    for axis, own, degree, how, most in zip(listed, *options, strict=True):
        if own > 1e-15:
            weights = _gaussian(name, own, degree, truncate, most)
            steps.append(_sums(name, weights, axis, known_mode(name, how), beyond, (len(weights) // 2,) * 2, dtype))
    return _chain(x, steps, target, dtype, output)


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
    place = _axis(name, axis, x.ndim)
    return _uniform(name, x, [(place, size, mode, origin)], output, cval)


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
    sizes, modes, origins = (_sequence(name, what, value, len(listed)) for what, value in options)
    every = zip(listed, sizes, modes, origins, strict=True)
    return _uniform(name, x, [(axis, int(k), how, o) for axis, k, how, o in every if k > 1], output, cval)


# ---- what they share -----------------------------------------------------------------------------------------------


def _one(
    name: str, input: ArrayLike, weights: ArrayLike, axis: int, output: Any, mode: str, cval: Any, origin: int, *,
    turned: bool,
) -> Array:  # fmt: skip
    """One filter along one axis."""
    x, w = number("input", input), number("weights", weights)
    if w.ndim != 1 or w.size == 0:
        raise ConvError(f"{name}: weights must be of one axis and hold at least one element, but got shape {w.shape}.")
    place, word = _axis(name, axis, x.ndim), known_mode(name, mode)
    (pad,) = pads_of(name, [len(w)], [_whole(name, "origin", origin)], turned)
    w = w[::-1] if turned else w.conj()
    complex_sums = "c" in (x.dtype.kind, w.dtype.kind)
    target, dtype = target_of(name, output, x.shape, x.dtype, complex_sums)
    beyond = number_beyond(name, cval, x.dtype)
    return _chain(x, [_sums(name, w, place, word, beyond, pad, dtype)], target, dtype, output)


def _uniform(name: str, x: Array, windows: list[tuple[int, int, str, int]], output: Any, cval: Any) -> Array:
    """Means along (axis, size, mode, origin)."""
    target, dtype = target_of(name, output, x.shape, x.dtype, x.dtype.kind == "c")
    beyond, steps = number_beyond(name, cval, x.dtype), []
    for axis, size, mode, origin in windows:
        if _whole(name, "size", size) < 1:
            raise ConvError(f"{name}: size must be at least 1, but got size={size!r}.")
        (pad,) = pads_of(name, [size], [_whole(name, "origin", origin)], False)
        steps.append(_sums(name, None, axis, known_mode(name, mode), beyond, pad, dtype))
    return _chain(x, steps, target, dtype, output)


def _sums(
    name: str, weights: Array | None, axis: int, mode: str, beyond: complex, pad: tuple[int, int], dtype: np.dtype[Any]
) -> Filter:
    """A filter along one axis, of complex numbers by their parts."""
    taps = sum(pad) + 1

    def part(x: Array, w: Array | None, value: float, own: np.dtype[Any], out: Array | None = None) -> Array:
        return along(x, axis, pad, mode, value, w, taps, own, None, out, f"{name}: the result")

    def run(x: Array, out: Array | None) -> Array:
        if dtype.kind != "c":
            return part(x, weights, beyond.real, dtype, out)
        double = np.dtype(np.float64)
        ws = [(weights, 1)] if weights is None or weights.dtype.kind != "c" else [(weights.real, 1), (weights.imag, 1j)]
        xs = [(x.real, beyond.real, 1)] + ([(x.imag, beyond.imag, 1j)] if x.dtype.kind == "c" else [])
        made = np.zeros(x.shape, np.complex128)
        for w, by in ws:
            for values, value, factor in xs:
                own = part(values, w, value, double)
                turn = by * factor  # 1, 1j or -1
                if turn == 1j:
                    made.imag += own
                else:
                    made.real += own if turn == 1 else -own
        return made.astype(dtype)

    return run


def _chain(x: Array, steps: list[Filter], target: Array | None, dtype: np.dtype[Any], output: Any) -> Array:
    """One filter after the other; what lies between has the type of the result."""
    made, spare = x, None
    for i, step in enumerate(steps):
        result = step(made, spare if target is None or i + 1 < len(steps) else target)
        made, spare = result, made if i else None  # the memory of what is used up
    if target is None:
        return made.astype(dtype, copy=not steps)
    if made is not target:
        target[...] = made
    return cast(Array, output)


def _axis(name: str, axis: Any, ndim: int) -> int:
    if not -ndim <= _whole(name, "axis", axis) < ndim:
        raise ConvError(f"{name}: axis={axis!r} is none of the {ndim} axes of input.")
    return int(operator.index(axis)) % ndim


def _whole(name: str, what: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError as error:
        raise ConvTypeError(f"{name}: {what} must be an integer, but got {value!r}.") from error


def _sequence(name: str, what: str, value: Any, count: int) -> list[Any]:
    """One for each of so many axes."""
    items = list(value) if np.iterable(value) and not isinstance(value, str) else [value] * count
    if len(items) != count:
        raise ConvError(f"{name}: {what} must be one value or {count}, one for each axis, but got {what}={value!r}.")
    return items


def _gaussian(name: str, sigma: Any, order: Any, truncate: float, radius: Any) -> Array:
    """The kernel as a correlation takes it: a Gaussian of sum 1, times the polynomial of its derivative."""
    try:
        wide = int(truncate * float(sigma) + 0.5) if radius is None else operator.index(radius)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConvError(f"{name}: sigma={sigma!r}, radius={radius!r} give no kernel.") from error
    if wide < 0:
        raise ConvError(f"{name}: radius must not be negative, but got {wide}.")
    if _whole(name, "order", order) < 0:
        raise ConvError(f"{name}: order must not be negative, but got order={order!r}.")
    variance, x = sigma * sigma, np.arange(-wide, wide + 1)
    phi = np.exp(-0.5 / variance * x**2)
    phi = phi / phi.sum()
    if order == 0:
        return cast(Array, phi[::-1])
    powers, q = np.arange(order + 1), np.zeros(order + 1)
    q[0] = 1
    # the derivative of q(x) phi(x) is (q'(x) - x / variance q(x)) phi(x)
    derive = np.diag(powers[1:], 1) + np.diag(np.ones(order) / -variance, -1)
    for _ in range(order):
        q = derive.dot(q)
    return cast(Array, ((x[:, None] ** powers).dot(q) * phi)[::-1])
