"""The Python examples of the documentation run, and say what is true: they end in assertions of their own."""

import os
import re
from math import log2
from pathlib import Path

import pytest

from fastconv._core.select import WAYS
from fastconv._native import LONG_SUM
from fastconv.testing.problems import conv_cases
from fastconv.testing.ways import trials

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def examples() -> list[object]:
    """(code, its first line's number) of every block of Python, line numbers kept for the traceback."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, block.start(1))
            found.append(pytest.param(page, "\n" * line + block[1], id=f"{page.name}:{line + 1}"))
    return found


@pytest.mark.parametrize("page, code", examples())
def test_the_examples_run(page, code):
    if "torch" in code:
        pytest.importorskip("torch")
    if "import keras" in code:
        os.environ.setdefault("KERAS_BACKEND", "torch")
        pytest.importorskip("keras")
    exec(compile(code, str(page), "exec"), {"__name__": "example"})


def test_the_readme_has_an_example_for_each_reader():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for reader in ("PyTorch", "Keras", "SciPy"):
        assert re.search(rf"^## Coming from {reader}\n[^#]*?^```python\n", text, re.MULTILINE), reader


def test_the_pages_link_to_files_that_exist():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            made = target.startswith("gallery/")  # by `make docs`
            assert made or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_accuracy_page_states_the_bound_of_every_way():
    text = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
    stated = {
        name: (norm, int(roundings), int(lost))
        for names, roundings, norm, lost in re.findall(
            r"^    ([a-z][^|]*)\n +\|y − y_ref\| ≤ \(C \+ (\d+)\) \(u · (\S).*? \+ (\d+) η\)$", text, re.MULTILINE
        )
        for name in names.split(", ")
    }
    for way in WAYS:
        trial = next(trial for case in conv_cases(50) for trial in trials(way, case))
        p, bound = trial.problem, trial.bound
        if bound.norm == "sum":
            assert f"(min(n, {LONG_SUM}) + 2) u S + (n + 2) η" in text
            continue
        g = p.geometry  # the bound is a line in the channels
        twice = way.method.bound(p._replace(geometry=g._replace(in_channels=2 * g.in_channels)), way.variant)
        letter = {"plane": "Σ", "image": "C"}[bound.norm]
        lost, rest = divmod(bound.lost, bound.roundings)
        assert rest == 0 and stated[way.wish] == (letter, 2 * bound.roundings - twice.roundings, lost)
        if bound.added:
            exponent = str(-int(log2(bound.added))).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
            assert f"2⁻{exponent}" in text
