"""PyTorch's convolutions of one and three axes: values and gradients are PyTorch's, swaps and guards as for two."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

import fastconv.torch as ours  # noqa: E402
from fastconv import ConvError  # noqa: E402
from fastconv.torch import ops  # noqa: E402

SIZES = {1: (17,), 3: (5, 7, 6)}
# kernel, stride, padding, dilation, groups
OPTIONS: list[tuple[Any, ...]] = [
    (3, 1, 1, 1, 1), (3, 2, 1, 1, 2), (2, 1, 0, 2, 4), (1, 1, 0, 1, 1), (3, 1, "same", 2, 1)
]  # fmt: skip
FORMS = ["contiguous", "channels last", "strided"]


def laid(tensor: Any, form: str) -> Any:
    if form == "channels last":
        return tensor.movedim(1, -1).contiguous().movedim(-1, 1)
    return torch.stack([tensor, tensor], -1)[..., 0] if form == "strided" else tensor


def close(a: Any, b: Any) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", OPTIONS)
def test_values_and_derivatives_are_pytorchs(axes: int, form: str, options: Any) -> None:
    torch.manual_seed(0)
    kernel, stride, padding, dilation, groups = options
    x = laid(torch.randn(2, 4, *SIZES[axes], dtype=torch.float64), form).requires_grad_()
    w = torch.randn(8, 4 // groups, *(kernel,) * axes, dtype=torch.float64, requires_grad=True)
    b = torch.randn(8, dtype=torch.float64, requires_grad=True)
    both = [getattr(where, f"conv{axes}d")(x, w, b, stride, padding, dilation, groups) for where in (ours, F)]
    close(*both)
    assert ops.lies_channels_last(both[0]) == ops.result_is_channels_last(x, w)
    grads = [torch.autograd.grad(y.square().sum(), (x, w, b), create_graph=True) for y in both]
    for mine, right in zip(*grads, strict=True):
        close(mine, right)
    seconds = [torch.autograd.grad(sum(g.square().sum() for g in found), (x, w)) for found in grads]
    for mine, right in zip(*seconds, strict=True):
        close(mine / right.abs().max(), right / right.abs().max())
    if padding == "same":
        return
    v = torch.randn(4, 8 // groups, *(kernel,) * axes, dtype=torch.float64, requires_grad=True)
    extra = stride - 1
    both = [getattr(where, f"conv_transpose{axes}d")(x, v, b, stride, padding, extra, groups, dilation)
            for where in (ours, F)]  # fmt: skip
    close(*both)
    for mine, right in zip(*[torch.autograd.grad(y.square().sum(), (x, v, b)) for y in both], strict=True):
        close(mine, right)


@pytest.mark.parametrize("axes", [1, 3])
def test_single_samples_and_refusals(axes: int) -> None:
    x, w = torch.randn(4, *SIZES[axes]), torch.randn(2, 4, *(3,) * axes)
    mine, right = (getattr(where, f"conv{axes}d")(x, w) for where in (ours, F))
    torch.testing.assert_close(mine, right, rtol=1e-4, atol=1e-5)
    with pytest.raises(RuntimeError):
        getattr(ours, f"conv{axes}d")(x[:3], w)
    freed = torch.randn(1, 4, *SIZES[axes])
    freed.untyped_storage().resize_(0)
    with pytest.raises(ConvError, match="storage"):
        getattr(ours, f"conv{axes}d")(freed, w)


def net(axes: int, **options: Any) -> Any:
    conv, up = getattr(nn, f"Conv{axes}d"), getattr(nn, f"ConvTranspose{axes}d")
    torch.manual_seed(1)
    return nn.Sequential(
        conv(3, 16, 3, padding=1, **options), nn.ReLU(), conv(16, 16, 3, 2, 1), up(16, 8, 2, 2), conv(8, 4, 1)
    )  # fmt: skip


def swapped(model: Any) -> Any:
    """Every convolution, whatever is faster."""
    for module in model.modules():
        if type(module) in ours.swap.SWAPS:
            module.__class__ = ours.swap.SWAPS[type(module)]
    return model


@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_modules_train_and_predict_as_pytorchs(axes: int, mode: str) -> None:
    theirs = net(axes, padding_mode=mode).double()
    mine = swapped(copy.deepcopy(theirs))
    x = torch.randn(2, 3, *(8,) * axes, dtype=torch.float64)
    for model in (theirs, mine):
        model(x).square().mean().backward()
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        close(p.grad, q.grad)
    mine.eval(), theirs.eval()
    with torch.no_grad():
        for given in (x, laid(x, "channels last"), x[:1]):
            close(mine(given), theirs(given))
        mine[0].weight.mul_(2), theirs[0].weight.mul_(2)  # packed weights are found to be old
        close(mine(x), theirs(x))
    assert ours.restore(mine) == 4
    assert [type(m) for m in mine] == [type(m) for m in theirs]
    assert mine.state_dict().keys() == theirs.state_dict().keys()


@pytest.mark.parametrize("axes", [1, 3])
def test_accelerate_reports_and_changes_nothing(axes: int) -> None:
    model = net(axes).eval()
    x = torch.randn(1, 3, *(8,) * axes)
    with torch.no_grad():
        right = model(x)
        report = ours.accelerate(model, x)
        assert len(report.decisions) == 4 and all(decision.times for decision in report.decisions)
        assert "transposed" in str(report) and "x".join("3" * axes) in str(report)
        torch.testing.assert_close(model(x), right, rtol=1e-4, atol=1e-5)
        assert model(x).stride() == right.stride()


@pytest.mark.parametrize("axes", [1, 3])
def test_watchers_meet_pytorchs_own_operators(axes: int) -> None:
    model = swapped(net(axes).eval())
    x = torch.randn(1, 3, *(8,) * axes)
    with torch.no_grad():
        right = model(x)
        traced = torch.jit.trace(model, x)
        scripted = torch.jit.script(model)
        assert "fastconv::" not in str(traced.inlined_graph) + str(scripted.inlined_graph)
        for made in (traced, scripted, lambda v: torch.func.vmap(model)(v[None])[0]):
            torch.testing.assert_close(made(x), right, rtol=1e-4, atol=1e-5)
    meta = copy.deepcopy(model).to("meta")
    assert meta(x.to("meta")).shape == right.shape


@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize("form", FORMS)
def test_fake_results_lie_as_real_ones(axes: int, form: str) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    x, w = laid(torch.randn(2, 4, *SIZES[axes]), form), torch.randn(4, 4, *(3,) * axes)
    rest = ((1,) * axes, (1,) * 2 * axes, (1,) * axes, 1)
    made = ops.OPERATORS[axes]
    calls = [(made.conv, (x, w, None, *rest)), (made.transposed, (x, w, None, SIZES[axes], *rest)),
             (made.weight, (x, x, (3,) * axes, *rest))]  # fmt: skip
    for operator, arguments in calls:
        real = operator(*arguments)
        with FakeTensorMode() as mode:
            fake = operator(*[mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in arguments])
        assert (fake.shape, fake.stride(), fake.dtype) == (real.shape, real.stride(), real.dtype)


def test_the_bits_are_those_of_the_functions() -> None:
    import fastconv

    x, w = torch.randn(2, 8, 6, 7, 8), torch.randn(8, 8, 3, 3, 3)
    right = fastconv.conv3d(x.numpy(), w.numpy(), None, 1, 1)
    np.testing.assert_array_equal(ours.conv3d(x, w, None, 1, 1).numpy(), right)
