"""Ctrl-C in a call that takes long: another process sends SIGINT, KeyboardInterrupt comes out of the call."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import fastconv
from fastconv import grad
from fastconv.layers.rows import dense
from reliability.board import Outcome, row
from reliability.rows.processes import bits, calls

SECONDS = 5.0  # that a call would take
AFTER = 0.8  # seconds into the call at which the signal is sent
PROMPT = 0.5  # seconds within which the call must end
# The clock is the same in all processes, so that the sender can say when it sent.
SENDER = """
import os, signal, sys, time
time.sleep(float(sys.argv[2]))
print(time.monotonic(), flush=True)
os.kill(int(sys.argv[1]), signal.SIGINT)
"""

Case = tuple[str, Callable[[int], object]]  # what, and the call for a batch of so many


def _batch(n: int, *shape: int) -> np.ndarray:
    """n times the same image, without the memory of it."""
    return np.broadcast_to(np.ones(shape, np.float32), (n, *shape))


def _cases() -> list[Case]:
    w7, w3 = (np.full((512, 512, k, k), 0.01, np.float32) for k in (7, 3))
    w65, depthwise = np.ones((64, 64, 65, 65), np.float32), np.ones((256, 1, 7, 7), np.float32)
    direct: dict[str, Any] = {"padding": 1, "algorithm": "direct"}
    winograd: dict[str, Any] = {"padding": 1, "algorithm": "winograd"}

    def plan(n: int, algorithm: str) -> object:
        return fastconv.plan_conv2d((n, 512, 56, 56), w3, padding=1, algorithm=algorithm).run(_batch(n, 512, 56, 56))

    return [
        ("conv2d, direct", lambda n: fastconv.conv2d(_batch(n, 512, 28, 28), w7, **direct)),
        ("weight gradient, direct", lambda n: grad.conv2d_weight(
            _batch(n, 512, 28, 28), w7.shape, _batch(n, 512, 24, 24), **direct)),
        ("conv2d, winograd", lambda n: fastconv.conv2d(_batch(n, 512, 56, 56), w3, **winograd)),
        ("max_pool2d", lambda n: fastconv.max_pool2d(_batch(n, 64, 128, 128), 31, 1)),
        ("dense layer", lambda n: dense(np.ones((32 * n, 2048), np.float32), np.ones((2048, 2048), np.float32),
                                        np.empty((32 * n, 2048), np.float32))),
        ("input gradient, direct", lambda n: grad.conv2d_input(
            (n, 512, 28, 28), w7, _batch(n, 512, 24, 24), **direct)),
        ("input gradient, winograd", lambda n: grad.conv2d_input(
            (n, 512, 56, 56), w3, _batch(n, 512, 56, 56), **winograd)),
        ("weight gradient, winograd", lambda n: grad.conv2d_weight(
            _batch(n, 512, 56, 56), w3.shape, _batch(n, 512, 56, 56), **winograd)),
        ("bias gradient", lambda n: fastconv.conv2d_backward(
            _batch(n, 512, 256, 256), _batch(n, 1, 256, 256), np.ones((512, 1, 1, 1), np.float32),
            output_mask=(False, False, True))),
        ("conv2d, window of 65 x 65", lambda n: fastconv.conv2d(_batch(n, 64, 96, 96), w65, algorithm="direct")),
        ("conv2d, depthwise", lambda n: fastconv.conv2d(_batch(n, 256, 112, 112), depthwise, groups=256, padding=3)),
        ("weight gradient, depthwise", lambda n: grad.conv2d_weight(
            _batch(n, 256, 112, 112), depthwise.shape, _batch(n, 256, 112, 112), groups=256, padding=3)),
        ("conv_transpose2d", lambda n: fastconv.conv_transpose2d(_batch(n, 512, 28, 28), w7, stride=2)),
        ("plan.run, direct", lambda n: plan(n, "direct")),
        ("plan.run, winograd", lambda n: plan(n, "winograd")),
        ("gradient of max_pool2d", lambda n: grad.max_pool2d_input(
            _batch(n, 64, 128, 128), 31, _batch(n, 64, 98, 98), 1)),
        ("avg_pool2d", lambda n: fastconv.avg_pool2d(_batch(n, 64, 128, 128), 31, 1)),
        ("gradient of avg_pool2d", lambda n: grad.avg_pool2d_input(
            (n, 64, 128, 128), 31, _batch(n, 64, 98, 98), 1)),
    ]  # fmt: skip


@row("Ctrl-C, sent by another process, in a call of 5 s", "returns within 0.5 s, next call right",
     quick=5, full=54, order=210)  # fmt: skip
def interrupts(count: int) -> Outcome:
    """Every case on the default threads, on one and on four, as far as the count goes."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process may have inherited "ignore"
    outcome = Outcome()
    expected = bits(calls())
    cases = _cases()
    default = fastconv.get_num_threads()
    worst = 0.0
    for index in range(count):
        threads = (default, 1, 4)[index // len(cases) % 3]
        fastconv.set_num_threads(threads)
        what, call = cases[index % len(cases)]
        call(1)
        begin = time.monotonic()
        call(1)
        seconds = time.monotonic() - begin
        after = _interrupt(call, max(1, math.ceil(SECONDS / seconds)))
        label = f"{what}, {threads} threads"
        outcome.check(after is not None and after <= PROMPT, f"{label}: " + (
            "not interrupted" if after is None else f"returned after {after:.2f} s"))  # fmt: skip
        worst = max(worst, after or 0)
        fastconv.set_num_threads(default)
        outcome.check(bits(calls()) == expected, f"the calls after {label}")
    outcome.measured = f"slowest return {worst:.2f} s after the signal"
    return outcome


def _interrupt(call: Callable[[int], object], batch: int) -> float | None:
    """Seconds from the signal to the return of call(batch); None if it returned as if nothing had happened."""
    arguments = [sys.executable, "-S", "-c", SENDER, str(os.getpid()), str(AFTER)]
    sender = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    end, finished = None, False
    try:
        call(batch)
        finished = True
        sender.wait()  # the signal may still be to come
        time.sleep(0.1)
    except KeyboardInterrupt:
        end = time.monotonic()
    sent, _ = sender.communicate()
    return None if finished or end is None else end - float(sent)
