"""Graphs with gradients: PyTorch's, with our convolutions and their gradients in the places of its own."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

from ..ops import DTYPES, OPERATORS, sizes
from ..swap import pays
from .trace import Arguments

aten = torch.ops.aten


def accelerated(module: fx.GraphModule) -> int:
    """Put them in; how many nodes were taken."""
    count = 0
    for node in list(module.graph.nodes):
        if node.target is aten.convolution.default:
            count += _forward(module, node)
        elif node.target is aten.convolution_backward.default:
            count += _backward(module, node)
    if count:
        module.graph.eliminate_dead_code()
        module.recompile()
    return count


def _value(node: Any) -> Tensor | None:
    found = node.meta.get("val") if isinstance(node, fx.Node) else None
    return found if isinstance(found, Tensor) else None


def _options(a: Any, input: Any, weight: Any) -> tuple[int, Any] | None:
    """The axes and (stride, sides, dilation, groups) of a convolution that pays here; None for what stays PyTorch's."""
    x, w = _value(input), _value(weight)
    if x is None or w is None or x.dtype is not w.dtype or x.dtype not in DTYPES or x.device.type != "cpu":
        return None
    axes = w.dim() - 2
    every = [*x.shape, *w.shape, *a.stride, *a.padding, *a.dilation, *a.output_padding, a.groups]
    if axes not in OPERATORS or x.dim() != axes + 2 or not all(isinstance(one, int) for one in every) or 0 in every[:4]:
        return None
    stride, padding, dilation = (sizes(tuple(one), axes) for one in (a.stride, a.padding, a.dilation))
    if any(one >= step for one, step in zip(sizes(tuple(a.output_padding), axes), stride, strict=True)):
        return None
    inner, outer = (w.shape[0] // a.groups, w.shape[1]) if a.transposed else (w.shape[1], w.shape[0] // a.groups)
    if not pays(inner, outer, a.groups, tuple(w.shape[2:]), stride, x.dtype)[0]:
        return None
    return axes, (list(stride), [side for pad in padding for side in (pad, pad)], list(dilation), a.groups)


def _put(module: fx.GraphModule, node: fx.Node, target: Any, args: tuple[Any, ...], like: Tensor) -> fx.Node | None:
    """One of our operators before a node; None if its result would not lie as PyTorch's."""
    values = fx.map_arg(args, lambda one: one.meta["val"])
    with like.fake_mode if hasattr(like, "fake_mode") else torch.no_grad():
        made = target(*values)
    if made.shape != like.shape or made.stride() != like.stride():
        return None
    with module.graph.inserting_before(node):
        new = module.graph.call_function(target, args)
    new.meta["val"] = made
    return new


def _forward(module: fx.GraphModule, node: fx.Node) -> int:
    a: Any = Arguments(node)
    like, found = _value(node), _options(a, a.input, a.weight)
    if found is None or like is None:
        return 0
    axes, options = found
    if a.transposed:
        target = getattr(torch.ops.fastconv, f"conv_transpose{axes}d").default
        new = _put(module, node, target, (a.input, a.weight, a.bias, list(like.shape[2:]), *options), like)
    else:
        target = getattr(torch.ops.fastconv, f"conv{axes}d").default
        new = _put(module, node, target, (a.input, a.weight, a.bias, *options), like)
    if new is None:
        return 0
    node.replace_all_uses_with(new)
    module.graph.erase_node(node)
    return 1


def _backward(module: fx.GraphModule, node: fx.Node) -> int:
    """The gradients of input, weight and bias that are asked for, each by itself."""
    a: Any = Arguments(node)
    found = _options(a, a.input, a.weight)
    if found is None:
        return 0
    axes, options = found
    library: Any = torch.ops.fastconv
    conv, transposed, weight = (
        getattr(library, name).default for name in (f"conv{axes}d", f"conv_transpose{axes}d", f"conv{axes}d_weight")
    )
    x, w = _value(a.input), _value(a.weight)
    assert x is not None and w is not None
    calls: dict[int, tuple[Any, tuple[Any, ...]]] = {}
    if a.transposed:
        calls[0] = conv, (a.grad_output, a.weight, None, *options)
        calls[1] = weight, (a.grad_output, a.input, list(w.shape[2:]), *options)
    else:
        calls[0] = transposed, (a.grad_output, a.weight, None, list(x.shape[2:]), *options)
        calls[1] = weight, (a.input, a.grad_output, list(w.shape[2:]), *options)
    rank = axes + 2
    calls[2] = aten.sum.dim_IntList, (a.grad_output, [0, *range(2, rank)])
    taken = 0
    for user in list(node.users):
        at = user.args[1] if user.target is operator.getitem else None
        like = _value(user)
        if not isinstance(at, int) or like is None or not a.output_mask[at]:
            continue
        new = _put(module, node, *calls[at], like)
        if new is not None:
            user.replace_all_uses_with(new)
            module.graph.erase_node(user)
            taken = 1
    if not node.users:
        module.graph.erase_node(node)
    else:  # what stays PyTorch's computes that alone
        left = [any(isinstance(u, fx.Node) and u.args[1] == at for u in node.users) for at in range(3)]
        node.args = (*node.args[:10], [one and asked for one, asked in zip(left, a.output_mask, strict=True)])
    return taken
