"""Who is timed: fastconv and those it is compared with, one class each.

`candidates(case, data, pass)`, for a pass in `passes`, prepares everything outside the timing and returns calls to
time, one for each memory format that the library takes; the faster one counts. Each library gets its arrays as it
likes them best, reuses outputs where it can, and keeps its own threads' habits. A layer that it does not offer raises
`NotOffered`. Limits that hold for the whole process are set while somebody measures (`holding`), and no longer.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

import fastconv

from .. import reference
from .._core.arrays import Array, empty
from .cases import PASSES, Case, Data
from .measure import Candidate

# Axis orders between the logical NCHW / OIHW and channels-last NHWC / HWIO.
NHWC: Final = (0, 2, 3, 1)
FROM_NHWC: Final = (0, 3, 1, 2)
HWIO: Final = (2, 3, 1, 0)
FROM_HWIO: Final = (3, 2, 0, 1)
SPATIAL: Final = {1: "W", 2: "HW", 3: "DHW"}  # the letters of layouts, by the number of axes


def to_last(array: Array) -> Array:
    """From channels first to channels last, a view."""
    return np.moveaxis(array, 1, -1)


def to_first(array: Array) -> Array:
    """From channels last to channels first, a view."""
    return np.moveaxis(array, -1, 1)


def weights_last(array: Array) -> Array:
    """OIHW as HWIO, or a transposed layer's IOHW as HWOI, with any number of axes: a view."""
    return np.moveaxis(array, (0, 1), (-1, -2))


def weights_first(array: Array) -> Array:
    """The way back."""
    return np.moveaxis(array, (-1, -2), (0, 1))


class NotOffered(Exception):
    """The library has no such layer, dtype or pass."""


class Peer(Protocol):
    """A library that computes convolutions."""

    name: str
    passes: tuple[str, ...]

    def version(self) -> str: ...

    def candidates(self, case: Case, data: Data, pass_name: str) -> list[Candidate]: ...


def module(name: str) -> Any:
    """An optional module, imported only when it is used; typed as Any because it may be absent."""
    return importlib.import_module(name)


def _itself(result: Any) -> Array:
    return np.asarray(result)


def logical_reference(case: Case, data: Data, pass_name: str) -> Array:
    """What `fastconv.reference` says, computed in float64: the answer that everyone is held to."""
    geometry: dict[str, Any] = {
        "stride": case.stride, "padding": case.padding, "dilation": case.dilation, "groups": case.groups
    }  # fmt: skip
    x, w, dy = (array.astype(np.float64) for array in (data.x, data.weight, data.dy))
    if pass_name in ("fwd", "eager"):
        return np.asarray(named(reference, case)(x, w, data.bias.astype(np.float64), **geometry))
    if pass_name == "dx":
        return np.asarray(named(reference, case, "_input")(case.input_shape, w, dy, **geometry))
    return np.asarray(named(reference, case, "_weight")(x, case.weight_shape, dy, **geometry))


def named(of: Any, case: Case, after: str = "", before: str = "") -> Any:
    """A module's function for a case's operation and number of axes: `conv2d`, `conv_transpose1d` …"""
    return getattr(of, f"{before}conv{'_transpose' * case.transposed}{case.axes}d{after}")


class Ours:
    """fastconv in one memory format: a plan with `out=`, the plain call, and the gradient functions."""

    name = "fastconv"

    def __init__(self, threads: int, layout: str = "NHWC") -> None:
        self.threads, self.layout = threads, layout

    def version(self) -> str:
        return fastconv.__version__

    def candidates(self, case: Case, data: Data, pass_name: str) -> list[Candidate]:
        last = self.layout == "NHWC"
        x, dy = (np.ascontiguousarray(to_last(a)) if last else a for a in (data.x, data.dy))
        w = np.ascontiguousarray(weights_last(data.weight)) if last else data.weight
        geometry: dict[str, Any] = {
            "stride": case.stride, "padding": case.padding, "dilation": case.dilation, "groups": case.groups,
            "data_format": self.layout.replace("HW", SPATIAL[case.axes]), "num_threads": self.threads,
        }  # fmt: skip
        run, note = self._call(case, pass_name, x, w, data.bias, dy, geometry)
        back = weights_first if pass_name == "dw" else to_first
        return [Candidate(self.name, self.layout, run, lambda y: back(y) if last else y, note)]

    def _call(
        self, case: Case, pass_name: str, x: Array, w: Array, bias: Array, dy: Array, geometry: dict[str, Any]
    ) -> tuple[Callable[[], Array], str]:
        if pass_name == "dx":
            function = named(fastconv.grad, case, "_input")
            return lambda: function(x.shape, w, dy, **geometry), ""
        if pass_name == "dw":
            function = named(fastconv.grad, case, "_weight")
            return lambda: function(x, w.shape, dy, **geometry), ""
        if pass_name == "eager":
            call = named(fastconv, case)
            return lambda: call(x, w, bias, **geometry), ""
        out = empty(dy.shape, dy.dtype)
        plan = named(fastconv, case, before="plan_")(x.shape, w, bias, **geometry)
        return lambda: plan.run(x, out=out), str(plan.explain().kind)


