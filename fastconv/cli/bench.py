"""Time fastconv beside other libraries on the layers of VGG-16, ResNet-50, MobileNets and others, or on whole nets.

Every answer is checked first; a wrong one is not counted, and a library that is not installed is named and skipped.
The tables give medians as effective GFLOP/s (counted as direct convolution) and how many times faster fastconv is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from .._core.threads import effective
from ..bench.accelerated import TORCH_MODELS, TorchModel, named_torch_model, run_torch_model, select_torch_models
from ..bench.cases import LOAD, NET, PASSES, TRAIN, Case
from ..bench.layer_sets import SETS
from ..bench.loads import Model, run_load, select_loads
from ..bench.memory import MODELS, peak_memory
from ..bench.nets import Net, run_net, select_nets
from ..bench.peers import PEERS, Ours, Peer, load_peers
from ..bench.plot import plot_formats, save_plot
from ..bench.report import Report, Row, group_text, groups, heading_lines, json_lines, memory_lines, read, summary_text
from ..bench.runtimes import BFLOAT16, FLOAT32, INT8, RUNTIMES
from ..bench.suite import copy_speed, new_report, run_case, select
from ..bench.zoo.catalogue import select_zoo
from ..bench.zoo.given import given_net
from ..bench.zoo_report import zoo_line, zoo_text
from ..bench.zoo_rows import SET as ZOO
from ..bench.zoo_rows import Method, ZooCase, missing_runtimes, run_zoo, run_zoo_together
from .common import STDOUT, CommandError, add_json, image_size, in_a_folder, progress, require, write_text
from .html import add_html, check_html, write_html

DEFAULT_AGAINST = "torch,onnxruntime,openvino,ncnn,litert,im2col"
# Runs whole nets only; it is asked where --against is not given and nets of the zoo are timed.
ZOO_ONLY = ("torch.compile",)
DEFAULT_ROUNDS = 5
MOST_BUSY = 64
PRECISIONS = (FLOAT32, BFLOAT16, INT8)


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


Work = tuple[tuple[str, str], Callable[[], Row]]  # (set, pass) of a table, and what measures one of its rows


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
        "--against", type=_words((*PEERS, *ZOO_ONLY)), metavar="PEERS",
        help=f"with whom: {', '.join(PEERS)}, for whole nets also {' and '.join(ZOO_ONLY)}, or all "
        f"(default: {DEFAULT_AGAINST}, and this one)",
    )  # fmt: skip
    _add_nets(parser)
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
        help="with --torch-model: side, or HEIGHTxWIDTH, of the images (default: the model's own, 224 for a function); "
        "with --net-file: where the file leaves it open",
    )  # fmt: skip
    parser.add_argument(
        "--batch", type=_positive(int), metavar="N",
        help="with --torch-model: images of a batch (default: 16 in training, 1 in inference); with --nets: only "
        "nets at this batch (default: those from files at 1)",
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
    add_html(parser, "tables, charts and rooflines")
    parser.add_argument(
        "--read", action="append", metavar="FILE",
        help="measure nothing: show the rows that --json wrote into FILE, as text or by --html (may be given several "
        "times)",
    )  # fmt: skip


def _add_nets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--nets", action="store_true",
        help="time whole nets in place of layers: our VGG-16 and ResNet-50 beside the others in one process, and 31 "
        "nets of different makes from ONNX files, every library in a process of its own",
    )  # fmt: skip
    parser.add_argument(
        "--onnx", action="store_true", help="with --nets: run our VGG-16 and ResNet-50 by fastconv.onnx, too"
    )
    half = parser.add_mutually_exclusive_group()
    half.add_argument(
        "--held-out", action="store_true", help="only layers, with --nets nets from files, that nobody tuned for"
    )
    half.add_argument("--tuned", action="store_true", help="only layers, or nets from files, that are tuned on")
    parser.add_argument(
        "--net-file", action="append", metavar="FILE",
        help="with --nets: time the net of an ONNX file in their place; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--precision", type=_words(PRECISIONS), default=[FLOAT32], metavar="P,P",
        help=f"with --nets: nets from files in {', '.join(PRECISIONS)}, several with commas; the int8 ones are made by "
        "ONNX Runtime's quantiser on random inputs; every library has its own way to bfloat16 (default: float32)",
    )  # fmt: skip
    parser.add_argument(
        "--busy", type=_counts, default=[0], metavar="N,N",
        help="with --nets: time the nets from files beside so many busy processes, too: 0,1,2,4",
    )  # fmt: skip
    parser.add_argument(
        "--one-process", action="store_true", help="with --nets: all libraries in turns in this process"
    )


def _counts(text: str) -> list[int]:
    """Comma-separated numbers of processes."""
    words = text.split(",")
    if not all(word.strip().isdecimal() and int(word) <= MOST_BUSY for word in words):
        raise argparse.ArgumentTypeError(f"must be numbers from 0 to {MOST_BUSY}, but got {text!r}")
    return [int(word) for word in words]


def run(args: argparse.Namespace) -> int:
    """Select, measure in turns, print a table after each group."""
    if args.read:
        return _show(args)
    whole = args.nets or args.load or args.train or args.torch or args.torch_model
    _refuse_unmatched(args)
    in_a_folder(args.json, args.plot)  # before minutes of measuring
    check_html(args)
    cases = [] if whole else select(args.sets, args.only, _side(args))
    nets = _nets(args)
    zoo = _zoo(args)
    loads = select_loads(args.only) if args.load else []
    models = _models(args)
    if not cases and not nets and not zoo and not loads and not models:
        what = "network" if whole else f"layer of {', '.join(args.sets)}"
        if args.only is None:
            raise CommandError(f"no {what} is {'held out' if args.held_out else 'tuned on'}")
        raise CommandError(f"no {what} has {args.only!r} in its name or family")
    if args.plot:
        require("matplotlib", "bench")
        if (ending := Path(args.plot).suffix.lower()[1:]) not in plot_formats():
            raise CommandError(f"--plot {args.plot}: the name must end in .png, .svg, .pdf or the like, not {ending!r}")
    if models:
        require("torch", "torch")
    report, ours, peers = _start(args, bool(models), bool(cases or nets or loads), bool(zoo))
    work = [_layer_work(case, name, ours, peers, args) for name in args.passes for case in cases]
    work += [_net_work(net, ours, peers, args) for net in nets]
    work += [_zoo_work(case, report, args) for case in zoo]
    work += [_load_work(model, first, ours, peers, args) for model, first in loads]
    work += [_model_work(model, ours, args) for model in models]
    _measure(work, report, args, "network" if whole else "layer")
    if args.plot:
        save_plot(report, args.plot)
    if args.html:
        _write_page([report], args)
    return 0


def _show(args: argparse.Namespace) -> int:
    """The rows of files, in place of measuring."""
    check_html(args)
    if args.plot or args.json:
        raise CommandError("--read shows rows as text or by --html; leave out --plot and --json")
    try:
        reports = [report for path in args.read for report in read(path)]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CommandError(f"{_listed(args.read)} holds no rows of fastconv bench --json FILE ({error})") from error
    if not any(report.rows for report in reports):
        raise CommandError(f"{_listed(args.read)} holds no rows")
    if args.html:
        _write_page(reports, args)
        return 0
    for report in reports:
        print("\n".join(heading_lines(report)))
        for name, pass_name, rows in groups(report.rows):
            print("\n" + (zoo_text(rows) if name == ZOO else group_text(name, pass_name, rows)))
        print("\n" + summary_text(report.rows))
    return 0


def _listed(paths: list[str]) -> str:
    return ", ".join(map(repr, paths))


def _write_page(reports: list[Report], args: argparse.Namespace) -> None:
    from ..pages.bench import bench_page

    write_html(bench_page(reports), args)


def _refuse_unmatched(args: argparse.Namespace) -> None:
    """Options that belong to others which were not given, and packages that are not there."""
    if args.onnx and not args.nets:
        raise CommandError("--onnx is for whole networks; add --nets")
    for given, name in ((args.one_process, "--one-process"), (args.busy != [0], "--busy"),
                        (args.net_file, "--net-file"), (args.precision != [FLOAT32], "--precision")):  # fmt: skip
        if given and not args.nets:
            raise CommandError(f"{name} is for whole networks; add --nets")
    if args.one_process and args.busy != [0]:
        raise CommandError("--busy needs processes of their own; leave out --one-process")
    zoo = args.nets and (args.held_out or args.tuned)
    if args.onnx or args.load or zoo or args.net_file or args.precision != [FLOAT32]:
        require("onnx", "onnx")
    if INT8 in args.precision:
        require("onnxruntime", "bench")
    if not args.torch_model and ((args.input_size and not args.net_file) or (args.batch and not args.nets)):
        raise CommandError("--input-size and --batch are for --torch-model, also for --net-file and for --nets")


def _start(args: argparse.Namespace, models: bool, in_turns: bool, zoo: bool) -> tuple[Report, Ours, list[Peer]]:
    """The report's head, printed; ours and those who take turns with us in this process."""
    names = args.against or DEFAULT_AGAINST.split(",")
    # All candidates of --torch are PyTorch itself: the peers of the others are not looked for where nothing else runs.
    wanted = ["torch"] if models and not in_turns and not zoo else [name for name in names if name in PEERS]
    ours = Ours(effective(args.threads), args.layout.upper())
    peers, missing = load_peers(wanted, ours.threads) if in_turns or models else ([], {})
    if zoo:
        missing |= missing_runtimes(_zoo_peers(args))
    report = new_report(ours, peers, missing, {"rounds": args.rounds, "seconds": args.seconds})
    if args.html or args.json:  # a page may be made of the file later
        report.machine["copy_gbytes"] = float(f"{copy_speed(ours.threads):.3g}")
    if zoo:
        report.versions |= {name: RUNTIMES[name].version() for name in _zoo_peers(args) if name not in missing}
    if args.json != STDOUT:
        print("\n".join(heading_lines(report)))
    return report, ours, peers


