"""How files are opened: regular files alone, headers before data, and nothing allocated that is only claimed.

Every reader of the package goes through here. A named pipe, a folder or a device is refused before anything could
block; what a header claims is held against the size of the file; compressed data is taken only as far as a caller asks,
who knows from the header how much that is.
"""

from __future__ import annotations

import ast
import io
import os
import stat
import struct
import zipfile
import zlib
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from ..errors import ConvError
from .record import NamedTuple

Array = NDArray[Any]
MOST_DIRECTORY: Final = 1 << 24  # bytes of the list of an archive's members: 20,000 with long names
MOST_NPY_HEADER: Final = 4096  # bytes; those of plain arrays have some hundred
MOST_AXES: Final = 32  # of an array in every NumPy that is supported
MOST_SIZE: Final = 1 << 62  # bytes, which any array must stay below
BLOCK: Final = 1 << 20  # compressed data is expanded in pieces of this size
KINDS: Final = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip
# Ends of archives: the record, and that of 64 bits with its pointer.
END, END_BYTES = b"PK\5\6", 22
POINTER, POINTER_BYTES = b"PK\6\7", 20
END_64, END_64_BYTES = b"PK\6\6", 56
LOCAL_BYTES: Final = 30  # of the header before a member's data
MOST_COMMENT: Final = 1 << 16


def require_regular(path: str | os.PathLike[str]) -> None:
    """Refuse what is no regular file, by what it is; nothing is opened.

    Raises `FileNotFoundError` where there is nothing, `ConvError` for a folder, a named pipe, a socket or a device.
    """
    _refuse_kinds(os.stat(path).st_mode, path)


