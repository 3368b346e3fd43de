"""Nets of the zoo under PyTorch: eager, compiled by inductor, by `backend="fastconv"`, and the same nets as ONNX files.

    python -P bench/torch_compile.py [NET ...] [--threads 2] [--rounds 10] [--batch 1] [--without torch.compile]

Without names: ResNet-50, MobileNetV2 and U-Net. Each runs in a process of its own, in turns, in both memory formats, of
which the faster one counts; an answer further than 1e-3 of the scale from ONNX Runtime's is not counted. A line a net:
medians in milliseconds, and how many times as fast as eager and inductor `backend="fastconv"` is.
"""

from __future__ import annotations

import argparse
import sys

from fastconv.bench.report import OURS, Row
from fastconv.bench.runtimes import BACKEND
from fastconv.bench.zoo.catalogue import NETS
from fastconv.bench.zoo_rows import Method, ZooCase, missing_runtimes, run_zoo

USUAL = ("ResNet-50", "MobileNetV2", "U-Net")
COLUMNS = {"torch": "eager", "torch.compile": "inductor", BACKEND: "fastconv", OURS: "ONNX session"}


def line(row: Row) -> str:
    """The medians of everybody and the ratios to ours."""
    cells = [f"{row.layer:28s}"]
    ours = row.of(BACKEND)
    for peer in COLUMNS:
        found = row.of(peer)
        cells.append(f"{1e3 * found.seconds:13.2f}" if found else f"{'-':>13s}")
    for peer in COLUMNS:
        if peer != BACKEND:
            found = row.of(peer)
            cells.append(f"{found.seconds / ours.seconds:9.2f}x" if found and ours else f"{'-':>10s}")
    notes = [f"  {peer}: {why}" for peer, why in row.absent.items()]
    return "\n".join(["".join(cells), *notes])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", default=USUAL, metavar="NET", help=f"default: {', '.join(USUAL)}")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="turns of everybody (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="default: %(default)s")
    parser.add_argument("--without", nargs="*", default=[], choices=[*COLUMNS][:2], help="who is left out")
    args = parser.parse_args()
    known = {net.name: net for net in NETS}
    unknown = [name for name in args.nets if name not in known]
    if unknown:
        parser.error(f"there is no net {', '.join(unknown)}; there are {', '.join(known)}")
    peers = [peer for peer in COLUMNS if peer != OURS and peer not in args.without]
    if missing := missing_runtimes(peers):
        sys.exit(f"torch_compile.py: error: {next(iter(missing.values()))}; pip install fastconv[torch]")
    head = [f"{name + ' ms':>13s}" for name in COLUMNS.values()]
    print(" " * 28 + "".join(head) + "".join(f"{'/ ' + n:>10.10s}" for p, n in COLUMNS.items() if p != BACKEND))
    for name in args.nets:
        print(line(run_zoo(ZooCase(known[name], args.batch), peers, Method(args.threads, args.rounds))), flush=True)


if __name__ == "__main__":
    main()
