"""If, Loop, Scan and SequenceMap: what bodies read from around, how often they run, and what ends them."""

from __future__ import annotations

import copy
import signal
import time
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the package onnx: pip install fastconv[onnx]")

from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnx_models import model, tensor  # noqa: E402

from fastconv.onnx import InferenceSession, OnnxError  # noqa: E402

make = onnx.helper.make_node
INT64, BOOL = 7, 9
rng = np.random.default_rng(0)


def draw(*shape: int) -> Any:
    return rng.standard_normal(shape).astype(np.float32)


def body(nodes: list[Any], inputs: dict[str, int], outputs: list[str], constants: Any = ()) -> Any:
    """A graph of these nodes; inputs by their element types."""
    return onnx.helper.make_graph(
        nodes, "body", [tensor(onnx, name, None, kind) for name, kind in inputs.items()],
        [tensor(onnx, name, None, 0) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in dict(constants).items()],
    )  # fmt: skip


def check(built: Any, **feeds: Any) -> InferenceSession:
    """Optimised or not, once and again: what the standard's evaluator gives."""
    wanted = ReferenceEvaluator(built).run(None, feeds)
    for optimise in (True, False):
        session = InferenceSession(built, optimise=optimise)
        for _ in range(3):
            for ours, theirs in zip(session.run(None, feeds), wanted, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
                assert ours.dtype == np.asarray(theirs).dtype and ours.shape == np.asarray(theirs).shape
    return InferenceSession(built)


TURN = {"turn": INT64, "on": BOOL}


def loop_model(
    nodes: list[Any], carried: dict[str, str], collected: list[str], inputs: dict[str, Any], **more: Any
) -> Any:
    """A Loop over x of `count` turns; the body's condition is `on` unless it makes `go`."""
    go = "go" if any("go" in node.output for node in nodes) else "on"
    inner = body(
        nodes, {**TURN, **dict.fromkeys(carried, 1)}, [go, *carried.values(), *collected], more.get("inside", ())
    )
    names = [f"y{at}" for at in range(len(carried) + len(collected))]
    constants = {"yes": np.array(True), **more.get("constants", {})}
    node = make("Loop", ["count", more.get("condition", "yes"), *more.get("initial", ["x"])], names, body=inner)
    return model(onnx, [*more.get("before", []), node], inputs, dict.fromkeys(names), constants, 17)


def test_a_convolution_in_a_body_is_packed_and_folded():
    """Weights around the body are its constants; what it carries goes on; the normalisation goes into the weights."""
    constants = {"w": draw(4, 4, 3, 3) / 9, "count": np.array(3), **{name: np.abs(draw(4)) + 0.5 for name in "sbmv"}}
    nodes = [make("Conv", ["h", "w"], ["c"], pads=[1] * 4), make("BatchNormalization", ["c", *"sbmv"], ["n"]),
             make("Relu", ["n"], ["r"]), make("Add", ["r", "x"], ["next"]),
             make("ReduceMean", ["next"], ["mean"], axes=[0, 2, 3], keepdims=0)]  # fmt: skip
    built = loop_model(nodes, {"h": "next"}, ["mean"], {"x": [1, 4, 6, 5]}, constants=constants)
    session = check(built, x=draw(1, 4, 6, 5))
    (node,) = session._graph.nodes
    assert next(node.bodies()).nodes[0].op_type == "Conv" and len(next(node.bodies()).nodes) < 5
    assert "w" not in node.inputs and "x" in node.inputs


def test_bodies_in_bodies_read_from_every_level():
    """An If in a Loop: of the outermost graph, of the loop, of its own; and names that hide those around."""
    then = body([make("Mul", ["h", "k"], ["t"])], {}, ["t"], {"k": np.float32(2)})
    other = body([make("Add", ["h", "x"], ["s"]), make("Add", ["s", "k"], ["t"])], {}, ["t"])
    nodes = [make("Mod", ["turn", "two"], ["odd"]), make("Cast", ["odd"], ["c"], to=BOOL),
             make("If", ["c"], ["next"], then_branch=then, else_branch=other)]  # fmt: skip
    built = loop_model(
        nodes, {"h": "next"}, ["next"], {"x": [3], "k": []}, constants={"count": np.array(5)},
        inside={"two": np.array(2)},
    )  # fmt: skip
    x = h = draw(3)
    turns = []
    for turn in range(5):
        h = h * np.float32(2) if turn % 2 else h + x + np.float32(0.5)
        turns.append(h)
    for _ in range(2):
        y, found = InferenceSession(built).run(None, {"x": x, "k": np.float32(0.5)})
        np.testing.assert_array_equal(y, h)
        np.testing.assert_array_equal(found, turns)


def test_an_outer_value_may_be_a_result():
    """Of a branch as it stands, for both branches, without sharing memory."""
    branch = [body([], {}, [name]) for name in ("x", "z")]
    nodes = [make("Neg", ["x"], ["z"]), make("If", ["c"], ["y"], then_branch=branch[0], else_branch=branch[1])]
    built = model(onnx, nodes, {"x": [3], "c": None}, {"y": None, "z": None})
    built.graph.input[1].CopyFrom(tensor(onnx, "c", [], BOOL))
    x = draw(3)
    for truth in (True, False):
        check(built, x=x, c=np.array(truth))
        y, z = InferenceSession(built).run(None, {"x": x, "c": np.array(truth)})
        assert not np.shares_memory(y, x) and not np.shares_memory(y, z)


@pytest.mark.parametrize("truth", [True, False])
def test_a_branch_takes_the_place_of_an_if_whose_condition_is_known(truth):
    """Nested, with names that both branches and the graph around use, results that pass through, and constants."""
    inner = body([make("Mul", ["h", "k"], ["t"])], {}, ["t", "k"], {"k": np.float32(3)})
    other = body([make("Neg", ["h"], ["t"]), make("Abs", ["t"], ["k"])], {}, ["t", "k"])
    nodes = [make("Add", ["x", "k"], ["h"]), make("Not", ["c"], ["n"]), make("Identity", ["h"], ["t"]),
             make("If", ["n"], ["a", "b"], then_branch=inner, else_branch=other)]  # fmt: skip
    outer = body(nodes, {}, ["a", "b", "x", "h", "t"])
    plain = body([make("Relu", ["x"], ["h"])], {}, ["h", "h", "k", "x", "h"])
    names = ["y0", "y1", "y2", "t", "y4"]
    chosen = make("If", ["c"], names, then_branch=outer, else_branch=plain)
    constants = {"c": np.array(truth), "k": np.float32(0.5)}
    built = model(onnx, [chosen, make("Sum", names, ["s"])], {"x": [3]}, {**dict.fromkeys(names), "s": None}, constants)
    x = draw(3)
    h = x + np.float32(0.5)
    wanted = [-h, np.abs(h), x, h, h] if truth else [np.maximum(x, 0)] * 2 + [constants["k"], x, np.maximum(x, 0)]
    for optimise in (True, False):
        session = InferenceSession(built, optimise=optimise)
        assert any(node.op_type == "If" for node in session._graph.nodes) is not optimise
        for _ in range(2):
            found = session.run(None, {"x": x})
            for ours, theirs in zip(found, [*wanted, sum(wanted)], strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 4])
