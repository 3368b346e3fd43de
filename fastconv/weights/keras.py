"""Weights files of Keras, read with h5py: .h5 of Keras 2 and 3, .weights.h5, and .keras archives.

Three layouts, after Keras' documentation and its own reader:
- .h5 with the attribute `layer_names` (at the root, or in the group `model_weights` of a whole model): a group a layer,
  with the attribute `weight_names` and a dataset each;
- .weights.h5: a group `vars` with the datasets '0', '1', ... inside a group named for the layer's class, counted
  ('layers/conv2d_1/vars/0'), so that the order of layers of different classes is not in the file; newer versions give
  `vars` the attribute `name`, the layer's own;
- .keras: a zip archive with such a file (model.weights.h5) and config.json, which has the order and the names.

Links to other places or files, external and virtual datasets and sizes beyond the file's are refused. The HDF5 library
itself may crash on a damaged file (tests/corpus/weights/crash-libhdf5.h5), so files are read in a process of their own.
"""

from __future__ import annotations

import io
import json
import re
import sys
import zipfile
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..arrays import Array
from ..errors import ConvError
from ..layers.base import snake_case
from . import apart
from .source import Source, SourceLayer, from_paths, keras_layers, require_few

WEIGHTS, CONFIG = "model.weights.h5", "config.json"
MOST_DEPTH: Final = 32  # of groups in groups
MOST_NAMES_BYTES: Final = 1 << 24  # of the attributes that list names
MOST_NAME_BYTES: Final = 1 << 12
NOT_LAYERS: Final = ("optimizer", "optimizer_weights", "_metrics", "metrics")


def read_keras(place: Path) -> Source:
    """The layers of a file, read in a process of its own. Raises `ConvError` for what is not as Keras writes it."""
    if find_spec("h5py") is None:
        raise ImportError("reading Keras' weights needs: pip install fastconv[keras]")
    return apart.read_apart(__name__, place) if sys.executable else read_here(place)


def serve(place: str) -> None:
    """What that process does."""
    apart.serve(read_here, place)


def read_here(place: Path) -> Source:
    """`read_keras` in this process, which ends if the HDF5 library crashes."""
    import h5py

    if not zipfile.is_zipfile(place):
        with h5py.File(place, "r") as file:
            return _read(h5py, file, None)
    with zipfile.ZipFile(place) as archive:
        config = json.loads(_member(archive, CONFIG))
        with h5py.File(io.BytesIO(_member(archive, WEIGHTS)), "r") as file:
            return _read(h5py, file, config)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """A file of the archive, which Keras stores uncompressed: one that would grow is refused."""
    if name not in archive.namelist():
        raise ConvError(f"it has no {name}; those without HDF5 weights are not read")
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise ConvError(f"its {name} is compressed, which Keras does not do")
    return archive.read(name)


def _read(h5py: Any, file: Any, config: Any) -> Source:
    root = _child(h5py, file, "model_weights") if "model_weights" in file else file
    if "layer_names" in root.attrs or "layer_names0" in root.attrs:
        return _by_names(h5py, root, _depthwise(file))
    found: dict[str, dict[str, Array]] = {}
    _collect(h5py, file, "", found, 0)
    if not found:
        raise ConvError("it holds no layers as Keras saves them")
    layers = {path: _positional(path, arrays) for path, arrays in found.items()}
    ordered = _in_order(layers, config)
    if ordered is not None:
        return Source(ordered, True, False)
    return Source([layer for path in sorted(layers, key=_natural) for layer in _named(h5py, file, path, layers[path])],
                  False, False)  # fmt: skip


def _named(h5py: Any, file: Any, path: str, found: list[SourceLayer]) -> list[SourceLayer]:
    """The layers of a group under the name that the file gives it, if it does; nested ones keep the groups above."""
    group = file[f"{path}/vars"]
    if "name" not in group.attrs:
        return found
    stored = group.attrs.get_id("name")
    if prod(stored.shape) != 1 or stored.dtype.itemsize > MOST_NAME_BYTES:
        raise ConvError(f"the name of {path!r} claims {prod(stored.shape)} values of {stored.dtype.itemsize} bytes")
    own = group.attrs["name"]
    name = own.decode("utf-8") if isinstance(own, bytes) else str(own)
    above = path.split("/")[:-1]
    label = "/".join([part for part in above if part != "layers"] + [name])
    return [layer._replace(name=layer.name.replace(path, label, 1)) for layer in found]


# ---- groups and datasets -------------------------------------------------------------------------------------------


