"""GridSample, RoiAlign, DeformConv, Col2Im, NonMaxSuppression beside the evaluator, and where that is silent."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the package onnx: pip install fastconv[onnx]")

from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnx_models import one_node  # noqa: E402

from fastconv.graph.operators import deformable, regions, sampling  # noqa: E402
from fastconv.onnx import InferenceSession, OnnxError  # noqa: E402

make = onnx.helper.make_node
rng = np.random.default_rng(0)


def draw(*shape: int) -> Any:
    return rng.standard_normal(shape).astype(np.float32)


def run(node: Any, feeds: dict[str, Any], opset: int = 22, constants: Any = ()) -> Any:
    fed = {name: array for name, array in feeds.items() if name not in dict(constants)}
    (y,) = InferenceSession(one_node(onnx, node, fed, opset, constants)).run(None, fed)
    return y


def check(node: Any, feeds: dict[str, Any], opset: int = 22, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    (wanted,) = ReferenceEvaluator(one_node(onnx, node, feeds, opset)).run(None, feeds)
    y = run(node, feeds, opset)
    assert y.shape == wanted.shape and y.dtype == wanted.dtype, node
    np.testing.assert_allclose(y, wanted, rtol=rtol, atol=atol, err_msg=str(node))


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few places, so that there are many."""
    for module in (sampling, regions, deformable):
        monkeypatch.setattr(module, "BLOCK", 16)


# ---- GridSample ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
def test_grid_sample_of_one_to_three_axes(mode, padding, small_blocks):
    """Odd sizes, both alignments, places up to three images away."""
    for sizes, align in product(((5,), (3, 4), (1, 3), (2, 3, 2)), (0, 1)):
        if len(sizes) == 3 and mode == "cubic":
            continue  # the evaluator takes a minute
        x, lengths = draw(2, 3, *sizes), (3, 2, 2)[: len(sizes)]
        grid = rng.uniform(-3, 3, (2, *lengths, len(sizes))).astype(np.float32)
        if 1 in sizes and align and padding == "reflection":
            continue  # it divides by a span of zero
        options = {"mode": mode, "padding_mode": padding, "align_corners": align}
        check(make("GridSample", ["x", "g"], ["y"], **options), {"x": x, "g": grid})


def test_grid_sample_as_its_first_operator_set_spells_modes():
    x, grid = draw(1, 2, 4, 5), rng.uniform(-1, 1, (1, 2, 3, 2)).astype(np.float32)
    for old, new in (("bilinear", "linear"), ("bicubic", "cubic"), ("nearest", "nearest")):
        ys = [run(make("GridSample", ["x", "g"], ["y"], mode=mode), {"x": x, "g": grid}, opset)
              for mode, opset in ((old, 16), (new, 20))]  # fmt: skip
        np.testing.assert_array_equal(*ys)


def test_grid_sample_of_places_that_are_none():
    """Far away and infinite are outside; what is not a number gives none; nothing of an empty batch or grid."""
    x = draw(1, 2, 3, 4)
    places = np.array([[1e30, 0], [-np.inf, 0], [0, np.inf], [np.nan, 0], [0, np.nan]], np.float32).reshape(1, 1, 5, 2)
    for mode in ("linear", "nearest", "cubic"):
        y = run(make("GridSample", ["x", "g"], ["y"], mode=mode), {"x": x, "g": places})[0, :, 0]
        assert np.isnan(y[:, 3:]).all() and not y[:, :3].any(), mode
        for padding in ("border", "reflection"):
            run(make("GridSample", ["x", "g"], ["y"], mode=mode, padding_mode=padding), {"x": x, "g": places})
    node = make("GridSample", ["x", "g"], ["y"])
    assert run(node, {"x": draw(0, 2, 3, 4), "g": np.zeros((0, 5, 6, 2), np.float32)}).shape == (0, 2, 5, 6)
    assert run(node, {"x": x, "g": np.zeros((1, 0, 6, 2), np.float32)}).shape == (1, 2, 0, 6)
    with pytest.raises(OnnxError, match="has no pixels"):
        run(node, {"x": draw(1, 2, 0, 4), "g": np.zeros((1, 1, 1, 2), np.float32)})
    with pytest.raises(OnnxError, match="does not fit"):
        run(node, {"x": x, "g": np.zeros((1, 1, 1, 3), np.float32)})


