"""The names of activations: one table for functions, plans, the reference and the layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .. import _native
from ..errors import ConvError, ConvTypeError

# What a convolution computes while it stores its result, with the number that the kernels know it by.
FUSED: Final = {name: code for name, code in _native.ACTIVATIONS.items() if name is not None}
LINEAR: Final = "linear"  # in place of None
BY_LAYERS: Final = (LINEAR, *FUSED, "softmax")  # the last in a pass of its own
ALIASES: Final = {"swish": "silu", "hard_swish": "hardswish", "hard_silu": "hardswish"}


def activation_name(value: object, choices: Sequence[str]) -> str:
    """The name in `choices` that `value` means, in any case and under any alias.

    Parameters
    ----------
    value : str
        Such as 'relu' or 'Hard_Swish'.
    choices : sequence of str
        Names of the table.

    Returns
    -------
    str
        One of `choices`.

    Raises
    ------
    ConvError, ConvTypeError
        For another name, or what is none.
    """
    listed = f"None or one of {', '.join(map(repr, choices))}"
    if not isinstance(value, str):
        raise ConvTypeError(f"activation must be {listed}, but got {value!r} of type {type(value).__name__}.")
    name = ALIASES.get(value.lower(), value.lower())
    if name in choices:
        return name
    hint = "; only layers have it, so apply it to the result" if name in BY_LAYERS else ""
    raise ConvError(f"activation must be {listed}, but got activation={value!r}{hint}.")