def _child(h5py: Any, group: Any, name: str) -> Any:
    """A member of a group that lies in this very place."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ConvError(f"{name!r} is a link to another place, which is not followed")
    return group[name]


def _array(h5py: Any, dataset: Any, name: str) -> Array:
    """The values of a dataset that has as many bytes in the file as its shape claims."""
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiu" or dataset.shape is None:
        raise ConvError(f"{name!r} is no array of numbers")
    if dataset.is_virtual or dataset.external:
        raise ConvError(f"{name!r} has its values in another file, which is not opened")
    claimed = prod(dataset.shape) * dataset.dtype.itemsize
    if claimed > dataset.id.get_storage_size():
        raise ConvError(
            f"{name!r} of shape {dataset.shape} claims {claimed} bytes, the file has {dataset.id.get_storage_size()}"
        )
    values: Array = np.asarray(dataset[()])
    return values


def _names(group: Any, name: str) -> list[str]:
    """An attribute that lists names; long lists are cut in numbered parts."""
    parts = [name] if name in group.attrs else []
    while f"{name}{len(parts)}" in group.attrs and name not in group.attrs:
        parts.append(f"{name}{len(parts)}")
    found: list[str] = []
    for part in parts:
        kept = group.attrs.get_id(part)
        if prod(kept.shape) * max(1, kept.dtype.itemsize) > MOST_NAMES_BYTES:
            raise ConvError(f"its list {part!r} claims {prod(kept.shape)} names")
        found += [item.decode("utf-8") if isinstance(item, bytes) else str(item) for item in group.attrs[part]]
        require_few(len(found))
    return found


def _depthwise(file: Any) -> set[str]:
    """The names of the depthwise layers of a whole model's configuration: Keras 3 calls their weights 'kernel' too."""
    text = file.attrs.get("model_config", "{}")
    found: set[str] = set()
    waiting = [json.loads(text)]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            own = item.get("config")
            if str(item.get("class_name", "")).startswith("Depthwise") and isinstance(own, dict):
                found.add(str(own.get("name")))
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return found


def _by_names(h5py: Any, root: Any, depthwise: set[str]) -> Source:
    arrays: dict[str, Array] = {}
    for layer in _names(root, "layer_names"):
        group = _child(h5py, root, layer)
        for weight in _names(group, "weight_names"):
            at = group
            for part in weight.split("/"):
                at = _child(h5py, at, part)
            own = _own_name(layer, weight)
            if own.endswith("/kernel") and own.split("/")[-2] in depthwise:
                own = own[: -len("kernel")] + "depthwise_kernel"
            arrays[own] = _array(h5py, at, own)
    if not arrays:
        raise ConvError("it holds no weights")
    return from_paths({_short(name): array for name, array in arrays.items()})


def _own_name(layer: str, weight: str) -> str:
    """A weight's path from its layer on: Keras 3 writes the model's name before it ('net/conv/kernel')."""
    parts = weight.split("/")
    return "/".join(parts[parts.index(layer) :]) if layer in parts[:-1] else f"{layer}/{weight}"


def _short(name: str) -> str:
    """'conv/conv/kernel:0', as Keras 2 writes it, as 'conv/kernel:0'."""
    parts = name.split("/")
    return "/".join(part for i, part in enumerate(parts) if i == 0 or part != parts[i - 1])


def _collect(h5py: Any, group: Any, path: str, found: dict[str, dict[str, Array]], depth: int) -> None:
    """The arrays of every group that has `vars`, by its path."""
    if depth > MOST_DEPTH:
        raise ConvError(f"its groups are nested more than {MOST_DEPTH} deep")
    require_few(len(group))
    for name in group:
        inner = _child(h5py, group, name)
        if not isinstance(inner, h5py.Group) or (depth == 0 and name in NOT_LAYERS):
            continue
        if name == "vars":
            arrays = {key: _array(h5py, _child(h5py, inner, key), f"{path}/vars/{key}") for key in inner}
            if arrays:
                found[path] = {key: arrays[key] for key in sorted(arrays, key=_natural)}
                require_few(len(found))
        else:
            _collect(h5py, inner, f"{path}/{name}" if path else name, found, depth + 1)


def _natural(path: str) -> list[tuple[int, str]]:
    """A key that sorts conv2d_2 before conv2d_10, and conv2d before both."""
    return [(int(number or 0), text) for text, number in re.findall(r"(\D+|^)(\d*)", path)]


# ---- layers by the classes of their groups -------------------------------------------------------------------------


def _kind(path: str) -> str:
    """The class of a counted group: 'layers/conv2d_1' is a conv2d."""
    return re.sub(r"_\d+$", "", path.rpartition("/")[2])


def _positional(path: str, arrays: dict[str, Array]) -> list[SourceLayer]:
    """The variables '0', '1', ... of a layer by role, which class and shapes tell."""
    kind, values = _kind(path), list(arrays.values())
    axes = [array.ndim for array in values]
    if axes[:2] == [4, 4]:
        roles = ["depthwise_kernel", "pointwise_kernel", "bias"]
    elif axes[0] in (2, 4):
        roles = ["depthwise_kernel" if kind.startswith("depthwise") else "kernel", "bias"]
    else:  # without its scale or its centre a normalisation has fewer; without the scale is the usual one
        every = ["gamma", "beta", "moving_mean", "moving_variance"]
        roles = every[-len(values) :] if len(values) < 4 else every
    if len(values) > len(roles):
        return [SourceLayer(path, kind, {f"variable {key}": array for key, array in arrays.items()})]
    return keras_layers(path, kind, dict(zip(roles, values, strict=False)))


def _in_order(layers: dict[str, list[SourceLayer]], config: Any) -> list[SourceLayer] | None:
    """The layers in the order of a model's configuration, under its names; None if that does not tell."""
    try:
        items = config["config"]["layers"]
        listed = [(snake_case(str(item["class_name"])), str(item["config"]["name"])) for item in items]
    except (KeyError, TypeError):
        return None
    counts: dict[str, int] = {}
    ordered: list[SourceLayer] = []
    used = set()
    for kind, name in listed:
        number = counts[kind] = counts.get(kind, -1) + 1
        for folder in ("layers", "_layer_checkpoint_dependencies"):
            path = f"{folder}/{kind}_{number}" if number else f"{folder}/{kind}"
            if path in layers:
                used.add(path)
                ordered += [layer._replace(name=layer.name.replace(path, name, 1)) for layer in layers[path]]
    return ordered if len(used) == len(layers) else None
