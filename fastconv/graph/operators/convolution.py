"""Convolutions by plans of the public interface: channels last inside, weights packed once, results fused."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import prod
from typing import Any, Final, NamedTuple

import numpy as np

from ..._core import steps
from ..._core.arrays import Array
from ..._core.ask_plans import prepared, prepared_transposed
from ..._core.conv_plan import ConvPlan
from ..._core.layouts import INWARD, OUTWARD, WEIGHT_OUTWARD
from ..._core.methods.method import Before
from ..._core.problem import Use
from ..._core.select import wish_for_scaled
from ..._core.types import FLOATS
from ..._core.words import Shape
from ...functional import CONVOLUTIONS, TRANSPOSED
from ...pooling import max_pool2d
from ..graph import Node
from .chain import ACTIVATIONS, affine, elementwise
from .registry import INTERNAL, Call, operator
from .windows import Window, attribute_numbers, kernel_of

PADDING_MODES: Final = {"constant": "zeros", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


class Ready(NamedTuple):
    """A plan for inputs that came before, so that nothing is looked at again: some 20 microseconds a node."""

    plan: ConvPlan
    shape: tuple[int, ...]  # of the result
    macs: int
    pooled: bool = False  # the largest of every 2 x 2 results alone is stored

    def run(self, call: Call, x: Array, residual: Array | None, before: Before | None = None) -> Array:
        """The result, channels last in memory."""
        last = OUTWARD[x.ndim]
        add = None if residual is None else residual.transpose(last)
        if add is not None and add.flags.c_contiguous and self.plan.adds_in_place:
            out = call.into(residual, shape=self.shape, dtype=x.dtype).transpose(last)
        elif (place := call.place(self.shape, x.dtype)) is None:
            batch, channels, *size = self.shape
            out = call.pool.empty((batch, *size, channels), x.dtype)
        else:
            out = place.transpose(last)
        call.native, call.macs = self.plan.native, self.macs
        if self.pooled:
            return self._run_pooled(call, x.transpose(last), out).transpose(INWARD[x.ndim])
        if before is not None:
            return self.plan.run_scaled(x.transpose(last), before, out, add).transpose(INWARD[x.ndim])
        return self.plan.run(x.transpose(last), out, residual=add).transpose(INWARD[x.ndim])

    def _run_pooled(self, call: Call, x: Array, out: Array) -> Array:
        """The largest of every 2 x 2 results, which are stored only where the plan cannot help it."""
        if self.plan.pools and x.flags.c_contiguous and out.flags.c_contiguous:
            return self.plan.run_pooled(x, out)
        _, height, width, channels = self.plan.shape
        whole = call.pool.empty((len(x), height, width, channels), x.dtype)
        max_pool2d(self.plan.run(x, whole), 2, data_format="NHWC", out=out, num_threads=call.threads)
        return out


@operator("Conv")
@operator("Conv", domain=INTERNAL)
def conv(
    call: Call, x: Array, w: Array, b: Array | None = None, residual: Array | None = None, *others: Array
) -> Any:  # fmt: skip
    """activation(conv(x, w) + b + residual), of a chain's result where one stands before it, which takes the others;
    activation, residual and chain only in nodes made by `fuse`."""
    ready, before, apart = call.state.get((x.shape, x.dtype)), None, None
    if others:
        before = _before(call, x, others) if ready is not None and ready.plan.scales else None
        if before is None:
            apart, x = _made_apart(call, x, others)
    if ready is not None and (residual is None or residual.shape == ready.shape):
        result = ready.run(call, x, residual, before)
        call.native = call.native and (apart is None or apart.native)
        return result
    size = require_axes(call, x, w)
    window = kernel_of(call, size, w.shape[2:])
    return _planned(call, x, w, b, residual, window)


def _before(call: Call, x: Array, others: Sequence[Array]) -> Before | None:
    """The chain before a convolution as what is done to its input on the way; None where it must be a step apart."""
    chain: Node = call.get("before")
    found = affine(chain.attributes["chain"], lambda name: None, x.ndim)
    if found is None or x.strides[1] != x.itemsize:
        return None
    values = {name: array.reshape(-1) for name, array in zip(chain.inputs[1:], others, strict=True)}
    if any(array.shape != x.shape[1:2] or array.dtype != x.dtype for array in values.values()):
        return None
    return Before(values[found.scale], None if found.shift is None else values[found.shift], found.relu)


def _made_apart(call: Call, x: Array, others: Sequence[Array]) -> tuple[Call, Array]:
    """What the chain before a convolution makes, by a step of its own, and that step."""
    constant = [name for at, name in enumerate(call.node.inputs) if call.is_constant(at)]
    apart = Call(call.get("before"), call.pool, call.threads, constant)
    apart.state = call.state.setdefault("before", apart.state)
    apart.begin((x, *others))
    try:
        return apart, elementwise(apart, x, *others)
    finally:
        apart.end()


def require_axes(call: Call, x: Array, w: Array) -> tuple[int, ...]:
    """The lengths of the spatial axes, of which there are one to three."""
    if x.ndim != w.ndim or not 3 <= x.ndim <= 5:
        raise call.error(f"an input of shape {x.shape} and a weight of shape {w.shape} are no 1-D to 3-D convolution.")
    return x.shape[2:]


def _planned(
    call: Call, x: Array, w: Array, b: Array | None, residual: Array | None, window: Window
) -> Any:
    """By a plan where the weights are constant, else by a call."""
    activation, pooled = call.get("activation"), bool(call.get("pool"))
    options: dict[str, Any] = {
        "stride": window.stride, "padding": window.sides, "dilation": window.dilation, "groups": call.get("group", 1),
        "padding_mode": call.get("padding_mode", "zeros"), "num_threads": call.threads,
    }  # fmt: skip
    shape = output_shape(call, x, w, window)
    call.macs = prod(shape) * prod(w.shape[1:])
    if pooled:
        call.slides([e + s for e, s in zip(window.extent, window.stride, strict=True)], [2 * s for s in window.stride])
        return _pooled(call, x, w, b, shape, options)
    late = residual is not None and residual.shape != shape  # repeated: added by itself
    fused = None if late else activation
    if shape[1] > 1:
        out = call.empty_channels_last(shape, x.dtype)
    else:
        out = call.empty(shape, x.dtype)
    add = None if late else residual
    if call.is_constant(1) and (b is None or call.is_constant(2)):
        after = ["residual"] if residual is not None else []
        plan, last = _plan_of(call, x, w, b, fused, options, *after), OUTWARD[x.ndim]
        if not late:
            call.state[x.shape, x.dtype] = Ready(plan, shape, call.macs)
        plan.run(x.transpose(last), out.transpose(last), residual=None if add is None else add.transpose(last))
    else:
        CONVOLUTIONS[x.ndim - 2](x, w, b, activation=fused, residual=add, out=out, **options)
    if late and residual is not None:
        out = np.add(out, residual, out=out if np.broadcast_shapes(shape, np.shape(residual)) == shape else None)
        out = activate(call, out, activation)
    return out


def _plan_of(
    call: Call, x: Array, w: Array, b: Array | None, fused: str | None, options: dict[str, Any], *after: str
) -> ConvPlan:  # fmt: skip
    """The plan of constant weights for inputs of this shape, kept."""
    key = ("plan", x.shape[1:], x.dtype, fused)
    plan: ConvPlan | None = call.state.get(key)
    if plan is None:
        if call.get("before"):
            options = {**options, "algorithm": wish_for_scaled()}
        plan = call.state[key] = prepared(
            Use.NETWORK, (x.shape[0], *x.shape[2:], x.shape[1]), w.transpose(WEIGHT_OUTWARD[w.ndim]), b,
            data_format="channels_last", activation=fused, **options, **call.halves,
        )  # fmt: skip
    _describe(call, plan, *after, fused)
    return plan


def _describe(call: Call, plan: ConvPlan, *after: str | None) -> None:
    """What a plan says of itself, and what happens to its input and to its results."""
    before = call.get("before") and affine(call.get("before").attributes["chain"], lambda name: None, 2)

    def tell() -> tuple[str, int, tuple[str, ...]]:
        made = plan.explain()
        why = dict.fromkeys((made.reason, *(sentence for _, sentence in made.refused)))
        first = [] if before is None else [f"{before}{'' if plan.scales else ' by itself'}"]
        return " + ".join([*first, made.kind, *filter(None, after)]), made.packed_weight_bytes, tuple(why)

    call.describe_later(tell)


def _pooled(call: Call, x: Array, w: Array, b: Array | None, shape: Shape, options: dict[str, Any]) -> Any:
    """The convolution and the largest of every 2 x 2 of its results."""
    plan = _plan_of(call, x, w, b, call.get("activation"), options)
    _describe(call, plan, call.get("activation"), "max pooling")
    ready = Ready(plan, (*shape[:2], shape[2] // 2, shape[3] // 2), call.macs, True)
    if 0 not in ready.shape:
        call.state[x.shape, x.dtype] = ready
        return ready.run(call, x, None)
    raise call.error(f"a window of 2 x 2 does not fit an input of shape {shape}.")


def output_shape(call: Call, x: Array, w: Array, window: Window) -> Shape:
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
    call.macs = x.size * prod(w.shape[1:])
    if call.told.reach is None:
        reach = [-(-extent // step) for extent, step in zip(bare.extent, stride, strict=True)]
        call.slides(reach, [Fraction(1, step) for step in stride])
    # Rows added after the end are rows that the padding did not cut off.
    sides = tuple((before, after - more) for (before, after), more in zip(sides, extra, strict=True))
    shape = (x.shape[0], w.shape[1] * groups, *output)
    out = call.empty_channels_last(shape, x.dtype) if shape[1] > 1 else call.empty(shape, x.dtype)
    if call.is_constant(1) and (b is None or call.is_constant(2)) and x.dtype in FLOATS:
        key, last = ("plan", x.shape[1:], x.dtype), OUTWARD[x.ndim]
        activation = call.get("activation")
        plan: ConvPlan | None = call.state.get(key)
        if plan is None:
            for fused in dict.fromkeys((activation, None)):  # outputs without a tap are written without one
                plan = call.state[key] = prepared_transposed(
                    (x.shape[0], *x.shape[2:], x.shape[1]), w.transpose(WEIGHT_OUTWARD[w.ndim]), b, stride, sides, 0,
                    groups, dilation, data_format="channels_last", activation=fused, num_threads=call.threads,
                    **call.halves,
                )  # fmt: skip
                if plan.native:
                    break
            assert plan is not None
            _describe(call, plan, activation)
        plan.run(x.transpose(last), out.transpose(last))
        call.native = plan.native
        if plan.native:
            return out
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


@operator("CausalConvWithState", since=27)
def causal_with_state(
    call: Call, x: Array, weight: Array, bias: Array | None = None, past: Array | None = None
) -> tuple[Array, Array]:
    """A depthwise convolution of a sequence that arrives in chunks, and the end of the sequence so far."""
    if x.ndim != 3 or weight.ndim != 3 or weight.shape[:2] != (x.shape[1], 1) or not weight.shape[2]:
        raise call.error(f"a weight of shape {weight.shape} does not fit an input of shape {x.shape}.")
    before = (x.shape[0], x.shape[1], weight.shape[2] - 1)
    past = np.zeros(call.check(before, x.dtype), x.dtype) if past is None else past
    if past.shape != before:
        raise call.error(f"a past of shape {past.shape}; it must be {before}.")
    whole = np.concatenate([past, x], axis=2)
    out = call.empty(x.shape, x.dtype)
    if x.shape[2]:  # else the kernel reaches beyond the past
        CONVOLUTIONS[1](whole, weight, bias, groups=x.shape[1], num_threads=call.threads, out=out)
    if call.get("activation", "none") in ("silu", "swish"):
        activate(call, out, "silu")
    return out, whole[:, :, whole.shape[2] - before[2] :]
