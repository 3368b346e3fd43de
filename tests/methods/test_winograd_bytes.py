"""Winograd's tiles of bytes, for who asks for results near the exact ones: how near, and that nothing else moves them.

The right values are those of the exact sums, which test_quantised.py holds to the reference.
"""

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fastconv import _native, layers
from fastconv._core.geometry import conv_geometry
from fastconv._core.methods import winograd_bytes
from fastconv._core.quantised import QuantisedPlan, Requantise
from fastconv.errors import ConvError
from fastconv.models import Sequential

# with products of four bytes; avx512_bf16 is avx512_vnni here
ISAS = [name for name in _native.isas_available() if name not in ("baseline", "avx2", "avx512", "avx512_bf16")]
# images, channels, outputs, rows, columns, padding: of less than a tile, odd, of many tiles and panels
SHAPES = [(1, 8, 8, 6, 6, 1), (2, 5, 7, 7, 9, 1), (1, 64, 64, 14, 14, 1), (3, 70, 65, 9, 5, 0), (1, 130, 200, 3, 3, 1),
          (1, 3, 64, 32, 31, 2), (2, 33, 17, 1, 1, 1), (1, 16, 300, 20, 20, 1)]  # fmt: skip


@pytest.fixture(params=ISAS, autouse=True)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    before = _native.isa_name()
    assert _native.isa_use(request.param)
    monkeypatch.setattr(winograd_bytes, "pays", lambda p: True)
    yield request.param
    _native.isa_use(before)


class Layer:
    """A quantised 3 x 3 layer with results over most of their range."""

    def __init__(self, shape: tuple[int, ...], kind: str, zero: int, seed: int = 0) -> None:
        self.images, channels, outputs, rows, columns, self.padding = shape
        rng, limits = np.random.default_rng(seed), np.iinfo(kind)
        x = rng.normal(0, 40, (self.images, rows, columns, channels)) + zero
        self.x = np.clip(np.rint(x), limits.min, limits.max).astype(kind)
        self.w = np.clip(np.rint(rng.normal(0, 35, (outputs, channels, 3, 3))), -127, 127).astype(np.int8)
        self.bias: Any = rng.integers(-20000, 20000, outputs).astype(np.int32)
        self.zero, self.kind = zero, kind
        multiplier = (np.exp2(rng.uniform(-0.5, 0.5, outputs)) / (70 * np.sqrt(9 * channels))).astype(np.float32)
        middle = int(limits.max + limits.min + 1) // 2
        self.how = Requantise(multiplier, middle, int(limits.min), int(limits.max), np.dtype(kind))

    def plan(self, nearly: bool, threads: int = 1, images: int | None = None) -> QuantisedPlan:
        sides = ((self.padding, self.padding),) * 2
        shape = (images or self.images, self.x.shape[3], *self.x.shape[1:3])
        g = conv_geometry(shape, self.w.shape, (1, 1), sides, (1, 1), 1, name="layer")
        return QuantisedPlan(
            g, self.w, np.zeros(1, np.int8), self.kind, self.zero, self.bias, self.how, threads=threads,
            data_format="channels_last", nearly=nearly,
        )  # fmt: skip


@pytest.mark.parametrize("kind, zero", [("uint8", 0), ("uint8", 100), ("int8", -5), ("int8", 0)])
@pytest.mark.parametrize("shape", SHAPES)
def test_results_are_near_those_of_exact_sums(shape: tuple[int, ...], kind: str, zero: int) -> None:
    """Within a few steps, about a step on the average, and with no mean of their own: with limits, too."""
    layer = Layer(shape, kind, zero)
    for how in (layer.how, layer.how._replace(low=layer.how.zero_point, high=layer.how.zero_point + 60)):
        layer.how = how
        plan = layer.plan(True)
        assert plan.explain().algorithm == plan.kind == "winograd"
        exact, found = (p.run(layer.x).astype(int) for p in (layer.plan(False), plan))
        off, count = found - exact, found.size
        assert found.min() >= how.low and found.max() <= how.high
        assert np.abs(off).max() <= 6 and np.sqrt((off**2).mean()) < 1.2
        assert abs(off.mean()) < 0.05 + 4 / np.sqrt(count)


