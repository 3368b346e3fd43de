"""The native programs on three axes, driven directly: every value against a loop over taps in float64 or int64."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from fastconv import _native
from fastconv._core.arrays import bias_for as as_bias
from fastconv._core.methods.direct_blocking import Blocking as Loops
from fastconv._core.methods.weight_gradient import Blocking as WeightGradientBlocking
from fastconv._core.operands import Packed as PackedWeights
from fastconv._core.passes import Pass as Taps
from fastconv._core.pooling import Window
from fastconv._core.types import COMPUTE, PADDING_MODES, STORAGE, Codes


class Extent(NamedTuple):
    """What a program is laid over: channels of one group (the reduction and the outputs), planes, rows and columns."""

    groups: int
    channels: int
    outputs: int
    size: tuple[int, int, int]
    input_size: tuple[int, int, int]
    mode: int
    terms: int | None = None
    capped: bool = False


Array = NDArray[Any]
Triple = tuple[int, int, int]
ISAS = [name for name in _native.isas_available() if name != "avx512_bf16"]
MODES = tuple(PADDING_MODES)
IN_PLACE, REGION, GATHER = range(3)
CASES = 60


@pytest.fixture(params=ISAS, autouse=True)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _native.isa_name()
    assert _native.isa_use(request.param)
    yield request.param
    _native.isa_use(before)


# ---- plain NumPy ---------------------------------------------------------------------------------------------------


def source_index(i: int, n: int, mode: str) -> int:
    """Which element of an axis of n lies at position i of its extension, -1 for a zero."""
    if 0 <= i < n:
        return i
    if mode == "zeros":
        return -1
    line = np.pad(np.arange(n), (4096 if i < 0 else 0, 4096 if i >= n else 0), NUMPY_MODES[mode])  # type: ignore[call-overload]
    return int(line[i + 4096 if i < 0 else i])


NUMPY_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap", "symmetric": "symmetric"}


class Case(NamedTuple):
    """A convolution on three axes: channels and outputs of a group; padding before and after, negative ones crop."""

    batch: int
    groups: int
    channels: int
    outputs: int
    size: Triple
    kernel: Triple
    stride: Triple
    dilation: Triple
    padding: tuple[tuple[int, int], ...]
    mode: str = "zeros"

    @property
    def output_size(self) -> Triple:
        a, b, c = (
            (n + sum(pad) - dilation * (k - 1) - 1) // stride + 1
            for n, pad, k, dilation, stride in zip(
                self.size, self.padding, self.kernel, self.dilation, self.stride, strict=True
            )
        )
        return a, b, c

    def positions(self, axis: int, tap: int) -> Array:
        """The element of an axis that every output meets under a tap, -1 for none."""
        first = tap * self.dilation[axis] - self.padding[axis][0]
        places = (first + i * self.stride[axis] for i in range(self.output_size[axis]))
        return np.array([source_index(place, self.size[axis], self.mode) for place in places], int)

    def met(self) -> Iterator[tuple[tuple[int, ...], Any, Any]]:
        """(tap, outputs that meet an element under it, those elements), of all taps."""
        for tap in itertools.product(*map(range, self.kernel)):
            places = [self.positions(axis, tap[axis]) for axis in range(3)]
            outputs = [np.flatnonzero(place >= 0) for place in places]
            elements = [place[place >= 0] for place in places]
            yield tap, np.ix_(*outputs), np.ix_(*elements)


def wide(array: Array) -> Array:
    return array.astype(np.int64 if array.dtype.kind in "iu" else np.float64)


def by_group(array: Array, groups: int, axis: int) -> list[Array]:
    return np.split(array, groups, axis)


def convolved(case: Case, x: Array, weight: Array) -> Array:
    parts = []
    for xg, wg in zip(by_group(wide(x), case.groups, 1), by_group(wide(weight), case.groups, 0), strict=True):
        y = np.zeros((case.batch, case.outputs, *case.output_size), xg.dtype)
        for tap, outputs, elements in case.met():
            with np.errstate(invalid="ignore"):
                y[(..., *outputs)] += np.einsum("nczyx,oc->nozyx", xg[(..., *elements)], wg[(..., *tap)])
        parts.append(y)
    return np.concatenate(parts, 1)


def input_gradient(case: Case, dy: Array, weight: Array) -> Array:
    parts = []
    for dyg, wg in zip(by_group(wide(dy), case.groups, 1), by_group(wide(weight), case.groups, 0), strict=True):
        dx = np.zeros((case.batch, case.channels, *case.size), dyg.dtype)
        for tap, outputs, elements in case.met():
            with np.errstate(invalid="ignore"):
                dx[(..., *elements)] += np.einsum("nozyx,oc->nczyx", dyg[(..., *outputs)], wg[(..., *tap)])
        parts.append(dx)
    return np.concatenate(parts, 1)


# ---- cases ---------------------------------------------------------------------------------------------------------


def triple(rng: np.random.Generator, choices: list[int]) -> Triple:
    a, b, c = (int(n) for n in rng.choice(choices, 3))
    return a, b, c


def some_case(rng: np.random.Generator, modes: tuple[str, ...] = MODES) -> Case:
    """A random convolution with at least one output."""
    while True:
        groups = int(rng.choice([1, 1, 1, 2, 3]))
        case = Case(
            int(rng.integers(1, 4)), groups, int(rng.integers(1, 71 if groups == 1 else 9)),
            int(rng.integers(1, 71 if groups == 1 else 9)), triple(rng, [1, 2, 3, 4, 5, 6, 7]),
            triple(rng, [1, 1, 2, 3, 3]), triple(rng, [1, 1, 2, 3]), triple(rng, [1, 1, 2]),
            tuple((int(a), int(b)) for a, b in rng.integers(-1, 3, (3, 2))), str(rng.choice(list(modes))),
        )  # fmt: skip
        reach = [d * (k - 1) for d, k in zip(case.dilation, case.kernel, strict=True)]
        cropped = all(n + min(0, pad[0]) + min(0, pad[1]) > 0 for n, pad in zip(case.size, case.padding, strict=True))
        if cropped and min(case.output_size) > 0 and max(reach) < 8:
            return case


def anywhere(array: Array, rng: np.random.Generator) -> Array:
    """The same values in memory of another axis order, with gaps, and backwards along some axes."""
    order = rng.permutation(array.ndim)
    gaps = rng.integers(1, 3, array.ndim)
    room = np.zeros([int(array.shape[axis] * gaps[axis]) for axis in order], array.dtype)
    view = room.transpose(np.argsort(order))
    view = view[tuple(slice(None, None, int(gap)) for gap in gaps)]
    view = view[tuple(slice(None, None, int(step)) for step in rng.choice([1, 1, -1], array.ndim))]
    view[...] = array
    return view


def integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str, most: int = 4) -> Array:
    low = 0 if dtype.startswith("u") else -most
    return rng.integers(low, most + 1, shape).astype(dtype)


def loops(
    rng: np.random.Generator, size: Triple, batch: int, source: int, streams: bool = False, tile: Triple | None = None
) -> Loops:
    """Any loop sizes: results do not depend on them."""
    if tile is None:
        a, b, c = (int(rng.integers(1, n + 1)) for n in size)
        tile = size if rng.random() < 0.3 else (a, b, c)
    images = int(rng.integers(1, batch + 1)) if tile == size and source != GATHER else 1
    return Loops(source, images, tile, int(rng.integers(1, 100)), int(rng.integers(1, 3)), streams)


TYPES = [  # input and weight, computing type, result
    ("float32", "float32", "float32"), ("float64", "float64", "float64"), ("float16", "float32", "float16"),
    ("int8", "int32", "int32"), ("uint8", "int32", "int32"), ("int16", "int64", "int64"),
]  # fmt: skip


def codes(stored: str, compute: str, result: str) -> Codes:
    stored_code = STORAGE[np.dtype(stored)]
    return Codes(COMPUTE[np.dtype(compute)], stored_code, stored_code, STORAGE[np.dtype(result)])


def forward_pass(case: Case) -> Taps:
    offsets = tuple(
        tuple(k * case.dilation[axis] - case.padding[axis][0] for k in range(case.kernel[axis])) for axis in range(3)
    )
    places = tuple(tuple(range(k)) for k in case.kernel)
    return Taps(offsets, places, case.stride, (0, 0, 0), (1, 1, 1), (1, 1, 1))  # type: ignore[arg-type]


def gradient_passes(case: Case) -> list[Taps]:
    """A pass for every phase of the strides that has an element."""
    along = []
    for axis in range(3):
        phases = []
        stride, dilation, before = case.stride[axis], case.dilation[axis], case.padding[axis][0]
        for phase in range(min(stride, case.size[axis])):
            places = tuple(
                k for k in reversed(range(case.kernel[axis])) if (phase + before - k * dilation) % stride == 0
            )
            phases.append((phase, tuple((phase + before - k * dilation) // stride for k in places), places))
        along.append(phases)
    return [
        Taps(
            tuple(offsets for _, offsets, _ in at), tuple(places for _, _, places in at), (1, 1, 1),  # type: ignore[arg-type]
            tuple(phase for phase, _, _ in at), case.stride, (1, 1, 1),  # type: ignore[arg-type]
        )
        for at in itertools.product(*along)
    ]  # fmt: skip


def shape_of(p: Taps, size: Triple) -> Triple:
    a, b, c = (-(-(n - phase) // step) for n, phase, step in zip(size, p.phase, p.step, strict=True))
    return a, b, c


def inside(p: Taps, size: Triple, input_size: Triple) -> bool:
    return all(
        len(taps) == 1 and taps[0] >= 0 and taps[0] + (n - 1) * stride < whole
        for taps, n, stride, whole in zip(p.taps, shape_of(p, size), p.stride, input_size, strict=True)
    )


def in_place(rng: np.random.Generator, p: Taps, e: Extent, batch: int) -> Loops | None:
    """Loop sizes for an input that is read as it lies, where it can be: in a tile all outputs meet the same taps."""
    size = shape_of(p, e.size)
    if inside(p, e.size, e.input_size) and rng.integers(2):
        return loops(rng, size, batch, IN_PLACE)
    edges = []
    for axis in range(3):
        places = [[i * p.stride[axis] + tap for tap in p.taps[axis]] for i in range(size[axis])]
        sides = [[(at >= 0) + (at >= e.input_size[axis]) for at in own] for own in places]  # before, in or behind it
        if e.mode and any(side != 1 for own in sides for side in own):
            return None
        cut = [i for i in range(1, size[axis]) if sides[i] != sides[i - 1] or rng.random() < 0.2]
        edges.append((0, *cut, size[axis]))
    tile = tuple(max(end - first for first, end in itertools.pairwise(along)) for along in edges)
    return loops(rng, size, batch, IN_PLACE, tile=tile)._replace(
        images=int(rng.integers(1, batch + 1)), edges=tuple(edges)  # type: ignore[arg-type]
    )


class Convolution(NamedTuple):
    """A program's passes with what they are laid over."""

    passes: list[Taps]
    extent: Extent
    transposed: bool