def test_a_pixel_that_is_not_a_number_reaches_its_neighbours_alone():
    x = draw(1, 1, 5, 5)
    ends = np.linspace(-0.9, 0.9, 9)
    grid = np.stack(np.meshgrid(ends, ends), -1)[None].astype(np.float32)
    node = make("GridSample", ["x", "g"], ["y"], align_corners=1)
    clean = run(node, {"x": x, "g": grid})
    x[0, 0, 0, 0] = np.nan
    y = run(node, {"x": x, "g": grid})
    assert np.isnan(y[0, 0, :2, :2]).all()
    touched = np.isnan(y)
    np.testing.assert_array_equal(y[~touched], clean[~touched])
    assert touched.sum() == 4


# ---- regions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align_beside_the_evaluator(mode, small_blocks):
    """Fixed and adaptive samples, regions outside, empty and upside down, both operator sets' origins."""
    x = draw(3, 4, 7, 9)
    rois = np.array(
        [[0, 0, 8, 6], [-5, -3, 4, 2], [2.5, 1.5, 2.6, 1.7], [30, 30, 40, 50], [6, 5, 3, 2], [1, 0, 14, 21]]
    )
    feeds = {"x": x, "r": rois.astype(np.float32), "b": np.array([0, 2, 1, 1, 0, 2])}
    for ratio, scale, (height, width) in product((0, 1, 3), (0.5, 1.0), ((1, 1), (3, 2))):
        options = {"mode": mode, "sampling_ratio": ratio, "spatial_scale": scale, "output_height": height,
                   "output_width": width}  # fmt: skip
        for kind in ("half_pixel", "output_half_pixel"):
            node = make("RoiAlign", list("xrb"), ["y"], coordinate_transformation_mode=kind, **options)
            check(node, feeds)
        old = run(make("RoiAlign", list("xrb"), ["y"], **options), feeds, 10)
        np.testing.assert_array_equal(old, run(node, feeds))


def test_roi_align_of_nothing_and_of_wrong_images():
    node = make("RoiAlign", list("xrb"), ["y"], output_height=2, output_width=2)
    none = {"x": draw(1, 3, 4, 4), "r": np.zeros((0, 4), np.float32), "b": np.zeros(0, np.int64)}
    assert run(node, none).shape == (0, 3, 2, 2)
    one = {**none, "r": np.array([[0, 0, 3, np.nan]], np.float32), "b": np.array([0])}
    assert run(node, one).shape == (1, 3, 2, 2)
    with pytest.raises(OnnxError, match=r"RoiAlign node.*batch_indices"):
        run(node, {**one, "b": np.array([1])})
    with pytest.raises(OnnxError, match=r"max_value_bytes"):
        run(node, {**one, "r": np.array([[0, 0, 1e9, 1e9]], np.float32)})


def test_max_roi_pool_by_hand():
    """Whole pixels of rounded corners, both ends in; bins overlap where they do not divide."""
    x = np.arange(2 * 30, dtype=np.float32).reshape(1, 2, 5, 6)
    rois = np.array([[0, 0, 0, 5, 4], [0, 2, 1, 3, 3], [0, 9, 9, 12, 12]], np.float32)
    y = run(make("MaxRoiPool", ["x", "r"], ["y"], pooled_shape=[2, 2]), {"x": x, "r": rois})
    assert y[0, 0].tolist() == [[14, 17], [26, 29]] and y[1, 0].tolist() == [[14, 15], [20, 21]]
    assert not y[2].any()
    np.testing.assert_array_equal(y[:2, 1], y[:2, 0] + 30)


