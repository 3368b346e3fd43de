"""The benchmark: what it counts, whom it believes, and what it writes."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import re
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import fastconv
from fastconv import _native
from fastconv.bench import accelerated, loads, measure, memory, nets
from fastconv.bench import peers as peers_module
from fastconv.bench.cases import PASSES, Case, make_data
from fastconv.bench.graph import fused, nodes, torch_net
from fastconv.bench.layer_sets import SETS
from fastconv.bench.layers_of_nets import NETS
from fastconv.bench.measure import Candidate, check, geometric_mean, relative_error, rest, time_interleaved
from fastconv.bench.nets import Net, run_net
from fastconv.bench.peers import PEERS, NotOffered, Ours, load_peers, logical_reference
from fastconv.bench.report import (
    Row,
    Timing,
    group_text,
    json_lines,
    memory_lines,
    network_seconds,
    read,
    summaries,
    summary_text,
)
from fastconv.bench.suite import ProcessorSeconds, new_report, outside_share, run_case, select
from fastconv.cli import main
from fastconv.models import cifar_vgg, mnist_net, resnet, vgg

SMALL = Case("misc", "small 3→5 @6", "small", 3, 5, 6, 3, padding=1)


# ---- the layers ----------------------------------------------------------------------------------------------------


def test_vgg16_has_the_network_s_multiply_adds() -> None:
    # 15.470 GMAC (configuration D) less the fully-connected layers 25088·4096 + 4096·4096 + 4096·1000.
    assert sum(case.count * case.macs for case in SETS["vgg16"]) == 15_470_264_320 - 123_633_664
    assert sum(case.count for case in SETS["vgg16"]) == 13
    assert [case.counted for case in SETS["vgg16"]] == [False] + [True] * 8


def test_resnet50_has_the_network_s_multiply_adds() -> None:
    total = sum(case.count * case.macs for case in SETS["resnet50"])
    assert round((total + 2048 * 1000) / 1e9, 3) == 4.089
    assert sum(case.count for case in SETS["resnet50"]) == 53
    assert len({case.name for case in SETS["resnet50"]}) == len(SETS["resnet50"]) == 23


@pytest.mark.parametrize("case", [case for some in SETS.values() for case in some], ids=lambda case: case.name)
def test_shapes_are_those_of_the_library(case: Case) -> None:
    x = np.broadcast_to(np.float32(0), (0, *case.input_shape[1:]))  # an empty batch: the shape without the work
    weight = np.broadcast_to(np.float32(0), case.weight_shape)
    function = peers_module.named(fastconv, case)
    y = function(x, weight, stride=case.stride, padding=case.padding, dilation=case.dilation, groups=case.groups)
    assert y.shape[1:] == case.output_shape[1:]


def test_names_are_unique_and_data_repeat() -> None:
    for cases in SETS.values():
        assert len({case.name for case in cases}) == len(cases)
    first, again = make_data(SMALL), make_data(SMALL)
    for name in ("x", "weight", "bias", "dy"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert make_data(select(["misc"], "float64")[0]).x.dtype == np.float64


def test_every_second_layer_of_the_other_nets_is_held_out() -> None:
    for name, cases in SETS.items():
        marks = [case.held_out for case in cases]
        assert marks == [name in NETS and i % 2 == 1 for i in range(len(cases))], name
    assert len(select(list(NETS), held_out=True)) + len(select(list(NETS), held_out=False)) == len(select(list(NETS)))


def test_select() -> None:
    assert {case.family for case in select(["mobilenet"], "5×5")} == {"depthwise 5×5"}
    assert len(select(["vgg16", "resnet50"])) == 32


# ---- statistics ----------------------------------------------------------------------------------------------------


def row(layer: str, seconds: dict[str, float], count: int = 1, counted: bool = True, family: str = "3×3") -> Row:
    timings = [Timing(peer, "", value, value, 1, 0.0) for peer, value in seconds.items()]
    return Row("vgg16", layer, family, "fwd", 500_000_000, {}, 100.0, timings, counted, count)


def test_geometric_mean() -> None:
    assert geometric_mean([2.0, 8.0]) == pytest.approx(4.0)
    assert math.isnan(geometric_mean([]))


def test_relative_error() -> None:
    reference = np.array([1.0, -4.0])
    assert relative_error(np.array([1.0, -3.0], np.float32), reference) == 0.25
    assert relative_error(np.array([1.0, np.nan]), reference) == math.inf
    assert relative_error(np.array([[1.0, -4.0]]), reference) == math.inf
    assert relative_error(np.zeros(2), np.zeros(2)) == 0.0
    assert relative_error(np.ones(2), np.zeros(2)) == math.inf


def test_best_peer_is_a_library_with_a_right_answer() -> None:
    seconds = {"fastconv": 1.0, "torch": 4.0, "ncnn": 2.0, "onnxruntime": 3.0, "im2col": 0.1}
    full = row("a", seconds)
    wrong = [replace(t, correct=t.peer != "ncnn") for t in full.timings]
    best = replace(full, timings=wrong).best_peer
    assert best is not None and best.peer == "onnxruntime"
    best = row("b", {"fastconv": 1.0, "im2col": 0.1, "reference": 5.0}).best_peer
    assert best is not None and best.peer == "im2col"
    assert row("c", {"fastconv": 1.0}).best_peer is None


def test_the_better_memory_format_counts() -> None:
    one = row("a", {"fastconv": 1.0, "torch": 4.0})
    other = replace(one.timings[1], variant="channels_last", seconds=3.0)
    assert replace(one, timings=[*one.timings, other]).of("torch") == other


def test_held_out_layers_have_a_line_of_their_own() -> None:
    rows = [
        row("a", {"fastconv": 1.0, "torch": 2.0}), replace(row("b", {"fastconv": 1.0, "torch": 0.5}), held_out=True)
    ]  # fmt: skip
    whole, held = summaries(rows)
    assert (whole.over_best, whole.layers, whole.slower) == (pytest.approx(1.0), 2, 1)
    assert (held.family, held.over_best, held.layers, held.slower) == ("held out", pytest.approx(0.5), 1, 1)
    assert "held out" in summary_text(rows)


def test_arrays_with_channels_first_are_compared_with_their_like() -> None:
    def timing(peer: str, variant: str, seconds: float) -> Timing:
        return Timing(peer, variant, seconds, seconds, 1, 0.0)

    others = [timing("torch", "contiguous", 3.0), timing("torch", "channels_last", 1.0), timing("ncnn", "plain", 4.0)]
    first = replace(row("a", {}), timings=[timing("fastconv", "NCHW", 1.5), *others])
    last = replace(first, timings=[timing("fastconv", "NHWC", 1.5), *others])
    assert first.ratio(first.best_peer) == pytest.approx(1.0 / 1.5)
    assert first.ratio(first.best_alike) == pytest.approx(2.0) and summaries([first])[0].alike == pytest.approx(2.0)
    assert last.best_alike is None and math.isnan(summaries([last])[0].alike)
    assert "× best NCHW" in summary_text([first]) and "NCHW" not in summary_text([last])


def test_candidates_take_turns() -> None:
    calls: list[str] = []

    def caller(name: str) -> Any:
        return lambda: calls.append(name)

    both = [Candidate(name, "", caller(name), np.asarray) for name in ("a", "b")]
    assert time_interleaved(both, rounds=3) == 3
    order = [name for place, name in enumerate(calls) if place == 0 or calls[place - 1] != name]
    # Both once for the expected time, then turns ab, ba, ab: equal neighbours run together.
    assert "".join(order) == "ababab"[:2] + "abab"[: len(order) - 2]
    assert len(both[0].samples) == len(both[1].samples) >= 6
    assert all(seconds > 0 for seconds in both[0].samples)


def test_rest_waits_for_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [True, True, False]
    monkeypatch.setattr(measure, "_others_run", lambda: answers.pop(0))
    rest(limit=60.0)
    assert not answers
    monkeypatch.setattr(measure, "_others_run", lambda: True)
    rest(limit=0.005)  # and gives up when its time is over


def test_a_busy_thread_is_seen() -> None:
    # Key derivation computes without the GIL, so that the thread runs while this one looks.
    work = threading.Thread(target=hashlib.pbkdf2_hmac, args=("sha256", b"", b"", 3_000_000))
    work.start()
    seen = False
    while work.is_alive() and not seen:
        seen = measure._others_run()
    work.join()
    assert seen


def test_other_processes_are_noticed() -> None:
    start = ProcessorSeconds(all=100.0, busy=50.0, own=5.0)
    end = ProcessorSeconds(all=110.0, busy=57.0, own=8.0)
    assert outside_share(start, end) == pytest.approx(0.4)
    assert outside_share(start, start) is None and outside_share(None, end) is None
    disturbed = replace(row("a", {"fastconv": 1.0, "torch": 2.0}), outside=0.4)
    quiet = replace(disturbed, layer="b", outside=0.01)
    text = group_text("vgg16", "fwd", [disturbed, quiet])
    assert "40 % of the machine during a;" in text and "during b" not in text


# ---- peers ---------------------------------------------------------------------------------------------------------


def test_missing_peers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(peers_module, "module", absent)
    found, missing = load_peers(PEERS, threads=1)
    assert [peer.name for peer in found] == ["reference"]
    assert missing["torch"] == "torch is not installed"
    assert missing["openvino"] == "onnx is not installed"
    assert set(missing) == set(PEERS) - {"reference"}


@pytest.mark.parametrize("name", sorted(set(PEERS) - {"reference"}))
@pytest.mark.parametrize(
    "case",
    [
        SMALL,
        Case("misc", "s2", "", 8, 16, 9, 3, stride=2, padding=1, batch=2),
        Case("misc", "grouped", "", 8, 8, 7, 3, padding=1, groups=4),
        Case("misc", "depthwise", "", 16, 16, 8, 5, padding=2, groups=16),
        Case("misc", "dilated", "", 4, 8, 9, 3, padding=2, dilation=2),
        Case("misc", "1×1", "", 16, 24, 5, 1),
        Case("misc", "1×1 s2", "", 16, 24, 6, 1, stride=2),
        Case("misc", "transposed", "", 6, 10, 5, 4, stride=2, padding=1, transposed=True),
        Case("misc", "float64", "", 3, 5, 6, 3, padding=1, dtype="float64"),
    ],
    ids=lambda case: case.name,
)
def test_installed_peers_agree_with_the_reference(name: str, case: Case) -> None:
    found, missing = load_peers([name], threads=1)
    if missing:
        pytest.skip(missing[name])
    data = make_data(case)
    for pass_name in found[0].passes:
        try:
            candidates = found[0].candidates(case, data, pass_name)
        except NotOffered:
            continue
        for one in candidates:
            check(one, logical_reference(case, data, pass_name), case.dtype)
            assert one.correct, (one.variant, pass_name, one.error)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("pass_name", PASSES)
@pytest.mark.parametrize("transposed", [False, True])
def test_ours_agrees_with_the_reference(layout: str, pass_name: str, transposed: bool) -> None:
    case = Case("misc", "s2", "", 6, 10, 7, 4, stride=2, padding=1, batch=2, transposed=transposed)
    data = make_data(case)
    (ours,) = Ours(2, layout).candidates(case, data, pass_name)
    check(ours, logical_reference(case, data, pass_name), case.dtype)
    assert ours.correct and ours.error < 1e-5


class Wrong:
    """A peer that is fast because it computes nothing."""

    name = "torch"
    passes = PASSES

    def version(self) -> str:
        return "0"

    def candidates(self, case: Case, data: Any, pass_name: str) -> list[Candidate]:
        zeros = np.zeros(case.output_shape, np.float32)
        return [Candidate(self.name, "zeros", lambda: zeros, np.asarray)]


class Failing(Wrong):
    """A peer that raises."""

    name = "ncnn"

    def candidates(self, case: Case, data: Any, pass_name: str) -> list[Candidate]:
        raise RuntimeError("no such layer\nand more")


def test_wrong_and_failing_peers_are_not_counted() -> None:
    baselines, _ = load_peers(["reference"], 1)
    row = run_case(SMALL, "fwd", Ours(1), [Wrong(), Failing(), *baselines], rounds=1)
    assert [t.correct for t in row.timings if t.peer == "torch"] == [False]
    assert row.of("torch") is None and math.isnan(row.ratio(row.of("torch")))
    assert row.best_peer is not None and row.best_peer.peer == "reference"
    assert row.absent == {"ncnn": "failed: RuntimeError: no such layer"}
    assert "torch" not in summaries([row])[0].over


def threads_of_libraries() -> tuple[Any, ...]:
    torch, threadpoolctl = (peers_module.module(name) for name in ("torch", "threadpoolctl"))
    pools = [(pool["filepath"], pool["num_threads"]) for pool in threadpoolctl.threadpool_info()]
    return torch.get_num_threads(), _native.openmp_threads(), pools


def test_a_bench_leaves_no_limit_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch may share its OpenMP runtime with fastconv, whose calls heed what is set there."""
    for name in ("torch", "threadpoolctl"):
        pytest.importorskip(name)
    before = threads_of_libraries()
    found, missing = load_peers(["torch", "im2col"], threads=before[0] + 1)
    assert not missing and threads_of_libraries() == before
    while_measuring: list[int] = []
    candidates = found[0].candidates

    def watched(*arguments: Any) -> list[Candidate]:
        while_measuring.append(found[0].torch.get_num_threads())  # type: ignore[attr-defined]
        return candidates(*arguments)

    monkeypatch.setattr(found[0], "candidates", watched)
    row = run_case(SMALL, "fwd", Ours(1), [*found, Failing()], rounds=1)
    assert row.of("torch") is not None and while_measuring == [before[0] + 1]
    assert threads_of_libraries() == before
    run_net(Net("small", lambda: mnist_net(seed=0), 4, training=True), Ours(1), found, rounds=1)
    assert threads_of_libraries() == before


