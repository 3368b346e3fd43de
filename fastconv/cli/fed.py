"""Pictures and arrays as a model's first input wants them."""

from __future__ import annotations

import argparse
from typing import Any, Final

import numpy as np

from .._core.arrays import Array
from .._core.files import read_npy
from .common import CommandError, image_size
from .pictures import WHITE, covering, open_picture

IMAGENET: Final = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
COLOURS: Final = (1, 3)


def _channel_values(name: str) -> Any:
    """Reads 'imagenet', one number, or three with commas."""

    def read(text: str) -> tuple[float, ...]:
        if text == "imagenet":
            return IMAGENET[name]
        try:
            numbers = tuple(float(part) for part in text.split(","))
        except ValueError:
            numbers = ()
        if len(numbers) not in (1, 3) or (name == "std" and not all(numbers)) or not np.all(np.isfinite(numbers)):
            raise argparse.ArgumentTypeError(f"must be a number, three with commas, or imagenet, but got {text!r}")
        return numbers

    return read


def add_preparing(parser: argparse.ArgumentParser) -> None:
    """The options of how a picture becomes an input."""
    parser.add_argument("--size", type=image_size, metavar="S", help="side, or HEIGHTxWIDTH, of the input")
    parser.add_argument(
        "--mean", type=_channel_values("mean"), default=(0.0,), metavar="M",
        help="subtracted from values between 0 and 1: a number, three with commas, or imagenet (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--std", type=_channel_values("std"), default=(1.0,), metavar="S", help="then divided by, likewise (default: 1)"
    )
    parser.add_argument("--bgr", action="store_true", help="feed blue, green, red in place of red, green, blue")


def array_of(path: str) -> Array:
    """The array in a .npy file."""
    try:
        array = read_npy(path)
    except ValueError as error:
        raise CommandError(f"{path!r} is no array ({error})") from None
    if not isinstance(array, np.ndarray):
        raise CommandError(f"{path!r} is no array but an archive of several; save one with numpy.save")
    return array


def prepared(args: argparse.Namespace, path: str, declared: Any) -> Array:
    """The picture in a file as an input of this shape wants it, by the options of `add_preparing`."""
    if declared is None or len(declared) != 4:
        raise CommandError(f"the model's first input has the shape {declared}, which is no picture; feed a .npy file")
    last = declared[3] in COLOURS and declared[1] not in COLOURS
    channels = declared[3 if last else 1]
    channels = channels if channels in COLOURS else 3
    asked = args.size or tuple(
        size if isinstance(size, int) and size > 0 else 0 for size in (declared[1:3] if last else declared[2:])
    )
    image = open_picture(path, channels)
    height, width = (size or own for size, own in zip(asked, image.size[::-1], strict=True))
    pixels = covering(image, height, width, channels)
    pixels = pixels[:, :, ::-1] if args.bgr else pixels
    x = (pixels / np.float32(WHITE) - np.float32(args.mean)) / np.float32(args.std)
    if x.shape[2] != channels:
        raise CommandError(f"the model takes {channels} channel(s); give --mean and --std one number")
    return np.ascontiguousarray(x if last else x.transpose(2, 0, 1), np.float32)[None]
