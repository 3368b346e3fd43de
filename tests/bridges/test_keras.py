"""`fastconv.keras`: what must hold without Keras, and the checks of `tests/keras_on.py` in Keras on both backends."""

import json
import os
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest

import fastconv
from fastconv.keras.finding import supported
from fastconv.keras.tally import Tally

ROOT = Path(fastconv.__file__).parents[1]
SCRIPT = Path(__file__).parents[1] / "keras_on.py"


def python(*arguments, path=(), **variables):
    """Python in a process of its own, with the fastconv under test."""
    folders = os.pathsep.join(filter(None, [*map(str, path), str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": folders, "PYTHONDONTWRITEBYTECODE": "1", **variables},
    )  # fmt: skip


def refusal(path):
    """What `install` says, where `keras` is found in this folder first."""
    code = "import fastconv.keras as k\ntry: k.install()\nexcept ImportError as error: print(error)"
    done = python("-c", code, path=[path])
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_is_not_used_costs_nothing():
    code = """if True:
        import sys, fastconv
        assert not [name for name in sys.modules if name.startswith('fastconv.keras')]
        import fastconv.keras
        fastconv.keras.uninstall()
        print(fastconv.keras.report(), [name for name in ('keras', 'torch', 'jax') if name in sys.modules])
    """
    assert python("-c", code).stdout == "fastconv.keras: not installed; no calls yet []\n"


def test_missing_keras_is_named_with_the_extra(tmp_path):
    (tmp_path / "keras.py").write_text("raise ModuleNotFoundError(\"No module named 'keras'\", name='keras')")
    assert "pip install fastconv[keras]" in refusal(tmp_path)


def test_a_missing_framework_is_named_with_the_choice(tmp_path):
    (tmp_path / "keras.py").write_text("import tensorflow")
    (tmp_path / "tensorflow.py").write_text("raise ModuleNotFoundError('no', name='tensorflow')")
    said = refusal(tmp_path)
    assert "tensorflow" in said and "KERAS_BACKEND" in said


@pytest.mark.parametrize("version, backend, wanted", [
    ("2.15.0", "torch", "2.15.0 is installed"), ("3.3.1", "torch", "keras>=3.13,<4"), ("4.0", "torch", "before 4"),
    ("3.15.1", "jax", "'jax'"), ("3.15.1", "tensorflow", "KERAS_BACKEND"),
])  # fmt: skip
def test_versions_and_backends_that_are_not_taken_are_named(tmp_path, version, backend, wanted):
    (tmp_path / "keras.py").write_text(
        f"__version__ = {version!r}\nclass config:\n    backend = staticmethod(lambda: {backend!r})\n"
    )
    assert wanted in refusal(tmp_path)


def test_versions():
    taken = [v for v in ("3.12.4", "3.13.0", "3.15.1", "3.99.0rc1", "4.0.0", "unknown", "3", "") if supported(v)]
    assert taken == ["3.13.0", "3.15.1", "3.99.0rc1"]


def test_the_report_is_a_table():
    tally = Tally()
    for _ in range(1200):
        tally.took("conv")
    tally.left("max_pool", "float16")
    text = repr(tally.report("torch", True))
    assert text.splitlines()[1].split() == ["conv", "1,200"]
    assert text.splitlines()[2].split() == ["max_pool", "1", "float16"]
    assert text.endswith("installed in Keras on torch; 1,200 calls by fastconv, 1 by Keras itself")


@cache
def checks(backend):
    """What went wrong in each check on this backend."""
    done = python(str(SCRIPT), backend)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0 and lines, done.stderr
    return {line["check"]: line["wrong"] for line in lines}


def names(backend):
    """The checks as the script lists them: decorated functions."""
    lines = SCRIPT.read_text(encoding="utf-8").splitlines()
    wanted = (f'@check("{backend}")', '@check("both")')
    return [below.split()[1].partition("(")[0] for line, below in pairwise(lines) if line in wanted]


@pytest.mark.parametrize("backend, name", [(b, name) for b in ("numpy", "torch") for name in names(b)])
def test_in_keras(backend, name):
    if find_spec("keras") is None or (backend == "torch" and find_spec("torch") is None):
        pytest.skip(f"needs Keras on {backend}: pip install fastconv[keras]")
    wrong = checks(backend)[name]
    assert not wrong, wrong


def test_the_lecture_runs():
    if find_spec("keras") is None:
        pytest.skip("needs Keras: pip install fastconv[keras]")
    done = python(str(SCRIPT.parents[1] / "examples" / "keras_lecture.py"), "--quick", KERAS_BACKEND="numpy")
    assert done.returncode == 0 and "48 x 80" in done.stdout and "1x1 bottlenecks" in done.stdout, done.stderr


def test_the_lecture_says_what_is_missing(tmp_path):
    (tmp_path / "keras.py").write_text("raise ModuleNotFoundError(\"No module named 'keras'\", name='keras')")
    done = python(str(SCRIPT.parents[1] / "examples" / "keras_lecture.py"), path=[tmp_path])
    assert done.returncode == 1 and "fastconv[keras]" in done.stderr and done.stderr.count("\n") == 1
