"""exp, erf, tanh, sigmoid and what is made of them: errors in units in the last place, on a grid over all exponents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import erf, erfc, pi, sqrt
from typing import Any

import numpy as np
import pytest

from fastconv import _native
from fastconv._core import steps

Array = np.ndarray[Any, Any]
WIDER = {np.float32: np.float64, np.float64: np.longdouble}
SPACING = {np.float32: 80021, np.float64: 80021 << 29}  # of the grid, in units in the last place


# Those with kernels of their own for this; what extends another has that one's.
@pytest.fixture(params=[name for name in _native.isas_available() if "vnni" not in name])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _native.isa_name()
    _native.isa_use(request.param)
    yield request.param
    _native.isa_use(before)


def grid(kind: Any) -> Array:
    """Numbers of both signs over all exponents, subnormal ones too, and more where functions bend."""
    bits = np.dtype(f"i{kind(0).itemsize}")
    positive = np.arange(0, int(np.array(np.inf, kind).view(bits)), SPACING[kind], dtype=bits).view(kind)
    near = np.linspace(0, 8, 10007).astype(kind)
    far = np.linspace(80, 110, 3001).astype(kind) if kind is np.float32 else np.linspace(700, 750, 3001)
    half: Array = np.concatenate([positive, near, far])
    return np.concatenate([half, -half])


def erf_of(x: Array) -> Array:
    return np.array([erf(value) for value in x.tolist()])


def sigmoid_of(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def softplus_of(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def ulps(got: Array, wanted: Array) -> float:
    """The largest difference in units in the last place of what is wanted."""
    limits = np.finfo(got.dtype)
    wide = wanted.astype(np.longdouble)
    with np.errstate(over="ignore"):
        rounded = wanted.astype(got.dtype)
    usual = np.isfinite(rounded)
    np.testing.assert_array_equal(got[~usual], rounded[~usual])
    exponent = np.frexp(np.maximum(np.abs(wide[usual]), np.longdouble(limits.tiny)))[1]
    return float(np.max(np.abs(got[usual] - wide[usual]) / np.ldexp(np.longdouble(1), exponent - 1 - limits.nmant)))


def native(x: Array, *codes: tuple[int, float]) -> Array:
    out = np.empty_like(x)
    steps.apply(x, out, *codes)
    return out


# Step, what it is, and the most units in the last place of float32 and of float64.
FUNCTIONS: dict[str, tuple[tuple[int, float], Callable[[Array], Array], float, float]] = {
    "exp": ((steps.EXP, 0), np.exp, 2, 2),
    "erf": ((steps.ERF, 0), erf_of, 2, 4),
    "tanh": ((steps.TANH, 0), np.tanh, 2, 2),
    "sigmoid": ((steps.SIGMOID, 0), sigmoid_of, 2, 2),
    "softplus": ((steps.SOFTPLUS, 0), softplus_of, 3, 3),
    "elu": ((steps.ELU, 1.0), lambda x: np.where(x < 0, np.expm1(np.minimum(x, 0)), x), 2, 2),
}


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_units_in_the_last_place(name, kind, isa):
    step, meant, *allowed = FUNCTIONS[name]
    x = grid(kind)
    with np.errstate(all="ignore"):
        wanted = meant(x.astype(WIDER[kind]))
    wider = np.finfo(WIDER[kind]).nmant > np.finfo(kind).nmant  # not everywhere: then the reference is wrong by one too
    assert ulps(native(x, step), wanted) <= allowed[kind is np.float64] + (not wider)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_logarithms(kind, isa):
    x = grid(kind)
    x = x[x > 0]
    assert ulps(native(x, (steps.LOG, 0)), np.log(x.astype(WIDER[kind]))) <= 3
    special = native(np.array([0.0, -0.0, -1.0, -np.inf, np.inf, np.nan], kind), (steps.LOG, 0))
    np.testing.assert_array_equal(special, np.array([-np.inf, -np.inf, np.nan, np.nan, np.inf, np.nan], kind))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_gelu_and_others(kind, isa):
    """Relative to the argument: the tail of GELU is a difference of ones."""
    x = np.linspace(-12, 12, 40013).astype(kind)
    wide, u = x.astype(np.float64), np.finfo(kind).eps / 2
    normal = wide * np.array([erfc(-value / sqrt(2)) for value in wide.tolist()]) / 2
    approximate = wide * (1 + np.tanh(sqrt(2 / pi) * (wide + 0.044715 * wide**3))) / 2
    for code, wanted in (
        (steps.GELU, normal), (steps.GELU_TANH, approximate), (steps.MISH, wide * np.tanh(softplus_of(wide))),
        (steps.SILU, wide * sigmoid_of(wide)), (steps.SOFTSIGN, wide / (1 + np.abs(wide))),
    ):  # fmt: skip
        assert (np.abs(native(x, (code, 0)) - wanted) <= 5 * u * np.abs(wide)).all(), code
    alpha = 1.5
    wanted = np.where(wide < 0, alpha * np.expm1(np.minimum(wide, 0) / alpha), wide)
    np.testing.assert_allclose(native(x, (steps.CELU, alpha)), wanted, rtol=8 * u)
    np.testing.assert_array_equal(native(x, (steps.THRESHOLD, 1.25)), np.where(x > 1.25, x, 0))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_infinity_nan_and_zeros(kind, isa):
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], kind)
    for code, wanted in {
        steps.EXP: [np.nan, np.inf, 0, 1, 1], steps.ERF: [np.nan, 1, -1, 0.0, -0.0],
        steps.TANH: [np.nan, 1, -1, 0.0, -0.0], steps.SIGMOID: [np.nan, 1, 0, 0.5, 0.5],
        steps.SOFTPLUS: [np.nan, np.inf, 0, kind(np.log(2)), kind(np.log(2))], steps.ELU: [np.nan, np.inf, -1, 0, 0],
    }.items():  # fmt: skip
        got = native(x, (code, 1.0))
        np.testing.assert_array_equal(got, np.array(wanted, kind))
        if code in (steps.ERF, steps.TANH):
            np.testing.assert_array_equal(np.signbit(got[3:]), [False, True])


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_bits_do_not_depend_on_the_place(kind, isa):
    """Every length, every offset, both ends, any number of threads."""
    x = np.random.default_rng(0).uniform(-9, 9, 1000).astype(kind)
    for code in (steps.EXP, steps.ERF, steps.TANH, steps.SIGMOID, steps.GELU, steps.MISH, steps.LOG):
        whole = native(x, (code, 1.0))
        for first, last in ((0, 1), (1, 4), (3, 20), (7, 71), (999, 1000), (5, 998)):
            np.testing.assert_array_equal(native(x[first:last].copy(), (code, 1.0)), whole[first:last])
    large = np.resize(x, 200_003)
    one, two = np.empty_like(large), np.empty_like(large)
    steps.apply(large, one, (steps.GELU, 0), threads=1)
    steps.apply(large, two, (steps.GELU, 0), threads=2)
    np.testing.assert_array_equal(one, two)
