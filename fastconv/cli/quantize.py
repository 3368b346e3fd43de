"""Quantise an ONNX model of floats: write it with QuantizeLinear and DequantizeLinear, for every runtime, and say what
it costs.

Weights become int8 with a scale for each output channel, activations uint8 by their range over the calibration:
pictures of a folder, prepared as by fastconv run (--size, --mean, --std, --bgr), or the rows of an array in a .npy
file, as the model's first input takes them. A few dozen of every kind that the model will see are enough.

The report lists every quantised value with its signal-to-noise ratio (SQNR, in decibels, six a bit) and its largest
error, both against the floats, and how often the largest output is that of the floats; --labels has the class of every
sample, for the accuracy of both models.

  fastconv quantize mobilenet.onnx small.onnx --calibration pictures --mean imagenet --std imagenet
  fastconv quantize net.onnx small.onnx --calibration samples.npy --method minmax --labels classes.npy
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from .._core.arrays import Array
from .common import STDOUT, CommandError, add_json, at_least, in_a_folder, progress, require, write_json
from .fed import add_preparing, array_of, prepared

SAMPLES: Final = 64
METHODS: Final = ("percentile", "minmax")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `--help` shows."""
    parser.add_argument("model", metavar="MODEL.onnx", help="a model of floats")
    parser.add_argument("output", metavar="OUT.onnx", help="the file to write")
    parser.add_argument(
        "--calibration", metavar="FOLDER|FILE.npy", required=True,
        help="a folder of pictures, or a .npy file of samples",
    )  # fmt: skip
    parser.add_argument(
        "--samples", type=at_least(1), default=SAMPLES, metavar="N",
        help="how many of them are used, evenly spread (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--method", choices=METHODS, default=METHODS[0],
        help="ranges without their outermost hundredth of a percent, or whole ones (default: %(default)s)",
    )  # fmt: skip
    add_preparing(parser)
    parser.add_argument("--labels", metavar="FILE", help="a .npy file with the class of every sample")
    parser.add_argument("--threads", type=at_least(1), metavar="N", help="threads (default: all)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Calibrate, write, report."""
    in_a_folder(args.json, args.output)
    require("onnx", "onnx")
    from ..onnx.quantizing import Quantised

    made = Quantised(args.model)
    _keeps(args)
    shape = made.input_shape
    given = _samples(args, shape)
    chosen = _spread(len(given), args.samples, shape)
    labels = None if args.labels is None else _labels(args.labels, len(given))
    made.calibrate(given[chosen], args.method, args.threads, progress, labels)
    before, after = made.float_bytes, made.write(args.output)
    report = made.report(None if labels is None else labels[chosen])
    about: dict[str, Any] = {
        "model": args.model, "output": args.output, "method": args.method, "bytes": [before, after],
        "layers": [asdict(layer) for layer in report.layers], "samples": report.samples,
        "agreement": report.agreement, "accuracy": report.accuracy, "float_accuracy": report.float_accuracy,
    }  # fmt: skip
    write_json(about, args.json)
    if args.json != STDOUT:
        print(f"{report}\n{args.output}: {after / 1e6:.1f} MB, of floats {before / 1e6:.1f} MB")
    return 0


def _keeps(args: argparse.Namespace) -> None:
    """Refuse to write over what is read, and one file over the other."""
    output = Path(args.output).resolve()
    for given in (args.model, args.calibration, args.labels):
        if given is not None and Path(given).resolve() == output:
            raise CommandError(f"{args.output!r} would be written over {given!r}; give another name")
    if args.json not in (None, STDOUT) and Path(args.json).resolve() == output:
        raise CommandError(f"the model and --json would be the same file, {args.output!r}")


def _samples(args: argparse.Namespace, shape: Any) -> Array:
    """What the calibration holds, as the input takes it."""
    given = Path(args.calibration)
    if args.calibration.endswith(".npy"):
        samples = array_of(args.calibration)
        if not samples.ndim:
            raise CommandError(f"--calibration {args.calibration!r} must hold a sample a row, but is a single number")
        return samples
    if not given.is_dir():
        raise CommandError(f"--calibration {args.calibration!r} is no folder of pictures and no .npy file")
    if args.labels is not None:
        raise CommandError("--labels are for the rows of a .npy file; pictures of a folder have none")
    paths = sorted(path for path in given.iterdir() if path.is_file() and not path.name.startswith("."))
    if not paths:
        raise CommandError(f"--calibration {args.calibration!r} holds no pictures")
    paths = [paths[at] for at in _spread(len(paths), args.samples, shape)]
    made = [prepared(args, str(path), shape) for path in progress(paths, len(paths), "pictures", "pictures")]
    if len({x.shape for x in made}) > 1:
        raise CommandError("the pictures are of different sizes and the model leaves its own open; give --size")
    return np.concatenate(made)


def _spread(count: int, most: int, shape: Any) -> Array:
    """Numbers of samples, evenly spread: as many as a batch of the model divides, if it has a fixed one."""
    size = shape[0] if shape and isinstance(shape[0], int) and shape[0] > 0 else 1
    wanted = max(size, min(count, most) // size * size)
    return np.linspace(0, max(0, count - 1), min(count, wanted)).astype(np.int64)


def _labels(path: str, count: int) -> Array:
    """The class of every sample."""
    labels = array_of(path).reshape(-1)
    if labels.dtype.kind not in "iu" or len(labels) != count:
        raise CommandError(f"--labels {path!r} must hold {count} integers, but holds {len(labels)} of {labels.dtype}")
    return labels
