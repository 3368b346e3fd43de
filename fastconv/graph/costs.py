"""What the steps of a program cost besides time: multiply-adds, bytes, memory in use, and what a result looks at.

Bytes are the least that a step can move: every value that it reads or makes once, its weights once. Receptive fields
follow the windows of convolutions and poolings from the inputs on, as in Araujo, Norris and Sim, "Computing receptive
fields of convolutional neural networks" (Distill, 2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from .program import Program, Step
from .replay import VIEW

FEWEST_AXES = 3  # of images and signals: batch, channel, and one axis to slide along


class Cost(NamedTuple):
    """Of one step."""

    weight_bytes: int = 0
    moved_bytes: int = 0
    used_bytes: int = 0  # buffers in which something lies while it runs
    field: tuple[int, ...] = ()  # pixels of the input that one result looks at; empty where that is not known


class Field(NamedTuple):
    """What one result looks at along each axis, and how far the next one's begins, in pixels of the input; which axes
    of the value these are."""

    axes: tuple[int, ...]
    extent: tuple[Fraction, ...]
    step: tuple[Fraction, ...]


def costs(program: Program, feeds: Mapping[str, Any]) -> list[Cost]:
    """Of the steps of a program that has run on these inputs."""
    replay = program.replay
    views = {id(record.step.node) for record in replay.records if record.kind == VIEW} if replay else set()
    fields = receptive_fields(program, feeds)
    return [
        Cost(
            weights := _weights(program, step),
            0 if id(step.node) in views else weights + _values(program, step),
            program.used.get(id(step.node), 0),
            fields.get(step.node.outputs[0], ()),
        )
        for step in program.steps
    ]


def _weights(program: Program, step: Step) -> int:
    """Of constants, as they are packed or as they lie."""
    constants = {name for name in step.node.inputs if name in program.graph.constants}
    return step.call.told.packed_bytes or sum(program.nbytes.get(name, 0) for name in constants)


def _values(program: Program, step: Step) -> int:
    """Of what is read and made."""
    names = {*step.node.inputs, *step.node.outputs} - program.graph.constants.keys()
    return sum(program.nbytes.get(name, 0) for name in names)


def receptive_fields(program: Program, feeds: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The receptive field of every value, by name; none of a graph without convolutions and poolings, and none behind a
    step that turns images into something else than vectors."""
    if not any(step.call.told.reach for step in program.steps):
        return {}
    shapes: dict[str, tuple[int, ...]] = {name: np.shape(x) for name, x in feeds.items()} | program.shapes
    known = {
        name: _pixel(program, name, len(shapes[name])) for name in feeds if len(shapes[name]) >= FEWEST_AXES
    }  # fmt: skip
    for step in program.steps:
        found = _behind(step, known, shapes)
        if found is not None:
            known |= {name: found for name in step.node.outputs if name}
    return {name: tuple(map(ceil, field.extent)) for name, field in known.items()}


def _pixel(program: Program, name: str, rank: int) -> Field:
    """Of the pixels of an input, whose channels are its second axis, or its last one where that is what becomes the
    second before anything else."""
    first = [step.node for step in program.steps if name in step.node.inputs]
    last = bool(first) and all(list(node.attributes.get("perm") or ())[1:2] == [rank - 1] for node in first)
    ones = (Fraction(1),) * (rank - 2)
    return Field(tuple(range(1, rank - 1) if last else range(2, rank)), ones, ones)


def _behind(step: Step, known: Mapping[str, Field], shapes: Mapping[str, tuple[int, ...]]) -> Field | None:
    """Of a step's results."""
    names = [name for name in step.node.inputs if name in known and name in shapes]
    shape = shapes.get(step.node.outputs[0])
    if not names or shape is None:
        return None
    passed = [_passed(step, name, known[name], shapes[name], shape) for name in names]
    wanted = [field for field in passed if field is not None]
    if not wanted or len({len(field.extent) for field in wanted}) > 1:
        return None
    widest = max(wanted, key=lambda field: field.extent)
    return widest._replace(extent=tuple(map(max, zip(*(field.extent for field in wanted), strict=True))))


def _passed(
    step: Step, name: str, before: Field, given: tuple[int, ...], made: tuple[int, ...]
) -> Field | None:
    """What a step makes of the field of one of its inputs."""
    reach, perm = step.call.told.reach, step.node.attributes.get("perm")
    if reach is not None:
        if name != step.node.inputs[0]:  # added to the result
            return before
        return _slid(before, *reach) if len(reach[0]) == len(before.extent) else None
    sizes = [given[axis] for axis in before.axes if axis < len(given)]
    if perm and len(perm) == len(given):
        return before._replace(axes=tuple(list(perm).index(axis) for axis in before.axes))
    if before.axes and (len(made) == 2 or {made[axis] for axis in before.axes if axis < len(made)} == {1}):
        return _slid(before, sizes, sizes)._replace(axes=before.axes if len(made) == len(given) else ())
    if len(made) != len(given) or 0 in (*made, *given):
        return None
    return before._replace(step=_scaled(before.step, sizes, [made[axis] for axis in before.axes]))


def _slid(before: Field, extent: Sequence[int], stride: Sequence[int | Fraction]) -> Field:
    """Behind a window."""
    return before._replace(
        extent=tuple(e + (n - 1) * s for e, s, n in zip(before.extent, before.step, extent, strict=True)),
        step=tuple(s * own for s, own in zip(before.step, stride, strict=True)),
    )


def _scaled(step: tuple[Fraction, ...], given: Sequence[int], made: Sequence[int]) -> tuple[Fraction, ...]:
    """Closer or further apart by a whole factor, as of resized images; else as they were, as of padded ones."""
    ratios = [Fraction(a, b) for a, b in zip(given, made, strict=True)]
    whole = all(ratio.numerator == 1 or ratio.denominator == 1 for ratio in ratios)
    return tuple(s * ratio for s, ratio in zip(step, ratios, strict=True)) if whole and ratios else step
