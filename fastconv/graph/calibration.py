"""The range of every value of a graph over sample inputs: what 8-bit grids are laid over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from .._core.arrays import Array
from .._core.rounding import PRECISIONS
from ..errors import ConvError
from .graph import Graph, Node, ValueInfo
from .memory import LARGEST_VALUE
from .optimise import EXACT, optimise
from .prepared import Prepared

METHODS: Final = ("minmax", "percentile")
PERCENTILE: Final = 99.99  # of the values of a calibration that the range holds, at either end
BINS: Final = 2048
BATCH: Final = 8  # samples at a time, where the graph leaves that open: all values of the graph are held

Feeds = Mapping[str, Array]
Watched = Callable[[Iterable[Any], int, str], Iterable[Any]]  # so many items, with a word for what they are
Range = tuple[float, float]


def copied(graph: Graph, outputs: Iterable[str] | None = None) -> Graph:
    """A graph of the same operators, which may be rewritten; `outputs` are to be seen outside."""
    nodes = [
        Node(n.op_type, list(n.inputs), list(n.outputs), dict(n.attributes), n.version, n.domain, n.name, list(n.parts))
        for n in graph.nodes
    ]
    shown = graph.outputs if outputs is None else [ValueInfo(name, None, "tensor") for name in outputs]
    return Graph(list(graph.inputs), list(shown), dict(graph.constants), nodes, graph.name)


def batch_of(shapes: Iterable[Sequence[Any] | None]) -> int | None:
    """The number of samples that inputs of these shapes take, where it is fixed."""
    sizes = {shape[0] for shape in shapes if shape and isinstance(shape[0], int) and shape[0] > 0}
    if len(sizes) > 1:
        raise ConvError(
            f"precision='int8' takes models whose inputs are of as many samples each, but got {sorted(sizes)}."
        )
    return next(iter(sizes), None)


def batches(graph: Graph, feeds: Feeds) -> Iterator[dict[str, Array]]:
    """Sample inputs as many at a time as the graph takes, a few where that is open."""
    count, size = len(next(iter(feeds.values()))), batch_of(value.shape for value in graph.inputs) or BATCH
    for first in range(0, count, size):
        yield {name: x[first : first + size] for name, x in feeds.items()}


def checked_calibration(given: Any, shapes: Mapping[str, Sequence[Any] | None], dtypes: Mapping[str, Any]) -> Feeds:
    """The calibration as arrays by input, or a refusal; `shapes` are those of the inputs, None or a name for what is
    open."""
    if given is None:
        raise ConvError(
            "calibration must hold sample inputs for precision='int8', but got None; pass an array of some dozens."
        )
    if not isinstance(given, Mapping):
        if len(shapes) != 1:
            raise ConvError(
                f"calibration must be a dict of arrays for a model with the inputs {', '.join(shapes)}, but got a "
                f"{type(given).__name__}."
            )
        given = {next(iter(shapes)): given}
    if set(given) != set(shapes):
        raise ConvError(f"calibration must hold the inputs {', '.join(shapes)}, but got {', '.join(map(str, given))}.")
    feeds = {name: _checked_samples(name, given[name], shape, dtypes[name]) for name, shape in shapes.items()}
    lengths = {name: len(x) for name, x in feeds.items()}
    if len(set(lengths.values())) > 1:
        raise ConvError(f"calibration must hold as many samples for every input, but got {lengths}.")
    size, count = batch_of(shapes.values()), next(iter(lengths.values()), 0)
    if size is not None and count % size:
        raise ConvError(f"calibration must hold a multiple of {size} samples, as the model takes, but got {count}.")
    floats = [x for x in feeds.values() if x.dtype.kind == "f"]
    if floats and all(x.min() == x.max() for x in floats):
        raise ConvError(
            f"calibration must hold inputs as the model will see them, but all values are {floats[0].flat[0]}."
        )
    return feeds


def _checked_samples(name: str, given: Any, shape: Sequence[Any] | None, dtype: Any) -> Array:
    try:
        x = np.asarray(given)
        if x.dtype.kind not in "fiub":
            raise TypeError(f"elements of type {x.dtype}")
        array: Array = x.astype(dtype, copy=False)
    except (TypeError, ValueError) as error:
        raise ConvError(
            f"calibration must be an array of numbers, but that of {name!r} is none ({error})."
        ) from error
    if shape is not None and (
        array.ndim != len(shape)
        or any(isinstance(n, int) and n != m for n, m in zip(shape[1:], array.shape[1:], strict=True))
    ):
        wanted = ", ".join(str(n) if isinstance(n, int) else "any" for n in shape[1:])
        raise ConvError(f"calibration must have the shape (samples, {wanted}), but got {array.shape}.")
    if not array.ndim or not array.size:
        raise ConvError(f"calibration must hold at least one sample, but is empty: its shape is {array.shape}.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ConvError("calibration must be finite, but holds NaN or infinity.")
    return array


def checked_method(method: object) -> str:
    """One of `METHODS`."""
    if method not in METHODS:
        raise ConvError(f"calibration_method must be one of {', '.join(map(repr, METHODS))}, but got {method!r}.")
    return str(method)


def checked_int8(precision: object, calibration: object, weights_dtype: object = None) -> bool:
    """Whether 8-bit integers are asked for; what else `precision` may be is `checked_halves`' affair."""
    if precision == "int8":
        if weights_dtype is not None:
            raise ConvError(f"precision='int8' holds weights in 8 bits; leave out weights_dtype={weights_dtype!r}.")
        return True
    if isinstance(precision, str) and precision not in PRECISIONS:
        other = "; float16 is for weights alone: weights_dtype='float16'" if precision == "float16" else ""
        words = ", ".join(map(repr, PRECISIONS))
        raise ConvError(f"precision must be one of {words}, 'int8', but got {precision!r}{other}.")
    if calibration is not None:
        raise ConvError("calibration is for precision='int8'; pass that too, or leave calibration out.")
    return False


