"""How a convolution will be done: the algorithm, the blocking, the packed weights and the scratch memory.

`functional` hands down validated four-axis arrays in the logical order (batch, channel, height, width), whatever
their strides; this module turns a `Geometry` into passes of the native drivers. Every choice is a pure function of
shapes, element type, instruction set and allowed threads, and none depends on the batch size, so that a batch
computed in slices has the same bits.
"""

from __future__ import annotations

import os
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from . import _native
from ._core.types import (
    ACTIVATIONS,
    COMPUTE,
    COMPUTE_DTYPES,
    FLOATS,
    PADDING_MODES,
    STORAGE,
    Codes,
    Types,
    product_compute,
    result_of,
)
from .arrays import as_array, checked_residual, destination, empty, layout, lies_channels_last
from .call import (
    MOST_EXCHANGED_GROUPS,
    Array,
    Call,
    Extent,
    PackedWeights,
    bias_for,
    forward_call,
    input_gradient_call,
    on_three_axes,
    prepare,
    program,
    run_once,
)
from .choice import (
    FEW_PIXELS,
    IN_PLACE,
    LINE,
    LONG_SUM,
    PARTIAL_SUMS_BYTES,
    PICKED_CHANNELS_GRADIENT,
    REGION,
    SOURCES,
    STRASSEN,
    WINOGRAD,
    LaneGradientBlocking,
    Line,
    Pass,
    Strassen,
    Winograd,
    by_lanes,
    choose_algorithm,
    few_winograd_tiles,
    forward_passes,
    input_gradient_passes,
    lane_blocking,
    lane_gradient_parts,
    line_blocking,
    strassen_blocking,
    weight_gradient_blocking,
    why_not_line,
    why_not_strassen,
    why_not_winograd,
    winograd_blocking,
    winograd_gradient_blocking,
    winograd_tiles,
)
from .errors import ConvError, ConvTypeError, import_refused
from .geometry import Geometry, PoolGeometry, padded_index
from .integers import Checked, fits_signed, largest, run_checked
from .sums import FEW


def _select_isa() -> None:
    """Honour FASTCONV_ISA at import."""
    name = os.environ.get("FASTCONV_ISA", "").strip().lower()
    if name and not _native.isa_use(name):
        built, offered = _native.isas_built(), _native.isas_available()
        why = "this machine does not offer it" if name in built else "it was not built"
        import_refused(
            f"FASTCONV_ISA={name}: {why}. Built: {', '.join(built)}; offered here: {', '.join(offered)}. "
            "Choose one of the latter or unset FASTCONV_ISA."
        )


_select_isa()


class ConvExplanation(NamedTuple):
    """What a convolution will do, and why; printed, a few lines of text.

    Parameters
    ----------
    algorithm : str
        'direct', 'winograd', 'strassen' or a variant of these.
    isa : str
        The instruction set in use.
    dtype : str
        The element type of input and weight.
    threads : int
        Threads that a call may use.
    tile : (int, int)
        Output pixels computed together.
    block : str
        What a task works through at a time.
    register_tile : (int, int)
        Pixels x output channels held in registers.
    source : str
        Where register tiles read their pixels.
    workspace_bytes : int
        Scratch memory of one call, in bytes.
    packed_weight_bytes : int
        Memory of the packed weights, in bytes.
    macs : int
        Multiply-adds of one call by the definition of convolution.
    multiplications : int
        Multiply-adds left after the fast algorithm.
    reason : str
        Why this algorithm.
    """

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


# ---- operations --------------------------------------------------------------------------------------------------


