"""Weights files of PyTorch (.pth, .pt), read with NumPy alone.

Such a file is a pickle, and a pickle may run any code. This reader knows tensors, their storages and dictionaries, and
refuses everything else by name before anything is called. Both formats are read: the zip archive of PyTorch 1.6 and
later, and the older stream of pickles with raw storages behind them.
"""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from .arrays import Array
from .errors import ConvError

STORAGES: Final = {
    "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8", "IntStorage": "<i4",
    "ShortStorage": "<i2", "CharStorage": "<i1", "ByteStorage": "<u1", "BoolStorage": "?",
}  # fmt: skip
OLD_MAGIC: Final = 0x1950A86A20F9469CFC6C  # the first pickle of the older format
OLD_PROTOCOL: Final = 1001


class _Storage:
    """Values of one type, filled in when the file reaches them."""

    def __init__(self, dtype: str, size: int) -> None:
        self.dtype, self.size = np.dtype(dtype), size
        self.values: Array | None = None

    def fill(self, data: bytes) -> None:
        if len(data) != self.size * self.dtype.itemsize:
            raise ValueError(f"a storage of {self.size} values has {len(data)} bytes; the file may be truncated")
        self.values = np.frombuffer(data, self.dtype)


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
        if empty:
            return np.empty(self.shape, values.dtype)
        strides = tuple(stride * values.itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides).copy()


def _rebuild_tensor(storage: _Storage, offset: int, shape: Any, strides: Any, *others: Any) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _Reader(pickle.Unpickler):
    """An unpickler that makes tensors and dictionaries, and nothing else."""

    def __init__(self, file: IO[bytes]) -> None:
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


def read_weights(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The tensors of a state dictionary by their names, such as 'features.0.0.weight', in the order of the file.

    Arrays are new and have PyTorch's axis order (convolutions: out, in, height, width). A file that holds anything
    but tensors, is damaged or truncated raises `ConvError`; nothing in the file is ever run.
    """
    place = Path(path)
    try:
        state = _read_archive(place) if zipfile.is_zipfile(place) else _read_stream(place)
        if not isinstance(state, Mapping):
            raise ConvError("it holds no dictionary of tensors")
        wrong = next((name for name, value in state.items() if not isinstance(value, _Tensor)), None)
        if wrong is not None:
            raise ConvError(f"its entry {wrong!r} is no tensor")
        return {str(name): tensor.array() for name, tensor in state.items()}
    except FileNotFoundError:
        raise
    except ConvError as error:
        raise ConvError(f"{str(place)!r} is not read: {error}.") from None
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle raises whatever it likes
        raise ConvError(f"{str(place)!r} is damaged or no weights file of PyTorch: {error}.") from error


def _read_archive(place: Path) -> Any:
    with zipfile.ZipFile(place) as archive:
        (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        folder = pickled.removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise ConvError("it was written on a big-endian machine")
        with archive.open(pickled) as file:
            reader = _Reader(file)
            state = reader.load()
        for key, storage in reader.storages.items():
            storage.fill(archive.read(f"{folder}data/{key}"))
    return state


def _read_stream(place: Path) -> Any:
    with place.open("rb") as file:
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
