"""`torch.compile(model, backend="fastconv")`: a captured graph as one program of ours.

PyTorch finds `entry.backend` by the entry point, and imports nothing of this before. Without gradients the graph, as
AOTAutograd makes it (functional, of `aten` operators), becomes a `fastconv.graph` with the weights as its constants:
the rewrites, the plan of memory and the replay are those of ONNX models. What cannot be expressed is PyTorch's, and the
rest falls into parts. With gradients PyTorch runs its own graph with our convolutions in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from ..guard import unwatched
from ..reports import CompileReport, told
from . import elementwise, images, moves  # noqa: F401  (they register what they convert)
from .part import Part, arrays_of, know_lengths
from .partition import computes, cut
from .trace import survey

__all__ = ["compiled"]


def compiled(gm: fx.GraphModule, example_inputs: Sequence[Any], **options: Any) -> Callable[..., Any]:
    """What runs in the place of a graph that `torch.compile` captured; see `fastconv.torch.backend`."""
    if options:
        raise _no_options(options)
    if not (torch.is_grad_enabled() and any(getattr(x, "requires_grad", False) for x in example_inputs)):
        from .kept import keep_whole

        keep_whole(gm)
    from torch._dynamo.backends.common import aot_autograd

    made: Callable[..., Any] = aot_autograd(fw_compiler=_with_gradients, inference_compiler=_inference)(
        gm, example_inputs
    )
    return made


def _no_options(options: dict[str, Any]) -> Exception:
    from ...errors import ConvTypeError

    return ConvTypeError(f"torch.compile's backend 'fastconv' has no options, but got {', '.join(sorted(options))}.")


def _boxed(function: Callable[..., Any]) -> Callable[..., Any]:
    """As AOTAutograd calls it: with a list that it may empty."""

    def run(args: list[Any]) -> Any:
        given = tuple(args)
        args.clear()
        return function(*given)

    run._boxed_call = True  # type: ignore[attr-defined]
    return run


def _with_gradients(module: fx.GraphModule, example_inputs: Sequence[Any]) -> Callable[..., Any]:
    from .training import accelerated

    count = accelerated(module)
    told(CompileReport(sum(map(computes, module.graph.nodes)), training=count))
    return _boxed(module.forward)


def _inference(module: fx.GraphModule, example_inputs: Sequence[Any]) -> Callable[..., Any]:
    context = torch._guards.TracingContext.try_get()
    metadata = None if context is None else context.fw_metadata
    found, written = (
        set(getattr(metadata, name, None) or ()) for name in ("static_input_indices", "mutated_inp_runtime_indices")
    )
    names = [node.name for node in module.graph.nodes if node.op == "placeholder"]
    static = {names[at] for at in found - written if at < len(names)}
    return _boxed(_Lazily(module, static))


class _Lazily:
    """A graph that is cut into parts when it runs first: then its inputs are there.

    AOTAutograd looks on while a graph with operators of other libraries runs for the first time: that run is PyTorch's.
    """

    def __init__(self, module: fx.GraphModule, static: set[str]) -> None:
        self.module, self.static = module, static
        self._ready: Callable[..., Any] | None = None

    def __call__(self, *args: Any) -> Any:
        if self._ready is None:
            if not unwatched(*(x for x in args if isinstance(x, torch.Tensor))):
                return self.module(*args)
            self._ready = self._cut(args)
        return self._ready(*args)

    def _cut(self, args: Sequence[Any]) -> Callable[..., Any]:
        module = self.module
        know_lengths(module, args)
        names = [node.name for node in module.graph.nodes if node.op == "placeholder"]
        known = arrays_of({name: x for name, x in zip(names, args, strict=True) if name in self.static})
        refused = survey(module, known)
        static = self.static & known.keys()
        divided, ours, report = cut(module, refused)
        told(report)
        if not ours:
            plain: Callable[..., Any] = module.forward
            return plain
        if not refused:  # the whole
            return Part(module, static)
        for name in ours:
            setattr(divided, name, _Called(Part(getattr(divided, name), static)))
        in_parts: Callable[..., Any] = divided.forward
        return in_parts


class _Called(torch.nn.Module):
    """A part where a module is called."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.part = part

    def forward(self, *args: Any) -> Any:
        return self.part(*args)
