"""Write docs/performance.md and its picture from the results files: python bench/make_page.py [RESULTS_FOLDER [PAGE]].

Without arguments it writes the table in README.md, too. The files are RESULTS_FOLDER/MACHINE/SET.jsonl: the page names
them so, and opens with the machine that has most rows.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

from fastconv.bench.cases import NET, TRAIN
from fastconv.bench.report import (
    Report,
    Row,
    Summary,
    group_lines,
    groups,
    heading_lines,
    layer_table,
    memory_lines,
    read,
    summaries,
    summary_table,
    times_text,
    title,
)
from fastconv.bench.zoo_report import half_lines, zoo_tables
from fastconv.bench.zoo_rows import SET as ZOO

HERE: Final = Path(__file__).resolve().parent
PAGE, README = HERE.parent / "docs" / "performance.md", HERE.parent / "README.md"
Machine = dict[str, list[Report]]  # the runs of each set

SETS: Final = {
    "vgg16": "VGG-16's layers",
    "resnet50": "ResNet-50's layers",
    "mobilenet": "MobileNets' layers",
    "misc": "other kinds of layers",
    "nets": "whole networks",
    "nets-onnx": "networks from ONNX files",
    "zoo": "nets of different makes",
    "accelerated": "PyTorch models, accelerated",
}
FORWARD: Final = ("fwd", NET)
COLUMNS: Final = (  # heading, passes, the peer that is compared with (None: the best)
    ("forward, × best peer", FORWARD, None),
    ("forward, × PyTorch", FORWARD, "torch"),
    ("input gradient, × PyTorch", ("dx",), "torch"),
    ("weight gradient, × PyTorch", ("dw",), "torch"),
    ("training step, × PyTorch", (TRAIN,), "torch"),
)
SHORT: Final = {
    "fwd": "forward", "dx": "input gradient", "dw": "weight gradient", NET: "inference", TRAIN: "training",
}  # fmt: skip

OPENING: Final = """\
How many times as fast as others fastconv is on `{name}` ({cpu}, {threads} threads, measured {date}):
geometric means over the layers or networks of a set; above 1 it is the faster one. The best peer is, layer by layer,
the fastest of those that were timed, which each table names; gradients and training steps are compared with PyTorch
alone. Of the sets of other nets, from audio to yolo, every second layer is held out: it is not looked at while
constants are chosen (27×27 512 @14 once was, by mistake)."""

# The table of the README: rows by file and pass, with the number of layers or nets; columns by peer.
README_ROWS: Final = (
    ("{} nets of different makes, from ONNX files", "zoo", NET),
    ("VGG-16 and ResNet-50", "nets", NET),
    ("VGG-16's {} layers of 3×3 behind the first", "vgg16", "fwd"),
    ("ResNet-50's {} layers", "resnet50", "fwd"),
    ("MobileNets' {} layers", "mobilenet", "fwd"),
    ("a training step of {} small nets", "nets", TRAIN),
)
PEERS: Final = (
    ("PyTorch", "torch"), ("ONNX Runtime", "onnxruntime"), ("OpenVINO", "openvino"), ("ncnn", "ncnn"),
    ("LiteRT", "litert"),
)  # fmt: skip
README_OPENING: Final = """\
How many times as fast as others, on two threads of `{name}`; above 1 fastconv is the faster one, – is not
measured. Geometric means of ratios of medians; every answer was checked."""
BEGIN, END = "<!-- written by bench/make_page.py -->", "<!-- end of the table -->"

PICTURE: Final = """\
The same beside the best peer, on the two machines with most results. The whole bar is the mean, the part of it in full
colour the layer that is furthest behind; at the dashed line both are equally fast."""

METHOD: Final = """\
Every number on this page was produced by `python -m fastconv bench` and is read from a file in `bench/results/` by
`bench/make_page.py`; none was written by hand.

- Each candidate's answer is first compared with `fastconv.reference` in float64; one whose largest error exceeds 1e-3
  of the largest magnitude (1e-9 in float64) is shown as wrong and not counted.
- All candidates run in one process, in turns whose order rotates from round to round. A turn begins when no thread of
  the process spins any more, makes one call that is dropped, because it wakes the candidate's own threads and warms
  its memory, and then several calls that are timed. So nobody suffers from another's thread pool, and nobody's own
  pool is told not to spin.
- Times are medians; ratios are ratios of medians of the same run. GFLOP/s count two operations for each multiply-add
  of *direct* convolution, whatever the algorithm does: Winograd may pass the FMA peak, and so may whoever skips the
  padding of small maps. The peak is measured in the same run.
- PyTorch runs in both memory formats in inference mode, its gradients through `aten::convolution_backward` with only
  the wanted gradient asked for; ONNX Runtime and OpenVINO on models of one layer with constant weights and buffers
  bound beforehand, OpenVINO in both memory formats; ncnn on plain arrays and on its own packed format. The better
  variant counts. Each library has its arrays in its own memory format before the clock starts.
- "fwd" is a prepared plan with `out=`, "eager" the plain function call with a fresh result, "dx" and "dw" the gradients
  with respect to input and weights.
