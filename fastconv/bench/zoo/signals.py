"""Nets on sound and on lines of text."""

from __future__ import annotations

import numpy as np

from . import operators as ops
from .blocks import RESIDUAL_SCALE, tokens, transformer
from .functions import apply
from .graph import Graph, Value, normal


def conv_tasnet(batch: int) -> Graph:
    """Luo and Mesgarani 2018, arXiv:1809.07454 (N 512, L 16, B 128, H 512, P 3, X 8, R 3): one second at 8 kHz."""
    g = Graph("Conv-TasNet", (batch, 1, 8000))

    def normalised(x: Value) -> Value:  # over channels and time, spelt out
        return ops.spelt_norm(g, x, [1, 2], 1e-8)

    frames = ops.conv(g, g.input, 512, 16, 8, 0, bias=False, act="relu")
    x = ops.conv(g, normalised(frames), 128, 1)
    skips: Value | None = None
    for block in range(24):
        y = normalised(ops.conv(g, x, 512, 1, act="prelu"))
        y = normalised(ops.conv(g, y, 512, 3, dilation=1 << block % 8, groups=512, act="prelu"))
        skip = ops.conv(g, y, 128, 1)
        skips = ops.add(g, skips, skip) if skips else skip
        if block < 23:
            x = ops.add(g, x, ops.scaled(g, ops.conv(g, y, 128, 1), RESIDUAL_SCALE))
    assert skips is not None
    masks = ops.conv(g, apply(g, skips, "prelu"), 1024, 1, act="sigmoid")
    n, _, length = frames.shape
    spread = ops.reshape(g, frames, (n, 1, 512, length))
    masks = ops.reshape(g, masks, (n, 2, 512, length))
    both = g.node("Mul", [masks.name, spread.name], masks.shape, 0.3 * frames.power)
    y = ops.conv_transpose(g, ops.reshape(g, both, (2 * n, 512, length)), 1, 16, 8, 0, bias=False)
    return g.end(ops.reshape(g, y, (n, 2, y.shape[2])))


def wav2vec_encoder(batch: int) -> Graph:
    """The convolutions of wav2vec 2.0: Baevski et al. 2020, arXiv:2006.11477; one second at 16 kHz, with GELU."""
    g = Graph("wav2vec2 encoder", (batch, 1, 16000))
    x = ops.conv(g, g.input, 512, 10, 5, 0, bias=False)
    # A group a channel: PyTorch exports the instance normalisation of a reshaped value, then factor and shift.
    ones, zeros = g.constant(np.ones(512)), g.constant(np.zeros(512))
    flat = ops.reshape(g, x, (batch, 512, x.shape[2]))
    x = ops.reshape(g, g.node("InstanceNormalization", [flat.name, ones, zeros], x.shape, 1.0, epsilon=1e-5), x.shape)
    x = ops.layer_scale(g, x, (512, 1), 1.0)
    x = apply(g, g.node("Add", [x.name, g.weight(normal((512, 1), 0.1))], x.shape, 1.1), "gelu")
    for kernel in (3, 3, 3, 3, 2, 2):
        x = ops.conv(g, x, 512, kernel, 2, 0, bias=False, act="gelu")
    return g.end(x)


