"""What fast Fourier transforms of few channels run, and the spectra of their kernels."""

from __future__ import annotations

from functools import lru_cache
from math import log2, prod
from typing import Any

import numpy as np

from ... import _native
from .. import special
from ..passes import span
from ..record import NamedTuple
from ..types import codes
from .method import Array, Operands, Packed, Pass, Problem, Program, Told, aligned_bytes, packed_bytes, panels

NONE: Array = np.zeros(0, np.uint8)
HEAD = 64  # bytes before the turns and spectra
ROUNDINGS = 8  # that an error may come to, for each doubling of a tile's samples along an axis


class Blocking(NamedTuple):
    """Loop sizes of the driver."""

    samples: tuple[int, int]  # rows, 0 where nothing is transformed along them, and columns of a tile
    outputs: tuple[int, int]  # rows and columns
    pieces: bool  # the rows of a tile are pieces of one line


@lru_cache(maxsize=1024)
def blocking(p: Problem, q: Pass, samples: int) -> Blocking:
    """Tiles of so many samples along the axes that have taps."""
    lanes = _native.fourier_lanes(p.compute)
    high, wide = span(q.taps[1]), span(q.taps[2])
    outputs = samples - wide + 1
    if high > 1:
        return Blocking((samples, samples), (samples - high + 1, outputs), False)
    _, height, width = q.output_size(p.size)
    across = -(-width // (2 * outputs))
    pieces = height * -(-across // lanes) < -(-height // lanes) * across
    return Blocking((0, samples), (1 if pieces else lanes, outputs), pieces)


def native(p: Problem, q: Pass, samples: int) -> Any:
    """The driver's program of a pass."""
    return _native.Fourier(codes(p.types), p, q, blocking(p, q, samples))


def scratch_bytes(p: Problem, q: Pass, samples: int) -> int:
    """Of one thread."""
    return int(native(p, q, samples).scratch_bytes())


def held_bytes(p: Problem, q: Pass, samples: int) -> int:
    """The turns and spectra of a pass."""
    rows, columns = blocking(p, q, samples).samples
    numbers = p.groups * p.outputs * p.channels * (rows or _native.fourier_lanes(p.compute)) * columns
    return HEAD + 2 * p.machine.element * (numbers + rows + columns)


@lru_cache(maxsize=64)
def turns(samples: int, dtype: Any) -> Array:
    """cos and -sin of 2 pi k / samples, side by side; exact to a rounding."""
    angle = 2 * np.pi * np.arange(samples) / samples
    made = np.stack([np.cos(angle), -np.sin(angle)], 1).astype(dtype)
    made.flags.writeable = False
    return made


def transformed(p: Problem, q: Pass, samples: int, weight: Array) -> Array:
    """A head, the turns along both axes, then the spectra in the order of the driver, made in double precision.

    `weight` in the logical axis order."""
    dtype = np.dtype(f"f{p.machine.element}")
    (rows, columns), lanes = blocking(p, q, samples).samples, _native.fourier_lanes(p.compute)
    kernel = weight.reshape(*weight.shape[:2], *(1,) * (4 - weight.ndim), *weight.shape[2:])
    kernel = kernel.reshape(*kernel.shape[:2], *kernel.shape[-2:])[:, :, q.places[1]][..., q.places[2]]
    first, second = (p.channels, p.outputs) if p.transposed else (p.outputs, p.channels)
    kernel = kernel.reshape(p.groups, first, second, *q.counts[1:])
    if p.transposed:
        kernel = kernel.swapaxes(1, 2)
    made = aligned_bytes(held_bytes(p, q, samples))
    made[:HEAD].view(np.float64)[:] = error_of_whole_numbers(p, samples, kernel)
    values = made[HEAD:].view(dtype)
    both = [turns(n, dtype).reshape(-1) for n in (rows, columns)]
    np.concatenate(both, out=values[: 2 * (rows + columns)])
    high = rows or lanes
    spectra = values[2 * (rows + columns) :].reshape(-1, high // lanes, columns, 2, lanes)
    down, across = (-(np.array(q.taps[a]) - min(q.taps[a])) % (rows, columns)[a - 1] if (rows, columns)[a - 1]
                    else np.zeros(1, np.intp) for a in (1, 2))  # fmt: skip
    narrow = _native.fourier_lanes(_native.COMPUTES["float64"])
    z = np.zeros((high, columns))
    out = np.empty((high // narrow, columns, 2 * narrow))
    scale = 1.0 / (max(1, rows) * columns)  # of the transform back; a power of two
    wide = [turns(n, np.float64) if n else None for n in (rows, columns)]
    for one, own in zip(kernel.reshape(-1, *q.counts[1:]), spectra, strict=True):
        if rows:
            z[np.ix_(down, across)] = one
        else:
            z[:, across] = one  # alike in every lane
        z *= scale
        _native.fourier_spectrum(z, *wide, out)
        parts = out.reshape(high // lanes, lanes // narrow, columns, 2, narrow).transpose(0, 2, 3, 1, 4)
        own.reshape(parts.shape)[...] = parts
    return made


def roundings(p: Problem, samples: int) -> int:
    """How many an error may come to, of the largest sample times the sum of the kernel's magnitudes."""
    return p.channels + ROUNDINGS * round(log2(samples))


def error_of_whole_numbers(p: Problem, samples: int, kernel: Array) -> float:
    """The bound of the error over the largest sample, of a kernel (group, output, ...) of whole numbers; else 0."""
    if not (kernel == np.rint(kernel)).all():
        return 0.0
    unit = np.finfo(f"f{p.machine.element}").eps / 2
    largest = np.abs(kernel.astype(np.float64)).sum(tuple(range(2, kernel.ndim))).max(initial=0)
    return float(roundings(p, samples) * unit * max(largest, 1))


class FourierProgram(Program):
    """The passes of a problem, each transformed."""

    def __init__(self, p: Problem, samples: int) -> None:
        self.problem, self.samples = p, samples
        self.natives = [native(p, q, samples) for q in p.passes]
        self.covers = sum(prod(q.output_size(p.size)) for q in p.passes) == prod(p.size)

    def pack(self, weight: Array) -> tuple[Packed, ...]:
        made = []
        for q in self.problem.passes:
            plain = panels(self.problem, q, weight)
            own = transformed(self.problem, q, self.samples, weight) if plain.finite else None
            made.append(plain._replace(transformed=own))
        return tuple(made)

    def run(
        self, x: Array, weight: Array, packed: tuple[Packed, ...] | None, bias: Array | None, residual: Array | None,
        out: Array, activation: int, channels_last: bool,
    ) -> None:  # fmt: skip
        a = Operands(x, weight, None, bias, residual, out, activation, channels_last)
        finite = packed is not None or special.all_finite(a.logical().weight)
        machine = self.problem.machine
        p = self.problem._replace(machine=machine._replace(threads=self._team(machine.threads, packed is not None)))
        for i, (q, native) in enumerate(zip(self.problem.passes, self.natives, strict=True)):
            if packed is not None:
                held, mine = packed[i], packed[i]
            else:
                own = transformed(self.problem, q, self.samples, a.logical().weight) if finite else None
                held, mine = None, Packed(NONE, finite, own)
            rows = blocking(self.problem, q, self.samples).outputs[0]
            able = x.size > 0 and mine.transformed is not None and native  # of padding alone, directly
            special.run(p, q, a._replace(packed=held), able, rows, mine)

    def _scratch(self) -> int:
        return max(int(one.scratch_bytes()) for one in self.natives)

    def _team(self, tasks: int, prepared: bool) -> int:
        """Threads that have scratch beside what a call makes."""
        beside = 0 if prepared or self.problem.held else self._making()
        return int(_native.team_for(self.problem.machine.threads, tasks, self._scratch(), beside))

    def _making(self) -> int:
        """Of the transformed kernel of a call, and what it is made in."""
        p, n = self.problem, self.samples
        return max(held_bytes(p, q, n) + 6 * 8 * prod(blocking(p, q, n).samples) for q in p.passes)

    def need(self, prepared: bool) -> int:
        team = self._team(self.problem.machine.threads, prepared)
        return self._scratch() * team + (0 if prepared else self._making())

    def told(self, channels_last: bool, prepared: bool) -> Told:
        p, m, batch, own = self.problem, self.problem.machine, self.problem.geometry.batch, self._scratch()
        first, b = self.natives[0], blocking(p, p.passes[0], self.samples)
        plain = sum(packed_bytes(p, prod(q.counts)) for q in p.passes)
        spectra = sum(held_bytes(p, q, self.samples) for q in p.passes)
        high, wide = b.samples[0] or _native.fourier_lanes(p.compute), b.samples[1]
        a_sample = (p.channels + p.outputs) * 2 * (b.samples[0].bit_length() + wide.bit_length()) + 4 * (
            p.channels * p.outputs
        )
        return Told(
            tile=b.outputs, block="2 tiles", register_tile=(m.rows, m.width),
            source=f"spectra of tiles of {b.samples[0] or 1} x {wide}",
            workspace_bytes=own * self._team(batch * first.tasks(), prepared)
            + (0 if prepared or p.held else self._making()),
            packed_weight_bytes=spectra + plain if prepared else 0,
            multiplications=batch * sum(one.tasks() for one in self.natives) * high * wide * a_sample,
            threads=m.threads,
        )  # fmt: skip
