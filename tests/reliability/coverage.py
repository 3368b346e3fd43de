"""Counts which lines and branches run under the tests: native code with gcov under each ISA, Python with coverage.py.

    PYTHONPATH=tests:. python -P -m reliability.coverage [PART ...] [--folder build/coverage] [--tests FILE ...]

A part is an ISA or `python`; its figures are added to docs/reliability-coverage.json. With a folder that is kept, what
runs add up, so that the work can be done in pieces: `--tests` names those of one piece.

The native code is built beside the checkout by GCC without optimisation, which merges lines and branches. A kernel is
compiled for several element types and sizes: a line counts as run when one of them ran it, branches and functions are
counted in every one. Of the drivers (Cython) lines alone are counted: most branches of the C that Cython writes are its
own.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SAVED = ROOT / "docs" / "reliability-coverage.json"
NATIVE_TESTS = [
    "tests/kernels/test_layer_kernels.py", "tests/kernels/test_register_tiles.py", "tests/kernels/test_native_axes.py",
    "tests/kernels/test_moves.py",
    "tests/methods", "tests/core/test_api.py", "tests/core/test_isa.py", "tests/layers/test_layers.py",
    "tests/models/test_training.py::test_sgd_follows_its_formula",
    "tests/models/test_training.py::test_adamw_follows_its_formula", "tests/core/test_against_reference.py",
    "tests/core/test_properties.py", "tests/bridges/test_onnx.py::test_a_chain_gives_what_its_operators_give",
    "tests/bridges/test_onnx.py::test_an_activation_behind_a_convolution_may_read_its_input_again",
]  # fmt: skip
# The board's own processes are many; what the others look at is no Python of the package.
APART = ("tools/test_reliability", "kernels/test_machine_code", "tools/test_build")
PYTHON_TESTS = ["tests", *(f"--ignore=tests/{name}.py" for name in APART)]
CASES = "200"  # generated problems a kind; tests by design run what these leave out
KINDS = ("lines", "branches", "functions")
Counts = dict[str, dict[Any, bool]]  # of a kind: what there is, and whether it ran


class NativeBuild:
    """A copy of the sources, built to count, and the counters of its runs under each ISA."""

    def __init__(self, folder: Path) -> None:
        self.tree = (folder / "tree").resolve()
        self.counters = folder / "counters"

    def make(self) -> None:
        """Build; what did not change is kept, and counters of other code are thrown away."""
        if absent := [tool for tool in ("gcc", "gcov") if not shutil.which(tool)]:
            raise SystemExit(f"native coverage needs GCC: {', '.join(absent)} not found (Debian: apt install gcc)")
        before = self.notes()
        for name in ("src", "fastconv"):  # copies keep their dates
            shutil.copytree(ROOT / name, self.tree / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.so"))
        for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy2(ROOT / name, self.tree / name)
        environment = {**os.environ, "CC": "gcc", "FASTCONV_COVERAGE": "1"}
        command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
        subprocess.run(command, cwd=self.tree, env=environment, check=True)
        if before != self.notes():
            shutil.rmtree(self.counters, ignore_errors=True)

    def notes(self) -> dict[Path, bytes]:
        """What GCC noted about each object's lines and branches."""
        return {path: path.read_bytes() for path in self.tree.glob("build/**/*.gcno")}

    def run(self, isa: str, tests: list[str]) -> None:
        strip = len(self.tree.parts) - 1  # of each object's absolute path
        run_tests(["-m", "pytest"], tests, PYTHONPATH=str(self.tree), FASTCONV_ISA=isa,
                  GCOV_PREFIX=str(self.counters / isa), GCOV_PREFIX_STRIP=str(strip))  # fmt: skip

    def read(self, isa: str) -> Iterator[dict[str, Any]]:
        """gcov's reports on the objects that run under an ISA."""
        for notes in self.notes():
            place = notes.relative_to(self.tree)
            if "kernels" in place.parts and isa not in place.parts:
                continue
            beside = self.counters / isa / place
            beside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(notes, beside)
            command = ["gcov", "--json-format", "--stdout", "--branch-probabilities", str(beside)]
            done = subprocess.run(command, cwd=self.tree, capture_output=True, text=True, check=True)
            for line in done.stdout.splitlines():
                yield from json.loads(line)["files"]

    def figures(self, isa: str) -> dict[str, Any]:
        kernels: dict[str, Counts] = defaultdict(new_counts)
        drivers: dict[str, Counts] = defaultdict(new_counts)
        for report in self.read(isa):
            name = report["file"].removeprefix(f"{self.tree}/")
            if name.startswith("src/") and name.endswith((".pyx", ".pxi")):
                length = len((self.tree / name).read_text().splitlines())  # Cython's own helpers lie beyond the end
                report["lines"] = [line for line in report["lines"] if line["line_number"] <= length]
                add(drivers[name], report, lines_only=True)
            elif name.startswith("src/"):
                add(kernels[name], report)
        return {"c": summary(kernels), "cython": summary(drivers)}


def new_counts() -> Counts:
    return {kind: {} for kind in KINDS}


def add(counts: Counts, report: dict[str, Any], lines_only: bool = False) -> None:
    """Add one object's report on a file; what one object ran, ran."""
    for line in report["lines"]:
        number = line["line_number"]
        mark(counts["lines"], number, line["count"] > 0)
        if not lines_only:
            for i, branch in enumerate(line["branches"]):
                mark(counts["branches"], (number, line.get("function_name"), i), branch["count"] > 0)
    for function in [] if lines_only else report["functions"]:
        mark(counts["functions"], function["name"], function["execution_count"] > 0)


