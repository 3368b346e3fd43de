"""Steps of recurrent cells against their equations in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_functions import isa, sigmoid_of  # noqa: F401  (a fixture)

from fastconv import _native


def draw(kind: Any, *shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(kind)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("coupled, peephole", [(False, False), (True, False), (False, True), (True, True)])
def test_lstm(coupled, peephole, kind, isa):  # noqa: F811
    directions, batch, hidden = 2, 5, 37
    gates, c, p = draw(kind, directions, batch, 4 * hidden), draw(kind, directions, batch, hidden), None
    i, o, f, g = np.split(gates.astype(np.float64), 4, axis=-1)
    wide = c.astype(np.float64)
    if peephole:
        p = draw(kind, directions, 1, 3 * hidden)
        weights = np.split(p.astype(np.float64), 3, axis=-1)
        i, f = i + weights[0] * wide, f + weights[2] * wide
    i = sigmoid_of(i)
    wide = (1 - i if coupled else sigmoid_of(f)) * wide + i * np.tanh(g)
    o = o + weights[1] * wide if peephole else o
    for threads in (1, 2):
        cell, h = c.copy(), np.full((directions, 9, hidden), 7, kind)
        _native.lstm_step(gates.copy(), p, cell, h[:, 2:7], coupled, threads)  # one row after the other of a sequence
        np.testing.assert_allclose(cell, wide, rtol=16 * np.finfo(kind).eps, atol=8 * np.finfo(kind).eps)
        np.testing.assert_allclose(
            h[:, 2:7], sigmoid_of(o) * np.tanh(wide), rtol=16 * np.finfo(kind).eps, atol=8 * np.finfo(kind).eps
        )
        assert (h[:, :2] == 7).all() and (h[:, 7:] == 7).all()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_gru(kind, isa):  # noqa: F811
    candidate, z, h = draw(kind, 2, 3, 50), sigmoid_of(draw(kind, 2, 3, 50)).astype(kind), draw(kind, 2, 3, 50)
    wanted = (1 - z.astype(np.float64)) * np.tanh(candidate.astype(np.float64)) + z.astype(np.float64) * h
    _native.gru_step(candidate, z, h, 2)
    np.testing.assert_allclose(h, wanted, rtol=16 * np.finfo(kind).eps, atol=4 * np.finfo(kind).eps)
