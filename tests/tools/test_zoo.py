"""The zoo of whole nets: published sizes, halves by names, the processes that time them, and what is made of rows."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastconv.bench import report, zoo_report
from fastconv.bench.processes import Worker, WorkerError, neighbours
from fastconv.bench.report import Row, Timing
from fastconv.bench.runtimes import RUNTIMES, Job
from fastconv.bench.runtimes.reading import folded, named, read, shuffled
from fastconv.bench.worker import error_by_column, error_of, turn
from fastconv.bench.zoo import blocks, catalogue, functions, pictures
from fastconv.bench.zoo import operators as ops
from fastconv.bench.zoo.catalogue import NETS, ZooNet, held_out_families, select_zoo
from fastconv.bench.zoo.given import given_net
from fastconv.bench.zoo.graph import Graph
from fastconv.bench.zoo_rows import Method, ZooCase, missing_runtimes, run_zoo, run_zoo_together
from fastconv.cli import main
from fastconv.errors import ConvError
from fastconv.onnx import InferenceSession

onnx = pytest.importorskip("onnx")


def evaluated(g: Graph, x: np.ndarray | None = None) -> np.ndarray:
    """What the onnx package's own evaluator says."""
    from onnx.reference import ReferenceEvaluator

    (y,) = ReferenceEvaluator(g.model()).run(None, {"x": g.feeds() if x is None else x})
    return np.asarray(y)


# ---- the nets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.name)
def test_nets_are_valid_and_of_the_published_size(net: ZooNet) -> None:
    g = net.build(1)
    model = g.model(weights=False)
    onnx.checker.check_model(model, full_check=True)
    # The declared results are compared with what follows from the operators.
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    if net.parameters is not None:
        # Conv-TasNet's 5.1 million count what the paper says; ours leaves the last block's unused way out.
        assert g.parameters / 1e6 == pytest.approx(net.parameters, rel=0.02 if net.name == "Conv-TasNet" else 0.01)
    if net.macs is not None:
        assert g.macs / 1e6 == pytest.approx(net.macs, rel=0.01)
    assert net.build(3).macs == 3 * g.macs and net.build(3).parameters == g.parameters


def test_the_volume_net_has_the_published_size_at_the_published_width() -> None:
    # Çiçek et al. 2016, 2.1: "in total the architecture has 19,069,955 parameters"
    assert pictures.unet_3d(1, width=32).parameters == pytest.approx(19_069_955, rel=1e-3)


def test_the_halves_follow_from_names() -> None:
    names = {net.name for net in NETS}
    assert len(names) == len(NETS) >= 20
    tuned = {net.name for net in select_zoo(held_out=False)}
    assert tuned == {
        "MobileNetV1", "MobileNetV2", "MobileNetV3-large", "ResNet-18", "ResNet-50", "ResNeXt-50", "VGG-16",
        "CREPE-tiny", "DenseNet-121", "ESPCN", "RegNetY-400MF", "SRGAN generator", "U-Net", "U-Net 3-D",
    }  # fmt: skip
    assert {net.name for net in select_zoo(held_out=True)} == names - tuned
    assert held_out_families() == catalogue.HELD_OUT
    for net in NETS:  # a family is on one side
        assert len({other.held_out for other in NETS if other.family == net.family}) == 1
    assert [net.name for net in select_zoo("ResNet", held_out=False)] == ["ResNet-18", "ResNet-50", "ResNeXt-50"]


def test_weights_repeat_whatever_else_is_drawn_and_scalars_stay_scalars() -> None:
    first, again = small(1), small(1)
    names = list(first.weights)
    third = first.drawn(3, first.weights[names[3]])
    for index, name in enumerate(names):
        np.testing.assert_array_equal(
            first.drawn(index, first.weights[name]), again.drawn(index, again.weights[name])
        )
    np.testing.assert_array_equal(third, again.drawn(3, again.weights[names[3]]))
    model = first.model()
    shapes = {one.name: tuple(one.dims) for one in model.graph.initializer}
    assert shapes == {name: weight.shape for name, weight in first.weights.items()}
    assert () in shapes.values()


@pytest.mark.parametrize("name", ["ShuffleNetV2-1.0", "DCGAN generator", "MobileNetV3-large"])
def test_activations_stay_of_order_one(name: str) -> None:
    from fastconv.onnx import InferenceSession

    g = next(net for net in NETS if net.name == name).build(1)
    (y,) = InferenceSession(g.model()).run(None, {"x": g.feeds()})
    expected = g.outputs[0].power ** 0.5
    assert expected / 4 < np.sqrt(np.mean(np.square(y))) < 4 * expected


