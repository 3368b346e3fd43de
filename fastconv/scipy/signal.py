"""`scipy.signal`'s convolutions: here those of matrices, `convolve2d` and `correlate2d`."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import ArrayLike

from .._core.words import Size, flag, pair
from ..errors import ConvError, ConvTypeError
from ..functional import conv2d
from .convolutions import convolve, correlate, fftconvolve, oaconvolve
from .missing import refusing
from .separable import by_factors
from .types import Array, exact_type, into_integers, largest, number, same_parameters
from .windows import correlate_valid, extended

__all__ = ["convolve", "convolve2d", "correlate", "correlate2d", "fftconvolve", "oaconvolve"]
if not TYPE_CHECKING:  # for whom every name would be one
    __getattr__ = refusing(__name__, __all__)
SIZES: Final = ("valid", "same", "full")
BOUNDARIES: Final = {
    "fill": "constant", "pad": "constant", "wrap": "wrap", "circular": "wrap", "symm": "symmetric",
    "symmetric": "symmetric",
}  # fmt: skip


def convolve2d(
    in1: ArrayLike,
    in2: ArrayLike,
    mode: str = "full",
    boundary: str = "fill",
    fillvalue: Any = 0,
    *,
    stride: Size = 1,
    dilation: Size = 1,
    batch: bool = False,
    channels: bool = False,
    num_threads: int | None = None,
) -> Array:
    """Convolve two matrices, as `scipy.signal.convolve2d` does.

    Parameters
    ----------
    in1, in2 : array_like
        Matrices (H, W) and (kH, kW) of real or complex numbers. In mode 'valid' they may change places.
    mode : {'full', 'valid', 'same'}
        All outputs, those without a padded value, or as many as `in1` has, centred.
    boundary : {'fill', 'wrap', 'symm'}
        What lies around `in1`: `fillvalue`, the matrix again, or its mirror image with the edge repeated.
    fillvalue : scalar
        For 'fill'; must be a number of the result's type.
    stride : int or (int, int)
        Keep every so many rows and columns: ``result[::stride]`` at the cost of those that are kept.
    dilation : int or (int, int)
        Spread `in2` with so many minus one zeros between its elements.
    batch : bool
        Any axes before the last two of `in1` hold matrices, each of which is convolved: (..., H, W).
    channels : bool
        `in1` is (C, H, W) and `in2` (O, C, kH, kW): the sum over C for each of O filters, (O, H', W').
    num_threads : int, optional
        For this call, in place of `fastconv.get_num_threads()`.

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
    >>> import numpy as np
    >>> from fastconv.scipy import convolve2d
    >>> convolve2d([[1, 2], [3, 4]], [[1, 1]])
    array([[1, 3, 2],
           [3, 7, 4]])
    """
    return _filtered(
        "convolve2d", in1, in2, mode, boundary, fillvalue, stride, dilation, batch, channels, num_threads,
        turned=True,
    )


@same_parameters(convolve2d)
def correlate2d(*arguments: Any) -> Array:
    """Cross-correlate two matrices, as `scipy.signal.correlate2d` does: `in2` is conjugated and not turned round.

    Parameters
    ----------
    in1, in2, mode, boundary, fillvalue : as for `convolve2d`
        See there.
    stride, dilation, batch, channels, num_threads : as for `convolve2d`
        See there.

    Returns
    -------
    ndarray
        As from `convolve2d`.

    Raises
    ------
    ConvError
        As from `convolve2d`.
    ConvTypeError
        As from `convolve2d`.

    Examples
    --------
    >>> from fastconv.scipy import correlate2d
    >>> correlate2d([[1, 2], [3, 4]], [[1, 10]], mode="same")
    array([[21,  2],
           [43,  4]])
    """
    return _filtered("correlate2d", *arguments, turned=False)


def _filtered(
    name: str,
    in1: ArrayLike,
    in2: ArrayLike,
    mode: str,
    boundary: str,
    fillvalue: Any,
    stride: Size,
    dilation: Size,
    batch: bool,
    channels: bool,
    num_threads: int | None,
    *,
    turned: bool,
) -> Array:
    x, w = number("in1", in1), number("in2", in2)
    batch, channels = flag("batch", batch), flag("channels", channels)
    steps, spacing = pair("stride", stride, 1), pair("dilation", dilation, 1)
    if mode not in SIZES:
        raise ConvError(f"{name}: mode must be one of {', '.join(map(repr, SIZES))}, but got mode={mode!r}.")
    if boundary not in BOUNDARIES:
        raise ConvError(
            f"{name}: boundary must be 'fill' (or 'pad'), 'wrap' (or 'circular') or 'symm' (or 'symmetric'), but got "
            f"boundary={boundary!r}."
        )
    own_axes, kernel_axes = (3, 4) if channels else (2, 2)
    if w.ndim != kernel_axes or x.ndim < own_axes or (x.ndim > own_axes and not batch):
        raise ConvError(
            f"{name}: in1 must have {own_axes} axes{' or more' if batch else ''} and in2 {kernel_axes}, but got in1 of "
            f"shape {x.shape} and in2 of shape {w.shape}; see batch= and channels=."
        )
    if channels and x.shape[-3] != w.shape[1]:
        raise ConvError(f"{name}: in2 {w.shape} sums over {w.shape[1]} channels, but in1 {x.shape} has {x.shape[-3]}.")
    dtype = np.result_type(x, w)
    if dtype.kind == "b":
        raise ConvTypeError(f"{name}: in1 and in2 are both bool; convert one, for instance with .astype('uint8').")
    fill = _fill(name, fillvalue, dtype)
    swapped = mode == "valid" and _swapped(name, x, w, spacing, batch or channels)
    if swapped:
        x, w = w, x
    if not turned:
        w = w.conj()
    kernel = w[..., ::-1, ::-1] if turned else w
    spans = [(k - 1) * d + 1 if k else 0 for k, d in zip(w.shape[-2:], spacing, strict=True)]
    pads = [_pads(mode, span, turned) for span in spans]
    back = swapped and not turned
    if 0 in w.shape or 0 in x.shape:
        more = [{"valid": 1 - span, "same": 0, "full": span - 1}[mode] for span in spans]
        sizes = [max(0, n + extra) for n, extra in zip(x.shape[-2:], more, strict=True)]
        lead = (*x.shape[:-3], w.shape[0]) if channels else x.shape[:-2]
        return np.zeros((*lead, *(-(-n // step) for n, step in zip(sizes, steps, strict=True))), dtype)

    def sums(real: Array, part: Array, value: Any) -> Array:
        inner = (1, 1) if back else steps
        return _real(name, real, part, pads, BOUNDARIES[boundary], value, inner, spacing, channels, num_threads)

    result = _by_components(x, kernel, fill, dtype, sums)
    return result[..., ::-1, ::-1][..., :: steps[0], :: steps[1]].copy() if back else result


def _fill(name: str, value: Any, dtype: np.dtype[Any]) -> Any:
    """`fillvalue` as a number of the result's type."""
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biufc":
        raise ConvError(f"{name}: fillvalue must be one number, but got {value!r}.")
    scalar = array.item()
    if isinstance(scalar, complex) and dtype.kind != "c":
        raise ConvError(f"{name}: fillvalue={value!r} is complex, but in1 and in2 are real.")
    if dtype.kind in "iu":
        whole = int(scalar)
        if not np.iinfo(dtype).min <= whole <= np.iinfo(dtype).max:
            raise ConvError(f"{name}: fillvalue={value!r} is no number of the result's type {dtype}.")
        return whole
    with np.errstate(over="ignore"):
        return dtype.type(scalar)


