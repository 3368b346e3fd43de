"""Functions that a file spells out in small operators become one node again, as exporters write them.

HardSwish, SiLU, Mish, GELU in both forms and Softmax; LayerNormalization and RMSNormalization over any axes, with the
factor and the sum behind them, and GroupNormalization as PyTorch writes it. So does the shuffle of joined channels.
"""

from __future__ import annotations

from math import pi, prod, sqrt
from typing import Any, Final, NamedTuple

import numpy as np

from .graph import Node
from .operators import INTERNAL
from .rewriter import Rewriter

CLOSE: Final = 1e-4  # numbers as a file rounds them, relatively
MOST_FACTORS: Final = 6
OPSETS: Final = {"HardSwish": 14, "Mish": 18, "Gelu": 20, "Softmax": 13}  # of the functions, from their first on


def become(
    rewriter: Rewriter, node: Node, op_type: str, inputs: list[str], gone: list[Node], attributes: dict[str, Any]
) -> bool:
    """`node` is a function of these values from now on, and the nodes that it was made of go."""
    unique = list(dict.fromkeys(gone))
    parts = [part for other in (*unique[::-1], node) for part in other.parts]
    node.op_type, node.attributes, node.parts = op_type, attributes, parts
    node.domain = "" if op_type in OPSETS else INTERNAL
    node.version = OPSETS.get(op_type, 1)
    rewriter.rewire(node, inputs)
    rewriter.remove(*unique)
    return True


def close(value: float | None, wanted: float) -> bool:
    """Whether a constant is a number, as a file rounds it."""
    return value is not None and abs(value - wanted) <= CLOSE * abs(wanted)


class Product(NamedTuple):
    """Values that are multiplied with each other and with a number, and the nodes inside that do it."""

    number: float
    names: list[str]
    nodes: list[Node]


def product(rewriter: Rewriter, node: Node) -> Product:
    """What a Mul or Div multiplies, through others whose results nobody else reads."""
    number = 1.0
    names: list[str] = []
    nodes: list[Node] = []
    waiting = [node]
    while waiting:
        one = waiting.pop()
        for at, name in enumerate(one.inputs):
            value, before = rewriter.number(name), rewriter.producer(name, "Mul", "Div")
            if value is not None and (one.op_type == "Mul" or (at and value)):
                number = number / value if one.op_type == "Div" else number * value
            elif (
                before is not None and rewriter.single(name) and _factors(rewriter, before)
                and (one.op_type == "Mul" or not at) and len(nodes) < MOST_FACTORS
            ):  # fmt: skip
                waiting.append(before)
                nodes.append(before)
            else:
                names.append(name)
    return Product(number, names, nodes)


def _factors(rewriter: Rewriter, node: Node) -> bool:
    """Whether a node multiplies values, or divides one by a number."""
    if node.domain or node.version < 7 or len(node.inputs) != 2:
        return False
    return node.op_type == "Mul" or (node.op_type == "Div" and bool(rewriter.number(node.inputs[1])))


def _made_by(rewriter: Rewriter, name: str, *op_types: str) -> Node | None:
    """The node that makes a value which only one other reads."""
    node = rewriter.producer(name, *op_types)
    return node if node is not None and rewriter.single(name) and not node.domain else None


def _plus(rewriter: Rewriter, node: Node | None, number: float) -> str | None:
    """What a node adds a number to."""
    if node is not None and len(node.inputs) == 2:
        for name, other in (node.inputs, node.inputs[::-1]):
            if close(rewriter.number(other), number):
                return name
    return None


# ---- activations -----------------------------------------------------------------------------------------------------


def small_activations(rewriter: Rewriter, node: Node) -> bool:
    """x * Sigmoid(x), x * HardSigmoid(x), x * clip(x + 3, 0, 6) / 6, x * Tanh(Softplus(x))."""
    if node.op_type == "Mul" and len(node.inputs) == 2 and not node.domain:
        for x, gate in (node.inputs, node.inputs[::-1]):
            found = _made_by(rewriter, gate, "Sigmoid", "HardSigmoid", "Tanh")
            if found is None:
                continue
            if found.op_type == "Tanh":
                inner = _made_by(rewriter, found.inputs[0], "Softplus")
                if inner is not None and inner.inputs[0] == x:
                    return become(rewriter, node, "Mish", [x], [found, inner], {})
                continue
            if found.inputs[0] != x:
                continue
            if found.op_type == "HardSigmoid":
                alpha, beta = found.attributes.get("alpha", 0.2), found.attributes.get("beta", 0.5)
                if abs(alpha - 1 / 6) > 1e-6 or beta != 0.5:
                    continue
            return become(rewriter, node, "HardSwish" if found.op_type == "HardSigmoid" else "Silu", [x], [found], {})
    gate_and_six = _sixth(rewriter, node)
    return gate_and_six is not None and become(rewriter, node, "HardSwish", [gate_and_six[0]], gate_and_six[1], {})


