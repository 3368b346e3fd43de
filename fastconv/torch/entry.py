"""What PyTorch's compiler finds first: the compiler's modules are imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import fx


def backend(gm: fx.GraphModule, example_inputs: Sequence[Any], **options: Any) -> Callable[..., Any]:
    """The backend 'fastconv' of `torch.compile`, which an installed fastconv offers by that name.

    Parameters
    ----------
    gm : GraphModule
        The graph as it was captured; changed in place.
    example_inputs : sequence of Tensor
        Its inputs.
    **options : object
        There are none yet.

    Returns
    -------
    callable
        What runs in its place.

    Raises
    ------
    fastconv.ConvTypeError
        For options.
    """
    from .compiler import compiled

    return compiled(gm, example_inputs, **options)
