"""Part three of the demo: forward, input gradient and weight gradient beside NumPy, timed by `fastconv.bench`.

The reference is the plain one of `fastconv.reference`. NumPy's fastest way is im2col: every window becomes a row of a
large matrix, and one product with the weights does the rest in BLAS (Chellapilla et al., 2006).
"""

from __future__ import annotations

from typing import Final

from ..._core.threads import get_num_threads
from ...bench.cases import PASS_WORDS, Case
from ...bench.peers import Ours, load_peers
from ...bench.report import OURS, Row, seconds_text
from ...bench.suite import run_case
from ..common import CommandError, progress

ROUNDS: Final = 5  # every competitor takes its turn in each
QUICK_ROUNDS: Final = 3
PASSES: Final = ("eager", "dx", "dw")
BASELINES: Final = ("im2col", "reference")
CASES: Final = (
    Case("demo", "3×3, 64 → 64, 56 × 56", "3×3", 64, 64, 56, 3, padding=1),
    Case("demo", "3×3, 128 → 128, 28 × 28", "3×3", 128, 128, 28, 3, padding=1),
    Case("demo", "1×1, 256 → 64, 56 × 56", "1×1", 256, 64, 56, 1),
)


def measure(quick: bool, show: bool) -> list[Row]:
    """A row for each convolution and pass; a wrong answer raises `CommandError`."""
    ours = Ours(get_num_threads())
    peers, missing = load_peers(BASELINES, ours.threads)
    if missing:
        raise CommandError(f"{next(iter(missing.values()))}; install it with: pip install fastconv[demo]")
    jobs = [(case, name) for case in (CASES[:1] if quick else CASES) for name in PASSES]
    rows = []
    for case, name in progress(jobs, len(jobs), "timing", "measurements", show):
        rows.append(run_case(case, name, ours, peers, QUICK_ROUNDS if quick else ROUNDS))
        wrong = [timing.peer for timing in rows[-1].timings if not timing.correct]
        if wrong:
            raise CommandError(f"{wrong[0]}: the {PASS_WORDS[name]} of {case.name} differs from the reference")
    return rows


def _beside(row: Row, peer: str) -> tuple[str, str]:
    """A peer's time, and how many times faster fastconv is."""
    timing = row.of(peer)
    return (seconds_text(timing.seconds), f"{row.ratio(timing):.1f}×") if timing else ("–", "–")


def run(quick: bool, show: bool) -> tuple[list[str], list[Row]]:
    """Time everything; the lines of the report, and the figures."""
    lines = [
        f"A call on one image, float32, NHWC, {get_num_threads()} thread(s) for fastconv and BLAS alike; medians of",
        "turns taken one after another, each when no other thread runs; × is how many times faster fastconv is.",
        "",
        f"  {'convolution':<26}{'pass':<21}{'fastconv':>9}{'GFLOP/s':>9}"
        f"{'im2col + BLAS':>15}{'×':>7}{'reference':>11}{'×':>8}",
    ]
    rows = measure(quick, show)
    for row in rows:
        timing = row.of(OURS)
        assert timing is not None
        cells = [*_beside(row, "im2col"), *_beside(row, "reference")]
        lines.append(
            f"  {row.layer:<26}{PASS_WORDS[row.pass_name]:<21}{seconds_text(timing.seconds):>9}"
            f"{row.gflops(timing):>9.0f}{cells[0]:>15}{cells[1]:>7}{cells[2]:>11}{cells[3]:>8}"
        )
    return lines, rows
