"""What a caller sees: signatures, layouts, forms of arrays, `out=`, words in any case, plans. Values: other tests."""

import inspect
import math
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import grad, reference
from fastconv._core.arrays import bias_for

AXES = (1, 2, 3)
DATA_FORMATS = {1: "NCW", 2: "NCHW", 3: "NCDHW"}
OPERATIONS = ("conv{}d", "conv_transpose{}d", "conv{}d_backward", "max_pool{}d", "avg_pool{}d")
DERIVED = (
    "conv{}d_input", "conv{}d_weight", "conv_transpose{}d_input", "conv_transpose{}d_weight", "max_pool{}d_input",
    "avg_pool{}d_input",
)  # fmt: skip
FUNCTIONS = (*(name.format(n) for name in OPERATIONS for n in AXES), "tiled_conv2d")
GRADIENTS = (
    *(name.format(n) for name in DERIVED for n in AXES), "tiled_conv2d_input", "tiled_conv2d_weight",
)  # fmt: skip
# What may follow in the same place in PyTorch: torch.nn.functional and torch.nn.grad, and aten's convolution_backward.
POSITIONAL = {
    "conv{}d": "input weight bias=None stride=1 padding=0 dilation=1 groups=1",
    "conv_transpose{}d": "input weight bias=None stride=1 padding=0 output_padding=0 groups=1 dilation=1",
    "conv{}d_backward": "grad_output input weight stride=1 padding=0 dilation=1 groups=1",
    "tiled_conv2d": "input weight bias=None stride=1 padding=0",
    "max_pool{}d": "input kernel_size stride=None padding=0 dilation=1 ceil_mode=False return_indices=False",
    "avg_pool{}d":
        "input kernel_size stride=None padding=0 ceil_mode=False count_include_pad=True divisor_override=None",
    "plan_conv{}d": "input_shape weight bias=None stride=1 padding=0 dilation=1 groups=1",
    "plan_conv_transpose{}d":
        "input_shape weight bias=None stride=1 padding=0 output_padding=0 groups=1 dilation=1",
    "explain_conv{}d": "input_shape weight_shape stride=1 padding=0 dilation=1 groups=1",
    "grad.conv{}d_input": "input_size weight grad_output stride=1 padding=0 dilation=1 groups=1",
    "grad.conv{}d_weight": "input weight_size grad_output stride=1 padding=0 dilation=1 groups=1",
    "grad.conv_transpose{}d_input":
        "input_size weight grad_output stride=1 padding=0 output_padding=0 groups=1 dilation=1",
    "grad.conv_transpose{}d_weight":
        "input weight_size grad_output stride=1 padding=0 output_padding=0 groups=1 dilation=1",
}  # fmt: skip
# The same in every number of axes, but for the name of the layout.
KEYWORDS = {
    "conv{}d": "padding_mode='zeros' padding_value=0 data_format={!r} activation=None residual=None algorithm='auto' "
    "num_threads=None max_workspace=None out=None",
    "conv_transpose{}d": "output_size=None data_format={!r} algorithm='auto' num_threads=None max_workspace=None "
    "out=None",
    "conv{}d_backward": "output_mask=(True, True, True) padding_mode='zeros' padding_value=0 data_format={!r} "
    "algorithm='auto' num_threads=None",
    "grad.conv{}d_input": "padding_mode='zeros' padding_value=0 data_format={!r} algorithm='auto' num_threads=None "
    "out=None accumulate=False",
    "grad.conv_transpose{}d_weight": "output_size=None data_format={!r} algorithm='auto' num_threads=None out=None "
    "accumulate=False",
}


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def reals(*shape: int, dtype: str = "float32") -> np.ndarray:
    """Small whole numbers, so that every order of summation gives the same bits."""
    return rng().integers(-4, 5, shape).astype(dtype)


X, W, B = reals(2, 6, 9, 10), reals(8, 6, 3, 3), reals(8)
Y = fastconv.conv2d(X, W, B)


def lookup(name: str) -> Any:
    target: Any = fastconv
    for part in name.split("."):
        target = getattr(target, part)
    return target


def spelled(function: Any, kind: Any) -> str:
    parameters = [p for p in inspect.signature(function).parameters.values() if p.kind is kind]
    return " ".join(p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters)