def check_algorithm(g: Geometry, dtype: np.dtype[Any], algorithm: str, purpose: str = "call") -> None:
    """Refuse a forced algorithm that does not apply, saying why."""
    if algorithm in ("auto", "direct"):
        return
    passes = input_gradient_passes(g) if purpose == "input gradient" else forward_passes(g)
    channels = (g.in_channels, g.out_channels)
    if algorithm in LINE:
        why = why_not_line(passes, *channels, g.groups, np.dtype(dtype), g.padding_mode)
        if purpose in ("input gradient", "weight gradient"):
            why = f"it has no {purpose}"
    elif algorithm in STRASSEN:
        why = why_not_strassen(
            passes, *channels, g.groups, np.dtype(dtype), g.padding_mode, purpose, STRASSEN[algorithm]
        )
    else:
        why = why_not_winograd(passes, *channels, g.groups, np.dtype(dtype), g.padding_mode, purpose, algorithm)
    if why:
        raise ConvError(
            f"algorithm={algorithm!r} does not apply to input ({g.batch}, {g.in_channels}, {g.input_size[0]}, "
            f"{g.input_size[1]}) with kernel {g.kernel_size}: {why}. Use algorithm='auto' or 'direct'."
        )


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
        call = forward_call(g, to.dtype, algorithm, threads)
        run_once(call, w, x, to, bias_for(b, call.compute), add, ACTIVATIONS[activation])

    if out.dtype in FLOATS:
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
        lambda to: run(input, weight, to, bias, as_type(residual, to.dtype)),
        run_float,
    )


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
    check_algorithm(g, grad_output.dtype, algorithm, "input gradient")

    def run(dy: Array, w: Array, to: Array, b: Array | None) -> None:
        if g.padding_mode != "zeros" and any(side > 0 for axis in g.padding for side in axis):
            _padded_input_gradient(g, dy, w, to, algorithm, threads)
        else:
            _zero_padded_input_gradient(g, dy, w, b, to, g.groups, algorithm, threads)

    if out.dtype in FLOATS:
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
        lambda to: run(grad_output, weight, to, bias),
        lambda dy, w, to: run(dy, w, to, None if bias is None else bias.astype(np.float64)),
    )


def _zero_padded_input_gradient(
    g: Geometry, dy: Array, w: Array, bias: Array | None, out: Array, groups: int, algorithm: str, threads: int
) -> None:
    if (groups, out.shape[1]) != (g.groups, g.in_channels):  # a slice of the channels
        g = g._replace(groups=groups, in_channels=out.shape[1], out_channels=dy.shape[1])
    call = input_gradient_call(g, out.dtype, algorithm, threads)
    bias = bias_for(bias, call.compute)
    if not call.covers:  # what no pass writes is the bias alone
        out[...] = 0 if bias is None else bias[:, None, None]
    run_once(call, w, dy, out, bias, None, 0)


def _fold(padded: Array, before: int, size: int, mode: str, axis: int) -> Array:
    """Adjoint of padding along one axis: every padded position adds to the element it repeats."""
    shape = list(padded.shape)
    shape[axis] = size
    wide = np.float64 if padded.dtype == np.float32 and padded.shape[axis] - size > FEW else padded.dtype
    out = np.zeros(shape, wide)

    def at(position: slice | int) -> tuple[Any, ...]:
        return (slice(None),) * axis + (position,)

    lo, hi = max(0, -before), min(size, padded.shape[axis] - before)
    if hi > lo:
        out[at(slice(lo, hi))] = padded[at(slice(lo + before, hi + before))]
    for i in range(padded.shape[axis]):
        if not 0 <= i - before < size:
            out[at(padded_index(i - before, size, mode))] += padded[at(i)]
    return out.astype(padded.dtype, copy=False)


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
    check_algorithm(g, input.dtype, algorithm, "weight gradient")
    if out.size == 0:
        return
    if input.size == 0 or grad_output.size == 0:
        out[...] = 0
        return

    (p,) = forward_passes(g)
    how, _ = choose_algorithm(
        (p,), g.in_channels // g.groups, g.out_channels // g.groups, g.groups, g.output_size, out.dtype, algorithm,
        g.padding_mode, "weight gradient", g.batch,
    )
    if kind := WINOGRAD.get(how):
        w = winograd_gradient_blocking(kind, g, _native.tile_shape(COMPUTE[out.dtype]))
        made = program(
            _native.WinogradGradient, _gradient_codes(input, grad_output, out), _gradient_extent(g), on_three_axes(p),
            w, kind.number,
        )  # fmt: skip
        made.run(input, grad_output, out, threads)
        if np.isfinite(out).all():
            return  # else NaN and infinity must reach exactly the gradients whose sums hold them

    def run(x: Array, dy: Array, to: Array) -> None:
        compute = COMPUTE[to.dtype]
        channels, outputs = g.in_channels // g.groups, g.out_channels // g.groups
        if by_lanes(p, channels, outputs, g.groups, compute, PICKED_CHANNELS_GRADIENT):
            _lane_weight_gradient(g, p, x, dy, to, compute, threads)
            return
        if min(prod(g.output_size), prod(g.input_size)) <= FEW_PIXELS and g.groups <= MOST_EXCHANGED_GROUPS:
            _weight_gradient_of_few_pixels(g, x, dy, to, threads)
            return
        codes = Codes(compute, STORAGE[x.dtype], STORAGE[dy.dtype], STORAGE[to.dtype])
        team = _native.threads_for(dy.size * prod(to.shape[1:]), threads)
        _weight_gradient_program(g, codes, _native.isa_number()).run(x, dy, to, team)

    if out.dtype in FLOATS:
        run(input, grad_output, out)
        return
    terms = g.batch * prod(g.output_size)
    check = Checked("the weight gradient", "input", input, "grad_output", grad_output, terms, 0, out)
    run_checked(check, lambda to: run(input, grad_output, to), run)


