"""fastconv.torch beside what watches PyTorch's calls, and beside what writes to tensors behind its back."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import io
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402
from torch.overrides import TorchFunctionMode  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402
from torch_models import NETS, swap_all  # noqa: E402

from fastconv import ConvError  # noqa: E402
from fastconv.torch import Conv2d, ConvTranspose2d, accelerate, conv2d, conv_transpose2d, guard, modules, ops  # noqa: E402

CL = torch.channels_last
MODES: dict[str, Callable[[], Any]] = {
    "grad": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # these are small: two runtimes' threads would wait for each other
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the tensors whose memory was read past PyTorch's dispatcher."""
    read: list[str] = []
    plain = ops.array

    def spy(name: str, *args: Any) -> Any:
        read.append(name)
        return plain(name, *args)

    for module in (ops, modules):
        monkeypatch.setattr(module, "array", spy)
    return read


# ---- graphs of accelerated models ----------------------------------------------------------------------------------


def traced(model: Any, x: Any) -> Any:
    return torch.jit.trace(model, x, check_trace=False)


def scripted(model: Any, x: Any) -> Any:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(model), file)
    file.seek(0)
    return torch.jit.load(file)


def exported(model: Any, x: Any) -> Any:
    return torch.export.export(model, (x,)).module()


def exported_strictly(model: Any, x: Any) -> Any:
    return torch.export.export(model, (x,), strict=True).module()


def symbolic(model: Any, x: Any) -> Any:
    return torch.fx.symbolic_trace(model)


RECORDERS = {
    "jit.trace": traced,
    "jit.script": scripted,
    "export": exported,
    "export strict": exported_strictly,
    "fx": symbolic,
    "make_fx": lambda model, x: make_fx(model)(x),
    "make_fx symbolic": lambda model, x: make_fx(model, tracing_mode="symbolic", _allow_non_fake_inputs=True)(x),
    "make_fx pre_dispatch": lambda model, x: make_fx(model, pre_dispatch=True)(x),
}


def operators(graph: Any) -> str:
    return str(getattr(graph, "inlined_graph", getattr(graph, "graph", "")))


@pytest.mark.parametrize(
    ("net", "recorder", "mode"),
    [
        *itertools.product(("ResNet", "U-Net"), RECORDERS, ["no_grad"]),
        *itertools.product(["pair"], RECORDERS, ["grad", "inference"]),
    ],
)
def test_a_recorded_model_answers_new_inputs_as_the_plain_one(net: str, recorder: str, mode: str) -> None:
    plain = NETS[net](torch).eval()
    for norm in (m for m in plain.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 1)
    ours = swap_all(copy.deepcopy(plain))
    x, y = torch.randn(1, 3, 24, 24), torch.randn(1, 3, 24, 24)
    with MODES[mode]():
        ours(x)  # with plans made before
        graph = RECORDERS[recorder](ours, x.clone())
    assert "fastconv::" not in operators(graph) and "ops.fastconv" not in operators(graph)
    with torch.no_grad():
        torch.testing.assert_close(graph(y), plain(y), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours(y), plain(y), atol=1e-4, rtol=1e-4)  # the model itself is as it was
    assert any(type(module) is Conv2d for module in ours.modules())


@pytest.mark.parametrize("recorder", ["jit.trace", "export", "make_fx"])
def test_a_model_recorded_while_it_trains(recorder: str, memory: list[str]) -> None:
    plain = NETS["U-Net"](torch).train()
    ours = swap_all(copy.deepcopy(plain))
    x, y = torch.randn(1, 3, 16, 16), torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(RECORDERS[recorder](ours, x)(y), plain(y), atol=1e-5, rtol=1e-5)
    assert not memory