def forward(case: Case) -> Convolution:
    mode = PADDING_MODES[case.mode]
    extent = Extent(case.groups, case.channels, case.outputs, case.output_size, case.size, mode)
    return Convolution([forward_pass(case)], extent, False)


def gradient(case: Case) -> Convolution:
    extent = Extent(case.groups, case.outputs, case.channels, case.size, case.output_size, 0)
    return Convolution(gradient_passes(case), extent, True)


def packed_for(c: Convolution, p: Taps, own: Codes, weight: Array) -> PackedWeights:
    taps = int(np.prod([len(places) for places in p.places]))
    e = c.extent
    count = _native.packed_bytes(own.compute, e.groups, taps, e.channels, e.outputs)
    room = np.full(count + 64, 0xEE, np.uint8)
    panels = room[-room.ctypes.data % 64 :][:count]
    finite = _native.pack_weights(own.compute, weight, own.weight, panels, e.groups, c.transposed, p.places, 1)
    return PackedWeights(panels, finite, None)


def run(
    rng: np.random.Generator, c: Convolution, own: Codes, x: Array, weight: Array, out: Array, bias: Array | None,
    residual: Array | None, activation: int, channels_last: bool, pack: bool, sources: tuple[int, ...],
) -> None:  # fmt: skip
    """Make a program with any loop sizes and run it."""
    e, batch = c.extent, x.shape[0]
    finite = bool(np.isfinite(weight).all())
    sizes = [shape_of(p, e.size) for p in c.passes]
    streams = not pack and finite and bool(rng.integers(2))
    blockings = [loops(rng, size, batch, int(rng.choice(sources)), streams) for size in sizes]
    lie = [in_place(rng, p, e, batch) for p in c.passes]
    program = _native.Direct(own, e, c.passes, blockings, lie, c.transposed)
    logical = weight if not channels_last else np.moveaxis(weight, (-1, -2), (0, 1))
    packed: Any = [packed_for(c, p, own, logical) for p in c.passes] if pack else None
    if pack and len(packed) == 1:
        packed = packed[0]
    program.run(
        x, weight, packed, None if bias is None else as_bias(bias, own.compute), residual, out, activation,
        channels_last, int(rng.integers(1, 4)),
    )  # fmt: skip