def _sixth(rewriter: Rewriter, node: Node) -> tuple[str, list[Node]] | None:
    """The x of (x * clip(x + 3, 0, 6)) / 6 whose last step this is, and the steps before it."""
    factor = rewriter.number(node.input(1))
    wanted = {"Div": 6.0, "Mul": 1 / 6}.get(node.op_type)
    if wanted is None or factor is None or abs(factor - wanted) > 1e-6:
        return None
    found = rewriter.producer(node.inputs[0], "Mul")
    if found is None or not rewriter.single(node.inputs[0]) or len(found.inputs) != 2:
        return None
    for x, gate in (found.inputs, found.inputs[::-1]):
        clip = rewriter.producer(gate, "Clip")
        if clip is None or not rewriter.single(gate) or bounds(rewriter, clip) != (0.0, 6.0):
            continue
        add = rewriter.producer(clip.inputs[0], "Add")
        if add is None or not rewriter.single(clip.inputs[0]):
            continue
        for other, three in (add.inputs, add.inputs[::-1]):
            if other == x and rewriter.number(three) == 3.0:
                return x, [found, clip, add]
    return None


def bounds(rewriter: Rewriter, node: Node) -> tuple[float | None, float | None]:
    """The bounds of a Clip."""
    low, high = node.input(1), node.input(2)
    least = rewriter.number(low) if low else node.attributes.get("min")
    most = rewriter.number(high) if high else node.attributes.get("max")
    return least, most


def gelu(rewriter: Rewriter, node: Node) -> bool:
    """x * (1 + Erf(x / sqrt(2))) / 2, or with Tanh(sqrt(2 / pi) * (x + 0.044715 x³)), multiplied in any order."""
    if node.op_type not in ("Mul", "Div") or not _factors(rewriter, node):
        return False
    whole = product(rewriter, node)
    if not close(whole.number, 0.5) or len(whole.names) != 2:
        return False
    for x, gate in (whole.names, whole.names[::-1]):
        add = _made_by(rewriter, gate, "Add")
        inner = _plus(rewriter, add, 1.0)
        function = None if inner is None else _made_by(rewriter, inner, "Erf", "Tanh")
        if add is None or function is None:
            continue
        argument = _made_by(rewriter, function.inputs[0], "Mul", "Div")
        if argument is None or not _factors(rewriter, argument):
            continue
        of = product(rewriter, argument)
        gone = [*whole.nodes, add, function, argument, *of.nodes]
        if function.op_type == "Erf":
            if of.names == [x] and close(of.number, sqrt(0.5)):
                return become(rewriter, node, "Gelu", [x], gone, {})
        elif close(of.number, sqrt(2 / pi)) and (cubic := _cubic(rewriter, x, of.names)) is not None:
            return become(rewriter, node, "Gelu", [x], [*gone, *cubic], {"approximate": "tanh"})
    return False


def _cubic(rewriter: Rewriter, x: str, names: list[str]) -> list[Node] | None:
    """The nodes of x + 0.044715 x³ or x (1 + 0.044715 x²), of which these are the factors."""
    others = [name for name in names if name != x]
    add = _made_by(rewriter, others[0], "Add") if len(others) == 1 and len(names) <= 2 else None
    if add is None or len(add.inputs) != 2:
        return None
    for power, first in (add.inputs, add.inputs[::-1]):
        if (len(names) == 1 and first != x) or (len(names) == 2 and not close(rewriter.number(first), 1.0)):
            continue
        node = _made_by(rewriter, power, "Mul")
        if node is None or not _factors(rewriter, node):
            continue
        of = product(rewriter, node)
        gone = [add, node, *of.nodes]
        degree = 0.0
        for name in of.names:
            raised = _made_by(rewriter, name, "Pow")
            if name == x:
                degree += 1
            elif raised is not None and raised.inputs[0] == x:
                degree += rewriter.number(raised.inputs[1]) or 0.0
                gone.append(raised)
            else:
                degree = -1
                break
        if degree == 4 - len(names) and close(of.number, 0.044715):
            return gone
    return None


# ---- sums over axes --------------------------------------------------------------------------------------------------


