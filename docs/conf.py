"""Configuration of the documentation: `make docs`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import pictures

import fastconv

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
ELSEWHERE = {"mobilenet", "dask_zarr"}  # one needs weights of its own, one two gigabytes of disk

project = "fastconv"
author = "fastconv developers"
copyright = "fastconv developers, BSD 3-clause licence"
version = release = fastconv.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "numpydoc"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autosummary_generate = False  # numpydoc brings the extension along
autodoc_typehints = "none"  # the signatures hold long unions; the text says what is taken
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
html_theme = "pydata_sphinx_theme"
html_title = f"fastconv {version}"
html_theme_options = {"show_toc_level": 2, "secondary_sidebar_items": ["page-toc"], "navigation_with_keys": True}
# Links from pages into the checkout, which are right on the forge that shows it, have no page here.
suppress_warnings = ["myst.xref_missing"]


def run_examples(app: Any) -> None:
    """A page for each example with what it prints, its picture and its source, from a run at build time."""
    folder = HERE / "gallery"
    folder.mkdir(exist_ok=True)
    names = sorted(path.stem for path in EXAMPLES.glob("[a-z]*.py") if path.stem not in ELSEWHERE)
    search = os.pathsep.join(filter(None, [str(Path(fastconv.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]))
    titles = []
    for name in names:
        source = EXAMPLES / f"{name}.py"
        page, picture = folder / f"{name}.md", folder / f"{name}.png"
        title, _, rest = source.read_text().split('"""')[1].partition("\n")
        titles.append(name)
        if page.exists() and picture.exists() and page.stat().st_mtime > source.stat().st_mtime:
            continue
        done = subprocess.run(
            [sys.executable, str(source), "--quick", "--output", str(folder)], capture_output=True, text=True,
            check=False, env={**os.environ, "PYTHONPATH": search},
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{source.name} failed: {done.stderr}")
        page.write_text(
            f"# {title.rstrip('.')}\n\n{rest.strip()}\n\n![{title}]({name}.png)\n\n"
            f"Printed at build time, with `--quick`:\n\n```text\n{done.stdout.strip()}\n```\n\n"
            f":::{{literalinclude}} ../../examples/{name}.py\n:language: python\n:::\n"
        )
    toctree = "\n".join(titles)
    (folder / "index.md").write_text(
        "# Examples\n\nQuestions about convolution, answered by scripts in `examples/` that ran when this page was "
        f"built.\n\n:::{{toctree}}\n:maxdepth: 1\n\n{toctree}\n:::\n"
    )


def setup(app: Any) -> None:
    pictures.draw(HERE / "gallery" / "pictures")  # before pages are read
    app.connect("builder-inited", run_examples)
