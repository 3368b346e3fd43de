"""Layers of bytes beside other runtimes: a quantised convolution each, prepared, every library in its own process.

    python bench/quantised_layers.py [--threads 2] [--rounds 15] [--nets resnet50 mobilenetv2] [--json FILE]

Every library gets the same ONNX model of a convolution between DequantizeLinear and QuantizeLinear (uint8 activations,
int8 weights with a scale for each channel), and bytes in and out, in the layout that it likes better. Prints medians in
microseconds, the ratio to the best other, and the share of the machine's rate of products of bytes: four times that of
float32 multiply-adds where it has VNNI. Needs onnx, and measures those of onnxruntime and openvino that are installed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from fastconv._native import fma_peak

LIBRARIES = ("fastconv", "onnxruntime", "openvino")
NOT_INSTALLED = 66
# (channels, size, outputs, kernel, stride, groups)
LAYERS = {
    "resnet50": [
        (3, 224, 64, 7, 2, 1), (64, 56, 64, 1, 1, 1), (64, 56, 64, 3, 1, 1), (64, 56, 256, 1, 1, 1),
        (256, 56, 64, 1, 1, 1), (256, 56, 128, 1, 1, 1), (128, 56, 128, 3, 2, 1), (256, 56, 512, 1, 2, 1),
        (128, 28, 512, 1, 1, 1), (512, 28, 128, 1, 1, 1), (128, 28, 128, 3, 1, 1), (256, 28, 256, 3, 2, 1),
        (256, 14, 1024, 1, 1, 1), (1024, 14, 256, 1, 1, 1), (256, 14, 256, 3, 1, 1), (512, 14, 512, 3, 2, 1),
        (512, 7, 2048, 1, 1, 1), (2048, 7, 512, 1, 1, 1), (512, 7, 512, 3, 1, 1),
    ],
    "mobilenetv2": [
        (3, 224, 32, 3, 2, 1), (32, 112, 32, 3, 1, 32), (32, 112, 16, 1, 1, 1), (16, 112, 96, 1, 1, 1),
        (96, 112, 96, 3, 2, 96), (96, 56, 24, 1, 1, 1), (24, 56, 144, 1, 1, 1), (144, 56, 144, 3, 1, 144),
        (144, 56, 144, 3, 2, 144), (144, 28, 32, 1, 1, 1), (32, 28, 192, 1, 1, 1), (192, 28, 192, 3, 1, 192),
        (192, 28, 192, 3, 2, 192), (192, 14, 64, 1, 1, 1), (64, 14, 384, 1, 1, 1), (384, 14, 384, 3, 1, 384),
        (384, 14, 96, 1, 1, 1), (96, 14, 576, 1, 1, 1), (576, 14, 576, 3, 1, 576), (576, 14, 576, 3, 2, 576),
        (576, 7, 160, 1, 1, 1), (160, 7, 960, 1, 1, 1), (960, 7, 960, 3, 1, 960), (960, 7, 320, 1, 1, 1),
        (320, 7, 1280, 1, 1, 1),
    ],
}  # fmt: skip


def model_of(c: int, n: int, o: int, k: int, s: int, g: int, last: bool) -> bytes:
    """One convolution, quantised; `last`: channels last in and out, by transposes that libraries leave out."""
    rng = np.random.default_rng(c + n + o)
    out = (n + 2 * (k // 2) - k) // s + 1
    constants = {
        "w": rng.integers(-127, 128, (o, c // g, k, k)).astype(np.int8), "w_zero": np.zeros(o, np.int8),
        "w_scale": (rng.random(o) * 0.01 + 0.001).astype(np.float32), "x_scale": np.float32(0.02),
        "x_zero": np.uint8(113), "y_scale": np.float32(0.4), "y_zero": np.uint8(0), "b_zero": np.zeros(o, np.int32),
        "b": rng.integers(-500, 500, o).astype(np.int32),
    }  # fmt: skip
    constants["b_scale"] = (constants["w_scale"] * constants["x_scale"]).astype(np.float32)
    turned = [helper.make_node("Transpose", ["x"], ["x1"], perm=[0, 3, 1, 2])] if last else []
    back = [helper.make_node("Transpose", ["y1"], ["y"], perm=[0, 2, 3, 1])] if last else []
    nodes = [
        *turned,
        helper.make_node("DequantizeLinear", ["x1" if last else "x", "x_scale", "x_zero"], ["xf"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["wf"], axis=0),
        helper.make_node("DequantizeLinear", ["b", "b_scale", "b_zero"], ["bf"], axis=0),
        helper.make_node("Conv", ["xf", "wf", "bf"], ["yf"], strides=[s, s], pads=[k // 2] * 4, group=g),
        helper.make_node("QuantizeLinear", ["yf", "y_scale", "y_zero"], ["y1" if last else "y"]),
        *back,
    ]
    graph = helper.make_graph(
        nodes, "layer",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, n, n, c] if last else [1, c, n, n])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, [1, out, out, o] if last else [1, o, out, out])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(made.SerializeToString())


def runner(library: str, model: bytes, x: Any, threads: int) -> Callable[[], Any]:
    """A prepared run of one library; ImportError where it is not installed."""
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
    options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    request = core.compile_model(core.read_model(model), "CPU", options).create_infer_request()
    return lambda: request.infer({0: x}, share_inputs=True, share_outputs=True)[0]


def measure(library: str, nets: list[str], threads: int, rounds: int) -> Iterator[dict[str, Any]]:
    """The layers of some nets by one library: medians in seconds, of the better layout, and sums of bytes."""
    for net in nets:
        for layer in LAYERS[net]:
            c, n, *_ = layer
            x = np.random.default_rng(0).integers(0, 256, (1, c, n, n)).astype(np.uint8)
            medians = []
            for last in (False, True):
                given = np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if last else x
                run = runner(library, model_of(*layer, last), given, threads)
                y, times = np.array(run()), []
                for _ in range(5):
                    run()
                for _ in range(rounds):
                    begin = time.perf_counter()
                    for _ in range(5):
                        run()
                    times.append((time.perf_counter() - begin) / 5)
                medians.append(statistics.median(times))
            yield {"seconds": min(medians), "layouts": medians, "sum": int(y.astype(np.int64).sum())}


def alone(library: str, args: argparse.Namespace) -> list[dict[str, Any]] | None:
    """The same in a process of its own; None where the library is not installed."""
    command = [
        sys.executable, "-P", __file__, "--only", library, "--threads", str(args.threads), "--rounds",
        str(args.rounds), "--nets", *args.nets,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == NOT_INSTALLED:
        return None
    if done.returncode:
        raise SystemExit(f"{library} failed:\n{done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--nets", nargs="+", choices=sorted(LAYERS), default=sorted(LAYERS))
    parser.add_argument("--json", metavar="FILE", help="append the rows to a file, one a line")
    parser.add_argument("--only", choices=LIBRARIES, help="measure one library in this process, and print rows")
    args = parser.parse_args()
    if args.only:
        try:
            for row in measure(args.only, args.nets, args.threads, args.rounds):
                print(json.dumps(row), flush=True)
        except ImportError:
            raise SystemExit(NOT_INSTALLED) from None
        return
    found = {library: rows for library in LIBRARIES if (rows := alone(library, args)) is not None}
    peak, at = 4 * fma_peak(args.threads), 0
    for net in args.nets:
        ratios = []
        for layer in LAYERS[net]:
            report(net, layer, {library: rows[at] for library, rows in found.items()}, peak, ratios, args)
            at += 1
        print(f"{net}: geometric mean x {statistics.geometric_mean(ratios):.2f}, least x {min(ratios):.2f}")


def report(
    net: str, layer: tuple[int, ...], rows: dict[str, dict[str, Any]], peak: float, ratios: list[float],
    args: argparse.Namespace,
) -> None:  # fmt: skip
    """A line about a layer."""
    c, n, o, k, s, g = layer
    out = (n + 2 * (k // 2) - k) // s + 1
    own = rows["fastconv"]
    for library, row in rows.items():
        off = abs(row["sum"] - own["sum"]) / (o * out * out)
        assert off < 0.01, f"{library} computes something else: {off} a value"
    best = min((row["seconds"] for name, row in rows.items() if name != "fastconv"), default=own["seconds"])
    ratios.append(best / own["seconds"])
    share = 2e-9 * out * out * o * (c // g) * k * k / own["seconds"] / peak
    shown = "  ".join(f"{name} {row['seconds'] * 1e6:6.0f}" for name, row in rows.items())
    told = f"{c} to {o}, {k} x {k} / {s}, {n} x {n}{f', {g} groups' if g > 1 else ''}"
    print(f"{net:12} {told:42} {shown} us   x {ratios[-1]:.2f}   {share:.0%} of peak", flush=True)
    if args.json:
        row = {"net": net, "layer": layer, "threads": args.threads, "rows": rows, "share": share}
        with open(args.json, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
