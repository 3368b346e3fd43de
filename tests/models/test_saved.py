"""Whole nets in files: what load_model makes again, exactly; what it refuses."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nets import MADE, data, two_heads

import fastconv
from fastconv import ConvError, ConvTypeError, Input, Model, Sequential, layers, load_model, losses, optimizers
from fastconv.layers.initializers import Reshaped, zeros

SUFFIXES = ["npz", "safetensors"]


@pytest.fixture(params=SUFFIXES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "safetensors":
        pytest.importorskip("safetensors")
    return tmp_path / f"net.{request.param}"


def of(values: list[Any]) -> Any:
    return values if len(values) > 1 else values[0]


def assert_alike(one: Any, other: Any) -> None:
    names = [[name for name, _ in net.named_parameters()] for net in (one, other)]
    assert names[0] == names[1]
    for ours, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def every_layer() -> Sequential:
    """Layers with arguments of every kind, dropout that is in the middle of its draws."""
    return Sequential(
        [
            layers.Conv2D(4, (3, 2), (1, 2), padding=((1, 1), (0, 2)), activation="gelu",
                          kernel_initializer="he_normal"),
            layers.BatchNormalization(momentum=0.9, epsilon=1e-4, scale=False), layers.ReLU(max_value=6),
            layers.LeakyReLU(0.1), layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="deep"),
            layers.SeparableConv2D(4, 3, padding="same_lower", depthwise_initializer=zeros), layers.Dropout(0.25),
            layers.Residual([layers.Conv2D(4, 3, padding="same", activation="relu")], activation="swish", name="block"),
            Sequential([layers.TiledConv2D(4, 2, tiles=(2, 1)), layers.ReLU(1.5)]),
            layers.LocalResponseNormalization(3, average=True), layers.ZeroPadding2D(((1, 0), (0, 1))),
            layers.Cropping2D(1), layers.UpSampling2D((2, 1), interpolation="bilinear"),
            layers.Conv2DTranspose(2, 3, 2, "same", output_padding=1), layers.AveragePooling2D(2, padding="same"),
            layers.Flatten(), layers.Reshape((2, -1)), layers.Flatten(), layers.Dropout(0.5, seed=3),
            layers.Dense(3, activation=layers.ReLU(negative_slope=0.3).function, use_bias=False),
            layers.Softmax(),
        ],
        (9, 8, 2), name="all_of_them", seed=4,
    )  # fmt: skip


@pytest.mark.parametrize("name", [*MADE, "every_layer"])
def test_training_goes_on_with_the_bits_it_would_have_had(path: Path, name: str) -> None:
    net: Any = every_layer() if name == "every_layer" else MADE[name]()
    random = np.random.default_rng(0)
    if name == "every_layer":
        x, y = [random.random((8, 9, 8, 2), np.float32)], [random.random((8, 3), np.float32)]
    else:
        x, y = data(net, 8)
    rate = optimizers.CosineDecay(0.01, 50, alpha=0.1, warmup_target=0.02, warmup_steps=3)
    weights = None if len(y) == 1 else [1.0, 0.5]
    net.compile(optimizers.AdamW(rate, weight_decay=0.01, beta_1=0.8), "mse", loss_weights=weights)
    net.optimizer.exclude_from_weight_decay(["bias"])
    net.fit(of(x), of(y), 4, 2, verbose=0, seed=0)
    net.save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other = load_model(path)
    assert type(other) is type(net) and other.name == net.name and other.optimizer.iterations == 4  # type: ignore[union-attr]
    assert repr(other.optimizer) == repr(net.optimizer)
    assert_alike(net, other)
    assert str(other.table()) == str(net.table())
    histories = [made.fit(of(x), of(y), 3, 2, verbose=0, seed=1).history["loss"] for made in (net, other)]
    assert histories[0] == histories[1]
    assert_alike(net, other)
    predicted = [made.predict(of(x)) for made in (net, other)]
    for one, two in zip(*(made if isinstance(made, list) else [made] for made in predicted), strict=True):
        np.testing.assert_array_equal(one, two)
    other.save(path)  # and again
    assert_alike(load_model(path), net)


@pytest.mark.parametrize("optimizer", [
    optimizers.SGD(0.1, momentum=0.9, nesterov=True), optimizers.SGD(optimizers.ExponentialDecay(0.1, 3, 0.5, True)),
    optimizers.Adam(optimizers.PiecewiseConstantDecay([2, 4], [0.1, 0.01, 0.001]), epsilon=1e-3),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("loss", [
    losses.SparseCategoricalCrossentropy(from_logits=True, label_smoothing=0.1), losses.CategoricalCrossentropy(),
    losses.BinaryCrossentropy(from_logits=True),
], ids=lambda loss: loss.name)  # fmt: skip
def test_optimisers_schedules_and_losses(tmp_path: Path, optimizer: Any, loss: Any) -> None:
    net = Sequential([layers.Dense(3)], (4,), seed=0)
    x, labels = np.random.default_rng(0).random((6, 4), np.float32), np.array([0, 1, 2] * 2)
    y = labels if "sparse" in loss.name else np.eye(3)[labels]
    net.compile(optimizer, loss, ["accuracy"])
    net.optimizer.resume(0, [])  # type: ignore[union-attr]  # it was another net's
    net.fit(x, y, 2, 1, verbose=0, seed=0)
    if not callable(optimizer.learning_rate):
        optimizer.learning_rate /= 2  # as a callback would
    net.save(tmp_path / "net.npz")
    other = load_model(tmp_path / "net.npz")
    assert other.evaluate(x, y) == net.evaluate(x, y)
    for made in (net, other):
        made.fit(x, y, 2, 2, verbose=0, seed=1)
    assert_alike(net, other)


def test_what_changed_after_it_was_made_is_kept(path: Path) -> None:
    net = two_heads()
    net.layers[0].trainable = False
    net.compile("sgd", ["categorical_crossentropy", None], {"kind": ["accuracy"]}, loss_weights={"kind": 3.0})
    net.save(path)
    other = load_model(path)
    assert [layer.trainable for layer in other.layers] == [layer.trainable for layer in net.layers]
    assert other.input_names == net.input_names and other.output_names == ["kind", "place"]
    assert other.loss[1] is None and other._objective.weights == [3.0, 1.0]  # type: ignore[union-attr]
    assert isinstance(other, Model) and other.get_layer("kind").output.shape == (None, 3)
    bare = load_model(path, compile=False)
    assert bare.optimizer is None
    assert_alike(bare, net)


def test_nets_without_known_sizes_frozen_calls_and_kept_ties(path: Path) -> None:
    image = Input((None, None, 2), dtype="float64", name="photo")
    conv = layers.Conv2D(2, 3, padding="same", dtype="float64")
    tower = Sequential([layers.BatchNormalization(dtype="float64"), conv])
    x = layers.Add(dtype="float64")([tower(image, training=False), conv(image)])
    net = Model(image, [x, layers.GlobalAveragePooling2D(dtype="float64")(x)], seed=0)
    net.predict(np.random.default_rng(0).random((1, 5, 6, 2)))
    net.save(path)
    other = load_model(path)
    assert other.dtype == np.float64 and other.input_names == ["photo"] and len(other.get_weights()) == 6
    assert isinstance(other, Model) and other.inputs[0].shape == (None, None, None, 2)
    sample = np.random.default_rng(1).random((2, 7, 4, 2))
    for one, two in zip(net.forward(sample, True), other.forward(sample, True), strict=True):
        np.testing.assert_array_equal(one, two)
    assert_alike(net, other)  # the frozen call left the statistics alone


def test_weights_alone_and_into_a_net_that_there_is(path: Path) -> None:
    net, other = two_heads(seed=1), two_heads(seed=2)
    x, y = data(net)
    net.compile("adam", "mse")
    net.fit(x[0], y, verbose=0)
    net.save(path)
    other.load(path)
    assert_alike(net, other)
    assert other.optimizer is None
    net.save_weights(path)
    other = two_heads(seed=3)
    other.load(path)
    assert_alike(net, other)
    with pytest.raises(ConvError, match="weights alone"):
        load_model(path)


def test_old_files_of_weights_still_load(tmp_path: Path) -> None:
    net, other = two_heads(seed=1), two_heads(seed=2)
    np.savez(tmp_path / "old.npz", **{name: parameter.array for name, parameter in net.named_parameters()})
    other.load(tmp_path / "old.npz")
    assert_alike(net, other)


def test_the_file_is_arrays_and_text(path: Path) -> None:
    net = two_heads()
    net.compile("adam", "mse")
    net.fit(data(net)[0][0], data(net)[1], verbose=0)
    net.save(path)
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            text = archive.read("architecture.json").decode()
        with np.load(path, allow_pickle=False) as arrays:
            assert {"kind/kernel", "@optimizer/0/kind/kernel", "@optimizer/1/kind/kernel"} <= set(arrays)
    else:
        raw = path.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        text = json.loads(raw[8 : 8 + length])["__metadata__"]["fastconv"]
    told = json.loads(text)
    assert told["format"] == 1 and told["net"]["class"] == "Model" and told["training"]["iterations"] == 1


# ---- the caller's own ------------------------------------------------------------------------------------------------


class Scaled(layers.Dense):
    """A layer with an argument of its own."""

    def __init__(self, factor: float, units: int = 2, **options: Any) -> None:
        super().__init__(units, **options)
        self.factor = factor

    def forward(self, x: Any, training: bool = False) -> Any:
        return super().forward(np.asarray(x) * self.factor, training)


class Cubed(losses.MeanSquaredError):
    name = "cubed"


def spread(outputs: Any, targets: Any) -> float:
    return float(outputs.std())


def test_layers_losses_and_metrics_of_the_callers_own(path: Path) -> None:
    net = Sequential([Scaled(3.0, units=4), layers.Dense(1)], (2,), seed=0)
    x, y = np.random.default_rng(0).random((4, 2), np.float32), np.ones((4, 1), np.float32)
    net.compile("sgd", Cubed(), [spread])
    net.fit(x, y, verbose=0)
    net.save(path)
    with pytest.raises(ConvError, match=r"'Scaled'.*custom_objects"):
        load_model(path)
    with pytest.raises(ConvError, match=r"'Cubed'.*custom_objects"):
        load_model(path, {"Scaled": Scaled})
    other = load_model(path, {"Scaled": Scaled, "Cubed": Cubed, "spread": spread})
    assert other.evaluate(x, y) == net.evaluate(x, y)
    assert load_model(path, {"Scaled": Scaled}, compile=False).layers[0].factor == 3  # type: ignore[attr-defined]
    with pytest.raises(ConvTypeError, match="custom_objects"):
        load_model(path, [Scaled])  # type: ignore[arg-type]


def test_initializers_are_left_out_and_what_cannot_be_told_is_said(tmp_path: Path) -> None:
    own = Sequential([layers.Dense(2, kernel_initializer=Reshaped(zeros, (2, 2)))], (2,))
    own.save(tmp_path / "own.npz")
    assert_alike(load_model(tmp_path / "own.npz"), own)
    function = layers.activations.Function("mine", lambda x: x, lambda grad, y: grad, True)  # type: ignore[attr-defined]
    net = Sequential([layers.Dense(2, activation=function)], (2,), seed=0)
    with pytest.warns(UserWarning, match="an activation of the caller's own"):
        net.save(tmp_path / "net.npz")
    with pytest.raises(ConvError, match=r"weights alone.*'mine'"):
        load_model(tmp_path / "net.npz")
    again = Sequential([layers.Dense(2, activation=function)], (2,), seed=1)
    again.load(tmp_path / "net.npz")
    assert_alike(net, again)
    other = Sequential([layers.Dense(2)], (2,))
    other.compile(optimizers.SGD(lambda step: 0.1), "mse")
    with pytest.warns(UserWarning, match="uncompiled"):
        other.save(tmp_path / "other.npz")
    assert load_model(tmp_path / "other.npz").optimizer is None


# ---- hostile files --------------------------------------------------------------------------------------------------


def rewritten(path: Path, change: Any) -> None:
    """The archive with another text."""
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    text = change(json.loads(held["architecture.json"]))
    held["architecture.json"] = text if isinstance(text, bytes) else json.dumps(text).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in held.items():
            archive.writestr(name, content)


def setting(*keys: Any, to: Any) -> Any:
    def change(told: Any) -> Any:
        at = told
        for key in keys[:-1]:
            at = at[key]
        at[keys[-1]] = to
        return told

    return change


DEEP: Any = []
for _ in range(300):
    DEEP = [DEEP]
HOSTILE: list[tuple[Any, str]] = [
    (lambda told: b"{" * 100, "damaged"), (lambda told: b"[" * 100_000, "nested|damaged"), (lambda told: [], "form"),
    (lambda told: b"\xff\xfe", "cannot be read"),
    (setting("format", to=2), "newer"), (setting("net", to={}), "damaged"),
    (setting("net", to={"same": 0}), "damaged"), (setting("net", to={"same": -1}), "-1"),
    (setting("net", "layers", 0, "class", to="System"), "custom_objects"),
    (setting("net", "layers", 0, "class", to="Layer"), "custom_objects"),
    (setting("net", "layers", 0, "class", to="__import__"), "custom_objects"),
    (setting("net", "layers", 0, "arguments", to=[]), "by name"),
    (setting("net", "layers", 0, "arguments", "filters", to=10**30), "filters"),
    (setting("net", "layers", 0, "arguments", "filters", to=10**12), "shape"),
    (setting("net", "layers", 0, "arguments", "filters", to=None), "filters"),
    (setting("net", "layers", 0, "arguments", "kernel_size", to=DEEP), "kernel_size"),
    (setting("net", "layers", 0, "arguments", "surprise", to=1), "surprise"),
    (setting("net", "layers", 0, "arguments", "activation", to={"function": "eval"}), "damaged"),
    (setting("net", "layers", 0, "arguments", "activation", to={"function": "leaky_relu", "arguments": [[]]}), "flo"),
    (setting("net", "layers", 0, "name", to=7), "no name"),
    (setting("net", "layers", 0, "same", to=0), "itself|damaged"),
    (setting("net", "calls", 0, 1, to=[99]), "damaged"), (setting("net", "calls", 0, 1, to=["0"]), "'0'"),
    (setting("net", "calls", 0, 0, to=1.5), "1.5"), (setting("net", "outputs", to=[]), "at least one"),
    (setting("net", "inputs", 0, "shape", to=[10**15] * 3), "."),
    (setting("net", "inputs", 0, "shape", to="xx"), "tuple"),
    (setting("net", "dtype", to="object"), "dtype"), (setting("shapes", to=[]), "damaged"),
    (setting("training", "iterations", to=-1), "-1"),
    (setting("training", "slots", "kind/kernel", to=10**9), "damaged"),
    (setting("training", "slots", "nobody/kernel", to=1), "nobody"),
    (setting("training", "optimizer", "class", to="Popen"), "Popen"),
    (setting("training", "optimizer", "arguments", "learning_rate", to="fast"), "learning_rate"),
    (setting("training", "optimizer", "arguments", "learning_rate", to={"class": "System"}), "System"),
    (setting("training", "losses", to=[]), "2 outputs"), (setting("training", "loss_weights", to=[1]), "2 outputs"),
    (setting("training", "metrics", to=[["system"], []]), "custom_objects"),
    (setting("training", "slots", to={}), "not in the model"), (setting("net", "precision", to="int4"), "precision"),
    (setting("net", "layers", 0, "precision", to=[]), "precision"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_texts_are_refused_with_a_reason(tmp_path: Path, number: int) -> None:
    change, words = HOSTILE[number]
    path = tmp_path / "net.npz"
    net = two_heads()
    net.compile("adam", "mse")
    net.fit(data(net)[0][0], data(net)[1], verbose=0)
    net.save(path)
    rewritten(path, change)
    with pytest.raises((ConvError, ConvTypeError), match=words) as caught:
        load_model(path)
    assert "net.npz" in str(caught.value)


def test_damaged_files_are_refused(path: Path) -> None:
    net = two_heads()
    net.save(path)
    whole = path.read_bytes()
    for length in (0, 3, 100, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:length])
        with pytest.raises(ConvError, match=r"cannot be read|damaged"):
            load_model(path)
    random = np.random.default_rng(0)
    for at in random.integers(0, len(whole), 60):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << int(random.integers(0, 8))
        path.write_bytes(bytes(flipped))
        try:
            load_model(path)
        except (ConvError, ConvTypeError):
            continue  # or one weight, or a name, is another
    with pytest.raises(FileNotFoundError):
        load_model(path.with_name("none.npz"))
    with pytest.raises(ConvError, match="must end in"):
        load_model(path.with_name("net.pkl"))
    assert fastconv.load_model is load_model


def test_the_precision_of_a_training_is_kept(path: Path) -> None:
    net = Sequential([layers.Conv2D(4, 1), layers.Flatten(), layers.Dense(2)], input_shape=(4, 4, 3), seed=0)
    net.compile("sgd", "mse", precision="bfloat16")
    net.save(path)
    again = load_model(path)
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 3)).astype(np.float32)
    assert again.precision == "bfloat16" and all(layer.precision == "bfloat16" for layer in again.layers)
    np.testing.assert_array_equal(again.predict(x), net.predict(x))
    assert not np.array_equal(again.compile_inference().run(x), net.predict(x))


def test_the_precision_is_kept_without_the_training(tmp_path: Path) -> None:
    """Whether it is left out, or cannot be told."""
    inner = Sequential([layers.Conv2D(4, 1), layers.Flatten()], name="inner")
    net = Sequential([inner, layers.Dense(2)], input_shape=(4, 4, 3), seed=0)
    net.compile(optimizers.SGD(lambda step: 0.1), "mse", precision="bfloat16")
    with pytest.warns(UserWarning, match="uncompiled"):
        net.save(tmp_path / "net.npz")
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 3)).astype(np.float32)
    for options in ({}, {"compile": False}):
        again: Any = load_model(tmp_path / "net.npz", **options)
        assert again.precision == again.layers[0].precision == again.layers[0].layers[0].precision == "bfloat16"
        np.testing.assert_array_equal(again.predict(x), net.predict(x))
        np.testing.assert_array_equal(again.forward(x), net.forward(x))


def test_a_callers_own_accuracy_is_not_taken_for_ours(path: Path) -> None:
    def accuracy(outputs: Any, targets: Any) -> float:
        return 7.0

    x, y = np.zeros((4, 2), np.float32), np.zeros(4, int)
    for metrics, custom, value in (
        ([accuracy], {"accuracy": accuracy}, 7), (["accuracy"], {"accuracy": accuracy}, 1),
    ):  # fmt: skip
        net = Sequential([layers.Dense(3, use_bias=False)], (2,), seed=0)
        net.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True), metrics)
        net.save(path)
        assert load_model(path, custom).evaluate(x, y, return_dict=True)["accuracy"] == value
    net.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True), [accuracy])
    net.save(path)
    with pytest.raises(ConvError, match=r"'accuracy'.*custom_objects"):
        load_model(path)
