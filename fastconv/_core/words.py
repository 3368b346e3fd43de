"""Options as the caller writes them, turned into numbers, for any number of spatial axes.

An option that holds a number for each axis may be written as one integer for all; padding has more forms, and words.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ..errors import ConvError, ConvTypeError

Shape = tuple[int, ...]
Sizes = tuple[int, ...]  # one an axis
Sides = tuple[int, int]  # before and after, along one axis
Pads = tuple[Sides, ...]
Size = int | Sequence[int]
Padding = str | int | Sequence[int] | Sequence[Sequence[int]]

PADDING_WORDS: Final = ("valid", "same", "same_lower", "full")
CAUSAL: Final = "causal"  # of one axis alone: before the sequence
CONSTANT: Final = "constant"  # of any value but 0, which is 'zeros'
PADDING_MODES: Final = ("zeros", CONSTANT, "reflect", "replicate", "circular", "symmetric")

# How messages call the spatial axes, and the two ends of each.
AXES: Final = {1: ("width",), 2: ("height", "width"), 3: ("depth", "height", "width")}
SIDES: Final = {
    1: "((left, right),)",
    2: "((top, bottom), (left, right))",
    3: "((front, back), (top, bottom), (left, right))",
}
MOST_AXES: Final = 3

# Positions stay below this, so that sums of a few of them fit in 64 bits too.
LARGEST_POSITION: Final = 2**60


def integer(name: str, value: object) -> int:
    """`value` as an int; NumPy's integers pass, bool and float do not."""
    if type(value) is int:
        return value
    if not isinstance(value, bool):
        try:
            return operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            pass
    raise ConvTypeError(
        f"{name} must be made of integers, but got {value!r} of type {type(value).__name__}; "
        f"convert it with int(...) if it holds a whole number."
    )


def _items(value: object) -> list[Any] | tuple[Any, ...] | None:
    """The entries of a sequence (list, tuple, 1-D array), None for everything else."""
    if isinstance(value, (tuple, list)):
        return value
    if isinstance(value, (str, bytes, dict, set, frozenset)) or not hasattr(value, "__len__"):
        return None
    try:
        return list(value)  # type: ignore[call-overload, no-any-return]
    except TypeError:  # a NumPy array without axes has no length
        return None


def _bounded(name: str, value: object, numbers: Sequence[int], least: int) -> None:
    for number in numbers:
        if number < least:
            raise ConvError(f"{name} must be at least {least}, but got {name}={value!r}.")
        if number > LARGEST_POSITION:
            raise ConvError(f"{name} must be at most 2**60, but got {name}={value!r}; positions would overflow.")


def _axis_list(axes: int) -> str:
    return f"({', '.join(AXES[axes])})"


def per_axis(name: str, value: object, least: int, axes: int) -> Sizes:
    """An integer for all axes, or one for each, none below `least`."""
    if type(value) is int and least <= value <= LARGEST_POSITION:
        return (value,) * axes
    items = _items(value)
    if items is None:
        items = (value,)
    if len(items) not in (1, axes):
        wanted = {
            1: f"{name} of a 1-D operation must be one integer",
            2: f"{name} must be one integer or a pair {_axis_list(2)}",
            3: f"{name} must be one integer or three {_axis_list(3)}",
        }
        raise ConvError(f"{wanted[axes]}, but got {name}={value!r} with {len(items)} values.")
    numbers = tuple(integer(name, item) for item in items)
    _bounded(name, value, numbers, least)
    return numbers if len(numbers) == axes else numbers * axes


def pair(name: str, value: object, least: int) -> tuple[int, int]:
    """`per_axis` of height and width."""
    height, width = per_axis(name, value, least, 2)
    return height, width


def word(name: str, value: object, choices: Sequence[str]) -> str:
    """`value` in lower case if it is one of `choices`, in any case."""
    if not isinstance(value, str):
        raise ConvTypeError(
            f"{name} must be one of {', '.join(map(repr, choices))}, but got {value!r} of type {type(value).__name__}."
        )
    lower = value.lower()
    if lower not in choices:
        raise ConvError(f"{name} must be one of {', '.join(map(repr, choices))}, but got {name}={value!r}.")
    return lower


