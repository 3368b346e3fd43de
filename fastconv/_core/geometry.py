"""What a convolution means in numbers, for any number of axes: sizes, padding, every refusal of a shape.

`windows` says the same of poolings.

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
    LARGEST_POSITION,
    MOST_AXES,
    PADDING_MODES,
    Pads,
    Shape,
    Sides,
    Sizes,
    channel_groups,
    parse_padding,
    per_axis,
    word,
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
    """Which of the `n` elements of an axis lies at position `i` of its extension, for every mode but 'zeros'.

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


class _Asked:
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


def _asked(
    name: str,
    input_shape: Shape,
    weight_shape: Shape,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    shown: tuple[Shape, Shape] | None,
) -> _Asked:
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
    return _Asked(name, shown, input_shape[2:], kernel, strides, dilations, channel_groups(groups), padding)


# ---- convolution -------------------------------------------------------------------------------------------------


def conv_geometry(
    input_shape: Shape,
    weight_shape: Shape,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    padding_mode: Any = "zeros",
    *,
    name: str = "conv2d",
    shown: tuple[Shape, Shape] | None = None,
) -> Geometry:
    """The convolution of an input and a weight of these shapes."""
    a = _asked(name, input_shape, weight_shape, stride, padding, dilation, groups, shown)
    mode = word("padding_mode", padding_mode, PADDING_MODES)
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
    outputs = tuple(_axis_outputs(a, axis, sides, parsed in SAME, mode) for axis, sides in enumerate(pads))
    arrays = {"output": (batch, out_channels, *outputs), "input": input_shape, "weight": weight_shape}
    if mode != "zeros":  # the input gradient is made on the padded image, then folded
        padded = (size + sum(sides) for size, sides in zip(a.size, pads, strict=True))
        arrays["padded input"] = (in_channels, *padded)
    check_bytes(name, arrays, a.described)
    return Geometry(
        batch, in_channels, out_channels, a.groups, a.size, a.kernel, outputs, a.stride, a.dilation, pads, mode
    )


def _axis_outputs(a: _Asked, axis: int, sides: Sides, same: bool, mode: str) -> int:
    """Outputs of a convolution along one axis, or why there are none."""
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
    if length == 0 and mode != "zeros" and (before > 0 or after > 0):
        raise ConvError(
            f"{a.name}: padding_mode={mode!r} has nothing to repeat: the {a.along(axis)} of input {a.shown[0]} is 0 "
            f"with padding={a.padding!r}; use padding_mode='zeros'."
        )
    if padded < spanned and not (length == 0 and same):
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


# ---- transposed convolution --------------------------------------------------------------------------------------


def conv_transpose_geometry(
    input_shape: Shape,
    weight_shape: Shape,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: Any,
    dilation: Any,
    *,
    name: str = "conv_transpose2d",
    shown: tuple[Shape, Shape] | None = None,
    least: int = 1,
) -> Geometry:
    """The convolution whose input gradient is the transposed convolution of these shapes.

    Its input is the transposed output, its output the transposed input; weight is (in channels, out channels of a
    group, *kernel). Along an axis the transposed output has (H - 1)*s - p0 - p1 + d*(k - 1) + 1 + output_padding
    positions, and at least `least`. A word for padding is the convolution's that is transposed: 'same' gives
    H*s + output_padding.
    """
    a = _asked(name, input_shape, weight_shape, stride, padding, dilation, groups, shown)
    axes = len(a.size)
    a.extra = per_axis("output_padding", output_padding, 0, axes)
    batch, in_channels = input_shape[:2]
    if weight_shape[0] != in_channels:
        raise ConvError(
            f"{name}: weight of shape {a.shown[1]} takes {weight_shape[0]} input channels, but input of shape "
            f"{a.shown[0]} has {in_channels}." + a.misplaced(weight_shape[0])
        )
    if in_channels % a.groups:
        raise ConvError(
            f"{name}: the input channels must be divisible by groups={a.groups}, but input of shape {a.shown[0]} has "
            f"{in_channels} (weight {a.shown[1]}); pass groups=1 or a divisor of {in_channels}."
        )
    parsed = parse_padding(padding, axes)
    found = [_transposed_axis(a, axis, parsed, least) for axis in range(axes)]
    pads, outputs = tuple(sides for sides, _ in found), tuple(output for _, output in found)
    out_channels = weight_shape[1] * a.groups
    arrays = {"output": (batch, out_channels, *outputs), "input": input_shape, "weight": weight_shape}
    check_bytes(name, arrays, a.described)
    return Geometry(
        batch, out_channels, in_channels, a.groups, outputs, a.kernel, a.size, a.stride, a.dilation, pads, "zeros"
    )


