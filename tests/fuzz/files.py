"""Files of other programs as bytes: each reader must refuse what it is given with an error of ours, or read it.

    python -P -m fuzz.files tests/corpus/weights/good-named.h5 5000 0 FOLDER

reads files with a few bytes changed, without a guide, for libraries whose own code can't be followed.
"""

from __future__ import annotations

import io
import random
import resource
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ADDRESS_SPACE = 4 << 30  # bytes that a process gets: lengths that are claimed and believed end in MemoryError
Target = Callable[[bytes], None]
CORPUS = Path(__file__).parents[1] / "corpus" / "weights"
ONNX_CORPUS = Path(__file__).parents[1] / "data" / "onnx"


class Fault(Exception):
    """What must not happen."""


def limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, resource.getrlimit(resource.RLIMIT_AS)[1]))


def flipped(data: bytes, draw: random.Random) -> bytes:
    """A few bytes changed, one time in ten the end cut off."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8))):
        changed[draw.randrange(len(data))] = draw.randrange(256)
    if draw.random() < 0.1:
        del changed[draw.randrange(len(data)) :]
    return bytes(changed)


def read(place: Path) -> bool:
    """Whether a weights file was read; False for a refusal."""
    from fastconv import ConvError
    from fastconv.weights import read_weights
    from fastconv.weights.loading import MOST_TIMES

    try:
        arrays = read_weights(place)
    except ConvError as error:
        if place.name not in str(error):
            raise Fault(f"the refusal does not name the file: {error}") from error
        return False
    if sum(array.nbytes for array in arrays.values()) > MOST_TIMES * place.stat().st_size + 4096:
        raise Fault("the arrays are larger than the file")
    return True


def _weights(suffix: str, unpacked: Callable[[bytes], bytes] = bytes) -> Target:
    """A reader of files: what it gets is written under a name with this suffix first."""
    import fastconv.weights  # noqa: F401  # here, where the engine follows it

    limit_memory()
    warnings.simplefilter("ignore")
    place = Path(tempfile.mkdtemp(prefix="fastconv-fuzz-")) / f"file{suffix}"

    def target(data: bytes) -> None:
        place.write_bytes(unpacked(data))
        read(place)

    return target


def pytorch() -> Target:
    """Files as they are (first byte even), or the pickle of an archive (odd); check sums do not stand in the way."""
    zipfile.ZipExtFile._update_crc = lambda *_: None  # type: ignore[attr-defined]

    def unpacked(data: bytes) -> bytes:
        if not data or data[0] % 2 == 0:
            return data[1:]
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("net/data.pkl", data[1:])
            for key in range(3):
                archive.writestr(f"net/data/{key}", bytes(range(64)))
        return packed.getvalue()

    return _weights(".pth", unpacked)


def pytorch_seeds() -> list[bytes]:
    found = []
    for path in sorted(CORPUS.glob("*.pth")):
        found.append(b"\0" + path.read_bytes())
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                found += [b"\1" + archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")]
    return found


def safetensors() -> Target:
    return _weights(".safetensors")


def safetensors_seeds() -> list[bytes]:
    return [path.read_bytes() for path in sorted(CORPUS.glob("*.safetensors"))]


def onnx() -> Target:
    """A model is loaded and run."""
    from reliability.rows.onnx_files import try_model

    limit_memory()

    def target(data: bytes) -> None:
        verdict = try_model(data)
        if verdict not in ("ran", "refused"):
            raise Fault(verdict)

    return target


def onnx_mutator(data: bytes, size: int, seed: int) -> bytes:
    """Every second change is one that keeps a model's form."""
    import atheris
    import onnx
    import onnx_models

    if seed % 2:
        try:
            changed = onnx_models.absurd(onnx, data, random.Random(seed))
            if len(changed) <= size:
                return changed
        except Exception:  # what is no model any more is changed byte by byte
            pass
    return bytes(atheris.Mutate(data, size))


def onnx_seeds() -> list[bytes]:
    import onnx
    import onnx_models

    return [onnx_models.small_net(onnx).SerializeToString()] + [
        path.read_bytes() for path in sorted(ONNX_CORPUS.glob("*.onnx"))
    ]


def main(arguments: list[str]) -> None:
    """Files with changed bytes, of numbers `first` and on; each number is printed before it is read."""
    from fastconv.weights import keras

    source, count, first, folder = Path(arguments[0]), int(arguments[1]), int(arguments[2]), Path(arguments[3])
    limit_memory()
    keras.opened = keras.opened_here  # a process for every file would be slow
    resource.setrlimit(resource.RLIMIT_CPU, (count // 10 + 10, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    warnings.simplefilter("ignore")
    data = source.read_bytes()
    place = folder / ("flipped" + "".join(source.suffixes))
    counts: dict[Any, int] = {True: 0, False: 0}
    for number in range(first, first + count):
        place.write_bytes(flipped(data, random.Random(f"0 {number}")))
        print(number, flush=True)
        counts[read(place)] += 1
    print("read and refused:", counts[True], counts[False])


if __name__ == "__main__":
    main(sys.argv[1:])
