"""Types of the compiled module. Arrays are NumPy arrays in the order (batch, channel, [[depth,] height,] width)."""

from collections.abc import Callable, Sequence
from typing import Any

from numpy import dtype
from numpy.typing import NDArray

Array = NDArray[Any]

def set_main_thread(ident: int) -> None: ...
def after_fork() -> None: ...
WORKSPACE_BYTES: int
LONG_SUM: int
WEIGHT_GRADIENT_FEW: tuple[int, int]
DTYPES: dict[str, int]
COMPUTES: dict[str, int]
ACTIVATIONS: dict[str | None, int]
PADDING_MODES: dict[str, int]
WINOGRAD_CHANNELS: int
WINOGRAD_FEW: int

def sources() -> int: ...
def isas_built() -> tuple[str, ...]: ...
def isas_available() -> tuple[str, ...]: ...
def isa_name() -> str: ...
def isa_use(name: str) -> bool: ...
def openmp_runtime() -> str: ...
def use_threads_of(parallel: int, seat: int, inside: int, most: int) -> None: ...
def openmp_threads() -> int: ...
def room_for_threads() -> int: ...
def computes(compute: int) -> bool: ...
def interleaves_rows() -> bool: ...
def tile_shape(compute: int) -> tuple[int, int, int, int]: ...
def sum_bytes(weight: Array, sums: Array) -> None: ...
def bytes_add(
    out: Array, a: Array, b: Array, scale_a: float, zero_a: int, scale_b: float, zero_b: int, scale: float, zero: int,
    low: int, high: int, is_signed: bool, threads: int,
) -> None: ...  # fmt: skip
def bytes_quantise(
    out: Array, x: Array, scale: float, zero: int, low: int, high: int, is_signed: bool, threads: int
) -> None: ...
def bytes_dequantise(out: Array, x: Array, scale: float, zero: int, is_signed: bool, threads: int) -> None: ...
def bytes_look_up(out: Array, x: Array, table: Array, threads: int) -> None: ...
def bytes_scale(
    out: Array, x: Array, b: Array, scale_a: float, zero_a: int, scale_b: float, zero_b: int, scale: float, zero: int,
    low: int, high: int, is_signed: bool, threads: int,
) -> None: ...  # fmt: skip
def bytes_mean(
    out: Array, x: Array, factor: float, x_zero: int, zero: int, low: int, high: int, x_signed: bool, is_signed: bool,
    threads: int,
) -> None: ...  # fmt: skip
def depthwise_order(channels: int, four: bool) -> tuple[int, list[int]]: ...
def operands_of(compute: int) -> tuple[int, int, int]: ...
def lane_chunk(compute: int) -> tuple[int, int]: ...
def lanes_picked(compute: int, channels: int, outputs: int) -> bool: ...
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
def isa_number() -> int: ...
def threads_for(macs: int, threads: int, pixels: int = ...) -> int: ...
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
        line: Direct | None = None,
    ) -> None: ...
    def alone(self, i: int) -> Direct: ...
    def blocking(
        self, i: int = 0, lies: bool = False
    ) -> tuple[int, int, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]], int, int]: ...
    def shape(self, i: int = 0) -> tuple[int, int, int]: ...
    def streams(self) -> bool: ...
    def planes(self) -> int: ...
    def few(self) -> bool: ...
    def point(self) -> bool: ...
    def adds_in_place(self) -> bool: ...
    def scales(self) -> bool: ...
    def run_scaled(
        self, x: Array, scale: Array, shift: Array | None, relu: bool, weight: Array, packed: object,
        bias: Array | None, residual: Array | None, y: Array, activation: int, threads: int,
    ) -> None: ...  # fmt: skip
    def few_taps(self) -> int: ...
    def shifted(self, images: int = 1, threads: int = 1) -> int: ...
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
    ) -> bytes | None: ...

class _OfBytes:
    def run(
        self,
        x: Array,
        weight: Array,
        packed: object,
        bias: object,
        residual: Array | None,
        y: Array,
        activation: int,
        channels_last: bool,
        threads: int,
    ) -> None: ...

class WinogradBytes(_OfBytes):
    def __init__(self, codes: object, padding: tuple[int, int], fill: int) -> None: ...
    def panel_bytes(self, channels: int, outputs: int) -> int: ...
    def scratch_bytes(self, channels: int) -> int: ...

class DepthwiseBytes(_OfBytes):
    def __init__(
        self,
        codes: object,
        kernel: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
        origin: Sequence[int],
        fill: int,
        four: bool,
    ) -> None: ...
    def block_bytes(self) -> int: ...
    def scratch_bytes(self) -> int: ...

class _Fast:
    def run(
        self,
        x: Array,
        weight: Array,
        packed: Any,
        bias: Array | None,
        residual: Array | None,
        y: Array,
        activation: int,
        channels_last: bool,
        threads: int,
    ) -> bytes | None: ...

class Winograd(_Fast):
    def __init__(
        self,
        codes: Any,
        extent: Any,
        p: Any,
        blocking: Any,
        kind: int,
        transposed: bool = False,
        pool: bool = False,
    ) -> None: ...
    def scratch_bytes(self, held: bool) -> int: ...

