"""AMD Zen 4 and Zen 5 with AVX-512: EPYC 9xx4, 9xx5, Ryzen 7000, 9000.

32 and 48 KB of first-level, 1 MB of second-level cache a core.

Measured in November 2026 on virtual machines of two cores, two threads, with the benchmark's sets
(`fastconv bench --set vgg16 --set resnet50 --set mobilenet --set misc`, each variant in turns with the other), unless a
line says more. A number that two neighbours share within the noise (2 %) is the rounder one.
"""

from __future__ import annotations

from . import Budgets, Costs, Direct, Lanes, Strassen, Tuning, Winograd, WinogradFrom, WinogradRows

MACHINES = ("zen4", "zen5")

# Zen 4: `fastconv bench --set resnet50 --set vgg16`, halved and doubled one at a time.
BUDGETS = Budgets(
    weight_slice=64 << 10,  # 256 rows of a panel in AVX-512
    region=384 << 10,
    sums=320 << 10,
    lane_region=384 << 10,
    winograd_sums=648 << 10,  # of 72 tiles in AVX-512
    winograd_slice=576 << 10,  # 64 channels
    winograd_input=512 << 10,
    strassen_panel=256 << 10,  # Zen 5
)
DIRECT = Direct(
    costs=Costs(call=30, pack=4, weight=14, task=1000),  # Zen 4, one task of each kind timed alone
    merging_gain=0.8,
    exchange_gain=0.8,
    few_pixels=8,  # Zen 4
)
LANES = Lanes(channels=8, channels_gradient=8, idle_channels=4)  # Zen 4: groups of 2 to 32 channels at 7 to 112 pixels
# Zen 4, one image, against the direct kernels, unless said otherwise.
WINOGRAD = Winograd(
    channels=6,
    outputs=3,
    macs=1 << 20,
    size_held=7,
    size=12,
    size_wide=7,
    wide=128,
    channels_dilated=64,
    gradient=WinogradFrom(channels=32, size=4, macs=1 << 20),
    tiles_gradient=9,
    # A plan is then 1.1 to 1.7 times as fast as direct at one image and 1.5 to 2.1 times at 32. A single call is 0.65
    # to 1.06 times as fast at one image and 1.3 to 2.0 times at 32, where the choice counts for more.
    small=WinogradFrom(channels=64, size=4, macs=1 << 19),
    channels_small=32,
    channels_smallest=128,
    strided={3: WinogradFrom(64, 7, 16 << 20), 2: WinogradFrom(32, 4, 4 << 20)},  # Zen 5
    size_strided_large=24,  # Zen 5
    batch_channels=32,  # batch 64
    batch_tiles=64,
    few_tiles=4,  # Zen 5
    held_bytes=16 << 20,
)
WINOGRAD_ROWS = WinogradRows(outputs=16, size=24, rows=7)  # Zen 5
STRASSEN = Strassen(  # Zen 5, one image
    pays={1: (48, 512, 512, 1 << 18), 2: (128, 256, 256, 1 << 17)}, tiles={1: 50, 2: 33}, part=13
)
TUNING = Tuning("zen", BUDGETS, DIRECT, LANES, WINOGRAD, WINOGRAD_ROWS, STRASSEN)
