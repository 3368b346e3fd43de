"""What the method of Fourier transforms runs: every step is a sum of the direct driver over constant matrices.

A tile is short (`N` samples an axis), so that its transform is a product with the matrix of the transform: an image's
windows are one strided convolution by N cosines and sines. It has more multiplications than a fast transform, but they
run as the driver's do, on threads, without the interpreter's lock, in an order that the shapes alone fix. Arrays
between steps lie so that each step reads and writes strided views, and nothing is copied:

    x       image by image              [c][d][h][w]
    columns X, real to half spectrum    [fx][re, im][d][h][tile x][c]
    rows    Y                           [tile][group][fx][fy][re, im][c of the group]
    planes  Z, of volumes               [tile][group][fy][fx][fz][re, im][c of the group]
    product over c for every frequency  the same of the output channels o
    back    Z, then Y                   [tile][j z][j y][re, im][fx][o]
    back    X, residual, activation     the caller's array
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ... import _native
from .. import special
from ..passes import AXES, triple
from .direct import DirectProgram
from .fft_kernel import spectra
from .fft_steps import (
    Arena,
    Step,
    backward_complex,
    backward_real,
    forward_complex,
    forward_real,
    product_sums,
    split,
    three_axes,
)
from .fft_tiling import Block, Tiling, held_bytes, making_bytes, multiplications
from .method import (
    Array,
    Operands,
    Packed,
    Pass,
    Problem,
    Program,
    Told,
    packed_bytes,
    panels,
)

BLOCK_BYTES = 1 << 23  # of the arrays between steps: tiles that go through all of them together
NONE: Array = np.zeros(0, np.uint8)


class Transformed:
    """One pass: `special.Fast`, which says which rows of tiles are to be computed again."""

    def __init__(self, p: Problem, q: Pass, t: Tiling) -> None:
        self.problem, self.pass_, self.t = p, q, t
        self.size = q.output_size(p.size)
        self.low = triple([min(taps) for taps in q.taps])
        self.used = triple([  # samples under the windows of a tile: others must not count, not even in a rounding
            (t.outputs[a] - 1) * q.stride[a] + max(q.taps[a]) - self.low[a] + 1 for a in AXES
        ])  # fmt: skip
        self.tiles = triple([-(-n // outputs) for n, outputs in zip(self.size, t.outputs, strict=True)])
        self.steps: dict[Any, Any] = {}
        self.pointwise = p.channels == p.outputs == 1  # a product of two spectra, without a sum
        self.block = self._block()
        self.blocks = [-(-n // own) for n, own in zip(self.tiles, self.block.tiles, strict=True)]

    # ---- memory

    def scratch(self, b: Block) -> int:
        """Bytes of the arrays between steps."""
        p, t = self.problem, self.t
        channels, outputs, tiles = p.channels * p.groups, p.outputs * p.groups, b.images * prod(b.tiles)
        depth, height = (self._window(a, 0, b.tiles[a]) for a in (0, 1))
        columns = 2 * t.half * (depth[1] - depth[0]) * (height[1] - height[0]) * b.tiles[2] * channels
        rows = 2 * t.half * t.samples[1] * (depth[1] - depth[0]) * prod(b.tiles[1:]) * channels
        between = columns + (rows if len(t.axes) == 3 else 0)
        spectra, back = 2 * t.frequencies * tiles, 2 * t.half * prod(t.outputs[:2]) * tiles
        middle = 2 * t.half * t.samples[1] * t.outputs[0] * tiles if len(t.axes) == 3 else 0
        products = 0 if self.pointwise else spectra * outputs
        return p.machine.element * (between + (back + middle) * outputs + spectra * channels + products)

    def _block(self) -> Block:
        """As many as fit; whole rows rather than columns, images last."""
        tiles = list(self.tiles)
        while self.scratch(Block(1, triple(tiles))) > BLOCK_BYTES and prod(tiles) > 1:
            axis = next(a for a in AXES if tiles[a] > 1)
            tiles[axis] = -(-tiles[axis] // 2)
        images = 1
        if triple(tiles) == self.tiles:
            while images < 64 and self.scratch(Block(2 * images, self.tiles)) <= BLOCK_BYTES:
                images *= 2
        return Block(images, triple(tiles))

    def _window(self, axis: int, first: int, last: int) -> tuple[int, int]:
        """Positions of the input under tiles first .. last - 1; all where padding repeats them."""
        extent = self.problem.input_size[axis]
        if self.problem.mode:
            return 0, extent
        t, stride = self.t, self.pass_.stride[axis]
        begin = first * t.outputs[axis] * stride + self.low[axis]
        end = (last - 1) * t.outputs[axis] * stride + self.low[axis] + self.used[axis]
        begin = min(max(0, begin), extent - 1)
        return begin, max(min(extent, end), begin + 1)

    def spectra(self, weight: Array) -> Array:
        """Of the kernel, in panels."""
        return spectra(self.problem, self.pass_, self.t, self.low, weight)

    def _product(self, tiles: int) -> DirectProgram:
        """Of all channels for every frequency, for so many tiles."""
        key = ("product", tiles)
        if key not in self.steps:
            self.steps[key] = DirectProgram(product_sums(self.problem, self.t, tiles))
        made: DirectProgram = self.steps[key]
        return made

    def _step(self, name: str, make: Any, *numbers: Any) -> Step:
        key = (name, *numbers)
        if key not in self.steps:
            self.steps[key] = Step(self.problem, make(), *numbers)
        made: Step = self.steps[key]
        return made

    # ---- a run

    def run(
        self, x: Array, weight: Array, packed: Packed | None, bias: Array | None, residual: Array | None, y: Array,
        activation: int, channels_last: bool, threads: int,
    ) -> bytes | None:  # fmt: skip
        """As every program; of `packed` the transformed part."""
        a = Operands(x, weight, packed, bias, residual, y, activation, channels_last).logical()
        a = a.phase(self.pass_.phase, self.pass_.step)
        x, out, add = three_axes(a.x), three_axes(a.out), None if a.residual is None else three_axes(a.residual)
        assert packed is not None and packed.transformed is not None
        if bias is not None:
            bias = bias.reshape(-1, 1, 1, 1)
        bad = np.zeros((len(out), self.size[0], self.tiles[1]), np.uint8)
        arena = Arena(self.problem.types.compute)
        for n in range(0, len(out), self.block.images):
            images = slice(n, n + self.block.images)
            beside = None if add is None else add[images]
            for first in np.ndindex(*self.blocks):
                self._run_block(
                    x[images], packed.transformed, out[images], bias, beside, activation, bad[images],
                    first, arena,
                )  # fmt: skip
        return bad.tobytes() if bad.any() else None

    def _run_block(
        self, x: Array, packed: Array, out: Array, bias: Array | None, add: Array | None, activation: int, bad: Array,
        first: tuple[int, ...], arena: Arena,
    ) -> None:  # fmt: skip
        tiles = [
            range(i * own, min(every, (i + 1) * own))
            for i, own, every in zip(first, self.block.tiles, self.tiles, strict=True)
        ]
        product = self._multiply(self._forward(x, tiles, arena), packed, arena)
        self._backward(product, tiles, out, bias, add, activation, bad, arena)

    def _groups(self, c: int) -> list[tuple[slice, Any]]:
        """(channels, groups) that a step writes or reads together: all where a group has one."""
        groups = self.problem.groups
        if c == 1:
            return [(slice(None), slice(None))]
        return [(slice(g * c, (g + 1) * c), slice(g, g + 1)) for g in range(groups)]

    def _forward(self, x: Array, tiles: list[range], arena: Arena) -> Array:
        """The spectra of the windows under some tiles of some images: [tile][group][frequency][re][c]."""
        p, t, q = self.problem, self.t, self.pass_
        images, channels = len(x), x.shape[1]
        (d0, d1), (h0, h1) = (self._window(a, tiles[a].start, tiles[a].stop) for a in (0, 1))
        nz, ny, nx = map(len, tiles)
        made = arena.lend("spectra", images, nz, ny, nx, p.groups, t.frequencies, 2, p.channels)
        columns = arena.lend("columns", t.half, 2, d1 - d0, h1 - h0, nx, channels)
        low = [tiles[a].start * t.outputs[a] * q.stride[a] + self.low[a] for a in AXES]
        width = x.shape[4]
        first = self._step(
            "X", lambda: forward_real(t.samples[2], self.used[2]), h1 - h0, (1, channels, width),
            (1, channels, nx), low[2], t.outputs[2] * q.stride[2], p.mode,
        )  # fmt: skip
        for n in range(images):
            for d in range(d0, d1):
                to = columns[:, :, d - d0].reshape(2 * t.half, h1 - h0, nx, channels) if d1 - d0 == 1 else (
                    columns.reshape(2 * t.half, d1 - d0, h1 - h0, nx, channels)[:, d - d0]
                )
                first.run(x[n, :, d, h0:h1].swapaxes(0, 1)[:, None, None], to.transpose(1, 0, 3, 2)[:, :, None])
            if len(t.axes) == 1:
                for c, g in self._groups(p.channels):
                    to = made[n, 0, 0, :, g].reshape(nx, -1, t.half, 2, p.channels)
                    own = columns[:, :, 0, 0, :, c].reshape(t.half, 2, nx, -1, p.channels)
                    to[...] = own.transpose(2, 3, 0, 1, 4)
            elif len(t.axes) == 2:
                self._rows(columns[:, :, 0], made[n, 0], low[1] - h0)
            else:
                self._planes(columns, made[n], low[1] - h0, low[0] - d0, arena)
        return made

    def _rows(self, columns: Array, to: Array, low: int) -> None:
        """[fx][re][h][tile x][c] to [tile y][tile x][group][fx, fy][re][c of the group]."""
        p, t = self.problem, self.t
        ny, nx, height = to.shape[0], to.shape[1], columns.shape[2]
        to = to.reshape(ny, nx, p.groups, t.half, 2 * t.samples[1], p.channels)
        for c, g in self._groups(p.channels):
            own = columns[..., c].transpose(0, 1, 3, 4, 2)
            target = (to[:, :, g] if p.channels == 1 else to[:, :, g].swapaxes(2, 5))[..., 0]  # y, x, c, fx, (fy, re)
            self._step(
                "Y", lambda: forward_complex(t.samples[1], self.used[1]), t.half, (nx, own.shape[3], height),
                (nx, own.shape[3], ny), low, t.outputs[1] * self.pass_.stride[1], p.mode,
            ).run(own, target.transpose(3, 4, 1, 2, 0))  # fmt: skip

    def _planes(self, columns: Array, to: Array, low_y: int, low_z: int, arena: Arena) -> None:
        """[fx][re][d][h][tile x][c] to [tile][group][fy, fx, fz][re][c of the group]."""
        p, t, q = self.problem, self.t, self.pass_
        half, _, depth, height, nx, channels = columns.shape
        nz, ny = to.shape[:2]
        rows = arena.lend("rows", half, t.samples[1], 2, depth, ny, nx * channels)
        self._step(
            "Y", lambda: forward_complex(t.samples[1], self.used[1]), half, (depth, nx * channels, height),
            (depth, nx * channels, ny), low_y, t.outputs[1] * q.stride[1], p.mode,
        ).run(
            columns.reshape(half, 2, depth, height, nx * channels).swapaxes(3, 4),
            rows.reshape(half, 2 * t.samples[1], depth, ny, nx * channels).swapaxes(3, 4),
        )  # fmt: skip
        to = to.reshape(nz, ny * nx, p.groups, t.samples[1], half, 2 * t.samples[0], p.channels)
        for f in range(half):
            for c, g in self._groups(p.channels):
                own = rows[f].reshape(t.samples[1], 2, depth, ny * nx, channels)[..., c].transpose(0, 1, 3, 4, 2)
                target = to[:, :, g, :, f]  # z, yx, g, fy, (fz, re), c
                target = target[..., 0] if p.channels == 1 else target.swapaxes(2, 5)[..., 0]  # z, yx, c, fy, (fz, re)
                self._step(
                    "Z", lambda: forward_complex(t.samples[0], self.used[0]), t.samples[1],
                    (ny * nx, own.shape[3], depth), (ny * nx, own.shape[3], nz), low_z, t.outputs[0] * q.stride[0],
                    p.mode,
                ).run(own, target.transpose(3, 4, 1, 2, 0))  # fmt: skip

    def _multiply(self, spectrum: Array, packed: Array, arena: Arena) -> Array:
        """Over the channels, for every frequency."""
        p, t = self.problem, self.t
        tiles = prod(spectrum.shape[:4])
        if self.pointwise:
            numbers = spectrum.reshape(tiles, -1).view(np.result_type(spectrum, np.complex64))
            with np.errstate(all="ignore"):
                numbers *= packed.view(numbers.dtype)
            return spectrum
        made = arena.lend("products", *spectrum.shape[:7], p.outputs)
        groups = p.groups * t.frequencies
        weight = np.broadcast_to(spectrum.dtype.type(0), (1, 1, 1, 2 * p.channels, groups * 2 * p.outputs))
        self._product(tiles).run(
            spectrum.reshape(1, 1, 1, tiles, -1), weight, (Packed(packed, True),), None, None,
            made.reshape(1, 1, 1, tiles, -1), 0, True,
        )  # fmt: skip
        return made

    def _backward(
        self, product: Array, tiles: list[range], out: Array, bias: Array | None, add: Array | None, activation: int,
        bad: Array, arena: Arena,
    ) -> None:  # fmt: skip
        """The outputs of some tiles of some images, and whether a row of them has values near the largest."""
        p, t, stride = self.problem, self.t, self.pass_.stride
        images, (nz, ny, nx) = len(product), map(len, tiles)
        count, outputs = images * nz * ny * nx, p.outputs * p.groups
        half, (tz, ty, _) = t.half, t.outputs
        if len(t.axes) == 1:
            last = arena.lend("columns back", count, 2, half, outputs)  # in this order for sums of any number of axes
            own = product.reshape(count, p.groups, half, 2, p.outputs).transpose(0, 3, 2, 1, 4)
            last.reshape(own.shape)[...] = own
        else:
            last = self._rows_back(product.reshape(count, p.groups, -1, p.outputs), arena)
        size = last.reshape(count, -1)
        with np.errstate(over="ignore", invalid="ignore"):
            fine = np.isfinite(np.einsum("ti,ti->t", size, size)).reshape(images, nz, ny, nx).all(3)
        last = last.reshape(images, nz, ny, nx, tz, ty, 2 * half, outputs)
        for n, z, y in np.ndindex(images, nz, ny):
            (z0, z1), (y0, y1) = (
                (tiles[a][i] * t.outputs[a], min(self.size[a], (tiles[a][i] + 1) * t.outputs[a]))
                for a, i in ((0, z), (1, y))
            )
            if not fine[n, z, y]:
                bad[n, z0:z1, tiles[1][y]] = 1
                continue
            window = np.s_[:, z0:z1, y0:y1]
            beside = None if add is None else add[n][window]
            if bias is not None:
                beside = np.broadcast_to(bias, out[n][window].shape) if beside is None else beside + bias
            self._columns_back(
                last[n, z, y, :, : z1 - z0, : y1 - y0], tiles[2], out[n][window], beside, activation, stride[2]
            )

    def _rows_back(self, product: Array, arena: Arena) -> Array:
        """[tile][group][frequency, re][o] to [tile][z][y][re][fx][o], of images and volumes."""
        t, stride = self.t, self.pass_.stride
        count, groups, _, per_group = product.shape
        outputs, half, (tz, ty, _) = groups * per_group, t.half, t.outputs
        n = t.samples[0] if len(t.axes) == 3 else t.samples[1]
        j = tz if len(t.axes) == 3 else ty
        beside = half * t.samples[1] if len(t.axes) == 3 else half
        axis = 0 if len(t.axes) == 3 else 1
        made = arena.lend("rows back", count, 2 * j, beside, outputs)
        product = product.reshape(count, groups, beside, 2 * n, per_group)
        for o, g in self._groups(per_group):
            own = product[:, g]  # tile, g, beside, (f, re), o
            own = own[..., 0] if per_group == 1 else own.swapaxes(1, 4)[..., 0]  # tile, o, beside, (f, re)
            self._step(
                "last back", lambda: backward_complex(n, np.arange(j) * stride[axis], False), count,
                (1, beside, own.shape[1]), (1, beside, own.shape[1]),
            ).run(own.transpose(0, 3, 2, 1)[:, :, None], made[:, :, None, :, o])  # fmt: skip
        if len(t.axes) == 2:
            return made
        rows = made.reshape(count, tz, 2 * t.samples[1], half, outputs)
        made = arena.lend("columns back", count, tz, 2 * ty, half, outputs)
        self._step(
            "Y back", lambda: backward_complex(t.samples[1], np.arange(ty) * stride[1], True), count,
            (tz, half, outputs), (tz, half, outputs),
        ).run(rows.swapaxes(1, 2), made.swapaxes(1, 2))  # fmt: skip
        return made

    def _columns_back(
        self, last: Array, tiles: range, out: Array, add: Array | None, activation: int, stride: int
    ) -> None:
        """[tile x][z][y][re, fx][o] to a run of tiles of one image, [o][z][y][x]; what ends within a tile apart."""
        t, n = self.t, self.t.outputs[2]
        end = min(self.size[2], tiles.stop * n)
        whole = (end - tiles.start * n) // n
        for first, count, own in ((0, whole, n), (whole, 1, end - (tiles.start + whole) * n)):
            if count == 0 or own == 0:
                continue
            begin = (tiles.start + first) * n
            parts = [None, None]
            for i, array in enumerate((out, add)):
                if array is not None:
                    part = array[..., begin : begin + count * own]
                    parts[i] = split(part, count, own).transpose(3, 4, 1, 2, 0)  # type: ignore[call-overload]
            to = parts[0]
            assert to is not None
            size = (to.shape[2], to.shape[3], to.shape[4])
            self._step(
                f"X back, {own}", lambda own=own: backward_real(t.samples[2], np.arange(own) * stride),
                count, size, size,
            ).run(last[first : first + count].transpose(0, 3, 1, 2, 4), to, parts[1], activation)  # fmt: skip


class FftProgram(Program):
    """The passes of a problem, each transformed."""

    natively = False

    def __init__(self, p: Problem, t: Tiling) -> None:
        self.problem, self.t = p, t
        self.passes = [Transformed(p, q, t) for q in p.passes]
        self.covers = sum(prod(one.size) for one in self.passes) == prod(p.size)

    def pack(self, weight: Array) -> tuple[Packed, ...]:
        made = []
        for one in self.passes:
            plain = panels(self.problem, one.pass_, weight)
            made.append(plain._replace(transformed=one.spectra(weight)) if plain.finite else plain)
        return tuple(made)

    def run(
        self, x: Array, weight: Array, packed: tuple[Packed, ...] | None, bias: Array | None, residual: Array | None,
        out: Array, activation: int, channels_last: bool,
    ) -> None:  # fmt: skip
        a = Operands(x, weight, None, bias, residual, out, activation, channels_last).logical()
        finite = packed is not None or special.all_finite(a.weight)
        for i, one in enumerate(self.passes):
            if packed is not None:
                held, mine = packed[i], packed[i]
            else:
                held, mine = None, Packed(NONE, finite, one.spectra(a.weight) if finite else None)
            native = a.x.size > 0 and mine.transformed is not None and one  # of padding alone, directly
            special.run(self.problem, one.pass_, a._replace(packed=held), native, self.t.outputs[1], mine)

    def need(self, prepared: bool) -> int:
        own = max(one.scratch(one.block) for one in self.passes)
        return own + (0 if prepared else making_bytes(self.problem, self.t)) + _native.WORKSPACE_BYTES  # of a step

    def told(self, channels_last: bool, prepared: bool) -> Told:
        p, t, first = self.problem, self.t, self.passes[0]
        spectra = held_bytes(p, t) * len(self.passes)
        plain = sum(packed_bytes(p, prod(q.counts)) for q in p.passes)
        own = max(one.scratch(one.block) for one in self.passes)  # and what the driver takes for a step
        return Told(
            tile=t.outputs, block=f"{first.block.images * prod(first.block.tiles)} tiles",
            register_tile=(p.machine.rows, p.machine.width),
            source="spectra of tiles of " + " x ".join(map(str, t.samples[3 - len(t.axes) :])),
            workspace_bytes=own + (0 if prepared or p.held else making_bytes(p, t)),
            packed_weight_bytes=spectra + plain if prepared else 0,
            multiplications=multiplications(p, t), threads=p.machine.threads,
        )  # fmt: skip