def _measure(work: list[Work], report: Report, args: argparse.Namespace, unit: str) -> None:
    """Do the work with its progress; print the tables and write the file."""
    shown = args.json != STDOUT
    for done, (group, measure) in enumerate(progress(work, len(work), "bench", unit), start=1):
        report.rows.append(measure())
        if report.rows[-1].set == ZOO:  # minutes of work: who stands where is told at once
            print(_line_start() + zoo_line(report.rows[-1]), file=sys.stderr, flush=True)
        if shown and (done == len(work) or work[done][0] != group):
            _print_group(report)
    if any(row.set == "nets" and row.pass_name == NET for row in report.rows):
        report.memory = [peak_memory(name) for name in MODELS if args.only is None or args.only in f"{name}, batch 1"]
    if shown:
        if report.memory:
            print("\n" + "\n".join(memory_lines(report)))
        print("\n" + summary_text(report.rows))
    write_text(json_lines(report, ascii_only=args.json == STDOUT), args.json)


def _nets(args: argparse.Namespace) -> list[Net]:
    """The nets that are built from our layers; they are tuned on, and are left out where the halves are asked for."""
    whole = args.nets and not args.held_out and not args.tuned and not args.net_file and FLOAT32 in args.precision
    nets = select_nets(whole, args.train, args.only)
    return [net for net in nets if net.training or not args.batch or net.batch == args.batch]