def checked_labels(labels: Any, samples: int) -> Array | None:
    """Integers, one a sample."""
    if labels is None:
        return None
    array = np.asarray(labels)
    if array.dtype.kind not in "iu" or array.reshape(-1).shape != (samples,):
        raise ConvError(
            f"labels must be {samples} integers, one for each sample of x, but got {array.dtype} of shape "
            f"{array.shape}."
        )
    return array.reshape(-1)


class Statistics(NamedTuple):
    """What a calibration says of the values of a graph, by name."""

    ranges: dict[str, Range]
    peaks: dict[str, Array]  # the largest magnitude of every channel of what convolutions and dense layers read
    means: dict[str, Array]  # their means


def unwatched(items: Iterable[Any], count: int, title: str) -> Iterable[Any]:
    """The items."""
    return items


def observed(
    graph: Graph, feeds: Feeds, method: str, threads: int | None, limit: int = LARGEST_VALUE,
    watched: Watched = unwatched,
) -> Statistics:  # fmt: skip
    """The range of every float value that a node makes or reads, and more of those that products read."""
    names = [name for name in dict.fromkeys(name for node in graph.nodes for name in node.outputs) if name]
    given = [value.name for value in graph.inputs]
    prepared = Prepared(optimise(copied(graph, names), limit, EXACT), threads, limit=limit)
    found = Statistics({}, {}, {})
    by_channel = {node.inputs[0] for node in graph.nodes if node.op_type in ("Conv", "Gemm")}
    samples = len(next(iter(feeds.values())))
    runs = sum(1 for _ in batches(graph, feeds))
    for values in watched(_runs(prepared, feeds, given), runs, "ranges"):
        for name, x in values.items():
            low, high = found.ranges.get(name, (np.inf, -np.inf))
            found.ranges[name] = min(low, float(x.min())), max(high, float(x.max()))
            if name in by_channel and x.ndim > 1:
                axes = (0, *range(2, x.ndim))
                peak, mean = np.abs(x).max(axis=axes), x.mean(axis=axes) * np.float32(len(x) / samples)
                found.peaks[name] = np.maximum(peak, found.peaks.get(name, peak))
                found.means[name] = mean + found.means.get(name, 0)
    if method == "minmax":
        return found
    counts: dict[str, Array] = {}
    for values in watched(_runs(prepared, feeds, given), runs, "percentiles"):
        for name, x in values.items():
            binned = np.histogram(x, BINS, found.ranges[name])[0]
            counts[name] = counts[name] + binned if name in counts else binned
    return found._replace(ranges={name: _percentiles(counts[name], found.ranges[name]) for name in counts})


def _runs(prepared: Prepared, feeds: Feeds, given: Sequence[str]) -> Iterator[dict[str, Array]]:
    """The float32 values of every batch."""
    for part in batches(prepared.graph, feeds):
        values = {**prepared.run(part), **{name: part[name] for name in given}}
        yield {
            name: x for name, x in values.items()
            if isinstance(x, np.ndarray) and x.dtype == np.float32 and x.size and np.isfinite(x).all()
        }  # fmt: skip


def _percentiles(counts: Array, ends: Range) -> Range:
    """The range that holds all but a few values at either end."""
    low, high = ends
    edges = np.linspace(low, high, BINS + 1)
    share = np.cumsum(counts) / counts.sum()
    first = int(np.searchsorted(share, 1 - PERCENTILE / 100, side="right"))
    last = int(np.searchsorted(share, PERCENTILE / 100))
    return float(edges[first]), float(edges[min(last + 1, BINS)])
