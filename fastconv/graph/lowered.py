"""What `integers` knows of a float value before it is quantised: tables of bytes, and operators on them that wait."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from .._core.arrays import Array
from .._core.quantised import Requantise
from .graph import Node
from .operators.integers import Grid, grid_of

if TYPE_CHECKING:
    from .integers import Pass

LARGEST_BIAS: Final = 1 << 30
LARGEST_SUM: Final = 1 << 31
BYTE: Final = 255  # the largest difference of two
SAME_SCALE: Final = 1e-5  # relative: the scale of a bias is the product of two others, in whatever precision


def constant_grid(constants: Mapping[str, Array], node: Node, kind: str | None) -> Grid | None:
    """The bytes that QuantizeLinear gives or DequantizeLinear takes, of the type `kind` where no zero point says it;
    None for what is not a constant, positive, one for all and of 8 bits."""
    scale, zero = constants.get(node.input(1)), constants.get(node.input(2))
    if scale is None or scale.ndim > 1 or (zero is None and node.input(2)):
        return None
    if any(node.attributes.get(name) for name in ("output_dtype", "precision", "block_size")):
        return None
    grid = grid_of(scale, zero, np.dtype(kind or "uint8") if zero is None else zero.dtype)
    return grid if grid is not None and np.isfinite(grid.scale) and grid.scale > 0 else None


@dataclass(frozen=True)
class Channelwise:
    """Bytes of which every channel (axis 1) has a scale of its own; the `grid` has the rest, and the scale 1."""

    scales: Array
    grid: Grid

    def weighed(self, weight: Weight) -> Weight | None:
        """A depthwise weight whose scales hold these too, so that the bytes' scale is 1."""
        outputs, times = len(weight.values), len(weight.values) // len(self.scales)
        if weight.values.shape[1] != 1 or outputs % len(self.scales) or not weight.along(0):
            return None
        scale = np.asarray(weight.scale * np.repeat(self.scales, times), np.float32)
        return replace(weight, scale=scale, axis=0)


def channelwise(constants: Mapping[str, Array], node: Node) -> Channelwise | None:
    """The bytes of a QuantizeLinear or DequantizeLinear by channels that have one zero point; None for others."""
    scale, zero = constants.get(node.input(1)), constants.get(node.input(2))
    if scale is None or zero is None or scale.ndim != 1 or scale.dtype != np.float32 or zero.shape != scale.shape:
        return None
    if any(node.attributes.get(name) for name in ("output_dtype", "precision", "block_size")):
        return None
    if int(node.attributes.get("axis", 1)) != 1 or zero.dtype.name not in ("int8", "uint8") or scale.size < 2:
        return None
    if (zero != zero[0]).any() or not (np.isfinite(scale).all() and (scale > 0).all()):
        return None
    return Channelwise(scale, Grid(np.float32(1), int(zero[0]), zero.dtype))


@dataclass(frozen=True)
class Lut:
    """A function of the bytes of a value: 256 floats, in the order of bits; `grid` says that it is DequantizeLinear."""

    source: str
    kind: str  # the element type of the bytes
    table: Array
    grid: Grid | None
    parts: list[str] = field(default_factory=list)

    def byte_of(self, value: float) -> Array | None:
        """The byte that stands for a value exactly."""
        found = np.flatnonzero(self.table == np.float32(value))
        return found[:1].astype(np.uint8).view(self.kind).reshape(()) if found.size else None

    @property
    def rising(self) -> bool:
        """Whether larger integers stand for larger numbers."""
        order = np.argsort(np.arange(256, dtype=np.uint8).view(self.kind), kind="stable")
        return bool(np.all(np.diff(self.table[order]) > 0))


@dataclass(frozen=True)
class Weight:
    """A constant that is dequantised: integers, and scales and zero points, one or along an axis."""

    name: str
    values: Array
    scale: Array
    zero: Array
    axis: int

    def along(self, axis: int) -> bool:
        """Whether its scales and zero points are one for all or along this axis."""
        return max(self.scale.size, self.zero.size) == 1 or self.axis == axis

    def real(self) -> Array:
        """What it stands for."""
        shape = [-1 if at == self.axis else 1 for at in range(self.values.ndim)] if self.values.ndim else []

        def spread(part: Array) -> Array:
            return part.astype(np.float64).reshape(shape if part.size > 1 else ())

        return (self.values - spread(self.zero)) * spread(self.scale)

    def transposed(self, perm: list[int] | None) -> Weight:
        """With its axes in another order; its constant is then none of the graph's."""
        order = list(perm) if perm else list(range(self.values.ndim))[::-1]
        return Weight("", self.values.transpose(order), self.scale, self.zero, order.index(self.axis))


# ---- operators that wait for QuantizeLinear --------------------------------------------------------------------------


