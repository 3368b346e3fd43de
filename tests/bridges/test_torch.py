"""fastconv.torch: PyTorch's own answers, derivatives, checks of operators, compilation, and the swap of modules."""

from __future__ import annotations

import copy
import io
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

import fastconv  # noqa: E402
from fastconv import ConvError, ConvTypeError  # noqa: E402
from fastconv.torch import Conv2d, ConvTranspose2d, accelerate, conv2d, conv_transpose2d, ops, restore  # noqa: E402

ROOT = Path(__file__).parents[2]
CL = torch.channels_last


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def channels_last(t: Any) -> Any:
    return t.contiguous(memory_format=CL)


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "contiguous": lambda t: t,
    "channels_last": channels_last,
    "expanded": lambda t: t[:1].expand(*t.shape),
    "sliced": lambda t: torch.cat([t, t], 3)[..., ::2],
    "cropped_last": lambda t: channels_last(F.pad(t, (1, 1, 1, 1)))[:, :, 1:-1, 1:-1],
    "transposed": lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
    "offset": lambda t: torch.cat([t.new_zeros(3), t.flatten()])[3:].view(t.shape),
}

# (batch, in, out, (height, width), kernel, stride, padding, dilation, groups)
CONVOLUTIONS = [
    (2, 3, 4, (7, 9), (3, 3), 1, 1, 1, 1),
    (1, 32, 32, (9, 8), (3, 3), 1, 1, 1, 1),
    (8, 33, 40, (12, 12), (3, 3), 1, 1, 1, 1),  # by Winograd's algorithm
    (2, 4, 6, (8, 8), (3, 2), (2, 1), (1, 0), (1, 2), 2),
    (2, 6, 6, (8, 7), (3, 3), 2, 1, 1, 6),
    (2, 5, 3, (6, 6), (1, 1), 1, 0, 1, 1),
    (1, 2, 3, (9, 9), (4, 4), 1, "same", 1, 1),
    (1, 2, 3, (9, 9), (3, 5), 1, "same", (2, 1), 1),
    (3, 2, 2, (5, 6), (5, 5), 1, "valid", 1, 1),
    (2, 1, 4, (6, 6), (3, 3), 3, 2, 1, 1),
    (0, 3, 4, (6, 6), (3, 3), 1, 1, 1, 1),
    (2, 3, 4, (3, 3), (3, 3), 1, 0, 1, 1),
]
# (batch, in, out, (height, width), kernel, stride, padding, output_padding, groups, dilation)
TRANSPOSED = [
    (2, 3, 4, (5, 6), (3, 3), 1, 0, 0, 1, 1),
    (2, 3, 4, (5, 6), (4, 4), 2, 1, 0, 1, 1),
    (1, 4, 6, (4, 5), (3, 2), (2, 3), (1, 0), (1, 2), 2, (1, 2)),
    (2, 6, 6, (4, 4), (3, 3), 2, 1, 1, 6, 1),
    (2, 32, 33, (8, 8), (3, 3), 1, 1, 0, 1, 1),
    (0, 3, 4, (4, 4), (3, 3), 1, 0, 0, 1, 1),
]


