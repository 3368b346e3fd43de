"""What a convolution means in numbers, for any number of axes: sizes, padding, every refusal of a shape.

`windows` says the same of poolings, `transposed` of transposed convolutions.

Pure: no arrays. Shapes come in the logical order, activations as (batch, channels, *spatial) and weights as (out
channels, in channels of a group, *kernel), with one to three spatial axes. `shown` holds the shapes of input and weight
as the caller wrote them, for the messages, where they differ from that.

Along one axis of length H, with kernel k, stride s, dilation d and padding (p0, p1), output y looks through tap i at
position y*s + i*d - p0, and there are floor((H + p0 + p1 - d*(k-1) - 1) / s) + 1 outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from math import prod
from typing import Any, Final

from ..errors import ConvError
from .record import NamedTuple
from .words import (
    AXES,
    CAUSAL,
    CONSTANT,
    LARGEST_POSITION,
    MOST_AXES,
    Pads,
    Shape,
    Sides,
    Sizes,
    channel_groups,
    padding_content,
    parse_padding,
    per_axis,
)

LARGEST_BYTES: Final = 2**63 - 1
LARGEST_ELEMENT: Final = 8  # bytes of float64 and int64, in which any call may compute
SAME: Final = ("same", "same_lower")


class Geometry(NamedTuple):
    """One convolution (cross-correlation, as in every deep-learning library) with every size resolved."""

    batch: int
    in_channels: int
    out_channels: int
    groups: int
    input_size: Sizes
    kernel_size: Sizes
    output_size: Sizes
    stride: Sizes
    dilation: Sizes
    padding: Pads  # (before, after) of each axis; negative values crop
    padding_mode: str
    padding_value: float = 0  # of the mode 'constant', where it is never 0


# ---- rules along one axis ----------------------------------------------------------------------------------------


def extents(kernel: Sizes, dilation: Sizes) -> Sizes:
    """Positions that a dilated kernel spans along each axis."""
    return tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))


def _same(size: int, extent: int, stride: int, lower: bool) -> Sides:
    """TensorFlow's SAME: ceil(size / stride) outputs, the odd pixel of padding at the end (at the start if `lower`)."""
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + extent - size, 0)
    small, large = total // 2, total - total // 2
    return (large, small) if lower else (small, large)


def sides_of_word(chosen: str, size: int, extent: int, stride: int) -> Sides:
    if chosen == "valid":
        return 0, 0
    if chosen == "full":
        return extent - 1, extent - 1
    if chosen == CAUSAL:
        return extent - 1, 0
    return _same(size, extent, stride, chosen == "same_lower")


def padded_index(i: int, n: int, mode: str) -> int:
    """Which of the `n` elements of an axis lies at position `i` of its extension, for the modes that repeat elements.

    Repeated as often as the padding is wide, as NumPy does: abcd extends to dcb|abcd|cba ('reflect'),
    aaa|abcd|ddd ('replicate'), bcd|abcd|abc ('circular'), cba|abcd|dcb ('symmetric').
    """
    if mode == "replicate":
        return min(max(i, 0), n - 1)
    if mode == "circular":
        return i % n
    if mode == "symmetric":
        i %= 2 * n
        return min(i, 2 * n - 1 - i)
    if n == 1:
        return 0
    i %= 2 * n - 2
    return min(i, 2 * n - 2 - i)


# ---- a convolution as it is asked for ----------------------------------------------------------------------------


def check_bytes(name: str, arrays: dict[str, Shape], described: Callable[[], str]) -> None:
    """No array of a call may need more bytes than a 64-bit integer counts; NumPy leaves empty axes out of the count."""
    for what, size in arrays.items():
        count = prod(size) if 0 not in size else prod(filter(None, size))
        if count > LARGEST_BYTES // LARGEST_ELEMENT:
            raise ConvError(
                f"{name}: the {what} of shape {size} would need more than 2**63 bytes ({described()}); "
                "reduce the sizes or the padding."
            )


