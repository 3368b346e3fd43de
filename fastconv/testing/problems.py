"""One seeded source of problems for `fastconv check`, the tests' guard pages, and thread and batch invariance.

Every case is reproducible alone: it is drawn from its kind and index, and so are its arrays. The sizes are small (a
cost limit in multiply-adds) so that thousands run in a minute; the odd ones are the point: channel counts beside the
widths of vectors, planes smaller than the kernel, strides longer than it, crops, empty axes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core.activations import FUSED

Array = NDArray[Any]

CHANNELS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65)
PADDING_MODES = ("zeros", "reflect", "replicate", "circular", "symmetric")
ACTIVATIONS = tuple(FUSED)
EXACT_ACTIVATIONS = (None, "relu", "relu6")
INTEGER_PAIRS = (
    ("int8", "int8"),
    ("uint8", "int8"),
    ("int8", "uint8"),
    ("uint8", "uint8"),
    ("int16", "int16"),
    ("uint16", "int8"),
    ("int32", "int32"),
    ("int64", "int64"),
    ("uint32", "int16"),
    ("uint64", "int64"),
)
EMPTY_CHANNELS = ((0, 3, 1), (3, 0, 1), (0, 0, 1))  # input channels, output channels, groups
MOST_MACS = 400_000
MOST_POOLED = 20_000  # values of a pooling's input
# By the number of axes: names of layouts (as often as they are drawn), lengths up to which an axis is drawn, channels.
DATA_FORMATS = {
    1: ("NCW", "NCL", "NWC", "NLC", "channels_first", "channels_last"),
    2: ("NCHW", "NCHW", "NHWC", "NHWC", "channels_first", "channels_last"),
    3: ("NCDHW", "NCDHW", "NDHWC", "NDHWC", "channels_first", "channels_last"),
}
LENGTHS = {1: (8, 41, 161), 2: (8, 16, 41), 3: (4, 7, 11)}
AXIS_CHANNELS = {1: CHANNELS, 2: CHANNELS, 3: (1, 2, 3, 4, 5, 8, 9, 16, 17)}


@dataclass(frozen=True)
class Case:
    """What every problem has."""

    index: int
    batch: int | None  # None: the batch axis is left out
    in_channels: int
    size: tuple[int, ...]
    data_format: str

    @property
    def axes(self) -> int:
        return len(self.size)

    @property
    def channels_last(self) -> bool:
        return self.data_format in ("NWC", "NLC", "NHWC", "NDHWC", "channels_last")

    @property
    def input_shape(self) -> tuple[int, ...]:
        spatial = (*self.size, self.in_channels) if self.channels_last else (self.in_channels, *self.size)
        return spatial if self.batch is None else (self.batch, *spatial)

    def rng(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng([self.index, *purpose.encode()])


@dataclass(frozen=True)
class ConvCase(Case):
    """A call of a convolution or a `transposed` one; channels are the caller's input and output channels."""

    transposed: bool
    out_channels: int
    groups: int
    kernel: tuple[int, ...]
    stride: Any
    padding: Any
    dilation: Any
    output_padding: Any
    padding_mode: str
    dtypes: tuple[str, str]
    with_bias: bool
    with_residual: bool
    activation: str | None
    large: bool  # integers near the largest that fit
    padding_value: int = 0  # of the mode 'constant'

    @property
    def is_float(self) -> bool:
        return self.dtypes[0].startswith("float")

    @property
    def terms(self) -> int:
        """Products summed in one output value, at most."""
        return self.in_channels // self.groups * prod(self.kernel)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        first, second = self.out_channels, self.in_channels // self.groups
        if self.transposed:
            first, second = self.in_channels, self.out_channels // self.groups
        return (*self.kernel, second, first) if self.channels_last else (first, second, *self.kernel)

    def options(self) -> dict[str, Any]:
        """The keyword arguments of the call, arrays and what follows the convolution left out."""
        named: dict[str, Any] = {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "data_format": self.data_format,
        }
        if self.transposed:
            named["output_padding"] = self.output_padding
        else:
            named["padding_mode"] = self.padding_mode
            if self.padding_value:
                named["padding_value"] = self.padding_value
        return named

    def arrays(self, values: str) -> tuple[Array, Array, Array | None]:
        """Input, weight and bias filled with `values`: 'integers' or 'reals'."""
        rng = self.rng("arrays")
        input = fill(rng, self.input_shape, self.dtypes[0], values, self.large)
        weight = fill(rng, self.weight_shape, self.dtypes[1], values, self.large)
        bias = fill(rng, (self.out_channels,), self.dtypes[1], values) if self.with_bias else None
        return input, weight, bias

    def __str__(self) -> str:
        name = f"conv{'_transpose' if self.transposed else ''}{self.axes}d"
        options = ", ".join(f"{key}={value!r}" for key, value in self.options().items())
        return (
            f"case {self.index}: {name}(input {self.dtypes[0]}{self.input_shape}, "
            f"weight {self.dtypes[1]}{self.weight_shape}, {options}; bias={self.with_bias}, "
            f"residual={self.with_residual}, activation={self.activation}, large={self.large})"
        )


