"""A whole net prepared for prediction: its layers as a graph of operators, optimised and run as any other graph.

BatchNormalization behind a convolution becomes part of its weights and bias; bias, activation and the addition of a
residual block happen while the convolution stores its result; weights are packed once; and the activations of the net
live in a few buffers that are used again and again. A batch goes through the net in slices: where activations are
large and weights small, as in the first stages, a few images at a time pass all layers while their activations are in
the cache. The result equals the layers' own forward pass to rounding, and a batch gives the bits of its images.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core.arrays import Array, empty
from .._core.rounding import checked_halves, require_single
from .._core.words import Shape
from ..errors import ConvError
from ..graph.half_weights import hold_halves
from ..graph.optimise import optimise
from ..graph.slices import Sliced
from ..graph.summary import Profile, table
from ..layers.base import Layer
from .graphs import INPUT, TURNED, Tracer


def _again(model: Layer, sample: Shape, options: dict[str, str]) -> InferencePlan:
    """The plan that `InferencePlan.__reduce__` took apart."""
    return InferencePlan(model, sample, weights_dtype=options.get("weights_dtype"), precision=options.get("precision"))


class InferencePlan:
    """A model prepared for inputs of one shape and any batch. Made by `Sequential.compile_inference`.

    `run(x)` computes, `explain()` tells how, `profile(x)` how long. The plan holds copies of the weights as they were
    when it was made; `current` is False once the model's have changed.
    """

    def __init__(
        self, model: Layer, sample: Shape, *, weights_dtype: str | None = None, precision: str | None = None
    ) -> None:
        self.model, self.sample = model, sample
        self._halves = checked_halves(weights_dtype, precision)
        require_single(self._halves, np.dtype(model.dtype))
        self._parameters = model.parameters()
        self._versions = [parameter.version for parameter in self._parameters]
        traced = Tracer(model, sample)
        self.output_shape = traced.output_shape
        graph = optimise(traced.graph)
        hold_halves(graph, self._halves)
        self._prepared = Sliced(graph)
        (self._output,) = (value.name for value in traced.graph.outputs)
        self._prepared.run({INPUT: np.zeros((1, *sample), model.dtype)})  # packs the weights

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy and a pickle are made of the model again, as long as it has the weights that were packed."""
        if not self.current:
            raise ConvError(
                f"this plan of {self.model.name} holds weights that the model no longer has, and cannot be copied; "
                "copy the model, or what compile_inference gives now."
            )
        return _again, (self.model, self.sample, self._halves.options)

    def __repr__(self) -> str:
        shapes = f"(N, {', '.join(map(str, self.sample))}) -> (N, {', '.join(map(str, self.output_shape))})"
        stale = "" if self.current else ", the model's weights have changed since"
        held = "".join(f", {name}={value!r}" for name, value in self._halves.options.items())
        told = f"{self.model.dtype}{held}, {len(self.steps)} steps{stale}"
        return f"<InferencePlan of {self.model.name}: {shapes} {told}>"

    @property
    def steps(self) -> list[dict[str, Any]]:
        """What each step stands for ('operators'), how it is done, its output's shape, and bytes of packed weights."""
        steps = [step for step in self._prepared.describe()["steps"] if step["operators"] != TURNED]
        for step in steps:
            step["operators"] = " + ".join(dict.fromkeys(step["operators"].split(" + ")))  # a layer with its activation
        return steps

    @property
    def current(self) -> bool:
        """Whether the model's weights are still those that were packed."""
        return all(p.version == v for p, v in zip(self._parameters, self._versions, strict=True))

    def run(self, x: Any) -> Array:
        """The outputs for a batch of samples of the planned shape."""
        array = self._taken(x)
        if not array.size:
            return empty((len(array), *self.output_shape), self.model.dtype)
        return self._prepared.run({INPUT: array})[self._output]

    def _taken(self, x: Any) -> Array:
        array = np.asarray(x)
        if array.shape[1:] != self.sample:
            raise ConvError(
                f"{self.model.name} was prepared for a batch of {self.sample}, but got shape {array.shape}; call "
                "compile_inference for that shape."
            )
        return array if array.dtype == self.model.dtype else array.astype(self.model.dtype)

    def profile(self, x: Any, runs: int = 10) -> Profile:
        """The mean time of every step for this batch.

        Parameters
        ----------
        x : array_like
            The batch.
        runs : int, optional
            Over how many runs the mean is taken.

        Returns
        -------
        Profile
            Times in seconds; print it for a table.
        """
        return self._prepared.profile({INPUT: self._taken(x)}, runs)

    def explain(self) -> str:
        """A table: which layers became one step, by which algorithm, and what memory they take."""
        about = self._prepared.describe()
        return table({**about, "steps": self.steps})
