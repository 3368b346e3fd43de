"""Layers of bytes beside other runtimes: one quantised convolution each, prepared, in turns in one process.

    python bench/quantised_layers.py [--threads 2] [--rounds 15] [--nets resnet50 mobilenetv2] [--json FILE]

Every library gets the same ONNX model of a convolution between DequantizeLinear and QuantizeLinear (uint8 activations,
int8 weights with a scale for each channel), and bytes in and out. Prints medians in microseconds, the ratio to the best
other, and the share of the machine's rate of products of bytes: four times that of float32 multiply-adds where it has
VNNI. Needs onnx, and measures those of onnxruntime and openvino that are installed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from fastconv import _native
from fastconv.onnx import InferenceSession

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


def model_of(c: int, n: int, o: int, k: int, s: int, g: int) -> bytes:
    """One convolution, quantised."""
    rng = np.random.default_rng(c + n + o)
    out = (n + 2 * (k // 2) - k) // s + 1
    constants = {
        "w": rng.integers(-127, 128, (o, c // g, k, k)).astype(np.int8), "w_zero": np.zeros(o, np.int8),
        "w_scale": (rng.random(o) * 0.01 + 0.001).astype(np.float32), "x_scale": np.float32(0.02),
        "x_zero": np.uint8(113), "y_scale": np.float32(0.4), "y_zero": np.uint8(0), "b_zero": np.zeros(o, np.int32),
        "b": rng.integers(-500, 500, o).astype(np.int32),
    }  # fmt: skip
    constants["b_scale"] = (constants["w_scale"] * constants["x_scale"]).astype(np.float32)
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "x_scale", "x_zero"], ["xf"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["wf"], axis=0),
        helper.make_node("DequantizeLinear", ["b", "b_scale", "b_zero"], ["bf"], axis=0),
        helper.make_node("Conv", ["xf", "wf", "bf"], ["yf"], strides=[s, s], pads=[k // 2] * 4, group=g),
        helper.make_node("QuantizeLinear", ["yf", "y_scale", "y_zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "layer", [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, c, n, n])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, [1, o, out, out])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(made.SerializeToString())


def runners(model: bytes, x: Any, threads: int) -> dict[str, Callable[[], Any]]:
    """Those that are installed."""
    ours = InferenceSession(model, num_threads=threads)
    found: dict[str, Callable[[], Any]] = {"fastconv": lambda: ours.run(None, {"x": x})[0]}
    try:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        found["onnxruntime"] = lambda: session.run(None, {"x": x})[0]
    except ImportError:
        pass
    try:
        import openvino

        core = openvino.Core()
        compiled = core.compile_model(
            core.read_model(model), "CPU", {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        )
        request = compiled.create_infer_request()
        found["openvino"] = lambda: request.infer({0: x}, share_inputs=True, share_outputs=True)[0]
    except ImportError:
        pass
    return found


def measured(layer: tuple[int, ...], threads: int, rounds: int) -> dict[str, float]:
    """Medians, in seconds."""
    c, n, *_ = layer
    x = np.random.default_rng(0).integers(0, 256, (1, c, n, n)).astype(np.uint8)
    found = runners(model_of(*layer), x, threads)
    results = {name: np.array(run()) for name, run in found.items()}
    for name, y in results.items():
        off = int(np.abs(y.astype(int) - results["fastconv"].astype(int)).max())
        assert off <= 1, f"{name} is {off} steps off"
    times: dict[str, list[float]] = {name: [] for name in found}
    for run in found.values():
        for _ in range(3):
            run()
    for _ in range(rounds):
        for name, run in found.items():
            inner = 5
            begin = time.perf_counter()
            for _ in range(inner):
                run()
            times[name].append((time.perf_counter() - begin) / inner)
    return {name: statistics.median(own) for name, own in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--nets", nargs="+", choices=sorted(LAYERS), default=sorted(LAYERS))
    parser.add_argument("--json", metavar="FILE", help="append the rows to a file, one a line")
    args = parser.parse_args()
    peak = 4 * _native.fma_peak(args.threads)
    for net in args.nets:
        ratios = []
        for layer in LAYERS[net]:
            c, n, o, k, s, g = layer
            found = measured(layer, args.threads, args.rounds)
            own = found["fastconv"]
            best = min((value for name, value in found.items() if name != "fastconv"), default=own)
            ratios.append(best / own)
            out = (n + 2 * (k // 2) - k) // s + 1
            share = 2e-9 * out * out * o * (c // g) * k * k / own / peak
            shown = "  ".join(f"{name} {value * 1e6:7.0f}" for name, value in found.items())
            told = f"{c} to {o}, {k} x {k} / {s}, {n} x {n}{f', {g} groups' if g > 1 else ''}"
            print(f"{net:12} {told:42} {shown} us   x {best / own:.2f}   {share:.0%} of peak", flush=True)
            if args.json:
                row = {"net": net, "layer": layer, "threads": args.threads, "seconds": found, "share": share}
                with open(args.json, "a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
        print(f"{net}: geometric mean x {statistics.geometric_mean(ratios):.2f}, least x {min(ratios):.2f}")


if __name__ == "__main__":
    main()
