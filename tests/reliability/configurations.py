"""Configurations for the rows that judge numbers: drawn from their index alone, on purpose beside every edge.

More than half of them walk through the grid of kernel, stride, dilation and groups 1...9 and padding 0...9, each axis
of the image at its own point; the rest are 1 x 1, depthwise, 1-D, common kernels in planes about as wide as a vector,
tiles of kernels, and problems so large that threads share them or that the input under a tile is gathered.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fastconv.testing.problems import CHANNELS, PADDING_MODES
from reliability.oracle import Array, Oracle, tap_positions, word_padding

MOST_MACS = 150_000
MOST_INPUTS = 30_000
GRID = (9, 9, 9, 9, 10)  # kernel, stride, dilation, groups from 1; padding from 0
POINTS = 9 * 9 * 9 * 9 * 10
STEPS = (40_009, 28_657)  # coprime to POINTS, for rows and columns: consecutive points lie far apart
# beside the widths of vectors and of register tiles
WIDTHS = (*CHANNELS, 47, 48, 49, 127, 128, 129)
KINDS = (
    "grid", "1x1", "grid", "depthwise", "grid", "common", "grid", "common",
    "grid", "tiled", "grid", "1-D", "grid", "grid", "grid", "large",
)  # fmt: skip


@dataclass(frozen=True)
class Configuration:
    """A convolution of logical shapes (N, C, H, W) and (O, C/groups, kH, kW), and how it is to be called."""

    index: int
    kind: str
    batch: int
    channels: int
    outputs: int
    groups: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    word: str | None  # the padding as a caller may say it
    mode: str
    dtype: str
    channels_last: bool
    threads: int
    tiles: tuple[int, int] = (1, 1)

    def __str__(self) -> str:
        return (
            f"configuration {self.index} ({self.kind}): {self.dtype} input {self.input_shape}, weight "
            f"{self.weight_shape}, {self.options()}" + (f", tiles {self.tiles}" if self.kind == "tiled" else "")
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.batch, self.channels, *self.size)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.outputs, self.channels // self.groups, *self.kernel)

    @cached_property
    def positions(self) -> tuple[Array, Array]:
        rows, columns = (
            tap_positions(self.size[a], self.kernel[a], self.stride[a], self.dilation[a], self.padding[a], self.mode)
            for a in (0, 1)
        )
        return rows, columns

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self.batch, self.outputs, *(len(p) for p in self.positions))

    @property
    def output_padding(self) -> tuple[int, int]:
        """What the transposed convolution must add to give back the size of the input."""
        rows, columns = (
            self.size[a]
            - ((self.output_shape[2 + a] - 1) * self.stride[a] - sum(self.padding[a]))
            - (self.dilation[a] * (self.kernel[a] - 1) + 1)
            for a in (0, 1)
        )
        return rows, columns

    @cached_property
    def terms(self) -> tuple[int, int, int]:
        """Products summed, at most, in one value of the output, the input gradient and the weight gradient."""
        most = [
            int(np.bincount(p.ravel(), minlength=size + 1)[:size].max(initial=0))
            for p, size in zip(self.positions, self.size, strict=True)
        ]
        taps = self.kernel[0] * self.kernel[1]
        batch, _, rows, columns = self.output_shape
        return (
            self.channels // self.groups * taps,
            self.outputs // self.groups * most[0] * most[1],
            batch * rows * columns,
        )

    def options(self) -> dict[str, Any]:
        """stride, padding, dilation, groups and the rest as a caller may write them."""
        return {
            "stride": _short(self.stride),
            "padding": self.word or _short_padding(self.padding),
            "dilation": _short(self.dilation),
            "groups": self.groups,
            "padding_mode": self.mode,
            "data_format": "NHWC" if self.channels_last else "NCHW",
            "num_threads": self.threads,
        }

    def oracle(self, x: Array) -> Oracle:
        return Oracle(x, *self.positions, self.groups)

    def own(self, array: Array) -> Array:
        """An activation as the caller holds it."""
        return np.ascontiguousarray(array.transpose(0, 2, 3, 1)) if self.channels_last else array

    def own_weight(self, array: Array) -> Array:
        return np.ascontiguousarray(array.transpose(2, 3, 1, 0)) if self.channels_last else array

    def logical(self, array: Array) -> Array:
        return array.transpose(0, 3, 1, 2) if self.channels_last else array

    def logical_weight(self, array: Array) -> Array:
        return array.transpose(3, 2, 0, 1) if self.channels_last else array


def _short(pair: tuple[int, int]) -> Any:
    return pair[0] if pair[0] == pair[1] else pair


def _short_padding(padding: tuple[tuple[int, int], tuple[int, int]]) -> Any:
    (top, bottom), (left, right) = padding
    if top != bottom or left != right or top < 0 or left < 0:
        return padding
    return _short((top, left))


def draw(index: int) -> Configuration:
    """The configuration of an index."""
    rng = np.random.default_rng([5, index])
    kind = KINDS[index % len(KINDS)]
    common: dict[str, Any] = {
        "index": index,
        "kind": kind,
        "batch": int(rng.choice((1, 1, 2, 3))),
        "dtype": "float32" if rng.random() < 0.5 else "float64",
        "channels_last": bool(rng.random() < 0.5),
        "threads": 1,
        "word": None,
        "mode": "zeros",
    }
    if kind == "grid":
        before, at = divmod(index, len(KINDS))
        return _grid(rng, before * KINDS.count("grid") + KINDS[:at].count("grid"), common)
    if kind == "large":
        return _large(rng, common)
    return _ordinary(rng, kind, common)


def _digits(point: int) -> list[int]:
    digits = []
    for radix in GRID:
        point, digit = divmod(point, radix)
        digits.append(digit)
    return digits


def _grid(rng: np.random.Generator, walk: int, common: dict[str, Any]) -> Configuration:
    axes = [_digits(walk * step % POINTS) for step in STEPS]
    kernel, stride, dilation = (tuple(axis[i] + 1 for axis in axes) for i in range(3))
    groups, padding = axes[0][3] + 1, tuple((axis[4], axis[4]) for axis in axes)
    widths = (1, 1, 2, 2, 3, 4, 5, 7, 8, 9, 16, 17) if groups > 1 else WIDTHS
    return _fitted(
        rng, kernel=kernel, stride=stride, dilation=dilation, padding=padding, groups=groups,
        inputs=int(rng.choice(widths)), results=int(rng.choice(widths)), common=common,
    )  # fmt: skip


def _ordinary(rng: np.random.Generator, kind: str, common: dict[str, Any]) -> Configuration:
    stride = tuple(int(v) for v in rng.choice((1, 1, 1, 2, 3), 2))
    dilation = tuple(int(v) for v in rng.choice((1, 1, 1, 2, 3), 2))
    groups, inputs, results = 1, int(rng.choice(WIDTHS)), int(rng.choice(WIDTHS))
    if kind == "1x1":
        kernel, padding = (1, 1), ((0, 0), (0, 0)) if rng.random() < 0.7 else ((1, 0), (0, 2))
    else:
        side = int(rng.choice((2, 3, 3, 3, 4, 5, 7)))
        kernel = (side, side) if rng.random() < 0.6 else (side, int(rng.integers(1, 8)))
        padding = tuple(tuple(int(v) for v in rng.integers(-1, side, 2)) for _ in (0, 1))
        if rng.random() < 0.5:
            padding = ((side // 2, side // 2), (kernel[1] // 2, kernel[1] // 2))
    if kind == "depthwise":
        groups, inputs, results = inputs, 1, int(rng.choice((1, 1, 2, 3)))
    shape = (int(rng.integers(1, 9)), int(rng.choice((1, 3, 7, 8, 9, 15, 16, 17))))
    if kind == "1-D":
        kernel, stride, dilation, padding = (1, kernel[1]), (1, stride[1]), (1, dilation[1]), ((0, 0), padding[1])
        shape = (1, 5 * shape[1])
    if kind == "tiled":
        common["tiles"] = tuple(int(v) for v in rng.integers(1, 4, 2))
    elif rng.random() < 0.4:
        common["mode"] = str(rng.choice(PADDING_MODES[1:]))
    if kind == "common" and rng.random() < 0.3:
        common["word"] = str(rng.choice(("same", "same_lower", "valid", "full")))
    return _fitted(
        rng, kernel=kernel, stride=stride, dilation=dilation, padding=padding, groups=groups, inputs=inputs,
        results=results, common=common, outputs=shape,
    )  # fmt: skip


def _large(rng: np.random.Generator, common: dict[str, Any]) -> Configuration:
    """More than 2**20 multiply-adds, from where threads share the work; one in eight with a window above 4 MB."""
    common |= {"threads": int(rng.choice((2, 3, 4, 7))), "batch": int(rng.choice((1, 2)))}
    if common["index"] // len(KINDS) % 8 == 0:
        return _fitted(
            rng, kernel=(9, 5), stride=(1, 1), dilation=(8, 8), padding=((4, 4), (3, 3)), groups=1, inputs=300,
            results=int(rng.choice((3, 17))), common=common | {"batch": 1, "dtype": "float64"}, outputs=(2, 3),
            limit=1 << 22,
        )  # fmt: skip
    groups = int(rng.choice((1, 1, 1, 2, 3)))
    return _fitted(
        rng, kernel=(3, 3), stride=(1, 1) if rng.random() < 0.6 else (2, 1), dilation=(1, 1), padding=((1, 1), (1, 1)),
        groups=groups, inputs=int(rng.choice((15, 17, 33))), results=int(rng.choice((31, 65, 70))), common=common,
        outputs=(int(rng.integers(9, 16)), int(rng.integers(9, 16))), limit=1 << 22,
    )  # fmt: skip


def _fitted(
    rng: np.random.Generator,
    *,
    kernel: Any,
    stride: Any,
    dilation: Any,
    padding: Any,
    groups: int,
    inputs: int,
    results: int,
    common: dict[str, Any],
    outputs: tuple[int, int] | None = None,
    limit: int = MOST_MACS,
) -> Configuration:
    """`inputs` and `results` channels of a group, made fewer where the problem would be too slow, and a size with
    about so many `outputs` of which not too many see padding alone."""
    wanted = outputs or tuple(int(v) for v in rng.integers(1, 6, 2))
    size: list[int] = []
    pads: list[tuple[int, int]] = []
    for a in (0, 1):
        reach = dilation[a] * (kernel[a] - 1)
        if common["word"]:
            extent = max(reach + 1, wanted[a] * stride[a])
            size.append(extent)
            pads.append(word_padding(common["word"], extent, kernel[a], stride[a], dilation[a]))
            continue
        pad = padding[a]
        extent = (wanted[a] - 1) * stride[a] + reach + 1 - sum(pad) + int(rng.integers(0, stride[a]))
        least = 3 * max(0, max(pad) - reach) + max(0, -min(pad)) + 1
        size.append(max(1, least, extent, reach + 1 - sum(pad)))
        pads.append(pad)
    counts = [
        (size[a] + sum(pads[a]) - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1 for a in (0, 1)
    ]
    taps = counts[0] * counts[1] * kernel[0] * kernel[1]
    if limit == MOST_MACS:
        if common["batch"] * taps * groups * inputs * results > limit:
            common["batch"] = 1
        while inputs * results > 1 and (
            taps * groups * inputs * results > limit or groups * size[0] * size[1] * inputs > MOST_INPUTS
        ):
            if inputs > 1 and (results == 1 or groups * size[0] * size[1] * inputs > MOST_INPUTS or rng.random() < 0.5):
                inputs = max(1, inputs * 2 // 3)
            elif results > 1:
                results = max(1, results * 2 // 3)
            else:
                break
    return Configuration(
        channels=groups * inputs, outputs=groups * results, groups=groups, size=(size[0], size[1]), kernel=kernel,
        stride=stride, dilation=dilation, padding=(pads[0], pads[1]), **common,
    )  # fmt: skip
