"""Winograd along lines: what is its own. What every method keeps is in test_every_method."""

from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import grad, reference
from fastconv._core.geometry import conv_geometry
from fastconv._core.problem import Direction, problem
from fastconv._core.types import Types
from fastconv.testing.comparisons import Comparison
from fastconv.testing.problems import fill
from fastconv.testing.ways import limit, way

WISH = "winograd:lines"


def within(what: str, got: np.ndarray, expected: np.ndarray, bound: np.ndarray) -> None:
    fault = Comparison(what, got, expected, bound).fault()
    assert fault is None, fault


def compared(
    shape: tuple[int, ...], outputs: int, kernel: tuple[int, ...], values: str = "reals", **options: Any
) -> None:
    """A call, a plan and, at stride 1, the input gradient beside the reference."""
    axes, rng = len(kernel), np.random.default_rng(sum(kernel))
    x, w = fill(rng, shape, "float32"), fill(rng, (outputs, shape[1], *kernel), "float32")
    if values == "one sign":
        x, w = np.abs(x), np.abs(w)
    elif values == "constant":
        x, w = np.full_like(x, 1.1), np.full_like(w, 1.3)
    how = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "padding_mode": "zeros", **options}
    g = conv_geometry(x.shape, w.shape, *how.values())
    expected = getattr(reference, f"conv{axes}d")(x, w, **options)
    bound = limit(way(WISH), Direction.FORWARD, g, expected, x, w)
    within("call", getattr(fastconv, f"conv{axes}d")(x, w, **options, algorithm=WISH), expected, bound)
    plan = getattr(fastconv, f"plan_conv{axes}d")(x.shape, w, **options, algorithm=WISH)
    within("plan", plan.run(x), expected, bound)
    if options.get("stride", 1) == 1:
        dy = fill(rng, expected.shape, "float32")
        right = getattr(reference, f"conv{axes}d_input")(x.shape, w, dy, **options)
        bound = limit(way(WISH), Direction.INPUT_GRADIENT, g, right, dy, w)
        within("gradient", getattr(grad, f"conv{axes}d_input")(x.shape, w, dy, **options, algorithm=WISH), right, bound)


