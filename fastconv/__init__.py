"""fastconv: fast, exact convolution for NumPy arrays on CPUs.

The functions carry PyTorch's names and argument order, so that `import fastconv as F` stands in for
`import torch.nn.functional as F` on arrays. `fastconv.grad` holds the gradients one by one, `fastconv.reference` a
NumPy twin of every function to check them by.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._core import (
    built,  # noqa: F401  finds the compiled module; so it comes first
    isa,  # noqa: F401  honours FASTCONV_ISA
)

# isort: split
from . import functional
from ._core.threads import get_num_threads, set_num_threads
from .errors import ConvError, ConvTypeError
from .functional import (
    conv1d,
    conv1d_backward,
    conv2d,
    conv2d_backward,
    conv3d,
    conv3d_backward,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    info,
    tiled_conv2d,
)
from .plans import (
    explain_conv1d,
    explain_conv2d,
    explain_conv3d,
    plan_conv1d,
    plan_conv2d,
    plan_conv3d,
    plan_conv_transpose1d,
    plan_conv_transpose2d,
    plan_conv_transpose3d,
)
from .pooling import avg_pool1d, avg_pool2d, avg_pool3d, max_pool1d, max_pool2d, max_pool3d

if TYPE_CHECKING:
    from . import callbacks, grad, layers, losses, models, optimizers, quantized, reference, streaming
    from ._core.conv_plan import ConvPlan
    from ._core.explanation import ConvExplanation
    from .models import Input, Model, Sequential
    from .models.saved import load_model
    from .models.tiles import tiled_predict

__version__ = "0.1.0"

__all__ = [
    "ConvError",
    "ConvExplanation",
    "ConvPlan",
    "ConvTypeError",
    "Input",
    "Model",
    "Sequential",
    "__version__",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "callbacks",
    "conv1d",
    "conv1d_backward",
    "conv2d",
    "conv2d_backward",
    "conv3d",
    "conv3d_backward",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "explain_conv1d",
    "explain_conv2d",
    "explain_conv3d",
    "functional",
    "get_num_threads",
    "grad",
    "info",
    "layers",
    "load_model",
    "losses",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "models",
    "optimizers",
    "plan_conv1d",
    "plan_conv2d",
    "plan_conv3d",
    "plan_conv_transpose1d",
    "plan_conv_transpose2d",
    "plan_conv_transpose3d",
    "quantized",
    "reference",
    "set_num_threads",
    "streaming",
    "tiled_conv2d",
    "tiled_predict",
]


# Imported when first asked for, so that `import fastconv` stays cheap.
_CLASSES = {
    "ConvPlan": "._core.conv_plan", "ConvExplanation": "._core.explanation", "Sequential": ".models",
    "Input": ".models", "Model": ".models", "load_model": ".models.saved", "tiled_predict": ".models.tiles",
}  # fmt: skip
_LAZY = ("callbacks", "grad", "layers", "losses", "models", "optimizers", "quantized", "reference", "streaming")
_BRIDGES = ("dask", "keras", "onnx", "scipy", "torch", "weights")  # whose packages may be missing, which they say


def __getattr__(name: str) -> Any:
    """Import what is not needed for the functions when it is first asked for."""
    if name in _LAZY or name in _BRIDGES:
        return import_module(f".{name}", __name__)
    if name in _CLASSES:
        return getattr(import_module(_CLASSES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_CLASSES})
