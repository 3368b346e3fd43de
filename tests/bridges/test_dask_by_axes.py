"""Signals and volumes as dask arrays: the bits of the whole, whatever the chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

da = pytest.importorskip("dask.array")

import fastconv  # noqa: E402
from fastconv import ConvError  # noqa: E402
from fastconv import dask as tasks  # noqa: E402

SHAPES = {1: (2, 8, 61), 3: (2, 8, 11, 13, 15)}
CASES: list[dict[str, Any]] = [
    {"padding": 1},
    {"padding": "same", "dilation": 2, "activation": "relu"},
    {"stride": 2, "padding": "same"},
    {"padding": 2, "padding_mode": "reflect"},
    {"padding": 1, "padding_mode": "circular", "stride": 3},
    {"groups": 4, "algorithm": "direct"},
]
CASES_OF = [(axes, case) for axes in (1, 3) for case in CASES] + [(1, {"padding": "causal", "dilation": 3})]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("axes", "how"), CASES_OF)
def test_bits_are_those_of_the_whole(axes: int, how: dict[str, Any], last: bool) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(SHAPES[axes]).astype("float32")
    w = rng.standard_normal((8, 8 // how.get("groups", 1), *(3,) * axes)).astype("float32")
    bias = rng.standard_normal(8).astype("float32")
    options = dict(how)
    if last:
        x, w = np.moveaxis(x, 1, -1).copy(), w.transpose((*range(2, axes + 2), 1, 0)).copy()
        options["data_format"] = "channels_last"
    right = getattr(fastconv, f"conv{axes}d")(x, w, bias, **options)
    for step in (4, 7):
        spatial = tuple(step + axis for axis in range(axes))
        chunks = (1, *spatial, 5) if last else (1, 5, *spatial)
        made = getattr(tasks, f"conv{axes}d")(da.from_array(x, chunks), w, bias, **options)
        assert made.shape == right.shape and made.dtype == right.dtype
        np.testing.assert_array_equal(made.compute(scheduler="sync"), right)
    single = getattr(tasks, f"conv{axes}d")(da.from_array(x[0], chunks[1:]), w, bias, **options)
    alone = getattr(fastconv, f"conv{axes}d")(x[0], w, bias, **options)
    np.testing.assert_array_equal(single.compute(scheduler="sync"), alone)


@pytest.mark.parametrize("axes", [1, 3])
def test_refusals_are_those_of_the_whole(axes: int) -> None:
    x = da.ones(SHAPES[axes], chunks=4)
    with pytest.raises(ConvError, match=f"conv{axes}d"):
        getattr(tasks, f"conv{axes}d")(x, np.ones((8, 3, *(3,) * axes)))
    with pytest.raises(ConvError, match="input must have the axes"):
        getattr(tasks, f"conv{axes}d")(da.ones((2, 2, 2, 2, 2, 2)), np.ones((8, 8, *(3,) * axes)))
