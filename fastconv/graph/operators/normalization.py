"""Normalisations."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..._core.arrays import Array
from ..._core.sums import FEW
from ..tensors import numpy_type
from . import rows
from .registry import INTERNAL, Call, operator
from .sums import mean as mean_over
from .sums import summed


def per_channel(values: Array, rank: int) -> Array:
    """(C,) as it is repeated over the other axes of an (N, C, ...) array."""
    return values.reshape(-1, *(1,) * (rank - 2))


@operator("BatchNormalization")
def batch_normalization(call: Call, x: Array, scale: Array, bias: Array, mean: Array, variance: Array) -> Any:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias; with `training_mode` by the batch's own statistics."""
    if x.ndim < 1 or any(part.shape != scale.shape or part.ndim != 1 for part in (bias, mean, variance)):
        raise call.error(f"statistics of shapes {scale.shape}, {mean.shape} do not fit an input of shape {x.shape}.")
    if x.ndim > 1 and scale.size != x.shape[1]:
        raise call.error(f"{scale.size} statistics do not fit the channels of an input of shape {x.shape}.")
    training = call.get("training_mode", 0) if call.version >= 14 else call.version < 7 and not call.get("is_test", 0)
    outputs: tuple[Array, ...] = ()
    if training and call.version >= 14:
        axes = tuple(axis for axis in range(x.ndim) if axis != 1)
        own_mean = mean_over(x, axes)
        own_variance = mean_over(np.square(x - own_mean), axes).ravel()
        own_mean = own_mean.ravel()
        momentum = call.get("momentum", 0.9)
        running = (mean * momentum + own_mean * (1 - momentum), variance * momentum + own_variance * (1 - momentum))
        outputs = tuple(part.astype(mean.dtype) for part in running)
        mean, variance = own_mean, own_variance
    factor = scale / np.sqrt(variance + call.get("epsilon", 1e-5))
    shift = bias - mean * factor
    y = np.multiply(x, per_channel(factor, x.ndim).astype(x.dtype), out=call.into(x))
    y = np.add(y, per_channel(shift, x.ndim).astype(x.dtype), out=y)
    return (y, *outputs)[: max(1, len(call.node.outputs))] if outputs else y


def _standardised(call: Call, x: Array, axes: tuple[int, ...]) -> Any:
    centred = x - mean_over(x, axes, call.threads)
    variance = mean_over(np.square(centred), axes, call.threads)
    variance += x.dtype.type(call.get("epsilon", 1e-5))
    centred /= np.sqrt(variance, out=variance)
    return centred


@operator("InstanceNormalization")
def instance_normalization(call: Call, x: Array, scale: Array, bias: Array) -> Any:
    """Every image and channel by its own mean and deviation."""
    if x.ndim < 3 or scale.shape != (x.shape[1],) or bias.shape != scale.shape:
        raise call.error(f"a scale of shape {scale.shape} does not fit an input of shape {x.shape}.")
    if rows.native(x) and scale.dtype == bias.dtype == x.dtype:
        return rows.grouped(call, x, x.shape[1], scale, bias, call.get("epsilon", 1e-5))
    y = _standardised(call, x, tuple(range(2, x.ndim)))
    y *= per_channel(scale, x.ndim)
    y += per_channel(bias, x.ndim)
    return y


