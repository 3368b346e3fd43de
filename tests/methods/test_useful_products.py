"""Kernels larger than what they are laid over: work follows the products that meet an input, results stay."""

import numpy as np
import pytest

import fastconv
from fastconv import reference
from fastconv._core.geometry import conv_geometry
from fastconv._core.methods.direct import DirectProgram
from fastconv._core.plan import plan_for
from fastconv._core.problem import Direction
from fastconv._core.types import Types
from fastconv.grad import conv2d_input, conv2d_weight

FLOAT32 = Types(*(np.dtype("float32"),) * 3)
# (batch, channels, height, width), (outputs, channels of a group, kernel), options: input, kernel and output all small,
# one of them large along either axis.
CASES = [
    ((1, 1, 1, 1), (1, 1, 20, 20), {"padding": 19}),
    ((3, 5, 1, 1), (4, 5, 7, 7), {"padding": 6}),
    ((20, 6, 1, 1), (3, 6, 9, 4), {"padding": (8, 3)}),
    ((2, 8, 2, 3), (6, 4, 9, 8), {"padding": (8, 7), "groups": 2}),
    ((2, 24, 2, 2), (8, 6, 11, 11), {"padding": 10, "groups": 4}),
    ((17, 3, 4, 4), (5, 3, 7, 7), {"padding": 6, "stride": 2}),
    ((2, 3, 3, 2), (2, 3, 6, 5), {"padding": (10, 8), "dilation": 2}),
    ((18, 4, 2, 2), (3, 4, 8, 8), {"padding": 21, "dilation": 3, "stride": 2}),
    ((2, 4, 5, 5), (6, 4, 3, 3), {"padding": 6, "dilation": 6}),
    ((4, 3, 7, 7), (18, 3, 15, 15), {"padding": 7}),
    ((2, 2, 30, 1), (3, 2, 3, 30), {"padding": (1, 29)}),
    ((5, 40, 1, 1), (70, 40, 3, 3), {"padding": 1}),
    ((9, 3, 12, 12), (2, 3, 12, 12), {}),
    ((2, 4, 1, 6), (3, 4, 9, 2), {"padding": ((8, 3), (-1, 4))}),
    ((2, 3, 3, 3), (4, 3, 1, 1), {"padding": 5, "stride": 3}),
]


