"""Run an ONNX model on a picture (or a .npy array) and show what it says.

The picture is turned as its camera noted, made RGB (without its transparency, of an animation the first frame), scaled
so that it covers the model's input, cropped about the middle, divided by 255 (by 65535 in 16 bits), and standardised by
--mean and --std. Where the model leaves its size open, --size gives it; else the picture keeps its own.

The largest --top values of an output that is a vector are listed, with their names if --labels gives them; of other
outputs shape and range. --save writes an output that is itself a picture. --explain shows the graph after optimisation,
--profile the time of its steps.

  fastconv run mobilenet.onnx cat.jpg --mean imagenet --std imagenet --top 3
  fastconv run style.onnx photo.jpg --size 256 --save painted.png
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from .._core.arrays import Array
from .._core.files import read_text
from .common import STDOUT, CommandError, add_json, at_least, in_a_folder, require, write_json
from .fed import COLOURS, add_preparing, array_of, prepared

MOST_LABELS: Final = 1 << 24  # bytes of a file of names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `--help` shows."""
    parser.add_argument("model", metavar="MODEL.onnx", help="an .onnx file")
    parser.add_argument("image", metavar="IMAGE", help="a picture, or a .npy file that is fed as it is")
    parser.add_argument("--top", type=at_least(1), default=5, metavar="K", help="values to list (default: %(default)s)")
    parser.add_argument("--labels", metavar="FILE", help="names of the values: one a line, or a JSON list or object")
    add_preparing(parser)
    parser.add_argument("--save", metavar="FILE", help="write the first output that is a picture into FILE")
    parser.add_argument("--threads", type=at_least(1), metavar="N", help="threads (default: all)")
    parser.add_argument(
        "--weights-dtype", choices=("float32", "float16", "bfloat16"), metavar="TYPE",
        help="hold weights rounded to float16 or bfloat16: half the memory",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16"), metavar="TYPE",
        help="bfloat16: round inputs and weights of convolutions and matrix products to it, and sum in float32",
    )  # fmt: skip
    parser.add_argument("--explain", action="store_true", help="show the steps of the graph too")
    parser.add_argument("--profile", action="store_true", help="show the mean time of every step over ten runs")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Load, run, print."""
    in_a_folder(args.json, args.save)
    require("onnx", "onnx")
    if args.save:
        _can_be_saved(args.save)
    names = _names(args.labels)
    from ..onnx import InferenceSession

    session = InferenceSession(
        args.model, num_threads=args.threads, weights_dtype=args.weights_dtype, precision=args.precision
    )
    inputs = session.get_inputs()
    if not inputs:
        raise CommandError(f"{args.model} takes no input")
    declared = inputs[0].shape
    given = array_of(args.image) if args.image.endswith(".npy") else prepared(args, args.image, declared)
    feeds = {inputs[0].name: given}
    feeds |= {other.name: _ones(other.name, other.shape, other.type) for other in inputs[1:]}
    session.run(None, feeds)  # prepares
    start = time.perf_counter()
    outputs = session.run(None, feeds)
    elapsed = time.perf_counter() - start
    found = [
        _described(value.name, array, args.top, names)
        for value, array in zip(session.get_outputs(), outputs, strict=True)
    ]
    if args.save:
        _save(outputs, args.save)
    profile = session.profile(feeds) if args.profile else None
    about: dict[str, Any] = {
        "model": args.model, "input": inputs[0].name, "shape": list(given.shape), "milliseconds": elapsed * 1e3,
        "outputs": found, **({"explain": session.explain()} if args.explain else {}),
        **({"profile": [vars(step) for step in profile.steps]} if profile is not None else {}),
    }  # fmt: skip
    write_json(about, args.json)
    if args.json == STDOUT:
        return 0
    print(f"{args.model}: input {inputs[0].name} {list(given.shape)}, {elapsed * 1e3:.1f} ms")
    for other in inputs[1:]:
        print(f"input {other.name} {list(feeds[other.name].shape)}: equal values that sum to 1")
    for output in found:
        _print(output)
    if args.save:
        print(f"picture: {args.save}")
    if args.explain:
        print("\n" + session.explain())
    if profile is not None:
        print(f"\n{profile}")
    return 0


# ---- in ------------------------------------------------------------------------------------------------------------


def _ones(name: str, shape: Any, kind: str) -> Array:
    """What a further input gets: weights that are all alike."""
    if shape is None or not all(isinstance(size, int) for size in shape) or kind != "tensor(float)":
        raise CommandError(f"the model has a second input {name!r} of {kind} {shape}; run it from Python")
    made = np.full(shape, 1.0, np.float32)
    return made / np.float32(max(1, made.size))


def _names(path: str | None) -> list[str]:
    """The names in a file, one a line, or of a JSON list or object."""
    if path is None:
        return []
    try:
        text = read_text(path, MOST_LABELS)
    except UnicodeDecodeError as error:
        raise CommandError(f"--labels {path}: the file is not UTF-8 ({error.reason} at byte {error.start})") from None
    try:
        known = json.loads(text)
    except (ValueError, RecursionError):
        return text.splitlines()
    if isinstance(known, dict):  # by number
        known = [known.get(str(number), "") for number in range(len(known))]
    return [str(name) for name in known] if isinstance(known, list) else text.splitlines()


# ---- out -----------------------------------------------------------------------------------------------------------


def _described(name: str, array: Any, top: int, names: list[str]) -> dict[str, Any]:
    """One output as it is shown."""
    about: dict[str, Any] = {"name": name, "shape": list(array.shape), "dtype": str(array.dtype)}
    if not array.size or array.dtype.kind not in "fiu":
        return about
    about |= {"min": float(array.min()), "max": float(array.max()), "mean": float(array.mean())}
    if array.size == max(array.shape, default=1) > 1:
        scores = array.ravel()
        best = np.argsort(scores)[::-1][:top]
        about["top"] = [
            {"index": int(i), "value": float(scores[i]), "name": names[i] if i < len(names) else None} for i in best
        ]
    return about


def _print(output: dict[str, Any]) -> None:
    shape = " x ".join(map(str, output["shape"])) or "a number"
    span = f", {output['min']:.6g} to {output['max']:.6g}, mean {output['mean']:.6g}" if "min" in output else ""
    print(f"output {output['name']}: {shape} {output['dtype']}{span}")
    for entry in output.get("top", ()):
        print(f"  {entry['index']:>6}  {entry['value']:>12.6g}  {entry['name'] or ''}".rstrip())


def _can_be_saved(path: str) -> None:
    """Refuse before the work a name that Pillow knows no format for."""
    known = require("PIL.Image", "onnx").registered_extensions()
    if Path(path).suffix.lower() not in known:
        raise CommandError(f"--save {path}: no format of pictures ends so; use a name such as result.png")


def _save(outputs: list[Any], path: str) -> None:
    """The first output that is a picture, its values taken as 0 to 1 (or 0 to 255 where they go beyond)."""
    for array in outputs:
        if array.ndim == 4 and (array.shape[1] in COLOURS or array.shape[3] in COLOURS) and array.dtype.kind == "f":
            pixels = array[0].transpose(1, 2, 0) if array.shape[1] in COLOURS else array[0]
            pixels = pixels * (255 if pixels.max(initial=0) <= 2 else 1)
            image = np.clip(np.rint(np.nan_to_num(pixels)), 0, 255).astype(np.uint8)
            try:
                require("PIL.Image", "onnx").fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(path)
            except (ValueError, KeyError, OSError) as error:  # KeyError: a format that Pillow only reads
                raise CommandError(f"cannot write {path!r} ({error}); use a name such as result.png") from None
            return
    raise CommandError("no output is a picture; leave out --save")
