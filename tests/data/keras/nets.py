"""Makes nets.zip, which tests/bridges/test_weights_keras.py reads: nets of every form, as Keras saves them in every
format.

    KERAS_BACKEND=torch python tests/data/keras/nets.py      # nets.zip is of Keras 3.15

Every net maps (8, 8, 4) to whatever; beside its files lies its answer to `numpy.random.default_rng(1).random`.
"""

from __future__ import annotations

import io
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SHAPE = (8, 8, 4)
FORMATS = (".weights.h5", ".keras", ".h5")
WHERE = Path(__file__).with_name("nets.zip")


def given() -> Any:
    """The input whose answer is kept."""
    return np.random.default_rng(1).random((2, *SHAPE), np.float32)


def nets(keras: Any) -> dict[str, Callable[[], Any]]:
    """The nets by name."""
    k = keras.layers

    def conv(name: str | None = None, **options: Any) -> Any:
        return k.Conv2D(4, 3, padding="same", name=name, **options)

    def chain(*layers: Any, **options: Any) -> Any:
        return keras.Sequential([keras.Input(SHAPE), *layers], **options)

    def functional(*layers: Any, **options: Any) -> Any:
        value = start = keras.Input(SHAPE)
        for layer in layers:
            value = layer(value)
        return keras.Model(start, value, **options)

    def residual(shortcut_first: bool, projected: bool) -> Any:
        start = keras.Input(SHAPE)
        x = conv()(start)
        if shortcut_first and projected:
            side = conv()(x)
        y = conv()(k.ReLU()(conv()(x)))
        if not shortcut_first and projected:
            side = conv()(x)
        z = k.Add()([side, y] if projected and shortcut_first else [y, side] if projected else [y, x])
        return keras.Model(start, conv()(k.ReLU()(z)))

    def bottleneck() -> Any:
        start = keras.Input(SHAPE)
        y = k.BatchNormalization()(k.Conv2D(4, 1)(start))
        y = k.BatchNormalization()(k.Conv2D(8, 1)(y))
        side = k.BatchNormalization()(k.Conv2D(8, 1)(start))
        return keras.Model(start, k.ReLU()(k.Add()([side, y])))

    def used_twice() -> Any:
        start, twice = keras.Input(SHAPE), conv()
        return keras.Model(start, twice(conv()(twice(start))))

    def model_used_twice() -> Any:
        start, twice = keras.Input(SHAPE), chain(conv(), conv())
        return keras.Model(start, twice(twice(start)))

    def in_two_models() -> Any:
        both = conv()
        return functional(chain(both, conv()), chain(both, conv()))

    def frozen() -> Any:
        layers = [conv("a"), conv("b"), conv("c")]
        layers[0].trainable = layers[1].trainable = False
        return chain(chain(*layers), conv("d"))

    class Own(keras.Model):  # type: ignore[name-defined, misc]
        def __init__(self, names: list[str], order: list[str]) -> None:
            super().__init__()
            for name in names:
                setattr(self, name, conv())
            self.listed = [conv() for _ in range(11)] if len(names) > 9 else []
            self.order = order

        def call(self, x: Any) -> Any:
            for name in self.order:
                x = getattr(self, name)(x)
            return x

    numbered = [f"conv{i}" for i in range(1, 13)]

    def kinds() -> Any:
        return chain(
            conv(), k.Conv2DTranspose(4, 3, padding="same"), k.DepthwiseConv2D(3, padding="same"), conv(),
            k.SeparableConv2D(4, 3, padding="same"), k.BatchNormalization(), k.Conv2DTranspose(4, 3, padding="same"),
            k.SeparableConv2D(4, 3, padding="same"), k.BatchNormalization(center=False),
            k.BatchNormalization(center=False), k.Flatten(), k.Dense(4), k.Dense(4),
        )  # fmt: skip

    return {
        "flat": lambda: chain(*[conv() for _ in range(12)]),
        "named against the alphabet": lambda: chain(conv("zz"), conv("mm"), conv("aa")),
        "of a name": lambda: chain(conv(), conv(), name="of_a_name"),
        "of a name, numbered": lambda: chain(conv("first"), conv("second"), name="of_a_name"),
        "nested first": lambda: chain(chain(conv(), conv()), conv()),
        "nested last": lambda: chain(conv(), chain(conv(), conv())),
        "nested between": lambda: chain(conv(), chain(conv(), conv(), conv()), conv()),
        "nested deep": lambda: chain(chain(conv(), chain(conv(), chain(conv(), conv()))), conv()),
        "nested twice": lambda: chain(chain(conv(), conv()), conv(), chain(conv(), conv()), conv()),
        "nested unlike": lambda: chain(chain(conv()), chain(conv(), conv())),
        "functional": lambda: functional(*reversed([conv(), conv(), conv()])),
        "functional nested": lambda: functional(functional(conv(), conv()), conv(), chain(conv(), conv())),
        "names of counts": lambda: functional(conv("conv2d_1"), conv("conv2d")),
        "residual": lambda: residual(False, False),
        "residual, projected": lambda: residual(False, True),
        "residual, projected first": lambda: residual(True, True),
        "bottleneck": bottleneck,
        "used twice": used_twice,
        "model used twice": model_used_twice,
        "in two models": in_two_models,
        "frozen": frozen,
        "kinds": kinds,
        "scales and shifts": lambda: chain(k.BatchNormalization(center=False), k.BatchNormalization(scale=False)),
        "other normalisation": lambda: chain(conv(), k.LayerNormalization()),
        "own": lambda: Own(["second", "first"], ["first", "second"]),
        "own, numbered": lambda: Own(numbered, numbered),
        "own, made in another order": lambda: Own(["tail", "stem"], ["stem", "tail"]),
    }


def main() -> None:
    """Save everything."""
    import keras

    random = np.random.default_rng(0)
    with zipfile.ZipFile(WHERE, "w", zipfile.ZIP_DEFLATED) as archive, tempfile.TemporaryDirectory() as folder:
        for name, make in nets(keras).items():
            keras.backend.clear_session()
            net = make()
            net(np.zeros((1, *SHAPE), np.float32))
            for weight in net.weights:
                low, high = (0.5, 2.0) if "variance" in weight.name else (-0.5, 0.5)
                weight.assign(random.uniform(low, high, weight.shape).astype(np.float32))
            answer = io.BytesIO()
            np.save(answer, net.predict(given(), verbose=0))
            archive.writestr(f"{name}.npy", answer.getvalue())
            for form in FORMATS:
                if form != ".weights.h5" and name.startswith("own"):
                    continue  # a class of the user's has no configuration
                path = Path(folder, f"net{form}")
                (net.save_weights if form == ".weights.h5" else net.save)(path)
                archive.write(path, f"{name}{form}")


if __name__ == "__main__":
    sys.exit(main())
