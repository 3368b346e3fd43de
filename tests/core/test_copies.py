"""Copies and pickles of models, plans and sessions; what they say of themselves; files that cannot be written."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import ConvError, Sequential, _native, layers, models, optimizers
from fastconv.layers import activations

RNG = np.random.default_rng(0)
IMAGES = RNG.random((6, 12, 12, 3), dtype=np.float32)
LABELS = np.arange(6) % 4
COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    **{f"pickle {n}": lambda value, n=n: pickle.loads(pickle.dumps(value, n)) for n in range(2, 6)},
    "inside others": lambda value: copy.deepcopy({"optimizer": value.optimizer, "net": value})["net"],
}


def every_layer(**options: Any) -> Sequential:
    """A net of every kind of layer and of every kind of activation."""
    body = [layers.Conv2D(8, 3, padding="same"), layers.Dropout(0.25)]
    return Sequential([
        layers.Conv2D(8, 3, padding="same", activation="relu"), layers.BatchNormalization(), layers.LeakyReLU(0.1),
        layers.ReLU(), layers.ReLU(6), layers.ReLU(max_value=3.5), layers.ReLU(negative_slope=0.1),
        *(layers.Activation(name) for name in ("silu", "hardswish", "sigmoid", "tanh", "linear", "leaky_relu")),
        layers.DepthwiseConv2D(3, padding="same"), layers.SeparableConv2D(8, 3, padding="same", activation="swish"),
        layers.Residual(body, activation="relu"), layers.MaxPooling2D(2),
        Sequential([layers.Conv2DTranspose(4, 2, 2, activation="relu6")]), layers.AveragePooling2D(2),
        layers.LocalResponseNormalization(), layers.TiledConv2D(4, 3, 2, padding="same"), layers.UpSampling2D(2),
        layers.ZeroPadding2D(1), layers.GlobalAveragePooling2D(), layers.Reshape((4,)), layers.Dense(4),
        layers.Softmax(),
    ], **options)  # fmt: skip


def trained(optimizer: optimizers.Optimizer) -> Sequential:
    net = every_layer(seed=3)
    net.compile(optimizer, "sparse_categorical_crossentropy", ["accuracy"])
    net.fit(IMAGES, LABELS, batch_size=4, epochs=2, verbose=0, seed=0)
    return net


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: optimizers.SGD(0.01, momentum=0.9), lambda: optimizers.Adam(optimizers.CosineDecay(1e-3, 10)),
        lambda: optimizers.AdamW(optimizers.ExponentialDecay(1e-3, 5, 0.5)),
        lambda: optimizers.Adam(optimizers.PiecewiseConstantDecay([2], [1e-3, 1e-4])),
    ],
    ids=["SGD", "Adam", "AdamW", "steps"],
)  # fmt: skip
def test_a_copy_of_a_model_computes_and_trains_on_as_the_model_does(optimizer, how):
    net = trained(optimizer())
    net.predict(IMAGES)  # prepares plans
    net(IMAGES)  # leaves activations behind
    other = COPIES[how](net)
    assert repr(other) == repr(net) and other.get_weights()[0] is not net.get_weights()[0]
    np.testing.assert_array_equal(other.predict(IMAGES), net.predict(IMAGES))
    for each in (net, other):  # moments, steps, dropout's draws and running statistics go on
        each.fit(IMAGES, LABELS, batch_size=4, epochs=2, verbose=0, seed=1)
    assert net.history is not None and other.history is not None
    assert other.history.history["loss"] == net.history.history["loss"]
    for mine, theirs in zip(net.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_the_copy_and_the_model_do_not_share_weights():
    net = trained(optimizers.SGD(0.1, momentum=0.9))
    other, before = copy.deepcopy(net), net.get_weights()
    other.fit(IMAGES, LABELS, epochs=1, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, net.get_weights(), strict=True))


def test_a_pickle_holds_the_weights_and_little_else():
    net = every_layer(seed=0)
    images = RNG.random((64, 40, 40, 3), dtype=np.float32)
    net(images, True)  # keeps megabytes for the gradient
    net.backward(np.ones((64, 4), np.float32))
    net.predict(images)
    weights = sum(array.nbytes for array in net.get_weights())
    assert len(pickle.dumps(net)) < weights + 50_000


def test_a_model_without_weights_yet_makes_the_same_ones_in_its_copy():
    for net in (every_layer(seed=5, input_shape=(12, 12, 3)), models.mnist_net(seed=1)):
        other = pickle.loads(pickle.dumps(net))
        assert len(pickle.dumps(net)) < 50_000  # shapes alone
        for mine, theirs in zip(net.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    unbuilt = pickle.loads(pickle.dumps(every_layer()))
    assert unbuilt.predict(IMAGES).shape == (6, 4)


def test_the_convolutional_form_of_a_net_without_weights_yet():
    net = models.vgg("A", classes=3, input_shape=(32, 32, 3), seed=1).to_fully_convolutional()
    image = RNG.random((1, 32, 32, 3), dtype=np.float32)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(net))(image), net(image))


@pytest.mark.parametrize("how", ["deepcopy", "pickle 5"])
def test_functions_are_the_same_ones_in_a_copy(how):
    """They are compared by identity: where a softmax ends a net, whether an activation is fused."""
    for function in activations.FUNCTIONS.values():
        assert COPIES[how](function) is function
    x = np.linspace(-5, 5, 11, dtype=np.float32)
    for function in (activations.leaky_relu(0.3), activations.relu_up_to(2.5)):
        np.testing.assert_array_equal(COPIES[how](function).value(x), function.value(x))
    np.testing.assert_array_equal(activations.relu_up_to(2.5).value(x), np.clip(x, 0, 2.5))


def test_a_prepared_net_is_copied_with_its_model():
    net = trained(optimizers.SGD(0.1))
    plan = net.compile_inference((12, 12, 3))
    for how in ("deepcopy", "pickle 5"):
        np.testing.assert_array_equal(COPIES[how](plan).run(IMAGES), plan.run(IMAGES))
    net.train_on_batch(IMAGES, LABELS)
    assert "have changed" in repr(plan)
    with pytest.raises(ConvError, match=r"no longer has.*compile_inference"):
        copy.deepcopy(plan)


# ---- plans ----------------------------------------------------------------------------------------------------------

PLANS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "direct": ((2, 8, 9, 9), (16, 8, 3, 3), {"algorithm": "direct", "activation": "relu"}),
    "winograd": ((2, 32, 12, 12), (64, 32, 3, 3), {"padding": 1, "algorithm": "winograd"}),
    "winograd, channels last": ((2, 12, 12, 32), (3, 3, 32, 64), {"data_format": "NHWC", "algorithm": "winograd"}),
    "along rows": ((1, 3, 40, 40), (64, 3, 7, 7), {"stride": 2, "padding": 3, "algorithm": "winograd_rows"}),
    "strassen": ((1, 256, 16, 16), (256, 256, 1, 1), {"algorithm": "strassen"}),
    "depthwise": ((2, 9, 9, 24), (3, 3, 1, 24), {"groups": 24, "data_format": "NHWC", "padding": "same"}),
    "grouped": ((2, 12, 9, 9), (6, 6, 3, 3), {"groups": 2, "dilation": 2, "padding_mode": "reflect", "padding": 2}),
    "one image": ((3, 9, 9), (5, 3, 3, 3), {"activation": "hard_swish"}),
}


def made_plan(name: str, dtype: str, bias: bool) -> tuple[Any, Any, Any]:
    shape, weight_shape, options = PLANS[name]
    weight = RNG.integers(-3, 4, weight_shape).astype(dtype)
    outputs = weight_shape[-1] if options.get("data_format") == "NHWC" else weight_shape[0]
    summand = np.arange(outputs).astype("int32" if dtype == "int8" else dtype) if bias else None
    plan = fastconv.plan_conv2d(shape, weight, summand, **options)
    return plan, RNG.integers(-3, 4, shape).astype(dtype), (weight, summand, options)


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8"])
def test_plans_are_copied_and_pickled(name, dtype):
    forced = PLANS[name][2].get("algorithm", "auto") not in ("auto", "direct")
    if dtype != "float32" and forced:
        return  # float32's alone
    if dtype == "int8" and name == "one image":
        return  # no integer result
    plan, x, (weight, bias, options) = made_plan(name, dtype, name != "direct")
    wanted = plan.run(x)
    assert copy.deepcopy(plan) is plan and copy.copy(plan) is plan  # nothing in it changes
    other = pickle.loads(pickle.dumps(plan))
    np.testing.assert_array_equal(other.run(x), wanted)
    assert repr(other) == repr(plan) and str(other.explain()) == str(plan.explain())
    reference = fastconv.conv2d(x, weight, bias, **options | {"algorithm": "direct"})
    np.testing.assert_allclose(wanted, reference, rtol=2e-3, atol=0.05)


def test_a_plan_pickled_for_other_kernels_is_refused():
    plan, _, _ = made_plan("winograd", "float32", True)
    rebuild, (packed_by, *rest) = plan.__reduce__()
    for other, word in (
        (("abacus", packed_by[1]), "abacus by this build"), ((packed_by[0], packed_by[1] ^ 1), "by another build"),
    ):  # fmt: skip
        with pytest.raises(ConvError, match=rf"{word}.*plan_conv2d"):
            rebuild(other, *rest)


def test_a_pickle_is_read_by_another_process(tmp_path):
    plan, x, _ = made_plan("winograd", "float32", True)
    net = trained(optimizers.Adam())
    (tmp_path / "both").write_bytes(pickle.dumps((plan, x, plan.run(x), net, IMAGES, net.predict(IMAGES))))
    code = (
        "import pickle, numpy as np; plan, x, y, net, images, scores = pickle.load(open('both', 'rb')); "
        "assert np.array_equal(plan.run(x), y) and np.array_equal(net.predict(images), scores); print(plan, net)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(fastconv.__file__).parents[1])}
    environment["FASTCONV_ISA"] = _native.isa_name()
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.stdout == f"{plan} {net}\n", done.stderr


# ---- what things say of themselves ----------------------------------------------------------------------------------


def test_a_plan_says_what_it_is():
    weight = np.zeros((128, 32, 3, 5), np.float32)
    plan = fastconv.plan_conv2d((8, 64, 20, 30), weight, groups=2, padding=1, activation="swish", num_threads=1)
    isa = _native.isa_name()
    assert repr(plan) == (
        "<ConvPlan (N, 64, 20, 30) -> (N, 128, 20, 28) NCHW float32, weight (128, 32, 3, 5), padding=((1, 1), (1, 1)), "
        f"groups=2, activation='silu', direct, {isa}, 1 thread>"
    )
    single = fastconv.plan_conv2d((20, 30, 64), np.zeros((1, 1, 64, 8)), stride=(2, 1), data_format="NHWC")
    assert repr(single).startswith(
        "<ConvPlan (20, 30, 64) -> (10, 30, 8) NHWC float64, weight (1, 1, 64, 8), stride=(2, 1), "
    )


def test_layers_models_and_optimisers_say_what_they_are():
    net = Sequential([layers.Conv2D(8, 3), layers.Flatten(), layers.Dense(5)], name="net")
    assert repr(net) == "<Sequential net: 3 layers, not built>"
    assert repr(net.layers[0]) == "<Conv2D conv2d: not built>"
    net.build((6, 6, 2))
    assert repr(net) == "<Sequential net: 3 layers, (6, 6, 2) -> (5,), 797 weights>"
    assert [repr(layer) for layer in net.layers] == [
        "<Conv2D conv2d: (6, 6, 2) -> (4, 4, 8), 152 weights>", "<Flatten flatten: (4, 4, 8) -> (128,)>",
        "<Dense dense: (128,) -> (5,), 645 weights>",
    ]  # fmt: skip
    assert repr(net.parameters()[0]) == "<Parameter kernel (3, 3, 2, 8) float32>"
    assert repr(net.compile_inference()) == "<InferencePlan of net: (N, 6, 6, 2) -> (N, 5) float32, 3 steps>"
    assert repr(optimizers.SGD(optimizers.CosineDecay(0.1, 5))).startswith("<SGD learning_rate=CosineDecay(initial=0.1")


def test_onnx_sessions_are_copied_and_say_what_they_are():
    onnx = pytest.importorskip("onnx", reason="needs the package onnx: pip install fastconv[onnx]")
    import onnx_models

    from fastconv.onnx import InferenceSession

    session = InferenceSession(onnx_models.small_net(onnx).SerializeToString(), max_value_bytes=1 << 24)
    assert repr(session).startswith("<InferenceSession x ['n', 3, 8, 8] tensor(float) -> y ")
    feeds = {"x": RNG.random((2, 3, 8, 8), dtype=np.float32)}
    wanted = session.run(None, feeds)
    for other in (copy.deepcopy(session), copy.copy(session), pickle.loads(pickle.dumps(session))):
        assert repr(other) == repr(session) and other._prepared.pool.limit == 1 << 24
        for mine, theirs in zip(wanted, other.run(None, feeds), strict=True):
            np.testing.assert_array_equal(mine, theirs)


# ---- no layers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", [Sequential([]), Sequential([], input_shape=(12, 12, 3))], ids=["", "input_shape"])
@pytest.mark.parametrize(
    "use",
    [
        lambda net: net.predict(IMAGES), lambda net: net.predict(list(IMAGES)), lambda net: net(IMAGES),
        lambda net: net.fit(IMAGES, LABELS), lambda net: net.evaluate(IMAGES, LABELS),
        lambda net: net.train_on_batch(IMAGES, LABELS), lambda net: net.test_on_batch(IMAGES, LABELS),
        lambda net: net.summary(), lambda net: net.summary((12, 12, 3)), lambda net: net.build((12, 12, 3)),
        lambda net: net.compile_inference(), lambda net: net.compile_inference((12, 12, 3)),
        lambda net: net.to_fully_convolutional(), lambda net: net.get_weights(), lambda net: net.count_params(),
        lambda net: net.save("never.npz"), lambda net: net.load("never.npz"),
        lambda net: fastconv.tiled_predict(net, IMAGES[0], tile=4), lambda net: Sequential([net])(IMAGES),
    ],
)  # fmt: skip
def test_a_net_without_layers_says_so(net, use):
    with pytest.raises(ConvError, match="sequential has no layers"):
        use(net)


@pytest.mark.parametrize(
    "chain",
    [
        [layers.Dropout(0.5)], [layers.Flatten()], [layers.Activation(None), layers.Flatten()], [layers.Residual([])],
        [Sequential([layers.Dropout(0.5)])], [layers.Reshape((4, 36, 3))], [layers.ZeroPadding2D(0)],
    ],
    ids=str,
)  # fmt: skip
def test_nets_that_compute_nothing_predict(chain):
    net = Sequential(chain)
    np.testing.assert_array_equal(net.predict(IMAGES), net(IMAGES))
    assert net.predict(IMAGES[:0]).shape[0] == 0 and net.compile_inference((12, 12, 3)).explain()


# ---- files that cannot be written -----------------------------------------------------------------------------------

SUFFIXES = ["npz", "safetensors"]


def small() -> Sequential:
    return Sequential([layers.Dense(2)], input_shape=(3,))


def save(net: Sequential, path: Path) -> None:
    if path.suffix == ".safetensors":
        pytest.importorskip("safetensors")
    net.save(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_saving_names_the_folder_that_is_missing(suffix, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        save(small(), tmp_path / "absent" / "below" / f"w.{suffix}")
    said = str(caught.value)
    assert repr(str(tmp_path / "absent" / "below")) in said and f"w.{suffix}" in said and ".fastconv" not in said


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_saving_over_a_folder_or_below_a_file(suffix, tmp_path):
    (tmp_path / f"w.{suffix}").mkdir()
    with pytest.raises(IsADirectoryError, match=f"w.{suffix}"):
        save(small(), tmp_path / f"w.{suffix}")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError, match="file"):
        save(small(), tmp_path / "file" / f"w.{suffix}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", f"w.{suffix}"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("step", ["tempfile.TemporaryDirectory", "os.replace"])
def test_errors_of_the_system_name_the_file_that_is_wanted(step, suffix, tmp_path, monkeypatch):
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / ".fastconv-abc" / "weights"))

    monkeypatch.setattr(f"fastconv.models.storage.{step}", refuse)
    with pytest.raises(PermissionError) as caught:
        save(small(), tmp_path / f"w.{suffix}")
    assert str(tmp_path / f"w.{suffix}") in str(caught.value) and ".fastconv-abc" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_threads_may_pickle_a_model_that_predicts():
    net = trained(optimizers.SGD(0.1))
    wanted = net.predict(IMAGES)
    results: list[Any] = []
    work = [threading.Thread(target=lambda: results.append(pickle.loads(pickle.dumps(net)).predict(IMAGES)))
            for _ in range(4)]  # fmt: skip
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert len(results) == 4 and all(np.array_equal(result, wanted) for result in results)
