"""The judge of the fuzzers: it must bite. Its corpus is replayed by the reliability board."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz import calls, files

import fastconv
from fastconv import ConvError

CORPUS = sorted((Path(__file__).parents[1] / "corpus" / "api").glob("*"))


def sound(function: str) -> bytes:
    """A kept call of this function that is computed, and not by Winograd."""
    for path in CORPUS:
        data = path.read_bytes()
        call = calls.call_of(data)[0]
        plain = call.function == function and call.exact and not call.hostile and not call.winograd
        if plain and calls.run(data) == "computed":
            y = calls.answers(call, None)
            if np.isfinite(y[0] if isinstance(y, tuple) else y).sum():
                return data
    raise AssertionError(f"the corpus has no sound call of {function}")


def wrong_value(y: Any) -> Any:
    return y + 1


def wrong_type(y: Any) -> Any:
    return y.astype("float64" if y.dtype != np.float64 else "float32")


def refused_without_reason(y: Any) -> Any:
    raise ConvError("input is none of those that are computed on a Monday, come back on another day")


def refused_without_words(y: Any) -> Any:
    raise ConvError("no")


def another_exception(y: Any) -> Any:
    raise ValueError("input")


@pytest.mark.parametrize("fault", [wrong_value, wrong_type, refused_without_reason, refused_without_words])
@pytest.mark.parametrize("function", ["conv2d", "conv_transpose2d", "max_pool2d"])
def test_a_wrong_answer_is_noticed(function: str, fault: Callable[[Any], Any], monkeypatch: Any) -> None:
    data, right = sound(function), getattr(fastconv, function)

    def broken(*arguments: Any, **options: Any) -> Any:
        y = right(*arguments, **options)
        return (fault(y[0]), y[1]) if isinstance(y, tuple) else fault(y)

    calls.parameters(function)  # of the right one
    monkeypatch.setattr(fastconv, function, broken)
    with pytest.raises(files.Fault):
        calls.run(data)


def test_another_exception_is_not_swallowed(monkeypatch: Any) -> None:
    data = sound("conv2d")
    calls.parameters("conv2d")
    monkeypatch.setattr(fastconv, "conv2d", lambda **_: another_exception(None))
    with pytest.raises(ValueError, match="input"):
        calls.run(data)


def test_every_function_is_reached() -> None:
    assert {calls.call_of(path.read_bytes())[0].function for path in CORPUS} == set(calls.FUNCTIONS)
