"""A float graph made one of bytes by a calibration, and how far its values are from the floats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log10
from typing import Any, Final

import numpy as np

from .._core.arrays import Array
from ..errors import ConvError
from .calibration import Feeds, Statistics, Watched, batch_of, batches, copied, observed, unwatched
from .equalise import equalise
from .graph import Graph
from .memory import LARGEST_VALUE
from .optimise import EXACT, INTEGERS, optimise
from .prepared import Prepared
from .quantise import quantised, simplified
from .summary import columns

MOST_SAMPLES: Final = 32  # of a calibration that a report looks at, unless it is given others


@dataclass(frozen=True)
class LayerError:
    """How far the bytes of a value are from its floats.

    Parameters
    ----------
    name : str
        The value.
    operators : str
        Who makes it.
    sqnr : float
        Signal to quantisation noise, in decibels: six a bit; infinite where there is no error.
    largest : float
        The largest error.
    range : (float, float)
        What the grid of the value holds.
    """

    name: str
    operators: str
    sqnr: float
    largest: float
    range: tuple[float, float]


@dataclass(frozen=True)
class QuantisationReport:
    """The errors of a quantised net, layer by layer; print it for a table.

    Parameters
    ----------
    layers : list of LayerError
        In the order of the net; the outputs of the net last.
    samples : int
        On how many samples.
    agreement : float or None
        The share of samples for which the largest output is the same; None where the first output is no vector.
    accuracy : float or None
        The share of samples whose largest output is that of the label, where labels were given.
    float_accuracy : float or None
        The same of the net in floats.
    """

    layers: list[LayerError]
    samples: int
    agreement: float | None = None
    accuracy: float | None = None
    float_accuracy: float | None = None

    @property
    def lost(self) -> float | None:
        """Accuracy lost, in points: hundredths."""
        if self.accuracy is None or self.float_accuracy is None:
            return None
        return 100 * (self.float_accuracy - self.accuracy)

    def __str__(self) -> str:
        lines = [("SQNR dB", "largest error", "range", "operators", "value")]
        lines += [
            (f"{e.sqnr:.1f}", f"{e.largest:.3g}", f"{e.range[0]:.3g} .. {e.range[1]:.3g}", e.operators, e.name)
            for e in self.layers
        ]
        text = [*columns(lines), f"{self.samples} samples"]
        if self.agreement is not None:
            text.append(f"the largest output is that of the floats in {self.agreement:.2%}")
        if self.lost is not None and self.accuracy is not None and self.float_accuracy is not None:
            text.append(
                f"accuracy {self.accuracy:.2%}, in floats {self.float_accuracy:.2%}: {self.lost:+.2f} points lost"
            )
        return "\n".join(text)


class Calibrated:
    """A float graph with the ranges of its values: makes the graph of bytes, and reports."""

    def __init__(
        self, graph: Graph, feeds: Feeds | None, method: str, threads: int | None = None,
        statistics: Statistics | None = None, *, limit: int = LARGEST_VALUE, computing: str | None = INTEGERS,
        watched: Watched = unwatched,
    ) -> None:  # fmt: skip
        """The graph is used up. `statistics` are those of an earlier calibration, in place of `feeds`. No value is
        larger than `limit`; `computing` is how 8-bit operators do, None as the graph has them. Who calibrates is
        `watched`."""
        self._graph, self._threads, self._limit, self._computing = simplified(graph), threads, limit, computing
        if statistics is None:
            assert feeds is not None
            statistics = observed(self._graph, feeds, method, threads, limit, watched)
        self.statistics = statistics
        size = batch_of(value.shape for value in graph.inputs) or 1
        most = max(size, MOST_SAMPLES // size * size)
        self._feeds = {} if feeds is None else {name: x[:most].copy() for name, x in feeds.items()}  # not all of them

    @property
    def samples(self) -> int:
        """How many samples of the calibration are kept for a report."""
        return len(next(iter(self._feeds.values()), ()))

    def graph(self) -> Graph:
        """The graph of bytes."""
        return self._optimised(self._quantised()[0])

    def standard(self) -> Graph:
        """The graph with QuantizeLinear and DequantizeLinear around operators on floats, as files have it."""
        made = self._quantised()[0]
        made.remove_unused()
        return made

    def _optimised(self, graph: Graph) -> Graph:
        return graph if self._computing is None else optimise(graph, self._limit, self._computing)

    def _quantised(self) -> tuple[Graph, list[str], dict[str, Array]]:
        """The graph with quantised values, their names, and by which factors their channels were multiplied."""
        graph = copied(self._graph)
        factors = equalise(graph, self.statistics)
        means = {name: x * factors.get(name, np.float32(1)) for name, x in self.statistics.means.items()}
        return (*quantised(graph, self.statistics._replace(means=means)), factors)

    def report(self, feeds: Feeds | None = None, labels: Array | None = None) -> QuantisationReport:
        """Of these samples; of some of the calibration where there are none."""
        feeds = feeds or self._feeds
        made, chosen, factors = self._quantised()
        makers = {name: "+".join(node.parts) for node in self._graph.nodes for name in node.outputs}
        chosen = [name for name in chosen if name in makers]
        outputs = [value.name for value in self._graph.outputs]
        names = list(dict.fromkeys([*chosen, *outputs]))
        ours = Prepared(self._optimised(copied(made, names)), self._threads, limit=self._limit)
        floats = optimise(copied(self._graph, names), self._limit, EXACT)
        plain = Prepared(floats, self._threads, limit=self._limit)
        sums = {name: np.zeros(3) for name in names}  # signal, noise, the largest error
        tops: list[tuple[Array, Array]] = []
        for part in batches(self._graph, feeds):
            got, wanted = ours.run(part), plain.run(part)
            for name in names:
                if wanted[name].dtype.kind == "f":
                    _add_errors(sums[name], wanted[name], _divided(got[name], factors.get(name)))
            scores = wanted[outputs[0]]
            if labels is not None:
                check_classes(labels, scores.shape)
            if scores.ndim == 2:
                tops.append((got[outputs[0]].argmax(1), scores.argmax(1)))
        ranges = self.statistics.ranges
        layers = [
            LayerError(name, makers.get(name, ""), _decibels(sums[name]), float(sums[name][2]), ranges[name])
            for name in names if name in ranges
        ]  # fmt: skip
        return _with_accuracy(layers, len(next(iter(feeds.values()))), tops, labels)


def check_classes(labels: Array, shape: tuple[int, ...]) -> None:
    """Whether labels are of the scores that the net gives."""
    if len(shape) != 2:
        raise ConvError(f"labels need a net whose first output is a row of scores, but it has the shape {shape}.")
    if labels.size and not 0 <= labels.min() <= labels.max() < shape[1]:
        raise ConvError(
            f"labels must be classes from 0 to {shape[1] - 1}, of which the net gives scores, but they reach from "
            f"{labels.min()} to {labels.max()}."
        )


def check_labels(graph: Graph, feeds: Feeds, labels: Array, threads: int | None = None) -> None:
    """Refuse labels that are not of the scores that a graph of floats gives, of which it makes those of one batch."""
    scores = Prepared(copied(graph), threads).run(next(batches(graph, feeds)))[graph.outputs[0].name]
    check_classes(labels, scores.shape)


def _divided(x: Array, factor: Array | None) -> Array:
    """x without the factors of its channels."""
    return x if factor is None else x / factor.reshape(-1, *(1,) * (x.ndim - 2))


def _add_errors(sums: Array, wanted: Array, got: Array) -> None:
    off = got.astype(np.float64) - wanted
    sums[0] += np.sum(wanted.astype(np.float64) ** 2)
    sums[1] += np.sum(off**2)
    sums[2] = max(sums[2], np.abs(off).max(initial=0))


def _decibels(sums: Array) -> float:
    signal, noise = float(sums[0]), float(sums[1])
    return inf if not noise else -inf if not signal else 10 * log10(signal / noise)


def _with_accuracy(
    layers: list[LayerError], samples: int, tops: Sequence[tuple[Array, Array]], labels: Array | None
) -> QuantisationReport:
    if not tops:
        return QuantisationReport(layers, samples)
    got, wanted = (np.concatenate([pair[at] for pair in tops]) for at in (0, 1))
    agreement = float(np.mean(got == wanted))
    if labels is None:
        return QuantisationReport(layers, samples, agreement)
    accuracies: list[Any] = [float(np.mean(top == labels)) for top in (got, wanted)]
    return QuantisationReport(layers, samples, agreement, *accuracies)
