"""A net on an image larger than memory, tile by tile and exactly.

Every layer says which of its inputs a tile of its outputs looks at; followed from the result back to the image, that is
the tile's receptive field, without a formula for it. Forward again, a layer computes what was asked of it, padded only
where the tile meets the edge of the whole layer. So a tile's values are those of the whole image, whatever the padding
and the strides, and neighbouring tiles compute nothing twice but the pixels that both look at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from . import functional
from .choice import WINOGRAD_TILES
from .errors import ConvError, ConvTypeError
from .geometry import Geometry, PoolGeometry, Shape, Size, pair
from .layers.activations import LINEAR, Activation, Softmax
from .layers.base import Layer, locating
from .layers.convolution import Conv2D, Conv2DTranspose, batch_algorithm
from .layers.core import Dropout, Residual, chain_window
from .layers.kinds import SeparableConv2D
from .layers.normalization import BatchNormalization, LocalResponseNormalization
from .layers.pooling import AveragePooling2D, MaxPooling2D, UpSampling2D, ZeroPadding2D
from .progress import Progress

Array = NDArray[Any]
Range = tuple[int, int]
Box = tuple[Range, Range]  # rows and columns
Pads = tuple[Range, Range]
Source = Callable[[Box], Array]  # the pixels (1, H, W, C) of a box

PIXELWISE: Final = (Activation, BatchNormalization, Dropout, LocalResponseNormalization, Softmax)


# ---- which pixels ------------------------------------------------------------------------------------------------


def needed(outputs: Range, stride: int, extent: int, before: int, size: int, aligned: int) -> tuple[Range, Range]:
    """The positions that windows of these outputs meet, and how many of padding lie before and after them.

    Where outputs are made `aligned` at a time, the positions of the last ones' windows too: padding is then negative.
    """
    first = outputs[0] * stride - before
    last = (outputs[1] - 1) * stride - before + extent
    start = min(max(0, first), size)
    stop = max(start, min(last + (-outputs[1] % aligned) * stride, size))
    if start == stop:  # windows of padding alone
        return (start, stop), (last - first, 0)
    return (start, stop), (start - first, last - stop)


def _windows(
    g: Geometry | PoolGeometry, outputs: Box, aligned: Range = (1, 1)
) -> tuple[Box, Pads]:
    """The box of the input that windows of these outputs meet, and the padding around it."""
    boxes, pads = [], []
    for axis in (0, 1):
        extent = (g.kernel_size[axis] - 1) * g.dilation[axis] + 1
        box, sides = needed(
            outputs[axis], g.stride[axis], extent, g.padding[axis][0], g.input_size[axis], aligned[axis]
        )
        boxes.append(box)
        pads.append(sides)
    return (boxes[0], boxes[1]), (pads[0], pads[1])


def _cut(x: Array, held: Box, wanted: Box) -> Array:
    """The wanted box out of an array that holds another."""
    (top, left), rows, columns = (held[0][0], held[1][0]), wanted[0], wanted[1]
    return x[:, rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left]


# ---- layers ------------------------------------------------------------------------------------------------------


def _convolution(layer: Conv2D, shape: Shape, outputs: Box, source: Source) -> Array:
    g = layer.geometry(shape)
    algorithm = batch_algorithm(g, layer.dtype)
    weight = layer._weight()
    if algorithm == "auto":
        algorithm = functional.explain_conv2d(
            (1, *g.input_size, g.in_channels), weight.shape, g.stride, g.padding, g.dilation, g.groups,
            dtype=layer.dtype, data_format="NHWC",
        ).algorithm  # fmt: skip
    aligned, made = (1, 1), outputs
    if tile := WINOGRAD_TILES.get(algorithm):  # whose sums depend on the place in a tile: begin and end where one does
        aligned = (tile * g.dilation[0], tile * g.dilation[1])
        made = tuple(
            (begin // step * step, min(size, -(-end // step) * step))
            for (begin, end), step, size in zip(outputs, aligned, g.output_size, strict=True)
        )  # type: ignore[assignment]
    box, pads = _windows(g, made, aligned)
    function = layer.activation
    fused = function.fused if function.from_output else None
    y = functional.conv2d(
        source(box), weight, None if layer.bias is None else layer.bias.array, g.stride, pads, g.dilation, g.groups,
        data_format="NHWC", activation=fused, algorithm=algorithm,
    )  # fmt: skip
    if fused is None and function is not LINEAR:
        y = function.value(y)
    return _cut(y, made, outputs)


def _transposed(layer: Conv2DTranspose, shape: Shape, outputs: Box, source: Source) -> Array:
    g = layer.geometry(shape)  # its output is the layer's input
    box, cut = [], []
    for axis, (begin, end) in enumerate(outputs):
        extent, stride, before = (g.kernel_size[axis] - 1) * g.dilation[axis], g.stride[axis], g.padding[axis][0]
        first = min(max(0, -(-(begin + before - extent) // stride)), g.output_size[axis])
        last = max(first, min((end - 1 + before) // stride + 1, g.output_size[axis]))
        box.append((first, last))
        cut.append((begin - first * stride + before, end - first * stride + before))
    x = source((box[0], box[1]))
    assert layer.kernel is not None
    bias = None if layer.bias is None else layer.bias.array
    # enough rows and columns behind the last window, where the layer's own output has more than windows reach
    y = functional.conv_transpose2d(
        x, layer.kernel.array, None, g.stride, 0, 0, g.groups, g.dilation, data_format="NHWC"
    )
    more = [max(0, stop - size) for (_, stop), size in zip(cut, y.shape[1:3], strict=True)]
    if any(more):
        y = np.pad(y, ((0, 0), (0, more[0]), (0, more[1]), (0, 0)))
    y = y[:, cut[0][0] : cut[0][1], cut[1][0] : cut[1][1]]
    if bias is not None:
        y = y + bias
    return y if layer.activation is LINEAR else layer.activation.value(y)


def _pooled(layer: MaxPooling2D | AveragePooling2D, shape: Shape, outputs: Box, source: Source) -> Array:
    g = layer.geometry(shape)
    box, pads = _windows(g, outputs)
    x = source(box)
    if isinstance(layer, MaxPooling2D):
        made = functional.max_pool2d(x, g.kernel_size, g.stride, pads, data_format="NHWC")
        assert isinstance(made, np.ndarray)
        return made
    return functional.avg_pool2d(x, g.kernel_size, g.stride, pads, count_include_pad=False, data_format="NHWC")


def _padded(layer: ZeroPadding2D, shape: Shape, outputs: Box, source: Source) -> Array:
    box, pads = _windows(layer.geometry(shape), outputs)
    return np.pad(source(box), ((0, 0), *pads, (0, 0)))


def _enlarged(layer: UpSampling2D, shape: Shape, outputs: Box, source: Source) -> Array:
    if layer.interpolation != "nearest":
        raise ConvError(
            f"{layer.name}: tiled_predict has no bilinear interpolation; use UpSampling2D(interpolation='nearest') or "
            "predict."
        )
    rows, columns = ((begin // s, -(-end // s)) for (begin, end), s in zip(outputs, layer.size, strict=True))
    y = source((rows, columns)).repeat(layer.size[0], axis=1).repeat(layer.size[1], axis=2)
    held = tuple((first * s, last * s) for (first, last), s in zip((rows, columns), layer.size, strict=True))
    return _cut(y, held, outputs)  # type: ignore[arg-type]


def _residual(layer: Residual, shape: Shape, outputs: Box, source: Source) -> Array:
    """Both paths look at the same pixels, which are computed once, for the path that sees more of them."""
    held: list[tuple[Box, Array]] = []

    def shared(box: Box) -> Array:
        for own, pixels in held:
            if all(a[0] <= b[0] and b[1] <= a[1] for a, b in zip(own, box, strict=True)):
                return _cut(pixels, own, box)
        held.append((box, source(box)))
        return held[-1][1]

    paths = (layer.body, layer.shortcut)
    order = sorted(paths, key=lambda path: chain_window(path, shape)[0], reverse=True)
    first, second = (_chain(path, shape, outputs, shared) for path in order)
    z: Array = first + second
    layer.activation.into(z, z)
    return z


def _layer(layer: Layer, shape: Shape, outputs: Box, source: Source) -> Array:
    """A box of the output of a layer whose whole input has `shape` and whose parts `source` gives."""
    if isinstance(layer, Residual):
        return _residual(layer, shape, outputs, source)
    if getattr(layer, "is_chain", False) or isinstance(layer, SeparableConv2D):
        return _chain(layer.sublayers(), shape, outputs, source)
    if isinstance(layer, Conv2D):
        return _convolution(layer, shape, outputs, source)
    if isinstance(layer, Conv2DTranspose):
        return _transposed(layer, shape, outputs, source)
    if isinstance(layer, (MaxPooling2D, AveragePooling2D)):
        return _pooled(layer, shape, outputs, source)
    if isinstance(layer, ZeroPadding2D):
        return _padded(layer, shape, outputs, source)
    if isinstance(layer, UpSampling2D):
        return _enlarged(layer, shape, outputs, source)
    if isinstance(layer, PIXELWISE):
        y = layer._nhwc(layer.forward(layer._own_order(source(outputs))))
        layer.release()
        return y
    raise ConvError(
        f"{layer.name} ({type(layer).__name__}) looks at the whole image, which tiled_predict does not have; "
        "model.to_fully_convolutional() makes convolutions of Flatten, Dense and GlobalAveragePooling2D."
    )


def _chain(layers: Sequence[Layer], shape: Shape, outputs: Box, source: Source) -> Array:
    """The same of layers one after another: the last asks the one before it, and so on down to `source`."""
    if not layers:
        return source(outputs)
    shapes: list[Any] = [shape]
    for layer in layers:
        shapes.append(layer.output_shape(shapes[-1]))

    def at(i: int) -> Source:
        if i == 0:
            return source

        def made(box: Box) -> Array:
            with locating(layers[i - 1]):
                return _layer(layers[i - 1], shapes[i - 1], box, at(i - 1))

        return made

    return at(len(layers))(outputs)


# ---- the image ---------------------------------------------------------------------------------------------------


def tiled_predict(
    model: Layer, image: Any, tile: Size = 512, *, out: Any = None, progress: bool = False
) -> Any:
    """A fully convolutional net on one image of any size, in tiles, with the values of the whole image.

    Parameters
    ----------
    model : Sequential
        Built, of convolutions (transposed and separable ones too), pooling, padding, nearest-neighbour upsampling,
        residual blocks and layers that see one pixel at a time.
    image : array_like with ``shape`` (H, W, C)
        Sliced as ``image[rows, columns]``: an array, `numpy.memmap`, zarr or h5py array. Only the pixels that one tile
        looks at are read at a time.
    tile : int or (int, int)
        Rows and columns of the image from one tile to the next: memory grows with their product.
    out : writeable, optional
        Where the result goes, an array or a store of its shape; a new array by default.
    progress : bool
        Show a bar.

    Returns
    -------
    ndarray or `out`
        (H', W', C'), channels last. The bits are those of ``model(image[None])``; `predict`, which folds normalisation
        into weights, agrees to rounding, and so do nets with `Conv2DTranspose`. As with `fastconv.dask`, Winograd
        rounds finite values beside NaN or infinity otherwise.

    Raises
    ------
    ConvError
        For a net with a layer that sees the whole image, or an image or `out` whose shape does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import Sequential, layers, tiled_predict
    >>> net = Sequential([layers.Conv2D(4, 3, padding="same"), layers.MaxPooling2D()], input_shape=(8, 8, 1), seed=0)
    >>> image = np.random.default_rng(0).random((50, 70, 1), dtype=np.float32)
    >>> result = tiled_predict(net, image, tile=16)
    >>> result.shape, np.array_equal(result, net(image[None])[0])
    ((25, 35, 4), True)
    """
    if not isinstance(model, Layer):
        raise ConvTypeError(f"model must be a Sequential or a layer, but got {model!r} of type {type(model).__name__}.")
    size = pair("tile", tile, 1)
    shape = tuple(getattr(image, "shape", ()))
    if len(shape) != 3:
        raise ConvError(f"image must have a shape (H, W, C), but got {type(image).__name__} of shape {shape}.")
    model._require_built()
    layers: Sequence[Layer] = model.sublayers() if getattr(model, "is_chain", False) else (model,)
    for layer in layers:
        if not layer.channels_last:
            raise ConvError(f"{layer.name} has data_format='channels_first'; tiled_predict takes channels-last nets.")
    result_shape: Any = model.output_shape(shape)
    if len(result_shape) != 3:
        raise ConvError(
            f"{model.name} makes a vector {result_shape} of the image; tiled_predict needs a map: "
            "model.to_fully_convolutional() makes one."
        )
    if out is None:
        out = np.empty(result_shape, model.dtype)
    elif tuple(out.shape) != result_shape:
        raise ConvError(f"out must have the shape {result_shape} of the result, but got {tuple(out.shape)}.")

    def source(box: Box) -> Array:
        rows, columns = box
        pixels = np.asarray(image[rows[0] : rows[1], columns[0] : columns[1]])
        return pixels[None].astype(model.dtype, copy=False)

    # outputs that as many pixels make
    steps = [max(1, n * full // max(1, own)) for n, full, own in zip(size, result_shape[:2], shape[:2], strict=True)]
    ranges = [
        [(begin, min(begin + step, end)) for begin in range(0, end, step)]
        for step, end in zip(steps, result_shape[:2], strict=True)
    ]
    with Progress(len(ranges[0]) * len(ranges[1]), model.name, progress, "tiles") as bar:
        for rows, columns in product(*ranges):
            out[rows[0] : rows[1], columns[0] : columns[1]] = _chain(layers, shape, (rows, columns), source)[0]
            bar.step(1)
    return out
