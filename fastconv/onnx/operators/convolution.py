"""Convolutions by plans of the public interface: channels last inside, weights packed once, results fused."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from ..._core import steps
from ..._core.arrays import Array
from ..._core.ask_plans import prepared, prepared_transposed
from ..._core.conv_plan import ConvPlan
from ..._core.layouts import INWARD, OUTWARD, WEIGHT_OUTWARD
from ..._core.problem import Use
from ..._core.types import FLOATS
from ..._core.words import Shape
from ...functional import CONVOLUTIONS, TRANSPOSED
from .chain import ACTIVATIONS
from .registry import INTERNAL, Call, operator
from .windows import Window, attribute_numbers, kernel_of

PADDING_MODES: Final = {"constant": "zeros", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


class Ready(NamedTuple):
    """A plan for inputs that came before, so that nothing is looked at again: some 20 microseconds a node."""

    plan: ConvPlan
    shape: tuple[int, ...]  # of the result

    def run(self, call: Call, x: Array, residual: Array | None) -> Array:
        """The result, channels last in memory."""
        last = OUTWARD[x.ndim]
        place = None if call.target is None else call.target(self.shape, x.dtype)
        if place is None:
            batch, channels, *size = self.shape
            out = call.pool.empty((batch, *size, channels), x.dtype)
        else:
            out = place.transpose(last)
        add = None if residual is None else residual.transpose(last)
        return self.plan.run(x.transpose(last), out, residual=add).transpose(INWARD[x.ndim])


@operator("Conv")
@operator("Conv", domain=INTERNAL)
def conv(call: Call, x: Array, w: Array, b: Array | None = None, residual: Array | None = None) -> Any:
    """activation(conv(x, w) + b + residual); the last two only in nodes made by `fuse`."""
    ready = call.state.get((x.shape, x.dtype))
    if ready is not None and (residual is None or residual.shape == ready.shape):
        return ready.run(call, x, residual)
    size = require_axes(call, x, w)
    window = kernel_of(call, size, w.shape[2:])
    return _planned(call, x, w, b, residual, window)


def require_axes(call: Call, x: Array, w: Array) -> tuple[int, ...]:
    """The lengths of the spatial axes, of which there are one to three."""
    if x.ndim != w.ndim or not 3 <= x.ndim <= 5:
        raise call.error(f"an input of shape {x.shape} and a weight of shape {w.shape} are no 1-D to 3-D convolution.")
    return x.shape[2:]


def _planned(
    call: Call, x: Array, w: Array, b: Array | None, residual: Array | None, window: Window
) -> Array:
    """By a plan where the weights are constant, else by a call."""
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
        plan, last = call.state.get(key), OUTWARD[x.ndim]
        if plan is None:
            plan = call.state[key] = prepared(
                Use.NETWORK, (x.shape[0], *x.shape[2:], x.shape[1]), w.transpose(WEIGHT_OUTWARD[w.ndim]), b,
                data_format="channels_last", activation=fused, **options,
            )  # fmt: skip
            call.describe(plan.explain().kind, plan.explain().packed_weight_bytes)
        if not late:
            call.state[x.shape, x.dtype] = Ready(plan, shape)
        plan.run(x.transpose(last), out.transpose(last), residual=None if add is None else add.transpose(last))
    else:
        CONVOLUTIONS[x.ndim - 2](x, w, b, activation=fused, residual=add, out=out, **options)
    if late and residual is not None:
        out = np.add(out, residual, out=out if np.broadcast_shapes(shape, np.shape(residual)) == shape else None)
        out = activate(call, out, activation)
    return out


def _output_shape(call: Call, x: Array, w: Array, window: Window) -> Shape:
    """The shape of the result, refused before anything is allocated."""
    sizes = []
    for length, (before, after), extent, stride in zip(
        x.shape[2:], window.sides, window.extent, window.stride, strict=True
    ):
        sizes.append((length + before + after - extent) // stride + 1)
    if min(sizes) < 1 and x.size:
        raise call.error(f"a kernel of {window.kernel} does not fit an input {x.shape} with padding {window.sides}.")
    call.check((x.shape[0], w.shape[0], *(max(0, size) for size in sizes)), x.dtype)
    return (x.shape[0], w.shape[0], *sizes)


def activate(call: Call, x: Array, name: str | None) -> Any:
    """An activation by its fused name, for results that a plan could not finish."""
    if name is not None:
        steps.apply(x, x, *ACTIVATIONS[name], threads=call.threads)
    return x


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
    shape = (x.shape[0], w.shape[1] * groups, *output)
    out = call.empty_channels_last(shape, x.dtype) if shape[1] > 1 else call.empty(shape, x.dtype)
    if call.is_constant(1) and (b is None or call.is_constant(2)) and x.dtype in FLOATS:
        key, last = ("plan", x.shape[1:], x.dtype), OUTWARD[x.ndim]
        plan = call.state.get(key)
        if plan is None:
            plan = call.state[key] = prepared_transposed(
                (x.shape[0], *x.shape[2:], x.shape[1]), w.transpose(WEIGHT_OUTWARD[w.ndim]), b, stride, sides, 0,
                groups, dilation, data_format="channels_last", num_threads=call.threads,
            )  # fmt: skip
            call.describe(plan.explain().kind, plan.explain().packed_weight_bytes)
        plan.run(x.transpose(last), out.transpose(last))
    else:
        TRANSPOSED[len(size)](x, w, b, stride, sides, 0, groups, dilation, num_threads=call.threads, out=out)
    return activate(call, out, call.get("activation"))


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


# ---- a factor and a shift a channel --------------------------------------------------------------------------------


@operator("ChannelAffine", domain=INTERNAL)
def channel_affine(call: Call, x: Array, scale: Array, shift: Array) -> Any:
    """activation(x * scale + shift), a normalisation without a convolution before it; natively in a chain."""
    shape = (-1, *(1,) * max(0, x.ndim - 2))
    y = np.multiply(x, scale.reshape(shape), out=call.into(x))
    return activate(call, np.add(y, shift.reshape(shape), out=y), call.get("activation"))
