"""Weights files of Keras, read with h5py: .h5 of Keras 2 and 3, .weights.h5, and .keras archives.

Three layouts, after Keras' documentation and its own reader:
- .h5 with the attribute `layer_names` (at the root, or in the group `model_weights` of a whole model): a group a layer,
  with the attribute `weight_names` and a dataset each; a whole model has its configuration in `model_config`;
- .weights.h5: a group `vars` with the datasets '0', '1', ... inside a group named for the layer's class and counted in
  its model ('layers/conv2d_1/vars/0', 'layers/sequential/layers/conv2d/vars/0'), so that the order of layers of
  different classes is not in the file; newer versions give `vars` the attribute `name`, the layer's own;
- .keras: a zip archive with such a file (model.weights.h5) and config.json, the configuration.

A configuration tells the whole graph (`graph`). Without one the numbers tell the order within a class and a model.

Links to other places or files, external and virtual datasets and sizes beyond the file's are refused. The HDF5 library
itself may crash on a damaged file (tests/corpus/weights/crash-libhdf5.h5), so files are read in a process of their own.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np

from .._core.arrays import Array
from .._core.files import Archive, is_archive, open_regular, size_of
from .._core.words import MOST_AXES
from ..errors import ConvError
from . import apart
from .graph import KerasGraph, Leaf, Unclear, is_model, members
from .source import (
    KERAS_ROLES,
    KINDS,
    Place,
    Source,
    SourceLayer,
    Step,
    Stored,
    counted,
    keras_layers,
    natural,
    require_few,
    step,
)

WEIGHTS, CONFIG = "model.weights.h5", "config.json"
WRITER: Final = "Keras"
MOST_DEPTH: Final = 32  # of groups in groups
MOST_NAMES_BYTES: Final = 1 << 24  # of the attributes that list names
MOST_NAME_BYTES: Final = 1 << 12
MOST_CONFIG_BYTES: Final = 1 << 24
NOT_LAYERS: Final = ("optimizer", "optimizer_weights", "_metrics", "metrics")
FOLDERS: Final = ("layers", "_layer_checkpoint_dependencies")  # where a model keeps its layers
MODELS: Final = ("sequential", "functional")  # whose order of layers is the net's
CLASSES: Final = {"Sequential": "sequential", "Functional": "functional", "Model": "functional"}
NORMALISATION: Final = ("gamma", "beta", "moving_mean", "moving_variance")
OWN: Final = "top_level_model_weights"  # what belongs to no layer of a model
SCALE_OR_SHIFT: Final = "gamma or beta"  # of a normalisation that has one of them, and the file does not say which


def opened(place: Path) -> AbstractContextManager[Source]:
    """The layers of a file, read in a process of its own. Raises `ConvError` for what is not as Keras writes it."""
    if find_spec("h5py") is None:
        raise ImportError("reading Keras' weights needs: pip install fastconv[keras]")
    return apart.opened_apart(__name__, place) if sys.executable else opened_here(place)


def serve(place: str) -> None:
    """What that process does."""
    apart.serve(opened_here, place)


@contextmanager
def opened_here(place: Path) -> Iterator[Source]:
    """`opened` in this process, which ends if the HDF5 library crashes."""
    import h5py

    with open_regular(place) as file:
        if not is_archive(file):
            with h5py.File(file, "r") as root:
                yield _File(h5py, root, size_of(file)).source()
            return
        config, stream = _members(file)
        with h5py.File(stream, "r") as root:
            yield _File(h5py, root, size_of(file), config).source()


def _members(file: BinaryIO) -> tuple[Any, Any]:
    """The configuration of a .keras archive, and its weights as a file; Keras stores both uncompressed."""
    archive = Archive(file)
    for name in (WEIGHTS, CONFIG):
        if name not in archive:
            raise ConvError(f"it has no {name}; those without HDF5 weights are not read")
    config = json.loads(archive.read(CONFIG, WRITER, MOST_CONFIG_BYTES))
    return config, archive.stored(WEIGHTS, WRITER).opened()


class _Group(NamedTuple):
    """A group with `vars`: its arrays, and the layer's own name where the file has it."""

    arrays: dict[str, Stored]
    own: str | None