@pytest.mark.parametrize("kind", functions.FUNCTIONS)
def test_functions_are_spelt_right_and_leave_the_power_that_is_said(kind: str) -> None:
    g = Graph("function", (1, 5, 40, 50))
    y = functions.apply(g, g.input, kind)
    x = g.feeds() * 1.5
    got = evaluated(g.end(y), x)
    if kind == "prelu":
        slope = g.drawn(0, next(iter(g.weights.values())))
        expected = np.where(x < 0, slope * x, x)
    else:
        expected = functions.FUNCTIONS[kind](x.astype(np.float64))
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6)
    values = np.random.default_rng(0).standard_normal(400_000) * 1.5
    drawn = np.mean(functions.FUNCTIONS[kind](values) ** 2)
    assert functions.power_after(kind, 2.25) == pytest.approx(drawn, rel=0.02)


def test_norms_that_are_spelt_out() -> None:
    for axes, dims in (([-1], (2, 7, 16)), ([1, 2], (2, 16, 9))):
        g = Graph("norm", dims)
        got = evaluated(g.end(ops.spelt_norm(g, g.input, axes)))
        x = g.feeds().astype(np.float64)
        unit = (x - x.mean(tuple(axes), keepdims=True)) / np.sqrt(x.var(tuple(axes), keepdims=True) + 1e-5)
        factor, shift = (g.drawn(i, w) for i, w in enumerate(g.weights.values()) if w.parameter)
        np.testing.assert_allclose(got, unit * factor + shift, rtol=1e-4, atol=1e-5)


# ---- a small net of many operators ---------------------------------------------------------------------------------


