"""
A 3-D U-Net finds vessels and lumps
===================================

Doctors look at volumes in slices; a net sees all three axes at once, and so tells a vessel, which goes on through many
slices, from a lump, which does not, where one slice shows two equal spots. A small 3-D U-Net (Cicek et al., 2016)
learns that on generated volumes of 24 voxels a side, and then takes a larger one in tiles, with the values of the
whole.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from _common import Array, Options, axis_at, main, new_figure, print_table, saved

import fastconv
from fastconv import Input, Model, layers
from fastconv.cli.demo.figures import bare
from fastconv.optimizers import Adam, CosineDecay
from fastconv.scipy import ndimage

CLASSES = ("tissue", "vessel", "lump")
COLOURS = np.array([[0.0, 0.45, 0.7], [0.9, 0.25, 0.0]])  # of vessels and lumps
SIDE, TILE = 24, 32
PLANES = ("axial", "coronal", "sagittal")


def scene(random: np.random.Generator, shape: tuple[int, int, int], vessels: int, lumps: int) -> tuple[Array, Array]:
    """A volume (D, H, W, 1) of bright tubes and balls in grainy tissue, and the class of every voxel."""
    size = np.array(shape)
    grid = np.stack(np.indices(shape, np.float32), -1)
    classes = np.zeros(shape, np.int64)
    for _ in range(lumps):
        distance = (grid - random.uniform(0, size)) / random.uniform(0.8, 1.25, 3)
        classes[(distance**2).sum(-1) < random.uniform(3, 5) ** 2] = 2
    reach = np.arange(-4, 5)
    ball = np.stack(np.meshgrid(reach, reach, reach, indexing="ij"), -1).reshape(-1, 3)
    for _ in range(vessels):
        at, heading, radius = random.uniform(0, size), random.normal(size=3), random.uniform(1.4, 2.2)
        around = ball[(ball**2).sum(-1) < radius**2]
        for way in (1, -1):  # both ways from a point inside, bending a little at each step, to the border
            place, turned = at.copy(), way * heading / np.linalg.norm(heading)
            while ((place >= 0) & (place < size)).all():
                voxels = np.rint(place).astype(int) + around
                classes[tuple(voxels[((voxels >= 0) & (voxels < size)).all(1)].T)] = 1
                turned = turned + random.normal(0, 0.08, 3)
                turned /= np.linalg.norm(turned)
                place = place + turned
    light = 0.75 * (classes > 0) * random.uniform(0.8, 1.2)
    grain = 4 * ndimage.gaussian_filter(random.normal(0, 0.3, shape), 1.5)  # tissue is uneven, the sensor noisy
    image = ndimage.gaussian_filter(light, 0.5) + grain + random.normal(0, 0.18, shape)
    return image[..., None].astype(np.float32), classes


def unet(seed: int) -> Model:
    """Down twice, up twice; the sizes of volumes may be any multiples of 4."""

    def block(x: object, filters: int) -> object:
        for _ in range(2):
            x = layers.Conv3D(filters, 3, padding="same", activation="relu", kernel_initializer="he_normal")(x)
        return x

    volume = Input((SIDE, SIDE, SIDE, 1), name="volume")
    high = block(volume, 8)
    middle = block(layers.MaxPooling3D()(high), 16)
    low = block(layers.MaxPooling3D()(middle), 32)
    x = block(layers.Concatenate()([layers.Conv3DTranspose(16, 2, 2)(low), middle]), 16)
    x = block(layers.Concatenate()([layers.Conv3DTranspose(8, 2, 2)(x), high]), 8)
    return Model(volume, layers.Conv3D(3, 1, activation="softmax", name="scores")(x), name="unet_3d", seed=seed)


def shares(found: Array, wanted: Array, kind: int) -> tuple[float, float]:
    """Of a class: the share that is found, and the share of what is found that is right."""
    both = float(((found == kind) & (wanted == kind)).sum())
    return both / max(1, (wanted == kind).sum()), both / max(1, (found == kind).sum())


def run(options: Options) -> None:
    random = np.random.default_rng(options.seed)
    made = [scene(random, (SIDE,) * 3, 2, 2) for _ in range(12 if options.quick else 128)]
    volumes, classes = np.stack([volume for volume, _ in made]), np.stack([wanted for _, wanted in made])
    net = unet(options.seed)
    net.summary()
    print()
    epochs, batch = 2 if options.quick else 16, 2
    net.compile(Adam(CosineDecay(4e-3, epochs * len(made) // batch)), "sparse_categorical_crossentropy", ["accuracy"])
    start = time.perf_counter()
    net.fit(volumes, classes, batch, epochs, verbose=1 if sys.stderr.isatty() else 0, seed=options.seed)
    print(f"{epochs} epochs of {len(made)} volumes: {time.perf_counter() - start:.1f} s")

    large, wanted = scene(random, (32, 64, 64) if options.quick else (64, 128, 160), 14, 40)
    start = time.perf_counter()
    scores = fastconv.tiled_predict(net, large, tile=TILE)
    seconds = time.perf_counter() - start
    assert np.array_equal(scores, net(large[None])[0])  # the bits of the whole volume at once
    found = scores.argmax(-1)
    print(f"{' x '.join(map(str, wanted.shape))} voxels by tiles of {TILE}: {seconds:.1f} s, the bits of the whole\n")
    print_table(
        ("class", "voxels", "found", "of those right"),
        [(name, int((wanted == k).sum()), *(f"{100 * share:.1f} %" for share in shares(found, wanted, k)))
         for k, name in enumerate(CLASSES)],
    )  # fmt: skip
    saved(draw(large[..., 0], wanted, found), options, "volume")


def draw(image: Array, wanted: Array, found: Array) -> object:
    """Three slices through the middle of the volume: as it is, what is there, and what the net says."""
    right = 100 * float((found == wanted).mean())
    figure = new_figure(
        10.6, 7.6, f"{right:.1f} % of the voxels of a new, larger volume are right",
        f"A 3-D U-Net that learnt on volumes of {SIDE} voxels a side; three slices of one of "
        f"{' x '.join(map(str, image.shape))}, which it took in tiles. Blue: vessels; red: lumps.",
    )  # fmt: skip
    depth, height, width = image.shape
    scale = min(3.2 / width, 5.6 / (height + 2 * depth))  # inches a voxel
    top = 1.15
    for plane, name in enumerate(PLANES):
        cut: list[int | slice] = [slice(None)] * 3
        cut[plane] = image.shape[plane] // 2
        at = tuple(cut)
        for column, (title, marked) in enumerate((("the volume", None), ("what is there", wanted), ("found", found))):
            grey = np.clip((image[at] + 0.6) / 2.2, 0, 1)[..., None].repeat(3, -1)
            if marked is not None:
                for kind, colour in enumerate(COLOURS, 1):
                    grey[marked[at] == kind] = 0.35 * grey[marked[at] == kind] + 0.65 * colour
            high, wide = grey.shape[:2]
            axis = bare(axis_at(figure, 0.5 + 3.35 * column, top, wide * scale, high * scale))
            axis.imshow(grey, interpolation="nearest")
            if plane == 0:
                axis.set_title(title, fontsize=10, loc="left")
            if column == 0:
                axis.annotate(name, (0, 0.5), (-5, 0), xycoords="axes fraction", textcoords="offset points",
                              ha="right", va="center", rotation=90, fontsize=9)  # fmt: skip
        top += high * scale + 0.2
    return figure


if __name__ == "__main__":
    main(__doc__, run)
