"""Convolutions and poolings in files of LiteRT: TensorFlow's words for padding, and operators that pad besides."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from ..peers import NotOffered
from .litert_writer import LAST, Writer
from .reading import Op

SAME, VALID = 0, 1
LOWEST: Final = np.float32(np.finfo(np.float32).min)
POSITIVE: Final = ("Relu", "Clip")


def _window(w: Writer, op: Op) -> tuple[list[int], list[int], list[int], list[tuple[int, int]]]:
    """Kernel, strides, dilations, and the padding that is met, of two axes."""
    shape, after = w.net.shapes[op.inputs[0]][2:], w.net.shapes[op.output][2:]
    axes, o = len(shape), op.options
    kernel, strides = list(o["kernel_shape"]), list(o.get("strides", [1] * axes))
    dilations, pads = list(o.get("dilations", [1] * axes)), o.get("pads", [0] * 2 * axes)
    met = []
    for i, n in enumerate(shape):
        end = (after[i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - n - pads[i]
        met.append((pads[i], max(0, end)))
    if axes == 1:
        return [1, *kernel], [1, *strides], [1, *dilations], [(0, 0), *met]
    return kernel, strides, dilations, met


def _same(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """TensorFlow's padding."""
    total = max(0, (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size)
    return total // 2, total - total // 2


def _padded(w: Writer, op: Op, value: float = 0.0) -> tuple[int, int]:
    """The input's tensor, behind an operator that pads it where no word says so, and that word."""
    x = w.as_last(op.inputs[0])
    kernel, strides, dilations, met = _window(w, op)
    sizes = w.shapes[x][1:3]
    if met == [_same(*one) for one in zip(sizes, kernel, strides, dilations, strict=True)] and not _counts(op):
        return x, SAME
    if met == [(0, 0), (0, 0)]:
        return x, VALID
    return _pad_tensor(w, x, [(0, 0), *met, (0, 0)], value), VALID


def _counts(op: Op) -> bool:
    return op.kind == "AveragePool" and bool(op.options.get("count_include_pad")) and any(op.options.get("pads", []))


def _pad_tensor(w: Writer, x: int, pads: list[tuple[int, int]], value: float = 0.0) -> int:
    shape = [n + before + after for n, (before, after) in zip(w.shapes[x], pads, strict=True)]
    given = [x, w.constant(pads, np.int32)]
    if value:
        return w.new("PADV2", [*given, w.constant(np.float32(value))], shape, "PadV2Options")
    return w.new("PAD", given, shape, "PadOptions")


def convolution(w: Writer, op: Op) -> None:
    weight, bias = w.net.array(op, 1), w.net.array(op, 2)
    assert weight is not None
    if weight.ndim not in LAST:
        raise NotOffered("images and signals only; XNNPACK has nothing for volumes")
    weight = weight[:, :, None] if weight.ndim == 3 else weight
    groups, channels = op.options.get("group", 1), w.net.shapes[op.inputs[0]][1]
    x, padding = _padded(w, op)
    _, strides, dilations, _ = _window(w, op)
    values: dict[str, Any] = {
        "padding": padding, "strideH": strides[0], "strideW": strides[1], "dilationHFactor": dilations[0],
        "dilationWFactor": dilations[1], "fusedActivationFunction": op.options.get("act", 0),
    }  # fmt: skip
    shift = w.constant(np.zeros(len(weight), np.float32) if bias is None else bias)
    result = w.result(op.output, True)
    if groups == channels and groups > 1:
        kernel = w.constant(weight[:, 0].transpose(1, 2, 0)[None])
        values["depthMultiplier"] = len(weight) // channels
        w.add("DEPTHWISE_CONV_2D", [x, kernel, shift], [result], "DepthwiseConv2DOptions", **values)
    else:
        kernel = w.constant(weight.transpose(0, 2, 3, 1))
        w.add("CONV_2D", [x, kernel, shift], [result], "Conv2DOptions", **values)


def transposed(w: Writer, op: Op) -> None:
    weight, bias = w.net.array(op, 1), w.net.array(op, 2)
    assert weight is not None
    if op.options.get("group", 1) > 1 or weight.ndim not in LAST:
        raise NotOffered("not set up for grouped transposed layers and for volumes")
    axes = weight.ndim - 2
    kernel, strides = list(weight.shape[2:]), list(op.options.get("strides", [1] * axes))
    pads = op.options.get("pads", [0] * 2 * axes)
    x = w.as_last(op.inputs[0])
    after = list(w.last_shape(op.output))
    whole = [(n - 1) * s + k for n, s, k in zip(w.net.shapes[op.inputs[0]][2:], strides, kernel, strict=True)]
    same = all(
        n * s == a and p == max(0, k - s) // 2
        for n, s, a, k, p in zip(w.net.shapes[op.inputs[0]][2:], strides, w.net.shapes[op.output][2:], kernel, pads,
                                 strict=False)
    )  # fmt: skip
    if not same and any(a > n for a, n in zip(w.net.shapes[op.output][2:], whole, strict=True)):
        raise NotOffered("transposed convolutions that reach beyond their windows")
    whole, strides = ([1, *whole], [1, *strides]) if axes == 1 else (whole, strides)
    shape = after if same else [after[0], *whole, after[3]]
    matrix = weight[:, :, None] if axes == 1 else weight
    given = [w.constant(shape, np.int32), w.constant(matrix.transpose(1, 2, 3, 0)), x]
    given.append(w.constant(np.zeros(weight.shape[1], np.float32) if bias is None else bias))
    made = w.new("TRANSPOSE_CONV", given, shape, "TransposeConvOptions", padding=SAME if same else VALID,
                 strideH=strides[0], strideW=strides[1])  # fmt: skip
    if shape != after:
        begin = [0, *([0, pads[0]] if axes == 1 else pads[:2]), 0]
        made = w.new("SLICE", [made, w.constant(begin, np.int32), w.constant(after, np.int32)], after, "SliceOptions")
    w.last[op.output] = made


def pool(w: Writer, op: Op) -> None:
    maker = {one.output: one for one in w.net.ops}.get(op.inputs[0])
    positive = maker is not None and (maker.kind in POSITIVE or bool(maker.options.get("act")))
    maximum = op.kind == "MaxPool"
    x, padding = _padded(w, op, float(LOWEST) if maximum and not positive else 0.0)
    kernel, strides, _, met = _window(w, op)
    if not maximum and padding == SAME and met != [(0, 0), (0, 0)]:
        raise NotOffered("averages that leave out what is beyond the image")
    w.add("MAX_POOL_2D" if maximum else "AVERAGE_POOL_2D", [x], [w.result(op.output, True)], "Pool2DOptions",
          padding=padding, strideH=strides[0], strideW=strides[1], filterHeight=kernel[0], filterWidth=kernel[1],
          fusedActivationFunction=op.options.get("act", 0))  # fmt: skip
