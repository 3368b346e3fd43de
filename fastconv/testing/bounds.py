"""By how much a result may differ from the exact one, elementwise, as the method that made it says (`Method.bound`):

    |y - y_exact| <= roundings u N + lost eta,

u the unit roundoff and eta the smallest number of the type that is summed in, N one of three norms of the operands a
and b (input and weight; grad_output and weight; input and grad_output), each value with what the method has `added`:

    'sum'    the sum of the terms' magnitudes, value by value: conv(|a|, |b|)
    'plane'  an error follows the largest pixel of a plane: sum over c of max|a[n, c]| * sum|b[o, c]|, and for the
             gradient of the weight conv(max|a[n, c]|, max|b[n, o]|), both constant over their planes
    'image'  an error follows the largest value of an image: terms * max|a[n]| * max|b|

and |bias| and |residual|. docs/accuracy.md states them for readers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import reference
from .._core.geometry import Geometry, padded_index
from .._core.methods.method import Bound, bound_of_terms
from .._core.problem import Direction

Array = NDArray[Any]

UNIT_ROUNDOFF = {"float16": 2.0**-24, "float32": 2.0**-24, "float64": 2.0**-53}  # of the type that is summed in
SMALLEST = {"float16": 2.0**-149, "float32": 2.0**-149, "float64": 2.0**-1074}  # number of that type: eta
# An activation's steepest slope (silu, gelu, hardswish: below 1.1, 1.2, 1.5), and the roundings that it takes itself.
ACTIVATION_SLOPE, ACTIVATION_ULPS = 1.5, 8
READINGS: dict[Direction, Callable[[Geometry, Array, Array], Array]] = {
    Direction.FORWARD: reference._forward,
    Direction.INPUT_GRADIENT: reference._input_gradient,
    Direction.WEIGHT_GRADIENT: reference._weight_gradient,
}


def allowed(bound: Bound, expected: Array, norm: Array, slope: float = 1, ulps: int = 0) -> Array:
    """The most that a result may differ from `expected`, elementwise; `norm` as the bound's name says.

    `slope` is the steepest slope of what follows the sum, `ulps` the roundings that this takes itself. A result of half
    precision is rounded once more, and in double precision the reference's own error, which does grow with the sum,
    comes on top.
    """
    own = _bound(expected, norm, bound.roundings, bound.lost, slope, ulps)
    reference_rounds = expected.dtype == np.float64
    return own + _bound(expected, norm, bound.lost, bound.lost, slope, ulps) if reference_rounds else own


def direct_bound(expected: Array, scale: Array, terms: int, slope: float = 1, ulps: int = 0) -> Array:
    """The most that a plain sum of `terms` terms may differ from `expected`; `scale` is the sum of their magnitudes."""
    return allowed(bound_of_terms(terms), expected, scale, slope, ulps)


def _bound(expected: Array, norm: Array, roundings: float, lost: float, slope: float, ulps: int) -> Array:
    """(roundings u N + lost eta) `slope`, and `ulps` roundings of the result itself."""
    name = expected.dtype.name
    u, eta, magnitude = UNIT_ROUNDOFF[name], SMALLEST[name], np.abs(expected.astype(np.float64))
    bound: Array = slope * (roundings * u * norm.astype(np.float64) + lost * eta) + ulps * (u * magnitude + eta)
    return bound + 2.0**-11 * (magnitude + bound) * 2 + 2.0**-24 if name == "float16" else bound


def bound_here(bound: Bound, g: Geometry, direction: Direction, beside: int = 0) -> Bound:
    """The bound of a method with what follows its own sums: so many terms `beside` them (a bias, a residual), and what
    a repeated padding folds onto one pixel of an input gradient."""
    more = beside if bound.norm == "sum" else 0
    if direction is Direction.INPUT_GRADIENT:
        more += folds(g) - 1
    return bound._replace(roundings=bound.roundings + more, lost=bound.lost + more)


def folds(g: Geometry) -> int:
    """Positions of the padded input that repeat the same pixel, at most."""
    if g.padding_mode in ("zeros", "constant"):
        return 1
    most = 1
    for n, (before, after) in zip(g.input_size, g.padding, strict=True):
        places = Counter(padded_index(i, n, g.padding_mode) for i in range(-before, n + after))
        most *= max(places.values(), default=1)
    return most


def norm(
    bound: Bound, direction: Direction, g: Geometry, a: Array, b: Array,
    convolve: Callable[[Array, Array], Array] | None = None,
) -> Array:  # fmt: skip
    """The norm that a bound scales with, in the shape of the result; all arrays in the logical axis order.

    `convolve` sums as the direction says; by default the reference.
    """
    convolve = convolve or (lambda one, other: READINGS[direction](g, one, other))
    a, b = (np.abs(array.astype(np.float64)) + bound.added for array in (a, b))
    gradient = direction is Direction.WEIGHT_GRADIENT
    if bound.norm == "sum":
        return convolve(a, b)
    if bound.norm == "plane" and gradient:
        return convolve(_largest(a, 2), _largest(b, 2))
    if bound.norm == "plane":
        return folds(g) * _of_planes(g, direction, a, b)
    if gradient:
        pixels, images = prod(g.output_size), zip(a, b, strict=True)
        total = sum(pixels * float(x.max(initial=0) * dy.max(initial=0)) for x, dy in images)
        return np.full((g.out_channels, g.in_channels // g.groups, *g.kernel_size), total)
    channels = g.in_channels if direction is Direction.FORWARD else g.out_channels
    terms = folds(g) * channels // g.groups * prod(g.kernel_size)
    outputs, size = _result(g, direction)
    of_images = terms * b.max(initial=0) * a.reshape(len(a), -1).max(1, initial=0)
    return np.broadcast_to(of_images.reshape(-1, 1, *(1,) * len(size)), (len(a), outputs, *size))


def _largest(array: Array, first: int) -> Array:
    """The maximum over the axes from `first` on, in their shape."""
    axes = tuple(range(first, array.ndim))
    return np.broadcast_to(array.max(axes, keepdims=True, initial=0), array.shape)


def _result(g: Geometry, direction: Direction) -> tuple[int, tuple[int, ...]]:
    """Channels and size of an output or an input gradient."""
    return (g.out_channels, g.output_size) if direction is Direction.FORWARD else (g.in_channels, g.input_size)


def _of_planes(g: Geometry, direction: Direction, a: Array, b: Array) -> Array:
    """sum over c of max|a[n, c]| * sum|b[o, c]|, of every group, over the planes of the result."""
    outputs, size = _result(g, direction)
    axes = tuple(range(2, a.ndim))
    largest = a.max(axes, initial=0).reshape(len(a), g.groups, a.shape[1] // g.groups)  # image, group, summed channel
    kernels = b.sum(axes).reshape(g.groups, g.out_channels // g.groups, b.shape[1])  # group, O, I
    if direction is Direction.FORWARD:
        kernels = kernels.swapaxes(1, 2)
    planes = np.einsum("ngc,gco->ngo", largest, kernels).reshape(len(a), outputs, *(1,) * len(size))
    return np.broadcast_to(planes, (len(a), outputs, *size))
