"""Pictures of every kind in files, with what they show worked out by hand: levels from 0 to 255, (H, W, 3)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 12, 18
RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
GREY = RANDOM.integers(0, 256, (HEIGHT, WIDTH), np.uint8)
DEEP = np.linspace(0, 65535, HEIGHT * WIDTH).round().reshape(HEIGHT, WIDTH).astype(np.uint16)
DEEP_RGB = RANDOM.integers(0, 65536, (HEIGHT, WIDTH, 3), np.uint16)
PALETTE = RANDOM.integers(0, 256, (16, 3), np.uint8)
INDICES = RANDOM.integers(0, 16, (HEIGHT, WIDTH), np.uint8)
# What each value of the EXIF orientation says must be done to the rows and columns in the file.
TURNS: dict[int, Any] = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1), 7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: np.rot90(a),
}  # fmt: skip


@dataclass
class Made:
    """A file, the levels that it shows (None: it must be refused, with this word) and how far readers may be off."""

    path: Path
    shows: Any
    word: str = ""
    off: float = 0.0


def png(path: Path, values: Any, bits: int = 16) -> Path:
    """A PNG file of one to four channels, which Pillow cannot write in 16 bits."""
    channels = 1 if values.ndim == 2 else values.shape[2]
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(f">u{bits // 8}").tobytes() for row in values)
    return png_of(path, values.shape[1], values.shape[0], bits, colour, zlib.compress(rows))


def png_of(path: Path, width: int, height: int, bits: int, colour: int, packed: bytes) -> Path:
    """A PNG file that claims a size, whatever its data hold."""
    head = struct.pack(">2I5B", width, height, bits, colour, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", packed), (b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ))  # fmt: skip
    return path


def tiff(path: Path, data: bytes, bits: int, channels: int = 1, order: str = "<", **tags: int) -> Path:
    """An uncompressed TIFF file of one strip."""
    known = {"photometric": 1 if channels == 1 else 2, "sample_format": 1, "orientation": 1} | tags
    depths = struct.pack(f"{order}{channels}H", *[bits] * channels)
    entries = [
        (256, 4, 1, WIDTH), (257, 4, 1, HEIGHT), (258, 3, channels, bits), (259, 3, 1, 1),
        (262, 3, 1, known["photometric"]), (273, 4, 1, 0), (274, 3, 1, known["orientation"]), (277, 3, 1, channels),
        (278, 4, 1, HEIGHT), (279, 4, 1, len(data)), (339, 3, 1, known["sample_format"]),
    ]  # fmt: skip
    behind = 8 + 2 + 12 * len(entries) + 4
    body = struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        if tag == 273:  # where the pixels begin
            value = behind + len(depths)
        if tag == 258 and channels > 2:
            packed = struct.pack(f"{order}I", behind)
        else:
            packed = struct.pack(f"{order}H2x" if kind == 3 else f"{order}I", value)
        body += struct.pack(f"{order}HHI", tag, kind, count) + packed
    mark = b"II*\0" if order == "<" else b"MM\0*"
    path.write_bytes(mark + struct.pack(f"{order}I", 8) + body + b"\0" * 4 + depths + data)
    return path


def packed_12_bits(values: Any) -> bytes:
    """Rows of 12-bit numbers, high bits first."""
    bits = (values[..., None] >> np.arange(11, -1, -1)) & 1
    return np.packbits(bits.reshape(values.shape[0], -1).astype(np.uint8), axis=1).tobytes()


def coloured(levels: Any) -> Any:
    """Grey levels as three equal colours."""
    return np.repeat(np.asarray(levels, float)[..., None], 3, axis=2)


def made(folder: Path) -> Iterator[Made]:
    """Every kind of picture, written into `folder`."""
    yield from _plain(folder)
    yield from _deep(folder)
    yield from _turned(folder)
    yield from _moving(folder)


def _saved(image: Any, path: Path, shows: Any, off: float = 0.0, **options: Any) -> Made:
    image.save(path, **options)
    return Made(path, shows, off=off)


def _plain(folder: Path) -> Iterator[Made]:
    """Eight bits and less."""
    grey, colour = Image.fromarray(GREY), Image.fromarray(RGB)
    alpha = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 1), np.uint8)
    both = Image.fromarray(np.concatenate([RGB, alpha], axis=2))
    grey_alpha = Image.merge("LA", (grey, Image.fromarray(alpha[..., 0])))
    bits = Image.fromarray(np.where(GREY > 99, 255, 0).astype(np.uint8)).convert("1")
    for suffix in ("png", "tif", "bmp", "ppm", "im"):
        yield _saved(bits, folder / f"bits.{suffix}", coloured(np.where(GREY > 99, 255, 0)))
        yield _saved(grey, folder / f"grey.{suffix}", coloured(GREY))
        yield _saved(colour, folder / f"rgb.{suffix}", RGB)
    for suffix in ("png", "tif"):
        yield _saved(both, folder / f"rgba.{suffix}", RGB)
        yield _saved(grey_alpha, folder / f"la.{suffix}", coloured(GREY))
    yield _saved(colour, folder / "rgb.webp", RGB, lossless=True)
    yield _saved(colour.convert("RGBX"), folder / "rgbx.im", RGB)
    indexed = Image.fromarray(INDICES)
    indexed.putpalette(PALETTE.tobytes())
    for suffix in ("png", "gif", "tif", "bmp"):
        yield _saved(indexed, folder / f"indexed.{suffix}", PALETTE[INDICES])
    yield _saved(indexed, folder / "transparent.png", PALETTE[INDICES], transparency=3)
    yield _saved(indexed, folder / "translucent.png", PALETTE[INDICES], transparency=bytes(range(16)))
    yield _saved(indexed.convert("PA"), folder / "pa.im", PALETTE[INDICES])
    inks = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)
    shown = (255.0 - inks[..., :3]) * (255.0 - inks[..., 3:]) / 255
    for suffix in ("tif", "im"):
        yield _saved(Image.frombytes("CMYK", (WIDTH, HEIGHT), inks.tobytes()), folder / f"cmyk.{suffix}", shown, 1)
    y, blue, red = (plane.astype(float) for plane in np.moveaxis(RANDOM.integers(64, 192, (HEIGHT, WIDTH, 3)), 2, 0))
    levels = [y + 1.402 * (red - 128), y - 0.344136 * (blue - 128) - 0.714136 * (red - 128), y + 1.772 * (blue - 128)]
    image = Image.frombytes("YCbCr", (WIDTH, HEIGHT), np.stack([y, blue, red], axis=2).astype(np.uint8).tobytes())
    yield _saved(image, folder / "ycbcr.im", np.clip(np.stack(levels, axis=2), 0, 255), 2)


def _deep(folder: Path) -> Iterator[Made]:
    """More than eight bits: scaled, or refused where the numbers do not say what is white."""
    levels, colours = DEEP / 257.0, DEEP_RGB / 257.0
    yield Made(png(folder / "deep.png", DEEP), coloured(levels), off=0.01)
    yield Made(png(folder / "deep_rgb.png", DEEP_RGB), colours, off=1)
    yield Made(png(folder / "deep_rgba.png", np.concatenate([DEEP_RGB, DEEP[..., None]], axis=2)), colours, off=1)
    yield Made(png(folder / "deep_la.png", np.stack([DEEP, DEEP[::-1]], axis=2)), coloured(levels), off=1)
    for order, name in (("<", "little"), (">", "big")):
        data = DEEP.astype(f"{order}u2").tobytes()
        yield Made(tiff(folder / f"{name}.tif", data, 16, order=order), coloured(levels), off=0.01)
        data = DEEP_RGB.astype(f"{order}u2").tobytes()
        yield Made(tiff(folder / f"{name}_rgb.tif", data, 16, 3, order), colours, off=1)
    data = DEEP.astype("<u2").tobytes()
    yield Made(tiff(folder / "inverted.tif", data, 16, photometric=0), coloured(255 - levels), off=0.01)
    yield Made(tiff(folder / "twelve.tif", packed_12_bits(DEEP >> 4), 12), coloured((DEEP >> 4) / 4095 * 255), off=0.01)
    for mode, order in (("I;16", "<"), ("I;16B", ">")):
        image = Image.frombytes(mode, (WIDTH, HEIGHT), DEEP.astype(f"{order}u2").tobytes())
        yield _saved(image, folder / f"{mode.replace(';', '')}.im", coloured(levels), 0.01)
    for most in (65535, 1000):
        values = (DEEP / 65535 * most).round().astype(">u2")
        (folder / f"{most}.pgm").write_bytes(f"P5 {WIDTH} {HEIGHT} {most}\n".encode() + values.tobytes())
        yield Made(folder / f"{most}.pgm", coloured(values / most * 255), off=0.01)
    yield Made(tiff(folder / "signed.tif", data, 16, sample_format=2), None, "integers")
    whole = Image.fromarray(DEEP.astype(np.int32) * 1000)
    for suffix in ("tif", "im"):
        whole.save(folder / f"whole.{suffix}")
        yield Made(folder / f"whole.{suffix}", None, "integers")
    real = Image.fromarray((DEEP / 65535).astype(np.float32))
    for suffix in ("tif", "pfm"):
        real.save(folder / f"real.{suffix}")
        yield Made(folder / f"real.{suffix}", None, "floating-point")


def _turned(folder: Path) -> Iterator[Made]:
    """With the orientation that a camera notes."""
    for number, turn in TURNS.items():
        exif = Image.Exif()
        exif[0x0112] = number
        options = {"exif": exif.tobytes()}
        yield _saved(Image.fromarray(RGB), folder / f"turned{number}.png", turn(RGB), **options)
        yield _saved(Image.fromarray(RGB), folder / f"turned{number}.webp", turn(RGB), lossless=True, **options)
        yield _saved(Image.fromarray(DEEP), folder / f"deep{number}.png", turn(coloured(DEEP / 257.0)), 0.01, **options)
        yield Made(tiff(folder / f"turned{number}.tif", RGB.tobytes(), 8, 3, orientation=number), turn(RGB))
    exif = Image.Exif()
    exif[0x0112] = 6
    smooth = np.linspace(0, 255, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint8)
    image = Image.fromarray(np.repeat(smooth[..., None], 3, axis=2))
    turned = TURNS[6](coloured(smooth))
    yield _saved(image, folder / "turned.jpg", turned, 12, exif=exif.tobytes(), quality=95)


def _moving(folder: Path) -> Iterator[Made]:
    """The first frame of an animation."""
    frames = [Image.fromarray(INDICES) for _ in range(3)]
    for shift, frame in enumerate(frames):
        frame.putpalette(np.roll(PALETTE, shift, axis=0).tobytes())
    yield _saved(frames[0], folder / "moving.gif", PALETTE[INDICES], save_all=True, append_images=frames[1:])
    frames = [Image.fromarray(np.roll(RGB, shift, axis=0)) for shift in range(3)]
    for suffix in ("png", "webp", "tif"):
        path, options = folder / f"moving.{suffix}", {"lossless": True} if suffix == "webp" else {}
        yield _saved(frames[0], path, RGB, save_all=True, append_images=frames[1:], **options)


def difference(picture: Made) -> str:
    """What is wrong with how a picture is read, in colour and in grey; empty if nothing is."""
    from fastconv.cli.common import CommandError
    from fastconv.cli.pictures import covering, open_picture

    for channels in (3, 1):
        try:
            image = open_picture(picture.path, channels)
        except CommandError as error:
            if picture.shows is None and picture.word in str(error) and "\n" not in str(error):
                continue
            return f"refused: {error}"
        if picture.shows is None:
            return "read, though its numbers do not say what is white"
        wanted = np.asarray(picture.shows, float)
        if channels == 1:
            wanted = wanted @ [[0.299], [0.587], [0.114]]
        got = covering(image, image.height, image.width, channels)
        allowed = picture.off + (channels == 1)  # grey is rounded once more
        off = np.abs(got - wanted).max() if got.shape == wanted.shape else np.inf
        if off > allowed:
            return f"{channels} channels, {got.shape} for {wanted.shape}: off by {off}"
    return ""
