"""From a file or bytes to a `Graph`, or an `OnnxError`: nothing is computed, nothing beyond the file allocated."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from .._core.operands import fresh
from ..errors import ConvTypeError
from ..graph.errors import OnnxError, UnsupportedOperator
from ..graph.graph import CAPTURED, Graph, Node, ValueInfo, in_order
from ..graph.operators import INTERNAL, LATEST_OPSET, find
from ..graph.signature import GRAPH, Signature, signature
from ..graph.tensors import ELEMENT_TYPES, type_name
from . import messages
from .contributed import spelled
from .reading import read_attribute, read_tensor, require_honest

LARGEST_FILE: Final = (1 << 31) - 1  # bytes; Protocol Buffers go no further, larger models keep weights outside


def load(source: Any, own: bool = False) -> Graph:
    """The graph of a model: a path, its bytes, or an `onnx.ModelProto`. `own`: there is no other of it, so that weights
    may be changed where they were read to."""
    model, folder = _parsed(source)
    if model.graph is None:
        raise OnnxError("the model holds no graph: this is no ONNX file, or an empty or damaged one.")
    opsets = _opsets(model)
    if model.functions:
        names = sorted({function.name for function in model.functions})
        raise UnsupportedOperator(
            f"the model defines functions of its own ({', '.join(names[:5])}); inline them with "
            "onnx.inliner.inline_local_functions before loading.", tuple(names),
        )  # fmt: skip
    graph = _graph(model.graph, opsets, folder)
    _require_supported(graph)
    _put_in_order(graph)
    if own:
        graph.own = _weights(graph)
    return graph


def _weights(graph: Graph) -> set[str]:
    """Constants in memory of ours that one convolution reads as its weights, and nothing else."""
    uses = graph.uses()
    weights = (node.input(1) for node in graph.nodes if node.op_type in ("Conv", "ConvTranspose"))
    constants = graph.constants
    return {name for name in weights if uses[name] == 1 and name in constants and constants[name].flags.writeable}


def _parsed(source: Any) -> tuple[messages.Model, Path | None]:
    """The model and the folder of its external data."""
    folder: Path | None = None
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if not path.is_file():
            raise OnnxError(f"{str(path)!r} is no file; pass the path of an .onnx file or its bytes.")
        if path.stat().st_size > LARGEST_FILE:
            raise OnnxError(f"{str(path)!r} is above 2 GiB, which ONNX does not allow; save its weights externally.")
        folder, content = path.parent, _content(path)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        content = memoryview(bytes(source))  # of what changes later a copy
    elif callable(getattr(source, "SerializeToString", None)):  # an onnx.ModelProto, of whichever protobuf
        try:
            content = memoryview(source.SerializeToString())
        except Exception as error:  # of whichever kind it has for what is too large
            raise OnnxError(f"the model cannot be written as bytes ({error}).") from error
    else:
        raise ConvTypeError(
            f"path_or_bytes must be a path, bytes or an onnx.ModelProto, but got a {type(source).__name__}."
        )
    try:
        return messages.read_model(content), folder
    except messages.Damaged as error:
        raise OnnxError(f"this is no ONNX model, or a truncated or damaged one ({error}).") from error


def _content(path: Path) -> memoryview:
    """The bytes of a file, which are ours to change. They lie together: weights stay where they are read to."""
    with path.open("rb", buffering=0) as file:
        content = fresh(path.stat().st_size)
        at = 0
        while got := file.readinto(content[at:]):
            at += got
    return content[:at]


def _opsets(model: messages.Model) -> dict[str, int]:
    """The operator set version of every domain."""
    opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    version = opsets.get("ai.onnx", opsets.get("", 1))
    if not opsets:
        raise OnnxError("the model names no operator set: this is no ONNX file, or a damaged one.")
    if not 1 <= version <= LATEST_OPSET:
        raise OnnxError(
            f"the model uses operator set {version}; fastconv knows 1 to {LATEST_OPSET}. Export it again with an older "
            "opset_version, or convert it with onnx.version_converter."
        )
    return {**opsets, "": version}


def _graph(proto: messages.Graph, opsets: dict[str, int], folder: Path | None, inner: bool = False) -> Graph:
    if proto.sparse_initializer:
        raise OnnxError("the model has sparse initializers, which fastconv does not read; save them dense.")
    constants = {}
    require_honest(proto.initializer, folder)
    for tensor in proto.initializer:
        if not tensor.name or tensor.name in constants:
            raise OnnxError(f"an initializer is nameless or given twice ({tensor.name!r}); the file is damaged.")
        constants[tensor.name] = read_tensor(tensor, folder, f"initializer {tensor.name!r}")
    inputs = [_value_info(value) for value in proto.input]
    # Before IR version 4 every initializer is listed among the inputs too, as a default; ours are constants.
    inputs = [value for value in inputs if value.name not in constants]
    outputs = [_value_info(value) for value in proto.output]
    for group, kind in ((inputs, "inputs"), *(() if inner else ((outputs, "outputs"),))):
        names = [value.name for value in group]
        if len(set(names)) < len(names):
            raise OnnxError(f"the graph declares one of its {kind} twice ({', '.join(names[:8])}).")
    if not outputs:
        raise OnnxError("the graph has no outputs; the file is damaged.")
    nodes = [made for node in proto.node for made in spelled(_node(node, opsets, folder), opsets[""])]
    return Graph(inputs, outputs, constants, nodes, proto.name)


def _put_in_order(graph: Graph, inner: bool = False) -> list[str]:
    """Sort the nodes of a graph and of its bodies; for a body, the names that it reads from the graph around it.

    Those become inputs: of the body, and of its node behind the node's own. `inner` says that it is one.
    """
    known = [*graph.constants, *(value.name for value in graph.inputs)]
    made = {*known, *(output for node in graph.nodes for output in node.outputs)}
    read: dict[str, None] = {}
    for node in graph.nodes:
        inside = list(dict.fromkeys(name for body in node.bodies() for name in _put_in_order(body, True)))
        if inside:
            node.inputs = [*node.inputs, *inside]
            node.attributes[CAPTURED] = inside
        read.update(dict.fromkeys(name for name in node.inputs if name and name not in made))
    read.update(dict.fromkeys(value.name for value in graph.outputs if value.name not in made))
    captured = list(read) if inner else []
    graph.nodes = in_order(graph.nodes, [*known, *captured])
    for value in graph.outputs:
        if value.name not in made and value.name not in captured:
            raise OnnxError(f"nobody makes the output {value.name!r}; the file is damaged.")
    graph.inputs = [*graph.inputs, *(ValueInfo(name, None, "") for name in captured)]
    return captured


def _value_info(proto: messages.Value) -> ValueInfo:
    if not proto.name:
        raise OnnxError("an input or output of the graph has no name; the file is damaged.")
    kind = None if proto.type is None else next(iter(proto.type.given), None)
    if kind not in ("tensor_type", None):
        return ValueInfo(proto.name, None, str(kind).removesuffix("_type"))
    tensor = (proto.type or messages.Type()).tensor_type or messages.TensorType()
    element = tensor.elem_type
    if kind is not None and element and element not in ELEMENT_TYPES:
        raise OnnxError(f"{proto.name!r} has the element type {element}, which is none of ONNX's.")
    if tensor.shape is None:
        return ValueInfo(proto.name, None, type_name(element), element)
    shape: list[int | str | None] = [
        axis.dim_value if axis.dim_param is None else axis.dim_param for axis in tensor.shape.dim
    ]  # fmt: skip
    # Some writers put -1 or 0 for a length that is not known.
    shape = [None if isinstance(size, int) and size < 0 else size for size in shape]
    return ValueInfo(proto.name, shape, type_name(element), element)


def _node(proto: messages.Node, opsets: dict[str, int], folder: Path | None) -> Node:
    domain = "" if proto.domain in ("", "ai.onnx") else proto.domain
    node = Node(
        proto.op_type, list(proto.input), list(proto.output), {}, opsets.get(domain, 1), domain, proto.name
    )  # fmt: skip
    known = signature(node.op_type, node.version, domain)
    if known is not None:
        _require_arguments(node, known)
    for attribute in proto.attribute:
        name = attribute.name
        if name in node.attributes:
            raise OnnxError(f"the {node.label} has its attribute {name!r} twice.")
        node.attributes[name] = read_attribute(attribute, node, known, folder)
        if known is not None and known.attributes[name] == GRAPH:
            if attribute.g is None:
                raise OnnxError(f"the {node.label} has an empty attribute {name!r}; the file is damaged.")
            node.attributes[name] = _graph(attribute.g, opsets, folder, inner=True)
    missing = [] if known is None else [name for name in known.required if name not in node.attributes]
    if missing:
        raise OnnxError(f"the {node.label} lacks its attribute {missing[0]!r}.")
    return node


def _require_arguments(node: Node, known: Signature) -> None:
    """Refuse a node with fewer or more inputs or outputs than its operator has, so that nobody else need look."""
    for kind, names, (least, most) in (("inputs", node.inputs, known.inputs), ("outputs", node.outputs, known.outputs)):
        if not least <= len(names) <= most:
            raise OnnxError(f"the {node.label} has {len(names)} {kind}, but {node.op_type} has {least} to {most}.")
    for index, formal in known.single:
        if not node.input(index):
            raise OnnxError(f"the {node.label} lacks its input {formal!r}.")


def _nodes(graph: Graph) -> Iterator[Node]:
    """The nodes of a graph and of the bodies in it."""
    for node in graph.nodes:
        yield node
        for body in node.bodies():
            yield from _nodes(body)


def _require_supported(graph: Graph) -> None:
    """Refuse operators that there are none of, all at once."""
    absent: dict[str, int] = {}
    for node in _nodes(graph):
        if node.domain == INTERNAL or find(node.domain, node.op_type, node.version) is None:
            spelled = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            absent[spelled] = absent.get(spelled, 0) + 1
    if absent:
        listed = ", ".join(f"{name} ({count} x)" for name, count in sorted(absent.items()))
        raise UnsupportedOperator(
            f"fastconv.onnx does not have the operator(s) {listed}. Simplify the model (for instance with "
            "onnx.compose, onnxsim or an export with constant folding) so that they vanish, cut the graph before them "
            "with onnx.utils.extract_model, or run this model with onnxruntime; docs/onnx.md lists the operators.",
            tuple(sorted(absent)),
        )
