"""Processes that a benchmark starts: a library with a net, and neighbours that use all they can get of the CPUs."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final

START_LIMIT: Final = 900.0  # seconds for loading and the first run; PyTorch compiles for minutes
TURN_LIMIT: Final = 300.0
# A neighbour ends by itself when whoever started it is gone.
BUSY: Final = "import os\np = os.getppid()\nwhile os.getppid() == p:\n    for _ in range(1000000): pass"


class WorkerError(Exception):
    """A process that was to time a library ended, or took too long."""


class Worker:
    """A library in a process of its own, see `worker`."""

    def __init__(self, runtime: str, variant: str, folder: Path, threads: int) -> None:
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        package = Path(__file__).resolve().parents[2]
        path = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH", "")]))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "fastconv.bench.worker", runtime, variant, str(folder), str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, encoding="utf-8",
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def reply(self, limit: float) -> dict[str, Any]:
        """The next line of the process."""
        try:
            line = self._lines.get(timeout=limit)
        except queue.Empty:
            self.close()
            raise WorkerError(f"took more than {limit:.0f} seconds") from None
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            said = self._errors.read().strip().splitlines()
            raise WorkerError(f"ended with status {status}" + (f": {said[-1][:200]}" if said else ""))
        content: dict[str, Any] = json.loads(line)
        return content

    def turn(self, seconds: float) -> dict[str, Any]:
        """Times of calls for so many seconds, and the processor time of the process meanwhile."""
        assert self._process.stdin is not None
        with suppress(OSError):  # it ended; the reply says so
            print(json.dumps({"seconds": seconds}), file=self._process.stdin, flush=True)
        return self.reply(TURN_LIMIT + 10 * seconds)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with suppress(OSError):  # what was still to be written has no reader
                    stream.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
                 ) -> None:  # fmt: skip
        self.close()


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """So many processes that compute all the time."""
    started = [subprocess.Popen([sys.executable, "-S", "-c", BUSY]) for _ in range(count)]
    try:
        if started:
            time.sleep(0.3)  # until all of them compute
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()