def finished(sums: Array, bias: Array | None, residual: Array | None, activation: int) -> Array:
    if bias is not None:
        sums = sums + wide(bias)[:, None, None, None]
    if residual is not None:
        sums = sums + wide(residual)
    if activation:
        sums = np.maximum(sums, 0)
    return np.minimum(sums, 6) if activation == 2 else sums


def check(
    rng: np.random.Generator, c: Convolution, case: Case, types: tuple[str, str, str], sums: Any,
    sources: tuple[int, ...] = (REGION, GATHER), special: bool = False, bare: bool = False,
) -> None:  # fmt: skip
    """Run a convolution of integers (with `special`, of weights that are not all finite) and compare every value."""
    stored, compute, result = types
    e = c.extent
    x = integers(rng, (case.batch, e.groups * e.channels, *e.input_size), stored)
    weight = integers(rng, (case.groups * case.outputs, case.channels, *case.kernel), stored)
    if special:
        chosen = rng.random(weight.shape) < 0.05
        weight[chosen] = rng.choice(np.array([np.nan, np.inf, -np.inf]), int(chosen.sum()))
    shape = (case.batch, e.groups * e.outputs, *e.size)
    bias = None if bare or rng.integers(2) else integers(rng, (shape[1],), compute)
    residual = None if bare or rng.integers(2) else integers(rng, shape, result)
    activation = int(rng.choice([0, 1, 2])) if result.startswith("float") else 0
    expected = finished(sums(case, x, weight), bias, residual, activation)
    channels_last = bool(rng.integers(2))
    arrays = [x, residual, np.full(shape, 77, result)]
    if channels_last:
        weight = weight.transpose(2, 3, 4, 1, 0)
        arrays = [None if a is None else np.moveaxis(a, 1, -1) for a in arrays]
    # in the order of its own axes, as plain arrays lie, or anyhow
    placed = np.ascontiguousarray if rng.integers(2) else lambda a: anywhere(a, rng)
    x, residual, out = (None if a is None else placed(a) for a in arrays)
    run(
        rng, c, codes(*types), x, placed(weight), out, bias, residual, activation, channels_last,
        bool(rng.integers(2)), sources,
    )  # fmt: skip
    got = np.moveaxis(out, -1, 1) if channels_last else out
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(got, expected.astype(result), err_msg=f"{case} {types} {channels_last=}")


