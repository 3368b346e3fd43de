"""
A U-Net finds discs and rings
=============================

A U-Net halves the image twice and doubles it twice. Maps of the way down are laid beside those of the way up, so that
the net sees far and answers for every pixel (Ronneberger, Fischer and Brox, 2015). It learns on noisy pictures of
48 x 48 which pixels belong to discs and which to rings, and then takes a picture of any size, in tiles.
"""

from __future__ import annotations

import sys

import numpy as np
from _common import Array, Options, axis_at, main, new_figure, print_table, saved

import fastconv
from fastconv import Input, Model, layers
from fastconv.callbacks import EarlyStopping
from fastconv.cli.demo.figures import bare
from fastconv.optimizers import Adam

CLASSES = ("background", "disc", "ring")
COLOURS = np.array([[0.94, 0.94, 0.94], [0.0, 0.45, 0.7], [0.84, 0.37, 0.0]])


def scene(random: np.random.Generator, height: int, width: int, shapes: int) -> tuple[Array, Array]:
    """A picture (H, W, 1) of grey discs and rings under noise, and the class of every pixel."""
    y, x = np.mgrid[:height, :width]
    classes = np.zeros((height, width), np.int64)
    image = np.zeros((height, width))
    for _ in range(shapes):
        kind, radius = int(random.integers(1, 3)), random.uniform(5, 9)
        distance = np.hypot(y - random.uniform(0, height), x - random.uniform(0, width))
        inside = (distance < radius) & ((kind == 1) | (distance > 0.6 * radius))
        classes[inside], image[inside] = kind, random.uniform(0.4, 1)
    image += random.normal(0, 0.25, image.shape)
    return image[..., None].astype(np.float32), classes


def scenes(random: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Pictures to learn from."""
    made = [scene(random, 48, 48, 4) for _ in range(count)]
    return np.stack([image for image, _ in made]), np.stack([classes for _, classes in made])


def unet(seed: int) -> Model:
    """Down twice, up twice; the sizes of images may be any multiples of 4."""

    def block(x: object, filters: int) -> object:
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", activation="relu", kernel_initializer="he_normal")(x)
        return x

    image = Input((48, 48, 1), name="image")
    high = block(image, 12)
    middle = block(layers.MaxPooling2D()(high), 24)
    low = block(layers.MaxPooling2D()(middle), 48)
    x = block(layers.Concatenate()([layers.Conv2DTranspose(24, 2, 2)(low), middle]), 24)
    x = block(layers.Concatenate()([layers.Conv2DTranspose(12, 2, 2)(x), high]), 12)
    return Model(image, layers.Conv2D(3, 1, activation="softmax", name="scores")(x), name="unet", seed=seed)


def overlap(found: Array, wanted: Array) -> list[float]:
    """Intersection over union of every class."""
    both = [((found == k) & (wanted == k)).sum() for k in range(3)]
    either = [((found == k) | (wanted == k)).sum() for k in range(3)]
    return [float(one / max(1, other)) for one, other in zip(both, either, strict=True)]


def run(options: Options) -> None:
    random = np.random.default_rng(options.seed)
    images, classes = scenes(random, 64 if options.quick else 320)
    net = unet(options.seed)
    net.summary()
    print()
    net.compile(Adam(4e-3), "sparse_categorical_crossentropy", ["accuracy"])
    history = net.fit(
        images, classes, batch_size=16, epochs=3 if options.quick else 12, validation_split=0.2, seed=options.seed,
        callbacks=[EarlyStopping(patience=4, restore_best_weights=True)], verbose=1 if sys.stderr.isatty() else 0,
    ).history  # fmt: skip
    large, wanted = scene(random, 120, 300, 26)
    scores = fastconv.tiled_predict(net, large, tile=64)
    assert np.array_equal(scores, net(large[None])[0])  # the bits of the whole picture at once
    found = scores.argmax(-1)
    shares = overlap(found, wanted)
    print_table(
        ("class", "pixels", "intersection over union"),
        [(name, int((wanted == k).sum()), f"{shares[k]:.3f}") for k, name in enumerate(CLASSES)],
    )
    right = 100 * float((found == wanted).mean())
    print(f"{len(history['loss'])} epochs; {right:.1f} % of the pixels of 120 x 300 are right, by tiles of 64")

    figure = new_figure(
        10.4, 5.9, f"{right:.1f} % of the pixels of a new, larger picture are right",
        "A U-Net that learnt on pictures of 48 x 48, and what it says of one of 120 x 300, which it took in tiles.",
    )  # fmt: skip
    for i, (title, shown) in enumerate((("the picture", large[..., 0]), ("wanted", wanted), ("found", found))):
        axis = bare(axis_at(figure, 0.3 + 5.0 * (i > 0), 0.95 + 2.45 * (i == 2), 4.8, 1.95))
        axis.imshow(shown if i == 0 else COLOURS[shown], cmap="gray", vmin=-0.5, vmax=1.3)
        axis.set_title(title, fontsize=10, loc="left")
    axis = axis_at(figure, 0.75, 3.75, 4.1, 1.55)
    for name, label in (("accuracy", "learnt from"), ("val_accuracy", "held out")):
        axis.plot(np.arange(1, len(history[name]) + 1), 100 * np.array(history[name]), "o-", markersize=4, label=label)
    axis.set_title("pixels right, in %, by epoch", fontsize=10, loc="left")
    axis.spines[["top", "right"]].set_visible(False)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(frameon=False, fontsize=8.5, loc="lower right")
    axis.grid(alpha=0.25)
    saved(figure, options, "unet")


if __name__ == "__main__":
    main(__doc__, run)
