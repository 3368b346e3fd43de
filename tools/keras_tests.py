"""Keras' own tests of convolutions and poolings: before `fastconv.keras.install()`, with it, and after `uninstall()`.

    python tools/keras_tests.py --backend torch
    python tools/keras_tests.py --backend numpy [--without-jax]

Takes the source of the Keras version that is installed here (pip downloads it into a temporary folder; `--source` names
an unpacked one), runs its tests three times, each in a process of its own, and prints what passed and failed. The exit
status is 1 if a test that passes before does not pass with fastconv or afterwards. Many of Keras' tests on any backend
compare with JAX; `--without-jax` hides it, as where it is not installed, and shows what fastconv alone makes pass.

It is a plugin of pytest for those processes too: FASTCONV_KERAS_STAGE says which of the three.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ET
from importlib.metadata import version
from pathlib import Path
from typing import Any

TESTS = ("keras/src/layers/convolutional", "keras/src/layers/pooling", "keras/src/ops/nn_test.py")
STAGES = ("before", "with", "after")
UNTRAINED = ("numpy", "openvino")  # backends whose models cannot be fitted


# ---- within pytest -------------------------------------------------------------------------------------------------


def pytest_configure(config: Any) -> None:
    """Install before any test is imported."""
    for name in ("requires_trainable_backend", "multi_device"):
        config.addinivalue_line("markers", f"{name}: as in Keras' own conftest")
    if os.environ.get("FASTCONV_KERAS_HIDE_JAX"):
        sys.modules["jax"] = None  # type: ignore[assignment]
    stage = os.environ["FASTCONV_KERAS_STAGE"]
    if stage != "before":
        import fastconv.keras

        fastconv.keras.install()
        if stage == "after":
            fastconv.keras.uninstall()


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Skip what Keras' conftest skips."""
    import keras
    import pytest

    for item in items:
        untrained = keras.config.backend() in UNTRAINED and "requires_trainable_backend" in item.keywords
        if untrained or "multi_device" in item.keywords:
            item.add_marker(pytest.mark.skip("not on this backend"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What was computed."""
    if os.environ["FASTCONV_KERAS_STAGE"] == "with":
        import fastconv.keras

        terminalreporter.write_line(str(fastconv.keras.report()))


# ---- around it -----------------------------------------------------------------------------------------------------


def fetch(folder: Path) -> Path:
    """The source of the installed version, unpacked."""
    wanted = f"keras=={version('keras')}"
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "keras", "-d", folder, wanted],
        check=True,
    )
    with tarfile.open(next(folder.glob("keras-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return next(path for path in folder.glob("keras-*") if path.is_dir())


def run(stage: str, source: Path, folder: Path, args: argparse.Namespace) -> dict[str, str]:
    """The outcome of every test."""
    results = folder / f"{stage}.xml"
    here = Path(__file__).resolve().parents[1]
    path = [str(Path(__file__).parent), str(source), str(here), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [
            sys.executable, "-P", "-m", "pytest", "-q", "-p", "keras_tests", "-p", "no:cacheprovider",
            "--override-ini", "addopts=", f"--junitxml={results}", *args.tests,
        ],
        cwd=source, capture_output=True, text=True,
        env={
            **os.environ, "PYTHONPATH": os.pathsep.join(path), "KERAS_BACKEND": args.backend,
            "FASTCONV_KERAS_STAGE": stage, "FASTCONV_KERAS_HIDE_JAX": "1" if args.without_jax else "",
        },
    )  # fmt: skip
    if not results.exists():
        if args.without_jax and stage != "with":
            return {}  # Keras cannot be imported
        sys.exit(f"keras_tests.py: error: pytest did not run:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    if stage == "with":
        print(done.stdout[done.stdout.rfind("operator  ") :].rsplit("\n", 2)[0])
    found = {}
    for case in ET.parse(results).getroot().iter("testcase"):
        outcome = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
        found[f"{case.get('classname')}::{case.get('name')}"] = outcome
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("numpy", "torch"), required=True)
    parser.add_argument("--source", type=Path, help="Keras' source, unpacked (default: pip downloads it)")
    parser.add_argument("--without-jax", action="store_true", help="as if JAX were not installed")
    parser.add_argument("tests", nargs="*", default=TESTS, metavar="TEST", help=f"default: {' '.join(TESTS)}")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = args.source.resolve() if args.source else fetch(folder)
        outcomes = {stage: run(stage, source, folder, args) for stage in STAGES}
    print(f"Keras {version('keras')} on {args.backend}{' without JAX' if args.without_jax else ''}")
    for stage, found in outcomes.items():
        counts = {tag: sum(o == tag for o in found.values()) for tag in ("passed", "failure", "error", "skipped")}
        print(f"{stage:7}", ", ".join(f"{count} {tag}" for tag, count in counts.items()) if found else "not importable")
    lost = [
        f"{test}: {stage}"
        for test, outcome in outcomes["before"].items()
        for stage in STAGES[1:]
        if outcome == "passed" and outcomes[stage].get(test) != "passed"
    ]
    print("\n".join(lost) or "every test that passes before passes with fastconv and afterwards")
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
