"""One and three axes: the promises that a number of axes might break, for every operation and its gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import fastconv
from fastconv import grad
from fastconv.testing.problems import ConvCase, PoolCase, conv_cases, fill, pool_cases, transposed_cases
from reliability.board import Outcome, first_case, row
from reliability.oracle import Array
from reliability.rows.layouts import same_bits


@row(
    "one and three axes: threads 1 to 3, the batch split, the other layout, out= over the input",
    "100 % of the same bits",
    quick=15, full=1200, every_isa=True, order=135,
)  # fmt: skip
def one_and_three_axes(count: int) -> Outcome:
    """`count` problems of each kind and number of axes."""
    outcome = Outcome()
    names: set[str] = set()
    for axes in (1, 3):
        draws = (conv_cases, transposed_cases, pool_cases)
        for case in (case for draw in draws for case in draw(count, first_case(), axes)):
            for name, right, made in _results(case):
                names.add(name)
                for what, got in made:
                    outcome.check(same_bits(np.ascontiguousarray(got), right), f"{name}, {what}: {case}")
    outcome.measured = f"{len(names)} operations"
    return outcome


def _results(case: ConvCase | PoolCase) -> Iterator[tuple[str, Array, list[tuple[str, Array]]]]:
    """(operation, the right result, what must have its bits), results C-contiguous in the caller's axes."""
    if isinstance(case, PoolCase):
        x = fill(case.rng("input"), case.input_shape, case.dtype)
        for kind in ("max", "avg")[: 2 if x.dtype.kind == "f" else 1]:
            function = getattr(fastconv, f"{kind}_pool{case.axes}d")
            yield from _forward(f"{kind}_pool{case.axes}d", case, function, x, (case.kernel,), case.options())
        return
    x, w, b = case.arrays("reals")
    options = {**case.options(), "algorithm": "direct"}
    name = f"conv{'_transpose' if case.transposed else ''}{case.axes}d"
    yield from _forward(name, case, getattr(fastconv, name), x, (w, b), options)
    dy = fill(case.rng("grad_output"), getattr(fastconv, name)(x, w, **options).shape, case.dtypes[0])
    for which, arguments in (("input", (x.shape, w, dy)), ("weight", (x, w.shape, dy))):
        function = getattr(grad, f"{name}_{which}")
        right = np.ascontiguousarray(function(*arguments, **options, num_threads=1))
        yield f"{name}_{which}", right, [
            (f"{team} threads", function(*arguments, **options, num_threads=team)) for team in (2, 3)
        ]  # fmt: skip


def _forward(
    name: str, case: ConvCase | PoolCase, function: Any, x: Array, rest: tuple[Any, ...], options: dict[str, Any]
) -> Iterator[tuple[str, Array, list[tuple[str, Array]]]]:
    """A forward operation of a problem."""
    right = np.ascontiguousarray(function(x, *rest, **options, num_threads=1))
    made = [(f"{team} threads", function(x, *rest, **options, num_threads=team)) for team in (2, 3)]
    if case.batch:
        parts = [function(x[n : n + 1], *rest, **options) for n in range(case.batch)]
        made.append(("image by image", np.concatenate(parts)))
    if case.batch is not None:
        order = (0, *range(2, x.ndim), 1) if not case.channels_last else (0, x.ndim - 1, *range(1, x.ndim - 1))
        view = np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
        made.append(("the other order in memory", function(view, *rest, **options)))
    if right.nbytes <= x.nbytes and right.size:
        raw = np.zeros(x.nbytes + 8, np.uint8)
        own = raw[: x.nbytes].view(x.dtype).reshape(x.shape)
        own[...] = x
        out = raw[: right.nbytes].view(right.dtype).reshape(right.shape)
        made.append(("out= over the input", function(own, *rest, **options, out=out)))
    yield name, right, made
