"""The table of a model before anything is allocated: shapes, parameters, multiply-adds, memory, receptive field.

VGG-D's activations, the input included, are 15,237,608 values, 60.95 MB in float32. The total of 24 M values and 93 MB
that lecture notes repeat is an adding-up mistake: their own rows add to ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from .._core.words import Shape
from ..layers.base import Layer, Sample, Window, behind, one_pixel
from ..layers.core import Residual, chain_window


@dataclass(frozen=True, slots=True)
class Row:
    """One layer. Values are of one sample; bytes count the element type of the layer.

    `forward_bytes` are what its output occupies in a forward pass (nothing, where it passes its input on), and
    `training_bytes` what is kept for the backward pass together with the gradient of the output.
    """

    name: str
    kind: str
    depth: int  # how many residual blocks it is inside
    output_shape: Shape
    parameters: int
    non_trainable: int
    macs: int
    forward_bytes: int
    training_bytes: int
    field: tuple[int, ...]  # pixels of the input that one output looks at
    stride: tuple[int, ...]  # pixels of the input between neighbouring outputs


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a model, its input first, and their totals. `str()` of it is the printed table."""

    title: str
    rows: tuple[Row, ...]

    @property
    def parameters(self) -> int:
        """Everything that training changes."""
        return sum(row.parameters for row in self.rows)

    @property
    def non_trainable(self) -> int:
        """Running statistics."""
        return sum(row.non_trainable for row in self.rows)

    @property
    def macs(self) -> int:
        return sum(row.macs for row in self.rows)

    @property
    def forward_bytes(self) -> int:
        return sum(row.forward_bytes for row in self.rows)

    @property
    def training_bytes(self) -> int:
        return sum(row.training_bytes for row in self.rows)

    def __str__(self) -> str:
        return _printed(self)


def table(model: Layer, sample: Shape) -> Table:
    """The table of a built model for samples of this shape."""
    item = model.dtype.itemsize
    size = prod(sample) * item
    start = one_pixel(len(sample))
    first = Row("input", "Input", 0, sample, 0, 0, 0, size, 2 * size, *start)
    rows = list(_rows(model.sublayers(), Sample(sample), start, 0))
    return Table(model.name, (first, *rows))


def _rows(layers: Sequence[Layer], shape: Shape, window: Window, depth: int) -> Iterator[Row]:
    for layer in layers:
        after = behind(window, layer.window(shape))
        output: Any = layer.output_shape(shape)
        inside = isinstance(layer, Residual) or getattr(layer, "is_chain", False)
        if isinstance(layer, Residual):
            yield from _rows(layer.body, shape, window, depth + 1)
            yield from _rows(layer.shortcut, shape, window, depth + 1)
        elif inside:
            yield from _rows(layer.sublayers(), shape, window, depth)
        if not getattr(layer, "is_chain", False):
            item = layer.dtype.itemsize
            forward, training = layer.activation_values(shape)
            yield Row(
                layer.name, type(layer).__name__, depth, tuple(output),
                0 if inside else layer.count_params(), 0 if inside else layer.count_non_trainable(),
                0 if inside else layer.macs(shape), forward * item, training * item, *after,
            )  # fmt: skip
        shape, window = output, after


def receptive_field(model: Layer, sample: Shape) -> Window:
    """(extent, stride) in pixels of the input of what one output looks at."""
    return chain_window(model.sublayers(), sample)


# ---- printing -----------------------------------------------------------------------------------------------------

COLUMNS = ("layer", "output shape", "parameters", "MACs", "forward", "training", "field", "stride")


def _bytes(count: int) -> str:
    """Bytes in units of 10^6 or 10^3."""
    if count >= 10**6:
        return f"{count / 1e6:,.2f} MB"
    return f"{count / 1e3:,.1f} kB" if count else "-"


def _each(numbers: tuple[int, ...]) -> str:
    return str(numbers[0]) if len(set(numbers)) == 1 else "x".join(map(str, numbers))


def _cells(row: Row) -> tuple[str, ...]:
    return (
        "  " * row.depth + f"{row.name} ({row.kind})" if row.kind != "Input" else "input",
        " x ".join(map(str, row.output_shape)),
        f"{row.parameters:,}" if row.parameters else "-",
        f"{row.macs:,}" if row.macs else "-",
        _bytes(row.forward_bytes),
        _bytes(row.training_bytes),
        _each(row.field),
        _each(row.stride),
    )


def _printed(made: Table) -> str:
    lines = [COLUMNS, *map(_cells, made.rows)]
    total = (
        "total", "", f"{made.parameters:,}", f"{made.macs:,}", _bytes(made.forward_bytes),
        _bytes(made.training_bytes), "", "",
    )  # fmt: skip
    widths = [max(len(line[i]) for line in [*lines, total]) for i in range(len(COLUMNS))]

    def written(line: Sequence[str]) -> str:
        sized = enumerate(zip(line, widths, strict=True))
        cells = [cell.ljust(width) if i < 2 else cell.rjust(width) for i, (cell, width) in sized]
        return "  ".join(cells).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    item_note = f"non-trainable: {made.non_trainable:,}   " if made.non_trainable else ""
    values = made.forward_bytes
    return "\n".join(
        [
            f"{made.title}, one sample",
            written(lines[0]),
            rule,
            *map(written, lines[1:]),
            rule,
            written(total),
            f"{item_note}activations: {values:,} bytes forward, {made.training_bytes:,} in training "
            "(outputs and their gradients)",
        ]
    )
