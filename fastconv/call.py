"""Convolutions resolved down to the numbers that the drivers take, waiting for their arrays.

A `Call` is made from a `Geometry` by the choices of `choice` and remembers its passes in native form, so that the same
convolution of other arrays is one step into native code. It holds numbers alone.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _native
from .activations import FUSED
from .choice import (
    EXCHANGE_LANES,
    EXCHANGE_LONG,
    IN_PLACE,
    LINE,
    LINE_EVEN,
    LINE_ODD,
    LONG_SUM,
    PANEL_BYTES,
    STRASSEN,
    WINOGRAD,
    WORKSPACE_BYTES,
    Blocking,
    Line,
    Pass,
    Strassen,
    Winograd,
    by_lanes,
    choose_algorithm,
    direct_blocking,
    exchange_pays,
    exchanged_passes,
    forward_passes,
    grain,
    input_gradient_passes,
    lane_blocking,
    lane_passes,
    lanes_idle,
    line_rows,
    merged_phases,
    panel_width,
    strassen_blocking,
    tap_spacing,
    useful_taps,
    walked_taps,
    walks_padding,
    winograd_blocking,
    winograd_kind,
)
from .geometry import Geometry

Array = NDArray[Any]

# Element types as the native code numbers them (fc_dtype, fc_compute in src/fastconv.h).
STORAGE = {
    np.dtype(name): code
    for code, name in enumerate(
        ["float32", "float64", "float16", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
    )
}
COMPUTE = {
    np.dtype("float32"): 0,
    np.dtype("float16"): 0,
    np.dtype("float64"): 1,
    np.dtype("int32"): 2,
    np.dtype("int64"): 3,
}
COMPUTE_DTYPES: list[np.dtype[Any]] = [np.dtype("float32"), np.dtype("float64"), np.dtype("int32"), np.dtype("int64")]
ACTIVATIONS: dict[str | None, int] = {None: 0} | FUSED
FINITE_AT_ONCE = 1 << 18  # weights looked at together
STREAMED_TILES = 4  # that pack the same weights again
MOST_EXCHANGED_GROUPS = 16  # each is a step into native code
MOST_LANES = 16  # of any instruction set's vectors
PADDING_MODES = {"zeros": 0, "reflect": 1, "replicate": 2, "circular": 3, "symmetric": 4}


# ---- what programs read ------------------------------------------------------------------------------------------


class Codes(NamedTuple):
    """What a program computes in (fc_compute), and the element types of its arrays (fc_dtype)."""

    compute: int
    input: int
    weight: int
    result: int


class Extent(NamedTuple):
    """What a program is laid over: channels of one group (the reduction and the outputs), planes, rows and columns."""

    groups: int
    channels: int
    outputs: int
    size: tuple[int, int, int]
    input_size: tuple[int, int, int]
    mode: int


class Taps(NamedTuple):
    """A `Pass` on three axes: planes, rows and columns."""

    taps: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    places: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    stride: tuple[int, int, int]
    phase: tuple[int, int, int]
    step: tuple[int, int, int]
    merge: tuple[int, int, int]


class Loops(NamedTuple):
    """Loop sizes of a pass of the direct driver."""

    source: int
    images: int
    tile: tuple[int, int, int]
    reduction: int
    panels_per_task: int
    streams: bool


def on_three_axes(p: Pass) -> Taps:
    return Taps(
        ((0,), p.tap_y, p.tap_x), ((0,), p.rows, p.columns), (1, *p.stride), (0, *p.phase), (1, *p.step), (1, *p.merge)
    )


class Programs:
    """The direct program of some passes, for each triple of element types that it meets."""

    def __init__(
        self, compute: int, extent: Extent, passes: tuple[Taps, ...], loops: tuple[Loops, ...],
        in_place: tuple[Loops | None, ...], transposed: bool,
    ) -> None:  # fmt: skip
        self._made_of = (extent, passes, loops, in_place, transposed)
        self._compute = compute
        result = COMPUTE_DTYPES[compute]
        read = STORAGE[np.dtype("int8") if compute == COMPUTE[np.dtype("int32")] else result]  # a type that there is
        self._made: dict[tuple[int, int, int], _native.Direct] = {}
        self.native = self._make(read, read, STORAGE[result])

    def _make(self, x: int, weight: int, result: int) -> _native.Direct:
        codes = (x, weight, result)
        return self._made.setdefault(codes, _native.Direct(Codes(self._compute, *codes), *self._made_of))

    def of(self, x: Array, weight: Array, result: Array) -> _native.Direct:
        """The program for arrays of these types."""
        codes = (STORAGE[x.dtype], STORAGE[weight.dtype], STORAGE[result.dtype])
        return self._made.get(codes) or self._make(*codes)

    def alone(self, i: int) -> Programs:
        """The programs of pass i alone."""
        extent, passes, loops, in_place, transposed = self._made_of
        part = slice(i, i + 1)
        return Programs(self._compute, extent, passes[part], loops[part], in_place[part], transposed)


# ---- packed weights ----------------------------------------------------------------------------------------------


def _aligned(count: int) -> Array:
    """`count` bytes on a 64-byte boundary."""
    raw = np.empty(count + 64, np.uint8)
    shift = -raw.ctypes.data % 64
    return raw[shift : shift + count]


class PackedWeights(NamedTuple):
    """The weights of one pass in panels, whether all are finite, and what a fast algorithm makes of them."""

    panels: Array
    finite: bool
    transformed: Array | None

    def aligned(self) -> PackedWeights:
        """The same in memory that the kernels may read: what a pickle gives lies anywhere."""

        def copied(array: Array) -> Array:
            made = _aligned(array.size)
            made[...] = array
            return made

        return PackedWeights(
            copied(self.panels), self.finite, None if self.transformed is None else copied(self.transformed)
        )


def _pack_lanes(
    rows: tuple[int, ...], columns: tuple[int, ...], weight: Array, groups: int, transposed: bool, compute: int,
    threads: int,
) -> PackedWeights:
    """Pack every output channel beside the next, as one group: [tap y][channel of its group][tap x][lane]."""
    if transposed and weight.shape[:2] != (groups, 1):
        channels, outputs = weight.shape[0] // groups, weight.shape[1] * groups
        panels = _aligned(_native.packed_bytes(compute, 1, len(rows) * len(columns), channels, outputs))
        team = threads if panels.size > 1 << 16 else 1
        _native.pack_lane_weights(compute, weight, STORAGE[weight.dtype], panels, groups, rows, columns, team)
        return PackedWeights(panels, True, None)
    outputs, channels = weight.shape[:2]
    panels = _aligned(_native.packed_bytes(compute, 1, len(rows) * len(columns), channels, outputs))
    team = threads if panels.size > 1 << 16 else 1
    if channels == 1:
        finite = _native.pack_weights(compute, weight, STORAGE[weight.dtype], panels, 1, False, (rows, columns), team)
        return PackedWeights(panels, finite, None)
    # channels and columns change places, and with them the order of the sums
    every = tuple(range(weight.shape[3]))
    if columns == every[::-1]:
        weight = weight[..., ::-1]
    elif columns != every:
        weight = weight[..., columns]
    weight = weight.swapaxes(1, 3)
    finite = _native.pack_weights(
        compute, weight, STORAGE[weight.dtype], panels, 1, False, (rows, tuple(range(channels))), team
    )
    return PackedWeights(panels, finite, None)


def prepare(
    p: Pass, weight: Array, groups: int, transposed: bool, compute: int, threads: int, lanes: bool,
    transform: Winograd | Strassen | Line | None = None,
) -> PackedWeights:
    """The weights of one pass packed for many runs, by `lanes` or in panels, and for a fast algorithm transformed."""
    outputs, channels = weight.shape[0] // groups, weight.shape[1]
    if transposed:
        outputs, channels = channels, outputs
    if lanes:
        return _pack_lanes(p.rows, p.columns, weight, groups, transposed, compute, threads)
    count = _native.packed_bytes(compute, groups, len(p.rows) * len(p.columns), channels, outputs)
    packed = _aligned(count)
    team = threads if count > 1 << 16 else 1
    finite = _native.pack_weights(
        compute, weight, STORAGE[weight.dtype], packed, groups, transposed, (p.rows, p.columns), team
    )
    if not finite or transform is None:
        return PackedWeights(packed, finite, None)
    if isinstance(transform, Line):
        transformed = _line_weights(p, weight, compute, team)
    elif isinstance(transform, Strassen):
        transformed = _aligned(count // transform.side**2 * transform.products)
        _native.strassen_weights(compute, transform.levels, packed, transformed, channels, outputs, team)
    else:
        transformed = _aligned(count // transform.taps**2 * transform.weights**2)
        _native.winograd_weights(compute, transform.number, packed, transformed, channels, outputs, team)
    return PackedWeights(packed, finite, transformed)


def _line_weights(p: Pass, weight: Array, compute: int, team: int) -> Array:
    """The packed weights of the elements of Winograd along rows, one after the other; transformed in float64."""
    w = weight[:, :, p.rows][..., p.columns].astype(np.float64)
    elements = np.concatenate([w[..., ::2] @ LINE_EVEN.T, w[..., 1::2] @ LINE_ODD.T], axis=3)
    with np.errstate(over="ignore"):  # an infinity is noticed in the outputs
        elements = elements.astype(np.float32)
    count = _native.packed_bytes(compute, 1, len(p.rows), weight.shape[1], weight.shape[0])
    packed = _aligned(elements.shape[3] * count)
    rows = tuple(range(len(p.rows)))
    for e in range(elements.shape[3]):
        one = np.ascontiguousarray(elements[..., e : e + 1])
        _native.pack_weights(
            compute, one, STORAGE[one.dtype], packed[e * count : (e + 1) * count], 1, False, (rows, (0,)), team
        )
    return packed


def _merged_weights(merged: Pass, passes: tuple[Pass, ...], weight: Array) -> Array:
    """The weights of an input gradient's phases side by side, (O, phases x I, taps y, taps x), zero where a phase has
    no tap."""
    reduction, outputs = weight.shape[:2]
    together = np.zeros((reduction, *merged.merge, outputs, len(merged.rows), len(merged.columns)), weight.dtype)
    for p in passes:
        rows = [merged.tap_y.index(tap) for tap in p.tap_y]
        columns = [merged.tap_x.index(tap) for tap in p.tap_x]
        own = weight[:, :, p.rows][..., p.columns]
        together[:, p.phase[0], p.phase[1]][:, :, np.array(rows, int)[:, None], columns] = own
    return together.reshape(reduction, len(passes) * outputs, len(merged.rows), len(merged.columns))


# ---- calls ------------------------------------------------------------------------------------------------------


class Operands(NamedTuple):
    """What a call computes with: arrays in the logical axis order or, `channels_last`, as `Call.run` takes them."""

    weight: Array
    x: Array
    out: Array
    bias: Array | None
    residual: Array | None
    activation: int
    packed: PackedWeights | None
    channels_last: bool

    @property
    def size(self) -> tuple[int, int, int]:
        """(batch, height, width) of the output."""
        n, *rest = self.out.shape
        return (n, rest[0], rest[1]) if self.channels_last else (n, rest[1], rest[2])

    def logical(self) -> Operands:
        """The same in the logical axis order."""
        if not self.channels_last:
            return self
        residual = None if self.residual is None else self.residual.transpose(0, 3, 1, 2)
        return self._replace(
            weight=self.weight.transpose(3, 2, 0, 1), x=self.x.transpose(0, 3, 1, 2),
            out=self.out.transpose(0, 3, 1, 2), residual=residual, channels_last=False,
        )  # fmt: skip

    def phase(self, first: tuple[int, int], step: tuple[int, int]) -> Operands:
        """Every `step`-th row and column of the outputs from `first` on, in the logical axis order."""
        to = np.s_[:, :, first[0] :: step[0], first[1] :: step[1]]
        return self._replace(out=self.out[to], residual=None if self.residual is None else self.residual[to])

    def images(self, part: slice) -> Operands:
        """Some images of the batch."""
        return self._replace(
            x=self.x[part], out=self.out[part], residual=None if self.residual is None else self.residual[part]
        )


class Call(NamedTuple):
    """A convolution or an input gradient resolved to the numbers that the drivers take; it waits for its arrays."""

    algorithm: str
    reason: str
    passes: tuple[Pass, ...]
    transposed: bool
    channels: int  # of one group, as the passes see them: the reduction
    outputs: int
    groups: int
    mode: int
    compute: int
    threads: int
    lanes: bool  # by the depthwise kernels, with a lane an output channel
    patches: _native.DepthwisePatches | None  # of a depthwise call whose arrays may be read and written in place
    packs: bool  # a panel is so large that weights are packed before, even for one run
    streams: bool  # unless all are finite: then they may be packed block by block
    covers: bool  # every output belongs to a pass
    direct: Programs | None  # of the direct kernels
    merged: Pass | None  # all passes as one
    merged_direct: Programs | None
    exchanged: Call | None = None  # of one group, the kernel as the image: for a single run of the planned batch
    point: Call | None = None  # of a single pixel under a kernel: every tap of every output an output of its own
    whole: bool = False  # pieces of the image that are computed apart have other bits then

    def run(
        self,
        weight: Array,
        x: Array,
        out: Array,
        bias: Array | None,
        residual: Array | None = None,
        activation: int = 0,
        packed: PackedWeights | None = None,
        channels_last: bool = False,
        pool: bool = False,
    ) -> None:
        """Compute `out`; arrays in the logical axis order or, `channels_last`, as (N, H, W, C) and (kH, kW, I, O).

        Of a `packed` weight the array gives the shape alone. With `pool`, `out` receives the largest of every 2 x 2
        outputs; `ConvPlan.pools` says when that may be asked for.
        """
        if packed is None and (self.point or self.exchanged):
            a = Operands(weight, x, out, bias, residual, activation, None, channels_last).logical()
            if self.point and _run_point(self.point, a):
                return
            if self.exchanged and self.exchanges(x, bias, residual):
                self._run_exchanged(self.exchanged, a)
                return
        if self.algorithm in STRASSEN:
            self._run_strassen(Operands(weight, x, out, bias, residual, activation, packed, channels_last))
            return
        if self.algorithm in LINE:
            self._run_line(Operands(weight, x, out, bias, residual, activation, packed, channels_last))
            return
        if self.algorithm in WINOGRAD and (packed is None or packed.finite):
            self._run_winograd(Operands(weight, x, out, bias, residual, activation, packed, channels_last), pool)
            return
        if self.lanes:
            self._run_lanes(weight, x, out, bias, residual, activation, packed, channels_last)
            return
        if self.merged and packed is None and residual is None:
            self._run_merged(self.merged, weight, x, out, bias, activation, channels_last)
            return
        if self.direct:
            self.direct.of(x, weight, out).run(
                x, weight, packed, bias, residual, out, activation, channels_last, self.threads
            )

    def _run_merged(
        self,
        merged: Pass,
        weight: Array,
        x: Array,
        out: Array,
        bias: Array | None,
        activation: int,
        channels_last: bool,
    ) -> None:
        """All phases in one pass; an image where an infinity or NaN may have met another phase's zeros, apart.

        Infinity times zero is NaN, which every activation and the image's sum hand on.
        """
        if channels_last:
            x, out, weight = x.transpose(0, 3, 1, 2), out.transpose(0, 3, 1, 2), weight.transpose(3, 2, 0, 1)
        together = _merged_weights(merged, self.passes, weight)
        assert self.merged_direct is not None
        self.merged_direct.of(x, together, out).run(
            x, together, None, bias, None, out, activation, False, self.threads
        )
        if out.dtype.kind != "f":
            return
        with np.errstate(all="ignore"):
            sums = out.sum((1, 2, 3), dtype=np.promote_types(out.dtype, np.float32))
        apart = self._replace(merged=None)
        for n in np.flatnonzero(np.isnan(sums)):
            apart.run(weight, x[n : n + 1], out[n : n + 1], bias, None, activation)

    def products(self, images: int, size: tuple[int, int], input_size: tuple[int, int]) -> int:
        """Multiply-adds of the direct kernels for so many images of outputs of `size`: taps that meet padding alone are
        left out, in rectangles of pixels one by one, else of a whole tile."""
        total = 0
        for i, p in enumerate(self.passes):
            own = p.output_size(size)
            tile = self.direct.native.blocking(i)[2][1:] if self.direct else (1, 1)
            taps = prod(own) * len(p.rows) * len(p.columns)
            if not self.mode:
                axes = zip((p.tap_y, p.tap_x), p.stride, own, input_size, tile, strict=True)
                taps = prod(walked_taps(*axis) for axis in axes)
            total += images * taps * self.groups * self.channels * self.outputs
        return total

    def exchanges(self, x: Array, bias: Array | None, residual: Array | None) -> bool:
        """Whether a single run lays the image over the kernel."""
        return (
            self.exchanged is not None
            and x.shape[0] == self.exchanged.outputs
            and (bias is None or residual is None)
        )

    def _run_exchanged(self, exchanged: Call, a: Operands) -> None:
        """With the kernel as the image, a group after the other: its outputs in the place of the batch and the batch in
        that of the outputs. The bias, one number an image then, is what a residual is."""
        residual, batch = a.residual, a.weight.shape[0]
        if a.bias is not None:
            bias: Array = a.bias.astype(a.out.dtype)
            residual = np.broadcast_to(bias[:, None, None], a.out.shape)
        weight = a.weight if self.transposed else a.weight[:, :, ::-1, ::-1]
        for group in range(self.groups):
            outputs = np.s_[:, group * self.outputs : (group + 1) * self.outputs]
            rows = batch // self.groups
            own = weight[group * rows : (group + 1) * rows]
            run_once(
                exchanged, a.x[:, group * self.channels : (group + 1) * self.channels],
                own.swapaxes(0, 1) if self.transposed else own, a.out[outputs].swapaxes(0, 1), None,
                None if residual is None else residual[outputs].swapaxes(0, 1), a.activation,
            )  # fmt: skip

    def _run_lanes(
        self,
        weight: Array,
        x: Array,
        out: Array,
        bias: Array | None,
        residual: Array | None,
        activation: int,
        packed: PackedWeights | None,
        channels_last: bool,
    ) -> None:
        if packed is None:
            _, rows, columns, _ = lane_passes(self.passes)
            logical = weight.transpose(3, 2, 0, 1) if channels_last else weight
            packed = _pack_lanes(rows, columns, logical, self.groups, self.transposed, self.compute, self.threads)
        if self.patches and residual is None and self.patches.run(
            x, STORAGE[x.dtype], packed.panels, bias, out, STORAGE[out.dtype], activation, channels_last, self.threads
        ):
            return
        native, rows, columns, p = lane_passes(self.passes)
        size = out.shape[1:3] if channels_last else out.shape[2:]
        own = p.output_size((size[0], size[1]))
        macs = out.shape[0] * prod(own) * self.groups * self.outputs * self.channels * len(rows) * len(columns)
        team = _native.threads_for(4 * macs, self.threads)  # bound by memory more than by arithmetic
        stride = x.strides[3 if channels_last else 1]
        in_place = (
            self.channels == self.outputs == 1
            and not self.mode
            and stride == x.itemsize
            and x.dtype == COMPUTE_DTYPES[self.compute]
        )
        chunk = _native.lane_chunk(self.compute)
        b = lane_blocking(p, self.channels, self.outputs, self.groups, own, chunk, team, in_place)
        _native.depthwise(
            self.compute, x, STORAGE[x.dtype], packed.panels, bias, out, STORAGE[out.dtype], residual, activation,
            channels_last, self.groups, native, len(rows), len(columns), *p.stride, *p.step, self.mode, *b.tile,
            b.chunks_per_task, team,
        )  # fmt: skip

    def _run_strassen(self, a: Operands) -> None:
        kind = STRASSEN[self.algorithm]
        (p,) = self.passes
        a, transformed = self._transformed(a, kind)
        if transformed is None:
            self._run_direct(a)
            return
        own = a if p.step == (1, 1) else a.logical().phase(p.phase, p.step)
        batch, height, width = own.size
        b = strassen_blocking(
            kind, self.channels, self.outputs, batch, height * width, _native.tile_shape(self.compute), self.threads
        )
        bad = _native.strassen(
            self.compute, kind.levels, own.x, STORAGE[own.x.dtype], transformed, a.bias, own.out,
            STORAGE[own.out.dtype], own.residual, a.activation, p.stride, (p.tap_y[0], p.tap_x[0]), self.mode, b.tiles,
            b.part, b.reduction, b.panels_per_task, own.channels_last, self.threads,
        )  # fmt: skip
        self._repair(a, bad)

    def _run_line(self, a: Operands) -> None:
        (p,) = self.passes
        a, transformed = self._transformed(a, LINE[self.algorithm])
        if transformed is None:
            self._run_direct(a)
            return
        _, height, width = a.size
        rows, _ = line_rows(
            p, self.channels, self.outputs, (height, width), _native.tile_shape(self.compute), self.threads
        )
        bad = _native.winograd_line(
            self.compute, a.x, STORAGE[a.x.dtype], transformed, a.bias, a.out, STORAGE[a.out.dtype], a.residual,
            a.activation, len(p.tap_y), p.stride[0], p.tap_y[0], p.tap_x[0], rows, a.channels_last, self.threads,
        )  # fmt: skip
        self._repair(a, bad)

    def _transformed(self, a: Operands, kind: Strassen | Line) -> tuple[Operands, Array | None]:
        """What a fast algorithm makes of the weights, held by a plan or made now; None where one is not finite."""
        packed = a.packed
        if packed is None:
            a = a.logical()
            packed = prepare(
                self.passes[0], a.weight, 1, self.transposed, self.compute, self.threads, False, kind
            )
            a = a._replace(packed=packed)
        return a, packed.transformed

    def _repair(self, a: Operands, bad: bytes | None) -> None:
        """Compute the images that have an output that is not finite, where `bad` is 1, again."""
        if bad is None:
            return
        a = a.logical()
        for n in np.flatnonzero(np.frombuffer(bad, np.uint8)):
            self._run_direct(a.images(slice(n, n + 1)))

    def _run_direct(self, a: Operands) -> None:
        self._replace(algorithm="direct").run(
            a.weight, a.x, a.out, a.bias, a.residual, a.activation, a.packed, a.channels_last
        )

    def _run_winograd(self, a: Operands, pool: bool) -> None:
        if len(self.passes) > 1 or self.passes[0].step != (1, 1) or tap_spacing(self.passes[0]) != (1, 1):
            a = a.logical()
        for p in self.passes:
            if p.step == (1, 1):
                self._run_winograd_pass(p, a, pool)
            else:
                self._run_winograd_pass(p, a.phase(p.phase, p.step), False)

    def _run_winograd_pass(self, p: Pass, a: Operands, pool: bool) -> None:
        """A pass into its own outputs, a phase of the dilation after the other."""
        spacing = tap_spacing(p)
        if spacing == (1, 1):
            self._run_winograd_phase(p, a, pool)
            return
        for py in range(min(spacing[0], a.out.shape[2])):
            for px in range(min(spacing[1], a.out.shape[3])):
                y0, x0 = py + p.tap_y[0], px + p.tap_x[0]  # the first tap of the phase's first output
                part = p._replace(
                    tap_y=tuple(y0 // spacing[0] + i for i in range(3)),
                    tap_x=tuple(x0 // spacing[1] + i for i in range(3)),
                )
                own = a.x[:, :, y0 % spacing[0] :: spacing[0], x0 % spacing[1] :: spacing[1]]
                self._run_winograd_phase(part, a.phase((py, px), spacing)._replace(x=own), False)

    def _run_winograd_phase(self, p: Pass, a: Operands, pool: bool) -> None:
        """A pass whose taps lie side by side."""
        kind = winograd_kind(self.algorithm, p)
        assert kind is not None
        batch, height, width = a.size
        size = (height << pool, width << pool)
        panels, transformed = (None, None) if a.packed is None else (a.packed.panels, a.packed.transformed)
        b = winograd_blocking(
            kind, self.channels, self.outputs, (batch, *size), _native.tile_shape(self.compute), self.threads,
            transformed is not None,
        )  # fmt: skip
        bad = _native.winograd(
            self.compute, kind.number, a.x, STORAGE[a.x.dtype], a.weight, STORAGE[a.weight.dtype], panels, transformed,
            self.transposed, p.rows, p.columns, a.bias, a.out, STORAGE[a.out.dtype], a.residual, a.activation,
            p.tap_y[0], p.tap_x[0], self.mode, pool, b.few, b.tiles, b.reduction, b.slice, b.panels_per_task,
            a.channels_last, self.threads,
        )  # fmt: skip
        if bad is None:
            return
        tile, a = kind.tile, a.logical()
        for n, row in np.argwhere(np.frombuffer(bad, np.uint8).reshape(batch, -1)):  # rows of tiles that have one
            part = slice(tile * row, tile * row + tile)
            rows = a.out[n : n + 1, :, part]
            if pool:
                rows = np.empty((1, a.out.shape[1], min(tile, size[0] - tile * int(row)), size[1]), a.out.dtype)
            down = tile * kind.stride * int(row)
            shifted = p._replace(tap_y=tuple(tap + down for tap in p.tap_y), phase=(0, 0), step=(1, 1))
            direct = _direct_programs(
                (shifted,), self.channels, self.outputs, 1, rows.shape[2:], a.x.shape[2:], self.mode, self.compute,
                self.threads, self.transposed,
            )  # fmt: skip
            residual = None if a.residual is None else a.residual[n : n + 1, :, part]
            direct.of(a.x, a.weight, rows).run(
                a.x[n : n + 1], a.weight, a.packed, a.bias, residual, rows, a.activation, False, self.threads
            )
            if pool:
                fours = rows.reshape(1, rows.shape[1], rows.shape[2] // 2, 2, size[1] // 2, 2)
                a.out[n : n + 1, :, part.start // 2 : part.start // 2 + fours.shape[2]] = fours.max((3, 5))


def _terms(p: Pass, channels: int) -> int:
    """Terms of a sum, those over padding counted."""
    return len(p.rows) * len(p.columns) * channels


def _spreads_a_point(g: Geometry) -> bool:
    """Whether an input gradient (a transposed convolution) lays the whole kernel down once, at a single pixel."""
    return (
        g.groups == 1
        and g.output_size == (1, 1)
        and g.input_size == g.kernel_size
        and all(pad[0] == 0 for pad in g.padding)
        and all(dilation == 1 or kernel == 1 for dilation, kernel in zip(g.dilation, g.kernel_size, strict=True))
    )


def _panel_bytes(p: Pass, channels: int, outputs: int, compute: int) -> int:
    """Bytes of the widest panel of a pass."""
    taps = len(p.rows) * len(p.columns)
    return _native.packed_bytes(compute, 1, taps, channels, panel_width(compute, outputs))


def _most_panel_bytes(threads: int) -> int:
    """Up to here a thread packs a panel for itself: beside it, it holds a region and sums."""
    return min(PANEL_BYTES, WORKSPACE_BYTES // threads * 2 // 3)


def _run_point(call: Call, a: Operands) -> bool:
    """A product of matrices: images x channels by channels x (output, tap), each (output, tap) a value of the result.

    False where the arrays do not lie so that outputs and taps are one axis.
    """
    count, taps, last = len(a.weight), prod(a.weight.shape[2:]), (0, 2, 3, 1)
    for order in ((0, 1, 2, 3), last):  # as in (N, C, H, W), as in (N, H, W, C)
        weight, out = a.weight.transpose(order), a.out.transpose(order)
        rows = call.direct.native.shape()[1] if call.direct else -1
        if not (_merges(weight) and _merges(out)) or a.residual is not None or len(a.x) != rows:
            continue
        bias = a.bias if a.bias is None else np.tile(a.bias, taps) if order == last else np.repeat(a.bias, taps)
        call.run(
            weight.reshape(count, -1).T[:, :, None, None], a.x[:, :, 0, 0].T[None, :, :, None],
            out.reshape(len(out), -1).T[None, :, :, None], bias_for(bias, call.compute), None, a.activation,
        )  # fmt: skip
        return True
    return False


def _merges(array: Array) -> bool:
    """Whether all axes but the first are one without a copy."""
    step, contiguous = array.strides[3], True
    for axis in (2, 1):
        step *= array.shape[axis + 1]
        contiguous = contiguous and array.strides[axis] == step
    return contiguous


def _direct_programs(
    passes: tuple[Pass, ...],
    channels: int,
    outputs: int,
    groups: int,
    size: tuple[int, ...],
    input_size: tuple[int, ...],
    mode: int,
    compute: int,
    threads: int,
    transposed: bool,
    images: int = 1,
    prepared: bool = False,
) -> Programs:
    """The passes into an output of `size`, and for each the one that reads its input in place, where it could."""

    def loops(p: Pass, in_place: bool) -> Loops:
        own = p.output_size((size[0], size[1]))
        macs = max(1, images) * prod(own) * channels * outputs * groups * len(p.rows) * len(p.columns)
        team = _native.threads_for(macs, threads)
        extent = (input_size[0], input_size[1])
        b = direct_blocking(
            p, channels, outputs, groups, own, extent, compute, team, in_place, images, prepared, mode == 0
        )
        return Loops(b.source, b.images, (1, *b.tile), b.reduction, b.panels_per_task, streams(p, b, own))

    def streams(p: Pass, b: Blocking, own: tuple[int, int]) -> bool:
        """Whether so large a panel serves so few tiles that it is not worth its memory."""
        tiles = -(-images // b.images) * prod(-(-n // tile) for n, tile in zip(own, b.tile, strict=True))
        return b.source != IN_PLACE and tiles <= STREAMED_TILES and _panel_bytes(p, channels, outputs, compute) > most

    most = _most_panel_bytes(threads)

    def inside(p: Pass) -> bool:
        """One tap and nothing padded."""
        own = p.output_size((size[0], size[1]))
        return len(p.tap_y) == len(p.tap_x) == 1 and all(
            tap[0] >= 0 and tap[0] + (count - 1) * stride < extent
            for tap, count, stride, extent in zip((p.tap_y, p.tap_x), own, p.stride, input_size, strict=True)
        )

    return Programs(
        compute,
        Extent(groups, channels, outputs, (1, size[0], size[1]), (1, input_size[0], input_size[1]), mode),
        tuple(map(on_three_axes, passes)),
        tuple(loops(p, False) for p in passes),
        tuple(loops(p, True) if inside(p) else None for p in passes),
        transposed,
    )


def _depthwise_patches(passes: tuple[Pass, ...], compute: int) -> _native.DepthwisePatches | None:
    """The depthwise passes patch by patch, where there are kernels for them."""
    native, rows, columns, p = lane_passes(passes)
    patches = _native.DepthwisePatches(compute, native, len(rows), len(columns), *p.stride, *p.step)
    return patches if patches.usable() else None


def _call(
    passes: list[Pass],
    transposed: bool,
    channels: int,
    outputs: int,
    groups: int,
    size: tuple[int, int],
    input_size: tuple[int, int],
    padding_mode: str,
    dtype: np.dtype[Any],
    algorithm: str,
    purpose: str,
    threads: int,
    images: int,
) -> Call:
    mode = PADDING_MODES[padding_mode]
    compute = COMPUTE[dtype]
    kept = tuple(p for p in passes if 0 not in p.output_size(size))
    how, reason = ("direct", "nothing to compute")
    if kept:
        how, reason = choose_algorithm(
            kept, channels, outputs, groups, size, dtype, algorithm, padding_mode, purpose
        )
    lanes = bool(kept) and all(by_lanes(p, channels, outputs, groups, compute) for p in kept)
    lanes = lanes and (mode != 0 or not lanes_idle(kept, channels, input_size))
    if how == "direct" and mode == 0 and not lanes:  # where the blocks of long sums begin must not depend on the image
        kept = tuple(p if _terms(p, channels) >= LONG_SUM else useful_taps(p, size, input_size) for p in kept)
    direct = None
    if kept and not lanes:
        direct = _direct_programs(
            kept, channels, outputs, groups, size, input_size, mode, compute, threads, transposed, images,
            purpose in ("plan", "network"),
        )  # fmt: skip
    most = _most_panel_bytes(threads)
    packs = not lanes and any(_panel_bytes(p, channels, outputs, compute) > most for p in kept)
    merged = merged_phases(kept, outputs, groups, compute) if transposed and how == "direct" and not lanes else None
    merged_direct = None
    if merged:
        merged_direct = _direct_programs(
            (merged,), channels, outputs * len(kept), 1, size, input_size, mode, compute, threads, True, images
        )
    patches = _depthwise_patches(kept, compute) if lanes and channels == outputs == 1 and not mode else None
    covers = sum(prod(p.output_size(size)) for p in kept) == prod(size)
    return Call(
        how, reason, kept, transposed, channels, outputs, groups, mode, compute, threads, lanes, patches, packs,
        direct is not None and direct.native.streams(), covers, direct, merged, merged_direct,
    )  # fmt: skip


def _exchanged(call: Call, g: Geometry, gradient: bool, dtype: np.dtype[Any], algorithm: str) -> Call:
    """The call with what a single run does instead where the kernel is larger than what it is laid over."""
    size, input_size = (g.input_size, g.output_size) if gradient else (g.output_size, g.input_size)
    if (
        call.algorithm != "direct"
        or call.mode
        or call.lanes
        or g.groups > MOST_EXCHANGED_GROUPS
        or 0 in (g.batch, call.channels, call.outputs, *size, *input_size, *g.kernel_size)
        or not any(walks_padding(p, p.output_size(size), input_size, p.output_size(size)) for p in call.passes)
    ):
        return call
    passes = exchanged_passes(g, gradient)
    if gradient and _spreads_a_point(g):
        long = any(_terms(p, call.channels) >= LONG_SUM for p in call.passes)
        if not long or algorithm == "auto":
            rows = (g.batch, 1)
            flat = Pass((0,), (0,), (0,), (0,), (1, 1), (0, 0), (1, 1))
            other = _call(
                [flat], False, call.channels, call.outputs * prod(g.kernel_size), 1, rows, rows, "zeros", dtype,
                "direct", "call", call.threads, 1,
            )  # fmt: skip
            call = call._replace(point=other, whole=long)
    long = any(_terms(p, call.channels) >= LONG_SUM for p in (*call.passes, *passes))
    if long and (algorithm != "auto" or prod(g.kernel_size) < EXCHANGE_LONG * prod(input_size)):
        return call  # the blocks of a long direct sum begin at the same terms in calls, plans and pieces of an image
    images = EXCHANGE_LANES if long else g.batch
    tile = _native.tile_shape(call.compute)
    if not exchange_pays(
        call.passes, passes, call.channels, call.outputs, size, input_size, g.kernel_size, images, tile
    ):
        return call
    other = _call(
        passes, False, call.channels, g.batch, 1, size, g.kernel_size, "zeros", dtype, "direct", "call", call.threads,
        call.outputs,
    )  # fmt: skip
    return call._replace(exchanged=other, whole=long or call.whole)


# Calls hold numbers alone, a few kilobytes each, and are forgotten oldest first.
@lru_cache(maxsize=256)
def _forward_call(
    g: Geometry, dtype: np.dtype[Any], algorithm: str, purpose: str, threads: int, isa: int
) -> Call:
    call = _call(
        forward_passes(g), False, g.in_channels // g.groups, g.out_channels // g.groups, g.groups, g.output_size,
        g.input_size, g.padding_mode, dtype, algorithm, purpose, threads, g.batch,
    )  # fmt: skip
    return call if purpose in ("plan", "network") else _exchanged(call, g, False, dtype, algorithm)


@lru_cache(maxsize=256)
def _input_gradient_call(g: Geometry, dtype: np.dtype[Any], algorithm: str, threads: int, isa: int) -> Call:
    call = _call(
        input_gradient_passes(g), True, g.out_channels // g.groups, g.in_channels // g.groups, g.groups, g.input_size,
        g.output_size, "zeros", dtype, algorithm, "call", threads, g.batch,
    )  # fmt: skip
    return _exchanged(call, g, True, dtype, algorithm)


def forward_call(g: Geometry, dtype: np.dtype[Any], algorithm: str, threads: int, purpose: str = "call") -> Call:
    """The convolution of `g` with results of `dtype`; `purpose` as `choose_algorithm` takes it."""
    return _forward_call(g, dtype, algorithm, purpose, threads, _native.isa_number())


def input_gradient_call(g: Geometry, dtype: np.dtype[Any], algorithm: str, threads: int) -> Call:
    """The input gradient of `g`, which is also the transposed convolution, with results of `dtype`."""
    return _input_gradient_call(g, dtype, algorithm, threads, _native.isa_number())


def pieces(
    g: Geometry, dtype: np.dtype[Any], algorithm: str, threads: int, gradient: bool = False
) -> tuple[str, tuple[int, int]]:
    """(the algorithm, the grain as `choice.grain` has it) for pieces of the outputs that have the bits of the whole."""
    g = g._replace(batch=max(1, g.batch))
    call = (input_gradient_call if gradient else forward_call)(g, dtype, algorithm, threads)
    if call.whole:
        size = g.input_size if gradient else g.output_size
        return algorithm, (max(1, size[0]), max(1, size[1]))
    return call.algorithm, grain(call.algorithm, g, gradient)


def _finite(weight: Array) -> bool:
    """Whether all weights are finite, with hardly any memory beside them."""
    if weight.dtype.kind != "f":
        return True
    step = max(1, FINITE_AT_ONCE // max(1, prod(weight.shape[2:])))
    return all(
        np.isfinite(one[first : first + step]).all() for one in weight for first in range(0, weight.shape[1], step)
    )


def run_once(
    call: Call, weight: Array, x: Array, out: Array, bias: Array | None, residual: Array | None, activation: int
) -> None:
    """Run a call with weights as they lie, packed panel by panel on the way unless a panel is too large for that."""
    if out.size == 0:
        return
    if not call.packs or call.exchanges(x, bias, residual) or (call.streams and _finite(weight)):
        call.run(weight, x, out, bias, residual, activation)
        return
    for i, p in enumerate(call.passes):
        packed = prepare(p, weight, call.groups, call.transposed, call.compute, call.threads, call.lanes)
        direct = call.direct and call.direct.alone(i)
        call._replace(passes=(p,), direct=direct).run(weight, x, out, bias, residual, activation, packed)


def bias_for(bias: Array | None, compute: int) -> Array | None:
    """The bias in the computing type, aligned, in memory that vectors may be read from up to its end."""
    if bias is None:
        return None
    dtype = COMPUTE_DTYPES[compute]
    if bias.dtype == dtype and bias.flags.c_contiguous and bias.flags.aligned and bias.size % MOST_LANES == 0:
        return bias
    padded = np.zeros(-(-bias.size // MOST_LANES) * MOST_LANES, dtype)
    padded[: bias.size] = bias
    return padded[: bias.size]
