"""One filter along an axis after the other, and what they are told."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from ..errors import ConvError, ConvTypeError
from .along import along
from .arguments import known_mode, number_beyond, pads_of, target_of
from .types import Array, number

Filter = Callable[[Array, "Array | None"], Array]  # of an array, perhaps into the memory of another


def along_one(
    name: str, input: ArrayLike, weights: ArrayLike, axis: int, output: Any, mode: str, cval: Any, origin: int, *,
    turned: bool,
) -> Array:  # fmt: skip
    """One filter along one axis."""
    x, w = number("input", input), number("weights", weights)
    if w.ndim != 1 or w.size == 0:
        raise ConvError(f"{name}: weights must be of one axis and hold at least one element, but got shape {w.shape}.")
    place, word = axis_of(name, axis, x.ndim), known_mode(name, mode)
    (pad,) = pads_of(name, [len(w)], [whole(name, "origin", origin)], turned)
    w = w[::-1] if turned else w.conj()
    complex_sums = "c" in (x.dtype.kind, w.dtype.kind)
    target, dtype = target_of(name, output, x.shape, x.dtype, complex_sums)
    beyond = number_beyond(name, cval, x.dtype)
    return chained(x, [sums(name, w, place, word, beyond, pad, dtype)], target, dtype, output)


def means(name: str, x: Array, windows: list[tuple[int, int, str, int]], output: Any, cval: Any) -> Array:
    """Means along (axis, size, mode, origin)."""
    target, dtype = target_of(name, output, x.shape, x.dtype, x.dtype.kind == "c")
    beyond, steps = number_beyond(name, cval, x.dtype), []
    for axis, size, mode, origin in windows:
        if whole(name, "size", size) < 1:
            raise ConvError(f"{name}: size must be at least 1, but got size={size!r}.")
        (pad,) = pads_of(name, [size], [whole(name, "origin", origin)], False)
        steps.append(sums(name, None, axis, known_mode(name, mode), beyond, pad, dtype))
    return chained(x, steps, target, dtype, output)


def sums(
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


def chained(x: Array, steps: list[Filter], target: Array | None, dtype: np.dtype[Any], output: Any) -> Array:
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


def axis_of(name: str, axis: Any, ndim: int) -> int:
    if not -ndim <= whole(name, "axis", axis) < ndim:
        raise ConvError(f"{name}: axis={axis!r} is none of the {ndim} axes of input.")
    return int(operator.index(axis)) % ndim


def whole(name: str, what: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError as error:
        raise ConvTypeError(f"{name}: {what} must be an integer, but got {value!r}.") from error


def for_each(name: str, what: str, value: Any, count: int) -> list[Any]:
    """One for each of so many axes."""
    items = list(value) if np.iterable(value) and not isinstance(value, str) else [value] * count
    if len(items) != count:
        raise ConvError(f"{name}: {what} must be one value or {count}, one for each axis, but got {what}={value!r}.")
    return items


def gaussian(name: str, sigma: Any, order: Any, truncate: float, radius: Any) -> Array:
    """The kernel as a correlation takes it: a Gaussian of sum 1, times the polynomial of its derivative."""
    try:
        wide = int(truncate * float(sigma) + 0.5) if radius is None else operator.index(radius)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConvError(f"{name}: sigma={sigma!r}, radius={radius!r} give no kernel.") from error
    if wide < 0:
        raise ConvError(f"{name}: radius must not be negative, but got {wide}.")
    if whole(name, "order", order) < 0:
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
