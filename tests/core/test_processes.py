"""Locks, forks, numbers of threads and arrays that lie; the rows of the reliability board do the same at length."""

import ast
import copy
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from reliability.rows.forks import program

import fastconv
from fastconv._core import forks, threads

PACKAGE = Path(fastconv.__file__).parent
LOCKS = {"Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier", "local", "cached_property"}
# Those that a forked child makes anew, and the lock of a bar in such a child.
MAY_HAVE_LOCKS = {"forks.py", "progress.py"}


def test_every_lock_is_on_the_list_of_forks():
    """`cached_property` counts: before Python 3.12 it has a lock of its own."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            if name in LOCKS and path.name not in MAY_HAVE_LOCKS:
                found[f"{path.relative_to(PACKAGE)}:{node.lineno}"] = name
    assert not found, f"use forks.Guard: {found}"


def test_a_child_computes_beside_held_locks_and_half_changed_states():
    assert program("forked.py", "held", 3) == (0, "3 children, 0 failures")


class Owner:
    def __init__(self):
        self.dropped, self.guard = 0, forks.Guard(self.drop)

    def drop(self):
        self.dropped += 1


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda owner: pickle.loads(pickle.dumps(owner))])
def test_a_copy_of_what_has_a_guard_has_one_of_its_own(copied):
    owner = Owner()
    with owner.guard.lock:
        made = copied(owner)
    with made.guard.lock:
        made.guard.after_fork()
    assert (owner.dropped, made.dropped) == (0, 1)
    assert owner.guard in forks._objects and made.guard in forks._objects


def test_a_guard_drops_only_what_was_held_and_its_owner_may_go():
    owner, other = Owner(), Owner()
    with owner.guard.lock:  # as the thread that forks may
        before = owner.guard.lock
        for guard in (owner.guard, other.guard):
            guard.after_fork()
        assert owner.guard.lock is not before and not owner.guard.lock.locked()
    assert (owner.dropped, other.dropped) == (1, 0)
    guard = owner.guard
    del owner
    with guard.lock:
        guard.after_fork()
    assert not guard.lock.locked()


def test_arrays_that_say_what_is_not_so():
    code, printed = program("liars.py")
    assert code == 0 and printed.endswith("tried, 0 wrong"), printed


@pytest.mark.parametrize(
    "text, wish",
    [
        ("3", 3), (" 3 ", 3), ("+3", 3), ("4,2", 4), ("4 , 2", 4), ("007", 7), ("2147483647", 2147483647),
        ("99999999999999999999", None), ("2147483648", None), ("-1", None), ("0", None), ("4,0", None), ("abc", None),
        ("", None), ("0x4", None), ("1e3", None), ("4,", None), (",4", None), ("4,x", None), ("3 4", None), ("²", None),
        ("٣", None), ("4\x00", None), ("9" * 5000, None),
    ],
)  # fmt: skip
def test_what_OMP_NUM_THREADS_may_hold(text, wish, monkeypatch):
    """As OpenMP reads it: no call fails for it."""
    monkeypatch.setattr(threads, "_cap", None)
    monkeypatch.setattr(threads, "os", _Environment({"OMP_NUM_THREADS": text}))
    assert threads._wish() == wish
    assert 1 <= fastconv.get_num_threads() <= threads.MOST
    assert fastconv.conv2d(np.ones((1, 1, 3, 3)), np.ones((1, 1, 3, 3))).item() == 9
    told = threads.explain()
    assert told["omp_num_threads"] == wish and 1 <= told["threads"] <= max(64, threads._cpus())


class _Environment:
    """`os` with other variables; a real one cannot hold all of these."""

    def __init__(self, environ):
        self.environ = environ

    def __getattr__(self, name):
        return getattr(os, name)


def test_a_call_has_no_more_threads_than_may_be_of_use(monkeypatch):
    most = max(64, threads._cpus())
    for asked, given in ((1, 1), (64, 64), (65536, most), (most + 1, most)):
        assert threads.effective(asked) == given
    with pytest.raises(fastconv.ConvError, match="between 1 and 65536"):
        threads.effective(65537)
    monkeypatch.setattr(threads, "_cap", 65536)
    assert threads.effective(None) == most and fastconv.get_num_threads() == 65536
    x, w = np.ones((1, 64, 64, 64), np.float32), np.ones((64, 64, 3, 3), np.float32)
    before = len(os.listdir("/proc/self/task"))
    y = fastconv.conv2d(x, w, num_threads=65536, algorithm="direct")
    assert (y == 576).all() and len(os.listdir("/proc/self/task")) <= before + most


def test_a_gradient_of_another_shape_is_refused_before_anything_is_changed():
    net = fastconv.Sequential([fastconv.layers.Dense(3)], input_shape=(4,), seed=0)
    kernel, bias = net.trained_parameters()
    before = [parameter.array.copy() for parameter in (kernel, bias)]
    kernel.grad, bias.grad = np.ones((4, 3), np.float32), np.ones(2, np.float32)
    for name in ("sgd", "adam"):
        with pytest.raises(fastconv.ConvError, match=r"gradient of .*bias.* shape \(3,\).* \(2,\)"):
            fastconv.optimizers.optimizer(name).apply([kernel, bias])
    for parameter, values in zip((kernel, bias), before, strict=True):
        np.testing.assert_array_equal(parameter.array, values)
