"""What inference of a whole network occupies beside its weights, measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..models import Sequential, resnet, vgg

MODELS: Final[dict[str, Callable[[], Sequential]]] = {
    "VGG-16": lambda: vgg("D", seed=0),
    "ResNet-50": lambda: resnet(50, seed=0),
}
STATUS: Final = Path("/proc/self/status")
LIMIT: Final = 300  # seconds; drawing VGG-16's 138 million weights takes a few


def peak_memory(name: str) -> dict[str, Any]:
    """Bytes of the first prediction at batch 1 by a prepared net; `peak_bytes` is None, with `why`, if not known."""
    if not STATUS.exists():
        return {"net": name, "peak_bytes": None, "why": "this system does not tell a process its peak"}
    command = [sys.executable, "-m", "fastconv.bench.memory", name]
    made = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    if made.returncode:
        lines = made.stderr.strip().splitlines() or [f"exit status {made.returncode}"]
        return {"net": name, "peak_bytes": None, "why": lines[-1]}
    measured: dict[str, Any] = json.loads(made.stdout)
    return measured


def resident(field: str) -> int:
    """VmRSS or VmHWM (its peak) of this process in bytes."""
    for line in STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{STATUS} has no {field}")


def largest_pair(model: Sequential) -> int:
    """Bytes of the input and output of the layer where they are largest together, for one sample."""
    assert model.built_shape is not None
    pairs = (prod(before) + prod(after) for _, before, after in model.shapes(model.built_shape))
    return model.dtype.itemsize * max(pairs)


def measure(name: str) -> dict[str, Any]:
    """Prepare the net, set the peak back, predict once. The weights are there before, input and result are not."""
    model = MODELS[name]()
    plan = model.compile_inference()
    weights = sum(parameter.array.nbytes for parameter in model.parameters())
    assert model.built_shape is not None
    x = np.random.default_rng(0).standard_normal((1, *model.built_shape), np.float32)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is from here on
    before = resident("VmRSS")
    plan.run(x)
    return {
        "net": name, "peak_bytes": resident("VmHWM") - before, "pair_bytes": largest_pair(model),
        "weight_bytes": weights, "packed_bytes": sum(step["packed_bytes"] for step in plan.steps),
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