def _swapped(name: str, x: Array, w: Array, spacing: tuple[int, int], fixed: bool) -> bool:
    """Whether in2 is the larger matrix, whose windows in1 is summed over."""
    spans = [(k - 1) * d + 1 if k else 0 for k, d in zip(w.shape[-2:], spacing, strict=True)]
    if all(n >= span for n, span in zip(x.shape[-2:], spans, strict=True)):
        return False
    if fixed or spacing != (1, 1) or any(n > span for n, span in zip(x.shape[-2:], spans, strict=True)):
        raise ConvError(
            f"{name}: in 'valid' mode in1 must be at least as large as in2 along both axes"
            f"{'' if fixed else ', or in2 as in1'}, but got in1 of shape {x.shape} and in2 of shape {w.shape}"
            f"{'' if spacing == (1, 1) else f' spread by dilation={spacing}'}."
        )
    return True


def _pads(mode: str, span: int, turned: bool) -> tuple[int, int]:
    """How far the windows of an axis reach beyond in1; in 'same' an even kernel has its longer side where SciPy has."""
    if mode == "valid":
        return 0, 0
    if mode == "full":
        return span - 1, span - 1
    before = span // 2 if turned else (span - 1) // 2
    return before, span - 1 - before


def _by_components(
    x: Array, w: Array, fill: Any, dtype: np.dtype[Any], sums: Callable[[Array, Array, Any], Array]
) -> Array:
    """Complex sums from real ones."""
    if dtype.kind != "c":
        return sums(x.astype(dtype, copy=False), w.astype(dtype, copy=False), fill)
    part = np.dtype("float32" if dtype == np.complex64 else "float64")
    xs = [(x.real, np.real(fill))] + ([(x.imag, np.imag(fill))] if x.dtype.kind == "c" or np.imag(fill) else [])
    ws = [w.real, w.imag] if w.dtype.kind == "c" else [w.real]
    made = [[sums(a.astype(part), b.astype(part), part.type(value)) for b in ws] for a, value in xs]
    result: Array = made[0][0].astype(dtype)
    if len(ws) > 1:
        result.imag += made[0][1]
    if len(xs) > 1:
        result.imag += made[1][0]
        if len(ws) > 1:
            result.real -= made[1][1]
    return result


