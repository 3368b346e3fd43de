"""Which method a problem takes, and why: problems of machines that are made up here; nothing is convolved."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv._core.checks import checked_algorithm
from fastconv._core.geometry import conv_geometry
from fastconv._core.methods import METHODS
from fastconv._core.methods.method import LONG_SUM
from fastconv._core.problem import Direction, Machine, Problem, Use, lifted
from fastconv._core.select import FORMER, WAYS, WORDS, asked, choose, known, wish_for_batch, wishes
from fastconv._core.tuning import Tuning, zen
from fastconv._core.types import Types, result_of

GENERIC = Tuning("generic", 32 << 10, 1 << 20)
# (set, type of sums, bytes of a sum, lanes, vectors of a panel, rows of a tile, vectors of a chunk, threads, tuning)
AVX512 = Machine("avx512", 0, 4, 16, 4, 6, 4, 2, GENERIC)
AVX2 = Machine("avx2", 0, 4, 8, 2, 6, 4, 2, GENERIC)
BASELINE = Machine("baseline", 0, 4, 4, 2, 6, 2, 1, GENERIC)
UNKNOWN = Machine("of another maker", 0, 4, 32, 4, 8, 2, 64, Tuning("generic", 128 << 10, 16 << 20))
INPUT, WEIGHT = Direction.INPUT_GRADIENT, Direction.WEIGHT_GRADIENT
ONCE, HELD, NETWORK, BATCH = Use


@pytest.fixture(autouse=True)
def _nothing_is_convolved(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def made(*_: Any) -> None:
        raise AssertionError("a choice made a program")

    for method in METHODS:
        monkeypatch.setattr(type(method), "program", made)
        monkeypatch.setattr(type(method), "gradient_program", made)
    yield


def made(
    x: tuple[int, ...], w: tuple[int, ...], direction: Direction = Direction.FORWARD, use: Use = ONCE,
    machine: Machine = AVX512, wish: str = "auto", dtype: str = "float32", **options: Any,
) -> Problem:  # fmt: skip
    """A problem of an input (N, C, *size) and a weight (O, I/groups, *kernel)."""
    usual = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "padding_mode": "zeros"} | options
    g = lifted(conv_geometry(x, w, *usual.values()))
    element = np.dtype(dtype)
    return Problem(g, direction, Types(element, element, result_of(element)), use, machine, wish)


def three(channels: int, outputs: int, size: int, *rest: Any, batch: int = 1, **options: Any) -> Problem:
    """3 x 3 with as many outputs a side as inputs, at stride 1."""
    dilation = options.get("dilation", 1)
    padding = {"padding": dilation} | options
    return made((batch, channels, size, size), (outputs, channels, 3, 3), *rest, **padding)


def one(channels: int, outputs: int, size: Any, *rest: Any, batch: int = 1, **options: Any) -> Problem:
    """1 x 1."""
    rows, columns = size if isinstance(size, tuple) else (size, size)
    return made((batch, channels, rows, columns), (outputs, channels, 1, 1), *rest, **options)


FORWARD = Direction.FORWARD
LARGE, SMALL, STRIDED, STRIDED_LARGE = (
    f"winograd:{form}" for form in ("4x4", "2x2", "2x2 at stride 2", "4x4 at stride 2")
)
CHOSEN = {
    "a layer of a network": (three(64, 64, 56), LARGE),
    # what is left of the multiplications must outweigh the transforms, of few channels above all
    "eight channels": (three(8, 64, 56), LARGE), "three channels": (three(3, 64, 56), "direct"),
    "few of both": (three(8, 8, 43), "direct"),
    # a call transforms its weights for one image
    "a call": (three(64, 64, 20), LARGE), "a call of small maps": (three(128, 128, 6), "direct"),
    "a plan of 7 x 7": (three(64, 64, 7, FORWARD, HELD), LARGE),
    "a plan of 6 x 6": (three(64, 64, 6, FORWARD, HELD), SMALL),
    "whose weights are hardly more than nearer caches hold": (three(256, 256, 14, FORWARD, HELD), LARGE),
    "a plan of 3 x 3": (three(16, 16, 3, FORWARD, HELD), "direct"),
    "a network's": (three(64, 64, 7, FORWARD, NETWORK), LARGE),
    # each phase of a dilation
    "dilated": (three(64, 64, 56, dilation=2), LARGE),
    "dilated, few channels": (three(8, 64, 24, dilation=2), "direct"),
    "dilated, small": (three(64, 64, 16, dilation=2), "direct"),
    "dilated, a plan": (three(32, 64, 28, FORWARD, HELD, dilation=2), LARGE),
    "dilated, padding repeated": (three(64, 64, 56, dilation=2, padding_mode="reflect"), "direct"),
    "padding repeated": (three(64, 64, 56, padding_mode="circular"), LARGE),
    # stride 2
    "stride 2": (three(256, 256, 28, stride=2), STRIDED),
    "stride 2, small": (three(512, 512, 8, stride=2), "direct"),
    "stride 2, four tiles": (three(512, 512, 14, FORWARD, HELD, stride=2), "direct"),  # many weights for them
    "stride 2, few channels": (three(16, 64, 56, stride=2), "direct"),
    "stride 2, a large map": (three(128, 128, 56, stride=2), STRIDED_LARGE),
    "stride (2, 1)": (three(128, 128, 48, stride=(2, 1)), "direct"),
    "stride 2, a step's batch": (three(128, 128, 48, FORWARD, BATCH, stride=2), "direct"),
    # gradients
    "input gradient": (three(64, 64, 56, INPUT), LARGE),
    "of 4 x 4 at stride 2": (made((1, 64, 32, 32), (128, 64, 4, 4), INPUT, stride=2, padding=1), STRIDED),
    "with little work": (made((1, 64, 16, 16), (128, 64, 4, 4), INPUT, stride=2, padding=1), "direct"),
    "of 3 x 3 at stride 2": (three(128, 128, 48, INPUT, stride=2), STRIDED_LARGE),
    "of a small map at stride 2": (three(256, 256, 28, INPUT, stride=2), STRIDED),
    "of few outputs": (three(8, 128, 48, INPUT, stride=2), "direct"),
    "of a plan": (three(128, 128, 48, INPUT, HELD, stride=2), STRIDED_LARGE),
    "weight gradient": (three(40, 40, 5, WEIGHT, batch=12), LARGE),
    "of few tiles": (three(40, 40, 8, WEIGHT, batch=2), "direct"),
    "of nine tiles": (three(64, 64, 8, WEIGHT, batch=3), LARGE),
    "of 15 channels": (three(15, 40, 16, WEIGHT, batch=12), "direct"),
    "at stride 2": (three(128, 128, 48, WEIGHT, batch=12, stride=2), "direct"),
    # a training step packs for its batch
    "a step's batch": (three(32, 32, 4, FORWARD, BATCH, batch=64), LARGE),
    "of fewer tiles": (three(32, 32, 4, FORWARD, BATCH, batch=63), "direct"),
    "of fewer channels": (three(31, 32, 16, FORWARD, BATCH, batch=64), "direct"),
    # along rows
    "a first layer": (made((1, 3, 48, 48), (16, 3, 7, 7), FORWARD, HELD, stride=2, padding=3), "winograd:rows"),
    "in a network": (made((1, 3, 224, 224), (64, 3, 7, 7), FORWARD, NETWORK, stride=2, padding=3), "winograd:rows"),
    "a call of it": (made((1, 3, 224, 224), (64, 3, 7, 7), stride=2, padding=3), "direct"),
    "15 outputs": (made((1, 3, 48, 48), (15, 3, 7, 7), FORWARD, HELD, stride=2, padding=3), "direct"),
    "23 a row": (made((1, 3, 46, 46), (16, 3, 7, 7), FORWARD, HELD, stride=2, padding=3), "direct"),
    "5 channels": (made((1, 5, 48, 48), (16, 5, 7, 7), FORWARD, HELD, stride=2, padding=3), "direct"),
    "5 x 7": (made((1, 3, 48, 48), (16, 3, 5, 7), FORWARD, HELD, stride=2, padding=3), "direct"),
    # 1 x 1
    "a wide plan": (one(256, 512, 28, FORWARD, HELD), "strassen:twice"),
    "a wide plan of channels-first arrays": (one(256, 512, 28, FORWARD, HELD)._replace(first=True), "direct"),
    "of outputs that cannot be cut in four": (one(768, 384, 28, FORWARD, HELD), "strassen:once"),
    "49 pixels": (one(512, 512, (1, 49), FORWARD, HELD), "strassen:twice"),
    "20 pixels": (one(512, 512, (1, 20), FORWARD, HELD), "strassen:once"),
    "9 pixels": (one(512, 512, (1, 9), FORWARD, HELD), "direct"),
    "one pixel": (one(512, 512, (1, 1), FORWARD, HELD), "direct"),
    "255 channels": (one(255, 512, 28, FORWARD, HELD), "direct"),
    "sums that cost what is saved": (one(128, 256, 28, FORWARD, HELD), "direct"),
    "a wide call": (one(256, 512, 28), "direct"),
    "in a wide network": (one(256, 512, 28, FORWARD, NETWORK), "strassen:twice"),
    "of more weights": (one(256, 1024, 14, FORWARD, NETWORK), "strassen:once"),
    "whose weights come from memory for few pixels": (one(512, 2048, 7, FORWARD, NETWORK), "direct"),
    "narrow panels": (one(512, 528, 28, FORWARD, HELD), "direct"),
    "that AVX2 can cut": (one(512, 544, 28, FORWARD, HELD, AVX2), "strassen:once"),
    # the direct kernels alone make long sums in blocks
    "4,096 channels": (three(LONG_SUM, 64, 14), LARGE), "4,097 channels": (three(LONG_SUM + 1, 64, 14), "direct"),
    "a wide plan of 8,192": (one(2 * LONG_SUM, 512, 28, FORWARD, HELD), "direct"),
    # groups
    "depthwise": (made((1, 64, 56, 56), (64, 1, 3, 3), padding=1, groups=64), "direct:lanes"),
    "its input gradient": (made((1, 64, 56, 56), (64, 1, 3, 3), INPUT, padding=1, groups=64), "direct:lanes"),
    "its weight gradient": (made((1, 64, 56, 56), (64, 1, 3, 3), WEIGHT, padding=1, groups=64), "direct:lanes"),
    "two large groups": (made((1, 128, 56, 56), (128, 64, 3, 3), padding=1, groups=2), "direct"),
    # other types and axes
    "float64": (three(64, 64, 56, dtype="float64"), "direct"),
    "float16": (three(64, 64, 56, dtype="float16"), "direct"),
    "int8": (three(64, 64, 56, dtype="int8"), "direct"),
    "one axis": (made((1, 64, 3136), (64, 64, 3), padding=1), "winograd:lines"),
    "one axis, few channels": (made((1, 8, 3136), (8, 8, 3), padding=1), "direct"),
    "a large kernel": (made((1, 64, 56, 56), (64, 64, 7, 7), padding=3), "winograd:lines"),
    "its gradient on a small map": (made((1, 128, 28, 28), (128, 128, 7, 7), INPUT, padding=3), "winograd:lines"),
    "of hardly more pixels than taps": (made((1, 128, 8, 8), (128, 128, 7, 7), INPUT, padding=3), "direct"),
    "weights that are new memory in a call": (made((1, 512, 14, 14), (512, 512, 5, 5), padding=2), "direct"),
    "a large kernel at a stride": (made((1, 64, 56, 56), (64, 64, 5, 5), padding=2, stride=2), "direct"),
    "a volume": (made((1, 64, 8, 28, 28), (64, 64, 3, 3, 3), padding=1), LARGE),
    "its planes are no 3 x 3": (made((1, 64, 8, 28, 28), (64, 64, 3, 5, 3), padding=1), "winograd:lines"),
    "a volume at stride 2": (made((1, 256, 8, 28, 28), (256, 256, 3, 3, 3), padding=1, stride=2), "direct"),
    "a dilated volume": (made((1, 64, 8, 28, 28), (64, 64, 3, 3, 3), padding=2, dilation=2), "direct"),
    "a wide plan of volumes": (made((1, 256, 4, 28, 28), (512, 256, 1, 1, 1), FORWARD, HELD), "direct"),
}  # fmt: skip


@pytest.mark.parametrize("what", CHOSEN)
def test_what_is_chosen(what: str) -> None:
    p, expected = CHOSEN[what]
    choice = choose(p)
    assert choice.wish == expected
    assert choice.reason and choice.reason == choice.reason.strip()
    before = METHODS[: METHODS.index(choice.method)]
    assert [title for title, _ in choice.refused] == [method.title for method in before]


def test_of_two_that_were_estimated_the_faster_is_taken() -> None:
    """Wherever it stands in the list."""
    lines, tiles = (
        choose(made((1, c, n, n), (c, c, k, k), padding=k // 2)) for c, n, k in ((32, 56, 11), (1, 512, 31))
    )
    assert lines.wish == "winograd:lines" and tiles.wish.startswith("fft:pairs")
    for choice in (lines, tiles):
        assert len({title for title, _ in choice.refused}) == len(choice.refused)


@pytest.mark.parametrize("what", CHOSEN)
def test_a_choice_looks_at_neither_batch_nor_threads_nor_caches(what: str) -> None:
    p, expected = CHOSEN[what]
    caches = (Tuning("generic", 16 << 10, 0), Tuning("generic", 128 << 10, 16 << 20), zen.TUNING)
    for machine in (*(p.machine._replace(threads=n) for n in (1, 16)), *(p.machine._replace(tuning=t) for t in caches)):
        assert choose(p._replace(machine=machine)).wish == expected
    if p.direction is not WEIGHT and p.use is not BATCH:  # these sum over the batch, or pack for it
        for batch in (1, 5, 64):
            assert choose(p._replace(geometry=p.geometry._replace(batch=batch))).wish == expected


@pytest.mark.parametrize("what", CHOSEN)
def test_machines_that_nobody_measured_choose_as_well(what: str) -> None:
    """What is of a width of its own differs, Strassen's product alone; the rest follows the shapes."""
    p, expected = CHOSEN[what]
    for machine in (BASELINE, UNKNOWN):
        choice = choose(p._replace(machine=machine))
        assert choice.method.why_not(p._replace(machine=machine), choice.variant or None) is None
        if p.geometry.kernel_size != (1, 1, 1):
            assert choice.wish == expected


