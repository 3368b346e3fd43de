"""Functions that PyTorch would take to pieces while it records: kept whole, as operators of ours.

`F.interpolate` becomes some fifty gathers and products before a backend sees it, and circular padding as many copies.
They are put in their places where no gradient is recorded; computed outside our programs, they are PyTorch's own.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, fx


@torch.library.custom_op(
    "fastconv::interpolate",
    mutates_args=(),
    schema="(Tensor input, SymInt[]? size, float[]? scale_factor, str mode, bool? align_corners, "
    "bool? recompute_scale_factor, bool antialias) -> Tensor",
)
def interpolate(
    input: Tensor, size: Any, scale_factor: Any, mode: str, align_corners: bool | None,
    recompute_scale_factor: bool | None, antialias: bool,
) -> Tensor:  # fmt: skip
    """`F.interpolate`."""
    one = scale_factor is not None and len(scale_factor) == 1 and input.dim() > 3
    return F.interpolate(
        input, size, scale_factor[0] if one else scale_factor, mode, align_corners, recompute_scale_factor, antialias
    )


@torch.library.custom_op(
    "fastconv::pad_circular", mutates_args=(), schema="(Tensor self, SymInt[] pad) -> Tensor"
)
def pad_circular(self: Tensor, pad: Any) -> Tensor:
    """`F.pad` by what follows on the other side."""
    return F.pad(self, tuple(pad), "circular")


interpolate.register_fake(interpolate._init_fn)
pad_circular.register_fake(pad_circular._init_fn)

_INTERPOLATE: Final = inspect.signature(F.interpolate)


def keep_whole(module: fx.GraphModule) -> None:
    """Put our operators in the places of the functions in a graph as `torch.compile` records it."""
    changed = False
    for node in module.graph.nodes:
        if node.op != "call_function":
            continue
        made: tuple[Any, tuple[Any, ...]] | None = None
        if node.target is F.interpolate:
            made = _interpolation(node)
        elif node.target in (F.pad, torch._C._nn.pad):
            made = _padding(*node.args, **node.kwargs)
        if made is not None:
            node.target, node.args, node.kwargs = made[0], made[1], {}
            changed = True
    if changed:
        module.recompile()


def _interpolation(node: fx.Node) -> tuple[Any, tuple[Any, ...]] | None:
    given = _INTERPOLATE.bind(*node.args, **node.kwargs)
    given.apply_defaults()
    a = given.arguments
    size, factor = a["size"], a["scale_factor"]
    if isinstance(size, (int, fx.Node)):
        size = [size] * (node.meta["example_value"].dim() - 2)
    if isinstance(factor, (int, float)):
        factor = [factor]
    if factor is not None and not all(isinstance(one, (int, float)) for one in factor):
        return None
    size = None if size is None else list(size)
    factor = None if factor is None else [float(one) for one in factor]
    rest = (a["mode"], a["align_corners"], a["recompute_scale_factor"], bool(a["antialias"]))
    return torch.ops.fastconv.interpolate.default, (a["input"], size, factor, *rest)


def _padding(
    input: Any, pad: Sequence[Any], mode: str = "constant", value: Any = None
) -> tuple[Any, tuple[Any, ...]] | None:
    if mode != "circular" or not isinstance(pad, (tuple, list)):
        return None
    return torch.ops.fastconv.pad_circular.default, (input, list(pad))
