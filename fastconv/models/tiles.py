"""A net on an image, a volume or a signal larger than memory, tile by tile and exactly.

Every layer says which of its inputs a tile of its outputs looks at; followed from the result back to the image, that is
the tile's receptive field, without a formula for it. Forward again, a layer computes what was asked of it, padded only
where the tile meets the edge of the whole layer. So a tile's values are those of the whole image, whatever the padding
and the strides, and neighbouring tiles compute nothing twice but the pixels that both look at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import product
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .._core import threads
from .._core.arrays import as_array, is_ndarray, plain
from .._core.geometry import Geometry, tiled_geometries
from .._core.plan import pieces
from .._core.problem import Direction
from .._core.progress import Progress
from .._core.select import wish_for_batch
from .._core.words import Shape, Size, per_axis
from ..errors import ConvError, ConvTypeError
from ..functional import CONVOLUTIONS, TRANSPOSED
from ..layers.activations import LINEAR, Activation, Softmax
from ..layers.base import Layer, Sample, Window, locating
from ..layers.convolution import Conv, ConvTranspose
from ..layers.core import Dense, Dropout, Residual, chain_window
from ..layers.kinds import SeparableConv, TiledConv2D
from ..layers.merging import Concatenate, Merge
from ..layers.normalization import BatchNormalization, LocalResponseNormalization
from ..layers.pooling import AveragePooling, Cropping, MaxPooling, Pooling, UpSampling, ZeroPadding
from ..pooling import MAXIMA, MEANS
from .boxes import Box, Range, Source, cut, grains, is_empty, remembering, windows
from .net import Net
from .summary import windows as windows_of
from .wiring import Call, Wiring

Array = NDArray[Any]


# ---- layers ------------------------------------------------------------------------------------------------------


def _convolved(
    g: Geometry, algorithm: str, weight: Array, bias: Array | None, activation: str | None, outputs: Box, source: Source
) -> Array:
    """A box of the outputs of a convolution `g` of the whole input, with the bits that the whole has."""
    chosen, aligned = pieces(g, weight.dtype, algorithm, threads.effective(None))
    made = grains(outputs, aligned, g.output_size)
    box, pads = windows(g, made, aligned)
    y = CONVOLUTIONS[len(box)](
        source(box), weight, bias, g.stride, pads, g.dilation, g.groups, data_format="channels_last",
        activation=activation, algorithm=chosen,
    )  # fmt: skip
    return cut(y, made, outputs)


def _convolution(layer: Conv, shape: Shape, outputs: Box, source: Source) -> Array:
    g, function = layer.geometry(shape), layer.activation
    bias = None if layer.bias is None else layer.bias.array
    fused = function.fused if function.from_output else None
    y = _convolved(g, wish_for_batch(g, layer.dtype), layer._weight(), bias, fused, outputs, source)
    return y if fused is not None or function is LINEAR else function.value(y)


def _tiled(layer: TiledConv2D, shape: Shape, outputs: Box, source: Source) -> Array:
    """Every kernel makes its own outputs, every tH-th row and tW-th column of all."""
    assert layer.kernel is not None
    bias = None if layer.bias is None else layer.bias.array
    y = np.empty((1, *(end - begin for begin, end in outputs), layer.filters), layer.dtype)
    shared = remembering(source)
    shared(windows(layer.geometry(shape), outputs)[0])  # which of all kernels' windows are the most
    for (a, b), g in tiled_geometries(layer.geometry(shape), layer.tiles):
        own: list[Range] = []
        places: list[slice] = []
        for (begin, end), first, step in zip(outputs, (a, b), layer.tiles, strict=True):
            low, high = (max(0, -(-(place - first) // step)) for place in (begin, end))
            own.append((low, high))
            places.append(slice(low * step + first - begin, None, step))
        if not is_empty((own[0], own[1])):
            y[:, places[0], places[1]] = _convolved(
                g, "auto", layer.kernel.array[a, b], bias, None, (own[0], own[1]), shared
            )
    return y if layer.activation is LINEAR else layer.activation.value(y)


def _transposed(layer: ConvTranspose, shape: Shape, outputs: Box, source: Source) -> Array:
    g = layer.geometry(shape)  # its output is the layer's input
    algorithm, aligned = pieces(g, layer.dtype, "auto", threads.effective(None), Direction.INPUT_GRADIENT)
    made = grains(outputs, aligned, g.input_size)
    box, pads = [], []
    for axis, (begin, end) in enumerate(made):
        reach, stride = (g.kernel_size[axis] - 1) * g.dilation[axis], g.stride[axis]
        before, size = g.padding[axis][0], g.output_size[axis]
        # the inputs that write here, those of the last grain's outputs beyond the end included
        first = min(max(0, -(-(begin + before - reach) // stride)), size)
        last = max(first, min((end + -end % aligned[axis] - 1 + before) // stride + 1, size))
        start = begin + before - first * stride  # of the positions that these inputs write
        box.append((first, last))
        pads.append((start, (last - first - 1) * stride + reach + 1 - start - (end - begin)))
    assert layer.kernel is not None
    y: Array = TRANSPOSED[layer.axes](
        source(tuple(box)), layer.kernel.array, None if layer.bias is None else layer.bias.array, g.stride, pads,
        0, g.groups, g.dilation, data_format="channels_last", algorithm=algorithm,
    )  # fmt: skip
    y = cut(y, made, outputs)
    return y if layer.activation is LINEAR else layer.activation.value(y)


def _pooled(layer: Pooling, shape: Shape, outputs: Box, source: Source) -> Array:
    g = layer.geometry(shape)
    box, pads = windows(g, outputs)
    x = source(box)
    made: Array
    if isinstance(layer, MaxPooling):
        made = MAXIMA[layer.axes](x, g.kernel_size, g.stride, pads, data_format="channels_last")
    else:
        made = MEANS[layer.axes](
            x, g.kernel_size, g.stride, pads, count_include_pad=False, data_format="channels_last"
        )
    return made


def _padded(layer: ZeroPadding, shape: Shape, outputs: Box, source: Source) -> Array:
    box, pads = windows(layer.geometry(shape), outputs)
    return np.pad(source(box), ((0, 0), *pads, (0, 0)))


def _cropped(layer: Cropping, shape: Shape, outputs: Box, source: Source) -> Array:
    return source(tuple((begin + a, end + a) for (begin, end), (a, _) in zip(outputs, layer.sides, strict=True)))


def _enlarged(layer: UpSampling, shape: Shape, outputs: Box, source: Source) -> Array:
    box = tuple((begin // s, -(-end // s)) for (begin, end), s in zip(outputs, layer.size, strict=True))
    y = source(box)
    for axis, factor in enumerate(layer.size, 1):
        y = y.repeat(factor, axis=axis)
    held = tuple((first * s, last * s) for (first, last), s in zip(box, layer.size, strict=True))
    return cut(y, held, outputs)


def _pixelwise(layer: Layer, shape: Shape, outputs: Box, source: Source) -> Array:
    # NumPy's functions may round otherwise where values do not lie side by side, as a whole layer's do
    y = layer.forward(np.ascontiguousarray(source(outputs)))
    layer.release()
    return y


def _residual(layer: Residual, shape: Shape, outputs: Box, source: Source) -> Array:
    """Both paths look at the same pixels, which are computed once, for the path that sees more of them."""
    shared = remembering(source)
    paths = (layer.body, layer.shortcut)
    order = sorted(paths, key=lambda path: chain_window(path, shape)[0], reverse=True)
    first, second = (_chain(path, shape, outputs, shared) for path in order)
    z: Array = first + second
    layer.activation.into(z, z)
    return z


def _sublayers(layer: Layer, shape: Shape, outputs: Box, source: Source) -> Array:
    return _chain(layer.sublayers(), shape, outputs, source)


def _merged(layer: Merge, shapes: Sequence[Shape], outputs: Box, sources: Any) -> Array:
    """`sources` gives the pixels of a box of every input; where a size of 1 is repeated, that is all there is."""
    whole = layer.output_shape([Sample(shape) for shape in shapes])
    boxes = [
        tuple(box if own == full else (0, own) for box, own, full in zip(outputs, shape, whole, strict=False))
        for shape in shapes
    ]
    y = layer.forward(sources(boxes))
    layer.release()
    return y


def _net(net: Any, shape: Any, outputs: Box, source: Any, place: int = 0) -> Array:
    """A box of an output of a net: every value asks those that it is made of. What several ask for is remembered, and
    asked for first by whoever sees more of it."""
    wiring: Wiring = net.wiring
    samples = list(shape) if net.merges else [shape]
    shapes = {number: Sample(sample) for number, sample in enumerate(samples)}
    befores: dict[int, tuple[Call, Any]] = {}
    for call, before, made in wiring.walk(samples):
        shapes.update(zip(call.outputs, made, strict=True))
        befores.update(dict.fromkeys(call.outputs, (call, before)))
    fields = windows_of(wiring, samples) if any(call.several for call in wiring.calls) else {}
    uses = wiring.uses()
    known: dict[int, Source] = {
        number: remembering(one) if uses[number] > 1 else one
        for number, one in enumerate(source if net.merges else [source])
    }

    def part(number: int, box: Box) -> Array:
        call, before = befores[number]
        if is_empty(box):  # windows of padding alone look at nothing, and nothing is computed for them
            return np.empty((1, *(end - begin for begin, end in box), shapes[number][-1]), net.dtype)
        given = [of(source_number) for source_number in call.inputs]
        with locating(call.layer):
            if call.layer.is_net:
                return _net(call.layer, before, box, given if call.several else given[0], call.outputs.index(number))
            taken: Any = _widest_first(call, given, fields) if call.several else given[0]
            return PARTS[type(call.layer).forward](call.layer, before, box, taken)

    def of(number: int) -> Source:
        if number not in known:
            one: Source = partial(part, number)
            known[number] = remembering(one) if uses[number] > 1 else one
        return known[number]

    return of(wiring.outputs[place])(outputs)


def _widest_first(call: Call, given: Sequence[Source], fields: dict[int, Window]) -> Callable[[Sequence[Box]], Any]:
    """A box of each input, in the order of how much they see of what they have in common."""
    order = sorted(range(len(given)), key=lambda at: fields[call.inputs[at]][0], reverse=True)

    def arrays(boxes: Sequence[Box]) -> list[Array]:
        made = {at: given[at](boxes[at]) for at in order}
        return [made[at] for at in range(len(given))]

    return arrays


# How a box of a layer's output is made, by the function that makes all of it: a class that overrides `forward` computes
# what nobody here knows. `PARTS[...](layer, shape, outputs, source)`: `shape` is that of the whole input, whose parts
# `source` gives.
PARTS: Final[dict[Any, Callable[[Any, Any, Box, Any], Array]]] = {
    Conv.forward: _convolution,  # of all numbers of axes, and depthwise ones
    TiledConv2D.forward: _tiled,
    ConvTranspose.forward: _transposed,
    MaxPooling.forward: _pooled,
    AveragePooling.forward: _pooled,
    ZeroPadding.forward: _padded,
    Cropping.forward: _cropped,
    UpSampling.forward: _enlarged,
    Residual.forward: _residual,
    SeparableConv.forward: _sublayers,
    Net.forward: _net,
    Merge.forward: _merged,
    Activation.forward: _pixelwise,
    BatchNormalization.forward: _pixelwise,
    Dense.forward: _pixelwise,
    Dropout.forward: _pixelwise,
    LocalResponseNormalization.forward: _pixelwise,
    Softmax.forward: _pixelwise,
}


def _require_parts(layers: Iterable[Layer], dtype: np.dtype[Any], axes: int) -> None:
    """Refuse layers whose outputs cannot be made a box at a time, at any depth."""
    for layer in layers:
        if type(layer).forward not in PARTS:
            raise ConvError(
                f"{layer.name} ({type(layer).__name__}) needs the whole image as far as tiled_predict knows, which has "
                "a part of it at a time. Use predict, or for Flatten, Dense and GlobalAveragePooling2D "
                "model.to_fully_convolutional()."
            )
        if not layer.channels_last:
            raise ConvError(f"{layer.name} has data_format='channels_first'; tiled_predict takes channels-last nets.")
        if layer.dtype != dtype:
            raise ConvError(
                f"{layer.name} computes in {layer.dtype}, the net in {dtype}; tiled_predict takes nets of one type."
            )
        if isinstance(layer, UpSampling) and layer.interpolation != "nearest":
            raise ConvError(
                f"{layer.name}: tiled_predict has no bilinear interpolation; use UpSampling2D(interpolation='nearest') "
                "or predict."
            )
        if isinstance(layer, Softmax) and layer.axis not in (-1, axes + 1):
            raise ConvError(
                f"{layer.name} has axis={layer.axis}, along which tiled_predict has a part alone; use axis=-1 (the "
                "channels) or predict."
            )
        if isinstance(layer, Concatenate) and layer.axis not in (-1, axes + 1):
            raise ConvError(
                f"{layer.name} has axis={layer.axis}, along which tiled_predict has a part alone; use axis=-1 (the "
                "channels) or predict."
            )
        _require_parts(layer.sublayers(), dtype, axes)


def _chain(layers: Sequence[Layer], shape: Shape, outputs: Box, source: Source) -> Array:
    """A box of the outputs of layers one after another: the last asks the one before it, and so on down to `source`."""
    shapes: list[Any] = [Sample(shape)]
    for layer in layers:
        shapes.append(layer.output_shape(shapes[-1]))

    def at(i: int) -> Source:
        """The output of so many layers."""

        def made(box: Box) -> Array:
            if i == 0:
                return source(box)
            layer = layers[i - 1]
            if is_empty(box):  # windows of padding alone look at nothing, and nothing is computed for them
                return np.empty((1, *(end - begin for begin, end in box), shapes[i][-1]), layer.dtype)
            with locating(layer):
                return PARTS[type(layer).forward](layer, shapes[i - 1], box, at(i - 1))

        return made

    return at(len(layers))(outputs)


# ---- the image ---------------------------------------------------------------------------------------------------


def tiled_predict(
    model: Layer, image: Any, tile: Size = 512, *, out: Any = None, progress: bool = False
) -> Any:
    """A fully convolutional net on one image of any size, in tiles, with the values of the whole image.

    Parameters
    ----------
    model : Sequential or Model
        Built, with one input and one output, of convolutions of every kind, pooling, padding, cropping,
        nearest-neighbour upsampling, residual blocks, sums, products and concatenations of channels, nets of these, and
        layers that see one pixel at a time.
    image : array_like with ``shape`` (H, W, C)
        Or a volume (D, H, W, C) or a signal (W, C), as the net takes. Sliced as ``image[rows, columns]``: an array,
        `numpy.memmap`, zarr or h5py array. Only the pixels that one tile looks at are read at a time.
    tile : int or (int, int)
        Rows and columns (slices, rows and columns of a volume) of the image from one tile to the next: memory grows
        with their product.
    out : writeable, optional
        Where the result goes, an array or a store of its shape, not the image itself; a new array by default.
    progress : bool
        Show a bar.

    Returns
    -------
    ndarray or `out`
        (H', W', C'), channels last. The bits are those of ``model(image[None])``; `predict`, which folds normalisation
        into weights, agrees to rounding. As with `fastconv.dask`, Winograd rounds finite values beside NaN or infinity
        otherwise.

    Raises
    ------
    ConvError
        For a net with a layer that sees the whole image (or whose class computes it in a way of its own), or an image
        or `out` whose shape does not fit; before anything is read or written.
    ConvTypeError
        For what is no layer, or an image whose element type a net does not take.

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
    if is_ndarray(image):
        image = plain(image)
    shape = tuple(getattr(image, "shape", ()))
    axes = model._spatial_axes() or 2
    size = per_axis("tile", tile, 1, axes)
    if len(shape) != axes + 1:
        raise ConvError(
            f"image must have a shape {model._axes_text()}, but got {type(image).__name__} of shape {shape}."
        )
    if model.merges or (isinstance(model, Net) and len(model.wiring.outputs) > 1):
        raise ConvError(f"{model.name} has several inputs or outputs; tiled_predict takes a net with one of each.")
    model._require_built()
    _require_parts((model,), model.dtype, axes)
    result_shape: Any = tuple(model.output_shape(Sample(shape)))
    if len(result_shape) != len(shape):
        raise ConvError(
            f"{model.name} makes a vector {result_shape} of the image; tiled_predict needs a map: "
            "model.to_fully_convolutional() makes one."
        )
    if hasattr(image, "dtype"):
        as_array("image", np.empty(0, image.dtype))
    result = np.empty(result_shape, model.dtype) if out is None else out
    target = plain(result) if is_ndarray(result) else result
    if tuple(target.shape) != result_shape:
        raise ConvError(f"out must have the shape {result_shape} of the result, but got {tuple(target.shape)}.")
    if is_ndarray(result) and is_ndarray(image) and np.may_share_memory(target, plain(image)):
        raise ConvError("out shares memory with image, of which later tiles would read results; pass another array.")

    def source(box: Box) -> Array:
        pixels = as_array("image", image[tuple(slice(*ends) for ends in box)])
        return pixels[None].astype(model.dtype, copy=False)

    # outputs that as many pixels make
    steps = [max(1, n * full // max(1, own)) for n, full, own in zip(size, result_shape[:-1], shape[:-1], strict=True)]
    ranges = [
        [(begin, min(begin + step, end)) for begin in range(0, end, step)]
        for step, end in zip(steps, result_shape[:-1], strict=True)
    ]
    with Progress(prod(map(len, ranges)), model.name, progress, "tiles") as bar:
        for box in product(*ranges):
            target[tuple(slice(*ends) for ends in box)] = _chain((model,), shape, box, source)[0]
            bar.step(1)
    return result
