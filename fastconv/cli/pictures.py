"""Pictures from files, whatever they hold: as 8 bits a colour mean them, or refused by name.

The first frame counts of an animation, the orientation that a camera noted is applied, and transparency is left out:
the colours under it count, as in the loaders of the learning libraries.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np

from .._core.arrays import Array
from .._core.files import require_regular
from .common import CommandError, require

WHITE: Final = 255  # of a colour in 8 bits
GREY: Final = ("1", "L", "LA", "La")
PREMULTIPLIED: Final = {"La": "LA", "RGBa": "RGBA"}
SIXTEEN_BITS: Final = ("I;16", "I;16L", "I;16B", "I;16N")
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # of TIFF


def open_picture(path: str | Path, channels: int = 3) -> Any:
    """The picture in a file as an image of Pillow.

    Parameters
    ----------
    path : str or Path
        A file in any of Pillow's formats.
    channels : {3, 1}
        Colours or grey.

    Returns
    -------
    PIL.Image.Image
        Of mode RGB or L; a grey picture of more than 8 bits is of mode F, with values from 0 (black) to 255 (white).

    Raises
    ------
    CommandError
        For what is no picture, is damaged, or whose numbers do not say what is white.
    """
    module, ops = require("PIL.Image", "onnx"), require("PIL.ImageOps", "onnx")
    name = str(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about what is read rightly all the same
        try:
            require_regular(path)
            with module.open(path) as file:
                image = _converted(ops.exif_transpose(file), file, channels, name, module)
        except (CommandError, MemoryError):
            raise
        except module.DecompressionBombError as error:
            raise CommandError(f"{name!r} is too large ({error}); make a smaller picture of it") from None
        except Exception as error:  # the decoders of damaged files raise whatever they like
            raise CommandError(f"{name!r} is no picture that can be read ({error or type(error).__name__})") from None
    if not image.width or not image.height:
        raise CommandError(f"{name!r} is an empty picture ({image.width} x {image.height} pixels)")
    return image


def _converted(image: Any, file: Any, channels: int, name: str, module: Any) -> Any:
    """As `open_picture` gives it; `file` is the image before it was turned, which knows the format."""
    mode = image.mode
    if mode in SIXTEEN_BITS and file.format != "FITS":
        return _deep(image, file, module)
    if mode == "I" and file.format in ("PNG", "PPM"):  # Pillow makes 16 bits of them
        return _deep(image, file, module)
    if mode.startswith(("I", "F")):
        kind = "floating-point values" if mode == "F" else "integers"
        raise CommandError(
            f"{name!r} holds {kind} that do not say what is white (mode {mode} of a {file.format} file); save it with "
            "8 or 16 bits a colour, or feed it as a .npy file"
        )
    image = image.convert(PREMULTIPLIED[mode]) if mode in PREMULTIPLIED else image
    try:
        colours = image if mode in GREY and channels == 1 else image.convert("RGB")
        return colours.convert("L") if channels == 1 else colours
    except ValueError:
        message = f"{name!r} has colours of mode {mode}, of which Pillow makes no RGB; save it as RGB"
        raise CommandError(message) from None


def _deep(image: Any, file: Any, module: Any) -> Any:
    """16 bits, or what a TIFF file says, scaled to 255."""
    tags = getattr(file, "tag_v2", {})
    bits = int(np.ravel(tags.get(BITS_PER_SAMPLE, 16))[0])
    values = np.asarray(image, np.float32) * np.float32(WHITE / (2**bits - 1))
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        values = WHITE - values
    return module.fromarray(values)


def covering(image: Any, height: int, width: int, channels: int) -> Array:
    """The middle of a picture scaled so that it covers height x width: (height, width, channels), 0 to 255.

    Only what is in the middle is computed: of a long and narrow picture that is little.
    """
    scale = max(height / image.height, width / image.width)
    whole = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    left, top = (whole[0] - width) // 2, (whole[1] - height) // 2
    if image.size != (width, height):
        across, down = image.width / whole[0], image.height / whole[1]
        box = (left * across, top * down, min(image.width, (left + width) * across),
               min(image.height, (top + height) * down))  # fmt: skip
        bilinear = require("PIL.Image", "onnx").Resampling.BILINEAR
        image = image.resize((width, height), bilinear, box=box)
    pixels = np.asarray(image, np.float32).reshape(height, width, -1)
    return np.broadcast_to(pixels, (height, width, channels))
