"""Files that claim too much, and what is no regular file: refused at once, without the memory that they claim."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import claims

from reliability.board import Outcome, row

LEAST_CASES = 60
MOST_SECONDS = 120  # of all files together; a reader that waits for a pipe takes for ever


@row("files that claim too much, or are none", "0 taken, 0 waits", quick=1, full=1, order=565)
def claiming_files(count: int) -> Outcome:
    """Every reader: .npz, .safetensors, .pth, HDF5 where h5py is, .npy, names of classes, ONNX where onnx is."""
    outcome = Outcome()
    if not sys.platform.startswith("linux"):
        outcome.skipped = "the memory that a process has taken is read from /proc"
        return outcome
    with tempfile.TemporaryDirectory(prefix="fastconv-claims-") as folder:
        for name, verdict in claims.verdicts(Path(folder), MOST_SECONDS):
            outcome.check(not verdict, f"{name}: {verdict}")
    outcome.check(outcome.cases >= LEAST_CASES, f"only {outcome.cases} files were tried")
    outcome.measured = f"{outcome.cases} refused" if not outcome.failed else f"{outcome.failed} of {outcome.cases} not"
    return outcome
