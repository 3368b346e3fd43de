"""Where the text of ONNX's standard decides a pixel, an element or a refusal: grids against the text, in fractions."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor, prod
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the package onnx: pip install fastconv[onnx]")

import onnx_models  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnx_models import model  # noqa: E402

import fastconv  # noqa: E402
from fastconv.graph.operators import LATEST_OPSET, names  # noqa: E402
from fastconv.onnx import InferenceSession, OnnxError, UnsupportedOperator  # noqa: E402

make = onnx.helper.make_node
HALF = Fraction(1, 2)
rng = np.random.default_rng(0)


def one_node(node: Any, arrays: dict[str, Any], opset: int = 19) -> Any:
    """A model of one node that is fed all of these, of any lengths."""
    return onnx_models.one_node(onnx, node, arrays, opset)


# ---- Resize ----------------------------------------------------------------------------------------------------------

ROUNDING = {
    "floor": floor, "ceil": ceil, "round_prefer_floor": lambda x: ceil(x - HALF),
    "round_prefer_ceil": lambda x: floor(x + HALF),
}  # fmt: skip
MODES = ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "asymmetric", "align_corners")


def place(mode: str, size: int, length: int, scale: Fraction, i: int) -> Fraction:
    """Where result `i` lies in the input, by the formulas of the standard."""
    if mode == "asymmetric":
        return i / scale
    if mode == "align_corners":
        last = scale * size - 1
        return i * (size - 1) / last if last > 0 else Fraction(0)
    if mode == "pytorch_half_pixel" and length == 1:
        return Fraction(0)
    x = (i + HALF) / scale - HALF
    if mode == "half_pixel_symmetric":
        x += Fraction(size, 2) * (1 - length / (scale * size))
    return x


def nearest(mode: str, rounding: str, size: int, length: int, scale: Fraction) -> list[int]:
    places = (place(mode, size, length, scale, i) for i in range(length))
    return [min(max(ROUNDING[rounding](x), 0), size - 1) for x in places]


@pytest.mark.parametrize("rounding", ROUNDING)
@pytest.mark.parametrize("mode", MODES)
def test_nearest_pixels_by_sizes_and_scales(mode, rounding):
    """Every whole number and every tie among lengths up to 27, and scales that are powers of two, thirds and tenths."""
    options: dict[str, Any] = {
        "mode": "nearest", "coordinate_transformation_mode": mode, "nearest_mode": rounding,
    }  # fmt: skip
    some = {"x": np.zeros(1, np.float32), "s": np.zeros(1, np.int64)}
    by_sizes = InferenceSession(one_node(make("Resize", ["x", "", "", "s"], ["y"], **options), some))
    some["s"] = np.zeros(1, np.float32)
    by_scales = InferenceSession(one_node(make("Resize", ["x", "", "s"], ["y"], **options), some))
    for size in (1, 2, 3, 7, 10, 14, 27):
        x = np.arange(size, dtype=np.float32)
        for length in range(1, 28):
            (y,) = by_sizes.run(None, {"x": x, "s": np.array([length])})
            assert y.tolist() == nearest(mode, rounding, size, length, Fraction(length, size)), (size, length)
        for factor in (0.25, 0.3, 1 / 3, 0.5, 2 / 3, 1.1, 1.5, 2, 2.5, 3):
            scale = Fraction(float(np.float32(factor)))
            if length := floor(size * scale):
                (y,) = by_scales.run(None, {"x": x, "s": np.array([factor], np.float32)})
                assert y.tolist() == nearest(mode, rounding, size, length, scale), (size, factor)


def test_a_whole_number_that_floats_miss():
    """9 * 14 / 18 is 7, and a little less where the factor 18 / 14 is rounded first."""
    node = make("Resize", ["x", "", "", "s"], ["y"], mode="nearest", coordinate_transformation_mode="asymmetric",
                nearest_mode="floor")  # fmt: skip
    x = np.arange(14, dtype=np.float32).reshape(1, 1, 14)
    (y,) = InferenceSession(one_node(node, {"x": x, "s": np.zeros(3, np.int64)})).run(
        None, {"x": x, "s": np.array([1, 1, 18])}
    )
    assert y[0, 0].tolist() == [i * 14 // 18 for i in range(18)]


@pytest.mark.parametrize("rounding", ["floor", "ceil"])
def test_numerators_beyond_int64(rounding):
    """A crop that starts 1e-12 of the axis behind its first pixel: Python's integers count then."""
    node = make("Resize", ["x", "r", "", "s"], ["y"], mode="nearest", nearest_mode=rounding,
                coordinate_transformation_mode="tf_crop_and_resize")  # fmt: skip
    x = np.arange(9, dtype=np.int32)
    some = {"x": x, "r": np.zeros(2, np.float32), "s": np.zeros(1, np.int64)}
    (y,) = InferenceSession(one_node(node, some)).run(
        None, {"x": x, "r": np.array([1e-12, 1], np.float32), "s": np.array([5])}
    )
    start = Fraction(float(np.float32(1e-12)))
    places = [start * 8 + i * (1 - start) * 8 / 4 for i in range(5)]
    assert places[0] > 0 and y.tolist() == [ROUNDING[rounding](x) for x in places]


