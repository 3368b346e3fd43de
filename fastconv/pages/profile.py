"""The page of a profile: a net as a chain of steps on one machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from ..graph.summary import Profile, StepTime
from .charts import SERIES, Bar, Dot, Roof, picture, roofline, timeline
from .document import (
    DASH,
    Column,
    amount,
    bar,
    cards,
    chip,
    document,
    milliseconds,
    paragraph,
    section,
    share,
    size,
    table,
    text,
)

COLOURS: Final = tuple(SERIES)
OTHERS: Final = COLOURS[-1]


@dataclass(frozen=True)
class About:
    """What a page says of a profile besides it: the model, its inputs, the machine in words, and what it can do."""

    title: str
    inputs: dict[str, tuple[int, ...]]
    machine: str
    date: str
    roof: Roof


@dataclass(frozen=True)
class _Line:
    """A step with what follows from it."""

    number: int
    step: StepTime
    begin: float  # seconds
    whole: float  # seconds of all steps
    roof: Roof
    kind: str
    colour: str

    @property
    def share(self) -> float:
        return self.step.seconds / self.whole if self.whole else math.nan

    @property
    def gflops(self) -> float:
        return 2e-9 * self.step.macs / self.step.seconds if self.step.macs and self.step.seconds else math.nan

    @property
    def of_peak(self) -> float:
        return self.gflops / self.roof.gflops if self.roof.gflops else math.nan

    @property
    def gbytes(self) -> float:
        return 1e-9 * self.step.moved_bytes / self.step.seconds if self.step.seconds else math.nan

    @property
    def intensity(self) -> float:
        return 2 * self.step.macs / self.step.moved_bytes if self.step.moved_bytes else math.nan


def kind_of(step: StepTime) -> str:
    """In a word: the algorithm where the step says one, else its operator."""
    named = step.how.partition(" + ")[0].partition(":")[0].strip()
    return named if step.macs and named else step.operator or named or "other"


def profile_page(profile: Profile, about: About) -> str:
    """The page as HTML.

    Parameters
    ----------
    profile : Profile
        As a plan or a session gives it.
    about : About
        Of which model, and on which machine.

    Returns
    -------
    str
        One file that loads nothing. Needs Matplotlib.
    """
    lines = _lines(profile, about)
    steps = "1 step" if len(lines) == 1 else f"{len(lines)} steps"
    inputs = ", ".join(f"{name} {' × '.join(map(str, shape)) or 'a number'}" for name, shape in about.inputs.items())
    subtitles = [
        f"{inputs or 'no input'} · {steps} · mean of {profile.runs} run{'s' * (profile.runs != 1)} · {about.date}",
        about.machine,
    ]
    return document(
        f"Profile of {about.title}", subtitles, cards(_facts(lines, about)), _time(lines, about.roof),
        _machine(lines, about.roof), _steps(lines),
    )  # fmt: skip


def _lines(profile: Profile, about: About) -> list[_Line]:
    colours = {
        kind: COLOURS[at] if at < len(COLOURS) - 1 else OTHERS for at, kind in enumerate(_by_kind(profile.steps))
    }
    begins = accumulate((step.seconds for step in profile.steps), initial=0.0)
    return [
        _Line(number, step, begin, profile.seconds, about.roof, kind, colours[kind])
        for number, (step, begin) in enumerate(zip(profile.steps, begins, strict=False), 1)
        for kind in [kind_of(step)]
    ]


def _by_kind(steps: Sequence[StepTime]) -> dict[str, float]:
    """Seconds of each kind, the longest first."""
    found: dict[str, float] = {}
    for step in steps:
        found[kind_of(step)] = found.get(kind_of(step), 0.0) + step.seconds
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _facts(lines: Sequence[_Line], about: About) -> list[tuple[str, str, str]]:
    """What is to be known at a glance."""
    seconds, macs = sum(line.step.seconds for line in lines), sum(line.step.macs for line in lines)
    moved, weights = (sum(getattr(line.step, name) for line in lines) for name in ("moved_bytes", "weight_bytes"))
    speed = _per(2e-9 * macs, seconds)
    peak = max((line.step.used_bytes for line in lines), default=0)
    fields = [line.step.field for line in lines if line.step.field]
    images = max((shape[0] for shape in about.inputs.values() if shape), default=1)
    return [
        ("time of a run", f"{milliseconds(seconds)} ms", f"{amount(_per(images, seconds))} samples a second"),
        ("speed", f"{amount(speed)} GFLOP/s" if macs else DASH,
         f"{share(speed / about.roof.gflops)} % of the peak; {amount(1e-9 * macs)} G multiply-adds"),
        ("values in memory", size(peak), "at most at one time, beside the weights"),
        ("weights", size(weights), "as they are packed"),
        ("moved", size(moved), f"at least; {amount(_per(1e-9 * moved, seconds))} GB/s"),
        ("receptive field", _field(fields[-1]) if fields else DASH, "pixels of the input that a result sees"),
    ]  # fmt: skip


def _per(much: float, seconds: float) -> float:
    return much / seconds if seconds else math.nan


def _field(field: tuple[int, ...]) -> str:
    return str(field[0]) if len(set(field)) == 1 else " × ".join(map(str, field))


# ---- sections ------------------------------------------------------------------------------------------------------


def _time(lines: Sequence[_Line], roof: Roof) -> str:
    """Which kinds of steps take the time, and the steps one after the other."""
    kinds: dict[str, list[_Line]] = {}
    for line in sorted(lines, key=lambda line: line.number):
        kinds.setdefault(line.kind, []).append(line)
    rows = sorted(kinds.items(), key=lambda item: -sum(line.step.seconds for line in item[1]))
    total = sum(line.step.seconds for line in lines)

    def seconds(row: Any) -> float:
        return float(sum(line.step.seconds for line in row[1]))

    def part(row: Any) -> float:
        return _per(seconds(row), total)

    def speed(row: Any) -> float:
        return _per(2e-9 * sum(line.step.macs for line in row[1]), seconds(row))

    columns = [
        Column("", lambda row: chip(row[1][0].colour)),
        Column("kind of step", lambda row: text(row[0]), name=True),
        Column("steps", lambda row: str(len(row[1])), lambda row: len(row[1])),
        Column("ms", lambda row: milliseconds(seconds(row)), seconds),
        Column("share, %", lambda row: share(part(row)) + bar(part(row), row[1][0].colour), part),
        Column("GFLOP/s", lambda row: amount(speed(row)) if speed(row) else DASH, speed),
    ]  # fmt: skip
    bars = [
        Bar(
            f"step-{line.number}", line.colour, 1e3 * line.begin, 1e3 * line.step.seconds,
            line.gflops if line.step.macs and line.step.seconds else 0.0, 1e-6 * line.step.used_bytes,
            max(line.step.field) if line.step.field else None,
        )
        for line in lines
    ]  # fmt: skip
    label = "Speed, memory and receptive field of the steps over the time of a run; the table has the figures"
    return section(
        "Where the time goes", table("kinds", "Steps by kind, the longest first", columns, rows, small=True),
        paragraph("A step is as wide as its time and as high as its speed, so that its area is its work; the strip at "
                  "the foot shows steps without multiply-adds, too. Point at a step for its figures, or follow it to "
                  "its row."),
        picture(timeline(bars, roof), "timeline", label),
    )  # fmt: skip


def _machine(lines: Sequence[_Line], roof: Roof) -> str:
    """How near the steps come to what the machine can do."""
    longest = max((line.step.seconds for line in lines), default=0.0) or 1.0
    dots = [
        Dot(f"step-{line.number}", line.colour, "o", line.intensity, line.gflops, line.step.seconds / longest)
        for line in lines if line.step.macs and line.step.seconds
    ]  # fmt: skip
    if not dots:
        return ""
    memory = "" if roof.gbytes is None else (
        f", and {amount(roof.gbytes)} GB/s are read and written by copying arrays larger than the caches"
    )  # fmt: skip
    words = (
        f"The line is what this machine can do: {amount(roof.gflops)} GFLOP/s are fused multiply-adds of float32 in "
        f"registers{memory}, measured before and after the profile with as many threads. A point is a step, the larger "
        "the longer. Operations are counted by the definition of convolution: a fast algorithm may lie above the "
        "peak. Bytes are counted once each: values that are still in a cache may lie above the line of the memory."
    )
    label = "Roofline: speed of the steps by floating-point operations a byte"
    drawn = picture(roofline(dots, roof, {}), "roofline", label)
    return section("Beside what the machine can do", paragraph(words), drawn)


def _why(line: _Line) -> str:
    """The algorithm, the reason, and behind a fold why not the others."""
    step = line.step
    parts = [chip(line.colour), text(step.how or step.operator or DASH)]
    if step.why:
        parts.append(f'<br><span class="note">{text(step.why[0])}</span>')
    if step.why[1:]:
        refused = "".join(f"<li>{text(sentence)}</li>" for sentence in step.why[1:])
        parts.append(f"<details><summary>why not the others</summary><ul>{refused}</ul></details>")
    return "".join(parts)


def _named(line: _Line) -> str:
    """The layers or operators, what the net calls them, and the shape of the result."""
    shape = " × ".join(map(str, line.step.shape)) or "a number"
    called = line.step.name if line.step.name not in line.step.operators else ""
    notes = (f'<span class="note">{text(note)}</span>' for note in (called, f"→ {shape}") if note)
    return " ".join((text(line.step.operators), *notes))


def _steps(lines: Sequence[_Line]) -> str:
    """The table of all steps."""
    most = max((line.share for line in lines), default=1.0) or 1.0

    def field(line: _Line) -> float:
        return float(max(line.step.field, default=-1))

    columns = [
        Column("#", lambda line: str(line.number), lambda line: line.number, "the order of the net"),
        Column("step", _named, name=True),
        Column("algorithm, and why", _why, long=True),
        Column("ms", lambda line: milliseconds(line.step.seconds), lambda line: line.step.seconds),
        Column("share, %", lambda line: share(line.share) + bar(line.share / most, line.colour),
               lambda line: line.share, "of the time of all steps"),
        Column("GFLOP/s", lambda line: amount(line.gflops), lambda line: line.gflops, "two operations a multiply-add"),
        Column("of peak, %", lambda line: share(line.of_peak) + bar(line.of_peak), lambda line: line.of_peak,
               "of fused multiply-adds in registers"),
        Column("moved, MB", lambda line: amount(1e-6 * line.step.moved_bytes), lambda line: line.step.moved_bytes,
               "values read and made, and weights, each once"),
        Column("in memory, MB", lambda line: amount(1e-6 * line.step.used_bytes), lambda line: line.step.used_bytes,
               "buffers of values in use while the step runs"),
        Column("weights, MB", lambda line: amount(1e-6 * line.step.weight_bytes), lambda line: line.step.weight_bytes),
        Column("field", lambda line: _field(line.step.field) if line.step.field else DASH, field,
               "receptive field: pixels of the input that one result looks at"),
    ]  # fmt: skip
    caption = "In the order of the net, or by the column whose head is pressed"
    return section("Every step", table("steps", caption, columns, lines, "step"))
