"""How a convolution will be done: the algorithm, the blocking, the packed weights and the scratch memory.

`functional` hands down validated four-axis arrays in the logical order (batch, channel, height, width), whatever
their strides; this module turns a `Geometry` into passes of the native drivers. Every choice is a pure function of
shapes, element type, instruction set and allowed threads, and none depends on the batch size, so that a batch
computed in slices has the same bits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _native
from .errors import ConvError, ConvTypeError
from .geometry import Geometry, PoolGeometry

Array = NDArray[Any]

# Element types as the native code numbers them (fc_dtype, fc_compute in src/fastconv.h).
STORAGE = {
    np.dtype(name): code
    for code, name in enumerate(
        ["float32", "float64", "float16", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
    )
}
COMPUTE = {np.dtype("float32"): 0, np.dtype("float16"): 0, np.dtype("float64"): 1, np.dtype("int32"): 2, np.dtype("int64"): 3}
COMPUTE_DTYPES = [np.dtype("float32"), np.dtype("float64"), np.dtype("int32"), np.dtype("int64")]
ACTIVATIONS = {None: 0, "relu": 1, "relu6": 2, "leaky_relu": 3, "silu": 4, "sigmoid": 5, "hardswish": 6}
PADDING_MODES = {"zeros": 0, "reflect": 1, "replicate": 2, "circular": 3, "symmetric": 4}
IN_PLACE, REGION, GATHER = 0, 1, 2
SOURCES = ("in place", "packed region", "gathered")

# Cache budgets in bytes, for 32-48 KB of first-level and at least 1 MB of second-level cache a core.
WEIGHT_SLICE_BYTES = 24 << 10  # the weights under a register tile stay in the first level
REGION_BYTES = 512 << 10  # the packed input under a tile of outputs stays in the second level
SUMS_BYTES = 320 << 10  # weight-gradient sums of a block, likewise
GATHER_ABOVE_BYTES = 4 << 20  # a window larger than this is never packed whole
PARTIAL_SUMS_BYTES = 16 << 20  # all partial sums of a weight gradient
MOST_PIXELS = 768  # outputs of a tile: their sums (one panel) take at most 192 KB
WINOGRAD_BYTES = 768 << 10  # transformed input of a block of tiles
# Winograd is chosen from here on; all are of one image, so that a batch split changes nothing.
WINOGRAD_CHANNELS = 32
WINOGRAD_SIZE = 40  # a single call transforms its weights, four times their bytes, for one image
WINOGRAD_SIZE_PREPARED = 20
WINOGRAD_MACS = 64_000_000
SERIAL_BELOW_MACS = 1 << 20  # about 10 microseconds: starting a team costs as much


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
class Pass:
    """One run of the direct driver: output pixel i sums x[i * stride + tap] over its taps."""

    tap_y: tuple[int, ...]
    tap_x: tuple[int, ...]
    rows: tuple[int, ...]  # which rows and columns of the kernel the taps belong to
    columns: tuple[int, ...]
    stride: tuple[int, int]
    phase: tuple[int, int]  # the outputs it writes: every `step`-th row and column from here
    step: tuple[int, int]

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of an output of `size` that this pass writes."""
        return (
            max(0, -(-(size[0] - self.phase[0]) // self.step[0])),
            max(0, -(-(size[1] - self.phase[1]) // self.step[1])),
        )


@dataclass(frozen=True, slots=True)
class Blocking:
    """Loop sizes of one pass of the direct driver."""

    source: int
    tile: tuple[int, int]
    reduction: int
    panels_per_task: int
    threads: int
    scratch_bytes: int  # of one thread


@dataclass(frozen=True, slots=True)
class ConvExplanation:
    """What a convolution will do, and why. Byte counts in bytes; `macs` counts multiply-adds of one call."""

    algorithm: str
    isa: str
    dtype: str
    threads: int
    tile: tuple[int, int]
    reduction_block: int
    register_tile: tuple[int, int]
    source: str
    workspace_bytes: int
    packed_weight_bytes: int
    macs: int
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.algorithm} convolution, {self.dtype}, {self.isa}, {self.threads} thread(s)\n"
            f"  register tile   {self.register_tile[0]} pixels x {self.register_tile[1]} channels\n"
            f"  output tile     {self.tile[0]} x {self.tile[1]} pixels, input {self.source}\n"
            f"  reduction block {self.reduction_block} steps\n"
            f"  packed weights  {self.packed_weight_bytes:,} bytes\n"
            f"  workspace       {self.workspace_bytes:,} bytes\n"
            f"  multiply-adds   {self.macs:,}\n"
            f"  why             {self.reason}"
        )


# ---- passes ----------------------------------------------------------------------------------------------------


def forward_passes(g: Geometry) -> list[Pass]:
    """The convolution itself: one pass."""
    rows, columns = range(g.kernel_size[0]), range(g.kernel_size[1])
    return [
        Pass(
            tuple(i * g.dilation[0] - g.padding[0][0] for i in rows),
            tuple(j * g.dilation[1] - g.padding[1][0] for j in columns),
            tuple(rows),
            tuple(columns),
            g.stride,
            (0, 0),
            (1, 1),
        )
    ]


def _phases(kernel: int, stride: int, dilation: int, pad: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """For every residue of the input position modulo the stride: its taps, by rising offset into grad_output."""
    for residue in range(stride):
        taps = [i for i in reversed(range(kernel)) if (residue + pad - i * dilation) % stride == 0]
        yield tuple(taps), tuple((residue + pad - i * dilation) // stride for i in taps)


def input_gradient_passes(g: Geometry) -> list[Pass]:
    """The input gradient in stride x stride phases, each a stride-1 convolution of grad_output: no inserted zeros."""
    vertical = list(_phases(g.kernel_size[0], g.stride[0], g.dilation[0], g.padding[0][0]))
    horizontal = list(_phases(g.kernel_size[1], g.stride[1], g.dilation[1], g.padding[1][0]))
    return [
        Pass(tap_y, tap_x, rows, columns, (1, 1), (y, x), g.stride)
        for y, (rows, tap_y) in enumerate(vertical)
        for x, (columns, tap_x) in enumerate(horizontal)
    ]


# ---- blocking --------------------------------------------------------------------------------------------------


def _span(taps: Sequence[int]) -> int:
    return max(taps) - min(taps) + 1 if taps else 0


def _region_shape(p: Pass, tile: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns packed under a tile; a single tap packs every stride-th row (column) alone."""
    steps = (1 if len(p.tap_y) == 1 else p.stride[0], 1 if len(p.tap_x) == 1 else p.stride[1])
    return (tile[0] - 1) * steps[0] + _span(p.tap_y), (tile[1] - 1) * steps[1] + _span(p.tap_x)


def _split(total: int, most: int) -> int:
    """The size of equal pieces of `total`, none above `most`."""
    most = max(1, most)
    return -(-total // -(-total // most)) if total else 1


def direct_blocking(
    p: Pass, channels: int, outputs: int, groups: int, size: tuple[int, int], compute: int, threads: int, in_place: bool
) -> Blocking:
    """Loop sizes for one image of a pass: `channels`, `outputs` of a group, `size` the pass's output rows, columns."""
    element, lanes, vectors, rows = _native.tile_shape(compute)
    width = lanes * vectors
    reduction = max(32, WEIGHT_SLICE_BYTES // (width * element))
    leading = channels + (lanes if channels >= 64 and channels * element % 1024 == 0 else 0)
    panels = -(-outputs // width) if outputs else 1

    def region_bytes(tile: tuple[int, int]) -> int:
        height, breadth = _region_shape(p, tile)
        return height * breadth * leading * element

    source = IN_PLACE if in_place else REGION
    tile_x = _split(size[1], MOST_PIXELS)
    if in_place:
        most = max(rows, min(MOST_PIXELS, REGION_BYTES // max(1, channels * element)))
        tile_x = _split(size[1], most)
        tile_y = max(1, most // tile_x)
    else:
        while tile_x > 2 * rows and region_bytes((1, tile_x)) > REGION_BYTES:
            tile_x = _split(size[1], tile_x // 2)
        tile_y = 1
        while tile_y < size[0] and (tile_y + 1) * tile_x <= MOST_PIXELS and region_bytes((tile_y + 1, tile_x)) <= REGION_BYTES:
            tile_y += 1
        if region_bytes((1, tile_x)) > GATHER_ABOVE_BYTES:
            source, tile_x, tile_y = GATHER, _split(size[1], 4 * rows), 1
            reduction = 256
    tile_y = _split(size[0], tile_y)

    # enough tasks for the threads: panels where weights weigh more than pixels, rows elsewhere
    panels_per_task = panels
    if threads > 1:

        def tasks() -> int:
            return groups * -(-max(1, size[0]) // tile_y) * -(-max(1, size[1]) // tile_x) * -(-panels // panels_per_task)

        weight_bytes = len(p.rows) * len(p.columns) * channels * outputs * element
        wanted = 4 * threads
        if weight_bytes > 1 << 20 and tasks() < wanted:
            panels_per_task = max(1, panels * tasks() // wanted)
        while tasks() < wanted and tile_y > 1 and tile_y * tile_x > 8 * rows:
            tile_y = _split(size[0], tile_y - 1)
        if tasks() < wanted:
            panels_per_task = max(1, panels * tasks() // wanted)
    tile = (tile_y, tile_x)
    pixels = tile_y * tile_x
    region = 0 if in_place else pixels * reduction * element if source == GATHER else region_bytes(tile)
    taps = len(p.tap_y) * len(p.tap_x)
    segments = reduction + 2 if source == GATHER else max(taps, taps * (channels // reduction + 2) + 1)
    return Blocking(
        source, tile, reduction, panels_per_task, threads, region + pixels * (width * element + 16) + 24 * segments + 256
    )


def _threads_for(macs: int, threads: int) -> int:
    return 1 if macs < SERIAL_BELOW_MACS else threads


# ---- weights packed for a list of passes -----------------------------------------------------------------------


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


def why_not_winograd(p: Pass, channels: int, outputs: int, groups: int, dtype: np.dtype[Any]) -> str | None:
    """Why Winograd F(4x4, 3x3) cannot compute a pass; None if it can."""
    if dtype != np.float32:
        return f"the element type is {dtype}, not float32"
    if p.stride != (1, 1) or p.step != (1, 1):
        return f"the stride is {p.stride if p.stride != (1, 1) else p.step}, not (1, 1)"
    for taps in (p.tap_y, p.tap_x):
        if len(taps) != 3:
            return f"the kernel is {len(p.tap_y)} x {len(p.tap_x)}, not 3 x 3"
        if taps[1] - taps[0] != 1 or taps[2] - taps[1] != 1:
            return "the kernel is dilated"
    if groups != 1:
        return f"groups is {groups}, not 1"
    if channels == 0 or outputs == 0:
        return "there are no channels"
    return None


def choose_algorithm(
    p: Pass, channels: int, outputs: int, groups: int, size: tuple[int, int], dtype: np.dtype[Any], algorithm: str,
    prepared: bool = False,
) -> tuple[str, str]:
    """('direct' or 'winograd', the reason) from the shapes of one image, the element type and the caller's wish.

    `prepared` weights are transformed once for many runs; a single call must earn the transform back in one image.
    """
    if algorithm != "auto":
        return algorithm, "asked for"
    if why := why_not_winograd(p, channels, outputs, groups, dtype):
        return "direct", f"Winograd does not apply: {why}"
    macs = 9 * channels * outputs * prod(size)
    least = WINOGRAD_SIZE_PREPARED if prepared else WINOGRAD_SIZE
    if min(channels, outputs) < WINOGRAD_CHANNELS or min(size) < least or macs < WINOGRAD_MACS:
        return "direct", (
            f"too small for Winograd, which starts at {WINOGRAD_CHANNELS} channels, {least} x {least} "
            f"outputs and {WINOGRAD_MACS:,} multiply-adds an image"
        )
    return "winograd", "3x3 at stride 1 in float32 with enough work: 36 multiplications for 16 outputs instead of 144"


def pack(
    p: Pass, weight: Array, groups: int, transposed: bool, compute: int, threads: int, algorithm: str = "direct"
) -> PackedWeights:
    """Pack the taps of a pass; `transposed` swaps input and output channels as the input gradient needs."""
    outputs, channels = weight.shape[0] // groups, weight.shape[1]
    if transposed:
        outputs, channels = channels, outputs
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


def _reads_in_place(p: Pass, x: Array, size: tuple[int, int], compute: int) -> bool:
    """One tap, nothing padded, channels side by side: the kernels read the array as it lies."""
    if len(p.tap_y) != 1 or len(p.tap_x) != 1 or x.dtype != COMPUTE_DTYPES[compute] or 0 in size:
        return False
    inside = all(
        0 <= tap[0] and tap[0] + (count - 1) * stride < extent
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
    if packed.transformed is None:
        run_direct(p, packed, x, out, bias, residual, activation, groups, mode, compute, threads)
        return
    if out.size == 0:
        return
    _, lanes, vectors, rows = _native.tile_shape(compute)
    flags = np.zeros((out.shape[0], -(-out.shape[2] // 4)), np.uint8)
    block, panels_per_task = winograd_blocking(x.shape[1], out.shape[1], out.shape, lanes, vectors, rows, threads)
    padded_bias = bias
    if bias is not None and bias.size % lanes:
        padded_bias = np.zeros(-(-bias.size // lanes) * lanes, bias.dtype)
        padded_bias[: bias.size] = bias
    _native.winograd(
        compute, x, STORAGE[x.dtype], packed.transformed, padded_bias, out, STORAGE[out.dtype], residual, activation,
        p.tap_y[0], p.tap_x[0], mode, flags, block, max(32, WEIGHT_SLICE_BYTES // (4 * lanes * vectors)),
        panels_per_task, threads,
    )  # fmt: skip
    if flags.any():
        for n, row in np.argwhere(flags):
            part = slice(4 * row, 4 * row + 4)
            shifted = replace(p, tap_y=tuple(tap + 4 * int(row) for tap in p.tap_y))
            run_direct(
                shifted, packed, x[n : n + 1], out[n : n + 1, :, part], bias,
                None if residual is None else residual[n : n + 1, :, part], activation, groups, mode, compute, threads,
            )  # fmt: skip


def winograd_blocking(
    channels: int, outputs: int, shape: tuple[int, ...], lanes: int, vectors: int, rows: int, threads: int
) -> tuple[int, int]:
    """(tiles of a block, panels of a task): the transformed input of a block stays in the second-level cache."""
    tiles = shape[0] * -(-shape[2] // 4) * -(-shape[3] // 4)
    block = WINOGRAD_BYTES // (36 * 4 * (channels + lanes)) // rows * rows
    block = max(4 * rows, min(16 * rows, block))
    panels = -(-outputs // (lanes * vectors))
    if threads > 1:
        while block > 4 * rows and -(-tiles // block) < 4 * threads:
            block -= rows
    blocks = -(-tiles // block)
    panels_per_task = panels if blocks >= 3 * threads else max(1, panels * blocks // (3 * threads))
    return block, panels_per_task


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
    blocking = direct_blocking(
        p, channels, outputs, groups, size, compute, _threads_for(macs, threads), in_place
    )
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


# ---- integers that could leave their range -----------------------------------------------------------------------


def _largest(array: Array) -> int:
    """Largest magnitude in an integer array."""
    return max(abs(int(array.max())), abs(int(array.min()))) if array.size else 0


def _fits_signed(name: str, array: Array) -> None:
    if array.dtype == np.uint64 and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise ConvError(
            f"{name} holds {int(array.max())}, above the largest int64 {np.iinfo(np.int64).max}: integer results are "
            "int64 and nothing wraps silently. Scale the values down or convert to float64."
        )


def _cannot_leave(limit: int, x: Array, weight: Array, terms: int, extra: int) -> bool:
    """Whether |sum| <= limit is certain: by the element types alone if possible, else by the largest values."""
    by_dtype = (1 << (8 * x.itemsize)) * (1 << (8 * weight.itemsize)) * terms // (
        (1 if x.dtype.kind == "u" else 2) * (1 if weight.dtype.kind == "u" else 2)
    )
    if by_dtype + extra <= limit:
        return True
    return _largest(x) * _largest(weight) * terms + extra <= limit


def _integer_overflow(what: str, out: Array, x: Array, weight: Array) -> ConvError:
    return ConvError(
        f"{what} of {x.dtype} {x.shape} and {weight.dtype} {weight.shape} leaves the range of its {out.dtype} result; "
        "nothing wraps silently. Convert to a wider integer type or to float64."
    )


class _Checked:
    """Runs an integer operation so that its result is exact or a `ConvError`, with `out` written only if exact."""

    def __init__(self, what: str, x_name: str, x: Array, w_name: str, w: Array, terms: int, extra: int, out: Array) -> None:
        _fits_signed(x_name, x)
        _fits_signed(w_name, w)
        self.what, self.x, self.w, self.out = what, x, w, out
        self.certain = _cannot_leave(int(np.iinfo(out.dtype).max), x, w, terms, extra)
        self.certain_wide = self.certain or _cannot_leave(int(np.iinfo(np.int64).max), x, w, terms, extra)
        self.terms = terms


def _run_checked(check: _Checked, run: Any, run_float: Any) -> None:
    """`run(out)` computes in out's own type; `run_float(x, w, out)` is the same operation in float64."""
    if check.certain:
        run(check.out)
        return
    if not check.certain_wide:
        # int64 sums wrap modulo 2^64: they are right exactly where the true value fits, which float64 decides
        x, w = check.x.astype(np.float64), check.w.astype(np.float64)
        value, magnitude = np.empty(check.out.shape), np.empty(check.out.shape)
        run_float(x, w, value)
        run_float(np.abs(x), np.abs(w), magnitude)
        error = (check.terms + 4) * 2.0**-52 * magnitude
        if np.any(np.abs(value) + error >= 2.0**63):
            raise _integer_overflow(check.what, check.out, check.x, check.w)
    wide = np.empty(check.out.shape, np.int64)
    run(wide)
    limits = np.iinfo(check.out.dtype)
    if wide.size and (wide.max() > limits.max or wide.min() < limits.min):
        raise _integer_overflow(check.what, check.out, check.x, check.w)
    check.out[...] = wide


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
        packed = pack(p, w, g.groups, False, compute, _threads_for(to.size, threads), how)
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
            _fits_signed(name, array)
            extra += _largest(array)
    terms = prod(g.kernel_size) * weight.shape[1]
    check = _Checked("conv2d", "input", input, "weight", weight, terms, extra, out)

    def as_type(array: Array | None, dtype: Any) -> Array | None:
        return None if array is None else array.astype(dtype)

    def run_float(x: Array, w: Array, to: Array) -> None:
        run(x, w, to, as_type(bias, np.float64), as_type(residual, np.float64))

    _run_checked(
        check, lambda to: run(_narrowed(input, to), _narrowed(weight, to), to, bias, as_type(residual, to.dtype)), run_float
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
        _fits_signed("bias", bias)
        extra = _largest(bias)
    terms = prod(g.kernel_size) * max(1, g.out_channels // g.groups)
    if g.padding_mode != "zeros":  # one input element may lie under many padded positions
        terms *= max(1, prod(g.output_size))
    check = _Checked("the input gradient", "grad_output", grad_output, "weight", weight, terms, extra, out)
    _run_checked(
        check,
        lambda to: run(_narrowed(grad_output, to), _narrowed(weight, to), to, bias),
        lambda dy, w, to: run(dy, w, to, None if bias is None else bias.astype(np.float64)),
    )


def _zero_padded_input_gradient(
    g: Geometry, dy: Array, w: Array, bias: Array | None, out: Array, groups: int, algorithm: str, threads: int
) -> None:
    compute = COMPUTE[out.dtype]
    bias = _bias_for(bias, compute)
    for p in input_gradient_passes(g):
        if 0 in p.output_size((out.shape[2], out.shape[3])):
            continue
        size = (out.shape[2], out.shape[3])
        how, _ = choose_algorithm(p, w.shape[0] // groups, w.shape[1], groups, size, out.dtype, algorithm)
        packed = pack(p, w, groups, True, compute, _threads_for(out.size, threads), how)
        run_pass(p, packed, dy, out, bias, None, 0, groups, 0, compute, threads)


def _fold(padded: Array, before: int, size: int, mode: str, axis: int) -> Array:
    """Adjoint of padding along one axis: every padded position adds to the element it repeats."""
    from .geometry import padded_index

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


@dataclass(frozen=True, slots=True)
class WeightGradientBlocking:
    """Loop sizes of the weight gradient; `parts` cuts its sum, by shape alone."""

    taps: tuple[int, int]
    channels: int
    panels: int
    tile: tuple[int, int]
    chunk_rows: int
    parts: int


def weight_gradient_blocking(g: Geometry, compute: int) -> WeightGradientBlocking:
    """Loop sizes from the shapes and the register tile; the batch counts only for the number of parts."""
    element, lanes, vectors, rows = _native.tile_shape(compute)
    width = lanes * vectors
    channels, outputs = max(1, g.in_channels // g.groups), max(1, g.out_channels // g.groups)
    panels = -(-outputs // width)
    panel_bytes = min(width, -(-outputs // lanes) * lanes) * element
    pixels = max(rows, WEIGHT_SLICE_BYTES // panel_bytes)  # a chunk of one panel stays in the first level
    tile_x = _split(g.output_size[1], min(pixels, 128) * 5 // 4)
    chunk_rows = max(1, pixels // tile_x)

    def span(tile: int, taps: int, axis: int) -> int:
        step = 1 if taps == 1 else g.stride[axis]
        return (tile - 1) * step + (taps - 1) * g.dilation[axis] + 1

    def region(tile_y: int, taps: tuple[int, int], count: int) -> int:
        return span(tile_y, taps[0], 0) * span(tile_x, taps[1], 1) * count * element

    taps = g.kernel_size
    for smaller in ((1, g.kernel_size[1]), (1, 1)):
        if prod(taps) * rows * panel_bytes > SUMS_BYTES or region(1, taps, rows) > GATHER_ABOVE_BYTES:
            taps = smaller
    count = min(channels, max(rows, SUMS_BYTES // (prod(taps) * panel_bytes) // rows * rows), 256)
    while count > rows and region(1, taps, count) > REGION_BYTES:
        count = max(rows, count // 2)
    count = -(-channels // -(-channels // count))
    panel_block = max(1, min(panels, SUMS_BYTES // (prod(taps) * count * panel_bytes)))
    tile_y = min(max(1, g.output_size[0]), chunk_rows)
    while (
        tile_y + chunk_rows <= g.output_size[0]
        and region(tile_y + chunk_rows, taps, count) <= REGION_BYTES
        and (tile_y + chunk_rows) * tile_x * panel_bytes <= REGION_BYTES // 2
    ):
        tile_y += chunk_rows
    blocks = (
        g.groups * -(-g.kernel_size[0] // taps[0]) * -(-g.kernel_size[1] // taps[1])
        * -(-channels // count) * -(-panels // panel_block)
    )  # fmt: skip
    tiles = g.batch * -(-g.output_size[0] // tile_y) * -(-g.output_size[1] // tile_x)
    block_bytes = prod(taps) * count * panel_block * width * element
    parts = max(1, min(tiles, -(-32 // blocks), PARTIAL_SUMS_BYTES // (blocks * block_bytes)))
    return WeightGradientBlocking(taps, count, panel_block, (tile_y, tile_x), chunk_rows, parts)


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

    def run(x: Array, dy: Array, to: Array) -> None:
        compute = COMPUTE[to.dtype]
        b = weight_gradient_blocking(g, compute)
        _native.weight_gradient(
            compute, x, STORAGE[x.dtype], dy, STORAGE[dy.dtype], to, STORAGE[to.dtype], g.groups, *g.stride,
            *g.dilation, g.padding[0][0], g.padding[1][0], PADDING_MODES[g.padding_mode], *b.taps, b.channels,
            b.panels, *b.tile, b.chunk_rows, b.parts, _threads_for(dy.size * prod(to.shape[1:]), threads),
        )  # fmt: skip

    if out.dtype.kind == "f":
        run(input, grad_output, out)
        return
    terms = g.batch * prod(g.output_size)
    check = _Checked("the weight gradient", "input", input, "grad_output", grad_output, terms, 0, out)
    _run_checked(check, lambda to: run(_narrowed(input, to), _narrowed(grad_output, to), to), run)


def bias_gradient(grad_output: Array, out: Array, *, threads: int = 1) -> None:
    """out (C,) = the sum of grad_output over batch and pixels."""
    rows = grad_output.shape[0] * grad_output.shape[2]
    if grad_output.size == 0:
        out[...] = 0
        return
    parts = max(1, min(rows, 32, PARTIAL_SUMS_BYTES // (8 * grad_output.shape[1])))
    team = _threads_for(grad_output.size, threads)

    def run(dy: Array, to: Array) -> None:
        _native.bias_gradient(COMPUTE[to.dtype], dy, STORAGE[dy.dtype], to, STORAGE[to.dtype], parts, team)

    if out.dtype.kind == "f":
        run(grad_output, out)
        return
    one = np.ones((1, 1, 1, 1), np.int8)
    terms = grad_output.size // grad_output.shape[1]
    check = _Checked("the bias gradient", "grad_output", grad_output, "one", one, terms, 0, out)
    _run_checked(check, lambda to: run(_narrowed(grad_output, to), to), lambda dy, _, to: run(dy, to))


# ---- pooling -----------------------------------------------------------------------------------------------------


def _pool(
    kind: str, pg: PoolGeometry, x: Array, y: Array, indices: Array | None, include: bool, divisor: int, threads: int
) -> None:
    (top, bottom), (left, right) = pg.padding
    limit = (pg.input_size[0] + bottom, pg.input_size[1] + right)
    _native.pool(
        kind, STORAGE[x.dtype], x.itemsize, x, y, indices, pg.kernel_size, pg.stride, (top, left), pg.dilation, limit,
        include, divisor, _threads_for(4 * max(x.size, y.size), threads),
    )  # fmt: skip


def max_pool(pg: PoolGeometry, input: Array, out: Array, indices: Array | None, *, threads: int = 1) -> None:
    """Maximum over every window; `indices` receives the flat position in the input plane of the first maximum."""
    _pool("max", pg, input, out, indices, False, 0, threads)


def max_pool_gradient(pg: PoolGeometry, grad_output: Array, indices: Array, out: Array, *, threads: int = 1) -> None:
    """Every gradient goes to the position of its maximum."""
    out[...] = 0
    _pool("max_gradient", pg, grad_output, out, indices, False, 0, threads)


def avg_pool(
    pg: PoolGeometry, input: Array, out: Array, *, count_include_pad: bool, divisor_override: int | None, threads: int = 1
) -> None:
    """Mean over every window."""
    _refuse_integer_average(input)
    _pool("avg", pg, input, out, None, count_include_pad, divisor_override or 0, threads)


def avg_pool_gradient(
    pg: PoolGeometry, grad_output: Array, out: Array, *, count_include_pad: bool, divisor_override: int | None, threads: int = 1
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


def explain(g: Geometry, dtype: Any, *, algorithm: str = "auto", threads: int = 1) -> ConvExplanation:
    """What `forward` would do for this geometry; runs nothing."""
    dtype = np.dtype(dtype)
    check_algorithm(g, dtype, algorithm)
    out = dtype if dtype.kind == "f" else np.dtype("int32") if dtype.itemsize <= 2 else np.dtype("int64")
    compute = COMPUTE[out]
    element, lanes, vectors, rows = _native.tile_shape(compute)
    (p,) = forward_passes(g)
    channels, outputs = g.in_channels // g.groups, g.out_channels // g.groups
    macs = g.batch * g.out_channels * prod(g.output_size) * channels * prod(g.kernel_size)
    team = _threads_for(macs, threads)
    b = direct_blocking(p, channels, outputs, g.groups, g.output_size, compute, team, False)
    reason = "asked for" if algorithm == "direct" else "exact for every geometry and element type"
    return ConvExplanation(
        "direct", _native.isa_name(), str(dtype), team, b.tile, b.reduction, (rows, vectors * lanes), SOURCES[b.source],
        b.scratch_bytes * team, _native.packed_bytes(compute, g.groups, prod(g.kernel_size), channels, outputs), macs,
        reason,
    )  # fmt: skip


class ConvPlan:
    """A convolution prepared once and run many times: packed weights, chosen blocking.

    Built by `fastconv.plan_conv2d`. The weights are copied: later changes to the array do not reach the plan.
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
        self.dtype = np.dtype(dtype)
        self._channels_last = data_format == "NHWC"
        self._batched = batched
        self._activation = activation
        self._algorithm = algorithm
        self._threads = threads
        self._explanation = explain(g, dtype, algorithm=algorithm, threads=threads)
        self._weight: Array | None = None
        if self.dtype.kind == "f":
            self._compute = COMPUTE[self.dtype]
            (self._pass,) = forward_passes(g)
            self._packed = pack(
                self._pass, weight, g.groups, False, self._compute, threads, self._explanation.algorithm
            )
            self._bias = _bias_for(bias, self._compute)
            if self._bias is bias and bias is not None:
                self._bias = bias.copy()
        else:
            self._weight, self._bias = weight.copy(), None if bias is None else bias.copy()

    @property
    def workspace_bytes(self) -> int:
        """Scratch memory of one run beside input, output and packed weights, in bytes."""
        return self._explanation.workspace_bytes

    def explain(self) -> ConvExplanation:
        """Algorithm, instruction set, tiles, memory and the reason."""
        return self._explanation

    def run(self, input: Any, out: Array | None = None) -> Array:
        """Convolve `input`: the planned shape, any batch size, the planned element type."""
        from .functional import prepare_plan_arrays

        x, y, result, finish = prepare_plan_arrays(self.geometry, self.dtype, self._channels_last, self._batched, input, out)
        if self._weight is not None:
            forward(
                self.geometry, x, self._weight, self._bias, self._activation, None, y, algorithm=self._algorithm,
                threads=self._threads,
            )  # fmt: skip
        else:
            run_pass(
                self._pass, self._packed, x, y, self._bias, None, ACTIVATIONS[self._activation], self.geometry.groups,
                PADDING_MODES[self.geometry.padding_mode], self._compute, self._threads,
            )  # fmt: skip
        finish()
        return result
