"""Detectors by the blocks of the YOLO families, with the decoding of boxes that is exported with them."""

from __future__ import annotations

from functools import partial

import numpy as np

from . import operators as ops
from .functions import apply
from .graph import Graph, Value

CLASSES = 80


def _layer(g: Graph, x: Value, out: int, kernel: int = 1, stride: int = 1, padding: int | None = None, **more: float
           ) -> Value:  # fmt: skip
    return ops.conv_norm(g, x, out, kernel, stride, "silu", epsilon=1e-3, padding=padding, **more)


def _bottlenecks(g: Graph, x: Value, count: int, first: int, shortcut: bool) -> list[Value]:
    """`count` pairs of a first kernel and 3x3, each behind the one before."""
    made = [x]
    for _ in range(count):
        y = _layer(g, _layer(g, made[-1], x.channels, first), x.channels, 3, scale=0.5 if shortcut else 1.0)
        made.append(ops.add(g, made[-1], y) if shortcut else y)
    return made


def _c3(g: Graph, x: Value, out: int, count: int, shortcut: bool = True) -> Value:
    """The CSP block of YOLOv5 and YOLOX."""
    deep = _bottlenecks(g, _layer(g, x, out // 2), count, 1, shortcut)[-1]
    return _layer(g, ops.concat(g, [deep, _layer(g, x, out // 2)]), out)


def _c2f(g: Graph, x: Value, out: int, count: int, shortcut: bool = True) -> Value:
    """The CSP block of YOLOv8, which hands on every step."""
    left, right = ops.split(g, _layer(g, x, out), [out // 2, out // 2])
    return _layer(g, ops.concat(g, [left, *_bottlenecks(g, right, count, 3, shortcut)]), out)


def _sppf(g: Graph, x: Value, out: int) -> Value:
    """Pooling pyramid, one pool behind the other."""
    made = [_layer(g, x, x.channels // 2)]
    for _ in range(3):
        made.append(ops.pool(g, made[-1], "MaxPool", 5, 1, 2))
    return _layer(g, ops.concat(g, made), out)


def _pyramid(g: Graph, block: partial[Value], levels: list[Value], reduce: bool) -> list[Value]:
    """Down from the coarsest level and up again; v5 and YOLOX narrow a level before it is enlarged."""
    c3, c4, c5 = (level.channels for level in levels)
    p3, p4, x = levels
    top = _layer(g, x, c4) if reduce else x
    x = block(ops.concat(g, [ops.resize(g, top), p4]), c4)
    middle = _layer(g, x, c3) if reduce else x
    small = block(ops.concat(g, [ops.resize(g, middle), p3]), c3)
    x = block(ops.concat(g, [_layer(g, small, c3, 3, 2), middle]), c4)
    return [small, x, block(ops.concat(g, [_layer(g, x, c4, 3, 2), top]), c5)]


def _grid(height: int, width: int, offset: float = 0.0) -> np.ndarray:
    """Places (x, y) of a map, (2, height, width)."""
    y, x = np.mgrid[:height, :width].astype(np.float32) + np.float32(offset)
    return np.stack([x, y])


def yolov5s(batch: int) -> Graph:
    """YOLOv5s, release 6, at 320 x 320 (Jocher 2020, doi:10.5281/zenodo.3908559)."""
    g = Graph("YOLOv5s", (batch, 3, 320, 320))
    x = _layer(g, _layer(g, g.input, 32, 6, 2, 2), 64, 3, 2)
    x = _c3(g, x, 64, 1)
    p3 = _c3(g, _layer(g, x, 128, 3, 2), 128, 2)
    p4 = _c3(g, _layer(g, p3, 256, 3, 2), 256, 3)
    p5 = _sppf(g, _c3(g, _layer(g, p4, 512, 3, 2), 512, 1), 512)
    levels = _pyramid(g, partial(_c3, g, count=1, shortcut=False), [p3, p4, p5], reduce=True)
    found = []
    for level, stride in zip(levels, (8, 16, 32), strict=True):
        height, width = level.shape[2:]
        y = ops.reshape(g, ops.conv(g, level, 3 * (CLASSES + 5)), (batch, 3, CLASSES + 5, height, width))
        y = apply(g, ops.transpose(g, y, (0, 1, 3, 4, 2)), "sigmoid")
        place, size, scores = ops.split(g, y, [2, 2, CLASSES + 1], 4)
        grid = _grid(height, width, -0.5).transpose(1, 2, 0)[None, None]
        place = ops.scaled(g, ops.scaled(g, ops.scaled(g, place, 2.0), grid, "Add"), float(stride))
        size = g.node("Pow", [ops.scaled(g, size, 2.0).name, g.constant(2)], size.shape, 1.0)
        size = ops.scaled(g, size, np.full((1, 3, 1, 1, 2), 4.0 * stride, np.float32))
        y = ops.concat(g, [place, size, scores], 4)
        found.append(ops.reshape(g, y, (batch, 3 * height * width, CLASSES + 5)))
    return g.end(ops.concat(g, found, 1))


def yolov8n(batch: int) -> Graph:
    """YOLOv8n at 320 x 320 (Jocher et al. 2023, the package ultralytics), its boxes as sums over distributions."""
    g = Graph("YOLOv8n", (batch, 3, 320, 320))
    x = _c2f(g, _layer(g, _layer(g, g.input, 16, 3, 2), 32, 3, 2), 32, 1)
    p3 = _c2f(g, _layer(g, x, 64, 3, 2), 64, 2)
    p4 = _c2f(g, _layer(g, p3, 128, 3, 2), 128, 2)
    p5 = _sppf(g, _c2f(g, _layer(g, p4, 256, 3, 2), 256, 1), 256)
    levels = _pyramid(g, partial(_c2f, g, count=1, shortcut=False), [p3, p4, p5], reduce=False)
    maps, anchors, strides = [], [], []
    for level, stride in zip(levels, (8, 16, 32), strict=True):
        height, width = level.shape[2:]
        boxes = ops.conv(g, _layer(g, _layer(g, level, 64, 3), 64, 3), 64)
        scores = ops.conv(g, _layer(g, _layer(g, level, CLASSES, 3), CLASSES, 3), CLASSES)
        maps.append(ops.reshape(g, ops.concat(g, [boxes, scores]), (batch, 64 + CLASSES, height * width)))
        anchors.append(_grid(height, width, 0.5).reshape(1, 2, -1))
        strides.append(np.full((1, height * width), stride, np.float32))
    boxes, scores = ops.split(g, ops.concat(g, maps, 2), [64, CLASSES])
    count = boxes.shape[2]
    y = ops.softmax(g, ops.transpose(g, ops.reshape(g, boxes, (batch, 4, 16, count)), (0, 2, 1, 3)), 1)
    expectation = g.constant(np.arange(16, dtype=np.float32).reshape(1, 16, 1, 1))
    y = g.node("Conv", [y.name, expectation], (batch, 1, 4, count), 64.0, kernel_shape=[1, 1])
    before, after = ops.split(g, ops.reshape(g, y, (batch, 4, count)), [2, 2])
    places = g.constant(np.concatenate(anchors, 2))
    first = g.node("Sub", [places, before.name], before.shape, 64.0)
    last = g.node("Add", [places, after.name], after.shape, 64.0)
    centre = ops.scaled(g, ops.add(g, first, last), 2.0, "Div")
    size = g.node("Sub", [last.name, first.name], last.shape, 64.0)
    boxes = ops.scaled(g, ops.concat(g, [centre, size], 1), np.concatenate(strides, 1))
    return g.end(ops.concat(g, [boxes, apply(g, scores, "sigmoid")], 1))


def yolox_tiny(batch: int) -> Graph:
    """YOLOX-tiny at 416 x 416: Ge et al. 2021, arXiv:2107.08430."""
    g = Graph("YOLOX-tiny", (batch, 3, 416, 416))
    rows = [ops.cut(g, g.input, start, 416, 2, 2) for start in (0, 1)]
    corners = [ops.cut(g, rows[i], start, 416, 3, 2) for start in (0, 1) for i in (0, 1)]
    x = _layer(g, ops.concat(g, corners), 24, 3)
    x = _c3(g, _layer(g, x, 48, 3, 2), 48, 1)
    p3 = _c3(g, _layer(g, x, 96, 3, 2), 96, 3)
    p4 = _c3(g, _layer(g, p3, 192, 3, 2), 192, 3)
    x = _layer(g, _layer(g, p4, 384, 3, 2), 192)
    pooled = [ops.pool(g, x, "MaxPool", kernel, 1, kernel // 2) for kernel in (5, 9, 13)]
    p5 = _c3(g, _layer(g, ops.concat(g, [x, *pooled]), 384), 384, 1, False)
    levels = _pyramid(g, partial(_c3, g, count=1, shortcut=False), [p3, p4, p5], reduce=True)
    found = []
    for level in levels:
        x = _layer(g, level, 96)
        scores, boxes = (_layer(g, _layer(g, x, 96, 3), 96, 3) for _ in range(2))
        there = ops.conv(g, boxes, 1, act="sigmoid")
        y = ops.concat(g, [ops.conv(g, boxes, 4), there, ops.conv(g, scores, CLASSES, act="sigmoid")])
        found.append(ops.reshape(g, y, (batch, CLASSES + 5, y.shape[2] * y.shape[3])))
    return g.end(ops.transpose(g, ops.concat(g, found, 2), (0, 2, 1)))
