"""`tiled_predict`: the bits of the whole image from tiles of any size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pieces import described, random_net
from settings import COUNT

from fastconv import ConvError, ConvTypeError, Sequential, layers, tiled_predict
from fastconv.layers import (
    Activation,
    AveragePooling2D,
    BatchNormalization,
    Conv2D,
    Conv2DTranspose,
    Dense,
    DepthwiseConv2D,
    Flatten,
    GlobalAveragePooling2D,
    MaxPooling2D,
    Reshape,
    Residual,
    SeparableConv2D,
    Softmax,
    UpSampling2D,
    ZeroPadding2D,
)
from fastconv.models.tiles import PARTS

SIZE = (93, 118, 3)


def _nets() -> dict[str, list[Any]]:
    same: dict[str, Any] = {"padding": "same"}
    return {
        "valid": [Conv2D(8, 3, activation="relu"), Conv2D(8, 5, strides=2)],
        "same_with_strides": [
            Conv2D(8, 3, strides=2, **same), MaxPooling2D(3, 2, **same), Conv2D(8, 5, 3, activation="silu", **same)
        ],
        "winograd": [Conv2D(32, 3, activation="relu", **same) for _ in range(3)] + [MaxPooling2D()],
        # at what the padding cuts off the last, ragged tiles look
        "winograd_cropped": [Conv2D(32, 1), Conv2D(32, 3, padding=((1, -2), (0, -1)))],
        "winograd_dilated": [Conv2D(64, 3, dilation_rate=2, **same), Conv2D(64, 3, dilation_rate=3, **same)],
        "winograd_strided": [Conv2D(64, 1), Conv2D(64, 3, 2, activation="relu"), Conv2D(64, 3, 2, **same)],
        "winograd_transposed": [
            Conv2D(32, 1, 2), Conv2DTranspose(32, 4, 2, output_padding=0, **same), Conv2DTranspose(32, 3, **same),
            Conv2DTranspose(8, 3, dilation_rate=2),
        ],
        "depthwise": [DepthwiseConv2D(3, **same), SeparableConv2D(8, 5, 2, activation="relu"), Activation("tanh")],
        "averages": [AveragePooling2D(3, 1, **same), ZeroPadding2D(((1, 2), (3, 0))), Conv2D(4, 4)],
        "residual": [
            Conv2D(16, 3, **same),
            Residual(
                [Conv2D(16, 3, strides=2, **same), BatchNormalization(), Activation("relu"), Conv2D(16, 3, **same)],
                [Conv2D(16, 1, strides=2)], "relu",
            ),
            Residual([Conv2D(16, 3, **same)], activation="relu"),
        ],
        "up_and_down": [MaxPooling2D(), Conv2D(8, 3, **same), UpSampling2D(3), Conv2D(4, 3)],
        "nested": [Sequential([Conv2D(8, 3), Conv2D(8, 3, **same)]), MaxPooling2D(3, 2)],
    }  # fmt: skip


def _net(name: str) -> Sequential:
    return Sequential(_nets()[name], input_shape=SIZE, seed=0)


@pytest.mark.parametrize("name", _nets())
@pytest.mark.parametrize("tile", [(31, 40), 64, (7, 200)])
def test_bits_are_those_of_the_whole_image(name: str, tile: Any) -> None:
    net = _net(name)
    image = np.random.default_rng(1).standard_normal(SIZE).astype("float32")
    assert_array_equal(tiled_predict(net, image, tile), net(image[None])[0], strict=True)
    assert_allclose(tiled_predict(net, image, tile), net.predict(image[None], verbose=0)[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", [{"strides": 2, "padding": "same"}, {"strides": 3}, {"padding": "same"}])
def test_transposed_convolutions_have_the_bits_too(options: dict[str, Any]) -> None:
    net = Sequential([Conv2D(8, 3), Conv2DTranspose(6, 4, activation="relu", **options)], input_shape=SIZE, seed=0)
    image = np.random.default_rng(2).standard_normal(SIZE).astype("float32")
    assert_array_equal(tiled_predict(net, image, 29), net(image[None])[0])


def test_tiles_in_a_border_of_zeros() -> None:
    net = Sequential(
        [Conv2D(4, 3, padding="same"), MaxPooling2D(2), ZeroPadding2D(3), Conv2DTranspose(2, 1, 2, output_padding=0)],
        input_shape=(21, 20, 1), seed=0,
    )  # fmt: skip
    image = np.random.default_rng(6).random((21, 20, 1), dtype=np.float32)
    for tile in (1, 2, 5, 10):
        assert_array_equal(tiled_predict(net, image, tile), net(image[None])[0])


@pytest.mark.parametrize("seed", range(4))
def test_random_nets_have_the_bits_of_the_whole_image(seed: int) -> None:
    for number in range(max(5, min(30, COUNT // 100))):
        net, image, tiles = random_net((seed, number))
        wanted = net(image[None])[0]
        for tile in tiles:
            got = tiled_predict(net, image, tile)
            assert_array_equal(got, wanted, strict=True, err_msg=f"{image.shape} {tile} {described(net)}")


class Watched:
    """An image that remembers how much of it was read at a time."""

    def __init__(self, array: Any) -> None:
        self.array, self.shape, self.most, self.reads = array, array.shape, 0, 0

    def __getitem__(self, key: Any) -> Any:
        part = self.array[key]
        self.most, self.reads = max(self.most, part.size), self.reads + 1
        return part


def test_residual_blocks_compute_what_they_share_once() -> None:
    net = Sequential([Residual([Conv2D(1, 3, padding="same")]) for _ in range(5)], input_shape=(40, 40, 1), seed=0)
    image = Watched(np.random.default_rng(5).random((40, 40, 1), dtype=np.float32))
    assert_array_equal(tiled_predict(net, image, 20), net(image.array[None])[0])
    assert image.reads == 4  # one a tile, not 2 ** 5


def test_only_the_receptive_field_is_read_and_out_may_be_a_file(tmp_path: Any) -> None:
    net = Sequential([Conv2D(4, 3), Conv2D(4, 3, strides=2)], input_shape=(9, 9, 1), seed=0)
    image = Watched(np.random.default_rng(3).random((400, 300, 1), dtype=np.float32))
    shape = net.output_shape(image.shape)
    out = np.memmap(tmp_path / "out", np.float32, "w+", shape=shape)
    assert tiled_predict(net, image, 40, out=out) is out
    assert image.most <= (40 + 4) ** 2
    assert_array_equal(out, net(image.array[None])[0])


def test_integers_are_read_as_the_net_reads_them() -> None:
    net = _net("valid")
    image = np.random.default_rng(4).integers(0, 255, SIZE).astype("uint8")
    assert_array_equal(tiled_predict(net, image, 50), net(image[None])[0])


class Untouched:
    """An image, or a place for a result, that must not be used."""

    def __init__(self, *shape: int) -> None:
        self.shape, self.dtype = shape, np.dtype("float32")

    def __getitem__(self, key: Any) -> Any:
        raise AssertionError("read")

    def __setitem__(self, key: Any, value: Any) -> None:
        raise AssertionError("written")


class Centred(Conv2D):
    """A layer of the caller's own."""

    def forward(self, x: Any, training: bool = False) -> Any:
        return super().forward(x - x.mean(), training)


