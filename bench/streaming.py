"""A causal net of ten layers that runs step by step, beside PyTorch: medians of turns taken in alternation.

    python bench/streaming.py [--threads 2] [--rounds 15]

A step is 20 ms at 16 kHz. Three nets: filters of the samples themselves (320 a step) whose dilation doubles from layer
to layer, 32 and 64 channels wide, and one of 256 channels on frames (one a step). fastconv keeps what each layer looks
back on in `CausalConv1d`, channels last; in PyTorch it is laid before the step's samples, and kept by a slice. The
results of both are compared first.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import fastconv
from fastconv.bench.measure import Candidate, time_interleaved
from fastconv.streaming import CausalConv1d

LAYERS, TAPS = 10, 3
NETS = (("samples, 32 channels", 32, 320, True), ("samples, 64 channels", 64, 320, True),
        ("frames, 256 channels", 256, 1, False))  # fmt: skip
Weights = list[tuple[Any, Any, int]]


def weights(channels: int, dilated: bool) -> Weights:
    """Kernels (O, I, k), biases and dilations."""
    random = np.random.default_rng(0)
    size = (2 / (TAPS * channels)) ** 0.5
    return [
        ((size * random.standard_normal((channels, channels, TAPS))).astype(np.float32),
         (0.1 * random.standard_normal(channels)).astype(np.float32), 1 << i if dilated else 1)
        for i in range(LAYERS)
    ]  # fmt: skip


def ours(made: Weights) -> Callable[[Any], Any]:
    net = [
        CausalConv1d(np.ascontiguousarray(w.transpose()), b, dilation=d, data_format="NWC", activation="relu")
        for w, b, d in made
    ]

    def step(x: Any) -> Any:
        for layer in net:
            x = layer.run(x)
        return x

    return step


def theirs(made: Weights) -> Callable[[Any], Any]:
    net = [
        [torch.from_numpy(w), torch.from_numpy(b), d, torch.zeros(1, w.shape[1], (TAPS - 1) * d)] for w, b, d in made
    ]

    def step(x: Any) -> Any:
        with torch.inference_mode():
            for layer in net:
                w, b, dilation, past = layer
                whole = torch.cat([past, x], 2)
                layer[3] = whole[:, :, whole.shape[2] - past.shape[2] :]
                x = torch.relu_(torch.nn.functional.conv1d(whole, w, b, dilation=dilation))
            return x

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    fastconv.set_num_threads(given.threads)
    print(f"{given.threads} threads, ISA {fastconv.info()['isa']}, torch {torch.__version__}; medians")
    print(f"{'a step of':22}  {'torch':>9}  {'fastconv':>9}  {'share':>6}")
    for name, channels, samples, dilated in NETS:
        made = weights(channels, dilated)
        x = np.random.default_rng(1).standard_normal((1, samples, channels)).astype(np.float32)
        tensor = torch.from_numpy(x.transpose(0, 2, 1).copy())
        steps = ours(made), theirs(made)
        for _ in range(4):  # a net that forgot what was before would differ from the second step on
            wanted = steps[1](tensor).numpy().transpose(0, 2, 1)
            assert np.abs(steps[0](x) - wanted).max() < 1e-4 * np.abs(wanted).max()
        own = Candidate("fastconv", "", lambda step=steps[0], x=x: step(x), np.asarray)
        other = Candidate("torch", "", lambda step=steps[1], x=tensor: step(x), np.asarray)
        time_interleaved([own, other], given.rounds)
        share = own.median / other.median
        print(f"{name:22}  {1e3 * other.median:6.3f} ms  {1e3 * own.median:6.3f} ms  {share:6.2f}", flush=True)


if __name__ == "__main__":
    main()