class Pending(ABC):
    """The result of an operator on bytes, in floats so far."""

    @abstractmethod
    def through(self, graph: Pass, node: Node) -> Pending | None:
        """The same behind a function of one value, if that can be."""

    @abstractmethod
    def quantise(self, graph: Pass, source: str, grid: Grid, target: str) -> bool:
        """Make the bytes `target` of the value that the graph calls `source`; whether that was possible."""


@dataclass(frozen=True)
class Limited(Pending):
    """One with limits: Relu and Clip behind an operator, one after the other."""

    node: Node
    limits: tuple[tuple[float, float], ...] = field(default=(), kw_only=True)
    behind: tuple[str, ...] = field(default=(), kw_only=True)

    def through(self, graph: Pass, node: Node) -> Pending | None:
        found = bounds_of(graph, node)
        if found is None:
            return None
        return replace(self, limits=(*self.limits, found), behind=(*self.behind, node.op_type))

    def range_in(self, grid: Grid) -> tuple[int, int]:
        """The limits as integers: rounding keeps the order of numbers."""
        low, high = grid.limits
        for ends in self.limits:
            a, b = (int(q) for q in grid.nearest(np.array(ends, np.float32)))
            low, high = min(max(low, a), b), min(max(high, a), b)
        return low, high

    @property
    def parts(self) -> list[str]:
        """The operators that it stands for."""
        return [*self.node.parts, *self.behind]


def bounds_of(graph: Pass, node: Node) -> tuple[float, float] | None:
    """The limits of Relu and of a Clip between constants."""
    if node.op_type == "Relu":
        return 0.0, inf
    if node.op_type != "Clip":
        return None
    ends = []
    for at, (name, usual) in enumerate((("min", -inf), ("max", inf)), 1):
        value: float | None = node.attributes.get(name, usual)
        if node.input(at):
            constant = graph.constants.get(node.input(at))
            value = None if constant is None or constant.size != 1 else float(constant.reshape(-1)[0])
        if value is None:
            return None
        ends.append(value)
    return ends[0], ends[1]


