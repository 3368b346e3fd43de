"""Weights behind a flattened map: PyTorch's order, channel by channel, into ours, whatever stands between.

A net is a list of PyTorch's operations with their weights, computed here in NumPy on NCHW as PyTorch computes them; our
net of the same layers must give the same answers, in both data formats, or the load must be refused.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_weights_order import as_pth

from fastconv import ConvError, layers, reference
from fastconv.models import Sequential
from fastconv.weights import load_weights

EPSILON = 1e-5
TOLERANCE = 1e-4
HEIGHT, WIDTH, CHANNELS = 5, 4, 3
Array = Any


class Theirs:
    """PyTorch's net: operations are added with drawn weights, under the names of a `Sequential`."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(5)
        self.state: OrderedDict[str, Array] = OrderedDict()
        self.steps: list[Callable[[Array], Array]] = []

    def drawn(self, name: str, *shape: int, least: float = -0.5) -> Array:
        array = self.random.uniform(least, 0.5 if least < 0 else 2.0, shape).astype(np.float32)
        self.state[f"{len(self.steps)}.{name}"] = array
        return array

    def conv(self, inner: int, outer: int, size: int) -> Theirs:
        weight, bias = self.drawn("weight", outer, inner, size, size), self.drawn("bias", outer)
        return self.then(lambda x: reference.conv2d(x, weight, bias))

    def linear(self, inner: int, outer: int) -> Theirs:
        weight, bias = self.drawn("weight", outer, inner), self.drawn("bias", outer)
        return self.then(lambda x: x @ weight.T + bias)

    def norm(self, count: int) -> Theirs:
        weight, bias, mean = (self.drawn(name, count) for name in ("weight", "bias", "running_mean"))
        variance = self.drawn("running_var", count, least=0.5)

        def apply(x: Array) -> Array:
            weights = (part.reshape(1, -1, *[1] * (x.ndim - 2)) for part in (weight, bias, mean, variance))
            w, b, m, v = weights
            return (x - m) / np.sqrt(v + EPSILON) * w + b

        return self.then(apply)

    def flatten(self) -> Theirs:
        return self.then(lambda x: x.reshape(len(x), -1))

    def view(self, *shape: int) -> Theirs:
        return self.then(lambda x: x.reshape(len(x), *shape))

    def relu(self) -> Theirs:
        return self.then(lambda x: np.maximum(x, 0))

    def mean(self) -> Theirs:
        return self.then(lambda x: x.mean((2, 3)))

    def then(self, step: Callable[[Array], Array]) -> Theirs:
        self.steps.append(step)
        return self

    def __call__(self, x: Array) -> Array:
        for step in self.steps:
            x = step(x)
        return x


class Ours:
    """Our layers in one data format; shapes of maps are given as (H, W, C)."""

    def __init__(self, channels_last: bool) -> None:
        self.channels_last = channels_last
        self.options: dict[str, Any] = {"data_format": "channels_last" if channels_last else "channels_first"}

    def shape(self, height: int, width: int, channels: int) -> tuple[int, int, int]:
        return (height, width, channels) if self.channels_last else (channels, height, width)

    def conv(self, filters: int, size: int) -> layers.Layer:
        return layers.Conv2D(filters, size, **self.options)

    def norm(self) -> layers.Layer:
        return layers.BatchNormalization(epsilon=EPSILON, **self.options)

    def flatten(self) -> layers.Layer:
        return layers.Flatten(**self.options)

    def view(self, height: int, width: int, channels: int) -> layers.Layer:
        return layers.Reshape(self.shape(height, width, channels))

    def mean(self) -> layers.Layer:
        return layers.GlobalAveragePooling2D(**self.options)


