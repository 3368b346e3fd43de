"""The functions of `quantized`, from a caller's arguments to a `QuantisedPlan`."""

from __future__ import annotations

from math import prod
from typing import cast

import numpy as np

from ..errors import ConvError
from . import threads
from .arrays import Array, as_array
from .ask import asked
from .geometry import conv_geometry
from .layouts import checked_out
from .quantised import QuantisedPlan, Requantise
from .scales import Scales, checked_bias, require_bytes, scales


def requantise(s: Scales) -> Requantise:
    """What takes the sums of an operation to its result."""
    return Requantise(s.multiplier, s.zero_point, s.low, s.high, s.dtype)


def convolve(
    axes: int,
    input: object,
    input_scale: object,
    input_zero_point: object,
    weight: object,
    weight_scale: object,
    weight_zero_point: object,
    output_scale: object,
    output_zero_point: object,
    bias: object,
    stride: object,
    padding: object,
    dilation: object,
    groups: object,
    data_format: object,
    activation: object,
    num_threads: int | None,
    out: object,
) -> Array:
    """ONNX's QLinearConv."""
    name = f"quantized.conv{axes}d"
    x, w = as_array("input", input), as_array("weight", weight)
    require_bytes("input", x.dtype)
    require_bytes("weight", w.dtype)
    a = asked(
        name, axes, data_format, (stride, padding, dilation, groups, "zeros", 0), x, w, "auto", num_threads
    )  # fmt: skip
    assert a.input is not None and a.weight is not None
    channels = a.geometry.out_channels
    s = scales(
        name, x.dtype, w.dtype, channels, input_scale, input_zero_point, weight_scale, weight_zero_point, output_scale,
        output_zero_point, activation,
    )  # fmt: skip
    plan = QuantisedPlan(
        a.geometry, a.weight, s.weight_zero, x.dtype, s.input_zero, checked_bias(name, bias, channels), requantise(s),
        threads=a.threads, data_format=a.frame.name, batched=a.batched,
    )  # fmt: skip
    return plan.run(x, cast("Array | None", out))


def linear(
    input: object,
    input_scale: object,
    input_zero_point: object,
    weight: object,
    weight_scale: object,
    weight_zero_point: object,
    output_scale: object,
    output_zero_point: object,
    bias: object,
    activation: object,
    num_threads: int | None,
    out: object,
) -> Array:
    """A dense layer: a convolution of a single tap over the rows of the input."""
    name = "quantized.linear"
    x, w = as_array("input", input), as_array("weight", weight)
    require_bytes("input", x.dtype)
    require_bytes("weight", w.dtype)
    if w.ndim != 2 or not x.ndim or x.shape[-1] != w.shape[1]:
        raise ConvError(
            f"{name}: weight must have shape (O, I) and input (..., I), but got weight of shape {w.shape} and input of "
            f"shape {x.shape}."
        )
    s = scales(
        name, x.dtype, w.dtype, len(w), input_scale, input_zero_point, weight_scale, weight_zero_point, output_scale,
        output_zero_point, activation,
    )  # fmt: skip
    b, team = checked_bias(name, bias, len(w)), threads.effective(num_threads)
    shape = (*x.shape[:-1], len(w))
    target = None if out is None else checked_out(name, out, shape, s.dtype)
    y = np.empty(shape, s.dtype)
    if y.size:
        plan = dense_plan(prod(shape[:-1]), w, s.weight_zero, x.dtype, s.input_zero, b, requantise(s), team)
        y = plan.run(x.reshape(1, prod(shape[:-1]), x.shape[-1])).reshape(shape)
    if target is None:
        return y
    target[...] = y
    return cast(Array, out)


def dense_plan(
    rows: int, weight: Array, weight_zero: Array, input_dtype: object, input_zero: int, bias: Array | None,
    requantised: Requantise | None, team: int,
) -> QuantisedPlan:  # fmt: skip
    """The plan of a dense layer, (O, I), for so many rows: inputs are (1, rows, I), results (1, rows, O)."""
    outputs, inputs = weight.shape
    g = conv_geometry((1, inputs, rows), (outputs, inputs, 1), 1, 0, 1, 1)
    return QuantisedPlan(
        g, weight.reshape(outputs, inputs, 1), weight_zero, input_dtype, input_zero, bias, requantised, threads=team,
        data_format="channels_last",
    )  # fmt: skip