def test_shapes_that_grow(count):
    """A carried value that is longer after every turn, results of the turns, and none of them."""
    nodes = [make("Concat", ["h", "x"], ["next"], axis=0), make("ReduceSum", ["next"], ["s"], keepdims=0),
             make("Shape", ["next"], ["n"])]  # fmt: skip
    inputs = {"x": [2], "count": None}
    built = loop_model(nodes, {"h": "next"}, ["s", "n"], inputs, condition="")
    built.graph.input[1].CopyFrom(tensor(onnx, "count", [], INT64))
    x = draw(2)
    y, sums, lengths = InferenceSession(built).run(None, {"x": x, "count": np.array(count)})
    assert lengths.ravel().tolist() == [2 * (at + 2) for at in range(count)]
    assert np.array_equal(y, np.tile(x, count + 1)) and sums.shape == (count,) and sums.dtype == np.float32
    np.testing.assert_allclose(sums, [x.sum() * (at + 2) for at in range(count)], rtol=1e-5)


def endless(**more: Any) -> Any:
    """A loop whose condition never ends it."""
    return loop_model(
        [make("Relu", ["h"], ["next"])], {"h": "next"}, [], {"x": [3]}, constants={"count": np.array(2**62)}, **more
    )


def test_an_endless_loop_is_interrupted_and_the_session_goes_on():
    session = InferenceSession(endless())

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(2):
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            start = time.perf_counter()
            with pytest.raises(KeyboardInterrupt):
                session.run(None, {"x": draw(3)})
            assert time.perf_counter() - start < 5
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_what_an_endless_loop_collects_is_refused_in_time():
    built = loop_model(
        [make("Relu", ["h"], ["next"])], {"h": "next"}, ["next"], {"x": [1000]}, constants={"count": np.array(2**62)}
    )
    session = InferenceSession(built, max_value_bytes=1 << 20)
    for _ in range(2):
        with pytest.raises(OnnxError, match=r"Loop node.*max_value_bytes"):
            session.run(None, {"x": draw(1000)})


