"""Mistakes of every kind in every argument of every public function: an error that names it, and nothing written."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

import fastconv
from fastconv import ConvError, ConvTypeError
from reliability.board import Outcome, row
from reliability.mistakes import GOOD, ROWS, Unreadable, X, call, label, prepared

Mistake = tuple[str, str, tuple[type[Exception], ...], dict[str, Any]]
ANY = (ConvError, ConvTypeError)


class Lying:
    """An object whose array interface says what is not so."""

    def __init__(self, **interface: Any) -> None:
        self.interface = interface

    @property
    def __array_interface__(self) -> Any:
        return {"version": 3, "shape": X.shape, "typestr": "<f4", "data": bytes(X.nbytes), **self.interface}

    def __repr__(self) -> str:
        shown = {k: f"{len(v)} bytes" if isinstance(v, bytes) else v for k, v in self.interface.items()}
        return f"Lying({shown})"


class Short(list[Any]):
    """A sequence that ends before its length."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: Any) -> Any:
        raise IndexError("past the end")


class Misnamed:
    """Something whose conversion gives no array."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        return "no array"


class Unequal(int):
    """A number that can't be compared."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    __hash__ = int.__hash__


def deep(depth: int) -> list[Any]:
    nested: list[Any] = [1.0]
    for _ in range(depth):
        nested = [nested]
    return nested


NO_ARRAYS: tuple[Any, ...] = (
    "image", b"bytes", [[1, 2], [3]], Unreadable(), Misnamed(), object(), {"a": 1}, {1.0}, deep(70), Short(), Ellipsis,
    range, np.float32, slice(1), (x for x in ()), 10**400, [10**400], [[None]], np.zeros(X.shape, bool),
    np.zeros(X.shape, complex), np.zeros(X.shape, object), np.full(X.shape, "a"), np.zeros(X.shape, "M8[s]"),
    np.zeros(X.shape, "m8[s]"), np.zeros(X.shape, "V4"), np.zeros(X.shape, [("a", "f4")]),
    np.zeros(X.shape, "longdouble"),
    Lying(shape=(-1, 4, 8, 9)), Lying(shape="NCHW"), Lying(shape=(2, 4.5, 8, 9)), Lying(shape=(2**62, 2**62)),
    Lying(typestr="<q9"), Lying(typestr=None),
    Lying(typestr="|O8"), Lying(typestr="|b1"),
    Lying(strides=(1,)), Lying(strides="C"), Lying(data=None), Lying(data="text"), Lying(data=("a", False)),
    Lying(data=3), Lying(data=(0, False)),
    Lying(data=bytes(7)), Lying(data=bytes(X.nbytes), strides=(2**40, 288, 36, 4)), Lying(version=17, shape=None),
)  # fmt: skip
NO_SIZES: tuple[Any, ...] = (
    1.5, float("nan"), float("inf"), True, np.True_, "2", b"2", object(), {1: 2}, {1, 2}, [[1], [2, 3]], (1, None),
    (1, "a"), (True, 1), (1, 2, 3, 4, 5), 10**30, -(10**30), -1, (-1, 1), np.float32(2), np.array([1.0, 2.0]),
    1j, np.nan,
    Short(), Unreadable(), (1, (2, 3)), slice(1), range,
)  # fmt: skip
NO_SHAPES: tuple[Any, ...] = (
    None, 3, 3.0, "2489", b"2489", (), (2,), (2, 4, 8, -9), (2, 4, 8, 10**30), (2, 4, 8, 9.0), (2, 4, 8, None),
    (2, 4, 8, "9"), (2, 4, 8, True),
    [[2, 4], [8]], {2, 4, 8, 9}, (1,) * 9, np.array([2.0, 4.0, 8.0, 9.0]), object(), float("nan"),
    Short(),
    (2, 4, 8, float("nan")),
)  # fmt: skip
NO_WORDS: tuple[Any, ...] = (
    0, True, 1.0, b"zeros", ("zeros",), "no such word", "", "zeros\0", object(), ["NCHW"], np.array("a"),
)  # fmt: skip
NO_FLAGS: tuple[Any, ...] = (1, 0, None, "yes", 1.0, np.array([True, False]), object())
KINDS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("input", "weight", "bias", "residual", "grad_output", "out"), NO_ARRAYS),
    **dict.fromkeys(("stride", "dilation", "kernel_size", "output_padding", "padding"), NO_SIZES),
    **dict.fromkeys(("groups", "num_threads", "divisor_override", "n"), (*NO_SIZES, (1,), [1], (1, 1))),
    **dict.fromkeys(("input_size", "weight_size", "input_shape", "weight_shape"), NO_SHAPES),
    **dict.fromkeys(("padding_mode", "data_format", "activation", "algorithm"), NO_WORDS),
    **dict.fromkeys(("ceil_mode", "return_indices", "count_include_pad"), NO_FLAGS),
    "output_mask": (None, True, "yes", (1, 0, 1), (True,), (True, None, True), (), {True, False}, [True] * 4, object()),
    "dtype": ("bool", "complex64", "no such type", object, "f9", 3, (1, 2), object(), "V4", "M8[s]", b"\xff"),
}  # fmt: skip
# Of layers, models and optimizers: the good arguments, and for each argument tried what is wrong.
MADE: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "layers.Conv2D": ({"filters": 4, "kernel_size": 3}, ("strides", "dilation_rate", "data_format", "use_bias")),
    "layers.Conv2DTranspose": ({"filters": 4, "kernel_size": 3}, ("strides", "dilation_rate", "data_format")),
    "layers.DepthwiseConv2D": ({"kernel_size": 3}, ("strides", "depth_multiplier", "dilation_rate", "data_format")),
    "layers.SeparableConv2D": ({"filters": 4, "kernel_size": 3}, ("strides", "depth_multiplier", "dilation_rate")),
    "layers.TiledConv2D": ({"filters": 4, "kernel_size": 3}, ("tiles", "strides", "dilation_rate", "data_format")),
    "layers.Dense": ({"units": 3}, ("use_bias",)),
    "layers.MaxPooling2D": ({}, ("pool_size", "data_format")),
    "layers.AveragePooling2D": ({}, ("pool_size", "data_format")),
    "layers.GlobalAveragePooling2D": ({}, ("data_format", "keepdims")),
    "layers.Flatten": ({}, ("data_format",)),
    "layers.UpSampling2D": ({}, ("size", "data_format", "interpolation")),
    "layers.Dropout": ({"rate": 0.5}, ()),
    "models.vgg": ({"configuration": "A"}, ()),
    "models.resnet": ({"depth": 18}, ()),
    "optimizers.SGD": ({}, ("nesterov",)),
}
MADE_KINDS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("strides", "dilation_rate", "pool_size", "kernel_size", "tiles", "size"), (*NO_SIZES, 0)),
    **dict.fromkeys(("filters", "units", "depth_multiplier"), (*NO_SIZES, 0, None, (1, 1))),
    **dict.fromkeys(("data_format", "interpolation", "configuration"), NO_WORDS),
    **dict.fromkeys(("use_bias", "keepdims", "nesterov"), NO_FLAGS),
    "rate": (10**400, -0.1, 1.5, "half", None, float("nan"), object()),
    "depth": (17, 0, -1, "50", None, 50.0, True),
}


