"""The ways to convolve bytes that stand for real numbers, in the order in which they are asked."""

from __future__ import annotations

from typing import Final

from ..problem import Problem
from ..types import DType
from . import winograd
from .bytes_together import ChannelsTogether
from .depthwise_bytes import depthwise_bytes
from .direct_bytes import BytesProgram, multiplies_four
from .winograd_bytes import winograd_bytes

__all__ = ["NEARLY", "BytesProgram", "ChannelsTogether", "multiplies_four", "program_of_bytes"]

NEARLY: Final = winograd.METHOD.word  # how who takes results near the exact ones asks for the method that makes them


def program_of_bytes(
    p: Problem, four: bool, zero: int, result: DType | None, *, wide: bool, nearly: bool
) -> BytesProgram | ChannelsTogether:
    """The program of a problem whose bytes are multiplied `four` at a time or in pairs, `zero` standing for 0; of
    results that are bytes again (not None), or sums. `wide`: products with the multipliers may leave int32."""
    found: ChannelsTogether | None = None
    if not wide:
        found = depthwise_bytes(p, four, zero, result)
        if nearly and found is None:
            found = winograd_bytes(p, four, zero, result)
    return found or BytesProgram(p, four, zero, result)