def test_reasons_name_the_number_that_decided() -> None:
    for p, word in (
        (three(64, 64, 56), "36 multiplications for 16 outputs instead of 144"),
        (three(3, 64, 56), "multiply-adds an image with its transforms"),
        (three(LONG_SUM + 1, 64, 14), str(LONG_SUM)),
        (three(8, 64, 16, WEIGHT), "pays from 16 channels, 4 x 4 outputs"),
        (one(256, 512, 28, FORWARD, HELD), "49 multiplications of blocks instead of 64"),
        (three(64, 64, 56, dtype="float64"), "float64, not float32"),
        (three(32, 32, 4, FORWARD, BATCH, batch=64), "a batch of 64 tiles and 32 channels"),
    ):
        assert word in choose(p).reason, choose(p).reason


def test_nothing_to_compute_is_direct() -> None:
    p = made((1, 64, 0, 8), (64, 64, 3, 3), INPUT, padding=2)
    assert p.empty and (choose(p).wish, choose(p).reason) == ("direct", "nothing to compute")
    asked_for = p._replace(wish="winograd")
    assert (choose(asked_for).wish, choose(asked_for).reason) == ("direct", "nothing to compute")


# ---- what is asked for ----------------------------------------------------------------------------------------------


def test_every_way_can_be_asked_for() -> None:
    assert len(set(wishes())) == len(WAYS) and {"auto", "direct"} <= set(WORDS)
    for way in WAYS:
        assert known(way.wish) and known(way.method.word) and checked_algorithm(way.wish.upper()) == way.wish
        if way.variant:
            assert asked(way.wish) == [(way.method, way.variant)]
    assert [method for method, _ in asked("auto")] == list(METHODS)
    for unknown in ("fourier", "winograd:9x9", "direct:", "auto:4x4", "", ":", "winograd:", "winograd_", None, 3):
        with pytest.raises((fastconv.ConvError, fastconv.ConvTypeError), match="algorithm"):
            checked_algorithm(unknown)


