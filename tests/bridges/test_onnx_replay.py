"""A run that is done again natively gives what the graph's functions give, on other inputs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the package onnx: pip install fastconv[onnx]")

import onnx_models  # noqa: E402
from onnx.backend.test.case.node import collect_testcases  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnx_models import RUNS, draw, model  # noqa: E402

import fastconv  # noqa: E402
from fastconv import _native  # noqa: E402
from fastconv.graph.operators import repeatable  # noqa: E402
from fastconv.onnx import InferenceSession, OnnxError  # noqa: E402
from fastconv.onnx.loading import load  # noqa: E402

make = onnx.helper.make_node
rng = np.random.default_rng(0)


def replay(session: InferenceSession) -> Any:
    return session._prepared.last.replay


def same(got: Any, expected: Any) -> bool:
    if isinstance(got, list):
        return len(got) == len(expected) and all(map(same, got, expected))
    if got is None or expected is None:
        return got is expected
    return got.dtype == expected.dtype and got.shape == expected.shape and np.array_equal(
        got, expected, equal_nan=got.dtype.kind in "fc"
    )


def alike(got: Any, expected: Any) -> bool:
    """The same but for the last bits of NumPy's matrix products, which depend on how arrays lie."""
    if isinstance(got, list):
        return len(got) == len(expected) and all(map(alike, got, expected))
    if got is None or got.dtype.kind != "f":
        return same(got, expected)
    return got.shape == expected.shape and np.allclose(got, expected, 1e-5, 1e-6, equal_nan=True)


def others(value: Any) -> Any:
    """Other values of the same kind, as good for any operator."""
    return np.ascontiguousarray(value[::-1]) if isinstance(value, np.ndarray) and value.ndim else value


def test_every_operator_of_the_standard_again():
    """Recorded on reversed inputs, run on the right ones: the bits of a session that was not recorded."""
    kinds: dict[str, int] = {}
    for case in collect_testcases(None):
        try:
            graph = load(case.model)
        except OnnxError:
            continue
        names = [value.name for value in case.model.graph.input]
        if not all(map(repeatable, graph.nodes)) or not case.data_sets or len(case.data_sets[0][0]) != len(names):
            continue
        feeds = dict(zip(names, case.data_sets[0][0], strict=True))
        session, fresh = InferenceSession(case.model), InferenceSession(case.model)
        try:
            expected = fresh.run(None, feeds)
        except OnnxError:
            continue
        first = {name: others(value) for name, value in feeds.items()}
        for _ in range(RUNS - 1):
            try:
                session.run(None, first)
            except OnnxError:
                first = feeds
        session.run(None, first)
        again = replay(session)
        assert alike(session.run(None, feeds), expected), case.name
        for record in again.records if again else ():
            kinds[record.kind] = kinds.get(record.kind, 0) + 1
    assert kinds["native"] > 100 and kinds["view"] > 30 and kinds["Python"] > 100 and kinds["loose"] > 10, kinds


@pytest.mark.parametrize("threads", [1, 2])
def test_a_net_again(threads):
    """Inputs of any layout, outputs that are the caller's own, and bits that do not depend on what ran before."""
    session = InferenceSession(onnx_models.small_net(onnx), num_threads=threads)
    x, kept = draw(1, 3, 8, 8), []
    for _ in range(RUNS + 1):
        kept.append([one.copy() for one in session.run(None, {"x": x})])
    assert all(same(one, kept[0]) for one in kept) and replay(session) is not None
    results = session.run(None, {"x": x})
    other = draw(1, 3, 16, 8)[:, :, ::2]
    expected = InferenceSession(onnx_models.small_net(onnx)).run(None, {"x": other})
    assert same(session.run(None, {"x": other}), expected)
    assert same(results, kept[0]), "a result changed in a later run"
    for one in results:
        assert one.flags.writeable and one.flags.c_contiguous and one.base is None
        one[...] = 0
    assert same(session.run(None, {"x": x}), kept[0])


