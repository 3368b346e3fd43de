"""`Conv2d` and `ConvTranspose2d`: `torch.nn`'s modules whose arithmetic is fastconv's.

Parameters, `state_dict`, hooks and options are `torch.nn`'s: the classes add no state that is saved. In evaluation
without gradients a `Conv2d` keeps its weights packed in a plan, which it uses while the tensors hold the bytes that
were packed. TorchScript, tracers and exporters find PyTorch's own operators.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fastconv
from fastconv._core.arrays import Array
from fastconv._core.ask_plans import prepared
from fastconv._core.forks import Guard
from fastconv._core.problem import Use

from .ops import (
    FROM_NHWC,
    HWIO,
    NHWC,
    Ints,
    address,
    array,
    choice,
    conv_transpose2d,
    convolve,
    lies_channels_last,
    padding_of,
    pair,
    sides_of,
    taken,
    threads,
)

KEPT_PLANS: Final = 2  # shapes of input a module keeps packed weights for; a Winograd plan is five times the weights
# Packed weights are used once all bytes of the weights were compared with those that were packed. Where a batch has
# fewer outputs a channel than this, that takes longer than packing on the way: 512 channels at 7x7 2.3 ms against
# 2.05, but 256 at 14x14 1.17 against 1.27.
LEAST_PIXELS: Final = 64
# Set by `accelerate`: prepared evaluation gives its result channels last, whatever it gets.
CHANNELS_LAST: Final = "_fastconv_channels_last"


class _Values:
    """The bytes of a tensor, to find out whether it still has them, however it was written to."""

    def __init__(self, name: str, tensor: Tensor | None) -> None:
        self.form = _form(tensor)
        self.seen = None if tensor is None else _words(array(name, tensor))
        self.kept = None if self.seen is None else self.seen.copy()

    def are(self, tensor: Tensor | None) -> bool:
        """Whether the tensor lies where it lay, so that `seen` is its memory, and holds these bytes."""
        return _form(tensor) == self.form and (self.seen is None or bool((self.seen == self.kept).all()))


def _form(tensor: Tensor | None) -> tuple[object, ...]:
    """Where and how a tensor lies, and the size of its storage, which may have been freed."""
    if tensor is None:
        return ()
    return address(tensor), tensor.shape, tensor.stride(), tensor.dtype, tensor.untyped_storage().nbytes()


def _words(values: Array) -> Array:
    """The bits of an array as integers, for which NaN equals itself and 0 is not -0; as few as may be."""
    flat = values.transpose(sorted(range(values.ndim), key=lambda axis: -values.strides[axis]))
    if not flat.flags.c_contiguous:
        return values.view(f"i{values.itemsize}")
    return flat.reshape(-1).view("i8" if values.nbytes % 8 == 0 else f"i{values.itemsize}")


class _Plans:
    """The plans of one module, by input shape and memory order; the oldest goes first."""

    def __init__(self) -> None:
        self._guard = Guard(self._drop)  # several threads may evaluate one model
        self._drop()

    def _drop(self) -> None:
        self.known: dict[tuple[object, ...], fastconv.ConvPlan] = {}
        self.packed: tuple[_Values, _Values] | None = None  # weight and bias that all of them hold

    def run(self, module: nn.Conv2d, input: Tensor, sides: Ints) -> Tensor:
        weight, bias = module.weight, module.bias
        last = lies_channels_last(input) or lies_channels_last(weight) or module.__dict__.get(CHANNELS_LAST, False)
        options = (pair(module.stride), padding_of(sides), pair(module.dilation), module.groups)
        chosen, outputs = choice(tuple(input.shape), tuple(weight.shape), *options, input.dtype)
        how: dict[str, Any] = {
            "data_format": "NHWC" if last else "NCHW",
            "algorithm": chosen,
            "num_threads": threads(),
        }
        x = array("input", input, NHWC if last else None)
        if outputs >= LEAST_PIXELS:
            y = self._plan(module, x.shape, options, how).run(x)
        else:
            y = fastconv.conv2d(x, *_operands(weight, bias, last), *options, **how)
        return torch.from_numpy(y.transpose(FROM_NHWC) if last else y)

    def _plan(
        self, module: nn.Conv2d, shape: tuple[int, ...], options: tuple[Any, ...], how: dict[str, Any]
    ) -> fastconv.ConvPlan:
        """A plan that holds what weight and bias are now."""
        weight, bias = module.weight, module.bias
        key = (shape[1:], options, *how.values())
        with self._guard.lock:
            if self.packed is None or not (self.packed[0].are(weight) and self.packed[1].are(bias)):
                self.known.clear()
                self.packed = _Values("weight", weight), _Values("bias", bias)
            plan = self.known.get(key)
            if plan is None:
                while len(self.known) >= KEPT_PLANS:
                    self.known.pop(next(iter(self.known)))
                last = how["data_format"] == "NHWC"
                plan = prepared(Use.NETWORK, shape, *_operands(weight, bias, last), *options, **how)
                self.known[key] = plan
        return plan


def _operands(weight: Tensor, bias: Tensor | None, last: bool) -> tuple[Array, Array | None]:
    return array("weight", weight, HWIO if last else None), None if bias is None else array("bias", bias)


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d` computed by fastconv where it can be (see `fastconv.torch.conv2d`).

    Parameters, options and `state_dict` are `torch.nn.Conv2d`'s. In evaluation without gradients the weights are kept
    packed, for at most two shapes of input.
    """

    __jit_unused_properties__: ClassVar = ["_plans"]  # TorchScript would compile it

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if torch.jit.is_scripting():  # TorchScript compiles this branch alone, and knows no super()
            if self.padding_mode != "zeros":
                input = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
                return F.conv2d(input, weight, bias, self.stride, 0, self.dilation, self.groups)
            return F.conv2d(input, weight, bias, self.stride, self.padding, self.dilation, self.groups)
        else:
            return self._computed(input, weight, bias)

    def _computed(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not taken(input, weight, bias):
            result: Tensor = super()._conv_forward(input, weight, bias)
            return result
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = 0
        if not self.training and weight is self.weight and self._may_prepare(input):
            strides, dilations = pair(self.stride), pair(self.dilation)
            sides = sides_of(padding, weight, strides, dilations)
            if sides is not None:
                return self._plans.run(self, input, sides)
        return convolve(input, weight, bias, self.stride, padding, self.dilation, self.groups)

    def _may_prepare(self, input: Tensor) -> bool:
        """Whether this call, of tensors that are ours, can use packed weights: no gradient is recorded."""
        weight, bias = self.weight, self.bias
        differentiated = torch.is_grad_enabled() and (
            input.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
        )
        return (
            not differentiated
            and type(weight) is nn.Parameter  # weight_norm and pruning make a new tensor for every call
            and not torch.compiler.is_dynamo_compiling()
            and input.dim() == 4
            and input.shape[1] == self.in_channels
        )

    @property
    def _plans(self) -> _Plans:
        plans: _Plans | None = self.__dict__.get("_fastconv_plans")
        if plans is None:
            plans = self.__dict__["_fastconv_plans"] = _Plans()
        return plans

    def forget_plans(self) -> None:
        """Free the packed weights; the next evaluation packs them anew."""
        self.__dict__.pop("_fastconv_plans", None)

    def train(self, mode: bool = True) -> Conv2d:
        """Set the mode; training frees the packed weights.

        Parameters
        ----------
        mode : bool
            Training or evaluation.

        Returns
        -------
        Conv2d
            The module itself.
        """
        if mode:
            self.forget_plans()
        super().train(mode)
        return self

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles take: all but the packed weights."""
        return {name: value for name, value in self.__dict__.items() if name != "_fastconv_plans"}


class ConvTranspose2d(nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` computed by fastconv where it can be (see `fastconv.torch.conv_transpose2d`).

    Parameters, options and `state_dict` are `torch.nn.ConvTranspose2d`'s.
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if torch.jit.is_scripting():  # TorchScript compiles this branch alone, and knows no super()
            extra = self._output_padding(
                input, output_size, self.stride, self.padding, self.kernel_size, 2, self.dilation
            )
            return F.conv_transpose2d(
                input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation
            )
        else:
            return self._computed(input, output_size)

    def _computed(self, input: Tensor, output_size: list[int] | None) -> Tensor:
        if self.padding_mode != "zeros" or not taken(input, self.weight, self.bias):  # PyTorch refuses other modes
            result: Tensor = super().forward(input, output_size)
            return result
        output_padding = self._output_padding(
            input, output_size, self.stride, self.padding, self.kernel_size, 2, self.dilation
        )
        return conv_transpose2d(
            input, self.weight, self.bias, self.stride, self.padding, tuple(output_padding), self.groups, self.dilation
        )
