"""Poolings of tensors without gradients, and `torch.nn`'s modules of them with our arithmetic.

A gradient needs to know where maxima lay, which PyTorch keeps; so with gradients these are PyTorch's.
"""

from __future__ import annotations

from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fastconv
from fastconv._core.layouts import INWARD, OUTWARD

from .ops import array, lies_channels_last, sizes, taken, threads

# PyTorch's functions by whether the largest value counts, and the number of axes.
THEIRS_POOLED: Final[dict[tuple[bool, int], Any]] = {
    (True, 1): torch.max_pool1d, (True, 2): torch.max_pool2d, (True, 3): torch.max_pool3d,
    (False, 1): torch.avg_pool1d, (False, 2): F.avg_pool2d, (False, 3): F.avg_pool3d,
}  # fmt: skip
OURS_POOLED: Final[dict[tuple[bool, int], Any]] = {
    (largest, axes): getattr(fastconv, f"{'max' if largest else 'avg'}_pool{axes}d")
    for largest in (True, False) for axes in (1, 2, 3)
}  # fmt: skip


def pooled(largest: bool, axes: int, input: Tensor, *options: Any, **named: Any) -> Tensor:
    """A pooling with the arguments of PyTorch's own, computed here where it can be."""
    if len(options) > 1 and (options[1] is None or options[1] in ((), [])):
        options = (options[0], options[0], *options[2:])  # PyTorch's words for the size of the window
    named.pop("return_indices", None)  # functions that give the places are others
    if _ours(axes, input, *options, **named):
        last = lies_channels_last(input)
        x = array("input", input, OUTWARD[axes + 2] if last else None)
        how: dict[str, Any] = {
            "data_format": "channels_last" if last else "channels_first", "num_threads": threads(),
        }  # fmt: skip
        y = OURS_POOLED[largest, axes](x, *options, **named, **how)
        return torch.from_numpy(y.transpose(INWARD[axes + 2]) if last else y)
    result: Tensor = THEIRS_POOLED[largest, axes](input, *options, **named)
    return result


def _ours(
    axes: int, input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, *rest: Any, **named: Any
) -> bool:
    """Whether fastconv takes these; what is wrong is PyTorch's to refuse."""
    if torch.compiler.is_dynamo_compiling() or not isinstance(input, Tensor) or not taken(input):
        return False
    if (torch.is_grad_enabled() and input.requires_grad) or input.dim() != axes + 2 or not input.numel():
        return False
    if named.get("divisor_override") is not None or (len(rest) > 2 and rest[2] is not None):
        return False
    kernel, sides = sizes(kernel_size, axes), sizes(padding, axes)
    if isinstance(stride, (tuple, list)) and not stride:
        return False
    return all(0 <= side <= length // 2 for side, length in zip(sides, kernel, strict=True))


class _Largest:
    """What maximum poolings have before `torch.nn`'s class of theirs."""

    def _pooled(self: Any, axes: int, input: Tensor) -> Tensor:
        if self.return_indices:
            result: Tensor = super().forward(input)  # type: ignore[misc]
            return result
        return pooled(True, axes, input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)


class _Mean:
    """What average poolings have."""

    def _pooled(self: Any, axes: int, input: Tensor) -> Tensor:
        options = (self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)
        divisor = getattr(self, "divisor_override", None)
        return pooled(False, axes, input, *options, **({} if divisor is None else {"divisor_override": divisor}))


class MaxPool1d(_Largest, nn.MaxPool1d):
    """`torch.nn.MaxPool1d` computed by fastconv where no gradient is recorded."""

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():  # TorchScript compiles this branch alone, and knows no super()
            return F.max_pool1d(input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        else:
            return self._pooled(1, input)


class MaxPool2d(_Largest, nn.MaxPool2d):
    """`torch.nn.MaxPool2d` computed by fastconv where no gradient is recorded."""

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():  # TorchScript compiles this branch alone, and knows no super()
            return F.max_pool2d(input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        else:
            return self._pooled(2, input)


class MaxPool3d(_Largest, nn.MaxPool3d):
    """`torch.nn.MaxPool3d` computed by fastconv where no gradient is recorded."""

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():  # TorchScript compiles this branch alone, and knows no super()
            return F.max_pool3d(input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        else:
            return self._pooled(3, input)


class AvgPool1d(_Mean, nn.AvgPool1d):
    """`torch.nn.AvgPool1d` computed by fastconv where no gradient is recorded."""

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():  # TorchScript compiles this branch alone, and knows no super()
            return F.avg_pool1d(
                input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad
            )
        else:
            return self._pooled(1, input)


class AvgPool2d(_Mean, nn.AvgPool2d):
    """`torch.nn.AvgPool2d` computed by fastconv where no gradient is recorded."""

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():  # TorchScript compiles this branch alone, and knows no super()
            return F.avg_pool2d(
                input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad,
                self.divisor_override,
            )  # fmt: skip
        else:
            return self._pooled(2, input)


class AvgPool3d(_Mean, nn.AvgPool3d):
    """`torch.nn.AvgPool3d` computed by fastconv where no gradient is recorded."""

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():  # TorchScript compiles this branch alone, and knows no super()
            return F.avg_pool3d(
                input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad,
                self.divisor_override,
            )  # fmt: skip
        else:
            return self._pooled(3, input)


POOL_SWAPS: Final[dict[type[Any], type[Any]]] = {
    nn.MaxPool1d: MaxPool1d, nn.MaxPool2d: MaxPool2d, nn.MaxPool3d: MaxPool3d, nn.AvgPool1d: AvgPool1d,
    nn.AvgPool2d: AvgPool2d, nn.AvgPool3d: AvgPool3d,
}  # fmt: skip
