"""What setup.py asks of a compiler, shown by compilers that only write down how they were called, and what it says when
there is none. Nothing is compiled here but the translation from Cython."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import fastconv

ROOT = Path(__file__).parents[2]
pytest.importorskip("setuptools")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="the compilers here are shell scripts")
SETS = {"baseline": None, "avx2": None, "avx2_vnni": "avx2", "avx512": None, "avx512_vnni": "avx512",
        "avx512_bf16": "avx512_vnni"}  # of x86-64, and which one they extend
# Writes every argument list to $LOG and makes the output file; knows OpenMP unless NO_OPENMP is set.
COMPILER = """#!/bin/sh
echo "$*" >> "$LOG"
case "$* $NO_OPENMP" in *-fopenmp*1) echo "cc: error: libgomp.spec: No such file or directory" >&2; exit 1;; esac
while [ $# -gt 1 ]; do [ "$1" = -o ] && : > "$2"; shift; done
"""
# The same for clang-cl and link.exe, whose output files are named otherwise.
CLANG_CL = """#!/bin/sh
echo "$*" >> "$LOG"
for word in "$@"; do case "$word" in /Fo*) : > "${word#/Fo}";; /OUT:*) : > "${word#/OUT:}";; esac; done
"""


@pytest.fixture(scope="module")
def translated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a build that went through: the translation from Cython takes seconds, and is the same in each."""
    folder = tmp_path_factory.mktemp("translated")
    compiler = folder / "cc"
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    done = build(folder, CC=str(compiler), LDSHARED=str(compiler))
    assert done.returncode == 0, done.stderr
    assert (folder / "cython").is_dir()
    return folder


@pytest.fixture
def built_before(translated: Path, tmp_path: Path) -> Path:
    """Where Cython finds nothing left to do."""
    for part in ("cython", "headers"):
        shutil.copytree(translated / part, tmp_path / part)
    return tmp_path


def build(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("FASTCONV_", "CFLAGS", "LDSHARED"))}
    return subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--build-temp", str(folder), "--build-lib", str(folder / "lib"),
         *options],
        cwd=ROOT, env={**clean, "LOG": str(folder / "log"), **environment}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture
def compiler(tmp_path: Path) -> str:
    path = tmp_path / "cc"
    path.write_text(COMPILER)
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("command", ["/bin/false", "/no/such/compiler"])
def test_a_machine_without_a_compiler_is_told_what_to_install(command, tmp_path):
    done = build(tmp_path, CC=command, LDSHARED=command)
    assert done.returncode != 0
    assert "no working C compiler was found" in done.stderr and command in done.stderr
    assert "apt install build-essential python3-dev" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_compiler_without_openmp_is_told_what_to_install(compiler, tmp_path):
    done = build(tmp_path, CC=compiler, LDSHARED=compiler, NO_OPENMP="1")
    assert done.returncode != 0
    assert "uses OpenMP" in done.stderr and "libomp-dev" in done.stderr
    assert "libgomp.spec" in done.stderr  # what the compiler said
    assert "Traceback" not in done.stderr


def test_the_flags_keep_the_promises(compiler, built_before, tmp_path):
    """One object for each instruction set; nothing for this machine alone, nothing that changes arithmetic."""
    done = build(tmp_path, CC=compiler, LDSHARED=compiler)
    assert done.returncode == 0, done.stderr
    commands = (tmp_path / "log").read_text().splitlines()
    kernels = [line for line in commands if "-DFASTCONV_ISA=" in line]
    assert {re.search(r"-DFASTCONV_ISA=(\w+)", line)[1] for line in kernels} == set(SETS)
    for line in commands:
        assert not re.search(r"=native|-ffast-math|-Ofast|-funsafe|-ffinite-math|-fassociative|-freciprocal", line)
        if "probe.c" not in line and line not in kernels:
            assert "-mavx" not in line and "-mfma" not in line, line
    flags = {}
    for line in kernels:
        isa = re.search(r"-DFASTCONV_ISA=(\w+)", line)[1]
        flags[isa] = set(re.findall(r" -m\S+", line))
        assert f"src/kernels/{isa if SETS[isa] else 'kernels'}.c" in line
    assert not flags["baseline"]
    for isa, parent in SETS.items():
        assert parent is None or flags[parent] < flags[isa]


