"""ONNX nets of one and three axes: a block of a 3-D U-Net and a 1-D audio net, by prepared plans, with right values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx_models import model  # noqa: E402

from fastconv import reference  # noqa: E402
from fastconv.onnx import InferenceSession  # noqa: E402

Array = np.ndarray[Any, np.dtype[Any]]
make = onnx.helper.make_node


def drawn(*shapes: tuple[int, ...]) -> list[Array]:
    rng = np.random.default_rng(0)
    return [(rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype("float32") for shape in shapes]


def volume_net() -> tuple[Any, dict[str, Any]]:
    """Convolution, pooling, transposed convolution, the skip beside it, and a head."""
    names = ("w1", "b1", "w2", "b2", "wt", "bt", "w3", "b3")
    arrays = drawn(
        (8, 2, 3, 3, 3), (8, 1), (16, 8, 3, 3, 3), (16, 1), (16, 8, 2, 2, 2), (8, 1), (3, 16, 1, 1, 1), (3, 1)
    )  # fmt: skip
    constants = {name: a.reshape(-1) if name[0] == "b" else a for name, a in zip(names, arrays, strict=True)}
    nodes = [
        make("Conv", ["x", "w1", "b1"], ["c1"], pads=[1] * 6),
        make("Relu", ["c1"], ["a1"]),
        make("MaxPool", ["a1"], ["p1"], kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
        make("Conv", ["p1", "w2", "b2"], ["c2"], pads=[1] * 6),
        make("Relu", ["c2"], ["a2"]),
        make("ConvTranspose", ["a2", "wt", "bt"], ["u"], strides=[2, 2, 2]),
        make("Concat", ["u", "a1"], ["j"], axis=1),
        make("Conv", ["j", "w3", "b3"], ["h"]),
        make("GlobalAveragePool", ["j"], ["g"]),
        make("Sigmoid", ["h"], ["y"]),
    ]
    return model(onnx, nodes, {"x": ["n", 2, "d", "h", "w"]}, {"y": None, "g": None}, constants), constants


def volume_net_by_numpy(x: Array, c: dict[str, Any]) -> list[Array]:
    a1 = np.maximum(reference.conv3d(x, c["w1"], c["b1"], 1, 1), 0)
    p1 = reference.max_pool3d(a1, 2)
    a2 = np.maximum(reference.conv3d(p1, c["w2"], c["b2"], 1, 1), 0)
    joined = np.concatenate([reference.conv_transpose3d(a2, c["wt"], c["bt"], 2), a1], 1)
    head = reference.conv3d(joined, c["w3"], c["b3"])
    return [1 / (1 + np.exp(-head)), joined.mean((2, 3, 4), keepdims=True)]


def audio_net() -> tuple[Any, dict[str, Any]]:
    """As a vocoder has it: enlarged by a long transposed kernel, then dilated residual convolutions."""
    names = ("w0", "b0", "wt", "bt", "w1", "b1", "w2", "b2", "wd", "bd")
    arrays = drawn((16, 8, 7), (16, 1), (16, 8, 8), (8, 1), (8, 8, 3), (8, 1), (8, 8, 3), (8, 1), (8, 1, 5), (8, 1))
    constants = {name: a.reshape(-1) if name[0] == "b" else a for name, a in zip(names, arrays, strict=True)}
    nodes = [
        make("Conv", ["x", "w0", "b0"], ["c0"], pads=[3, 3]),
        make("LeakyRelu", ["c0"], ["a0"]),
        make("ConvTranspose", ["a0", "wt", "bt"], ["u"], strides=[4], pads=[2, 2]),
        make("Relu", ["u"], ["r"]),
        make("Conv", ["r", "w1", "b1"], ["c1"], pads=[3, 3], dilations=[3]),
        make("Relu", ["c1"], ["a1"]),
        make("Conv", ["a1", "w2", "b2"], ["c2"], pads=[1, 1]),
        make("Add", ["c2", "r"], ["s"]),
        make("Conv", ["s", "wd", "bd"], ["d"], pads=[2, 2], group=8),
        make("AveragePool", ["d"], ["m"], kernel_shape=[4], strides=[4]),
        make("Tanh", ["m"], ["y"]),
    ]
    return model(onnx, nodes, {"x": ["n", 8, "t"]}, {"y": None}, constants), constants


def audio_net_by_numpy(x: Array, c: dict[str, Any]) -> list[Array]:
    z = reference.conv1d(x, c["w0"], c["b0"], 1, 3)
    r = np.maximum(reference.conv_transpose1d(np.where(z < 0, z * 0.01, z), c["wt"], c["bt"], 4, 2), 0)
    a1 = np.maximum(reference.conv1d(r, c["w1"], c["b1"], 1, 3, 3), 0)
    s = reference.conv1d(a1, c["w2"], c["b2"], 1, 1) + r
    d = reference.conv1d(s, c["wd"], c["bd"], 1, 2, 1, 8)
    return [np.tanh(reference.avg_pool1d(d, 4))]


NETS = [
    pytest.param(volume_net, volume_net_by_numpy, ((2, 2, 8, 12, 10), (1, 2, 4, 6, 8)), 4, id="volume"),
    pytest.param(audio_net, audio_net_by_numpy, ((2, 8, 50), (1, 8, 33)), 5, id="audio"),
]


@pytest.mark.parametrize(("build", "by_numpy", "shapes", "convolutions"), NETS)
def test_nets_are_right_and_run_by_plans(build: Any, by_numpy: Any, shapes: Any, convolutions: int) -> None:
    built, constants = build()
    session = InferenceSession(built.SerializeToString())
    for shape in shapes:
        x = np.random.default_rng(1).standard_normal(shape).astype("float32")
        for _ in range(2):  # by plans that are there
            for found, right in zip(session.run(None, {"x": x}), by_numpy(x, constants), strict=True):
                np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-5)
    packed = [line for line in session.describe()["steps"] if line["packed_bytes"]]
    assert len(packed) == convolutions


@pytest.mark.parametrize(("build", "by_numpy", "shapes", "convolutions"), NETS)
def test_nets_agree_with_onnx_runtime(build: Any, by_numpy: Any, shapes: Any, convolutions: int) -> None:
    runtime = pytest.importorskip("onnxruntime")
    data = build()[0].SerializeToString()
    ours, theirs = InferenceSession(data), runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    for shape in shapes:
        x = np.random.default_rng(2).standard_normal(shape).astype("float32")
        for a, b in zip(ours.run(None, {"x": x}), theirs.run(None, {"x": x}), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_stream_with_its_state_has_the_values_of_the_whole() -> None:
    """CausalConvWithState, then a pointwise one: whatever the chunks, and each step's state."""
    w1, b1, w2 = drawn((6, 1, 4), (6, 1), (5, 6, 1))
    nodes = [
        make("CausalConvWithState", ["x", "w1", "b1", "past"], ["c", "present"], activation="silu"),
        make("Conv", ["c", "w2"], ["y"]),
    ]
    shapes: dict[str, Any] = {"x": ["n", 6, "t"], "past": ["n", 6, 3]}
    built = model(onnx, nodes, shapes, {"y": None, "present": None}, {"w1": w1, "b1": b1.reshape(-1), "w2": w2}, 27)
    session = InferenceSession(built.SerializeToString())
    x = np.random.default_rng(3).standard_normal((2, 6, 23)).astype("float32")
    whole = reference.conv1d(reference.conv1d(x, w1, b1.reshape(-1), padding="causal", groups=6, activation="silu"), w2)
    for cuts in ([23], [1] * 23, [5, 1, 9, 8]):
        state, parts, at = np.zeros((2, 6, 3), np.float32), [], 0
        for length in cuts:
            y, state = session.run(None, {"x": x[..., at : at + length], "past": state})
            parts.append(y)
            at += length
            behind = np.concatenate([np.zeros((2, 6, 3), np.float32), x[..., :at]], 2)[..., -3:]
            np.testing.assert_array_equal(state, behind)
        np.testing.assert_allclose(np.concatenate(parts, 2), whole, rtol=1e-5, atol=1e-6)
    alone = model(onnx, nodes[:1], shapes, {"c": None, "present": None}, {"w1": w1, "b1": b1.reshape(-1)}, 27)
    c, kept = InferenceSession(alone.SerializeToString()).run(None, {"x": x[..., :0], "past": state})
    assert c.shape == (2, 6, 0)
    np.testing.assert_array_equal(kept, state)
