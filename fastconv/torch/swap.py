"""`accelerate`: which convolutions of a model fastconv computes faster, and the swap; `restore` undoes it.

A swapped module stays the same object with the same parameters and hooks: only its class changes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from ..errors import ConvError, ConvTypeError
from .modules import (
    CHANNELS_LAST,
    TRANSPOSED,
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    Prepared,
)
from .ops import DTYPES, THEIRS_TRANSPOSED, taken

SWAPS: Final[dict[type[Any], type[Any]]] = {
    nn.Conv1d: Conv1d, nn.Conv2d: Conv2d, nn.Conv3d: Conv3d, nn.ConvTranspose1d: ConvTranspose1d,
    nn.ConvTranspose2d: ConvTranspose2d, nn.ConvTranspose3d: ConvTranspose3d,
}  # fmt: skip
BACK: Final[dict[type[Any], type[Any]]] = {ours: theirs for theirs, ours in SWAPS.items()}
GAIN: Final = 1.03  # below this a swap is within what the machine's noise makes of equal times
ROUNDS: Final = 5  # timings of each side at least; the medians are compared
MOST_ROUNDS: Final = 25
SECONDS: Final = 0.1  # of timing for one layer, once ROUNDS are made
# The rule of thumb: from this many channels on both sides Winograd's algorithm pays for float32 3x3 convolutions, and
# for float64 the direct kernels (docs/performance.md).
LEAST_CHANNELS: Final = 16


@dataclass(frozen=True)
class Decision:
    """What became of one module.

    Parameters
    ----------
    name : str
        Its path in the model.
    layer : str
        What it is, in short.
    swapped : bool
        Whether it is fastconv's now.
    why : str
        The reason.
    times : (float, float), optional
        PyTorch's and fastconv's seconds, where they were measured.
    """

    name: str
    layer: str
    swapped: bool
    why: str
    times: tuple[float, float] | None = None


@dataclass
class Report:
    """What `accelerate` did; print it for a table.

    Parameters
    ----------
    training : bool
        Whether the model was in training mode.
    measured : bool
        Whether an example was given.
    decisions : list of Decision
        One a convolution.
    channels_last : bool
        Whether the swapped convolutions hand on their results channels last.
    """

    training: bool
    measured: bool
    decisions: list[Decision] = field(default_factory=list)
    channels_last: bool = False

    @property
    def swapped(self) -> list[str]:
        """The names of the modules that are fastconv's now."""
        return [decision.name for decision in self.decisions if decision.swapped]

    def __str__(self) -> str:
        head = ("module", "layer", "PyTorch", "fastconv", "ratio", "now", "why")
        lines = [head]
        for d in self.decisions:
            cells = ("", "", "")
            if d.times is not None:
                theirs, ours = d.times
                cells = (f"{1e3 * theirs:.2f} ms", f"{1e3 * ours:.2f} ms", f"{theirs / ours:.2f}")
            lines.append((d.name or "(model)", d.layer, *cells, "fastconv" if d.swapped else "as it was", d.why))
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        table = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
        how = "measured on the example" if self.measured else "by rule of thumb, without an example"
        what = "forward and backward" if self.training else "forward"
        what += "; results between them channels last" if self.channels_last else ""
        table.append(f"{len(self.swapped)} of {len(self.decisions)} convolutions swapped, {how} ({what})")
        return "\n".join(table)


def accelerate(model: nn.Module, example_input: Any = None) -> Report:
    """Let fastconv compute the 2-D convolutions of a model where it is faster.

    With an example the model is run once, in the mode that it is in, and each convolution is timed both ways on what it
    gets: forward and backward if the model is training, else forward. Running statistics, gradients and random numbers
    are left as they were. Without an example a rule of thumb decides. In evaluation, where it is faster still and the
    example's result lies as before, the swapped convolutions of a channels-first model hand on their results channels
    last. Subclasses of `torch.nn.Conv2d`, other dtypes and
    other devices are left alone. `restore` undoes it all; a further call, say in the other mode, decides anew.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place: swapped modules stay the same objects.
    example_input : Tensor, tuple or dict, optional
        Arguments of the model.

    Returns
    -------
    Report
        A table of what was swapped, both times, and why the others were not.

    Raises
    ------
    fastconv.ConvTypeError
        For what is no module.
    """
    if not isinstance(model, nn.Module):
        raise ConvTypeError(f"model must be a torch.nn.Module, but got {model!r} of type {type(model).__name__}.")
    restore(model)
    report = Report(model.training, example_input is not None)
    candidates: dict[nn.Module, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, tuple(SWAPS)):
            candidates[module] = name
    times = {} if example_input is None else _measure(model, list(candidates), example_input)
    for module, name in candidates.items():
        decision = _decide(name, module, times, report.measured)
        report.decisions.append(decision)
        if decision.swapped:
            module.__class__ = SWAPS[type(module)]
    if example_input is not None and not model.training:
        report.channels_last = _between_channels_last(model, example_input)
    return report


