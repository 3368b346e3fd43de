"""`Conv2d` and `ConvTranspose2d`: `torch.nn`'s modules whose arithmetic is fastconv's.

Parameters, `state_dict`, hooks and options are `torch.nn`'s: the classes add no state that is saved. In evaluation
without gradients a `Conv2d` keeps its weights packed in a plan.
"""

from __future__ import annotations

from threading import Lock
from typing import Any, Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fastconv
from fastconv.arrays import Array
from fastconv.functional import prepared

from .ops import (
    FROM_NHWC,
    HWIO,
    NHWC,
    Ints,
    algorithm,
    array,
    conv2d,
    conv_transpose2d,
    lies_channels_last,
    padding_of,
    pair,
    sides_of,
    taken,
    threads,
)

KEPT_PLANS: Final = 2  # shapes of input a module keeps packed weights for; a Winograd plan is five times the weights
# Set by `accelerate`: prepared evaluation gives its result channels last, whatever it gets.
CHANNELS_LAST: Final = "_fastconv_channels_last"
SAMPLED_AXIS: Final = 3  # values of a weight along each axis that are compared before a plan is used again


class _Source(NamedTuple):
    """A tensor that a plan copied, as it was then: to find out whether it still has those values."""

    tensor: Tensor | None
    address: int
    version: int
    sample: Array  # a view of some of its values
    values: Array  # what they were

    @classmethod
    def of(cls, tensor: Tensor | None) -> _Source:
        if tensor is None:
            nothing = array(torch.empty(0))
            return cls(None, 0, 0, nothing, nothing)
        values = array(tensor)
        sample = values[tuple(slice(None, None, max(1, -(-size // SAMPLED_AXIS))) for size in values.shape)]
        return cls(tensor, tensor.data_ptr(), tensor._version, sample, sample.copy())

    def still(self, tensor: Tensor | None) -> bool:
        """Whether this is the tensor and nobody has written to it.

        PyTorch counts writes, but not those through `.data`: some values are looked at for these.
        """
        if tensor is None or self.tensor is None:
            return tensor is self.tensor
        return (
            tensor is self.tensor
            and tensor.data_ptr() == self.address
            and tensor._version == self.version
            and bool((self.sample == self.values).all())
        )


class _Prepared(NamedTuple):
    plan: fastconv.ConvPlan
    weight: _Source
    bias: _Source


class _Plans:
    """The plans of one module, by input shape and memory order; the oldest goes first."""

    def __init__(self) -> None:
        self.known: dict[tuple[object, ...], _Prepared] = {}
        self._lock = Lock()  # several threads may evaluate one model

    def run(self, module: nn.Conv2d, input: Tensor, sides: Ints) -> Tensor:
        weight, bias = module.weight, module.bias
        last = lies_channels_last(input) or lies_channels_last(weight) or module.__dict__.get(CHANNELS_LAST, False)
        team = threads()
        options = (pair(module.stride), padding_of(sides), pair(module.dilation), module.groups)
        how = algorithm(tuple(input.shape), tuple(weight.shape), *options, input.dtype)
        key = (input.shape[1:], input.dtype, last, team, options, how)
        with self._lock:
            found = self.known.get(key)
            if found is None or not (found.weight.still(weight) and found.bias.still(bias)):
                self.known.pop(key, None)
                while len(self.known) >= KEPT_PLANS:
                    self.known.pop(next(iter(self.known)))
                found = self.known[key] = self._prepare(module, input, options, last, team, how)
        if last:
            return torch.from_numpy(found.plan.run(array(input, NHWC)).transpose(FROM_NHWC))
        return torch.from_numpy(found.plan.run(array(input)))

    @staticmethod
    def _prepare(
        module: nn.Conv2d, input: Tensor, options: tuple[Any, ...], last: bool, team: int, how: str
    ) -> _Prepared:
        batch, channels, height, width = input.shape
        plan = prepared(
            "network", (batch, height, width, channels) if last else (batch, channels, height, width),
            array(module.weight, HWIO) if last else array(module.weight),
            None if module.bias is None else array(module.bias),
            *options, data_format="NHWC" if last else "NCHW", algorithm=how, num_threads=team,
        )  # fmt: skip
        return _Prepared(plan, _Source.of(module.weight), _Source.of(module.bias))


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d` computed by fastconv where it can be (see `fastconv.torch.conv2d`).

    Parameters, options and `state_dict` are `torch.nn.Conv2d`'s. In evaluation without gradients the weights are kept
    packed, for at most two shapes of input.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = 0
        if not self.training and weight is self.weight and self._may_prepare(input):
            strides, dilations = pair(self.stride), pair(self.dilation)
            sides = sides_of(padding, weight, strides, dilations)
            if sides is not None:
                return self._plans.run(self, input, sides)
        return conv2d(input, weight, bias, self.stride, padding, self.dilation, self.groups)

    def _may_prepare(self, input: Tensor) -> bool:
        """Whether this call can use packed weights: nothing is recorded, compiled or transformed."""
        if torch.compiler.is_compiling() or type(input) is not Tensor or input.dim() != 4:
            return False
        weight, bias = self.weight, self.bias
        differentiated = torch.is_grad_enabled() and (
            input.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
        )
        return (
            not differentiated
            and type(weight) is nn.Parameter  # weight_norm and pruning make a new tensor for every call
            and not weight.is_inference()  # nobody counts the writes to those
            and (bias is None or not bias.is_inference())
            and taken(input, weight, bias)
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
        if self.padding_mode != "zeros":
            return super().forward(input, output_size)  # which refuses it
        output_padding = self._output_padding(
            input, output_size, self.stride, self.padding, self.kernel_size, 2, self.dilation
        )
        return conv_transpose2d(
            input, self.weight, self.bias, self.stride, self.padding, tuple(output_padding), self.groups, self.dilation
        )
