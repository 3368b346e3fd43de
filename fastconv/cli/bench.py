"""Time fastconv beside other libraries on the layers of VGG-16, ResNet-50, MobileNets and others, or on whole nets.

Every answer is checked first; a wrong one is not counted, and a library that is not installed is named and skipped.
The tables give medians as effective GFLOP/s (counted as direct convolution) and how many times faster fastconv is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from .._core.threads import effective
from ..bench.accelerated import TORCH_MODELS, TorchModel, named_torch_model, run_torch_model, select_torch_models
from ..bench.cases import LOAD, NET, PASSES, SETS, TRAIN, Case
from ..bench.loads import Model, run_load, select_loads
from ..bench.memory import MODELS, peak_memory
from ..bench.nets import Net, run_net, select_nets
from ..bench.peers import PEERS, Ours, Peer, load_peers
from ..bench.plot import plot_formats, save_plot
from ..bench.report import Report, Row, group_text, groups, heading_lines, json_lines, memory_lines, summary_text
from ..bench.suite import new_report, run_case, select
from .common import STDOUT, CommandError, add_json, image_size, in_a_folder, progress, require, write_text

DEFAULT_AGAINST = "torch,onnxruntime,openvino,ncnn,im2col"
DEFAULT_ROUNDS = 5


def _words(known: tuple[str, ...]) -> Callable[[str], list[str]]:
    """Reads a comma-separated list of known words, 'all' for every one."""

    def read(text: str) -> list[str]:
        words = [word.strip() for word in text.split(",") if word.strip()]
        for word in words:
            if word not in (*known, "all"):
                raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(known)} and all")
        return list(known) if "all" in words else list(dict.fromkeys(words))

    return read


def _positive(kind: type[int] | type[float]) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = kind(0)
        if not 0 < value < 1e6:
            raise argparse.ArgumentTypeError(f"must be a positive number, but got {text!r}")
        return value

    return read


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", type=_words(tuple(SETS)), default=["vgg16"], metavar="SETS", dest="sets",
        help=f"layers to time: {', '.join(SETS)} or all, several with commas (default: vgg16)",
    )  # fmt: skip
    parser.add_argument(
        "--pass", type=_words(PASSES), default=["fwd"], metavar="PASSES", dest="passes",
        help="fwd (a prepared plan), eager (plain calls), dx, dw (gradients) or all (default: fwd)",
    )  # fmt: skip
    parser.add_argument(
        "--against", type=_words(tuple(PEERS)), default=DEFAULT_AGAINST.split(","), metavar="PEERS",
        help=f"with whom: {', '.join(PEERS)} or all (default: {DEFAULT_AGAINST})",
    )  # fmt: skip
    parser.add_argument("--nets", action="store_true", help="time VGG-16 and ResNet-50 as a whole in place of layers")
    parser.add_argument(
        "--onnx", action="store_true", help="with --nets: run ours by fastconv.onnx, from the others' ONNX model"
    )
    parser.add_argument(
        "--load", action="store_true",
        help="time loading ONNX models, ResNet-50 and graphs of many nodes, without and with their first run",
    )  # fmt: skip
    parser.add_argument("--train", action="store_true", help="time training steps of small nets in place of layers")
    parser.add_argument(
        "--torch", action="store_true", help="time PyTorch models plain and after fastconv.torch.accelerate"
    )
    parser.add_argument(
        "--torch-model", metavar="NAME",
        help="likewise, for one model, a training step and inference: "
        f"{', '.join(TORCH_MODELS)}, or path.py:function (or module:function) that returns a torch.nn.Module; "
        "without dropout",
    )  # fmt: skip
    parser.add_argument(
        "--input-size", type=image_size, metavar="S",
        help="with --torch-model: side, or HEIGHTxWIDTH, of the images (default: the model's own, 224 for a function)",
    )  # fmt: skip
    parser.add_argument(
        "--batch", type=_positive(int), metavar="N",
        help="with --torch-model: images of a batch (default: 16 in training, 1 in inference)",
    )  # fmt: skip
    parser.add_argument("--only", metavar="TEXT", help="only layers whose name or family holds TEXT")
    parser.add_argument("--layout", choices=("nhwc", "nchw"), default="nhwc", help="our memory format (default: nhwc)")
    parser.add_argument("--threads", type=_positive(int), metavar="N", help="threads of everybody (default: all)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--rounds", type=_positive(int), default=DEFAULT_ROUNDS, metavar="N",
        help="turns of each candidate a layer (default: %(default)s)",
    )  # fmt: skip
    length.add_argument("--seconds", type=_positive(float), metavar="S", help="go on for S seconds a layer instead")
    add_json(parser, "JSON lines (the run, then one a layer)")
    parser.add_argument("--plot", metavar="FILE", help="draw a chart into FILE (.png, .svg or .pdf)")


def run(args: argparse.Namespace) -> int:
    """Select, measure in turns, print a table after each group."""
    whole = args.nets or args.load or args.train or args.torch or args.torch_model
    if args.onnx:
        if not args.nets:
            raise CommandError("--onnx is for whole networks; add --nets")
        require("onnx", "onnx")
    if args.load:
        require("onnx", "onnx")
    if not args.torch_model and (args.input_size or args.batch):
        raise CommandError("--input-size and --batch are for --torch-model")
    in_a_folder(args.json, args.plot)  # before minutes of measuring
    cases = [] if whole else select(args.sets, args.only)
    nets = select_nets(args.nets, args.train, args.only)
    loads = select_loads(args.only) if args.load else []
    models = _models(args)
    if not cases and not nets and not loads and not models:
        what = "network" if whole else f"layer of {', '.join(args.sets)}"
        raise CommandError(f"no {what} has {args.only!r} in its name or family")
    if args.plot:
        require("matplotlib", "bench")
        if (ending := Path(args.plot).suffix.lower()[1:]) not in plot_formats():
            raise CommandError(f"--plot {args.plot}: the name must end in .png, .svg, .pdf or the like, not {ending!r}")
    if models:
        require("torch", "torch")
    # All candidates of --torch are PyTorch itself: the peers of the others are not looked for where nothing else runs.
    ours = Ours(effective(args.threads), args.layout.upper())
    peers, missing = load_peers(["torch"] if models and not nets and not loads else args.against, ours.threads)
    report = new_report(ours, peers, missing, {"rounds": args.rounds, "seconds": args.seconds})
    shown = args.json != STDOUT
    if shown:
        print("\n".join(heading_lines(report)))

    work = [_layer_work(case, name, ours, peers, args) for name in args.passes for case in cases]
    work += [_net_work(net, ours, peers, args) for net in nets]
    work += [_load_work(model, first, ours, peers, args) for model, first in loads]
    work += [_model_work(model, ours, args) for model in models]
    unit = "network" if whole else "layer"
    for done, (group, measure) in enumerate(progress(work, len(work), "bench", unit), start=1):
        report.rows.append(measure())
        if shown and (done == len(work) or work[done][0] != group):
            _print_group(report)
    if args.nets:
        report.memory = [peak_memory(name) for name in MODELS if args.only is None or args.only in f"{name}, batch 1"]
    if shown:
        if args.nets:
            print("\n" + "\n".join(memory_lines(report)))
        print("\n" + summary_text(report.rows))
    write_text(json_lines(report, ascii_only=args.json == STDOUT), args.json)
    if args.plot:
        save_plot(report, args.plot)
    return 0


def _models(args: argparse.Namespace) -> list[TorchModel]:
    """The PyTorch models of --torch and of --torch-model."""
    models = select_torch_models(args.only) if args.torch else []
    if args.torch_model:
        if ":" in args.torch_model:  # a name is looked up without PyTorch
            require("torch", "torch")
        batch = int(args.batch) if args.batch else None
        models += named_torch_model(args.torch_model, args.input_size, batch)
    return models


Work = tuple[tuple[str, str], Callable[[], Row]]  # (set, pass) of a table, and what measures one of its rows


def _layer_work(case: Case, pass_name: str, ours: Ours, peers: list[Peer], args: argparse.Namespace) -> Work:
    return (case.set, pass_name), lambda: run_case(case, pass_name, ours, peers, args.rounds, args.seconds)


def _net_work(net: Net, ours: Ours, peers: list[Peer], args: argparse.Namespace) -> Work:
    return ("nets", TRAIN if net.training else NET), lambda: run_net(
        net, ours, peers, args.rounds, args.seconds, args.onnx
    )


def _load_work(model: Model, first: bool, ours: Ours, peers: list[Peer], args: argparse.Namespace) -> Work:
    return ("onnx", LOAD), lambda: run_load(model, first, ours, peers, args.rounds, args.seconds)


def _model_work(model: TorchModel, ours: Ours, args: argparse.Namespace) -> Work:
    pass_name = TRAIN if model.training else NET
    return ("accelerated", pass_name), lambda: run_torch_model(model, ours.threads, args.rounds, args.seconds)


def _print_group(report: Report) -> None:
    """The set and pass that was finished last, clear of the progress line."""
    if sys.stderr.isatty():
        print(end="\r\033[K", file=sys.stderr, flush=True)
    print("\n" + group_text(*groups(report.rows)[-1]), flush=True)
