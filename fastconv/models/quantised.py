"""A net prepared in 8-bit integers: `compile_inference(precision="int8", calibration=images)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.words import Shape
from ..errors import ConvError
from ..graph.calibration import Statistics, checked_calibration, checked_labels, checked_method
from ..graph.graph import Graph
from ..graph.optimise import INTEGERS, checked_computing
from ..graph.quantised import Calibrated, QuantisationReport
from .data import listed
from .graphs import input_values
from .inference import InferencePlan

if TYPE_CHECKING:
    from .net import Net


class QuantisedInferencePlan(InferencePlan):
    """A net in 8-bit integers: weights symmetric a channel, activations affine a tensor. Made by `compile_inference`.

    As `InferencePlan`; and `report` tells how far its values are from the floats.
    """

    def __init__(
        self, model: Net, samples: list[Shape], calibration: Any = None, method: object = "percentile",
        quantized: str = INTEGERS, statistics: Statistics | None = None,
    ) -> None:  # fmt: skip
        self._computing = checked_computing(quantized, ConvError)
        if model.dtype != np.float32:
            raise ConvError(f"precision='int8' takes a float32 model, but {model.name} is of {model.dtype}.")
        self._method = checked_method(method)
        self._statistics = statistics
        self._feeds = None
        if statistics is None:
            names, given = input_values(len(samples)), calibration
            if given is not None and len(samples) > 1:
                given = dict(zip(names, listed("calibration", calibration, model.input_names, "input"), strict=True))
            shapes = {name: (None, *sample) for name, sample in zip(names, samples, strict=True)}
            self._feeds = checked_calibration(given, shapes, dict.fromkeys(names, model.dtype))
        super().__init__(model, samples)

    def _optimised(self, graph: Graph) -> Graph:
        self._calibrated = Calibrated(
            graph, self._feeds, self._method, statistics=self._statistics, computing=self._computing
        )  # fmt: skip
        self._feeds = None
        return self._calibrated.graph()

    def __reduce__(self) -> tuple[Any, ...]:
        super().__reduce__()  # refuses one whose weights have changed
        return QuantisedInferencePlan, (
            self.model, self.samples, None, self._method, self._computing, self._calibrated.statistics,
        )  # fmt: skip

    def report(self, x: Any = None, labels: Any = None) -> QuantisationReport:
        """The errors of the quantised net, layer by layer.

        Parameters
        ----------
        x : array_like, optional
            Samples; some of the calibration if not given.
        labels : array_like, optional
            The class of each sample, as an integer: the report then has the accuracy of both nets.

        Returns
        -------
        QuantisationReport
            Print it for a table.

        Raises
        ------
        ConvError
            For samples or labels that do not fit.
        """
        if x is None and (labels is not None or not self._calibrated.samples):
            raise ConvError("x must hold the samples to report on: this plan does not have those of its calibration.")
        feeds = None if x is None else self._taken(x)
        count = 0 if feeds is None else len(next(iter(feeds.values())))
        return self._calibrated.report(feeds, checked_labels(labels, count))
