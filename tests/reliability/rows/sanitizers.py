"""The compiled code under Clang's sanitizers, built beside the checkout, and under valgrind."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np

import fastconv
from reliability.board import FOLDER, Outcome, isas_available, row

ROOT = FOLDER.parents[1]
NATIVE = FOLDER.parent / "native"
BUILDS = ROOT / "build" / "sanitizers"
SITE = Path(np.__file__).parents[1]
SECONDS = 600
ADDRESS, ADDRESS_REPORT = "address,undefined", r"(?:ERROR: AddressSanitizer|runtime error:)"
ADDRESS_OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1", "UBSAN_OPTIONS": "print_stacktrace=1"
}  # fmt: skip
# What computes with the compiled code in the process of the test itself, and most of what refuses.
TESTS = [
    f"tests/{name}.py"
    for name in (
        "core/test_against_reference", "methods/test_depthwise", "core/test_api", "core/test_bad_input",
        "kernels/test_layer_kernels", "layers/test_layers", "core/test_properties", "methods/test_every_method",
        "kernels/test_moves",
    )
]
TEST_CASES = "60"  # generated problems a kind
# What runs under a tool: problems of all kinds, every second with its arrays at odd addresses.
WORKLOAD = """
import sys
import numpy as np
from reliability.workload import works

def odd(array):
    room = np.zeros(array.nbytes + 1, np.uint8)
    moved = np.ndarray(array.shape, array.dtype, room, 1)
    moved[...] = array
    return moved

count = 0
with np.errstate(all="ignore"):
    for work in works(int(sys.argv[1]), int(sys.argv[2])):
        print(work, flush=True)
        work.results(odd if work.kind != "training" and count % 2 else np.copy)
        count += 1