def arrays(case, dtype=np.float32, low=-4, high=5):
    shape, (outputs, channels, *kernel), options = case
    rng = np.random.default_rng(7)

    def some(*shape):
        return rng.integers(low, high, shape).astype(dtype)

    x, w = some(*shape), some(outputs, channels, *kernel)
    y = reference.conv2d(x, w, **options)
    return x, w, some(*y.shape), some(outputs), options


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8"])
def test_all_passes_are_exact(case, dtype):
    x, w, dy, bias, options = arrays(case, dtype, -1, 2)
    assert np.array_equal(fastconv.conv2d(x, w, bias, **options), reference.conv2d(x, w, bias, **options))
    for ours, theirs in zip(
        fastconv.conv2d_backward(dy, x, w, **options), reference.conv2d_backward(dy, x, w, **options), strict=True
    ):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_layouts_epilogues_and_transposed(case):
    x, w, dy, bias, options = arrays(case)
    add = np.moveaxis(dy, 1, 3)
    last = {**options, "data_format": "NHWC"}
    first = np.moveaxis(x, 1, 3), w.transpose(2, 3, 1, 0)
    for residual, b in ((None, bias), (add, None), (add, bias)):
        more = {"residual": residual, "activation": "relu"}
        assert np.array_equal(
            fastconv.conv2d(*first, b, **last, **more), reference.conv2d(*first, b, **last, **more)
        )
    if not isinstance(options.get("padding"), tuple) or isinstance(options["padding"][0], int):
        result = reference.conv_transpose2d(dy, w, np.resize(bias, x.shape[1]), **options)
        assert np.array_equal(fastconv.conv_transpose2d(dy, w, np.resize(bias, x.shape[1]), **options), result)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bits_do_not_depend_on_threads_batch_layout_or_plan(case):
    (batch, *_), _, options = case
    rng = np.random.default_rng(8)
    x, w, dy, bias, _ = (array if isinstance(array, dict) else array + rng.random(array.shape, np.float32) for array in
                         arrays(case))  # fmt: skip
    y = fastconv.conv2d(x, w, bias, **options)
    dx = conv2d_input(x.shape, w, dy, **options)
    dw = conv2d_weight(x, w.shape, dy, **options)
    for threads in (1, 3):
        assert np.array_equal(y, fastconv.conv2d(x, w, bias, num_threads=threads, **options))
        assert np.array_equal(dx, conv2d_input(x.shape, w, dy, num_threads=threads, **options))
        assert np.array_equal(dw, conv2d_weight(x, w.shape, dy, num_threads=threads, **options))
    for part in (slice(0, 1), slice(batch // 2, batch)):
        assert np.array_equal(y[part], fastconv.conv2d(x[part], w, bias, **options))
        assert np.array_equal(dx[part], conv2d_input(x[part].shape, w, dy[part], **options))
    last = fastconv.conv2d(np.moveaxis(x, 1, 3).copy(), w.transpose(2, 3, 1, 0), bias, **options, data_format="NHWC")
    assert np.array_equal(y, np.moveaxis(last, 3, 1))
    assert np.array_equal(y, fastconv.plan_conv2d(x.shape, w, bias, **options).run(x))


# Long sums whose kernel is many times as large as the image: the whole lays the image over the kernel.
PIECES = [((1, 64, 2, 12), (8, 64, 10, 12), (5, 3)), ((2, 700, 1, 2), (5, 700, 3, 5), (2, 4)),
          ((1, 8, 3, 4), (3, 8, 30, 30), (29, 29)), ((1, 512, 2, 1), (8, 512, 2, 5), (0, 4))]  # fmt: skip


@pytest.mark.parametrize("case", PIECES, ids=str)
def test_long_sums_have_the_same_bits_in_plans_and_pieces_of_the_image(case):
    array = pytest.importorskip("dask.array")
    from fastconv.dask import conv2d as conv2d_in_blocks

    shape, weight, padding = case
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal(shape, np.float32), rng.standard_normal(weight, np.float32)
    direct = fastconv.conv2d(x, w, padding=padding, algorithm="direct")
    assert np.array_equal(direct, fastconv.plan_conv2d(shape, w, padding=padding, algorithm="direct").run(x))
    for algorithm in ("auto", "direct"):
        whole = fastconv.conv2d(x, w, padding=padding, algorithm=algorithm)
        for chunks in ((1, -1, 1, -1), (1, -1, -1, 1), (1, -1, 1, 1)):
            blocks = conv2d_in_blocks(array.from_array(x, chunks=chunks), w, padding=padding, algorithm=algorithm)
            assert np.array_equal(blocks.compute(), whole)


@pytest.mark.parametrize("size, layer, options", [
    ((18, 4), "Conv2D", {"filters": 4, "kernel_size": 13, "strides": 2}),
    ((5, 11), "Conv2DTranspose", {"filters": 17, "kernel_size": 13}),
    ((1, 1), "Conv2DTranspose", {"filters": 3, "kernel_size": 20, "strides": 3}),
], ids=str)  # fmt: skip
def test_tiles_have_the_bits_of_the_whole(size, layer, options):
    net = fastconv.Sequential([getattr(fastconv.layers, layer)(padding="same", **options)], input_shape=(*size, 64))
    image = np.random.default_rng(0).standard_normal((*size, 64), np.float32)
    whole = net(image[None])[0]
    for tile in (1, 2, 3, 4, 6):
        assert np.array_equal(fastconv.tiled_predict(net, image, tile=tile), whole)


def test_whether_weights_are_finite_is_asked_with_little_memory():
    import tracemalloc

    x, w = np.zeros((1, 512, 3, 3), np.float16), np.zeros((256, 512, 7, 7), np.float16)
    tracemalloc.start()
    fastconv.conv2d(x, w, padding=3)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 0.1 * w.nbytes


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_not_finite_reaches_its_own_windows(case):
    x, w, dy, _, options = arrays(case)
    rng = np.random.default_rng(9)
    for array, value in ((x, np.nan), (w, np.inf), (dy, np.nan)):
        array.flat[rng.choice(array.size, max(1, array.size // 20), replace=False)] = value
    results = [fastconv.conv2d(x, w, **options), *fastconv.conv2d_backward(dy, x, w, **options)]
    with np.errstate(invalid="ignore"):
        expected = [reference.conv2d(x, w, **options), *reference.conv2d_backward(dy, x, w, **options)]
    for ours, theirs in zip(results, expected, strict=True):
        assert np.array_equal(ours, theirs, equal_nan=True)


def useful(geometry):
    """Products that meet an input, counted by hand."""
    g, total = geometry, geometry.batch * geometry.out_channels * geometry.in_channels // geometry.groups
    for axis in range(2):
        at = np.arange(g.output_size[axis])[:, None] * g.stride[axis] - g.padding[axis][0]
        at = at + np.arange(g.kernel_size[axis]) * g.dilation[axis]
        total *= int(((at >= 0) & (at < g.input_size[axis])).sum())
    return total


MANY_IMAGES = [((200, 1, 28, 28), (50, 1, 28, 28), {}), ((64, 512, 4, 4), (100, 512, 4, 4), {}),
               ((64, 512, 7, 7), (100, 512, 7, 7), {}), ((1, 1, 512, 512), (1, 1, 512, 512), {}),
               ((16, 32, 19, 19), (64, 32, 9, 9), {"stride": 2}), ((16, 32, 9, 9), (64, 32, 9, 9), {"padding": 8}),
               ((2, 64, 33, 33), (64, 64, 3, 3), {"padding": 30, "dilation": 30})]  # fmt: skip


@pytest.mark.parametrize("case", [*CASES, *MANY_IMAGES], ids=str)
@pytest.mark.parametrize("threads", [1, 2])
def test_work_follows_the_useful_products(case, threads):
    """At most twice as many multiplications in each pass, or so few that tiles of their own would take longer."""
    shape, weight, options = case
    stride, dilation, groups = (options.get(name, 1) for name in ("stride", "dilation", "groups"))
    g = conv_geometry(shape, weight, stride, options.get("padding", 0), dilation, groups, "zeros")
    least = useful(g)
    for direction in (Direction.FORWARD, Direction.INPUT_GRADIENT):
        told = plan_for(g, direction, FLOAT32, threads).explain(False)
        if told.algorithm != "direct":
            continue
        done = told.multiplications
        assert least <= done <= max(2 * least, 1 << 18)


def test_a_plan_packs_no_weights_that_meet_padding_alone():
    plan = fastconv.plan_conv2d((1, 8, 2, 2), np.ones((8, 8, 15, 15), np.float32), padding=7)
    alone = fastconv.plan_conv2d((1, 8, 2, 2), np.ones((8, 8, 3, 3), np.float32), padding=1)
    assert plan.explain().packed_weight_bytes == alone.explain().packed_weight_bytes
    assert plan.explain().multiplications == alone.explain().multiplications
    x = np.random.default_rng(0).random((1, 8, 2, 2), np.float32)
    assert np.array_equal(plan.run(x), alone.run(x))


def overlaps(x, w, before, after):
    """A kernel as large as the image, `before` pixels above or left of it and so on: what it covers, summed."""
    sums = np.zeros((x.shape[0], w.shape[0], *(1 + b + a for b, a in zip(before, after, strict=True))))
    for y in range(sums.shape[2]):
        for z in range(sums.shape[3]):
            dy, dx = y - before[0], z - before[1]
            image = x[:, :, max(0, dy) : dy + x.shape[2], max(0, dx) : dx + x.shape[3]]
            own = w[:, :, max(0, -dy) : x.shape[2] - dy, max(0, -dx) : x.shape[3] - dx]
            with np.errstate(invalid="ignore"):
                sums[:, :, y, z] = np.einsum("nchw,ochw->no", image.astype(float), own.astype(float))
    return sums


@pytest.mark.parametrize("shape, outputs, before, after", [
    ((1, 1, 900, 900), 1, (0, 0), (0, 0)), ((1, 3, 260, 270), 3, (0, 0), (0, 0)), ((2, 5, 370, 360), 2, (0, 0), (0, 0)),
    ((1, 2, 210, 210), 20, (1, 0), (0, 1)),  # a panel of the narrowest tile, too, is too large
], ids=str)  # fmt: skip
def test_weights_of_a_window_as_large_as_the_image_take_a_block_of_memory(shape, outputs, before, after):
    rng = np.random.default_rng(1)
    x = rng.integers(-2, 3, shape).astype(np.float32)
    w = rng.integers(-2, 3, (outputs, *shape[1:])).astype(np.float32)
    padding = tuple(zip(before, after, strict=True))
    assert np.array_equal(fastconv.conv2d(x, w, padding=padding), overlaps(x, w, before, after))
    g = conv_geometry(shape, w.shape, 1, padding, 1, 1)
    program = plan_for(g, Direction.FORWARD, FLOAT32, 2, "direct").program
    assert isinstance(program, DirectProgram)
    assert program.packs and program.streams and program.native.scratch_bytes(False) < 8 << 20
    w[-1, -1, -1, 3], w[0, 0, 5, 5] = np.nan, np.inf  # then the weights are packed before
    assert np.array_equal(fastconv.conv2d(x, w, padding=padding), overlaps(x, w, before, after), equal_nan=True)


@pytest.mark.parametrize("shape", [(2, 33, 3, (9, 7)), (1, 40, 1, (5, 4, 6)), (3, 64, 17, (50,))], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
def test_the_weight_gradient_of_few_outputs_has_its_lanes_across_the_channels(shape, dtype):
    batch, channels, outputs, size = shape
    rng = np.random.default_rng(channels)
    x, dy = (rng.integers(-4, 5, (batch, c, *size)).astype(dtype) for c in (channels, outputs))
    gradient, right = (getattr(module, f"conv{len(size)}d_weight") for module in (fastconv.grad, reference))
    kernel = (outputs, channels, *(1,) * len(size))
    np.testing.assert_array_equal(gradient(x, kernel, dy), right(x, kernel, dy))
    if dtype == "float32":
        dy[0, 0].flat[3], x[-1, 2].flat[5] = np.inf, np.nan
        np.testing.assert_array_equal(gradient(x, kernel, dy), right(x, kernel, dy))


def test_channels_last_inputs_of_several_taps_are_read_as_they_lie() -> None:
    """Less scratch than a copy takes, and products of the taps that meet the input alone; not of channels first, and
    not of few channels."""

    def told(layout: str, channels: int, size: int) -> fastconv.ConvExplanation:
        weight = np.ones((64, channels, 3, 3) if layout == "NCHW" else (3, 3, channels, 64), np.float32)
        shape = (1, channels, size, size) if layout == "NCHW" else (1, size, size, channels)
        return fastconv.plan_conv2d(
            shape, weight, None, 1, 8, 8, data_format=layout, algorithm="direct", num_threads=1
        ).explain()

    lies = told("NHWC", 64, 24)
    assert lies.source == "in place" and lies.workspace_bytes < 24 * 24 * 64 * 4
    assert lies.multiplications == (24 * 3 - 16) ** 2 * 64 * 64
    assert "in place" not in (told("NCHW", 64, 24).source, told("NHWC", 2, 24).source)
