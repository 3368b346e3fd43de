"""fastconv under PyTorch: `accelerate(model)` swaps the convolutions that fastconv computes faster.

`torch.compile(model, backend="fastconv")` makes a whole net one program. `conv2d` and `conv_transpose2d` take tensors
and have the signatures of `torch.nn.functional`; `Conv2d` and `ConvTranspose2d` are subclasses of `torch.nn`'s with the
same parameters and `state_dict`; all of them exist of one and three axes, too. Tensors of float32 or float64 on the CPU
are computed here, without a copy either way; whatever else PyTorch takes goes to PyTorch.
Derivatives of any order, `torch.compile` and channels-last tensors work as with PyTorch's own operators; whoever
traces, exports or transforms a model meets PyTorch's own.
"""

from . import needed as _needed  # noqa: F401  (first, as it says what is missing)
from .entry import backend
from .modules import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from .ops import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d
from .pooling import AvgPool1d, AvgPool2d, AvgPool3d, MaxPool1d, MaxPool2d, MaxPool3d
from .reports import CompileReport, Decision, Report, compile_reports
from .swap import accelerate, restore

__all__ = [
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "CompileReport",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Decision",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "Report",
    "accelerate",
    "backend",
    "compile_reports",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "restore",
]