class Torch:
    """PyTorch in both memory formats, without autograd's records; gradients by the operator that autograd calls."""

    name = "torch"
    passes: tuple[str, ...] = PASSES

    def __init__(self, threads: int) -> None:
        self.torch, self.threads = module("torch"), threads

    @contextmanager
    def held(self) -> Iterator[None]:
        """PyTorch on its threads: a number of the OpenMP runtime, which fastconv may share and then heeds, too."""
        before = self.torch.get_num_threads()
        self.torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            self.torch.set_num_threads(before)

    def version(self) -> str:
        return str(self.torch.__version__)

    def candidates(self, case: Case, data: Data, pass_name: str) -> list[Candidate]:
        formats = {"contiguous": self.torch.contiguous_format}
        if case.axes > 1:
            formats["channels_last"] = self.torch.channels_last if case.axes == 2 else self.torch.channels_last_3d
        return [
            Candidate(self.name, name, self._call(case, data, pass_name, memory_format), self._read)
            for name, memory_format in formats.items()
        ]

    @staticmethod
    def _read(result: Any) -> Array:
        return np.asarray(result.numpy())

    def _call(self, case: Case, data: Data, pass_name: str, memory_format: Any) -> Callable[[], Any]:
        torch = self.torch
        x, w, dy = (
            torch.from_numpy(array).clone(memory_format=torch.contiguous_format).to(memory_format=memory_format)
            for array in (data.x, data.weight, data.dy)
        )
        bias = torch.from_numpy(data.bias)
        stride, padding, dilation = [case.stride] * case.axes, list(case.pads), [case.dilation] * case.axes
        mode = torch.inference_mode
        if pass_name in ("fwd", "eager"):
            if case.transposed:
                function = named(torch.nn.functional, case)

                def forward() -> Any:
                    with mode():
                        return function(x, w, bias, stride, padding, 0, case.groups, dilation)

                return forward
            function = named(torch.nn.functional, case)

            def forward() -> Any:
                with mode():
                    return function(x, w, bias, stride, padding, dilation, case.groups)

            return forward
        backward = torch.ops.aten.convolution_backward
        wanted, mask = (0, [True, False, False]) if pass_name == "dx" else (1, [False, True, False])
        more = [0] * case.axes

        def gradient() -> Any:
            with mode():
                return backward(dy, x, w, None, stride, padding, dilation, case.transposed, more, case.groups, mask)[
                    wanted
                ]

        return gradient


def onnx_model(case: Case, data: Data) -> bytes:
    """A model of the one layer, its weights constants."""
    helper = module("onnx").helper
    node = helper.make_node(
        "ConvTranspose" if case.transposed else "Conv", ["x", "w", "b"], ["y"],
        kernel_shape=case.taps, strides=[case.stride] * case.axes, pads=case.pads * 2,
        dilations=[case.dilation] * case.axes, group=case.groups,
    )  # fmt: skip
    return serialized([node], {"w": data.weight, "b": data.bias}, case.input_shape, case.output_shape)


def serialized(
    nodes: list[Any], weights: dict[str, Array], input_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> bytes:
    """The ONNX model of nodes from `x` to `y`."""
    onnx = module("onnx")
    helper, numpy_helper, kind = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("x", kind, input_shape)],
        [helper.make_tensor_value_info("y", kind, output_shape)],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in weights.items()],
    )  # fmt: skip
    # Operator set 17 and format 8 are old enough for every release of the last years, and Conv has not changed since.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


