"""A float graph quantised: QuantizeLinear and DequantizeLinear around the values of operators that bytes can do.

Activations get an affine grid of uint8 each, by their range over a calibration; weights a symmetric one of int8 a
channel. `integers` then makes operators on bytes of it. A value stays in floats where nobody gains: between a product
and the Relu behind it, between functions of one value, in front of operators that need floats anyway.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from .._core.arrays import Array
from .calibration import Statistics
from .fuse import for_quantising
from .graph import Graph, Names, Node
from .integers import MOVING
from .operators.chain import PARAMETRIC, UNARY
from .operators.integers import BINARY
from .optimise import fold_constants, pass_through

STEPS: Final = 255  # of a grid of uint8
LARGEST_WEIGHT: Final = 127
LARGEST_BIAS: Final = 1 << 29  # steps
SMALLEST_SCALE: Final = 1e-30
SHARED: Final = 0.25  # of a Concat's range: a part that has less keeps a grid of its own
PRODUCTS: Final = ("Conv", "Gemm", "MatMul")
MEANS: Final = ("AveragePool", "GlobalAveragePool", "ReduceMean")
FUNCTIONS: Final = frozenset((*UNARY, *PARAMETRIC, "Clip"))
LIMITS: Final = ("Relu", "Clip")
OPSET: Final = 13


def simplified(graph: Graph) -> Graph:
    """Constants computed and normalisations in the weights, before ranges are looked at; the graph is used up."""
    with np.errstate(all="ignore"):
        fold_constants(graph)
        pass_through(graph)
        for_quantising(graph)
    graph.remove_unused()
    return graph


def quantised(graph: Graph, statistics: Statistics) -> tuple[Graph, list[str]]:
    """The graph with its values quantised, and their names in order; it is used up."""
    made = _Quantiser(graph, statistics)
    made.run()
    return graph, made.chosen


class _Quantiser:
    def __init__(self, graph: Graph, statistics: Statistics) -> None:
        self.graph, self.constants = graph, graph.constants
        self.ranges, self.means = dict(statistics.ranges), dict(statistics.means)
        self.producers = graph.producers()
        self.readers: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for name in dict.fromkeys(filter(None, node.inputs)):
                self.readers.setdefault(name, []).append(node)
        self.outputs = {value.name for value in graph.outputs}
        self.chosen: list[str] = []
        self.scales: dict[str, np.float32] = {}
        names = Names(graph)
        self.fresh, self.constant = names.fresh, names.constant

    def run(self) -> None:
        """Choose values, lay grids over them, and put the nodes in."""
        wanted = self._wanted()
        names = [*(value.name for value in self.graph.inputs), *(n for node in self.graph.nodes for n in node.outputs)]
        self.chosen = [name for name in names if name in wanted and name in self.ranges and not self._inner(name)]
        self._share()
        before = {name: self._around(name) for name in self.chosen}
        nodes: list[Node] = []
        for value in self.graph.inputs:
            nodes += before.get(value.name, [])
        for node in self.graph.nodes:
            nodes += self._weighted(node)
            nodes.append(node)
            for name in list(node.outputs):
                if name in before:
                    node.outputs[node.outputs.index(name)] = before[name][0].inputs[0]
                    nodes += before[name]
        self.graph.nodes = nodes

    # ---- which values ------------------------------------------------------------------------------------------------

    def kind(self, node: Node) -> str:
        """What an operator does with bytes; '' for what it needs floats for."""
        if node.domain not in ("", "fastconv") or any(node.bodies()) or not node.inputs:
            return ""
        constant = [name in self.constants for name in node.inputs]
        if node.op_type in PRODUCTS:
            weight = self.constants.get(node.input(1))
            usual = weight is not None and weight.dtype == np.float32 and weight.size and not constant[0]
            return "product" if usual and self._plain(node) else ""
        if node.op_type in MEANS:
            return "mean"
        if node.op_type == "Concat":
            return "concat"
        if node.op_type in BINARY and len(node.inputs) == 2 and node.version >= 7:
            return "pair" if not any(constant) else "function" if self._scalar(node) else ""
        if node.op_type in FUNCTIONS and not constant[0]:
            return "function"
        if node.op_type in MOVING and not constant[0]:
            moves = node.op_type not in ("Resize", "Upsample") or node.attributes.get("mode", "nearest") == "nearest"
            return "moving" if moves and not any(node.outputs[1:]) else ""
        return ""

    def _plain(self, node: Node) -> bool:
        """Whether a product is one that `integers` takes."""
        get, weight = node.attributes.get, self.constants[node.inputs[1]]
        if not np.isfinite(weight).all():
            return False
        if node.op_type == "Conv":
            return 3 <= weight.ndim <= 5 and get("padding_mode", "zeros") == "zeros" and not get("activation")
        bias = not node.input(2) or node.inputs[2] in self.constants
        whole = get("alpha", 1.0) == 1.0 and (get("beta", 1.0) == 1.0 or not node.input(2)) and not get("transA", 0)
        return weight.ndim == 2 and whole and bias

    def _scalar(self, node: Node) -> bool:
        return all(self.constants[name].size == 1 for name in node.inputs if name in self.constants)

    def _wanted(self) -> set[str]:
        """Values that an operator on bytes reads, through functions and what only moves them."""
        wanted: set[str] = set()
        for node in reversed(self.graph.nodes):
            kind = self.kind(node)
            through = kind in ("function", "moving") and any(name in wanted for name in node.outputs)
            if kind in ("product", "pair", "mean", "concat") or through:
                values = node.inputs[:1] if kind != "pair" and kind != "concat" else node.inputs
                wanted.update(name for name in values if name and name not in self.constants)
        return wanted

    def _inner(self, name: str) -> bool:
        """Whether a value stays in floats: it is a moved one, or one operator takes it over at once."""
        maker, readers = self.producers.get(name), self.readers.get(name, [])
        if maker is None:
            return False
        kind = self.kind(maker)
        if kind == "moving":
            return True
        if len(readers) != 1 or name in self.outputs:
            return False
        if kind in ("product", "pair", "mean", "concat"):
            return readers[0].op_type in LIMITS and self.kind(readers[0]) == "function"
        return kind == "function" and self.kind(readers[0]) == "function"

    def _share(self) -> None:
        """One grid for a Concat and its parts, where none of them loses much."""
        for node in reversed(self.graph.nodes):
            if self.kind(node) != "concat":
                continue
            target = node.outputs[0]
            if self._inner(target):
                target = self.readers[target][0].outputs[0]
            if target not in self.chosen:
                continue
            low, high = self.ranges[target]
            for name in map(self.moved_from, node.inputs):
                own = self.ranges.get(name)
                if own is not None and name in self.chosen and own[1] - own[0] >= SHARED * (high - low):
                    self.ranges[name] = min(low, own[0]), max(high, own[1])

    # ---- grids -------------------------------------------------------------------------------------------------------

    def _around(self, name: str) -> list[Node]:
        """The nodes that make bytes and floats again of a value; readers keep its name, but of an input."""
        low, high = min(0.0, self.ranges[name][0]), max(0.0, self.ranges[name][1])
        scale = np.float32(max((high - low) / STEPS, SMALLEST_SCALE))
        zero = np.uint8(min(max(round(-low / float(scale)), 0), STEPS))
        parts: dict[str, Array] = {"scale": np.asarray(scale), "zero": np.asarray(zero)}
        grid = [self.constant(f"{name}_{part}", array) for part, array in parts.items()]
        source, target, held = name, name, self.fresh(f"{name}_bytes")
        if name in self.producers:
            source = self.fresh(f"{name}_float")
        else:
            target = self.fresh(f"{name}_rounded")
            if name in self.means:
                self.means[target] = self.means[name]
            for node in self.readers.get(name, []):
                node.inputs = [target if one == name else one for one in node.inputs]
        self.scales[target] = scale
        return [
            Node("QuantizeLinear", [source, *grid], [held], {}, OPSET, "", name),
            Node("DequantizeLinear", [held, *grid], [target], {}, OPSET, "", name),
        ]

    def _weighted(self, node: Node) -> list[Node]:
        """The DequantizeLinear of a product's weight, if its input is quantised; its bias must be one of int32 then."""
        step = self.step_of(node.inputs[0]) if self.kind(node) == "product" else None
        if step is None:
            return []
        weight = self.constants[node.inputs[1]]
        axis = 0 if node.op_type == "Conv" or node.attributes.get("transB", 0) else 1
        others = tuple(at for at in range(weight.ndim) if at != axis)
        scale = np.abs(weight).max(axis=others) / np.float32(LARGEST_WEIGHT)
        bias = self.constants.get(node.input(2))
        if bias is not None:
            scale = np.maximum(scale, np.abs(bias).reshape(-1) / (step * np.float32(LARGEST_BIAS)))
        scale = np.where(scale > SMALLEST_SCALE, scale, np.float32(1)).astype(np.float32)
        spread = scale.reshape([-1 if at == axis else 1 for at in range(weight.ndim)])
        values = np.clip(np.rint(weight / spread), -LARGEST_WEIGHT, LARGEST_WEIGHT).astype(np.int8)
        name = node.inputs[1]
        self._corrected(node, values * spread - weight)
        parts = [
            self.constant(f"{name}_int8", values), self.constant(f"{name}_scale", scale),
            self.constant(f"{name}_zero", np.zeros(scale.shape, np.int8)),
        ]  # fmt: skip
        target = self.fresh(f"{name}_rounded")
        node.inputs = [node.inputs[0], target, *node.inputs[2:]]
        return [Node("DequantizeLinear", parts, [target], {"axis": axis}, OPSET, "", name)]

    def _corrected(self, node: Node, error: Array) -> None:
        """Take what rounded weights add to the mean of every channel from the bias."""
        mean = self.means.get(node.inputs[0])
        if mean is None or node.op_type == "MatMul":
            return
        if node.op_type == "Conv":
            groups = int(node.attributes.get("group", 1))
            sums = error.sum(axis=tuple(range(2, error.ndim))).reshape(groups, -1, error.shape[1])
            if mean.size != groups * error.shape[1]:
                return
            shift = np.einsum("goi,gi->go", sums, mean.reshape(groups, -1)).reshape(-1)
        else:
            shift = error @ mean if node.attributes.get("transB", 0) else mean @ error
        bias = self.constants[node.inputs[2]].reshape(-1) if node.input(2) else np.float32(0)
        made = self.constant(f"{node.inputs[1]}_bias", np.asarray(bias - shift, np.float32))
        node.inputs = [*node.inputs[:2], made]

    def moved_from(self, name: str) -> str:
        """The value of which this is one in another order or a part of it."""
        while name not in self.scales:
            maker = self.producers.get(name)
            if maker is None or self.kind(maker) != "moving":
                break
            name = maker.inputs[0]
        return name

    def step_of(self, name: str) -> np.float32 | None:
        """The step of a quantised value; None where it stays in floats."""
        return self.scales.get(self.moved_from(name))
