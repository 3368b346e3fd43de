"""Single layers of 8 bits beside other runtimes: a convolution each, prepared, every library in a process of its own.

    python bench/single_layers.py [--threads 2] [--rounds 9] [--sets resnet50-int8 ...] [--json FILE]

Every library gets the same ONNX model of one layer, channels first and channels last (by transposes that libraries
leave out), and is timed in the layout that it likes better: a convolution between DequantizeLinear and QuantizeLinear
(uint8 activations, int8 weights with a scale for each channel), bytes in and out. Prints medians in microseconds, the
ratio to the best other, and the share of four times the machine's measured rate of float32 multiply-adds. Needs onnx,
and measures those of onnxruntime and openvino that are installed. Layers of floats: `fastconv bench`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from fastconv._native import fma_peak

LIBRARIES = ("fastconv", "onnxruntime", "openvino")
NOT_INSTALLED = 66


class Layer(NamedTuple):
    """A convolution of images that keeps their size at stride 1."""

    channels: int
    size: int
    outputs: int
    kernel: int
    stride: int = 1
    groups: int = 1

    @property
    def out(self) -> int:
        """Pixels of the result along each axis."""
        return (self.size + 2 * (self.kernel // 2) - self.kernel) // self.stride + 1

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return self.out**2 * self.outputs * (self.channels // self.groups) * self.kernel**2

    def __str__(self) -> str:
        told = f"{self.channels} to {self.outputs}, {self.kernel} x {self.kernel} / {self.stride}, {self.size}"
        return told + (f", {self.groups} groups" if self.groups > 1 else "")


def images(*rows: tuple[int, int, int, int, int, int]) -> list[Layer]:
    """(channels, size, outputs, kernel, stride, groups)"""
    return [Layer(*row) for row in rows]


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
}  # fmt: skip


def model_of(layer: Layer, last: bool) -> bytes:
    """The layer; `last`: channels last in and out, by transposes that libraries leave out."""
    x, y = ("x1", "y1") if last else ("x", "y")
    nodes, constants = quantised(layer, x, y)
    if last:
        nodes = [
            helper.make_node("Transpose", ["x"], ["x1"], perm=[0, 3, 1, 2]), *nodes,
            helper.make_node("Transpose", ["y1"], ["y"], perm=[0, 2, 3, 1]),
        ]  # fmt: skip
    shapes = [[1, layer.channels, layer.size, layer.size], [1, layer.outputs, layer.out, layer.out]]
    if last:
        shapes = [[shape[at] for at in (0, 2, 3, 1)] for shape in shapes]
    kind = TensorProto.UINT8
    graph = helper.make_graph(
        nodes, "layer", [helper.make_tensor_value_info("x", kind, shapes[0])],
        [helper.make_tensor_value_info("y", kind, shapes[1])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(made.SerializeToString())


def quantised(layer: Layer, x: str, y: str) -> tuple[list[Any], dict[str, Any]]:
    """Between DequantizeLinear and QuantizeLinear."""
    o = layer.outputs
    rng = np.random.default_rng(layer.channels + o)
    constants = {
        "w": rng.integers(-127, 128, (o, layer.channels // layer.groups, layer.kernel, layer.kernel)).astype(np.int8),
        "w_zero": np.zeros(o, np.int8), "w_scale": (rng.random(o) * 0.01 + 0.001).astype(np.float32),
        "x_scale": np.float32(0.02), "x_zero": np.uint8(113), "y_scale": np.float32(0.4), "y_zero": np.uint8(0),
        "b_zero": np.zeros(o, np.int32), "b": rng.integers(-500, 500, o).astype(np.int32),
    }  # fmt: skip
    constants["b_scale"] = (constants["w_scale"] * constants["x_scale"]).astype(np.float32)
    nodes = [
        helper.make_node("DequantizeLinear", [x, "x_scale", "x_zero"], ["xf"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["wf"], axis=0),
        helper.make_node("DequantizeLinear", ["b", "b_scale", "b_zero"], ["bf"], axis=0),
        helper.make_node(
            "Conv", ["xf", "wf", "bf"], ["yf"], strides=[layer.stride] * 2, pads=[layer.kernel // 2] * 4,
            group=layer.groups,
        ),
        helper.make_node("QuantizeLinear", ["yf", "y_scale", "y_zero"], [y]),
    ]
    return nodes, constants


# ---- runs ----------------------------------------------------------------------------------------------------------


def runner(library: str, layer: Layer, last: bool, x: Any, threads: int) -> Callable[[], Any]:
    """A prepared run of one library; ImportError where it is not installed."""
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
        rng, shape = np.random.default_rng(0), (1, layer.channels, layer.size, layer.size)
        x = rng.integers(0, 256, shape).astype(np.uint8)
        medians, total = [], 0.0
        for last in (False, True):
            given = np.ascontiguousarray(np.moveaxis(x, 1, -1)) if last else x
            run = runner(library, layer, last, given, threads)
            total = float(np.array(run()).astype(np.float64).sum())
            medians.append(median(run, rounds))
        yield {"seconds": min(medians), "layouts": medians, "sum": total}


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
            rows = {library: rows[at] for library, rows in found.items()}
            ratios.append(report(name, layer, rows, peak, args))
            at += 1
        print(f"{name}: geometric mean x {statistics.geometric_mean(ratios):.2f}, least x {min(ratios):.2f}")


def report(name: str, layer: Layer, rows: dict[str, dict[str, Any]], peak: float, args: argparse.Namespace) -> float:
    """A line about a layer; its ratio."""
    own, values = rows["fastconv"], layer.outputs * layer.out**2
    for library, row in rows.items():
        off = abs(row["sum"] - own["sum"]) / values
        if off > 0.01:
            raise SystemExit(f"{library} computes something else: {off} a value of {layer}")
    best = min((row["seconds"] for library, row in rows.items() if library != "fastconv"), default=own["seconds"])
    share = 2e-9 * layer.macs / own["seconds"] / (4 * peak)
    shown = "  ".join(f"{library} {row['seconds'] * 1e6:7.0f}" for library, row in rows.items())
    print(f"{layer!s:48} {shown} us   x {best / own['seconds']:.2f}   {share:.0%} of peak", flush=True)
    if args.json:
        with open(args.json, "a", encoding="utf-8") as file:
            line = {"set": name, "layer": str(layer), "threads": args.threads, "rows": rows, "share": share}
            file.write(json.dumps(line) + "\n")
    return best / own["seconds"]


if __name__ == "__main__":
    main()
