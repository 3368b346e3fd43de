"""Runs the fuzzers and counts what they did.

    PYTHONPATH=tests:. python -P -m fuzz --seconds 600 [--only api --only native ...]

Each harness has a folder under build/fuzz: what its engine found new, its log, and what made it stop. A run is added to
docs/reliability-fuzzing.json as it ends. What api and native found is made small and kept with --keep.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from fuzz import files

ROOT = Path(__file__).resolve().parents[2]
SAVED = ROOT / "docs" / "reliability-fuzzing.json"
WORK = ROOT / "build" / "fuzz"
CORPUS = ROOT / "tests" / "corpus"
# A unit that takes longer hangs; so long because whatever else the machine does counts too.
SECONDS_OF_A_UNIT = 300
MOST_CALL_BYTES, MOST_FILE_BYTES = 96, 8192


@dataclass(frozen=True)
class Harness:
    """What is called, by which engine, and where it begins."""

    name: str
    what: str
    run: Callable[[Harness, int], dict[str, Any]]
    seeds: Callable[[], list[bytes]]
    length: int = MOST_FILE_BYTES


def _files_of(folder: Path) -> Callable[[], list[bytes]]:
    return lambda: [path.read_bytes() for path in sorted(folder.glob("*"))]


def _guided(harness: Harness, seconds: int) -> dict[str, Any]:
    """atheris, or libFuzzer itself for `native`: both end with the same account."""
    found = _prepared(harness)
    begin = time.time()
    account = _engine(harness, found, "-print_final_stats=1", f"-max_total_time={seconds}")
    executions = re.search(r"stat::number_of_executed_units:\s*(\d+)", account)
    left = [path for path in found.parent.glob("*-*") if path.name.startswith(("crash-", "timeout-", "oom-"))]
    return {
        "executions": int(executions[1]) if executions else 0,
        "crashes": sum(path.stat().st_mtime >= begin for path in left),
    }


def _prepared(harness: Harness) -> Path:
    """The folder that the engine's inputs begin in, with the kept ones."""
    found = WORK / harness.name / "found"
    found.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(harness.seeds()):
        (found / f"seed-{number}").write_bytes(seed)
    return found


def _engine(harness: Harness, found: Path, *options: str) -> str:
    """Run the engine on the folder `found` and return what it says at its end."""
    folder = WORK / harness.name
    log = folder / "log.txt"
    options = (
        f"-artifact_prefix={folder}/", f"-max_len={harness.length}", "-len_control=0", f"-timeout={SECONDS_OF_A_UNIT}",
        "-rss_limit_mb=6144", "-malloc_limit_mb=0", *options,
    )  # fmt: skip
    with log.open("w") as file:
        command, variables = _command(harness)
        environment = {**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "1", **variables}
        environment.pop("PYTHONFAULTHANDLER", None)
        subprocess.run([*command, *options, str(found)], stdout=file, stderr=file, env=environment, check=False)
    return log.read_text(errors="replace")[-20_000:]


def _command(harness: Harness) -> tuple[list[str], dict[str, str]]:
    if harness.name != "native":
        return [sys.executable, "-P", "-m", "fuzz.engine", harness.name], {}
    from reliability.rows.sanitizers import fuzzer

    return fuzzer()


