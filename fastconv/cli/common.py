"""What commands share: errors for people, optional packages, JSON, output folders and progress."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TypeVar

from .._core.progress import Progress

Item = TypeVar("Item")
STDOUT: Final = "-"  # in place of a file's name


class CommandError(Exception):
    """What went wrong, in one line for the person at the terminal."""


def at_least(least: int) -> Callable[[str], int]:
    """An argparse type: an integer not below `least`."""

    def integer(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"{number} is below {least}")
        return number

    return integer


def image_size(text: str) -> tuple[int, int]:
    """An argparse type: '224' or '320x480' (height, width)."""
    parts = text.lower().split("x")
    try:
        sides = tuple(int(part) for part in parts)
    except ValueError:
        sides = ()
    if len(sides) not in (1, 2) or not all(0 < side <= 1 << 15 for side in sides):
        raise argparse.ArgumentTypeError(f"must be a side such as 224 or HEIGHTxWIDTH, but got {text!r}")
    return sides[0], sides[-1]


def add_json(parser: argparse.ArgumentParser, form: str = "one JSON object") -> None:
    """The option --json: '-' or nothing behind it for standard output, else a file."""
    parser.add_argument(
        "--json", nargs="?", const=STDOUT, metavar="FILE",
        help=f"write the figures as {form} into FILE, or print that in place of the text ('-', or no FILE)",
    )  # fmt: skip


def in_a_folder(*paths: str | None) -> None:
    """Say before the work that a file could not be written after it."""
    for path in paths:
        if path is None or path == STDOUT:
            continue
        place = Path(path)
        if not place.parent.is_dir():
            raise CommandError(f"cannot write {path!r}: the folder {str(place.parent)!r} does not exist")
        if not path or place.is_dir():
            raise CommandError(f"cannot write {path!r}: it is a folder; give the name of a file in it")
        if not os.access(place if place.exists() else place.parent, os.W_OK):
            raise CommandError(f"cannot write {path!r}: permission denied")


def write_json(content: Any, target: str | None) -> None:
    """The content as JSON where --json wants it; nothing if it was not given. What is not finite becomes null."""
    if target is not None:
        write_text(json.dumps(finite(content), indent=2, allow_nan=False, default=str) + "\n", target)


def write_text(text: str, target: str | None) -> None:
    """The text of the figures where --json wants it."""
    if target == STDOUT:
        print(text, end="")
    elif target is not None:
        Path(target).write_text(text, encoding="utf-8")


def finite(content: Any) -> Any:
    """The same with None for infinities and NaN, which JSON does not have."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def require(name: str, extra: str) -> Any:
    """The optional module `name`, or a `CommandError` that says which extra installs it."""
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise CommandError(f"needs {package} ({error}); install it with: pip install fastconv[{extra}]") from error


def output_folder(path: str) -> Path:
    """The folder `path`, made if absent; a `CommandError` if nothing can be written in it."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CommandError(
            f"cannot write in the output folder {path!r}: {error.strerror or error}; choose another with --output"
        ) from error
    return folder


def progress(
    items: Iterable[Item], total: int, title: str, unit: str = "cases", show: bool | None = None
) -> Iterator[Item]:
    """The `total` items, with a progress bar on standard error; by default only if that is a terminal."""
    with Progress(total, title, sys.stderr.isatty() if show is None else show, unit) as bar:
        for item in items:
            yield item
            bar.step(1)
