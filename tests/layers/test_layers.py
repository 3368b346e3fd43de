"""Layers: gradients against finite differences in float64, shapes, Keras' words and defaults, refusals."""

from typing import Any

import numpy as np
import pytest

from fastconv import ConvError, ConvTypeError, layers, reference
from fastconv.layers import rows
from fastconv.layers.base import Layer

Array = np.ndarray[Any, np.dtype[Any]]
F64: dict[str, Any] = {"dtype": "float64"}
NCHW: dict[str, Any] = {"dtype": "float64", "data_format": "channels_first"}

IMAGE = (2, 5, 6, 3)
CASES = [
    ("conv", layers.Conv2D(4, 3, **F64), IMAGE),
    ("conv same stride", layers.Conv2D(4, (3, 2), (2, 1), "same", activation="relu", **F64), IMAGE),
    ("conv dilated groups", layers.Conv2D(6, 2, dilation_rate=2, groups=3, activation="tanh", **F64), IMAGE),
    ("conv silu", layers.Conv2D(2, 1, activation="silu", use_bias=False, **F64), IMAGE),
    ("conv softmax", layers.Conv2D(3, 2, activation="softmax", **F64), IMAGE),
    ("conv channels first", layers.Conv2D(4, 3, activation="relu6", **NCHW), (2, 3, 5, 6)),
    ("transpose", layers.Conv2DTranspose(4, 3, 2, "same", activation="sigmoid", **F64), IMAGE),
    ("transpose valid", layers.Conv2DTranspose(2, 2, 3, **F64), IMAGE),
    ("transpose extra", layers.Conv2DTranspose(2, 3, 2, "valid", (1, 0), **F64), IMAGE),
    ("transpose channels first", layers.Conv2DTranspose(2, 3, 2, "same", **NCHW), (2, 3, 4, 4)),
    ("depthwise", layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, activation="relu", **F64), IMAGE),
    ("separable", layers.SeparableConv2D(4, 3, (2, 2), "same", activation="relu", **F64), IMAGE),
    ("tiled", layers.TiledConv2D(3, 3, (2, 3), padding="same", activation="relu", **F64), IMAGE),
    ("max", layers.MaxPooling2D(2, **F64), IMAGE),
    ("max overlapping", layers.MaxPooling2D(3, 2, "same", **F64), IMAGE),
    ("max channels first", layers.MaxPooling2D((2, 3), 1, padding="same", **NCHW), (2, 3, 5, 6)),
    ("average", layers.AveragePooling2D(3, 2, "same", **F64), IMAGE),
    ("average channels first", layers.AveragePooling2D(2, **NCHW), (2, 3, 5, 6)),
    ("global", layers.GlobalAveragePooling2D(**F64), IMAGE),
    ("global keepdims", layers.GlobalAveragePooling2D(keepdims=True, **NCHW), (2, 3, 5, 6)),
    ("norm", layers.BatchNormalization(**F64), IMAGE),
    ("norm channels first", layers.BatchNormalization(axis=1, **F64), (2, 3, 5, 6)),
    ("norm vectors", layers.BatchNormalization(center=False, **F64), (7, 4)),
    ("norm bare", layers.BatchNormalization(scale=False, **F64), IMAGE),
    ("lrn", layers.LocalResponseNormalization(3, 0.5, k=1.0, **F64), (2, 3, 3, 7)),
    ("lrn even", layers.LocalResponseNormalization(4, 0.5, average=True, **F64), (2, 3, 3, 7)),
    ("dense", layers.Dense(4, activation="relu", **F64), (5, 3)),
    ("dense image", layers.Dense(2, activation="softmax", **F64), IMAGE),
    ("flatten", layers.Flatten(**F64), IMAGE),
    ("flatten channels first", layers.Flatten(**NCHW), (2, 3, 5, 6)),
    ("reshape", layers.Reshape((3, -1, 5), **F64), IMAGE),
    ("dropout", layers.Dropout(0.4, **F64), IMAGE),
    ("padding", layers.ZeroPadding2D(((1, 2), (0, 3)), **F64), IMAGE),
    ("nearest", layers.UpSampling2D((2, 3), **F64), IMAGE),
    ("bilinear", layers.UpSampling2D(2, interpolation="bilinear", **NCHW), (2, 3, 4, 5)),
    ("relu", layers.ReLU(**F64), IMAGE),
    ("relu max", layers.ReLU(max_value=0.5, **F64), IMAGE),
    ("leaky", layers.LeakyReLU(**F64), IMAGE),
    *(
        (name, layers.Activation(name, **F64), IMAGE)
        for name in ("sigmoid", "tanh", "silu", "hard_swish", "relu6", "gelu", "gelu_tanh")
    ),
    ("softmax axis", layers.Softmax(1, **F64), IMAGE),
    (
        "residual",
        layers.Residual(
            [layers.Conv2D(3, 3, padding="same", **F64), layers.BatchNormalization(**F64)], activation="relu", **F64
        ),
        IMAGE,
    ),
    (
        "residual shortcut",
        layers.Residual(
            [layers.ReLU(**F64), layers.Conv2D(4, 3, 2, "same", **F64)], [layers.Conv2D(4, 1, 2, **F64)], **F64
        ),
        IMAGE,
    ),
]


