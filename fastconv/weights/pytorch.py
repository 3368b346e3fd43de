"""Weights files of PyTorch (.pth, .pt), read with NumPy alone.

Such a file is a pickle, and a pickle may run any code. This reader knows tensors, their storages and dictionaries. What
else checkpoints hold beside them (NumPy's numbers, settings, states of optimisers) becomes objects that do nothing, and
every other name is refused before anything is called. Sizes are held against the file's before anything is allocated
for them, and values are read when they are asked for. Both formats are read: the zip archive of PyTorch 1.6 and later,
and the older stream of pickles with raw storages behind them.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np

from .._core.arrays import Array
from .._core.files import Archive, Segment, is_archive, size_of
from .._core.words import Shape
from ..errors import ConvError
from .source import MODULE_ORDER, Stored, from_bfloat16, require_few

STORAGES: Final = {
    "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8", "IntStorage": "<i4",
    "ShortStorage": "<i2", "CharStorage": "<i1", "ByteStorage": "<u1", "BoolStorage": "?",
    "BFloat16Storage": "<u2",  # NumPy has no such type: read as float32
}  # fmt: skip
OLD_MAGIC: Final = 0x1950A86A20F9469CFC6C  # the first pickle of the older format
OLD_PROTOCOL: Final = 1001
WRITER: Final = "PyTorch"
# Packages whose objects stand beside tensors in checkpoints; they become `_Inert`, and none of their code is called.
BESIDE: Final = frozenset((
    "torch", "numpy", "collections", "argparse", "pathlib", "datetime", "types", "enum", "_codecs", "omegaconf",
    "pytorch_lightning", "lightning", "lightning_fabric", "lightning_utilities",
))  # fmt: skip
SIMPLE: Final = frozenset((
    "set", "frozenset", "list", "dict", "tuple", "slice", "range", "bytearray", "int", "float", "complex", "str",
    "bool",
))  # fmt: skip
PLAIN: Final = (str, bytes, int, float, bool, type(None))  # what may stand between tensors: an epoch, a version
MOST_PICKLE: Final = 1 << 24  # bytes
MOST_OPERATIONS: Final = 1_000_000  # of a pickle, each of which may make an object; a large net takes some 100,000
MOST_SPREAD: Final = 64  # times its size, over which a tensor may lie in its storage: a column of a matrix
MOST_DEPTH: Final = 8  # of dictionaries in dictionaries
WHOLE: Final = "to load a module that was saved as a whole, save its state_dict() and load that"


class _Storage:
    """Values of one type somewhere in the file."""

    def __init__(self, dtype: str, size: int) -> None:
        self.dtype, self.size, self.bfloat16 = np.dtype(dtype), size, dtype == STORAGES["BFloat16Storage"]
        self.part: Segment | None = None

    def fill(self, part: Segment) -> None:
        if part.size != self.size * self.dtype.itemsize:
            raise ValueError(f"a storage of {self.size} values has {part.size} bytes; the file may be truncated")
        self.part = part


class _Tensor(NamedTuple):
    """Where in a storage the values of a tensor are."""

    storage: _Storage
    offset: int
    shape: Shape
    strides: Shape

    def stored(self) -> Stored:
        """The tensor, if its values are in the file."""
        if self.storage.part is None or len(self.shape) != len(self.strides) or len(self.shape) > 32:
            raise ValueError("a tensor is not described as PyTorch does")
        if any(type(number) is not int or number < 0 for number in (self.offset, *self.shape, *self.strides)):
            raise ValueError("a tensor is not described as PyTorch does")
        if 0 not in self.shape and self.offset + self._reach() >= self.storage.size:
            raise ValueError("a tensor reaches beyond its storage")
        if prod(self.shape) > self.storage.size:  # a repeated one, which no weight is: it would grow without a bound
            raise ValueError(f"a tensor of shape {self.shape} has more values than its storage")
        if 0 not in self.shape and self._reach() > MOST_SPREAD * prod(self.shape) + MOST_PICKLE:
            raise ValueError(f"a tensor of shape {self.shape} is spread over {self._reach()} values")
        dtype = np.dtype(np.float32) if self.storage.bfloat16 else self.storage.dtype
        return Stored(self.shape, dtype, self._read)

    def _reach(self) -> int:
        return sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))

    def _read(self) -> Array:
        dtype, part = self.storage.dtype, self.storage.part
        assert part is not None
        if 0 in self.shape:
            return np.empty(self.shape, np.float32 if self.storage.bfloat16 else dtype)
        values = part.array(dtype, self.offset * dtype.itemsize, (self._reach() + 1,))
        strides = tuple(stride * dtype.itemsize for stride in self.strides)
        array = np.lib.stride_tricks.as_strided(values, self.shape, strides)
        if not array.flags.c_contiguous:
            array = array.copy()
        return from_bfloat16(array) if self.storage.bfloat16 else array


def _rebuild_tensor(storage: Any, offset: int, shape: Any, strides: Any, *others: Any) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor has no storage")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _Inert:
    """An object of a checkpoint that is no tensor: it has a name, and nothing that is done with it does anything."""

    named = ""

    def __new__(cls, *_: Any, **__: Any) -> _Inert:
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> _Inert:
        return self

    def __setstate__(self, _: Any) -> None:
        pass

    def __setitem__(self, _: Any, __: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        """As the pickle of a list wants it."""

    def extend(self, _: Any) -> None:
        """As the pickle of a list wants it."""

    def add(self, _: Any) -> None:
        """As the pickle of a set wants it."""


class _Reader(pickle.Unpickler):
    """An unpickler that makes tensors and dictionaries, and objects that do nothing."""

    def __init__(self, file: io.BytesIO) -> None:
        _require_honest(file)
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("collections", "defaultdict"):
            return lambda *_: {}
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *others: tensor
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        root = module.partition(".")[0]
        if root in BESIDE or (root in ("builtins", "__builtin__") and name in SIMPLE):
            return type("Inert", (_Inert,), {"named": f"{module}.{name}"})
        raise ConvError(f"it holds {module}.{name}, and only tensors in dictionaries are read; {WHOLE}")

    def persistent_load(self, identity: Any) -> _Storage:
        kind, dtype, key, _, size, *view = identity
        if kind != "storage" or not isinstance(dtype, str) or (view and view[0] is not None):
            raise ValueError(f"{identity!r} is no storage")
        if type(size) is not int or size < 0:
            raise ValueError("a storage has no size")
        made = self.storages.setdefault(str(key), _Storage(dtype, size))
        if (made.dtype, made.size, made.bfloat16) != (np.dtype(dtype), size, dtype == STORAGES["BFloat16Storage"]):
            raise ValueError(f"storage {key} is described twice, and differently")
        return made


def _require_honest(file: io.BytesIO) -> None:
    """Refuse the next pickle if it numbers its objects beyond its own length, or makes more than any net has.

    The unpickler makes its table of objects as long as the largest number says, which may be billions.
    """
    begin = file.tell()
    length = file.getbuffer().nbytes - begin
    for count, (operation, number, _) in enumerate(pickletools.genops(file)):
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and isinstance(number, int) and number > length:
            raise ValueError(f"it numbers an object {number}, in a pickle of {length} bytes")
        if count > MOST_OPERATIONS:
            raise ConvError(f"its pickle has more than {MOST_OPERATIONS} operations")
    file.seek(begin)


# ---- which dictionary ----------------------------------------------------------------------------------------------


class StateDict(NamedTuple):
    """The tensors of a state dictionary by their names, such as 'features.0.0.weight', and where they were found."""

    tensors: dict[str, Stored]
    modules: list[str] | None  # in the order in which PyTorch made them, where the file has that
    notes: list[str]


def read_state_dict(file: BinaryIO, entry: str | None = None) -> StateDict:
    """What the state dictionary of an open file holds, in the order of the file; values are read when asked for.

    Arrays are new and have PyTorch's axis order (convolutions: out, in, height, width). Of a checkpoint that holds
    several dictionaries of tensors, `entry` says which.
    """
    held = _read_archive(file) if is_archive(file) else _read_stream(file)
    if isinstance(held, _Inert):
        raise ConvError(f"it holds a {held.named} and no dictionary of tensors; {WHOLE}")
    if not isinstance(held, Mapping):
        raise ConvError("it holds no dictionary of tensors")
    path, state, rest = _chosen(held, entry)
    require_few(len(state))
    wrong = next((name for name, value in state.items() if not isinstance(value, (_Tensor, *PLAIN))), None)
    if wrong is not None:
        raise ConvError(f"its entry {wrong!r} is no tensor{_named(state[wrong])}")
    tensors = {str(name): value.stored() for name, value in state.items() if isinstance(value, _Tensor)}
    notes = [f"taken: the entry {path!r} of {', '.join(map(repr, list(held)[:12]))}"] if path else []
    left = [str(name) for name, value in state.items() if not isinstance(value, _Tensor)]
    notes += [f"left out, as they are no tensors: {', '.join(left[:12])}"] if left else []
    made = getattr(state, "_metadata", None)
    modules = [str(name) for name in made] if isinstance(made, Mapping) else None
    if rest:
        tensors, note = under(tensors, rest)
        modules = None if modules is None else [name.removeprefix(f"{rest}.") for name in modules if name != rest]
        notes.append(note)
    return StateDict(tensors, modules, notes)


def under(tensors: dict[str, Stored], prefix: str) -> tuple[dict[str, Stored], str]:
    """The tensors whose names begin with a module's, without it, and a note that says so."""
    found = {name.removeprefix(f"{prefix}."): array for name, array in tensors.items() if name.startswith(f"{prefix}.")}
    if not found:
        roots = sorted({name.partition(".")[0] for name in tensors})
        raise ConvError(f"it has no entry {prefix!r}; its names begin with {', '.join(map(repr, roots[:12]))}")
    return found, f"taken: the {len(found)} of {len(tensors)} tensors whose names begin with '{prefix}.'"