def operands(case: Any, dtype: Any = torch.float32, transposed: bool = False) -> tuple[Any, Any, Any, tuple[Any, ...]]:
    batch, inner, outer, size, kernel, *options = case
    groups = options[3]
    shape = (inner, outer // groups, *kernel) if transposed else (outer, inner // groups, *kernel)
    x, w, b = (torch.randn(s, dtype=dtype) for s in ((batch, inner, *size), shape, (outer,)))
    return x, w, b, tuple(options)


def assert_same(ours: Any, theirs: Any, context: str = "") -> None:
    assert ours.shape == theirs.shape, context
    assert ours.dtype == theirs.dtype, context
    scale = max(1.0, float(theirs.detach().abs().max())) if theirs.numel() else 1.0
    limit = 1e-4 if ours.dtype == torch.float32 else 1e-12
    torch.testing.assert_close(ours, theirs, atol=limit * scale, rtol=0, msg=lambda m: f"{context}: {m}")


def both_ways(ours: Any, theirs: Any, args: list[Any], options: tuple[Any, ...]) -> None:
    """Results, all gradients and gradients of gradients of two functions."""
    found = []
    for function in (ours, theirs):
        leaves = [a.detach().clone(memory_format=torch.preserve_format).requires_grad_() for a in args]
        y = function(*leaves, *options)
        weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
        grads = torch.autograd.grad((y * weight).sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum((g * g).sum() for g in grads[:2]), leaves[:2], allow_unused=True)
        found.append([y, *grads, *second])
    for i, (a, b) in enumerate(zip(*found, strict=True)):
        if b is None and args[0].numel() == 0:  # PyTorch gives an empty batch no second derivative
            continue
        assert_same(a, b, f"result {i}")


# ---- values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_conv2d_is_pytorchs(case: Any, layout: str) -> None:
    x, w, b, options = operands(case)
    x = LAYOUTS[layout](x) if x.numel() else x
    assert_same(conv2d(x, w, b, *options), F.conv2d(x, w, b, *options))
    assert_same(conv2d(x, channels_last(w), None, *options), F.conv2d(x, w, None, *options))


@pytest.mark.parametrize("case", TRANSPOSED, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_conv_transpose2d_is_pytorchs(case: Any, layout: str) -> None:
    x, w, b, options = operands(case, transposed=True)
    x = LAYOUTS[layout](x) if x.numel() else x
    assert_same(conv_transpose2d(x, w, b, *options), F.conv_transpose2d(x, w, b, *options))
    assert_same(conv_transpose2d(x, channels_last(w), None, *options), F.conv_transpose2d(x, w, None, *options))


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_derivatives_of_conv2d(case: Any, dtype: Any, last: bool) -> None:
    x, w, b, options = operands(case, dtype)
    both_ways(conv2d, F.conv2d, [channels_last(x), channels_last(w), b] if last else [x, w, b], options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", TRANSPOSED, ids=str)
def test_derivatives_of_conv_transpose2d(case: Any, dtype: Any) -> None:
    x, w, b, options = operands(case, dtype, transposed=True)
    both_ways(conv_transpose2d, F.conv_transpose2d, [x, w, b], options)


@pytest.mark.parametrize("case", [CONVOLUTIONS[0], CONVOLUTIONS[3], CONVOLUTIONS[6]], ids=str)
def test_gradcheck(case: Any) -> None:
    x, w, b, options = operands(case, torch.float64)
    leaves = [t.requires_grad_() for t in (x, w, b)]
    assert torch.autograd.gradcheck(lambda *t: conv2d(*t, *options), leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda *t: conv2d(*t, *options), leaves, fast_mode=True)


@pytest.mark.parametrize("case", TRANSPOSED[:4], ids=str)
def test_gradcheck_transposed(case: Any) -> None:
    x, w, b, options = operands(case, torch.float64, transposed=True)
    leaves = [t.requires_grad_() for t in (x, w, b)]
    assert torch.autograd.gradcheck(lambda *t: conv_transpose2d(*t, *options), leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda *t: conv_transpose2d(*t, *options), leaves, fast_mode=True)


def test_exact_gradcheck_of_all_three_operators() -> None:
    x, w = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((1, 2, 4, 5), (2, 2, 3, 3)))
    dy = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    options = ((1, 1), (1, 1, 1, 1), (1, 1), 1)
    assert torch.autograd.gradcheck(lambda x, w: ops.OPERATORS[2].conv(x, w, None, *options), (x, w))
    assert torch.autograd.gradcheck(lambda y, w: ops.OPERATORS[2].transposed(y, w, None, (4, 5), *options), (dy, w))
    assert torch.autograd.gradcheck(lambda x, y: ops.OPERATORS[2].weight(x, y, (3, 3), *options), (x, dy))


def test_images_without_a_batch_axis() -> None:
    x, w = torch.randn(3, 8, 9), torch.randn(4, 3, 3, 3)
    assert_same(conv2d(x, w, padding=1), F.conv2d(x, w, padding=1))
    assert_same(conv_transpose2d(x, w.transpose(0, 1)), F.conv_transpose2d(x, w.transpose(0, 1)))


# ---- memory --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [False, True])
def test_results_lie_as_pytorchs(last: bool) -> None:
    net = nn.Conv2d(3, 5, 3, padding=1)
    x = torch.randn(2, 3, 8, 8)
    x = channels_last(x) if last else x
    y = conv2d(x, net.weight, net.bias, padding=1)
    assert y.stride() == net(x).stride()
    y = conv2d(x, channels_last(net.weight.detach()), net.bias.detach(), padding=1)
    assert y.is_contiguous(memory_format=CL)
    y.relu_()  # no view of anything, so that layers that work in place may follow
    assert y._base is None


def test_nothing_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    plain = fastconv.conv2d

    def spy(x: Any, w: Any, *args: Any, **options: Any) -> Any:
        seen.update(x=x, w=w, y=plain(x, w, *args, **options))
        return seen["y"]

    monkeypatch.setitem(ops.CONVOLUTIONS, 2, spy)
    for form in (torch.contiguous_format, CL):
        x, w = (torch.randn(s).to(memory_format=form) for s in ((2, 3, 8, 8), (4, 3, 3, 3)))
        y = conv2d(x, w)
        for tensor, name in ((x, "x"), (w, "w"), (y, "y")):
            assert tensor.data_ptr() == seen[name].__array_interface__["data"][0]


def test_negative_views_and_parameters() -> None:
    x = torch.randn(1, 2, 6, 6, dtype=torch.complex64).conj().imag
    assert x.is_neg()
    w = torch.randn(3, 2, 3, 3)
    assert_same(conv2d(x, w), F.conv2d(x, w))


def test_threads_are_capped_by_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    plain = fastconv.conv2d
    monkeypatch.setitem(ops.CONVOLUTIONS, 2, lambda *a, **o: asked.append(o["num_threads"]) or plain(*a, **o))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        conv2d(torch.randn(1, 2, 6, 6), torch.randn(3, 2, 3, 3))
    finally:
        torch.set_num_threads(before)
    assert asked == [1]


# ---- what PyTorch keeps --------------------------------------------------------------------------------------------


@pytest.fixture
def _not_ours(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*args: Any, **options: Any) -> Any:
        raise AssertionError("fastconv was called")

    monkeypatch.setitem(ops.CONVOLUTIONS, 2, refuse)
    yield


@pytest.mark.usefixtures("_not_ours")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64, torch.int64], ids=str)
def test_other_dtypes_go_to_pytorch(dtype: Any) -> None:
    x, w = torch.ones(1, 2, 6, 6, dtype=dtype), torch.ones(3, 2, 3, 3, dtype=dtype)
    torch.testing.assert_close(conv2d(x, w), F.conv2d(x, w))