def _zoo(args: argparse.Namespace) -> list[ZooCase]:
    """The nets from files; none without the package that makes the files."""
    if not args.nets or find_spec("onnx") is None:
        return []
    batch = int(args.batch or 1)
    if args.net_file:
        in_files = [given_net(path, args.input_size) for path in args.net_file]
        return [ZooCase(net, batch, precision) for net in in_files for precision in args.precision]
    cases = [ZooCase(net, batch, precision) for net in select_zoo(None, _side(args)) for precision in args.precision]
    return [case for case in cases if args.only is None or args.only in case.label or args.only in case.net.family]


def _side(args: argparse.Namespace) -> bool | None:
    """Whether only what is held out is asked for, or only what is not; None for both."""
    return True if args.held_out else False if args.tuned else None


def _zoo_peers(args: argparse.Namespace) -> list[str]:
    """Those of --against that run whole nets from files."""
    return [name for name in args.against or [*DEFAULT_AGAINST.split(","), *ZOO_ONLY] if name in RUNTIMES]


def _models(args: argparse.Namespace) -> list[TorchModel]:
    """The PyTorch models of --torch and of --torch-model."""
    models = select_torch_models(args.only) if args.torch else []
    if args.torch_model:
        if ":" in args.torch_model:  # a name is looked up without PyTorch
            require("torch", "torch")
        batch = int(args.batch) if args.batch else None
        models += named_torch_model(args.torch_model, args.input_size, batch)
    return models


def _layer_work(case: Case, pass_name: str, ours: Ours, peers: list[Peer], args: argparse.Namespace) -> Work:
    return (case.set, pass_name), lambda: run_case(case, pass_name, ours, peers, args.rounds, args.seconds)


def _net_work(net: Net, ours: Ours, peers: list[Peer], args: argparse.Namespace) -> Work:
    return ("nets", TRAIN if net.training else NET), lambda: run_net(
        net, ours, peers, args.rounds, args.seconds, args.onnx
    )


def _zoo_work(case: ZooCase, report: Report, args: argparse.Namespace) -> Work:
    method = Method(report.threads, int(args.rounds), args.seconds, tuple(args.busy))
    peers = [name for name in _zoo_peers(args) if name not in report.missing]
    if args.one_process:
        return (ZOO, NET), lambda: run_zoo_together(case, peers, method)
    return (ZOO, NET), lambda: run_zoo(case, peers, method)


def _load_work(model: Model, first: bool, ours: Ours, peers: list[Peer], args: argparse.Namespace) -> Work:
    return ("onnx", LOAD), lambda: run_load(model, first, ours, peers, args.rounds, args.seconds)


def _model_work(model: TorchModel, ours: Ours, args: argparse.Namespace) -> Work:
    pass_name = TRAIN if model.training else NET
    return ("accelerated", pass_name), lambda: run_torch_model(model, ours.threads, args.rounds, args.seconds)


def _print_group(report: Report) -> None:
    """The set and pass that was finished last, clear of the progress line."""
    print(end=_line_start(), file=sys.stderr, flush=True)
    name, pass_name, rows = groups(report.rows)[-1]
    print("\n" + (zoo_text(rows) if name == ZOO else group_text(name, pass_name, rows)), flush=True)


def _line_start() -> str:
    """What clears a progress line."""
    return "\r\033[K" if sys.stderr.isatty() else ""
