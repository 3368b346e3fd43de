"""The house itself: methods are known by their list alone, files and functions stay readable, floors do not circle."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastconv
from fastconv._core.methods import METHODS

PACKAGE = Path(fastconv.__file__).parent
CORE = PACKAGE / "_core"
MODULES = sorted(path for path in PACKAGE.rglob("*.py*") if path.suffix in (".py", ".pyi"))
CORE_MODULES = sorted(CORE.rglob("*.py"))
MOST_LINES, MOST_FUNCTION_LINES = 400, 60
NAMES = re.compile("winograd|strassen|fft", re.IGNORECASE)
MOST_MODULES_THAT_NAME_A_METHOD = 3
# ONNX's own operators DFT and STFT, SciPy's own functions and words, Keras' of that name: no methods of convolution.
OTHERS_WORDS = (
    "graph/operators/transforms.py", "keras/finding.py", "scipy/signal.py", "scipy/convolutions.py",
    "scipy/transforms.py",
)  # fmt: skip
# What is not finite is computed again directly, whatever the method was.
FALLBACK = ("_core/special.py", "_core/methods/direct.py")


SOURCES = Path(__file__).parents[2] / "src"
MOST_COLUMNS = 127  # of C and Cython: a comment behind 120 columns of code may end here


def short(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def docstrings(tree: ast.Module) -> set[int]:
    """The ids of the string constants that are prose: docstrings, and the strings under a constant."""
    return {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def words(path: Path) -> Iterator[str]:
    """Identifiers and string literals of a module; comments and docstrings are prose."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    prose = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.value
        for field in ("id", "name", "attr", "arg", "asname", "module"):
            if isinstance(value := getattr(node, field, None), str):
                yield value


def test_lines_of_native_code_are_no_longer_than_a_screen_is_wide() -> None:
    sources = [path for path in SOURCES.rglob("*") if path.suffix in (".c", ".h", ".pxd", ".pxi", ".pyx")]
    assert sources
    assert not [
        (path.name, number)
        for path in sources
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > MOST_COLUMNS
    ]


def test_few_modules_name_a_method() -> None:
    naming = {
        short(path): sorted({word for word in words(path) if NAMES.search(word)})
        for path in MODULES
        if not short(path).startswith(("_core/methods/", "reference/")) and short(path) not in OTHERS_WORDS
    }
    naming = {name: found for name, found in naming.items() if found}
    assert len(naming) <= MOST_MODULES_THAT_NAME_A_METHOD, naming


@pytest.mark.parametrize("path", CORE_MODULES, ids=short)
def test_files_and_functions_of_the_core_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            first = node.body[0]
            prose = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            own = (node.end_lineno or 0) - node.lineno + 1
            if prose:
                own -= (first.end_lineno or 0) - first.lineno + 1
            assert own <= MOST_FUNCTION_LINES, node.name


def imports(path: Path, at_import_time: bool) -> Iterator[Path]:
    """The modules of the package that a module imports; `at_import_time` leaves out those inside functions and for
    types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[int] = set()
    for node in ast.walk(tree):
        typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if at_import_time and (typing or isinstance(node, ast.FunctionDef)):
            skipped |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or id(node) in skipped or not node.level:
            continue
        base = path.parent
        for _ in range(node.level - 1):
            base = base.parent
        base = base.joinpath(*(node.module or "").split("."))
        found = [base / alias.name for alias in node.names]
        for target in (*found, base):
            for file in (target.with_suffix(".py"), target / "__init__.py"):
                if file.exists() and file != path:
                    yield file


def test_nobody_imports_a_method_but_the_list() -> None:
    own = {CORE / "methods" / f"{method.program.__module__.rsplit('.', 1)[1]}.py" for method in METHODS}
    assert len(own) == len(METHODS)
    found = {
        (short(path), short(target))
        for path in MODULES
        if path.suffix == ".py" and path.parent.name != "methods"
        for target in imports(path, at_import_time=False)
        if target in own
    }
    assert found <= {FALLBACK}


def test_the_core_imports_in_one_direction() -> None:
    graph = {path: set(imports(path, at_import_time=True)) for path in CORE_MODULES}
    done: set[Path] = set()

    def visit(path: Path, above: tuple[Path, ...]) -> None:
        assert path not in above, " -> ".join(short(p) for p in (*above[above.index(path) :], path))
        if path in done or path not in graph:
            return
        for target in graph[path]:
            visit(target, (*above, path))
        done.add(path)

    for path in graph:
        visit(path, ())
    assert len(done) == len(graph)


def test_the_list_names_what_it_says() -> None:
    words_, titles = {method.word for method in METHODS}, [method.title for method in METHODS]
    assert len(set(titles)) == len(titles) and METHODS[-1].word == "direct" in words_
    for method in METHODS:
        assert method.variants and len(set(method.variants)) == len(method.variants)
        assert set(method.former.values()) <= set(method.variants)