def test_every_layer_is_made_in_parts_or_known_to_need_the_whole_image() -> None:
    classes = [getattr(layers, name) for name in layers.__all__]
    made = [one for one in classes if issubclass(one, layers.Layer) and one.forward not in PARTS]
    assert {one.__name__ for one in made} == {"Flatten", "Layer", "Reshape"} | {
        f"Global{kind}Pooling{axes}D" for kind in ("Average", "Max") for axes in (1, 2, 3)
    }


WHOLE: list[tuple[Any, str]] = [  # layers that keep the shape of the image
    (lambda: [Flatten(), Reshape((20, 20, 3))], "to_fully_convolutional"),
    (lambda: [GlobalAveragePooling2D(keepdims=True), UpSampling2D(20)], "whole image"),
    (lambda: [Reshape((20, 20, 3))], "whole image"),
    (lambda: [Centred(3, 3, padding="same")], "Centred"),
    (lambda: [UpSampling2D(1, interpolation="bilinear")], "bilinear"),
    (lambda: [Softmax(1)], "axis=1"),
    (lambda: [Softmax(-2)], "axis=-2"),
    (lambda: [BatchNormalization(axis=1)], "channels_first"),
    (lambda: [Residual([Conv2D(3, 3, padding="same", dtype="float64")])], "float64"),
]


@pytest.mark.parametrize(("chain", "message"), WHOLE)
def test_what_needs_the_whole_image_is_refused_before_anything_is_read(chain: Any, message: str) -> None:
    for wrapped in (chain(), [Sequential([Sequential(chain())])], [Residual([Conv2D(3, 1)], chain())]):
        net = Sequential([Conv2D(3, 3, padding="same"), *wrapped], input_shape=(20, 20, 3), seed=0)
        with pytest.raises(ConvError, match=message):
            tiled_predict(net, Untouched(20, 20, 3), 8, out=Untouched(20, 20, 3))


def test_refusals() -> None:
    net = _net("valid")
    with pytest.raises(ConvError, match="shape \\(H, W, C\\)"):
        tiled_predict(net, np.ones((1, *SIZE)))
    with pytest.raises(ConvError, match="out must have the shape"):
        tiled_predict(net, np.ones(SIZE), out=np.ones((2, 2, 2)))
    net = Sequential([Conv2D(3, 3, padding="same")], input_shape=SIZE)
    image = np.ones(SIZE, "float32")
    with pytest.raises(ConvError, match="shares memory"):
        tiled_predict(net, image, out=image)
    with pytest.raises(ConvTypeError, match="complex"):
        tiled_predict(net, np.ones(SIZE, complex))
    with pytest.raises(ConvError, match="larger than the padded input"):
        tiled_predict(Sequential([Conv2D(2, 5)], input_shape=SIZE), Untouched(3, 9, 3))
    with pytest.raises(ConvTypeError, match="model must be"):
        tiled_predict("net", np.ones(SIZE))  # type: ignore[arg-type]
    with pytest.raises(ConvError, match="to_fully_convolutional"):
        tiled_predict(Sequential([Flatten(), Dense(3)], input_shape=SIZE), np.ones(SIZE))
    with pytest.raises(ConvError, match="bilinear"):
        tiled_predict(Sequential([UpSampling2D(interpolation="bilinear")], input_shape=SIZE), np.ones(SIZE))
    with pytest.raises(ConvError, match="channels_first"):
        first = Sequential([Conv2D(2, 3, data_format="channels_first")], input_shape=(3, 20, 20))
        tiled_predict(first, np.ones((3, 20, 20)))
