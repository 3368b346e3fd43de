"""Files that claim too much: each must be refused, at once and without the memory that it claims.

    python -P -m claims FOLDER

reads those that `write` has put into a folder, in a process of its own, and prints a line for each that was taken, took
memory, or was refused in another way than with an error of ours.
"""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

FAR = 1 << 42  # 4 TiB
HOLE = 1 << 36  # 64 GiB, which the file system does not store
ZEROS = 1 << 26  # bytes, which deflate to a thousandth
ADDRESS_SPACE = 1 << 30  # that a process may add to what it has after its imports
MOST_GROWN = 48 << 20  # bytes that a refusal may take
Act = Callable[[], object]


def npy_header(shape: Any, descr: str = "<f4", fortran: bool = False) -> bytes:
    """The header of an array of any shape."""
    text = repr({"descr": descr, "fortran_order": fortran, "shape": shape}).encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text


def npz(path: Path, members: dict[str, bytes], packed: bool = False) -> Path:
    """An archive of any members."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED, True, 1) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def tensors(path: Path, header: dict[str, Any], size: int = 0, text: bytes | None = None) -> Path:
    """A .safetensors file of any header, with `size` bytes of data that are a hole."""
    written = json.dumps(header).encode() if text is None else text
    path.write_bytes(struct.pack("<Q", len(written)) + written)
    os.truncate(path, 8 + len(written) + size)
    return path


def _f32(*shape: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 4 * int(np.prod(shape, dtype=object))]}


def _npz_files(folder: Path) -> Iterator[tuple[str, Path]]:
    one = npy_header((3,)) + bytes(12)
    members: dict[str, dict[str, bytes]] = {
        "4 TiB": {"d/kernel.npy": npy_header((FAR,))},
        "negative": {"d/kernel.npy": npy_header((-4, 3))},
        "beyond 64 bits": {"d/kernel.npy": npy_header((1 << 40, 1 << 40))},
        "no values": {"d/kernel.npy": npy_header((0, 1 << 62))},
        "many axes": {"d/kernel.npy": npy_header((1,) * 60)},
        "objects": {"d/kernel.npy": npy_header((4, 3), "|O") + bytes(8)},
        "structures": {"d/kernel.npy": npy_header((4, 3), "|V4") + bytes(48)},
        "long header": {"d/kernel.npy": b"\x93NUMPY\2\0" + struct.pack("<L", (1 << 32) - 1)},
        "nested header": {"d/kernel.npy": b"\x93NUMPY\1\0" + struct.pack("<H", 4000) + b"(" * 4000},
        "no array": {"d/kernel.npy": b"nothing"},
        "cut off": {"d/kernel.npy": npy_header((4, 3)) + bytes(40), "d/bias.npy": one},
        "longer": {"d/kernel.npy": npy_header((4, 3)) + bytes(400), "d/bias.npy": one},
        "extra": {"d/kernel.npy": npy_header((4, 3)) + bytes(48), "d/bias.npy": one, "more.npy": npy_header((FAR,))},
    }
    for name, held in members.items():
        yield f"npz, {name}", npz(folder / f"{name}.npz", {"d/bias.npy": one, **held})
    zeros = npy_header((ZEROS // 4,)) + bytes(ZEROS)
    yield "npz, deflated zeros", npz(folder / "zeros.npz", {"d/kernel.npy": zeros, "d/bias.npy": one}, True)
    beside = {"d/kernel.npy": npy_header((4, 3)) + bytes(48), "d/bias.npy": one, "side.npy": zeros}
    yield "npz, deflated zeros in a member that is not read", npz(folder / "side.npz", beside, True)
    header = b"\x93NUMPY\2\0" + struct.pack("<L", ZEROS) + b" " * ZEROS
    yield "npz, deflated header", npz(folder / "header.npz", {"d/kernel.npy": header, "d/bias.npy": one}, True)
    twice = folder / "twice.npz"
    with zipfile.ZipFile(twice, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            archive.writestr("d/bias.npy", one)
    yield "npz, a name twice", twice
    long = folder / "list.npz"
    long.write_bytes(b"PK\5\6" + struct.pack("<4H2LH", 0, 0, 65535, 65535, 0x7FFFFFFF, 0, 0))
    os.truncate(long, 1 << 31)
    with long.open("r+b") as file:
        file.seek((1 << 31) - 22)
        file.write(b"PK\5\6" + struct.pack("<4H2LH", 0, 0, 65535, 65535, 0x7FFFFF00, 0, 0))
    yield "npz, list of members", long


def _safetensors_files(folder: Path) -> Iterator[tuple[str, Path]]:
    yield "safetensors, a hole", tensors(folder / "hole.safetensors", {"d.weight": _f32(HOLE // 4)}, HOLE)
    yield "safetensors, rows", tensors(folder / "rows.safetensors", {"d.weight": _f32(3, HOLE // 12)}, HOLE // 12 * 12)
    yield "safetensors, 4 TiB", tensors(folder / "far.safetensors", {"d.weight": _f32(FAR)})
    header = folder / "header.safetensors"
    header.write_bytes(struct.pack("<Q", HOLE - 8))
    os.truncate(header, HOLE)
    yield "safetensors, header", header
    many = {f"l{i}.weight": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(30_000)}
    yield "safetensors, entries", tensors(folder / "many.safetensors", many)
    yield "safetensors, nested", tensors(folder / "nested.safetensors", {}, 0, b"[" * 1_000_000)


def _pth_files(folder: Path) -> Iterator[tuple[str, Path]]:
    from bridges.test_weights_pytorch import Pickler, tensor

    def pickled(state: Any) -> bytes:
        file = io.BytesIO()
        Pickler(file, 2).dump(state)
        return file.getvalue()

    def archive(name: str, state: Any, storages: dict[str, bytes]) -> Path:
        return npz(folder / f"{name}.pth", {
            "net/data.pkl": pickled(state), **{f"net/data/{key}": data for key, data in storages.items()},
        })  # fmt: skip

    yield "pth, storage", archive("storage", {"d.weight": tensor("0", FAR, 0, (3, 4), (4, 1))}, {"0": bytes(48)})
    yield "pth, shape", archive("shape", {"d.weight": tensor("0", 12, 0, (FAR,), (0,))}, {"0": bytes(48)})
    shared = {f"l{i}.weight": tensor("0", 1 << 20, i, (1 << 19,), (1,)) for i in range(2000)}
    yield "pth, one storage many times", archive("many", shared, {"0": bytes(4 << 20)})
    packed = {"net/data.pkl": pickled({"d.weight": tensor("0", ZEROS // 4, 0, (ZEROS // 4,), (1,))}),
              "net/data/0": bytes(ZEROS)}  # fmt: skip
    yield "pth, deflated", npz(folder / "packed.pth", packed, True)
    yield "pth, lists", npz(folder / "lists.pth", {"net/data.pkl": b"\x80\2" + b"]" * (1 << 21) + b"."})
    stream = folder / "stream.pth"
    stream.write_bytes(b"\x80\2X" + struct.pack("<L", (1 << 32) - 1))
    os.truncate(stream, HOLE)
    yield "pth, stream", stream


def _h5_files(folder: Path) -> Iterator[tuple[str, Path]]:
    if find_spec("h5py") is None:
        return
    import h5py

    def made(name: str, write: Callable[[Any], object]) -> tuple[str, Path]:
        path = folder / f"{name}.weights.h5"
        with h5py.File(path, "w") as file:
            write(file.create_group("layers/dense/vars"))
        return f"h5, {name}", path

    yield made("chunks", lambda group: group.create_dataset("0", (1 << 20, 1 << 20), "f4", chunks=(16, 16)))
    yield made("gzip", lambda g: g.create_dataset("0", data=np.zeros(1 << 20, "f4"), compression="gzip"))

    def again(group: Any) -> None:
        group.create_dataset("0", data=np.zeros(1 << 16, "f4"))
        for number in range(1, 500):
            group[str(number)] = group["0"]  # another name of the same values

    yield made("many names", again)

    def hole(group: Any) -> None:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        space = h5py.h5s.create_simple((4, HOLE // 16))
        h5py.h5d.create(group.id, b"0", h5py.h5t.IEEE_F32LE, space, plist)

    yield made("a hole", hole)


def _no_files(folder: Path) -> Iterator[tuple[str, Path]]:
    for suffix in (".npz", ".safetensors", ".pth", ".h5", ".keras"):
        (folder / f"folder{suffix}").mkdir()
        yield f"a folder{suffix}", folder / f"folder{suffix}"
        os.mkfifo(folder / f"pipe{suffix}")
        yield f"a named pipe{suffix}", folder / f"pipe{suffix}"
        if Path("/dev/zero").exists():
            (folder / f"device{suffix}").symlink_to("/dev/zero")
            yield f"a device{suffix}", folder / f"device{suffix}"


def write(folder: Path) -> list[tuple[str, str]]:
    """(what it is, the name of the file) for weights that a model Dense(3) of 4 inputs, named d, must not take, and
    for files of the other readers."""
    found: list[tuple[str, Path]] = []
    for make in (_npz_files, _safetensors_files, _pth_files, _h5_files, _no_files, _other_files, _onnx_files):
        found += make(folder)
    return [(name, path.name) for name, path in found]


def _other_files(folder: Path) -> Iterator[tuple[str, Path]]:
    (folder / "far.npy").write_bytes(npy_header((FAR,)))
    yield "npy, 4 TiB", folder / "far.npy"
    os.mkfifo(folder / "pipe.npy")
    yield "npy, a named pipe", folder / "pipe.npy"
    os.mkfifo(folder / "pipe.txt")
    yield "labels, a named pipe", folder / "pipe.txt"
    (folder / "hole.txt").touch()
    os.truncate(folder / "hole.txt", HOLE)
    yield "labels, a hole", folder / "hole.txt"


def _onnx_files(folder: Path) -> Iterator[tuple[str, Path]]:
    if find_spec("onnx") is None:
        return
    from onnx import TensorProto, helper

    def model(name: str, initializers: list[Any]) -> tuple[str, Path]:
        names = [tensor.name for tensor in initializers]
        graph = helper.make_graph(
            [helper.make_node("Concat", names, ["y"], axis=0)], "g", [],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], initializers,
        )  # fmt: skip
        path = folder / f"{name}.onnx"
        path.write_bytes(helper.make_model(graph).SerializeToString())
        return f"onnx, {name}", path

    def external(name: str, location: str, *shape: int) -> Any:
        made = TensorProto(name=name, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL, dims=shape)
        entry = made.external_data.add()
        entry.key, entry.value = "location", location
        return made

    os.mkfifo(folder / "pipe.bin")
    (folder / "data.bin").write_bytes(bytes(1 << 20))
    yield model("dims", [TensorProto(name="a", data_type=TensorProto.FLOAT, dims=(1 << 40, 1 << 20))])
    yield model("raw dims", [TensorProto(name="a", data_type=TensorProto.FLOAT, dims=(FAR,), raw_data=bytes(16))])
    yield model("empty dims", [TensorProto(name="a", data_type=TensorProto.FLOAT, dims=(0, 1 << 62), raw_data=b"")])
    yield model("a pipe of data", [external("a", "pipe.bin", 4)])
    yield model("more than the file", [external("a", "data.bin", FAR)])
    yield model("the file many times", [external(f"a{i}", "data.bin", 1 << 18) for i in range(1000)])
    os.mkfifo(folder / "pipe.onnx")
    yield "onnx, a named pipe", folder / "pipe.onnx"


# ---- in a process of its own ---------------------------------------------------------------------------------------


def _acts(path: Path) -> dict[str, Act]:
    """What reads a file of this kind."""
    from fastconv import Sequential, layers
    from fastconv.cli.fed import array_of
    from fastconv.cli.run import _names
    from fastconv.onnx import InferenceSession
    from fastconv.weights import load_weights, read_weights

    if path.suffix == ".npy":
        return {"run": lambda: array_of(str(path))}
    if path.suffix == ".txt":
        return {"run --labels": lambda: _names(str(path))}
    if path.suffix == ".onnx":
        return {"InferenceSession": lambda: InferenceSession(path)}
    model = Sequential([layers.Dense(3, name="d")], (4,))
    found: dict[str, Act] = {}
    if path.suffix in (".npz", ".safetensors"):
        found["load"] = lambda: model.load(path)
    if path.suffix != ".npz":
        found["load_weights"] = lambda: load_weights(model, path)
    if path.suffix in (".safetensors", ".pth"):
        found["read_weights"] = lambda: read_weights(path)
    return found


def _status(name: str) -> int:
    """A line of the process' account, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