- Whole networks run with equal weights everywhere, held to our layers' plain forward pass, from images to
  probabilities; a training step is forward, backward and SGD with momentum, its first losses compared before the
  timing, and counts as three forward passes.
- Nets of different makes run from ONNX files, every library in a process of its own: the processes take turns of a
  tenth of a second, and the next one begins when the threads of the last one sleep. ONNX Runtime without optimisations
  says what is right. PyTorch runs modules made from the file, plain and compiled; ncnn and LiteRT files written from
  it. Loading is from the library's own file to a session, memory the highest of the process from there to the end of
  the first run. Nets that are *held out* are only reported: no constant was chosen by looking at them
  (`fastconv/bench/zoo/catalogue.py` has the rule).
- Where none of the libraries computes a layer, the best peer is im2col + BLAS, which is NumPy alone."""


def load(folder: Path) -> dict[str, Machine]:
    """The runs by machine and set, the machine with most rows first."""
    machines: dict[str, Machine] = {}
    for path in sorted(folder.glob("*/*.jsonl"), key=lambda path: (path.parent.name, _place(path.stem))):
        machines.setdefault(path.parent.name, {})[path.stem] = read(path)
    return dict(sorted(machines.items(), key=lambda item: -sum(len(r.rows) for rs in item[1].values() for r in rs)))


def _place(stem: str) -> tuple[int, str]:
    return (list(SETS).index(stem) if stem in SETS else len(SETS), stem)


def whole_sets(machine: Machine) -> dict[tuple[str, str], Summary]:
    """The means over all layers by file and pass, of all runs in a file: halves of a set may have one each."""
    found: dict[tuple[str, str], Summary] = {}
    for stem, reports in machine.items():
        rows = {(row.layer, row.pass_name): row for report in reports for row in report.rows}
        found.update({(stem, mean.pass_name): mean for mean in summaries(list(rows.values())) if mean.family is None})
    return found


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    ruler = ["---", *["---:"] * (len(lines[0]) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], ruler, *lines[1:]])


def readme_table(machines: dict[str, Machine]) -> str:
    """The first screen of the README: on the first machine, how many times as fast as each of the others."""
    name, machine = next(iter(machines.items()))
    means = whole_sets(machine)
    lines = [["", *(heading for heading, _ in PEERS)]]
    for words, stem, pass_name in README_ROWS:
        if mean := means.get((stem, pass_name)):
            ratios = [times_text(mean.over.get(peer, math.nan)) for _, peer in PEERS]
            lines.append([words.format(mean.layers), *ratios])
    return "\n\n".join([README_OPENING.format(name=name), markdown_table(lines)])


def with_table(text: str, machines: dict[str, Machine]) -> str:
    """The README with the table as the results have it."""
    before, _, rest = text.partition(BEGIN)
    _, end, behind = rest.partition(END)
    if not end:
        raise SystemExit(f"README.md has no lines {BEGIN!r} and {END!r} around its table")
    return f"{before}{BEGIN}\n{readme_table(machines)}\n{end}{behind}"


def opening_table(machine: Machine) -> str:
    """A line for each set, a column for each pass."""
    means = whole_sets(machine)
    lines = [["", *(heading for heading, _, _ in COLUMNS)]]
    for stem in machine:
        cells = []
        for _, passes, peer in COLUMNS:
            found = [means[stem, one] for one in passes if (stem, one) in means]
            cells += [times_text(m.over.get(peer, math.nan) if peer else m.over_best) for m in found] or ["–"]
        lines.append([SETS.get(stem, stem), *cells])
    return markdown_table(lines)


def opening(name: str, machine: Machine) -> str:
    """What the table shows, and where it was measured last."""
    newest = _newest(machine)
    return OPENING.format(name=name, cpu=newest.machine["cpu"], threads=newest.threads, date=_dates(machine))


def _dates(machine: Machine) -> str:
    """Of the first and the last run."""
    dates = sorted({report.date[:10] for some in machine.values() for report in some})
    return dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"


def _newest(machine: Machine) -> Report:
    return max((report for some in machine.values() for report in some), key=lambda report: report.date)


# ---- the folds -----------------------------------------------------------------------------------------------------


def fold(summary: str, parts: Sequence[str], name: str = "") -> str:
    """What opens at a click, on GitHub and in the built pages alike; headings are not allowed within."""
    opened = f'<details id="{name}">' if name else "<details>"
    return "\n\n".join([f"{opened}\n<summary>{escape(summary)}</summary>", *filter(None, parts), "</details>"])


def group_fold(name: str, report: Report, set_name: str, pass_name: str, rows: list[Row]) -> str:
    """One set in one pass, below its means."""
    means = [f"{times_text(m.over_best)} the best peer" for m in summaries(rows)[:1] if math.isfinite(m.over_best)]
    means += [f"{times_text(ratio)} {peer}" for m in summaries(rows)[:1] for peer, ratio in m.over.items()]
    return fold(
        ": ".join(filter(None, [title(set_name, pass_name), ", ".join(means)])),
        [
            "\n".join(f"- {line}" for line in heading_lines(report)),
            "Geometric means of the ratios (how many times faster fastconv is):", markdown_table(summary_table(rows)),
            *(zoo_parts(rows) if set_name == ZOO else [markdown_table(layer_table(rows)), *group_lines(rows)]),
            *(memory_lines(report) if pass_name == NET else []),
        ],
        f"{name}-{pass_name}",
    )  # fmt: skip


def zoo_parts(rows: list[Row]) -> list[str]:
    """What is said of whole nets: times, what loading takes, memory, times beside busy processes."""
    parts = []
    for heading, table in zoo_tables(rows):
        parts += [f"{heading[0].upper()}{heading[1:]}:", markdown_table(table)]
    return [*parts, *half_lines(rows)]


def page(machines: dict[str, Machine], picture: str) -> str:
    """The documentation's page."""
    first = next(iter(machines))
    parts = ["# Performance", opening(first, machines[first]), opening_table(machines[first]), PICTURE]
    parts += [f"![Bars, for each set and pass: how many times as fast as the best peer fastconv is]({picture})"]
    parts += [fold("How it was measured", [METHOD])]
    for name, machine in machines.items():
        parts += [f"## {name}", opening_table(machine) if name != first else ""]
        parts += [
            group_fold(f"{name}-{stem}", report, *group)
            for stem, reports in machine.items() for report in reports for group in groups(report.rows)
        ]  # fmt: skip
    return "\n\n".join(filter(None, parts)) + "\n"