def restore(model: nn.Module) -> int:
    """Give every swapped convolution back to PyTorch.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place: swapped modules stay the same objects.

    Returns
    -------
    int
        How many there were.
    """
    count = 0
    for module in model.modules():
        if type(module) in BACK:
            if isinstance(module, Prepared):
                module.forget_plans()
                module.__dict__.pop(CHANNELS_LAST, None)
            module.__class__ = BACK[type(module)]
            count += 1
    return count


# ---- decisions -----------------------------------------------------------------------------------------------------


def _decide(name: str, module: Any, times: Mapping[nn.Module, tuple[float, float]], measured: bool) -> Decision:
    layer = _described(module)
    why_not = _why_not(module)
    if why_not:
        return Decision(name, layer, False, why_not)
    if module in times:
        theirs, ours = times[module]
        faster = theirs >= GAIN * ours
        why = "faster here" if faster else "PyTorch is as fast or faster"
        return Decision(name, layer, faster, why, (theirs, ours))
    wanted, why = _rule_of_thumb(module)
    return Decision(name, layer, wanted, f"the example did not reach it; {why}" if measured else why)


def _why_not(module: Any) -> str:
    """Why a convolution cannot be swapped; empty if it can."""
    if type(module) not in SWAPS:
        return f"a {type(module).__qualname__}, whose own methods a swap would lose"
    weight = module.weight
    if isinstance(weight, nn.parameter.UninitializedParameter):
        return "its weight is not made yet"
    if weight.device.type != "cpu":
        return f"its weight is on {weight.device}"
    if weight.dtype not in DTYPES:
        return f"its weight is of {weight.dtype}"
    return ""


def _rule_of_thumb(module: Any) -> tuple[bool, str]:
    inner, outer = module.in_channels // module.groups, module.out_channels // module.groups
    return pays(inner, outer, module.groups, module.kernel_size, module.stride, module.weight.dtype)


def pays(
    inner: int, outer: int, groups: int, kernel: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype
) -> tuple[bool, str]:
    """Whether a convolution of so many channels a group is likely to be faster here, and why (not)."""
    if min(inner, outer) < LEAST_CHANNELS:
        return False, f"fewer than {LEAST_CHANNELS} channels a group"
    if dtype is torch.float64:
        return True, "float64"
    if groups == 1 and kernel in ((3, 3), (3, 3, 3)) and set(stride) == {1}:
        return True, f"{'x'.join(map(str, kernel))} with stride 1, which takes a quarter of the multiplications"
    return False, "without a fast algorithm the two are about as fast; pass an example to measure"


def _described(module: Any) -> str:
    kernel, stride = "x".join(map(str, module.kernel_size)), tuple(module.stride)
    parts = [f"{module.in_channels}->{module.out_channels}", kernel]
    if set(stride) != {1}:
        parts.append(f"stride {stride[0]}" if len(set(stride)) == 1 else f"stride {stride}")
    if set(module.dilation) != {1}:
        parts.append(f"dilation {module.dilation[0]}")
    if module.groups != 1:
        parts.append(f"{module.groups} groups")
    if module.transposed:
        parts.append("transposed")
    return " ".join(parts)


# ---- measuring -----------------------------------------------------------------------------------------------------


