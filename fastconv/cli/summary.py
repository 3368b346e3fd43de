"""Show the layers of a model: shapes, weights, multiply-adds, memory and receptive field, before anything is allocated.

MODEL is a name of fastconv.models, such as vgg16, resnet50 or wide_resnet_cifar (a wrong name lists them all), or an
.onnx file. Of the latter the steps of the optimised graph are shown, with the shapes of one run on zeros; --input-size
is needed where the file leaves its size open. Such files need fastconv[onnx].

  fastconv summary vgg16
  fastconv summary resnet50 --input-size 320x480 --classes 10 --json -
  fastconv summary mobilenet.onnx --input-size 224
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

import numpy as np

from ..models.catalogue import CATALOGUE, from_catalogue
from .common import STDOUT, CommandError, add_json, at_least, image_size, in_a_folder, require, write_json
from .given import input_shape


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model and for which images."""
    parser.add_argument("model", metavar="MODEL", help=f"{', '.join(CATALOGUE)}, or an .onnx file")
    parser.add_argument(
        "--input-size", type=image_size, metavar="S",
        help="side, or HEIGHTxWIDTH, of the image (default: the model's own)",
    )  # fmt: skip
    parser.add_argument(
        "--classes", type=at_least(1), metavar="N", help="classes of the last layer (default: the model's own)"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """The table, the same as JSON, or both."""
    in_a_folder(args.json)
    content, text = (_onnx if args.model.endswith(".onnx") else _named)(args)
    write_json(content, args.json)
    if args.json != STDOUT:
        print(text)
    return 0


def _named(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """A model of ours: its table for programs and for people."""
    made = from_catalogue(args.model, args.input_size, args.classes)
    table = made.table()
    totals = ("parameters", "non_trainable", "macs", "forward_bytes", "training_bytes")
    content = {
        "model": table.title, "layers": [asdict(row) for row in table.rows],
        "total": {name: getattr(table, name) for name in totals},
    }  # fmt: skip
    return content, str(table)


def _onnx(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """An ONNX model: the steps of its optimised graph, likewise."""
    require("onnx", "onnx")
    from ..graph.tensors import numpy_type
    from ..onnx import InferenceSession

    if args.classes is not None:
        raise CommandError("--classes is for the models of fastconv; an .onnx file has those that it was trained for")
    session = InferenceSession(args.model)
    feeds = {
        value.name: np.zeros(input_shape(value, args.input_size), numpy_type(value.element_type))
        for value in session.get_inputs()
    }
    session.run(None, feeds)
    shapes = {name: list(array.shape) for name, array in feeds.items()}
    lines = [f"{args.model}: " + ", ".join(f"{name} {shape}" for name, shape in shapes.items()), "", session.explain()]
    return {"model": args.model, "inputs": shapes, **session.describe()}, "\n".join(lines)