@pytest.mark.parametrize(
    ("net", "dynamo", "mode"),
    [("ResNet", False, "no_grad"), ("U-Net", False, "no_grad"), ("pair", False, "grad"), ("ResNet", True, "no_grad"),
     ("pair", True, "grad")],
)  # fmt: skip
def test_a_model_exported_to_onnx(net: str, dynamo: bool, mode: str) -> None:
    onnx = pytest.importorskip("onnx")
    evaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator
    if dynamo:
        pytest.importorskip("onnxscript")
    plain = NETS[net](torch).eval()
    ours = swap_all(copy.deepcopy(plain))
    x, y = torch.randn(1, 3, 16, 16), torch.randn(1, 3, 16, 16)
    file = io.BytesIO()
    with MODES[mode]():
        ours(x)
        if dynamo:
            program = torch.onnx.export(ours, (x,), dynamo=True, verbose=False)
            proto = program.model_proto
        else:
            torch.onnx.export(ours, (x,), file, dynamo=False)
            proto = onnx.load_from_string(file.getvalue())
    kinds = [node.op_type for node in proto.graph.node]
    convolutions = sum(isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)) for m in plain.modules())
    assert kinds.count("Conv") + kinds.count("ConvTranspose") == convolutions, kinds
    (name,) = (value.name for value in proto.graph.input)
    (answer,) = evaluator(proto).run(None, {name: y.numpy()})
    np.testing.assert_allclose(answer, plain(y).detach().numpy(), atol=1e-5, rtol=1e-4)


def test_functions_are_recorded_too() -> None:
    w, v, b = torch.randn(8, 4, 3, 3), torch.randn(8, 4, 3, 3), torch.randn(4)

    def function(x: Any) -> Any:
        return conv_transpose2d(conv2d(x, w, None, 1, "same"), v, b, 2, 1, 1)

    def theirs(x: Any) -> Any:
        return F.conv_transpose2d(F.conv2d(x, w, None, 1, "same"), v, b, 2, 1, 1)

    x, y = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    for name in ("jit.trace", "fx", "make_fx", "make_fx pre_dispatch"):
        graph = RECORDERS[name](function, x)
        torch.testing.assert_close(graph(y), theirs(y), atol=1e-5, rtol=1e-5, msg=name)