class Lanes(_Fast):
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    def __init__(self, codes: Any, extent: Any, passes: tuple[Any, ...], blocking: Any) -> None: ...
    def in_place(self, lies: bool) -> bool: ...
    def scratch_bytes(self, lies: bool) -> int: ...
    def flat(self) -> bool: ...
    def flat_bytes(self) -> int: ...
    def transposed(self) -> int: ...
    def patches(self, images: int, threads: int) -> tuple[int, int, int, int, int, bool] | None: ...

class Depthwise(_Fast):
    places: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    def __init__(self, codes: Any, extent: Any, passes: tuple[Any, ...]) -> None: ...
    def takes(self, x: Array, residual: Array | None, y: Array, channels_last: bool) -> bool: ...
    def patches(self, images: int, threads: int) -> tuple[int, int, int, int, int, bool] | None: ...

class LanesGradient:
    def __init__(self, codes: Any, extent: Any, p: Any, blocking: Any) -> None: ...
    def run(self, x: Array, dy: Array, dw: Array, threads: int) -> None: ...

class WinogradGradient:
    def __init__(self, codes: Any, extent: Any, p: Any, blocking: Any, kind: int) -> None: ...
    def run(self, x: Array, dy: Array, dw: Array, threads: int) -> None: ...

def winograd_kinds() -> dict[str, tuple[int, int, int, int, int, int, int, tuple[int, ...]]]: ...
def winograd_scratch_bytes(
    compute: int, kind: int, channels: int, deep: int, stride: int, blocking: Any, columns: int, held: bool
) -> int: ...
def winograd_weights(
    compute: int, kind: int, packed: Array, transformed: Array, channels: int, outputs: int, threads: int
) -> None: ...
class WinogradLines(_Fast):
    def __init__(
        self,
        codes: Any,
        extent: Any,
        p: Any,
        blocking: Any,
        order: tuple[int, int, int],
        kinds: tuple[int, int],
    ) -> None: ...
    def scratch_bytes(self) -> int: ...

LINE_TILE: int

def winograd_line_kinds() -> dict[str, tuple[int, int, int]]: ...
def winograd_lines_scratch_bytes(
    compute: int,
    kinds: tuple[int, int],
    channels: int,
    taps: tuple[int, int, int],
    strides: tuple[int, int, int],
    blocking: Any,
) -> int: ...
def lay_over(
    compute: int,
    products: Array,
    out: Array,
    kernel: Sequence[int],
    step: Sequence[int],
    pad: Sequence[int],
    begun: bool,
    threads: int,
) -> None: ...
def winograd_lines_weights(
    compute: int,
    kinds: tuple[int, int],
    packed: Array,
    transformed: Array,
    channels: int,
    outputs: int,
    taps: tuple[int, int, int],
    apart: tuple[int, int, int],
    blocking: Any,
    threads: int,
) -> None: ...
class WeightGradient:
    def __init__(self, codes: object, extent: object, p: object, blocking: object) -> None: ...
    def scratch_bytes(self, images: int) -> int: ...
    def run(self, x: Array, dy: Array, dw: Array, threads: int) -> None: ...

def bias_gradient(
    compute: int, dy: Array, dy_code: int, out: Array, out_code: int, parts: int, threads: int
) -> None: ...
def pool(
    kind: str, code: int, x: Array, y: Array, index: Array | None, window: object, threads: int, low: int = 0
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
def move(out: Array, x: Array, places: tuple[Array | None, ...], threads: int) -> None: ...
def interleave(out: Array, a: Array, b: Array, threads: int) -> None: ...
CASTS: dict[tuple[str, str], tuple[int, int, int]]

def cast(out: Array, x: Array, how: tuple[int, int, int], threads: int) -> None: ...
def reduce(how: str, out: Array, x: Array, threads: int) -> None: ...
def extreme_places(how: str, last: bool, out: Array, x: Array, threads: int) -> None: ...
def resize(
    out: Array, x: Array, rows: tuple[Array, Array] | None, columns: tuple[Array, Array] | None, threads: int
) -> None: ...
def matmul(out: Array, a: Array, b: Array, threads: int) -> None: ...
def dense(x: Array, w: Array, out: Array, threads: int) -> None: ...

def __getattr__(name: str) -> Any: ...  # the program of a method that declares its own

def record(into: list[Any] | None) -> list[Any] | None: ...

def pair(first: Work, second: Work) -> Work | None: ...

class Planned:
    def __init__(
        self, dtype: dtype[Any], input_shape: tuple[int, ...], output_shape: tuple[int, ...], contiguous: bool,
        adds_in_place: bool = False,
    ) -> None: ...  # fmt: skip
    def takes(self, input: Any, out: Any = None, residual: Any = None) -> bool: ...
    def again(self, input: Any, out: Any, residual: Any = None) -> bool: ...
    def keep(self, works: list[Any], input: Array, out: Array, residual: Array | None = None) -> None: ...

class Work:
    flagged: bool
    def run(self) -> bytes | None: ...

class Net:
    movable: list[bool]
    def __init__(self, works: Sequence[Work], regions: Sequence[tuple[int, int]]) -> None: ...
    def move(self, region: int, array: Array) -> None: ...
    def run(self, first: int, last: int, threads: int) -> int: ...

class Straight:
    def __init__(
        self, net: Net, inputs: Sequence[tuple[str, Array, int]], outputs: Sequence[tuple[str, Array, int]],
        copied: Callable[[Array, int], Array],
    ) -> None: ...  # fmt: skip
    def run(self, feeds: object, threads: int) -> dict[str, Array] | None: ...