def test_a_sequence_that_grows_without_an_end_is_refused():
    nodes = [make("SequenceInsert", ["s", "x"], ["next"])]
    loop = body(nodes, {**TURN, "s": 1}, ["on", "next"])
    outer = [make("SequenceEmpty", [], ["s0"]), make("Loop", ["count", "", "s0"], ["y"], body=loop)]
    built = model(onnx, outer, {"x": [1000]}, {"y": None}, {"count": np.array(2**62)})
    with pytest.raises(OnnxError, match=r"SequenceInsert node.*max_value_bytes"):
        InferenceSession(built, max_value_bytes=1 << 20).run(None, {"x": draw(1000)})


def test_a_condition_ends_a_loop():
    """Of the body, or at the start; without a count."""
    nodes = [
        make("Add", ["h", "h"], ["next"]),
        make("ReduceMax", ["next"], ["m"], keepdims=1),
        make("Less", ["m", "k"], ["go"]),
    ]
    built = loop_model(nodes, {"h": "next"}, ["m"], {"x": [2]}, constants={"k": np.float32(50)})
    built.graph.node[0].input[0] = ""
    check(built, x=np.array([1, 3], np.float32))
    constants = {"k": np.float32(50), "c": np.array(False), "count": np.array(9)}
    never = loop_model(nodes, {"h": "next"}, ["m"], {"x": [2]}, constants=constants, condition="c")
    y, m = InferenceSession(never).run(None, {"x": np.ones(2, np.float32)})
    assert y.tolist() == [1, 1] and m.shape[0] == 0


def test_random_numbers_in_a_body_are_drawn_anew():
    """A body that is not the same in every run is not computed once; one that is, is."""
    for op, again in (("RandomNormalLike", False), ("Identity", True)):
        inner = body([make(op, ["k"], ["t"])], {}, ["t"])
        nodes = [make("Shape", ["x"], ["s"]), make("Cast", ["s"], ["k"], to=1), make("Cast", ["s"], ["c"], to=BOOL),
                 make("If", ["c"], ["y"], then_branch=inner, else_branch=inner)]  # fmt: skip
        session = InferenceSession(model(onnx, nodes, {"x": [5]}, {"y": None}))
        found = [session.run(None, {"x": draw(5)})[0].item() for _ in range(3)]
        assert (len(set(found)) == 1) is again
        assert ("If" in session.explain()) is not again


def test_scans_backwards_along_other_axes():
    nodes = [make("Add", ["h", "p"], ["next"]), make("Mul", ["next", "x"], ["out"])]
    for op in (0, 1):
        inner = body(nodes, {"h": 1, "p": 1}, ["next", "out"])
        node = make("Scan", ["x", "seq"], ["y", "all"], body=inner, num_scan_inputs=1, scan_input_axes=[1],
                    scan_input_directions=[op], scan_output_directions=[op])  # fmt: skip
        x, seq = draw(3), draw(3, 4)
        built = model(onnx, [node], {"x": [3], "seq": [3, 4]}, {"y": None, "all": None})
        y, out = InferenceSession(built).run(None, {"x": x, "seq": seq})
        sums = x[:, None] + np.cumsum(seq[:, ::-1] if op else seq, axis=1)
        np.testing.assert_allclose(y, sums[:, -1], rtol=1e-5)
        np.testing.assert_allclose(out, (sums * x[:, None]).T[:: -1 if op else 1], rtol=1e-5)