class OnnxRuntime:
    """ONNX Runtime with input and output bound to buffers made once."""

    name = "onnxruntime"
    passes: tuple[str, ...] = ("fwd",)

    def __init__(self, threads: int) -> None:
        module("onnx")
        self.ort, self.threads = module("onnxruntime"), threads

    def version(self) -> str:
        return str(self.ort.__version__)

    def candidates(self, case: Case, data: Data, pass_name: str) -> list[Candidate]:
        if case.dtype != "float32":
            raise NotOffered("float32 only")
        return [self.candidate(onnx_model(case, data), data.x, case.output_shape)]

    def session(self, model: bytes | str) -> Any:
        """A model, or a path, loaded with the optimisations of the default."""
        options = self.ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return self.ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def candidate(self, model: bytes, image: Array, output_shape: tuple[int, ...]) -> Candidate:
        """A model from `x` to `y`, its tensors made once."""
        session = self.session(model)
        binding = session.io_binding()
        x = self.ort.OrtValue.ortvalue_from_numpy(image)
        y = self.ort.OrtValue.ortvalue_from_shape_and_type(output_shape, np.float32, "cpu")
        binding.bind_ortvalue_input("x", x)
        binding.bind_ortvalue_output("y", y)

        def run() -> Any:
            session.run_with_iobinding(binding)
            return y

        return Candidate(self.name, "NCHW", run, lambda value: np.asarray(value.numpy()))


class OpenVino:
    """OpenVINO with tensors made once, in both memory formats."""

    name = "openvino"
    passes: tuple[str, ...] = ("fwd",)

    def __init__(self, threads: int, precision: str = "f32") -> None:
        module("onnx")
        self.ov = module("openvino")
        self.core = self.ov.Core()
        self.options = {
            "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision,
            "NUM_STREAMS": 1,
        }  # fmt: skip

    def version(self) -> str:
        return str(self.ov.__version__).split("-")[0]

    def candidates(self, case: Case, data: Data, pass_name: str) -> list[Candidate]:
        if case.dtype != "float32":
            raise NotOffered("float32 only")
        model = onnx_model(case, data)
        return [self.candidate(model, data.x, case.output_shape, layout) for layout in ("NCHW", "NHWC")]

    def candidate(self, serialized: bytes, x: Array, shape: tuple[int, ...], layout: str) -> Candidate:
        """A model from images `x` (N, C, H, W) to an output of this shape, its images in the given layout; likewise
        with one or three spatial axes."""
        ov = self.ov
        model = self.core.read_model(serialized, b"")
        images = len(shape) == x.ndim  # else class scores, which have no layout
        if layout == "NHWC":
            first, last = (ov.Layout(word.replace("HW", SPATIAL[x.ndim - 2])) for word in ("NCHW", "NHWC"))
            x = np.ascontiguousarray(to_last(x))
            steps = ov.preprocess.PrePostProcessor(model)
            steps.input().tensor().set_layout(last)
            steps.input().model().set_layout(first)
            if images:
                shape = (shape[0], *shape[2:], shape[1])
                steps.output().model().set_layout(first)
                steps.output().tensor().set_layout(last)
            model = steps.build()
        request = self.core.compile_model(model, "CPU", self.options).create_infer_request()
        y = np.empty(shape, np.float32)
        request.set_input_tensor(ov.Tensor(x, shared_memory=True))
        request.set_output_tensor(ov.Tensor(y, shared_memory=True))

        def run(held: Array = x) -> Any:  # a shared tensor does not keep its array alive; the default argument does
            request.infer(share_outputs=True)
            return y

        return Candidate(self.name, layout, run, lambda v: to_first(v) if layout == "NHWC" and images else v)


