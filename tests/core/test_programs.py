"""Native programs, asked directly: what they read, what scratch they say, that they serve several threads at once."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from fastconv import _native, reference
from fastconv._core.activations import FUSED
from fastconv._core.arrays import bias_for
from fastconv._core.types import PADDING_MODES, STORAGE, Codes
from fastconv._core.words import CONSTANT
from fastconv._core.words import PADDING_MODES as WORDS

FLOAT32 = STORAGE[np.dtype("float32")]
CODES = Codes(_native.COMPUTES["float32"], FLOAT32, FLOAT32, FLOAT32)
KINDS = _native.winograd_kinds()


def extent(channels, outputs, size, input_size, groups=1):
    return SimpleNamespace(
        groups=groups, channels=channels, outputs=outputs, size=(1, *size), input_size=(1, *input_size),
        mode=PADDING_MODES["zeros"],
    )  # fmt: skip


def taps(y, x, stride=(1, 1), phase=(0, 0), step=(1, 1), places=None):
    places = places or (tuple(range(len(y))), tuple(range(len(x))))
    return SimpleNamespace(
        taps=((0,), tuple(y), tuple(x)), places=((0,), *places), stride=(1, *stride), phase=(0, *phase),
        step=(1, *step), merge=(1, 1, 1),
    )  # fmt: skip


def blocking(**numbers):
    return SimpleNamespace(**numbers)


def winograd(name, p, size, input_size, channels=5, outputs=7, tiles=3):
    loops = blocking(few=False, planes=1, tiles=tiles, reduction=64, slice=4, panels_per_task=1)
    return _native.Winograd(CODES, extent(channels, outputs, size, input_size), p, loops, KINDS[name][0])


@pytest.mark.parametrize("name, stride", [("2x2", 1), ("4x4", 1), ("2x2 at stride 2", 2), ("4x4 at stride 2", 2)])
@pytest.mark.parametrize("last", [False, True])
def test_winograd_of_every_kind(name, stride, last):
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((2, 5, 11, 9), np.float32), rng.standard_normal((7, 5, 3, 3), np.float32)
    bias = rng.standard_normal(7).astype(np.float32)
    want = reference.conv2d(x, w, bias, stride=stride, padding=1)
    made = winograd(name, taps((-1, 0, 1), (-1, 0, 1), (stride, stride)), want.shape[2:], x.shape[2:])
    y = np.empty_like(want)
    if last:
        x, w, y = (np.ascontiguousarray(a.transpose(axes)) for a, axes in
                   ((x, (0, 2, 3, 1)), (w, (2, 3, 1, 0)), (y, (0, 2, 3, 1))))  # fmt: skip
    assert made.run(x, w, None, bias_for(bias, 0), None, y, 0, last, 2) is None
    np.testing.assert_allclose(y.transpose(0, 3, 1, 2) if last else y, want, rtol=0, atol=2e-4)


@pytest.mark.parametrize("dilation", [(2, 2), (3, 1), (2, 5)])
def test_winograd_reads_every_nth_pixel_of_a_phase(dilation):
    """A pass whose taps lie apart and whose outputs do, too: the pixels of one phase of the dilation."""
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal((2, 5, 12, 13), np.float32), rng.standard_normal((7, 5, 3, 3), np.float32)
    want = reference.conv2d(x, w, dilation=dilation, padding=2)
    y = np.full_like(want, np.nan)
    for py in range(min(dilation[0], want.shape[2])):
        for px in range(min(dilation[1], want.shape[3])):
            own = [tuple(first - 2 + i * d for i in range(3)) for first, d in zip((py, px), dilation, strict=True)]
            p = taps(*own, dilation, (py, px), dilation)
            assert winograd("4x4", p, want.shape[2:], x.shape[2:]).run(x, w, None, None, None, y, 0, False, 1) is None
    np.testing.assert_allclose(y, want, rtol=0, atol=2e-4)


def test_winograd_says_which_rows_of_tiles_are_not_finite():
    x, w = np.ones((2, 5, 8, 8), np.float32), np.ones((7, 5, 3, 3), np.float32)
    x[1, 2, 7, 0] = np.inf
    y = np.empty((2, 7, 8, 8), np.float32)
    made = winograd("4x4", taps((-1, 0, 1), (-1, 0, 1)), (8, 8), (8, 8))
    assert made.run(x, w, None, None, None, y, 0, False, 2) == bytes([0, 0, 0, 1])


@pytest.mark.parametrize(
    "name, p",
    [
        ("4x4", taps((0, 1, 3), (0, 1, 2))),
        ("4x4", taps((0, 1), (0, 1, 2))),
        ("4x4", taps((0, 1, 2), (0, 1, 2), (2, 2))),
        ("2x2 at stride 2", taps((0, 2, 4), (0, 1, 2), (2, 2))),
    ],
)
def test_winograd_refuses_other_taps(name, p):
    with pytest.raises(ValueError, match="taps"):
        winograd(name, p, (6, 6), (8, 8))


def test_programs_say_what_they_allocate_and_so_do_the_functions():
    for channels, outputs, size in ((5, 7, (9, 40)), (64, 200, (28, 28))):
        for tiles in (1, 4, 9):
            made = winograd("4x4", taps((-1, 0, 1), (-1, 0, 1)), size, size, channels, outputs, tiles)
            for held in (False, True):
                loops = blocking(planes=1, tiles=tiles, slice=min(4, channels), few=False)
                said = _native.winograd_scratch_bytes(
                    0, KINDS["4x4"][0], channels, 1, 1, loops, -(-size[1] // 4), held
                )
                assert made.scratch_bytes(held) == said
    lanes, vectors = _native.tile_shape(0)[1:3]
    for levels in (1, 2):
        side = 1 << levels
        loops = blocking(tiles=9, part=5, reduction=64, panels_per_task=1)
        channels, outputs = side * lanes, side * lanes * vectors
        made = _native.Strassen(CODES, extent(channels, outputs, (6, 7), (6, 7)), taps((0,), (0,)), loops, levels)
        assert made.scratch_bytes() == _native.strassen_scratch_bytes(0, levels, channels, 9, 5)
    p = taps(range(-3, 4), range(-3, 4), (2, 2))
    rows = _native.WinogradRows(CODES, extent(3, 20, (16, 18), (32, 36)), p, blocking(rows=5))
    assert rows.scratch_bytes() == _native.winograd_rows_scratch_bytes(0, 3, 7, 2, 18, 5)


def test_scratch_grows_with_the_block():
    """What `most_tiles` searches in."""
    for few, held in ((False, False), (False, True), (True, False)):
        loops = [blocking(planes=1, tiles=n, slice=8, few=few) for n in range(1, 40)]
        said = [_native.winograd_scratch_bytes(0, KINDS["4x4"][0], 33, 1, 1, b, b.tiles, held) for b in loops]
        assert said == sorted(said) and said[0] < said[-1]
    said = [_native.strassen_scratch_bytes(0, 2, 256, n, n) for n in range(1, 40)]
    assert said == sorted(set(said))
    said = [_native.winograd_rows_scratch_bytes(0, 3, 7, 2, 112, n) for n in range(1, 40)]
    assert said == sorted(set(said))


def test_one_program_serves_several_threads():
    rng = np.random.default_rng(3)
    w = rng.standard_normal((7, 5, 3, 3), np.float32)
    made = winograd("4x4", taps((-1, 0, 1), (-1, 0, 1)), (9, 9), (9, 9))
    depthwise = rng.standard_normal((40, 1, 3, 3), np.float32)
    lanes = _native.Lanes(
        CODES, extent(1, 1, (9, 9), (9, 9), groups=40), (taps((-1, 0, 1), (-1, 0, 1)),),
        blocking(tile=(9, 9), chunks_per_task=1, capped=False),
    )  # fmt: skip
    assert (lanes.rows, lanes.columns) == ((0, 1, 2), (0, 1, 2))
    panels = np.empty(_native.packed_bytes(0, 1, 9, 1, 40) + 64, np.uint8)
    panels = panels[-panels.ctypes.data % 64 :][: _native.packed_bytes(0, 1, 9, 1, 40)]
    _native.pack_weights(0, depthwise, FLOAT32, panels, 1, False, ((0,), lanes.rows, lanes.columns), 1)
    packed = SimpleNamespace(panels=panels, finite=True, transformed=None)

    def one(images):
        x = np.random.default_rng(images).standard_normal((images, 5, 9, 9)).astype(np.float32)
        y = np.empty((images, 7, 9, 9), np.float32)
        made.run(x, w, None, None, None, y, 1, False, 2)
        np.testing.assert_allclose(y, reference.conv2d(x, w, padding=1, activation="relu"), rtol=0, atol=2e-4)
        x = np.random.default_rng(images).standard_normal((images, 40, 9, 9)).astype(np.float32)
        y = np.empty_like(x)
        lanes.run(x, depthwise, packed, None, None, y, 0, False, 2)
        np.testing.assert_allclose(y, reference.conv2d(x, depthwise, groups=40, padding=1), rtol=0, atol=1e-5)
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(one, [1, 4, 2, 3, 7, 1, 5, 2]))


def test_the_numbers_of_the_header_are_those_that_python_uses():
    assert {k: v for k, v in _native.ACTIVATIONS.items() if k} == FUSED
    assert {*PADDING_MODES, CONSTANT} == set(WORDS)  # a constant is filled in before a kernel sees it
    assert all(extent <= 9 for *_, extent, _ in KINDS.values())
