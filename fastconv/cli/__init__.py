"""The command line: `fastconv COMMAND` or `python -m fastconv COMMAND`.

A command is a module of this package named in `COMMANDS`. Its docstring is the description that `--help` shows;
`add_arguments(parser)` declares its options and `run(args)` does the work and returns the exit status. Only the module
of the command that was given is imported, and it imports optional packages when it uses them (`common.require`).

Exit status: 0 done, 1 the command failed, 2 bad usage, 130 interrupted. An error is one line on standard error.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Container, Sequence
from importlib import import_module
from typing import NoReturn

from .. import __version__
from ..errors import ConvError, ConvTypeError
from .common import CommandError

COMMANDS = {
    "info": "show the version, the instruction set, the threads and why there are so many",
    "check": "compare the compiled code with the NumPy reference on this machine",
    "summary": "show the layers of a model: shapes, weights, multiply-adds, memory, receptive field",
    "bench": "time the layers of real networks beside PyTorch, ONNX Runtime, OpenVINO, ncnn and im2col + BLAS",
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
    """Run the command line `argv` (default: that of the process) and return the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    command = "fastconv"
    try:
        given = next((word for word in argv if not word.startswith("-")), "")
        args = build_parser((given,)).parse_args(argv)
        command = f"fastconv {args.command}"
        status: int = args.run(args)
        sys.stdout.flush()
        return status
    except SystemExit as stop:  # argparse: bad usage, --help or --version, already printed
        return stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt:
        print(f"\n{command}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader went away, as in `fastconv check | head`: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (CommandError, ConvError, ConvTypeError, OSError, MemoryError) as error:
        print(f"{command}: error: {str(error) or type(error).__name__}", file=sys.stderr)
        return 1
