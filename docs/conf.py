"""Configuration of the documentation: `make docs`."""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sphinx_gallery.scrapers import figure_rst

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import pictures  # noqa: E402

import fastconv  # noqa: E402

project = "fastconv"
author = "fastconv developers"
copyright = "fastconv developers, BSD 3-clause licence"
version = release = fastconv.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
# Links from pages into the checkout, which are right on the forge that shows it, have no page here.
suppress_warnings = ["myst.xref_missing", "config.cache"]

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = False  # numpydoc brings the extension along
autodoc_typehints = "none"  # the signatures hold long unions; the text says what is taken
autodoc_member_order = "bysource"
autodoc_mock_imports = [name for name in ("torch", "onnx", "dask") if find_spec(name) is None]
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = f"fastconv {version}"
html_static_path = ["static"]
html_css_files = ["fastconv.css"]
html_theme_options = {"show_toc_level": 2, "secondary_sidebar_items": ["page-toc"], "navigation_with_keys": True}


# ---- examples, by sphinx-gallery -----------------------------------------------------------------------------------

RUN_IN_FULL = ("bottleneck", "kinds_of_convolution", "padding", "small_kernels")
RUN_QUICKLY = ("dense_or_convolution", "other_sizes", "stride_or_pooling", "width_or_depth")  # nets, large or trained
OUTPUT = HERE.parent / "examples" / "examples-output"  # where a script run in its own folder saves its picture


def arguments(gallery_conf: dict[str, Any], script: dict[str, Any]) -> list[str]:
    """The command line of an example."""
    return ["--quick"] if Path(script["src_file"]).stem in RUN_QUICKLY else []


def saved_pictures(block: Any, script: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """The pictures that an example saved, moved to its page, under the example's title as their text."""
    places = []
    for picture in sorted(OUTPUT.glob("*.png")):
        places.append(next(script["image_path_iterator"]))
        shutil.move(picture, places[-1])
    if OUTPUT.exists():
        OUTPUT.rmdir()
    title = Path(script["src_file"]).read_text(encoding="utf-8").splitlines()[1]
    return figure_rst(places, gallery_conf["src_dir"], f"Picture: {title}")


sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": rf"[\\/]({'|'.join((*RUN_IN_FULL, *RUN_QUICKLY))})\.py$",
    "ignore_pattern": r"[\\/]_",
    "reset_argv": arguments,
    "image_scrapers": (saved_pictures,),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "plot_gallery": True,
}


def setup(app: Any) -> None:
    pictures.draw(HERE / "gallery" / "pictures")  # before pages are read
