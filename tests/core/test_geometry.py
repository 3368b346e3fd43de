"""Shape rules against brute force and against the published numbers of other libraries. Nothing is convolved here."""

from itertools import product

import numpy as np
import pytest

from fastconv import ConvError, ConvTypeError
from fastconv._core.geometry import Geometry, conv_geometry, padded_index, tiled_geometries
from fastconv._core.transposed import conv_transpose_geometry
from fastconv._core.windows import pool_geometry
from fastconv._core.words import PADDING_MODES, parse_padding


def conv(size, kernel, stride=1, padding=0, dilation=1, groups=1, mode="zeros", channels=(2, 4), batch=1) -> Geometry:
    into, out = channels
    return conv_geometry(
        (batch, into, *size), (out, into // groups, *kernel), stride, padding, dilation, groups, mode
    )


def transposed(size, kernel, stride=1, padding=0, output_padding=0, dilation=1, groups=1) -> Geometry:
    return conv_transpose_geometry((1, 2, *size), (2, 3, *kernel), stride, padding, output_padding, groups, dilation)


# ---- convolution -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2, 3, 7])
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_outputs_are_the_windows_that_fit(kernel, dilation, stride):
    for size, before, after in product((1, 2, 5, 12), (0, 1, 3), (0, 2)):
        padded, extent = size + before + after, (kernel - 1) * dilation + 1
        starts = [y for y in range(0, padded, stride) if y + extent <= padded]
        pads = ((before, after), (0, 0))
        if not starts:
            with pytest.raises(ConvError, match="larger than the padded input"):
                conv((size, 1), (kernel, 1), stride, pads, dilation)
            continue
        g = conv((size, 1), (kernel, 1), (stride, 1), pads, (dilation, 1))
        assert g.output_size == (len(starts), 1)


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("word", ["same", "same_lower"])
def test_same_is_the_rule_of_tensorflow(word, kernel, dilation, stride):
    for size in range(1, 14):
        g = conv((size, size), (kernel, kernel), stride, word, dilation)
        outputs = -(-size // stride)
        total = max((outputs - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
        small, large = total // 2, total - total // 2
        sides = (small, large) if word == "same" else (large, small)
        assert g.output_size == (outputs, outputs)
        assert g.padding == (sides, sides)


def test_full_has_an_output_wherever_the_kernel_touches_the_input():
    g = conv((5, 7), (3, 2), padding="full", dilation=(2, 1))
    assert g.padding == ((4, 4), (1, 1))
    assert g.output_size == (5 + 4, 7 + 1)


@pytest.mark.parametrize(
    ("padding", "expected"),
    [
        (0, ((0, 0), (0, 0))),
        (2, ((2, 2), (2, 2))),
        ((1,), ((1, 1), (1, 1))),
        ((1, 2), ((1, 1), (2, 2))),
        ([1, 2], ((1, 1), (2, 2))),
        (np.array([1, 2]), ((1, 1), (2, 2))),
        (np.int64(2), ((2, 2), (2, 2))),
        (((1, 2), (3, 4)), ((1, 2), (3, 4))),
        ([[1, 2], [3, 4]], ((1, 2), (3, 4))),
        (np.array([[1, 2], [3, 4]]), ((1, 2), (3, 4))),
        (((-1, 2), (0, -3)), ((-1, 2), (0, -3))),
        ("valid", ((0, 0), (0, 0))),
        ("Same", ((1, 1), (1, 1))),
        ("SAME_LOWER", ((1, 1), (1, 1))),
        ("FULL", ((2, 2), (2, 2))),
    ],
)
def test_every_form_of_padding(padding, expected):
    assert conv((9, 9), (3, 3), padding=padding).padding == expected


@pytest.mark.parametrize(
    ("padding", "expected"),
    [
        (2, ((2, 2),)),
        ((3,), ((3, 3),)),
        (((1, 2),), ((1, 2),)),
        (((-1, 2),), ((-1, 2),)),
        ("SAME", "same"),
    ],
)
def test_every_form_of_padding_without_a_height(padding, expected):
    assert parse_padding(padding, 1) == expected


def test_sizes_strides_and_groups_end_up_in_the_geometry():
    assert conv_geometry((5, 6, 9, 10), (9, 2, 3, 2), (2, 3), ((1, 0), (2, 1)), (1, 2), 3, "Reflect") == Geometry(
        batch=5,
        in_channels=6,
        out_channels=9,
        groups=3,
        input_size=(9, 10),
        kernel_size=(3, 2),
        output_size=(4, 4),
        stride=(2, 3),
        dilation=(1, 2),
        padding=((1, 0), (2, 1)),
        padding_mode="reflect",
    )


def test_a_crop_shortens_the_input():
    assert conv((9, 9), (3, 3), padding=((-2, 0), (0, -3))).output_size == (5, 4)
    assert conv((3, 3), (1, 1), padding=((-3, 2), (0, 0))).output_size == (2, 3)  # all cropped, then padded
    with pytest.raises(ConvError, match="crops 4 of the 3"):
        conv((3, 3), (1, 1), padding=((-2, -2), (0, 0)))


def test_empty_axes():
    assert conv((4, 4), (3, 3), batch=0).output_size == (2, 2)
    assert conv((4, 4), (3, 3), channels=(0, 4)).in_channels == 0
    assert conv((4, 4), (3, 3), channels=(2, 0)).out_channels == 0
    assert conv((0, 4), (3, 3), padding=2).output_size == (2, 6)  # nothing but padding
    assert conv((0, 4), (3, 3), padding="same").output_size == (0, 4)
    with pytest.raises(ConvError, match="larger than the padded input"):
        conv((0, 4), (3, 3))
    with pytest.raises(ConvError, match="nothing to repeat"):
        conv((0, 4), (3, 3), padding=2, mode="circular")


@pytest.mark.parametrize(
    ("shape", "weight", "options"),
    [
        ((2, 3, 2, 2), (4, 3, 3, 3), {"padding": 2**40}),
        ((2**31, 1, 2**31, 1), (1, 1, 1, 1), {}),
        ((1, 1, 1, 1), (2**31, 1, 2**31, 1), {"padding": 2**31}),
        ((1, 1, 4, 4), (1, 1, 2, 2), {"dilation": 2**60, "padding": 2**59}),
        ((1, 1, 4, 4), (1, 1, 2, 2), {"padding": 2**60}),
        ((1, 1, 4, 4), (1, 1, 2, 2), {"padding": "full", "dilation": 2**60}),
        ((0, 1, 4, 4), (1, 1, 2, 2), {"padding": 2**40}),  # an empty batch is no way round
        ((1, 1, 4, 4), (1, 1, 2, 2), {"padding": 2**40, "stride": 2**39, "padding_mode": "circular"}),
    ],
)
def test_sizes_that_overflow_are_refused(shape, weight, options):
    options = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1} | options
    with pytest.raises(ConvError, match=r"2\*\*6[03]"):
        conv_geometry(shape, weight, **options)


def test_transposed_sizes_that_overflow_are_refused():
    with pytest.raises(ConvError, match="stride"):
        transposed((4, 4), (3, 3), stride=2**59)
    with pytest.raises(ConvError, match="output"):
        transposed((4, 4), (3, 3), stride=2**40)


# ---- transposed convolution --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_the_transposed_size_is_one_that_the_convolution_takes_back(kernel, dilation, stride):
    for size, padding, extra in product((1, 2, 5), (0, 1, "same"), range(stride)):
        extent = (kernel - 1) * dilation + 1
        if padding == 1 and (size - 1) * stride + extent + extra - 2 < 1:
            continue
        g = transposed((size, size), (kernel, kernel), stride, padding, extra, dilation)
        assert g.output_size == (size, size)
        back = conv(g.input_size, (kernel, kernel), stride, g.padding if padding == "same" else padding, dilation)
        assert back.output_size[0] in (size, size + (1 if padding == "same" and extra else 0))


def test_transposed_sizes_of_other_libraries():
    assert transposed((8, 8), (3, 3), 2).input_size == (17, 17)  # PyTorch, ONNX
    assert transposed((8, 8), (1, 1), 2).input_size == (15, 15)
    assert transposed((8, 8), (3, 3), 2, 1, 1).input_size == (16, 16)
    assert transposed((8, 8), (3, 3), 2, "same").input_size == (16, 16)  # Keras, JAX, the ONNX specification
    assert transposed((8, 8), (1, 1), 3, "same").input_size == (24, 24)
    assert transposed((3, 3), (3, 3), 1, ((-1, 0), (0, -2))).input_size == (6, 7)
    assert transposed((3, 3), (3, 3), 1, 0, 1, dilation=2).input_size == (8, 8)  # below the dilation


def test_transposed_channels_are_those_of_the_adjoint():
    g = conv_transpose_geometry((5, 6, 4, 4), (6, 2, 3, 3), 1, 0, 0, 3, 1)
    assert (g.batch, g.in_channels, g.out_channels, g.groups) == (5, 6, 6, 3)


@pytest.mark.parametrize(("output_padding", "stride", "dilation"), [(1, 1, 1), (2, 2, 1), (3, 1, 3), ((0, 2), 2, 2)])
def test_output_padding_stays_below_stride_or_dilation(output_padding, stride, dilation):
    with pytest.raises(ConvError, match="output_padding"):
        transposed((4, 4), (3, 3), stride, 0, output_padding, dilation)


# ---- padding modes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "numpy_mode"),
    [("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap"), ("symmetric", "symmetric")],
)
def test_padding_modes_repeat_as_numpy_does(mode, numpy_mode):
    for n, pad in product((1, 2, 3, 5), (0, 1, 4, 13)):
        expected = np.pad(np.arange(n), pad, mode=numpy_mode).tolist()
        assert [padded_index(i, n, mode) for i in range(-pad, n + pad)] == expected


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_padding_modes_leave_the_sizes_alone(mode):
    assert conv((4, 4), (3, 3), padding=9, mode=mode).output_size == (20, 20)
    assert conv((4, 4), (3, 3), padding=1, mode=mode.upper()).padding_mode == (mode if mode != "constant" else "zeros")


# ---- tiled convolution -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tiles", [(1, 1), (2, 3), (5, 2), (9, 9)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, "same", ((2, 0), (-1, 3))])
def test_tiles_look_where_the_whole_looks(tiles, stride, padding):
    g = conv((9, 8), (3, 2), stride, padding)
    seen = np.zeros(g.output_size, int)
    for (a, b), part in tiled_geometries(g, tiles):
        view = seen[a :: tiles[0], b :: tiles[1]]
        assert view.shape == part.output_size
        view += 1
        for axis, first in ((0, a), (1, b)):
            for y in range(part.output_size[axis]):
                whole = (first + y * tiles[axis]) * g.stride[axis] - g.padding[axis][0]
                assert y * part.stride[axis] - part.padding[axis][0] == whole
    assert (seen == 1).all()


# ---- pooling -----------------------------------------------------------------------------------------------------


def pool(size, kernel, stride=None, padding=0, dilation=1, ceil_mode=False):
    return pool_geometry((1, 1, *size), kernel, stride, padding, dilation, ceil_mode)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
def test_pooling_windows(kernel, stride, ceil_mode):
    for size, pad in product(range(1, 11), range(kernel // 2 + 1)):
        padded = size + 2 * pad
        starts = [y for y in range(0, padded, stride) if y + kernel <= padded]
        if ceil_mode:  # a partial last window counts if it starts in the input or the padding before it
            first = starts[-1] + stride if starts else 0
            starts += [first] if first + kernel > padded > first + kernel - stride and first < size + pad else []
        if not starts:
            with pytest.raises(ConvError, match="kernel_size"):
                pool((size, size), kernel, stride, pad, 1, ceil_mode)
        else:
            assert pool((size, size), kernel, stride, pad, 1, ceil_mode).output_size[0] == len(starts)


def test_pooling_numbers_of_pytorch():
    assert pool((4, 4), 3, 2, 1, ceil_mode=True).output_size == (3, 3)
    assert pool((5, 5), 2, 2, ceil_mode=True).output_size == (3, 3)
    assert pool((5, 5), 2).output_size == (2, 2)  # the stride is the kernel's unless given
    assert pool((7, 9), (3, 2), (2, 1), (1, 0), (2, 3)).output_size == (3, 6)
    assert pool((2, 2), 3, 2, ceil_mode=True).output_size == (1, 1)


def test_pooling_takes_words_and_sides():
    assert pool((5, 6), 3, 2, "SAME").padding == ((1, 1), (0, 1))
    assert pool((5, 6), 3, 2, "same_lower").padding == ((1, 1), (1, 0))
    assert pool((5, 6), 3, 2, "valid").padding == ((0, 0), (0, 0))
    assert pool((5, 6), 3, 2, ((0, 1), (1, 0))).output_size == (2, 3)
    assert pool_geometry((2, 3, 0, 4), 2, 2, "same").output_size == (0, 2)
    assert pool_geometry((0, 3, 4, 4), 2).output_size == (2, 2)


@pytest.mark.parametrize("padding", [2, (0, 2), ((0, 2), (0, 0)), ((-1, 0), (0, 0)), "full"])
def test_pooling_padding_stays_within_half_a_window(padding):
    with pytest.raises(ConvError, match="padding"):
        pool((6, 6), 3, 1, padding)


def test_a_dilated_window_may_not_step_over_the_input():
    with pytest.raises(ConvError, match="steps over"):
        pool((1, 4), (2, 1), 1, (2, 0), (4, 1))
    assert pool((2, 4), (2, 1), 1, (1, 0), (2, 1)).output_size == (2, 4)


# ---- wording -----------------------------------------------------------------------------------------------------


def test_messages_show_the_shapes_of_the_caller():
    shown = ((2, 8, 8, 5), (3, 3, 3, 4))
    with pytest.raises(ConvError, match=r"\(3, 3, 3, 4\).*\(2, 8, 8, 5\)"):
        conv_geometry((2, 5, 8, 8), (4, 3, 3, 3), 1, 0, 1, 1, shown=shown)


def test_a_misplaced_channel_axis_is_recognised():
    with pytest.raises(ConvError, match="data_format='NHWC'"):
        conv_geometry((2, 8, 8, 3), (4, 3, 3, 3), 1, 0, 1, 1)


@pytest.mark.parametrize("value", [1.0, True, None, "1", (1, 1.0), np.float64(1), np.array(1.0)])
def test_only_integers_pass_for_integers(value):
    with pytest.raises(ConvTypeError, match="stride"):
        conv((4, 4), (1, 1), stride=value)


@pytest.mark.parametrize("value", [2, (2,), (2, 2), [2, 2], np.int8(2), np.array(2), np.array([2, 2])])
def test_every_spelling_of_an_integer_passes(value):
    assert conv((4, 4), (1, 1), stride=value).stride == (2, 2)