# ---- signatures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("name", sorted(POSITIONAL))
def test_the_positional_order_is_that_of_pytorch(name, axes):
    assert spelled(lookup(name.format(axes)), inspect.Parameter.POSITIONAL_OR_KEYWORD) == POSITIONAL[name]


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("name", sorted(KEYWORDS))
def test_the_keywords_are_those_of_the_contract(name, axes):
    wanted = KEYWORDS[name].format(DATA_FORMATS[axes])
    assert spelled(lookup(name.format(axes)), inspect.Parameter.KEYWORD_ONLY) == wanted


@pytest.mark.parametrize("name", FUNCTIONS + GRADIENTS)
def test_the_reference_takes_the_same_arguments(name):
    ours = inspect.signature(getattr(grad if name in GRADIENTS else fastconv, name)).parameters
    theirs = inspect.signature(getattr(reference, name)).parameters
    swallows = any(p.kind is p.VAR_KEYWORD for p in theirs.values())
    named = [n for n, p in theirs.items() if p.kind is not p.VAR_KEYWORD]
    assert [n for n in ours if n in named] == named
    assert swallows or named == list(ours)
    for n in named:
        assert (ours[n].kind, ours[n].default) == (theirs[n].kind, theirs[n].default)


def test_every_public_name_exists_and_is_documented():
    for name in fastconv.__all__:
        thing = getattr(fastconv, name)
        assert name in dir(fastconv)
        if callable(thing) or isinstance(thing, ModuleType):
            assert inspect.getdoc(thing)
    with pytest.raises(AttributeError, match="conv4d"):
        fastconv.conv4d  # noqa: B018


def test_the_reference_is_imported_only_when_asked_for():
    script = "import sys, fastconv; assert 'fastconv.reference' not in sys.modules; fastconv.reference.conv2d"
    environment = os.environ | {"PYTHONPATH": str(Path(fastconv.__file__).parents[1])}  # this fastconv, not another
    subprocess.run([sys.executable, "-P", "-c", script], check=True, env=environment)


def test_info_tells_what_runs():
    told = fastconv.info()
    assert set(told) == {"version", "isa", "isas_built", "isas_available", "threads", "openmp"}
    assert told["version"] == fastconv.__version__
    assert told["isa"] in told["isas_available"]
    assert set(told["isas_available"]) <= set(told["isas_built"])
    assert told["threads"] == fastconv.get_num_threads()


# ---- layouts -----------------------------------------------------------------------------------------------------

LAST = (0, 2, 3, 1)
FIRST = (0, 3, 1, 2)
KERNEL_LAST = (2, 3, 1, 0)


def last(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(LAST))


@pytest.mark.parametrize("data_format", ["NHWC", "nhwc", "channels_last", "Channels_Last", "CHANNELS_LAST"])
def test_channels_last_is_the_same_convolution(data_format):
    w = np.ascontiguousarray(W.transpose(KERNEL_LAST))
    y = fastconv.conv2d(last(X), w, B, data_format=data_format)
    np.testing.assert_array_equal(y, last(Y))
    assert y.flags.c_contiguous


@pytest.mark.parametrize("data_format", ["NCHW", "nchw", "channels_first", "Channels_First"])
def test_channels_first_is_the_same_convolution(data_format):
    np.testing.assert_array_equal(fastconv.conv2d(X, W, B, data_format=data_format), Y)


