"""Running a model on an example without leaving a trace, and timing two ways of doing one thing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

import torch
from torch import Tensor, nn

from ..errors import ConvError

ROUNDS: Final = 5  # timings of each side at least; the medians are compared
MOST_ROUNDS: Final = 25
SECONDS: Final = 0.1  # of timing for one layer, once ROUNDS are made


def call(model: nn.Module, example: Any) -> Any:
    if isinstance(example, Tensor):
        return model(example)
    if isinstance(example, Mapping):
        return model(**example)
    if isinstance(example, (tuple, list)):
        return model(*example)
    raise ConvError(
        "example_input must be a tensor, a tuple of arguments or a dictionary of named ones, but got "
        f"{type(example).__name__}."
    )


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Leaves buffers (running statistics, counters) and the random state as they were."""
    kept = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)
        with torch.no_grad():
            for module, name, buffer, values in kept:
                buffer.copy_(values)
                setattr(module, name, buffer)  # the same tensor, should the model have put another in its place


def uncompiled(model: nn.Module) -> AbstractContextManager[Any]:
    """Runs what `torch.compile` made of the model, or of its parts, as it was written: hooks go into no graph."""
    if not any("_orig_mod" in m._modules or m._compiled_call_impl is not None for m in model.modules()):
        return nullcontext()
    if not hasattr(torch.compiler, "set_stance"):  # new in PyTorch 2.6
        raise ConvError(
            "model is compiled, and this version of PyTorch cannot run it as it was written. Call accelerate(model, "
            "example_input) before torch.compile(model); fastconv.torch.restore(model) undoes it."
        )
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def race(
    theirs: Callable[..., Tensor], ours: Callable[..., Tensor], operands: Sequence[Tensor | None], training: bool
) -> tuple[float, float]:
    """Median seconds of both, in turns, on these operands; in training with gradients, outside the model's graph."""
    given = [
        t if t is None or not training else t.detach().requires_grad_(t.requires_grad) for t in operands
    ]  # fmt: skip
    wanted = [t for t in given if training and t is not None and t.requires_grad]

    def step(function: Callable[..., Tensor]) -> Callable[[], None]:
        def run() -> None:
            y = function(*given)
            if wanted:
                torch.autograd.grad(y, wanted, torch.ones_like(y))

        return run

    return in_turns([step(theirs), step(ours)], warm=True)


def in_turns(sides: Sequence[Callable[[], Any]], warm: bool = False) -> tuple[float, float]:
    """Median seconds of the first and the second."""
    samples: list[list[float]] = [[], []]
    for run in sides if warm else ():
        run()
    start = time.perf_counter()
    while len(samples[0]) < ROUNDS or (len(samples[0]) < MOST_ROUNDS and time.perf_counter() - start < SECONDS):
        for run, seconds in zip(sides, samples, strict=True):
            before = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - before)
    return statistics.median(samples[0]), statistics.median(samples[1])
