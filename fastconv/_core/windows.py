"""What a pooling means in numbers, for any number of axes: windows, padding, every refusal of a shape.

As in `geometry`: no arrays, and shapes in the logical order, (batch, channels, *spatial).
"""

from __future__ import annotations

from typing import Any

from ..errors import ConvError
from .geometry import SAME, check_bytes, extents, sides_of_word
from .record import NamedTuple
from .words import AXES, CAUSAL, LARGEST_POSITION, MOST_AXES, Pads, Shape, Sides, Sizes, flag, parse_padding, per_axis


class PoolGeometry(NamedTuple):
    """One pooling with every size resolved."""

    batch: int
    channels: int
    input_size: Sizes
    kernel_size: Sizes
    output_size: Sizes
    stride: Sizes
    dilation: Sizes
    padding: Pads


class _Pooled:
    """The options of a pooling as numbers, one an axis; `padding` as written."""

    __slots__ = ("ceil", "dilation", "extent", "kernel", "name", "padding", "shown", "size", "stride")

    def __init__(
        self, name: str, shown: Shape, size: Sizes, kernel: Sizes, stride: Sizes, dilation: Sizes, padding: object,
        ceil: bool,
    ) -> None:  # fmt: skip
        self.name, self.shown, self.size, self.kernel = name, shown, size, kernel
        self.stride, self.dilation, self.padding, self.ceil = stride, dilation, padding, ceil
        self.extent = extents(kernel, dilation)

    def along(self, axis: int) -> str:
        return AXES[len(self.size)][axis]


def pool_geometry(
    input_shape: Shape,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: Any = False,
    *,
    name: str = "pool2d",
    shown: Shape | None = None,
) -> PoolGeometry:
    """The pooling of an input of this shape. With `ceil_mode` a last, partial window counts if it starts inside the
    input or the padding before it, as in PyTorch."""
    shown, axes = shown or input_shape, len(input_shape) - 2
    if not 1 <= axes <= MOST_AXES:
        raise ConvError(f"{name}: input must have 4 axes, but got shape {shown}; add the missing axes with reshape.")
    kernel = per_axis("kernel_size", kernel_size, 1, axes)
    strides = kernel if stride is None else per_axis("stride", stride, 1, axes)
    dilations = per_axis("dilation", dilation, 1, axes)
    batch, channels = input_shape[:2]
    p = _Pooled(name, shown, input_shape[2:], kernel, strides, dilations, padding, flag("ceil_mode", ceil_mode))
    parsed = parse_padding(padding, axes)
    pads = tuple(_pool_sides(p, axis, parsed) for axis in range(axes))
    outputs = tuple(_pool_outputs(p, axis, sides, parsed) for axis, sides in enumerate(pads))

    def described() -> str:
        return f"input {shown}, kernel_size={kernel}, stride={strides}, padding={padding!r}"

    check_bytes(name, {"output": (batch, channels, *outputs), "input": input_shape}, described)
    return PoolGeometry(batch, channels, p.size, kernel, outputs, strides, dilations, pads)


def _pool_sides(p: _Pooled, axis: int, parsed: str | Pads) -> Sides:
    """The padding of a pooling along one axis."""
    size, extent = p.size[axis], p.extent[axis]
    if isinstance(parsed, str):
        if parsed in ("full", CAUSAL):
            holds = "windows that hold padding alone" if parsed == "full" else "windows of padding but for one position"
            raise ConvError(f"{p.name}: padding={parsed!r} would make {holds}; use 'same', 'valid' or numbers.")
        return sides_of_word(parsed, size, extent, p.stride[axis])
    sides = parsed[axis]
    if min(sides) < 0:
        raise ConvError(
            f"{p.name}: padding of a pooling must be at least 0, but got padding={p.padding!r}; "
            "crop by slicing the input."
        )
    if max(sides) > extent // 2:
        raise ConvError(
            f"{p.name}: padding must be at most half of the window, but along the {p.along(axis)} padding is "
            f"{sides} and the window spans {extent} (padding={p.padding!r}); use at most "
            f"{extent // 2}, or pad the input beforehand."
        )
    return sides


def _pool_outputs(p: _Pooled, axis: int, sides: Sides, parsed: str | Pads) -> int:
    """Windows along one axis, or why there are none."""
    size, extent, step = p.size[axis], p.extent[axis], p.stride[axis]
    padded = size + sum(sides)
    if max(extent, padded) > LARGEST_POSITION:
        raise ConvError(f"{p.name}: the window's {p.along(axis)} {extent} is above 2**60; reduce kernel_size.")
    if size == 0 and parsed in SAME:
        return 0
    output = (padded - extent + (step - 1 if p.ceil else 0)) // step + 1
    if p.ceil and (output - 1) * step >= size + sides[0]:
        output -= 1
    if output < 1 or size == 0:
        raise ConvError(
            f"{p.name}: kernel_size={p.kernel} is larger than the padded input: along the {p.along(axis)} the window "
            f"spans {extent}, the padded input {padded} (input {p.shown}, "
            f"stride={p.stride}, padding={p.padding!r}, dilation={p.dilation}). Use a smaller kernel_size."
        )
    _require_pixels(p, axis, sides[0], output)
    return output


def _require_pixels(p: _Pooled, axis: int, before: int, outputs: int) -> None:
    """A window that starts in the padding may step over a short axis: a maximum of nothing."""
    size, dilation, step = p.size[axis], p.dilation[axis], p.stride[axis]
    if size >= dilation:
        return
    for start in range(-before, min(0, outputs * step - before), step):
        if start % dilation >= size:
            raise ConvError(
                f"{p.name}: with dilation {dilation} and padding {before} a window steps over the whole "
                f"{p.along(axis)} {size} of the input; use a smaller dilation or padding."
            )
