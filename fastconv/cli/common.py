"""What commands share: errors for people, optional packages, output folders and progress."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from ..progress import Progress

Item = TypeVar("Item")


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
