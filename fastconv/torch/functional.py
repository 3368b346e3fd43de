"""Functional calls in the `forward` of modules: found on an example, and taken while such a module runs.

A module whose calls are taken gets a class between itself and its own, whose `__call__` puts a function mode of ours
around the module's. PyTorch hands every function called under it to `Taking`, which computes those of `accelerate`'s
choice and lets all others go on. Where somebody watches (see `guard`), or `torch.compile` reads, there is no such mode;
TorchScript, tracers and exporters find the module's own `forward`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from inspect import Parameter, Signature
from typing import Any, Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .guard import PLAIN_TYPES, OwnMode, unwatched
from .measuring import call, race, uncompiled, undisturbed
from .ops import (
    THEIRS,
    THEIRS_TRANSPOSED,
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    taken,
)
from .pooling import THEIRS_POOLED, pooled

KEPT: Final = "_fastconv_calls"  # the attribute with what is taken
COST: Final = 2e-6  # seconds that a function called under our mode takes longer
KEY_COST: Final = 1e-5  # and as many more that one of FUNCTIONS does, for its key, whoever computes it


def _takes(*names: str, **defaults: Any) -> Signature:
    every = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    every += [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=value) for name, value in defaults.items()]
    return Signature(every)


_CONV: Final = _takes("input", "weight", bias=None, stride=1, padding=0, dilation=1, groups=1)
_TRANSPOSED: Final = _takes("input", "weight", bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1)
_LARGEST: Final = _takes(
    "input", "kernel_size", stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False
)
_MEAN: Final = _takes(
    "input", "kernel_size", stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
)


class Function(NamedTuple):
    """A function of PyTorch's that fastconv has, too."""

    name: str
    ours: Callable[..., Any]
    signature: Signature
    tensors: int  # leading arguments that are tensors


FUNCTIONS: Final[dict[Any, Function]] = {
    **{
        THEIRS[axes]: Function(f"conv{axes}d", ours, _CONV, 3)
        for axes, ours in enumerate((conv1d, conv2d, conv3d), 1)
    },
    **{
        THEIRS_TRANSPOSED[axes]: Function(f"conv_transpose{axes}d", ours, _TRANSPOSED, 3)
        for axes, ours in enumerate((conv_transpose1d, conv_transpose2d, conv_transpose3d), 1)
    },
    **{
        theirs: Function(
            f"{'max' if largest else 'avg'}_pool{axes}d", partial(pooled, largest, axes),
            _LARGEST if largest else _MEAN, 1,
        )
        for (largest, axes), one in THEIRS_POOLED.items()
        for theirs in ((one, getattr(F, f"max_pool{axes}d")) if largest else (one,))  # the former from the latter
    },
}  # fmt: skip


class Key(NamedTuple):
    """Calls that are alike: the function, the shape of its weight, its options, the type of its input."""

    name: str
    weight: tuple[int, ...]
    options: tuple[Any, ...]
    dtype: Any

    @property
    def described(self) -> str:
        """The call in a report."""
        if not self.weight:
            return f"window {self.options[0]}"
        outer, inner, *kernel = self.weight
        if "transpose" in self.name:
            outer, inner = inner, outer
        return f"{inner}->{outer} {'x'.join(map(str, kernel))}"


def key_of(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Key, list[Any]] | None:
    """The kind of a call and all its arguments in order; None for what is no call of it."""
    try:
        bound = function.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        if bound.arguments.pop("return_indices", False):
            return None
        values = list(bound.arguments.values())
        if any(type(one) not in PLAIN_TYPES for one in values[: function.tensors] if one is not None):
            return None  # a proxy, or a subclass with a way of its own
        x, weight = values[0], values[1] if function.tensors > 1 else None
        options = tuple(tuple(one) if isinstance(one, list) else one for one in values[function.tensors :])
        key = Key(function.name, () if weight is None else tuple(weight.shape), options, x.dtype)
        hash(key)
    except (TypeError, AttributeError):
        return None
    return key, values


class Taking(OwnMode):
    """Computes the calls of these kinds."""

    def __init__(self, wanted: frozenset[Key]) -> None:
        super().__init__()
        self.wanted = wanted

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """A function that was called, with its arguments."""
        kwargs = kwargs or {}
        function = FUNCTIONS.get(func)
        if function is not None:
            found = key_of(function, args, kwargs)
            if found is not None and found[0] in self.wanted:
                return function.ours(*args, **kwargs)
        return func(*args, **kwargs)


# ---- modules -------------------------------------------------------------------------------------------------------