def test_every_operation_in_both_layouts():
    w, dy, tiles = W.transpose(KERNEL_LAST), reals(*Y.shape), reals(2, 3, 8, 6, 3, 3)
    xl, dyl, tl = last(X), last(dy), tiles.transpose(0, 1, 4, 5, 3, 2)
    f, g = fastconv, grad
    transposed = reals(8, 6, 3, 3)
    pairs = [
        (f.conv_transpose2d(dy, transposed, None, 2, 1, 1),
         f.conv_transpose2d(dyl, transposed.transpose(KERNEL_LAST), None, 2, 1, 1, data_format="NHWC")),
        (f.tiled_conv2d(X, tiles), f.tiled_conv2d(xl, tl, data_format="NHWC")),
        (f.max_pool2d(X, 2), f.max_pool2d(xl, 2, data_format="NHWC")),
        (f.max_pool2d(X, 2, return_indices=True)[1], f.max_pool2d(xl, 2, return_indices=True, data_format="NHWC")[1]),
        (f.avg_pool2d(X, 2), f.avg_pool2d(xl, 2, data_format="NHWC")),
        (f.conv2d_backward(dy, X, W)[0], f.conv2d_backward(dyl, xl, w, data_format="NHWC")[0]),
        (g.conv2d_input(X.shape, W, dy), g.conv2d_input(xl.shape, w, dyl, data_format="NHWC")),
        (g.conv_transpose2d_input(dy.shape, transposed, reals(2, 6, 9, 10)),
         g.conv_transpose2d_input(dyl.shape, transposed.transpose(KERNEL_LAST), last(reals(2, 6, 9, 10)),
                                  data_format="NHWC")),
        (g.tiled_conv2d_input(X.shape, tiles, dy), g.tiled_conv2d_input(xl.shape, tl, dyl, data_format="NHWC")),
        (g.max_pool2d_input(X, 2, reals(2, 6, 4, 5)),
         g.max_pool2d_input(xl, 2, last(reals(2, 6, 4, 5)), data_format="NHWC")),
        (g.avg_pool2d_input(X.shape, 2, reals(2, 6, 4, 5)),
         g.avg_pool2d_input(xl.shape, 2, last(reals(2, 6, 4, 5)), data_format="NHWC")),
    ]  # fmt: skip
    for first_result, last_result in pairs:
        assert first_result.flags.c_contiguous
        assert last_result.flags.c_contiguous
        np.testing.assert_array_equal(last_result, first_result.transpose(LAST))
    kernels = [
        (f.conv2d_backward(dy, X, W)[1], f.conv2d_backward(dyl, xl, w, data_format="NHWC")[1]),
        (g.conv2d_weight(X, W.shape, dy), g.conv2d_weight(xl, w.shape, dyl, data_format="NHWC")),
        (g.conv_transpose2d_weight(dy, W.shape, X), g.conv_transpose2d_weight(dyl, w.shape, xl, data_format="NHWC")),
    ]
    for first_result, last_result in kernels:
        assert first_result.shape == W.shape
        assert last_result.shape == w.shape
        assert last_result.flags.c_contiguous
        np.testing.assert_array_equal(last_result, first_result.transpose(KERNEL_LAST))
    np.testing.assert_array_equal(
        g.tiled_conv2d_weight(xl, tl.shape, dyl, data_format="NHWC"),
        g.tiled_conv2d_weight(X, tiles.shape, dy).transpose(0, 1, 4, 5, 3, 2),
    )


def lies_last(y: np.ndarray) -> bool:
    return y.transpose(LAST).flags.c_contiguous and not y.flags.c_contiguous


def test_a_view_of_channels_last_memory_gives_another():
    x = last(X).transpose(FIRST)
    crop = np.pad(last(X), ((0, 0), (1, 2), (3, 1), (0, 0)))[:, 1:-2, 3:-1].transpose(FIRST)
    for view in (x, crop):
        y = fastconv.conv2d(view, W, B)
        np.testing.assert_array_equal(y, Y)
        assert lies_last(y)
        assert lies_last(fastconv.conv2d_backward(reals(*Y.shape), view, W)[0])
        assert lies_last(fastconv.max_pool2d(view, 2))
        assert lies_last(fastconv.avg_pool2d(view, 2))
        assert lies_last(fastconv.conv_transpose2d(view, reals(6, 8, 3, 3)))
        assert lies_last(fastconv.tiled_conv2d(view, reals(2, 1, 8, 6, 3, 3)))
        values, indices = fastconv.max_pool2d(view, 2, return_indices=True)
        assert lies_last(values)
        assert lies_last(indices)
        assert fastconv.conv2d(view[0], W, B).transpose(1, 2, 0).flags.c_contiguous


@pytest.mark.parametrize(
    "x",
    [
        X[:, ::-1],
        X.transpose(0, 1, 3, 2),
        np.asfortranarray(X),
        np.broadcast_to(X[:1, :1, :1, :1], X.shape),
        last(X[:, :1]).transpose(FIRST),  # fits both orders
        last(X[:, :, :1, :1]).transpose(FIRST),
    ],
    ids=["negative", "transposed", "fortran", "broadcast", "one channel", "one pixel"],
)
def test_any_other_memory_gives_channels_first(x):
    assert fastconv.conv2d(x, reals(8, x.shape[1], 1, 1)).flags.c_contiguous


