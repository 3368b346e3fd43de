"""What an operator takes: the arguments and attributes of ONNX's schemas, and attributes read by them.

An attribute that the operator does not have, or one of another type than it has, is refused by name: what is passed
over would be computed as if it were not there.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from .errors import OnnxError, onnx_package
from .graph import Node
from .tensors import read_tensor

# AttributeProto.AttributeType: (name, field of the value).
KINDS: Final[dict[int, tuple[str, str]]] = {
    1: ("FLOAT", "f"), 2: ("INT", "i"), 3: ("STRING", "s"), 4: ("TENSOR", "t"), 5: ("GRAPH", "g"),
    6: ("FLOATS", "floats"), 7: ("INTS", "ints"), 8: ("STRINGS", "strings"), 9: ("TENSORS", "tensors"),
    10: ("GRAPHS", "graphs"), 11: ("SPARSE_TENSOR", "sparse_tensor"), 12: ("SPARSE_TENSORS", "sparse_tensors"),
    13: ("TYPE_PROTO", "tp"), 14: ("TYPE_PROTOS", "type_protos"),
}  # fmt: skip
NUMBERS: Final = {name: number for number, (name, _) in KINDS.items()}
GRAPH: Final = 5
FIELDS: Final = {field: name for name, field in KINDS.values()}


class Signature(NamedTuple):
    """How many inputs and outputs, at least and at most; inputs that must be there; attributes by name."""

    inputs: tuple[int, int]
    outputs: tuple[int, int]
    single: tuple[tuple[int, str], ...]
    attributes: dict[str, int]
    required: tuple[str, ...]
    results: tuple[int | None, ...]

    def result(self, index: int) -> int | None:
        """The input whose type an output has, -1 for a type that is no float's, None where attributes decide."""
        return self.results[min(index, len(self.results) - 1)]


@lru_cache(maxsize=1024)
def signature(op_type: str, version: int, domain: str) -> Signature | None:
    """What the package `onnx` knows of an operator as it is in this operator set; None where it knows nothing."""
    defs = onnx_package().defs
    if not defs.has(op_type, domain):
        return None
    try:
        schema = defs.get_schema(op_type, version, domain)
    except defs.SchemaError:  # younger than the model's operator set
        schema = defs.get_schema(op_type, domain)
    single = defs.OpSchema.FormalParameterOption.Single
    return Signature(
        (schema.min_input, schema.max_input), (schema.min_output, schema.max_output),
        tuple((at, str(formal.name)) for at, formal in enumerate(schema.inputs) if formal.option == single),
        {str(name): NUMBERS.get(about.type.name, 0) for name, about in schema.attributes.items()},
        tuple(str(name) for name, about in schema.attributes.items() if about.required),
        tuple(_result(schema, str(formal.type_str)) for formal in schema.outputs),
    )  # fmt: skip


def _result(schema: Any, kind: str) -> int | None:
    """Where the type of an output comes from: the first input of the same type variable."""
    sources = [at for at, formal in enumerate(schema.inputs) if formal.type_str == kind]
    if sources:
        return sources[0]
    constraints = (about for about in schema.type_constraints if about.type_param_str == kind)
    return None if any("float" in str(name) for about in constraints for name in about.allowed_type_strs) else -1


def read_attribute(proto: Any, node: Node, known: Signature | None, folder: Path | None) -> Any:
    """The value of an attribute; None for graphs, which `loading` reads, types and sparse tensors."""
    name, kind = str(proto.name), int(proto.type)
    if known is not None:
        if name not in known.attributes:
            has = f"it has {', '.join(sorted(known.attributes))}" if known.attributes else "it has none"
            raise OnnxError(f"the {node.label} has an attribute {name!r}, which {node.op_type} does not have; {has}.")
        wanted = known.attributes[name]
        kind = kind or wanted  # files of the first version do not say
        if kind != wanted:
            raise _mistyped(node, name, *(KINDS.get(one, (str(one), ""))[0] for one in (kind, wanted)))
    if proto.ref_attr_name:
        raise OnnxError(f"the {node.label} takes {name!r} from a function that is not there.")
    if kind not in KINDS:
        raise OnnxError(f"the {node.label} has an attribute {name!r} of no type; the file is damaged.")
    for field, _ in proto.ListFields():
        if FIELDS.get(field.name, KINDS[kind][0]) != KINDS[kind][0]:
            raise _mistyped(node, name, FIELDS[field.name], KINDS[kind][0])
    return _value(proto, KINDS[kind][0], f"attribute {name!r} of the {node.label}", folder)


def _mistyped(node: Node, name: str, got: str, wanted: str) -> OnnxError:
    return OnnxError(f"the {node.label} has an attribute {name!r} of type {got}; it must be {wanted}.")


def _value(proto: Any, kind: str, what: str, folder: Path | None) -> Any:
    if kind == "INT":
        return int(proto.i)
    if kind == "INTS":
        return [int(number) for number in proto.ints]
    if kind == "FLOAT":
        return float(proto.f)
    if kind == "FLOATS":
        return [float(number) for number in proto.floats]
    if kind == "STRING":
        return proto.s.decode("utf-8", "replace")
    if kind == "STRINGS":
        return [text.decode("utf-8", "replace") for text in proto.strings]
    return read_tensor(proto.t, folder, what) if kind == "TENSOR" else None
