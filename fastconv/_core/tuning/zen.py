"""AMD Zen 4 and Zen 5 with AVX-512: EPYC 9xx4, 9xx5, Ryzen 7000, 9000.

32 and 48 KB of first-level, 1 MB of second-level cache a core. Measured in November 2026 on virtual machines of two
cores, two threads, with the benchmark's sets (`fastconv bench --set vgg16 --set resnet50 --set mobilenet --set misc`,
each value in turns with its half and its double, or with the direct kernels), unless a line says more. Of values that
differ by less than the noise (2 %) the rounder one stands here.
"""

from __future__ import annotations

from typing import Any

from . import Tuning

MACHINES = ("zen4", "zen5")
MEASURED: dict[str, dict[str, Any]] = {
    "direct": {
        "call": 30, "pack": 4, "weight": 14, "task": 1000,  # Zen 4, one task of each kind timed alone
        "few_pixels": 8,  # Zen 4
    },
    "lanes": {"channels": 8, "channels_gradient": 8, "idle": 4},  # Zen 4: groups of 2 to 32 channels, 7 to 112 pixels
    "winograd": {  # Zen 4, one image, against the direct kernels
        "gradient": (16, 4, 1 << 20), "tiles_gradient": 9,
        "batch_channels": 32, "batch_tiles": 64,  # batch 64
        "few_tiles": 4, "held_bytes": 16 << 20,  # Zen 5
    },
    "winograd along rows": {"outputs": 16, "size": 24, "rows": 7},  # Zen 5
    "strassen": {"tiles_once": 50, "tiles_twice": 33, "part": 13},  # Zen 5, one image; once: Zen 4
}  # fmt: skip
TUNING = Tuning(
    "zen", 32 << 10, 1 << 20, tuple((method, tuple(own.items())) for method, own in MEASURED.items())
)
