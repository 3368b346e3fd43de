"""The gradients of convolutions, from a caller's arguments to a plan: what they add to `ask`.

Those of tiled ones are in `ask_tiled`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from . import remember
from .arrays import Array, empty, result_dtype
from .ask import ZERO, Asked, asked
from .geometry import Geometry
from .into import into_activation, into_weight
from .later import Later
from .layouts import Layout
from .record import NamedTuple
from .types import Types
from .words import mask

if TYPE_CHECKING:
    from . import operations
    from .methods.method import Program
else:
    operations = Later("operations")

recall: Final = remember.recall


class Gradients(NamedTuple):
    """Gradients of arrays that were seen before, of contiguous batches: all that is left is to compute."""

    frame: Layout
    geometry: Geometry
    algorithm: str
    threads: int
    programs: dict[str, Program | None]  # of the input's gradient, once it was asked for; None: more is to be done

    def input(self, grad_output: Array, weight: Array) -> Array:
        frame, g = self.frame, self.geometry
        result = empty(frame.from_logical_shape((g.batch, g.in_channels, *g.input_size)), grad_output.dtype)
        dy, w, to = frame.to_logical(grad_output), frame.weight("weight", weight), frame.to_logical(result)
        if "input" not in self.programs:
            types = Types(grad_output.dtype, weight.dtype, result.dtype)
            self.programs["input"] = operations.straight_input_gradient(g, types, self.algorithm, self.threads)
        program = self.programs["input"]
        if program is not None and result.size:
            program.run(dy, w, None, None, None, to, 0, False)
        else:
            operations.input_gradient(g, dy, w, None, to, algorithm=self.algorithm, threads=self.threads)
        return result

    def weight(self, grad_output: Array, input: Array) -> Array:
        frame, g = self.frame, self.geometry
        own_shape = frame.weight_from_logical_shape((g.out_channels, g.in_channels // g.groups, *g.kernel_size))
        result = empty(own_shape, grad_output.dtype)
        operations.weight_gradient(
            g, frame.to_logical(input), frame.to_logical(grad_output), frame.weight("weight", result),
            algorithm=self.algorithm, threads=self.threads,
        )  # fmt: skip
        return result

    def bias(self, grad_output: Array) -> Array:
        result = np.empty(self.geometry.out_channels, grad_output.dtype)
        operations.bias_gradient(self.frame.to_logical(grad_output), result, threads=self.threads)
        return result


def _gradients(a: Asked) -> Gradients:
    return Gradients(a.frame, a.geometry, a.algorithm, a.threads, {})


def _input_gradient(a: Asked, like: Array, out: object = None, accumulate: object = False) -> Array:
    """The gradient with respect to the input of a convolution; the result lies as `like` does."""
    g, dy, w = a.geometry, a.grad_output, a.weight
    assert dy is not None and w is not None

    def compute(images: slice, to: Array) -> None:
        operations.input_gradient(
            g._replace(batch=len(to)), dy[images], w, None, to, algorithm=a.algorithm, threads=a.threads
        )

    shape = (g.batch, g.in_channels, *g.input_size)
    return into_activation(
        a.name, out, accumulate, a.frame, shape, a.dtype, a.batched, a.lies_last(like), (dy, w), compute
    )


def _weight_gradient(a: Asked, x: Array, dy: Array, out: object = None, accumulate: object = False) -> Array:
    """The gradient with respect to the weight of the convolution that makes `dy`'s shape from `x`'s."""
    g = a.geometry

    def compute(to: Array) -> None:
        operations.weight_gradient(g, x, dy, to, algorithm=a.algorithm, threads=a.threads)

    shape = (g.out_channels, g.in_channels // g.groups, *g.kernel_size)
    return into_weight(a.name, out, accumulate, a.frame, shape, a.weight_dtype, (x, dy), compute)


def backward(
    axes: int,
    grad_output: object,
    input: object,
    weight: object,
    stride: object,
    padding: object,
    dilation: object,
    groups: object,
    output_mask: object,
    padding_mode: object,
    data_format: object,
    algorithm: object,
    num_threads: int | None,
    padding_value: object,
) -> tuple[Array | None, Array | None, Array | None]:
    """The gradients with respect to input, weight and bias."""
    key = None
    if padding_value is ZERO and type(input) is type(grad_output) is np.ndarray and input.dtype == grad_output.dtype:
        what = "backward" if input.flags.c_contiguous else "backward of a view"
        key = remember.gradient_key(
            axes, what, input.shape, grad_output, weight, stride, padding, dilation, groups, padding_mode, data_format,
            algorithm, num_threads,
        )  # fmt: skip
        if key is not None and (known := recall(key)) is not None:
            wanted = mask(output_mask)
            return (
                known.input(grad_output, weight) if wanted[0] else None,
                known.weight(grad_output, input) if wanted[1] else None,
                known.bias(grad_output) if wanted[2] else None,
            )
    a = asked(
        f"conv{axes}d_backward", axes, data_format, (stride, padding, dilation, groups, padding_mode, padding_value),
        input, weight, algorithm, num_threads, gradient=(grad_output,),
    )  # fmt: skip
    x, dy, wanted = a.input, a.grad_output, mask(output_mask)
    assert x is not None and dy is not None
    grad_bias = None
    grad_input = _input_gradient(a, x) if wanted[0] else None
    grad_weight = _weight_gradient(a, x, dy) if wanted[1] else None
    if wanted[2]:
        grad_bias = np.empty(a.geometry.out_channels, result_dtype("grad_output", dy, "grad_output", dy))
        operations.bias_gradient(dy, grad_bias, threads=a.threads)
    if key is not None and a.batched and (a.frame.channels_last or x.flags.c_contiguous):
        remember.keep(key, _gradients(a))
    return grad_input, grad_weight, grad_bias


def input_gradient(
    axes: int,
    input_size: object,
    weight: object,
    grad_output: object,
    stride: object,
    padding: object,
    dilation: object,
    groups: object,
    padding_mode: object,
    data_format: object,
    algorithm: object,
    num_threads: int | None,
    padding_value: object,
    out: object,
    accumulate: object,
) -> Array:
    """The gradient of a convolution with respect to its input."""
    key = None
    if out is None and accumulate is False and padding_value is ZERO:
        key = remember.gradient_key(
            axes, "input", input_size, grad_output, weight, stride, padding, dilation, groups, padding_mode,
            data_format, algorithm, num_threads,
        )  # fmt: skip
        if key is not None and (known := recall(key)) is not None:
            result: Array = known.input(grad_output, weight)
            return result
    a = asked(
        f"conv{axes}d_input", axes, data_format, (stride, padding, dilation, groups, padding_mode, padding_value),
        input_size, weight, algorithm, num_threads, gradient=(grad_output,), input_shape="input_size",
    )  # fmt: skip
    assert a.grad_output is not None
    result = _input_gradient(a, a.grad_output, out, accumulate)
    if key is not None and a.batched and (a.frame.channels_last or a.grad_output.flags.c_contiguous):
        remember.keep(key, _gradients(a))
    return result


def weight_gradient(
    axes: int,
    input: object,
    weight_size: object,
    grad_output: object,
    stride: object,
    padding: object,
    dilation: object,
    groups: object,
    padding_mode: object,
    data_format: object,
    algorithm: object,
    num_threads: int | None,
    padding_value: object,
    out: object,
    accumulate: object,
) -> Array:
    """The gradient of a convolution with respect to its weight."""
    key = None
    if out is None and accumulate is False and padding_value is ZERO:
        key = remember.gradient_key(
            axes, "weight", weight_size, grad_output, input, stride, padding, dilation, groups, padding_mode,
            data_format, algorithm, num_threads,
        )  # fmt: skip
        if key is not None and (known := recall(key)) is not None:
            result: Array = known.weight(grad_output, input)
            return result
    a = asked(
        f"conv{axes}d_weight", axes, data_format, (stride, padding, dilation, groups, padding_mode, padding_value),
        input, weight_size, algorithm, num_threads, gradient=(grad_output,), weight_shape="weight_size",
    )  # fmt: skip
    assert a.input is not None and a.grad_output is not None
    result = _weight_gradient(a, a.input, a.grad_output, out, accumulate)
    if key is not None and a.batched:
        remember.keep(key, _gradients(a))
    return result


# ---- of transposed convolutions ----------------------------------------------------------------------------------


def transposed_input_gradient(
    axes: int,
    input_size: object,
    weight: object,
    grad_output: object,
    stride: object,
    padding: object,
    output_padding: object,
    groups: object,
    dilation: object,
    data_format: object,
    algorithm: object,
    num_threads: int | None,
    output_size: object,
    out: object,
    accumulate: object,
) -> Array:
    """The gradient of a transposed convolution with respect to its input: the convolution that it transposes."""
    a = asked(
        f"conv_transpose{axes}d_input", axes, data_format,
        (stride, padding, dilation, groups, output_padding, output_size), input_size, weight,
        algorithm, num_threads, transposed=True, gradient=(grad_output,), input_shape="input_size",
    )  # fmt: skip
    g, dy, w = a.geometry, a.grad_output, a.weight
    assert dy is not None and w is not None

    def compute(images: slice, to: Array) -> None:
        operations.forward(
            g._replace(batch=len(to)), dy[images], w, None, None, None, to, algorithm=a.algorithm, threads=a.threads
        )

    shape = (g.batch, g.out_channels, *g.output_size)
    return into_activation(
        a.name, out, accumulate, a.frame, shape, a.dtype, a.batched, a.lies_last(dy), (dy, w), compute
    )


def transposed_weight_gradient(
    axes: int,
    input: object,
    weight_size: object,
    grad_output: object,
    stride: object,
    padding: object,
    output_padding: object,
    groups: object,
    dilation: object,
    data_format: object,
    algorithm: object,
    num_threads: int | None,
    output_size: object,
    out: object,
    accumulate: object,
) -> Array:
    """The gradient of a transposed convolution with respect to its weight: input and gradient change places."""
    a = asked(
        f"conv_transpose{axes}d_weight", axes, data_format,
        (stride, padding, dilation, groups, output_padding, output_size), input, weight_size,
        algorithm, num_threads, transposed=True, gradient=(grad_output,), weight_shape="weight_size",
    )  # fmt: skip
    assert a.input is not None and a.grad_output is not None
    return _weight_gradient(a, a.grad_output, a.input, out, accumulate)
