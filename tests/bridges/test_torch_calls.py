"""Functional calls in `forward` that `accelerate` finds, and poolings: beside PyTorch's own."""

from __future__ import annotations

import copy
import io
import pickle
import threading
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from fastconv.torch import (  # noqa: E402
    Conv2d,
    MaxPool2d,
    accelerate,
    functional,
    measuring,
    ops,
    pooling,
    restore,
    swap,
)

LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


@pytest.fixture(autouse=True)
def _whatever_the_times_are(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(swap, "GAIN", 0.0)
    monkeypatch.setattr(functional, "COST", -1e9)
    monkeypatch.setattr(measuring, "SECONDS", 0.0)
    monkeypatch.setattr(measuring, "ROUNDS", 1)


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(8, 3, 3, 3)), nn.Parameter(torch.randn(8))
        self.conv = nn.Conv2d(8, 8, 3)

    def forward(self, x):
        return self.conv(F.max_pool2d(F.relu(F.conv2d(x, self.weight, self.bias, padding=1)), 2))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.pool, self.up = Inner(), nn.MaxPool2d(2), nn.Parameter(torch.randn(8, 4, 2, 2))

    def forward(self, x):
        return F.conv_transpose2d(self.pool(self.inner(x)), self.up, stride=2)


def taken_by(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls that reach our functions from now on."""
    seen: list[str] = []
    for theirs, function in list(functional.FUNCTIONS.items()):

        def noted(*args: Any, name: str = function.name, ours: Any = function.ours, **kwargs: Any) -> Any:
            seen.append(name)
            return ours(*args, **kwargs)

        monkeypatch.setitem(functional.FUNCTIONS, theirs, function._replace(ours=noted))
    return seen


CALLED = {True: ["conv2d", "conv_transpose2d"], False: ["conv2d", "max_pool2d", "conv_transpose2d"]}


@pytest.mark.parametrize("training", [True, False])
def test_calls_are_found_taken_and_given_back(training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = Net().train(training), torch.randn(2, 3, 18, 18)
    plain = copy.deepcopy(net)
    report = accelerate(net, x)
    calls = {decision.name for decision in report.decisions if decision.kind == "call"}
    assert calls == {"conv_transpose2d()", "inner.conv2d()"} | (set() if training else {"inner.max_pool2d()"})
    assert set(report.swapped) == calls | {"inner.conv"} | (set() if training else {"pool"})
    assert f"{len(calls)} of {len(calls)} calls" in str(report) and "3->8 3x3" in str(report)
    assert isinstance(net.inner, Inner) and type(net.inner).__name__ == "Inner" and str(net.inner) == str(plain.inner)
    assert net.state_dict().keys() == plain.state_dict().keys()
    seen = taken_by(monkeypatch)
    with torch.set_grad_enabled(training):
        torch.testing.assert_close(net(x), plain(x), atol=1e-4, rtol=1e-4)
    assert seen == CALLED[training]
    if training:
        net(x).square().sum().backward()
        plain(x).square().sum().backward()
        for ours, theirs in zip(net.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-2, rtol=1e-3)
    assert restore(net) == (3 if training else 4)
    assert type(net) is Net and type(net.inner) is Inner and type(net.inner.conv) is nn.Conv2d
    assert type(net.pool) is nn.MaxPool2d and "_fastconv_calls" not in net.__dict__
    seen.clear()
    net(x)
    assert seen == []


def test_copies_and_pickles_take_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = Net().eval(), torch.randn(1, 3, 18, 18)
    accelerate(net, x)
    seen = taken_by(monkeypatch)
    held = io.BytesIO()
    torch.save(net, held)
    held.seek(0)
    with torch.no_grad():
        expected = net(x)
        for made in (copy.deepcopy(net), torch.load(held, weights_only=False), pickle.loads(pickle.dumps(net))):
            seen.clear()
            assert isinstance(made, Net) and torch.equal(made(x), expected) and seen == CALLED[False]
            assert made.inner is not net.inner
            restore(made)
            assert type(made) is Net
    assert isinstance(net, functional.Calls)


def test_who_looks_on_gets_pytorchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    net, x = Net().eval(), torch.randn(1, 3, 18, 18)
    expected = net(x).detach()
    accelerate(net, x)
    seen = taken_by(monkeypatch)
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            net(x)
        assert counter.get_total_flops() > 0
        traced, exported = torch.jit.trace(net, x), torch.export.export(net, (x,))
        assert "fastconv::" not in str(traced.inlined_graph) and "fastconv" not in str(exported.graph)
        scripted, symbolic = torch.jit.script(net), torch.fx.symbolic_trace(net)
        compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
        seen.clear()
        for made in (traced, exported.module(), scripted, symbolic, compiled):
            torch.testing.assert_close(made(x), expected, atol=1e-4, rtol=1e-4)
        with torch.device("cpu"):
            net(x)
        with torch.autocast("cpu", torch.bfloat16):
            net(x)
        torch.func.vmap(net)(x[None])
    assert seen == []


def test_calls_in_threads_and_after_errors() -> None:
    net = Net().eval()
    plain = copy.deepcopy(net)
    accelerate(net, torch.randn(1, 3, 18, 18))
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            x = torch.randn(1, 3, 18, 18, generator=torch.Generator().manual_seed(seed))
            with torch.no_grad():
                for _ in range(5):
                    torch.testing.assert_close(net(x), plain(x), atol=1e-4, rtol=1e-4)
                    with pytest.raises(RuntimeError):
                        net(x[:, :2])
                    assert torch._C._len_torch_function_stack() == 0
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_what_is_not_taken_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = Net().eval(), torch.randn(1, 3, 18, 18)
    for name, other in (("COST", "KEY_COST"), ("KEY_COST", "COST")):
        monkeypatch.setattr(functional, name, 1e9)
        monkeypatch.setattr(functional, other, 0.0)
        report = accelerate(net, x)
        calls = [decision for decision in report.decisions if decision.kind == "call"]
        assert len(calls) == 3 and not any(decision.swapped for decision in calls)
        assert all(decision.why == "looking for the calls would take as long" and decision.times for decision in calls)
    monkeypatch.setattr(functional, "KEY_COST", -1e9)
    monkeypatch.setattr(swap, "GAIN", 1e9)
    assert {d.why for d in accelerate(net, x).decisions} == {"PyTorch is as fast or faster"}

    class Own(nn.Conv2d):
        """Left alone as a module, and its calls with it."""

    report = accelerate(nn.Sequential(Own(3, 8, 3), nn.MaxPool2d(2, return_indices=True)).eval(), x)
    assert [d.why for d in report.decisions] == [
        f"a {Own.__qualname__}, whose own methods a swap would lose", "it gives the places too",
    ]  # fmt: skip
    assert accelerate(Net().eval()).decisions[0].layer == "8->8 3x3"  # without an example: modules alone


POOLS = [
    (True, 2, (3, 2, 1), {}), (True, 2, (2,), {"ceil_mode": True}), (True, 2, (2, 1, 0, 2), {}),
    (True, 1, (3, 2, 1), {}), (True, 3, (2,), {}), (True, 3, ((1, 2, 3), (1, 2, 1), (0, 1, 1)), {}),
    (False, 2, (3, 2, 1), {}), (False, 2, (3, 2, 1), {"count_include_pad": False}), (False, 1, (3, 1, 1), {}),
    (False, 2, (3, 2, 1, True), {}), (False, 2, (2,), {"divisor_override": 3}), (False, 3, (2,), {}),
    (False, 3, (3, 2, 1), {"ceil_mode": True}),
]  # fmt: skip


@pytest.mark.parametrize(("largest", "axes", "options", "named"), POOLS)
def test_poolings(largest: bool, axes: int, options: Any, named: Any) -> None:
    kind = getattr(nn, f"{'Max' if largest else 'Avg'}Pool{axes}d")
    theirs = kind(*options, **named)
    ours = pooling.POOL_SWAPS[kind](*options, **named)
    x = torch.randn(2, 5, *(9, 8, 7)[:axes])
    x[0, 0, 0] = float("nan")
    for given in (x, x[:, ::2], x.double(), x[0], *([x.contiguous(memory_format=LAST[axes + 2])] if axes > 1 else [])):
        with torch.no_grad():
            expected, got = theirs(given), ours(given)
            torch.testing.assert_close(got, expected, equal_nan=True)
            last = [pooling.lies_channels_last(tensor) for tensor in (got, given)]
            assert got.stride() == expected.stride() or last[0] == last[1]
    leaf = torch.nan_to_num(x).requires_grad_()
    ours(leaf).sum().backward()  # PyTorch's
    assert leaf.grad is not None
    with torch.no_grad():
        traced = str(torch.jit.trace(ours, leaf).inlined_graph)
        assert f"aten::{'max' if largest else 'avg'}_pool{axes}d" in traced and "fastconv::" not in traced
        torch.testing.assert_close(torch.jit.script(ours)(leaf), theirs(leaf))


def test_poolings_are_swapped_in_evaluation_alone() -> None:
    net, x = nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), nn.AvgPool2d(2)), torch.randn(1, 3, 12, 12)
    assert accelerate(net, x).swapped == ["0"]
    report = accelerate(net.eval(), x)
    assert report.swapped == ["0", "1", "2"] and type(net[1]) is MaxPool2d and type(net[0]) is Conv2d
    assert report.counts == "1 of 1 convolutions swapped, 2 of 2 poolings"
    assert restore(net) == 3 and type(net[1]) is nn.MaxPool2d


# ---- bfloat16 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [False, True])
def test_bfloat16_is_computed_in_float32_and_rounded_once(last: bool) -> None:
    pytest.importorskip("ml_dtypes")
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, groups=4),
        nn.Conv2d(16, 8, 3, padding=1, padding_mode="reflect"),
    ).bfloat16().eval()  # fmt: skip
    x = torch.randn(2, 3, 20, 22).bfloat16()
    if last:
        net, x = net.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    plain = copy.deepcopy(net)
    report = accelerate(net, x)
    assert report.swapped == ["0", "2", "3"] and all(d.times for d in report.decisions)
    with torch.no_grad():
        for _ in range(2):
            got, exact = net[0](x), copy.deepcopy(plain[0]).double()(x.double())
            assert got.dtype is torch.bfloat16 and got.is_contiguous(memory_format=torch.channels_last) is last
            assert (got.double() - exact).abs().max() <= exact.abs().max() * 2**-8  # half a unit in the last place
            torch.testing.assert_close(net(x), plain(x), atol=2e-2, rtol=2e-2)
            net[0].weight.mul_(2)
            plain[0].weight.mul_(2)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(net(x.float()), plain(x.float()))
    net(x).sum().backward()  # with gradients PyTorch's
    assert net[0].weight.grad is not None
    assert accelerate(plain).swapped == [] and "pass an example" in str(accelerate(plain))
    assert accelerate(plain.train(), x).swapped == []


def test_float64_is_not_taken_for_bfloat16_where_numpy_does_not_know_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy calls float64 equal to None, which stands where ml_dtypes is missing."""
    monkeypatch.setattr(ops, "BFLOAT16", None)
    plain = nn.Conv2d(3, 16, 3, padding=1).double().eval()
    net, x = copy.deepcopy(plain), torch.randn(2, 3, 20, 22, dtype=torch.float64)
    net.__class__ = Conv2d
    with torch.no_grad():
        torch.testing.assert_close(net(x), plain(x))
