"""`accelerate`: what of a model fastconv computes faster, and the swap; `restore` undoes it.

A swapped module stays the same object with the same parameters and hooks: only its class changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from ..errors import ConvTypeError
from .functional import Calls, Found, found_calls
from .measuring import call, in_turns, race, uncompiled, undisturbed
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
from .ops import BFLOAT16, DTYPES, THEIRS_TRANSPOSED, halves, taken
from .pooling import POOL_SWAPS
from .reports import Decision, Report

SWAPS: Final[dict[type[Any], type[Any]]] = {
    nn.Conv1d: Conv1d, nn.Conv2d: Conv2d, nn.Conv3d: Conv3d, nn.ConvTranspose1d: ConvTranspose1d,
    nn.ConvTranspose2d: ConvTranspose2d, nn.ConvTranspose3d: ConvTranspose3d,
}  # fmt: skip
BACK: Final[dict[type[Any], type[Any]]] = {ours: theirs for theirs, ours in (SWAPS | POOL_SWAPS).items()}
GAIN: Final = 1.03  # below this a swap is within what the machine's noise makes of equal times
# The rule of thumb: from this many channels on both sides Winograd's algorithm pays for float32 3x3 convolutions, and
# for float64 the direct kernels (docs/performance.md).
LEAST_CHANNELS: Final = 16
POOL_OPTIONS: Final = (
    "kernel_size", "stride", "padding", "dilation", "ceil_mode", "count_include_pad", "divisor_override",
)  # fmt: skip


def accelerate(model: nn.Module, example_input: Any = None) -> Report:
    """Let fastconv compute the convolutions of a model, and in evaluation its poolings, where it is faster.

    With an example the model is run, in the mode that it is in, and each convolution is timed both ways on what it
    gets: forward and backward if the model is training, else forward. So are the calls of functions (`F.conv2d`,
    `torch.max_pool2d` ...) in the `forward` of modules; those that are faster are taken while that module runs.
    Running statistics, gradients and random numbers are left as they were. Without an example a rule of thumb decides
    about modules alone. In evaluation, where it is faster still and the example's result lies as before, the swapped
    convolutions of a channels-first model hand on their results channels last. Subclasses of `torch.nn.Conv2d` and its
    like, other dtypes and other devices are left alone. `restore` undoes it all; a further call, say in the other mode,
    decides anew.

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
    pools = tuple(POOL_SWAPS) if report.measured and not model.training else ()
    names = {module: name for name, module in model.named_modules()}
    candidates = {module: name for module, name in names.items() if isinstance(module, (*SWAPS, *pools))}
    times = {} if example_input is None else _measure(model, list(candidates), example_input)
    for module, name in candidates.items():
        decision = _decide(name, module, times, report.measured)
        report.decisions.append(decision)
        if decision.swapped:
            module.__class__ = (SWAPS | POOL_SWAPS)[type(module)]
    if example_input is not None:
        _take_calls(found_calls(model, example_input, tuple(SWAPS) + tuple(POOL_SWAPS)), names, report)
        if not model.training:
            report.channels_last = _between_channels_last(model, example_input)
    return report


def _take_calls(found: Mapping[nn.Module, Found], names: Mapping[nn.Module, str], report: Report) -> None:
    """Decide about the calls in each module's `forward`, and let those that win be taken."""
    for module, calls in found.items():
        won = {key for key, (theirs, ours) in calls.times.items() if theirs >= GAIN * ours}
        gain = sum(calls.times[key][0] - calls.times[key][1] for key in won)
        refused = Calls.why_not(module) or ("looking for the calls would take as long" if gain < calls.cost else "")
        for key, both in calls.times.items():
            swapped = key in won and not refused
            why = "faster here" if swapped else refused if key in won else "PyTorch is as fast or faster"
            name = ".".join(filter(None, (names[module], f"{key.name}()")))
            report.decisions.append(Decision(name, key.described, swapped, why, both, "call"))
        if won and not refused:
            Calls.watch(module, won)


def restore(model: nn.Module) -> int:
    """Give everything that was swapped back to PyTorch.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place: swapped modules stay the same objects.

    Returns
    -------
    int
        How many modules there were.
    """
    count = 0
    for module in model.modules():
        count += Calls.unwatch(module)
        if type(module) in BACK:
            if isinstance(module, Prepared):
                module.forget_plans()
                module.__dict__.pop(CHANNELS_LAST, None)
            module.__class__ = BACK[type(module)]
            count += 1
    return count


# ---- decisions -----------------------------------------------------------------------------------------------------


def _decide(name: str, module: Any, times: Mapping[nn.Module, tuple[float, float]], measured: bool) -> Decision:
    pool = isinstance(module, tuple(POOL_SWAPS))
    layer, kind = (_pool_described(module), "pooling") if pool else (_described(module), "convolution")
    why_not = _why_not(module)
    if why_not:
        return Decision(name, layer, False, why_not, kind=kind)
    if module in times:
        theirs, ours = times[module]
        faster = theirs >= GAIN * ours
        why = "faster here" if faster else "PyTorch is as fast or faster"
        return Decision(name, layer, faster, why, (theirs, ours), kind)
    if pool:
        return Decision(name, layer, False, "the example did not reach it with what fastconv takes", kind=kind)
    wanted, why = _rule_of_thumb(module)
    return Decision(name, layer, wanted, f"the example did not reach it; {why}" if measured else why)


