"""Which layer of a file is which of a model, and the report of what was taken and what fits nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from ..arrays import Array
from ..errors import ConvError, ConvTypeError
from ..geometry import Shape
from ..layers import Dense, Flatten, Layer, SeparableConv2D
from ..layers.base import Parameter, snake_case
from ..models import Sequential
from . import keras, pytorch, safetensors
from .source import KERAS_ROLES, Source, SourceLayer, from_paths, from_state_dict

PYTORCH: Final = (".pth", ".pt", ".bin", ".ckpt")
KERAS: Final = (".h5", ".hdf5", ".keras")
SAFETENSORS: Final = (".safetensors",)
SHOWN: Final = 12  # lines of one kind in an error


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
    """

    path: str
    loaded: list[tuple[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every weight of the model was loaded and none of the file's is left."""
        return not self.missing and not self.unused

    def __str__(self) -> str:
        width = max((len(ours) for ours, _ in self.loaded), default=0)
        lines = [f"{ours.ljust(width)}  <- {theirs}" for ours, theirs in self.loaded]
        return "\n".join([*lines, *self._problems(len(self.missing) + len(self.unused)), self._total()])

    def _total(self) -> str:
        return (
            f"{len(self.loaded)} arrays loaded from {self.path!r}; {len(self.missing)} of the model's missing, "
            f"{len(self.unused)} of the file's unused"
        )

    def _problems(self, shown: int) -> list[str]:
        lines = []
        for title, names in (
            ("", self.differences),
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
        return (
            f"{self.path!r} does not hold the weights of this model: {len(self.loaded)} arrays fit, "
            f"{len(self.missing)} of the model's missing, {len(self.unused)} of the file's unused:{listed}\n"
            "Nothing was changed. Build the model that the file was saved from, or pass "
            "strict=False to take what fits."
        )


def read_weights(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Read the arrays of a weights file by name, with the axes that the file has.

    Parameters
    ----------
    path : path_like
        PyTorch's .pth, .pt, .bin and .ckpt, Keras' .h5 and .keras, or .safetensors.

    Returns
    -------
    dict of str to ndarray
        Those of bfloat16 as float32.

    Raises
    ------
    ConvError
        For a file that is damaged, or holds anything but arrays. Nothing in it is ever run.
    """
    place, suffix = _place(path)
    if suffix in KERAS:
        return {
            f"{layer.name}/{role}": array
            for layer in _refusing(place, "Keras", lambda: keras.read_keras(place)).layers
            for role, array in layer.arrays.items()
        }
    if suffix in SAFETENSORS:
        return dict(_refusing(place, "safetensors", lambda: safetensors.read_tensors(place)))
    return dict(_refusing(place, "PyTorch", lambda: pytorch.read_state_dict(place)))


def load_weights(model: Sequential, path: str | os.PathLike[str], *, strict: bool = True) -> LoadReport:
    """Copy the weights of a file of PyTorch or Keras into a built model.

    Layers are matched by name where all names of the model are in the file, else in the order of the net by what they
    are: the shapes of their arrays. Axes are turned as needed; the rows of a dense layer behind `Flatten` are put from
    PyTorch's order (channel by channel) into ours (pixel by pixel).

    Parameters
    ----------
    model : Sequential
        Built.
    path : path_like
        As for `read_weights`.
    strict : bool
        Refuse a file that does not fit exactly; otherwise what fits is taken (a net with another number of classes
        keeps its last layer).

    Returns
    -------
    LoadReport
        Which array went where, and what did not match.

    Raises
    ------
    ConvError
        With `strict`, what is missing, left over or of another shape; the model is as before.
    """
    if not isinstance(model, Sequential):
        raise ConvTypeError(f"model must be a fastconv Sequential, but got {model!r} of type {type(model).__name__}.")
    model._require_built()
    place, suffix = _place(path)
    source = _source(place, suffix)
    targets = list(_targets(model))
    if not source.in_order:
        source = source._replace(layers=_by_kind(source.layers, targets))
    report = LoadReport(str(place))
    values = _match(targets, source, report)
    if strict and not report.complete:
        raise ConvError(report.error())
    for parameter, array in values:
        parameter.assign(array)
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
    if not place.is_file():
        raise FileNotFoundError(f"there is no weights file {str(place)!r}.")
    return place, suffix


def _refusing(place: Path, kind: str, read: Any) -> Any:
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


def _source(place: Path, suffix: str) -> Source:
    if suffix in KERAS:
        found: Source = _refusing(place, "Keras", lambda: keras.read_keras(place))
        return found
    tensors = read_weights(place)
    if any("/" in name and name.rpartition("/")[2] in KERAS_ROLES for name in tensors):
        return from_paths(tensors)  # as `Sequential.save` and Keras name them
    return from_state_dict(tensors)


# ---- layers of the model -------------------------------------------------------------------------------------------


class _Target(NamedTuple):
    """A layer with weights: its path, its kind as Keras' files name it, its parameters by role, the flattened image."""

    name: str
    kind: str
    parameters: dict[str, Parameter]
    image: tuple[int, int, int] | None  # (H, W, C) whose values are the rows of a dense kernel

    def shape(self, role: str) -> Shape:
        """The shape of a parameter as a file has it: a depthwise kernel as (kH, kW, 1, channels)."""
        own = self.parameters[role].shape
        if self.parameters[role].name == "depthwise_kernel":
            return (*own[:2], 1, own[2] * own[3])
        return own


def _targets(model: Sequential) -> Iterator[_Target]:
    assert model.built_shape is not None
    yield from _chain(model.layers, "", _images(model, model.built_shape))


def _chain(layers: Any, prefix: str, images: dict[int, tuple[int, int, int]], parent: str = "") -> Iterator[_Target]:
    for layer in layers:
        kind = snake_case(type(layer).__name__)
        if layer.sublayers():
            if isinstance(layer, SeparableConv2D):
                for inner in layer.sublayers():
                    yield _target(inner, f"{prefix}{layer.name}/", f"{kind}/{inner.name}", None)
            else:
                yield from _chain(layer.sublayers(), f"{prefix}{layer.name}/", images)
        elif layer.parameters():
            yield _target(layer, prefix, kind, images.get(id(layer)))


def _target(layer: Layer, prefix: str, kind: str, image: tuple[int, int, int] | None) -> _Target:
    roles = {KERAS_ROLES.get(p.name, p.name): p for p in layer.parameters()}
    return _Target(f"{prefix}{layer.name}", kind, roles, image)


def _images(model: Sequential, sample: Shape) -> dict[int, tuple[int, int, int]]:
    """The image (H, W, C) that each dense layer behind a Flatten gets as a vector, by the layer's identity."""
    found: dict[int, tuple[int, int, int]] = {}
    pending: tuple[int, int, int] | None = None
    for layer, before, _ in model.shapes(sample):
        if isinstance(layer, Flatten) and len(before) == 3:
            pending = layer._image(before)
        elif isinstance(layer, Sequential):
            found |= _images(layer, before)
        elif isinstance(layer, Dense):
            if pending is not None:
                found[id(layer)] = pending
            pending = None
    return found


# ---- matching ------------------------------------------------------------------------------------------------------


def _by_kind(layers: list[SourceLayer], targets: list[_Target]) -> list[SourceLayer]:
    """Layers whose order is known only within their kind, in the order that the model has the kinds in."""
    waiting: dict[str, list[SourceLayer]] = {}
    for layer in layers:
        waiting.setdefault(layer.kind, []).append(layer)
    ordered = [waiting[target.kind].pop(0) for target in targets if waiting.get(target.kind)]
    return ordered + [layer for rest in waiting.values() for layer in rest]


def _match(targets: list[_Target], source: Source, report: LoadReport) -> list[tuple[Parameter, Array]]:
    """(parameter, value) of what fits; the report says the rest."""
    theirs = {layer.name.replace(".", "/"): layer for layer in source.layers if layer.arrays}
    values: list[tuple[Parameter, Array]] = []
    if targets and all(target.name in theirs for target in targets):
        for target in targets:
            values += _take(target, theirs.pop(target.name), source, report)
        report.unused += [f"{layer.name}: {_shapes(layer)}" for layer in theirs.values()]
        return values
    layers = list(theirs.values())
    ours = [_signature({role: target.shape(role) for role in target.parameters}) for target in targets]
    found = [_signature({role: array.shape for role, array in layer.arrays.items()}) for layer in layers]
    for tag, a, b, c, d in SequenceMatcher(None, ours, found, autojunk=False).get_opcodes():
        if tag == "equal":
            for target, layer in zip(targets[a:b], layers[c:d], strict=True):
                values += _take(target, layer, source, report)
            continue
        for target, layer in zip(targets[a:b], layers[c:d], strict=False):
            report.differences.append(
                f"{target.name} has {_wanted(target)}, where {layer.name} in the file has {_shapes(layer)}"
            )
        report.missing += [f"{target.name}: {_wanted(target)}" for target in targets[a:b]]
        report.unused += [f"{layer.name}: {_shapes(layer)}" for layer in layers[c:d]]
    return values


def _signature(shapes: dict[str, Shape]) -> tuple[tuple[str, Shape], ...]:
    return tuple(sorted(shapes.items()))


def _shapes(layer: SourceLayer) -> str:
    return ", ".join(f"{role} {array.shape}" for role, array in layer.arrays.items())


def _wanted(target: _Target) -> str:
    return ", ".join(f"{role} {target.shape(role)}" for role in target.parameters)


def _take(target: _Target, layer: SourceLayer, source: Source, report: LoadReport) -> list[tuple[Parameter, Array]]:
    """The values of one layer in our order."""
    values = []
    for role, parameter in target.parameters.items():
        array, name = layer.arrays.get(role), f"{target.name}/{parameter.name}"
        if array is None or array.shape != target.shape(role) or array.dtype.kind != "f":
            report.missing.append(f"{name} {target.shape(role)}")
            if array is not None:
                report.differences.append(
                    f"{name} has shape {target.shape(role)}, {layer.name} in the file {array.shape} of {array.dtype}"
                )
            continue
        if role == "kernel" and source.channels_first and target.image is not None:
            height, width, channels = target.image
            by_channel = array.reshape(channels, height, width, -1)
            array = by_channel.transpose(1, 2, 0, 3)
        values.append((parameter, np.ascontiguousarray(array).reshape(parameter.shape)))
        report.loaded.append((name, f"{layer.name} ({role})"))
    left_over = [role for role in layer.arrays if role not in target.parameters]
    report.unused += [f"{layer.name}: {role} {layer.arrays[role].shape}" for role in left_over]
    return values