class _File:
    """An open HDF5 file of `size` bytes."""

    def __init__(self, h5py: Any, root: Any, size: int, config: Any = None) -> None:
        self.h5py, self.root, self.left = h5py, root, size
        self.config = config
        self.groups: dict[str, _Group] = {}

    def source(self) -> Source:
        """Its layers."""
        root = self.child(self.root, "model_weights") if "model_weights" in self.root else self.root
        if "layer_names" in root.attrs or "layer_names0" in root.attrs:
            if self.config is None and "model_config" in self.root.attrs:
                self._require_short(self.root, "model_config", MOST_CONFIG_BYTES)
                self.config = json.loads(self.root.attrs["model_config"])
            return self._by_names(root)
        self._collect(self.root, "", 0)
        if not any(group.arrays for group in self.groups.values()):
            raise ConvError("it holds no layers as Keras saves them")
        try:
            return self._with_graph(KerasGraph(self.config), _located(self.config, self.groups))
        except Unclear:
            return self._by_classes()

    # ---- groups and datasets --------------------------------------------------------------------------------------

    def child(self, group: Any, name: str) -> Any:
        """A member of a group that lies in this very place."""
        if not isinstance(group.get(name, getlink=True), self.h5py.HardLink):
            raise ConvError(f"{name!r} is a link to another place, which is not followed")
        return group[name]

    def stored(self, dataset: Any, name: str) -> Stored:
        """A dataset that has as many bytes in the file as its shape claims; all of them have no more than the file."""
        if not isinstance(dataset, self.h5py.Dataset) or dataset.dtype.kind not in "fiu" or dataset.shape is None:
            raise ConvError(f"{name!r} is no array of numbers")
        if dataset.is_virtual or dataset.external:
            raise ConvError(f"{name!r} has its values in another file, which is not opened")
        claimed, there = prod(dataset.shape) * dataset.dtype.itemsize, dataset.id.get_storage_size()
        self.left -= claimed
        if claimed > there or self.left < 0:
            raise ConvError(f"{name!r} of shape {dataset.shape} claims {claimed} bytes, the file has {there} for it")

        def read() -> Array:
            values: Array = np.asarray(dataset[()])
            return values

        return Stored(tuple(map(int, dataset.shape)), dataset.dtype, read)

    def _require_short(self, group: Any, name: str, most: int) -> None:
        """Refuse an attribute that claims to be longer than any writer's."""
        kept = group.attrs.get_id(name)
        if prod(kept.shape or ()) * max(1, kept.dtype.itemsize) > most:
            raise ConvError(f"its attribute {name!r} claims {prod(kept.shape)} values of {kept.dtype.itemsize} bytes")

    def names(self, group: Any, name: str) -> list[str]:
        """An attribute that lists names; long lists are cut in numbered parts."""
        parts = [name] if name in group.attrs else []
        while f"{name}{len(parts)}" in group.attrs and name not in group.attrs:
            parts.append(f"{name}{len(parts)}")
        found: list[str] = []
        for part in parts:
            self._require_short(group, part, MOST_NAMES_BYTES)
            found += [_text(item) for item in group.attrs[part]]
            require_few(len(found))
        return found

    def _collect(self, group: Any, path: str, depth: int) -> None:
        """Every group that has `vars`, by its path."""
        if depth > MOST_DEPTH:
            raise ConvError(f"its groups are nested more than {MOST_DEPTH} deep")
        require_few(len(group))
        for name in group:
            inner = self.child(group, name)
            if not isinstance(inner, self.h5py.Group) or (depth == 0 and name in NOT_LAYERS):
                continue
            if name == "vars":
                arrays = {key: self.stored(self.child(inner, key), f"{path}/vars/{key}") for key in inner}
                by_number = {key: arrays[key] for key in sorted(arrays, key=lambda key: natural((step(key),)))}
                self.groups[path] = _Group(by_number, self._own(inner))
                require_few(len(self.groups))
            else:
                self._collect(inner, f"{path}/{name}" if path else name, depth + 1)

    def _own(self, variables: Any) -> str | None:
        if "name" not in variables.attrs:
            return None
        self._require_short(variables, "name", MOST_NAME_BYTES)
        return _text(variables.attrs["name"])

    # ---- layers with a configuration ------------------------------------------------------------------------------

    def _with_graph(self, graph: KerasGraph, groups: Mapping[tuple[str, ...], _Group]) -> Source:
        """The layers under the configuration's names and classes."""
        held = {path: group.arrays for path, group in groups.items() if group.arrays}
        if not held or not set(held) <= {leaf.path for leaf in graph.leaves}:
            raise Unclear
        made = {
            number: _layers("/".join(leaf.path), leaf.kind, held[leaf.path], _counted(leaf.path), leaf)
            for number, leaf in enumerate(graph.leaves)
            if leaf.path in held
        }
        source = _in_graph(graph, made)
        # A layer that two models list has its weights where the first of them does.
        absent = (leaf.path for leaf in graph.leaves if leaf.kind in KINDS and leaf.path not in held)
        source.shared += ["/".join(path) for path in absent]
        return source

    def _by_names(self, root: Any) -> Source:
        """The layers of a file that lists their names."""
        listed: dict[str, dict[str, dict[str, Stored]]] = {}  # by the name of the group, the layer and the array
        prefixed = False
        for name in self.names(root, "layer_names") + [OWN] * (OWN in root):
            group, inside = self.child(root, name), listed.setdefault(name, {})
            for weight in self.names(group, "weight_names"):
                at = group
                parts = weight.split("/")
                for part in parts:
                    at = self.child(at, part)
                inner = "/".join(_inside(name, parts[:-1]))
                prefixed |= bool(parts[:-1]) and name not in parts[:1]
                inside.setdefault(inner, {})[parts[-1].partition(":")[0]] = self.stored(at, weight)
        if not any(listed.values()):
            raise ConvError("it holds no weights")
        try:
            return self._names_with_graph(KerasGraph(self.config), listed)
        except Unclear:
            known = self.config is not None or not prefixed or any(name.startswith("input") for name in listed)
            return Source(_listed(listed, known), nested=True)

    def _names_with_graph(self, graph: KerasGraph, listed: dict[str, dict[str, dict[str, Stored]]]) -> Source:
        made: dict[int, list[SourceLayer]] = {}
        waiting = {name: dict(inside) for name, inside in listed.items()}
        for number, leaf in enumerate(graph.leaves):
            inside = waiting.get(leaf.path[0], {})
            fitting = [inner for inner in inside if (inner or leaf.path[0]).rpartition("/")[2] == leaf.path[-1]]
            if len(fitting) > 1:  # layers of one name in two models of a model: the whole path tells
                fitting = [inner for inner in fitting if inner == "/".join(leaf.path[1:])]
            if len(fitting) == 1:
                arrays = inside.pop(fitting[0])
                made[number] = _roles("/".join(leaf.path), leaf.kind, arrays, _counted(leaf.path))
        if any(waiting.values()):
            raise Unclear
        return _in_graph(graph, made)

    # ---- layers without ------------------------------------------------------------------------------------------

    def _by_classes(self) -> Source:
        """The layers of counted groups; those of one class and one model are in order if the model's layers are."""
        made: list[SourceLayer] = []
        for path, group in self.groups.items():
            if group.arrays:
                place = tuple(self._step(path.split("/"), depth) for depth in range(path.count("/") + 1))
                made += _layers(self._label(path), self._kind(path), group.arrays, tuple(filter(None, place)))
        return Source(sorted(made, key=lambda layer: natural(layer.place)), nested=True, shared=self._absent())

    def _absent(self) -> list[str]:
        """Layers that a model counts and the file does not have: it has them where another model lists them too."""
        counts: dict[tuple[str, str], set[int]] = {}
        for path in self.groups:
            parts = path.split("/")
            for depth, folder in enumerate(parts[:-1]):
                above = parts[:depth]
                if folder in FOLDERS and self._is_in_order("/".join(above), above):
                    stem, number = counted(parts[depth + 1])
                    counts.setdefault(("/".join(parts[: depth + 1]), str(stem)[1:]), set()).add(int(number))
        return [f"{path}/{stem}" for (path, stem), numbers in counts.items() if len(numbers) <= max(numbers)]

    def _kind(self, path: str) -> str:
        """The class of a layer, '' if the file does not tell: an attribute of a user's class has any name."""
        *above, last = path.split("/")
        if above and above[-1] in FOLDERS:
            return re.sub(r"_\d+$", "", last)
        own = re.sub(r"_\d+$", "", self.groups[path].own or "")
        return own if own in KINDS else ""

    def _label(self, path: str) -> str:
        own = self.groups[path].own
        if own is None:
            return path
        return "/".join([part for part in path.split("/")[:-1] if part not in FOLDERS] + [own])

    def _step(self, parts: list[str], depth: int) -> Step:
        """A part of a path, as far as it tells an order."""
        part, above = parts[depth], "/".join(parts[: depth - 1]) if depth else ""
        if part in FOLDERS and depth + 1 < len(parts):
            return ()
        if not depth or parts[depth - 1] not in FOLDERS:  # an attribute, or an element of a list
            return counted(part) if re.sub(r"_\d+$", "", part) in KINDS | set(MODELS) else step(part)
        if self._is_in_order(above, parts[: depth - 1]):
            return counted(part)
        own = self.groups.get("/".join(parts[: depth + 1]), _Group({}, None)).own
        return step(own) if own is not None and re.sub(r"_\d+$", "", own) not in KINDS else (part,)

    def _is_in_order(self, path: str, parts: list[str]) -> bool:
        """Whether a model counts its layers in the order of the net, and not in that in which its class made them.

        A model in a model has its class in its name. Of the outermost one there is the name, which for Keras' own is
        that of the class unless the user gave another, and a functional model has an input layer.
        """
        if parts:
            return re.sub(r"_\d+$", "", parts[-1]) in MODELS
        if isinstance(self.config, dict):
            return str(self.config.get("class_name")) in CLASSES
        own = self.groups[path].own if path in self.groups else None
        inputs = any(name.startswith(("layers/input_layer", "layers/InputLayer")) for name in self.groups)
        return own is None or inputs or re.sub(r"_\d+$", "", own) in MODELS


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _counted(path: tuple[str, ...]) -> Place:
    return tuple((part,) for part in path)


