"""Damaged ONNX files: refused with an error of ours, or run; never a crash, another exception, or gigabytes."""

from __future__ import annotations

import resource
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from fastconv import ConvError, ConvTypeError
from reliability.board import Outcome, row

MOST_BYTES = 3 << 30  # of address space: a quarter of what the absurd lengths in these files ask for
MOST_SECONDS = 20  # of CPU time, of one file


@row("damaged ONNX files, loaded and run", "0 crashes", quick=400, full=20_000, order=560)
def onnx_files(count: int) -> Outcome:
    """Flipped, missing and repeated bytes, absurd lengths and attributes."""
    outcome = Outcome()
    if find_spec("onnx") is None:
        outcome.skipped = "needs the package onnx: pip install fastconv[onnx]"
        return outcome
    import onnx
    import onnx_models

    nets = [made(onnx).SerializeToString() for made in (onnx_models.small_net, onnx_models.net_with_bodies)]
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, before[1]))
    refused = 0
    for seed in range(count):
        verdict = try_model(onnx_models.damaged(onnx, nets[seed % 2], seed))
        refused += verdict == "refused"
        outcome.check(verdict in ("ran", "refused"), f"seed {seed}: {verdict}")
    resource.setrlimit(resource.RLIMIT_AS, before)
    outcome.measured = f"{refused:,} refused"
    return outcome


def try_model(data: bytes | Path) -> str:
    """'ran', 'refused', or what went wrong."""
    from fastconv.onnx import InferenceSession

    start = time.process_time()  # what others do to the machine is no fault of the file
    try:
        session = InferenceSession(data, max_value_bytes=1 << 28)
        feeds = {}
        for value in session.get_inputs():
            shape = [size if isinstance(size, int) and size < 64 else 2 for size in value.shape or (2, 3, 8, 8)]
            feeds[value.name] = np.ones(shape, np.float32)
        session.run(None, feeds)
        verdict = "ran"
    except (ConvError, ConvTypeError):
        verdict = "refused"
    except MemoryError:
        return "out of memory"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    seconds = time.process_time() - start
    return verdict if seconds < MOST_SECONDS else f"{verdict} after {seconds:.0f} s"
