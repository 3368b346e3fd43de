"""Weights in files: NumPy's .npz, or .safetensors, which the package of that name writes. Never pickle.

Every array lies under the path of its parameter, such as `conv2d_1/kernel`. A file is written beside its place and
moved there when complete; it is read and compared as a whole before any weight is changed.
"""

from __future__ import annotations

import errno
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ConvError, ConvTypeError
from .layers.base import Layer

Array = NDArray[Any]
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
    arrays = _read(place, suffix)
    differences = _differences({name: (p.shape, p.dtype) for name, p in parameters.items()}, arrays)
    if differences:
        more = len(differences) - SHOWN
        listed = "".join(f"\n  {line}" for line in differences[:SHOWN]) + (f"\n  and {more} more" if more > 0 else "")
        raise ConvError(f"{str(place)!r} does not hold the weights of {model.name}:{listed}")
    for name, parameter in parameters.items():
        parameter.assign(arrays[name])


def _read(place: Path, suffix: str) -> Mapping[str, Array]:
    try:
        if suffix == ".safetensors":
            from .weights.safetensors import read_tensors  # here, as that package is built on models

            return read_tensors(place)
        with np.load(place, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ConvError("it is a single array, not a file of named weights")
            return {name: file[name] for name in file.files}
    except ConvError as error:
        raise ConvError(f"{str(place)!r} cannot be read: {error}.") from None
    except MemoryError:
        raise
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ConvError(f"{str(place)!r} cannot be read as {suffix}: {error}. It may be truncated.") from error
    except Exception as error:  # zlib.error, and whatever else a damaged archive makes NumPy raise
        raise ConvError(f"{str(place)!r} is damaged: {error}.") from error


def _differences(wanted: Mapping[str, tuple[tuple[int, ...], Any]], arrays: Mapping[str, Array]) -> list[str]:
    """A line for every name, shape and element type that is not as the model has it."""
    lines = [f"{name} is missing" for name in wanted if name not in arrays]
    lines += [f"{name} is not in the model" for name in arrays if name not in wanted]
    for name, (shape, dtype) in wanted.items():
        array = arrays.get(name)
        if array is None:
            continue
        if array.shape != shape:
            lines.append(f"{name} has shape {array.shape}, the model's {shape}")
        if array.dtype != dtype:
            lines.append(f"{name} has dtype {array.dtype}, the model's {dtype}")
    return lines
