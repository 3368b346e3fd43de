"""Writes fastconv/graph/schemas.txt: what ONNX's schemas say of the operators that fastconv has.

    python tools/schemas.py

Run it with a version of the package onnx that has `LATEST_OPSET`, whenever an operator is added or that number rises;
tests/bridges/test_onnx_messages.py says when it is due.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

import fastconv.graph
import fastconv.onnx  # all operators
from fastconv.graph.operators import LATEST_OPSET, names
from fastconv.graph.signature import NUMBERS, Signature, told


def signature_of(schema: Any) -> Signature:
    """A schema in our words."""
    single = onnx.defs.OpSchema.FormalParameterOption.Single
    return Signature(
        (schema.min_input, schema.max_input), (schema.min_output, schema.max_output),
        tuple((at, str(formal.name)) for at, formal in enumerate(schema.inputs) if formal.option == single),
        {str(name): NUMBERS.get(about.type.name, 0) for name, about in schema.attributes.items()},
        tuple(sorted(str(name) for name, about in schema.attributes.items() if about.required)),
        tuple(_result(schema, str(formal.type_str)) for formal in schema.outputs),
    )  # fmt: skip


def _result(schema: Any, kind: str) -> int | None:
    """Where the type of an output comes from: the first input of the same type variable."""
    sources = [at for at, formal in enumerate(schema.inputs) if formal.type_str == kind]
    if sources:
        return sources[0]
    constraints = (about for about in schema.type_constraints if about.type_param_str == kind)
    return None if any("float" in str(name) for about in constraints for name in about.allowed_type_strs) else -1


def lines() -> list[str]:
    """The file: the operators by name, by age the versions of each in which something is new to us."""
    ours = names()
    schemas = [
        schema for schema in onnx.defs.get_all_schemas_with_history()
        if schema.domain == "" and schema.name in ours and schema.since_version <= LATEST_OPSET
    ]  # fmt: skip
    found, last = [], ("", "")
    for schema in sorted(schemas, key=lambda schema: (schema.name, schema.since_version)):
        line = told(schema.since_version, signature_of(schema))
        if (schema.name, line.split("\t", 1)[1]) != last:
            found.append(f"{schema.name}\t{line}")
        last = (schema.name, line.split("\t", 1)[1])
    return found


if __name__ == "__main__":
    place = Path(fastconv.graph.__file__).with_name("schemas.txt")
    place.write_text("\n".join(lines()) + "\n", encoding="utf-8")
