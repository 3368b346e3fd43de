"""Convolutions by plans of the public interface: channels last inside, weights packed once, results fused."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from ... import functional
from ..._core.arrays import Array
from ..._core.ask_plans import prepared
from ..._core.conv_plan import ConvPlan
from ..._core.problem import Use
from .activations import hard_swish, logistic
from .registry import INTERNAL, Call, operator
from .windows import Window, attribute_numbers, kernel_of

PADDING_MODES: Final = {"constant": "zeros", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


class Ready(NamedTuple):
    """A plan for inputs that came before, so that nothing is looked at again: some 20 microseconds a node."""

    plan: ConvPlan
    shape: tuple[int, ...]  # of the result

    def run(self, call: Call, x: Array, residual: Array | None) -> Array:
        """The result, channels last in memory."""
        place = None if call.target is None else call.target(self.shape, x.dtype)
        if place is None:
            batch, channels, height, width = self.shape
            out = call.pool.empty((batch, height, width, channels), x.dtype)
        else:
            out = place.transpose(0, 2, 3, 1)
        add = None if residual is None else residual.transpose(0, 2, 3, 1)
        return self.plan.run(x.transpose(0, 2, 3, 1), out, residual=add).transpose(0, 3, 1, 2)


@operator("Conv")
@operator("Conv", domain=INTERNAL)
def conv(call: Call, x: Array, w: Array, b: Array | None = None, residual: Array | None = None) -> Any:
    """activation(conv(x, w) + b + residual); the last two only in nodes made by `fuse`."""
    ready = call.state.get((x.shape, x.dtype))
    if ready is not None and (residual is None or residual.shape == ready.shape):
        return ready.run(call, x, residual)
    size = require_axes(call, x, w)
    window = kernel_of(call, size, w.shape[2:])
    if len(size) == 3:
        return _three_dimensional(call, x, w, b, window)
    if len(size) == 1:
        added = None if residual is None else residual[:, :, None] if residual.ndim == 3 else residual
        return _two_dimensional(call, x[:, :, None], w[:, :, None], b, added, _with_height(window))[:, :, 0]
    return _two_dimensional(call, x, w, b, residual, window)


def require_axes(call: Call, x: Array, w: Array) -> tuple[int, ...]:
    """The lengths of the spatial axes, of which there are one to three."""
    if x.ndim != w.ndim or not 3 <= x.ndim <= 5:
        raise call.error(f"an input of shape {x.shape} and a weight of shape {w.shape} are no 1-D to 3-D convolution.")
    return x.shape[2:]


def _with_height(window: Window) -> Window:
    return Window((1, *window.kernel), (1, *window.stride), (1, *window.dilation), ((0, 0), *window.sides))


def _two_dimensional(
    call: Call, x: Array, w: Array, b: Array | None, residual: Array | None, window: Window
) -> Array:
    activation = call.get("activation")
    options: dict[str, Any] = {
        "stride": window.stride, "padding": window.sides, "dilation": window.dilation, "groups": call.get("group", 1),
        "padding_mode": call.get("padding_mode", "zeros"), "num_threads": call.threads,
    }  # fmt: skip
    shape = _output_shape(call, x, w, window)
    late = residual is not None and residual.shape != shape  # repeated: added by itself
    fused = None if late else activation
    if shape[1] > 1:
        out = call.empty_channels_last(shape, x.dtype)
    else:
        out = call.empty(shape, x.dtype)
    add = None if late else residual
    if call.is_constant(1) and (b is None or call.is_constant(2)):
        key = ("plan", x.shape[1:], x.dtype, fused)
        plan = call.state.get(key)
        if plan is None:
            plan = call.state[key] = prepared(
                Use.NETWORK, (x.shape[0], *x.shape[2:], x.shape[1]), w.transpose(2, 3, 1, 0), b, data_format="NHWC",
                activation=fused, **options,
            )  # fmt: skip
            call.describe(plan.explain().kind, plan.explain().packed_weight_bytes)
        if not late:
            call.state[x.shape, x.dtype] = Ready(plan, shape)
        plan.run(
            x.transpose(0, 2, 3, 1), out.transpose(0, 2, 3, 1),
            residual=None if add is None else add.transpose(0, 2, 3, 1),
        )  # fmt: skip
    else:
        functional.conv2d(x, w, b, activation=fused, residual=add, out=out, **options)
    if late and residual is not None:
        out = np.add(out, residual, out=out if np.broadcast_shapes(shape, np.shape(residual)) == shape else None)
        out = activate(call, out, activation)
    return out


def _output_shape(call: Call, x: Array, w: Array, window: Window) -> tuple[int, int, int, int]:
    """The shape of the result, refused before anything is allocated."""
    sizes = []
    for length, (before, after), extent, stride in zip(
        x.shape[2:], window.sides, window.extent, window.stride, strict=True
    ):
        sizes.append((length + before + after - extent) // stride + 1)
    if min(sizes) < 1 and x.size:
        raise call.error(f"a kernel of {window.kernel} does not fit an input {x.shape} with padding {window.sides}.")
    call.check((x.shape[0], w.shape[0], *(max(0, size) for size in sizes)), x.dtype)
    return x.shape[0], w.shape[0], sizes[0], sizes[1]


def activate(call: Call, x: Array, name: str | None) -> Any:
    """An activation by its fused name, for results that a plan could not finish."""
    if name == "relu":
        return np.maximum(x, x.dtype.type(0), out=x)
    if name == "relu6":
        return np.clip(x, x.dtype.type(0), x.dtype.type(6), out=x)
    if name == "leaky_relu":
        return np.maximum(x, x * x.dtype.type(0.01), out=x)
    if name == "sigmoid":
        return logistic(x, x)
    if name == "silu":
        return np.multiply(x, logistic(x, call.like(x)), out=x)
    return hard_swish(call, x) if name == "hardswish" else x


def _three_dimensional(call: Call, x: Array, w: Array, b: Array | None, window: Window) -> Any:
    """The sum over the kernel's depth of 2-D convolutions of all slices."""
    (before, after), *sides = window.sides
    n, _, depth, _, _ = x.shape
    depths = (depth + before + after - window.extent[0]) // window.stride[0] + 1
    if depths < 1:
        raise call.error(f"a kernel of {window.kernel} does not fit an input of shape {x.shape}.")
    total = None
    for tap in range(window.kernel[0]):
        places = np.arange(depths) * window.stride[0] + tap * window.dilation[0] - before
        inside = (places >= 0) & (places < depth)
        slices = np.moveaxis(np.take(x, np.clip(places, 0, depth - 1), 2), 2, 1)
        slices = np.where(inside.reshape(1, -1, 1, 1, 1), slices, x.dtype.type(0))
        plane = functional.conv2d(
            slices.reshape(n * depths, *slices.shape[2:]), w[:, :, tap], b if tap == 0 else None, window.stride[1:],
            tuple(sides), window.dilation[1:], call.get("group", 1), num_threads=call.threads,
        )  # fmt: skip
        total = plane if total is None else np.add(total, plane, out=total)
        call.check(total.shape, total.dtype)
    assert total is not None
    return activate(call, np.moveaxis(total.reshape(n, depths, *total.shape[1:]), 1, 2), call.get("activation"))