def _gradient_codes(x: Array, dy: Array, to: Array) -> Codes:
    return Codes(COMPUTE[to.dtype], STORAGE[x.dtype], STORAGE[dy.dtype], STORAGE[to.dtype])


def _gradient_extent(g: Geometry) -> Extent:
    return Extent(
        g.groups, g.in_channels // g.groups, g.out_channels // g.groups, (1, *g.output_size), (1, *g.input_size),
        PADDING_MODES[g.padding_mode],
    )  # fmt: skip


@lru_cache(maxsize=256)
def _weight_gradient_program(g: Geometry, codes: Codes, isa: int) -> _native.WeightGradient:
    (p,) = forward_passes(g)
    b = weight_gradient_blocking(g, _native.tile_shape(codes.compute))
    return _native.WeightGradient(
        codes, _gradient_extent(g), on_three_axes(p), b._replace(taps=(1, *b.taps), tile=(1, *b.tile))
    )


def _weight_gradient_of_few_pixels(g: Geometry, x: Array, dy: Array, to: Array, threads: int) -> None:
    """The convolution of x, its channels in the place of the batch, by dy: the images are the channels of the sum."""
    channels, outputs = g.in_channels // g.groups, g.out_channels // g.groups
    over = g._replace(
        batch=channels, in_channels=g.batch, out_channels=outputs, groups=1, kernel_size=g.output_size,
        output_size=g.kernel_size, stride=g.dilation, dilation=g.stride,
    )  # fmt: skip
    call = forward_call(over, to.dtype, "direct", threads)
    for group in range(g.groups):
        ours = slice(group * outputs, (group + 1) * outputs)
        theirs = slice(group * channels, (group + 1) * channels)
        run_once(
            call, dy[:, ours].swapaxes(0, 1), x[:, theirs].swapaxes(0, 1), to[ours].swapaxes(0, 1), None, None, 0
        )


def _lane_weight_gradient(g: Geometry, p: Pass, x: Array, dy: Array, to: Array, compute: int, threads: int) -> None:
    channels, outputs = g.in_channels // g.groups, g.out_channels // g.groups
    chunk = _native.lane_chunk(compute)
    # a tile is a piece of the sum, so that it must not depend on layout or threads
    tile = lane_blocking(p, channels, outputs, g.groups, g.output_size, chunk, 4, False).tile
    b = LaneGradientBlocking(tile, lane_gradient_parts(g, chunk))
    made = program(_native.LanesGradient, _gradient_codes(x, dy, to), _gradient_extent(g), on_three_axes(p), b)
    made.run(x, dy, to, threads)