@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
def test_the_batch_axis_may_be_left_out(data_format):
    swap = data_format == "NHWC"
    x, w = (last(X), W.transpose(KERNEL_LAST)) if swap else (X, W)
    o = {"data_format": data_format}
    y = fastconv.conv2d(x, w, B, residual=reals(*Y.shape).transpose(LAST) if swap else reals(*Y.shape), **o)
    r = reals(*Y.shape)[0]
    single = fastconv.conv2d(x[0], w, B, residual=r.transpose(1, 2, 0) if swap else r, **o)
    np.testing.assert_array_equal(single, y[0])
    out = np.empty_like(single)
    assert fastconv.conv2d(x[0], w, B, residual=r.transpose(1, 2, 0) if swap else r, out=out, **o) is out
    np.testing.assert_array_equal(out, single)

    for batched, alone in zip(
        fastconv.conv2d_backward(y[:1], x[:1], w, **o), fastconv.conv2d_backward(y[0], x[0], w, **o), strict=True
    ):
        np.testing.assert_array_equal(batched.reshape(alone.shape), alone)
    np.testing.assert_array_equal(fastconv.max_pool2d(x[0], 2, **o), fastconv.max_pool2d(x, 2, **o)[0])
    np.testing.assert_array_equal(fastconv.avg_pool2d(x[0], 2, **o), fastconv.avg_pool2d(x, 2, **o)[0])
    dx = grad.conv2d_input(x.shape[1:], w, y[0], **o)
    np.testing.assert_array_equal(dx, grad.conv2d_input(x.shape, w, y, **o)[0])
    dx = grad.avg_pool2d_input(x.shape[1:], 2, fastconv.avg_pool2d(x[0], 2, **o), **o)
    assert dx.shape == x.shape[1:]


def test_one_dimension_is_two_with_a_height_of_one():
    x, w, b = reals(3, 4, 11), reals(6, 2, 3), reals(6)
    options = {"stride": 2, "dilation": 2, "groups": 2, "activation": "relu", "padding_mode": "reflect"}
    y = fastconv.conv1d(x, w, b, padding=3, **options)
    expected = fastconv.conv2d(
        x[:, :, None], w[:, :, None], b, padding=(0, 3), **(options | {"stride": (1, 2), "dilation": (1, 2)})
    )
    np.testing.assert_array_equal(y, expected[:, :, 0])
    for data_format in ("NLC", "nhwc", "channels_last"):
        got = fastconv.conv1d(
            x.transpose(0, 2, 1), w.transpose(2, 1, 0), b, padding=((3, 3),), data_format=data_format, **options
        )
        np.testing.assert_array_equal(got, y.transpose(0, 2, 1))
        assert got.flags.c_contiguous
    np.testing.assert_array_equal(fastconv.conv1d(x[0], w, b, padding=3, **options), y[0])
    for word, length in (("same", 6), ("valid", 4), ("full", 8), ("same_lower", 6)):
        assert fastconv.conv1d(x, w, b, 2, word, 2, 2).shape == (3, 6, length)

    t = fastconv.conv_transpose1d(y, w, None, 2, 1, 1, 2, 2)
    expected = fastconv.conv_transpose2d(y[:, :, None], w[:, :, None], None, (1, 2), (0, 1), (0, 1), 2, (1, 2))
    np.testing.assert_array_equal(t, expected[:, :, 0])
    out = np.empty_like(t)
    assert fastconv.conv_transpose1d(y, w, None, 2, 1, 1, 2, 2, out=out) is out
    np.testing.assert_array_equal(out, t)


# ---- forms of arrays ---------------------------------------------------------------------------------------------


