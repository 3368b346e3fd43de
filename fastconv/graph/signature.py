"""What an operator takes: the arguments and attributes of ONNX's schemas."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

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


@cache
def signature(op_type: str, version: int, domain: str) -> Signature | None:
    """What ONNX says of an operator as it is in this operator set, of a younger one as it is now; None where it says
    nothing, or we do not have the operator."""
    lines = [] if domain else [line.split("\t", 1) for line in _schemas().get(op_type, ())]  # by age
    if not lines:
        return None
    old = [rest for since, rest in lines if int(since) <= version]
    return _parsed(old[-1] if old else lines[-1][1])


@cache
def _schemas() -> dict[str, list[str]]:
    """By operator the lines of `schemas.txt`: each says from which operator set on it is so. `tools/schemas.py` writes
    them from ONNX's own schemas, which only its package has, and they rarely change."""
    found: dict[str, list[str]] = {}
    for line in Path(__file__).with_name("schemas.txt").read_text(encoding="utf-8").splitlines():
        op_type, _, rest = line.partition("\t")
        found.setdefault(op_type, []).append(rest)
    return found


def told(since: int, known: Signature) -> str:
    """A signature as a line has it behind the operator's name."""
    attributes = (
        f"{name} {kind}{' required' * (name in known.required)}" for name, kind in sorted(known.attributes.items())
    )
    return "\t".join([
        str(since), " ".join(map(str, (*known.inputs, *known.outputs))),
        ",".join(f"{at} {name}" for at, name in known.single), ",".join(attributes),
        " ".join("attributes" if one is None else str(one) for one in known.results),
    ])  # fmt: skip


def _parsed(line: str) -> Signature:
    """What `told` wrote, without the operator set."""
    counts, single, attributes, results = line.split("\t")
    least, most, fewest, top = map(int, counts.split())
    inputs = [one.split(" ") for one in single.split(",") if one]
    parts = [one.split(" ") for one in attributes.split(",") if one]
    return Signature(
        (least, most), (fewest, top), tuple((int(at), name) for at, name in inputs),
        {name: int(kind) for name, kind, *_ in parts}, tuple(name for name, _, *required in parts if required),
        tuple(None if one == "attributes" else int(one) for one in results.split()),
    )  # fmt: skip
