"""Single layers beside other runtimes: a convolution each, prepared, every library in a process of its own.

    python bench/single_layers.py [--threads 2] [--rounds 9] [--sets resnet50-int8 volumes ...] [--json FILE]

Every library gets the same ONNX model of one layer, channels first and channels last (by transposes that libraries
leave out), and is timed in the layout that it likes better. Sets of 8 bits are a convolution between DequantizeLinear
and QuantizeLinear (uint8 activations, int8 weights with a scale for each channel), bytes in and out. Prints medians in
microseconds, the ratio to the best other, and the share of the machine's measured rate of float32 multiply-adds (of
products of bytes: four times that). Needs onnx, and measures those of onnxruntime, openvino and torch (float32, plain
operators in its two layouts) that are installed.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from fastconv._native import fma_peak

LIBRARIES = ("fastconv", "onnxruntime", "openvino", "torch")
NOT_INSTALLED = 66


class Layer(NamedTuple):
    """A convolution, or a transposed one: channels, sizes, outputs, kernel; one number an axis, or one for all."""

    channels: int
    size: tuple[int, ...]
    outputs: int
    kernel: tuple[int, ...]
    stride: int = 1
    groups: int = 1
    dilation: int = 1
    transposed: bool = False
    bytes: bool = False

    @property
    def pads(self) -> list[int]:
        """As many outputs as inputs at stride 1; of a transposed one, outputs = inputs x stride."""
        if self.transposed:
            return [(k - self.stride) // 2 for k in self.kernel] * 2
        return [self.dilation * (k // 2) for k in self.kernel] * 2

    @property
    def out(self) -> tuple[int, ...]:
        """Spatial sizes of the result."""
        if self.transposed:
            return tuple(n * self.stride for n in self.size)
        reach = [self.dilation * (k - 1) + 1 - 2 * pad for k, pad in zip(self.kernel, self.pads, strict=False)]
        return tuple((n - r) // self.stride + 1 for n, r in zip(self.size, reach, strict=True))

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        pixels = math.prod(self.size if self.transposed else self.out)
        return pixels * self.outputs * (self.channels // self.groups) * math.prod(self.kernel)

    def __str__(self) -> str:
        kernel, size = (" x ".join(map(str, n)) for n in (self.kernel, self.size))
        more = [f"{self.groups} groups"] * (self.groups > 1) + [f"dilation {self.dilation}"] * (self.dilation > 1)
        told = f"{self.channels} to {self.outputs}, {kernel} / {self.stride}, {size}"
        return ", ".join([told, *more, *["transposed"] * self.transposed])


def images(*rows: tuple[int, int, int, int, int, int]) -> list[Layer]:
    """Layers of bytes: (channels, size, outputs, kernel, stride, groups)."""
    return [Layer(c, (n, n), o, (k, k), s, g, bytes=True) for c, n, o, k, s, g in rows]


SETS = {
    "resnet50-int8": images(
        (3, 224, 64, 7, 2, 1), (64, 56, 64, 1, 1, 1), (64, 56, 64, 3, 1, 1), (64, 56, 256, 1, 1, 1),
        (256, 56, 64, 1, 1, 1), (256, 56, 128, 1, 1, 1), (128, 56, 128, 3, 2, 1), (256, 56, 512, 1, 2, 1),
        (128, 28, 512, 1, 1, 1), (512, 28, 128, 1, 1, 1), (128, 28, 128, 3, 1, 1), (256, 28, 256, 3, 2, 1),
        (256, 14, 1024, 1, 1, 1), (1024, 14, 256, 1, 1, 1), (256, 14, 256, 3, 1, 1), (512, 14, 512, 3, 2, 1),
        (512, 7, 2048, 1, 1, 1), (2048, 7, 512, 1, 1, 1), (512, 7, 512, 3, 1, 1),
    ),
    "mobilenetv2-int8": images(
        (3, 224, 32, 3, 2, 1), (32, 112, 32, 3, 1, 32), (32, 112, 16, 1, 1, 1), (16, 112, 96, 1, 1, 1),
        (96, 112, 96, 3, 2, 96), (96, 56, 24, 1, 1, 1), (24, 56, 144, 1, 1, 1), (144, 56, 144, 3, 1, 144),
        (144, 56, 144, 3, 2, 144), (144, 28, 32, 1, 1, 1), (32, 28, 192, 1, 1, 1), (192, 28, 192, 3, 1, 192),
        (192, 28, 192, 3, 2, 192), (192, 14, 64, 1, 1, 1), (64, 14, 384, 1, 1, 1), (384, 14, 384, 3, 1, 384),
        (384, 14, 96, 1, 1, 1), (96, 14, 576, 1, 1, 1), (576, 14, 576, 3, 1, 576), (576, 14, 576, 3, 2, 576),
        (576, 7, 160, 1, 1, 1), (160, 7, 960, 1, 1, 1), (960, 7, 960, 3, 1, 960), (960, 7, 320, 1, 1, 1),
        (320, 7, 1280, 1, 1, 1),
    ),
    "volumes": [
        *(Layer(c, (n, n, n), c, (3, 3, 3)) for c, n in ((16, 64), (32, 48), (64, 32), (128, 24), (256, 16))),
        Layer(32, (48, 48, 48), 64, (3, 3, 3), 2), Layer(128, (24, 24, 24), 256, (3, 3, 3), 2),
        Layer(64, (32, 32, 32), 128, (1, 1, 1)), Layer(64, (16, 56, 56), 64, (1, 3, 3)),
        Layer(64, (16, 56, 56), 64, (3, 1, 1)), Layer(54, (16, 56, 56), 54, (3, 3, 3), 1, 54),
        Layer(108, (16, 28, 28), 108, (3, 3, 3), 2, 108), Layer(64, (16, 16, 16), 32, (2, 2, 2), 2, transposed=True),
        Layer(256, (8, 8, 8), 128, (2, 2, 2), 2, transposed=True),
    ],
    "sequences": [
        *(Layer(c, (8000,), c, (k,), dilation=d) for c in (64, 256) for k in (3, 7, 11) for d in (1, 5)),
        Layer(512, (8000,), 512, (3,)), Layer(128, (8000,), 128, (5,)), Layer(128, (8000,), 128, (5,), dilation=3),
        Layer(256, (8000,), 256, (3,), 1, 256), Layer(1, (16000,), 256, (512,), 4),
        Layer(256, (250,), 128, (16,), 8, transposed=True), Layer(128, (2000,), 64, (4,), 2, transposed=True),
    ],
}  # fmt: skip


def model_of(layer: Layer, last: bool) -> bytes:
    """The layer; `last`: channels last in and out, by transposes that libraries leave out."""
    axes, kind = len(layer.size), TensorProto.UINT8 if layer.bytes else TensorProto.FLOAT
    to, back = [0, axes + 1, *range(1, axes + 1)], [0, *range(2, axes + 2), 1]
    x, y = ("x1", "y1") if last else ("x", "y")
    attributes: dict[str, Any] = {
        "strides": [layer.stride] * axes, "pads": layer.pads, "group": layer.groups,
        "dilations": [layer.dilation] * axes,
    }  # fmt: skip
    nodes, constants = (quantised if layer.bytes else floats)(layer, x, y, attributes)
    if last:
        nodes = [
            helper.make_node("Transpose", ["x"], ["x1"], perm=to), *nodes,
            helper.make_node("Transpose", ["y1"], ["y"], perm=back),
        ]  # fmt: skip
    shapes = [[1, layer.channels, *layer.size], [1, layer.outputs, *layer.out]]
    if last:
        shapes = [[shape[at] for at in back] for shape in shapes]
    graph = helper.make_graph(
        nodes, "layer", [helper.make_tensor_value_info("x", kind, shapes[0])],
        [helper.make_tensor_value_info("y", kind, shapes[1])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(made.SerializeToString())


def floats(layer: Layer, x: str, y: str, attributes: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """In float32, with a bias."""
    weight, bias = parameters(layer)
    kind = "ConvTranspose" if layer.transposed else "Conv"
    return [helper.make_node(kind, [x, "w", "b"], [y], **attributes)], {"w": weight, "b": bias}


def parameters(layer: Layer) -> tuple[Any, Any]:
    """Of a layer of floats."""
    rng = np.random.default_rng(layer.channels + layer.outputs)
    first, second = (layer.channels, layer.outputs) if layer.transposed else (layer.outputs, layer.channels)
    weight = rng.standard_normal((first, second // layer.groups, *layer.kernel), dtype=np.float32)
    return weight, rng.standard_normal(layer.outputs, dtype=np.float32)


def quantised(layer: Layer, x: str, y: str, attributes: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Between DequantizeLinear and QuantizeLinear."""
    o = layer.outputs
    rng = np.random.default_rng(layer.channels + o)
    constants = {
        "w": rng.integers(-127, 128, (o, layer.channels // layer.groups, *layer.kernel)).astype(np.int8),
        "w_zero": np.zeros(o, np.int8), "w_scale": (rng.random(o) * 0.01 + 0.001).astype(np.float32),
        "x_scale": np.float32(0.02), "x_zero": np.uint8(113), "y_scale": np.float32(0.4), "y_zero": np.uint8(0),
        "b_zero": np.zeros(o, np.int32), "b": rng.integers(-500, 500, o).astype(np.int32),
    }  # fmt: skip
    constants["b_scale"] = (constants["w_scale"] * constants["x_scale"]).astype(np.float32)
    nodes = [
        helper.make_node("DequantizeLinear", [x, "x_scale", "x_zero"], ["xf"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["wf"], axis=0),
        helper.make_node("DequantizeLinear", ["b", "b_scale", "b_zero"], ["bf"], axis=0),
        helper.make_node("Conv", ["xf", "wf", "bf"], ["yf"], **attributes),
        helper.make_node("QuantizeLinear", ["yf", "y_scale", "y_zero"], [y]),
    ]
    return nodes, constants


# ---- runs ----------------------------------------------------------------------------------------------------------


def runner(library: str, layer: Layer, last: bool, x: Any, threads: int) -> Callable[[], Any] | None:
    """A prepared run of one library; None where it has no such layer, ImportError where it is not installed."""
    if library == "torch":
        return torch_runner(layer, last, x, threads)
    model = model_of(layer, last)
    if library == "fastconv":
        from fastconv.onnx import InferenceSession

        ours = InferenceSession(model, num_threads=threads)
        return lambda: ours.run(None, {"x": x})[0]
    if library == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {"x": x})[0]
    import openvino

    core = openvino.Core()
    options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(core.read_model(model), "CPU", options).create_infer_request()
    return lambda: request.infer({0: x}, share_inputs=True, share_outputs=True)[0]


def torch_runner(layer: Layer, last: bool, x: Any, threads: int) -> Callable[[], Any] | None:
    """Plain operators, contiguous or channels last; it has no layout of its own for sequences."""
    import torch

    formats = {2: torch.channels_last, 3: torch.channels_last_3d}
    axes = len(layer.size)
    if layer.bytes or (last and axes not in formats):
        return None
    torch.set_num_threads(threads)
    functional = torch.nn.functional
    name = f"conv_transpose{axes}d" if layer.transposed else f"conv{axes}d"
    options = {"stride": layer.stride, "padding": layer.pads[:axes], "groups": layer.groups, "dilation": layer.dilation}
    weight, bias = map(torch.from_numpy, parameters(layer))
    given = torch.from_numpy(np.moveaxis(x, -1, 1) if last else x)
    if last:
        weight = weight.contiguous(memory_format=formats[axes])

    def run() -> Any:
        with torch.inference_mode():
            return getattr(functional, name)(given, weight, bias, **options).numpy()

    return run


def median(run: Callable[[], Any], rounds: int) -> float:
    """Of so many rounds, in seconds."""
    run()
    begin = time.perf_counter()
    run()
    each = max(1, min(5, int(0.02 / max(1e-6, time.perf_counter() - begin))))
    times = []
    for _ in range(rounds + 1):  # the first warms up
        begin = time.perf_counter()
        for _ in range(each):
            run()
        times.append((time.perf_counter() - begin) / each)
    return statistics.median(times[1:])


def measure(library: str, sets: list[str], threads: int, rounds: int) -> Iterator[dict[str, Any]]:
    """The layers of some sets by one library: medians in seconds, of the better layout, and sums of results."""
    for layer in (layer for name in sets for layer in SETS[name]):
        rng, shape = np.random.default_rng(0), (1, layer.channels, *layer.size)
        x = rng.integers(0, 256, shape).astype(np.uint8) if layer.bytes else rng.random(shape, np.float32)
        medians, total = [], 0.0
        for last in (False, True):
            given = np.ascontiguousarray(np.moveaxis(x, 1, -1)) if last else x
            run = runner(library, layer, last, given, threads)
            if run is None:
                continue
            total = float(np.array(run()).astype(np.float64).sum())
            medians.append(median(run, rounds))
        yield {"seconds": min(medians, default=None), "layouts": medians, "sum": total}


def alone(library: str, args: argparse.Namespace) -> list[dict[str, Any]] | None:
    """The same in a process of its own; None where the library is not installed."""
    command = [
        sys.executable, "-P", __file__, "--only", library, "--threads", str(args.threads), "--rounds",
        str(args.rounds), "--sets", *args.sets,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == NOT_INSTALLED:
        return None
    if done.returncode:
        raise SystemExit(f"{library} failed:\n{done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="of every library (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="default: %(default)s")
    parser.add_argument("--sets", nargs="+", choices=sorted(SETS), default=sorted(SETS), help="default: all")
    parser.add_argument("--json", metavar="FILE", help="append the rows to a file, one a line")
    parser.add_argument("--only", choices=LIBRARIES, help="measure one library in this process, and print rows")
    args = parser.parse_args()
    if args.only:
        try:
            for row in measure(args.only, args.sets, args.threads, args.rounds):
                print(json.dumps(row), flush=True)
        except ImportError:
            raise SystemExit(NOT_INSTALLED) from None
        return
    found = {library: rows for library in LIBRARIES if (rows := alone(library, args)) is not None}
    peak, at = fma_peak(args.threads), 0
    for name in args.sets:
        ratios = []
        for layer in SETS[name]:
            rows = {library: rows[at] for library, rows in found.items() if rows[at]["seconds"] is not None}
            ratios.append(report(name, layer, rows, peak, args))
            at += 1
        print(f"{name}: geometric mean x {statistics.geometric_mean(ratios):.2f}, least x {min(ratios):.2f}")


def report(name: str, layer: Layer, rows: dict[str, dict[str, Any]], peak: float, args: argparse.Namespace) -> float:
    """A line about a layer; its ratio."""
    own, values = rows["fastconv"], layer.outputs * math.prod(layer.out)
    for library, row in rows.items():
        off = abs(row["sum"] - own["sum"]) / values
        if off > (0.01 if layer.bytes else 0.05):
            raise SystemExit(f"{library} computes something else: {off} a value of {layer}")
    best = min((row["seconds"] for library, row in rows.items() if library != "fastconv"), default=own["seconds"])
    share = 2e-9 * layer.macs / own["seconds"] / (peak * (4 if layer.bytes else 1))
    shown = "  ".join(f"{library} {row['seconds'] * 1e6:7.0f}" for library, row in rows.items())
    print(f"{layer!s:48} {shown} us   x {best / own['seconds']:.2f}   {share:.0%} of peak", flush=True)
    if args.json:
        with open(args.json, "a", encoding="utf-8") as file:
            line = {"set": name, "layer": str(layer), "threads": args.threads, "rows": rows, "share": share}
            file.write(json.dumps(line) + "\n")
    return best / own["seconds"]


if __name__ == "__main__":
    main()
