"""Plans and explanations, from a caller's arguments to `plan`: what they add to `ask`."""

from __future__ import annotations

from .arrays import Array
from .ask import Asked, asked
from .checks import checked_activation, checked_bias, checked_dtype
from .conv_plan import ConvPlan
from .explanation import ConvExplanation
from .operations import explain
from .problem import Use
from .rounding import Halves, checked_halves


def planned(
    use: Use,
    axes: int,
    input_shape: object,
    weight: object,
    bias: object,
    stride: object,
    padding: object,
    dilation: object,
    groups: object,
    padding_mode: object,
    data_format: object,
    activation: object,
    algorithm: object,
    num_threads: int | None,
    padding_value: object = 0,
    max_workspace: object = None,
    weights_dtype: object = None,
    precision: object = None,
) -> ConvPlan:
    """The plan of a convolution; `use` says how it will be run."""
    halves = checked_halves(weights_dtype, precision)
    a = asked(
        f"plan_conv{axes}d", axes, data_format, (stride, padding, dilation, groups, padding_mode, padding_value),
        input_shape, weight, algorithm, num_threads, input_shape="input_shape", max_workspace=max_workspace,
    )  # fmt: skip
    return _plan(a, a.geometry.out_channels, bias, activation, use, halves)


def prepared(
    use: Use,
    input_shape: object,
    weight: Array,
    bias: Array | None = None,
    stride: object = 1,
    padding: object = 0,
    dilation: object = 1,
    groups: object = 1,
    *,
    padding_mode: object = "zeros",
    data_format: object = "channels_first",
    activation: object = None,
    algorithm: object = "auto",
    num_threads: int | None = None,
    weights_dtype: object = None,
    precision: object = None,
) -> ConvPlan:
    """`planned` with the usual options left out, of as many axes as the weight has: for nets."""
    return planned(
        use, weight.ndim - 2, input_shape, weight, bias, stride, padding, dilation, groups, padding_mode, data_format,
        activation, algorithm, num_threads, 0, None, weights_dtype, precision,
    )  # fmt: skip


def planned_transposed(
    axes: int,
    input_shape: object,
    weight: object,
    bias: object,
    stride: object,
    padding: object,
    output_padding: object,
    groups: object,
    dilation: object,
    data_format: object,
    algorithm: object,
    num_threads: int | None,
    output_size: object,
    max_workspace: object,
    weights_dtype: object,
    precision: object,
) -> ConvPlan:
    """The plan of a transposed convolution."""
    halves = checked_halves(weights_dtype, precision)
    a = asked(
        f"plan_conv_transpose{axes}d", axes, data_format,
        (stride, padding, dilation, groups, output_padding, output_size), input_shape, weight, algorithm, num_threads,
        transposed=True, input_shape="input_shape", max_workspace=max_workspace,
    )  # fmt: skip
    return _plan(a, a.geometry.in_channels, bias, None, Use.HELD, halves, transposed=True)


def prepared_transposed(
    input_shape: object,
    weight: Array,
    bias: Array | None = None,
    stride: object = 1,
    padding: object = 0,
    output_padding: object = 0,
    groups: object = 1,
    dilation: object = 1,
    *,
    data_format: object = "channels_first",
    activation: object = None,
    num_threads: int | None = None,
    weights_dtype: object = None,
    precision: object = None,
) -> ConvPlan:
    """`planned_transposed` of as many axes as the weight has: for nets. An `activation` is for plans whose passes write
    every output (`ConvPlan.native`)."""
    axes = weight.ndim - 2
    a = asked(
        f"plan_conv_transpose{axes}d", axes, data_format,
        (stride, padding, dilation, groups, output_padding, None), input_shape, weight, "auto", num_threads,
        transposed=True, input_shape="input_shape",
    )  # fmt: skip
    halves = checked_halves(weights_dtype, precision)
    return _plan(a, a.geometry.in_channels, bias, activation, Use.NETWORK, halves, transposed=True)


def _plan(
    a: Asked, channels: int, bias: object, activation: object, use: Use, halves: Halves, *, transposed: bool = False
) -> ConvPlan:
    assert a.weight is not None
    b = checked_bias(a.name, bias, channels, a.dtype, a.shown_weight)
    act = checked_activation(activation, a.dtype)
    return ConvPlan(
        a.geometry, a.weight, b, a.weight.dtype, data_format=a.frame.name, activation=act, algorithm=a.algorithm,
        threads=a.threads, batched=a.batched, use=use, transposed=transposed, most=a.most, halves=halves,
    )  # fmt: skip


def explained(
    axes: int,
    input_shape: object,
    weight_shape: object,
    stride: object,
    padding: object,
    dilation: object,
    groups: object,
    dtype: object,
    padding_mode: object,
    data_format: object,
    algorithm: object,
    num_threads: int | None,
    padding_value: object,
    max_workspace: object,
) -> ConvExplanation:
    """What a convolution of these shapes would do."""
    element = checked_dtype(dtype)
    a = asked(
        f"explain_conv{axes}d", axes, data_format, (stride, padding, dilation, groups, padding_mode, padding_value),
        input_shape, weight_shape, algorithm, num_threads, input_shape="input_shape", weight_shape="weight_shape",
        dtype=element, max_workspace=max_workspace,
    )  # fmt: skip
    return explain(
        a.geometry, element, algorithm=a.algorithm, threads=a.threads, channels_last=a.frame.channels_last, most=a.most
    )