def _scripted_function(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return conv_transpose2d(conv2d(x, w, None, 1, 1), w)


def test_a_function_that_calls_ours_can_be_scripted() -> None:
    x, w = torch.randn(1, 4, 6, 6), torch.randn(4, 4, 3, 3)
    torch.testing.assert_close(
        torch.jit.script(_scripted_function)(x, w), F.conv_transpose2d(F.conv2d(x, w, None, 1, 1), w)
    )


# ---- who watches ---------------------------------------------------------------------------------------------------


class Passing(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*args, **(kwargs or {}))


class PassingFunctions(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*args, **(kwargs or {}))


class Sub(torch.Tensor):
    pass


def under(manager: Callable[[], Any]) -> Callable[[Any, Any], Any]:
    def run(model: Any, x: Any) -> Any:
        with manager():
            return model(x)

    return run


def functional(model: Any, x: Any) -> Any:
    return torch._from_functional_tensor(model(torch._to_functional_tensor(x)))


def dual(model: Any, x: Any) -> Any:
    with torch.autograd.forward_ad.dual_level():
        return torch.autograd.forward_ad.unpack_dual(model(torch.autograd.forward_ad.make_dual(x, x))).primal.clone()


WATCHERS: dict[str, Callable[[Any, Any], Any]] = {
    "dispatch mode": under(Passing),
    "function mode": under(PassingFunctions),
    "device": under(lambda: torch.device("cpu")),
    "flop counter": under(lambda: FlopCounterMode(display=False)),
    "subclass": lambda model, x: model(x.as_subclass(Sub)).as_subclass(torch.Tensor),
    "functional tensor": functional,
    "functionalize": lambda model, x: torch.func.functionalize(model)(x),
    "vmap": lambda model, x: torch.func.vmap(model)(x[None])[0],
    "vmap of something else": lambda model, x: torch.func.vmap(lambda one: model(x) + 0 * one)(torch.ones(1))[0],
    "grad": lambda model, x: torch.func.grad_and_value(lambda t: (y := model(t)).sum() * 0 + y.flatten()[0])(x)[1],
    "jvp": lambda model, x: torch.func.jvp(model, (x,), (x,))[0],
    "vjp": lambda model, x: torch.func.vjp(model, x)[0],
    "dual numbers": dual,
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("watcher", WATCHERS)
def test_nothing_leaves_the_dispatcher_while_someone_watches(watcher: str, mode: str, memory: list[str]) -> None:
    if mode == "inference" and watcher in ("dual numbers", "functional tensor"):
        mode = "no_grad"  # PyTorch has neither of them there
    models = [
        swap_all(nn.Sequential(nn.Conv2d(4, 8, 3, padding="same"), nn.ConvTranspose2d(8, 4, 3, 2))).eval(),
        swap_all(nn.Sequential(nn.Conv2d(4, 4, 3, padding=2, padding_mode="circular"))).train(),
        lambda t: conv2d(t, w, b, padding=1),
        lambda t: conv_transpose2d(t, w, None, 2),
    ]
    w, b, x = torch.randn(4, 4, 3, 3), torch.randn(4), torch.randn(1, 4, 8, 8)
    for i, model in enumerate(models):
        with MODES[mode]():
            expected = model(x).detach()
            assert memory, i
            memory.clear()
            found = WATCHERS[watcher](model, x)
        assert not memory, i
        found = found if found.dim() else found[None]
        expected = expected if watcher != "grad" else expected.flatten()[0][None]
        torch.testing.assert_close(found.detach(), expected, atol=1e-5, rtol=1e-5)


def test_tensors_without_memory(memory: list[str]) -> None:
    for model in (Conv2d(4, 8, 3, padding="same").eval(), ConvTranspose2d(4, 8, 3, 2)):
        shape = model(torch.randn(1, 4, 8, 8)).shape
        memory.clear()
        with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
            assert model(torch.empty(1, 4, 8, 8)).shape == shape
            fake = mode.from_tensor(torch.randn(1, 4, 8, 8))
        assert conv2d(fake, fake.new_empty(8, 4, 3, 3)).shape == (1, 8, 6, 6)
        meta = copy.deepcopy(model).to("meta")
        assert meta(torch.empty(1, 4, 8, 8, device="meta")).shape == shape
    assert not memory


def test_a_flop_counter_counts_what_an_accelerated_model_does() -> None:
    plain = NETS["U-Net"](torch).eval()
    counts = []
    for model in (plain, swap_all(copy.deepcopy(plain))):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(torch.randn(1, 3, 16, 16))
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_the_guard_sees_no_watcher_where_there_is_none(memory: list[str]) -> None:
    x, w = torch.randn(1, 4, 8, 8), nn.Parameter(torch.randn(4, 4, 3, 3))
    for manager in (
        contextlib.nullcontext, torch.no_grad, torch.inference_mode, torch.autograd.detect_anomaly,
        torch.autograd.graph.save_on_cpu, torch.profiler.profile,
    ):  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of anomaly detection, that it is slow
            with manager():
                assert guard.unwatched(x, w, None, torch.randn(2)), manager
                y = conv2d(x, w)
        if y.requires_grad:
            memory.clear()
            y.sum().backward()
            assert memory == ["input", "grad_output"]
    assert not guard.unwatched(x.to_sparse()) and not guard.unwatched(torch.ones(2, device="meta"))


@pytest.mark.parametrize("transform", ["vmap", "grad", "jvp"])
def test_transforms_inside_torch_compile(transform: str) -> None:
    torch._dynamo.reset()
    w, x = torch.randn(4, 4, 3, 3), torch.randn(2, 1, 4, 6, 6)
    calls = {
        "vmap": lambda f: torch.func.vmap(f),
        "grad": lambda f: torch.func.grad(lambda t: f(t[0]).square().sum()),
        "jvp": lambda f: lambda t: torch.func.jvp(f, (t[0],), (t[1],))[1],
    }
    made = [calls[transform](f) for f in (lambda t: conv2d(t, w, padding=1), lambda t: F.conv2d(t, w, padding=1))]
    found = torch.compile(made[0], backend="aot_eager", fullgraph=True)(x)
    torch.testing.assert_close(found, made[1](x), atol=1e-4, rtol=1e-4)


# ---- compiled models -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "training"), [("wrapped", False), ("wrapped", True), ("in place", False), ("a part", False)]
)
def test_a_compiled_model_can_be_accelerated(how: str, training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastconv.torch import measuring, restore, swap

    torch._dynamo.reset()
    monkeypatch.setattr(swap, "GAIN", 0.0)  # whatever the times are
    monkeypatch.setattr(measuring, "SECONDS", 0.0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3)).train(training)
    x = torch.randn(1, 3, 12, 12)
    expected = net(x).detach()
    if how == "wrapped":
        model = torch.compile(net, backend="aot_eager")
    elif how == "in place":
        net.compile(backend="aot_eager")
        model = net
    else:
        model = nn.Sequential(torch.compile(net, backend="aot_eager"))
    with torch.set_grad_enabled(training):
        model(x)
        report = accelerate(model, x)
        assert len(report.swapped) == 2 and all(d.times for d in report.decisions)
        torch.testing.assert_close(model(x).detach(), expected, atol=1e-5, rtol=1e-5)
        assert restore(model) == 2
        torch.testing.assert_close(model(x).detach(), expected, atol=1e-5, rtol=1e-5)


# ---- writes --------------------------------------------------------------------------------------------------------


def with_grad(tensor: Any) -> list[Any]:
    tensor.grad = torch.ones_like(tensor)
    return [tensor]


def transposed(tensor: Any) -> None:
    tensor.data = tensor.data.transpose(2, 3) if tensor.dim() == 4 else tensor.data.flip(0)


def preserving_the_version(tensor: Any) -> None:
    with torch.no_grad(), torch.autograd._unsafe_preserve_version_counter(tensor):
        tensor.mul_(2)


def swapped_with_another(tensor: Any) -> None:
    torch.utils.swap_tensors(tensor, nn.Parameter(tensor.detach() * 2))


def changed_inference_mode(tensor: Any) -> None:
    with torch.inference_mode():
        tensor.data.mul_(2)


def through_the_address(tensor: Any) -> None:
    ctypes.memset(tensor.data_ptr(), 0, tensor.nbytes // 2)


def through_a_file(tensor: Any) -> None:
    other = tensor.detach() * 2
    tensor.untyped_storage().copy_(other.untyped_storage())


WRITES: dict[str, Callable[[Any], Any]] = {
    "counted": lambda t: torch.no_grad()(t.mul_)(2),
    ".data": lambda t: t.data.mul_(2),
    "one element of .data": lambda t: t.data.view(-1)[-1:].add_(1),
    "one bit": lambda t: t.data.view(torch.int32).view(-1)[t.numel() // 2 :][:1].bitwise_xor_(1 << 20),
    "slice of .data": lambda t: t.data[1:].zero_(),
    "set .data": lambda t: setattr(t, "data", t.data * 2),
    "transposed .data": transposed,
    "detached": lambda t: t.detach().mul_(2),
    "numpy": lambda t: t.detach().numpy().__imul__(2),
    "numpy element": lambda t: t.detach().numpy().reshape(-1).__setitem__(-1, 9),
    "asarray": lambda t: np.asarray(t.detach()).__imul__(2),
    "dlpack": lambda t: torch.from_dlpack(t.detach()).mul_(2),
    "dlpack capsule": lambda t: torch.from_dlpack(torch.utils.dlpack.to_dlpack(t.detach())).mul_(2),
    "address": through_the_address,
    "address of the storage": lambda t: ctypes.memset(t.untyped_storage().data_ptr(), 0, t.nbytes // 2),
    "storage": lambda t: t.untyped_storage().fill_(1),
    "element of the storage": lambda t: t.untyped_storage().__setitem__(2, 99),
    "copy of a storage": through_a_file,
    "set_": lambda t: torch.no_grad()(t.set_)(torch.ones_like(t)),
    "copy_": lambda t: torch.no_grad()(t.copy_)(torch.ones_like(t)),
    "swap_tensors": swapped_with_another,
    "as_strided": lambda t: torch.as_strided(t.data, (2,), (1,), 0).zero_(),
    "view as complex": lambda t: torch.view_as_complex(t.data.view(-1, 2)).mul_(2),
    "out=": lambda t: torch.mul(t.data, 2, out=t.data),
    "foreach": lambda t: torch._foreach_mul_([t.data], 2),
    "SGD": lambda t: torch.optim.SGD(with_grad(t), 0.5).step(),
    "SGD foreach": lambda t: torch.optim.SGD(with_grad(t), 0.5, foreach=True).step(),
    "Adam fused": lambda t: torch.optim.Adam(with_grad(t), 0.5, fused=True).step(),
    "init": lambda t: nn.init.constant_(t, 0.5),
    "vector_to_parameters": lambda t: nn.utils.vector_to_parameters(torch.ones(t.numel()), [t]),
    "preserved version": preserving_the_version,
    "inference mode": changed_inference_mode,
    "NaN": lambda t: t.data.view(-1)[4:5].fill_(float("nan")),
    "sign": lambda t: t.data.neg_(),
}


def check_writes(module: Any, x: Any, name: str, write: Callable[[], Any], times: int = 2) -> None:
    """The module answers as PyTorch does before and after a write, and once more after a second one."""
    for round in range(times + 1):
        if round:
            write()
        for _ in range(2):
            with torch.inference_mode() if round % 2 else torch.no_grad():
                expected = F.conv2d(x, module.weight, module.bias, padding=1)
                found = module(x)
            assert bool(module._plans.known) == (x.shape[2] * x.shape[3] >= modules.LEAST_PIXELS)
            torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4, equal_nan=True, msg=f"{name}, {round}")


@pytest.mark.parametrize("name", ["weight", "bias"])
@pytest.mark.parametrize("write", WRITES)
def test_every_write_is_seen(write: str, name: str) -> None:
    module = Conv2d(16, 16, 3, padding=1).eval()
    check_writes(module, torch.randn(1, 16, 12, 12), write, lambda: WRITES[write](getattr(module, name)))


def test_plans_are_kept_until_there_is_a_write(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    plain = modules.prepared
    monkeypatch.setattr(modules, "prepared", lambda *args, **options: made.append(1) or plain(*args, **options))
    module, x = Conv2d(16, 16, 3, padding=1).eval(), torch.randn(1, 16, 24, 24)
    with torch.no_grad():
        for _ in range(3):
            module(x), module(torch.cat([x, x])), module.weight.data_ptr(), module.weight.mul_(1)
        assert len(made) == 1
        module(torch.randn(1, 16, 25, 25))
        assert len(made) == 2
        module.weight.data[3, 3, 1, 1] += 1
        module(x)
        assert len(made) == 3 and len(module._plans.known) == 1
        module(torch.randn(1, 16, 7, 7))  # too few pixels for that a comparison would pay
        assert len(made) == 3


HELD: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {  # what somebody holds, and how it is written to
    "numpy": (lambda p: p.detach().numpy(), lambda a: a.__imul__(2)),
    "numpy element": (lambda p: p.detach().numpy(), lambda a: a.reshape(-1).__setitem__(3, a.max() + 1)),
    "numpy order": (lambda p: p.detach().numpy(), lambda a: a.__setitem__(..., a[::-1].copy())),
    "view": (lambda p: p.data[3:4], lambda a: a.mul_(2)),
    "detached": (lambda p: p.detach(), lambda a: a.mul_(2)),
    "storage": (lambda p: p.untyped_storage(), lambda a: a.__setitem__(3, (a[3] + 1) % 100)),
    "dlpack": (lambda p: np.from_dlpack(p.detach()), lambda a: torch.from_dlpack(a).mul_(2)),
    "state_dict": (lambda p: nn.ParameterList([p]).state_dict()["0"], lambda a: a.mul_(2)),
    "address": (lambda p: p.data_ptr(), lambda a: ctypes.memset(a, ctypes.string_at(a, 1)[0] ^ 1, 1)),
    "memoryview": (lambda p: memoryview(p.detach().numpy()).cast("B"), lambda a: a.__setitem__(2, a[2] ^ 255)),
}


def of_numpy(p: Any) -> tuple[Any, Callable[[], Any]]:
    values = p.detach().numpy().copy()
    return torch.from_numpy(values), lambda: values.__imul__(2)


def of_a_buffer(p: Any) -> tuple[Any, Callable[[], Any]]:
    buffer = bytearray(p.detach().numpy().tobytes())
    return torch.frombuffer(buffer, dtype=p.dtype).view(p.shape), lambda: buffer.__setitem__(2, buffer[2] ^ 255)


def of_shared_memory(p: Any) -> tuple[Any, Callable[[], Any]]:
    values = p.detach().clone().share_memory_()
    return values, lambda: values.mul_(2)


def of_a_larger_tensor(p: Any) -> tuple[Any, Callable[[], Any]]:
    values = torch.randn(p.numel() + 9)
    return values[5 : 5 + p.numel()].view(p.shape), lambda: values.mul_(2)


def of_every_other_value(p: Any) -> tuple[Any, Callable[[], Any]]:
    values = torch.cat([p.data, p.data], -1)
    return values[..., ::2], lambda: values.mul_(2)


def of_one_value(p: Any) -> tuple[Any, Callable[[], Any]]:
    values = p.data.view(-1)[:1].clone()
    return values.expand(p.shape), lambda: values.mul_(2)


FOREIGN = [of_numpy, of_a_buffer, of_shared_memory, of_a_larger_tensor, of_every_other_value, of_one_value]


@pytest.mark.parametrize("name", ["weight", "bias"])
@pytest.mark.parametrize("held", HELD)
def test_a_write_through_what_was_there_before(held: str, name: str) -> None:
    module = Conv2d(16, 16, 3, padding=1).eval()
    hold, write = HELD[held]
    alias = hold(getattr(module, name))
    check_writes(module, torch.randn(1, 16, 12, 12), held, lambda: write(alias), times=3)


@pytest.mark.parametrize("name", ["weight", "bias"])
@pytest.mark.parametrize("make", FOREIGN)
def test_a_write_to_memory_that_is_another_ones(make: Any, name: str) -> None:
    module = Conv2d(16, 16, 3, padding=1).eval()
    values, write = make(getattr(module, name))
    setattr(module, name, nn.Parameter(values))
    check_writes(module, torch.randn(1, 16, 12, 12), make.__name__, write, times=3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("form", [torch.contiguous_format, CL], ids=["contiguous", "channels_last"])
def test_writes_to_weights_of_any_form(form: Any, dtype: Any) -> None:
    for channels, outputs, size in ((1, 1, 26), (5, 7, 7), (5, 7, 29), (32, 33, 6), (64, 64, 14)):
        module = Conv2d(channels, outputs, 3, padding=1).to(dtype=dtype, memory_format=form).eval()
        x, w = torch.randn(1, channels, size, size, dtype=dtype), module.weight
        check_writes(module, x, "last", lambda w=w: w.data[-1, -1, -1, -1:].add_(1))
        check_writes(module, x, "first", lambda w=w: w.detach().numpy().__setitem__((0, 0, 0, 0), 3))
        check_writes(module, x, "pruned", lambda w=w: w.data[len(w) // 2].zero_())


def test_writes_between_two_shapes_of_input_and_two_modules_of_one_weight() -> None:
    one, two = Conv2d(16, 16, 3, padding=1).eval(), Conv2d(16, 16, 3, padding=1).eval()
    two.weight = one.weight
    inputs = [torch.randn(1, 16, 24, 24), torch.randn(2, 16, 20, 29)]
    with torch.no_grad():
        for factor in range(4):
            for module in (one, two):
                for x in inputs:
                    torch.testing.assert_close(
                        module(x), F.conv2d(x, module.weight, module.bias, padding=1), atol=1e-3, rtol=1e-4
                    )
            one.weight.data[factor].mul_(2)
        two.weight.data = one.weight.data.clone()
        one.weight.data = two.weight.data  # now two tensors over one storage
        for _ in range(2):
            one.weight.data[2].mul_(3)
            for module in (one, two):
                torch.testing.assert_close(
                    module(inputs[0]), F.conv2d(inputs[0], module.weight, module.bias, padding=1), atol=1e-3, rtol=1e-4
                )


def test_pruned_filters_of_an_accelerated_model() -> None:
    net = nn.Sequential(nn.Conv2d(32, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1)).eval()
    x = torch.randn(1, 32, 24, 24)
    assert len(accelerate(net).swapped) == 2
    with torch.no_grad():
        assert net(x)[0, 5].abs().max() > 0
        net[1].weight.data[5] = 0
        net[1].bias.data[5] = 0
        assert net(x)[0, 5].abs().max() == 0
        expected = F.conv2d(net[0](x), net[1].weight, net[1].bias, padding=1)
        torch.testing.assert_close(net(x), expected, atol=1e-4, rtol=0)


# ---- freed memory --------------------------------------------------------------------------------------------------


def freed(tensor: Any, bytes: int = 0) -> Any:
    tensor.untyped_storage().resize_(bytes)
    return tensor


ALL_AND_EACH = [(True, True, True), (True, False, False), (False, True, False), (False, False, True)]
RESIZED = {"freed": 0, "shorter": 4 * 30}


@pytest.mark.parametrize("form", [torch.contiguous_format, CL], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("resized", RESIZED)
@pytest.mark.parametrize("which", ["input", "weight", "bias"])
@pytest.mark.parametrize("function", [conv2d, conv_transpose2d])
def test_a_tensor_whose_storage_is_gone_is_refused(function: Any, which: str, resized: str, form: Any) -> None:
    for requires_grad in (False, True):
        operands = {
            "input": torch.randn(2, 8, 6, 6).to(memory_format=form),
            "weight": torch.randn(8, 8, 3, 3).to(memory_format=form),
            "bias": torch.randn(8).expand(8) if resized == "freed" else torch.randn(40)[32:],
        }
        freed(operands[which], RESIZED[resized])
        operands["input"].requires_grad_(requires_grad)
        with pytest.raises(RuntimeError, match=which) as caught:
            function(*operands.values())
        assert isinstance(caught.value, ConvError) and "resize_" in str(caught.value)


@pytest.mark.parametrize("which", ["input", "weight", "bias"])
@pytest.mark.parametrize("make", [Conv2d, ConvTranspose2d])
@pytest.mark.parametrize("size", [6, 24])
def test_a_module_whose_storage_is_gone(size: int, make: Any, which: str) -> None:
    module, x = make(8, 8, 3, padding=1).eval(), torch.randn(1, 8, size, size)
    with torch.no_grad():
        expected = module(x)
        tensor = x if which == "input" else getattr(module, which)
        values = tensor.detach().clone()
        freed(tensor)
        for _ in range(2):
            with pytest.raises(RuntimeError, match=which):
                module(x)
        tensor.untyped_storage().resize_(values.nbytes)  # as sharded training does it
        tensor.data.copy_(values)
        assert torch.equal(module(x), expected)


@pytest.mark.parametrize("which", ["input", "weight", "grad_output"])
@pytest.mark.parametrize("wanted", ALL_AND_EACH)
@pytest.mark.parametrize("function", [conv2d, conv_transpose2d])
def test_a_storage_that_goes_before_the_gradient(function: Any, wanted: Any, which: str) -> None:
    shapes = ((1, 8, 6, 6), (8, 8, 3, 3), (8,))
    operands = [torch.randn(s).requires_grad_(g) for s, g in zip(shapes, wanted, strict=True)]
    y = function(*operands)
    grad = torch.ones_like(y)
    needed = {"input": wanted[1], "weight": wanted[0], "grad_output": True}[which]
    freed(grad if which == "grad_output" else operands[("input", "weight").index(which)])
    leaves = [t for t in operands if t.requires_grad]
    if needed:
        with pytest.raises(RuntimeError, match="storage"):
            torch.autograd.grad(y, leaves, grad)
    else:
        assert len(torch.autograd.grad(y, leaves, grad)) == len(leaves)


def test_a_tensor_without_elements_needs_no_storage() -> None:
    x = freed(torch.randn(0, 4, 6, 6))
    assert conv2d(x, torch.randn(8, 4, 3, 3)).shape == (0, 8, 4, 4)
