"""`conv1d`, `conv2d` and `conv3d` of dask arrays: larger than memory, or than one machine.

A block of the result is one task: it takes the pieces of the input that its windows meet, at the edge of the array with
the padding that belongs there, and calls fastconv's function on one thread. dask's schedulers (threads, processes,
distributed) decide where. The bits are those of that function of the whole array, as the algorithm is chosen from
its shape and blocks begin where its sums begin anew (`pieces`). One exception: where NaN or infinity lies, the fast
algorithms compute a part of the image another way (Winograd a row of tiles, the others all of it), and a block's
part is smaller than the array's, so that finite values near by may round differently; `algorithm="direct"` has no
such parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

try:
    import dask.array as da
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph
except ImportError as error:
    raise ImportError("fastconv.dask needs dask: pip install fastconv[dask]") from error

from ._core.documented import like
from ._core.geometry import conv_geometry, extents
from ._core.layouts import layout
from ._core.plan import pieces
from ._core.threads import effective
from ._core.words import Padding, Size
from .errors import ConvError, ConvTypeError
from .functional import CONVOLUTIONS
from .models.boxes import Range, needed

NUMPY_MODES: Final = {"reflect": "reflect", "replicate": "edge", "circular": "wrap", "symmetric": "symmetric"}

Pads = tuple[Range, ...]


def conv2d(
    input: Any,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    data_format: str = "NCHW",
    activation: str | None = None,
    algorithm: str = "auto",
) -> Any:
    """Convolve a dask array: `fastconv.conv2d` as tasks; nothing is computed yet.

    Parameters
    ----------
    input : dask.array.Array
        Shape (N, C, H, W), or (N, H, W, C) with ``data_format="NHWC"``; the batch may be left out. Chunks may have any
        size along the batch, height and width; channels are gathered into one chunk.
    weight, bias : array_like
        NumPy arrays as for `fastconv.conv2d`.
    stride, padding, dilation, groups : int, pair or str
        As for `fastconv.conv2d`.
    padding_mode, data_format, activation, algorithm : str
        As for `fastconv.conv2d`.

    Returns
    -------
    dask.array.Array
        Chunked as the input is: a chunk of n rows becomes one of about n / stride. Strassen's algorithms, whose sums
        run from row to row, make one chunk of the width.

    Raises
    ------
    ConvError
        As `fastconv.conv2d` does for the whole array, before anything is computed.
    ConvTypeError
        The same, for types.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> from fastconv.dask import conv2d
    >>> image = da.ones((1, 1, 6, 8), chunks=(1, 1, 3, 4))
    >>> result = conv2d(image, np.ones((1, 1, 3, 3)), padding=1, stride=2)
    >>> result.chunks
    ((1,), (1,), (2, 1), (2, 2))
    >>> result.sum().compute()
    np.float64(88.0)
    """
    return _convolve(
        2, input, weight, bias, stride, padding, dilation, groups, padding_mode, data_format, activation, algorithm
    )


@like(conv2d, 1)
def conv1d(
    input: Any,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    data_format: str = "NCW",
    activation: str | None = None,
    algorithm: str = "auto",
) -> Any:
    return _convolve(
        1, input, weight, bias, stride, padding, dilation, groups, padding_mode, data_format, activation, algorithm
    )


@like(conv2d, 3)
def conv3d(
    input: Any,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    data_format: str = "NCDHW",
    activation: str | None = None,
    algorithm: str = "auto",
) -> Any:
    return _convolve(
        3, input, weight, bias, stride, padding, dilation, groups, padding_mode, data_format, activation, algorithm
    )


def _convolve(
    axes: int, input: Any, weight: ArrayLike, bias: ArrayLike | None, stride: Size, padding: Padding, dilation: Size,
    groups: int, padding_mode: str, data_format: str, activation: str | None, algorithm: str,
) -> Any:  # fmt: skip
    if not isinstance(input, da.Array):
        raise ConvTypeError(
            f"input must be a dask array, but got a {type(input).__name__}; fastconv.conv{axes}d takes NumPy arrays."
        )
    if any(np.isnan(size) for size in input.shape):
        raise ConvError(f"input must have known chunk sizes, but got shape {input.shape}; call compute_chunk_sizes().")
    frame = layout(data_format, axes)
    shape, batched = frame.logical_shape("input", input.shape)
    kernel = np.asarray(weight)
    shift = None if bias is None else np.asarray(bias)
    options: dict[str, Any] = {"groups": groups, "data_format": data_format, "activation": activation}
    # an empty batch checks every argument, and says the type of the result
    none = np.empty(frame.from_logical_shape((0, *shape[1:])), input.dtype)
    empty = CONVOLUTIONS[axes](
        none, kernel, shift, stride, padding, dilation, padding_mode=padding_mode, algorithm=algorithm, **options
    )
    g = conv_geometry(
        shape, frame.logical_weight_shape("weight", kernel.shape), stride, padding, dilation, groups, padding_mode,
        name=f"conv{axes}d",
    )  # fmt: skip
    chosen, aligned = pieces(g, input.dtype, algorithm, effective(None))
    rows = 2 - frame.channels_last  # the first spatial axis
    x = input if batched else input[None]
    x = x.rechunk({axes + 1 if frame.channels_last else 1: -1})
    # cut where the chunks of the unpadded input are
    cuts = [np.cumsum(x.chunks[rows + axis])[:-1] for axis in range(axes)]
    pads = list(g.padding)
    if g.padding_mode != "zeros":
        # the last outputs of a grain may look beyond the padding, at what cancels but for rounding
        more = [-n % own * step for n, own, step in zip(g.output_size, aligned, g.stride, strict=True)]
        wide = [(before, max(0, after) + extra) for (before, after), extra in zip(pads, more, strict=True)]
        x = _padded(x, rows, wide, g.padding_mode)
        cuts = [cut + max(0, pads[axis][0]) for axis, cut in enumerate(cuts)]
        pads = [(min(0, before), min(0, after)) for before, after in pads]
    ranges = []
    for axis in range(axes):
        ends = {-(-int(cut) // g.stride[axis]) // aligned[axis] * aligned[axis] for cut in cuts[axis]} - {0}
        edges = [0, *sorted(end for end in ends if end < g.output_size[axis]), g.output_size[axis]]
        ranges.append(list(pairwise(edges)))
    options |= {"stride": g.stride, "dilation": g.dilation, "algorithm": chosen}
    result = _graph(x, kernel, shift, g, pads, ranges, aligned, rows, empty, options)
    return result if batched else result[0]


def _padded(x: Any, rows: int, pads: Sequence[Range], mode: str) -> Any:
    """The input extended by what its borders repeat; negative padding is left for later."""
    for axis, (before, after) in enumerate(pads):
        sides = (max(0, before), max(0, after))
        size = x.shape[rows + axis]
        place: NDArray[Any] = np.pad(np.arange(size), sides, NUMPY_MODES[mode])  # type: ignore[call-overload]
        parts = [da.take(x, place[: sides[0]], rows + axis), x, da.take(x, place[sides[0] + size :], rows + axis)]
        x = da.concatenate([part for part in parts if part.shape[rows + axis] or part is x], rows + axis)
    return x


def _pieces(chunks: Sequence[int], wanted: Range) -> list[tuple[int, slice]]:
    """Which part of which chunk lies in a range of positions; of an empty range an empty part."""
    found, begin = [], 0
    for number, size in enumerate(chunks):
        part = slice(max(0, wanted[0] - begin), min(size, wanted[1] - begin))
        if part.start < part.stop:
            found.append((number, part))
        begin += size
    return found or [(0, slice(0, 0))]


def _graph(
    x: Any,
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    g: Any,
    pads: Sequence[Range],
    ranges: list[list[Range]],
    aligned: Sequence[int],
    rows: int,
    empty: NDArray[Any],
    options: dict[str, Any],
) -> Any:
    """A task for every piece that is not a whole chunk, and one for every block of the result."""
    axes = len(ranges)
    name = f"fastconv-conv{axes}d-" + tokenize(x.name, weight, bias, ranges, pads, sorted(options.items(), key=str))
    tasks: dict[Any, Any] = {f"{name}-weight": weight, f"{name}-bias": bias}
    spans = extents(g.kernel_size, g.dilation)
    along: list[list[tuple[list[tuple[int, slice]], Range]]] = []
    for axis in range(axes):
        along.append([])
        for outputs in ranges[axis]:
            size = x.shape[rows + axis]
            wanted, sides = needed(outputs, g.stride[axis], spans[axis], pads[axis][0], size, aligned[axis])
            along[axis].append((_pieces(x.chunks[rows + axis], wanted), sides))
    spare = (0,) if rows == 2 else ()  # the one chunk of channels, before or behind the spatial axes

    def key(prefix: str, n: int, place: Sequence[int]) -> tuple[Any, ...]:
        return (prefix, n, *spare, *place) if spare else (prefix, n, *place, 0)

    def piece(n: int, chosen: Sequence[tuple[int, slice]]) -> Any:
        """The key of a part of a chunk; neighbours are sent what they need of a chunk alone."""
        source = key(x.name, n, [number for number, _ in chosen])
        sizes = [x.chunks[rows + axis][number] for axis, (number, _) in enumerate(chosen)]
        parts = [part for _, part in chosen]
        if all((part.start, part.stop) == (0, size) for part, size in zip(parts, sizes, strict=True)):
            return source
        numbers = tuple(end for part in parts for end in (part.start, part.stop))
        target = (f"{name}-piece", *source[1:], *numbers)
        tasks[target] = (_part, source, rows, numbers)
        return target

    def nested(n: int, chosen: tuple[tuple[int, slice], ...], rest: Sequence[list[tuple[int, slice]]]) -> Any:
        """The keys of a block's pieces, a list in a list for every axis."""
        return [nested(n, (*chosen, part), rest[1:]) for part in rest[0]] if rest else piece(n, chosen)

    for n, *places in product(range(len(x.chunks[0])), *map(enumerate, along)):
        blocks = nested(n, (), [pieces_along for _, (pieces_along, _) in places])
        sides = tuple(side for _, (_, side) in places)
        target = key(name, n, [place for place, _ in places])
        tasks[target] = (_block, blocks, rows, f"{name}-weight", f"{name}-bias", sides, options)
    sizes = [tuple(stop - start for start, stop in part) for part in ranges]
    channels = (g.out_channels,)
    chunks = (x.chunks[0], channels, *sizes) if spare else (x.chunks[0], *sizes, channels)
    graph = HighLevelGraph.from_collections(name, tasks, dependencies=[x])
    return da.Array(graph, name, chunks, meta=np.empty((0,) * (axes + 2), empty.dtype))


def _part(chunk: NDArray[Any], rows: int, numbers: tuple[int, ...]) -> NDArray[Any]:
    """A box of a chunk: (begin, end) along every spatial axis, flat."""
    every: list[Any] = [slice(None)] * rows
    return chunk[(*every, *map(slice, numbers[::2], numbers[1::2]))]


def _joined(pieces: Any, axis: int) -> NDArray[Any]:
    """Pieces in lists in lists as one array."""
    if not isinstance(pieces, list):
        whole: NDArray[Any] = pieces
        return whole
    parts = [_joined(piece, axis + 1) for piece in pieces]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis)


def _block(
    pieces: list[Any],
    rows: int,
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    pads: Pads,
    options: dict[str, Any],
) -> NDArray[Any]:
    """One block of the result on one thread."""
    y: NDArray[Any] = CONVOLUTIONS[len(pads)](
        _joined(pieces, rows), weight, bias, padding=pads, num_threads=1, **options
    )
    return y
