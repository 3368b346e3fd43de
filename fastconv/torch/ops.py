"""Convolutions of tensors as PyTorch operators: `fastconv::conv2d`, `fastconv::conv_transpose2d` and the gradient of
weights, `fastconv::conv2d_weight`, and the same of one and three axes.

The three of a number of axes are closed under differentiation: the gradient of a convolution with respect to its input
is a transposed convolution and the other way round, and both gradients of `conv2d_weight` are convolutions of either
kind. So each registers a derivative made of the others, and derivatives of any order are right.

Padding is (before, after) of every axis, flat, in the operators. Results lie channels-last if the input or the weight
does, as in PyTorch, else contiguous: the real and the fake kernels ask the same function. Tensors are read where they
lie, and results are NumPy's memory under a tensor: nothing is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from math import prod
from typing import Any, Final, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import fastconv
from fastconv._core import forks
from fastconv._core.arrays import Array
from fastconv._core.documented import like
from fastconv._core.layouts import INWARD, OUTWARD, WEIGHT_OUTWARD
from fastconv._core.select import wish_for_shapes
from fastconv.functional import CONVOLUTIONS, TRANSPOSED

from ..errors import ConvError
from .guard import compiled, unwatched
from .threads import share

NUMPY_DTYPES: Final[dict[Any, np.dtype[Any]]] = {
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
}
DTYPES: Final = tuple(NUMPY_DTYPES)
ARRAY_DTYPES: Final[dict[Any, np.dtype[Any]]] = {  # of which arrays may show the memory
    **NUMPY_DTYPES,
    **{getattr(torch, name): np.dtype(name) for name in ("int8", "int16", "int32", "int64", "uint8", "bool")},
}
try:  # how NumPy knows the numbers of `torch.bfloat16`
    from ml_dtypes import bfloat16
except ImportError:
    BFLOAT16 = None
else:
    BFLOAT16 = np.dtype(bfloat16)
FORMATS: Final = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the number of axes of a tensor

Ints = Sequence[int]
Size = int | tuple[int, ...]


# ---- memory --------------------------------------------------------------------------------------------------------


def lies_channels_last(tensor: Tensor) -> bool:
    """Whether the channels lie innermost and the images outermost, with or without gaps.

    A tensor that fits both orders counts as contiguous.
    """
    if tensor.is_contiguous():
        return False
    form = FORMATS.get(tensor.dim())
    if form is not None and tensor.is_contiguous(memory_format=form):
        return True
    (images, channels, *size), (per_image, per_channel, *steps) = tensor.shape, tensor.stride()
    if channels <= 1 or prod(size) <= 1 or per_channel != 1:
        return False
    needed = channels
    for length, step in zip([*size[::-1], images], [*steps[::-1], per_image], strict=True):
        if step < needed:
            return False
        needed = step * length
    return True


def result_is_channels_last(*tensors: Tensor) -> bool:
    """Whether the result of a convolution of these tensors lies channels last."""
    return any(map(lies_channels_last, tensors))


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


class Memory:
    """What NumPy asks of those whose memory it shows."""

    __slots__ = ("__array_interface__", "owner")

    def __init__(self, owner: Any, interface: dict[str, Any]) -> None:
        self.owner = owner  # lives as long as the array
        self.__array_interface__ = interface


# Without asking for memory to write to; older versions of PyTorch have the latter alone.
address: Final = getattr(Tensor, "const_data_ptr", Tensor.data_ptr)


def array(name: str, tensor: Tensor, axes: Ints | None = None) -> Array:
    """The memory of the tensor of this name as an array to read, its axes in this order.

    Not `tensor.numpy()`: that takes the memory for writing, and the storage could not be resized ever after.
    """
    if tensor.dtype is torch.bfloat16:
        assert BFLOAT16 is not None  # `halves` has asked
        return array(name, tensor.view(torch.int16), axes).view(BFLOAT16)
    stored(name, tensor)
    dtype = ARRAY_DTYPES[tensor.dtype]
    shape, strides = tensor.shape, tensor.stride()
    if axes is not None:
        shape, strides = [shape[axis] for axis in axes], [strides[axis] for axis in axes]
    if not tensor.numel():
        return np.empty(tuple(shape), dtype)
    return np.asarray(Memory(tensor, {
        "version": 3, "typestr": dtype.str, "data": (address(tensor), True), "shape": tuple(shape),
        "strides": tuple([step * dtype.itemsize for step in strides]),
    }))  # fmt: skip


def tensor(values: Array) -> Tensor:
    """An array of ours as a tensor in the same memory."""
    if BFLOAT16 is not None and values.dtype == BFLOAT16:  # NumPy calls None equal to float64
        return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(values)


def threads() -> int:
    """Threads of one call: PyTorch's number, and no more than fastconv's."""
    return int(min(torch.get_num_threads(), fastconv.get_num_threads()))


share()  # before the first call: a process that imports this has PyTorch's threads


@forks.in_child
def _compute_alone() -> None:
    """PyTorch's own operators hang in a child forked after it had started threads, as GNU OpenMP does."""
    if torch.get_num_threads() > 1:
        torch.set_num_threads(1)