@pytest.mark.parametrize("tap", range(9))
def test_every_tap_meets_its_input(tap: int) -> None:
    """One weight alone, of inputs that are quarters: what is taken off for rounding on the average is all."""
    layer = Layer((1, 20, 18, 7, 6, 1), "uint8", 128)
    layer.x &= 0xFC
    layer.bias = None
    layer.w[:] = 0
    layer.w[np.arange(18), np.arange(18), tap // 3, tap % 3] = 127
    layer.how = layer.how._replace(multiplier=np.full(18, 1 / 127, np.float32))
    exact, found = (layer.plan(nearly).run(layer.x).astype(int) for nearly in (False, True))
    assert np.abs(found - exact).max() <= 3 and np.ptp(exact) > 100


def test_bits_depend_on_the_tile_alone() -> None:
    """Not on threads, images beside it, the layout, or whether the plan was pickled."""
    layer = Layer((5, 40, 150, 11, 13, 1), "uint8", 7)
    plan = layer.plan(True)
    wanted = plan.run(layer.x)
    for threads in (2, 3):
        np.testing.assert_array_equal(layer.plan(True, threads).run(layer.x), wanted)
    for image, y in zip(layer.x, wanted, strict=True):
        np.testing.assert_array_equal(plan.run(image[None]), y[None])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(plan)).run(layer.x), wanted)
    turned = np.ascontiguousarray(layer.x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    into = np.empty((5, 150, 11, 13), np.uint8).transpose(0, 2, 3, 1)
    assert plan.run(turned, into) is into
    np.testing.assert_array_equal(into, wanted)
    assert plan.run(layer.x[:0]).shape == (0, 11, 13, 150)


def test_other_layers_stay_exact() -> None:
    """Of other strides, of groups, and those that it would not be faster for."""
    rng = np.random.default_rng(0)
    how = Layer((1, 8, 8, 6, 6, 1), "uint8", 0).how
    for stride, groups, kernel in ((2, 1, 3), (1, 2, 3), (1, 1, 2)):
        w = rng.integers(-127, 128, (8, 8 // groups, kernel, kernel)).astype(np.int8)
        g = conv_geometry((1, 8, 9, 9), w.shape, (stride,) * 2, ((1, 1),) * 2, (1, 1), groups, name="layer")
        plans = [
            QuantisedPlan(g, w, np.zeros(1, np.int8), "uint8", 3, None, how, nearly=nearly) for nearly in (False, True)
        ]
        x = rng.integers(0, 256, (1, 8, 9, 9), np.uint8)
        np.testing.assert_array_equal(*(plan.run(x) for plan in plans))
        assert plans[1].kind == "direct"


def test_narrow_layers_stay_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert Layer((1, 8, 8, 40, 40, 1), "uint8", 0).plan(True).kind == "direct"
    assert Layer((1, 256, 256, 14, 14, 1), "uint8", 0).plan(True).kind == "winograd"


def test_a_net_asks_for_it_by_name() -> None:
    conv = [layers.Conv2D(32, 3, padding="same", activation="relu") for _ in range(3)]
    net = Sequential([*conv, layers.GlobalAveragePooling2D(), layers.Dense(5)], (24, 24, 16), seed=0)
    images = np.random.default_rng(0).random((24, 24, 24, 16), np.float32)
    plans = {
        word: net.compile_inference(precision="int8", calibration=images, quantized=word)
        for word in ("integers", "winograd", "exact")
    }
    wanted = net.predict(images)
    off = {word: np.abs(plan.run(images) - wanted).max() / np.abs(wanted).max() for word, plan in plans.items()}
    assert max(off.values()) < 0.05
    kinds = {word: str(plan.explain()) for word, plan in plans.items()}
    assert "winograd in uint8" in kinds["winograd"] and "winograd in uint8" not in kinds["integers"] + kinds["exact"]
    again = pickle.loads(pickle.dumps(plans["winograd"]))
    np.testing.assert_array_equal(again.run(images), plans["winograd"].run(images))
    with pytest.raises(ConvError, match="quantized must be 'integers', 'exact' or 'winograd', but got 'fast'"):
        net.compile_inference(precision="int8", calibration=images, quantized="fast")
