"""The ways to convolve, in the order in which they are asked.

Adding one is a module with a `METHOD` and a line here.
"""

from __future__ import annotations

from typing import Final

from . import direct, fft, fourier, lanes, strassen, winograd, winograd_lines, winograd_rows
from .method import Method

METHODS: Final[tuple[Method, ...]] = (
    strassen.METHOD, winograd_rows.METHOD, fourier.METHOD, fft.METHOD, winograd_lines.METHOD, winograd.METHOD,
    lanes.METHOD, direct.METHOD,
)  # fmt: skip
