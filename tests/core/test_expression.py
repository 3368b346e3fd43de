"""What one call can express: constant padding, sizes of transposed outputs, gradients into arrays, a cap on scratch."""

from __future__ import annotations

import copy
import pickle
import re
from itertools import product
from math import prod
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import ConvError, ConvTypeError, grad, reference
from fastconv._core.select import WORDS
from fastconv.testing import comparisons
from fastconv.testing.problems import constant_cases

axes_123 = pytest.mark.parametrize("axes", [1, 2, 3])
LAST = {1: "NWC", 2: "NHWC", 3: "NDHWC"}


def whole(*shape: int, dtype: str = "float32") -> np.ndarray:
    """Small whole numbers, so that every order of summation gives the same bits."""
    return np.random.default_rng(list(shape)).integers(-4, 5, shape).astype(dtype)


def of(name: str, axes: int) -> Any:
    name = name.format(axes)
    return getattr(fastconv, name, None) or getattr(grad, name)


def arrays(axes: int, dtype: str = "float32") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    size, kernel = (9, 8, 7)[:axes], (3, 2, 3)[:axes]
    return whole(2, 4, *size, dtype=dtype), whole(6, 2, *kernel, dtype=dtype), whole(6, dtype=dtype)


def last(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(array, 1, -1))


def last_weight(weight: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(weight, (0, 1), (-1, -2)))


# ---- padding with a constant ---------------------------------------------------------------------------------------


def padded(x: np.ndarray, pads: Any, value: float) -> np.ndarray:
    """By NumPy: cropped, then padded."""
    inside = tuple(slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(x.shape[2:], pads, strict=True))
    grown = [(0, 0), (0, 0), *((max(a, 0), max(b, 0)) for a, b in pads)]
    return np.pad(x[(slice(None), slice(None), *inside)], grown, constant_values=value)


PADS = (((2, 1), (0, 3), (1, 4)), ((-1, 2), (3, -2), (2, 2)), ((5, 0), (0, 0), (0, 7)))


@axes_123
@pytest.mark.parametrize("pads", PADS)
@pytest.mark.parametrize("value", [2, -1.5, float("inf"), float("nan"), np.float32(3)])
def test_a_constant_is_what_numpy_pads_with(axes, pads, value):
    (x, w, b), pads = arrays(axes), pads[:axes]
    how: dict[str, Any] = {"padding": pads, "padding_mode": "Constant", "padding_value": value}
    conv, plan = of("conv{}d", axes), of("plan_conv{}d", axes)
    for stride, dilation in ((1, 1), (2, 1), (1, 2)):
        options = {"stride": stride, "dilation": dilation, "groups": 2}
        y = conv(x, w, b, **options, **how, activation="leaky_relu")
        expected = conv(padded(x, pads, value), w, b, **options, activation="leaky_relu")
        np.testing.assert_array_equal(y, expected)
        made = plan(x.shape, w, b, **options, **how, activation="leaky_relu")
        np.testing.assert_array_equal(made.run(x), expected)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(made)).run(x[:1]), expected[:1])
        np.testing.assert_array_equal(copy.deepcopy(made).run(x[0][None]), expected[:1])
        bare = conv(x, w, **options, **how)
        np.testing.assert_array_equal(reference_of("conv{}d", axes)(x, w, **options, **how), bare)
        one = plan(last(x).shape, last_weight(w), b, **options, **how, data_format=LAST[axes]).run(last(x))
        np.testing.assert_array_equal(one, last(conv(x, w, b, **options, **how)))
        residual = whole(*y.shape)
        np.testing.assert_array_equal(conv(x, w, **options, **how, residual=residual), bare + residual)


def reference_of(name: str, axes: int) -> Any:
    return getattr(reference, name.format(axes))