@dataclass(frozen=True)
class TiledCase(Case):
    """A call of tiled_conv2d."""

    out_channels: int
    tile: tuple[int, int]
    kernel: tuple[int, ...]
    stride: Any
    padding: Any
    dilation: Any
    dtype: str
    with_bias: bool

    @property
    def weight_shape(self) -> tuple[int, ...]:
        if self.channels_last:
            return (*self.tile, *self.kernel, self.in_channels, self.out_channels)
        return (*self.tile, self.out_channels, self.in_channels, *self.kernel)

    def options(self) -> dict[str, Any]:
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "data_format": self.data_format,
        }

    def __str__(self) -> str:
        options = ", ".join(f"{key}={value!r}" for key, value in self.options().items())
        return (
            f"case {self.index}: tiled_conv2d({self.dtype}, input {self.input_shape}, weight {self.weight_shape}, "
            f"{options}, bias={self.with_bias})"
        )


@dataclass(frozen=True)
class PoolCase(Case):
    """A call of max_pool or avg_pool of as many axes as `size` has."""

    kernel: Any
    stride: Any
    padding: Any
    dilation: Any  # of a max pool
    ceil_mode: bool
    count_include_pad: bool
    divisor_override: int | None
    dtype: str

    def options(self) -> dict[str, Any]:
        """What both kinds of pooling take, after input and kernel size."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "ceil_mode": self.ceil_mode,
            "data_format": self.data_format,
        }

    def __str__(self) -> str:
        options = ", ".join(f"{key}={value!r}" for key, value in self.options().items())
        return (
            f"case {self.index}: pool({self.dtype}{self.input_shape}, {self.kernel}, {options}, "
            f"dilation={self.dilation}, count_include_pad={self.count_include_pad}, "
            f"divisor_override={self.divisor_override})"
        )


def fill(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: str, values: str = "reals", large: bool = False
) -> Array:
    """Values of a type: standard normal reals, or integers so small that every partial sum of a case is exact."""
    kind = np.dtype(dtype)
    if values == "reals" and kind.kind == "f":
        return rng.standard_normal(shape).astype(kind)
    # Of 8 bits every value is right: 255 * 255 * (at most 65 * 49 terms) < 2**31.
    most = 8 if kind.kind == "f" else 255 if kind.itemsize == 1 else 400 if kind.itemsize == 2 else 1000
    if large and kind.kind != "f" and kind.itemsize >= 4:
        most = 2**23
    low = 0 if kind.kind == "u" else -most
    if kind.kind != "f":
        low, most = max(low, int(np.iinfo(kind).min)), min(most, int(np.iinfo(kind).max))
    return rng.integers(low, most, shape, endpoint=True).astype(kind)


@lru_cache(64)  # as many as the tests ask for again and again
def conv_cases(count: int, first: int = 0, axes: int = 2) -> tuple[ConvCase, ...]:
    return tuple(_draw_conv(index, transposed=False, axes=axes) for index in range(first, first + count))


@lru_cache(64)  # as many as the tests ask for again and again
def constant_cases(count: int, first: int = 0, axes: int = 2) -> tuple[ConvCase, ...]:
    """The same problems with padding that holds a number, which every type can hold."""
    drawn = (_draw_conv(index, transposed=False, axes=axes) for index in range(first, first + count))
    return tuple(
        replace(case, padding_mode="constant", padding_value=-3 if case.dtypes[0][0] in "fi" and case.index % 2 else 5)
        for case in drawn
    )


@lru_cache(64)  # as many as the tests ask for again and again
def transposed_cases(count: int, first: int = 0, axes: int = 2) -> tuple[ConvCase, ...]:
    return tuple(_draw_conv(index, transposed=True, axes=axes) for index in range(first, first + count))


@lru_cache(64)  # as many as the tests ask for again and again
def tiled_cases(count: int, first: int = 0) -> tuple[TiledCase, ...]:
    return tuple(_draw_tiled(index) for index in range(first, first + count))


@lru_cache(64)  # as many as the tests ask for again and again
def pool_cases(count: int, first: int = 0, axes: int = 2) -> tuple[PoolCase, ...]:
    return tuple(_draw_pool(index, axes) for index in range(first, first + count))


# ---- Drawing --------------------------------------------------------------------------------------------------------


def _generator(kind: int, index: int, axes: int) -> np.random.Generator:
    """Problems of two axes keep the numbers that they were drawn from before there were others."""
    return np.random.default_rng([kind, index] if axes == 2 else [kind, index, axes])


def _draw_conv(index: int, transposed: bool, axes: int = 2) -> ConvCase:
    rng = _generator(1 + transposed, index, axes)
    while True:
        kernel = _draw_kernel(rng, axes)
        stride, dilation = _draw_step(rng, axes), _draw_step(rng, axes)
        padding = _draw_padding(rng, axes)
        mode = "zeros" if transposed or rng.random() < 0.6 else _pick(rng, PADDING_MODES[1:])
        output_padding = tuple(int(rng.integers(0, max(s, d))) for s, d in zip(stride, dilation, strict=True))
        effective = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
        least = [1] * axes
        for axis in range(axes):
            before, after = pads_of(padding, axis, effective[axis])
            if not transposed:
                least[axis] = max(1, effective[axis] - before - after, -before, -after)
                if mode == "zeros" and rng.random() < 0.01:  # an empty plane under padding alone
                    least[axis] = max(0, effective[axis] - before - after, -before, -after)
            elif not isinstance(padding, str):
                # (size - 1) * stride - pads + effective + output_padding must leave at least one pixel.
                missing = 1 + before + after - effective[axis] - output_padding[axis]
                least[axis] = max(1, 1 - (-missing // stride[axis]))
            elif padding.lower() == "full":
                missing = 1 + 2 * (effective[axis] - 1) - effective[axis] - output_padding[axis]
                least[axis] = max(1, 1 - (-missing // stride[axis]))
        size = tuple(_draw_size(rng, length, LENGTHS[axes]) for length in least)
        in_channels, out_channels, groups = _draw_channels(rng, transposed, AXIS_CHANNELS[axes])
        batch = _pick(rng, (0, 1, 1, 1, 2, 2, 3, None))
        dtypes = _draw_dtypes(rng)
        counted = size if transposed else _about(size, stride, effective, padding)
        macs = (batch or 1) * prod(counted) * prod(kernel) * in_channels * out_channels // groups
        if macs > MOST_MACS or (macs > MOST_MACS // 8 and not dtypes[0].startswith("float")):
            continue
        activation = None
        if not transposed and rng.random() < 0.3:
            activation = _pick(rng, ACTIVATIONS if dtypes[0].startswith("float") else ACTIVATIONS[:2])
        return ConvCase(
            index=index,
            transposed=transposed,
            batch=batch,
            in_channels=in_channels,
            out_channels=out_channels,
            groups=groups,
            size=size,
            kernel=kernel,
            stride=_spelled(rng, stride),
            padding=padding,
            dilation=_spelled(rng, dilation),
            output_padding=_spelled(rng, output_padding) if transposed else 0,
            padding_mode=mode,
            data_format=_pick(rng, DATA_FORMATS[axes]),
            dtypes=dtypes,
            with_bias=bool(rng.random() < 0.6),
            with_residual=bool(not transposed and rng.random() < 0.2),
            activation=activation,
            large=bool(rng.random() < 0.25),
        )


def _draw_tiled(index: int) -> TiledCase:
    rng = np.random.default_rng([3, index])
    while True:
        conv = _draw_conv(int(rng.integers(1 << 30)), transposed=False)
        tile = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
        # The reference convolves with every kernel of the tile.
        if conv.groups != 1 or conv.padding_mode != "zeros" or 0 in conv.size:
            continue
        if conv.in_channels * conv.out_channels * conv.size[0] * conv.size[1] * max(1, conv.batch or 1) > 60_000:
            continue
        return TiledCase(
            index=index, batch=conv.batch, in_channels=conv.in_channels, out_channels=conv.out_channels, tile=tile,
            size=conv.size, kernel=conv.kernel, stride=conv.stride, padding=conv.padding, dilation=conv.dilation,
            data_format=conv.data_format, dtype=conv.dtypes[0], with_bias=conv.with_bias,
        )  # fmt: skip


def _draw_pool(index: int, axes: int = 2) -> PoolCase:
    rng = _generator(4, index, axes)
    one = (1,) * axes
    while True:
        kernel = _numbers(rng, 1, 6, axes)
        if rng.random() < 0.4:
            kernel = kernel[:1] * axes
        stride = None if rng.random() < 0.3 else _draw_step(rng, axes)
        dilation = one if rng.random() < 0.6 else _draw_step(rng, axes)
        size = _numbers(rng, 1, LENGTHS[axes][-1], axes)
        if rng.random() < 0.5:  # tiny planes, where every window meets an edge
            size = _numbers(rng, 1, 8, axes)
        padding = _draw_pool_padding(rng, kernel)
        steps = kernel if stride is None else stride
        dilations = {dilation, one}  # an average pool has none
        if not all(
            _pool_fits(size[a], kernel[a], steps[a], d[a], padding, a) for a in range(axes) for d in dilations
        ):
            continue
        channels = _pick(rng, AXIS_CHANNELS[axes])
        batch = _pick(rng, (0, 1, 1, 1, 2, 2, 3, None))
        if channels * prod(size) * max(1, batch or 1) > MOST_POOLED:
            continue
        return PoolCase(
            index=index,
            batch=batch,
            in_channels=channels,
            size=size,
            kernel=_spelled(rng, kernel),
            stride=None if stride is None else _spelled(rng, stride),
            padding=padding,
            dilation=_spelled(rng, dilation),
            ceil_mode=bool(rng.random() < 0.4),
            count_include_pad=bool(rng.random() < 0.5),
            divisor_override=int(rng.integers(1, 9)) if rng.random() < 0.2 else None,
            data_format=_pick(rng, DATA_FORMATS[axes][1:3]),
            dtype=_pick(rng, ("float32", "float32", "float32", "float64", "float16", "int8", "uint16", "int64")),
        )


def _pick(rng: np.random.Generator, choices: tuple[Any, ...]) -> Any:
    return choices[int(rng.integers(len(choices)))]


def _spelled(rng: np.random.Generator, numbers: tuple[int, ...]) -> Any:
    """(2, 2) may be written 2."""
    return numbers[0] if len(set(numbers)) == 1 and rng.random() < 0.6 else numbers


def _numbers(rng: np.random.Generator, low: int, high: int, axes: int) -> tuple[int, ...]:
    """A number from `low` to below `high` for each axis."""
    return tuple(int(rng.integers(low, high)) for _ in range(axes))


def _draw_kernel(rng: np.random.Generator, axes: int) -> tuple[int, ...]:
    if rng.random() < 0.5:
        return (_pick(rng, (1, 1, 2, 3, 3, 3, 4, 5, 6, 7) if axes < 3 else (1, 1, 2, 3, 3)),) * axes
    return _numbers(rng, 1, 8 if axes < 3 else 5, axes)


def _draw_step(rng: np.random.Generator, axes: int) -> tuple[int, ...]:
    """A stride or a dilation."""
    return tuple(int(v) for v in rng.choice([1, 2, 3], axes, p=[0.6, 0.25, 0.15]))


def _draw_padding(rng: np.random.Generator, axes: int) -> Any:
    kind = int(rng.integers(6))
    if kind == 0:
        return 0
    if kind == 1:
        return int(rng.integers(1, 5))
    if kind == 2:
        return tuple(int(v) for v in rng.integers(0, 4, axes))
    if kind == 3:
        return tuple(tuple(int(v) for v in rng.integers(-2, 4, 2)) for _ in range(axes))
    words = ("valid", "same", "SAME", "Same_Lower", "same_lower", "full")
    return _pick(rng, (*words, "causal", "CAUSAL") if axes == 1 else words)


def pads_of(padding: Any, axis: int, effective: int) -> tuple[int, int]:
    """What a padding surely adds along an axis; 'same' never makes a plane too small, so its worth is not needed."""
    if isinstance(padding, str):
        sides = {"valid": (0, 0), "causal": (effective - 1, 0)}
        return sides.get(padding.lower(), (effective - 1, effective - 1))
    if isinstance(padding, int):
        return padding, padding
    return padding[axis] if isinstance(padding[axis], tuple) else (padding[axis], padding[axis])


def _draw_size(rng: np.random.Generator, least: int, lengths: tuple[int, ...]) -> int:
    """Mostly small planes, up to the longest of `lengths`; often just as large as the kernel needs."""
    if rng.random() < 0.2:
        return least
    return least + int(rng.integers(0, max(1, _pick(rng, lengths) - least)))


def _draw_channels(
    rng: np.random.Generator, transposed: bool, counts: tuple[int, ...]
) -> tuple[int, int, int]:
    kind = rng.random()
    if kind < 0.02:
        return EMPTY_CHANNELS[int(rng.integers(len(EMPTY_CHANNELS)))]
    if kind < 0.6:
        return _pick(rng, counts), _pick(rng, counts), 1
    if kind < 0.8:  # depthwise, with one or more outputs an input (a transposed one the other way round)
        channels, multiplier = _pick(rng, counts), int(rng.integers(1, 4))
        one_to_many = (channels, channels * multiplier, channels)
        return (one_to_many[1], one_to_many[0], channels) if transposed and rng.random() < 0.5 else one_to_many
    groups = int(rng.integers(2, 5))
    widths = (1, 2, 3, 4, 7, 8, 9, 16, 17)
    return groups * _pick(rng, widths), groups * _pick(rng, widths), groups


def _draw_dtypes(rng: np.random.Generator) -> tuple[str, str]:
    kind = rng.random()
    if kind < 0.5:
        return "float32", "float32"
    if kind < 0.67:
        return "float64", "float64"
    if kind < 0.82:
        return "float16", "float16"
    return INTEGER_PAIRS[int(rng.integers(len(INTEGER_PAIRS)))]


def _about(size: Any, stride: Any, effective: Any, padding: Any) -> tuple[int, ...]:
    """The size of the output, roughly, for the cost limit."""
    padded = [length + sum(pads_of(padding, axis, effective[axis])) for axis, length in enumerate(size)]
    return tuple(max(1, (n - e) // s + 1) for n, e, s in zip(padded, effective, stride, strict=True))


def _draw_pool_padding(rng: np.random.Generator, kernel: tuple[int, ...]) -> Any:
    kind = int(rng.integers(5))
    if kind == 0:
        return 0
    if kind == 1:
        return int(rng.integers(0, min(kernel) // 2 + 1))
    if kind == 2:
        return tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel)
    if kind == 3:
        return tuple(tuple(int(v) for v in rng.integers(0, k // 2 + 1, 2)) for k in kernel)
    return _pick(rng, ("valid", "same"))


def _pool_fits(size: int, kernel: int, stride: int, dilation: int, padding: Any, axis: int) -> bool:
    """Whether there is a window and each has a tap inside the plane (dilated taps may all step over a tiny one)."""
    effective = dilation * (kernel - 1) + 1
    if isinstance(padding, str):
        short = 0 if padding == "valid" else max((-(-size // stride) - 1) * stride + effective - size, 0)
        before, after = short // 2, short - short // 2
    else:
        before, after = pads_of(padding, axis, effective)
    if size + before + after < effective:
        return False
    starts = range(-before, size, stride)
    return all(any(0 <= start + tap * dilation < size for tap in range(kernel)) for start in starts)
