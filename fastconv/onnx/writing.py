"""A graph as an ONNX model: what `fastconv quantize` writes, for whatever runtime reads it.

Nodes that the rewriting of a graph has made are written as operators of the standard, where there are such.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from ..graph.errors import OnnxError, onnx_package
from ..graph.graph import Graph, Names, Node, ValueInfo
from ..graph.operators import INTERNAL
from ..graph.signature import signature

LEAST_OPSET: Final = 13  # QuantizeLinear and DequantizeLinear have an axis from there on
PRODUCER: Final = "fastconv"


def opset_for(graph: Graph, own: int) -> int:
    """The operator set that a model of a graph must have: that of its file, or that of its youngest operator."""
    return max([LEAST_OPSET, own, *(node.version for node in graph.nodes if node.domain == "")])


def written(graph: Graph, opset: int) -> Any:
    """The graph as an `onnx.ModelProto` of an operator set.

    Raises
    ------
    OnnxError
        For nodes without a form in the standard, and for graphs within nodes (If, Loop, Scan).
    """
    helper = onnx_package().helper
    constants, names = dict(graph.constants), Names(graph)
    nodes = [made for node in graph.nodes for made in _nodes(node, constants, opset, names)]
    named: set[str] = set()
    for node in nodes:
        if node.name in named:  # runtimes refuse two of one name
            node.ClearField("name")
        named.add(node.name)
    read = {name for node in nodes for name in node.input} | {value.name for value in graph.outputs}
    tensors = [_tensor(array, name) for name, array in constants.items() if name in read]
    domains = sorted({node.domain for node in nodes if node.domain})
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    made = helper.make_graph(
        nodes, graph.name or "net", [_declared(value) for value in graph.inputs],
        [_declared(value) for value in graph.outputs], tensors,
    )  # fmt: skip
    least = helper.find_min_ir_version_for(opsets[:1], ignore_unknown=True)
    return helper.make_model(made, producer_name=PRODUCER, opset_imports=opsets, ir_version=max(8, least))


def _tensor(array: Any, name: str = "") -> Any:
    return onnx_package().numpy_helper.from_array(np.ascontiguousarray(array).reshape(np.shape(array)), name)


def _declared(value: ValueInfo) -> Any:
    return onnx_package().helper.make_tensor_value_info(value.name, value.element_type, value.shape)


def _nodes(node: Node, constants: dict[str, Any], opset: int, names: Names) -> list[Any]:
    """A node in operators of the standard."""
    helper = onnx_package().helper
    if any(node.bodies()):
        raise OnnxError(f"the {node.label} has graphs of its own, which fastconv does not write.")
    if node.domain == INTERNAL and node.op_type in APART and not node.attributes:
        return APART[node.op_type](node, constants, names)
    attributes = {name: value for name, value in node.attributes.items() if value is not None}
    domain = node.domain
    if domain == INTERNAL:  # an operator of the standard that others have been put into
        if attributes.get("padding_mode") == "zeros":
            del attributes["padding_mode"]
        known = signature(node.op_type, opset, "")
        if known is None or not attributes.keys() <= known.attributes.keys():
            raise OnnxError(f"the {node.label}, which fastconv made of {'+'.join(node.parts)}, has no form in ONNX.")
        domain = ""
    attributes = {name: _tensor(x) if isinstance(x, np.ndarray) else x for name, x in attributes.items()}
    return [helper.make_node(node.op_type, node.inputs, node.outputs, node.name or None, domain=domain, **attributes)]


def _affine(node: Node, constants: dict[str, Any], names: Names) -> list[Any]:
    """A factor and a shift a channel: a normalisation by a mean of 0 and a variance of 1."""
    x, scale, shift = node.inputs[:3]
    size, target = constants[scale].size, node.outputs[0]
    given = {
        names.fresh(f"{target}_mean"): np.zeros(size, np.float32),
        names.fresh(f"{target}_variance"): np.ones(size, np.float32),
    }
    constants.update(given)
    inputs = [x, scale, shift, *given]
    return [onnx_package().helper.make_node("BatchNormalization", inputs, [target], node.name or None, epsilon=0.0)]


def _silu(node: Node, constants: dict[str, Any], names: Names) -> list[Any]:
    """x times its sigmoid: an operator from set 24 on alone."""
    helper, (x,), (target,) = onnx_package().helper, node.inputs, node.outputs
    made = names.fresh(f"{target}_sigmoid")
    return [helper.make_node("Sigmoid", [x], [made]), helper.make_node("Mul", [x, made], [target])]


APART: Final = {"ChannelAffine": _affine, "Silu": _silu}


def in_opset(source: Any) -> Any:
    """A model (`onnx.ModelProto`) of `LEAST_OPSET` or later, converted where it is older; and its operator set."""
    onnx = onnx_package()
    own = next((int(entry.version) for entry in source.opset_import if entry.domain in ("", "ai.onnx")), 1)
    if own >= LEAST_OPSET:
        return source, own
    try:
        return onnx.version_converter.convert_version(source, LEAST_OPSET), LEAST_OPSET
    except Exception as error:  # whatever the converter does not know
        raise OnnxError(f"the model, of operator set {own}, cannot be converted to {LEAST_OPSET} ({error}).") from error
