"""The examples in docstrings and pages give what they say."""

from __future__ import annotations

import doctest
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import fastconv

DOCS = Path(__file__).parents[2] / "docs"
PACKAGE = Path(fastconv.__file__).parent


def _with_examples(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.rglob(pattern) if ">>> " in path.read_text(encoding="utf-8"))


MODULES = [
    ".".join(("fastconv", *path.relative_to(PACKAGE).with_suffix("").parts))
    for path in _with_examples(PACKAGE, "*.py")
]
PAGES = [path for path in _with_examples(DOCS, "*.md") if path.relative_to(DOCS).parts[0] not in ("gallery", "_build")]


def _skip_without_dask(name: str) -> None:
    if ("dask" in name or name == "scale.md") and find_spec("dask") is None:
        pytest.skip("needs dask: pip install fastconv[dask]")


@pytest.fixture(autouse=True)
def _numpy_2() -> None:
    if np.lib.NumpyVersion(np.__version__) < "2.0.0":
        pytest.skip("the examples show scalars as NumPy 2 prints them")


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str) -> None:
    _skip_without_dask(name)
    done = doctest.testmod(import_module(name))
    assert done.attempted > 0 and done.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages(page: Path) -> None:
    _skip_without_dask(page.name)
    text = re.sub(r"^```.*$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE)  # a fence ends an output
    test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    done = doctest.DocTestRunner().run(test)
    assert done.attempted > 0 and done.failed == 0


def test_there_are_examples() -> None:
    assert len(MODULES) >= 10 and {"start.md", "coming_from.md", "scipy.md", "scale.md"} <= {p.name for p in PAGES}
