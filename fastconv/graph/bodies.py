"""If, Loop, Scan and SequenceMap: nodes with bodies, each a graph of its own.

A body may read values of the graph around it. Loading makes them inputs of the node, behind its own, and inputs of the
body, so that whatever renames, folds or orders values knows nothing of bodies (`captured`). A body runs as a `Program`
of its own, in buffers of its own, that is kept for the shapes that it ran on last.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from .._core.arrays import Array
from .graph import CAPTURED, Graph, Node
from .memory import Pool
from .operators import Call
from .operators.registry import operator
from .program import Program
from .tensors import numpy_type

KEPT_SHAPES: Final = 4  # of each body


class Body:
    """A body of a node at work."""

    def __init__(self, call: Call, name: str) -> None:
        self.graph: Graph = call.get(name)
        self._pool, self._threads = Pool(call.pool.limit), call.threads
        self._programs: OrderedDict[tuple[Any, ...], Program] = OrderedDict()
        self._reads = {value.name for value in self.graph.inputs}

    def run(self, feeds: Mapping[str, Any]) -> list[Any]:
        """The body's results, which belong to the caller; feeds that it does not read are passed over."""
        given = {name: value for name, value in feeds.items() if name in self._reads}
        key = tuple(
            (value.shape, value.dtype) if isinstance(value, np.ndarray) else None for value in given.values()
        )  # fmt: skip
        program = self._programs.get(key)
        if program is None:
            program = self._programs[key] = Program(self.graph, self._pool, self._threads)
            while len(self._programs) > KEPT_SHAPES:
                self._programs.popitem(last=False)
        self._programs.move_to_end(key)
        found = program.run(given)
        return [found[name] for name in program.outputs]


def body(call: Call, name: str) -> Body:
    """A body of the node, kept from run to run."""
    known: Body | None = call.state.get(name)
    if known is None:
        known = call.state[name] = Body(call, name)
    return known


