"""Attention and its relatives beside the standard's evaluator; Fourier transforms beside NumPy's."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the package onnx: pip install fastconv[onnx]")

from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnx_models import model, one_node  # noqa: E402

from fastconv.graph.operators import attention  # noqa: E402
from fastconv.onnx import InferenceSession, OnnxError  # noqa: E402

make = onnx.helper.make_node
rng = np.random.default_rng(0)


def draw(*shape: int) -> Any:
    return rng.standard_normal(shape).astype(np.float32)


def run(node: Any, feeds: dict[str, Any], opset: int) -> list[Any]:
    return InferenceSession(one_node(onnx, node, feeds, opset)).run(None, feeds)


def check(node: Any, feeds: dict[str, Any], opset: int, **instead: Any) -> None:
    """Beside the evaluator, which may be fed others `instead`."""
    fed = {**feeds, **instead}
    wanted = ReferenceEvaluator(one_node(onnx, node, fed, opset)).run(None, fed)
    for ours, theirs in zip(run(node, feeds, opset), wanted, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype, node
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5, err_msg=str(node))


# ---- Attention -------------------------------------------------------------------------------------------------------

NAMES = ("q", "k", "v", "mask", "pk", "pv", "valid")
MASKS = ((), (5,), (4, 5), (1, 5), (6, 4, 5), (2, 1, 1, 5), (2, 6, 4, 5))


def fed(feeds: dict[str, Any], outputs: int = 4, **options: Any) -> Any:
    names = [name if name in feeds else "" for name in NAMES[: 7 if "valid" in feeds else 6]]
    return make("Attention", names, ["y", "ka", "va", "qk"][:outputs], **options)


@pytest.mark.parametrize("block", [1, 1 << 20])
def test_masks_heads_and_what_is_shown(block, monkeypatch):
    """Every shape of mask, of numbers and of truths; shared heads; caps; in one block of rows and a row at a time."""
    monkeypatch.setattr(attention, "BLOCK", block)
    for number, (shape, shared, mode) in enumerate(product(MASKS, (6, 2, 1), (0, 1, 2, 3))):
        feeds = {"q": draw(2, 6, 4, 3), "k": draw(2, shared, 5, 3), "v": draw(2, shared, 5, 2)}
        if shape:
            mask = draw(*shape)
            feeds["mask"] = mask > -0.5 if number % 2 else mask
        options: dict[str, Any] = {"qk_matmul_output_mode": mode, "is_causal": number % 3 == 0 }
        options |= {"softcap": 1.5} if mode and number % 4 < 2 else {"scale": 0.3}
        # the evaluator takes the number of queries from a mask that repeats over them
        whole = {"mask": np.broadcast_to(feeds["mask"], (*shape[:-2], 4, 5))} if shape else {}
        check(fed(feeds, **options), feeds, 23, **whole)


def test_products_are_shown_before_they_are_capped():
    """As the text has it; the evaluator shows them after."""
    feeds = {"q": draw(1, 1, 3, 2), "k": draw(1, 1, 4, 2), "v": draw(1, 1, 4, 2)}
    shown = run(fed(feeds, softcap=0.5, scale=2.0), feeds, 23)[3]
    np.testing.assert_allclose(shown, 2 * feeds["q"] @ feeds["k"].swapaxes(2, 3), rtol=1e-5)


def test_three_axes_past_windows_and_padding(monkeypatch):
    monkeypatch.setattr(attention, "BLOCK", 40)
    packed = {"q": draw(2, 4, 12), "k": draw(2, 5, 6), "v": draw(2, 5, 4)}
    check(fed(packed, q_num_heads=4, kv_num_heads=2, is_causal=1), packed, 23)
    past = {**packed, "pk": draw(2, 2, 3, 3), "pv": draw(2, 2, 3, 2), "mask": draw(4, 7)}
    for causal, left, right in product((0, 1), (-1, 0, 2), (-1, 0, 1)):
        options = {"is_causal": causal, "left_window_size": left, "right_window_size": right}
        check(fed(past, q_num_heads=4, kv_num_heads=2, **options), past, 25)
        padded = {"q": draw(3, 2, 4, 3), "k": draw(3, 2, 6, 3), "v": draw(3, 2, 6, 3), "valid": np.array([0, 3, 6])}
        check(fed(padded, 1, **options), padded, 25)


def test_rows_that_see_nothing_are_zero_and_infinite_scores_are_hidden():
    """A key behind a mask of minus infinity does not count, whatever its score; no keys, no queries, no batch."""
    feeds = {"q": draw(1, 1, 3, 2), "k": draw(1, 1, 4, 2), "v": draw(1, 1, 4, 2), "mask": np.zeros((3, 4), np.float32)}
    feeds["mask"][0] = -np.inf
    feeds["mask"][:, 1] = -np.inf
    feeds["k"][..., 1, :] = np.inf
    y = run(fed(feeds, 1), feeds, 23)[0]
    assert not y[0, 0, 0].any() and np.isfinite(y).all()
    for shape in ((0, 1, 3, 2), (1, 1, 0, 2)):
        none = {"q": draw(*shape), "k": draw(shape[0], 1, 4, 2), "v": draw(shape[0], 1, 4, 2)}
        assert run(fed(none, 1), none, 23)[0].shape == shape
    bare = {"q": draw(1, 1, 3, 2), "k": draw(1, 1, 0, 2), "v": draw(1, 1, 0, 2)}
    assert run(fed(bare, 1), bare, 23)[0].tolist() == [[[[0, 0]] * 3]]


def test_attention_that_does_not_fit_is_named():
    feeds = {"q": draw(1, 4, 3, 2), "k": draw(1, 3, 4, 2), "v": draw(1, 3, 4, 2)}
    for text, changed in (
        ("do not fit each other", {}),
        ("cannot be repeated", {"k": draw(1, 2, 4, 2), "v": draw(1, 2, 4, 2), "mask": draw(7, 4)}),
        ("given together", {"pk": draw(1, 3, 1, 2)}), ("3 or 4 axes", {"q": draw(3, 2)}),
        ("for 4 keys", {"k": draw(1, 2, 4, 2), "v": draw(1, 2, 4, 2), "mask": draw(3, 9)}),
    ):  # fmt: skip
        wrong = {**feeds, **changed}
        with pytest.raises(OnnxError, match=f"Attention node.*{text}"):
            run(fed(wrong, 1), wrong, 23)
    with pytest.raises(OnnxError, match=r"Attention node.*q_num_heads"):
        run(fed({"q": 0, "k": 0, "v": 0}, 1, q_num_heads=5, kv_num_heads=1), {n: draw(1, 4, 4) for n in "qkv"}, 23)


@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotary_embeddings_turn_pairs(interleaved):
    for turned, flat in product((0, 4), (False, True)):
        x = draw(2, 3, 5, 8)
        feeds = {"x": x, "c": draw(9, (turned or 8) // 2), "s": draw(9, (turned or 8) // 2)}
        feeds["p"] = rng.integers(0, 9, (2, 5))
        options = {"interleaved": interleaved, "rotary_embedding_dim": turned}
        if flat:
            feeds["x"], options["num_heads"] = x.transpose(0, 2, 1, 3).reshape(2, 5, 24), 3
        check(make("RotaryEmbedding", list("xcsp"), ["y"], **options), feeds, 23)
    with pytest.raises(OnnxError, match="position_ids from 9 to 9"):
        run(make("RotaryEmbedding", list("xcsp"), ["y"]), {**feeds, "x": x, "p": np.full((2, 5), 9)}, 23)


# ---- Fourier transforms ----------------------------------------------------------------------------------------------


def parts(signal: Any) -> Any:
    return np.stack([signal.real, signal.imag], -1)


def test_transforms_along_every_axis_padded_and_cut():
    x = rng.standard_normal((3, 5, 4))
    for axis, length in product((0, 1, 2, -2), (None, 1, 3, 4, 9)):
        place = axis % 4 if axis < 0 else axis
        size = length or x.shape[place]
        full = np.fft.fft(x, length, place)
        feeds = {"x": x[..., None].astype(np.float32), **({} if length is None else {"n": np.array(length)})}
        for half, wanted in ((0, full), (1, np.fft.rfft(x, length, place))):
            old = make("DFT", ["x", "n"][: len(feeds)], ["y"], axis=axis, onesided=half)
            new = make("DFT", ["x", "n" if length else "", "a"], ["y"], onesided=half)
            for y in (run(old, feeds, 17)[0], run(new, {**feeds, "a": np.array(axis)}, 20)[0]):
                assert y.dtype == np.float32
                np.testing.assert_allclose(y, parts(wanted), atol=1e-4)
        back = {"x": parts(full).astype(np.float32), "n": np.array(size)}
        (y,) = run(make("DFT", ["x", "n"], ["y"], axis=axis, inverse=1), back, 17)
        np.testing.assert_allclose(y, parts(np.fft.ifft(full, size, place)), atol=1e-5)
        back["x"] = parts(np.fft.rfft(x, length, place)).astype(np.float32)
        (y,) = run(make("DFT", ["x", "n"], ["y"], axis=axis, inverse=1, onesided=1), back, 17)
        half = np.fft.rfft(x, length, place)
        np.testing.assert_allclose(y[..., 0], np.fft.irfft(half, size, place), atol=1e-5)
        if half.shape[place] > 1:  # without a length, the even one
            (y,) = run(make("DFT", ["x"], ["y"], axis=axis, inverse=1, onesided=1), {"x": back["x"]}, 17)
            np.testing.assert_allclose(y[..., 0], np.fft.irfft(half, axis=place), atol=1e-5)


def test_transforms_that_do_not_fit_are_refused():
    x = draw(2, 4, 1)
    for text, node, feeds in (
        ("real and imaginary", make("DFT", ["x"], ["y"], axis=2), {"x": x}),
        ("axis 5", make("DFT", ["x"], ["y"], axis=5), {"x": x}),
        ("must hold 1 or 2", make("DFT", ["x"], ["y"]), {"x": draw(2, 4, 3)}),
        ("dft_length 0", make("DFT", ["x", "n"], ["y"]), {"x": x, "n": np.array(0)}),
        ("max_value_bytes", make("DFT", ["x", "n"], ["y"]), {"x": x, "n": np.array(1 << 40)}),
        ("frame_step 0", make("STFT", ["x", "n"], ["y"]), {"x": x, "n": np.array(0)}),
        ("for frames of 3", make("STFT", ["x", "n", "w", "l"], ["y"]),
         {"x": x, "n": np.array(1), "w": draw(2), "l": np.array(3)}),
        ("size -1", make("HannWindow", ["n"], ["y"]), {"n": np.array(-1)}),
        ("max_value_bytes", make("HannWindow", ["n"], ["y"]), {"n": np.array(1 << 40)}),
    ):  # fmt: skip
        with pytest.raises(OnnxError, match=text):
            run(node, feeds, 17)


def test_windows_that_slide_over_signals():
    """Odd and even frames, steps that do not divide, complex signals, a signal that is too short."""
    for length, step, size, half in product((16, 17), (1, 5), (4, 7), (0, 1)):
        x, window = rng.standard_normal((2, length)), rng.standard_normal(size)
        frames = np.stack([x[:, at : at + size] for at in range(0, length - size + 1, step)], 1)
        feeds = {"x": x[..., None].astype(np.float32), "s": np.array(step), "w": window.astype(np.float32)}
        (y,) = run(make("STFT", list("xsw"), ["y"], onesided=half), feeds, 17)
        transform = np.fft.rfft if half else np.fft.fft
        np.testing.assert_allclose(y, parts(transform(frames * window)), atol=1e-4)
    turned = {**feeds, "x": parts(x + 1j * x[::-1]).astype(np.float32)}
    (y,) = run(make("STFT", list("xsw"), ["y"], onesided=0), turned, 17)
    np.testing.assert_allclose(y, parts(np.fft.fft((frames + 1j * frames[::-1]) * window)), atol=1e-4)
    short = {"x": draw(2, 3, 1), "s": np.array(1), "l": np.array(5)}
    assert run(make("STFT", ["x", "s", "", "l"], ["y"]), short, 17)[0].shape == (2, 0, 3, 2)


def test_a_spectrogram_is_folded_to_constants_and_runs():
    """A window and mel weights that a graph computes are computed once; a signal goes through to its bands."""
    numbers = {"n": np.array(64), "step": np.array(16), "bands": np.array(8), "rate": np.array(8000),
               "low": np.float32(20), "high": np.float32(4000)}  # fmt: skip
    nodes = [make("HannWindow", ["n"], ["w"]), make("STFT", ["x", "step", "w"], ["f"]),
             make("ReduceSumSquare", ["f"], ["p"], axes=[3], keepdims=0),
             make("MelWeightMatrix", ["bands", "n", "rate", "low", "high"], ["m"]),
             make("MatMul", ["p", "m"], ["y"])]  # fmt: skip
    built = model(onnx, nodes, {"x": [2, 500, 1]}, {"y": None}, numbers)
    x = draw(2, 500, 1)
    session = InferenceSession(built)
    (wanted,) = ReferenceEvaluator(built).run(None, {"x": x})
    np.testing.assert_allclose(session.run(None, {"x": x})[0], wanted, rtol=1e-3, atol=1e-3)
    assert [node.op_type for node in session._graph.nodes] == ["STFT", "ReduceSumSquare", "Dense"]


def test_random_numbers_follow_their_law_and_a_seed():
    for op, mean, deviation in (("RandomNormal", 3.0, 2.0), ("RandomUniform", 0.5, 12**-0.5)):
        options = {"mean": 3.0, "scale": 2.0} if op == "RandomNormal" else {}
        built = model(onnx, [make(op, [], ["y"], shape=[100, 100], seed=4.0, **options)], {}, {"y": None})
        first, second = (InferenceSession(built) for _ in range(2))
        y = first.run(None, {})[0]
        assert abs(y.mean() - mean) < 0.1 and abs(y.std() - deviation) < 0.1 and y.dtype == np.float32
        np.testing.assert_array_equal(y, second.run(None, {})[0])
        assert not np.array_equal(y, first.run(None, {})[0])
    too_large = model(onnx, [make("RandomNormal", [], ["y"], shape=[1 << 40])], {}, {"y": None})
    with pytest.raises(OnnxError, match="max_value_bytes"):
        InferenceSession(too_large).run(None, {})
