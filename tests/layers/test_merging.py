"""Merging layers: values and gradients against NumPy, finite differences and Keras; shapes; what is refused."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from fastconv import ConvError, ConvTypeError, layers
from fastconv.layers.base import Sample

FUNCTIONS: dict[str, Any] = {
    "Add": lambda *xs: sum(xs), "Subtract": lambda a, b: a - b,
    "Multiply": lambda *xs: np.prod(np.broadcast_arrays(*xs), 0),
    "Average": lambda *xs: sum(xs) / len(xs), "Maximum": lambda *xs: np.max(np.broadcast_arrays(*xs), 0),
    "Minimum": lambda *xs: np.min(np.broadcast_arrays(*xs), 0), "Concatenate": lambda *xs: np.concatenate(xs, -1),
}  # fmt: skip
SHAPES = [
    [(2, 3, 4, 2), (2, 3, 4, 2)], [(2, 3, 4, 2), (2, 1, 1, 2)], [(2, 1, 4, 1), (2, 3, 1, 2)], [(3, 4), (3, 4)],
    [(2, 5, 3), (2, 5, 3), (2, 5, 3)], [(2, 2, 3, 1, 2), (2, 2, 3, 1, 2)], [(1, 1), (1, 5), (1, 1)], [(2, 3)],
]  # fmt: skip


def cases() -> list[Any]:
    made = []
    for name in FUNCTIONS:
        for shapes in SHAPES:
            alike = len(set(shapes)) == 1
            if (name == "Subtract" and len(shapes) != 2) or (name == "Concatenate" and not alike):
                continue
            made.append(pytest.param(name, shapes, id=f"{name}{shapes}"))
    return made


def arrays(shapes: list[Any]) -> list[Any]:
    random = np.random.default_rng(0)
    return [random.standard_normal(shape) for shape in shapes]


@pytest.mark.parametrize(("name", "shapes"), cases())
def test_values_shapes_and_gradients(name: str, shapes: list[Any]) -> None:
    layer, xs = getattr(layers, name)(dtype="float64"), arrays(shapes)
    wanted = FUNCTIONS[name](*xs)
    y = layer.forward(xs)
    np.testing.assert_allclose(y, wanted, rtol=1e-14)
    assert y.flags.c_contiguous and not any(np.shares_memory(y, x) for x in xs)
    bare = [Sample(shape[1:]) for shape in shapes]
    assert layer.output_shape(bare) == y.shape[1:] and layer.macs(bare) == 0
    if len(shapes[0]) in (2, 4, 5):  # what is a batch by its axes
        assert layer.output_shape([(None, *shape[1:]) for shape in shapes]) == (None, *y.shape[1:])
    weights = np.random.default_rng(1).standard_normal(y.shape)
    grads = layer.backward(weights)
    for x, grad in zip(xs, grads, strict=True):
        assert grad.shape == x.shape
        for index in list(np.ndindex(x.shape))[:: max(1, x.size // 6)]:
            kept, sides = x[index], []
            for step in (1e-6, -1e-6):
                x[index] = kept + step
                sides.append((weights * FUNCTIONS[name](*xs)).sum())
            x[index] = kept
            assert grad[index] == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-6, abs=1e-8)
    assert layer.count_params() == 0 and layer.get_weights() == []


@pytest.mark.parametrize("axis", [1, 2, 3, -1, -2, -3])
def test_concatenation_along_any_axis(axis: int) -> None:
    random = np.random.default_rng(0)
    shapes = []
    for size in (2, 1, 3):
        shape = [2, 4, 5, 3]
        shape[axis] = size
        shapes.append(tuple(shape))
    xs = [random.standard_normal(shape).astype(np.float32) for shape in shapes]
    layer = layers.Concatenate(axis)
    np.testing.assert_array_equal(layer(xs), np.concatenate(xs, axis))
    grad = random.standard_normal(layer.output_shape(shapes)).astype(np.float32)
    np.testing.assert_array_equal(np.concatenate(layer.backward(grad), axis), grad)
    assert layer.output_shape([Sample(shape[1:]) for shape in shapes]) == layer.output_shape(shapes)[1:]
    image = [None if n == 4 else n for n in shapes[0]], shapes[1], shapes[2]
    assert layer.output_shape([tuple(shape) for shape in image])[axis] == 6


def test_ties_go_to_the_first_and_nan_goes_on() -> None:
    a, b = np.array([[1.0, 2, 3]]), np.array([[1.0, 5, 3]])
    for layer, wanted in ((layers.Maximum(), [[1, 0, 1], [0, 1, 0]]), (layers.Minimum(), [[1, 1, 1], [0, 0, 0]])):
        layer([a, b])
        np.testing.assert_array_equal(np.concatenate(layer.backward(np.ones((1, 3)))), wanted)
    for name in FUNCTIONS:
        assert np.isnan(getattr(layers, name)()([np.array([[np.nan]]), np.array([[1.0]])])).any()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: layers.Add().forward(np.ones((2, 3))), ConvTypeError, "call it on a list"),
        (lambda: layers.Add().forward([]), ConvTypeError, "list"),
        (lambda: layers.Add().forward([np.ones((2, 3)), np.ones((3, 3))]), ConvError, "as many samples"),
        (lambda: layers.Add().forward([np.ones((2, 3)), np.ones((2, 4))]), ConvError, r"\(2, 3\), \(2, 4\)"),
        (lambda: layers.Add().forward([np.ones((2, 3)), np.ones((2, 3, 1))]), ConvError, "as many axes"),
        (lambda: layers.Add().forward([np.ones((2, 3)), "x"]), ConvTypeError, "array"),
        (lambda: layers.Add().backward(np.ones((2, 3))), ConvError, "forward call"),
        (lambda: layers.Add().output_shape((2, 3)), ConvTypeError, "list"),
        (lambda: layers.Concatenate("x"), ConvTypeError, "axis"),
        (lambda: layers.Concatenate().forward([np.ones((2, 3, 3, 1)), np.ones((2, 3, 4, 1))]), ConvError, "axis -1"),
        (lambda: layers.Concatenate(-4).forward([np.ones((2, 3, 3, 1))] * 2), ConvError, "axis=-4"),
        (lambda: layers.Add(trainables=True), ConvTypeError, "trainables"),
    ],
)
def test_refusals(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
    layer = layers.Add()
    layer([np.ones((2, 3)), np.ones((2, 3))])
    with pytest.raises(ConvError, match="grad must have the shape"):
        layer.backward(np.ones((2, 4)))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_keras_gives_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "KERAS_BACKEND" not in os.environ:
        monkeypatch.setenv("KERAS_BACKEND", "torch")
    pytest.importorskip("torch")
    keras = pytest.importorskip("keras")
    for shapes in SHAPES[:3]:
        if name == "Concatenate" and len(set(shapes)) > 1:
            continue
        xs = [x.astype(np.float32) for x in arrays(shapes)]
        theirs = keras.ops.convert_to_numpy(getattr(keras.layers, name)()([keras.ops.convert_to_tensor(x) for x in xs]))
        np.testing.assert_allclose(getattr(layers, name)()(xs), theirs, rtol=1e-6)
        tensors = [keras.Input(shape[1:]) for shape in shapes]
        wanted = getattr(keras.layers, name)()(tensors).shape
        assert getattr(layers, name)().output_shape([tensor.shape for tensor in tensors]) == wanted
