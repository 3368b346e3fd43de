"""Concat without copies: what is joined along the channels is made where it will lie.

After the first run the shapes are known. Every operator whose result is one part of a Concat gets a slice of the joined
value, channels last, as its target; a Concat of a Concat is a slice as well, and so is one whose parts are the first of
another's, as in a densely connected block. What an operator cannot make in its slice is copied by the Concat.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._core.arrays import Array
from .._core.words import Shape
from .graph import Node
from .memory import Pool
from .operators import Call

CHANNELS = 1
JOINED = ("float32", "uint8", "int8")


class Place(NamedTuple):
    """Channels from `start` of the joined value `root`."""

    root: str
    start: int


def _along_channels(node: Node) -> bool:
    return node.op_type == "Split" and node.attributes.get("axis", 0) in (CHANNELS, CHANNELS - 4)


class Joined:
    """The joined values of a program, each allocated in a run when its first part is made."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._shapes: dict[str, Shape] = {}  # of the joined values, (N, H, W, C)
        self._whole: dict[str, Array] = {}

    def plan(self, steps: Sequence[tuple[Node, Call]], shapes: Mapping[str, Shape]) -> None:
        """Give every call whose result is joined its target."""
        makers = {node.outputs[0]: call for node, call in steps}
        places: dict[str, Place] = {}
        # pieces that lie one behind the other are what was split, as in the blocks of detectors
        splits = {tuple(node.outputs): node.inputs[0] for node, _ in steps if _along_channels(node)}
        pieces = {names[0]: len(names) for names in splits}
        begins: dict[tuple[str, ...], str] = {}  # the Concat whose first parts are these
        for node, call in reversed(steps):
            shape = shapes.get(node.outputs[0], ())
            if node.op_type != "Concat" or len(shape) != 4 or call.axis(4, CHANNELS) != CHANNELS or shape[2:] == (1, 1):
                continue
            if any(name not in shapes for name in node.inputs if name in makers) or 0 in shape:
                continue
            lengths = [shapes[name][CHANNELS] if name in shapes else None for name in node.inputs]
            times = Counter(node.inputs)
            parts = tuple(node.inputs)
            longer = begins.get(parts)
            if longer in places and node.outputs[0] not in places:
                places[node.outputs[0]] = places[longer]
            begins.update((parts[:count], node.outputs[0]) for count in range(2, len(parts)) if longer is None)
            place = places.get(node.outputs[0], Place(node.outputs[0], 0))
            start = place.start
            for at, (name, length) in enumerate(zip(node.inputs, lengths, strict=True)):
                if length is None:  # an input of the graph or a constant, whose length is not known here
                    break
                whole = splits.get(tuple(node.inputs[at : at + pieces.get(name, 0)]), name)
                if whole in makers and whole not in places and times[name] == 1:
                    places[whole] = Place(place.root, start)
                start += length
            if place.root == node.outputs[0]:
                places[node.outputs[0]] = place
                self._shapes[place.root] = (shape[0], *shape[2:], shape[1])
        for name, place in places.items():
            makers[name].target = self._target(place, shapes[name])

    def _target(self, place: Place, expected: Shape) -> Any:
        def target(shape: Shape, dtype: Any) -> Array | None:
            if shape != expected or np.dtype(dtype).name not in JOINED:
                return None
            whole = self._whole.get(place.root)
            if whole is None:
                whole = self._whole[place.root] = self._pool.empty(self._shapes[place.root], dtype)
                self._pool.retain(whole)  # until the Concat has run
            if whole.dtype != dtype:  # what joins others is of their type: this one is no result
                return None
            part = whole[..., place.start : place.start + shape[CHANNELS]]
            return part.transpose(0, 3, 1, 2)

        return target

    def begin(self) -> None:
        """Before a run."""
        self._whole = {}

    def made(self, node: Node) -> None:
        """After a node has run: a joined value is complete."""
        whole = self._whole.pop(node.outputs[0], None)
        if whole is not None:
            self._pool.release(whole)
