"""Types of the compiled module. Arrays are NumPy arrays in the order (batch, channel, [[depth,] height,] width)."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

def set_main_thread(ident: int) -> None: ...
def after_fork() -> None: ...
WORKSPACE_BYTES: int
LONG_SUM: int

def sources() -> int: ...
def isas_built() -> tuple[str, ...]: ...
def isas_available() -> tuple[str, ...]: ...
def isa_name() -> str: ...
def isa_use(name: str) -> bool: ...
def openmp_runtime() -> str: ...
def openmp_threads() -> int: ...
def room_for_threads() -> int: ...
def tile_shape(compute: int) -> tuple[int, int, int, int]: ...
def lane_chunk(compute: int) -> tuple[int, int]: ...
def lanes_picked(compute: int, channels: int, outputs: int) -> bool: ...
def lane_scratch_bytes(
    compute: int,
    groups: int,
    channels: int,
    outputs: int,
    taps: tuple[int, int],
    span: tuple[int, int],
    stride: tuple[int, int],
    tile: tuple[int, int],
    lies: bool,
) -> tuple[int, bool]: ...
def fma_peak(threads: int = 1) -> float: ...
def packed_bytes(compute: int, groups: int, taps: int, channels: int, outputs: int) -> int: ...
def pack_lane_weights(
    compute: int,
    weight: Array,
    code: int,
    packed: Array,
    groups: int,
    rows: tuple[int, ...],
    columns: tuple[int, ...],
    threads: int,
) -> None: ...
def pack_weights(
    compute: int,
    weight: Array,
    code: int,
    packed: Array,
    groups: int,
    transposed: bool,
    places: tuple[tuple[int, ...], ...],
    threads: int,
) -> bool: ...
def lie_apart(a: Array, b: Array) -> bool: ...
def isa_number() -> int: ...
def threads_for(macs: int, threads: int) -> int: ...
def team_for(threads: int, tasks: int, scratch_bytes: int, beside: int = 0) -> int: ...

class Direct:
    def __init__(
        self,
        codes: object,
        extent: object,
        passes: Sequence[object],
        blockings: Sequence[object],
        in_place: Sequence[object | None],
        transposed: bool,
    ) -> None: ...
    def alone(self, i: int) -> Direct: ...
    def blocking(self, i: int = 0, lies: bool = False) -> tuple[int, int, tuple[int, int, int], int, int]: ...
    def shape(self, i: int = 0) -> tuple[int, int, int]: ...
    def streams(self) -> bool: ...
    def scratch_bytes(self, packed: bool, lies: bool = False) -> int: ...
    def run(
        self,
        x: Array,
        weight: Array,
        packed: object,
        bias: Array | None,
        residual: Array | None,
        y: Array,
        activation: int,
        channels_last: bool,
        threads: int,
    ) -> None: ...

def depthwise(
    compute: int,
    x: Array,
    x_code: int,
    packed: Array,
    bias: Array | None,
    y: Array,
    y_code: int,
    residual: Array | None,
    activation: int,
    channels_last: bool,
    groups: int,
    passes: tuple[tuple[tuple[int, ...], tuple[int, ...], int, int, int, int], ...],
    packed_rows: int,
    packed_columns: int,
    stride_y: int,
    stride_x: int,
    step_y: int,
    step_x: int,
    mode: int,
    tile_y: int,
    tile_x: int,
    chunks_per_task: int,
    threads: int,
) -> None: ...

class DepthwisePatches:
    def __init__(
        self,
        compute: int,
        passes: tuple[tuple[tuple[int, ...], tuple[int, ...], int, int, int, int], ...],
        rows: int,
        columns: int,
        stride_y: int,
        stride_x: int,
        step_y: int,
        step_x: int,
    ) -> None: ...
    def usable(self) -> bool: ...
    def blocking(
        self, images: int, channels: int, input_size: tuple[int, int], output_size: tuple[int, int], threads: int
    ) -> tuple[int, int, int, int, int, bool] | None: ...
    def run(
        self,
        x: Array,
        x_code: int,
        packed: Array,
        bias: Array | None,
        y: Array,
        y_code: int,
        activation: int,
        channels_last: bool,
        threads: int,
    ) -> bool: ...

def depthwise_weight_gradient(
    compute: int,
    x: Array,
    x_code: int,
    dy: Array,
    dy_code: int,
    dw: Array,
    dw_code: int,
    groups: int,
    tap_y: tuple[int, ...],
    tap_x: tuple[int, ...],
    stride_y: int,
    stride_x: int,
    mode: int,
    tile_y: int,
    tile_x: int,
    parts: int,
    threads: int,
) -> None: ...
def winograd_weights(
    compute: int, kind: int, packed: Array, transformed: Array, channels: int, outputs: int, threads: int
) -> None: ...
def winograd(
    compute: int,
    kind: int,
    x: Array,
    x_code: int,
    weight: Array,
    w_code: int,
    packed: Array | None,
    transformed: Array | None,
    transposed: bool,
    rows: tuple[int, ...],
    columns: tuple[int, ...],
    bias: Array | None,
    y: Array,
    y_code: int,
    residual: Array | None,
    activation: int,
    origin_y: int,
    origin_x: int,
    mode: int,
    pool: bool,
    few: bool,
    block: int,
    kc: int,
    slice: int,
    panels_per_task: int,
    channels_last: bool,
    threads: int,
) -> bytes | None: ...
def weight_gradient(
    compute: int,
    x: Array,
    x_code: int,
    dy: Array,
    dy_code: int,
    dw: Array,
    dw_code: int,
    groups: int,
    stride_y: int,
    stride_x: int,
    dilation_y: int,
    dilation_x: int,
    pad_y: int,
    pad_x: int,
    mode: int,
    tap_rows: int,
    tap_columns: int,
    channel_block: int,
    panel_block: int,
    tile_y: int,
    tile_x: int,
    chunk_rows: int,
    parts: int,
    threads: int,
) -> None: ...
def strassen_weights(
    compute: int, levels: int, packed: Array, transformed: Array, channels: int, outputs: int, threads: int
) -> None: ...
def strassen(
    compute: int,
    levels: int,
    x: Array,
    x_code: int,
    transformed: Array,
    bias: Array | None,
    y: Array,
    y_code: int,
    residual: Array | None,
    activation: int,
    stride: tuple[int, int],
    origin: tuple[int, int],
    mode: int,
    block: int,
    part: int,
    kc: int,
    panels_per_task: int,
    channels_last: bool,
    threads: int,
) -> bytes | None: ...
def winograd_line(
    compute: int,
    x: Array,
    x_code: int,
    transformed: Array,
    bias: Array | None,
    y: Array,
    y_code: int,
    residual: Array | None,
    activation: int,
    taps: int,
    stride_y: int,
    origin_y: int,
    origin_x: int,
    block: int,
    channels_last: bool,
    threads: int,
) -> bytes | None: ...
def winograd_weight_gradient(
    compute: int,
    kind: int,
    x: Array,
    x_code: int,
    dy: Array,
    dy_code: int,
    dw: Array,
    dw_code: int,
    pad_y: int,
    pad_x: int,
    dilation_y: int,
    dilation_x: int,
    mode: int,
    channel_block: int,
    group_tiles: int,
    parts: int,
    threads: int,
) -> None: ...
def bias_gradient(
    compute: int, dy: Array, dy_code: int, out: Array, out_code: int, parts: int, threads: int
) -> None: ...
def pool(
    kind: str,
    code: int,
    itemsize: int,
    x: Array,
    y: Array,
    index: Array | None,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    limit: tuple[int, int],
    count_include_pad: bool,
    divisor: int,
    threads: int,
    low: int = 0,
) -> None: ...
def relu_gradient(dz: Array, dy: Array, y: Array, most: float, total: Array, threads: int) -> None: ...
def channel_sums(x: Array, total: Array, threads: int) -> None: ...
def channel_products(
    a: Array, shift_a: Array, b: Array, shift_b: Array, total: Array, product: Array, threads: int
) -> None: ...
def affine(
    out: Array, x: Array, a: Array, z: Array | None, b: Array | None, c: Array, relu: bool, threads: int
) -> None: ...
def elementwise(
    out: Array,
    x: Array,
    operands: tuple[Array, ...],
    shape: tuple[int, ...],
    strides: tuple[tuple[int, ...], ...],
    steps: tuple[tuple[int, int, float], ...],
    threads: int,
) -> None: ...
def sgd(
    w: Array, g: Array, v: Array | None, rate: float, momentum: float, keep: float, nesterov: bool, threads: int
) -> None: ...
def adam(
    w: Array,
    g: Array,
    m: Array,
    s: Array,
    rate: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    keep: float,
    threads: int,
) -> None: ...
def max_pool_gradient(
    dx: Array,
    x: Array,
    y: Array,
    dy: Array,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    threads: int,
) -> None: ...
def dense(x: Array, w: Array, out: Array, threads: int) -> None: ...
