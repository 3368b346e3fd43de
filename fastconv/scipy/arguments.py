"""What the filters of images are told: axes, a number for each, the kernel's place, where the result goes."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from .._core.arrays import is_ndarray, plain
from ..errors import ConvError, ConvTypeError
from .types import Array, number

MODES: Final = {
    "reflect": "symmetric", "grid-mirror": "symmetric", "mirror": "reflect", "nearest": "edge", "wrap": "wrap",
    "grid-wrap": "wrap", "constant": "constant", "grid-constant": "constant",
}  # fmt: skip


def known_mode(name: str, mode: Any) -> str:
    """A mode as `numpy.pad` calls it."""
    if not isinstance(mode, str) or mode not in MODES:
        raise ConvError(f"{name}: mode must be one of {', '.join(map(repr, MODES))}, but got mode={mode!r}.")
    return MODES[mode]


def axes_of(name: str, axes: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
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


def each(name: str, value: int | Sequence[int], count: int, least: int | None = None) -> list[int]:
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


def pads_of(name: str, spans: list[int], origins: list[int], turned: bool) -> list[tuple[int, int]]:
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


def target_of(
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


def number_beyond(name: str, cval: Any, dtype: np.dtype[Any]) -> complex:
    try:
        value = complex(cval)
    except (TypeError, ValueError) as error:
        raise ConvTypeError(f"{name}: cval must be a number, but got {cval!r}.") from error
    if value.imag and dtype.kind != "c":
        raise ConvError(f"{name}: cval={cval!r} is complex, but input is real ({dtype}).")
    return value