@pytest.mark.parametrize("taps", range(3, 18))
@pytest.mark.parametrize("size", [1, 4, 9, 30])
@pytest.mark.parametrize("dilation", [1, 3])
def test_every_number_of_taps_along_one_axis(taps, size, dilation):
    """Maps smaller than the kernel too."""
    for padding in (dilation * (taps - 1) // 2, dilation * (taps - 1), (dilation * taps, 1)):
        if size + (2 * padding if isinstance(padding, int) else sum(padding)) > dilation * (taps - 1):
            compared((2, 5, size), 18, (taps,), padding=padding if isinstance(padding, int) else [padding],
                     dilation=dilation)  # fmt: skip


@pytest.mark.parametrize("kernel", [(5, 5), (4, 7), (3, 5), (9, 9), (11, 6), (1, 7), (7, 1), (2, 13), (17, 3)], ids=str)
@pytest.mark.parametrize("size", [(3, 2), (13, 11), (8, 23)], ids=str)
def test_kernels_along_two_axes(kernel, size):
    padding = tuple(k - 1 for k in kernel)
    for channels, outputs in ((1, 1), (17, 35), (70, 66)):
        compared((2, channels, *size), outputs, kernel, padding=padding)
    compared((1, 6, *size), 7, kernel, padding=padding, dilation=(1, 2), stride=1)
    if min(kernel) < 3:
        compared((1, 6, *size), 7, kernel, padding=padding, stride=tuple(2 if k < 3 else 1 for k in kernel))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_that_repeats_pixels(mode):
    compared((2, 9, 12, 14), 20, (5, 7), padding=(2, 3), padding_mode=mode)
    compared((2, 9, 8, 9, 14), 20, (3, 1, 5), padding=(1, 0, 2), padding_mode=mode)


KERNELS = [(3, 1, 1), (1, 3, 1), (1, 1, 5), (1, 5, 5), (3, 5, 4), (5, 3, 1), (4, 1, 3), (2, 3, 1), (5, 2, 2)]


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_volumes(kernel):
    for channels, outputs, size in ((5, 17, (6, 7, 9)), (33, 20, (3, 4, 5))):
        compared((2, channels, *size), outputs, kernel, padding=tuple(k // 2 for k in kernel))
        compared((1, channels, *size), outputs, kernel, padding=tuple(k - 1 for k in kernel))
    compared((1, 4, 9, 8, 7), 6, kernel, padding=1, stride=tuple(2 if k < 3 else 1 for k in kernel))


@pytest.mark.parametrize("values", ["reals", "one sign", "constant"])
@pytest.mark.parametrize("kernel", [(5, 5), (9, 9), (1, 7)], ids=str)
def test_many_channels(kernel, values):
    compared((1, 300, 14, 15), 70, kernel, values, padding=tuple(k // 2 for k in kernel))


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf, 1e37], ids=str)
@pytest.mark.parametrize("kernel", [(1, 7, 7), (3, 1, 1), (5, 5, 1), (3, 5, 5), (1, 1, 9)], ids=str)
def test_special_values_reach_their_own_outputs_alone(special, kernel):
    rng = np.random.default_rng(2)
    x, w = fill(rng, (2, 3, 7, 12, 13), "float32"), np.tanh(fill(rng, (18, 3, *kernel), "float32"))
    bad, weight = x.copy(), w.copy()
    bad[1, 2, 3, 9, 4], weight[5, 1, 0, 0, -1 % kernel[2]] = special, special
    for input, own in ((bad, w), (x, weight)):
        options: dict[str, Any] = {"padding": tuple(k // 2 for k in kernel)}
        expected = reference.conv3d(input, own, **options)
        plan = fastconv.plan_conv3d(x.shape, own, **options, algorithm=WISH)
        for y in (plan.run(input), fastconv.conv3d(input, own, **options, algorithm=WISH)):
            for test in (np.isnan, np.isposinf, np.isneginf):
                np.testing.assert_array_equal(test(y), test(expected))


def test_it_multiplies_less():
    """As many as it says, of layers that it takes by itself."""
    layers = [((5, 5), (28, 28), 6.25), ((7, 7), (28, 28), 4), ((9, 9), (28, 28), 5.06), ((7,), (800,), 2.8)]
    for kernel, size, fewer in layers:
        w = np.zeros((64, 64, *kernel), np.float32)
        plan = getattr(fastconv, f"plan_conv{len(kernel)}d")((1, 64, *size), w, padding=kernel[0] // 2)
        told = plan.explain()
        assert (told.algorithm, told.variant) == ("winograd", "lines")
        assert told.macs == pytest.approx(fewer * told.multiplications, rel=0.01)


def test_a_block_beyond_the_kernel_makes_an_axis_one_grain():
    w = way(WISH)
    for kernel, grain in (((5, 9), (4, 4)), ((4, 1), (4, 1)), ((7, 5), (24, 4)), ((1, 7), (1, 4)), ((6, 1), (24, 1))):
        g = conv_geometry((1, 2, 20, 30), (2, 2, *kernel), 1, "same", 1, 1)
        float32 = np.dtype("float32")
        p = problem(g, Direction.FORWARD, Types(float32, float32, float32))
        assert w.method.grain(p, w.variant) == (1, *grain)


def test_it_says_why_not():
    x, w = np.ones((1, 4, 20, 20), np.float32), np.ones((4, 4, 5, 5), np.float32)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"stride": 2}, "no axis has three taps or more at stride 1"),
        ({"weight": w[..., :3, :3]}, "3 x 3"),
        ({"weight": w[..., :2, :2]}, "no axis has three taps"),
        ({"weight": w[:, :2], "groups": 2}, "groups is 2"),
        ({"dilation": 2, "padding": 4, "padding_mode": "reflect"}, "dilated"),
        ({"input": x.astype(float), "weight": w.astype(float)}, "float64"),
    ]
    for change, why in wrong:
        with pytest.raises(fastconv.ConvError, match=why):
            fastconv.conv2d(**{"input": x, "weight": w, "algorithm": WISH, **change})
    with pytest.raises(fastconv.ConvError, match="no weight gradient"):
        grad.conv2d_weight(x, w.shape, np.ones((1, 4, 16, 16), np.float32), algorithm=WISH)
    with pytest.raises(fastconv.ConvError, match="no input gradient at a stride"):
        grad.conv2d_input(x.shape, w, np.ones((1, 4, 8, 8), np.float32), stride=2, algorithm=WISH)