@axes_123
@pytest.mark.parametrize("value", [3, -2.0, float("nan")])
def test_gradients_under_a_constant_are_those_of_the_padded_image(axes, value):
    (x, w, _), pads = arrays(axes), PADS[1][:axes]
    how: dict[str, Any] = {"padding": pads, "padding_mode": "constant", "padding_value": value}
    for stride, dilation in ((1, 1), (2, 1), (1, 2)):
        options = {"stride": stride, "dilation": dilation, "groups": 2}
        dy = whole(*of("conv{}d", axes)(x, w, **options, **how).shape)
        dx, dw, db = of("conv{}d_backward", axes)(dy, x, w, **options, **how)
        _, expected, bias = of("conv{}d_backward", axes)(dy, padded(x, pads, value), w, **options)
        np.testing.assert_array_equal(dw, expected)
        np.testing.assert_array_equal(db, bias)
        zeros = of("conv{}d_input", axes)(x.shape, w, dy, **options, padding=pads)
        np.testing.assert_array_equal(dx, zeros)  # no value of the padding is the image's
        np.testing.assert_array_equal(of("conv{}d_input", axes)(x.shape, w, dy, **options, **how), zeros)
        np.testing.assert_array_equal(of("conv{}d_weight", axes)(x, w.shape, dy, **options, **how), expected)
        for one, other in zip(
            (dx, dw, db), reference_of("conv{}d_backward", axes)(dy, x, w, **options, **how), strict=True
        ):
            np.testing.assert_array_equal(one, other)


@axes_123
def test_words_of_padding_take_a_constant_too(axes):
    x, w, _ = arrays(axes)
    for word in ("same", "same_lower", "full", "valid", *(["causal"] if axes == 1 else [])):
        y = of("conv{}d", axes)(x, w, None, 2, word, 1, 2, padding_mode="constant", padding_value=2)
        expected = reference_of("conv{}d", axes)(x, w, None, 2, word, 1, 2, padding_mode="constant", padding_value=2)
        np.testing.assert_array_equal(y, expected)
    ones = np.ones((1, 1, *(1,) * axes), np.float32)
    box = np.ones((1, 1, *(3,) * axes), np.float32)
    same = of("conv{}d", axes)(ones, box, padding="same", padding_mode="constant", padding_value=2)
    assert same.item() == 1 + 2 * (3**axes - 1)


@axes_123
def test_a_constant_of_zero_is_zeros(axes):
    x, w = (np.random.default_rng(axes).standard_normal(a.shape).astype("float32") for a in arrays(axes)[:2])
    w[(0,) * w.ndim] = np.inf  # over padding it adds nothing
    for value in (0, 0.0, -0.0, np.float64(0)):
        y = of("conv{}d", axes)(x, w, padding=2, groups=2, padding_mode="constant", padding_value=value)
        assert y.tobytes() == of("conv{}d", axes)(x, w, padding=2, groups=2).tobytes()
    assert "constant" not in repr(of("plan_conv{}d", axes)(x.shape, w, padding=1, groups=2, padding_mode="constant"))
    told = of("plan_conv{}d", axes)(x.shape, w, padding=1, groups=2, padding_mode="constant", padding_value=1)
    assert "padding_value=1" in repr(told)


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "uint8", "int16", "int32", "int64"])
def test_a_constant_of_every_type(dtype):
    x, w = np.abs(whole(2, 3, 6, 5)).astype(dtype), np.abs(whole(4, 3, 3, 2)).astype(dtype)
    how: dict[str, Any] = {"padding": ((1, 2), (3, 0)), "padding_mode": "constant", "padding_value": 7}
    y = fastconv.conv2d(x, w, **how)
    expected = fastconv.conv2d(padded(x, how["padding"], 7), w)
    assert y.dtype == expected.dtype
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(fastconv.plan_conv2d(x.shape, w, **how).run(x), expected)
    dw = grad.conv2d_weight(x, w.shape, y.astype(dtype), **how)
    np.testing.assert_array_equal(dw, grad.conv2d_weight(padded(x, how["padding"], 7), w.shape, y.astype(dtype)))