print("done", count)
"""


def _missing(*tools: str) -> str:
    if sys.platform != "linux" or not (ROOT / "setup.py").exists():
        return "needs Linux and a checkout"
    absent = [tool for tool in tools if not shutil.which(tool)]
    return f"{', '.join(absent)} not found" if absent else ""


def _build(sanitizers: str, program: str = "python", level: str = "-O1") -> Path | str:
    """A copy of the sources built by Clang with these sanitizers, and a program for it; or why there is none.

    The program is tests/native/`program`.c: an interpreter, or libFuzzer around one, whose own code is then left out of
    what libFuzzer follows.
    """
    folder = BUILDS / sanitizers.replace(",", "-")
    for name in ("src", "fastconv"):  # copies keep their dates: only what changed is compiled again
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.so", "*.pyc"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, folder / name)
    library = Path(sysconfig.get_config_var("LIBDIR"))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    linked = sanitizers.replace("fuzzer-no-link", "fuzzer")
    interpreter = ["clang", "-g", "-O1", f"-fsanitize={linked}", f"-I{sysconfig.get_paths()['include']}"]
    interpreter += [str(NATIVE / f"{program}.c"), "-o", str(folder / program), f"-L{library}", f"-l{version}"]
    environment = {
        **os.environ, "CC": "clang", "LDSHARED": "clang -shared", "FASTCONV_SANITIZE": sanitizers, "CFLAGS": "-w",
        "FASTCONV_SANITIZE_LEVEL": level,
    }  # fmt: skip
    setup = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    for command in ([*interpreter, "-Wl,--export-dynamic", f"-Wl,-rpath,{library}"], setup):
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"no build with -fsanitize={sanitizers}: {(done.stderr or done.stdout).strip()[-300:]}"
    return folder


def fuzzer() -> tuple[list[str], dict[str, str]]:
    """libFuzzer's program and its environment, built when needed; raises SystemExit where that can't be."""
    folder = _missing("clang") or _build("fuzzer-no-link,address,undefined", "fuzz", "-O0")
    if isinstance(folder, str):
        raise SystemExit(f"no libFuzzer here: {folder}")
    variables = {
        "PYTHONHOME": sys.base_prefix, "PYTHONMALLOC": "malloc", "PYTHONSAFEPATH": "1",
        "PYTHONPATH": os.pathsep.join(map(str, (folder, FOLDER.parent, SITE))),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=2048",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }  # fmt: skip
    return [str(folder / "fuzz")], variables


def _python(command: list[str], *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """An interpreter, under a tool, with these arguments."""
    environment = {**os.environ, "PYTHONHOME": sys.base_prefix, "PYTHONMALLOC": "malloc", **variables}
    environment.pop("PYTHONFAULTHANDLER", None)  # the tool reports faults itself
    return subprocess.run(
        [*command, "-P", *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS,
        check=False,
    )  # fmt: skip


def _run(command: list[str], count: int, first: int, **variables: str) -> subprocess.CompletedProcess[str]:
    return _python(command, "-c", WORKLOAD, str(count), str(first), **variables)


def _counted(
    outcome: Outcome, done: subprocess.CompletedProcess[str], reports: list[str], count: int, what: str
) -> None:
    """Every problem that ran is a case; a report, or an end before the last problem, is a failure."""
    lines = done.stdout.splitlines()
    outcome.cases += min(count, len(lines))
    for report in reports:
        outcome.fail(f"{what}: {report}")
    if not reports and f"done {count}" not in lines[-1:]:
        last = lines[-1] if lines else "the beginning"
        outcome.fail(f"{what}: ended with {done.returncode} after {last}: {done.stderr[-800:]}")


def _sanitized(sanitizers: str, count: int, pattern: str, **variables: str) -> Outcome:
    if why := _missing("clang"):
        return Outcome(skipped=why)
    folder = _build(sanitizers)
    if isinstance(folder, str):
        return Outcome(skipped=folder)
    outcome = Outcome()
    path = os.pathsep.join(map(str, (folder, FOLDER.parent, SITE)))
    isas = isas_available()
    share = -(-count // len(isas))
    for number, isa in enumerate(isas):
        done = _run(
            [str(folder / "python")], share, number * share, FASTCONV_ISA=isa, PYTHONPATH=path, **variables
        )
        reports = [text.strip()[:600] for text in re.findall(pattern + r"(?:.*\n){1,8}", done.stderr)]
        _counted(outcome, done, reports, share, isa)
    outcome.measured = f"problems under {', '.join(isas)}, without suppressions"
    return outcome


@row(
    "AddressSanitizer and UndefinedBehaviorSanitizer over generated problems of every kind",
    "0 reports",
    quick=None, full=6_000, order=60,
)  # fmt: skip
def address_sanitizer(count: int) -> Outcome:
    """Half of the problems have their arrays at odd addresses."""
    return _sanitized(ADDRESS, count, ADDRESS_REPORT, **ADDRESS_OPTIONS)


@row(
    "AddressSanitizer and UndefinedBehaviorSanitizer over the tests of the native code", "0 reports, no failure",
    quick=None, full=1, order=60,
)  # fmt: skip
def sanitized_tests(count: int) -> Outcome:
    """`TESTS`, with fewer generated problems than in `make test`; `make sanitize` runs the whole suite."""
    if why := _missing("clang"):
        return Outcome(skipped=why)
    folder = _build(ADDRESS)
    if isinstance(folder, str):
        return Outcome(skipped=folder)
    outcome = Outcome()
    for file in TESTS:
        done = _python(
            [str(folder / "python")], "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly", file,
            PYTHONPATH=os.pathsep.join(map(str, (folder, FOLDER.parent, SITE))), FASTCONV_TEST_CASES=TEST_CASES,
            **ADDRESS_OPTIONS,
        )  # fmt: skip
        said = done.stdout + done.stderr
        outcome.cases += sum(map(int, re.findall(r"(\d+) passed", said)))
        for report in re.findall(ADDRESS_REPORT + r"(?:.*\n){1,8}", said):
            outcome.fail(f"{file}: {report.strip()[:600]}")
        if done.returncode and not outcome.failed:
            outcome.fail(f"{file}: ended with {done.returncode}: {said[-800:]}")
    outcome.measured = f"{', '.join(Path(file).stem for file in TESTS)}, without suppressions"
    return outcome


@row(
    "ThreadSanitizer over the native code (Clang, libomp, Archer)", "0 reports", quick=None, full=1_500, order=61
)
def thread_sanitizer(count: int) -> Outcome:
    """Archer tells the sanitizer how OpenMP orders the work of a team; without it there is no verdict."""
    archer = next(Path("/usr/lib").glob("llvm-*/lib/libarcher.so"), None)
    if archer is None:
        return Outcome(skipped="libarcher.so not found (Debian: libomp-14-dev)")
    return _sanitized(
        "thread", count, "WARNING: ThreadSanitizer",
        OMP_TOOL_LIBRARIES=str(archer), TSAN_OPTIONS="ignore_noninstrumented_modules=1",
    )  # fmt: skip


@row("valgrind memcheck over the native code, AVX2", "0 reports", quick=None, full=150, order=62)
def memcheck(count: int) -> Outcome:
    """Reports with a frame of the compiled module; what the interpreter does is not ours."""
    if why := _missing("valgrind"):
        return Outcome(skipped=why)
    if "avx2" not in isas_available():
        return Outcome(skipped="no AVX2 here")
    outcome = Outcome()
    command = ["valgrind", "--leak-check=no", "--num-callers=12", sys.executable]
    path = os.pathsep.join(map(str, (Path(fastconv.__file__).parents[1], FOLDER.parent, SITE)))
    done = _run(command, count, 0, FASTCONV_ISA="avx2", PYTHONPATH=path, OMP_NUM_THREADS="2")
    blocks = re.split(r"^==\d+== $", done.stderr, flags=re.MULTILINE)
    reports = [block.strip()[:600] for block in blocks if "_native" in block and " at 0x" in block]
    _counted(outcome, done, reports, count, "avx2")
    return outcome
