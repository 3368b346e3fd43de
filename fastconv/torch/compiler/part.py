"""A part of a graph as a program of ours, made of what weights and lengths are when it runs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from ..._core.forks import Guard
from ...graph.errors import OnnxError
from ...graph.optimise import optimise
from ...graph.prepared import Prepared
from ..guard import unwatched
from ..ops import ARRAY_DTYPES, array, threads
from .trace import Refused, graph_of
from .weights import Weights

KEPT_PROGRAMS: Final = 4  # of other lengths of inputs, or other numbers of threads

Key = tuple[Any, ...]


class Made:
    """A program and how its results lie."""

    def __init__(self, module: fx.GraphModule, weights: dict[str, Tensor], count: int) -> None:
        known = {name: array(name, tensor) for name, tensor in weights.items()}
        graph, self.results = graph_of(module, known)
        found = output_values(module)
        self.lying = [
            (tuple(map(int, value.shape)), tuple(map(int, value.stride())), value.dtype)
            if isinstance(value, Tensor) else None for value in found
        ]  # fmt: skip
        self.feeds = [value.name for value in graph.inputs]
        self.prepared = Prepared(optimise(graph), count)

    def run(self, feeds: dict[str, Tensor]) -> list[Any]:
        """The results as PyTorch's own operators would lay them."""
        given = {name: array(name, feeds[name]) for name in self.feeds}
        made = [
            result if lying is None else torch.empty_strided(lying[0], lying[1], dtype=lying[2])
            for result, lying in zip(self.results, self.lying, strict=True)
        ]
        into = {
            name: tensor.numpy() for name, tensor, lying in zip(self.results, made, self.lying, strict=True) if lying
        }  # fmt: skip
        self.prepared.run(given, into)
        return made


def output_values(module: fx.GraphModule) -> list[Any]:
    """What a module returns, as it knows it without running."""
    (results,) = next(node for node in module.graph.nodes if node.op == "output").args
    items = results if isinstance(results, (tuple, list)) else (results,)
    return [item.meta.get("val") if isinstance(item, fx.Node) else item for item in items]


class Part:
    """Called with the inputs of a module; `static` names those of them that are weights.

    The program for the first inputs is made at once. Other weights, or inputs of other lengths, are computed by
    PyTorch the first time, and by a program of their own when they come again: weights that change with every call
    never pay for one.
    """

    def __init__(self, module: fx.GraphModule, static: set[str]) -> None:
        self.module = module
        names = [node.name for node in module.graph.nodes if node.op == "placeholder"]
        self._weights = [(at, name) for at, name in enumerate(names) if name in static]
        self._feeds = [(at, name) for at, name in enumerate(names) if name not in static]
        (results,) = next(node for node in module.graph.nodes if node.op == "output").args
        self._alone = not isinstance(results, (tuple, list))
        self._guard = Guard(self._drop)
        self._drop()
        self.first = True

    def _drop(self) -> None:
        self._programs: OrderedDict[Key, Made | None] = OrderedDict()
        self._seen: Key | None = None  # what PyTorch computed last
        self._held: Weights | None = None

    @property
    def programs(self) -> int:
        """How many are kept."""
        return sum(made is not None for made in self._programs.values())

    def __call__(self, *args: Any) -> Any:
        feeds = [args[at] for at, _ in self._feeds]
        tensors = [x for x in feeds if isinstance(x, Tensor)]
        if not unwatched(*tensors) or (torch.is_grad_enabled() and any(x.requires_grad for x in tensors)):
            return self.module(*args)
        key = (threads(), *[(x.shape, x.stride()) if isinstance(x, Tensor) else x for x in feeds])
        weights = [args[at] for at, _ in self._weights]
        with self._guard.lock:
            made = self._program(key, args, weights)
        if made is None:
            return self.module(*args)
        results = made.run({name: args[at] for at, name in self._feeds})
        return results[0] if self._alone else tuple(results)

    def _program(self, key: Key, args: Sequence[Any], weights: Sequence[Tensor]) -> Made | None:
        """The program for inputs that lie so and weights that are so; None where PyTorch computes."""
        if self._held is None or not self._held.are(weights):
            self._programs.clear()
            self._seen = None
            self._held = Weights(weights)
        if key in self._programs:
            self._programs.move_to_end(key)
            return self._programs[key]
        if not self.first and self._seen != key:
            self._seen = key
            return None
        made = self._make(args)
        self.first, self._seen = False, None
        self._programs[key] = made
        while len(self._programs) > KEPT_PROGRAMS:
            self._programs.popitem(last=False)
        return made

    def _make(self, args: Sequence[Any]) -> Made | None:
        try:
            know_lengths(self.module, args)
            return Made(self.module, {name: args[at] for at, name in self._weights}, threads())
        except (Refused, OnnxError):  # of these lengths alone: parts are cut by those of the first run
            return None


def know_lengths(module: fx.GraphModule, args: Sequence[Any]) -> None:
    """Give every node the shape that it has for these inputs, where lengths were left open."""
    values = [node.meta.get("val") for node in module.graph.nodes]
    open_lengths = any(
        isinstance(value, torch.SymInt) or (isinstance(value, Tensor) and _has_symbols(value)) for value in values
    )
    if not open_lengths and not module.meta.get("fastconv_lengths"):
        return
    module.meta["fastconv_lengths"] = True
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with torch.no_grad():
        FakeTensorProp(module, mode).propagate(*args)


def _has_symbols(value: Tensor) -> bool:
    return any(isinstance(length, torch.SymInt) for length in (*value.shape, *value.stride()))


def arrays_of(tensors: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """The memory of weights, where it can be shown."""
    return {
        name: array(name, tensor) for name, tensor in tensors.items()
        if isinstance(tensor, Tensor) and tensor.dtype in ARRAY_DTYPES and unwatched(tensor)
    }  # fmt: skip