def _split(call: Call, inputs: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
    """The node's own inputs, and by their names those that its bodies read from around."""
    captured = call.get(CAPTURED, [])
    own = len(inputs) - len(captured)
    return list(inputs[:own]), dict(zip(captured, inputs[own:], strict=True))


def _truth(call: Call, what: str, value: Any) -> bool:
    """A condition."""
    if not isinstance(value, np.ndarray) or value.size != 1:
        raise call.error(f"{what} must be one value, but is {getattr(value, 'shape', 'no tensor')}.")
    return bool(value.ravel()[0])


@operator("If", as_stored=True, shaping="all")
def if_(call: Call, *inputs: Any) -> tuple[Any, ...]:
    """One of two bodies."""
    (condition,), around = _split(call, inputs)
    chosen = body(call, "then_branch" if _truth(call, "its condition", condition) else "else_branch")
    call.describe(f"a body of {len(chosen.graph.nodes)} nodes")
    return tuple(chosen.run(around))


# ---- Loop ------------------------------------------------------------------------------------------------------------


class Collected:
    """Results of a body, one a turn, that become one array; refused as soon as they are too large together."""

    def __init__(self, call: Call, declared: Any, axis: int = 0) -> None:
        self._call, self._declared, self._axis = call, declared, axis
        self._parts: list[Any] = []

    def add(self, part: Any) -> None:
        """The result of a turn."""
        if not isinstance(part, np.ndarray):
            raise self._call.error(f"a scan output must be a tensor, but got a {type(part).__name__}.")
        if self._parts and (part.shape != self._parts[0].shape or part.dtype != self._parts[0].dtype):
            raise self._call.error(
                f"a scan output of shape {self._parts[0].shape} has the shape {part.shape} in turn {len(self._parts)}."
            )
        self._parts.append(part)
        self._call.check((len(self._parts), *part.shape), part.dtype)

    def all(self, backwards: bool = False) -> Array:
        """All of them along the axis; each is given back as soon as it is copied."""
        if not self._parts:
            shape = [0, *(size if isinstance(size, int) else 0 for size in self._declared.shape or [])]
            return np.empty(self._call.check(shape, np.float32), numpy_type(self._declared.element_type or 1))
        first = self._parts[0]
        axis = self._call.from_front(self._axis, first.ndim + 1)
        out = self._call.empty((*first.shape[:axis], len(self._parts), *first.shape[axis:]), first.dtype)
        along = np.moveaxis(out, axis, 0)
        places = range(len(self._parts))
        for place, turn in zip(reversed(places) if backwards else places, places, strict=True):
            along[place] = self._parts[turn]
            self._parts[turn] = None
        return out


@operator("Loop", as_stored=True, shaping="all")
def loop(call: Call, *inputs: Any) -> tuple[Any, ...]:
    """A body until a count is reached or its condition is false; what it carries is its input in the next turn."""
    own, around = _split(call, inputs)
    turns = body(call, "body")
    names = [value.name for value in turns.graph.inputs]
    carried = own[2:]
    count = len(carried)
    declared = turns.graph.outputs[1 + count :]
    if len(names) < 2 + count or len(turns.graph.outputs) < 1 + count:
        raise call.error(f"its body does not take and give the {count} values that it carries.")
    most = None if own[0] is None else int(own[0].ravel()[0])
    going = own[1] is None or _truth(call, "its condition", own[1])
    collected = [Collected(call, value) for value in declared]
    call.describe(f"a body of {len(turns.graph.nodes)} nodes")
    turn = 0
    while going and (most is None or turn < most):
        feeds = dict(zip(names, (np.array(turn, np.int64), np.array(True), *carried), strict=False))
        made = turns.run({**around, **feeds})
        going = _truth(call, "the condition that its body gives", made[0])
        carried = made[1 : 1 + count]
        for parts, part in zip(collected, made[1 + count :], strict=True):
            parts.add(part)
        turn += 1
    return (*carried, *(parts.all() for parts in collected))


# ---- Scan ------------------------------------------------------------------------------------------------------------


@operator("Scan", as_stored=True, shaping="all", since=9)
def scan(call: Call, *inputs: Any) -> tuple[Any, ...]:
    """A body for every element along an axis of its scanned inputs; what it carries goes from one to the next."""
    own, around = _split(call, inputs)
    return _scanned(call, own, around)


def _scanned(call: Call, own: list[Any], around: dict[str, Any], turns: int | None = None) -> tuple[Any, ...]:
    """Results of one sequence, of `turns` elements or all."""
    each = body(call, "body")
    scans = int(call.get("num_scan_inputs", 0))
    count = len(own) - scans
    names = [value.name for value in each.graph.inputs]
    results = len(each.graph.outputs) - count
    if scans < 1 or count < 0 or len(names) < len(own) or results < 0:
        raise call.error(f"its body does not take {len(own)} inputs, {scans} of them scanned, or give too few.")
    default = [0] * max(scans, results)
    axes, back = (call.get(f"scan_input_{what}", default) for what in ("axes", "directions"))
    back = call.get("directions", back)  # of operator set 8
    out_axes, out_back = (call.get(f"scan_output_{what}", default) for what in ("axes", "directions"))
    rows = [
        np.moveaxis(x, call.from_front(int(axis), x.ndim), 0)
        for x, axis in zip(own[count:], axes, strict=False)
    ]  # fmt: skip
    lengths = {row.shape[0] for row in rows}
    if len(lengths) != 1 or len(rows) != scans:
        raise call.error(f"its scanned inputs have {sorted(lengths)} elements; they must be equally many.")
    (length,) = lengths
    collected = [
        Collected(call, value, int(axis)) for value, axis in zip(each.graph.outputs[count:], out_axes, strict=False)
    ]
    carried = own[:count]
    for turn in range(length if turns is None else turns):
        parts = [row[length - 1 - turn if way else turn, ...] for row, way in zip(rows, back, strict=False)]
        made = each.run({**around, **dict(zip(names, (*carried, *parts), strict=False))})
        carried = made[:count]
        for found, part in zip(collected, made[count:], strict=True):
            found.add(part)
    call.describe(f"a body of {len(each.graph.nodes)} nodes")
    return (*carried, *(parts.all(bool(way)) for parts, way in zip(collected, out_back, strict=False)))


@operator("Scan", as_stored=True, shaping="all", since=8)
def scan_batches(call: Call, lengths: Any, *inputs: Any) -> tuple[Any, ...]:
    """Operator set 8: sequences in a batch, each of a length of its own, filled up with zeros."""
    own, around = _split(call, inputs)
    scans = int(call.get("num_scan_inputs", 0))
    batch, most = own[-1].shape[:2]
    turns = [most] * batch if lengths is None else [int(length) for length in lengths.ravel().tolist()]
    if len(turns) != batch or any(not 0 <= number <= most for number in turns) or not batch:
        raise call.error(f"sequence_lens {turns} do not fit {batch} sequences of at most {most} elements.")
    found = [_scanned(call, [x[row] for x in own], around, number) for row, number in enumerate(turns)]
    count, results = len(own) - scans, []
    for at, parts in enumerate(zip(*found, strict=True)):
        if at >= count:
            parts = tuple(_filled(call, part, most) for part in parts)
        results.append(np.stack(parts))
    return tuple(results)


def _filled(call: Call, part: Array, length: int) -> Array:
    out = np.zeros(call.check((length, *part.shape[1:]), part.dtype), part.dtype)
    out[: len(part)] = part
    return out


@operator("SequenceMap", as_stored=True, shaping="all")
def sequence_map(call: Call, *inputs: Any) -> tuple[Any, ...]:
    """A body for every element of a sequence, and of others beside it; tensors are given to each."""
    own, around = _split(call, inputs)
    each = body(call, "body")
    names = [value.name for value in each.graph.inputs]
    lengths = {len(value) for value in own if isinstance(value, list)}
    if not isinstance(own[0], list) or len(lengths) != 1 or len(names) < len(own):
        raise call.error(f"its body takes {len(names)} inputs; its sequences have {sorted(lengths)} elements.")
    found: list[list[Any]] = [[] for _ in each.graph.outputs]
    for turn in range(len(own[0])):
        parts = [value[turn] if isinstance(value, list) else value for value in own]
        for results, made in zip(found, each.run({**around, **dict(zip(names, parts, strict=False))}), strict=True):
            results.append(made)
    return tuple(found)


# ---- of graphs -------------------------------------------------------------------------------------------------------


def give_constants(graph: Graph) -> None:
    """Let constants that bodies read from around be constants of the bodies, whose weights are then packed and folded.

    Names of values around are not those inside any more: an optimised graph calls some of them otherwise.
    """
    for node in graph.nodes:
        captured = node.attributes.get(CAPTURED)
        if not captured:
            continue
        own = len(node.inputs) - len(captured)
        constant = {
            inside: graph.constants[name]
            for inside, name in zip(captured, node.inputs[own:], strict=True) if name in graph.constants
        }  # fmt: skip
        kept = [place for place, inside in enumerate(captured) if inside not in constant]
        node.inputs = [*node.inputs[:own], *(node.inputs[own + place] for place in kept)]
        node.attributes[CAPTURED] = [captured[place] for place in kept]
        for inner in node.bodies():
            reads = {value.name for value in inner.inputs}
            inner.constants.update((name, array) for name, array in constant.items() if name in reads)
            inner.inputs = [value for value in inner.inputs if value.name not in constant]


def inline(graph: Graph, known: Mapping[str, Array]) -> bool:
    """Put the nodes of a branch in the place of each If whose condition is known; whether there was one."""
    waiting, kept, found = graph.nodes[::-1], [], False
    while waiting:
        node = waiting.pop()
        branch = _branch(node, known)
        if branch is None:
            kept.append(node)
            continue
        found = True
        waiting += _spliced(graph, node, branch)[::-1]
    graph.nodes = kept
    return found


def _branch(node: Node, known: Mapping[str, Array]) -> Graph | None:
    """What an If comes to."""
    condition = known.get(node.input(0)) if node.op_type == "If" and not node.domain else None
    if condition is None or condition.size != 1:
        return None
    chosen: Graph = node.attributes["then_branch" if condition.ravel()[0] else "else_branch"]
    return chosen if len(chosen.outputs) >= len(node.outputs) else None  # the run will tell


def _spliced(graph: Graph, node: Node, branch: Graph) -> list[Node]:
    """The branch's nodes over names of the graph around; the branch stays as it is."""
    around = dict(zip(node.attributes.get(CAPTURED, []), node.inputs[1:], strict=True))
    called = {"": "", **{value.name: around[value.name] for value in branch.inputs}}
    before = next(filter(None, node.outputs), "If")
    made = {name for inner in branch.nodes for name in inner.outputs if name}
    passed = []
    for value, output in zip(branch.outputs, node.outputs, strict=False):
        if output and value.name in made and value.name not in called:
            called[value.name] = output
        elif output:
            passed.append((value.name, output))
    for name in (*made, *branch.constants):
        called.setdefault(name, f"{before}/{name}")  # unique: so are the outputs of nodes
    graph.constants.update((called[name], array) for name, array in branch.constants.items())
    nodes = [
        replace(inner, inputs=[called[name] for name in inner.inputs], outputs=[called[name] for name in inner.outputs])
        for inner in branch.nodes
    ]
    return nodes + [Node("Identity", [called[name]], [output], {}, 13) for name, output in passed]
