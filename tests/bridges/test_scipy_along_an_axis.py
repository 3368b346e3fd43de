"""SciPy's filters along one axis: its signatures, and its values to 1e-12 in float64."""

from __future__ import annotations

from inspect import signature
from typing import Any

import numpy as np
import pytest

from fastconv import ConvError
from fastconv.scipy import ndimage

MODES = ["reflect", "constant", "nearest", "mirror", "wrap"]
NAMES = ["correlate1d", "convolve1d"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("length", [1, 2, 5, 8])
def test_values_are_scipys(name: str, mode: str, length: int) -> None:
    scipy = pytest.importorskip("scipy.ndimage")
    rng = np.random.default_rng(length)
    weights = rng.standard_normal(length)
    for shape in ((23,), (9, 12), (8, 9, 10)):
        x = rng.standard_normal(shape)
        for axis in range(-1, len(shape)):
            for origin in {0, (length - 1) // 2, -(length // 2)}:
                arguments = (weights, axis, None, mode, 1.5, origin)
                right = getattr(scipy, name)(x, *arguments)
                np.testing.assert_allclose(getattr(ndimage, name)(x, *arguments), right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_scipys(name: str) -> None:
    scipy = pytest.importorskip("scipy.ndimage")

    def told(function: Any) -> list[tuple[str, Any]]:
        return [(p.name, p.default) for p in signature(function).parameters.values()]

    assert told(getattr(ndimage, name)) == told(getattr(scipy, name))


@pytest.mark.parametrize("name", NAMES)
def test_values_without_scipy_and_refusals(name: str) -> None:
    x, weights = np.random.default_rng(0).standard_normal((4, 20)), np.array([1.0, 2.0, 4.0])
    taps = weights if name == "correlate1d" else weights[::-1]
    padded = np.pad(x, ((0, 0), (1, 1)), "symmetric")
    right = sum(tap * padded[:, i : i + 20] for i, tap in enumerate(taps))
    np.testing.assert_allclose(getattr(ndimage, name)(x, weights), right, rtol=1e-12, atol=1e-12)
    for wrong in ({"axis": 2}, {"origin": 2}, {"mode": "none"}):
        with pytest.raises(ConvError):
            getattr(ndimage, name)(x, weights, **wrong)
    with pytest.raises(ConvError):
        getattr(ndimage, name)(x, np.ones((2, 2)))
