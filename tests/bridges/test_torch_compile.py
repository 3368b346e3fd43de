"""`torch.compile(model, backend="fastconv")` beside the same models without it."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import compiled_models  # noqa: E402
import torch.nn.functional as F  # noqa: E402
import torch_models  # noqa: E402
from torch import nn  # noqa: E402

from fastconv import ConvTypeError  # noqa: E402
from fastconv.torch import backend, compile_reports  # noqa: E402
from fastconv.torch.compiler.part import KEPT_PROGRAMS, Part  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
RUNS = 4  # PyTorch looks on in the first; then a program is made, recorded, and done again
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
NETS = {**torch_models.NETS, **compiled_models.NETS}


@pytest.fixture(autouse=True)
def _anew() -> Any:
    torch.manual_seed(0)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[Part]:
    """The parts that are made."""
    made: list[Part] = []
    start = Part.__init__

    def noted(self: Part, *args: Any) -> None:
        start(self, *args)
        made.append(self)

    monkeypatch.setattr(Part, "__init__", noted)
    return made


def flat(results: Any) -> list[Any]:
    return [results] if isinstance(results, torch.Tensor) else list(results)


def agree(compiled: Any, plain: Any, *inputs: Any, runs: int = 1, tolerance: float = 1e-5) -> None:
    """Without gradients, to a share of the largest value."""
    with torch.no_grad():
        for _ in range(runs):
            expected, got = flat(plain(*inputs)), flat(compiled(*inputs))
            assert len(got) == len(expected)
            for theirs, ours in zip(expected, got, strict=True):
                assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
                scale = theirs.double().abs().max().item() if theirs.numel() else 1.0
                difference = (theirs.double() - ours.double()).abs()
                assert not difference.numel() or difference.max().item() <= tolerance * scale


def compile_it(model: Any, **options: Any) -> Any:
    return torch.compile(model, backend=backend, **options)


# ---- nets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", NETS)
def test_nets_are_one_program(name: str, form: str, parts: list[Part]) -> None:
    net = NETS[name](torch).eval().to(memory_format=FORMATS[form])
    x = torch.randn(2, 3, 32, 40).contiguous(memory_format=FORMATS[form])
    compiled = compile_it(net)
    agree(compiled, net, x, runs=RUNS)
    report = compile_reports()[-1]
    assert (report.parts, report.left) == ([report.operators], {})
    (part,) = parts
    assert part.programs == 1
    (made,) = part._programs.values()
    assert made is not None and made.prepared.last is not None and made.prepared.last.replay is not None
    with torch.no_grad():
        assert compiled(x).stride() == net(x).stride()


def test_what_there_is_of_three_axes_and_one(parts: list[Part]) -> None:
    volume = nn.Sequential(
        nn.Conv3d(2, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2), nn.AvgPool3d(2),
        nn.ConvTranspose3d(8, 4, 2, 2), nn.AdaptiveAvgPool3d(1),
    ).eval()  # fmt: skip
    agree(compile_it(volume), volume, torch.randn(1, 2, 8, 12, 8), runs=RUNS)
    signal = nn.Sequential(
        nn.Conv1d(2, 8, 5, padding="same"), nn.ELU(), nn.MaxPool1d(2), nn.AvgPool1d(3, 1, 1),
        nn.ConvTranspose1d(8, 4, 4, 2, 1), nn.PReLU(), nn.Upsample(scale_factor=2.0),
    ).eval()  # fmt: skip
    agree(compile_it(signal), signal, torch.randn(3, 2, 40), runs=RUNS)
    assert [report.left for report in compile_reports()[-2:]] == [{}, {}] and len(parts) == 2


# ---- operators -----------------------------------------------------------------------------------------------------


def functions(x: Any) -> list[Any]:
    y = x.abs() + 0.1
    return [
        F.hardswish(x), F.relu6(x), F.silu(x), F.gelu(x), F.gelu(x, approximate="tanh"), F.hardsigmoid(x), F.mish(x),
        F.elu(x, 0.5), F.selu(x), F.leaky_relu(x, 0.2), F.softplus(x), F.logsigmoid(x), F.glu(x, 1), x.clamp(max=1),
        torch.clamp(x, -0.5, 0.5), y.log(), y.rsqrt(), y.pow(0.5), x**3, 1 / y, 3 - x, torch.rsub(x, 2, alpha=3),
        torch.sub(x, y, alpha=2), torch.erf(x), x.exp(), x.round(), torch.sign(x), torch.where(x > 0, x, -y),
        x.masked_fill(x < 0, 2.0), (x > 0) & (x < 1), (x >= 0) | ~(x <= 1), (x != 0).float(), torch.maximum(x, -x),
        x.double() * 2, x.long().float() * 1.5, x / 2, torch.arange(18) + x.int(),
    ]  # fmt: skip


def sums(x: Any) -> list[Any]:
    mask = torch.full((5, 5), -float("inf")).triu(1)
    small = x[:, :, :5, :5]
    return [
        x.mean((2, 3)), x.mean(), x.mean((2, 3), keepdim=True), x.sum(1), x.amax((2, 3), True), x.max(1)[0], x.min(),
        x.argmax(1), x.var(1), x.std((2, 3)), torch.var_mean(x, 1, correction=0)[1], F.normalize(x), x.norm(dim=1),
        x.softmax(1), F.log_softmax(x, -1), x.cumsum(1), x @ x.mT, torch.einsum("bchw,bdhw->bcd", x, x),
        F.scaled_dot_product_attention(x, x, x, is_causal=True), F.layer_norm(x, x.shape[2:]), F.group_norm(x, 2),
        F.scaled_dot_product_attention(small, small, small, mask), F.instance_norm(x[:1]), F.rms_norm(x, x.shape[-1:]),
        F.batch_norm(x, torch.zeros(4), torch.ones(4)), torch.baddbmm(x[0], x[0], x[0].mT @ x[0], alpha=2.0),
        torch.addmm(x[0, 0], x[0, 0] @ x[0, 0].T, x[0, 0]), (x > 0).sum(1), (x > 0).float().mean(),
    ]  # fmt: skip


def written(x: Any) -> Any:
    y = x * 2
    y[:, 0] = 1.5
    y[:, :, 2:-3] += 1
    y[..., -4:] = x[..., :1]
    return y


def moves(x: Any) -> list[Any]:
    return [
        x.flip(-1), x.roll(3, -1).contiguous(), x[:, 1:3], x[:, ::2], x[:, :, -3:], x[:, 0], x[..., -1],
        *x.chunk(3, 1), *x.split([1, 3], 1), torch.stack([x, x], 1), x.repeat(1, 2, 1, 1), x.permute(0, 2, 3, 1),
        x.transpose(1, 2).flatten(1), x.unsqueeze(1).expand(2, 3, 4, 16, 18), F.pixel_shuffle(x, 2),
        F.pixel_unshuffle(x, 2), torch.cat([x, x], -1), x.unbind(1)[2], torch.narrow(x, 2, 1, 4), x[:, [2, 0, 1]],
        x.new_zeros(3) + 1, F.pad(x, (1, 2, 3, 0)), F.pad(x, (1, 2, 3, 0), value=1.5), F.pad(x, (-1, 2, -3, 1)),
        F.pad(x, (1, 2, 3, 1), "reflect"), F.pad(x, (1, 2, 3, 1), "replicate"), F.pad(x, (1, 2, 3, 1), "circular"),
        written(x), torch.full_like(x, 2), x.gather(1, torch.zeros_like(x, dtype=torch.int64)),
    ]  # fmt: skip


def windows(x: Any) -> list[Any]:
    grid = torch.linspace(-1.2, 1.2, 2 * 5 * 5 * 2).view(2, 5, 5, 2)
    up = F.interpolate
    return [
        F.max_pool2d(x, 3, 2, 1), F.max_pool2d(x, 2, ceil_mode=True), F.avg_pool2d(x, 3, 2, 1),
        F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
        F.max_pool2d(x, 2, 1, 0, 2), F.adaptive_avg_pool2d(x, (3, 5)), F.adaptive_max_pool2d(x, (3, 5)),
        F.adaptive_avg_pool2d(x, (None, 1)), F.adaptive_max_pool2d(x, 1), up(x, scale_factor=2),
        up(x, scale_factor=2, mode="bilinear"), up(x, size=(9, 31), mode="bilinear", align_corners=True),
        up(x, size=7, mode="bilinear"), up(x, scale_factor=(1.5, 2.5), mode="bicubic"),
        up(x, size=(40, 41), mode="bicubic", align_corners=True), up(x, size=(5, 8), mode="nearest-exact"),
        up(x, scale_factor=1.7, mode="bilinear", recompute_scale_factor=True), up(x, size=(5, 33)),
        up(x, scale_factor=0.5, mode="bilinear", align_corners=False), F.grid_sample(x, grid, align_corners=False),
    ]  # fmt: skip


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("group", [functions, sums, moves, windows])
def test_operators(group: Any, form: str) -> None:
    """All of a group behind one convolution, none of them left to PyTorch."""
    weight = torch.eye(4).view(4, 4, 1, 1) * 1.1

    def net(x: Any) -> Any:
        return group(F.conv2d(x, weight))

    x = torch.randn(2, 4, 16, 18).contiguous(memory_format=FORMATS[form])
    agree(compile_it(net), net, x, runs=RUNS)
    report = compile_reports()[-1]
    assert report.left == {} and len(report.parts) == 1


def test_values_that_are_not_finite_reach_what_they_should() -> None:
    net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 16, 3)).eval()
    compiled = compile_it(net)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        for place in ((5, 7), (20, 3), (0, 31), (9, 9)):
            bad = x.clone()
            bad[0, 1, place[0], place[1]] = float("nan")
            assert torch.equal(compiled(bad).isnan(), net(bad).isnan())


# ---- what is PyTorch's ---------------------------------------------------------------------------------------------


def test_the_rest_falls_into_parts() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
            self.steps = nn.LSTM(8, 6, batch_first=True)

        def forward(self, x: Any) -> Any:
            x = F.relu(self.first(x))
            values, places = torch.topk(x, 4, dim=3)
            x = self.second(torch.cat([values, values * 2], 3)) + places.float().mean()
            return self.steps(x.mean(3).transpose(1, 2))[0], x.sort(dim=1)[0], places

    net = Net().eval()
    agree(compile_it(net), net, torch.randn(2, 3, 12, 10), runs=RUNS)
    reports = [report for report in compile_reports()[-3:] if report.parts]
    report = max(reports, key=lambda one: len(one.parts))
    assert len(report.parts) >= 2 and "aten.topk.default" in report.left
    assert "aten.topk.default: an operator that fastconv does not have" in str(report)


def test_other_types_are_pytorchs() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval()
    halves, x = copy.deepcopy(net).bfloat16(), torch.randn(1, 3, 9, 9)
    agree(compile_it(halves), halves, x.bfloat16(), runs=RUNS, tolerance=0)
    assert compile_reports()[-1].parts == []
    with torch.autocast("cpu", torch.bfloat16):
        agree(compile_it(net), net, x, runs=RUNS, tolerance=0)
    doubles = copy.deepcopy(net).double()
    agree(compile_it(doubles), doubles, x.double(), runs=RUNS, tolerance=1e-14)
    assert compile_reports()[-1].left == {}


HALF = torch.float16
MIXED = {  # with what is of a type that is not taken, and whether that comes from outside
    "an input": lambda x, h: x * h.float().mean(),
    "numbers made": lambda x, h: x + torch.full_like(x, 0.5, dtype=HALF).float(),
    "a cast there and back": lambda x, h: x.to(HALF).float() + torch.zeros_like(x, dtype=HALF),
    "a complex product": lambda x, h: (x * 2j).imag,
    "a complex sum": lambda x, h: torch.view_as_real(torch.complex(x, x) + 1).sum(-1),
    "half a norm": lambda x, h: x + F.layer_norm(h, h.shape[-1:]).float().sum(),
    "half of attention": lambda x, h: x + F.scaled_dot_product_attention(h, h, h, is_causal=True).float().mean(),
    "a batch's norm of halves": lambda x, h: x + F.batch_norm(h, h[0, :, 0, 0], h[0, :, 0, 0] ** 2 + 1).float().sum(),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXED)
def test_halves_and_complex_numbers_leave_the_rest_ours(name: str, parts: list[Part]) -> None:
    first, second = nn.Conv2d(3, 4, 3, padding=1).eval(), nn.Conv2d(4, 4, 3, padding=1).eval()

    def net(x: Any, h: Any) -> Any:
        return second(MIXED[name](F.relu(first(x)), h))

    x, h = torch.randn(1, 3, 12, 10), torch.randn(1, 4, 6, 6).to(HALF)
    agree(compile_it(net), net, x, h, runs=RUNS, tolerance=1e-4)
    report = compile_reports()[-1]
    assert report.left and report.parts and len(report.left) < report.operators
    assert all(part.programs == 1 for part in parts) and len(parts) == len(report.parts)


def test_rows_of_attention_that_see_nothing_are_zeros() -> None:
    """As PyTorch's, under a mask that hides all of a row."""
    weight = torch.eye(4).view(4, 4, 1, 1)
    mask = torch.zeros(6, 6).masked_fill(torch.eye(6, dtype=torch.bool), -float("inf"))
    mask[2] = -float("inf")
    seen = torch.ones(6, 6, dtype=torch.bool).tril(-1)

    def net(x: Any) -> list[Any]:
        x = F.conv2d(x, weight)
        return [F.scaled_dot_product_attention(x, x, x, one) for one in (mask, seen)]

    agree(compile_it(net), net, torch.randn(2, 4, 6, 8), runs=RUNS)