class Converts:
    """An array of another library, as NumPy sees it."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        return self.array


def unaligned(x: np.ndarray) -> np.ndarray:
    raw = np.empty(x.nbytes + 1, np.uint8)[1:]
    view = raw.view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


def read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


FORMS = {
    "fortran": np.asfortranarray,
    "negative strides": lambda x: np.ascontiguousarray(np.flip(x))[(slice(None, None, -1),) * x.ndim],
    "gaps": lambda x: np.repeat(x, 3, axis=-1)[..., ::3],
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "unaligned": unaligned,
    "read-only": read_only,
    "masked": np.ma.masked_array,
    "converted": Converts,
    "list": lambda x: x.tolist(),
}


@pytest.mark.parametrize("dtype", ["float64", "int64"])
@pytest.mark.parametrize("form", FORMS)
def test_any_form_of_array_is_right(form, dtype):
    x, w, b = X.astype(dtype), W.astype(dtype), B.astype(dtype)
    change = FORMS[form]
    dy = Y.astype(dtype)
    np.testing.assert_array_equal(fastconv.conv2d(change(x), change(w), change(b)), Y)
    np.testing.assert_array_equal(fastconv.conv2d(x, w, b, residual=change(dy)), 2 * Y)
    expected = fastconv.conv2d_backward(dy, x, w)
    for got, want in zip(fastconv.conv2d_backward(change(dy), change(x), change(w)), expected, strict=True):
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(
        fastconv.conv_transpose2d(change(dy), change(w)), grad.conv2d_input(x.shape, change(w), change(dy))
    )
    np.testing.assert_array_equal(fastconv.max_pool2d(change(x), 2), fastconv.max_pool2d(x, 2))


@pytest.mark.parametrize(
    ("dtypes", "result"),
    [
        (("float16", "float16"), "float16"),
        (("float32", "float32"), "float32"),
        (("float64", "float64"), "float64"),
        (("int8", "int8"), "int32"),
        (("uint8", "int8"), "int32"),
        (("uint16", "int16"), "int32"),
        (("int8", "int32"), "int64"),
        (("uint32", "uint8"), "int64"),
        (("int64", "uint64"), "int64"),
    ],
)
def test_result_dtypes(dtypes, result):
    x, w = np.ones((1, 2, 4, 4), dtypes[0]), np.ones((3, 2, 3, 3), dtypes[1])
    y = fastconv.conv2d(x, w)
    assert y.dtype == result
    assert (y == 18).all()
    assert fastconv.conv_transpose2d(x, w.transpose(1, 0, 2, 3)).dtype == result
    assert fastconv.tiled_conv2d(x, w[None, None]).dtype == result
    for gradient in fastconv.conv2d_backward(y.astype(dtypes[0]), x, w)[:1]:
        assert gradient.dtype == result
    assert fastconv.max_pool2d(x, 2).dtype == dtypes[0]


def test_integers_are_exact_where_small_types_would_wrap():
    y = fastconv.conv2d(np.full((1, 72, 1, 1), 100, "int8"), np.full((1, 72, 1, 1), 2, "int8"))
    assert y.item() == 100 * 2 * 72
    y = fastconv.conv2d(np.full((1, 1, 1, 1), 2**31), np.full((1, 1, 1, 1), 2**31), [2**62 - 1])
    assert y.item() == 2**63 - 1


def test_masked_gradients_are_none():
    mask = [True, False, np.True_]
    got = fastconv.conv2d_backward(Y, X, W, output_mask=mask)
    expected = fastconv.conv2d_backward(Y, X, W)
    assert got[1] is None
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[2], expected[2])
    assert fastconv.conv2d_backward(Y, X, W, output_mask=(False, False, False)) == (None, None, None)


def test_words_are_taken_in_any_case():
    expected = fastconv.conv2d(X, W, B, padding="same", padding_mode="reflect", activation="relu", algorithm="direct")
    got = fastconv.conv2d(X, W, B, padding="SaMe", padding_mode="REFLECT", activation="ReLU", algorithm="Direct")
    np.testing.assert_array_equal(got, expected)


def test_pairs_lists_and_numpy_integers_are_the_same_option():
    expected = fastconv.conv2d(X, W, B, 2, 1, 2, 2 // 2)
    for two, one in (((2, 2), (1, 1)), ([2, 2], [[1, 1], [1, 1]]), (np.int32(2), np.uint8(1)), ((2,), (1,))):
        np.testing.assert_array_equal(fastconv.conv2d(X, W, B, two, one, two, np.int64(1)), expected)


class _IndexesByItsOwnRules(np.ndarray):
    def __getitem__(self, key: Any) -> Any:
        raise AssertionError("fastconv must not index a subclass")


def test_out_may_be_a_subclass_with_and_without_a_batch():
    for x, y in ((X, Y), (X[0], Y[0])):
        out = np.zeros_like(y).view(_IndexesByItsOwnRules)
        assert fastconv.conv2d(x, W, B, out=out) is out
        np.testing.assert_array_equal(out.view(np.ndarray), y)


def test_the_number_of_threads_is_process_wide_unless_one_call_says_otherwise():
    before = fastconv.get_num_threads()
    try:
        fastconv.set_num_threads(1)
        assert fastconv.get_num_threads() == 1
        np.testing.assert_array_equal(fastconv.conv2d(X, W, B, num_threads=2), Y)
        assert fastconv.get_num_threads() == 1
    finally:
        fastconv.set_num_threads(before)


# ---- out= --------------------------------------------------------------------------------------------------------


def test_out_is_filled_and_returned():
    for make in (np.empty, lambda s, d: np.empty(s[::-1], d).T, lambda s, d: np.empty((*s[:3], 2 * s[3]), d)[..., ::2]):
        out = make(Y.shape, "float32")
        assert fastconv.conv2d(X, W, B, out=out) is out
        np.testing.assert_array_equal(out, Y)
    out = np.empty((2, 6, 4, 5), "float32")
    assert fastconv.max_pool2d(X, 2, out=out) is out
    np.testing.assert_array_equal(out, fastconv.max_pool2d(X, 2))
    values, _ = fastconv.max_pool2d(X, 2, return_indices=True, out=out)
    assert values is out
    assert fastconv.avg_pool2d(X, 2, out=out) is out
    np.testing.assert_array_equal(out, fastconv.avg_pool2d(X, 2))
    out = np.empty((2, 6, 8, 9), "float32")
    tiles = reals(2, 2, 6, 6, 2, 2)
    assert fastconv.tiled_conv2d(X, tiles, out=out) is out
    np.testing.assert_array_equal(out, fastconv.tiled_conv2d(X, tiles))


def test_nothing_around_out_is_touched():
    frame = np.full((4, 10, 11, 12), 9, "float32")
    fastconv.conv2d(X, W, B, out=frame[1:3, 1:9, 2:9, 2:10])
    np.testing.assert_array_equal(frame[1:3, 1:9, 2:9, 2:10], Y)
    frame[1:3, 1:9, 2:9, 2:10] = 9
    assert (frame == 9).all()


def overlaps(x: np.ndarray, w: np.ndarray) -> dict[str, Any]:
    """Calls whose result overlaps an input: the buffer, the good result, and the call."""
    dtype = x.dtype
    shifted = np.zeros(x.size + 7, dtype)
    shifted[:-7] = x.ravel()
    source, target = shifted[:-7].reshape(x.shape), shifted[7:].reshape(x.shape)
    same = x.copy()
    weight = np.zeros((3, 6, 6, 3, 3), dtype)
    weight[1] = w
    residual = x.copy()
    pooled = x.copy()
    return {
        "input": (same, lambda: fastconv.conv2d(same, w, padding=1, out=same)),
        "input reversed": (same[..., ::-1], lambda: fastconv.conv2d(same, w, padding=1, out=same[..., ::-1])),
        "input shifted": (target, lambda: fastconv.conv2d(source, w, padding=1, out=target)),
        "weight": (
            weight.reshape(-1)[: 2 * 6 * 4 * 4].reshape(2, 6, 4, 4),
            lambda: fastconv.conv2d(
                x[:, :, :4, :4], weight[1], padding=1, out=weight.reshape(-1)[: 2 * 6 * 4 * 4].reshape(2, 6, 4, 4)
            ),
        ),
        "residual": (residual, lambda: fastconv.conv2d(x, w, padding=1, residual=residual, out=residual)),
        "transposed": (same, lambda: fastconv.conv_transpose2d(same, w, padding=1, out=same)),
        "tiled": (same, lambda: fastconv.tiled_conv2d(same, w[None, None], padding=1, out=same)),
        "max pool": (pooled, lambda: fastconv.max_pool2d(pooled, 3, 1, 1, out=pooled)),
        "average pool": (pooled, lambda: fastconv.avg_pool2d(pooled, 3, 1, 1, out=pooled)),
    }


EXPECTED = {
    "input": lambda x, w: fastconv.conv2d(x, w, padding=1),
    "input reversed": lambda x, w: fastconv.conv2d(x, w, padding=1),
    "input shifted": lambda x, w: fastconv.conv2d(x, w, padding=1),
    "weight": lambda x, w: fastconv.conv2d(x[:, :, :4, :4], w, padding=1),
    "residual": lambda x, w: fastconv.conv2d(x, w, padding=1) + x,
    "transposed": lambda x, w: fastconv.conv_transpose2d(x, w, padding=1),
    "tiled": lambda x, w: fastconv.tiled_conv2d(x, w[None, None], padding=1),
    "max pool": lambda x, _: fastconv.max_pool2d(x, 3, 1, 1),
    "average pool": lambda x, _: fastconv.avg_pool2d(x, 3, 1, 1),
}


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64"])
@pytest.mark.parametrize("kind", EXPECTED)
def test_out_may_overlap_an_input(kind, dtype):
    if kind == "average pool" and dtype == "int64":
        pytest.skip("a mean of integers is refused")
    x, w = X.astype(dtype), reals(6, 6, 3, 3, dtype=dtype)
    expected = EXPECTED[kind](x.copy(), w.copy())
    out, run = overlaps(x, w)[kind]
    result = run()
    assert np.may_share_memory(result, out)
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(out, expected)


def test_inputs_stay_as_they_were():
    x, w, b, dy = X.copy(), W.copy(), B.copy(), Y.copy()
    fastconv.conv2d(x, w, b, 2, 1, residual=reals(2, 8, 5, 5))
    fastconv.conv2d_backward(dy, x, w)
    grad.max_pool2d_input(x, 2, reals(2, 6, 4, 5))
    for array, before in ((x, X), (w, W), (b, B), (dy, Y)):
        np.testing.assert_array_equal(array, before)


def test_empty_axes_give_the_mathematically_right_shape():
    assert fastconv.conv2d(X[:0], W, B).shape == (0, 8, 7, 8)
    y = fastconv.conv2d(X[:, :0], W[:, :0], B)
    np.testing.assert_array_equal(y, np.broadcast_to(B[:, None, None], (2, 8, 7, 8)))
    assert fastconv.conv2d(X, W[:0], B[:0]).shape == (2, 0, 7, 8)
    dx, dw, db = fastconv.conv2d_backward(Y[:0], X[:0], W)
    assert dx.shape == (0, 6, 9, 10)
    assert not dw.any()
    assert not db.any()
    assert fastconv.max_pool2d(X[:0], 2).shape == (0, 6, 4, 5)
    assert fastconv.conv_transpose2d(X[:0], reals(6, 8, 3, 3)).shape == (0, 8, 11, 12)
    assert fastconv.tiled_conv2d(X[:0], reals(2, 2, 8, 6, 3, 3)).shape == (0, 8, 7, 8)
    assert grad.tiled_conv2d_input((0, 6, 9, 10), reals(2, 2, 8, 6, 3, 3), Y[:0]).shape == (0, 6, 9, 10)


# ---- plans -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8", "int64"])
def test_a_plan_computes_what_the_function_does(dtype):
    x, w, b = X.astype(dtype), W.astype(dtype), B.astype(dtype)
    options: dict[str, Any] = {"stride": (1, 2), "padding": "same", "activation": "relu", "padding_mode": "symmetric"}
    plan = fastconv.plan_conv2d(x.shape, w, b, **options)
    expected = fastconv.conv2d(x, w, b, **options)
    np.testing.assert_array_equal(plan.run(x), expected)
    for batch in (x[:1], x[:0], np.concatenate([x, x])):
        np.testing.assert_array_equal(plan.run(batch), fastconv.conv2d(batch, w, b, **options))
    out = np.empty_like(expected)
    assert plan.run(x, out) is out
    np.testing.assert_array_equal(out, expected)


def test_a_plan_keeps_its_weights():
    w, b = W.copy(), B.copy()
    plan = fastconv.plan_conv2d(X.shape, w, b)
    w[...] = 0
    b[...] = 0
    np.testing.assert_array_equal(plan.run(X), Y)


def test_a_plan_in_channels_last_order_and_without_a_batch():
    plan = fastconv.plan_conv2d((9, 10, 6), W.transpose(KERNEL_LAST), B, data_format="channels_last")
    np.testing.assert_array_equal(plan.run(last(X)[0]), last(Y)[0])
    with pytest.raises(fastconv.ConvError, match="input"):
        plan.run(last(X))


def test_a_plan_may_write_over_its_input():
    w = reals(6, 6, 3, 3)
    x = X.copy()
    plan = fastconv.plan_conv2d(x.shape, w, padding=1)
    assert plan.run(x, out=x) is x
    np.testing.assert_array_equal(x, fastconv.conv2d(X, w, padding=1))


def test_plans_explain_themselves():
    told = fastconv.plan_conv2d(X.shape, W, B).explain()
    assert told.macs == 2 * 8 * 7 * 8 * 6 * 9
    assert str(told)
    same = fastconv.explain_conv2d(X.shape, W.shape)
    assert (same.macs, same.isa, same.dtype, same.algorithm) == (told.macs, told.isa, told.dtype, told.algorithm)
    assert fastconv.plan_conv2d(X.shape, W).workspace_bytes == told.workspace_bytes
    assert fastconv.explain_conv2d(last(X).shape, (3, 3, 6, 8), data_format="NHWC").macs == told.macs
    assert fastconv.explain_conv2d(X.shape, W.shape, dtype=np.float64, algorithm="direct").dtype == "float64"


def test_the_version_is_that_of_the_package():
    assert fastconv.__version__.count(".") == 2
    project = Path(__file__).parents[2] / "pyproject.toml"
    text = project.read_text()
    assert f'version = "{fastconv.__version__}"' in text or 'dynamic = ["version"]' in text


LARGE_LAYERS = [
    (3, 64, 224, 3), (64, 64, 224, 3), (512, 512, 28, 3), (512, 512, 14, 3), (2048, 512, 7, 1), (8192, 8192, 7, 1),
    (4096, 64, 14, 3),
    (64, 64, 56, 7), (512, 512, 30, 11), (8, 8, 200, 65),
]  # fmt: skip


@pytest.mark.parametrize("threads", [1, 2, 8, 16])
@pytest.mark.parametrize("channels, outputs, size, kernel", LARGE_LAYERS, ids=str)
@pytest.mark.parametrize("algorithm", ["direct", "winograd", "winograd_2x2", "strassen", "strassen_twice"])
def test_scratch_is_bounded(channels, outputs, size, kernel, threads, algorithm):
    """Beside inputs, outputs and packed weights at most 32 MiB or a tenth of them."""
    if algorithm != "direct" and kernel != (1 if "strassen" in algorithm else 3):
        algorithm = "auto"
    shapes: list[tuple[int, ...]] = [(8, channels, size, size), (outputs, channels, kernel, kernel)]
    options: dict[str, Any] = {"padding": "same", "algorithm": algorithm, "num_threads": threads}
    arrays = 4 * (math.prod(shapes[0]) * (1 + outputs / channels) + math.prod(shapes[1]))
    told = fastconv.explain_conv2d(*shapes, **options)
    assert told.workspace_bytes <= max(32 << 20, 0.1 * (arrays + told.packed_weight_bytes)), told
    plan = fastconv.plan_conv2d(shapes[0], np.zeros(shapes[1], np.float32), **options).explain()
    assert plan.workspace_bytes <= max(32 << 20, 0.1 * (arrays + plan.packed_weight_bytes)), plan


@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
@pytest.mark.parametrize("options", [{"padding": 1}, {"padding": 2, "dilation": 2}, {"groups": 32}], ids=str)
def test_plans_and_explanations_of_an_empty_batch(options, data_format):
    """Also where Winograd or the depthwise kernels are chosen: the loop sizes know no empty batch."""
    last = data_format == "NHWC"
    shape = (28, 28, 64) if last else (64, 28, 28)
    inner = 64 // options.get("groups", 1)
    weight = np.ones((3, 3, inner, 64) if last else (64, inner, 3, 3), np.float32)
    for planned in (0, 2):
        plan = fastconv.plan_conv2d((planned, *shape), weight, data_format=data_format, **options)
        full = plan.run(np.ones((2, *shape), np.float32))
        empty = plan.run(np.ones((0, *shape), np.float32))
        assert empty.shape == (0, *full.shape[1:])
    assert fastconv.explain_conv2d((0, *shape), weight.shape, data_format=data_format, **options).macs == 0
    assert fastconv.conv2d(np.ones((0, *shape), np.float32), weight, data_format=data_format, **options).shape[0] == 0


def test_out_of_a_subclass_that_indexes_by_its_own_rules():
    class Own(np.ndarray):
        def __getitem__(self, key):
            raise AssertionError("indexed")

    x, w = np.ones((2, 5, 5), np.float32), np.ones((3, 2, 3, 3), np.float32)
    out = np.zeros((3, 3, 3), np.float32).view(Own)
    assert fastconv.conv2d(x, w, out=out) is out
    np.testing.assert_array_equal(np.asarray(out), 18)


def test_the_bias_that_kernels_read_is_aligned():
    raw = np.zeros(16 * 4 + 1, np.uint8)
    odd = raw[1:].view("float32")
    assert not odd.flags.aligned
    moved = bias_for(odd, 0)
    assert moved is not None and moved.flags.aligned


def test_a_repeated_call_takes_byte_swapped_arrays() -> None:
    """What is remembered of a call takes arrays as they are; these must be converted first every time."""
    x, w, dy = (np.ones(shape, np.float32) for shape in ((1, 80, 5, 5), (80, 5, 1, 1), (1, 80, 2, 2)))
    options = {"stride": 4, "padding": "same", "groups": 16}
    for _ in range(3):
        for swapped in (w, w.astype(">f4")):
            np.testing.assert_array_equal(
                fastconv.grad.conv2d_input(x.shape, swapped, dy, **options),
                fastconv.reference.conv2d_input(x.shape, w, dy, **options),
            )
            fastconv.grad.conv2d_weight(x, w.shape, dy.astype(">f4"), **options)
            fastconv.conv2d(x, swapped, **options)
            fastconv.conv2d_backward(dy, x, swapped, **options)
