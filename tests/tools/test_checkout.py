"""In the folder of the sources: `import fastconv` finds the Python files there, and what an installation compiled."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastconv
from fastconv import _native
from fastconv._core import built

ROOT = Path(__file__).parents[2]
INSTALLED = Path(fastconv.__file__).parents[1]  # stands for site-packages
SCRIPT = (
    "import fastconv, numpy; from fastconv import _native; "
    "print(fastconv.__file__, _native.__file__, fastconv.conv2d(numpy.ones((1, 1, 3, 3)), numpy.ones((1, 1, 3, 3))))"
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The sources as they are cloned: nothing is compiled."""
    without = shutil.ignore_patterns("*.so", "*.pyd", "*.dll", "__pycache__")
    for name in ("fastconv", "src"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=without)
    return tmp_path


def python(folder: Path, *words: str, installed: Path | None = INSTALLED) -> subprocess.CompletedProcess[str]:
    """Python in that folder, which comes first on its path, with one installation behind it or none."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    behind = [str(installed)] if installed else []
    return subprocess.run(
        [sys.executable, *([] if installed else ["-c", _without_installations(words)]), *(words if installed else ())],
        cwd=folder, env={**kept, "PYTHONPATH": os.pathsep.join(behind), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip


def _without_installations(words: tuple[str, ...]) -> str:
    """A script that takes away whatever fastconv this Python has, and then does as `python WORDS`."""
    return f"""
import importlib.machinery as m, os, runpy, sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
sys.path[1:] = [path for path in sys.path[1:] if not os.path.isdir(os.path.join(path, "fastconv"))]
words = {words!r}
sys.argv = list(words[1:])
if words[0] == "-m": runpy._run_module_as_main(words[1])
else: exec(words[1])
"""


def test_the_module_knows_the_sources_that_it_was_built_from():
    assert _native.sources() == built.fingerprint(ROOT / "src"), "build again: make build"


def test_line_ends_do_not_matter(checkout):
    before = built.fingerprint(checkout / "src")
    for path in (checkout / "src").rglob("*.h"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    (checkout / "src" / "_native.c").write_text("what Cython made")
    assert built.fingerprint(checkout / "src") == before
    with open(checkout / "src" / "tasks.c", "a") as file:
        file.write("\n")
    assert built.fingerprint(checkout / "src") != before


@pytest.mark.parametrize("start", ["-c", "-m", "file"])
def test_an_installation_serves_the_folder_of_its_sources(start, checkout):
    (checkout / "script.py").write_text(SCRIPT)
    words = {"-c": ("-c", SCRIPT), "-m": ("-m", "script"), "file": ("script.py",)}[start]
    done = python(checkout, *words)
    assert done.returncode == 0, done.stderr
    own, native, value = done.stdout.split()
    assert Path(own).parent == checkout / "fastconv" and Path(native) == Path(_native.__file__)
    assert value == "[[[[9.]]]]" and done.stderr == ""


def test_the_command_and_its_tests_run_there(checkout):
    done = python(checkout, "-m", "fastconv", "info")
    assert done.returncode == 0 and done.stderr == "" and _native.isa_name() in done.stdout
    (checkout / "test_it.py").write_text("import fastconv\ndef test(): assert fastconv.info()['isa']\n")
    done = python(checkout, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py")
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr


def test_without_the_native_sources_the_version_decides(checkout):
    shutil.rmtree(checkout / "src")
    assert python(checkout, "-c", SCRIPT).returncode == 0
    init = checkout / "fastconv" / "__init__.py"
    init.write_text(init.read_text().replace(f'__version__ = "{fastconv.__version__}"', '__version__ = "0.0.1"'))
    done = python(checkout, "-c", SCRIPT)
    assert done.returncode != 0 and "other sources" in done.stderr.splitlines()[-1]


def test_an_installation_of_other_sources_is_named(checkout):
    with open(checkout / "src" / "tasks.c", "a") as file:
        file.write("/* changed */\n")
    for words in (("-c", "import fastconv"), ("-m", "fastconv", "info")):
        done = python(checkout, *words)
        last = done.stderr.splitlines()[-1]
        assert done.returncode != 0 and "other sources" in last and "pip install ." in last
        assert str(checkout) in last and str(INSTALLED / "fastconv") in last
    assert done.stderr.count("\n") <= 1  # the command prints no traceback


def test_where_nothing_is_built_one_line_says_what_to_do(checkout):
    for words in (("-c", "import fastconv"), ("-m", "fastconv", "info")):
        done = python(checkout, *words, installed=None)
        last = done.stderr.splitlines()[-1]
        assert done.returncode != 0 and "not built here" in last
        assert "pip install ." in last and "make build" in last and str(checkout) in last
    assert "Traceback" not in done.stderr and done.stderr.count("\n") <= 1