def padding_of(sides: Ints) -> Any:
    """(before, after) of every axis, flat, in the shortest of fastconv's forms."""
    before, after = tuple(sides[::2]), tuple(sides[1::2])
    return before if before == after else tuple(zip(before, after, strict=True))


def choice(input_shape: Ints, weight_shape: Ints, *options: Any, dtype: torch.dtype) -> tuple[str, int]:
    """The algorithm of a convolution (N, C, *size), chosen for the whole batch, and the outputs of a channel."""
    computed = NUMPY_DTYPES.get(dtype, NUMPY_DTYPES[torch.float32])
    return wish_for_shapes(tuple(input_shape), tuple(weight_shape), *options, computed)


def algorithm(*arguments: Any, dtype: torch.dtype) -> str:
    """The algorithm of a convolution and of its gradients."""
    return choice(*arguments, dtype=dtype)[0]


# ---- operators -----------------------------------------------------------------------------------------------------


class Operators(NamedTuple):
    """The three of a number of axes."""

    conv: Any
    transposed: Any
    weight: Any


def _like(input: Tensor, shape: Ints, last: bool) -> Tensor:
    if not last:
        return torch.empty(shape, dtype=input.dtype, device=input.device)
    made = torch.empty((shape[0], *shape[2:], shape[1]), dtype=input.dtype, device=input.device)
    return made.permute(INWARD[len(shape)])