# ---- the direct driver ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("types", TYPES, ids="-".join)
def test_forward_equals_a_loop_over_taps(types: tuple[str, str, str]) -> None:
    rng = np.random.default_rng(1)
    for _ in range(CASES):
        case = some_case(rng)
        check(rng, forward(case), case, types, convolved)


@pytest.mark.parametrize("types", TYPES, ids="-".join)
def test_input_gradients_equal_a_loop_over_taps(types: tuple[str, str, str]) -> None:
    rng = np.random.default_rng(2)
    for _ in range(CASES):
        case = some_case(rng, ("zeros",))
        check(rng, gradient(case), case, types, input_gradient)


@pytest.mark.parametrize("direction", ["forward", "gradient"])
def test_weights_that_are_not_finite_meet_no_padding(direction: str) -> None:
    rng = np.random.default_rng(3)
    for number in range(CASES):
        case = some_case(rng, ("zeros",))
        c, sums = (forward(case), convolved) if direction == "forward" else (gradient(case), input_gradient)
        check(rng, c, case, TYPES[number % 3], sums, special=True)


def test_many_small_images_of_one_tile() -> None:
    rng = np.random.default_rng(4)
    for _ in range(CASES):
        case = some_case(rng)._replace(batch=9, groups=1, channels=5, outputs=33)
        check(rng, forward(case), case, TYPES[0], convolved, (REGION,))


def test_a_single_tap_reads_the_input_in_place() -> None:
    """Channels last and nothing padded; cropped and strided along every axis."""
    rng = np.random.default_rng(15)
    for _ in range(CASES):
        padding = tuple((-int(a), -int(b)) for a, b in rng.integers(0, 2, (3, 2)))
        case = some_case(rng)._replace(kernel=(1, 1, 1), padding=padding, size=triple(rng, [3, 4, 7]))
        assert inside(forward(case).passes[0], case.output_size, case.size)
        check(rng, forward(case), case, TYPES[0], convolved)


def test_tiles_that_meet_padding_are_not_read_in_place() -> None:
    p = Taps(((0,), (-1, 0), (0,)), ((0,), (0, 1), (0,)), (1, 1, 1), (0, 0, 0), (1, 1, 1), (1, 1, 1))
    e = Extent(1, 4, 4, (1, 5, 5), (1, 5, 5), 0)
    packed = Loops(REGION, 1, (1, 5, 5), 8, 1)
    for edges in (None, ((0, 1), (0, 2, 5), (0, 5))):
        lies = Loops(IN_PLACE, 1, (1, 5, 5), 8, 1, False, edges)
        with pytest.raises(ValueError, match="outputs of a tile meet the taps"):
            _native.Direct(codes(*TYPES[0]), e, [p], [packed], [lies], False)