ASKED = [
    (three(64, 64, 56, wish="winograd"), LARGE), (three(1, 1, 4, wish="winograd"), LARGE),
    (three(64, 64, 56, wish="winograd:2x2"), SMALL), (three(64, 64, 56, wish="winograd_2x2"), SMALL),
    (three(8, 8, 9, wish="winograd", stride=2), STRIDED), (three(8, 8, 9, wish="winograd_phases", stride=2), STRIDED),
    (three(8, 8, 9, wish="winograd_phases_4x4", stride=2), STRIDED_LARGE),
    (made((1, 3, 20, 20), (8, 3, 7, 7), stride=2, wish="winograd"), "winograd:rows"),
    (made((1, 3, 20, 20), (8, 3, 5, 7), stride=2, wish="winograd_rows"), "winograd:rows"),
    (made((1, 8, 12, 12), (8, 8, 4, 4), INPUT, stride=2, wish="winograd"), STRIDED),
    (one(64, 128, 3, wish="strassen", machine=AVX2), "strassen:once"),
    (one(64, 128, 3, wish="strassen_twice", machine=AVX2), "strassen:twice"),
    (one(2 * LONG_SUM, 512, 3, wish="strassen"), "strassen:once"),
    (three(64, 64, 56, wish="direct"), "direct"),
    (made((1, 64, 56, 56), (64, 1, 3, 3), padding=1, groups=64, wish="direct"), "direct:lanes"),
    (made((1, 64, 56, 56), (64, 1, 3, 3), padding=1, groups=64, wish="direct:lanes"), "direct:lanes"),
]  # fmt: skip


