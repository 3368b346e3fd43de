"""Print a script that completes commands, options, file names and the names of models, layers and peers.

The script is made by shtab (pip install fastconv[completion]) and calls nothing when a key is pressed. Once for all:

  bash   fastconv completion bash > ~/.local/share/bash-completion/completions/fastconv
  zsh    fastconv completion zsh > DIRECTORY_OF_FPATH/_fastconv
  fish   fastconv completion fish > ~/.config/fish/completions/fastconv.fish

It completes the command `fastconv`, not `python -m fastconv`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, Final

from .common import require

SHELLS: Final = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which shell."""
    parser.add_argument("shell", choices=SHELLS, help="the shell that will read the script")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    shtab = require("shtab", "completion")
    from . import COMMANDS, build_parser

    parser = build_parser(COMMANDS)
    words = _words()
    files = dict.fromkeys(("FILE", "IMAGE", "MODEL.onnx"), shtab.FILE) | {"FOLDER": shtab.DIRECTORY}
    for action in _actions(parser):
        if action.metavar in files:
            action.complete = files[action.metavar]
        elif action.dest in words:
            action.choices = words[action.dest]
    print(shtab.complete(parser, shell=args.shell))
    return 0


def _words() -> dict[str, list[str]]:
    """What stands behind options and arguments whose words are known but not argparse's choices."""
    from .. import _native
    from ..bench.accelerated import TORCH_MODELS
    from ..bench.cases import PASSES
    from ..bench.layer_sets import SETS
    from ..bench.peers import PEERS
    from ..models.catalogue import CATALOGUE

    return {
        "model": list(CATALOGUE), "torch_model": list(TORCH_MODELS), "sets": [*SETS, "all"],
        "passes": [*PASSES, "all"], "against": [*PEERS, "all"], "isa": [*_native.isas_built(), "all"],
    }  # fmt: skip


def _actions(parser: argparse.ArgumentParser) -> Iterator[Any]:
    """Every option and argument of the parser and of its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
