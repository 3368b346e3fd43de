"""Plans: convolutions prepared once, with packed weights, to be run many times; and what a call would do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from ._core.documented import like
from ._core.later import Later
from ._core.words import Padding, Size

if TYPE_CHECKING:
    from ._core import ask_plans, problem
    from ._core.conv_plan import ConvPlan
    from ._core.explanation import ConvExplanation
else:
    ask_plans, problem = Later("ask_plans"), Later("problem")


def plan_conv2d(
    input_shape: Sequence[int],
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    data_format: str = "NCHW",
    activation: str | None = None,
    algorithm: str = "auto",
    num_threads: int | None = None,
    max_workspace: int | None = None,
    weights_dtype: str | None = None,
    precision: str | None = None,
) -> ConvPlan:
    """Prepare a `conv2d` once, with packed weights, to be run on many inputs.

    Parameters
    ----------
    input_shape : sequence of int
        The shape of the inputs. The batch is only a hint: `ConvPlan.run` takes any.
    weight : array_like
        The weight of `conv2d`; of the input's element type.
    bias : array_like, optional
        Shape (O,): one value for each output channel.
    stride, padding, dilation, groups : int, pair or str
        As for `conv2d`.
    padding_mode, padding_value, data_format, activation, algorithm : str or number
        As for `conv2d`.
    num_threads : int, optional
        Threads of every run, in place of `get_num_threads()`.
    max_workspace : int, optional
        Bytes of scratch memory that a run of any batch may take beside arrays and packed weights.
    weights_dtype : {'float32', 'float16', 'bfloat16'}, optional
        Weights of 16 bits are rounded to the nearest and held so, and multiplied in float32.
    precision : {'float32', 'bfloat16'}, optional
        'bfloat16' rounds inputs and weights to it, and sums in float32.

    Returns
    -------
    ConvPlan
        Holds a copy of the weights; the inputs must have the weight's element type.

    Raises
    ------
    ConvError, ConvTypeError
        For values, shapes or types that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import fastconv
    >>> plan = fastconv.plan_conv2d((1, 3, 32, 32), np.ones((8, 3, 3, 3), np.float32), padding="same")
    >>> plan.run(np.ones((5, 3, 32, 32), np.float32)).shape
    (5, 8, 32, 32)
    """
    return ask_plans.planned(
        problem.Use.HELD, 2, input_shape, weight, bias, stride, padding, dilation, groups, padding_mode,
        data_format, activation, algorithm, num_threads, padding_value, max_workspace, weights_dtype, precision,
    )  # fmt: skip


@like(plan_conv2d, 1)
def plan_conv1d(
    input_shape: Sequence[int],
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    data_format: str = "NCW",
    activation: str | None = None,
    algorithm: str = "auto",
    num_threads: int | None = None,
    max_workspace: int | None = None,
    weights_dtype: str | None = None,
    precision: str | None = None,
) -> ConvPlan:
    return ask_plans.planned(
        problem.Use.HELD, 1, input_shape, weight, bias, stride, padding, dilation, groups, padding_mode,
        data_format, activation, algorithm, num_threads, padding_value, max_workspace, weights_dtype, precision,
    )  # fmt: skip


@like(plan_conv2d, 3)
def plan_conv3d(
    input_shape: Sequence[int],
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    data_format: str = "NCDHW",
    activation: str | None = None,
    algorithm: str = "auto",
    num_threads: int | None = None,
    max_workspace: int | None = None,
    weights_dtype: str | None = None,
    precision: str | None = None,
) -> ConvPlan:
    return ask_plans.planned(
        problem.Use.HELD, 3, input_shape, weight, bias, stride, padding, dilation, groups, padding_mode,
        data_format, activation, algorithm, num_threads, padding_value, max_workspace, weights_dtype, precision,
    )  # fmt: skip


def plan_conv_transpose2d(
    input_shape: Sequence[int],
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    output_size: Size | None = None,
    data_format: str = "NCHW",
    algorithm: str = "auto",
    num_threads: int | None = None,
    max_workspace: int | None = None,
    weights_dtype: str | None = None,
    precision: str | None = None,
) -> ConvPlan:
    """Prepare a `conv_transpose2d` once, with packed weights, to be run on many inputs.

    Parameters
    ----------
    input_shape : sequence of int
        The shape of the inputs. The batch is only a hint: `ConvPlan.run` takes any.
    weight : array_like
        The weight of `conv_transpose2d`; of the input's element type.
    bias : array_like, optional
        Shape (O,): one value for each output channel.
    stride, padding, output_padding, groups, dilation, output_size : int, pair or str
        As for `conv_transpose2d`.
    data_format, algorithm : str
        As for `conv_transpose2d`.
    num_threads : int, optional
        Threads of every run, in place of `get_num_threads()`.
    max_workspace : int, optional
        Bytes of scratch memory that a run of any batch may take beside arrays and packed weights.
    weights_dtype : {'float32', 'float16', 'bfloat16'}, optional
        Weights of 16 bits are rounded to the nearest and held so, and multiplied in float32.
    precision : {'float32', 'bfloat16'}, optional
        'bfloat16' rounds inputs and weights to it, and sums in float32.

    Returns
    -------
    ConvPlan
        Holds a copy of the weights; the inputs must have the weight's element type.

    Raises
    ------
    ConvError, ConvTypeError
        For values, shapes or types that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import fastconv
    >>> plan = fastconv.plan_conv_transpose2d((1, 8, 16, 16), np.ones((8, 3, 2, 2), np.float32), stride=2)
    >>> plan.run(np.ones((5, 8, 16, 16), np.float32)).shape
    (5, 3, 32, 32)
    """
    return ask_plans.planned_transposed(
        2, input_shape, weight, bias, stride, padding, output_padding, groups, dilation, data_format, algorithm,
        num_threads, output_size, max_workspace, weights_dtype, precision,
    )  # fmt: skip


@like(plan_conv_transpose2d, 1)
def plan_conv_transpose1d(
    input_shape: Sequence[int],
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    output_size: Size | None = None,
    data_format: str = "NCW",
    algorithm: str = "auto",
    num_threads: int | None = None,
    max_workspace: int | None = None,
    weights_dtype: str | None = None,
    precision: str | None = None,
) -> ConvPlan:
    return ask_plans.planned_transposed(
        1, input_shape, weight, bias, stride, padding, output_padding, groups, dilation, data_format, algorithm,
        num_threads, output_size, max_workspace, weights_dtype, precision,
    )  # fmt: skip


@like(plan_conv_transpose2d, 3)
def plan_conv_transpose3d(
    input_shape: Sequence[int],
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    output_size: Size | None = None,
    data_format: str = "NCDHW",
    algorithm: str = "auto",
    num_threads: int | None = None,
    max_workspace: int | None = None,
    weights_dtype: str | None = None,
    precision: str | None = None,
) -> ConvPlan:
    return ask_plans.planned_transposed(
        3, input_shape, weight, bias, stride, padding, output_padding, groups, dilation, data_format, algorithm,
        num_threads, output_size, max_workspace, weights_dtype, precision,
    )  # fmt: skip


def explain_conv2d(
    input_shape: Sequence[int],
    weight_shape: Sequence[int],
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    dtype: Any = "float32",
    padding_mode: str = "zeros",
    padding_value: float = 0,
    data_format: str = "NCHW",
    algorithm: str = "auto",
    num_threads: int | None = None,
    max_workspace: int | None = None,
) -> ConvExplanation:
    """Say how `conv2d` would do this convolution: algorithm, tiles, memory, multiply-adds and why; nothing is run.

    Parameters
    ----------
    input_shape : sequence of int
        The shape of the input.
    weight_shape : sequence of int
        The shape of the weight.
    stride, padding, dilation, groups : int, pair or str
        As for `conv2d`.
    dtype : dtype_like
        The element type of both.
    padding_mode, padding_value, data_format, algorithm, num_threads, max_workspace : as for `conv2d`
        See there.

    Returns
    -------
    ConvExplanation
        A named tuple; printed, a few lines of text.

    Raises
    ------
    ConvError, ConvTypeError
        For values, shapes or types that do not fit.

    Examples
    --------
    >>> import fastconv
    >>> fastconv.explain_conv2d((1, 3, 224, 224), (64, 3, 3, 3), padding=1).macs
    86704128
    >>> fastconv.explain_conv2d((1, 64, 56, 56), (64, 64, 3, 3), padding=1, dtype="float64").algorithm
    'direct'
    """
    return ask_plans.explained(
        2, input_shape, weight_shape, stride, padding, dilation, groups, dtype, padding_mode, data_format, algorithm,
        num_threads, padding_value, max_workspace,
    )  # fmt: skip


@like(explain_conv2d, 1)
def explain_conv1d(
    input_shape: Sequence[int],
    weight_shape: Sequence[int],
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    dtype: Any = "float32",
    padding_mode: str = "zeros",
    padding_value: float = 0,
    data_format: str = "NCW",
    algorithm: str = "auto",
    num_threads: int | None = None,
    max_workspace: int | None = None,
) -> ConvExplanation:
    return ask_plans.explained(
        1, input_shape, weight_shape, stride, padding, dilation, groups, dtype, padding_mode, data_format, algorithm,
        num_threads, padding_value, max_workspace,
    )  # fmt: skip


@like(explain_conv2d, 3)
def explain_conv3d(
    input_shape: Sequence[int],
    weight_shape: Sequence[int],
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    dtype: Any = "float32",
    padding_mode: str = "zeros",
    padding_value: float = 0,
    data_format: str = "NCDHW",
    algorithm: str = "auto",
    num_threads: int | None = None,
    max_workspace: int | None = None,
) -> ConvExplanation:
    return ask_plans.explained(
        3, input_shape, weight_shape, stride, padding, dilation, groups, dtype, padding_mode, data_format, algorithm,
        num_threads, padding_value, max_workspace,
    )  # fmt: skip
