"""What is not finite is computed again directly: the one place.

A fast method mixes the values under several windows, so that a NaN or an infinity would reach outputs whose own window
does not hold it. Its driver says which parts have an output that is not finite, and those are computed again by the
direct one.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from .types import FLOATS

if TYPE_CHECKING:
    from .operands import Array, Operands, Packed
    from .passes import Pass
    from .problem import Problem

FINITE_AT_ONCE = 1 << 18  # weights looked at together


class Fast(Protocol):
    """A native program that says which parts have an output that is not finite."""

    def run(
        self, x: Array, weight: Array, packed: Packed | None, bias: Array | None, residual: Array | None, y: Array,
        activation: int, channels_last: bool, threads: int,
    ) -> bytes | None: ...  # fmt: skip


def run(
    p: Problem, q: Pass, a: Operands, native: Fast | Literal[False], rows: int = 0, packed: Packed | None = None,
    phases: Sequence[tuple[Pass, Packed | None]] = (),
) -> None:  # fmt: skip
    """A pass into its phase of the outputs by a native program, which marks `rows` (0: all) of an image at a time.

    Where there is none, as the weights are not finite, directly. `packed` are weights for the program alone; a pass
    that stands for several `phases` is done again in these, with the packed weights of each.
    """
    bad: bytes | None = None
    if native:
        bad = native.run(
            a.x, a.weight, packed or a.packed, a.bias, a.residual, a.out, a.activation, a.channels_last,
            p.machine.threads,
        )  # fmt: skip
        if bad is None:
            return
    for one, its in phases or ((q, a.packed),):
        own = a if one.step == (1, 1, 1) else a.logical().phase(one.phase, one.step)
        again(p, one, own._replace(packed=its), bad, (rows // one.step[1] if phases else rows) or own.size[1])


def again(p: Problem, q: Pass, a: Operands, bad: bytes | None, rows: int) -> None:
    """Compute the rows of a pass again that `bad` marks, a byte for `rows` of them, plane and image (None: all).

    `a` holds the outputs of the pass alone.
    """
    from .methods.direct import rows_of_a_pass

    a = a.logical()
    batch, (planes, height, _) = a.batch, a.size
    if bad is None:
        rows_of_a_pass(p, q, a)
        return
    for at, row in np.argwhere(np.frombuffer(bad, np.uint8).reshape(batch * planes, -1)):
        (n, plane), first = divmod(int(at), planes), rows * int(row)
        if first >= height:  # of a phase that has fewer rows
            continue
        part: tuple[Any, ...] = np.s_[..., first : min(height, first + rows), :]
        if a.out.ndim == 5:
            part = np.s_[:, :, plane : plane + 1, first : min(height, first + rows)]
        one = a.images(slice(n, n + 1))
        one = one._replace(out=one.out[part], residual=None if one.residual is None else one.residual[part])
        rows_of_a_pass(p, q.shifted(0, plane * q.stride[0]).shifted(1, first * q.stride[1]), one)


def all_finite(weight: Array) -> bool:
    """Whether all values are finite, with hardly any memory beside them."""
    if weight.dtype not in FLOATS:
        return True
    step = max(1, FINITE_AT_ONCE // max(1, prod(weight.shape[2:])))
    return all(
        np.isfinite(one[first : first + step]).all() for one in weight for first in range(0, weight.shape[1], step)
    )


def gradient_again(p: Problem, x: Array, dy: Array, out: Array) -> None:
    """The gradient of a weight again, directly, if it is not finite: NaN and infinity must reach exactly the sums that
    hold them."""
    if not np.isfinite(out).all():
        from .plan import gradient_program

        gradient_program(p._replace(wish="direct")).run(x, dy, out)