@operator("GroupNormalization")
def group_normalization(call: Call, x: Array, scale: Array, bias: Array) -> Any:
    """Groups of channels of every image; up to operator set 20 a scale a group, then a channel."""
    groups = int(call.get("num_groups", 1))
    if x.ndim < 2 or groups < 1 or x.shape[1] % groups:
        raise call.error(f"an input of shape {x.shape} has no {groups} groups of channels.")
    if scale.size == groups != x.shape[1]:
        scale, bias = (np.repeat(part, x.shape[1] // groups) for part in (scale, bias))
    if rows.native(x) and scale.dtype == bias.dtype == x.dtype and scale.shape == bias.shape == x.shape[1:2]:
        return rows.grouped(call, x, groups, scale, bias, call.get("epsilon", 1e-5))
    split = x.reshape(x.shape[0], groups, -1)
    y = _standardised(call, split, (2,)).reshape(x.shape)
    y *= per_channel(scale, x.ndim)
    y += per_channel(bias, x.ndim)
    return y


@operator("LayerNormalization")
def layer_normalization(call: Call, x: Array, scale: Array, bias: Array | None = None) -> Any:
    """All axes from `axis` on together."""
    axis = call.axis(x.ndim, -1)
    axes = tuple(range(axis, x.ndim))
    if len(call.node.outputs) == 1 and rows.native(x) and _repeats(x, axes, scale, bias):
        return rows.standardised(call, x, axes, scale, bias, call.get("epsilon", 1e-5), True)
    mean = mean_over(x, axes)
    centred = x - mean
    inverse = 1 / np.sqrt(mean_over(np.square(centred), axes) + call.get("epsilon", 1e-5))
    y = centred * inverse * scale
    y = y if bias is None else y + bias
    kind = numpy_type(int(call.get("stash_type", 1)))  # of the statistics
    return (y.astype(x.dtype, copy=False), mean.astype(kind), inverse.astype(kind))[: len(call.node.outputs)]


def _repeats(x: Array, axes: tuple[int, ...], *operands: Array | None) -> bool:
    """Whether operands are of the type of `x` and the same along every axis but these."""
    for operand in operands:
        if operand is None:
            continue
        first = x.ndim - operand.ndim
        if operand.dtype != x.dtype or first < 0:
            return False
        if any(size not in (1, x.shape[at] if at in axes else 1) for at, size in enumerate(operand.shape, first)):
            return False
    return True


@operator("Standardised", domain=INTERNAL)
def standardised(call: Call, x: Array, scale: Array | None = None, bias: Array | None = None) -> Any:
    """LayerNormalization over any axes, or without `centre` RMSNormalization: what `onnx.spelled` finds."""
    axes = tuple(call.from_front(axis, x.ndim) for axis in call.get("axes"))
    epsilon, centre = call.get("epsilon"), bool(call.get("centre"))
    if rows.native(x) and _repeats(x, axes, scale, bias):
        return rows.standardised(call, x, axes, scale, bias, epsilon, centre)
    if rows.native(x) and centre and sorted(axes) == list(range(2, x.ndim)) and _repeats(x, (1,), scale, bias):
        return _grouped(call, x, x.shape[1], scale, bias, epsilon)
    centred = x - mean_over(x, axes) if centre else x
    y: Any = centred / np.sqrt(mean_over(np.square(centred), axes) + x.dtype.type(epsilon))
    y = y if scale is None else y * scale
    return y if bias is None else y + bias


def _grouped(call: Call, x: Array, groups: int, scale: Array | None, bias: Array | None, epsilon: float) -> Array:
    """Groups of channels by themselves; a scale and a bias a channel, or none."""
    factor, shift = (
        np.broadcast_to(np.full(1, neutral, x.dtype) if operand is None else operand.reshape(-1), x.shape[1])
        for operand, neutral in ((scale, 1), (bias, 0))
    )
    return rows.grouped(call, x, groups, factor, shift, epsilon)


@operator("Grouped", domain=INTERNAL)
def grouped(call: Call, x: Array, scale: Array | None = None, bias: Array | None = None) -> Any:
    """GroupNormalization whose scale and bias are optional and (C, 1, 1)."""
    groups, epsilon = int(call.get("num_groups")), call.get("epsilon")
    if x.ndim < 2 or x.shape[1] % groups:
        raise call.error(f"an input of shape {x.shape} has no {groups} groups of channels.")
    shape = [x.shape[at] if size == 0 and at < x.ndim else size for at, size in enumerate(call.get("shape", x.shape))]
    same = len(shape) == x.ndim and all(size in (own, -1) for own, size in zip(x.shape, shape, strict=True))
    if same and rows.native(x) and _repeats(x, (1,), scale, bias):
        return _grouped(call, x, groups, scale, bias, epsilon)
    y: Any = _standardised(call, x.reshape(x.shape[0], groups, -1), (2,)).reshape(shape)
    y = y if scale is None else y * scale
    return y if bias is None else y + bias


@operator("RMSNormalization")
def rms_normalization(call: Call, x: Array, scale: Array) -> Any:
    """By the root of the mean square of all axes from `axis` on."""
    axes = tuple(range(call.axis(x.ndim, -1), x.ndim))
    if rows.native(x) and _repeats(x, axes, scale):
        return rows.standardised(call, x, axes, scale, None, call.get("epsilon", 1e-5), False)
    root = np.sqrt(mean_over(np.square(x), axes) + call.get("epsilon", 1e-5))
    return (x / root * scale).astype(scale.dtype, copy=False)


@operator("MeanVarianceNormalization")
def mean_variance_normalization(call: Call, x: Array) -> Any:
    """(x - mean) / deviation over axes."""
    axes = tuple(call.from_front(axis, x.ndim) for axis in call.get("axes", [0, 2, 3]))
    centred = x - mean_over(x, axes, call.threads)
    deviation = np.sqrt(mean_over(np.square(centred), axes, call.threads))
    return (centred / (deviation + x.dtype.type(1e-9))).astype(x.dtype, copy=False)


@operator("LpNormalization")
def lp_normalization(call: Call, x: Array) -> Any:
    """By the sum of magnitudes or the Euclidean norm along an axis; a zero norm gives zeros."""
    axis, order = call.axis(x.ndim, -1), int(call.get("p", 2))
    if order == 1:
        norm = summed(np.abs(x), (axis,))
    else:
        norm = np.sqrt(summed(np.square(x), (axis,)))
    return np.divide(x, norm, out=np.zeros_like(x), where=norm != 0)


@operator("LRN")
def lrn(call: Call, x: Array) -> Any:
    """x / (bias + alpha / size * sum of squares of `size` neighbouring channels) ** beta (Krizhevsky et al. 2012)."""
    size = int(call.get("size", 1))
    if x.ndim < 2 or size < 1:
        raise call.error(f"no {size} neighbours in an input of shape {x.shape}.")
    channels = x.shape[1]
    before = (size - 1) // 2  # an even window reaches one further to the right
    squares = np.square(x)
    sums = np.zeros(x.shape, np.float64 if size > FEW else x.dtype)
    for shift in range(max(-before, 1 - channels), min(size - before, channels)):
        sums[:, max(0, -shift) : channels - max(0, shift)] += squares[:, max(0, shift) : channels - max(0, -shift)]
    sums *= call.get("alpha", 1e-4) / size
    sums += call.get("bias", 1.0)
    return (x / np.power(sums, call.get("beta", 0.75))).astype(x.dtype, copy=False)