def test_buffers_that_are_written_are_written() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).train()
    other, x = copy.deepcopy(net), torch.randn(4, 3, 9, 9)
    agree(compile_it(net), other, x, runs=RUNS)
    assert torch.allclose(net[1].running_var, other[1].running_var)
    assert net[1].num_batches_tracked == other[1].num_batches_tracked == RUNS


# ---- weights and lengths -------------------------------------------------------------------------------------------


def classifier() -> Any:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 5),
    ).eval()  # fmt: skip


def _replaced(net: Any) -> None:
    net[0].weight = nn.Parameter(torch.randn_like(net[0].weight))


def _loaded(net: Any) -> None:
    state = {name: 1.1 * value if value.is_floating_point() else value for name, value in net.state_dict().items()}
    net.load_state_dict(state)


def _stepped(net: Any) -> None:
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with torch.enable_grad():
        net(torch.randn(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


class Scaled(nn.Module):
    """A convolution and weights of one and two bytes, as of tables and pruning."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        for name, kind in (("table", torch.int16), ("steps", torch.int8), ("kept", torch.bool)):
            self.register_buffer(name, torch.ones(4, 1, 3, dtype=kind)[:, :, ::2])

    def forward(self, x: Any) -> Any:
        y = self.conv(x)
        for scale in (self.table, self.steps, self.kept):
            y = y * scale[..., :1].float()
        return y


@pytest.mark.parametrize("name", ["table", "steps", "kept"])
def test_writes_to_weights_of_few_bytes_are_seen(name: str) -> None:
    net, x = Scaled().eval(), torch.randn(1, 3, 9, 9)
    compiled = compile_it(net)
    agree(compiled, net, x, runs=RUNS)
    getattr(net, name).numpy().fill(0)
    agree(compiled, net, x, runs=RUNS)


WRITES = {
    "in place": lambda net: net[0].weight.mul_(1.5),
    "past the counter": lambda net: net[0].weight.data.mul_(1.5),
    "through NumPy": lambda net: net[5].bias.detach().numpy().fill(3),
    "other memory": lambda net: setattr(net[0].weight, "data", torch.randn_like(net[0].weight)),
    "a buffer": lambda net: net[1].running_var.fill_(3),
    "another parameter": _replaced,
    "load_state_dict": _loaded,
    "an optimiser": _stepped,
}


def test_writes_to_weights_are_seen(parts: list[Part]) -> None:
    net, x = classifier(), torch.randn(2, 3, 9, 8)
    compiled = compile_it(net)
    agree(compiled, net, x, runs=RUNS)
    with torch.no_grad():
        before = net(x)
        for write in WRITES.values():
            write(net)
            assert (net(x) - before).abs().max() > 1e-3
            agree(compiled, net, x, runs=3)
            before = net(x)
    assert all(part.programs == 1 for part in parts)


def test_writes_among_zeros_are_seen() -> None:
    """As of weights that were pruned."""
    net, x = classifier(), torch.randn(2, 3, 9, 8)
    compiled = compile_it(net)
    with torch.no_grad():
        net[0].weight.view(-1)[torch.arange(432) % 7 != 1] = 0
    agree(compiled, net, x, runs=RUNS)
    net[0].weight.data.mul_(1.5)
    agree(compiled, net, x, runs=RUNS)


def test_weights_that_change_in_every_call_make_no_programs(parts: list[Part]) -> None:
    net, x = classifier(), torch.randn(2, 3, 9, 8)
    compiled = compile_it(net)
    agree(compiled, net, x, runs=RUNS)
    with torch.no_grad():
        for _ in range(3):
            net[0].weight.mul_(1.1)
            agree(compiled, net, x)
            assert parts[0].programs == 0


def test_weights_made_in_inference_mode() -> None:
    with torch.inference_mode():
        net, x = classifier(), torch.randn(2, 3, 9, 8)
        compiled = compile_it(net)
        for _ in range(2):
            agree(compiled, net, x, runs=RUNS)
            net[0].weight.mul_(1.5)


def test_lengths_left_open(parts: list[Part]) -> None:
    net = compiled_models.shuffled(torch).eval()
    compiled = compile_it(net, dynamic=True)
    for shape in ((2, 3, 32, 40), (1, 3, 24, 24), (5, 3, 24, 24), (2, 3, 20, 17), (3, 3, 16, 18)):
        agree(compiled, net, torch.randn(shape), runs=RUNS)
    assert len(parts) <= 2 and all(part.programs <= KEPT_PROGRAMS for part in parts)
    other = classifier()
    agree(compile_it(other), other, torch.randn(0, 3, 24, 24), runs=RUNS)


def test_views_and_other_strides() -> None:
    net = classifier()
    compiled = compile_it(net, dynamic=True)
    x = torch.randn(4, 6, 18, 16)
    for view in (x[:, ::2], x[::2, 1:4], x[:, :3].transpose(2, 3)):
        agree(compiled, net, view, runs=RUNS)


# ---- with gradients ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_those_of_the_plain_model(dtype: Any) -> None:
    net = nn.Sequential(
        nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 16, 3, padding=1),
        nn.ConvTranspose2d(16, 16, 2, 2), nn.Conv2d(16, 4, 1),
    ).to(dtype)  # fmt: skip
    other = copy.deepcopy(net)
    x = torch.randn(2, 16, 12, 12, dtype=dtype, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    compiled = compile_it(net)
    for _ in range(2):
        compiled(x).square().mean().backward()
        other(y).square().mean().backward()
    forward, backward = compile_reports()[-2:]
    assert forward.training == backward.training == (3 if dtype is torch.float64 else 2)
    tolerance = 1e-4 if dtype is torch.float32 else 1e-11
    for ours, theirs in zip([x, *net.parameters()], [y, *other.parameters()], strict=True):
        assert (ours.grad - theirs.grad).abs().max() <= tolerance * theirs.grad.abs().max()
    assert torch.allclose(net[1].running_mean, other[1].running_mean)
    net.eval(), other.eval()
    agree(compiled, other, x.detach(), runs=RUNS, tolerance=1e-4)


# ---- at the door ---------------------------------------------------------------------------------------------------


def test_threads_and_forked_children() -> None:
    net = classifier()
    compiled = compile_it(net)
    x = torch.randn(2, 3, 9, 8)
    agree(compiled, net, x, runs=RUNS)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            own = torch.randn(2, 3, 9, 8, generator=torch.Generator().manual_seed(seed))
            for _ in range(10):
                agree(compiled, net, own)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    child = os.fork()
    if child == 0:
        try:
            agree(compiled, net, x)
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def test_results_are_the_callers() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval()
    compiled, x = compile_it(net), torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        kept = [compiled(x + i) for i in range(5)]
        for i, result in enumerate(kept):
            assert torch.allclose(result, net(x + i), atol=1e-5)
            result.add_(1)
        agree(compiled, net, x)


def test_options_are_refused() -> None:
    with pytest.raises(ConvTypeError, match="has no options, but got speed"):
        backend(torch.fx.GraphModule(nn.Module(), torch.fx.Graph()), [], speed=1)


def test_an_old_pytorch_is_named() -> None:
    from fastconv.torch.needed import require

    for version in ("2.5.0", "2.13.0+cpu", "3.0.0a0+git1234"):
        require(version)
    with pytest.raises(ImportError, match=r"2\.5 or newer, but 2\.4\.1\+cpu is installed: pip install"):
        require("2.4.1+cpu")


FOUND = """
import sys
import fastconv, fastconv.torch
assert "torch._dynamo" not in sys.modules and "fastconv.torch.compiler" not in sys.modules
import torch
model = torch.nn.Conv2d(3, 8, 3).eval()
compiled = torch.compile(model, backend="fastconv")
x = torch.randn(1, 3, 9, 9)
with torch.no_grad():
    for _ in range(3):
        assert torch.allclose(compiled(x), model(x), atol=1e-5)
print(fastconv.torch.compile_reports()[-1])
"""


def test_it_is_found_by_its_name_and_costs_nothing_before(tmp_path: Path) -> None:
    """By the entry point as an installation writes it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    entries = project["entry-points"]["torch_dynamo_backends"]
    folder = tmp_path / "fastconv-0.dist-info"
    folder.mkdir()
    folder.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: fastconv\nVersion: 0\n", encoding="utf-8")
    lines = ["[torch_dynamo_backends]", *(f"{name} = {target}" for name, target in entries.items())]
    folder.joinpath("entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, "-P", "-c", FOUND], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "1 of 1 operators in 1 part(s) by fastconv" in run.stdout
