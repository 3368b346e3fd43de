"""A graph cut into parts that are ours and parts that are PyTorch's."""

from __future__ import annotations

from typing import Final

import torch
from torch import fx
from torch.fx.passes.split_module import split_module

from ..reports import CompileReport

# A part without any of these is as fast where it is.
HEAVY: Final = frozenset({
    "convolution", "_convolution", "mm", "bmm", "addmm", "baddbmm", "linear", "matmul", "max_pool2d_with_indices",
    "max_pool3d_with_indices", "avg_pool1d", "avg_pool2d", "avg_pool3d", "interpolate", "native_group_norm",
    "native_layer_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit",
    "_scaled_dot_product_flash_attention_for_cpu", "grid_sampler_2d", "grid_sampler_3d",
})  # fmt: skip


def named(node: fx.Node) -> str:
    """An operator in a report."""
    return str(node.target)


def computes(node: fx.Node) -> bool:
    """Whether a node is an operator, and no input, length or item."""
    return node.op == "call_function" and hasattr(node.target, "_schema")


def levels(module: fx.GraphModule, refused: dict[fx.Node, str]) -> dict[fx.Node, int]:
    """Even levels are ours, odd ones PyTorch's; a node's is never below that of what it reads."""
    found: dict[fx.Node, int] = {}
    for node in module.graph.nodes:
        if node.op in ("placeholder", "output"):
            continue
        least = max((found.get(one, 0) for one in node.all_input_nodes), default=0)
        ours = node not in refused
        found[node] = least if (least % 2 == 0) == ours else least + 1
    return found


def cut(module: fx.GraphModule, refused: dict[fx.Node, str]) -> tuple[fx.GraphModule, list[str], CompileReport]:
    """The module in submodules, the names of those that are ours, and the report."""
    operators = [node for node in module.graph.nodes if computes(node)]
    report = CompileReport(len(operators))
    report.left = {named(node): refused[node] for node in operators if node in refused}
    found = levels(module, refused)
    worth: dict[int, int] = {}
    heavy: set[int] = set()
    for node in operators:
        level = found[node]
        if level % 2 == 0:
            worth[level] = worth.get(level, 0) + 1
            if node.target.overloadpacket.__name__ in HEAVY:
                heavy.add(level)
    report.parts = [count for level, count in sorted(worth.items()) if level in heavy]
    if not heavy:
        return module, [], report
    divided = split_module(module, torch.nn.Module(), lambda node: found[node])
    return divided, [f"submod_{level}" for level in sorted(heavy)], report

