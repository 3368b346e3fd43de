"""A whole net prepared for prediction: its layers as a graph of operators, optimised and run as any other graph.

BatchNormalization behind a convolution becomes part of its weights and bias; bias, activation and the addition of a
residual block happen while the convolution stores its result; weights are packed once; and the activations of the net
live in a few buffers that are used again and again. A batch goes through the net in slices: where activations are
large and weights small, as in the first stages, a few images at a time pass all layers while their activations are in
the cache. The result equals the layers' own forward pass to rounding, and a batch gives the bits of its images.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.arrays import Array, empty
from .._core.rounding import NO_HALVES, Halves, require_single
from .._core.words import Shape
from ..errors import ConvError
from ..graph.graph import Graph
from ..graph.half_weights import hold_halves
from ..graph.optimise import optimise
from ..graph.slices import Sliced
from ..graph.summary import Profile, table
from .data import listed
from .graphs import TURNED, Tracer

if TYPE_CHECKING:
    from .net import Net


def _layers(operators: str) -> str:
    """The layers of a step: one with its activation is named once."""
    return " + ".join(dict.fromkeys(operators.split(" + ")))


class InferencePlan:
    """A model prepared for inputs of one shape and any batch. Made by `compile_inference` of the model.

    `run(x)` computes, of several inputs from a list or a dictionary by name, and gives a list of several outputs;
    `explain()` tells how, `profile(x)` how long. The plan holds copies of the weights as they were when it was made;
    `current` is False once the model's have changed.
    """

    def __init__(self, model: Net, samples: Shape | list[Shape], halves: Halves = NO_HALVES) -> None:
        self.model, self.samples = model, samples if isinstance(samples, list) else [samples]
        self._halves = halves
        require_single(halves, np.dtype(model.dtype))
        self._parameters = model.parameters()
        self._versions = [parameter.version for parameter in self._parameters]
        traced = Tracer(model, self.samples)
        self.output_shapes = traced.output_shapes
        self._inputs, self._outputs = traced.inputs, traced.outputs
        self._prepared = Sliced(self._optimised(traced.graph))
        zeros = [np.zeros((1, *sample), model.dtype) for sample in self.samples]
        self._prepared.run(dict(zip(self._inputs, zeros, strict=True)))  # packs the weights

    def _optimised(self, graph: Graph) -> Graph:
        """The graph that is run."""
        optimised = optimise(graph)
        hold_halves(optimised, self._halves)
        return optimised

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy and a pickle are made of the model again, as long as it has the weights that were packed."""
        if not self.current:
            raise ConvError(
                f"this plan of {self.model.name} holds weights that the model no longer has, and cannot be copied; "
                "copy the model, or what compile_inference gives now."
            )
        return InferencePlan, (self.model, self.samples, self._halves)

    @property
    def sample(self) -> Shape:
        """The shape of a sample of the first input."""
        return self.samples[0]

    @property
    def output_shape(self) -> Shape:
        """The shape of a sample of the first output."""
        return self.output_shapes[0]

    def __repr__(self) -> str:
        shapes = " -> ".join(
            ", ".join(f"(N, {', '.join(map(str, shape))})" for shape in ends)
            for ends in (self.samples, self.output_shapes)
        )
        stale = "" if self.current else ", the model's weights have changed since"
        kind, steps = type(self).__name__, len(self.steps)
        held = "".join(f", {name}={value!r}" for name, value in self._halves.options.items())
        return f"<{kind} of {self.model.name}: {shapes} {self.model.dtype}{held}, {steps} steps{stale}>"

    @property
    def steps(self) -> list[dict[str, Any]]:
        """What each step stands for ('operators'), how it is done, its output's shape, and bytes of packed weights."""
        steps = [step for step in self._prepared.describe()["steps"] if step["operators"] != TURNED]
        for step in steps:
            step["operators"] = _layers(step["operators"])
        return steps

    @property
    def current(self) -> bool:
        """Whether the model's weights are still those that were packed."""
        return all(p.version == v for p, v in zip(self._parameters, self._versions, strict=True))

    def run(self, x: Any) -> Any:
        """The outputs for a batch of samples of the planned shape."""
        feeds = self._taken(x)
        if not all(array.size for array in feeds.values()):
            batch = len(next(iter(feeds.values())))
            made = [empty((batch, *shape), self.model.dtype) for shape in self.output_shapes]
        else:
            results = self._prepared.run(feeds)
            made = [results[name] for name in self._outputs]
        return made[0] if len(made) == 1 else made

    def _taken(self, x: Any) -> dict[str, Array]:
        given = listed("x", x, self.model.input_names, "input")
        arrays = [np.asarray(value) for value in given]
        for array, sample in zip(arrays, self.samples, strict=True):
            if array.shape[1:] != sample or array.shape[:1] != arrays[0].shape[:1]:
                wanted = self.sample if len(self.samples) == 1 else self.samples
                raise ConvError(
                    f"{self.model.name} was prepared for a batch of {wanted}, but got shape "
                    f"{', '.join(str(array.shape) for array in arrays)}; call compile_inference for that shape."
                )
        dtype = self.model.dtype
        return {
            name: array if array.dtype == dtype else array.astype(dtype)
            for name, array in zip(self._inputs, arrays, strict=True)
        }

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
        found = self._prepared.profile(self._taken(x), runs)
        steps = [step for step in found.steps if step.operators != TURNED]
        return Profile(runs, [replace(step, operators=_layers(step.operators)) for step in steps])

    def explain(self) -> str:
        """A table: which layers became one step, by which algorithm, and what memory they take."""
        about = self._prepared.describe()
        return table({**about, "steps": self.steps})
