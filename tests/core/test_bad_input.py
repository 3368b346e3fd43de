"""Mistakes that need a plan or a look at the words; the board's row makes all others (reliability/mistakes.py)."""

import numpy as np
import pytest
from reliability.mistakes import GOOD, UNWRITTEN, W, X, arr, call

import fastconv
from fastconv import ConvError, ConvTypeError


@pytest.mark.parametrize("function", sorted(GOOD))
def test_the_good_arguments_are_good(function):
    before = fastconv.get_num_threads()
    try:
        call(function, GOOD[function])
    finally:
        fastconv.set_num_threads(before)  # one of the functions is this one


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (arr(2, 4, 8, 8), ConvError, r"input .*planned shape \(2, 4, 8, 9\).*\(2, 4, 8, 8\)"),
        (arr(2, 3, 8, 9), ConvError, "input"),
        (arr(8, 9), ConvError, "input"),
        (X.astype("f8"), ConvTypeError, "input .*float32.*float64"),
        (None, ConvTypeError, "input"),
    ],
)
def test_a_plan_refuses_what_was_not_planned(value, error, words):
    out = np.full((2, 6, 6, 7), UNWRITTEN, "f4")
    with pytest.raises(error, match=words):
        fastconv.plan_conv2d(X.shape, W).run(value, out=out)
    assert (out == UNWRITTEN).all()


def test_a_plan_refuses_a_wrong_out():
    with pytest.raises(ConvError, match=r"out .*\(2, 6, 6, 7\)"):
        fastconv.plan_conv2d(X.shape, W).run(X, out=arr(2, 6, 8, 9))


@pytest.mark.parametrize("habit", [ValueError, RuntimeError])
def test_values_are_caught_by_either_habit(habit):
    with pytest.raises(habit):
        fastconv.conv2d(X, W, stride=0)


@pytest.mark.parametrize("habit", [TypeError, RuntimeError])
def test_types_are_caught_by_either_habit(habit):
    with pytest.raises(habit):
        fastconv.conv2d(X, W, stride=1.0)


def test_memory_that_is_not_there_is_a_memory_error():
    with pytest.raises(MemoryError):
        fastconv.conv2d(arr(1, 1, 1, 1), arr(1, 1, 1, 1), padding=2**24)


@pytest.mark.parametrize(
    ("arguments", "way_out"),
    [
        ({"padding": (1, 1, 1, 1)}, "((top, bottom), (left, right))"),
        ({"padding": -1}, "nested form"),
        ({"input": X.astype("f8")}, ".astype('float64')"),
        ({"input": X.astype(bool)}, ".astype('uint8')"),
        ({"weight": arr(6, 4, 9, 9)}, "padding='same'"),
        ({"input": arr(2, 8, 9, 4)}, "data_format='NHWC'"),
        ({"weight": arr(5, 2, 3, 3), "groups": 2}, "divisor of 5"),
        ({"out": arr(1)}, "np.empty((2, 6, 6, 7), 'float32')"),
        ({"stride": 2.0}, "int("),
        ({"padding_mode": "edge"}, "'replicate'"),
    ],
)
def test_messages_show_the_way_out(arguments, way_out):
    with pytest.raises((ConvError, ConvTypeError)) as caught:
        fastconv.conv2d(**({"input": X, "weight": W} | arguments))
    assert way_out in str(caught.value)
