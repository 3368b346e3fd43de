"""Nets of the zoo in 8 bits: by ONNX Runtime's quantiser for who reads ONNX, by PyTorch's own for its x86 backend."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from .._core.arrays import Array
from .peers import NotOffered, module

SAMPLES: Final = 4  # random inputs of a calibration, as what is fed
FLOAT: Final = "float.onnx"  # the net as it was, beside that in 8 bits


def quantise_file(folder: Path, shape: tuple[int, ...]) -> None:
    """`net.onnx` of a folder in 8 bits, QuantizeLinear and DequantizeLinear around its operators: weights a channel,
    activations of uint8; the float one is kept under another name."""
    quantization = module("onnxruntime.quantization")
    prepare = module("onnxruntime.quantization.shape_inference").quant_pre_process
    source, ready = folder / FLOAT, folder / "ready.onnx"
    (folder / "net.onnx").rename(source)
    rng = np.random.default_rng(1)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.left = iter([{"x": rng.standard_normal(shape, np.float32)} for _ in range(SAMPLES)])

        def get_next(self) -> Any:
            return next(self.left, None)

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # advice to prepare models that were
    try:
        prepare(str(source), str(ready), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(ready), str(folder / "net.onnx"), Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
            activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
        )  # fmt: skip
    finally:
        logging.disable(before)
    ready.unlink(missing_ok=True)


def torch_int8(path: str, x: Array, channels_last: bool) -> Callable[[], Any]:
    """What makes a module of PyTorch's x86 backend: quantised by its own observers on random inputs."""
    torch = module("torch")
    from .runtimes.reading import folded, named, read
    from .runtimes.torch_graph import torch_module

    fx = module("torch.ao.quantization.quantize_fx")
    ao = module("torch.ao.quantization")
    if "x86" not in torch.backends.quantized.supported_engines:
        raise NotOffered("this build has no x86 backend of quantised operators")
    net = folded(named(read(str(Path(path).with_name(FLOAT)))))
    rng = np.random.default_rng(1)

    def load() -> Any:
        torch.backends.quantized.engine = "x86"
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            given = torch.from_numpy(x)
            made = fx.prepare_fx(torch_module(net), ao.get_default_qconfig_mapping("x86"), (given,))
            for _ in range(SAMPLES):
                made(torch.from_numpy(rng.standard_normal(x.shape, np.float32)))
            made = fx.convert_fx(made)
            if channels_last:
                made(given.contiguous(memory_format=torch.channels_last))
            return made

    return load
