"""One table of names: functions, plans, layers and the reference take the same words for the same activation."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from math import erfc
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import ConvError, ConvTypeError, Sequential, layers, reference
from fastconv._core.activations import ALIASES, BY_LAYERS, FUSED, LINEAR

# By the words of Keras and PyTorch; worked out in float64.
MEANT: dict[str, Callable[[Any], Any]] = {
    "linear": lambda x: x,
    "relu": lambda x: np.where(x > 0, x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "swish": lambda x: x / (1 + np.exp(-x)),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "hardswish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "hard_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "hard_silu": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "tanh": np.tanh,
    "gelu": lambda x: x * np.vectorize(erfc)(-x / np.sqrt(2)) / 2,
    "gelu_tanh": lambda x: x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,
}
X = np.linspace(-9, 9, 2 * 5 * 6 * 7).reshape(2, 5, 6, 7)
W = np.random.default_rng(0).standard_normal((4, 5, 3, 3)) / 5
PLAIN = fastconv.conv2d(X, W)


def written(name: str) -> list[str]:
    return [name, name.upper(), name.title()]


@pytest.mark.parametrize("name", MEANT)
def test_functions_plans_and_the_reference_take_every_word(name):
    wanted = MEANT[name](PLAIN)
    for word in written(name):
        for _ in range(2):  # the second call is remembered
            np.testing.assert_allclose(fastconv.conv2d(X, W, activation=word), wanted, rtol=1e-12, atol=1e-12)
        plan = fastconv.plan_conv2d(X.shape, W, activation=word)
        np.testing.assert_allclose(plan.run(X), wanted, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(reference.conv2d(X, W, activation=word), wanted, rtol=1e-12, atol=1e-12)
        one = fastconv.conv1d(X[:, :, 0], W[:, :, 0], activation=word)
        np.testing.assert_allclose(one, MEANT[name](fastconv.conv1d(X[:, :, 0], W[:, :, 0])), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MEANT)
def test_layers_take_every_word(name):
    meant = MEANT[name] if name != "leaky_relu" else lambda x: np.where(x > 0, x, 0.2 * x)  # Keras' slope
    x = X.transpose(0, 2, 3, 1)
    for word in written(name):
        alone = layers.Activation(word, dtype="float64")
        np.testing.assert_allclose(alone(x), meant(x), rtol=1e-12, atol=1e-12)
        for made in (layers.Conv2D(4, 3, activation=word, dtype="float64"), layers.Dense(4, word, dtype="float64")):
            net = Sequential([made])
            linear = np.asarray(net(x))
            made.activation, kept = layers.Activation("linear").function, made.activation
            np.testing.assert_allclose(linear, meant(np.asarray(net(x))), rtol=1e-9, atol=1e-9)
            made.activation = kept
            np.testing.assert_allclose(net.predict(x), linear, rtol=1e-9, atol=1e-9)


def test_the_table_is_whole():
    assert set(MEANT) == {LINEAR, *FUSED, *ALIASES} and set(ALIASES.values()) <= set(FUSED)
    assert set(layers.activations.FUNCTIONS) == set(BY_LAYERS)
    assert {function.fused for function in layers.activations.FUNCTIONS.values()} <= {None, *FUSED}


@pytest.mark.parametrize("word", ["linear", "Linear", None])
def test_integers_take_linear(word):
    x, w = np.ones((1, 2, 4, 4), np.int8), np.ones((3, 2, 3, 3), np.int8)
    assert (fastconv.conv2d(x, w, activation=word) == 18).all()
    with pytest.raises(ConvTypeError, match=r"hardswish.*no integer"):
        fastconv.conv2d(x, w, activation="hard_swish")


def test_other_words_are_refused_with_the_list():
    for use in (
        lambda word: fastconv.conv2d(X, W, activation=word),
        lambda word: fastconv.plan_conv2d(X.shape, W, activation=word),
        lambda word: reference.conv2d(X, W, activation=word),
    ):
        for word in ("softmax", "Softmax"):
            with pytest.raises(ConvError, match="only layers have it"):
                use(word)
        for word in ("mish", "", "hard swish"):
            with pytest.raises(ConvError, match="activation must be None or one of 'linear', 'relu'"):
                use(word)
        with pytest.raises(ConvTypeError, match=r"activation.*type int"):
            use(3)
    with pytest.raises(ConvError, match="'gelu_tanh', 'softmax', but got activation='mish'"):
        layers.Activation("mish")
    with pytest.raises(ConvTypeError, match=r"activation.*type int"):
        layers.Dense(3, activation=3)


def test_dask_takes_every_word():
    da = pytest.importorskip("dask.array")
    import fastconv.dask

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = da.from_array(X, chunks=(1, 5, 6, 7))
        for name, meant in MEANT.items():
            result = fastconv.dask.conv2d(x, W, activation=name).compute(scheduler="synchronous")
            np.testing.assert_allclose(result, meant(PLAIN), rtol=1e-12, atol=1e-12)