def _named(value: Any) -> str:
    return f" but a {value.named}" if isinstance(value, _Inert) else ""


def _chosen(held: Mapping[Any, Any], entry: str | None) -> tuple[str, Mapping[Any, Any], str]:
    """The dictionary of tensors, its path in the file ('' if it is the whole), and a prefix that names must have."""
    found = dict(_dictionaries(held))
    if not found:
        first = next(iter(held), None)
        told = f"its entry {first!r} is no tensor{_named(held[first])}" if held else "it is empty"
        inert = next((value.named for value in held.values() if isinstance(value, _Inert)), None)
        raise ConvError(f"{told}, and none is a dictionary of tensors" + (f"; {WHOLE}" if inert else ""))
    inside = {path: state for path, state in found.items() if path and _is_of_modules(state)}
    if inside and not _is_of_modules({k: v for k, v in found.get("", {}).items() if isinstance(v, _Tensor)}):
        found = inside
    elif "" in found:
        found = {"": found[""]}
    if entry is not None:
        for path in sorted(found, key=len, reverse=True):
            if entry == path or not path or entry.startswith(f"{path}/"):
                return path, found[path], entry.removeprefix(path).lstrip("/")
        if len(found) > 1:
            raise ConvError(f"it has no entry {entry!r}; {_choice(found)}")
    if len({id(state) for state in found.values()}) > 1:
        raise ConvError(f"it holds several dictionaries of tensors: {_choice(found)}")
    path, state = next(iter(found.items()))
    return path, state, entry or ""


