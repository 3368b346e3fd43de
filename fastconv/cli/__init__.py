"""The command line: `fastconv COMMAND` or `python -m fastconv COMMAND`.

A command is a module of this package named in `COMMANDS`. Its docstring is the description that `--help` shows;
`add_arguments(parser)` declares its options and `run(args)` does the work and returns the exit status. Only the module
of the command that was given is imported, and it imports optional packages when it uses them (`common.require`).

Exit status: 0 done, 1 the command failed, 2 bad usage, 130 interrupted. An error is one line on standard error.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Container, Sequence
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

from .. import __version__
from ..errors import ConvError, ConvTypeError
from .common import CommandError

COMMANDS = {
    "info": "show the version, the instruction set, the threads and why there are so many",
    "check": "compare the compiled code with the NumPy reference on this machine",
    "summary": "show the layers of a model: shapes, weights, multiply-adds, memory, receptive field",
    "profile": "show where the time of a net goes, step by step, also as a page for the browser",
    "bench": "time the layers of real networks beside PyTorch, ONNX Runtime, OpenVINO, ncnn and im2col + BLAS",
    "quantize": "make an 8-bit ONNX model of one of floats, with a report of the error layer by layer",
    "run": "run an ONNX model on a picture and list what it says",
    "demo": "filter a photograph, train a network on digits and time convolutions, with pictures",
    "completion": "print a script that completes commands and options in bash, zsh or fish",
}

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class _Parser(argparse.ArgumentParser):
    """Reports bad usage in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def build_parser(given: Container[str]) -> argparse.ArgumentParser:
    """The parser, with the options of the commands that `given` holds."""
    parser = _Parser(
        prog="fastconv",
        description="Fast, exact convolution for NumPy arrays on CPUs.",
        epilog="fastconv COMMAND --help explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"fastconv {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(
            name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )
        if name in given:
            module = import_module(f".{name}", __name__)
            command.description = module.__doc__
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: that of the process) and return the exit status.

    Here alone what goes wrong becomes a line and a status; what is not foreseen keeps its traceback.
    """
    if argv is None:
        argv = sys.argv[1:]
        _ready_streams()
    given = next((word for word in argv if not word.startswith("-")), "")
    command = f"fastconv {given}" if given in COMMANDS else "fastconv"
    try:
        if sys.stdout is None:
            raise CommandError("standard output is closed")
        status = _run(argv, given)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        _report(f"\n{command}: interrupted")
        status = INTERRUPTED
    except BrokenPipeError:  # the reader went away, as in `fastconv check | head`: nobody is left to tell
        status = 1
    except (CommandError, ConvError, ConvTypeError, OSError, MemoryError) as error:
        _report(f"{command}: error: {' '.join(str(error).split()) or type(error).__name__}")
        status = 1
    _let_go()
    return status


def _run(argv: Sequence[str], given: str) -> int:
    try:
        args = build_parser((given,)).parse_args(argv)
        status: int = args.run(args)
        return status
    except SystemExit as stop:  # argparse: bad usage, --help or --version, already printed
        return stop.code if isinstance(stop.code, int) else 1


def _ready_streams() -> None:
    """Standard streams that take every text: a terminal without some letter shows its number."""
    if sys.stderr is None:  # closed by the caller, who wants to hear of nothing
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  until the process ends
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _report(line: str) -> None:
    with suppress(OSError):
        print(line, file=sys.stderr)


def _let_go() -> None:
    """Write what was printed; if that is impossible, have Python not try again when it ends."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
