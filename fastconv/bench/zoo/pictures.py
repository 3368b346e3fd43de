"""Nets from images to images."""

from __future__ import annotations

from . import operators as ops
from .blocks import residual_twice, twice
from .functions import apply
from .graph import Graph, Value


def unet(batch: int) -> Graph:
    """Ronneberger et al. 2015, arXiv:1505.04597, in the form of Buda et al. 2019 (32 features, 256 x 256)."""
    g = Graph("U-Net", (batch, 3, 256, 256))
    x, skips = g.input, []
    for width in (32, 64, 128, 256):
        skips.append(twice(g, x, width))
        x = ops.pool(g, skips[-1], "MaxPool", 2, 2)
    x = twice(g, x, 512)
    for skip in reversed(skips):
        x = twice(g, ops.concat(g, [ops.conv_transpose(g, x, skip.channels, 2, 2, 0), skip]), skip.channels)
    return g.end(ops.conv(g, x, 1, act="sigmoid"))


def unet_3d(batch: int, width: int = 16) -> Graph:
    """Çiçek et al. 2016, arXiv:1606.06650, half as wide (they have a width of 32), 32 x 64 x 64."""
    g = Graph("U-Net 3-D", (batch, 3 if width == 32 else 1, 32, 64, 64))
    x, skips = g.input, []
    for level in range(3):
        skips.append(twice(g, x, width << level, width << level + 1))
        x = ops.pool(g, skips[-1], "MaxPool", 2, 2)
    x = twice(g, x, 8 * width, 16 * width)
    for skip in reversed(skips):
        x = twice(g, ops.concat(g, [skip, ops.conv_transpose(g, x, x.channels, 2, 2, 0)]), skip.channels)
    return g.end(ops.conv(g, x, 3))


def espcn(batch: int) -> Graph:
    """Shi et al. 2016, arXiv:1609.05158: three times as large, from 240 x 320."""
    g = Graph("ESPCN", (batch, 1, 240, 320))
    x = ops.conv(g, ops.conv(g, g.input, 64, 5, act="tanh"), 32, 3, act="tanh")
    return g.end(apply(g, ops.pixel_shuffle(g, ops.conv(g, x, 9, 3), 3), "tanh"))


def dncnn(batch: int) -> Graph:
    """DnCNN-S, 17 layers: Zhang et al. 2016, arXiv:1608.03981."""
    g = Graph("DnCNN", (batch, 1, 256, 256))
    x = ops.conv(g, g.input, 64, 3, act="relu")
    for _ in range(15):
        x = ops.conv_norm(g, x, 64, 3)
    x = ops.conv(g, x, 1, 3, bias=False)
    return g.end(g.node("Sub", ["x", x.name], x.shape, 2.0))


def srgan(batch: int) -> Graph:
    """The generator of Ledig et al. 2016, arXiv:1609.04802: four times as large, from 64 x 64."""
    g = Graph("SRGAN generator", (batch, 3, 64, 64))
    first = x = ops.conv(g, g.input, 64, 9, act="prelu")
    for _ in range(16):
        x = residual_twice(g, x, "prelu")
    x = ops.add(g, first, ops.norm(g, ops.conv(g, x, 64, 3)))
    for _ in range(2):
        x = apply(g, ops.pixel_shuffle(g, ops.conv(g, x, 256, 3), 2), "prelu")
    return g.end(ops.conv(g, x, 3, 9))


def dcgan(batch: int) -> Graph:
    """The generator of Radford et al. 2015, arXiv:1511.06434, 64 x 64 as PyTorch's tutorial has it."""
    g = Graph("DCGAN generator", (batch, 100, 1, 1))
    x = ops.norm(g, ops.conv_transpose(g, g.input, 512, 4, 1, 0, bias=False), "relu")
    for out in (256, 128, 64):
        x = ops.norm(g, ops.conv_transpose(g, x, out, 4, 2, 1, bias=False), "relu")
    return g.end(ops.conv_transpose(g, x, 3, 4, 2, 1, bias=False, act="tanh"))


def style(batch: int) -> Graph:
    """Johnson et al. 2016, arXiv:1603.08155, with instance normalisation as PyTorch's example has it, 256 x 256."""
    g = Graph("Style transfer", (batch, 3, 256, 256))

    def layer(x: Value, out: int, kernel: int, stride: int = 1) -> Value:
        return ops.conv(g, ops.reflect(g, x, kernel // 2), out, kernel, stride, 0)

    x = g.input
    for out, kernel, stride in ((32, 9, 1), (64, 3, 2), (128, 3, 2)):
        x = ops.instance_norm(g, layer(x, out, kernel, stride), "relu")
    for _ in range(5):
        y = ops.instance_norm(g, layer(x, 128, 3), "relu")
        x = ops.add(g, ops.instance_norm(g, layer(y, 128, 3)), x)
    for out in (64, 32):
        x = ops.instance_norm(g, layer(ops.resize(g, x), out, 3), "relu")
    return g.end(layer(x, 3, 9))
