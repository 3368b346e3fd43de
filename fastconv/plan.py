"""How a convolution will be done: the algorithm, the blocking, the packed weights and the scratch memory.

`functional` hands down validated four-axis arrays in the logical order (batch, channel, height, width), whatever
their strides; this module turns a `Geometry` into passes of the native drivers. Every choice is a pure function of
shapes, element type, instruction set and allowed threads, and none depends on the batch size, so that a batch
computed in slices has the same bits.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _native
from .arrays import as_array, destination, layout, lies_channels_last
from .choice import (
    PARTIAL_SUMS_BYTES,
    SOURCES,
    Pass,
    by_lanes,
    choose_algorithm,
    direct_blocking,
    forward_passes,
    input_gradient_passes,
    lane_blocking,
    lane_gradient_parts,
    lane_passes,
    threads_for,
    weight_gradient_blocking,
    why_not_winograd,
    winograd_blocking,
    winograd_gradient_blocking,
)
from .errors import ConvError, ConvTypeError
from .geometry import Geometry, PoolGeometry, padded_index
from .integers import Checked, fits_signed, largest, run_checked

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
ACTIVATIONS = {None: 0, "relu": 1, "relu6": 2, "leaky_relu": 3, "silu": 4, "sigmoid": 5, "hardswish": 6}
PADDING_MODES = {"zeros": 0, "reflect": 1, "replicate": 2, "circular": 3, "symmetric": 4}


def _select_isa() -> None:
    """Honour FASTCONV_ISA at import."""
    name = os.environ.get("FASTCONV_ISA", "").strip().lower()
    if name and not _native.isa_use(name):
        built, offered = _native.isas_built(), _native.isas_available()
        why = "this machine does not offer it" if name in built else "it was not built"
        raise ImportError(
            f"FASTCONV_ISA={name}: {why}. Built: {', '.join(built)}; offered here: {', '.join(offered)}. "
            "Choose one of the latter or unset FASTCONV_ISA."
        )


_select_isa()


@dataclass(frozen=True, slots=True)
class ConvExplanation:
    """What a convolution will do, and why. `macs` counts the multiply-adds of one call by definition."""

    algorithm: str
    isa: str
    dtype: str
    threads: int
    tile: tuple[int, int]  # output pixels computed together
    block: str  # what a task works through at a time
    register_tile: tuple[int, int]  # pixels x output channels
    source: str  # where register tiles read their pixels
    workspace_bytes: int
    packed_weight_bytes: int
    macs: int
    multiplications: int  # multiply-adds left after the fast algorithm
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.algorithm} convolution, {self.dtype}, {self.isa}, {self.threads} thread(s)\n"
            f"  register tile   {self.register_tile[0]} pixels x {self.register_tile[1]} channels\n"
            f"  output tile     {self.tile[0]} x {self.tile[1]} pixels, input: {self.source}\n"
            f"  block           {self.block}\n"
            f"  packed weights  {self.packed_weight_bytes:,} bytes\n"
            f"  workspace       {self.workspace_bytes:,} bytes\n"
            f"  multiply-adds   {self.macs:,}, of which {self.multiplications:,} are done\n"
            f"  why             {self.reason}"
        )


# ---- weights packed for a pass ----------------------------------------------------------------------------------


def _aligned(count: int) -> Array:
    """`count` bytes on a 64-byte boundary."""
    raw = np.empty(count + 64, np.uint8)
    shift = -raw.ctypes.data % 64
    return raw[shift : shift + count]


@dataclass(frozen=True, slots=True)
class PackedWeights:
    """The weights of one pass in panels, whether all are finite, and their Winograd transform where that is used."""

    data: Array
    finite: bool
    transformed: Array | None = None
    lanes: bool = False  # one group of all output channels, for the depthwise kernels


def pack(
    p: Pass, weight: Array, groups: int, transposed: bool, compute: int, threads: int, algorithm: str = "direct"
) -> PackedWeights:
    """Pack the taps of a pass; `transposed` swaps input and output channels as the input gradient needs."""
    outputs, channels = weight.shape[0] // groups, weight.shape[1]
    if transposed:
        outputs, channels = channels, outputs
    if by_lanes(p, channels, outputs, groups, compute):
        return _pack_lanes(p.rows, p.columns, weight, groups, transposed, compute)
    count = _native.packed_bytes(compute, groups, len(p.rows) * len(p.columns), channels, outputs)
    data = _aligned(count)
    team = threads if count > 1 << 16 else 1
    finite = _native.pack_weights(
        compute, weight, STORAGE[weight.dtype], data, groups, transposed, p.rows, p.columns, team
    )
    if algorithm != "winograd" or not finite:
        return PackedWeights(data, finite)
    transformed = _aligned(count * 4)
    _native.winograd_weights(compute, data, transformed, channels, outputs, team)
    return PackedWeights(data, finite, transformed)


def _pack_lanes(
    rows: tuple[int, ...], columns: tuple[int, ...], weight: Array, groups: int, transposed: bool, compute: int
) -> PackedWeights:
    """Pack every output channel beside the next, as one group: [tap y][channel of its group][tap x][lane]."""
    if transposed:  # (group, k, c) to (group, c, k): a copy of few weights, none where c is 1
        o, c, *taps = weight.shape
        weight = weight.reshape(groups, o // groups, c, *taps).swapaxes(1, 2).reshape(groups * c, o // groups, *taps)
    outputs, channels = weight.shape[:2]
    data = _aligned(_native.packed_bytes(compute, 1, len(rows) * len(columns), channels, outputs))
    # channels and columns change places, and with them the order of the sums
    if columns != tuple(range(weight.shape[3])):
        weight = weight[..., columns]
    weight = weight.swapaxes(1, 3)
    finite = _native.pack_weights(
        compute, weight, STORAGE[weight.dtype], data, 1, False, rows, tuple(range(channels)), 1
    )
    return PackedWeights(data, finite, lanes=True)


def _run_lanes(
    passes: tuple[Pass, ...], packed: PackedWeights, x: Array, out: Array, bias: Array | None, residual: Array | None,
    activation: int, groups: int, mode: int, compute: int, threads: int,
) -> None:  # fmt: skip
    """The passes of one convolution or input gradient, whose taps are packed one after the other along both axes."""
    channels, outputs = x.shape[1] // groups, out.shape[1] // groups
    native, rows, columns, p = lane_passes(passes)
    size = p.output_size((out.shape[2], out.shape[3]))
    macs = out.shape[0] * out.shape[1] * prod(size) * channels * len(rows) * len(columns)
    team = threads_for(4 * macs, threads)
    in_place = x.dtype == COMPUTE_DTYPES[compute] and x.strides[1] == x.itemsize and channels == outputs == 1
    b = lane_blocking(p, channels, outputs, groups, size, compute, team, in_place and not mode)
    _native.depthwise(
        compute, x, STORAGE[x.dtype], packed.data, bias, out, STORAGE[out.dtype], residual, activation, groups,
        native, len(rows), len(columns), *p.stride, *p.step, mode, *b.tile, b.chunks_per_task, b.threads,
    )  # fmt: skip


def _lane_weight_gradient(g: Geometry, p: Pass, x: Array, dy: Array, to: Array, compute: int, threads: int) -> None:
    channels, outputs = g.in_channels // g.groups, g.out_channels // g.groups
    # a tile is a piece of the sum, so that it must not depend on layout or threads
    tile = lane_blocking(p, channels, outputs, g.groups, g.output_size, compute, 4, False).tile
    _native.depthwise_weight_gradient(
        compute, x, STORAGE[x.dtype], dy, STORAGE[dy.dtype], to, STORAGE[to.dtype], g.groups, p.tap_y, p.tap_x,
        *p.stride, PADDING_MODES[g.padding_mode], *tile, lane_gradient_parts(g, compute),
        threads_for(4 * dy.size * prod(to.shape[1:]), threads),
    )  # fmt: skip


def _reads_in_place(p: Pass, x: Array, size: tuple[int, int], compute: int) -> bool:
    """One tap, nothing padded, channels side by side: the kernels read the array as it lies."""
    if len(p.tap_y) != 1 or len(p.tap_x) != 1 or x.dtype != COMPUTE_DTYPES[compute] or 0 in size:
        return False
    inside = all(
        tap[0] >= 0 and tap[0] + (count - 1) * stride < extent
        for tap, count, stride, extent in zip((p.tap_y, p.tap_x), size, p.stride, x.shape[2:], strict=True)
    )
    aligned = x.flags.aligned and all(s % x.itemsize == 0 for s in x.strides)
    return inside and aligned and (x.shape[1] == 1 or x.strides[1] == x.itemsize)


def run_pass(
    p: Pass,
    packed: PackedWeights,
    x: Array,
    out: Array,
    bias: Array | None,
    residual: Array | None,
    activation: int,
    groups: int,
    mode: int,
    compute: int,
    threads: int,
) -> None:
    """One pass into its phase of `out`, by the algorithm that its weights were packed for."""
    if packed.lanes:
        _run_lanes((p,), packed, x, out, bias, residual, activation, groups, mode, compute, threads)
        return
    if packed.transformed is None:
        run_direct(p, packed, x, out, bias, residual, activation, groups, mode, compute, threads)
        return
    if out.size == 0:
        return
    element, lanes, vectors, rows = _native.tile_shape(compute)
    flags = np.zeros((out.shape[0], -(-out.shape[2] // 4)), np.uint8)
    b = winograd_blocking(x.shape[1], out.shape[1], out.shape, element, lanes, vectors, rows, threads)
    padded_bias = bias
    if bias is not None and bias.size % lanes:
        padded_bias = np.zeros(-(-bias.size // lanes) * lanes, bias.dtype)
        padded_bias[: bias.size] = bias
    _native.winograd(
        compute, x, STORAGE[x.dtype], packed.transformed, padded_bias, out, STORAGE[out.dtype], residual, activation,
        p.tap_y[0], p.tap_x[0], mode, flags, b.tiles, b.reduction, b.panels_per_task, threads,
    )  # fmt: skip
    if flags.any():
        for n, row in np.argwhere(flags):
            part = slice(4 * row, 4 * row + 4)
            shifted = replace(p, tap_y=tuple(tap + 4 * int(row) for tap in p.tap_y))
            run_direct(
                shifted, packed, x[n : n + 1], out[n : n + 1, :, part], bias,
                None if residual is None else residual[n : n + 1, :, part], activation, groups, mode, compute, threads,
            )  # fmt: skip


def run_direct(
    p: Pass,
    packed: PackedWeights,
    x: Array,
    out: Array,
    bias: Array | None,
    residual: Array | None,
    activation: int,
    groups: int,
    mode: int,
    compute: int,
    threads: int,
) -> None:
    """One pass of the direct driver into its phase of `out`."""
    y = out if p.step == (1, 1) else out[:, :, p.phase[0] :: p.step[0], p.phase[1] :: p.step[1]]
    if y.size == 0:
        return
    size = (y.shape[2], y.shape[3])
    channels, outputs = x.shape[1] // groups, y.shape[1] // groups
    in_place = _reads_in_place(p, x, size, compute)
    macs = y.size * channels * len(p.rows) * len(p.columns)
    blocking = direct_blocking(p, channels, outputs, groups, size, compute, threads_for(macs, threads), in_place)
    _native.direct(
        compute,
        x,
        STORAGE[x.dtype],
        packed.data,
        bias,
        y,
        STORAGE[y.dtype],
        residual,
        activation,
        groups,
        p.tap_y,
        p.tap_x,
        p.stride[0],
        p.stride[1],
        mode,
        packed.finite,
        blocking.source,
        blocking.tile[0],
        blocking.tile[1],
        blocking.reduction,
        blocking.panels_per_task,
        blocking.threads,
    )


# ---- operations --------------------------------------------------------------------------------------------------


def check_algorithm(g: Geometry, dtype: np.dtype[Any], algorithm: str) -> None:
    """Refuse a forced algorithm that does not apply, saying why."""
    if algorithm in ("auto", "direct"):
        return
    why = why_not_winograd(forward_passes(g)[0], g.in_channels, g.out_channels, g.groups, np.dtype(dtype))
    if why:
        raise ConvError(
            f"algorithm={algorithm!r} does not apply to input ({g.batch}, {g.in_channels}, {g.input_size[0]}, "
            f"{g.input_size[1]}) with kernel {g.kernel_size}: {why}. Use algorithm='auto' or 'direct'."
        )


def _bias_for(bias: Array | None, compute: int) -> Array | None:
    return None if bias is None else np.ascontiguousarray(bias, COMPUTE_DTYPES[compute])


def forward(
    g: Geometry,
    input: Array,
    weight: Array,
    bias: Array | None,
    activation: str | None,
    residual: Array | None,
    out: Array,
    *,
    algorithm: str = "auto",
    threads: int = 1,
) -> None:
    """out = activation(conv(input, weight) + bias + residual)."""
    check_algorithm(g, input.dtype, algorithm)

    def run(x: Array, w: Array, to: Array, b: Array | None, add: Array | None) -> None:
        compute = COMPUTE[to.dtype]
        (p,) = forward_passes(g)
        how, _ = choose_algorithm(
            p, w.shape[1], g.out_channels // g.groups, g.groups, g.output_size, to.dtype, algorithm
        )
        packed = pack(p, w, g.groups, False, compute, threads_for(to.size, threads), how)
        run_pass(
            p, packed, x, to, _bias_for(b, compute), add, ACTIVATIONS[activation], g.groups,
            PADDING_MODES[g.padding_mode], compute, threads,
        )  # fmt: skip

    if out.dtype.kind == "f":
        run(input, weight, out, bias, residual)
        return
    extra = 0
    for name, array in (("bias", bias), ("residual", residual)):
        if array is not None:
            fits_signed(name, array)
            extra += largest(array)
    terms = prod(g.kernel_size) * weight.shape[1]
    check = Checked("conv2d", "input", input, "weight", weight, terms, extra, out)

    def as_type(array: Array | None, dtype: Any) -> Array | None:
        return None if array is None else array.astype(dtype)

    def run_float(x: Array, w: Array, to: Array) -> None:
        run(x, w, to, as_type(bias, np.float64), as_type(residual, np.float64))

    run_checked(
        check,
        lambda to: run(_narrowed(input, to), _narrowed(weight, to), to, bias, as_type(residual, to.dtype)),
        run_float,
    )


def _narrowed(array: Array, out: Array) -> Array:
    """int32 sums take operands of at most 32 signed bits; wider ones were checked to fit."""
    return array if out.dtype == np.int64 or STORAGE[array.dtype] <= 7 else array.astype(np.int32)


def input_gradient(
    g: Geometry,
    grad_output: Array,
    weight: Array,
    bias: Array | None,
    out: Array,
    *,
    algorithm: str = "auto",
    threads: int = 1,
) -> None:
    """out = the gradient with respect to the input (also the transposed convolution, then with a bias)."""
    check_algorithm(g, grad_output.dtype, algorithm)

    def run(dy: Array, w: Array, to: Array, b: Array | None) -> None:
        if g.padding_mode != "zeros" and any(side > 0 for axis in g.padding for side in axis):
            _padded_input_gradient(g, dy, w, to, algorithm, threads)
        else:
            _zero_padded_input_gradient(g, dy, w, b, to, g.groups, algorithm, threads)

    if out.dtype.kind == "f":
        run(grad_output, weight, out, bias)
        return
    extra = 0
    if bias is not None:
        fits_signed("bias", bias)
        extra = largest(bias)
    terms = prod(g.kernel_size) * max(1, g.out_channels // g.groups)
    if g.padding_mode != "zeros":  # one input element may lie under many padded positions
        terms *= max(1, prod(g.output_size))
    check = Checked("the input gradient", "grad_output", grad_output, "weight", weight, terms, extra, out)
    run_checked(
        check,
        lambda to: run(_narrowed(grad_output, to), _narrowed(weight, to), to, bias),
        lambda dy, w, to: run(dy, w, to, None if bias is None else bias.astype(np.float64)),
    )


def _zero_padded_input_gradient(
    g: Geometry, dy: Array, w: Array, bias: Array | None, out: Array, groups: int, algorithm: str, threads: int
) -> None:
    compute = COMPUTE[out.dtype]
    bias = _bias_for(bias, compute)
    passes = input_gradient_passes(g)
    if len(passes) < g.stride[0] * g.stride[1]:  # what no pass writes is the bias alone
        out[...] = 0 if bias is None else bias[:, None, None]
    if all(by_lanes(p, w.shape[0] // groups, w.shape[1], groups, compute) for p in passes):
        _, rows, columns, _ = lane_passes(tuple(passes))
        packed = _pack_lanes(rows, columns, w, groups, True, compute)
        _run_lanes(tuple(passes), packed, dy, out, bias, None, 0, groups, 0, compute, threads)
        return
    for p in passes:
        if 0 in p.output_size((out.shape[2], out.shape[3])):
            continue
        size = (out.shape[2], out.shape[3])
        how, _ = choose_algorithm(p, w.shape[0] // groups, w.shape[1], groups, size, out.dtype, algorithm)
        packed = pack(p, w, groups, True, compute, threads_for(out.size, threads), how)
        run_pass(p, packed, dy, out, bias, None, 0, groups, 0, compute, threads)


def _fold(padded: Array, before: int, size: int, mode: str, axis: int) -> Array:
    """Adjoint of padding along one axis: every padded position adds to the element it repeats."""
    shape = list(padded.shape)
    shape[axis] = size
    out = np.zeros(shape, padded.dtype)

    def at(position: slice | int) -> tuple[Any, ...]:
        return (slice(None),) * axis + (position,)

    lo, hi = max(0, -before), min(size, padded.shape[axis] - before)
    if hi > lo:
        out[at(slice(lo, hi))] = padded[at(slice(lo + before, hi + before))]
    for i in range(padded.shape[axis]):
        if not 0 <= i - before < size:
            out[at(padded_index(i - before, size, mode))] += padded[at(i)]
    return out


def _padded_input_gradient(g: Geometry, dy: Array, w: Array, out: Array, algorithm: str, threads: int) -> None:
    """Non-zero padding: the gradient of the padded image, image by image and channels in slices, folded back."""
    (top, bottom), (left, right) = g.padding
    size = (g.input_size[0] + top + bottom, g.input_size[1] + left + right)
    bare = Geometry(
        batch=1, in_channels=g.in_channels, out_channels=g.out_channels, groups=g.groups, input_size=size,
        kernel_size=g.kernel_size, output_size=g.output_size, stride=g.stride, dilation=g.dilation,
        padding=((0, 0), (0, 0)), padding_mode="zeros",
    )  # fmt: skip
    dtype = COMPUTE_DTYPES[COMPUTE[out.dtype]]
    in_group, out_group = w.shape[1], max(1, w.shape[0] // g.groups)
    budget = max(1, (4 << 20) // max(1, prod(size) * dtype.itemsize))  # channels of a slice
    slice_channels = min(in_group, budget) if g.groups == 1 else in_group
    slice_groups = 1 if g.groups == 1 else max(1, budget // max(1, in_group))
    for n in range(out.shape[0]):
        for first in range(0, g.groups, slice_groups):
            last = min(g.groups, first + slice_groups)
            for c in range(0, in_group, max(1, slice_channels)):
                channels = min(slice_channels, in_group - c)
                padded = np.empty((1, (last - first) * channels, *size), dtype)
                _zero_padded_input_gradient(
                    bare,
                    dy[n : n + 1, first * out_group : last * out_group],
                    w[first * out_group : last * out_group, c : c + channels],
                    None, padded, last - first, algorithm, threads,
                )  # fmt: skip
                rows = _fold(padded, top, g.input_size[0], g.padding_mode, 2)
                begin = first * in_group + c
                out[n : n + 1, begin : begin + padded.shape[1]] = _fold(rows, left, g.input_size[1], g.padding_mode, 3)


def weight_gradient(
    g: Geometry, input: Array, grad_output: Array, out: Array, *, algorithm: str = "auto", threads: int = 1
) -> None:
    """out (O, I/groups, kH, kW) = the gradient with respect to the weight; zeros for an empty batch."""
    check_algorithm(g, input.dtype, algorithm)
    if out.size == 0:
        return
    if input.size == 0 or grad_output.size == 0:
        out[...] = 0
        return

    (p,) = forward_passes(g)
    how, _ = choose_algorithm(
        p, g.in_channels // g.groups, g.out_channels // g.groups, g.groups, g.output_size, out.dtype, algorithm, True
    )
    if how == "winograd":
        w = winograd_gradient_blocking(g, COMPUTE[out.dtype])
        _native.winograd_weight_gradient(
            COMPUTE[out.dtype], input, STORAGE[input.dtype], grad_output, STORAGE[grad_output.dtype], out,
            STORAGE[out.dtype], g.padding[0][0], g.padding[1][0], PADDING_MODES[g.padding_mode], w.channels, w.tiles,
            w.parts, threads,
        )  # fmt: skip
        if np.isfinite(out).all():
            return  # else NaN and infinity must reach exactly the gradients whose sums hold them

    def run(x: Array, dy: Array, to: Array) -> None:
        compute = COMPUTE[to.dtype]
        if by_lanes(p, g.in_channels // g.groups, g.out_channels // g.groups, g.groups, compute):
            _lane_weight_gradient(g, p, x, dy, to, compute, threads)
            return
        b = weight_gradient_blocking(g, compute)
        _native.weight_gradient(
            compute, x, STORAGE[x.dtype], dy, STORAGE[dy.dtype], to, STORAGE[to.dtype], g.groups, *g.stride,
            *g.dilation, g.padding[0][0], g.padding[1][0], PADDING_MODES[g.padding_mode], *b.taps, b.channels,
            b.panels, *b.tile, b.chunk_rows, b.parts, threads_for(dy.size * prod(to.shape[1:]), threads),
        )  # fmt: skip

    if out.dtype.kind == "f":
        run(input, grad_output, out)
        return
    terms = g.batch * prod(g.output_size)
    check = Checked("the weight gradient", "input", input, "grad_output", grad_output, terms, 0, out)
    run_checked(check, lambda to: run(_narrowed(input, to), _narrowed(grad_output, to), to), run)


def bias_gradient(grad_output: Array, out: Array, *, threads: int = 1) -> None:
    """out (C,) = the sum of grad_output over batch and pixels."""
    rows = grad_output.shape[0] * grad_output.shape[2]
    if grad_output.size == 0:
        out[...] = 0
        return
    parts = max(1, min(rows, 32, PARTIAL_SUMS_BYTES // (8 * grad_output.shape[1])))
    team = threads_for(grad_output.size, threads)

    def run(dy: Array, to: Array) -> None:
        _native.bias_gradient(COMPUTE[to.dtype], dy, STORAGE[dy.dtype], to, STORAGE[to.dtype], parts, team)

    if out.dtype.kind == "f":
        run(grad_output, out)
        return
    one = np.ones((1, 1, 1, 1), np.int8)
    terms = grad_output.size // grad_output.shape[1]
    check = Checked("the bias gradient", "grad_output", grad_output, "one", one, terms, 0, out)
    run_checked(check, lambda to: run(_narrowed(grad_output, to), to), lambda dy, _, to: run(dy, to))


# ---- pooling -----------------------------------------------------------------------------------------------------


def _pool(
    kind: str, pg: PoolGeometry, x: Array, y: Array, indices: Array | None, include: bool, divisor: int, threads: int
) -> None:
    (top, bottom), (left, right) = pg.padding
    limit = (pg.input_size[0] + bottom, pg.input_size[1] + right)
    _native.pool(
        kind, STORAGE[x.dtype], x.itemsize, x, y, indices, pg.kernel_size, pg.stride, (top, left), pg.dilation, limit,
        include, divisor, threads_for(4 * max(x.size, y.size), threads),
    )  # fmt: skip


def max_pool(pg: PoolGeometry, input: Array, out: Array, indices: Array | None, *, threads: int = 1) -> None:
    """Maximum over every window; `indices` receives the flat position in the input plane of the first maximum."""
    _pool("max", pg, input, out, indices, False, 0, threads)


def max_pool_gradient(pg: PoolGeometry, grad_output: Array, indices: Array, out: Array, *, threads: int = 1) -> None:
    """Every gradient goes to the position of its maximum."""
    out[...] = 0
    _pool("max_gradient", pg, grad_output, out, indices, False, 0, threads)


def avg_pool(
    pg: PoolGeometry,
    input: Array,
    out: Array,
    *,
    count_include_pad: bool,
    divisor_override: int | None,
    threads: int = 1,
) -> None:
    """Mean over every window."""
    _refuse_integer_average(input)
    _pool("avg", pg, input, out, None, count_include_pad, divisor_override or 0, threads)


def avg_pool_gradient(
    pg: PoolGeometry,
    grad_output: Array,
    out: Array,
    *,
    count_include_pad: bool,
    divisor_override: int | None,
    threads: int = 1,
) -> None:
    """Every gradient is shared equally by its window."""
    _refuse_integer_average(grad_output)
    out[...] = 0
    _pool("avg_gradient", pg, grad_output, out, None, count_include_pad, divisor_override or 0, threads)


def _refuse_integer_average(array: Array) -> None:
    if array.dtype.kind != "f":
        raise ConvTypeError(
            f"input of an average pooling must be floating point, but got {array.dtype}: a mean of integers is no "
            "integer. Convert with .astype('float32')."
        )


# ---- plans -------------------------------------------------------------------------------------------------------


def explain(
    g: Geometry, dtype: Any, *, algorithm: str = "auto", threads: int = 1, prepared: bool = False
) -> ConvExplanation:
    """What `forward` (or, `prepared`, a `ConvPlan`) would do for this geometry; runs nothing."""
    dtype = np.dtype(dtype)
    check_algorithm(g, dtype, algorithm)
    out = dtype if dtype.kind == "f" else np.dtype("int32") if dtype.itemsize <= 2 else np.dtype("int64")
    compute = COMPUTE[out]
    element, lanes, vectors, rows = _native.tile_shape(compute)
    (p,) = forward_passes(g)
    channels, outputs = g.in_channels // g.groups, g.out_channels // g.groups
    how, reason = choose_algorithm(p, channels, outputs, g.groups, g.output_size, out, algorithm, prepared)
    packed = _native.packed_bytes(compute, g.groups, prod(g.kernel_size), channels, outputs)
    pixels = g.batch * prod(g.output_size)
    macs = pixels * g.out_channels * channels * prod(g.kernel_size)
    team = threads_for(macs, threads)
    if how == "winograd":
        shape = (g.batch, g.out_channels, *g.output_size)
        w = winograd_blocking(channels, outputs, shape, element, lanes, vectors, rows, threads)
        tiles = g.batch * -(-g.output_size[0] // 4) * -(-g.output_size[1] // 4)
        return ConvExplanation(
            algorithm=how, isa=_native.isa_name(), dtype=str(dtype), threads=threads, tile=(4, 4),
            block=f"{w.tiles} tiles", register_tile=(rows, vectors * lanes), source="transformed 6 x 6 tiles",
            workspace_bytes=w.scratch_bytes * threads, packed_weight_bytes=5 * packed, macs=macs,
            multiplications=36 * tiles * channels * outputs, reason=reason,
        )  # fmt: skip
    if by_lanes(p, channels, outputs, g.groups, compute):
        kind = "depthwise" if channels == 1 else "grouped"
        team = threads_for(4 * macs, threads)
        lanes_b = lane_blocking(p, channels, outputs, g.groups, g.output_size, compute, team, False)
        width = _native.lane_width(compute)
        return ConvExplanation(
            algorithm=how, isa=_native.isa_name(), dtype=str(dtype), threads=team, tile=lanes_b.tile,
            block=f"{lanes_b.chunks_per_task} chunks of {width} output channels", register_tile=(8, width),
            source="in place if channels lie side by side" if channels == outputs == 1 else SOURCES[1],
            workspace_bytes=lanes_b.scratch_bytes * team, packed_weight_bytes=packed, macs=macs, multiplications=macs,
            reason=f"{reason}; {kind} kernels, every lane an output channel with inputs of its own",
        )  # fmt: skip
    b = direct_blocking(p, channels, outputs, g.groups, g.output_size, compute, team, False)
    return ConvExplanation(
        algorithm=how, isa=_native.isa_name(), dtype=str(dtype), threads=team, tile=b.tile,
        block=f"{b.reduction} reduction steps", register_tile=(rows, vectors * lanes), source=SOURCES[b.source],
        workspace_bytes=b.scratch_bytes * team, packed_weight_bytes=packed, macs=macs, multiplications=macs,
        reason=reason,
    )  # fmt: skip


class ConvPlan:
    """A convolution prepared once and run many times: packed weights, chosen algorithm and blocking.

    Built by `fastconv.plan_conv2d`. The weights are copied: later changes to the array do not reach the plan. A plan
    may be run from several threads at once: it holds no scratch memory between runs.
    """

    def __init__(
        self,
        g: Geometry,
        weight: Array,
        bias: Array | None,
        dtype: Any,
        *,
        data_format: str = "NCHW",
        activation: str | None = None,
        algorithm: str = "auto",
        threads: int = 1,
        batched: bool = True,
    ) -> None:
        self.geometry = g
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self._layout = layout(data_format)
        self._batched = batched
        self._activation = activation
        self._algorithm = algorithm
        self._threads = threads
        self._explanation = explain(g, dtype, algorithm=algorithm, threads=threads, prepared=True)
        self._weight: Array | None = None
        self._bias: Array | None = None if bias is None else bias.copy()
        if self.dtype.kind == "f":
            self._compute = COMPUTE[self.dtype]
            (self._pass,) = forward_passes(g)
            self._packed = pack(
                self._pass, weight, g.groups, False, self._compute, threads, self._explanation.algorithm
            )
            self._bias = _bias_for(self._bias, self._compute)
        else:
            self._weight = weight.copy()

    @property
    def workspace_bytes(self) -> int:
        """Scratch memory of one run beside input, output and packed weights, in bytes."""
        return self._explanation.workspace_bytes

    def explain(self) -> ConvExplanation:
        """Algorithm, instruction set, tiles, memory and the reason."""
        return self._explanation

    def run(self, input: Any, out: Array | None = None) -> Array:
        """Convolve `input`: the planned shape and element type, any batch size.

        Raises `ConvError` for another shape, `ConvTypeError` for another element type.
        """
        g = self.geometry
        array = as_array("input", input)
        if array.dtype != self.dtype:
            raise ConvTypeError(
                f"input must have the planned dtype {self.dtype}, but got {array.dtype} of shape {array.shape}; "
                "convert it or make another plan."
            )
        x, batched = self._layout.activation("input", array)
        if batched != self._batched or x.shape[1:] != (g.in_channels, *g.input_size):
            planned = self._layout.from_logical(
                np.broadcast_to(np.int8(0), (g.batch, g.in_channels, *g.input_size)), self._batched
            ).shape
            raise ConvError(
                f"input must have the planned shape {planned} (any batch size), but got input of shape {array.shape}; "
                "make another plan with fastconv.plan_conv2d."
            )
        result_type = self.dtype if self._weight is None else np.dtype("int32" if self.dtype.itemsize <= 2 else "int64")
        channels_last = self._layout.channels_last or lies_channels_last(x)
        y, result, finish = destination(
            "ConvPlan.run", out, self._layout, (x.shape[0], g.out_channels, *g.output_size), result_type, batched,
            channels_last, (x,),
        )  # fmt: skip
        if self._weight is not None:
            forward(
                replace(g, batch=x.shape[0]), x, self._weight, self._bias, self._activation, None, y,
                algorithm=self._algorithm, threads=self._threads,
            )  # fmt: skip
        else:
            run_pass(
                self._pass, self._packed, x, y, self._bias, None, ACTIVATIONS[self._activation], g.groups,
                PADDING_MODES[g.padding_mode], self._compute, self._threads,
            )  # fmt: skip
        finish()
        return result
