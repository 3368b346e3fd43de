"""Which layer of a file is which of a model, and whether that is known or guessed.

Names that the user gave count first. Then layers are told apart by what they are: their class where the file says it,
the shapes of their arrays, whether a name puts them on a shortcut, and, where the file has the net's graph, what stands
before and behind them. Layers that are alike in all that come in the order that is known of them:

- numbers in their names, as numbers: 'features.2' before 'features.10', 'conv2' before 'conv10', 'conv2d' before
  'conv2d_1' where Keras counts;
- the order in which PyTorch made its modules, which .pth files keep, if the whole net has its shapes in that order.

Words tell no order, and the order of an alphabet is none. What is left is a guess, and said to be one. So is an order
that contradicts the model's: numbers of one `Sequential` that would not rise, layers of two branches that only an order
tells apart.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

from .._core.words import Shape
from ..layers import Layer, Residual
from ..layers.base import Parameter, snake_case
from ..layers.kinds import SeparableConv
from ..models import Sequential
from .source import KERAS_ROLES, KINDS, Place, Source, SourceLayer, natural

SHORTCUTS: Final = frozenset(("shortcut", "shortcuts", "short", "skip", "downsample", "identity"))
SHOWN: Final = 4  # names in one line
MOST_IN_GRAPH: Final = 4096  # layers whose sets are compared

Signature = tuple[tuple[str, Shape], ...]


class Target(NamedTuple):
    """A layer of the model with weights.

    `name` is its path, `kind` its class as Keras' files name it; `named`: the user gave all parts of the path; `models`
    the models in the model that it lies in, `branches` the (block, whether it is on its shortcut) around it.
    """

    name: str
    kind: str
    parameters: dict[str, Parameter]
    layer: Layer
    named: bool
    models: tuple[int, ...]
    branches: tuple[tuple[int, bool], ...]

    def shape(self, role: str) -> Shape:
        """The shape of a parameter as a file has it: a depthwise kernel as (*kernel, 1, channels)."""
        own = self.parameters[role].shape
        if self.parameters[role].name == "depthwise_kernel":
            return (*own[:-2], 1, own[-2] * own[-1])
        return own

    @property
    def signature(self) -> Signature:
        """What the layer is, by the shapes of its arrays."""
        return tuple(sorted((role, self.shape(role)) for role in self.parameters))


class Matching(NamedTuple):
    """(target, layer of the file) by number, and a line for everything that was guessed."""

    pairs: list[tuple[int, int]]
    guessed: list[str]


# ---- layers of the model -------------------------------------------------------------------------------------------


def targets(model: Sequential) -> list[Target]:
    """The layers of a model that have weights, in the order of the net."""
    return list(_targets(model.layers, "", True, (), ()))


def _targets(
    layers: Sequence[Layer], prefix: str, named: bool, models: tuple[int, ...], branches: tuple[tuple[int, bool], ...]
) -> Iterator[Target]:
    for layer in layers:
        kind, path = _kind(layer), f"{prefix}{layer.name}"
        own = named and layer._given_name is not None
        if isinstance(layer, SeparableConv):
            for inner in layer.sublayers():
                yield _target(inner, f"{path}/{inner.name}", f"{kind}/{inner.name}", own, models, branches)
        elif isinstance(layer, Residual):
            for side, on_shortcut in ((layer.body, False), (layer.shortcut, True)):
                yield from _targets(side, f"{path}/", own, models, (*branches, (id(layer), on_shortcut)))
        elif layer.sublayers():
            yield from _targets(layer.sublayers(), f"{path}/", own, (*models, id(layer)), branches)
        elif layer.parameters():
            yield _target(layer, path, kind, own, models, branches)


def _kind(layer: Layer) -> str:
    """The class as Keras' files name it; a user's is what it is derived from."""
    names = [snake_case(base.__name__) for base in type(layer).__mro__]
    return next((name for name in names if name in KINDS), names[0])


def _target(layer: Layer, path: str, kind: str, named: bool, models: Any, branches: Any) -> Target:
    roles = {KERAS_ROLES.get(p.name, p.name): p for p in layer.parameters()}
    return Target(path, kind, roles, layer, named, models, branches)


def _befores(ours: Sequence[Target]) -> list[int]:
    """For each target those that its input depends on, as bits: all above it that are not on another branch."""
    made = []
    for i, target in enumerate(ours):
        bits = 0
        for j in range(i):
            if not _are_parallel(target, ours[j]):
                bits |= 1 << j
        made.append(bits)
    return made


def _are_parallel(one: Target, other: Target) -> bool:
    """Whether two layers lie on the two branches of a block."""
    sides = dict(one.branches)
    return any(sides.get(block, side) != side for block, side in other.branches)


# ---- all of it -----------------------------------------------------------------------------------------------------


def match(ours: list[Target], source: Source) -> Matching:
    """Pair the layers of a model with those of a file."""
    theirs = source.layers
    named = _by_name(ours, source)
    if named is not None:
        return Matching(named, [])
    keys = _Keys(ours, theirs)
    if source.before is not None and keys.fit and len(ours) <= MOST_IN_GRAPH:
        return _by_graph(ours, source, keys)
    tree = _by_models(ours, theirs, keys) if source.nested and keys.fit else None
    pairing = _Pairing(ours, source, keys, tree)
    return Matching(pairing.pairs, keys.guessed + (tree[2] if tree else []) + pairing.guessed())


def _by_name(ours: list[Target], source: Source) -> list[tuple[int, int]] | None:
    """The pairs of equal names, if the user (or our own file) named all layers and the file has all those names.

    What all names of the file begin with ('module.', 'net.') may be left out.
    """
    if not ours or not (source.own or all(target.named for target in ours)):
        return None
    names = [layer.name.replace(".", "/") for layer in source.layers]
    parts = [name.split("/") for name in names]
    shared = 0
    while all(len(part) > shared + 1 for part in parts) and len({part[shared] for part in parts}) == 1:
        shared += 1
    for left_out in range(shared + 1):
        places = {"/".join(part[left_out:]): number for number, part in enumerate(parts)}
        if len(places) == len(parts) and all(target.name in places for target in ours):
            return [(number, places[target.name]) for number, target in enumerate(ours)]
    return None


class _Keys:
    """What the layers of both sides are: equal keys for those that are alike. `fit`: each has as many on both sides."""

    def __init__(self, ours: list[Target], theirs: list[SourceLayer]) -> None:
        self.guessed: list[str] = []
        own = [(target.signature, target.kind, bool(target.branches and target.branches[-1][1])) for target in ours]
        found = [
            (tuple(sorted((role, array.shape) for role, array in layer.arrays.items())), layer.kind, _is_short(layer))
            for layer in theirs
        ]
        classes = bool(theirs) and all(layer.kind for layer in theirs)
        for with_class, with_side in ((classes, True), (classes, False), (False, True), (False, False)):
            self.ours = [self._key(*key, with_class, with_side) for key in own]
            self.theirs = [self._key(*key, with_class, with_side) for key in found]
            self.fit = Counter(self.ours) == Counter(self.theirs)
            if self.fit:
                break
        if self.fit and classes and not with_class:
            kinds = sorted({layer.kind for layer in theirs} - {target.kind for target in ours})
            listed = ", ".join(kinds[:SHOWN]) or "in number"
            self.guessed.append(f"the classes of the file's layers are others ({listed})")

    @staticmethod
    def _key(signature: Signature, kind: str, short: bool, with_class: bool, with_side: bool) -> Hashable:
        return signature, kind if with_class else "", short if with_side else False


def _is_short(layer: SourceLayer) -> bool:
    return any(
        isinstance(piece, str) and not SHORTCUTS.isdisjoint(re.split(r"[^a-z]+", piece.lower()))
        for part in layer.place
        for piece in part
    )


def _groups(keys: Sequence[Hashable]) -> dict[Hashable, list[int]]:
    found: dict[Hashable, list[int]] = {}
    for number, key in enumerate(keys):
        found.setdefault(key, []).append(number)
    return found


# ---- with a graph --------------------------------------------------------------------------------------------------


def _by_graph(ours: list[Target], source: Source, keys: _Keys) -> Matching:
    """Layers are told apart by what stands before and behind them, which must be the same on both sides."""
    assert source.before is not None
    own, found = _befores(ours), source.before
    alike = {key: number for number, key in enumerate(dict.fromkeys(keys.ours))}
    mine = _surroundings([alike[key] for key in keys.ours], own, len(alike))
    others = _surroundings([alike[key] for key in keys.theirs], found, len(alike))
    if Counter(mine) != Counter(others):
        pairing = _Pairing(ours, source, keys, None)
        return Matching(pairing.pairs, [*keys.guessed, "the file's net has its layers in another order than the model"])
    pairs, guessed = [], list(keys.guessed)
    groups = _groups(others)
    for key, numbers in _groups(mine).items():
        pairs += list(zip(numbers, groups[key], strict=True))
        if len(numbers) > 1:
            guessed.append(f"{_list(source, groups[key])} have like places and shapes in the graph of the net")
    return Matching(pairs, guessed)


def _surroundings(kinds: list[int], before: list[int], count: int) -> list[Hashable]:
    """(what it is, how many of each kind are before it, how many behind it) of each layer."""
    of_kind = [0] * count
    for number, kind in enumerate(kinds):
        of_kind[kind] |= 1 << number
    behind = [[0] * count for _ in kinds]
    for number, bits in enumerate(before):
        while bits:
            low = bits & -bits
            behind[low.bit_length() - 1][kinds[number]] += 1
            bits ^= low
    return [
        (kinds[number], tuple((bits & mask).bit_count() for mask in of_kind), tuple(behind[number]))
        for number, bits in enumerate(before)
    ]


# ---- models in models ----------------------------------------------------------------------------------------------


class _Model:
    """A model with its layers and the models in it, as far as they have weights."""

    def __init__(self) -> None:
        self.leaves: list[int] = []
        self.inner: dict[Any, _Model] = {}  # by the step of a place, or the number of a model of ours

    def reach(self, path: Sequence[Hashable]) -> _Model:
        """The model inside at a path, made if it is not there."""
        found = self
        for part in path:
            found = found.inner.setdefault(part, _Model())
        return found

    def key(self, keys: Sequence[Hashable], made: dict[int, Hashable]) -> Hashable:
        """What it is made of: equal keys for models with like layers and models."""
        leaves = Counter(keys[number] for number in self.leaves)
        inner = Counter(model.key(keys, made) for model in self.inner.values())
        own = made[id(self)] = (frozenset(leaves.items()), frozenset(inner.items()))
        return own


def _by_models(
    ours: list[Target], theirs: list[SourceLayer], keys: _Keys
) -> tuple[list[Any], list[Any], list[str]] | None:
    """Keys that tell in which model a layer is, if the models of both sides are made of each other's like."""
    mine, others = _Model(), _Model()
    for number, target in enumerate(ours):
        mine.reach(target.models).leaves.append(number)
    for number, layer in enumerate(theirs):
        others.reach(layer.place[:-1]).leaves.append(number)
    own_keys: dict[int, Hashable] = {}
    their_keys: dict[int, Hashable] = {}
    if mine.key(keys.ours, own_keys) != others.key(keys.theirs, their_keys):
        return None
    own: list[Any] = [None] * len(ours)
    found: list[Any] = [None] * len(theirs)
    guessed: list[str] = []

    def pair(model: _Model, other: _Model, name: tuple[int, ...]) -> None:
        for inside, named in ((model, own), (other, found)):
            for number in inside.leaves:
                named[number] = name
        listed = sorted(other.inner.items(), key=lambda item: natural((item[0],)))
        waiting = _groups([their_keys[id(inner)] for _, inner in listed])
        for like in waiting.values():
            for one, following in pairwise(like):
                if relation((listed[one][0],), (listed[following][0],)) >= 0:
                    guessed.append("the order of two models in the file's model that are made of the same layers")
        for count, inner in enumerate(model.inner.values()):
            pair(inner, listed[waiting[own_keys[id(inner)]].pop(0)][1], (*name, count))

    pair(mine, others, ())
    return own, found, guessed