def naive_suppression(boxes: Any, scores: Any, most: int, limit: float, least: float | None) -> list[list[int]]:
    """One pair at a time."""
    found = []
    for image, label in product(range(scores.shape[0]), range(scores.shape[1])):
        order = sorted(range(boxes.shape[1]), key=lambda at: -scores[image, label, at])
        kept: list[int] = []
        for at in order:
            good = len(kept) < most and (least is None or scores[image, label, at] > least)
            if good and all(overlap(boxes[image, at], boxes[image, one]) <= limit for one in kept):
                kept.append(at)
        found += [[image, label, at] for at in kept]
    return found


def overlap(a: Any, b: Any) -> float:
    ends = [sorted((float(box[at]), float(box[at + 2]))) for at in (0, 1) for box in (a, b)]
    sides = [max(0.0, min(p[1], q[1]) - max(p[0], q[0])) for p, q in (ends[:2], ends[2:])]
    shared = sides[0] * sides[1]
    areas = [(ends[at][1] - ends[at][0]) * (ends[at + 2][1] - ends[at + 2][0]) for at in (0, 1)]
    return shared / (sum(areas) - shared) if shared > 0 else 0.0


@pytest.mark.parametrize("together", [4, 128])
def test_non_max_suppression_pair_by_pair(together, monkeypatch):
    monkeypatch.setattr(regions, "TOGETHER", together)
    for count, labels, images in ((0, 2, 1), (1, 1, 1), (30, 3, 2)):
        boxes = (rng.integers(0, 20, (images, count, 4)) / 2).astype(np.float32)
        scores = rng.permutation(images * labels * count).reshape(images, labels, count).astype(np.float32)
        for most, limit, least in (
            (3, 0.3, None),
            (100, 0.5, 20.0),
            (100, 0.0, None),
            (100, 1.0, None),
            (0, 0.5, None),
        ):
            feeds = {"b": boxes, "s": scores, "m": np.array([most]), "i": np.array([limit], np.float32)}
            if least is not None:
                feeds["t"] = np.array([least], np.float32)
            found = run(make("NonMaxSuppression", [*feeds], ["y"]), feeds, 11)
            assert found.dtype == np.int64 and found.shape[1] == 3
            assert found.tolist() == naive_suppression(boxes, scores, most, limit, least)
    centred = np.concatenate([(boxes[..., :2] + boxes[..., 2:]) / 2, np.abs(boxes[..., 2:] - boxes[..., :2])], -1)
    one = {"b": centred, "s": scores, "m": np.array([9]), "i": np.array([0.25], np.float32)}
    by_centre = run(make("NonMaxSuppression", [*one], ["y"], center_point_box=1), one, 11)
    assert by_centre.tolist() == run(make("NonMaxSuppression", [*one], ["y"]), {**one, "b": boxes}, 11).tolist()


def test_of_equal_scores_the_first_box_stays_and_none_comes_last():
    boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (1, 3, 1))
    node = make("NonMaxSuppression", list("bsmi"), ["y"])
    feeds = {"b": boxes, "s": np.array([[[np.nan, 2, 2]]], np.float32), "m": np.array([5]), "i": np.float32([0.5])}
    assert run(node, feeds, 11).tolist() == [[0, 0, 1]]


# ---- DeformConv and Col2Im -------------------------------------------------------------------------------------------


