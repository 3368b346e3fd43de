"""Keras' torch backend: tensors in, tensors out, with derivatives.

The first derivative is fastconv's. Where somebody wants to differentiate it again, or watches the tensors, gradients
are made from Keras' own function, so that derivatives of any order are right.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, Final

import torch
from torch import Tensor

from fastconv.torch.guard import unwatched
from fastconv.torch.ops import DTYPES, array, threads

from .operators import Asked, Left, Patch
from .steps import Step
from .tally import Tally

WATCHED: Final = "traced, transformed or watched"


class _Call:
    """What the derivative of a call needs to know besides its tensors."""

    __slots__ = ("kernel_shape", "name", "rest", "step", "tally", "theirs")

    def __init__(self, name: str, asked: Asked, tally: Tally, theirs: Any) -> None:
        self.name = name
        self.step = asked.step
        self.rest, self.kernel_shape = asked.rest, asked.kernel_shape
        self.tally = tally
        self.theirs = theirs

    def by_keras(self, x: Tensor, w: Tensor | None) -> Tensor:
        """The same by Keras' own function."""
        if w is None:
            y: Tensor = self.theirs(x, *self.rest)
        else:
            y = self.theirs(x, w if self.kernel_shape is None else w.reshape(self.kernel_shape), *self.rest)
        return y


def _forward(step: Step, x: Tensor, w: Tensor | None) -> Tensor:
    weight = None if w is None else array("kernel", w)
    return torch.from_numpy(step.forward(array("inputs", x), weight, threads()))


class _Computed(torch.autograd.Function):  # type: ignore[misc]
    """A step of tensors, one of which wants a gradient."""

    @staticmethod
    def forward(ctx: Any, call: _Call, x: Tensor, w: Tensor | None) -> Tensor:
        y = _forward(call.step, x, w)
        ctx.call = call
        ctx.save_for_backward(x, w, y if call.step.keeps_result else None)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
        x, w, y = ctx.saved_tensors
        _, *wanted = ctx.needs_input_grad
        if torch.is_grad_enabled() or not unwatched(x, w, dy) or dy.dtype is not x.dtype:
            call.tally.left(f"{call.name} backward", "differentiated again, or watched")
            return None, *_their_gradients(call, x, w, dy, wanted)
        weight, result = None if w is None else array("kernel", w), None if y is None else array("result", y)
        made = call.step.gradients(
            (wanted[0], wanted[1]), array("inputs", x), weight, result, array("gradient", dy), threads()
        )
        call.tally.took(f"{call.name} backward")
        return None, *(None if gradient is None else torch.from_numpy(gradient) for gradient in made)


def _their_gradients(call: _Call, x: Tensor, w: Tensor | None, dy: Tensor, wanted: list[bool]) -> list[Tensor | None]:
    """The gradients by Keras' own function, which can be differentiated."""
    operands = [tensor for tensor, want in zip((x, w), wanted, strict=True) if want and tensor is not None]
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        y = call.by_keras(x, w)
    found = iter(torch.autograd.grad(y, operands, dy, create_graph=again))
    return [next(found) if want else None for want in wanted]


class TorchHost:
    """Reads and computes the calls of one installation."""

    averages_border = True

    def __init__(self, nn: ModuleType, tally: Tally) -> None:
        self._nn: Any = nn
        self._tally = tally

    def passes_by(self) -> str | None:
        """Why calls go straight to Keras' own functions, if they do: `torch.compile` reads those for a graph."""
        if torch.compiler.is_dynamo_compiling():
            return ""
        return None if unwatched() else WATCHED

    def tensor(self, value: Any) -> Any:
        return self._nn.convert_to_tensor(value)

    def data_format(self, word: Any) -> str:
        return str(self._nn.backend.standardize_data_format(word))

    def crops(
        self, inputs: Any, kernel: Any, strides: Any, padding: Any, output_padding: Any, dilation_rate: Any
    ) -> Any:
        options = (tuple(inputs.shape), tuple(kernel.shape), strides, padding, output_padding, dilation_rate)
        newer = getattr(self._nn, "compute_conv_transpose_output_crops_for_torch", None)
        if newer is not None:
            return newer(*options)
        sides, extra = self._nn.compute_conv_transpose_padding_args_for_torch(*options)
        return [(side, side - more) for side, more in zip(sides, extra, strict=True)]

    def compute(self, name: str, asked: Asked, theirs: Any) -> Tensor:
        """The result, with its derivative if one is wanted."""
        step, x, w = asked.step, asked.inputs, asked.kernel
        if x.dtype not in DTYPES:
            raise Left(str(x.dtype).removeprefix("torch."))
        if w is not None and w.dtype is not x.dtype:
            raise Left("tensors of different types")
        if x.device.type != "cpu" or (w is not None and w.device.type != "cpu"):
            raise Left("" if x.is_meta else f"a tensor on {x.device.type}")  # a meta tensor asks for its shape alone
        if not unwatched(x, w):
            raise Left(WATCHED)
        if not (torch.is_grad_enabled() and (x.requires_grad or (w is not None and w.requires_grad))):
            return _forward(step, x, w)
        y: Tensor = _Computed.apply(_Call(name, asked, self._tally, theirs), x, w)
        return y

    def patches(self) -> list[Patch]:
        """Nothing else changes."""
        return []

    def close(self) -> None:
        """Nothing is kept."""
