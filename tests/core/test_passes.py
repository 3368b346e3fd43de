"""Passes are pure numbers: what they sum, output by output, is what the definition of a convolution sums."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pytest

from fastconv._core.geometry import Geometry, conv_geometry
from fastconv._core.passes import (
    Pass,
    even_edges,
    exchanged_passes,
    forward_passes,
    input_gradient_passes,
    met_between,
    met_taps,
    spacing,
    span,
    terms,
    triple,
    useful_taps,
    walked,
    walked_alone,
    walked_taps,
    walks_padding,
)
from fastconv._core.problem import lifted

Term = tuple[int, int, int]  # output, place of the kernel, place of the input along an axis


def drawn(number: int) -> Geometry:
    """A convolution of small sizes, negative padding and strides beyond the kernel among them."""
    rng = np.random.default_rng([14, number])
    axes = int(rng.integers(1, 4))
    while True:
        kernel, stride, dilation = (tuple(int(n) for n in rng.integers(1, m, axes)) for m in (5, 5, 4))
        size = tuple(int(n) for n in rng.integers(1, 12, axes))
        padding = tuple((int(a), int(b)) for a, b in rng.integers(-1, 6, (axes, 2)))
        extents = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
        fits = (n + a + b >= e and n + min(a, 0) + min(b, 0) > 0
                for n, (a, b), e in zip(size, padding, extents, strict=True))  # fmt: skip
        if all(fits):
            return lifted(conv_geometry((2, 3, *size), (4, 3, *kernel), stride, padding, dilation, 1))


GEOMETRIES = [drawn(number) for number in range(60)]
by_geometry = pytest.mark.parametrize("g", GEOMETRIES, ids=range(len(GEOMETRIES)))


def defined(g: Geometry, axis: int) -> Counter[Term]:
    """(output, place of the kernel, place of the input) of every term along an axis, by the definition."""
    found = Counter()
    for out, place in product(range(g.output_size[axis]), range(g.kernel_size[axis])):
        at = out * g.stride[axis] + place * g.dilation[axis] - g.padding[axis][0]
        if 0 <= at < g.input_size[axis]:
            found[out, place, at] += 1
    return found


def summed(q: Pass, axis: int, outputs: int, inputs: int) -> Counter[Term]:
    """(output, place, place of what is summed over) of every term that a pass sums along an axis."""
    found = Counter()
    for i in range(len(range(q.phase[axis], outputs, q.step[axis]))):
        for tap, place in zip(q.taps[axis], q.places[axis], strict=True):
            at = i * q.stride[axis] + tap
            if 0 <= at < inputs:
                found[q.phase[axis] + i * q.step[axis], place, at] += 1
    return found


def along(passes: list[Pass], axis: int, outputs: int, inputs: int) -> Counter[Term]:
    """Those of all passes: each phase of an axis once, however often the other axes repeat it."""
    phases = {(q.phase[axis], q.taps[axis], q.places[axis]): q for q in passes}
    return sum((summed(q, axis, outputs, inputs) for q in phases.values()), Counter())


@by_geometry
def test_forward(g: Geometry) -> None:
    (q,) = forward_passes(g)
    assert q.output_size(g.output_size) == g.output_size and q.counts == g.kernel_size
    assert spacing(q) == tuple(d if k > 1 else 1 for d, k in zip(g.dilation, g.kernel_size, strict=True))
    assert terms(q, 3) == 3 * int(np.prod(g.kernel_size))
    for axis in range(3):
        assert summed(q, axis, g.output_size[axis], g.input_size[axis]) == defined(g, axis)


@by_geometry
def test_the_input_gradient_has_the_terms_of_the_forward_pass(g: Geometry) -> None:
    """Each term (output, tap, input) read the other way; at most as many passes as the kernel has taps."""
    passes = input_gradient_passes(g)
    assert len(passes) <= np.prod([min(s, k) for s, k in zip(g.stride, g.kernel_size, strict=True)])
    assert all(q.stride == (1, 1, 1) and q.step == g.stride for q in passes)
    for axis in range(3):
        read = Counter({(at, place, out): n for (out, place, at), n in defined(g, axis).items()})
        assert along(passes, axis, g.input_size[axis], g.output_size[axis]) == read
        assert all(list(q.taps[axis]) == sorted(q.taps[axis]) for q in passes)
    written = Counter()
    for q in passes:  # no output twice
        written.update(product(*(range(q.phase[a], g.input_size[a], q.step[a]) for a in range(3))))
    assert not written or max(written.values()) == 1


@by_geometry
@pytest.mark.parametrize("gradient", [False, True])
def test_exchanged_passes_lay_the_other_array_over_the_kernel(g: Geometry, gradient: bool) -> None:
    """The taps are places of the input (of grad_output), what is laid under them is the kernel: the same terms."""
    passes = exchanged_passes(g, gradient)
    size = g.input_size if gradient else g.output_size
    for axis in range(3):
        kernel = g.kernel_size[axis]
        found = along(passes, axis, size[axis], kernel)
        if gradient:  # of input position h: (h, place of grad_output, place of the kernel)
            right = Counter({(at, out, place): n for (out, place, at), n in defined(g, axis).items()})
        else:  # the kernel is read backwards
            right = Counter({(out, at, kernel - 1 - place): n for (out, place, at), n in defined(g, axis).items()})
        assert found == right


@by_geometry
def test_taps_that_meet_padding_alone_are_left_out(g: Geometry) -> None:
    (q,) = forward_passes(g)
    kept = useful_taps(q, g.output_size, g.input_size)
    for axis in range(3):
        whole = defined(g, axis)
        assert summed(kept, axis, g.output_size[axis], g.input_size[axis]) == whole
        met = {place for _, place, _ in whole}
        assert met <= set(kept.places[axis])
        assert not kept.places[axis] or {min(kept.places[axis]), max(kept.places[axis])} <= met | _reached(g, q, axis)


def _reached(g: Geometry, q: Pass, axis: int) -> set[int]:
    """Places whose positions lie within the input's, where a stride may step over it."""
    last = (g.output_size[axis] - 1) * g.stride[axis]
    return {p for p, tap in zip(q.places[axis], q.taps[axis], strict=True) if -last <= tap < g.input_size[axis]}


