"""The reference against nested loops that share nothing with it, and against numbers measured on other libraries."""

from itertools import product
from math import prod
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import reference

# ---- Nested loops: the definition, one product at a time ------------------------------------------------------------


def resolve(padding: Any, size: int, kernel: int, stride: int, dilation: int, axis: int) -> tuple[int, int]:
    """Pads before and after, from the words of TensorFlow, ONNX and SciPy."""
    effective = dilation * (kernel - 1) + 1
    if padding == "valid":
        return 0, 0
    if padding == "full":
        return effective - 1, effective - 1
    if padding == "causal":
        return effective - 1, 0
    if padding in ("same", "same_lower"):
        total = max((-(-size // stride) - 1) * stride + effective - size, 0)
        small, large = total // 2, total - total // 2
        return (small, large) if padding == "same" else (large, small)
    if isinstance(padding, int):
        return padding, padding
    return padding[axis] if isinstance(padding[axis], tuple) else (padding[axis], padding[axis])


def source(position: int, size: int, mode: str) -> int | None:
    """The element at a position that may lie outside, by walking back inside."""
    if mode == "zeros":
        return position if 0 <= position < size else None
    while not 0 <= position < size:
        if mode == "replicate":
            position = 0 if position < 0 else size - 1
        elif mode == "circular":
            position += size if position < 0 else -size
        elif mode == "symmetric":
            position = -1 - position if position < 0 else 2 * size - 1 - position
        elif size == 1:
            position = 0
        else:
            position = -position if position < 0 else 2 * (size - 1) - position
    return position


def products(x_shape, w_shape, stride, padding, dilation, groups, mode):
    """Every (output index, input index, weight index) whose product is in the sum, and the output shape."""
    batch, _, *size = x_shape
    out_channels, per_group, *kernel = w_shape
    axes = range(len(size))
    pads = [resolve(padding, size[a], kernel[a], stride[a], dilation[a], a) for a in axes]
    out = [(size[a] + sum(pads[a]) - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1 for a in axes]
    triples = []
    for n, o, *at in product(range(batch), range(out_channels), *map(range, out)):
        for c, *tap in product(range(per_group), *map(range, kernel)):
            places = [source(at[a] * stride[a] + tap[a] * dilation[a] - pads[a][0], size[a], mode) for a in axes]
            if None not in places:
                channel = o // (out_channels // groups) * per_group + c
                triples.append(((n, o, *at), (n, channel, *places), (o, c, *tap)))
    return triples, (batch, out_channels, *out)


def compiled_function(name: str) -> Any:
    """A function of the package, or one of `grad`."""
    return getattr(fastconv, name, None) or getattr(fastconv.grad, name)


GEOMETRIES = [
    # size, kernel, stride, padding, dilation, groups, mode
    ((5, 6), (3, 3), (1, 1), 1, (1, 1), 1, "zeros"),
    ((5, 6), (2, 3), (2, 1), "same", (1, 2), 1, "zeros"),
    ((4, 5), (4, 2), (1, 3), "same_lower", (1, 1), 2, "zeros"),
    ((3, 3), (2, 2), (1, 2), "full", (2, 1), 1, "zeros"),
    ((6, 7), (3, 2), (2, 3), "valid", (1, 2), 2, "zeros"),
    ((6, 6), (3, 3), (1, 1), ((-1, 2), (0, -2)), (1, 1), 1, "zeros"),
    ((2, 2), (3, 3), (1, 1), ((4, 1), (1, 3)), (1, 1), 1, "zeros"),
    ((4, 5), (3, 3), (1, 1), 2, (1, 1), 2, "reflect"),
    ((3, 2), (3, 4), (2, 1), ((5, 4), (3, 6)), (1, 2), 1, "reflect"),
    ((1, 3), (3, 1), (1, 1), (2, 0), (1, 1), 1, "reflect"),
    ((3, 4), (3, 3), (1, 2), 3, (2, 1), 1, "replicate"),
    ((3, 4), (3, 3), (1, 2), 5, (2, 1), 2, "circular"),
    ((2, 3), (5, 3), (1, 1), "same", (1, 1), 1, "symmetric"),
    ((4, 4), (3, 3), (2, 2), ((3, -1), (-1, 4)), (1, 1), 1, "symmetric"),
    ((1, 1), (1, 1), (3, 3), 0, (3, 3), 1, "zeros"),
    # of one axis
    ((7,), (3,), (1,), 1, (1,), 1, "zeros"),
    ((8,), (4,), (3,), "same", (1,), 2, "zeros"),
    ((6,), (3,), (1,), "causal", (2,), 1, "zeros"),
    ((6,), (3,), (2,), "causal", (1,), 1, "replicate"),
    ((5,), (2,), (1,), "full", (3,), 1, "zeros"),
    ((6,), (3,), (1,), ((-1, 2),), (1,), 1, "zeros"),
    ((3,), (3,), (2,), ((7, 4),), (1,), 2, "reflect"),
    ((2,), (3,), (1,), 3, (1,), 1, "circular"),
    # of three
    ((3, 4, 5), (2, 3, 2), (1, 2, 1), 1, (1, 1, 2), 1, "zeros"),
    ((4, 3, 5), (3, 2, 3), (2, 1, 3), "same", (1, 2, 1), 2, "zeros"),
    ((3, 3, 2), (2, 1, 3), (1, 1, 2), "same_lower", (2, 1, 1), 1, "zeros"),
    ((2, 3, 2), (2, 2, 1), (1, 2, 1), "full", (1, 1, 3), 1, "zeros"),
    ((4, 3, 4), (2, 2, 2), (1, 1, 1), ((-1, 2), (1, 0), (0, -2)), (1, 1, 1), 1, "zeros"),
    ((2, 3, 4), (3, 2, 2), (2, 1, 1), ((3, 1), (2, 4), (0, 5)), (1, 1, 2), 2, "reflect"),
    ((2, 1, 3), (2, 3, 3), (1, 1, 2), (1, 2, 3), (1, 1, 1), 1, "circular"),
    ((2, 3, 2), (2, 2, 3), (1, 1, 1), 2, (1, 2, 1), 1, "symmetric"),
    ((2, 3, 2), (2, 2, 3), (1, 1, 1), 3, (1, 2, 1), 1, "replicate"),
]
# The functions of as many axes as a problem has: of the reference, and compiled.
TWINS = {"reference": lambda name: getattr(reference, name), "compiled": compiled_function}


@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
@pytest.mark.parametrize("size, kernel, stride, padding, dilation, groups, mode", GEOMETRIES)
def test_convolution_is_the_sum_of_its_definition(size, kernel, stride, padding, dilation, groups, mode, twin):
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 9, (2, 2 * groups, *size)).astype(float)
    w = rng.integers(-9, 9, (3 * groups, 2, *kernel)).astype(float)
    triples, shape = products(x.shape, w.shape, stride, padding, dilation, groups, mode)
    dy = rng.integers(-9, 9, shape).astype(float)
    y, dx, dw = np.zeros(shape), np.zeros(x.shape), np.zeros(w.shape)
    for output, input, tap in triples:
        y[output] += x[input] * w[tap]
        dx[input] += dy[output] * w[tap]
        dw[tap] += dy[output] * x[input]
    options = {"padding_mode": mode}
    n, rest = len(size), (stride, padding, dilation, groups)
    np.testing.assert_array_equal(twin(f"conv{n}d")(x, w, None, *rest, **options), y)
    got = twin(f"conv{n}d_backward")(dy, x, w, *rest, **options)
    np.testing.assert_array_equal(got[0], dx)
    np.testing.assert_array_equal(got[1], dw)
    np.testing.assert_array_equal(got[2], dy.sum((0, *range(2, 2 + n))))
    np.testing.assert_array_equal(twin(f"conv{n}d_input")(x.shape, w, dy, *rest, **options), dx)
    np.testing.assert_array_equal(twin(f"conv{n}d_weight")(x, w.shape, dy, *rest, **options), dw)


@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
@pytest.mark.parametrize(
    "size, kernel, stride, pads, output_padding, dilation, groups",
    [
        ((3, 4), (3, 3), (1, 1), ((0, 0), (0, 0)), (0, 0), (1, 1), 1),
        ((3, 4), (3, 2), (2, 3), ((1, 0), (2, 1)), (1, 2), (1, 1), 2),
        ((2, 3), (2, 3), (1, 2), ((1, 1), (0, 2)), (1, 2), (2, 3), 1),
        ((2, 2), (1, 1), (3, 3), ((0, 0), (0, 0)), (2, 1), (1, 1), 1),
        ((2, 3), (3, 3), (2, 2), ((-1, -2), (0, -1)), (0, 1), (1, 1), 1),
        ((5,), (3,), (2,), ((1, 0),), (1,), (1,), 2),
        ((4,), (2,), (3,), ((-1, 1),), (2,), (3,), 1),
        ((2, 3, 2), (2, 1, 3), (2, 1, 3), ((1, 0), (0, 0), (0, 2)), (1, 0, 2), (1, 2, 1), 2),
        ((2, 2, 3), (1, 3, 2), (1, 2, 1), ((0, -1), (1, 1), (0, 0)), (0, 1, 1), (1, 1, 2), 1),
    ],
)
def test_transposed_convolution_spreads_every_input_pixel(
    size, kernel, stride, pads, output_padding, dilation, groups, twin
):
    axes = range(len(size))
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 9, (2, 2 * groups, *size)).astype(float)
    w = rng.integers(-9, 9, (2 * groups, 3, *kernel)).astype(float)
    b = rng.integers(-9, 9, 3 * groups).astype(float)
    out = [
        (size[a] - 1) * stride[a] - sum(pads[a]) + dilation[a] * (kernel[a] - 1) + output_padding[a] + 1 for a in axes
    ]
    y = np.zeros((2, 3 * groups, *out)) + b.reshape(-1, *(1 for _ in axes))
    dy = rng.integers(-9, 9, y.shape).astype(float)
    dx, dw = np.zeros(x.shape), np.zeros(w.shape)
    for n, c, *place in product(*map(range, x.shape)):
        for o, *tap in product(range(3), *map(range, kernel)):
            to = [place[a] * stride[a] + tap[a] * dilation[a] - pads[a][0] for a in axes]
            if all(0 <= to[a] < out[a] for a in axes):
                at, source, weight = (n, c // 2 * 3 + o, *to), (n, c, *place), (c, o, *tap)
                y[at] += x[source] * w[weight]
                dx[source] += dy[at] * w[weight]
                dw[weight] += dy[at] * x[source]
    n, rest = len(size), (stride, pads, output_padding, groups, dilation)
    np.testing.assert_array_equal(twin(f"conv_transpose{n}d")(x, w, b, *rest), y)
    np.testing.assert_array_equal(twin(f"conv_transpose{n}d_input")(x.shape, w, dy, *rest), dx)
    np.testing.assert_array_equal(twin(f"conv_transpose{n}d_weight")(x, w.shape, dy, *rest), dw)


@pytest.mark.parametrize("tile", [(1, 1), (2, 3), (3, 2), (4, 4)])
@pytest.mark.parametrize("stride, pad", [(1, 0), (2, 1)])
def test_tiled_convolution_takes_turns(tile, stride, pad):
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 9, (2, 2, 6, 6)).astype(float)
    w = rng.integers(-9, 9, (*tile, 3, 2, 3, 3)).astype(float)
    out = (6 + 2 * pad - 3) // stride + 1
    y = np.zeros((2, 3, out, out))
    dy = rng.integers(-9, 9, y.shape).astype(float)
    dx, dw = np.zeros(x.shape), np.zeros(w.shape)
    for (n, o, p, q), c, i, j in product(np.ndindex(y.shape), range(2), range(3), range(3)):
        row, column = p * stride + i - pad, q * stride + j - pad
        if 0 <= row < 6 and 0 <= column < 6:
            tap = (p % tile[0], q % tile[1], o, c, i, j)
            y[n, o, p, q] += x[n, c, row, column] * w[tap]
            dx[n, c, row, column] += dy[n, o, p, q] * w[tap]
            dw[tap] += dy[n, o, p, q] * x[n, c, row, column]
    np.testing.assert_array_equal(reference.tiled_conv2d(x, w, None, stride, pad), y)
    np.testing.assert_array_equal(reference.tiled_conv2d_input(x.shape, w, dy, stride, pad), dx)
    np.testing.assert_array_equal(reference.tiled_conv2d_weight(x, w.shape, dy, stride, pad), dw)


@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
@pytest.mark.parametrize("size", [(9,), (7, 6), (4, 6, 5)], ids=str)
@pytest.mark.parametrize("kernel, stride, pad, dilation", [(2, 2, 0, 1), (3, 2, 1, 1), (3, 1, 1, 2), (4, 3, 2, 1)])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_pooling_looks_at_every_window(kernel, stride, pad, dilation, ceil_mode, size, twin):
    rng, axes = np.random.default_rng(0), len(size)
    if min(size) + 2 * pad < dilation * (kernel - 1) + 1:
        return
    x = rng.integers(-9, 9, (2, 3, *size)).astype(float)

    def length(size: int, dilation: int) -> int:
        span = size + 2 * pad - dilation * (kernel - 1) - 1
        count = (-(-span // stride) if ceil_mode else span // stride) + 1
        return count - 1 if (count - 1) * stride >= size + pad else count

    def window(p: int, size: int, dilation: int) -> list[int]:
        return [p * stride - pad + i * dilation for i in range(kernel) if 0 <= p * stride - pad + i * dilation < size]

    def places(at: tuple[int, ...], dilation: int) -> list[tuple[int, ...]]:
        return list(product(*(window(p, n, dilation) for p, n in zip(at, size, strict=True))))

    options = (stride, pad, dilation, ceil_mode)
    y, index = twin(f"max_pool{axes}d")(x, kernel, *options, return_indices=True)
    assert y.shape == index.shape == (2, 3, *(length(n, dilation) for n in size))
    dy = rng.integers(-9, 9, y.shape).astype(float)
    dx = np.zeros(x.shape)
    for n, c, *at in np.ndindex(y.shape):
        candidates = [(-x[n, c, *place], np.ravel_multi_index(place, size)) for place in places(at, dilation)]
        value, where = min(candidates)  # of equal maxima the first in reading order
        assert (y[n, c, *at], index[n, c, *at]) == (-value, where)
        dx[n, c].flat[where] += dy[n, c, *at]
    np.testing.assert_array_equal(twin(f"max_pool{axes}d_input")(x, kernel, dy, *options), dx)

    for include, override in ((True, None), (False, None), (True, 5)):
        options = (stride, pad, ceil_mode, include, override)
        y = twin(f"avg_pool{axes}d")(x, kernel, *options)
        assert y.shape == (2, 3, *(length(n, 1) for n in size))
        dy = rng.integers(-9, 9, y.shape).astype(float)
        dx = np.zeros(x.shape)
        for n, c, *at in np.ndindex(y.shape):
            inside = places(at, 1)
            starts = [p * stride - pad for p in at]
            padded = [min(start + kernel, n + pad) - start for start, n in zip(starts, size, strict=True)]
            divisor = override or (prod(padded) if include else len(inside))
            assert y[n, c, *at] == pytest.approx(sum(x[n, c, *place] for place in inside) / divisor)
            for place in inside:
                dx[n, c, *place] += dy[n, c, *at] / divisor
        got = twin(f"avg_pool{axes}d_input")(x.shape, kernel, dy, *options)
        np.testing.assert_allclose(got, dx, atol=1e-12)


def test_channels_last_is_a_permutation_of_channels_first():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 4, 5, 6)), rng.standard_normal((6, 2, 3, 2))
    y = reference.conv2d(x, w, groups=2, padding="same")
    last = reference.conv2d(
        x.transpose(0, 2, 3, 1), w.transpose(2, 3, 1, 0), groups=2, padding="same", data_format="channels_last"
    )
    np.testing.assert_array_equal(last.transpose(0, 3, 1, 2), y)
    np.testing.assert_array_equal(reference.conv2d(x[0], w, groups=2, padding="same"), y[0])
    wt = rng.standard_normal((4, 3, 3, 2))
    y = reference.conv_transpose2d(x, wt, stride=2)
    last = reference.conv_transpose2d(x.transpose(0, 2, 3, 1), wt.transpose(2, 3, 1, 0), stride=2, data_format="NHWC")
    np.testing.assert_array_equal(last.transpose(0, 3, 1, 2), y)


@pytest.mark.parametrize("mode, numpy_mode", [("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap"),
                                              ("symmetric", "symmetric")])  # fmt: skip
def test_padding_modes_are_those_of_numpy(mode, numpy_mode):
    x, w = np.arange(1.0, 6), np.array([1.0, 10, 100])
    padded = np.pad(x, (3, 4), numpy_mode)
    y = reference.conv2d(x.reshape(1, 1, 1, 5), w.reshape(1, 1, 1, 3), padding=((0, 0), (3, 4)), padding_mode=mode)
    np.testing.assert_array_equal(y.ravel(), np.correlate(padded, w, "valid"))


# ---- Golden vectors, for the reference and for the compiled code alike ----------------------------------------------


@pytest.fixture(params=["reference", "compiled"])
def module(request: pytest.FixtureRequest) -> Any:
    return reference if request.param == "reference" else fastconv


def row(*values: float) -> np.ndarray:
    return np.array(values, np.float32).reshape(1, 1, 1, -1)


@pytest.mark.parametrize("padding, expected", [("same", [20, 30, 40, 26, 14]), ("same_lower", [11, 20, 30, 40, 26])])
def test_an_even_kernel_puts_the_odd_pixel_at_the_end(module, padding, expected):
    y = module.conv2d(row(1, 2, 3, 4, 5), row(1, 2, 3, 4), padding=padding)
    assert y.ravel().tolist() == expected


@pytest.mark.parametrize(
    "padding, expected", [("same", [321, 543, 65]), ("same_lower", [210, 432, 654]), ((0, 1), [210, 432, 654])]
)
def test_same_with_a_stride_is_not_padding_one(module, padding, expected):
    """Keras, JAX and ONNX UPPER against PyTorch's padding=1."""
    y = module.conv2d(row(1, 2, 3, 4, 5, 6), row(1, 10, 100), stride=(1, 2), padding=padding)
    assert y.ravel().tolist() == expected


@pytest.mark.parametrize(
    "padding, output_padding, expected",
    [
        (0, 0, [0, 0, 1, 10, 100, 0, 0]),
        ("valid", 0, [0, 0, 1, 10, 100, 0, 0]),
        ("same", 0, [0, 0, 1, 10, 100, 0]),
        ("same_lower", 0, [0, 1, 10, 100, 0, 0]),
        ((0, 1), (0, 1), [0, 1, 10, 100, 0, 0]),
        ("full", 0, [1, 10, 100]),
    ],
)
def test_transposed_convolution_does_not_flip_its_kernel(module, padding, output_padding, expected):
    y = module.conv_transpose2d(
        row(0, 1, 0), row(1, 10, 100), stride=(1, 2), padding=padding, output_padding=output_padding
    )
    assert y.ravel().tolist() == expected


def test_transposed_size_when_the_kernel_is_smaller_than_the_stride(module):
    x, w = np.ones((1, 1, 8, 8), np.float32), np.ones((1, 1, 1, 1), np.float32)
    assert module.conv_transpose2d(x, w, stride=2).shape == (1, 1, 15, 15)
    assert module.conv_transpose2d(x, w, stride=2, padding="same").shape == (1, 1, 16, 16)


def test_no_input_channels_leave_the_bias(module):
    x, w = np.ones((2, 0, 6, 6), np.float32), np.ones((4, 0, 3, 3), np.float32)
    bias = np.arange(4, dtype=np.float32)
    y = module.conv2d(x, w, bias, padding=1)
    np.testing.assert_array_equal(y, np.broadcast_to(bias[:, None, None], (2, 4, 6, 6)))


def test_small_integers_accumulate_in_32_bits(module):
    x, w = np.full((1, 72, 1, 1), 100, np.int8), np.full((1, 72, 1, 1), 2, np.int8)
    y = module.conv2d(x, w)
    assert y.dtype == np.int32 and y.item() == 14400


@pytest.mark.parametrize("weights, expected", [((2048.0, 4095.0), 6144.0), ((256.0, 4095.0), 4352.0)])
def test_half_precision_accumulates_in_single(module, weights, expected):
    x = np.ones((1, 2, 1, 1), np.float16)
    w = np.array(weights, np.float16).reshape(1, 2, 1, 1)
    y = module.conv2d(x, w)
    assert y.dtype == np.float16 and y.item() == expected


def test_average_pooling_counts_the_padding_unless_told_not_to(module):
    x = np.ones((1, 1, 4, 4))
    assert module.avg_pool2d(x, 3, 2, 1)[0, 0, 0, 0] == pytest.approx(4 / 9)
    assert module.avg_pool2d(x, 3, 2, 1, count_include_pad=False)[0, 0, 0, 0] == 1
    ceil = module.avg_pool2d(x, 3, 2, 1, ceil_mode=True)
    np.testing.assert_allclose(ceil.ravel(), [4 / 9, 6 / 9, 3 / 9, 6 / 9, 1, 0.5, 3 / 9, 0.5, 0.25])
    np.testing.assert_array_equal(module.avg_pool2d(np.ones((1, 1, 5, 5)), 2, 2, ceil_mode=True), np.ones((1, 1, 3, 3)))


def test_depthwise_output_channels_lie_by_input_channel(module):
    x = np.array([1, 10], np.float32).reshape(1, 2, 1, 1)
    w = np.array([1, 2, 3, 4], np.float32).reshape(4, 1, 1, 1)
    assert module.conv2d(x, w, groups=2).ravel().tolist() == [1, 2, 30, 40]


def test_integers_never_wrap(module):
    x = np.full((1, 4, 1, 1), 30000, np.int16)
    with pytest.raises(fastconv.ConvError):
        module.conv2d(x, x)
    x = np.full((1, 4, 1, 1), 2**61, np.int64)
    with pytest.raises(fastconv.ConvError):
        module.conv2d(x, np.ones_like(x) * 4)
    assert module.conv2d(x, np.array([1, 1, 1, -2]).reshape(1, 4, 1, 1)).item() == 2**61


def test_one_dimension_is_two_with_a_height_of_one(module):
    x, w = np.arange(1.0, 7).reshape(1, 1, 6), np.array([1.0, 10, 100]).reshape(1, 1, 3)
    assert module.conv1d(x, w, stride=2, padding="same").ravel().tolist() == [321, 543, 65]
    assert module.conv1d(x, w, stride=2, padding=1).ravel().tolist() == [210, 432, 654]
    assert module.conv1d(x[0], w, padding=1).shape == (1, 6)
    delta = np.array([0.0, 1, 0]).reshape(1, 1, 3)
    y = module.conv_transpose1d(delta, w, stride=2, padding=1, output_padding=1)
    assert y.ravel().tolist() == [0, 1, 10, 100, 0, 0]
    last = module.conv1d(x.transpose(0, 2, 1), w.transpose(2, 1, 0), padding=1, data_format="NLC")
    np.testing.assert_array_equal(last.transpose(0, 2, 1), module.conv1d(x, w, padding=1))


def test_no_tiles_make_no_convolution():
    with pytest.raises(fastconv.ConvError, match="at least one kernel"):
        reference.tiled_conv2d(np.ones((1, 2, 5, 5)), np.ones((0, 1, 3, 2, 3, 3)))
