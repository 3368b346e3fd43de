"""What the number of axes decides: layouts, words, messages, plans. Values: `test_reference`, and generated ones."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import ConvError, ConvTypeError, grad, reference
from fastconv._core import remember
from fastconv._core.geometry import conv_geometry, tiled_geometries
from fastconv._core.layouts import layout, lies_channels_last
from fastconv._core.transposed import conv_transpose_geometry, keras_transposed_padding
from fastconv._core.windows import pool_geometry
from fastconv._core.words import AXES, parse_padding, per_axis

FIRST, LAST = {1: "NCW", 2: "NCHW", 3: "NCDHW"}, {1: "NWC", 2: "NHWC", 3: "NDHWC"}
axes_123 = pytest.mark.parametrize("axes", [1, 2, 3])
axes_13 = pytest.mark.parametrize("axes", [1, 3])


def whole(*shape: int, dtype: str = "float32") -> np.ndarray:
    """Small whole numbers, so that every order of summation gives the same bits."""
    return np.random.default_rng(list(shape)).integers(-4, 5, shape).astype(dtype)


def of(name: str, axes: int) -> Any:
    name = name.format(axes)
    return getattr(fastconv, name, None) or getattr(grad, name)


def problem(axes: int, dtype: str = "float32") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    size, kernel = (9, 8, 7)[:axes], (3, 2, 3)[:axes]
    return whole(2, 4, *size, dtype=dtype), whole(6, 2, *kernel, dtype=dtype), whole(6, dtype=dtype)


def last(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(array, 1, -1))


def last_weight(weight: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(weight, (0, 1), (-1, -2)))


# ---- words -------------------------------------------------------------------------------------------------------


@axes_123
def test_an_option_is_one_number_or_one_an_axis(axes):
    each = tuple(range(1, axes + 1))
    assert per_axis("stride", 2, 1, axes) == per_axis("stride", (2,), 1, axes) == (2,) * axes
    assert per_axis("stride", each, 1, axes) == per_axis("stride", np.array(each), 1, axes) == each
    for wrong in ((1,) * (axes + 1), (1,) * (axes - 1) if axes > 2 else ()):
        with pytest.raises(ConvError, match=rf"with {len(wrong)} values"):
            per_axis("stride", wrong, 1, axes)


def test_messages_name_the_axes_that_there_are():
    with pytest.raises(ConvError, match=r"stride of a 1-D operation must be one integer, but got stride=\(1, 2\)"):
        per_axis("stride", (1, 2), 1, 1)
    with pytest.raises(ConvError, match=r"stride must be one integer or three \(depth, height, width\)"):
        per_axis("stride", (1, 2), 1, 3)
    with pytest.raises(ConvError, match=r"\(front, top, left, back, bottom, right\) to ONNX"):
        parse_padding((1, 2, 3, 4, 5, 6), 3)
    with pytest.raises(ConvError, match=r"\(\(front, back\), \(top, bottom\), \(left, right\)\)"):
        parse_padding((1, 2), 3)
    with pytest.raises(ConvError, match=r"such as \(\(-1, -1\), \(0, 0\), \(0, 0\)\)"):
        parse_padding((1, -1, 1), 3)


@axes_123
def test_every_form_of_padding(axes):
    each = tuple((k, k) for k in range(axes))
    nested = tuple((k, k + 1) for k in range(axes))
    assert parse_padding(2, axes) == parse_padding((2,), axes) == ((2, 2),) * axes
    assert parse_padding(tuple(range(axes)), axes) == parse_padding(np.arange(axes), axes) == each
    assert parse_padding(nested, axes) == parse_padding([list(sides) for sides in nested], axes) == nested
    assert parse_padding(np.array(nested) - 1, axes) == tuple((k - 1, k) for k in range(axes))
    assert parse_padding("SAME", axes) == "same"


NO_PADDING = {
    1: ((1, 2), ((1, 2), (3, 4)), [[1, 2, 3]]),
    2: ((1, 2, 3), ((1, 2),), (1, (2, 3)), "causal"),
    3: ((1, 2), (1, 2, 3, 4), ((1, 2), (3, 4)), (1, 2, (3, 4)), "causal", ()),
}


@pytest.mark.parametrize(("axes", "padding"), [(axes, form) for axes, forms in NO_PADDING.items() for form in forms])
def test_forms_of_padding_that_are_none(axes, padding):
    with pytest.raises(ConvError, match="padding"):
        parse_padding(padding, axes)


def test_causal_padding_looks_at_no_later_sample():
    x, w = whole(2, 3, 20), whole(5, 3, 4)
    for stride, dilation in ((1, 1), (2, 1), (1, 3), (3, 2)):
        y = fastconv.conv1d(x, w, None, stride, "causal", dilation)
        assert y.shape == (2, 5, -(-20 // stride))
        padded = np.pad(x, ((0, 0), (0, 0), (3 * dilation, 0)))
        np.testing.assert_array_equal(y, fastconv.conv1d(padded, w, None, stride, 0, dilation))
        for cut in (1, 7, 20):  # the outputs of a part are those of the whole
            part = fastconv.conv1d(x[..., :cut], w, None, stride, "Causal", dilation)
            np.testing.assert_array_equal(part, y[..., : part.shape[2]])
    with pytest.raises(ConvError, match="causal"):
        fastconv.max_pool1d(x, 2, padding="causal")


# ---- shapes ------------------------------------------------------------------------------------------------------


@axes_123
def test_the_axes_have_one_rule(axes):
    """Along every axis the numbers are those of the same axis alone."""
    size, kernel, stride, dilation = (9, 6, 11)[:axes], (3, 2, 4)[:axes], (2, 1, 3)[:axes], (1, 3, 2)[:axes]
    pads = ((1, 2), (0, 3), (4, 0))[:axes]
    for padding in (pads, "same", "same_lower", "full", "valid"):
        g = conv_geometry((1, 2, *size), (4, 2, *kernel), stride, padding, dilation, 1)
        t = conv_transpose_geometry((1, 4, *size), (4, 2, *kernel), stride, padding, 0, 1, dilation)
        for a in range(axes):
            own = padding if isinstance(padding, str) else padding[a : a + 1]
            alone = conv_geometry((1, 2, size[a]), (4, 2, kernel[a]), stride[a], own, dilation[a], 1)
            assert (g.output_size[a], g.padding[a]) == (alone.output_size[0], alone.padding[0])
            alone = conv_transpose_geometry((1, 4, size[a]), (4, 2, kernel[a]), stride[a], own, 0, 1, dilation[a])
            assert (t.input_size[a], t.padding[a]) == (alone.input_size[0], alone.padding[0])
    for ceil in (False, True):
        p = pool_geometry((1, 2, *size), kernel, stride, "same", dilation, ceil)
        for a in range(axes):
            alone = pool_geometry((1, 2, size[a]), kernel[a], stride[a], "same", dilation[a], ceil)
            assert (p.output_size[a], p.padding[a]) == (alone.output_size[0], alone.padding[0])
    found = keras_transposed_padding("same", kernel, stride, (1,) * axes, None)
    for a in range(axes):
        alone = keras_transposed_padding("same", kernel[a : a + 1], stride[a : a + 1], (1,), None)
        assert (found[0][a], found[1][a]) == (alone[0][0], alone[1][0])


@axes_123
def test_tiles_make_every_output_once(axes):
    g = conv_geometry((1, 1, *(9, 8, 7)[:axes]), (1, 1, *(2, 3, 2)[:axes]), 2, 1, 1, 1)
    seen = np.zeros(g.output_size, int)
    tiles = (2, 3, 1)[:axes]
    for place, part in tiled_geometries(g, tiles):
        view = seen[tuple(slice(p, None, t) for p, t in zip(place, tiles, strict=True))]
        assert view.shape == part.output_size
        view += 1
    assert (seen == 1).all()


def conv(size: Any, kernel: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, mode: str = "zeros") -> Any:
    return conv_geometry((1, 1, *size), (1, 1, *kernel), stride, padding, dilation, 1, mode)


def transposed(size: Any, kernel: Any, stride: Any = 1, padding: Any = 0, extra: Any = 0) -> Any:
    return conv_transpose_geometry((1, 1, *size), (1, 1, *kernel), stride, padding, extra, 1, 1)


def pool(size: Any, kernel: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> Any:
    return pool_geometry((1, 1, *size), kernel, stride, padding, dilation)


# What is asked for, of n axes and with the axis a at fault, and what the message says beside the name of that axis.
REFUSALS = [
    (lambda n, a: conv(at(n, a, 2, 9), (3,) * n), "larger than the padded input"),
    (lambda n, a: conv((3,) * n, (1,) * n, 1, at(n, a, (-2, -2), (0, 0))), "crops 4"),
    (lambda n, a: conv(at(n, a, 0, 4), (2,) * n, 1, 1, 1, "reflect"), "nothing to repeat"),
    (lambda n, a: conv((4,) * n, (2,) * n, 1, at(n, a, (2**60, 0), (0, 0))), "2[*][*]60"),
    (lambda n, a: conv((4,) * n, (2,) * n, 1, at(n, a, (2**59, 2**59), (0, 0)), at(n, a, 2**60, 1)), "2[*][*]60"),
    (lambda n, a: transposed((4,) * n, (3,) * n, 1, 0, at(n, a, 1, 0)), "output_padding"),
    (lambda n, a: transposed((1,) * n, (3,) * n, 1, at(n, a, 2, 0)), "leaves no output"),
    (lambda n, a: transposed((4,) * n, (3,) * n, at(n, a, 2**59, 1)), "2[*][*]60"),
    (lambda n, a: pool(at(n, a, 2, 9), 3), "kernel_size"),
    (lambda n, a: pool((9,) * n, 3, 1, at(n, a, 2, 0)), "half of the window"),
    (lambda n, a: pool(at(n, a, 1, 9), 2, 1, at(n, a, 2, 0), at(n, a, 4, 1)), "steps over"),
    (lambda n, a: keras_transposed_padding("same", (3,) * n, (2,) * n, (1,) * n, at(n, a, 2, 0)), "output_padding"),
]


def at(axes: int, axis: int, here: Any, elsewhere: Any) -> tuple[Any, ...]:
    return tuple(here if a == axis else elsewhere for a in range(axes))


@axes_123
@pytest.mark.parametrize(("asked", "said"), REFUSALS)
def test_a_refusal_names_the_axis(asked, said, axes):
    for axis in range(axes):
        with pytest.raises(ConvError, match=said) as refused:
            asked(axes, axis)
        assert set(re.findall("depth|height|width", str(refused.value))) == {AXES[axes][axis]}


@axes_13
def test_a_misplaced_channel_axis_is_recognised(axes):
    size = (9, 8, 7)[:axes]
    with pytest.raises(ConvError, match=f"data_format='{LAST[axes]}' if channels come last"):
        of("conv{}d", axes)(whole(2, *size, 5), whole(4, 5, *(3,) * axes))
    with pytest.raises(ConvError, match=f"data_format='{FIRST[axes]}' if channels come before"):
        of("conv{}d", axes)(whole(2, 5, *size), whole(*(3,) * axes, 5, 4), data_format=LAST[axes])


@axes_123
def test_arrays_of_another_number_of_axes_are_refused(axes):
    x, w, _ = problem(axes)
    spatial = {1: "W", 2: "H, W", 3: "D, H, W"}[axes]
    for wrong in (x[0, 0], x[None]):
        with pytest.raises(ConvError, match=re.escape(f"(N, C, {spatial})")):
            of("conv{}d", axes)(wrong, w, groups=2)
        with pytest.raises(ConvError, match=re.escape(f"(N, C, {spatial})")):
            of("max_pool{}d", axes)(wrong, 2)
    with pytest.raises(ConvError, match=re.escape("(O, I/groups, k")):
        of("conv{}d", axes)(x, w[0], groups=2)
    with pytest.raises(ConvError, match="input_size"):
        of("conv{}d_input", axes)(x.shape[2:], w, x, groups=2)
    with pytest.raises(ConvError, match="weight_size"):
        of("conv{}d_weight", axes)(x, w.shape[1:], x, groups=2)
    with pytest.raises(ConvError, match="input_shape"):
        of("plan_conv{}d", axes)(x.shape[2:], w, groups=2)


@axes_13
def test_kernels_of_nothing_and_sizes_that_overflow(axes):
    x, _, _ = problem(axes)
    with pytest.raises(ConvError, match=f"at least {' x '.join('1' * axes)},"):
        of("conv{}d", axes)(x, whole(6, 4, *(0,) * axes))
    for name, arguments in (("conv{}d", {"padding": 2**60}), ("conv_transpose{}d", {"stride": 2**60})):
        with pytest.raises(ConvError, match=r"2\*\*6"):
            of(name, axes)(x, whole(4, 4, *(2,) * axes), **arguments)
    with pytest.raises(ConvError, match=r"2\*\*63 bytes"):
        of("conv{}d", axes)(x, whole(4, 4, *(1,) * axes), padding=2**58 if axes == 1 else 2**21)
    with pytest.raises(ConvTypeError, match="stride"):
        of("conv{}d", axes)(x, whole(4, 4, *(2,) * axes), stride=True)


# ---- layouts -----------------------------------------------------------------------------------------------------


@axes_123
def test_every_layout_is_a_permutation_of_the_first(axes):
    x, w, b = problem(axes)
    options = {"stride": (2, 1, 2)[:axes], "padding": 1, "groups": 2}
    y = of("conv{}d", axes)(x, w, b, **options)
    dy = whole(*y.shape)
    dx, dw, db = of("conv{}d_backward", axes)(dy, x, w, **options)
    for name in (LAST[axes], LAST[axes].lower(), "channels_last", "Channels_Last", *(("NLC",) if axes == 1 else ())):
        got = of("conv{}d", axes)(last(x), last_weight(w), b, **options, data_format=name)
        assert got.flags.c_contiguous
        np.testing.assert_array_equal(np.moveaxis(got, -1, 1), y)
        gradients = of("conv{}d_backward", axes)(last(dy), last(x), last_weight(w), **options, data_format=name)
        for ours, theirs in zip(gradients, (last(dx), last_weight(dw), db), strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert ours.flags.c_contiguous
    for name in (FIRST[axes], "CHANNELS_FIRST", *(("ncl",) if axes == 1 else ())):
        np.testing.assert_array_equal(of("conv{}d", axes)(x, w, b, **options, data_format=name), y)
    with pytest.raises(ConvError, match=f"'{FIRST[axes]}'.*'{LAST[axes]}'"):
        layout("NCDHW" if axes != 3 else "NCHW", axes)
    with pytest.raises(ConvTypeError, match=f"'{FIRST[axes]}' or '{LAST[axes]}'"):
        layout(None, axes)


@axes_123
def test_a_view_of_channels_last_memory_gives_another(axes):
    x, w, _ = problem(axes)
    view = np.moveaxis(last(x), -1, 1)
    assert lies_channels_last(view) and not lies_channels_last(x)
    assert lies_channels_last(view[1:]) and lies_channels_last(view[..., 1:-1]) and not lies_channels_last(view[:, :1])
    y = of("conv{}d", axes)(view, w, groups=2)
    assert np.moveaxis(y, 1, -1).flags.c_contiguous
    np.testing.assert_array_equal(y, of("conv{}d", axes)(x, w, groups=2))
    for name in ("max_pool{}d", "avg_pool{}d"):
        pooled = of(name, axes)(view, 2)
        assert np.moveaxis(pooled, 1, -1).flags.c_contiguous
        np.testing.assert_array_equal(pooled, of(name, axes)(x, 2))


@axes_13
def test_the_batch_axis_may_be_left_out(axes):
    x, w, b = problem(axes)
    y = of("conv{}d", axes)(x, w, b, groups=2)
    np.testing.assert_array_equal(of("conv{}d", axes)(x[0], w, b, groups=2), y[0])
    np.testing.assert_array_equal(
        of("conv{}d", axes)(last(x)[0], last_weight(w), b, groups=2, data_format="channels_last"), last(y)[0]
    )
    dx, _, _ = of("conv{}d_backward", axes)(y[0], x[0], w, groups=2)
    np.testing.assert_array_equal(dx, of("conv{}d_input", axes)(x.shape, w, y, groups=2)[0])
    np.testing.assert_array_equal(of("conv_transpose{}d", axes)(y[0], w, groups=2).shape, x[0].shape)
    values, places = of("max_pool{}d", axes)(x[0], 2, return_indices=True)
    assert values.shape == places.shape and values.ndim == axes + 1
    np.testing.assert_array_equal(x[0].reshape(4, -1)[np.arange(4).reshape(-1, *(1,) * axes), places], values)


@axes_13
@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "int64"])
def test_strides_of_every_kind_and_every_type(axes, dtype):
    x, w, b = problem(axes, dtype)
    y = of("conv{}d", axes)(x, w, b, groups=2, padding=1)
    assert y.dtype == {"int8": "int32"}.get(dtype, dtype)
    np.testing.assert_array_equal(y, of("conv{}d", axes)(*map(np.asfortranarray, (x, w)), b, groups=2, padding=1))
    turned = x[..., ::-1].copy()[..., ::-1]
    np.testing.assert_array_equal(y, of("conv{}d", axes)(turned, w, b, groups=2, padding=1))
    swapped = x.astype(x.dtype.newbyteorder("S"))
    np.testing.assert_array_equal(y, of("conv{}d", axes)(swapped, w, b, groups=2, padding=1))
    np.testing.assert_array_equal(y, reference_of("conv{}d", axes)(x, w, b, groups=2, padding=1))


def reference_of(name: str, axes: int) -> Any:
    return getattr(reference, name.format(axes))


@axes_13
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_out_keeps_its_buffer_and_may_overlap_the_input(axes, data_format):
    x, w, b = problem(axes)
    w = whole(4, 4, *w.shape[2:])
    if data_format == "channels_last":
        x, w = last(x), last_weight(w)
    options = {"padding": "same", "data_format": data_format}
    y = of("conv{}d", axes)(x, w, b[:4], activation="relu", residual=x, **options)
    out = np.full_like(y, np.nan)
    assert of("conv{}d", axes)(x, w, b[:4], activation="relu", residual=x, out=out, **options) is out
    np.testing.assert_array_equal(out, y)
    own = x.copy()
    assert of("conv{}d", axes)(own, w, b[:4], activation="relu", residual=own, out=own, **options) is own
    np.testing.assert_array_equal(own, y)
    with pytest.raises(ConvError, match="out must have the shape"):
        of("conv{}d", axes)(x, w, out=out[1:], **options)
    with pytest.raises(ConvError, match="residual must have the shape"):
        of("conv{}d", axes)(x, w, residual=x[1:], **options)
    pooled = of("max_pool{}d", axes)(x, 3, 1, 1, data_format=data_format)
    assert of("max_pool{}d", axes)(x, 3, 1, 1, out=x, data_format=data_format) is x
    np.testing.assert_array_equal(x, pooled)


# ---- calls made before -------------------------------------------------------------------------------------------


@axes_123
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_a_call_made_before_gives_the_same(axes, data_format):
    """With other arrays, which what is remembered must not know, and with options that equal others."""
    x, w, b = problem(axes)
    if data_format == "channels_last":
        x, w = last(x), last_weight(w)
    options: dict[str, Any] = {"stride": 2, "padding": 1, "groups": 2, "data_format": data_format}
    for _ in range(3):
        for x_, w_ in ((x, w), (x + 1, w), (x, w - 1), (x[::-1], w), (x.astype("float64"), w.astype("float64"))):
            b_ = b.astype(x_.dtype)
            y = of("conv{}d", axes)(x_, w_, b_, activation="relu", **options)
            np.testing.assert_array_equal(y, reference_of("conv{}d", axes)(x_, w_, b_, activation="relu", **options))
            dy = whole(*y.shape).astype(x_.dtype)
            expected = reference_of("conv{}d_backward", axes)(dy, x_, w_, **options)
            got = of("conv{}d_backward", axes)(dy, x_, w_, **options)
            separate = (
                of("conv{}d_input", axes)(x_.shape, w_, dy, **options),
                of("conv{}d_weight", axes)(x_, w_.shape, dy, **options),
            )
            for ours, alone, theirs in zip(got, (*separate, got[2]), expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)
                np.testing.assert_array_equal(alone, theirs)
    with pytest.raises(ConvTypeError, match="stride"):
        of("conv{}d", axes)(x, w, b, **{**options, "stride": 2.0})


def test_what_is_remembered_has_a_bound():
    x, w = whole(1, 2, 700), whole(3, 2, 2)
    for length in range(2, 2 * remember.MOST):
        fastconv.conv1d(np.ascontiguousarray(x[..., :length]) if length < 700 else whole(1, 2, length), w)
    assert len(remember._known) <= remember.MOST


def test_true_is_no_stride_although_it_equals_one():
    x, w = whole(1, 2, 9), whole(3, 2, 2)
    fastconv.conv1d(x, w, stride=1)
    fastconv.max_pool1d(x, 2, 1)
    for call in (lambda: fastconv.conv1d(x, w, stride=True), lambda: fastconv.max_pool1d(x, 2, True)):
        with pytest.raises(ConvTypeError, match="stride"):
            call()
    with pytest.raises(ConvTypeError, match="ceil_mode"):
        fastconv.max_pool1d(x, 2, 1, 0, 1, 0)  # type: ignore[arg-type]


# ---- plans and explanations --------------------------------------------------------------------------------------


@axes_123
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int8"])
def test_plans_do_what_calls_do(axes, transposed, data_format, dtype):
    x, w, b = problem(axes, dtype)
    if transposed:
        x = whole(2, 6, *x.shape[2:], dtype=dtype)
    name = "conv_transpose{}d" if transposed else "conv{}d"
    if data_format == "channels_last":
        x, w = last(x), last_weight(w)
    options = {"stride": (2, 1, 2)[:axes], "padding": 1, "groups": 2, "data_format": data_format}
    b = b[:4] if transposed else b
    plan = of(f"plan_{name}", axes)((1, *x.shape[1:]), w, b, **options)
    assert isinstance(plan, fastconv.ConvPlan)
    y = of(name, axes)(x, w, b, **options)
    for one in (plan, copy.deepcopy(plan), pickle.loads(pickle.dumps(plan))):
        np.testing.assert_array_equal(one.run(x), y)
    w[...] = 0  # the plan has its own
    out = np.empty_like(y)
    assert plan.run(x, out) is out
    np.testing.assert_array_equal(out, y)
    np.testing.assert_array_equal(plan.run(x[:0]), y[:0])
    assert plan.explain().algorithm in str(plan.explain()) and plan.workspace_bytes >= 0
    with pytest.raises(ConvError, match=rf"planned shape.*fastconv.plan_{name.format(axes)}"):
        plan.run(x[:, 1:])
    with pytest.raises(ConvTypeError, match="planned dtype"):
        plan.run(x.astype("float16"))


@axes_123
@pytest.mark.parametrize("kernel, stride, dilation", [(2, 3, 1), (3, 2, 2), (1, 2, 1)])
def test_a_residual_reaches_outputs_that_meet_no_tap(axes, kernel, stride, dilation):
    x, w, b = whole(2, 4, *(5, 4, 3)[:axes]), whole(4, 3, *(kernel,) * axes), whole(3)
    wanted = getattr(reference, f"conv_transpose{axes}d")(x, w, b, stride=stride, dilation=dilation)
    plan = of("plan_conv_transpose{}d", axes)(x.shape, w, b, stride=stride, dilation=dilation)
    residual = whole(*wanted.shape)
    np.testing.assert_array_equal(plan.run(x, residual=residual), wanted + residual)
    out = residual.copy()
    np.testing.assert_array_equal(plan.run(x, out, residual=out), wanted + residual)


@axes_13
def test_explanations_count_multiply_adds(axes):
    x, w, _ = problem(axes)
    told = of("explain_conv{}d", axes)(x.shape, w.shape, padding="same", groups=2)
    assert told.macs == 2 * 6 * 2 * int(np.prod(x.shape[2:])) * int(np.prod(w.shape[2:]))
    assert told.algorithm in str(told)
    with pytest.raises(ConvError, match=f"explain_conv{axes}d"):
        of("explain_conv{}d", axes)(x.shape, w.shape)
    with pytest.raises(ConvError, match="does not apply"):
        of("conv{}d", axes)(x, w, groups=2, algorithm="winograd")


@axes_123
def test_the_text_of_every_function_is_its_own(axes):
    """Docstrings that are made from those of two axes speak of no other number of axes."""
    for name in (
        "conv{}d_backward", "max_pool{}d", "avg_pool{}d", "plan_conv{}d", "plan_conv_transpose{}d", "explain_conv{}d",
        "conv{}d_input", "conv{}d_weight", "conv_transpose{}d_input", "max_pool{}d_input", "avg_pool{}d_input",
    ):  # fmt: skip
        text = inspect.getdoc(of(name, axes)) or ""
        assert "Parameters\n----------" in text and "Returns\n-------" in text and "Raises\n------" in text
        named = set(re.findall(r"`[a-z_.]*?([123])d", text.replace("`conv2d`", "")))
        assert named <= {str(axes)}, name
        if axes != 2:
            assert "NHWC" not in text and "(int, int)`" not in text and "H, W)" not in text.replace("D, H, W)", "")


# ---- another library ---------------------------------------------------------------------------------------------


@axes_13
def test_the_values_are_those_of_pytorch(axes):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    x, w, b = problem(axes, "float64")
    tx, tw, tb = (torch.from_numpy(a).requires_grad_() for a in (x, w, b))
    options = {"stride": (2, 1, 2)[:axes], "padding": (1, 0, 2)[:axes], "dilation": (1, 2, 1)[:axes], "groups": 2}
    y = getattr(functional, f"conv{axes}d")(tx, tw, tb, **options)
    np.testing.assert_array_equal(of("conv{}d", axes)(x, w, b, **options), y.detach())
    dy = whole(*y.shape).astype("float64")
    y.backward(torch.from_numpy(dy))
    for ours, theirs in zip(of("conv{}d_backward", axes)(dy, x, w, **options), (tx, tw, tb), strict=True):
        np.testing.assert_array_equal(ours, theirs.grad)
    tx, tw = (torch.from_numpy(a).requires_grad_() for a in (dy, w))
    options["output_padding"] = (1, 0, 1)[:axes]
    z = getattr(functional, f"conv_transpose{axes}d")(tx, tw, None, **options)
    np.testing.assert_array_equal(of("conv_transpose{}d", axes)(dy, w, **options), z.detach())
    dz = whole(*z.shape).astype("float64")
    z.backward(torch.from_numpy(dz))
    np.testing.assert_array_equal(of("conv_transpose{}d_input", axes)(dy.shape, w, dz, **options), tx.grad)
    np.testing.assert_array_equal(of("conv_transpose{}d_weight", axes)(dy, w.shape, dz, **options), tw.grad)
    for ceil in (False, True):
        tx = torch.from_numpy(x).requires_grad_()
        values, places = getattr(functional, f"max_pool{axes}d")(tx, 3, 2, 1, 1, ceil, True)
        got = of("max_pool{}d", axes)(x, 3, 2, 1, 1, ceil, True)
        np.testing.assert_array_equal(got[0], values.detach())
        np.testing.assert_array_equal(got[1], places)
        tx = torch.from_numpy(x).requires_grad_()
        mean = getattr(functional, f"avg_pool{axes}d")(tx, 3, 2, 1, ceil, False)
        np.testing.assert_allclose(of("avg_pool{}d", axes)(x, 3, 2, 1, ceil, False), mean.detach(), rtol=1e-14)
        mean.backward(torch.ones_like(mean))
        ones = np.ones(mean.shape)
        got = of("avg_pool{}d_input", axes)(x.shape, 3, ones, 2, 1, ceil, False)
        np.testing.assert_allclose(got, tx.grad, rtol=1e-14)
