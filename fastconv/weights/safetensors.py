"""The .safetensors format, read with NumPy alone: a JSON header of names, types, shapes and offsets, then the data."""

from __future__ import annotations

import json
import struct
from math import prod
from typing import Any, BinaryIO, Final

import numpy as np

from .._core.arrays import Array
from .._core.files import Segment, size_of
from ..errors import ConvError
from .source import Stored, from_bfloat16, require_few

MOST_HEADER_BYTES: Final = 1 << 24  # the format allows six times that; 20,000 entries need less than a quarter
DTYPES: Final = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "?",
}  # fmt: skip


def read_header(file: BinaryIO) -> dict[str, Stored]:
    """What an open file holds by name, bfloat16 as float32; the values are read when asked for.

    Raises `ConvError` for whatever is not as the format says.
    """
    return read_parts(file)[1]


def read_parts(file: BinaryIO) -> tuple[dict[str, Any], dict[str, Stored]]:
    """What an open file says about itself, and what it holds by name."""
    size = size_of(file)
    if size < 8:
        raise ConvError("it is shorter than its first field")
    (length,) = struct.unpack("<Q", file.read(8))
    if length > min(MOST_HEADER_BYTES, size - 8):
        raise ConvError(f"its header claims {length} bytes, the file has {size}; {MOST_HEADER_BYTES} are the most")
    try:
        header = json.loads(file.read(length), object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise ConvError(f"its header is no JSON object ({error})") from None
    if not isinstance(header, dict):
        raise ConvError("its header is no JSON object")
    about = header.pop("__metadata__", None)
    require_few(len(header))
    entries = sorted((_entry(name, value) for name, value in header.items()), key=lambda entry: entry[3:])
    at = 0
    for name, _, _, begin, end in entries:  # one behind the other: none is claimed twice
        if begin != at:
            raise ConvError(f"{name!r} begins at byte {begin} of the data in place of {at}")
        at = end
    if at != size - 8 - length:
        raise ConvError(f"its entries need {at} bytes of data, but it has {size - 8 - length}; it may be truncated")
    stored = {
        name: _stored(Segment(file, 8 + length + begin, end - begin), kind, shape)
        for name, kind, shape, begin, end in entries
    }
    return about if isinstance(about, dict) else {}, {name: stored[name] for name in header}


def _stored(part: Segment, kind: str, shape: tuple[int, ...]) -> Stored:
    def read() -> Array:
        values = part.array(DTYPES[kind], 0, shape)
        return from_bfloat16(values) if kind == "BF16" else values

    return Stored(shape, np.dtype(np.float32 if kind == "BF16" else DTYPES[kind]), read)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name occurs twice")
    return made


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _entry(name: str, value: Any) -> tuple[str, str, tuple[int, ...], int, int]:
    """(name, type, shape, begin, end) of one entry of the header, if its parts agree."""
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise ConvError(f"{name!r} is not described by dtype, shape and data_offsets")
    kind, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if kind not in DTYPES:
        raise ConvError(f"{name!r} has the type {kind!r}; those read are {', '.join(DTYPES)}")
    if not isinstance(shape, list) or not all(map(_is_count, shape)) or len(shape) > 32:
        raise ConvError(f"{name!r} has no shape but {shape!r}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
        raise ConvError(f"{name!r} has no offsets but {offsets!r}")
    begin, end = offsets
    if end - begin != prod(shape) * np.dtype(DTYPES[kind]).itemsize:
        raise ConvError(f"{name!r} of shape {tuple(shape)} and type {kind} does not have {end - begin} bytes")
    return name, kind, tuple(shape), begin, end
