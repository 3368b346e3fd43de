"""A reader in a process of its own: where a library that reads a file may crash on it, only that process ends.

The process imports this module with the caller's path for modules. It writes a line of JSON, which describes the layers
or says why there are none, and then the values of each array whose number it is given, behind a line that says how many
bytes they are: the caller asks only for what it has a use for.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from .._core.arrays import Array
from .._core.words import Shape
from ..errors import ConvError
from .source import Place, Source, SourceLayer, Stored

PROGRAM: Final = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from {module} import serve
serve(sys.argv[2])
"""
# Of the processor. A sound file of a megabyte takes a fraction of a second, a disk gives far more in each.
LEAST_SECONDS: Final = 10
LEAST_BYTES_PER_SECOND: Final = 5_000_000
# Of address space, beside what the process has when it begins: for the values and for what the library keeps.
LEAST_MEMORY: Final = 1 << 30
MEMORY_PER_BYTE: Final = 3
MOST_LINE: Final = 1 << 26
SECONDS_TO_END: Final = 5  # that a process which has closed its output may take


class _Process:
    """The process at work; what it says is asked for line by line."""

    def __init__(self, module: str, place: Path) -> None:
        path = [folder or os.getcwd() for folder in sys.path]
        command = [sys.executable, "-I", "-c", PROGRAM.format(module=module), json.dumps(path), str(place)]
        self.running = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self.running.stdin is not None and self.running.stdout is not None
        self.stdin, self.stdout = self.running.stdin, self.running.stdout

    def told(self) -> dict[str, Any]:
        """What the next line says."""
        line = self.stdout.readline(MOST_LINE)
        if not line.endswith(b"\n"):
            raise self._ended()
        told: dict[str, Any] = json.loads(line)
        if "refused" in told:
            raise ConvError(told["refused"])
        return told

    def array(self, number: int, dtype: np.dtype[Any], shape: Shape) -> Array:
        """The values of the array of a number."""
        try:
            self.stdin.write(b"%d\n" % number)
            self.stdin.flush()
        except OSError:
            raise self._ended() from None
        values = bytearray(self.told()["bytes"])
        if self.stdout.readinto(values) != len(values):  # type: ignore[attr-defined]
            raise self._ended()
        return np.frombuffer(values, dtype).reshape(shape)

    def _ended(self) -> ConvError:
        with suppress(subprocess.TimeoutExpired):
            self.running.wait(SECONDS_TO_END)
        code = self.running.poll()
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return ConvError(f"the library that reads it crashed or came to no end ({name}), so it is damaged")
        return ConvError("the process that reads it ended, so it is damaged or too large")

    def close(self) -> None:
        with suppress(OSError):
            self.stdin.close()
        self.stdout.close()
        self.running.kill()
        self.running.wait()


@contextmanager
def opened_apart(module: str, place: Path) -> Iterator[Source]:
    """The layers of a file as `serve(place)` of a module tells them. Raises `ConvError` if it could not read them."""
    process = _Process(module, place)
    try:
        told = process.told()
        numbers = iter(range(1 << 62))
        layers = [
            SourceLayer(name, kind, {role: _asked(process, next(numbers), *of) for role, *of in roles}, _place(place))
            for name, kind, roles, place in told["layers"]
        ]
        before = told["before"]
        yield Source(
            layers, nested=True, before=None if before is None else [int(bits, 16) for bits in before],
            shared=told["shared"], notes=told["notes"],
        )  # fmt: skip
    finally:
        process.close()


def _asked(process: _Process, number: int, dtype: str, shape: list[int]) -> Stored:
    kind, sizes = np.dtype(dtype), tuple(shape)
    return Stored(sizes, kind, lambda: process.array(number, kind, sizes))


def _place(listed: list[list[str | int]]) -> Place:
    return tuple(tuple(part) for part in listed)


# ---- in the process ------------------------------------------------------------------------------------------------


def _limit(place: str) -> None:
    """A damaged file may send the library round in circles (tests/corpus/weights/endless-libhdf5.h5), or make it
    ask for memory without an end."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    size = os.path.getsize(place)
    seconds = LEAST_SECONDS + size // LEAST_BYTES_PER_SECOND
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    with suppress(OSError, ValueError):  # where there is no such file, there is no limit
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + LEAST_MEMORY + MEMORY_PER_BYTE * size
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def serve(opened: Callable[[Path], AbstractContextManager[Source]], place: str) -> None:
    """In the process: read, give the account of it, and then the arrays that are asked for."""
    _limit(place)
    with os.fdopen(os.dup(1), "wb") as out:
        try:
            with opened(Path(place)) as source:
                _say(out, _described(source))
                stored = [array for layer in source.layers for array in layer.arrays.values()]
                for line in sys.stdin.buffer:
                    values = np.ascontiguousarray(stored[int(line)].read())
                    _say(out, {"bytes": values.nbytes})
                    out.write(values.data)
                    out.flush()
        except MemoryError:
            _say(out, {"refused": "it claims more memory than there is"})
        except ConvError as error:
            _say(out, {"refused": str(error)})
        except Exception as error:  # damaged archives and HDF5 files raise whatever they like
            _say(out, {"refused": f"it is damaged or no such file ({error})"})


def _say(out: BinaryIO, told: dict[str, Any]) -> None:
    out.write(json.dumps(told).encode() + b"\n")
    out.flush()


def _described(source: Source) -> dict[str, Any]:
    layers = [
        [layer.name, layer.kind, [[role, a.dtype.str, a.shape] for role, a in layer.arrays.items()], layer.place]
        for layer in source.layers
    ]
    before = None if source.before is None else [f"{bits:x}" for bits in source.before]
    return {"layers": layers, "before": before, "shared": source.shared, "notes": source.notes}
