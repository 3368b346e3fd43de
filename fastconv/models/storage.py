"""Nets in files: NumPy's .npz, or .safetensors, which the package of that name writes. Never pickle.

Every array lies under the path of its parameter, such as `conv2d_1/kernel`; the optimiser's state under the same paths
behind `@optimizer/0/`, and what the net is as JSON text beside them (`architecture`). A file is written beside its
place and moved there when complete. Its names, shapes and types are compared with the model's before any value is read,
and it is read as a whole before any weight is changed.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from .._core import files
from ..errors import ConvError, ConvTypeError
from ..layers.base import Layer
from .architecture import described, restored

if TYPE_CHECKING:
    from .net import Net

Array = NDArray[Any]
Described = Mapping[str, tuple[tuple[int, ...], Any]]  # shape and element type by name
SUFFIXES = (".npz", ".safetensors")
SHOWN = 8  # differences listed in one message
STATE: Final = "@optimizer/"  # before the paths of the optimiser's state
MEMBER: Final = "architecture.json"  # of an archive
META: Final = "fastconv"  # the key of the same text in .safetensors
MOST_TEXT: Final = 1 << 24  # bytes; a net of 1,000 layers has some 300,000


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


def save(model: Net, path: str | os.PathLike[str], weights_only: bool = False) -> None:
    """Write a built net: weights and running statistics, and, unless they alone, what it is and how it trains."""
    place, suffix = _suffix(path)
    arrays: dict[str, Any] = {name: parameter.array for name, parameter in model.named_parameters()}
    taken = [name for name in arrays if name.startswith(STATE)]
    if taken:
        raise ConvError(f"the path {taken[0]!r} of a weight begins as those of the optimiser do; name its layer anew.")
    text = None
    if not weights_only:
        text = json.dumps(described(model))
        arrays |= slots_of(model)
    writer = _safetensors() if suffix == ".safetensors" else None
    with _naming(place), tempfile.TemporaryDirectory(dir=place.parent, prefix=".fastconv-") as folder:
        beside = Path(folder, "weights" + suffix)
        if writer is not None:
            writer.save_file(arrays, str(beside), metadata=None if text is None else {META: text})
        else:
            np.savez(beside, **arrays)
            if text is not None:
                with zipfile.ZipFile(beside, "a") as archive:
                    archive.writestr(MEMBER, text)
        os.replace(beside, place)


def load(model: Layer, path: str | os.PathLike[str]) -> None:
    """Read weights written by `save` into a built model; if anything differs, say what, and change nothing."""
    place, suffix = _existing(path)
    parameters = dict(model.named_parameters())
    wanted = {name: (parameter.shape, parameter.dtype) for name, parameter in parameters.items()}
    with files.open_regular(place) as file:
        stored, read = _reading(place, suffix, lambda: _opened(file, suffix, wanted))
        own = {name: about for name, about in stored.items() if not name.startswith(STATE)}
        _require_alike(place, model.name, wanted, own)
        arrays = _reading(place, suffix, lambda: {name: read(name) for name in parameters})
    for name, parameter in parameters.items():
        parameter.assign(arrays[name])


def load_whole(path: str | os.PathLike[str], custom: Mapping[str, Any], trains: bool) -> Net:
    """A net as `save` wrote it; nothing in the file is run."""
    place, suffix = _existing(path)
    with files.open_regular(place) as file:
        text = _reading(place, suffix, lambda: _text(file, suffix))
        model, training = _reading(place, suffix, lambda: restored(text, custom, trains))
        parameters = dict(model.named_parameters())
        wanted = {name: (parameter.shape, parameter.dtype) for name, parameter in parameters.items()}
        slots = training.slots if training is not None else {}
        for name, count in slots.items():
            if name not in parameters:
                raise ConvError(f"{str(place)!r} has a state of {name!r}, which is no weight of the net.")
            wanted |= {f"{STATE}{i}/{name}": wanted[name] for i in range(count)}
        file.seek(0)
        stored, read = _reading(place, suffix, lambda: _opened(file, suffix, wanted))
        ignored = () if training is not None else tuple(name for name in stored if name.startswith(STATE))
        _require_alike(place, model.name, wanted, {name: stored[name] for name in stored if name not in ignored})
        arrays = _reading(place, suffix, lambda: {name: read(name) for name in wanted})
    for name, parameter in parameters.items():
        parameter.assign(arrays[name])
    if training is not None:
        kept = [(parameters[n], [arrays[f"{STATE}{i}/{n}"] for i in range(count)]) for n, count in slots.items()]
        _reading(place, suffix, lambda: training.apply(model, kept))
    made: Net = model
    return made


def slots_of(model: Net) -> dict[str, Array]:
    """The optimiser's state by name."""
    made: dict[str, Array] = {}
    if model.optimizer is not None:
        for name, parameter in model.named_parameters():
            made |= {f"{STATE}{i}/{name}": array for i, array in enumerate(model.optimizer.slots(parameter))}
    return made


def _existing(path: str | os.PathLike[str]) -> tuple[Path, str]:
    place, suffix = _suffix(path)
    if not place.exists():
        raise FileNotFoundError(f"there is no file {str(place)!r}.")
    return place, suffix


def _require_alike(place: Path, name: str, wanted: Described, stored: Described) -> None:
    differences = _differences(wanted, stored)
    if differences:
        more = len(differences) - SHOWN
        listed = "".join(f"\n  {line}" for line in differences[:SHOWN])
        listed += f"\n  and {more} more" if more > 0 else ""
        raise ConvError(f"{str(place)!r} does not hold the weights of {name}:{listed}")


def _text(file: BinaryIO, suffix: str) -> str:
    """What the file says that the net is."""
    if suffix == ".safetensors":
        from ..weights.safetensors import read_parts  # here, as that package is built on models

        text = read_parts(file)[0].get(META)
    else:
        if not files.is_archive(file):
            raise ConvError("it is no archive of named weights")
        archive = files.Archive(file)
        text = archive.read(MEMBER, "fastconv", MOST_TEXT).decode() if MEMBER in archive else None
    if not isinstance(text, str):
        raise ConvError("it holds weights alone: make the net and call its load(path)")
    return text


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
    found: dict[str, tuple[tuple[int, ...], Any]] = {}
    for member in archive.entries:
        name = member.removesuffix(".npy")
        if name in wanted and name != member:
            header = archive.npy(member)
            found[name] = header.shape, header.dtype
        elif member != MEMBER:
            found[name] = (), None  # a difference by its name alone
    return found, lambda name: archive.array(f"{name}.npy")


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