class Ncnn:
    """ncnn on plain arrays, and on its own blocked format (`packed`) as layers within a network pass it on.

    It convolves one image a call: a batch is a loop.
    """

    name = "ncnn"
    passes: tuple[str, ...] = ("fwd",)

    def __init__(self, threads: int, bfloat16: bool = False) -> None:
        self.ncnn, self.threads, self.bfloat16 = module("ncnn"), threads, bfloat16

    def version(self) -> str:
        return str(self.ncnn.__version__)

    def candidates(self, case: Case, data: Data, pass_name: str) -> list[Candidate]:
        if case.dtype != "float32":
            raise NotOffered("float32 only")
        if (case.transposed and case.groups > 1) or case.axes != 2:
            raise NotOffered("set up for images alone, and not for grouped transposed layers")
        net = self._net(case, data)
        plain = [self.mat(image) for image in data.x]
        candidates = [self.candidate(net, plain, "plain")]
        pack = next((pack for pack in (16, 8, 4) if case.in_channels % pack == 0), 1)
        if pack > 1:
            packed = [self.ncnn.convert_packing(image, pack, net.opt) for image in plain]
            candidates.append(self.candidate(net, packed, "packed"))
        return candidates

    def net(self, param: str, weights: Iterable[tuple[bool, Array]]) -> Any:
        """A net of ncnn's text `param` with these weights, of which the first arrays of layers are marked True."""
        net = self.ncnn.Net()
        options = net.opt
        options.num_threads = self.threads
        options.use_winograd_convolution = options.use_sgemm_convolution = options.use_packing_layout = True
        options.use_vulkan_compute = False
        for narrow in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage", "bf16_packed"):
            if hasattr(options, f"use_{narrow}"):
                setattr(options, f"use_{narrow}", self.bfloat16 and narrow.startswith("bf16"))
        with tempfile.TemporaryDirectory() as folder:
            text, model = Path(folder, "net.param"), Path(folder, "net.bin")
            text.write_text(param)
            with model.open("wb") as file:
                for first, array in weights:
                    # Four zero bytes say that float32 weights follow; a bias has no such mark.
                    file.write((b"\0\0\0\0" if first else b"") + np.ascontiguousarray(array).tobytes())
            if net.load_param(str(text)) or net.load_model(str(model)):
                raise NotOffered("the net does not load")
        return net

    def _net(self, case: Case, data: Data) -> Any:
        grouped = case.groups > 1
        kind = "Deconvolution" if case.transposed else "ConvolutionDepthWise" if grouped else "Convolution"
        layer = (
            f"{kind} layer 1 1 x y 0={case.out_channels} 1={case.taps[1]} 11={case.taps[0]} 2={case.dilation} "
            f"3={case.stride} 4={case.pads[1]} 14={case.pads[0]} 5=1 6={data.weight.size}"
            + (f" 7={case.groups}" if grouped else "")
        )
        weight = data.weight.swapaxes(0, 1) if case.transposed else data.weight  # ncnn has (O, I, kH, kW) throughout
        return self.net(f"7767517\n2 2\nInput x 0 1 x\n{layer}\n", [(True, weight), (False, data.bias)])

    def mat(self, image: Array) -> Any:
        channels, height, width = image.shape
        mat = self.ncnn.Mat(width, height, channels)
        np.asarray(mat)[...] = image
        return mat

    def candidate(self, net: Any, images: list[Any], variant: str) -> Candidate:
        """A net from `x` to `y` run on each of the images."""
        keep_packing = 1 if variant == "packed" else 0

        def run() -> list[Any]:
            results = []
            for image in images:
                extractor = net.create_extractor()
                extractor.input("x", image)
                results.append(extractor.extract("y", keep_packing)[1])
            return results

        def read(results: list[Any]) -> Array:
            return np.stack([np.array(self.ncnn.convert_packing(result, 1, net.opt)) for result in results])

        return Candidate(self.name, variant, run, read)


class LiteRT:
    """LiteRT, which is XNNPACK on these layers: its file is written from the ONNX model."""

    name = "litert"
    passes: tuple[str, ...] = ("fwd",)

    def __init__(self, threads: int) -> None:
        for name in ("onnx", "ai_edge_litert.interpreter"):
            module(name)
        self.threads = threads

    def version(self) -> str:
        return importlib.metadata.version("ai-edge-litert")

    def candidates(self, case: Case, data: Data, pass_name: str) -> list[Candidate]:
        from .runtimes import RUNTIMES, Job

        if case.dtype != "float32":
            raise NotOffered("float32 only")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "layer.onnx")
            path.write_bytes(onnx_model(case, data))
            call = RUNTIMES[self.name].prepare(Job(str(path), data.x, self.threads), "")()
        return [Candidate(self.name, "NHWC", call.run, call.read)]