def _choice(found: Iterable[str]) -> str:
    return "choose with " + " or ".join(f"entry={path!r}" for path in list(found)[:12])


def _is_of_modules(state: Mapping[Any, Any]) -> bool:
    """Whether names are those of modules' tensors, and not of something else that is kept in tensors."""
    return any(str(name).rpartition(".")[2] in MODULE_ORDER for name in state)


def _dictionaries(held: Mapping[Any, Any], path: str = "", depth: int = 0) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """The dictionaries that hold tensors by their names, by their paths; those of an optimiser go by numbers."""
    require_few(len(held))
    if not all(isinstance(name, str) for name in held):
        return
    if any(isinstance(value, _Tensor) for value in held.values()):
        yield path, held
    for name, value in held.items():
        if isinstance(value, Mapping) and depth < MOST_DEPTH:
            yield from _dictionaries(value, f"{path}/{name}" if path else name, depth + 1)


# ---- the two formats -----------------------------------------------------------------------------------------------


def _read_archive(file: BinaryIO) -> Any:
    archive = Archive(file)
    found = [name for name in archive.entries if name.endswith("/data.pkl")]
    if len(found) != 1:
        raise ConvError("it is an archive, but none of PyTorch's")
    folder = found[0].removesuffix("data.pkl")
    order = f"{folder}byteorder"
    if order in archive and archive.read(order, WRITER, 64) != b"little":
        raise ConvError("it was written on a big-endian machine")
    reader = _Reader(io.BytesIO(archive.read(found[0], WRITER, MOST_PICKLE)))
    state = reader.load()
    for key, storage in reader.storages.items():
        storage.fill(archive.stored(f"{folder}data/{key}", WRITER))
    return state


def _read_stream(file: BinaryIO) -> Any:
    file.seek(0)
    with io.BytesIO(file.read(min(MOST_PICKLE, size_of(file)))) as head:  # whose `read` allocates no more than there is
        if _Reader(head).load() != OLD_MAGIC or _Reader(head).load() != OLD_PROTOCOL:
            raise ValueError("it does not begin as one")
        system = _Reader(head).load()
        if not system["little_endian"]:
            raise ConvError("it was written on a big-endian machine")
        reader = _Reader(head)
        state = reader.load()
        keys = _Reader(head).load()
        at = head.tell()
    require_few(len(keys))
    for key in keys:
        storage = reader.storages[str(key)]
        (size,) = struct.unpack("<q", Segment(file, at, 8).read(0, 8))
        if size != storage.size:
            raise ValueError(f"storage {key} has {size} values in place of {storage.size}")
        part = Segment(file, at + 8, size * storage.dtype.itemsize)
        if part.begin + part.size > size_of(file):
            raise ValueError("a storage ends behind the file, which may be truncated")
        storage.fill(part)
        at = part.begin + part.size
    return state
