"""Classifiers of common size, at 224 x 224 and (Inception-v3) 299 x 299, in torchvision's form where it has them."""

from __future__ import annotations

from functools import partial

from . import operators as ops
from .blocks import RESIDUAL_SCALE, bottleneck, classifier
from .graph import Graph, Value

IMAGE = (3, 224, 224)


def vgg16(batch: int) -> Graph:
    """Configuration D: Simonyan and Zisserman 2014, arXiv:1409.1556."""
    g = Graph("VGG-16", (batch, *IMAGE))
    x = g.input
    for out, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            x = ops.conv(g, x, out, 3, act="relu")
        x = ops.pool(g, x, "MaxPool", 2, 2)
    x = ops.flatten(g, x)
    return g.end(ops.dense(g, ops.dense(g, ops.dense(g, x, 4096, "relu"), 4096, "relu"), 1000))


def _stem(g: Graph) -> Value:
    return ops.pool(g, ops.conv_norm(g, g.input, 64, 7, 2), "MaxPool", 3, 2, 1)


def resnet18(batch: int) -> Graph:
    """He et al. 2015, arXiv:1512.03385."""
    g = Graph("ResNet-18", (batch, *IMAGE))
    x = _stem(g)
    for out in (64, 128, 256, 512):
        for i in range(2):
            stride = 2 if out > 64 and not i else 1
            y = ops.conv_norm(g, ops.conv_norm(g, x, out, 3, stride), out, 3, act=None, scale=RESIDUAL_SCALE)
            x = ops.add(g, y, ops.conv_norm(g, x, out, 1, 2, act=None) if stride == 2 else x, "relu")
    return classifier(g, x)


def _resnet(name: str, batch: int, groups: int, widen: int) -> Graph:
    g = Graph(name, (batch, *IMAGE))
    x = _stem(g)
    for width, count in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for i in range(count):
            x = bottleneck(g, x, widen * width, 4 * width, 2 if width > 64 and not i else 1, groups)
    return classifier(g, x)


def resnet50(batch: int) -> Graph:
    """He et al. 2015, arXiv:1512.03385, with the stride in the 3x3 layer."""
    return _resnet("ResNet-50", batch, 1, 1)


def resnext50(batch: int) -> Graph:
    """32x4d: Xie et al. 2016, arXiv:1611.05431."""
    return _resnet("ResNeXt-50", batch, 32, 2)


