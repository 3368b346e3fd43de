"""Show where the time of a net goes, step by step; --html writes it as a page to look at.

MODEL is a name of fastconv.models (a wrong name lists them all), an .onnx file, or path.py:function (or
module:function), which is executed and returns a model of fastconv or an ONNX model.

The page is one file that loads nothing: the net as a chain of steps with time, algorithm and why, share of the
machine's peak, bytes moved, memory in use and receptive field, as pictures and as a table that can be sorted. It is
drawn by Matplotlib (pip install fastconv[html]). What the machine can do is measured before and after it: multiply-adds
in registers and copies of large arrays, with as many threads.

  fastconv profile resnet50 --html resnet50.html --open
  fastconv profile mobilenet.onnx --input-size 224 --batch 8
  fastconv profile mynets.py:make_net --runs 50 --threads 1 --json figures.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import Any

from .._core.progress import Progress
from .._core.threads import get_num_threads, set_num_threads
from ..graph.summary import Profile
from ..models.catalogue import CATALOGUE
from .common import STDOUT, add_json, at_least, image_size, in_a_folder, write_json
from .given import Given, given_model
from .html import add_html, check_html, write_html
from .machine import one_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, how long, and where the page goes."""
    parser.add_argument(
        "model", metavar="MODEL", help=f"{', '.join(CATALOGUE)}, an .onnx file, or path.py:function"
    )
    add_html(parser, "the profile")
    parser.add_argument(
        "--input-size", type=image_size, metavar="S",
        help="side, or HEIGHTxWIDTH, of the images (default: the model's own)",
    )  # fmt: skip
    parser.add_argument("--batch", type=at_least(1), metavar="N", help="samples of a run (default: 1)")
    parser.add_argument(
        "--runs", type=at_least(1), default=10, metavar="N", help="runs to take the mean of (default: %(default)s)"
    )
    parser.add_argument("--threads", type=at_least(1), metavar="N", help="threads (default: all)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Prepare, measure, show."""
    in_a_folder(args.json)
    check_html(args)
    before = get_num_threads()
    if args.threads:
        set_num_threads(args.threads)
    try:
        _run(args)
    finally:
        set_num_threads(before)
    return 0


def _run(args: argparse.Namespace) -> None:
    kept: dict[str, Any] = {}
    stages: list[tuple[str, Callable[[], Any]]] = [
        ("model", lambda: given_model(args.model, args.input_size, args.batch)),
        *([("machine", _roof)] if args.html else []),
        ("profile", lambda: kept["model"].profile(args.runs)),
        *([("machine", lambda: _higher(kept["machine"], _roof()))] if args.html else []),  # the clock may have changed
        *([("page", lambda: _page(kept["model"], kept["profile"], kept["machine"]))] if args.html else []),
    ]
    with Progress(len(stages), "profile", sys.stderr.isatty(), "stages") as bar:
        for name, do in stages:
            kept[name] = do()
            bar.step(1, name)
    profile: Profile = kept["profile"]
    given: Given = kept["model"]
    if args.html:  # first: who reads the text may go away
        write_html(kept["page"], args)
    write_json(_figures(given, profile), args.json)
    if args.json != STDOUT:
        print(f"{given.title}: " + ", ".join(f"{name} {list(x.shape)}" for name, x in given.feeds.items()))
        print(profile)


def _roof() -> Any:
    """What this machine can do."""
    from ..bench.suite import copy_speed, fma_peak
    from ..pages.charts import Roof

    threads = get_num_threads()
    return Roof(fma_peak(threads), copy_speed(threads))


def _higher(before: Any, after: Any) -> Any:
    return type(before)(max(before.gflops, after.gflops), max(before.gbytes, after.gbytes))


def _page(given: Given, profile: Profile, roof: Any) -> str:
    from ..pages.profile import About, profile_page

    inputs = {name: x.shape for name, x in given.feeds.items()}
    date = datetime.now().astimezone().isoformat(" ", "minutes")
    return profile_page(profile, About(given.title, inputs, one_line(), date, roof))


def _figures(given: Given, profile: Profile) -> dict[str, Any]:
    """The same for programs."""
    return {
        "model": given.title, "inputs": {name: list(x.shape) for name, x in given.feeds.items()}, "runs": profile.runs,
        "seconds": profile.seconds, "steps": [asdict(step) for step in profile.steps],
    }  # fmt: skip