def test_integers_under_a_constant_are_exact_or_refused():
    x, w = np.full((1, 1, 3), 2**61, np.int64), np.array([[[1, -1]]], np.int64)
    how: dict[str, Any] = {"padding": 1, "padding_mode": "constant"}
    y = fastconv.conv1d(x, w, **how, padding_value=2**62)
    np.testing.assert_array_equal(y, [[[2**61, 0, 0, -(2**61)]]])
    with pytest.raises(ConvError, match="leaves the range"):
        fastconv.conv1d(x, w * 4, **how, padding_value=-(2**62))
    dy = np.array([[[1, 0, 0, 1]]], np.int64)
    with pytest.raises(ConvError, match="leaves the range"):
        grad.conv1d_weight(x * 0 + 2**62, w.shape, dy * 2, **how, padding_value=2**62)
    x8, w8 = np.full((1, 1, 3), 100, np.int8), np.array([[[100, 100]]], np.int8)
    np.testing.assert_array_equal(fastconv.conv1d(x8, w8, **how, padding_value=-128)[0, 0, ::3], [-2800, -2800])


def test_padding_values_that_are_none():
    x, w = whole(1, 2, 5), whole(3, 2, 3)
    for mode in ("zeros", "reflect"):
        with pytest.raises(ConvError, match="padding_value is what padding_mode='constant' pads with"):
            fastconv.conv1d(x, w, padding=1, padding_mode=mode, padding_value=1.0)
    for value in ("1", None, [1.0], True, 1j, np.zeros(1)):
        with pytest.raises(ConvTypeError, match="padding_value must be a number"):
            fastconv.conv1d(x, w, padding=1, padding_mode="constant", padding_value=value)
    for value in (1.5, float("nan")):
        with pytest.raises(ConvTypeError, match="padding_value must be a whole number for an input of int8"):
            fastconv.conv1d(x.astype("int8"), w.astype("int8"), padding=1, padding_mode="constant", padding_value=value)
    for dtype, value in (("uint8", -1), ("int8", 128), ("float16", 70000.0)):
        with pytest.raises(ConvError, match=r"padding_value=.* is beyond the range"):
            fastconv.plan_conv1d(x.shape, w.astype(dtype), padding=1, padding_mode="constant", padding_value=value)


SIZES = {1: (400_003,), 2: (305, 301), 3: (40, 51, 47)}  # above what is padded at once


@axes_123
def test_a_large_image_is_padded_in_blocks(axes):
    rng = np.random.default_rng(axes)
    channels = {1: 2, 2: 7, 3: 8}[axes]
    x = rng.standard_normal((2, channels, *SIZES[axes])).astype("float32")
    w = rng.standard_normal((3, channels, *(3,) * axes)).astype("float32")
    how: dict[str, Any] = {"padding": ((2, 1),) * axes, "padding_mode": "constant", "padding_value": 1.5}
    grown = padded(x, how["padding"], 1.5)
    y, expected = of("conv{}d", axes)(x, w, **how), of("conv{}d", axes)(grown, w)
    scale = of("conv{}d", axes)(np.abs(grown), np.abs(w))
    assert np.all(np.abs(y - expected) <= 2.0**-23 * (w[0].size + 40) * scale.max())
    direct = of("conv{}d", axes)(x, w, **how, algorithm="direct")
    np.testing.assert_array_equal(direct, of("conv{}d", axes)(grown, w, algorithm="direct"))  # no sum is cut
    np.testing.assert_array_equal(of("conv{}d", axes)(x[1:], w, **how), y[1:])
    for threads in (1, 2, 3):
        np.testing.assert_array_equal(of("conv{}d", axes)(x, w, **how, num_threads=threads), y)
    np.testing.assert_array_equal(of("plan_conv{}d", axes)(x.shape, w, **how, algorithm="direct").run(x), direct)
    dy = rng.standard_normal(y.shape).astype("float32")
    dw = of("conv{}d_weight", axes)(x, w.shape, dy, **how, algorithm="direct")
    near = of("conv{}d_weight", axes)(grown.astype("float64"), w.shape, dy.astype("float64"))
    np.testing.assert_allclose(dw, near, rtol=0, atol=1e-6 * np.sqrt(dy[:, 0].size) * 8)
    told = of("explain_conv{}d", axes)(x.shape, w.shape, **how)
    assert told.workspace_bytes <= 32 << 20
    assert told.macs == y.size * w[0].size
    assert "block(s)" in told.reason