@dataclass(frozen=True)
class Product(Limited):
    """A convolution or a matrix product: exact sums of bytes and a bias."""

    x: Lut
    weight: Weight
    channels: int
    bias: Array | None  # int32
    dense: bool
    transposed: bool = False

    @staticmethod
    def of(graph: Pass, node: Node, x: Lut | None, weight: Weight | None) -> Product | None:
        """Of Conv, Gemm or MatMul with quantised operands."""
        if x is None or x.grid is None or weight is None:
            return None
        found = product_of(node, x, weight)
        if found is None or not node.input(2):
            return found
        given = graph.weights.get(node.input(2))
        if given is not None:
            exact = found.exact_bias(given)
            return found.with_bias(given.real()) if exact is None else exact
        constant = graph.constants.get(node.input(2))
        return None if constant is None else found.with_bias(constant)

    @property
    def scale(self) -> Array:
        """The value of one step of the sums."""
        assert self.x.grid is not None
        return np.asarray(self.x.grid.scale * self.weight.scale, np.float32)

    def exact_bias(self, given: Weight) -> Product | None:
        """With a bias of integers that are steps of the sums already."""
        if given.values.dtype != np.int32 or given.zero.any() or given.values.shape != (self.channels,):
            return None
        if np.any(np.abs(given.scale / self.scale - 1) > SAME_SCALE):
            return None
        return replace(self, bias=given.values)._checked()

    def with_bias(self, value: Array, *, behind: bool = False) -> Product | None:
        """With a constant added, one value a channel, rounded to steps of the sums; `behind`: by an Add."""
        if self.limits or self.bias is not None or value.dtype.kind != "f":
            return None
        rank = 2 if self.dense else self.weight.values.ndim
        if value.size > 1 or value.ndim > rank:
            last = () if self.dense or not behind else (1,) * (rank - 2)
            shape = (self.channels, *last)
            if value.shape[-len(shape) :] != shape or value.size != self.channels:
                return None
        with np.errstate(all="ignore"):
            steps = np.rint(value.astype(np.float64).reshape(-1) / self.scale)
        if not np.all(np.abs(steps) < LARGEST_BIAS):
            return None
        return replace(self, bias=np.broadcast_to(steps.astype(np.int32), self.channels).copy())._checked()

    def normalised(self, factor: Array, shift: Array) -> Product | None:
        """With a factor and a shift a channel, which not all quantisers fold: in the scales of the weight, whose
        integers take the signs, and in the bias."""
        w, signs = self.weight, np.sign(factor).astype(np.int8)
        if self.dense or self.limits or factor.shape != (self.channels,) or not w.along(0):
            return None
        if not (signs.all() and np.isfinite(factor).all() and np.isfinite(shift).all()):
            return None
        bias = shift.astype(np.float64)
        if self.bias is not None:
            bias += self.bias * self.scale.astype(np.float64) * factor
        values, name = w.values, w.name
        if (signs < 0).any():
            if values.dtype != np.int8 or w.zero.any() or (values[signs < 0] == -128).any():
                return None
            values, name = values * signs.reshape(-1, *(1,) * (values.ndim - 1)), ""
        scale = np.asarray(np.abs(factor) * w.scale, np.float32)
        weight = replace(w, name=name, values=values, scale=scale, axis=0)
        return replace(self, weight=weight, bias=None, behind=(*self.behind, "BatchNormalization")).with_bias(bias)

    def _checked(self) -> Product | None:
        """None where a sum may leave int32."""
        w, axis = self.weight, self.weight.axis
        outputs = 0 if not self.dense or self.transposed else 1
        if not np.isfinite(self.scale).all():
            return None
        bias = 0 if self.bias is None else np.abs(self.bias.astype(np.int64))
        if BYTE**2 * w.values.size // w.values.shape[outputs] + int(np.max(bias, initial=0)) < LARGEST_SUM:
            return self  # of so few terms, whatever they are
        shape = [-1 if at == axis else 1 for at in range(w.values.ndim)] if w.zero.size > 1 else ()
        own = np.abs(w.values.astype(np.int32) - w.zero.astype(np.int32).reshape(shape))
        reach = BYTE * own.sum(axis=tuple(at for at in range(own.ndim) if at != outputs), dtype=np.int64) + bias
        return self if int(reach.max(initial=0)) < LARGEST_SUM else None

    # ---- nodes -------------------------------------------------------------------------------------------------------

    def quantise(self, graph: Pass, source: str, grid: Grid, target: str) -> bool:
        with np.errstate(all="ignore"):
            multiplier = self.scale / grid.scale
        if not graph.single(source) or not np.isfinite(multiplier).all():
            return False
        made = Requantise(np.asarray(multiplier, np.float32), grid.zero, *self.range_in(grid), grid.dtype)
        self._add(graph, target, self.parts, requantise=made)
        return True

    def quantise_by_channel(self, graph: Pass, source: str, to: Channelwise, target: str) -> bool:
        """The same to bytes whose channels have scales of their own, if their limits are the same integers."""
        ranges = {self.range_in(to.grid._replace(scale=scale)) for scale in to.scales} if self.limits else set()
        if self.dense or len(to.scales) != self.channels or len(ranges) > 1 or not graph.single(source):
            return False
        with np.errstate(all="ignore"):
            multiplier = self.scale / to.scales
        if not np.isfinite(multiplier).all():
            return False
        low, high = ranges.pop() if ranges else to.grid.limits
        made = Requantise(np.asarray(multiplier, np.float32), to.grid.zero, low, high, to.grid.dtype)
        self._add(graph, target, self.parts, requantise=made)
        return True

    def in_floats(self, graph: Pass, target: str) -> bool:
        """The sums as floats, for who reads them so."""
        self._add(graph, target, list(self.node.parts), requantise=None, scale=self.scale)
        return True

    def _add(self, graph: Pass, target: str, parts: list[str], **made: Any) -> None:
        assert self.x.grid is not None
        name = self.weight.name or graph.constant(f"{target}_weight", self.weight.values)
        bias = "" if self.bias is None else graph.constant(f"{target}_bias", self.bias)
        about = {"x_zero": self.x.grid.zero, "w_zero": self.weight.zero, **made}
        if self.dense:
            graph.add("QDense", [self.x.source, name, bias], target, parts, transposed=self.transposed, **about)
        else:
            about |= {"nearly": graph.nearly, **self.node.attributes}
            graph.add("QConv", [self.x.source, name, bias], target, parts, **about)


def product_of(node: Node, x: Lut, weight: Weight) -> Product | None:
    """A product without its bias; None for what is not done in integers."""
    get, values = node.attributes.get, weight.values
    if values.dtype.name not in ("int8", "uint8") or 0 in values.shape:
        return None
    dense, outputs, transposed = node.op_type not in ("Conv", "QLinearConv"), 0, False
    if dense:
        transposed = node.op_type == "Gemm" and bool(get("transB", 0))
        outputs = 0 if transposed else 1
        plain = not get("transA", 0) and get("alpha", 1.0) == 1.0 and (get("beta", 1.0) == 1.0 or not node.input(2))
        if values.ndim != 2 or (node.op_type == "Gemm" and not plain):
            return None
    elif not 3 <= values.ndim <= 5 or get("padding_mode", "zeros") != "zeros" or get("activation") or get("pool"):
        return None
    if not weight.along(outputs):
        return None
    return Product(node, x, weight, values.shape[outputs], None, dense, transposed)._checked()