def mark(seen: dict[Any, bool], what: Any, ran: bool) -> None:
    seen[what] = seen.get(what, False) or ran


def summary(files: dict[str, Counts]) -> dict[str, Any]:
    """[ran, all] of every kind, and what did not run in which file."""
    every = {
        kind: [sum(sum(f[kind].values()) for f in files.values()), sum(len(f[kind]) for f in files.values())]
        for kind in KINDS
    }
    not_run = {name: [n for n, ran in sorted(f["lines"].items()) if not ran] for name, f in sorted(files.items())}
    idle = sorted(name for f in files.values() for name, ran in f["functions"].items() if not ran)
    return {**{kind: figure for kind, figure in every.items() if figure[1]},
            "lines_not_run": {name: spans(lines) for name, lines in not_run.items() if lines},
            **({"functions_not_run": idle} if idle else {})}  # fmt: skip


def spans(numbers: list[int]) -> str:
    """Sorted line numbers as 3, 7-9."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


class PythonRun:
    """coverage.py over the package that is tested, in further processes too."""

    def __init__(self, folder: Path) -> None:
        import fastconv

        self.folder = folder / "python"
        self.package = Path(fastconv.__file__).parent
        self.settings = self.folder / "coveragerc"

    def make(self) -> None:
        if not importlib.util.find_spec("coverage"):
            raise SystemExit("Python coverage needs coverage.py: pip install fastconv[test]")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.settings.write_text(
            f"[run]\nbranch = True\nsource = {self.package}\ndata_file = {self.folder / 'data'}\nparallel = True\n"
            "patch = subprocess\n[report]\nexclude_also =\n    if TYPE_CHECKING:\n    ^\\s*\\.\\.\\.$\n    @overload\n"
        )

    def run(self, tests: list[str]) -> None:
        path = os.pathsep.join([str(self.package.parent), os.environ.get("PYTHONPATH", "")])
        run_tests(["-m", "coverage", "run", f"--rcfile={self.settings}", "-m", "pytest"], tests, PYTHONPATH=path)

    def figures(self) -> dict[str, Any]:
        report = self.folder / "report.json"
        for command in (["combine", "--quiet", "--append"], ["json", "--quiet", "-o", str(report)]):
            subprocess.run([sys.executable, "-P", "-m", "coverage", *command, f"--rcfile={self.settings}"],
                           cwd=self.folder, check=command[0] == "json")  # fmt: skip
        found = json.loads(report.read_text())
        total = found["totals"]
        files = {Path(name).resolve().relative_to(self.package.parent): f for name, f in found["files"].items()}
        return {
            "lines": [total["covered_lines"], total["num_statements"]],
            "branches": [total["covered_branches"], total["num_branches"]],
            "lines_not_run": {
                str(name): spans(f["missing_lines"]) for name, f in sorted(files.items()) if f["missing_lines"]
            },
        }


def run_tests(command: list[str], tests: list[str], **variables: str) -> None:
    """Run tests that all must pass: what a failing test ran says nothing."""
    environment = {"FASTCONV_TEST_CASES": CASES, **os.environ, "PYTHONDONTWRITEBYTECODE": "1", **variables}
    command = [sys.executable, "-P", *command, "-q", "-p", "no:cacheprovider", *tests]
    if code := subprocess.run(command, cwd=ROOT, env=environment).returncode:
        raise SystemExit(f"the tests ended with {code}: no figures")


def count(part: str, folder: Path, tests: list[str]) -> dict[str, Any]:
    """Run a part's tests and say what has run in `folder` so far."""
    if part == "python":
        python = PythonRun(folder)
        python.make()
        python.run(tests or PYTHON_TESTS)
        return python.figures()
    native = NativeBuild(folder)
    native.make()
    native.run(part, tests or NATIVE_TESTS)
    return native.figures(part)


def saved() -> dict[str, Any]:
    return json.loads(SAVED.read_text()) if SAVED.exists() else {}


def save(part: str, figures: dict[str, Any]) -> None:
    """One line a figure."""
    text = json.dumps({**saved(), part: figures}, indent=1)
    text = re.sub(r"\[\s+(\d+),\s+(\d+)\s+\]", r"[\1, \2]", text)
    SAVED.write_text(text + "\n")


def percent(figure: list[int]) -> float:
    return 100 * figure[0] / figure[1]


def main() -> int:
    from reliability.board import isas_available

    parser = argparse.ArgumentParser(prog="reliability.coverage", description="Which lines and branches do tests run?")
    parser.add_argument("parts", nargs="*", metavar="PART", help="an ISA or python; all of them otherwise")
    parser.add_argument("--folder", type=Path, help="a folder to build and count in and keep")
    parser.add_argument("--tests", nargs="+", default=[], help="run these tests; counters in the folder add up")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (asked.folder or Path(temporary)).resolve()
        for part in asked.parts or [*isas_available(), "python"]:
            figures = {"date": time.strftime("%Y-%m-%d"), "machine": platform.machine(),
                       **count(part, folder, asked.tests)}  # fmt: skip
            save(part, figures)
            print(f"{part}: {words(figures)}", flush=True)
    return 0


def words(figures: dict[str, Any]) -> str:
    """A part's figures in words."""
    native = figures.get("c", figures)
    text = ", ".join(f"{percent(native[kind]):.1f} % of {native[kind][1]:,} {kind}" for kind in KINDS if kind in native)
    if "cython" in figures:
        lines = figures["cython"]["lines"]
        text += f"; drivers {percent(lines):.1f} % of {lines[1]:,} lines"
    return text


if __name__ == "__main__":
    sys.exit(main())