def test_merged_phases_of_three_axes() -> None:
    """All phases of an input gradient in one panel, whose outputs are phases x channels."""
    rng = np.random.default_rng(5)
    _, lanes, vectors, _ = _native.tile_shape(0)
    merged_cases = 0
    for _ in range(2 * CASES):
        case = some_case(rng, ("zeros",))._replace(groups=1, channels=int(rng.integers(1, 4)))
        case = case._replace(stride=tuple(min(s, n) for s, n in zip(case.stride, case.size, strict=True)))  # type: ignore[arg-type]
        passes = gradient_passes(case)
        if min(case.output_size) <= 0 or len(passes) * case.channels > lanes * vectors:
            continue
        merged_cases += len(passes) > 2
        offsets = tuple(tuple(sorted({tap for p in passes for tap in p.taps[axis]})) for axis in range(3))
        merged = Taps(
            offsets, tuple(tuple(range(len(taps))) for taps in offsets), (1, 1, 1), (0, 0, 0), case.stride, case.stride  # type: ignore[arg-type]
        )
        x = integers(rng, (case.batch, case.outputs, *case.output_size), "float32")
        weight = integers(rng, (case.outputs, case.channels, *case.kernel), "float32")
        bias = integers(rng, (case.channels,), "float32")
        together = np.zeros((case.outputs, len(passes), case.channels, *map(len, offsets)), np.float32)
        for number, p in enumerate(passes):
            at = np.ix_(*([taps.index(tap) for tap in own] for taps, own in zip(offsets, p.taps, strict=True)))
            together[:, number][(..., *at)] = weight[(..., *np.ix_(*p.places))]
        together = together.reshape(case.outputs, -1, *map(len, offsets))
        e = Extent(1, case.outputs, len(passes) * case.channels, case.size, case.output_size, 0)
        out = np.full((case.batch, case.channels, *case.size), 77, np.float32)
        run(
            rng, Convolution([merged], e, True), codes(*TYPES[0]), x, together, out, bias, None, 1, False,
            bool(rng.integers(2)), (REGION, GATHER),
        )  # fmt: skip
        expected = finished(input_gradient(case, x, weight), bias, None, 1)
        np.testing.assert_array_equal(out, expected, err_msg=str(case))
    assert merged_cases > 10


def test_the_bits_depend_on_no_loop_size_and_no_batch() -> None:
    rng = np.random.default_rng(6)
    for _ in range(20):
        case = some_case(rng)
        c = forward(case)
        x = rng.standard_normal((case.batch, case.groups * case.channels, *case.size)).astype(np.float32)
        weight = rng.standard_normal((case.groups * case.outputs, case.channels, *case.kernel)).astype(np.float32)
        results = []
        for images in (slice(None), slice(None), slice(0, 1)):
            part = np.ascontiguousarray(x[images])
            out = np.zeros((len(part), case.groups * case.outputs, *case.output_size), np.float32)
            pack, sources = bool(rng.integers(2)), (REGION, GATHER)
            run(rng, c, codes(*TYPES[0]), part, weight, out, None, None, 0, False, pack, sources)
            results.append(out)
        np.testing.assert_array_equal(results[0], results[1])
        np.testing.assert_array_equal(results[0][:1], results[2])


@pytest.mark.parametrize("channels", [180, 700])
def test_long_sums_of_three_axes(channels: int) -> None:
    """Sums of 4,860 terms and more are as near as short ones, and their blocks are the same in every tile."""
    rng = np.random.default_rng(7)
    case = Case(2, 1, channels, 20, (4, 5, 5), (3, 3, 3), (1, 1, 1), (1, 1, 1), ((1, 1), (1, 1), (1, 1)))
    x = rng.standard_normal((2, channels, *case.size)).astype(np.float32) + np.float32(3)
    weight = rng.standard_normal((20, channels, 3, 3, 3)).astype(np.float32)
    expected, norm = convolved(case, x, weight), convolved(case, abs(x), abs(weight))
    results = []
    for special in (False, False, True):
        own = weight.copy()
        own[0, :, 1, 1, 1] = np.nan if special else own[0, :, 1, 1, 1]
        for sources in ((REGION,), (GATHER,)):
            out = np.zeros((2, 20, *case.output_size), np.float32)
            run(rng, forward(case), codes(*TYPES[0]), x, own, out, None, None, 0, False, bool(rng.integers(2)), sources)
            results.append(out[:, 1:])
    assert (abs(results[0] - expected[:, 1:]) <= 600 * 2.0**-24 * norm[:, 1:]).all()
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


