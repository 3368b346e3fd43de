"""Weights files of PyTorch (.pth, .pt), read with NumPy alone.

Such a file is a pickle, and a pickle may run any code. This reader knows tensors, their storages and dictionaries, and
refuses everything else by name before anything is called. Sizes are held against the file's before anything is
allocated for them. Both formats are read: the zip archive of PyTorch 1.6 and later, and the older stream of pickles
with raw storages behind them.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..arrays import Array
from ..errors import ConvError
from .source import from_bfloat16, require_few

STORAGES: Final = {
    "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8", "IntStorage": "<i4",
    "ShortStorage": "<i2", "CharStorage": "<i1", "ByteStorage": "<u1", "BoolStorage": "?",
    "BFloat16Storage": "<u2",  # NumPy has no such type: read as float32
}  # fmt: skip
OLD_MAGIC: Final = 0x1950A86A20F9469CFC6C  # the first pickle of the older format
OLD_PROTOCOL: Final = 1001


class _Storage:
    """Values of one type, filled in when the file reaches them."""

    def __init__(self, dtype: str, size: int) -> None:
        self.dtype, self.size, self.bfloat16 = np.dtype(dtype), size, dtype == STORAGES["BFloat16Storage"]
        self.values: Array | None = None

    def fill(self, data: bytes) -> None:
        if len(data) != self.size * self.dtype.itemsize:
            raise ValueError(f"a storage of {self.size} values has {len(data)} bytes; the file may be truncated")
        self.values = np.frombuffer(data, self.dtype)
        if self.bfloat16:
            self.values = from_bfloat16(self.values)


class _Tensor:
    """Where in a storage the values of a tensor are."""

    def __init__(self, storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def array(self) -> Array:
        values = self.storage.values
        if values is None or len(self.shape) != len(self.strides) or min((self.offset, *self.shape, *self.strides)) < 0:
            raise ValueError("a tensor is not described as PyTorch does")
        empty = 0 in self.shape
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if not empty and last >= len(values):
            raise ValueError("a tensor reaches beyond its storage")
        if prod(self.shape) > len(values):  # a repeated one, which no weight is: it would grow without a bound
            raise ValueError(f"a tensor of shape {self.shape} has more values than its storage")
        if empty:
            return np.empty(self.shape, values.dtype)
        strides = tuple(stride * values.itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides).copy()


def _rebuild_tensor(storage: _Storage, offset: int, shape: Any, strides: Any, *others: Any) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _Reader(pickle.Unpickler):
    """An unpickler that makes tensors and dictionaries, and nothing else."""

    def __init__(self, file: io.BytesIO) -> None:
        _require_honest(file)
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *others: tensor
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise ConvError(f"it holds {module}.{name}, and only tensors in dictionaries are read")

    def persistent_load(self, identity: Any) -> _Storage:
        kind, dtype, key, _, size, *view = identity
        if kind != "storage" or not isinstance(dtype, str) or (view and view[0] is not None):
            raise ValueError(f"{identity!r} is no storage")
        return self.storages.setdefault(str(key), _Storage(dtype, int(size)))


def _require_honest(file: io.BytesIO) -> None:
    """Refuse the next pickle if it numbers its objects beyond its own length.

    The unpickler makes its table of objects as long as the largest number says, which may be billions.
    """
    begin = file.tell()
    length = file.getbuffer().nbytes - begin
    for operation, number, _ in pickletools.genops(file):
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and isinstance(number, int) and number > length:
            raise ValueError(f"it numbers an object {number}, in a pickle of {length} bytes")
    file.seek(begin)


def read_state_dict(place: Path) -> dict[str, Array]:
    """The tensors of a state dictionary by their names, such as 'features.0.0.weight', in the order of the file.

    Arrays are new and have PyTorch's axis order (convolutions: out, in, height, width).
    """
    state = _read_archive(place) if zipfile.is_zipfile(place) else _read_stream(place)
    if not isinstance(state, Mapping):
        raise ConvError("it holds no dictionary of tensors")
    require_few(len(state))
    wrong = next((name for name, value in state.items() if not isinstance(value, _Tensor)), None)
    if wrong is not None:
        raise ConvError(f"its entry {wrong!r} is no tensor")
    return {str(name): tensor.array() for name, tensor in state.items()}


def _read_archive(place: Path) -> Any:
    with zipfile.ZipFile(place) as archive:
        (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        folder = pickled.removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in archive.namelist() and _stored(archive, order) != b"little":
            raise ConvError("it was written on a big-endian machine")
        reader = _Reader(io.BytesIO(_stored(archive, pickled)))
        state = reader.load()
        for key, storage in reader.storages.items():
            storage.fill(_stored(archive, f"{folder}data/{key}"))
    return state


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """A file of the archive, which PyTorch stores uncompressed: one that would grow is refused."""
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise ConvError(f"its {name} is compressed, which PyTorch does not do")
    return archive.read(name)


def _read_stream(place: Path) -> Any:
    with io.BytesIO(place.read_bytes()) as file:  # whose `read` allocates no more than there is
        if _Reader(file).load() != OLD_MAGIC or _Reader(file).load() != OLD_PROTOCOL:
            raise ValueError("it does not begin as one")
        system = _Reader(file).load()
        if not system["little_endian"]:
            raise ConvError("it was written on a big-endian machine")
        reader = _Reader(file)
        state = reader.load()
        for key in _Reader(file).load():
            storage = reader.storages[str(key)]
            (size,) = struct.unpack("<q", file.read(8))
            if size != storage.size:
                raise ValueError(f"storage {key} has {size} values in place of {storage.size}")
            storage.fill(file.read(size * storage.dtype.itemsize))
    return state
