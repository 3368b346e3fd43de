"""A layer that is timed, and its data.

MACs are counted as direct convolution has them, padding taps included, so that GFLOP/s (two a multiply-add) of
different algorithms compare. `count` is how often the network has the layer: the sum of count × MACs over a set is the
network's figure.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from .._core.arrays import Array, empty

PASSES: Final = ("fwd", "eager", "dx", "dw")
NET: Final = "net"
TRAIN: Final = "train"
LOAD: Final = "load"
PASS_WORDS: Final = {
    "fwd": "forward, prepared",
    "eager": "forward, plain call",
    "dx": "input gradient",
    "dw": "weight gradient",
    NET: "inference of whole networks",  # these are not of single layers: see `nets` and `loads`
    TRAIN: "training steps",
    LOAD: "from the bytes of a model to a session",
}


Axes = int | tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """One convolution with symmetric padding; transposed weights are (I, O, *kernel).

    `kernel`, `size` (of the input) and `padding` have a number an axis; one for all stands for two axes, or for as
    many as the kernel has.
    """

    set: str
    name: str
    family: str
    in_channels: int
    out_channels: int
    size: Axes
    kernel: Axes
    stride: int = 1
    padding: Axes = 0
    dilation: int = 1
    groups: int = 1
    batch: int = 1
    transposed: bool = False
    dtype: str = "float32"
    count: int = 1
    counted: bool = True  # whether the set's mean includes it
    held_out: bool = False  # whether it is only reported: no constant is chosen by looking at it

    @property
    def taps(self) -> tuple[int, ...]:
        """The kernel's size along each axis."""
        return (self.kernel,) * 2 if isinstance(self.kernel, int) else self.kernel

    @property
    def axes(self) -> int:
        """1, 2 or 3."""
        return len(self.taps)

    @property
    def pads(self) -> tuple[int, ...]:
        """The padding on both sides of each axis."""
        return (self.padding,) * self.axes if isinstance(self.padding, int) else self.padding

    @property
    def input_size(self) -> tuple[int, ...]:
        """Pixels along each axis."""
        return (self.size,) * self.axes if isinstance(self.size, int) else self.size

    @property
    def output_size(self) -> tuple[int, ...]:
        """Pixels of the result along each axis."""

        def along(n: int, kernel: int, pad: int) -> int:
            reach = self.dilation * (kernel - 1) + 1
            if self.transposed:
                return (n - 1) * self.stride - 2 * pad + reach
            return (n + 2 * pad - reach) // self.stride + 1

        return tuple(map(along, self.input_size, self.taps, self.pads))

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.batch, self.in_channels, *self.input_size)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self.batch, self.out_channels, *self.output_size)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        first, second = self.out_channels, self.in_channels
        if self.transposed:
            first, second = second, first
        return (first, second // self.groups, *self.taps)

    @property
    def macs(self) -> int:
        """Multiply-adds of the pass (each pass has as many): every weight meets every pixel of the coarser side."""
        pixels = math.prod(self.input_size if self.transposed else self.output_size)
        return self.batch * pixels * math.prod(self.weight_shape)

    def describe(self) -> dict[str, Any]:
        """Every parameter, for a results file."""
        padding = self.padding if isinstance(self.padding, int) else list(self.padding)
        return {
            "input": list(self.input_shape), "weight": list(self.weight_shape), "output": list(self.output_shape),
            "stride": self.stride, "padding": padding, "dilation": self.dilation, "groups": self.groups,
            "transposed": self.transposed, "dtype": self.dtype,
        }  # fmt: skip


@dataclass(frozen=True)
class Data:
    """A case's arrays in the logical order NCHW and OIHW, C-contiguous."""

    x: Array
    weight: Array
    bias: Array
    dy: Array


def make_data(case: Case) -> Data:
    """Normal values, the same for a case in every run; weights are scaled so that outputs are of magnitude one."""
    generator = np.random.default_rng(zlib.crc32(f"{case.set}/{case.name}".encode()))

    def normal(shape: tuple[int, ...], scale: float = 1.0) -> Array:
        # on a cache line, as every library lays out its own arrays and results
        values = empty(shape, np.dtype("float64" if case.dtype == "float64" else "float32"))
        generator.standard_normal(out=values, dtype=values.dtype)
        return values if scale == 1.0 else (values * scale).astype(case.dtype, copy=False)

    terms = case.macs / max(1, int(np.prod(case.output_shape)))
    return Data(
        normal(case.input_shape), normal(case.weight_shape, terms**-0.5), normal((case.out_channels,)),
        normal(case.output_shape),
    )  # fmt: skip
