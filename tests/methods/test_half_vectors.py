"""Channels that fill half of the last vector: register tiles write them where they lie, and nothing beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import reference


@pytest.mark.parametrize("outputs", [4, 8, 12, 20, 24, 25, 36, 40, 56, 57, 72, 104])
@pytest.mark.parametrize("kernel", [1, 3])
def test_outputs_are_exact_and_what_lies_behind_them_is_left(outputs: int, kernel: int, isa: str) -> None:
    random = np.random.default_rng(outputs)
    options: dict[str, Any] = {"padding": kernel // 2, "data_format": "channels_last", "algorithm": "direct"}
    for size in ((7, 7), (5, 9), (1, 1), (13, 3)):
        x = random.integers(-4, 5, (2, *size, 19)).astype(np.float32)
        w = random.integers(-3, 4, (kernel, kernel, 19, outputs)).astype(np.float32)
        bias = random.integers(-3, 4, outputs).astype(np.float32)
        sums = reference.conv2d(x, w, bias, padding=kernel // 2, data_format="channels_last")
        for activation, meant in ((None, sums), ("relu", np.maximum(sums, 0)), ("relu6", np.clip(sums, 0, 6))):
            plan = fastconv.plan_conv2d(x.shape, w, bias, activation=activation, **options)
            np.testing.assert_array_equal(plan.run(x), meant)
            beside = np.full((2, *size, outputs + 3), 7, np.float32)
            plan.run(x, out=beside[..., :outputs])
            np.testing.assert_array_equal(beside[..., :outputs], meant)
            assert (beside[..., outputs:] == 7).all()
        residual = random.integers(-3, 4, sums.shape).astype(np.float32)
        np.testing.assert_array_equal(fastconv.conv2d(x, w, bias, residual=residual, **options), sums + residual)
