"""Convolutions of tensors as PyTorch operators: `fastconv::conv2d`, `fastconv::conv_transpose2d` and the gradient of
weights, `fastconv::conv2d_weight`.

The three are closed under differentiation: the gradient of a convolution with respect to its input is a transposed
convolution and the other way round, and both gradients of `conv2d_weight` are convolutions of either kind. So each
registers a derivative made of the others, and derivatives of any order are right.

Padding is (top, bottom, left, right) in the operators. Results lie channels-last if the input or the weight does, as in
PyTorch, else contiguous: the real and the fake kernels ask the same function. Tensors are read where they lie, and
results are NumPy's memory under a tensor: nothing is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import fastconv
from fastconv._core import forks
from fastconv._core.arrays import Array
from fastconv._core.geometry import conv_geometry
from fastconv._core.select import wish_for_batch

from ..errors import ConvError
from .guard import compiled, unwatched

NUMPY_DTYPES: Final[dict[Any, np.dtype[Any]]] = {
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
}
DTYPES: Final = tuple(NUMPY_DTYPES)
NHWC: Final = (0, 2, 3, 1)
FROM_NHWC: Final = (0, 3, 1, 2)
HWIO: Final = (2, 3, 1, 0)

Ints = Sequence[int]
Size = int | tuple[int, ...]


# ---- memory --------------------------------------------------------------------------------------------------------


def lies_channels_last(tensor: Tensor) -> bool:
    """Whether the channels lie innermost and the images outermost, with or without gaps.

    A tensor that fits both orders counts as contiguous.
    """
    if tensor.is_contiguous():
        return False
    if tensor.is_contiguous(memory_format=torch.channels_last):
        return True
    _, channels, height, width = tensor.shape
    _, per_channel, per_row, per_pixel = tensor.stride()
    return bool(
        channels > 1
        and height * width > 1
        and per_channel == 1
        and per_pixel >= channels
        and per_row >= per_pixel * width
        and tensor.stride(0) >= per_row * height
    )


def memory_format(*tensors: Tensor) -> torch.memory_format:
    """How the result of a convolution of these tensors lies."""
    return torch.channels_last if any(map(lies_channels_last, tensors)) else torch.contiguous_format


def stored(name: str, tensor: Tensor) -> None:
    """Refuse a tensor that its storage does not hold: a storage may be freed or made smaller under it."""
    size = tensor.numel()
    if not tensor.is_contiguous() and size:
        size = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    needed = (tensor.storage_offset() + size) * tensor.element_size() if size else 0
    held = tensor.untyped_storage().nbytes()
    if held < needed:
        raise ConvError(
            f"{name} of shape {tuple(tensor.shape)} reaches {needed:,} bytes into its storage, which holds {held:,}: "
            "it was freed or made smaller (untyped_storage().resize_). Give the storage its size and values back, or "
            "pass a tensor that has them."
        )


class _Memory:
    """What NumPy asks of those whose memory it shows."""

    __slots__ = ("__array_interface__", "tensor")

    def __init__(self, tensor: Tensor, interface: dict[str, Any]) -> None:
        self.tensor = tensor  # lives as long as the array
        self.__array_interface__ = interface


# Without asking for memory to write to; older versions of PyTorch have the latter alone.
address: Final = getattr(Tensor, "const_data_ptr", Tensor.data_ptr)


def array(name: str, tensor: Tensor, axes: Ints | None = None) -> Array:
    """The memory of the tensor of this name as an array to read, its axes in this order.

    Not `tensor.numpy()`: that takes the memory for writing, and the storage could not be resized ever after.
    """
    stored(name, tensor)
    dtype = NUMPY_DTYPES[tensor.dtype]
    shape, strides = tensor.shape, tensor.stride()
    if axes is not None:
        shape, strides = [shape[axis] for axis in axes], [strides[axis] for axis in axes]
    if not tensor.numel():
        return np.empty(tuple(shape), dtype)
    return np.asarray(_Memory(tensor, {
        "version": 3, "typestr": dtype.str, "data": (address(tensor), True), "shape": tuple(shape),
        "strides": tuple([step * dtype.itemsize for step in strides]),
    }))  # fmt: skip


def threads() -> int:
    """Threads of one call: PyTorch's number, and no more than fastconv's."""
    return int(min(torch.get_num_threads(), fastconv.get_num_threads()))


@forks.in_child
def _compute_alone() -> None:
    """PyTorch's own operators hang in a child forked after it had started threads, as GNU OpenMP does."""
    if torch.get_num_threads() > 1:
        torch.set_num_threads(1)


