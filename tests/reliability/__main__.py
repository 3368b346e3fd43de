"""python -m reliability: run the board and print, save and publish its table."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reliability import board


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    if asked.one:
        asked.json.write_text(json.dumps(board.run_here(asked.one, asked.count, asked.first)))
        return 0
    rows = [r for r in board.rows() if r.count(asked.tier) is not None and asked.only.lower() in _text(r)]
    if asked.list:
        for r in rows:
            print(f"{r.name:<28} {r.figure} — {r.target}")
        return 0
    if not rows:
        print(f"no row of the {asked.tier} tier matches {asked.only!r}; --list shows them", file=sys.stderr)
        return 2
    begin = time.monotonic()
    found: dict[str, board.Result] = {}
    for result in _run(rows, asked.tier):
        found[result.name] = result
        print(f"[{len(found)}/{len(rows)}] {result.figure}: {_verdict(result)} ({result.seconds:.0f} s): {result.got}")
        for failure in result.failures[:5]:
            print(f"      {failure}")
        sys.stdout.flush()
    results = [found[r.name] for r in rows]
    report = _report(asked.tier, results, time.monotonic() - begin)
    print("\n" + _table(report))
    if asked.json:
        asked.json.write_text(json.dumps(report, indent=1) + "\n")
    if asked.page:
        asked.page.write_text(_page(report))
    return 0 if all(r.passed or r.skipped for r in results) else 1


def _run(rows: list[board.Row], tier: str) -> Iterator[board.Result]:
    """The results as they come: of the rows that may run beside each other, then of the others, one by one."""
    beside = [r for r in rows if r.name in board.BESIDE]
    with ThreadPoolExecutor(board.cores()) as pool:
        for done in as_completed([pool.submit(board.run_row, r, tier) for r in beside]):
            yield done.result()
    for r in rows:
        if r not in beside:
            yield board.run_row(r, tier)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="reliability", description="The reliability board: got / target, a row each.")
    parser.add_argument("--tier", choices=board.TIERS, default="quick")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose name or figure contains TEXT")
    parser.add_argument("--list", action="store_true", help="name the rows and run nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the table")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the table as a Markdown page")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # a row's own process
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    return parser


def _text(row: board.Row) -> str:
    return f"{row.name} {row.figure}".lower()


def _verdict(result: board.Result) -> str:
    return "not run" if result.skipped else "met" if result.passed else "MISSED"


def _report(tier: str, results: list[board.Result], seconds: float) -> dict[str, Any]:
    import fastconv

    info = fastconv.info()
    return {
        "tier": tier,
        "date": time.strftime("%Y-%m-%d"),
        "fastconv": info["version"],
        "isas": list(info["isas_available"]),
        "threads": info["threads"],
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "seconds": round(seconds),
        "rows": [asdict(r) for r in results],
    }


def _cell(text: str) -> str:
    """Words as a cell of a table: `2**31` and `__name__` are no emphasis."""
    return text.replace("\n", " ").replace("**", r"\*\*").replace("__", r"\_\_").replace("|", r"\|")


def _table(report: dict[str, Any]) -> str:
    lines = ["| figure | target | got | |", "|---|---|---|---|"]
    for r in report["rows"]:
        verdict = "not run" if r["skipped"] else "met" if r["passed"] else "**missed**"
        lines.append(f"| {_cell(r['figure'])} | {_cell(r['target'])} | {_cell(r['got'])} | {verdict} |")
    return "\n".join(lines)


def _page(report: dict[str, Any]) -> str:
    met = sum(r["passed"] for r in report["rows"])
    return (
        "# Reliability board\n\n"
        f"Counted by `make reliability TIER={report['tier']}` on {report['date']}: "
        f"{met} of {len(report['rows'])} rows met in {report['seconds'] / 60:.0f} minutes. "
        f"fastconv {report['fastconv']}, ISAs {', '.join(report['isas'])}, "
        f"{report['threads']} threads, {report['machine']}. Where a row names ISAs, each took its share of the "
        "problems, none twice (of the empty axes, all). This page is written by that command, never by hand.\n\n"
        + _table(report)
        + "\n"
    )


if __name__ == "__main__":
    sys.exit(main())
