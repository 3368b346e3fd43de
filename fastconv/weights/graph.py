"""The graph of a Keras model from its configuration: which layers the input of each layer depends on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from .source import require_few

MOST_LAYERS: Final = 4096  # with which the sets of layers stay small
MOST_ROUNDS: Final = 64  # over layers that are not listed behind those they need
MOST_DEPTH: Final = 32  # of models in models
OPERATIONS: Final = ("keras.src.ops", "keras.ops")  # modules of what a model lists beside layers, and does not count


class Leaf(NamedTuple):
    """A layer that is no model: its names from the outermost model's child on, its class, its options, and the layers
    before it as bits of their numbers."""

    path: tuple[str, ...]
    kind: str
    options: dict[str, Any]
    before: int


class Member(NamedTuple):
    """What a model lists: its name, its class in snake case, and whether it is counted among the model's layers."""

    name: str
    kind: str
    counted: bool
    item: dict[str, Any]


class Unclear(Exception):
    """The configuration does not tell the graph."""


class KerasGraph:
    """The leaves of a model's configuration, in the order in which they are met, and the layers that are used twice.

    Raises `Unclear` for a configuration that is not one of `Sequential` or of a functional model.
    """

    def __init__(self, config: Any) -> None:
        self.leaves: list[Leaf] = []
        self.shared: list[tuple[str, ...]] = []
        if not is_model(config):
            raise Unclear
        self._model(config, (), 0)

    def _model(self, item: dict[str, Any], path: tuple[str, ...], before: int) -> int:
        """The layers that the result of a model depends on, given those of its input."""
        if len(path) > MOST_DEPTH:
            raise Unclear
        listed = members(item)
        if "input_layers" in item["config"]:
            return self._functional(item["config"], listed, path, before)
        for member in listed:
            before = self._layer(member, path, before)
        return before

    def _layer(self, member: Member, path: tuple[str, ...], before: int) -> int:
        own = (*path, member.name)
        if is_model(member.item):
            return self._model(member.item, own, before)
        if len(self.leaves) >= MOST_LAYERS:
            raise Unclear
        self.leaves.append(Leaf(own, member.kind, member.item["config"], before))
        return before | 1 << (len(self.leaves) - 1)

    def _functional(self, config: dict[str, Any], listed: list[Member], path: tuple[str, ...], before: int) -> int:
        """Node by node: each call of a layer has the results of others as its arguments."""
        nodes = {member.name: member.item.get("inbound_nodes") or [] for member in listed}

        def called(value: Any) -> list[tuple[str, int]]:
            # A functional model's own node is counted by some versions and in some places: its calls begin at 1 there.
            return [(name, min(number, max(0, len(nodes.get(name, ())) - 1))) for name, number in references(value)]

        results = {(name, 0): before for name, calls in nodes.items() if not calls}
        waiting = [(member, k, called(node)) for member in listed for k, node in enumerate(nodes[member.name])]
        inside: dict[str, int] = {}  # the layers of each member
        for _ in range(MOST_ROUNDS):
            later = []
            for member, number, needed in waiting:
                if any(result not in results for result in needed) or (number and member.name not in inside):
                    later.append((member, number, needed))
                    continue
                given = before if not needed else 0
                for result in needed:
                    given |= results[result]
                if number:
                    self.shared.append((*path, member.name))
                    results[member.name, number] = given | inside[member.name]
                else:
                    first = len(self.leaves)
                    results[member.name, 0] = self._layer(member, path, given)
                    inside[member.name] = (1 << len(self.leaves)) - (1 << first)
            if not later:
                break
            waiting = later
        else:
            raise Unclear
        ends = called(config.get("output_layers"))
        if not ends or any(end not in results for end in ends):
            raise Unclear
        after = 0
        for end in ends:
            after |= results[end]
        return after


def is_model(item: Any) -> bool:
    """Whether a configuration is that of a model which lists its layers: Sequential or functional."""
    if not isinstance(item, dict) or not isinstance(item.get("config"), dict):
        return False
    config = item["config"]
    listed = isinstance(config.get("layers"), list)
    return listed and ("input_layers" in config or str(item.get("class_name")).endswith("Sequential"))


def members(item: dict[str, Any]) -> list[Member]:
    """What a model lists."""
    made = []
    require_few(len(item["config"]["layers"]))
    for inner in item["config"]["layers"]:
        if not isinstance(inner, dict) or not isinstance(inner.get("config"), dict):
            raise Unclear
        name = inner["config"].get("name", inner.get("name"))
        kind = snake_case(str(inner.get("class_name")).rpartition(">")[2])
        counted = not str(inner.get("module", "")).startswith(OPERATIONS)
        made.append(Member(str(name), kind, counted, inner))
    if len({member.name for member in made}) < len(made):
        raise Unclear
    return made


def snake_case(name: str) -> str:
    """A class as Keras names groups for it: Conv2DTranspose is conv2d_transpose."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def references(value: Any, depth: int = 0) -> Iterator[tuple[str, int]]:
    """The results that a node takes, as (layer, number of its node), in Keras' two ways of writing them."""
    if depth > MOST_DEPTH:
        raise Unclear
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            value = value.get("config", {}).get("keras_history")
        else:
            for inner in value.values():
                yield from references(inner, depth + 1)
            return
    if isinstance(value, list):
        if len(value) >= 3 and isinstance(value[0], str) and type(value[1]) is int and type(value[2]) is int:
            yield value[0], value[1]
            value = value[3:]
        for inner in value:
            yield from references(inner, depth + 1)
