"""Mistakes, each to be answered with a `ConvError` or a `ConvTypeError` that names the argument, and nothing written.

One row a mistake: the function, the argument that the message must name, the exception, and what replaces the good
arguments of `GOOD`. `rows.bad_input` makes them, with those of `everywhere`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import fastconv
from fastconv import ConvError, ConvTypeError

UNWRITTEN = 77


def arr(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.ones(shape, dtype)


class Unreadable:
    """Something whose conversion to an array fails."""

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise RuntimeError("requires grad")


X, W = arr(2, 4, 8, 9), arr(6, 4, 3, 3)
Y = arr(2, 6, 6, 7)
GOOD: dict[str, dict[str, Any]] = {
    "conv2d": {"input": X, "weight": W},
    "conv_transpose2d": {"input": X, "weight": arr(4, 6, 3, 3)},
    "conv1d": {"input": arr(2, 4, 9), "weight": arr(6, 4, 3)},
    "conv_transpose1d": {"input": arr(2, 4, 9), "weight": arr(4, 6, 3)},
    "tiled_conv2d": {"input": X, "weight": arr(2, 3, 6, 4, 3, 3)},
    "conv2d_backward": {"grad_output": Y, "input": X, "weight": W},
    "max_pool2d": {"input": X, "kernel_size": 2},
    "avg_pool2d": {"input": X, "kernel_size": 2},
    "plan_conv2d": {"input_shape": X.shape, "weight": W},
    "explain_conv2d": {"input_shape": X.shape, "weight_shape": W.shape},
    "conv3d": {"input": arr(2, 4, 5, 8, 9), "weight": arr(6, 4, 2, 3, 3)},
    "conv_transpose3d": {"input": arr(2, 4, 5, 8, 9), "weight": arr(4, 6, 2, 3, 3)},
    "conv1d_backward": {"grad_output": arr(2, 6, 7), "input": arr(2, 4, 9), "weight": arr(6, 4, 3)},
    "conv3d_backward": {
        "grad_output": arr(2, 6, 4, 6, 7), "input": arr(2, 4, 5, 8, 9), "weight": arr(6, 4, 2, 3, 3),
    },
    "max_pool1d": {"input": arr(2, 4, 9), "kernel_size": 2},
    "max_pool3d": {"input": arr(2, 4, 5, 8, 9), "kernel_size": 2},
    "avg_pool1d": {"input": arr(2, 4, 9), "kernel_size": 2},
    "avg_pool3d": {"input": arr(2, 4, 5, 8, 9), "kernel_size": 2},
    "plan_conv1d": {"input_shape": (2, 4, 9), "weight": arr(6, 4, 3)},
    "plan_conv3d": {"input_shape": (2, 4, 5, 8, 9), "weight": arr(6, 4, 2, 3, 3)},
    "plan_conv_transpose1d": {"input_shape": (2, 4, 9), "weight": arr(4, 6, 3)},
    "plan_conv_transpose2d": {"input_shape": X.shape, "weight": arr(4, 6, 3, 3)},
    "plan_conv_transpose3d": {"input_shape": (2, 4, 5, 8, 9), "weight": arr(4, 6, 2, 3, 3)},
    "explain_conv1d": {"input_shape": (2, 4, 9), "weight_shape": (6, 4, 3)},
    "explain_conv3d": {"input_shape": (2, 4, 5, 8, 9), "weight_shape": (6, 4, 2, 3, 3)},
    "grad.conv1d_input": {"input_size": (2, 4, 9), "weight": arr(6, 4, 3), "grad_output": arr(2, 6, 7)},
    "grad.conv3d_weight": {
        "input": arr(2, 4, 5, 8, 9), "weight_size": (6, 4, 2, 3, 3), "grad_output": arr(2, 6, 4, 6, 7),
    },
    "set_num_threads": {"n": 1},
    "grad.conv2d_input": {"input_size": X.shape, "weight": W, "grad_output": Y},
    "grad.conv2d_weight": {"input": X, "weight_size": W.shape, "grad_output": Y},
    "grad.conv_transpose2d_input": {"input_size": Y.shape, "weight": arr(6, 4, 3, 3), "grad_output": X},
    "grad.conv_transpose2d_weight": {"input": Y, "weight_size": (6, 4, 3, 3), "grad_output": X},
    "grad.tiled_conv2d_input": {"input_size": X.shape, "weight": arr(2, 3, 6, 4, 3, 3), "grad_output": Y},
    "grad.tiled_conv2d_weight": {"input": X, "weight_size": (2, 3, 6, 4, 3, 3), "grad_output": Y},
    "grad.max_pool2d_input": {"input": X, "kernel_size": 2, "grad_output": arr(2, 4, 4, 4)},
    "grad.avg_pool2d_input": {"input_size": X.shape, "kernel_size": 2, "grad_output": arr(2, 4, 4, 4)},
}
WITH_OUT = (
    "conv2d", "conv_transpose2d", "conv1d", "conv_transpose1d", "tiled_conv2d", "max_pool2d", "avg_pool2d", "conv3d",
    "conv_transpose3d", "max_pool1d", "max_pool3d", "avg_pool1d", "avg_pool3d",
)  # fmt: skip


def read_only(*shape: int) -> np.ndarray:
    array = arr(*shape)
    array.flags.writeable = False
    return array


def overlapping(*shape: int) -> np.ndarray:
    """A writeable view whose rows step by one element only."""
    strides = (4 * shape[3], 4 * shape[3], 4, 4)
    return np.lib.stride_tricks.as_strided(arr(4096), shape, strides)


# For every function that takes them: (argument, exception, wrong values).
STEPS = (
    (ConvError, (0, -1, (0, 1), (1, -2), (1, 1, 1), (), 2**70, [3, 0], np.int64(0))),
    (ConvTypeError, (1.0, True, None, "1", (1, 1.5), (1, None), {1, 2}, np.float32(1), b"2", ((1, 1), (1, 1)))),
)
PADDINGS = (
    (
        ConvError,
        (
            -1, (0, -1), (1, 1, 1, 1), (1, 2, 3), ((1, 1), (1, 1), (1, 1)), ((1, 1, 1), (1, 1, 1)), (), ((1, 1),),
            ((1, 1), 1), "valid ", "circular", "", 2**70, 2**58, ((0, 2**70), (0, 0)), ((-5, -4), (0, 0)),
        ),
    ),
    (ConvTypeError, (0.0, None, True, (1, 1.0), ((1, 1), (1, 0.5)), b"same", {"top": 1}, (None, None))),
)  # fmt: skip

ROWS: list[tuple[str, str, type[Exception], dict[str, Any]]] = []


def row(function: str, argument: str, error: type[Exception], **replaced: Any) -> None:
    ROWS.append((function, argument, error, replaced))


def rows(function: str, argument: str, table: Any) -> None:
    for error, values in table:
        for value in values:
            row(function, argument, error, **{argument: value})


# conv2d: options
rows("conv2d", "stride", STEPS)
rows("conv2d", "dilation", STEPS)
rows("conv2d", "padding", PADDINGS)
rows("conv2d", "groups", ((ConvError, (0, -1, 3, 2**70)), (ConvTypeError, (1.0, None, True, "2", (1,)))))
rows("conv2d", "padding_mode", ((ConvError, ("edge", "", "mirror")), (ConvTypeError, (None, 0, b"zeros"))))
rows("conv2d", "data_format", ((ConvError, ("NCWH", "", "NCL", "HWC")), (ConvTypeError, (None, 0, ("N", "C")))))
rows("conv2d", "activation", ((ConvError, ("mish", "", "none")), (ConvTypeError, (0, True, np.tanh))))
rows("conv2d", "algorithm", ((ConvError, ("fourier", "", "im2col")), (ConvTypeError, (None, 1))))
rows("conv2d", "padding_value", ((ConvError, (1, -2.5, float("nan"))), (ConvTypeError, (None, "1", True, [1.0]))))
rows("conv2d", "max_workspace", ((ConvError, (-1, 1)), (ConvTypeError, (1.0, "2", True))))
rows("conv_transpose2d", "output_size", ((ConvError, (0, -1, 2**40, (1, 2, 3))), (ConvTypeError, (1.5, "same"))))
rows("conv2d", "num_threads", ((ConvError, (0, -2, 2**40)), (ConvTypeError, (1.0, "2", True))))
# conv2d: arrays
NO_ARRAYS = (
    None, "image", b"bytes", [[1, 2], [3]], Unreadable(), object(), {"a": 1}, arr(2, 4, 8, 9).astype(bool),
    arr(2, 4, 8, 9).astype(complex), arr(2, 4, 8, 9).astype(object), arr(2, 4, 8, 9).astype("longdouble"),
    np.full((2, 4, 8, 9), "a"), np.zeros((2, 4, 8, 9), "M8[s]"),
    arr(2, 4, 8, 9, dtype="float64"), arr(2, 4, 8, 9, dtype="int32"),
)  # fmt: skip
SHAPES = (
    1.0, [1.0, 2.0], arr(8), arr(8, 9), arr(1, 2, 4, 8, 9), arr(2, 3, 8, 9), arr(3, 8, 9), arr(2, 8, 9, 4),
    arr(2, 4, 2, 9), arr(2, 4, 8, 2), arr(2, 4, 0, 9), arr(2, 0, 8, 9),
)  # fmt: skip
for value in NO_ARRAYS:
    row("conv2d", "input", ConvTypeError, input=value)
    row("conv2d", "weight", ConvTypeError, weight=value)
for value in SHAPES:
    as_given = np.asarray(value, "float32") if not isinstance(value, np.ndarray) else value
    row("conv2d", "input", ConvError, input=as_given)
KERNELS = ((6,), (4, 3, 3), (6, 4, 3), (6, 5, 3, 3), (6, 4, 0, 3), (6, 4, 3, 0), (6, 4, 9, 3), (6, 4, 3, 10), (1,) * 5)
for shape in KERNELS:
    row("conv2d", "weight", ConvError, weight=arr(*shape))
row("conv2d", "weight", ConvError, weight=arr(5, 2, 3, 3), groups=2)
row("conv2d", "weight", ConvError, weight=arr(6, 4, 3, 3), data_format="NHWC")
row("conv2d", "data_format", ConvError, input=arr(2, 8, 9, 4))
row("conv2d", "data_format", ConvError, input=X, weight=arr(3, 3, 4, 6), data_format="channels_last")
row("conv2d", "dilation", ConvError, dilation=4)
row("conv2d", "stride", ConvError, weight=arr(6, 4, 9, 9))
row("conv2d", "padding", ConvError, padding="full", dilation=2**60)
row("conv2d", "padding_mode", ConvError, input=arr(2, 4, 0, 9), padding=2, padding_mode="reflect")
FORCED = {"algorithm": "winograd", "out": np.full((2, 6, 6, 7), UNWRITTEN, "f4")}
row("conv2d", "algorithm", ConvError, **FORCED | {"stride": 3, "out": np.full((2, 6, 2, 3), UNWRITTEN, "f4")})
row("conv2d", "algorithm", ConvError, **FORCED, dilation=2, weight=arr(6, 4, 2, 2), padding=((0, 0), (0, 0)))
row("conv2d", "algorithm", ConvError, **FORCED | {
    "input": X.astype("f8"), "weight": W.astype("f8"), "out": np.full((2, 6, 6, 7), UNWRITTEN, "f8"),
})  # fmt: skip
for value in (arr(5), arr(), arr(1, 6), arr(6, 1, 1), arr(0), [1.0, 2.0]):
    row("conv2d", "bias", ConvError, bias=value)
for value in (arr(6, dtype="f8"), arr(6, dtype="i8"), arr(6, dtype="?"), arr(6, dtype="c8"), "bias", [1.0] * 6):
    row("conv2d", "bias", ConvTypeError, bias=value)
for shape in ((2, 6, 8, 9), (1, 6, 6, 7), (6, 6, 7), (6,), (2, 6, 7, 6)):
    row("conv2d", "residual", ConvError, residual=arr(*shape))
for value in (arr(2, 6, 6, 7, dtype="float64"), "x", arr(2, 6, 6, 7).astype(bool)):
    row("conv2d", "residual", ConvTypeError, residual=value)
for shape in ((2, 6, 8, 9), (6, 6, 7), (2, 6, 7, 6), (0,)):
    row("conv2d", "out", ConvError, out=np.full(shape, UNWRITTEN, "f4"))
row("conv2d", "out", ConvError, out=read_only(2, 6, 6, 7))
row("conv2d", "out", ConvError, out=np.broadcast_to(arr(1), (2, 6, 6, 7)))
row("conv2d", "out", ConvError, out=overlapping(2, 6, 6, 7))
for value in (arr(2, 6, 6, 7, dtype="float64"), arr(2, 6, 6, 7).astype(">f4"), [[1.0]], "out", memoryview(bytes(4))):
    row("conv2d", "out", ConvTypeError, out=value)
INTS = {"input": arr(2, 4, 8, 9, dtype="int8"), "weight": arr(6, 4, 3, 3, dtype="int8")}
for chosen in ("leaky_relu", "silu", "sigmoid", "hardswish", "tanh", "gelu"):
    row("conv2d", "activation", ConvTypeError, **INTS, activation=chosen)
row("conv2d", "bias", ConvTypeError, **INTS, bias=arr(6))
row("conv2d", "residual", ConvTypeError, **INTS, residual=arr(2, 6, 6, 7))
row("conv2d", "out", ConvTypeError, **INTS, out=arr(2, 6, 6, 7, dtype="int8"))
row("conv2d", "algorithm", ConvError, **INTS, **FORCED | {"out": np.full((2, 6, 6, 7), UNWRITTEN, "i4")})
BIG = {
    "input": np.full((1, 1, 4, 4), 2**62),
    "weight": np.full((1, 1, 2, 2), 4),
    "out": np.full((1, 1, 3, 3), UNWRITTEN),
}
row("conv2d", "int64", ConvError, **BIG)
row("conv2d", "input", ConvError, **(BIG | {"input": np.full((1, 1, 4, 4), 2**63, "uint64")}))
row("conv2d", "int32", ConvError, **(BIG | {
    "input": arr(1, 1, 4, 4, dtype="int8"), "weight": arr(1, 1, 2, 2, dtype="int8"), "bias": [2**31 - 1],
    "out": np.full((1, 1, 3, 3), UNWRITTEN, "int32"),
}))  # fmt: skip
row("tiled_conv2d", "int64", ConvError, input=np.array([[[[1, 2**62]]]]), weight=np.full((1, 2, 1, 1, 1, 1), 4),
    out=np.full((1, 1, 1, 2), UNWRITTEN))  # fmt: skip

# the other functions share the rules; a few of each, and what is their own
rows("conv_transpose2d", "output_padding", (
    (ConvError, (1, -1, (0, 1), (0, 0, 0), 2**70)), (ConvTypeError, (0.0, None, "0", True)),
))  # fmt: skip
rows("conv_transpose2d", "padding", PADDINGS[1:])
rows("conv_transpose2d", "stride", STEPS[:1])
rows("conv_transpose2d", "groups", ((ConvError, (0, 3)), (ConvTypeError, (2.0,))))
row("conv_transpose2d", "weight", ConvError, weight=W)
row("conv_transpose2d", "weight", ConvError, weight=arr(4, 6, 0, 3))
row("conv_transpose2d", "padding", ConvError, padding=5)
row("conv_transpose2d", "stride", ConvError, stride=2**59)
row("conv_transpose2d", "output", ConvError, stride=2**40)
row("conv_transpose2d", "bias", ConvError, bias=arr(4))
row("conv_transpose2d", "input", ConvTypeError, input=X.astype(bool))
row("conv_transpose2d", "out", ConvError, out=np.full((2, 6, 8, 9), UNWRITTEN, "f4"))
rows("conv1d", "stride", ((ConvError, (0, (1, 1), ())), (ConvTypeError, (1.0, None))))
rows("conv1d", "padding", ((ConvError, (-1, (1, 1), ((1, 1), (1, 1)), ((1, 1, 1),), "edge")), (ConvTypeError, (1.0,))))
rows("conv1d", "data_format", ((ConvError, ("NHCL",)), (ConvTypeError, (1,))))
row("conv1d", "input", ConvError, input=X)
row("conv1d", "input", ConvError, input=arr(2, 5, 9))
row("conv1d", "weight", ConvError, weight=W)
row("conv1d", "out", ConvError, out=np.full((2, 6, 1, 7), UNWRITTEN, "f4"))
row("conv_transpose1d", "output_padding", ConvError, output_padding=1)
row("conv_transpose1d", "weight", ConvError, weight=arr(6, 4, 3))
# of three axes, and of one: as many numbers as axes, and words of their own
STEPS_3D = (
    (ConvError, (0, -1, (1, 1), (1, 1, -2), (1, 1, 1, 1), (), 2**70)), (ConvTypeError, (1.0, True, None, (1, 1, 1.5))),
)  # fmt: skip
PADDINGS_3D = (
    (
        ConvError,
        (
            -1, (0, -1, 0), (1, 1), (1, 1, 1, 1), (1, 1, 1, 1, 1, 1), ((1, 1), (1, 1)), ((1, 1), (1, 1), 1), "causal",
            "valid ", (), 2**70, 2**58, ((0, 2**70), (0, 0), (0, 0)), ((0, 0), (0, 0), (-5, -5)),
        ),
    ),
    (ConvTypeError, (0.0, None, True, (1, 1, 1.0), ((1, 1), (1, 1), (1, 0.5)), b"same")),
)  # fmt: skip
for name in ("conv3d", "conv_transpose3d", "plan_conv3d", "plan_conv_transpose3d", "conv3d_backward"):
    rows(name, "stride", STEPS_3D)
    rows(name, "padding", PADDINGS_3D if name == "conv3d" else PADDINGS_3D[1:])
    rows(name, "data_format", ((ConvError, ("NCHW", "NHWC", "NCW", "")), (ConvTypeError, (None, 0))))
    row(name, "weight", ConvError, weight=W)
for name in ("conv1d", "conv_transpose1d", "plan_conv1d", "plan_conv_transpose1d", "conv1d_backward"):
    rows(name, "stride", ((ConvError, (0, (1, 1), ())), (ConvTypeError, (1.0, None))))
    rows(name, "data_format", ((ConvError, ("NCDHW", "NCWH")), (ConvTypeError, (None,))))
    row(name, "weight", ConvError, weight=W)
rows("conv3d", "dilation", STEPS_3D)
rows("conv3d", "groups", ((ConvError, (0, 3)), (ConvTypeError, (2.0,))))
rows("conv3d", "algorithm", ((ConvError, ("winograd:rows", "strassen")),))
row("conv3d", "input", ConvError, input=X)
row("conv3d", "input", ConvError, input=arr(2, 3, 5, 8, 9))
row("conv3d", "input", ConvTypeError, input=arr(2, 4, 5, 8, 9, dtype="float64"))
row("conv3d", "weight", ConvError, weight=arr(6, 4, 0, 3, 3))
row("conv3d", "weight", ConvError, weight=arr(6, 4, 6, 3, 3))
row("conv3d", "bias", ConvError, bias=arr(4))
row("conv3d", "residual", ConvError, residual=Y)
row("conv3d", "out", ConvError, out=np.full((2, 6, 4, 6, 8), UNWRITTEN, "f4"))
row("conv3d", "output", ConvError, padding=2**21)
rows("conv_transpose3d", "output_padding", ((ConvError, (1, -1, (0, 0, 1), (0, 0))), (ConvTypeError, (0.0, None))))
row("conv_transpose3d", "padding", ConvError, padding=5)
row("conv3d_backward", "grad_output", ConvError, grad_output=Y)
row("conv3d_backward", "grad_output", ConvError, stride=2)
row("conv1d_backward", "grad_output", ConvError, grad_output=arr(2, 6, 9))
row("grad.conv1d_input", "input_size", ConvError, input_size=X.shape)
row("grad.conv3d_weight", "weight_size", ConvError, weight_size=W.shape)
for name in ("max_pool1d", "avg_pool1d"):
    rows(name, "kernel_size", ((ConvError, (0, (1, 1), 10)), (ConvTypeError, (2.0, None))))
    rows(name, "padding", ((ConvError, (2, -1, "full", "causal", (1, 1))), (ConvTypeError, (0.5,))))
for name in ("max_pool3d", "avg_pool3d"):
    rows(name, "kernel_size", ((ConvError, (0, (1, 1), (1, 1, 10), 6)), (ConvTypeError, (2.0, None))))
    rows(name, "padding", ((ConvError, (2, -1, "full", ((0, 0), (0, 0), (-1, 0)))), (ConvTypeError, (0.5,))))
    row(name, "input", ConvError, input=arr(4, 8, 9))
    row(name, "out", ConvTypeError, out=np.full((2, 4, 2, 4, 4), UNWRITTEN, "f8"))
row("avg_pool3d", "input", ConvTypeError, input=arr(2, 4, 5, 8, 9, dtype="i4"))
for name, wrong in (("explain_conv1d", W.shape), ("explain_conv3d", W.shape)):
    row(name, "weight_shape", ConvError, weight_shape=wrong)
row("tiled_conv2d", "weight", ConvError, weight=W)
row("tiled_conv2d", "weight", ConvError, weight=arr(0, 2, 6, 4, 3, 3))
row("tiled_conv2d", "weight", ConvError, weight=arr(2, 3, 6, 5, 3, 3))
row("tiled_conv2d", "bias", ConvError, bias=arr(4))
row("tiled_conv2d", "padding", ConvError, padding=(1, 1, 1, 1))
row("conv2d_backward", "grad_output", ConvError, grad_output=arr(2, 6, 8, 9))
row("conv2d_backward", "grad_output", ConvError, grad_output=arr(6, 6, 7))
row("conv2d_backward", "grad_output", ConvError, stride=2)
row("conv2d_backward", "grad_output", ConvTypeError, grad_output=Y.astype("float64"))
row("conv2d_backward", "grad_output", ConvTypeError, grad_output=None)
row("conv2d_backward", "weight", ConvError, weight=arr(6, 3, 3, 3))
rows("conv2d_backward", "output_mask", (
    (ConvError, ((True,), (True, False, True, True), ())),
    (ConvTypeError, (None, True, "yes", (1, 0, 1), (True, None, True))),
))  # fmt: skip
row("grad.conv2d_input", "input_size", ConvTypeError, input_size=X.astype("i8"))
row("grad.conv2d_input", "input_size", ConvTypeError, input_size=None)
row("grad.conv2d_input", "input_size", ConvTypeError, input_size=(2, 4, 8.0, 9))
row("grad.conv2d_input", "input_size", ConvError, input_size=(2, 4, -8, 9))
row("grad.conv2d_input", "input_size", ConvError, input_size=(8, 9))
row("grad.conv2d_input", "grad_output", ConvError, input_size=(2, 4, 9, 9))
row("grad.conv2d_input", "input", ConvError, input_size=(2, 3, 8, 9))
row("grad.conv2d_weight", "weight_size", ConvError, weight_size=(6, 4, 3))
row("grad.conv2d_weight", "weight_size", ConvTypeError, weight_size=3)
row("grad.conv2d_weight", "weight", ConvError, weight_size=(6, 5, 3, 3))
row("grad.conv2d_weight", "grad_output", ConvTypeError, grad_output=Y.astype("i4"))
row("grad.conv_transpose2d_input", "grad_output", ConvError, output_padding=(0, 0), stride=2)
row("grad.conv_transpose2d_weight", "weight", ConvError, weight_size=(4, 6, 3, 3))
row("grad.tiled_conv2d_input", "weight", ConvError, weight=W)
row("grad.tiled_conv2d_weight", "weight_size", ConvError, weight_size=W.shape)
row("grad.tiled_conv2d_weight", "grad_output", ConvError, grad_output=X)
rows("max_pool2d", "kernel_size", STEPS)
rows("max_pool2d", "padding", ((ConvError, (2, -1, "full", ((-1, 0), (0, 0)))), (ConvTypeError, (0.5, None))))
rows("max_pool2d", "stride", ((ConvError, (0, (1, 2, 3))), (ConvTypeError, (1.0, "2"))))
rows("max_pool2d", "dilation", ((ConvError, (0, -1)), (ConvTypeError, (None,))))
rows("max_pool2d", "ceil_mode", ((ConvTypeError, (1, None, "yes")),))
rows("max_pool2d", "return_indices", ((ConvTypeError, (0, None)),))
row("max_pool2d", "kernel_size", ConvError, kernel_size=10)
row("max_pool2d", "kernel_size", ConvError, kernel_size=2, dilation=8)
row("max_pool2d", "input", ConvError, input=arr(8, 9))
row("max_pool2d", "input", ConvTypeError, input=X.astype(bool))
row("max_pool2d", "dilation", ConvError,
    input=arr(1, 1, 1, 4), kernel_size=(2, 1), stride=1, dilation=(4, 1), padding=(2, 0))  # fmt: skip
row("max_pool2d", "out", ConvTypeError, out=np.full((2, 4, 4, 4), UNWRITTEN, "f8"))
rows("avg_pool2d", "divisor_override", ((ConvError, (0, 2**60)), (ConvTypeError, (1.5, True, "2"))))
rows("avg_pool2d", "count_include_pad", ((ConvTypeError, (1, None)),))
row("avg_pool2d", "input", ConvTypeError, input=X.astype("i4"))
row("avg_pool2d", "kernel_size", ConvError, kernel_size=(2, 2, 2))
row("grad.max_pool2d_input", "grad_output", ConvError, grad_output=arr(2, 4, 8, 9))
row("grad.max_pool2d_input", "grad_output", ConvTypeError, grad_output=arr(2, 4, 4, 4, dtype="f8"))
row("grad.avg_pool2d_input", "grad_output", ConvError, grad_output=arr(4, 4, 4))
row("grad.avg_pool2d_input", "grad_output", ConvTypeError, grad_output=arr(2, 4, 4, 4, dtype="i8"))
rows("plan_conv2d", "input_shape", (
    (ConvError, ((8, 9), (2, 4, -8, 9), (), (2**70, 4, 8, 9))), (ConvTypeError, (None, 4, "NCHW", X, (2, 4, 8.0, 9))),
))  # fmt: skip
row("plan_conv2d", "input", ConvError, input_shape=(2, 5, 8, 9))
row("plan_conv2d", "weight", ConvTypeError, weight=None)
row("plan_conv2d", "bias", ConvError, bias=arr(4))
row("plan_conv2d", "activation", ConvError, activation="softmax")
row("plan_conv2d", "num_threads", ConvError, num_threads=0)
row("explain_conv2d", "weight_shape", ConvError, weight_shape=(6, 4, 3))
row("explain_conv2d", "weight_shape", ConvTypeError, weight_shape=3)
rows("explain_conv2d", "dtype", ((ConvTypeError, ("bool", "complex64", "no such type", object, "float128")),))
row("explain_conv2d", "output", ConvError, input_shape=(2**31, 4, 2**31, 9))
rows("set_num_threads", "n", ((ConvError, (0, -1)), (ConvTypeError, (None, 1.5, True))))


def label(case: tuple[str, str, type[Exception], dict[str, Any]]) -> str:
    function, _, _, replaced = case
    shown = [
        f"{key}={value.dtype}{value.shape}" if isinstance(value, np.ndarray) else f"{key}={value!r}"[:80]
        for key, value in replaced.items()
    ]
    return f"{function}({', '.join(shown)})"


def call(function: str, arguments: dict[str, Any]) -> Any:
    target: Any = fastconv
    for part in function.split("."):
        target = getattr(target, part)
    return target(**arguments)


def prepared(function: str, replaced: dict[str, Any]) -> dict[str, Any]:
    """Good arguments but for those replaced, with an `out` that fits a good call."""
    arguments = GOOD[function] | replaced
    if function in WITH_OUT and "out" not in arguments:
        arguments["out"] = np.full_like(call(function, GOOD[function]), UNWRITTEN)
    return arguments