def run(layer: Layer, x: Array) -> Array:
    if isinstance(layer, layers.Dropout):
        layer.random = np.random.default_rng(0)
    return layer.forward(x, training=True)


def numeric(layer: Layer, x: Array, values: Array, weight: Array) -> Array:
    """Central differences of sum(layer(x) * weight) with respect to `values`, which x or a parameter holds."""
    step = 1e-6
    gradient = np.empty(values.size)
    for i in range(values.size):
        flat = values.reshape(-1)
        kept = flat[i]
        sides = []
        for value in (kept + step, kept - step):
            flat[i] = value
            sides.append((run(layer, x) * weight).sum())
        flat[i] = kept
        gradient[i] = (sides[0] - sides[1]) / (2 * step)
    return gradient.reshape(values.shape)


@pytest.mark.parametrize(("layer", "shape"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_gradients_are_those_of_finite_differences(layer: Layer, shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(len(shape))
    x = random.standard_normal(shape)
    layer.build(shape)
    for parameter in layer.parameters():
        if parameter.trainable:
            parameter.assign(random.standard_normal(parameter.shape))
    y = run(layer, x)
    assert y.shape == layer.output_shape(shape)
    assert layer.output_shape((None, *shape[1:])) == (None, *y.shape[1:])
    assert layer.output_shape(shape[1:]) == y.shape[1:]
    weight = random.standard_normal(y.shape)
    dx = layer.backward(weight)
    gradients = [np.array(p.grad) for p in layer.parameters() if p.trainable]
    np.testing.assert_allclose(dx, numeric(layer, x, x, weight), rtol=1e-5, atol=1e-6)
    for parameter, gradient in zip(filter(lambda p: p.trainable, layer.parameters()), gradients, strict=True):
        np.testing.assert_allclose(gradient, numeric(layer, x, parameter.updated(), weight), rtol=1e-5, atol=1e-6)


def test_gradient_of_a_normalisation_by_running_statistics() -> None:
    layer = layers.BatchNormalization(**F64)
    x = np.random.default_rng(0).standard_normal(IMAGE)
    layer.forward(x, training=True)
    y = layer.forward(x)
    expected = (x - layer.moving_mean.array) / np.sqrt(layer.moving_variance.array + 1e-3)
    np.testing.assert_allclose(y, expected, rtol=1e-12)
    dx = layer.backward(np.ones_like(y))
    np.testing.assert_allclose(dx, np.broadcast_to(1 / np.sqrt(layer.moving_variance.array + 1e-3), IMAGE))


def test_running_statistics_move_by_keras_momentum() -> None:
    layer = layers.BatchNormalization(**F64)
    x = np.random.default_rng(0).standard_normal((4, 3, 3, 2)) * 3 + 1
    layer.forward(x, training=True)
    np.testing.assert_allclose(layer.moving_mean.array, 0.01 * x.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(layer.moving_variance.array, 0.99 + 0.01 * x.var((0, 1, 2)), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("channels", [1, 3, 64, 130])
def test_sums_and_moments_over_pixels(dtype: str, channels: int) -> None:
    x = (np.random.default_rng(1).standard_normal((3, 17, 11, channels)) + 5).astype(dtype)
    mean, variance = rows.moments(x)
    tolerance = 1e-5 if dtype == "float32" else 1e-13
    np.testing.assert_allclose(mean, x.mean((0, 1, 2), dtype="float64"), rtol=tolerance)
    np.testing.assert_allclose(variance, x.var((0, 1, 2), dtype="float64"), rtol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 5), (11, 1023, 300), (0, 4, 4), (2, 0, 3)])
def test_dense_product_of_prediction(dtype: str, shape: tuple[int, int, int]) -> None:
    samples, inputs, outputs = shape
    random = np.random.default_rng(0)
    x = random.standard_normal((samples, inputs)).astype(dtype)
    kernel = random.standard_normal((inputs, outputs)).astype(dtype)
    out = np.full((samples, outputs), np.nan, dtype)
    rows.dense(x, kernel, out)
    np.testing.assert_allclose(out, x.astype(float) @ kernel, atol=2e-4 if dtype == "float32" else 1e-11)
    if samples > 1:
        alone = np.empty((1, outputs), dtype)
        rows.dense(x[1:2], kernel, alone)
        np.testing.assert_array_equal(alone[0], out[1])


def test_moments_of_many_pixels_keep_their_digits() -> None:
    x = (np.random.default_rng(1).standard_normal((1, 1000, 1000, 2)) + 100).astype("float32")
    mean, variance = rows.moments(x)
    np.testing.assert_allclose(mean, x.mean((0, 1, 2), dtype="float64"), rtol=2e-6)
    np.testing.assert_allclose(variance, x.var((0, 1, 2), dtype="float64"), rtol=1e-4)


def test_bits_do_not_depend_on_threads() -> None:
    import fastconv

    random = np.random.default_rng(2)
    x, y = (random.standard_normal((4, 40, 40, 48)).astype("float32") for _ in range(2))
    before, results = fastconv.get_num_threads(), []
    try:
        for threads in (1, 3):
            fastconv.set_num_threads(threads)
            results.append([*rows.moments(x), *rows.relu_gradient(x, y), *rows.sums_with(x, y, y[0, 0, 0])])
    finally:
        fastconv.set_num_threads(before)
    for one, three in zip(*results, strict=True):
        np.testing.assert_array_equal(one, three)


def test_max_pooling_gradient_goes_to_the_first_maximum_and_to_nan() -> None:
    x = np.zeros((1, 2, 4, 1), "float32")
    x[0, 1, 3] = np.nan
    layer = layers.MaxPooling2D(2)
    y = layer.forward(x)
    assert np.isnan(y[0, 0, 1, 0])
    dx = layer.backward(np.array([[[[2.0], [3.0]]]], "float32"))
    np.testing.assert_array_equal(dx[0, :, :, 0], [[2, 0, 0, 0], [0, 0, 0, 3]])


def test_dropout_keeps_the_mean_and_its_rate() -> None:
    layer = layers.Dropout(0.3, seed=0)
    x = np.ones((100, 1000), "float32")
    y = layer.forward(x, training=True)
    assert (y == 0).mean() == pytest.approx(0.3, abs=0.01)
    assert y.mean() == pytest.approx(1, abs=0.01)
    np.testing.assert_array_equal(layer.backward(x), y)
    np.testing.assert_array_equal(layer.forward(x), x)
    assert not layers.Dropout(1.0).forward(x, training=True).any()


def test_average_pooling_leaves_padding_out() -> None:
    y = layers.AveragePooling2D(3, 1, "same").forward(np.ones((1, 4, 4, 2)))
    np.testing.assert_array_equal(y, np.ones((1, 4, 4, 2)))


def test_defaults_are_those_of_keras() -> None:
    conv = layers.Conv2D(64, 3)
    conv.build((None, 8, 8, 3))
    kernel, bias = conv.get_weights()
    limit = np.sqrt(6 / (9 * 3 + 9 * 64))
    assert kernel.shape == (3, 3, 3, 64)
    assert 0.9 * limit < np.abs(kernel).max() <= limit
    assert not bias.any()
    assert conv.output_shape((None, 8, 8, 3)) == (None, 6, 6, 64)
    norm = layers.BatchNormalization()
    assert (norm.momentum, norm.epsilon) == (0.99, 1e-3)
    assert layers.MaxPooling2D().strides == (2, 2)
    assert layers.LeakyReLU()(np.array([[-1.0]])) == pytest.approx(-0.3)
    assert layers.Conv2DTranspose(1, 2, 3).output_shape((1, 4, 4, 1)) == (1, 12, 12, 1)


def test_channels_first_is_channels_last_turned() -> None:
    x = np.random.default_rng(3).standard_normal((2, 3, 8, 7)).astype("float32")
    first, last = layers.Conv2D(5, 3, 2, "same", data_format="channels_first"), layers.Conv2D(5, 3, 2, "same")
    first.build(x.shape)
    last.build((2, 8, 7, 3))
    last.set_weights(first.get_weights())
    np.testing.assert_array_equal(first(x), last(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2))


def test_a_convolution_equals_the_reference() -> None:
    x = np.random.default_rng(4).standard_normal((2, 12, 12, 32)).astype("float32")
    layer = layers.Conv2D(40, 3, padding="same", activation="relu")
    y = layer(x)
    kernel, bias = layer.get_weights()
    wide = reference.conv2d(
        x.astype(float), kernel.astype(float), bias.astype(float), padding="same", data_format="NHWC", activation="relu"
    )
    np.testing.assert_allclose(y, wide, atol=2e-5)


def test_weights_are_made_when_needed_and_copied_out() -> None:
    layer = layers.Dense(3)
    layer.build((None, 4))
    assert layer.count_params() == 15
    assert not any(p.allocated for p in layer.parameters())
    kernel = layer.get_weights()[0]
    kernel[...] = 7
    assert not (layer.get_weights()[0] == 7).any()


def test_wrong_weights_change_nothing() -> None:
    layer = layers.Dense(3, name="head")
    layer.build((None, 4))
    before = layer.get_weights()
    with pytest.raises(ConvError, match=r"head: bias has shape \(3,\), but got .*\(2,\)"):
        layer.set_weights([np.ones((4, 3)), np.ones(2)])
    with pytest.raises(ConvError, match="2 weights"):
        layer.set_weights([np.ones((4, 3))])
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


REFUSED: list[tuple[Any, type[Exception], str]] = [
    (lambda: layers.Conv2D(0, 3), ConvError, "filters"),
    (lambda: layers.Conv2D(8, 0), ConvError, "kernel_size"),
    (lambda: layers.Conv2D(8, 3, strides=0), ConvError, "strides"),
    (lambda: layers.Conv2D(8, 3, padding="sane"), ConvError, "padding"),
    (lambda: layers.Conv2D(8, 3, padding=-1), ConvError, "padding"),
    (lambda: layers.Conv2D(8, 3, groups=3), ConvError, "groups"),
    (lambda: layers.Conv2D(8, 3.5), ConvTypeError, "kernel_size"),
    (lambda: layers.Conv2D(8, 3, activation="rely"), ConvError, "activation"),
    (lambda: layers.Conv2D(8, 3, data_format="NWHC"), ConvError, "data_format"),
    (lambda: layers.Conv2D(8, 3, kernel_initializer="glorot"), ConvError, "kernel_initializer"),
    (lambda: layers.Conv2D(8, 3, dtype="int32"), ConvTypeError, "dtype"),
    (lambda: layers.Conv2D(8, 3, use_bias=1), ConvTypeError, "use_bias"),
    (lambda: layers.Conv2DTranspose(8, 3, 2, output_padding=2), ConvError, "output_padding"),
    (lambda: layers.DepthwiseConv2D(3, depth_multiplier=0), ConvError, "depth_multiplier"),
    (lambda: layers.TiledConv2D(3, 3, tiles=0), ConvError, "tiles"),
    (lambda: layers.MaxPooling2D(2, padding=2), ConvError, "padding"),
    (lambda: layers.AveragePooling2D(2, padding="full"), ConvError, "padding"),
    (lambda: layers.Dense(-1), ConvError, "units"),
    (lambda: layers.Dense("8"), ConvTypeError, "units"),
    (lambda: layers.Dropout(1.5), ConvError, "rate"),
    (lambda: layers.BatchNormalization(momentum=2), ConvError, "momentum"),
    (lambda: layers.BatchNormalization(axis=2), ConvError, "axis"),
    (lambda: layers.UpSampling2D(0), ConvError, "size"),
    (lambda: layers.UpSampling2D(2, interpolation="cubic"), ConvError, "interpolation"),
    (lambda: layers.ZeroPadding2D(-1), ConvError, "padding"),
    (lambda: layers.Reshape((2, 2, 2, 2, 2)), ConvError, "target_shape"),
    (lambda: layers.Residual([layers.Conv2D]), ConvTypeError, "parentheses"),
    (lambda: layers.Conv2D(8, 5).output_shape((None, 4, 4, 3)), ConvError, "kernel"),
    (lambda: layers.Conv2D(8, 3).output_shape((4, 4)), ConvError, "input_shape"),
    (lambda: layers.Softmax(4).output_shape((2, 3)), ConvError, "axis"),
    (lambda: layers.Residual([layers.Conv2D(8, 3)]).output_shape((8, 8, 8)), ConvError, "shortcut"),
    (lambda: layers.Conv2D(8, 3).get_weights(), ConvError, "build"),
    (lambda: layers.Conv2D(8, 3).backward(np.ones((1, 2, 2, 8))), ConvError, "forward"),
    (lambda: layers.Conv2D(8, 3)(np.ones((4, 4, 3))), ConvError, "batch"),
    (lambda: layers.Dense(3)(np.ones(4)), ConvError, "batch"),
    (lambda: layers.Dense(3)([["a"]]), ConvTypeError, "x"),
    (lambda: layers.LocalResponseNormalization(0), ConvError, "size"),
]


@pytest.mark.parametrize(("call", "error", "word"), REFUSED)
def test_refusals_name_the_argument(call: Any, error: type[Exception], word: str) -> None:
    with pytest.raises(error, match=word):
        call()


def test_other_channels_than_built_for_are_refused() -> None:
    convolutions = [layers.Conv2D(2, 1), layers.Conv2DTranspose(2, 1), layers.DepthwiseConv2D(1)]
    for layer in [*convolutions, layers.TiledConv2D(2, 1), layers.BatchNormalization(), layers.Dense(2)]:
        layer(np.ones((1, 4, 4, 3), "float32"))
        with pytest.raises(ConvError, match=layer.name):
            layer(np.ones((1, 4, 4, 5), "float32"))


@pytest.mark.parametrize("axis", [-1, 1])
def test_the_bits_of_softmax_do_not_follow_how_its_input_lies(axis: int) -> None:
    x = np.random.default_rng(0).standard_normal((2, 9, 3, 33)).astype("float32")
    grad = np.random.default_rng(1).standard_normal(x.shape).astype("float32")
    layer = layers.Softmax(axis)
    y, dx = layer(x), layer.backward(grad)
    np.testing.assert_array_equal(layer(np.asfortranarray(x)), y)
    np.testing.assert_array_equal(layer.backward(np.asfortranarray(grad)), dx)