def _tried(act: Act) -> str:
    """'' for a refusal as it should be."""
    from fastconv import ConvError, ConvTypeError
    from fastconv.cli.common import CommandError

    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before, verdict = _status("VmRSS"), "not refused"
    try:
        act()
    except (ConvError, ConvTypeError, CommandError):
        verdict = ""
    except BaseException as error:
        verdict = f"{type(error).__name__}: {error}"
    grown = _status("VmHWM") - before
    return verdict if verdict or grown < MOST_GROWN else f"took {grown >> 20} MiB"


def main(folder: Path) -> None:
    """Read every file, with little memory."""
    import resource

    listed = [(name, *act) for name, file in json.load(sys.stdin) for act in _acts(folder / file).items()]
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + ADDRESS_SPACE, hard))
    for name, reader, act in listed:
        print(f"{name}: {reader}", end=": ", flush=True)
        print(_tried(act), flush=True)


def verdicts(folder: Path, seconds: int) -> list[tuple[str, str]]:
    """(the file and its reader, what was wrong or '') of all files; a reader that hangs or crashes ends the list."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "claims", str(folder)], input=json.dumps(write(folder)), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=seconds, check=False,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        said, end = done.stdout, f"ended with {done.returncode}"
    except subprocess.TimeoutExpired as error:
        said, end = bytes(error.stdout or b"").decode(), f"took more than {seconds} s"
    found = []
    for line in said.splitlines():
        name, reader, verdict = line.split(": ", 2)
        found.append((f"{name}: {reader}", verdict))
    if not said.endswith("\n"):
        found[-1] = (found[-1][0], end)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