# ---- transposed ----------------------------------------------------------------------------------------------------


@operator("ConvTranspose")
@operator("ConvTranspose", domain=INTERNAL)
def conv_transpose(call: Call, x: Array, w: Array, b: Array | None = None) -> Any:
    """The gradient of a convolution with respect to its input, plus a bias."""
    size = require_axes(call, x, w)
    stride = attribute_numbers(call, "strides", len(size), 1)
    dilation = attribute_numbers(call, "dilations", len(size), 1)
    given = call.get("kernel_shape")
    if given and tuple(given) != w.shape[2:]:
        raise call.error(f"kernel_shape {given} is not that of the weight of shape {w.shape}.")
    extra = attribute_numbers(call, "output_padding", len(size), 0, 0)
    bare = Window(w.shape[2:], stride, dilation, ())
    sides = transposed_sides(call, size, bare, extra)
    full = [(length - 1) * s + e for length, s, e in zip(size, stride, bare.extent, strict=True)]
    output = [length - sum(side) + more for length, side, more in zip(full, sides, extra, strict=True)]
    groups = int(call.get("group", 1))
    if min(output) < 1 or groups < 1:
        raise call.error(f"its result would have the shape {output}.")
    call.check((x.shape[0], w.shape[1] * groups, *output), x.dtype)
    # Rows added after the end are rows that the padding did not cut off.
    sides = tuple((before, after - more) for (before, after), more in zip(sides, extra, strict=True))
    window = Window(w.shape[2:], stride, dilation, sides, tuple(output))
    if len(size) == 3:
        y = _transposed_three_dimensional(call, x, w, b, window, groups)
    elif len(size) == 1:
        y = _transposed(call, x[:, :, None], w[:, :, None], b, _with_height(window), groups)[:, :, 0]
    else:
        y = _transposed(call, x, w, b, window, groups)
    return activate(call, y, call.get("activation"))


