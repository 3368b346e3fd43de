"""What every method keeps because it is in the list: on problems of its own, in each of its variants and directions,
under every instruction set of this machine. A method's own facts are in the file of its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from settings import COUNT

import fastconv
from fastconv import _native
from fastconv._core.methods import METHODS
from fastconv._core.plan import plan_for
from fastconv._core.problem import Direction, Use
from fastconv._core.select import WAYS, Way, choose
from fastconv.models.boxes import needed
from fastconv.testing.comparisons import forced, forced_cases
from fastconv.testing.problems import ConvCase, conv_cases
from fastconv.testing.ways import Trial, trials

HERE = _native.isa_name().replace("avx512_bf16", "avx512_vnni")
SHARE = {True: 20, False: 150}  # of the generated problems: under the set in use, under others
FEW = {True: 4, False: 2}  # problems of the tests that run each several times, likewise
MOST = 8_000_000  # multiply-adds of these
PLAIN = METHODS[-1]  # takes the generator's problems as they are, which other tests run by the thousand


# (avx512_bf16 is avx512_vnni but for products of bfloat16: test_half_weights)
@pytest.fixture(params=[name for name in _native.isas_available() if name != "avx512_bf16"], autouse=True)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _native.isa_name()
    assert _native.isa_use(request.param)
    yield request.param
    _native.isa_use(before)


every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.wish)


def some_trials(way: Way, count: int, first: int, fits: Callable[[ConvCase], bool] = lambda case: True) -> list[Trial]:
    """So many problems, images and volumes, in each direction that the way has."""
    found: dict[tuple[int, Direction], list[Trial]] = {}
    for case in (*conv_cases(200, first), *conv_cases(50, first, 3)):
        for trial in trials(way, case) if fits(case) else ():
            several = found.setdefault((case.axes, trial.direction), [])
            if len(several) < count and 0 < trial.problem.macs < MOST:
                several.append(trial)
    return [trial for several in found.values() for trial in several]


def float32(case: ConvCase) -> bool:
    return case.dtypes[0] == case.dtypes[1] == "float32" and bool(case.batch)


@every_way
def test_results_keep_the_bound(way: Way, isa: str) -> None:
    """Forward by call and plan, and the gradients; integers are exact where the method says so."""
    compared = 0
    share = SHARE[isa == HERE] * (4 if way.method.word == PLAIN.word else max(1, len(way.method.variants) // 2))
    for axes, count in ((2, COUNT // share), (1, COUNT // share // 8), (3, COUNT // share // 6)):
        for case in forced_cases(way, max(8, count), 1000, axes):
            for comparison in forced(case, way):
                fault = comparison.fault()
                assert fault is None, f"{way.wish}: {case}\n{fault}"
                compared += 1
    assert compared


@every_way
def test_what_is_asked_for_is_done(way: Way) -> None:
    for trial in some_trials(way, 3, 0):
        if trial.problem.empty:  # padding alone
            continue
        assert way.method.why_not(trial.problem, way.variant) is None, trial
        choice = choose(trial.problem)
        if way.method is PLAIN:
            assert choice.method.word == way.method.word
        else:
            assert (choice.method, choice.variant, choice.reason) == (way.method, way.variant, "asked for")
            assert choice.wish == way.wish


@every_way
def test_bits_depend_on_numbers_alone(way: Way, isa: str) -> None:
    """Not on threads, on how the batch is cut, on the order of the axes in memory; a plan has those of the call."""
    for trial in some_trials(way, FEW[isa == HERE], 300, float32):
        given = trial.given("reals")
        whole = trial.run(given, num_threads=1)
        for threads in (2, 3, 7):
            np.testing.assert_array_equal(trial.run(given, num_threads=threads), whole, err_msg=f"{trial}, {threads}")
        other = given._replace(a=_turned(given.a), b=_turned(given.b))
        np.testing.assert_array_equal(trial.run(other), whole, err_msg=f"{trial}, another order in memory")
        if trial.direction is Direction.FORWARD:
            for threads in (1, 3):
                planned = trial.plan(given, num_threads=threads).run(given.a, residual=given.residual)
                np.testing.assert_array_equal(planned, whole, err_msg=f"{trial}, plan")
        if trial.direction is not Direction.WEIGHT_GRADIENT:
            for part in (slice(0, 1), slice(len(whole) // 2, None)):
                add = None if given.residual is None else given.residual[part]
                got = trial.run(given._replace(a=given.a[part], residual=add))
                np.testing.assert_array_equal(got, whole[part], err_msg=f"{trial}, images {part}")


def _turned(array: np.ndarray) -> np.ndarray:
    """The same in memory of the other layout: the last axis first, or the second last."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, -1, 1)), 1, -1)