def bias_gradient(grad_output: Array, out: Array, *, threads: int = 1) -> None:
    """out (C,) = the sum of grad_output over batch and pixels."""
    rows = grad_output.shape[0] * grad_output.shape[2]
    if grad_output.size == 0:
        out[...] = 0
        return
    parts = max(1, min(rows, 32, PARTIAL_SUMS_BYTES // (8 * grad_output.shape[1])))
    team = _native.threads_for(grad_output.size, threads)

    def run(dy: Array, to: Array) -> None:
        _native.bias_gradient(COMPUTE[to.dtype], dy, STORAGE[dy.dtype], to, STORAGE[to.dtype], parts, team)

    if out.dtype in FLOATS:
        run(grad_output, out)
        return
    one = np.ones((1, 1, 1, 1), np.int8)
    terms = grad_output.size // grad_output.shape[1]
    check = Checked("the bias gradient", "grad_output", grad_output, "one", one, terms, 0, out)
    run_checked(check, lambda to: run(grad_output, to), lambda dy, _, to: run(dy, to))


# ---- pooling -----------------------------------------------------------------------------------------------------


class Window(NamedTuple):
    """What a pooling slides over its input: planes, rows and columns."""

    kernel: tuple[int, int, int]
    stride: tuple[int, int, int]
    padding: tuple[int, int, int]  # before
    dilation: tuple[int, int, int]
    limit: tuple[int, int, int]  # the end of the padded input
    include_pad: bool
    divisor: int  # 0: as many values as the window has


def _pool(
    kind: str, pg: PoolGeometry, x: Array, y: Array, indices: Array | None, include: bool, divisor: int, threads: int,
    low: int = 0,
) -> None:
    (top, bottom), (left, right) = pg.padding
    limit = (1, pg.input_size[0] + bottom, pg.input_size[1] + right)
    window = Window(
        (1, *pg.kernel_size), (1, *pg.stride), (0, top, left), (1, *pg.dilation), limit, include, divisor
    )
    _native.pool(
        kind, STORAGE[x.dtype], x, y, indices, window, _native.threads_for(4 * max(x.size, y.size), threads), low
    )


def _pool_gradient(
    kind: str, pg: PoolGeometry, dy: Array, out: Array, indices: Array | None, include: bool, divisor: int, threads: int
) -> None:
    """Every value of `dy` to the pixels of its window; where very many windows may meet a pixel, in double precision
    with what the sums round off beside them, an image's plane after the other."""
    if out.dtype not in FLOATS or windows_of_a_pixel(pg) < LONG_SUM:
        out[...] = 0
        _pool(kind, pg, dy, out, indices, include, divisor, threads)
        return
    for image, channel in np.ndindex(*out.shape[:2]):
        one = (slice(image, image + 1), slice(channel, channel + 1))
        wide = np.zeros((2, 1, *out.shape[2:]))
        index = None if indices is None else indices[one]
        _pool(kind, pg, dy[one].astype(np.float64), wide[:1], index, include, divisor, threads, wide.strides[0])
        with np.errstate(invalid="ignore"):
            both = wide[0] + wide[1]
        out[one] = np.where(np.isnan(both), wide[0], both)  # an infinite sum rounds off NaN


def windows_of_a_pixel(pg: PoolGeometry) -> int:
    """The most windows that a pixel of the input may lie in."""
    axes = zip(pg.kernel_size, pg.stride, pg.output_size, strict=True)
    return prod(min(-(-kernel // stride), outputs) for kernel, stride, outputs in axes)


def max_pool(pg: PoolGeometry, input: Array, out: Array, indices: Array | None, *, threads: int = 1) -> None:
    """Maximum over every window; `indices` receives the flat position in the input plane of the first maximum."""
    _pool("max", pg, input, out, indices, False, 0, threads)


def max_pool_gradient(pg: PoolGeometry, grad_output: Array, indices: Array, out: Array, *, threads: int = 1) -> None:
    """Every gradient goes to the position of its maximum."""
    _pool_gradient("max_gradient", pg, grad_output, out, indices, False, 0, threads)


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
    _pool_gradient("avg_gradient", pg, grad_output, out, None, count_include_pad, divisor_override or 0, threads)


def _refuse_integer_average(array: Array) -> None:
    if array.dtype not in FLOATS:
        raise ConvTypeError(
            f"input of an average pooling must be floating point, but got {array.dtype}: a mean of integers is no "
            "integer. Convert with .astype('float32')."
        )


# ---- plans -------------------------------------------------------------------------------------------------------


def explain(
    g: Geometry, dtype: Any, *, algorithm: str = "auto", threads: int = 1, channels_last: bool = False
) -> ConvExplanation:
    """What `forward` would do for this geometry and arrays of this layout; runs nothing."""
    dtype = np.dtype(dtype)
    check_algorithm(g, dtype, algorithm)
    call = forward_call(g, result_of(dtype), algorithm, threads)
    return _explain_call(g, call, dtype, channels_last, False)


def _explain_call(
    g: Geometry, call: Call, dtype: np.dtype[Any], channels_last: bool, prepared: bool
) -> ConvExplanation:
    """What a call will do whose arrays lie as `channels_last` says; `prepared`, with the weights of a plan."""
    lies = channels_last and dtype == COMPUTE_DTYPES[call.compute]
    compute, channels, outputs = call.compute, call.channels, call.outputs
    _, lanes, vectors, rows = shape = _native.tile_shape(compute)
    packed = _native.packed_bytes(compute, g.groups, prod(g.kernel_size), channels, outputs)
    macs = g.batch * prod(g.output_size) * g.out_channels * channels * prod(g.kernel_size)
    if kind := WINOGRAD.get(call.algorithm):
        phases = prod(map(min, g.dilation, g.output_size))  # each on every d-th pixel
        size = _phase_size(g)
        held = prepared and _held(g, call) is not None
        w = winograd_blocking(kind, channels, outputs, (g.batch, *size), shape, call.threads, held)
        tiles = winograd_tiles(kind, (g.batch, *size))
        tasks = -(-tiles // w.tiles) * _pieces(outputs, vectors * lanes, w.panels_per_task)
        elements, side = kind.elements**2, kind.tile
        scratch = _native.winograd_scratch_bytes(
            compute, kind.number, channels, w.tiles, -(-size[1] // side), w.slice, w.few, held
        )
        return ConvExplanation(
            algorithm=call.algorithm, isa=_native.isa_name(), dtype=str(dtype), threads=call.threads,
            tile=(side, side), block=f"{w.tiles} tiles", register_tile=(rows, vectors * lanes),
            source=f"transformed {kind.extent} x {kind.extent} tiles",
            workspace_bytes=scratch * _native.team_for(call.threads, tasks, scratch),
            packed_weight_bytes=packed // 9 * (9 + kind.weights**2 * held) if prepared else packed if call.packs else 0,
            macs=macs, multiplications=elements * phases * tiles * channels * outputs, reason=call.reason,
        )  # fmt: skip
    if line := LINE.get(call.algorithm):
        (p,) = call.passes
        block = line_blocking(p, channels, g.output_size, shape, call.threads).rows
        scratch = _native.winograd_rows_scratch_bytes(
            compute, channels, len(p.rows), p.stride[0], g.output_size[1], block
        )
        tiles = -(-g.output_size[1] // 4)
        team = _native.team_for(call.threads, g.batch * -(-g.output_size[0] // block), scratch)
        return ConvExplanation(
            algorithm=call.algorithm, isa=_native.isa_name(), dtype=str(dtype), threads=call.threads, tile=(1, 4),
            block=f"{block} rows", register_tile=(rows, vectors * lanes), source="transformed rows of 13 pixels",
            workspace_bytes=scratch * team, packed_weight_bytes=packed + packed // line.taps * line.elements, macs=macs,
            multiplications=g.batch * g.output_size[0] * tiles * line.elements * len(p.rows) * channels * outputs,
            reason=call.reason,
        )  # fmt: skip
    if strassen := STRASSEN.get(call.algorithm):
        pixels = prod(g.output_size)
        s = strassen_blocking(strassen, channels, outputs, g.batch, pixels, shape, call.threads)
        scratch = _native.strassen_scratch_bytes(compute, strassen.levels, channels, s.tiles, s.part)
        tiles = g.batch * -(-pixels // strassen.side)
        tasks = -(-tiles // s.tiles) * _pieces(outputs // strassen.side, vectors * lanes, s.panels_per_task)
        return ConvExplanation(
            algorithm=call.algorithm, isa=_native.isa_name(), dtype=str(dtype), threads=call.threads,
            tile=(1, strassen.side), block=f"{s.tiles} tiles", register_tile=(rows, vectors * lanes),
            source=f"sums of {strassen.side} x {strassen.side} blocks",
            workspace_bytes=scratch * _native.team_for(call.threads, tasks, scratch),
            packed_weight_bytes=packed + packed // strassen.side**2 * strassen.products, macs=macs,
            multiplications=strassen.products * tiles * (channels // strassen.side) * (outputs // strassen.side),
            reason=call.reason,
        )  # fmt: skip
    team = _native.threads_for(macs, call.threads)
    (p,) = forward_passes(g)
    products = call.products(g.batch, g.output_size, g.input_size)
    if call.exchanged and not prepared:
        products = g.groups * call.exchanged.products(outputs, g.output_size, g.kernel_size)
    if call.lanes:
        name = "depthwise" if channels == 1 else "grouped"
        packed = _native.packed_bytes(compute, 1, prod(g.kernel_size), channels, g.groups * outputs)
        reason = f"{call.reason}; {name} kernels, every lane an output channel with inputs of its own"
        codes = Codes(compute, STORAGE[dtype], STORAGE[dtype], STORAGE[result_of(dtype)])
        alone = lies and not call.mode and channels == outputs == 1
        made = call.lanes_program(codes, g.batch, g.output_size, g.input_size, alone)
        if lies and (cut := made.patches(g.batch, call.threads)):
            rows, columns, tasks, team, scratch, packs = cut
            return ConvExplanation(
                algorithm="direct", isa=_native.isa_name(), dtype=str(dtype), threads=team,
                tile=(-(-g.output_size[0] * g.batch // tasks), g.output_size[1]),
                block=f"patches of {rows} x {columns} pixels", register_tile=(rows * columns, lanes),
                source=SOURCES[REGION if packs else IN_PLACE], workspace_bytes=scratch,
                packed_weight_bytes=packed, macs=macs, multiplications=products, reason=reason,
            )  # fmt: skip
        team = _native.threads_for(4 * macs, call.threads)
        chunk = _native.lane_chunk(compute)
        chunks = lane_blocking(p, channels, outputs, g.groups, g.output_size, chunk, team, alone)
        scratch = made.scratch_bytes(lies)
        tasks = _pieces(g.groups * outputs, chunk[1], chunks.chunks_per_task) * _tiles(g, chunks.tile)
        return ConvExplanation(
            algorithm="direct", isa=_native.isa_name(), dtype=str(dtype), threads=team, tile=chunks.tile,
            block=f"{chunks.chunks_per_task} chunks of {chunk[1]} output channels", register_tile=(8, chunk[1]),
            source=SOURCES[IN_PLACE if made.in_place(lies) else REGION],
            workspace_bytes=scratch * _native.team_for(team, tasks, scratch),
            packed_weight_bytes=packed, macs=macs, multiplications=products, reason=reason,
        )  # fmt: skip
    source, images, tile, reduction, tasks, scratch, packed = IN_PLACE, 1, (0, 0), 0, 0, 0, 0  # of nothing to compute
    if call.direct:
        types = Types(dtype, dtype, result_of(dtype))
        direct = call.direct.of_types(types)
        source, images, (_, *rest), reduction, tasks = direct.blocking(0, lies)
        tile = (rest[0], rest[1])
        packs = prepared or (call.packs and not call.streams)
        scratch = direct.scratch_bytes(packs, lies)
        taps = len(call.passes[0].rows) * len(call.passes[0].columns)  # that meet the input
        packed = _native.packed_bytes(product_compute(types), g.groups, taps, channels, outputs) if packs else 0
    return ConvExplanation(
        algorithm="direct", isa=_native.isa_name(), dtype=str(dtype), threads=team, tile=tile,
        block=f"{reduction} reduction steps", register_tile=(rows, vectors * lanes), source=SOURCES[source],
        workspace_bytes=scratch * _native.team_for(team, -(-g.batch // images) * tasks, scratch),
        packed_weight_bytes=packed, macs=macs, multiplications=products, reason=call.reason,
    )  # fmt: skip


def _phase_size(g: Geometry) -> tuple[int, int]:
    """Rows and columns of the outputs whose taps meet the pixels of one phase of the dilation."""
    return -(-g.output_size[0] // g.dilation[0]), -(-g.output_size[1] // g.dilation[1])


def _held(g: Geometry, call: Call) -> Winograd | Strassen | Line | None:
    """The kind of algorithm for which a plan holds transformed weights; None if it holds none."""
    if other := STRASSEN.get(call.algorithm) or LINE.get(call.algorithm):
        return other
    kind = WINOGRAD.get(call.algorithm)
    if kind is None:
        return None
    tiles = winograd_tiles(kind, (g.batch, *_phase_size(g)))
    few = few_winograd_tiles(kind, tiles, call.channels, call.outputs, _native.tile_shape(call.compute), True)
    return None if few else kind


def _pieces(outputs: int, width: int, per_task: int) -> int:
    """Tasks that share out the panels (chunks) of so many outputs."""
    panels = -(-outputs // width)
    return -(-panels // per_task)


def _tiles(g: Geometry, tile: tuple[int, int]) -> int:
    """Tiles of the outputs of a whole batch."""
    return g.batch * -(-g.output_size[0] // tile[0]) * -(-g.output_size[1] // tile[1])


def _unpickled_plan(
    packed_by: tuple[str, int], g: Geometry, dtype: np.dtype[Any], weight: Array | None, bias: Array | None,
    options: dict[str, Any], packed: PackedWeights | None,
) -> ConvPlan:  # fmt: skip
    """The plan that `ConvPlan.__reduce__` took apart: packed weights are for one build and one instruction set."""
    here = (_native.isa_name(), _native.sources())
    if packed_by != here:
        build = "this" if packed_by[1] == here[1] else "another"
        raise ConvError(
            f"the weights of this plan were packed for {packed_by[0]} by {build} build of fastconv, but this process "
            f"uses {here[0]}; send the weights and call fastconv.plan_conv2d here."
        )
    if weight is None:  # the packed one stands for it
        shape = (g.out_channels, g.in_channels // g.groups, *g.kernel_size)
        weight = np.broadcast_to(np.zeros((), dtype), shape)
    return ConvPlan(g, weight, bias, dtype, **options, packed=None if packed is None else packed.aligned())


class ConvPlan:
    """A convolution prepared once and run many times: packed weights, chosen algorithm and blocking.

    Made by `fastconv.plan_conv2d`. The weights are copied: later changes to the array do not reach the plan. A plan may
    be run from several threads at once: it holds no scratch memory between runs. Nothing in it changes, so that
    `copy.deepcopy` gives the plan itself; a pickle of it can be read by processes of the same build of fastconv on the
    same instruction set, and is refused elsewhere.
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
        purpose: str = "plan",
        packed: PackedWeights | None = None,
    ) -> None:
        self._options = {
            "data_format": data_format, "activation": activation, "algorithm": algorithm, "threads": threads,
            "batched": batched, "purpose": purpose,
        }  # fmt: skip
        self.geometry = g
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self._layout = layout(data_format)
        self._batched = batched
        self._activation = activation
        self._algorithm = algorithm
        self._threads = threads
        self._weight: Array | None = None
        self._bias: Array | None = None if bias is None else bias.copy()
        if self.dtype not in FLOATS:
            last = self._layout.channels_last
            self._explanation = explain(g, dtype, algorithm=algorithm, threads=threads, channels_last=last)
            self._weight = weight.copy()
            return
        check_algorithm(g, self.dtype, algorithm, purpose)
        self._call = forward_call(g, self.dtype, algorithm, threads, purpose)
        self._explanation = _explain_call(g, self._call, self.dtype, self._layout.channels_last, True)
        (p,) = self._call.passes or forward_passes(g)
        self._packed = packed or prepare(
            p, weight, g.groups, False, self._call.compute, threads, self._call.lanes, _held(g, self._call)
        )
        self._bias = bias_for(self._bias, self._call.compute)
        shape_alone: Array = np.broadcast_to(np.zeros((), weight.dtype), weight.shape)
        self._shape_alone = shape_alone
        self._own_shape_alone = self._layout.weight_from_logical(shape_alone)
        self._own_input = self._layout.from_logical_shape((g.batch, g.in_channels, *g.input_size))[1:]
        self._own_output = self._layout.from_logical_shape((g.batch, g.out_channels, *g.output_size))[1:]

    def __copy__(self) -> ConvPlan:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ConvPlan:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        packed_by = (self._explanation.isa, _native.sources())
        packed = self._packed if self._weight is None else None
        return _unpickled_plan, (
            packed_by, self.geometry, self.dtype, self._weight, self._bias, self._options, packed
        )  # fmt: skip

    def __repr__(self) -> str:
        g, e = self.geometry, self._explanation

        def shown(channels: int, size: tuple[int, int]) -> str:
            axes = self._layout.from_logical_shape((0, channels, *size))[1:]
            return f"({', '.join(map(str, ('N', *axes) if self._batched else axes))})"

        weight = (g.out_channels, g.in_channels // g.groups, *g.kernel_size)
        own_weight = self._layout.weight_from_logical(np.broadcast_to(np.int8(0), weight)).shape
        options = {
            "stride": (g.stride, (1, 1)), "padding": (g.padding, ((0, 0), (0, 0))), "dilation": (g.dilation, (1, 1)),
            "groups": (g.groups, 1), "padding_mode": (g.padding_mode, "zeros"), "activation": (self._activation, None),
        }  # fmt: skip
        told = [f"{name}={value!r}" for name, (value, usual) in options.items() if value != usual]
        return (
            f"<ConvPlan {shown(g.in_channels, g.input_size)} -> {shown(g.out_channels, g.output_size)} "
            f"{'NHWC' if self._layout.channels_last else 'NCHW'} {self.dtype}, weight {own_weight}, "
            f"{''.join(f'{option}, ' for option in told)}{e.algorithm}, {e.isa}, {e.threads} "
            f"thread{'' if e.threads == 1 else 's'}>"
        )

    @property
    def workspace_bytes(self) -> int:
        """Scratch memory of one run of the planned batch beside input, output and packed weights, in bytes.

        What the driver takes for contiguous float arrays; another layout may take less, and integers whose sums may
        leave int32 take a result in int64 beside it.
        """
        return self._explanation.workspace_bytes

    @property
    def pools(self) -> bool:
        """Whether `run_pooled` may be called.

        That takes Winograd at stride 1 and dilation 1, channels last, an even number of rows and of columns, whole
        vectors of output channels, and no activation but relu.
        """
        g = self.geometry
        return (
            self._weight is None
            and self._layout.channels_last
            and self._batched
            and self._call.algorithm in WINOGRAD
            and self._packed.finite
            and g.stride == g.dilation == (1, 1)
            and not any(size % 2 for size in g.output_size)
            and min(g.output_size) > 0
            and g.out_channels % _native.tile_shape(self._call.compute)[1] == 0
            and self._activation in (None, "relu")
        )

    def run_pooled(self, input: Array, out: Array) -> Array:
        """Convolve and take the largest of every 2 x 2 outputs, which then are never stored.

        Parameters
        ----------
        input : ndarray
            Of the planned shape and element type, C-contiguous, with any batch size.
        out : ndarray
            Receives the result, (N, OH / 2, OW / 2, O), C-contiguous; it must not overlap the input.

        Returns
        -------
        ndarray
            `out`: the bits of `max_pool2d(plan.run(input), 2)`.

        Raises
        ------
        ConvError
            Where `pools` is False, or for arrays that are not as said above.
        """
        height, width = self.geometry.output_size
        if not (
            self.pools
            and self._plain(input, None, None)
            and type(out) is np.ndarray
            and out.dtype == self.dtype
            and out.shape == (input.shape[0], height // 2, width // 2, self.geometry.out_channels)
            and out.flags.carray
            and _native.lie_apart(input, out)
        ):
            raise ConvError(
                f"run_pooled takes an input as planned and, apart from it, a C-contiguous out of half the rows "
                f"and columns, of a plan that pools (here {self.pools}), but got input of shape {np.shape(input)} and "
                f"out of shape {np.shape(out)}. Use run, then max_pool2d."
            )
        self._call.run(
            self._own_shape_alone, input, out, self._bias, None, ACTIVATIONS[self._activation], self._packed, True, True
        )
        return out

    def explain(self) -> ConvExplanation:
        """Algorithm, instruction set, tiles, memory and the reason.

        Returns
        -------
        ConvExplanation
            As from `fastconv.explain_conv2d`.
        """
        return self._explanation

    def _plain(self, input: Any, out: Any, residual: Any) -> bool:
        """Whether the arrays are as most are, so that they go to the driver as they lie: a few microseconds less."""
        if (
            self._weight is not None
            or type(input) is not np.ndarray
            or input.dtype != self.dtype
            or input.ndim != 4
            or input.shape[1:] != self._own_input
            or not self._batched
            or not (self._layout.channels_last or input.flags.c_contiguous)
        ):
            return False
        shape = (input.shape[0], *self._own_output)
        for array in (out, residual):
            if array is not None and not (
                type(array) is np.ndarray
                and array.dtype == self.dtype
                and array.shape == shape
                and array.flags.c_contiguous
            ):
                return False
        if out is None:
            return True
        return (
            out.flags.carray
            and _native.lie_apart(input, out)
            and (residual is None or _native.lie_apart(residual, out))
        )

    def run(self, input: Any, out: Array | None = None, *, residual: Any = None) -> Array:
        """Convolve a batch.

        Parameters
        ----------
        input : array_like
            Of the planned shape and element type, with any batch size.
        out : ndarray, optional
            Receives the result; it may overlap the input.
        residual : array_like, optional
            Of the result's shape and element type, added before the activation.

        Returns
        -------
        ndarray
            `out`, or a new array.

        Raises
        ------
        ConvError
            For another shape.
        ConvTypeError
            For another element type.
        """
        if self._plain(input, out, residual):
            if out is None:
                out = empty((input.shape[0], *self._own_output), self.dtype)
            self._call.run(
                self._own_shape_alone, input, out, self._bias, residual, ACTIVATIONS[self._activation], self._packed,
                self._layout.channels_last,
            )  # fmt: skip
            return out
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
        result_type = result_of(self.dtype)
        channels_last = self._layout.channels_last or lies_channels_last(x)
        result_shape = (x.shape[0], g.out_channels, *g.output_size)
        add = (
            None if residual is None
            else checked_residual("ConvPlan.run", residual, self._layout, result_shape, batched, result_type)
        )  # fmt: skip
        y, result, finish = destination(
            "ConvPlan.run", out, self._layout, result_shape, result_type, batched, channels_last, (x, add)
        )
        if self._weight is not None:
            forward(
                g._replace(batch=x.shape[0]), x, self._weight, self._bias, self._activation, add, y,
                algorithm=self._algorithm, threads=self._threads,
            )  # fmt: skip
        else:
            self._call.run(
                self._shape_alone, x, y, self._bias, add, ACTIVATIONS[self._activation], self._packed
            )
        finish()
        return result