# ---- by shapes and the order that is known -------------------------------------------------------------------------


class _Pairing:
    """Layers that are alike in their order, and what is not known of that order."""

    def __init__(self, ours: list[Target], source: Source, keys: _Keys, models: Any) -> None:
        self.ours, self.source, self.keys = ours, source, keys
        own: list[Hashable] = list(keys.ours)
        found: list[Hashable] = list(keys.theirs)
        if models is not None:
            own = list(zip(own, models[0], strict=True))
            found = list(zip(found, models[1], strict=True))
        self.own = own
        self.groups: list[list[tuple[int, int]]] = []
        waiting = _groups(found)
        for key, numbers in _groups(own).items():
            self.groups.append(list(zip(numbers, waiting.get(key, []), strict=False)))
        self.pairs = sorted(pair for group in self.groups for pair in group)
        self.flow = {theirs: mine for mine, theirs in self.pairs}

    def guessed(self) -> list[str]:
        """A line for every order that is not known."""
        found: list[str] = []
        broken = self._broken()
        for definite, numbers in broken:
            if definite:
                found.append(f"{_list(self.source, numbers)} do not come in the order of their numbers")
        as_made = self.source.made_in_order and self._is_in_order()
        loose = [set(numbers) for definite, numbers in broken if not definite]
        for group in self.groups:
            numbers = [theirs for _, theirs in group]
            unknown = [pair for pair in pairwise(numbers) if not as_made and not self._in_order(*pair)]
            if unknown:
                alike = sorted({number for pair in unknown for number in pair})
                found.append(f"{_list(self.source, alike)} have the same shapes, and nothing tells their order")
            elif any(len(family.intersection(numbers)) > 1 for family in loose):
                found.append(f"{_list(self.source, numbers)} have the same shapes, and the order of their numbers is "
                             "not that of the net")  # fmt: skip
        return found + self._on_branches()

    def _in_order(self, one: int, other: int) -> bool:
        layers = self.source.layers
        return relation(layers[one].place, layers[other].place) < 0

    def _is_in_order(self) -> bool:
        """Whether the order of the file is the model's, the shortcuts of its blocks behind or before their bodies."""
        if len(self.pairs) < max(len(self.ours), len(self.source.layers)):
            return False
        listed = [self.flow[number] for number in range(len(self.source.layers))]
        first = sorted(range(len(self.ours)), key=lambda number: _shortcut_first(self.ours, number))
        ranks = {number: rank for rank, number in enumerate(first)}
        return listed == sorted(listed) or listed == sorted(listed, key=ranks.__getitem__)

    def _broken(self) -> list[tuple[bool, list[int]]]:
        """Numberings that the net does not follow: (whether it must, the layers that bear the numbers)."""
        families: dict[tuple[Place, Any], dict[int, list[int]]] = {}
        for number in self.flow:
            place = self.source.layers[number].place
            for depth, part in enumerate(place):
                for at, piece in enumerate(part):
                    if isinstance(piece, int):
                        family = families.setdefault((place[:depth], part[:at]), {})
                        family.setdefault(piece, []).append(number)
        found = []
        for (_, stem), members in families.items():
            reached = -1
            for _, numbers in sorted(members.items()):
                flows = [self.flow[number] for number in numbers]
                if min(flows) < reached:
                    definite = bool(stem) and str(stem[0]).startswith("#")
                    found.append((definite, sorted(n for inside in members.values() for n in inside)))
                    break
                reached = max(flows)
        return found

    def _on_branches(self) -> list[str]:
        """Blocks with like layers on both branches, which no order tells apart: only a module of its own does."""
        inside: dict[int, tuple[list[int], list[int]]] = {}
        for mine, theirs in self.pairs:
            for block, on_shortcut in self.ours[mine].branches:
                inside.setdefault(block, ([], []))[on_shortcut].append(theirs)
        own = {theirs: self.own[mine] for mine, theirs in self.pairs}
        found = []
        for body, shortcut in inside.values():
            keys = {own[number] for number in body}
            alike = [number for number in shortcut if own[number] in keys]
            if alike and (len(alike) == len(shortcut) or not self._is_module(shortcut, body)):
                found.append(f"{_list(self.source, alike)} could as well be on the other branch of a block")
        return found

    def _is_module(self, numbers: list[int], others: list[int]) -> bool:
        """Whether layers are all in one module that has none of the others."""
        places = [self.source.layers[number].place for number in numbers]
        depth = 0
        while all(len(place) > depth + 1 for place in places) and len({place[depth] for place in places}) == 1:
            depth += 1
        return all(self.source.layers[number].place[:depth] != places[0][:depth] for number in others)


