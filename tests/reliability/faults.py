"""Plants each fault of `reliability.mutations` in a copy of the tree and sees whether the tests notice.

    PYTHONPATH=tests python -P -m reliability.faults --json docs/reliability-faults.json [--only 3 --only 17]

The copy is built for this machine's instruction set alone and without much optimisation, what a mutation does not touch
only once. Results are added to the file as they come, so that the work can be done in pieces.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import numpy as np

from reliability.mutations import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[2]
SAVED = ROOT / "docs" / "reliability-faults.json"
FLAGS = [
    *("-O1", "-g0", "-w", "-fPIC", "-fopenmp", "-std=gnu11", "-fvisibility=hidden"),
    *("-fno-math-errno", "-fno-trapping-math", "-fwrapv", "-march=native", "-mprefer-vector-width=512"),
]
PYTEST = [sys.executable, "-P", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"]
SECONDS = 240  # after which a mutant's tests are taken for hung, which is noticed too (more on a busy machine)
# What looks for faults: the rows that compute, then the ordinary tests of the same code, until the first failure.
LEFT_OUT = (
    "not (processes or interrupts or python_threads or nested or thread_limits or sanitiz or scratch or leak "
    "or pictures or command_line)"
)
NET = [
    ["tests/core/test_against_reference.py", "tests/methods/test_depthwise.py", "tests/methods/test_every_method.py"],
    ["tests/tools/test_reliability.py", "-k", LEFT_OUT],
    ["tests/core/test_properties.py", "tests/core/test_api.py", "tests/core/test_geometry.py"],
    ["tests/bridges/test_onnx_replay.py"],
]
CASES = "150"  # generated problems a kind in the ordinary tests


class Tree:
    """A copy of the sources with a build of its own: dispatch, tasks, kernels and the driver as one object each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.objects = folder / "objects"
        self.stale = {"kernels", "native"} if self.objects.exists() else set()  # built from a fault, or who knows

    def make(self) -> None:
        for name in ("src", "fastconv", "tests"):
            shutil.copytree(ROOT / name, self.folder / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        for name in ("pyproject.toml", "setup.py"):
            shutil.copy2(ROOT / name, self.folder / name)
        self.objects.mkdir()
        self.build("dispatch", "tasks", "kernels", "native")

    def build(self, *parts: str) -> None:
        """Compile these parts and link; raises where the mutant is no program."""
        include = ["-I", "src", "-I", "src/kernels", "-I", sysconfig.get_paths()["include"], "-I", np.get_include()]
        sources = {"dispatch": "src/dispatch.c", "tasks": "src/tasks.c", "kernels": "src/kernels/kernels.c"}
        for part in parts:
            source = sources.get(part, "objects/native.c")
            if part == "native":
                self.run(sys.executable, "-m", "cython", "-3", "-I", "src", "src/_native.pyx", "-o", source)
            self.run("cc", *FLAGS, "-DFASTCONV_ISA=baseline", *include, "-c", source, "-o", f"objects/{part}.o")
        library = f"fastconv/_native{sysconfig.get_config_var('EXT_SUFFIX')}"
        every = [f"objects/{part}.o" for part in (*sources, "native")]
        self.run("cc", "-shared", "-fopenmp", *every, "-o", library, "-lm")

    def run(self, *command: str) -> None:
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True, text=True)

    def build_for(self, mutation: Mutation) -> None:
        """Build what the mutation changes, and what an earlier one changed."""
        folder = mutation.file.rpartition("/")[0]
        changed = {"src/kernels": {"kernels"}, "src/drivers": {"native"}}.get(folder, set())
        if parts := changed | self.stale:
            self.build(*parts)
        self.stale = changed


def noticed_by(tree: Tree, seconds: float) -> tuple[str, str]:
    """The first test that fails on the tree as it is built now, and its error; empty if none does."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tree.folder), str(tree.folder / "tests")]),
                   "FASTCONV_TEST_CASES": CASES, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "400"}  # fmt: skip
    environment.pop("FASTCONV_ISA", None)
    deadline = time.monotonic() + seconds
    for tests in NET:
        try:
            done = subprocess.run([*PYTEST, *tests], cwd=tree.folder, env=environment, capture_output=True, text=True,
                                  timeout=max(1, deadline - time.monotonic()))  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"{tests[0]}: hung", f"no end in {seconds:.0f} s"
        if done.returncode:
            named = [line for line in done.stdout.splitlines() if line.startswith("FAILED ")]
            if not named:
                return f"{tests[0]}: ended with {done.returncode}", (done.stderr or done.stdout).strip()[-300:]
            test, _, error = named[0].removeprefix("FAILED ").partition(" - ")
            return test, error[:300]
    return "", ""


def plant(tree: Tree, mutation: Mutation, seconds: float) -> dict[str, object]:
    path = tree.folder / mutation.file
    text = path.read_text()
    begin = time.monotonic()
    try:
        path.write_text(text.replace(mutation.find, mutation.replace))
        tree.build_for(mutation)
        by, error = noticed_by(tree, seconds)
    finally:
        path.write_text(text)
    took = round(time.monotonic() - begin)
    return {"what": mutation.what, "file": mutation.file, "noticed_by": by, "error": error, "seconds": took}


def main() -> int:
    parser = argparse.ArgumentParser(prog="reliability.faults", description="Which planted faults do the tests notice?")
    parser.add_argument("--json", type=Path, default=SAVED, help="where results are added")
    parser.add_argument("--only", type=int, action="append", help="the number of a mutation, from 0")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="after which tests are taken for hung")
    parser.add_argument("--tree", type=Path, help="a folder to build in and keep")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that a kept tree is left without a fault
    results = {r["what"]: r for r in json.loads(asked.json.read_text())} if asked.json.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(asked.tree or Path(folder))
        if not tree.objects.exists():
            tree.make()
            by, error = noticed_by(tree, asked.seconds)
            if by:
                raise SystemExit(f"the tests fail without a fault: {by}: {error}")
        for number in asked.only or range(len(MUTATIONS)):
            result = plant(tree, MUTATIONS[number], asked.seconds)
            results[result["what"]] = result
            by = result["noticed_by"] or "SURVIVED"
            print(f"{number}: {result['what']}: {by} ({result['seconds']} s)", flush=True)
            kept = [results[m.what] for m in MUTATIONS if m.what in results]
            asked.json.write_text(json.dumps(kept, indent=1) + "\n")
    return 0 if all(r["noticed_by"] for r in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
