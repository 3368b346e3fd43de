"""A batch in slices: while activations are large and weights small, a few images at a time pass all steps in the cache.

From the first step with many weights on, which would be read anew for every slice, the batch goes whole (ResNet-50,
batch 8: 7 % less time).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any, Final

import numpy as np

from .._core.arrays import Array
from .costs import costs
from .graph import Graph, Node, ValueInfo
from .memory import LARGEST_VALUE
from .prepared import Prepared
from .program import Program
from .summary import Profile, StepTime

SLICE_BYTES: Final = 8 << 20  # activations of a step of a slice
HEAVY_BYTES: Final = 16 << 20  # weights of a step from which on the batch goes whole
WHOLE: Final = 1 << 30  # images of a slice: more than any batch has


class Sliced(Prepared):
    """A graph whose nodes treat every image of the batch, the first axis of its inputs and outputs, by itself."""

    def __init__(self, graph: Graph, threads: int | None = None, limit: int = LARGEST_VALUE) -> None:
        super().__init__(graph, threads, limit=limit, states={})
        self._parts: list[tuple[int, Prepared]] | None = None

    def run(self, feeds: Mapping[str, Any], into: Mapping[str, Array] | None = None) -> dict[str, Array]:
        (batch,) = {len(x) for x in feeds.values()}
        if batch == 1 or into is not None:
            return super().run(feeds, into)
        values: dict[str, Any] = dict(feeds)
        for images, part in self._in_parts(feeds):
            values.update(_in_slices(part, values, batch, images))
        return {value.name: values[value.name] for value in self.graph.outputs}

    def profile(self, feeds: Mapping[str, Any], runs: int) -> Profile:
        (batch,) = {len(x) for x in feeds.values()}
        if batch == 1:
            return super().profile(feeds, runs)
        values: dict[str, Any] = dict(feeds)
        steps: list[tuple[Node, StepTime]] = []
        for images, part in self._in_parts(feeds):
            given = {value.name: values[value.name] for value in part.graph.inputs}
            pieces = -(-batch // images)
            found = part.timed({name: x[: -(-batch // pieces)] for name, x in given.items()}, runs)
            steps += [(node, _of_the_batch(step, pieces, batch, -(-batch // pieces))) for node, step in found]
            values.update(_in_slices(part, values, batch, images))
        fields = self._fields(feeds)
        return Profile(runs, [replace(step, field=fields.get(id(node), ())) for node, step in steps])

    def _fields(self, feeds: Mapping[str, Any]) -> dict[int, tuple[int, ...]]:
        """Receptive fields by nodes, of the whole graph: a part does not know what lies before it."""
        one = {name: x[:1] for name, x in feeds.items()}
        with self.guard.lock:
            program = self.program(one)
            return {
                id(step.node): cost.field for step, cost in zip(program.steps, costs(program, one), strict=True)
            }  # fmt: skip

    def _in_parts(self, feeds: Mapping[str, Any]) -> list[tuple[int, Prepared]]:
        """Parts of the graph, one after the other, and how many images go through each at a time."""
        if self._parts is None:
            one = {name: x[:1] for name, x in feeds.items()}
            with self.guard.lock, np.errstate(all="ignore"):
                program = self.program(one)
                if not program.shapes:
                    program.run(one)
            cuts = images_of(self.graph, program)
            if len({images for images, _ in cuts}) == 1:
                self._parts = [(cuts[0][0], self)] if cuts[0][0] >= WHOLE else [(cuts[0][0], self._of(self.graph))]
            else:
                self._parts = [(images, self._of(graph)) for images, graph in split(self.graph, cuts)]
        return self._parts

    def _of(self, graph: Graph) -> Prepared:
        made = Prepared(graph, self.threads, limit=self.limit, states=self._states)
        made.inner = frozenset(value.name for value in graph.outputs) - {value.name for value in self.graph.outputs}
        return made


def _of_the_batch(step: StepTime, pieces: int, batch: int, images: int) -> StepTime:
    """A step over one slice of so many images as the step over all slices, which read the weights anew."""
    return replace(
        step, shape=(batch, *step.shape[1:]) if step.shape[:1] == (images,) else step.shape,
        seconds=step.seconds * pieces, macs=step.macs * batch // images, moved_bytes=step.moved_bytes * pieces,
    )  # fmt: skip


def _in_slices(part: Prepared, values: Mapping[str, Any], batch: int, images: int) -> dict[str, Array]:
    """The outputs of a part for the whole batch, which goes through it so many images at a time."""
    feeds = {value.name: values[value.name] for value in part.graph.inputs}
    pieces = max(1, -(-batch // images))
    if pieces == 1:
        return Prepared.run(part, feeds)
    whole: dict[str, Array] = {}
    for piece in range(pieces):
        first, end = batch * piece // pieces, batch * (piece + 1) // pieces
        own = {name: x[first:end] for name, x in feeds.items()}
        found = Prepared.run(part, own, {name: x[first:end] for name, x in whole.items()} or None)
        if not whole:
            whole = {name: _for_batch(x, batch) for name, x in found.items()}
            for name, x in found.items():
                whole[name][first:end] = x
    return whole


def _for_batch(part: Array, batch: int) -> Array:
    """An array for the whole batch that lies as the part of some images."""
    order = sorted(range(1, part.ndim), key=lambda axis: -abs(part.strides[axis]))
    made = np.empty((batch, *(part.shape[axis] for axis in order)), part.dtype)
    return made.transpose(0, *(1 + order.index(axis) for axis in range(1, part.ndim)))


def images_of(graph: Graph, program: Program) -> list[tuple[int, list[Node]]]:
    """Runs of nodes, and how many images may go through each run at a time."""
    weights = {id(step.node): step.call.told.packed_bytes for step in program.steps}
    sizes = {name: prod(shape) for name, shape in program.shapes.items()}
    many = (at for at, node in enumerate(graph.nodes) if weights.get(id(node), 0) > HEAVY_BYTES)
    heavy = next(many, len(graph.nodes))
    images, at_once = WHOLE, [WHOLE] * len(graph.nodes)
    for at in reversed(range(heavy)):
        node = graph.nodes[at]
        touched = 4 * sum(sizes.get(name, 0) for name in (*node.inputs, *node.outputs))
        images = min(images, max(1, SLICE_BYTES // max(1, touched)))
        at_once[at] = 1 << images.bit_length() - 1  # powers of two: fewer parts
    runs: list[tuple[int, list[Node]]] = []
    for count, node in zip(at_once, graph.nodes, strict=True):
        if not runs or runs[-1][0] != count:
            runs.append((count, []))
        runs[-1][1].append(node)
    return runs


def split(graph: Graph, runs: Sequence[tuple[int, list[Node]]]) -> list[tuple[int, Graph]]:
    """Each run of nodes as a graph of its own: what it reads of others are inputs, what others read outputs."""
    outputs = [value.name for value in graph.outputs]
    parts = []
    for at, (images, nodes) in enumerate(runs):
        made = {name for node in nodes for name in node.outputs}
        later = {name for _, others in runs[at + 1 :] for node in others for name in node.inputs} | set(outputs)
        given = dict.fromkeys(
            name for node in nodes for name in node.inputs if name and name not in made and name not in graph.constants
        )
        read = [name for name in dict.fromkeys(name for node in nodes for name in node.outputs) if name in later]
        info = [[ValueInfo(name, None, "tensor") for name in names] for names in (given, read)]
        parts.append((images, Graph(info[0], info[1], dict(graph.constants), nodes, graph.name)))
    return parts