def flag(name: str, value: object) -> bool:
    """`value` as a bool; numbers do not pass for one."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise ConvTypeError(f"{name} must be True or False, but got {value!r} of type {type(value).__name__}.")


def shape(name: str, value: object) -> Shape:
    """A shape given as such: a sequence of integers from 0."""
    items = _items(value)
    if items is None:
        raise ConvTypeError(
            f"{name} must be a sequence of integers such as (1, 3, 32, 32), but got {value!r} "
            f"of type {type(value).__name__}; for an array, pass its .shape."
        )
    if isinstance(value, (tuple, list)) or getattr(value, "ndim", 1) == 1:
        sizes = tuple(integer(name, size) for size in items)
    else:
        raise ConvTypeError(f"{name} must be a shape, but got an array of {len(items)} rows; pass its .shape.")
    _bounded(name, value, sizes, 0)
    return sizes


def channel_groups(value: object) -> int:
    """`groups` as an int from 1."""
    if type(value) is int and 1 <= value <= LARGEST_POSITION:
        return value
    number = integer("groups", value)
    _bounded("groups", value, (number,), 1)
    return number


def mask(value: object) -> tuple[bool, bool, bool]:
    """`output_mask`: which of the gradients for input, weight and bias are wanted."""
    if not isinstance(value, (tuple, list)):
        raise ConvTypeError(
            f"output_mask must be a tuple of three bools, but got {value!r} of type {type(value).__name__}."
        )
    if len(value) != 3:
        raise ConvError(
            f"output_mask must hold three bools, for input, weight and bias, but got output_mask={value!r} "
            f"with {len(value)} values."
        )
    first, second, third = (flag("output_mask", wanted) for wanted in value)
    return first, second, third


# ---- padding -----------------------------------------------------------------------------------------------------


def padding_content(mode: object, value: object) -> tuple[str, float]:
    """What the padding holds: one of `PADDING_MODES`, and the value of a constant one; a constant 0 is 'zeros'."""
    chosen, number = word("padding_mode", mode, PADDING_MODES), _number("padding_value", value)
    if chosen == CONSTANT:
        return (CONSTANT, number) if number != 0 else ("zeros", 0)
    if number != 0:
        raise ConvError(
            f"padding_value is what padding_mode='constant' pads with, but got padding_value={value!r} with "
            f"padding_mode={mode!r}; pass padding_mode='constant', or leave padding_value out."
        )
    return chosen, 0


def _number(name: str, value: object) -> float:
    """`value` as an int or a float; NumPy's scalars pass, bool and arrays do not.

    All NaN are one, so that equal options are equal keys.
    """
    number: Any = value
    if isinstance(value, np.generic) and value.dtype.kind in "iuf":
        number = value.item()
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise ConvTypeError(
            f"{name} must be a number, but got {value!r} of type {type(value).__name__}; convert it with float(...)."
        )
    return math.nan if number != number else number


def _padding_form(value: object, how: str) -> ConvError:
    return ConvError(f"padding must be {how}, but got padding={value!r}.")


def padding_words(axes: int) -> tuple[str, ...]:
    """The words that padding may be in so many axes."""
    return (*PADDING_WORDS, CAUSAL) if axes == 1 else PADDING_WORDS


def _forms(axes: int) -> str:
    words = ", ".join(map(repr, padding_words(axes)))
    if axes == 1:
        return f"an integer, {SIDES[1]} or one of {words} in a 1-D operation"
    return f"an integer, {_axis_list(axes)}, {SIDES[axes]} or one of {words}"


def _ambiguous(value: object, axes: int) -> ConvError:
    """The refusal of flat numbers, one a side: libraries put them in different orders."""
    if axes == 2:
        count, onnx, pytorch = "four", "top, left, bottom, right", "left, right, top, bottom"
    else:
        count, onnx = "six", "front, top, left, back, bottom, right"
        pytorch = "left, right, top, bottom, front, back"
    return ConvError(
        f"padding={value!r} is ambiguous: {count} flat integers are ({onnx}) to ONNX and ({pytorch}) to PyTorch's pad. "
        f"Write {SIDES[axes]}."
    )


def _sides(value: object, items: Sequence[Any], axes: int) -> Sides:
    """(before, after) of one axis in the nested form, where negative values crop."""
    if len(items) != 2:
        raise _padding_form(value, f"nested as {SIDES[axes]}, two values an axis")
    before, after = integer("padding", items[0]), integer("padding", items[1])
    _bounded("padding", value, (abs(before), abs(after)), 0)
    return before, after


def _not_negative(value: object, numbers: Sequence[int], axes: int) -> None:
    if min(numbers) < 0:
        nested = ((-1, -1), *((0, 0),) * (axes - 1))
        raise _padding_form(value, f"at least 0 in this form (to crop, write the nested form, such as {nested})")
    _bounded("padding", value, numbers, 0)


def parse_padding(value: object, axes: int) -> str | Pads:
    """One of `padding_words`, or (before, after) of each axis."""
    if type(value) is int and 0 <= value <= LARGEST_POSITION:
        return ((value, value),) * axes
    if isinstance(value, str):
        return word("padding", value, padding_words(axes))
    items = _items(value)
    if items is None:
        items = (value,)
    entries = [_items(item) for item in items]
    flat = entries == [None] * len(items)
    if flat and axes > 1 and len(items) == 2 * axes:
        raise _ambiguous(value, axes)
    if len(items) not in (1, axes):
        raise _padding_form(value, _forms(axes))
    if flat:
        numbers = tuple(integer("padding", item) for item in items)
        _not_negative(value, numbers, axes)
        each = tuple((number, number) for number in numbers)
        return each if len(each) == axes else each * axes
    if len(items) != axes or None in entries:
        raise _padding_form(value, _forms(axes))
    return tuple(_sides(value, entry, axes) for entry in entries if entry is not None)