def regnet_y_400mf(batch: int) -> Graph:
    """Radosavovic et al. 2020, arXiv:2003.13678."""
    g = Graph("RegNetY-400MF", (batch, *IMAGE))
    x = ops.conv_norm(g, g.input, 32, 3, 2)
    for out, count in ((48, 1), (104, 3), (208, 6), (440, 6)):
        for i in range(count):
            x = bottleneck(g, x, out, out, 1 if i else 2, out // 8, round(x.channels / 4))
    return classifier(g, x)


def densenet121(batch: int) -> Graph:
    """Huang et al. 2016, arXiv:1608.06993."""
    g = Graph("DenseNet-121", (batch, *IMAGE))
    x = _stem(g)
    for count in (6, 12, 24, 16):
        if count > 6:
            x = ops.conv(g, ops.norm(g, x, "relu"), x.channels // 2, 1, bias=False)
            x = ops.pool(g, x, "AveragePool", 2, 2)
        parts = [x]
        for _ in range(count):
            y = ops.conv(g, ops.norm(g, ops.concat(g, parts) if len(parts) > 1 else x, "relu"), 128, 1, bias=False)
            parts.append(ops.conv(g, ops.norm(g, y, "relu"), 32, 3, bias=False))
        x = ops.concat(g, parts)
    return classifier(g, ops.norm(g, x, "relu"))


def convnext_tiny(batch: int) -> Graph:
    """Liu et al. 2022, arXiv:2201.03545."""
    g = Graph("ConvNeXt-T", (batch, *IMAGE))

    def norm(x: Value) -> Value:  # of the channels, by way of channels last
        return ops.transpose(g, ops.layer_norm(g, ops.transpose(g, x, (0, 2, 3, 1))), (0, 3, 1, 2))

    x = norm(ops.conv(g, g.input, 96, 4, 4, 0))
    for width, count in ((96, 3), (192, 3), (384, 9), (768, 3)):
        if width > 96:
            x = ops.conv(g, norm(x), width, 2, 2, 0)
        for _ in range(count):
            y = ops.transpose(g, ops.conv(g, x, width, 7, groups=width), (0, 2, 3, 1))
            y = ops.dense(g, ops.dense(g, ops.layer_norm(g, y), 4 * width, "gelu"), width)
            x = ops.add(g, ops.layer_scale(g, ops.transpose(g, y, (0, 3, 1, 2)), (width, 1, 1), 0.25), x)
    return g.end(ops.dense(g, ops.flatten(g, norm(ops.global_pool(g, x))), 1000))


def googlenet(batch: int) -> Graph:
    """Szegedy et al. 2014, arXiv:1409.4842, with batch normalisation and 3x3 for 5x5 as torchvision has it."""
    g = Graph("GoogLeNet", (batch, *IMAGE))
    layer = partial(ops.conv_norm, g, epsilon=1e-3)

    def pool(x: Value, kernel: int = 3) -> Value:
        return ops.pool(g, x, "MaxPool", kernel, 2, ceil=True)

    x = pool(layer(g.input, 64, 7, 2))
    x = pool(layer(layer(x, 64, 1), 192, 3))
    for one, three_in, three, five_in, five, pooled, before in [
        (64, 96, 128, 16, 32, 32, 0), (128, 128, 192, 32, 96, 64, 0), (192, 96, 208, 16, 48, 64, 3),
        (160, 112, 224, 24, 64, 64, 0), (128, 128, 256, 24, 64, 64, 0), (112, 144, 288, 32, 64, 64, 0),
        (256, 160, 320, 32, 128, 128, 0), (256, 160, 320, 32, 128, 128, 2), (384, 192, 384, 48, 128, 128, 0),
    ]:  # fmt: skip
        x = pool(x, before) if before else x
        x = ops.concat(g, [
            layer(x, one, 1), layer(layer(x, three_in, 1), three, 3), layer(layer(x, five_in, 1), five, 3),
            layer(ops.pool(g, x, "MaxPool", 3, 1, 1, ceil=True), pooled, 1),
        ])  # fmt: skip
    return classifier(g, x)


def inception_v3(batch: int) -> Graph:
    """Szegedy et al. 2015, arXiv:1512.00567, without the auxiliary head."""
    g = Graph("Inception-v3", (batch, 3, 299, 299))
    layer = partial(ops.conv_norm, g, epsilon=1e-3)

    def chain(x: Value, *layers: tuple[int, int | tuple[int, int]]) -> Value:
        for out, kernel in layers:
            x = layer(x, out, kernel)
        return x

    def averaged(x: Value, out: int) -> Value:
        return layer(ops.pool(g, x, "AveragePool", 3, 1, 1), out, 1)

    def halved(x: Value, out: int) -> Value:
        return layer(x, out, 3, 2, padding=0)

    x = layer(layer(halved(g.input, 32), 32, 3, padding=0), 64, 3)
    x = layer(layer(ops.pool(g, x, "MaxPool", 3, 2), 80, 1), 192, 3, padding=0)
    x = ops.pool(g, x, "MaxPool", 3, 2)
    for out in (32, 64, 64):
        x = ops.concat(g, [layer(x, 64, 1), chain(x, (48, 1), (64, 5)), chain(x, (64, 1), (96, 3), (96, 3)),
                           averaged(x, out)])  # fmt: skip
    x = ops.concat(g, [halved(x, 384), halved(chain(x, (64, 1), (96, 3)), 96), ops.pool(g, x, "MaxPool", 3, 2)])
    for c in (128, 160, 160, 192):
        x = ops.concat(g, [
            layer(x, 192, 1), chain(x, (c, 1), (c, (1, 7)), (192, (7, 1))),
            chain(x, (c, 1), (c, (7, 1)), (c, (1, 7)), (c, (7, 1)), (192, (1, 7))), averaged(x, 192),
        ])  # fmt: skip
    x = ops.concat(g, [halved(layer(x, 192, 1), 320), halved(chain(x, (192, 1), (192, (1, 7)), (192, (7, 1))), 192),
                       ops.pool(g, x, "MaxPool", 3, 2)])  # fmt: skip
    for _ in range(2):
        three, five = layer(x, 384, 1), chain(x, (448, 1), (384, 3))
        forks = [ops.concat(g, [layer(y, 384, (1, 3)), layer(y, 384, (3, 1))]) for y in (three, five)]
        x = ops.concat(g, [layer(x, 320, 1), *forks, averaged(x, 192)])
    return classifier(g, x)