def _operators(axes: int) -> Operators:
    """Register the operators of so many axes, whose kernels and derivatives are the same for all."""
    every, own_axes, from_last, kernel_axes = (
        range(axes), OUTWARD[axes + 2], INWARD[axes + 2], WEIGHT_OUTWARD[axes + 2]
    )  # fmt: skip
    input_gradient = getattr(fastconv.grad, f"conv{axes}d_input")
    weight_gradient = getattr(fastconv.grad, f"conv{axes}d_weight")

    @torch.library.custom_op(
        f"fastconv::conv{axes}d",
        mutates_args=(),
        device_types="cpu",
        schema="(Tensor input, Tensor weight, Tensor? bias, SymInt[] stride, SymInt[] padding, SymInt[] dilation, "
        "SymInt groups) -> Tensor",
    )
    def conv_op(
        input: Tensor, weight: Tensor, bias: Tensor | None, stride: Ints, padding: Ints, dilation: Ints, groups: int
    ) -> Tensor:
        shift = None if bias is None else array("bias", bias)
        options = (tuple(stride), padding_of(padding), tuple(dilation), groups)
        how: dict[str, Any] = {
            "algorithm": algorithm(input.shape, weight.shape, *options, dtype=input.dtype),
            "num_threads": threads(),
        }
        if result_is_channels_last(input, weight):
            x, w = array("input", input, own_axes), array("weight", weight, kernel_axes)
            y = CONVOLUTIONS[axes](x, w, shift, *options, data_format="channels_last", **how)
            return torch.from_numpy(y.transpose(from_last))
        x, w = array("input", input), array("weight", weight)
        return torch.from_numpy(CONVOLUTIONS[axes](x, w, shift, *options, data_format="channels_first", **how))

    @conv_op.register_fake
    def _(
        input: Tensor, weight: Tensor, bias: Tensor | None, stride: Ints, padding: Ints, dilation: Ints, groups: int
    ) -> Tensor:
        size = [
            (input.shape[2 + i] + padding[2 * i] + padding[2 * i + 1] - dilation[i] * (weight.shape[2 + i] - 1) - 1)
            // stride[i]
            + 1
            for i in every
        ]
        return _like(input, (input.shape[0], weight.shape[0], *size), result_is_channels_last(input, weight))

    @torch.library.custom_op(
        f"fastconv::conv_transpose{axes}d",
        mutates_args=(),
        device_types="cpu",
        schema="(Tensor input, Tensor weight, Tensor? bias, SymInt[] output_size, SymInt[] stride, SymInt[] padding, "
        "SymInt[] dilation, SymInt groups) -> Tensor",
    )
    def transposed_op(
        input: Tensor, weight: Tensor, bias: Tensor | None, output_size: Ints, stride: Ints, padding: Ints,
        dilation: Ints, groups: int,
    ) -> Tensor:  # fmt: skip
        """The transposed convolution whose result has `output_size`; without a bias, conv's input gradient."""
        last = result_is_channels_last(input, weight)
        x = array("input", input, own_axes) if last else array("input", input)
        w = array("weight", weight, kernel_axes) if last else array("weight", weight)
        channels = weight.shape[1] * groups
        steps, pads, spacing = tuple(stride), padding_of(padding), tuple(dilation)
        shape = (input.shape[0], channels, *output_size)
        how: dict[str, Any] = {
            "algorithm": algorithm(shape, weight.shape, steps, pads, spacing, groups, dtype=input.dtype),
            "data_format": "channels_last" if last else "channels_first",
            "num_threads": threads(),
        }
        if bias is None:
            size = (shape[0], *output_size, channels) if last else shape
            y = input_gradient(size, w, x, steps, pads, spacing, groups, **how)
        else:
            extra = tuple(
                output_size[i]
                - ((input.shape[2 + i] - 1) * stride[i] - padding[2 * i] - padding[2 * i + 1])
                - (dilation[i] * (weight.shape[2 + i] - 1) + 1)
                for i in every
            )
            y = TRANSPOSED[axes](x, w, array("bias", bias), steps, pads, extra, groups, spacing, **how)
        return torch.from_numpy(y.transpose(from_last) if last else y)

    @transposed_op.register_fake
    def _(
        input: Tensor, weight: Tensor, bias: Tensor | None, output_size: Ints, stride: Ints, padding: Ints,
        dilation: Ints, groups: int,
    ) -> Tensor:  # fmt: skip
        shape = (input.shape[0], weight.shape[1] * groups, *output_size)
        return _like(input, shape, result_is_channels_last(input, weight))

    @torch.library.custom_op(
        f"fastconv::conv{axes}d_weight",
        mutates_args=(),
        device_types="cpu",
        schema="(Tensor input, Tensor grad_output, SymInt[] kernel_size, SymInt[] stride, SymInt[] padding, "
        "SymInt[] dilation, SymInt groups) -> Tensor",
    )
    def weight_op(
        input: Tensor, grad_output: Tensor, kernel_size: Ints, stride: Ints, padding: Ints, dilation: Ints, groups: int
    ) -> Tensor:
        """The gradient of a convolution with respect to its weight, contiguous."""
        size = (grad_output.shape[1], input.shape[1] // groups, *kernel_size)
        options = (tuple(stride), padding_of(padding), tuple(dilation), groups)
        how = algorithm(input.shape, size, *options, dtype=input.dtype)
        x, dy = array("input", input), array("grad_output", grad_output)
        return torch.from_numpy(weight_gradient(x, size, dy, *options, algorithm=how, num_threads=threads()))

    @weight_op.register_fake
    def _(
        input: Tensor, grad_output: Tensor, kernel_size: Ints, stride: Ints, padding: Ints, dilation: Ints, groups: int
    ) -> Tensor:
        return _like(input, (grad_output.shape[1], input.shape[1] // groups, *kernel_size), False)

    made = Operators(conv_op, transposed_op, weight_op)
    _differentiate(made)
    return made


# ---- derivatives ---------------------------------------------------------------------------------------------------


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Remember both tensor operands, whose values the derivative needs, and the numbers."""
    first, second, *rest = inputs
    ctx.save_for_backward(first, second)
    ctx.options = rest


def _bias_gradient(wanted: bool, grad: Tensor) -> Tensor | None:
    if wanted and unwatched(grad):
        stored("grad_output", grad)
    return grad.sum((0, *range(2, grad.dim()))) if wanted else None


def _differentiate(ops: Operators) -> None:
    """Register the derivatives, each made of the two others."""

    def conv_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        _, *options = ctx.options
        wanted = ctx.needs_input_grad
        dx = ops.transposed(grad, weight, None, input.shape[2:], *options) if wanted[0] else None
        dw = ops.weight(input, grad, weight.shape[2:], *options) if wanted[1] else None
        return dx, dw, _bias_gradient(wanted[2], grad), None, None, None, None

    def transposed_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        _, _, *options = ctx.options
        wanted = ctx.needs_input_grad
        dx = ops.conv(grad, weight, None, *options) if wanted[0] else None
        dw = ops.weight(grad, input, weight.shape[2:], *options) if wanted[1] else None
        return dx, dw, _bias_gradient(wanted[2], grad), None, None, None, None, None

    def weight_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        input, grad_output = ctx.saved_tensors
        _, *options = ctx.options
        wanted = ctx.needs_input_grad
        dx = ops.transposed(grad_output, grad, None, input.shape[2:], *options) if wanted[0] else None
        dy = ops.conv(input, grad, None, *options) if wanted[1] else None
        return dx, dy, None, None, None, None, None

    ops.conv.register_autograd(conv_backward, setup_context=_keep)
    ops.transposed.register_autograd(transposed_backward, setup_context=_keep)
    ops.weight.register_autograd(weight_backward, setup_context=_keep)


OPERATORS: Final = {axes: _operators(axes) for axes in (1, 2, 3)}
THEIRS: Final[dict[int, Any]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
THEIRS_TRANSPOSED: Final[dict[int, Any]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


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


def halves(*tensors: Tensor | None) -> bool:
    """Whether these are bfloat16 tensors that prepared evaluation takes: computed in float32, rounded once.

    Not under autocast, which PyTorch computes in instructions of its own where the processor has them.
    """
    if BFLOAT16 is None or torch.compiler.is_dynamo_compiling() or not unwatched(*tensors):
        return False
    return all(one.dtype is torch.bfloat16 for one in tensors if one is not None)


def sizes(value: Size, axes: int) -> tuple[int, ...]:
    """One number for all axes, or one for each, as PyTorch takes them."""
    if isinstance(value, int):
        return (value,) * axes
    items = tuple(value)
    return items * axes if len(items) == 1 else items


def sides_of(padding: str | Size, weight: Tensor, stride: tuple[int, ...], dilation: tuple[int, ...]) -> Ints | None:
    """(before, after) of every axis, flat, as PyTorch means `padding`; None for what only PyTorch can answer."""
    axes = len(stride)
    if padding == "valid":
        return (0, 0) * axes
    if isinstance(padding, str):
        if padding != "same" or any(step != 1 for step in stride):
            return None
        totals = [dilation[i] * (weight.shape[2 + i] - 1) for i in range(axes)]  # an odd pixel goes to the end
        return tuple(side for total in totals for side in (total // 2, total - total // 2))
    return tuple(side for side in sizes(padding, axes) for _ in (0, 1))


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
    return _conv(2, input, weight, bias, stride, padding, dilation, groups)


@like(conv2d, 1)
def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: str | Size = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    return _conv(1, input, weight, bias, stride, padding, dilation, groups)


@like(conv2d, 3)
def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: str | Size = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    return _conv(3, input, weight, bias, stride, padding, dilation, groups)


def _conv(
    axes: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Size, padding: str | Size, dilation: Size,
    groups: int,
) -> Tensor:  # fmt: skip
    if taken(input, weight, bias):
        return convolve(axes, input, weight, bias, stride, padding, dilation, groups)
    result: Tensor = THEIRS[axes](input, weight, bias, stride, padding, dilation, groups)
    return result


def convolve(
    axes: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Size, padding: str | Size, dilation: Size,
    groups: int,
) -> Tensor:  # fmt: skip
    """`conv2d` and its like, of tensors that are `taken`."""
    y: Tensor
    if weight.dim() == axes + 2 and input.dim() in (axes + 1, axes + 2):
        strides, dilations = sizes(stride, axes), sizes(dilation, axes)
        sides = sides_of(padding, weight, strides, dilations)
        if sides is not None:
            batched = input.dim() == axes + 2
            images = input if batched else input.unsqueeze(0)
            y = OPERATORS[axes].conv(images, weight, bias, strides, sides, dilations, groups)
            return y if batched else y.squeeze(0)
    y = THEIRS[axes](input, weight, bias, stride, padding, dilation, groups)
    return y


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
    return _conv_transpose(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


@like(conv_transpose2d, 1)
def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    return _conv_transpose(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


@like(conv_transpose2d, 3)
def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    return _conv_transpose(3, input, weight, bias, stride, padding, output_padding, groups, dilation)


def _conv_transpose(
    axes: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Size, padding: Size, output_padding: Size,
    groups: int, dilation: Size,
) -> Tensor:  # fmt: skip
    strides, extra = sizes(stride, axes), sizes(output_padding, axes)
    y: Tensor
    if (
        taken(input, weight, bias)
        and weight.dim() == axes + 2
        and input.dim() in (axes + 1, axes + 2)
        and all(0 <= more < step for more, step in zip(extra, strides, strict=True))  # else it is no convolution's
    ):
        pads, dilations = sizes(padding, axes), sizes(dilation, axes)
        size = [
            (input.shape[i - axes] - 1) * strides[i] - 2 * pad + dilations[i] * (weight.shape[2 + i] - 1) + 1 + extra[i]
            for i, pad in enumerate(pads)
        ]
        sides = [side for pad in pads for side in (pad, pad)]
        batched = input.dim() == axes + 2
        images = input if batched else input.unsqueeze(0)
        y = OPERATORS[axes].transposed(images, weight, bias, size, strides, sides, dilations, groups)
        return y if batched else y.squeeze(0)
    y = THEIRS_TRANSPOSED[axes](input, weight, bias, stride, padding, output_padding, groups, dilation)
    return y


with suppress(ImportError):  # TorchScript compiles calls of these functions to PyTorch's operators
    from torch.jit._builtins import _register_builtin

    for function in (conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d):
        _register_builtin(function, f"aten::{function.__name__}")