def test_an_empty_image_under_a_constant_is_all_padding():
    x, w = np.zeros((2, 3, 0), np.float32), whole(4, 3, 2)
    how: dict[str, Any] = {"padding": 2, "padding_mode": "constant", "padding_value": 2}
    y = fastconv.conv1d(x, w, **how)
    np.testing.assert_array_equal(y, np.broadcast_to(2 * w.sum((1, 2))[None, :, None], (2, 4, 3)))
    dw = grad.conv1d_weight(x, w.shape, np.ones_like(y), **how)
    np.testing.assert_array_equal(dw, np.full(w.shape, 2 * 2 * 3))
    none, nothing = np.zeros((0, 3, 4), np.float32), np.zeros((0, 4, 7), np.float32)
    assert fastconv.conv1d(none, w, **how).shape == (0, 4, 7)
    assert not grad.conv1d_weight(none, w.shape, nothing, **how).any()


@axes_123
def test_generated_problems_under_a_constant(axes):
    for case in constant_cases({1: 60, 2: 80, 3: 30}[axes], axes=axes):
        for comparison in comparisons.constant(case):
            assert comparison.fault() is None, f"{case}: {comparison.fault()}"


# ---- sizes of transposed outputs -------------------------------------------------------------------------------------


@axes_123
def test_words_of_a_transposed_convolution(axes):
    for kernel, stride in product((1, 2, 3, 5), (1, 2, 4)):
        x, w = whole(1, 3, *(4, 5, 3)[:axes]), whole(3, 2, *(kernel,) * axes)
        valid = of("conv_transpose{}d", axes)(x, w, None, stride, "valid")
        assert valid.shape[2:] == tuple((n - 1) * stride + kernel for n in x.shape[2:])
        np.testing.assert_array_equal(valid, of("conv_transpose{}d", axes)(x, w, None, stride, 0))
        same = of("conv_transpose{}d", axes)(x, w, None, stride, "same")
        assert same.shape[2:] == tuple(n * stride for n in x.shape[2:])
        cut = max(kernel - stride, 0) // 2  # before; the rest, or what is missing, at the end
        grown = np.pad(valid, [(0, 0), (0, 0), *((0, max(stride - kernel, 0)),) * axes])
        place = (..., *(slice(cut, cut + n * stride) for n in x.shape[2:]))
        np.testing.assert_array_equal(same, grown[place])
        for word, y in (("valid", valid), ("SAME", same)):
            plan = of("plan_conv_transpose{}d", axes)(x.shape, w, None, stride, word)
            np.testing.assert_array_equal(plan.run(x), y)
            dx = of("conv_transpose{}d_input", axes)(x.shape, w, whole(*y.shape), stride, word)
            twin = reference_of("conv_transpose{}d_input", axes)(x.shape, w, whole(*y.shape), stride, word)
            np.testing.assert_array_equal(dx, twin)


@axes_123
def test_an_output_size_is_an_output_padding(axes):
    x, w = whole(2, 4, *(3, 4, 2)[:axes]), whole(4, 3, *(3, 2, 4)[:axes])
    stride, dilation, padding = (3, 2, 1)[:axes], (1, 3, 2)[:axes], (1, 0, 2)[:axes]
    most = [max(s, d) for s, d in zip(stride, dilation, strict=True)]
    options = {"stride": stride, "dilation": dilation, "padding": padding, "groups": 2}
    for extra in product(*map(range, most)):
        expected = of("conv_transpose{}d", axes)(x, w, **options, output_padding=extra)
        size = expected.shape[2:]
        np.testing.assert_array_equal(of("conv_transpose{}d", axes)(x, w, **options, output_size=size), expected)
        np.testing.assert_array_equal(
            reference_of("conv_transpose{}d", axes)(x, w, **options, output_size=np.array(size)), expected
        )
        plan = of("plan_conv_transpose{}d", axes)(last(x).shape, last_weight(w), **options, output_size=size,
                                                  data_format=LAST[axes])  # fmt: skip
        np.testing.assert_array_equal(plan.run(last(x)), last(expected))
        dy = whole(*expected.shape)
        for name, args in (("input", (x.shape, w, dy)), ("weight", (x, w.shape, dy))):
            gradient = of(f"conv_transpose{{}}d_{name}", axes)
            np.testing.assert_array_equal(
                gradient(*args, **options, output_size=size), gradient(*args, **options, output_padding=extra)
            )
    torch = pytest.importorskip("torch")  # which takes less than a stride more
    expected = of("conv_transpose{}d", axes)(x, w, **options, output_padding=[s - 1 for s in stride])
    module = getattr(torch.nn, f"ConvTranspose{axes}d")(4, 6, w.shape[2:], stride, padding, 0, 2, False, dilation)
    module.weight = torch.nn.Parameter(torch.from_numpy(w))
    theirs = module(torch.from_numpy(x), output_size=expected.shape[2:]).detach().numpy()
    np.testing.assert_array_equal(theirs, expected)


