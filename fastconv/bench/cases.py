"""The layers that are timed, in sets: those of VGG-16, ResNet-50 and MobileNets, and the kinds that nets have besides.

MACs are counted as direct convolution has them, padding taps included, so that GFLOP/s (two a multiply-add) of
different algorithms compare. `count` is how often the network has the layer: the sum of count × MACs over a set is the
network's figure.
"""

from __future__ import annotations

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


@dataclass(frozen=True)
class Case:
    """One convolution with symmetric padding; `size` is the square input, transposed weights are (I, O, kH, kW)."""

    set: str
    name: str
    family: str
    in_channels: int
    out_channels: int
    size: int
    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    batch: int = 1
    transposed: bool = False
    dtype: str = "float32"
    count: int = 1
    counted: bool = True  # whether the set's mean includes it

    @property
    def output_size(self) -> int:
        reach = self.dilation * (self.kernel - 1) + 1
        if self.transposed:
            return (self.size - 1) * self.stride - 2 * self.padding + reach
        return (self.size + 2 * self.padding - reach) // self.stride + 1

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        return (self.batch, self.in_channels, self.size, self.size)

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        return (self.batch, self.out_channels, self.output_size, self.output_size)

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        first, second = self.out_channels, self.in_channels
        if self.transposed:
            first, second = second, first
        return (first, second // self.groups, self.kernel, self.kernel)

    @property
    def macs(self) -> int:
        """Multiply-adds of the pass (each pass has as many): every weight meets every pixel of the coarser side."""
        pixels = (self.size if self.transposed else self.output_size) ** 2
        return self.batch * pixels * int(np.prod(self.weight_shape))

    def describe(self) -> dict[str, Any]:
        """Every parameter, for a results file."""
        return {
            "input": list(self.input_shape), "weight": list(self.weight_shape), "output": list(self.output_shape),
            "stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups,
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


def _vgg16() -> list[Case]:
    """Configuration D of Simonyan and Zisserman (2014): its nine distinct 3x3 layers at 224 x 224."""
    rows = [
        ("conv1_1", 3, 64, 224, 1), ("conv1_2", 64, 64, 224, 1), ("conv2_1", 64, 128, 112, 1),
        ("conv2_2", 128, 128, 112, 1), ("conv3_1", 128, 256, 56, 1), ("conv3_2", 256, 256, 56, 2),
        ("conv4_1", 256, 512, 28, 1), ("conv4_2", 512, 512, 28, 2), ("conv5", 512, 512, 14, 3),
    ]  # fmt: skip
    return [
        Case("vgg16", f"{name} {i}→{o} @{size}", "3×3", i, o, size, 3, padding=1, count=count, counted=i >= 64)
        for name, i, o, size, count in rows
    ]


def _resnet50() -> list[Case]:
    """He et al. (2015), with the stride in the 3x3 (the v1.5 layout): its 23 distinct convolutions at 224 x 224."""

    def conv(i: int, o: int, size: int, kernel: int, stride: int, count: int) -> Case:
        strided = " s2" if stride == 2 else ""
        kind = f"{kernel}×{kernel}{strided}"
        family = {"7×7 s2": "stem"}.get(kind, kind)
        return Case("resnet50", f"{kind} {i}→{o} @{size}", family, i, o, size, kernel, stride, kernel // 2, count=count)

    cases = [conv(3, 64, 224, 7, 2, 1)]
    size, before = 56, 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        after = 4 * width
        stride = 1 if width == 64 else 2
        inner = size // stride
        cases.append(conv(before, width, size, 1, 1, 1))
        if stride == 2:
            cases.append(conv(width, width, size, 3, 2, 1))
        cases.append(conv(width, width, inner, 3, 1, blocks - (stride == 2)))
        # Stage 1 has its projection at stride 1, where it is the same convolution as the expansions.
        cases.append(conv(width, after, inner, 1, 1, blocks + (stride == 1)))
        if stride == 2:
            cases.append(conv(before, after, size, 1, 2, 1))
        cases.append(conv(after, width, inner, 1, 1, blocks - 1))
        size, before = inner, after
    return cases


def _mobilenet() -> list[Case]:
    """Depthwise layers and 1x1 of MobileNet v1 to v3 (Howard et al. 2017, 2019; Sandler et al. 2018)."""
    depthwise = [
        (3, 1, 32, 112), (3, 2, 64, 112), (3, 1, 128, 56), (3, 2, 128, 56), (3, 1, 144, 56), (3, 1, 256, 28),
        (3, 2, 256, 28), (3, 1, 512, 14), (3, 2, 512, 14), (3, 1, 1024, 7),
        (5, 2, 72, 56), (5, 1, 120, 28), (5, 1, 672, 14), (5, 2, 672, 14), (5, 1, 960, 7),
    ]  # fmt: skip
    cases = []
    for kernel, stride, channels, size in depthwise:
        name = f"dw {kernel}×{kernel}{' s2' if stride == 2 else ''} {channels} @{size}"
        cases.append(
            Case(
                "mobilenet", name, f"depthwise {kernel}×{kernel}", channels, channels, size, kernel, stride,
                kernel // 2, groups=channels,
            )
        )  # fmt: skip
    pointwise = [
        (32, 64, 112), (64, 128, 56), (24, 144, 56), (144, 24, 56), (256, 256, 28), (512, 512, 14), (1024, 1024, 7),
    ]  # fmt: skip
    cases += [Case("mobilenet", f"1×1 {i}→{o} @{size}", "1×1", i, o, size, 1) for i, o, size in pointwise]
    return cases


def _misc() -> list[Case]:
    """Kinds of convolution besides: each is a family of its own, and its own bar."""

    def conv(name: str, family: str, i: int, o: int, size: int, kernel: int = 3, **options: Any) -> Case:
        return Case("misc", name, family, i, o, size, kernel, **{"padding": kernel // 2, **options})

    dcgan = {"stride": 2, "padding": 1, "transposed": True, "batch": 16}
    cifar = "batches of CIFAR's size"
    return [
        conv("first 3→64 @224", "first layer", 3, 64, 224),
        conv("dilated 2 128→128 @56", "dilated", 128, 128, 56, padding=2, dilation=2),
        conv("dilated 2 256→256 @28", "dilated", 256, 256, 28, padding=2, dilation=2),
        conv("32 groups 128→128 @56", "grouped", 128, 128, 56, groups=32),
        conv("32 groups 256→256 @28", "grouped", 256, 256, 28, groups=32),
        conv("transposed 4×4 s2 512→256 @8 ×16", "transposed", 512, 256, 8, 4, **dcgan),
        conv("transposed 4×4 s2 256→128 @16 ×16", "transposed", 256, 128, 16, 4, **dcgan),
        conv("odd 17→33 @56", "odd channels", 17, 33, 56),
        conv("5×5 32→64 @56", "5×5", 32, 64, 56, 5),
        conv("5×5 128→128 @28", "5×5", 128, 128, 28, 5),
        conv("float64 64→64 @56", "float64", 64, 64, 56, dtype="float64"),
        conv("float64 256→256 @14", "float64", 256, 256, 14, dtype="float64"),
        conv("7×7 map 256→256 @7", "small maps", 256, 256, 7),
        conv("7×7 map 512→512 @7", "small maps", 512, 512, 7),
        conv("160→160 @32 ×8", cifar, 160, 160, 32, batch=8),
        conv("64→64 @32 ×32", cifar, 64, 64, 32, batch=32),
        conv("128→128 @16 ×32", cifar, 128, 128, 16, batch=32),
        conv("256→256 @8 ×32", cifar, 256, 256, 8, batch=32),
        conv("tiny 8→8 @8", "tiny", 8, 8, 8),
    ]


SETS: Final[dict[str, list[Case]]] = {
    "vgg16": _vgg16(),
    "resnet50": _resnet50(),
    "mobilenet": _mobilenet(),
    "misc": _misc(),
}
