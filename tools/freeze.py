"""What fastconv chooses and which bits it computes, written down before a change of its insides and compared after it.

    python tools/freeze.py write FILE [--problems 20000] [--works 2400] [--isa NAME ...]
    python tools/freeze.py compare BEFORE AFTER

`write` draws problems (the small ones of the tests' generator, the layers of the benchmark, and large ones, where the
fast algorithms pay) and notes for every instruction set of this machine and every use what is chosen, why, the scratch
memory, the packed weights and the multiplications. Then it runs the workload of the reliability board and notes a hash
of the bits of each result. It takes the fastconv that Python imports: run it in either checkout, built in place, with
PYTHONPATH set to it. FILE holds JSON lines, some 45 MB after ten minutes, and belongs outside the tree. `compare` lists
what differs; what one side does not tell (null) is not compared.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import fastconv
from fastconv.bench.layer_sets import SETS
from fastconv.testing.problems import ConvCase, conv_cases

ROOT = Path(__file__).resolve().parents[1]
USES = ("call", "plan", "network", "batch", "input gradient", "weight gradient")
FIELDS = ("algorithm", "reason", "workspace_bytes", "packed_weight_bytes", "multiplications")
CHANNELS = (3, 8, 16, 24, 32, 48, 64, 96, 100, 128, 160, 192, 256, 320, 384, 512, 768, 1024)
SIZES = (4, 5, 7, 8, 13, 14, 16, 20, 28, 32, 56, 57, 112, 224)
MOST_WEIGHTS = 1 << 19  # elements: a plan packs them
SHOWN = 20  # differences of a kind
THREADS = (1, 2, 3, 4, 16)


def chosen(case: ConvCase, use: str, threads: int) -> tuple[Any, ...]:
    """The `FIELDS` of a use, None for one that is not told. All that this script knows of fastconv's insides."""
    from fastconv._core.ask_plans import prepared
    from fastconv._core.problem import Direction, Use, problem
    from fastconv._core.select import FORMER, choose, wish_for_batch
    from fastconv._core.types import Types, result_of

    names = {new: old for old, new in FORMER.items()}

    def named(wish: str) -> str:
        return names.get(wish, wish.partition(":")[0])

    def fields(told: Any) -> tuple[Any, ...]:
        return (named(f"{told.algorithm}:{told.variant}"), *(getattr(told, name) for name in FIELDS[1:]))

    dtype, options = np.dtype(case.dtypes[0]), case.options()
    if use == "call":
        return fields(fastconv.explain_conv2d(
            case.input_shape, case.weight_shape, **options, dtype=dtype, num_threads=threads
        ))  # fmt: skip
    weight = np.zeros(case.weight_shape, dtype)
    if use in ("plan", "network"):
        plan = prepared(Use(use), case.input_shape, weight, **options, num_threads=threads)
        return fields(plan.explain())
    g = prepared(Use.HELD, case.input_shape, weight, **options, algorithm="direct").geometry
    if use == "batch":  # of a training step: 'auto' where it is as in a call
        return (named(wish_for_batch(g, dtype)), None, None, None, None)
    if use == "input gradient" and case.padding_mode != "zeros":  # computed for the padded image and folded
        return (None,) * len(FIELDS)
    made = choose(problem(g, Direction(use), Types(dtype, dtype, result_of(dtype)), Use.ONCE, threads))
    return (named(made.wish), made.reason, None, None, None)


def problems(count: int) -> Iterator[ConvCase]:
    """The layers of the benchmark, then small and large problems in turn."""
    like = conv_cases(1)[0]
    flat = [layer for layers in SETS.values() for layer in layers if not layer.transposed and layer.axes == 2]
    for index, layer in enumerate(flat):
        yield replace(
            like, index=index, batch=layer.batch, in_channels=layer.in_channels, out_channels=layer.out_channels,
            groups=layer.groups, size=layer.input_size, kernel=layer.taps, stride=layer.stride,
            padding=layer.pads, dilation=layer.dilation, padding_mode="zeros", dtypes=(layer.dtype,) * 2,
            data_format=("NHWC", "NCHW")[index % 2],
        )  # fmt: skip
    for index in range(count):
        (case,) = conv_cases(1, index)
        yield _large(case) if index % 3 else case