def _unguided(harness: Harness, seconds: int) -> dict[str, Any]:
    """Files with changed bytes for the HDF5 library, which may crash on them: in further processes, one after another.

    A file that crashed it must be refused by `read_weights`, whose caller must live on.
    """
    folder = WORK / harness.name
    folder.mkdir(parents=True, exist_ok=True)
    begin, executions, library = time.monotonic(), 0, 0
    crashes = 0
    first = sum(run["executions"] for run in _saved() if run["harness"] == harness.name)
    sources = sorted(path for path in files.CORPUS.glob(f"good-*{harness.name}"))
    for source in cycle(sources):
        left = seconds - (time.monotonic() - begin)
        if left <= 0:
            break
        number = first + executions
        command = [sys.executable, "-P", "-m", "fuzz.files", str(source), "500", str(number), str(folder)]
        log = folder / "log.txt"
        with log.open("w") as out:
            done = subprocess.run(command, stdout=out, stderr=out, check=False, timeout=left + 300)
        tried = re.findall(r"^\d+$", log.read_text(errors="replace"), flags=re.MULTILINE)
        executions += len(tried)
        if done.returncode and tried:
            data = files.flipped(source.read_bytes(), random.Random(f"0 {tried[-1]}"))
            place = folder / f"crash-{tried[-1]}{''.join(source.suffixes)}"
            place.write_bytes(data)
            library += 1
            if not _refused(place):
                crashes += 1
            else:
                place.unlink()
    return {"executions": executions, "crashes": crashes, "library_crashes": library}


def _refused(place: Path) -> bool:
    text = f"from pathlib import Path; from fuzz import files; files.read(Path({str(place)!r}))"
    return subprocess.run([sys.executable, "-P", "-c", text], capture_output=True, check=False).returncode == 0


HARNESSES = [
    Harness("api", "every public function, calls drawn from bytes (atheris)", _guided, _files_of(CORPUS / "api"),
            MOST_CALL_BYTES),
    Harness("native", "the same calls, guided by the native code, AddressSanitizer and UndefinedBehaviorSanitizer "
            "(libFuzzer)", _guided, _files_of(CORPUS / "api"), MOST_CALL_BYTES),
    Harness("onnx", "ONNX models, loaded and run (atheris)", _guided, files.onnx_seeds),
    Harness("pth", "PyTorch's weights files (atheris)", _guided, files.pytorch_seeds),
    Harness("safetensors", "safetensors files (atheris)", _guided, files.safetensors_seeds),
    Harness("h5", "Keras' HDF5 files (changed bytes, no guide)", _unguided, list),
    Harness("keras", "Keras' archives (changed bytes, no guide)", _unguided, list),
]  # fmt: skip


def _saved() -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = json.loads(SAVED.read_text()) if SAVED.exists() else []
    return runs


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def _keep(harness: Harness) -> None:
    """Of what was found, the inputs that reach what no other does go to the corpus, the smallest of them."""
    merged = WORK / harness.name / "merged"
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir()
    kept = CORPUS / "api"
    kept.mkdir(exist_ok=True)
    shutil.copytree(kept, merged, dirs_exist_ok=True)
    _engine(harness, WORK / harness.name / "found", "-merge=1", str(merged))
    for path in merged.iterdir():
        target = kept / path.name
        if not target.exists():
            shutil.copy2(path, target)


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description="Run the fuzzers one after another and count.")
    parser.add_argument("--seconds", type=int, default=60, help="of each harness")
    parser.add_argument("--only", action="append", choices=[h.name for h in HARNESSES], help="a harness")
    parser.add_argument("--keep", action="store_true", help="add what api and native found to the corpus, and run none")
    asked = parser.parse_args()
    crashes = 0
    for harness in HARNESSES:
        if asked.only and harness.name not in asked.only:
            continue
        if asked.keep:
            _keep(harness)
            continue
        begin = time.monotonic()
        try:
            counted = harness.run(harness, asked.seconds)
        except SystemExit as why:  # no Clang here, say
            print(f"{harness.name}: {why}", flush=True)
            continue
        crashes += counted["crashes"]
        run = {
            "harness": harness.name, "what": harness.what, "seconds": round(time.monotonic() - begin), **counted,
            "date": time.strftime("%Y-%m-%d"), "commit": _commit(),
        }  # fmt: skip
        print(run, flush=True)
        SAVED.write_text(json.dumps([*_saved(), run], indent=1) + "\n")
    return 1 if crashes else 0


if __name__ == "__main__":
    sys.exit(main())