def mistakes() -> Iterator[Mistake]:
    """The table's mistakes, then every kind of mistake in every argument."""
    for function, argument, error, replaced in ROWS:
        yield function, argument, (error,), replaced
    for function in GOOD:
        target: Any = fastconv
        for part in function.split("."):
            target = getattr(target, part)
        for name in inspect.signature(target).parameters:
            for value in KINDS.get(name, ()):
                if name == "divisor_override" and type(value) is int and value == -1:  # a divisor may be negative
                    continue
                yield function, name, ANY, {name: value}
    for function, (good, others) in MADE.items():
        for name in (*good, *others):
            for value in MADE_KINDS[name]:
                yield function, name, ANY, {**good, name: value}


@row(
    "bad inputs: wrong types, shapes, values, lying __array_interface__, ragged lists, huge numbers",
    "at least 400; 0 crashes, 0 accepted, each message names its argument",
    quick=1, full=1, order=210,
)  # fmt: skip
def bad_input(count: int) -> Outcome:
    """One pass over all of them, in both tiers."""
    outcome = Outcome()
    seen: dict[str, Mistake] = {}
    for mistake in mistakes():
        seen.setdefault(label(mistake), mistake)
    for name, mistake in seen.items():
        print(name, flush=True)  # the last words of a crash
        fault = _fault(*mistake)
        outcome.check(not fault, f"{name}: {fault}")
    outcome.check(outcome.cases >= 400, f"only {outcome.cases} distinct bad calls")
    return outcome


def _fault(function: str, argument: str, errors: tuple[type[Exception], ...], replaced: dict[str, Any]) -> str:
    """What is wrong with the answer to a mistake; empty for a good refusal."""
    arguments = replaced if function in MADE else prepared(function, replaced)
    out = arguments.get("out")
    before = out.copy() if isinstance(out, np.ndarray) else None
    threads = fastconv.get_num_threads()
    try:
        call(function, arguments)
    except ANY as error:
        message = str(error)
        if type(error) not in errors:
            return f"{type(error).__name__} in place of {errors[0].__name__}"
        if not re.search(rf"\b{argument}\b", message) or len(message) < 35:
            return f"the message does not name {argument}: {message}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    else:
        return "accepted"
    if before is not None and not np.array_equal(out, before):
        return "out was written"
    return "the thread cap was changed" if fastconv.get_num_threads() != threads else ""