class Calls:
    """Stands between a module and its class while calls in its `forward` are taken."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module, under our mode where nobody else looks on."""
        run: Any = super().__call__  # type: ignore[misc]
        if torch.compiler.is_compiling() or not unwatched():
            return run(*args, **kwargs)
        with Taking(self.__dict__[KEPT]):
            return run(*args, **kwargs)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copies and pickles are made of the module's own class, and then as this is."""
        return _anew, (type(self).__mro__[2],), self.__getstate__()

    @staticmethod
    def why_not(module: nn.Module) -> str:
        """Why calls in a module cannot be taken; empty if they can."""
        if isinstance(module, torch.jit.ScriptModule):
            return "a ScriptModule, whose forward Python does not run"
        copied: Any = type(module).__reduce_ex__
        if copied is not object.__reduce_ex__:
            return f"a {type(module).__qualname__}, which copies itself in a way of its own"
        return ""

    @staticmethod
    def watch(module: nn.Module, keys: set[Key]) -> None:
        """Take these calls from now on."""
        module.__dict__[KEPT] = frozenset(keys)
        module.__class__ = _between(type(module))

    @staticmethod
    def unwatch(module: nn.Module) -> int:
        """Undo that; how often it was done."""
        if not isinstance(module, Calls):
            return 0
        module.__class__ = type(module).__mro__[2]
        module.__dict__.pop(KEPT, None)
        return 1


_made: Final[dict[type[Any], type[Any]]] = {}


def _between(kind: type[Any]) -> type[Any]:
    """The class for modules of this class; it goes by the same name."""
    if kind not in _made:
        told = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
        _made[kind] = type(kind.__name__, (Calls, kind), told)
    return _made[kind]


def _anew(kind: type[Any]) -> Any:
    """An empty module of the class between, for copies and pickles."""
    made: Any = _between(kind)
    return made.__new__(made)


# ---- looking -------------------------------------------------------------------------------------------------------


@dataclass
class Found:
    """The calls in one module's `forward`: seconds of PyTorch and fastconv in all, and functions that were called."""

    times: dict[Key, tuple[float, float]] = field(default_factory=dict)
    functions: int = 0
    keys: int = 0  # of functions that have one

    @property
    def cost(self) -> float:
        """Seconds a run that functions under our mode take longer; no part of `times`, as losers cost it too."""
        return COST * self.functions + KEY_COST * self.keys


class _Looking(OwnMode):
    """Times the calls that are not made by modules which `accelerate` swaps, and notes whose they are."""

    def __init__(self, training: bool, swapped: tuple[type[Any], ...]) -> None:
        super().__init__()
        self.running: list[nn.Module] = []
        self.found: dict[nn.Module, Found] = {}
        self._training, self._swapped = training, swapped
        self._known: dict[tuple[Any, ...], tuple[float, float]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """A function that was called, with its arguments."""
        kwargs = kwargs or {}
        function = FUNCTIONS.get(func)
        for module in dict.fromkeys(self.running):
            there = self.found.setdefault(module, Found())
            there.functions += 1
            there.keys += function is not None
        if function is not None and self.running and not isinstance(self.running[-1], self._swapped):
            found = key_of(function, args, kwargs)
            if found is not None:
                self._note(self.found[self.running[-1]], func, function, *found)
        return func(*args, **kwargs)

    def _note(self, found: Found, func: Any, function: Function, key: Key, values: list[Any]) -> None:
        tensors, rest = values[: function.tensors], values[function.tensors :]
        if not isinstance(tensors[0], Tensor) or not taken(*tensors):
            return
        if function.tensors == 1 and self._training:
            return  # a pooling with gradients is PyTorch's
        while rest and rest[-1] is None:
            rest.pop()
        x = tensors[0]
        exact = (key, x.shape, x.stride(), *(t is not None and t.requires_grad for t in tensors))
        if exact not in self._known:
            theirs = lambda *t: func(*t, *rest)  # noqa: E731
            ours = lambda *t: function.ours(*t, *rest)  # noqa: E731
            self._known[exact] = race(theirs, ours, tensors, self._training)
        both, before = self._known[exact], found.times.get(key)
        found.times[key] = both if before is None else (before[0] + both[0], before[1] + both[1])


def found_calls(model: nn.Module, example: Any, swapped: tuple[type[Any], ...]) -> dict[nn.Module, Found]:
    """The calls that are made when the model runs on the example, by the module in whose `forward` they stand."""
    looking = _Looking(model.training, swapped)

    def enter(module: Any, args: Any) -> None:
        looking.running.append(module)

    def leave(module: Any, args: Any, result: Any) -> None:
        looking.running.pop()

    handles = []
    for module in model.modules():
        if not isinstance(module, torch.jit.ScriptModule):
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        with undisturbed(model), uncompiled(model), torch.set_grad_enabled(model.training), looking:
            call(model, example)
    finally:
        for handle in handles:
            handle.remove()
    return {module: found for module, found in looking.found.items() if found.times}
