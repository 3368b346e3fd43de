"""Processes that the system gives no more memory or threads: `python no_room.py KIND MARGIN TEAM CALLERS`.

KIND is "memory" (MARGIN MiB of address space beyond what is used) or "threads" (so many of the user in all). Then every
kind of call is made on TEAM threads, from so many Python threads at once: each must give what it gives on one thread,
or raise MemoryError or RuntimeError. Prints what happened; a process that OpenMP's runtime ends prints nothing.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections import Counter
from collections.abc import Callable

import numpy as np
from forked import run

import fastconv
from fastconv import grad, layers

MEBIBYTE = 1 << 20


def calls(team: int) -> list[Callable[[], np.ndarray]]:
    """Every entry point that starts threads."""
    random = np.random.default_rng(0)
    x, w = random.integers(-3, 4, (2, 40, 24, 24)).astype("f4"), random.integers(-3, 4, (50, 40, 3, 3)).astype("f4")
    dy = random.integers(-3, 4, (2, 50, 24, 24)).astype("f4")
    net = fastconv.Sequential(
        [layers.Conv2D(32, 3, padding="same", activation="relu"), layers.MaxPooling2D(2), layers.Flatten(),
         layers.Dense(10)], input_shape=(48, 48, 16), seed=0
    )  # fmt: skip
    images, many = random.random((4, 48, 48, 16), np.float32), random.random((8, 24, 24, 8), np.float32)
    plan = fastconv.plan_conv2d(x.shape, w, padding=1, num_threads=team)

    def fit() -> np.ndarray:
        stack = [layers.Conv2D(16, 3), layers.Dropout(0.2), layers.Flatten(), layers.Dense(5, activation="softmax")]
        made = fastconv.Sequential(stack, input_shape=(24, 24, 8), seed=1)
        made.compile("adam")
        made.fit(many, np.arange(8) % 5, batch_size=4, seed=0, verbose=0)
        return np.concatenate([weight.ravel() for weight in made.get_weights()])

    return [
        lambda: fastconv.conv2d(x, w, padding=1, num_threads=min(2, team)),  # a smaller team than the next ones
        lambda: fastconv.conv2d(x, w, padding=1, num_threads=team),
        lambda: plan.run(x),
        lambda: grad.conv2d_input(x.shape, w, dy, padding=1, num_threads=team),
        lambda: grad.conv2d_weight(x, w.shape, dy, padding=1, num_threads=min(3, team)),
        lambda: net.predict(images),
        run()[0],
        lambda: fastconv.max_pool2d(np.broadcast_to(x, (3, *x.shape)).reshape(6, 40, 24, 24), 2),
        fit,
    ]


def limit(kind: str, margin: int) -> None:
    if kind == "memory":
        with open("/proc/self/statm", encoding="ascii") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + margin * MEBIBYTE,) * 2)
    else:
        if os.getuid() == 0:  # whom no limit holds
            os.setuid(60000 + os.getpid() % 5000)
        resource.setrlimit(resource.RLIMIT_NPROC, (margin,) * 2)


def main(kind: str, margin: int, team: int, callers: int) -> str:
    fastconv.set_num_threads(1)
    expected = [call() for call in calls(1)]
    assert len(os.listdir("/proc/self/task")) == 1  # no team yet
    fastconv.set_num_threads(team)
    made = calls(team)
    begin = threading.Event()
    happened: Counter[str] = Counter()

    def work() -> None:
        begin.wait()
        for number, (call, right) in enumerate(zip(made, expected, strict=True)):
            try:
                happened["right" if np.array_equal(call(), right) else f"wrong in call {number}"] += 1
            except (MemoryError, RuntimeError) as error:
                happened[f"{type(error).__name__} in call {number}"] += 1

    threads = [threading.Thread(target=work) for _ in range(callers - 1)]
    for thread in threads:
        thread.start()
    limit(kind, margin)
    begin.set()
    work()
    for thread in threads:
        thread.join()
    return f"{dict(happened)} threads {len(os.listdir('/proc/self/task'))}"


if __name__ == "__main__":
    print(main(sys.argv[1], *map(int, sys.argv[2:])), flush=True)
    os._exit(0)
