"""Weights of a file into a model, and the report of what was taken, what was guessed and what fits nothing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from .._core.arrays import Array
from .._core.files import open_regular, require_regular, size_of
from ..errors import ConvError, ConvTypeError
from ..layers import BatchNormalization
from ..models import Sequential
from . import keras, pytorch, safetensors
from .flattening import Flattening
from .matching import Target, match, resolved, targets
from .source import KERAS_ROLES, Source, SourceLayer, Stored, from_paths, from_state_dict

PYTORCH: Final = (".pth", ".pt", ".bin", ".ckpt")
KERAS: Final = (".h5", ".hdf5", ".keras")
SAFETENSORS: Final = (".safetensors",)
SHOWN: Final = 12  # lines of one kind in an error
MOST_TIMES: Final = 4  # the size of a file, that its arrays may have together: tensors share storages

T = TypeVar("T")


@dataclass
class LoadReport:
    """What `load_weights` did; print it for a table.

    Parameters
    ----------
    path : str
        The file.
    loaded : list of (str, str)
        Name in the model and name in the file, of every array.
    missing : list of str
        Names in the model that got nothing.
    unused : list of str
        Names in the file that were left over.
    differences : list of str
        What stands against each other there.
    guessed : list of str
        What neither names nor shapes nor the file's order decide.
    notes : list of str
        What was taken of a file that holds more than one net's weights.
    """

    path: str
    loaded: list[tuple[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    guessed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every weight of the model was loaded, none of the file's is left, and nothing was guessed."""
        return not self.missing and not self.unused and not self.guessed

    def __str__(self) -> str:
        width = max((len(ours) for ours, _ in self.loaded), default=0)
        lines = [f"{ours.ljust(width)}  <- {theirs}" for ours, theirs in self.loaded]
        shown = len(self.missing) + len(self.unused) + len(self.guessed) + len(self.differences)
        return "\n".join([*lines, *self.notes, *self._problems(shown), self._total()])

    def _total(self) -> str:
        return (
            f"{len(self.loaded)} arrays loaded from {self.path!r}; {len(self.missing)} of the model's missing, "
            f"{len(self.unused)} of the file's unused"
        ) + (f"; {len(self.guessed)} guessed" if self.guessed else "")

    def _problems(self, shown: int) -> list[str]:
        lines = []
        for title, names in (
            ("", self.differences),
            ("in doubt: ", self.guessed),
            ("missing in the file: ", self.missing),
            ("not in the model: ", self.unused),
        ):
            lines += [title + name for name in names[:shown]]
            if len(names) > shown:
                lines.append(f"{title}{len(names) - shown} more")
        return lines

    def error(self) -> str:
        """The report as the text of a refusal.

        Returns
        -------
        str
            Several lines.
        """
        listed = "".join(f"\n  {line}" for line in self._problems(SHOWN))
        if not self.missing and not self.unused:
            return (
                f"{self.path!r} may hold the weights of this model, but that is a guess:{listed}\nNothing was changed. "
                "Give the model's layers the file's names where an order is in doubt, or pass strict=False to take the "
                "guess."
            )
        return (
            f"{self.path!r} does not hold the weights of this model: {len(self.loaded)} arrays fit, "
            f"{len(self.missing)} of the model's missing, {len(self.unused)} of the file's unused:{listed}\n"
            "Nothing was changed. Build the model that the file was saved from, or pass "
            "strict=False to take what fits."
        )


def read_weights(path: str | os.PathLike[str], *, entry: str | None = None) -> dict[str, Array]:
    """Read the arrays of a weights file by name, with the axes that the file has.

    Parameters
    ----------
    path : path_like
        PyTorch's .pth, .pt, .bin and .ckpt, Keras' .h5 and .keras, or .safetensors.
    entry : str, optional
        Which of several dictionaries of tensors in a checkpoint ('ema', 'model/state_dict'), or the module whose
        tensors are wanted ('net' for those named 'net.…'), or both ('state_dict/net').

    Returns
    -------
    dict of str to ndarray
        Those of bfloat16 as float32.

    Raises
    ------
    ConvError
        For a file that is damaged, or no regular file, or holds anything but arrays, or several dictionaries of them.
        Nothing in it is ever run.
    """
    place, suffix = _place(path)
    if suffix in KERAS:
        _require_no_entry(entry)
        with _keras(place) as source:
            stored = {f"{layer.name}/{role}": array for layer in source.layers for role, array in layer.arrays.items()}
            return _refusing(place, "Keras", lambda: {name: array.read() for name, array in stored.items()})
    kind = "safetensors" if suffix in SAFETENSORS else "PyTorch"
    with open_regular(place) as file:

        def read() -> dict[str, Array]:
            if suffix in SAFETENSORS:
                tensors = _entry(safetensors.read_header(file), entry)[0]
            else:
                tensors = pytorch.read_state_dict(file, entry).tensors
            claimed, size = sum(array.nbytes for array in tensors.values()), size_of(file)
            if claimed > MOST_TIMES * size:
                raise ConvError(f"its tensors claim {claimed} bytes, the file has {size}")
            return {name: array.read() for name, array in tensors.items()}

        return _refusing(place, kind, read)