def _large(case: ConvCase) -> ConvCase:
    """A problem in which layout and types are of `case`, and the rest as in networks."""
    rng = case.rng("large")

    def pick(*values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    while True:
        k = pick(1, 1, 2, 3, 3, 3, 3, 4, 4, 5, 7, 7)
        kernel = (k, k) if rng.random() < 0.85 else (k, pick(1, 3, 5, 7))
        channels, outputs = pick(*CHANNELS), pick(*CHANNELS)
        groups = pick(1, 1, 1, 1, 1, 1, 2, 4, channels)
        stride, dilation = pick(1, 1, 1, 2, 2, (1, 2), 3), pick(1, 1, 1, 1, 2, 3)
        size = pick(*SIZES)
        sizes = (size, size if rng.random() < 0.7 else pick(*SIZES))
        outputs = -(-outputs // groups) * groups
        reach = max(dilation * (side - 1) + 1 for side in kernel)
        weights = outputs * channels // groups * kernel[0] * kernel[1]
        if channels % groups == 0 and weights <= MOST_WEIGHTS and min(sizes) >= reach:
            break
    return replace(
        case, batch=pick(1, 1, 2, 8, 64), in_channels=channels, out_channels=outputs, groups=groups, size=sizes,
        kernel=kernel, stride=stride, dilation=dilation, padding=pick(k // 2, k // 2, 0, 1, "same"),
        padding_mode=case.padding_mode if min(sizes) > 2 * reach and rng.random() < 0.2 else "zeros",
        dtypes=case.dtypes if rng.random() < 0.3 else ("float32", "float32"),
    )  # fmt: skip


# ---- writing -------------------------------------------------------------------------------------------------------


def lines(problem_count: int, works: int) -> Iterator[dict[str, Any]]:
    """What one instruction set gives: a line for each problem, then one for each work."""
    isa = fastconv.info()["isa"]
    for number, case in enumerate(problems(problem_count)):
        uses = {use: _told(case, use, THREADS[number % len(THREADS)]) for use in USES}
        yield {"isa": isa, "problem": number, "what": str(case), "uses": uses}
    sys.path.insert(0, str(ROOT / "tests"))
    from reliability.workload import works as all_works

    with np.errstate(all="ignore"):  # NaN and infinity are among the values
        for number, work in enumerate(all_works(works)):
            yield {"isa": isa, "work": number, "what": str(work), "bits": [_bits(y) for y in work.results()]}


def _told(case: ConvCase, use: str, threads: int) -> list[Any]:
    try:
        return list(chosen(case, use, threads))
    except fastconv.ConvError as error:
        return [f"refused: {error}", *[None] * (len(FIELDS) - 1)]


def _bits(y: Any) -> str:
    """A hash of type, shape and bits; one NaN is as good as another."""
    y = np.ascontiguousarray(y)
    if y.dtype.kind == "f":
        y = np.where(np.isnan(y), np.array(np.nan, y.dtype), y)
    return hashlib.sha256(f"{y.dtype}{y.shape}".encode() + y.tobytes()).hexdigest()[:16]


def write(file: Path, counts: list[str], isas: list[str]) -> int:
    """All instruction sets one after another, each in a process of its own."""
    with file.open("w", encoding="utf-8") as out:
        for isa in isas:
            print(f"{isa} ...", flush=True)
            command = [sys.executable, "-P", __file__, "one", *counts]
            subprocess.run(command, env={**os.environ, "FASTCONV_ISA": isa}, stdout=out, check=True)
    print(f"{file}: {file.stat().st_size / 1e6:.0f} MB")
    return 0


# ---- comparing -----------------------------------------------------------------------------------------------------


def load(file: Path) -> dict[tuple[str, str, Any], dict[str, Any]]:
    """The lines by instruction set and number, works by what they are."""
    content = map(json.loads, file.open(encoding="utf-8"))
    named = {"problem": "problem", "work": "what"}
    return {(one["isa"], kind, one[name]): one for one in content for kind, name in named.items() if kind in one}


def differences(before: dict[str, Any], after: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(kind, what) of everything in which two lines differ."""
    if before["what"] != after["what"]:
        yield "another problem", f"{before['what']}\n    after: {after['what']}"
    elif before.get("bits") != after.get("bits"):
        yield f"bits, {before['isa']}", before["what"]
    for use in set(before.get("uses", ())) & set(after.get("uses", ())):
        for field, old, new in zip(FIELDS, before["uses"][use], after["uses"][use], strict=True):
            if old != new and None not in (old, new):
                yield f"{field}, {use}, {before['isa']}", f"{old!r} -> {new!r}: {before['what']}"


def compare(before: Path, after: Path) -> int:
    """List the differences, a few of each kind; 1 if there are any."""
    old, new = load(before), load(after)
    found: Counter[str] = Counter()
    for key in sorted(old.keys() | new.keys(), key=str):
        if key in old and key in new:
            several = list(differences(old[key], new[key]))
        else:
            several = [("only on one side", f"{key} in {before if key in old else after}")]
        for kind, what in several:
            found[kind] += 1
            if found[kind] <= SHOWN:
                print(f"{kind}: {what}")
    print(f"{len(old.keys() & new.keys())} lines compared", *(f"{n} x {kind}" for kind, n in found.items()), sep="\n")
    return int(bool(found))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("write", "one"):
        command = commands.add_parser(name)
        if name == "write":
            command.add_argument("file", type=Path)
            command.add_argument("--isa", action="append", help="this one alone (default: all of this machine)")
        command.add_argument("--problems", type=int, default=20_000)
        command.add_argument("--works", type=int, default=2_400)
    command = commands.add_parser("compare")
    command.add_argument("before", type=Path)
    command.add_argument("after", type=Path)
    args = parser.parse_args()
    if args.command == "compare":
        return compare(args.before, args.after)
    if args.command == "one":
        for line in lines(args.problems, args.works):
            print(json.dumps(line))
        return 0
    counts = ["--problems", str(args.problems), "--works", str(args.works)]
    return write(args.file, counts, args.isa or list(fastconv.info()["isas_available"]))


if __name__ == "__main__":
    sys.exit(main())