def hifigan(batch: int) -> Graph:
    """The generator V2 of Kong et al. 2020, arXiv:2010.05646: 64 frames of a spectrogram to 16,384 samples."""
    g = Graph("HiFi-GAN V2", (batch, 80, 64))

    def leaky_conv(x: Value, kernel: int, dilation: int) -> Value:
        return ops.conv(g, apply(g, x, "leaky_relu"), x.channels, kernel, dilation=dilation)

    x = ops.conv(g, g.input, 128, 7)
    for kernel, rate in ((16, 8), (16, 8), (4, 2), (4, 2)):
        x = apply(g, x, "leaky_relu")
        x = ops.conv_transpose(g, x, x.channels // 2, kernel, rate, (kernel - rate) // 2)
        total: Value | None = None
        for size in (3, 7, 11):
            y = x
            for dilation in (1, 3, 5):
                y = ops.add(g, leaky_conv(leaky_conv(y, size, dilation), size, 1), y)
            total = ops.add(g, total, y) if total else y
        assert total is not None
        x = ops.scaled(g, total, 3.0, "Div")
    return g.end(ops.conv(g, apply(g, x, "leaky_relu"), 1, 7, act="tanh"))


def crepe_tiny(batch: int) -> Graph:
    """Kim et al. 2018, arXiv:1802.06182, capacity 4: 16 frames of 1,024 samples, padded by an operator of its own."""
    g = Graph("CREPE-tiny", (16 * batch, 1, 1024, 1))
    x = g.input
    for i, out in enumerate((128, 16, 16, 16, 32, 64)):
        kernel, stride, before, after = (512, 4, 254, 254) if i == 0 else (64, 1, 31, 32)
        pads = g.constant([0, 0, before, 0, 0, 0, after, 0], np.int64)
        x = g.node("Pad", [x.name, pads], (*x.shape[:2], x.shape[2] + before + after, 1), x.power, mode="constant")
        x = ops.norm(g, ops.conv(g, x, out, (kernel, 1), (stride, 1), 0, act="relu"), epsilon=1e-3)
        x = ops.pool(g, x, "MaxPool", (2, 1), (2, 1))
    x = ops.transpose(g, x, (0, 2, 1, 3))
    return g.end(ops.dense(g, ops.reshape(g, x, (x.shape[0], 256)), 360, "sigmoid"))


def eegnet(batch: int) -> Graph:
    """EEGNet-8,2 of Lawhern et al. 2018, arXiv:1611.08024: one second of 64 electrodes at 128 Hz, two classes."""
    g = Graph("EEGNet-8,2", (batch, 1, 64, 128))

    def along_time(x: Value, out: int, kernel: int, groups: int) -> Value:  # `same` of an even kernel
        before = kernel // 2 - 1
        pads = g.constant([0, 0, 0, before, 0, 0, 0, before + 1], np.int64)
        x = g.node("Pad", [x.name, pads], (*x.shape[:3], x.shape[3] + kernel - 1), x.power, mode="constant")
        return ops.conv(g, x, out, (1, kernel), padding=0, groups=groups, bias=False)

    x = ops.norm(g, along_time(g.input, 8, 64, 1), epsilon=1e-3)
    x = ops.norm(g, ops.conv(g, x, 16, (64, 1), padding=0, groups=8, bias=False), "elu", epsilon=1e-3)
    x = along_time(ops.pool(g, x, "AveragePool", (1, 4), (1, 4)), 16, 16, 16)
    x = ops.norm(g, ops.conv(g, x, 16, 1, bias=False), "elu", epsilon=1e-3)
    x = ops.pool(g, x, "AveragePool", (1, 8), (1, 8))
    return g.end(ops.softmax(g, ops.dense(g, ops.flatten(g, x), 2)))


def crnn(batch: int) -> Graph:
    """Shi et al. 2015, arXiv:1507.05717: lines of 32 x 100, two bidirectional LSTM layers, 37 signs."""
    g = Graph("CRNN", (batch, 1, 32, 100))
    x = ops.pool(g, ops.conv(g, g.input, 64, 3, act="relu"), "MaxPool", 2, 2)
    x = ops.pool(g, ops.conv(g, x, 128, 3, act="relu"), "MaxPool", 2, 2)
    x = ops.norm(g, ops.conv(g, x, 256, 3), "relu")
    x = ops.pool(g, ops.conv(g, x, 256, 3, act="relu"), "MaxPool", 2, (2, 1), (0, 1))
    x = ops.norm(g, ops.conv(g, x, 512, 3), "relu")
    x = ops.pool(g, ops.conv(g, x, 512, 3, act="relu"), "MaxPool", 2, (2, 1), (0, 1))
    x = ops.norm(g, ops.conv(g, x, 512, 2, padding=0), "relu")
    n, c, _, width = x.shape
    x = ops.transpose(g, ops.reshape(g, x, (n, c, width)), (2, 0, 1))
    for out in (256, 37):
        x = ops.lstm(g, x, 256)
        x = ops.reshape(g, ops.dense(g, ops.reshape(g, x, (width * n, 512)), out), (width, n, out))
    return g.end(x)


def _near(height: int, width: int) -> np.ndarray:
    """SVTR's mask of what lies further than 7 x 11 patches' window; infinity is written as a large number."""
    rows, columns = np.divmod(np.arange(height * width), width)
    near = (abs(rows[:, None] - rows) <= 3) & (abs(columns[:, None] - columns) <= 5)
    return np.where(near, np.float32(0), np.float32(-1e4))[None, None]


def svtr_tiny(batch: int) -> Graph:
    """Du et al. 2022, arXiv:2205.00159: lines of 32 x 100, local and global attention, 37 signs."""
    g = Graph("SVTR-tiny", (batch, 3, 32, 100))
    x = ops.conv_norm(g, ops.conv_norm(g, g.input, 32, 3, 2, "gelu"), 64, 3, 2, "gelu")
    height, width = x.shape[2:]
    x = tokens(g, x)
    place = g.weight(normal((1, height * width, 64), 0.02))
    x = g.node("Add", [x.name, place], x.shape, x.power)
    done = 0
    for channels, heads, depth in ((64, 2, 3), (128, 4, 6), (256, 8, 3)):
        if channels > 64:  # merging: half the height
            x = ops.reshape(g, ops.transpose(g, x, (0, 2, 1)), (batch, channels // 2, height, width))
            x = ops.conv(g, x, channels, 3, (2, 1))
            height = x.shape[2]
            x = ops.spelt_norm(g, tokens(g, x), [-1], 1e-6)
        for _ in range(depth):
            x = transformer(g, x, heads, _near(height, width) if done < 6 else None)
            done += 1
    x = ops.reshape(g, ops.transpose(g, ops.spelt_norm(g, x, [-1], 1e-6), (0, 2, 1)), (batch, 256, height, width))
    x = ops.pool(g, x, "AveragePool", (height, 1), 1)
    x = ops.conv(g, x, 192, 1, bias=False, act="hard_swish")
    x = ops.transpose(g, ops.reshape(g, x, (batch, 192, width)), (0, 2, 1))
    return g.end(ops.softmax(g, ops.dense(g, x, 37), 2))
