"""The sets of layers that are timed: those of VGG-16, ResNet-50 and MobileNets, the kinds that nets have besides, and
layers of other nets.

Of the sets behind the first four every second layer, counted from the second, is held out: it is only reported, and no
constant of this library may be chosen by looking at its speed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from .cases import Axes, Case
from .layers_of_nets import NETS, Spec


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


def _held_out(name: str, specs: list[Spec]) -> list[Case]:
    """A set, its layers named by what they are."""
    return [_case(name, spec, place % 2 == 1) for place, spec in enumerate(specs)]


def _case(name: str, spec: Spec, held_out: bool) -> Case:
    i, o, size, kernel, more = spec
    options: dict[str, Any] = {"padding": _half(kernel, more.get("dilation", 1)), **more}
    case = Case(name, "", "", i, o, size, kernel, **options, held_out=held_out)
    return replace(case, name=_named(case), family=_kind(case))


def _half(kernel: Axes, dilation: int) -> Axes:
    """What keeps the size at stride 1."""
    if isinstance(kernel, int):
        return dilation * (kernel - 1) // 2
    return tuple(dilation * (k - 1) // 2 for k in kernel)


def _times(numbers: tuple[int, ...]) -> str:
    return "×".join(map(str, numbers))


def _named(case: Case) -> str:
    square = len(set(case.input_size)) == 1
    words = ["transposed"] * case.transposed + [f"dw {_times(case.taps)}" if _depthwise(case) else _times(case.taps)]
    words += [f"s{case.stride}"] * (case.stride > 1) + [f"d{case.dilation}"] * (case.dilation > 1)
    pads = case.pads[:1] if len(set(case.pads)) == 1 else case.pads
    words += [f"p{_times(pads)}"] * (case.padding != _half(case.kernel, case.dilation))
    words += [f"{case.groups} groups"] * (case.groups > 1 and not _depthwise(case))
    words.append(str(case.in_channels) if _depthwise(case) else f"{case.in_channels}→{case.out_channels}")
    words.append(f"@{case.input_size[0] if square else _times(case.input_size)}")
    return " ".join(words + [f"×{case.batch}"] * (case.batch > 1))


def _depthwise(case: Case) -> bool:
    return case.groups == case.in_channels == case.out_channels > 1


def _kind(case: Case) -> str:
    """The family: what decides how a layer is best computed."""
    strided = f" s{case.stride}" if case.stride > 1 else ""
    if case.transposed:
        return "transposed"
    if set(case.input_size) == {1} and set(case.taps) == {1}:
        return "dense"
    if _depthwise(case):
        return "depthwise"
    if case.groups > 1:
        return "grouped"
    if case.dilation > 1:
        return "dilated"
    if case.in_channels <= 4:
        return "first layer"
    if set(case.taps) == {case.stride} and case.stride > 1:
        return "patches"
    return f"{_times(case.taps)}{strided}"


SETS: Final[dict[str, list[Case]]] = {
    "vgg16": _vgg16(),
    "resnet50": _resnet50(),
    "mobilenet": _mobilenet(),
    "misc": _misc(),
    **{name: _held_out(name, specs) for name, specs in NETS.items()},
}