def _shortcut_first(ours: list[Target], number: int) -> tuple[Any, ...]:
    """A key that sorts the layers of a net with those on shortcuts before those of the bodies."""
    key: list[int] = []
    for block, on_shortcut in ours[number].branches:
        begin = next(i for i, target in enumerate(ours) if block in dict(target.branches))
        key += [begin, 0 if on_shortcut else 1]
    return (*key, number)


def relation(one: Place, other: Place) -> int:
    """Which of two layers comes first by the numbers in their names: -1, 1, or 0 where they do not tell."""
    for part, against in zip(one, other, strict=False):
        if part == against:
            continue
        for piece, facing in zip(part, against, strict=False):
            if piece == facing:
                continue
            if isinstance(piece, int) and isinstance(facing, int):
                return -1 if piece < facing else 1
            return 0
        return 0
    return 0


def _list(source: Source, numbers: Sequence[int]) -> str:
    names = [repr(source.layers[number].name) for number in numbers[:SHOWN]]
    more = len(numbers) - len(names)
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")


def resolved(source: Source, ours: Sequence[Target], unclear: str) -> Source:
    """The file's normalisations that have one of two parameters as the one that the model's have, if all have that."""
    wanted = {
        role
        for target in ours
        for role in ("gamma", "beta")
        if target.kind == "batch_normalization" and role in target.parameters and len(target.parameters) == 3
    }
    if len(wanted) != 1:
        return source
    (role,) = wanted
    source.layers = [
        layer._replace(arrays=_renamed(layer.arrays, unclear, role)) if unclear in layer.arrays else layer
        for layer in source.layers
    ]
    return source


def _renamed(arrays: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    return {new if role == old else role: array for role, array in arrays.items()}