# ---- whole networks ------------------------------------------------------------------------------------------------


def small_resnet() -> Any:
    return resnet(50, classes=1000, input_shape=(32, 32, 3), seed=0)


def small_vgg() -> Any:
    return vgg("A", input_shape=(32, 32, 3), dense=16, seed=0)


@pytest.mark.parametrize("peer", ["torch", "onnxruntime", "openvino", "ncnn"])
@pytest.mark.parametrize("make", [small_resnet, small_vgg])
def test_other_libraries_run_the_same_net(make: Any, peer: str) -> None:
    found, missing = load_peers([peer], threads=1)
    if missing:
        pytest.skip(missing[peer])
    row = run_net(Net("small", make, 2), Ours(1), found, rounds=1)
    assert row.absent == {} and row.pass_name == "net"
    assert {t.peer for t in row.timings} == {"fastconv", peer}
    assert all(t.correct and t.error < 1e-4 for t in row.timings), row.timings
    assert row.macs == 2 * make().macs((None, 32, 32, 3))


def test_a_step_trains_the_same_net() -> None:
    pytest.importorskip("torch")
    found, _ = load_peers(["torch", "im2col"], threads=1)
    row = run_net(Net("small", lambda: mnist_net(seed=0), 4, training=True), Ours(1), found, rounds=1)
    assert {t.peer for t in row.timings} == {"fastconv", "torch"} and row.pass_name == "train"
    assert all(t.correct for t in row.timings) and row.absent["im2col"] == "inference only"


