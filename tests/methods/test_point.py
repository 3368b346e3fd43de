"""Input gradients of dense layers, whose weights are read once as they lie (drivers/point.pxi)."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv import _native, grad

RNG = np.random.default_rng(4)
SHAPES = [(784, 128), (512, 512), (17, 16), (16, 33), (100, 5000), (1000, 4100), (130, 1024), (40, 256), (64, 3)]


def placed(array, beyond):
    """A copy that begins so many elements beyond a cache line."""
    memory = np.empty(array.nbytes + 192, np.uint8)
    first = -memory.ctypes.data % 64 + beyond * array.itemsize
    own = memory[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    own[...] = array
    return own


def gradient(dy, weight, **how):
    """Of a layer whose weights are (inputs, outputs)."""
    shape = (len(dy), 1, 1, len(weight))
    return grad.conv2d_input(shape, weight[None, None], dy[:, None, None], data_format="NHWC", **how)[:, 0, 0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_input_gradients_of_dense_layers(inputs, outputs, dtype):
    weight, dy = RNG.integers(-2, 3, (inputs, outputs)).astype(dtype), RNG.integers(-2, 3, (3, outputs)).astype(dtype)
    for beyond in (0, 1, 4, 7):
        own = placed(weight, beyond)
        np.testing.assert_array_equal(gradient(dy[:1], own), dy[:1] @ weight.T)
        np.testing.assert_array_equal(gradient(dy, own), dy @ weight.T)


@pytest.mark.parametrize(("inputs", "outputs"), [(784, 128), (100, 5000), (130, 1024)])
def test_the_bits_of_every_batch_layout_and_place(inputs, outputs):
    weight, dy = RNG.standard_normal((inputs, outputs)), RNG.standard_normal((3, outputs))
    weight, dy = weight.astype(np.float32), dy.astype(np.float32)
    wanted = gradient(dy, weight)
    for image in range(3):
        for beyond, threads in ((0, 1), (4, 2), (5, 2)):
            one = gradient(placed(dy[image : image + 1], beyond), placed(weight, beyond), num_threads=threads)
            np.testing.assert_array_equal(one, wanted[image : image + 1])
    first = np.ascontiguousarray(weight.T)[..., None, None]
    channels_first = grad.conv2d_input((3, inputs, 1, 1), first, dy[..., None, None])
    np.testing.assert_array_equal(channels_first[..., 0, 0], wanted)


def test_nan_reaches_what_it_meets():
    weight, dy = np.ones((64, 80), np.float32), np.ones((1, 80), np.float32)
    weight[5, 3], weight[40, 79] = np.nan, np.inf
    result = gradient(dy, weight)[0]
    assert np.isnan(result[5]) and np.isinf(result[40]) and (np.delete(result, [5, 40]) == 80).all()


def test_weights_of_a_large_layer_are_not_packed(monkeypatch):
    weight, dy = RNG.standard_normal((2048, 2048)).astype(np.float32), np.ones((1, 2048), np.float32)
    wanted = gradient(dy, weight)
    monkeypatch.setattr(_native, "pack_weights", None)
    np.testing.assert_array_equal(gradient(dy, weight), wanted)