def _refuse_kinds(mode: int, path: str | os.PathLike[str]) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for test, name in KINDS if test(mode)), "no regular file")
        raise ConvError(f"{os.fspath(path)!r} is {kind}, and only regular files are read.")


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading bytes; anything else is refused at once, without waiting for a writer."""
    require_regular(path)  # opening a device may do something
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        _refuse_kinds(os.fstat(file.fileno()).st_mode, path)  # it may have been exchanged meanwhile
    except ConvError:
        file.close()
        raise
    return file


def size_of(file: BinaryIO) -> int:
    """Bytes of an open file."""
    return os.fstat(file.fileno()).st_size


def read_bytes(path: str | os.PathLike[str], most: int) -> bytes:
    """A whole regular file of at most `most` bytes."""
    with open_regular(path) as file:
        size = size_of(file)
        if size > most:
            raise ConvError(f"{os.fspath(path)!r} has {size} bytes, more than the {most} that such a file may have.")
        return file.read(most)


class Segment(NamedTuple):
    """A part of an open file, as a header describes it; `check` is the CRC-32 of the whole, where there is one."""

    file: BinaryIO
    begin: int
    size: int
    check: int | None = None

    def read(self, begin: int, count: int) -> bytearray:
        """`count` bytes from `begin` on. Raises `ValueError` if they are not there, before allocating any."""
        if begin < 0 or count < 0 or begin + count > self.size or self.begin + self.size > size_of(self.file):
            raise ValueError(f"bytes {begin} to {begin + count} of {self.size} are not in the file, perhaps truncated")
        data = bytearray(count)
        self.file.seek(self.begin + begin)
        if count and self.file.readinto(data) != count:  # type: ignore[attr-defined]
            raise ValueError("the file ended; it may be truncated")
        if self.check is not None and count == self.size and zlib.crc32(data) != self.check:
            raise ValueError("its check sum is wrong")
        return data

    def array(self, dtype: str | np.dtype[Any], begin: int, shape: tuple[int, ...]) -> Array:
        """An array of its own of the values from byte `begin` on."""
        kind = np.dtype(dtype)
        if kind.hasobject or kind.itemsize == 0:
            raise ValueError(f"values of type {kind} are not read")
        data = self.read(begin, prod(shape) * kind.itemsize)
        return np.frombuffer(data, kind).reshape(shape)

    def opened(self) -> io.RawIOBase:
        """The part as a file of its own, which holds nothing in memory."""
        return _Window(self)


class _Window(io.RawIOBase):
    def __init__(self, segment: Segment) -> None:
        super().__init__()
        self.segment, self.at = segment, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.segment.size}[whence])
        return self.at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self.segment.size - self.at))
        if count:
            view[:count] = self.segment.read(self.at, count)
        self.at += count
        return count


# ---- archives ------------------------------------------------------------------------------------------------------


class Archive:
    """The members of a zip archive, which are not larger together than the file.

    Parameters
    ----------
    file : binary file
        Open, and longer open than this.

    Raises
    ------
    ConvError
        For a list of members that is too long, names one twice, or claims more than there is.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        _require_short_directory(file)
        self._zip = zipfile.ZipFile(file)
        entries = self._zip.infolist()
        self.entries = {entry.filename: entry for entry in entries}
        if len(self.entries) < len(entries):
            raise ConvError("its list of members names one twice")
        packed, size = sum(entry.compress_size for entry in entries), size_of(file)
        if packed > size:
            raise ConvError(f"its members claim {packed} bytes, the file has {size}")

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def stored(self, name: str, writer: str) -> Segment:
        """A member that lies in the file as it is; `writer` never compresses, and one that would grow is refused."""
        entry = self.entries[name]
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise ConvError(f"its {name} is compressed, which {writer} does not do")
        self._require_plain(entry)
        header = Segment(self.file, entry.header_offset, LOCAL_BYTES).read(0, LOCAL_BYTES)
        if header[:4] != b"PK\3\4":
            raise ConvError(f"its {name} does not begin where the list of members says")
        begin = entry.header_offset + LOCAL_BYTES + sum(struct.unpack("<2H", header[26:30]))
        if begin + entry.file_size > size_of(self.file):
            raise ConvError(f"its {name} ends behind the file, which may be truncated")
        return Segment(self.file, begin, entry.file_size, entry.CRC)

    def read(self, name: str, writer: str, most: int) -> bytes:
        """A stored member of at most `most` bytes."""
        part = self.stored(name, writer)
        if part.size > most:
            raise ConvError(f"its {name} has {part.size} bytes, more than the {most} that it may have")
        return bytes(part.read(0, part.size))

    def npy(self, name: str) -> Npy:
        """The header of a member that is an array."""
        entry = self.entries[name]
        self._require_plain(entry)
        with self._zip.open(entry) as stream:
            header = npy_header(stream)
        if header.offset + header.nbytes != entry.file_size:
            raise ValueError(f"{name} of shape {header.shape} needs {header.nbytes} bytes and has {entry.file_size}")
        return header

    def array(self, name: str) -> Array:
        """The values of a member, whose header the caller has looked at: as many bytes are allocated as that says."""
        header = self.npy(name)
        with self._zip.open(self.entries[name]) as stream:
            stream.read(header.offset)
            return _expanded(stream, header)

    @staticmethod
    def _require_plain(entry: zipfile.ZipInfo) -> None:
        if entry.flag_bits & 1:
            raise ConvError(f"its {entry.filename} is encrypted")


def is_archive(file: BinaryIO) -> bool:
    """Whether a file is a zip archive."""
    return zipfile.is_zipfile(file)