def test_deform_conv_beside_the_evaluator(small_blocks):
    """Groups of both kinds, strides, dilations, padding, masks; constant weights and fed ones."""
    for groups, parts, stride, dilation, mask, bias in (
        (1, 1, 1, 1, True, True), (2, 1, 2, 1, False, True), (1, 2, 1, 2, True, False), (2, 4, 2, 2, True, True),
    ):  # fmt: skip
        x, w = draw(2, 4, 5, 6), draw(6, 4 // groups, 3, 2)
        height, width = ((size + 2 - dilation * (k - 1) - 1) // stride + 1 for size, k in ((5, 3), (6, 2)))
        feeds = {"x": x, "w": w, "o": 2 * draw(2, parts * 12, height, width)}
        names = ["x", "w", "o", "b" if bias else "", "m" if mask else ""]
        feeds |= {"b": draw(6)} if bias else {}
        feeds |= {"m": draw(2, parts * 6, height, width)} if mask else {}
        options = {"group": groups, "offset_group": parts, "strides": [stride] * 2, "dilations": [dilation] * 2,
                   "pads": [1] * 4}  # fmt: skip
        node = make("DeformConv", names, ["y"], **options)
        if bias:  # the evaluator adds none twice
            check(node, feeds, 19, rtol=1e-3, atol=1e-4)
        fixed = {"w": w}
        np.testing.assert_allclose(run(node, feeds, 19, fixed), run(node, feeds, 19), rtol=1e-4, atol=1e-4)


def test_deform_conv_without_offsets_is_a_convolution_of_any_axes():
    for rank in (1, 2, 3):
        x, w = draw(2, 3, *range(4, 4 + rank)), draw(5, 3, *(2,) * rank)
        sizes = [size - 1 for size in x.shape[2:]]
        feeds = {"x": x, "w": w, "o": np.zeros((2, rank * 2**rank, *sizes), np.float32)}
        y = run(make("DeformConv", list("xwo"), ["y"]), feeds, 19)
        np.testing.assert_allclose(y, run(make("Conv", list("xw"), ["y"]), {"x": x, "w": w}), rtol=1e-4, atol=1e-5)
    far = {**feeds, "o": np.full_like(feeds["o"], 1e30)}
    assert not run(make("DeformConv", list("xwo"), ["y"]), far, 19).any()
    with pytest.raises(OnnxError, match=r"DeformConv node.*offsets"):
        run(make("DeformConv", list("xwo"), ["y"]), {**feeds, "o": np.zeros((2, 3, 1, 1, 1), np.float32)}, 19)


def test_col2im_beside_the_evaluator():
    for image, block, options in (
        ((5, 6), (2, 3), {}), ((7, 5), (3, 2), {"strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [2, 1]}),
        ((4, 3, 5), (2, 1, 2), {"strides": [1, 2, 3]}), ((9,), (3,), {"strides": [2]}),
    ):  # fmt: skip
        rank = len(image)
        stride, dilation = options.get("strides", [1] * rank), options.get("dilations", [1] * rank)
        pads = options.get("pads", [0] * 2 * rank)
        blocks = [(image[at] + pads[at] + pads[rank + at] - dilation[at] * (block[at] - 1) - 1) // stride[at] + 1
                  for at in range(rank)]  # fmt: skip
        feeds = {
            "x": draw(2, 3 * int(np.prod(block)), int(np.prod(blocks))),
            "i": np.array(image),
            "b": np.array(block),
        }
        check(make("Col2Im", list("xib"), ["y"], **options), feeds)
    with pytest.raises(OnnxError, match=r"Col2Im node.*blocks"):
        run(make("Col2Im", list("xib"), ["y"]), {**feeds, "i": np.array([90])})
    with pytest.raises(OnnxError, match=r"max_value_bytes"):
        far = {"x": draw(1, 1, 1), "i": np.array([1 << 39]), "b": np.array([1])}
        run(make("Col2Im", list("xib"), ["y"], strides=[1 << 39]), far)


def test_affine_grid_is_the_identity():
    """Of the identity: the middles of pixels, at which GridSample gives the image."""
    for align, sizes in product((0, 1), ((3, 5), (1, 4), (2, 3, 4))):
        rank = len(sizes)
        theta = np.eye(rank, rank + 1, dtype=np.float32)[None]
        feeds = {"t": theta, "s": np.array([1, 2, *sizes])}
        grid = run(make("AffineGrid", ["t", "s"], ["y"], align_corners=align), feeds)
        x = draw(1, 2, *sizes)
        y = run(make("GridSample", ["x", "g"], ["y"], align_corners=align), {"x": x, "g": grid})
        np.testing.assert_allclose(y, x, atol=1e-5)
