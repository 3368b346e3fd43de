"""Blocks that several of the zoo's nets share."""

from __future__ import annotations

from . import operators as ops
from .graph import Graph, Value

RESIDUAL_SCALE = 0.25  # of the last normalisation of what is added to a shortcut, lest deep nets add up


def squeeze_excite(g: Graph, x: Value, inner: int, act: str, gate: str) -> Value:
    """Hu et al. 2018, with 1x1 convolutions as torchvision has it."""
    y = ops.conv(g, ops.global_pool(g, x), inner, 1, act=act)
    return ops.mul(g, x, ops.conv(g, y, x.channels, 1, act=gate))


def inverted_residual(
    g: Graph, x: Value, inner: int, out: int, kernel: int, stride: int, act: str,
    squeeze: tuple[int, str, str] | None = None, epsilon: float = 1e-5,
) -> Value:  # fmt: skip
    """Sandler et al. 2018: widen, depthwise, squeeze-excite (inner channels, act, gate), narrow, shortcut."""
    adds = stride == 1 and x.channels == out
    y = ops.conv_norm(g, x, inner, 1, act=act, epsilon=epsilon) if inner != x.channels else x
    y = ops.conv_norm(g, y, inner, kernel, stride, act, groups=inner, epsilon=epsilon)
    if squeeze:
        y = squeeze_excite(g, y, *squeeze)
    y = ops.conv_norm(g, y, out, 1, act=None, scale=RESIDUAL_SCALE if adds else 1.0, epsilon=epsilon)
    return ops.add(g, x, y) if adds else y


def bottleneck(
    g: Graph, x: Value, width: int, out: int, stride: int = 1, groups: int = 1, squeeze: int | None = None
) -> Value:
    """He et al. 2015 with the stride in the 3x3 layer; groups as ResNeXt and RegNet, squeeze-excite as RegNetY."""
    y = ops.conv_norm(g, x, width, 1)
    y = ops.conv_norm(g, y, width, 3, stride, groups=groups)
    if squeeze:
        y = squeeze_excite(g, y, squeeze, "relu", "sigmoid")
    y = ops.conv_norm(g, y, out, 1, act=None, scale=RESIDUAL_SCALE)
    same = stride == 1 and x.channels == out
    return ops.add(g, y, x if same else ops.conv_norm(g, x, out, 1, stride, act=None), "relu")


def classifier(g: Graph, x: Value, classes: int = 1000) -> Graph:
    """Global average and a dense layer, which ends the graph."""
    return g.end(ops.dense(g, ops.flatten(g, ops.global_pool(g, x)), classes))


def tokens(g: Graph, x: Value) -> Value:
    """(N, C, H, W) to (N, H W, C)."""
    n, c, height, width = x.shape
    return ops.transpose(g, ops.reshape(g, x, (n, c, height * width)), (0, 2, 1))


def attention(g: Graph, x: Value, heads: int, mask: object = None) -> Value:
    """Self-attention over (N, T, C) as exporters write it; `mask` is added to the scores."""
    n, length, width = x.shape
    deep = width // heads
    every = ops.transpose(g, ops.reshape(g, ops.dense(g, x, 3 * width), (n, length, 3, heads, deep)), (2, 0, 3, 1, 4))
    q, k, v = (ops.reshape(g, part, (n, heads, length, deep)) for part in ops.split(g, every, [1, 1, 1], 0))
    q = ops.scaled(g, q, deep**-0.5)
    scores = ops.matmul(g, q, ops.transpose(g, k, (0, 1, 3, 2)), 1.0)
    if mask is not None:
        scores = g.node("Add", [scores.name, g.constant(mask)], scores.shape, 1.0)
    mixed = ops.matmul(g, ops.softmax(g, scores), v, 0.3)
    return ops.dense(g, ops.reshape(g, ops.transpose(g, mixed, (0, 2, 1, 3)), (n, length, width)), width)


def transformer(g: Graph, x: Value, heads: int, mask: object = None) -> Value:
    """Attention and two dense layers with GELU, each behind a normalisation and beside a shortcut."""
    x = ops.add(g, x, ops.scaled(g, attention(g, ops.spelt_norm(g, x, [-1], 1e-6), heads, mask), RESIDUAL_SCALE))
    y = ops.dense(g, ops.spelt_norm(g, x, [-1], 1e-6), 4 * x.shape[-1], "gelu")
    return ops.add(g, x, ops.scaled(g, ops.dense(g, y, x.shape[-1]), RESIDUAL_SCALE))


def twice(g: Graph, x: Value, first: int, second: int | None = None, act: str = "relu") -> Value:
    """Two 3x3 convolutions with their normalisations, as U-Nets have them."""
    return ops.conv_norm(g, ops.conv_norm(g, x, first, 3, act=act), second or first, 3, act=act)


def residual_twice(g: Graph, x: Value, act: str) -> Value:
    """A residual block of two 3x3 layers without an activation behind the sum, as SRGAN has it."""
    y = ops.conv(g, x, x.channels, 3)
    y = ops.conv(g, ops.norm(g, y, act), x.channels, 3)
    return ops.add(g, x, ops.norm(g, y, scale=RESIDUAL_SCALE))