class Wanted:
    """The options of a convolution as numbers, one an axis, before its padding and its outputs are known.

    `size` is that of the array which is given: of a transposed convolution the output of the one that it transposes.
    `padding` is as written, `extra` a transposed one's output_padding. (A class of the plain sort: a tuple with names
    takes as long to make as all else here takes to import.)
    """

    __slots__ = ("dilation", "extent", "extra", "groups", "kernel", "name", "padding", "shown", "size", "stride")

    def __init__(
        self, name: str, shown: tuple[Shape, Shape], size: Sizes, kernel: Sizes, stride: Sizes, dilation: Sizes,
        groups: int, padding: object,
    ) -> None:  # fmt: skip
        self.name, self.shown, self.size, self.kernel = name, shown, size, kernel
        self.stride, self.dilation, self.groups, self.padding = stride, dilation, groups, padding
        self.extent = extents(kernel, dilation)
        self.extra: Sizes | None = None

    def along(self, axis: int) -> str:
        """What messages call an axis."""
        return AXES[len(self.size)][axis]

    def described(self) -> str:
        extra = "" if self.extra is None else f"output_padding={self.extra}, "
        return (
            f"input {self.shown[0]}, weight {self.shown[1]}, stride={self.stride}, padding={self.padding!r}, "
            f"{extra}dilation={self.dilation}, groups={self.groups}"
        )

    def misplaced(self, channels: int) -> str:
        """Where the channels may have been put by mistake."""
        shape, axes = self.shown[0], len(self.size)
        letters = {1: "W", 2: "HW", 3: "DHW"}[axes]
        if len(shape) in (axes + 1, axes + 2):
            if channels == shape[-1]:
                return f" The last axis of input would fit: pass data_format='N{letters}C' if channels come last."
            if channels == shape[-axes - 1]:
                return (
                    f" Another axis of input would fit: pass data_format='NC{letters}' if channels come before "
                    f"{' and '.join(AXES[axes])}."
                )
        return " Pass a weight made for this input, or the groups it was made for."


def wanted(
    name: str,
    input_shape: Shape,
    weight_shape: Shape,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    shown: tuple[Shape, Shape] | None,
) -> Wanted:
    shown = shown or (input_shape, weight_shape)
    axes = len(input_shape) - 2
    if not 1 <= axes <= MOST_AXES:
        axes = len(weight_shape) - 2 if 1 <= len(weight_shape) - 2 <= MOST_AXES else 2
    for argument, logical, own in (("input", input_shape, shown[0]), ("weight", weight_shape, shown[1])):
        if len(logical) != axes + 2:
            raise ConvError(
                f"{name}: {argument} must have {axes + 2} axes, but got shape {own}; the shapes are input {shown[0]} "
                f"and weight {shown[1]}. Add the missing axes with reshape."
            )
    kernel = weight_shape[2:]
    if 0 in kernel:
        raise ConvError(
            f"{name}: the kernel of weight must be at least {' x '.join('1' * axes)}, but weight of shape {shown[1]} "
            f"has kernel {' x '.join(map(str, kernel))}."
        )
    strides, dilations = per_axis("stride", stride, 1, axes), per_axis("dilation", dilation, 1, axes)
    return Wanted(name, shown, input_shape[2:], kernel, strides, dilations, channel_groups(groups), padding)


# ---- convolution -------------------------------------------------------------------------------------------------