class Im2col:
    """Patches copied into a matrix made once, times NumPy's BLAS, in NHWC: what one writes without a library."""

    name = "im2col"
    passes: tuple[str, ...] = PASSES

    def __init__(self, threads: int) -> None:
        self.limits, self.threads = module("threadpoolctl").threadpool_limits, threads

    def held(self) -> AbstractContextManager[Any]:
        """BLAS on its threads, for the process: the reference is held to them too."""
        limit: AbstractContextManager[Any] = self.limits(limits=self.threads, user_api="blas")
        return limit

    def version(self) -> str:
        return f"NumPy {np.__version__}"

    def candidates(self, case: Case, data: Data, pass_name: str) -> list[Candidate]:
        if case.transposed or isinstance(case.kernel, tuple):
            raise NotOffered("written for square kernels, and not for transposed layers")
        p, g, side, size = case.pads[0], case.groups, case.kernel, case.output_size[0]
        taps = side**2
        x = np.ascontiguousarray(data.x.transpose(NHWC))
        padded = np.pad(x, [(0, 0), (p, p), (p, p), (0, 0)]) if p else x
        inside = padded[:, p : p + x.shape[1], p : p + x.shape[2]]
        inner, outer, pixels = case.in_channels // g, case.out_channels // g, case.batch * size * size
        # (g, taps * inner, outer): a matrix a group, in the order of the patches.
        w = data.weight.transpose(HWIO).reshape(taps, inner, g, outer).transpose(2, 0, 1, 3).reshape(g, -1, outer)
        w = np.ascontiguousarray(w)
        n, row, column, channel = padded.strides
        patches = np.lib.stride_tricks.as_strided(
            padded, (g, case.batch, size, size, side, side, inner),
            (inner * channel, n, case.stride * row, case.stride * column, case.dilation * row, case.dilation * column,
             channel),
        )  # fmt: skip
        as_it_lies = side == case.stride == g == 1 and p == 0
        columns = x.reshape(1, pixels, inner) if as_it_lies else np.empty((g, pixels, taps * inner), x.dtype)
        y = np.ascontiguousarray(data.dy.transpose(NHWC).reshape(pixels, g, outer).transpose(1, 0, 2))
        bias = data.bias.reshape(g, 1, outer)

        def unfold() -> None:
            if p:
                np.copyto(inside, x)
            if not as_it_lies:
                np.copyto(columns.reshape(patches.shape), patches)

        def forward() -> Array:
            unfold()
            np.matmul(columns, w, out=y)
            np.add(y, bias, out=y)
            return y

        def weight_gradient() -> Array:
            unfold()
            product: Array = np.matmul(columns.transpose(0, 2, 1), y)
            return product

        def input_gradient() -> Array:
            gradient: Array = np.matmul(y, w.transpose(0, 2, 1)).reshape(patches.shape)
            if as_it_lies:
                return gradient.reshape(x.shape)
            folded = np.zeros((g, *padded.shape[:3], inner), x.dtype)
            reach = case.stride * (size - 1) + 1
            for i, j in np.ndindex(side, side):
                top, left = i * case.dilation, j * case.dilation
                rows, across = slice(top, top + reach, case.stride), slice(left, left + reach, case.stride)
                folded[:, :, rows, across] += gradient[:, :, :, :, i, j]
            images = folded[:, :, p : p + x.shape[1], p : p + x.shape[2]]
            return images.transpose(1, 2, 3, 0, 4).reshape(x.shape)

        def read(result: Array) -> Array:
            images = result.reshape(g, case.batch, size, size, outer)
            return images.transpose(1, 0, 4, 2, 3).reshape(case.output_shape)

        def read_weights(result: Array) -> Array:
            by_tap = result.reshape(g, side, side, inner, outer).transpose(1, 2, 3, 0, 4)
            return by_tap.reshape(side, side, inner, g * outer).transpose(FROM_HWIO)

        if pass_name == "dx":
            return [Candidate(self.name, "NHWC", input_gradient, lambda dx: dx.transpose(FROM_NHWC))]
        if pass_name == "dw":
            return [Candidate(self.name, "NHWC", weight_gradient, read_weights)]
        return [Candidate(self.name, "NHWC", forward, read)]


class Reference:
    """`fastconv.reference`, the NumPy twin: written to be read, not to be fast."""

    name = "reference"
    passes: tuple[str, ...] = PASSES

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def version(self) -> str:
        return f"NumPy {np.__version__}"

    def candidates(self, case: Case, data: Data, pass_name: str) -> list[Candidate]:
        return [Candidate(self.name, "NCHW", lambda: logical_reference(case, data, pass_name), _itself, "once")]


PEERS: Final[dict[str, Callable[[int], Peer]]] = {
    "torch": Torch,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "ncnn": Ncnn,
    "litert": LiteRT,
    "im2col": Im2col,
    "reference": Reference,
}


@contextmanager
def holding(peers: Iterable[Peer]) -> Iterator[None]:
    """Hold libraries whose threads are a matter of the whole process to theirs, and give back what was set before."""
    with ExitStack() as stack:
        for peer in peers:
            if isinstance(peer, (Torch, Im2col)):
                stack.enter_context(peer.held())
        yield


def load_peers(names: Iterable[str], threads: int) -> tuple[list[Peer], dict[str, str]]:
    """The peers that are installed, and why each of the others is not there."""
    found: list[Peer] = []
    missing: dict[str, str] = {}
    for name in names:
        try:
            found.append(PEERS[name](threads))
        except ImportError as error:
            missing[name] = f"{error.name or name} is not installed" if error.name else str(error)
    return found, missing
