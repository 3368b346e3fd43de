"""Plans and explanations, from a caller's arguments to `plan`: what they add to `ask`."""

from __future__ import annotations

from .arrays import Array
from .ask import Asked, asked
from .checks import checked_activation, checked_bias, checked_dtype
from .conv_plan import ConvPlan
from .explanation import ConvExplanation
from .operations import explain
from .plan import plan_for
from .problem import Direction, Use
from .rounding import Grant, Halves, checked_halves, require_single, types_of
from .types import FLOATS


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
    grant: Grant | None = None,
) -> ConvPlan:
    """The plan of a convolution; `use` says how it will be run."""
    halves = checked_halves(weights_dtype, precision)
    a = asked(
        f"plan_conv{axes}d", axes, data_format, (stride, padding, dilation, groups, padding_mode, padding_value),
        input_shape, weight, algorithm, num_threads, input_shape="input_shape", max_workspace=max_workspace,
    )  # fmt: skip
    return _plan(a, a.geometry.out_channels, bias, activation, use, halves, grant)


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
    grant: Grant | None = None,
) -> ConvPlan:
    """`planned` with the usual options left out, of as many axes as the weight has: for nets. Where weights take 16
    bits, `grant` says whether the plan may hold their transform too."""
    return planned(
        use, weight.ndim - 2, input_shape, weight, bias, stride, padding, dilation, groups, padding_mode, data_format,
        activation, algorithm, num_threads, 0, None, weights_dtype, precision, grant,
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
    grant: Grant | None = None,
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
    return _plan(a, a.geometry.in_channels, bias, activation, Use.NETWORK, halves, grant, transposed=True)


def _plan(
    a: Asked, channels: int, bias: object, activation: object, use: Use, halves: Halves, grant: Grant | None = None, *,
    transposed: bool = False,
) -> ConvPlan:  # fmt: skip
    assert a.weight is not None
    b = checked_bias(a.name, bias, channels, a.dtype, a.shown_weight)
    act = checked_activation(activation, a.dtype)
    if grant is not None and halves.packed and a.weight.dtype in FLOATS:
        halves = halves._replace(beside=_granted(a, use, halves, grant, transposed))
    return ConvPlan(
        a.geometry, a.weight, b, a.weight.dtype, data_format=a.frame.name, activation=act, algorithm=a.algorithm,
        threads=a.threads, batched=a.batched, use=use, transposed=transposed, most=a.most, halves=halves,
    )  # fmt: skip


def _granted(a: Asked, use: Use, halves: Halves, grant: Grant, transposed: bool) -> bool:
    """Whether the plan may hold what a fast method makes of the weights, beside them."""
    assert a.weight is not None
    require_single(halves, a.weight.dtype)
    direction = Direction.INPUT_GRADIENT if transposed else Direction.FORWARD
    kinds = (types_of(a.weight.dtype, halves._replace(beside=beside)) for beside in (False, True))
    first = not a.frame.channels_last
    plans = (plan_for(a.geometry, direction, types, a.threads, a.algorithm, use, a.most, first) for types in kinds)
    few, more = (plan.explain(a.frame.channels_last, True).packed_weight_bytes for plan in plans)
    return more > few and grant(more - few)


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
