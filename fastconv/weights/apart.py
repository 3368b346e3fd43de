"""A reader in a process of its own: where a library that reads a file may crash on it, only that process ends.

The process imports this module with the caller's path for modules, reads, and writes to its standard output a line of
JSON, which describes the layers or says why there are none, and behind it the values of their arrays.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..errors import ConvError
from .source import Source, SourceLayer

PROGRAM: Final = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from {module} import serve
serve(sys.argv[2])
"""
# Of the processor. A sound file of a megabyte takes a fraction of a second, a disk gives far more in each.
LEAST_SECONDS: Final = 10
LEAST_BYTES_PER_SECOND: Final = 5_000_000


def read_apart(module: str, place: Path) -> Source:
    """The layers of a file as `serve(place)` of a module writes them. Raises `ConvError` if it could not read them."""
    path = [folder or os.getcwd() for folder in sys.path]
    command = [sys.executable, "-I", "-c", PROGRAM.format(module=module), json.dumps(path), str(place)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    head, _, values = done.stdout.partition(b"\n")
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise ConvError(f"the library that reads it crashed or came to no end ({name}), so it is damaged")
    if done.returncode or not head:
        raise ConvError(f"the process that reads it ended with {done.returncode}, so it is damaged or too large")
    told = json.loads(head)
    if "refused" in told:
        raise ConvError(told["refused"])
    layers, at = [], 0
    for name, kind, roles in told["layers"]:
        arrays = {}
        for role, dtype, shape in roles:
            end = at + prod(shape) * np.dtype(dtype).itemsize
            arrays[role] = np.frombuffer(values[at:end], dtype).reshape(shape).copy()
            at = end
        layers.append(SourceLayer(name, kind, arrays))
    return Source(layers, told["in_order"], told["channels_first"])


def _limit_time(place: str) -> None:
    """A damaged file may send the library round in circles (tests/corpus/weights/endless-libhdf5.h5)."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    seconds = LEAST_SECONDS + os.path.getsize(place) // LEAST_BYTES_PER_SECOND
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def serve(read: Callable[[Path], Source], place: str) -> None:
    """In the process: read, and write the account of it."""
    _limit_time(place)
    layers: list[SourceLayer] = []
    try:
        source = read(Path(place))
    except MemoryError:
        told: dict[str, Any] = {"refused": "it claims more memory than there is"}
    except ConvError as error:
        told = {"refused": str(error)}
    except Exception as error:  # damaged archives and HDF5 files raise whatever they like
        told = {"refused": f"it is damaged or no such file ({error})"}
    else:
        layers = source.layers
        described = [
            [layer.name, layer.kind, [[role, a.dtype.str, a.shape] for role, a in layer.arrays.items()]]
            for layer in layers
        ]
        told = {"layers": described, "in_order": source.in_order, "channels_first": source.channels_first}
    with os.fdopen(os.dup(1), "wb") as out:
        out.write(json.dumps(told).encode() + b"\n")
        for layer in layers:
            for array in layer.arrays.values():
                out.write(np.ascontiguousarray(array).data)