@pytest.mark.usefixtures("_not_ours")
def test_autocast_goes_to_pytorch() -> None:
    x, w = torch.randn(1, 2, 6, 6), torch.randn(3, 2, 3, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert conv2d(x, w).dtype == torch.bfloat16
        assert Conv2d(2, 3, 3)(x).dtype == torch.bfloat16


@pytest.mark.usefixtures("_not_ours")
def test_transforms_and_other_devices_go_to_pytorch() -> None:
    x, w = torch.randn(2, 1, 2, 6, 6), torch.randn(3, 2, 3, 3)
    expected = torch.stack([F.conv2d(one, w) for one in x])
    torch.testing.assert_close(torch.func.vmap(lambda one: conv2d(one, w))(x), expected)
    _, tangent = torch.func.jvp(lambda one: conv2d(one, w), (x[0],), (x[1],))
    torch.testing.assert_close(tangent, F.conv2d(x[1], w))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x[0], x[1])
        tangent = torch.autograd.forward_ad.unpack_dual(conv2d(dual, w)).tangent
    torch.testing.assert_close(tangent, F.conv2d(x[1], w))
    assert conv2d(x[0].to("meta"), w.to("meta")).device.type == "meta"


def test_output_padding_beyond_the_stride_goes_to_pytorch() -> None:
    x, w = torch.randn(1, 2, 5, 5), torch.randn(2, 3, 3, 3)
    options = {"output_padding": 1, "dilation": 2}
    assert_same(conv_transpose2d(x, w, **options), F.conv_transpose2d(x, w, **options))


