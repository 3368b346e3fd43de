"""Small classifiers, at 224 x 224."""

from __future__ import annotations

from . import operators as ops
from .blocks import classifier, inverted_residual
from .graph import Graph, Value

IMAGE = (3, 224, 224)


def mobilenet_v1(batch: int) -> Graph:
    """Howard et al. 2017, arXiv:1704.04861."""
    g = Graph("MobileNetV1", (batch, *IMAGE))
    x = ops.conv_norm(g, g.input, 32, 3, 2, "relu6")
    ends = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for out, stride in ends:
        x = ops.conv_norm(g, x, x.channels, 3, stride, "relu6", groups=x.channels)
        x = ops.conv_norm(g, x, out, 1, act="relu6")
    return classifier(g, x)


def mobilenet_v2(batch: int) -> Graph:
    """Sandler et al. 2018, arXiv:1801.04381."""
    g = Graph("MobileNetV2", (batch, *IMAGE))
    x = ops.conv_norm(g, g.input, 32, 3, 2, "relu6")
    for widen, out, count, stride in [
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ]:  # fmt: skip
        for i in range(count):
            x = inverted_residual(g, x, widen * x.channels, out, 3, 1 if i else stride, "relu6")
    return classifier(g, ops.conv_norm(g, x, 1280, 1, act="relu6"))


def mobilenet_v3(batch: int) -> Graph:
    """The large one: Howard et al. 2019, arXiv:1905.02244."""
    g = Graph("MobileNetV3-large", (batch, *IMAGE))
    x = ops.conv_norm(g, g.input, 16, 3, 2, "hard_swish", epsilon=1e-3)
    for kernel, inner, out, squeeze, act, stride in [
        (3, 16, 16, 0, "relu", 1), (3, 64, 24, 0, "relu", 2), (3, 72, 24, 0, "relu", 1), (5, 72, 40, 24, "relu", 2),
        (5, 120, 40, 32, "relu", 1), (5, 120, 40, 32, "relu", 1), (3, 240, 80, 0, "hard_swish", 2),
        (3, 200, 80, 0, "hard_swish", 1), (3, 184, 80, 0, "hard_swish", 1), (3, 184, 80, 0, "hard_swish", 1),
        (3, 480, 112, 120, "hard_swish", 1), (3, 672, 112, 168, "hard_swish", 1), (5, 672, 160, 168, "hard_swish", 2),
        (5, 960, 160, 240, "hard_swish", 1), (5, 960, 160, 240, "hard_swish", 1),
    ]:  # fmt: skip
        gate = (squeeze, "relu", "hard_sigmoid") if squeeze else None
        x = inverted_residual(g, x, inner, out, kernel, stride, act, gate, 1e-3)
    x = ops.flatten(g, ops.global_pool(g, ops.conv_norm(g, x, 960, 1, act="hard_swish", epsilon=1e-3)))
    return g.end(ops.dense(g, ops.dense(g, x, 1280, "hard_swish"), 1000))


def efficientnet_b0(batch: int) -> Graph:
    """Tan and Le 2019, arXiv:1905.11946."""
    g = Graph("EfficientNet-B0", (batch, *IMAGE))
    x = ops.conv_norm(g, g.input, 32, 3, 2, "silu")
    for widen, kernel, stride, out, count in [
        (1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4),
        (6, 3, 1, 320, 1),
    ]:  # fmt: skip
        for i in range(count):
            gate = (x.channels // 4, "silu", "sigmoid")
            x = inverted_residual(g, x, widen * x.channels, out, kernel, 1 if i else stride, "silu", gate)
    return classifier(g, ops.conv_norm(g, x, 1280, 1, act="silu"))


def shufflenet_v2(batch: int) -> Graph:
    """The width of 1.0: Ma et al. 2018, arXiv:1807.11164."""
    g = Graph("ShuffleNetV2-1.0", (batch, *IMAGE))
    x = ops.pool(g, ops.conv_norm(g, g.input, 24, 3, 2), "MaxPool", 3, 2, 1)
    for out, count in ((116, 4), (232, 8), (464, 4)):
        for i in range(count):
            x = _shuffled(g, x, out, 1 if i else 2)
    x = ops.reduce_mean(g, ops.conv_norm(g, x, 1024, 1), (2, 3))
    return g.end(ops.dense(g, x, 1000))


def _shuffled(g: Graph, x: Value, out: int, stride: int) -> Value:
    half = out // 2
    if stride == 1:
        left, y = ops.split(g, x, [half, half])
    else:
        left = ops.conv_norm(g, x, x.channels, 3, 2, None, groups=x.channels)
        left, y = ops.conv_norm(g, left, half, 1), x
    y = ops.conv_norm(g, y, half, 1)
    y = ops.conv_norm(g, y, half, 3, stride, None, groups=half)
    both = ops.concat(g, [left, ops.conv_norm(g, y, half, 1)])
    n, c, height, width = both.shape
    mixed = ops.transpose(g, ops.reshape(g, both, (n, 2, c // 2, height, width)), (0, 2, 1, 3, 4))
    return ops.reshape(g, mixed, both.shape)


def squeezenet(batch: int) -> Graph:
    """Version 1.1: Iandola et al. 2016, arXiv:1602.07360."""
    g = Graph("SqueezeNet-1.1", (batch, *IMAGE))
    x = ops.conv(g, g.input, 64, 3, 2, 0, act="relu")
    for inner, out, pooled in [
        (16, 64, True), (16, 64, False), (32, 128, True), (32, 128, False), (48, 192, True), (48, 192, False),
        (64, 256, False), (64, 256, False),
    ]:  # fmt: skip
        if pooled:
            x = ops.pool(g, x, "MaxPool", 3, 2, ceil=True)
        x = ops.conv(g, x, inner, 1, act="relu")
        x = ops.concat(g, [ops.conv(g, x, out, 1, act="relu"), ops.conv(g, x, out, 3, act="relu")])
    return g.end(ops.flatten(g, ops.global_pool(g, ops.conv(g, x, 1000, 1, act="relu"))))