def transposed_sides(
    call: Call, size: tuple[int, ...], window: Window, extra: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """What is cut off before and after: `pads`, or what remains of `output_shape` or of SAME's."""
    auto, shape = call.get("auto_pad", "NOTSET"), call.get("output_shape")
    if shape is None and auto in ("NOTSET", "", "VALID"):
        pads = (0,) * 2 * len(size)
        if auto != "VALID":
            pads = attribute_numbers(call, "pads", 2 * len(size), 0, -(1 << 40))
        return tuple(zip(pads[: len(size)], pads[len(size) :], strict=True))
    if shape is None:
        shape = [length * stride for length, stride in zip(size, window.stride, strict=True)]
    shape = shape[-len(size) :]
    if len(shape) != len(size):
        raise call.error(f"output_shape {shape} does not fit an input with the spatial shape {size}.")
    made = []
    for length, stride, extent, more, wanted in zip(size, window.stride, window.extent, extra, shape, strict=True):
        total = stride * (length - 1) + more + extent - wanted
        half = total // 2
        made.append((half, total - half) if auto == "SAME_UPPER" else (total - half, half))
    return tuple(made)


def _transposed(call: Call, x: Array, w: Array, b: Array | None, window: Window, groups: int) -> Array:
    shape = (x.shape[0], w.shape[1] * groups, *window.output) if len(window.output) == 2 else None
    out = call.empty_channels_last(shape, x.dtype) if shape is not None and shape[1] > 1 else None
    return functional.conv_transpose2d(
        x, w, b, window.stride, window.sides, 0, groups, window.dilation, num_threads=call.threads, out=out
    )


def _transposed_three_dimensional(
    call: Call, x: Array, w: Array, b: Array | None, window: Window, groups: int
) -> Array:
    """Every slice of the kernel makes, from all slices of the input, slices of the output that are added up."""
    n, channels, depth, *_ = x.shape
    (before, _), *sides = window.sides
    y = np.zeros((n, w.shape[1] * groups, *window.output), x.dtype)
    flat = np.moveaxis(x, 2, 1).reshape(n * depth, channels, *x.shape[3:])
    for tap in range(window.kernel[0]):
        planes = functional.conv_transpose2d(
            flat, w[:, :, tap], None, window.stride[1:], tuple(sides), 0, groups, window.dilation[1:],
            num_threads=call.threads,
        )  # fmt: skip
        planes = planes.reshape(n, depth, *planes.shape[1:])
        for place in range(depth):
            to = place * window.stride[0] + tap * window.dilation[0] - before
            if 0 <= to < y.shape[2]:
                y[:, :, to] += planes[:, place]
    return y if b is None else y + b.reshape(-1, 1, 1, 1)


# ---- a factor and a shift a channel --------------------------------------------------------------------------------


@operator("ChannelAffine", domain=INTERNAL)
def channel_affine(call: Call, x: Array, scale: Array, shift: Array) -> Any:
    """activation(x * scale + shift), a normalisation without a convolution before it; natively in a chain."""
    shape = (-1, *(1,) * max(0, x.ndim - 2))
    y = np.multiply(x, scale.reshape(shape), out=call.into(x))
    return activate(call, np.add(y, shift.reshape(shape), out=y), call.get("activation"))