@pytest.mark.parametrize("policy", ["stretch", "not_larger", "not_smaller"])
def test_sizes_that_keep_the_ratio(policy):
    """One factor for both axes, the smaller or the larger; lengths to the nearest, halves up."""
    options: dict[str, Any] = {"mode": "nearest", "keep_aspect_ratio_policy": policy, "axes": [1, 0]}
    x = np.arange(7 * 10, dtype=np.float32).reshape(7, 10)
    node = make("Resize", ["x", "", "", "s"], ["y"], **options)
    session = InferenceSession(one_node(node, {"x": x, "s": np.zeros(2, np.int64)}))
    for width in (1, 3, 5, 9, 15, 20):
        for height in (1, 4, 7, 11, 21):
            factors = [Fraction(width, 10), Fraction(height, 7)]
            if policy != "stretch":
                factors = [(min if policy == "not_larger" else max)(factors)] * 2
            lengths = [floor(factors[0] * 10 + HALF), floor(factors[1] * 7 + HALF)]
            (y,) = session.run(None, {"x": x, "s": np.array([width, height])})
            columns = nearest("half_pixel", "round_prefer_floor", 10, lengths[0], factors[0])
            rows = nearest("half_pixel", "round_prefer_floor", 7, lengths[1], factors[1])
            np.testing.assert_array_equal(y, x[rows][:, columns])


@pytest.mark.parametrize("more", [{}, {"antialias": 1}, {"exclude_outside": 1}], ids=["", "antialias", "inside"])
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_weighted_sums_against_the_reference(mode, more):
    """Sizes up and down in every coordinate mode."""
    x = rng.standard_normal(9).astype(np.float64)
    for coordinates in ("half_pixel", "half_pixel_symmetric", "asymmetric", "align_corners"):
        node = make("Resize", ["x", "", "", "s"], ["y"], mode=mode, coordinate_transformation_mode=coordinates, **more)
        built = one_node(node, {"x": x, "s": np.zeros(1, np.int64)})
        session, theirs = InferenceSession(built), ReferenceEvaluator(built)
        for length in (1, 2, 4, 5, 8, 9, 10, 18, 23):
            feeds = {"x": x, "s": np.array([length])}
            ours, wanted = session.run(None, feeds)[0], theirs.run(None, feeds)[0]
            # the reference takes the cubic weights of a float32 coefficient in float32
            np.testing.assert_allclose(ours, wanted, rtol=1e-9 if mode == "linear" else 1e-5, atol=2e-6)