def _inside(layer: str, parts: list[str]) -> list[str]:
    """The path of a weight inside its layer's group: Keras 3 writes the model's name before it ('net/conv/kernel')."""
    return parts[parts.index(layer) + 1 :] if layer in parts else parts


def _listed(listed: Mapping[str, Mapping[str, Mapping[str, Stored]]], in_order: bool) -> list[SourceLayer]:
    """The layers under the names of a list, which is in the order of the net; inside a model its names tell or not."""
    made: list[SourceLayer] = []
    for number, (name, inside) in enumerate(listed.items()):
        outer: Step = ("#", number) if in_order else (name,)
        for inner, arrays in inside.items():
            label = f"{name}/{inner}" if inner else name
            inner_place = tuple(_unless_counted(part) for part in inner.split("/")) if inner else ()
            made += _roles(label, "", arrays, (outer, *inner_place))
    return made


def _unless_counted(part: str) -> Step:
    """A name of the user's; one that Keras made counts all layers of the program and tells nothing."""
    return (part,) if re.sub(r"_\d+$", "", part) in KINDS else step(part)


def _located(config: Any, groups: Mapping[str, _Group]) -> dict[tuple[str, ...], _Group]:
    """The groups of a counted file by the names of the configuration. Raises `Unclear` if they do not fit together."""
    found: dict[tuple[str, ...], _Group] = {}

    def visit(item: Any, path: str, names: tuple[str, ...]) -> None:
        if len(names) > MOST_DEPTH:
            raise Unclear
        counts: dict[str, int] = {}
        for member in members(item):
            if not member.counted:
                continue
            number = counts[member.kind] = counts.get(member.kind, -1) + 1
            last = f"{member.kind}_{number}" if number else member.kind
            at = next((p for folder in FOLDERS if (p := f"{path}{folder}/{last}") in known), None)
            if at is None:
                continue
            own = groups[at].own if at in groups else None
            if own is not None and own != member.name:
                raise Unclear
            if is_model(member.item):
                visit(member.item, f"{at}/", (*names, member.name))
            elif at in groups:
                found[(*names, member.name)] = groups[at]

    if not is_model(config):
        raise Unclear
    known = {"/".join(parts[:k]) for parts in (path.split("/") for path in groups) for k in range(1, len(parts) + 1)}
    visit(config, "", ())
    if sum(bool(g.arrays) for g in found.values()) != sum(bool(g.arrays) for g in groups.values()):
        raise Unclear
    return found


