"""The examples in docstrings and pages give what they say."""

from __future__ import annotations

import doctest
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
MODULES = ("fastconv.scipy.signal", "fastconv.scipy.ndimage", "fastconv.dask", "fastconv.tiles")
PAGES = ("start.md", "scipy.md", "scale.md")


def _skip_without_dask(name: str) -> None:
    if ("dask" in name or name == "scale.md") and find_spec("dask") is None:
        pytest.skip("needs dask: pip install fastconv[dask]")


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str) -> None:
    _skip_without_dask(name)
    done = doctest.testmod(import_module(name))
    assert done.attempted > 0 and done.failed == 0


@pytest.mark.parametrize("name", PAGES)
def test_pages(name: str) -> None:
    _skip_without_dask(name)
    done = doctest.testfile(str(DOCS / name), module_relative=False)
    assert done.attempted > 0 and done.failed == 0
