"""A pointwise convolution and the depthwise one behind it, done in bands of rows: the bits of one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the package onnx: pip install fastconv[onnx]")

from onnx_models import RUNS, draw, model  # noqa: E402

from fastconv.onnx import InferenceSession  # noqa: E402

make = onnx.helper.make_node


def block(size: tuple[int, ...], channels: int, kernel: int, more: list[Any] = (), end: str = "y", **of: Any) -> Any:
    """1x1, after which channels lie side by side, then 1x1, ReLU or what `between` says, depthwise, ReLU; `more` nodes
    follow. `of`: attributes of the depthwise one."""
    inputs = size[1]
    between = of.pop("between", "Relu")
    pad = of.pop("pads", [kernel // 2 * of.get("dilations", [1, 1])[0]] * 4)
    constants = {
        "s": draw(inputs, inputs, 1, 1), "w": draw(channels, inputs, 1, 1), "b": draw(channels),
        "d": draw(channels, 1, kernel, kernel), "e": draw(channels),
    }  # fmt: skip
    nodes = [
        make("Conv", ["x", "s"], ["h"]), make("Conv", ["h", "w", "b"], ["c"]), make(between, ["c"], ["m"]),
        make("Conv", ["m", "d", "e"], ["n"], group=channels, pads=pad, **of), make("Relu", ["n"], ["y"]), *more,
    ]  # fmt: skip
    return model(onnx, nodes, {"x": list(size)}, dict.fromkeys(end.split(",")), constants)


def paired(session: InferenceSession) -> bool:
    """Whether a step left its work to the next one."""
    records = session._prepared.last.replay.records
    return any(record.kind == "native" and not record.works for record in records)


def check(built: Any, size: tuple[int, ...], pairs: bool, threads: int | None = None, values: Any = None) -> None:
    """A session that was recorded on other values against one that has run once."""
    x = draw(*size) if values is None else values
    session, once = InferenceSession(built, num_threads=threads), InferenceSession(built)
    for _ in range(RUNS):
        session.run(None, {"x": draw(*size)})
    expected = once.run(None, {"x": x})
    for _ in range(2):
        for got, wanted in zip(session.run(None, {"x": x}), expected, strict=True):
            assert np.array_equal(got, wanted, equal_nan=True)
    assert paired(session) is pairs


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("size, channels, kernel, of", [
    ((1, 16, 112, 112), 96, 3, {"strides": [2, 2]}),
    ((1, 5, 112, 112), 96, 3, {"between": "Sigmoid"}),
    ((2, 7, 160, 170), 40, 3, {}),  # no whole vectors
    ((1, 12, 61, 219), 99, 5, {"strides": [2, 2]}),
    ((1, 9, 131, 130), 64, 5, {"pads": [2, 2, 2, 2]}),
    ((1, 9, 131, 130), 64, 7, {"pads": [1, 3, 0, 3]}),
    ((1, 9, 131, 130), 64, 3, {"dilations": [2, 2]}),
    ((1, 4, 1100, 31), 32, 3, {}),
    ((1, 4, 3, 12000), 32, 3, {}),  # of rows that are larger than the scratch memory should be
])  # fmt: skip
def test_the_bits_of_one_after_the_other(size, channels, kernel, of, threads):
    check(block(size, channels, kernel, **of), size, "dilations" not in of, threads)


def test_on_every_instruction_set(isa):
    check(block((1, 16, 112, 112), 96, 3, strides=[2, 2]), (1, 16, 112, 112), True)


def test_what_is_not_finite_goes_the_same_way():
    size = (1, 16, 112, 112)
    x = draw(*size)
    x[0, 3, 50, 60], x[0, 5, 0, 0], x[0, 1, 111, 7] = np.nan, np.inf, -np.inf
    check(block(size, 96, 3, strides=[2, 2]), size, True, values=x)


@pytest.mark.parametrize("end, more", [("y,m", []), ("y,z", [make("GlobalAveragePool", ["m"], ["z"])])])
def test_a_map_that_others_read_is_made(end, more):
    size = (1, 16, 112, 112)
    check(block(size, 96, 3, more, end), size, False)


def test_a_small_map_is_made():
    size = (1, 16, 56, 56)
    check(block(size, 96, 3), size, False)


@pytest.mark.parametrize("batch", [1, 2])
def test_explain_and_profile_show_them_as_one_step(batch):
    size = (batch, 16, 112, 112)
    session, apart = (InferenceSession(block((batch, 16, side, side), 96, 3, strides=[2, 2])) for side in (112, 56))
    profile = session.profile({"x": draw(*size)}, runs=2)
    small = apart.profile({"x": draw(batch, 16, 56, 56)}, runs=2)
    assert [step.operators for step in small.steps] == ["Conv", "Conv + Relu", "Conv + Relu"]
    first, both = profile.steps
    assert first.operators == "Conv" and both.operators == "Conv + Relu + Conv + Relu"
    assert both.macs == 4 * (small.steps[1].macs + small.steps[2].macs)
    assert both.macs == batch * 112**2 * 96 * 16 + batch * 56**2 * 96 * 9
    assert both.shape == (batch, 96, 56, 56) and both.field == small.steps[2].field == (3, 3)
    assert both.weight_bytes == small.steps[1].weight_bytes + small.steps[2].weight_bytes
    assert both.moved_bytes == both.weight_bytes + 4 * batch * (16 * 112**2 + 96 * 56**2)
    assert both.how.endswith("in bands of rows") and "neither written nor read" in both.why[0]
    told = session.describe()["steps"]
    assert [step["operators"] for step in told] == [first.operators, both.operators]
    assert told[1]["how"] == both.how and told[1]["packed_bytes"] == both.weight_bytes
    assert both.how in session.explain() and both.how in str(profile)
