"""Children forked beside busy threads of their parent: `python forked.py WHAT COUNT`, a process of its own.

Prints how many children there were, and which hung or computed other bits than the parent had computed alone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np

import fastconv
from fastconv import Sequential, layers

THREADS = 4
PATIENCE = 30.0  # seconds after which a child is taken for hung; it needs a hundredth
Call = Callable[[], np.ndarray]

# ---- what is computed: the child's call, and those of the threads --------------------------------------------------


def net(seed: int, size: int = 24) -> Sequential:
    return Sequential(
        [
            layers.Conv2D(16, 3, padding="same", activation="relu"), layers.BatchNormalization(),
            layers.Residual([layers.Conv2D(16, 3, padding="same")]), layers.MaxPooling2D(2), layers.Dropout(0.3),
            layers.Flatten(), layers.Dense(5, activation="softmax"),
        ],
        input_shape=(size, size, 16), seed=seed,
    )  # fmt: skip


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).random(shape, np.float32)


def predict() -> list[Call]:
    """One net, by all."""
    model = net(0)
    return [partial(model.predict, images(n, 24, 24, 16)) for n in (2, 1, 2, 3, 1)]


def predict_with_a_bar() -> list[Call]:
    model = net(0)
    return [partial(model.predict, images(n, 24, 24, 16), verbose=1) for n in (2, 1, 2, 3, 1)]


def fit() -> list[Call]:
    """A net for each."""
    return [partial(trained, net(seed, 12), seed) for seed in range(1 + THREADS)]


def trained(model: Sequential, seed: int) -> np.ndarray:
    """The weights after some steps, and what they predict; from the same start each time."""
    start = model.__dict__.setdefault("start", [w.copy() for w in model.get_weights()])
    model.set_weights(start)
    dropout = model.layers[4]
    assert isinstance(dropout, layers.Dropout)
    dropout.random.bit_generator.state = np.random.default_rng(seed).bit_generator.state
    model.compile("adam")
    x = images(24, 12, 12, 16)
    model.fit(x, np.arange(24) % 5, batch_size=12, seed=seed, verbose=0)
    return np.concatenate([w.ravel() for w in model.get_weights()] + [model.predict(x).ravel()])


def session() -> Any:
    from onnx import TensorProto, helper, numpy_helper

    from fastconv.onnx import InferenceSession

    w = numpy_helper.from_array(images(16, 16, 3, 3), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * 4), helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w"], ["c"], pads=[1] * 4), helper.make_node("Add", ["c", "a"], ["d"]),
        helper.make_node("MaxPool", ["d"], ["e"], kernel_shape=[2, 2]), helper.make_node("Sigmoid", ["e"], ["y"]),
    ]  # fmt: skip
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16, None, None])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [x], [y], [w])
    return InferenceSession(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))


def run() -> list[Call]:
    """One session, by all, on more shapes than it keeps."""
    one = session()
    feeds = [{"x": images(1, 16, n, n)} for n in (24, 16, 20, 28, 12)]
    return [lambda feed=feed: one.run(None, feed)[0] for feed in feeds]  # type: ignore[misc]


def accelerated() -> list[Call]:
    """One model, by all, on more shapes than its modules keep."""
    import torch

    import fastconv.torch as bridge

    torch.manual_seed(0)
    convolutions = [torch.nn.Conv2d(16, 16, 3, padding=1) for _ in range(2)]
    model = torch.nn.Sequential(convolutions[0], torch.nn.ReLU(), convolutions[1]).eval()
    for module in convolutions:  # what `accelerate` does where it is faster
        module.__class__ = bridge.Conv2d

    def call(x: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            return model(x).numpy()

    return [partial(call, torch.randn(1, 16, n, n)) for n in (64, 16, 48, 20, 64)]


def functions() -> list[Call]:
    """Calls, and a plan that all run."""
    w, x = images(32, 32, 3, 3), images(2, 32, 24, 24)
    plan = fastconv.plan_conv2d(x.shape, w, padding=1, num_threads=4)

    def call() -> np.ndarray:
        options: dict[str, Any] = {"padding": 1, "num_threads": 4}
        backward = fastconv.conv2d_backward(x, x, w, **options)
        results = [fastconv.conv2d(x, w, **options), plan.run(x), plan.run(x[:1]), *backward]
        return np.concatenate([np.ravel(y) for y in results])

    return [call] * (1 + THREADS)


WHAT = {f.__name__: f for f in (predict, predict_with_a_bar, fit, run, accelerated, functions)}

# ---- forks ---------------------------------------------------------------------------------------------------------


def child_of(call: Call, expected: np.ndarray, way: str) -> int | str:
    """What a child ends with: 0, 2 for other bits, "hung"."""

    def work() -> None:
        code = 1
        with suppress(BaseException):
            code = 0 if np.array_equal(call(), expected) else 2
            if way == "grandchild" and code == 0:
                code = os.waitstatus_to_exitcode(_forked(work_below))
        os._exit(code)

    def work_below() -> None:
        os._exit(0 if np.array_equal(call(), expected) else 2)

    if way == "multiprocessing":
        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        assert process.pid is not None
        return _ended(process.pid)
    if way == "thread":  # the child's main thread is then this one
        found: list[int | str] = []
        thread = threading.Thread(target=lambda: found.append(child_of(call, expected, "fork")))
        thread.start()
        thread.join()
        return found[0]
    child = os.fork()
    if child == 0:
        work()
    return _ended(child)


def _forked(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        work()
    return os.waitpid(child, 0)[1]


def _ended(child: int) -> int | str:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hung"


WAYS = ("fork", "multiprocessing", "thread", "grandchild")


@contextmanager
def busy(calls: list[Call], expected: list[np.ndarray], wrong: list[str]) -> Any:
    """A thread for every call, which makes it over and over."""
    stop = threading.Event()

    def work(call: Call, right: np.ndarray) -> None:
        while not stop.is_set():
            if not np.array_equal(call(), right):
                wrong.append("a thread of the parent: other bits")

    threads = [threading.Thread(target=work, args=pair) for pair in zip(calls, expected, strict=True)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)
            if thread.is_alive():
                wrong.append("a thread of the parent: hung")


def beside_threads(what: str, count: int) -> list[str]:
    """So many children in turns of every way; what went wrong."""
    own, *others = WHAT[what]()
    right, *theirs = [call() for call in (own, *others)]
    wrong: list[str] = []
    with busy(others, theirs, wrong):
        for n in range(count):
            way = WAYS[n % len(WAYS)]
            ended = child_of(own, right, way)
            if ended != 0:
                wrong.append(f"child {n} ({way}): {'other bits' if ended == 2 else ended}")
            time.sleep(0.003 * (n % 7))  # at other moments of the calls
    if not np.array_equal(own(), right):
        wrong.append("the parent afterwards: other bits")
    return wrong


def held() -> list[str]:
    """Every lock that a call takes is held by another thread, and what it guards is half changed."""
    model, one, training = net(0), session(), net(1, 12)
    x, pictures = images(2, 24, 24, 16), images(1, 16, 20, 20)
    calls: list[Call] = [
        partial(model.predict, x, verbose=1), lambda: one.run(None, {"x": pictures})[0], partial(trained, training, 1)
    ]  # fmt: skip
    right = [call() for call in calls]
    plan = model.compile_inference()
    dropout = training.layers[4]
    assert isinstance(dropout, layers.Dropout)
    locks = [plan._prepared.guard.lock, one._prepared.guard.lock, dropout.random.bit_generator.lock]
    with suppress(ImportError):
        from tqdm import tqdm

        locks.append(tqdm.get_lock())
    for prepared in (plan._prepared, one._prepared):  # programs of which nothing is left but their names
        for _, programs in prepared._families.values():
            for key in programs:
                programs[key] = None
    training.train_on_batch(images(12, 12, 12, 16), np.zeros(12, int))
    lists = list(training._arena._free.values())
    for buffers in lists:
        buffers[:] = [max(buffers, key=len)] * 8  # one for several values at a time
    taken, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        for lock in locks:
            lock.acquire()
        taken.set()
        let_go.wait()
        for lock in locks:
            lock.release()

    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait()
    ended = [child_of(call, wanted, "fork") for call, wanted in zip(calls, right, strict=True)]
    let_go.set()
    holder.join()
    return [f"call {n} beside a held lock: {code}" for n, code in enumerate(ended) if code]


if __name__ == "__main__":
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # under Python's own stream, whose lock Python frees in a child
    chosen, number = sys.argv[1], int(sys.argv[2])
    failures = held() if chosen == "held" else beside_threads(chosen, number)
    print("\n".join([*failures, f"{number} children, {len(failures)} failures"]), flush=True)
    os._exit(0)  # whatever hangs
