"""Tables of whole nets in processes of their own: times, what loading takes, memory, times beside busy processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from .measure import geometric_mean
from .report import OURS, Row, Timing, group_lines, seconds_text, text_table, times_text


def peers_of(rows: Sequence[Row]) -> list[str]:
    """Those that answered somewhere, ours first."""
    return [OURS, *dict.fromkeys(t.peer for row in rows for t in row.timings if t.peer != OURS)]


def _table(rows: Sequence[Row], cell: Callable[[Row, str], str], last: Callable[[Row], list[str]], heads: list[str]
           ) -> list[list[str]]:  # fmt: skip
    peers = peers_of(rows)
    return [["net", *peers, *heads], *([row.layer, *(cell(row, peer) for peer in peers), *last(row)] for row in rows)]


def time_table(rows: Sequence[Row]) -> list[list[str]]:
    """Medians, the fastest peer, and how many times faster we are."""

    def cell(row: Row, peer: str) -> str:
        timing = row.of(peer)
        if timing:
            return seconds_text(timing.seconds)
        return "wrong" if any(t.peer == peer for t in row.timings) else "–"

    def last(row: Row) -> list[str]:
        best = row.best_peer
        return [best.peer if best else "–", times_text(row.ratio(best))]

    return _table(rows, cell, last, ["best peer", "× best"])


def _shown(show: Callable[[Timing], str | None]) -> Callable[[Row, str], str]:
    """A cell from the fastest correct timing of a peer."""

    def cell(row: Row, peer: str) -> str:
        timing = row.of(peer)
        return (show(timing) if timing else None) or "–"

    return cell


def load_ratio(row: Row) -> float:
    """How many times as long as the quickest library we take to the first result; NaN if not known."""
    ours, others = _to_first(row.of(OURS)), [_to_first(row.of(peer)) for peer in peers_of([row])[1:]]
    known = [seconds for seconds in others if seconds is not None]
    return ours / min(known) if ours is not None and known else math.nan


def _to_first(timing: Timing | None) -> float | None:
    return None if timing is None or timing.load is None or timing.first is None else timing.load + timing.first


def load_table(rows: Sequence[Row]) -> list[list[str]]:
    """Loading and the first run, together and (in brackets) the first run alone."""

    def show(timing: Timing) -> str | None:
        both = _to_first(timing)
        return None if both is None or timing.first is None else f"{seconds_text(both)} ({seconds_text(timing.first)})"

    return _table(rows, _shown(show), lambda row: [times_text(load_ratio(row))], ["of the quickest"])


def memory_table(rows: Sequence[Row]) -> list[list[str]]:
    """Megabytes at most from before loading to the end of the first run, and (in brackets) of the whole process."""

    def show(timing: Timing) -> str | None:
        if timing.peak is None or timing.base is None:
            return None
        return f"{(timing.peak - timing.base) / 1e6:.0f} ({timing.peak / 1e6:.0f})"

    return _table(rows, _shown(show), lambda row: [], [])


def beside_ratio(row: Row, busy: str, which: int) -> float:
    """The best peer's median (0) or 95th percentile (1) beside busy processes over ours; NaN if not known."""
    found = {peer: t.beside[busy][which] for peer in peers_of([row]) if (t := row.of(peer)) and busy in t.beside}
    others = [seconds for peer, seconds in found.items() if peer != OURS]
    return min(others) / found[OURS] if OURS in found and others else math.nan


def beside_table(rows: Sequence[Row], busy: str) -> list[list[str]]:
    """Median and 95th percentile beside so many busy processes."""

    def show(timing: Timing) -> str | None:
        figures = timing.beside.get(busy)
        return None if figures is None else f"{seconds_text(figures[0])} ({seconds_text(figures[1])})"

    def last(row: Row) -> list[str]:
        return [times_text(beside_ratio(row, busy, which)) for which in (0, 1)]

    return _table(rows, _shown(show), last, ["× best", "95 % × best"])


def half_lines(rows: Sequence[Row]) -> list[str]:
    """The geometric mean over the best peer of each side, its worst net, and its means beside busy processes."""
    lines = []
    for half in dict.fromkeys(row.family for row in rows):
        own = [row for row in rows if row.family == half]
        ratios = {row.layer: ratio for row in own if math.isfinite(ratio := row.ratio(row.best_peer))}
        refused = [row.layer for row in own if row.of(OURS) is None]
        if ratios:
            worst = min(ratios, key=lambda layer: ratios[layer])
            lines.append(
                f"{half.capitalize()}, {len(ratios)} nets: {times_text(geometric_mean(ratios.values()))} the fastest "
                f"correct peer in the geometric mean, least {times_text(ratios[worst])} ({worst})."
            )
        if refused:
            lines.append(f"{half.capitalize()}, without an answer of ours: {'; '.join(refused)}.")
        for busy in busy_levels(own):
            means = [geometric_mean(filter(math.isfinite, (beside_ratio(row, busy, which) for row in own)))
                     for which in (0, 1)]  # fmt: skip
            tail = f"{times_text(means[0])}, 95th percentile {times_text(means[1])}"
            lines.append(f"{half.capitalize()}, beside {busy} busy: {tail}.")
    return lines


def busy_levels(rows: Sequence[Row]) -> list[str]:
    """The numbers of busy processes that were measured, but 0."""
    levels = {busy for row in rows for t in row.timings for busy in t.beside if busy != "0"}
    return sorted(levels, key=int)


def zoo_line(row: Row) -> str:
    """A net in a line: our time, the best peer's, and how many times faster we are."""
    ours, best = row.of(OURS), row.best_peer
    words = [seconds_text(ours.seconds) if ours else f"no answer, {row.absent.get(OURS, 'a wrong one')}"]
    words += [f"{best.peer} {seconds_text(best.seconds)}"] if best else []
    return f"{row.layer}: {', '.join([*words, times_text(row.ratio(best))])}"


def zoo_tables(rows: Sequence[Row]) -> list[tuple[str, list[list[str]]]]:
    """The tables of what was measured, each below what it shows."""
    tables = [("medians", time_table(rows))]
    if any(t.load is not None for row in rows for t in row.timings):
        tables.append(("loading and first run (first run)", load_table(rows)))
    if any(t.peak is not None for row in rows for t in row.timings):
        tables.append(("MB from loading to the end of the first run (whole process)", memory_table(rows)))
    for busy in busy_levels(rows):
        tables.append((f"beside {busy} busy processes: median (95th percentile)", beside_table(rows, busy)))
    return tables


def zoo_text(rows: Sequence[Row]) -> str:
    """Everything about the zoo for the terminal; our column is first."""
    parts = ["zoo, whole networks from ONNX files", ""]
    for heading, table in zoo_tables(rows):
        parts += [heading, text_table(table), ""]
    for row in rows:
        parts += [f"{row.layer}: {peer}: {reason}" for peer, reason in row.absent.items()]
    wrong = [line for line in group_lines(rows) if line.startswith(("Wrong", "Disturbed"))]
    return "\n".join([*parts, *wrong, *half_lines(rows)])