def test_a_whole_place_is_copied_and_integers_do_not_lose_one():
    """Linear: where a place is a pixel its very bits; an image of one colour keeps it in every integer type."""
    node = make("Resize", ["x", "", "", "s"], ["y"], mode="linear", coordinate_transformation_mode="asymmetric")
    x = rng.standard_normal(14).astype(np.float32)
    session = InferenceSession(one_node(node, {"x": x, "s": np.zeros(1, np.int64)}))
    (y,) = session.run(None, {"x": x, "s": np.array([18])})
    np.testing.assert_array_equal(y[::9], x[::7])
    for kind in (np.uint8, np.int8, np.int32):
        value = np.iinfo(kind).max
        flat = np.full(7, value, kind)
        session = InferenceSession(one_node(node, {"x": flat, "s": np.zeros(1, np.int64)}))
        for length in range(1, 30):
            (y,) = session.run(None, {"x": flat, "s": np.array([length])})
            assert y.dtype == kind and np.all(y == value), (kind, length)


@pytest.mark.parametrize("factor", [1.5, 2.0, 0.5, 1.25])
def test_upsample_is_the_pixel_before(factor):
    node = make("Upsample", ["x", "s"], ["y"], mode="nearest")
    x = np.arange(12, dtype=np.float32)
    session = InferenceSession(one_node(node, {"x": x, "s": np.zeros(1, np.float32)}, 9))
    (y,) = session.run(None, {"x": x, "s": np.array([factor], np.float32)})
    assert y.tolist() == [floor(i / Fraction(factor)) for i in range(floor(12 * factor))]


def test_a_crop_reaches_its_edges():
    """tf_crop_and_resize from 0.25 to 0.75 of five pixels: places 1 to 3, none of them outside."""
    node = make("Resize", ["x", "r", "", "s"], ["y"], mode="linear", extrapolation_value=-1.0,
                coordinate_transformation_mode="tf_crop_and_resize")  # fmt: skip
    x = np.arange(5, dtype=np.float32)
    some = {"x": x, "r": np.zeros(2, np.float32), "s": np.zeros(1, np.int64)}
    session = InferenceSession(one_node(node, some))
    crops = ((0.25, 0.75, [1, 1.5, 2, 2.5, 3]), (0, 1, [0, 1, 2, 3, 4]), (0.5, 1.5, [2, 3, 4, -1, -1]))
    for start, end, wanted in crops:
        feeds = {"x": x, "r": np.array([start, end], np.float32), "s": np.array([5])}
        assert session.run(None, feeds)[0].tolist() == wanted


@pytest.mark.parametrize("sizes", [[0], [-3], [1 << 41]])
def test_sizes_without_a_meaning_are_refused(sizes):
    node = make("Resize", ["x", "", "", "s"], ["y"])
    x = np.zeros(3, np.float32)
    with pytest.raises(OnnxError, match="Resize node"):
        InferenceSession(one_node(node, {"x": x, "s": np.zeros(1, np.int64)})).run(None, {"x": x, "s": np.array(sizes)})


# ---- Slice -----------------------------------------------------------------------------------------------------------

LEAST, MOST = -(1 << 63), (1 << 63) - 1


def sliced(size: int, start: int, end: int, step: int) -> list[int]:
    """Word for word: negative places are counted from the end, then clamped by the sign of the step."""
    start, end = start + size if start < 0 else start, end + size if end < 0 else end
    start = min(max(start, 0), size if step > 0 else size - 1)
    end = min(max(end, 0), size) if step > 0 else min(max(end, -1), size - 1)
    found = []
    while start < end if step > 0 else start > end:
        found.append(start)
        start += step
    return found if size else []