def _why_not(module: Any) -> str:
    """Why a module cannot be swapped; empty if it can."""
    if type(module) not in SWAPS and type(module) not in POOL_SWAPS:
        return f"a {type(module).__qualname__}, whose own methods a swap would lose"
    if type(module) in POOL_SWAPS:
        return "it gives the places too" if getattr(module, "return_indices", False) else ""
    weight = module.weight
    if isinstance(weight, nn.parameter.UninitializedParameter):
        return "its weight is not made yet"
    if weight.device.type != "cpu":
        return f"its weight is on {weight.device}"
    if weight.dtype is torch.bfloat16 and BFLOAT16 is not None and not module.training and not module.transposed:
        return ""
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
    if dtype not in DTYPES:
        return False, f"{dtype}, for which some processors have instructions of their own; pass an example to measure"
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


def _pool_described(module: Any) -> str:
    kernel = module.kernel_size
    size = "x".join(map(str, kernel)) if isinstance(kernel, tuple) else str(kernel)
    return f"{type(module).__name__} {size}"


# ---- measuring -----------------------------------------------------------------------------------------------------


def _measure(model: nn.Module, modules: Sequence[nn.Module], example: Any) -> dict[nn.Module, tuple[float, float]]:
    """Seconds of PyTorch and fastconv on what each module gets when the model runs on the example."""
    found: dict[nn.Module, tuple[float, float]] = {}
    known: dict[tuple[object, ...], tuple[float, float]] = {}

    def time_it(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else kwargs.get("input")
        if module in found or _why_not(module) or not isinstance(x, Tensor):
            return
        operands = [x] if type(module) in POOL_SWAPS else [x, module.weight, module.bias]
        if not taken(*operands) and (len(operands) == 1 or not halves(*operands)):
            return
        key = (*_signature(module), x.shape, x.stride(), x.requires_grad)
        if key not in known:
            known[key] = race(*_both(module, model.training), operands, model.training)
        found[module] = known[key]

    handles = [module.register_forward_pre_hook(time_it, with_kwargs=True) for module in modules]
    try:
        with undisturbed(model), uncompiled(model), torch.set_grad_enabled(model.training):
            call(model, example)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _between_channels_last(model: nn.Module, example: Any) -> bool:
    """Let the swapped convolutions give their results channels last, if that is faster and changes nothing outside.

    A model that calls `view` on such a result raises; one whose own result would lie otherwise is left as it is.
    """
    swapped = [module for module in model.modules() if isinstance(module, Prepared) and type(module) in BACK]
    if len(swapped) < 2:
        return False

    def lying(last: bool) -> list[Any]:
        for module in swapped:
            module.__dict__[CHANNELS_LAST] = last
        result = call(model, example)
        return [(t.shape, t.stride()) for t in tree_flatten(result)[0] if isinstance(t, Tensor)]

    kept = False
    try:
        with undisturbed(model), uncompiled(model), torch.no_grad():
            if lying(False) == lying(True):
                first, last = in_turns([lambda: lying(False), lambda: lying(True)])
                kept = first >= GAIN * last
    except RuntimeError:  # `view` of a result that lies otherwise
        kept = False
    finally:
        for module in swapped:
            module.forget_plans()  # of the order that lost
            module.__dict__.pop(CHANNELS_LAST, None)
            if kept:
                module.__dict__[CHANNELS_LAST] = True
    return kept


def _signature(module: Any) -> tuple[object, ...]:
    if type(module) in POOL_SWAPS:
        return type(module), tuple(getattr(module, name, None) for name in POOL_OPTIONS)
    return (
        module.transposed, module.weight.shape, module.weight.stride(), module.weight.dtype,
        module.weight.requires_grad, module.bias is None, module.stride, module.padding, module.dilation,
        module.groups, module.padding_mode,
    )  # fmt: skip


def _both(module: Any, training: bool) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """PyTorch's way and fastconv's, of (input, weight, bias), of poolings of the input."""
    if type(module) in POOL_SWAPS:
        theirs_pooled, ours_pooled = type(module), POOL_SWAPS[type(module)]
        return lambda x: theirs_pooled.forward(module, x), lambda x: _as(ours_pooled, module).forward(x)
    m, axes = module, len(module.kernel_size)
    if m.transposed:
        options = (m.stride, m.padding, m.output_padding, m.groups, m.dilation)
        return lambda *t: THEIRS_TRANSPOSED[axes](*t, *options), lambda x, w, b: TRANSPOSED[axes](x, w, b, *options)
    theirs, kind = next((theirs, kind) for theirs, kind in SWAPS.items() if isinstance(m, theirs))
    ours = _as(kind, m)
    if training:
        return lambda *t: theirs._conv_forward(m, *t), ours._conv_forward
    return lambda *t: theirs._conv_forward(m, *t), lambda x, w, b: ours._conv_forward(x, m.weight, b)


def _as(kind: Any, module: Any) -> Any:
    """A module of another class with the same tensors and options, and plans of its own."""
    made = object.__new__(kind)
    made.__dict__.update({name: value for name, value in module.__dict__.items() if name != "_fastconv_plans"})
    return made