def _transposed_axis(a: _Asked, axis: int, parsed: str | Pads, least: int) -> tuple[Sides, int]:
    """(padding, outputs) of a transposed convolution along one axis."""
    assert a.extra is not None
    size, step, extent, extra = a.size[axis], a.stride[axis], a.extent[axis], a.extra[axis]
    if extra >= max(step, a.dilation[axis]):
        raise ConvError(
            f"{a.name}: output_padding must be smaller than stride or dilation, but along the {a.along(axis)} "
            f"output_padding is {extra}, stride {step} and dilation {a.dilation[axis]} ({a.described()})."
        )
    full = (size - 1) * step + extent
    sides = sides_of_word(parsed, size * step, extent, step) if isinstance(parsed, str) else parsed[axis]
    output = (size * step if parsed in SAME else full - sum(sides)) + extra
    if max(output, full) > LARGEST_POSITION:
        raise ConvError(
            f"{a.name}: the output's {a.along(axis)} {output} is above 2**60 ({a.described()}); reduce stride or "
            "dilation."
        )
    if output < (least if size else 0):
        raise ConvError(
            f"{a.name}: padding={a.padding!r} leaves no output: its {a.along(axis)} would be {output} "
            f"({a.described()}). Reduce padding or raise output_padding."
        )
    return sides, output


def keras_transposed_padding(
    padding: Any, kernel: Sizes, stride: Sizes, dilation: Sizes, output_padding: Any
) -> tuple[Pads, Sizes]:
    """(padding, output_padding) as `conv_transpose_geometry` takes them, of a layer written in Keras' words.

    With the kernel's extent k along an axis, 'valid' has (H - 1)*s + max(k, s) positions, or with output_padding
    (H - 1)*s + k + output_padding; 'same' has H*s, or (H - 1)*s + k % 2 + output_padding: that of a padding of k // 2
    on both sides. The odd position that 'same' cuts off lies at the end, as in the convolution that it transposes.
    """
    axes = len(kernel)
    parsed = parse_padding(padding, axes)
    given = None if output_padding is None else per_axis("output_padding", output_padding, 0, axes)
    pads: list[Sides] = []
    extra: list[int] = []
    for axis, (extent, step) in enumerate(zip(extents(kernel, dilation), stride, strict=True)):
        added = None if given is None else given[axis]
        if added is not None and added >= (step if isinstance(parsed, str) else max(step, dilation[axis])):
            raise ConvError(
                f"output_padding must be smaller than strides, but along the {AXES[axes][axis]} output_padding is "
                f"{added} and strides {step} (output_padding={output_padding!r}, strides={stride}, "
                f"dilation_rate={dilation}, padding={padding!r}); where padding is given as numbers, it may be below "
                "dilation_rate instead."
            )
        if parsed in SAME:
            cut = extent - (step if added is None else extent % 2 + added)
            sides = (max(cut, 0) // 2, max(cut, 0) - max(cut, 0) // 2)
            pads.append(sides[::-1] if parsed == "same_lower" else sides)
            extra.append(max(-cut, 0))
        elif isinstance(parsed, str):
            pads.append(sides_of_word(parsed, 0, extent, step))
            extra.append(max(step - extent, 0) if added is None and parsed == "valid" else added or 0)
        else:
            pads.append(parsed[axis])
            extra.append(added or 0)
    return tuple(pads), tuple(extra)
