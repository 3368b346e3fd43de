"""`tiled_predict`: the bits of the whole image from tiles of any size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fastconv import ConvError, ConvTypeError, Sequential, tiled_predict
from fastconv.layers import (
    Activation,
    AveragePooling2D,
    BatchNormalization,
    Conv2D,
    Conv2DTranspose,
    Dense,
    DepthwiseConv2D,
    Flatten,
    MaxPooling2D,
    Residual,
    SeparableConv2D,
    UpSampling2D,
    ZeroPadding2D,
)

SIZE = (93, 118, 3)


def _nets() -> dict[str, list[Any]]:
    same: dict[str, Any] = {"padding": "same"}
    return {
        "valid": [Conv2D(8, 3, activation="relu"), Conv2D(8, 5, strides=2)],
        "same_with_strides": [
            Conv2D(8, 3, strides=2, **same), MaxPooling2D(3, 2, **same), Conv2D(8, 5, 3, activation="silu", **same)
        ],
        "winograd": [Conv2D(32, 3, activation="relu", **same) for _ in range(4)] + [MaxPooling2D()],
        "winograd_dilated": [Conv2D(64, 3, dilation_rate=2, **same), Conv2D(64, 3, dilation_rate=3, **same)],
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
def test_transposed_convolutions_agree_to_rounding(options: dict[str, Any]) -> None:
    net = Sequential([Conv2D(8, 3), Conv2DTranspose(6, 4, activation="relu", **options)], input_shape=SIZE, seed=0)
    image = np.random.default_rng(2).standard_normal(SIZE).astype("float32")
    assert_allclose(tiled_predict(net, image, 29), net(image[None])[0], rtol=1e-5, atol=1e-5)


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


def test_refusals() -> None:
    net = _net("valid")
    with pytest.raises(ConvError, match="shape \\(H, W, C\\)"):
        tiled_predict(net, np.ones((1, *SIZE)))
    with pytest.raises(ConvError, match="out must have the shape"):
        tiled_predict(net, np.ones(SIZE), out=np.ones((2, 2, 2)))
    with pytest.raises(ConvTypeError, match="model must be"):
        tiled_predict("net", np.ones(SIZE))  # type: ignore[arg-type]
    with pytest.raises(ConvError, match="to_fully_convolutional"):
        tiled_predict(Sequential([Flatten(), Dense(3)], input_shape=SIZE), np.ones(SIZE))
    with pytest.raises(ConvError, match="bilinear"):
        tiled_predict(Sequential([UpSampling2D(interpolation="bilinear")], input_shape=SIZE), np.ones(SIZE))
    with pytest.raises(ConvError, match="channels_first"):
        first = Sequential([Conv2D(2, 3, data_format="channels_first")], input_shape=(3, 20, 20))
        tiled_predict(first, np.ones((3, 20, 20)))
