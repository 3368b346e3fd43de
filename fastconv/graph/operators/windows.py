"""Strides, dilations and padding of convolutions and poolings as ONNX states them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..._core.words import LARGEST_POSITION
from .registry import Call

SAME: Final = {"SAME_UPPER": "same", "SAME_LOWER": "same_lower"}
Sides = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Window:
    """The kernel of an operator with one number an axis; `sides` is the padding before and after."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    sides: Sides
    output: tuple[int, ...] = ()

    @property
    def extent(self) -> tuple[int, ...]:
        """How far a window reaches."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))


def attribute_numbers(call: Call, name: str, count: int, default: int, least: int = 1) -> tuple[int, ...]:
    """An attribute of so many integers."""
    found = call.get(name)
    numbers = tuple(found or [default] * count)
    if len(numbers) != count or any(not least <= number < LARGEST_POSITION for number in numbers):
        raise call.error(f"{name} {list(numbers)} must be {count} numbers of at least {least}.")
    return numbers


def sides_of(call: Call, size: tuple[int, ...], window: Window) -> Sides:
    """The padding before and after every axis, by `auto_pad` or `pads`."""
    auto = call.get("auto_pad", "NOTSET")
    if auto == "VALID":
        return ((0, 0),) * len(size)
    if auto in SAME:
        made = []
        for length, extent, stride in zip(size, window.extent, window.stride, strict=True):
            total = max(0, (-(-length // stride) - 1) * stride + extent - length)
            small = total // 2
            made.append((small, total - small) if auto == "SAME_UPPER" else (total - small, small))
        return tuple(made)
    if auto not in ("NOTSET", ""):
        raise call.error(f"auto_pad {auto!r} is none of NOTSET, VALID, {', '.join(SAME)}.")
    pads = attribute_numbers(call, "pads", 2 * len(size), 0, -LARGEST_POSITION)
    return tuple(zip(pads[: len(size)], pads[len(size) :], strict=True))


def kernel_of(call: Call, size: tuple[int, ...], kernel: tuple[int, ...] | None = None) -> Window:
    """The window over an input whose spatial axes have these lengths; a convolution's kernel comes from its weight."""
    given = call.get("kernel_shape")
    if kernel is None and given is None:
        raise call.error("kernel_shape is missing.")
    if kernel is None:
        kernel = attribute_numbers(call, "kernel_shape", len(size), 1)
    elif given and tuple(given) != kernel:
        raise call.error(f"kernel_shape {given} is not that of the weight, {list(kernel)}.")
    stride = attribute_numbers(call, "strides", len(size), 1)
    dilation = attribute_numbers(call, "dilations", len(size), 1)
    bare = Window(kernel, stride, dilation, ())
    if call.told.reach is None:
        call.slides(bare.extent, stride)
    return Window(kernel, stride, dilation, sides_of(call, size, bare))


def pooled(call: Call, size: tuple[int, ...], window: Window) -> Window:
    """The same with the lengths of a pooling's output."""
    ceil, same = bool(call.get("ceil_mode", 0)), call.get("auto_pad", "NOTSET") in SAME
    output = []
    for length, (before, after), extent, stride in zip(size, window.sides, window.extent, window.stride, strict=True):
        if same:
            output.append(-(-length // stride))
            continue
        room = length + before + after - extent
        count = (-(-room // stride) if ceil else room // stride) + 1
        if ceil and (count - 1) * stride >= length + before:  # a window that would hold padding alone
            count -= 1
        if count < 1 or length < 1:
            raise call.error(f"a window of {window.kernel} does not fit an input of {size}, padding {window.sides}.")
        output.append(count)
    return Window(window.kernel, window.stride, window.dilation, window.sides, tuple(output))
