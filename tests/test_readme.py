"""The Python examples of the documentation run, and say what is true: they end in assertions of their own."""

import re
from math import log2
from pathlib import Path

import pytest

from fastconv import choice
from fastconv.testing import comparisons

ROOT = Path(__file__).parents[1]
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


def test_the_accuracy_page_states_the_bound_of_the_code():
    text = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
    assert f"(min(n, {choice.LONG_SUM}) + 2) u S + (n + 2) η" in text
    for terms in choice.WINOGRAD_TERMS.values():
        assert f"(C + {terms}) (u · Σ_c" in text
    exponent = str(-int(log2(comparisons.WINOGRAD_ADDED))).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    assert f"2⁻{exponent}" in text and text.count(f"+ {comparisons.WINOGRAD_LOST} η)") == 2
    assert f"max|weight| + {comparisons.STRASSEN_LOST} η)" in text
    assert all(name in text for name in (*choice.WINOGRAD_TERMS, *choice.STRASSEN))
