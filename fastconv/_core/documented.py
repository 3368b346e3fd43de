"""Docstrings of functions and classes that differ from another one in their number of axes alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

Described = TypeVar("Described", bound=Callable[..., Any])

# Of two axes, of one, of three.
PHRASES: Final = (
    ("int or (int, int)", "int", "int or (int, int, int)"),
    ("Rows and columns", "Positions", "Slices, rows and columns"),
    ("(N, C, H, W), or (N, H, W, C)", "(N, C, W), or (N, W, C)", "(N, C, D, H, W), or (N, D, H, W, C)"),
    ("(N, C, H', W') or (N, H', W', C)", "(N, C, W') or (N, W', C)", "(N, C, D', H', W') or (N, D', H', W', C)"),
    ("'NHWC'", "'NWC'", "'NDHWC'"),
    ("Images (N, H, W, C) or (N, C, H, W)", "(N, W, C) or (N, C, W)", "(N, D, H, W, C) or (N, C, D, H, W)"),
    ("Convolve images", "Convolve signals", "Convolve volumes"),
    ("(kH, kW, ", "(kW, ", "(kD, kH, kW, "),
    ("(1, 1, in channels", "(1, in channels", "(1, 1, 1, in channels"),
    ("a 1x1 convolution", "one of a single tap", "a 1x1x1 convolution"),
    ("((int, int), (int, int))", "((int, int),)", "three pairs"),
    ("(height, width)", "(before, after)", "(depth, height, width)"),
    ("((top, bottom), (left, right))", "((before, after),)", "((front, back), (top, bottom), (left, right))"),
    ("the factors of height and width", "the factor", "the factors of depth, height and width"),
    ("the whole image", "the whole signal", "the whole volume"),
    ("the image", "the signal", "the volume"),
    ("(N, 1, 1, C)", "(N, 1, C)", "(N, 1, 1, 1, C)"),
    ("(H - 1)", "(W - 1)", "(D - 1)"),
    ("'same' H *", "'same' W *", "'same' D *"),
    ("int, pair or str", "int, ((int, int),) or str", "int, three or str"),
    ("in its plane, row * width + column", "in its row", "in its volume, (slice * height + row) * width + column"),
)  # fmt: skip


def like(pattern: Callable[..., Any], axes: int) -> Callable[[Described], Described]:
    """Give a function, or a class, of `axes` axes the text of `pattern`, of two; examples are left to that one."""

    def decorated(function: Described) -> Described:
        text = pattern.__doc__ or ""
        text = text.partition("\n\n    Examples\n")[0].rstrip() + "\n    "
        text = text.replace("2d", f"{axes}d").replace("2D", f"{axes}D")  # of the names of functions and classes
        for phrases in PHRASES:
            text = text.replace(phrases[0], phrases[{1: 1, 3: 2}[axes]])
        function.__doc__ = text
        return function

    return decorated