def load_weights(
    model: Sequential, path: str | os.PathLike[str], *, strict: bool = True, entry: str | None = None
) -> LoadReport:
    """Copy the weights of a file of PyTorch or Keras into a built model.

    Layers are matched by name where the user named all layers of the model and all those names are in the file. Else
    they are told apart by their shapes, and those of equal shapes by the numbers in the file's names, the graph of a
    Keras model, or the order in which PyTorch made its modules. Where none of these decides, the load is a guess: it is
    refused, or with `strict=False` done and not `complete`. Axes are turned as needed; what lies behind a flattened
    map is put from PyTorch's order (channel by channel) into ours (pixel by pixel).

    Parameters
    ----------
    model : Sequential
        Built.
    path : path_like
        As for `read_weights`.
    strict : bool
        Refuse a file that does not fit exactly, or only by a guess; otherwise what fits is taken (a net with another
        number of classes keeps its last layer).
    entry : str, optional
        As for `read_weights`: which of several nets in a file.

    Returns
    -------
    LoadReport
        Which array went where, and what did not match.

    Raises
    ------
    ConvError
        With `strict`, what is missing, left over, of another shape or uncertain; and for a file as `read_weights`
        refuses it. The model is as before.
    """
    if not isinstance(model, Sequential):
        raise ConvTypeError(f"model must be a fastconv Sequential, but got {model!r} of type {type(model).__name__}.")
    model._require_built()
    place, suffix = _place(path)
    ours = targets(model)
    with _opened(place, suffix, entry) as source:
        report = LoadReport(str(place), notes=source.notes)
        fitting = _fitting(ours, resolved(source, ours, keras.SCALE_OR_SHIFT), report)
        flattening = Flattening(model) if source.channels_first else None
        if flattening is not None:
            report.guessed += flattening.problems
        if strict and not report.complete:
            raise ConvError(report.error())
        values = _refusing(place, suffix, lambda: [_value(*fit, flattening) for fit in fitting])
    for (target, role, _), value in zip(fitting, values, strict=True):
        target.parameters[role].assign(value)
    return report


# ---- files ---------------------------------------------------------------------------------------------------------


def _place(path: str | os.PathLike[str]) -> tuple[Path, str]:
    try:
        place = Path(path)
    except TypeError as error:
        raise ConvTypeError(f"path must be a file name, but got {path!r}.") from error
    suffix = place.suffix.lower()
    if suffix not in PYTORCH + KERAS + SAFETENSORS:
        known = ", ".join(PYTORCH + SAFETENSORS + KERAS)
        raise ConvError(f"path must end in one of {known}, but got {str(place)!r}.")
    if not place.exists():
        raise FileNotFoundError(f"there is no weights file {str(place)!r}.")
    require_regular(place)
    return place, suffix


def _refusing(place: Path, kind: str, read: Callable[[], T]) -> T:
    """What `read()` returns; a `ConvError` with the file's name for whatever a damaged file makes it raise."""
    try:
        return read()
    except (FileNotFoundError, PermissionError, ImportError):
        raise
    except ConvError as error:
        raise ConvError(f"{str(place)!r} is not read: {error}.") from None
    except MemoryError as error:
        raise ConvError(f"{str(place)!r} claims more memory than there is.") from error
    except Exception as error:  # damaged pickles, archives and HDF5 files raise whatever they like
        raise ConvError(f"{str(place)!r} is damaged or no weights file of {kind}: {error}.") from error


@contextmanager
def _keras(place: Path) -> Iterator[Source]:
    opened = keras.opened(place)
    source = _refusing(place, "Keras", opened.__enter__)
    try:
        yield source
    finally:
        opened.__exit__(None, None, None)