def convolutions(size: int = 12) -> Any:
    """Two convolutions, the second of the kind that a transform computes, with a residual sum between them."""
    nodes = [
        make("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]), make("Relu", ["a"], ["b"]),
        make("Conv", ["b", "v"], ["c"], pads=[1, 1, 1, 1]), make("Add", ["c", "b"], ["y"]),
    ]  # fmt: skip
    constants = {"w": draw(64, 8, 3, 3), "v": draw(64, 64, 3, 3)}
    return model(onnx, nodes, {"x": [1, 8, size, size]}, {"y": None}, constants)


def test_residuals_are_added_where_they_lie():
    """By products that nobody computes again, over values that nobody reads any more: not over an input, or what this
    step or a later one reads. Exact integers against NumPy."""
    weights = {name: rng.integers(-2, 3, (64, 64, 1, 1)).astype(np.float32) for name in "uvwz"}

    def after(x: Any, name: str) -> Any:
        return np.einsum("oi,nihw->nohw", weights[name][..., 0, 0], x)

    nodes = [
        make("Conv", ["x", "u"], ["a"]), make("Add", ["a", "x"], ["b"]),  # over an input
        make("Conv", ["b", "v"], ["c"]), make("Add", ["c", "b"], ["d"]),  # b is what it convolves, too
        make("Conv", ["d", "w"], ["e"]), make("Conv", ["e", "z"], ["f"]), make("Add", ["f", "d"], ["g"]),  # in place
        make("Conv", ["g", "u"], ["h"]), make("Conv", ["h", "v"], ["i"]), make("Add", ["i", "g"], ["j"]),  # g is read
        make("Sub", ["j", "g"], ["k"]), make("Add", ["k", "d"], ["y"]),  # d, too
    ]  # fmt: skip
    session = InferenceSession(model(onnx, nodes, {"x": [1, 64, 9, 11]}, {"y": None}, weights))
    short = [*nodes[:7], make("GlobalMaxPool", ["g"], ["y"])]
    plain = InferenceSession(model(onnx, short, {"x": [1, 64, 9, 11]}, {"y": None}, weights))
    for _ in range(2 * RUNS):
        x = rng.integers(-2, 3, (1, 64, 9, 11)).astype(np.float32)
        b = after(x, "u") + x
        d = after(b, "v") + b
        g = after(after(d, "w"), "z") + d
        j = after(after(g, "u"), "v") + g
        kept = x.copy()
        assert np.array_equal(session.run(None, {"x": x})[0], j - g + d) and np.array_equal(x, kept)
        assert np.array_equal(plain.run(None, {"x": x})[0], g.max((2, 3), keepdims=True))
    places = [record.homes[0].ctypes.data for record in replay(plain).records]  # of b, d, e, g, y
    assert places[3] == places[1] != places[2]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_not_finite_in_a_run_that_is_done_again(value):
    """Exactly the outputs whose windows hold it, as in the run that was not recorded; the next run is clean again."""
    built = convolutions()
    session = InferenceSession(built)
    clean = draw(1, 8, 12, 12)
    expected, *_ = (session.run(None, {"x": clean})[0] for _ in range(RUNS))
    assert replay(session) is not None
    x = clean.copy()
    x[0, 3, 5, 6] = value
    wanted = InferenceSession(built).run(None, {"x": x})[0]
    got = session.run(None, {"x": x})[0]
    assert same(got, wanted) and not np.isfinite(got).all()
    assert same(session.run(None, {"x": clean})[0], expected)


def test_a_run_that_is_not_finite_is_not_recorded():
    session = InferenceSession(convolutions())
    x = draw(1, 8, 12, 12)
    bad = np.full_like(x, np.nan)
    session.run(None, {"x": x})
    session.run(None, {"x": bad})
    assert replay(session) is None
    session.run(None, {"x": x})
    assert replay(session) is not None


def test_lengths_that_depend_on_values():
    """NonZero's are others in every run: what reads them stays with the functions."""
    nodes = [make("Relu", ["x"], ["r"]), make("NonZero", ["r"], ["n"]), make("Shape", ["n"], ["s"])]
    session = InferenceSession(model(onnx, nodes, {"x": [4, 5]}, {"n": None, "s": None}))
    for _ in range(RUNS + 2):
        x = draw(4, 5)
        places, shape = session.run(None, {"x": x})
        assert np.array_equal(places, np.nonzero(x > 0)) and shape.tolist() == list(places.shape)
    assert [record.kind for record in replay(session).records] == ["native", "loose", "loose"]


def test_views_that_depend_on_values():
    """An element that another value chooses, and a part whose beginning it says, lie elsewhere in every run."""
    nodes = [
        make("Relu", ["x"], ["r"]), make("Gather", ["r", "i"], ["g"]), make("Add", ["i", "one"], ["e"]),
        make("Unsqueeze", ["i", "zero"], ["b1"]), make("Unsqueeze", ["e", "zero"], ["e1"]),
        make("Slice", ["r", "b1", "e1"], ["s"]), make("Neg", ["s"], ["n"]),
    ]  # fmt: skip
    built = model(onnx, nodes, {"x": [6, 4]}, {"g": None, "n": None}, {"one": np.array(1), "zero": np.array([0])})
    built.graph.input.append(onnx.helper.make_tensor_value_info("i", onnx.TensorProto.INT64, []))
    session = InferenceSession(built)
    for run in range(RUNS + 3):
        x = draw(6, 4)
        g, n = session.run(None, {"x": x, "i": np.array(run)})
        assert np.array_equal(g, np.maximum(x, 0)[run]) and np.array_equal(n, -np.maximum(x, 0)[run : run + 1])


@pytest.mark.parametrize("rank", [3, 4, 5, 6])
def test_chains_over_turned_and_repeated_axes_again(rank):
    """Beside the standard's evaluator, on values and operands of any order and any axes of length one."""
    chance = np.random.default_rng(rank)
    for _ in range(25):
        shape, perm = chance.integers(1, 6, rank).tolist(), chance.permutation(rank).tolist()
        other = [size if chance.random() < 0.6 else 1 for size in (shape[axis] for axis in perm)]
        nodes = [
            make("Transpose", ["x"], ["t"], perm=perm), make("Mul", ["t", "b"], ["m"]), make("Sigmoid", ["m"], ["s"]),
            make("Add", ["s", "t"], ["y"]),
        ]  # fmt: skip
        built = model(onnx, nodes, {"x": shape, "b": other}, {"y": None})
        session = InferenceSession(built)
        for _ in range(RUNS + 1):
            feeds = {"x": draw(*shape), "b": draw(*other)}
            (expected,) = ReferenceEvaluator(built).run(None, feeds)
            assert np.allclose(session.run(None, feeds)[0], expected, 1e-5, 1e-6)


def test_an_output_that_is_an_input_is_that_of_this_run():
    net = fastconv.Sequential([fastconv.layers.Dropout(0.5)], (4, 4, 3))
    for run in range(RUNS + 2):
        x = np.full((1, 4, 4, 3), run, np.float32)
        assert np.array_equal(net.predict(x), x)


def test_an_output_that_is_a_part_of_another_is_that_of_this_run():
    """Where a Concat is given away, what it joins lies in it: the next run makes both elsewhere."""
    nodes = [
        make("Relu", ["x"], ["a"]), make("Sigmoid", ["x"], ["b"]), make("Concat", ["a", "b"], ["c"], axis=1),
        make("Neg", ["c"], ["d"]),
    ]  # fmt: skip
    built = model(onnx, nodes, {"x": [1, 16, 32, 32]}, {"a": None, "c": None, "d": None}, {})
    session = InferenceSession(built)
    for _ in range(5):
        x = draw(1, 16, 32, 32)
        for got, expected in zip(session.run(None, {"x": x}), InferenceSession(built).run(None, {"x": x}), strict=True):
            assert same(got, expected)


def test_large_outputs_are_not_copied():
    """An output that natives alone write is made where the caller gets it, and nothing of a former one changes."""
    nodes = [make("Conv", ["x", "w"], ["a"]), make("Relu", ["a"], ["y"])]
    session = InferenceSession(model(onnx, nodes, {"x": [1, 4, 80, 80]}, {"y": None}, {"w": draw(1, 4, 1, 1)}))
    x = draw(1, 4, 80, 80)
    former = [session.run(None, {"x": x + n})[0] for n in range(5)]
    assert replay(session)._given == {"y": 1} and replay(session)._inputs == {"x": 0}
    for n, one in enumerate(former):
        assert np.array_equal(one, InferenceSession(session_model(session, nodes)).run(None, {"x": x + n})[0])


def session_model(session: InferenceSession, nodes: Any) -> Any:
    weights = session._graph.constants
    return model(onnx, nodes, {"x": [1, 4, 80, 80]}, {"y": None}, {"w": weights["w"]})


def test_an_error_leaves_a_session_usable(monkeypatch):
    session = InferenceSession(convolutions())
    x = draw(1, 8, 12, 12)
    expected, *_ = [session.run(None, {"x": x}) for _ in range(RUNS + 1)]
    bad = x.copy()
    bad[0, 0, 0, 0] = np.nan  # this step is done again by its function, which fails
    monkeypatch.setattr(replay(session), "_run_step", lambda step, inputs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        session.run(None, {"x": bad})
    monkeypatch.undo()
    assert same(session.run(None, {"x": x}), expected)


def test_a_cap_on_threads_holds_for_what_was_recorded(monkeypatch):
    session = InferenceSession(convolutions(64))
    x = draw(1, 8, 64, 64)
    expected, *_ = [session.run(None, {"x": x}) for _ in range(RUNS + 1)]
    asked: list[int] = []
    net = replay(session).net

    def run(first: int, last: int, most: int) -> int:
        asked.append(most)
        return net.run(first, last, most)

    def in_one_step(feeds: Any, most: int) -> None:
        asked.append(10 * most)  # and what follows is the run with steps

    monkeypatch.setattr(replay(session), "net", SimpleNamespace(run=run, move=net.move))
    before = fastconv.get_num_threads()
    try:
        for most in (1, 2):
            fastconv.set_num_threads(most)
            monkeypatch.setattr(session._prepared, "_straight", SimpleNamespace(run=in_one_step))
            assert same(session.run(None, {"x": x}), expected)
    finally:
        fastconv.set_num_threads(before)
    assert set(asked) == {1, 2, 10, 20}


def test_one_thread_records_at_a_time():
    works: list[Any] = []
    _native.record(works)
    fastconv.conv2d(draw(1, 2, 5, 5), draw(3, 2, 3, 3))
    _native.record(None)
    fastconv.conv2d(draw(1, 2, 5, 5), draw(3, 2, 3, 3))
    assert len(works) == 1 and not works[0].flagged


def straight_session() -> tuple[InferenceSession, Any, Any]:
    """A net that works alone do, after the run from which on it goes in one step; its input and what that gives."""
    constants = {"w": draw(8, 3, 3, 3), "b": draw(8), "w2": draw(4, 8, 1, 1)}
    nodes = [make("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4), make("Relu", ["c"], ["r"]),
             make("Conv", ["r", "w2"], ["y"])]  # fmt: skip
    session = InferenceSession(model(onnx, nodes, {"x": ["n", 3, 40, 40]}, {"y": None}, constants), num_threads=1)
    x = draw(1, 3, 40, 40)
    wanted = [session.run(None, {"x": x})[0] for _ in range(RUNS)][-1]
    assert session._prepared.straight({"x": x}) is not None
    return session, x, wanted


def test_a_run_in_one_step_is_that_of_any_other():
    session, x, wanted = straight_session()
    got = session.run(["y"], {"x": x})[0]
    assert same(got, wanted) and got.base is None and got.flags.c_contiguous
    again = session.run(None, {"x": 2 * x})[0]
    assert not np.shares_memory(got, again) and same(got, wanted) and not same(again, wanted)
    # what lies otherwise goes the other way, and the same comes out
    turned = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    off = np.frombuffer(b"\0" + x.tobytes(), np.float32, offset=1).reshape(x.shape)
    for other in (turned, off, x.tolist()):
        assert session._prepared.straight({"x": other}) is None
    for other in (turned, off):
        assert same(session.run(None, {"x": other})[0], wanted)
    two = np.concatenate([x, 2 * x])
    assert same(session.run(None, {"x": two})[0][:1], wanted) and same(session.run(None, {"x": x})[0], wanted)


def test_what_a_run_in_one_step_refuses():
    session, x, _ = straight_session()
    for feeds, names, text in (
        ({"x": x.astype(np.float64)}, None, "must be tensor"), ({"x": x[:, :2]}, None, "shape"), ({}, None, "missing"),
        ({"x": x, "z": x}, None, "unknown"), ({"x": x}, ["z"], "no output"),
    ):  # fmt: skip
        with pytest.raises(OnnxError, match=text):
            session.run(names, feeds)


def test_what_is_not_finite_leaves_the_one_step():
    session, x, wanted = straight_session()
    spoilt = x.copy()
    spoilt[0, 0, 3, 3] = np.nan
    got = session.run(None, {"x": spoilt})[0]
    assert np.isnan(got).any() and session._prepared.straight({"x": spoilt}) is None
    for _ in range(2):  # and comes back to it
        assert same(session.run(None, {"x": x})[0], wanted)
    assert session._prepared.straight({"x": x}) is not None
    assert same(session.run(None, {"x": spoilt})[0], got)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_runs_with_nan_before_the_first_without(count):
    """A net is recorded, and runs in one step, as soon as its values are finite, or as many runs later."""
    session, x = InferenceSession(convolutions()), draw(1, 8, 12, 12)
    for _ in range(count):
        session.run(None, {"x": np.full_like(x, np.nan)})
    for _ in range(count + 4):
        session.run(None, {"x": x})
    assert session._prepared.straight({"x": x}) is not None


def test_a_pause_is_as_long_as_what_comes_is_not_finite():
    pause = _native.Pause()
    tried = []
    for at in range(100):
        if pause.over():
            tried.append(at)
            pause.stopped()
    assert tried == [0, 1, 3, 6, 11, 20, 37, 54, 71, 88]
    while not pause.over():
        pass
    pause.went()
    pause.stopped()
    assert pause.over()


def quantised(value: str, scale: str, to: str) -> list[Any]:
    """A value as bytes and back."""
    return [
        make("QuantizeLinear", [value, scale, "zero"], [f"{to}_bytes"]),
        make("DequantizeLinear", [f"{to}_bytes", scale, "zero"], [to]),
    ]


def convolution(x: str, weight: str, to: str) -> Any:
    return make("Conv", [x, weight], [to], pads=[1] * 4)


LENT = {
    "the factors of a product are a convolution's bytes": (
        [
            *quantised("x", "fine", "a"), *quantised("k", "fine", "b"),
            make("DequantizeLinear", ["few", "fine", "none"], ["w"]), make("Conv", ["b", "w"], ["c"]),
            *quantised("c", "coarse", "d"), make("Mul", ["a", "d"], ["m"]), *quantised("m", "coarse", "y"),
        ],
        {"x": (1, 6, 10, 12), "k": (1, 3, 10, 12)}, ["y"],
    ),
    "a step of Python between outputs that only turn what convolutions made": (
        [
            convolution("x", "w1", "z"), make("Flatten", ["z"], ["o1"]), convolution("x", "w2", "u"),
            make("Round", ["u"], ["p"]), make("ReduceSum", ["p"], ["o2"]), convolution("x", "w3", "d"),
            make("Reshape", ["d", "shape"], ["c"]), make("Transpose", ["c"], ["y"], perm=[0, 3, 1, 2]),
        ],
        {"x": (1, 32, 40, 40)}, ["o1", "o2", "y"],
    ),
    "an output that turns what a convolution made": (
        [convolution("x", "w1", "c"), make("Transpose", ["c"], ["y"], perm=[0, 2, 3, 1])],
        {"x": (1, 32, 40, 40)}, ["y"],
    ),
    "one that lays it in rows": (
        [convolution("x", "w1", "c"), make("Reshape", ["c", "flat"], ["y"])], {"x": (1, 32, 40, 40)}, ["y"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", LENT)
@pytest.mark.parametrize("special", [False, True])
def test_later_runs_read_nothing_of_former_ones(what: str, special: bool) -> None:
    """Also where something that is not finite sends a step back to the function."""
    nodes, inputs, outputs = LENT[what]
    constants = {
        "fine": np.float32(0.02), "coarse": np.float32(0.05), "zero": np.uint8(128), "none": np.int8(0),
        "few": rng.integers(-60, 60, (6, 3, 1, 1)).astype(np.int8), "w1": draw(32, 32, 3, 3), "w2": draw(16, 32, 3, 3),
        "w3": draw(32, 32, 3, 3), "shape": np.array([1, 32, 40, 40]), "flat": np.array([1, 32, 1600]),
    }  # fmt: skip
    read = {name for node in nodes for name in node.input}
    built = model(
        onnx, nodes, inputs, dict.fromkeys(outputs), {name: own for name, own in constants.items() if name in read}
    )
    session = InferenceSession(built, num_threads=1)
    for turn in range(6):
        feeds = {name: draw(*shape) for name, shape in inputs.items()}
        if special and turn > 3:
            feeds["x"].flat[[7, 507]] = np.nan, np.inf
        wanted = InferenceSession(built, num_threads=1).run(None, feeds)
        assert all(map(same, session.run(None, feeds), wanted)), turn