@pytest.mark.parametrize(
    ("x", "w", "options"),
    [
        ((1, 3, 5, 5), (2, 4, 3, 3), {}),
        ((1, 3, 2, 2), (2, 3, 3, 3), {}),
        ((1, 3, 5, 5), (2, 3, 3, 3), {"stride": 0}),
        ((1, 3, 5, 5), (2, 3, 3, 3), {"padding": "same", "stride": 2}),
        ((1, 3, 5, 5), (2, 3, 3, 3), {"padding": -1}),
        ((3, 5), (2, 3, 3, 3), {}),
        ((1, 4, 5, 5), (3, 2, 3, 3), {"groups": 2}),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_as_pytorch_refuses_it(x: Any, w: Any, options: Any) -> None:
    with pytest.raises(RuntimeError):
        F.conv2d(torch.ones(x), torch.ones(w), **options)
    with pytest.raises(RuntimeError):
        conv2d(torch.ones(x), torch.ones(w), **options)


# ---- operators -----------------------------------------------------------------------------------------------------


def op_samples() -> list[Any]:
    """(operator, arguments) over layouts, which operands are differentiated, options and dtypes."""
    samples = []
    cases = [case for case in CONVOLUTIONS if case[0]]
    for i, (case, layout) in enumerate(itertools.product(cases[:7], LAYOUTS)):
        torch.manual_seed(i)
        x, w, b, (stride, padding, dilation, groups) = operands(case, torch.float64 if i % 5 == 0 else torch.float32)
        strides, dilations = ops.sizes(stride, 2), ops.sizes(dilation, 2)
        sides = ops.sides_of(padding, w, strides, dilations)
        x = LAYOUTS[layout](x)
        w = channels_last(w) if i % 3 == 0 else w
        options = (list(strides), list(sides), list(dilations), groups)
        dy = LAYOUTS[layout](torch.randn(ops.OPERATORS[2].conv(x, w, None, *options).shape, dtype=x.dtype))
        for t, wanted in ((x, i % 2 == 0), (w, i % 4 < 3), (b, i % 3 > 0), (dy, i % 2 == 1)):
            if wanted and t.is_leaf:
                t.requires_grad_()
        kind = i % 3
        if kind == 0:
            samples.append((ops.OPERATORS[2].conv, (x, w, b if i % 2 else None, *options)))
        elif kind == 1:
            size = list(x.shape[2:])
            shift = None if i % 2 else torch.randn(x.shape[1], dtype=x.dtype, requires_grad=True)
            samples.append((ops.OPERATORS[2].transposed, (dy, w, shift, size, *options)))
        else:
            samples.append((ops.OPERATORS[2].weight, (x, dy, list(w.shape[2:]), *options)))
        if i % 4 == 0:
            samples.append((ops.OPERATORS[2].conv, (x.detach(), w.detach(), b.detach(), *options)))
    return samples


SAMPLES = 62


def test_there_are_enough_samples() -> None:
    assert len(op_samples()) == SAMPLES


@pytest.mark.parametrize("part", range(4))
def test_opcheck(part: int) -> None:
    for operator, arguments in op_samples()[part::4]:
        torch.library.opcheck(operator, arguments)


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = Conv2d(3, 8, 3, padding=1)
        self.b = Conv2d(8, 8, 3, stride=2, padding=1, padding_mode="circular", groups=2)
        self.c = ConvTranspose2d(8, 4, 4, 2, 1)

    def forward(self, x: Any) -> Any:
        return self.c(torch.relu(self.b(torch.relu_(self.a(x))))).mean(1)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("form", [torch.contiguous_format, CL], ids=["contiguous", "channels_last"])
def test_compiled_in_one_graph(form: Any, training: bool) -> None:
    torch._dynamo.reset()
    net = _Net().to(memory_format=form).train(training)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    for size in (8, 10):  # the second one with symbolic sizes
        x = torch.randn(2, 3, size, size).to(memory_format=form)
        results = []
        for run in (net, compiled):
            net.zero_grad()
            y = run(x)
            y.square().sum().backward()
            results.append([y, *(p.grad.clone() for p in net.parameters())])
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


# ---- modules -------------------------------------------------------------------------------------------------------

MODULES = [
    (nn.Conv2d, Conv2d, (3, 8, 3), {"padding": 1}),
    (nn.Conv2d, Conv2d, (4, 8, 3), {"padding": "same", "groups": 2, "bias": False}),
    (nn.Conv2d, Conv2d, (3, 8, 3), {"padding": 2, "padding_mode": "reflect", "stride": 2}),
    (nn.Conv2d, Conv2d, (3, 8, 3), {"padding": "same", "padding_mode": "replicate", "dilation": 2}),
    (nn.ConvTranspose2d, ConvTranspose2d, (3, 8, 4), {"stride": 2, "padding": 1, "output_padding": 1}),
]


@pytest.mark.parametrize(("theirs", "ours", "args", "options"), MODULES)
def test_modules_are_pytorchs(theirs: Any, ours: Any, args: Any, options: Any) -> None:
    a, b = theirs(*args, **options), ours(*args, **options)
    b.load_state_dict(a.state_dict())
    assert list(b.state_dict()) == list(a.state_dict())
    for training in (True, False):
        a.train(training), b.train(training)
        for x in (torch.randn(2, args[0], 12, 11), torch.randn(args[0], 12, 11)):
            assert_same(b(x), a(x))
            with torch.no_grad():
                assert_same(b(x), a(x))
                assert_same(b(x), a(x))
    if ours is ConvTranspose2d:
        x = torch.randn(2, args[0], 6, 6)
        assert_same(b(x, output_size=[13, 13]), a(x, output_size=[13, 13]))


def evaluated() -> tuple[Any, Any, Any]:
    """A module that has used its plan, an input, and what to compare with."""
    net = Conv2d(4, 8, 3, padding=1).eval()
    x = torch.randn(2, 4, 9, 9)
    with torch.no_grad():
        net(x)
    assert net._plans.known
    return net, x, lambda: F.conv2d(x, net.weight, net.bias, padding=1)


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.weight.mul_(2),
        lambda net: net.bias.add_(1),
        lambda net: net.weight.data.mul_(2),  # which PyTorch's version counter does not see
        lambda net: net.bias.data.add_(1),
        lambda net: setattr(net.weight, "data", net.weight.data * 2),
        lambda net: setattr(net, "weight", nn.Parameter(net.weight * 2)),
        lambda net: setattr(net, "bias", None),
        lambda net: net.load_state_dict({name: 2 * value for name, value in net.state_dict().items()}),
        lambda net: net.to(memory_format=CL).weight.mul_(2),
        lambda net: net.train().eval().weight.mul_(2),
    ],
)
def test_no_plan_outlives_its_weights(change: Any) -> None:
    net, x, expected = evaluated()
    with torch.no_grad():
        change(net)
        for _ in range(2):
            assert_same(net(x), expected())


