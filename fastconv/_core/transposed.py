"""What a transposed convolution means in numbers: the convolution whose input gradient it is.

`geometry` holds the rules that all convolutions share.
"""

from __future__ import annotations

from typing import Any

from ..errors import ConvError
from .geometry import SAME, Geometry, Wanted, check_bytes, extents, sides_of_word, wanted
from .words import AXES, LARGEST_POSITION, Pads, Shape, Sides, Sizes, parse_padding, per_axis


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
    output_size: Any = None,
) -> Geometry:
    """The convolution whose input gradient is the transposed convolution of these shapes.

    Its input is the transposed output, its output the transposed input; weight is (in channels, out channels of a
    group, *kernel). Along an axis the transposed output has (H - 1)*s - p0 - p1 + d*(k - 1) + 1 + output_padding
    positions, and at least `least`. A word for padding is the convolution's that is transposed: 'same' gives
    H*s + output_padding. `output_size` says how many positions there are, in place of output_padding and words.
    """
    a = wanted(name, input_shape, weight_shape, stride, padding, dilation, groups, shown)
    axes = len(a.size)
    a.extra = per_axis("output_padding", output_padding, 0, axes)
    sizes = _output_size(a, output_size, padding)
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
    if sizes is not None and not isinstance(parsed, str):
        a.extra = tuple(_missing(a, axis, parsed[axis], size, output_size) for axis, size in enumerate(sizes))
    found = [_transposed_axis(a, axis, parsed, least) for axis in range(axes)]
    pads, outputs = tuple(sides for sides, _ in found), tuple(output for _, output in found)
    out_channels = weight_shape[1] * a.groups
    arrays = {"output": (batch, out_channels, *outputs), "input": input_shape, "weight": weight_shape}
    check_bytes(name, arrays, a.described)
    return Geometry(
        batch, out_channels, in_channels, a.groups, outputs, a.kernel, a.size, a.stride, a.dilation, pads, "zeros"
    )


def _output_size(a: Wanted, output_size: Any, padding: Any) -> Sizes | None:
    """`output_size` as a number an axis, refused beside what says the same."""
    if output_size is None:
        return None
    if a.extra and any(a.extra):
        raise ConvError(
            f"{a.name}: output_size={output_size!r} and output_padding={a.extra} both say how large the output is; "
            "leave one out."
        )
    if isinstance(padding, str):
        raise ConvError(
            f"{a.name}: output_size={output_size!r} and padding={padding!r} both say how large the output is; leave "
            "output_size out, or write the padding in numbers."
        )
    return per_axis("output_size", output_size, 0, len(a.size))


def _missing(a: Wanted, axis: int, sides: Sides, size: int, output_size: Any) -> int:
    """The output_padding along an axis that makes the output of this size."""
    least = (a.size[axis] - 1) * a.stride[axis] + a.extent[axis] - sum(sides)
    most = least + max(a.stride[axis], a.dilation[axis]) - 1
    if not least <= size <= most:
        raise ConvError(
            f"{a.name}: output_size must be from {max(least, 0)} to {most} along the {a.along(axis)}, but got "
            f"output_size={output_size!r} ({a.described()}): less is not all that the input makes, and a larger output "
            "has another input. Change padding, or leave output_size out."
        )
    return size - least


def _transposed_axis(a: Wanted, axis: int, parsed: str | Pads, least: int) -> tuple[Sides, int]:
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