def small(batch: int) -> Graph:
    """Images: what detectors, mobile nets and generators have."""
    g = Graph("small", (batch, 3, 12, 10))
    x = ops.conv_norm(g, g.input, 8, 3, 2, "silu")
    x = blocks.inverted_residual(g, x, 16, 8, 3, 1, "relu6", (4, "relu", "hard_sigmoid"))
    left, right = ops.split(g, x, [4, 4])
    x = ops.concat(g, [ops.pool(g, left, "MaxPool", 3, 1, 1), ops.conv(g, right, 4, 3, act="leaky_relu")])
    n, c, height, width = x.shape
    mixed = ops.transpose(g, ops.reshape(g, x, (n, 2, c // 2, height, width)), (0, 2, 1, 3, 4))
    x = ops.instance_norm(g, ops.reshape(g, mixed, x.shape), "prelu")
    x = ops.conv(g, ops.reflect(g, x, 1), 8, 3, padding=0, act="hard_swish")
    x = ops.pixel_shuffle(g, ops.conv(g, x, 16, 1), 2)
    x = ops.resize(g, ops.norm(g, ops.pool(g, x, "AveragePool", 2, 2), "relu"))
    x = ops.conv_transpose(g, x, 6, 4, 2, 1, act="tanh")
    y = ops.transpose(g, ops.layer_norm(g, ops.transpose(g, x, (0, 2, 3, 1))), (0, 3, 1, 2))
    x = ops.add(g, x, ops.layer_scale(g, y, (6, 1, 1), 0.5))
    return blocks.classifier(g, x, 5)


def signal(batch: int) -> Graph:
    """One axis: convolutions, dilated and transposed ones, normalisation by sums."""
    g = Graph("signal", (batch, 2, 40))
    x = ops.conv(g, g.input, 6, 4, 2, 1, act="gelu")
    x = ops.conv(g, x, 6, 3, dilation=2, groups=6, act="prelu")
    x = ops.add(g, ops.spelt_norm(g, x, [1, 2]), ops.scaled(g, x, 0.5))
    return g.end(ops.conv_transpose(g, x, 3, 4, 2, 1, act="sigmoid"))


def attending(batch: int) -> Graph:
    """Tokens: attention, products, normalisation spelt out over the last axis."""
    g = Graph("attending", (batch, 8, 4, 5))
    x = blocks.transformer(g, blocks.tokens(g, g.input), 2, np.zeros((1, 1, 20, 20)) - np.eye(20))
    return g.end(ops.softmax(g, ops.dense(g, x, 7)))


GRAPHS = {"small": small, "signal": signal, "attending": attending}
NOT_OFFERED = {("ncnn", "attending")}


@pytest.mark.parametrize("make", GRAPHS)
@pytest.mark.parametrize("name", [name for name in RUNTIMES if name != "torch.compile"])
def test_runtimes_compute_what_the_evaluator_does(name: str, make: str, tmp_path: Path) -> None:
    if missing_runtimes([name]):
        pytest.importorskip(name.partition(".")[0])
    from fastconv.bench.peers import NotOffered

    g = GRAPHS[make](2)
    path = tmp_path / "net.onnx"
    path.write_bytes(g.model().SerializeToString())
    expected = evaluated(g)
    right = 0
    for variant in RUNTIMES[name].variants:
        try:
            call = RUNTIMES[name].prepare(Job(str(path), g.feeds(), 1), variant)()
        except NotOffered:
            assert (name, make) in NOT_OFFERED or "channels_last" in variant
            continue
        for _ in range(2):
            np.testing.assert_allclose(call.read(call.run()), expected, rtol=1e-4, atol=1e-5)
        right += 1
    assert right or (name, make) in NOT_OFFERED


def test_reading_names_what_is_spelt_out(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    for make, expected, gone in (
        (small, {"Silu": 1, "Shuffle": 1}, ("Sigmoid",)), (signal, {"Gelu": 1, "Pow": 1}, ("Erf",)),
        (attending, {"LayerNormalization": 2, "Gelu": 1, "Softmax": 2}, ("Erf", "Sqrt", "Pow")),
    ):  # fmt: skip
        path.write_bytes(make(1).model().SerializeToString())
        kinds = Counter(op.kind for op in shuffled(named(read(str(path)))).ops)
        assert {kind: kinds[kind] for kind in expected} == expected
        assert not any(kinds[kind] for kind in gone)
    # Where somebody else reads a part, it must stay.
    g = Graph("shared", (1, 4, 3))
    gate = functions.apply(g, g.input, "sigmoid")
    path.write_bytes(g.end(ops.add(g, ops.mul(g, g.input, gate), gate)).model().SerializeToString())
    assert [op.kind for op in named(read(str(path))).ops] == ["Sigmoid", "Mul", "Add"]


@pytest.mark.parametrize("transposed", [False, True])
def test_folding_puts_the_normalisation_into_the_weights(transposed: bool, tmp_path: Path) -> None:
    def conv(g: Graph) -> Any:
        return ops.conv_transpose(g, g.input, 3, 3, 1, 1) if transposed else ops.conv(g, g.input, 3, 3)

    g = Graph("folded", (1, 2, 5, 5))
    path = tmp_path / "net.onnx"
    expected = evaluated(g.end(ops.norm(g, conv(g))))
    path.write_bytes(g.model().SerializeToString())
    net = folded(read(str(path)))
    assert [op.kind for op in net.ops] == ["ConvTranspose" if transposed else "Conv"]
    plain = Graph("folded", (1, 2, 5, 5))
    plain.end(conv(plain))
    for name, array in zip(list(plain.weights), (net.constants[one] for one in net.ops[0].inputs[1:]), strict=True):
        plain.weights[name] = type(plain.weights[name])(array.shape, array)
    np.testing.assert_allclose(evaluated(plain, g.feeds()), expected, rtol=1e-4, atol=1e-5)


# ---- processes -----------------------------------------------------------------------------------------------------

TINY = ZooNet("tiny", "tiny", small)


def test_a_net_in_processes_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(catalogue, "NETS", [TINY])
    path = tmp_path / "rows.jsonl"
    arguments = ["--nets", "--tuned", "--against", "im2col", "--rounds", "1", "--threads", "1", "--busy", "0,1"]
    assert main(["bench", *arguments, "--json", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "tiny, batch 1" in shown and "beside 1 busy processes" in shown and "loading and first run" in shown
    (run,) = report.read(path)
    (row,) = run.rows
    (ours,) = row.timings
    assert (row.set, row.family, row.macs) == ("zoo", "tuned on", small(1).macs)
    assert ours.correct and 0 <= ours.error < 1e-4 and ours.load and ours.first and ours.samples >= 1
    assert set(ours.beside) == {"0", "1"} and ours.beside["0"][0] == pytest.approx(ours.seconds)
    assert all(0 < median <= tail for median, tail in ours.beside.values())
    if ours.peak is not None:
        assert ours.base is not None and 0 < ours.base <= ours.peak < 1 << 30
    assert row.outside is None or 0 <= row.outside <= 1


def test_a_net_in_one_process_and_at_another_batch() -> None:
    row = run_zoo_together(ZooCase(TINY, 2), [], Method(1, 1))
    (ours,) = row.timings
    assert ours.correct and row.layer == "tiny, batch 2" and row.shape["input"] == [2, 3, 12, 10]
    assert row.macs == 2 * small(1).macs and ours.load is None


def test_a_net_in_8_bits() -> None:
    pytest.importorskip("onnxruntime.quantization")
    row = run_zoo_together(ZooCase(TINY, 1, "int8"), ["onnxruntime", "ncnn", "litert", "torch.compile"], Method(1, 1))
    ours, other = row.timings
    assert row.layer == "tiny, batch 1, int8" and row.shape["dtype"] == "int8"
    assert other.peer == "onnxruntime" and ours.correct and other.correct and ours.error < 0.02
    assert set(row.absent) == {"ncnn", "litert", "torch.compile"}


def test_a_net_in_bfloat16() -> None:
    peers = ["openvino", "torch", "ncnn", "onnxruntime", "litert"]
    row = run_zoo_together(ZooCase(TINY, 1, "bfloat16"), peers, Method(1, 1))
    assert row.layer == "tiny, batch 1, bfloat16" and all(one.correct for one in row.timings)
    assert row.timings[0].peer == "fastconv" and row.timings[0].error > 1e-5  # of float32 it would be less
    assert set(row.absent) >= {"onnxruntime", "litert"}


def test_pytorchs_own_8_bits(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime.quantization")
    torch = pytest.importorskip("torch")
    from fastconv.bench.quantised import quantise_file, torch_int8

    g = small(1)
    (tmp_path / "net.onnx").write_bytes(g.model().SerializeToString())
    quantise_file(tmp_path, g.input_shape)
    made = torch_int8(str(tmp_path / "net.onnx"), g.feeds(), False)()
    y = made(torch.from_numpy(g.feeds())).numpy()
    session = InferenceSession(tmp_path / "float.onnx")
    wanted = session.run(None, {"x": g.feeds()})[0]
    assert np.corrcoef(y.ravel(), wanted.ravel())[0, 1] > 0.9  # its grids have 7 bits
    assert any("quantized" in str(node.target) for node in made.graph.nodes)


def test_a_net_from_a_file_of_one_s_own(tmp_path: Path) -> None:
    helper = onnx.helper
    images = helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["n", 3, "h", "w"])
    scores = helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, None)
    nodes = [helper.make_node("Relu", ["images"], ["x"]), helper.make_node("Neg", ["x"], ["scores"])]
    graph = helper.make_graph(nodes, "net", [images], [scores])
    path = tmp_path / "own.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    net = given_net(str(path), (6, 5))
    assert (net.name, net.side, net.held_out) == ("own.onnx", "given", False)
    row = run_zoo_together(ZooCase(net, 2), [], Method(1, 1))
    assert row.timings[0].correct and row.shape["input"] == [2, 3, 6, 5] and row.family == "given"
    model = net.build(1).model()
    assert model.graph.input[0].name == "x" and model.graph.node[0].output[0] != "x"
    with pytest.raises(ConvError, match="--input-size HEIGHTxWIDTH"):
        given_net(str(path)).build(1)


def refused(batch: int) -> Graph:
    g = Graph("refused", (batch, 2, 3))
    return g.end(g.node("NoSuchOperator", ["x"], (batch, 2, 3), 1.0))


def test_failures_are_named(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"refused, batch 1: .*right answer"):
        run_zoo(ZooCase(ZooNet("refused", "refused", refused)), [], Method(1, 1))
    with Worker("fastconv", "ONNX", tmp_path, 1) as worker:
        assert worker.reply(60)["absent"].startswith("failed: FileNotFoundError")
        with pytest.raises(WorkerError, match="ended with status 0"):
            worker.turn(0.01)


def test_a_neighbour_computes_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastconv.bench import processes

    started = []
    popen = processes.subprocess.Popen
    monkeypatch.setattr(processes.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])
    with neighbours(1):
        assert [one.poll() for one in started] == [None]
    assert [one.poll() is not None for one in started] == [True]


def test_turns_drop_what_wakes_up_and_end() -> None:
    calls = []
    assert len(turn(lambda: calls.append(0), 0.001)) <= 1000
    slow = turn(lambda: calls.append(1), 0.0)
    assert len(slow) == 1 and calls.count(1) > 1


def test_errors_by_column() -> None:
    answer = np.array([[[100.0, 1.0], [50.0, 0.5]]])
    result = answer + np.array([0.05, 0.05])
    assert error_by_column(result, answer, None) == pytest.approx(0.0005)
    assert error_by_column(result, answer, 2) == pytest.approx(0.05)  # the scores are wrong, which the boxes hid
    assert error_by_column(answer * 0, answer * 0, 2) == 0
    assert error_by_column(answer, answer * 0, 2) == error_by_column(answer[0], answer, None) == np.inf
    assert error_by_column(answer * np.nan, answer, None) == np.inf


def test_errors_in_few_bits_are_shares_of_norms() -> None:
    answer = np.array([[3.0, 4.0, 0.0]])
    assert error_of(answer + np.array([0, 0, 1]), answer, "int8", None) == pytest.approx(0.2)
    assert error_of(answer + np.array([0, 0, 1]), answer, "float32", None) == pytest.approx(0.25)
    assert error_of(answer * 0, answer * 0, "int8", None) == 0
    wrong = ((answer, answer * 0), (answer[0], answer), (answer * np.nan, answer))
    assert all(error_of(*pair, "int8", None) == np.inf for pair in wrong)


# ---- what is made of rows ------------------------------------------------------------------------------------------


def row(name: str, half: str, **seconds: float) -> Row:
    timings = [
        Timing(peer, "", s, s, 1, 0.0 if s > 0 else 1.0, s > 0, load=s, first=2 * s, base=10**6, peak=3 * 10**6,
               beside={"0": [s, s], "2": [3 * s, 10 * s]})
        for peer, s in seconds.items()
    ]  # fmt: skip
    return Row("zoo", name, half, "net", 10**9, {}, 100.0, timings)


ROWS = [
    row("a", "tuned on", fastconv=1e-3, onnxruntime=2e-3, openvino=4e-3),
    row("b", "tuned on", fastconv=1e-3, onnxruntime=8e-3, openvino=-1.0),  # a wrong answer does not count
    row("c", "held out", fastconv=2e-3, litert=1e-3),
    row("d", "held out", onnxruntime=1e-3),
]


def test_halves_have_their_means_and_their_worst() -> None:
    lines = zoo_report.half_lines(ROWS)
    assert lines[0] == (
        "Tuned on, 2 nets: 4.00× the fastest correct peer in the geometric mean, least 2.00× (a)."
    )
    assert lines[1] == "Tuned on, beside 2 busy: 4.00×, 95th percentile 4.00×."
    assert lines[2] == "Held out, 1 nets: 0.50× the fastest correct peer in the geometric mean, least 0.50× (c)."
    assert lines[3] == "Held out, without an answer of ours: d."
    means = {mean.family: mean.over_best for mean in report.summaries(ROWS)}
    assert means["tuned on"] == pytest.approx(4) and means["held out"] == pytest.approx(0.5)


def test_tables_of_nets() -> None:
    times = zoo_report.time_table(ROWS)
    assert times[0] == ["net", "fastconv", "onnxruntime", "openvino", "litert", "best peer", "× best"]
    assert times[2] == ["b", "1 ms", "8 ms", "wrong", "–", "onnxruntime", "8.00×"]
    assert times[4][1] == "–"
    assert zoo_report.load_table(ROWS)[1][-1] == "0.50×" and zoo_report.load_table(ROWS)[1][1] == "3 ms (2 ms)"
    assert zoo_report.memory_table(ROWS)[3][1] == "2 (3)"
    assert zoo_report.beside_table(ROWS, "2")[3][1:] == ["6 ms (20 ms)", "–", "–", "3 ms (10 ms)", "0.50×", "0.50×"]
    text = zoo_report.zoo_text(ROWS)
    assert zoo_report.zoo_line(ROWS[0]) == "a: 1 ms, onnxruntime 2 ms, 2.00×"
    assert zoo_report.zoo_line(ROWS[3]) == "d: no answer, a wrong one, onnxruntime 1 ms, –"
    assert "beside 2 busy processes" in text and "Wrong: openvino" in text


def test_rows_of_nets_are_kept_in_files(tmp_path: Path) -> None:
    head = {"date": "", "machine": {}, "fastconv": {}, "threads": 1, "layout": "NHWC", "python": "", "versions": {},
            "missing": {}, "environment": {}, "timing": {}}  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text(report.json_lines(report.Report(**head, rows=ROWS[:1])), encoding="utf-8")
    assert report.read(path)[0].rows == ROWS[:1]
    assert json.loads(path.read_text(encoding="utf-8").splitlines()[1])["timings"][0]["beside"]["2"] == [0.003, 0.01]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--held-out"], 1, "no layer of vgg16 is held out"),
        (["--busy", "0,1"], 1, "add --nets"),
        (["--one-process"], 1, "add --nets"),
        (["--nets", "--one-process", "--busy", "1"], 1, "leave out --one-process"),
        (["--nets", "--busy", "1,x"], 2, "numbers from 0 to 64"),
        (["--nets", "--busy", "65"], 2, "numbers from 0 to 64"),
        (["--nets", "--held-out", "--only", "VGG"], 1, "no network has 'VGG'"),
    ],
)
def test_bad_usage(arguments: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert main(["bench", *arguments]) == status
    except SystemExit as ended:
        assert ended.code == status
    assert said in capsys.readouterr().err