FLATTENED = 3 * 2 * 4
FLAT: dict[str, Callable[[Ours], layers.Layer]] = {
    "Flatten": Ours.flatten,
    "Reshape": lambda net: layers.Reshape((-1,)),
    "Reshape by its size": lambda net: layers.Reshape((FLATTENED,)),
    "a model": lambda net: Sequential([net.flatten(), layers.Dropout(0.1)]),
    "twice": lambda net: Sequential([net.flatten(), layers.Reshape((-1,))]),
    "a Flatten without a format": lambda net: layers.Flatten(),
}
BEHIND: dict[str, tuple[Callable[[Theirs], Theirs], Callable[[Ours], list[layers.Layer]]]] = {
    "dense": (lambda net: net.linear(FLATTENED, 5), lambda net: [layers.Dense(5)]),
    "two dense": (
        lambda net: net.linear(FLATTENED, FLATTENED).linear(FLATTENED, FLATTENED),
        lambda net: [layers.Dense(FLATTENED), layers.Dense(FLATTENED)],
    ),
    "norm, activation, dropout": (
        lambda net: net.norm(FLATTENED).relu().norm(FLATTENED).linear(FLATTENED, FLATTENED).norm(FLATTENED),
        lambda net: [net.norm(), layers.ReLU(), layers.Dropout(0.5), net.norm(), layers.Dense(FLATTENED), net.norm()],
    ),
    "in models": (
        lambda net: net.norm(FLATTENED).linear(FLATTENED, 5).linear(5, 2),
        lambda net: [Sequential([Sequential([net.norm()]), layers.Dense(5)]), layers.Dense(2)],
    ),
    "and a map again": (
        lambda net: net.norm(FLATTENED).view(4, 3, 2).conv(4, 2, 2),
        lambda net: [net.norm(), net.view(3, 2, 4), net.conv(2, 2)],
    ),
    "dense and a map again": (
        lambda net: net.linear(FLATTENED, 30).norm(30).relu().view(5, 2, 3).conv(5, 2, 2).flatten().linear(4, 3),
        lambda net: [layers.Dense(30), net.norm(), layers.ReLU(), net.view(2, 3, 5), net.conv(2, 2), net.flatten(),
                     layers.Dense(3)],
    ),
}  # fmt: skip


def compared(theirs: Theirs, ours: list[layers.Layer], channels_last: bool, shape: Any, folder: Path) -> Sequential:
    """The loaded model gives the answers of PyTorch's."""
    model = Sequential(ours, shape, seed=3)
    assert load_weights(model, as_pth(folder / "w.pth", theirs.state)).complete
    same = np.random.default_rng(1).standard_normal((2, *shape), np.float32)
    x = same if len(shape) == 1 or not channels_last else same.transpose(0, 3, 1, 2)
    expected = theirs(np.ascontiguousarray(x))
    if expected.ndim == 4 and channels_last:
        expected = expected.transpose(0, 2, 3, 1)
    np.testing.assert_allclose(model.forward(same), expected, rtol=TOLERANCE, atol=TOLERANCE)
    return model


@pytest.mark.parametrize("channels_last", [True, False], ids=["channels last", "channels first"])
@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("flat", FLAT)
def test_the_order_is_carried_through(flat: str, behind: str, channels_last: bool, tmp_path: Path) -> None:
    net = Ours(channels_last)
    theirs = BEHIND[behind][0](Theirs().conv(CHANNELS, 4, 3).flatten())
    ours = [net.conv(4, 3), FLAT[flat](net), *BEHIND[behind][1](net)]
    if not channels_last and behind == "and a map again" and flat in ("Flatten", "a model", "twice"):
        # Our Flatten turns the map, so that the map behind it is another one than PyTorch's.
        path = as_pth(tmp_path / "w.pth", theirs.state)
        with pytest.raises(ConvError, match="from flatten"):
            load_weights(Sequential(ours, net.shape(HEIGHT, WIDTH, CHANNELS)), path)
        return
    compared(theirs, ours, channels_last, net.shape(HEIGHT, WIDTH, CHANNELS), tmp_path)


@pytest.mark.parametrize("channels_last", [True, False], ids=["channels last", "channels first"])
def test_vectors_that_become_maps(channels_last: bool, tmp_path: Path) -> None:
    """Generators and decoders: the columns of the dense layer before the map, and what stands between."""
    net = Ours(channels_last)
    theirs = Theirs().linear(7, 24).norm(24).relu().view(4, 2, 3).norm(4).conv(4, 3, 2)
    ours = [layers.Dense(24), net.norm(), layers.ReLU(), net.view(2, 3, 4), net.norm(), net.conv(3, 2)]
    compared(theirs, ours, channels_last, (7,), tmp_path)
    theirs = Theirs().view(8, 1, 1).conv(8, 4, 1).mean().norm(4).linear(4, 4)
    compared(theirs, [net.view(1, 1, 8), net.conv(4, 1), net.mean(), net.norm(), layers.Dense(4)], channels_last, (8,),
             tmp_path)  # fmt: skip
    theirs = Theirs().view(1, 3, 2).conv(1, 4, 2).flatten().linear(8, 4)
    compared(theirs, [net.view(3, 2, 1), net.conv(4, 2), net.flatten(), layers.Dense(4)], channels_last, (6,), tmp_path)


