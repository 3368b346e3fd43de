"""Convolutions, poolings, normalisations, products of matrices and what resizes images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from ..ops import sizes
from .elementwise import called, softmax_of_seen
from .trace import Refused, Tracer, array_type, converts, whole


def _each(values: Any, axes: int) -> list[int]:
    """A number an axis, where one may stand for all."""
    return [whole(value) for value in sizes(values if isinstance(values, int) else tuple(values), axes)]


def _floating(t: Tracer, *nodes: Any) -> Any:
    """The type that these floating-point values all have."""
    kinds = {t.fake(node).dtype for node in nodes if node is not None}
    if len(kinds) != 1 or not next(iter(kinds)).is_floating_point:
        raise Refused(f"values of {' and '.join(sorted(map(str, kinds)))}")
    return kinds.pop()


@converts("convolution", "_convolution")
def _convolution(t: Tracer, node: fx.Node, a: Any) -> Any:
    _floating(t, a.input, a.weight, a.bias)
    axes = len(t.shape(a.weight)) - 2
    if len(t.shape(a.input)) != axes + 2 or axes not in (1, 2, 3):
        raise Refused("a convolution of other than one to three axes")
    pads = _each(a.padding, axes)
    operands = [t.name(one) for one in (a.input, a.weight, a.bias) if one is not None]
    options: dict[str, Any] = {
        "strides": _each(a.stride, axes), "pads": pads * 2, "dilations": _each(a.dilation, axes), "group": a.groups,
    }  # fmt: skip
    if not a.transposed:
        return t.add("Conv", operands, **options)
    return t.add("ConvTranspose", operands, output_padding=_each(a.output_padding, axes), **options)


# ---- poolings ------------------------------------------------------------------------------------------------------


@converts("max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool1d", "avg_pool2d", "avg_pool3d")
def _pooling(t: Tracer, node: fx.Node, a: Any) -> Any:
    name = called(node)
    axes, largest = int(name[8]), name.startswith("max")
    if len(t.shape(a.self)) != axes + 2 or not t.fake(a.self).dtype.is_floating_point:
        raise Refused("a pooling of a single image, or of integers")
    if getattr(a, "divisor_override", None) is not None:
        raise Refused("a divisor of its own")
    kernel = _each(a.kernel_size, axes)
    options: dict[str, Any] = {
        "kernel_shape": kernel, "strides": _each(a.stride, axes) if a.stride else kernel,
        "pads": _each(a.padding, axes) * 2, "ceil_mode": int(a.ceil_mode),
    }  # fmt: skip
    if largest:
        made = t.add("MaxPool", [t.name(a.self)], 1, dilations=_each(a.dilation, axes), **options)
        return list(made)
    return t.add("AveragePool", [t.name(a.self)], count_include_pad=int(a.count_include_pad), **options)


@converts("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool2d", "adaptive_max_pool3d")
def _adaptive(t: Tracer, node: fx.Node, a: Any) -> Any:
    """To a number of windows: all of one size where that divides the image, else one by one, an axis at a time."""
    largest = "max" in called(node)
    shape, name = t.shape(a.self), t.name(a.self)
    wanted = [whole(size) for size in a.output_size]
    size = shape[-len(wanted) :]
    if len(shape) != len(wanted) + 2 or 0 in wanted or 0 in size:
        raise Refused("a pooling of a single image, or of nothing")
    if set(wanted) == {1}:
        made = t.add("GlobalMaxPool" if largest else "GlobalAveragePool", [name])
    elif all(n % m == 0 for n, m in zip(size, wanted, strict=True)):
        kernel = [n // m for n, m in zip(size, wanted, strict=True)]
        made = t.add("MaxPool" if largest else "AveragePool", [name], kernel_shape=kernel, strides=kernel)
    else:
        made = name
        for axis, (n, m) in enumerate(zip(size, wanted, strict=True), 2):
            parts = []
            for at in range(m):
                ends = [t.integers([end]) for end in (at * n // m, -(-(at + 1) * n // m), axis)]
                part = t.add("Slice", [made, *ends])
                parts.append(t.add("ReduceMax" if largest else "ReduceMean", [part, t.integers([axis])], keepdims=1))
            made = t.add("Concat", parts, axis=axis)
    return [made] if largest else made


# ---- normalisations ------------------------------------------------------------------------------------------------


def _factor(t: Tracer, given: Any, neutral: int, shape: Sequence[int], kind: Any) -> str:
    return t.name(given) if given is not None else t.constant(np.full(shape, neutral, array_type(kind)))


@converts("_native_batch_norm_legit_no_training", "native_batch_norm", "_native_batch_norm_legit")
def _batch_norm(t: Tracer, node: fx.Node, a: Any) -> Any:
    x, kind = a.input, _floating(t, a.input, a.weight, a.bias)
    shape = t.shape(x)
    scale, shift = (_factor(t, given, n, shape[1:2], kind) for given, n in ((a.weight, 1), (a.bias, 0)))
    if getattr(a, "training", False):
        if shape[0] != 1 or len(shape) < 3 or getattr(a, "running_mean", None) is not None:
            raise Refused("statistics of this batch")
        return [t.add("InstanceNormalization", [t.name(x), scale, shift], epsilon=a.eps)]
    if getattr(a, "running_mean", None) is None or a.running_var is None:
        raise Refused("statistics of this batch")
    _floating(t, x, a.running_mean, a.running_var)
    operands = [t.name(x), scale, shift, t.name(a.running_mean), t.name(a.running_var)]
    return [t.add("BatchNormalization", operands, epsilon=a.eps)]


@converts("native_layer_norm")
def _layer_norm(t: Tracer, node: fx.Node, a: Any) -> Any:
    kind, axes = _floating(t, a.input, a.weight, a.bias), len(a.normalized_shape)
    shape = t.shape(a.input)[-axes:]
    scale = _factor(t, a.weight, 1, shape, kind)
    operands = [t.name(a.input), scale, *([] if a.bias is None else [t.name(a.bias)])]
    return [t.add("LayerNormalization", operands, axis=-axes, epsilon=a.eps)]


@converts("native_group_norm")
def _group_norm(t: Tracer, node: fx.Node, a: Any) -> Any:
    kind, shape = _floating(t, a.input, a.weight, a.bias), t.shape(a.input)
    operands = [t.name(a.input), *(_factor(t, one, n, shape[1:2], kind) for one, n in ((a.weight, 1), (a.bias, 0)))]
    return [t.add("GroupNormalization", operands, num_groups=a.group, epsilon=a.eps)]


# ---- products ------------------------------------------------------------------------------------------------------


@converts("mm", "bmm", "matmul", "mv", "dot")
def _product(t: Tracer, node: fx.Node, a: Any) -> Any:
    first, second = next((vars(a)[one], vars(a)[two]) for one, two in OPERANDS if one in vars(a) and two in vars(a))
    _floating(t, first, second)
    return t.add("MatMul", [t.name(first), t.name(second)])


OPERANDS = (("self", "mat2"), ("self", "other"), ("self", "vec"), ("self", "tensor"))


@converts("addmm", "baddbmm")
def _product_and_sum(t: Tracer, node: fx.Node, a: Any) -> Any:
    first, second = (a.mat1, a.mat2) if hasattr(a, "mat1") else (a.batch1, a.batch2)
    kind = _floating(t, a.self, first, second)
    if called(node) == "addmm":
        operands = [t.name(one) for one in (first, second, a.self)]
        return t.add("Gemm", operands, alpha=float(a.alpha), beta=float(a.beta))
    made, added = t.add("MatMul", [t.name(first), t.name(second)]), t.name(a.self)
    made = made if a.alpha == 1 else t.add("Mul", [made, t.name(a.alpha, kind)])
    return t.add("Add", [made, added if a.beta == 1 else t.add("Mul", [added, t.name(a.beta, kind)])])


@converts("linear")
def _linear(t: Tracer, node: fx.Node, a: Any) -> Any:
    _floating(t, a.input, a.weight, a.bias)
    if len(t.shape(a.weight)) != 2:
        raise Refused("a weight that is no matrix")
    turned = t.add("Transpose", [t.name(a.weight)], perm=[1, 0])
    made = t.add("MatMul", [t.name(a.input), turned])
    return made if a.bias is None else t.add("Add", [made, t.name(a.bias)])


@converts("_scaled_dot_product_flash_attention_for_cpu", "scaled_dot_product_attention")
def _attention(t: Tracer, node: fx.Node, a: Any) -> Any:
    kind, q, k = _floating(t, a.query, a.key, a.value), t.shape(a.query), t.shape(a.key)
    if a.dropout_p or len(q) != len(k) or q[:-2] != k[:-2]:
        raise Refused("dropout, or heads that share keys")
    scale = q[-1] ** -0.5 if a.scale is None else float(a.scale)
    turned = t.add("Transpose", [t.name(a.key)], perm=[*range(len(k) - 2), len(k) - 1, len(k) - 2])
    scores = t.add("Mul", [t.add("MatMul", [t.name(a.query), turned]), t.name(scale, kind)])
    if a.is_causal:
        hidden = np.triu(np.full((q[-2], k[-2]), -np.inf, array_type(kind)), 1)
        scores = t.add("Add", [scores, t.constant(hidden)])
    if a.attn_mask is None:
        weights = t.add("Softmax", [scores], axis=-1)
    else:
        if t.fake(a.attn_mask).dtype is torch.bool:
            raise Refused("a mask of what is true")
        weights = softmax_of_seen(t, t.add("Add", [scores, t.name(a.attn_mask, kind)]), kind, -1)
    made = t.add("MatMul", [weights, t.name(a.value)])
    return made if called(node) == "scaled_dot_product_attention" else [made]


# ---- sizes ---------------------------------------------------------------------------------------------------------


@converts("fastconv::interpolate")
def _interpolate(t: Tracer, node: fx.Node, a: Any) -> Any:
    """`F.interpolate`: by factors, which then decide where results lie, or to a size."""
    shape, made = t.shape(a.input), t.shape(node)
    by_factor = a.scale_factor is not None and not a.recompute_scale_factor
    mode = {"nearest": "nearest", "nearest-exact": "nearest"}.get(
        a.mode, "cubic" if a.mode == "bicubic" else "linear" if a.mode.endswith("linear") else ""
    )
    if not mode or a.antialias or not t.fake(a.input).dtype.is_floating_point:
        raise Refused(f"interpolation by {a.mode!r}")
    if a.mode == "nearest":
        options: dict[str, Any] = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    elif a.mode == "nearest-exact":
        options = {"coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_ceil"}
    else:
        options = {"coordinate_transformation_mode": "align_corners" if a.align_corners else "half_pixel"}
    if a.align_corners and mode != "nearest":
        by_factor = False  # corners lie where they lie, whatever the factor
    if mode == "cubic":
        options["cubic_coeff_a"] = -0.75
    if by_factor:
        factors = list(a.scale_factor) if len(a.scale_factor) > 1 else list(a.scale_factor) * (len(shape) - 2)
        scales = np.array([1, 1, *factors], np.float32)
        if mode == "nearest" and scales[2:].tolist() != factors:
            raise Refused("a factor that float32 rounds")
        if [int(np.floor(n * s)) for n, s in zip(shape, scales.astype(float), strict=True)] != list(made):
            raise Refused("a factor whose size is another in float32")
        return t.add("Resize", [t.name(a.input), "", t.constant(scales)], mode=mode, **options)
    return t.add("Resize", [t.name(a.input), "", "", t.integers(made)], mode=mode, **options)


@converts("pixel_shuffle")
def _pixel_shuffle(t: Tracer, node: fx.Node, a: Any) -> Any:
    if len(t.shape(a.self)) != 4:
        raise Refused("a single image")
    return t.add("DepthToSpace", [t.name(a.self)], blocksize=a.upscale_factor, mode="CRD")


@converts("pixel_unshuffle")
def _pixel_unshuffle(t: Tracer, node: fx.Node, a: Any) -> Any:
    shape, by = t.shape(a.self), a.downscale_factor
    if len(shape) != 4:
        raise Refused("a single image")
    n, c, h, w = shape
    split = t.add("Reshape", [t.name(a.self), t.integers([n, c, h // by, by, w // by, by])])
    turned = t.add("Transpose", [split], perm=[0, 1, 3, 5, 2, 4])
    return t.add("Reshape", [turned, t.integers([n, c * by * by, h // by, w // by])])


@converts("constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d",
          "replication_pad2d", "replication_pad3d", "fastconv::pad_circular")  # fmt: skip
def _pad(t: Tracer, node: fx.Node, a: Any) -> Any:
    """Sides are named from the last axis on, (before, after) each."""
    name, rank = called(node), len(t.shape(a.self))
    given = [whole(side) for side in (a.pad if hasattr(a, "pad") else a.padding)]
    sides = [(0, 0)] * (rank - len(given) // 2) + [*zip(given[::2], given[1::2], strict=True)][::-1]
    pads = t.integers([side for end in (0, 1) for side in (pair[end] for pair in sides)])
    kind = t.fake(a.self).dtype
    if name == "constant_pad_nd":
        return t.add("Pad", [t.name(a.self), pads, t.name(a.value, kind)], mode="constant")
    mode = "wrap" if name == "pad_circular" else "reflect" if name.startswith("reflection") else "edge"
    return t.add("Pad", [t.name(a.self), pads], mode=mode)


@converts("grid_sampler_2d", "grid_sampler_3d")
def _grid_sample(t: Tracer, node: fx.Node, a: Any) -> Any:
    _floating(t, a.input, a.grid)
    return t.add(
        "GridSample", [t.name(a.input), t.name(a.grid)], mode=("linear", "nearest", "cubic")[a.interpolation_mode],
        padding_mode=("zeros", "border", "reflection")[a.padding_mode], align_corners=int(a.align_corners),
    )  # fmt: skip


