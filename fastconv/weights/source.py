"""What a weights file holds, in one form for all of them: layers with arrays by role, whose values are not read yet."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Final, NamedTuple

import numpy as np

from .._core.arrays import Array
from .._core.words import MOST_AXES, Shape
from ..errors import ConvError

MOST_ENTRIES: Final = 20_000  # of one file; the largest nets have some thousand
MOST_NAME: Final = 1024  # characters of one name, and its parts: modules in modules
MOST_PARTS: Final = 64
MOST_PIECES: Final = 32  # words and numbers in a part; one of more is taken for a word

# The last part of a name → the role of the array in a layer.
KERAS_ROLES: Final = {
    name: name for name in ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
} | {"depthwise_kernel": "kernel", "pointwise_kernel": "kernel"}  # fmt: skip
NORMALISATION: Final = {
    "weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance",
}  # fmt: skip
COUNTERS: Final = ("num_batches_tracked", "n_averaged")  # which no layer of ours has
# A module's own tensors as PyTorch lists them.
MODULE_ORDER: Final = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
# Keras' names of the layers that have weights here.
KINDS: Final = frozenset((
    "conv1d", "conv1d_transpose", "conv2d", "conv2d_transpose", "conv3d", "conv3d_transpose", "depthwise_conv1d",
    "depthwise_conv2d", "separable_conv1d", "separable_conv2d", "tiled_conv2d", "dense", "batch_normalization",
))  # fmt: skip
ORDINALS: Final = {
    word: number
    for words in ("first second third fourth fifth sixth", "one two three four five six")
    for number, word in enumerate(words.split(), 1)
}

Step = tuple[str | int, ...]
Place = tuple[Step, ...]


class Stored(NamedTuple):
    """An array of a file: what its header says, and the function that reads the values."""

    shape: Shape
    dtype: np.dtype[np.generic]
    read: Callable[[], Array]

    @property
    def nbytes(self) -> int:
        """What the values take."""
        return prod(self.shape) * self.dtype.itemsize

    def transposed(self, *axes: int) -> Stored:
        """The same with other axes."""
        return Stored(tuple(self.shape[axis] for axis in axes), self.dtype, lambda: self.read().transpose(axes))

    def reshaped(self, *shape: int) -> Stored:
        """The same values in another shape, none of which is -1."""
        return Stored(shape, self.dtype, lambda: self.read().reshape(shape))


class SourceLayer(NamedTuple):
    """A layer of a file: its name, its class where the file says (snake case), its arrays by role, and where it is.

    Kernels have our axes, (kH, kW, in channels of a group, out channels) or (inputs, units); a depthwise kernel is
    (kH, kW, 1, channels). `place` is the name in parts, as far as they tell an order: see `order`.
    """

    name: str
    kind: str
    arrays: dict[str, Stored]
    place: Place


@dataclass
class Source:
    """The layers of a file, listed as well as its reader could order them, and what is known of that order.

    Parameters
    ----------
    layers : list of SourceLayer
        Those whose names do not tell their order are in that of the alphabet.
    channels_first : bool
        Behind Flatten the values come channel by channel, as in PyTorch.
    made_in_order : bool
        The list is the order in which PyTorch made its modules.
    nested : bool
        Modules in modules are those of the net (Keras), and not merely names (PyTorch).
    own : bool
        Written by `Sequential.save`: names that no user gave count too.
    before : list of int, optional
        Where the file has the graph of the net: for each layer the set of those that its input depends on, as bits.
    shared : list of str
        Layers that the net uses more than once.
    notes : list of str
        What the reader chose.
    """

    layers: list[SourceLayer]
    channels_first: bool = False
    made_in_order: bool = False
    nested: bool = False
    own: bool = False
    before: list[int] | None = None
    shared: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def from_bfloat16(values: Array) -> Array:
    """16-bit words that hold bfloat16, the upper half of a float32, as float32."""
    wide: Array = (values.astype(np.uint32) << 16).view(np.float32)
    return wide


def require_few(count: int) -> None:
    """Refuse a file of more entries than any net has: work on names must not grow without a bound."""
    if count > MOST_ENTRIES:
        raise ConvError(f"it claims {count} entries, more than {MOST_ENTRIES}")


# ---- what names mean -----------------------------------------------------------------------------------------------


def step(part: str) -> Step:
    """A part of a name as words and numbers: 'conv10' is ('conv', 10). A part that is a number alone is ('#', 10)."""
    if part.isascii() and part.isdigit():
        return ("#", _number(part))
    found = re.findall(r"[0-9]+|[A-Za-z]+|[^A-Za-z0-9]+", part)
    if len(found) > MOST_PIECES:
        return (part,)
    return tuple(
        _number(piece) if piece.isdigit() and piece.isascii() else ORDINALS.get(piece.lower(), piece) for piece in found
    )


def _number(digits: str) -> int:
    return int(digits) if len(digits) < 19 else -1  # no count; `int` takes time with the square of the digits


def counted(part: str) -> Step:
    """A name that Keras counts: 'conv2d_1' is the second of its class in its model, and 'conv2d' the first."""
    stem, digits = re.fullmatch(r"(.*?)(?:_([0-9]{1,9}))?", part, re.DOTALL).groups()  # type: ignore[union-attr]
    return (f"#{stem}", int(digits or 0))


def natural(place: Place) -> list[list[tuple[int, int, str]]]:
    """A key that sorts by numbers as numbers."""
    return [[(0, piece, "") if isinstance(piece, int) else (1, 0, piece) for piece in part] for part in place]


# ---- state dictionaries of PyTorch ---------------------------------------------------------------------------------


def grouped(entries: Iterable[tuple[str, Stored]], separator: str) -> dict[str, dict[str, Stored]]:
    """Arrays by the last part of their names, under the part before it, in order."""
    layers: dict[str, dict[str, Stored]] = {}
    for name, array in entries:
        if len(name) > MOST_NAME or name.count(separator) > MOST_PARTS:
            raise ConvError(f"it holds a name of {len(name)} characters")
        layer, _, last = name.rpartition(separator)
        layers.setdefault(layer, {})[last] = array
    return layers


def from_state_dict(tensors: Mapping[str, Stored], listed: bool, modules: Iterable[str] | None = None) -> Source:
    """The layers of a PyTorch state dictionary: 'features.0.weight' is the weight of the layer 'features.0'.

    `listed`: the file keeps the order of the dictionary (.safetensors does not); `modules` is PyTorch's own list of the
    modules in the order in which they were made, where the file has it.
    """
    made = []
    for name, parts in grouped(tensors.items(), ".").items():
        arrays: dict[str, Stored] = {}
        norm = "running_mean" in parts
        for last, array in parts.items():
            if last in COUNTERS:
                continue
            role = NORMALISATION.get(last, last) if norm else {"weight": "kernel"}.get(last, last)
            arrays[role] = _from_pytorch_axes(array) if role == "kernel" else array
        if arrays:
            made.append(SourceLayer(name, "", arrays, tuple(step(part) for part in name.split("."))))
    ordered = _as_made(made, list(tensors), modules) if listed else None
    if ordered is not None:
        return Source(ordered, channels_first=True, made_in_order=True)
    return Source(sorted(made, key=lambda layer: natural(layer.place)), channels_first=True)


def _as_made(layers: list[SourceLayer], names: list[str], modules: Iterable[str] | None) -> list[SourceLayer] | None:
    """The layers as PyTorch made them, or None if the file does not tell: its dictionary was sorted or put together."""
    known = {name: number for number, name in enumerate(modules or ())}
    if all(layer.name in known for layer in layers):
        ordered = sorted(layers, key=lambda layer: known[layer.name])
    elif _lists_modules(names):
        ordered = layers
    else:
        return None
    return ordered if _counts_upwards(ordered) else None


def _lists_modules(names: list[str]) -> bool:
    """Whether names are listed as by PyTorch, a module's tensors together and in its order, and not by the alphabet."""
    if names == sorted(names):
        return False
    seen: set[str] = set()
    last, rank = "", -1
    for name in names:
        module, _, tensor = name.rpartition(".")
        place = MODULE_ORDER.index(tensor) if tensor in MODULE_ORDER else -1
        if module in seen and (module != last or -1 < place <= rank):
            return False
        rank = max(rank, place) if module == last else place
        last = module
        seen.add(module)
    return True


