"""Layers of one and three axes: the right values by NumPy's sums and by Keras, gradients by differences, whole nets."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastconv import ConvError, Sequential, layers, reference, tiled_predict
from fastconv.models.tiles import PARTS
from fastconv.weights import load_weights

Array = np.ndarray[Any, np.dtype[Any]]
SIZES = {1: (9,), 3: (5, 4, 6)}
F64: dict[str, Any] = {"dtype": "float64"}


def named(name: str, axes: int) -> Any:
    return getattr(layers, name.replace("ND", f"{axes}D"))


# name, arguments, in words that hold for any number of axes
CASES: list[tuple[str, dict[str, Any]]] = [
    ("ConvND", {"filters": 4, "kernel_size": 3}),
    ("ConvND", {"filters": 4, "kernel_size": 2, "strides": 2, "padding": "same", "activation": "relu"}),
    ("ConvND", {"filters": 6, "kernel_size": 2, "dilation_rate": 2, "groups": 3, "activation": "silu"}),
    ("ConvND", {"filters": 2, "kernel_size": 1, "use_bias": False, "data_format": "channels_first"}),
    ("ConvNDTranspose", {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same", "activation": "tanh"}),
    ("ConvNDTranspose", {"filters": 2, "kernel_size": 2, "strides": 3}),
    ("ConvNDTranspose", {"filters": 2, "kernel_size": 4, "strides": 2, "output_padding": 1}),
    ("ConvNDTranspose", {"filters": 2, "kernel_size": 3, "data_format": "channels_first"}),
    ("MaxPoolingND", {}),
    ("MaxPoolingND", {"pool_size": 3, "strides": 2, "padding": "same"}),
    ("MaxPoolingND", {"pool_size": 2, "strides": 1, "data_format": "channels_first"}),
    ("AveragePoolingND", {"pool_size": 2}),
    ("AveragePoolingND", {"pool_size": 3, "strides": 2, "padding": "same"}),
    ("AveragePoolingND", {"pool_size": 2, "data_format": "channels_first"}),
    ("GlobalAveragePoolingND", {}),
    ("GlobalAveragePoolingND", {"keepdims": True, "data_format": "channels_first"}),
    ("GlobalMaxPoolingND", {"keepdims": True}),
    ("GlobalMaxPoolingND", {"data_format": "channels_first"}),
    ("ZeroPaddingND", {}),
    ("ZeroPaddingND", {"padding": 2, "data_format": "channels_first"}),
    ("CroppingND", {"cropping": 1}),
    ("UpSamplingND", {}),
    ("UpSamplingND", {"size": 3}),
]
ONE: list[tuple[str, dict[str, Any]]] = [
    ("Conv1D", {"filters": 4, "kernel_size": 3, "padding": "causal", "dilation_rate": 2}),
    ("Conv1D", {"filters": 4, "kernel_size": 3, "padding": "causal", "strides": 2}),
    ("DepthwiseConv1D", {"kernel_size": 3, "padding": "same", "depth_multiplier": 2, "activation": "relu"}),
    ("DepthwiseConv1D", {"kernel_size": 4, "strides": 2, "data_format": "channels_first"}),
    ("SeparableConv1D", {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same"}),
    ("ZeroPadding1D", {"padding": (1, 3)}),
    ("Cropping1D", {"cropping": (2, 1)}),
]
THREE: list[tuple[str, dict[str, Any]]] = [
    ("Conv3D", {"filters": 3, "kernel_size": (1, 3, 2), "strides": (1, 2, 1), "padding": "same"}),
    ("Conv3DTranspose", {"filters": 3, "kernel_size": (3, 2, 1), "strides": (1, 2, 3), "padding": "same"}),
    ("MaxPooling3D", {"pool_size": (1, 2, 3), "strides": (1, 1, 2), "padding": "same"}),
    ("ZeroPadding3D", {"padding": ((1, 0), (0, 2), (3, 1))}),
    ("ZeroPadding3D", {"padding": (0, 1, 2)}),
    ("Cropping3D", {"data_format": "channels_first"}),
    ("Cropping3D", {"cropping": ((1, 0), (0, 2), (2, 1))}),
    ("UpSampling3D", {"size": (1, 2, 3)}),
]
ALL = [(name.replace("ND", f"{axes}D"), how, axes) for axes in (1, 3) for name, how in CASES]
ALL += [(*case, 1) for case in ONE] + [(*case, 3) for case in THREE]
ALL += [("Cropping2D", {"cropping": ((1, 0), (2, 1))}, 2), ("Cropping2D", {}, 2), ("GlobalMaxPooling2D", {}, 2)]
IDS = [f"{name}-{'-'.join(map(str, how.values()))}" for name, how, _ in ALL]


def batch_of(axes: int, how: dict[str, Any], seed: int = 0) -> Array:
    x = np.random.default_rng(seed).standard_normal((2, *SIZES.get(axes, (5, 6)), 3))
    return np.moveaxis(x, -1, 1).copy() if how.get("data_format") == "channels_first" else x


def made(name: str, how: dict[str, Any], x: Array) -> Any:
    layer = getattr(layers, name)(**how, **F64)
    layer.build(x.shape)
    rng = np.random.default_rng(1)
    layer.set_weights([rng.standard_normal(weight.shape) for weight in layer.get_weights()])
    return layer


@pytest.mark.parametrize(("name", "how", "axes"), ALL, ids=IDS)
def test_gradients_are_those_of_differences(name: str, how: dict[str, Any], axes: int) -> None:
    x, rng = batch_of(axes, how), np.random.default_rng(2)
    layer = made(name, how, x)
    y = layer.forward(x, True)
    assert y.shape == layer.output_shape(x.shape)
    assert layer.output_shape(x.shape[1:]) == y.shape[1:]
    assert layer.output_shape((None, *x.shape[1:])) == (None, *y.shape[1:])
    towards = rng.standard_normal(y.shape)
    dx = layer.backward(towards)
    grads = [parameter.grad.copy() for parameter in layer.parameters()]
    assert dx.shape == x.shape
    step, weights = 1e-6, layer.get_weights()
    along = [rng.standard_normal(weight.shape) for weight in weights]
    direction = rng.standard_normal(x.shape)

    def value(sign: int) -> float:
        layer.set_weights([weight + sign * step * way for weight, way in zip(weights, along, strict=True)])
        return float((layer.forward(x + sign * step * direction, True) * towards).sum())

    numeric = (value(1) - value(-1)) / (2 * step)
    exact = (dx * direction).sum() + sum((g * way).sum() for g, way in zip(grads, along, strict=True))
    assert numeric == pytest.approx(exact, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("name", "how", "axes"), ALL, ids=IDS)
def test_values_and_sizes_are_those_of_keras(name: str, how: dict[str, Any], axes: int) -> None:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    pytest.importorskip(os.environ["KERAS_BACKEND"])
    keras = pytest.importorskip("keras")
    x = batch_of(axes, how)
    ours = made(name, how, x)
    theirs = getattr(keras.layers, name)(**how, dtype="float64")
    theirs.build(x.shape)
    theirs.set_weights(ours.get_weights())
    right = keras.ops.convert_to_numpy(theirs(x))
    assert ours.output_shape((None, *x.shape[1:])) == tuple(theirs.compute_output_shape((None, *x.shape[1:])))
    if (name[:-2], how.get("padding")) != ("AveragePooling", "same"):  # where PyTorch's backend counts a border too
        np.testing.assert_allclose(ours.forward(x), right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("axes", [1, 3])
def test_convolutions_are_those_of_the_reference(axes: int) -> None:
    x = batch_of(axes, {})
    layer = made(f"Conv{axes}D", {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same"}, x)
    right = getattr(reference, f"conv{axes}d")(x, *layer.get_weights(), 2, "same", data_format="channels_last")
    np.testing.assert_allclose(layer.forward(x), right, rtol=1e-12, atol=1e-12)
    layer = made(f"Conv{axes}DTranspose", {"filters": 4, "kernel_size": 3, "strides": 2}, x)
    right = getattr(reference, f"conv_transpose{axes}d")(x, *layer.get_weights(), 2, data_format="channels_last")
    np.testing.assert_allclose(layer.forward(x), right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize(("size", "stride", "padding"), [(2, 2, "valid"), (3, 2, "same"), (3, 1, "same")])
def test_poolings_are_those_of_the_reference(axes: int, size: int, stride: int, padding: str) -> None:
    x, how = batch_of(axes, {}), {"padding": padding, "data_format": "channels_last"}
    for name, function, options in (("Max", "max", {}), ("Average", "avg", {"count_include_pad": False})):
        layer = named(f"{name}PoolingND", axes)(size, stride, padding, **F64)
        right = getattr(reference, f"{function}_pool{axes}d")(x, size, stride, **how, **options)
        np.testing.assert_allclose(layer.forward(x), right, rtol=1e-12, atol=1e-12)


def test_the_gradient_of_a_volume_s_maximum_goes_to_the_first() -> None:
    for axes, name in itertools.product((1, 2, 3), ("MaxPooling", "GlobalMaxPooling")):
        layer = getattr(layers, f"{name}{axes}D")()
        layer.forward(np.ones((1, *(2,) * axes, 1), np.float32))
        grad = np.full((1, *(1,) * axes, 1) if name == "MaxPooling" else (1, 1), 5, np.float32)
        found = layer.backward(grad).ravel()
        assert found.tolist() == [5.0] + [0.0] * (2**axes - 1)


# ---- nets ----------------------------------------------------------------------------------------------------------


def net(axes: int, **options: Any) -> Sequential:
    conv = named("ConvND", axes)
    chain = [
        conv(8, 3, padding="same", use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Residual([conv(8, 3, padding="same"), layers.Activation("relu"), conv(8, 1)], activation="relu"),
        named("MaxPoolingND", axes)(),
        named("ConvNDTranspose", axes)(6, 2, 2, activation="relu"),
        layers.Dropout(0.1),
        named("AveragePoolingND", axes)(2),
        named("UpSamplingND", axes)(2),
        named("ZeroPaddingND", axes)(1),
        named("CroppingND", axes)(1),
        conv(4, 3, 2, "same"),
        layers.Dense(4, activation="relu"),
    ]
    return Sequential(chain, **options)


def whole_net(axes: int, **options: Any) -> Sequential:
    return Sequential([net(axes), layers.Flatten(), layers.Dense(2, activation="softmax")], **options)


NETS = {1: (16, 3), 3: (8, 4, 8, 3)}


@pytest.mark.parametrize("axes", [1, 3])
def test_nets_learn_predict_and_are_saved(axes: int, tmp_path: Path) -> None:
    shape, rng = NETS[axes], np.random.default_rng(3)
    x = rng.standard_normal((16, *shape)).astype("float32")
    labels = (x.mean(axis=tuple(range(1, axes + 2))) > 0).astype(int)
    model = whole_net(axes, input_shape=shape, seed=1)
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    losses = model.fit(x, labels, 8, 6, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    right = model.forward(x)
    np.testing.assert_allclose(model.predict(x), right, rtol=1e-4, atol=1e-5)
    plan = model.compile_inference((None, *shape))
    assert "+ relu" in plan.explain() and "residual" in plan.explain()
    for suffix in ("npz", "safetensors"):
        model.save(tmp_path / f"net.{suffix}")
        other = whole_net(axes, input_shape=shape, seed=2)
        other.load(tmp_path / f"net.{suffix}")
        np.testing.assert_array_equal(other.forward(x), right)


@pytest.mark.parametrize("axes", [1, 3])
def test_shapes_are_understood_with_and_without_the_batch(axes: int) -> None:
    shape = NETS[axes]
    for given in (shape, (None, *shape), (16, *shape)):
        model = whole_net(axes, input_shape=given)
        assert model.built_shape == shape
    assert net(axes).output_shape((None,) * (axes + 1) + (3,)) == (None,) * (axes + 1) + (4,)
    assert net(axes).output_shape((*(None,) * axes, 3)) == (*(None,) * axes, 4)
    unbuilt = whole_net(axes, seed=1)
    unbuilt.forward(np.zeros((2, *shape), np.float32))
    assert unbuilt.built_shape == shape
    with pytest.raises(ConvError, match=r"x must be a batch \(N, (W|D, H, W), C\)"):
        unbuilt.forward(np.zeros((1, *shape, 1), np.float32)[..., None])
    with pytest.raises(ConvError, match=r"input_shape must be \((W|D, H, W), C\), with or without a batch"):
        named("ConvND", axes)(3, 3).build((3,))
    first = Sequential([layers.BatchNormalization(axis=1), named("ConvND", axes)(2, 1, data_format="channels_first")],
                       input_shape=(3, *shape[:-1]))  # fmt: skip
    assert first.get_weights()[0].shape == (3,)


@pytest.mark.parametrize("axes", [1, 3])
def test_the_table_counts_what_the_shapes_say(axes: int) -> None:
    conv = named("ConvND", axes)
    model = Sequential([conv(4, 3, 2, "same"), named("MaxPoolingND", axes)(), conv(5, 3, padding="same")],
                       input_shape=NETS[axes])  # fmt: skip
    table = model.table()
    taps, pixels = 3**axes, int(np.prod(NETS[axes][:-1]))
    assert table.parameters == taps * 3 * 4 + 4 + taps * 4 * 5 + 5
    assert table.macs == pixels // 2**axes * taps * 3 * 4 + pixels // 4**axes * taps * 4 * 5
    assert table.rows[-1].field == (13,) * axes
    assert table.rows[-1].stride == (4,) * axes
    lines: list[str] = []
    model.summary(print_fn=lines.append)
    assert "conv" in lines[0] and str(table.macs // 1000) in lines[0].replace(",", "")


# ---- tiles ---------------------------------------------------------------------------------------------------------


def test_the_classes_of_all_axes_are_one_in_tiles() -> None:
    for name in ("ConvND", "ConvNDTranspose", "MaxPoolingND", "AveragePoolingND", "ZeroPaddingND", "CroppingND"):
        assert len({named(name, axes).forward for axes in (1, 2, 3)}) == 1
        assert named(name, 3).forward in PARTS


@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize("tile", [3, 5, 8])
def test_tiles_have_the_bits_of_the_whole(axes: int, tile: int) -> None:
    rng = np.random.default_rng(4)
    shape = {1: (67, 3), 3: (11, 13, 17, 3)}[axes]
    model = net(axes, input_shape=NETS[axes], seed=1)
    image = rng.standard_normal(shape).astype("float32")
    right = model(image[None])[0]
    np.testing.assert_array_equal(tiled_predict(model, image, tile), right)
    out = np.empty(right.shape, "float32")
    assert tiled_predict(model, np.asfortranarray(image), tile, out=out) is out
    np.testing.assert_array_equal(out, right)
    with pytest.raises(ConvError, match=r"image must have a shape \((W|D, H, W), C\)"):
        tiled_predict(model, image[None], tile)


@pytest.mark.parametrize("axes", [1, 3])
def test_tiles_of_dilated_and_strided_nets(axes: int) -> None:
    conv, rng = named("ConvND", axes), np.random.default_rng(5)
    model = Sequential(
        [
            conv(32, 3, padding="same"),
            conv(32, 3, dilation_rate=3, padding="same" if axes == 3 else "causal", activation="relu"),
            named("MaxPoolingND", axes)(3, 2, "same"),
            named("ConvNDTranspose", axes)(32, 4, 2, "same"),
            conv(2, 5, 3),
        ],
        input_shape={1: (40, 32), 3: (8, 8, 8, 32)}[axes], seed=0,
    )  # fmt: skip
    image = rng.standard_normal({1: (301, 32), 3: (18, 9, 20, 32)}[axes]).astype("float32")
    right = model(image[None])[0]
    for tile in (4, 7) if axes == 3 else (9, 64):
        np.testing.assert_array_equal(tiled_predict(model, image, tile), right)


# ---- weights of others ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", [1, 3])
def test_weights_of_pytorch_have_their_axes_turned(axes: int, tmp_path: Path) -> None:
    """A convolution, its flattened result and a dense layer, as `torch.nn` keeps them; computed by NumPy alone."""
    save = pytest.importorskip("safetensors.numpy").save_file
    rng = np.random.default_rng(6)
    shape = {1: (6, 2), 3: (3, 4, 2, 2)}[axes]
    pixels = int(np.prod(shape[:-1]))
    state = {
        "0.weight": rng.standard_normal((3, 2, *(3,) * axes)), "0.bias": rng.standard_normal(3),
        "2.weight": rng.standard_normal((5, 3 * pixels)), "2.bias": rng.standard_normal(5),
    }  # fmt: skip
    save({name: value.astype("float32") for name, value in state.items()}, tmp_path / "net.safetensors")
    model = Sequential([named("ConvND", axes)(3, 3, padding="same"), layers.Flatten(), layers.Dense(5)], shape)
    load_weights(model, tmp_path / "net.safetensors")
    x = rng.standard_normal((2, *shape))
    first = np.moveaxis(x, -1, 1)
    maps = getattr(reference, f"conv{axes}d")(first, state["0.weight"], state["0.bias"], 1, 1)
    right = maps.reshape(2, -1) @ state["2.weight"].T + state["2.bias"]
    np.testing.assert_allclose(model.predict(x), right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("suffix", ["weights.h5", "keras"])
@pytest.mark.parametrize("axes", [1, 3])
def test_weights_of_keras(axes: int, suffix: str, tmp_path: Path) -> None:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    pytest.importorskip(os.environ["KERAS_BACKEND"])
    pytest.importorskip("h5py")
    keras = pytest.importorskip("keras")

    def chain(words: Any) -> list[Any]:
        separable = [words.SeparableConv1D(4, 3, depth_multiplier=2), words.DepthwiseConv1D(2)] if axes == 1 else []
        conv, transposed = getattr(words, f"Conv{axes}D"), getattr(words, f"Conv{axes}DTranspose")
        return [
            conv(4, 3, padding="same", activation="relu"), words.BatchNormalization(), transposed(4, 2, 2), *separable,
            conv(2, 1), getattr(words, f"GlobalMaxPooling{axes}D")(), words.Dense(3),
        ]  # fmt: skip

    shape = NETS[axes]
    theirs = keras.Sequential([keras.Input(shape), *chain(keras.layers)])
    (theirs.save if suffix == "keras" else theirs.save_weights)(tmp_path / f"net.{suffix}")
    ours = Sequential(chain(layers), shape, seed=0)
    load_weights(ours, tmp_path / f"net.{suffix}")
    x = np.random.default_rng(7).standard_normal((2, *shape)).astype("float32")
    np.testing.assert_allclose(ours.predict(x), keras.ops.convert_to_numpy(theirs(x)), rtol=1e-4, atol=1e-5)
