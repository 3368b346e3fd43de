"""Configuration of the documentation: `make docs`."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sphinx_gallery.scrapers import figure_rst

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import pictures  # noqa: E402

import fastconv  # noqa: E402
from fastconv.bench.plot import save_plot  # noqa: E402
from fastconv.bench.report import groups, read  # noqa: E402

project = "fastconv"
author = "fastconv developers"
copyright = "fastconv developers, BSD 3-clause licence"
version = release = fastconv.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
suppress_warnings = ["config.cache"]  # a function and a class in the settings of sphinx-gallery

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

default_role = "py:obj"  # a single backtick is a name, and a link where the reference has it
autosummary_generate = False  # numpydoc brings the extension along
autodoc_typehints = "none"  # the signatures hold long unions; the text says what is taken
autodoc_member_order = "bysource"
autodoc_mock_imports = [name for name in ("torch", "onnx", "dask") if find_spec(name) is None]
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = f"fastconv {version}"
html_static_path = ["static"]
html_css_files = ["fastconv.css"]
html_theme_options = {
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "navigation_with_keys": True,
    "header_links_before_dropdown": 6,
}
html_sidebars = {name: [] for name in ("index", "start", "search", "genindex", "py-modindex")}  # nothing beside them


# ---- examples, by sphinx-gallery -----------------------------------------------------------------------------------

# In the order of the gallery, with the arguments to run them by; None: shown without a run.
SCRIPTS: dict[str, list[str] | None] = {
    "kinds_of_convolution": [],
    "padding": [],
    "small_kernels": [],
    "bottleneck": [],
    "stride_or_pooling": ["--quick"],
    "dense_or_convolution": ["--quick"],
    "other_sizes": ["--quick"],
    "unet": [],
    "volume": [],
    "pitch": [],
    "width_or_depth": ["--quick"],
    "richardson_lucy": ["--quick"],
    "mobilenet": None,
    "run_onnx": None,
    "dask_zarr": None,
    "train_ddp": None,
    "keras_lecture": None,
}
OUTPUT = HERE.parent / "examples" / "examples-output"  # where a script run in its own folder saves its picture


def arguments(gallery_conf: dict[str, Any], script: dict[str, Any]) -> list[str]:
    """The command line of an example."""
    return SCRIPTS[Path(script["src_file"]).stem] or []


class GalleryOrder:
    """Sorts as SCRIPTS does."""

    def __init__(self, folder: str) -> None:
        self.order = list(SCRIPTS)

    def __call__(self, name: str) -> int:
        return self.order.index(Path(name).stem)


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
    "filename_pattern": rf"[\\/]({'|'.join(name for name, given in SCRIPTS.items() if given is not None)})\.py$",
    "ignore_pattern": r"_common\.py$",
    "reset_argv": arguments,
    "image_scrapers": (saved_pictures,),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "within_subsection_order": GalleryOrder,
    "default_thumb_file": str(HERE / "static" / "not_run.svg"),
    "write_computation_times": False,
}


def with_pictures(app: Any, page: str, source: list[str]) -> None:
    """The page of measured tables with a picture in each fold that has a name."""
    if page == "performance":
        picture = r"\g<0>\n\n![Speed of fastconv and the others, layer by layer](gallery/pictures/\1.svg)"
        source[0] = re.sub(r'^<details id="(\S+)">\n.*$', picture, source[0], flags=re.MULTILINE)


def setup(app: Any) -> None:
    """Draw what pages show, before they are read: the algorithms, and every set and pass that was measured."""
    folder = HERE / "gallery" / "pictures"
    pictures.draw(folder)
    for results in (HERE.parent / "bench" / "results").glob("*/*.jsonl"):
        for report in read(results):
            for _, pass_name, rows in groups(report.rows):
                name = f"{results.parent.name}-{results.stem}-{pass_name}"
                save_plot(replace(report, rows=rows), folder / f"{name}.svg")
    app.connect("source-read", with_pictures)