def _in_graph(graph: KerasGraph, made: Mapping[int, list[SourceLayer]]) -> Source:
    """The layers with what each depends on; a separable one is two, one behind the other."""
    numbers: dict[int, list[int]] = {}
    layers: list[SourceLayer] = []
    for number, parts in made.items():
        numbers[number] = list(range(len(layers), len(layers) + len(parts)))
        layers += parts
    before: list[int] = []
    for number, parts in made.items():
        own = graph.leaves[number].before
        bits = sum(1 << i for other, places in numbers.items() if own >> other & 1 for i in places)
        for i in range(len(parts)):
            before.append(bits | sum(1 << place for place in numbers[number][:i]))
    used = {path: [leaf.path for leaf in graph.leaves if leaf.path[: len(path)] == path] for path in graph.shared}
    held = {graph.leaves[number].path for number in made}
    shared = ["/".join(path) for path, inside in used.items() if held.intersection(inside)]
    return Source(layers, nested=True, before=before, shared=shared)


# ---- arrays by their roles -----------------------------------------------------------------------------------------


def _roles(name: str, kind: str, arrays: Mapping[str, Stored], place: Place) -> list[SourceLayer]:
    """A layer whose arrays have names; Keras 3 calls a depthwise layer's weights 'kernel' too."""
    if kind.startswith("depthwise") and "kernel" in arrays:
        arrays = {{"kernel": "depthwise_kernel"}.get(role, role): array for role, array in arrays.items()}
    if kind and kind not in KINDS and not set(arrays) & {"kernel", *KERAS_ROLES} - set(NORMALISATION):
        arrays = {f"{kind} {role}": array for role, array in arrays.items()}  # LayerNormalization has a gamma as well
    return keras_layers(name, kind, arrays, place)