def test_a_depth_of_one_has_the_bits_of_two_axes_and_a_depth_those_of_rows() -> None:
    rng = np.random.default_rng(8)
    case = Case(2, 1, 37, 41, (1, 9, 8), (1, 3, 3), (1, 2, 1), (1, 1, 2), ((0, 0), (1, 1), (2, 2)))
    x = rng.standard_normal((2, 37, 1, 9, 8)).astype(np.float32)
    weight = rng.standard_normal((41, 37, 1, 3, 3)).astype(np.float32)
    results = []
    for axes in ((1, 9, 8), (9, 8), (9, 1, 8)):  # as it is, without a depth, rows in the place of planes
        kernel = {3: (1, 3, 3), 2: (3, 3)}[len(axes)] if axes[0] == 1 or len(axes) == 2 else (3, 1, 3)
        own = case
        if axes == (9, 1, 8):
            own = case._replace(
                size=axes, kernel=kernel, stride=(2, 1, 1), padding=((1, 1), (0, 0), (2, 2))  # type: ignore[arg-type]
            )
        out_size = own.output_size if len(axes) == 3 else own.output_size[1:]
        out = np.zeros((2, 41, *out_size), np.float32)
        run(
            rng, forward(own), codes(*TYPES[0]), x.reshape(2, 37, *axes), weight.reshape(41, 37, *kernel), out, None,
            None, 0, False, True, (REGION,),
        )  # fmt: skip
        results.append(out.reshape(2, 41, *case.output_size[1:]))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


@pytest.mark.parametrize("channels_last", [False, True])
def test_one_axis_alone(channels_last: bool) -> None:
    """(N, C, L) arrays reach the program as they are."""
    rng = np.random.default_rng(9)
    case = Case(2, 1, 6, 35, (1, 1, 19), (1, 1, 5), (1, 1, 2), (1, 1, 2), ((0, 0), (0, 0), (8, 0)))
    x, weight = integers(rng, (2, 6, 19), "float32"), integers(rng, (35, 6, 5), "float32")
    expected = convolved(case, x.reshape(2, 6, 1, 1, 19), weight.reshape(35, 6, 1, 1, 5)).reshape(2, 35, -1)
    out = np.zeros(expected.shape, np.float32)
    if channels_last:
        x, weight = np.ascontiguousarray(x.transpose(0, 2, 1)), np.ascontiguousarray(weight.transpose(2, 1, 0))
        out = np.zeros((2, expected.shape[2], 35), np.float32)
    run(rng, forward(case), codes(*TYPES[0]), x, weight, out, None, None, 0, channels_last, False, (REGION,))
    np.testing.assert_array_equal(out.transpose(0, 2, 1) if channels_last else out, expected)


# ---- the weight gradient -------------------------------------------------------------------------------------------


def weight_gradient(case: Case, x: Array, dy: Array) -> Array:
    parts = []
    for xg, dyg in zip(by_group(wide(x), case.groups, 1), by_group(wide(dy), case.groups, 1), strict=True):
        dw = np.zeros((case.outputs, case.channels, *case.kernel), xg.dtype)
        for tap, outputs, elements in case.met():
            with np.errstate(invalid="ignore"):
                dw[(..., *tap)] = np.einsum("nczyx,nozyx->oc", xg[(..., *elements)], dyg[(..., *outputs)])
        parts.append(dw)
    return np.concatenate(parts)


