"""`scipy.ndimage.convolve` and `correlate`, of arrays with any number of axes.

Sums are made in float64 and rounded (or, to integers, cut) to the type of the result, as SciPy makes them; where the
input is float32 and speed matters more than the last bits of a sum, `fastconv.conv2d` computes in float32.

A sum that is cut to an integer is SciPy's even where that is decided by the last bit: 41 nines of 1/9 each may come to
41 or to a little less. There the sum is made again in SciPy's order (`_in_scipys_order`).
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .._core.arrays import is_ndarray, plain
from .._core.words import flag
from ..errors import ConvError, ConvTypeError
from .types import Array, into_integers, number, same_parameters
from .windows import correlate_valid, extended

MODES: Final = {
    "reflect": "symmetric", "grid-mirror": "symmetric", "mirror": "reflect", "nearest": "edge", "wrap": "wrap",
    "grid-wrap": "wrap", "constant": "constant", "grid-constant": "constant",
}  # fmt: skip
GATHERED: Final = 1 << 14  # outputs made together in SciPy's order: their terms stay in the first-level cache
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
    """
    return correlate(input, weights, output, mode, cval, origin, axes=axis)


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
    """
    return convolve(input, weights, output, mode, cval, origin, axes=axis)


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
    if not isinstance(mode, str) or mode not in MODES:
        raise ConvError(f"{name}: mode must be one of {', '.join(map(repr, MODES))}, but got mode={mode!r}.")
    spatial = x.ndim - channels
    if spatial < 0:
        raise ConvError(f"{name}: channels=True takes an input with an axis of channels, but got one number.")
    listed = _axes(name, axes, spatial)
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
    options = (_each("stride", stride, count, 1), _each("dilation", dilation, count, 1), _each("origin", origin, count))
    steps, spacing, origins = ([option[i] for i in order] for option in options)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel_shape, spacing, strict=True)]
    pads = _pads(name, spans, origins, turned)
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
    target, dtype = _target(name, output, tuple(shape), x.dtype, complex_sums)
    value = _cval(name, cval, x.dtype)

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


def _axes(name: str, axes: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """The filtered axes, counted from 0."""
    if axes is None:
        return tuple(range(ndim))
    try:
        given = [operator.index(axis) for axis in ((axes,) if np.isscalar(axes) else axes)]  # type: ignore[union-attr, arg-type]
    except TypeError as error:
        raise ConvTypeError(f"{name}: axes must be an integer or a sequence of integers, but got {axes!r}.") from error
    if any(not -ndim <= axis < ndim for axis in given):
        raise ConvError(f"{name}: axes={axes!r} names an axis that the {ndim} axes of input do not have.")
    made = tuple(axis % ndim for axis in given)
    if len(set(made)) != len(made):
        raise ConvError(f"{name}: axes={axes!r} names an axis twice.")
    return made


def _each(name: str, value: int | Sequence[int], count: int, least: int | None = None) -> list[int]:
    """An integer for each of so many axes."""
    items = list(value) if np.iterable(value) and not isinstance(value, str) else [value] * count
    if len(items) != count:
        raise ConvError(f"{name} must be one integer or {count}, one for each filtered axis, but got {name}={value!r}.")
    try:
        made = [operator.index(item) for item in items]
    except TypeError as error:
        raise ConvTypeError(f"{name} must be made of integers, but got {name}={value!r}.") from error
    if least is not None and made and min(made) < least:
        raise ConvError(f"{name} must be at least {least}, but got {name}={value!r}.")
    return made


def _pads(name: str, spans: list[int], origins: list[int], turned: bool) -> list[tuple[int, int]]:
    """How far the kernel reaches beyond both ends of every axis."""
    pads = []
    for span, own in zip(spans, origins, strict=True):
        origin = -own - (span + 1) % 2 if turned else own  # SciPy's convolve has an even kernel's longer side behind
        if not -(span // 2) <= origin <= (span - 1) // 2:
            least, most = (-((span - 1) // 2), span // 2 - (span + 1) % 2)
            least, most = (least, most) if turned else (-(span // 2), (span - 1) // 2)
            raise ConvError(
                f"{name}: origin must keep the kernel over the pixel, from {least} to {most} for one that spans "
                f"{span}, but got origin={own}."
            )
        before = span // 2 + origin
        pads.append((before, span - 1 - before))
    return pads


def _target(
    name: str, output: Any, shape: tuple[int, ...], dtype: np.dtype[Any], complex_sums: bool
) -> tuple[Array | None, np.dtype[Any]]:
    """The array to write into, if one is given, and the type of the result."""
    if given := is_ndarray(output):
        output = plain(output)
        if output.shape != shape:
            raise ConvError(f"{name}: output must have the shape {shape}, but got output of shape {output.shape}.")
        if not output.flags.writeable:
            raise ConvError(f"{name}: output of shape {output.shape} is read-only; pass a writeable array.")
    if output is None:
        wanted = np.promote_types(dtype, np.complex64) if complex_sums else dtype
    else:
        try:
            wanted = output.dtype if given else np.dtype(output)
        except TypeError as error:
            raise ConvTypeError(f"{name}: output must be an array or an element type, but got {output!r}.") from error
    number("output", np.empty(0, wanted))
    if complex_sums and wanted.kind != "c":
        if given or isinstance(output, str):
            raise ConvError(f"{name}: output must be complex where input or weights are, but got {wanted}.")
        level = 4 + (name == "convolve")  # a twin has one frame more
        warnings.warn("promoting specified output dtype to complex", stacklevel=level)
        wanted = np.promote_types(wanted, np.complex64)
    return output if given else None, wanted


def _cval(name: str, cval: Any, dtype: np.dtype[Any]) -> complex:
    try:
        value = complex(cval)
    except (TypeError, ValueError) as error:
        raise ConvTypeError(f"{name}: cval must be a number, but got {cval!r}.") from error
    if value.imag and dtype.kind != "c":
        raise ConvError(f"{name}: cval={cval!r} is complex, but input is real ({dtype}).")
    return value


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
    last = range(x.ndim - len(own), x.ndim)
    wide = extended(np.moveaxis(x, own, last), pads, MODES[mode], beyond, np.float64)

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
            _in_scipys_order(result, wide, w, stride, dilation, channels, integers)
    return np.moveaxis(result, last, own)


def _in_scipys_order(
    sums: Array, x: Array, w: Array, stride: list[int], dilation: list[int], channels: bool, integers: bool
) -> None:
    """Make sums again that lie so near a whole number other than 0 that roundings decide on which side of it.

    SciPy adds one product after the other, in the order of the kernel (with `channels`, of each channel's), and rounds
    every product and every sum. `integers`: whether `x` holds whole numbers alone.
    """
    kernels = w if channels else w[None]
    terms, heaviest = kernels[0].size, float(np.abs(kernels).reshape(len(kernels), -1).sum(axis=1).max(initial=0))
    magnitude = heaviest * max(abs(float(x.max(initial=0))), abs(float(x.min(initial=0))))
    if integers and magnitude < 2.0**53 * _lowest_bit(w):  # every order is exact
        return
    nearness = (terms + 2) * 2.0**-51 * magnitude  # twice what either order may err
    inner = [step // x.itemsize for step in x.strides]  # x is contiguous
    lead = x.ndim - len(stride)
    channel = inner[0] if channels else 0
    steps = [*inner[channels:lead], *(s * n for s, n in zip(stride, inner[lead:], strict=True))]
    spread = [d * n for d, n in zip(dilation, inner[lead:], strict=True)]
    for own, kernel in zip(sums if channels else sums[None], kernels, strict=True):
        taps = np.argwhere(kernel) if channels else np.insert(np.argwhere(kernel), 0, 0, axis=1)
        offsets = (taps @ np.array([channel, *spread])).tolist()
        products = list(zip(offsets, kernel[kernel != 0].tolist(), strict=True))
        _by_blocks(own, x.reshape(-1), steps, products, nearness)


def _by_blocks(sums: Array, x: Array, steps: list[int], products: list[tuple[int, float]], nearness: float) -> None:
    """Some rows of the last axis at a time; output (i, j, ...) begins at i * steps[0] + j * steps[1] + ... of `x`."""
    if sums.ndim == 1:
        sums, steps = sums[None], [0, *steps]
    down, right = steps[-2:]
    rows = max(1, GATHERED // max(1, sums.shape[-1]))
    for index in np.ndindex(*sums.shape[:-2]):
        begin = sum(i * step for i, step in zip(index, steps, strict=False))
        for top in range(0, sums.shape[-2], rows):
            part = sums[index][top : top + rows]
            whole = np.rint(part)
            near = (np.abs(part - whole) <= nearness) & (whole != 0)
            found = np.count_nonzero(near)
            if not found:
                continue
            first = begin + top * down
            if 4 * found < near.size:
                i, j = np.nonzero(near)
                places = first + i * down + j * right
                part[near] = _added_up(products, places.shape, _elements(x, places))
            else:
                made = _added_up(products, part.shape, _lattice(x, first, part.shape, (down, right)))
                np.copyto(part, made, where=near)


Values = Callable[[int], Array]  # of an array, moved on by an offset


def _elements(x: Array, places: Array) -> Values:
    return lambda offset: x.take(places + offset)


def _lattice(x: Array, first: int, shape: tuple[int, ...], steps: tuple[int, ...]) -> Values:
    """Elements first + i * steps[0] + j * steps[1], as a view."""
    item = x.itemsize
    strides = tuple(step * item for step in steps)
    return lambda offset: np.ndarray(shape, x.dtype, x.data, (first + offset) * item, strides)


def _added_up(products: list[tuple[int, float]], shape: tuple[int, ...], values: Values) -> Array:
    """Sums of products, one after the other: each of a weight and the values at its offset."""
    made, one = np.zeros(shape), np.empty(shape)
    for offset, weight in products:
        np.multiply(values(offset), weight, out=one)
        made += one
    return made


def _lowest_bit(values: Array) -> float:
    """The largest power of two of which all values are multiples; 0 if that is none."""
    if not np.isfinite(values).all():
        return 0.0
    mantissas, exponents = np.frexp(values[values != 0])
    if not mantissas.size:
        return 1.0
    whole = np.abs(mantissas * 2.0**53).astype(np.int64)
    return float(np.min(np.ldexp((whole & -whole).astype(np.float64), exponents - 53)))


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