def _require_short_directory(file: BinaryIO) -> None:
    """Refuse a list of members that is longer than any writer's: `zipfile` reads it as a whole."""
    size = size_of(file)
    length = min(size, END_64_BYTES + POINTER_BYTES + END_BYTES + MOST_COMMENT)
    tail = Segment(file, 0, size).read(size - length, length)
    at = tail.rfind(END)
    if at < 0 or len(tail) - at < END_BYTES:
        raise ConvError("it is no zip archive, or a truncated one")
    (listed,) = struct.unpack("<L", tail[at + 12 : at + 16])
    if tail[max(0, at - POINTER_BYTES) : at].startswith(POINTER):
        place = at - POINTER_BYTES - END_64_BYTES  # where `zipfile` looks, whatever the pointer says
        if place >= 0 and tail[place:].startswith(END_64):
            (listed,) = struct.unpack("<Q", tail[place + 40 : place + 48])
    if listed > min(MOST_DIRECTORY, size):
        raise ConvError(f"its list of members claims {listed} bytes")


# ---- NumPy's arrays ------------------------------------------------------------------------------------------------


class Npy(NamedTuple):
    """The header of a .npy file: `offset` bytes long."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    offset: int

    @property
    def nbytes(self) -> int:
        """What the values take."""
        return prod(self.shape) * self.dtype.itemsize


def npy_header(stream: Any) -> Npy:
    """Read a header, at most `MOST_NPY_HEADER` bytes of it. Raises `ValueError` for what is none, and for objects."""
    begin = stream.read(8)
    if len(begin) < 8 or begin[:6] != b"\x93NUMPY" or begin[6] not in (1, 2, 3):
        raise ValueError("it is no .npy array")
    width = 2 if begin[6] == 1 else 4
    prefix = stream.read(width)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < width or length > MOST_NPY_HEADER:
        raise ValueError(f"its header claims {length} bytes, more than {MOST_NPY_HEADER}")
    text = stream.read(length)
    if len(text) < length:
        raise ValueError("its header is cut off")
    try:
        told = ast.literal_eval(text.decode("utf-8" if begin[6] == 3 else "latin1"))
        dtype = np.lib.format.descr_to_dtype(told["descr"])
        shape, fortran = tuple(told["shape"]), told["fortran_order"]
    except Exception as error:  # the parser and NumPy raise whatever they like for a header that is none
        raise ValueError(f"its header is damaged ({type(error).__name__})") from None
    if dtype.hasobject or dtype.itemsize == 0:
        raise ValueError("it holds Python objects or nothing at all, and only numbers are read")
    if len(shape) > MOST_AXES or any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"it claims the shape {shape}, which no array has")
    if prod(max(1, size) for size in shape) * dtype.itemsize >= MOST_SIZE:
        raise ValueError(f"it claims the shape {shape}, which no array has")
    return Npy(tuple(shape), dtype, bool(fortran), 8 + width + length)


def _expanded(stream: Any, header: Npy) -> Array:
    """As many values as the header says, and no more."""
    data = bytearray(header.nbytes)
    view, at = memoryview(data), 0
    while at < len(data):
        piece = stream.read(min(BLOCK, len(data) - at))
        if not piece:
            raise ValueError("its values are cut off")
        view[at : at + len(piece)] = piece
        at += len(piece)
    if stream.read(1):  # which also compares the check sum
        raise ValueError("it is longer than its header says")
    values = np.frombuffer(data, header.dtype)
    return values.reshape(header.shape[::-1]).T if header.fortran else values.reshape(header.shape)


def read_npy(path: str | os.PathLike[str]) -> Array:
    """An array from a .npy file, which has as many bytes as its header claims. Raises `ValueError` for what is none."""
    with open_regular(path) as file:
        header = npy_header(file)
        size = size_of(file)
        if header.offset + header.nbytes != size:
            there = size - header.offset
            raise ValueError(f"an array {header.shape} of {header.dtype} needs {header.nbytes} bytes and has {there}")
        values = Segment(file, header.offset, header.nbytes).array(
            header.dtype, 0, header.shape[::-1] if header.fortran else header.shape
        )
    return values.T if header.fortran else values


def read_text(path: str | os.PathLike[str], most: int) -> str:
    """A whole text of at most `most` bytes, in UTF-8, without the mark that some editors put before it."""
    return read_bytes(Path(path), most).decode("utf-8-sig")