def _real(
    name: str,
    x: Array,
    w: Array,
    pads: list[tuple[int, int]],
    boundary: str,
    fill: Any,
    stride: tuple[int, int],
    dilation: tuple[int, int],
    channels: bool,
    num_threads: int | None,
) -> Array:
    """Real sums of one type over the windows of the extended `x`."""
    dtype, bound = x.dtype, None
    compute: np.dtype[Any] = np.dtype("float32") if dtype == np.float16 else dtype
    if dtype.kind != "f":
        bound = max(largest(x), abs(int(fill))) * largest(w) * prod(w.shape[1:] if channels else w.shape)
        compute = exact_type(bound, dtype)
    if dtype.kind == "f" and not channels and stride == dilation == (1, 1):
        axes = [x.ndim - 2, x.ndim - 1]
        made = by_factors(x, w, axes, pads, boundary, float(fill), compute, num_threads)
        if made is not None:
            return made.astype(dtype, copy=False)
    wide = extended(x, pads, boundary, fill, compute)
    kernel = w.astype(compute, copy=False)
    if channels:
        batch = wide.reshape(-1, *wide.shape[-3:])
        how = "auto" if dtype.kind == "f" else "direct"
        sums = conv2d(batch, kernel, None, stride, 0, dilation, algorithm=how, num_threads=num_threads)
        sums = sums.reshape(*wide.shape[:-3], *sums.shape[1:])
    elif compute.kind != "f":
        images = wide.reshape(-1, 1, *wide.shape[-2:])
        sums = conv2d(images, kernel[None, None], None, stride, 0, dilation, num_threads=num_threads)
        sums = sums.reshape(*wide.shape[:-2], *sums.shape[2:])
    else:
        algorithm = "auto" if dtype.kind == "f" else "direct"
        sums = correlate_valid(wide, kernel, stride, dilation, num_threads, algorithm)
    if dtype.kind == "f":
        return sums.astype(dtype, copy=False)
    return into_integers(sums, dtype, f"{name}: the result", bound)