@contextmanager
def _opened(place: Path, suffix: str, entry: str | None) -> Iterator[Source]:
    """The layers of a file, whose values can be read meanwhile."""
    if suffix in KERAS:
        _require_no_entry(entry)
        with _keras(place) as source:
            yield source
        return
    with open_regular(place) as file:
        if suffix in SAFETENSORS:
            yield _refusing(place, "safetensors", lambda: _from_safetensors(safetensors.read_header(file), entry))
        else:
            yield _refusing(place, "PyTorch", lambda: _from_pytorch(pytorch.read_state_dict(file, entry)))


def _entry(tensors: dict[str, Stored], entry: str | None) -> tuple[dict[str, Stored], list[str]]:
    """The tensors of a module, and a note of it."""
    if entry is None:
        return tensors, []
    found, note = pytorch.under(tensors, entry)
    return found, [note]


def _from_pytorch(state: pytorch.StateDict) -> Source:
    source = from_state_dict(state.tensors, True, state.modules)
    source.notes += state.notes
    return source


def _from_safetensors(held: dict[str, Stored], entry: str | None) -> Source:
    tensors, notes = _entry(held, entry)
    if any("/" in name and name.rpartition("/")[2] in KERAS_ROLES for name in tensors):
        source = from_paths(tensors)  # as `Sequential.save` names them
    else:
        source = from_state_dict(tensors, False)
    source.notes += notes
    return source


def _require_no_entry(entry: str | None) -> None:
    if entry is not None:
        raise ConvError(f"entry is for files of PyTorch; Keras' hold one model, but got entry={entry!r}.")


# ---- matching ------------------------------------------------------------------------------------------------------

Fit = tuple[Target, str, Stored]  # a layer of the model, a role, the array


def _fitting(ours: list[Target], source: Source, report: LoadReport) -> list[Fit]:
    """What fits of the file; the report says the rest. Nothing is read."""
    matching = match(ours, source)
    report.guessed += matching.guessed
    report.guessed += [f"{name!r} is used more than once in the file's net" for name in source.shared]
    fitting: list[Fit] = []
    for mine, theirs in matching.pairs:
        fitting += _fits(ours[mine], source.layers[theirs], report)
    paired = [set(numbers) for numbers in zip(*matching.pairs, strict=True)] or [set(), set()]
    left = [target for number, target in enumerate(ours) if number not in paired[0]]
    over = [layer for number, layer in enumerate(source.layers) if number not in paired[1]]
    report.differences += [
        f"{target.name} has {_wanted(target)}, where {layer.name} in the file has {_shapes(layer)}"
        for target, layer in zip(left, over, strict=False)
    ]
    roots = Counter(layer.name.partition(".")[0] for layer in source.layers)
    if source.channels_first and len(roots) > 1 and len(over) and len(ours) in roots.values():
        chosen = " or ".join(f"entry={root!r}" for root, count in roots.items() if count == len(ours))
        report.differences.append(f"it may hold several nets: {chosen} takes one of them")
    report.missing += [f"{target.name}: {_wanted(target)}" for target in left]
    report.unused += [f"{layer.name}: {_shapes(layer)}" for layer in over]
    return fitting


def _shapes(layer: SourceLayer) -> str:
    return ", ".join(f"{role} {array.shape}" for role, array in layer.arrays.items())


def _wanted(target: Target) -> str:
    return ", ".join(f"{role} {target.shape(role)}" for role in target.parameters)


def _fits(target: Target, layer: SourceLayer, report: LoadReport) -> list[Fit]:
    """The arrays of one layer that have our shapes."""
    fitting = []
    for role, parameter in target.parameters.items():
        array, name = layer.arrays.get(role), f"{target.name}/{parameter.name}"
        if array is None or array.shape != target.shape(role) or array.dtype.kind != "f":
            report.missing.append(f"{name} {target.shape(role)}")
            if array is not None:
                report.differences.append(
                    f"{name} has shape {target.shape(role)}, {layer.name} in the file {array.shape} of {array.dtype}"
                )
            continue
        fitting.append((target, role, array))
        report.loaded.append((name, f"{layer.name} ({role})"))
    left_over = [role for role in layer.arrays if role not in target.parameters]
    report.unused += [f"{layer.name}: {role} {layer.arrays[role].shape}" for role in left_over]
    return fitting


def _value(target: Target, role: str, array: Stored, flattening: Flattening | None) -> Array:
    """The values of an array in our order."""
    values = array.read()
    if flattening is not None:
        rows, columns = flattening.rows(target.layer), flattening.columns(target.layer)
        if rows is not None and (role == "kernel" or isinstance(target.layer, BatchNormalization)):
            values = values[rows]
        if columns is not None:
            values = values[..., columns]
    return np.ascontiguousarray(values).reshape(target.parameters[role].shape)