def _counts_upwards(layers: list[SourceLayer]) -> bool:
    """Whether the numbers of `Sequential` and `ModuleList` rise."""
    reached: dict[Place, int] = {}
    for layer in layers:
        for depth, part in enumerate(layer.place):
            if part[0:1] == ("#",) and isinstance(part[1], int):
                if part[1] < reached.get(layer.place[:depth], 0):
                    return False
                reached[layer.place[:depth]] = part[1]
    return True


def _from_pytorch_axes(kernel: Stored) -> Stored:
    """(out, in, *kernel) as (*kernel, in, out), transposed kernels (in, out, ...) as (..., out, in), (out, in) too."""
    axes = len(kernel.shape)
    return kernel.transposed(*range(2, axes), 1, 0) if 2 <= axes <= MOST_AXES + 2 else kernel


# ---- layers in Keras' words ----------------------------------------------------------------------------------------


def from_paths(arrays: Mapping[str, Stored]) -> Source:
    """The layers of names such as 'block/conv/kernel', with Keras' roles and axes, as `Sequential.save` writes them."""
    made: list[SourceLayer] = []
    for name, parts in grouped(arrays.items(), "/").items():
        place = tuple(counted(part) if re.sub(r"_\d+$", "", part) in KINDS else step(part) for part in name.split("/"))
        made += keras_layers(name, "", parts, place)
    return Source(sorted(made, key=lambda layer: natural(layer.place)), own=True)


def keras_layers(name: str, kind: str, parts: Mapping[str, Stored], place: Place) -> list[SourceLayer]:
    """One layer of Keras as ours: a separable convolution is a depthwise one and a 1x1."""
    if "pointwise_kernel" in parts:
        depthwise = {"kernel": _as_channels(parts["depthwise_kernel"])} if "depthwise_kernel" in parts else {}
        rest = {KERAS_ROLES.get(role, role): array for role, array in parts.items() if role != "depthwise_kernel"}
        return [
            SourceLayer(f"{name}/depthwise", f"{kind}/depthwise" if kind else "", depthwise, place),
            SourceLayer(f"{name}/pointwise", f"{kind}/pointwise" if kind else "", rest, place),
        ]
    made = {
        KERAS_ROLES.get(role, role): _as_channels(array) if role == "depthwise_kernel" else array
        for role, array in parts.items()
    }
    return [SourceLayer(name, kind, made, place)]


def _as_channels(kernel: Stored) -> Stored:
    """(*kernel, C, multiplier) as (*kernel, 1, C * multiplier)."""
    if not 3 <= len(kernel.shape) <= MOST_AXES + 2:
        return kernel
    *size, channels, multiplier = kernel.shape
    return kernel.reshaped(*size, 1, channels * multiplier)