@pytest.mark.parametrize("p, expected", ASKED, ids=lambda value: value if isinstance(value, str) else value.wish)
def test_what_is_asked_for_is_taken(p: Problem, expected: str) -> None:
    choice = choose(p)
    assert (choice.wish, choice.reason) == (expected, "asked for")


def test_former_names_mean_what_they_meant() -> None:
    assert set(FORMER) == {
        "winograd_2x2", "winograd_phases", "winograd_phases_4x4", "winograd_rows", "strassen_twice"
    }  # fmt: skip
    for former, wish in FORMER.items():
        assert asked(former) == asked(wish) and len(asked(wish)) == 1 and checked_algorithm(former) == former


REFUSED = [
    (three(64, 64, 56, wish="winograd", dtype="float64"), "the element type is float64, not float32"),
    (three(64, 64, 56, wish="winograd:4x4", stride=2), r"the stride is (2, 2), not (1, 1)"),
    (three(64, 64, 56, wish="winograd_phases"), r"the stride is (1, 1), not (2, 2)"),
    (three(64, 64, 56, wish="winograd", stride=3), r"the stride is (3, 3)"),
    (three(64, 64, 24, wish="winograd", dilation=2, padding_mode="reflect"), "padding_mode='reflect'"),
    (three(64, 64, 24, wish="winograd_phases", dilation=2, stride=2), "dilated by (2, 2)"),
    (made((1, 64, 9, 9), (64, 64, 5, 5), wish="winograd:4x4"), "the kernel is 5 x 5, not 3 x 3"),
    (made((1, 64, 9, 9), (64, 32, 3, 3), groups=2, wish="winograd"), "groups is 2, not 1"),
    (made((1, 64, 8, 9, 9), (64, 64, 3, 3, 3), wish="winograd_phases", stride=2), "it has a depth"),
    (one(64, 256, 8, wish="strassen:once")._replace(geometry=made((1, 64, 2, 8, 8), (256, 64, 1, 1, 1)).geometry),
     "it has a depth"),
    (three(64, 64, 56, WEIGHT, wish="winograd_phases", stride=2), "it has no weight gradient"),
    (three(64, 64, 56, WEIGHT, wish="winograd", stride=2), "the stride is (2, 2), not (1, 1)"),
    (made((1, 8, 56, 56), (8, 8, 4, 4), INPUT, stride=2, padding=1, wish="winograd_phases_4x4"), "2 x 2 outputs alone"),
    (three(64, 64, 56, INPUT, wish="winograd_phases", stride=2, padding=2), "not every phase of the kernel has 2 x 2"),
    (made((1, 64, 56, 56), (64, 64, 3, 3), INPUT, stride=2, wish="winograd_phases"), "an odd padding"),
    (made((1, 3, 20, 20), (8, 3, 7, 5), stride=2, wish="winograd_rows"), "kernels of 7 columns"),
    (made((1, 5, 20, 20), (8, 5, 7, 7), stride=2, wish="winograd_rows"), "there are 5 channels, not 1 to 4"),
    (made((1, 3, 20, 20), (8, 3, 7, 7), INPUT, stride=2, wish="winograd_rows"), "it has no input gradient"),
    (one(63, 256, 8, wish="strassen"), "63 channels are not 2 times some vectors of 16"),
    (one(64, 255, 8, wish="strassen:twice"), "255 output channels are not 4 times some panels of 64"),
    (one(64, 256, 8, WEIGHT, wish="strassen"), "it has no weight gradient"),
    (one(256, 256, 8, INPUT, wish="strassen", padding=1, padding_mode="reflect"), "repeats pixels"),
    (three(64, 256, 8, wish="strassen"), "the kernel is 3 x 3, not 1 x 1"),
    (three(256, 256, 8, INPUT, wish="strassen", stride=2), "the kernel is 3 x 3, not 1 x 1"),
    (three(256, 256, 9, INPUT, wish="strassen", stride=3, padding=0), "the kernel is 3 x 3, not 1 x 1"),
    (three(64, 64, 56, wish="direct:lanes"), "there is one group"),
]  # fmt: skip