@by_geometry
def test_walked_taps_are_counted_tile_by_tile(g: Geometry) -> None:
    (q,) = forward_passes(g)
    for axis in range(3):
        outputs, inputs, taps = g.output_size[axis], g.input_size[axis], q.taps[axis]
        for tile in (1, 2, 5, 40):
            total = 0
            for first in range(0, outputs, tile):
                tiles = range(first, min(outputs, first + tile))
                low, high = -tiles[-1] * g.stride[axis], inputs - 1 - tiles[0] * g.stride[axis]
                total += len(tiles) * sum(low <= tap <= high for tap in taps)
            assert walked_taps(taps, g.stride[axis], inputs, even_edges(outputs, tile)) == total
    single, whole = (
        walked(q, g.input_size, triple([even_edges(n, of) for n, of in zip(g.output_size, tile, strict=True)]))
        for tile in ((1, 1, 1), g.output_size)
    )
    assert walked_alone(q, g.output_size, g.input_size) == single
    assert single <= whole <= np.prod(g.output_size) * np.prod(q.counts)
    assert walks_padding(q, g.output_size, g.input_size, g.output_size) == (4 * whole > 5 * single)
    assert not walks_padding(q, g.output_size, g.input_size, (1, 1, 1))


@by_geometry
def test_taps_met_change_where_one_begins_or_ends(g: Geometry) -> None:
    (q,) = forward_passes(g)
    for axis in range(3):
        outputs, inputs, stride = g.output_size[axis], g.input_size[axis], g.stride[axis]
        met = [met_taps(sorted(q.taps[axis]), stride, inputs, at, at + 1) for at in range(outputs)]
        changes = {at for at in range(1, outputs) if met[at] != met[at - 1]}
        places = {at for tap in q.taps[axis] for at in met_between(tap, stride, inputs)}
        assert changes == {at for at in places if 0 < at < outputs}


def test_small_things() -> None:
    assert span(()) == 0 and span((3,)) == 1 and span((-2, 5)) == 8
    q: Any = Pass(((0,), (1, 3), (0,)), ((0,), (0, 1), (0,)), (1, 2, 1), (0, 1, 0), (1, 4, 1))
    assert spacing(q) == (1, 2, 1) and q.output_size((3, 10, 2)) == (3, 3, 2) and q.output_size((3, 1, 2)) == (3, 0, 2)
    moved = q.shifted(1, 5)
    assert moved.taps == ((0,), (6, 8), (0,)) and moved.phase == (0, 0, 0) and moved.step == (1, 1, 1)
    assert moved.places == q.places and moved.stride == q.stride