@axes_123
def test_output_sizes_that_are_none(axes):
    x, w = whole(1, 2, *(4,) * axes), whole(2, 2, *(3,) * axes)
    conv = of("conv_transpose{}d", axes)
    with pytest.raises(ConvError, match=r"output_size must be from 9 to 10 along the .* but got output_size=8"):
        conv(x, w, stride=2, output_size=8)
    with pytest.raises(ConvError, match="output_size must be from 9 to 10"):
        of("plan_conv_transpose{}d", axes)(x.shape, w, stride=2, output_size=11)
    with pytest.raises(ConvError, match=r"output_size=9 and output_padding=.* both say"):
        conv(x, w, stride=2, output_size=9, output_padding=1)
    for word in ("same", "valid"):
        with pytest.raises(ConvError, match=f"output_size=9 and padding='{word}' both say"):
            conv(x, w, stride=2, padding=word, output_size=9)
    with pytest.raises(ConvError, match="output_size"):
        conv(x, w, stride=2, output_size=(9,) * (axes + 1))
    with pytest.raises(ConvTypeError, match="output_size must be made of integers"):
        conv(x, w, stride=2, output_size=9.0)


# ---- gradients into arrays -------------------------------------------------------------------------------------------


def gradients(axes: int, dtype: str = "float32") -> dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]]:
    """Every function of `grad` with arguments."""
    x, w, _ = arrays(axes, dtype)
    how = {"stride": 2, "padding": 1, "groups": 2}
    dy = whole(*of("conv{}d", axes)(x, w, **how).shape, dtype=dtype)
    small = whole(2, 6, *(4, 3, 2)[:axes], dtype=dtype)
    big = whole(*of("conv_transpose{}d", axes)(small, w, **how).shape, dtype=dtype)
    pooled = whole(*fastconv_pool(axes)(x.astype("float32"), 2).shape, dtype=dtype)
    found = {
        "conv{}d_input": ((x.shape, w, dy), how),
        "conv{}d_weight": ((x, w.shape, dy), how),
        "conv_transpose{}d_input": ((small.shape, w, big), how),
        "conv_transpose{}d_weight": ((small, w.shape, big), how),
        "max_pool{}d_input": ((x, 2, pooled), {}),
    }
    if dtype.startswith("float"):
        found["avg_pool{}d_input"] = ((x.shape, 2, pooled), {})
        full = whole(*of("conv{}d", axes)(x, w, padding=1, groups=2).shape, dtype=dtype)
        found["conv{}d_input "] = ((x.shape, w, full), {"padding": 1, "padding_mode": "circular", "groups": 2})
    if axes == 2:
        kernels = whole(2, 2, 6, 4, 3, 2, dtype=dtype)
        tiled = whole(*fastconv.tiled_conv2d(x, kernels, padding=1).shape, dtype=dtype)
        found["tiled_conv2d_input"] = ((x.shape, kernels, tiled), {"padding": 1})
        found["tiled_conv2d_weight"] = ((x, kernels.shape, tiled), {"padding": 1})
    return {name: (of(name.strip(), axes), *given) for name, given in found.items()}


def fastconv_pool(axes: int) -> Any:
    return getattr(fastconv, f"max_pool{axes}d")


