"""`fastconv.dask.conv2d`: the bits of the whole array whatever the chunks."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from pieces import ASKED, forced_problem, random_chunks

import fastconv
from fastconv import ConvError, ConvTypeError
from fastconv._core.geometry import conv_geometry
from fastconv._core.problem import Direction, problem
from fastconv._core.select import WAYS
from fastconv._core.types import Types

da = pytest.importorskip("dask.array")
dask = pytest.importorskip("dask")

from fastconv.dask import conv2d  # noqa: E402

CASES = 300


def _problem(rng: np.random.Generator) -> tuple[Any, Any, Any, dict[str, Any]]:
    channels, outputs = int(rng.integers(1, 9)), int(rng.integers(1, 9))
    groups = channels if rng.random() < 0.25 else 1
    if groups > 1:
        outputs = groups * int(rng.integers(1, 3))
    size = [int(n) for n in rng.integers(12, 60, 2)]
    kernel = [3, 3] if rng.random() < 0.5 else [int(k) for k in rng.integers(1, 6, 2)]
    if rng.random() < 0.3:  # enough for Winograd
        channels, outputs, groups, size = 16, 16, 1, [int(n) for n in rng.integers(40, 70, 2)]
    nhwc = bool(rng.random() < 0.5)
    dtype = str(rng.choice(["float32", "float32", "float64", "float16", "int16"]))

    def values(*shape: int) -> Any:
        made = rng.integers(-99, 99, shape) if dtype == "int16" else rng.standard_normal(shape)
        return made.astype(dtype)

    x = values(int(rng.integers(1, 4)), channels, *size)
    w = values(outputs, channels // groups, *kernel)
    padding: Any = rng.choice(["valid", "same", "full", "numbers"])
    if padding == "numbers":
        padding = tuple(tuple(int(p) for p in rng.integers(-2, 5, 2)) for _ in range(2))
    options = {
        "stride": 1 if rng.random() < 0.5 else tuple(int(s) for s in rng.integers(1, 4, 2)),
        "dilation": 1 if rng.random() < 0.6 else tuple(int(d) for d in rng.integers(1, 3, 2)),
        "padding": padding if isinstance(padding, tuple) else str(padding),
        "groups": groups,
        "padding_mode": str(rng.choice(["zeros", "zeros", "reflect", "replicate", "circular", "symmetric"])),
        "data_format": "NHWC" if nhwc else "NCHW",
    }
    if nhwc:
        x, w = x.transpose(0, 2, 3, 1).copy(), w.transpose(2, 3, 1, 0).copy()
    bias = values(outputs) if rng.random() < 0.5 else None
    return x, w, bias, options


@pytest.mark.parametrize("seed", range(3))
def test_bits_are_those_of_the_whole_array(seed: int) -> None:
    rng = np.random.default_rng(seed)
    algorithms = set()
    for _ in range(CASES // 3):
        x, w, bias, options = _problem(rng)
        wanted = fastconv.conv2d(x, w, bias, **options)
        algorithms.add(
            fastconv.explain_conv2d(x.shape, w.shape, dtype=x.dtype, **options).algorithm if x.dtype.kind == "f" else ""
        )
        lazy = conv2d(da.from_array(x, chunks=tuple(random_chunks(rng, n) for n in x.shape)), w, bias, **options)
        assert (lazy.shape, lazy.dtype) == (wanted.shape, wanted.dtype)
        got = lazy.compute(scheduler="synchronous")
        assert_array_equal(got, wanted, strict=True)
    assert {"direct", "winograd"} <= algorithms


@pytest.mark.parametrize("algorithm", ASKED)
def test_every_algorithm_has_the_bits_of_the_whole_array(algorithm: str) -> None:
    rng = np.random.default_rng(len(algorithm))
    blocks = 0
    for _ in range(12):
        x, w, bias, options = forced_problem(rng, algorithm)
        lazy = conv2d(da.from_array(x, chunks=tuple(random_chunks(rng, n) for n in x.shape)), w, bias, **options)
        wanted = fastconv.conv2d(x, w, bias, **options)
        assert_array_equal(lazy.compute(scheduler="synchronous"), wanted, strict=True, err_msg=f"{x.shape} {options}")
        blocks += lazy.npartitions > x.shape[0]
    assert blocks


def test_every_algorithm_has_a_grain() -> None:
    g = conv_geometry((1, 4, 12, 10), (4, 4, 3, 3), 2, 1, 3, 1)
    float32 = np.dtype("float32")
    for direction in (Direction.FORWARD, Direction.INPUT_GRADIENT):
        p = problem(g, direction, Types(float32, float32, float32))
        grains = {way.wish: way.method.grain(p, way.variant) for way in WAYS}
        assert all(len(grain) == 3 and min(grain) >= 1 for grain in grains.values())
        whole = (1, 12, 10) if direction is Direction.INPUT_GRADIENT else (1, 4, 3)
        # 4 x 3 outputs: four rows of them are so many groups of four pixels; of a gradient the whole
        assert grains["strassen:twice"] == whole


def test_unbatched_and_blocks_in_the_padding() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((3, 20, 30)), rng.standard_normal((2, 3, 3, 3))
    lazy = conv2d(da.from_array(x, chunks=(2, 7, 11)), w, padding=9)
    assert_array_equal(lazy.compute(scheduler="synchronous"), fastconv.conv2d(x, w, padding=9))
    assert lazy.chunks[0] == (2,)


@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_schedulers(scheduler: str) -> None:
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((2, 8, 64, 48)).astype("float32"), rng.standard_normal((8, 8, 3, 3)).astype("float32")
    lazy = conv2d(da.from_array(x, chunks=(1, 8, 20, 30)), w, padding="same", activation="relu")
    wanted = fastconv.conv2d(x, w, padding="same", activation="relu")
    assert_array_equal(lazy.compute(scheduler=scheduler, num_workers=2), wanted)


def test_only_the_needed_chunks_are_computed() -> None:
    taken = []

    def load(block_info: Any = None) -> Any:
        taken.append(block_info[None]["chunk-location"])
        return np.ones((1, 1, 10, 10))

    x = da.map_blocks(load, chunks=((1,), (1,), (10,) * 6, (10,) * 6), dtype=float, meta=np.empty((0,) * 4))
    conv2d(x, np.ones((1, 1, 3, 3)), padding=1)[0, 0, 25, 25].compute(scheduler="synchronous")
    assert set(taken) == {(0, 0, i, j) for i in (1, 2, 3) for j in (1, 2, 3)}


def test_refusals_come_before_any_work() -> None:
    x = da.ones((1, 3, 8, 8), chunks=4)
    with pytest.raises(ConvTypeError, match="dask array"):
        conv2d(np.ones((1, 3, 8, 8)), np.ones((1, 3, 3, 3)))
    with pytest.raises(ConvError, match="input channels"):
        conv2d(x, np.ones((1, 2, 3, 3)))
    with pytest.raises(ConvError, match="larger than the padded input"):
        conv2d(x, np.ones((1, 3, 9, 9)))
    with pytest.raises(ConvTypeError, match="same floating dtype"):
        conv2d(x, np.ones((1, 3, 3, 3), "float32"))


def test_dask_is_asked_for_by_name() -> None:
    code = (
        "import sys; sys.modules['dask'] = None\n"
        "import fastconv\n"
        "try:\n    import fastconv.dask\n"
        "except ImportError as error:\n    assert 'pip install fastconv[dask]' in str(error)\n"
        "else:\n    raise SystemExit('imported')\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