def padding_of(sides: Ints) -> Any:
    """(top, bottom, left, right) in the shortest of fastconv's forms."""
    top, bottom, left, right = sides
    return (top, left) if (top, left) == (bottom, right) else ((top, bottom), (left, right))


@lru_cache(maxsize=256)
def choice(
    input_shape: tuple[int, ...], weight_shape: tuple[int, ...], stride: Any, padding: Any, dilation: Any, groups: int,
    dtype: torch.dtype,
) -> tuple[str, int]:  # fmt: skip
    """The algorithm of a convolution (N, C, H, W), chosen for the whole batch, and the outputs of a channel."""
    g = conv_geometry(input_shape, weight_shape, stride, padding, dilation, groups)
    return wish_for_batch(g, NUMPY_DTYPES[dtype]), g.batch * g.output_size[0] * g.output_size[1]


def algorithm(*arguments: Any) -> str:
    """The algorithm of a convolution and of its gradients."""
    return choice(*arguments)[0]


# ---- operators -----------------------------------------------------------------------------------------------------


@torch.library.custom_op(
    "fastconv::conv2d",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor input, Tensor weight, Tensor? bias, SymInt[] stride, SymInt[] padding, SymInt[] dilation, "
    "SymInt groups) -> Tensor",
)
def conv2d_op(
    input: Tensor, weight: Tensor, bias: Tensor | None, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Tensor:
    shift = None if bias is None else array("bias", bias)
    options = (tuple(stride), padding_of(padding), tuple(dilation), groups)
    how: dict[str, Any] = {
        "algorithm": algorithm(tuple(input.shape), tuple(weight.shape), *options, input.dtype), "num_threads": threads()
    }  # fmt: skip
    if memory_format(input, weight) is torch.channels_last:
        x, w = array("input", input, NHWC), array("weight", weight, HWIO)
        y = fastconv.conv2d(x, w, shift, *options, data_format="NHWC", **how)
        return torch.from_numpy(y.transpose(FROM_NHWC))
    return torch.from_numpy(fastconv.conv2d(array("input", input), array("weight", weight), shift, *options, **how))


@conv2d_op.register_fake
def _(
    input: Tensor, weight: Tensor, bias: Tensor | None, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Tensor:
    size = [
        (input.shape[2 + i] + padding[2 * i] + padding[2 * i + 1] - dilation[i] * (weight.shape[2 + i] - 1) - 1)
        // stride[i]
        + 1
        for i in (0, 1)
    ]
    return _like(input, (input.shape[0], weight.shape[0], *size), memory_format(input, weight))


def _like(input: Tensor, shape: Ints, form: torch.memory_format) -> Tensor:
    return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=form)


@torch.library.custom_op(
    "fastconv::conv_transpose2d",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor input, Tensor weight, Tensor? bias, SymInt[] output_size, SymInt[] stride, SymInt[] padding, "
    "SymInt[] dilation, SymInt groups) -> Tensor",
)
def conv_transpose2d_op(
    input: Tensor, weight: Tensor, bias: Tensor | None, output_size: Ints, stride: Ints, padding: Ints, dilation: Ints,
    groups: int,
) -> Tensor:  # fmt: skip
    """The transposed convolution whose result has `output_size`; without a bias, the input gradient of conv2d."""
    last = memory_format(input, weight) is torch.channels_last
    x = array("input", input, NHWC) if last else array("input", input)
    w = array("weight", weight, HWIO) if last else array("weight", weight)
    channels = weight.shape[1] * groups
    steps, pads, spacing = tuple(stride), padding_of(padding), tuple(dilation)
    shape = (input.shape[0], channels, *output_size)
    how: dict[str, Any] = {
        "algorithm": algorithm(shape, tuple(weight.shape), steps, pads, spacing, groups, input.dtype),
        "data_format": "NHWC" if last else "NCHW",
        "num_threads": threads(),
    }
    if bias is None:
        size = (shape[0], *output_size, channels) if last else shape
        y = fastconv.grad.conv2d_input(size, w, x, steps, pads, spacing, groups, **how)
    else:
        extra = tuple(
            output_size[i]
            - ((input.shape[2 + i] - 1) * stride[i] - padding[2 * i] - padding[2 * i + 1])
            - (dilation[i] * (weight.shape[2 + i] - 1) + 1)
            for i in (0, 1)
        )
        y = fastconv.conv_transpose2d(x, w, array("bias", bias), steps, pads, extra, groups, spacing, **how)
    return torch.from_numpy(y.transpose(FROM_NHWC) if last else y)


@conv_transpose2d_op.register_fake
def _(
    input: Tensor, weight: Tensor, bias: Tensor | None, output_size: Ints, stride: Ints, padding: Ints, dilation: Ints,
    groups: int,
) -> Tensor:  # fmt: skip
    shape = (input.shape[0], weight.shape[1] * groups, *output_size)
    return _like(input, shape, memory_format(input, weight))


@torch.library.custom_op(
    "fastconv::conv2d_weight",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor input, Tensor grad_output, SymInt[] kernel_size, SymInt[] stride, SymInt[] padding, "
    "SymInt[] dilation, SymInt groups) -> Tensor",
)
def conv2d_weight_op(
    input: Tensor, grad_output: Tensor, kernel_size: Ints, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Tensor:
    """The gradient of conv2d with respect to its weight, contiguous."""
    size = (grad_output.shape[1], input.shape[1] // groups, *kernel_size)
    options = (tuple(stride), padding_of(padding), tuple(dilation), groups)
    how = algorithm(tuple(input.shape), size, *options, input.dtype)
    x, dy = array("input", input), array("grad_output", grad_output)
    return torch.from_numpy(
        fastconv.grad.conv2d_weight(x, size, dy, *options, algorithm=how, num_threads=threads())
    )


@conv2d_weight_op.register_fake
def _(
    input: Tensor, grad_output: Tensor, kernel_size: Ints, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Tensor:
    shape = (grad_output.shape[1], input.shape[1] // groups, *kernel_size)
    return _like(input, shape, torch.contiguous_format)


# ---- derivatives ---------------------------------------------------------------------------------------------------


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Remember both tensor operands, whose values the derivative needs, and the numbers."""
    first, second, *rest = inputs
    ctx.save_for_backward(first, second)
    ctx.options = rest


def _bias_gradient(wanted: bool, grad: Tensor) -> Tensor | None:
    if wanted and unwatched(grad):
        stored("grad_output", grad)
    return grad.sum((0, 2, 3)) if wanted else None


def _conv2d_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    input, weight = ctx.saved_tensors
    _, *options = ctx.options
    wanted = ctx.needs_input_grad
    dx = conv_transpose2d_op(grad, weight, None, input.shape[2:], *options) if wanted[0] else None
    dw = conv2d_weight_op(input, grad, weight.shape[2:], *options) if wanted[1] else None
    return dx, dw, _bias_gradient(wanted[2], grad), None, None, None, None


def _conv_transpose2d_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    input, weight = ctx.saved_tensors
    _, _, *options = ctx.options
    wanted = ctx.needs_input_grad
    dx = conv2d_op(grad, weight, None, *options) if wanted[0] else None
    dw = conv2d_weight_op(grad, input, weight.shape[2:], *options) if wanted[1] else None
    return dx, dw, _bias_gradient(wanted[2], grad), None, None, None, None, None


def _conv2d_weight_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    input, grad_output = ctx.saved_tensors
    _, *options = ctx.options
    wanted = ctx.needs_input_grad
    dx = conv_transpose2d_op(grad_output, grad, None, input.shape[2:], *options) if wanted[0] else None
    dy = conv2d_op(input, grad, None, *options) if wanted[1] else None
    return dx, dy, None, None, None, None, None


conv2d_op.register_autograd(_conv2d_backward, setup_context=_keep)
conv_transpose2d_op.register_autograd(_conv_transpose2d_backward, setup_context=_keep)
conv2d_weight_op.register_autograd(_conv2d_weight_backward, setup_context=_keep)


# ---- functions -----------------------------------------------------------------------------------------------------


def taken(*tensors: Tensor | None) -> bool:
    """Whether fastconv computes these tensors; anything else is PyTorch's.

    Ours are dense float32 or float64 tensors on the CPU, all of one type, while nobody watches but `torch.compile`, in
    whose graphs our operators may stand.
    """
    dtype = None
    if torch.compiler.is_dynamo_compiling():
        if not compiled(*tensors):
            return False
        if any(t is not None and (t.device.type != "cpu" or t.layout is not torch.strided) for t in tensors):
            return False
    elif not unwatched(*tensors):
        return False
    for tensor in tensors:
        if tensor is not None:
            if tensor.dtype is not dtype and dtype is not None:
                return False
            dtype = tensor.dtype
    return dtype in DTYPES


def pair(value: Size) -> tuple[int, int]:
    """One number for both axes, or one for each, as PyTorch takes them."""
    if isinstance(value, int):
        return value, value
    items = tuple(value)
    return (items[0], items[0]) if len(items) == 1 else items  # type: ignore[return-value]


def sides_of(padding: str | Size, weight: Tensor, stride: tuple[int, int], dilation: tuple[int, int]) -> Ints | None:
    """(top, bottom, left, right) as PyTorch means `padding`; None for what only PyTorch can answer (or refuse)."""
    if padding == "valid":
        return 0, 0, 0, 0
    if isinstance(padding, str):
        if padding != "same" or stride != (1, 1):
            return None
        totals = [dilation[i] * (weight.shape[2 + i] - 1) for i in (0, 1)]  # an odd pixel goes to the end
        return totals[0] // 2, totals[0] - totals[0] // 2, totals[1] // 2, totals[1] - totals[1] // 2
    height, width = pair(padding)
    return height, height, width, width


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: str | Size = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Convolve tensors: `torch.nn.functional.conv2d`, computed by fastconv where it can be.

    Other devices, dtypes and layouts go to PyTorch, and so does every call that PyTorch traces, exports, transforms or
    watches by a mode. Nothing is copied.

    Parameters
    ----------
    input : Tensor
        Shape (N, C, H, W) or (C, H, W).
    weight : Tensor
        Shape (O, C / groups, kH, kW).
    bias : Tensor, optional
        Shape (O,).
    stride : int or (int, int)
        Rows and columns from one output to the next.
    padding : int, (int, int) or str
        Zeros around the image, 'valid' or 'same'.
    dilation : int or (int, int)
        Distance between neighbouring taps.
    groups : int
        Groups of channels that are convolved apart.

    Returns
    -------
    Tensor
        Channels last if the input or the weight is, as from PyTorch.

    Raises
    ------
    fastconv.ConvError
        A RuntimeError, as PyTorch's, for shapes that do not fit together, and for a tensor whose storage was freed.
    """
    if taken(input, weight, bias):
        return convolve(input, weight, bias, stride, padding, dilation, groups)
    return F.conv2d(input, weight, bias, stride, padding, dilation, groups)


def convolve(
    input: Tensor, weight: Tensor, bias: Tensor | None, stride: Size, padding: str | Size, dilation: Size, groups: int
) -> Tensor:
    """`conv2d` of tensors that are `taken`."""
    if weight.dim() == 4 and input.dim() in (3, 4):
        strides, dilations = pair(stride), pair(dilation)
        sides = sides_of(padding, weight, strides, dilations)
        if sides is not None:
            images = input if input.dim() == 4 else input.unsqueeze(0)
            y: Tensor = conv2d_op(images, weight, bias, strides, sides, dilations, groups)
            return y if input.dim() == 4 else y.squeeze(0)
    return F.conv2d(input, weight, bias, stride, padding, dilation, groups)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """Run a convolution backwards: `torch.nn.functional.conv_transpose2d`, by fastconv where it can be; see `conv2d`.

    Parameters
    ----------
    input : Tensor
        Shape (N, C, H, W) or (C, H, W).
    weight : Tensor
        Shape (C, O / groups, kH, kW).
    bias : Tensor, optional
        Shape (O,).
    stride : int or (int, int)
        Rows and columns from one output to the next.
    padding : int or (int, int)
        Rows and columns cut off the output's borders.
    output_padding : int or (int, int)
        Rows and columns added at the end of the output.
    groups : int
        Groups of channels that are convolved apart.
    dilation : int or (int, int)
        Distance between neighbouring taps.

    Returns
    -------
    Tensor
        Channels last if the input or the weight is, as from PyTorch.

    Raises
    ------
    fastconv.ConvError
        A RuntimeError, as PyTorch's, for shapes that do not fit together, and for a tensor whose storage was freed.
    """
    strides, extra = pair(stride), pair(output_padding)
    if (
        taken(input, weight, bias)
        and weight.dim() == 4
        and input.dim() in (3, 4)
        and all(0 <= more < step for more, step in zip(extra, strides, strict=True))  # else it is no convolution's
    ):
        (pad_y, pad_x), dilations = pair(padding), pair(dilation)
        size = [
            (input.shape[i - 2] - 1) * strides[i] - 2 * pad + dilations[i] * (weight.shape[2 + i] - 1) + 1 + extra[i]
            for i, pad in enumerate((pad_y, pad_x))
        ]
        images = input if input.dim() == 4 else input.unsqueeze(0)
        y: Tensor = conv_transpose2d_op(
            images, weight, bias, size, strides, (pad_y, pad_y, pad_x, pad_x), dilations, groups
        )
        return y if input.dim() == 4 else y.squeeze(0)
    return F.conv_transpose2d(input, weight, bias, stride, padding, output_padding, groups, dilation)


with suppress(ImportError):  # TorchScript compiles calls of these functions to PyTorch's operators
    from torch.jit._builtins import _register_builtin

    _register_builtin(conv2d, "aten::conv2d")
    _register_builtin(conv_transpose2d, "aten::conv_transpose2d")