@axes_123
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int8", "int64"])
def test_gradients_go_into_an_array_or_on_top_of_it(axes, dtype):
    for name, (function, args, how) in gradients(axes, dtype).items():
        expected = function(*args, **how)
        out = np.full_like(expected, 77)
        assert function(*args, **how, out=out) is out, name
        np.testing.assert_array_equal(out, expected, name)
        held = whole(*expected.shape).astype(expected.dtype)
        total = held.copy()
        assert function(*args, **how, out=total, accumulate=True) is total
        np.testing.assert_array_equal(total, held + expected, name)
        room = np.full((*expected.shape[:-1], 2 * expected.shape[-1]), 5, expected.dtype)
        view = room[..., ::-2]  # any strides
        function(*args, **how, out=view, accumulate=True)
        np.testing.assert_array_equal(view, 5 + expected, name)
        assert (room[..., ::2] == 5).all()
        twin = reference_of(function.__name__, axes)
        again = held.copy()
        assert twin(*args, **how, out=again, accumulate=True) is again
        np.testing.assert_array_equal(again, total, name)


@axes_123
def test_gradients_channels_last_and_without_a_batch(axes):
    x, w, _ = arrays(axes)
    how: dict[str, Any] = {"padding": 1, "groups": 2}
    dy = whole(*of("conv{}d", axes)(x, w, **how).shape)
    dx, dw = of("conv{}d_input", axes)(x.shape, w, dy, **how), of("conv{}d_weight", axes)(x, w.shape, dy, **how)
    how["data_format"] = LAST[axes]
    out = np.ones(last(x).shape, np.float32)
    of("conv{}d_input", axes)(last(x).shape, last_weight(w), last(dy), **how, out=out, accumulate=True)
    np.testing.assert_array_equal(out, 1 + last(dx))
    out = np.ones(last_weight(w).shape, np.float32)
    of("conv{}d_weight", axes)(last(x), last_weight(w).shape, last(dy), **how, out=out, accumulate=True)
    np.testing.assert_array_equal(out, 1 + last_weight(dw))
    out = np.ones(last(x).shape[1:], np.float32)
    of("conv{}d_input", axes)(last(x).shape[1:], last_weight(w), last(dy)[0], **how, out=out, accumulate=True)
    np.testing.assert_array_equal(out, 1 + last(dx)[0])


def test_an_array_that_is_an_argument_too_receives_what_another_would():
    for accumulate in (False, True):
        for name, function, others in (
            ("dy", grad.conv2d_input, lambda a, w: ((a.shape, w, a), a)),
            ("w", grad.conv2d_input, lambda a, w: ((w.shape, w, w[:, :, :4, :4]), w)),
            ("x", grad.conv2d_weight, lambda a, w: ((w, w.shape, w[:, :, :4, :4]), w)),
        ):
            a, w = whole(3, 3, 7, 7), whole(3, 3, 3, 3)
            if name != "dy":
                w = whole(3, 3, 7, 7)
            how: dict[str, Any] = {"padding": 1} if name == "dy" else {}
            if name == "w":
                how = {"padding": ((6, 3), (6, 3))}
                args, out = (w.shape, w, np.ascontiguousarray(whole(3, 3, 10, 10))), w
            elif name == "x":
                args, out = (w, w.shape, whole(3, 3, 10, 10)), w
                how = {"padding": ((6, 3), (6, 3))}
            else:
                args, out = others(a, w)
            held = out.copy()
            expected = function(*args, **how)
            expected = expected + held if accumulate else expected
            assert function(*args, **how, out=out, accumulate=accumulate) is out
            np.testing.assert_array_equal(out, expected, name)


def test_many_images_are_added_some_at_a_time():
    x = np.random.default_rng(0).standard_normal((5, 16, 200, 200)).astype("float32")  # 2.5 MB an image
    w = np.random.default_rng(1).standard_normal((16, 16, 3, 3)).astype("float32")
    expected = x + grad.conv2d_input(x.shape, w, x, padding=1)
    out = x.copy()
    grad.conv2d_input(x.shape, w, x, padding=1, out=out, accumulate=True)
    assert out.tobytes() == expected.tobytes()  # an image has the same bits alone