def _axes(rewriter: Rewriter, node: Node) -> list[int] | None:
    """The axes of a reduction that keeps them with length 1."""
    given: Any = node.attributes.get("axes")
    if node.input(1):
        constant = rewriter.constants.get(node.input(1))
        given = None if constant is None else constant.ravel().tolist()
    return [int(axis) for axis in given] if given and node.attributes.get("keepdims", 1) else None


def softmax(rewriter: Rewriter, node: Node) -> bool:
    """Exp(x - ReduceMax(x)) / ReduceSum of the same."""
    if node.op_type != "Div" or node.domain or len(node.inputs) != 2:
        return False
    power = rewriter.producer(node.inputs[0], "Exp")
    total = _made_by(rewriter, node.inputs[1], "ReduceSum")
    if power is None or total is None or total.inputs[0] != node.inputs[0] or rewriter.uses(node.inputs[0]) != 2:
        return False
    apart = _made_by(rewriter, power.inputs[0], "Sub")
    most = None if apart is None else _made_by(rewriter, apart.inputs[1], "ReduceMax")
    if apart is None or most is None or most.inputs[0] != apart.inputs[0]:
        return False
    axes = _axes(rewriter, total)
    if axes is None or len(axes) != 1 or _axes(rewriter, most) != axes:
        return False
    return become(rewriter, node, "Softmax", [apart.inputs[0]], [total, power, apart, most], {"axis": axes[0]})


def standardised(rewriter: Rewriter, node: Node) -> bool:
    """(x - mean) / sqrt(variance + epsilon) with both over the same axes, or x by the root of its mean square."""
    if node.op_type not in ("Div", "Mul") or node.domain or node.version < 7 or len(node.inputs) != 2:
        return False
    for centred, name in (node.inputs, node.inputs[::-1])[: 1 if node.op_type == "Div" else 2]:
        found = _root(rewriter, name, node.op_type == "Mul")
        if found is None:
            continue
        variance, epsilon, gone = found
        axes = _axes(rewriter, variance)
        square = _made_by(rewriter, variance.inputs[0], "Pow", "Mul")
        if axes is None or square is None or not _square(rewriter, square):
            continue
        gone += [variance, square]
        attributes: dict[str, Any] = {"axes": axes, "epsilon": epsilon, "centre": 1}
        centre = _centred(rewriter, centred, square.inputs[0], square.inputs.count(square.inputs[0]), axes)
        if centre is not None:
            return become(rewriter, node, "Standardised", [centre[0]], [*gone, *centre[1]], attributes)
        if square.inputs[0] == centred:
            return become(rewriter, node, "Standardised", [centred], gone, attributes | {"centre": 0})
    return False


def _square(rewriter: Rewriter, node: Node) -> bool:
    if node.op_type == "Mul":
        return len(node.inputs) == 2 and node.inputs[0] == node.inputs[1]
    return rewriter.number(node.input(1)) == 2.0


def _root(rewriter: Rewriter, name: str, inverse: bool) -> tuple[Node, float, list[Node]] | None:
    """The ReduceMean under Sqrt(mean + epsilon), the epsilon, and the nodes; with `inverse` of one over that."""
    gone: list[Node] = []
    if inverse:
        over = _made_by(rewriter, name, "Reciprocal", "Div", "Pow")
        if over is None or (over.op_type == "Div" and rewriter.number(over.inputs[0]) != 1.0):
            return None
        gone.append(over)
        if over.op_type == "Pow":
            if rewriter.number(over.inputs[1]) != -0.5:
                return None
            name = over.inputs[0]
        else:
            name = over.inputs[int(over.op_type == "Div")]
    if not gone or gone[0].op_type != "Pow":
        root = _made_by(rewriter, name, "Sqrt", "Pow")
        if root is None or (root.op_type == "Pow" and rewriter.number(root.inputs[1]) != 0.5):
            return None
        gone.append(root)
        name = root.inputs[0]
    add = _made_by(rewriter, name, "Add")
    if add is None or len(add.inputs) != 2:
        return None
    for inner, small in (add.inputs, add.inputs[::-1]):
        mean, epsilon = _made_by(rewriter, inner, "ReduceMean"), rewriter.number(small)
        if mean is not None and epsilon is not None and epsilon >= 0:
            return mean, epsilon, [*gone, add]
    return None


def _centred(
    rewriter: Rewriter, name: str, squared: str, reads: int, axes: list[int]
) -> tuple[str, list[Node]] | None:
    """The x of x - mean, written once or twice, where nothing else reads it."""
    first, second = rewriter.producer(name, "Sub"), rewriter.producer(squared, "Sub")
    if first is None or second is None or first.inputs != second.inputs or first.domain or second.domain:
        return None
    expected = {name: 1 + reads} if first is second else {name: 1, squared: reads}
    mean = rewriter.producer(first.inputs[1], "ReduceMean")
    if mean is None or mean.inputs[0] != first.inputs[0] or _axes(rewriter, mean) != axes:
        return None
    if any(rewriter.uses(one) != count for one, count in expected.items()):
        return None
    if rewriter.uses(first.inputs[1]) != len(expected):
        return None
    return first.inputs[0], [first, second, mean]


