"""Where the compiled module is: beside this file or, in a checkout that was installed, in the installation.

In the folder of the sources `import fastconv` finds the Python files there, and after `pip install .` no compiled
module among them. That of the installation serves then, if it was built from the sources in this folder; if not, or if
there is none, one sentence says what to do.

setup.py reads this file for `fingerprint` before anything is installed: it imports nothing but the standard library.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Final

NATIVE: Final = "fastconv._native"
SOURCE_SUFFIXES: Final = frozenset((".c", ".h", ".pyx", ".pxi", ".pxd"))
AGAIN: Final = "Run `pip install .` (or `make build`) in {checkout} again; `python -P` uses the installed one as it is."


def fingerprint(sources: Path) -> int:
    """A number of 64 bits that stands for the native sources in a folder, whatever ends their lines."""
    import hashlib  # here, as an ordinary import of the package needs none of it

    digest = hashlib.sha256()
    for path in sorted(sources.rglob("*"), key=lambda path: path.relative_to(sources).as_posix()):
        if path.suffix in SOURCE_SUFFIXES and path != sources / "_native.c":
            text = path.read_bytes().replace(b"\r\n", b"\n")
            digest.update(f"{path.relative_to(sources).as_posix()} {len(text)} ".encode() + text)
    return int.from_bytes(digest.digest()[:8], "big")


def find_native(package: Path) -> None:
    """Make sure that `fastconv._native` can be imported, for the package in this folder.

    Raises
    ------
    ImportError
        If it is compiled nowhere, or installed from other sources; in one line.
    """
    if importlib.util.find_spec(NATIVE) is not None:
        return
    checkout, other = package.parent, None
    for spec in _installed(package):
        module = importlib.util.module_from_spec(spec)
        assert spec.loader is not None and spec.origin is not None
        spec.loader.exec_module(module)
        if _same_sources(package, Path(spec.origin).parent, getattr(module, "sources", lambda: 0)()):
            sys.modules[NATIVE] = sys.modules["fastconv"]._native = module  # type: ignore[attr-defined]
            return
        sys.modules.pop(NATIVE, None)  # where it put itself
        other = other or Path(spec.origin).parent
    if other is not None:
        _refuse(
            f"the fastconv that is installed in {other} was built from other sources than those in {checkout}. "
            + AGAIN.format(checkout=checkout)
        )
    _refuse(
        f"fastconv is not built here: run `pip install .` or `make build` in {checkout} (Python "
        f"{sys.version_info.major}.{sys.version_info.minor} finds no compiled module in {package}, and no installed "
        "fastconv)."
    )


def _installed(package: Path) -> Iterator[ModuleSpec]:
    """The compiled modules of the fastconv packages elsewhere along the path, editable installations included."""
    found = [PathFinder.find_spec("fastconv", [entry]) for entry in sys.path]
    for finder in sys.meta_path:
        if finder is not PathFinder and hasattr(finder, "find_spec"):
            found.append(finder.find_spec("fastconv", None))
    for spec in found:
        for folder in (spec and spec.submodule_search_locations) or ():
            if Path(folder).resolve() != package.resolve():
                native = PathFinder.find_spec(NATIVE, [folder])
                if native is not None:
                    yield native


def _same_sources(package: Path, installed: Path, built_from: int) -> bool:
    """Whether an installed module belongs to this package: by the sources if they are here, else by the version."""
    sources = package.parent / "src"
    if (sources / "_native.pyx").is_file():
        return built_from == fingerprint(sources)
    return _version(package) == _version(installed)


def _version(package: Path) -> str:
    import re

    text = (package / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.*)"$', text, re.MULTILINE)
    return found[1] if found else ""


def _refuse(message: str) -> None:
    from ..errors import import_refused

    import_refused(message)


if __name__ == "fastconv._core.built":  # and not where setup.py reads this file
    find_native(Path(__file__).parents[1])