def test_integers_are_added_exactly_or_not_at_all():
    dy, w = np.full((1, 1, 3), 100, np.int8), np.full((1, 1, 1), 100, np.int8)
    for dtype, most in ((np.int32, 2**31 - 1), (np.int64, 2**63 - 1)):
        wide = np.int8 if dtype is np.int32 else np.int64
        out = np.array([[[0, 1, most - 9_999]]], dtype)
        before = out.copy()
        with pytest.raises(ConvError, match="leaves the range of int"):
            grad.conv1d_input((1, 1, 3), w.astype(wide), dy.astype(wide), out=out, accumulate=True)
        np.testing.assert_array_equal(out, before)
        out[...] = most - 10_000
        grad.conv1d_input((1, 1, 3), w.astype(wide), dy.astype(wide), out=out, accumulate=True)
        np.testing.assert_array_equal(out, most)


def test_arrays_that_no_gradient_fits_into():
    for name, (function, args, how) in gradients(2).items():
        expected = function(*args, **how)
        with pytest.raises(ConvError, match="accumulate=True adds the gradient to what out holds, but got no out"):
            function(*args, **how, accumulate=True)
        with pytest.raises(ConvTypeError, match="accumulate must be True or False"):
            function(*args, **how, out=expected, accumulate=1)
        out = np.full_like(expected, 3)
        for wrong in (out[..., 1:], out.astype("float64"), [1.0], np.broadcast_to(out[..., :1], out.shape)):
            with pytest.raises((ConvError, ConvTypeError), match="out"):
                function(*args, **how, out=wrong, accumulate=True)
        assert (out == 3).all(), name


# ---- a cap on scratch ------------------------------------------------------------------------------------------------

PROBLEMS = {
    "direct": ((2, 64, 28, 28), (64, 64, 3, 3), {"padding": 1}),
    "winograd": ((2, 64, 28, 28), (64, 64, 3, 3), {"padding": 1}),
    "winograd_2x2": ((1, 32, 15, 14), (32, 32, 3, 3), {"padding": 1}),
    "winograd_rows": ((1, 3, 40, 40), (32, 3, 7, 7), {"padding": 3, "stride": 2}),
    "strassen": ((1, 128, 14, 14), (128, 128, 1, 1), {}),
    "depthwise": ((2, 64, 56, 56), (64, 1, 3, 3), {"padding": 1, "groups": 64}),
    "1x1": ((2, 256, 14, 14), (64, 256, 1, 1), {}),
    "large": ((1, 256, 20, 20), (8, 256, 9, 9), {"padding": 4}),
    "long": ((1, 600, 9, 9), (16, 600, 3, 3), {"padding": 1}),
}
CAPS = (4 << 20, 1 << 20, 300_000, 100_000, 50_000)


def least(error: Any) -> int:
    return int(re.search(r"the least possible is (\d+)", str(error.value)).group(1))  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", PROBLEMS)
def test_less_scratch_has_the_same_bits(kind):
    shape, weight, how = PROBLEMS[kind]
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal(shape).astype("float32"), rng.standard_normal(weight).astype("float32")
    algorithm = kind if kind in WORDS or kind.startswith("winograd") else "direct"
    how = {**how, "algorithm": algorithm, "num_threads": 2}
    expected = fastconv.conv2d(x, w, **how)
    prepared = fastconv.plan_conv2d(shape, w, **how).run(x)
    needed = []
    for cap in CAPS:
        try:
            y = fastconv.conv2d(x, w, **how, max_workspace=cap)
        except ConvError as error:
            assert "max_workspace" in str(error)
            continue
        assert y.tobytes() == expected.tobytes()
        told = fastconv.explain_conv2d(shape, weight, **how, max_workspace=cap)
        assert told.workspace_bytes <= cap
        needed.append(told.workspace_bytes)
        plan = fastconv.plan_conv2d(shape, w, **how, max_workspace=cap)
        assert plan.workspace_bytes <= cap
        assert plan.run(x).tobytes() == prepared.tobytes()
        assert f"max_workspace={cap}" in repr(plan)
        if cap == CAPS[0]:
            assert pickle.loads(pickle.dumps(plan)).workspace_bytes == plan.workspace_bytes
    assert len(needed) > 1
    refused = f"max_workspace=1 bytes are too few for input .*algorithm='{algorithm}'"
    with pytest.raises(ConvError, match=refused) as error:
        fastconv.conv2d(x, w, **how, max_workspace=1)
    fewest = least(error)
    assert fastconv.conv2d(x, w, **how, max_workspace=fewest).tobytes() == expected.tobytes()
    with pytest.raises(ConvError, match=f"the least possible is {fewest}"):
        fastconv.conv2d(x, w, **how, max_workspace=fewest - 1)