def scaled(rewriter: Rewriter, node: Node) -> bool:
    """A constant that multiplies what is standardised, and one that is added then."""
    at = {"Mul": 1, "Add": 2}.get(node.op_type)
    if at is None or node.domain or node.version < 7 or len(node.inputs) != 2:
        return False
    for x, value in (node.inputs, node.inputs[::-1]):
        before, constant = rewriter.producer(x, "Standardised", "Grouped"), rewriter.constants.get(value)
        if before is None or constant is None or not rewriter.single(x) or before.input(2) or before.input(at):
            continue
        if constant.size == 1 or (before.op_type == "Grouped" and not _per_channel(constant)):
            continue
        inputs = [before.inputs[0], before.input(1) if at == 2 else value, value if at == 2 else ""]
        rewriter.absorb(before, node, node.outputs, inputs)
        return True
    return False


def _per_channel(constant: Any) -> bool:
    """(C, 1, 1) or (1, C, 1, 1), and the like."""
    sizes = constant.shape[1:] if constant.ndim > 1 and constant.shape[0] == 1 else constant.shape
    return len(sizes) > 1 and prod(sizes[1:]) == 1


def grouped(rewriter: Rewriter, node: Node) -> bool:
    """Reshape to (batch, groups, -1), InstanceNormalization without a factor, and Reshape back to the shape before."""
    if node.op_type != "Reshape" or node.domain:
        return False
    inner = _made_by(rewriter, node.inputs[0], "InstanceNormalization")
    before = None if inner is None else _made_by(rewriter, inner.inputs[0], "Reshape")
    if inner is None or before is None:
        return False
    sizes, scale, shift = (rewriter.constants.get(name) for name in (before.inputs[1], *inner.inputs[1:]))
    back, given = rewriter.producer(node.inputs[1], "Shape"), rewriter.constants.get(node.inputs[1])
    if given is None and (back is None or back.inputs[0] != before.inputs[0] or {"start", "end"} & {*back.attributes}):
        return False
    if sizes is None or scale is None or shift is None or sizes.tolist() != [0, scale.size, -1]:
        return False
    if before.attributes.get("allowzero") or np.any(scale != 1) or np.any(shift != 0):
        return False
    attributes: dict[str, Any] = {"num_groups": scale.size, "epsilon": inner.attributes.get("epsilon", 1e-5)}
    if given is not None:
        attributes["shape"] = given.ravel().tolist()  # nearly always that of x; the run looks
    return become(rewriter, node, "Grouped", [before.inputs[0]], [inner, before], attributes)


# ---- moves -----------------------------------------------------------------------------------------------------------


def interleaved(rewriter: Rewriter, node: Node) -> bool:
    """Two values joined along the channels, whose halves then take turns: ShuffleNet's shuffle, in one pass."""
    if node.op_type != "Reshape" or node.domain:
        return False
    turned = _made_by(rewriter, node.inputs[0], "Transpose")
    before = None if turned is None else _made_by(rewriter, turned.inputs[0], "Reshape")
    joined = None if before is None else _made_by(rewriter, before.inputs[0], "Concat")
    if turned is None or before is None or joined is None or turned.attributes.get("perm") != [0, 2, 1, 3, 4]:
        return False
    if len(joined.inputs) != 2 or joined.attributes.get("axis") not in (1, -3):
        return False
    grouped, shape = _sizes(rewriter, before), _sizes(rewriter, node)
    if grouped is None or shape is None or len(grouped) != 5 or len(shape) != 4 or grouped[1] != 2:
        return False
    attributes = {"grouped": grouped, "shape": shape}
    return become(rewriter, node, "Interleave", list(joined.inputs), [turned, before, joined], attributes)


def _sizes(rewriter: Rewriter, reshape: Node) -> list[int] | None:
    """The new shape of a Reshape, all of it numbers but perhaps the batch."""
    given = rewriter.constants.get(reshape.input(1))
    sizes = None if given is None else [int(size) for size in given.ravel()]
    return sizes if sizes and min(sizes[1:], default=0) > 0 and (sizes[0] > 0 or sizes[0] == -1) else None


RULES: Final = (small_activations, gelu, softmax, standardised, grouped, scaled)
