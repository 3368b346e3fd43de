"""`Conv2d`, `ConvTranspose2d` and those of one and three axes: `torch.nn`'s modules whose arithmetic is fastconv's.

Parameters, `state_dict`, hooks and options are `torch.nn`'s: the classes add no state that is saved. In evaluation
without gradients a convolution keeps its weights packed in a plan, which it uses while the tensors hold the bytes that
were packed. TorchScript, tracers and exporters find PyTorch's own operators.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fastconv
from fastconv._core.arrays import Array
from fastconv._core.ask_plans import prepared
from fastconv._core.forks import Guard
from fastconv._core.layouts import INWARD, OUTWARD, WEIGHT_OUTWARD
from fastconv._core.problem import Use
from fastconv.functional import CONVOLUTIONS

from .ops import (
    Ints,
    address,
    array,
    choice,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    convolve,
    halves,
    lies_channels_last,
    padding_of,
    sides_of,
    taken,
    tensor,
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

    def run(self, module: Any, input: Tensor, sides: Ints) -> Tensor:
        weight, bias, axes = module.weight, module.bias, input.dim()
        last = lies_channels_last(input) or lies_channels_last(weight) or module.__dict__.get(CHANNELS_LAST, False)
        options = (tuple(module.stride), padding_of(sides), tuple(module.dilation), module.groups)
        chosen, outputs = choice(input.shape, weight.shape, *options, dtype=input.dtype)
        how: dict[str, Any] = {
            "data_format": "channels_last" if last else "channels_first",
            "algorithm": chosen,
            "num_threads": threads(),
        }
        x = array("input", input, OUTWARD[axes] if last else None)
        if outputs >= LEAST_PIXELS:
            y = self._plan(module, x.shape, options, how).run(x)
        else:
            y = CONVOLUTIONS[axes - 2](x, *_operands(weight, bias, last), *options, **how)
        return tensor(y.transpose(INWARD[axes]) if last else y)

    def _plan(
        self, module: Any, shape: tuple[int, ...], options: tuple[Any, ...], how: dict[str, Any]
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
                last = how["data_format"] == "channels_last"
                plan = prepared(Use.NETWORK, shape, *_operands(weight, bias, last), *options, **how)
                self.known[key] = plan
        return plan


def _operands(weight: Tensor, bias: Tensor | None, last: bool) -> tuple[Array, Array | None]:
    axes = WEIGHT_OUTWARD[weight.dim()] if last else None
    return array("weight", weight, axes), None if bias is None else array("bias", bias)


class Prepared:
    """What convolutions of any number of axes have, before `torch.nn`'s class of theirs."""

    if TYPE_CHECKING:
        training: bool
        weight: Tensor
        bias: Tensor | None
        kernel_size: tuple[int, ...]
        stride: tuple[int, ...]
        dilation: tuple[int, ...]
        padding: str | tuple[int, ...]
        padding_mode: str
        groups: int
        in_channels: int
        _reversed_padding_repeated_twice: list[int]

    __jit_unused_properties__: ClassVar = ["_plans"]  # TorchScript would compile it

    def _computed(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        own = taken(input, weight, bias)
        padding: Any = self.padding
        if not own and (self.padding_mode != "zeros" or self.training or not halves(input, weight, bias)):
            return self._theirs(input, weight, bias)
        if self.padding_mode != "zeros":
            input = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = 0
        if not self.training and weight is self.weight and self._may_prepare(input):
            sides = sides_of(padding, weight, self.stride, self.dilation)
            if sides is not None:
                return self._plans.run(self, input, sides)
        if not own:
            return self._theirs(input, weight, bias)
        return convolve(len(self.kernel_size), input, weight, bias, self.stride, padding, self.dilation, self.groups)

    def _theirs(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """PyTorch's own."""
        result: Tensor = super()._conv_forward(input, weight, bias)  # type: ignore[misc]
        return result

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
            and input.dim() == len(self.kernel_size) + 2
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

    def train(self, mode: bool = True) -> Any:
        """Set the mode; training frees the packed weights.

        Parameters
        ----------
        mode : bool
            Training or evaluation.

        Returns
        -------
        Module
            The module itself.
        """
        if mode:
            self.forget_plans()
        super().train(mode)  # type: ignore[misc]
        return self

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles take: all but the packed weights."""
        return {name: value for name, value in self.__dict__.items() if name != "_fastconv_plans"}


class Conv1d(Prepared, nn.Conv1d):
    """`torch.nn.Conv1d` computed by fastconv where it can be (see `fastconv.torch.conv1d`).

    Parameters, options and `state_dict` are `torch.nn.Conv1d`'s. In evaluation without gradients the weights are kept
    packed, for at most two shapes of input.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if torch.jit.is_scripting():  # TorchScript compiles this branch alone, and knows no super()
            if self.padding_mode != "zeros":
                input = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
                return F.conv1d(input, weight, bias, self.stride, 0, self.dilation, self.groups)
            return F.conv1d(input, weight, bias, self.stride, self.padding, self.dilation, self.groups)
        else:
            return self._computed(input, weight, bias)


class Conv2d(Prepared, nn.Conv2d):
    """`torch.nn.Conv2d` computed by fastconv where it can be (see `fastconv.torch.conv2d`).

    Parameters, options and `state_dict` are `torch.nn.Conv2d`'s. In evaluation without gradients the weights are kept
    packed, for at most two shapes of input.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if torch.jit.is_scripting():  # TorchScript compiles this branch alone, and knows no super()
            if self.padding_mode != "zeros":
                input = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
                return F.conv2d(input, weight, bias, self.stride, 0, self.dilation, self.groups)
            return F.conv2d(input, weight, bias, self.stride, self.padding, self.dilation, self.groups)
        else:
            return self._computed(input, weight, bias)


class Conv3d(Prepared, nn.Conv3d):
    """`torch.nn.Conv3d` computed by fastconv where it can be (see `fastconv.torch.conv3d`).

    Parameters, options and `state_dict` are `torch.nn.Conv3d`'s. In evaluation without gradients the weights are kept
    packed, for at most two shapes of input.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if torch.jit.is_scripting():  # TorchScript compiles this branch alone, and knows no super()
            if self.padding_mode != "zeros":
                input = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
                return F.conv3d(input, weight, bias, self.stride, 0, self.dilation, self.groups)
            return F.conv3d(input, weight, bias, self.stride, self.padding, self.dilation, self.groups)
        else:
            return self._computed(input, weight, bias)


class Transposed:
    """What transposed convolutions of any number of axes have, before `torch.nn`'s class of theirs."""

    def _computed(self: Any, input: Tensor, output_size: list[int] | None) -> Tensor:
        axes = len(self.kernel_size)
        if self.padding_mode != "zeros" or not taken(input, self.weight, self.bias):  # PyTorch refuses other modes
            result: Tensor = THEIR_MODULES[axes].forward(self, input, output_size)
            return result
        extra = self._output_padding(
            input, output_size, self.stride, self.padding, self.kernel_size, axes, self.dilation
        )
        result = TRANSPOSED[axes](
            input, self.weight, self.bias, self.stride, self.padding, tuple(extra), self.groups, self.dilation
        )
        return result


THEIR_MODULES: Final[dict[int, Any]] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
TRANSPOSED: Final[dict[int, Any]] = {1: conv_transpose1d, 2: conv_transpose2d, 3: conv_transpose3d}


class ConvTranspose1d(Transposed, nn.ConvTranspose1d):
    """`torch.nn.ConvTranspose1d` computed by fastconv where it can be (see `fastconv.torch.conv_transpose1d`).

    Parameters, options and `state_dict` are `torch.nn.ConvTranspose1d`'s.
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if torch.jit.is_scripting():  # TorchScript compiles this branch alone, and knows no super()
            extra = self._output_padding(
                input, output_size, self.stride, self.padding, self.kernel_size, 1, self.dilation
            )
            return F.conv_transpose1d(
                input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation
            )
        else:
            return self._computed(input, output_size)


class ConvTranspose2d(Transposed, nn.ConvTranspose2d):
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


class ConvTranspose3d(Transposed, nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d` computed by fastconv where it can be (see `fastconv.torch.conv_transpose3d`).

    Parameters, options and `state_dict` are `torch.nn.ConvTranspose3d`'s.
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if torch.jit.is_scripting():  # TorchScript compiles this branch alone, and knows no super()
            extra = self._output_padding(
                input, output_size, self.stride, self.padding, self.kernel_size, 3, self.dilation
            )
            return F.conv_transpose3d(
                input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation
            )
        else:
            return self._computed(input, output_size)
