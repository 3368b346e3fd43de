"""Passes of the direct driver in native form."""

from __future__ import annotations

from math import prod

from ... import _native
from ..operands import Operands
from ..passes import Pass, even
from ..types import codes
from .direct_blocking import IN_PLACE, Blocking, blocking
from .direct_in_place import in_place_blocking
from .method import Sums, most_panel_bytes, panel_bytes

STREAMED_TILES = 4  # that pack the same weights again


def _reads_in_place(s: Sums, q: Pass) -> bool:
    """One tap and nothing padded."""
    return prod(q.counts) == 1 and all(
        tap[0] >= 0 and tap[0] + (count - 1) * stride < extent
        for tap, count, stride, extent in zip(q.taps, q.output_size(s.size), q.stride, s.input_size, strict=True)
    )


def threads_worth(s: Sums, *passes: Pass) -> int:
    """Those that the arithmetic of passes is worth, of idle lanes as of others."""
    m, images, sizes = s.machine, max(1, s.images), [prod(q.output_size(s.size)) for q in passes]
    outputs = s.groups * -(-s.outputs // m.lanes) * m.lanes
    products = sum(pixels * prod(q.counts) for pixels, q in zip(sizes, passes, strict=True))
    return _native.threads_for(images * products * s.channels * outputs, m.threads, images * sizes[0])


def _blocking(s: Sums, q: Pass, in_place: bool, copies: bool = False) -> Blocking:
    """Loop sizes of a pass."""
    own = q.output_size(s.size)
    b = blocking(s, q, threads_worth(s, q), in_place, copies)
    edges = b.edges or even(own, b.tile)
    tiles = -(-s.images // b.images) * prod(len(cut) - 1 for cut in edges)
    # so large a panel may serve so few tiles that it is not worth its memory
    streams = b.source != IN_PLACE and tiles <= STREAMED_TILES and panel_bytes(s, q) > most_panel_bytes(s)
    return b._replace(streams=streams)


def _blocking_in_place(s: Sums, q: Pass, packed: Blocking) -> Blocking | None:
    """The same where the input is read as it lies, beside the way in which it is packed; None where it could not be."""
    if prod(q.counts) == 1:
        return _blocking(s, q, True) if _reads_in_place(s, q) else None
    if packed.streams and not s.held:  # many small tiles would each pack so large a panel
        return None
    return in_place_blocking(s, q, threads_worth(s, q))


def _is_pointwise(s: Sums) -> bool:
    """Whether every output is a sum over the channels of the pixel that lies where it does."""
    return len(s.passes) == 1 and s.size == s.input_size and all(
        q.taps == ((0,), (0,), (0,)) and (q.stride, q.step, q.phase) == ((1, 1, 1), (1, 1, 1), (0, 0, 0))
        for q in s.passes
    )


def _as_line(s: Sums) -> Sums:
    """The same of images whose pixels are one line."""
    line = (1, 1, prod(s.size))
    return s._replace(size=line, input_size=line)


def scaling_program(s: Sums) -> _native.Direct | None:
    """A single pass whose input is scaled while it is copied under a tile; None where it could not be read in place."""
    if len(s.passes) != 1 or prod(s.passes[0].counts) != 1 or not _reads_in_place(s, s.passes[0]):
        return None
    line = scaling_program(_as_line(s)) if _is_pointwise(s) and s.size[:2] != (1, 1) else None
    packed, copied = ([_blocking(s, s.passes[0], *how)] for how in ((False,), (True, True)))
    numbers = codes(s.types)._replace(compute=s.compute)
    return _native.Direct(numbers, s, s.passes, packed, copied, s.transposed, line)


def native_program(s: Sums, result: int | None = None) -> _native.Direct:
    """All passes in native form, each with the way to read its input in place, where it could; `result` is the fc_dtype
    of what is made of the sums."""
    line = None
    if _is_pointwise(s) and s.size[:2] != (1, 1) and not s.machine.capped:
        line = native_program(_as_line(s), result)
    packed = [_blocking(s, q, False) for q in s.passes]
    ways = [_blocking_in_place(s, q, own) for q, own in zip(s.passes, packed, strict=True)]
    numbers = codes(s.types)._replace(compute=s.compute)
    if result is not None:
        numbers = numbers._replace(result=result)
    return _native.Direct(
        numbers, s, s.passes, packed, ways, s.transposed, line,
    )  # fmt: skip


def run_native(native: _native.Direct, a: Operands, threads: int) -> None:
    """The arrays to native code."""
    native.run(a.x, a.weight, a.packed, a.bias, a.residual, a.out, a.activation, a.channels_last, threads)