@pytest.mark.parametrize("p, why", REFUSED, ids=lambda value: value if isinstance(value, str) else value.wish)
def test_what_does_not_apply_is_refused(p: Problem, why: str) -> None:
    """With what was asked for, the shapes, the reason and a way out."""
    with pytest.raises(fastconv.ConvError) as refused:
        choose(p)
    text, g = str(refused.value), p.geometry
    assert text.startswith(f"algorithm={p.wish!r} does not apply to input {(g.batch, g.in_channels, *g.input_size)}")
    assert f"with kernel {g.kernel_size}: " in text and why in text
    assert text.endswith("Use algorithm='auto' or 'direct'.")


def test_the_shapes_shown_are_the_callers() -> None:
    g = conv_geometry((1, 64, 99), (64, 64, 2), 1, 0, 1, 1)
    with pytest.raises(fastconv.ConvError, match=r"input \(1, 64, 99\) with kernel \(2,\)"):
        choose(made((1, 64, 99), (64, 64, 2), wish="winograd"), g)


def test_the_wish_of_a_batch_is_one_for_all_three_passes() -> None:
    float32 = np.dtype("float32")
    wide = conv_geometry((64, 64, 8, 8), (64, 64, 3, 3), 1, 1, 1, 1)
    assert wish_for_batch(wide, float32) == LARGE
    for other in (wide._replace(batch=1), wide._replace(stride=(2, 2), output_size=(4, 4)), wide._replace(batch=0)):
        assert wish_for_batch(other, float32) == "auto"
    assert wish_for_batch(wide, np.dtype("float64")) == "auto"
