"""A lane an output channel in volumes: depthwise as a whole, in place or on transposed copies, in any layout.

Of small groups the planes of the input are so many images for every plane of the kernel. What that adds to a plane of
outputs is added to what lies there, as a residual is; the last one is followed by the activation. A kernel of one plane
is computed either way, with the same sums. The weight gradient sums over all planes at once, for one plane of the
kernel after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from math import prod

from ... import _native
from ..operands import Operands
from ..passes import Pass, even, planes_met, triple
from ..problem import Problem
from ..record import NamedTuple
from ..types import codes
from .lanes import TRANSPOSED, LanesGradient, LanesProgram, told_of_patches
from .method import MANY_IMAGES, Array, GradientProgram, Packed, Program, Sums, Told, aligned_bytes, products


class Depth(NamedTuple):
    """The phase of the outputs along the depth that some passes write, and their taps there."""

    phase: int
    step: int
    stride: int
    taps: tuple[int, ...]
    places: tuple[int, ...]  # planes of the kernel

    def planes(self, outputs: int) -> int:
        """Planes of outputs of the phase."""
        return max(0, -(-(outputs - self.phase) // self.step))

    def runs(self, outputs: int, inputs: int) -> Iterator[tuple[int, int, int, bool, bool]]:
        """(tap, first plane of outputs, number of them, whether it is the first tap that meets them, and the last)."""
        met = [
            [i for i, tap in enumerate(self.taps) if 0 <= plane * self.stride + tap < inputs]
            for plane in range(self.planes(outputs))
        ]
        for i in range(len(self.taps)):
            kinds = [(i in own) and (own[0] == i, own[-1] == i) for own in met]
            at = 0
            for kind, same in groupby(kinds):
                count = len(list(same))
                if kind:
                    yield i, at, count, kind[0], kind[1]
                at += count


def depths(passes: tuple[Pass, ...]) -> list[Depth]:
    """The phases along the depth."""
    return list(dict.fromkeys(
        Depth(q.phase[0], q.step[0], q.stride[0], q.taps[0], q.places[0]) for q in passes
    ))  # fmt: skip


def why_not(p: Problem) -> str | None:
    """Why a volume cannot be computed plane by plane; None if it can."""
    if p.mode:
        return "its padding repeats planes"
    if p.gradient_of_weight:
        return None
    if p.types.result != p.types.compute:
        return f"sums of planes are added up in {p.types.result}"
    if sum(depth.planes(p.size[0]) for depth in depths(p.passes)) != p.size[0]:
        return "some planes of outputs meet no tap"
    for depth in depths(p.passes):
        first = sum(count for _, _, count, first, _ in depth.runs(p.size[0], p.input_size[0]) if first)
        if first != depth.planes(p.size[0]):
            return "some planes of outputs meet padding alone"
    return None


def flat(p: Problem) -> Problem:
    """The problem of the planes, as images."""
    g = p.geometry
    planes = p.size[0] * g.batch
    return p._replace(geometry=g._replace(
        batch=planes, input_size=(1, *g.input_size[1:]), kernel_size=(1, *g.kernel_size[1:]),
        output_size=(1, *g.output_size[1:]), stride=(1, *g.stride[1:]), dilation=(1, *g.dilation[1:]),
        padding=((0, 0), *g.padding[1:]),
    ))  # fmt: skip


class LanesVolume(Program):
    """A volume, whole or plane by plane: where the whole can be computed, only if the sums have the same order."""

    def __init__(self, p: Problem) -> None:
        self.problem, self.inner, self.threads = p, LanesProgram(flat(p)), p.machine.threads
        self.depths = depths(p.passes)
        self.runs = [list(depth.runs(p.size[0], p.input_size[0])) for depth in self.depths]
        self.covers = self.inner.covers
        self.whole_ = _native.Depthwise(codes(p.types), p, p.passes, p.machine.capped)
        self.taps = prod(map(len, self.whole_.places))
        self.fits = self.whole_.fits()
        self.by_planes = not self.fits or all(len(depth.taps) == 1 for depth in self.depths)

    def pack(self, weight: Array) -> tuple[Packed, ...]:
        """For the planes and for the whole, where they are computed so."""
        places = [place for depth in self.depths for place in depth.places] if self.by_planes else []
        planes = tuple(self.inner.pack(weight[:, :, place])[0] for place in places)
        return (*planes, self.pack_whole(weight)) if self.fits else planes

    def pack_whole(self, weight: Array) -> Packed:
        packed, numbers = aligned_bytes(self.whole_bytes()), codes(self.problem.types)
        finite = _native.pack_weights(
            numbers.compute, weight, numbers.weight, packed, 1, False, self.whole_.places, self.threads
        )
        return Packed(packed, finite)

    def whole_bytes(self) -> int:
        return _native.packed_bytes(self.problem.compute, 1, self.taps, 1, self.problem.groups)

    def run(
        self, x: Array, weight: Array, packed: tuple[Packed, ...] | None, bias: Array | None, residual: Array | None,
        out: Array, activation: int, channels_last: bool,
    ) -> None:  # fmt: skip
        a = Operands(x, weight, None, bias, residual, out, activation, channels_last).logical()
        if not self.by_planes or (self.fits and self.whole_.takes(x, residual, out, channels_last)):
            own = self.pack_whole(a.weight) if packed is None else packed[-1]
            self.whole_.run(x, weight, own, bias, residual, out, activation, channels_last, self.threads)
            return
        begin = 0
        for depth, runs in zip(self.depths, self.runs, strict=True):
            planes = None if packed is None else packed[begin : begin + len(depth.taps)]
            begin += len(depth.taps)
            if planes is None:
                planes = tuple(self.inner.pack(a.weight[:, :, place])[0] for place in depth.places)
            for n in range(a.batch):
                self._image(depth, runs, planes, a.images(slice(n, n + 1)))

    def _image(
        self, depth: Depth, runs: list[tuple[int, int, int, bool, bool]], packed: tuple[Packed, ...], a: Operands
    ) -> None:
        """The phase of one volume; its planes in the place of the batch."""
        x, out = a.x[0].swapaxes(0, 1), a.out[0, :, depth.phase :: depth.step].swapaxes(0, 1)
        given = None if a.residual is None else a.residual[0, :, depth.phase :: depth.step].swapaxes(0, 1)
        weight = a.weight[:, :, 0]
        for tap, plane, count, first, last in runs:
            begin = plane * depth.stride + depth.taps[tap]
            to = out[plane : plane + count]
            before = given if given is None else given[plane : plane + count]
            self.inner.run(
                x[begin : begin + (count - 1) * depth.stride + 1 : depth.stride], weight, (packed[tap],),
                a.bias if first else None, before if first else to, to, a.activation if last else 0, False,
            )  # fmt: skip

    def need(self, prepared: bool) -> int:
        images = max(MANY_IMAGES, self.problem.geometry.batch)
        needs = [self.inner.need(prepared)] if self.by_planes else []
        if cut := self.whole_.patches(images, self.threads):
            needs += [cut[4], self.whole_.transposed(images, self.threads)[5]]
        return max(needs)

    def told(self, channels_last: bool, prepared: bool) -> Told:
        p, told = self.problem, self.inner.told(channels_last, prepared)
        taps = sum(len(depth.taps) for depth in self.depths) if self.by_planes else 0
        weight_bytes = told.packed_weight_bytes * taps + (self.whole_bytes() if self.fits else 0)
        lies = channels_last and p.types.read_in_place
        cut = self.whole_.patches(p.geometry.batch, self.threads)
        if cut and (lies or not self.by_planes):
            whole = told_of_patches(
                p, cut, packed_weight_bytes=weight_bytes, remark=told.remark,
                multiplications=products(Sums.of(p), [even(q.output_size(p.size), (1, 1, 1)) for q in p.passes]),
            )  # fmt: skip
            if lies:
                return whole
            *band, _, team, scratch = self.whole_.transposed(p.geometry.batch, self.threads)
            return whole._replace(tile=triple(tuple(band)), source=TRANSPOSED, workspace_bytes=scratch, threads=team)
        planes = sum(count for runs in self.runs for _, _, count, _, _ in runs)
        return told._replace(
            tile=triple((1, *told.tile)), packed_weight_bytes=weight_bytes,
            multiplications=told.multiplications * planes // max(1, p.size[0]),
            remark=f"{told.remark}, a plane of the kernel after the other",
        )  # fmt: skip


class LanesVolumeGradient(GradientProgram):
    """The weight gradient, of one plane of the kernel after the other."""

    def __init__(self, p: Problem) -> None:
        self.inner = LanesGradient(flat(p))
        (q,) = p.passes
        self.runs = [
            (first * q.stride[0] + tap, q.stride[0], first, last)
            for tap, (first, last) in zip(q.taps[0], planes_met(q, p.size[0], p.input_size[0]), strict=True)
        ]

    def run(self, x: Array, dy: Array, out: Array) -> None:
        for k, (begin, step, first, last) in enumerate(self.runs):
            if first == last:
                out[:, :, k] = 0
                continue
            own = x[:, :, begin : begin + (last - first - 1) * step + 1 : step]
            self.inner.run(own, dy[:, :, first:last], out[:, :, k])