def test_slices_as_the_text_clamps_them():
    """Starts, ends and steps beyond either end, and at the ends of int64."""
    some = {"x": np.zeros(1, np.int32), **{name: np.zeros(1, np.int64) for name in "seat"}}
    session = InferenceSession(one_node(make("Slice", ["x", *"seat"], ["y"]), some))
    places = (LEAST, -9, -6, -5, -4, -1, 0, 1, 4, 5, 6, MOST)
    for size in (0, 1, 5):
        x = np.arange(size, dtype=np.int32)
        for start in places:
            for end in places:
                for step in (LEAST, -2, -1, 1, 3, MOST):
                    feeds = {"x": x, **{k: np.array([v]) for k, v in zip("seat", (start, end, 0, step), strict=True)}}
                    (y,) = session.run(None, feeds)
                    assert y.tolist() == sliced(size, start, end, step), (size, start, end, step)
    assert sliced(5, -6, -9, -2) == [0]


def test_slices_of_old_operator_sets_and_several_axes():
    x = np.arange(24).reshape(4, 6)
    some = {"x": x, **{name: np.zeros(2, np.int64) for name in "seat"}}
    session = InferenceSession(one_node(make("Slice", ["x", *"seat"], ["y"]), some))
    given = {"s": [-9, 5], "e": [-12, LEAST], "a": [-2, 1], "t": [-3, -2]}
    feeds = {"x": x, **{name: np.array(numbers) for name, numbers in given.items()}}
    assert session.run(None, feeds)[0].tolist() == [[5, 3, 1]]
    with pytest.raises(OnnxError, match="axis twice"):
        session.run(None, {**feeds, "a": np.array([1, -1])})
    with pytest.raises(OnnxError, match="steps"):
        session.run(None, {**feeds, "t": np.array([0, 1])})
    old = make("Slice", ["x"], ["y"], starts=[-9, 2], ends=[2, MOST])
    assert np.array_equal(InferenceSession(one_node(old, {"x": x}, 9)).run(None, {"x": x})[0], x[:2, 2:])


# ---- MaxUnpool -------------------------------------------------------------------------------------------------------


def unpooled(x: Any, size: tuple[int, ...], **options: Any) -> tuple[Any, Any]:
    """What MaxUnpool with an output_shape makes of MaxPool's maxima and places, and those maxima."""
    nodes = [make("MaxPool", ["x"], ["p", "i"], **options), make("MaxUnpool", ["p", "i", "s"], ["y"], **options)]
    built = model(onnx, nodes, {"x": list(x.shape)}, {"y": None, "p": None}, {"s": np.array(size)}, 12)
    y, p = InferenceSession(built).run(None, {"x": x})
    return y, p


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((1, 1, 7, 7), {"kernel_shape": [3, 3], "strides": [3, 3]}),
        ((2, 3, 7, 9), {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ((1, 1, 11), {"kernel_shape": [3], "strides": [3]}),
        ((2, 2, 5, 7, 3), {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2]}),
        ((1, 2, 8, 9), {"kernel_shape": [3, 3], "strides": [2, 3], "pads": [1, 0, 0, 1]}),
        ((1, 1, 9, 8), {"kernel_shape": [4, 4], "strides": [3, 3]}),
        ((1, 2, 6, 6), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ],
)  # fmt: skip
def test_maxima_return_to_where_they_were(shape, options, seed):
    """Whatever rows and columns no window reached, and however large the largest place happens to be."""
    x = np.random.default_rng(seed).permutation(prod(shape)).astype(np.float32).reshape(shape) + 1
    y, maxima = unpooled(x, shape, **options)
    assert y.shape == x.shape
    np.testing.assert_array_equal(y, np.where(np.isin(x, maxima), x, 0))