def test_plans_are_used_and_few() -> None:
    net, x, _ = evaluated()
    (before,) = net._plans.known.values()
    with torch.no_grad():
        net(x[:1])  # another batch
        assert list(net._plans.known.values()) == [before]
        for size in range(5, 12):
            net(torch.randn(1, 4, size, size))
        assert len(net._plans.known) == 2
    with torch.inference_mode():
        assert_same(net(x), F.conv2d(x, net.weight, net.bias, padding=1))
    net.train()
    assert "_fastconv_plans" not in net.__dict__


def test_weight_norm_and_threads_in_evaluation() -> None:
    net = nn.utils.weight_norm(nn.Conv2d(32, 32, 3))
    assert accelerate(net).swapped == [""]
    net.eval()
    x = torch.randn(1, 32, 8, 8)
    with torch.no_grad():
        for factor in (1, 2):
            net.weight_g.mul_(factor)
            assert_same(net(x), F.conv2d(x, net.weight, net.bias))
    assert "_fastconv_plans" not in net.__dict__
    plain = Conv2d(4, 8, 3).eval()
    inputs = [torch.randn(1, 4, size, size) for size in range(5, 13)] * 4
    with torch.no_grad():
        expected = [F.conv2d(x, plain.weight, plain.bias) for x in inputs]

    def evaluate(x: Any) -> Any:
        with torch.no_grad():
            return plain(x)

    with ThreadPoolExecutor(4) as pool:
        for ours, theirs in zip(pool.map(evaluate, inputs), expected, strict=True):
            assert_same(ours, theirs)