def test_a_loop_over_a_sequence_that_may_not_be_there():
    """As the standard's test_loop16_seq_none, whose own comparison cannot compare arrays without axes."""
    new = body([make("SequenceConstruct", ["zero"], ["s"])], {}, ["s"], {"zero": np.float32(0)})
    known = body([make("OptionalGetElement", ["given"], ["s"])], {}, ["s"])
    nodes = [make("OptionalHasElement", ["given"], ["there"]),
             make("If", ["there"], ["start"], then_branch=known, else_branch=new)]  # fmt: skip
    turns = [make("Cast", ["turn"], ["t"], to=1), make("SequenceInsert", ["s", "t"], ["next"])]
    loop = body(turns, {**TURN, "s": 1}, ["on", "next"])
    nodes.append(make("Loop", ["count", "", "start"], ["y"], body=loop))
    sequence = onnx.helper.make_tensor_sequence_value_info("given", 1, None).type
    given = onnx.helper.make_value_info("given", onnx.helper.make_optional_type_proto(sequence))
    built = model(onnx, nodes, {}, {"y": None}, {"count": np.array(3)})
    built.graph.input.append(given)
    session = InferenceSession(built)
    for start, wanted in ((None, [0, 0, 1, 2]), ([np.float32(7)], [7, 0, 1, 2])):
        (found,) = session.run(None, {"given": start})
        assert [float(x) for x in found] == wanted


def test_sessions_with_bodies_are_copied():
    session = InferenceSession(
        loop_model([make("Relu", ["h"], ["next"])], {"h": "next"}, [], {"x": [3]}, constants={"count": np.array(2)})
    )
    x = draw(3)
    session.run(None, {"x": x})
    assert np.array_equal(copy.deepcopy(session).run(None, {"x": x})[0], np.maximum(x, 0))


def test_a_value_in_half_precision_around_a_body():
    inner = body([make("Mul", ["x", "x"], ["t"])], {}, ["t"])
    built = model(
        onnx, [make("If", ["c"], ["y"], then_branch=inner, else_branch=inner)], {"x": [3], "c": []}, {"y": None}
    )
    built.graph.input[0].CopyFrom(tensor(onnx, "x", [3], 10))
    built.graph.input[1].CopyFrom(tensor(onnx, "c", [], BOOL))
    built.graph.output[0].type.tensor_type.elem_type = 10
    x = draw(3).astype(np.float16)
    (y,) = InferenceSession(built).run(None, {"x": x, "c": np.array(True)})
    assert y.dtype == np.float16 and np.array_equal(y, x * x)


def test_damaged_bodies_are_refused():
    def refused(text: str, node: Any, **feeds: Any) -> None:
        built = model(onnx, [node], {"x": [3]}, dict.fromkeys(node.output), {"c": np.array(True), "count": np.array(2)})
        with pytest.raises(OnnxError, match=text):
            InferenceSession(built).run(None, {"x": draw(3)})

    good = body([make("Relu", ["x"], ["t"])], {}, ["t"])
    lost = body([make("Relu", ["nowhere"], ["t"])], {}, ["t"])
    refused("'nowhere', which nobody makes", make("If", ["c"], ["y"], then_branch=good, else_branch=lost))
    refused("lacks its attribute 'else_branch'", make("If", ["c"], ["y"], then_branch=good))
    refused("must be one value", make("If", ["x"], ["y"], then_branch=good, else_branch=good))
    refused("more outputs", make("If", ["c"], ["y", "z"], then_branch=good, else_branch=good))
    refused("does not take and give", make("Loop", ["count", "", "x"], ["y"], body=good))
    refused("num_scan_inputs", make("Scan", ["x"], ["y"], body=good))
    empty = make("If", ["c"], ["y"], then_branch=good, else_branch=good)
    empty.attribute[0].ClearField("g")
    refused("empty attribute", empty)
    cycle = body([make("Add", ["x", "b"], ["a"]), make("Relu", ["a"], ["b"])], {}, ["b"])
    refused("cycle", make("If", ["c"], ["y"], then_branch=cycle, else_branch=cycle))
    turns = body([make("Relu", ["h"], ["next"])], {**TURN, "h": 1}, ["next", "next"])
    refused("condition that its body gives must be one value", make("Loop", ["count", "", "x"], ["y"], body=turns))
