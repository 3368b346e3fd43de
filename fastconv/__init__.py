"""fastconv: fast, exact convolution for NumPy arrays on CPUs.

The functions carry PyTorch's names and argument order, so that `import fastconv as F` stands in for
`import torch.nn.functional as F` on arrays. `fastconv.grad` holds the gradients one by one, `fastconv.reference` a
NumPy twin of every function to check them by.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import functional, grad
from .errors import ConvError, ConvTypeError
from .functional import (
    avg_pool2d,
    conv1d,
    conv2d,
    conv2d_backward,
    conv_transpose1d,
    conv_transpose2d,
    explain_conv2d,
    info,
    max_pool2d,
    plan_conv2d,
    tiled_conv2d,
)
from .plan import ConvExplanation, ConvPlan
from .threads import get_num_threads, set_num_threads

if TYPE_CHECKING:
    from . import reference

__version__ = "0.1.0"

__all__ = [
    "ConvError",
    "ConvExplanation",
    "ConvPlan",
    "ConvTypeError",
    "__version__",
    "avg_pool2d",
    "conv1d",
    "conv2d",
    "conv2d_backward",
    "conv_transpose1d",
    "conv_transpose2d",
    "explain_conv2d",
    "functional",
    "get_num_threads",
    "grad",
    "info",
    "max_pool2d",
    "plan_conv2d",
    "reference",
    "set_num_threads",
    "tiled_conv2d",
]


def __getattr__(name: str) -> Any:
    """Import the reference when it is first asked for: few callers need it."""
    if name == "reference":
        return import_module(".reference", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), "reference"})
