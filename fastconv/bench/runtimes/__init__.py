"""Libraries that run a whole net from an ONNX file, each of which is asked for by name in a process of its own."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..._core.arrays import Array
from ..._core.threads import get_num_threads, set_num_threads
from ..peers import Ncnn, NotOffered, OnnxRuntime, OpenVino, Torch, module
from ..report import OURS

FLOAT32: Final = "float32"
BFLOAT16: Final = "bfloat16"  # products of it, summed in float32: asked of each library in its own way
INT8: Final = "int8"  # the file holds QuantizeLinear and DequantizeLinear, and the float net lies beside it
ANSWER: Final = "answer"  # who is believed: ONNX Runtime without optimisations
BACKEND: Final = "torch.compile fastconv"  # PyTorch with our backend; no peer: bench/torch_compile.py asks for it


@dataclass(frozen=True)
class Job:
    """A net to run: its file, what is fed, the threads, in which precision."""

    path: str
    x: Array
    threads: int
    precision: str = FLOAT32


@dataclass(frozen=True)
class Call:
    """What is timed, and how its result is read."""

    run: Callable[[], Any]
    read: Callable[[Any], Array]


# `prepare` imports the library and brings the net into the library's own form; what it returns loads it.
Load = Callable[[], Call]


def _fastconv(job: Job, variant: str) -> Load:
    from ...onnx import InferenceSession

    feeds = {"x": job.x}

    def load() -> Call:
        asked = BFLOAT16 if job.precision == BFLOAT16 else None
        session = InferenceSession(job.path, num_threads=job.threads, precision=asked)
        return Call(lambda: session.run(None, feeds)[0], np.asarray)

    return load


def _onnxruntime(job: Job, variant: str) -> Load:
    if job.precision == BFLOAT16:
        raise NotOffered("its convolutions on CPUs are of float32")
    peer = OnnxRuntime(job.threads)

    def load() -> Call:
        session = peer.session(job.path)
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", peer.ort.OrtValue.ortvalue_from_numpy(job.x))
        made = {one.name: peer.ort.OrtValue.ortvalue_from_shape_and_type(one.shape, np.float32, "cpu")
                for one in session.get_outputs()}  # fmt: skip
        for name, y in made.items():
            binding.bind_ortvalue_output(name, y)

        def run() -> Any:
            session.run_with_iobinding(binding)
            return next(iter(made.values()))

        return Call(run, lambda value: np.array(value.numpy()))

    return load


def _answer(job: Job, variant: str) -> Load:
    """The right result: ONNX Runtime without any optimisation; where it is missing, our own session without any."""
    try:
        ort = module("onnxruntime")
    except ImportError:
        from ...onnx import InferenceSession

        def load_ours() -> Call:
            session = InferenceSession(job.path, num_threads=job.threads, optimise=False)
            return Call(lambda: session.run(None, {"x": job.x})[0], np.asarray)

        return load_ours

    def load() -> Call:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = job.threads
        options.log_severity_level = 3
        session = ort.InferenceSession(job.path, options, providers=["CPUExecutionProvider"])
        return Call(lambda: session.run(None, {"x": job.x})[0], np.asarray)

    return load


def _openvino(job: Job, variant: str) -> Load:
    peer = OpenVino(job.threads, "bf16" if job.precision == BFLOAT16 else "f32")

    def load() -> Call:
        compiled = peer.core.compile_model(peer.core.read_model(job.path), "CPU", peer.options)
        request = compiled.create_infer_request()
        request.set_input_tensor(peer.ov.Tensor(job.x, shared_memory=True))

        def run(held: Array = job.x) -> Any:  # a shared tensor does not keep its array alive
            request.infer(share_outputs=True)
            return request

        return Call(run, lambda done: np.array(done.get_output_tensor(0).data))

    return load


def _torch(job: Job, variant: str) -> Load:
    torch = module("torch")
    from .reading import named, read
    from .torch_graph import torch_module

    last, how = variant.endswith("channels_last"), variant.split()[0]
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    if last and job.x.ndim not in formats:
        raise NotOffered("no channels_last of this many axes")
    if job.precision == INT8:
        return _torch_int8(torch, job, last, how in ("compile", "fastconv"))
    net = named(read(job.path))

    def load() -> Call:
        made, x = torch_module(net), torch.from_numpy(job.x)
        if last:
            made = made.to(memory_format=formats[job.x.ndim])
            x = x.contiguous(memory_format=formats[job.x.ndim])
        if how == "fastconv":
            from ...torch import backend

            made = torch.compile(made, dynamic=False, backend=backend)
        elif how == "compile":
            os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
            made = torch.compile(made, dynamic=False)

        def run() -> Any:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, job.precision == BFLOAT16):
                return made(x)

        return Call(run, lambda y: np.asarray(y.float().contiguous().numpy()))

    return load


def _torch_int8(torch: Any, job: Job, last: bool, compiled: bool) -> Load:
    """The x86 backend of quantised operators."""
    if compiled:
        raise NotOffered("its quantised operators run as they are, without torch.compile")
    from ..quantised import torch_int8

    make = torch_int8(job.path, job.x, last)

    def load() -> Call:
        made, x = make(), torch.from_numpy(job.x)
        if last:
            x = x.contiguous(memory_format=torch.channels_last)

        def run() -> Any:
            with torch.inference_mode():
                return made(x)

        return Call(run, lambda y: np.asarray(y.contiguous().numpy()))

    return load


def _ncnn(job: Job, variant: str) -> Load:
    if job.precision == INT8:
        raise NotOffered("its nets of 8 bits are made by tools that its Python package does not have")
    peer = Ncnn(job.threads, job.precision == BFLOAT16)
    from .ncnn_graph import ncnn_files
    from .reading import folded, named, read

    net = folded(named(read(job.path)))
    if job.x.ndim > 5 or net.shapes["x"][0] != len(job.x):
        raise NotOffered("its values have at most four axes")
    text, arrays, shape = ncnn_files(net)

    def load() -> Call:
        return _ncnn_call(peer, job, text, arrays, shape)

    return load


def _ncnn_call(peer: Ncnn, job: Job, text: str, arrays: Any, shape: tuple[int, ...]) -> Call:
    """One image a call, a batch is a loop."""
    net = peer.net(text, arrays)
    images = [peer.ncnn.Mat(np.ascontiguousarray(image)).clone() for image in job.x]

    def run() -> list[Any]:
        results = []
        for image in images:
            extractor = net.create_extractor()
            extractor.input("x", image)
            results.append(extractor.extract("y", 0)[1])
        return results

    def read(results: list[Any]) -> Array:
        return np.stack([np.array(peer.ncnn.convert_packing(y, 1, net.opt)).reshape(shape[1:]) for y in results])

    return Call(run, read)


def _litert(job: Job, variant: str) -> Load:
    if job.precision == INT8:
        raise NotOffered("its nets of 8 bits are made by TensorFlow's converter, from other files than these")
    if job.precision == BFLOAT16:
        raise NotOffered("its delegate offers no bfloat16")
    interpreter = module("ai_edge_litert.interpreter")
    from .litert_graph import litert_file
    from .reading import folded, named, read

    made_file = litert_file(folded(named(read(job.path))))
    path = Path(job.path).with_suffix(".tflite")  # beside the net, with which it goes
    path.write_bytes(made_file.content)
    made_file.content = b""

    def load() -> Call:
        made = interpreter.Interpreter(model_path=str(path), num_threads=job.threads)
        made.allocate_tensors()
        made.set_tensor(made.get_input_details()[0]["index"], made_file.fed(job.x))
        index = made.get_output_details()[0]["index"]

        def run() -> Any:
            made.invoke()
            return made

        return Call(run, lambda done: made_file.read(done.get_tensor(index)))

    return load


@dataclass(frozen=True)
class Runtime:
    """A library: how it is prepared, in which variants, and the package that must be there."""

    prepare: Callable[[Job, str], Load]
    variants: tuple[str, ...]
    package: str = ""

    def version(self) -> str:
        return importlib.metadata.version(self.package) if self.package else ""


@contextmanager
def holding(names: Iterable[str], threads: int) -> Iterator[None]:
    """Libraries whose threads are a matter of the whole process are held to these, and get back what they had."""
    with ExitStack() as stack:
        if OURS in names:
            stack.callback(set_num_threads, get_num_threads())
            set_num_threads(threads)
        if find_spec("torch") is not None and any(RUNTIMES[name].package == "torch" for name in names):
            stack.enter_context(Torch(threads).held())
        yield


RUNTIMES: Final[dict[str, Runtime]] = {
    OURS: Runtime(_fastconv, ("ONNX",)),
    "onnxruntime": Runtime(_onnxruntime, ("ONNX",), "onnxruntime"),
    "openvino": Runtime(_openvino, ("ONNX",), "openvino"),
    "torch": Runtime(_torch, ("contiguous", "channels_last"), "torch"),
    "torch.compile": Runtime(_torch, ("compile contiguous", "compile channels_last"), "torch"),
    BACKEND: Runtime(_torch, ("fastconv contiguous", "fastconv channels_last"), "torch"),
    "ncnn": Runtime(_ncnn, ("its own",), "ncnn"),
    "litert": Runtime(_litert, ("XNNPACK",), "ai-edge-litert"),
    ANSWER: Runtime(_answer, ("",)),
}

