"""Causal convolutions in chunks: the bits of the whole sequence for every cut."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import ConvError, ConvTypeError, reference
from fastconv._core import conv_plan
from fastconv.streaming import MOST_SLOTS, CausalConv1d

# input channels, output channels, taps, stride, dilation, groups
LAYERS = (
    (3, 5, 3, 1, 1, 1), (4, 8, 4, 2, 3, 1), (8, 8, 5, 3, 2, 8), (2, 3, 1, 4, 1, 1), (6, 6, 2, 5, 1, 3),
    (64, 32, 3, 1, 4, 1), (600, 4, 8, 2, 1, 1), (8, 8, 3, 1, 2, 2),
)  # fmt: skip


def drawn(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return rng.integers(-9, 10, shape).astype(dtype) if dtype == "int8" else rng.standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("data_format", ["NCW", "NWC"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int8"])
def test_any_cut_has_the_bits_of_the_whole(layer, data_format, dtype):
    channels, outputs, kernel, stride, dilation, groups = layer
    rng = np.random.default_rng([*layer, len(dtype)])
    first, axis = data_format == "NCW", -1 if data_format == "NCW" else -2
    weight = (outputs, channels // groups, kernel) if first else (kernel, channels // groups, outputs)
    w, b = drawn(rng, weight, dtype), drawn(rng, (outputs,), dtype)
    options: dict[str, Any] = {"data_format": data_format, "activation": "relu"}
    for batch, length in product((1, 3, None), (0, 1, 23, 40)):
        own = (channels, length) if first else (length, channels)
        x = drawn(rng, own if batch is None else (batch, *own), dtype)
        special = [w]
        if dtype != "int8":  # over padding they add nothing
            special.append(w.copy())
            special[1].flat[0], special[1].flat[-1] = np.inf, np.nan
        for values in special:
            whole = fastconv.conv1d(x, values, b, stride, "causal", dilation, groups, algorithm="direct", **options)
            stream = CausalConv1d(values, b, stride, dilation, groups, **options)
            cuts = [np.arange(1, length), [length // 2] * 3, np.sort(rng.integers(0, length + 1, 6))]
            for cut in cuts:
                parts = [stream.run(part) for part in np.split(x, cut, axis)]
                assert np.concatenate(parts, axis).tobytes() == whole.tobytes()
                stream.reset()


def test_a_cut_gives_each_output_as_soon_as_it_can():
    x, w = np.arange(1.0, 11.0)[None, None], np.ones((1, 1, 2))
    stream, twin = CausalConv1d(w, stride=3), reference.CausalConv1d(w, stride=3)
    for cut in (x[..., :1], x[..., 1:3], x[..., 3:3], x[..., 3:8], x[..., 8:]):
        y = stream.run(cut)
        np.testing.assert_array_equal(y, twin.run(cut))
        assert y.base is None or not np.may_share_memory(y, cut)
    assert y.tolist() == [[[19.0]]]
    long = CausalConv1d(np.ones((1, 1, 1)), stride=4)  # samples between windows that none looks at
    given = [long.run(x[..., i : i + 1])[0, 0].tolist() for i in range(10)]
    assert given == [[1], [], [], [], [5], [], [], [], [9], []]


def test_results_are_the_callers_own():
    stream = CausalConv1d(np.ones((1, 1, 3), np.float32))
    chunks = np.random.default_rng(0).standard_normal((4, 1, 1, 8)).astype("float32")
    results = [stream.run(chunk) for chunk in chunks]
    kept = [y.copy() for y in results]
    stream.run(chunks[0])
    for y, before in zip(results, kept, strict=True):
        np.testing.assert_array_equal(y, before)


def test_streams_are_prepared_once_and_few_at_a_time(monkeypatch):
    made = []
    plain = conv_plan.ConvPlan.__init__
    monkeypatch.setattr(conv_plan.ConvPlan, "__init__", lambda *a, **k: (made.append(1), plain(*a, **k))[1])
    stream = CausalConv1d(np.ones((2, 2, 3), np.float32), dilation=2)
    chunk = np.ones((1, 2, 16), np.float32)
    for _ in range(10):
        stream.run(chunk)
    assert len(made) == 2  # that which checks the arguments, and that of the chunks
    stream.reset()
    stream.run(np.ones((3, 2, 16), np.float32))
    assert len(made) == 2
    for length in range(1, 60):
        stream.run(np.ones((3, 2, length), np.float32))
    assert len(stream._slots) <= MOST_SLOTS


def test_chunks_that_do_not_follow_change_nothing():
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((2, 3, 12)).astype("float32"), rng.standard_normal((4, 3, 3)).astype("float32")
    stream = CausalConv1d(w)
    parts = [stream.run(x[..., :5])]
    for wrong, kind, text in (
        (x.astype("float64"), ConvTypeError, "chunk must have the weight's dtype float32"),
        (x[:1], ConvError, r"chunk must continue a batch of 2, but got chunk of shape \(1, 3, 12\)"),
        (x[:, :2], ConvError, "chunk must have 3 channels"),
        (x[0, 0], ConvError, "chunk must have the axes"),
        (None, ConvTypeError, "chunk must be an array"),
    ):
        with pytest.raises(kind, match=text):
            stream.run(wrong)
    parts.append(stream.run(x[..., 5:]))
    whole = fastconv.conv1d(x, w, padding="causal", algorithm="direct")
    assert np.concatenate(parts, 2).tobytes() == whole.tobytes()


def test_arguments_that_are_none():
    w = np.ones((4, 2, 3), np.float32)
    for wrong, text in (
        ({"stride": 0}, "stride must be at least 1"), ({"dilation": (1, 2)}, "dilation of a 1-D operation"),
        ({"groups": 3}, "divisible by groups=3"), ({"bias": np.ones(3, np.float32)}, r"bias must have shape \(4,\)"),
        ({"activation": "mish"}, "activation"), ({"data_format": "NCHWD"}, "data_format"),
        ({"weight": np.ones((4, 2), np.float32)}, "weight must have the axes"),
        ({"weight": np.ones((4, 2, 0), np.float32)}, "the kernel of weight must be at least 1"),
    ):  # fmt: skip
        with pytest.raises(ConvError, match=text):
            CausalConv1d(**{"weight": w, **wrong})
    with pytest.raises(ConvTypeError, match="bias must have dtype float32"):
        CausalConv1d(w, np.ones(4))
    assert "looks back 4" in repr(CausalConv1d(w, dilation=2))


def test_the_weight_is_copied():
    w = np.ones((1, 1, 2), np.float32)
    stream = CausalConv1d(w)
    w[...] = 7
    for length in (3, 4):
        assert stream.run(np.ones((1, 1, length), np.float32))[0, 0, -1] == 2
