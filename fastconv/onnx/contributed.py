"""Quantised operators of ONNX Runtime's own domain, as its quantiser writes them: spelled out in the standard's.

QLinearAdd and its like are DequantizeLinear of the inputs, the operator, QuantizeLinear of the result; that is what
their definitions say, and what `fastconv.graph.integers` makes operators on bytes of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from ..graph.graph import Node

DOMAIN: Final = "com.microsoft"
DEQUANTISED_SINCE: Final = 13  # DequantizeLinear with an axis


class _Spelled:
    """A node taken apart: the nodes that stand for it."""

    def __init__(self, node: Node, version: int) -> None:
        self.node, self.version = node, version
        self.made: list[Node] = []

    def add(self, op_type: str, inputs: list[str], output: str, version: int = 0, **attributes: Any) -> str:
        node = self.node
        self.made.append(Node(op_type, inputs, [output], attributes, version or self.version, "", node.name))
        return output

    def value(self, part: str) -> str:
        """A name for a value between the nodes."""
        return f"{self.node.outputs[0]}/{self.node.op_type}/{part}"

    def real(self, at: int, **attributes: Any) -> str:
        """Inputs number `at` to at + 2, bytes with their scale and zero point, as floats."""
        inputs = [self.node.input(place) for place in range(at, at + 3)]
        return self.add(
            "DequantizeLinear", inputs, self.value(f"real{at}"), max(self.version, DEQUANTISED_SINCE), **attributes
        )

    def result(self, source: str, at: int) -> None:
        """QuantizeLinear with the scale and zero point that are inputs number `at` and at + 1."""
        given = [source, self.node.input(at), self.node.input(at + 1)]
        self.add("QuantizeLinear", given, self.node.outputs[0], max(self.version, DEQUANTISED_SINCE))


def _unary(op_type: str, *kept: str) -> Callable[[_Spelled], None]:
    """(x, scale, zero, scale, zero), with the attributes that are `kept`."""

    def spell(s: _Spelled) -> None:
        attributes = {name: value for name, value in s.node.attributes.items() if name in kept}
        version = int(s.node.attributes.get("opset", 0))
        s.result(s.add(op_type, [s.real(0)], s.value("result"), version, **attributes), 3)

    return spell


def _binary(op_type: str) -> Callable[[_Spelled], None]:
    """(a, scale, zero, b, scale, zero, scale, zero)."""
    return lambda s: s.result(s.add(op_type, [s.real(0), s.real(3)], s.value("result")), 6)


def _concat(s: _Spelled) -> None:
    """(scale, zero, then x, scale, zero of each)."""
    parts = [s.real(at) for at in range(2, len(s.node.inputs) - 2, 3)]
    s.result(s.add("Concat", parts, s.value("result"), axis=s.node.attributes.get("axis", 0)), 0)


def _gemm(s: _Spelled) -> None:
    """(a, scale, zero, b, scale, zero, c, scale, zero): c is in steps of both scales and alpha; no last scale means
    floats."""
    get = s.node.attributes.get
    inputs = [s.real(0), s.real(3, axis=0 if get("transB", 0) else 1)]
    if s.node.input(6):
        step = s.add("Mul", [s.node.inputs[1], s.node.inputs[4]], s.value("step"))
        bias = s.value("bias")
        inputs.append(s.add("DequantizeLinear", [s.node.inputs[6], step], bias, DEQUANTISED_SINCE, axis=0))
    kept: dict[str, Any] = {name: s.node.attributes[name] for name in ("transA", "transB") if name in s.node.attributes}
    kept |= {name: get("alpha", 1.0) for name in ("alpha", "beta")}
    if not s.node.input(7):
        s.add("Gemm", inputs, s.node.outputs[0], **kept)
        return
    s.result(s.add("Gemm", inputs, s.value("result"), **kept), 7)


WINDOW: Final = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")
SPELLED: Final[dict[str, Callable[[_Spelled], None]]] = {
    "QLinearAdd": _binary("Add"), "QLinearMul": _binary("Mul"), "QLinearSigmoid": _unary("Sigmoid"),
    "QLinearLeakyRelu": _unary("LeakyRelu", "alpha"), "QLinearSoftmax": _unary("Softmax", "axis"),
    "QLinearGlobalAveragePool": _unary("GlobalAveragePool"), "QLinearAveragePool": _unary("AveragePool", *WINDOW),
    "QLinearReduceMean": _unary("ReduceMean", "axes", "keepdims"), "QLinearConcat": _concat, "QGemm": _gemm,
}  # fmt: skip
LEAST_INPUTS: Final = {"QLinearConcat": 5, "QGemm": 6, "QLinearAdd": 7, "QLinearMul": 7}


def spelled(node: Node, version: int) -> Iterator[Node]:
    """The nodes that stand for this one; itself where it is none of ours. `version` is the standard's operator set."""
    own = node.domain == DOMAIN
    if own and node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        node.domain, node.version = "", max(version, DEQUANTISED_SINCE)
    spell = SPELLED.get(node.op_type)
    enough = len(node.inputs) >= LEAST_INPUTS.get(node.op_type, 4) and node.outputs[:1] not in ([], [""])
    if not own or spell is None or not enough or node.attributes.get("channels_last"):
        yield node
        return
    made = _Spelled(node, version)
    spell(made)
    yield from made.made
