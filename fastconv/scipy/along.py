"""Sums and running means along one axis: native, in SciPy's order and so with its bits."""

from __future__ import annotations

from math import prod
from typing import Any, Final

import numpy as np

from .. import _native
from .._core.threads import effective
from .types import Array, into_integers

NATIVE: Final = frozenset(np.dtype(code) for code in ("f4", "f8", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"))
ALMOST: Final = float(np.finfo(np.float64).eps)  # SciPy calls weights alike that differ by this


def along(
    x: Array,
    axis: int,
    pad: tuple[int, int],
    mode: str,
    beyond: float,
    weights: Array | None,
    taps: int,
    dtype: np.dtype[Any],
    num_threads: int | None = None,
    out: Array | None = None,
    what: str = "the result",
) -> Array:
    """Sums of a real array over windows of `taps` samples of an axis that is extended by `pad` as `mode` (numpy.pad's
    word) says, as `dtype`; without `weights` their means. `out` may lend its memory, and may be `x`."""
    made = dtype if dtype in NATIVE else np.dtype(np.float64)
    source: Array = np.require(x.view(np.uint8) if x.dtype == np.bool_ else x, requirements=("C", "A"))
    if source.dtype not in NATIVE:
        source = source.astype(np.float32 if source.dtype == np.float16 else np.float64)
    n = source.shape[axis]
    shape = (*source.shape[:axis], n + sum(pad) - taps + 1, *source.shape[axis + 1 :])
    result = out if _serves(out, shape, made, source) else np.empty(shape, made)
    assert result is not None
    if result.size == 0:
        return result.astype(dtype, copy=False)
    extra = {"constant_values": -1} if mode == "constant" else {}
    places = np.pad(np.arange(n, dtype=np.int64), pad, mode, **extra)  # type: ignore[call-overload]
    lines = (prod(source.shape[:axis]), -1, prod(source.shape[axis + 1 :]))
    own = 0 if weights is None else _native.axis_scratch_bytes(taps, lines[2])
    if own > _native.WORKSPACE_BYTES and lines[2] > 1:  # less for each line
        turned = along(np.moveaxis(source, axis, -1), x.ndim - 1, pad, mode, beyond, weights, taps, dtype, num_threads)
        return np.ascontiguousarray(np.moveaxis(turned, -1, axis))
    w = None if weights is None else np.ascontiguousarray(weights, np.float64)
    fits = _native.axis_sums(
        source.reshape(lines), result.reshape(lines), places, w, beyond, 0 if w is None else symmetry(w), taps,
        effective(num_threads),
    )  # fmt: skip
    if not fits:  # refused, with the values
        plain = along(x, axis, pad, mode, beyond, weights, taps, np.dtype(np.float64), num_threads)
        return into_integers(plain, dtype, what)
    return into_integers(result, dtype, what) if dtype.kind == "b" else result.astype(dtype, copy=False)


def _serves(out: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any], source: Array) -> bool:
    """Whether the result can be made where it is to lie."""
    return (
        out is not None and out.shape == shape and out.dtype == dtype and out.flags.carray
        and not np.may_share_memory(out, source)
    )  # fmt: skip


def symmetry(weights: Array) -> int:
    """1 where they are the same read backwards, -1 where their negative; 0 where neither, or of an even number."""
    middle = len(weights) // 2
    if len(weights) % 2 == 0:
        return 0
    before, after = weights[:middle][::-1], weights[middle + 1 :]
    if not (np.abs(after - before) > ALMOST).any():
        return 1
    return 0 if (np.abs(after + before) > ALMOST).any() else -1
