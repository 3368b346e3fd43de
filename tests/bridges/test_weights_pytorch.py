"""Reading PyTorch's weights files: both formats, and what is refused."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastconv import ConvError
from fastconv.weights import read_weights
from fastconv.weights.pytorch import OLD_MAGIC, OLD_PROTOCOL


class Pickler(pickle._Pickler):  # type: ignore[name-defined, misc]
    """Writes what PyTorch writes: tensors as calls of functions that are known by name only, storages by identity."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if isinstance(obj, Global):
            self.write(b"c" + f"{obj.module}\n{obj.name}\n".encode())
        else:
            super().save_global(obj, name)

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Global):
            self.save_global(obj)
        elif isinstance(obj, Call):
            self.save(obj.function)
            self.save(obj.arguments)
            self.write(b"R")
        elif isinstance(obj, Stored):
            self.save(obj.identity)
            self.write(b"Q")
        else:
            super().save(obj, save_persistent_id)


class Global:
    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Call:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments


class Stored:
    def __init__(self, kind: str, key: str, size: int) -> None:
        self.identity = ("storage", Global("torch", kind), key, "cpu", size)


def pickled(value: Any) -> bytes:
    file = io.BytesIO()
    Pickler(file, 2).dump(value)
    return file.getvalue()


def tensor(key: str, size: int, offset: int, shape: Any, strides: Any, kind: str = "FloatStorage") -> Call:
    rebuild = Global("torch._utils", "_rebuild_tensor_v2")
    return Call(rebuild, Stored(kind, key, size), offset, shape, strides, False, OrderedDict())


def archive(path: Path, state: Any, storages: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("net/data.pkl", pickled(state))
        file.writestr("net/byteorder", "little")
        for key, data in storages.items():
            file.writestr(f"net/data/{key}", data)
    return path


def stream(path: Path, state: Any, storages: dict[str, bytes]) -> Path:
    parts = [pickled(value) for value in (OLD_MAGIC, OLD_PROTOCOL, {"little_endian": True}, state, list(storages))]
    parts += [struct.pack("<q", len(data) // 4) + data for data in storages.values()]
    path.write_bytes(b"".join(parts))
    return path


VALUES = np.arange(12, dtype=np.float32)
FORMATS = pytest.mark.parametrize("write", [archive, stream])
Write = Callable[[Path, Any, dict[str, bytes]], Path]


@FORMATS
def test_tensors_are_views_of_storages(write: Write, tmp_path: Path) -> None:
    state = OrderedDict(
        plain=tensor("0", 12, 0, (3, 4), (4, 1)),
        turned=tensor("0", 12, 1, (2, 3), (1, 4)),
        scalar=tensor("1", 1, 0, (), (), "IntStorage"),
        empty=tensor("0", 12, 0, (0, 4), (4, 1)),
    )
    path = write(tmp_path / "w.pth", state, {"0": VALUES.tobytes(), "1": np.int32(7).tobytes()})
    found = read_weights(path)
    assert list(found) == ["plain", "turned", "scalar", "empty"]
    np.testing.assert_array_equal(found["plain"], VALUES.reshape(3, 4))
    np.testing.assert_array_equal(found["turned"], VALUES.reshape(3, 4)[:, 1:3].T)
    assert found["scalar"].dtype == np.int32 and found["scalar"] == 7
    assert found["empty"].shape == (0, 4)
    found["plain"][0, 0] = 5  # an array of its own
    assert found["turned"].flags.writeable


@FORMATS
@pytest.mark.parametrize(
    ("module", "name"), [("os", "system"), ("builtins", "eval"), ("torch", "load"), ("fastconv", "conv2d")]
)
def test_nothing_else_is_called(write: Write, module: str, name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "w.pth", {"a": Call(Global(module, name), "touch evidence")}, {})
    with pytest.raises(ConvError, match=rf"{module}\.{name}"):
        read_weights(path)


@FORMATS
@pytest.mark.parametrize(
    "wrong",
    [
        tensor("0", 12, 0, (4, 4), (4, 1)),  # beyond its storage
        tensor("0", 12, -1, (3,), (1,)),
        tensor("0", 12, 0, (3, 4), (4, -1)),
        tensor("0", 12, 0, (3, 4), (4,)),
        tensor("0", 13, 0, (3, 4), (4, 1)),  # a storage of another size
        tensor("9", 12, 0, (3, 4), (4, 1)),  # a storage that is not there
        "text",
        [1, 2],
    ],
    ids=["long", "before", "backwards", "strides", "size", "absent", "text", "list"],
)
def test_damage_is_an_error(write: Write, wrong: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "w.pth", {"a": wrong}, {"0": VALUES.tobytes()})
    with pytest.raises(ConvError, match=r"w\.pth"):
        read_weights(path)


@FORMATS
def test_truncated_at_any_byte(write: Write, tmp_path: Path) -> None:
    data = write(tmp_path / "w.pth", {"a": tensor("0", 12, 0, (3, 4), (4, 1))}, {"0": VALUES.tobytes()}).read_bytes()
    short = tmp_path / "short.pth"
    for length in range(0, len(data), 7):
        short.write_bytes(data[:length])
        with pytest.raises(ConvError, match=r"short\.pth"):
            read_weights(short)


def test_no_dictionary_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConvError, match="dictionary"):
        read_weights(archive(tmp_path / "w.pth", [1, 2], {}))
    with pytest.raises(FileNotFoundError):
        read_weights(tmp_path / "none.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_as_torch_saves(zipped: bool, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    half = torch.nn.Linear(2, 3, dtype=torch.half)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), half)
    torch.save(net.state_dict(), tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    found = read_weights(tmp_path / "w.pth")
    assert list(found) == list(net.state_dict())
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(found[name], value.numpy())
