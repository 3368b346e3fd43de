"""What a machine nobody measured gets: the usual numbers, and budgets from its caches that keep within the scratch."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import _native
from fastconv._core import tuning
from fastconv._core.geometry import conv_geometry
from fastconv._core.methods import METHODS
from fastconv._core.problem import Direction, Machine, Problem, Use, lifted, machine_here
from fastconv._core.select import WAYS
from fastconv._core.tuning import LEAST_SECOND, Tuning, zen
from fastconv._core.types import Types

CACHES = [(16 << 10, 0), (32 << 10, 256 << 10), (32 << 10, 512 << 10), (32 << 10, 1 << 20), (48 << 10, 2 << 20),
          (64 << 10, 4 << 20), (192 << 10, 16 << 20)]  # fmt: skip
FLOAT32 = Types(*(np.dtype("float32"),) * 3)
ASKED = count()  # a machine of its own each time: blockings are remembered


def usual() -> dict[str, Any]:
    """The class of numbers of every method that has some, under the name it asks for them by."""
    found: dict[str, Any] = {}

    class Asked(Tuning):
        def of(self, method: str, numbers: Any) -> Any:
            found[method] = numbers
            return numbers()

    machine = machine_here(np.dtype("float32"), 2)._replace(tuning=Asked(f"asked {next(ASKED)}", 32 << 10, 1 << 20))
    for p in problems(machine):
        for method in METHODS:
            for variant in method.variants:
                if method.why_not(p, variant) is None:
                    method.offer(p)
                    if not p.gradient_of_weight:
                        method.program(p, variant).told(True, False)
    return found


def problems(machine: Machine) -> list[Problem]:
    """One that each method takes, small enough to be described in no time, and large ones."""
    made = []
    for x, w, stride, groups in (
        ((1, 3, 224, 224), (64, 3, 7, 7), 2, 1), ((1, 64, 56, 56), (64, 64, 3, 3), 1, 1),
        ((4, 256, 28, 28), (512, 256, 1, 1), 1, 1), ((1, 96, 112, 112), (96, 1, 3, 3), 1, 96),
        ((1, 512, 28, 28), (512, 512, 3, 3), 2, 1), ((1, 2048, 14, 14), (2048, 2048, 3, 3), 1, 1),
        ((2, 8192, 7, 7), (8192, 8192, 1, 1), 1, 1),
    ):  # fmt: skip
        g = lifted(conv_geometry(x, w, stride, w[2] // 2, 1, groups))
        made += [Problem(g, direction, FLOAT32, Use.HELD, machine) for direction in Direction]
    return made


def test_measured_numbers_are_of_methods_that_have_them() -> None:
    """A name that no method asks for would measure nothing."""
    numbers = usual()
    assert set(zen.MEASURED) <= set(numbers)
    for method, own in zen.MEASURED.items():
        other = {name: _doubled(value) for name, value in own.items()}
        changed = Tuning("x", 1, 1, ((method, tuple(other.items())),)).of(method, numbers[method])
        assert {name: getattr(changed, name) for name in other} == other
        with pytest.raises(AttributeError, match="no number 'colour'"):
            Tuning("x", 1, 1, ((method, (("colour", 3),)),)).of(method, numbers[method])


def _doubled(value: Any) -> Any:
    return tuple(2 * n for n in value) if isinstance(value, tuple) else 2 * value


def test_the_usual_numbers_are_the_measured_ones() -> None:
    """They hold on all machines measured so far: the generic set of a machine like these chooses as they do."""
    numbers = usual()
    for method, own in zen.MEASURED.items():
        assert {name: getattr(numbers[method](), name) for name in own} == own
    generic = Tuning("generic", 32 << 10, 1 << 20)
    assert (generic.first, generic.second) == (zen.TUNING.first, zen.TUNING.second)
    assert all(generic.share(parts) == zen.TUNING.share(parts) for parts in range(129))


def test_budgets_grow_with_the_cache() -> None:
    for parts in (1, 8, 32, 40, 48, 64, 81, 128):
        shares = [Tuning("generic", *caches).share(parts) for caches in CACHES]
        assert shares == sorted(shares) and shares[0] == LEAST_SECOND // 128 * parts
        for (_, second), share in zip(CACHES, shares, strict=True):
            assert share <= max(second, LEAST_SECOND)


@pytest.mark.parametrize("caches", CACHES, ids=str)
@pytest.mark.parametrize("threads", [1, 2, 16, 64])
def test_scratch_memory_stays_bounded_on_any_machine(caches: tuple[int, int], threads: int) -> None:
    """30 MB of all threads together: budgets of large caches are cut to it."""
    machine = machine_here(np.dtype("float32"), threads)._replace(tuning=Tuning("generic", *caches))
    for p in problems(machine):
        if p.gradient_of_weight:
            continue
        for way in WAYS:
            if way.method.why_not(p, way.variant) is not None:
                continue
            for channels_last, prepared in ((True, True), (False, False)):
                told = way.method.program(p, way.variant).told(channels_last, prepared)
                assert 0 <= told.workspace_bytes <= _native.WORKSPACE_BYTES, (way.wish, p.geometry)


@pytest.mark.parametrize("caches", CACHES, ids=str)
def test_results_do_not_depend_on_budgets(caches: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward passes and input gradients of every way that applies, with the loop sizes of another machine."""
    rng = np.random.default_rng(0)
    here = machine_here(np.dtype("float32"), 2)
    for x_shape, w_shape, stride in (
        ((2, 64, 17, 15), (70, 64, 3, 3), 1), ((1, 256, 9, 9), (256, 256, 1, 1), 1), ((1, 3, 40, 37), (20, 3, 7, 7), 2),
        ((1, 40, 30, 30), (33, 40, 3, 3), 2),
    ):  # fmt: skip
        x, w = (rng.standard_normal(shape).astype("float32") for shape in (x_shape, w_shape))
        g = lifted(conv_geometry(x_shape, w_shape, stride, w_shape[2] // 2, 1, 1))
        for way in WAYS:
            results = []
            for machine in (here, here._replace(tuning=Tuning("generic", *caches))):
                p = Problem(g, Direction.FORWARD, FLOAT32, Use.ONCE, machine)
                if way.method.why_not(p, way.variant) is None:
                    out = np.empty((x_shape[0], w_shape[0], *g.output_size[1:]), "float32")
                    way.method.program(p, way.variant).run(x, w, None, None, None, out, 0, False)
                    results.append(out)
            if results:
                np.testing.assert_array_equal(*results, err_msg=f"{way.wish} {x_shape}")


def test_a_machine_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastconv._core import machine

    tuning.tuning_here.cache_clear()
    monkeypatch.setattr(machine, "microarchitecture", lambda: "")
    monkeypatch.setattr(machine, "caches", lambda: (64 << 10, 2 << 20))
    try:
        assert tuning.tuning_here() == Tuning("generic", 64 << 10, 2 << 20)
        tuning.tuning_here.cache_clear()
        monkeypatch.setattr(machine, "microarchitecture", lambda: "zen4")
        assert tuning.tuning_here() is zen.TUNING
    finally:
        tuning.tuning_here.cache_clear()
    assert fastconv.info()["isa"] == _native.isa_name()
