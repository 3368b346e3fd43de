"""Each way to convolve (a method's variant) on problems of its own, in every direction that it has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import functional, grad, reference
from .._core.geometry import Geometry, conv_geometry
from .._core.layouts import Layout, layout
from .._core.methods.method import Bound
from .._core.problem import Direction, Problem, problem
from .._core.select import FORMER, WAYS, Way
from .._core.types import Types, result_of
from .bounds import ACTIVATION_SLOPE, ACTIVATION_ULPS, allowed, bound_here, norm
from .problems import EXACT_ACTIVATIONS, ConvCase, fill

Array = NDArray[Any]


class Given(NamedTuple):
    """The arrays of a trial as a caller holds them: what is convolved, with what, and what is added to the result."""

    a: Array  # input, or grad_output for the input's gradient
    b: Array  # weight, or grad_output for the weight's gradient
    bias: Array | None = None
    residual: Array | None = None


@dataclass(frozen=True)
class Trial:
    """A way on one problem, in one direction."""

    way: Way
    direction: Direction
    case: ConvCase

    def __str__(self) -> str:
        return f"{self.way.wish}, {self.direction.value} of {self.case}"

    @property
    def frame(self) -> Layout:
        return layout(self.case.data_format, self.case.axes)

    @property
    def geometry(self) -> Geometry:
        c = self.case
        shape, _ = self.frame.logical_shape("input", c.input_shape)
        kernel = self.frame.logical_weight_shape("weight", c.weight_shape)
        return conv_geometry(shape, kernel, c.stride, c.padding, c.dilation, c.groups, c.padding_mode)

    @property
    def problem(self) -> Problem:
        """On this machine, under the instruction set in use."""
        a, b = (np.dtype(name) for name in self.case.dtypes)
        return problem(self.geometry, self.direction, Types(a, b, result_of(a)), wish=self.way.wish)

    @property
    def bound(self) -> Bound:
        return self.way.method.bound(self.problem, self.way.variant)

    def exact(self, values: str) -> bool:
        """Whether results must equal the reference's."""
        forward = self.direction is Direction.FORWARD
        return values == "integers" and self.bound.exact and (
            not forward or not self.case.is_float or self.case.activation in EXACT_ACTIVATIONS
        )  # fmt: skip

    def given(self, values: str) -> Given:
        """Arrays of 'integers', of 'reals', or of the 'magnitudes' of these, whose roundings add up."""
        c = self.case
        kind = "integers" if values == "integers" else "reals"
        x, w, bias = c.arrays(kind)
        g = self.geometry
        shape = self.frame.from_logical_shape((g.batch, g.out_channels, *g.output_size))[c.batch is None :]
        other = fill(c.rng("grad_output"), shape, c.dtypes[0], kind)
        arrays: tuple[Array | None, ...]
        if self.direction is Direction.INPUT_GRADIENT:
            arrays = (other, w, None, None)
        elif self.direction is Direction.WEIGHT_GRADIENT:
            arrays = (x, other, None, None)
        else:
            residual = fill(c.rng("residual"), shape, c.dtypes[0], kind) if c.with_residual else None
            arrays = (x, w, bias, residual)
        if values == "magnitudes":
            arrays = tuple(None if array is None else np.abs(array) for array in arrays)
        return Given(*arrays)  # type: ignore[arg-type]

    def _called(self, module: Any, given: Given, how: dict[str, Any]) -> Array:
        """The function of the direction in `functional` and `grad`, or its twin."""
        c, n = self.case, self.case.axes
        options = {**c.options(), **how}
        if self.direction is Direction.INPUT_GRADIENT:
            x_shape = (*given.a.shape[: given.a.ndim - n - 1], *c.input_shape[len(c.input_shape) - n - 1 :])
            result = getattr(module, f"conv{n}d_input")(x_shape, given.b, given.a, **options)
        elif self.direction is Direction.WEIGHT_GRADIENT:
            result = getattr(module, f"conv{n}d_weight")(given.a, c.weight_shape, given.b, **options)
        else:
            own = functional if module is grad else module
            options |= {"activation": c.activation, "residual": given.residual}
            result = getattr(own, f"conv{n}d")(given.a, given.b, given.bias, **options)
        assert isinstance(result, np.ndarray)
        return result

    def run(self, given: Given, **how: Any) -> Array:
        """The result of this way."""
        return self._called(grad, given, {"algorithm": self.way.wish, **how})

    def plan(self, given: Given, **how: Any) -> Any:
        """A plan of this way, of the forward pass."""
        make = getattr(functional, f"plan_conv{self.case.axes}d")
        how = {**self.case.options(), "algorithm": self.way.wish, "activation": self.case.activation, **how}
        return make(given.a.shape, given.b, given.bias, **how)

    def expected(self, given: Given) -> Array:
        """The reference's result."""
        return self._called(reference, given, {})

    def allowed(self, expected: Array, given: Given) -> Array:
        """How much a result may differ from the expected one, elementwise."""
        frame, g, direction = self.frame, self.geometry, self.direction
        gradient = direction is Direction.WEIGHT_GRADIENT
        batched = self.case.batch is not None
        a, _ = frame.activation("a", given.a)
        b = frame.activation("b", given.b)[0] if gradient else frame.weight("b", given.b)
        size = norm(self.bound, direction, g, a, b)
        own = frame.weight_from_logical(size) if gradient else frame.from_logical(size, batched)
        beside = 0
        bias = given.bias
        if bias is not None and not frame.channels_last:
            bias = bias[(..., *(None,) * self.case.axes)]
        for array in (bias, given.residual):
            if array is not None:
                own, beside = own + np.abs(array.astype(np.float64)), beside + 1
        forward = direction is Direction.FORWARD and self.case.activation is not None
        slope, ulps = (ACTIVATION_SLOPE, ACTIVATION_ULPS) if forward else (1, 0)
        return allowed(bound_here(self.bound, g, direction, beside), expected, own, slope, ulps)


def trials(way: Way, case: ConvCase) -> Iterator[Trial]:
    """A generated problem bent for a way, in every direction that it has."""
    for direction in Direction:
        bent = way.method.example(case, way.variant, direction)
        if bent is not None:
            yield Trial(way, direction, bent)


def limit(
    way: Way, direction: Direction, g: Geometry, expected: Array, a: Array, b: Array, beside: Array | None = None
) -> Array:
    """How much a result of a way may differ from the expected one, elementwise; arrays in the logical axis order.

    `beside` is the size of what is added to the result.
    """
    bound = way.method.bound(problem(g, direction, Types(a.dtype, b.dtype, result_of(a.dtype))), way.variant)
    size = norm(bound, direction, g, a, b)
    if beside is not None:
        size = size + beside
    return allowed(bound_here(bound, g, direction, beside is not None), expected, size)


def way(wish: str) -> Way:
    """The way that `algorithm=wish` asks for, a former name too."""
    found = FORMER.get(wish, wish)
    return next(one for one in WAYS if found in (one.wish, one.method.word))