def test_branches_of_vectors(tmp_path: Path) -> None:
    """A dense layer whose result is added to a flattened map has its columns in that map's order."""
    theirs = Theirs()
    weights = [theirs.drawn(f"{i}.{part}", *shape) for i, inner, outer in ((1, 60, 7), (2, 7, 60))
               for part, shape in (("weight", (outer, inner)), ("bias", (outer,)))]  # fmt: skip
    theirs.then(lambda x: x.reshape(len(x), -1) + ((x.reshape(len(x), -1) @ weights[0].T + weights[1]) @ weights[2].T
                                                   + weights[3])).linear(60, 3)  # fmt: skip
    block = layers.Residual([layers.Flatten(), layers.Dense(7), layers.Dense(60)], [layers.Flatten()])
    compared(theirs, [layers.ZeroPadding2D(0), block, layers.Dense(3)], True, (HEIGHT, WIDTH, CHANNELS), tmp_path)


class Mirror(layers.Layer):
    """A layer of a user's, which may do anything with a vector."""

    reads_images = False

    def forward(self, x: Any, training: bool = False) -> Any:
        return np.asarray(x)[:, ::-1]


REFUSED: dict[str, tuple[Callable[[], Theirs], Callable[[Ours], list[layers.Layer]], str]] = {
    "another map": (
        lambda: Theirs().conv(CHANNELS, 4, 3).flatten().norm(24).view(12, 1, 2).conv(12, 2, 1),
        lambda net: [net.conv(4, 3), net.flatten(), net.norm(), net.view(1, 2, 12), net.conv(2, 1)],
        r"reshape \(Reshape\) takes the values from flatten in an order",
    ),
    "a map from a map": (
        lambda: Theirs().conv(CHANNELS, 4, 3).view(8, 3, 1).conv(8, 2, 1),
        lambda net: [net.conv(4, 3), net.view(3, 1, 8), net.conv(2, 1)],
        r"reshape \(Reshape\) takes the values from reshape in an order",
    ),
    "the end": (
        lambda: Theirs().conv(CHANNELS, 4, 3).flatten().norm(24),
        lambda net: [net.conv(4, 3), net.flatten(), net.norm()],
        r"the net ends in a flattened map \(flatten\)",
    ),
    "a user's layer": (
        lambda: Theirs().conv(CHANNELS, 4, 3).flatten().linear(24, 5),
        lambda net: [net.conv(4, 3), net.flatten(), Mirror(), layers.Dense(5)],
        r"mirror \(Mirror\) stands behind a flattened map",
    ),
    "formats that differ": (
        lambda: Theirs().conv(CHANNELS, 4, 3).flatten().linear(24, 5),
        lambda net: [net.conv(4, 3), layers.ZeroPadding2D(0, data_format="channels_first"), net.flatten(),
                     layers.Dense(5)],
        "other data formats",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_order_makes_the_same_is_refused(name: str, tmp_path: Path) -> None:
    theirs, ours, told = REFUSED[name]
    model = Sequential(ours(Ours(True)), (HEIGHT, WIDTH, CHANNELS), seed=3)
    before, path = model.get_weights(), as_pth(tmp_path / "w.pth", theirs().state)
    with pytest.raises(ConvError, match=told):
        load_weights(model, path)
    for old, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)
    assert not load_weights(model, path, strict=False).complete


def test_a_map_from_the_input_is_refused(tmp_path: Path) -> None:
    """Ours takes it pixel by pixel, PyTorch's channel by channel."""
    model = Sequential([layers.Reshape((2, 2, 2)), layers.Conv2D(3, 1)], (8,))
    path = as_pth(tmp_path / "w.pth", Theirs().view(2, 2, 2).conv(2, 3, 1).state)
    with pytest.raises(ConvError, match="from the input"):
        load_weights(model, path)


def test_pytorch_computes_what_is_computed_here(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    theirs = Theirs().conv(3, 4, 3).norm(4).relu().flatten().norm(24).linear(24, 24).view(4, 3, 2).conv(4, 2, 2)
    real = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(24),
                         nn.Linear(24, 24), nn.Unflatten(1, (4, 3, 2)), nn.Conv2d(4, 2, 2)).eval()  # fmt: skip
    real.load_state_dict({name: torch.from_numpy(array) for name, array in theirs.state.items()}, strict=False)
    torch.save(real.state_dict(), tmp_path / "w.pth")
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 4), np.float32)
    with torch.inference_mode():
        expected = real(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(theirs(x), expected, rtol=TOLERANCE, atol=TOLERANCE)
    net = Ours(True)
    model = Sequential([net.conv(4, 3), net.norm(), layers.ReLU(), net.flatten(), net.norm(), layers.Dense(24),
                        net.view(3, 2, 4), net.conv(2, 2)], (5, 4, 3))  # fmt: skip
    assert load_weights(model, tmp_path / "w.pth").complete
    found = model.forward(np.ascontiguousarray(x.transpose(0, 2, 3, 1))).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)