def test_gradients_in_evaluation() -> None:
    net, x, _ = evaluated()
    x.requires_grad_()
    net(x).sum().backward()
    assert x.grad is not None and net.weight.grad is not None
    with torch.inference_mode():
        inferred = Conv2d(4, 8, 3, padding=1).eval()  # nobody counts writes to these weights
        y = inferred(x)
        inferred.weight.mul_(2)
        assert not torch.equal(inferred(x), y)


def test_copies_and_pickles() -> None:
    net, x, expected = evaluated()
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for made in (copy.deepcopy(net), copy.copy(net), loaded):
        assert type(made) is Conv2d
        assert "_fastconv_plans" not in made.__dict__
        with torch.no_grad():
            assert_same(made(x), expected())
    assert net._plans.known


# ---- accelerate ----------------------------------------------------------------------------------------------------


class Own(nn.Conv2d):
    pass


def mixed() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(inplace=True), nn.Dropout(0.5),
        nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 32, 1), Own(32, 8, 3), nn.ConvTranspose2d(8, 4, 2, 2),
    )  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
def test_accelerate_measures_and_disturbs_nothing(training: bool) -> None:
    net = mixed().train(training)
    before = copy.deepcopy(net)
    x = torch.randn(2, 3, 16, 16)
    state = torch.get_rng_state()
    report = accelerate(net, x)
    assert torch.equal(torch.get_rng_state(), state)
    for (name, ours), theirs in zip(net.state_dict().items(), before.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    assert all(p.grad is None for p in net.parameters())
    assert [m.training for m in net.modules()] == [m.training for m in before.modules()]
    assert not any(m._forward_pre_hooks for m in net.modules())
    assert report.training is training and report.measured
    assert [d.name for d in report.decisions] == ["0", "4", "5", "6", "7"]
    own = report.decisions[3]
    assert not own.swapped and "Own" in own.why and type(net[6]) is Own
    for d in report.decisions:
        assert (d.times is None) == (d.name == "6")
        assert d.swapped == (type(net.get_submodule(d.name)) in (Conv2d, ConvTranspose2d))
        assert d.times is None or d.swapped == (d.times[0] >= 1.03 * d.times[1])
    table = str(report)
    assert "32->32 3x3" in table and "of 5 convolutions swapped" in table and "transposed" in table
    torch.manual_seed(1)
    expected = before(x)
    torch.manual_seed(1)
    assert_same(net(x), expected)


class Viewed(nn.Module):
    """What channels-last results do not allow."""

    def forward(self, x: Any) -> Any:
        return x.view(len(x), -1)


class Two(nn.Module):
    """Two convolutions and what comes behind them."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3), last

    def forward(self, x: Any) -> Any:
        return self.last(self.second(self.first(x).relu()))


@pytest.mark.parametrize(
    ("last", "possible"),
    [
        (nn.Flatten(), True), (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), True), (nn.Identity(), False),
        (Viewed(), False),
    ],
)  # fmt: skip
def test_results_between_convolutions_lie_channels_last(last: Any, possible: bool, monkeypatch: Any) -> None:
    from fastconv.torch import swap

    net = Two(last).eval()
    x = torch.randn(1, 3, 36, 36)
    expected, strides = net(x).detach(), [p.stride() for p in net.parameters()]
    monkeypatch.setattr(swap, "GAIN", 0.0)  # whatever the times are
    report = accelerate(net, x)
    assert report.channels_last is possible and ("channels last" in str(report)) is possible
    with torch.no_grad():
        assert ops.lies_channels_last(net.first(x)) is possible
        assert_same(net(x), expected)
        assert net(x).stride() == expected.stride()
    assert_same(net(x).detach(), expected)  # with gradients there is no plan
    assert [p.stride() for p in net.parameters()] == strides
    restore(net)
    with torch.no_grad():
        assert not ops.lies_channels_last(net.first(x))


def test_the_rule_of_thumb_and_restore() -> None:
    net = mixed()
    parameters = list(net.parameters())
    report = accelerate(net)
    assert report.swapped == ["4"] and type(net[4]) is Conv2d and "without an example" in str(report)
    again = accelerate(net)
    assert again.swapped == ["4"] and again.decisions == report.decisions
    assert all(a is b for a, b in zip(net.parameters(), parameters, strict=True))
    assert restore(net) == 1 and type(net[4]) is nn.Conv2d and restore(net) == 0
    assert accelerate(mixed().double()).swapped == ["4", "5"]
    assert accelerate(mixed().half()).swapped == []
    assert accelerate(mixed().to("meta")).swapped == []


def test_examples_of_other_forms() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.unused = nn.Conv2d(3, 4, 3), nn.Conv2d(32, 32, 3)

        def forward(self, x: Any, scale: float = 1.0) -> Any:
            return self.conv(x) * scale

    x = torch.randn(1, 3, 8, 8)
    for example in ((x, 2.0), [x], {"x": x, "scale": 3.0}):
        report = accelerate(Two(), example)
        assert report.decisions[0].times is not None
        assert "did not reach" in report.decisions[1].why and report.decisions[1].swapped
    with pytest.raises(ConvError, match="example_input"):
        accelerate(Two(), 5)
    with pytest.raises(ConvTypeError, match="model"):
        accelerate(lambda x: x)
    single = nn.Conv2d(32, 32, 3)
    assert accelerate(single).swapped == [""] and type(single) is Conv2d


def test_a_training_step_is_pytorchs() -> None:
    losses = []
    for swap in (False, True):
        torch.manual_seed(3)
        net = mixed()
        if swap:
            accelerate(net)
        optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
        x = torch.randn(4, 3, 12, 12)
        losses.append([])
        for _ in range(5):
            optimizer.zero_grad()
            loss = net(x).square().mean()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def test_data_parallel_training_has_the_loss_curve_of_one_process() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples/train_ddp.py"), "--processes", "1", "2", "--steps=10", "--batch=16"],
        capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    alone, shared = done.stdout.splitlines()
    assert alone.startswith("1 process") and "3 convolutions by fastconv" in shared
    assert 0 < float(shared.rpartition(" ")[2]) < 1e-5


# ---- the package ---------------------------------------------------------------------------------------------------


def test_without_pytorch_one_line_says_so() -> None:
    code = "import sys; sys.modules['torch'] = None\nimport fastconv\nimport fastconv.torch"
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert "ImportError: fastconv.torch needs PyTorch: pip install fastconv[torch]" in run.stderr


def test_fastconv_alone_does_not_import_pytorch() -> None:
    code = "import sys, fastconv; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-P", "-c", code], cwd=ROOT, check=True)


def test_bits_do_not_depend_on_whose_threads_compute() -> None:
    from fastconv.torch import threads

    x, w = torch.randn(2, 32, 40, 40), torch.randn(64, 32, 3, 3)
    count = torch.get_num_threads()
    shared = conv2d(x, w, padding=1)
    threads.give_back()
    try:
        assert torch.equal(conv2d(x, w, padding=1), shared)
    finally:
        threads.share()
    assert torch.get_num_threads() == count