@axes_123
def test_a_cap_in_every_dimension_and_direction(axes):
    rng = np.random.default_rng(axes)
    size = {1: (2000,), 2: (40, 40), 3: (12, 12, 12)}[axes]
    x = rng.standard_normal((2, 32, *size)).astype("float32")
    w = rng.standard_normal((32, 32, *(3,) * axes)).astype("float32")
    for name, how in (("conv{}d", {}), ("conv{}d", {"padding_mode": "constant", "padding_value": 2.0}),
                      ("conv_transpose{}d", {"stride": 2}), ("conv_transpose{}d", {})):  # fmt: skip
        options: dict[str, Any] = {"padding": 1, "algorithm": "direct", **how}
        expected = of(name, axes)(x, w, **options)
        for cap in (1 << 20, 200_000, 100_000):
            assert of(name, axes)(x, w, **options, max_workspace=cap).tobytes() == expected.tobytes()
            plan = of(f"plan_{name}", axes)(x.shape, w, **options, max_workspace=cap)
            assert plan.workspace_bytes <= cap
            np.testing.assert_array_equal(plan.run(np.concatenate([x, x]))[2:], expected)
        with pytest.raises(ConvError, match="the least possible") as error:
            of(name, axes)(x, w, **options, max_workspace=16)
        assert of(name, axes)(x, w, **options, max_workspace=least(error)).tobytes() == expected.tobytes()


def test_another_method_is_taken_where_the_first_needs_too_much():
    shape, weight, how = PROBLEMS["winograd"]
    x, w = whole(*shape), whole(*weight)
    usual = fastconv.explain_conv2d(shape, weight, **how)
    assert usual.algorithm == "winograd"
    with pytest.raises(ConvError, match="too few") as error:
        fastconv.conv2d(x, w, **how, algorithm="winograd", max_workspace=1000)
    told = fastconv.explain_conv2d(shape, weight, **how, max_workspace=least(error) - 1)
    assert told.algorithm == "direct"
    assert "Winograd needs more than max_workspace=" in told.reason
    y = fastconv.conv2d(x, w, **how, max_workspace=least(error) - 1)
    np.testing.assert_array_equal(y, fastconv.conv2d(x, w, **how, algorithm="direct"))
    assert fastconv.explain_conv2d(shape, weight, **how, max_workspace=1 << 40) == usual
    assert fastconv.explain_conv2d(shape, weight, **how, max_workspace=None) == usual


def test_caps_that_are_none():
    x, w = whole(1, 2, 5, 5), whole(2, 2, 3, 3)
    with pytest.raises(ConvError, match="max_workspace must be at least 0 bytes, but got max_workspace=-1"):
        fastconv.conv2d(x, w, max_workspace=-1)
    for wrong in (1.5, "1 MB", True):
        with pytest.raises(ConvTypeError, match="max_workspace must be made of integers"):
            fastconv.plan_conv2d(x.shape, w, max_workspace=wrong)
    out = np.full((1, 2, 3, 3), 9, np.float32)
    with pytest.raises(ConvError, match="too few"):
        fastconv.conv2d(x, w, max_workspace=1, out=out)
    assert (out == 9).all()
    kernels = whole(2, 2, 2, 2, 3, 3)
    expected = fastconv.tiled_conv2d(x, kernels)
    np.testing.assert_array_equal(fastconv.tiled_conv2d(x, kernels, max_workspace=200_000), expected)
    integers = fastconv.conv2d(x.astype("int8"), w.astype("int8"), max_workspace=100_000)
    np.testing.assert_array_equal(integers, fastconv.conv2d(x, w))
    assert prod(integers.shape) == 18