def test_places_in_the_least_result_as_in_the_standards_test():
    """Where places lie in their windows only so; and where the largest one is beyond, in the whole."""
    options: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}
    x = np.array([1, 2, 3, 4], np.float32).reshape(1, 1, 2, 2)
    some = {"x": x, "i": np.zeros((1, 1, 2, 2), np.int64), "s": np.zeros(4, np.int64)}
    session = InferenceSession(one_node(make("MaxUnpool", ["x", "i", "s"], ["y"], **options), some, 11))

    def run(*indices: int, size: int = 5) -> Any:
        feeds = {"x": x, "i": np.array(indices).reshape(1, 1, 2, 2), "s": np.array([1, 1, size, size])}
        return session.run(None, feeds)[0][0, 0]

    assert [tuple(at) for at in np.argwhere(run(5, 7, 13, 15)).tolist()] == [(1, 1), (1, 3), (3, 1), (3, 3)]
    assert np.flatnonzero(run(5, 7, 13, 24)).tolist() == [5, 7, 13, 24]
    assert np.flatnonzero(run(0, 2, 6, 8, size=3)).tolist() == [0, 2, 6, 8]  # of a pooling with ceil_mode
    for wrong in ((5, 7, 13, 25), (-1, 7, 13, 15)):
        with pytest.raises(OnnxError, match="outside"):
            run(*wrong)


# ---- attributes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names())
def test_an_unknown_attribute_is_refused_by_name(name):
    """For every operator, before anything else is made of the node."""
    version = {"Upsample": 9, "Scatter": 10}.get(name, LATEST_OPSET)
    schema = onnx.defs.get_schema(name, version, "")
    inputs = [f"i{at}" for at in range(schema.min_input)]
    node = make(name, inputs, [f"o{at}" for at in range(max(1, schema.min_output))], bogus=1)
    graph = onnx.helper.make_graph(
        [node], "one", [onnx.helper.make_tensor_value_info(i, 1, None) for i in inputs],
        [onnx.helper.make_tensor_value_info(node.output[0], 1, None)],
    )  # fmt: skip
    with pytest.raises(OnnxError, match=f"{name} node.*'bogus'"):
        InferenceSession(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", version)]))


def conv_with(**changed: Any) -> Any:
    node = make("Conv", ["x", "w"], ["y"], strides=[2, 2], **changed)
    return model(onnx, [node], {"x": [1, 1, 4, 4]}, {"y": None}, {"w": np.ones((1, 1, 1, 1), np.float32)})


@pytest.mark.parametrize(
    ("field", "value"), [("type", 2), ("type", 14), ("i", 3), ("f", 1.0), ("s", b"2"), ("floats", [1.0])]
)
def test_an_attribute_of_another_type_is_refused_by_name(field, value):
    """Whether its type says so, or the field in which its value stands."""
    built = conv_with()
    attribute = built.graph.node[0].attribute[0]
    if isinstance(value, list):
        getattr(attribute, field).extend(value)
    else:
        setattr(attribute, field, value)
    with pytest.raises(OnnxError, match=r"'strides' of type .* must be INTS"):
        InferenceSession(built)


def test_attributes_twice_missing_or_without_a_type():
    built = conv_with()
    built.graph.node[0].attribute.add().CopyFrom(built.graph.node[0].attribute[0])
    with pytest.raises(OnnxError, match="'strides' twice"):
        InferenceSession(built)
    x = {"x": [1, 1, 4, 4]}
    with pytest.raises(OnnxError, match="lacks its attribute 'axis'"):
        InferenceSession(model(onnx, [make("Concat", ["x", "x"], ["y"])], x, {"y": None}))
    built = conv_with()
    built.graph.node[0].attribute[0].ClearField("type")  # as files of the first version have it
    image = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    assert np.array_equal(InferenceSession(built).run(None, {"x": image})[0], image[:, :, ::2, ::2])


def test_the_domain_of_our_own_nodes_is_nobodys():
    """A file cannot name what the optimisation makes."""
    nodes = [make("Elementwise", ["x"], ["y"], domain="fastconv", chain=1)]
    with pytest.raises(UnsupportedOperator, match="fastconv::Elementwise") as caught:
        InferenceSession(model(onnx, nodes, {"x": [1]}, {"y": None}))
    assert isinstance(caught.value, fastconv.ConvError)
