"""A convolution as passes of sums over taps: forward, its input gradient, and either with the kernel as the image.

Pure numbers on three axes (depth, height, width): what has fewer comes with leading axes of size 1.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise, product
from math import gcd, prod
from typing import TypeVar

from .geometry import Geometry
from .record import NamedTuple

Offsets = tuple[int, ...]
Triple = tuple[int, int, int]
Edges = tuple[int, ...]  # 0, where the next tiles begin along an axis, and the number of its outputs
AXES = range(3)
T = TypeVar("T")


class Pass(NamedTuple):
    """One run of a driver: output i sums x[i * stride + tap] over its taps, along every axis."""

    taps: tuple[Offsets, Offsets, Offsets]
    places: tuple[Offsets, Offsets, Offsets]  # of the kernel that the taps belong to
    stride: Triple
    phase: Triple = (0, 0, 0)  # the outputs it writes: every `step`-th from here
    step: Triple = (1, 1, 1)
    merge: Triple = (1, 1, 1)  # phases whose outputs share a panel

    @property
    def counts(self) -> Triple:
        """Taps along each axis."""
        z, y, x = self.taps
        return len(z), len(y), len(x)

    def output_size(self, size: Triple) -> Triple:
        """How many of the outputs of `size` this pass writes along each axis."""
        z, y, x = (max(0, -(-(n - first) // step)) for n, first, step in zip(size, self.phase, self.step, strict=True))
        return z, y, x

    def shifted(self, axis: int, by: int) -> Pass:
        """The pass that begins `by` inputs further on and writes all outputs of what it is given."""
        taps = list(self.taps)
        taps[axis] = tuple(tap + by for tap in taps[axis])
        return self._replace(taps=triple(taps), phase=(0, 0, 0), step=(1, 1, 1))


def triple(items: Iterable[T]) -> tuple[T, T, T]:
    """Three items as a tuple of three."""
    z, y, x = items
    return z, y, x


def span(taps: Sequence[int]) -> int:
    """Positions from the first tap to the last."""
    return max(taps) - min(taps) + 1 if taps else 0


def spacing(p: Pass) -> Triple:
    """The dilation of a pass whose taps are equally spaced; 1 along an axis with a single tap."""
    return triple([taps[1] - taps[0] if len(taps) > 1 else 1 for taps in p.taps])


def forward_passes(g: Geometry) -> list[Pass]:
    """The convolution itself: one pass."""
    places = triple([tuple(range(k)) for k in g.kernel_size])
    taps = triple([tuple(i * g.dilation[a] - g.padding[a][0] for i in places[a]) for a in AXES])
    return [Pass(taps, places, triple(g.stride))]


class _Phase(NamedTuple):
    """Along one axis: the first output, the places of the kernel that it meets, and where."""

    first: int
    places: Offsets
    taps: Offsets


def _phases(kernel: int, stride: int, dilation: int, pad: int) -> Iterator[_Phase]:
    """Residues of the input position modulo the stride that meet a tap: the taps, by rising offset in grad_output."""
    for residue in sorted({(i * dilation - pad) % stride for i in range(kernel)}):
        taps = [i for i in reversed(range(kernel)) if (residue + pad - i * dilation) % stride == 0]
        yield _Phase(residue, tuple(taps), tuple((residue + pad - i * dilation) // stride for i in taps))


def _passes(phases: Sequence[list[_Phase]], stride: Triple, step: Triple) -> list[Pass]:
    """A pass for every combination of the phases of the axes."""
    return [
        Pass(
            triple([p.taps for p in axes]), triple([p.places for p in axes]), stride, triple([p.first for p in axes]),
            step,
        )
        for axes in product(*phases)
    ]


def input_gradient_passes(g: Geometry) -> list[Pass]:
    """The input gradient in phases of the stride, each a stride-1 convolution of grad_output: no inserted zeros.

    Phases without a tap are left out: at most as many passes as the kernel has taps, however long the stride.
    """
    phases = [list(_phases(g.kernel_size[a], g.stride[a], g.dilation[a], g.padding[a][0])) for a in AXES]
    return _passes(phases, (1, 1, 1), triple(g.stride))


def _exchanged_phases(
    outputs: int, taps: int, along: int, per_tap: int, dilation: int, shift: int
) -> tuple[int, int, list[_Phase]]:
    """(step, stride, phases) of outputs i that meet position (along * i + per_tap * t + shift) / dilation of the kernel
    under element t of the image, where that is whole."""
    step = dilation // gcd(dilation, along)
    phases = []
    for first in range(min(step, outputs)):
        at = [along * first + per_tap * t + shift for t in range(taps)]
        met = [t for t in range(taps) if at[t] % dilation == 0]
        phases.append(_Phase(first, tuple(met), tuple(at[t] // dilation for t in met)))
    return step, along * step // dilation, phases


def exchanged_passes(g: Geometry, gradient: bool) -> list[Pass]:
    """The convolution, or its input gradient, with the kernel as the image that the other array is laid over.

    `places` are those of the other array: a pixel of the image x[n, c] is one tap for all outputs (o) of w[o, c], which
    take the place of the batch, and the batch takes that of the outputs. The terms of a sum keep their order. The
    kernel is read backwards in the forward pass, where its positions fall as outputs rise.
    """
    axes = []
    for axis in AXES:
        stride, dilation, pad, kernel = g.stride[axis], g.dilation[axis], g.padding[axis][0], g.kernel_size[axis]
        if gradient:  # input position h meets q of grad_output at (h + pad - stride q) / dilation of the kernel
            axes.append(_exchanged_phases(g.input_size[axis], g.output_size[axis], 1, -stride, dilation, pad))
        else:  # kernel - 1 - (h + pad - stride q) / dilation
            shift = dilation * (kernel - 1) - pad
            axes.append(_exchanged_phases(g.output_size[axis], g.input_size[axis], stride, -1, dilation, shift))
    steps, strides, phases = zip(*axes, strict=True)
    return _passes(phases, triple(strides), triple(steps))


def useful_taps(p: Pass, size: Triple, input_size: Triple) -> Pass:
    """A pass into outputs of `size` without the taps that meet padding alone, whatever the output."""
    own = p.output_size(size)

    def met(axis: int) -> range:
        last = (own[axis] - 1) * p.stride[axis]
        inside = [i for i, tap in enumerate(p.taps[axis]) if -last <= tap < input_size[axis]]
        return range(inside[0], inside[-1] + 1) if inside else range(0)

    kept = [met(axis) for axis in AXES]
    if all(len(kept[axis]) == len(p.taps[axis]) for axis in AXES):
        return p
    return p._replace(
        taps=triple([tuple(p.taps[a][i] for i in kept[a]) for a in AXES]),
        places=triple([tuple(p.places[a][i] for i in kept[a]) for a in AXES]),
    )


def planes_met(p: Pass, outputs: int, inputs: int) -> list[tuple[int, int]]:
    """For every tap along the depth the planes of outputs, first and behind the last, that it lays on the input."""
    return [met_outputs(tap, p.stride[0], outputs, inputs) for tap in p.taps[0]]


def met_between(tap: int, stride: int, inputs: int) -> tuple[int, int]:
    """From which output on, of a line without an end, a tap lies behind the input's beginning, and from which on behind
    its end."""
    return -(tap // stride), (inputs - 1 - tap) // stride + 1


def met_outputs(tap: int, stride: int, outputs: int, inputs: int) -> tuple[int, int]:
    """The outputs for which a tap meets the input, first and behind the last."""
    begin, end = met_between(tap, stride, inputs)
    first = min(outputs, max(0, begin))
    return first, max(first, min(outputs, end))


def terms(p: Pass, channels: int) -> int:
    """Terms of a sum, those over padding counted."""
    return prod(p.counts) * channels


def even_edges(outputs: int, tile: int) -> Edges:
    """Of tiles of a size; the last one may be smaller."""
    return (*range(0, outputs, tile), outputs)


def met_taps(order: Sequence[int], stride: int, extent: int, first: int, end: int) -> tuple[int, int]:
    """Of rising offsets of taps those that meet the input from the outputs `first` to `end` - 1: from which on, and up
    to which."""
    return bisect_left(order, -(end - 1) * stride), bisect_right(order, extent - 1 - first * stride)


@lru_cache(maxsize=1024)
def walked_taps(taps: Offsets, stride: int, extent: int, edges: Edges) -> int:
    """Output positions times the taps that are walked along an axis, tile by tile: those that meet the input."""
    order = sorted(taps)
    total = 0
    for first, end in pairwise(edges):
        low, high = met_taps(order, stride, extent, first, end)
        total += (end - first) * max(0, high - low)
    return total


@lru_cache(maxsize=1024)
def _walked_alone(taps: Offsets, stride: int, extent: int, outputs: int) -> int:
    """`walked_taps` of tiles of one output, of which there may be many."""
    met = (met_outputs(tap, stride, outputs, extent) for tap in taps)
    return sum(end - first for first, end in met)


def walked_alone(p: Pass, size: Triple, input_size: Triple) -> int:
    """`walked` in tiles of one output."""
    return prod(_walked_alone(p.taps[a], p.stride[a], input_size[a], size[a]) for a in AXES)


def walked(p: Pass, input_size: Triple, edges: tuple[Edges, Edges, Edges]) -> int:
    """Outputs times the taps that are walked for them in tiles with such edges along each axis."""
    return prod(walked_taps(p.taps[a], p.stride[a], input_size[a], edges[a]) for a in AXES)


def even(size: Triple, tile: Triple) -> tuple[Edges, Edges, Edges]:
    """The edges of tiles of a size along each axis."""
    return triple([even_edges(n, of) for n, of in zip(size, tile, strict=True)])


def walks_padding(p: Pass, size: Triple, input_size: Triple, tile: Triple) -> bool:
    """Whether a quarter more taps are walked in tiles of such a size than in single pixels."""
    return 4 * walked(p, input_size, even(size, tile)) > 5 * walked_alone(p, size, input_size)
