"""The table of a model before anything is allocated: shapes, parameters, multiply-adds, memory, receptive field.

VGG-D's activations, the input included, are 15,237,608 values, 60.95 MB in float32. The total of 24 M values and 93 MB
that lecture notes repeat is an adding-up mistake: their own rows add to ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, prod
from typing import TYPE_CHECKING, Any

from .._core.words import Shape
from ..layers.base import Layer, Sample, Window, behind, one_pixel
from ..layers.core import Residual
from .wiring import Call, Wiring

if TYPE_CHECKING:
    from .net import Net


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
    stride: tuple[int | Fraction, ...]  # pixels of the input between neighbouring outputs
    connected: tuple[str, ...] = ()  # the rows that it takes its inputs from
    again: bool = False  # a further call of a layer whose weights are counted above


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a model, its input first, and their totals. `str()` of it is the printed table."""

    title: str
    rows: tuple[Row, ...]
    wired: bool = False  # whether a row may take its inputs from others than the one above

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


def table(model: Net, samples: Sequence[Shape]) -> Table:
    """The table of a built model for samples of these shapes, one an input."""
    item = model.dtype.itemsize
    rows = []
    for name, sample in zip(model.input_names, samples, strict=True):
        size = prod(sample) * item
        ones = (1,) * (len(sample) - 1 or 2)
        rows.append(Row(name, "Input", 0, tuple(sample), 0, 0, 0, size, 2 * size, ones, ones))
    starts = [one_pixel(len(sample)) for sample in samples]
    walker = _Walker()
    found, _ = walker.net(model, [Sample(s) for s in samples], starts, list(model.input_names), 0)
    return Table(model.name, (*rows, *found), not model.is_chain)


class _Walker:
    """Goes through the calls of a net and of those inside it, and counts every layer's weights once."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def net(
        self, net: Any, shapes: Sequence[Any], starts: Sequence[Window], names: Sequence[str], depth: int
    ) -> tuple[list[Row], list[str]]:
        """The rows of a net, and which of them make its outputs."""
        wiring: Wiring = net.wiring
        fields = windows(wiring, shapes, starts)
        by = dict(enumerate(names))
        rows: list[Row] = []
        for call, before, made in wiring.walk(shapes):
            given = [by[number] for number in call.inputs]
            if call.layer.is_net:
                inner, ends = self.net(
                    call.layer, before if call.several else [before], [fields[n] for n in call.inputs], given, depth
                )
                rows += inner
                by.update(zip(call.outputs, ends, strict=True))
                continue
            rows += self.inside(call.layer, before, fields[call.inputs[0]], given, depth)
            rows.append(self.row(call, before, made[0], fields[call.outputs[0]], given, depth))
            by[call.outputs[0]] = call.layer.name
        return rows, [by[number] for number in wiring.outputs]

    def inside(self, layer: Layer, shape: Any, window: Window, given: Sequence[str], depth: int) -> list[Row]:
        """The rows of the two paths of a block."""
        rows: list[Row] = []
        for path in (layer.body, layer.shortcut) if isinstance(layer, Residual) else ():
            at, own, names = shape, window, list(given)
            for inner in path:
                after: Any = inner.output_shape(at)
                behind_it = behind(own, inner.window(at))
                if inner.is_net:
                    rows += self.net(inner, [at], [own], names, depth + 1)[0]
                else:
                    rows += self.inside(inner, at, own, names, depth + 1)
                    call = Call(inner, (0,), (1,))
                    rows.append(self.row(call, at, after, behind_it, names, depth + 1))
                at, own, names = after, behind_it, [rows[-1].name]
        return rows

    def row(self, call: Call, before: Any, after: Any, window: Window, given: Sequence[str], depth: int) -> Row:
        layer, item = call.layer, call.layer.dtype.itemsize
        again = id(layer) in self.seen
        self.seen.add(id(layer))
        block = isinstance(layer, Residual)
        forward, training = layer.activation_values(before)
        return Row(
            layer.name, type(layer).__name__, depth, tuple(after),
            0 if block or again else layer.count_params(), 0 if block or again else layer.count_non_trainable(),
            0 if block else layer.macs(before), forward * item, training * item,
            tuple(map(ceil, window[0])), window[1], tuple(given), again,
        )  # fmt: skip


def windows(wiring: Wiring, samples: Sequence[Any], starts: Sequence[Window] | None = None) -> dict[int, Window]:
    """(extent, stride) of every value, in pixels of the inputs; where paths meet, the larger extent."""
    found: dict[int, Window] = dict(enumerate(starts or [one_pixel(len(sample)) for sample in samples]))
    for call, before, _ in wiring.walk(samples):
        if call.layer.is_net:
            inner: Any = call.layer
            given = [found[number] for number in call.inputs]
            within = windows(inner.wiring, before if call.several else [before], given)
            found.update(zip(call.outputs, (within[number] for number in inner.wiring.outputs), strict=True))
            continue
        own = behind(_widest([found[number] for number in call.inputs]), call.layer.window(before))
        found.update(dict.fromkeys(call.outputs, own))
    return found


def _widest(given: Sequence[Window]) -> Window:
    """What looks at all that each of these looks at."""
    axes = max(len(extent) for extent, _ in given)
    padded = [behind(((1,) * axes, (1,) * axes), window) for window in given]
    return (
        tuple(max(sizes) for sizes in zip(*(extent for extent, _ in padded), strict=True)),
        tuple(max(steps) for steps in zip(*(stride for _, stride in padded), strict=True)),
    )


# ---- printing -----------------------------------------------------------------------------------------------------

COLUMNS = ("layer", "output shape", "parameters", "MACs", "forward", "training", "field", "stride")


def _bytes(count: int) -> str:
    """Bytes in units of 10^6 or 10^3."""
    if count >= 10**6:
        return f"{count / 1e6:,.2f} MB"
    return f"{count / 1e3:,.1f} kB" if count else "-"


def _each(numbers: tuple[int | Fraction, ...]) -> str:
    return str(numbers[0]) if len(set(numbers)) == 1 else "x".join(map(str, numbers))


def _cells(row: Row, wired: bool) -> tuple[str, ...]:
    kind = f"{row.kind}, again" if row.again else row.kind
    return (
        "  " * row.depth + f"{row.name} ({kind})" if row.kind != "Input" else row.name,
        " x ".join(map(str, row.output_shape)),
        f"{row.parameters:,}" if row.parameters else "-",
        f"{row.macs:,}" if row.macs else "-",
        _bytes(row.forward_bytes),
        _bytes(row.training_bytes),
        _each(row.field),
        _each(row.stride),
        *([", ".join(row.connected)] if wired else []),
    )


def _printed(made: Table) -> str:
    more = ("connected to",) if made.wired else ()
    head = (*COLUMNS, *more)
    lines = [head, *(_cells(row, made.wired) for row in made.rows)]
    total = (
        "total", "", f"{made.parameters:,}", f"{made.macs:,}", _bytes(made.forward_bytes),
        _bytes(made.training_bytes), "", "", *("" for _ in more),
    )  # fmt: skip
    widths = [max(len(line[i]) for line in [*lines, total]) for i in range(len(head))]

    def written(line: Sequence[str]) -> str:
        sized = enumerate(zip(line, widths, strict=True))
        cells = [cell.ljust(width) if i < 2 or i >= len(COLUMNS) else cell.rjust(width) for i, (cell, width) in sized]
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