def test_a_net_with_other_weights_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    found, _ = load_peers(["torch"], threads=1)
    monkeypatch.setattr(nets, "torch_net", lambda layers, sample: torch_net(small_vgg().layers, sample))
    row = run_net(Net("small", small_vgg, 1), Ours(1), found, rounds=1)
    assert row.of("fastconv") is not None and row.of("torch") is None


SMALL_TORCH_MODEL = """
import torch
from torch import nn

def net():
    features = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(8, 4, 3, 2)]
    return nn.Sequential(*features, nn.Flatten(), nn.Linear(100, 5))

def image():
    return nn.Sequential(nn.ConvTranspose2d(2, 3, 2, 2), nn.Conv2d(3, 6, 3, groups=3))

def dense():
    return nn.Linear(3, 3)

def pair():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.c = nn.Conv2d(3, 3, 1)
        def forward(self, x):
            return self.c(x), x
    return Pair()

def number():
    return 3

def broken():
    raise OSError("no weights")

constant = 3
"""


@pytest.fixture
def torch_file(tmp_path: Path) -> str:
    pytest.importorskip("torch")
    path = tmp_path / "models_of_mine.py"
    path.write_text(SMALL_TORCH_MODEL)
    return str(path)


@pytest.mark.parametrize("function, channels, macs", [
    ("net", 1, 8 * 9 * 144 + 4 * 72 * 25 + 5 * 100), ("image", 2, 2 * 144 * 12 + 6 * 9 * 22 * 22),
])  # fmt: skip
def test_a_torch_model_of_a_file(
    function: str, channels: int, macs: int, torch_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"bench --torch-model {torch_file}:{function} --input-size 12 --batch 2 --rounds 1".split()
    assert main([*words, "--json"]) == 0
    _, *rows = map(json.loads, capsys.readouterr().out.splitlines())
    assert [row["pass_name"] for row in rows] == ["train", "net"]
    for row, passes in zip(rows, (3, 1), strict=True):
        assert row["shape"]["input"] == [2, channels, 12, 12] and row["macs"] == 2 * passes * macs
        assert Counter(timing["peer"] for timing in row["timings"]) == {"fastconv": 2, "torch": 2}
        assert all(timing.get("correct", True) for timing in row["timings"])
        assert "convolutions swapped" in row["timings"][0]["note"]


def test_a_torch_model_by_name_prints_tables(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    words = ["bench", "--torch-model", "cifar_vgg", "--rounds", "1", "--batch", "2"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "accelerated, training steps" in out and "accelerated, inference" in out and "cifar_vgg, batch 2" in out


@pytest.mark.parametrize("text, said", [
    ("{file}:absent", "has no function 'absent'"), ("{file}:constant", "is no function, but a int"),
    ("{file}:number", "must return a torch.nn.Module, but returned a int"), ("{file}:broken", "OSError: no weights"),
    ("{file}:dense", "nothing to accelerate"), ("{file}:pair", "must return one tensor, but returned a tuple"),
    ("/no/such/file.py:net", "cannot be loaded"), ("no.such.module:net", "cannot be loaded"),
    ("{file}:net --input-size 2", "does not take images of shape (1, 2, 2)"),
])  # fmt: skip
def test_a_torch_model_that_is_none(
    text: str, said: str, torch_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--torch-model", *text.format(file=torch_file).split(), "--rounds", "1"]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1, error


def test_the_torch_models_count_their_multiply_adds() -> None:
    pytest.importorskip("torch")
    found = {model.label: accelerated._macs_and_scores(model) for model in accelerated.select_torch_models()}
    assert found == {
        "CIFAR VGG net, batch 64": (cifar_vgg().macs((None, 32, 32, 3)), (1, 10)),
        "ResNet-18 CIFAR, batch 64": (555_422_720, (1, 10)),  # 3x3 stem at 32 x 32, convolutions, shortcuts, dense
        "VGG-16, batch 1": (15_470_264_320, (1, 1000)),
    }


def test_a_net_by_its_onnx_model() -> None:
    pytest.importorskip("onnx")
    row = run_net(Net("small", small_vgg, 2), Ours(1), [], rounds=1, by_onnx=True)
    ours = row.of("fastconv")
    assert ours is not None and ours.variant == "ONNX"


@pytest.mark.parametrize("first", [False, True])
def test_loading_a_model_is_a_row(first: bool) -> None:
    pytest.importorskip("onnx")
    model = loads.Model("short", lambda: loads._chain("Relu", 5, lambda x: np.maximum(x, 0)))
    row = loads.run_load(model, first, Ours(1), [], rounds=1, seconds=None)
    ours = row.of("fastconv")
    assert ours is not None and ours.correct and ours.seconds > 0 and row.layer == "short" + ", first run" * first
    assert math.isnan(row.share_of_peak) and "short" in group_text("onnx", "load", [row])
    data, x, answer = loads._fan(4)
    assert answer.shape == (1, 12, 3, 3) and len(data) and x.shape == (1, 4, 3, 3)
    labels = [(model.label, first) for model, first in loads.select_loads("Conv")]
    assert labels == [("Conv x 2,000", False), ("Conv x 2,000", True)]


def test_folding_keeps_the_operations() -> None:
    graph = nodes(nets.prepared(small_resnet()))
    kinds = Counter(node.kind for node in graph)
    assert kinds == {"conv": 53, "norm": 53, "relu": 49, "max_pool": 1, "add": 16, "mean": 1, "dense": 1, "softmax": 1}
    less = Counter(node.kind for node in fused(graph))
    assert less == {"conv": 53, "relu": 16, "max_pool": 1, "add": 16, "mean": 1, "dense": 1, "softmax": 1}


def test_memory_beside_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_vgg()
    # The second group's convolution: 16 x 16 pixels of 64 and of 128 channels; the first has 3 and 64 of 32 x 32.
    assert memory.largest_pair(model) == 4 * max(32 * 32 * (64 + 3), 32 * 32 * 64 + 16 * 16 * 64, 16 * 16 * 192)
    monkeypatch.setattr(memory, "STATUS", Path("/no/such/file"))
    report = new_report(Ours(1), [], {}, {})
    report.memory = [memory.peak_memory("VGG-16")]
    assert "not measured" in memory_lines(report)[0]
    report.memory = [{"net": "N", "peak_bytes": 3e6, "pair_bytes": 2e6, "weight_bytes": 1e6, "packed_bytes": 4e6}]
    assert "3.0 MB, 1.50 of its largest pair" in memory_lines(report)[0]


def test_networks_are_selected_by_name() -> None:
    assert [net.label for net in nets.select_nets(True, True, "ResNet-50")] == [
        "ResNet-50, batch 1", "ResNet-50, batch 8",
    ]  # fmt: skip
    assert all(net.training for net in nets.select_nets(False, True))


# ---- reports -------------------------------------------------------------------------------------------------------


def test_summary_counts_what_is_counted() -> None:
    rows = [
        row("first", {"fastconv": 1.0, "torch": 0.001}, counted=False),
        row("a", {"fastconv": 1.0, "torch": 8.0, "ncnn": 2.0, "im2col": 0.5}),
        row("b", {"fastconv": 1.0, "torch": 8.0}, count=3),
    ]
    (mean,) = summaries(rows)
    assert mean.layers == 2 and mean.over_best == pytest.approx(4.0)
    assert (mean.least, mean.least_layer) == (2.0, "a")
    assert mean.over == pytest.approx({"torch": 8.0, "ncnn": 2.0, "im2col": 0.5})
    assert network_seconds(rows[1:], "torch") == 32.0
    assert network_seconds(rows, "ncnn") is None


def test_results_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "results.jsonl"
    arguments = ["--set", "misc", "--only", "tiny", "--pass", "all", "--against", "im2col,reference", "--rounds", "1"]
    assert main(["bench", *arguments, "--threads", "1", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "tiny 8→8 @8" in printed and "Geometric mean" in printed

    text = path.read_text(encoding="utf-8")
    run, *rows = map(json.loads, text.splitlines())
    assert run["schema"] == 2 and run["threads"] == 1 and run["layout"] == "NHWC"
    assert set(run["machine"]) == {"cpu", "cores", "system", "copy_gbytes"} and run["machine"]["copy_gbytes"] > 0
    assert run["fastconv"]["isa"] and "reference" in run["versions"]
    assert [stored["pass_name"] for stored in rows] == list(PASSES) and "tiny 8→8 @8" in text
    forward = rows[0]
    assert forward["macs"] == 8 * 8 * 8 * 8 * 9 and forward["shape"]["input"] == [1, 8, 8, 8]
    assert set(forward["timings"][0]) == {"peer", "variant", "seconds", "fastest", "samples", "error", "note"}
    for timing in forward["timings"]:  # measured figures, and nothing that follows from them
        assert 0 < timing["fastest"] <= timing["seconds"] and timing["samples"] >= 1 and "gflops" not in timing
    assert "ratio" not in text and "summary" not in text

    (report,) = read(path)
    assert [r.layer for r in report.rows] == ["tiny 8→8 @8"] * 4 and json_lines(report) == text
    assert json_lines(report, ascii_only=True).isascii()
    (mean,) = summaries(report.rows[:1])
    assert mean.over_best > 0 and mean.share_of_peak == pytest.approx(report.rows[0].share_of_peak)


def test_a_results_file_keeps_what_is_out_of_the_ordinary(tmp_path: Path) -> None:
    wrong = replace(row("b\u2028", {"fastconv": 1.0}), absent={"ncnn": "failed: ×"}, outside=0.5, counted=False)
    wrong.timings.append(Timing("torch", "", 1.0, 1 / 3, 2, math.inf, False, "a note"))
    net = {"net": "N", "peak_bytes": None, "why": "not known"}
    rows = [row("a", {"fastconv": 2.0}, count=3), wrong]
    report = replace(new_report(Ours(1), [], {}, {}), fastconv={"isa": "avx2"}, rows=rows, memory=[net])
    path = tmp_path / "results.jsonl"
    path.write_text(json_lines(report) * 2, encoding="utf-8")  # two runs, one after the other
    for again in read(path):
        assert again.rows[1].timings[1].fastest == pytest.approx(1 / 3, rel=1e-6)
        wrong.timings[1] = replace(wrong.timings[1], fastest=again.rows[1].timings[1].fastest)
        assert again == report
    assert len(read(path)) == 2


@pytest.mark.parametrize("text, said", [('{"schema": 0}', "schema 0"), ('{"layer": "a"}', "schema None")])
def test_a_file_of_another_schema_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "old.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        read(path)


# ---- the page of the documentation ---------------------------------------------------------------------------------

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def make_page() -> Any:
    spec = importlib.util.spec_from_file_location("make_page", ROOT / "bench" / "make_page.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "path", sorted((ROOT / "bench" / "results").glob("*/*")), ids=lambda path: "/".join(path.parts[-2:])
)
def test_results_of_the_tree_are_as_written(path: Path) -> None:
    reports = read(path)
    assert "".join(map(json_lines, reports)) == path.read_text(encoding="utf-8")
    measured = Counter((r.set, r.pass_name, r.layer) for report in reports for r in report.rows)
    assert measured and set(measured.values()) == {1}, "a layer twice: which is meant?"
    for (set_name, pass_name), count in Counter(key[:2] for key in measured).items():
        assert path.stem.startswith(set_name)
        assert count == len(SETS.get(set_name, [])) or set_name not in SETS, (pass_name, "a part of the set")


def test_the_page_is_that_of_the_results(make_page: Any, tmp_path: Path) -> None:
    assert make_page.main(ROOT / "bench" / "results", tmp_path / "performance.md") == 0
    for name in ("performance.md", "performance.svg"):
        made, kept = ((folder / name).read_text(encoding="utf-8") for folder in (tmp_path, ROOT / "docs"))
        assert made == kept, f"docs/{name} is not what python bench/make_page.py makes"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == make_page.with_table(readme, make_page.load(ROOT / "bench" / "results"))


def test_a_page(make_page: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, target = tmp_path / "results", tmp_path / "docs" / "page.md"
    assert make_page.main(results, target) == 1 and "no results" in capsys.readouterr().out
    report = new_report(Ours(1), [], {}, {})
    forward = [row("a", {"fastconv": 1.0, "torch": 8.0, "ncnn": 2.0}), row("b", {"fastconv": 1.0, "torch": 2.0})]
    gradient = replace(row("a", {"fastconv": 1.0, "torch": 3.0}), pass_name="dw")
    alone = replace(row("a", {"fastconv": 1.0}), pass_name="dx")
    for machine, rows in (("less", forward[:1]), ("more", [*forward, alone, gradient])):
        (results / machine).mkdir(parents=True)
        (results / machine / "vgg16.jsonl").write_text(json_lines(replace(report, rows=rows)), encoding="utf-8")
    assert make_page.main(results, target) == 0
    text = target.read_text(encoding="utf-8")
    opening, more, less = re.split("^## ", text, flags=re.MULTILINE)
    assert "| VGG-16's layers | 2.00× | 4.00× | – | 3.00× | – |" in opening and "(page.svg)" in opening
    assert more.startswith("more\n") and less.startswith("less\n") and "| 2.00× | 8.00× | – | – | – |" in less
    assert "<summary>vgg16, input gradient</summary>" in more
    assert '<details id="more-vgg16-dw">\n<summary>vgg16, weight gradient: 3.00× the best peer, 3.00× torch' in more
    drawn = ElementTree.fromstring((tmp_path / "docs" / "page.svg").read_text(encoding="utf-8"))
    assert [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")] == [
        "more", "less", "VGG-16's layers, forward", "2.00×", "2.00×", "VGG-16's layers, weight gradient", "3.00×",
        "as fast as the best peer",
    ]  # fmt: skip


def test_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from fastconv.bench.plot import save_plot

    report = new_report(Ours(1), [], {}, {})
    report.rows = [row("a", {"fastconv": 1.0, "torch": 8.0}), row("b", {"torch": 8.0})]
    save_plot(report, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--set", "alexnet"], 2, "alexnet"),
        (["--against", "tensorflow"], 2, "tensorflow"),
        (["--threads", "0"], 2, "positive"),
        (["--rounds", "two"], 2, "positive"),
        (["--only", "nothing like it"], 1, "nothing like it"),
        (["--nets", "--only", "AlexNet"], 1, "no network has 'AlexNet'"),
        (["--onnx"], 1, "add --nets"),
        (["--load", "--only", "AlexNet"], 1, "no network has 'AlexNet'"),
        (["--json", "/no/such/folder/file.json"], 1, "does not exist"),
        (["--torch-model", "alexnet"], 1, "no PyTorch model is named 'alexnet'; there are vgg11, "),
        (["--batch", "2"], 1, "are for --torch-model"),
        (["--input-size", "8"], 1, "are for --torch-model"),
        (["--torch-model", "vgg16", "--input-size", "8by8"], 2, "8by8"),
    ],
)
def test_bad_usage_is_one_line(
    arguments: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments]) == status
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
