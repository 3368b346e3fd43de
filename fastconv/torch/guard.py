"""Who is watching: whether a call may leave PyTorch's dispatcher.

PyTorch traces, exports, transforms and counts what a model does by standing between the call of an operator and its
kernel. Memory that is read past it is not seen there: a trace would hold the result as a constant. Whoever reads a
tensor's memory, or calls an operator that only fastconv has, asks here first; nothing else knows these states.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch._C import DispatchKey, DispatchKeySet
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

PLAIN_TYPES: Final = (Tensor, torch.nn.Parameter)
_is_exporting: Final = getattr(torch.compiler, "is_exporting", lambda: False)  # new in PyTorch 2.7


def _bits(*names: str) -> int:
    """The set of these dispatch keys as a number."""
    bits = 0
    for name in names:
        bits |= DispatchKeySet(getattr(DispatchKey, name)).raw_repr()
    return bits


# What a tensor that is memory on the CPU and no more carries, and what every thread looks at. Any further key stands
# for someone who wants to be asked: a batch of `vmap`, a functional or fake tensor, a tracer, a dispatch mode.
_PLAIN_TENSOR: Final = _bits("CPU", "AutogradCPU", "AutocastCPU", "ADInplaceOrView")
_PLAIN_THREAD: Final = _bits("BackendSelect", "ADInplaceOrView")


class OwnMode(TorchFunctionMode):
    """A function mode of ours, which watches for nobody."""


def _foreign_modes() -> bool:
    """Whether somebody else's function mode is at work."""
    return any(
        not isinstance(torch._C._get_function_stack_at(at), OwnMode)
        for at in range(torch._C._len_torch_function_stack())
    )


def unwatched(*tensors: Tensor | None) -> bool:
    """Whether these are plain tensors on the CPU and nobody but autograd watches what is done with them.

    False while `jit.trace`, `torch.export`, `torch.onnx.export`, `make_fx` or `fx.symbolic_trace` record, in transforms
    of `torch.func` and forward-mode differentiation, under autocast, under any dispatch or function mode, and for
    subclasses, proxies, and fake, functional and meta tensors.
    """
    for tensor in tensors:
        if tensor is not None and (
            type(tensor) not in PLAIN_TYPES or torch._C._dispatch_keys(tensor).raw_repr() & ~_PLAIN_TENSOR
        ):
            return False
    return not (
        torch._C._dispatch_tls_local_include_set().raw_repr() & ~_PLAIN_THREAD
        or (torch._C._len_torch_function_stack() and _foreign_modes())
        or forward_ad._current_level >= 0
        or torch.is_autocast_enabled("cpu")
    )


def compiled(*tensors: Tensor | None) -> bool:
    """Whether `torch.compile` reads this code for a graph that it runs itself, in which our operators may stand.

    Not for `torch.export`, whose graphs go where fastconv is not, nor where transforms of `torch.func` are compiled,
    nor for what PyTorch has rules of its own for.
    """
    return not (
        _is_exporting()
        or _transformed()
        or forward_ad._current_level >= 0
        or torch.is_autocast_enabled("cpu")
        or any(tensor is not None and type(tensor) not in PLAIN_TYPES for tensor in tensors)
    )


def _transformed() -> bool:
    """Whether a transform of `torch.func` is at work."""
    return torch._C._functorch.peek_interpreter_stack() is not None


# torch.compile asks while it makes a graph, and makes another for other transforms: what torch.compiler's
# assume_constant_result says, without importing the compiler for it, which takes a second.
_transformed._dynamo_marked_constant = True  # type: ignore[attr-defined]
