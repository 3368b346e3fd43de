"""Quantised graphs in integers: what stands between DequantizeLinear and QuantizeLinear becomes operators on bytes.

A pass over the nodes in their order. It knows of every float value whether it is

- a function of the bytes of one value (`Lut`): what DequantizeLinear makes, and every elementwise function of it, as a
  table of 256 floats. Operators that only move values do so with the bytes;
- the result of an operator on such values (`Pending`): a convolution or matrix product with quantised weights, a sum,
  product .. of two values, a mean, a Concat. Limits behind it (Relu, Clip) are remembered, and a normalisation is part
  of the weight;
- bytes whose channels have scales of their own (`Channelwise`), as depthwise convolutions alone read them.

Where QuantizeLinear meets one of them, a node on bytes takes its place. All other nodes stay, and those that nobody
reads any more vanish afterwards: what stays in floats computes what it always did. A product of bytes that nobody
quantises adds up in integers too, and gives floats.

Functions of one value, sums and products of two, and what moves values give the bits of the graph step by step; where
sums are exact in place of rounded ones (products, means) the result may be the next integer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np

from .._core.arrays import Array
from .after import put_into_convolutions
from .fuse import normalisation
from .graph import Graph, Names, Node
from .lowered import (
    Channelwise,
    Joined,
    Lut,
    Mean,
    Pair,
    Pending,
    Product,
    Weight,
    channelwise,
    constant_grid,
    q_linear,
)
from .memory import Pool
from .operators import INTERNAL, Call, find
from .operators.chain import PARAMETRIC, UNARY
from .operators.integers import BINARY, TABLE, Grid
from .program import run_node

BYTES: Final = {"int8", "uint8"}
HELD: Final = {*BYTES, "int32"}  # constants that DequantizeLinear stays before, until this pass has run
ELEMENT_TYPES: Final = {2: "uint8", 3: "int8"}  # of inputs, as ONNX numbers them
MOVING: Final = (
    "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Gather", "Split", "DepthToSpace",
    "SpaceToDepth", "Expand", "Tile", "Identity", "Pad", "Resize", "Upsample", "MaxPool", "GlobalMaxPool",
)  # fmt: skip
RESIZED: Final = ("Resize", "Upsample")


def holds_quantised(graph: Graph, node: Node) -> bool:
    """Whether this is a DequantizeLinear of a constant, which must not become a float before this pass."""
    constant = graph.constants.get(node.input(0))
    return node.op_type == "DequantizeLinear" and constant is not None and constant.dtype.name in HELD


def to_integers(graph: Graph, *, nearly: bool = False) -> None:
    """Rewrite a graph, if there is something quantised in it; sums may be `nearly` exact where that is faster."""
    if any(node.op_type == "DequantizeLinear" or node.op_type.startswith("QLinear") for node in graph.nodes):
        Pass(graph, nearly).run()
        graph.remove_unused()
        put_into_convolutions(graph)


class Pass:
    """The graph and what is known of its values; `made` are the nodes so far."""

    def __init__(self, graph: Graph, nearly: bool = False) -> None:
        self.nearly = nearly
        self.graph, self.constants = graph, graph.constants
        self.uses = graph.uses()
        self.outputs = {value.name for value in graph.outputs}
        self.made: list[Node] = []
        self.luts: dict[str, Lut] = {}
        self.pending: dict[str, Pending] = {}
        self.weights: dict[str, Weight] = {}
        self.channelwise: dict[str, Channelwise] = {}  # bytes
        self.by_channel: dict[str, str] = {}  # what DequantizeLinear makes of those, and their names
        self.kinds = {value.name: ELEMENT_TYPES.get(value.element_type, "") for value in graph.inputs}
        self._renamed: dict[str, str] = {}
        names = Names(graph)
        self.fresh, self.constant = names.fresh, names.constant
        self._tabled: dict[str, Lut] = {}  # bytes that are a table of others; the table is of bytes
        self._quantised: dict[tuple[Any, ...], str] = {}  # by the value and what it was quantised to

    def run(self) -> None:
        """Every node in order."""
        self._merge_quantising()
        for node in self.graph.nodes:
            node.inputs = [self._renamed.get(name, name) for name in node.inputs]
            known = node.domain in ("", INTERNAL) and not any(node.bodies())
            handler = HANDLERS.get(node.op_type) if known else None
            if handler is None or not handler(self, node):
                self.made.append(node)
        self.graph.nodes = self.made

    def _merge_quantising(self) -> None:
        """Readers of a value that quantise it alike count as one: `quantised` makes one of them."""
        known = set()
        for node in self.graph.nodes:
            grid = constant_grid(self.constants, node, None) if node.op_type == "QuantizeLinear" else None
            if grid is not None:
                key = (node.inputs[0], *grid)
                self.uses[node.inputs[0]] -= key in known
                known.add(key)

    # ---- nodes ---------------------------------------------------------------------------------------------

    def add(self, op_type: str, inputs: list[str], output: str, parts: list[str], **attributes: Any) -> None:
        """A node of ours."""
        self.made.append(Node(op_type, inputs, [output], attributes, 1, INTERNAL, output, parts))

    def single(self, name: str) -> bool:
        """Whether one node alone reads a float value, and nobody outside."""
        return self.uses[name] == 1

    def number(self, name: str) -> float | None:
        """A constant of one element without axes that matter."""
        return self.graph.number(name, 1)

    # ---- to bytes and back -------------------------------------------------------------------------------------------

    def dequantised(self, node: Node) -> bool:
        """DequantizeLinear: of a constant a weight, of bytes a `Lut`."""
        name, constant = node.inputs[0], self.constants.get(node.inputs[0])
        if constant is not None and constant.dtype.name in HELD:
            weight = self.weight_of(node, constant)
            if weight is not None:
                self.weights[node.outputs[0]] = weight
        kind = self.kinds.get(name) if constant is None else constant.dtype.name
        grid = constant_grid(self.constants, node, kind)
        if not kind and grid is not None and node.input(2):  # the zero point is of the type of the bytes
            kind = grid.dtype.name
        own = self.channelwise.get(name)
        if own is not None and grid is None:
            read = channelwise(self.constants, node)
            if read is not None and read.grid == own.grid and np.array_equal(read.scales, own.scales):
                self.by_channel[node.outputs[0]] = name
        if grid is not None and kind == grid.dtype.name:
            self.luts[node.outputs[0]] = Lut(name, kind, grid.table(), grid)
        return False

    def weight_of(self, node: Node, constant: Array) -> Weight | None:
        scale, zero = self.constants.get(node.input(1)), self.constants.get(node.input(2))
        if scale is None or scale.dtype != np.float32 or scale.ndim > 1 or (node.input(2) and zero is None):
            return None
        if not (np.isfinite(scale).all() and (scale > 0).all()) or node.attributes.get("block_size"):
            return None
        axis = int(node.attributes.get("axis", 1)) % max(1, constant.ndim)
        if scale.size > 1 and (not constant.ndim or scale.size != constant.shape[axis]):
            return None
        zero = np.zeros(1, constant.dtype) if zero is None else zero.reshape(-1)
        return Weight(node.inputs[0], constant, scale.reshape(-1), zero, axis)

    def quantised(self, node: Node) -> bool:
        """QuantizeLinear: where it is met, everything before it is in bytes."""
        grid, source, target = constant_grid(self.constants, node, None), node.inputs[0], node.outputs[0]
        if grid is None:
            return self.quantised_by_channel(node)
        key = (source, float(grid.scale), grid.zero, grid.dtype)
        if key in self._quantised:
            self.rename(target, self._quantised[key])
            return True
        self._quantised[key] = target
        self.kinds[target] = grid.dtype.name
        lut = self.luts.get(source)
        if lut is not None:
            self.bytes_of(lut, grid, target)
            return True
        found = self.pending.get(source)
        return found is not None and found.quantise(self, source, grid, target)

    def quantised_by_channel(self, node: Node) -> bool:
        """QuantizeLinear with a scale a channel, behind a convolution."""
        found, to = self.pending.get(node.inputs[0]), channelwise(self.constants, node)
        if to is None or not isinstance(found, Product):
            return False
        target = node.outputs[0]
        if not found.quantise_by_channel(self, node.inputs[0], to, target):
            return False
        self.kinds[target], self.channelwise[target] = to.grid.dtype.name, to
        return True

    def bytes_of(self, lut: Lut, grid: Grid, target: str = "") -> str:
        """The name of the bytes of a function of bytes; `target` is to be that name."""
        table = grid.nearest(lut.table)
        if lut.kind == grid.dtype.name and np.array_equal(table, grid.all()):
            if target:
                self.rename(target, lut.source)
            return lut.source
        made = target or self.fresh(f"{lut.source}_as_{grid.dtype.name}")
        self.kinds[made] = grid.dtype.name
        root = self.rooted(lut)
        self._tabled[made] = replace(root, table=grid.nearest(root.table))
        parts = lut.parts or ["DequantizeLinear", "QuantizeLinear"]
        self.add("QTable", [lut.source, self.constant(f"{made}_table", table)], made, list(parts))
        return made

    def rooted(self, lut: Lut) -> Lut:
        """The same as a function of the bytes that a table was looked up for."""
        root = self._tabled.get(lut.source)
        if root is None:
            return lut
        table = lut.table[root.table.view(np.uint8)]
        return replace(root, table=table, grid=None, parts=[*root.parts, *lut.parts])

    def rename(self, old: str, new: str) -> None:
        """Who reads `old` from now on reads `new`."""
        if old in self.outputs:
            self.made.append(Node("Identity", [new], [old], {}, 14, "", old))
        self._renamed[old] = new
        self.kinds[old] = self.kinds.get(new, "")

    # ---- functions of one value --------------------------------------------------------------------------------------

    def elementwise(self, node: Node) -> bool:
        """A function of bytes, or limits of what is pending; the node stays, in case that somebody reads floats."""
        inputs = [name for name in node.inputs if name]
        moving = [name for name in inputs if self.number(name) is None]
        luts = [self.luts.get(name) for name in moving]
        if len(moving) > 1:
            luts = [None if lut is None else self.rooted(lut) for lut in luts]
        if len({None if lut is None else lut.source for lut in luts}) == 1 and luts[0] is not None:
            table = self.evaluated(node, {name: lut.table for name, lut in zip(moving, luts, strict=True) if lut})
            if table is not None:
                parts = [*luts[0].parts, node.op_type]
                self.luts[node.outputs[0]] = replace(luts[0], table=table, grid=None, parts=parts)
            return False
        if len(moving) == 1 and moving[0] in self.pending and self.single(moving[0]):
            found = self.pending[moving[0]].through(self, node)
            if found is not None:
                self.pending[node.outputs[0]] = found
        return False

    def evaluated(self, node: Node, given: dict[str, Array]) -> Array | None:
        """A node's function of tables; its other inputs are numbers."""
        found = find(node.domain, node.op_type, node.version)
        inputs = [
            given.get(name, self.constants.get(name)) if name else None for name in node.inputs
        ]  # fmt: skip
        inputs = [x.reshape(()) if x is not None and x.size == 1 else x for x in inputs]
        if found is None or any(x is None and name for x, name in zip(inputs, node.inputs, strict=True)):
            return None
        (table,) = run_node(found.function, Call(node, Pool(), 1), inputs)[:1]
        return np.array(table) if table.shape == (TABLE,) and table.dtype == np.float32 else None

    def binary(self, node: Node) -> bool:
        """Two values: of the same bytes a function, else a pair; a constant behind a product is its bias."""
        if len(node.inputs) != 2 or node.version < 7:
            return False
        a, b = (self.luts.get(name) for name in node.inputs)
        if a is not None and b is not None and self.rooted(a).source != self.rooted(b).source:
            if a.grid is not None and b.grid is not None:
                self.pending[node.outputs[0]] = Pair(node, a, b)
            return False
        for name, other in (node.inputs, node.inputs[::-1]):
            found = self.pending.get(name)
            if isinstance(found, Product) and self.single(name) and node.op_type == "Add":
                value = self.weights[other].real() if other in self.weights else self.constants.get(other)
                moved = None if value is None else found.with_bias(value, behind=True)
                if moved is not None:
                    self.pending[node.outputs[0]] = moved
                    return False
        return self.elementwise(node)

    # ---- operators ---------------------------------------------------------------------------------------------------

    def moved(self, node: Node) -> bool:
        """What only moves values moves bytes."""
        if node.op_type == "Transpose" and node.input(0) in self.weights:
            self.weights[node.outputs[0]] = self.weights[node.inputs[0]].transposed(node.attributes.get("perm"))
        lut = self.luts.get(node.input(0))
        if lut is None or any(name in self.luts for name in node.inputs[1:]):
            return False
        inputs = self._mover_inputs(node, lut)
        if inputs is None:
            return False
        outputs = [self.fresh(f"{name}_bytes") if name else "" for name in node.outputs]
        self.made.append(Node(
            node.op_type, inputs, outputs, node.attributes, node.version, node.domain, node.name, list(node.parts)
        ))  # fmt: skip
        for name, made in zip(node.outputs, outputs, strict=True):
            if name:
                self.kinds[made] = lut.kind
                self.luts[name] = replace(lut, source=made)
        return False

    def _mover_inputs(self, node: Node, lut: Lut) -> list[str] | None:
        """What the node on bytes reads; None where it would make new values."""
        get = node.attributes.get
        if node.op_type in RESIZED and (
            get("mode", "nearest") != "nearest" or get("coordinate_transformation_mode") == "tf_crop_and_resize"
        ):
            return None
        if "MaxPool" in node.op_type and (any(node.outputs[1:]) or not lut.rising):
            return None
        if node.op_type == "Gather" and node.input(0) in self.constants:
            return None
        if node.op_type != "Pad" or get("mode", "constant") != "constant":
            return [lut.source, *node.inputs[1:]]
        value = self.number(node.inputs[2]) if node.input(2) else float(get("value", 0.0))
        byte = None if value is None else lut.byte_of(value)
        if byte is None or node.version < 11:
            return None
        return [lut.source, node.input(1), self.constant(f"{lut.source}_padding", byte), *node.inputs[3:]]

    def product(self, node: Node) -> bool:
        """A convolution or a matrix product of bytes with quantised weights."""
        x, weight = self.luts.get(node.input(0)), self.weights.get(node.input(1))
        name = self.by_channel.get(node.input(0))
        if name is not None and weight is not None and node.op_type == "Conv":  # depthwise: a scale for each output
            own = self.channelwise[name]
            if int(node.attributes.get("group", 1)) == len(own.scales):
                x, weight = Lut(name, self.kinds[name], own.grid.table(), own.grid), own.weighed(weight)
        found = Product.of(self, node, x, weight)
        if found is None:
            return False
        self.pending[node.outputs[0]] = found
        return found.in_floats(self, node.outputs[0])

    def normalised(self, node: Node) -> bool:
        """A BatchNormalization behind a product goes into its weight and bias."""
        found = self.pending.get(node.input(0))
        if isinstance(found, Product) and self.single(node.inputs[0]):
            parts = normalisation(node, self.constants)
            moved = None if parts is None else found.normalised(*parts)
            if moved is not None:
                self.pending[node.outputs[0]] = moved
        return False

    def mean(self, node: Node) -> bool:
        """A pooling or a mean of bytes."""
        lut = self.luts.get(node.input(0))
        if lut is not None and lut.grid is not None:
            found = Mean.of(self, node, lut)
            if found is not None:
                self.pending[node.outputs[0]] = found
        return False

    def joined(self, node: Node) -> bool:
        """Concat of bytes."""
        luts = [self.luts.get(name) for name in node.inputs]
        if any(lut is None for lut in luts):
            return False
        found = Joined(node, [lut for lut in luts if lut is not None])
        self.pending[node.outputs[0]] = found
        first = found.luts[0]
        if all(lut.kind == first.kind and np.array_equal(lut.table, first.table) for lut in found.luts):
            made = self.fresh(f"{node.outputs[0]}_bytes")
            found.join(self, [lut.source for lut in found.luts], made)
            self.kinds[made] = first.kind
            self.luts[node.outputs[0]] = replace(first, source=made)
        return False


HANDLERS: Final[dict[str, Callable[[Pass, Node], bool]]] = {
    **dict.fromkeys((*UNARY, *PARAMETRIC, "Clip", "Pow"), Pass.elementwise), **dict.fromkeys(BINARY, Pass.binary),
    **dict.fromkeys(MOVING, Pass.moved), **dict.fromkeys(("Conv", "Gemm", "MatMul"), Pass.product),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "ReduceMean"), Pass.mean),
    **dict.fromkeys(("QLinearConv", "QLinearMatMul"), q_linear), "Concat": Pass.joined,
    "BatchNormalization": Pass.normalised,
    "DequantizeLinear": Pass.dequantised, "QuantizeLinear": Pass.quantised,
}  # fmt: skip