def _measure(model: nn.Module, modules: Sequence[nn.Module], example: Any) -> dict[nn.Module, tuple[float, float]]:
    """Seconds of PyTorch and fastconv on what each module gets when the model runs on the example."""
    found: dict[nn.Module, tuple[float, float]] = {}
    known: dict[tuple[object, ...], tuple[float, float]] = {}

    def time_it(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else kwargs.get("input")
        if module in found or _why_not(module) or not isinstance(x, Tensor) or not taken(x, module.weight, module.bias):
            return
        key = (*_signature(module), x.shape, x.stride(), x.requires_grad, module.weight.stride())
        if key not in known:
            known[key] = _time(module, x, model.training)
        found[module] = known[key]

    handles = [module.register_forward_pre_hook(time_it, with_kwargs=True) for module in modules]
    try:
        with _undisturbed(model), _uncompiled(model), torch.set_grad_enabled(model.training):
            _call(model, example)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _call(model: nn.Module, example: Any) -> Any:
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


def _between_channels_last(model: nn.Module, example: Any) -> bool:
    """Let the swapped convolutions give their results channels last, if that is faster and changes nothing outside.

    A model that calls `view` on such a result raises; one whose own result would lie otherwise is left as it is.
    """
    swapped = [module for module in model.modules() if isinstance(module, Prepared) and type(module) in BACK]
    if len(swapped) < 2:
        return False

    def timed(last: bool) -> tuple[float, list[Any]]:
        for module in swapped:
            module.__dict__[CHANNELS_LAST] = last
        start = time.perf_counter()
        result = _call(model, example)
        seconds = time.perf_counter() - start
        return seconds, [(t.shape, t.stride()) for t in tree_flatten(result)[0] if isinstance(t, Tensor)]

    kept = False
    samples: dict[bool, list[float]] = {False: [], True: []}
    try:
        with _undisturbed(model), _uncompiled(model), torch.no_grad():
            if timed(False)[1] == timed(True)[1]:
                start = time.perf_counter()
                while len(samples[True]) < ROUNDS or (
                    len(samples[True]) < MOST_ROUNDS and time.perf_counter() - start < SECONDS
                ):
                    for last, times in samples.items():
                        times.append(timed(last)[0])
                kept = statistics.median(samples[False]) >= GAIN * statistics.median(samples[True])
    except RuntimeError:  # `view` of a result that lies otherwise
        kept = False
    finally:
        for module in swapped:
            module.forget_plans()  # of the order that lost
            module.__dict__.pop(CHANNELS_LAST, None)
            if kept:
                module.__dict__[CHANNELS_LAST] = True
    return kept


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
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


def _uncompiled(model: nn.Module) -> AbstractContextManager[Any]:
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


def _signature(module: Any) -> tuple[object, ...]:
    return (
        module.transposed, module.weight.shape, module.weight.dtype, module.weight.requires_grad,
        module.bias is None, module.stride, module.padding, module.dilation, module.groups, module.padding_mode,
    )  # fmt: skip


def _time(module: Any, x: Tensor, training: bool) -> tuple[float, float]:
    """Median seconds of (PyTorch, fastconv), in turns; in training, of operands outside the model's graph."""
    operands = [
        t if t is None or not training else t.detach().requires_grad_(t.requires_grad)
        for t in (x, module.weight, module.bias)
    ]
    wanted = [t for t in operands if training and t is not None and t.requires_grad]

    def step(function: Callable[..., Tensor]) -> Callable[[], None]:
        def run() -> None:
            y = function(*operands)
            if wanted:
                torch.autograd.grad(y, wanted, torch.ones_like(y))

        return run

    sides = [step(function) for function in _both(module, training)]
    samples: list[list[float]] = [[], []]
    for run in sides:
        run()
    start = time.perf_counter()
    while len(samples[0]) < ROUNDS or (len(samples[0]) < MOST_ROUNDS and time.perf_counter() - start < SECONDS):
        for run, taken_seconds in zip(sides, samples, strict=True):
            before = time.perf_counter()
            run()
            taken_seconds.append(time.perf_counter() - before)
    return statistics.median(samples[0]), statistics.median(samples[1])


def _both(module: Any, training: bool) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """PyTorch's way and fastconv's, of (input, weight, bias)."""
    m, axes = module, len(module.kernel_size)
    if m.transposed:
        options = (m.stride, m.padding, m.output_padding, m.groups, m.dilation)
        return lambda *t: THEIRS_TRANSPOSED[axes](*t, *options), lambda x, w, b: TRANSPOSED[axes](x, w, b, *options)
    theirs, kind = next((theirs, kind) for theirs, kind in SWAPS.items() if isinstance(m, theirs))
    ours: Any = object.__new__(kind)  # the same tensors and options, and plans of its own
    ours.__dict__.update({name: value for name, value in m.__dict__.items() if name != "_fastconv_plans"})
    if training:
        return lambda *t: theirs._conv_forward(m, *t), ours._conv_forward
    return lambda *t: theirs._conv_forward(m, *t), lambda x, w, b: ours._conv_forward(x, m.weight, b)
