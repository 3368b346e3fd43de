"""For any machine: budgets from the sizes of its caches, thresholds that hold on all machines measured so far.

The thresholds compare work with work (products saved beside values transformed), and so move little from machine to
machine; the budgets move with the caches. The shares below are those that were best on Zen 4 and Zen 5 (`zen`), whose
first level has 32 and 48 KB and whose second has 1 MB a core.
"""

from __future__ import annotations

from . import Budgets, Costs, Direct, Lanes, Strassen, Tuning, Winograd, WinogradFrom, WinogradRows

DIRECT = Direct(
    costs=Costs(call=30, pack=4, weight=14, task=1000), merging_gain=0.8, exchange_gain=0.8, few_pixels=8
)
LANES = Lanes(channels=8, channels_gradient=8, idle_channels=4)
WINOGRAD = Winograd(
    channels=6, outputs=3, macs=1 << 20, size_held=7, size=12, size_wide=7, wide=128, channels_dilated=64,
    gradient=WinogradFrom(channels=32, size=4, macs=1 << 20), tiles_gradient=9,
    small=WinogradFrom(channels=64, size=4, macs=1 << 19), channels_small=32, channels_smallest=128,
    strided={3: WinogradFrom(64, 7, 16 << 20), 2: WinogradFrom(32, 4, 4 << 20)}, size_strided_large=24,
    batch_channels=32, batch_tiles=64, few_tiles=4, held_bytes=16 << 20,
)  # fmt: skip
WINOGRAD_ROWS = WinogradRows(outputs=16, size=24, rows=7)
STRASSEN = Strassen(
    pays={1: (48, 512, 512, 1 << 18), 2: (128, 256, 256, 1 << 17)}, tiles={1: 50, 2: 33}, part=13
)


def budgets(first: int, second: int) -> Budgets:
    """For caches of so many bytes a core: the second level's shares in 128ths, at least as for 256 KB."""
    share = max(second, 256 << 10) // 128
    return Budgets(
        weight_slice=max(32 << 10, 8 * share if second else 2 * first), region=48 * share, sums=40 * share,
        lane_region=48 * share, winograd_sums=81 * share, winograd_slice=72 * share, winograd_input=64 * share,
        strassen_panel=32 * share,
    )  # fmt: skip


def tuning(first: int, second: int) -> Tuning:
    """For caches of so many bytes a core."""
    scale = max(second, 256 << 10) / (1 << 20)
    blocks = STRASSEN._replace(tiles={levels: max(8, round(n * scale)) for levels, n in STRASSEN.tiles.items()})
    return Tuning("generic", budgets(first, second), DIRECT, LANES, WINOGRAD, WINOGRAD_ROWS, blocks)
