"""The options --html and --open, of the commands that write a page."""

from __future__ import annotations

import argparse
import sys
import webbrowser
from pathlib import Path

from .common import CommandError, in_a_folder, require


def add_html(parser: argparse.ArgumentParser, what: str) -> None:
    """The options of a page."""
    parser.add_argument("--html", metavar="FILE", help=f"write {what} as a page for the browser into FILE")
    parser.add_argument("--open", action="store_true", help="then show the page in the browser")


def check_html(args: argparse.Namespace) -> None:
    """Before the work: that the page can be drawn and written."""
    if args.open and not args.html:
        raise CommandError("--open shows the page of --html FILE; give both")
    if args.html:
        require("matplotlib", "html")
        in_a_folder(args.html)


def write_html(page: str, args: argparse.Namespace) -> None:
    """Write the page, say so, and show it where that was asked for."""
    Path(args.html).write_text(page, encoding="utf-8")
    print(f"page: {args.html} ({len(page.encode()) / 1e3:,.0f} kB)", file=sys.stderr)
    if args.open and not webbrowser.open(Path(args.html).resolve().as_uri()):
        print(f"no browser was found; open {args.html} in one", file=sys.stderr)