def _layers(
    name: str, kind: str, arrays: Mapping[str, Stored], place: Place, leaf: Leaf | None = None
) -> list[SourceLayer]:
    """The variables '0', '1', ... of a layer by role, which class and shapes tell."""
    values = list(arrays.values())
    axes = [len(array.shape) for array in values]
    kernels = range(3, MOST_AXES + 3)  # axes of a kernel of one to three dimensions
    if axes[:2] in [[n, n] for n in kernels]:
        roles = ["depthwise_kernel", "pointwise_kernel", "bias"]
    elif axes[0] in (2, *kernels):
        roles = ["depthwise_kernel" if kind.startswith("depthwise") else "kernel", "bias"]
    elif kind == "batch_normalization" or (not kind and len(values) == 4):
        roles = _of_normalisation(len(values), leaf.options if leaf is not None else {})
    else:
        roles = []
    if len(values) > len(roles):
        return [SourceLayer(name, kind, {f"variable {key}": array for key, array in arrays.items()}, place)]
    return keras_layers(name, kind, dict(zip(roles, values, strict=False)), place)


def _of_normalisation(count: int, options: Mapping[str, Any]) -> list[str]:
    """The variables of a normalisation, which may be without its scale or its centre."""
    if count != 3:
        return list(NORMALISATION[-count:]) if count < 4 else list(NORMALISATION)
    if options.get("scale") is False or options.get("center") is False:
        return ["beta" if options.get("scale") is False else "gamma", *NORMALISATION[2:]]
    return [SCALE_OR_SHIFT, *NORMALISATION[2:]]
