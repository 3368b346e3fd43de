"""Runs the suite in random order, a round a seed, until so many rounds have passed; the board shows the saved result.

    PYTHONPATH=tests:. python -P -m reliability.order [--rounds 20] [--json docs/reliability-order.json]

Each round is added to the file as it ends, so that the work can be done in pieces; a seed that failed is run again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SAVED = ROOT / "docs" / "reliability-order.json"
# These tests only start processes of their own, on which the order of the suite has no influence.
OWN_PROCESS = (
    "tools/test_reliability.py", "tools/test_build.py", "tools/test_examples.py", "kernels/test_machine_code.py",
    "bridges/test_torch.py::test_data_parallel_training_has_the_loss_curve_of_one_process",
    "core/test_isa.py::test_a_machine_without_avx_runs_the_baseline",
)  # fmt: skip
BACKEND_EVERY = 5  # rounds: only in these ONNX's own tests of nodes, each a call on arrays of its own
CASES = 150  # generated problems a kind: their number decides how long a test takes, not what it leaves behind
SECONDS = 1800  # after which a round is taken for hung


def with_backend(seed: int) -> bool:
    return seed % BACKEND_EVERY == 0


def run_round(seed: int) -> dict[str, Any]:
    """One round as the file shows it."""
    environment = {**os.environ, "FASTCONV_TEST_CASES": str(CASES)}
    command = [sys.executable, "-P", "-m", "pytest", "-o", "addopts=-q --strict-markers", f"--randomly-seed={seed}"]
    command += ["-p", "no:cacheprovider", *(f"--deselect=tests/{name}" for name in OWN_PROCESS)]
    command += [] if with_backend(seed) else ["--deselect=tests/bridges/test_onnx.py::TestBackend"]
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command += [f"--junit-xml={report}", "tests"]
        try:
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS)
            ended = done.returncode
        except subprocess.TimeoutExpired:
            ended = -1
        tests, failures = _read(report)
    if ended not in (0, 1) or (ended and not failures):
        failures.append(f"the process was hung after {SECONDS} s" if ended == -1 else f"the process ended with {ended}")
    seconds = round(time.monotonic() - begin)
    return {"seed": seed, "tests": tests, "failures": failures, "backend": with_backend(seed), "seconds": seconds,
            "date": time.strftime("%Y-%m-%d"), "commit": _commit()}  # fmt: skip


def _read(report: Path) -> tuple[int, list[str]]:
    """How many tests ran, skipped ones not counted, and the names of those that failed."""
    if not report.exists():
        return 0, []
    cases = list(ET.parse(report).getroot().iter("testcase"))
    ran = [case for case in cases if case.find("skipped") is None]
    bad = [case for case in ran if case.find("failure") is not None or case.find("error") is not None]
    return len(ran), [f"{case.get('classname')}::{case.get('name')}" for case in bad]


def _commit() -> str:
    try:
        done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    except OSError:  # no git here
        return ""
    return done.stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(prog="reliability.order", description="The suite in random order, many times.")
    parser.add_argument("--json", type=Path, default=SAVED, help="where rounds are added")
    parser.add_argument("--rounds", type=int, default=20, help="rounds that the file must hold at the end")
    asked = parser.parse_args()
    rounds = {r["seed"]: r for r in json.loads(asked.json.read_text())} if asked.json.exists() else {}
    for seed in range(1, asked.rounds + 1):
        if seed in rounds and not rounds[seed]["failures"]:
            continue
        rounds[seed] = run_round(seed)
        one = rounds[seed]
        print(f"seed {seed}: {len(one['failures'])} of {one['tests']} failed ({one['seconds']} s)", flush=True)
        for failure in one["failures"]:
            print(f"    {failure}", flush=True)
        asked.json.write_text(json.dumps([rounds[s] for s in sorted(rounds)], indent=1) + "\n")
    return 1 if any(r["failures"] for r in rounds.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
