"""Docstrings of functions that differ from another one in their number of axes alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

# Of two axes, of one, of three.
PHRASES: Final = (
    ("int or (int, int)", "int", "int or (int, int, int)"),
    ("Rows and columns", "Positions", "Slices, rows and columns"),
    ("(N, C, H, W), or (N, H, W, C)", "(N, C, W), or (N, W, C)", "(N, C, D, H, W), or (N, D, H, W, C)"),
    ("(N, C, H', W') or (N, H', W', C)", "(N, C, W') or (N, W', C)", "(N, C, D', H', W') or (N, D', H', W', C)"),
    ("'NHWC'", "'NWC'", "'NDHWC'"),
    ("int, pair or str", "int, ((int, int),) or str", "int, three or str"),
    ("in its plane, row * width + column", "in its row", "in its volume, (slice * height + row) * width + column"),
)  # fmt: skip


def like(pattern: Callable[..., Any], axes: int) -> Callable[[Function], Function]:
    """Give a function of `axes` axes the text of `pattern`, of two; examples are left to that one."""

    def decorated(function: Function) -> Function:
        text = pattern.__doc__ or ""
        text = text.partition("\n\n    Examples\n")[0].rstrip() + "\n    "
        text = text.replace("2d", f"{axes}d")  # of the names of functions
        for phrases in PHRASES:
            text = text.replace(phrases[0], phrases[{1: 1, 3: 2}[axes]])
        function.__doc__ = text
        return function

    return decorated