def q_linear(graph: Pass, node: Node) -> bool:
    """QLinearConv and QLinearMatMul with constant parameters."""
    names = ("DequantizeLinear", [0, 1, 2]), ("DequantizeLinear", [3, 4, 5]), ("QuantizeLinear", [0, 6, 7])
    x_node, w_node, y_node = (Node(kind, [node.input(at) for at in places], []) for kind, places in names)
    zero = graph.constants.get(node.input(2))
    grid = None if zero is None else constant_grid(graph.constants, x_node, zero.dtype.name)
    own, values = constant_grid(graph.constants, y_node, None), graph.constants.get(node.input(3))
    if own is not None:
        graph.kinds[node.outputs[0]] = own.dtype.name
    if grid is None or own is None or values is None:
        return False
    w_node.attributes["axis"] = 0 if node.op_type == "QLinearConv" else 1
    weight = graph.weight_of(w_node, values)
    if weight is None:
        return False
    found = product_of(node, Lut(node.inputs[0], grid.dtype.name, grid.table(), grid), weight)
    if found is not None and node.input(8):
        bias = graph.constants.get(node.input(8))
        if bias is None or bias.shape != (found.channels,) or bias.dtype != np.int32:
            return False
        found = replace(found, bias=bias)._checked()
    if found is None:
        return False
    graph.uses[node.outputs[0]] = 1  # of its floats, which nobody sees
    return found.quantise(graph, node.outputs[0], own, node.outputs[0])


@dataclass(frozen=True)
class Pair(Limited):
    """An operator on two values."""

    a: Lut
    b: Lut

    def quantise(self, graph: Pass, source: str, grid: Grid, target: str) -> bool:
        if not graph.single(source):
            return False
        low, high = self.range_in(grid)
        (a, own), (b, other) = (_of_the_type(graph, lut, grid.dtype) for lut in (self.a, self.b))
        graph.add(
            "QBinary", [a, b], target, self.parts, does=self.node.op_type, a=own, b=other, grid=grid, low=low, high=high
        )  # fmt: skip
        return True


def _of_the_type(graph: Pass, x: Lut, kind: np.dtype[Any]) -> tuple[str, Grid]:
    """Bytes that stand for the same in the type of the result, 128 higher or lower: operators on bytes are native for
    operands of one type."""
    assert x.grid is not None
    if x.grid.dtype == kind:
        return x.source, x.grid
    grid = Grid(x.grid.scale, x.grid.zero + (128 if kind == np.uint8 else -128), kind)
    return graph.bytes_of(x, grid), grid


@dataclass(frozen=True)
class Mean(Limited):
    """A pooling, or a mean along axes."""

    x: Lut
    attributes: dict[str, Any]

    @staticmethod
    def of(graph: Pass, node: Node, x: Lut) -> Mean | None:
        """None where the axes are not known."""
        attributes = dict(node.attributes)
        if node.op_type == "GlobalAveragePool":
            attributes = {}
        if node.op_type == "ReduceMean":
            axes = graph.constants.get(node.input(1))
            given = attributes.get("axes") if axes is None and not node.input(1) else axes
            if given is None or not len(np.ravel(given)):
                return None
            attributes = {"axes": [int(axis) for axis in np.ravel(given)], "keepdims": attributes.get("keepdims", 1)}
        return Mean(node, x, attributes)

    def quantise(self, graph: Pass, source: str, grid: Grid, target: str) -> bool:
        if not graph.single(source):
            return False
        low, high = self.range_in(grid)
        kind = "QAveragePool" if self.node.op_type == "AveragePool" else "QMean"
        about = {**self.attributes, "x": self.x.grid, "grid": grid, "low": low, "high": high}
        graph.add(kind, [self.x.source], target, self.parts, **about)
        return True


@dataclass(frozen=True)
class Joined(Pending):
    """A Concat of functions of bytes."""

    node: Node
    luts: list[Lut]

    def through(self, graph: Pass, node: Node) -> Pending | None:
        moving = [name for name in node.inputs if name and graph.number(name) is None]
        made = []
        for lut in self.luts:
            table = graph.evaluated(node, {moving[0]: lut.table})
            if table is None:
                return None
            made.append(Lut(lut.source, lut.kind, table, None, [*lut.parts, node.op_type]))
        return Joined(self.node, made)

    def quantise(self, graph: Pass, source: str, grid: Grid, target: str) -> bool:
        self.join(graph, [graph.bytes_of(lut, grid) for lut in self.luts], target)
        return True

    def join(self, graph: Pass, names: list[str], target: str) -> None:
        """The node on bytes."""
        node = self.node
        graph.made.append(Node(
            "Concat", names, [target], dict(node.attributes), node.version, "", node.name, list(node.parts)
        ))  # fmt: skip
