"""Weights in files: NumPy's .npz, or .safetensors, which the package of that name writes. Never pickle.

Every array lies under the path of its parameter, such as `conv2d_1/kernel`. A file is written beside its place and
moved there when complete. Its names, shapes and types are compared with the model's before any value is read, and it is
read as a whole before any weight is changed.
"""

from __future__ import annotations

import errno
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .._core import files
from ..errors import ConvError, ConvTypeError
from ..layers.base import Layer

Array = NDArray[Any]
Described = Mapping[str, tuple[tuple[int, ...], Any]]  # shape and element type by name
SUFFIXES = (".npz", ".safetensors")
SHOWN = 8  # differences listed in one message


def _suffix(path: str | os.PathLike[str]) -> tuple[Path, str]:
    try:
        place = Path(path)
    except TypeError as error:
        raise ConvTypeError(f"path must be a file name, but got {path!r}.") from error
    if place.suffix.lower() not in SUFFIXES:
        raise ConvError(f"path must end in {' or '.join(SUFFIXES)}, but got {str(place)!r}.")
    return place, place.suffix.lower()


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("writing .safetensors needs: pip install fastconv[safetensors]") from error
    return safetensors.numpy


@contextmanager
def _naming(place: Path) -> Iterator[None]:
    """Errors of the system name the file that is wanted, or its folder, and not the one that is written beside it."""
    if not place.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"cannot save {place.name!r}, as there is no folder", str(place.parent))
    if place.is_dir():
        raise IsADirectoryError(errno.EISDIR, "cannot save the weights, as there is a folder", str(place))
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"cannot save the weights: {error.strerror or error}", str(place)) from error
    except Exception as error:
        if type(error).__module__.startswith("safetensors"):  # what its writer makes of an error of the system
            raise OSError(errno.EIO, f"cannot save the weights: {error}", str(place)) from error
        raise


def save(model: Layer, path: str | os.PathLike[str]) -> None:
    """Write all weights and running statistics of a built model."""
    place, suffix = _suffix(path)
    arrays: dict[str, Any] = {name: parameter.array for name, parameter in model.named_parameters()}
    writer = _safetensors() if suffix == ".safetensors" else None
    with _naming(place), tempfile.TemporaryDirectory(dir=place.parent, prefix=".fastconv-") as folder:
        beside = Path(folder, "weights" + suffix)
        if writer is not None:
            writer.save_file(arrays, str(beside))
        else:
            np.savez(beside, **arrays)
        os.replace(beside, place)


def load(model: Layer, path: str | os.PathLike[str]) -> None:
    """Read weights written by `save` into a built model; if anything differs, say what, and change nothing."""
    place, suffix = _suffix(path)
    parameters = dict(model.named_parameters())
    if not place.exists():
        raise FileNotFoundError(f"there is no weights file {str(place)!r}.")
    wanted = {name: (parameter.shape, parameter.dtype) for name, parameter in parameters.items()}
    with files.open_regular(place) as file:
        described, read = _reading(place, suffix, lambda: _opened(file, suffix, wanted))
        differences = _differences(wanted, described)
        if differences:
            more = len(differences) - SHOWN
            listed = "".join(f"\n  {line}" for line in differences[:SHOWN])
            listed += f"\n  and {more} more" if more > 0 else ""
            raise ConvError(f"{str(place)!r} does not hold the weights of {model.name}:{listed}")
        arrays = _reading(place, suffix, lambda: {name: read(name) for name in parameters})
    for name, parameter in parameters.items():
        parameter.assign(arrays[name])


def _opened(file: BinaryIO, suffix: str, wanted: Described) -> tuple[Described, Callable[[str], Array]]:
    """What the file says that it holds, and the function that reads the values of a name."""
    if suffix == ".safetensors":
        from ..weights.safetensors import read_header  # here, as that package is built on models

        tensors = read_header(file)
        stored = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
        return stored, lambda name: tensors[name].read()
    if not files.is_archive(file):
        raise ConvError("it is no archive of named weights")
    archive = files.Archive(file)
    described: dict[str, tuple[tuple[int, ...], Any]] = {}
    for member in archive.entries:
        name = member.removesuffix(".npy")
        if name in wanted and name != member:
            header = archive.npy(member)
            described[name] = header.shape, header.dtype
        else:
            described[name] = (), None  # a difference by its name alone
    return described, lambda name: archive.array(f"{name}.npy")


def _reading(place: Path, suffix: str, read: Callable[[], Any]) -> Any:
    """What `read()` returns; a `ConvError` with the file's name for whatever a damaged file makes it raise."""
    try:
        return read()
    except ConvError as error:
        raise ConvError(f"{str(place)!r} cannot be read: {error}.") from None
    except MemoryError:
        raise
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ConvError(f"{str(place)!r} cannot be read as {suffix}: {error}. It may be truncated.") from error
    except Exception as error:  # zlib.error, and whatever else a damaged archive makes the reader raise
        raise ConvError(f"{str(place)!r} is damaged: {error}.") from error


def _differences(wanted: Described, found: Described) -> list[str]:
    """A line for every name, shape and element type that is not as the model has it."""
    lines = [f"{name} is missing" for name in wanted if name not in found]
    lines += [f"{name} is not in the model" for name in found if name not in wanted]
    for name, (shape, dtype) in wanted.items():
        if name not in found:
            continue
        if found[name][0] != shape:
            lines.append(f"{name} has shape {found[name][0]}, the model's {shape}")
        if found[name][1] != dtype:
            lines.append(f"{name} has dtype {found[name][1]}, the model's {dtype}")
    return lines
