"""The machine and the build that a report must name, for `info`, `check`, `demo` and `bench`."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np

from .. import _native
from .._core import threads
from .._core.machine import cpu_name
from .._core.types import COMPUTE_DTYPES
from ..functional import info


def register_tiles() -> dict[str, tuple[int, int]]:
    """(pixels, output channels) of the largest register tile of the instruction set in use, by element type."""
    tiles = {}
    for compute, dtype in enumerate(COMPUTE_DTYPES):
        _, lanes, vectors, rows = _native.tile_shape(compute)
        tiles[dtype.name] = (rows, lanes * vectors)
    return tiles


def describe() -> dict[str, Any]:
    """All of it: `fastconv.info()`, where the threads come from, register tiles, NumPy, Python and the processor."""
    return {
        **info(),
        "threads_explained": threads.explain(),
        "register_tiles": register_tiles(),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def one_line(isa: bool = True) -> str:
    """The machine and the build in one line, for the head of a report; `isa` false leaves out the instruction set."""
    about = info()
    return ", ".join([
        f"fastconv {about['version']}", *([about["isa"]] if isa else []), f"{about['threads']} thread(s)",
        about["openmp"], f"NumPy {np.__version__}", cpu_name(),
    ])  # fmt: skip