def gradient_blocking(rng: np.random.Generator, case: Case) -> WeightGradientBlocking:
    def some(most: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(int(rng.integers(1, n + 1)) for n in most)

    tiles = case.batch * int(np.prod(case.output_size))
    return WeightGradientBlocking(
        some(case.kernel), *some((case.channels, 3)), some(case.output_size), *some((20, min(4, tiles)))
    )


@pytest.mark.parametrize("types", TYPES, ids="-".join)
def test_weight_gradients_equal_a_loop_over_taps(types: tuple[str, str, str]) -> None:
    rng = np.random.default_rng(10)
    for number in range(CASES):
        case = some_case(rng)
        x = integers(rng, (case.batch, case.groups * case.channels, *case.size), types[0], 2)
        dy = integers(rng, (case.batch, case.groups * case.outputs, *case.output_size), types[0], 2)
        if number % 3 == 0 and types[0].startswith("float"):  # it meets no padding
            dy[rng.random(dy.shape) < 0.02] = rng.choice(np.array([np.nan, np.inf]))
        expected = weight_gradient(case, x, dy)
        c = forward(case)
        program = _native.WeightGradient(codes(*types), c.extent, c.passes[0], gradient_blocking(rng, case))
        out = anywhere(np.full(expected.shape, 77, types[2]), rng)
        program.run(anywhere(x, rng), anywhere(dy, rng), out, int(rng.integers(1, 4)))
        np.testing.assert_array_equal(out, expected.astype(types[2]), err_msg=f"{case}")


def test_long_weight_gradients_have_small_errors() -> None:
    rng = np.random.default_rng(11)
    case = Case(2, 1, 3, 18, (20, 16, 17), (3, 2, 2), (1, 1, 1), (1, 1, 1), ((1, 1), (0, 1), (1, 0)))
    x = rng.standard_normal((2, 3, *case.size)).astype(np.float32) + np.float32(3)
    dy = rng.standard_normal((2, 18, *case.output_size)).astype(np.float32)
    blocking = WeightGradientBlocking((3, 2, 2), 3, 1, (4, 8, 16), 7, 2)
    c = forward(case)
    program = _native.WeightGradient(codes(*TYPES[0]), c.extent, c.passes[0], blocking)
    out = np.zeros((18, 3, 3, 2, 2), np.float32)
    program.run(x, dy, out, 2)
    expected, norm = weight_gradient(case, x, dy), weight_gradient(case, abs(x), abs(dy))
    assert (abs(out - expected) <= 1100 * 2.0**-24 * norm).all()


@pytest.mark.parametrize("types", TYPES, ids="-".join)
def test_bias_gradients_of_three_axes(types: tuple[str, str, str]) -> None:
    rng = np.random.default_rng(12)
    own = codes(*types)
    for shape in ((2, 70, 3, 4, 5), (3, 1, 2, 1, 19), (1, 5, 7, 2, 1), (2, 3, 30, 20, 11)):
        dy = integers(rng, shape, types[0], 2)
        out = np.zeros(shape[1], types[2])
        _native.bias_gradient(own.compute, anywhere(dy, rng), own.input, out, own.result, 3, 2)
        np.testing.assert_array_equal(out, wide(dy).sum((0, 2, 3, 4)))


def test_types_without_kernels_are_refused() -> None:
    case = some_case(np.random.default_rng(13))
    c, taken = forward(case), loops(np.random.default_rng(14), case.output_size, 1, REGION)
    for wrong in ({"input": "float64"}, {"weight": "int32"}, {"result": "int8"}):
        own = codes(*TYPES[0])._replace(**{name: STORAGE[np.dtype(dtype)] for name, dtype in wrong.items()})
        with pytest.raises(TypeError, match="no kernels read and write"):
            _native.Direct(own, c.extent, c.passes, [taken], [None], False)


# ---- pooling -------------------------------------------------------------------------------------------------------


class Pooling(NamedTuple):
    shape: tuple[int, ...]  # (N, C, D, H, W)
    window: Window
    output_size: Triple

    def values(self, at: tuple[int, ...]) -> list[Triple]:
        """The elements of the window of an output, in their order."""
        w = self.window
        along = []
        for axis in range(3):
            first = at[axis] * w.stride[axis] - w.padding[axis]
            taps = (first + k * w.dilation[axis] for k in range(w.kernel[axis]))
            along.append([tap for tap in taps if 0 <= tap < self.shape[2 + axis]])
        return list(itertools.product(*along))  # type: ignore[arg-type]

    def divisor(self, at: tuple[int, ...]) -> int:
        w = self.window
        if w.divisor:
            return w.divisor
        if not w.include_pad:
            return max(1, len(self.values(at)))
        firsts = (at[axis] * w.stride[axis] - w.padding[axis] for axis in range(3))
        return int(np.prod([min(f + k, end) - f for f, k, end in zip(firsts, w.kernel, w.limit, strict=True)]))


def some_pooling(rng: np.random.Generator, dilated: bool) -> Pooling:
    """A random pooling whose windows each hold a value."""
    while True:
        shape = (int(rng.integers(1, 3)), int(rng.choice([1, 3, 64, 70])), *triple(rng, [1, 2, 3, 5, 7]))
        kernel, stride = triple(rng, [1, 2, 3, 5]), triple(rng, [1, 2, 3])
        dilation = triple(rng, [1, 1, 2]) if dilated else (1, 1, 1)
        padding = tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel)
        after = tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel)
        limit = tuple(n + pad for n, pad in zip(shape[2:], after, strict=True))
        ceil = int(rng.integers(2))
        size = [
            (limit[i] + padding[i] - dilation[i] * (kernel[i] - 1) - 1 + ceil * (stride[i] - 1)) // stride[i] + 1
            for i in range(3)
        ]
        # with ceil_mode the last window begins inside the input or its left padding
        size = [n - ((n - 1) * stride[i] >= shape[2 + i] + padding[i]) for i, n in enumerate(size)]
        window = Window(kernel, stride, padding, dilation, limit, bool(rng.integers(2)), int(rng.choice([0, 0, 7])))  # type: ignore[arg-type]
        pooling = Pooling(shape, window, tuple(size))  # type: ignore[arg-type]
        if min(size) > 0 and all(pooling.values(at) for at in np.ndindex(*size)):
            return pooling


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
def test_max_pooling_and_its_gradient_of_three_axes(dtype: str) -> None:
    rng = np.random.default_rng(13)
    for _ in range(CASES // 2):
        p = some_pooling(rng, True)
        x = integers(rng, p.shape, dtype, 9)
        if dtype == "float32":
            x[rng.random(p.shape) < 0.05] = np.nan
        expected = np.zeros((*p.shape[:2], *p.output_size), dtype)
        where = np.zeros(expected.shape, np.int64)
        for at in np.ndindex(*p.output_size):
            values = p.values(at)
            window = np.stack([x[(..., *v)] for v in values])
            best = window.argmax(0)  # NaN is the largest, and the first of equals counts
            expected[(..., *at)] = np.take_along_axis(window, best[None], 0)[0]
            where[(..., *at)] = np.ravel_multi_index(np.array(values).T, p.shape[2:])[best]
        code = STORAGE[np.dtype(dtype)]
        y, index = anywhere(np.zeros_like(expected), rng), anywhere(where + 1, rng)
        _native.pool("max", code, anywhere(x, rng), y, index, p.window, 2)
        np.testing.assert_array_equal(y, expected, err_msg=str(p))
        np.testing.assert_array_equal(index, where, err_msg=str(p))
        y[...] = 0
        _native.pool("max", code, anywhere(x, rng), y, None, p.window, 2)
        np.testing.assert_array_equal(y, expected)
        if dtype == "int16":
            continue
        dy = integers(rng, expected.shape, dtype)
        dx, flat = anywhere(np.zeros(p.shape, dtype), rng), np.zeros((*p.shape[:2], int(np.prod(p.shape[2:]))))
        for n, c in np.ndindex(*p.shape[:2]):
            np.add.at(flat[n, c], where[n, c].ravel(), dy[n, c].ravel())
        _native.pool("max_gradient", code, anywhere(dy, rng), dx, anywhere(where, rng), p.window, 2)
        np.testing.assert_array_equal(dx, flat.reshape(p.shape))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_average_pooling_and_its_gradient_of_three_axes(dtype: str) -> None:
    rng = np.random.default_rng(14)
    for number in range(CASES // 2):
        p = some_pooling(rng, False)
        if number == 0:  # more values than one running sum takes
            window = Window((5, 5, 5), (1, 1, 1), (2, 2, 2), (1, 1, 1), (9, 8, 9), True, 0)
            p = Pooling((1, 3, 7, 6, 7), window, (7, 6, 7))
        x, dy = integers(rng, p.shape, dtype, 9), integers(rng, (*p.shape[:2], *p.output_size), dtype)
        expected, gradient = np.zeros(dy.shape), np.zeros(p.shape)
        for at in np.ndindex(*p.output_size):
            for value in p.values(at):
                expected[(..., *at)] += x[(..., *value)]
                gradient[(..., *value)] += dy[(..., *at)] / p.divisor(at)
            expected[(..., *at)] /= p.divisor(at)
        code, tolerance = STORAGE[np.dtype(dtype)], 200 * np.finfo(dtype).eps
        y, dx = anywhere(np.zeros_like(dy), rng), anywhere(np.zeros(p.shape, dtype), rng)
        _native.pool("avg", code, anywhere(x, rng), y, None, p.window, 2)
        np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance, err_msg=str(p))
        _native.pool("avg_gradient", code, anywhere(dy, rng), dx, None, p.window, 2)
        np.testing.assert_allclose(dx, gradient, rtol=tolerance, atol=tolerance, err_msg=str(p))