def on_windows(folder: Path, compiler: str) -> subprocess.CompletedProcess[str]:
    """A build as in the developer prompt of Visual Studio."""
    tools = folder / "LLVM" / "bin"
    tools.mkdir(parents=True)
    for name in ("clang-cl", "link.exe"):
        (tools / name).write_text(CLANG_CL)
        (tools / name).chmod(0o755)
    (tools / "libomp.dll").write_text("OpenMP")
    return build(
        folder, "--compiler=msvc", CC=compiler, PATH=f"{tools}:{os.environ['PATH']}", _PYTHON_HOST_PLATFORM="win-amd64",
        DISTUTILS_USE_SDK="1", MSSdk="1",
    )  # fmt: skip


def test_on_windows_clang_cl_takes_the_place_of_cl(built_before, tmp_path):
    done = on_windows(tmp_path, "clang-cl")
    assert done.returncode == 0, done.stderr
    commands = (tmp_path / "log").read_text().splitlines()
    compiled = [line for line in commands if "/Tc" in line and "probe.c" not in line]
    assert len(compiled) == len(SETS) + 3  # the drivers, dispatch and tasks
    for line in compiled:
        words = line.split()
        assert {"/MD", "-openmp", "/clang:-O3", "/clang:-std=gnu11"} <= set(words)
        # What is not meant for clang-cl itself says so: its -Wall is Clang's -Weverything, and it knows no -O3.
        assert not [word for word in words if re.match(r"-[fmO]|-W|/GL|-std", word)]
    kernels = {re.search(r"-DFASTCONV_ISA=(\w+)", line)[1]: line for line in compiled if "-DFASTCONV_ISA=" in line}
    assert set(kernels) == set(SETS) and "/clang:-mavx512f" in kernels["avx512"]
    assert "-mavx" not in kernels["baseline"]
    assert commands[-1].endswith("libomp.lib") and "/EXPORT:PyInit__native" in commands[-1]
    assert (tmp_path / "lib" / "fastconv" / "libomp.dll").read_text() == "OpenMP"  # where Python looks for it


def test_cl_alone_is_told_what_to_install(tmp_path):
    done = on_windows(tmp_path, "link.exe")  # found, and no clang-cl
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "winget install LLVM.LLVM" in done.stderr and "cl.exe" in done.stderr


@pytest.mark.parametrize("wish, limited", [(None, False), ("0", False), ("1", True)])
def test_the_module_is_native_unless_the_stable_abi_is_asked_for(wish, limited, compiler, built_before, tmp_path):
    stale = tmp_path / "lib" / "fastconv" / "_native.cpython-38-x86_64-linux-gnu.so"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"")
    done = build(tmp_path, CC=compiler, LDSHARED=compiler, **({"FASTCONV_ABI3": wish} if wish else {}))
    assert done.returncode == 0, done.stderr
    (module,) = (line for line in (tmp_path / "log").read_text().splitlines() if "_native.c " in line)
    limited = limited and not sysconfig.get_config_var("Py_GIL_DISABLED")
    assert ("-DPy_LIMITED_API=0x030B0000" in module) is limited
    (made,) = stale.parent.iterdir()  # one module, whatever lay there before
    assert (made.name == "_native.abi3.so") is limited


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has its lock for good")
def test_importing_leaves_the_interpreter_lock_off():
    script = "import sys, fastconv; sys.exit(sys._is_gil_enabled())"
    environment = {**os.environ, "PYTHONPATH": str(Path(fastconv.__file__).parents[1])}
    assert subprocess.run([sys.executable, "-P", "-c", script], env=environment).returncode == 0


def test_the_installed_package_is_small():
    """Under 10 MB, the compiled module included."""
    folder = Path(fastconv.__file__).parent
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc") < 10e6
