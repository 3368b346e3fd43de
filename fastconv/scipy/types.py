"""Which element type a sum is computed in, how its result gets into SciPy's type, and twins of one signature."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any, Final, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from .._core.arrays import plain
from ..errors import ConvError, ConvTypeError

Array = NDArray[Any]
P = ParamSpec("P")
R = TypeVar("R")
REFUSED: Final = ("g", "G", "O", "S", "U", "V", "M", "m")  # longdouble, objects and what is no number


def number(name: str, value: object) -> Array:
    """`value` as an array of numbers in native byte order that can be computed with."""
    array = plain(np.asarray(value))
    if array.dtype.char in REFUSED:
        raise ConvTypeError(
            f"{name} must hold numbers of at most 64 bits a component, but got {name} of dtype {array.dtype} and shape "
            f"{array.shape}; convert it, for instance with .astype('float64')."
        )
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def largest(array: Array) -> int:
    """The largest magnitude of integers, as a Python integer."""
    return max(int(array.max()), -int(array.min())) if array.size else 0


def exact_type(bound: int, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The fastest type in which sums of integers of `dtype` up to `bound` are exact whatever their order."""
    wide = dtype if dtype.itemsize == 8 else np.dtype("int64")
    return np.dtype("float32") if bound < 1 << 24 else np.dtype("float64") if bound < 1 << 53 else wide


def into_integers(sums: Array, dtype: np.dtype[Any], what: str, bound: int | None = None) -> Array:
    """`sums` cut to integers of `dtype` as C does, or a refusal; `bound` (on magnitudes) may make looking needless."""
    if dtype.kind == "b":
        flags: Array = np.trunc(sums) != 0
        return flags
    limits = np.iinfo(dtype)
    if sums.dtype == dtype:
        return sums
    certain = bound is not None and bound <= limits.max and limits.min < 0
    if not certain and sums.size:
        least, most = sums.min(), sums.max()
        # the first float above the range is exact, the last inside it need not be
        fits = float(least) > float(limits.min) - 1 or least == limits.min
        if not fits or not float(most) < float(limits.max) + 1:
            raise ConvError(
                f"{what} would hold values from {least} to {most}, which {dtype} does not hold; nothing wraps "
                "silently. Convert an input to a wider integer type or to float64."
            )
    return sums.astype(dtype)


def same_parameters(pattern: Callable[P, R]) -> Callable[[Callable[..., R]], Callable[P, R]]:
    """Decorates a function that takes every parameter of `pattern`, in its order: the twin has that signature."""
    expected = signature(pattern)

    def decorate(function: Callable[..., R]) -> Callable[P, R]:
        @wraps(function)
        def twin(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                bound = expected.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{function.__name__}() {error}") from None
            bound.apply_defaults()
            return function(*bound.arguments.values())

        twin.__signature__ = expected  # type: ignore[attr-defined]
        twin.__annotations__ = pattern.__annotations__
        return twin

    return decorate