@every_way
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf, 4e37], ids=str)
def test_special_values_reach_exactly_their_own_results(way: Way, isa: str, special: float) -> None:
    """In either operand; 4e37 is finite, and overflows inside. What else is finite keeps its bound."""

    def fits(case: ConvCase) -> bool:
        ordinary = float32(case) and case.activation in (None, "relu")
        return ordinary and (not np.isfinite(special) or case.padding_mode == "zeros")

    for trial in some_trials(way, 1 + (isa == HERE), 500, fits):
        given = trial.given("reals")
        given = given._replace(a=np.tanh(given.a), b=np.tanh(given.b))
        for which in ("a", "b"):
            changed = getattr(given, which).copy()
            changed.flat[(trial.case.index * 7919) % changed.size] = special
            one = given._replace(**{which: changed})
            with np.errstate(all="ignore"):
                expected = trial.expected(one)
                clean = one._replace(**{which: np.where(np.isfinite(changed), changed, 0)})
                limit = trial.allowed(expected, clean)
            got = [trial.run(one)]
            if trial.direction is Direction.FORWARD:
                got.append(trial.plan(one).run(one.a, residual=one.residual))
            finite = np.isfinite(expected)
            for result in got:
                for test in (np.isnan, np.isposinf, np.isneginf):
                    np.testing.assert_array_equal(test(result), test(expected), err_msg=f"{trial}, {which}")
                assert (np.abs(result[finite] - expected[finite]) <= limit[finite]).all(), f"{trial}, {which}"


@every_way
def test_scratch_memory_is_bounded_and_told(way: Way) -> None:
    for trial in some_trials(way, 4, 700, float32):
        if trial.direction is Direction.WEIGHT_GRADIENT:
            continue
        for threads in (1, 2, 8):
            for use in Use:
                plan = plan_for(trial.geometry, trial.direction, trial.problem.types, threads, way.wish, use)
                told = plan.explain(trial.case.channels_last, use is not Use.ONCE)
                assert 0 <= told.workspace_bytes <= _native.WORKSPACE_BYTES, trial
                assert told.multiplications >= 0 and told.packed_weight_bytes >= 0, trial
                assert 1 <= told.threads <= threads, trial


@every_way
def test_pieces_at_multiples_of_the_grain_have_the_bits_of_the_whole(way: Way) -> None:
    for trial in some_trials(way, 4, 100, lambda case: float32(case) and case.padding_mode == "zeros"):
        if trial.direction is not Direction.FORWARD or trial.case.axes != 2:
            continue
        trial = replace(trial, case=replace(trial.case, data_format="NCHW", with_residual=False))
        g, given = trial.geometry, trial.given("reals")
        whole = trial.run(given)
        plan = plan_for(g, trial.direction, trial.problem.types, 1, way.wish)
        _, *grain = way.method.grain(trial.problem, way.variant)
        if plan.program.whole:  # the direct kernels with a large kernel as the image
            continue
        for axis in (0, 1):
            size, step = g.output_size[axis], grain[axis]
            for begin in {step * (size // step // 2), step * ((size - 1) // step)}:
                outputs = (begin, min(size, begin + 2 * step))
                extent = (g.kernel_size[axis] - 1) * g.dilation[axis] + 1
                box, sides = needed(outputs, g.stride[axis], extent, g.padding[axis][0], g.input_size[axis], step)
                pads: list[Any] = list(g.padding)
                pads[axis] = sides
                part = given.a[(..., slice(*box), slice(None))[: 3 - axis]] if axis == 0 else given.a[..., slice(*box)]
                options = {**trial.case.options(), "padding": tuple(pads), "activation": trial.case.activation}
                got = fastconv.conv2d(part, given.b, given.bias, **options, algorithm=way.wish)
                right = np.take(whole, range(*outputs), 2 + axis)
                np.testing.assert_array_equal(got, right, err_msg=f"{trial}, outputs {outputs} along {axis}")


@every_way
def test_everything_else_is_refused_in_a_sentence(way: Way) -> None:
    """Before anything is computed, with the reason that the method gives."""
    met = set()
    for case in (*conv_cases(150), *conv_cases(20, 0, 1), *conv_cases(20, 0, 3)):
        for direction in Direction:
            p = Trial(way, direction, case).problem
            why = way.method.why_not(p, way.variant)
            if why is None:
                continue
            met.add(why)
            assert why == why.strip() and not why[0].isupper() and not why.endswith("."), why
            with pytest.raises(fastconv.ConvError) as refused:
                choose(p)
            text = str(refused.value)
            assert repr(way.wish) in text and why in text and "Use algorithm='auto' or 'direct'" in text
    assert (way.method is PLAIN) == (not met)


def test_a_choice_keeps_every_refusal_and_a_reason() -> None:
    for case in (*conv_cases(150), *conv_cases(20, 0, 1), *conv_cases(20, 0, 3)):
        for direction in Direction:
            p = Trial(WAYS[0], direction, case).problem._replace(wish="auto")
            choice = choose(p)
            if p.empty:
                assert (choice.method, choice.reason) == (PLAIN, "nothing to compute")
                continue
            asked = [method.title for method in METHODS[: METHODS.index(choice.method)]]
            assert [title for title, _ in choice.refused] == asked
            assert choice.reason and all(why for _, why in choice.refused)
            assert choice.method.why_not(p, choice.variant or None) is None
            assert choice.variant in choice.method.variants