def conv_geometry(
    input_shape: Shape,
    weight_shape: Shape,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    padding_mode: Any = "zeros",
    padding_value: Any = 0,
    *,
    name: str = "conv2d",
    shown: tuple[Shape, Shape] | None = None,
) -> Geometry:
    """The convolution of an input and a weight of these shapes."""
    a = wanted(name, input_shape, weight_shape, stride, padding, dilation, groups, shown)
    mode, value = padding_content(padding_mode, padding_value)
    batch, in_channels = input_shape[:2]
    out_channels, group_channels = weight_shape[:2]
    if group_channels * a.groups != in_channels:
        raise ConvError(
            f"{name}: weight of shape {a.shown[1]} with groups={a.groups} takes {group_channels * a.groups} input "
            f"channels ({group_channels} a group), but input of shape {a.shown[0]} has {in_channels}."
            + a.misplaced(group_channels * a.groups)
        )
    if out_channels % a.groups:
        raise ConvError(
            f"{name}: the output channels of weight must be divisible by groups={a.groups}, but weight of shape "
            f"{a.shown[1]} has {out_channels}; pass groups=1 or a divisor of {out_channels}."
        )
    parsed = parse_padding(padding, len(a.size))
    if isinstance(parsed, str):
        pads = tuple(
            sides_of_word(parsed, size, extent, step)
            for size, extent, step in zip(a.size, a.extent, a.stride, strict=True)
        )
    else:
        pads = parsed
    outputs = tuple(_axis_outputs(a, axis, sides, parsed in (*SAME, CAUSAL), mode) for axis, sides in enumerate(pads))
    if mode == CONSTANT and not any(side > 0 for sides in pads for side in sides):
        mode, value = "zeros", 0
    arrays = {"output": (batch, out_channels, *outputs), "input": input_shape, "weight": weight_shape}
    if mode not in ("zeros", CONSTANT):  # the input gradient is made on the padded image, then folded
        padded = (size + sum(sides) for size, sides in zip(a.size, pads, strict=True))
        arrays["padded input"] = (in_channels, *padded)
    check_bytes(name, arrays, a.described)
    return Geometry(
        batch, in_channels, out_channels, a.groups, a.size, a.kernel, outputs, a.stride, a.dilation, pads, mode, value
    )


def _axis_outputs(a: Wanted, axis: int, sides: Sides, follows: bool, mode: str) -> int:
    """Outputs of a convolution along one axis, or why there are none; where they `follow` the inputs, none of none."""
    (before, after), length, spanned = sides, a.size[axis], a.extent[axis]
    padded = length + before + after
    if padded > LARGEST_POSITION or spanned > LARGEST_POSITION:
        raise ConvError(
            f"{a.name}: the padded {a.along(axis)} {padded} or the dilated kernel's {spanned} is above 2**60 "
            f"({a.described()}); reduce padding or dilation."
        )
    if before < 0 or after < 0:
        crop = max(-before, 0) + max(-after, 0)
        if crop > length:
            raise ConvError(
                f"{a.name}: padding={a.padding!r} crops {crop} of the {length} positions of the input's "
                f"{a.along(axis)} (input {a.shown[0]}); crop at most {length}."
            )
    if length == 0 and mode not in ("zeros", CONSTANT) and (before > 0 or after > 0):
        raise ConvError(
            f"{a.name}: padding_mode={mode!r} has nothing to repeat: the {a.along(axis)} of input {a.shown[0]} is 0 "
            f"with padding={a.padding!r}; use padding_mode='zeros'."
        )
    if padded < spanned and not (length == 0 and follows):
        raise ConvError(
            f"{a.name}: the kernel of weight is larger than the padded input: its {a.along(axis)} spans {spanned}, "
            f"the padded input's is {padded} ({a.described()}). "
            "Pad more, for instance padding='same', or use a smaller kernel or dilation."
        )
    return (padded - spanned) // a.stride[axis] + 1


def tiled_geometries(g: Geometry, tiles: Sizes) -> Iterator[tuple[Sizes, Geometry]]:
    """The convolutions (place, geometry) that make every t-th output of `g` from a place on, along each axis.

    Output y = a + t*y' looks at y*s + i*d - p0 = y'*(t*s) + i*d - (p0 - a*s): a stride and a shift.
    """
    strides = tuple(s * t for s, t in zip(g.stride, tiles, strict=True))
    for place in product(*map(range, tiles)):
        sizes = (max(0, -(-(n - a) // t)) for n, a, t in zip(g.output_size, place, tiles, strict=True))
        pads = ((p0 - a * s, p1) for (p0, p1), a, s in zip(g.padding, place, g.stride, strict=True))
        yield place, g._replace(output_size=tuple(sizes), stride=strides, padding=tuple(pads))