# ---- the picture ---------------------------------------------------------------------------------------------------

WIDTH, LEFT, TOP, STEP, BAR = 760, 290, 58, 27, 10  # pixels; the bars begin at LEFT
COLOURS: Final = ("#0072B2", "#E69F00")  # Okabe and Ito's: told apart with any kind of colour vision
GREY: Final = "#6f7682"  # read on white and on black


def svg_text(x: float, y: float, words: str, anchor: str = "start", size: int = 13) -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" font-family="sans-serif" font-size="{size}" '
        f'fill="{GREY}">{escape(words)}</text>'
    )


def svg_bar(y: float, colour: str, mean: Summary, scale: float) -> str:
    """To the mean, dark up to the least, with the figure behind it."""
    box = f'<rect x="{LEFT}" y="{y:.0f}" height="{BAR}" fill="{colour}"'
    return (
        f'{box} width="{mean.over_best * scale:.1f}" fill-opacity="0.45"/>{box} width="{mean.least * scale:.1f}"/>'
        + svg_text(LEFT + mean.over_best * scale + 5, y + BAR - 1, times_text(mean.over_best), size=11)
    )


def picture(machines: dict[str, Machine]) -> str:
    """Bars of the first two machines, one beside the other for each set and pass."""
    means = {
        name: {key: m for key, m in whole_sets(machine).items() if key[1] in SHORT and math.isfinite(m.over_best)}
        for name, machine in list(machines.items())[: len(COLOURS)]
    }
    keys = {key for found in means.values() for key in found}
    scale = (WIDTH - LEFT - 50) / max((m.over_best for found in means.values() for m in found.values()), default=1.0)
    height = TOP + STEP * len(keys) + 8
    parts = [svg_text(LEFT + 18 + 190 * i, 18, name) for i, name in enumerate(means)]
    parts += [f'<rect x="{LEFT + 190 * i}" y="8" width="12" height="12" fill="{c}"/>' for i, c in enumerate(COLOURS)]
    for place, (stem, pass_name) in enumerate(sorted(keys, key=lambda k: (_place(k[0]), list(SHORT).index(k[1])))):
        y = TOP + STEP * place
        parts.append(svg_text(LEFT - 10, y + BAR + 4, f"{SETS.get(stem, stem)}, {SHORT[pass_name]}", "end"))
        parts += [
            svg_bar(y + (BAR + 1) * i, colour, found[stem, pass_name], scale)
            for i, (colour, found) in enumerate(zip(COLOURS, means.values(), strict=False))
            if (stem, pass_name) in found
        ]
    parts.append(
        f'<path d="M{LEFT + scale:.1f} {TOP - 8} V{height - 4}" stroke="{GREY}" stroke-dasharray="4 3"/>'
        + svg_text(LEFT + scale, TOP - 14, "as fast as the best peer", "middle", 11)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">\n'
        + "\n".join(parts) + "\n</svg>\n"
    )  # fmt: skip


def main(folder: Path = HERE / "results", target: Path = PAGE) -> int:
    machines = load(folder)
    if not machines:
        print(f"no results in {folder}; make some: python -m fastconv bench --json {folder}/MACHINE/SET.jsonl")
        return 1
    drawn = target.with_suffix(".svg")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(machines, drawn.name), encoding="utf-8")
    drawn.write_text(picture(machines), encoding="utf-8")
    if target == PAGE:
        README.write_text(with_table(README.read_text(encoding="utf-8"), machines), encoding="utf-8")
    print(f"{target} and {drawn.name}: {sum(map(len, machines.values()))} results files")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*map(Path, sys.argv[1:])))
