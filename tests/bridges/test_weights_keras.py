"""Keras' nets of every form in every format that Keras 3 writes: the answers are Keras', or the file is refused.

tests/data/keras/nets.py made the files; what has no HDF5 in it is tested without h5py.
"""

from __future__ import annotations

import importlib.util
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastconv import ConvError, layers
from fastconv.layers import Layer
from fastconv.models import Sequential
from fastconv.weights import keras, load_weights
from fastconv.weights.graph import KerasGraph, Unclear, references, snake_case
from fastconv.weights.matching import match, targets
from fastconv.weights.source import Source, SourceLayer, Stored, counted

DATA = Path(__file__).parents[1] / "data" / "keras"
COUNTED, ARCHIVE, LISTED = FORMATS = (".weights.h5", ".keras", ".h5")
Net = Callable[[], list[Layer]]


def nets_module() -> Any:
    spec = importlib.util.spec_from_file_location("keras_nets", DATA / "nets.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NETS = nets_module()


def conv(**options: Any) -> Layer:
    return layers.Conv2D(4, 3, padding="same", **options)


def convs(count: int) -> list[Layer]:
    return [conv() for _ in range(count)]


def chain(*inner: Layer) -> Layer:
    return Sequential(list(inner))


def residual(shortcut: list[Layer] | None) -> list[Layer]:
    return [conv(), layers.Residual([conv(), layers.ReLU(), conv()], shortcut, activation="relu"), conv()]


def bottleneck() -> list[Layer]:
    body = [layers.Conv2D(4, 1), layers.BatchNormalization(), layers.Conv2D(8, 1), layers.BatchNormalization()]
    return [layers.Residual(body, [layers.Conv2D(8, 1), layers.BatchNormalization()], activation="relu")]


def kinds() -> list[Layer]:
    def up() -> Layer:
        return layers.Conv2DTranspose(4, 3, padding="same")

    return [
        conv(), up(), layers.DepthwiseConv2D(3, padding="same"), conv(), layers.SeparableConv2D(4, 3, padding="same"),
        layers.BatchNormalization(), up(), layers.SeparableConv2D(4, 3, padding="same"),
        layers.BatchNormalization(center=False), layers.BatchNormalization(center=False), layers.Flatten(),
        layers.Dense(4), layers.Dense(4),
    ]  # fmt: skip


# For each net those of ours into which its weights go, and the formats that tell so; the others are refused.
ALL, GRAPH, NONE = FORMATS, (ARCHIVE, LISTED), ()
LOADED: dict[str, list[tuple[Net, tuple[str, ...]]]] = {
    "flat": [(lambda: convs(12), ALL), (lambda: [*convs(5), chain(*convs(6)), conv()], ALL)],
    "named against the alphabet": [
        (lambda: convs(3), ALL), (lambda: [conv(name=name) for name in ("zz", "mm", "aa")], ALL)
    ],
    "of a name": [(lambda: convs(2), GRAPH)],  # a class of the user's, for all that .weights.h5 says
    "of a name, numbered": [(lambda: convs(2), ALL)],
    "nested first": [(lambda: [chain(*convs(2)), conv()], ALL), (lambda: convs(3), GRAPH)],
    "nested last": [(lambda: [conv(), chain(*convs(2))], ALL), (lambda: convs(3), GRAPH)],
    "nested between": [(lambda: [conv(), chain(*convs(3)), conv()], ALL), (lambda: convs(5), GRAPH)],
    "nested deep": [
        (lambda: [chain(conv(), chain(conv(), chain(*convs(2)))), conv()], ALL), (lambda: convs(5), GRAPH)
    ],
    "nested twice": [
        (lambda: [chain(*convs(2)), conv(), chain(*convs(2)), conv()], ALL), (lambda: convs(6), GRAPH)
    ],
    "nested unlike": [
        (lambda: [chain(conv()), chain(*convs(2))], ALL), (lambda: [chain(*convs(2)), chain(conv())], GRAPH),
        (lambda: convs(3), ALL),
    ],
    "functional": [(lambda: convs(3), ALL)],
    "functional nested": [(lambda: [chain(*convs(2)), conv(), chain(*convs(2))], GRAPH), (lambda: convs(5), GRAPH)],
    "names of counts": [(lambda: convs(2), ALL)],
    "residual": [(lambda: residual(None), ALL)],
    "residual, projected": [(lambda: residual(convs(1)), GRAPH)],
    "residual, projected first": [(lambda: residual(convs(1)), GRAPH)],
    "bottleneck": [(bottleneck, GRAPH)],
    "used twice": [(lambda: convs(3), NONE)],
    "model used twice": [(lambda: [chain(*convs(2)), chain(*convs(2))], NONE)],
    "in two models": [
        (lambda: [chain(*convs(2)), chain(*convs(2))], (LISTED,)), (lambda: [chain(*convs(2)), chain(conv())], NONE)
    ],
    "frozen": [(lambda: [chain(*convs(3)), conv()], ALL), (lambda: convs(4), GRAPH)],
    "kinds": [(kinds, ALL)],
    "scales and shifts": [
        (lambda: [layers.BatchNormalization(center=False), layers.BatchNormalization(scale=False)], GRAPH)
    ],
    "other normalisation": [(lambda: [conv(), layers.BatchNormalization(center=False, scale=False)], NONE)],
    "own": [(lambda: convs(2), NONE)],
    "own, numbered": [(lambda: convs(12), (COUNTED,))],
    "own, made in another order": [(lambda: convs(2), NONE)],
}  # fmt: skip


def file_of(name: str, form: str, folder: Path) -> Path | None:
    with zipfile.ZipFile(DATA / "nets.zip") as archive:
        if f"{name}{form}" not in archive.namelist():
            return None
        path = folder / f"net{form}"
        path.write_bytes(archive.read(f"{name}{form}"))
        return path


def answer(name: str) -> Any:
    with zipfile.ZipFile(DATA / "nets.zip") as archive:
        return np.load(io.BytesIO(archive.read(f"{name}.npy")))


@pytest.mark.parametrize("name", LOADED)
def test_nets_of_keras(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("h5py")
    monkeypatch.setattr(keras, "opened", keras.opened_here)  # a process for every file would be slow
    for form in FORMATS:
        path = file_of(name, form, tmp_path)
        if path is None:
            continue
        for net, formats in LOADED[name]:
            model = Sequential(net(), NETS.SHAPE, seed=3)
            if form not in formats:
                before = model.get_weights()
                with pytest.raises(ConvError, match=r"guess|does not hold"):
                    load_weights(model, path)
                for old, now in zip(before, model.get_weights(), strict=True):
                    np.testing.assert_array_equal(old, now)
                assert not load_weights(model, path, strict=False).complete
                continue
            assert load_weights(model, path).complete, form
            np.testing.assert_allclose(model.forward(NETS.given()), answer(name), rtol=1e-4, atol=1e-4, err_msg=form)


def test_the_process_apart_tells_the_graph_too(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    for form in GRAPH:
        path = file_of("bottleneck", form, tmp_path)
        assert path is not None
        model = Sequential(bottleneck(), NETS.SHAPE, seed=3)
        assert load_weights(model, path).complete
        np.testing.assert_allclose(model.forward(NETS.given()), answer("bottleneck"), rtol=1e-4, atol=1e-4)


def test_every_net_is_tried() -> None:
    with zipfile.ZipFile(DATA / "nets.zip") as archive:
        assert {Path(name).stem for name in archive.namelist() if name.endswith(".npy")} == set(LOADED)


# ---- configurations, without a file --------------------------------------------------------------------------------


def layer(name: str, *calls: Any, kind: str = "Conv2D", inner: Any = None) -> dict[str, Any]:
    """A member of a functional model, called on the results (name, node) of others."""
    nodes = [
        {"args": [[{"class_name": "__keras_tensor__", "config": {"keras_history": [*call, 0]}} for call in called]]}
        for called in calls
    ]
    config = {"name": name} if inner is None else {"name": name, **inner["config"]}
    class_name = kind if inner is None else inner["class_name"]
    return {"class_name": class_name, "config": config, "name": name, "inbound_nodes": nodes}


def functional(ends: Any, *members: dict[str, Any]) -> dict[str, Any]:
    config = {"layers": list(members), "input_layers": [["x", 0, 0]], "output_layers": ends}
    return {"class_name": "Functional", "config": config}


def befores(config: Any) -> dict[str, set[str]]:
    """The leaves before each leaf, by name."""
    found = KerasGraph(config).leaves
    names = ["/".join(leaf.path) for leaf in found]
    return {
        name: {names[i] for i in range(len(found)) if leaf.before >> i & 1}
        for name, leaf in zip(names, found, strict=True)
    }


def test_the_graph_of_branches() -> None:
    net = functional(
        [["end", 0, 0]], layer("x", kind="InputLayer"), layer("end", [["sum", 0]]), layer("b", [["a", 0]]),
        layer("sum", [["b", 0], ["side", 0]], kind="Add"), layer("side", [["x", 0]]), layer("a", [["x", 0]]),
    )  # fmt: skip
    assert befores(net) == {
        "a": set(), "side": set(), "b": {"a"}, "sum": {"a", "b", "side"}, "end": {"a", "b", "side", "sum"}
    }  # fmt: skip


@pytest.mark.parametrize("number", [0, 1])
def test_the_call_of_a_functional_model_has_either_number(number: int) -> None:
    """Keras counts its own node in some places and versions, and not in others."""
    inner = functional([["b", 0, 0]], layer("x", kind="InputLayer"), layer("a", [["x", 0]]), layer("b", [["a", 0]]))
    net = functional(
        [["end", 0, 0]], layer("x", kind="InputLayer"), layer("first", [["x", 0]]),
        layer("model", [["first", 0]], inner=inner), layer("end", [["model", number]]),
    )  # fmt: skip
    assert befores(net)["end"] == {"first", "model/a", "model/b"}


def test_layers_used_twice_are_told() -> None:
    net = functional(
        [["a", 1, 0]], layer("x", kind="InputLayer"), layer("a", [["x", 0]], [["b", 0]]), layer("b", [["a", 0]])
    )
    assert KerasGraph(net).shared == [("a",)]


def test_the_two_ways_of_writing_calls() -> None:
    assert list(references([["a", 0, 0, {}], ["b", 2, 0, {"y": ["c", 1, 0]}]])) == [("a", 0), ("b", 2), ("c", 1)]
    assert list(references({"args": [1, None, {"class_name": "Other", "config": {}}]})) == []


@pytest.mark.parametrize(
    "config",
    [
        None, {}, {"class_name": "Net", "config": {"layers": []}}, functional([["a", 0, 0]]),
        functional([["a", 0, 0]], layer("a", [["b", 0]]), layer("b", [["a", 0]])),
        functional([["a", 0, 0]], layer("a"), layer("a")),
        functional([], layer("a")),
    ],
)  # fmt: skip
def test_what_tells_no_graph(config: Any) -> None:
    with pytest.raises(Unclear):
        KerasGraph(config)


def test_a_configuration_that_claims_to_be_deep_or_long() -> None:
    deep: Any = {"class_name": "Sequential", "config": {"name": "n", "layers": []}}
    for _ in range(100):
        deep = {"class_name": "Sequential", "config": {"name": "n", "layers": [deep]}}
    with pytest.raises(Unclear):
        KerasGraph(deep)
    long = [{"class_name": "Dense", "config": {"name": str(i)}} for i in range(5000)]
    with pytest.raises(Unclear):
        KerasGraph({"class_name": "Sequential", "config": {"layers": long}})
    backwards = [layer(f"l{i}", [[f"l{i + 1}", 0]]) for i in range(300)]
    with pytest.raises(Unclear):
        KerasGraph(functional([["l0", 0, 0]], *backwards, layer("l300")))
    json.dumps(long)  # it is one that a file can have


def test_classes_as_keras_writes_them() -> None:
    for name, written in (("Conv2D", "conv2d"), ("Conv2DTranspose", "conv2d_transpose"), ("ReLU", "re_lu"),
                          ("BatchNormalization", "batch_normalization"), ("SeparableConv2D", "separable_conv2d"),
                          ("MyNet", "my_net")):  # fmt: skip
        assert snake_case(name) == written
    assert counted("conv2d_10") == ("#conv2d", 10) and counted("conv2d") == ("#conv2d", 0)


def source(*paths: str, before: list[int] | None = None) -> Source:
    """Convolutions at the counted paths of a file of Keras."""
    shapes = {"kernel": (3, 3, 4, 4), "bias": (4,)}
    arrays = {role: Stored(shape, np.dtype(np.float32), lambda: np.zeros(1)) for role, shape in shapes.items()}
    made = [SourceLayer(path, "conv2d", arrays, tuple(map(counted, path.split("/")))) for path in paths]
    return Source(made, nested=True, before=before)


def paired(net: list[Layer], given: Source) -> tuple[list[str], bool]:
    """The file's names in the order of the net, and whether that was guessed."""
    matching = match(targets(Sequential(net, (8, 8, 4))), given)
    return [given.layers[theirs].name for _, theirs in sorted(matching.pairs)], bool(matching.guessed)


def test_models_in_models_without_a_file() -> None:
    nested = ["conv2d", "sequential/conv2d", "sequential/conv2d_1", "sequential_1/conv2d", "sequential_1/conv2d_1"]
    ours: list[Layer] = [chain(*convs(2)), conv(), chain(*convs(2))]
    assert paired(ours, source(*nested)) == ([nested[1], nested[2], nested[0], nested[3], nested[4]], False)
    assert paired(convs(5), source(*nested))[1]
    of_two_classes = ["functional/conv2d", "sequential/conv2d"]
    assert paired([chain(conv()), chain(conv())], source(*of_two_classes))[1]
    assert paired([chain(conv()), chain(*convs(2))], source(*nested[3:], "sequential/conv2d"))[1] is False
    assert paired([chain(*convs(2)), chain(conv())], source(*nested[3:], "sequential/conv2d"))[1]


def test_graphs_without_a_file() -> None:
    block: list[Layer] = [conv(), layers.Residual(convs(2), convs(1)), conv()]
    listed = ["start", "side", "a", "b", "end"]
    before = [0, 1, 1, 0b101, 0b1111]
    assert paired(block, source(*listed, before=before)) == (["start", "a", "b", "side", "end"], False)
    assert paired(block, source(*listed, before=[0, 1, 0b11, 0b111, 0b1111]))[1]  # a chain
    assert paired([layers.Residual(convs(1), convs(1))], source("a", "b", before=[0, 0]))[1]  # which is which?
    assert paired(convs(3), source("c", "b", "a", before=[0b110, 0b100, 0])) == (["a", "b", "c"], False)
