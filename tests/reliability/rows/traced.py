"""Accelerated PyTorch models, traced, scripted and exported: the graph answers a new input as the plain model does."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from reliability.board import Outcome, row

BOUND = 1e-5  # of float32 results around 1, computed by PyTorch on both sides
EXPORTED_EVERY = 8  # torch.export takes a hundred times as long as a trace


@row(
    "accelerated PyTorch models, recorded in six ways and run on another input", "0 wrong",
    quick=24, full=1_000, order=570,
)  # fmt: skip
def traced(count: int) -> Outcome:
    """Random convolutions one behind the other, in all three gradient modes, with plans made before."""
    outcome = Outcome()
    if find_spec("torch") is None:
        outcome.skipped = "needs PyTorch: pip install fastconv[torch]"
        return outcome
    import torch

    torch.set_num_threads(1)
    for seed in range(count):
        wrong = wrong_answer(torch, seed)
        outcome.check(not wrong, f"seed {seed}: {wrong}")
    return outcome


def recorders(torch: Any) -> dict[str, Callable[[Any, Any], Any]]:
    from torch.fx.experimental.proxy_tensor import make_fx

    return {
        "jit.trace": lambda model, x: torch.jit.trace(model, x, check_trace=False),
        "jit.script": lambda model, x: torch.jit.script(model),
        "fx.symbolic_trace": lambda model, x: torch.fx.symbolic_trace(model),
        "make_fx": lambda model, x: make_fx(model)(x),
        "make_fx, pre_dispatch": lambda model, x: make_fx(model, pre_dispatch=True)(x),
        "torch.export": lambda model, x: torch.export.export(model, (x,)).module(),
    }


def wrong_answer(torch: Any, seed: int) -> str:
    """What is wrong with the recorded model of this seed; empty if nothing is."""
    import warnings

    from torch_models import swap_all

    draw = random.Random(seed)
    torch.manual_seed(seed)
    plain = drawn_model(torch, draw).train(draw.random() < 0.3)
    ours = swap_all(copy.deepcopy(plain))
    x, y = torch.randn(2, 4, 40, 40), torch.randn(2, 4, 40, 40)  # no kernel is too large
    mode = draw.choice((torch.enable_grad, torch.no_grad, torch.inference_mode))
    names = list(recorders(torch))
    name = names[-1] if seed % EXPORTED_EVERY == 0 else draw.choice(names[:-1])
    try:
        with warnings.catch_warnings(), mode():
            warnings.simplefilter("ignore")
            ours(x)
            graph = recorders(torch)[name](ours, x.clone())
        with torch.no_grad():
            error = float((graph(y) - plain(y)).abs().max())
    except Exception as failure:
        return f"{name} of {plain}: {type(failure).__name__}: {failure}"
    return "" if error <= BOUND else f"{name} of {plain}: wrong by {error:.2g}"


def drawn_model(torch: Any, draw: random.Random) -> Any:
    """One to three convolutions of either kind, of any padding."""
    nn, layers, channels = torch.nn, [], 4
    for _ in range(draw.randint(1, 3)):
        outputs, kernel, groups = draw.choice((4, 8, 16)), draw.randint(1, 4), draw.choice((1, 1, 2))
        options: dict[str, Any] = {"groups": groups, "bias": draw.random() < 0.7, "dilation": draw.choice((1, 1, 2))}
        if draw.random() < 0.3:
            layers.append(nn.ConvTranspose2d(channels, outputs, kernel, draw.choice((1, 2)), **options))
        else:
            mode = draw.choice(("zeros", "zeros", "reflect", "circular", "replicate"))
            padding = draw.choice(("same", "valid", 1))
            stride = 1 if padding == "same" else draw.choice((1, 2))
            layers.append(nn.Conv2d(channels, outputs, kernel, stride, padding, padding_mode=mode, **options))
        layers.append(nn.Tanh())  # keeps results around 1
        channels = outputs
    return nn.Sequential(*layers)
